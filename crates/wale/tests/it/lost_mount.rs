//! The archive's volume is not mounted when everything starts: what lies under its path is an empty folder.

use std::time::Duration;

use wale_testkit::{Sidecar, shell, wait_until};

use crate::support::{Stage, WALE};

const LONG: Duration = Duration::from_secs(120);

#[test]
fn fault_68_after_a_reboot_without_the_volume_nothing_is_archived_into_the_bare_mount_point() {
    let mut stage = Stage::new("mount", 15);
    // A list of a place where nothing is says so.
    let listed = stage.sidecar.verb(WALE, "wale", &["backup-list"]);
    assert_eq!(listed.code(), 0);
    let told = listed.stderr;
    assert!(told.contains("holds no archive"), "{told}");
    stage.cluster.sql("create table t (i int)");
    // wale comes to a server that runs for long: nothing is in its way.
    stage.archive_all();
    let probe = stage.sidecar.get("/readyz").text();
    assert!(probe.contains("note: a new archive was begun"), "{probe}");
    let taken = stage.sidecar.get("/backup-push");
    assert_eq!(taken.status, 200, "{}", taken.text());
    let probe = stage.sidecar.get("/readyz").text();
    assert!(!probe.contains("note:"), "{probe}");
    stage.archive_all();

    // The reboot: no process remembers, the volume is away.
    stage.sidecar.kill();
    let (archive, aside) = (stage.archive(), stage.sandbox.folder("aside"));
    shell(&format!("mv {}/* {}", archive.display(), aside.display()));
    stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
    wait_until("the reason in /readyz", LONG, || {
        let probe = stage.sidecar.get("/readyz");
        let told = probe.text().contains("was there and is gone");
        (told && probe.status == 503).then_some(())
    });
    stage.cluster.sql("insert into t values (1)");
    let waiting = stage.cluster.switch_wal();
    let refused = stage.sidecar.get(&format!("/wal-push/{waiting}"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("--new-archive"));
    // The verb remembers as little.
    let file = stage
        .cluster
        .wal
        .join(&waiting)
        .to_string_lossy()
        .into_owned();
    let verb = stage.sidecar.verb(WALE, "wale", &["wal-push", &file]);
    assert_eq!(verb.code(), 75, "{}", verb.stderr);
    let data = stage.cluster.data.to_string_lossy().into_owned();
    let backup = stage.sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(backup.code(), 75, "{}", backup.stderr);
    let left = std::fs::read_dir(&archive).unwrap().count();
    assert_eq!(left, 0, "nothing was written");

    // It is mounted.
    shell(&format!("mv {}/* {}", aside.display(), archive.display()));
    let pushed = stage.sidecar.get(&format!("/wal-push/{waiting}"));
    assert_eq!(pushed.status, 200, "{}", pushed.text());
    wait_until("readiness to come back", LONG, || {
        (stage.sidecar.get("/readyz").status == 200).then_some(())
    });

    // It is lost for good, and somebody says so.
    stage.sidecar.kill();
    shell(&format!("rm -r {}/*", archive.display()));
    stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
    let begun = stage
        .sidecar
        .verb(WALE, "wale", &["backup-push", "--new-archive", &data]);
    assert_eq!(begun.code(), 0, "{}", begun.stderr);
    stage.archive_all();
}
