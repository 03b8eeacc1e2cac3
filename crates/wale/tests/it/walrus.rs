//! `walrus` (crate wal-rus), another writer and reader of WAL-G's format, on one archive with wale: each restores what the
//! other wrote (but walrus no base backups with zstd), and wale goes on in an archive that it began. `scripts/setup.sh` installs it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wale_testkit::{
    Cluster, ClusterOptions, Sandbox, Sidecar, SidecarOptions, free_port, run_as_postgres, shell,
    skip,
};

use crate::support::{WALE, archiving, fingerprint, restore_options};

/// The program as the user of one cluster calls it: a script, because a server's archiver calls it too.
struct Walrus(PathBuf);

impl Walrus {
    /// None, and a skip that is counted, where it is not installed.
    fn new(sandbox: &Sandbox, cluster: &Cluster, codec: &str) -> Option<Self> {
        let tools =
            std::env::var("WALE_TEST_TOOLS").unwrap_or_else(|_| "/var/tmp/wale-tools".into());
        let program = Path::new(&tools).join("bin/walrus");
        if !program.exists() {
            skip(codec, "walrus is not installed: run scripts/setup.sh");
            return None;
        }
        let script = sandbox.path().join("walrus.sh");
        let text = format!(
            "#!/bin/sh\nexport PGHOST={} PGPORT={} PGUSER=postgres PGDATABASE=postgres\n\
             export WALG_FILE_PREFIX={} WALG_COMPRESSION_METHOD={codec}\nexec {} \"$@\"\n",
            cluster.socket.display(),
            cluster.port,
            sandbox.folder("archive").display(),
            program.display(),
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self(script))
    }

    fn run(&self, arguments: &[&str]) -> String {
        run_as_postgres(&self.0, arguments)
    }

