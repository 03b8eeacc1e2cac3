//! New clusters by copying one that `initdb` made: it takes a second of a core, and the tests need hundreds.
//!
//! Each copy gets a system identifier of its own in every place where `initdb` wrote it: `pg_control`, and the long header at
//! the beginning of each WAL segment (`XLogLongPageHeaderData`).

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::sandbox::{Sandbox, root, run, run_as_postgres};
use crate::servers::Server;

/// Where the system identifier lies in the long header of a WAL page.
const IDENTIFIER_IN_WAL: u64 = 24;

/// Fills `data` as `initdb` with these arguments would.
///
/// # Panics
/// When `initdb` or the copy fails, or when the copy is not what `initdb` is known to write.
pub(crate) fn new_cluster(server: &Server, arguments: &[&str], data: &Path) {
    let template = template(server, arguments);
    let (from, to) = (template.to_string_lossy(), data.to_string_lossy());
    run("cp", &["-aT", "--reflink=auto", &from, &to]);
    give_identifier(data, new_identifier());
}

/// The cluster that is copied. It is kept below the tests' root folder, under the name of what it was made by and with.
fn template(server: &Server, arguments: &[&str]) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let program = server.program("initdb");
    let made = std::fs::metadata(&program).and_then(|meta| meta.modified());
    let made = made.expect("initdb").duration_since(SystemTime::UNIX_EPOCH);
    let made = made.expect("a time after 1970").as_secs();
    let folder = root().join("templates");
    let name = format!("{}-{made}{}", server.major, arguments.concat());
    let template = folder.join(name.replace('/', "_"));
    let _turn = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !template.exists() {
        std::fs::create_dir_all(&folder).expect("the folder of the templates");
        let sandbox = Sandbox::new("initdb");
        let data = sandbox.path().join("data");
        let path = data.to_string_lossy();
        let all: Vec<&str> = ["-D", &path].iter().chain(arguments).copied().collect();
        run_as_postgres(&program, &all);
        // Another test program may have been quicker; its template is as good.
        let renamed = std::fs::rename(&data, &template);
        assert!(template.exists(), "{renamed:?}");
    }
    template
}

/// As PostgreSQL makes it: seconds in the upper half; no two of one machine are the same.
fn new_identifier() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("a time after 1970");
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let low =
        u64::from(now.subsec_micros()) << 12 | (u64::from(std::process::id()) + count) & 0xFFF;
    now.as_secs() << 32 | low
}

fn give_identifier(data: &Path, identifier: u64) {
    let path = data.join("global/pg_control");
    let mut control = std::fs::read(&path).expect("pg_control");
    // The CRC follows what it covers; where, depends on the major.
    let is_crc = |at: &usize| control[*at..*at + 4] == crc32c(&control[..*at]).to_le_bytes();
    let crc_at = (200..400)
        .step_by(4)
        .find(is_crc)
        .expect("the CRC of pg_control");
    let before: [u8; 8] = control[..8].try_into().expect("eight bytes");
    control[..8].copy_from_slice(&identifier.to_le_bytes());
    let crc = crc32c(&control[..crc_at]);
    control[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, control).expect("pg_control");

    let mut changed = 0;
    for entry in std::fs::read_dir(data.join("pg_wal")).expect("pg_wal") {
        let entry = entry.expect("an entry");
        if !entry.file_type().expect("its type").is_file() {
            continue;
        }
        let file = OpenOptions::new().read(true).write(true).open(entry.path());
        let file = file.expect("a segment");
        let mut found = [0; 8];
        file.read_exact_at(&mut found, IDENTIFIER_IN_WAL)
            .expect("a header");
        if found == before {
            let written = file.write_all_at(&identifier.to_le_bytes(), IDENTIFIER_IN_WAL);
            written.expect("the header");
            changed += 1;
        }
    }
    assert!(
        changed > 0,
        "no segment of a new cluster has its identifier"
    );
}

fn crc32c(bytes: &[u8]) -> u32 {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(crc).expect("a CRC of 32 bits")
}
