//! What is known, before the first write, of the WAL that a recovery will read: which segments, whether they are there, and
//! whether they lead to the target. Reads the archive's listing, and the end of its last segments for the newest
//! transactions.

use std::io::Read;

use chrono::{DateTime, SecondsFormat, SubsecRound as _, Utc};
use wale_archive::Archive;
use wale_archive::lineage::{Leg, legs};
use wale_archive::walk::{Lack, measured};
use wale_cluster::recovery;
use wale_pg::{ArchiveFileName, ParameterScan, RecoveryTargetKind, WalSegmentName, WalSegmentSize};

use super::raised::fill;
use super::source::Source;
use super::wal::{self, WalFindings};
use super::way::Judged;
use crate::backup_content::WORKER_BYTES;
use crate::error::Result;

/// Segments that are searched for the newest commit, from the last one on back. A quiet server archives segments without one.
const SEARCHED_MAX: u64 = 4;

/// The WAL of a recovery, as far as the archive shows it.
#[derive(Debug, Clone)]
pub struct PlannedWal {
    /// The segment with which recovery begins.
    pub first: WalSegmentName,
    /// The last one on the way, up to the target where its place is known; `None` where even the first is missing.
    pub last: Option<WalSegmentName>,
    /// How many there are.
    pub segments: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// Since when the store has the last one.
    pub stored_at: Option<DateTime<Utc>>,
    /// When the newest commit in them was made. Looked for where recovery ends at a time or with the archive.
    pub newest_commit: Option<DateTime<Utc>>,
    /// When the newest transaction in them ended, by a commit or a rollback: recovery to an earlier time ends there at the latest.
    pub newest_end: Option<DateTime<Utc>>,
    /// What is missing on the way.
    pub gap: Option<PlannedGap>,
    /// Whether the target is reached.
    pub reach: Reach,
}

/// Segments that no restore can have, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedGap {
    /// The first one.
    pub from: WalSegmentName,
    /// The last one.
    pub to: WalSegmentName,
    /// How many they are.
    pub segments: u64,
    /// What is the matter with them, as a sentence.
    pub why: String,
}

/// Whether a recovery comes to its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The archive has the WAL up to it.
    Reached,
    /// Only the server finds out, for this reason.
    NotKnown(String),
    /// The archive ends before it, as this sentence says.
    NotReached(String),
}

/// What decides whether the target is reached.
#[derive(Debug, Clone, Copy)]
struct ReachFacts<'a> {
    /// The last segment that the archive carries the recovery to.
    until: Option<WalSegmentName>,
    size: WalSegmentSize,
    /// When the newest transaction ended: a server stops at a rollback, too.
    newest_end: Option<DateTime<Utc>>,
    stored_at: Option<DateTime<Utc>>,
    gap: Option<&'a PlannedGap>,
}

/// Looks at the WAL that leads from `source` along the judged way to the target.
///
/// # Errors
///
/// The store's.
pub(super) async fn look(
    archive: &Archive,
    source: &Source,
    judged: &Judged,
    looked: &WalFindings,
    target: &RecoveryTargetKind,
) -> Result<PlannedWal> {
    let size = source.segment_size(archive).await?;
    let first = source.name.segment();
    let way = legs(first, judged.followed(source), size)?;
    let gap = looked.carried.lack.as_ref().map(|(gap, lack)| PlannedGap {
        from: gap.from,
        to: gap.to,
        segments: gap.segments(size).unwrap_or(1),
        why: wal::shown(*gap, lack),
    });
    let ends = judged.until(target).map(|lsn| size.segment_number(lsn) + 1);
    let missing = looked.carried.lack.as_ref();
    let missing = missing.and_then(|(gap, _): &(_, Lack)| gap.from.number(size).ok());
    let end = match (ends, missing) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let there = measured(archive, &way, size, end).await?;
    let wants_commit = matches!(
        target,
        RecoveryTargetKind::Time(_) | RecoveryTargetKind::Latest
    );
    let (last, stored_at) = there.last.unzip();
    let newest = match last {
        Some(last) if wants_commit => newest(archive, &way, last, size).await,
        _ => Newest::default(),
    };
    let facts = ReachFacts {
        until: looked.carried.until,
        size,
        newest_end: newest.end,
        stored_at,
        gap: gap.as_ref(),
    };
    let reach = reach(target, &facts);
    Ok(PlannedWal {
        first,
        last,
        segments: there.segments,
        bytes: there.bytes,
        stored_at,
        newest_commit: newest.commit,
        newest_end: newest.end,
        gap,
        reach,
    })
}

