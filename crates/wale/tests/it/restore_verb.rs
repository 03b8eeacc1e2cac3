//! `wale restore`: the plan first, every kind of target to exact rows, a copy beside production, and what is refused.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use wale_testkit::{
    Cluster, Exit, Sidecar, SidecarOptions, free_port, run_as_postgres, wait_until, wale_command,
};

use crate::s3_stage::S3Stage;
use crate::support::{Stage, WALE, on_every_major};

const LONG: Duration = Duration::from_secs(120);

/// The archive's settings and no server's: what a host has on which somebody restores.
pub(crate) fn host(stage: &Stage) -> SidecarOptions {
    let mut options = stage.options.clone();
    for name in ["PGDATA", "PGWAL", "PGPORT", "PGHOST", "WALE_LISTEN_PORT"] {
        options = options.unset(name);
    }
    options
}

pub(crate) fn restore(options: &SidecarOptions, arguments: &[&str]) -> Exit {
    let mut all = vec!["restore"];
    all.extend_from_slice(arguments);
    run(options, &all)
}

fn run(options: &SidecarOptions, arguments: &[&str]) -> Exit {
    let output = wale_command(WALE, "wale", options)
        .args(arguments)
        .output()
        .expect("wale starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Exit {
        status: output.status,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// Restores into a new directory by the verb, which must succeed, and gives the cluster a port of its own.
fn restored(stage: &Stage, name: &str, arguments: &[&str]) -> Cluster {
    let major = stage.cluster.server.major;
    let cluster = Cluster::at(&stage.sandbox, major, name, free_port());
    let _ = stage.sandbox.folder(name);
    let data = cluster.data.to_string_lossy().into_owned();
    let mut all = arguments.to_vec();
    all.push(&data);
    let exit = restore(&host(stage), &all);
    assert_eq!(exit.code(), 0, "{name}: {}", exit.stderr);
    cluster.configure(&["archive_mode = off".into()]);
    cluster
}

pub(crate) fn plan(options: &SidecarOptions, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["--dry-run", "--json"]);
    let exit = restore(options, &all);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    serde_json::from_str(&exit.stdout).unwrap_or_else(|e| panic!("{e}: {}", exit.stdout))
}

fn count(cluster: &Cluster) -> String {
    cluster.sql("select count(*) from t")
}

/// Every kind of target, by `wale wal-fetch` without a sidecar, to exact rows; nothing is added by hand.
#[test]
fn every_target_is_reached_by_the_verb_alone_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("verb{major}"), major);
        let pg = &stage.cluster;
        pg.sql("create table t (v int); insert into t values (1)");
        stage.backup();
        pg.sql("insert into t values (2)");
        pg.sql("select pg_sleep(0.1)");
        let time = pg.sql("select clock_timestamp()");
        pg.sql("select pg_sleep(0.1)");
        pg.sql("insert into t values (3)");
        pg.sql("select pg_create_restore_point('after three')");
        pg.sql("insert into t values (4)");
        let xid = pg.sql("insert into t select 5 returning txid_current()");
        let position = pg.sql("insert into t values (6) returning pg_current_wal_insert_lsn()");
        let now =
            "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')";
        let before = pg.sql(now);
        pg.sql("insert into t values (7)");
        let after = pg.sql(now);
        // The last segment has no commit.
        stage.archive_all();
        stage.archive_all();
        let seen = stage.sandbox.folder("seen").to_string_lossy().into_owned();
        let told = plan(&host(&stage), &[&seen]);
        let newest = told["plan"]["wal"]["newest_commit"]
            .as_str()
            .expect("a time");
        let newest = newest.trim_end_matches('Z');
        assert!(
            *before <= *newest && *newest <= *after,
            "{before} {newest} {after}"
        );
        let cases: [(&str, &[&str], &str); 6] = [
            ("time", &["--to-time", &time], "2"),
            ("name", &["--to-name", "after three"], "3"),
            ("xid", &["--to-xid", &xid, "--exclusive"], "4"),
            ("lsn", &["--to-lsn", &position], "6"),
            ("immediate", &["--immediate"], "1"),
            ("latest", &["--latest"], "7"),
        ];
        for (name, arguments, expected) in cases {
            let mut all = vec!["--action", "promote"];
            all.extend_from_slice(arguments);
            let cluster = restored(&stage, name, &all);
            cluster.start();
            cluster.wait_promoted();
            assert_eq!(count(&cluster), expected, "PostgreSQL {major}: {name}");
            cluster.kill();
        }
        standby_follows(&stage);
    });
}

