//! The recovery command that a restore writes (product.md 2.4): PostgreSQL must never promote because
//! the store or the sidecar failed, and must promote when a segment is truly absent.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wale_testkit::{Cluster, ClusterOptions, Sidecar, SidecarOptions, shell, wait_until};

use crate::support::{Stage, WALE, archiving, fingerprint, majors, on_every_major};

const CLIENTS: [&str; 4] = ["wget", "busybox", "curl", "wale"];
const STOPPED: Duration = Duration::from_secs(90);

/// A stage with a base backup and six archived segments of rows after it.
fn stage_with_segments(name: &str, major: u32) -> (Stage, Vec<String>) {
    let stage = Stage::new(name, major);
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    let mut segments = Vec::new();
    for part in 0..6 {
        stage.cluster.sql(&format!(
            "insert into t select {part} from generate_series(1, 1000)"
        ));
        segments.push(stage.cluster.switch_wal());
    }
    stage.cluster.wait_archived();
    (stage, segments)
}

/// A folder in which `wget` is BusyBox's and `wale` the program under test.
fn programs(stage: &Stage, client: &str) -> PathBuf {
    let folder = stage.sandbox.path().join(format!("bin-{client}"));
    if !folder.exists() {
        std::fs::create_dir(&folder).unwrap();
        if client == "busybox" {
            symlink("/bin/busybox", folder.join("wget")).unwrap();
        }
        if client == "wale" {
            std::fs::copy(WALE, folder.join("wale")).unwrap();
        }
    }
    folder
}

/// Restores with a client, up to the point where the server may be started.
fn restored(stage: &Stage, name: &str, client: &str) -> (Cluster, Sidecar, SidecarOptions) {
    fault(stage, "");
    let (mut cluster, options) = stage.restore_options(name, "");
    let setting = if client == "busybox" { "wget" } else { client };
    let options = options
        .set("WALE_RESTORE_CLIENT", setting)
        .set("WALE_FETCH_DEADLINE", "1s")
        .set("WALE_FETCH_PREFETCH", "0")
        .set("WALE_FAULT_CONTROL", &control(stage).to_string_lossy());
    cluster.path_prefix = Some(programs(stage, client));
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(60));
    cluster.configure(&["archive_mode = off".into()]);
    (cluster, sidecar, options)
}

/// The file by which the test makes the store fail.
fn control(stage: &Stage) -> PathBuf {
    stage.sandbox.path().join("faults")
}

fn fault(stage: &Stage, text: &str) {
    let control = control(stage);
    let next = control.with_extension("next");
    std::fs::write(&next, text).unwrap();
    shell(&format!("chmod 644 {}", next.display()));
    // A reader sees the whole of it at any time, as it was before or as it is after.
    std::fs::rename(&next, &control).unwrap();
}

fn assert_stops_without_promoting(cluster: &Cluster, why: &str) {
    cluster.launch();
    assert_stopped_without_promoting(cluster, why);
}

fn assert_stopped_without_promoting(cluster: &Cluster, why: &str) {
    cluster.wait_stopped(STOPPED);
    let log = cluster.log_text();
    assert!(
        !log.contains("selected new timeline"),
        "{why}: promoted!\n{log}"
    );
    assert!(log.contains("could not restore file"), "{why}: {log}");
    let signal = ["recovery.signal", "recovery.conf"];
    assert!(
        signal.iter().any(|name| cluster.data.join(name).exists()),
        "{why}: not in recovery"
    );
}

fn object_of(archive: &Path, segment: &str) -> PathBuf {
    let folder = archive.join("wal_005");
    let found = std::fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    found
        .into_iter()
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(segment)
        })
        .unwrap_or_else(|| panic!("{segment} is not in {}", folder.display()))
}

