//! The fault battery on S3, rows 66, 101 and 113: success that is none, servers that are spoken to in the wrong way,
//! and what a person at a terminal sees meanwhile.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use wale_testkit::s3::{Action, Answer, Fault, Kind, S3Server};
use wale_testkit::{Sandbox, SidecarOptions, free_port, wale_command};

use crate::s3::{changed, wale};
use crate::s3_stage::S3Stage;
use crate::support::WALE;

/// A store that gives up soon.
fn impatient(name: &str) -> S3Stage {
    S3Stage::with(name, S3Server::moto, |options| {
        options
            .set("WALE_FETCH_DEADLINE", "1s")
            .set("WALE_MEMORY", "64MiB")
            .set("WALE_COMPRESSION", "none")
    })
}

#[test]
fn fault_66_and_113_nothing_is_acknowledged_that_somebody_else_says_was_stored() {
    let s3 = impatient("s3-66");
    s3.hold_archiver();
    // A captive portal answers in place of the store.
    let portal = Answer::new(200, "<html><title>Request Rejected</title></html>")
        .header("Content-Type", "text/html");
    let segment = s3.segment();
    let fault = Fault::on(&[Kind::Put]).key(&segment);
    s3.proxy.fault(fault, Action::Answer(portal.clone()));
    assert_eq!(s3.push(&segment), 503);
    assert!(s3.server.objects_with(&segment).is_empty());
    s3.proxy.clear();
    assert_eq!(s3.push(&segment), 200);
    s3.assert_stored(&segment);

    // The same befalls the sentinel of a backup, which then does not exist.
    s3.release_archiver();
    let fault = Fault::on(&[Kind::Put]).key("sentinel");
    s3.proxy.fault(fault, Action::Answer(portal));
    let reply = s3.stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(s3.server.objects_with("sentinel").is_empty());
    s3.proxy.clear();

    // A part's end is lost, nothing is put together, and the repeated request is answered with success.
    let assembled =
        "<CompleteMultipartUploadResult><ETag>\"e-1\"</ETag></CompleteMultipartUploadResult>";
    let ends = || Fault::on(&[Kind::CompleteUpload]).key("part_");
    s3.proxy.fault(ends().once(), Action::CutBefore);
    s3.proxy
        .fault(ends().after(1), Action::Answer(Answer::new(200, assembled)));
    let reply = s3.stage.sidecar.get("/backup-push");
    assert_ne!(reply.status, 200, "{}", reply.text());
    assert!(s3.proxy.count(Kind::CompleteUpload, "part_") >= 2);
    assert!(s3.server.objects_with("sentinel").is_empty());
    s3.proxy.clear();
    let reply = s3.stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn fault_101_what_is_wrong_is_told_at_once_and_retries_while_they_go_on() {
    let sandbox = Sandbox::new("s3-101");
    let server = S3Server::moto(&sandbox);
    // TLS to a port without it.
    let secure = format!("https+path://127.0.0.1:{}", server.port());
    let settings = changed(server.port(), "x", &[("WALE_S3_ENDPOINT", &secure)]);
    let output = wale(&settings, &["backup-list"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("does not speak TLS"), "{text}");
    assert!(text.contains("HINT"), "{text}");
    assert!(!text.contains("asked again"), "{text}");

    // Nobody listens, or the folder is not there: the first line comes while the verb is still at work.
    let nowhere = sandbox.path().join("nowhere");
    let folder = format!("file://localhost{}", nowhere.display());
    for (settings, word) in [
        (S3Server::settings(free_port(), "x"), "refused"),
        (vec![("WALE_FILE_PREFIX".to_owned(), folder)], "nowhere"),
    ] {
        let options = SidecarOptions {
            environment: settings.into_iter().collect(),
            port: 0,
            as_postgres: false,
        };
        let mut command = wale_command(WALE, "wale", &options);
        command.arg("backup-list").stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let is_told = |line: &String| line.contains("asked again");
        let told = lines.map_while(Result::ok).find(is_told);
        let is_over = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        let told = told.expect("it is told");
        assert!(told.contains("WARN") && told.contains(word), "{told}");
        assert!(!is_over, "it is told while it goes on");
    }
}
