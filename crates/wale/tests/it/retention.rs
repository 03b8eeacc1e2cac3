//! What is deleted and what stays: on real servers, on an archive of WAL-E's, and killed half-way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use wale_testkit::s3::S3Server;
use wale_testkit::{
    ClusterOptions, Sandbox, Sidecar, SidecarOptions, client_tool, run_as_postgres, shell,
    wait_until, wale_command,
};

use crate::support::{Stage, WALE, fingerprint};

const LONG: Duration = Duration::from_secs(60);
const FIRST: &str = "base_000000010000000000000003_00000040";
const SECOND: &str = "base_000000010000000000000006_00000040";

/// An archive in a folder of its own, without a server.
struct Alone {
    archive: PathBuf,
    options: SidecarOptions,
    sandbox: Sandbox,
}

impl Alone {
    fn new(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        let archive = sandbox.folder("archive");
        Self::at(sandbox, archive)
    }

    /// WAL-E's archive with two backups on timeline 1 and WAL of timeline 2. Its README says what `retain 1` selects.
    fn golden(name: &str) -> Self {
        const GOLDEN: &str = "pg14-two-backups-timeline2";
        let sandbox = Sandbox::new(name);
        let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata/wal-e-1.1.1")
            .join(format!("{GOLDEN}.tar.zst"));
        let folder = sandbox.path().display();
        shell(&format!(
            "zstd -dcq --long=27 {} | tar -x -C {folder} && chown -R postgres:postgres {folder}/{GOLDEN}",
            packed.display()
        ));
        let archive = sandbox.path().join(GOLDEN).join("archive");
        Self::at(sandbox, archive)
    }

    fn at(sandbox: Sandbox, archive: PathBuf) -> Self {
        let prefix = format!("file://localhost{}", archive.display());
        let options = SidecarOptions {
            environment: [("WALE_FILE_PREFIX".to_owned(), prefix)].into(),
            port: 0,
            as_postgres: true,
        };
        Self {
            archive,
            options,
            sandbox,
        }
    }

    fn verb(&self, program: &str, words: &str) -> Told {
        verb(&self.options, program, words)
    }

    fn keys(&self) -> BTreeSet<String> {
        keys(&self.archive)
    }
}

/// What a verb said.
#[derive(Debug)]
struct Told {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn verb(options: &SidecarOptions, program: &str, words: &str) -> Told {
    let mut command = wale_command(WALE, program, options);
    command.args(words.split_whitespace()).stdin(Stdio::null());
    command.output().unwrap().into()
}

/// The objects of an archive in a folder.
fn keys(archive: &Path) -> BTreeSet<String> {
    let found = shell(&format!(
        "cd {} && find . -type f -printf '%P\\n'",
        archive.display()
    ));
    found.lines().map(str::to_owned).collect()
}

fn with<'a>(keys: &'a BTreeSet<String>, part: &str) -> Vec<&'a String> {
    keys.iter().filter(|key| key.contains(part)).collect()
}

#[test]
fn an_archive_of_wal_es_keeps_what_its_timelines_need() {
    let alone = Alone::golden("retain-golden");
    let before = alone.keys();
    for words in ["delete retain 1", &format!("delete before {SECOND}")] {
        let told = alone.verb("wal-e", words);
        assert_eq!(told.code, 0, "{told:?}");
        assert_eq!(told.stdout, "");
        // One sentinel, one version, one partition, five segments, one note: what the README lists.
        for (line, count) in [
            ("deleting a base backup sentinel file", 1),
            ("deleting a extended version metadata file", 1),
            ("deleting a base backup volume", 1),
            ("deleting a wal file", 5),
            ("deleting a backup history file", 1),
            ("This is only a dry run", 9),
        ] {
            assert_eq!(told.stderr.matches(line).count(), count, "{line}: {told:?}");
        }
        assert_eq!(alone.keys(), before, "a dry run touches nothing");
    }
    let told = alone.verb("wal-e", "delete --confirm retain 1");
    assert_eq!(told.code, 0, "{told:?}");
    assert!(!told.stderr.contains("dry run"), "{told:?}");
    let gone: BTreeSet<String> = before.difference(&alone.keys()).cloned().collect();
    let mut expected: BTreeSet<String> = (1..=5)
        .map(|number| format!("wal_005/00000001000000000000000{number}.lzo"))
        .collect();
    expected.insert("wal_005/000000010000000000000003.00000028.backup.lzo".to_owned());
    expected.insert(format!("basebackups_005/{FIRST}_backup_stop_sentinel.json"));
    expected.insert(format!("basebackups_005/{FIRST}/extended_version.txt"));
    let part = format!("basebackups_005/{FIRST}/tar_partitions/part_00000000.tar.lzo");
    expected.insert(part);
    assert_eq!(gone, expected);
    let list = alone.verb("wal-e", "backup-list");
    assert!(list.stdout.contains(SECOND) && !list.stdout.contains(FIRST));
}

