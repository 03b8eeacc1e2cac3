//! The fault battery, rows 58 to 61: names from outside, planted files, load, and malformed requests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use wale_testkit::{Reply, get, request, shell, wait_until};

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

/// How long PostgreSQL waits for one push of its own, from the end of a segment to the end of its archiving.
fn own_push(stage: &Stage) -> Duration {
    stage
        .cluster
        .sql("insert into t select generate_series(1, 1000)");
    stage.cluster.switch_wal();
    let begun = Instant::now();
    stage.cluster.wait_archived();
    begun.elapsed()
}

/// What holds a connection and sends nothing is let go after so long; a push that waited for that took longer.
const LET_GO: Duration = Duration::from_secs(10);

/// PostgreSQL's own push passes while the others are still there. How fast is printed: on a machine with nothing else to
/// do the median is well below a second.
fn passes_beside_the_others(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!("{what}: pushes took {times:?}");
    let median = times[times.len() / 2];
    assert!(median < LET_GO, "{what}: {times:?}");
}

/// A stage with segments of 1 MiB, which are cheap.
fn small(name: &str) -> Stage {
    let options = wale_testkit::ClusterOptions {
        segment_mib: 1,
        ..wale_testkit::ClusterOptions::default()
    };
    let stage = Stage::with(name, &options, |options| {
        options.set("WALE_MEMORY", "96MiB")
    });
    stage.cluster.sql("create table t (v int)");
    stage
}

fn check_memory(stage: &Stage) {
    let kib = stage.sidecar.peak_kib();
    println!("peak {kib} KiB");
    // The budget, and 16 files of 1.5 MiB at most beside it, and the program itself.
    assert!(kib < (64 + 24 + 64) * 1024, "memory grew to {kib} KiB");
}

/// What the connection with a number sends.
type Beginning<'a> = &'a dyn Fn(usize) -> String;

/// Connections that send this and then nothing. The sidecar may cut one at any time.
fn held(port: u16, count: usize, beginning: Beginning<'_>) -> Vec<TcpStream> {
    let open = |number| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        let _ = stream.write_all(beginning(number).as_bytes());
        Some(stream)
    };
    let held: Vec<TcpStream> = (0..count).filter_map(open).collect();
    assert!(held.len() >= count / 2, "only {} connections", held.len());
    held
}