/// Whether the target is reached. Pure.
fn reach(target: &RecoveryTargetKind, facts: &ReachFacts<'_>) -> Reach {
    match target {
        RecoveryTargetKind::Latest => match facts.gap {
            Some(gap) => Reach::NotReached(gap.why.clone()),
            None => Reach::Reached,
        },
        RecoveryTargetKind::Immediate => Reach::Reached,
        RecoveryTargetKind::Name(_) => Reach::NotKnown(
            "only the server finds a restore point, or its absence, at the end of the WAL"
                .to_owned(),
        ),
        RecoveryTargetKind::Xid(_) => Reach::NotKnown(
            "only the server finds a transaction, or its absence, at the end of the WAL".to_owned(),
        ),
        RecoveryTargetKind::Lsn(lsn) => {
            let wanted = facts.size.segment_number(*lsn);
            match facts.until.and_then(|until| until.number(facts.size).ok()) {
                Some(until) if until > wanted => Reach::Reached,
                Some(until) if until == wanted => Reach::NotKnown(
                    "the position lies in the archive's last segment: whether the log goes so far only the server finds"
                        .to_owned(),
                ),
                _ => Reach::NotReached(ends_before(facts)),
            }
        }
        RecoveryTargetKind::Time(text) => match recovery::instant(text) {
            None => Reach::NotKnown("only the server knows when that is".to_owned()),
            Some(moment) => reach_time(moment, facts),
        },
    }
}

/// A server stops at the first commit or rollback after the time; without one it comes to the end of the log.
fn reach_time(moment: DateTime<Utc>, facts: &ReachFacts<'_>) -> Reach {
    match (facts.newest_end, facts.stored_at) {
        (Some(end), _) if end > moment => Reach::Reached,
        (Some(end), _) if end == moment => Reach::NotKnown(
            "the newest transaction ended at exactly that time: recovery stops there where the target is exclusive, otherwise it \
             wants a later one"
                .to_owned(),
        ),
        (Some(_), _) => Reach::NotReached(ends_before(facts)),
        // What the store had before the time was committed before it.
        (None, Some(stored)) if stored < moment => Reach::NotReached(ends_before(facts)),
        (None, _) => Reach::NotKnown(
            "no end of a transaction was found in the archive's last segments: whether one lies after the time only the server finds"
                .to_owned(),
        ),
    }
}

fn ends_before(facts: &ReachFacts<'_>) -> String {
    if let Some(gap) = facts.gap {
        return format!("{}, and the target lies after that", gap.why);
    }
    let ends = match facts.until {
        Some(until) => format!("the archive ends with segment {until}"),
        None => "the archive has no WAL of it".to_owned(),
    };
    match (facts.newest_end, facts.stored_at) {
        (Some(end), _) => format!("{ends}, whose newest transaction ended at {}", shown(end)),
        (None, Some(stored)) => format!("{ends}, stored at {}", shown(stored)),
        (None, None) => ends,
    }
}

/// A time as PostgreSQL takes it.
pub(super) fn shown(time: DateTime<Utc>) -> String {
    let text = time
        .trunc_subsecs(6)
        .to_rfc3339_opts(SecondsFormat::AutoSi, true);
    text.replace('T', " ").replace('Z', "+00")
}

/// When the newest transactions ended in the last segments of the way.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    commit: Option<DateTime<Utc>>,
    /// By a commit or a rollback.
    end: Option<DateTime<Utc>>,
}

