//! `wale check`: what is well and what is not, on a real server.

use serde_json::Value;
use wale_testkit::{ClusterOptions, Exit, free_port, wale_command};

use crate::support::{Stage, WALE};

fn check(stage: &Stage, arguments: &[&str]) -> Exit {
    let all: Vec<&str> = ["check"].iter().chain(arguments).copied().collect();
    stage.sidecar.verb(WALE, "wale", &all)
}

/// The verdict of each topic.
fn verdict(exit: &Exit, topic: &str) -> String {
    verdict_in(&exit.stdout, topic)
}

fn verdict_in(text: &str, topic: &str) -> String {
    let told: Value = serde_json::from_str(text).expect("JSON");
    let findings = told["findings"].as_array().expect("a list");
    let found = findings.iter().find(|one| one["topic"] == topic);
    let found = found.unwrap_or_else(|| panic!("nothing about {topic} in {text}"));
    found["verdict"].as_str().expect("a word").to_owned()
}

/// What is in the archive; the WAL volume beside it is never the same twice.
fn held(stage: &Stage) -> [serde_json::Value; 3] {
    let told = stage.sidecar.verb(WALE, "wale", &["status", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
    ["objects", "bytes", "windows"].map(|name| told[name].clone())
}

#[test]
fn check_finds_nothing_where_all_is_well_on_every_major() {
    crate::support::on_every_major(|major| {
        let options = ClusterOptions {
            major,
            ..ClusterOptions::default()
        };
        let stage = Stage::with(&format!("check-{major}"), &options, |options| {
            options.set("WALE_RETAIN_DAYS", "7")
        });
        stage
            .cluster
            .sql("create table t as select generate_series(1, 1000) v");
        stage.cluster.sql("alter system set archive_timeout = 60");
        stage.cluster.sql("select pg_reload_conf()");
        // There is no base backup yet, and that is wrong.
        let before = check(&stage, &["--json"]);
        assert_eq!(before.code(), 2, "{}", before.stdout);
        assert_eq!(verdict(&before, "backups"), "wrong");
        assert_eq!(stage.sidecar.get("/backup-push").status, 200);
        stage.cluster.switch_wal();
        stage.cluster.wait_archived();
        let objects = held(&stage);
        let well = check(&stage, &[]);
        assert_eq!(well.code(), 0, "{}{}", well.stdout, well.stderr);
        assert!(
            well.stdout.contains("0 to be looked at, 0 wrong"),
            "{}",
            well.stdout
        );
        assert_eq!(held(&stage), objects, "it leaves nothing in the archive");
        let nagios = check(&stage, &["--nagios"]);
        assert!(nagios.stdout.starts_with("WALE OK - "), "{}", nagios.stdout);
        assert_eq!(nagios.stdout.lines().count(), 1);
    });
}

/// As the server runs it: it must succeed for what is archived, and fail for what is not there.
#[test]
fn check_runs_the_server_s_own_command_when_it_is_asked_to() {
    let stage = Stage::with("check-push", &ClusterOptions::default(), |options| {
        options.set("WALE_RETAIN_DAYS", "7")
    });
    stage.cluster.sql("create table t (v int)");
    stage.archive_all();
    let keys = || held(&stage);
    let before = keys();
    let told = check(&stage, &["--json", "--push"]);
    assert_eq!(verdict(&told, "push"), "good", "{}", told.stdout);
    assert!(told.stdout.contains("fails for a file that does not exist"));
    assert_eq!(keys(), before, "nothing new is stored");
    for (command, words) in [
        (
            "wget -q http://127.0.0.1:1/wal-push/%f -O - || true",
            "does not exist",
        ),
        (
            "wget -q http://127.0.0.1:1/wal-push/%f -O -",
            "archive_command fails for",
        ),
        ("/bin/true", "does not look like wale's"),
    ] {
        stage
            .cluster
            .sql(&format!("alter system set archive_command = '{command}'"));
        stage.cluster.sql("select pg_reload_conf()");
        wale_testkit::wait_until("the command", std::time::Duration::from_secs(30), || {
            (stage.cluster.sql("show archive_command").trim() == command).then_some(())
        });
        let told = check(&stage, &["--json", "--push"]);
        assert_eq!(
            verdict(&told, "push"),
            "wrong",
            "{command}: {}",
            told.stdout
        );
        assert!(told.stdout.contains(words), "{command}: {}", told.stdout);
    }
}

/// A gap, a command that leads elsewhere, no rule of retention. Gives the segment that is missing.
fn spoil(stage: &Stage) -> String {
    stage
        .cluster
        .sql("create table t as select generate_series(1, 1000) v");
    assert_eq!(stage.sidecar.get("/backup-push").status, 200);
    let names: Vec<String> = (0..3)
        .map(|_| {
            let name = stage.cluster.switch_wal();
            stage.cluster.wait_archived();
            name
        })
        .collect();
    let wal = stage.sandbox.path().join("archive/wal_005");
    std::fs::remove_file(wal.join(format!("{}.zst", names[1]))).expect("removed");
    stage
        .cluster
        .sql("alter system set archive_command = 'true'");
    stage.cluster.sql("alter system set archive_timeout = 60");
    stage.cluster.sql("select pg_reload_conf()");
    names[1].clone()
}

#[test]
fn check_names_each_thing_that_is_wrong() {
    let stage = Stage::new("check-wrong", 15);
    let missing = spoil(&stage);
    let found = check(&stage, &["--json"]);
    assert_eq!(found.code(), 2, "{}", found.stdout);
    for (topic, expected) in [
        ("settings", "good"),
        ("archive", "good"),
        ("writing", "good"),
        ("server", "good"),
        ("role", "good"),
        ("archive_mode", "good"),
        ("archive_command", "warning"),
        ("recoverable", "wrong"),
        ("retention", "warning"),
        ("backups", "good"),
    ] {
        assert_eq!(
            verdict(&found, topic),
            expected,
            "{topic}: {}",
            found.stdout
        );
    }
    let text = check(&stage, &[]).stdout;
    assert!(
        text.contains(&missing) && text.contains("> take a base backup"),
        "{text}"
    );
    let nagios = check(&stage, &["--nagios"]).stdout;
    assert!(nagios.starts_with("WALE CRITICAL - "), "{nagios}");
    // The server is away, and the rest is looked at all the same.
    let options = stage
        .options
        .clone()
        .set("PGPORT", &free_port().to_string());
    let away = wale_command(WALE, "wale", &options)
        .args(["check", "--json"])
        .output()
        .expect("wale runs");
    assert_eq!(away.status.code(), Some(2));
    let away = String::from_utf8_lossy(&away.stdout);
    assert_eq!(verdict_in(&away, "server"), "wrong");
    assert_eq!(verdict_in(&away, "recoverable"), "wrong");
    // An archive that is away is said, and the server is looked at.
    std::fs::rename(
        stage.sandbox.path().join("archive"),
        stage.sandbox.path().join("moved"),
    )
    .expect("moved");
    let lost = check(&stage, &["--json"]);
    assert_eq!(verdict(&lost, "archive"), "wrong", "{}", lost.stdout);
    assert_eq!(verdict(&lost, "server"), "good");
}
