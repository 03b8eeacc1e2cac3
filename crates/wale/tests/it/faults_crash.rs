//! The fault battery, rows 1 to 13: kill -9 and SIGTERM of the sidecar and of the server, at every step.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use wale_testkit::{Sidecar, get, shell, wait_until, wale_command};

use crate::support::{Stage, WALE};

const LONG: Duration = Duration::from_secs(60);

/// A stage whose store obeys a fault control file.
struct Faulty {
    stage: Stage,
    control: PathBuf,
}

impl Faulty {
    fn new(name: &str) -> Self {
        let control =
            std::env::temp_dir().join(format!("wale-faults-{name}-{}", std::process::id()));
        std::fs::write(&control, "").unwrap();
        let stage = Stage::with(name, &wale_testkit::ClusterOptions::default(), |options| {
            options.set("WALE_FAULT_CONTROL", &control.to_string_lossy())
        });
        stage.cluster.sql("create table t (v int)");
        Self { stage, control }
    }

    fn fault(&self, text: &str) {
        let next = self.control.with_extension("next");
        std::fs::write(&next, text).unwrap();
        shell(&format!("chmod 644 {}", next.display()));
        std::fs::rename(&next, &self.control).unwrap();
    }

    fn restart(&mut self) {
        self.stage.sidecar = Sidecar::start(&self.stage.sandbox, WALE, &self.stage.options);
    }

    fn objects(&self, pattern: &str) -> usize {
        let archive = self.stage.archive();
        shell(&format!(
            "find {} -path '{pattern}' -type f | wc -l",
            archive.display()
        ))
        .trim()
        .parse()
        .unwrap()
    }

    fn backup_process(&self) -> Child {
        wale_command(WALE, "wale", &self.stage.options)
            .args(["backup-push", &self.stage.cluster.data.to_string_lossy()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn backups(&self) -> usize {
        self.stage
            .sidecar
            .get("/backups")
            .json()
            .as_array()
            .unwrap()
            .len()
    }

    fn assert_no_backup_runs_on_the_server(&self) {
        wait_until("the server's backup session to end", LONG, || {
            let sessions = self
                .stage
                .cluster
                .sql("select count(*) from pg_locks where locktype = 'advisory'");
            (sessions == "0").then_some(())
        });
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.control);
    }
}

#[test]
fn fault_01_killed_before_the_segment_is_stored_the_retry_stores_it() {
    let mut faulty = Faulty::new("kill01");
    faulty.fault("hang");
    let segment = faulty.stage.cluster.switch_wal();
    let port = faulty.stage.sidecar.port;
    let path = format!("/wal-push/{segment}");
    let client = {
        let path = path.clone();
        std::thread::spawn(move || get(port, &path).map(|reply| reply.status))
    };
    // The archiver's own request is there, too.
    wait_until("the request to be worked on", LONG, || {
        let status = get(port, "/status").ok()?.json();
        (status["wal"]["in_flight"].as_u64()? >= 2).then_some(())
    });
    assert_eq!(faulty.objects(&format!("*wal_005/{segment}*")), 0);
    faulty.stage.sidecar.kill();
    let answer = client.join().unwrap();
    assert!(
        answer.is_err() || answer.is_ok_and(|status| status != 200),
        "no success was told"
    );
    faulty.fault("");
    faulty.restart();
    faulty.stage.cluster.wait_archived();
    assert_eq!(faulty.stage.sidecar.get(&path).status, 200);
    assert_eq!(faulty.objects("*wale-tmp*"), 0);
}

/// Rows 1, 2, 4, 5: killed at random moments under load; whatever PostgreSQL was told is stored.
#[test]
fn fault_02_and_05_killed_at_random_while_pushing_nothing_acknowledged_is_lost() {
    let kills: u64 = std::env::var("WALE_TEST_KILLS").map_or(15, |n| n.parse().unwrap());
    let seed: u64 = std::env::var("WALE_TEST_SEED").map_or(0x5EED, |n| n.parse().unwrap());
    println!("WALE_TEST_SEED={seed}");
    let mut faulty = Faulty::new("storm");
    let cluster = &faulty.stage.cluster;
    let (wal, archive) = (cluster.wal.clone(), faulty.stage.archive());
    cluster.sql("alter system set wal_keep_size = '4GB'");
    cluster.sql("select pg_reload_conf()");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (sandbox, options) = (&faulty.stage.sandbox, &faulty.stage.options);
    let sidecar = &mut faulty.stage.sidecar;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                cluster.sql("insert into t select random() * 1e9 from generate_series(1, 40000)");
                cluster.switch_wal();
            }
        });
        let mut random = seed;
        for _ in 0..kills {
            // xorshift64: the delays follow from the seed.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            std::thread::sleep(Duration::from_millis(50 + random % 350));
            sidecar.kill();
            let unacknowledged = unacknowledged(&archive, &wal);
            *sidecar = Sidecar::start(sandbox, WALE, options);
            // What is there without having been promised is whole.
            for name in unacknowledged {
                let reply = sidecar.get(&format!("/wal/{name}"));
                assert_eq!(reply.status, 200, "{name}: {}", reply.text());
                assert!(
                    reply.body == std::fs::read(wal.join(&name)).unwrap(),
                    "{name}"
                );
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    cluster.wait_archived();
    // PostgreSQL's mark `.done` stands for a 200.
    let mut acknowledged = 0;
    for entry in std::fs::read_dir(wal.join("archive_status"))
        .unwrap()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".done") else {
            continue;
        };
        let Ok(local) = std::fs::read(wal.join(name)) else {
            continue;
        };
        let reply = faulty.stage.sidecar.get(&format!("/wal/{name}"));
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        assert!(reply.body == local, "{name} differs");
        acknowledged += 1;
    }
    assert!(acknowledged >= 3, "only {acknowledged}");
    // What the killed ones left unfinished is not visible as an object; the sweep takes it when it is old enough.
    let listed = faulty.objects("*wal_005/*") - faulty.objects("*wal_005/.*.wale-tmp");
    assert!(listed >= acknowledged, "{listed} objects");
}

