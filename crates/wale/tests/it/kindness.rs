//! A base backup takes no more of the machine than it is told.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use wale_testkit::{SidecarOptions, wait_until, wale_command};

use crate::support::{Stage, WALE};

/// `wale backup-push` with these settings beside the stage's.
fn options(stage: &Stage, settings: &[(&str, &str)]) -> SidecarOptions {
    let mut options = stage.options.clone();
    for (name, value) in settings {
        options
            .environment
            .insert((*name).to_owned(), (*value).to_owned());
    }
    options
}

/// What the only backup takes in the archive.
fn stored_bytes(stage: &Stage) -> u64 {
    let listed = stage.sidecar.verb(WALE, "wale", &["backup-list", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let backups = listed.as_array().expect("backups");
    assert_eq!(backups.len(), 1, "{listed}");
    backups[0]["stored_bytes"].as_u64().expect("a number")
}

const RATE: u64 = 1 << 20;

/// Runs a verb that sends what the backup takes in the archive, at [`RATE`]: it takes its time.
fn sends_at_the_rate(stage: &Stage, arguments: &[&str]) {
    let slow = options(stage, &[("WALE_UPLOAD_RATE", &RATE.to_string())]);
    let start = Instant::now();
    let exit = wale_command(WALE, "wale", &slow)
        .args(arguments)
        .output()
        .expect("it runs");
    let took = start.elapsed();
    assert!(
        exit.status.success(),
        "{}",
        String::from_utf8_lossy(&exit.stderr)
    );
    let bytes = stored_bytes(stage);
    // A tenth less: small objects go beside the partitions.
    let least = Duration::from_millis(bytes * 900 / RATE);
    assert!(
        least > Duration::from_secs(1) && took >= least,
        "{bytes} bytes in {took:?}"
    );
}

#[test]
fn the_upload_rate_of_a_backup_and_of_a_copy_is_kept() {
    let stage = Stage::new("uploadrate", 15);
    sends_at_the_rate(&stage, &["backup-push"]);
    let second = stage.sandbox.folder("second");
    let file = second.join("wale.conf");
    let place = second.join("archive");
    std::fs::create_dir(&place).expect("made");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).expect("set");
    let settings = format!("WALE_FILE_PREFIX=file://{}\n", place.display());
    std::fs::write(&file, settings).expect("written");
    sends_at_the_rate(&stage, &["copy", "--to", &file.to_string_lossy()]);
}

/// The nice values of the threads of a process, by name.
fn nice_values(pid: u32) -> Vec<(String, i32)> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let stat = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (begin, rest) = text.rsplit_once(") ")?;
        let name = begin.split_once('(')?.1.to_owned();
        // proc(5): state is field 3, nice field 19.
        Some((name, rest.split(' ').nth(19 - 3)?.parse().ok()?))
    };
    tasks.filter_map(stat).collect()
}

#[test]
fn a_backup_of_low_priority_lowers_its_workers_alone() {
    let stage = Stage::new("lowpriority", 15);
    let low = options(
        &stage,
        &[
            ("WALE_BACKUP_PRIORITY", "low"),
            ("WALE_BACKUP_CPUS", "0.5"),
            ("WALE_BACKUP_READ_RATE", "8MB"),
        ],
    );
    let mut backup = wale_command(WALE, "wale", &low)
        .arg("backup-push")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let pid = backup.id();
    let seen = wait_until("workers of low priority", Duration::from_secs(60), || {
        let threads = nice_values(pid);
        threads
            .iter()
            .any(|(_, nice)| *nice == 19)
            .then_some(threads)
    });
    for (name, nice) in seen {
        assert!(
            nice != 19 || name.starts_with("wale-own"),
            "{name} has {nice}"
        );
    }
    assert!(backup.wait().expect("it ends").success());
    stored_bytes(&stage);
}
