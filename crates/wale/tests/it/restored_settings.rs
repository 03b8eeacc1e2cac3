//! What a restore writes into the configuration, what it does not take over, and what it takes back.

use std::path::Path;
use std::time::Duration;

use wale_testkit::{
    Cluster, Exit, SidecarOptions, client_tool, free_port, run_as_postgres, wait_until,
    wale_command,
};

use crate::support::{Stage, WALE};

const LONG: Duration = Duration::from_secs(120);

/// Recovery settings that somebody left in `postgresql.conf`. Each one would change how a restore ends.
const LEFT_OVER: [&str; 6] = [
    "recovery_target_inclusive = off",
    "recovery_target_action = shutdown",
    "recovery_min_apply_delay = '1h'",
    "restore_command = 'false'",
    "recovery_end_command = 'false'",
    "primary_conninfo = 'host=/nowhere'",
];

/// Rows 74 to 77 over one run: a target before the newest backup, with a zone that PostgreSQL refuses, recovery settings in
/// `postgresql.conf`, and a standby that is cloned afterwards.
#[test]
fn fault_74_a_standby_cloned_after_a_recovery_to_a_target_stays_a_standby() {
    let stage = Stage::new("settled", 15);
    let pg = &stage.cluster;
    pg.configure(&LEFT_OVER.map(str::to_owned));
    pg.stop("fast");
    pg.start();
    pg.sql("create table t (v int); insert into t values (1)");
    let older = backup_name(&stage.backup());
    pg.sql("insert into t values (2)");
    pg.sql("select pg_sleep(1.1)");
    let now = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')";
    let time = pg.sql(now);
    pg.sql("select pg_sleep(1.1)");
    pg.sql("insert into t values (3)");
    let newer = backup_name(&stage.backup());
    stage.archive_all();
    let target = format!("recovery_target_time = '{time}Z'\nrecovery_target_action = 'promote'");

    let (restored, options) = stage.restore_options("restored", &target);
    plans(&restored, &options, [&older, &newer], &time);
    let sidecar = wale_testkit::Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(LONG);
    let log = sidecar.log_text();
    assert!(
        log.contains(&format!("backup {newer} is passed over")),
        "{log}"
    );
    restored.configure(&["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(
        restored.sql("select string_agg(v::text, ' ' order by v) from t"),
        "1 2"
    );

    let auto = restored.data.join("postgresql.auto.conf");
    let left = || {
        let text = std::fs::read_to_string(&auto).unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with("recovery_") || line.starts_with("restore_command"))
            .count()
    };
    wait_until("the recovery settings to go", LONG, || {
        (left() == 0).then_some(())
    });
    wait_until("the sidecar to say so", LONG, || {
        let status = sidecar.get("/status").text();
        (status.contains("removed_settings") && status.contains("recovery_target_time"))
            .then_some(())
    });
    cloned_stays_a_standby(&stage, &restored);
    // It started with the settings of the restore; now it starts without them.
    restored.stop("fast");
    restored.start();
    restored.sql("insert into t values (4)");
}

