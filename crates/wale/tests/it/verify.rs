//! `wale verify`: archives of real servers, of the real WAL-E and WAL-G, whole and damaged, in a folder and in S3.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use wale_testkit::s3::Kind;
use wale_testkit::{
    Cluster, ClusterOptions, Exit, Sandbox, SidecarOptions, free_port, shell, wait_until,
    wale_command,
};

use crate::s3_stage::S3Stage;
use crate::support::{Stage, WALE};
use crate::wal_e_golden;

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

/// Verifies, and gives the exit status and the report.
fn verify(options: &SidecarOptions, more: &[&str]) -> (i32, Value) {
    let exit = wale(options, &[&["verify", "--json"], more].concat());
    let report = serde_json::from_str(&exit.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", exit.stdout, exit.stderr));
    (exit.code(), report)
}

/// Two backups, and three segments after each.
struct Original {
    stage: Stage,
    backups: Vec<String>,
    /// The segments after the first backup.
    between: Vec<String>,
}

impl Original {
    fn new(name: &str) -> Self {
        let cluster = ClusterOptions {
            segment_mib: 1,
            ..ClusterOptions::default()
        };
        let stage = Stage::with(name, &cluster, |options| options);
        stage.cluster.sql("create table t (v int)");
        let mut between = Vec::new();
        for round in 0..2 {
            stage.backup();
            for _ in 0..3 {
                stage
                    .cluster
                    .sql("insert into t select generate_series(1, 1000)");
                let segment = stage.archive_all();
                if round == 0 {
                    between.push(segment);
                }
            }
        }
        let (code, report) = verify(&stage.options, &[]);
        assert_eq!(code, 0, "{report}");
        let names = report["backups"].as_array().unwrap().iter();
        let backups = names.map(|one| one["name"].as_str().unwrap().to_owned());
        Self {
            backups: backups.collect(),
            between,
            stage,
        }
    }

    /// A copy of the archive in which something is done, and the settings for it.
    fn spoiled(&self, name: &str, spoil: impl FnOnce(&Path)) -> SidecarOptions {
        let copy = self.stage.sandbox.path().join(name);
        shell(&format!(
            "cp -a {} {}",
            self.stage.archive().display(),
            copy.display()
        ));
        spoil(&copy);
        let prefix = format!("file://{}", copy.display());
        self.stage.options.clone().set("WALE_FILE_PREFIX", &prefix)
    }

    fn segment(&self, archive: &Path, number: usize) -> PathBuf {
        archive.join(format!("wal_005/{}.zst", self.between[number]))
    }

    /// The largest partition of a backup.
    fn partition(&self, archive: &Path, number: usize) -> PathBuf {
        let folder = archive.join(format!(
            "basebackups_005/{}/tar_partitions",
            self.backups[number]
        ));
        let largest = shell(&format!("ls -S {} | head -1", folder.display()));
        folder.join(largest.trim())
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn findings(report: &Value) -> &Vec<Value> {
    report["findings"].as_array().unwrap()
}

fn meaning(finding: &Value) -> String {
    let told = finding["meaning"].as_array().unwrap().iter();
    let told: Vec<&str> = told.map(|one| one.as_str().unwrap()).collect();
    told.join("\n")
}

#[test]
fn a_good_archive_is_proven_remembered_and_not_read_twice() {
    let original = Original::new("verify-good");
    let stage = &original.stage;
    let options = &stage.options;
    let (code, read) = verify(options, &["--content"]);
    assert_eq!(code, 0, "{read}");
    assert_eq!(read["good"], true);
    assert_eq!(read["wal"]["read"], read["wal"]["segments"]);
    for backup in read["backups"].as_array().unwrap() {
        assert_eq!(backup["state"], "proven", "{read}");
    }
    let (code, again) = verify(options, &["--content", "--older-than", "1d"]);
    assert_eq!(code, 0, "{again}");
    assert_eq!(again["wal"]["read"], 0);
    let bytes = |report: &Value| report["bytes_read"].as_u64().unwrap();
    assert!(bytes(&again) * 10 < bytes(&read), "{again}");
    // Half of it: one of the two backups, and half of the WAL.
    let (code, half) = verify(options, &["--content", "--sample", "50%"]);
    assert_eq!(code, 0, "{half}");
    let states = half["backups"].as_array().unwrap().iter();
    assert_eq!(states.filter(|one| one["state"] == "proven").count(), 1);
    assert!(half["wal"]["read"].as_u64() < half["wal"]["segments"].as_u64());
    told_everywhere(stage);
    let told = wale(options, &["verify"]);
    assert!(
        told.stdout.contains("\nresult       good\n"),
        "{}",
        told.stdout
    );
    let wide = |line: &&str| line.chars().count() > 100;
    assert_eq!(
        told.stdout.lines().filter(wide).count(),
        0,
        "{}",
        told.stdout
    );
    // A deletion takes its record along, and nothing is left of the backup.
    let first = &original.backups[0];
    let deleted = wale(options, &["delete", "target", first, "--confirm"]);
    assert_eq!(deleted.code(), 0, "{}", deleted.stderr);
    assert!(!stage.archive().join("basebackups_005").join(first).exists());
    // The records are no part of a copy.
    let to = stage.sandbox.path().join("there");
    let folder = stage.sandbox.folder("copied");
    std::fs::write(
        &to,
        format!("WALE_FILE_PREFIX=file://{}\n", folder.display()),
    )
    .unwrap();
    shell(&format!("chmod 644 {}", to.display()));
    let copied = wale(options, &["copy", "--to", &to.to_string_lossy()]);
    assert_eq!(copied.code(), 0, "{}", copied.stderr);
    let left = shell(&format!("find {} -name 'wale_verified*'", folder.display()));
    assert_eq!(left.trim(), "");
}

/// `status`, `backup-list`, `/status` and the metric say what was verified.
fn told_everywhere(stage: &Stage) {
    let status = wale(&stage.options, &["status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["verified"]["proven_backups"], 2, "{status}");
    assert_eq!(status["verified"]["damaged"], 0);
    let told = wale(&stage.options, &["status"]);
    assert!(told.stdout.contains("\nverified     20"), "{}", told.stdout);
    let list = wale(&stage.options, &["backup-list", "--json"]);
    let list: Value = serde_json::from_str(&list.stdout).expect("JSON");
    for backup in list.as_array().unwrap() {
        assert_eq!(backup["verified"]["good"], true, "{list}");
        assert_eq!(backup["restorable"], true, "{list}");
    }
    let list = wale(&stage.options, &["backup-list", "--detail"]);
    let dated = |line: &&str| line.contains("\t20") && line.trim_end().ends_with('Z');
    assert_eq!(
        list.stdout.lines().filter(dated).count(),
        2,
        "{}",
        list.stdout
    );
}

/// What is done, where it shows, what it is called, and what is said.
struct Damage {
    what: &'static str,
    shows_in_names: bool,
    trouble: &'static str,
    said: Vec<String>,
}

impl Damage {
    fn all(original: &Original) -> [Self; 6] {
        let [first, second] = [&original.backups[0], &original.backups[1]];
        let partition = vec![format!("are recovered from backup {first} before it")];
        let segment = vec![
            format!("from backup {first} one can recover to"),
            format!("until the end of backup {second}"),
        ];
        [
            ("flipped partition", false, "damaged", &partition),
            ("missing partition", true, "missing", &partition),
            ("flipped segment", false, "damaged", &segment),
            ("cut segment", false, "damaged", &segment),
            ("empty segment", true, "damaged", &segment),
            ("missing segment", true, "missing", &segment),
        ]
        .map(|(what, shows_in_names, trouble, said)| Self {
            what,
            shows_in_names,
            trouble,
            said: said.clone(),
        })
    }

    fn do_it(&self, original: &Original, archive: &Path) {
        let partition = original.partition(archive, 1);
        let segment = original.segment(archive, 1);
        match self.what {
            "flipped partition" => flip(&partition),
            "missing partition" => std::fs::remove_file(&partition).unwrap(),
            "flipped segment" => flip(&segment),
            "cut segment" => {
                let bytes = std::fs::read(&segment).unwrap();
                std::fs::write(&segment, &bytes[..bytes.len() - 10]).unwrap();
            }
            "empty segment" => std::fs::write(&segment, "").unwrap(),
            _ => std::fs::remove_file(&segment).unwrap(),
        }
    }
}

#[test]
fn damage_is_named_with_the_moments_that_are_lost() {
    let original = Original::new("verify-damage");
    for damage in Damage::all(&original) {
        let what = damage.what;
        let options = original.spoiled(&what.replace(' ', "-"), |archive| {
            damage.do_it(&original, archive);
        });
        let (code, looked) = verify(&options, &[]);
        assert_eq!(code, i32::from(damage.shows_in_names), "{what}: {looked}");
        let (code, report) = verify(&options, &["--content"]);
        assert_eq!(code, 1, "{what}: {report}");
        let found = findings(&report);
        assert_eq!(found.len(), 1, "{what}: {report}");
        assert_eq!(found[0]["trouble"], damage.trouble, "{what}: {report}");
        let object = found[0]["object"].as_str().unwrap();
        let expected = if what.ends_with("segment") {
            &original.between[1]
        } else {
            &original.backups[1]
        };
        assert!(object.contains(expected.as_str()), "{what}: {report}");
        for sentence in &damage.said {
            assert!(meaning(&found[0]).contains(sentence), "{what}: {report}");
        }
        is_known(&options, what);
    }
}

/// The damage is known from then on, and told to people, too.
fn is_known(options: &SidecarOptions, what: &str) {
    let told = wale(options, &["verify"]);
    assert_eq!(told.code(), 1, "{what}: {}", told.stdout);
    let hint = "HINT: bring the object back";
    assert!(told.stderr.contains(hint), "{}", told.stderr);
    let wide = |line: &&str| line.chars().count() > 100;
    let wide = told.stdout.lines().filter(wide).count();
    assert_eq!(wide, 0, "{}", told.stdout);
    let status = wale(options, &["status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["verified"]["damaged"], 1, "{what}: {status}");
}

#[test]
fn in_s3_no_object_is_read_again_before_its_time() {
    let stage = S3Stage::s3s("verify-s3");
    let (pg, options) = (&stage.stage.cluster, &stage.stage.options);
    pg.sql("insert into t select generate_series(1, 1000)");
    assert_eq!(stage.stage.sidecar.get("/backup-push").status, 200);
    stage.stage.archive_all();
    let (code, read) = verify(options, &["--content"]);
    assert_eq!(code, 0, "{read}");
    let reads = |key: &str| stage.proxy.count(Kind::Get, key);
    assert!(reads("tar_partitions") > 0 && reads("wal_005/") > 0);
    stage.proxy.forget();
    let (code, again) = verify(options, &["--content", "--older-than", "1h"]);
    assert_eq!(code, 0, "{again}");
    assert_eq!(reads("tar_partitions"), 0);
    assert_eq!(again["wal"]["read"], 0, "{again}");
    assert_eq!(again["backups"][0]["state"], "there", "{again}");
}

/// A secret key in a file, and its public key. None where Debian's `age` is not installed.
fn key(sandbox: &Path) -> Option<(PathBuf, String)> {
    let file = sandbox.join("key");
    if let Err(error) = Command::new("age-keygen").arg("-o").arg(&file).output() {
        let why = format!("the program age-keygen cannot be run: {error}");
        wale_testkit::skip("verification with age", &why);
        return None;
    }
    shell(&format!("chmod 0644 {}", file.display()));
    let public = shell(&format!("age-keygen -y {}", file.display()));
    Some((file, public.trim().to_owned()))
}

#[test]
fn a_host_without_the_secret_key_looks_at_names_and_says_so() {
    let keys = Sandbox::new("verify-keys");
    let Some((identity, recipient)) = key(keys.path()) else {
        return;
    };
    let stage = Stage::with("verify-age", &ClusterOptions::default(), |options| {
        options.set("WALE_AGE_RECIPIENTS", &recipient)
    });
    stage.cluster.sql("create table t as select 1 v");
    stage.backup();
    stage.archive_all();
    let (code, names) = verify(&stage.options, &[]);
    assert_eq!(code, 0, "{names}");
    let (code, report) = verify(&stage.options, &["--content"]);
    assert_eq!(code, 78, "{report}");
    assert_eq!(
        (&report["depth"], &report["findings_count"]),
        (&"names".into(), &0.into())
    );
    let told = wale(&stage.options, &["verify", "--content"]);
    assert!(
        told.stderr.contains("WALE_AGE_IDENTITY_FILE"),
        "{}",
        told.stderr
    );
    let identity = identity.to_string_lossy().into_owned();
    let with_key = stage
        .options
        .clone()
        .set("WALE_AGE_IDENTITY_FILE", &identity);
    let (code, report) = verify(&with_key, &["--content"]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["backups"][0]["state"], "proven", "{report}");
}

/// The settings of a golden archive.
fn golden(sandbox: &Sandbox, archive: &Path) -> SidecarOptions {
    let cluster = Cluster::at(sandbox, 15, "none", free_port());
    let prefix = format!("file://localhost{}", archive.display());
    SidecarOptions::new(sandbox, &cluster).set("WALE_FILE_PREFIX", &prefix)
}

#[test]
fn archives_of_wal_e_and_wal_g_are_verified_and_stay_theirs() {
    let sandbox = Sandbox::new("verify-wal-e");
    let archive = wal_e_golden::unpacked(&sandbox);
    let (code, report) = verify(&golden(&sandbox, &archive), &["--content"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["backups"].as_array().unwrap().len(), 2);
    let sandbox = Sandbox::new("verify-wal-g");
    let name = "pg15-lz4-delta-chain";
    let packed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/wal-g/{name}.tar.zst"));
    let folder = sandbox.path().display();
    shell(&format!(
        "zstd -dcq --long=27 {} | tar -x -C {folder}",
        packed.display()
    ));
    shell(&format!("chown -R postgres:postgres {folder}/{name}"));
    let archive = sandbox.path().join(name).join("archive");
    let options = golden(&sandbox, &archive);
    let (code, report) = verify(&options, &["--content"]);
    assert_eq!(code, 0, "{report:#}");
    let backups = report["backups"].as_array().unwrap();
    assert!(backups.len() > 3, "{report:#}");
    assert!(
        backups.iter().all(|one| one["state"] == "proven"),
        "{report:#}"
    );
    // The full backup is damaged: so is each that builds on it.
    let full = backups.iter().map(|one| one["name"].as_str().unwrap());
    let full = full.min_by_key(|name| name.len()).unwrap();
    let parts = archive.join(format!("basebackups_005/{full}/tar_partitions"));
    let largest = shell(&format!("ls -S {} | head -1", parts.display()));
    flip(&parts.join(largest.trim()));
    let (code, report) = verify(&options, &["--content"]);
    assert_eq!(code, 1, "{report:#}");
    let damaged = report["backups"].as_array().unwrap().iter();
    let damaged = damaged.filter(|one| one["state"] == "damaged").count();
    assert!(damaged > 1, "{report:#}");
}

#[test]
fn the_sidecar_verifies_on_its_schedule_and_shows_what_is_damaged() {
    let stage = Stage::with("verify-schedule", &ClusterOptions::default(), |options| {
        options.set("WALE_VERIFY_SCHEDULE", "* * * * *")
    });
    stage.cluster.sql("create table t as select 1 v");
    stage.backup();
    let segment = stage.archive_all();
    flip(&stage.archive().join(format!("wal_005/{segment}.zst")));
    let status = wait_until("the damage to be found", Duration::from_secs(180), || {
        let status = stage.sidecar.get("/status").json();
        (status["verify"]["last"]["damaged"] == 1).then_some(status)
    });
    let last = &status["verify"]["last"];
    let object = last["damage"][0]["object"].as_str().unwrap();
    assert!(object.contains(&segment), "{last}");
    assert!(
        meaning(&last["damage"][0]).contains("can be recovered"),
        "{last}"
    );
    assert!(
        last["remedy"]
            .as_str()
            .unwrap()
            .contains("take a base backup"),
        "{last}"
    );
    wait_until("the metric", Duration::from_secs(60), || {
        let metrics = stage.sidecar.get("/metrics").text();
        let has = |line: &str| metrics.lines().any(|found| found.starts_with(line));
        (has("wale_verify_damaged_objects 1") && has("wale_last_verified_timestamp_seconds 1"))
            .then_some(())
    });
    assert!(stage.sidecar.log_text().contains("the archive is damaged"));
    // Nothing else has stopped for it.
    assert_eq!(stage.sidecar.get("/readyz").status, 200);
    stage.archive_all();
}
