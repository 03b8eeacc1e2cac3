//! The fault battery on Azurite. What it does not do (tokens of Entra, sums of another kind, lists whose fate is unknown) is
//! in wale-storage's own tests.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wale_testkit::azure::{ACCOUNT, ACCOUNT_KEY, Azurite, SHARED_ACCESS};
use wale_testkit::s3::{Action, Answer, Fault, FaultProxy, Kind, Seen};
use wale_testkit::{Sandbox, SidecarOptions, StoreServer, wait_until, wale_command};

use crate::azure::AzureStage;
use crate::store_faults::refuse_deletion;
use crate::store_trust::{Certificates, assert_certificates_are_proved, listing};
use crate::support::WALE;

const LONG: Duration = Duration::from_secs(60);

fn stage(name: &str) -> AzureStage {
    AzureStage::with(name, Azurite::start, |options| options)
}

/// A stage whose base backup has a partition of several blocks.
fn with_large_backup(
    name: &str,
    settings: impl FnOnce(SidecarOptions) -> SidecarOptions,
) -> AzureStage {
    let azure = AzureStage::with(name, Azurite::start, |options| {
        settings(options.set("WALE_COMPRESSION", "none"))
    });
    azure
        .stage
        .cluster
        .sql("create table filler as select repeat('x', 1000) v from generate_series(1, 30000)");
    azure
}

/// With a shared access signature: a request that something changes on its way would not have its signature any more.
fn by_signature(options: SidecarOptions) -> SidecarOptions {
    options
        .unset("WABS_ACCESS_KEY")
        .set("WABS_SAS_TOKEN", SHARED_ACCESS)
}

#[test]
fn fault_22_24_and_25_azure_failures_and_lost_replies_end_in_one_object_and_success() {
    let azure = stage("azure-22");
    azure.hold_archiver();
    let answers = [
        (500, "InternalError"),
        (500, "OperationTimedOut"),
        (503, "ServerBusy"),
    ];
    let answer = |(status, code)| Answer::azure_error(status, code, "try again");
    azure.assert_failures_pass(answers.map(answer));
    azure.assert_lost_replies_are_made_good();
    // A gateway that answers with a page, and one that says that it succeeded.
    for (status, expected) in [(502, 200), (200, 503)] {
        let segment = azure.segment();
        let page = Answer::new(status, "<html><body>Gateway").header("Content-Type", "text/html");
        let fault = Fault::on(&[Kind::Put]).key(&segment);
        let fault = if status == 502 { fault.once() } else { fault };
        azure.proxy.fault(fault, Action::Answer(page));
        assert_eq!(azure.push(&segment), expected, "{status}");
        azure.proxy.clear();
        assert_eq!(azure.push(&segment), 200);
        azure.assert_stored(&segment);
    }
}

#[test]
fn fault_23_azure_asks_to_slow_down_is_not_stormed_and_archiving_resumes() {
    let busy = Answer::azure_error(503, "ServerBusy", "The server is busy.");
    stage("azure-23").assert_slow_down_is_not_stormed(busy);
}

#[test]
fn fault_03_and_25_blocks_and_lists_that_are_lost_end_in_whole_backups() {
    let azure = with_large_backup("azure-25", |options| options);
    // A block that fails is sent again, and one whose reply is lost; so is a list, twice.
    azure.proxy.fault(
        Fault::on(&[Kind::PutPart]).times(2),
        Action::Answer(Answer::azure_error(503, "ServerBusy", "slowly")),
    );
    azure.proxy.fault(
        Fault::on(&[Kind::PutPart]).after(1).once(),
        Action::LoseReply,
    );
    azure
        .proxy
        .fault(Fault::on(&[Kind::CompleteUpload]).once(), Action::LoseReply);
    azure
        .proxy
        .fault(Fault::on(&[Kind::CompleteUpload]).once(), Action::CutBefore);
    azure.stage.backup();
    azure.proxy.clear();
    // A list that is refused for good leaves no backup, and the next one is none the worse.
    let data = azure.stage.cluster.data.to_string_lossy().into_owned();
    let answer = Answer::azure_error(
        400,
        "InvalidBlockList",
        "The specified block list is invalid.",
    );
    azure
        .proxy
        .fault(Fault::on(&[Kind::CompleteUpload]), Action::Answer(answer));
    let exit = azure
        .stage
        .sidecar
        .verb(WALE, "wale", &["backup-push", &data]);
    assert_ne!(exit.code(), 0, "{}", exit.stderr);
    azure.proxy.clear();
    // Killed between blocks: nothing is visible.
    azure
        .proxy
        .fault(Fault::on(&[Kind::PutPart]).after(1), Action::Stall);
    azure.proxy.forget();
    let mut backup = wale_command(WALE, "wale", &azure.stage.options)
        .args(["backup-push", &data])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("a block", LONG, || {
        (azure.proxy.count(Kind::PutPart, "part_") >= 2).then_some(())
    });
    backup.kill().unwrap();
    backup.wait().unwrap();
    azure.proxy.clear();
    let interrupted = azure.proxy.requests();
    let interrupted = interrupted.iter().find(|seen| seen.kind == Kind::PutPart);
    let key = &interrupted.expect("a block").key;
    assert_eq!(azure.server.objects_with(key), [""; 0]);
    azure.stage.backup();
    let backups = azure.stage.sidecar.get("/backups").json();
    assert_eq!(backups.as_array().unwrap().len(), 2);
}

