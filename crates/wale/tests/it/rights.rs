//! The least rights that the guide gives to whoever archives, deletes and restores, on the servers of the tests that look at
//! rights: each does its own with them, and is refused the rest.

use std::time::Duration;

use wale_testkit::azure::{Azurite, rights_on_the_container};
use wale_testkit::s3::{BUCKET, S3Server};
use wale_testkit::swift::{Role, SwiftServer};
use wale_testkit::{Sidecar, SidecarOptions, StoreServer, wale_command};

use crate::azure::AzureStage;
use crate::s3_stage::{PATH, S3Stage, StoreStage};
use crate::support::{WALE, fingerprint, restore_options};
use crate::swift_stage::SwiftStage;

/// Status and messages of a verb with these settings.
fn verb(options: &SidecarOptions, arguments: &[&str]) -> (i32, String) {
    let mut command = wale_command(WALE, "wale", options);
    let output = command.args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), stderr)
}

const RETAIN: [&str; 4] = ["delete", "--confirm", "retain", "1"];

impl<S: StoreServer> StoreStage<S> {
    /// The stage's own settings are those of who archives. `count` says how many objects have this in their names.
    fn assert_each_does_its_own(
        &self,
        retention: &SidecarOptions,
        restore: &SidecarOptions,
        count: impl Fn(&S, &str) -> usize,
    ) {
        let count = |text: &str| count(&self.server, text);
        self.stage.backup();
        self.segment();
        self.stage.backup();
        self.segment();
        let noted = fingerprint(&self.stage.cluster, "t");
        self.hold_archiver();
        assert_eq!(count("sentinel"), 2);

        // Who restores reads, and neither stores nor deletes.
        let unstored = self.segment();
        let file = self.stage.cluster.wal.join(&unstored);
        let (code, text) = verb(restore, &["wal-push", &file.to_string_lossy()]);
        assert_eq!(code, 77, "{text}");
        assert!(text.contains("permission denied"), "{text}");
        assert_eq!(count(&unstored), 0);
        let (code, text) = verb(restore, &RETAIN);
        assert_ne!(code, 0, "{text}");
        assert_eq!(count("sentinel"), 2);
        let major = self.stage.cluster.server.major;
        let (cluster, options) =
            restore_options(&self.stage.sandbox, restore, major, "restored", "");
        let sidecar = Sidecar::start(&self.stage.sandbox, WALE, &options);
        sidecar.wait_ready(Duration::from_secs(120));
        cluster.configure(&["archive_mode = off".into()]);
        cluster.start();
        cluster.wait_promoted();
        assert_eq!(fingerprint(&cluster, "t"), noted);

        // Who deletes need not be who archives.
        let is_another = retention.environment != self.stage.options.environment;
        if is_another {
            let (code, text) = verb(&self.stage.options, &RETAIN);
            assert_ne!(code, 0, "{text}");
            assert_eq!(count("sentinel"), 2, "{text}");
        }
        assert_eq!(self.stage.sidecar.get("/readyz").status, 200);
        let (code, text) = verb(retention, &RETAIN);
        assert_eq!(code, 0, "{text}");
        assert_eq!(count("sentinel"), 1);
    }
}

/// The policies of the guide: of who archives, who deletes and who restores.
fn policies() -> [serde_json::Value; 3] {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/s3.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```json\n").skip(1).map(|rest| {
        let block = rest.split("```").next().unwrap();
        let block = block.replace(":::bucket/path/", &format!(":::{BUCKET}/{PATH}/"));
        let block = block.replace(":::bucket", &format!(":::{BUCKET}"));
        serde_json::from_str(&block).unwrap()
    });
    let blocks: Vec<serde_json::Value> = blocks.collect();
    blocks.try_into().expect("three policies")
}

#[test]
fn on_s3_each_does_its_own_with_the_policies_of_the_guide() {
    let mut s3 = S3Stage::moto("s3-rights");
    let [archiver, mut retention, restore] = policies();
    // For many in one request moto wants the right to the bucket, where Amazon wants that to each object.
    let statements = retention["Statement"].as_array_mut().unwrap();
    statements.push(serde_json::json!({
        "Effect": "Allow",
        "Action": "s3:DeleteObject",
        "Resource": format!("arn:aws:s3:::{BUCKET}"),
    }));
    let [archiver, retention, restore] = [
        ("archiver", archiver),
        ("retention", retention),
        ("restore", restore),
    ]
    .map(|(name, policy)| {
        let (key, secret) = s3.server.user(name, &policy.to_string());
        let options = s3.stage.options.clone();
        options
            .set("AWS_ACCESS_KEY_ID", &key)
            .set("AWS_SECRET_ACCESS_KEY", &secret)
    });
    s3.stage.options = archiver;
    s3.server.enforce_rights();
    s3.restart();
    let count = |server: &S3Server, text: &str| {
        server.lift_rights();
        let found = server.objects_with(text).len();
        server.enforce_rights();
        found
    };
    s3.assert_each_does_its_own(&retention, &restore, count);
    // Who archives takes its own notes back.
    assert_eq!(count(&s3.server, "wale_attempt.json"), 0);
}

#[test]
fn on_azure_each_does_its_own_with_the_signatures_of_the_guide() {
    let signed = |options: SidecarOptions, permissions: &str| {
        options
            .unset("WABS_ACCESS_KEY")
            .set("WABS_SAS_TOKEN", rights_on_the_container(permissions))
    };
    let azure = AzureStage::with("azure-rights", Azurite::start, |options| {
        signed(options, "rcwl")
    });
    let with = |permissions| signed(azure.stage.options.clone(), permissions);
    azure.assert_each_does_its_own(&with("rcwdl"), &with("rl"), |server, text| {
        server.objects_with(text).len()
    });
}

#[test]
fn on_swift_each_does_its_own_with_the_lists_of_the_guide() {
    let Some(swift) = SwiftStage::start("swift-rights", |options| options) else {
        return;
    };
    let mut restore = swift.stage.options.clone();
    let reader = SwiftServer::settings_of(Role::Reader, swift.proxy.port(), PATH);
    restore.environment.extend(reader);
    swift.assert_each_does_its_own(&swift.stage.options, &restore, |server, text| {
        server.objects_with(text).len()
    });
}
