//! Looking along the WAL of an archive: how far it carries a recovery, and whether a gap is one.

use chrono::{DateTime, Utc};
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{ArchiveFileName, WalSegmentName, WalSegmentSize};

use crate::error::{Kind, OpError, Result};
use crate::lineage::{Gap, Leg, Walk, beyond_the_log};
use crate::listing::each_wal;
use crate::{Archive, Witness};

/// How often the log is listed anew because the listing lacked what the store has.
const LOOKS: usize = 3;

/// What the listing has of a leg, as far as its names show that a restore of ours reads it. What is encrypted has the name
/// of what is not: [`carried`] opens some.
async fn walk(archive: &Archive, leg: Leg, size: WalSegmentSize) -> Result<Walk> {
    let mut walk = Walk::new(leg, size);
    let prefix = prefix(leg, size)?;
    // The objects of one segment are neighbours; one that can be read is enough.
    let mut current: Option<(WalSegmentName, bool)> = None;
    let mut is_enough = false;
    let mut settle = |seen: Option<(WalSegmentName, bool)>| match seen {
        Some((segment, true)) => walk.see(segment),
        Some((segment, false)) => walk.see_unreadable(segment),
        None => false,
    };
    each_wal(archive, &prefix, |listed, meta| {
        let ArchiveFileName::Segment(segment) = listed else {
            return false;
        };
        let can_read = is_known(meta.key.as_str());
        match &mut current {
            Some((one, readable)) if *one == segment => {
                *readable |= can_read;
                false
            }
            _ => {
                is_enough = settle(current.replace((segment, can_read)));
                is_enough
            }
        }
    })
    .await?;
    if !is_enough {
        settle(current);
    }
    Ok(walk)
}

/// Whether an object has the extension of a codec.
fn is_known(key: &str) -> bool {
    matches!(layout::parse(key), ArchiveKey::Wal { .. })
}

/// Why a recovery does not get past a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The archive does not have it. Where no later one of the way is there, either, something else shows that it was
    /// written.
    Missing(Option<Witness>),
    /// It is there, but under an extension that is no codec's, or encrypted: an object's key in the archive.
    Unreadable(String),
}

/// How far the archive carries a recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The last segment before anything is missing; `None` where the first one is.
    pub until: Option<WalSegmentName>,
    /// The first segments that no restore of ours can have; `None` where the log ends at `until`.
    pub lack: Option<(Gap, Lack)>,
}

/// How far the archive carries a recovery along legs that follow each other. A gap that the listing shows is confirmed by
/// name. A key does not show in a listing, so what seems whole is opened at its beginning and its end: a tool encrypts
/// everything from one day to another.
///
/// # Errors
///
/// The store's, and those of a later history that cannot be read; [`Kind::StorageUnavailable`] when the listing keeps
/// lacking what the store has.
pub async fn carried(archive: &Archive, legs: &[Leg], size: WalSegmentSize) -> Result<Carried> {
    let mut carried = Carried::default();
    for &leg in legs {
        let found = along(archive, leg, size).await?;
        carried.until = found.until.or(carried.until);
        if found.lack.is_some() {
            carried.lack = found.lack;
            break;
        }
    }
    Ok(carried)
}

/// What the archive has of a way, counted by its listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// How many segments are there.
    pub segments: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// The last one, and since when the store has it.
    pub last: Option<(WalSegmentName, DateTime<Utc>)>,
}

/// Counts what the archive has of legs that follow each other, up to the segment number `end`, which does not count any more.
///
/// # Errors
///
/// The store's.
pub async fn measured(
    archive: &Archive,
    legs: &[Leg],
    size: WalSegmentSize,
    end: Option<u64>,
) -> Result<Measured> {
    let mut measured = Measured::default();
    for leg in legs {
        let end = match (leg.end, end) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if end.is_some_and(|end| end <= leg.first) {
            continue;
        }
        let prefix = prefix(Leg { end, ..*leg }, size)?;
        each_wal(archive, &prefix, |listed, meta| {
            let ArchiveFileName::Segment(segment) = listed else {
                return false;
            };
            let Ok(number) = segment.number(size) else {
                return false;
            };
            let is_of_leg = segment.timeline() == leg.timeline
                && number >= leg.first
                && end.is_none_or(|end| number < end);
            // One that is there under two codecs counts once.
            let is_new = measured.last.is_none_or(|(last, _)| last != segment);
            if is_of_leg && is_new {
                measured.segments += 1;
                measured.bytes = measured.bytes.saturating_add(meta.size);
                measured.last = Some((segment, meta.modified));
            }
            end.is_some_and(|end| number >= end)
        })
        .await?;
    }
    Ok(measured)
}

