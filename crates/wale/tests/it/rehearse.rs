//! `wale rehearse`: a restore that is tried out beside production, what it finds, and that nothing is left of it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use wale_testkit::{
    ClusterOptions, Exit, SidecarOptions, client_tool, shell, wait_until, wale_command,
};

use crate::restored_settings::load_a_stand_in;
use crate::support::{Stage, WALE, on_every_major};

const LONG: Duration = Duration::from_secs(120);
/// `pg_amcheck` takes servers from this version on.
const AMCHECK_SINCE: u32 = 14;

/// The archive's settings and no server's: what a host has on which somebody rehearses.
fn host(stage: &Stage) -> SidecarOptions {
    let mut options = stage.options.clone();
    for name in ["PGDATA", "PGWAL", "PGPORT", "PGHOST", "WALE_LISTEN_PORT"] {
        options = options.unset(name);
    }
    options
}

/// The server's programs in one folder: `postgres` of the stage's version, and Debian's others where they fit.
fn programs(stage: &Stage) -> PathBuf {
    let major = stage.cluster.server.major;
    let folder = stage.sandbox.folder("programs");
    let link = |from: &Path, name: &str| symlink(from, folder.join(name)).expect("a link");
    link(&stage.cluster.server.program("postgres"), "postgres");
    link(&client_tool("psql"), "psql");
    if major >= AMCHECK_SINCE {
        link(&client_tool("pg_amcheck"), "pg_amcheck");
    }
    let checksums = client_tool("pg_checksums");
    if checksums.starts_with(format!("/usr/lib/postgresql/{major}")) {
        link(&checksums, "pg_checksums");
    }
    folder
}

/// A rehearsal, of which what differs is said.
struct Drill<'a> {
    stage: &'a Stage,
    options: SidecarOptions,
    programs: PathBuf,
    scratch: PathBuf,
}

