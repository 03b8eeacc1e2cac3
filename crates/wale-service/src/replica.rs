//! A further archive, and what is known of it. [`crate::follower`] is the task that brings it up to date.
//!
//! It refuses to ask anything: others note what they did, and `/status`, the metrics and pushes read it. Invariants: a file that
//! the first archive has acknowledged is remembered until it was brought, or counted until the listings were compared; the
//! log hears of a change, not of each try.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;
use wale_ops::archive_copy::Trouble;
use wale_ops::archive_copy::follow::Lag;
use wale_ops::{Archive, Disputed, Kind, OpError, wal_claim};
use wale_pg::ArchiveFileName;

use crate::journal::{FailureRecord, RetentionRecord};
use crate::options::{FurtherArchive, Housekeeping};
use crate::replica_metrics::{LagTold, ReplicaScrape};

/// WAL files that are remembered one by one as not copied yet; of more only the number is known, and the listings show
/// them. 10,000 × 100 bytes = 1 MB.
const PENDING_MAX: usize = 10_000;

/// After a comparison of everything, and while more differs than is named, it is made again so much later: it reads both
/// archives whole.
const COMPARE_AGAIN: Duration = Duration::from_hours(24);

/// WAL that waits for longer is no more on its way as a matter of course.
const ON_ITS_WAY: TimeDelta = TimeDelta::minutes(1);

/// A further archive.
pub(crate) struct Replica {
    pub(crate) number: u8,
    pub(crate) archive: Archive,
    pub(crate) housekeeping: Housekeeping,
    known: Mutex<Known>,
    pub(crate) wake: Notify,
}

/// What is known of it.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Known {
    /// When the following began; none while nothing has been archived by this process yet that waits for it.
    pub(crate) began: Option<DateTime<Utc>>,
    /// WAL files that the first has acknowledged since, and that were not brought yet.
    pub(crate) pending: VecDeque<(ArchiveFileName, DateTime<Utc>)>,
    /// How many more there are.
    pub(crate) beyond: u64,
    /// When a backup ended whose end nobody told of.
    pub(crate) backup_ended: Option<Instant>,
    /// What the listings showed, and when, as long as that counts.
    pub(crate) measured: Option<(Lag, DateTime<Utc>)>,
    /// Whether the listings were ever compared.
    pub(crate) is_measured: bool,
    pub(crate) reachable: Option<bool>,
    pub(crate) failure: Option<FailureRecord>,
    pub(crate) failing_since: Option<DateTime<Utc>>,
    /// Objects that are not as they should be, as the archive's own note has them.
    pub(crate) conflicts: Disputed,
    /// Those that the pass under way has seen so.
    pub(crate) seen: Disputed,
    /// The archive's own note says something else.
    pub(crate) is_to_note: bool,
    /// What is there must be read and compared, whatever its size: nobody has, or more differs than is named.
    pub(crate) is_to_compare: bool,
    /// When everything that is there was last compared so, by this process.
    pub(crate) compared: Option<Instant>,
    pub(crate) backups_wanted: u64,
    /// A backup could not be copied, although the archive answers.
    pub(crate) is_stuck: bool,
    /// Since when it lacks something beyond what was archived a moment ago.
    pub(crate) behind_since: Option<DateTime<Utc>>,
    /// A pass has found that it lacks nothing, and nothing has failed since.
    pub(crate) is_level: bool,
    pub(crate) last_pass: Option<DateTime<Utc>>,
    pub(crate) last_copied: Option<(String, DateTime<Utc>)>,
    pub(crate) last_retention: Option<RetentionRecord>,
    pub(crate) last_retention_failure: Option<FailureRecord>,
}

