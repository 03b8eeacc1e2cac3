//! How far the archive carries a recovery from its newest base backup, the first gap on its way, and the first history that
//! it would miss. Reads only.
//!
//! The restore finds a gap that was not known before. It is closed by putting the segments back, or left behind by the
//! next base backup. The restore decides where the way leads, and what is a gap: this asks the same questions early.

mod growth;
mod map;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use wale_archive::lineage::{Gap, Histories, Leg};
use wale_archive::walk::{Carried, Lack};
use wale_archive::{
    Archive, BackupEntry, Catalog, CheckDepth, LostHistory, Rehearsals, Wanted, walk,
};
use wale_format::layout::{self, ArchiveKey};
use wale_format::{BackupName, Sentinel};
use wale_pg::{Lsn, RecoveryTargetTimeline, TimelineId, WalSegmentName, WalSegmentSize};

use crate::error::{Kind, OpError, Result};
use growth::Arrivals;
pub use growth::Growth;
use map::Collector;
pub use map::{TimelineHeld, WalRun, WindowLeg};

/// How far a recovery gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recoverable {
    /// The newest base backup that can be used.
    pub backup: BackupName,
    /// The segment with which its recovery begins.
    pub from: WalSegmentName,
    /// The last segment before anything is missing; `None` where the first one is missing.
    pub until: Option<WalSegmentName>,
    /// The first segments that are missing.
    pub gap: Option<Gap>,
    /// How many segments the gap has; 0 without one.
    pub missing: u64,
    /// An object that holds the first of them, which this version cannot read.
    pub unreadable: Option<String>,
    /// The first history of a later timeline that is missing: a recovery stops where it asks for it.
    pub lost_history: Option<LostHistory>,
}

/// Looks along the way from the newest usable base backup to the end of the newest timeline that grew out of it. `None`
/// while there is no such backup.
///
/// Costs a read of every sentinel, a listing of the timelines on the way, and a look-up and two listings for each timeline
/// that there might be.
///
/// # Errors
///
/// The store's. [`Kind::StorageUnavailable`] also when its listing keeps contradicting its look-ups.
pub async fn run(archive: &Archive) -> Result<Option<Recoverable>> {
    let catalog = archive.catalog().await?;
    // This looks for a gap in the backup's own WAL.
    let wanted = Wanted {
        look: CheckDepth::Record,
        ..Wanted::default()
    };
    let newest = match archive.latest(&catalog, &wanted).await {
        Ok(chosen) => Some(chosen.entry),
        Err(error) if error.kind == Kind::StorageUnavailable => return Err(error),
        // Nothing leads to the newest timeline: the way from the newest backup is all there is to check.
        Err(_) => None,
    };
    for entry in newest.iter().chain(catalog.backups.iter().rev()) {
        if let Some(sentinel) = entry.readable()
            && let Some(consistent_at) = archive.consistent_at(&entry.name, sentinel).await?
        {
            let latest = RecoveryTargetTimeline::Latest;
            let found = look(archive, &entry.name, sentinel, consistent_at, latest).await?;
            return Ok(found.map(|(stretch, _)| stretch));
        }
    }
    Ok(None)
}

/// Through which stretches of WAL the archive carries a recovery that begins with one of these backups: from the first of
/// them on to where something is missing, from the next one behind that on, and so forth.
///
/// Costs what [`run`] costs for each stretch.
///
/// # Errors
///
/// Those of [`run`].
pub async fn stretches(archive: &Archive, backups: &[BackupName]) -> Result<Vec<Recoverable>> {
    let catalog = archive.catalog().await?;
    // The catalog's order is that of their ends.
    let wanted = catalog
        .backups
        .iter()
        .filter(|entry| backups.contains(&entry.name));
    let found = stretches_to(archive, wanted, RecoveryTargetTimeline::Latest).await?;
    Ok(found.into_iter().map(|(stretch, _)| stretch).collect())
}

