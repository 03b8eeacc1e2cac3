//! Counters and gauges for Prometheus, in the text format of `OpenMetrics`.
//!
//! It refuses to know where numbers come from: others call it with reports, and hand in a [`Scrape`] when the text is
//! asked for. Invariant: no label takes a value from a client; the set of series is bounded.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use wale_ops::wal_push::PusherStats;

use crate::journal::RetentionRecord;
use crate::lifecycle::Phase;

type FloatGauge = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    route: &'static str,
    status: u16,
}

/// What is read at the moment of a scrape.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) phase: Phase,
    pub(crate) connections: usize,
    pub(crate) pusher: PusherStats,
    /// Files that PostgreSQL has marked ready; none when the directory cannot be read.
    pub(crate) ready_files: Option<usize>,
    pub(crate) backup_running: bool,
    /// When the endpoint's certificate ends; none without TLS.
    pub(crate) certificate_expires: Option<DateTime<Utc>>,
}

/// All series. Cheap to count into from anywhere.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabel, Counter>,
    pushes: Family<Outcome, Counter>,
    uploads: Counter,
    push_bytes: Counter,
    push_stored_bytes: Counter,
    push_seconds: Histogram,
    last_push: FloatGauge,
    look_ahead_hits: Counter,
    fetches: Family<Outcome, Counter>,
    fetch_bytes: Counter,
    absences: Family<Outcome, Counter>,
    backups: Family<Outcome, Counter>,
    last_backup: FloatGauge,
    last_backup_seconds: FloatGauge,
    last_backup_bytes: Gauge,
    last_backup_stored_bytes: Gauge,
    backup_running: Gauge,
    retentions: Family<Outcome, Counter>,
    retention_objects: Counter,
    retention_bytes: Counter,
    retention_kept: Gauge,
    last_retention: FloatGauge,
    ready_files: Gauge,
    gap: Gauge,
    sealed: Gauge,
    beside_sealed: Counter,
    unknown_server: Gauge,
    connections: Gauge,
    handshake_failures: Counter,
    plain_http: Counter,
    certificate_expiry: FloatGauge,
    phase: Family<PhaseLabel, Gauge>,
    /// Two scrapes at once would add the same counts twice.
    scraping: Mutex<()>,
}

/// 5 ms to about 82 s, doubling.
fn seconds_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 15))
}