#[test]
fn fault_26_azure_goes_silent_and_is_asked_again() {
    stage("azure-26").assert_silence_is_cut_short();
}

#[test]
fn fault_27_and_28_bytes_garbled_on_the_way_to_azure_are_never_acknowledged_nor_delivered() {
    let azure = AzureStage::with("azure-27", Azurite::start, |options| {
        by_signature(options)
            .set("WALE_FETCH_PREFETCH", "0")
            .set("WALE_FETCH_DEADLINE", "2s")
    });
    azure.hold_archiver();
    azure.assert_garbled_uploads_are_sent_again();
    let segment = azure.segment();
    assert_eq!(azure.push(&segment), 200);
    azure.assert_garbled_replies_are_not_delivered(&segment);
    azure.assert_damage_is_not_delivered(&segment);
}

#[test]
fn fault_29_and_30_a_stale_list_or_an_azure_without_conditions_overwrites_nothing() {
    let mut azure = AzureStage::with("azure-29", Azurite::start, by_signature);
    azure.hold_archiver();
    let segment = azure.segment();
    assert_eq!(azure.push(&segment), 200);
    // The sidecar must not know from memory.
    azure.restart();
    azure
        .proxy
        .fault(Fault::on(&[Kind::List]), Action::hide_from_list(&segment));
    azure.assert_stored(&segment);
    let absent = azure.stage.sidecar.get(&format!("/wal-absent/{segment}"));
    assert_ne!(absent.status, 200, "{}", absent.text());
    azure.assert_conflict_is_refused(&segment);
    azure.proxy.clear();
    // A store that ignores the condition is found out before anything is written.
    azure
        .proxy
        .fault(Fault::any(), Action::StripHeader("if-none-match"));
    azure.restart();
    let next = azure.segment();
    assert_eq!(azure.push(&next), 200);
    azure.assert_stored(&next);
    azure.assert_conflict_is_refused(&next);
    let log = azure.stage.sidecar.log_text();
    let is_told = |line: &str| line.contains("WARN") && line.contains("conditions of a write");
    assert!(log.lines().any(is_told), "the operator is told: {log}");
}

/// Azurite takes tokens over TLS only, and looks at none. So the proxy puts a signature in a token's place.
fn take_tokens(proxy: &FaultProxy) {
    let has_token = |seen: &Seen| {
        let sent = seen.header("authorization").unwrap_or_default();
        sent.starts_with("Bearer ")
    };
    proxy.fault(
        Fault::any().when(has_token),
        Action::AddQuery(SHARED_ACCESS),
    );
    proxy.fault(
        Fault::any().when(has_token),
        Action::StripHeader("authorization"),
    );
}

