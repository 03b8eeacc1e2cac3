//! From the open port to the last joined task: the lock, the modes, backups on request, shutdown.

use std::time::{Duration, Instant};

use wale_ops::Kind;
use wale_ops::backup_fetch::{RestoreAs, RestoreClusterOptions, RestoreOptions, WalSource};
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::support::{Bench, bench, bench_at, bench_over, eventually, segment, serving};
use crate::backup::testing::{Act, Scripted};
use crate::{Phase, StartMode};

fn restoring(mut bench: Bench) -> Bench {
    let data = bench.options.data_directory.clone();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    bench.options.mode = StartMode::Restore(RestoreClusterOptions {
        fetch: RestoreOptions::new(data),
        restore_command: "false".into(),
        wal_source: WalSource::Elsewhere,
        authorization: None,
        client_note: None,
        restore_as: RestoreAs::Primary,
        configuration_directory: None,
        host_name: "test".into(),
        archive_settings: None,
        rehearsal: None,
    });
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_goes_once_it_listens_and_again_when_it_comes_back() {
    let bench = bench();
    let lock = bench.options.lock_file.clone();
    std::fs::write(&lock, b"").unwrap();
    let sidecar = bench.start(None).await;
    for _ in 0..2 {
        eventually("the lock is gone", || async { !lock.exists() }).await;
        assert_eq!(sidecar.get("/startupz").await.status(), 200);
        std::fs::write(&lock, b"").unwrap();
    }
    eventually("the lock is gone", || async { !lock.exists() }).await;
    sidecar.stop().await.unwrap();
}

/// Both kinds of address that systemd gives.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_when_the_database_may_start_and_when_the_sidecar_stops() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    for is_abstract in [false, true] {
        let mut bench = bench();
        let path = bench.options.data_directory.join("notify");
        let path = path.to_str().unwrap().to_owned();
        let (address, shown) = if is_abstract {
            let address = SocketAddr::from_abstract_name(&path).unwrap();
            (address, format!("@{path}"))
        } else {
            (SocketAddr::from_pathname(&path).unwrap(), path)
        };
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager
            .set_read_timeout(Some(std::time::Duration::from_secs(30)))
            .unwrap();
        bench.options.notifier = crate::Notifier::new(Some(shown));
        let heard = || {
            let mut message = [0; 200];
            let bytes = manager.recv(&mut message).expect("a message");
            String::from_utf8_lossy(&message[..bytes]).into_owned()
        };
        let sidecar = bench.start(None).await;
        assert!(heard().starts_with("READY=1\n"));
        assert_eq!(sidecar.get("/startupz").await.status(), 200);
        sidecar.stop().await.unwrap();
        assert!(heard().starts_with("STOPPING=1\n"));
    }
}

