//! The sidecar's contract (product.md 2): modes, schedule, routes, settings.

use std::time::Duration;

use wale_testkit::{ClusterOptions, free_port, wait_until, wale_command};

use crate::support::{Stage, WALE};

#[test]
fn backup_push_mode_takes_a_backup_at_once_while_wal_is_accepted() {
    let stage = Stage::with("pushmode", &ClusterOptions::default(), |options| {
        options.set("START_MODE", "BACKUP_PUSH")
    });
    wait_until("the backup of BACKUP_PUSH", Duration::from_secs(60), || {
        (stage.sidecar.get("/backups").json().as_array()?.len() == 1).then_some(())
    });
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    assert_eq!(stage.sidecar.get(&format!("/wal/{segment}")).status, 200);
    wait_until("readiness", Duration::from_secs(10), || {
        (stage.sidecar.get("/readyz").status == 200).then_some(())
    });
}

/// Five fields; the shortest schedule there is.
#[test]
fn the_schedule_takes_a_backup() {
    let stage = Stage::with("cron", &ClusterOptions::default(), |options| {
        options
            .set("CRON_TIMING", "* * * * *")
            .set("TZ", "Europe/Berlin")
    });
    wait_until("the scheduled backup", Duration::from_secs(100), || {
        (!stage.sidecar.get("/backups").json().as_array()?.is_empty()).then_some(())
    });
    let status = stage.sidecar.get("/status").text();
    assert!(status.contains("next"), "{status}");
}

#[test]
fn the_routes_of_the_original_answer() {
    let stage = Stage::new("routes", 15);
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    assert_eq!(stage.sidecar.get("/ping").text().trim(), "pong");
    for route in [
        "/startupz",
        "/livez",
        "/readyz",
        "/status",
        "/metrics",
        "/backups",
    ] {
        assert_eq!(stage.sidecar.get(route).status, 200, "{route}");
    }
    assert_eq!(stage.sidecar.get(&format!("/push/{segment}")).status, 200);
    assert_eq!(
        stage
            .sidecar
            .get(&format!("/wal-push/pg_wal/{segment}"))
            .status,
        200
    );
    // The original's fetch writes the file into the WAL directory, never beside a running primary.
    let file = stage.cluster.wal.join(&segment);
    let bytes = std::fs::read(&file).unwrap();
    let fetch = |name: &str| stage.sidecar.get(&format!("/wal-fetch/{name}"));
    assert_eq!(fetch(&segment).status, 409);
    stage.cluster.stop("fast");
    // The last checkpoint may have recycled it.
    let _ = std::fs::remove_file(&file);
    // Nor for one that starts as a primary: its own WAL may be the only copy.
    assert_eq!(fetch(&segment).status, 409);
    let signal = stage.cluster.data.join("recovery.signal");
    std::fs::write(&signal, "").unwrap();
    assert_eq!(fetch(&segment).status, 200);
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    // Not over a file that still waits to be archived.
    let ready = stage
        .cluster
        .wal
        .join(format!("archive_status/{segment}.ready"));
    std::fs::write(&ready, "").unwrap();
    assert_eq!(fetch(&segment).status, 409);
    std::fs::remove_file(&ready).unwrap();
    assert_eq!(fetch("0000000100000000000000F0").status, 404);
    assert!(!stage.cluster.wal.join("0000000100000000000000F0").exists());
    let body = stage.sidecar.get(&format!("/wal/{segment}"));
    assert!(
        body.head
            .contains(&format!("content-length: {}", bytes.len())),
        "{}",
        body.head
    );
    assert_eq!(body.body, bytes);
    assert_eq!(stage.sidecar.get("/nothing").status, 404);
}

#[test]
fn all_wrong_settings_are_told_together() {
    let stage = Stage::new("settings", 15);
    let mut options = stage.options.clone();
    options.port = free_port();
    let options = options
        .set("START_MODE", "SOMETHING")
        .set("CRON_TIMING", "61 * * * *")
        .set("WALE_LISTEN_PORT", "seventy")
        .set("WALE_COMPRESSION", "zip")
        .set(
            "RECOVERY_ADDITION",
            "recovery_target_time = 2026-11-23 14:00:00",
        )
        .set("WALE_FILE_PREFIX", "");
    let output = wale_command(WALE, "wale", &options)
        .arg("serve")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{text}");
    for name in [
        "START_MODE",
        "CRON_TIMING",
        "WALE_LISTEN_PORT",
        "WALE_COMPRESSION",
        "WALE_FILE_PREFIX",
    ] {
        assert!(text.contains(name), "{name} is not told: {text}");
    }
    assert!(
        text.contains("CONTINOUS_BACKUP"),
        "the modes are listed: {text}"
    );
}

#[test]
fn a_token_guards_every_route_but_the_probes() {
    let stage = Stage::with("token", &ClusterOptions::default(), |options| {
        options.set("WALE_HTTP_TOKEN", "s3cret-canary")
    });
    assert_eq!(stage.sidecar.get("/ping").status, 200);
    assert_eq!(stage.sidecar.get("/startupz").status, 200);
    for route in [
        "/status",
        "/backups",
        "/wal-push/000000010000000000000001",
        "/backup-push",
    ] {
        assert_eq!(stage.sidecar.get(route).status, 401, "{route}");
    }
    let raw = "GET /backups HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret-canary\r\nConnection: close\r\n\r\n";
    assert_eq!(
        wale_testkit::request(stage.sidecar.port, raw)
            .unwrap()
            .status,
        200
    );
    let show = stage.sidecar.verb(WALE, "wale", &["config", "show"]);
    assert_eq!(show.code(), 0, "{}", show.stderr);
    assert!(!show.stdout.contains("s3cret-canary") && show.stdout.contains("WALE_HTTP_TOKEN"));
    assert!(!stage.sidecar.log_text().contains("s3cret-canary"));
}
