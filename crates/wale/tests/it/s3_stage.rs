//! The stage of the tests on servers of objects: a cluster, its sidecar, a server, and the fault proxy before it.

use std::time::Duration;

use wale_testkit::s3::{FaultProxy, S3Server};
use wale_testkit::{ClusterOptions, Sandbox, SidecarOptions, StoreServer, wait_until};

use crate::support::Stage;

/// Where in the bucket the archive is.
pub(crate) const PATH: &str = "some/path";

/// Fields are dropped in their order: the one that asks goes before the one that answers.
pub(crate) struct StoreStage<S> {
    pub(crate) stage: Stage,
    pub(crate) proxy: FaultProxy,
    pub(crate) server: S,
    _sandbox: Sandbox,
}

/// One on an S3 server.
pub(crate) type S3Stage = StoreStage<S3Server>;

impl S3Stage {
    /// On moto, which keeps no count of what it is sent.
    pub(crate) fn moto(name: &str) -> Self {
        Self::with(name, S3Server::moto, |options| options)
    }

    /// On s3s-fs, which checks signatures and checksums.
    pub(crate) fn s3s(name: &str) -> Self {
        Self::with(
            name,
            |sandbox| S3Server::s3s(sandbox, None),
            |options| options,
        )
    }
}

impl<S: StoreServer> StoreStage<S> {
    /// With settings of the test's own. Segments have 1 MiB: quick to fill, quick to move.
    pub(crate) fn with(
        name: &str,
        server: impl FnOnce(&Sandbox) -> S,
        settings: impl FnOnce(SidecarOptions) -> SidecarOptions,
    ) -> Self {
        let cluster = ClusterOptions {
            segment_mib: 1,
            ..ClusterOptions::default()
        };
        Self::of(name, server, &cluster, settings)
    }

    /// With a cluster of the test's own, too.
    pub(crate) fn of(
        name: &str,
        server: impl FnOnce(&Sandbox) -> S,
        cluster: &ClusterOptions,
        settings: impl FnOnce(SidecarOptions) -> SidecarOptions,
    ) -> Self {
        let sandbox = Sandbox::new(&format!("{name}-server"));
        let server = server(&sandbox);
        let proxy = FaultProxy::start(server.port());
        let stage = Stage::with(name, cluster, |options| {
            settings(options.on_s3(S::settings(proxy.port(), PATH)))
        });
        stage.sidecar.wait_ready(Duration::from_secs(60));
        stage.cluster.sql("create table t (v int)");
        Self {
            stage,
            proxy,
            server,
            _sandbox: sandbox,
        }
    }

    /// Lets PostgreSQL keep its segments to itself, so that only the test pushes.
    pub(crate) fn hold_archiver(&self) {
        self.stage.cluster.wait_archived();
        self.set_archive_command("");
    }

    /// Lets PostgreSQL archive again.
    pub(crate) fn release_archiver(&self) {
        self.set_archiver("alter system reset archive_command");
    }

    /// Lets PostgreSQL archive by another command.
    pub(crate) fn set_archive_command(&self, command: &str) {
        self.set_archiver(&format!("alter system set archive_command = '{command}'"));
    }

    fn set_archiver(&self, how: &str) {
        let cluster = &self.stage.cluster;
        let before = cluster.sql("show archive_command");
        cluster.sql(how);
        cluster.sql("select pg_reload_conf()");
        wait_until("the new archive_command", Duration::from_secs(10), || {
            (cluster.sql("show archive_command") != before).then_some(())
        });
    }

    /// 8 MB that no codec makes smaller.
    pub(crate) fn make_noise(&self) {
        self.stage.cluster.sql(
            "create table noise as select decode(string_agg(md5(random()::text), ''), 'hex') v \
             from generate_series(1, 512000) i group by i % 1000",
        );
    }

    /// A finished segment of some rows.
    pub(crate) fn segment(&self) -> String {
        let cluster = &self.stage.cluster;
        cluster.sql("insert into t select random() * 1e9 from generate_series(1, 5000)");
        cluster.switch_wal()
    }

    /// The status of a push.
    pub(crate) fn push(&self, segment: &str) -> u16 {
        let reply = self.stage.sidecar.get(&format!("/wal-push/{segment}"));
        reply.status
    }

    /// What was acknowledged is there: once, and byte for byte what PostgreSQL wrote.
    pub(crate) fn assert_stored(&self, segment: &str) {
        let objects = self.server.objects_with(segment);
        assert_eq!(objects.len(), 1, "{objects:?}");
        let local = std::fs::read(self.stage.cluster.wal.join(segment)).unwrap();
        let reply = self.stage.sidecar.get(&format!("/wal/{segment}"));
        assert_eq!(reply.status, 200, "{segment}: {}", reply.text());
        assert!(reply.body == local, "{segment} differs");
    }

    /// The one object that holds a segment.
    pub(crate) fn object(&self, segment: &str) -> String {
        let mut objects = self.server.objects_with(segment);
        assert_eq!(objects.len(), 1, "{objects:?}");
        objects.remove(0)
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.stage.sidecar.get("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    }
}