impl<'a> Drill<'a> {
    fn of(stage: &'a Stage) -> Self {
        // Short: the path of a socket has a bound.
        let scratch = stage.sandbox.folder("r").join("s");
        Self {
            stage,
            options: host(stage),
            programs: programs(stage),
            scratch,
        }
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = wale_command(WALE, "wale", &self.options);
        command.arg("rehearse").arg("--scratch").arg(&self.scratch);
        command.arg("--bin-dir").arg(&self.programs);
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Exit {
        let output = self.command(arguments).output().expect("wale starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Exit {
            status: output.status,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// What a rehearsal says that must end with `code`.
    fn told(&self, code: i32, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let exit = self.run(&all);
        assert_eq!(exit.code(), code, "{}\n{}", exit.stderr, exit.stdout);
        assert!(!self.scratch.exists(), "the scratch folder is removed");
        serde_json::from_str(&exit.stdout).unwrap_or_else(|e| panic!("{e}: {}", exit.stdout))
    }

    /// A file of SQL that the server's user can read.
    fn sql(&self, name: &str, text: &str) -> String {
        let path = self.stage.sandbox.folder("sql").join(name);
        std::fs::write(&path, text).expect("written");
        shell(&format!("chmod a+r {}", path.display()));
        path.to_string_lossy().into_owned()
    }

    /// Every object of the archive but records of rehearsals, with its time of change.
    fn objects(&self) -> String {
        let folder = self.stage.archive();
        shell(&format!(
            "find {} -type f ! -name '.*' ! -name wale_rehearsed.json -printf '%P %T@\\n' | sort",
            folder.display()
        ))
    }

    fn records(&self) -> usize {
        let folder = self.stage.archive();
        let found = shell(&format!(
            "find {} -name wale_rehearsed.json",
            folder.display()
        ));
        found.lines().count()
    }

    fn verb(&self, arguments: &[&str]) -> String {
        let exit = self.stage.sidecar.verb(WALE, "wale", arguments);
        assert_eq!(exit.code(), 0, "{}", exit.stderr);
        exit.stdout
    }
}

/// What came of a check.
fn outcome(told: &Value, name: &str) -> String {
    let checks = told["record"]["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no check {name}: {told:#}"));
    found["outcome"].as_str().expect("text").to_owned()
}

fn words(told: &Value, name: &str) -> String {
    let checks = told["record"]["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    found.map_or_else(String::new, |check| check["told"].to_string())
}

/// SQL whose every row is true on a copy that reaches nobody.
const CUT_OFF: &str = "select current_setting('archive_mode') = 'off';
    select current_setting('listen_addresses') = '';
    select current_setting('max_logical_replication_workers') = '0';
    select current_setting('max_worker_processes') = '0';
    select current_setting('synchronous_standby_names') = '';
    select current_setting('shared_buffers') = '64MB';
    select inet_server_addr() is null;
    insert into t values (0, 'a copy can be written');
    select count(*) = 4 from t;\n";

#[test]
fn a_good_rehearsal_is_recorded_and_leaves_production_and_its_archive_alone_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("drill{major}"), major);
        let pg = &stage.cluster;
        let space = stage.sandbox.folder("space");
        pg.sql(&format!(
            "create tablespace far location '{}'",
            space.display()
        ));
        pg.sql("create table t (id int primary key, v text); insert into t values (1, 'x')");
        pg.sql("create table there (v int) tablespace far; insert into there values (7)");
        pg.sql("alter system set listen_addresses = '*'");
        pg.sql("alter system set synchronous_standby_names = ''");
        // What is waited for has no code before it, whatever production writes.
        pg.sql("alter system set log_error_verbosity = 'verbose'");
        stage.backup();
        pg.sql("insert into t values (2, 'y'), (3, 'z')");
        let fingerprint = "select count(*) || '/' || (select sum(v) from there) from t";
        let expected = pg.sql(fingerprint);
        stage.archive_all();
        let drill = Drill::of(&stage);
        let before = drill.objects();
        let archived = "select archived_count + failed_count from pg_stat_archiver";
        let archived_before = pg.sql(archived);
        let arguments = [
            "--sql",
            &drill.sql("cut-off.sql", CUT_OFF),
            "--shared-buffers",
            "64MB",
            "--fingerprint",
            fingerprint,
        ];
        let told = drill.told(0, &arguments);
        let record = &told["record"];
        assert_eq!(record["ok"], true, "{told:#}");
        // The SQL before it has written a row.
        assert_eq!(
            (expected.as_str(), record["fingerprint"].as_str()),
            ("3/7", Some("4/7"))
        );
        assert_eq!(record["databases"], 1);
        for name in ["recovery", "amcheck", "sql", "fingerprint"] {
            assert_eq!(outcome(&told, name), "ok", "PostgreSQL {major}: {told:#}");
        }
        let has_program = drill.programs.join("pg_checksums").exists();
        let checksums = if has_program { "ok" } else { "skipped" };
        assert_eq!(outcome(&told, "checksums"), checksums, "{told:#}");
        assert!(record["newest_commit"].as_str() >= Some("20"), "{told:#}");
        assert!(record["recovery_milliseconds"].as_u64() > Some(0));
        let version = format!("PostgreSQL {major}");
        assert!(
            record["postgres_version"]
                .as_str()
                .unwrap()
                .starts_with(&version)
        );
        assert_eq!(
            (told["recorded"].as_bool(), drill.records()),
            (Some(true), 1)
        );

        assert_eq!(drill.objects(), before, "PostgreSQL {major}");
        assert_eq!(pg.sql(archived), archived_before);
        assert_eq!(pg.sql(fingerprint), expected);
        is_shown(&drill, "ok");
    });
}

