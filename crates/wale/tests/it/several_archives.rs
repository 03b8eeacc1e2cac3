//! Several archives: the second follows the first, stands in for it, and stops nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use wale_testkit::s3::{FaultProxy, Partition, S3Server};
use wale_testkit::{
    Cluster, ClusterOptions, Exit, Sandbox, Sidecar, SidecarOptions, free_port, shell, wait_until,
    wale_command,
};

use crate::support::{Stage, WALE, fingerprint, restore_options};

const LONG: Duration = Duration::from_secs(120);

/// A stage whose second archive is in the folder `second`, which is not there yet.
fn stage(name: &str, settings: &[(&str, &str)]) -> Stage {
    let cluster = ClusterOptions {
        segment_mib: 1,
        // Nothing waits for a checkpoint that is far away: what was archived goes from pg_wal.
        configuration: vec!["min_wal_size = 2MB".into()],
        ..ClusterOptions::default()
    };
    Stage::with(name, &cluster, |mut options| {
        let first = &options.environment["WALE_FILE_PREFIX"];
        let second = format!("{}second", first.trim_end_matches("archive"));
        options = options.set("WALE_FILE_PREFIX_2", &second);
        for (setting, value) in settings {
            options = options.set(setting, value);
        }
        options
    })
}

fn second_folder(stage: &Stage) -> PathBuf {
    stage.sandbox.path().join("second")
}

/// What `/status` says of the second archive.
fn second(sidecar: &Sidecar) -> Value {
    sidecar.get("/status").json()["further_archives"][0].clone()
}

fn wait_caught_up(sidecar: &Sidecar) -> Value {
    wait_until("the second archive to have everything", LONG, || {
        let second = second(sidecar);
        let is_there = second["state"] == "following"
            && second["lag"]["known"] == true
            && second["lag"]["segments"] == 0
            && second["backups_wanted"] == 0;
        is_there.then_some(second)
    })
}

/// Both archives hold the same WAL and the same backups, byte for byte.
fn assert_same(one: &Path, other: &Path) {
    for folder in ["wal_005", "basebackups_005"] {
        shell(&format!(
            "diff -r {} {}",
            one.join(folder).display(),
            other.join(folder).display()
        ));
    }
}

fn rows(cluster: &Cluster, number: u32) {
    cluster.sql(&format!(
        "insert into t select {number}, g from generate_series(1, 8000) g"
    ));
}