#[test]
fn defect_24_before_takes_a_segment_and_old_versions_does_not_crash_and_terse_dry_runs_are_seen() {
    let alone = Alone::golden("retain-before");
    let before = alone.keys();
    let told = alone.verb("wal-e", "delete old-versions");
    assert_eq!((told.code, told.stdout.as_str()), (0, ""), "{told:?}");
    let told = alone.verb("wal-e", "--terse delete before 000000010000000000000006");
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(told.stderr.matches("deleting a wal file").count(), 5);
    assert_eq!(alone.keys(), before);
    let told = alone.verb("wal-e", "delete --confirm before 000000010000000000000003");
    assert_eq!(told.code, 0, "{told:?}");
    let left = alone.keys();
    assert_eq!(before.len() - left.len(), 2, "{left:?}");
    assert!(left.contains("wal_005/000000010000000000000003.lzo"));
    for words in [
        "delete before LATEST",
        "delete before 00000001",
        "delete retain 0",
        "delete retain -1",
    ] {
        let told = alone.verb("wal-e", words);
        assert_eq!(told.code, 1, "{words}: {told:?}");
        assert!(told.stderr.contains("HINT"), "{words}: {told:?}");
    }
    let told = alone.verb("wal-e", "delete --confirm -n everything");
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(alone.keys(), left);
    let told = alone.verb("wal-e", "delete --confirm everything");
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(alone.keys(), BTreeSet::new());
}

#[test]
fn defect_27_an_archive_without_backups_is_a_clean_no_op() {
    let alone = Alone::new("retain-empty");
    for words in ["delete --confirm retain 1", "delete --confirm everything"] {
        let told = alone.verb("wal-e", words);
        assert_eq!(
            (told.code, told.stdout.as_str()),
            (0, ""),
            "{words}: {told:?}"
        );
    }
    assert_eq!(alone.keys(), BTreeSet::new());
}

#[test]
fn the_plan_is_shown_for_every_object_and_a_mark_is_kept() {
    let mut alone = Alone::golden("retain-plan");
    let told = alone.verb("wale", "retain");
    assert_eq!(told.code, 78, "without a rule: {told:?}");
    alone.options = alone.options.set("WALE_RETAIN_BACKUPS", "1");
    let before = alone.keys();
    let told = alone.verb("wale", "retain");
    assert_eq!(told.code, 0, "{told:?}");
    for key in &before {
        let line = told.stdout.lines().find(|line| line.contains(key.as_str()));
        let line = line.unwrap_or_else(|| panic!("{key} is not told: {}", told.stdout));
        assert!(line.ends_with(')') && (line.starts_with("keep") || line.starts_with("delete")));
    }
    let told = alone.verb("wale", "retain --json");
    let plan: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(plan["dry_run"], true);
    assert_eq!(plan["objects"].as_array().unwrap().len(), before.len());
    assert_eq!(plan["deleted_backups"][0], FIRST);
    assert_eq!(plan["kept_backups"][0]["name"], SECOND);
    assert_eq!(plan["deleted_objects"], 9);

    let told = alone.verb("wale", &format!("backup-mark {FIRST}"));
    assert_eq!(told.code, 0, "{told:?}");
    let told = alone.verb("wale", "retain --confirm");
    assert_eq!(told.code, 0, "{told:?}");
    let kept = alone.keys();
    assert!(
        before.is_subset(&kept) || before.len() - kept.len() < 4,
        "{kept:?}"
    );
    assert_eq!(with(&kept, FIRST).len(), 4);
    let told = alone.verb("wale", "delete --confirm everything");
    assert_eq!(told.code, 73, "{told:?}");
    let told = alone.verb("wale", &format!("backup-mark -i {FIRST}"));
    assert_eq!(told.code, 0, "{told:?}");
    let told = alone.verb("wale", "retain --confirm");
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(with(&alone.keys(), FIRST).len(), 0);
    let missing = alone.verb("wale", &format!("backup-mark {FIRST}"));
    assert_eq!(missing.code, 1, "{missing:?}");
}

