//! Archives that the real WAL-G made: wale restores them to every target that its makers saw WAL-G restore them to, and
//! refuses by name what it cannot restore. `testdata/wal-g-3.0.9/README.md` says what is in them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use wale_testkit::{Cluster, Sandbox, Sidecar, SidecarOptions, free_port, shell, wale_command};

use crate::support::WALE;

/// One golden archive, unpacked, and what its makers saw.
struct Golden {
    major: u32,
    archive: PathBuf,
    manifest: Value,
    sandbox: Sandbox,
}

impl Golden {
    fn new(name: &str, packed: &Path) -> Self {
        let sandbox = Sandbox::new(name);
        let folder = sandbox.path().display();
        shell(&format!(
            "zstd -dcq --long=27 {} | tar -x -C {folder}",
            packed.display()
        ));
        let golden = packed.file_name().unwrap().to_string_lossy();
        let golden = sandbox.path().join(golden.trim_end_matches(".tar.zst"));
        shell(&format!("chown -R postgres:postgres {}", golden.display()));
        let manifest = std::fs::read_to_string(golden.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let version = manifest["postgres"].as_str().unwrap();
        Self {
            major: version.split('.').next().unwrap().parse().unwrap(),
            archive: golden.join("archive"),
            manifest,
            sandbox,
        }
    }

    /// A cluster to be restored, and the settings for that.
    fn place(&self, name: &str) -> (Cluster, SidecarOptions) {
        let cluster = Cluster::at(&self.sandbox, self.major, name, free_port());
        let _ = self.sandbox.folder(name);
        let prefix = format!("file://localhost{}", self.archive.display());
        let mut options =
            SidecarOptions::new(&self.sandbox, &cluster).set("WALE_FILE_PREFIX", &prefix);
        if self.checks().any(|(check, _)| check == "U") {
            let space = self.sandbox.folder(&format!("{name}-ts1"));
            let mapping = format!("16384={}", space.display());
            options = options.set("WALE_TABLESPACE_MAPPING", &mapping);
        }
        (cluster, options)
    }

    fn checks(&self) -> impl Iterator<Item = (&str, &str)> {
        let checks = self.manifest["checks"].as_object().unwrap().iter();
        checks.map(|(name, sql)| (name.as_str(), sql.as_str().unwrap()))
    }

    /// The targets, each once, whatever way WAL-G went to them.
    fn targets(&self) -> impl Iterator<Item = &Value> {
        let targets = self.manifest["targets"].as_array().unwrap().iter();
        targets.filter(|target| target["restore_env"].is_null())
    }

    /// Restores by RESTORE, recovers, and compares every value.
    fn restore(&self, name: &str, target: &Value) {
        let (cluster, options) = self.place(name);
        let (label, aim) = (
            target["backup"].as_str().unwrap(),
            target["target"].as_str().unwrap(),
        );
        let addition = match aim {
            "end of WAL" => String::new(),
            aim => format!("{aim}\nrecovery_target_action = 'promote'"),
        };
        let options = options
            .set("START_MODE", "RESTORE")
            .set("WALE_RESTORE_LABEL", label)
            .set("RECOVERY_ADDITION", &addition);
        let sidecar = Sidecar::start(&self.sandbox, WALE, &options);
        sidecar.wait_ready(Duration::from_secs(120));
        // Its timeline would be the latest of the next restore.
        cluster.configure(&["archive_mode = off".into()]);
        cluster.start();
        cluster.wait_promoted();
        for (check, sql) in self.checks() {
            let expected = target["expected"][check].as_str().unwrap();
            let found = cluster.sql(sql).replace('|', " / ");
            assert_eq!(found, expected, "{check} of {label} to {aim}");
        }
        cluster.stop("immediate");
    }

    /// All targets. Gives how many of them are of a backup that is refused, as a delta is.
    fn restore_all(&self) -> usize {
        let mut refused = 0;
        for (number, target) in self.targets().enumerate() {
            let label = target["backup"].as_str().unwrap();
            if label.contains("_D_") {
                self.refuses(&format!("refused{number}"), label);
                refused += 1;
            } else {
                self.restore(&format!("r{number}"), target);
            }
        }
        refused
    }

    /// A delta is refused by name, before anything is written.
    fn refuses(&self, name: &str, label: &str) {
        let (cluster, options) = self.place(name);
        let data = cluster.data.to_string_lossy().into_owned();
        let output = wale_command(WALE, "wale", &options)
            .args(["backup-fetch", &data, label])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains(label) && told.contains("delta"), "{told}");
        assert!(!cluster.data.join("PG_VERSION").exists(), "{told}");
    }
}

fn packed(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join(format!("testdata/wal-g-3.0.9/{name}.tar.zst"))
}

#[test]
fn wal_g_archive_of_14_without_compression_with_copied_parts_to_every_target() {
    let golden = Golden::new("walg-none", &packed("pg14-permanent-none"));
    assert_eq!(golden.restore_all(), 0);
}

#[test]
fn wal_g_archive_of_14_in_lzma_to_every_target_of_its_full_backup() {
    let golden = Golden::new("walg-lzma", &packed("pg14-lzma-walseg1m-waldelta"));
    assert_eq!(golden.restore_all(), 1);
}

#[test]
fn wal_g_archive_of_15_that_was_streamed_to_every_target() {
    let golden = Golden::new("walg-streamed", &packed("pg15-streamed"));
    assert_eq!(golden.restore_all(), 0);
}

#[test]
fn wal_g_archive_of_15_that_was_streamed_with_a_tablespace_to_every_target() {
    let golden = Golden::new("walg-space", &packed("pg15-streamed-tablespace"));
    assert_eq!(golden.restore_all(), 0);
}
