//! How long the room for WAL lasts: the free space of its volume against the WAL that the server writes.
//!
//! PostgreSQL keeps a segment until it is archived. So the volume does not fill while archiving keeps up, and fills at the rate at
//! which WAL is written when it stops. Nothing is asked for this: the times of the files in `archive_status` say how fast segments
//! came and went of late, and the archive's listing, which is made anyway, how much came in a day.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use wale_cluster::{Flow, WalDirectory, WalQueue};

use crate::error::{OpError, Result};

/// A segment that has waited for so long is not being archived in the ordinary way: PostgreSQL repeats a failed command after a
/// minute at most, and takes seconds for a segment.
const WAITS_TOO_LONG: TimeDelta = TimeDelta::minutes(5);

/// How far back it is looked whether archiving gains on what is written: some tries of a command that fails.
const OF_LATE: TimeDelta = TimeDelta::minutes(10);

/// What is seen for less than this shows no rate: the first minute after a checkpoint, which takes away what was archived.
const SEEN_LEAST: TimeDelta = TimeDelta::minutes(1);

/// The room for WAL, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalVolume {
    /// Bytes that PostgreSQL may still write.
    pub free_bytes: u64,
    /// Segments that wait to be archived.
    pub waiting: u64,
    /// What becomes of it.
    pub trend: Trend,
    /// How long the room would last at the rate of the last day, if nothing were archived from now on; none where nobody knows it.
    pub lasts: Option<Duration>,
}

/// What becomes of the room for WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// Segments are archived as they come.
    Steady,
    /// Many wait, and more are archived than come.
    CatchesUp,
    /// Many wait, and it was seen for too short whether more come or go.
    Unknown,
    /// Archiving does not keep up.
    Fills {
        /// Bytes an hour; 0 where no segment was seen to come.
        bytes_per_hour: u64,
        /// Until it is full, if that goes on.
        full_in: Option<Duration>,
    },
}

impl Trend {
    /// Its word in `/status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "not-growing",
            Self::CatchesUp => "catching-up",
            Self::Unknown => "unknown",
            Self::Fills { .. } => "growing",
        }
    }
}

impl WalVolume {
    /// When it is full; none where it does not fill, or nobody knows how fast.
    #[must_use]
    pub const fn full_in(&self) -> Option<Duration> {
        match self.trend {
            Trend::Fills { full_in, .. } => full_in,
            Trend::Steady | Trend::CatchesUp | Trend::Unknown => None,
        }
    }
}

/// Looks at the directory. `day` is how much WAL came in an hour of the last day, as far as the archive shows it. May block.
///
/// # Errors
/// When the directory cannot be read, or the system does not say how much is free.
pub fn look(wal: &WalDirectory, day: Option<u64>, now: DateTime<Utc>) -> Result<WalVolume> {
    let failed = |error| OpError::from_cluster(error, "look at the WAL directory");
    let free = wal.free_bytes().map_err(failed)?;
    let queue = wal.queue(now - OF_LATE).map_err(failed)?;
    Ok(judge(free, &queue, day, now))
}

fn judge(free: u64, queue: &WalQueue, day: Option<u64>, now: DateTime<Utc>) -> WalVolume {
    WalVolume {
        free_bytes: free,
        waiting: queue.waiting,
        trend: trend(free, queue, day.unwrap_or(0), now),
        lasts: lasts(free, day.unwrap_or(0)),
    }
}

fn trend(free: u64, queue: &WalQueue, day: u64, now: DateTime<Utc>) -> Trend {
    let Some(waits) = queue.oldest.map(|oldest| now - oldest) else {
        return Trend::Steady;
    };
    if waits < WAITS_TOO_LONG {
        return Trend::Steady;
    }
    let size = queue.segment_bytes.unwrap_or(0);
    let per_hour = |segments: u64, within: TimeDelta| {
        let seconds = within.num_seconds().max(1).cast_unsigned();
        segments.saturating_mul(size).saturating_mul(3600) / seconds
    };
    let rate = |flow: Flow| per_hour(flow.segments, now - flow.from);
    let is_new = |at: DateTime<Utc>, age| now - at < age;
    let bytes_per_hour = match queue.archived {
        // Archiving goes on.
        Some(gone) if is_new(gone.last, WAITS_TOO_LONG) => {
            let goes = rate(gone);
            let comes = queue.completed.map_or(0, rate);
            if is_new(gone.from, SEEN_LEAST) {
                return Trend::Unknown;
            }
            if goes >= comes {
                return Trend::CatchesUp;
            }
            comes - goes
        }
        None if queue.removed.is_some_and(|at| is_new(at, SEEN_LEAST)) => return Trend::Unknown,
        // What came since nothing goes. Where that is little, of a quiet hour, the day's rate is the careful one.
        _ => per_hour(queue.waiting, waits).max(day),
    };
    Trend::Fills {
        bytes_per_hour,
        full_in: lasts(free, bytes_per_hour),
    }
}

