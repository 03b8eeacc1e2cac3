//! The client against a scripted server.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use wale_cluster::hand_over::HandOver;
use wale_ops::Nonce;

use super::*;

const NAME: &str = "000000010000000000000001";

/// Serves these replies, one connection each, and returns what was asked for.
fn serve(replies: Vec<Vec<u8>>) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let answer = |reply: Vec<u8>| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            stream.write_all(&reply).unwrap();
            String::from_utf8(head).unwrap()
        };
        replies.into_iter().map(answer).collect()
    });
    (port, thread)
}

fn reply(status: &str, declared: usize, body: &[u8]) -> Vec<u8> {
    let mut reply = format!("HTTP/1.1 {status}\r\nContent-Length: {declared}\r\n\r\n").into_bytes();
    reply.extend_from_slice(body);
    reply
}

/// A reply that says whose it is.
fn marked(says: &str, declared: usize, body: &[u8]) -> Vec<u8> {
    let status = format!("200 OK\r\nWale-Answer: {says}");
    reply(&status, declared, body)
}

fn server_at(port: u16) -> Server {
    let token = Some(wale_cluster::Secret::new("t0ken"));
    Server::new("localhost", port, token, Duration::from_secs(10))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    runtime::small().unwrap().block_on(work)
}

#[test]
fn a_push_succeeds_on_a_whole_200_of_a_sidecar_about_that_file_only() {
    let says = format!("archived {NAME}");
    let other = "archived 000000010000000000000002";
    let away = Some(Kind::StorageUnavailable);
    let told: &[u8] = b"told so\n";
    let cases: [(Vec<u8>, Option<Kind>); 14] = [
        (marked(&says, 8, told), None),
        (marked(&says, 0, b""), None),
        // Anybody's, another file's, another route's; one that breaks off, in both ways; one that never ends.
        (reply("200 OK", 8, told), away),
        (marked(other, 8, told), away),
        (marked(&format!("sent {NAME}"), 8, told), away),
        (marked(&says, 16 << 20, told), away),
        (
            format!("HTTP/1.1 200 OK\r\nWale-Answer: {says}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ntold\n")
                .into_bytes(),
            away,
        ),
        (marked(&says, 5000, &[b'x'; 5000]), away),
        (reply("202 Accepted", 8, told), away),
        (reply("204 No Content", 0, b""), away),
        (reply("404 Not Found", 8, told), Some(Kind::NotFound)),
        (reply("409 Conflict", 8, told), Some(Kind::ArchiveConflict)),
        (reply("503 Service Unavailable", 8, told), away),
        (b"<html>".to_vec(), away),
    ];
    for (sent, kind) in cases {
        let shown = String::from_utf8_lossy(&sent).into_owned();
        let (port, asked) = serve(vec![sent]);
        let result = block_on(push(&server_at(port), &format!("pg_wal/{NAME}")));
        assert_eq!(result.as_ref().err().map(|e| e.kind), kind, "{shown}");
        let asked = asked.join().unwrap().remove(0);
        assert!(
            asked.starts_with(&format!("GET /wal-push/{NAME} HTTP/1.1\r\n")),
            "{asked}"
        );
        assert!(asked.contains("Bearer t0ken"), "{asked}");
    }
}

#[test]
fn the_database_may_start_when_a_sidecar_says_so() {
    for (sent, may) in [
        (marked("may-start", 3, b"ok\n"), true),
        (reply("200 OK", 3, b"ok\n"), false),
        (reply("503 Busy", 3, b"no\n"), false),
    ] {
        let (port, asked) = serve(vec![sent]);
        assert_eq!(block_on(ready(&server_at(port))).is_ok(), may);
        asked.join().unwrap();
    }
}

