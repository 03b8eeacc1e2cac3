//! What the sidecar finds out by itself and reports: another cluster's archive, an archive and a server that are not
//! there.

use wale_ops::{Archive, Beginning};
use wale_pg::{ClusterIdentity, ControlFile, SystemIdentifier, WalSegmentSize};
use wale_storage::{Fault, FaultPlan, ObjectKey, Occurrence, Verb, body_from};

use super::support::{Bench, bench, eventually};
use crate::{HttpToken, Phase};

const CONTROL: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/15");

/// Gives the cluster its `pg_control`.
fn with_control(bench: &Bench) {
    let global = bench.options.data_directory.join("global");
    std::fs::write(global.join("pg_control"), CONTROL).unwrap();
}

async fn claim(archive: &Archive, system_identifier: SystemIdentifier) {
    let cluster = ClusterIdentity {
        system_identifier,
        major: None,
        wal_segment_size: WalSegmentSize::DEFAULT,
    };
    archive
        .ensure_identity(&cluster, &Beginning::Anew)
        .await
        .unwrap();
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
        // The WAL that its control file names.
        let segment = bench.options.wal_directory.join("000000010000000000000001");
        std::fs::write(segment, b"").unwrap();
        let sidecar = bench.start(None).await;
        sidecar.app.life.wait(Phase::started).await;
        let expected = if is_silent { 503 } else { 200 };
        eventually("it has looked", || async {
            let reply = sidecar.get("/readyz").await;
            let looked = !reply.body().contains("has not answered yet");
            looked && reply.status() == expected && !reply.body().contains("identity:")
        })
        .await;
        sidecar.stop().await.unwrap();
    }
}

/// Row 66's kind: an archive that answers and cannot be written is no ready one, although nothing was pushed yet.
#[tokio::test(flavor = "multi_thread")]
async fn fault_66_an_archive_that_cannot_be_written_is_told_at_the_start() {
    let bench = bench();
    // A primary: the sidecar of a standby may have an archive that it only reads.
    let path = bench.options.data_directory.join("global/pg_control");
    let mut control = std::fs::read(&path).unwrap();
    control[16..20].copy_from_slice(&6_u32.to_le_bytes());
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &control[..288]);
    control[288..292].copy_from_slice(&u32::try_from(sum).unwrap().to_le_bytes());
    std::fs::write(&path, control).unwrap();
    // The sweep's try, and the one that reports.
    let refused = FaultPlan::new().fail(
        Verb::Put,
        Occurrence::Between(1, 2),
        Fault::PermissionDenied,
    );
    bench.store.set_plan(refused);
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(Phase::started).await;
    eventually("readiness says so", || async {
        let reply = sidecar.get("/readyz").await;
        reply.status() == 503
            && reply
                .body()
                .contains("archive-write: nothing can be written into")
    })
    .await;
    assert_eq!(sidecar.get("/startupz").await.status(), 200);
    let (name, _) = sidecar.segment(2);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{name}")).await.status(),
        200
    );
    let body = sidecar.get("/readyz").await.body();
    assert!(!body.contains("archive-write:"), "{body}");
    sidecar.stop().await.unwrap();
}

/// Rows 96 and 102: a server and WAL that this version does not know are reported without anybody asking, and fail no
/// probe.
#[tokio::test(flavor = "multi_thread")]
async fn faults_96_and_102_what_is_not_known_is_told_from_the_start() {
    let bench = bench();
    let data = &bench.options.data_directory;
    std::fs::write(data.join("PG_VERSION"), b"20\n").unwrap();
    let mut control = CONTROL.to_vec();
    control[8..12].copy_from_slice(&2000_u32.to_le_bytes());
    std::fs::write(data.join("global/pg_control"), control).unwrap();
    let key = ObjectKey::new("wal_005/000000010000000000000004.br").unwrap();
    let store = bench.options.archive.store();
    let body = body_from(b"brotli".to_vec().into());
    store.put_if_absent(&key, body).await.unwrap();
    let sidecar = bench.start(None).await;
    eventually("both are told", || async {
        let status = sidecar.status().await;
        let server = status["unknown_server"].as_str().unwrap_or_default();
        let unreadable = &status["wal"]["sealed"];
        server.contains("PostgreSQL 20 is newer")
            && server.contains("base backups are refused")
            && unreadable["segments"] == 1
            && unreadable["example"] == key.as_str()
    })
    .await;
    let metrics = sidecar.get("/metrics").await.body();
    assert!(metrics.contains("wale_server_unknown 1"), "{metrics}");
    assert!(metrics.contains("wale_wal_sealed_segments 1"), "{metrics}");
    let probe = sidecar.get("/readyz").await.body();
    assert!(!probe.contains("unknown"), "{probe}");
    sidecar.stop().await.unwrap();
}