/// How long so many bytes last.
fn lasts(free: u64, bytes_per_hour: u64) -> Option<Duration> {
    let seconds = u128::from(free) * 3600 / u128::from(bytes_per_hour.max(1));
    (bytes_per_hour > 0).then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    fn ago(minutes: i64) -> DateTime<Utc> {
        now() - TimeDelta::minutes(minutes)
    }

    fn flow(segments: u64, from: i64, last: i64) -> Flow {
        Flow {
            segments,
            from: ago(from),
            last: ago(last),
        }
    }

    /// So many wait, the oldest since so many minutes; and so many came and went in ten.
    fn queue(waiting: u64, minutes: i64, completed: u64, archived: u64) -> WalQueue {
        let of_ten = |segments| (segments > 0).then(|| flow(segments, 10, 0));
        WalQueue {
            waiting,
            oldest: (waiting > 0).then(|| ago(minutes)),
            segment_bytes: Some(16 * MIB),
            completed: of_ten(completed),
            archived: of_ten(archived),
            removed: None,
        }
    }

    #[test]
    fn a_volume_fills_only_where_archiving_does_not_keep_up() {
        let now = now();
        let after_a_checkpoint = |archived| WalQueue {
            archived,
            ..queue(500, 600, 10, 0)
        };
        let fills = |mib: u64, minutes: u64| Trend::Fills {
            bytes_per_hour: mib * MIB,
            full_in: Some(Duration::from_secs(minutes * 60)),
        };
        let free = 960 * MIB;
        for (queue, day, expected) in [
            // Nothing waits; a few do, for a moment.
            (queue(0, 0, 9, 9), Some(MIB), Trend::Steady),
            (queue(3, 4, 9, 6), Some(MIB), Trend::Steady),
            // Nothing goes for an hour: 60 segments an hour, and 960 MiB are 60 segments.
            (queue(60, 60, 10, 0), Some(MIB), fills(960, 60)),
            // The hour was quiet; the day was not.
            (queue(1, 60, 0, 0), Some(480 * MIB), fills(480, 120)),
            // More go than come; fewer; and as many, which is no way out either, but no way in.
            (queue(500, 600, 10, 60), None, Trend::CatchesUp),
            (queue(500, 600, 20, 10), None, fills(960, 60)),
            (queue(500, 600, 10, 10), None, Trend::CatchesUp),
            // A checkpoint took away what had gone: of two minutes four are left, of a moment one, and none.
            (
                after_a_checkpoint(Some(flow(4, 2, 0))),
                None,
                Trend::CatchesUp,
            ),
            (
                after_a_checkpoint(Some(flow(1, 0, 0))),
                None,
                Trend::Unknown,
            ),
            (
                WalQueue {
                    removed: Some(ago(0)),
                    ..after_a_checkpoint(None)
                },
                None,
                Trend::Unknown,
            ),
            // What went before it stopped helps nobody.
            (
                WalQueue {
                    archived: Some(flow(40, 10, 5)),
                    ..queue(5, 5, 5, 0)
                },
                None,
                fills(960, 60),
            ),
        ] {
            let found = judge(free, &queue, day, now);
            assert_eq!(found.trend, expected, "{queue:?} {day:?}");
        }
        let unknown = WalQueue {
            segment_bytes: None,
            ..queue(1, 60, 0, 0)
        };
        let found = judge(free, &unknown, None, now);
        assert_eq!((found.full_in(), found.trend.name()), (None, "growing"));
        assert_eq!(found.lasts, None);
        let steady = judge(free, &queue(0, 0, 0, 0), Some(480 * MIB), now);
        assert_eq!(steady.lasts, Some(Duration::from_hours(2)));
        assert_eq!(steady.full_in(), None);
    }
}