#[test]
fn a_fetch_is_whole_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("RECOVERYXLOG");
    let sent = format!("sent {NAME}");
    let absent = format!("absent {NAME}");
    for (replies, expected) in [
        (vec![marked(&sent, 7, b"segment")], Ok(())),
        (
            vec![marked(&sent, 8, b"segment")],
            Err(Kind::StorageUnavailable),
        ),
        (
            vec![reply("200 OK", 7, b"segment")],
            Err(Kind::StorageUnavailable),
        ),
        (
            vec![format!("HTTP/1.1 200 OK\r\nWale-Answer: {sent}\r\n\r\nsegment").into_bytes()],
            Err(Kind::CorruptData),
        ),
        (
            vec![reply("503 Busy", 3, b"no\n")],
            Err(Kind::StorageUnavailable),
        ),
        (
            vec![reply("404 No", 1, b""), marked(&absent, 0, b"")],
            Err(Kind::NotFound),
        ),
        // A 200 of somebody else's would end the recovery.
        (
            vec![reply("404 No", 1, b""), reply("200 OK", 0, b"")],
            Err(Kind::StorageUnavailable),
        ),
        (
            vec![reply("404 No", 1, b""), reply("404 No", 0, b"")],
            Err(Kind::StorageUnavailable),
        ),
        (
            vec![reply("404 No", 1, b""), reply("500 Gap", 0, b"")],
            Err(Kind::CorruptData),
        ),
        (
            vec![reply("404 No", 1, b""), Vec::new()],
            Err(Kind::StorageUnavailable),
        ),
        (vec![Vec::new()], Err(Kind::StorageUnavailable)),
    ] {
        let shown = format!(
            "{:?}",
            replies
                .iter()
                .map(|r| String::from_utf8_lossy(r))
                .collect::<Vec<_>>()
        );
        let (port, asked) = serve(replies);
        let result = block_on(fetch(&server_at(port), NAME, &path, Proof::Asked));
        assert_eq!(result.map_err(|e| e.kind), expected, "{shown}");
        asked.join().unwrap();
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(
            left.len(),
            usize::from(expected.is_ok()),
            "{shown}: {left:?}"
        );
        if expected.is_ok() {
            assert_eq!(std::fs::read(&path).unwrap(), b"segment");
            std::fs::remove_file(&path).unwrap();
        }
    }
}

/// Row 100 of the battery: a standby asks every few seconds, and costs one request each time.
#[test]
fn fault_100_a_standby_asks_for_no_proof() {
    let folder = tempfile::tempdir().unwrap();
    let (port, asked) = serve(vec![reply("404 No", 1, b"")]);
    let path = folder.path().join("x");
    let result = block_on(fetch(&server_at(port), NAME, &path, Proof::Spared));
    assert_eq!(result.map_err(|e| e.kind), Err(Kind::NotFound));
    assert_eq!(asked.join().unwrap().len(), 1);
}

#[test]
fn nobody_listening_is_not_absence() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let folder = tempfile::tempdir().unwrap();
    let error = block_on(fetch(
        &server_at(port),
        NAME,
        &folder.path().join("x"),
        Proof::Asked,
    ))
    .unwrap_err();
    assert_eq!(error.kind, Kind::StorageUnavailable);
}

#[test]
fn names_and_urls() {
    assert_eq!(
        checked("pg_wal/00000002.history").unwrap(),
        "00000002.history"
    );
    for name in [
        "",
        "..",
        "x y",
        "000000010000000000000001/",
        "%2e",
        "00000002.HISTORY",
    ] {
        assert!(checked(name).is_err(), "{name}");
    }
    let parse = |url: &str| {
        let tls = || Ok(wale_cluster::control::checking_client(None).unwrap());
        Server::parse(url, None, Duration::from_secs(1), tls)
    };
    for url in [
        "http://h",
        "http://h:5000/",
        "http://[::1]:5000/base",
        "https://h",
    ] {
        assert!(parse(url).is_ok(), "{url}");
    }
    for url in [
        "ftp://h",
        "h:5000",
        "",
        "http://h/?x",
        "http://u:canary@h",
        "https://canary@h/?",
    ] {
        let error = parse(url).err().unwrap_or_else(|| panic!("{url}"));
        assert!(!error.message.contains("canary"), "{}", error.message);
    }
}

/// A sidecar of which `answer` plays the first part: it gets the head of the request. The second connection, if there is one, gets
/// the bytes.
fn sidecar(
    answer: impl FnOnce(&str) -> Vec<u8> + Send + 'static,
) -> (u16, JoinHandle<Option<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let head_of = |stream: &mut std::net::TcpStream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    };
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = head_of(&mut stream);
        stream.write_all(&answer(&head)).unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        let head = head_of(&mut stream);
        if head.is_empty() {
            return None;
        }
        stream
            .write_all(&marked(&format!("sent {NAME}"), 7, b"segment"))
            .unwrap();
        Some(head)
    });
    (port, thread)
}

/// What a sidecar does in a WAL directory and answers to the head of a request.
type Answer = Box<dyn FnOnce(&Path, &str) -> Vec<u8> + Send>;

fn nonce_of(head: &str) -> Nonce {
    let (_, rest) = head.split_once("wale-take: ").expect("it can take a file");
    Nonce::parse(rest.lines().next().unwrap()).unwrap()
}

