//! Swift as an operator meets it: the main job, with large objects, by each of the logins, and what is told of mistakes.

use std::time::Duration;

use wale_testkit::s3::BUCKET;
use wale_testkit::swift::{Keystone, Role, SwiftServer};
use wale_testkit::{Cluster, Sandbox, Sidecar, StoreServer};

use crate::s3::{wale, whole_run_on};
use crate::s3_stage::PATH;
use crate::support::WALE;
use crate::swift_stage::SwiftStage;

#[test]
fn archive_back_up_lose_everything_restore_to_a_point_in_time_on_swift() {
    // Segments of 5 MiB.
    let settings = |options: wale_testkit::SidecarOptions| options.set("WALE_MEMORY", "64MiB");
    let Some(mut swift) = SwiftStage::start("swift-run", settings) else {
        return;
    };
    swift.make_noise();
    let mut segments = Vec::new();
    let (restored, sidecar) = whole_run_on(&mut swift, |server| {
        // WAL-E's names: the slash is part of them.
        let objects = server.objects();
        let start = format!("/{PATH}/");
        assert!(
            objects.iter().all(|name| name.starts_with(&start)),
            "{objects:?}"
        );
        segments = server.segments();
        assert!(
            segments.len() >= 2,
            "the backup has a large object: {segments:?}"
        );
    });
    assert_a_deletion_takes_segments_along(&swift, &restored, &sidecar, &segments);
}

/// A backup that goes takes its segments along.
fn assert_a_deletion_takes_segments_along(
    swift: &SwiftStage,
    restored: &Cluster,
    sidecar: &Sidecar,
    segments: &[String],
) {
    let data = restored.data.to_string_lossy().into_owned();
    let pushed = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(pushed.code(), 0, "{}", pushed.stderr);
    let retained = sidecar.verb(WALE, "wal-e", &["delete", "--confirm", "retain", "1"]);
    assert_eq!(retained.code(), 0, "{}", retained.stderr);
    let left = swift.server.segments();
    assert!(
        !left.is_empty() && left.iter().all(|name| !segments.contains(name)),
        "{left:?}"
    );
}

/// Settings with some of them changed; an empty value takes a setting away.
fn changed(port: u16, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut settings = SwiftServer::settings_of(Role::Owner, port, PATH);
    for (name, value) in changes {
        settings.retain(|(n, _)| n != name);
        if !value.is_empty() {
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    settings
}

/// Settings of a login at this URL as the tests' user of Keystone, with some of them changed.
fn with_keystone(url: &str, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let base = [
        ("SWIFT_AUTHURL", url),
        ("SWIFT_AUTH_VERSION", ""),
        ("SWIFT_PASSWORD", Keystone::PASSWORD),
        ("SWIFT_USER", Keystone::USER),
        // The first of the catalog is another.
        ("SWIFT_REGION", "One"),
    ];
    changed(0, &[&base[..], changes].concat())
}

/// The status and messages of a verb.
fn listed(settings: &[(String, String)]) -> (i32, String) {
    let output = wale(settings, &["backup-list"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    for secret in ["testing", Keystone::PASSWORD, Keystone::CREDENTIAL_SECRET] {
        assert!(!stderr.contains(secret), "no secret is told: {stderr}");
    }
    (output.status.code().unwrap_or(-1), stderr)
}

#[test]
fn each_login_is_taken_as_wal_e_spelled_it() {
    let sandbox = Sandbox::new("swift-logins");
    let Some(server) = SwiftServer::start(&sandbox) else {
        wale_testkit::skip(
            "swift-logins",
            "Swift is not installed: run scripts/setup.sh",
        );
        return;
    };
    let keystone = Keystone::start(&server, server.port());
    let plain = format!("http://127.0.0.1:{}", keystone.port());
    let third = format!("{plain}/v3");
    let of = with_keystone;
    let credential = [
        ("SWIFT_USER", ""),
        ("SWIFT_PASSWORD", ""),
        ("OS_APPLICATION_CREDENTIAL_ID", Keystone::CREDENTIAL_ID),
        (
            "OS_APPLICATION_CREDENTIAL_SECRET",
            Keystone::CREDENTIAL_SECRET,
        ),
    ];
    for settings in [
        changed(server.port(), &[]),
        of(&plain, &[("SWIFT_TENANT", Keystone::PROJECT)]),
        of(&plain, &[("SWIFT_USER", "backups:wale")]),
        of(&third, &[("SWIFT_TENANT", Keystone::PROJECT)]),
        of(
            &plain,
            &[
                ("SWIFT_AUTH_VERSION", "3"),
                ("SWIFT_PROJECT_NAME", Keystone::PROJECT),
                ("SWIFT_PROJECT_DOMAIN_NAME", Keystone::DOMAIN),
                ("SWIFT_USER_DOMAIN_ID", "default"),
            ],
        ),
        of(&third, &credential),
    ] {
        let (status, stderr) = listed(&settings);
        assert_eq!(status, 0, "{settings:?}: {stderr}");
    }
    assert_eq!(keystone.logins(), 5);
}

#[test]
fn fault_32_what_is_wrong_with_a_login_or_a_container_has_a_hint_of_its_own() {
    let sandbox = Sandbox::new("swift-mistakes");
    let Some(server) = SwiftServer::start(&sandbox) else {
        wale_testkit::skip(
            "swift-mistakes",
            "Swift is not installed: run scripts/setup.sh",
        );
        return;
    };
    let keystone = Keystone::start(&server, server.port());
    let third = format!("http://127.0.0.1:{}/v3", keystone.port());
    let of = with_keystone;
    let project = ("SWIFT_TENANT", Keystone::PROJECT);
    for (settings, word) in [
        (
            changed(server.port(), &[("WALE_SWIFT_PREFIX", "swift://gone/x")]),
            "does not exist",
        ),
        (
            changed(server.port(), &[("SWIFT_PASSWORD", "wrong")]),
            "is refused",
        ),
        (
            changed(server.port(), &[("SWIFT_AUTH_VERSION", "3"), project]),
            "no login service",
        ),
        (
            of(&third, &[project, ("SWIFT_REGION", "Three")]),
            "region Three",
        ),
        (
            of(&third, &[project, ("SWIFT_USER_DOMAIN_NAME", "Other")]),
            "is refused",
        ),
        (
            of(&third, &[project, ("SWIFT_ENDPOINT_TYPE", "adminURL")]),
            "admin",
        ),
        (of(&third, &[]), "SWIFT_PROJECT_NAME"),
    ] {
        let (status, stderr) = listed(&settings);
        assert_eq!(status, 78, "{stderr}");
        assert!(
            stderr.contains(word) && stderr.contains("HINT"),
            "{word}: {stderr}"
        );
    }
    // An archive under WAL-G's names is not taken for an empty one.
    let reply = server.send(
        "PUT",
        &format!("/{BUCKET}/{PATH}/basebackups_005/x"),
        &[],
        b"x",
    );
    assert_eq!(reply.status, 201);
    let (status, stderr) = listed(&changed(server.port(), &[]));
    assert_eq!(status, 78, "{stderr}");
    assert!(stderr.contains("WALE_SWIFT_NAMES"), "{stderr}");
    for names in ["wal-e", "wal-g"] {
        let (status, stderr) = listed(&changed(server.port(), &[("WALE_SWIFT_NAMES", names)]));
        assert_eq!(status, 0, "{stderr}");
    }
    wale_testkit::wait_until("no trial to be left", Duration::from_secs(10), || {
        server.objects_with("wale_probe").is_empty().then_some(())
    });
}
