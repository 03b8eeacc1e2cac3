//! The stage on which the tests play: a cluster that archives through a sidecar.

use std::time::Duration;

use wale_testkit::{Cluster, ClusterOptions, Exit, Sandbox, Sidecar, SidecarOptions, free_port};

/// The program under test.
pub(crate) const WALE: &str = env!("CARGO_BIN_EXE_wale");

/// The majors a test runs on: `WALE_TEST_MAJORS`, else the three that cover the differences.
pub(crate) fn majors() -> Vec<u32> {
    std::env::var("WALE_TEST_MAJORS")
        .unwrap_or_else(|_| "10 15 18".into())
        .split_whitespace()
        .map(|major| major.parse().expect("WALE_TEST_MAJORS holds numbers"))
        .collect()
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

    /// The pieces of [`Stage::restore`] before the sidecar is started.
    pub(crate) fn restore_options(&self, name: &str, addition: &str) -> (Cluster, SidecarOptions) {
        let cluster = Cluster::at(&self.sandbox, self.cluster.server.major, name, free_port());
        let _ = self.sandbox.folder(name);
        let port = free_port();
        let mut options = self.options.clone();
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
}

/// Rows and a checksum of table `t`.
pub(crate) fn fingerprint(cluster: &Cluster, table: &str) -> String {
    cluster.sql(&format!("select count(*), coalesce(sum(('x' || substr(md5(r::text), 1, 8))::bit(32)::int::bigint), 0) from {table} r"))
}
