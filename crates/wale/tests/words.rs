//! What a person reads: the help of every verb, and errors of every kind, held word for word in `snapshots/`, so that a
//! change of wording is seen in review. CONTRIBUTING.md says how to accept one.
//!
//! The real program runs in an environment without variables, so nothing here depends on the machine: without a
//! terminal its lines have a hundred columns, and the folder of the test is written as `FOLDER`.

#![expect(clippy::disallowed_methods, reason = "tests make files as they like")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Why a test fails that cannot write its own files.
const WRITTEN: &str = "the folder of the test can be written";

/// One MiB: the smallest segment that PostgreSQL has.
const SEGMENT_BYTES: usize = 1 << 20;

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";

/// A folder with both names of the program, an archive and a WAL directory.
struct Stage {
    folder: TempDir,
    settings: BTreeMap<&'static str, String>,
    told: String,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect(WRITTEN);
        for name in ["wale", "wal-e"] {
            let path = folder.path().join(name);
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wale"), path).expect(WRITTEN);
        }
        for name in ["archive", "pg_wal"] {
            std::fs::create_dir(folder.path().join(name)).expect(WRITTEN);
        }
        let mut stage = Self {
            folder,
            settings: BTreeMap::new(),
            told: String::new(),
        };
        stage.set("WALE_FILE_PREFIX", "FOLDER/archive");
        // Lines of the log hold times.
        stage.set("WALE_LOG", "error");
        stage
    }

    fn set(&mut self, name: &'static str, value: &str) {
        let value = value.replace("FOLDER", &self.root());
        self.settings.insert(name, value);
    }

    fn root(&self) -> String {
        self.folder.path().to_str().expect("text").to_owned()
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.folder.path().join(name), content).expect(WRITTEN);
    }

    fn run(&self, line: &str) -> Output {
        let line = line.replace("FOLDER", &self.root());
        let mut words = line.split(' ');
        let program = self.folder.path().join(words.next().expect("a program"));
        Command::new(program)
            .args(words)
            .env_clear()
            .envs(&self.settings)
            .current_dir(self.folder.path())
            .output()
            .expect("the program runs")
    }

    /// Runs what must succeed.
    fn done(&self, line: &str) {
        let output = self.run(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
    }

    /// Runs what must fail, and takes down what is said of it.
    fn fails(&mut self, line: &str) {
        let output = self.run(line);
        let code = output.status.code().expect("it ends by itself");
        assert_ne!(code, 0, "{line}");
        let said = String::from_utf8(output.stderr).expect("text");
        let said = said.replace(&self.root(), "FOLDER");
        write!(self.told, "$ {line}\n{said}exit status {code}\n\n").expect("written");
    }

    /// As [`Stage::fails`], with a setting that is taken back.
    fn fails_with(&mut self, name: &'static str, value: &str, line: &str) {
        let before = self.settings.clone();
        self.set(name, value);
        writeln!(self.told, "{name}={value}").expect("written");
        self.fails(line);
        self.settings = before;
    }
}

/// The content of a segment: the long header of PostgreSQL 15, and nothing that matters behind it.
fn segment(system_identifier: u64, number: u64, filling: u8) -> Vec<u8> {
    let mut content = Vec::with_capacity(SEGMENT_BYTES);
    content.extend_from_slice(&0xD110_u16.to_le_bytes());
    content.extend_from_slice(&0x0002_u16.to_le_bytes());
    content.extend_from_slice(&1_u32.to_le_bytes());
    content.extend_from_slice(&(number << 20).to_le_bytes());
    content.extend_from_slice(&[0; 8]);
    content.extend_from_slice(&system_identifier.to_le_bytes());
    content.extend_from_slice(&(1_u32 << 20).to_le_bytes());
    content.extend_from_slice(&8192_u32.to_le_bytes());
    content.resize(SEGMENT_BYTES, filling);
    content
}

/// The help of a program and of all its verbs.
fn help(stage: &Stage, program: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut waiting = vec![program.to_owned()];
    while let Some(line) = waiting.pop() {
        let output = stage.run(&format!("{line} --help"));
        assert!(output.status.success(), "{line}");
        let text = String::from_utf8(output.stdout).expect("text");
        waiting.extend(
            verbs(&text)
                .iter()
                .rev()
                .map(|verb| format!("{line} {verb}")),
        );
        all.push((line, text));
    }
    all
}