fn verb(options: &SidecarOptions, arguments: &[&str]) -> Exit {
    let mut command = wale_command(WALE, "wale", options);
    let output = command.args(arguments).output().expect("wale starts");
    Exit {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Restores from what `options` say into a cluster `name`, recovers, and gives both.
fn recovered(stage: &Stage, name: &str, options: &SidecarOptions) -> (Cluster, Sidecar) {
    let major = stage.cluster.server.major;
    let (cluster, options) = restore_options(&stage.sandbox, options, major, name, "");
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(LONG);
    cluster.configure(&["archive_mode = off".into()]);
    cluster.start();
    cluster.wait_promoted();
    (cluster, sidecar)
}

/// Changes a byte in the middle of an object.
fn garble(object: &Path) {
    let mut content = std::fs::read(object).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x55;
    std::fs::write(object, content).unwrap();
}

#[test]
fn a_second_that_is_dead_stops_nothing_and_has_everything_later_and_the_first_may_be_lost_then() {
    let mut stage = stage("several-dead", &[]);
    let pg = &stage.cluster;
    pg.sql("create table t (id int, v int)");
    stage.backup();
    let early = stage.archive_all();
    for number in 1..=4 {
        rows(pg, number);
        stage.archive_all();
    }
    let told = wait_until("the second to be told as dead", LONG, || {
        let told = second(&stage.sidecar);
        (told["reachable"] == false).then_some(told)
    });
    assert_eq!(told["state"], "failing", "{told}");
    assert!(told["lag"]["segments"].as_u64() >= Some(5), "{told}");
    assert!(told["last_failure"]["message"].as_str().is_some(), "{told}");
    let metrics = stage.sidecar.get("/metrics").text();
    assert!(
        metrics.contains("wale_archive_reachable{archive=\"2\"} 0"),
        "{metrics}"
    );
    assert_eq!(
        stage.sidecar.get("/readyz").status,
        200,
        "readiness is the first's"
    );
    // What was archived goes from pg_wal, and the sidecar that knew of it dies.
    pg.sql("checkpoint");
    rows(pg, 5);
    stage.archive_all();
    pg.sql("checkpoint");
    wait_until("PostgreSQL to recycle WAL", LONG, || {
        (!pg.wal.join(&early).exists()).then_some(())
    });
    let log = stage.sidecar.log_text();
    let said = log
        .matches("archive 2 cannot be brought up to date")
        .count();
    assert_eq!(said, 1, "said once: {log}");
    stage.sidecar.kill();
    stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
    stage.sidecar.wait_ready(LONG);

    let _ = stage.sandbox.folder("second");
    wait_caught_up(&stage.sidecar);
    assert_same(&stage.archive(), &second_folder(&stage));
    rows(&stage.cluster, 6);
    stage.archive_all();
    let following = wait_caught_up(&stage.sidecar);
    assert_eq!(following["conflicts_count"], 0, "{following}");
    assert_same(&stage.archive(), &second_folder(&stage));
    let metrics = stage.sidecar.get("/metrics").text();
    for line in [
        "wale_archive_lag_segments{archive=\"2\"} 0",
        "wale_archive_reachable{archive=\"2\"} 1",
        "wale_archive_lag_known{archive=\"2\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    first_is_lost(stage);
}

/// The second restores alone; with both set a restore takes it by itself, and the end of the WAL waits for a word.
fn first_is_lost(mut stage: Stage) {
    let expected = fingerprint(&stage.cluster, "t");
    let last = stage.archive_all();
    wait_caught_up(&stage.sidecar);
    stage.cluster.kill();
    stage.sidecar.kill();
    shell(&format!("mv {} {0}-gone", stage.archive().display()));

    let alone = stage.options.clone().set("WALE_ARCHIVE", "2");
    let (restored, sidecar) = recovered(&stage, "alone", &alone);
    assert_eq!(fingerprint(&restored, "t"), expected);
    restored.kill();
    drop(sidecar);

    let major = stage.cluster.server.major;
    let (cluster, options) = restore_options(&stage.sandbox, &stage.options, major, "both", "");
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(LONG);
    let log = sidecar.log_text();
    assert!(
        log.contains("the restore from archive 2 alone succeeded"),
        "{log}"
    );
    assert_eq!(sidecar.get(&format!("/wal/{last}")).status, 200);
    // The first had whatever was acknowledged: where it ends nobody knows but it.
    let absent = sidecar.get("/wal-absent/00000001000000000000FFFF");
    assert_eq!(absent.status, 503, "{}", absent.text());
    assert!(
        absent.text().contains("WALE_ARCHIVE=2"),
        "{}",
        absent.text()
    );
    drop(sidecar);
    let settled = options
        .set("START_MODE", "CONTINUOUS_BACKUP")
        .set("WALE_ARCHIVE", "2");
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &settled);
    sidecar.wait_ready(LONG);
    cluster.configure(&["archive_mode = off".into()]);
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(fingerprint(&cluster, "t"), expected);
    cluster.kill();
}

#[test]
fn what_is_damaged_or_missing_in_the_first_comes_from_the_second() {
    let mut stage = stage("several-damage", &[]);
    let _ = stage.sandbox.folder("second");
    stage.cluster.sql("create table t (id int, v int)");
    let reply = stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let segments = [1, 2, 3, 4].map(|number| {
        rows(&stage.cluster, number);
        stage.archive_all()
    });
    wait_caught_up(&stage.sidecar);
    let expected = fingerprint(&stage.cluster, "t");
    stage.cluster.kill();
    stage.sidecar.kill();
    let object = |name: &str| stage.archive().join(format!("wal_005/{name}.zst"));
    garble(&object(&segments[1]));
    std::fs::remove_file(object(&segments[2])).unwrap();
    let parts = shell(&format!(
        "find {}/basebackups_005 -name 'part_*' | sort",
        stage.archive().display()
    ));
    let part = PathBuf::from(parts.lines().next().expect("a part"));

    // A part that is missing is taken from the second, and so is the WAL.
    let kept = std::fs::read(&part).unwrap();
    std::fs::remove_file(&part).unwrap();
    let (restored, sidecar) = recovered(&stage, "missing", &stage.options);
    assert_eq!(fingerprint(&restored, "t"), expected);
    let log = sidecar.log_text();
    assert!(log.contains("WAL is taken from archive 2"), "{log}");
    restored.kill();
    drop(sidecar);

    // One that is damaged is found when it is read, and comes from the second, in which another one is damaged.
    std::fs::write(&part, &kept).unwrap();
    garble(&part);
    garble_another(&stage, &part, parts.lines().last().expect("a part"));
    let data = stage.sandbox.path().join("by-verb");
    let data = data.display().to_string();
    let fetched = verb(&stage.options, &["backup-fetch", &data, "LATEST"]);
    assert_eq!(fetched.code(), 0, "{}", fetched.stderr);
    assert!(
        fetched
            .stderr
            .contains("a damaged object was taken whole from another archive"),
        "{}",
        fetched.stderr
    );
    // Each by itself.
    let to = stage
        .sandbox
        .path()
        .join("one-segment")
        .display()
        .to_string();
    for (archive, code) in [("1", 65), ("2", 0)] {
        let words = ["--archive", archive, "wal-fetch", &segments[1], &to];
        let fetched = verb(&stage.options, &words);
        assert_eq!(
            fetched.code(),
            code,
            "archive {archive}: {}",
            fetched.stderr
        );
    }
    std::fs::write(&part, &kept).unwrap();
    let direct = restored_without_a_sidecar(&stage);
    assert_eq!(fingerprint(&direct, "t"), expected);
}

/// Changes a byte in an object of the second archive that is not the one of the first.
fn garble_another(stage: &Stage, one: &Path, other: &str) {
    assert_ne!(Path::new(other), one);
    let below = Path::new(other).strip_prefix(stage.archive()).unwrap();
    garble(&second_folder(stage).join(below));
}

/// By the verb, after which the server fetches its WAL itself: it knows all archives, too.
fn restored_without_a_sidecar(stage: &Stage) -> Cluster {
    let major = stage.cluster.server.major;
    let cluster = Cluster::at(&stage.sandbox, major, "direct", free_port());
    let _ = stage.sandbox.folder("direct");
    let mut options = stage.options.clone();
    for name in ["PGDATA", "PGWAL", "PGPORT", "PGHOST", "WALE_LISTEN_PORT"] {
        options = options.unset(name);
    }
    let data = cluster.data.to_string_lossy().into_owned();
    let words = ["restore", "--latest", "--wal-from", "archive", &data];
    let exit = verb(&options, &words);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    cluster.configure(&["archive_mode = off".into()]);
    cluster.start();
    cluster.wait_promoted();
    cluster
}

#[test]
fn a_mistake_in_the_second_s_settings_stops_nothing_of_the_first() {
    let stage = stage(
        "several-mistake",
        &[
            ("WALE_FILE_PREFIX_2", ""),
            ("WALE_S3_PREFIX_2", "s3://bucket/path"),
            ("AWS_REGION_2", "us-east-1"),
            ("AWS_ACCESS_KEY_ID_2", "id"),
            ("AWS_SECRET_ACCESS_KEY_FILE_2", "/run/secrets/that-is-gone"),
        ],
    );
    stage.archive_all();
    let reply = stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = wait_until("it to be told", LONG, || {
        let told = second(&stage.sidecar);
        (told["state"] == "failing").then_some(told)
    });
    assert_eq!(told["reachable"], false, "{told}");
    let message = told["last_failure"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("AWS_SECRET_ACCESS_KEY_FILE_2"), "{told}");
    let metrics = stage.sidecar.get("/metrics").text();
    assert!(
        metrics.contains("wale_archive_reachable{archive=\"2\"} 0"),
        "{metrics}"
    );
    let log = stage.sidecar.log_text();
    assert!(log.contains("archive 2 gets nothing"), "{log}");
    let shown = verb(&stage.options, &["config", "show"]);
    assert_eq!(shown.code(), 78, "{}", shown.stderr);
}

#[test]
fn a_bound_on_the_lag_stops_pushes_and_lets_them_go_on() {
    let stage = stage("several-bound", &[("WALE_MAX_ARCHIVE_LAG", "5s")]);
    let _ = stage.sandbox.folder("second");
    stage.cluster.sql("create table t (id int, v int)");
    rows(&stage.cluster, 1);
    stage.archive_all();
    wait_caught_up(&stage.sidecar);
    let away = |from: &str, to: &str| {
        let path = stage.sandbox.path().display();
        shell(&format!("mv {path}/{from} {path}/{to}"));
    };
    away("second", "away");
    rows(&stage.cluster, 2);
    let archived = stage.archive_all();
    let refused = wait_until("a push to be refused", LONG, || {
        let reply = stage.sidecar.get(&format!("/wal-push/{archived}"));
        reply.text().contains("lags").then_some(reply)
    });
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(
        refused.text().contains("WALE_MAX_ARCHIVE_LAG"),
        "{}",
        refused.text()
    );
    rows(&stage.cluster, 3);
    let waiting = stage.cluster.switch_wal();
    let asked = format!("select last_failed_wal >= '{archived}' from pg_stat_archiver");
    wait_until("PostgreSQL to be refused", LONG, || {
        (stage.cluster.sql(&asked) == "t").then_some(())
    });
    let held = stage.archive().join(format!("wal_005/{waiting}.zst"));
    assert!(!held.exists(), "nothing was archived meanwhile");
    away("away", "second");
    // PostgreSQL repeats a failed command after a minute at most.
    wait_until("PostgreSQL to hand it over again", LONG, || {
        held.exists().then_some(())
    });
    stage.cluster.wait_archived();
    wait_caught_up(&stage.sidecar);
    assert_same_wal(&stage.archive(), &second_folder(&stage));
}

fn assert_same_wal(one: &Path, other: &Path) {
    let [one, other] = [one, other].map(|folder| folder.join("wal_005").display().to_string());
    shell(&format!("diff -r {one} {other}"));
}

#[test]
fn each_archive_keeps_what_its_own_retention_says() {
    let stage = stage(
        "several-retention",
        &[
            ("WALE_RETAIN_BACKUPS", "1"),
            ("WALE_RETAIN_BACKUPS_2", "2"),
            ("WALE_RETAIN_REQUEST_INTERVAL", "0"),
            ("WALE_RETAIN_REQUEST_INTERVAL_2", "0"),
        ],
    );
    let _ = stage.sandbox.folder("second");
    stage.cluster.sql("create table t (id int, v int)");
    for number in 1..=3 {
        rows(&stage.cluster, number);
        let reply = stage.sidecar.get("/backup-push");
        assert_eq!(reply.status, 200, "{}", reply.text());
        wait_caught_up(&stage.sidecar);
    }
    let names = |archive: &[&str]| {
        let exit = verb(&stage.options, &[archive, &["backup-list"]].concat());
        assert_eq!(exit.code(), 0, "{}", exit.stderr);
        let lines = exit.stdout.lines().skip(1);
        let names = lines.map(|line| line.split_whitespace().next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let two = wait_until("both retentions", LONG, || {
        let (one, two) = (names(&["--archive", "1"]), names(&["--archive", "2"]));
        let has_newest = one.first().is_some_and(|newest| two.contains(newest));
        (one.len() == 1 && two.len() == 2 && has_newest).then_some(two)
    });
    assert_eq!(names(&[]), two, "a list shows what any of them has");
    // Another round of each changes nothing: what goes from one is not brought again.
    let before = shell(&format!(
        "cd {} && find . -type f | sort",
        second_folder(&stage).display()
    ));
    stage.archive_all();
    wait_caught_up(&stage.sidecar);
    for backup in &two {
        assert!(before.contains(backup), "{before}");
    }
    assert_eq!(names(&["--archive", "2"]), two);
}

#[test]
fn one_place_twice_is_refused_and_one_under_two_names_is_told() {
    let sandbox = Sandbox::new("several-same");
    let folder = sandbox.folder("archive").display().to_string();
    let options = SidecarOptions {
        environment: [
            ("WALE_FILE_PREFIX".to_owned(), folder.clone()),
            (
                "WALE_PREFIX_2".to_owned(),
                format!("file://localhost{folder}/"),
            ),
        ]
        .into(),
        port: free_port(),
        as_postgres: true,
    };
    let exit = verb(&options, &["config", "show"]);
    assert_eq!(exit.code(), 78, "{}", exit.stderr);
    assert!(
        exit.stderr
            .contains("archives 1 and 2 are at the same place"),
        "{}",
        exit.stderr
    );

    let stage = stage("several-link", &[]);
    let path = stage.sandbox.path().display();
    shell(&format!("ln -s {path}/archive {path}/second"));
    stage.archive_all();
    let told = wait_until("the place to be told", LONG, || {
        let told = second(&stage.sidecar);
        told["last_failure"]["message"].is_string().then_some(told)
    });
    let message = told["last_failure"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("the archive itself"), "{told}");
}

#[test]
fn other_bytes_in_the_second_are_told_and_stay() {
    let stage = stage("several-conflict", &[]);
    let _ = stage.sandbox.folder("second");
    stage.cluster.sql("create table t (id int, v int)");
    stage.archive_all();
    wait_caught_up(&stage.sidecar);
    // Behind the beginning of a segment, where the position names the one before.
    stage.cluster.sql("insert into t values (0, 0)");
    let next = stage
        .cluster
        .sql("select pg_walfile_name(pg_current_wal_lsn())");
    let object = second_folder(&stage).join(format!("wal_005/{next}.zst"));
    std::fs::write(&object, "of somebody else").unwrap();
    rows(&stage.cluster, 1);
    stage.archive_all();
    let told = wait_until("the conflict to be told", LONG, || {
        let told = second(&stage.sidecar);
        (told["conflicts_count"] == 1).then_some(told)
    });
    assert!(
        told["conflicts"][0]
            .as_str()
            .unwrap_or_default()
            .contains(&next),
        "{told}"
    );
    assert_eq!(std::fs::read(&object).unwrap(), b"of somebody else");
    let note = second_folder(&stage).join("wale_disputed.json");
    // An empty one was stored before.
    wait_until("the note of it", LONG, || {
        let note = std::fs::read_to_string(&note).ok()?;
        note.contains(&next).then_some(())
    });
    let metrics = stage.sidecar.get("/metrics").text();
    assert!(
        metrics.contains("wale_archive_conflicts{archive=\"2\"} 1"),
        "{metrics}"
    );
}

#[test]
fn a_second_in_s3_that_comes_and_goes_gets_everything_and_restores_alone() {
    let sandbox = Sandbox::new("several-s3-server");
    let server = S3Server::moto(&sandbox);
    let proxy = FaultProxy::start(server.port());
    let cluster = ClusterOptions {
        segment_mib: 1,
        ..ClusterOptions::default()
    };
    let mut stage = Stage::with("several-s3", &cluster, |mut options| {
        for (name, value) in S3Server::settings(proxy.port(), "a/path") {
            options = options.set(&format!("{name}_2"), &value);
        }
        options
    });
    stage.cluster.sql("create table t (id int, v int)");
    rows(&stage.cluster, 1);
    stage.archive_all();
    wait_caught_up(&stage.sidecar);
    proxy.partition(Partition::Refuse);
    stage.backup();
    for number in 2..=4 {
        rows(&stage.cluster, number);
        stage.archive_all();
    }
    wait_until("the second to be told as away", LONG, || {
        (second(&stage.sidecar)["reachable"] == false).then_some(())
    });
    proxy.heal();
    // The backup was taken by a verb, of which PostgreSQL's backup history file tells the sidecar.
    wait_until("the second archive to have everything", LONG, || {
        let has_backup = !server.objects_with("sentinel").is_empty();
        let lag = &second(&stage.sidecar)["lag"];
        (has_backup && lag["segments"] == 0).then_some(())
    });
    let expected = fingerprint(&stage.cluster, "t");
    stage.cluster.kill();
    stage.sidecar.kill();
    assert_eq!(server.unfinished(), 0);
    let alone = stage.options.clone().set("WALE_ARCHIVE", "2");
    let (restored, _sidecar) = recovered(&stage, "alone", &alone);
    assert_eq!(fingerprint(&restored, "t"), expected);
    restored.kill();
}