/// A standby by the verb goes on with what is archived later, and is promoted on command.
fn standby_follows(stage: &Stage) {
    let standby = restored(stage, "standby", &["--as-standby"]);
    standby.configure(&[
        "hot_standby = on".into(),
        "wal_retrieve_retry_interval = 200ms".into(),
    ]);
    standby.start();
    stage.cluster.sql("insert into t values (8)");
    stage.archive_all();
    wait_until("the standby to follow", LONG, || {
        (standby.try_sql("select count(*) from t").ok()? == "8").then_some(())
    });
    standby.promote();
    assert_eq!(count(&standby), "8");
}

/// What the plan says, before anything is written.
#[test]
fn the_plan_says_which_backup_wal_space_and_settings_and_a_dry_run_writes_nothing() {
    let stage = Stage::new("verb-plan", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int)");
    stage.backup();
    pg.sql("insert into t values (1)");
    pg.sql("select pg_sleep(1.1)");
    let time = pg.sql("select clock_timestamp()");
    pg.sql("select pg_sleep(1.1)");
    pg.sql("insert into t values (2)");
    stage.backup();
    pg.sql("insert into t values (3)");
    let last = stage.archive_all();
    let folder = stage.sandbox.folder("nothing");
    let data = folder.to_string_lossy().into_owned();
    let options = host(&stage);

    let told = plan(&options, &["--to-time", &time, &data]);
    let told = &told["plan"];
    let wal = &told["wal"];
    assert_eq!(wal["last"], Value::String(last), "{told:#}");
    assert_eq!(wal["gap"], Value::Null);
    assert_eq!(told["target"]["reached"], "yes", "{told:#}");
    assert_eq!(
        told["passed_over"].as_array().map(Vec::len),
        Some(1),
        "{told:#}"
    );
    assert!(
        wal["newest_commit"]
            .as_str()
            .is_some_and(|time| time.starts_with("20"))
    );
    assert!(told["bytes_to_read"].as_u64() > Some(1000), "{told:#}");
    assert!(told["space"][0]["free_bytes"].as_u64() > told["space"][0]["need_bytes"].as_u64());
    let command = told["recovery_settings"]["restore_command"].as_str();
    assert!(
        command.is_some_and(|command| command.contains("wal-fetch %f")),
        "{told:#}"
    );
    assert_eq!(told["recovery_files"][1], "recovery.signal");

    says_what_is_beyond(&stage, &data);

    // For a person, in a hundred columns.
    let exit = restore(&options, &["--dry-run", "--rehearsal", &data]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    for line in exit.stdout.lines() {
        let is_path = line.split_whitespace().any(|word| word.len() > 80);
        assert!(line.chars().count() <= 100 || is_path, "{line}");
    }
    assert!(
        exit.stdout.contains("archive_mode = 'off'"),
        "{}",
        exit.stdout
    );
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        0,
        "nothing is written"
    );
}

/// A target later than all commits, and one beyond the last position.
fn says_what_is_beyond(stage: &Stage, data: &str) {
    let options = host(stage);
    let late = stage.cluster.sql("select clock_timestamp()");
    let told = plan(&options, &["--to-time", &late, data]);
    assert_eq!(told["plan"]["target"]["reached"], "no", "{told:#}");
    assert!(
        told["plan"]["warnings"]
            .to_string()
            .contains("beyond the archive"),
        "{told:#}"
    );
    let told = plan(&options, &["--to-lsn", "7F/0", data]);
    assert_eq!(told["plan"]["target"]["reached"], "no", "{told:#}");
}

