//! `docs/guide/restore-by-hand.md`: nothing in the archive is proprietary. `tar`, a decompressor and a shell restore a
//! backup, and the server stops where WAL is missing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wale_testkit::{Cluster, ClusterOptions, run_as_postgres, shell, wait_until};

use super::page::{Page, Shell};
use crate::support::{Stage, fingerprint, verify};

/// Runs the page on an archive of this codec.
pub(super) fn restore_by_hand(page: &mut Page, codec: &str) {
    let stage = Stage::with("byhand", &ClusterOptions::default(), |options| {
        options.set("WALE_COMPRESSION", codec)
    });
    let pg = &stage.cluster;
    keep_configuration_elsewhere(&stage);
    pg.sql("create table t as select g from generate_series(1, 1000) g");
    stage.backup();
    stage.backup();
    pg.sql("insert into t select generate_series(1, 500)");
    let lost = stage.archive_all();
    pg.sql("insert into t select generate_series(1, 500)");
    let noted = fingerprint(pg, "t");
    stage.archive_all();
    let archive = stage.archive();
    newest_on_the_way(&archive, &page.peek());

    let (cluster, _) = stage.restore_options("byhand", "");
    let (from, to) = (archive.to_string_lossy(), cluster.data.to_string_lossy());
    let places = [("ARCHIVE", &*from), ("PGDATA", &*to)];
    let mut reader = Shell::start(&stage.sandbox, pg, places);
    // Choose the backup, unpack it, let PostgreSQL fetch the WAL, keep a copy from archiving, bring the configuration.
    page.sh(&mut reader);
    page.sh(&mut reader);
    verify(&cluster.data);
    page.sh(&mut reader);
    page.sh(&mut reader);
    page.sh(&mut reader);
    assert!(cluster.data.join("postgresql.conf").exists());
    cluster.configure(&[]);

    // A segment is lost and a later one is there: the server must not take this for the end of the WAL.
    let extension = if codec == "zstd" { "zst" } else { codec };
    let object = archive.join(format!("wal_005/{lost}.{extension}"));
    let aside = stage.sandbox.path().join("aside");
    std::fs::rename(&object, &aside).unwrap();
    assert_stops(&cluster, &format!("restore_wal: {lost} is missing"));
    // Nor when the whole archive is away.
    let away = stage.sandbox.path().join("away");
    std::fs::rename(&archive, &away).unwrap();
    assert_stops(&cluster, "restore_wal: the archive is not there");
    std::fs::rename(&away, &archive).unwrap();

    if codec == "lzo" {
        before_the_gap(&cluster);
    } else {
        std::fs::rename(&aside, &object).unwrap();
        cluster.start();
        cluster.wait_promoted();
        assert_eq!(fingerprint(&cluster, "t"), noted);
    }
    assert_eq!(cluster.sql("show archive_mode"), "off");
    page.sql(&cluster);
}

/// The server's configuration lies in a folder of its own, as Debian's does.
fn keep_configuration_elsewhere(stage: &Stage) {
    let pg = &stage.cluster;
    pg.stop("fast");
    let folder = stage.sandbox.folder("etc");
    let (data, etc) = (pg.data.display(), folder.display());
    shell(&format!(
        "mv {data}/postgresql.conf {data}/pg_hba.conf {data}/pg_ident.conf {etc}\n\
         printf \"data_directory = '{data}'\\nhba_file = '{etc}/pg_hba.conf'\\nident_file = '{etc}/pg_ident.conf'\\n\" \
         >> {etc}/postgresql.conf\n\
         chown -R postgres {etc}"
    ));
    let (etc, log) = (folder.to_string_lossy(), folder.join("log"));
    let log = log.to_string_lossy();
    run_as_postgres(
        &pg.server.program("pg_ctl"),
        &["-D", &etc, "-l", &log, "-w", "start"],
    );
}

/// To end before a gap: a standby waits there, and somebody promotes it.
fn before_the_gap(cluster: &Cluster) {
    let signal = cluster.data.join("recovery.signal");
    std::fs::rename(signal, cluster.data.join("standby.signal")).unwrap();
    cluster.start();
    wait_until("the standby to wait", Duration::from_secs(120), || {
        let log = cluster.log_text();
        log.contains("waiting for WAL to become available")
            .then_some(())
    });
    cluster.sql("select pg_promote()");
    cluster.wait_promoted();
    assert_eq!(cluster.sql("select count(*) from t"), "1000");
}

/// The server ends in its recovery, for the reason that `restore_wal` gives, and does not promote.
fn assert_stops(cluster: &Cluster, why: &str) {
    cluster.launch();
    cluster.wait_stopped(Duration::from_secs(120));
    let log = cluster.log_text();
    assert!(log.contains(why), "{why}: {log}");
    assert!(!log.contains("selected new timeline"), "{log}");
}

/// What the page chooses from this archive.
fn chosen(archive: &Path, choose: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", choose])
        .env("ARCHIVE", archive)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The guide's choice goes by name, position and timeline. The times of the files are no matter, and a backup that ends
/// after the point where the newest timeline left its own is on a branch that was abandoned.
fn newest_on_the_way(archive: &Path, choose: &str) {
    let sentinels = archive.join("basebackups_005");
    let mut names: Vec<String> = std::fs::read_dir(&sentinels)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.ends_with("_backup_stop_sentinel.json"))
        .collect();
    names.sort();
    let [early, late] = names.as_slice() else {
        panic!("two backups: {names:?}");
    };
    let backup = |sentinel: &str| {
        sentinel
            .trim_end_matches("_backup_stop_sentinel.json")
            .to_owned()
    };
    shell(&format!("touch {}", sentinels.join(early).display()));
    let chosen = self::chosen(archive, choose);
    assert!(chosen.contains(&backup(late)), "{chosen}");

    let sentinel: serde_json::Value =
        serde_json::from_slice(&std::fs::read(sentinels.join(early)).unwrap()).unwrap();
    let left = sentinel["wale"]["stop_lsn"].as_str().unwrap();
    let history = archive.join("wal_005/00000002.history");
    std::fs::write(
        &history,
        format!("1\t{left}\tno recovery target specified\n"),
    )
    .unwrap();
    let chosen = self::chosen(archive, choose);
    assert!(chosen.contains(&backup(early)), "{chosen}");
    std::fs::remove_file(history).unwrap();
}
