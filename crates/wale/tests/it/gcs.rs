//! Google Cloud Storage: the suite of every store, the whole run, and the rows of the fault battery, on fake-gcs-server
//! behind the fault proxy. Rows that need what it does not do (interrupted resumable uploads, sums that the store compares,
//! conditions at their end) are in wale-storage's own tests.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wale_storage::{
    GcsCredentials, GcsEncryption, GcsEndpoint, GcsOptions, GcsStore, HttpTimeouts, Proxies,
    RetryPolicy, Store, conformance,
};
use wale_testkit::gcs::{GcsServer, service_account};
use wale_testkit::s3::{Action, Answer, BUCKET, Fault, FaultProxy, Kind, Seen};
use wale_testkit::{Sandbox, SidecarOptions, StoreServer, wait_until, wale_command};

use crate::s3::{wale, whole_run_on};
use crate::s3_stage::{PATH, StoreStage};
use crate::store_faults::refuse_deletion;
use crate::store_trust::{Certificates, assert_certificates_are_proved, listing};
use crate::support::WALE;

const LONG: Duration = Duration::from_secs(60);

type GcsStage = StoreStage<GcsServer>;

fn stage(name: &str) -> GcsStage {
    stage_with(name, |options| options)
}

fn stage_with(name: &str, settings: impl FnOnce(SidecarOptions) -> SidecarOptions) -> GcsStage {
    GcsStage::with(name, GcsServer::start, settings)
}

/// A backup has a partition that is larger than a part of an upload.
fn large_backups(options: SidecarOptions) -> SidecarOptions {
    options
        .set("WALE_COMPRESSION", "none")
        .set("WALE_MEMORY", "64MiB")
}

fn fill(stage: &GcsStage) {
    let cluster = &stage.stage.cluster;
    cluster.sql("create table filler as select repeat('x', 1000) v from generate_series(1, 30000)");
}

