//! The endpoint over TLS, with the clients that people use.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::clients::{run, words};
use super::support::{Bench, Sidecar, bench, eventually, segment};
use crate::Tls;

/// A certificate authority, and the files of one certificate for `localhost` and 127.0.0.1.
struct Files {
    ca: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // Another name than its certificates': OpenSSL takes one that issued itself for self-signed.
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "test authority");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap();
        let files = Self {
            ca,
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(files.path("ca.pem"), files.ca.pem()).unwrap();
        files.renew();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces certificate and key, each by rename, and returns the certificate.
    fn renew(&self) -> CertificateDer<'static> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let parameters = rcgen::CertificateParams::new(names).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.ca).unwrap();
        for (name, text) in [
            ("tls.crt", certificate.pem()),
            ("tls.key", key.serialize_pem()),
        ] {
            std::fs::write(self.path("new"), text).unwrap();
            std::fs::rename(self.path("new"), self.path(name)).unwrap();
        }
        certificate.der().clone()
    }

    fn tls(&self) -> Tls {
        let every = Duration::from_millis(20);
        Tls::load_and_look(self.path("tls.crt"), self.path("tls.key"), every).unwrap()
    }

    /// A client that trusts the authority.
    fn connect(&self, sidecar: &Sidecar) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(sidecar.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        StreamOwned::new(connection, socket)
    }
}

fn secured(files: &Files) -> Bench {
    let mut bench = bench();
    bench.options.tls = Some(files.tls());
    bench
}

fn url(sidecar: &Sidecar, path: &str) -> String {
    format!("https://localhost:{}{path}", sidecar.address.port())
}

