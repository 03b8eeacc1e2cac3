//! Defects that WAL-E's users know by heart (`docs/reference/wal-e-defects.md`), each shown not to be wale's by the
//! real program under WAL-E's name.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use wale_testkit::s3::S3Server;
use wale_testkit::{Cluster, Exit, Sandbox, SidecarOptions, shell, wait_until, wale_command};

use crate::support::{Stage, WALE, fingerprint};

fn wal_e(stage: &Stage, arguments: &[&str]) -> Exit {
    stage.sidecar.verb(WALE, "wal-e", arguments)
}

/// The latest backup into a new directory `name`, with these options of `backup-fetch`.
fn fetch(stage: &Stage, name: &str, options: &[&str]) -> (Cluster, Exit) {
    let (cluster, _) = stage.restore_options(name, "");
    let data = cluster.data.to_string_lossy().into_owned();
    let arguments = [&["backup-fetch"], options, &[data.as_str(), "LATEST"]].concat();
    let exit = wal_e(stage, &arguments);
    (cluster, exit)
}

/// Starts what was fetched, with WAL-E's command for the WAL, and waits until it takes writes.
fn recover(stage: &Stage, restored: &Cluster) {
    let command = wale_command(WALE, "wal-e", &stage.options);
    let program = command.get_args().last().unwrap_or(command.get_program());
    restored.configure(&[
        "archive_mode = off".into(),
        format!(
            "restore_command = 'WALE_LOG_DESTINATION=stderr WALE_FILE_PREFIX={} {} wal-fetch -p 0 %f %p'",
            stage.options.environment["WALE_FILE_PREFIX"],
            program.display()
        ),
    ]);
    std::fs::write(restored.data.join("recovery.signal"), "").unwrap();
    restored.start();
    restored.wait_promoted();
}

/// It is not there, or nothing can be started from it.
fn assert_not_startable(data: &Path) {
    assert!(!data.join("global/pg_control").exists());
}

