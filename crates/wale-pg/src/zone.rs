//! Zones of the time zone database: which offset holds when.
//!
//! The rules lie in `zones.bin`, 300 KB that are read where a zone is asked for and stay on the disk otherwise. chrono-tz
//! has the same as 30,000 structures with addresses in them: in a position-independent program each process writes all
//! of them anew before `main`, 1.2 MB of memory and a third of a client's start. `cargo run -p xtask -- zones` makes the
//! file out of chrono-tz, and a test holds both to the same answers.
//!
//! ```text
//! count       u16
//! directory   count times, in order of the names: length u8, name, where its spans begin in the file u32
//! spans       how many changes there are, the first offset; then for each change: seconds since the one before
//!             (the first: since 1970), the offset from then on. All are LEB128, all but the first with the sign last (zigzag)
//! ```
//!
//! Numbers of the directory are little-endian; offsets are seconds east of Greenwich.

use std::fmt;

use chrono::{FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone};

static FILE: &[u8] = include_bytes!("zones.bin");

/// A zone of the time zone database.
///
/// ```
/// use chrono::{DateTime, Utc};
/// use wale_pg::Zone;
///
/// let summer: DateTime<Utc> = "2026-07-01T00:00:00Z".parse().unwrap();
/// let local = summer.with_timezone(&Zone::named("Europe/Berlin").unwrap());
/// assert_eq!(local.to_rfc3339(), "2026-07-01T02:00:00+02:00");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Zone {
    name: &'static str,
    spans: &'static [u8],
}

/// The offset that holds in a zone at some moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ZoneOffset {
    zone: Zone,
    offset: FixedOffset,
}

impl Zone {
    /// Greenwich, without summer time: no change, offset 0.
    pub const UTC: Self = Self {
        name: "UTC",
        spans: &[0, 0],
    };

    /// The zone of exactly that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|zone| zone.name == name)
    }

    /// The zone of that name in upper or lower case, as PostgreSQL looks for it.
    pub fn named_in_any_case(name: &str) -> Option<Self> {
        Self::all().find(|zone| zone.name.eq_ignore_ascii_case(name))
    }

    /// Every zone, in order of the names.
    pub fn all() -> impl Iterator<Item = Self> {
        let mut directory = Table(FILE);
        let count = u16::from_le_bytes(directory.array());
        (0..count).map(move |_| {
            let [length] = directory.array();
            let name = directory.take(usize::from(length));
            let begin = u32::from_le_bytes(directory.array()) as usize;
            Self {
                name: std::str::from_utf8(name).expect("names of zones are ASCII"),
                spans: &FILE[begin..],
            }
        })
    }

    /// Its name, as in `Europe/Berlin`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// When each offset began, seconds since 1970, and which it is. The first holds since ever, the last for ever.
    fn spans(&self) -> impl Iterator<Item = (i64, i32)> {
        let mut rest = Table(self.spans);
        let changes = rest.number();
        let mut begin = i64::MIN;
        (0..=changes).map(move |change| {
            begin = match change {
                0 => i64::MIN,
                1 => rest.signed(),
                _ => begin + rest.signed(),
            };
            let offset = i32::try_from(rest.signed()).expect("an offset is less than a day");
            (begin, offset)
        })
    }

    fn with(self, seconds: i32) -> ZoneOffset {
        let offset = FixedOffset::east_opt(seconds).expect("an offset is less than a day");
        ZoneOffset { zone: self, offset }
    }
}

