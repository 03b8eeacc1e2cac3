//! WAL of a timeline that the server has left: what an archiver must get rid of, and what must not be taken for it.

use std::path::Path;
use std::time::Duration;

use wale_testkit::{Cluster, Sidecar, shell, wait_until};

use crate::support::{Stage, fingerprint};

/// Puts a file into the WAL directory, as `make` prints it, and marks it ready.
fn plant(cluster: &Cluster, name: &str, make: &str) {
    let file = cluster.wal.join(name);
    shell(&format!(
        "{make} > {0}; chown postgres: {0}; chmod 600 {0}",
        file.display()
    ));
    ready(cluster, name);
}

/// The names of the objects that came; those that were there have not changed.
fn added(before: &str, after: &str) -> Vec<String> {
    let has = |lines: &str, line: &str| lines.lines().any(|known| known == line);
    assert!(before.lines().all(|known| has(after, known)));
    after
        .lines()
        .filter(|line| !has(before, line))
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .collect()
}

/// Each timeline is restored to its end.
fn assert_both_are_restored(stage: &Stage, [end_of_1, end_of_2]: &[String; 2]) {
    for (name, addition, expected) in [
        ("one", "recovery_target_timeline = '1'", end_of_1),
        ("two", "", end_of_2),
    ] {
        let (restored, _sidecar) = stage.restore(name, addition, &["archive_mode = off".into()]);
        restored.start();
        restored.wait_promoted();
        assert_eq!(&fingerprint(&restored, "t"), expected, "{name}");
        restored.kill();
    }
}

/// Row 106, on 12: a server that recovered over a switch of timelines hands over files under the old timeline's name which it
/// preallocated or recycled, and a longer copy of the old timeline's last segment.
#[test]
fn fault_106_archiving_goes_on_over_files_of_a_timeline_that_the_server_has_left() {
    let stage = Stage::new("left", 12);
    let first = &stage.cluster;
    first.sql("create table t (id int, v int)");
    stage.backup();
    let early = stage.archive_all();
    first.sql("insert into t select 1, g from generate_series(1, 1000) g");
    let position = first.sql("select pg_current_wal_lsn()");
    first.sql("insert into t select 2, g from generate_series(1, 1000) g");
    let forked = stage.archive_all();
    let behind: Vec<String> = (3..6)
        .map(|id| {
            first.sql(&format!("insert into t values ({id}, 0)"));
            stage.archive_all()
        })
        .collect();
    let end_of_1 = fingerprint(first, "t");
    first.stop("fast");

    let target = format!("recovery_target_lsn = '{position}'\nrecovery_target_action = 'promote'");
    let (second, sidecar) = stage.restore("second", &target, &[]);
    second.start();
    second.wait_promoted();
    second.sql("insert into t values (9, 9)");
    let own = crate::support::archive_all(&second);
    assert!(own.starts_with("00000002"), "{own}");
    let before = stage.wal_objects();

    let object = |name: &str| stage.archive().join(format!("wal_005/{name}.zst"));
    let unpacked = |name: &str| format!("zstd -dc {}", object(name).display());
    let bytes = 16 << 20;
    // Preallocated; recycled from an older segment; another server's longer copy of the segment with the fork.
    plant(&second, &behind[0], &format!("head -c {bytes} /dev/zero"));
    plant(&second, &behind[1], &unpacked(&early));
    let half = bytes / 2;
    let longer = format!(
        "({} | head -c {half}; head -c {half} /dev/urandom)",
        unpacked(&forked)
    );
    plant(&second, &forked, &longer);
    let kept = sha(&second.wal.join(&forked));
    second.sql("insert into t values (10, 10)");
    let own = crate::support::archive_all(&second);

    // What is new is the server's own and the copy that holds more.
    let new = added(&before, &stage.wal_objects());
    let partial = format!("{forked}.partial.zst");
    assert_eq!(new, [partial, format!("{own}.zst")]);
    let fetched = stage.sandbox.path().join("partial");
    shell(&format!(
        "{} > {}",
        unpacked(&format!("{forked}.partial")),
        fetched.display()
    ));
    assert_eq!(sha(&fetched), kept, "nothing is lost");
    let log = sidecar.log_text();
    assert!(
        log.contains("is acknowledged although the file is not the stored one"),
        "{log}"
    );
    assert!(log.contains("This is safe"), "{log}");

    assert_damaged_files_stay_refused(&second, &sidecar);
    let end_of_2 = fingerprint(&second, "t");
    second.kill();
    drop(sidecar);
    let ends = [end_of_1, end_of_2];
    assert_both_are_restored(&stage, &ends);
}

