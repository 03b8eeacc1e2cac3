//! The fault battery on S3, rows 3, 24 and 31 to 34: uploads that are cut off, credentials that expire, servers that are
//! not the right ones, certificates that prove nothing, objects that must not be deleted.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use wale_testkit::s3::{ACCESS_KEY, Action, Answer, Fault, FaultProxy, Kind, S3Server, SECRET_KEY};
use wale_testkit::{Sandbox, Sidecar, wait_until, wale_command};

use crate::s3::changed;
use crate::s3_stage::S3Stage;
use crate::store_trust::{assert_certificates_are_proved, listing};
use crate::support::WALE;

const LONG: Duration = Duration::from_secs(60);

/// A stage whose base backup has a partition of several parts.
fn with_large_backup(name: &str, server: fn(&Sandbox) -> S3Server) -> S3Stage {
    let s3 = S3Stage::with(name, server, |options| {
        options.set("WALE_COMPRESSION", "none")
    });
    s3.stage
        .cluster
        .sql("create table filler as select repeat('x', 1000) v from generate_series(1, 30000)");
    s3
}

#[test]
fn fault_03_killed_between_parts_nothing_is_visible_and_the_sweep_aborts_the_upload() {
    let mut s3 = with_large_backup("s3-03", S3Server::moto);
    s3.proxy.fault(Fault::on(&[Kind::PutPart]), Action::Stall);
    let mut backup = wale_command(WALE, "wale", &s3.stage.options)
        .args(["backup-push", &s3.stage.cluster.data.to_string_lossy()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // moto says of a part that it came just now, and such an upload is not swept: none arrives.
    wait_until("a part", LONG, || {
        (s3.proxy.count(Kind::PutPart, "part_") >= 1).then_some(())
    });
    backup.kill().unwrap();
    backup.wait().unwrap();
    s3.proxy.clear();
    let interrupted = s3.proxy.requests();
    let interrupted = interrupted.iter().find(|seen| seen.kind == Kind::PutPart);
    let key = &interrupted.expect("a part").key;
    assert_eq!(s3.server.objects_with(key), [""; 0]);
    assert!(s3.server.unfinished() >= 1);
    assert_eq!(s3.stage.sidecar.get("/backups").text().trim(), "[]");
    // moto says of every upload that it began years ago: at its next start the sidecar sweeps it.
    s3.stage.sidecar.kill();
    s3.stage.sidecar = Sidecar::start(&s3.stage.sandbox, WALE, &s3.stage.options);
    wait_until("the sweep", LONG, || {
        (s3.server.unfinished() == 0).then_some(())
    });
    s3.stage.backup();
    assert_eq!(s3.server.unfinished(), 0);
}

#[test]
fn fault_24_an_error_that_comes_with_status_200_is_a_failure() {
    let s3 = with_large_backup("s3-24", S3Server::moto);
    let data = s3.stage.cluster.data.to_string_lossy().into_owned();
    // The status goes out before the work is done, so the failure can only follow in the body.
    let error = |code| Answer::error(200, code, "We encountered an error.");
    let hopeless = Action::Answer(error("InvalidPart"));
    s3.proxy.fault(Fault::on(&[Kind::CompleteUpload]), hopeless);
    let exit = s3.stage.sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_ne!(exit.code(), 0, "{}", exit.stderr);
    assert!(exit.stderr.contains("InvalidPart"), "{}", exit.stderr);
    assert_eq!(s3.stage.sidecar.get("/backups").text().trim(), "[]");
    assert_eq!(s3.server.unfinished(), 0, "what failed is aborted");
    s3.proxy.clear();
    // Once: the assembly is asked for again. So is one whose answer is lost.
    for action in [Action::Answer(error("InternalError")), Action::LoseReply] {
        let fault = Fault::on(&[Kind::CompleteUpload]).once();
        s3.proxy.fault(fault, action);
        s3.stage.backup();
        s3.proxy.clear();
    }
    // A part that fails is sent again, and a part that is lost on its way does not end the backup.
    s3.proxy.fault(
        Fault::on(&[Kind::PutPart]).times(2),
        Action::Answer(Answer::error(503, "SlowDown", "slowly")),
    );
    s3.proxy.fault(
        Fault::on(&[Kind::PutPart]).after(1).once(),
        Action::LoseReply,
    );
    s3.proxy
        .fault(Fault::on(&[Kind::CreateUpload]).once(), Action::LoseReply);
    s3.stage.backup();
    let backups = s3.stage.sidecar.get("/backups").json();
    assert_eq!(backups.as_array().unwrap().len(), 3);
}

/// Puts credentials in the place of those that are there.
fn write_credentials(file: &Path, token: &str) {
    let text = format!(
        "[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n\
         aws_session_token = {token}\n"
    );
    let next = file.with_extension("next");
    std::fs::write(&next, text).unwrap();
    wale_testkit::shell(&format!("chmod 644 {}", next.display()));
    std::fs::rename(&next, file).unwrap();
}

#[test]
fn fault_31_expired_credentials_are_renewed_in_mid_upload_and_403_is_not_absence() {
    let sandbox = Sandbox::new("s3-31-file");
    let file = sandbox.path().join("credentials");
    let write = |token: &str| write_credentials(&file, token);
    write("first");
    let s3 = S3Stage::with("s3-31", S3Server::moto, |options| {
        options
            .unset("AWS_ACCESS_KEY_ID")
            .unset("AWS_SECRET_ACCESS_KEY")
            .set("AWS_SHARED_CREDENTIALS_FILE", &file.to_string_lossy())
            .set("WALE_COMPRESSION", "none")
            .set("WALE_FETCH_DEADLINE", "2s")
    });
    s3.stage
        .cluster
        .sql("create table filler as select repeat('x', 1000) v from generate_series(1, 30000)");
    s3.hold_archiver();
    let expired = || Answer::error(400, "ExpiredToken", "The provided token has expired.");
    let is_first =
        |seen: &wale_testkit::s3::Seen| seen.header("x-amz-security-token") == Some("first");
    // The token runs out between the parts of an upload, when the file already holds the next one.
    s3.proxy.fault(
        Fault::on(&[Kind::PutPart]).after(1).when(is_first),
        Action::Answer(expired()),
    );
    write("second");
    let reply = s3.stage.sidecar.get("/backup-push?wait=false");
    assert_eq!(reply.status, 202, "{}", reply.text());
    s3.release_archiver();
    wait_until("the backup", LONG, || {
        let backups = s3.stage.sidecar.get("/backups").json();
        (backups.as_array()?.len() == 1).then_some(())
    });
    s3.hold_archiver();
    let tokens: Vec<String> = s3
        .proxy
        .requests()
        .iter()
        .filter(|seen| seen.kind == Kind::PutPart && seen.status == 200)
        .filter_map(|seen| seen.header("x-amz-security-token").map(str::to_owned))
        .collect();
    assert!(tokens.contains(&"second".to_owned()), "{tokens:?}");
    s3.proxy.clear();

    // No renewal helps: it is a failure of the configuration, and says nothing about objects.
    let segment = s3.segment();
    assert_eq!(s3.push(&segment), 200);
    for answer in [
        expired(),
        Answer::error(403, "AccessDenied", "Access Denied"),
    ] {
        s3.proxy.fault(Fault::any(), Action::Answer(answer));
        let reply = s3.stage.sidecar.get(&format!("/wal/{segment}"));
        assert!([500, 503].contains(&reply.status), "{}", reply.text());
        let absent = s3.stage.sidecar.get("/wal-absent/0000000100000000000000FF");
        assert!([500, 503].contains(&absent.status), "{}", absent.text());
        let next = s3.segment();
        assert_ne!(s3.push(&next), 200);
        s3.proxy.clear();
        assert_eq!(s3.push(&next), 200, "by itself, once it is allowed again");
    }
    s3.assert_stored(&segment);
}

fn refused(settings: &[(String, String)]) -> (i32, String) {
    listing(settings, SECRET_KEY)
}

#[test]
fn fault_32_a_bucket_that_is_gone_or_elsewhere_and_a_wrong_clock_have_hints_of_their_own() {
    let sandbox = Sandbox::new("s3-32");
    let (moto, s3s) = (S3Server::moto(&sandbox), S3Server::s3s(&sandbox, None));
    let direct = S3Server::settings(s3s.port(), "x");
    assert_eq!(refused(&direct).0, 0, "an empty archive is listed");
    // As real servers say it.
    let mut seen = Vec::new();
    for (settings, word) in [
        (
            changed(moto.port(), "", &[("WALE_S3_PREFIX", "s3://gone/x")]),
            "does not exist",
        ),
        (
            changed(s3s.port(), "x", &[("AWS_SECRET_ACCESS_KEY", "wrong")]),
            "signature",
        ),
        (
            changed(s3s.port(), "x", &[("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")]),
            "",
        ),
    ] {
        let (code, text) = refused(&settings);
        assert!([77, 78].contains(&code), "{code}: {text}");
        assert!(text.contains(word), "{text}");
        seen.push(text);
    }
    // As Amazon says it: no server here checks clocks or has regions.
    let proxy = FaultProxy::start(moto.port());
    let redirect = Answer::error(301, "PermanentRedirect", "another endpoint")
        .header("x-amz-bucket-region", "eu-central-1");
    for (answer, word) in [
        (redirect, "eu-central-1"),
        (
            Answer::error(403, "RequestTimeTooSkewed", "The difference is too large."),
            "clock",
        ),
        (
            Answer::error(403, "InvalidAccessKeyId", "unknown"),
            "access key",
        ),
        (Answer::error(400, "ExpiredToken", "expired"), "expired"),
        (Answer::error(403, "AccessDenied", "no"), "denied"),
    ] {
        proxy.fault(Fault::any(), Action::Answer(answer));
        proxy.forget();
        let (code, text) = refused(&S3Server::settings(proxy.port(), "x"));
        assert!([77, 78].contains(&code), "{code}: {text}");
        assert!(text.contains(word), "{word}: {text}");
        assert!(text.contains("HINT"), "{text}");
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
fn fault_33_a_certificate_that_proves_nothing_is_refused_and_tls_is_never_given_up() {
    let sandbox = Sandbox::new("s3-33");
    let server = S3Server::s3s(&sandbox, None);
    assert_certificates_are_proved(&sandbox, &server, SECRET_KEY, |authority, ca| {
        let endpoint = format!("https+path://{authority}");
        changed(
            0,
            "x",
            &[("WALE_S3_ENDPOINT", &endpoint), ("WALE_S3_CA_FILE", ca)],
        )
    });
}