/// What is left of the file to read. It is ours, and every zone of it is read in the tests.
struct Table(&'static [u8]);

impl Table {
    fn take(&mut self, count: usize) -> &'static [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.take(N);
        taken.try_into().expect("it is as long as was asked for")
    }

    fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array();
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    fn signed(&mut self) -> i64 {
        let number = self.number();
        (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for ZoneOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ZoneOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.offset.fmt(f)
    }
}

impl Offset for ZoneOffset {
    fn fix(&self) -> FixedOffset {
        self.offset
    }
}

impl TimeZone for Zone {
    type Offset = ZoneOffset;

    fn from_offset(offset: &ZoneOffset) -> Self {
        offset.zone
    }

    fn offset_from_local_date(&self, local: &NaiveDate) -> LocalResult<ZoneOffset> {
        self.offset_from_local_datetime(&local.and_time(NaiveTime::MIN))
    }

    /// An hour that comes twice has two offsets, the earlier one first; one that is skipped has none.
    fn offset_from_local_datetime(&self, local: &NaiveDateTime) -> LocalResult<ZoneOffset> {
        let local = local.and_utc().timestamp();
        let mut found = LocalResult::None;
        let mut spans = self.spans().peekable();
        while let Some((begin, offset)) = spans.next() {
            // In local time of this offset: what was before it began, and what comes after it has ended, is not of it.
            let moment = local - i64::from(offset);
            let ended = spans.peek().is_some_and(|(next, _)| moment >= *next);
            if moment < begin || ended {
                continue;
            }
            match found {
                LocalResult::None => found = LocalResult::Single(self.with(offset)),
                LocalResult::Single(first) => {
                    return LocalResult::Ambiguous(first, self.with(offset));
                }
                LocalResult::Ambiguous(..) => break,
            }
        }
        found
    }

    fn offset_from_utc_date(&self, utc: &NaiveDate) -> ZoneOffset {
        self.offset_from_utc_datetime(&utc.and_time(NaiveTime::MIN))
    }

    fn offset_from_utc_datetime(&self, utc: &NaiveDateTime) -> ZoneOffset {
        let moment = utc.and_utc().timestamp();
        let begun = self.spans().take_while(|(begin, _)| *begin <= moment);
        let (_, offset) = begun.last().expect("the first span holds since ever");
        self.with(offset)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn local(seconds: i64) -> NaiveDateTime {
        DateTime::from_timestamp(seconds, 0).unwrap().naive_utc()
    }

    /// The same as numbers.
    fn numbers<O: Offset>(found: &LocalResult<O>) -> Vec<i32> {
        let seconds = |offset: &O| offset.fix().local_minus_utc();
        match found {
            LocalResult::None => Vec::new(),
            LocalResult::Single(one) => vec![seconds(one)],
            LocalResult::Ambiguous(first, second) => vec![seconds(first), seconds(second)],
        }
    }

    fn pairs() -> Vec<(Zone, chrono_tz::Tz)> {
        let theirs = chrono_tz::TZ_VARIANTS.into_iter();
        let pairs: Vec<_> = theirs
            .map(|theirs| (Zone::named(theirs.name()).unwrap(), theirs))
            .collect();
        assert_eq!(pairs.len(), Zone::all().count());
        pairs
    }

    /// Where this fails after an update of chrono-tz: `cargo run -p xtask -- zones`.
    #[test]
    fn every_zone_has_the_offsets_of_chrono_tz_in_four_centuries() {
        for (zone, theirs) in pairs() {
            let mut spans = zone.spans().peekable();
            let mut offset = 0;
            let first = local(-5_400_000_000).and_utc(); // In 1798.
            for days in (0..150_000).step_by(3) {
                let at = first + TimeDelta::days(days);
                while let Some(span) = spans.next_if(|(begin, _)| *begin <= at.timestamp()) {
                    offset = span.1;
                }
                let told = theirs.offset_from_utc_datetime(&at.naive_utc());
                assert_eq!(told.fix().local_minus_utc(), offset, "{zone:?} at {at}");
            }
        }
    }

    #[test]
    fn around_every_change_both_directions_are_those_of_chrono_tz() {
        let mut changes = 0;
        for (zone, theirs) in pairs() {
            let spans: Vec<_> = zone.spans().collect();
            for pair in spans.windows(2) {
                let ((_, before), (begin, after)) = (pair[0], pair[1]);
                changes += 1;
                for second in -1..=1 {
                    let at = local(begin + second);
                    let told = theirs.offset_from_utc_datetime(&at).fix();
                    assert_eq!(
                        zone.offset_from_utc_datetime(&at).fix(),
                        told,
                        "{zone:?} at {at}"
                    );
                    for offset in [before, after, i32::midpoint(before, after)] {
                        let at = local(begin + second + i64::from(offset));
                        let told = numbers(&theirs.offset_from_local_datetime(&at));
                        let ours = numbers(&zone.offset_from_local_datetime(&at));
                        assert_eq!(ours, told, "{zone:?} at {at} there");
                    }
                }
            }
        }
        assert!(changes > 20_000, "{changes} changes are too few");
    }

    #[test]
    fn names_are_found_as_they_are_asked_for() {
        assert_eq!(Zone::named("UTC").unwrap().name(), Zone::UTC.name());
        assert!(Zone::named("utc").is_none());
        assert!(Zone::named("").is_none());
        let berlin = Zone::named_in_any_case("europe/BERLIN").unwrap();
        assert_eq!(berlin, Zone::named("Europe/Berlin").unwrap());
        assert!(Zone::named_in_any_case("Mars/Base").is_none());
        let names: Vec<_> = Zone::all().map(|zone| zone.name()).collect();
        assert!(names.is_sorted());
    }
}
