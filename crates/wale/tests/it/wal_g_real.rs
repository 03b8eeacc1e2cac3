//! The real WAL-G on what wale wrote, where it is installed (`bin/wal-g` in the folder of the tests' tools; no script installs it: it
//! is built with Go's own downloads).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wale_testkit::{Cluster, ClusterOptions, client_tool, free_port, run_as_postgres, shell, skip};

use crate::support::{Stage, fingerprint};

/// The program with its settings: a script, because a server asks it for WAL, too.
struct WalG(PathBuf);

impl WalG {
    /// None, and a skip that is counted, where it is not installed.
    fn new(stage: &Stage, settings: &str) -> Option<Self> {
        let tools =
            std::env::var("WALE_TEST_TOOLS").unwrap_or_else(|_| "/var/tmp/wale-tools".into());
        let program = Path::new(&tools).join("bin/wal-g");
        if !program.exists() {
            skip("wal-g", "the real WAL-G is not installed");
            return None;
        }
        let script = stage.sandbox.path().join("wal-g.sh");
        let cluster = &stage.cluster;
        let text = format!(
            "#!/bin/sh\nexport PGHOST={} PGPORT={} PGUSER=postgres PGDATABASE=postgres\n\
             export WALG_FILE_PREFIX={} {settings}\nexec {} \"$@\"\n",
            cluster.socket.display(),
            cluster.port,
            stage.archive().display(),
            program.display(),
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self(script))
    }

    fn run(&self, arguments: &[&str]) -> String {
        run_as_postgres(&self.0, arguments)
    }

    /// Fetches the newest backup into a new data directory.
    fn fetch(&self, stage: &Stage, name: &str, more: &[&str]) -> Cluster {
        let major = stage.cluster.server.major;
        let cluster = Cluster::at(&stage.sandbox, major, name, free_port());
        let data = stage.sandbox.folder(name).display().to_string();
        shell(&format!(
            "chown postgres:postgres {data} && chmod 700 {data}"
        ));
        self.run(&[&["backup-fetch", &data, "LATEST"], more].concat());
        cluster
    }

    /// Recovers to the end of the archive.
    fn recover(&self, cluster: &Cluster) {
        cluster.configure(&[
            "archive_mode = off".into(),
            format!("restore_command = '{} wal-fetch %f %p'", self.0.display()),
        ]);
        std::fs::write(cluster.data.join("recovery.signal"), "").unwrap();
        shell(&format!(
            "mkdir -p {0}/pg_wal && chown -hR postgres:postgres {0}",
            cluster.data.display()
        ));
        cluster.start();
        cluster.wait_promoted();
    }
}

fn stage(name: &str, codec: &str) -> Stage {
    let stage = Stage::with(name, &ClusterOptions::default(), |options| {
        options.set("WALE_COMPRESSION", codec)
    });
    stage.sidecar.wait_ready(Duration::from_secs(60));
    stage
}

/// Without a list it says 0, and the server comes up on the place of the running one.
#[test]
fn real_wal_g_puts_the_tablespace_of_wales_backup_where_its_restore_spec_says() {
    let stage = stage("walg-spec", "zstd");
    let Some(wal_g) = WalG::new(&stage, "WALG_COMPRESSION_METHOD=zstd") else {
        return;
    };
    let pg = &stage.cluster;
    let (old, new) = (stage.sandbox.folder("old"), stage.sandbox.folder("new"));
    shell(&format!("chown postgres:postgres {}", new.display()));
    pg.sql(&format!("create tablespace s location '{}'", old.display()));
    pg.sql("create table t tablespace s as select g as v from generate_series(1, 5000) g");
    stage.backup();
    pg.sql("insert into t select g from generate_series(1, 500) g");
    stage.archive_all();
    let noted = fingerprint(pg, "t");
    let oid = pg.sql("select oid from pg_tablespace where spcname = 's'");
    pg.stop("immediate");
    let target = stage.sandbox.path().join("restored");
    let spec = stage.sandbox.path().join("spec.json");
    let text = serde_json::json!({
        "base_prefix": target,
        "tablespaces": [oid],
        oid.as_str(): {"loc": new, "link": format!("pg_tblspc/{oid}")},
    });
    std::fs::write(&spec, text.to_string()).unwrap();
    let before = shell(&format!("find {} -type f | xargs sha256sum", old.display()));
    let spec = spec.display().to_string();
    let restored = wal_g.fetch(&stage, "restored", &["--restore-spec", &spec]);
    assert!(!restored.data.join("tablespace_map").exists());
    wal_g.recover(&restored);
    assert_eq!(fingerprint(&restored, "t"), noted);
    let location = restored.sql(&format!("select pg_tablespace_location({oid})"));
    assert_eq!(location, new.display().to_string());
    let after = shell(&format!("find {} -type f | xargs sha256sum", old.display()));
    assert_eq!(before, after, "the running server's place");
}