    /// Whether walrus fails to restore the newest backup, and says so.
    fn refuses(&self, sandbox: &Sandbox, name: &str) -> bool {
        let script = sandbox.path().join("refuses.sh");
        let data = sandbox.folder(name).display().to_string();
        let walrus = self.0.display();
        let text = format!(
            "#!/bin/sh\nif {walrus} backup-fetch {data} LATEST >/dev/null 2>&1\nthen echo restored\nelse echo refused\nfi\n"
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        run_as_postgres(&script, &[]).trim() == "refused"
    }

    /// Restores the newest backup with walrus alone, and recovers to the end.
    fn restore(&self, sandbox: &Sandbox, major: u32, name: &str) -> Cluster {
        let cluster = Cluster::at(sandbox, major, name, free_port());
        let data = sandbox.folder(name).display().to_string();
        self.run(&["backup-fetch", &data, "LATEST"]);
        cluster.configure(&[
            "archive_mode = off".into(),
            format!("restore_command = '{} wal-fetch %f %p'", self.0.display()),
        ]);
        std::fs::write(cluster.data.join("recovery.signal"), "").unwrap();
        shell(&format!("chown -hR postgres:postgres {data}"));
        cluster.start();
        cluster.wait_promoted();
        cluster
    }
}

/// How walrus takes a base backup.
pub(crate) enum Source {
    /// By reading the data directory.
    Files,
    /// By the replication protocol.
    Stream,
}

/// A server of PostgreSQL 15 whose archive walrus made, in the folder `archive`.
pub(crate) struct Begun {
    cluster: Cluster,
    walrus: Walrus,
    /// What table `t` holds at the end of the archive.
    pub(crate) noted: String,
}

/// walrus archives and backs up. None, and a skip that is counted, where it is not installed.
pub(crate) fn begin(sandbox: &Sandbox, codec: &str, from: &Source) -> Option<Begun> {
    let options = ClusterOptions {
        major: 15,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::init(sandbox, &options);
    let walrus = Walrus::new(sandbox, &cluster, codec)?;
    cluster.configure(&[
        "wal_level = replica".into(),
        "archive_mode = on".into(),
        format!("archive_command = '{} wal-push %p'", walrus.0.display()),
    ]);
    cluster.start();
    cluster.sql("create table t as select g, md5(g::text) v from generate_series(1, 50000) g");
    let data = cluster.data.to_string_lossy().into_owned();
    match from {
        Source::Files => walrus.run(&["backup-push", &data]),
        Source::Stream => walrus.run(&["backup-push"]),
    };
    cluster.sql("insert into t select g, 'after' from generate_series(50001, 60000) g");
    cluster.switch_wal();
    cluster.wait_archived();
    let noted = fingerprint(&cluster, "t");
    Some(Begun {
        cluster,
        walrus,
        noted,
    })
}

/// wale lists and restores what walrus wrote, goes on in the archive, and walrus restores what wale wrote, or refuses it.
fn in_turns(codec: &str, from: &Source) {
    let sandbox = Sandbox::new(&format!("walrus-{codec}"));
    let Some(begun) = begin(&sandbox, codec, from) else {
        return;
    };
    let Begun {
        cluster,
        walrus,
        noted,
    } = begun;
    let data = cluster.data.to_string_lossy().into_owned();
    // wale with WAL-G's settings: it lists the backup, and restores it to the end of WAL.
    let archive = sandbox.path().join("archive");
    let options = SidecarOptions::new(&sandbox, &cluster)
        .unset("WALE_FILE_PREFIX")
        .set("WALG_FILE_PREFIX", &archive.to_string_lossy())
        .set("WALE_COMPRESSION", codec);
    restores(&sandbox, &options, "first", &noted);

    // wale goes on in it.
    let sidecar = Sidecar::start(&sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(60));
    cluster.configure(&archiving(options.port));
    cluster.sql("select pg_reload_conf()");
    cluster.sql("update t set v = 'by wale' where g % 3 = 0");
    cluster.switch_wal();
    cluster.wait_archived();
    assert_eq!(names(&sidecar).len(), 1);
    let noted = fingerprint(&cluster, "t");
    // From walrus's backup, over its WAL and wale's.
    restores(&sandbox, &options, "second", &noted);

    let pushed = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(pushed.code(), 0, "{}", pushed.stderr);
    cluster.sql("delete from t where g % 7 = 0");
    cluster.switch_wal();
    cluster.wait_archived();
    let noted = fingerprint(&cluster, "t");
    let names = names(&sidecar);
    assert_eq!(names.len(), 2, "{names:?}");
    restores(&sandbox, &options, "third", &noted);

    // walrus on what wale wrote: the newest backup is wale's, and so is the WAL after it.
    let theirs = walrus.run(&["backup-list"]);
    assert!(
        names.iter().all(|name| theirs.contains(name.as_str())),
        "{theirs}"
    );
    if codec == "zstd" {
        // It reads the first frame of a partition only: it must not take a part for the whole.
        assert!(walrus.refuses(&sandbox, "theirs"));
        assert!(!sandbox.path().join("theirs/PG_VERSION").exists());
        return;
    }
    let restored = walrus.restore(&sandbox, 15, "theirs");
    assert_eq!(fingerprint(&restored, "t"), noted);
}

/// walrus makes a delta of wale's backup, and both restore it.
#[test]
fn walrus_makes_a_delta_of_wales_backup_and_both_restore_it() {
    let sandbox = Sandbox::new("walrus-delta");
    let options = ClusterOptions {
        major: 15,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::init(&sandbox, &options);
    let Some(walrus) = Walrus::new(&sandbox, &cluster, "lz4 WALG_DELTA_MAX_STEPS=3") else {
        return;
    };
    let archive = sandbox.path().join("archive");
    let options = SidecarOptions::new(&sandbox, &cluster)
        .unset("WALE_FILE_PREFIX")
        .set("WALG_FILE_PREFIX", &archive.to_string_lossy())
        .set("WALE_COMPRESSION", "lz4");
    let sidecar = Sidecar::start(&sandbox, WALE, &options);
    cluster.configure(&archiving(options.port));
    cluster.start();
    sidecar.wait_ready(Duration::from_secs(60));
    cluster.sql("create table t as select g, md5(g::text) v from generate_series(1, 50000) g");
    let data = cluster.data.to_string_lossy().into_owned();
    let pushed = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(pushed.code(), 0, "{}", pushed.stderr);
    cluster.sql("update t set v = 'changed' where g % 500 = 0");
    cluster.switch_wal();
    cluster.wait_archived();
    walrus.run(&["backup-push", &data]);
    cluster.sql("insert into t select g, 'after' from generate_series(50001, 51000) g");
    cluster.switch_wal();
    cluster.wait_archived();
    let noted = fingerprint(&cluster, "t");
    let names = names(&sidecar);
    assert!(names.iter().any(|name| name.contains("_D_")), "{names:?}");
    let restored = walrus.restore(&sandbox, 15, "theirs");
    assert_eq!(fingerprint(&restored, "t"), noted);
    restored.stop("immediate");
    restores(&sandbox, &options, "ours", &noted);
}

/// The names of the backups that wale lists.
fn names(sidecar: &Sidecar) -> Vec<String> {
    let list = sidecar.get("/backups").json();
    let backups = list.as_array().unwrap().iter();
    let names = backups.filter_map(|backup| Some(backup["name"].as_str()?.to_owned()));
    names.collect()
}

/// wale restores the newest backup and recovers to the end of WAL.
fn restores(sandbox: &Sandbox, options: &SidecarOptions, name: &str, noted: &str) {
    let (cluster, options) = restore_options(sandbox, options, 15, name, "");
    let sidecar = Sidecar::start(sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(120));
    // Its timeline would be the latest of the next restore.
    cluster.configure(&["archive_mode = off".into()]);
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(fingerprint(&cluster, "t"), noted, "{name}");
    cluster.stop("immediate");
}

#[test]
fn walrus_and_wale_restore_each_others_lz4_a_streamed_backup_too() {
    in_turns("lz4", &Source::Stream);
}

#[test]
fn wale_restores_what_walrus_wrote_with_zstd_and_walrus_refuses_what_wale_did() {
    in_turns("zstd", &Source::Files);
}
