//! The command line: WAL-E's verbs by both names, statuses, the table of backups to the byte, progress.

use std::process::Command;

use wale_testkit::{Sidecar, free_port, shell, wale_command};

use crate::support::{Stage, WALE};

#[test]
fn backup_list_prints_wal_e_s_table() {
    let stage = Stage::new("list", 15);
    let empty = stage.sidecar.verb(WALE, "wal-e", &["backup-list"]);
    let header = "name\tlast_modified\texpanded_size_bytes\twal_segment_backup_start\t\
                  wal_segment_offset_backup_start\twal_segment_backup_stop\t\
                  wal_segment_offset_backup_stop\r\n";
    // The archive is claimed by the first push or not yet there: header only, either way.
    assert_eq!(
        (empty.code(), empty.stdout.as_str()),
        (0, header),
        "{}",
        empty.stderr
    );
    stage.backup();
    let plain = stage.sidecar.verb(WALE, "wal-e", &["backup-list"]).stdout;
    let row: Vec<&str> = plain.strip_prefix(header).unwrap().split('\t').collect();
    assert_eq!(row.len(), 7, "{plain}");
    assert!(row[0].starts_with("base_0000000100000000000000"), "{plain}");
    assert_eq!((row[2], row[5], row[6]), ("", "", "\r\n"));
    let detail = stage
        .sidecar
        .verb(WALE, "wal-e", &["backup-list", "--detail", "LATEST"])
        .stdout;
    let row: Vec<&str> = detail
        .strip_prefix(header)
        .unwrap()
        .trim_end()
        .split('\t')
        .collect();
    assert!(row[2].parse::<u64>().unwrap() > 10_000_000, "{detail}");
    assert_eq!(
        (row[3].len(), row[4].len(), row[5].len(), row[6].len()),
        (24, 8, 24, 8)
    );
    let json = stage
        .sidecar
        .verb(WALE, "wale", &["backup-list", "--json"])
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().map(Vec::len), Some(1), "{json}");
    let bad = stage
        .sidecar
        .verb(WALE, "wal-e", &["backup-list", "nonsense"]);
    assert_eq!(bad.code(), 1, "{}", bad.stderr);
}

#[test]
fn the_verbs_have_wal_e_s_statuses_when_called_as_wal_e() {
    let stage = Stage::new("statuses", 15);
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let target = stage.sandbox.folder("target").join("fetched");
    let target = target.to_string_lossy().into_owned();
    let cases: [(&[&str], i32); 9] = [
        (&["version"], 0),
        (&["wal-fetch", "-p=0", &segment, &target], 0),
        (
            &[
                "wal-fetch",
                "--prefetch=0",
                "0000000100000000000000F0",
                &target,
            ],
            1,
        ),
        (
            &[
                "--terse",
                "wal-fetch",
                "-p",
                "0",
                "0000000100000000000000F0",
                &target,
            ],
            1,
        ),
        (&["wal-push", "/nowhere/0000000100000000000000F0"], 1),
        (
            &[
                "backup-fetch",
                "/nowhere/at/all",
                "base_000000010000000000000009_00000040",
            ],
            1,
        ),
        (&["backup-list", "--no-such-option"], 2),
        (&["no-such-verb"], 2),
        (&[], 127),
    ];
    for (arguments, code) in cases {
        let exit = stage.sidecar.verb(WALE, "wal-e", arguments);
        assert_eq!(exit.code(), code, "wal-e {arguments:?}: {}", exit.stderr);
    }
    assert_eq!(
        std::fs::read(&target).unwrap(),
        std::fs::read(stage.cluster.wal.join(&segment)).unwrap()
    );
}

