//! Tests of the whole: sources to settings.

use std::path::PathBuf;
use std::time::Duration;

use wale_cluster::Secret;
use wale_format::Codec;
use wale_ops::Kind;
use wale_ops::retention::{Policy, WalRetention};

use super::declared::{
    PGDATA, PGHOST, PGPASSWORD, PGPORT, PGUSER, PGWAL, RECOVERY_ADDITION, START_MODE, StartMode,
    WALE_BACKUP_READ_RATE, WALE_BACKUP_WORKERS, WALE_COMPRESSION, WALE_COMPRESSION_LEVEL,
    WALE_FETCH_STOPS_RECOVERY, WALE_HTTP_TOKEN, WALE_INIT_LOCKFILE, WALE_LISTEN_PORT, WALE_MEMORY,
    WALE_RESTORE_LABEL, WALE_RESTORE_WORKERS, WALE_SHUTDOWN_GRACE, WALE_SIDECAR_HOSTNAME,
    WALE_SWEEP_GRACE, WALE_TABLESPACE_MAPPING, WALE_UPLOAD_RATE,
};
use super::*;

fn load(environment: &[(&str, &str)]) -> Loaded {
    Loaded::for_test(environment, "")
}

const ARCHIVE: (&str, &str) = ("WALE_FILE_PREFIX", "file://localhost/archive");

#[test]
fn defaults_are_the_originals() {
    let loaded = load(&[ARCHIVE]);
    let settings = loaded.require_all().unwrap();
    assert_eq!(settings.get(&START_MODE), StartMode::ContinousBackup);
    assert_eq!(settings.get(&WALE_LISTEN_PORT), 5000);
    assert_eq!(
        settings.get(&PGDATA).to_str(),
        Some("/var/lib/postgresql/data")
    );
    assert_eq!(
        settings.get(&PGWAL).to_str(),
        Some("/var/lib/postgresql/data/pg_wal")
    );
    assert_eq!(
        settings.get(&WALE_INIT_LOCKFILE).to_str(),
        Some("/var/lib/postgresql/data/wale_init_lockfile")
    );
    assert_eq!(settings.get(&WALE_RESTORE_LABEL).to_string(), "LATEST");
    assert_eq!(settings.get(&WALE_SIDECAR_HOSTNAME), "localhost");
    assert_eq!(
        (
            settings.get(&PGHOST).as_str(),
            settings.get(&PGPORT),
            settings.get(&PGUSER).as_str()
        ),
        ("localhost", 5432, "postgres")
    );
    assert_eq!(
        settings.schedule().as_ref().map(|s| s.text().to_owned()),
        Some("0 0 * * *".into())
    );
    assert_eq!(settings.place, Some(Place::Directory("/archive".into())));
    assert_eq!(
        (
            settings.get(&WALE_COMPRESSION),
            settings.get(&WALE_COMPRESSION_LEVEL)
        ),
        (Codec::Zstd, None)
    );
    assert!(loaded.warnings.is_empty());
}

#[test]
fn values_are_parsed() {
    let loaded = load(&[
        ARCHIVE,
        ("START_MODE", "RESTORE"),
        ("PGDATA", "/data"),
        ("CRON_TIMING", ""),
        ("WALE_MEMORY", "64MiB"),
        ("WALE_SHUTDOWN_GRACE", "2min"),
        ("WALE_HTTP_TOKEN", "t0ken"),
        ("RECOVERY_ADDITION", "a = 'b'\nc = 'd'"),
        ("WALE_TABLESPACE_MAPPING", "16384=/ts"),
        ("WALE_FETCH_STOPS_RECOVERY", "off"),
    ]);
    let settings = loaded.require_all().unwrap();
    assert_eq!(settings.get(&START_MODE), StartMode::Restore);
    assert_eq!(settings.get(&PGWAL).to_str(), Some("/data/pg_wal"));
    assert_eq!(
        settings.get(&WALE_INIT_LOCKFILE).to_str(),
        Some("/data/wale_init_lockfile")
    );
    assert!(settings.schedule().is_none());
    assert_eq!(settings.get(&WALE_MEMORY), 64 << 20);
    assert_eq!(settings.get(&WALE_SHUTDOWN_GRACE), Duration::from_mins(2));
    assert_eq!(
        settings.get(&WALE_HTTP_TOKEN).as_ref().map(Secret::expose),
        Some("t0ken")
    );
    assert_eq!(
        settings.get(&RECOVERY_ADDITION).as_deref(),
        Some("a = 'b'\nc = 'd'")
    );
    assert_eq!(
        settings.get(&WALE_TABLESPACE_MAPPING),
        Some(vec![("16384".to_owned(), PathBuf::from("/ts"))])
    );
    assert!(!settings.get(&WALE_FETCH_STOPS_RECOVERY));
}

