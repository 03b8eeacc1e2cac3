//! Several histories of one cluster in one archive: timelines that branch, servers that took the same timeline, a clone
//! that archives, targets that no backup leads to.

use std::time::Duration;

use wale_testkit::{Cluster, Sidecar, SidecarOptions, free_port, shell, wait_until};

use crate::support::{
    Stage, WALE, archive_all, archiving, fingerprint, on_every_major, wait_fingerprint,
    wait_streaming,
};

const LONG: Duration = Duration::from_secs(120);

/// 1 → 2 by a standby's promotion in the middle of a segment, 2 → 3 by a restore; the servers of 1 and 2 go on. Every
/// timeline can be restored to its own end, and the past of all of them to a point.
#[test]
fn three_timelines_branch_and_each_is_restored_to_its_end_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("timelines{major}"), major);
        let first = &stage.cluster;
        first.sql("create table t (id int, v int)");
        stage.backup();
        let conninfo = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres'",
            first.port
        );
        let (second, _second_sidecar, _) = stage.standby("second", &conninfo, &[]);
        wait_streaming(first);
        rows(first, 1);
        let position = first.sql("select pg_current_wal_lsn()");
        let common = fingerprint(first, "t");
        wait_fingerprint(&second, "t", &common);

        second.promote();
        rows(&second, 2);
        let branch = archive_all(&second);
        assert!(branch.starts_with("00000002"), "{branch}");
        rows(first, 10);
        let full = stage.archive_all();
        let end_of_1 = fingerprint(first, "t");
        first.kill();
        // The promoted server had the first half of the segment that the old one has ended since.
        let names = stage.wal_names();
        assert!(names.contains(&full), "{names:?}");
        assert!(names.contains(&format!("{full}.partial")), "{names:?}");

        let (third, _third_sidecar) = stage.restore("third", "", &[]);
        third.start();
        third.wait_promoted();
        assert_eq!(
            fingerprint(&third, "t"),
            fingerprint(&second, "t"),
            "PostgreSQL {major}"
        );
        rows(&third, 3);
        let branch = archive_all(&third);
        assert!(branch.starts_with("00000003"), "{branch}");
        let end_of_3 = fingerprint(&third, "t");
        third.kill();
        rows(&second, 20);
        archive_all(&second);
        let end_of_2 = fingerprint(&second, "t");
        second.kill();

        let lsn = format!("recovery_target_lsn = '{position}'\nrecovery_target_action = 'promote'");
        let cases = [
            ("one", "recovery_target_timeline = '1'", &end_of_1),
            ("two", "recovery_target_timeline = '2'", &end_of_2),
            ("latest", "", &end_of_3),
            ("past", lsn.as_str(), &common),
        ];
        for (name, addition, expected) in cases {
            let (restored, _sidecar) =
                stage.restore(name, addition, &["archive_mode = off".into()]);
            restored.start();
            restored.wait_promoted();
            assert_eq!(
                &fingerprint(&restored, "t"),
                expected,
                "PostgreSQL {major}: {name}"
            );
        }
        assert_a_lost_history_stops_the_server(&stage, &end_of_3);
    });
}

/// A server that took timeline 2 for absent would promote at the end of timeline 1.
fn assert_a_lost_history_stops_the_server(stage: &Stage, end_of_3: &str) {
    let history = stage.archive().join("wal_005/00000002.history.zst");
    let aside = stage.sandbox.path().join("aside");
    std::fs::rename(&history, &aside).unwrap();
    let (restored, sidecar) = stage.restore("lost", "", &["archive_mode = off".into()]);
    let told = sidecar.log_text();
    assert!(told.contains("00000002.history is missing"), "{told}");
    restored.launch();
    restored.wait_stopped(LONG);
    let log = restored.log_text();
    assert!(!log.contains("selected new timeline"), "{log}");
    std::fs::rename(&aside, &history).unwrap();
    restored.start();
    restored.wait_promoted();
    assert_eq!(fingerprint(&restored, "t"), end_of_3);
}

/// Row 44: two standbys that did not see each other take timeline 2. The one that archives first has it; the other one
/// is refused at its history file, and not a byte of its timeline gets in, pushed ahead or not.
#[test]
fn fault_44_two_standbys_promote_to_the_same_timeline_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("same{major}"), major);
        let primary = &stage.cluster;
        primary.sql("create table t (id int, v int)");
        stage.backup();
        let deaf = ["archive_command = 'false'".to_owned()];
        let (late, late_sidecar, options) = stage.standby("late", "", &deaf);
        let (early, early_sidecar, _) = stage.standby("early", "", &[]);
        rows(primary, 1);
        stage.archive_all();
        wait_fingerprint(&late, "t", &fingerprint(primary, "t"));
        late.promote();
        for round in 0..4 {
            rows(&late, 100 + round);
            late.switch_wal();
        }
        // The other one is promoted later on in the primary's history.
        rows(primary, 2);
        stage.archive_all();
        wait_fingerprint(&early, "t", &fingerprint(primary, "t"));
        primary.kill();
        early.promote();
        rows(&early, 3);
        archive_all(&early);
        let before = stage.wal_objects();

        let command = archiving(options.port).pop().unwrap();
        let (_, command) = command.split_once(" = ").unwrap();
        late.sql(&format!("alter system set archive_command = {command}"));
        late.sql("select pg_reload_conf()");
        wait_refused(&late_sidecar, "00000002.history");
        assert_eq!(stage.wal_objects(), before, "PostgreSQL {major}");

        rows(&early, 4);
        archive_all(&early);
        assert!(!early_sidecar.log_text().contains("with other content"));
        let noted = fingerprint(&early, "t");
        let (restored, _sidecar) = stage.restore("restored", "", &["archive_mode = off".into()]);
        restored.start();
        restored.wait_promoted();
        assert_eq!(fingerprint(&restored, "t"), noted, "PostgreSQL {major}");
    });
}