/// The same towards a timeline, and the way of each stretch. A backup that does not lead there has none.
async fn stretches_to<'a>(
    archive: &Archive,
    backups: impl Iterator<Item = &'a BackupEntry>,
    timeline: RecoveryTargetTimeline,
) -> Result<Vec<(Recoverable, Vec<Leg>)>> {
    let mut stretches: Vec<(Recoverable, Vec<Leg>)> = Vec::new();
    for entry in backups {
        let Some(sentinel) = entry.readable() else {
            continue;
        };
        let size = archive.segment_size_of(&entry.name, sentinel).await?;
        let start = entry.name.segment();
        let is_within = |(stretch, _): &(Recoverable, Vec<Leg>)| {
            let Some(until) = stretch.until else {
                return false;
            };
            let number = |segment: WalSegmentName| segment.number(size).ok();
            stretch.from.timeline() <= start.timeline()
                && start.timeline() <= until.timeline()
                && number(stretch.from) <= number(start)
                && number(start) <= number(until)
        };
        if stretches.iter().any(is_within) {
            continue;
        }
        if let Some(consistent_at) = archive.consistent_at(&entry.name, sentinel).await? {
            let found = look(archive, &entry.name, sentinel, consistent_at, timeline).await?;
            stretches.extend(found);
        }
    }
    Ok(stretches)
}

/// What the archive holds, and through which times it can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Base backups whose record can be read.
    pub backups: u64,
    /// The newest of them, and its end.
    pub newest_backup: Option<(BackupName, DateTime<Utc>)>,
    /// All objects.
    pub objects: u64,
    /// Their bytes, as they are stored.
    pub bytes: u64,
    /// What came of late.
    pub growth: Growth,
    /// From where to where a recovery gets without a gap, in the order of the backups that they begin with.
    pub windows: Vec<Window>,
    /// The same on timelines that were left, where they have WAL beyond: a recovery gets there when it is told the timeline.
    /// Of the last [`LEFT_MAX`] of them that have any.
    pub left: Vec<Window>,
    /// The WAL of each timeline.
    pub timelines: Vec<TimelineHeld>,
    /// The rehearsals whose records lie with the backups.
    pub rehearsals: Rehearsals,
}

/// Timelines that were left and are looked at: each costs what [`run`] costs, and what somebody wants back was left lately.
pub const LEFT_MAX: usize = 4;

/// A stretch of WAL, and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The stretch.
    pub stretch: Recoverable,
    /// The end of its base backup: the first moment that can be restored.
    pub from: DateTime<Utc>,
    /// When its last segment was stored, by the store's clock. Nothing of that segment is younger.
    pub until: Option<DateTime<Utc>>,
    /// Its moments on each timeline of its way.
    pub legs: Vec<WindowLeg>,
    /// The base backups from which a recovery gets to its moments.
    pub backups: Vec<BackupName>,
}

impl Holdings {
    /// The window that the newest backup lies in, or begins.
    #[must_use]
    pub fn current(&self) -> Option<&Window> {
        self.windows.last()
    }
}

/// Counts what there is, and follows the WAL from every base backup on.
///
/// Costs a listing of the whole archive, a read of every sentinel, of every history and of some records of rehearsals, what
/// [`stretches`] costs, and that again for up to [`LEFT_MAX`] timelines.
///
/// # Errors
///
/// Those of [`run`].
pub async fn holdings(archive: &Archive) -> Result<Holdings> {
    let catalog = archive.catalog().await?;
    let size = segment_size(archive, &catalog).await?;
    let mut map = Collector::new(size);
    let mut arrived = Arrivals::new(size, archive.clock().now());
    let failed = |e| OpError::from_store(e, "list the archive");
    let mut listing = archive.store().list("").await.map_err(failed)?;
    let (mut objects, mut bytes, mut rehearsed) = (0, 0, Vec::new());
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        objects += 1;
        bytes += meta.size;
        map.see(meta.key.as_str(), meta.modified);
        arrived.see(meta.key.as_str(), meta.size, meta.modified);
        if let ArchiveKey::Rehearsed(name) = layout::parse(meta.key.as_str()) {
            rehearsed.push((name, meta.modified));
        }
    }
    let readable = |entry: &&BackupEntry| entry.readable().is_some();
    let backups: Vec<&BackupEntry> = catalog.backups.iter().filter(readable).collect();
    let histories = all_histories(archive, &backups).await?;
    let timelines = map.timelines(&histories);
    let overview = Overview {
        archive,
        size,
        backups: &backups,
        timelines: &timelines,
    };
    let windows = overview.windows(RecoveryTargetTimeline::Latest).await?;
    let left = overview.left(&windows).await?;
    let end_of = |entry: &&BackupEntry| (entry.name.clone(), ended(entry));
    Ok(Holdings {
        backups: backups.len() as u64,
        newest_backup: backups.iter().map(end_of).max_by_key(|(_, end)| *end),
        objects,
        bytes,
        growth: arrived.growth(),
        windows,
        left,
        timelines,
        rehearsals: archive.rehearsals(rehearsed).await?,
    })
}