#[test]
fn all_mistakes_are_reported_together() {
    let loaded = load(&[
        ("START_MODE", "BACKUP"),
        ("WALE_LISTEN_PORT", "tcp://10.0.0.1:5000"),
        ("CRON_TIMING", "0 0 0 * * *"),
        ("WALE_COMPRESSION", "gzip"),
        ("WALG_CSE_KMS_ID", "0xAFFE"),
        ("WALE_MEMORY", "1MB"),
        ("PGDATA", "data"),
    ]);
    let error = loaded.require_all().err().unwrap();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (Kind::Configuration, "configuration: 8 mistakes")
    );
    let detail = error.detail.unwrap();
    for part in [
        "START_MODE",
        "CONTINUOUS_BACKUP, BACKUP_PUSH or RESTORE",
        "enableServiceLinks",
        "CRON_TIMING",
        "WALE_COMPRESSION",
        "encryption with a key of Amazon's key service is not built yet",
        "WALE_MEMORY: 1MB is too little",
        "PGDATA: \"data\" is not an absolute path",
        "no place for the archive",
        "WALE_SWIFT_PREFIX",
    ] {
        assert!(detail.contains(part), "{part} is not in\n{detail}");
    }
}

#[test]
fn a_verb_fails_only_on_the_groups_that_it_uses() {
    let loaded = load(&[ARCHIVE, ("CRON_TIMING", "nonsense"), ("WALE_LOG", "loud")]);
    let error = loaded.require(&[Group::Archive]).err().unwrap();
    assert!(
        error.message.contains("WALE_LOG"),
        "the program's own settings always count"
    );
    let loaded = load(&[ARCHIVE, ("CRON_TIMING", "nonsense")]);
    assert!(loaded.require(&[Group::Archive, Group::Wal]).is_ok());
    assert!(loaded.require(&[Group::Sidecar]).is_err());
    assert!(
        load(&[]).require(&[Group::Endpoint]).is_ok(),
        "the client needs no archive"
    );
}

/// A client parses a part of the settings only, and says of them what everybody else says.
#[test]
fn a_client_reads_the_same_and_refuses_the_same() {
    let cases: &[&[(&str, &str)]] = &[
        &[],
        &[
            ("WALE_SIDECAR_HOSTNAME", "db"),
            ("WALE_LISTEN_PORT", "5001"),
            ("WALE_HTTP_TOKEN", "t0ken"),
        ],
        &[
            ("WALE_LISTEN_PORT", "none"),
            ("WALE_LISTEN_ADDRESS", "here"),
            ("WALE_LOG", "loud"),
        ],
        &[
            ("WALE_HTTP_TOKEN", "with space"),
            ("WALE_HTTP_TOKEN_FILE", "/nonexistent"),
        ],
        &[
            ("WALE_HTTP_TOKEN_FOR", "reads"),
            ("WALE_TLS_CERT_FILE", "/c.pem"),
            ("WALE_HTTP_HOSTS", "a b"),
        ],
        &[
            ("WALE_TLS_KEY_FILE", "key"),
            ("WALE_CLIENT_CA_FILE", "ca.pem"),
        ],
        // What is none of a client's business: two archives, a schedule, an archive's codec, a number.
        &[
            ARCHIVE,
            ("WALE_S3_PREFIX", "s3://b/p"),
            ("CRON_TIMING", "nonsense"),
            ("WALE_COMPRESSION", "?"),
        ],
        &[
            ARCHIVE,
            ("WALE_PREFIX_3", "s3://b/p"),
            ("WALE_LISTEN_PORT_2", "1"),
            ("WALE_LISTEN_PORT", "0x1"),
        ],
        &[ARCHIVE, ("WALE_ARCHIVE", "2"), ("WALE_LISTEN_PORT", "many")],
        &[
            ARCHIVE,
            ("WALE_ARCHIVE", "2"),
            ("WALE_PREFIX_2", "file:///b"),
            ("WALE_LISTEN_PORT", "many"),
        ],
    ];
    for case in cases {
        let whole = load(case);
        let client = Loaded::of_endpoint(Sources::for_test(&[], case, ""));
        let told = |loaded: &Loaded| {
            let settings = loaded.require(&[Group::Endpoint]);
            settings.map(|_| ()).map_err(|error| format!("{error:?}"))
        };
        assert_eq!(told(&client), told(&whole), "{case:?}");
        let values = [&client, &whole].map(|loaded| of_a_client(&loaded.settings));
        assert_eq!(values[0], values[1], "{case:?}");
    }
}

