//! The exit statuses of WAL-E's verbs, situation by situation, and the records that report them.

use wale_testkit::{ClusterOptions, Exit, SidecarOptions, free_port, wale_command};

use wale_testkit::s3::{Action, Answer, Fault, Kind};

use crate::s3_stage::{PATH, S3Stage};
use crate::support::{Stage, WALE};

/// The archive has no such segment.
const ABSENT: &str = "0000000100000000000000F0";

fn run(options: &SidecarOptions, arguments: &[&str]) -> Exit {
    let output = wale_command(WALE, "wal-e", options)
        .args(arguments)
        .output()
        .unwrap();
    Exit {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Settings, arguments, the status, and a word of the message.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], i32, &'a str);

/// What cannot be configured: WAL-E's 1, and before it the mistakes of the command line, 2.
#[test]
fn wal_e_s_statuses_of_what_is_configured_wrongly() {
    let folder = tempfile::tempdir().unwrap();
    let archive = format!("file://localhost{}", folder.path().display());
    let options = |settings: &[(&str, &str)]| SidecarOptions {
        environment: settings
            .iter()
            .chain(&[("PGDATA", "/nowhere"), ("WALE_LOG_DESTINATION", "stderr")])
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        port: 0,
        as_postgres: false,
    };
    let here: (&str, &str) = ("WALE_FILE_PREFIX", &archive);
    let s3 = ("WALE_S3_PREFIX", "s3://bucket/path");
    let (id, key) = (
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
    );
    let region = ("AWS_REGION", "us-east-1");
    let cases: [Case; 14] = [
        (&[], &["backup-list"], 1, "WALE_FILE_PREFIX"),
        (&[], &[], 1, "WALE_FILE_PREFIX"),
        (&[here], &[], 127, "subcommand not implemented"),
        (&[], &["version"], 0, ""),
        (
            &[("WALE_FILE_PREFIX", "nfs://x/y")],
            &["backup-list"],
            1,
            "nfs",
        ),
        (&[s3, region], &["backup-list"], 1, "AWS_"),
        (&[s3, id, key], &["backup-list"], 1, "AWS_REGION"),
        (
            &[s3, id, key, region, ("AWS_INSTANCE_PROFILE", "perhaps")],
            &["backup-list"],
            1,
            "AWS_INSTANCE_PROFILE",
        ),
        // WAL-E encrypted with an empty key as well: it is not silently left out.
        (
            &[here, ("WALE_GPG_KEY_ID", "")],
            &["wal-push", "pg_wal/000000010000000000000001"],
            1,
            "WALE_GPG_KEY_ID",
        ),
        (&[here], &["backup-push", "relative"], 1, "absolute"),
        (&[here], &["--nonsense"], 2, "usage: wal-e"),
        (&[here], &["backup-list", "--terse"], 2, "usage: wal-e"),
        (&[here], &["wal-fetch", ABSENT], 2, "usage: wal-e"),
        (
            &[here],
            &["backup-list", "base_x"],
            1,
            "invalid backup query",
        ),
    ];
    for (settings, arguments, status, told) in cases {
        let exit = run(&options(settings), arguments);
        let shown = format!("{settings:?} {arguments:?}: {}", exit.stderr);
        assert_eq!(exit.code(), status, "{shown}");
        assert!(exit.stderr.contains(told), "{shown}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn wal_e_s_statuses_beside_a_server() {
    let stage = Stage::with("statustable", &ClusterOptions::default(), |options| {
        options.set("WALE_COMPRESSION", "lzo")
    });
    stage.cluster.sql("create table t (v int)");
    let segment = stage.archive_all();
    stage.backup();
    let data = stage.cluster.data.to_string_lossy().into_owned();
    let target = stage.sandbox.folder("target").join("fetched");
    let path = target.to_string_lossy().into_owned();

    let nobody = free_port().to_string();
    let no_server = stage.options.clone().set("PGPORT", &nobody);
    let exit = run(&no_server, &["backup-push", &data]);
    assert_eq!(exit.code(), 1, "{}", exit.stderr);

    let exit = run(&stage.options, &["backup-fetch", &data, "LATEST"]);
    assert_eq!(exit.code(), 1, "a server runs there: {}", exit.stderr);
    assert_eq!(stage.cluster.sql("select 1"), "1");

    // Half of it, and all of it with a bit turned over.
    let object = stage.archive().join(format!("wal_005/{segment}.lzo"));
    let whole = std::fs::read(&object).unwrap();
    let mut turned = whole.clone();
    turned[whole.len() / 2] ^= 0x10;
    for broken in [&whole[..whole.len() / 2], &turned, b"", b"nonsense"] {
        std::fs::write(&object, broken).unwrap();
        let exit = run(&stage.options, &["wal-fetch", "-p", "0", &segment, &path]);
        assert_eq!(exit.code(), 1, "{}", exit.stderr);
        assert!(
            exit.stderr.contains(" ERROR    MSG: ") && !target.exists(),
            "{}",
            exit.stderr
        );
    }
    std::fs::write(&object, &whole).unwrap();
    let exit = run(&stage.options, &["wal-fetch", "-p", "0", &segment, &path]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    assert!(target.exists());

    let cases: [(&[&str], i32); 5] = [
        (&["delete", "before", "nonsense"], 1),
        (&["delete", "before", &segment], 0),
        (&["delete", "old-versions"], 0),
        (&["delete", "retain", "-1"], 1),
        (&["delete"], 2),
    ];
    for (arguments, status) in cases {
        let exit = run(&stage.options, arguments);
        assert_eq!(exit.code(), status, "{arguments:?}: {}", exit.stderr);
    }
}

/// The table is what scripts read: the key as the bucket has it, and S3's own code and words.
#[test]
fn what_s3_will_not_delete_is_told_in_wal_e_s_table() {
    let s3 = S3Stage::moto("refusedtable");
    s3.segment();
    s3.stage.backup();
    s3.segment();
    s3.stage.backup();
    s3.stage.cluster.wait_archived();
    // The first request to delete is for the sentinel of the older backup.
    let mut sentinels = s3.server.objects_with("_backup_stop_sentinel.json");
    sentinels.sort();
    let kept = &sentinels[0];
    assert!(
        kept.starts_with(&format!("{PATH}/basebackups_005/")),
        "{kept}"
    );
    let (code, words) = (
        "AccessDenied",
        "Access Denied because object protected by object lock.",
    );
    let answer = format!(
        "<DeleteResult><Error><Key>{kept}</Key><Code>{code}</Code><Message>{words}</Message></Error></DeleteResult>"
    );
    s3.proxy.fault(
        Fault::on(&[Kind::DeleteMany]).once(),
        Action::ReplaceReply(Answer::new(200, &answer)),
    );
    let exit = run(&s3.stage.options, &["delete", "--confirm", "retain", "1"]);
    assert_eq!(exit.code(), 1, "{}", exit.stderr);
    assert_eq!(
        exit.stdout,
        format!("key\terror_code\terror_message\r\n{kept}\t{code}\t{words}\r\n"),
        "{}",
        exit.stderr
    );
}

/// The records of a log, each with the keys of its STRUCTURED part, without time and process.
fn records(stderr: &str) -> Vec<String> {
    let mut records: Vec<String> = Vec::new();
    for line in stderr.lines() {
        match line.strip_prefix("        ") {
            Some(part) => {
                let record = records.last_mut().expect("a record begins");
                let part = match part.strip_prefix("STRUCTURED: time=") {
                    Some(rest) => {
                        let keys = rest.split_once(" pid=").expect("a process").1;
                        let keys = keys.split_once(' ').map_or("", |(_, keys)| keys);
                        format!("STRUCTURED: {keys}")
                    }
                    None => part.to_owned(),
                };
                record.push('\n');
                record.push_str(&part);
            }
            None => records.push(line.to_owned()),
        }
    }
    records
}

/// The archive's prefix as the records have it.
fn prefix_of(stage: &Stage) -> String {
    let place = format!("{}/", stage.archive().display());
    place.trim_start_matches('/').to_owned()
}

/// The records of a segment that is fetched ahead: the key that is sought, and the one that is found.
fn check_prefetch(stage: &Stage, wal: &str, segment: &str, (sought, key): (&str, &str)) {
    let prefix = prefix_of(stage);
    let log = run(&stage.options, &["wal-prefetch", wal, segment]).stderr;
    let told = records(&log);
    for (record, words, key, state) in [
        (&told[0], "begin wal restore", sought, "begin"),
        (&told[1], "complete wal restore", key, "complete"),
    ] {
        assert_eq!(
            *record,
            format!(
                "wal_e.operator.backup INFO     MSG: {words}\n\
                 STRUCTURED: action=wal-prefetch key={key} prefix={prefix} seg={segment} state={state}"
            )
        );
    }
}

/// The records of a file that is not in the archive.
fn check_absence(stage: &Stage, wal: &str, target: &str) {
    let archive = format!("file://{}", stage.archive().display());
    let prefix = prefix_of(stage);
    for (arguments, action) in [
        (&["wal-fetch", "-p", "0", ABSENT, target][..], "wal-fetch"),
        (&["wal-prefetch", wal, ABSENT], "wal-prefetch"),
    ] {
        let exit = run(&stage.options, arguments);
        assert_eq!(exit.code(), 1, "{}", exit.stderr);
        let told = records(&exit.stderr);
        let absent = told.last().unwrap();
        let sought = format!("{archive}/wal_005/{ABSENT}");
        assert!(
            absent.starts_with(&format!(
                "wal_e.operator.backup INFO     MSG: could no longer locate object while performing wal restore\n\
                 DETAIL: The absolute URI that could not be located is {sought}"
            )) && absent.ends_with(&format!(
                "STRUCTURED: action={action} key={sought} prefix={prefix} seg={ABSENT}"
            )),
            "{}",
            exit.stderr
        );
    }
}

#[test]
fn the_records_of_wal_files_are_those_that_are_watched_for() {
    let stage = Stage::with("walrecords", &ClusterOptions::default(), |options| {
        options.set("WALE_COMPRESSION", "lzo")
    });
    stage.cluster.sql("create table t (v int)");
    let segment = stage.archive_all();
    let archive = format!("file://{}", stage.archive().display());
    let prefix = prefix_of(&stage);
    let key = format!("{archive}/wal_005/{segment}.lzo");
    let pushed = stage.cluster.wal.join(&segment);
    let pushed = pushed.to_string_lossy();
    let log = run(&stage.options, &["wal-push", &pushed]).stderr;
    let told = records(&log);
    assert_eq!(told.len(), 2, "{log}");
    assert_eq!(
        told[0],
        format!(
            "wal_e.worker.upload INFO     MSG: begin archiving a file\n\
             DETAIL: Uploading \"{pushed}\" to \"{key}\".\n\
             STRUCTURED: action=push-wal key={key} prefix={prefix} seg={segment} state=begin"
        )
    );
    let (before, rate) = told[1].split_once(" rate=").expect(&log);
    assert!(
        before.starts_with(&format!(
            "wal_e.worker.upload INFO     MSG: completed archiving to a file\n\
             DETAIL: Archiving to \"{key}\" complete at "
        )) && before.ends_with(&format!(
            "KiB/s.\nSTRUCTURED: action=push-wal key={key} prefix={prefix}"
        )) && rate.ends_with(&format!(" seg={segment} state=complete")),
        "{log}"
    );

    let target = stage.sandbox.folder("target").join("fetched");
    let target = target.to_string_lossy().into_owned();
    let log = run(&stage.options, &["wal-fetch", "-p", "0", &segment, &target]).stderr;
    let told = records(&log);
    // Under which extension the file is stored is not known before it is found.
    let sought = format!("{archive}/wal_005/{segment}");
    assert_eq!(
        told[0],
        format!(
            "wal_e.operator.backup INFO     MSG: begin wal restore\n\
             STRUCTURED: action=wal-fetch key={sought} prefix={prefix} seg={segment} state=begin"
        )
    );
    assert!(
        told[1].contains("INFO     MSG: complete wal restore\n")
            && told[1].contains(&format!(" key={key} prefix={prefix} rate="))
            && told[1].ends_with(&format!(" seg={segment} state=complete")),
        "{log}"
    );

    let wal = stage.sandbox.folder("wal").to_string_lossy().into_owned();
    check_prefetch(&stage, &wal, &segment, (&sought, &key));
    check_absence(&stage, &wal, &target);

    let log = run(&stage.options, &["delete", "everything"]).stderr;
    let expected = format!(
        "wal_e.worker.base INFO     MSG: deleting a wal file\n\
         DETAIL: The key being deleted is {key}.\n\
         HINT: This is only a dry run -- no actual data is being deleted\n\
         STRUCTURED: "
    );
    assert!(records(&log).contains(&expected), "{log}");
}
