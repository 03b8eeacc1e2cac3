//! A page of the documents, block by block, and the shell that runs them.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wale_testkit::{Cluster, Sandbox, SidecarOptions, skip, wait_until, wale_command};

use crate::support::WALE;

/// How a marker begins. It stands in an HTML comment on the line above the block.
const MARKER: &str = "<!-- not run: ";

/// Languages of blocks that nobody types: drawings, the output of a program.
const SHOWN: [&str; 2] = ["", "text"];

/// How long a block may take. A base backup of an empty cluster takes seconds.
const LIMIT: Duration = Duration::from_mins(3);

/// A fenced block of a page.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Its first line in the page, from 1.
    pub(super) line: usize,
    pub(super) language: String,
    /// Its text without the fence's indentation.
    pub(super) text: String,
    /// Why it does not run.
    pub(super) marker: Option<String>,
}

/// The blocks of a text.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open: Option<usize> = None;
    let mut above = "";
    for (index, line) in text.lines().enumerate() {
        let bare = line.trim_start();
        let indentation = line.len() - bare.len();
        match (open, bare.strip_prefix("```")) {
            (None, Some(language)) => {
                let marker = above.trim().strip_prefix(MARKER);
                found.push(Block {
                    line: index + 1,
                    language: language.trim().to_owned(),
                    text: String::new(),
                    marker: marker.map(|why| why.trim_end_matches("-->").trim().to_owned()),
                });
                open = Some(indentation);
            }
            (Some(_), Some(_)) => open = None,
            (Some(indented), None) => {
                let block = found.last_mut().expect("a block is open");
                block.text.push_str(line.get(indented..).unwrap_or(bare));
                block.text.push('\n');
            }
            (None, None) => {}
        }
        above = line;
    }
    found.retain(|block| !SHOWN.contains(&block.language.as_str()));
    found
}

/// The repository.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A page whose blocks are taken one after the other.
pub(super) struct Page {
    name: &'static str,
    text: String,
    waiting: std::vec::IntoIter<Block>,
    marked: Vec<Block>,
    replaced: Vec<(&'static str, String)>,
    ran: usize,
}

impl Page {
    /// The page at a path of the repository.
    pub(super) fn open(name: &'static str) -> Self {
        let text = std::fs::read_to_string(root().join(name)).expect("the page is there");
        let (marked, waiting): (Vec<Block>, Vec<Block>) = blocks(&text)
            .into_iter()
            .partition(|block| block.marker.is_some());
        Self {
            name,
            text,
            waiting: waiting.into_iter(),
            marked,
            replaced: Vec::new(),
            ran: 0,
        }
    }

    /// What a reader puts in place of words of the page: hosts, paths, names.
    pub(super) fn replace(&mut self, words: &'static str, by: String) {
        let name = self.name;
        assert!(self.text.contains(words), "{name} does not say {words}");
        self.replaced.push((words, by));
    }

    /// The next block, which must be of one of these languages.
    fn next(&mut self, languages: &[&str]) -> Block {
        let name = self.name;
        let mut block = self
            .waiting
            .next()
            .unwrap_or_else(|| panic!("{name} has no further block of {languages:?}"));
        let Block { line, language, .. } = &block;
        assert!(
            languages.contains(&language.as_str()),
            "{name}:{line}: a block of {language}, where the test runs one of {languages:?}"
        );
        block.text = replaced(&block.text, &self.replaced);
        self.ran += 1;
        block
    }

    /// The text of the next block, which stays the next.
    pub(super) fn peek(&self) -> String {
        let next = self.waiting.as_slice().first();
        let text = &next.expect("a further block").text;
        replaced(text, &self.replaced)
    }

    /// Runs the next block in the shell, and answers what it printed.
    pub(super) fn sh(&mut self, shell: &mut Shell) -> String {
        let Block { line, text, .. } = self.next(&["sh", "console"]);
        shell.run(&format!("{}:{line}", self.name), &text)
    }