/// A metadata service that gives tokens T1, T2 and so on.
fn identity(given: Arc<AtomicUsize>) -> FaultProxy {
    FaultProxy::endpoint(move |seen| {
        if seen.header("metadata") != Some("true") {
            return Answer::new(400, "no");
        }
        let n = given.fetch_add(1, Ordering::Relaxed) + 1;
        let body =
            format!(r#"{{"access_token":"T{n}","expires_in":"3599","token_type":"Bearer"}}"#);
        Answer::new(200, &body)
    })
}

#[test]
fn fault_31_a_token_that_ends_in_mid_upload_is_renewed_and_403_is_not_absence() {
    let given = Arc::new(AtomicUsize::new(0));
    let identity = identity(Arc::clone(&given));
    let mut azure = with_large_backup("azure-31", |options| {
        options.set("WALE_FETCH_DEADLINE", "2s")
    });
    take_tokens(&azure.proxy);
    let service = format!("http://127.0.0.1:{}", identity.port());
    azure.stage.options = azure
        .stage
        .options
        .clone()
        .unset("WABS_ACCESS_KEY")
        .set("AZURE_POD_IDENTITY_AUTHORITY_HOST", &service);
    azure.restart();
    let reply = azure.stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 200, "{}", reply.text());
    // The token runs out between the blocks of an upload.
    let current = format!("Bearer T{}", given.load(Ordering::Relaxed));
    let is_current = move |seen: &Seen| seen.header("authorization") == Some(&current);
    let expired = Answer::azure_error(401, "InvalidAuthenticationInfo", "The token is expired.");
    azure.proxy.fault(
        Fault::on(&[Kind::PutPart])
            .after(1)
            .when(is_current.clone()),
        Action::Answer(expired),
    );
    azure.proxy.forget();
    let reply = azure.stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let blocks = azure.proxy.requests();
    let renewed = blocks
        .iter()
        .filter(|seen| seen.kind == Kind::PutPart && seen.status == 201 && !is_current(seen));
    assert!(renewed.count() > 0, "blocks went on with the next token");
    assert_refusals_are_no_absence(&azure);
}

/// No renewal helps: it is a failure of the configuration, and says nothing about objects.
fn assert_refusals_are_no_absence(azure: &AzureStage) {
    azure.hold_archiver();
    let segment = azure.segment();
    assert_eq!(azure.push(&segment), 200);
    for answer in [
        Answer::azure_error(401, "InvalidAuthenticationInfo", "no"),
        Answer::azure_error(403, "AuthorizationPermissionMismatch", "no"),
    ] {
        azure.proxy.clear();
        azure.proxy.fault(Fault::any(), Action::Answer(answer));
        let reply = azure.stage.sidecar.get(&format!("/wal/{segment}"));
        assert!([500, 503].contains(&reply.status), "{}", reply.text());
        let absent = azure
            .stage
            .sidecar
            .get("/wal-absent/0000000100000000000000FF");
        assert!([500, 503].contains(&absent.status), "{}", absent.text());
        let next = azure.segment();
        assert_ne!(azure.push(&next), 200);
        azure.proxy.clear();
        take_tokens(&azure.proxy);
        assert_eq!(
            azure.push(&next),
            200,
            "by itself, once it is allowed again"
        );
    }
    azure.assert_stored(&segment);
}

/// The messages of a verb that must fail, in a place where no archive is.
fn refused(settings: &[(String, String)]) -> (i32, String) {
    let (code, stderr) = listing(settings, ACCOUNT_KEY);
    assert!(!stderr.contains("sig="), "no secret is told: {stderr}");
    (code, stderr)
}

