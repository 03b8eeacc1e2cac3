//! Standbys: restored as such, fed by the archive or by streaming, as the source of a base backup, archiving too
//! (`archive_mode = always`), promoted.

use std::process::{Child, Stdio};
use std::time::Duration;

use wale_testkit::{Cluster, SidecarOptions, shell, wait_until, wale_command};

use crate::support::{
    Stage, WALE, amcheck, archive_all, fingerprint, on_every_major, under_write_load, verify,
    wait_fingerprint, wait_streaming,
};

const LONG: Duration = Duration::from_secs(120);

/// A restored standby keeps applying what comes into the archive, waits out a store that is away, and promotes when it
/// is told to, not before.
#[test]
fn a_restored_standby_follows_the_archive_and_is_promoted_later_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("follow{major}"), major);
        let primary = &stage.cluster;
        primary.sql("create table t (id int, v int)");
        stage.backup();
        let settings = [("WALE_FETCH_DEADLINE", "1s")];
        let (standby, sidecar, _) = stage.standby_with("standby", "", &[], &settings);
        for round in 0..2 {
            primary.sql(&format!(
                "insert into t select {round}, g from generate_series(1, 500) g"
            ));
            stage.archive_all();
            wait_fingerprint(&standby, "t", &fingerprint(primary, "t"));
        }

        // What the standby reads fails for a while: it asks again.
        let archive = stage.archive();
        let aside = stage.sandbox.path().join("aside");
        primary.sql("insert into t values (7, 7)");
        stage.archive_all();
        std::fs::rename(&archive, &aside).unwrap();
        let asked = || sidecar.log_text().matches("is not available").count();
        let before = asked();
        wait_until("the standby to ask in vain", LONG, || {
            (asked() > before + 1).then_some(())
        });
        assert_eq!(
            standby.sql("select pg_is_in_recovery()"),
            "t",
            "PostgreSQL {major}"
        );
        std::fs::rename(&aside, &archive).unwrap();
        let all = fingerprint(primary, "t");
        wait_fingerprint(&standby, "t", &all);

        primary.kill();
        standby.promote();
        assert_eq!(fingerprint(&standby, "t"), all, "PostgreSQL {major}");
        standby.sql("insert into t values (8, 8)");
        let segment = archive_all(&standby);
        assert!(segment.starts_with("00000002"), "{segment}");
        assert_eq!(sidecar.get(&format!("/wal/{segment}")).status, 200);
        assert_eq!(sidecar.get("/wal/00000002.history").status, 200);
    });
}

/// Both servers archive everything into one archive: the same bytes from both sides are one object and success for both.
/// Meanwhile the standby is the source of a backup, under load on the primary.
#[test]
fn a_standby_that_archives_too_is_backed_up_under_load_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("always{major}"), major);
        let primary = &stage.cluster;
        primary.sql("create table t (id int, v int); create index on t (id)");
        primary.sql("insert into t select g, g from generate_series(1, 20000) g");
        stage.backup();
        let streaming = streaming_from(primary);
        let always = ["archive_mode = always".to_owned()];
        let (standby, sidecar, options) = stage.standby("standby", &streaming, &always);
        wait_streaming(primary);

        under_write_load(primary, || {
            // A backup is named after its start, on a standby the last restartpoint: there must be a new one.
            primary.sql("checkpoint");
            wait_replayed(&standby, primary);
            let mut backup = backup_process(&standby, &options);
            // A standby cannot end a segment: the last one that the backup needs is full when the primary's is.
            wait_until("the backup of the standby", LONG, || {
                primary.switch_wal();
                backup.try_wait().unwrap()
            });
            let status = backup.wait().unwrap();
            assert!(status.success(), "PostgreSQL {major}: {status}");
        });
        let noted = fingerprint(primary, "t");
        stage.archive_all();
        wait_fingerprint(&standby, "t", &noted);
        standby.wait_archived();

        // Nobody was refused, and each has stored or found what the other had.
        for (who, of) in [("primary", &stage.sidecar), ("standby", &sidecar)] {
            let status = of.get("/status").text();
            assert!(
                !of.log_text().contains("with other content"),
                "{who}: {status}"
            );
        }
        let twice = [&stage.sidecar, &sidecar].map(|of| of.log_text().contains("already-stored"));
        assert!(twice.contains(&true), "both have archived every segment");
        let plain = stage.fetch("plain", &[]);
        verify(&plain.data);
        let label = std::fs::read_to_string(plain.data.join("backup_label")).unwrap();
        assert!(label.contains("BACKUP FROM: standby"), "{label}");
        let names = ["standby.signal", "recovery.signal", "recovery.conf"];
        assert!(names.iter().all(|name| !plain.data.join(name).exists()));

        let (restored, _sidecar) = stage.restore("restored", "", &["archive_mode = off".into()]);
        restored.start();
        restored.wait_promoted();
        assert_eq!(fingerprint(&restored, "t"), noted, "PostgreSQL {major}");
        amcheck(&restored);
        restored.kill();

        // Promoted, the standby archives its own timeline beside the old one; the primary's goes on.
        standby.promote();
        standby.sql("insert into t values (1, 1)");
        let segment = archive_all(&standby);
        assert!(segment.starts_with("00000002"), "{segment}");
        primary.sql("insert into t values (2, 2)");
        let old = stage.archive_all();
        for name in [segment, old] {
            assert_eq!(sidecar.get(&format!("/wal/{name}")).status, 200, "{name}");
        }
    });
}

