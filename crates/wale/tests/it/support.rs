//! The stage on which the tests play: a cluster that archives through a sidecar.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use wale_testkit::{
    Cluster, ClusterOptions, Exit, Sandbox, Sidecar, SidecarOptions, client_tool, free_port,
    is_installed, run_as_postgres, shell, wait_until,
};

/// The program under test.
pub(crate) const WALE: &str = env!("CARGO_BIN_EXE_wale");

/// The majors a test runs on: `WALE_TEST_MAJORS`, else the three that cover the differences (docs/decisions) and whatever
/// newer one is installed. The name of
/// a test that asks ends with `on_every_major`, by which `make test-matrix` finds it; tidy sees to that.
pub(crate) fn majors() -> Vec<u32> {
    if let Ok(wanted) = std::env::var("WALE_TEST_MAJORS") {
        let majors = wanted.split_whitespace();
        return majors
            .map(|major| major.parse().expect("WALE_TEST_MAJORS holds numbers"))
            .collect();
    }
    let newer = (19..40).filter(|major| is_installed(*major));
    [10, 15, 18].into_iter().chain(newer).collect()
}

/// Runs `body` for every major, side by side: for tests that mostly wait.
pub(crate) fn on_every_major(body: impl Fn(u32) + Sync) {
    let body = &body;
    std::thread::scope(|scope| {
        for major in majors() {
            scope.spawn(move || body(major));
        }
    });
}

/// A running cluster whose `archive_command` is wget against a running sidecar.
pub(crate) struct Stage {
    pub(crate) sidecar: Sidecar,
    pub(crate) cluster: Cluster,
    pub(crate) options: SidecarOptions,
    pub(crate) sandbox: Sandbox,
}

/// The server's settings for archiving through the sidecar at `port`.
pub(crate) fn archiving(port: u16) -> Vec<String> {
    vec![
        "wal_level = replica".into(),
        "archive_mode = on".into(),
        format!("archive_command = 'wget -q http://127.0.0.1:{port}/wal-push/%f -O -'"),
    ]
}

impl Stage {
    /// A stage with default settings.
    pub(crate) fn new(name: &str, major: u32) -> Self {
        let cluster = ClusterOptions {
            major,
            ..ClusterOptions::default()
        };
        Self::with(name, &cluster, |options| options)
    }

    /// A stage whose cluster and sidecar the test has a say in.
    pub(crate) fn with(
        name: &str,
        cluster: &ClusterOptions,
        settings: impl FnOnce(SidecarOptions) -> SidecarOptions,
    ) -> Self {
        let sandbox = Sandbox::new(name);
        let cluster = Cluster::init(&sandbox, cluster);
        let options = settings(SidecarOptions::new(&sandbox, &cluster));
        cluster.configure(&archiving(options.port));
        let sidecar = Sidecar::start(&sandbox, WALE, &options);
        cluster.start();
        Self {
            sidecar,
            cluster,
            options,
            sandbox,
        }
    }

    /// The archive's folder.
    pub(crate) fn archive(&self) -> std::path::PathBuf {
        self.sandbox.path().join("archive")
    }

    /// A base backup by `wale backup-push`.
    pub(crate) fn backup(&self) -> Exit {
        let data = self.cluster.data.to_string_lossy().into_owned();
        let exit = self.sidecar.verb(WALE, "wale", &["backup-push", &data]);
        assert_eq!(exit.code(), 0, "backup-push: {}", exit.stderr);
        exit
    }

    /// Restores into a new data directory `name` with a sidecar of its own, waits until the sidecar
    /// says that PostgreSQL may start, and gives the restored cluster a port of its own.
    /// The cluster is not started. `archive` lines replace the archiving of the origin.
    pub(crate) fn restore(
        &self,
        name: &str,
        addition: &str,
        lines: &[String],
    ) -> (Cluster, Sidecar) {
        let (cluster, options) = self.restore_options(name, addition);
        let sidecar = Sidecar::start(&self.sandbox, WALE, &options);
        sidecar.wait_ready(Duration::from_secs(120));
        let mut settings = archiving(options.port);
        settings.extend_from_slice(lines);
        cluster.configure(&settings);
        (cluster, sidecar)
    }

    /// Restores a standby `name`, with a sidecar of its own and the settings `lines`, and starts it. `addition` are further
    /// recovery settings.
    pub(crate) fn standby(
        &self,
        name: &str,
        addition: &str,
        lines: &[String],
    ) -> (Cluster, Sidecar, SidecarOptions) {
        self.standby_with(name, addition, lines, &[])
    }

    /// As [`Stage::standby`], with settings of its sidecar.
    pub(crate) fn standby_with(
        &self,
        name: &str,
        addition: &str,
        lines: &[String],
        settings: &[(&str, &str)],
    ) -> (Cluster, Sidecar, SidecarOptions) {
        let (standby, mut options) = self.restore_options(name, addition);
        for (setting, value) in settings {
            options = options.set(setting, value);
        }
        let options = options.set("WALE_RESTORE_AS", "standby");
        let sidecar = Sidecar::start(&self.sandbox, WALE, &options);
        sidecar.wait_ready(Duration::from_secs(120));
        standby.configure(&archiving(options.port));
        standby.configure(&["hot_standby = on".into()]);
        // How often a standby asks the archive anew; 5 s unless told.
        standby.configure(&["wal_retrieve_retry_interval = 200ms".into()]);
        standby.configure(lines);
        standby.start();
        assert_eq!(standby.sql("select pg_is_in_recovery()"), "t");
        (standby, sidecar, options)
    }