/// The WAL files of which the archive has an object, and which PostgreSQL was not told to be archived.
fn unacknowledged(archive: &Path, wal: &Path) -> Vec<String> {
    let marks = wal.join("archive_status");
    std::fs::read_dir(archive.join("wal_005"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| name.split('.').next().map(str::to_owned))
        .filter(|name| !marks.join(format!("{name}.done")).exists())
        .collect()
}

#[test]
fn fault_04_a_lost_reply_is_answered_200_without_a_second_upload() {
    let faulty = Faulty::new("lost");
    let cluster = &faulty.stage.cluster;
    faulty.stage.backup();
    faulty.fault("put-if-absent key=wal_005/ lost-reply");
    let segment = cluster.switch_wal();
    let path = format!("/wal-push/{segment}");
    let pattern = format!("*wal_005/{segment}*");
    wait_until("the object to be stored", LONG, || {
        (faulty.objects(&pattern) == 1).then_some(())
    });
    let stamp = || {
        shell(&format!(
            "find {} -path '{pattern}' -printf '%i %T@'",
            faulty.stage.archive().display()
        ))
    };
    let before = stamp();
    faulty.fault("");
    assert_eq!(faulty.stage.sidecar.get(&path).status, 200);
    cluster.wait_archived();
    assert_eq!(stamp(), before);
}

#[test]
fn fault_06_a_backup_killed_at_any_step_is_never_listed_and_the_next_one_works() {
    let faulty = Faulty::new("kill06");
    let steps: [(&str, &str); 5] = [
        ("the server's start", "-none-"),
        ("extended_version.txt", "*extended_version.txt"),
        ("the first partition", "*part_00000000*"),
        ("the manifest", "*backup_manifest"),
        ("metadata.json", "*metadata.json"),
    ];
    for (step, pattern) in steps {
        faulty.fault("put key=basebackups_005/ slow 300ms");
        let before = faulty.objects(pattern);
        let mut process = faulty.backup_process();
        wait_until(step, LONG, || {
            if pattern == "-none-" {
                let locks = faulty
                    .stage
                    .cluster
                    .sql("select count(*) from pg_locks where locktype = 'advisory'");
                return (locks != "0").then_some(());
            }
            (faulty.objects(pattern) > before).then_some(())
        });
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(faulty.backups(), 0, "killed at {step}");
        faulty.assert_no_backup_runs_on_the_server();
    }
    faulty.fault("");
    faulty.stage.backup();
    assert_eq!(faulty.backups(), 1);
}

#[test]
fn fault_08_a_restore_killed_half_way_cannot_be_started_and_is_redone() {
    let faulty = Faulty::new("kill08");
    let stage = &faulty.stage;
    stage
        .cluster
        .sql("insert into t select generate_series(1, 100000)");
    stage.backup();
    stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let (cluster, options) = stage.restore_options("half", "");
    faulty.fault("get key=basebackups_005/ slow 700ms");
    let mut sidecar = Sidecar::launch(&stage.sandbox, WALE, &options);
    wait_until("some files", LONG, || {
        cluster.data.join("PG_VERSION").exists().then_some(())
    });
    sidecar.kill();
    assert!(!cluster.data.join("global/pg_control").exists());
    cluster.launch();
    cluster.wait_stopped(LONG);
    assert_eq!(
        get(options.port, "/startupz").map_or(0, |reply| reply.status),
        0
    );
    faulty.fault("");
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(LONG);
    cluster.configure(&["archive_mode = off".into()]);
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(cluster.sql("select count(*) from t"), "100000");
}

#[test]
fn fault_09_sigterm_during_a_push_finishes_it_and_ends_with_0() {
    let mut faulty = Faulty::new("term09");
    faulty.stage.backup();
    faulty.fault("put-if-absent key=wal_005/ hold");
    let segment = faulty.stage.cluster.switch_wal();
    let port = faulty.stage.sidecar.port;
    let path = format!("/wal-push/{segment}");
    let client = std::thread::spawn(move || get(port, &path).map(|reply| reply.status));
    // The archiver's own request is there, too.
    wait_until("the push to be under way", LONG, || {
        let status = get(port, "/status").ok()?.json();
        (status["wal"]["in_flight"].as_u64()? >= 2).then_some(())
    });
    faulty.stage.sidecar.terminate();
    wait_until("readiness to go first", LONG, || {
        get(port, "/readyz")
            .ok()
            .filter(|reply| reply.status == 503)
    });
    faulty.fault("");
    assert_eq!(client.join().unwrap().unwrap(), 200);
    let status = faulty.stage.sidecar.wait_exit(LONG);
    assert_eq!(
        status.code(),
        Some(0),
        "{}",
        faulty.stage.sidecar.log_text()
    );
    assert_eq!(faulty.objects(&format!("*wal_005/{segment}*")), 1);
}

#[test]
fn fault_10_sigterm_during_a_backup_aborts_it_cleanly() {
    let mut faulty = Faulty::new("term10");
    faulty.fault("put key=basebackups_005/ slow 1s");
    assert_eq!(
        faulty.stage.sidecar.get("/backup-push?wait=false").status,
        202
    );
    wait_until("the backup to run", LONG, || {
        (faulty.objects("*basebackups_005/*") > 0).then_some(())
    });
    faulty.stage.sidecar.terminate();
    let status = faulty.stage.sidecar.wait_exit(LONG);
    assert_eq!(
        status.code(),
        Some(0),
        "{}",
        faulty.stage.sidecar.log_text()
    );
    faulty.assert_no_backup_runs_on_the_server();
    assert_eq!(faulty.objects("*sentinel*"), 0);
    assert_eq!(
        faulty.objects("*part_*"),
        0,
        "what it stored is removed again"
    );
    faulty.fault("");
    faulty.restart();
    assert_eq!(faulty.stage.sidecar.get("/backup-push").status, 200);
    assert_eq!(faulty.backups(), 1);
}

#[test]
fn fault_12_the_first_push_after_a_restart_works_by_itself() {
    let mut faulty = Faulty::new("restart12");
    faulty.stage.backup();
    for _ in 0..3 {
        faulty.stage.sidecar.kill();
        faulty.restart();
        faulty.stage.cluster.sql("insert into t values (1)");
        faulty.stage.cluster.switch_wal();
        faulty.stage.cluster.wait_archived();
        wait_until("the status to tell of the backup", LONG, || {
            let status = faulty.stage.sidecar.get("/status").json();
            status["backup"]["last"].is_object().then_some(())
        });
        assert_eq!(faulty.backups(), 1);
    }
}

#[test]
fn fault_13_the_server_crashes_during_a_backup() {
    let faulty = Faulty::new("crash13");
    faulty.fault("put key=basebackups_005/ slow 500ms");
    let data = faulty.stage.cluster.data.to_string_lossy().into_owned();
    let options = faulty.stage.options.clone();
    let verb = std::thread::spawn(move || {
        wale_command(WALE, "wale", &options)
            .args(["backup-push", &data])
            .output()
            .unwrap()
    });
    wait_until("the backup to run", LONG, || {
        (faulty.objects("*basebackups_005/*") > 0).then_some(())
    });
    faulty.stage.cluster.kill();
    let output = verb.join().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{stderr}");
    assert_eq!(faulty.backups(), 0);
    faulty.fault("");
    let _ = std::fs::remove_file(faulty.stage.cluster.data.join("postmaster.pid"));
    faulty.stage.cluster.start();
    faulty.stage.backup();
    assert_eq!(faulty.backups(), 1);
}

/// The shutdown order: the sidecar is told to stop first, PostgreSQL archives its last segment while it
/// stops, and the sidecar waits for it.
#[test]
fn the_sidecar_outlives_the_server_at_shutdown() {
    let mut faulty = Faulty::new("order");
    faulty.stage.options = faulty
        .stage
        .options
        .clone()
        .set("WALE_SHUTDOWN_GRACE", "60s");
    faulty.stage.sidecar.kill();
    faulty.restart();
    faulty
        .stage
        .cluster
        .sql("insert into t select generate_series(1, 10000)");
    faulty.stage.sidecar.terminate();
    faulty.stage.cluster.stop("fast");
    let status = faulty.stage.sidecar.wait_exit(LONG);
    assert_eq!(status.code(), Some(0));
    faulty.stage.cluster.wait_archived();
}