    /// Runs the next block as a script of its own, with arguments.
    pub(super) fn script(&mut self, shell: &mut Shell, arguments: &str) -> String {
        let Block { line, text, .. } = self.next(&["sh"]);
        let path = shell.write(&format!("script-{line}"), &text);
        let call = format!("sh {} {arguments}", path.display());
        shell.run(&format!("{}:{line}", self.name), &call)
    }

    /// Runs the next block as SQL, in one session.
    pub(super) fn sql(&mut self, cluster: &Cluster) {
        let Block { line, text, .. } = self.next(&["sql"]);
        for statement in text.split_inclusive(";\n") {
            cluster
                .try_sql(statement)
                .unwrap_or_else(|error| panic!("{}:{line}: {error}", self.name));
        }
    }

    /// The next block, a configuration file.
    pub(super) fn ini(&mut self) -> String {
        self.next(&["ini"]).text
    }

    /// The next block is JSON.
    pub(super) fn json(&mut self) {
        let Block { line, text, .. } = self.next(&["json"]);
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&text);
        parsed.unwrap_or_else(|error| panic!("{}:{line}: {error}", self.name));
    }

    /// The next block is YAML.
    pub(super) fn yaml(&mut self) {
        let Block { line, text, .. } = self.next(&["yaml"]);
        parse_yaml(&format!("{}:{line}", self.name), &text);
    }

    /// Nothing of the page runs on this machine, which the caller has told.
    pub(super) fn pass_over(&mut self) {
        self.waiting = Vec::new().into_iter();
    }

    /// Every block was taken, or says why not.
    pub(super) fn finish(mut self) {
        let name = self.name;
        if let Some(Block { line, .. }) = self.waiting.next() {
            panic!("{name}:{line}: nobody runs this block, and it does not say why");
        }
        println!(
            "{name}: {} blocks ran, {} are marked",
            self.ran,
            self.marked.len()
        );
        for Block { line, marker, .. } in &self.marked {
            println!(
                "{name}:{line}: not run: {}",
                marker.as_deref().unwrap_or("")
            );
        }
    }
}

