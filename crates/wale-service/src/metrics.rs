//! Counters and gauges for Prometheus, in `OpenMetrics` or in the older text format.
//!
//! It refuses to know where numbers come from: others call it with reports, and hand in a [`Scrape`] when the text is
//! asked for. Invariants: no label takes a value from a client; the set of series is bounded, and every counter is there
//! from the start, so that the first failure is an increase; a time that is not known is no series, not 1970.

use std::collections::BTreeMap;
use std::fmt::Write as _;
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
use wale_ops::error::TABLE;
use wale_ops::wal_push::PusherStats;

use crate::journal::RetentionRecord;
use crate::lifecycle::Phase;
use crate::replica_metrics::ReplicaMetrics;
use crate::seconds::unix_seconds;

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

/// Which text is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
    /// The text format 0.0.4, which every scraper reads.
    Text,
}

impl Dialect {
    /// Its media type.
    pub(crate) const fn media(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
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
    lost_history: Gauge,
    unreadable: Gauge,
    beside_unreadable: Counter,
    unknown_server: Gauge,
    connections: Gauge,
    handshake_failures: Counter,
    plain_http: Counter,
    certificate_expiry: FloatGauge,
    phase: Family<PhaseLabel, Gauge>,
    pub(crate) archives: ReplicaMetrics,
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
            lost_history: Gauge::default(),
            unreadable: Gauge::default(),
            beside_unreadable: Counter::default(),
            unknown_server: Gauge::default(),
            connections: Gauge::default(),
            handshake_failures: Counter::default(),
            plain_http: Counter::default(),
            certificate_expiry: FloatGauge::default(),
            phase: Family::default(),
            archives: ReplicaMetrics::default(),
            scraping: Mutex::new(()),
        };
        metrics.register_pushes();
        metrics.register_watches();
        metrics.register_fetches();
        metrics.register_backups();
        metrics.register_retention();
        metrics.register_service(version);
        metrics.archives.register(&mut metrics.registry);
        metrics.begin();
        metrics
    }

    /// Every series that will ever be there, at 0; times that are not known yet, as no number.
    fn begin(&self) {
        let kinds = || TABLE.iter().map(|row| row.name);
        let outcomes = [
            (&self.pushes, PUSHED),
            (&self.fetches, &["found"][..]),
            (&self.absences, &["proven"]),
        ];
        for (family, good) in outcomes {
            for outcome in good.iter().copied().chain(kinds()) {
                drop(family.get_or_create(&Outcome { outcome }));
            }
        }
        for outcome in BACKED_UP {
            drop(self.backups.get_or_create(&Outcome { outcome }));
        }
        for outcome in RETAINED {
            drop(self.retentions.get_or_create(&Outcome { outcome }));
        }
        for route in ROUTES {
            for status in STATUSES {
                drop(self.requests.get_or_create(&RequestLabel { route, status }));
            }
        }
        for time in [
            &self.last_push,
            &self.last_backup,
            &self.last_backup_seconds,
            &self.last_retention,
            &self.certificate_expiry,
        ] {
            time.set(f64::NAN);
        }
    }

    fn register_pushes(&mut self) {
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
    }

    /// What the sidecar saw of WAL that waits, is missing or cannot be read.
    fn register_watches(&mut self) {
        let r = &mut self.registry;
        r.register(
            "wal_ready_files",
            "Files PostgreSQL has marked ready and not yet done",
            self.ready_files.clone(),
        );
        r.register(
            "wal_gap_segments",
            "WAL segments of the first gap after the newest base backup, as of the last check",
            self.gap.clone(),
        );
        r.register(
            "wal_history_lost",
            "Whether a timeline history that a recovery asks for is missing, as of the last look",
            self.lost_history.clone(),
        );
        r.register(
            "wal_sealed_segments",
            "WAL segments that the archive has only under a codec or a key that cannot be read, as of the start",
            self.unreadable.clone(),
        );
        r.register(
            "wal_beside_sealed",
            "Files stored beside an object of their name that cannot be read",
            self.beside_unreadable.clone(),
        );
        r.register(
            "server_unknown",
            "Whether the server is newer than this program knows, or its pg_control has an unknown layout",
            self.unknown_server.clone(),
        );
    }

    fn register_fetches(&mut self) {
        let r = &mut self.registry;
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
            "Unix time at which the certificate of the endpoint ends",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        r.register(
            "phase",
            "1 for the phase the sidecar is in, otherwise 0",
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

    /// A file that was stored before this process; counts nothing, and is forgotten where a push was counted.
    pub(crate) fn recalled_push(&self, at: DateTime<Utc>) {
        if self.last_push.get().is_nan() {
            self.last_push.set(unix_seconds(at));
        }
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

    /// How many segments are missing after the newest base backup.
    pub(crate) fn gap(&self, segments: u64) {
        self.gap.set(i64::try_from(segments).unwrap_or(i64::MAX));
    }

    /// Whether a timeline history that a recovery asks for is missing.
    pub(crate) fn lost_history(&self, is_lost: bool) {
        self.lost_history.set(i64::from(is_lost));
    }

    /// How many segments are there only for another tool.
    pub(crate) fn unreadable(&self, segments: u64) {
        self.unreadable
            .set(i64::try_from(segments).unwrap_or(i64::MAX));
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
    pub(crate) fn text(&self, scrape: &Scrape, dialect: Dialect) -> String {
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
            .set(scrape.certificate_expires.map_or(f64::NAN, unix_seconds));
        let stats = &scrape.pusher;
        catch_up(&self.uploads, stats.uploads + stats.kept_beside);
        catch_up(&self.push_bytes, stats.bytes_plain);
        catch_up(&self.push_stored_bytes, stats.bytes_stored);
        catch_up(&self.look_ahead_hits, stats.look_ahead_hits);
        catch_up(&self.beside_unreadable, stats.beside_unreadable);
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
        match dialect {
            Dialect::OpenMetrics => known(&out).flat_map(|line| [line, "\n"]).collect(),
            Dialect::Text => older_text(&out),
        }
    }
}

/// The lines without the series that are no number: what they stand for is not known.
fn known(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.ends_with(" NaN"))
}

/// `OpenMetrics` as the text format 0.0.4 has it: a counter's name ends in `_total` in its description too, an info is a
/// gauge, and there are neither units nor an end.
fn older_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let types = text.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name, kind))
    });
    let types: BTreeMap<&str, &str> = types.collect();
    for line in known(text) {
        let described = line
            .strip_prefix("# HELP ")
            .map(|rest| ("# HELP", rest))
            .or_else(|| line.strip_prefix("# TYPE ").map(|rest| ("# TYPE", rest)));
        let Some((word, rest)) = described else {
            if !line.starts_with('#') {
                out.push_str(line);
                out.push('\n');
            }
            continue;
        };
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (end, rest) = match (types.get(name), word) {
            (Some(&"counter"), _) => ("_total", rest),
            (Some(&"info"), "# TYPE") => ("_info", "gauge"),
            (Some(&"info"), _) => ("_info", rest),
            _ => ("", rest),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{word} {name}{end} {rest}");
    }
    out
}

