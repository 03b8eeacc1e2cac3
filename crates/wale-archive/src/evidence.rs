//! What shows that WAL which is not there was written. Restore, the proof of absence and the alarm ask here, so that one of
//! them never calls the end of the log what another one calls a gap.

use std::collections::BTreeSet;
use std::fmt;

use futures_util::future::try_join_all;
use wale_format::BackupName;
use wale_pg::{ArchiveFileName, Lsn, TimelineId, WalSegmentName, WalSegmentSize};

use crate::error::{Kind, OpError, Result};
use crate::lineage::{MISSING_MAX, Neighbours, is_gap};
use crate::listing::{each_wal, each_wal_after};
use crate::{Archive, Trace};

/// What is there although a segment before it, or within it, is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// A later WAL file of the segment's timeline.
    Later(ArchiveFileName),
    /// A base backup that ended after it, or began in it.
    Backup(BackupName),
    /// A later timeline, by its history.
    Descendant(TimelineId),
    /// Something of the next timeline, whose history is lost.
    Trace(Trace),
}

impl fmt::Display for Witness {
    /// As a clause that follows "but".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(name) => write!(f, "{name} is there"),
            Self::Backup(name) => write!(f, "base backup {name} ended after it"),
            Self::Descendant(timeline) => {
                write!(f, "timeline {timeline} leads through it")
            }
            Self::Trace(trace) => {
                write!(f, "{trace} is there, of a timeline whose history is lost")
            }
        }
    }
}

/// What is known of a segment that is not there.
#[derive(Clone, Debug)]
pub struct WalEvidence {
    /// What shows that it was written; `None` where nothing does.
    pub witness: Option<Witness>,
    /// The segment size, where it is known.
    pub size: Option<WalSegmentSize>,
}

/// What is known of a history that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryWitness {
    /// A later timeline's history shows that it existed.
    Later(TimelineId),
    /// Something bears the number of the timeline or of a later one.
    Trace(Trace),
}

impl fmt::Display for HistoryWitness {
    /// In words that stand before `is there`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(timeline) => ArchiveFileName::TimelineHistory(*timeline).fmt(f),
            Self::Trace(trace) => trace.fmt(f),
        }
    }
}

impl Archive {
    /// What shows that a segment which is not there was written: later WAL of its timeline, a base backup that ended
    /// after it, or a later timeline that leads through it. It reads the listing in a few places, whatever the length
    /// of the log.
    ///
    /// # Errors
    /// The store's, and those of a later history that cannot be read.
    pub async fn evidence_of(
        &self,
        asked: WalSegmentName,
        size: Option<WalSegmentSize>,
    ) -> Result<WalEvidence> {
        let neighbours = self.neighbours(asked).await?;
        let size = match size {
            Some(size) => Some(size),
            None => self.size_by(neighbours.earlier).await?,
        };
        let found = |witness| Ok(WalEvidence { witness, size });
        if let Some(later) = neighbours.later {
            let begins = self.timeline_begins(asked.timeline()).await?;
            if is_gap(asked, neighbours, begins, size) {
                return found(Some(Witness::Later(later)));
            }
            if begins.is_some() {
                // It lies before its timeline's beginning, so nobody's way leads through it. Before 14 a server
                // asks for each of these, so this does not look for a later timeline.
                return found(None);
            }
        }
        // Where the timeline began may be lost with its history; a base backup shows it, too.
        let backup = self.backup_behind(asked, neighbours, size).await?;
        if backup.is_some() {
            return found(backup);
        }
        let next = self.next_timeline(asked.timeline()).await?;
        if let Some(timeline) = self.descendant(asked, size, next.as_ref()).await? {
            return found(Some(Witness::Descendant(timeline)));
        }
        let trace = self.descendant_without_history(asked, next).await?;
        found(trace.map(Witness::Trace))
    }

    /// What shows that a timeline whose history is not there existed.
    ///
    /// # Errors
    /// As [`Archive::evidence_of`].
    pub async fn evidence_of_history(
        &self,
        timeline: TimelineId,
    ) -> Result<Option<HistoryWitness>> {
        // Where nothing bears a number, no history does either: one listing shows both.
        let timelines = std::iter::successors(Some(timeline), |timeline| timeline.next());
        let timelines: Vec<_> = timelines.take(MISSING_MAX as usize).collect();
        let looks = timelines.iter().map(|number| self.first_wal_of(*number));
        let first = try_join_all(looks.collect::<Vec<_>>()).await?;
        let first: Vec<_> = timelines.into_iter().zip(first).collect();
        let bare = first.iter().filter(|(_, wal)| wal.is_none());
        let bare: BTreeSet<_> = bare.map(|(number, _)| *number).collect();
        let later = self.later_histories_but(timeline, &bare).await?;
        if let Some(later) = later.shows(timeline) {
            return Ok(Some(HistoryWitness::Later(later)));
        }
        let looks = first.into_iter();
        let looks = looks.map(|(number, wal)| self.trace_behind(number, wal));
        let traces = try_join_all(looks.collect::<Vec<_>>()).await?;
        let trace = traces.into_iter().flatten().next();
        Ok(trace.map(HistoryWitness::Trace))
    }

