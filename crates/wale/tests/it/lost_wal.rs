//! WAL, and histories, that were lost from the archive while something else there shows that they existed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use wale_testkit::{Cluster, Sidecar, shell};

use crate::support::{Stage, WALE, archive_all, archiving, fingerprint};

const LONG: Duration = Duration::from_secs(120);

/// Rows 46 and 52: a base backup lies after the end of the WAL; then all WAL is gone; then the history of a timeline that has
/// WAL. Each time the server stops and has not promoted; with everything back it goes on to the end.
#[test]
fn fault_46_and_52_what_else_is_there_shows_that_wal_was_lost() {
    let stage = Stage::new("lostwal", 15);
    let first = &stage.cluster;
    first.sql("create table t (id int)");
    stage.backup();
    let early = backups(&stage).pop().unwrap();
    rows(first, 1);
    let kept = stage.archive_all();
    rows(first, 2);
    stage.archive_all();
    stage.backup();
    let late = backups(&stage).pop().unwrap();
    rows(first, 3);
    stage.archive_all();
    let end = fingerprint(first, "t");
    first.stop("fast");

    // Everything after the first segments is gone. A base backup that was complete says that there was more.
    let folder = stage.archive().join("wal_005");
    let aside = stage.sandbox.path().join("aside");
    fs::create_dir(&aside).unwrap();
    for name in stage.wal_names().into_iter().filter(|name| *name > kept) {
        let name = format!("{name}.zst");
        fs::rename(folder.join(&name), aside.join(&name)).unwrap();
    }
    let (second, sidecar) = restore(&stage, "second", &early);
    let told = sidecar.log_text();
    assert!(
        told.contains(&late) && told.contains("recovery stops there"),
        "{told}"
    );
    let told = fetch(&stage, "fetched-early", &early);
    assert!(
        told.contains(&late) && told.contains("recovery stops there"),
        "{told}"
    );
    assert_stops(&second);
    // All of it is gone: a volume of its own that is not mounted.
    let gone = stage.sandbox.path().join("gone");
    fs::rename(&folder, &gone).unwrap();
    assert_stops(&second);
    fs::rename(&gone, &folder).unwrap();
    shell(&format!("mv {}/* {}/", aside.display(), folder.display()));
    second.start();
    second.wait_promoted();
    assert_eq!(fingerprint(&second, "t"), end);
    rows(&second, 4);
    assert!(archive_all(&second).starts_with("00000002"));
    let end = fingerprint(&second, "t");
    second.stop("fast");
    drop(sidecar);

    let history = folder.join("00000002.history.zst");
    fs::rename(&history, aside.join("history")).unwrap();
    let (third, sidecar) = restore(&stage, "third", &early);
    let told = sidecar.log_text();
    assert!(told.contains("00000002.history is missing"), "{told}");
    assert_stops(&third);
    let told = fetch(&stage, "fetched", &early);
    assert!(told.contains("00000002.history is missing"), "{told}");
    fs::rename(aside.join("history"), &history).unwrap();
    third.start();
    third.wait_promoted();
    assert_eq!(fingerprint(&third, "t"), end);
}

/// Runs `backup-fetch` into a new folder; returns what it said.
fn fetch(stage: &Stage, name: &str, backup: &str) -> String {
    let target = stage.sandbox.path().join(name);
    let target = target.to_string_lossy().into_owned();
    let exit = stage
        .sidecar
        .verb(WALE, "wale", &["backup-fetch", &target, backup]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    exit.stderr
}

fn rows(cluster: &Cluster, id: u32) {
    cluster.sql(&format!(
        "insert into t select {id} from generate_series(1, 100)"
    ));
}

/// The names of the base backups, in order.
fn backups(stage: &Stage) -> Vec<String> {
    let folder = stage.archive().join("basebackups_005");
    let names = fs::read_dir(folder).unwrap();
    let path = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path();
    let folders = names.map(path).filter(|path: &PathBuf| path.is_dir());
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut names: Vec<String> = folders.map(name).collect();
    names.sort();
    names
}

/// Restores one backup with a sidecar of its own, which waits a second for a store that is away.
fn restore(stage: &Stage, name: &str, backup: &str) -> (Cluster, Sidecar) {
    let (cluster, options) = stage.restore_options(name, "");
    let options = options
        .set("WALE_RESTORE_LABEL", backup)
        .set("WALE_FETCH_DEADLINE", "1s");
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(LONG);
    cluster.configure(&archiving(options.port));
    (cluster, sidecar)
}

fn assert_stops(cluster: &Cluster) {
    cluster.launch();
    cluster.wait_stopped(LONG);
    let log = cluster.log_text();
    assert!(log.contains("could not restore file"), "{log}");
    assert!(!log.contains("selected new timeline"), "{log}");
}
