//! Archives that the real WAL-G made: wale restores them to every target that its makers saw WAL-G restore them to, and
//! refuses by name what it cannot restore. `testdata/wal-g/README.md` says what is in them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use wale_testkit::{
    Cluster, ClusterOptions, Sandbox, Sidecar, SidecarOptions, free_port, shell, wale_command,
};

use crate::support::WALE;

/// One golden archive, unpacked, and what its makers saw.
pub(crate) struct Golden {
    major: u32,
    pub(crate) archive: PathBuf,
    /// The settings of its key.
    keys: Vec<(String, String)>,
    manifest: Value,
    pub(crate) sandbox: Sandbox,
}

impl Golden {
    /// That of PostgreSQL 15, whose newest backup is the last of three deltas.
    pub(crate) fn chain(name: &str) -> Self {
        Self::new(name, &packed("pg15-lz4-delta-chain"))
    }

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
        let key = &manifest["key"];
        let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        let keys = if key["libsodium"].is_string() {
            vec![
                ("WALG_LIBSODIUM_KEY".to_owned(), text("libsodium")),
                ("WALG_LIBSODIUM_KEY_TRANSFORM".to_owned(), text("transform")),
            ]
        } else if key["file"].is_string() {
            let file = golden.join(text("file")).display().to_string();
            vec![
                ("WALG_PGP_KEY_PATH".to_owned(), file),
                ("WALG_PGP_KEY_PASSPHRASE".to_owned(), text("passphrase")),
            ]
        } else {
            Vec::new()
        };
        Self {
            major: version.split('.').next().unwrap().parse().unwrap(),
            archive: golden.join("archive"),
            keys,
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
        for (name, value) in &self.keys {
            options = options.set(name, value);
        }
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
        let options = options
            .set("START_MODE", "RESTORE")
            .set("WALE_RESTORE_LABEL", label)
            .set("RECOVERY_ADDITION", &addition(aim));
        let sidecar = Sidecar::start(&self.sandbox, WALE, &options);
        sidecar.wait_ready(Duration::from_secs(120));
        // Its timeline would be the latest of the next restore.
        cluster.configure(&["archive_mode = off".into()]);
        cluster.start();
        cluster.wait_promoted();
        self.compare(&cluster, target);
        cluster.stop("immediate");
    }

    /// The server has every value that the target has.
    fn compare(&self, cluster: &Cluster, target: &Value) {
        for (check, sql) in self.checks() {
            let found = cluster.try_sql(sql);
            let found = found.map(|found| found.replace('|', " / ").trim_end().to_owned());
            match target["expected"][check].as_str() {
                Some(expected) => assert_eq!(found.unwrap(), expected, "{check}: {target}"),
                None => assert!(
                    found.unwrap_err().contains("does not exist"),
                    "{check}: {target}"
                ),
            }
        }
    }

    /// The server has every value of the end of the WAL.
    pub(crate) fn compare_the_end(&self, cluster: &Cluster) {
        let is_end = |one: &&Value| one["backup"] == "LATEST" && one["target"] == "end of WAL";
        let target = self.targets().find(is_end).expect("a target");
        self.compare(cluster, target);
    }

    /// All targets. What the real WAL-G restored wrongly is refused by name, or not what `LATEST` means. Gives how many
    /// targets these are.
    fn restore_all(&self) -> usize {
        let mut wrong = 0;
        for (number, target) in self.targets().enumerate() {
            let name = format!("r{number}");
            if target["damaged"].is_null() {
                self.restore(&name, target);
                continue;
            }
            wrong += 1;
            match target["backup"].as_str().unwrap() {
                "LATEST" => self.restore(&name, &self.instead(target)),
                label => self.refuses(&name, label),
            }
        }
        wrong
    }

    /// `LATEST` with the values of the first backup to the same target: those are right.
    fn instead(&self, target: &Value) -> Value {
        let right = |one: &&Value| one["target"] == target["target"] && one["damaged"].is_null();
        let mut instead = self.targets().find(right).unwrap().clone();
        instead["backup"] = "LATEST".into();
        instead
    }