/// Outcomes of pushes, backups and retention; the kinds of errors come on top where a request fails with one.
const PUSHED: &[&str] = &["stored", "already-stored", "kept-beside"];
const BACKED_UP: [&str; 4] = ["ok", "failed", "cancelled", "skipped-overlap"];
const RETAINED: [&str; 3] = ["ok", "retained", "failed"];

/// Names of routes, and what they are answered with. 13 × 10 = 130 series.
const ROUTES: [&str; 13] = [
    "/ping",
    "/startupz",
    "/livez",
    "/readyz",
    "/wal-push",
    "/wal-fetch",
    "/wal",
    "/wal-absent",
    "/backup-push",
    "/backups",
    "/status",
    "/metrics",
    "other",
];
const STATUSES: [u16; 10] = [200, 202, 400, 401, 403, 404, 409, 500, 503, 507];

/// Brings a counter to what somebody else has counted.
fn catch_up(series: &Counter, total: u64) {
    series.inc_by(total.saturating_sub(series.get()));
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
        metrics.lost_history(true);
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
        metrics.text(&scrape, Dialect::OpenMetrics);
        let text = metrics.text(&scrape, Dialect::OpenMetrics);
        let lines = [
            "wale_wal_pushes_total{outcome=\"stored\"} 1",
            "wale_wal_pushes_total{outcome=\"storage-unavailable\"} 1",
            "wale_wal_push_plain_bytes_total 16",
            "wale_wal_push_seconds_count 1",
            "wale_wal_last_push_timestamp_seconds 1700000000.5",
            "wale_wal_look_ahead_hits_total 5",
            "wale_wal_ready_files -1",
            "wale_wal_gap_segments 3",
            "wale_wal_history_lost 1",
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
    fn fresh() -> (Metrics, Scrape) {
        let scrape = Scrape {
            phase: Phase::Starting,
            connections: 0,
            pusher: PusherStats::default(),
            ready_files: Some(0),
            backup_running: false,
            certificate_expires: None,
        };
        (Metrics::new("1"), scrape)
    }

    #[test]
    fn after_a_restart_every_counter_is_there_and_no_time_is_1970() {
        let (metrics, scrape) = fresh();
        for dialect in [Dialect::OpenMetrics, Dialect::Text] {
            let text = metrics.text(&scrape, dialect);
            for line in [
                "wale_wal_pushes_total{outcome=\"stored\"} 0",
                "wale_wal_pushes_total{outcome=\"archive-conflict\"} 0",
                "wale_wal_fetches_total{outcome=\"storage-unavailable\"} 0",
                "wale_wal_absences_total{outcome=\"proven\"} 0",
                "wale_backups_total{outcome=\"failed\"} 0",
                "wale_retentions_total{outcome=\"failed\"} 0",
                "wale_http_requests_total{route=\"/wal-push\",status=\"503\"} 0",
                "wale_tls_plain_http_requests_total 0",
            ] {
                assert!(text.lines().any(|found| found == line), "{line}\n{text}");
            }
            let times = text.lines().filter(|line| !line.starts_with('#'));
            let times: Vec<&str> = times.filter(|line| line.contains("_timestamp_")).collect();
            assert!(times.is_empty(), "{times:?}");
            assert!(!text.contains("NaN"), "{text}");
        }
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        metrics.recalled_push(at);
        metrics.recalled_push(DateTime::UNIX_EPOCH);
        let text = metrics.text(&scrape, Dialect::Text);
        assert!(
            text.contains("wale_wal_last_push_timestamp_seconds 1700000000"),
            "{text}"
        );
    }

    #[test]
    fn every_route_has_its_series_from_the_start() {
        use crate::http::route_names;
        for name in route_names() {
            assert!(ROUTES.contains(&name), "{name}");
        }
    }

    /// What `promtool check metrics` asks of the older format, and the program itself where it is installed.
    #[test]
    fn the_older_text_is_what_promtool_wants() {
        let (metrics, scrape) = fresh();
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        metrics.pushed("stored", Duration::from_millis(20), at);
        metrics.backup_done(100, 50, Duration::from_secs(3), at);
        let text = metrics.text(&scrape, Dialect::Text);
        let mut described = BTreeMap::new();
        for line in text.lines() {
            assert!(!line.starts_with("# UNIT") && line != "# EOF", "{line}");
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                described.insert(name, kind);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end))
                    .filter(|family| described.get(family) == Some(&"histogram"))
                    .unwrap_or(name);
                assert!(described.contains_key(family), "{line} has no type");
            }
        }
        promtool(&text);
    }

    fn promtool(text: &str) {
        use std::process::{Command, Stdio};
        let started = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut checking) = started else {
            // Not installed: the rules above are checked in any case.
            return;
        };
        std::io::Write::write_all(&mut checking.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let checked = checking.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(
            checked.status.success() && said.is_empty(),
            "{said}\n{text}"
        );
    }
}