/// The values that a client uses.
fn of_a_client(settings: &Settings) -> String {
    let token = settings.get(&WALE_HTTP_TOKEN);
    let values = (
        settings.get(&WALE_SIDECAR_HOSTNAME),
        settings.get(&declared::WALE_LISTEN_ADDRESS),
        settings.get(&WALE_LISTEN_PORT),
        token.map(|token| token.expose().to_owned()),
        settings.get(&declared::WALE_CLIENT_CA_FILE),
        settings.tls_files(),
        settings.get(&declared::WALE_LOG).to_string(),
    );
    format!("{values:?}")
}

#[test]
fn compression_and_level_fit_together() {
    for (codec, level, sound) in [
        ("zstd", "3", true),
        ("zstd", "", true),
        ("lz4", "", true),
        ("lz4", "3", false),
        ("lzo", "", true),
        ("lzo", "3", false),
        ("lz4", "auto", false),
        ("none", "auto", false),
        ("zstd", "auto", true),
        ("zstd", "Auto", true),
        ("zstd", "1001", false),
        ("zstd", "40", false),
    ] {
        let loaded = load(&[
            ARCHIVE,
            ("WALE_COMPRESSION", codec),
            ("WALE_COMPRESSION_LEVEL", level),
        ]);
        assert_eq!(loaded.require_all().is_ok(), sound, "{codec} {level}");
    }
}

#[test]
fn the_bucket_variables_build_the_prefix() {
    let loaded = load(&[
        ("WALE_S3_BUCKET", "b"),
        ("WALE_S3_PATH", "/p"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "canary"),
    ]);
    let settings = loaded.require_all().unwrap();
    let expected = Place::Bucket {
        bucket: "b".into(),
        prefix: "p/".into(),
    };
    assert_eq!(settings.place, Some(expected));
    assert!(!format!("{settings:?}").contains("canary"));
}

#[test]
fn mistakes_of_s3_count_when_the_archive_is_there() {
    let wrong = [("AWS_REGION", "?"), ("WALE_S3_ENDPOINT", "nowhere")];
    let loaded = load(&[&wrong[..], &[ARCHIVE]].concat());
    assert!(loaded.require_all().is_ok(), "the archive is a directory");
    let loaded = load(&[&wrong[..], &[("WALE_S3_PREFIX", "s3://b/p")]].concat());
    let error = loaded.require(&[Group::Archive]).err().unwrap();
    let detail = error.detail.unwrap();
    for name in ["AWS_REGION", "WALE_S3_ENDPOINT", "AWS_ACCESS_KEY_ID"] {
        assert!(detail.contains(name), "{name} in {detail}");
    }
    assert!(loaded.require(&[Group::Server]).is_ok());
}

#[test]
fn secrets_appear_nowhere() {
    const CANARY: &str = "canary-7f3a";
    let facts = SETTINGS.iter().map(|setting| setting.facts());
    let secrets: Vec<&Facts> = facts.filter(|facts| facts.secret).collect();
    assert!(secrets.iter().any(|s| s.name == "PGPASSWORD"));
    let mut environment = vec![ARCHIVE];
    environment.extend(secrets.iter().map(|s| (s.name, CANARY)));
    let loaded = load(&environment);
    let error = loaded.require_all().err().map(|e| format!("{e:?}"));
    for text in [
        format!("{loaded:?}"),
        format!("{error:?}"),
        show_text(&loaded.shown()),
        show_json(&loaded.shown()).to_string(),
    ] {
        assert!(!text.contains(CANARY), "{text}");
    }
    let text = show_text(&loaded.shown());
    assert!(
        text.contains("PGPASSWORD") && text.contains("(secret)"),
        "{text}"
    );
    assert!(text.contains("environment PGPASSWORD"), "{text}");
    // A token that cannot be sent is refused without being quoted.
    let loaded = load(&[ARCHIVE, ("WALE_HTTP_TOKEN", "canary 7f3a")]);
    assert!(!format!("{:?}", loaded.require_all().err().unwrap()).contains("canary"));
}