/// In the words for a person, and for programs.
fn is_shown(drill: &Drill<'_>, word: &str) {
    let listed = drill.verb(&["backup-list", "--detail"]);
    assert!(listed.contains(&format!("\t{word} 20")), "{listed}");
    let listed: Value =
        serde_json::from_str(&drill.verb(&["backup-list", "--json"])).expect("JSON");
    let backups = listed.as_array().expect("backups");
    let shown = backups.iter().find(|one| !one["rehearsed"].is_null());
    assert_eq!(shown.expect("one")["rehearsed"]["ok"], word == "ok");
    let status = drill.verb(&["status"]);
    let line = status.lines().find(|line| line.starts_with("rehearsed"));
    let line = line.expect("a line").to_lowercase();
    assert!(line.contains(word), "{status}");
    assert!(
        status.lines().all(|line| line.chars().count() <= 100),
        "{status}"
    );
    let status: Value = serde_json::from_str(&drill.verb(&["status", "--json"])).expect("JSON");
    assert_eq!(status["last_rehearsal"]["record"]["ok"], word == "ok");
}

/// The record goes with its backup, is no part of it, and the sidecar shows it.
#[test]
fn a_record_is_shown_by_the_sidecar_and_goes_with_its_backup() {
    let stage = Stage::new("drill-shown", 15);
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    stage.archive_all();
    let drill = Drill::of(&stage);
    let told = drill.told(0, &["--without", "amcheck", "--immediate"]);
    assert_eq!(outcome(&told, "amcheck"), "skipped");
    let name = told["backup"].as_str().expect("a name").to_owned();
    // A backup makes the sidecar look at the archive.
    assert_eq!(stage.sidecar.get("/backup-push").status, 200);
    wait_until("the sidecar's look", LONG, || {
        let metrics = stage.sidecar.get("/metrics").text();
        metrics.contains("wale_last_rehearsal_ok 1").then_some(())
    });
    let metrics = stage.sidecar.get("/metrics").text();
    assert!(
        metrics.contains("wale_last_rehearsal_timestamp_seconds 1"),
        "{metrics}"
    );
    let status = stage.sidecar.get("/status").json();
    let shown = &status["holdings"]["last_rehearsal"];
    assert_eq!(
        (&shown["backup"], &shown["ok"]),
        (&told["backup"], &Value::Bool(true)),
        "{status}"
    );
    drill.verb(&["delete", "target", &name, "--confirm"]);
    assert_eq!(drill.records(), 0);
    assert!(drill.verb(&["status"]).contains("rehearsed    never"));
}

#[test]
fn a_seed_chooses_the_same_moment_and_the_same_backup_again() {
    let cluster = ClusterOptions {
        configuration: vec!["track_commit_timestamp = on".into()],
        ..ClusterOptions::default()
    };
    let stage = Stage::with("drill-random", &cluster, |options| options);
    let pg = &stage.cluster;
    pg.sql("create table t (v int)");
    stage.backup();
    for number in 0..20 {
        pg.sql(&format!("insert into t values ({number})"));
    }
    stage.archive_all();
    let drill = Drill::of(&stage);
    let count = ["--fingerprint", "select count(*) from t"];
    let quick = ["--without", "amcheck", "--without", "checksums"];
    let run = |more: &[&str]| {
        let mut all = [&count[..], &quick[..]].concat();
        all.extend_from_slice(more);
        drill.told(0, &all)
    };
    let first = run(&["--random", "--seed", "12"]);
    let again = run(&["--random", "--seed", "12"]);
    let record = &first["record"];
    let target = record["target"].as_str().expect("a time");
    assert_eq!(record["target"], again["record"]["target"]);
    assert_eq!(record["seed"], 12);
    assert!(
        words(&first, "recovery").contains("reached its target"),
        "{first:#}"
    );
    let until =
        format!("select count(*) from t where pg_xact_commit_timestamp(xmin) <= '{target}'");
    assert_eq!(
        record["fingerprint"].as_str(),
        Some(pg.sql(&until).as_str())
    );
    assert_eq!(record["fingerprint"], again["record"]["fingerprint"]);

    // A second backup, and some more to choose from.
    for _ in 0..3 {
        stage.backup();
    }
    stage.archive_all();
    let one = run(&["--backup", "RANDOM", "--seed", "5"]);
    let other = run(&["--backup", "RANDOM", "--seed", "5"]);
    assert_eq!(one["backup"], other["backup"]);
    let seeds = ["6", "7", "8", "9"];
    let mut chosen = seeds
        .iter()
        .map(|seed| run(&["--backup", "RANDOM", "--seed", seed]));
    assert!(
        chosen.any(|told| told["backup"] != one["backup"]),
        "always the same"
    );
}

