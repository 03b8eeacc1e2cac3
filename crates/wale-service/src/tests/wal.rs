//! The archive's routes: what is promised and what is refused.

use std::time::Duration;

use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::support::{SEGMENT_BYTES, bench, eventually, segment, serving};

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_segment_comes_back_byte_for_byte() {
    let sidecar = serving().await;
    let (name, bytes) = sidecar.segment(3);
    let pushed = sidecar.get(&format!("/wal-push/pg_wal/{name}")).await;
    assert_eq!(
        (pushed.status(), pushed.body()),
        (200, format!("{name} stored\n"))
    );
    let post = format!(
        "POST /push/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    );
    let again = sidecar.raw(post).await;
    assert_eq!(again.status(), 200, "{}", again.body());
    let fetched = sidecar.get(&format!("/wal/{name}")).await;
    assert_eq!(
        (fetched.status(), fetched.declared()),
        (200, Some(bytes.len()))
    );
    assert!(
        fetched
            .head()
            .contains("content-type: application/octet-stream")
    );
    assert!(fetched.bytes() == bytes, "the bytes differ");
    std::fs::remove_file(sidecar.wal().join(&name)).unwrap();
    std::fs::write(sidecar.data().join("recovery.signal"), "").unwrap();
    let placed = sidecar.get(&format!("/wal-fetch/{name}")).await;
    assert_eq!(placed.status(), 200, "{}", placed.body());
    assert!(std::fs::read(sidecar.wal().join(&name)).unwrap() == bytes);
    let status = sidecar.status().await;
    assert_eq!(status["wal"]["last_push"]["name"], name);
    assert_eq!(status["phase"], "ready");
    assert_eq!(
        status["archive"]["identity"]["system_identifier"],
        "7300000000000000001"
    );
    let metrics = sidecar.get("/metrics").await.body();
    assert!(metrics.contains("wale_wal_uploads_total 1"), "{metrics}");
    assert!(metrics.contains("wale_wal_ready_files 1"), "{metrics}");
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row37_a_hundred_pushes_of_one_name_are_one_upload() {
    let sidecar = serving().await;
    let (name, _) = sidecar.segment(1);
    let path = format!("/wal-push/{name}");
    let pushes = (0..100).map(|_| sidecar.get(&path));
    for reply in futures_util::future::join_all(pushes).await {
        assert_eq!(reply.status(), 200, "{}", reply.body());
    }
    assert_eq!(sidecar.app.pusher.stats().uploads, 1);
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row38_other_bytes_under_a_stored_name_are_refused_and_said() {
    let sidecar = serving().await;
    let (name, mut bytes) = sidecar.segment(1);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{name}")).await.status(),
        200
    );
    bytes[5000] ^= 1;
    std::fs::write(sidecar.wal().join(&name), &bytes).unwrap();
    let refused = sidecar.get(&format!("/wal-push/{name}")).await;
    assert_eq!(refused.status(), 409, "{}", refused.body());
    let ready = sidecar.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    assert!(
        ready.body().starts_with("degraded\nwal-push: "),
        "{}",
        ready.body()
    );
    assert_eq!(sidecar.get("/startupz").await.status(), 200);
    assert_eq!(sidecar.get("/livez").await.status(), 200);
    sidecar.segment(2);
    let (name, _) = segment(2);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{name}")).await.status(),
        200
    );
    assert_eq!(sidecar.get("/readyz").await.status(), 200);
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row52_absence_is_404_and_proven_apart() {
    let sidecar = serving().await;
    let (name, _) = sidecar.segment(1);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{name}")).await.status(),
        200
    );
    let (missing, _) = segment(2);
    assert_eq!(sidecar.get(&format!("/wal/{missing}")).await.status(), 404);
    assert_eq!(sidecar.get("/wal/00000002.history").await.status(), 404);
    let proof = sidecar.get(&format!("/wal-absent/{missing}")).await;
    assert_eq!(proof.status(), 200, "{}", proof.body());
    let no_proof = sidecar.get(&format!("/wal-absent/{name}")).await;
    assert_eq!(no_proof.status(), 409, "{}", no_proof.body());
    assert_eq!(
        sidecar.get("/readyz").await.status(),
        200,
        "absence is no failure"
    );
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row51_a_store_that_is_away_is_never_absence_and_heals_by_itself() {
    let sidecar = serving().await;
    let (name, _) = sidecar.segment(1);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{name}")).await.status(),
        200
    );
    let (next, _) = sidecar.segment(2);
    let (missing, _) = segment(9);
    sidecar.store.switch().set_down(true);
    for path in [
        format!("/wal/{name}"),
        format!("/wal/{missing}"),
        format!("/wal-absent/{missing}"),
        format!("/wal-push/{next}"),
    ] {
        let reply = sidecar.get(&path).await;
        assert_eq!(reply.status(), 503, "{path} {}", reply.body());
        assert!(reply.head().contains("retry-after: "));
        assert_eq!(reply.declared(), Some(reply.bytes().len() + 1), "{path}");
    }
    assert_eq!(sidecar.get("/readyz").await.status(), 503);
    assert_eq!(
        sidecar.status().await["wal"]["last_push_failure"]["kind"],
        "storage-unavailable"
    );
    sidecar.store.switch().set_down(false);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{next}")).await.status(),
        200
    );
    assert_eq!(sidecar.get(&format!("/wal/{name}")).await.status(), 200);
    assert_eq!(sidecar.get("/readyz").await.status(), 200);
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row53_a_damaged_object_is_damaged_not_absent_and_nothing_is_placed() {
    let sidecar = serving().await;
    let (name, _) = sidecar.segment(1);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{name}")).await.status(),
        200
    );
    std::fs::remove_file(sidecar.wal().join(&name)).unwrap();
    std::fs::write(sidecar.data().join("recovery.signal"), "").unwrap();
    sidecar.store.set_plan(FaultPlan::new().fail_keys(
        "wal_005/",
        Verb::Get,
        Occurrence::Always,
        Fault::CorruptByte(200),
    ));
    assert_eq!(sidecar.get(&format!("/wal/{name}")).await.status(), 500);
    let placed = sidecar.get(&format!("/wal-fetch/{name}")).await;
    assert_eq!(placed.status(), 500, "{}", placed.body());
    let left: Vec<_> = std::fs::read_dir(sidecar.wal())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["archive_status"]);
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_json_where_that_is_asked_for() {
    let sidecar = serving().await;
    let (name, _) = segment(7);
    let ask = format!(
        "GET /wal-push/{name} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    );
    let reply = sidecar.raw(ask).await;
    assert_eq!(reply.status(), 404);
    let value: serde_json::Value = serde_json::from_str(&reply.body()).unwrap();
    assert_eq!(value["kind"], "not-found");
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_does_not_stop_its_push() {
    let bench = bench();
    let delay = Fault::Delay(Duration::from_millis(300));
    bench.store.set_plan(FaultPlan::new().fail_keys(
        "wal_005/",
        Verb::PutIfAbsent,
        Occurrence::Always,
        delay,
    ));
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let (name, _) = sidecar.segment(1);
    {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(sidecar.address).unwrap();
        stream
            .write_all(format!("GET /wal-push/{name} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .unwrap();
        eventually("the push has begun", || async {
            sidecar.app.pusher.stats().in_flight > 0
        })
        .await;
    }
    eventually("it is stored", || async {
        sidecar.app.pusher.stats().uploads == 1
    })
    .await;
    sidecar.stop().await.unwrap();
}

/// A client on the server's volume, which asks with a place of its own.
async fn taken(sidecar: &super::support::Sidecar, name: &str) -> (super::support::Reply, bool) {
    let destination = sidecar.wal().join("RECOVERYXLOG");
    let place = wale_cluster::hand_over::TakingPlace::beside(&destination).unwrap();
    let nonce = place.nonce().clone();
    let request = format!(
        "GET /wal/{name} HTTP/1.1\r\nHost: x\r\nWale-Take: {nonce}\r\nConnection: close\r\n\r\n"
    );
    let reply = sidecar.raw(request).await;
    let told = format!("wale-handed: {nonce} {SEGMENT_BYTES}\r\n");
    let is_handed = reply.head().contains(&told);
    assert_eq!(place.take(SEGMENT_BYTES as u64).is_ok(), is_handed);
    (reply, is_handed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_handed_over_beside_a_server_in_recovery_only() {
    let sidecar = serving().await;
    let (name, bytes) = sidecar.segment(3);
    let pushed = sidecar.get(&format!("/wal-push/{name}")).await;
    assert_eq!(pushed.status(), 200);
    // Nothing says that it recovers: it may be a primary.
    let (reply, is_handed) = taken(&sidecar, &name).await;
    assert!(!is_handed && reply.bytes() == bytes, "{}", reply.head());
    std::fs::write(sidecar.data().join("standby.signal"), "").unwrap();
    let (reply, is_handed) = taken(&sidecar, &name).await;
    let head = reply.head();
    assert!(is_handed && reply.bytes().is_empty(), "{head}");
    assert_eq!((reply.status(), reply.declared()), (200, Some(0)));
    let says = format!("wale-answer: handed {}", name.to_lowercase());
    assert!(
        head.contains(&says) && head.matches("wale-answer").count() == 1,
        "{head}"
    );
    assert!(std::fs::read(sidecar.wal().join("RECOVERYXLOG")).unwrap() == bytes);
    assert!(!sidecar.wal().join(".wale").exists());
    // A server that runs and does not recover, as its own words say.
    let running = sidecar.server_runs();
    std::fs::remove_file(sidecar.data().join("standby.signal")).unwrap();
    let (reply, is_handed) = taken(&sidecar, &name).await;
    assert!(!is_handed && reply.bytes() == bytes, "{}", reply.head());
    std::fs::remove_file(running).unwrap();
    for nonce in ["../../..", "", &"0".repeat(32), "x"] {
        let request = format!(
            "GET /wal/{name} HTTP/1.1\r\nHost: x\r\nWale-Take: {nonce}\r\nConnection: close\r\n\r\n"
        );
        assert!(sidecar.raw(request).await.bytes() == bytes, "{nonce}");
    }
    sidecar.stop().await.unwrap();
}
