//! `wale backup-fetch --only`: some files of a backup, and of the archive little more than them.

use std::fs;
use std::path::Path;

use wale_testkit::shell;

use crate::support::{Stage, WALE};

/// Bytes that frames, manifest and index take beside the table itself, at most: two frames of 2 MiB, and some 200 bytes for each of
/// the cluster's thousand files.
const BESIDE_BYTES: u64 = (4 << 20) + (1 << 20);

/// The number after a name in the log.
fn number(log: &str, name: &str) -> u64 {
    let at = log.find(name).unwrap_or_else(|| panic!("{name} in {log}"));
    let digits: String = log[at + name.len()..]
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap_or_else(|_| panic!("{name} in {log}"))
}

fn stored_bytes(stage: &Stage) -> u64 {
    let archive = stage.archive();
    let folder = archive.join("basebackups_005");
    let sizes = shell(&format!(
        "find {} -type f -printf '%s\\n'",
        folder.display()
    ));
    sizes.lines().map(|size| size.parse::<u64>().unwrap()).sum()
}

#[test]
fn one_table_of_a_large_cluster_comes_by_little_more_than_itself() {
    let stage = Stage::new("some-files", 15);
    let pg = &stage.cluster;
    pg.sql(
        "create table big as select decode(md5(g::text) || md5((g + 1)::text), 'hex') v from generate_series(1, 1000000) g; \
         create table wanted as select g, md5(g::text) v from generate_series(1, 15000) g",
    );
    pg.sql("vacuum freeze");
    pg.sql("checkpoint");
    stage.backup();
    let path = pg.sql("select pg_relation_filepath('wanted')");
    let content = fs::read(pg.data.join(&path)).unwrap();
    assert!(content.len() >= 1_000_000, "{}", content.len());

    let folder = stage.sandbox.folder("some");
    let shown = folder.to_string_lossy().into_owned();
    let verb = |pattern: &str| {
        let arguments = ["backup-fetch", "--only", pattern, &shown, "LATEST"];
        stage.sidecar.verb(WALE, "wale", &arguments)
    };
    let none = verb("base/5/no-such-table*");
    assert_eq!(none.code(), 1, "{}", none.stderr);
    assert!(none.stderr.contains("no-such-table"), "{}", none.stderr);
    assert!(is_empty(&folder), "nothing was fetched");

    let fetched = verb(&format!("{path}*"));
    assert_eq!(fetched.code(), 0, "{}", fetched.stderr);
    assert!(fs::read(folder.join(&path)).unwrap() == content, "{path}");
    let read = number(&fetched.stderr, "bytes_read=");
    let stored = stored_bytes(&stage);
    assert!(
        read < content.len() as u64 + BESIDE_BYTES && read < stored / 3,
        "{read} of {stored} for {} bytes",
        content.len()
    );
    // The folder is no cluster, and a second fetch into it is refused.
    assert!(!folder.join("PG_VERSION").exists());
    let again = verb(&format!("{path}*"));
    assert_eq!(again.code(), 73, "{}", again.stderr);
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}