impl Metrics {
    pub(crate) fn new(version: &'static str) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("wale"),
            requests: Family::default(),
            pushes: Family::default(),
            uploads: Counter::default(),
            push_bytes: Counter::default(),
            push_stored_bytes: Counter::default(),
            push_seconds: seconds_histogram(),
            last_push: FloatGauge::default(),
            look_ahead_hits: Counter::default(),
            fetches: Family::default(),
            fetch_bytes: Counter::default(),
            absences: Family::default(),
            backups: Family::default(),
            last_backup: FloatGauge::default(),
            last_backup_seconds: FloatGauge::default(),
            last_backup_bytes: Gauge::default(),
            last_backup_stored_bytes: Gauge::default(),
            backup_running: Gauge::default(),
            retentions: Family::default(),
            retention_objects: Counter::default(),
            retention_bytes: Counter::default(),
            retention_kept: Gauge::default(),
            last_retention: FloatGauge::default(),
            ready_files: Gauge::default(),
            gap: Gauge::default(),
            sealed: Gauge::default(),
            beside_sealed: Counter::default(),
            unknown_server: Gauge::default(),
            connections: Gauge::default(),
            handshake_failures: Counter::default(),
            plain_http: Counter::default(),
            certificate_expiry: FloatGauge::default(),
            phase: Family::default(),
            scraping: Mutex::new(()),
        };
        metrics.register_wal();
        metrics.register_backups();
        metrics.register_retention();
        metrics.register_service(version);
        metrics
    }

    fn register_wal(&mut self) {
        let r = &mut self.registry;
        r.register(
            "wal_pushes",
            "Push requests by outcome",
            self.pushes.clone(),
        );
        r.register(
            "wal_uploads",
            "Files uploaded, for requests and ahead of them",
            self.uploads.clone(),
        );
        r.register_with_unit(
            "wal_push_plain",
            "Bytes of uploaded files",
            Unit::Bytes,
            self.push_bytes.clone(),
        );
        r.register_with_unit(
            "wal_push_stored",
            "Bytes of uploaded objects",
            Unit::Bytes,
            self.push_stored_bytes.clone(),
        );
        r.register_with_unit(
            "wal_push",
            "Time of successful push requests",
            Unit::Seconds,
            self.push_seconds.clone(),
        );
        r.register_with_unit(
            "wal_last_push_timestamp",
            "Unix time of the last successful push",
            Unit::Seconds,
            self.last_push.clone(),
        );
        r.register(
            "wal_look_ahead_hits",
            "Pushes answered from what was pushed ahead",
            self.look_ahead_hits.clone(),
        );
        r.register(
            "wal_ready_files",
            "Files PostgreSQL has marked ready and not yet done",
            self.ready_files.clone(),
        );
        r.register(
            "wal_gap_segments",
            "WAL segments of the first gap behind the newest base backup, as of the last look",
            self.gap.clone(),
        );
        r.register(
            "wal_sealed_segments",
            "WAL segments that the archive has only under a codec or a key that cannot be read, as of the start",
            self.sealed.clone(),
        );
        r.register(
            "wal_beside_sealed",
            "Files stored beside an object of their name that cannot be read",
            self.beside_sealed.clone(),
        );
        r.register(
            "server_unknown",
            "Whether the server is newer than this program knows, or its pg_control has an unknown layout",
            self.unknown_server.clone(),
        );
        r.register(
            "wal_fetches",
            "Fetch requests by outcome",
            self.fetches.clone(),
        );
        r.register_with_unit(
            "wal_fetch",
            "Bytes of fetched files",
            Unit::Bytes,
            self.fetch_bytes.clone(),
        );
        r.register(
            "wal_absences",
            "Questions for proof of absence by outcome",
            self.absences.clone(),
        );
    }

    fn register_backups(&mut self) {
        let r = &mut self.registry;
        r.register("backups", "Base backups by outcome", self.backups.clone());
        r.register(
            "backup_running",
            "Whether a base backup runs",
            self.backup_running.clone(),
        );
        r.register_with_unit(
            "backup_last_success_timestamp",
            "Unix time of the end of the last good backup",
            Unit::Seconds,
            self.last_backup.clone(),
        );
        r.register_with_unit(
            "backup_last_duration",
            "Time the last good backup took",
            Unit::Seconds,
            self.last_backup_seconds.clone(),
        );
        r.register_with_unit(
            "backup_last_size",
            "Bytes of the files of the last good backup",
            Unit::Bytes,
            self.last_backup_bytes.clone(),
        );
        r.register_with_unit(
            "backup_last_stored",
            "Bytes the last good backup takes in the archive",
            Unit::Bytes,
            self.last_backup_stored_bytes.clone(),
        );
    }

    fn register_retention(&mut self) {
        let r = &mut self.registry;
        r.register(
            "retentions",
            "Runs of retention by outcome",
            self.retentions.clone(),
        );
        r.register(
            "retention_deleted_objects",
            "Objects that retention deleted",
            self.retention_objects.clone(),
        );
        r.register_with_unit(
            "retention_deleted",
            "Bytes of objects that retention deleted",
            Unit::Bytes,
            self.retention_bytes.clone(),
        );
        r.register(
            "retention_kept_backups",
            "Base backups that the last run of retention kept",
            self.retention_kept.clone(),
        );
        r.register_with_unit(
            "retention_last_success_timestamp",
            "Unix time of the last run of retention without a failure",
            Unit::Seconds,
            self.last_retention.clone(),
        );
    }

    fn register_service(&mut self, version: &'static str) {
        let r = &mut self.registry;
        r.register(
            "http_requests",
            "Requests by route and status",
            self.requests.clone(),
        );
        r.register(
            "http_connections",
            "Open connections",
            self.connections.clone(),
        );
        r.register(
            "tls_handshake_failures",
            "TLS handshakes that failed",
            self.handshake_failures.clone(),
        );
        r.register(
            "tls_plain_http_requests",
            "Requests over plain HTTP on the TLS port, all of them refused",
            self.plain_http.clone(),
        );
        r.register_with_unit(
            "tls_certificate_expiry_timestamp",
            "Unix time at which the certificate of the endpoint ends, 0 without TLS",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        r.register(
            "phase",
            "1 for the phase the sidecar is in, else 0",
            self.phase.clone(),
        );
        r.register(
            "build",
            "The running program",
            Info::new(vec![("version", version)]),
        );
    }

    pub(crate) fn request(&self, route: &'static str, status: u16) {
        self.requests
            .get_or_create(&RequestLabel { route, status })
            .inc();
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshake_failures.inc();
    }

    pub(crate) fn plain_http(&self) {
        self.plain_http.inc();
    }

    pub(crate) fn pushed(&self, outcome: &'static str, took: Duration, at: DateTime<Utc>) {
        self.pushes.get_or_create(&Outcome { outcome }).inc();
        self.push_seconds.observe(took.as_secs_f64());
        self.last_push.set(unix_seconds(at));
    }

    /// A push that failed, by the name of the kind.
    pub(crate) fn push_failed(&self, kind: &'static str) {
        self.pushes.get_or_create(&Outcome { outcome: kind }).inc();
    }

    pub(crate) fn fetched(&self, outcome: &'static str, bytes: u64) {
        self.fetches.get_or_create(&Outcome { outcome }).inc();
        self.fetch_bytes.inc_by(bytes);
    }

    pub(crate) fn absence(&self, outcome: &'static str) {
        self.absences.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn backup_done(&self, bytes: u64, stored: u64, took: Duration, at: DateTime<Utc>) {
        self.backups.get_or_create(&Outcome { outcome: "ok" }).inc();
        self.recalled_backup(bytes, stored, took, at);
    }

    /// The last good backup, of this process or an earlier one; counts nothing.
    pub(crate) fn recalled_backup(
        &self,
        bytes: u64,
        stored: u64,
        took: Duration,
        at: DateTime<Utc>,
    ) {
        self.last_backup.set(unix_seconds(at));
        self.last_backup_seconds.set(took.as_secs_f64());
        self.last_backup_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.last_backup_stored_bytes
            .set(i64::try_from(stored).unwrap_or(i64::MAX));
    }

    /// A backup that did not succeed: `failed`, `cancelled` or `skipped-overlap`.
    pub(crate) fn backup_not_done(&self, outcome: &'static str) {
        self.backups.get_or_create(&Outcome { outcome }).inc();
    }

    /// A run of retention that ended by itself; `retained` when the store would not delete some objects.
    pub(crate) fn retained(&self, record: &RetentionRecord) {
        let outcome = match record.retained_objects {
            0 => "ok",
            _ => "retained",
        };
        self.retentions.get_or_create(&Outcome { outcome }).inc();
        self.retention_objects.inc_by(record.deleted_objects);
        self.retention_bytes.inc_by(record.deleted_bytes);
        self.retention_kept
            .set(i64::try_from(record.kept_backups).unwrap_or(i64::MAX));
        self.last_retention.set(unix_seconds(record.at));
    }

    /// How many segments are missing behind the newest base backup.
    pub(crate) fn gap(&self, segments: u64) {
        self.gap.set(i64::try_from(segments).unwrap_or(i64::MAX));
    }

    /// How many segments are there only for another tool.
    pub(crate) fn sealed(&self, segments: u64) {
        self.sealed.set(i64::try_from(segments).unwrap_or(i64::MAX));
    }

    /// Whether the server is one that this program does not know.
    pub(crate) fn unknown_server(&self, is_unknown: bool) {
        self.unknown_server.set(i64::from(is_unknown));
    }

    pub(crate) fn retention_failed(&self) {
        let outcome = "failed";
        self.retentions.get_or_create(&Outcome { outcome }).inc();
    }

    /// The text for Prometheus.
    pub(crate) fn text(&self, scrape: &Scrape) -> String {
        let _one = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        for phase in Phase::ALL {
            self.phase
                .get_or_create(&PhaseLabel {
                    phase: phase.name(),
                })
                .set(i64::from(phase == scrape.phase));
        }
        self.connections
            .set(i64::try_from(scrape.connections).unwrap_or(i64::MAX));
        self.certificate_expiry
            .set(scrape.certificate_expires.map_or(0.0, unix_seconds));
        let stats = &scrape.pusher;
        catch_up(&self.uploads, stats.uploads + stats.kept_beside);
        catch_up(&self.push_bytes, stats.bytes_plain);
        catch_up(&self.push_stored_bytes, stats.bytes_stored);
        catch_up(&self.look_ahead_hits, stats.look_ahead_hits);
        catch_up(&self.beside_sealed, stats.beside_sealed);
        // -1 says "cannot be read": 0 would look healthy.
        self.ready_files.set(
            scrape
                .ready_files
                .map_or(-1, |files| i64::try_from(files).unwrap_or(i64::MAX)),
        );
        self.backup_running.set(i64::from(scrape.backup_running));
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// Brings a counter to what somebody else has counted.
fn catch_up(series: &Counter, total: u64) {
    series.inc_by(total.saturating_sub(series.get()));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 fit a double's 53 bits for 285,000 years"
)]
fn unix_seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_appears_and_hits_are_not_counted_twice() {
        let metrics = Metrics::new("1.2.3");
        let at = DateTime::from_timestamp(1_700_000_000, 500_000_000).unwrap();
        metrics.pushed("stored", Duration::from_millis(20), at);
        metrics.push_failed("storage-unavailable");
        metrics.fetched("found", 16);
        metrics.absence("proven");
        metrics.backup_done(100, 50, Duration::from_secs(3), at);
        metrics.backup_not_done("skipped-overlap");
        metrics.request("/ping", 200);
        metrics.gap(3);
        let pusher = PusherStats {
            look_ahead_hits: 5,
            bytes_plain: 16,
            uploads: 1,
            ..PusherStats::default()
        };
        let scrape = Scrape {
            phase: Phase::Ready,
            connections: 2,
            pusher,
            ready_files: None,
            backup_running: true,
            certificate_expires: Some(at),
        };
        metrics.text(&scrape);
        let text = metrics.text(&scrape);
        let lines = [
            "wale_wal_pushes_total{outcome=\"stored\"} 1",
            "wale_wal_pushes_total{outcome=\"storage-unavailable\"} 1",
            "wale_wal_push_plain_bytes_total 16",
            "wale_wal_push_seconds_count 1",
            "wale_wal_last_push_timestamp_seconds 1700000000.5",
            "wale_wal_look_ahead_hits_total 5",
            "wale_wal_ready_files -1",
            "wale_wal_gap_segments 3",
            "wale_wal_fetches_total{outcome=\"found\"} 1",
            "wale_wal_absences_total{outcome=\"proven\"} 1",
            "wale_backups_total{outcome=\"ok\"} 1",
            "wale_backups_total{outcome=\"skipped-overlap\"} 1",
            "wale_backup_last_duration_seconds 3.0",
            "wale_backup_running 1",
            "wale_phase{phase=\"ready\"} 1",
            "wale_phase{phase=\"degraded\"} 0",
            "wale_http_requests_total{route=\"/ping\",status=\"200\"} 1",
            "wale_tls_handshake_failures_total 0",
            "wale_tls_certificate_expiry_timestamp_seconds 1700000000.5",
            "wale_build_info{version=\"1.2.3\"} 1",
        ];
        for line in lines {
            assert!(
                text.lines().any(|found| found == line),
                "no line {line:?} in\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
