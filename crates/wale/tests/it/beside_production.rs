//! A copy that is restored beside production and archives into production's archive: reported, and undone as the guide
//! says.

use std::time::Duration;

use wale_testkit::{shell, wait_until};

use crate::support::{Stage, WALE, archive_all};

const LIMIT: Duration = Duration::from_mins(2);

#[test]
fn fault_105_a_copy_that_takes_latest_away_from_production_is_told_and_undone() {
    let stage = Stage::new("beside", 15);
    let production = &stage.cluster;
    production.sql("create table t (v int)");
    stage.backup();
    let position = production.sql("select pg_current_wal_lsn()");
    production.sql("insert into t values (1)");
    stage.archive_all();
    assert!(
        !stage
            .sidecar
            .get("/readyz")
            .text()
            .contains("note: another server")
    );

    // The drill: its archiving is on, into the same archive.
    let target = format!("recovery_target_lsn = '{position}'\nrecovery_target_action = 'promote'");
    let (copy, copys) = stage.restore("copy", &target, &[]);
    copy.start();
    copy.wait_promoted();
    assert!(archive_all(&copy).starts_with("00000002"));
    let taken = copys.get("/backup-push");
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert!(!taken.text().contains("warning"), "{}", taken.text());
    let copys_backup = latest(&stage);
    assert!(copys_backup.starts_with("base_00000002"), "{copys_backup}");
    copy.kill();
    drop(copys);

    // Production hears of it: from its backup, and from then on.
    production.sql("insert into t values (2)");
    let told = stage.sidecar.get("/backup-push");
    assert_eq!(told.status, 200);
    let text = told.text();
    assert!(text.contains("warning: LATEST will not choose"), "{text}");
    let verb = stage.backup();
    assert!(verb.stderr.contains("LATEST will not choose"), "{verb:?}");
    wait_until("the note", LIMIT, || noted(&stage).then_some(()));
    assert_eq!(stage.sidecar.get("/readyz").status, 200);
    let status = stage.sidecar.get("/status").text();
    assert!(
        status.contains(r#""newest_timeline_is_anothers":"another server"#),
        "{status}"
    );
    assert!(stage.sidecar.log_text().contains("went on in this archive"));
    production.stop("fast");
    let port = stage.options.port;
    production.configure(&[
        format!("restore_command = '{WALE} client fetch %f \"%p\" --url http://127.0.0.1:{port}'"),
        "recovery_target_timeline = 'current'".into(),
    ]);
    let signal = production.data.join("recovery.signal");
    shell(&format!("touch {0}; chown postgres: {0}", signal.display()));
    production.start();
    production.wait_promoted();
    assert_eq!(production.sql("select count(*) from t"), "2");
    stage.backup();
    let own = latest(&stage);
    assert!(own.starts_with("base_00000003"), "{own}");
    let told = stage.sidecar.get("/backup-push");
    assert!(!told.text().contains("warning"), "{}", told.text());
    wait_until("no note", LIMIT, || (!noted(&stage)).then_some(()));
    let delete = ["delete", "target", &copys_backup, "--confirm"];
    let deleted = stage.sidecar.verb(WALE, "wale", &delete);
    assert_eq!(deleted.code(), 0, "{deleted:?}");
}

/// A copy's offline backup, of a timeline that the archive does not know: the backup says so, and can be deleted by name.
#[test]
fn fault_105_an_offline_backup_of_a_copy_is_told_and_can_be_deleted() {
    let stage = Stage::new("beside-offline", 15);
    let production = &stage.cluster;
    production.sql("create table t (v int)");
    stage.backup();
    stage.archive_all();
    let production_backup = latest(&stage);
    let off = ["archive_mode = off".to_owned()];
    let (copy, copys) = stage.restore("copy", "", &off);
    copy.start();
    copy.wait_promoted();
    copy.stop("fast");
    let data = copy.data.to_string_lossy().into_owned();
    let taken = copys.verb(WALE, "wale", &["backup-push", "--while-offline", &data]);
    assert_eq!(taken.code(), 0, "{taken:?}");
    assert!(
        taken.stderr.contains("no history of timeline 2") && taken.stderr.contains("delete target"),
        "{taken:?}"
    );
    let copys_backup = latest(&stage);
    assert!(copys_backup.starts_with("base_00000002"), "{copys_backup}");
    let told = stage.sidecar.get("/backup-push").text();
    assert!(told.contains("LATEST will not choose"), "{told}");
    let delete = ["delete", "target", &copys_backup, "--confirm"];
    let deleted = stage.sidecar.verb(WALE, "wale", &delete);
    assert_eq!(deleted.code(), 0, "{deleted:?}");
    let own = latest(&stage);
    assert!(
        own.starts_with("base_00000001") && own != production_backup,
        "{own}"
    );
}

fn latest(stage: &Stage) -> String {
    let listed = stage.sidecar.verb(WALE, "wale", &["backup-list", "LATEST"]);
    let line = listed.stdout.lines().last().unwrap_or_default();
    line.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn noted(stage: &Stage) -> bool {
    stage
        .sidecar
        .get("/readyz")
        .text()
        .contains("note: another server")
}
