//! The fault battery, rows 58 to 61: names from outside, planted files, load, and malformed requests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use wale_testkit::{Reply, get, request, shell};

use crate::support::Stage;

const SEGMENT: &str = "000000010000000000000001";

fn ask(port: u16, path: &str) -> Reply {
    request(
        port,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
    .unwrap()
}

#[test]
fn fault_58_a_name_that_is_not_one_of_the_four_forms_is_400_and_touches_no_file() {
    let stage = Stage::new("names", 15);
    let port = stage.sidecar.port;
    let before = shell(&format!("find {} | sort", stage.archive().display()));
    let long = "A".repeat(65);
    let names = [
        "../x",
        "..%2fx",
        "%2e%2e",
        "%2e%2e%2f000000010000000000000001",
        "%00",
        "%252f",
        "a\\b",
        "",
        "/",
        ".",
        "..",
        &long,
        "0000000100000000000000ab",
        "00000001000000000000000a",
        "000000010000000000000001.",
        "000000010000000000000001.PARTIAL",
        "000000010000000000000001.partial.partial",
        "000000000000000000000001",
        "000000010000000000000001.zst",
        "00000001.History",
        "00000000.history",
        "../pg_wal/000000010000000000000001",
        "pg_wal/../000000010000000000000001",
        "./000000010000000000000001",
        "pg_wal//000000010000000000000001",
        "00000001000000000000000\u{ff11}",
        "000000010000000000000001\u{200b}",
        "000000010000000000000001%0a",
        "000000010000000000000001;x",
    ];
    for route in [
        "wal-push",
        "push",
        "wal-fetch",
        "fetch",
        "wal",
        "wal-absent",
    ] {
        for name in names {
            let reply = ask(port, &format!("/{route}/{name}"));
            assert_eq!(reply.status, 400, "{route}/{name:?}: {}", reply.text());
        }
    }
    let after = shell(&format!("find {} | sort", stage.archive().display()));
    assert_eq!(before, after);
    // The original took paths: the last component counts.
    let reply = ask(port, &format!("/wal-push/pg_wal/{SEGMENT}.partial"));
    assert_eq!(reply.status, 404, "{}", reply.text());
}

#[test]
fn fault_59_only_a_regular_file_of_the_wal_directory_is_pushed() {
    let stage = Stage::new("planted", 15);
    let port = stage.sidecar.port;
    let wal = &stage.cluster.wal;
    stage.cluster.sql("create table t (v int)");
    let real = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let planted = |n: u32| format!("0000000100000000000000{n:02X}");
    let outside = stage.sandbox.path().join("secret");
    std::fs::copy(wal.join(&real), &outside).unwrap();
    symlink(&outside, wal.join(planted(0xA0))).unwrap();
    symlink(wal.join(&real), wal.join(planted(0xA1))).unwrap();
    shell(&format!("mkfifo {}", wal.join(planted(0xA2)).display()));
    std::fs::create_dir(wal.join(planted(0xA3))).unwrap();
    symlink("/dev/zero", wal.join(planted(0xA4))).unwrap();
    for n in 0xA0..=0xA4 {
        let name = planted(n);
        shell(&format!(
            "touch {}",
            wal.join(format!("archive_status/{name}.ready")).display()
        ));
        let begun = Instant::now();
        let reply = ask(port, &format!("/wal-push/{name}"));
        assert!(reply.status >= 400, "{name}: {}", reply.status);
        assert!(begun.elapsed() < Duration::from_secs(10), "{name} hung");
        let found = shell(&format!(
            "find {} -name '*{name}*'",
            stage.archive().display()
        ));
        assert_eq!(found, "");
    }
}

#[test]
fn fault_60_idle_and_slow_connections_do_not_delay_a_push() {
    let stage = Stage::new("idle", 15);
    let port = stage.sidecar.port;
    let mut held = Vec::new();
    for n in 0..1000 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
            break;
        };
        if n % 2 == 0 {
            let _ = stream.write_all(b"GET /sta");
        }
        held.push(stream);
    }
    assert!(held.len() >= 500, "only {} connections", held.len());
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    let begun = Instant::now();
    stage.cluster.wait_archived();
    let took = begun.elapsed();
    println!("with {} idle connections a push took {took:?}", held.len());
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(
        get(port, &format!("/wal-push/{segment}")).unwrap().status,
        200
    );
    let kib = stage.sidecar.peak_kib();
    assert!(kib < 128 * 1024, "memory grew to {kib} KiB");
}

/// A thousand pushes of one name and of a thousand names, all at once: each gets a right answer or is turned away,
/// memory stays bounded, and PostgreSQL's own push still passes.
#[test]
fn fault_60_a_thousand_pushes_of_one_name_and_of_a_thousand_names() {
    let stage = Stage::new("storm", 15);
    let port = stage.sidecar.port;
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let one = |_: u32| format!("/wal-push/{segment}");
    let many = |n: u32| format!("/wal-push/00000001{:08X}{:08X}", 7 + n / 256, n % 256);
    let burst = |path: &(dyn Fn(u32) -> String + Sync)| -> Vec<u16> {
        std::thread::scope(|scope| {
            let ask =
                |n: u32| scope.spawn(move || get(port, &path(n)).map_or(0, |reply| reply.status));
            let clients: Vec<_> = (0..1000).map(ask).collect();
            let pushed = stage.cluster.switch_wal();
            let begun = Instant::now();
            stage.cluster.wait_archived();
            println!("among 1,000 requests a push took {:?}", begun.elapsed());
            assert_eq!(
                get(port, &format!("/wal-push/{pushed}")).unwrap().status,
                200
            );
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect()
        })
    };
    let of_one = burst(&one);
    assert!(
        of_one.iter().all(|status| matches!(status, 200 | 503 | 0)),
        "{of_one:?}"
    );
    assert!(
        of_one.iter().filter(|status| **status == 200).count() > 200,
        "{of_one:?}"
    );
    // Names that PostgreSQL has no file for.
    let of_many = burst(&many);
    assert!(
        of_many
            .iter()
            .all(|status| matches!(status, 404 | 409 | 503 | 0)),
        "{of_many:?}"
    );
    let kib = stage.sidecar.peak_kib();
    assert!(kib < 128 * 1024, "memory grew to {kib} KiB");
}