#[test]
fn a_secrets_file_that_is_not_there_or_empty_is_one_mistake() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = empty.path().to_str().unwrap();
    let s3 = ("WALE_S3_PREFIX", "s3://bucket/path");
    let region = ("AWS_REGION", "eu-central-1");
    let id = ("AWS_ACCESS_KEY_ID", "AKIA");
    let reads = ("WALE_HTTP_TOKEN_FOR", "reads");
    for file in ["/nonexistent", empty, "canary"] {
        let sets: [&[(&str, &str)]; 4] = [
            &[s3, region, id, ("AWS_SECRET_ACCESS_KEY_FILE", file)],
            &[ARCHIVE, reads, ("WALE_HTTP_TOKEN_FILE", file)],
            &[ARCHIVE, ("PGPASSWORD_FILE", file)],
            &[ARCHIVE, ("TZ", "Europe/Berln")],
        ];
        for set in sets {
            let loaded = load(set);
            let error = loaded.require_all().map(drop).unwrap_err();
            assert!(!error.message.contains("mistakes"), "{error:?}");
            let shown = super::show::show_text(&loaded.shown());
            assert!(!format!("{error:?}{shown}").contains("canary"));
        }
    }
    // Files of secrets that are read elsewhere.
    for name in ["AWS_WEB_IDENTITY_TOKEN_FILE", "WALE_TLS_KEY_FILE"] {
        let loaded = load(&[ARCHIVE, s3, (name, "canary")]);
        let error = loaded.require_all().map(drop).unwrap_err();
        let shown = super::show::show_text(&loaded.shown());
        assert!(!format!("{error:?}{shown}").contains("canary"), "{name}");
    }
}

#[test]
fn retention_is_off_until_a_rule_is_set() {
    assert!(!load(&[ARCHIVE]).require_all().unwrap().retention().is_set());
    let loaded = load(&[
        ARCHIVE,
        ("WALE_RETAIN_DAYS", "7"),
        ("WALE_RETAIN_WEEKLY", "4"),
        ("WALE_RETAIN_WAL", "consistent"),
        ("TZ", "Europe/Berlin"),
        ("WALE_SWEEP_GRACE", "2h"),
    ]);
    let settings = loaded.require_all().unwrap();
    let expected = Policy {
        days: Some(7),
        weekly: Some(4),
        zone: wale_pg::Zone::named("Europe/Berlin").unwrap(),
        wal: WalRetention::Consistent,
        ..Policy::default()
    };
    assert_eq!(settings.retention(), expected);
    assert_eq!(settings.get(&WALE_SWEEP_GRACE), Duration::from_hours(2));
    for (name, value) in [
        ("WALE_RETAIN_BACKUPS", "0"),
        ("WALE_RETAIN_DAYS", "-1"),
        ("WALE_RETAIN_MONTHLY", "many"),
        ("WALE_SWEEP_GRACE", "10min"),
    ] {
        let loaded = load(&[ARCHIVE, (name, value)]);
        let error = loaded.require(&[Group::Retention]).expect_err(name);
        assert!(error.message.contains(name), "{}", error.message);
    }
}

/// Quotes that an env file or a Secret kept, and the end of a line that came with a value.
#[test]
fn fault_101_quotes_and_line_ends_of_values() {
    let quoted = [
        ("WALE_LISTEN_PORT", "\"5000\""),
        ("WALE_MEMORY", "'64MB'"),
        ("PGCONNECT_TIMEOUT", "\"10s\""),
        ("CRON_TIMING", "\"0 0 * * *\""),
        ("WALE_FILE_PREFIX", "\"file:///a\""),
    ];
    for (name, value) in quoted {
        let mut environment = vec![(name, value)];
        if name != ARCHIVE.0 {
            environment.push(ARCHIVE);
        }
        let error = load(&environment).require_all().map(drop).unwrap_err();
        assert!(format!("{error:?}").contains("quotes"), "{name}: {error:?}");
    }
    let environment = [
        ARCHIVE,
        ("WALE_LISTEN_PORT", "5001\n"),
        ("PGPASSWORD", "'a b' \n"),
    ];
    let loaded = load(&environment);
    let settings = loaded.require_all().unwrap();
    assert_eq!(settings.get(&WALE_LISTEN_PORT), 5001);
    assert_eq!(
        settings.get(&PGPASSWORD).as_ref().unwrap().expose(),
        "'a b' "
    );
}