/// When a backup ended.
fn ended(entry: &BackupEntry) -> DateTime<Utc> {
    let recorded = entry.readable().and_then(Sentinel::stopped_at);
    recorded.unwrap_or(entry.time)
}

/// The size of the archive's segments; PostgreSQL's default where nobody recorded it.
async fn segment_size(archive: &Archive, catalog: &Catalog) -> Result<WalSegmentSize> {
    let backups = catalog.backups.iter();
    let mut readable = backups.filter_map(|entry| Some((&entry.name, entry.readable()?)));
    match readable.next() {
        Some((name, sentinel)) => archive.segment_size_of(name, sentinel).await,
        None => Ok(WalSegmentSize::DEFAULT),
    }
}

/// The histories from the oldest backup's own on.
async fn all_histories(archive: &Archive, backups: &[&BackupEntry]) -> Result<Histories> {
    let timelines = backups.iter().map(|entry| entry.name.segment().timeline());
    let Some(oldest) = timelines.min() else {
        return Ok(Histories::default());
    };
    let mut found = archive.later_histories(oldest).await?;
    // It only says where the oldest timeline came from: one that cannot be read hides nothing else.
    match archive.timeline_history(oldest).await {
        Ok(own) => own.into_iter().for_each(|own| found.insert(own)),
        Err(error) if error.kind.retryable() => return Err(error),
        Err(_) => found.insert_unreadable(oldest),
    }
    Ok(found)
}

/// What is known when the windows are told.
struct Overview<'a> {
    archive: &'a Archive,
    size: WalSegmentSize,
    backups: &'a [&'a BackupEntry],
    timelines: &'a [TimelineHeld],
}