    /// It is refused by name, before anything is written, and the message names a backup that does.
    fn refuses(&self, name: &str, label: &str) {
        let told = self.fails(name, label);
        let full = self.manifest["backups"][0]["name"].as_str().unwrap();
        for words in [
            label,
            "abandoned",
            &format!("restore {full}, a full backup"),
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    /// A restore that fails before anything is written; what it says.
    fn fails(&self, name: &str, label: &str) -> String {
        let (cluster, options) = self.place(name);
        let data = cluster.data.to_string_lossy().into_owned();
        let output = wale_command(WALE, "wale", &options)
            .args(["backup-fetch", &data, label])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{told}");
        let left = std::fs::read_dir(&cluster.data).unwrap().count();
        assert_eq!(left, 0, "{told}");
        told
    }

    /// The backup that `LATEST` means.
    fn latest(&self) -> String {
        let (_, options) = self.place("unused");
        let output = wale_command(WALE, "wale", &options)
            .args(["backup-list", "LATEST"])
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let name = listed
            .lines()
            .nth(1)
            .and_then(|line| line.split_whitespace().next());
        name.unwrap_or_else(|| panic!("{listed}")).to_owned()
    }
}

/// A target of the manifest as recovery settings.
fn addition(aim: &str) -> String {
    let lines = aim
        .split(", ")
        .filter(|line| !line.starts_with("end of WAL"));
    let mut lines: Vec<&str> = lines.collect();
    if lines
        .iter()
        .any(|line| !line.starts_with("recovery_target_timeline"))
    {
        lines.push("recovery_target_action = 'promote'");
    }
    lines.join("\n")
}

fn packed(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join(format!("testdata/wal-g/{name}.tar.zst"))
}

/// Restores an archive to every target, of which the real WAL-G restored `wrong` wrongly.
fn restores(name: &str, wrong: usize) {
    assert_eq!(Golden::new(name, &packed(name)).restore_all(), wrong);
}

#[test]
fn wal_g_archive_of_14_without_compression_with_copied_parts_to_every_target() {
    restores("pg14-permanent-none", 0);
}

#[test]
fn wal_g_archive_of_14_in_lzma_with_a_delta_to_every_target() {
    restores("pg14-lzma-walseg1m-waldelta", 0);
}

/// Two files were cut between the backups.
#[test]
fn wal_g_archive_of_16_in_lzma_with_a_delta_by_a_full_scan_to_every_target() {
    restores("pg16-lzma-walseg1m", 0);
}

#[test]
fn wal_g_archive_of_15_that_was_streamed_to_every_target() {
    restores("pg15-streamed", 0);
}

#[test]
fn wal_g_archive_of_15_that_was_streamed_with_a_tablespace_to_every_target() {
    restores("pg15-streamed-tablespace", 0);
}

#[test]
fn wal_g_archive_of_15_with_a_chain_of_three_deltas_to_every_target() {
    restores("pg15-lz4-delta-chain", 0);
}

#[test]
fn wal_g_archive_of_18_with_a_delta_and_two_timelines_to_every_target() {
    restores("pg18-lz4", 0);
}

/// The real WAL-G restores it with status 0, and 1000 committed rows are missing.
#[test]
fn wal_g_archive_of_16_with_a_delta_of_an_abandoned_timeline_is_refused_by_name() {
    restores("pg16-lz4-divergent-parent", 2);
}

/// The real WAL-G, unpacking in reverse, takes them for pages that are missing, and deleted rows are back.
#[test]
fn wal_g_archive_of_17_with_pages_of_zeros_in_a_delta_to_every_target() {
    restores("pg17-lz4-zero-pages", 0);
}

/// The real WAL-G 3.0.9 panics on its deltas.
#[test]
fn wal_g_archive_of_13_made_by_wal_g_1_1_to_every_target() {
    restores("pg13-walg11-old-sentinel", 0);
}

#[test]
fn wal_g_archive_of_16_with_deltas_of_one_full_backup_and_one_without_a_list_to_every_target() {
    restores("pg16-zstd-latest-full-nolist", 0);
}

/// The secret key has a passphrase, and the archive a tablespace.
#[test]
fn wal_g_archive_of_13_under_openpgp_and_brotli_with_a_tablespace_to_every_target() {
    restores("pg13-brotli-pgp-tablespace", 0);
}

#[test]
fn wal_g_archive_of_17_under_libsodium_with_a_delta_to_every_target() {
    restores("pg17-zstd-libsodium", 0);
}

/// A full backup, and the first and the last of the deltas that build on it.
const CHAIN: [&str; 3] = [
    "base_00000001000000000000000C",
    "base_00000001000000000000000E_D_00000001000000000000000C",
    "base_000000010000000000000012_D_000000010000000000000010",
];

/// What is done to an object of a chain: its new text, or nothing where it goes.
type Harm = fn(&str) -> Option<String>;

/// An object of a chain below `basebackups_005/`, what is done to it, and what a restore of the last delta says then.
const HARMS: [(&str, Harm, &str); 6] = [
    (
        "base_00000001000000000000000E_D_00000001000000000000000C/files_metadata.json",
        |_| None,
        "files_metadata.json, is not in the archive",
    ),
    (
        "base_00000001000000000000000E_D_00000001000000000000000C/tar_partitions/part_001.tar.lz4",
        |_| None,
        "part_001.tar.lz4",
    ),
    (
        "base_00000001000000000000000E_D_00000001000000000000000C_backup_stop_sentinel.json",
        |_| None,
        "which it is based on",
    ),
    (
        "base_00000001000000000000000E_D_00000001000000000000000C_backup_stop_sentinel.json",
        |text| Some(text.replace("\"DeltaLSN\":12582952", "\"DeltaLSN\":12582953")),
        "begins at 0/C00028",
    ),
    (
        "base_00000001000000000000000E_D_00000001000000000000000C_backup_stop_sentinel.json",
        |text| Some(text.replace(CHAIN[0], CHAIN[2])),
        "which it is based on",
    ),
    (
        "base_00000001000000000000000C/files_metadata.json",
        |text| Some(text.replace("\"/PG_VERSION\"", "\"/PG_ELSE\"")),
        "its list lacks a file that a later one builds on",
    ),
];

/// The real WAL-G says 0 to some of these, and what it restored is no cluster.
#[test]
fn a_chain_of_wal_g_that_lacks_something_is_refused_by_name_and_latest_is_another_backup() {
    let golden = Golden::new("lacking", &packed("pg15-lz4-delta-chain"));
    for (number, (object, harm, why)) in HARMS.into_iter().enumerate() {
        let path = golden.archive.join("basebackups_005").join(object);
        let before = std::fs::read(&path).unwrap();
        match std::str::from_utf8(&before).ok().and_then(harm) {
            Some(harmed) => {
                assert_ne!(harmed.as_bytes(), before, "{why}");
                std::fs::write(&path, harmed).unwrap();
            }
            None => std::fs::remove_file(&path).unwrap(),
        }
        let told = golden.fails(&format!("target{number}"), CHAIN[2]);
        assert!(told.contains(why), "{why}: {told}");
        // What a list says of files shows only when the backup is restored.
        if !object.starts_with("base_00000001000000000000000C/") {
            assert_eq!(golden.latest(), CHAIN[0], "{why}");
        }
        std::fs::write(&path, before).unwrap();
    }
    assert_eq!(golden.latest(), CHAIN[2]);
}

#[test]
fn the_list_says_what_made_a_backup_and_whether_it_can_be_restored() {
    let golden = Golden::new("list", &packed("pg15-lz4-delta-chain"));
    let list = format!("basebackups_005/{}/files_metadata.json", CHAIN[1]);
    std::fs::remove_file(golden.archive.join(list)).unwrap();
    let (_, options) = golden.place("unused");
    let output = wale_command(WALE, "wale", &options)
        .args(["backup-list", "--json"])
        .output()
        .unwrap();
    let listed: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let can: Vec<&Value> = listed.iter().map(|one| &one["restorable"]).collect();
    assert_eq!(can, [true, false, false, false]);
    let second = &listed[1];
    assert_eq!(
        (&second["made_by"], &second["delta_of"]),
        (&"WAL-G".into(), &CHAIN[0].into())
    );
    assert_eq!(second["codecs"], serde_json::json!(["lz4"]));
    let why = second["not_restorable_because"].as_str().unwrap();
    assert!(why.contains("files_metadata.json"), "{why}");
}

/// What the list says of the encryption of each backup, and whether each can be restored.
fn listed_encryption(golden: &Golden) -> Vec<(Value, bool)> {
    let (_, options) = golden.place("unused");
    let output = wale_command(WALE, "wale", &options)
        .args(["backup-list", "--json"])
        .output()
        .unwrap();
    let listed: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let each = listed.iter();
    each.map(|one| (one["encryption"].clone(), one["restorable"] == true))
        .collect()
}

#[test]
fn the_list_says_how_a_backup_is_encrypted_for_which_key_and_whether_it_can_be_decrypted() {
    let told = |method: &str, keys: &[&str], can: bool| serde_json::json!({"method": method, "keys": keys, "can_decrypt": can});
    // A message names its keys to everybody.
    let mut golden = Golden::new("listpgp", &packed("pg13-brotli-pgp-tablespace"));
    let key = ["236FB338851A6C3B"];
    assert_eq!(
        listed_encryption(&golden),
        [(told("openpgp", &key, true), true)]
    );
    golden.keys.clear();
    assert_eq!(
        listed_encryption(&golden),
        [(told("openpgp", &key, false), false)]
    );
    // A secret stream names nothing: the key that opens it is what is known.
    let mut golden = Golden::new("listsodium", &packed("pg17-zstd-libsodium"));
    let both = listed_encryption(&golden);
    for (encryption, can) in &both {
        let shown = (&encryption["method"], &encryption["can_decrypt"], *can);
        assert_eq!(shown, (&"libsodium".into(), &true.into(), true), "{both:?}");
        assert_eq!(encryption["keys"].as_array().unwrap().len(), 1);
    }
    golden.keys.clear();
    let unknown = told("unknown", &[], false);
    assert_eq!(
        listed_encryption(&golden),
        [(unknown.clone(), false), (unknown, false)]
    );
    // In the clear.
    let golden = Golden::new("listclear", &packed("pg16-lzma-walseg1m"));
    assert_eq!(
        listed_encryption(&golden),
        [(Value::Null, true), (Value::Null, true)]
    );
}

/// What `wale adopt` says of an archive, with its status.
fn adopt(golden: &Golden, data: &Path) -> (Option<i32>, String) {
    let (_, options) = golden.place("unused");
    let output = wale_command(WALE, "wale", &options)
        .env("PGDATA", data)
        .arg("adopt")
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

/// Nothing is written by it: the archive is byte for byte what it was.
#[test]
fn adopt_says_what_wal_g_left_and_how_far_it_leads_and_writes_nothing() {
    let golden = Golden::new("adopt", &packed("pg16-lz4-divergent-parent"));
    let archive = golden.archive.display().to_string();
    let content = || {
        shell(&format!(
            "cd {archive} && find . -type f | sort | xargs sha256sum"
        ))
    };
    let before = content();
    let (status, told) = adopt(&golden, Path::new("/nonexistent"));
    assert_eq!(status, Some(0), "{told}");
    for words in [
        "system identifier 7713238745795449200, with segments of 1.0 MiB, as its newest segment says",
        "3, of which 2 can be restored",
        "base_00000001000000000000000B, by WAL-G, PostgreSQL 16, lz4, ended at 2026-11-28",
        "a branch that was abandoned",
        "13 segments (13 lz4)",
        "from base_00000001000000000000000B, which ended at",
        "to the end of segment 000000020000000000000014, stored at",
        "the first push or base backup writes wale.json",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let lost = golden.archive.join("wal_005/00000002000000000000000E.lz4");
    let kept = std::fs::read(&lost).unwrap();
    std::fs::remove_file(&lost).unwrap();
    let (_, told) = adopt(&golden, Path::new("/nonexistent"));
    for words in [
        "to the end of segment 00000002000000000000000D",
        "1 segments are missing, 00000002000000000000000E",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    std::fs::write(&lost, kept).unwrap();
    // Another cluster is told so before it pushes anything.
    let options = ClusterOptions {
        name: "other".into(),
        ..ClusterOptions::default()
    };
    let other = Cluster::init(&golden.sandbox, &options);
    let (status, told) = adopt(&golden, &other.data);
    assert_ne!(status, Some(0), "{told}");
    assert!(told.contains("7713238745795449200"), "{told}");
    assert_eq!(content(), before);
}

/// Without the key nothing would be archived, and the operator reads so before the other tool is switched off.
#[test]
fn adopt_says_that_without_the_archives_key_nothing_would_be_written() {
    let golden = Golden::new("adoptkey", &packed("pg17-zstd-libsodium"));
    let (_, with_key) = adopt(&golden, Path::new("/nonexistent"));
    assert!(!with_key.contains("nothing is written"), "{with_key}");
    assert!(
        with_key.contains("zstd, encrypted with libsodium"),
        "{with_key}"
    );
    let golden = Golden {
        keys: Vec::new(),
        ..golden
    };
    let (status, told) = adopt(&golden, Path::new("/nonexistent"));
    assert_eq!(status, Some(0), "{told}");
    for words in [
        "2, of which 0 can be restored",
        "nothing is written as wale is set up now: pushes and base backups are refused",
        "WALG_LIBSODIUM_KEY_PATH with WALG_LIBSODIUM_KEY_TRANSFORM",
        "is encrypted, and what is set would not go on with that",
        "WALE_ENCRYPTION_CHANGE=none goes on",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

/// A message of OpenPGP shows what it is, and for whom.
#[test]
fn adopt_names_the_settings_of_the_method_that_the_archive_shows() {
    let golden = Golden::new("adoptpgp", &packed("pg13-brotli-pgp-tablespace"));
    let golden = Golden {
        keys: Vec::new(),
        ..golden
    };
    let (status, told) = adopt(&golden, Path::new("/nonexistent"));
    assert_eq!(status, Some(0), "{told}");
    for words in [
        "(WALE_GPG_KEY_ID, or WALG_PGP_KEY_PATH)",
        "brotli, encrypted with openpgp for 236FB338851A6C3B",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