/// An index whose order is not that of its operator class any more, as after a change of collations.
const DAMAGED_INDEX: &str = "
    create function up(int, int) returns int language sql immutable as 'select btint4cmp($1, $2)';
    create function down(int, int) returns int language sql immutable as 'select btint4cmp($2, $1)';
    create operator class strange for type int using btree as
      operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 up(int, int);
    create table d (v int); insert into d select generate_series(1, 1000);
    create index bad_index on d using btree (v strange);
    update pg_amproc set amproc = 'down'::regproc where amproc = 'up'::regproc";

#[test]
fn damage_is_found_told_and_recorded_on_every_major() {
    on_every_major(|major| {
        let cluster = ClusterOptions {
            major,
            configuration: vec!["allow_system_table_mods = on".into()],
            ..ClusterOptions::default()
        };
        let stage = Stage::with(&format!("drill-bad{major}"), &cluster, |options| options);
        stage.cluster.sql(DAMAGED_INDEX);
        stage.backup();
        stage.archive_all();
        let drill = Drill::of(&stage);
        let exit = drill.run(&[]);
        assert_eq!(exit.code(), 1, "{}\n{}", exit.stderr, exit.stdout);
        assert!(exit.stdout.contains("bad_index"), "{}", exit.stdout);
        assert!(
            exit.stdout.contains("result       FAILED"),
            "{}",
            exit.stdout
        );
        assert!(
            exit.stderr.contains("Check production the same way"),
            "{}",
            exit.stderr
        );
        assert!(!drill.scratch.exists());
        is_shown(&drill, "failed");
        // Whoever does not look finds nothing.
        let told = drill.told(0, &["--without", "amcheck"]);
        assert_eq!(outcome(&told, "amcheck"), "skipped");
    });
}

/// A page that was damaged on production's disk before the backup: the checksum tells.
#[test]
fn a_damaged_page_is_found_by_its_checksum() {
    let stage = Stage::with("drill-page", &ClusterOptions::default(), |options| {
        options.set("WALE_DAMAGED_PAGES", "record")
    });
    let pg = &stage.cluster;
    pg.sql("create table d (v text); insert into d select repeat('x', 100) from generate_series(1, 1000)");
    pg.sql("checkpoint");
    let file = pg.data.join(pg.sql("select pg_relation_filepath('d')"));
    pg.stop("fast");
    shell(&format!(
        "printf 'damaged' | dd of={} bs=1 seek=12000 conv=notrunc status=none",
        file.display()
    ));
    pg.start();
    stage.backup();
    stage.archive_all();
    let drill = Drill::of(&stage);
    if !drill.programs.join("pg_checksums").exists() {
        return wale_testkit::skip("drill-page", "Debian has no pg_checksums of PostgreSQL 15");
    }
    let told = drill.told(1, &["--without", "amcheck"]);
    assert_eq!(outcome(&told, "recovery"), "ok");
    assert_eq!(outcome(&told, "checksums"), "failed");
    let told = drill.told(1, &["--without", "checksums"]);
    assert_eq!(outcome(&told, "amcheck"), "failed", "{told:#}");
}