#[test]
fn a_connection_string_in_place_of_a_name_is_refused_and_not_repeated() {
    for (name, value, refused) in [
        ("PGHOST", "host=x password=canary", true),
        ("PGHOST", "postgres://u:canary@h/x", true),
        ("PGUSER", "postgres://u:canary@h/x", true),
        ("PGDATABASE", "dbname=x password=canary", true),
        ("PGHOST", "/run/a=b", false),
        ("PGHOST", "@abstract", false),
        ("PGHOST", "db.example.org", false),
        ("PGUSER", "cn=wale", false),
    ] {
        let loaded = load(&[ARCHIVE, (name, value)]);
        let error = loaded.require_all().err().map(|error| format!("{error:?}"));
        assert_eq!(error.is_some(), refused, "{name}={value}: {error:?}");
        let error = error.unwrap_or_default();
        assert!(!error.contains("canary"), "{error}");
        assert!(!refused || name != "PGHOST" || error.contains("a host name or a folder"));
    }
}

#[test]
fn a_short_secret_garbles_no_error() {
    let loaded = load(&[
        ARCHIVE,
        ("PGPASSWORD", "b"),
        ("WALG_ENVELOPE_PGP_KEY_PATH", "/k"),
    ]);
    let error = format!("{:?}", loaded.require_all().unwrap_err());
    assert!(error.contains("not built yet"), "{error}");
    assert!(!error.contains("(secret)"), "{error}");
    // The name of a setting is no word that a secret follows.
    let loaded = load(&[ARCHIVE, ("WALE_HTTP_TOKEN", "x y")]);
    let error = loaded.require_all().err().map(|error| format!("{error:?}"));
    let error = error.expect("a token with a blank is refused");
    assert!(!error.contains("(secret)"), "{error}");
}

#[test]
fn the_environment_of_wal_g_means_what_it_meant_and_says_what_it_does_not() {
    let loaded = load(&[
        ("WALG_FILE_PREFIX", "/archive"),
        ("WALG_STORAGE_PREFIX", "/main/"),
        ("WALG_COMPRESSION_METHOD", "brotli"),
        ("WALG_ZSTD_LEVEL", "better"),
        ("WALG_UPLOAD_DISK_CONCURRENCY", "4"),
        ("WALG_DOWNLOAD_CONCURRENCY", "200"),
        ("WALG_DISK_RATE_LIMIT", "1048576"),
        ("WALG_NETWORK_RATE_LIMIT", "2097152"),
        ("WALG_UPLOAD_QUEUE", "8"),
        ("WALG_DELTA_MAX_STEPS", "6"),
        ("WALG_UPLAOD_QUEUE", "8"),
    ]);
    let settings = loaded.require_all().unwrap();
    assert_eq!(
        settings.place,
        Some(Place::Directory("/archive/main".into()))
    );
    assert_eq!(settings.get(&WALE_COMPRESSION), Codec::Zstd);
    assert_eq!(
        settings.get(&WALE_COMPRESSION_LEVEL),
        Some(CompressionLevel::Fixed(7))
    );
    assert_eq!(settings.get(&WALE_BACKUP_WORKERS), 4);
    assert_eq!(settings.get(&WALE_RESTORE_WORKERS), 64);
    assert_eq!(settings.get(&WALE_BACKUP_READ_RATE), Some(1 << 20));
    assert_eq!(settings.get(&WALE_UPLOAD_RATE), Some(2 << 20));
    let expected = [
        "WALG_COMPRESSION_METHOD=brotli: wale reads brotli and does not write it; what is new is written as zstd",
        "WALG_DELTA_MAX_STEPS has no effect: wale takes full backups; WAL-G's deltas are read",
        "WALG_UPLAOD_QUEUE is not a known setting and has no effect",
    ];
    assert_eq!(loaded.warnings, expected);
    let shown = show_text(&loaded.shown());
    assert!(
        shown.contains("environment WALG_COMPRESSION_METHOD"),
        "{shown}"
    );
}