/// The WAL without which the newest backup never becomes consistent is gone: it is no reason to delete the whole one.
#[test]
fn fault_94_the_newest_backup_lacks_its_wal_and_the_whole_one_stays() {
    let alone = Alone::golden("lacks-wal");
    let segment = &SECOND["base_".len()..][..24];
    let gone: Vec<String> = with(&alone.keys(), &format!("wal_005/{segment}."))
        .into_iter()
        .filter(|key| !key.contains(".backup"))
        .cloned()
        .collect();
    assert_eq!(gone.len(), 1, "{gone:?}");
    std::fs::remove_file(alone.archive.join(&gone[0])).unwrap();
    let told = alone.verb("wale", "backup-list LATEST");
    assert!(told.stdout.contains(FIRST), "{told:?}");
    assert!(
        told.stderr.contains("is passed over") && told.stderr.contains(segment),
        "{told:?}"
    );
    for words in ["delete retain 1 --confirm", "delete --confirm retain 1"] {
        let told = alone.verb("wale", words);
        assert_eq!(told.code, 0, "{told:?}");
        let kept = alone.keys();
        assert!(
            !with(&kept, FIRST).is_empty() && !with(&kept, SECOND).is_empty(),
            "{kept:?}"
        );
    }
    let told = alone.verb("wal-e", &format!("delete before {SECOND} --confirm"));
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stderr.contains("last backup"), "{told:?}");
}

/// An addition to WAL-E's verbs, on both faces.
#[test]
fn one_backup_is_deleted_by_name() {
    let alone = Alone::golden("target");
    let before = alone.keys();
    for program in ["wale", "wal-e"] {
        let told = alone.verb(program, &format!("delete target {FIRST}"));
        assert_eq!(told.code, 0, "{told:?}");
        assert_eq!(alone.keys(), before, "a dry run touches nothing");
    }
    let told = alone.verb(
        "wale",
        "delete --confirm target base_0000000100000000000000AA_00000040",
    );
    assert_eq!(told.code, 1, "{told:?}");
    let told = alone.verb("wale", "delete target LATEST");
    assert_eq!(told.code, 0, "{told:?}");
    assert!(
        told.stdout.contains(&format!("backup {SECOND} would go")),
        "{told:?}"
    );
    let line = told.stdout.lines().last().unwrap_or_default();
    assert_eq!(line, "to do it: wale delete target LATEST --confirm");
    let told = alone.verb("wal-e", "delete target LATEST --dry-run");
    assert_eq!((told.code, told.stdout.as_str()), (0, ""), "{told:?}");
    let hint = "to do it: wal-e delete target LATEST --confirm";
    assert!(told.stderr.contains(hint), "{told:?}");
    assert_eq!(alone.keys(), before, "a dry run touches nothing");
    alone.verb("wale", &format!("backup-mark {SECOND}"));
    let told = alone.verb("wale", &format!("delete --confirm target {SECOND}"));
    assert_eq!(told.code, 73, "{told:?}");
    alone.verb("wale", &format!("backup-mark -i {SECOND}"));
    // The first one needs all WAL from its start on.
    let told = alone.verb("wale", &format!("delete target {SECOND} --confirm"));
    assert_eq!(told.code, 0, "{told:?}");
    let after = alone.keys();
    assert!(with(&after, SECOND).is_empty(), "{after:?}");
    let wal = |keys: &BTreeSet<String>| {
        let of = keys.iter().filter(|key| key.starts_with("wal_005/"));
        of.filter(|key| key.as_str() >= "wal_005/000000010000000000000003")
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(wal(&after), wal(&before));
    let told = alone.verb("wal-e", &format!("delete --confirm target {FIRST}"));
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stderr.contains("last backup"), "{told:?}");
}