/// What is refused before the first write, and what the plan says.
fn plans(restored: &Cluster, options: &SidecarOptions, [older, newer]: [&str; 2], time: &str) {
    let data = restored.data.to_string_lossy().into_owned();
    let plan = |addition: &str, name: &str| {
        let options = options.clone().set("RECOVERY_ADDITION", addition);
        let output = wale_command(WALE, "wale", &options)
            .args(["backup-fetch", "--dry-run", &data, name])
            .output()
            .expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Exit {
            status: output.status,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    };
    let at = |zone: &str| format!("recovery_target_time = '{time}{zone}'");
    let exit = plan(&at("Z"), "LATEST");
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    assert!(exit.stdout.contains(older), "{}", exit.stdout);
    let exit = plan(&at("Z"), newer);
    assert_eq!(exit.code(), 78, "{}", exit.stderr);
    assert!(exit.stderr.contains(older), "{}", exit.stderr);
    let exit = plan(&at(" CEST"), "LATEST");
    assert_eq!(exit.code(), 78, "{}", exit.stderr);
    assert!(exit.stderr.contains("+02"), "{}", exit.stderr);
    let exit = plan("recovery_target_timeline = '7'", "LATEST");
    assert_ne!(exit.code(), 0, "{}", exit.stderr);
    assert!(
        exit.stderr.contains("no history of timeline 7"),
        "{}",
        exit.stderr
    );
    let exit = plan("recovery_target_time = '2026-13-28 20:49:55+00'", "LATEST");
    assert_eq!(exit.code(), 78, "{}", exit.stderr);
    assert!(exit.stderr.contains("2026-13-28"), "{}", exit.stderr);
    let exit = plan("recovery_target_name = 'x'", newer);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    assert!(
        exit.stdout.contains("without reading the WAL"),
        "{}",
        exit.stdout
    );
    assert!(
        !restored.data.join("PG_VERSION").exists(),
        "a plan writes nothing"
    );
}

fn backup_name(exit: &Exit) -> String {
    let start = exit
        .stderr
        .find("base_0000")
        .or_else(|| exit.stdout.find("base_0000"));
    let text = if exit.stderr.contains("base_0000") {
        &exit.stderr
    } else {
        &exit.stdout
    };
    let start = start.unwrap_or_else(|| panic!("no name of a backup in {exit:?}"));
    text[start..start + "base_000000010000000000000002_00000040".len()].to_owned()
}

/// Clones the server as everybody does, and lets it replay a commit: that is where an inherited target would end it.
fn cloned_stays_a_standby(stage: &Stage, primary: &Cluster) {
    let clone = Cluster::at(&stage.sandbox, 15, "clone", free_port());
    run_as_postgres(
        &client_tool("pg_basebackup"),
        &[
            "-D",
            &clone.data.to_string_lossy(),
            "-h",
            &primary.socket.to_string_lossy(),
            "-p",
            &primary.port.to_string(),
            "-U",
            "postgres",
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        ],
    );
    // What was left in postgresql.conf is the operator's, and acts on a standby.
    clone.configure(&[
        "recovery_min_apply_delay = 0".into(),
        "restore_command = ''".into(),
    ]);
    clone.start();
    primary.sql("insert into t values (10)");
    wait_until("the clone to follow", LONG, || {
        (clone.try_sql("select count(*) from t where v = 10").ok()? == "1").then_some(())
    });
    assert_eq!(clone.sql("select pg_is_in_recovery()"), "t");
    clone.stop("immediate");
}

/// Settings in a folder of their own, which name places of the server.
fn write_settings_of(pg: &Cluster, folder: &Path) {
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    put(
        "postgresql.conf",
        &format!(
            "data_directory = '{}'\nhba_file = '{}'\nexternal_pid_file = '{}'\ninclude_dir = 'conf.d'\ninclude '/dev/zero'\n",
            pg.data.display(),
            folder.join("rules.conf").display(),
            folder.join("own.pid").display()
        ),
    );
    put(
        "rules.conf",
        "local all all trust\nhost all all 127.0.0.1/32 trust\n",
    );
    put("start.conf", "auto\n");
    put("conf.d/10.conf", "work_mem = '5MB'\n");
    wale_testkit::shell(&format!(
        "chown -R postgres {0} && chmod -R u+rwX,go+rX {0}",
        folder.display()
    ));
}

/// Rows 78 and 84 over one run: the operator's folder is another server's, and what the primary had is not in it.
#[test]
fn fault_78_a_folder_of_the_originals_makes_the_restored_cluster_its_own() {
    let stage = Stage::new("own", 15);
    let pg = &stage.cluster;
    pg.configure(&["shared_preload_libraries = 'pg_stat_statements'".into()]);
    pg.stop("fast");
    pg.start();
    pg.sql("create table t (v int); create extension pg_stat_statements");
    stage.backup();
    // Raised after the backup: only the WAL shows it.
    pg.configure(&["max_worker_processes = 23".into()]);
    pg.stop("fast");
    pg.start();
    pg.sql("insert into t values (1)");
    stage.archive_all();

    let (restored, options) = stage.restore_options("restored", "");
    let folder = stage.sandbox.folder("etc");
    write_settings_of(pg, &folder);
    let missing = options
        .clone()
        .set("PGCONF_BACKUP_DIR", "/nonexistent/folder");
    let mut refused = wale_testkit::Sidecar::launch(&stage.sandbox, WALE, &missing);
    assert_eq!(
        refused.wait_exit(LONG).code(),
        Some(78),
        "{}",
        refused.log_text()
    );
    assert!(
        !restored.data.join("PG_VERSION").exists(),
        "nothing was written"
    );
    let options = options.set("PGCONF_BACKUP_DIR", &folder.to_string_lossy());
    let sidecar = wale_testkit::Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(LONG);
    let log = sidecar.log_text();
    for word in [
        "data_directory = ",
        "external_pid_file = ",
        "/dev/zero",
        "start.conf",
        "pg_stat_statements",
    ] {
        assert!(log.contains(word), "{word}: {log}");
    }
    restored.configure(&["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    let shown = |name: &str| restored.sql(&format!("show {name}"));
    assert_eq!(shown("data_directory"), restored.data.to_string_lossy());
    assert_eq!(
        shown("hba_file"),
        restored.data.join("pg_hba.conf").to_string_lossy()
    );
    assert_eq!(shown("external_pid_file"), "");
    assert_eq!(shown("work_mem"), "5MB");
    assert_eq!(shown("shared_preload_libraries"), "pg_stat_statements");
    assert_eq!(shown("max_worker_processes"), "23");
    assert_eq!(restored.sql("select count(*) from t"), "1");
}

/// Row 79: as on Debian, no configuration file lies in the data directory, and `conf.d` is empty. A role that cannot
/// see where the configuration lies gets a message, and wale never takes it for inside.
#[test]
fn fault_79_a_configuration_elsewhere_is_named_stored_and_restored() {
    let stage = Stage::new("elsewhere", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int); insert into t values (1)");
    pg.stop("fast");
    let folder = stage.sandbox.folder("etc");
    let (data, etc) = (pg.data.display(), folder.display());
    wale_testkit::shell(&format!(
        "mv {data}/postgresql.conf {data}/pg_hba.conf {data}/pg_ident.conf {etc} && mkdir {etc}/conf.d {etc}/empty.d && \
         echo \"work_mem = '5MB'\" > {etc}/conf.d/10.conf && \
         printf \"data_directory = '{data}'\\nhba_file = '{etc}/pg_hba.conf'\\nident_file = '{etc}/pg_ident.conf'\\n\
         include_dir = 'conf.d'\\ninclude_dir = 'empty.d'\\n\" >> {etc}/postgresql.conf && chown -R postgres {etc}"
    ));
    let log = folder.join("server.log");
    run_as_postgres(
        &pg.server.program("pg_ctl"),
        &[
            "-D",
            &folder.to_string_lossy(),
            "-l",
            &log.to_string_lossy(),
            "-w",
            "start",
        ],
    );
    pg.sql(
        "create role blind login; \
         grant execute on function pg_backup_start(text, boolean), pg_backup_stop(boolean) to blind",
    );
    let directory = pg.data.to_string_lossy().into_owned();
    let blind = wale_command(WALE, "wale", &stage.options.clone().set("PGUSER", "blind"))
        .args(["backup-push", &directory])
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&blind.stderr);
    assert!(blind.status.success(), "{told}");
    assert!(told.contains("no right to see where"), "{told}");
    assert!(
        told.contains("GRANT pg_read_all_settings TO \\\"blind\\\"")
            || told.contains("GRANT pg_read_all_settings TO \"blind\""),
        "{told}"
    );
    let exit = stage.backup();
    assert!(!exit.stderr.contains("no right to see"), "{}", exit.stderr);
    let said = "the server's configuration lies outside of the data directory: it is stored";
    assert!(exit.stderr.contains(said), "{}", exit.stderr);
    stage.archive_all();
    run_as_postgres(
        &pg.server.program("pg_ctl"),
        &["-D", &folder.to_string_lossy(), "-m", "fast", "-w", "stop"],
    );

    let (restored, sidecar) = stage.restore("restored", "", &["archive_mode = off".into()]);
    let log = sidecar.log_text();
    assert!(log.contains("the configuration lay in"), "{log}");
    assert!(log.contains("the folder empty.d"), "{log}");
    restored.start();
    restored.wait_promoted();
    let shown = |name: &str| restored.sql(&format!("show {name}"));
    assert_eq!(shown("data_directory"), restored.data.to_string_lossy());
    assert_eq!(
        shown("config_file"),
        restored.data.join("postgresql.conf").to_string_lossy()
    );
    assert_eq!(shown("work_mem"), "5MB");
    assert_eq!(restored.sql("select count(*) from t"), "1");
}

/// The setting that holds TimescaleDB's background jobs.
const JOBS: &str = "timescaledb.max_background_workers";

/// Makes the server load a library named `timescaledb`, and its catalogue name the extension.
pub(crate) fn load_a_stand_in(stage: &Stage) {
    let pg = &stage.cluster;
    let folder = stage.sandbox.folder("libraries");
    let libdir = pg.sql("select setting from pg_config where name = 'PKGLIBDIR'");
    let stand_in = folder.join("timescaledb.so");
    std::fs::copy(format!("{libdir}/auto_explain.so"), &stand_in).expect("copied");
    wale_testkit::shell(&format!("chmod -R go+rX {}", folder.display()));
    pg.configure(&[
        "shared_preload_libraries = 'timescaledb'".into(),
        format!("dynamic_library_path = '{}:$libdir'", folder.display()),
        format!("{JOBS} = 16"),
    ]);
    pg.stop("fast");
    pg.start();
    pg.sql(
        "create table t (v int); insert into t values (1); set allow_system_table_mods = on; \
         insert into pg_extension values (99999, 'timescaledb', 10, 11, false, '2.22.1', null, null)",
    );
}

/// The plan names the version, and what becomes of the jobs.
fn plan_names_the_jobs(restored: &Cluster, options: &SidecarOptions) {
    let plan = wale_command(WALE, "wale", options)
        .args(["backup-fetch", "--dry-run"])
        .args([&restored.data.to_string_lossy(), "LATEST"])
        .output()
        .expect("runs");
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("timescaledb 2.22.1"), "{plan}");
    assert!(
        plan.contains("background jobs") && plan.contains(JOBS),
        "{plan}"
    );
}

/// What `wale restore` prints at its end releases the jobs, and doing it again harms nothing.
fn the_printed_commands_release_them(stage: &Stage, position: &str) {
    let restored = Cluster::at(&stage.sandbox, 15, "printed", wale_testkit::free_port());
    let data = stage
        .sandbox
        .folder("printed")
        .to_string_lossy()
        .into_owned();
    let arguments = ["--to-lsn", position, "--action", "promote", &data];
    let exit = crate::restore_verb::restore(&crate::restore_verb::host(stage), &arguments);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    restored.configure(&["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    let shown = || restored.sql(&format!("show {JOBS}"));
    assert_eq!(shown(), "0");
    let reset = format!("alter system reset {JOBS}");
    let line = exit.stdout.lines().find(|line| line.contains(&reset));
    let line = line
        .unwrap_or_else(|| panic!("no line with {reset}: {}", exit.stdout))
        .trim();
    let (socket, port) = (restored.socket.display(), restored.port);
    let bin = wale_testkit::client_tool("psql");
    let folder = bin.parent().expect("a folder").display();
    let environment = format!("PATH={folder}:$PATH PGHOST={socket} PGPORT={port} PGUSER=postgres");
    for _ in 0..2 {
        wale_testkit::shell(&format!("{environment} {line}"));
    }
    restored.stop("fast");
    restored.start();
    assert_eq!(shown(), "16");
    restored.stop("fast");
}

/// What TimescaleDB counts is recorded with the backup, and shown before a restore. (Views of the stand-in's own, as its extension
/// would have them.)
#[test]
fn what_timescaledb_counts_is_recorded_with_a_backup_and_fails_none() {
    let stage = Stage::new("counts", 15);
    let pg = &stage.cluster;
    load_a_stand_in(&stage);
    stage.backup();
    let list = || {
        let exit = stage.sidecar.verb(WALE, "wale", &["backup-list", "--json"]);
        assert_eq!(exit.code(), 0, "{}", exit.stderr);
        let list: serde_json::Value = serde_json::from_str(&exit.stdout).expect("JSON");
        list.as_array()
            .expect("a list")
            .last()
            .expect("a backup")
            .clone()
    };
    // Nobody's views are asked, and the extension's version is recorded all the same.
    let first = list();
    assert_eq!(first["timescaledb"], serde_json::json!({}), "{first:#}");
    assert_eq!(
        first["extensions"]["postgres"]["timescaledb"], "2.22.1",
        "{first:#}"
    );
    let views = "create schema timescaledb_information; \
         create view timescaledb_information.hypertables as select generate_series(1, 2) as h; \
         create view timescaledb_information.chunks as select g as c, g <= 3 as is_compressed from generate_series(1, 5) g; \
         create view timescaledb_information.jobs as select generate_series(1, 4) as j";
    pg.sql(views);
    stage.backup();
    assert_eq!(list()["timescaledb"], serde_json::json!({}));
    pg.sql(
        "set allow_system_table_mods = on; insert into pg_depend \
         select 'pg_class'::regclass, c.oid, 0, 'pg_extension'::regclass, 99999, 0, 'e' from pg_class c \
         where c.relnamespace = 'timescaledb_information'::regnamespace",
    );
    stage.backup();
    let counts = serde_json::json!({"postgres": {"hypertables": 2, "chunks": 5, "compressed_chunks": 3, "jobs": 4}});
    assert_eq!(list()["timescaledb"], counts);
    let data = stage
        .sandbox
        .folder("planned")
        .to_string_lossy()
        .into_owned();
    let told = crate::restore_verb::plan(&crate::restore_verb::host(&stage), &[&data]);
    assert!(
        told["plan"]["notes"]
            .to_string()
            .contains("2 hypertables, 5 chunks, 3 of them compressed, and 4 jobs"),
        "{told:#}"
    );
    // One that does not answer costs the counts and not the backup.
    pg.sql(
        "create or replace view timescaledb_information.jobs as select (select 4 from pg_sleep(30)) as j",
    );
    stage.backup();
    assert_eq!(list()["timescaledb"], serde_json::json!({}));
    assert!(stage.sidecar.verb(WALE, "wale", &["backup-list"]).code() == 0);
}

/// Rows 57 and 84 with a server that loads a library named `timescaledb` (another one of PostgreSQL's stands in) and a
/// catalogue that names the extension: its background jobs are held after a recovery to a target, until they are released
/// as the guide says, and are not held without a target.
#[test]
fn fault_57_the_jobs_of_timescaledb_are_held_after_a_target_until_they_are_released() {
    let stage = Stage::new("jobs", 15);
    let pg = &stage.cluster;
    load_a_stand_in(&stage);
    stage.backup();
    pg.sql("insert into t values (2)");
    let position = pg.sql("select pg_current_wal_lsn()");
    pg.sql("insert into t values (3)");
    stage.archive_all();
    let list = stage.sidecar.verb(WALE, "wale", &["backup-list", "--json"]);
    assert!(list.stdout.contains("2.22.1"), "{}", list.stdout);

    let target = format!("recovery_target_lsn = '{position}'\nrecovery_target_action = 'promote'");
    let (restored, options) = stage.restore_options("restored", &target);
    plan_names_the_jobs(&restored, &options);

    let sidecar = wale_testkit::Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(LONG);
    let held = "background jobs are held until you release them";
    let release = format!("ALTER SYSTEM RESET {JOBS}");
    for told in [sidecar.log_text(), sidecar.get("/status").text()] {
        assert!(told.contains(held) && told.contains(&release), "{told}");
    }
    let auto =
        || std::fs::read_to_string(restored.data.join("postgresql.auto.conf")).expect("read");
    let line = format!("{JOBS} = '0'");
    assert!(auto().contains(&line), "{}", auto());
    restored.configure(&["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    let shown = || restored.sql(&format!("show {JOBS}"));
    assert_eq!(shown(), "0");
    assert_eq!(
        restored.sql("select string_agg(v::text, ' ' order by v) from t"),
        "1 2"
    );
    // What steered the recovery goes, and the hold stays; a sidecar that is started again knows it.
    wait_until("the recovery settings to go", LONG, || {
        (!auto().contains("recovery_target_lsn")).then_some(())
    });
    assert!(auto().contains(&line), "{}", auto());
    drop(sidecar);
    let says_held = || {
        let sidecar = wale_testkit::Sidecar::start(&stage.sandbox, WALE, &options);
        sidecar.wait_ready(LONG);
        sidecar.get("/status").text().contains(held)
    };
    assert!(says_held());
    restored.sql(&release);
    restored.stop("fast");
    restored.start();
    assert_eq!(shown(), "16");
    assert!(!auto().contains(JOBS), "{}", auto());
    assert!(!says_held());

    the_printed_commands_release_them(&stage, &position);

    let (whole, sidecar) = stage.restore("whole", "", &[]);
    let auto = std::fs::read_to_string(whole.data.join("postgresql.auto.conf")).expect("read");
    assert!(!auto.contains(JOBS), "{auto}");
    assert!(!sidecar.get("/status").text().contains(held));
}
