//! The stage of the tests on Swift: a cluster, its sidecar, the server, and the fault proxy before it.

use std::time::Duration;

use wale_testkit::s3::FaultProxy;
use wale_testkit::swift::{Role, SwiftServer};
use wale_testkit::{ClusterOptions, Sandbox, SidecarOptions, wait_until};

use crate::support::Stage;

/// Where in the container the archive is.
pub(crate) const PATH: &str = "some/path";

/// Fields are dropped in their order: the one that asks goes before the one that answers.
pub(crate) struct SwiftStage {
    pub(crate) stage: Stage,
    pub(crate) proxy: FaultProxy,
    pub(crate) server: SwiftServer,
    _sandbox: Sandbox,
}

impl SwiftStage {
    /// With settings of the test's own; none, and a skip that is counted, where Swift is not installed. Segments have
    /// 1 MiB: quick to fill, quick to move. The sidecar logs in as the role that the guide has.
    pub(crate) fn start(
        name: &str,
        settings: impl FnOnce(SidecarOptions) -> SidecarOptions,
    ) -> Option<Self> {
        let sandbox = Sandbox::new(&format!("{name}-server"));
        let Some(server) = SwiftServer::start(&sandbox) else {
            wale_testkit::skip(name, "Swift is not installed: run scripts/setup.sh");
            return None;
        };
        let proxy = FaultProxy::start(server.port());
        let cluster = ClusterOptions {
            segment_mib: 1,
            ..ClusterOptions::default()
        };
        let stage = Stage::with(name, &cluster, |options| {
            let swift = SwiftServer::settings(proxy.port(), PATH, Role::Writer);
            settings(options.on_s3(swift))
        });
        stage.sidecar.wait_ready(Duration::from_secs(60));
        stage.cluster.sql("create table t (v int)");
        Some(Self {
            stage,
            proxy,
            server,
            _sandbox: sandbox,
        })
    }

    /// 8 MB that no codec makes smaller.
    pub(crate) fn make_noise(&self) {
        self.stage.cluster.sql(
            "create table noise as select decode(string_agg(md5(random()::text), ''), 'hex') v \
             from generate_series(1, 512000) i group by i % 1000",
        );
    }

    /// Lets PostgreSQL keep its segments to itself, so that only the test pushes.
    pub(crate) fn hold_archiver(&self) {
        let cluster = &self.stage.cluster;
        cluster.wait_archived();
        cluster.sql("alter system set archive_command = ''");
        cluster.sql("select pg_reload_conf()");
        wait_until("no archive_command", Duration::from_secs(10), || {
            cluster.sql("show archive_command").is_empty().then_some(())
        });
    }

    /// Lets PostgreSQL archive again.
    pub(crate) fn release_archiver(&self) {
        let cluster = &self.stage.cluster;
        cluster.sql("alter system reset archive_command");
        cluster.sql("select pg_reload_conf()");
        wait_until("the archive_command", Duration::from_secs(10), || {
            (!cluster.sql("show archive_command").is_empty()).then_some(())
        });
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

    /// A fetch fails as damaged or unavailable, never as absent, and gives no bytes. Returns what it said.
    pub(crate) fn assert_not_delivered(&self, segment: &str) -> String {
        let reply = self.stage.sidecar.get(&format!("/wal/{segment}"));
        assert!([500, 503].contains(&reply.status), "{}", reply.text());
        assert!(reply.body.len() < 4096, "no WAL is sent");
        let absent = self.stage.sidecar.get(&format!("/wal-absent/{segment}"));
        assert_ne!(absent.status, 200, "{}", absent.text());
        reply.text()
    }
}
