//! The fault battery, rows 37 to 46 and 52: identity, duplicates and conflicts, partial segments, gaps, proofs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wale_testkit::{
    Cluster, ClusterOptions, Sandbox, Sidecar, SidecarOptions, get, shell, wait_until,
};

use crate::support::{Stage, WALE, archiving};

/// Every object of the archive with its time of change.
fn objects(archive: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let mut found = BTreeMap::new();
    let mut folders = vec![archive.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), meta.modified().unwrap());
            }
        }
    }
    found
}

/// A stage with one archived segment, whose file is still in `pg_wal`.
fn with_segment(name: &str) -> (Stage, String) {
    let stage = Stage::new(name, 15);
    stage
        .cluster
        .sql("create table t as select g from generate_series(1, 1000) g");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    (stage, segment)
}

#[test]
fn fault_37_the_same_bytes_pushed_a_hundred_times_are_one_upload_and_success() {
    let (stage, segment) = with_segment("same");
    let before = objects(&stage.archive());
    let port = stage.sidecar.port;
    let path = format!("/wal-push/{segment}");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| get(port, &path).unwrap().status))
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 200);
        }
    });
    assert_eq!(objects(&stage.archive()), before);
    // And by the verb, from a process that remembers nothing.
    let file = stage
        .cluster
        .wal
        .join(&segment)
        .to_string_lossy()
        .into_owned();
    assert_eq!(
        stage
            .sidecar
            .verb(WALE, "wal-e", &["wal-push", &file])
            .code(),
        0
    );
    assert_eq!(objects(&stage.archive()), before);
}

#[test]
fn fault_38_other_bytes_under_a_stored_name_are_409_and_the_object_stays() {
    let (mut stage, segment) = with_segment("conflict");
    let file = stage.cluster.wal.join(&segment);
    let before = objects(&stage.archive());
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[9000] ^= 1;
    std::fs::write(&file, &bad).unwrap();
    let reply = stage.sidecar.get(&format!("/wal-push/{segment}"));
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert!(reply.text().contains(&segment), "{}", reply.text());
    assert_eq!(objects(&stage.archive()), before);
    // A sidecar that remembers nothing says the same, and PostgreSQL keeps the file.
    stage.sidecar.kill();
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
    assert_eq!(sidecar.get(&format!("/wal-push/{segment}")).status, 409);
    assert_eq!(sidecar.get(&format!("/wal/{segment}")).body, good);
    assert!(file.exists());
    let metrics = sidecar.get("/metrics").text();
    assert!(
        metrics
            .lines()
            .any(|line| line.contains("conflict") && line.ends_with(" 1")),
        "{metrics}"
    );
}

#[test]
fn fault_39_and_41_a_second_cluster_on_one_prefix_is_refused() {
    let (stage, segment) = with_segment("two");
    let before = objects(&stage.archive());
    let sandbox = Sandbox::new("second");
    let cluster = Cluster::init(&sandbox, &ClusterOptions::default());
    let prefix = stage.options.environment["WALE_FILE_PREFIX"].clone();
    let options = SidecarOptions::new(&sandbox, &cluster).set("WALE_FILE_PREFIX", &prefix);
    cluster.configure(&archiving(options.port));
    let sidecar = Sidecar::start(&sandbox, WALE, &options);
    // Told at the start, before the server has anything to push; and nothing of it is stored, whatever it pushes.
    wait_until(
        "the second sidecar to tell",
        Duration::from_secs(30),
        || {
            let reply = sidecar.get("/readyz");
            let is_told = reply.status == 503 && reply.text().contains("identity: the archive");
            is_told.then_some(())
        },
    );
    let log = sidecar.log_text();
    assert!(log.contains("belongs to another cluster"), "{log}");
    assert!(log.contains("a prefix of its own"), "{log}");
    cluster.start();
    cluster.sql("create table x (v int)");
    let foreign = cluster.switch_wal();
    let reply = sidecar.get(&format!("/wal-push/{foreign}"));
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert!(
        reply.text().contains("system identifier"),
        "{}",
        reply.text()
    );
    let data = cluster.data.to_string_lossy().into_owned();
    let backup = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(backup.code(), 65, "{}", backup.stderr);
    // A segment of the other cluster in the first one's WAL directory, under its own name.
    let mut foreign = foreign;
    while stage.cluster.wal.join(&foreign).exists() {
        foreign = cluster.switch_wal();
    }
    let planted = stage.cluster.wal.join(&foreign);
    let mark = stage
        .cluster
        .wal
        .join(format!("archive_status/{foreign}.ready"));
    shell(&format!(
        "cp -p {} {}",
        cluster.wal.join(&foreign).display(),
        planted.display()
    ));
    std::fs::write(&mark, "").unwrap();
    let reply = stage.sidecar.get(&format!("/wal-push/{foreign}"));
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert!(
        reply.text().contains("system identifier"),
        "{}",
        reply.text()
    );
    std::fs::remove_file(&planted).unwrap();
    std::fs::remove_file(&mark).unwrap();
    assert_eq!(
        stage.sidecar.get(&format!("/wal-push/{segment}")).status,
        200
    );
    assert_eq!(objects(&stage.archive()), before);
}

