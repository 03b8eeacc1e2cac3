//! Where the PostgreSQL servers and Debian's client tools are.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The installed server of one major version.
#[derive(Debug, Clone)]
pub struct Server {
    /// Major version, from 10 on.
    pub major: u32,
    /// The folder that holds `initdb`, `pg_ctl` and `postgres`.
    pub bin: PathBuf,
}

impl Server {
    /// One program of this server.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// The server of `major`, as `scripts/pg-matrix.sh install` put it under `WALE_TEST_PG`
/// (default `/var/tmp/wale-pg`).
///
/// # Panics
/// When it is not installed: `make test` installs what the tests need, so its absence is a fault of
/// the set-up and never a silent skip.
#[must_use]
pub fn server(major: u32) -> Server {
    let bin = bin(major);
    assert!(
        bin.join("postgres").exists(),
        "PostgreSQL {major} is not in {}: run scripts/setup.sh",
        bin.display()
    );
    Server { major, bin }
}

/// Whether the server of `major` is installed. A major newer than those that the tests name joins them by itself.
#[must_use]
pub fn is_installed(major: u32) -> bool {
    bin(major).join("postgres").exists()
}

fn bin(major: u32) -> PathBuf {
    let root = std::env::var("WALE_TEST_PG").unwrap_or_else(|_| "/var/tmp/wale-pg".into());
    Path::new(&root).join(major.to_string()).join("bin")
}

/// A PostgreSQL client program of Debian's packages, which `PATH` does not hold
/// (`pg_verifybackup`, `pg_checksums`, `pg_amcheck`), newest major first.
///
/// # Panics
/// When no installed version has it.
#[must_use]
pub fn client_tool(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path().join("bin").join(name))
                .filter(|path| path.exists())
                .collect()
        })
        .unwrap_or_default();
    found.sort();
    found
        .pop()
        .unwrap_or_else(|| panic!("{name} is not installed: run scripts/setup.sh"))
}

/// Records that a test was skipped and why, where `scripts/test.sh` counts it
/// (`WALE_TEST_SKIPS`), and on standard error. The same words are recorded once.
///
/// # Panics
/// When the record cannot be written: a skip is never silent.
pub fn skip(test: &str, why: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let words = format!("{test}: {why}");
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.insert(words.clone()) {
        return;
    }
    eprintln!("SKIP {words}");
    if let Some(path) = std::env::var_os("WALE_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("the list of skips can be written");
        writeln!(file, "{words}").expect("the list of skips can be written");
    }
}