/// A segment is missing after the backup: the plan names it, and what lies before it is reached.
#[test]
fn missing_wal_is_named_in_the_plan() {
    let stage = Stage::new("verb-gap", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int)");
    stage.backup();
    pg.sql("insert into t values (1)");
    let position = pg.sql("select pg_current_wal_lsn()");
    stage.archive_all();
    pg.sql("insert into t values (2)");
    let gone = stage.archive_all();
    pg.sql("insert into t values (3)");
    stage.archive_all();
    let object = stage.archive().join(format!("wal_005/{gone}.zst"));
    std::fs::remove_file(&object).unwrap();
    let data = stage.sandbox.folder("gap").to_string_lossy().into_owned();
    let told = plan(&host(&stage), &["--latest", &data]);
    let gap = &told["plan"]["wal"]["gap"];
    assert_eq!(gap["from"], Value::String(gone.clone()), "{told:#}");
    assert_eq!(gap["segments"], 1);
    assert!(
        told["plan"]["warnings"].to_string().contains(&gone),
        "{told:#}"
    );
    // Nobody who ends before it is troubled.
    let told = plan(&host(&stage), &["--to-lsn", &position, &data]);
    assert_eq!(told["plan"]["wal"]["gap"], Value::Null, "{told:#}");
    assert_ne!(told["plan"]["target"]["reached"], "no", "{told:#}");
}

/// A copy runs beside production and touches nothing of it.
#[test]
fn a_rehearsal_beside_production_changes_nothing_there_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("rehearsal{major}"), major);
        let pg = &stage.cluster;
        pg.configure(&["synchronous_standby_names = ''".into()]);
        pg.sql("create table t (v int); insert into t values (1)");
        stage.backup();
        let position = pg.sql("select pg_current_wal_lsn()");
        pg.sql("insert into t values (2)");
        stage.archive_all();
        let port = free_port();
        let mut copy = Cluster::at(&stage.sandbox, major, "copy", port);
        // The copy has production's folder of sockets, and another port.
        copy.socket.clone_from(&pg.socket);
        let data = stage.sandbox.folder("copy").to_string_lossy().into_owned();
        let text = port.to_string();
        let exit = restore(
            &host(&stage),
            &[
                "--rehearsal",
                "--port",
                &text,
                "--to-lsn",
                &position,
                "--action",
                "promote",
                &data,
            ],
        );
        assert_eq!(exit.code(), 0, "{}", exit.stderr);
        assert!(
            exit.stdout.contains(&format!("-p {port}")),
            "{}",
            exit.stdout
        );
        let before = stage.wal_objects();
        copy.start();
        copy.wait_promoted();
        assert_eq!(count(&copy), "1", "PostgreSQL {major}");
        for (setting, expected) in [
            ("archive_mode", "off"),
            ("listen_addresses", "localhost"),
            ("max_logical_replication_workers", "0"),
        ] {
            assert_eq!(
                copy.sql(&format!("show {setting}")),
                expected,
                "PostgreSQL {major}"
            );
        }
        leaves_the_archive_alone(&stage, &copy, &before);
        // Production goes on, and archives.
        pg.sql("insert into t values (3)");
        stage.archive_all();
        assert_eq!(count(pg), "3");
        assert_ne!(stage.wal_objects(), before);
    });
}

/// What the copy writes is not archived, and no base backup is taken of it.
fn leaves_the_archive_alone(stage: &Stage, copy: &Cluster, before: &str) {
    let data = copy.data.to_string_lossy().into_owned();
    copy.sql("insert into t values (9)");
    copy.switch_wal();
    copy.sql("checkpoint");
    assert_eq!(
        stage.wal_objects(),
        before,
        "nothing of the copy is archived"
    );
    // A base backup of it would be the next restore's.
    let there = host(stage)
        .set("PGHOST", &copy.socket.to_string_lossy())
        .set("PGPORT", &copy.port.to_string());
    let refused = run(&there, &["backup-push", &data]);
    assert_eq!(refused.code(), 78, "{}", refused.stderr);
    assert!(refused.stderr.contains("rehearsal"), "{}", refused.stderr);
}