/// Faults 50, 51, 53: the sidecar is down, the store is down, a segment in the middle is damaged.
#[test]
fn fault_50_51_53_the_server_stops_and_does_not_promote_and_goes_on_afterwards_on_every_major() {
    on_every_major(|major| {
        let (stage, segments) = stage_with_segments(&format!("recovery{major}"), major);
        let all = fingerprint(&stage.cluster, "t");
        let archive = stage.archive();
        let gone = stage.sandbox.path().join("archive.gone");
        for client in CLIENTS {
            let name = format!("drill-{client}");
            let (cluster, mut sidecar, options) = restored(&stage, &name, client);

            let object = object_of(&archive, &segments[3]);
            let aside = stage.sandbox.path().join("aside");
            std::fs::rename(&object, &aside).unwrap();
            shell(&format!(
                "head -c 300 {} > {}",
                aside.display(),
                object.display()
            ));
            shell(&format!("chmod 644 {}", object.display()));
            assert_stops_without_promoting(
                &cluster,
                &format!("{major}, {client}, damaged segment"),
            );
            std::fs::rename(&aside, &object).unwrap();

            fault(&stage, &format!("key=wal_005/{} down", segments[4]));
            assert_stops_without_promoting(
                &cluster,
                &format!("{major}, {client}, the store fails in mid-recovery"),
            );
            fault(&stage, "");

            std::fs::rename(&archive, &gone).unwrap();
            assert_stops_without_promoting(&cluster, &format!("{major}, {client}, store gone"));
            std::fs::rename(&gone, &archive).unwrap();

            // The sidecar is killed while the server replays.
            fault(&stage, "get key=wal_005/ slow 300ms");
            cluster.launch();
            wait_until("the server to replay", STOPPED, || {
                cluster
                    .log_text()
                    .contains("restored log file")
                    .then_some(())
            });
            sidecar.kill();
            assert_stopped_without_promoting(
                &cluster,
                &format!("{major}, {client}, sidecar killed in mid-recovery"),
            );
            fault(&stage, "");

            // Back again: every row, and the end of the archive is the end of recovery.
            let _sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
            cluster.start();
            cluster.wait_promoted();
            assert_eq!(fingerprint(&cluster, "t"), all, "{major}, {client}");
        }
    });
}