/// Nobody listens there: a warning, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_that_is_gone_stops_nothing() {
    let mut bench = bench();
    let nowhere = bench.options.data_directory.join("nowhere");
    let nowhere = nowhere.to_str().unwrap().to_owned();
    bench.options.notifier = crate::Notifier::new(Some(nowhere));
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(Phase::started).await;
    assert_eq!(sidecar.get("/startupz").await.status(), 200);
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_restore_ends_the_sidecar_and_leaves_the_lock() {
    let bench = restoring(bench());
    let lock = bench.options.lock_file.clone();
    std::fs::write(&lock, b"").unwrap();
    let mut sidecar = bench.start(None).await;
    let error = sidecar.ended_by_itself().await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{}", error.chain());
    assert!(lock.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_restores_the_database_may_not_start_and_a_shutdown_ends_it() {
    let bench = restoring(bench());
    let lock = bench.options.lock_file.clone();
    std::fs::write(&lock, b"").unwrap();
    bench
        .store
        .set_plan(FaultPlan::new().fail(Verb::List, Occurrence::Always, Fault::Unavailable));
    let mut sidecar = bench.start(None).await;
    sidecar
        .app
        .life
        .wait(|phase| phase == Phase::Restoring)
        .await;
    assert_eq!(sidecar.get("/ping").await.status(), 200);
    assert_eq!(sidecar.get("/startupz").await.status(), 503);
    assert_eq!(sidecar.get("/readyz").await.status(), 503);
    assert_eq!(sidecar.status().await["phase"], "restoring");
    let (name, _) = segment(1);
    for route in ["wal-push", "wal", "wal-fetch", "wal-absent"] {
        let reply = sidecar.get(&format!("/{route}/{name}")).await;
        assert_eq!(reply.status(), 503, "{route}");
        assert!(reply.body().contains("restoring"));
    }
    assert_eq!(sidecar.get("/backup-push").await.status(), 503);
    assert!(lock.exists());
    sidecar.ask_to_stop();
    sidecar.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_is_held_until_the_first_backup_has_begun() {
    let mut bench = bench();
    bench.options.mode = StartMode::BackupPush;
    let script = Scripted::new([Act::Fail(Kind::PostgresUnavailable), Act::Succeed]);
    let sidecar = bench.start(Some(script.clone())).await;
    sidecar.app.life.wait(Phase::started).await;
    assert_eq!(sidecar.get("/readyz").await.status(), 503);
    let pid_file = sidecar.server_runs();
    let (name, _) = sidecar.segment(1);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{name}")).await.status(),
        200
    );
    assert_eq!(
        *script.taken.borrow(),
        2,
        "the push waited for the second attempt"
    );
    eventually("it is ready", || async {
        sidecar.get("/readyz").await.status() == 200
    })
    .await;
    assert_eq!(sidecar.status().await["backup"]["last"]["files"], 1);
    std::fs::remove_file(pid_file).unwrap();
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_backup_that_fails_is_said_and_wal_is_taken() {
    let mut bench = bench();
    bench.options.mode = StartMode::BackupPush;
    let sidecar = bench
        .start(Some(Scripted::new([Act::Fail(Kind::StorageUnavailable)])))
        .await;
    sidecar
        .app
        .life
        .wait(|phase| phase == Phase::Degraded)
        .await;
    let pid_file = sidecar.server_runs();
    let (name, _) = sidecar.segment(1);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{name}")).await.status(),
        200
    );
    let ready = sidecar.get("/readyz").await;
    assert_eq!(
        (
            ready.status(),
            ready.body().contains("backup-push: as the script says")
        ),
        (503, true)
    );
    assert_eq!(sidecar.get("/startupz").await.status(), 200);
    std::fs::remove_file(pid_file).unwrap();
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_on_request() {
    let sidecar = bench()
        .start(Some(Scripted::new([
            Act::Succeed,
            Act::Fail(Kind::PostgresUnavailable),
            Act::Hang,
        ])))
        .await;
    sidecar.app.life.wait(Phase::started).await;
    let done = sidecar.get("/backup-push").await;
    assert_eq!(done.status(), 200, "{}", done.body());
    assert!(
        done.body()
            .starts_with("base_000000010000000000000002_00000040 is complete")
    );
    let failed = sidecar.get("/backup-push?wait=true").await;
    assert_eq!(
        (failed.status(), failed.declared()),
        (503, Some(failed.bytes().len()))
    );
    assert_eq!(sidecar.get("/backup-push?wait=perhaps").await.status(), 400);
    let begun = sidecar.get("/backup-push?wait=false").await;
    assert_eq!(
        (begun.status(), begun.body().contains("/status")),
        (202, true)
    );
    let busy = sidecar.get("/backup-push").await;
    assert_eq!(
        (
            busy.status(),
            busy.body().contains("another base backup is running")
        ),
        (503, true)
    );
    assert_eq!(
        sidecar.status().await["backup"]["running"]["trigger"],
        "request"
    );
    // Row 10: the shutdown ends it cleanly.
    let begun = Instant::now();
    sidecar.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_backup_without_a_cluster_fails_and_lists_nothing() {
    let sidecar = serving().await;
    let reply = sidecar.get("/backup-push").await;
    assert!(reply.status() >= 400, "{}", reply.body());
    // The check for the server reports that it is down, when that lasts.
    assert_eq!(sidecar.get("/readyz").await.status(), 200);
    assert_eq!(sidecar.get("/backups").await.body(), "[]\n");
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_it_ends_at_once() {
    let sidecar = serving().await;
    let address = sidecar.address;
    let begun = Instant::now();
    sidecar.stop().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    // Row 50: a client that asks now is refused, not answered wrongly.
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn row9_pushes_are_served_while_the_server_stops_and_readiness_is_off() {
    let mut sidecar = serving().await;
    let pid_file = sidecar.server_runs();
    sidecar.ask_to_stop();
    sidecar
        .app
        .life
        .wait(|phase| phase == Phase::Draining)
        .await;
    assert_eq!(sidecar.get("/readyz").await.status(), 503);
    assert_eq!(sidecar.get("/backup-push").await.status(), 503);
    for number in 1..4 {
        let (name, _) = sidecar.segment(number);
        assert_eq!(
            sidecar.get(&format!("/wal-push/{name}")).await.status(),
            200
        );
    }
    assert_eq!(sidecar.app.life.phase(), Phase::Draining);
    std::fs::remove_file(&pid_file).unwrap();
    sidecar.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row9_a_push_under_way_is_finished() {
    let bench = bench();
    let delay = Fault::Delay(Duration::from_secs(2));
    bench.store.set_plan(FaultPlan::new().fail_keys(
        "wal_005/",
        Verb::PutIfAbsent,
        Occurrence::Always,
        delay,
    ));
    let mut sidecar = bench.start(None).await;
    sidecar.app.life.wait(Phase::started).await;
    let (name, _) = sidecar.segment(1);
    let address = sidecar.address;
    let app = std::sync::Arc::clone(&sidecar.app);
    let push = tokio::task::spawn_blocking(move || {
        super::support::exchange(
            address,
            format!("GET /wal-push/{name} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
        )
    });
    eventually("the push has begun", || async { app.life.working() > 0 }).await;
    sidecar.ask_to_stop();
    assert_eq!(push.await.unwrap().status(), 200);
    sidecar.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row9_a_push_that_outlasts_the_grace_is_not_acknowledged() {
    let mut bench = bench();
    bench.options.grace = Duration::from_millis(200);
    bench.store.set_plan(FaultPlan::new().fail_keys(
        "wal_005/",
        Verb::PutIfAbsent,
        Occurrence::Always,
        Fault::Hang,
    ));
    let mut sidecar = bench.start(None).await;
    sidecar.app.life.wait(Phase::started).await;
    let (name, _) = sidecar.segment(1);
    let address = sidecar.address;
    let app = std::sync::Arc::clone(&sidecar.app);
    let push = tokio::task::spawn_blocking(move || {
        super::support::exchange(
            address,
            format!("GET /wal-push/{name} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
        )
    });
    eventually("the push has begun", || async { app.life.working() > 0 }).await;
    sidecar.ask_to_stop();
    assert_ne!(push.await.unwrap().status(), 200);
    sidecar.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row12_a_new_sidecar_goes_on_where_the_old_one_was() {
    let first = serving().await;
    let (name, bytes) = first.segment(1);
    assert_eq!(first.get(&format!("/wal-push/{name}")).await.status(), 200);
    let memory = std::sync::Arc::clone(&first.memory);
    first.stop().await.unwrap();
    let backup = "base_000000010000000000000001_00000040";
    let sentinel = format!("basebackups_005/{backup}_backup_stop_sentinel.json");
    let content = format!(
        r#"{{"wal_segment_backup_stop": "{name}", "wal_segment_offset_backup_stop": "00000312",
            "expanded_size_bytes": 4711, "spec": {{"base_prefix": "/data", "tablespaces": []}}}}"#
    );
    memory.insert(
        &wale_storage::ObjectKey::new(&sentinel).unwrap(),
        content.into_bytes(),
    );
    let second = bench_over(memory).start(None).await;
    second.app.life.wait(Phase::started).await;
    assert!(second.get(&format!("/wal/{name}")).await.bytes() == bytes);
    eventually("the last backup is remembered", || async {
        second.status().await["backup"]["last"]["name"] == backup
    })
    .await;
    assert_eq!(second.status().await["backup"]["last"]["bytes"], 4711);
    second.segment(1);
    let again = second.get(&format!("/wal-push/{name}")).await;
    assert_eq!(
        (again.status(), again.body()),
        (200, format!("{name} already-stored\n"))
    );
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_missed_while_down_is_caught_up_once() {
    let memory = std::sync::Arc::new(wale_storage::MemoryStore::new());
    let clock = wale_ops::Clock::fixed("2026-03-01T10:00:00Z".parse().unwrap());
    let first = bench_at(std::sync::Arc::clone(&memory), clock.clone())
        .start(None)
        .await;
    first.app.life.wait(Phase::started).await;
    let (name, _) = first.segment(1);
    assert_eq!(first.get(&format!("/wal-push/{name}")).await.status(), 200);
    first.stop().await.unwrap();
    clock.advance(chrono::TimeDelta::days(3));
    let mut bench = bench_at(memory, clock);
    bench.options.schedule = Some(crate::Schedule::parse("0 0 * * *", wale_pg::Zone::UTC).unwrap());
    let script = Scripted::new([]);
    let second = bench.start(Some(script.clone())).await;
    eventually("the run that was missed", || async {
        *script.taken.borrow() == 1
    })
    .await;
    let status = second.status().await;
    assert_eq!(status["schedule"]["next"], "2026-03-05T00:00:00Z");
    second.stop().await.unwrap();
}