fn handed(nonce: &Nonce, name: &str, size: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nWale-Answer: handed {name}\r\nWale-Handed: {nonce} {size}\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// What the sidecar did, as a client of this folder sees it; the second request, if there was one.
fn fetched_after(
    wal: &Path,
    answer: impl FnOnce(&str) -> Vec<u8> + Send + 'static,
) -> (Result<(), Kind>, Option<String>) {
    let (port, asked) = sidecar(answer);
    let destination = wal.join("RECOVERYXLOG");
    let result = block_on(fetch(&server_at(port), NAME, &destination, Proof::Asked));
    if result.is_ok() {
        assert_eq!(std::fs::read(&destination).unwrap(), b"segment");
        std::fs::remove_file(&destination).unwrap();
    }
    let left: Vec<_> = std::fs::read_dir(wal).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    // Nobody else asks: this one only ends the wait.
    drop(std::net::TcpStream::connect(("127.0.0.1", port)));
    (result.map_err(|error| error.kind), asked.join().unwrap())
}

#[test]
fn a_file_that_the_sidecar_put_beside_the_destination_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let over = HandOver::at(folder.path());
    let (result, again) = fetched_after(folder.path(), move |head| {
        let nonce = nonce_of(head);
        let mut file = over.file().unwrap();
        file.write_all(b"segment").unwrap();
        over.awaited(&nonce).unwrap().give(&file).unwrap();
        handed(&nonce, NAME, 7)
    });
    assert_eq!((result, again), (Ok(()), None), "one request");
}

#[test]
fn whatever_is_not_the_file_is_not_taken_and_the_bytes_are_asked_for() {
    let place = |wal: &Path, head: &str| wal.join(".wale").join(nonce_of(head).as_str());
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&secret, b"segment").unwrap();
    let target = secret.path().to_owned();
    let cases: Vec<(&str, Answer)> = vec![
        (
            "not there: another volume",
            Box::new(|_, head| handed(&nonce_of(head), NAME, 7)),
        ),
        (
            "a link",
            Box::new(move |wal, head| {
                let link = place(wal, head).join("segment");
                std::os::unix::fs::symlink(&target, link).unwrap();
                handed(&nonce_of(head), NAME, 7)
            }),
        ),
        (
            "another size",
            Box::new(move |wal, head| {
                std::fs::write(place(wal, head).join("segment"), b"segm").unwrap();
                handed(&nonce_of(head), NAME, 7)
            }),
        ),
        (
            "the place was taken away",
            Box::new(move |wal, head| {
                std::fs::remove_dir(place(wal, head)).unwrap();
                handed(&nonce_of(head), NAME, 7)
            }),
        ),
    ];
    for (what, answer) in cases {
        let folder = tempfile::tempdir().unwrap();
        let wal = folder.path().to_owned();
        let (result, again) = fetched_after(folder.path(), move |head| answer(&wal, head));
        assert_eq!(result, Ok(()), "{what}");
        let again = again.expect(what);
        assert!(!again.contains("wale-take"), "{what}: {again}");
    }
    assert_eq!(std::fs::read(&secret).unwrap(), b"segment");
}

#[test]
fn a_reply_about_another_request_or_file_is_nobodys() {
    let other = Nonce::parse(&"0".repeat(32)).unwrap();
    let cases: [fn(&Nonce, &Nonce) -> Vec<u8>; 4] = [
        |_, other| handed(other, NAME, 7),
        |own, _| handed(own, "000000010000000000000002", 7),
        |own, _| {
            let text = String::from_utf8(handed(own, NAME, 7)).unwrap();
            text.replace("Wale-Answer", "X-Other").into_bytes()
        },
        |own, _| {
            let text = String::from_utf8(handed(own, NAME, 7)).unwrap();
            text.replace("200 OK", "206 Partial").into_bytes()
        },
    ];
    for answer in cases {
        let folder = tempfile::tempdir().unwrap();
        let (wal, other) = (folder.path().to_owned(), other.clone());
        let (result, again) = fetched_after(folder.path(), move |head| {
            let nonce = nonce_of(head);
            let file = wal.join(".wale").join(nonce.as_str()).join("segment");
            std::fs::write(file, b"segment").unwrap();
            answer(&nonce, &other)
        });
        assert_eq!((result, again), (Err(Kind::StorageUnavailable), None));
    }
}

/// A sidecar of before knows nothing of files; nor can one be put anywhere but beside recovery's own name.
#[test]
fn an_older_sidecar_sends_bytes_and_only_recoverys_own_name_takes_files() {
    let folder = tempfile::tempdir().unwrap();
    let (result, again) = fetched_after(folder.path(), |head| {
        nonce_of(head);
        marked(&format!("sent {NAME}"), 7, b"segment")
    });
    assert_eq!((result, again), (Ok(()), None));
    for (name, file) in [
        (NAME, NAME),
        (NAME, "x"),
        ("00000002.history", "RECOVERYXLOG"),
    ] {
        let (port, asked) = serve(vec![marked(&format!("sent {name}"), 7, b"segment")]);
        let path = folder.path().join(file);
        block_on(fetch(&server_at(port), name, &path, Proof::Asked)).unwrap();
        let asked = asked.join().unwrap().remove(0);
        assert!(!asked.contains("wale-take"), "{asked}");
    }
}