#[test]
fn real_wal_g_restores_some_files_and_some_databases_of_wales_backup() {
    let stage = stage("walg-some", "lz4");
    let Some(wal_g) = WalG::new(&stage, "WALG_COMPRESSION_METHOD=lz4") else {
        return;
    };
    let pg = &stage.cluster;
    pg.sql("create database one");
    pg.sql("create database two");
    let in_database = |name: &str, sql: &str| cluster_sql(pg, name, sql);
    let files = ["one", "two"].map(|name| {
        in_database(
            name,
            "create table t as select g as v from generate_series(1, 1000) g",
        );
        in_database(name, "select pg_relation_filepath('t')")
    });
    pg.sql("checkpoint");
    stage.backup();
    stage.archive_all();
    let masked = wal_g.fetch(&stage, "masked", &["--mask", "base/1/*"]);
    let found = shell(&format!(
        "cd {} && find . -type f | cut -d/ -f2,3 | sort -u",
        masked.data.display()
    ));
    assert_eq!(found.trim(), "base/1");
    let some = wal_g.fetch(&stage, "some", &["--restore-only=one"]);
    let there = files.map(|file| some.data.join(file).exists());
    assert_eq!(there, [true, false]);
    wal_g.recover(&some);
    let count = "select count(*) from t";
    assert_eq!(cluster_sql(&some, "one", count), "1000");
}

/// The answer of another database than the usual one.
fn cluster_sql(cluster: &Cluster, database: &str, sql: &str) -> String {
    let (socket, port) = (
        cluster.socket.display().to_string(),
        cluster.port.to_string(),
    );
    let arguments = [
        "-h", &socket, "-p", &port, "-U", "postgres", "-d", database, "-Atc", sql,
    ];
    let told = run_as_postgres(&client_tool("psql"), &arguments);
    told.trim().to_owned()
}

/// A delta on wale's backup is small, and both restore it.
#[test]
fn real_wal_g_makes_a_small_delta_of_wales_backup_and_both_restore_it() {
    let stage = stage("walg-delta", "zstd");
    let settings = "WALG_COMPRESSION_METHOD=zstd WALG_DELTA_MAX_STEPS=3";
    let Some(wal_g) = WalG::new(&stage, settings) else {
        return;
    };
    let pg = &stage.cluster;
    pg.sql("create table t as select g as v, md5(g::text) x from generate_series(1, 100000) g");
    pg.sql("create table gone as select g as v from generate_series(1, 1000) g");
    // So that a scan does not change every page.
    pg.sql("vacuum freeze t");
    pg.sql("checkpoint");
    // So that what was not changed since is not taken for changed just now.
    shell(&format!(
        "find {} -type f -exec touch -d '1 hour ago' {{}} +",
        pg.data.join("base").display()
    ));
    stage.backup();
    pg.sql("update t set x = 'changed' where v % 1000 = 0");
    pg.sql("drop table gone");
    pg.sql("create table fresh as select g as v from generate_series(1, 1000) g");
    let data = pg.data.display().to_string();
    wal_g.run(&["backup-push", &data]);
    pg.sql("insert into t select g, 'after' from generate_series(1, 500) g");
    stage.archive_all();
    let noted = (fingerprint(pg, "t"), fingerprint(pg, "fresh"));
    let folders = shell(&format!(
        "du -sk {}/basebackups_005/base_*/ | sort -k2",
        stage.archive().display()
    ));
    let sizes: Vec<u64> = folders
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    println!("{folders}");
    assert_eq!(sizes.len(), 2, "{folders}");
    assert!(folders.contains("_D_"), "{folders}");
    assert!(sizes[1] * 4 < sizes[0], "{folders}");
    let restored = wal_g.fetch(&stage, "theirs", &[]);
    wal_g.recover(&restored);
    assert_eq!(
        (fingerprint(&restored, "t"), fingerprint(&restored, "fresh")),
        noted
    );
    restored.stop("immediate");
    let reverse = wal_g.fetch(
        &stage,
        "reverse",
        &["--reverse-unpack", "--skip-redundant-tars"],
    );
    wal_g.recover(&reverse);
    assert_eq!(
        (fingerprint(&reverse, "t"), fingerprint(&reverse, "fresh")),
        noted
    );
    reverse.stop("immediate");
    let (ours, _sidecar) = stage.restore("ours", "", &["archive_mode = off".into()]);
    ours.start();
    ours.wait_promoted();
    assert_eq!(
        (fingerprint(&ours, "t"), fingerprint(&ours, "fresh")),
        noted
    );
    assert!(ours.try_sql("select count(*) from gone").is_err());
}