/// A standby without an archiver of its own: its backup waits for what the primary archives. Promoted in the middle of
/// the next one: that one is void, and the one after it is good.
#[test]
fn fault_43_a_standby_that_is_promoted_during_its_backup_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("promoted{major}"), major);
        let primary = &stage.cluster;
        primary.sql("create table t (id int, v int)");
        stage.backup();
        let control = stage.sandbox.path().join("faults");
        let fault = |text: &str| {
            let next = control.with_extension("next");
            std::fs::write(&next, text).unwrap();
            shell(&format!("chmod 644 {}", next.display()));
            std::fs::rename(&next, &control).unwrap();
        };
        fault("");
        let settings = [("WALE_FAULT_CONTROL", control.to_str().unwrap())];
        let (standby, sidecar, options) = stage.standby_with("standby", "", &[], &settings);
        let backups = || sidecar.get("/backups").json().as_array().unwrap().len();

        primary.sql("insert into t select g, g from generate_series(1, 1000) g; checkpoint");
        stage.archive_all();
        wait_fingerprint(&standby, "t", &fingerprint(primary, "t"));
        let mut backup = backup_process(&standby, &options);
        wait_until("the backup of the standby", LONG, || {
            primary.switch_wal();
            backup.try_wait().unwrap()
        });
        assert!(
            backup.wait().unwrap().success(),
            "PostgreSQL {major}: {}",
            log_of(&standby)
        );
        assert_eq!(backups(), 2);

        // A restartpoint later, because the name of a backup is its start position.
        primary.sql("insert into t values (1, 1); checkpoint");
        stage.archive_all();
        wait_fingerprint(&standby, "t", &fingerprint(primary, "t"));
        let before = objects(&stage, "basebackups_005");
        fault("put key=basebackups_005/ slow 1s");
        let backup = backup_process(&standby, &options);
        wait_until("the backup to have begun", LONG, || {
            (objects(&stage, "basebackups_005") != before).then_some(())
        });
        standby.promote();
        let output = backup.wait_with_output().unwrap();
        fault("");
        let said = log_of(&standby);
        assert_eq!(output.status.code(), Some(75), "PostgreSQL {major}: {said}");
        assert!(said.contains("promoted"), "the reason is told: {said}");
        assert_eq!(backups(), 2, "PostgreSQL {major}");
        assert_eq!(
            objects(&stage, "basebackups_005"),
            before,
            "nothing of it is left"
        );

        standby.sql("insert into t values (2, 2)");
        let noted = fingerprint(&standby, "t");
        let status = backup_process(&standby, &options).wait().unwrap();
        assert!(status.success(), "PostgreSQL {major}: {}", log_of(&standby));
        archive_all(&standby);
        let (restored, _sidecar) = stage.restore("restored", "", &["archive_mode = off".into()]);
        restored.start();
        restored.wait_promoted();
        assert_eq!(fingerprint(&restored, "t"), noted, "PostgreSQL {major}");
    });
}

/// The recovery setting of a standby that streams from `primary`.
fn streaming_from(primary: &Cluster) -> String {
    let port = primary.port;
    format!("primary_conninfo = 'host=127.0.0.1 port={port} user=postgres'")
}

/// Waits until the standby has replayed what the primary has written by now.
fn wait_replayed(standby: &Cluster, primary: &Cluster) {
    let position = primary.sql("select pg_current_wal_lsn()");
    let sql = format!("select pg_last_wal_replay_lsn() >= '{position}'");
    wait_until("the standby to replay", LONG, || {
        (standby.try_sql(&sql).ok()? == "t").then_some(())
    });
}

/// `backup-push` of `cluster` as a process; what it says is in [`log_of`].
fn backup_process(cluster: &Cluster, options: &SidecarOptions) -> Child {
    let log = std::fs::File::create(log_path(cluster)).unwrap();
    wale_command(WALE, "wale", options)
        .args(["backup-push", &cluster.data.to_string_lossy()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn log_path(cluster: &Cluster) -> std::path::PathBuf {
    cluster.data.with_extension("backup.log")
}

fn log_of(cluster: &Cluster) -> String {
    std::fs::read_to_string(log_path(cluster)).unwrap_or_default()
}

/// The objects below a folder of the archive.
fn objects(stage: &Stage, folder: &str) -> String {
    let path = stage.archive().join(folder);
    shell(&format!(
        "find {} -type f ! -name '.*' | sort",
        path.display()
    ))
}
