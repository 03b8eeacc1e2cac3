//! WAL-E's face: its log, the system log, prefetch in processes, several pushes in one call.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use wale_testkit::{Sidecar, shell, wait_until};

use crate::support::{Stage, WALE};

/// The archive has no such segment.
const ABSENT: &str = "0000000100000000000000F0";

/// Segments of the stage's cluster that are archived, oldest first.
fn archived(stage: &Stage, count: usize) -> Vec<String> {
    stage.cluster.sql("create table if not exists t (v int)");
    let segments = (0..count).map(|_| {
        stage.cluster.sql("insert into t values (1)");
        stage.cluster.switch_wal()
    });
    let segments = segments.collect();
    stage.cluster.wait_archived();
    segments
}

fn gone(path: &Path) {
    wait_until("nothing is left", Duration::from_secs(10), || {
        (!path.exists()).then_some(())
    });
}

/// Whether a process fetches ahead into the folder.
fn is_prefetching(folder: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .any(|line| line.contains("wal-prefetch") && line.contains(folder))
}

#[test]
fn fault_54_prefetch_goes_forward_with_recovery_only_and_leaves_nothing() {
    let stage = Stage::new("prefetch", 15);
    let segments = archived(&stage, 4);
    let wal = stage.sandbox.folder("walk");
    let fetch = |name: &str, file: &str| {
        let destination = wal.join(file).to_string_lossy().into_owned();
        let arguments = ["wal-fetch", "-p", "4", name, &destination];
        stage.sidecar.verb(WALE, "wal-e", &arguments)
    };
    // pg_rewind asks for segments by their names, the latest first.
    for name in segments.iter().rev() {
        assert_eq!(fetch(name, name).code(), 0);
        assert!(!wal.join(".wal-e").exists(), "prefetch began after {name}");
    }
    // Recovery asks under another name.
    assert_eq!(fetch(&segments[0], "RECOVERYXLOG").code(), 0);
    let ahead = wal.join(".wal-e/prefetch").join(&segments[1]);
    wait_until("the next is there", Duration::from_secs(20), || {
        ahead.exists().then_some(())
    });
    let second = fetch(&segments[1], "RECOVERYXLOG");
    assert_eq!(second.code(), 0);
    assert!(
        second
            .stderr
            .contains("MSG: promoted prefetched wal segment"),
        "{}",
        second.stderr
    );
    assert_eq!(
        std::fs::read(wal.join("RECOVERYXLOG")).unwrap(),
        std::fs::read(stage.cluster.wal.join(&segments[1])).unwrap()
    );
    // The end of the WAL, and the question for another timeline.
    assert_eq!(fetch(ABSENT, "RECOVERYXLOG").code(), 1);
    gone(&wal.join(".wal-e"));
    let folder = wal.to_string_lossy().into_owned();
    // As it ends it gives up the places of its segments, those that are made below too.
    wait_until("no prefetch to run", Duration::from_secs(20), || {
        (!is_prefetching(&folder)).then_some(())
    });
    let prefetch = |name: &str| {
        let arguments = ["wal-prefetch", &folder, name];
        stage.sidecar.verb(WALE, "wal-e", &arguments)
    };
    let exit = prefetch(&segments[2]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    assert!(wal.join(".wal-e/prefetch").join(&segments[2]).exists());
    assert_eq!(fetch("00000002.history", "RECOVERYHISTORY").code(), 1);
    gone(&wal.join(".wal-e"));
    assert_eq!(prefetch(ABSENT).code(), 1);
    gone(&wal.join(".wal-e"));
}

/// Recovery by WAL-E's own command; nothing half-done and nothing prefetched stays in the data directory.
#[test]
fn defect_19_a_server_recovers_by_wal_fetch_with_prefetch_and_keeps_no_trace() {
    let stage = Stage::new("walefetch", 15);
    stage.backup();
    let _ = archived(&stage, 6);
    let (restored, options) = stage.restore_options("restored", "");
    let folder = stage.sandbox.folder("bin");
    shell(&format!(
        "cp {WALE} {0}/wal-e && chmod 755 {0} {0}/wal-e",
        folder.display()
    ));
    let prefix = &options.environment["WALE_FILE_PREFIX"];
    let command = format!(
        "env WALE_FILE_PREFIX={prefix} WALE_LOG_DESTINATION=stderr {}/wal-e wal-fetch %f \"%p\"",
        folder.display()
    );
    let options = options.set("WALE_RESTORE_COMMAND", &command);
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(60));
    restored.configure(&["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(restored.sql("select count(*) from t"), "6");
    let log = restored.log_text();
    assert!(log.contains("promoted prefetched wal segment"), "{log}");
    gone(&restored.data.join("pg_wal/.wal-e"));
}

#[test]
fn defect_03_a_push_of_several_stores_them_and_leaves_the_marks_to_postgresql() {
    let stage = Stage::new("pushmany", 15);
    stage
        .cluster
        .sql("alter system set archive_command = 'false'");
    stage.cluster.sql("select pg_reload_conf()");
    stage.cluster.sql("create table t (v int)");
    let segments: Vec<String> = (0..3)
        .map(|_| {
            stage.cluster.sql("insert into t values (1)");
            stage.cluster.switch_wal()
        })
        .collect();
    let marks = stage.cluster.wal.join("archive_status");
    let is_ready = |name: &String| marks.join(format!("{name}.ready")).exists();
    wait_until("the segments are ready", Duration::from_secs(20), || {
        segments.iter().all(is_ready).then_some(())
    });
    // A segment that the server says is ready and that is not there is nobody's loss.
    let missing = marks.join("0000000100000000000000EE.ready");
    std::fs::write(&missing, "").unwrap();
    let path = stage.cluster.wal.join(&segments[0]);
    let path = path.to_string_lossy().into_owned();
    let pushed = stage
        .sidecar
        .verb(WALE, "wal-e", &["wal-push", "-p", "4", &path]);
    assert_eq!(pushed.code(), 0, "{}", pushed.stderr);
    assert!(
        pushed.stderr.contains("MSG: begin archiving a file")
            && pushed.stderr.contains("MSG: completed archiving to a file")
            && pushed.stderr.contains(" state=complete"),
        "{}",
        pushed.stderr
    );
    assert!(segments.iter().all(is_ready) && missing.exists());
    // More than the one that was asked for is stored; the one that is missing fails only itself.
    let stored = stage.wal_names();
    assert!(
        segments.iter().all(|segment| stored.contains(segment)),
        "{segments:?}: {stored:?}"
    );
}

#[test]
fn defect_15_a_segment_without_archive_status_beside_it_is_pushed() {
    let stage = Stage::new("lonely", 15);
    let segments = archived(&stage, 1);
    let folder = stage.sandbox.folder("elsewhere");
    let copy = folder.join(&segments[0]);
    std::fs::copy(stage.cluster.wal.join(&segments[0]), &copy).unwrap();
    let copy = copy.to_string_lossy().into_owned();
    shell(&format!("chmod 644 {copy}"));
    for pool in ["1", "8"] {
        let arguments = ["wal-push", "-p", pool, &copy];
        let exit = stage.sidecar.verb(WALE, "wal-e", &arguments);
        assert_eq!(exit.code(), 0, "{}", exit.stderr);
    }
}

#[test]
fn the_log_is_wal_e_s_on_standard_error_and_in_the_system_log() {
    let stage = Stage::new("walelog", 15);
    let folder = stage.sandbox.folder("syslog");
    let socket = folder.join("log");
    let run = |settings: &[(&str, &str)], arguments: &[&str]| {
        let options = settings
            .iter()
            .fold(stage.options.clone(), |all, (name, value)| {
                all.set(name, value)
            });
        let mut command = wale_testkit::wale_command(WALE, "wal-e", &options);
        let output = command.args(arguments).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let path = socket.to_string_lossy().into_owned();
    // Nobody listens: no traceback, as in any container, and the record is on standard error all the same.
    let lines = run(&[("WALE_SYSLOG_SOCKET", &path)], &["backup-list"]);
    let expected = "wal_e.main   INFO     MSG: starting WAL-E\n        DETAIL: The subcommand is \"backup-list\".\n        \
                    STRUCTURED: time=";
    assert!(lines.starts_with(expected), "{lines}");
    assert_eq!(lines.matches("MSG:").count(), 1, "{lines}");
    let lines = run(
        &[("WALE_SYSLOG_SOCKET", &path)],
        &["--terse", "backup-list"],
    );
    assert_eq!(lines, "");
    let lines = run(
        &[("WALE_LOG_DESTINATION", "nowhere")],
        &["backup-list", "nonsense"],
    );
    assert!(
        lines.starts_with("ERROR: invalid backup query submitted"),
        "{lines}"
    );
    // Somebody does.
    let listener = UnixDatagram::bind(&socket).unwrap();
    shell(&format!("chmod 777 {} {path}", folder.display()));
    let settings = [
        ("WALE_SYSLOG_SOCKET", path.as_str()),
        ("WALE_LOG_DESTINATION", "syslog"),
        ("WALE_SYSLOG_FACILITY", "local3"),
    ];
    let lines = run(&settings, &["backup-list", "nonsense"]);
    assert_eq!(lines, "");
    let limit = Some(Duration::from_secs(10));
    listener.set_read_timeout(limit).unwrap();
    let heard = || {
        let mut buffer = [0; 4096];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let first = heard();
    assert!(
        first.starts_with("<158>") && first.contains("MSG: starting WAL-E"),
        "{first}"
    );
    let second = heard();
    assert!(
        second.starts_with("<155>") && second.contains("ERROR    MSG: invalid backup query"),
        "{second}"
    );
    let lines = run(&[("WALE_SYSLOG_FACILITY", "nonsense")], &["backup-list"]);
    assert!(
        lines.starts_with("invalid syslog facility level specified\n"),
        "{lines}"
    );
}