impl Overview<'_> {
    /// The windows on the way to a timeline.
    async fn windows(&self, timeline: RecoveryTargetTimeline) -> Result<Vec<Window>> {
        let mut windows = Vec::new();
        let backups = self.backups.iter().copied();
        for (stretch, way) in stretches_to(self.archive, backups, timeline).await? {
            let of = |entry: &&&BackupEntry| entry.name == stretch.backup;
            let Some(from) = self.backups.iter().find(of).map(|entry| ended(entry)) else {
                continue;
            };
            let until = match stretch.until {
                Some(segment) => self.stored(segment).await?,
                None => None,
            };
            let legs = match (stretch.until, until) {
                (Some(segment), Some(until)) => self.timed(&way, from, segment, until).await?,
                _ => Vec::new(),
            };
            let is_within = |entry: &&&BackupEntry| {
                let start = entry.name.segment();
                stretch
                    .until
                    .is_some_and(|until| map::is_on(&way, until, start, self.size))
            };
            let within = self.backups.iter().filter(is_within);
            windows.push(Window {
                backups: within.map(|entry| entry.name.clone()).collect(),
                from,
                until,
                legs,
                stretch,
            });
        }
        Ok(windows)
    }

    /// The windows on timelines that have WAL which is on no way of these windows.
    async fn left(&self, windows: &[Window]) -> Result<Vec<Window>> {
        let mut left = Vec::new();
        let is_current = |held: &&TimelineHeld| {
            let last = held.runs.last().map(|run| run.last);
            let mut ends = windows.iter().map(|window| window.stretch.until);
            last.is_none() || ends.any(|end| end == last)
        };
        // What was followed from its end on by another timeline costs none of the few looks, nor does what no backup leads to.
        let oldest = self.backups.iter().map(|entry| entry.name.segment());
        let oldest = oldest.map(WalSegmentName::timeline).min();
        let is_beyond = |held: &&TimelineHeld| {
            let last = held.runs.last();
            let is_on_a_way = last.is_some_and(|run| is_through(windows, held.timeline, run.until));
            !is_current(held)
                && !is_on_a_way
                && oldest.is_some_and(|oldest| oldest <= held.timeline)
        };
        let beyond = self.timelines.iter().filter(is_beyond);
        for held in beyond.rev().take(LEFT_MAX) {
            let timeline = RecoveryTargetTimeline::Id(held.timeline);
            let last = map::last_of(self.timelines, held.timeline);
            for window in self.windows(timeline).await? {
                // Where the timeline was only followed by another one, its own end is on the way of that.
                let Some(end) = window.stretch.until else {
                    continue;
                };
                let is_new = end.timeline() == held.timeline && Some(end) <= last;
                if is_new && !self.is_known(windows, end).await? {
                    left.push(window);
                }
            }
        }
        Ok(left)
    }

    /// Whether one of these windows goes through a segment.
    async fn is_known(&self, windows: &[Window], segment: WalSegmentName) -> Result<bool> {
        let stored = self.stored(segment).await?;
        Ok(stored.is_some_and(|stored| is_through(windows, segment.timeline(), stored)))
    }

    /// The moments of a way, on each of its timelines. Where a timeline that was left has the segment of the fork, too, its last
    /// certain moment is that of the segment before; where it has not, the next timeline has all that was written.
    async fn timed(
        &self,
        way: &[Leg],
        from: DateTime<Utc>,
        last: WalSegmentName,
        until: DateTime<Utc>,
    ) -> Result<Vec<WindowLeg>> {
        let mut legs: Vec<WindowLeg> = Vec::new();
        for (number, leg) in way.iter().enumerate() {
            let began = map::began(self.timelines, leg.timeline);
            let from = match legs.last() {
                Some(before) => began.unwrap_or(before.until).max(before.until),
                None => from,
            };
            let is_last = leg.timeline == last.timeline();
            let until = match leg.end.filter(|_| !is_last) {
                Some(end) => self.left_at(leg, end, way.get(number + 1)).await?,
                None => Some(until),
            };
            legs.push(WindowLeg {
                timeline: leg.timeline,
                from,
                until: until.unwrap_or(from).max(from),
            });
            if is_last {
                break;
            }
        }
        Ok(legs)
    }

    /// The last certain moment of a leg that ends before segment number `end`.
    async fn left_at(
        &self,
        leg: &Leg,
        end: u64,
        next: Option<&Leg>,
    ) -> Result<Option<DateTime<Utc>>> {
        let has_fork = self.stored(leg.segment(end, self.size)?).await?.is_some();
        if let Some(next) = next.filter(|_| !has_fork) {
            return Ok(map::began(self.timelines, next.timeline));
        }
        match end.checked_sub(1).filter(|before| *before >= leg.first) {
            Some(before) => self.stored(leg.segment(before, self.size)?).await,
            None => Ok(None),
        }
    }

    async fn stored(&self, segment: WalSegmentName) -> Result<Option<DateTime<Utc>>> {
        let found = self.archive.find_wal(&segment.into()).await?;
        Ok(found.map(|stored| stored.modified))
    }
}

/// Whether one of these windows goes through what was stored of a timeline then.
fn is_through(windows: &[Window], timeline: TimelineId, stored: DateTime<Utc>) -> bool {
    let is_through =
        |leg: &WindowLeg| leg.timeline == timeline && leg.from <= stored && stored <= leg.until;
    let mut legs = windows.iter().flat_map(|window| &window.legs);
    legs.any(is_through)
}

