//! Several sidecars on one archive: a primary and its standbys, each with one beside it.

use std::time::Duration;

use wale_testkit::{Cluster, Sidecar, shell, wait_until};

use crate::support::{Stage, verify};

const LONG: Duration = Duration::from_secs(120);

/// The recovery setting of a standby that streams from `primary`.
fn streaming_from(primary: &Cluster) -> String {
    let port = primary.port;
    format!("primary_conninfo = 'host=127.0.0.1 port={port} user=postgres'")
}

/// Waits until `standby` has replayed what `primary` has written by now.
fn wait_replayed(standby: &Cluster, primary: &Cluster) {
    let position = primary.sql("select pg_current_wal_lsn()");
    let sql = format!("select pg_last_wal_replay_lsn() >= '{position}'");
    wait_until("the standby to replay", LONG, || {
        (standby.try_sql(&sql).ok()? == "t").then_some(())
    });
}

/// Begins a base backup, and waits until it lacks nothing but a segment.
fn begin_and_wait_for_wal(sidecar: &Sidecar) {
    assert_eq!(sidecar.get("/backup-push?wait=false").status, 202);
    wait_until("the backup to wait for WAL", LONG, || {
        let status = sidecar.get("/status").json();
        let phase = status["backup"]["running"]["progress"]["phase"].clone();
        (phase == "waiting for WAL").then_some(())
    });
}

fn wait_idle(sidecar: &Sidecar) {
    wait_until("the backup to end", LONG, || {
        sidecar.get("/status").json()["backup"]["running"]
            .is_null()
            .then_some(())
    });
}

fn last_failure(sidecar: &Sidecar) -> String {
    sidecar.get("/status").json()["backup"]["last_failure"].to_string()
}

fn signal(sidecar: &Sidecar, name: &str) {
    shell(&format!("kill -{name} {}", sidecar.pid()));
}

/// Two standbys at one restartpoint make one name. The second leaves the first alone while its claim is alive; when it was
/// taken for dead, and comes back, it destroys nothing. Then its standby is promoted while the next backup waits for WAL.
#[test]
fn fault_103_107_two_standbys_make_one_backup_name_and_one_is_promoted_while_it_waits_for_wal() {
    let stage = Stage::new("claims", 15);
    let primary = &stage.cluster;
    primary.sql("create table t as select generate_series(1, 1000) g");
    stage.backup();
    let streaming = streaming_from(primary);
    let (one, first, _) = stage.standby("one", &streaming, &[]);
    let (two, second, _) = stage.standby("two", &streaming, &[]);
    wait_until("both standbys to stream", LONG, || {
        let sql = "select count(*) from pg_stat_replication where state = 'streaming'";
        (primary.sql(sql) == "2").then_some(())
    });
    stage.archive_all();
    primary.sql("checkpoint; insert into t values (0)");
    wait_replayed(&one, primary);
    wait_replayed(&two, primary);

    begin_and_wait_for_wal(&first);
    let refused = second.get("/backup-push");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(
        refused.text().contains("is being written"),
        "{}",
        refused.text()
    );
    // As if it had stood still for eleven minutes.
    signal(&first, "STOP");
    let archive = stage.archive();
    shell(&format!(
        "touch -d '11 minutes ago' {}/basebackups_005/*/wale_attempt.json",
        archive.display()
    ));
    begin_and_wait_for_wal(&second);
    signal(&first, "CONT");
    stage.archive_all();
    wait_idle(&second);
    wait_idle(&first);
    let backups = second.get("/backups").json();
    assert_eq!(backups.as_array().map(Vec::len), Some(2), "{backups}");
    let told = last_failure(&first);
    assert!(told.contains("the claim"), "{told}");
    verify(&stage.fetch("plain", &[]).data);
    let left = shell(&format!("find {} -name 'wale_attempt*'", archive.display()));
    assert_eq!(left.trim(), "", "no claim outlives its backup");

    primary.sql("insert into t values (1); checkpoint; insert into t values (2)");
    wait_replayed(&one, primary);
    begin_and_wait_for_wal(&first);
    primary.kill();
    one.promote();
    wait_idle(&first);
    let told = last_failure(&first);
    assert!(told.contains("the backup cannot be used"), "{told}");
    let pushed = first.get("/backup-push");
    assert_eq!(pushed.status, 200, "{}", pushed.text());
}