/// What Azure says, each with a word of what is told of it.
fn refusals_of_azure() -> [(Answer, &'static str); 4] {
    let authentication = |detail: &str| {
        let body = format!(
            "\u{feff}<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed to \
             authenticate the request.</Message><AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail></Error>"
        );
        Answer::new(403, &body).header("x-ms-error-code", "AuthenticationFailed")
    };
    [
        (authentication("Request date header too old: 'x'"), "clocks"),
        (
            authentication(
                "Signature not valid in the specified time frame: Start [x] - Expiry [y]",
            ),
            "expired",
        ),
        (
            Answer::azure_error(403, "AuthorizationPermissionMismatch", "no"),
            "denied",
        ),
        (
            Answer::azure_error(400, "AccountRequiresHttps", "no"),
            "takes TLS only",
        ),
    ]
}

#[test]
fn fault_32_what_azure_refuses_has_hints_of_its_own() {
    let sandbox = Sandbox::new("azure-32");
    let server = Azurite::start(&sandbox);
    let changed = |port: u16, name: &str, value: &str| {
        let mut settings = Azurite::settings(port, "x");
        settings.retain(|(known, _)| known != name);
        settings.push((name.to_owned(), value.to_owned()));
        settings
    };
    let (code, text) = refused(&Azurite::settings(server.port(), "x"));
    assert_eq!(code, 0, "an empty archive is listed: {text}");
    let mut seen = Vec::new();
    // As the emulator says it.
    for (name, value, word) in [
        (
            "WALE_WABS_PREFIX",
            "wabs://gone/x",
            "the container does not exist",
        ),
        ("WABS_ACCESS_KEY", "Y2FuYXJ5", "signature"),
    ] {
        let (code, text) = refused(&changed(server.port(), name, value));
        assert!([77, 78].contains(&code), "{code}: {text}");
        assert!(text.contains(word), "{text}");
        seen.push(text);
    }
    // As Azure says it.
    let proxy = FaultProxy::start(server.port());
    for (answer, word) in refusals_of_azure() {
        proxy.fault(Fault::any(), Action::Answer(answer));
        proxy.forget();
        let (code, text) = refused(&Azurite::settings(proxy.port(), "x"));
        assert!([77, 78].contains(&code), "{code}: {text}");
        assert!(text.contains(word), "{word}: {text}");
        let requests = proxy.requests().len();
        assert!(
            requests <= 4,
            "asking again does not help: {requests} requests"
        );
        proxy.clear();
        seen.push(text);
    }
    let hints: std::collections::BTreeSet<String> = seen
        .iter()
        .filter_map(|text| Some(text.split_once("HINT")?.1.to_owned()))
        .collect();
    assert!(hints.len() >= 6, "{hints:#?}");
}

#[test]
fn fault_33_of_azure_a_certificate_that_proves_nothing_is_refused_and_tls_is_never_given_up() {
    let sandbox = Sandbox::new("azure-33");
    let server = Azurite::start(&sandbox);
    // The emulator takes the first word of a name for the account.
    let endpoint = |authority: &str| match authority.split_once(':') {
        Some(("127.0.0.1", _)) => format!("https://{authority}/{ACCOUNT}"),
        _ => format!("https://{ACCOUNT}.{authority}"),
    };
    let settings = |authority: &str, ca: &str| {
        let mut settings = Azurite::settings(0, "x");
        settings.retain(|(name, _)| name != "WALE_WABS_ENDPOINT");
        settings.push(("WALE_WABS_ENDPOINT".into(), endpoint(authority)));
        settings.push(("WALE_WABS_CA_FILE".into(), ca.to_owned()));
        settings
    };
    assert_certificates_are_proved(&sandbox, &server, ACCOUNT_KEY, settings);

    // Entra must prove who it is, too, before it is shown a secret.
    let certificates = Certificates::new(&sandbox);
    let trusted = [("trusted", certificates.good, certificates.ca)];
    let store = FaultProxy::start(server.port());
    take_tokens(&store);
    for (what, identity, ca) in trusted.iter().chain(&certificates.untrusted) {
        let entra = FaultProxy::start_tls(0, identity);
        let token = r#"{"access_token":"T1","expires_in":3599,"token_type":"Bearer"}"#;
        entra.fault(Fault::any(), Action::Answer(Answer::new(200, token)));
        let mut settings = Azurite::settings(store.port(), "x");
        settings.retain(|(name, _)| name != "WABS_ACCESS_KEY");
        let authority = format!("https://127.0.0.1:{}", entra.port());
        for (name, value) in [
            ("WALE_WABS_CA_FILE", &**ca),
            ("AZURE_AUTHORITY_HOST", &authority),
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_ID", "application"),
            ("AZURE_CLIENT_SECRET", "an application's secret"),
        ] {
            if !value.is_empty() {
                settings.push((name.to_owned(), value.to_owned()));
            }
        }
        store.forget();
        let (code, text) = listing(&settings, "an application's secret");
        if *what == "trusted" {
            assert_eq!(code, 0, "{text}");
            assert!(!entra.requests().is_empty());
            continue;
        }
        assert_eq!(code, 78, "{what}: {text}");
        assert!(text.contains("certificate"), "{what}: {text}");
        assert_eq!(entra.requests().len(), 0, "{what}: nothing was sent");
        assert_eq!(store.requests().len(), 0, "{what}: nothing was asked");
    }
}

#[test]
fn fault_34_what_azure_retains_is_told_and_the_rest_goes() {
    let refusal = Answer::azure_error(
        409,
        "BlobImmutableDueToPolicy",
        "This operation is not permitted as the blob is immutable due to a policy.",
    );
    stage("azure-34").assert_what_is_retained_is_told(
        |proxy, name| refuse_deletion(proxy, name, &refusal),
        &["BlobImmutableDueToPolicy", "immutable due to a policy"],
    );
}

#[test]
fn fault_35_what_queued_up_behind_a_partition_is_stored_in_azure_in_order_once_it_heals() {
    let azure = AzureStage::with("azure-35", Azurite::start, |options| {
        options.set("WALE_FETCH_DEADLINE", "1s")
    });
    azure.assert_a_queue_is_stored_in_order(40);
}

#[test]
fn fault_36_beside_azure_a_database_that_is_out_of_reach_is_told_and_wal_is_kept() {
    stage("azure-36").assert_a_database_out_of_reach_is_told();
}