/// A store in the bucket of the server behind this proxy.
pub(crate) fn store(proxy: &FaultProxy, prefix: &str) -> GcsStore {
    let options = GcsOptions {
        bucket: BUCKET.into(),
        prefix: prefix.into(),
        spelling_is_certain: true,
        endpoint: Some(GcsEndpoint {
            secure: false,
            authority: format!("127.0.0.1:{}", proxy.port()),
            path: String::new(),
        }),
        credentials: GcsCredentials::Anonymous,
        storage_class: None,
        encryption: GcsEncryption::BucketDefault,
        ca_file: None,
        proxies: Proxies::default(),
        timeouts: HttpTimeouts::default(),
        retry: RetryPolicy::default(),
        upload_memory_bytes: 32 << 20,
    };
    GcsStore::open(&options).expect("the options are good")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_passes_the_suite_of_every_store() {
    let sandbox = Sandbox::new("gcs-conformance");
    let server = GcsServer::start(&sandbox);
    let proxy = FaultProxy::start(server.port());
    for prefix in ["/some/path/", "some/path/", ""] {
        let store = Arc::new(store(&proxy, prefix));
        store.check().await.expect("the bucket is there");
        conformance(store).await;
        let mut left = server.objects();
        left.retain(|name| !name.contains("wale_probe_"));
        assert_eq!(left, [""; 0]);
    }
}

#[test]
fn archive_back_up_lose_everything_restore_to_a_point_in_time_on_gcs() {
    let mut gcs = stage_with("gcs-run", large_backups);
    fill(&gcs);
    whole_run_on(&mut gcs, |server| {
        let objects = server.objects();
        let ours = format!("/{PATH}/");
        assert!(
            objects.iter().all(|name| name.starts_with(&ours)),
            "{objects:?}"
        );
        assert!(
            objects
                .iter()
                .any(|name| name.starts_with(&format!("{ours}wal_005/")))
        );
    });
}

#[test]
fn fault_22_and_25_failures_and_lost_answers_of_gcs_end_in_one_object() {
    let gcs = stage("gcs-22");
    gcs.hold_archiver();
    let backend =
        r#"{"error":{"code":503,"message":"Backend Error","errors":[{"reason":"backendError"}]}}"#;
    let busy =
        r#"{"error":{"code":429,"message":"slowly","errors":[{"reason":"rateLimitExceeded"}]}}"#;
    let answers = [(503, backend), (429, busy), (502, "<html>Bad Gateway")];
    gcs.assert_failures_pass(answers.map(|(status, body)| Answer::new(status, body)));
    gcs.assert_lost_replies_are_made_good();
}

#[test]
fn fault_23_gcs_asks_to_slow_down_is_not_stormed_and_archiving_resumes() {
    let busy =
        r#"{"error":{"code":429,"message":"slowly","errors":[{"reason":"rateLimitExceeded"}]}}"#;
    stage("gcs-23").assert_slow_down_is_not_stormed(Answer::new(429, busy));
}

#[test]
fn fault_24_and_66_a_success_that_is_not_the_stores_acknowledges_nothing() {
    let gcs = stage_with("gcs-66", |options| options.set("WALE_FETCH_DEADLINE", "1s"));
    gcs.hold_archiver();
    let error = r#"{"error":{"code":500,"message":"no","errors":[{"reason":"backendError"}]}}"#;
    for body in ["<html>Welcome to our network</html>", error] {
        let segment = gcs.segment();
        let fault = Fault::on(&[Kind::Put]).key(&segment);
        gcs.proxy
            .fault(fault, Action::Answer(Answer::new(200, body)));
        assert_eq!(gcs.push(&segment), 503, "{body}");
        assert!(gcs.server.objects_with(&segment).is_empty());
        gcs.proxy.clear();
        assert_eq!(gcs.push(&segment), 200);
        gcs.assert_stored(&segment);
    }
}

#[test]
fn fault_26_gcs_goes_silent_and_is_asked_again() {
    stage("gcs-26").assert_silence_is_cut_short();
}

#[test]
fn fault_27_and_28_garbled_bytes_of_gcs_are_never_acknowledged_nor_delivered() {
    let gcs = stage_with("gcs-27", |options| {
        options
            .set("WALE_FETCH_PREFETCH", "0")
            .set("WALE_FETCH_DEADLINE", "2s")
    });
    gcs.hold_archiver();
    for action in [Action::garble_upload(), Action::shorten_upload()] {
        let segment = gcs.segment();
        let fault = Fault::on(&[Kind::Put]).key(&segment).times(2);
        gcs.proxy.fault(fault, action);
        assert_eq!(gcs.push(&segment), 200);
        assert_eq!(gcs.proxy.count(Kind::Put, &segment), 3);
        gcs.assert_stored(&segment);
    }
    let segment = gcs.segment();
    assert_eq!(gcs.push(&segment), 200);
    gcs.assert_garbled_replies_are_not_delivered(&segment);
    gcs.assert_damage_is_not_delivered(&segment);
}

#[test]
fn fault_29_and_30_a_stale_list_or_a_gcs_without_conditions_overwrites_nothing() {
    let mut gcs = stage("gcs-29");
    gcs.hold_archiver();
    let segment = gcs.segment();
    assert_eq!(gcs.push(&segment), 200);
    gcs.restart();
    let hidden = Action::hide_from_json_list(&segment);
    gcs.proxy.fault(Fault::on(&[Kind::List]), hidden);
    gcs.assert_stored(&segment);
    let absent = gcs.stage.sidecar.get(&format!("/wal-absent/{segment}"));
    assert_ne!(absent.status, 200, "{}", absent.text());
    gcs.assert_conflict_is_refused(&segment);
    gcs.proxy.clear();

    // A store that ignores the condition is found out before anything is written.
    let stripped = Action::StripQuery("ifGenerationMatch");
    gcs.proxy.fault(Fault::any(), stripped);
    gcs.restart();
    let next = gcs.segment();
    assert_eq!(gcs.push(&next), 200);
    gcs.assert_stored(&next);
    gcs.assert_conflict_is_refused(&next);
    let log = gcs.stage.sidecar.log_text();
    let is_told = |line: &str| line.contains("WARN") && line.contains("ifGenerationMatch");
    assert!(log.lines().any(is_told), "the operator is told: {log}");
}

#[test]
fn fault_31_a_token_of_gcs_ends_in_mid_upload_and_403_is_not_absence() {
    let granted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&granted);
    let tokens = FaultProxy::endpoint(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let token = format!(r#"{{"access_token":"token-{number}","expires_in":3600}}"#);
        Answer::new(200, &token)
    });
    let sandbox = Sandbox::new("gcs-31-file");
    let file = sandbox.path().join("account.json");
    let account = service_account(&format!("http://127.0.0.1:{}/token", tokens.port()));
    std::fs::write(&file, account).unwrap();
    wale_testkit::shell(&format!("chmod 644 {}", file.display()));
    let gcs = stage_with("gcs-31", |options| {
        let server = options.environment["STORAGE_EMULATOR_HOST"].clone();
        large_backups(options)
            .unset("STORAGE_EMULATOR_HOST")
            .set("WALE_GS_ENDPOINT", &format!("http://{server}"))
            .set("GOOGLE_APPLICATION_CREDENTIALS", &file.to_string_lossy())
            .set("WALE_FETCH_DEADLINE", "2s")
    });
    fill(&gcs);
    let refused = |status, reason: &str| {
        let body = format!(
            r#"{{"error":{{"code":{status},"message":"no","errors":[{{"reason":"{reason}"}}]}}}}"#
        );
        Action::Answer(Answer::new(status, &body))
    };
    let is_first = |seen: &Seen| seen.header("authorization") == Some("Bearer token-1");
    let ends = Fault::on(&[Kind::PutPart]).after(1).when(is_first);
    gcs.proxy.fault(ends, refused(401, "authError"));
    let reply = gcs.stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let used = |token: &str| {
        let requests = gcs.proxy.requests();
        let of = |seen: &&Seen| seen.header("authorization") == Some(token);
        requests.iter().filter(of).count()
    };
    assert!(used("Bearer token-1") > 0 && used("Bearer token-2") > 0);
    assert_eq!(used(""), 0);
    gcs.proxy.clear();

    // No renewal helps: it is a failure of the configuration, and says nothing about objects.
    gcs.hold_archiver();
    let segment = gcs.segment();
    assert_eq!(gcs.push(&segment), 200);
    for (status, reason) in [(401, "authError"), (403, "forbidden")] {
        gcs.proxy.fault(Fault::any(), refused(status, reason));
        let reply = gcs.stage.sidecar.get(&format!("/wal/{segment}"));
        assert!([500, 503].contains(&reply.status), "{}", reply.text());
        let absent = gcs
            .stage
            .sidecar
            .get("/wal-absent/0000000100000000000000FF");
        assert!([500, 503].contains(&absent.status), "{}", absent.text());
        let next = gcs.segment();
        assert_ne!(gcs.push(&next), 200);
        gcs.proxy.clear();
        assert_eq!(gcs.push(&next), 200, "by itself, once it is allowed again");
    }
    let log = gcs.stage.sidecar.log_text();
    assert!(
        !log.contains("token-1") && !log.contains("PRIVATE KEY"),
        "{log}"
    );
}