#[test]
fn fault_34_what_the_store_retains_is_told_and_the_rest_goes() {
    let mut alone = Alone::golden("retain-denied");
    let control = alone.sandbox.path().join("faults");
    std::fs::write(
        &control,
        "delete key=wal_005/000000010000000000000002 denied\n",
    )
    .unwrap();
    shell(&format!("chmod 644 {}", control.display()));
    let path = control.to_string_lossy().into_owned();
    alone.options = alone.options.set("WALE_FAULT_CONTROL", &path);
    let told = alone.verb("wal-e", "delete --confirm retain 1");
    assert_eq!(told.code, 1, "{told:?}");
    let mut lines = told.stdout.split("\r\n");
    assert_eq!(lines.next(), Some("key\terror_code\terror_message"));
    let refused = lines.next().unwrap();
    assert!(
        refused.starts_with("wal_005/000000010000000000000002.lzo\tAccessDenied\t"),
        "{refused}"
    );
    let keys = alone.keys();
    assert!(keys.contains("wal_005/000000010000000000000002.lzo"));
    assert!(!keys.contains("wal_005/000000010000000000000005.lzo"));
    assert_eq!(with(&keys, FIRST).len(), 0);
    std::fs::write(&control, "").unwrap();
    assert_eq!(alone.verb("wal-e", "delete --confirm retain 1").code, 0);
    assert!(
        !alone
            .keys()
            .contains("wal_005/000000010000000000000002.lzo")
    );
}

/// A stage whose store obeys a fault control file.
fn faulty(name: &str) -> (Stage, PathBuf) {
    let control = std::env::temp_dir().join(format!("wale-faults-{name}-{}", std::process::id()));
    fault(&control, "");
    let stage = Stage::with(name, &ClusterOptions::default(), |options| {
        options.set("WALE_FAULT_CONTROL", &control.to_string_lossy())
    });
    (stage, control)
}

fn fault(control: &Path, text: &str) {
    let next = control.with_extension("next");
    std::fs::write(&next, text).unwrap();
    shell(&format!("chmod 644 {}", next.display()));
    std::fs::rename(&next, control).unwrap();
}

/// Every backup that is listed can be fetched, and is what its manifest says.
fn verify_listed(stage: &Stage, round: &str) -> usize {
    let list = stage.sidecar.get("/backups").json();
    let list = list.as_array().unwrap();
    for (number, backup) in list.iter().enumerate() {
        let (cluster, _) = stage.restore_options(&format!("verify-{round}-{number}"), "");
        let data = cluster.data.to_string_lossy().into_owned();
        let name = backup["name"].as_str().unwrap();
        let exit = stage
            .sidecar
            .verb(WALE, "wale", &["backup-fetch", &data, name]);
        assert_eq!(exit.code(), 0, "{round}: {}", exit.stderr);
        run_as_postgres(&client_tool("pg_verifybackup"), &["-n", &data]);
    }
    list.len()
}