async fn status_of(program: &'static str, line: String) -> Option<i32> {
    run(program, words(&line)).await.status.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn wget_and_curl_push_fetch_and_notice_every_failure_over_tls() {
    let files = Files::new();
    let sidecar = secured(&files).start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let ca = files.path("ca.pem").display().to_string();
    let out = sidecar.folder.path().join("out");
    for (number, program, options, output) in [
        (1, "curl", format!("-s --cacert {ca}"), "-o"),
        (2, "wget", format!("-q --ca-certificate={ca}"), "-O"),
    ] {
        let (name, bytes) = sidecar.segment(number);
        let ask = |path: String| {
            format!(
                "{options} {output} {} {}",
                out.display(),
                url(&sidecar, &path)
            )
        };
        assert_eq!(
            status_of(program, ask(format!("/wal-push/{name}"))).await,
            Some(0),
            "{program}"
        );
        assert_eq!(
            status_of(program, ask(format!("/wal/{name}"))).await,
            Some(0),
            "{program}"
        );
        assert_eq!(std::fs::read(&out).unwrap(), bytes, "{program}");
        // An error is cut short inside TLS as outside of it.
        let (missing, _) = segment(9);
        let cut = if program == "curl" { 18 } else { 8 };
        for path in [
            format!("/wal-push/{missing}"),
            format!("/wal/{missing}"),
            "/x".to_owned(),
        ] {
            assert_eq!(status_of(program, ask(path)).await, Some(cut), "{program}");
        }
        // A client that does not trust the authority sends nothing.
        let untrusting = format!(
            "-q {output} - {}",
            url(&sidecar, &format!("/wal-push/{name}"))
        );
        let refused = if program == "curl" { 60 } else { 5 };
        assert_eq!(
            status_of(program, untrusting).await,
            Some(refused),
            "{program}"
        );
    }
    check_metrics(&sidecar, &ca).await;
    sidecar.stop().await.unwrap();
}

/// The metrics count failures and have the certificate's end.
async fn check_metrics(sidecar: &Sidecar, ca: &str) {
    let metrics = run(
        "curl",
        words(&format!("-s --cacert {ca} {}", url(sidecar, "/metrics"))),
    )
    .await;
    let text = String::from_utf8(metrics.stdout).unwrap();
    let failures = "wale_tls_handshake_failures_total ";
    let failures = text
        .lines()
        .find_map(|line| line.strip_prefix(failures))
        .unwrap();
    assert!(failures.parse::<u32>().unwrap() >= 1, "{failures}");
    assert!(
        text.contains("wale_tls_certificate_expiry_timestamp_seconds "),
        "{text}"
    );
    assert!(
        !text.contains("wale_tls_certificate_expiry_timestamp_seconds 0"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_over_without_a_restart_and_a_broken_one_never() {
    let files = Files::new();
    let sidecar = secured(&files).start(None).await;
    let shown = || {
        let mut stream = files.connect(&sidecar);
        stream
            .write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        // A clean end, with TLS's own farewell: else this is an error.
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("pong\n"), "{text}");
        stream.conn.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    };
    let before = shown();
    std::fs::write(files.path("tls.crt"), "half a certificate").unwrap();
    assert_eq!(tokio::task::block_in_place(shown), before);
    let renewed = files.renew();
    assert_ne!(before, renewed);
    eventually("the new certificate is shown", || {
        let is_new = tokio::task::block_in_place(shown) == renewed;
        async move { is_new }
    })
    .await;
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row60_handshakes_that_do_not_come_keep_no_push_out() {
    let files = Files::new();
    let mut bench = secured(&files);
    bench.options.limits.soft_connections = 20;
    bench.options.limits.hard_connections = 30;
    bench.options.limits.head_timeout = Duration::from_millis(500);
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    // Nothing, and the first bytes of a greeting.
    let mut held = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(sidecar.address).unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01");
        }
        held.push(stream);
    }
    let (name, _) = sidecar.segment(1);
    let ca = files.path("ca.pem").display().to_string();
    let begun = Instant::now();
    let push = format!(
        "-s --cacert {ca} {}",
        url(&sidecar, &format!("/wal-push/{name}"))
    );
    assert_eq!(status_of("curl", push).await, Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert!(sidecar.app.connections.len() <= 30);
    // Nobody closes them from the other side: the limit does.
    eventually("all are let go", || async {
        sidecar.app.connections.len() == 0
    })
    .await;
    drop(held);
    sidecar.stop().await.unwrap();
}

/// Clients that ask for a file again and again and read nothing. 40 files of 1 MiB are more than the kernel can hold
/// on both sides of a connection: 4 MiB at the sender's, 32 MiB at the receiver's, as Linux comes.
fn asleep(
    files: &Files,
    sidecar: &Sidecar,
    name: &str,
    count: usize,
) -> Vec<Box<dyn std::io::Write>> {
    let head = format!("GET /wal/{name} HTTP/1.1\r\nHost: x\r\n\r\n");
    let ask = |_| {
        let mut stream: Box<dyn std::io::Write> = match sidecar.app.tls {
            Some(_) => Box::new(files.connect(sidecar)),
            None => Box::new(TcpStream::connect(sidecar.address).unwrap()),
        };
        stream.write_all(head.repeat(40).as_bytes()).unwrap();
        stream
    };
    (0..count).map(ask).collect()
}

/// A sidecar that has stored one segment, whose name it gives, and sends two files at a time.
async fn sender(files: &Files, over_tls: bool, write_stall: Duration) -> (Sidecar, String) {
    let mut bench = if over_tls { secured(files) } else { bench() };
    bench.options.limits.write_stall = write_stall;
    bench.options.limits.files_at_once = 2;
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let (name, _) = sidecar.segment(1);
    let pushed = push(files, &sidecar, &name).await;
    assert_eq!(pushed, Some(0));
    (sidecar, name)
}

async fn push(files: &Files, sidecar: &Sidecar, name: &str) -> Option<i32> {
    status_of(
        "curl",
        asked(files, sidecar, &format!("-s /wal-push/{name}")),
    )
    .await
}

/// curl's words with the path at their end made a whole address.
fn asked(files: &Files, sidecar: &Sidecar, words: &str) -> String {
    let (options, path) = words.rsplit_once(' ').unwrap();
    match sidecar.app.tls {
        Some(_) => {
            let ca = files.path("ca.pem").display().to_string();
            format!("{options} --cacert {ca} {}", url(sidecar, path))
        }
        None => format!("{options} http://{}{path}", sidecar.address),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row60_clients_that_do_not_read_hold_no_push() {
    let files = Files::new();
    for over_tls in [false, true] {
        // Nobody loses a turn while the test looks.
        let (sidecar, name) = sender(&files, over_tls, Duration::from_hours(1)).await;
        let clients = asleep(&files, &sidecar, &name, 6);
        eventually("both turns are taken", || async {
            sidecar.app.files.free() == 0
        })
        .await;
        let (second, _) = sidecar.segment(2);
        assert_eq!(push(&files, &sidecar, &second).await, Some(0));
        drop(clients);
        sidecar.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row60_clients_that_do_not_read_lose_their_turn() {
    let files = Files::new();
    for over_tls in [false, true] {
        let (sidecar, name) = sender(&files, over_tls, Duration::from_millis(200)).await;
        let clients = asleep(&files, &sidecar, &name, 6);
        // Everybody who waits for a turn gets one in the end, no matter who sleeps before.
        let out = sidecar.folder.path().join("out");
        let fetch = format!("-s -o {} /wal/{name}", out.display());
        assert_eq!(
            status_of("curl", asked(&files, &sidecar, &fetch)).await,
            Some(0)
        );
        assert_eq!(std::fs::read(out).unwrap(), segment(1).1);
        // They hold on to their connections; it is the sidecar that ends them.
        eventually("all who sleep are cut", || async {
            sidecar.app.connections.len() == 0
        })
        .await;
        assert_eq!(sidecar.app.files.free(), 2);
        drop(clients);
        sidecar.stop().await.unwrap();
    }
}

/// Row 65: `http://` where the port speaks TLS. GNU wget takes anything that is no HTTP reply for the body of one and ends
/// with 0; PostgreSQL would delete the segment.
#[tokio::test(flavor = "multi_thread")]
async fn fault_65_plain_http_on_the_tls_port_gets_a_real_reply_and_no_client_ends_with_0() {
    let files = Files::new();
    let sidecar = secured(&files).start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let (name, _) = sidecar.segment(1);
    let mut asked = 0;
    for path in [
        format!("/wal-push/{name}"),
        format!("/wal-absent/{name}"),
        format!("/wal/{name}"),
        "/nonsense".to_owned(),
    ] {
        let reply = sidecar.get(&path).await;
        assert_eq!(reply.status(), 400, "{path}");
        assert!(reply.head().contains("connection: close"), "{path}");
        assert!(reply.body().contains("https://"), "{path}");
        assert_eq!(reply.declared(), Some(reply.bytes().len() + 1), "{path}");
        let plain = format!("http://{}{path}", sidecar.address);
        for (program, line, status) in [
            ("wget", format!("-q -O - {plain}"), 8),
            ("busybox", format!("wget -q -O - {plain}"), 1),
            ("curl", format!("-s {plain}"), 18),
        ] {
            assert_eq!(
                status_of(program, line).await,
                Some(status),
                "{program} {path}"
            );
        }
        asked += 4;
    }
    // Nothing that is sent over it is read, neither a second request nor what its bytes would mean.
    let two = format!(
        "GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET /wal-push/{name} HTTP/1.1\r\nHost: x\r\n\r\n"
    );
    let reply = sidecar.raw(two).await;
    let replies = reply.0.windows(9).filter(|nine| nine == b"HTTP/1.1 ");
    assert_eq!((reply.status(), replies.count()), (400, 1));
    for nonsense in ["hello\r\n\r\n", "GET /ping\r\n\r\n"] {
        let reply = sidecar.raw(nonsense).await;
        assert_eq!(reply.status(), 400, "{nonsense:?}: {reply:?}");
    }
    assert!(sidecar.memory.keys().is_empty(), "nothing was pushed");
    let ca = files.path("ca.pem").display().to_string();
    let over_tls = async |path: &str| {
        let line = format!("-s --cacert {ca} {}", url(&sidecar, path));
        String::from_utf8(run("curl", words(&line)).await.stdout).unwrap()
    };
    let metrics = over_tls("/metrics").await;
    let counted = format!("wale_tls_plain_http_requests_total {}", asked + 1);
    assert!(metrics.contains(&counted), "{metrics}");
    let ready = over_tls("/readyz").await;
    assert!(
        ready.contains("note: ") && ready.contains("plain HTTP"),
        "{ready}"
    );
    assert!(
        !ready.contains("tls: "),
        "a neighbour turns nothing off: {ready}"
    );
    sidecar.stop().await.unwrap();
}