#[test]
fn failing_sql_and_another_fingerprint_fail_it_and_the_other_checks_are_made() {
    let stage = Stage::new("drill-sql", 15);
    stage
        .cluster
        .sql("create table t (v int); insert into t values (1)");
    stage.backup();
    stage.archive_all();
    let drill = Drill::of(&stage);
    let bad = drill.sql("bad.sql", "select true;\nselect 1 / 0;\nselect false;\n");
    let of_false = drill.sql("false.sql", "select true, 1;\nselect v > 5, v from t;\n");
    let good = drill.sql(
        "good.sql",
        "select v > 0, 'f' from t; select 'false'; select null;\n",
    );
    let count = "select count(*) from t";
    for (arguments, failed, part) in [
        (vec!["--sql", &bad], "sql", "division by zero"),
        (
            vec!["--sql", &of_false],
            "sql",
            "row 2 of what it gives is false: f|1",
        ),
        (
            vec!["--fingerprint", count, "--expect", "2"],
            "fingerprint",
            "2 was expected",
        ),
        (
            vec!["--fingerprint", "select v from t where false"],
            "fingerprint",
            "0 came",
        ),
        (
            vec!["--sql", &good, "--database", "none"],
            "sql",
            "does not exist",
        ),
    ] {
        let told = drill.told(1, &arguments);
        assert_eq!(outcome(&told, failed), "failed", "{told:#}");
        assert!(words(&told, failed).contains(part), "{told:#}");
        assert_eq!(outcome(&told, "amcheck"), "ok", "{told:#}");
        assert_eq!(told["record"]["ok"], false);
    }
    let arguments = ["--sql", &good, "--fingerprint", count, "--expect", "1"];
    let told = drill.told(0, &arguments);
    assert_eq!(outcome(&told, "sql"), "ok", "{told:#}");
    assert_eq!(told["record"]["ok"], true);
}

/// A server that has no such restore point ends with an error from 13 on, and promotes before.
#[test]
fn a_target_that_is_not_reached_fails_it_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("drill-far{major}"), major);
        stage.cluster.sql("create table t (v int)");
        stage.backup();
        stage.cluster.sql("insert into t values (1)");
        stage.archive_all();
        let drill = Drill::of(&stage);
        let told = drill.told(1, &["--to-name", "nowhere"]);
        assert_eq!(outcome(&told, "recovery"), "failed", "{told:#}");
        let lines = told["last_lines"].as_array().expect("lines");
        assert_eq!(lines.is_empty(), major < 13, "{told:#}");
        assert_eq!(drill.records(), 1);
        // What the archive has is reached.
        stage.cluster.sql("select pg_create_restore_point('here')");
        stage.archive_all();
        let told = drill.told(0, &["--to-name", "here"]);
        assert_eq!(told["record"]["ok"], true);
    });
}

