//! The main job on every major: archive, back up, lose everything, restore to a point in time.

use std::time::Duration;

use wale_testkit::{Sidecar, wait_until};

use crate::support::{Stage, WALE, fingerprint, majors};

#[test]
fn archive_back_up_lose_everything_restore_to_a_point_in_time_on_every_major() {
    for major in majors() {
        let mut stage = Stage::new(&format!("main{major}"), major);
        let pg = &stage.cluster;
        pg.sql("create table t (time timestamptz not null, v int)");
        pg.sql("insert into t select now(), g from generate_series(1, 20000) g");
        stage.backup();
        pg.sql("insert into t select now(), g from generate_series(1, 5000) g");
        let noted = fingerprint(pg, "t");
        let time = pg.sql("select clock_timestamp()");
        pg.sql("select pg_sleep(0.2)");
        pg.sql("drop table t");
        pg.switch_wal();
        pg.wait_archived();
        pg.kill();
        stage.sidecar.kill();
        std::fs::remove_dir_all(&pg.data).unwrap();

        let addition =
            format!("recovery_target_time = '{time}'\nrecovery_target_action = 'promote'");
        let (restored, sidecar) = stage.restore("restored", &addition, &[]);
        restored.start();
        restored.wait_promoted();
        assert_eq!(fingerprint(&restored, "t"), noted, "PostgreSQL {major}");
        // The restored cluster goes on archiving into the same archive, on its new timeline.
        restored.sql("insert into t values (now(), 1)");
        let segment = restored.switch_wal();
        assert!(segment.starts_with("00000002"), "{segment}");
        restored.wait_archived();
        assert_eq!(sidecar.get(&format!("/wal/{segment}")).status, 200);
    }
}

#[test]
fn restore_mode_is_idempotent() {
    let stage = Stage::new("idempotent", 15);
    stage
        .cluster
        .sql("create table t as select g from generate_series(1, 100) g");
    stage.backup();
    stage.cluster.switch_wal();
    stage.cluster.wait_archived();

    let (restored, mut sidecar) = stage.restore("again", "", &["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    restored.sql("insert into t values (101)");
    // The container restarts: the same request restores nothing again.
    sidecar.kill();
    let (_same, mut options) = stage.restore_options("again", "");
    options.port = sidecar.port;
    let options = options.set("WALE_LISTEN_PORT", &sidecar.port.to_string());
    let same = Sidecar::start(&stage.sandbox, WALE, &options);
    same.wait_ready(Duration::from_secs(30));
    assert_eq!(restored.sql("select count(*) from t"), "101");
    drop(same);
    // Somebody tidies up and leaves START_MODE: beside a living server that is no reason to stop.
    let less = options
        .clone()
        .set("RECOVERY_ADDITION", "# no target any more");
    let tidied = Sidecar::start(&stage.sandbox, WALE, &less);
    tidied.wait_ready(Duration::from_secs(30));
    drop(tidied);
    // Another request does not touch it.
    let other = options.set("RECOVERY_ADDITION", "recovery_target = 'immediate'");
    let mut refused = Sidecar::launch(&stage.sandbox, WALE, &other);
    let status = refused.wait_exit(Duration::from_secs(30));
    assert_eq!(status.code(), Some(73), "{}", refused.log_text());
    assert_eq!(restored.sql("select count(*) from t"), "101");
}

#[test]
fn restore_mode_never_touches_a_foreign_cluster() {
    let stage = Stage::new("foreign", 15);
    stage.backup();
    let options = stage.options.clone().set("START_MODE", "RESTORE");
    let before = wale_testkit::shell(&format!(
        "find {} -not -path '*/pg_wal*' -printf '%p %s %T@ %m\n' | sort",
        stage.cluster.data.display()
    ));
    let mut refused = {
        let mut options = options;
        options.port = wale_testkit::free_port();
        let port = options.port.to_string();
        Sidecar::launch(
            &stage.sandbox,
            WALE,
            &options.set("WALE_LISTEN_PORT", &port),
        )
    };
    let status = refused.wait_exit(Duration::from_secs(30));
    assert_eq!(status.code(), Some(73), "{}", refused.log_text());
    let after = wale_testkit::shell(&format!(
        "find {} -not -path '*/pg_wal*' -printf '%p %s %T@ %m\n' | sort",
        stage.cluster.data.display()
    ));
    assert_eq!(before, after);
    assert!(
        refused.log_text().contains("HINT"),
        "{}",
        refused.log_text()
    );
}

#[test]
fn the_lock_is_removed_after_listening_and_whenever_it_appears() {
    let stage = Stage::new("lock", 15);
    let lock = stage.cluster.data.join("wale_init_lockfile");
    for _ in 0..2 {
        wale_testkit::shell(&format!("touch {}", lock.display()));
        wait_until("the lock to be removed", Duration::from_secs(10), || {
            (!lock.exists()).then_some(())
        });
        assert_eq!(stage.sidecar.get("/ping").text().trim(), "pong");
    }
}
