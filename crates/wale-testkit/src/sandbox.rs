//! A folder for one test, and running programs in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that user `postgres` can enter and write, removed when dropped
/// (kept when `WALE_TEST_KEEP` is set).
#[derive(Debug)]
pub struct Sandbox {
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Sandbox {
    /// Makes a new folder below `WALE_TEST_DIR` (default `/var/tmp/wale-it`).
    ///
    /// # Panics
    /// When the folder cannot be made or given to `postgres`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let root = root();
        std::fs::create_dir_all(&root).expect("the tests' root folder");
        let folder = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(&root)
            .expect("a folder");
        let path = folder.path().to_path_buf();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        give_to_postgres(&path);
        Self {
            folder: Some(folder),
            path,
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it that `postgres` owns, mode 0700.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).expect("a folder of the sandbox");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("its mode");
        give_to_postgres(&path);
        path
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let keep = std::env::var_os("WALE_TEST_KEEP").is_some();
        if let Some(folder) = self.folder.take()
            && (keep || std::thread::panicking() && std::env::var_os("CI").is_none())
        {
            eprintln!("kept: {}", folder.keep().display());
        }
    }
}

/// The folder below which all tests work.
pub(crate) fn root() -> PathBuf {
    let root = std::env::var_os("WALE_TEST_DIR");
    root.map_or_else(|| "/var/tmp/wale-it".into(), PathBuf::from)
}

fn give_to_postgres(path: &Path) {
    if rustix::process::geteuid().is_root() {
        run("chown", &["postgres:postgres", &path.to_string_lossy()]);
    }
}

/// Runs a program and returns what it printed on standard output.
///
/// # Panics
/// When it cannot be started or fails; the message holds both outputs.
pub fn run(program: &str, arguments: &[&str]) -> String {
    finish(program, Command::new(program).args(arguments).output())
}

/// Runs a program as user `postgres` (through `runuser` when the tests run as root), in `/`.
///
/// # Panics
/// As [`run`].
pub fn run_as_postgres(program: &Path, arguments: &[&str]) -> String {
    let output = as_postgres(program)
        .args(arguments)
        .current_dir("/")
        .output();
    finish(&program.to_string_lossy(), output)
}

/// Runs a script with `sh -ec` and returns its standard output.
///
/// # Panics
/// As [`run`].
pub fn shell(script: &str) -> String {
    run("sh", &["-ec", script])
}

/// A command that runs `program` as user `postgres`.
pub(crate) fn as_postgres(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn finish(program: &str, output: std::io::Result<Output>) -> String {
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program}: {}\n{out}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    out
}
