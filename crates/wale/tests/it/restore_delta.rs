//! `wale restore --delta`: into the directory of a stopped cluster, whose files are kept where they are the backup's.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::Value;
use wale_testkit::{Cluster, ClusterOptions, free_port, shell};

use crate::restore_verb::{host, plan, restore};
use crate::support::{Stage, fingerprint};

/// A copy of the stopped server's directory, under a name of its own.
fn copy(stage: &Stage, name: &str) -> Cluster {
    let copy = Cluster::at(
        &stage.sandbox,
        stage.cluster.server.major,
        name,
        free_port(),
    );
    let (from, to) = (stage.cluster.data.display(), copy.data.display());
    shell(&format!("cp -a {from} {to}"));
    copy
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Arguments, and some more.
fn with<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [first, more].concat()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

/// Changes one byte in the middle of a file and leaves its size and its times as they were.
fn damage(path: &Path) {
    let before = fs::metadata(path).expect("there");
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("opened");
    let (mut byte, at) = ([0], before.size() / 2);
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[!byte[0]], at).expect("written");
    file.set_modified(before.modified().expect("a time"))
        .expect("set");
}

/// What a directory is: names, kinds, permissions, owners, sizes, times, where links lead to, and what is in the files.
fn everything(directory: &Path) -> String {
    let shown = directory.display();
    shell(&format!(
        "find {shown} -printf '%p %y %m %U %G %s %T@ %l\\n' | sort; \
         find {shown} -type f -exec sha256sum {{}} + | sort"
    ))
}

/// A file with another byte, a link out of the directory in the place of a file, and a folder of nobody. Gives what the link leads to.
fn spoil(stage: &Stage, data: &Path, files: &[String; 3]) -> PathBuf {
    damage(&data.join(&files[1]));
    let outside = stage.sandbox.path().join("outside");
    fs::write(&outside, "precious").expect("written");
    fs::remove_file(data.join(&files[2])).expect("removed");
    std::os::unix::fs::symlink(&outside, data.join(&files[2])).expect("linked");
    fs::create_dir_all(data.join("base/99999")).expect("made");
    fs::write(data.join("base/99999/1"), "of nobody").expect("written");
    shell(&format!("chown -R postgres: {}", data.display()));
    outside
}

/// What the plan says is kept and read, beside that of a restore into nothing.
fn check_plan(told: &Value, fresh: &Value) {
    let kept = &told["kept"];
    assert!(number(&kept["files"]) > 100, "{told:#}");
    assert!(number(&kept["bytes"]) > 64 << 20, "{told:#}");
    assert!(number(&kept["removed_files"]) > 3, "{told:#}");
    assert!(number(&kept["partitions_not_read"]) >= 1, "{told:#}");
    assert!(
        number(&told["partitions"]) < number(&fresh["partitions"]),
        "{told:#}"
    );
    assert!(number(&told["bytes_to_read"]) < number(&fresh["bytes_to_read"]));
}

