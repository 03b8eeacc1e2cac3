//! Tables of command lines.

use std::path::PathBuf;

use wale_ops::Kind;

use super::*;

fn parse_words(line: &str) -> Result<Invocation, Early> {
    parse(line.split_whitespace().map(OsString::from).collect())
}

fn status(line: &str) -> u8 {
    parse_words(line).map_or_else(|early| early.status, |_| 255)
}

#[test]
fn the_face_follows_the_name() {
    for (program, face) in [
        ("wale", Face::Wale),
        ("/usr/bin/wal-e", Face::WalE),
        ("./wal-e", Face::WalE),
        ("wal-e.bin", Face::Wale),
    ] {
        assert_eq!(Face::of(Some(&program.into())), face, "{program}");
    }
    assert_eq!(Face::of(None), Face::Wale);
}

#[test]
fn wal_es_spellings_of_the_pool() {
    for options in [
        "-p 0",
        "-p0",
        "-p=0",
        "--prefetch 0",
        "--prefetch=0",
        "--pref 0",
    ] {
        let line =
            format!("wal-e wal-fetch {options} 000000010000000000000001 pg_wal/RECOVERYXLOG");
        let Ok(Invocation {
            verb: Verb::WalFetch(fetch),
            ..
        }) = parse_words(&line)
        else {
            panic!("{line}: {:?}", parse_words(&line));
        };
        assert_eq!(fetch.prefetch, Some(0), "{line}");
        assert_eq!(fetch.destination, PathBuf::from("pg_wal/RECOVERYXLOG"));
    }
    // Options and positional arguments mix in any order.
    let mixed = parse_words("wal-e wal-push pg_wal/000000010000000000000001 -p=2").unwrap();
    assert!(matches!(
        mixed.verb,
        Verb::WalPush(WalPush {
            pool_size: Some(2),
            ..
        })
    ));
    let mixed = parse_words("wal-e backup-fetch /d -p 2 LATEST").unwrap();
    assert!(matches!(mixed.verb, Verb::BackupFetch(f) if f.name == "LATEST"));
}

#[test]
fn wal_es_global_options_stand_before_the_verb() {
    let parsed = parse_words("wal-e --terse --file-prefix file:///a -k KEY backup-list --detail");
    let parsed = parsed.unwrap();
    assert_eq!(parsed.flags["WALE_FILE_PREFIX"], "file:///a");
    assert_eq!(parsed.flags["WALE_LOG"], "warn");
    assert!(matches!(
        parsed.verb,
        Verb::BackupList(BackupList { detail: true, .. })
    ));
    for (line, expected) in [
        ("wal-e backup-list --terse", 2),
        ("wal-e backup-list --file-prefix x", 2),
        ("wal-e -k a --aws-instance-profile backup-list", 2),
        ("wal-e nonsense", 2),
        ("wal-e wal-fetch only-one", 2),
        ("wal-e backup-push /d --pool-size many", 2),
        ("wal-e backup-push /d -k KEY", 2),
        ("wal-e --gs x backup-list", 2),
        ("wal-e wal-prefetch /d", 2),
        ("wal-e wal-fetch -p -1 a b", 2),
        ("wal-e --help", 0),
        ("wal-e --he", 0),
        ("wal-e wal-fetch only-one --help", 0),
        ("wal-e wal-fetch --nonsense -h", 0),
        ("wal-e --nonsense backup-list --help", 0),
        ("wal-e backup-push -h", 0),
    ] {
        assert_eq!(status(line), expected, "{line}");
    }
    let early = parse_words("wal-e backup-list --terse").unwrap_err();
    assert!(
        early.text.starts_with("usage: wal-e backup-list ")
            && early
                .text
                .contains("\nwal-e: error: unexpected argument '--terse' found")
            && !early.on_stdout,
        "{}",
        early.text
    );
    let help = parse_words("wal-e wal-fetch --nonsense -h").unwrap_err();
    assert!(
        help.on_stdout && help.text.contains("WAL_DESTINATION"),
        "{}",
        help.text
    );
    let said = parse_words("wal-e --aws-i --s3 s3://b/p -a N wal-prefetch /d SEG").unwrap();
    assert_eq!(said.words, "wal-prefetch");
    assert_eq!(said.flags["AWS_INSTANCE_PROFILE"], "true");
    assert_eq!(said.flags["WALE_S3_PREFIX"], "s3://b/p");
    assert_eq!(parse_words("wal-e").unwrap().verb, Verb::Missing);
    assert_eq!(parse_words("wal-e version").unwrap().verb, Verb::Version);
}