/// The first recovery left a timeline. `latest` follows it, and the first one's own is followed when it is named.
#[test]
fn a_target_across_a_switch_of_timelines_and_one_before_it() {
    let stage = Stage::new("verb-timelines", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int); insert into t values (1)");
    stage.backup();
    let position = pg.sql("select pg_current_wal_lsn()");
    pg.sql("insert into t values (2)");
    stage.archive_all();
    // In production's place: it archives on timeline 2.
    let (second, _sidecar) = stage.restore(
        "second",
        &format!("recovery_target_lsn = '{position}'\nrecovery_target_action = 'promote'"),
        &[],
    );
    second.start();
    second.wait_promoted();
    second.sql("insert into t values (20)");
    second.sql("insert into t values (30)");
    second.sql("select pg_sleep(0.1)");
    let time = second.sql("select clock_timestamp()");
    second.sql("select pg_sleep(0.1)");
    second.sql("insert into t values (40)");
    crate::support::archive_all(&second);

    let across = restored(
        &stage,
        "across",
        &["--to-time", &time, "--action", "promote"],
    );
    across.start();
    across.wait_promoted();
    let rows = "select string_agg(v::text, ' ' order by v) from t";
    assert_eq!(across.sql(rows), "1 20 30");
    let data = stage.sandbox.folder("seen").to_string_lossy().into_owned();
    let told = plan(&host(&stage), &["--timeline", "1", &data]);
    assert_eq!(told["plan"]["timelines"]["followed"], 1, "{told:#}");
    assert_eq!(
        told["plan"]["timelines"]["known"],
        serde_json::json!([1, 2])
    );
    let stayed = restored(&stage, "stayed", &["--timeline", "1"]);
    stayed.start();
    stayed.wait_promoted();
    assert_eq!(stayed.sql(rows), "1 2");
}

/// RESTORE by settings of its own, beside what `RECOVERY_ADDITION` says.
#[test]
fn restore_mode_takes_its_target_from_settings() {
    let stage = Stage::new("verb-settings", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int); insert into t values (1)");
    stage.backup();
    pg.sql("select pg_sleep(0.1)");
    let time = pg.sql("select clock_timestamp()");
    pg.sql("select pg_sleep(0.1)");
    pg.sql("insert into t values (2)");
    stage.archive_all();
    let (cluster, options) = stage.restore_options("restored", "");
    let options = options
        .set("WALE_RESTORE_TO_TIME", &time)
        .set("WALE_RESTORE_ACTION", "promote");
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(LONG);
    let log = sidecar.log_text();
    assert!(log.contains("the plan of the restore"), "{log}");
    cluster.configure(&["archive_mode = off".into()]);
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(count(&cluster), "1");
    // The same request restores nothing again.
    drop(sidecar);
    let again = Sidecar::start(&stage.sandbox, WALE, &options);
    again.wait_ready(LONG);
    assert!(again.log_text().contains("already-restored"));
}

/// Arguments and settings, the status, and words of the message.
type MistakenRequest<'a> = (Vec<&'a str>, Vec<(&'a str, &'a str)>, i32, &'a str);

fn mistakes(tomorrow: &str) -> [MistakenRequest<'_>; 10] {
    [
        (
            vec!["--rehearsal"],
            vec![("RECOVERY_ADDITION", "primary_conninfo = 'host=/nowhere'")],
            78,
            "cannot have primary_conninfo",
        ),
        (
            vec!["--to-time", "2026-11-23 14:00:00"],
            vec![],
            64,
            "no time zone",
        ),
        (
            vec!["--to-time", "2026-13-23 14:00:00+00"],
            vec![],
            64,
            "13",
        ),
        (
            vec!["--to-lsn", "0/3", "--to-xid", "7"],
            vec![],
            64,
            "cannot be used",
        ),
        (vec!["--port", "5433"], vec![], 64, "--rehearsal"),
        (vec!["--to-time", tomorrow], vec![], 78, "in the future"),
        (
            vec!["--to-time", "2001-01-01 00:00:00+00"],
            vec![],
            78,
            "oldest backup",
        ),
        (
            vec!["--to-time", "2026-07-23 14:00:00 CEST"],
            vec![],
            78,
            "--to-time",
        ),
        (
            vec!["--to-xid", "7"],
            vec![("RECOVERY_ADDITION", "recovery_target_lsn = '0/5000000'")],
            78,
            "said twice",
        ),
        (
            vec![],
            vec![("WALE_RESTORE_TO_TIME", "2026-11-23 14:00:00")],
            78,
            "WALE_RESTORE_TO_TIME",
        ),
    ]
}