#[test]
fn fault_60_clients_that_hold_connections_do_not_delay_a_push() {
    let stage = small("idle");
    let port = stage.sidecar.port;
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    passes_beside_the_others("alone", (0..5).map(|_| own_push(&stage)).collect());
    let silent = |_| String::new();
    let slow_heads = |_| "GET /sta".to_owned();
    let slow_bodies = |number| {
        let path = [
            "/backup-push",
            "/wal-push/x",
            "/push/000000010000000000000001",
        ][number % 3];
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
    };
    // 40 files each: more than the kernel keeps for a client that reads nothing.
    let asleep = |_| format!("GET /wal/{segment} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(40);
    let kinds: [(&str, usize, Beginning<'_>); 4] = [
        ("1,000 idle connections", 1000, &silent),
        ("1,000 slow heads", 1000, &slow_heads),
        ("600 slow bodies", 600, &slow_bodies),
        (
            "600 clients that ask for files and do not read",
            600,
            &asleep,
        ),
    ];
    for (what, count, beginning) in kinds {
        let mut times = Vec::new();
        // Anew for each push: what is held is let go after ten seconds.
        for _ in 0..5 {
            let held = held(port, count, beginning);
            times.push(own_push(&stage));
            drop(held);
        }
        passes_beside_the_others(what, times);
    }
    check_memory(&stage);
}

/// The path of the request with a number.
type Path<'a> = &'a (dyn Fn(u32) -> String + Sync);

/// All requests at once, five times, and a push of PostgreSQL's own among each burst. Gives the statuses and the times;
/// 0 is a client whose connection was closed or reset, as a full queue of the kernel's does.
fn bursts(stage: &Stage, path: Path<'_>) -> (Vec<u16>, Vec<Duration>) {
    let port = stage.sidecar.port;
    let mut times = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        std::thread::scope(|scope| {
            let ask =
                |n: u32| scope.spawn(move || get(port, &path(n)).map_or(0, |reply| reply.status));
            let clients: Vec<_> = (0..1000).map(ask).collect();
            times.push(own_push(stage));
            statuses.extend(clients.into_iter().map(|client| client.join().unwrap()));
        });
    }
    (statuses, times)
}

/// Segments of a log far away that can be pushed. They take no room: only their beginning is there.
fn far_segments(stage: &Stage, real: &str, count: u32) -> Vec<String> {
    let wal = &stage.cluster.wal;
    let mut page = vec![0; 8192];
    std::fs::File::open(wal.join(real))
        .and_then(|mut file| file.read_exact(&mut page))
        .unwrap();
    let make = |n: u32| {
        let number = u64::from(0x50 * 4096 + n);
        let name = format!("00000001{:08X}{:08X}", number / 4096, number % 4096);
        page[8..16].copy_from_slice(&(number << 20).to_le_bytes());
        let mut file = std::fs::File::create(wal.join(&name)).unwrap();
        file.write_all(&page).unwrap();
        file.set_len(1 << 20).unwrap();
        // Not ready, or PostgreSQL would push them, too.
        std::fs::write(wal.join(format!("archive_status/{name}.done")), "").unwrap();
        name
    };
    let names = (0..count).map(make).collect();
    shell(&format!("chown -R postgres:postgres {}/", wal.display()));
    names
}

/// A thousand pushes of one name, of a thousand names that are there, and of a thousand that are not, all at once: each
/// gets a right answer or is turned away, memory stays bounded, and PostgreSQL's own push still passes.
#[test]
fn fault_60_a_thousand_pushes_of_one_name_and_of_a_thousand_names() {
    let stage = small("storm");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let real = far_segments(&stage, &segment, 1000);
    let one = |_: u32| format!("/wal-push/{segment}");
    let many = |n: u32| format!("/wal-push/{}", real[n as usize]);
    let absent = |n: u32| format!("/wal-push/00000001{:08X}{:08X}", 0x70 + n / 256, n % 256);
    let kinds: [(&str, Path<'_>, &[u16]); 3] = [
        ("1,000 pushes of one name", &one, &[200, 503, 0]),
        ("pushes of 1,000 names", &many, &[200, 503, 0]),
        (
            "pushes of 1,000 names that are not there",
            &absent,
            &[404, 503, 0],
        ),
    ];
    for (what, path, right) in kinds {
        let (statuses, times) = bursts(&stage, path);
        let count = |status: u16| statuses.iter().filter(|&&one| one == status).count();
        for &status in right {
            println!("{what}: {} times {status}", count(status));
        }
        assert!(
            statuses.iter().all(|status| right.contains(status)),
            "{what}: {statuses:?}"
        );
        assert!(count(right[0]) > 1000, "{what}: {statuses:?}");
        passes_beside_the_others(what, times);
    }
    check_memory(&stage);
}

/// Clients that ask for files and read a byte now and then hold neither the memory nor the threads that a push needs.
#[test]
fn fault_60_two_hundred_slow_readers_keep_no_push_out() {
    let options = wale_testkit::ClusterOptions::default();
    let stage = Stage::with("readers", &options, |options| {
        options.set("WALE_MEMORY", "96MiB")
    });
    let port = stage.sidecar.port;
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    // 16 MiB each: the kernel's buffers take a part, the rest waits in the sidecar.
    let mut readers = held(port, 200, &|_| {
        format!("GET /wal/{segment} HTTP/1.1\r\nHost: x\r\n\r\n")
    });
    for reader in &readers {
        reader.set_nonblocking(true).unwrap();
    }
    // One has the beginning of its file, whichever came first: the sidecar is busy with them.
    let is_served = |reader: &TcpStream| {
        let mut first = [0; 12];
        reader.peek(&mut first).is_ok_and(|bytes| bytes == 12) && &first == b"HTTP/1.1 200"
    };
    wait_until("a reader to be served", Duration::from_secs(60), || {
        readers.iter().any(is_served).then_some(())
    });
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(own_push(&stage));
        for reader in &mut readers {
            let _ = reader.read(&mut [0]);
        }
    }
    passes_beside_the_others("200 slow readers", times);
    check_memory(&stage);
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