#[test]
fn fault_39_two_clusters_that_claim_a_prefix_at_the_same_moment() {
    for round in 0..3 {
        let sandbox = Sandbox::new("race");
        let mut parts = Vec::new();
        for name in ["a", "b"] {
            let options = ClusterOptions {
                name: name.into(),
                ..ClusterOptions::default()
            };
            let cluster = Cluster::init(&sandbox, &options);
            let options = SidecarOptions::new(&sandbox, &cluster);
            cluster.configure(&archiving(options.port));
            let sidecar = Sidecar::start(&sandbox, WALE, &options);
            parts.push((cluster, sidecar));
        }
        for (cluster, _) in &parts {
            cluster.start();
        }
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = parts
                .iter()
                .map(|(cluster, sidecar)| {
                    scope.spawn(move || {
                        let name = cluster.switch_wal();
                        get(sidecar.port, &format!("/wal-push/{name}"))
                            .unwrap()
                            .status
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let won = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(won, 1, "round {round}: {statuses:?}");
        assert!(statuses.contains(&409), "round {round}: {statuses:?}");
    }
}

#[test]
fn fault_45_the_partial_and_the_full_segment_and_two_different_partials_are_all_kept() {
    let (stage, segment) = with_segment("partials");
    let wal = &stage.cluster.wal;
    let partial = format!("{segment}.partial");
    let full = std::fs::read(wal.join(&segment)).unwrap();
    let plant = |bytes: &[u8]| {
        std::fs::write(wal.join(&partial), bytes).unwrap();
        shell(&format!("chown postgres {}", wal.join(&partial).display()));
        std::fs::write(wal.join(format!("archive_status/{partial}.ready")), "").unwrap();
    };
    let mut first = full.clone();
    first[100_000..].fill(0);
    plant(&first);
    let path = format!("/wal-push/{partial}");
    assert_eq!(stage.sidecar.get(&path).status, 200);
    let mut second = full.clone();
    second[50_000..].fill(0);
    plant(&second);
    // Refusing it for ever would block the archiver of the second promotion.
    assert_eq!(stage.sidecar.get(&path).status, 200);
    assert_eq!(stage.sidecar.get(&path).status, 200);
    let kept: Vec<_> = objects(&stage.archive())
        .into_keys()
        .filter(|path| path.to_string_lossy().contains(".partial"))
        .collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(stage.sidecar.get(&format!("/wal/{segment}")).body, full);
    assert_eq!(stage.sidecar.get(&format!("/wal/{partial}")).body, first);
}

#[test]
fn fault_46_a_gap_is_told_in_status_until_the_next_backup() {
    let (mut stage, _) = with_segment("gap-told");
    stage.backup();
    let segments: Vec<String> = (0..5)
        .map(|part| {
            stage.cluster.sql(&format!("insert into t select {part}"));
            stage.cluster.switch_wal()
        })
        .collect();
    stage.cluster.wait_archived();
    for lost in &segments[1..3] {
        let object = stage.archive().join(format!("wal_005/{lost}.zst"));
        std::fs::remove_file(object).unwrap();
    }
    // A sidecar looks when it starts.
    stage.sidecar.kill();
    stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
    let sidecar = &stage.sidecar;
    let recoverable = |is_told: &dyn Fn(&serde_json::Value) -> bool| {
        wait_until("the check for gaps", Duration::from_secs(60), || {
            let found = sidecar.get("/status").json()["recoverable"].clone();
            (!found.is_null() && is_told(&found)).then_some(found)
        })
    };
    let gauge = |expected: u32| {
        let line = format!("wale_wal_gap_segments {expected}");
        let metrics = sidecar.get("/metrics").text();
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    };
    let told = recoverable(&|_| true);
    assert_eq!(told["until"], segments[0], "{told}");
    assert_eq!(told["gap"]["from"], segments[1], "{told}");
    assert_eq!(told["gap"]["to"], segments[2], "{told}");
    assert!(told["checked_at"].is_string(), "{told}");
    gauge(2);
    let log = sidecar.log_text();
    assert!(log.contains("WAL is missing from the archive"), "{log}");
    // The next base backup leaves it behind.
    let backup = sidecar.get("/backup-push");
    assert_eq!(backup.status, 200, "{}", backup.text());
    let healed = recoverable(&|found| found["gap"].is_null());
    assert_ne!(healed["backup"], told["backup"]);
    gauge(0);
    let log = sidecar.log_text();
    assert!(log.contains("no WAL is missing any more"), "{log}");
}

#[test]
fn fault_52_absence_is_proved_only_by_an_archive_that_answers() {
    let stage = Stage::with("absence", &ClusterOptions::default(), |options| {
        options.set("WALE_FETCH_DEADLINE", "1s")
    });
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let next = "0000000100000000000000F0";
    let absent = stage.sidecar.get(&format!("/wal-absent/{next}"));
    assert_eq!(absent.status, 200, "{}", absent.text());
    assert_eq!(
        stage.sidecar.get("/wal-absent/00000009.history").status,
        200
    );
    assert_eq!(stage.sidecar.get(&format!("/wal/{next}")).status, 404);
    assert_ne!(
        stage.sidecar.get(&format!("/wal-absent/{segment}")).status,
        200
    );
    // A volume that is not mounted: the folder is gone, or there and empty.
    let archive = stage.archive();
    let aside = stage.sandbox.path().join("aside");
    std::fs::rename(&archive, &aside).unwrap();
    for empty in [false, true] {
        if empty {
            let _ = stage.sandbox.folder("archive");
        }
        let reply = stage.sidecar.get(&format!("/wal-absent/{next}"));
        assert!(
            reply.status >= 500,
            "empty folder {empty}: {} {}",
            reply.status,
            reply.text()
        );
    }
    std::fs::remove_dir(&archive).unwrap();
    std::fs::rename(&aside, &archive).unwrap();
    assert_eq!(
        stage.sidecar.get(&format!("/wal-absent/{next}")).status,
        200
    );
}

/// A snapshot of the cluster that was started, and goes on by itself on the same timeline, has the same system identifier. Its
/// files with the original's positions would be a mixture of both.
#[test]
fn fault_40_the_files_of_a_clone_are_no_backup_of_the_server() {
    let stage = Stage::new("clonefiles", 15);
    let first = &stage.cluster;
    first.stop("fast");
    let (clone, _) = stage.restore_options("clone", "");
    let (from, to) = (first.data.display(), clone.data.display());
    shell(&format!("rm -rf '{to}' && cp -a '{from}' '{to}'"));
    clone.configure(&["archive_command = 'true'".into()]);
    first.start();
    clone.start();
    // Its last checkpoint lies far behind where the original's backup would begin.
    clone.sql("create table t as select g from generate_series(1, 100000) g");
    clone.switch_wal();
    clone.sql("checkpoint");
    let data = clone.data.to_string_lossy().into_owned();
    let exit = stage.sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_ne!(exit.code(), 0);
    let expected = "belongs to another server of this cluster";
    assert!(exit.stderr.contains(expected), "{}", exit.stderr);
    stage.backup();
}