/// A request for a file of 16 MiB from a client that reads a byte now and then: the kernel's buffers take a part, the
/// rest waits in the sidecar.
fn ask_and_read_slowly(port: u16, segment: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let head = format!("GET /wal/{segment} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    Some(stream)
}

/// Clients that ask for files and read slowly hold neither the memory nor the threads that a push needs.
#[test]
fn fault_60_two_hundred_slow_readers_keep_no_push_out() {
    let options = wale_testkit::ClusterOptions::default();
    let stage = Stage::with("readers", &options, |options| {
        options.set("WALE_MEMORY", "64MiB")
    });
    let port = stage.sidecar.port;
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let mut readers: Vec<TcpStream> = (0..200)
        .filter_map(|_| ask_and_read_slowly(port, &segment))
        .collect();
    assert!(readers.len() >= 150, "only {}", readers.len());
    // Some have had the beginning of their file: the sidecar is busy with them.
    let mut first = [0; 12];
    readers[0].read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        stage
            .cluster
            .sql("insert into t select generate_series(1, 1000)");
        let begun = Instant::now();
        stage.cluster.switch_wal();
        stage.cluster.wait_archived();
        slowest = slowest.max(begun.elapsed());
        for reader in &mut readers {
            let _ = reader.set_nonblocking(true);
            let _ = reader.read(&mut [0]);
        }
    }
    println!("with 200 slow readers the slowest of 5 pushes took {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let kib = stage.sidecar.peak_kib();
    println!("peak {kib} KiB");
    // The budget, and 16 files of 1.5 MiB at most beside it, and the program itself.
    assert!(kib < (64 + 24 + 64) * 1024, "memory grew to {kib} KiB");
}

#[test]
fn fault_61_malformed_requests_are_refused_and_the_connection_closed() {
    let stage = Stage::new("malformed", 15);
    let port = stage.sidecar.port;
    let huge = format!(
        "GET /ping HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(1 << 20)
    );
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100 << 10));
    let cases: [(&str, &str); 9] = [
        ("a header of 1 MiB", &huge),
        ("a URL of 100 KiB", &long),
        ("HTTP/0.9", "GET /ping\r\n\r\n"),
        (
            "bad chunk sizes",
            "POST /backup-push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        ),
        (
            "length and chunks",
            "POST /wal-push/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        (
            "two lengths",
            "POST /wal-push/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        ),
        (
            "an upgrade",
            "GET /wal-push/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        ),
        ("TLS", "\u{16}\u{3}\u{1}\u{0}\u{5}hello\r\n\r\n"),
        ("a broken line", "GET\r\n\r\n"),
    ];
    for (what, raw) in cases {
        let begun = Instant::now();
        // Reset instead of a reply is a refusal too.
        let reply = request(port, raw);
        assert!(
            begun.elapsed() < Duration::from_secs(40),
            "{what} was not closed"
        );
        if let Ok(reply) = reply {
            assert!(
                reply.status == 0 || (400..600).contains(&reply.status),
                "{what}: {}",
                reply.status
            );
            let body = reply.text();
            assert!(
                !body.contains("pong"),
                "{what}: a smuggled request was answered: {body}"
            );
        }
    }
    // Pipelined requests are answered in order or the connection is closed; never mixed up.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .write_all(
            b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let first = text.find("200 OK").expect("the first is answered");
    if let Some(second) = text.find(" 404 ") {
        assert!(first < second, "{text}");
    }
    assert_eq!(get(port, "/ping").unwrap().status, 200);
}

#[test]
fn methods_other_than_get_and_post_have_no_side_effect() {
    let stage = Stage::new("methods", 15);
    let port = stage.sidecar.port;
    for method in ["HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        for path in [
            "/backup-push",
            "/wal-push/000000010000000000000001",
            "/status",
        ] {
            let raw = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let reply = request(port, &raw).unwrap();
            assert_eq!(reply.status, 405, "{method} {path}");
        }
    }
    assert_eq!(
        stage
            .sidecar
            .get("/backups")
            .json()
            .as_array()
            .map(Vec::len),
        Some(0)
    );
}

/// Plain `curl` exits 0 on every status: on the WAL routes an error must not look like success.
#[test]
fn curl_without_f_does_not_exit_0_on_an_error() {
    let stage = Stage::new("curl", 15);
    let url = format!("http://127.0.0.1:{}", stage.sidecar.port);
    let code = |command: &str| -> i32 {
        shell(&format!("{command} >/dev/null 2>&1 && echo 0 || echo $?"))
            .trim()
            .parse()
            .unwrap()
    };
    for path in [
        "wal-push/0000000100000000000000FF",
        "wal/0000000100000000000000FF",
        "wal-push/x",
    ] {
        assert_eq!(code(&format!("curl -s {url}/{path}")), 18, "{path}");
        assert_ne!(code(&format!("wget -q -O - {url}/{path}")), 0, "{path}");
        assert_ne!(
            code(&format!("busybox wget -q -O - {url}/{path}")),
            0,
            "{path}"
        );
    }
    assert_eq!(code(&format!("curl -s {url}/ping")), 0);
}