impl Replica {
    pub(crate) fn new(further: &FurtherArchive) -> Arc<Self> {
        Arc::new(Self {
            number: further.number,
            archive: further.archive.clone(),
            housekeeping: further.housekeeping.clone(),
            known: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Takes note of a WAL file that the first archive has.
    pub(crate) fn archived(&self, name: &ArchiveFileName, at: DateTime<Utc>) {
        let mut known = self.known();
        if matches!(name, ArchiveFileName::BackupHistory { .. }) {
            known.backup_ended.get_or_insert_with(Instant::now);
        }
        if known.pending.iter().any(|(pending, _)| pending == name) {
            return;
        }
        if known.pending.len() < PENDING_MAX {
            known.pending.push_back((*name, at));
        } else {
            known.beyond += 1;
        }
        drop(known);
        self.wake.notify_one();
    }

    /// Whether it was looked at: a pass has ended, well or not. One that nobody follows yet will not be looked at, and is not waited for.
    pub(crate) fn was_looked_at(&self) -> bool {
        let known = self.known();
        known.began.is_none() || known.last_pass.is_some() || known.failure.is_some()
    }

    /// Why a push has to wait, where this archive lags behind more than it may.
    pub(crate) fn refusal(&self, bound: Duration, now: DateTime<Utc>) -> Option<OpError> {
        let (lag, began) = (self.lag(now), self.known().began?);
        // What was never compared may lack whatever was archived before this process began.
        let unknown = if lag.known {
            Duration::ZERO
        } else {
            since(began, now)
        };
        let age = lag.age.max(unknown);
        if age <= bound {
            return None;
        }
        let (number, place) = (self.number, self.archive.location());
        let message = format!(
            "archive {number} ({place}) lags {} s behind the first, and {} s are allowed",
            age.as_secs(),
            bound.as_secs()
        );
        let failure = self
            .known()
            .failure
            .as_ref()
            .map(|failure| failure.message.clone());
        let mut error = OpError::new(Kind::Busy, message).hint(
            "PostgreSQL keeps its WAL and repeats the request; bring that archive back, or unset WALE_MAX_ARCHIVE_LAG",
        );
        if let Some(failure) = failure {
            error = error.detail(format!("Its last failure: {failure}."));
        }
        Some(error)
    }

    /// How far it lags behind.
    pub(crate) fn lag(&self, now: DateTime<Utc>) -> LagTold {
        let known = self.known();
        let (measured, at) = known.measured.unwrap_or_default();
        let later = known.pending.iter().filter(|(_, pending)| *pending > at);
        let waiting = later.clone().filter(|(name, _)| name.is_segment()).count() as u64;
        let oldest = measured
            .oldest
            .into_iter()
            .chain(later.map(|(_, at)| *at))
            .min();
        LagTold {
            known: known.is_measured,
            segments: measured.segments + waiting + known.beyond,
            age: oldest.map_or(Duration::ZERO, |oldest| since(oldest, now)),
        }
    }

    /// What a scrape reads.
    pub(crate) fn scrape(&self, now: DateTime<Utc>) -> ReplicaScrape {
        let lag = self.lag(now);
        let known = self.known();
        ReplicaScrape {
            number: self.number,
            lag,
            reachable: known.reachable,
            conflicts: known.conflicts.objects.len() as u64,
            backups_failing: if known.is_stuck {
                known.backups_wanted.max(1)
            } else {
                0
            },
            last_pass: known.last_pass,
        }
    }

    /// What `/status` says of it.
    pub(crate) fn status(&self, now: DateTime<Utc>) -> Value {
        let lag = self.lag(now);
        let known = self.known();
        let state = match (&known.began, &known.failing_since, &known.last_pass) {
            (None, ..) => "waiting-for-the-first-push",
            (_, Some(_), _) => "failing",
            (_, None, None) => "copying",
            (_, None, Some(_)) => "following",
        };
        json!({
            "number": self.number,
            "location": self.archive.location(),
            "state": state,
            "reachable": known.reachable,
            "lag": {
                "known": lag.known,
                "segments": lag.segments,
                "seconds": lag.age.as_secs_f64(),
            },
            "backups_wanted": known.backups_wanted,
            "last_copied": known.last_copied.as_ref().map(|(name, at)| json!({"name": name, "at": at})),
            "last_full_pass": known.last_pass,
            "failing_since": known.failing_since,
            "last_failure": known.failure,
            "conflicts": known.conflicts.objects.iter().map(|(key, why)| format!("{key} {why}")).collect::<Vec<_>>(),
            "conflicts_count": known.conflicts.objects.len(),
            "conflicts_more": known.conflicts.more,
            "last_retention": known.last_retention,
            "last_retention_failure": known.last_retention_failure,
        })
    }

    /// Since when it lacks something that the first archive may be about to delete; none while it has everything it wants.
    pub(crate) fn behind_since(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let known = self.known();
        let late = known.pending.front().map(|(_, at)| *at);
        let late = late.filter(|at| now - *at > ON_ITS_WAY);
        if known.is_level && known.beyond == 0 {
            return late;
        }
        Some(known.behind_since.or(late).unwrap_or(now))
    }

    /// Notes that it lacks something.
    pub(crate) fn behind(&self, now: DateTime<Utc>) {
        let mut known = self.known();
        known.is_level = false;
        known.behind_since.get_or_insert(now);
    }

    /// Notes that it has everything it wants.
    pub(crate) fn level(&self) {
        let mut known = self.known();
        known.is_level = true;
        known.is_stuck = false;
        known.behind_since = None;
        drop(known);
        self.works();
    }

    /// Notes a failure. The log hears of it once, and again when it is another one.
    pub(crate) fn failed(&self, error: &OpError, reachable: bool, now: DateTime<Utc>) {
        self.behind(now);
        let mut known = self.known();
        known.reachable = Some(reachable);
        let record = FailureRecord::new(format!("copying to archive {}", self.number), error, now);
        let same = known.failing_since.is_some()
            && known
                .failure
                .as_ref()
                .is_some_and(|failure| failure.kind == record.kind);
        known.failing_since.get_or_insert(now);
        known.failure = Some(record);
        drop(known);
        if !same {
            let number = self.number;
            tracing::warn!(
                archive = number,
                location = self.archive.location(),
                detail = error.detail.as_deref(),
                hint = "archiving goes on in the first archive; /status shows how far this one lags behind, and it is tried \
                        again until it succeeds",
                "archive {number} cannot be brought up to date: {}",
                error.chain()
            );
        }
    }

    /// Notes that it answers, and takes what it is given. A backup that cannot be copied is still told.
    pub(crate) fn works(&self) {
        let mut known = self.known();
        known.reachable = Some(true);
        if !known.is_stuck && known.failing_since.take().is_some() {
            drop(known);
            tracing::info!(
                archive = self.number,
                location = self.archive.location(),
                "the archive is followed again"
            );
        }
    }

    /// Notes objects that are not as they should be. Nothing was overwritten.
    pub(crate) fn conflicts(&self, troubles: &[Trouble]) {
        let mut known = self.known();
        for trouble in troubles {
            known.seen.add(&trouble.key, &trouble.why);
            if !known.conflicts.add(&trouble.key, &trouble.why) {
                continue;
            }
            known.is_to_note = true;
            let hint = if trouble.kind == Kind::ArchiveConflict {
                "find out who wrote there; nothing was overwritten, and the first archive has its own bytes"
            } else {
                "find out why the first archive cannot give it: a recovery from this archive alone stops there"
            };
            tracing::error!(
                archive = self.number,
                location = self.archive.location(),
                key = trouble.key,
                hint,
                "an object {}",
                trouble.why
            );
        }
    }

    /// What the archive's note says, of an earlier process or another one. Where there is none, nobody has compared what was
    /// there before the sidecar began to copy.
    pub(crate) fn remember(&self, noted: Option<&Disputed>) {
        let mut known = self.known();
        known.seen = Disputed::default();
        for (key, why) in noted.iter().flat_map(|noted| &noted.objects) {
            known.conflicts.add(key, why);
        }
        known.conflicts.more |= noted.is_some_and(|noted| noted.more);
        known.is_to_note |= noted.is_none_or(|noted| known.conflicts != *noted);
        let is_due = known
            .compared
            .is_none_or(|compared| compared.elapsed() >= COMPARE_AGAIN);
        known.is_to_compare = is_due && (noted.is_none() || known.conflicts.more);
    }

    /// Notes that there are more objects that are not as they should be than were named.
    pub(crate) fn more_conflicts(&self) {
        let mut known = self.known();
        known.is_to_note |= !known.conflicts.more;
        known.conflicts.more = true;
        known.seen.more = true;
    }

    /// Notes that what is disputed under a name is there still.
    pub(crate) fn still_disputed(&self, name: &ArchiveFileName) {
        let mut guard = self.known();
        let known = &mut *guard;
        let claims = |key: &str| wal_claim(key).as_ref() == Some(name);
        let of_name = known.conflicts.objects.iter();
        for (key, why) in of_name.filter(|(key, _)| claims(key)) {
            known.seen.add(key, why);
        }
    }

    /// Forgets the objects that the pass has not seen so. Where it has trusted sizes, those that are not named stay disputed.
    pub(crate) fn settle_conflicts(&self) {
        let mut known = self.known();
        let mut seen = std::mem::take(&mut known.seen);
        if std::mem::take(&mut known.is_to_compare) {
            known.compared = Some(Instant::now());
        } else {
            seen.more |= known.conflicts.more;
        }
        let before = std::mem::replace(&mut known.conflicts, seen);
        known.is_to_note |= before != known.conflicts;
        let gone = before.objects.keys();
        for key in gone.filter(|key| !known.conflicts.objects.contains_key(*key)) {
            tracing::info!(
                archive = self.number,
                key,
                "an object is in conflict no more"
            );
        }
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        // Facts are replaced one by one: a panic elsewhere leaves them whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn since(then: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - then).to_std().unwrap_or_default()
}
