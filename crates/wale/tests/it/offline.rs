//! Base backups of a stopped server: what it needs to start again is in the backup, and a server that is not stopped, or
//! not in good order, is refused.

use std::process::Stdio;
use std::time::Duration;

use wale_testkit::{Cluster, Exit, Sidecar, SidecarOptions, wait_until, wale_command};

use crate::support::{Stage, WALE, fingerprint, majors, verify};

fn push(stage: &Stage, arguments: &[&str]) -> Exit {
    let data = stage.cluster.data.to_string_lossy().into_owned();
    let mut all = vec!["backup-push", "--while-offline"];
    all.extend_from_slice(arguments);
    all.push(&data);
    stage.sidecar.verb(WALE, "wal-e", &all)
}

fn listed(sidecar: &Sidecar) -> usize {
    let backups = sidecar.get("/backups").json();
    backups.as_array().map_or(0, Vec::len)
}

#[test]
fn defect_05_a_stopped_server_is_backed_up_with_its_last_wal_on_every_major() {
    for major in majors() {
        let stage = Stage::new(&format!("offline{major}"), major);
        let pg = &stage.cluster;
        let place = stage.sandbox.folder("space one");
        pg.sql(&format!(
            "create tablespace one location '{}'",
            place.display()
        ));
        pg.sql("create table t (id int, v text) tablespace one");
        pg.sql("insert into t select g, md5(g::text) from generate_series(1, 5000) g");
        let running = push(&stage, &[]);
        assert_eq!(running.code(), 1, "{}", running.stderr);
        assert!(
            running.stderr.contains("postmaster.pid"),
            "{}",
            running.stderr
        );
        let noted = fingerprint(pg, "t");
        pg.stop("fast");

        let pushed = push(&stage, &[]);
        assert_eq!(pushed.code(), 0, "PostgreSQL {major}: {}", pushed.stderr);
        let backups = stage.sidecar.get("/backups").json();
        let name = backups[0]["name"].as_str().expect("listed").to_owned();
        let segment = &name[5..29];
        assert!(
            !stage.wal_names().iter().any(|stored| stored == segment),
            "the checkpoint's segment is archived only after the next start, so it must be in the backup"
        );
        let again = push(&stage, &[]);
        assert_eq!(again.code(), 1, "{}", again.stderr);
        assert!(
            again.stderr.contains("already has the backup"),
            "{}",
            again.stderr
        );

        // The files alone are a cluster that was shut down.
        let elsewhere = stage.sandbox.folder("space two");
        let mapping = format!("{}={}", place.display(), elsewhere.display());
        let plain = stage.fetch("plain", &["-T", &mapping]);
        verify(&plain.data);
        plain.configure(&["archive_mode = off".into()]);
        plain.start();
        assert_eq!(plain.sql("select pg_is_in_recovery()"), "f");
        assert_eq!(fingerprint(&plain, "t"), noted, "PostgreSQL {major}");
        plain.stop("fast");

        // Recovery to the end of an archive that does not have the segment, and of one that has it and more.
        for round in ["before", "after"] {
            let noted = fingerprint_after(&stage, round, &noted);
            let third = stage.sandbox.folder(&format!("space {round}"));
            let mapping = format!("{}={}", place.display(), third.display());
            let restored = restore(&stage, round, &mapping);
            assert_eq!(
                fingerprint(&restored, "t"),
                noted,
                "PostgreSQL {major}, {round}"
            );
            restored.stop("fast");
        }
    }
}

/// Lets the server go on and stop again for the second round.
fn fingerprint_after(stage: &Stage, round: &str, noted: &str) -> String {
    if round == "before" {
        return noted.to_owned();
    }
    let pg = &stage.cluster;
    pg.start();
    pg.sql("insert into t select g, 'later' from generate_series(1, 700) g");
    let noted = fingerprint(pg, "t");
    stage.archive_all();
    pg.stop("fast");
    noted
}

fn restore(stage: &Stage, name: &str, mapping: &str) -> Cluster {
    let (cluster, options) = stage.restore_options(name, "");
    let options = options.set("WALE_TABLESPACE_MAPPING", mapping);
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(120));
    cluster.configure(&["archive_mode = off".into()]);
    cluster.start();
    cluster.wait_promoted();
    cluster
}

#[test]
fn a_server_that_is_not_stopped_in_good_order_is_not_backed_up_offline() {
    let stage = Stage::new("offline-refused", 15);
    let pg = &stage.cluster;
    pg.sql("create table t as select g id, repeat('x', 500) v from generate_series(1, 20000) g");
    stage.archive_all();
    pg.kill();
    let crashed = push(&stage, &[]);
    assert_eq!(crashed.code(), 1, "{}", crashed.stderr);
    let _ = std::fs::remove_file(pg.data.join("postmaster.pid"));
    let crashed = push(&stage, &[]);
    assert_eq!(crashed.code(), 1, "{}", crashed.stderr);
    assert!(crashed.stderr.contains("good order"), "{}", crashed.stderr);

    pg.start();
    pg.stop("fast");
    // A label means that the directory would start from somewhere else.
    let label = pg.data.join("backup_label");
    std::fs::write(&label, "x").unwrap();
    assert_eq!(push(&stage, &[]).code(), 1);
    std::fs::remove_file(label).unwrap();
    // Another cluster's WAL directory is not the place of this one's checkpoint.
    let empty = stage.sandbox.folder("empty").to_string_lossy().into_owned();
    let data = pg.data.to_string_lossy().into_owned();
    let elsewhere = stage.options.clone().set("PGWAL", &empty);
    let arguments = ["backup-push", "--while-offline", data.as_str()];
    let lost = wale_command(WALE, "wal-e", &elsewhere)
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(lost.status.code(), Some(1), "{lost:?}");
    assert_eq!(listed(&stage.sidecar), 0);

    // Started while it is being copied.
    let options: &SidecarOptions = &stage.options;
    let mut slow = wale_command(WALE, "wal-e", options)
        .args(["backup-push", "--while-offline"])
        .args(["--cluster-read-rate-limit", "4000000", &data])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = stage.archive().join("basebackups_005");
    wait_until("the copy to begin", Duration::from_secs(60), || {
        folder.exists().then_some(())
    });
    pg.start();
    assert!(
        slow.try_wait().unwrap().is_none(),
        "the copy was too quick for this test"
    );
    let ended = slow.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("the backup cannot be used"), "{said}");
    assert_eq!(listed(&stage.sidecar), 0);
    stage.backup();
}