/// Row 40: a copy of the data directory goes on by itself, with the same system identifier, on the same timeline, into
/// the same archive. It is refused at the first segment that differs, and its backups are not listed; the first server
/// notices nothing.
#[test]
fn fault_40_a_clone_that_archives_is_refused_where_it_diverges() {
    let stage = Stage::new("clone", 15);
    let first = &stage.cluster;
    first.sql("create table t (id int, v int)");
    stage.backup();
    stage.archive_all();
    first.stop("fast");
    let clone = Cluster::at(&stage.sandbox, 15, "clone", free_port());
    shell(&format!(
        "cp -a {} {}",
        first.data.display(),
        clone.data.display()
    ));
    let options = SidecarOptions::new(&stage.sandbox, &clone).set("WALE_BACKUP_WAL_TIMEOUT", "2s");
    clone.configure(&archiving(options.port));
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    first.start();
    rows(first, 1);
    let segment = stage.archive_all();
    let before = stage.wal_objects();

    clone.start();
    for round in 0..4 {
        rows(&clone, 100 + round);
        clone.switch_wal();
    }
    wait_refused(&sidecar, &segment);
    assert_eq!(
        stage.wal_objects(),
        before,
        "nothing of the clone, nothing ahead either"
    );
    let data = clone.data.to_string_lossy().into_owned();
    let backup = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(backup.code(), 75, "{}", backup.stderr);
    assert!(
        backup.stderr.contains("did not reach the archive"),
        "{}",
        backup.stderr
    );

    // The names that the clone has ready are the first server's to fill.
    for round in 2..6 {
        rows(first, round);
        stage.archive_all();
    }
    // Now there is a segment under every name that the clone's backup needs, but it is not the clone's.
    let backup = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(backup.code(), 75, "{}", backup.stderr);
    assert!(!stage.sidecar.log_text().contains("with other content"));
    let list = stage.sidecar.get("/backups").json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    let noted = fingerprint(first, "t");
    let (restored, _sidecar) = stage.restore("restored", "", &["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(fingerprint(&restored, "t"), noted);
}

/// Row 47: a backup on timeline 2, and timelines that do not come from there: an ancestor, a sibling, one that does not
/// exist, and the sibling again as the latest.
#[test]
fn fault_47_a_target_timeline_that_no_backup_leads_to_is_refused_before_the_first_write() {
    let stage = Stage::new("stranger", 15);
    let first = &stage.cluster;
    first.sql("create table t (id int, v int)");
    stage.backup();
    rows(first, 1);
    stage.archive_all();
    first.kill();
    let own = "recovery_target_timeline = '1'";
    let (second, sidecar) = stage.restore("second", own, &[]);
    second.start();
    second.wait_promoted();
    let data = second.data.to_string_lossy().into_owned();
    let backup = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(backup.code(), 0, "{}", backup.stderr);
    rows(&second, 2);
    archive_all(&second);
    let noted = fingerprint(&second, "t");
    let backups = sidecar.get("/backups").json();
    let name = |number: usize| backups[number]["name"].as_str().unwrap().to_owned();
    let (label, newest) = (name(0), name(1));
    let mut stage = stage;
    stage.options = stage.options.clone().set("WALE_RESTORE_LABEL", &label);
    let (sibling, _sibling_sidecar) = stage.restore("sibling", own, &[]);
    sibling.start();
    sibling.wait_promoted();
    rows(&sibling, 3);
    let segment = archive_all(&sibling);
    assert!(segment.starts_with("00000003"), "{segment}");

    // LATEST would be the older one, which leads to timelines 1 and 3.
    stage.options = stage.options.clone().set("WALE_RESTORE_LABEL", &newest);
    let wishes = [
        "recovery_target_timeline = '1'",
        "recovery_target_timeline = '3'",
        "recovery_target_timeline = '9'",
        "",
    ];
    for (number, wish) in wishes.into_iter().enumerate() {
        let (cluster, options) = stage.restore_options(&format!("refused{number}"), wish);
        let mut refused = Sidecar::launch(&stage.sandbox, WALE, &options);
        let status = refused.wait_exit(Duration::from_secs(30));
        let log = refused.log_text();
        assert_eq!(status.code(), Some(65), "{wish}: {log}");
        assert!(
            log.contains("timeline") && log.contains("HINT"),
            "{wish}: {log}"
        );
        let left = shell(&format!("find {} -mindepth 1", cluster.data.display()));
        assert_eq!(left, "", "{wish}");
    }
    stage.options = stage.options.clone().set("WALE_RESTORE_LABEL", "LATEST");
    let stay = "recovery_target_timeline = '2'";
    let (restored, _sidecar) = stage.restore("restored", stay, &["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(fingerprint(&restored, "t"), noted);
}

/// Some rows that say who wrote them.
fn rows(cluster: &Cluster, id: i32) {
    cluster.sql(&format!(
        "insert into t select {id}, g from generate_series(1, 100) g"
    ));
}

/// Waits until the sidecar has refused `name` twice: what it had pushed ahead the first time has landed by then.
fn wait_refused(sidecar: &Sidecar, name: &str) {
    let words = format!("{name} is in the archive already, with other content");
    wait_until(&words, LONG, || {
        (sidecar.log_text().matches(&words).count() > 1).then_some(())
    });
}
