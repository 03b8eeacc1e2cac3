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
use wale_ops::CredentialEnd;
use wale_ops::error::TABLE;
use wale_ops::recoverable::Holdings;
use wale_ops::wal_push::PusherStats;
use wale_ops::wal_volume::WalVolume;

use crate::journal::RetentionRecord;
use crate::lifecycle::Phase;
use crate::replica_metrics::ReplicaMetrics;
use crate::seconds::unix_seconds;

type FloatGauge = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Which archive's credentials, and who renews them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CredentialLabel {
    archive: u8,
    renewed_by: &'static str,
}

/// Within how many days something came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithinLabel {
    within: &'static str,
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
    /// The WAL volume; none where nobody can say.
    pub(crate) wal_volume: Option<WalVolume>,
    /// When the right to ask each archive ends.
    pub(crate) credential_ends: Vec<(u8, CredentialEnd)>,
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
    archive_backups: Gauge,
    archive_objects: Gauge,
    archive_bytes: Gauge,
    archive_added: Family<WithinLabel, Gauge>,
    recoverable_from: FloatGauge,
    recoverable_to: FloatGauge,
    last_verified: FloatGauge,
    damaged: Gauge,
    last_rehearsal: FloatGauge,
    last_rehearsal_ok: FloatGauge,
    wal_volume_free: FloatGauge,
    wal_volume_full_in: FloatGauge,
    connections: Gauge,
    handshake_failures: Counter,
    plain_http: Counter,
    certificate_expiry: FloatGauge,
    credentials_expiry: Family<CredentialLabel, FloatGauge>,
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
            archive_backups: Gauge::default(),
            archive_objects: Gauge::default(),
            archive_bytes: Gauge::default(),
            archive_added: Family::default(),
            recoverable_from: FloatGauge::default(),
            recoverable_to: FloatGauge::default(),
            last_verified: FloatGauge::default(),
            damaged: Gauge::default(),
            last_rehearsal: FloatGauge::default(),
            last_rehearsal_ok: FloatGauge::default(),
            wal_volume_free: FloatGauge::default(),
            wal_volume_full_in: FloatGauge::default(),
            connections: Gauge::default(),
            handshake_failures: Counter::default(),
            plain_http: Counter::default(),
            certificate_expiry: FloatGauge::default(),
            credentials_expiry: Family::default(),
            phase: Family::default(),
            archives: ReplicaMetrics::default(),
            scraping: Mutex::new(()),
        };
        metrics.register_pushes();
        metrics.register_watches();
        metrics.register_holdings();
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
            (&self.fetches, FETCHED),
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
            &self.recoverable_from,
            &self.recoverable_to,
            &self.last_verified,
            &self.last_rehearsal,
            &self.last_rehearsal_ok,
            &self.wal_volume_free,
            &self.wal_volume_full_in,
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

    /// What the archive holds.
    fn register_holdings(&mut self) {
        let r = &mut self.registry;
        r.register(
            "archive_backups",
            "Base backups in the archive whose record can be read, as of the last look",
            self.archive_backups.clone(),
        );
        r.register(
            "archive_objects",
            "Objects in the archive, as of the last look",
            self.archive_objects.clone(),
        );
        r.register_with_unit(
            "archive",
            "Stored bytes of the archive, as of the last look",
            Unit::Bytes,
            self.archive_bytes.clone(),
        );
        r.register_with_unit(
            "archive_added",
            "Stored bytes that came within the last day (1d) and the last seven days (7d) and are there, as of the last look",
            Unit::Bytes,
            self.archive_added.clone(),
        );
        r.register_with_unit(
            "recoverable_from_timestamp",
            "Unix time of the first moment from which a recovery gets to the newest WAL without a gap, as of the last look",
            Unit::Seconds,
            self.recoverable_from.clone(),
        );
        r.register_with_unit(
            "recoverable_to_timestamp",
            "Unix time at which the last segment that a recovery reaches was stored, as of the last look",
            Unit::Seconds,
            self.recoverable_to.clone(),
        );
        r.register_with_unit(
            "last_verified_timestamp",
            "Unix time at which the archive, or a part of it, was last read to verify it",
            Unit::Seconds,
            self.last_verified.clone(),
        );
        r.register(
            "verify_damaged_objects",
            "Objects of the archive that were found damaged or missing when they were last verified",
            self.damaged.clone(),
        );
        r.register_with_unit(
            "last_rehearsal_timestamp",
            "Unix time of the end of the last rehearsal of a restore in which nothing failed, as of the last look",
            Unit::Seconds,
            self.last_rehearsal.clone(),
        );
        r.register(
            "last_rehearsal_ok",
            "Whether nothing failed in the last rehearsal of a restore, as of the last look",
            self.last_rehearsal_ok.clone(),
        );
        self.register_wal_volume();
    }

    /// What the WAL volume has left.
    fn register_wal_volume(&mut self) {
        let r = &mut self.registry;
        r.register_with_unit(
            "wal_volume_free",
            "Bytes that are free on the volume of PostgreSQL's WAL",
            Unit::Bytes,
            self.wal_volume_free.clone(),
        );
        r.register_with_unit(
            "wal_volume_full_in",
            "Time until the volume of PostgreSQL's WAL is full, where archiving does not keep up",
            Unit::Seconds,
            self.wal_volume_full_in.clone(),
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
        r.register_with_unit(
            "credentials_expiry_timestamp",
            "Unix time at which an archive's credentials end, as far as they say it: the first of those that wale renews itself, that others \
             renew, and that nobody does",
            Unit::Seconds,
            self.credentials_expiry.clone(),
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

    /// What the archive holds, and through which time it can be restored.
    pub(crate) fn holdings(&self, found: &Holdings) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.archive_backups.set(gauge(found.backups));
        self.archive_objects.set(gauge(found.objects));
        self.archive_bytes.set(gauge(found.bytes));
        for (within, bytes) in [
            ("1d", found.growth.last_day),
            ("7d", found.growth.last_week),
        ] {
            let label = WithinLabel { within };
            self.archive_added.get_or_create(&label).set(gauge(bytes));
        }
        let window = found.current();
        let time = |at: Option<DateTime<Utc>>| at.map_or(f64::NAN, unix_seconds);
        self.recoverable_from.set(time(window.map(|one| one.from)));
        self.recoverable_to
            .set(time(window.and_then(|one| one.until)));
        let rehearsals = &found.rehearsals;
        let good = rehearsals.last_good.as_ref();
        self.last_rehearsal
            .set(time(good.map(|(_, record)| record.ended)));
        let ok = rehearsals.last.as_ref().map(|(_, record)| record.ok);
        self.last_rehearsal_ok
            .set(ok.map_or(f64::NAN, |ok| f64::from(u8::from(ok))));
    }

    /// When the archive was last read to verify it, and how much of it was found damaged or missing.
    pub(crate) fn verified(&self, at: Option<DateTime<Utc>>, damaged: u64) {
        self.last_verified.set(at.map_or(f64::NAN, unix_seconds));
        self.damaged.set(i64::try_from(damaged).unwrap_or(i64::MAX));
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
        self.credentials_expiry.clear();
        for (archive, end) in &scrape.credential_ends {
            let label = CredentialLabel {
                archive: *archive,
                renewed_by: end.renewal.name(),
            };
            let first = self.credentials_expiry.get_or_create(&label);
            let (known, expires) = (first.get(), unix_seconds(end.expires));
            // A new gauge is 0.
            first.set(if known > 0.0 {
                known.min(expires)
            } else {
                expires
            });
        }
        let volume = scrape.wal_volume.as_ref();
        self.wal_volume_free
            .set(volume.map_or(f64::NAN, |volume| number(volume.free_bytes)));
        let full_in = volume.and_then(WalVolume::full_in);
        self.wal_volume_full_in
            .set(full_in.map_or(f64::NAN, |time| time.as_secs_f64()));
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

/// A fetched file that was handed over, and not sent.
pub(crate) const HANDED_OVER: &str = "handed-over";

/// Outcomes of fetches, pushes, backups and retention; the kinds of errors come on top where a request fails with one.
const FETCHED: &[&str] = &["found", HANDED_OVER];
const PUSHED: &[&str] = &["stored", "already-stored", "kept-beside"];
const BACKED_UP: [&str; 4] = ["ok", "failed", "cancelled", "skipped-overlap"];
const RETAINED: [&str; 3] = ["ok", "retained", "failed"];

/// Names of routes, and what they are answered with. 13 × 10 = 130 series.
const ROUTES: [&str; 14] = [
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
    "/ui",
    "other",
];
const STATUSES: [u16; 10] = [200, 202, 400, 401, 403, 404, 409, 500, 503, 507];

/// Brings a counter to what somebody else has counted.
fn catch_up(series: &Counter, total: u64) {
    series.inc_by(total.saturating_sub(series.get()));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a number of bytes is told to sixteen digits"
)]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