#[test]
fn wales_verbs_and_the_settings_flags() {
    for line in [
        "wale --listen-port 5001 serve",
        "wale serve --listen-port=5001",
        "wale serve --listen-port 5001",
    ] {
        let parsed = parse_words(line).unwrap();
        assert_eq!(parsed.verb, Verb::Serve);
        assert_eq!(parsed.flags["WALE_LISTEN_PORT"], "5001", "{line}");
    }
    let fetch = parse_words("wale backup-fetch /d LATEST -T /a=/b -T 16384=/c --dry-run").unwrap();
    let Verb::BackupFetch(fetch) = fetch.verb else {
        panic!("not a fetch")
    };
    assert_eq!(fetch.tablespace_mapping.len(), 2);
    assert!(fetch.dry_run);
    let client = parse_words("wale client fetch 00000002.history pg_wal/RECOVERYHISTORY --standby");
    assert!(matches!(
        client.unwrap().verb,
        Verb::Client(Client::Fetch { standby: true, .. })
    ));
    for (line, expected) in [
        ("wale", 64),
        ("wale nonsense", 64),
        ("wale backup-fetch /d LATEST -T a=b", 64),
        ("wale serve --http-token x", 64),
        ("wale --help", 0),
        ("wale --version", 0),
    ] {
        assert_eq!(status(line), expected, "{line}");
    }
}

/// What wal-fetch hands to the wal-prefetch that it starts.
#[test]
fn flags_survive_as_options_of_the_same_face() {
    for line in [
        "wal-e --terse --file-prefix file:///a -k KEY wal-fetch S D",
        "wal-e --aws-i --s3 s3://b/p -a N --gpg-key-id=K wal-fetch S D",
        "wal-e --gs-prefix gs://b --wabs-prefix wabs://b wal-fetch S D",
        "wal-e wal-fetch S D",
        "wale --file-prefix file:///a wal-fetch S D --fetch-deadline 3s --log trace",
        "wale --s3-prefix=s3://b/p wal-fetch S D",
    ] {
        let parsed = parse_words(line).unwrap();
        let program = line.split(' ').next().unwrap();
        let mut words = vec![program.to_owned()];
        words.extend(parsed.options());
        words.extend(["wal-prefetch", "--placed", "/d", "S"].map(str::to_owned));
        let again = parse(words.into_iter().map(OsString::from).collect()).unwrap();
        assert_eq!(again.flags, parsed.flags, "{line}");
    }
}

/// No number of bytes at all is no limit that anybody means.
#[test]
fn a_read_rate_of_nothing_is_a_mistake() {
    let line = |program: &str, rate: &str| {
        format!("{program} backup-push --cluster-read-rate-limit {rate} /d")
    };
    for nothing in ["0", "0MB", "fast", "-1"] {
        assert_eq!(status(&line("wal-e", nothing)), 2, "{nothing}");
        assert_eq!(status(&line("wale", nothing)), 64, "{nothing}");
    }
    for rate in ["1", "50MB"] {
        assert_eq!(status(&line("wal-e", rate)), 255, "{rate}");
    }
    let parsed = parse_words("wale backup-push --cluster-read-rate-limit 2MB /d").unwrap();
    assert!(matches!(
        parsed.verb,
        Verb::BackupPush(push) if push.cluster_read_rate_limit == Some(2 << 20)
    ));
    for verb in ["backup-push /d", "backup-fetch /d LATEST", "wal-push x"] {
        assert_eq!(status(&format!("wale {verb} --pool-size 0")), 64, "{verb}");
        assert_eq!(status(&format!("wal-e {verb} -p 0")), 2, "{verb}");
    }
}