/// The rows of the moment, and the tables that the backup had, to the byte.
fn check_rows(restored: &Cluster, tables: &[String; 3]) {
    restored.configure(&["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(
        restored.sql("select string_agg(v::text, ' ' order by v) from t"),
        "1 2"
    );
    assert_eq!(restored.sql("select to_regclass('later') is null"), "t");
    assert_eq!(
        ["big", "middle", "small"].map(|table| fingerprint(restored, table)),
        *tables
    );
}

/// An older copy of the directory, in which things went wrong, becomes the cluster of a moment after the backup; what is the
/// backup's is not read again.
#[test]
fn an_older_directory_becomes_the_cluster_of_a_moment_and_keeps_what_is_the_same() {
    let stage = Stage::new("delta", 15);
    let pg = &stage.cluster;
    // Larger than a partition of a small cluster is: it has one of its own.
    pg.sql(
        "create table big as select g, repeat(md5(g::text), 4) from generate_series(1, 480000) g; \
         create table middle as select g, md5(g::text) from generate_series(1, 20000) g; \
         create table small as select 1 as v; create table t (v int); insert into t values (1)",
    );
    pg.sql("vacuum freeze");
    pg.sql("checkpoint");
    let files = ["big", "middle", "small"]
        .map(|table| pg.sql(&format!("select pg_relation_filepath('{table}')")));
    stage.backup();
    pg.sql("insert into t values (2)");
    pg.sql("select pg_sleep(0.1)");
    let time = pg.sql("select clock_timestamp()");
    pg.sql("select pg_sleep(0.1)");
    pg.sql(
        "insert into t values (3); create table later as select g from generate_series(1, 1000) g",
    );
    let tables = ["big", "middle", "small"].map(|table| fingerprint(pg, table));
    stage.archive_all();
    pg.stop("fast");
    let older = copy(&stage, "older");
    pg.start();
    pg.sql("insert into t values (4)");
    stage.archive_all();

    let data = &older.data;
    let outside = spoil(&stage, data, &files);

    let options = host(&stage);
    let directory = text(data);
    let target = ["--to-time", &time, "--action", "promote"];
    let refused = restore(&options, &with(&target, &[&directory]));
    assert_ne!(refused.code(), 0);
    let empty = text(&stage.sandbox.folder("empty"));
    let fresh = plan(&options, &with(&target, &[&empty]));
    let with_delta = with(&target, &["--delta", &directory]);
    let told = plan(&options, &with_delta);
    let (fresh, told) = (&fresh["plan"], &told["plan"]);
    check_plan(told, fresh);
    assert!(data.join("base/99999/1").exists(), "a plan writes nothing");

    let inode = fs::metadata(data.join(&files[0])).expect("there").ino();
    let exit = restore(&options, &with(&with_delta, &["--json"]));
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    let done: Value = serde_json::from_str(&exit.stdout).expect("JSON");
    assert_eq!(
        done["result"]["files_kept"], told["kept"]["files"],
        "{done:#}"
    );
    assert_eq!(
        fs::metadata(data.join(&files[0])).expect("there").ino(),
        inode
    );
    assert!(!data.join("base/99999").exists());
    assert_eq!(fs::read(&outside).expect("read"), b"precious");
    check_rows(&older, &tables);
}

/// A server that runs, another cluster, a folder that is none, and WAL that nobody else has.
#[test]
fn what_may_run_is_foreign_or_has_the_only_copy_of_wal_is_refused() {
    let stage = Stage::new("delta-refused", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int); insert into t values (1)");
    stage.backup();
    stage.archive_all();
    let options = host(&stage);
    let refused = |directory: &Path, told: &str| {
        let before = everything(directory);
        let exit = restore(&options, &["--delta", &text(directory)]);
        assert_ne!(exit.code(), 0, "{}", exit.stdout);
        assert!(exit.stderr.contains(told), "{told}: {}", exit.stderr);
        assert!(
            before == everything(directory),
            "{told}: something was written"
        );
    };
    // The directory of the running server changes by itself; nothing of it is gone.
    let exit = restore(&options, &["--delta", &text(&pg.data)]);
    assert!(
        exit.code() != 0 && exit.stderr.contains("postmaster.pid"),
        "{}",
        exit.stderr
    );
    assert_eq!(pg.sql("select count(*) from t"), "1");
    let other = ClusterOptions {
        name: "other".into(),
        ..ClusterOptions::default()
    };
    let other = Cluster::init(&stage.sandbox, &other);
    refused(&other.data, "another cluster");
    let notes = stage.sandbox.folder("notes");
    fs::write(notes.join("notes.txt"), "x").expect("written");
    refused(&notes, "notes.txt");

    // Its last transactions are in the segment that was not full.
    pg.sql("insert into t values (2)");
    pg.kill();
    let crashed = copy(&stage, "crashed");
    refused(&crashed.data, "postmaster.pid");
    fs::remove_file(crashed.data.join("postmaster.pid")).expect("removed");
    refused(&crashed.data, "--discard-wal");
    let exit = restore(
        &options,
        &["--delta", "--discard-wal", &text(&crashed.data)],
    );
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    crashed.configure(&["archive_mode = off".into()]);
    crashed.start();
    crashed.wait_promoted();
    assert_eq!(crashed.sql("select count(*) from t"), "1");
}

/// A recovery to a time ends also before a transaction that was rolled back: the plan says that it is reached, and the server comes
/// to it.
#[test]
fn a_rollback_after_the_time_is_an_end_of_the_recovery() {
    let stage = Stage::new("rollback", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int); insert into t values (1)");
    stage.backup();
    pg.sql("insert into t values (2)");
    pg.sql("select pg_sleep(0.1)");
    let time = pg.sql("select clock_timestamp()");
    pg.sql("select pg_sleep(0.1)");
    stage.archive_all();
    let restored = Cluster::at(&stage.sandbox, 15, "restored", free_port());
    let data = text(&stage.sandbox.folder("restored"));
    let arguments = ["--to-time", &time, "--action", "promote", &data];
    let options = host(&stage);
    let told = plan(&options, &arguments);
    assert_eq!(told["plan"]["target"]["reached"], "no", "{told:#}");
    pg.sql("begin; insert into t values (3); rollback");
    stage.archive_all();
    let told = plan(&options, &arguments);
    assert_eq!(told["plan"]["target"]["reached"], "yes", "{told:#}");
    let wal = &told["plan"]["wal"];
    assert!(
        wal["newest_transaction_end"].as_str() > wal["newest_commit"].as_str(),
        "{told:#}"
    );
    let exit = restore(&options, &arguments);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    restored.configure(&["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(restored.sql("select count(*) from t"), "2");
    let log = restored.log_text();
    assert!(
        log.contains("recovery stopping before abort of transaction"),
        "{log}"
    );
}
