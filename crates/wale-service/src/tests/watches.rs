//! What the sidecar finds out by itself and tells: another cluster's archive.

use wale_ops::{Archive, ClusterIdentity};
use wale_pg::{ControlFile, SystemIdentifier, WalSegmentSize};
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::support::{Bench, bench, eventually};
use crate::Phase;

const CONTROL: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/15");

/// Gives the cluster its `pg_control`.
fn with_control(bench: &Bench) {
    let global = bench.options.data_directory.join("global");
    std::fs::create_dir(&global).unwrap();
    std::fs::write(global.join("pg_control"), CONTROL).unwrap();
}

async fn claim(archive: &Archive, system_identifier: SystemIdentifier) {
    let cluster = ClusterIdentity {
        system_identifier,
        major: None,
        wal_segment_size: WalSegmentSize::DEFAULT,
    };
    archive.ensure_identity(&cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row39_another_clusters_archive_is_told_at_the_start_and_the_database_goes_on() {
    let bench = bench();
    with_control(&bench);
    let lock = bench.options.lock_file.clone();
    std::fs::write(&lock, b"").unwrap();
    claim(&bench.options.archive, SystemIdentifier::new(1)).await;
    let sidecar = bench.start(None).await;
    eventually("readiness says so", || async {
        let reply = sidecar.get("/readyz").await;
        reply.status() == 503
            && reply.body().contains("identity: the archive ")
            && reply.body().contains("another cluster")
    })
    .await;
    eventually("the lock is gone", || async { !lock.exists() }).await;
    let reasons = &sidecar.status().await["reasons"];
    assert!(reasons["identity"].is_string(), "{reasons}");
    assert_eq!(sidecar.get("/startupz").await.status(), 200);
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row39_the_own_archive_and_a_silent_store_are_no_mismatch() {
    for is_silent in [false, true] {
        let bench = bench();
        with_control(&bench);
        let own = ControlFile::parse(CONTROL).unwrap().system_identifier;
        claim(&bench.options.archive, own).await;
        if is_silent {
            let silence = FaultPlan::new().fail(Verb::Get, Occurrence::Always, Fault::Unavailable);
            bench.store.set_plan(silence);
        }
        let sidecar = bench.start(None).await;
        sidecar.app.life.wait(Phase::started).await;
        let store = &sidecar.store;
        eventually("it has looked", || async { store.calls(Verb::Get) > 0 }).await;
        assert_eq!(sidecar.get("/readyz").await.status(), 200);
        sidecar.stop().await.unwrap();
    }
}
