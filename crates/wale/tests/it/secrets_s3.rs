//! Secrets of S3 are in no output: keys, tokens, the customer's key, a proxy's password. They are used, on both real
//! servers, and everything that wale says, writes or shows is searched for them, the list of processes too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wale_testkit::s3::{Action, Answer, Fault, FaultProxy, Kind, S3Server, SECRET_KEY};
use wale_testkit::{Sandbox, Sidecar, shell, wait_until};

use crate::s3_stage::S3Stage;
use crate::support::{Stage, WALE, fingerprint};

/// Watches what every user of the host can see of every process, until it is dropped.
struct ProcessWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeSet<String>>>,
}

impl ProcessWatch {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !told.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                    // A process may be gone by now.
                    let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    seen.insert(String::from_utf8_lossy(&line).replace('\0', " "));
                }
                std::thread::yield_now();
            }
            seen
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Every command line that was seen.
    fn end(mut self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for ProcessWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Canaries of this run alone: other tests' processes are watched too. Secrets that S3 itself must take have its form.
struct S3Canaries {
    own: String,
    customer_key: &'static str,
}

impl S3Canaries {
    fn new() -> Self {
        Self {
            own: format!("c4nary{}x", std::process::id()),
            // "c4nary-customer-key-of-32-bytes!"
            customer_key: "YzRuYXJ5LWN1c3RvbWVyLWtleS1vZi0zMi1ieXRlcyE=",
        }
    }

    fn assert_absent(&self, what: &str, text: &str) {
        let plain = "c4nary-customer-key-of-32-bytes!";
        let secret = SECRET_KEY;
        for canary in [self.own.as_str(), self.customer_key, plain, secret] {
            let found = text.lines().find(|line| line.contains(canary));
            assert_eq!(found, None, "{what}");
        }
    }
}

/// What the store refuses is reported with the store's words, and no more.
fn refusals(s3: &S3Stage, canaries: &S3Canaries, segment: &str, destination: &str) {
    let denied = Answer::error(403, "AccessDenied", "Access Denied");
    s3.proxy
        .fault(Fault::on(&[Kind::Get, Kind::Head]), Action::Answer(denied));
    for (program, arguments) in [
        ("wale", &["wal-fetch", segment, destination][..]),
        ("wal-e", &["wal-fetch", "-p", "0", segment, destination]),
    ] {
        let exit = s3.stage.sidecar.verb(WALE, program, arguments);
        assert_ne!(exit.code(), 0, "{}", exit.stderr);
        canaries.assert_absent("a refusal", &exit.stderr);
    }
    s3.proxy.clear();
}

/// Nothing is in the list of processes, in which each of ours was seen.
fn check_processes(seen: &BTreeSet<String>, stage: &Stage, canaries: &S3Canaries) {
    for word in ["wal-prefetch --placed", "backup-fetch", " serve"] {
        let here = stage.sandbox.path().to_string_lossy();
        let is_ours =
            |line: &&String| line.contains(word) && (word == " serve" || line.contains(&*here));
        assert!(
            seen.iter().any(|line| is_ours(&line)),
            "{word} was not seen"
        );
    }
    // The servers of this test and of those beside it get their own key in the open.
    let servers = ["s3s-fs ", "ceph-rgw.sh ", "radosgw-admin "];
    let is_server = |line: &String| servers.iter().any(|server| line.contains(server));
    for line in seen.iter().filter(|line| !is_server(line)) {
        canaries.assert_absent("the list of processes", line);
    }
}

/// The sidecar's and the verbs' whole life on S3, at the most talkative level, and what others see of the processes.
fn nothing_of_s3_is_shown(s3: &S3Stage, canaries: &S3Canaries) {
    let stage = &s3.stage;
    let segments = [s3.segment(), s3.segment(), s3.segment()];
    stage.cluster.wait_archived();
    stage.backup();
    s3.segment();
    stage.cluster.wait_archived();
    let noted = fingerprint(&stage.cluster, "t");

    let watch = ProcessWatch::start();
    let wal = stage.sandbox.folder("walk");
    let destination = wal.join("RECOVERYXLOG").to_string_lossy().into_owned();
    let (restored, options) = stage.restore_options("restored", "");
    let data = restored.data.to_string_lossy().into_owned();
    let absent = "0000000100000000000000F0";
    let verbs: [(&str, &[&str], i32); 9] = [
        (
            "wal-e",
            &["wal-fetch", "-p", "4", &segments[0], &destination],
            0,
        ),
        ("wal-e", &["wal-fetch", "-p", "4", absent, &destination], 1),
        ("wale", &["wal-fetch", absent, &destination], 1),
        ("wal-e", &["backup-list", "--detail"], 0),
        ("wale", &["backup-mark", "LATEST"], 0),
        ("wal-e", &["delete", "--confirm", "retain", "1"], 0),
        ("wale", &["config", "show", "--json"], 0),
        ("wale", &["config", "show"], 0),
        ("wal-e", &["backup-fetch", &data, "LATEST"], 0),
    ];
    for (n, (program, arguments, status)) in verbs.into_iter().enumerate() {
        let exit = stage.sidecar.verb(WALE, program, arguments);
        assert_eq!(exit.code(), status, "{arguments:?}: {}", exit.stderr);
        canaries.assert_absent(&format!("{program} {arguments:?}"), &exit.stdout);
        canaries.assert_absent(&format!("{program} {arguments:?}"), &exit.stderr);
        if n == 0 {
            let next = wal.join(".wal-e/prefetch").join(&segments[1]);
            wait_until("the next segment", Duration::from_secs(30), || {
                next.exists().then_some(())
            });
        }
    }
    refusals(s3, canaries, &segments[0], &destination);

    // RESTORE by a sidecar, and the server that then recovers by the command that it wrote.
    shell(&format!("rm -rf {data}/*"));
    let restoring = Sidecar::start(&stage.sandbox, WALE, &options);
    restoring.wait_ready(Duration::from_secs(60));
    restored.configure(&["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(fingerprint(&restored, "t"), noted);
    for sidecar in [&stage.sidecar, &restoring] {
        for path in ["/status", "/metrics", "/backups", "/wal/x", "/nothing"] {
            let reply = sidecar.get(path);
            canaries.assert_absent(path, &reply.text());
        }
        let log = sidecar.log_text();
        assert!(
            log.contains(" TRACE ") || log.contains(" DEBUG "),
            "talkative"
        );
        canaries.assert_absent("the log", &log);
    }
    canaries.assert_absent("the server's log", &restored.log_text());
    check_processes(&watch.end(), stage, canaries);
}

/// On moto: keys from a container's service that wants a token, a proxy that wants a password, a key of the customer's.
#[test]
fn nothing_of_s3_is_shown_of_a_token_a_proxy_and_a_customer_s_key() {
    let canaries = S3Canaries::new();
    let own = canaries.own.clone();
    let (token, keys) = (format!("{own}-token"), own.clone());
    let wanted = token.clone();
    let container = FaultProxy::endpoint(move |seen| {
        if seen.header("authorization") != Some(wanted.as_str()) {
            return Answer::new(403, "no");
        }
        let body = format!(
            r#"{{"AccessKeyId": "AKIACONTAINER", "SecretAccessKey": "{keys}-secret", "Token": "{keys}-session",
                "Expiration": "2099-01-01T00:00:00Z"}}"#
        );
        Answer::new(200, &body).header("Content-Type", "application/json")
    });
    let s3 = S3Stage::with("secrets-moto", S3Server::moto, |options| {
        let endpoint = options.environment["WALE_S3_ENDPOINT"].clone();
        let proxy = endpoint.replace("http+path://", &format!("http://user:{own}-proxy@"));
        options
            .unset("AWS_ACCESS_KEY_ID")
            .unset("AWS_SECRET_ACCESS_KEY")
            .set("HTTP_PROXY", &proxy)
            .set("NO_PROXY", "localhost")
            .set(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                &format!("http://localhost:{}/credentials", container.port()),
            )
            .set("AWS_CONTAINER_AUTHORIZATION_TOKEN", &token)
            .set("WALE_S3_SSE_C_KEY", canaries.customer_key)
            .set("WALE_LOG", "trace")
    });
    nothing_of_s3_is_shown(&s3, &canaries);
    // All of them were used.
    assert!(!container.requests().is_empty());
    let requests = s3.proxy.requests();
    let put = requests.iter().find(|seen| seen.kind == Kind::Put).unwrap();
    assert!(put.header("proxy-authorization").is_some());
    assert_eq!(
        put.header("x-amz-security-token"),
        Some(&*format!("{}-session", canaries.own))
    );
    assert_eq!(
        put.header("x-amz-server-side-encryption-customer-key"),
        Some(canaries.customer_key)
    );
}

/// On s3s-fs, which checks the signature that the key makes.
#[test]
fn nothing_of_s3_is_shown_of_keys_that_sign() {
    let server = |sandbox: &Sandbox| S3Server::s3s(sandbox, None);
    let s3 = S3Stage::with("secrets-s3s", server, |options| {
        options.set("WALE_LOG", "trace")
    });
    nothing_of_s3_is_shown(&s3, &S3Canaries::new());
}