/// Puts values in place of words, from left to right: what was put in is not replaced again.
fn replaced(text: &str, table: &[(&'static str, String)]) -> String {
    let mut done = String::new();
    let mut rest = text;
    let first = |rest: &str| {
        let places = table
            .iter()
            .filter_map(|entry| Some((rest.find(entry.0)?, entry)));
        places
            .min_by_key(|(at, (words, _))| (*at, usize::MAX - words.len()))
            .map(|(at, (words, by))| (at, words.len(), by.clone()))
    };
    while let Some((at, length, by)) = first(rest) {
        done.push_str(&rest[..at]);
        done.push_str(&by);
        rest = &rest[at + length..];
    }
    done + rest
}

/// Parses YAML with the parser that moto brings, or Python's own.
pub(super) fn parse_yaml(place: &str, text: &str) {
    use std::io::Write;
    let tools = std::env::var("WALE_TEST_TOOLS").unwrap_or_else(|_| "/var/tmp/wale-tools".into());
    let has_parser = |python: &String| {
        let asked = Command::new(python).args(["-c", "import yaml"]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    let pythons = [format!("{tools}/moto/bin/python"), "python3".to_owned()];
    let Some(python) = pythons.into_iter().find(has_parser) else {
        skip(
            "YAML in the documents",
            "no parser: scripts/setup.sh test installs moto, which has one",
        );
        return;
    };
    let mut child = Command::new(python)
        .args(["-c", "import sys, yaml; assert yaml.safe_load(sys.stdin)"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{place}: {errors}");
}

/// One shell for all blocks of a page, as a reader has it: variables and functions stay. It runs as the server's user
/// and stops at the first command that fails.
pub(super) struct Shell {
    child: Child,
    folder: PathBuf,
    log: PathBuf,
    /// Where it looks for programs: wale, and those of the server.
    pub(super) path: String,
    blocks: usize,
}

impl Shell {
    /// A shell in the sandbox, with this environment, with wale and the programs of `cluster`'s server on its path.
    pub(super) fn start<'a>(
        sandbox: &Sandbox,
        cluster: &Cluster,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let folder = sandbox.folder("shell");
        let log = folder.join("log");
        let file = File::create(&log).expect("the shell's log");
        let pg_ctl = cluster.server.program("pg_ctl");
        let path = format!(
            "{}:{}:{}:/usr/local/bin:/usr/bin:/bin",
            folder.display(),
            wale_folder(sandbox, cluster).display(),
            pg_ctl.parent().expect("a folder").display(),
        );
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
            command.arg("sh");
            command
        } else {
            Command::new("sh")
        };
        let child = command
            .arg("-eu")
            .env_clear()
            .envs(environment)
            .env("PATH", &path)
            .current_dir(sandbox.path())
            .stdin(Stdio::piped())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .expect("a shell starts");
        Self {
            child,
            folder,
            log,
            path,
            blocks: 0,
        }
    }

    /// In the environment of a sidecar, as `docker compose exec wale` gives it.
    pub(super) fn of_sidecar(
        sandbox: &Sandbox,
        cluster: &Cluster,
        options: &SidecarOptions,
    ) -> Self {
        let environment = options.environment.iter();
        Self::start(
            sandbox,
            cluster,
            environment.map(|(name, value)| (name.as_str(), value.as_str())),
        )
    }

    /// Runs lines and answers what they printed, the lines of background programs among it.
    pub(super) fn run(&mut self, place: &str, text: &str) -> String {
        use std::io::Write;
        self.blocks += 1;
        let script = self.write(&format!("block-{}", self.blocks), text);
        let done = self.folder.join(format!("done-{}", self.blocks));
        let before = self.printed().len();
        let stdin = self.child.stdin.as_mut().expect("its input is a pipe");
        // A block that reads finds nothing, not the next block.
        let _ = writeln!(
            stdin,
            ". {} </dev/null\n: >{}",
            script.display(),
            done.display()
        );
        wait_until(place, LIMIT, || {
            let ended = self.child.try_wait().expect("the shell can be asked");
            let printed = self.printed().split_off(before);
            assert!(ended.is_none(), "{place}: {printed}\n--- of\n{text}");
            done.exists().then_some(printed)
        })
    }

    /// A file that the shell can read.
    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("a file of the sandbox");
        path
    }

    /// A program on its path.
    pub(super) fn program(&self, name: &str, script: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.write(name, &format!("#!/bin/sh\n{script}\n"));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("its mode");
        path
    }

    fn printed(&self) -> String {
        let bytes = std::fs::read(&self.log).expect("the shell's log");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Shell {
    /// With everything that it left in the background.
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok();
        if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// The folder that holds wale under both names, where user `postgres` can enter.
fn wale_folder(sandbox: &Sandbox, cluster: &Cluster) -> PathBuf {
    let command = wale_command(WALE, "wale", &SidecarOptions::new(sandbox, cluster));
    let program = command.get_args().last().unwrap_or(command.get_program());
    let folder = Path::new(program).parent().expect("a folder");
    folder.to_owned()
}

#[test]
fn blocks_have_a_language_a_place_and_perhaps_a_marker() {
    let text = "a\n```sh\nx\n```\n\n   <!-- not run: needs a whale -->\n   ```console\n   y\n     z\n   ```\n\
                ```text\n---\n```\n```\n---\n```\n";
    let found = blocks(text);
    let told: Vec<(usize, &str, &str, Option<&str>)> = found
        .iter()
        .map(|block| {
            let marker = block.marker.as_deref();
            (
                block.line,
                block.language.as_str(),
                block.text.as_str(),
                marker,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (2, "sh", "x\n", None),
            (7, "console", "y\n  z\n", Some("needs a whale")),
        ]
    );
}

#[test]
fn words_are_replaced_once_and_the_longest_first() {
    let table = [
        ("/srv", "/tmp/srv".to_owned()),
        ("/srv/copy", "/tmp/5433".to_owned()),
        ("5433", "1".to_owned()),
    ];
    assert_eq!(
        replaced("/srv/copy /srv 5433", &table),
        "/tmp/5433 /tmp/srv 1"
    );
}