async fn along(archive: &Archive, leg: Leg, size: WalSegmentSize) -> Result<Carried> {
    let name = |number| leg.segment(number, size);
    let (mut rest, mut until) = (leg, None);
    let mut gap = None;
    for _ in 0..LOOKS {
        let walk = walk(archive, rest, size).await?;
        until = walk.reached()?.or(until);
        gap = walk.gap()?;
        let doubtful = match (gap, until) {
            (Some(gap), _) => gap.from,
            (None, _) if leg.end.is_some() => break,
            (None, Some(until)) => until.next(size).map_err(beyond_the_log)?,
            (None, None) => name(leg.first)?,
        };
        let doubt = match gap {
            Some(gap) => lack(archive, gap.from).await?,
            None => at_the_end(archive, doubtful, size).await?,
        };
        match doubt {
            Doubt::Unwritten => break,
            Doubt::There => {}
            Doubt::Lacking(lack) => {
                let gap = gap.unwrap_or(Gap::of(doubtful));
                let lack = Some((gap, lack));
                return Ok(Carried { until, lack });
            }
        }
        // It was archived meanwhile, or the listing is behind: it counts as seen.
        until = Some(doubtful);
        rest.first = doubtful.number(size).map_err(beyond_the_log)? + 1;
        if rest.end == Some(rest.first) {
            gap = None;
            break;
        }
    }
    if gap.is_some() {
        return Err(OpError::new(
            Kind::StorageUnavailable,
            format!(
                "the listing of timeline {} lacks segments that the store has",
                leg.timeline
            ),
        )
        .hint("ask again; if this persists, check the store"));
    }
    let Some(last) = until else {
        return Ok(Carried::default());
    };
    let first = name(leg.first)?;
    for segment in [first, last] {
        if let Some(key) = archive.unreadable_under(&segment.into()).await? {
            let number = segment.number(size).map_err(beyond_the_log)?;
            let before = (number > leg.first).then(|| name(number - 1));
            return Ok(Carried {
                until: before.transpose()?,
                lack: Some((Gap::of(segment), Lack::Unreadable(key))),
            });
        }
        if first == last {
            break;
        }
    }
    Ok(Carried { until, lack: None })
}

/// What is the matter with a segment that a listing does not show.
enum Doubt {
    /// Nothing shows that it was written: the log ends before it.
    Unwritten,
    /// It is there: a listing alone proves nothing.
    There,
    /// It cannot be had.
    Lacking(Lack),
}

/// Whether a segment can be had.
async fn lack(archive: &Archive, segment: WalSegmentName) -> Result<Doubt> {
    Ok(match archive.find_wal(&segment.into()).await? {
        Some(_) => Doubt::There,
        None => Doubt::Lacking(Lack::Missing(None)),
    })
}

/// The same of the segment after the last one: as a proof of absence would have it.
async fn at_the_end(
    archive: &Archive,
    segment: WalSegmentName,
    size: WalSegmentSize,
) -> Result<Doubt> {
    let Some(witness) = archive.evidence_of(segment, Some(size)).await?.witness else {
        return Ok(Doubt::Unwritten);
    };
    Ok(match lack(archive, segment).await? {
        Doubt::Lacking(Lack::Missing(_)) => Doubt::Lacking(Lack::Missing(Some(witness))),
        other => other,
    })
}

/// What all names of a leg begin with: an archive of years is not listed for the few segments of a backup.
fn prefix(leg: Leg, size: WalSegmentSize) -> Result<String> {
    let Some(end) = leg.end else {
        return Ok(leg.timeline.to_hex());
    };
    let name = |number| leg.segment(number, size);
    let (mut first, last) = (name(leg.first)?.to_string(), name(end - 1)?.to_string());
    let common = first
        .bytes()
        .zip(last.bytes())
        .take_while(|(one, other)| one == other);
    let length = common.count();
    first.truncate(length);
    Ok(first)
}

#[cfg(test)]
mod tests {
    use wale_format::Codec;
    use wale_pg::TimelineId;

    use super::*;
    use crate::testing::Bench;

    #[tokio::test]
    async fn a_way_is_counted_up_to_where_it_ends() {
        let bench = Bench::new();
        let name = |timeline: u32, number: u32| format!("{timeline:08X}00000000{number:08X}");
        for (timeline, number) in [(1, 1), (1, 2), (1, 3), (1, 9), (2, 3), (2, 4)] {
            bench.store_wal(&name(timeline, number), Codec::Zstd, b"x");
        }
        // Twice there, once counted.
        bench.store_wal(&name(2, 4), Codec::Lz4, b"xyz");
        let size = WalSegmentSize::new(1 << 20).unwrap();
        let leg = |timeline, first, end| Leg {
            timeline: TimelineId::new(timeline).unwrap(),
            first,
            end,
        };
        let way = [leg(1, 2, Some(3)), leg(2, 3, None)];
        let counted = async |end| {
            let measured = measured(&bench.archive, &way, size, end).await.unwrap();
            let last = measured.last.map(|(last, _)| last.to_string());
            (measured.segments, last)
        };
        assert_eq!(counted(None).await, (3, Some(name(2, 4))));
        assert_eq!(counted(Some(4)).await, (2, Some(name(2, 3))));
        assert_eq!(counted(Some(2)).await, (0, None));
    }

    #[test]
    fn a_leg_is_listed_by_what_its_names_have_in_common() {
        let size = WalSegmentSize::DEFAULT;
        let cases = [
            (2, Some(3), "000000010000000000000002"),
            (2, Some(0x10), "00000001000000000000000"),
            (2, Some(0x11), "0000000100000000000000"),
            (0xFE, Some(0x101), "000000010000000"),
            (2, None, "00000001"),
        ];
        for (first, end, expected) in cases {
            let timeline = TimelineId::FIRST;
            let leg = Leg {
                timeline,
                first,
                end,
            };
            assert_eq!(prefix(leg, size).unwrap(), expected, "{leg:?}");
        }
    }
}
