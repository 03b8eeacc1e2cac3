//! The fault battery, row 11: the power goes while the archive, or the directory of a restore, is written. The disk is
//! [`VolatileDisk`]: what was not synced is gone, or half there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use wale_testkit::{
    ClusterOptions, Loss, Sandbox, Sidecar, SidecarOptions, VolatileDisk, client_tool,
    run_as_postgres, skip, wait_until, wale_command,
};

use crate::promises::{Promises, Random, number, under_load};
use crate::support::{Stage, WALE};

fn can_mount(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "only root can mount a file system");
    }
    root
}

/// A disk in a sandbox of its own, which outlives the stage.
struct Power {
    disk: VolatileDisk,
    random: Random,
    _sandbox: Sandbox,
}

impl Power {
    fn new(name: &str, seed: u64) -> Self {
        println!("WALE_TEST_SEED={seed}");
        let sandbox = Sandbox::new(name);
        Self {
            disk: VolatileDisk::mount(&sandbox.folder("disk")),
            random: Random::new(seed),
            _sandbox: sandbox,
        }
    }

    fn cut(&mut self) {
        let loss = match self.random.below(2) {
            0 => Loss::AllUnsynced,
            _ => Loss::SomeUnsynced(self.random.below(u64::MAX)),
        };
        self.disk.cut_power(loss);
    }
}

fn spawn(options: &SidecarOptions, arguments: &[&str]) -> Child {
    wale_command(WALE, "wale", options)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Every backup that is listed and was not checked before is whole: its files agree with the manifest.
fn check_backups(sandbox: &Sandbox, sidecar: &Sidecar, whole: &mut BTreeSet<String>) {
    let listed = sidecar.get("/backups").json();
    for backup in listed.as_array().unwrap() {
        let name = backup["name"].as_str().unwrap().to_owned();
        if whole.contains(&name) {
            continue;
        }
        let target = sandbox.path().join(format!("check-{name}"));
        let exit = sidecar.verb(
            WALE,
            "wale",
            &["backup-fetch", &target.to_string_lossy(), &name],
        );
        assert_eq!(exit.code(), 0, "{name} is listed: {}", exit.stderr);
        verify(&target);
        std::fs::remove_dir_all(&target).unwrap();
        whole.insert(name);
    }
}

fn verify(data: &Path) {
    run_as_postgres(
        &client_tool("pg_verifybackup"),
        &["-n", &data.to_string_lossy()],
    );
}

/// Whatever was answered with 200 is there after the power came back, nothing half stands under a final name, listed
/// backups are whole, and archiving goes on.
#[test]
fn fault_11_a_power_loss_takes_nothing_that_was_acknowledged() {
    if !can_mount("fault_11_a_power_loss") {
        return;
    }
    let mut power = Power::new("power", number("WALE_TEST_SEED", 11));
    let archive = power.disk.path().to_owned();
    let cluster = ClusterOptions {
        segment_mib: 1,
        configuration: vec!["wal_keep_size = '2GB'".into()],
        ..ClusterOptions::default()
    };
    let stage = Stage::with("powerloss", &cluster, |options| {
        options.set("WALE_FILE_PREFIX", &format!("file://{}", archive.display()))
    });
    let Stage {
        sandbox,
        options,
        cluster,
        mut sidecar,
    } = stage;
    cluster.sql("create table t (v int)");
    let data = cluster.data.to_string_lossy().into_owned();
    let mut promises = Promises::default();
    let mut whole = BTreeSet::new();
    under_load(&cluster, |_| {
        for round in 0..number("WALE_TEST_POWER_LOSSES", 6) {
            let backup = (round % 2 == 1).then(|| spawn(&options, &["backup-push", &data]));
            power
                .random
                .pause(100, if backup.is_some() { 2500 } else { 600 });
            power.cut();
            sidecar.kill();
            if let Some(mut backup) = backup {
                backup.kill().unwrap();
                backup.wait().unwrap();
            }
            power.disk.restore_power();
            sidecar = Sidecar::start(&sandbox, WALE, &options);
            promises.check_new(&cluster, &sidecar);
            check_objects_whole(&archive, &sidecar);
            check_backups(&sandbox, &sidecar, &mut whole);
        }
    });
    cluster.switch_wal();
    cluster.wait_archived();
    let exit = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    // At the very moment of success.
    power.disk.cut_power(Loss::AllUnsynced);
    sidecar.kill();
    power.disk.restore_power();
    sidecar = Sidecar::start(&sandbox, WALE, &options);
    let known = whole.len();
    check_backups(&sandbox, &sidecar, &mut whole);
    assert_eq!(
        whole.len(),
        known + 1,
        "the backup that was reported is listed"
    );
    promises.check_all(&cluster, &sidecar);
    let count = promises.kept.len();
    println!("{count} acknowledged files, {} backups", whole.len());
    assert!(count >= 20, "only {count}");
}

/// Objects of WAL that were not acknowledged may be there or not, but not half.
fn check_objects_whole(archive: &Path, sidecar: &Sidecar) {
    let Ok(entries) = std::fs::read_dir(archive.join("wal_005")) else {
        return;
    };
    for entry in entries.flatten() {
        let object = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = object
            .strip_suffix(".zst")
            .filter(|_| !object.starts_with('.'))
        {
            let reply = sidecar.get(&format!("/wal/{name}"));
            assert_eq!(reply.status, 200, "{object}: {}", reply.text());
        }
    }
}

/// A restore that the power cuts off cannot be started, or is whole; one that was reported is whole.
#[test]
fn fault_11_and_08_a_power_loss_leaves_a_restore_whole_or_not_startable() {
    if !can_mount("fault_11_and_08") {
        return;
    }
    let mut power = Power::new("powerrestore", number("WALE_TEST_SEED", 12));
    let stage = Stage::new("restoreloss", 15);
    stage
        .cluster
        .sql("create table t as select generate_series(1, 100000) as v");
    stage.backup();
    let target = power.disk.path().join("data");
    let path = target.to_string_lossy().into_owned();
    let restore = ["backup-fetch", &path, "LATEST"];
    let mut unfinished = 0;
    for round in 0..number("WALE_TEST_POWER_LOSSES", 6) {
        let mut process = spawn(&stage.options, &restore);
        if round == 0 {
            // At least one is cut off, however quick the machine is.
            wait_until("the restore to begin", Duration::from_secs(60), || {
                target.exists().then_some(())
            });
        } else {
            power.random.pause(50, 1500);
        }
        power.cut();
        process.kill().unwrap();
        process.wait().unwrap();
        power.disk.restore_power();
        if control_file(&target).exists() {
            verify(&target);
            std::fs::remove_dir_all(&target).unwrap();
        } else {
            unfinished += 1;
        }
    }
    // What was left half done is no obstacle.
    let exit = stage.sidecar.verb(WALE, "wale", &restore);
    power.disk.cut_power(Loss::AllUnsynced);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    power.disk.restore_power();
    assert!(
        control_file(&target).exists(),
        "the restore was reported as done"
    );
    verify(&target);
    assert!(unfinished > 0, "no restore was cut off");
}

fn control_file(target: &Path) -> PathBuf {
    target.join("global/pg_control")
}