/// A segment in the middle that is truly absent is a gap, not the end of the archive.
#[test]
fn fault_46_a_gap_in_the_archive_is_not_the_end_of_recovery() {
    let (stage, segments) = stage_with_segments("gap", 15);
    let (cluster, sidecar, _) = restored(&stage, "drill", "wget");
    std::fs::remove_file(object_of(&stage.archive(), &segments[2])).unwrap();
    assert_stops_without_promoting(&cluster, "gap");
    let reply = sidecar.get(&format!("/wal-absent/{}", segments[2]));
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(
        reply.text().contains(&segments[3]),
        "names the next one: {}",
        reply.text()
    );

    // Anybody who restores now is told where recovery will stop, before it begins.
    let (_told, told, _) = restored(&stage, "told", "wget");
    let words = format!("segment {} is missing from the archive", segments[2]);
    assert!(told.log_text().contains(&words), "{}", told.log_text());
    // Without the WAL of the backup itself there is nothing to begin.
    let label = told.get("/backups").json()[0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let own = label["base_".len()..].split('_').next().unwrap().to_owned();
    std::fs::remove_file(object_of(&stage.archive(), &own)).unwrap();
    let (cluster, options) = stage.restore_options("hopeless", "");
    let mut hopeless = Sidecar::launch(&stage.sandbox, WALE, &options);
    let status = hopeless.wait_exit(STOPPED);
    assert_eq!(status.code(), Some(65), "{}", hopeless.log_text());
    assert!(
        hopeless.log_text().contains(&own),
        "{}",
        hopeless.log_text()
    );
    assert_eq!(std::fs::read_dir(&cluster.data).unwrap().count(), 0);
}

#[test]
fn two_drills_to_two_targets_from_one_backup_both_promoted_into_one_archive_on_every_major() {
    for major in majors() {
        let stage = Stage::new(&format!("drills{major}"), major);
        let pg = &stage.cluster;
        pg.sql("create table t (v int)");
        stage.backup();
        let mut targets = Vec::new();
        for part in 0..3 {
            pg.sql(&format!(
                "insert into t select {part} from generate_series(1, 100)"
            ));
            pg.sql("select pg_sleep(0.1)");
            targets.push((pg.sql("select clock_timestamp()"), fingerprint(pg, "t")));
            pg.sql("select pg_sleep(0.1)");
            pg.switch_wal();
        }
        pg.wait_archived();
        pg.kill();
        for (drill, (time, rows)) in targets.iter().take(2).enumerate() {
            let addition = format!(
                "recovery_target_time = '{time}'\nrecovery_target_timeline = '1'\n\
                 recovery_target_action = 'promote'"
            );
            let (cluster, sidecar) = stage.restore(&format!("drill{drill}"), &addition, &[]);
            cluster.start();
            cluster.wait_promoted();
            assert_eq!(
                &fingerprint(&cluster, "t"),
                rows,
                "PostgreSQL {major}, drill {drill}"
            );
            cluster.sql("insert into t values (99)");
            let segment = cluster.switch_wal();
            let timeline = format!("{:08X}", drill + 2);
            assert!(segment.starts_with(&timeline), "{segment}");
            cluster.wait_archived();
            assert_eq!(sidecar.get(&format!("/wal/{timeline}.history")).status, 200);
            assert_eq!(sidecar.get(&format!("/wal/{segment}")).status, 200);
        }
    }
}

/// postgres.md 3: from 12 on the settings of a recovery stay after promotion, come with the next base
/// backup, and must not stop the next restore at the old target.
#[test]
fn recovery_settings_of_an_earlier_restore_do_not_return_on_every_major() {
    for major in majors() {
        let stage = Stage::new(&format!("outlive{major}"), major);
        let pg = &stage.cluster;
        pg.sql("create table t (v int); insert into t values (1)");
        stage.backup();
        let time = pg.sql("select clock_timestamp()");
        pg.sql("select pg_sleep(0.2)");
        pg.sql("insert into t values (2)");
        pg.switch_wal();
        pg.wait_archived();
        pg.kill();

        let addition =
            format!("recovery_target_time = '{time}'\nrecovery_target_action = 'promote'");
        let (first, sidecar) = stage.restore("first", &addition, &[]);
        first.start();
        first.wait_promoted();
        assert_eq!(first.sql("select count(*) from t"), "1");
        let data = first.data.to_string_lossy().into_owned();
        let backup = sidecar.verb(WALE, "wale", &["backup-push", &data]);
        assert_eq!(backup.code(), 0, "{}", backup.stderr);
        first.sql("insert into t values (3), (4)");
        first.switch_wal();
        first.wait_archived();
        first.kill();

        let (second, _sidecar) = stage.restore("second", "", &["archive_mode = off".into()]);
        second.start();
        second.wait_promoted();
        assert_eq!(
            second.sql("select count(*) from t"),
            "3",
            "PostgreSQL {major}"
        );
    }
}

/// Order of configuration files, and the settings that recovery enforces.
#[test]
fn a_configuration_folder_neither_hides_the_recovery_settings_nor_stops_recovery_on_every_major() {
    for major in majors() {
        let options = ClusterOptions {
            major,
            configuration: vec![
                "max_connections = 137".into(),
                "max_locks_per_transaction = 99".into(),
            ],
            ..ClusterOptions::default()
        };
        let stage = Stage::with(&format!("conf{major}"), &options, |options| options);
        stage.cluster.sql("create table t (v int)");
        stage.backup();
        stage.cluster.sql("insert into t values (1), (2)");
        stage.cluster.switch_wal();
        stage.cluster.wait_archived();

        let (cluster, options) = stage.restore_options("restored", "");
        let folder = stage.sandbox.folder("conf");
        let own = archiving(options.port).join("\n");
        let text = format!(
            "max_connections = 20\nmax_locks_per_transaction = 64\nhot_standby = on\n{own}\n\
             port = {}\nunix_socket_directories = '{}'\nlisten_addresses = '127.0.0.1'\n",
            cluster.port,
            cluster.socket.display()
        );
        std::fs::write(folder.join("postgresql.conf"), text).unwrap();
        std::fs::write(
            folder.join("pg_hba.conf"),
            "local all all trust\nhost all all 127.0.0.1/32 trust\n",
        )
        .unwrap();
        std::fs::write(folder.join("postgresql.auto.conf"), "work_mem = '7MB'\n").unwrap();
        std::fs::write(folder.join("recovery.conf"), "restore_command = 'false'\n").unwrap();
        shell(&format!("chown -R postgres {}", folder.display()));
        let options = options.set("PGCONF_BACKUP_DIR", &folder.to_string_lossy());
        let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
        sidecar.wait_ready(Duration::from_secs(60));
        cluster.start();
        cluster.wait_promoted();
        assert_eq!(
            cluster.sql("select count(*) from t"),
            "2",
            "PostgreSQL {major}"
        );
        assert_eq!(cluster.sql("show work_mem"), "7MB");
        let connections: u32 = cluster.sql("show max_connections").parse().unwrap();
        assert!(
            connections >= 137,
            "recovery needs the primary's value: {connections}"
        );
    }
}
