//! S3 as an operator meets it: the main job on two real servers, the ways to name a server, the headers that
//! settings ask for, and where credentials come from.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wale_testkit::s3::{Answer, FaultProxy, Kind, S3Server, Seen};
use wale_testkit::{
    Cluster, ClusterOptions, Sandbox, Sidecar, SidecarOptions, StoreServer, wait_until,
    wale_command,
};

use crate::s3_stage::{PATH, S3Stage, StoreStage};
use crate::support::{WALE, fingerprint};

#[test]
fn archive_back_up_lose_everything_restore_to_a_point_in_time_on_moto() {
    whole_run(S3Stage::moto("s3-run-moto"));
}

#[test]
fn archive_back_up_lose_everything_restore_to_a_point_in_time_on_s3s() {
    whole_run(S3Stage::s3s("s3-run-s3s"));
}

#[test]
fn archive_back_up_lose_everything_restore_to_a_point_in_time_on_ceph() {
    let unkept = "conditions at the end of a multipart upload";
    run_on_another("s3-run-ceph", S3Server::ceph, unkept);
}

/// `make test-matrix` runs it, and `make test` does not: `scripts/test.sh` knows it by how its name begins.
#[test]
fn matrix_archive_back_up_lose_everything_restore_on_rclone_and_s3rver() {
    let unkept = "ignores conditions of a write";
    run_on_another("s3-run-rclone", S3Server::rclone, unkept);
    run_on_another("s3-run-s3rver", S3Server::s3rver, unkept);
}

/// The whole run, with objects of several parts, on a server that need not be there. What it does not keep is reported
/// when the sidecar starts.
fn run_on_another(name: &str, server: fn(&Sandbox) -> Option<S3Server>, unkept: &str) {
    let sandbox = Sandbox::new(&format!("{name}-server"));
    let Some(server) = server(&sandbox) else {
        wale_testkit::skip(name, "the server is not installed: run scripts/setup.sh");
        return;
    };
    // Parts of 5 MiB. s3rver lists names that are another's beginning in an order of its own, so they are compressed.
    let s3 = S3Stage::with(
        name,
        |_| server,
        |options| options.set("WALE_MEMORY", "64MiB"),
    );
    wait_until("a warning at the start", Duration::from_secs(60), || {
        let log = s3.stage.sidecar.log_text();
        let is_told = |line: &str| line.contains("WARN") && line.contains(unkept);
        log.lines().any(is_told).then_some(())
    });
    s3.make_noise();
    whole_run(s3);
}

fn whole_run(mut s3: S3Stage) {
    whole_run_on(&mut s3, |server| {
        let objects = server.objects();
        assert!(
            objects
                .iter()
                .all(|name| name.starts_with(&format!("{PATH}/")))
        );
        assert_eq!(server.unfinished(), 0);
    });
}

/// Archives, backs up, loses everything, restores and compares. `check` sees what the server has before the loss. Gives the
/// restored cluster and its sidecar.
pub(crate) fn whole_run_on<S: StoreServer>(
    s3: &mut StoreStage<S>,
    check: impl FnOnce(&S),
) -> (Cluster, Sidecar) {
    let pg = &s3.stage.cluster;
    pg.sql("insert into t select generate_series(1, 20000)");
    // The backup is taken while rows come in.
    let stop = AtomicBool::new(false);
    let reply = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                pg.sql("insert into t select random() * 1e9 from generate_series(1, 3000)");
            }
        });
        let reply = s3.stage.sidecar.get("/backup-push");
        stop.store(true, Ordering::Relaxed);
        reply
    });
    assert_eq!(reply.status, 200, "{}", reply.text());
    pg.sql("insert into t select generate_series(1, 5000)");
    let noted = fingerprint(pg, "t");
    let time = pg.sql("select clock_timestamp()");
    pg.sql("select pg_sleep(0.2)");
    pg.sql("drop table t");
    pg.switch_wal();
    pg.wait_archived();

    let list = s3.stage.sidecar.verb(WALE, "wal-e", &["backup-list"]);
    assert_eq!(list.code(), 0, "{}", list.stderr);
    assert_eq!(list.stdout.lines().count(), 2, "{}", list.stdout);
    assert!(list.stdout.contains("base_00000001"), "{}", list.stdout);
    check(&s3.server);

    s3.stage.cluster.kill();
    s3.stage.sidecar.kill();
    std::fs::remove_dir_all(&s3.stage.cluster.data).unwrap();
    let addition = format!("recovery_target_time = '{time}'\nrecovery_target_action = 'promote'");
    let (restored, sidecar) = s3.stage.restore("restored", &addition, &[]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(fingerprint(&restored, "t"), noted);
    let segment = restored.switch_wal();
    assert!(segment.starts_with("00000002"), "{segment}");
    restored.wait_archived();
    assert_eq!(sidecar.get(&format!("/wal/{segment}")).status, 200);
    (restored, sidecar)
}

