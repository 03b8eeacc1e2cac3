//! How much the archive grew of late, by the sizes and times of what is there. Pure: it is told of one object after the other.
//!
//! What was deleted meanwhile shows nowhere, and is not counted: this is what came and is still there.

use chrono::{DateTime, TimeDelta, Utc};
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{ArchiveFileName, WalSegmentName, WalSegmentSize};

const DAY: TimeDelta = TimeDelta::days(1);
const WEEK: TimeDelta = TimeDelta::days(7);

/// What came of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Bytes that were stored within the last day, and are there.
    pub last_day: u64,
    /// The same of the last seven days.
    pub last_week: u64,
    /// Bytes of WAL that the server wrote in an hour, on average since the last segment that is older than a day: what came after an
    /// outage was written since then. Its segments, not their compressed objects. None where no segment came, or where all came within the
    /// day: it may be a copy of years.
    pub wal_bytes_per_hour: Option<u64>,
}

/// Counts.
pub(super) struct Arrivals {
    now: DateTime<Utc>,
    size: WalSegmentSize,
    last_day: u64,
    last_week: u64,
    /// When the newest segment of before the last day was stored.
    before: Option<DateTime<Utc>>,
    segments: u64,
    last_segment: Option<WalSegmentName>,
}

impl Arrivals {
    pub(super) const fn new(size: WalSegmentSize, now: DateTime<Utc>) -> Self {
        Self {
            now,
            size,
            last_day: 0,
            last_week: 0,
            before: None,
            segments: 0,
            last_segment: None,
        }
    }

    /// The next object of the listing.
    pub(super) fn see(&mut self, key: &str, bytes: u64, stored: DateTime<Utc>) {
        let age = self.now - stored;
        if age <= WEEK {
            self.last_week += bytes;
        }
        if age <= DAY {
            self.last_day += bytes;
        }
        let ArchiveKey::Wal { name, .. } = layout::parse(key) else {
            return;
        };
        let ArchiveFileName::Segment(segment) = name else {
            return;
        };
        if age > DAY {
            self.before = self.before.max(Some(stored));
        } else if self.last_segment.replace(segment) != Some(segment) {
            // Under two codecs it stands twice, one after the other.
            self.segments += 1;
        }
    }

    pub(super) fn growth(&self) -> Growth {
        let rate = self.before.map(|before| {
            let written = self.segments.saturating_mul(self.size.bytes());
            let since = (self.now - before).num_seconds().max(1).cast_unsigned();
            written.saturating_mul(3600) / since
        });
        Growth {
            last_day: self.last_day,
            last_week: self.last_week,
            wal_bytes_per_hour: rate.filter(|rate| *rate > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn wal(number: u32, codec: &str) -> String {
        format!("wal_005/0000000100000000{number:08X}.{codec}")
    }

    #[test]
    fn what_came_in_a_day_and_in_a_week_is_counted_by_its_time() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let size = WalSegmentSize::new(16 * MIB).expect("a size");
        let mut arrived = Arrivals::new(size, now);
        let hours = |hours| now - TimeDelta::hours(hours);
        arrived.see("basebackups_005/x", 1000, hours(24 * 8));
        arrived.see("basebackups_005/y", 100, hours(24 * 6));
        arrived.see(&wal(0, "zst"), 10, hours(90));
        arrived.see(&wal(1, "zst"), 10, hours(48));
        for (number, codec) in [(2, "lz4"), (2, "zst"), (3, "zst"), (4, "zst")] {
            arrived.see(&wal(number, codec), 1, hours(3));
        }
        // The store's clock is ahead.
        arrived.see("wal_005/00000002.history.zst", 1, hours(-1));
        assert_eq!(
            arrived.growth(),
            Growth {
                last_day: 5,
                last_week: 125,
                // Three segments in 48 hours, of which the archive was away for most.
                wal_bytes_per_hour: Some(MIB),
            }
        );
    }

    /// Nobody knows how long it took to write what a copy of an archive brought within an hour.
    #[test]
    fn where_all_came_within_the_day_the_rate_is_not_known() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let size = WalSegmentSize::new(16 * MIB).expect("a size");
        let mut arrived = Arrivals::new(size, now);
        for number in 2..2000 {
            arrived.see(&wal(number, "zst"), 1, now - TimeDelta::hours(1));
        }
        let growth = arrived.growth();
        assert_eq!((growth.last_day, growth.wal_bytes_per_hour), (1998, None));
        let nothing = Arrivals::new(size, now).growth();
        assert_eq!(nothing, Growth::default());
    }
}
