//! Tests of the walk: real folders, planted files.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;

use super::*;

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        Self { folder }
    }

    fn file(&self, path: &str) -> &Self {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"content").unwrap();
        self
    }

    fn link(&self, target: &str, path: &str) -> &Self {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    fn walk(&self, major: u32) -> Result<Walked, ClusterError> {
        let options = WalkOptions {
            major: MajorVersion::new(major).unwrap(),
            ignore: vec!["lock".to_owned(), "stats".to_owned()],
        };
        let mut entries = Vec::new();
        let data = DataDirectory::at(self.folder.path().join("data"));
        let listing = data.walk(&options, &mut |entry| entries.push(entry))?;
        Ok(Walked { listing, entries })
    }
}

/// What a walk says, with the entries.
#[derive(Debug)]
struct Walked {
    listing: Listing,
    entries: Vec<Entry>,
}

impl std::ops::Deref for Walked {
    type Target = Listing;

    fn deref(&self) -> &Listing {
        &self.listing
    }
}

fn paths(walked: &Walked) -> Vec<&str> {
    walked
        .entries
        .iter()
        .map(|entry| entry.relative.as_str())
        .collect()
}

#[test]
fn a_cluster_is_listed_in_order() {
    let fixture = Fixture::new();
    fixture
        .file("data/PG_VERSION")
        .file("data/base/1/16384")
        .file("data/base/1/16384_init")
        .file("data/base/1/16384_fsm")
        .file("data/base/1/16385")
        .file("data/base/1/t3_16390")
        .file("data/base/pgsql_tmp/pgsql_tmp1.0")
        .file("data/pg_replslot/slot/state")
        .file("data/pg_wal/000000010000000000000001")
        .file("data/postmaster.pid")
        .file("data/lock")
        .file("data/stats/global.tmp")
        .file("data/.unfinished.1.2.wale-tmp");
    let listing = fixture.walk(17).unwrap();
    assert_eq!(
        paths(&listing),
        [
            "PG_VERSION",
            "base",
            "base/1",
            "base/1/16384_init",
            "base/1/16385",
            "pg_replslot",
            "pg_wal",
            "pg_wal/archive_status",
            "pg_wal/summaries",
        ]
    );
    let sizes = listing.entries.iter().filter_map(|entry| match entry.kind {
        EntryKind::File { size } => Some(size),
        EntryKind::Directory => None,
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [7, 7, 7]);
    assert!(listing.warnings.is_empty());
    assert_eq!(listing.root.relative, "");
    let fifteen = fixture.walk(15).unwrap();
    assert!(!paths(&fifteen).contains(&"pg_wal/summaries"));
}

#[test]
fn tablespaces_lie_beneath_their_oid() {
    let fixture = Fixture::new();
    let location = fixture.folder.path().join("space");
    fixture
        .file("space/PG_15_202209061/5/16400")
        .file("space/PG_14_202107181/5/1")
        .file("space/stranger")
        .file("data/pg_tblspc/99/PG_15_202209061/5/16401")
        .link(location.to_str().unwrap(), "data/pg_tblspc/16399");
    let listing = fixture.walk(15).unwrap();
    assert_eq!(
        listing.tablespaces,
        [Tablespace {
            oid: 16399,
            location,
            inside: None,
        }]
    );
    let found = paths(&listing);
    assert!(found.contains(&"pg_tblspc/16399/PG_15_202209061/5/16400"));
    assert!(found.contains(&"pg_tblspc/99/PG_15_202209061/5/16401"));
    assert!(!found.contains(&"pg_tblspc/16399"));
    assert!(!found.iter().any(|path| path.contains("PG_14")));
    assert!(
        !found.iter().any(|path| path.contains("stranger")),
        "{found:?}"
    );
}

#[test]
fn a_linked_pg_wal_is_an_empty_folder() {
    let fixture = Fixture::new();
    fixture
        .file("wal/000000010000000000000001")
        .link("../wal", "data/pg_wal")
        .file("shm/db_0.stat")
        .link("../shm", "data/pg_stat_tmp");
    let listing = fixture.walk(15).unwrap();
    assert_eq!(listing.pg_wal_link.as_deref(), Some(Path::new("../wal")));
    let found = paths(&listing);
    assert_eq!(found, ["pg_stat_tmp", "pg_wal", "pg_wal/archive_status"]);
    let folders = listing.entries.iter().map(|entry| &entry.kind);
    assert!(
        folders
            .into_iter()
            .all(|kind| *kind == EntryKind::Directory)
    );
    assert!(listing.warnings.is_empty());
}

#[test]
fn defect_10_links_and_special_files_are_not_dropped_in_silence() {
    let fixture = Fixture::new();
    fixture
        .file("etc/postgresql.conf")
        .link("../etc/postgresql.conf", "data/postgresql.conf")
        .file("elsewhere/1")
        .link("../elsewhere", "data/log");
    let socket = fixture.folder.path().join("data/.s.PGSQL.5432");
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let listing = fixture.walk(15).unwrap();
    let warned: Vec<_> = listing
        .warnings
        .iter()
        .map(|warning| warning.relative.as_str())
        .collect();
    assert_eq!(warned, [".s.PGSQL.5432", "log", "postgresql.conf"]);
    let log = &listing.warnings[1].reason;
    assert!(log.contains("../elsewhere, is not in the backup"), "{log}");
    assert!(listing.entries.is_empty());
}

#[test]
fn fault_81_names_that_are_not_utf8_are_names() {
    let fixture = Fixture::new();
    let folder = fixture.folder.path().join("data");
    let folder = folder.join(std::ffi::OsString::from_vec(vec![b'd', 0xE9]));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join(std::ffi::OsString::from_vec(vec![b'x', 0xff]));
    std::fs::write(&file, b"12").unwrap();
    let listing = fixture.walk(15).unwrap();
    let names: Vec<_> = paths(&listing)
        .into_iter()
        .map(|path| byte_text::to_bytes(path).into_owned())
        .collect();
    assert_eq!(names, [b"d\xe9".to_vec(), b"d\xe9/x\xff".to_vec()]);
    let there = path_of_text(&listing.entries[1].relative);
    assert_eq!(fixture.folder.path().join("data").join(there), file);
    assert_eq!(listing.entries[1].kind, EntryKind::File { size: 2 });
}

#[test]
fn fault_80_a_link_among_the_data_of_the_cluster_ends_the_walk() {
    let cases = [
        "base",
        "base/16384",
        "base/5/1259",
        "global/1260",
        "pg_xact",
        "pg_xact/0000",
        "pg_multixact/members",
        "pg_commit_ts",
        "pg_twophase/1",
        "pg_logical/mappings",
        "pg_tblspc",
        "pg_tblspc/16399/PG_15_202209061/5",
        "PG_VERSION",
    ];
    for path in cases {
        let fixture = Fixture::new();
        fixture
            .file("elsewhere/1")
            .link("/nowhere", &format!("data/{path}"));
        let error = fixture.walk(15).unwrap_err();
        assert!(
            matches!(&error, ClusterError::LinkInCluster { relative, .. } if relative == path),
            "{path}: {error:?}"
        );
    }
    // What a backup leaves out anyway may be a link.
    let fixture = Fixture::new();
    fixture
        .link("/nowhere", "data/base/pgsql_tmp")
        .link("/nowhere", "data/pg_tblspc/16399x")
        .link("/nowhere", "data/postgresql.conf");
    assert_eq!(fixture.walk(15).unwrap().warnings.len(), 2);
}

#[test]
fn fault_80_a_tablespace_in_the_data_directory_is_listed_once() {
    let fixture = Fixture::new();
    let location = fixture.folder.path().join("data/my/space");
    fixture
        .file("data/my/space/PG_15_202209061/5/16400")
        .file("data/my/space/notes")
        .link(location.to_str().unwrap(), "data/pg_tblspc/16399");
    let listing = fixture.walk(15).unwrap();
    assert_eq!(listing.tablespaces.len(), 1);
    assert_eq!(listing.tablespaces[0].inside.as_deref(), Some("my/space"));
    assert_eq!(
        paths(&listing),
        [
            "my",
            "my/space",
            "my/space/notes",
            "pg_tblspc",
            "pg_tblspc/16399/PG_15_202209061",
            "pg_tblspc/16399/PG_15_202209061/5",
            "pg_tblspc/16399/PG_15_202209061/5/16400",
        ]
    );
}

#[test]
fn a_missing_data_directory_is_an_error() {
    let fixture = Fixture::new();
    std::fs::remove_dir(fixture.folder.path().join("data")).unwrap();
    assert!(matches!(
        fixture.walk(15),
        Err(ClusterError::NotFound { .. })
    ));
}

#[test]
fn a_tablespace_that_cannot_be_seen_ends_the_walk() {
    let fixture = Fixture::new();
    fixture
        .file("data/PG_VERSION")
        .link("../../space", "data/pg_tblspc/16399");
    // Not mounted here; mounted empty; the folder of another version only.
    for path in ["", "space/lost", "space/PG_14_202107181/5/1"] {
        if !path.is_empty() {
            fixture.file(path);
        }
        let error = fixture.walk(15).unwrap_err();
        assert!(
            matches!(error, ClusterError::TablespaceMissing { oid: 16399, .. }),
            "{error:?}"
        );
    }
    fixture.file("space/PG_15_202209061/5/1");
    assert_eq!(fixture.walk(15).unwrap().tablespaces.len(), 1);
}

#[test]
fn only_numbers_are_tablespaces() {
    let cases = [
        ("pg_tblspc/16384", Some(16384)),
        ("pg_tblspc/4294967295", Some(u32::MAX)),
        ("pg_tblspc/4294967296", None),
        ("pg_tblspc/+1", None),
        ("pg_tblspc/01", None),
        ("pg_tblspc/", None),
        ("pg_tblspc/1/2", None),
        ("base/1", None),
    ];
    for (path, expected) in cases {
        assert_eq!(tablespace_oid(path), expected, "{path}");
    }
}
