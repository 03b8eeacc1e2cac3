//! `wale copy`: an archive into another store, and restores from the copy alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use wale_testkit::azure::Azurite;
use wale_testkit::gcs::GcsServer;
use wale_testkit::s3::S3Server;
use wale_testkit::swift::SwiftServer;
use wale_testkit::{
    Cluster, ClusterOptions, Exit, Sandbox, Sidecar, SidecarOptions, StoreServer, shell,
    wale_command,
};

use crate::support::{Stage, WALE, archive_all, fingerprint, restore_options};

/// Writes the settings of a destination.
fn settings(sandbox: &Sandbox, name: &str, settings: &[(String, String)]) -> String {
    let path = sandbox.path().join(name);
    let lines = settings
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"));
    std::fs::write(&path, lines.collect::<String>()).unwrap();
    path.display().to_string()
}

fn in_folder(folder: &Path) -> Vec<(String, String)> {
    let prefix = format!("file://localhost{}", folder.display());
    vec![("WALE_FILE_PREFIX".to_owned(), prefix)]
}

fn wale(options: &SidecarOptions, arguments: &[&str]) -> Exit {
    let output = wale_command(WALE, "wale", options)
        .args(arguments)
        .output()
        .unwrap();
    Exit {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Copies, and gives the report.
fn copy(options: &SidecarOptions, to: &str, more: &[&str]) -> Value {
    let exit = wale(options, &[&["copy", "--to", to, "--json"], more].concat());
    assert_eq!(exit.code(), 0, "{}{}", exit.stdout, exit.stderr);
    serde_json::from_str(&exit.stdout).unwrap()
}

/// Two folders hold the same objects.
fn assert_same(one: &Path, other: &Path) {
    shell(&format!("diff -r {} {}", one.display(), other.display()));
}

fn rows(cluster: &Cluster, from: u32) {
    cluster.sql(&format!(
        "insert into t select {from}, g from generate_series(1, 3000) g"
    ));
}

/// An archive with two timelines, two backups, and a target between them.
struct Original {
    stage: Stage,
    /// What table `t` held at the target, at the end of timeline 1, and at the end of timeline 2.
    past: String,
    end_of_1: String,
    end_of_2: String,
}

impl Original {
    fn new(name: &str) -> Self {
        let stage = small_stage(name);
        let first = &stage.cluster;
        first.sql("create table t (id int, v int)");
        stage.backup();
        rows(first, 1);
        let past = fingerprint(first, "t");
        first.sql("select pg_create_restore_point('between')");
        rows(first, 2);
        stage.archive_all();
        let end_of_1 = fingerprint(first, "t");
        first.kill();
        let (second, sidecar) = stage.restore("second", "", &[]);
        second.start();
        second.wait_promoted();
        let data = second.data.to_string_lossy().into_owned();
        let exit = sidecar.verb(WALE, "wale", &["backup-push", &data]);
        assert_eq!(exit.code(), 0, "{}", exit.stderr);
        rows(&second, 3);
        archive_all(&second);
        let end_of_2 = fingerprint(&second, "t");
        second.kill();
        Self {
            stage,
            past,
            end_of_1,
            end_of_2,
        }
    }

    /// Each target, restored from the archive that `options` name alone.
    fn restore_all(&self, options: &SidecarOptions) {
        let one = "recovery_target_timeline = '1'";
        let between = "recovery_target_name = 'between'\nrecovery_target_action = 'promote'";
        let major = self.stage.cluster.server.major;
        for (name, addition, expected) in [
            ("latest", "", &self.end_of_2),
            ("one", one, &self.end_of_1),
            ("past", &format!("{one}\n{between}"), &self.past),
        ] {
            let sandbox = &self.stage.sandbox;
            let (restored, options) = restore_options(sandbox, options, major, name, addition);
            let sidecar = Sidecar::start(sandbox, WALE, &options);
            sidecar.wait_ready(Duration::from_secs(120));
            restored.configure(&["archive_mode = off".into()]);
            restored.start();
            restored.wait_promoted();
            assert_eq!(&fingerprint(&restored, "t"), expected, "{name}");
            restored.kill();
        }
    }
}

fn small_stage(name: &str) -> Stage {
    let cluster = ClusterOptions {
        segment_mib: 1,
        ..ClusterOptions::default()
    };
    Stage::with(name, &cluster, |options| options)
}

/// The copy fails in the middle at first, and is taken up. The original goes away; each target is restored from the copy
/// alone. Then the copy is copied back.
#[test]
fn a_copy_in_s3_alone_restores_every_target_of_the_original() {
    let original = Original::new("copy");
    let (stage, sandbox) = (&original.stage, &original.stage.sandbox);
    let server_sandbox = Sandbox::new("copy-server");
    let server = S3Server::moto(&server_sandbox);
    let in_s3 = S3Server::settings(server.port(), "copy");
    let failing = sandbox.path().join("faults");
    std::fs::write(
        &failing,
        "put key=wal_005/00000001000000000000000A denied\n",
    )
    .unwrap();
    let mut faulty = in_s3.clone();
    let control = failing.display().to_string();
    faulty.push(("WALE_FAULT_CONTROL".to_owned(), control));
    let faulty = settings(sandbox, "faulty.conf", &faulty);
    let to = settings(sandbox, "s3.conf", &in_s3);
    let planned = copy(&stage.options, &to, &["--dry-run"]);
    assert!(server.objects().is_empty());
    assert_eq!(planned["complete"], false);
    let exit = wale(&stage.options, &["copy", "--to", &faulty, "-p", "1"]);
    assert_eq!(exit.code(), 77, "{}", exit.stderr);
    let begun = server.objects().len();
    assert!(begun > 1, "wale.json and some WAL");
    let report = copy(&stage.options, &to, &[]);
    assert_eq!(report["complete"], true, "{report:#}");
    assert_eq!(report["backups"].as_array().unwrap().len(), 2);
    assert!(report["there"]["objects"].as_u64().unwrap() >= begun as u64 - 1);
    let again = copy(&stage.options, &to, &["--trust-sizes"]);
    assert_eq!(again["copied"]["objects"], 0, "{again:#}");
    println!("copied {} in {} s", report["copied"], report["seconds"]);

    let aside = sandbox.path().join("aside");
    std::fs::rename(stage.archive(), &aside).unwrap();
    let from_s3 = stage.options.clone().on_s3(in_s3);
    original.restore_all(&from_s3);
    let back = sandbox.folder("back");
    let to = settings(sandbox, "back.conf", &in_folder(&back));
    let report = copy(&from_s3, &to, &[]);
    assert_eq!(report["complete"], true, "{report:#}");
    assert_same(&aside, &back);
}

/// The same into another store, without what goes wrong on the way: the copy alone restores each target, and copied back it is
/// byte for byte the original.
fn copy_restores<S: StoreServer>(name: &str, start: impl FnOnce(&Sandbox) -> S) {
    let original = Original::new(name);
    let (stage, sandbox) = (&original.stage, &original.stage.sandbox);
    let server_sandbox = Sandbox::new(&format!("{name}-server"));
    let server = start(&server_sandbox);
    let there = S::settings(server.port(), "some/copy");
    let to = settings(sandbox, "there.conf", &there);
    let report = copy(&stage.options, &to, &[]);
    assert_eq!(report["complete"], true, "{report:#}");
    assert_eq!(report["backups"].as_array().unwrap().len(), 2);
    let objects = server.objects();
    // Google's and Swift's names begin with a slash, as WAL-E's do.
    let below = |key: &String| key.trim_start_matches('/').starts_with("some/copy/");
    assert!(objects.iter().all(below), "{objects:?}");
    let again = copy(&stage.options, &to, &[]);
    assert_eq!(again["copied"]["objects"], 0, "{again:#}");

    let aside = sandbox.path().join("aside");
    std::fs::rename(stage.archive(), &aside).unwrap();
    let from_there = stage.options.clone().on_s3(there);
    original.restore_all(&from_there);
    let back = sandbox.folder("back");
    let to = settings(sandbox, "back.conf", &in_folder(&back));
    let report = copy(&from_there, &to, &[]);
    assert_eq!(report["complete"], true, "{report:#}");
    assert_same(&aside, &back);
}

#[test]
fn a_copy_in_google_cloud_storage_alone_restores_every_target_of_the_original() {
    copy_restores("copy-gcs", GcsServer::start);
}

#[test]
fn a_copy_in_azure_alone_restores_every_target_of_the_original() {
    copy_restores("copy-azure", Azurite::start);
}

#[test]
fn a_copy_in_swift_alone_restores_every_target_of_the_original() {
    if !SwiftServer::is_installed() {
        wale_testkit::skip("copy-swift", "Swift is not installed: run scripts/setup.sh");
        return;
    }
    let server = |sandbox: &Sandbox| SwiftServer::start(sandbox).expect("it is installed");
    copy_restores("copy-swift", server);
}

/// What is in the way is named, and stays; so is a place that is the source itself, or another cluster's.
#[test]
fn a_copy_refuses_to_overwrite_and_says_so() {
    let stage = small_stage("copy-refused");
    stage.backup();
    stage.archive_all();
    let segment = stage.wal_names().pop().unwrap();
    let folder = stage.sandbox.folder("second");
    let to = settings(&stage.sandbox, "second.conf", &in_folder(&folder));
    copy(&stage.options, &to, &[]);
    let object = folder.join(format!("wal_005/{segment}.zst"));
    let size = std::fs::metadata(&object).unwrap().len();
    std::fs::write(&object, vec![7; usize::try_from(size).unwrap()]).unwrap();
    let exit = wale(&stage.options, &["copy", "--to", &to]);
    assert_eq!(exit.code(), 73, "{}", exit.stderr);
    assert!(exit.stderr.contains(&segment), "{}", exit.stderr);
    assert_eq!(std::fs::read(&object).unwrap()[0], 7);
    // The same folder under another name.
    let link = stage.sandbox.path().join("link");
    std::os::unix::fs::symlink(stage.archive(), &link).unwrap();
    let to = settings(&stage.sandbox, "link.conf", &in_folder(&link));
    let exit = wale(&stage.options, &["copy", "--to", &to]);
    assert_eq!(exit.code(), 64, "{}", exit.stderr);
    assert!(
        exit.stderr.contains("the archive itself"),
        "{}",
        exit.stderr
    );
    let missing = stage
        .sandbox
        .path()
        .join("missing.conf")
        .display()
        .to_string();
    let exit = wale(&stage.options, &["copy", "--to", &missing]);
    assert_eq!(exit.code(), 78, "{}", exit.stderr);
    assert!(exit.stderr.contains("missing.conf"), "{}", exit.stderr);
}

/// Archives of the real WAL-G's, with chains of deltas, go over byte for byte, and a delta brings its parents along.
#[test]
fn wal_g_archives_with_chains_are_copied_byte_for_byte() {
    for name in ["pg14-lzma-walseg1m-waldelta", "pg15-lz4-delta-chain"] {
        copies_chain(name);
    }
}

fn copies_chain(name: &str) {
    let sandbox = Sandbox::new(&format!("copy-{name}"));
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packed = packed.join(format!("testdata/wal-g/{name}.tar.zst"));
    shell(&format!(
        "zstd -dcq --long=27 {} | tar -x -C {}",
        packed.display(),
        sandbox.path().display()
    ));
    let golden: PathBuf = sandbox.path().join(name);
    shell(&format!("chown -R postgres:postgres {}", golden.display()));
    let archive = golden.join("archive");
    let cluster = Cluster::at(&sandbox, 15, "none", wale_testkit::free_port());
    let mut options = SidecarOptions::new(&sandbox, &cluster);
    for (name, value) in in_folder(&archive) {
        options = options.set(&name, &value);
    }
    let all = sandbox.folder("all");
    let to = settings(&sandbox, "all.conf", &in_folder(&all));
    let report = copy(&options, &to, &[]);
    assert_eq!(report["complete"], true, "{report:#}");
    assert_same(&archive, &all);
    let names: Vec<&str> = report["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["name"].as_str().unwrap())
        .collect();
    let delta = names.iter().rfind(|name| name.contains("_D_")).unwrap();
    let one = sandbox.folder("one");
    let to = settings(&sandbox, "one.conf", &in_folder(&one));
    let report = copy(&options, &to, &["--backup", delta]);
    let chain = report["backups"].as_array().unwrap();
    assert!(chain.len() > 1, "{report:#}");
    assert_eq!(chain.last().unwrap()["name"], **delta);
    assert!(!chain[0]["name"].as_str().unwrap().contains("_D_"));
    // The files of the delta from the copy are those from the original.
    let [from_copy, from_original] =
        [("copied", &one), ("original", &archive)].map(|(name, place)| {
            let target = sandbox.folder(name);
            let mut options = options.clone();
            for (name, value) in in_folder(place) {
                options = options.set(&name, &value);
            }
            let data = target.display().to_string();
            let exit = wale(&options, &["backup-fetch", &data, delta]);
            assert_eq!(exit.code(), 0, "{}", exit.stderr);
            target
        });
    assert_same(&from_original, &from_copy);
    // What was copied by itself is completed by the rest.
    let report = copy(&options, &to, &[]);
    assert_eq!(report["complete"], true, "{report:#}");
    assert_same(&archive, &one);
}