#[test]
fn fault_07_killed_in_the_middle_of_a_deletion_no_listed_backup_is_damaged_and_the_next_run_ends_it()
 {
    let (stage, control) = faulty("kill07");
    stage
        .cluster
        .sql("create table t as select generate_series(1, 1000)");
    for _ in 0..3 {
        stage.backup();
        stage.cluster.switch_wal();
    }
    stage.cluster.wait_archived();
    let archive = stage.archive();
    fault(&control, "delete slow 150ms");
    // Killed when so many objects are gone: in the first backup, in the second, in the WAL.
    for (round, fewer) in [("first", 2), ("second", 6), ("wal", 6)] {
        let before = keys(&archive).len();
        let mut process = wale_command(WALE, "wale", &stage.options)
            .args(["delete", "--confirm", "retain", "1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let goal = before.saturating_sub(fewer);
        wait_until("some deletions", LONG, || {
            let ended = process.try_wait().unwrap().is_some();
            (ended || keys(&archive).len() <= goal).then_some(())
        });
        let _ = process.kill();
        process.wait().unwrap();
        let listed = verify_listed(&stage, round);
        assert!((1..=3).contains(&listed), "{round}");
    }
    fault(&control, "");
    let told = verb(&stage.options, "wale", "delete --confirm retain 1");
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(verify_listed(&stage, "end"), 1);
    let left = keys(&archive);
    let folders: BTreeSet<&str> = with(&left, "basebackups_005/")
        .iter()
        .filter_map(|key| key.split('/').nth(1))
        .map(|name| name.split("_backup_stop").next().unwrap())
        .collect();
    assert_eq!(folders.len(), 1, "{left:?}");
    assert_eq!(with(&left, "wale_deletion").len(), 0);
    let _ = std::fs::remove_file(&control);
}

/// Retention runs beside: it is through when it says so.
fn wait_retentions(stage: &Stage, count: u64) {
    wait_until("retention", LONG, || {
        let metrics = stage.sidecar.get("/metrics").text();
        let line = format!("wale_retentions_total{{outcome=\"ok\"}} {count}\n");
        metrics.contains(&line).then_some(())
    });
}

/// The WAL in the archive before a segment.
fn wal_before(stage: &Stage, start: &str) -> Vec<String> {
    keys(&stage.archive())
        .into_iter()
        .filter(|key| {
            let name = key.strip_prefix("wal_005/");
            name.is_some_and(|name| name.len() >= 24 && name[..24] < *start)
        })
        .collect()
}

#[test]
fn fault_87_retention_after_each_backup_and_the_oldest_one_kept_still_reaches_its_earliest_moment()
{
    let stage = Stage::with("retain", &ClusterOptions::default(), |options| {
        options
            .set("WALE_RETAIN_BACKUPS", "2")
            .set("WALE_RETAIN_REQUEST_INTERVAL", "0")
    });
    let pg = &stage.cluster;
    pg.sql("create table t as select g from generate_series(1, 1000) g");
    let mut moments = Vec::new();
    for round in 1..=4_u64 {
        let reply = stage.sidecar.get("/backup-push");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let after = (fingerprint(pg, "t"), pg.sql("select clock_timestamp()"));
        moments.push(after);
        pg.sql("select pg_sleep(0.1)");
        pg.sql("insert into t select g from generate_series(1, 100) g");
        pg.switch_wal();
        pg.wait_archived();
        wait_retentions(&stage, round);
    }
    let status = stage.sidecar.get("/status").json();
    let record = &status["retention"]["last"];
    assert_eq!(record["kept_backups"], 2, "{status}");
    assert_eq!(record["deleted_backups"].as_array().map(Vec::len), Some(1));
    assert!(status["retention"]["last_failure"].is_null(), "{status}");
    let list = stage.sidecar.get("/backups").json();
    let names: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let oldest = names[0].clone();
    let start = oldest["base_".len()..][..24].to_owned();
    let older = wal_before(&stage, &start);
    assert!(older.is_empty(), "WAL before {oldest}: {older:?}");

    // By default requests of one night push nothing out.
    let by_default = stage
        .options
        .clone()
        .set("WALE_RETAIN_REQUEST_INTERVAL", "20h")
        .set("WALE_RETAIN_BACKUPS", "1");
    let told = verb(&by_default, "wale", "retain --json");
    let plan: serde_json::Value = serde_json::from_str(&told.stdout).expect(&told.stderr);
    let kept = plan["kept_backups"].as_array().unwrap();
    assert_eq!(kept.len(), 2, "{plan}");
    let why = kept[1]["why"].as_str().unwrap();
    let soon = format!("requested over HTTP, and too soon after {oldest}");
    assert!(why.contains(&soon), "{plan}");

    // Of the four moments the third is the earliest that can still be reached.
    let (noted, time) = &moments[2];
    let addition = format!("recovery_target_time = '{time}'\nrecovery_target_action = 'promote'");
    let (cluster, options) = stage.restore_options("earliest", &addition);
    let options = options
        .set("WALE_RESTORE_LABEL", &oldest)
        .set("WALE_RETAIN_BACKUPS", "1");
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(120));
    cluster.configure(&["archive_mode = off".into()]);
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(fingerprint(&cluster, "t"), *noted);
}

#[test]
fn fault_49_the_last_backup_and_one_that_is_being_written_are_not_deleted() {
    let (stage, control) = faulty("last49");
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    let told = verb(
        &stage.options,
        "wale",
        "delete --confirm before 00000001000000000000FF00",
    );
    assert_eq!(told.code, 73, "{told:?}");
    assert!(told.stderr.contains("last backup"), "{told:?}");
    stage.backup();
    fault(&control, "put key=basebackups_005/ slow 1s");
    let data = stage.cluster.data.to_string_lossy().into_owned();
    let mut backup = wale_command(WALE, "wale", &stage.options)
        .args(["backup-push", &data])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the third backup's first object", LONG, || {
        let found = keys(&stage.archive());
        (with(&found, "extended_version.txt").len() == 3).then_some(())
    });
    for words in ["retain 1", "everything"] {
        let told = verb(&stage.options, "wale", &format!("delete --confirm {words}"));
        assert_eq!(told.code, 75, "{words}: {told:?}");
        assert!(told.stderr.contains("is being written"), "{told:?}");
    }
    fault(&control, "");
    assert!(backup.wait().unwrap().success());
    assert_eq!(
        stage
            .sidecar
            .get("/backups")
            .json()
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let told = verb(&stage.options, "wale", "delete --confirm retain 1");
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(verify_listed(&stage, "end"), 1);
    let _ = std::fs::remove_file(&control);
}