/// A file whose name nobody archived stays damaged, and so does one of the server's own timeline.
fn assert_damaged_files_stay_refused(second: &Cluster, sidecar: &Sidecar) {
    for timeline in ["00000001", "00000002"] {
        let name = format!("{timeline}00000000000000F0");
        let file = second.wal.join(&name);
        shell(&format!("head -c 16777216 /dev/zero > {}", file.display()));
        std::fs::write(mark(second, &name), "").unwrap();
        let reply = sidecar.get(&format!("/wal-push/{name}"));
        assert_eq!(reply.status, 500, "{}", reply.text());
        assert!(
            reply.text().contains("begins with zeros"),
            "{}",
            reply.text()
        );
        std::fs::remove_file(mark(second, &name)).unwrap();
        std::fs::remove_file(file).unwrap();
    }
}

/// Rows 67 and 68: an object that was lost is stored again when PostgreSQL asks, and an archive that is emptied while the
/// sidecar runs gets nothing until it is there again.
#[test]
fn faults_67_and_68_a_lost_object_is_stored_again_and_an_emptied_archive_is_not_begun_anew() {
    let stage = Stage::new("emptied", 15);
    let server = &stage.cluster;
    server.sql("create table t (i int)");
    let lost = stage.archive_all();
    stage.archive_all();
    let object = stage.archive().join(format!("wal_005/{lost}.zst"));
    std::fs::remove_file(&object).unwrap();
    std::fs::remove_file(server.wal.join(format!("archive_status/{lost}.done"))).unwrap();
    ready(server, &lost);
    stage.archive_all();
    assert!(object.exists(), "the segment is in the archive again");

    let aside = stage.sandbox.folder("aside");
    let (archive, aside) = (stage.archive(), aside.display());
    shell(&format!("mv {}/* {aside}", archive.display()));
    server.sql("insert into t values (1)");
    let waiting = server.switch_wal();
    let reply = stage.sidecar.get(&format!("/wal-push/{waiting}"));
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(
        reply.text().contains("was there and is gone"),
        "{}",
        reply.text()
    );
    let probe = stage.sidecar.get("/readyz");
    assert_eq!(probe.status, 503);
    assert!(
        probe.text().contains("was there and is gone"),
        "{}",
        probe.text()
    );
    let left = std::fs::read_dir(&archive).unwrap().count();
    assert_eq!(left, 0, "nothing was written");

    shell(&format!("mv {aside}/* {}", archive.display()));
    // PostgreSQL's own next attempt may be a minute away.
    let pushed = stage.sidecar.get(&format!("/wal-push/{waiting}"));
    assert_eq!(pushed.status, 200, "{}", pushed.text());
    wait_until("readiness to come back", Duration::from_secs(120), || {
        (stage.sidecar.get("/readyz").status == 200).then_some(())
    });
}

/// Marks a file as PostgreSQL does when it hands it over.
fn ready(server: &Cluster, name: &str) {
    let mark = mark(server, name);
    shell(&format!("touch {0}; chown postgres: {0}", mark.display()));
}

fn mark(server: &Cluster, name: &str) -> std::path::PathBuf {
    server.wal.join(format!("archive_status/{name}.ready"))
}

fn sha(path: &Path) -> String {
    shell(&format!("sha256sum < {}", path.display()))
}
