//! Recovery targets: one archive, restored to a time, a name, a transaction, a position, the end of the backup and the
//! end of the archive; including and excluding; and what happens there.

use std::path::Path;
use std::time::Duration;

use wale_testkit::{Cluster, run_as_postgres, wait_until};

use crate::support::{Stage, on_every_major};

const LONG: Duration = Duration::from_secs(60);

/// What a server does at its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Promote,
    Pause,
    Shutdown,
}

/// The rows `1, 2, …` of table `t`, and the places between them.
struct Places {
    time: String,
    transaction: String,
    position: String,
    rows: usize,
}

#[test]
fn every_recovery_target_is_reached_exactly_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("targets{major}"), major);
        let places = write(&stage);
        let Places {
            time,
            transaction,
            position,
            rows,
        } = &places;
        let exclusive = "recovery_target_inclusive = off";
        let cases = [
            (
                "time",
                format!("recovery_target_time = '{time}'"),
                2,
                Action::Pause,
            ),
            (
                "name",
                "recovery_target_name = 'after three'".to_owned(),
                3,
                Action::Promote,
            ),
            (
                "xid",
                format!("recovery_target_xid = '{transaction}'"),
                5,
                Action::Promote,
            ),
            (
                "xid-excluded",
                format!("recovery_target_xid = '{transaction}'\n{exclusive}"),
                4,
                Action::Promote,
            ),
            (
                "lsn",
                format!("recovery_target_lsn = '{position}'"),
                7,
                Action::Promote,
            ),
            (
                "lsn-excluded",
                format!("recovery_target_lsn = '{position}'\n{exclusive}"),
                6,
                Action::Shutdown,
            ),
            (
                "immediate",
                "recovery_target = 'immediate'".to_owned(),
                1,
                Action::Promote,
            ),
        ];
        for (name, target, expected, action) in cases {
            let word = format!("{action:?}").to_lowercase();
            let addition = format!("{target}\nrecovery_target_action = '{word}'");
            let (restored, _sidecar) =
                stage.restore(name, &addition, &["archive_mode = off".into()]);
            let found = reach(&restored, action);
            assert_eq!(found, expected.to_string(), "PostgreSQL {major}: {name}");
        }
        let (restored, _sidecar) = stage.restore("none", "", &["archive_mode = off".into()]);
        restored.start();
        restored.wait_promoted();
        assert_eq!(count(&restored), rows.to_string(), "PostgreSQL {major}");
    });
}

/// Writes the rows, one transaction each.
fn write(stage: &Stage) -> Places {
    let pg = &stage.cluster;
    pg.sql("create table t (v int); insert into t values (1)");
    stage.backup();
    pg.sql("insert into t values (2)");
    pg.sql("select pg_sleep(0.1)");
    let time = pg.sql("select clock_timestamp()");
    pg.sql("select pg_sleep(0.1)");
    pg.sql("insert into t values (3)");
    pg.sql("select pg_create_restore_point('after three')");
    pg.sql("insert into t values (4)");
    let transaction = pg.sql("insert into t select 5 returning txid_current()");
    pg.sql("insert into t values (6)");
    // Where the record of the commit will begin.
    let position = pg.sql("insert into t values (7) returning pg_current_wal_insert_lsn()");
    pg.sql("insert into t values (8)");
    stage.archive_all();
    Places {
        time,
        transaction,
        position,
        rows: 8,
    }
}

/// Starts the server and sees that it does at its target what it was told. Returns how many rows there are.
fn reach(restored: &Cluster, action: Action) -> String {
    if action == Action::Shutdown {
        restored.launch();
        restored.wait_stopped(LONG);
        let log = restored.log_text();
        assert!(log.contains("recovery stopping"), "{log}");
        assert!(!log.contains("selected new timeline"), "{log}");
        // It ended without an answer: started once more, it waits there to be asked.
        pause_instead(restored);
    }
    restored.start();
    if action != Action::Promote {
        wait_until("the pause", LONG, || {
            (restored.try_sql("select pg_is_wal_replay_paused()").ok()? == "t").then_some(())
        });
        let found = count(restored);
        assert!(
            restored.try_sql("insert into t values (9)").is_err(),
            "it is read-only"
        );
        restored.sql("select pg_wal_replay_resume()");
        restored.wait_promoted();
        return found;
    }
    restored.wait_promoted();
    count(restored)
}

fn pause_instead(restored: &Cluster) {
    let script = format!(
        "cd {} && sed -i '/recovery_target_action/s/shutdown/pause/' \
         $(grep -l recovery_target_action *.conf)",
        restored.data.display()
    );
    run_as_postgres(Path::new("sh"), &["-ec", &script]);
}

fn count(cluster: &Cluster) -> String {
    cluster.sql("select count(*) from t")
}
