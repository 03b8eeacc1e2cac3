//! Rows 58, 60, 61 and 63 of the battery, over raw sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::clients::{run, words};
use super::support::{Sidecar, bench, eventually, serving};
use crate::HttpToken;
use crate::http::Share;

#[tokio::test(flavor = "multi_thread")]
async fn row58_tricks_in_the_path_are_400_and_touch_no_file() {
    let sidecar = serving().await;
    let (name, _) = sidecar.segment(1);
    std::fs::write(sidecar.data().join("postgresql.conf"), b"secret").unwrap();
    let rests = [
        "../x".to_owned(),
        "../postgresql.conf".into(),
        "..%2fpostgresql.conf".into(),
        format!("%2e%2e/pg_wal/{name}"),
        format!("{name}%00"),
        format!("%252f{name}"),
        format!("..\\{name}"),
        format!("\u{ff10}{}", &name[1..]),
        String::new(),
        "0".repeat(65),
        name.replacen("00000001", "0000000a", 1),
        format!("{name}."),
        format!("{name}/"),
        format!("/{name}"),
        format!("./{name}"),
        format!("{name}?"),
        format!("archive_status/{name}.ready"),
    ];
    for prefix in [
        "/wal-push/",
        "/push/",
        "/wal-fetch/",
        "/fetch/",
        "/wal/",
        "/wal-absent/",
    ] {
        for rest in &rests {
            let reply = sidecar.get(&format!("{prefix}{rest}")).await;
            assert_eq!(reply.status(), 400, "{prefix}{rest}");
            assert!(reply.head().contains("connection: close"));
            assert!(!reply.body().contains("secret"));
        }
    }
    // Bytes that are no text at all end in hyper's own 400.
    let reply = sidecar
        .raw(b"GET /wal-push/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n".to_vec())
        .await;
    assert_eq!(reply.status(), 400);
    assert!(
        sidecar.memory.keys().is_empty(),
        "{:?}",
        sidecar.memory.keys()
    );
    sidecar.stop().await.unwrap();
}

/// As many connections as asked for that send nothing, or the beginning of a head.
fn idle(sidecar: &Sidecar, count: usize, beginning: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(sidecar.address).unwrap();
        // The sidecar may have made room already.
        let _ = stream.write_all(beginning);
        stream
    };
    (0..count).map(open).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn row60_neither_idle_nor_slow_clients_keep_a_push_out() {
    let mut bench = bench();
    bench.options.limits.soft_connections = 20;
    bench.options.limits.hard_connections = 30;
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let silent = idle(&sidecar, 100, b"");
    let slow = idle(&sidecar, 100, b"GET /wal-push/0000");
    let (name, _) = sidecar.segment(1);
    let begun = Instant::now();
    let reply = sidecar.get(&format!("/wal-push/{name}")).await;
    assert_eq!(reply.status(), 200, "{}", reply.body());
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert!(sidecar.app.connections.len() <= 30);
    drop((silent, slow));
    sidecar.stop().await.unwrap();
}

