//! Rows 23, 26, 35 and 36 of the fault battery on every server of objects: one that asks for less, one that goes silent, one
//! behind a network that is cut, and a database behind such a network.

use std::time::{Duration, Instant};

use wale_testkit::s3::{Action, Answer, Fault, FaultProxy, Kind, Partition};
use wale_testkit::{Sidecar, StoreServer, get, wait_until};

use crate::s3_stage::StoreStage;
use crate::support::WALE;

const LONG: Duration = Duration::from_secs(60);

impl<S: StoreServer> StoreStage<S> {
    /// Row 23: every request is answered with `slowly`.
    pub(crate) fn assert_slow_down_is_not_stormed(&self, slowly: Answer) {
        let cluster = &self.stage.cluster;
        self.segment();
        cluster.wait_archived();
        self.proxy.fault(Fault::any(), Action::Answer(slowly));
        self.proxy.forget();
        let segments: Vec<String> = (0..5).map(|_| self.segment()).collect();
        // The outage lasts until a push has been given up; in ten minutes there would be some twenty of them.
        let start = Instant::now();
        assert_eq!(self.push(&segments[0]), 503, "PostgreSQL keeps the segment");
        let outage = start.elapsed();
        assert!(outage < LONG, "it was told after {outage:?}");
        // Pauses of at most 0.1, 0.2 … 5 s, half of that on average: within 30 s some fifteen attempts of one request,
        // twenty at most. A push looks for its name under seven extensions, and three pushes run: the one that was asked
        // for, and two ahead of their requests.
        let requests = self.proxy.requests().len();
        assert!(
            (20..420).contains(&requests),
            "{requests} requests in {outage:?}"
        );
        assert!(self.metric("wale_wal_ready_files").unwrap() >= 5.0);
        let ready = self.stage.sidecar.get("/readyz");
        assert_eq!(ready.status, 503, "{}", ready.text());
        assert!(ready.text().contains("wal-push:"), "{}", ready.text());
        self.proxy.clear();
        // PostgreSQL rests for a minute after three failures, so somebody else asks for the first segments.
        for segment in &segments {
            assert_eq!(self.push(segment), 200);
            self.assert_stored(segment);
        }
        assert_eq!(self.stage.sidecar.get("/readyz").status, 200);
        cluster.sql("select pg_reload_conf()");
        cluster.wait_archived();
        self.wait_for_an_empty_queue(LONG);
    }

    /// Row 26: a write that gets no answer is given up, and asked for again.
    pub(crate) fn assert_silence_is_cut_short(&self) {
        self.hold_archiver();
        let segment = self.segment();
        let fault = Fault::on(&[Kind::Put]).key(&segment).once();
        self.proxy.fault(fault, Action::Stall);
        assert_eq!(self.push(&segment), 200);
        assert_eq!(self.proxy.count(Kind::Put, &segment), 2);
        assert_eq!(self.created(&segment), 1);
        self.assert_stored(&segment);
    }

    /// Row 35, with so many segments.
    pub(crate) fn assert_a_queue_is_stored_in_order(&self, queue: usize) {
        let cluster = &self.stage.cluster;
        cluster.wait_archived();
        self.proxy.partition(Partition::Refuse);
        let mut segments: Vec<String> = (0..queue / 2).map(|_| cluster.switch_wal()).collect();
        assert_eq!(self.push(&segments[0]), 503);
        self.proxy.partition(Partition::Silence);
        segments.extend((queue / 2..queue).map(|_| cluster.switch_wal()));
        for segment in &segments {
            assert!(cluster.wal.join(segment).exists(), "PostgreSQL keeps it");
        }
        let waiting = self.metric("wale_wal_ready_files").unwrap();
        #[expect(clippy::cast_precision_loss, reason = "some hundred files")]
        let expected = queue as f64;
        assert!(waiting >= expected, "{waiting} of {queue}");
        self.proxy.forget();
        self.proxy.heal();
        let limit = LONG + Duration::from_millis(500) * u32::try_from(queue).unwrap();
        self.wait_for_an_empty_queue(limit);
        // In order: no segment was stored before one that PostgreSQL finished earlier.
        let mut stored: Vec<String> = Vec::new();
        let mut puts = Vec::new();
        for seen in self.proxy.requests() {
            if seen.kind != Kind::Put {
                continue;
            }
            let name = seen.key.rsplit('/').next().unwrap_or_default();
            let name = name.split('.').next().unwrap_or_default().to_owned();
            puts.push((name.clone(), seen.status));
            if [200, 201].contains(&seen.status) && segments.contains(&name) {
                stored.push(name);
            }
        }
        assert_eq!(stored, segments, "each once, in order: {puts:?}");
        for segment in segments.iter().step_by(10) {
            self.assert_stored(segment);
        }
        assert_eq!(self.stage.sidecar.get("/readyz").status, 200);
    }

    fn wait_for_an_empty_queue(&self, limit: Duration) {
        wait_until("an empty queue", limit, || {
            (self.metric("wale_wal_ready_files")? == 0.0).then_some(())
        });
    }

    /// Row 36: the store is fine, and nothing passes between the database and the sidecar.
    pub(crate) fn assert_a_database_out_of_reach_is_told(&mut self) {
        // Everything between the two goes through proxies: PostgreSQL's requests, and the sidecar's SQL.
        let (requests, sql) = (
            FaultProxy::bytes(self.stage.sidecar.port),
            FaultProxy::bytes(self.stage.cluster.port),
        );
        let port = sql.port().to_string();
        self.stage.options = self.stage.options.clone().set("PGPORT", &port);
        self.stage.sidecar.kill();
        self.stage.sidecar = Sidecar::start(&self.stage.sandbox, WALE, &self.stage.options);
        self.stage.sidecar.wait_ready(LONG);
        self.set_archive_command(&format!(
            "wget -q -t 1 http://127.0.0.1:{}/wal-push/%f -O -",
            requests.port()
        ));
        self.stage.backup();
        requests.partition(Partition::Refuse);
        sql.partition(Partition::Refuse);
        let segment = self.segment();
        let reply = self.stage.sidecar.get("/backup-push");
        assert_eq!(reply.status, 503, "{}", reply.text());
        // Readiness follows after three checks, a minute apart (`contact.rs`); metrics show it at once.
        let metrics = self.stage.sidecar.get("/metrics").text();
        let told = metrics
            .lines()
            .any(|line| line.contains("outcome=\"server-down\"") && line.ends_with(" 1"));
        assert!(told, "{metrics}");
        let cluster = &self.stage.cluster;
        let failed = wait_until("PostgreSQL to be told", LONG, || {
            let failed = cluster.sql("select failed_count from pg_stat_archiver");
            (failed != "0").then_some(failed)
        });
        assert_ne!(failed, "0");
        assert!(cluster.wal.join(&segment).exists(), "PostgreSQL keeps it");
        assert!(self.server.objects_with(&segment).is_empty());
        let metrics = get(self.stage.sidecar.port, "/metrics").unwrap();
        assert_eq!(metrics.status, 200, "metrics go on");
        requests.heal();
        sql.heal();
        self.stage.cluster.wait_archived();
        self.assert_stored(&segment);
        assert_eq!(self.stage.sidecar.get("/backup-push").status, 200);
        assert_eq!(self.stage.sidecar.get("/readyz").status, 200);
    }
}
