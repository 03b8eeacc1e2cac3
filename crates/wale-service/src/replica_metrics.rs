//! The series of further archives. There are none where there is only one archive.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::seconds::unix_seconds;

/// How far it lags behind, as told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LagTold {
    /// Whether the archives were compared; otherwise it may be more.
    pub(crate) known: bool,
    pub(crate) segments: u64,
    /// The age of the oldest WAL file that it lacks.
    pub(crate) age: Duration,
}

/// What a scrape reads.
#[derive(Debug)]
pub(crate) struct ReplicaScrape {
    pub(crate) number: u8,
    pub(crate) lag: LagTold,
    pub(crate) reachable: Option<bool>,
    pub(crate) conflicts: u64,
    /// Base backups that could not be copied when that was last tried.
    pub(crate) backups_failing: u64,
    pub(crate) last_pass: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ArchiveLabel {
    archive: u8,
}

type OfArchives = Family<ArchiveLabel, Gauge>;
type TimesOfArchives = Family<ArchiveLabel, Gauge<f64, AtomicU64>>;

/// One series of each for an archive: eight archives at most.
#[derive(Debug, Default)]
pub(crate) struct ReplicaMetrics {
    lag: TimesOfArchives,
    lag_segments: OfArchives,
    lag_known: OfArchives,
    reachable: OfArchives,
    conflicts: OfArchives,
    backups_failing: OfArchives,
    last_pass: TimesOfArchives,
}

impl ReplicaMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "archive_lag",
            "Age of the oldest WAL file of the first archive that a further one lacks",
            Unit::Seconds,
            self.lag.clone(),
        );
        registry.register(
            "archive_lag_segments",
            "WAL segments of the first archive that a further one lacks",
            self.lag_segments.clone(),
        );
        registry.register(
            "archive_lag_known",
            "Whether a further archive was compared with the first since the start; before that it may lack more",
            self.lag_known.clone(),
        );
        registry.register(
            "archive_reachable",
            "Whether a further archive answered when it was last asked",
            self.reachable.clone(),
        );
        registry.register(
            "archive_conflicts",
            "Objects that a further archive has with other bytes than the first",
            self.conflicts.clone(),
        );
        registry.register(
            "archive_backups_failing",
            "Base backups that could not be copied to a further archive when that was last tried",
            self.backups_failing.clone(),
        );
        registry.register_with_unit(
            "archive_last_pass_timestamp",
            "Unix time at which a further archive was last compared in full and brought up to date",
            Unit::Seconds,
            self.last_pass.clone(),
        );
    }

    pub(crate) fn set(&self, scrape: &ReplicaScrape) {
        let label = ArchiveLabel {
            archive: scrape.number,
        };
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let of = |family: &OfArchives, number| {
            family.get_or_create(&label).set(number);
        };
        self.lag
            .get_or_create(&label)
            .set(scrape.lag.age.as_secs_f64());
        of(&self.lag_segments, count(scrape.lag.segments));
        of(&self.lag_known, i64::from(scrape.lag.known));
        // What nobody has asked yet is no series: an alarm goes by 0.
        if let Some(answers) = scrape.reachable {
            of(&self.reachable, i64::from(answers));
        }
        of(&self.conflicts, count(scrape.conflicts));
        of(&self.backups_failing, count(scrape.backups_failing));
        let last = scrape.last_pass.map_or(f64::NAN, unix_seconds);
        self.last_pass.get_or_create(&label).set(last);
    }
}