/// Looks from the last segment on back, until a commit is found. What cannot be read says nothing: the plan goes on.
async fn newest(
    archive: &Archive,
    way: &[Leg],
    last: WalSegmentName,
    size: WalSegmentSize,
) -> Newest {
    let mut found = Newest::default();
    let Ok(last) = last.number(size) else {
        return found;
    };
    for back in 0..SEARCHED_MAX {
        let Some(number) = last.checked_sub(back) else {
            break;
        };
        let holds = |leg: &&Leg| leg.first <= number && leg.end.is_none_or(|end| number < end);
        let leg = way.iter().find(holds);
        let Some(Ok(segment)) = leg.map(|leg| leg.segment(number, size)) else {
            break;
        };
        match ends_in(archive, segment).await {
            Ok((commit, end)) => {
                found.commit = commit.and_then(DateTime::from_timestamp_micros);
                found.end = found.end.max(end.and_then(DateTime::from_timestamp_micros));
            }
            Err(error) => {
                tracing::debug!(%segment, "the newest commit is not looked for: {}", error.chain());
                break;
            }
        }
        if found.commit.is_some() {
            break;
        }
    }
    found
}

/// When the newest commit of a segment was made, and when its newest transaction ended.
async fn ends_in(archive: &Archive, segment: WalSegmentName) -> Result<(Option<i64>, Option<i64>)> {
    let Some(stored) = archive.find_wal(&ArchiveFileName::Segment(segment)).await? else {
        return Ok((None, None));
    };
    let _memory = archive.budget().acquire(WORKER_BYTES).await;
    let consume = move |plain: &mut dyn Read| {
        let mut scan = ParameterScan::default();
        let mut page = vec![0; ParameterScan::PAGE_SIZE];
        while fill(plain, &mut page)? {
            scan.page(&page);
        }
        Ok((scan.newest_commit_micros(), scan.newest_end_micros()))
    };
    archive.decode(&stored.key, stored.codec, consume).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_reached_beyond_the_archive_or_not_known() {
        let segment = |text| WalSegmentName::parse(text).unwrap();
        let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let until = segment("000000010000000000000005");
        let gap = PlannedGap {
            from: segment("000000010000000000000006"),
            to: segment("000000010000000000000006"),
            segments: 1,
            why: "segment 000000010000000000000006 is missing".to_owned(),
        };
        let facts = ReachFacts {
            until: Some(until),
            size: WalSegmentSize::DEFAULT,
            newest_end: Some(time("2026-03-01T12:00:00Z")),
            stored_at: Some(time("2026-03-01T12:05:00Z")),
            gap: None,
        };
        let told = |target: &RecoveryTargetKind, facts: &ReachFacts<'_>| match reach(target, facts)
        {
            Reach::Reached => "reached".to_owned(),
            Reach::NotKnown(why) => format!("unknown: {why}"),
            Reach::NotReached(why) => format!("beyond: {why}"),
        };
        let at = |text: &str| RecoveryTargetKind::Time(text.to_owned());
        let position = |text: &str| RecoveryTargetKind::Lsn(text.parse().unwrap());
        assert_eq!(told(&RecoveryTargetKind::Latest, &facts), "reached");
        assert_eq!(told(&at("2026-03-01 11:59:59+00"), &facts), "reached");
        // It stops there where the target is exclusive.
        assert!(told(&at("2026-03-01 12:00:00+00"), &facts).starts_with("unknown"));
        // Nothing after it would end the recovery there.
        let beyond = told(&at("2026-03-01 12:00:01+00"), &facts);
        assert!(
            beyond.starts_with("beyond: ") && beyond.contains("ended at 2026-03-01 12:00:00+00"),
            "{beyond}"
        );
        assert_eq!(told(&position("0/4FFFFFF"), &facts), "reached");
        assert!(told(&position("0/5000100"), &facts).starts_with("unknown"));
        assert!(told(&position("0/6000000"), &facts).starts_with("beyond"));
        assert!(told(&RecoveryTargetKind::Name("x".into()), &facts).starts_with("unknown"));
        let holed = ReachFacts {
            gap: Some(&gap),
            ..facts
        };
        assert!(told(&RecoveryTargetKind::Latest, &holed).starts_with("beyond"));
        assert!(
            told(&position("0/8000000"), &holed).contains("000000010000000000000006 is missing")
        );
        let silent = ReachFacts {
            newest_end: None,
            ..facts
        };
        assert!(told(&at("2026-03-01 12:06:00+00"), &silent).starts_with("beyond"));
        assert!(told(&at("2026-03-01 12:04:00+00"), &silent).starts_with("unknown"));
    }
}