/// Mistakes are refused before anything is written, with what to write instead.
#[test]
fn mistakes_are_refused_before_the_first_write() {
    let stage = Stage::new("verb-mistakes", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int)");
    stage.backup();
    stage.archive_all();
    let folder = stage.sandbox.folder("empty");
    let data = folder.to_string_lossy().into_owned();
    let options = host(&stage);
    let tomorrow = pg.sql("select now() + interval '1 day'");
    for (arguments, environment, status, words) in mistakes(&tomorrow) {
        let mut with = options.clone();
        for (name, value) in environment {
            with = with.set(name, value);
        }
        let mut all = arguments.clone();
        all.push(&data);
        let exit = restore(&with, &all);
        assert_eq!(exit.code(), status, "{arguments:?}: {}", exit.stderr);
        assert!(
            exit.stderr.contains(words),
            "{arguments:?}: {}",
            exit.stderr
        );
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    // A directory that holds something, and one that a server runs on.
    std::fs::write(folder.join("notes"), "x").unwrap();
    let exit = restore(&options, &[&data]);
    assert_eq!(exit.code(), 73, "{}", exit.stderr);
    assert!(
        exit.stderr.contains("notes") && exit.stderr.contains("HINT"),
        "{}",
        exit.stderr
    );
    let running = pg.data.to_string_lossy().into_owned();
    assert_eq!(restore(&options, &[&running]).code(), 73);
    sidecar_refuses_two_targets(&stage);
}

fn sidecar_refuses_two_targets(stage: &Stage) {
    let (_cluster, options) = stage.restore_options("two", "recovery_target_xid = '7'");
    let options = options.set("WALE_RESTORE_TO_LSN", "0/5000000");
    let mut sidecar = Sidecar::launch(&stage.sandbox, WALE, &options);
    let status = sidecar.wait_exit(LONG);
    assert_eq!(status.code(), Some(78), "{}", sidecar.log_text());
    assert!(
        sidecar.log_text().contains("said twice"),
        "{}",
        sidecar.log_text()
    );
}

/// A tablespace elsewhere, the WAL in a directory of its own, and the settings that a base backup must not have.
#[test]
fn tablespaces_and_wal_go_where_the_request_says() {
    let stage = Stage::new("verb-places", 15);
    let pg = &stage.cluster;
    let old = stage.sandbox.folder("old");
    pg.sql(&format!(
        "create tablespace elsewhere location '{}'",
        old.display()
    ));
    pg.sql("create table t tablespace elsewhere as select generate_series(1, 100) v");
    stage.backup();
    stage.archive_all();
    let (new, wal) = (stage.sandbox.folder("new"), stage.sandbox.folder("wal"));
    let mapping = format!("{}={}", old.display(), new.display());
    let wal_text = wal.to_string_lossy().into_owned();
    let cluster = restored(&stage, "placed", &["-T", &mapping, "--wal-dir", &wal_text]);
    assert!(cluster.data.join("pg_wal").is_symlink());
    let settings = cluster.data.join("wale_restore_settings.conf");
    let mode = std::os::unix::fs::PermissionsExt::mode(&settings.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(count(&cluster), "100");
    assert!(new.read_dir().unwrap().next().is_some());
    // The directory is the server's now.
    let data = cluster.data.to_string_lossy().into_owned();
    cluster.stop("fast");
    let exit = restore(&host(&stage), &["-T", &mapping, &data]);
    assert_eq!(exit.code(), 73, "{}", exit.stderr);
    run_as_postgres(Path::new("test"), &["-f", &settings.to_string_lossy()]);
}

/// What is printed at the end is run as it is printed: it starts the copy, looks, ends the recovery, and stops the copy.
/// The WAL comes from production's sidecar, as where the verb runs in its container.
#[test]
fn the_commands_that_are_printed_do_what_they_say() {
    let stage = Stage::new("verb-next", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int); insert into t values (1)");
    stage.backup();
    let position = pg.sql("select pg_current_wal_lsn()");
    pg.sql("insert into t values (2)");
    stage.archive_all();
    let port = free_port();
    let folder = stage.sandbox.folder("my copy");
    let data = folder.to_string_lossy().into_owned();
    let options = stage
        .options
        .clone()
        .set("WALE_SIDECAR_HOSTNAME", "127.0.0.1");
    let text = port.to_string();
    let exit = restore(
        &options,
        &[
            "--rehearsal",
            "--port",
            &text,
            "--to-lsn",
            &position,
            "--json",
            &data,
        ],
    );
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    let told: Value = serde_json::from_str(&exit.stdout).expect("one document");
    let command = &told["plan"]["recovery_settings"]["restore_command"];
    assert!(command.to_string().contains("/wal-absent/"), "{command}");
    assert!(!folder.join("wale_restore_settings.conf").exists());
    let next = told["result"]["next"].as_array().expect("steps");
    let commands: Vec<&str> = next
        .iter()
        .filter_map(Value::as_str)
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(commands.len(), 4, "{next:?}");
    let path = format!(
        "{}:/usr/local/bin:/usr/bin:/bin",
        pg.server
            .program("pg_ctl")
            .parent()
            .expect("a folder")
            .display()
    );
    let run = |line: &str| {
        let script = format!(
            "export PATH='{path}' PGHOST='{}'\n{line}",
            pg.socket.display()
        );
        run_as_postgres(Path::new("sh"), &["-ec", &script])
    };
    run(commands[0]);
    let rows = |expected: &str| {
        let line = format!("psql -X -A -t -d postgres -p {port} -c 'select count(*) from t'");
        let check = format!("test \"$({line})\" = {expected}");
        run(&check);
    };
    // It waits at its target.
    run(commands[1]);
    rows("1");
    run(commands[2]);
    rows("1");
    run(commands[3]);
    assert!(!folder.join("postmaster.pid").exists());
    assert_eq!(count(pg), "2");
}

/// The file that holds the archive's settings, its secrets among them, is no part of a base backup.
#[test]
fn the_settings_of_the_archive_are_in_no_base_backup() {
    let stage = Stage::new("verb-secret", 15);
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    stage.archive_all();
    let cluster = restored(&stage, "restored", &[]);
    cluster.start();
    cluster.wait_promoted();
    cluster.stop("fast");
    let data = cluster.data.to_string_lossy().into_owned();
    let options = host(&stage);
    let taken = run(&options, &["backup-push", "--while-offline", &data]);
    assert_eq!(taken.code(), 0, "{}", taken.stderr);
    let start = taken.stderr.find("base_00000002").expect("its name");
    let name = &taken.stderr[start..start + "base_000000020000000000000002_00000040".len()];
    let copy = stage.sandbox.folder("fetched");
    let fetched = run(&options, &["backup-fetch", &copy.to_string_lossy(), name]);
    assert_eq!(fetched.code(), 0, "{}", fetched.stderr);
    let file = "wale_restore_settings.conf";
    assert!(cluster.data.join(file).exists());
    assert!(copy.join("PG_VERSION").exists() && !copy.join(file).exists());
}

/// An archive in S3: the server's environment has no keys, and its recovery has them from the file that the restore wrote.
#[test]
fn a_recovery_from_s3_has_its_keys_from_the_file_of_settings() {
    let s3 = S3Stage::s3s("verb-s3");
    let stage = &s3.stage;
    stage.cluster.sql("insert into t values (1)");
    stage.backup();
    stage.cluster.sql("insert into t values (2)");
    stage.archive_all();
    let cluster = restored(stage, "from-s3", &[]);
    let file = cluster.data.join("wale_restore_settings.conf");
    let text = std::fs::read_to_string(&file).expect("the settings");
    let secret = &stage.options.environment["AWS_SECRET_ACCESS_KEY"];
    assert!(text.contains(secret.as_str()), "the key is there");
    let auto = cluster.data.join("postgresql.auto.conf");
    let auto = std::fs::read_to_string(auto).expect("the recovery settings");
    assert!(!auto.contains(secret.as_str()), "{auto}");
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(count(&cluster), "2");
}