/// Requests whose bodies do not come are not whole: they make room like idle connections, and hold nothing.
#[tokio::test(flavor = "multi_thread")]
async fn row60_bodies_that_do_not_come_keep_no_push_out() {
    let mut bench = bench();
    bench.options.limits.soft_connections = 20;
    bench.options.limits.hard_connections = 30;
    bench.options.limits.body_timeout = Duration::from_mins(10);
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let (name, _) = sidecar.segment(1);
    let head =
        format!("POST /wal-push/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx");
    let slow = idle(&sidecar, 100, head.as_bytes());
    let reply = sidecar.get(&format!("/wal-push/{name}")).await;
    assert_eq!(reply.status(), 200, "{}", reply.body());
    assert!(sidecar.app.connections.len() <= 30);
    drop(slow);
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row60_without_the_token_no_body_is_waited_for() {
    let mut bench = bench();
    bench.options.token = Some(HttpToken::new("s3cret".into()).unwrap());
    bench.options.limits.body_timeout = Duration::from_mins(10);
    let sidecar = bench.start(None).await;
    for path in ["/backup-push", "/wal-push/x"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
        let reply = sidecar.raw(head).await;
        assert_eq!(reply.status(), 401, "{path}: {}", reply.body());
    }
    sidecar.stop().await.unwrap();
}

/// A client that asks for files and reads nothing gets a turn, or a place in the queue, or is turned away. That keeps
/// out neither a push nor a recovery.
#[tokio::test(flavor = "multi_thread")]
async fn fault_88_whoever_waits_for_a_file_keeps_no_push_and_no_recovery_out() {
    let mut bench = bench();
    bench.options.limits.soft_connections = 20;
    bench.options.limits.hard_connections = 30;
    bench.options.limits.files_at_once = 1;
    bench.options.limits.files_waiting = 10;
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let (name, _) = sidecar.segment(1);
    let pushed = sidecar.get(&format!("/wal-push/{name}")).await;
    assert_eq!(pushed.status(), 200);
    // The one turn is somebody else's: all must wait.
    let peer = std::net::Ipv4Addr::LOCALHOST.into();
    let mine = sidecar
        .app
        .files
        .take(peer, CancellationToken::new(), Duration::ZERO);
    let turn = mine.await.expect("it is free");
    let head = format!("GET /wal/{name} HTTP/1.1\r\nHost: x\r\n\r\n");
    let waiting = idle(&sidecar, 100, head.as_bytes());
    eventually("the queue is full", || async {
        sidecar.app.files.waiting() == 10
    })
    .await;
    let (second, _) = sidecar.segment(2);
    let reply = sidecar.get(&format!("/wal-push/{second}")).await;
    assert_eq!(reply.status(), 200, "{}", reply.body());
    drop(turn);
    let reply = sidecar.get(&format!("/wal/{name}")).await;
    assert_eq!(reply.status(), 200, "{}", reply.body());
    drop(waiting);
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row60_a_head_that_does_not_come_is_not_waited_for() {
    let mut bench = bench();
    bench.options.limits.head_timeout = Duration::from_millis(100);
    let sidecar = bench.start(None).await;
    for beginning in ["", "GET /pi", "GET /ping HTTP/1.1\r\nHost: x\r\n"] {
        let reply = sidecar.raw(beginning).await;
        assert!(reply.0.is_empty(), "{beginning:?} {reply:?}");
    }
    // The time between two requests of one connection is bounded by the same limit.
    let reply = sidecar.raw("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(reply.body(), "pong\n");
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row60_when_crowded_only_wal_and_probes_are_served() {
    let mut bench = bench();
    bench.options.limits.soft_connections = 1;
    bench.options.limits.hard_connections = 50;
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let (name, _) = sidecar.segment(1);
    let crowd = sidecar.app.connections.enter().await;
    let answering = crowd.busy(Share::Other);
    assert_eq!(sidecar.get("/status").await.status(), 503);
    assert_eq!(sidecar.get("/backups").await.status(), 503);
    assert_eq!(sidecar.get("/ping").await.status(), 200);
    assert_eq!(
        sidecar.get(&format!("/wal-push/{name}")).await.status(),
        200
    );
    drop((answering, crowd));
    // Perhaps the connections before have not ended yet.
    eventually("all is served again", || async {
        sidecar.get("/status").await.status() == 200
    })
    .await;
    sidecar.stop().await.unwrap();
}

/// A 4xx and nothing after it.
async fn refused_and_closed(sidecar: &Sidecar, what: &str, bytes: String) {
    let reply = sidecar.raw(bytes).await;
    // HTTP/2's preface gets no reply: it would not be understood. Everything else is a 4xx.
    let refused =
        (400..500).contains(&reply.status()) || (what == "HTTP/2 preface" && reply.0.is_empty());
    assert!(refused, "{what}: {:?}", String::from_utf8_lossy(&reply.0));
    assert_eq!(
        reply
            .0
            .windows(9)
            .filter(|nine| nine == b"HTTP/1.1 ")
            .count(),
        usize::from(!reply.0.is_empty()),
        "{what}: one reply, then closed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn row61_what_is_no_proper_request_is_refused_and_the_connection_closed() {
    let sidecar = serving().await;
    let (name, _) = sidecar.segment(1);
    let push = format!("/wal-push/{name}");
    let smuggled = format!("GET {push} HTTP/1.1\r\nHost: x\r\n\r\n");
    let get = |head: &str| format!("GET {head}\r\nHost: x\r\n\r\n");
    // What follows the head would be a request of its own, if somebody lost count.
    let post = |headers: &str, body: &str| {
        format!("POST {push} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}{smuggled}")
    };
    let long = |count| "a".repeat(count);
    let cases = [
        (
            "1 MiB header",
            get(&format!("/ping HTTP/1.1\r\nX: {}", long(1 << 20))),
        ),
        (
            "100 KiB URL",
            get(&format!("/{} HTTP/1.1", long(100 << 10))),
        ),
        (
            "9 KiB URL",
            get(&format!("/wal-push/{} HTTP/1.1", long(9 << 10))) + &smuggled,
        ),
        ("HTTP/0.9", "GET /ping\r\n\r\n".to_owned()),
        (
            "HTTP/2 preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ),
        ("HTTP/3.0", get("/ping HTTP/3.0")),
        ("bad chunk", post("Transfer-Encoding: chunked", "ZZ\r\n")),
        ("chunked", post("Transfer-Encoding: chunked", "0\r\n\r\n")),
        (
            "both",
            post(
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n",
            ),
        ),
        (
            "both, turned",
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                "0\r\n\r\n",
            ),
        ),
        (
            "two lengths",
            post("Content-Length: 6\r\nContent-Length: 7", "123456"),
        ),
        ("bad length", post("Content-Length: -1", "")),
        ("large body", post("Content-Length: 1000000", "")),
        (
            "upgrade",
            post("Connection: upgrade\r\nUpgrade: websocket", ""),
        ),
        ("h2c", post("Upgrade: h2c", "")),
        ("bare words", "hello\r\n\r\n".to_owned()),
        ("space in name", get(&format!("{push} x HTTP/1.1"))),
        (
            "header without colon",
            get(&format!("{push} HTTP/1.1\r\nX")),
        ),
    ];
    for (what, bytes) in cases {
        refused_and_closed(&sidecar, what, bytes).await;
    }
    assert!(sidecar.memory.keys().is_empty(), "no push got through");
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row61_pipelined_requests_are_answered_in_order() {
    let sidecar = serving().await;
    let both = "GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let text = String::from_utf8(sidecar.raw(both).await.0).unwrap();
    let (pong, alive) = (text.find("pong\n").unwrap(), text.find("alive\n").unwrap());
    assert!(pong < alive, "{text}");
    // A failure of a WAL route ends the connection: the request after it is not read.
    let (name, _) = sidecar.segment(1);
    let after = format!(
        "GET /wal-push/x HTTP/1.1\r\nHost: x\r\n\r\nGET /wal-push/{name} HTTP/1.1\r\nHost: x\r\n\r\n"
    );
    let reply = sidecar.raw(after).await;
    assert_eq!(reply.status(), 400);
    assert!(sidecar.memory.keys().is_empty());
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row63_other_methods_have_no_effect() {
    let sidecar = serving().await;
    let (name, _) = sidecar.segment(1);
    let gets = [
        ("/backups", "GET"),
        ("/status", "GET"),
        ("/wal/x", "GET"),
        ("/wal-fetch/x", "GET"),
    ];
    let posts = [
        (format!("/wal-push/{name}"), "GET, POST"),
        ("/backup-push".to_owned(), "GET, POST"),
    ];
    let all = gets
        .iter()
        .map(|(path, allow)| ((*path).to_owned(), *allow))
        .chain(posts);
    for (path, allow) in all {
        for method in [
            "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "PURGE",
        ] {
            let reply = sidecar
                .raw(format!(
                    "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                ))
                .await;
            assert_eq!(reply.status(), 405, "{method} {path}");
            assert!(
                reply
                    .head()
                    .contains(&format!("allow: {}", allow.to_lowercase())),
                "{}",
                reply.head()
            );
        }
    }
    for path in ["/ping", "/status", "/metrics", "/backups", "/wal/x"] {
        let reply = sidecar
            .raw(format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!(reply.status(), 405, "{path}");
    }
    let reply = sidecar
        .raw("CONNECT example.org:80 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!((400..500).contains(&reply.status()), "{reply:?}");
    assert!(sidecar.memory.keys().is_empty());
    assert!(sidecar.app.backups.running().is_none());
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_98_a_probe_answers_head_as_it_answers_get_without_the_body() {
    let sidecar = serving().await;
    for path in ["/ping", "/startupz", "/livez", "/readyz"] {
        let ask = async |method: &str| {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            sidecar.raw(request).await
        };
        let (get, head) = (ask("GET").await, ask("HEAD").await);
        assert_eq!(head.status(), get.status(), "{path}");
        assert!(head.bytes().is_empty(), "{path}: {head:?}");
        let url = format!("http://{}{path}", sidecar.address);
        let spider = run("wget", words(&format!("-q --spider {url}"))).await;
        let expected = if get.status() == 200 { 0 } else { 8 };
        assert_eq!(spider.status.code(), Some(expected), "{path}");
    }
    sidecar.stop().await.unwrap();
}

/// Row 90, over a socket: two names, none, and one that a page was given.
#[tokio::test(flavor = "multi_thread")]
async fn fault_90_the_name_in_host_decides_for_everybody() {
    let sidecar = serving().await;
    let (name, _) = sidecar.segment(1);
    let push = format!("/wal-push/{name}");
    let ask = async |method_path: &str, hosts: &str| {
        let request = format!("{method_path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        sidecar.raw(request).await.status()
    };
    let evil = "Host: evil.example:5000\r\n";
    assert_eq!(ask("GET /status", evil).await, 403);
    assert_eq!(ask("POST /backup-push", evil).await, 403);
    assert_eq!(ask(&format!("GET /wal/{name}"), evil).await, 403);
    assert_eq!(ask(&format!("GET {push}"), &evil.repeat(2)).await, 400);
    assert_eq!(ask(&format!("GET {push}"), "").await, 400);
    assert!(sidecar.memory.keys().is_empty());
    assert!(sidecar.app.backups.running().is_none());
    assert_eq!(ask("GET /ping", "").await, 200);
    assert_eq!(
        ask(&format!("GET {push}"), evil).await,
        200,
        "archiving goes on"
    );
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row62_a_page_in_a_browser_starts_nothing() {
    let sidecar = serving().await;
    let (name, _) = sidecar.segment(1);
    for path in ["/backup-push".to_owned(), format!("/wal-push/{name}")] {
        let reply = sidecar.raw(format!("POST {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(reply.status(), 403, "{path}");
    }
    assert!(sidecar.memory.keys().is_empty());
    assert!(sidecar.app.backups.running().is_none());
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_although_the_client_is_still_sending() {
    let sidecar = serving().await;
    let address = sidecar.address;
    let text = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = "POST /wal-push/x HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let _ = stream.write_all(&vec![b'x'; 200_000]);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all)
    });
    let text = text.await.unwrap().expect("no reset");
    assert!(
        text.starts_with(b"HTTP/1.1 413 "),
        "{}",
        String::from_utf8_lossy(&text)
    );
    sidecar.stop().await.unwrap();
}