/// Production's limits, a role that sees little and a database whose removal was interrupted are no damage.
#[test]
fn limits_and_rights_of_the_role_do_not_read_as_damage() {
    let stage = Stage::new("drill-limits", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int)");
    pg.sql("create database half");
    pg.sql("create role weak login; grant select on t to weak");
    pg.sql("alter role weak set statement_timeout = '200ms'");
    stage.backup();
    pg.sql("update pg_database set datconnlimit = -2 where datname = 'half'");
    stage.archive_all();
    let mut drill = Drill::of(&stage);
    drill.options = drill.options.set("PGUSER", "weak");
    let slow = "select current_user = 'weak', pg_sleep(1);\n";
    let slow = drill.sql("slow.sql", slow);
    let told = drill.told(0, &["--sql", &slow]);
    for name in ["recovery", "amcheck", "sql"] {
        assert_eq!(outcome(&told, name), "ok", "{told:#}");
    }
    assert_eq!(told["record"]["ok"], true, "{told:#}");
    let exit = drill.run(&["--without", "amcheck", "--without", "checksums"]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    let claim = "its contents were not checked";
    assert!(exit.stdout.contains(claim), "{}", exit.stdout);
}

/// The restore cannot even be planned: that is a finding, too. A target that nobody ever archived is none.
#[test]
fn a_rehearsal_that_cannot_be_planned_is_recorded() {
    let stage = Stage::new("drill-plan", 15);
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    stage.archive_all();
    let drill = Drill::of(&stage);
    let exit = drill.run(&["--to-time", "2001-01-01 00:00:00+00"]);
    assert_ne!(exit.code(), 0, "{}", exit.stdout);
    assert_eq!(drill.records(), 0, "{}", exit.stderr);
    let folder = stage.archive();
    shell(&format!("rm -r {}/wal_005", folder.display()));
    let exit = drill.run(&[]);
    assert_eq!(exit.code(), 65, "{}", exit.stderr);
    assert_eq!(drill.records(), 1, "{}", exit.stderr);
    let status = drill.verb(&["status"]);
    assert!(status.contains("rehearsed    FAILED (restore)"), "{status}");
}

/// Of several archives the first that has the backup keeps the record.
#[test]
fn of_several_archives_one_keeps_the_record() {
    let stage = Stage::new("drill-several", 15);
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    stage.archive_all();
    let mut drill = Drill::of(&stage);
    let first = stage.archive();
    let second = first.with_file_name("second");
    let place = second.to_string_lossy().into_owned();
    shell(&format!("cp -a {} {place}", first.display()));
    drill.options = drill.options.set("WALE_FILE_PREFIX_2", &place);
    let of_second = || {
        shell(&format!("find {place} -name wale_rehearsed.json"))
            .lines()
            .count()
    };
    let quick = [
        "--immediate",
        "--without",
        "amcheck",
        "--without",
        "checksums",
    ];
    let told = drill.told(0, &quick);
    assert_eq!(told["recorded"], true, "{told:#}");
    assert_eq!((drill.records(), of_second()), (1, 0));
    shell(&format!("rm -r {}/basebackups_005", first.display()));
    let told = drill.told(0, &quick);
    assert_eq!(told["recorded"], true, "{told:#}");
    assert_eq!((drill.records(), of_second()), (0, 1));
}

/// A segment is gone: the copy does not come to the end.
#[test]
fn a_gap_in_the_wal_fails_it() {
    let stage = Stage::new("drill-gap", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int)");
    stage.backup();
    pg.sql("insert into t values (1)");
    stage.archive_all();
    pg.sql("insert into t values (2)");
    let gone = stage.archive_all();
    pg.sql("insert into t values (3)");
    stage.archive_all();
    std::fs::remove_file(stage.archive().join(format!("wal_005/{gone}.zst"))).expect("removed");
    let drill = Drill::of(&stage);
    let told = drill.told(1, &[]);
    assert_eq!(outcome(&told, "recovery"), "failed", "{told:#}");
    assert!(told["warnings"].to_string().contains(&gone), "{told:#}");
    // Before it everything is well.
    drill.told(0, &["--immediate"]);
}

#[test]
fn what_cannot_be_rehearsed_is_refused_before_anything_is_touched() {
    let stage = Stage::new("drill-refused", 15);
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    stage.archive_all();
    let mut drill = Drill::of(&stage);
    let others = stage.sandbox.folder("others");
    std::fs::write(others.join("precious"), "x").expect("written");
    let free = std::mem::replace(&mut drill.scratch, others.clone());
    let exit = drill.run(&[]);
    assert_eq!(exit.code(), 73, "{}", exit.stderr);
    assert!(exit.stderr.contains("precious"), "{}", exit.stderr);
    let left: Vec<_> = std::fs::read_dir(&others).expect("read").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // Production's own directory.
    drill.scratch.clone_from(&stage.cluster.data);
    assert_eq!(drill.run(&[]).code(), 73);
    assert_eq!(stage.cluster.sql("select count(*) from t"), "0");

    // Anybody could put a server's library into it.
    let open = stage.sandbox.folder("open");
    drill.scratch.clone_from(&open);
    shell(&format!("chmod 777 {}", open.display()));
    let exit = drill.run(&[]);
    assert_eq!(exit.code(), 77, "{}", exit.stderr);
    assert!(exit.stderr.contains("others may write"), "{}", exit.stderr);

    drill.scratch = free;
    let other = wale_testkit::server(18).bin;
    let ours = std::mem::replace(&mut drill.programs, other);
    let exit = drill.run(&[]);
    assert_eq!(exit.code(), 78, "{}", exit.stderr);
    assert!(
        exit.stderr.contains("the backup is of PostgreSQL 15"),
        "{}",
        exit.stderr
    );
    drill.programs = ours;
    drill.options.as_postgres = false;
    let exit = drill.run(&[]);
    assert_eq!(exit.code(), 77, "{}", exit.stderr);
    assert!(
        exit.stderr.contains("runuser -u postgres"),
        "{}",
        exit.stderr
    );
    assert!(!drill.scratch.exists());
    assert_eq!(drill.records(), 0);
}

/// The copy's server runs, and the rehearsal is told to end.
#[test]
fn a_rehearsal_that_is_terminated_stops_its_server_and_removes_the_copy() {
    let stage = Stage::new("drill-term", 15);
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    stage.archive_all();
    let drill = Drill::of(&stage);
    let sleep = drill.sql("sleep.sql", "select pg_sleep(600);\n");
    let mut child = drill
        .command(&["--sql", &sleep, "--without", "amcheck"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("wale starts");
    let pid_file = drill.scratch.join("data/postmaster.pid");
    wait_until("the copy's server", LONG, || {
        let text = std::fs::read_to_string(&pid_file).ok()?;
        text.lines().nth(7)?.starts_with("ready").then_some(())
    });
    shell(&format!("kill -TERM {}", child.id()));
    let status = wait_until("its end", LONG, || child.try_wait().expect("waited"));
    assert_eq!(status.code(), Some(75));
    assert!(!drill.scratch.exists());
    let scratch = drill.scratch.to_string_lossy().into_owned();
    let running = shell(&format!(
        "grep -alF '{scratch}/data' /proc/[0-9]*/cmdline 2>/dev/null || true"
    ));
    let servers: Vec<&str> = running.lines().filter(|path| is_server(path)).collect();
    assert!(servers.is_empty(), "{servers:?}");
    assert_eq!(drill.records(), 0);
    // The limit that is given ends it, too, as a finding.
    let told = drill.told(
        1,
        &["--sql", &sleep, "--without", "amcheck", "--timeout", "20s"],
    );
    assert_eq!(outcome(&told, "checks"), "failed", "{told:#}");
}

fn is_server(path: &str) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    let program = text.split(|byte| *byte == 0).next().unwrap_or_default();
    program.ends_with(b"/postgres")
}

/// An archive that may only be read: the rehearsal works, and says that nothing was recorded. A copy that is kept has no keys.
#[test]
fn an_archive_that_is_only_read_is_rehearsed_and_a_copy_can_be_kept() {
    let stage = Stage::new("drill-read", 15);
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    stage.archive_all();
    let drill = Drill::of(&stage);
    let archive = stage.archive();
    shell(&format!("chmod -R a-w {}", archive.display()));
    let exit = drill.run(&["--keep"]);
    shell(&format!("chmod -R u+w {}", archive.display()));
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    assert!(
        exit.stdout.contains("nothing was recorded"),
        "{}",
        exit.stdout
    );
    assert!(
        exit.stdout.lines().all(|line| line.chars().count() <= 100),
        "{}",
        exit.stdout
    );
    assert_eq!(drill.records(), 0);
    let data = drill.scratch.join("data");
    assert!(data.join("PG_VERSION").exists());
    assert!(!data.join("postmaster.pid").exists());
    assert!(!data.join("wale_restore_settings.conf").exists());
    // The next one takes its place.
    drill.told(0, &[]);
    assert_eq!(drill.records(), 1);
}

/// Jobs of TimescaleDB are held on a copy, whatever its target. (A stand-in for the library, as in the tests of a restore.)
#[test]
fn fault_57_a_rehearsal_holds_background_jobs() {
    let stage = Stage::new("drill-jobs", 15);
    load_a_stand_in(&stage);
    stage.backup();
    stage.archive_all();
    let drill = Drill::of(&stage);
    let held = "select current_setting('timescaledb.max_background_workers') = '0';\n";
    let arguments = [
        "--sql",
        &drill.sql("held.sql", held),
        "--without",
        "amcheck",
    ];
    let told = drill.told(0, &arguments);
    assert_eq!(outcome(&told, "sql"), "ok", "{told:#}");
    assert_eq!(outcome(&told, "timescaledb"), "skipped", "{told:#}");
}
