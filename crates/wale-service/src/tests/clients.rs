//! curl, GNU wget and busybox wget as they stand in people's `archive_command`: the exit status is what counts.

use std::process::{Command, Output};

use super::support::{Sidecar, bench, segment, serving};
use crate::HttpToken;

pub(super) async fn run(program: &'static str, arguments: Vec<String>) -> Output {
    tokio::task::spawn_blocking(move || {
        Command::new(program)
            .args(arguments)
            .env("http_proxy", "")
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"))
    })
    .await
    .unwrap()
}

pub(super) fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

impl Sidecar {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_notices_every_failure() {
    let sidecar = serving().await;
    let (missing, _) = segment(5);
    let paths = [
        format!("/wal-push/{missing}"),
        format!("/push/{missing}"),
        format!("/wal/{missing}"),
        format!("/wal-fetch/{missing}"),
        "/wal-push/not-a-name".to_owned(),
        format!("/walpush/{missing}"),
        // The page is not for them.
        "/".to_owned(),
        "/ui".to_owned(),
        format!("/wal-push/{missing}?x=1"),
    ];
    for path in paths {
        let url = sidecar.url(&path);
        let curl = run("curl", words(&format!("-s {url}"))).await;
        assert_eq!(curl.status.code(), Some(18), "curl {path}");
        let text = String::from_utf8(curl.stdout).unwrap();
        assert!(
            text.lines().count() >= 1 && text.ends_with('\n'),
            "curl saw {text:?} for {path}"
        );
        let post = run("curl", words(&format!("-s -X POST -d x {url}"))).await;
        assert_eq!(post.status.code(), Some(18), "curl -X POST {path}");
        let wget = run("wget", words(&format!("-q -O - {url}"))).await;
        assert_eq!(wget.status.code(), Some(8), "wget {path}");
        let busybox = run("busybox", words(&format!("wget -q -O - {url}"))).await;
        assert_eq!(busybox.status.code(), Some(1), "busybox wget {path}");
    }
    sidecar.stop().await.unwrap();
}

/// Row 99: the lines of the guide, with a shorter limit, push what is well and give up on a sidecar that hangs, with a
/// status that PostgreSQL's archiver counts as a failure.
#[tokio::test(flavor = "multi_thread")]
async fn fault_99_the_documented_lines_give_up_on_a_sidecar_that_hangs() {
    let guide = include_str!("../../../../docs/guide/archiving.md");
    // The kernel accepts for it, and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = silent.local_addr().unwrap().to_string();
    let sidecar = serving().await;
    let lines: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("archive_command = '"))
        .filter_map(|rest| rest.split_once('\''))
        .map(|(command, _)| command)
        .filter(|command| command.contains("120"))
        .collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let sh = |command: &str, address: &str, name: &str| {
        let command = command
            .replace("wale:5000", address)
            .replace("%f", name)
            .replace("120", "3");
        run("sh", vec!["-c".to_owned(), command])
    };
    for (number, line) in (1_u32..).zip(&lines) {
        let (name, _) = sidecar.segment(number);
        let busybox = line
            .replace("wget ", "busybox wget ")
            .replace("timeout ", "busybox timeout ");
        let commands = if line.starts_with("timeout") {
            vec![(*line).to_owned(), busybox]
        } else {
            vec![(*line).to_owned()]
        };
        for command in commands {
            let well = sh(&command, &sidecar.address.to_string(), &name).await;
            assert_eq!(well.status.code(), Some(0), "{command}: {well:?}");
            let given_up = sh(&command, &hung, &name).await;
            let status = given_up.status.code();
            assert!(
                status.is_some_and(|status| (1..=125).contains(&status)),
                "{command}: {given_up:?}"
            );
        }
    }
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_pushes_and_fetches() {
    let sidecar = serving().await;
    let output = sidecar.folder.path().join("out");
    let out = output.display();
    for (number, program, push, fetch) in [
        (1, "curl", "-s", format!("-s -o {out}")),
        (2, "wget", "-q -O -", format!("-q -O {out}")),
        (3, "busybox", "wget -q -O -", format!("wget -q -O {out}")),
    ] {
        let (name, bytes) = sidecar.segment(number);
        let pushed = run(
            program,
            words(&format!(
                "{push} {}",
                sidecar.url(&format!("/wal-push/{name}"))
            )),
        )
        .await;
        assert_eq!(pushed.status.code(), Some(0), "{program}");
        let line = String::from_utf8(pushed.stdout).unwrap();
        assert!(
            line.starts_with(&name) && line.lines().count() == 1,
            "{line:?}"
        );
        let fetched = run(
            program,
            words(&format!("{fetch} {}", sidecar.url(&format!("/wal/{name}")))),
        )
        .await;
        assert_eq!(fetched.status.code(), Some(0), "{program}");
        assert!(
            std::fs::read(&output).unwrap() == bytes,
            "{program} brought other bytes"
        );
        std::fs::remove_file(&output).unwrap();
    }
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row62_every_client_can_show_the_token_and_is_refused_without() {
    let mut bench = bench();
    bench.options.token = Some(HttpToken::new("s3cret".into()).unwrap());
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let (name, _) = sidecar.segment(1);
    let url = sidecar.url(&format!("/wal-push/{name}"));
    for (program, arguments, status) in [
        ("curl", format!("-s {url}"), 18),
        ("wget", format!("-q -O - {url}"), 6),
        ("busybox", format!("wget -q -O - {url}"), 1),
        ("curl", format!("-s -u wale:wrong {url}"), 18),
    ] {
        assert_eq!(
            run(program, words(&arguments)).await.status.code(),
            Some(status),
            "{program} {arguments}"
        );
    }
    assert!(sidecar.memory.keys().is_empty(), "nothing was stored");
    for (program, arguments) in [
        ("curl", format!("-s -u wale:s3cret {url}")),
        ("curl", format!("-s --oauth2-bearer s3cret {url}")),
        (
            "wget",
            format!("-q -O - --user=wale --password=s3cret {url}"),
        ),
        (
            "wget",
            format!("-q -O - --auth-no-challenge --user=wale --password=s3cret {url}"),
        ),
        (
            "busybox",
            format!(
                "wget -q -O - {}",
                url.replace("http://", "http://wale:s3cret@")
            ),
        ),
    ] {
        assert_eq!(
            run(program, words(&arguments)).await.status.code(),
            Some(0),
            "{program} {arguments}"
        );
    }
    assert_eq!(sidecar.get("/ping").await.body(), "pong\n");
    assert_eq!(sidecar.get("/readyz").await.status(), 200);
    assert_eq!(sidecar.get("/status").await.status(), 401);
    sidecar.stop().await.unwrap();
}