/// Row 46's kind: a history that a recovery would ask for in vain is reported without anybody asking.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_history_that_was_lost_is_told_and_so_is_its_return() {
    let bench = bench();
    let archive = bench.options.archive.clone();
    let put = async |key: &str, content: &str| {
        let body = body_from(content.to_owned().into_bytes().into());
        let key = ObjectKey::new(key).unwrap();
        archive.store().put(&key, body).await.unwrap();
    };
    let sentinel = r#"{"wal_segment_backup_stop": "000000010000000000000002",
        "wal_segment_offset_backup_stop": "00000256", "FinishTime": "2026-03-01T00:00:00Z"}"#;
    let name = "base_000000010000000000000002_00000040";
    let key = format!("basebackups_005/{name}_backup_stop_sentinel.json");
    put(&key, sentinel).await;
    put("wal_005/000000010000000000000002", "not looked into").await;
    // Timeline 3 grew out of timeline 1, after timeline 2 had taken its number.
    let history = "1\t0/30000A0\tx\n";
    put("wal_005/00000003.history", history).await;
    let sidecar = bench.start(None).await;
    let lost = async || sidecar.status().await["recoverable"]["lost_history"].clone();
    eventually("it is told", || async {
        let lost = lost().await;
        lost["name"] == "00000002.history" && lost["shown_by"] == "00000003.history"
    })
    .await;
    let metrics = sidecar.get("/metrics").await.body();
    assert!(metrics.contains("wale_wal_history_lost 1"), "{metrics}");
    put("wal_005/00000002.history", history).await;
    crate::recoverable::look(&sidecar.app).await.unwrap();
    assert!(lost().await.is_null());
    let metrics = sidecar.get("/metrics").await.body();
    assert!(metrics.contains("wale_wal_history_lost 0"), "{metrics}");
    sidecar.stop().await.unwrap();
}

/// Row 70: each thing that is missing is named, with the time since when; the database may start all the same.
#[tokio::test(flavor = "multi_thread")]
async fn fault_70_readiness_names_everything_that_is_missing_and_startup_waits_for_none_of_it() {
    let bench = bench();
    std::fs::remove_dir_all(&bench.options.data_directory).unwrap();
    bench.store.switch().set_down(true);
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(Phase::started).await;
    eventually("all is named", || async {
        let reply = sidecar.get("/readyz").await;
        let lines = |topic: &str| {
            let body = reply.body();
            body.lines()
                .any(|line| line.starts_with(topic) && line.contains(" (since 2"))
        };
        reply.status() == 503 && lines("archive: ") && lines("data-directory: ")
    })
    .await;
    assert_eq!(sidecar.get("/startupz").await.status(), 200);
    let status = sidecar.status().await;
    assert!(status["reasons"]["archive"].is_string(), "{status}");
    assert!(status["reasons_since"]["archive"].is_string(), "{status}");
    sidecar.stop().await.unwrap();
}

/// Row 71: a neighbour's failed request changes nothing, whatever the answer.
#[tokio::test(flavor = "multi_thread")]
async fn fault_71_a_callers_mistake_does_not_change_readiness() {
    let sidecar = bench().start(None).await;
    eventually("it is ready", || async {
        sidecar.get("/readyz").await.status() == 200
    })
    .await;
    // The segment that PostgreSQL writes has no marker yet; a damaged one that nobody wants archived neither.
    let (name, _) = sidecar.segment(1);
    std::fs::remove_file(sidecar.wal().join(format!("archive_status/{name}.ready"))).unwrap();
    std::fs::write(sidecar.wal().join(&name), b"no segment").unwrap();
    for path in [
        format!("/wal-push/{name}"),
        "/wal-push/0000000100000000000000FE".to_owned(),
        format!("/wal-fetch/{name}"),
        format!("/wal/{name}"),
        "/wal-absent/nonsense".to_owned(),
        "/nonsense".to_owned(),
    ] {
        let reply = sidecar.get(&path).await;
        assert!(reply.status() >= 400, "{path}: {}", reply.status());
        let ready = sidecar.get("/readyz").await;
        assert_eq!(ready.status(), 200, "{path}: {}", ready.body());
    }
    sidecar.stop().await.unwrap();
}

/// A restored server shows the token that lies in its data directory: a standby goes on with a new one.
#[tokio::test(flavor = "multi_thread")]
async fn fault_97_a_rotated_token_reaches_the_server_that_a_restore_told_of_it() {
    let mut bench = bench();
    let file = bench.options.data_directory.join("rotated");
    let beside = bench
        .options
        .data_directory
        .join("wale_restore_authorization");
    // It was rotated while the sidecar was away.
    std::fs::write(&beside, "header = Authorization: Bearer first\n").unwrap();
    std::fs::write(&file, "second\n").unwrap();
    let token = HttpToken::new("second".into()).unwrap();
    bench.options.token = Some(token.kept_in(Some(file.clone())));
    let sidecar = bench.start(None).await;
    for token in ["second", "third"] {
        std::fs::write(&file, format!("{token}\n")).unwrap();
        eventually("the server's copy is renewed", || async {
            let held = std::fs::read_to_string(&beside).unwrap();
            held == format!("header = Authorization: Bearer {token}\n")
        })
        .await;
    }
    sidecar.stop().await.unwrap();
}