/// How far a recovery gets from a backup towards a timeline, and its way. `None` where the backup does not lead there; towards the
/// latest one it stays on its own.
async fn look(
    archive: &Archive,
    backup: &BackupName,
    sentinel: &Sentinel,
    consistent_at: Lsn,
    timeline: RecoveryTargetTimeline,
) -> Result<Option<(Recoverable, Vec<Leg>)>> {
    let own = backup.segment().timeline();
    let onward = archive.onward(backup, sentinel, consistent_at, timeline);
    let Some(onward) = onward.await? else {
        return Ok(None);
    };
    let (size, way) = (onward.size, onward.legs);
    let mut found = match onward.own {
        Some(own) => walk::carried(archive, &[own], size).await?,
        None => Carried::default(),
    };
    if found.lack.is_none() {
        found = walk::carried(archive, &way, size).await?;
    }
    let Carried { until, lack } = found;
    let (gap, lack) = lack.unzip();
    let missing = gap.map(|gap| gap.segments(size)).transpose();
    let stretch = Recoverable {
        backup: backup.clone(),
        from: backup.segment(),
        until,
        gap,
        missing: missing?.unwrap_or(0),
        unreadable: match lack {
            Some(Lack::Unreadable(key)) => Some(key),
            Some(Lack::Missing(_)) | None => None,
        },
        lost_history: archive.lost_history(own, &onward.histories).await?,
    };
    Ok(Some((stretch, way)))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use wale_format::{Codec, layout};
    use wale_storage::{Fault, FaultPlan, Looking, Occurrence, Verb};

    use super::*;
    use crate::testing::{Bench, file_name, segment_name};

    /// An archive with a backup in each of these segments, in this order, and these WAL files.
    async fn bench(backups: &[&str], files: &[&str]) -> Bench {
        let bench = Bench::new();
        bench.claim().await;
        for (number, segment) in backups.iter().enumerate() {
            let name = BackupName::parse(&format!("base_{segment}_00000040")).expect("a name");
            let sentinel = format!(
                r#"{{"wal_segment_backup_stop": "{segment}", "wal_segment_offset_backup_stop": "00000256",
                    "FinishTime": "2026-03-0{}T00:00:00Z"}}"#,
                number + 1
            );
            let key = Archive::key(&layout::sentinel(&name)).expect("a key");
            bench.memory.insert(&key, sentinel.into_bytes());
        }
        for name in files {
            bench.store_wal(name, Codec::Zstd, b"not looked into");
        }
        bench
    }

    fn on(timeline: u32, numbers: &[u32]) -> Vec<String> {
        let name = |number| format!("{timeline:08X}00000000{number:08X}");
        numbers.iter().map(name).collect()
    }

    /// What is found: the last segment before the gap, and its ends.
    async fn found(bench: &Bench) -> (Option<String>, Option<(String, String)>, u64) {
        let found = run(&bench.archive).await.expect("found").expect("a backup");
        let gap = found
            .gap
            .map(|gap| (gap.from.to_string(), gap.to.to_string()));
        (found.until.map(|name| name.to_string()), gap, found.missing)
    }

    #[tokio::test]
    async fn row_46_the_first_gap_behind_the_newest_backup_is_found_and_the_next_backup_leaves_it()
    {
        /// Numbers that are there, the last one before the gap, the gap.
        type Case = (&'static [u32], Option<u32>, Option<(u32, u32)>);
        let backup = on(1, &[2]);
        let cases: [Case; 6] = [
            (&[1, 2, 3, 4], Some(4), None),
            (&[2, 3, 6, 7, 9], Some(3), Some((4, 5))),
            (&[3, 4], None, Some((2, 2))),
            // What the backup itself needs is missing, with nothing after it.
            (&[], None, Some((2, 2))),
            (&[0, 1], None, Some((2, 2))),
            // WAL before the backup is of no use to it.
            (&[0, 2, 3], Some(3), None),
        ];
        let name = |number| on(1, &[number]).remove(0);
        for (numbers, until, gap) in cases {
            let files = on(1, numbers);
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            let bench = bench(&[&backup[0]], &files).await;
            let missing = gap.map_or(0, |(from, to)| u64::from(to - from + 1));
            let gap = gap.map(|(from, to)| (name(from), name(to)));
            assert_eq!(
                found(&bench).await,
                (until.map(name), gap, missing),
                "{numbers:?}"
            );
        }
        let files = on(1, &[2, 3, 6, 7]);
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let bench = bench(&[&backup[0], &name(6)], &files).await;
        let report = run(&bench.archive).await.expect("found").expect("a backup");
        assert_eq!(report.from, segment_name(&name(6)));
        assert_eq!(report.unreadable, None);
        assert_eq!(found(&bench).await, (Some(name(7)), None, 0));
    }

    #[tokio::test]
    async fn a_stretch_begins_with_a_backup_and_ends_where_something_is_missing() {
        let backups = on(1, &[2, 3, 6, 9]);
        let backups: Vec<&str> = backups.iter().map(String::as_str).collect();
        let files = on(1, &[2, 3, 4, 6, 7, 8, 9, 10]);
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let bench = bench(&backups, &files).await;
        let names = bench.archive.catalog().await.expect("read").backups;
        let names: Vec<BackupName> = names.into_iter().map(|entry| entry.name).collect();
        let told = async |names: &[BackupName]| {
            let found = stretches(&bench.archive, names).await.expect("found");
            let ends = found
                .into_iter()
                .map(|one| (one.from, one.until.expect("some")));
            let ends = ends.map(|(from, until)| (from.to_string(), until.to_string()));
            ends.collect::<Vec<_>>()
        };
        let name = |number| on(1, &[number]).remove(0);
        let expected = [(name(2), name(4)), (name(6), name(10))];
        assert_eq!(told(&names).await, expected);
        // Without the first two nothing leads to what they lead to.
        assert_eq!(told(&names[2..]).await, expected[1..]);
        assert_eq!(told(&[]).await, []);
    }

    #[tokio::test]
    async fn the_holdings_are_counted_and_each_window_has_its_times() {
        let backups = on(1, &[2, 6]);
        let backups: Vec<&str> = backups.iter().map(String::as_str).collect();
        let files = on(1, &[2, 3, 6, 7]);
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let bench = bench(&backups, &files).await;
        let found = holdings(&bench.archive).await.expect("counted");
        // Identity, two sentinels, four segments of 14 bytes or what they are sealed to.
        assert_eq!((found.backups, found.objects), (2, 7));
        let listed = bench.archive.store().list("").await.expect("listed");
        let listed: Vec<_> = listed.try_collect().await.expect("listed");
        assert_eq!(
            found.bytes,
            listed.iter().map(|meta| meta.size).sum::<u64>()
        );
        let (newest, end) = found.newest_backup.clone().expect("two");
        assert_eq!(newest.segment(), segment_name(&on(1, &[6])[0]));
        assert_eq!(end.to_rfc3339(), "2026-03-02T00:00:00+00:00");
        let from: Vec<String> = found
            .windows
            .iter()
            .map(|one| one.from.to_rfc3339())
            .collect();
        assert_eq!(
            from,
            ["2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00"]
        );
        let current = found.current().expect("two");
        assert_eq!(current.stretch.until, Some(segment_name(&on(1, &[7])[0])));
        assert!(current.until.is_some());
        // Nothing at all is no error.
        let empty = holdings(&Bench::new().archive).await.expect("counted");
        assert_eq!(
            (empty.backups, empty.objects, empty.windows.len()),
            (0, 0, 0)
        );
    }

    /// 1 MiB a segment: timeline 2 left timeline 1 in segment 4, and timeline 1 went on.
    #[tokio::test]
    async fn what_is_left_of_a_timeline_is_a_window_of_its_own() {
        let backups = [on(1, &[2, 5]), on(2, &[6])].concat();
        let backups: Vec<&str> = backups.iter().map(String::as_str).collect();
        let files = [on(1, &[2, 3, 4, 5, 6]), on(2, &[4, 5, 6])].concat();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let bench = bench(&backups, &files).await;
        bench.store_wal("00000002.history", Codec::Zstd, b"1\t0/400100\tx\n");
        let found = holdings(&bench.archive).await.expect("counted");
        let told = |windows: &[Window]| -> Vec<_> {
            let told = windows.iter().map(|window| {
                let until = window.stretch.until.expect("some").to_string();
                let legs = window.legs.iter().map(|leg| leg.timeline.get());
                let backups = window.backups.iter().map(ToString::to_string);
                (until, legs.collect::<Vec<_>>(), backups.collect::<Vec<_>>())
            });
            told.collect()
        };
        let name = |timeline, number| on(timeline, &[number]).remove(0);
        let base = |timeline, number| format!("base_{}_00000040", name(timeline, number));
        // The backup behind the fork leads to the rest of timeline 1 only.
        let main = (name(2, 6), vec![1, 2], vec![base(1, 2), base(2, 6)]);
        let left = (name(1, 6), vec![1], vec![base(1, 2), base(1, 5)]);
        assert_eq!(told(&found.windows), [main]);
        assert_eq!(told(&found.left), [left]);
        let held = found
            .timelines
            .iter()
            .map(|held| (held.timeline.get(), held.runs.len()));
        assert_eq!(held.collect::<Vec<_>>(), [(1, 1), (2, 1)]);
        // Without anything behind the fork nothing was left.
        for number in [4, 5, 6] {
            let file = file_name(&name(1, number));
            let key = Archive::key(&layout::wal(&file, Codec::Zstd)).expect("a key");
            bench.archive.store().delete(&key).await.expect("deleted");
        }
        let found = holdings(&bench.archive).await.expect("counted");
        assert_eq!((found.windows.len(), found.left), (1, Vec::new()));
    }

    /// Timeline 1 went on after timeline 2 had left it, and five servers followed that one, each where the one before ended.
    #[tokio::test]
    async fn failovers_do_not_hide_an_older_timeline_that_was_left() {
        let backup = on(1, &[2]).remove(0);
        let files = on(1, &[2, 3, 4, 5, 6]);
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let bench = bench(&[&backup], &files).await;
        // 1 MiB a segment: timeline n begins in segment 2 n.
        let mut parents = String::new();
        for timeline in 2..=7_u32 {
            let (parent, first) = (timeline - 1, 2 * timeline);
            writeln!(parents, "{parent}\t0/{first:X}00100\tx").expect("written");
            let history = format!("{timeline:08X}.history");
            bench.store_wal(&history, Codec::Zstd, parents.as_bytes());
            for segment in on(timeline, &[first, first + 1]) {
                bench.store_wal(&segment, Codec::Zstd, b"not looked into");
            }
        }
        let found = holdings(&bench.archive).await.expect("counted");
        let ends = |windows: &[Window]| -> Vec<_> {
            let ends = windows.iter().map(|window| window.stretch.until);
            ends.map(|end| end.expect("some").to_string()).collect()
        };
        assert_eq!(ends(&found.windows), on(7, &[15]));
        assert_eq!(ends(&found.left), on(1, &[6]));
    }

    #[tokio::test]
    async fn row_46_the_way_leads_along_the_timelines_that_grew_out_of_the_backup() {
        let backup = on(1, &[2]).remove(0);
        let history = |bench: &Bench, text: &str| {
            bench.store_wal("00000002.history", Codec::Zstd, text.as_bytes());
        };
        let files = [on(1, &[2, 3, 4]), on(2, &[4, 5, 7])].concat();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let told = bench(&[&backup], &files).await;
        // 1 MiB a segment: timeline 2 begins in segment 4.
        history(&told, "1\t0/400100\tx\n");
        let gap = on(2, &[6]).remove(0);
        let expected = (Some(on(2, &[5]).remove(0)), Some((gap.clone(), gap)), 1);
        assert_eq!(found(&told).await, expected);
        // The end of timeline 1 is missing.
        let key = Archive::key(&layout::wal(&file_name(&on(1, &[3])[0]), Codec::Zstd));
        told.archive
            .store()
            .delete(&key.expect("a key"))
            .await
            .expect("deleted");
        let gap = on(1, &[3]).remove(0);
        let expected = (Some(backup.clone()), Some((gap.clone(), gap)), 1);
        assert_eq!(found(&told).await, expected);
        // A timeline that left before the backup is nobody's way.
        let stranger = bench(&[&backup], &files).await;
        history(&stranger, "1\t0/100100\tx\n");
        assert_eq!(
            found(&stranger).await,
            (Some(on(1, &[4]).remove(0)), None, 0)
        );
    }

    #[tokio::test]
    async fn row_46_a_timeline_history_that_was_lost_is_named_with_what_shows_it() {
        let backup = on(1, &[2]).remove(0);
        let lost = async |bench: &Bench| {
            let found = run(&bench.archive).await.expect("found").expect("a backup");
            let lost = found.lost_history?;
            Some((lost.name().to_string(), lost.witness.to_string()))
        };
        let name = |text: &str| text.to_owned();
        let bench = bench(&[&backup], &[&backup]).await;
        assert_eq!(lost(&bench).await, None);
        // Timeline 3 grew out of timeline 1, after timeline 2 had taken its number.
        bench.store_wal("00000003.history", Codec::Zstd, b"1\t0/400100\tx\n");
        let shown = (name("00000002.history"), name("00000003.history"));
        assert_eq!(lost(&bench).await, Some(shown));
        bench.store_wal("00000002.history", Codec::Zstd, b"1\t0/400100\tx\n");
        assert_eq!(lost(&bench).await, None);
        // WAL of a timeline shows it, too.
        let segment = on(4, &[4]).remove(0);
        bench.store_wal(&segment, Codec::Zstd, b"not looked into");
        let shown = (name("00000004.history"), segment);
        assert_eq!(lost(&bench).await, Some(shown));
    }

    #[tokio::test]
    async fn fault_96_recovery_ends_before_what_only_another_tool_reads() {
        let backup = on(1, &[2]);
        let files = on(1, &[2, 3]);
        let bench = bench(&[&backup[0]], &[&files[0], &files[1]]).await;
        let unreadable = on(1, &[4]).remove(0);
        let key = Archive::key(&format!("wal_005/{unreadable}.br")).expect("a key");
        bench.memory.insert(&key, b"brotli".to_vec());
        let gap = Some((unreadable.clone(), unreadable.clone()));
        assert_eq!(found(&bench).await, (Some(files[1].clone()), gap, 1));
        let report = run(&bench.archive).await.expect("found").expect("a backup");
        assert_eq!(report.unreadable, Some(key.to_string()));
        // A copy that we read, beside it.
        bench.store_wal(&unreadable, Codec::Lz4, b"not looked into");
        assert_eq!(found(&bench).await, (Some(unreadable), None, 0));
    }

    #[tokio::test]
    async fn an_archive_without_a_backup_and_one_that_is_silent_show_no_gap() {
        let files = on(1, &[2, 4]);
        let bench = bench(&[], &[&files[0], &files[1]]).await;
        assert_eq!(run(&bench.archive).await.expect("read"), None);
        for verb in [Verb::List, Verb::Head] {
            let bench = self::bench(&[&files[0]], &[&files[0], &files[1]]).await;
            let silence = FaultPlan::new().fail(verb, Occurrence::Always, Fault::Unavailable);
            bench.faulty.set_plan(silence);
            if verb == Verb::Head {
                bench.memory.set_looking(Looking::ByName);
            }
            let error = run(&bench.archive).await.expect_err("silent");
            assert_eq!(error.kind, Kind::StorageUnavailable);
        }
    }
}
