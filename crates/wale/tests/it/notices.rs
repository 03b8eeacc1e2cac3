//! Pings and messages: what a real sidecar tells, to whom, signed, and that nothing waits for it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use wale_testkit::{ClusterOptions, shell, wait_until};

use crate::support::Stage;

const LONG: Duration = Duration::from_secs(60);

/// One request as it came.
#[derive(Clone, Debug)]
struct Told {
    line: String,
    head: String,
    body: String,
}

/// A server that takes what it is sent, or says 503.
struct Ear {
    port: u16,
    told: Arc<Mutex<Vec<Told>>>,
    is_away: Arc<Mutex<bool>>,
}

impl Ear {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, is_away) = (Arc::default(), Arc::default());
        let ear = Self {
            port,
            told: Arc::clone(&told),
            is_away: Arc::clone(&is_away),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
                let request = loop {
                    let count = stream.read(&mut piece).unwrap_or(0);
                    bytes.extend_from_slice(&piece[..count]);
                    if let Some(told) = whole(&bytes) {
                        break told;
                    }
                    assert!(count > 0, "a request that ends early");
                };
                let away = *is_away.lock().unwrap();
                let status = if away { "503 Away" } else { "200 OK" };
                if !away {
                    told.lock().unwrap().push(request);
                }
                let reply =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(reply.as_bytes());
            }
        });
        ear
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    fn wait(&self, what: &str, is_it: impl Fn(&Told) -> bool) -> Told {
        wait_until(what, LONG, || self.told().into_iter().find(&is_it))
    }
}

fn whole(bytes: &[u8]) -> Option<Told> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let line = text.lines().next()?.to_owned();
    (body.len() >= length).then(|| Told {
        line,
        head: head.clone(),
        body: body.to_owned(),
    })
}

fn header(told: &Told, name: &str) -> String {
    let prefix = format!("{name}: ");
    let mut lines = told.head.lines();
    let value = lines.find_map(|line| line.strip_prefix(&prefix));
    value
        .unwrap_or_else(|| panic!("{name} in {}", told.head))
        .to_owned()
}

#[test]
fn a_backup_pings_and_what_is_wrong_is_told_once_signed_and_again_when_it_is_over() {
    let ear = Ear::new();
    let base = format!("http://127.0.0.1:{}", ear.port);
    let stage = Stage::with("notices", &ClusterOptions::default(), |options| {
        options
            .set("WALE_PING_URL", &format!("{base}/ping-canary"))
            .set("WALE_WEBHOOK_URL", &format!("{base}/hook-canary?x=1"))
            .set("WALE_WEBHOOK_KEY", "the key canary")
    });
    let is = |line: &'static str| move |told: &Told| told.line.starts_with(line);
    let backup = || {
        let reply = stage.sidecar.get("/backup-push");
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    backup();
    ear.wait("a ping", is("GET /ping-canary HTTP"));
    // All that is wrong after the start, once: here nothing.
    let started = ear.wait("the start", |told| told.body.contains("\"started\""));
    let value: Value = serde_json::from_str(&started.body).unwrap();
    assert_eq!(value["event"], "started", "{value}");
    assert_eq!(value["problems"], serde_json::json!([]), "{value}");

    // Away for a while: it is told when somebody listens again, and nothing has waited for it.
    *ear.is_away.lock().unwrap() = true;
    let unreadable = stage.cluster.data.join("unreadable");
    std::fs::write(&unreadable, "x").unwrap();
    shell(&format!("chmod 0 {}", unreadable.display()));
    let failed = stage.sidecar.get("/backup-push");
    assert_ne!(failed.status, 200, "{}", failed.text());
    *ear.is_away.lock().unwrap() = false;
    ear.wait("the failure's ping", is("GET /ping-canary/fail HTTP"));
    let of = |event: &'static str| {
        move |told: &Told| {
            let value: Value = serde_json::from_str(&told.body).unwrap_or_default();
            value["event"] == event && value["problem"] == "backup"
        }
    };
    let told = ear.wait("the failure", of("problem"));
    assert!(
        told.line.starts_with("POST /hook-canary?x=1 HTTP"),
        "{told:?}"
    );
    let value: Value = serde_json::from_str(&told.body).unwrap();
    for field in ["message", "at", "host", "archive", "version"] {
        assert!(value[field].is_string(), "{field}: {value}");
    }
    let at = header(&told, "wale-timestamp");
    let body = stage.sandbox.path().join("signed");
    std::fs::write(&body, format!("{at}.{}", told.body)).unwrap();
    let digest = shell(&format!(
        "openssl dgst -sha256 -hmac 'the key canary' {} | sed 's/.*= //'",
        body.display()
    ));
    assert_eq!(
        header(&told, "wale-signature"),
        format!("sha256={}", digest.trim())
    );

    std::fs::remove_file(&unreadable).unwrap();
    backup();
    let is_its_end = |one: &Told| {
        let end: Value = serde_json::from_str(&one.body).unwrap_or_default();
        of("recovered")(one) && end["message"] == value["message"]
    };
    ear.wait("its end", is_its_end);
    let problems = ear.told().into_iter().filter(|one| of("problem")(one));
    assert_eq!(problems.count(), 1);
    let shown = stage.sidecar.log_text() + &stage.sidecar.get("/status").text();
    assert!(!shown.contains("canary"), "{shown}");
}