#[test]
fn fault_03_what_a_crash_left_is_swept_when_the_sidecar_starts() {
    let mut stage = Stage::new("sweep03", 15);
    stage.backup();
    stage.sidecar.kill();
    let archive = stage.archive();
    let whole = keys(&archive);
    let (old, fresh) = (
        "base_000000010000000000000001_00000040",
        "base_000000010000000000000001_00000080",
    );
    let folder = archive.join("basebackups_005");
    let script = format!(
        "cd {} && for name in {old} {fresh}; do mkdir -p $name/tar_partitions && \
         echo x > $name/extended_version.txt && echo x > $name/tar_partitions/part_00000001.tar.zst; done && \
         echo x > {old}/tar_partitions/.part_00000002.tar.zst.1.2f.wale-tmp && \
         find {old} -exec touch -d '2 days ago' {{}} + && chown -R postgres:postgres {old} {fresh}",
        folder.display()
    );
    shell(&script);
    stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
    wait_until("the sweep", LONG, || {
        (!folder.join(old).exists()).then_some(())
    });
    let left = keys(&archive);
    assert!(whole.is_subset(&left));
    assert_eq!(with(&left, fresh).len(), 2, "{left:?}");
    assert_eq!(left.len(), whole.len() + 2, "{left:?}");
}

#[test]
fn retention_on_s3_leaves_one_backup_that_restores() {
    let servers = Sandbox::new("retain-s3-server");
    let server = S3Server::moto(&servers);
    let stage = Stage::with("retain-s3", &ClusterOptions::default(), |mut options| {
        options.environment.remove("WALE_FILE_PREFIX");
        let settings = S3Server::settings(server.port(), "retained");
        settings
            .iter()
            .fold(options, |options, (name, value)| options.set(name, value))
            .set("WALE_RETAIN_BACKUPS", "1")
    });
    stage
        .cluster
        .sql("create table t as select generate_series(1, 1000)");
    // By the verb, which applies the rules before it ends.
    for _ in 0..3 {
        stage.backup();
        stage.cluster.switch_wal();
        stage.cluster.wait_archived();
    }
    assert_eq!(verify_listed(&stage, "s3"), 1);
    let told = verb(&stage.options, "wale", "retain --json");
    let plan: serde_json::Value = serde_json::from_str(&told.stdout).expect(&told.stderr);
    let objects = plan["objects"].as_array().unwrap();
    assert!(
        objects.iter().all(|object| object["fate"] == "keep"),
        "{plan}"
    );
    assert_eq!(plan["kept_backups"].as_array().map(Vec::len), Some(1));
    let backup = plan["kept_backups"][0]["name"].as_str().unwrap();
    let first = &backup["base_".len()..][..24];
    let older = objects.iter().any(|object| {
        let key = object["key"].as_str().unwrap();
        key.strip_prefix("wal_005/")
            .is_some_and(|name| &name[..24] < first)
    });
    assert!(!older, "{plan}");
    let told = verb(&stage.options, "wale", "delete --confirm everything");
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(stage.sidecar.get("/backups").json(), serde_json::json!([]));
}