/// The words that people type who know other tools.
#[test]
fn other_words_for_verbs_are_told_the_right_one() {
    for (typed, told) in [
        ("recover", "backup-fetch"),
        ("list", "backup-list"),
        ("backups", "backup-list"),
        ("backup", "backup-push"),
        ("fsck", "wale verify"),
    ] {
        for program in ["wale", "wal-e"] {
            let early = parse_words(&format!("{program} {typed} x")).unwrap_err();
            assert!(early.text.contains(told), "{program}: {}", early.text);
            assert_ne!(early.status, 0);
        }
    }
    // wale has them; WAL-E had not.
    for (typed, told) in [
        ("status", "wale status"),
        ("check", "wale check"),
        ("verify", "wale verify"),
    ] {
        let early = parse_words(&format!("wal-e {typed} x")).unwrap_err();
        assert!(early.text.contains(told), "{}", early.text);
    }
}

#[test]
fn the_commands_are_sound() {
    command().debug_assert();
    let help = command().render_long_help().to_string();
    assert!(
        help.contains("WALE_LISTEN_PORT") && !help.contains("WALE_FAULT_CONTROL"),
        "{help}"
    );
}

#[test]
fn statuses_of_both_faces() {
    for (kind, wale, wal_e) in [
        (Kind::NotFound, 1, 1),
        (Kind::Configuration, 78, 1),
        (Kind::StorageUnavailable, 75, 1),
        (Kind::Internal, 70, 2),
    ] {
        assert_eq!(
            (Face::Wale.exit_status(kind), Face::WalE.exit_status(kind)),
            (wale, wal_e)
        );
    }
}

#[test]
fn mistyped_fetches_are_recognised() {
    let words = |line: &str| {
        line.split_whitespace()
            .map(OsString::from)
            .collect::<Vec<_>>()
    };
    assert!(looks_like_a_fetch(&words("wale wal-fetch --nonsense x y")));
    assert!(looks_like_a_fetch(&words("wale client fetch x")));
    assert!(!looks_like_a_fetch(&words("wale client push x")));
}

#[test]
fn deletions_are_dry_unless_confirmed() {
    // (words after the program, dry run)
    for (words, dry_run) in [
        ("delete retain 2", true),
        ("delete --confirm retain 2", false),
        ("delete -n --confirm retain 2", true),
        ("delete --dry-run --confirm everything", true),
        ("delete --confir everything", false),
        ("delete --confirm old-versions", false),
        ("delete before 00000001000000000000000B", true),
        ("delete target base_00000001000000000000000B_00000040", true),
        (
            "delete --confirm target base_00000001000000000000000B_00000040",
            false,
        ),
    ] {
        for program in ["wale", "wal-e"] {
            let line = format!("{program} {words}");
            let Ok(Invocation {
                verb: Verb::Delete(delete),
                ..
            }) = parse_words(&line)
            else {
                panic!("{line}: {:?}", parse_words(&line));
            };
            assert_eq!(delete.act.is_dry_run(), dry_run, "{line}");
        }
    }
    let Verb::Delete(delete) = parse_words("wal-e delete retain -1").unwrap().verb else {
        panic!("not a deletion")
    };
    // A number all the same: the verb refuses it with a reason.
    assert_eq!(delete.what, DeleteWhat::Retain { count: -1 });
    let Verb::Retain(retain) = parse_words("wale retain").unwrap().verb else {
        panic!("not retain")
    };
    assert!(retain.act.is_dry_run());
    for line in [
        "wale delete retain 3 --confirm",
        "wale delete --confirm retain 3",
        "wal-e delete retain 3 --confirm",
        "wal-e delete everything --conf",
        "wale delete target LATEST --confirm --json",
    ] {
        let Verb::Delete(delete) = parse_words(line).unwrap().verb else {
            panic!("not delete")
        };
        assert!(!delete.act.is_dry_run(), "{line}");
    }
    for (line, expected) in [
        ("wal-e delete", 2),
        ("wal-e delete retain", 2),
        ("wal-e delete retain many", 2),
        ("wal-e delete nonsense", 2),
        ("wal-e retain", 2),
        ("wal-e backup-mark LATEST", 2),
        ("wale delete", 64),
        ("wale delete retain 3 --confirm --nonsense", 64),
        ("wale delete before", 64),
        ("wale delete target", 64),
        ("wale backup-mark", 64),
    ] {
        assert_eq!(status(line), expected, "{line}");
    }
}