/// The verbs that a page of help lists.
fn verbs(text: &str) -> Vec<&str> {
    let lines = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .collect()
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn the_help_of_wale_is_known() {
    let pages = help(&Stage::new(), "wale");
    assert!(pages.len() > 20, "{} pages of help", pages.len());
    let mut told = String::new();
    for (line, text) in &pages {
        let lines = text.lines().count();
        assert!(lines < 150, "{line}: {lines} lines");
        write!(told, "$ {line} --help\n{text}\n").expect("written");
    }
    snapshot("help_of_wale", &told);
}

/// `wale help VERB` is `wale VERB --help`, and every flag is understood although no page shows all of them.
#[test]
fn help_can_be_asked_for_in_both_ways() {
    let stage = Stage::new();
    let said = |line: &str| {
        let output = stage.run(line);
        assert!(output.status.success(), "{line}");
        String::from_utf8(output.stdout).expect("text")
    };
    for verb in ["", " serve", " restore", " delete retain"] {
        let page = said(&format!("wale{verb} --help"));
        assert_eq!(said(&format!("wale help{verb}")), page, "{verb}");
    }
    let serve = said("wale serve --help");
    assert!(
        serve.contains("--cron-timing") && !serve.contains("--s3-prefix"),
        "{serve}"
    );
    let restore = said("wale --s3-endpoint https://x restore --help");
    assert!(restore.contains("--restore-workers"), "{restore}");
    let doctor = said("wale doctor --help");
    assert_eq!(doctor, said("wale check --help"));
}

#[test]
fn the_help_of_wal_e_is_known() {
    let pages = help(&Stage::new(), "wal-e");
    assert!(pages.len() > 12, "{} pages of help", pages.len());
    let mut told = String::new();
    for (line, text) in pages {
        write!(told, "$ {line} --help\n{text}\n").expect("written");
    }
    snapshot("help_of_wal_e", &told);
}

#[test]
fn the_errors_of_a_command_line_are_known() {
    let mut stage = Stage::new();
    for line in [
        "wale wal-psuh pg_wal/x",
        "wale recover /data",
        "wal-e restore /data",
        "wale restore /data",
        "wale restore --to-time 2026-11-23T14:00:00 /data",
        "wale restore --to-time 2026-13-23T14:00:00Z /data",
        "wale restore --to-lsn 0/3000148 --latest /data",
        "wale restore --action wait /data",
        "wale fsck",
        "wale wal-fetch only-one",
        "wale backup-list --nonsense",
        "wale backup-push --pool-size many",
        "wal-e wal-fetch only-one",
        "wal-e backup-list --terse",
        "wal-e -k a --aws-instance-profile backup-list",
        "wal-e delete",
    ] {
        stage.fails(line);
    }
    snapshot("errors_of_a_command_line", &stage.told);
}

#[test]
fn the_errors_of_settings_are_known() {
    let mut stage = Stage::new();
    let push = format!("wale wal-push pg_wal/{FIRST}");
    for (name, value) in [
        ("WALE_FILE_PREFIX", "relative/path"),
        ("WALE_S3_PREFIX", "s3://bucket/path"),
        ("WALE_COMPRESSION", "rar"),
        ("WALE_COMPRESSION_LEVEL", "99"),
        ("WALE_MEMORY", "much"),
        ("WALE_FETCH_DEADLINE", "soon"),
    ] {
        stage.fails_with(name, value, &push);
    }
    stage.settings.clear();
    stage.fails("wale backup-list");
    snapshot("errors_of_settings", &stage.told);
}

#[test]
fn the_errors_of_wal_are_known() {
    let mut stage = Stage::new();
    let push_first = format!("wale wal-push pg_wal/{FIRST}");
    let push_second = format!("wale wal-push pg_wal/{SECOND}");
    let fetch_first = format!("wale wal-fetch {FIRST} FOLDER/fetched");
    stage.fails(&push_first);
    stage.fails("wale wal-push pg_wal/postgresql.conf");
    stage.write(&format!("pg_wal/{FIRST}"), &segment(42, 1, 1));
    stage.done(&push_first);
    stage.write(&format!("pg_wal/{FIRST}"), &segment(42, 1, 2));
    stage.fails(&push_first);
    for (content, _why) in [
        (segment(43, 2, 1), "another cluster's"),
        (segment(42, 3, 1), "another segment under this name"),
        (segment(42, 2, 1)[..4096].to_vec(), "cut short"),
        (vec![0; SEGMENT_BYTES], "never written"),
    ] {
        stage.write(&format!("pg_wal/{SECOND}"), &content);
        stage.fails(&push_second);
    }
    stage.fails(&format!("wale wal-fetch {SECOND} FOLDER/fetched"));
    stage.fails("wale wal-fetch nonsense FOLDER/fetched");
    stage.fails(&format!("wale wal-fetch {FIRST} FOLDER/none/fetched"));
    let object = format!("archive/wal_005/{FIRST}.zst");
    let whole = std::fs::read(stage.folder.path().join(&object)).expect("it is archived");
    stage.write(&object, &whole[..whole.len() / 2]);
    stage.fails(&fetch_first);
    stage.write(&object, b"no frame of zstd");
    stage.fails(&fetch_first);
    snapshot("errors_of_wal", &stage.told);
}

#[test]
fn the_errors_of_base_backups_are_known() {
    let mut stage = Stage::new();
    stage.write(&format!("pg_wal/{FIRST}"), &segment(42, 1, 1));
    stage.done(&format!("wale wal-push pg_wal/{FIRST}"));
    assert!(Path::new(&stage.root()).join("archive/wal_005").is_dir());
    let name = format!("base_{FIRST}_00000040");
    for line in [
        "wale backup-list nonsense",
        "wale backup-fetch FOLDER/new LATEST",
        "wale backup-fetch FOLDER/new nonsense",
        &format!("wale backup-fetch FOLDER/new {name}"),
        "wale backup-fetch FOLDER/pg_wal LATEST",
        &format!("wale backup-mark {name}"),
        "wale backup-push FOLDER/none",
        "wale backup-push FOLDER/pg_wal",
        "wale backup-push --while-offline FOLDER/pg_wal",
        "wale retain",
        "wale delete before nonsense",
        &format!("wale delete target {name}"),
        "wale delete retain 0",
        "wale delete everything --confirm --dry-run=yes",
    ] {
        stage.fails(line);
    }
    snapshot("errors_of_base_backups", &stage.told);
}