#[test]
fn defect_21_a_backup_of_several_parts_stays_within_its_memory() {
    let cluster = ClusterOptions::default();
    let s3 = S3Stage::of(
        "s3-memory",
        |sandbox| S3Server::s3s(sandbox, None),
        &cluster,
        |options| {
            options
                .set("WALE_MEMORY", "64MiB")
                .set("WALE_COMPRESSION", "none")
        },
    );
    let pg = &s3.stage.cluster;
    pg.sql("create table filler as select repeat('x', 1000) v from generate_series(1, 120000)");
    pg.wait_archived();
    s3.proxy.forget();
    let reply = s3.stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let parts = s3.proxy.count(Kind::PutPart, "part_");
    assert!(parts >= 10, "130 MB went in {parts} parts");
    assert_eq!(s3.server.unfinished(), 0);
    let peak = s3.stage.sidecar.peak_kib();
    assert!(peak < 96 * 1024, "{peak} KiB, with 32 MiB for data");
}

#[test]
fn a_push_of_several_segments_never_waits_for_its_own_memory() {
    let cluster = ClusterOptions::default();
    // Each segment has four parts of 5 MiB, and there is memory for three of them.
    let s3 = S3Stage::of(
        "s3-push-many",
        |sandbox| S3Server::s3s(sandbox, None),
        &cluster,
        |options| {
            options
                .set("WALE_MEMORY", "96MiB")
                .set("WALE_COMPRESSION", "none")
        },
    );
    s3.hold_archiver();
    let segments: Vec<String> = (0..6).map(|_| s3.segment()).collect();
    let file = s3.stage.cluster.wal.join(&segments[0]);
    let mut command = wale_command(WALE, "wale", &s3.stage.options);
    command.args(["wal-push", "-p", "16", &file.to_string_lossy()]);
    let mut push = command.stderr(Stdio::null()).spawn().unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = push.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > limit {
            push.kill().unwrap();
            push.wait().unwrap();
            panic!("the push waits for ever");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
    s3.assert_stored(&segments[0]);
}

/// A cluster that never starts: its first segment is all that is needed to push and to fetch.
struct Shelf {
    sandbox: Sandbox,
    segment: PathBuf,
    name: &'static str,
    fetched: u32,
}

impl Shelf {
    fn new(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        let options = ClusterOptions {
            segment_mib: 1,
            ..ClusterOptions::default()
        };
        let cluster = Cluster::init(&sandbox, &options);
        // The first is the one that initdb wrote; what follows are files for later segments.
        let name = "000000010000000000000008";
        let segment = cluster.wal.join(name);
        assert!(segment.exists());
        // PostgreSQL's mark that it is finished.
        let status = cluster.wal.join("archive_status");
        std::fs::write(status.join(format!("{name}.ready")), "").unwrap();
        Self {
            sandbox,
            segment,
            name,
            fetched: 0,
        }
    }

    /// Pushes the segment and fetches it again.
    fn round_trip(&mut self, settings: &[(String, String)]) {
        let file = self.segment.to_string_lossy().into_owned();
        assert_success(&wale(settings, &["wal-push", &file]));
        self.fetched += 1;
        let target = self
            .sandbox
            .path()
            .join(format!("fetched-{}", self.fetched));
        let target_text = target.to_string_lossy().into_owned();
        assert_success(&wale(settings, &["wal-fetch", self.name, &target_text]));
        let same = std::fs::read(&target).unwrap() == std::fs::read(&self.segment).unwrap();
        assert!(same, "the fetched segment differs");
    }
}

/// Runs a verb in an environment that holds these settings only.
pub(crate) fn wale(settings: &[(String, String)], arguments: &[&str]) -> Output {
    let options = SidecarOptions {
        environment: settings.iter().cloned().collect(),
        port: 0,
        as_postgres: false,
    };
    let mut command = wale_command(WALE, "wale", &options);
    command.args(arguments).output().unwrap()
}

fn assert_success(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
}

/// Settings with some of them changed; an empty value takes a setting away.
pub(crate) fn changed(port: u16, path: &str, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut settings = S3Server::settings(port, path);
    for (name, value) in changes {
        settings.retain(|(n, _)| n != name);
        if !value.is_empty() {
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    settings
}

#[test]
fn an_endpoint_is_spelled_as_wal_e_did_and_as_a_plain_address() {
    let mut shelf = Shelf::new("s3-endpoint");
    // Nothing is resolved for these hosts: requests go through the proxy, which has one destination.
    let domain = "s3.test:9000";
    let server = S3Server::s3s(&shelf.sandbox, Some(domain));
    let proxy = FaultProxy::start(server.port());
    let through = format!("http://127.0.0.1:{}", proxy.port());
    let direct = format!("127.0.0.1:{}", server.port());
    let cases: [(String, &str, &str); 4] = [
        (format!("http+path://{direct}"), "", &direct),
        (format!("http://{direct}"), "", &direct),
        (format!("http+path://{domain}"), &through, domain),
        (
            format!("http+subdomain://{domain}"),
            &through,
            "bkt.s3.test:9000",
        ),
    ];
    for (n, (endpoint, http_proxy, host)) in cases.iter().enumerate() {
        let path = format!("endpoint/{n}");
        let changes = [
            ("WALE_S3_ENDPOINT", endpoint.as_str()),
            ("HTTP_PROXY", http_proxy),
        ];
        proxy.forget();
        shelf.round_trip(&changed(server.port(), &path, &changes));
        let requests = proxy.requests();
        assert_eq!(requests.is_empty(), http_proxy.is_empty(), "{endpoint}");
        for seen in &requests {
            assert_eq!(seen.header("host"), Some(*host), "{endpoint}");
            let bucket_in_path = seen.path.starts_with("/bkt");
            assert_eq!(
                bucket_in_path,
                !endpoint.contains("subdomain"),
                "{}",
                seen.path
            );
        }
        assert!(!server.objects_with(&path).is_empty(), "{endpoint}");
    }
}

#[test]
fn a_bucket_can_be_the_host_itself() {
    let mut shelf = Shelf::new("s3-vhost");
    // moto knows a bucket by the first component of a host name, whatever the rest may be.
    let server = S3Server::moto(&shelf.sandbox);
    let proxy = FaultProxy::start(server.port());
    let bucket = "archive.example.test";
    server.send("PUT", "/archive", b"");
    let through = format!("http://127.0.0.1:{}", proxy.port());
    let changes = [
        ("WALE_S3_PREFIX", "s3://archive.example.test/path"),
        (
            "WALE_S3_ENDPOINT",
            "http+virtualhost://archive.example.test",
        ),
        ("HTTP_PROXY", through.as_str()),
    ];
    shelf.round_trip(&changed(0, "", &changes));
    for seen in proxy.requests() {
        assert_eq!(seen.header("host"), Some(bucket), "{}", seen.path);
        assert!(!seen.path.starts_with("/archive"), "{}", seen.path);
    }
}

/// Settings, and the headers that follow from them.
type HeaderCase<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, Option<&'a str>)]);

/// A name, the settings of a source, and how the access key that it gives begins.
type SourceCase<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

/// The puts of WAL that a proxy saw.
fn wal_puts(proxy: &FaultProxy) -> Vec<Seen> {
    let mut requests = proxy.requests();
    requests.retain(|seen| seen.kind == Kind::Put && seen.key.contains("wal_005"));
    assert!(!requests.is_empty(), "a segment was pushed");
    requests
}

#[test]
fn defect_22_storage_class_and_encryption_are_asked_for_on_every_request_that_needs_them() {
    let mut shelf = Shelf::new("s3-headers");
    let server = S3Server::moto(&shelf.sandbox);
    let proxy = FaultProxy::start(server.port());
    let sse = "x-amz-server-side-encryption";
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let cases: [HeaderCase<'_>; 5] = [
        (&[], &[(sse, None), ("x-amz-storage-class", None)]),
        (
            &[("WALE_S3_STORAGE_CLASS", "STANDARD_IA")],
            &[("x-amz-storage-class", Some("STANDARD_IA"))],
        ),
        (&[("WALE_S3_SSE", "AES256")], &[(sse, Some("AES256"))]),
        (
            &[
                ("WALE_S3_SSE", "aws:kms"),
                ("WALE_S3_SSE_KMS_KEY_ID", "alias/wale"),
            ],
            &[
                (sse, Some("aws:kms")),
                (
                    "x-amz-server-side-encryption-aws-kms-key-id",
                    Some("alias/wale"),
                ),
            ],
        ),
        (
            &[("AWS_SESSION_TOKEN", "a-session-token")],
            &[("x-amz-security-token", Some("a-session-token"))],
        ),
    ];
    for (n, (changes, headers)) in cases.iter().enumerate() {
        proxy.forget();
        let path = format!("headers/{n}");
        shelf.round_trip(&changed(proxy.port(), &path, changes));
        for put in wal_puts(&proxy) {
            for (name, value) in *headers {
                assert_eq!(put.header(name), *value, "{changes:?}");
            }
        }
    }
    // The customer's key goes along with everything that reads or writes content.
    proxy.forget();
    let changes = [("WALE_S3_SSE_C_KEY", key)];
    shelf.round_trip(&changed(proxy.port(), "headers/customer", &changes));
    let customer = "x-amz-server-side-encryption-customer-key";
    for seen in proxy.requests() {
        if matches!(seen.kind, Kind::Put | Kind::Get | Kind::Head) {
            assert_eq!(
                seen.header(customer),
                Some(key),
                "{:?} {}",
                seen.kind,
                seen.key
            );
        }
    }
}

/// The access key with which the last request was signed.
fn signed_by(proxy: &FaultProxy) -> String {
    let requests = proxy.requests();
    let last = requests.last().expect("a request");
    let authorization = last.header("authorization").expect("it is signed");
    let (_, credential) = authorization.split_once("Credential=").expect("by a key");
    credential.split('/').next().unwrap_or_default().to_owned()
}

/// What moto has is moto's own: instance metadata and STS. The services of containers are stood in for.
fn container_credentials() -> FaultProxy {
    FaultProxy::endpoint(|seen| {
        let authorized = seen.header("authorization") == Some("a-pod-token");
        if !seen.path.contains("/credentials") || seen.path.contains("/pod") && !authorized {
            return Answer::new(403, "no");
        }
        let body = r#"{"AccessKeyId": "AKIACONTAINER", "SecretAccessKey": "s", "Token": "t",
            "Expiration": "2099-01-01T00:00:00Z"}"#;
        Answer::new(200, body).header("Content-Type", "application/json")
    })
}

#[test]
fn credentials_come_from_every_place_that_amazon_knows() {
    let mut shelf = Shelf::new("s3-credentials");
    let server = S3Server::moto(&shelf.sandbox);
    let proxy = FaultProxy::start(server.port());
    let container = container_credentials();
    let file = |name: &str, text: &str| {
        let path = shelf.sandbox.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let shared = file(
        "credentials",
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = s\n\
         # another\n[backup]\naws_access_key_id=AKIABACKUP\naws_secret_access_key=s\naws_session_token=t\n",
    );
    let web_token = file("web-token", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ3YWxlIn0.x");
    let pod_token = file("pod-token", "a-pod-token");
    let moto = format!("http://127.0.0.1:{}", server.port());
    let pod = format!("http://127.0.0.1:{}/pod/credentials", container.port());
    let none = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    let cases: [SourceCase<'_>; 5] = [
        (
            "shared file",
            &[("AWS_SHARED_CREDENTIALS_FILE", &shared)],
            "AKIADEFAULT",
        ),
        (
            "profile",
            &[
                ("AWS_SHARED_CREDENTIALS_FILE", &shared),
                ("AWS_PROFILE", "backup"),
            ],
            "AKIABACKUP",
        ),
        (
            "instance profile",
            &[
                ("AWS_INSTANCE_PROFILE", "true"),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &moto),
            ],
            "test-key",
        ),
        (
            "web identity",
            &[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &web_token),
                ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/wale"),
                ("AWS_ENDPOINT_URL_STS", &moto),
            ],
            "ASIA",
        ),
        (
            "pod identity",
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &pod),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &pod_token),
            ],
            "AKIACONTAINER",
        ),
    ];
    for (what, changes, key) in cases {
        proxy.forget();
        let mut all = none.to_vec();
        all.extend(changes);
        shelf.round_trip(&changed(proxy.port(), &format!("from/{what}"), &all));
        let signed = signed_by(&proxy);
        assert!(signed.starts_with(key), "{what}: {signed}");
    }
}