/// style.md 8: where PostgreSQL would read an ordinary status as the end of the WAL, 250 stops it.
#[test]
fn wal_fetch_stops_recovery_when_the_store_cannot_answer() {
    let stage = Stage::new("fetch250", 15);
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    stage.cluster.sql("insert into t values (1)");
    stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let (restored, options) = stage.restore_options("restored", "");
    let folder = stage.sandbox.folder("bin");
    shell(&format!(
        "cp {WALE} {0}/wale && chmod 755 {0} {0}/wale",
        folder.display()
    ));
    let prefix = &options.environment["WALE_FILE_PREFIX"];
    let command = format!(
        "env WALE_FILE_PREFIX={prefix} WALE_FETCH_DEADLINE=1s {}/wale wal-fetch %f \"%p\"",
        folder.display()
    );
    let options = options.set("WALE_RESTORE_COMMAND", &command);
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(std::time::Duration::from_secs(60));
    restored.configure(&["archive_mode = off".into()]);
    let aside = stage.sandbox.path().join("aside");
    std::fs::rename(stage.archive(), &aside).unwrap();
    restored.launch();
    restored.wait_stopped(std::time::Duration::from_secs(60));
    let log = restored.log_text();
    assert!(
        log.contains("exit code 250") && !log.contains("selected new timeline"),
        "{log}"
    );
    std::fs::rename(&aside, stage.archive()).unwrap();
    restored.start();
    restored.wait_promoted();
    assert_eq!(restored.sql("select count(*) from t"), "1");
}

#[test]
fn the_client_pushes_and_fetches_over_http() {
    let stage = Stage::new("client", 15);
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let client = |arguments: &[&str]| {
        let mut all = vec!["client"];
        all.extend_from_slice(arguments);
        stage.sidecar.verb(WALE, "wale", &all)
    };
    let target = stage.sandbox.folder("target").join("fetched");
    let path = target.to_string_lossy().into_owned();
    assert_eq!(client(&["push", &segment]).code(), 0);
    assert_ne!(client(&["push", "0000000100000000000000F0"]).code(), 0);
    assert_eq!(client(&["ready"]).code(), 0);
    assert_eq!(client(&["fetch", &segment, &path]).code(), 0);
    assert_eq!(
        std::fs::read(&target).unwrap(),
        std::fs::read(stage.cluster.wal.join(&segment)).unwrap()
    );
    std::fs::remove_file(&target).unwrap();
    assert_eq!(
        client(&["fetch", "0000000100000000000000F0", &path]).code(),
        1
    );
    assert!(!target.exists());
    let nobody = format!("http://127.0.0.1:{}", free_port());
    assert_eq!(
        client(&["fetch", "--url", &nobody, &segment, &path]).code(),
        255
    );
    assert_eq!(
        client(&["fetch", "--standby", "--url", &nobody, &segment, &path]).code(),
        1
    );
    assert_ne!(client(&["push", "--url", &nobody, &segment]).code(), 0);
    assert_ne!(client(&["ready", "--url", &nobody]).code(), 0);
}

/// A bar on a terminal, plain lines otherwise.
#[test]
fn progress_is_a_bar_on_a_terminal_and_lines_elsewhere() {
    let stage = Stage::new("progress", 15);
    stage
        .cluster
        .sql("create table t as select repeat(md5(g::text), 10) from generate_series(1, 60000) g");
    let data = stage.cluster.data.to_string_lossy().into_owned();
    let plain = stage.sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(plain.code(), 0, "{}", plain.stderr);
    assert!(
        !plain.stderr.contains('\r') && !plain.stderr.contains('\u{1b}'),
        "{}",
        plain.stderr
    );
    // `script` gives the program a terminal.
    let command = wale_command(WALE, "wale", &stage.options);
    let environment = stage
        .options
        .environment
        .iter()
        .map(|(key, value)| format!("{key}='{value}'"));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| format!("'{}'", word.to_string_lossy()));
    let all: Vec<String> = environment.chain(words).collect();
    let line = format!(
        "env -i TERM=xterm {} backup-push --cluster-read-rate-limit 30000000 '{data}'",
        all.join(" ")
    );
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("/s"), "a rate: {text}");
    assert!(text.contains("MiB") || text.contains("MB"), "bytes: {text}");
}
