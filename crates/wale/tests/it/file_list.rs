//! WAL-G's list of files beside wale's backups: every member of every partition, and nothing else. What WAL-G does not find in it, it
//! passes over without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use wale_testkit::{ClusterOptions, shell};

use crate::support::Stage;

/// Members that WAL-G extracts, listed or not.
const ALWAYS: [&str; 3] = ["/global/pg_control", "backup_label", "tablespace_map"];

/// A stage with a tablespace, a second database, partitioned tables and files of all ages, and a backup in `codec`.
fn stage(name: &str, codec: &str) -> Stage {
    let stage = Stage::with(name, &ClusterOptions::default(), |options| {
        options.set("WALE_COMPRESSION", codec)
    });
    stage.sidecar.wait_ready(Duration::from_secs(60));
    let pg = &stage.cluster;
    let location = stage.sandbox.folder("space");
    pg.sql(&format!(
        "create tablespace space location '{}'",
        location.display()
    ));
    pg.sql("create table t tablespace space as select g as v from generate_series(1, 1000) g");
    pg.sql("create table p (id int primary key) partition by range (id)");
    pg.sql("create table p_1 partition of p for values from (0) to (10)");
    pg.sql("create database other");
    // A name of more than a header's 100 bytes.
    let folder = pg.data.join("base/own-folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("x".repeat(120)), "long").unwrap();
    let version = pg.data.join("PG_VERSION");
    shell(&format!(
        "chown -R postgres:postgres {} && touch -d '2001-02-03 04:05:06.789012345 UTC' {}",
        folder.display(),
        version.display()
    ));
    stage.backup();
    stage
}

/// The folder of the only backup.
fn backup_folder(stage: &Stage) -> std::path::PathBuf {
    let found = shell(&format!(
        "ls -d {}/basebackups_005/base_*/",
        stage.archive().display()
    ));
    found.trim().into()
}

fn sentinel(stage: &Stage) -> String {
    let folder = stage.archive().join("basebackups_005");
    shell(&format!(
        "cat {}/*_backup_stop_sentinel.json",
        folder.display()
    ))
}

/// The members of each partition, as the tars have them.
fn members(folder: &Path, decompress: &str) -> BTreeMap<String, BTreeSet<String>> {
    let parts = std::fs::read_dir(folder.join("tar_partitions")).unwrap();
    parts
        .map(|part| {
            let path = part.unwrap().path();
            let listed = shell(&format!(
                "{decompress} < {} | tar -tPf - --quoting-style=literal",
                path.display()
            ));
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, listed.lines().map(str::to_owned).collect())
        })
        .collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

fn lists_every_member(name: &str, codec: &str, decompress: &str) {
    let stage = stage(name, codec);
    let folder = backup_folder(&stage);
    let list = std::fs::read_to_string(folder.join("files_metadata.json")).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let in_tars = members(&folder, decompress);
    let sets = list["TarFileSets"].as_object().unwrap();
    let listed: BTreeMap<String, BTreeSet<String>> = sets
        .iter()
        .map(|(part, names)| {
            let names = names.as_array().unwrap().iter();
            let names = names.map(|name| name.as_str().unwrap().to_owned());
            (part.clone(), names.collect())
        })
        .collect();
    assert_eq!(listed, in_tars, "{codec}");
    let mut all: BTreeSet<String> = in_tars.into_values().flatten().collect();
    assert!(all.iter().any(|name| name.len() > 120), "{all:?}");
    for always in ALWAYS {
        assert!(all.remove(always), "{always}");
    }
    assert_eq!(keys(&list["Files"]), all, "{codec}");
    assert!(all.contains("/") && all.contains("/base/") && all.contains("/PG_VERSION"));
    times_are_those_of_the_files(&stage, &list["Files"]);
    relations_are_those_of_the_server(&stage, &list["DatabasesByNames"]);
    let sentinel = sentinel(&stage);
    assert!(!sentinel.contains("FilesMetadataDisabled"), "{sentinel}");
}

/// An old file has its very time. One that was changed just before it was read has a time that no file has: WAL-G must not take it for
/// unchanged, since a change within the same tick of the clock does not show.
fn times_are_those_of_the_files(stage: &Stage, files: &Value) {
    let described = &files["/PG_VERSION"];
    assert_eq!(described["MTime"], "2001-02-03T04:05:06.789012345Z");
    for flag in ["IsIncremented", "IsSkipped"] {
        assert_eq!(described[flag], false);
    }
    let relation = stage.cluster.sql("select pg_relation_filepath('p_1')");
    let listed = files[format!("/{relation}")]["MTime"].as_str().unwrap();
    let path = stage.cluster.data.join(&relation);
    let own = shell(&format!(
        "TZ=UTC date -r {} +%Y-%m-%dT%H:%M:%S.%N",
        path.display()
    ));
    assert_ne!(listed.trim_end_matches('Z'), own.trim());
    assert_eq!(listed[..19], own[..19], "an instant before");
}

fn relations_are_those_of_the_server(stage: &Stage, databases: &Value) {
    let pg = &stage.cluster;
    let names: BTreeSet<String> = ["other", "postgres", "template1"].map(str::to_owned).into();
    assert_eq!(keys(databases), names);
    let postgres = &databases["postgres"];
    let number = |sql: &str| pg.sql(sql).parse::<u64>().unwrap();
    assert_eq!(
        postgres["oid"],
        number("select oid from pg_database where datname = 'postgres'")
    );
    let tables = &postgres["tables_new"];
    for (name, regclass) in [
        ("public.t", "t"),
        // Mapped: the catalogue has no number for its files.
        ("pg_catalog.pg_class", "pg_class"),
    ] {
        let found = &tables[name];
        let oid = number(&format!("select '{regclass}'::regclass::oid"));
        let file = number(&format!("select pg_relation_filenode('{regclass}')"));
        assert_eq!(found["oid"], oid, "{name}");
        assert_eq!(found["relfilenode"], file, "{name}");
    }
    // A partitioned table has no files, and its partitions stand below it.
    let partitioned = &tables["public.p"];
    assert_eq!(partitioned["relfilenode"], 0);
    let file = number("select pg_relation_filenode('p_1')");
    assert_eq!(partitioned["subtables"]["public.p_1"]["relfilenode"], file);
    assert!(tables["public.p_1"].is_null());
    // Its index is a child of an index without files, and would be lost.
    assert!(tables["public.p_1_pkey"]["relfilenode"].as_u64() > Some(0));
}

#[test]
fn each_member_is_in_wal_gs_list_and_each_listed_file_is_there_in_zstd() {
    lists_every_member("list-zstd", "zstd", "zstd -dcq");
}

#[test]
fn each_member_is_in_wal_gs_list_and_each_listed_file_is_there_in_lz4() {
    lists_every_member("list-lz4", "lz4", "lz4 -dcq");
}

#[test]
fn each_member_is_in_wal_gs_list_and_each_listed_file_is_there_uncompressed() {
    lists_every_member("list-none", "none", "cat");
}

/// What the real WAL-E reads, what is encrypted, and what has a name that JSON cannot say, has no list: then WAL-G extracts all.
#[test]
fn a_backup_that_wal_g_could_misread_has_no_list() {
    let canary = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    for (name, settings) in [
        ("nolist-lzo", &[("WALE_COMPRESSION", "lzo")][..]),
        ("nolist-age", &[("WALE_AGE_RECIPIENTS", canary)]),
        ("nolist-name", &[]),
    ] {
        let stage = Stage::with(name, &ClusterOptions::default(), |mut options| {
            for (setting, value) in settings {
                options = options.set(setting, value);
            }
            options
        });
        stage.sidecar.wait_ready(Duration::from_secs(60));
        if settings.is_empty() {
            use std::os::unix::ffi::OsStrExt as _;
            let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
            let odd = stage.cluster.data.join(odd);
            std::fs::write(&odd, "odd").unwrap();
            shell(&format!(
                "chown postgres:postgres {}/caf*",
                stage.cluster.data.display()
            ));
        }
        stage.backup();
        let folder = backup_folder(&stage);
        assert!(!folder.join("files_metadata.json").exists(), "{name}");
        let sentinel = sentinel(&stage);
        assert!(
            sentinel.contains(r#""FilesMetadataDisabled":true"#),
            "{sentinel}"
        );
        if name == "nolist-lzo" {
            let members = members(&folder, "lzop -dcq");
            let mut names = members.values().flatten();
            assert!(
                names.all(|name| name == "/" || !name.starts_with('/')),
                "{members:?}"
            );
        }
    }
}