    /// Whether an earlier timeline on the way of a segment's timeline has a segment of the same number, or may have one. A
    /// server that hears that the later one is absent replays that one, beyond the point where its own timeline left.
    ///
    /// # Errors
    /// The store's.
    pub async fn has_namesake(&self, segment: WalSegmentName) -> Result<bool> {
        if segment.timeline() == TimelineId::FIRST {
            return Ok(false);
        }
        let history = match self.timeline_history(segment.timeline()).await {
            Ok(Some(history)) => history,
            Ok(None) => return Ok(true),
            Err(error) if says_nothing(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        for parent in history.parents {
            let name = ArchiveFileName::Segment(segment.with_timeline(parent.timeline));
            if self.find_wal(&name).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What there is of its timeline before and after a segment. It reads the listing in two places, at the beginning of
    /// the timeline and from the segment on, whatever the length of the log; once from end to end where a listing begins at its
    /// prefix.
    async fn neighbours(&self, asked: WalSegmentName) -> Result<Neighbours> {
        let timeline = asked.timeline().to_hex();
        let (mut first, mut later) = (None, None);
        if self.looks_by_prefix() {
            each_wal(self, &timeline, |listed, _| {
                first = first.or(begins_in(listed));
                later = is_later(listed, asked).then_some(listed);
                later.is_some()
            })
            .await?;
        } else {
            each_wal_after(self, &timeline, "", |listed, _| {
                first = begins_in(listed);
                first.is_some()
            })
            .await?;
            each_wal_after(self, &timeline, &asked.to_string(), |listed, _| {
                later = is_later(listed, asked).then_some(listed);
                later.is_some()
            })
            .await?;
        }
        Ok(Neighbours {
            earlier: first.filter(|segment| *segment <= asked),
            later,
        })
    }

    /// The segment size of an archive without identity, by a segment that it has.
    async fn size_by(&self, segment: Option<WalSegmentName>) -> Result<Option<WalSegmentSize>> {
        let Some(segment) = segment else {
            return Ok(None);
        };
        let Some(stored) = self.find_wal(&ArchiveFileName::Segment(segment)).await? else {
            return Ok(None);
        };
        match self.read_wal_header(&stored).await {
            Ok(header) => Ok(WalSegmentSize::new(header.segment_size.into()).ok()),
            Err(error) if says_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where a timeline began, by its history file. Without one, or with a damaged one, it is not known.
    async fn timeline_begins(&self, timeline: TimelineId) -> Result<Option<Lsn>> {
        if timeline == TimelineId::FIRST {
            return Ok(None);
        }
        match self.timeline_history(timeline).await {
            Ok(history) => Ok(history.and_then(|history| history.begins_at())),
            Err(error) if says_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A base backup that shows that the segment was stored.
    async fn backup_behind(
        &self,
        asked: WalSegmentName,
        neighbours: Neighbours,
        size: Option<WalSegmentSize>,
    ) -> Result<Option<Witness>> {
        let around = self.backups_around(asked).await?;
        let Some(backup) = around.behind else {
            return Ok(None);
        };
        let neighbours = Neighbours {
            earlier: neighbours.earlier.or(around.begun_before.then_some(asked)),
            later: Some(ArchiveFileName::Segment(backup.segment())),
        };
        let begins = self.timeline_begins(asked.timeline()).await?;
        let is_gap = is_gap(asked, neighbours, begins, size);
        Ok(is_gap.then_some(Witness::Backup(backup)))
    }

    /// The timeline after this one, and what WAL there is of it.
    async fn next_timeline(&self, timeline: TimelineId) -> Result<Option<NextTimeline>> {
        let Some(number) = timeline.next() else {
            return Ok(None);
        };
        let wal = self.first_wal_of(number).await?;
        Ok(Some(NextTimeline { number, wal }))
    }

    /// What there is of the next timeline, if its history is lost and it may have begun in the segment or after it.
    async fn descendant_without_history(
        &self,
        asked: WalSegmentName,
        next: Option<NextTimeline>,
    ) -> Result<Option<Trace>> {
        let Some(NextTimeline { number: next, wal }) = next else {
            return Ok(None);
        };
        let Some(trace) = self.trace_behind(next, wal).await? else {
            return Ok(None);
        };
        let is_behind = trace.segment() >= Some(asked.with_timeline(next));
        let history = ArchiveFileName::TimelineHistory(next);
        Ok((is_behind && self.find_wal(&history).await?.is_none()).then_some(trace))
    }

    /// A later timeline whose way leads through a segment.
    async fn descendant(
        &self,
        asked: WalSegmentName,
        size: Option<WalSegmentSize>,
        next: Option<&NextTimeline>,
    ) -> Result<Option<TimelineId>> {
        let Some(size) = size else {
            return Ok(None);
        };
        let bare = next.filter(|next| next.wal.is_none());
        let bare = bare.map(|next| next.number).into_iter().collect();
        let later = self.later_histories_but(asked.timeline(), &bare).await?;
        Ok(later.written_through(asked, size))
    }
}

/// The segment that a file shows its timeline to have had: its own, or the one in which the backup began whose note it is.
fn begins_in(listed: ArchiveFileName) -> Option<WalSegmentName> {
    match listed {
        ArchiveFileName::Segment(segment) | ArchiveFileName::BackupHistory { segment, .. } => {
            Some(segment)
        }
        _ => None,
    }
}

/// Whether a file shows that the segment was written.
fn is_later(listed: ArchiveFileName, asked: WalSegmentName) -> bool {
    match listed {
        ArchiveFileName::Segment(segment) => segment > asked,
        // A server archives the note of a backup after the segment in which the backup began.
        ArchiveFileName::BackupHistory { segment, .. } => segment >= asked,
        _ => false,
    }
}

/// The timeline after another one.
struct NextTimeline {
    number: TimelineId,
    /// The first WAL file that bears its number, its history too.
    wal: Option<ArchiveFileName>,
}

/// Whether the object was read and is of no use. A store that did not answer is another matter.
fn says_nothing(error: &OpError) -> bool {
    matches!(error.kind, Kind::CorruptData | Kind::Configuration)
}