    /// The base backup `LATEST`, fetched by the verb into a new directory `name`. Not started.
    pub(crate) fn fetch(&self, name: &str, arguments: &[&str]) -> Cluster {
        let (cluster, _) = self.restore_options(name, "");
        let data = cluster.data.to_string_lossy().into_owned();
        let mut all = vec!["backup-fetch"];
        all.extend_from_slice(arguments);
        all.extend([data.as_str(), "LATEST"]);
        let exit = self.sidecar.verb(WALE, "wale", &all);
        assert_eq!(exit.code(), 0, "backup-fetch: {}", exit.stderr);
        cluster
    }

    /// The WAL objects of the archive: path and time of change.
    pub(crate) fn wal_objects(&self) -> String {
        let folder = self.archive().join("wal_005");
        shell(&format!(
            "find {} -type f ! -name '.*' -printf '%f %T@\\n' | sort",
            folder.display()
        ))
    }

    /// The WAL files of the archive, without the extension of their codec, in order.
    pub(crate) fn wal_names(&self) -> Vec<String> {
        let objects = self.wal_objects();
        let keys = objects.lines().filter_map(|line| line.split(' ').next());
        keys.map(|key| key.trim_end_matches(".zst").to_owned())
            .collect()
    }

    /// Closes the current WAL segment and waits until everything is archived.
    pub(crate) fn archive_all(&self) -> String {
        archive_all(&self.cluster)
    }

    /// The pieces of [`Stage::restore`] before the sidecar is started.
    pub(crate) fn restore_options(&self, name: &str, addition: &str) -> (Cluster, SidecarOptions) {
        let major = self.cluster.server.major;
        restore_options(&self.sandbox, &self.options, major, name, addition)
    }
}

/// A cluster to be restored, and a sidecar that does it from the archive of `options`.
pub(crate) fn restore_options(
    sandbox: &Sandbox,
    options: &SidecarOptions,
    major: u32,
    name: &str,
    addition: &str,
) -> (Cluster, SidecarOptions) {
    let cluster = Cluster::at(sandbox, major, name, free_port());
    let _ = sandbox.folder(name);
    let port = free_port();
    let mut options = options.clone();
    options.port = port;
    let options = options
        .set("PGDATA", &cluster.data.to_string_lossy())
        .set("PGWAL", &cluster.data.join("pg_wal").to_string_lossy())
        .set("PGPORT", &cluster.port.to_string())
        .set("WALE_LISTEN_PORT", &port.to_string())
        .set("START_MODE", "RESTORE")
        .set("RECOVERY_ADDITION", addition);
    (cluster, options)
}

/// Rows and a checksum of table `t`.
pub(crate) fn fingerprint(cluster: &Cluster, table: &str) -> String {
    cluster.sql(&fingerprint_sql(table))
}

fn fingerprint_sql(table: &str) -> String {
    format!(
        "select count(*), coalesce(sum(('x' || substr(md5(r::text), 1, 8))::bit(32)::int::bigint), 0) from {table} r"
    )
}

/// Closes the current WAL segment of `cluster` and waits until everything is archived. Returns the segment's name.
pub(crate) fn archive_all(cluster: &Cluster) -> String {
    let segment = cluster.switch_wal();
    cluster.wait_archived();
    segment
}

/// Waits until the only standby of `primary` receives WAL as it is written.
pub(crate) fn wait_streaming(primary: &Cluster) {
    wait_until("the standby to stream", Duration::from_secs(120), || {
        let state = primary.sql("select state from pg_stat_replication");
        (state == "streaming").then_some(())
    });
}

/// Waits until a standby shows `expected` for [`fingerprint`] of `table`.
pub(crate) fn wait_fingerprint(standby: &Cluster, table: &str, expected: &str) {
    wait_until("the standby to follow", Duration::from_secs(120), || {
        let asked = standby.try_sql(&fingerprint_sql(table));
        (asked.ok()? == expected).then_some(())
    });
}

/// `pg_verifybackup` on a restored directory before any server has started on it.
/// `-n`: the WAL is in the archive, not in the directory.
pub(crate) fn verify(data: &Path) {
    run_as_postgres(
        &client_tool("pg_verifybackup"),
        &["-n", &data.to_string_lossy()],
    );
}

/// amcheck on every permanent index.
pub(crate) fn amcheck(cluster: &Cluster) {
    cluster.sql("create extension if not exists amcheck");
    cluster.sql(
        "select bt_index_check(c.oid) from pg_class c join pg_am a on a.oid = c.relam \
         where c.relkind = 'i' and a.amname = 'btree' and c.relpersistence = 'p'",
    );
}

/// Chunk-like tables come and go while `body` runs; table `t (id int, v int)` grows and changes.
///
/// # Panics
/// When nothing of it succeeded.
pub(crate) fn under_write_load<T>(cluster: &Cluster, body: impl FnOnce() -> T) -> T {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let result = std::thread::scope(|scope| {
        for worker in 0..2 {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let old = n - 3;
                    let statement = format!(
                        "create table chunk_{worker}_{n} (time timestamptz, v float, s text);\
                         create index on chunk_{worker}_{n} (time);\
                         insert into chunk_{worker}_{n} select now(), g, repeat('x', g % 50) \
                           from generate_series(1, 2000) g;\
                         insert into t select {worker}, g from generate_series(1, 500) g;\
                         update t set v = v + 1 where id % 17 = {n} % 17;\
                         drop table if exists chunk_{worker}_{old}"
                    );
                    // A deadlock between the two is theirs to bear.
                    if cluster.try_sql(&statement).is_ok() {
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        body()
    });
    assert!(written.into_inner() > 0, "the load wrote nothing");
    result
}

/// Ends the load also when the body panics: the scope would else wait for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