#[test]
fn fault_32_what_is_wrong_with_gcs_has_hints_of_its_own() {
    let sandbox = Sandbox::new("gcs-32");
    let server = GcsServer::start(&sandbox);
    let proxy = FaultProxy::start(server.port());
    let archive = GcsServer::settings(proxy.port(), "x");
    let changed = |changes: &[(&str, &str)]| {
        let mut settings = archive.clone();
        for (name, value) in changes {
            settings.retain(|(found, _)| found != name);
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        settings
    };
    let told = |settings: &[(String, String)]| {
        let output = wale(settings, &["backup-list"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), stderr)
    };
    assert_eq!(told(&archive).0, 0, "an empty archive is listed");
    let (code, text) = told(&changed(&[("WALE_GS_PREFIX", "gs://gone/x")]));
    assert!(
        code == 78 && text.contains("does not exist") && text.contains("HINT"),
        "{code} {text}"
    );
    for (status, reason, word, expected) in [
        (401, "authError", "not accepted", 78),
        (403, "forbidden", "permission denied", 77),
        (404, "notFound", "does not exist", 78),
    ] {
        let message = "The specified bucket does not exist.";
        let body = format!(
            r#"{{"error":{{"code":{status},"message":"{message}","errors":[{{"reason":"{reason}"}}]}}}}"#
        );
        proxy.fault(Fault::any(), Action::Answer(Answer::new(status, &body)));
        proxy.forget();
        let (code, text) = told(&archive);
        assert_eq!(code, expected, "{text}");
        assert!(text.contains(word) && text.contains("HINT"), "{text}");
        let asked = proxy.requests().len();
        assert!(asked <= 4, "asking again does not help: {asked} requests");
        proxy.clear();
    }
    let missing = [
        ("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json"),
        ("WALE_GS_ENDPOINT", "https://127.0.0.1:1"),
        ("STORAGE_EMULATOR_HOST", ""),
    ];
    let (code, text) = told(&changed(&missing));
    assert!(
        code == 78 && text.contains("/nonexistent/key.json"),
        "{code} {text}"
    );
    // WAL-G's names of the same path.
    server.tamper("x/basebackups_005/base_1_backup_stop_sentinel.json", b"{}");
    let (code, text) = told(&archive);
    assert!(
        code == 78 && text.contains("WALE_GS_NAMES"),
        "{code} {text}"
    );
}

#[test]
fn fault_33_of_gcs_a_certificate_that_proves_nothing_is_refused_and_tls_is_never_given_up() {
    let sandbox = Sandbox::new("gcs-33");
    let server = GcsServer::start(&sandbox);
    let settings = |authority: &str, ca: &str| {
        [
            ("WALE_GS_PREFIX", format!("gs://{BUCKET}/x")),
            ("WALE_GS_ENDPOINT", format!("https://{authority}")),
            ("WALE_GS_ANONYMOUS", "on".to_owned()),
            ("WALE_GS_CA_FILE", ca.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    };
    assert_certificates_are_proved(&sandbox, &server, "no secret", settings);

    // The service that gives tokens must prove who it is, too, before it is shown what the key has signed.
    let certificates = Certificates::new(&sandbox);
    let trusted = [("trusted", certificates.good, certificates.ca)];
    let store = FaultProxy::start(server.port());
    for (what, identity, ca) in trusted.iter().chain(&certificates.untrusted) {
        let tokens = FaultProxy::start_tls(0, identity);
        let token = Answer::new(200, r#"{"access_token":"token-1","expires_in":3600}"#);
        tokens.fault(Fault::any(), Action::Answer(token));
        let file = sandbox.path().join("account.json");
        let account = service_account(&format!("https://127.0.0.1:{}/token", tokens.port()));
        std::fs::write(&file, account).unwrap();
        let mut settings = settings("", ca);
        settings.retain(|(name, value)| name != "WALE_GS_ANONYMOUS" && !value.is_empty());
        let endpoint = format!("http://127.0.0.1:{}", store.port());
        for (name, value) in [
            ("WALE_GS_ENDPOINT", &*endpoint),
            ("GOOGLE_APPLICATION_CREDENTIALS", &*file.to_string_lossy()),
        ] {
            settings.retain(|(known, _)| known != name);
            settings.push((name.to_owned(), value.to_owned()));
        }
        store.forget();
        let (code, text) = listing(&settings, "PRIVATE KEY");
        if *what == "trusted" {
            assert_eq!(code, 0, "{text}");
            assert!(!tokens.requests().is_empty());
            continue;
        }
        assert_eq!(code, 78, "{what}: {text}");
        assert!(text.contains("certificate"), "{what}: {text}");
        assert_eq!(tokens.requests().len(), 0, "{what}: nothing was sent");
        assert_eq!(store.requests().len(), 0, "{what}: nothing was asked");
    }
}

#[test]
fn fault_34_what_gcs_retains_is_told_with_its_end_and_the_rest_goes() {
    let gcs = stage("gcs-34");
    // The record says until when; the emulator retains nothing.
    let until = Action::EditReply(Arc::new(|body| {
        let mut record: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        if record["name"].is_string() {
            record["retentionExpirationTime"] = "2027-01-01T00:00:00Z".into();
            *body = record.to_string().into_bytes();
        }
    }));
    gcs.proxy.fault(Fault::on(&[Kind::Head]), until);
    let refusal = r#"{"error":{"code":403,"message":"Object is subject to bucket's retention policy",
        "errors":[{"reason":"retentionPolicyNotMet"}]}}"#;
    let refusal = Answer::new(403, refusal);
    gcs.assert_what_is_retained_is_told(
        |proxy, name| refuse_deletion(proxy, name, &refusal),
        &[
            "retentionPolicyNotMet",
            "subject to bucket's retention policy",
            "retained until 2027-01-01T00:00:00Z",
        ],
    );
}

#[test]
fn fault_35_what_queued_up_behind_a_partition_is_stored_in_gcs_in_order_once_it_heals() {
    let gcs = stage_with("gcs-35", |options| options.set("WALE_FETCH_DEADLINE", "1s"));
    gcs.assert_a_queue_is_stored_in_order(40);
}

#[test]
fn fault_36_beside_gcs_a_database_that_is_out_of_reach_is_told_and_wal_is_kept() {
    stage("gcs-36").assert_a_database_out_of_reach_is_told();
}

#[test]
fn fault_03_killed_between_chunks_nothing_of_gcs_is_visible() {
    let gcs = stage_with("gcs-03", large_backups);
    fill(&gcs);
    gcs.proxy
        .fault(Fault::on(&[Kind::PutPart]).after(1), Action::Stall);
    let mut backup = wale_command(WALE, "wale", &gcs.stage.options)
        .args(["backup-push", &gcs.stage.cluster.data.to_string_lossy()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("two chunks", LONG, || {
        (gcs.proxy.count(Kind::PutPart, "part_") >= 2).then_some(())
    });
    backup.kill().unwrap();
    backup.wait().unwrap();
    gcs.proxy.clear();
    let requests = gcs.proxy.requests();
    let chunk = requests.iter().find(|seen| seen.kind == Kind::PutPart);
    let key = &chunk.expect("a chunk").key;
    assert_eq!(gcs.server.objects_with(key), [""; 0]);
    assert_eq!(gcs.stage.sidecar.get("/backups").text().trim(), "[]");
    gcs.stage.backup();
    let backups = gcs.stage.sidecar.get("/backups").json();
    assert_eq!(backups.as_array().unwrap().len(), 1);
}