#[test]
fn defect_04_a_second_backup_is_refused_and_the_first_goes_on() {
    let stage = Stage::new("twobackups", 15);
    let data = stage.cluster.data.to_string_lossy().into_owned();
    // Slow enough for the second to come and go meanwhile.
    let slowly = ["backup-push", "--cluster-read-rate-limit", "4000000", &data];
    let mut first = wale_command(WALE, "wal-e", &stage.options)
        .args(slowly)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let held = |locks: &str| {
        let count = "select count(*) from pg_locks where locktype = 'advisory'";
        (stage.cluster.sql(count) == locks).then_some(())
    };
    wait_until("the first one's lock", Duration::from_secs(30), || {
        held("1")
    });
    let second = wal_e(&stage, &["backup-push", &data]);
    assert_eq!(second.code(), 1, "{}", second.stderr);
    assert!(
        second.stderr.contains("ERROR    MSG: ") && second.stderr.contains("backup"),
        "{}",
        second.stderr
    );
    assert!(first.try_wait().unwrap().is_none(), "the first is over");
    let first = first.wait_with_output().unwrap();
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    wait_until("no lock", Duration::from_secs(10), || held("0"));
    let listed = wal_e(&stage, &["backup-list"]).stdout;
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

#[test]
fn the_read_rate_of_a_backup_is_kept() {
    const RATE: u64 = 8_000_000;
    let stage = Stage::new("readrate", 15);
    let data = stage.cluster.data.to_string_lossy().into_owned();
    let rate = RATE.to_string();
    let start = Instant::now();
    let arguments = ["backup-push", "--cluster-read-rate-limit", &rate, &data];
    let exit = wal_e(&stage, &arguments);
    let took = start.elapsed();
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    let listed = wal_e(&stage, &["backup-list", "--detail"]).stdout;
    let bytes = listed.lines().nth(1).and_then(|row| row.split('\t').nth(2));
    let bytes: u64 = bytes.unwrap().parse().unwrap();
    // A tenth less: what was made as the backup ended was not read from the disk.
    let least = Duration::from_millis(bytes * 900 / RATE);
    assert!(
        least > Duration::from_secs(1) && took >= least,
        "{bytes} bytes in {took:?}"
    );
    let zero = ["backup-push", "--cluster-read-rate-limit", "0", &data];
    assert_eq!(wal_e(&stage, &zero).code(), 2);
}

/// Where the tablespace of the test lies.
const LOCATION: &str = "select pg_tablespace_location(oid) from pg_tablespace where spcname = 'ts'";

/// The original is lost, its tablespace's directory too: missing links are WAL-E's status 1, unless it is told.
fn assert_lost_original_is_restored(stage: &Stage, space: &Path, noted: &str) {
    stage.cluster.kill();
    shell(&format!("rm -rf {}", space.display()));
    let (refused, exit) = fetch(stage, "missing", &[]);
    assert_eq!(exit.code(), 1, "{}", exit.stderr);
    assert_not_startable(&refused.data);
    for (name, options) in [
        ("blind", &["--blind-restore"][..]),
        ("tosource", &["--restore-spec", "SOURCE"]),
    ] {
        assert!(!space.exists());
        let (restored, exit) = fetch(stage, name, options);
        assert_eq!(exit.code(), 0, "{name}: {}", exit.stderr);
        recover(stage, &restored);
        assert_eq!(fingerprint(&restored, "t"), *noted, "{name}");
        assert_eq!(restored.sql(LOCATION), space.to_string_lossy(), "{name}");
        restored.kill();
        shell(&format!("rm -rf {}", space.display()));
    }
}

#[test]
fn defect_06_a_specification_restores_to_the_directory_argument_and_makes_tablespaces() {
    let stage = Stage::new("restorespec", 15);
    let pg = &stage.cluster;
    let space = stage.sandbox.folder("space");
    pg.sql(&format!(
        "create tablespace ts location '{}'",
        space.display()
    ));
    pg.sql("create table t tablespace ts as select g as v from generate_series(1, 1000) g");
    stage.backup();
    pg.sql("insert into t select generate_series(1, 500)");
    stage.archive_all();
    let noted = fingerprint(pg, "t");
    let oid = pg.sql("select oid from pg_tablespace where spcname = 'ts'");
    let specification = |base: &Path, place: &Path| {
        let path = stage.sandbox.path().join("spec.json");
        let value = serde_json::json!({
            "base_prefix": base, "tablespaces": [oid],
            oid.as_str(): {"loc": format!("{}/", place.display()), "link": format!("pg_tblspc/{oid}")},
        });
        std::fs::write(&path, value.to_string()).unwrap();
        path.to_string_lossy().into_owned()
    };

    // While the original lives nothing of it is touched: neither its directory nor its tablespace.
    for (name, options) in [
        ("nolinks", vec![]),
        ("source", vec!["--restore-spec".into(), "SOURCE".into()]),
        (
            "other",
            vec!["--restore-spec".into(), specification(&pg.data, &space)],
        ),
        ("nospec", vec!["--restore-spec".into(), "/nowhere".into()]),
    ] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let (refused, exit) = fetch(&stage, name, &options);
        assert_eq!(exit.code(), 1, "{name}: {}", exit.stderr);
        assert_not_startable(&refused.data);
    }
    assert_eq!(fingerprint(pg, "t"), noted);

    // A place that does not exist yet is made, beside the original that runs.
    let place = stage.sandbox.path().join("made-by-spec");
    let restored = stage.sandbox.path().join("byspec");
    let file = specification(&restored, &place);
    let (restored, exit) = fetch(&stage, "byspec", &["--restore-spec", &file]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    recover(&stage, &restored);
    assert_eq!(fingerprint(&restored, "t"), noted);
    assert!(restored.sql(LOCATION).ends_with("made-by-spec"));
    restored.stop("immediate");

    // The specification comes before a link that is there already, where WAL-E crashed. What it led to is not touched.
    let linked = stage.sandbox.folder("linked");
    let elsewhere = stage.sandbox.folder("elsewhere");
    std::fs::write(elsewhere.join("precious"), "x").unwrap();
    shell(&format!(
        "mkdir {0}/pg_tblspc && ln -s {1} {0}/pg_tblspc/{oid} && chown -hR postgres {0}",
        linked.display(),
        elsewhere.display()
    ));
    let file = specification(&linked, &stage.sandbox.path().join("made-anew"));
    let (_, exit) = fetch(&stage, "linked", &["--restore-spec", &file]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    let link = std::fs::read_link(linked.join("pg_tblspc").join(&oid)).unwrap();
    assert!(link.ends_with("made-anew"), "{}", link.display());
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);

    assert_lost_original_is_restored(&stage, &space, &noted);
}

#[test]
fn defect_16_a_socket_is_left_out_and_an_unreadable_file_fails_the_backup_by_name() {
    let stage = Stage::new("socket", 15);
    let data = &stage.cluster.data;
    let _listener = UnixListener::bind(data.join("a-socket")).unwrap();
    let push = ["backup-push", &*data.to_string_lossy()];
    let exit = wal_e(&stage, &push);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    let (restored, exit) = fetch(&stage, "restored", &[]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    assert!(!restored.data.join("a-socket").exists());
    assert!(restored.data.join("global/pg_control").exists());

    let secret = data.join("not-for-postgres");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    let exit = wal_e(&stage, &push);
    assert_eq!(exit.code(), 1, "{}", exit.stderr);
    assert!(exit.stderr.contains("not-for-postgres"), "{}", exit.stderr);
    let listed = wal_e(&stage, &["backup-list"]).stdout;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    // The server is in no backup mode that the next one would stumble over.
    std::fs::remove_file(&secret).unwrap();
    let exit = wal_e(&stage, &push);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
}

/// A hundred retries of two minutes looked like a hang; a key that is wrong stays wrong.
#[test]
fn defect_20_wrong_credentials_are_told_at_once() {
    let sandbox = Sandbox::new("wrongkeys");
    // It checks signatures.
    let server = S3Server::s3s(&sandbox, None);
    let options = SidecarOptions {
        environment: S3Server::settings(server.port(), "path")
            .into_iter()
            .collect(),
        port: 0,
        as_postgres: false,
    }
    .set("WALE_LOG_DESTINATION", "stderr")
    .set("WALE_RETRIES", "100");
    for (name, value) in [
        ("AWS_SECRET_ACCESS_KEY", "another"),
        ("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN"),
    ] {
        let start = Instant::now();
        let output = wale_command(WALE, "wal-e", &options.clone().set(name, value))
            .arg("backup-list")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("        HINT: "), "{told}");
        assert!(
            told.contains("WALE_RETRIES has no effect"),
            "said once: {told}"
        );
        // Far less than the time for which an outage is waited out.
        assert!(start.elapsed() < Duration::from_secs(20), "{told}");
    }
}
