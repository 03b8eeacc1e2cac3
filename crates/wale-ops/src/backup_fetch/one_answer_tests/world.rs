//! A cluster's life, and the archive that it leaves behind: several timelines, base backups, and what was lost of it all.
//!
//! The world knows which timeline wrote every byte of the log that a server replayed; it never looks at a history. So it
//! judges what wale makes of the histories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::json;
use wale_archive::{Archive, ArchiveOptions, Beginning};
use wale_format::{BackupName, Codec, Seal, layout};
use wale_pg::{ArchiveFileName, Lsn, TimelineId, WalSegmentName, WalSegmentSize};
use wale_storage::{MemoryStore, ObjectKey, Store};

use crate::Clock;
use crate::testing::{SEGMENT_BYTES, SYSTEM_IDENTIFIER, cluster, segment};

const BYTES: u64 = SEGMENT_BYTES as u64;

/// What happens later lies further on in its segment, by so many bytes.
const STEP: u64 = 0x100;

/// What happens in the life of a cluster.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// So many segments are written and archived.
    Wal(u64),
    /// A base backup, which ends so many segments after its start.
    Backup(u64),
    /// A standby that is so many segments behind becomes the primary.
    Promote(u64),
    /// A backup is restored, a timeline followed and left after so many segments.
    Recover {
        backup: usize,
        follow: usize,
        after: u64,
    },
    /// A server that is still on an older timeline goes on there.
    Switch(usize),
    /// A day passes.
    Day,
}

/// What is lost of the archive; chosen among what is there.
#[derive(Clone, Debug)]
pub(super) enum Loss {
    /// A segment.
    Wal(usize),
    /// The segments from one on to the end of its timeline.
    Tail(usize),
    /// A history.
    History(usize),
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..4_u64).prop_map(Event::Wal),
        3 => (0..3_u64).prop_map(Event::Backup),
        1 => (0..3_u64).prop_map(Event::Promote),
        3 => (0..8_usize, 0..8_usize, 0..5_u64)
            .prop_map(|(backup, follow, after)| Event::Recover { backup, follow, after }),
        1 => (0..8_usize).prop_map(Event::Switch),
        1 => Just(Event::Day),
    ]
}

pub(super) fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        4 => (0..64_usize).prop_map(Loss::Wal),
        2 => (0..64_usize).prop_map(Loss::Tail),
        1 => (0..8_usize).prop_map(Loss::History),
    ]
}

/// One timeline.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) id: TimelineId,
    /// From which position on which timeline wrote what a server on this one replayed, oldest first.
    real: Vec<(u64, TimelineId)>,
    /// The lines of its history.
    history: String,
    /// The timelines of these lines.
    pub(super) parents: Vec<TimelineId>,
    /// The number of the segment that is being written.
    pub(super) next: u64,
}

impl Line {
    /// The timeline that wrote a byte of this one's way.
    fn writer(&self, position: u64) -> TimelineId {
        let before = self.real.iter().rev().find(|(begin, _)| *begin <= position);
        before.expect("timeline 1 begins at 0").1
    }

    /// The segment that a server reads on its way to this timeline: the later timeline has a copy of the beginning of the
    /// one in which it was begun.
    pub(super) fn segment(&self, number: u64) -> WalSegmentName {
        name(self.writer((number + 1) * BYTES - 1), number)
    }
}

/// One base backup.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) name: BackupName,
    pub(super) line: usize,
    pub(super) start: u64,
    pub(super) stop: u64,
    /// The position at which it is consistent.
    stop_lsn: u64,
}

impl Made {
    /// Whether a recovery can begin with it and come to the end of a timeline.
    pub(super) fn leads_to(&self, line: &Line) -> bool {
        line.writer(self.stop_lsn - 1) == self.name.segment().timeline()
    }

    /// The segments that make it consistent.
    pub(super) fn own(&self) -> impl Iterator<Item = WalSegmentName> + '_ {
        let timeline = self.name.segment().timeline();
        (self.start..=self.stop).map(move |number| name(timeline, number))
    }
}

pub(super) struct World {
    pub(super) memory: MemoryStore,
    pub(super) archive: Archive,
    pub(super) lines: Vec<Line>,
    pub(super) backups: Vec<Made>,
    /// Every segment that was ever written and archived.
    pub(super) written: BTreeSet<WalSegmentName>,
    current: usize,
    /// Where in its segment the next thing happens.
    offset: u64,
    time: DateTime<Utc>,
    clock: Clock,
}

pub(super) fn size() -> WalSegmentSize {
    WalSegmentSize::new(BYTES).expect("a size")
}

fn name(timeline: TimelineId, number: u64) -> WalSegmentName {
    WalSegmentName::from_number(timeline, number, size()).expect("a small number")
}

fn wal_key(file: impl Into<ArchiveFileName>) -> ObjectKey {
    ObjectKey::new(&layout::wal(&file.into(), Codec::None)).expect("a key")
}

/// The content of a segment, made once in this process.
fn content(segment_name: WalSegmentName) -> Bytes {
    static MADE: OnceLock<Mutex<BTreeMap<WalSegmentName, Bytes>>> = OnceLock::new();
    let made = MADE.get_or_init(Mutex::default);
    let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
    let content = || segment(&segment_name.to_string(), 1).into();
    made.entry(segment_name).or_insert_with(content).clone()
}

impl World {
    /// The world after these events, and without what was lost.
    pub(super) async fn live(events: &[Event], losses: &[Loss]) -> Self {
        let time: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().expect("a time");
        let (memory, clock) = (MemoryStore::new(), Clock::fixed(time));
        memory.set_now(time);
        let archive = Archive::open(ArchiveOptions {
            clock: clock.clone(),
            ..options(Arc::new(memory.clone()))
        });
        let own = cluster(SYSTEM_IDENTIFIER);
        let begun = archive.ensure_identity(&own, &Beginning::Anew).await;
        begun.expect("begun");
        let mut world = Self {
            memory,
            archive,
            lines: vec![Line {
                id: TimelineId::FIRST,
                real: vec![(0, TimelineId::FIRST)],
                history: String::new(),
                parents: Vec::new(),
                next: 1,
            }],
            backups: Vec::new(),
            written: BTreeSet::new(),
            current: 0,
            offset: STEP,
            time,
            clock,
        };
        for event in events {
            world.happen(event);
        }
        for loss in losses {
            world.lose(loss).await;
        }
        world.pass(TimeDelta::hours(25));
        world
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Wal(count) => self.wal(count),
            Event::Backup(segments) => self.backup(segments),
            Event::Promote(back) => {
                let line = &self.lines[self.current];
                let first = line.real.last().expect("one at least").0 / BYTES;
                let number = line.next.saturating_sub(back).max(first);
                self.leave(self.current, number);
            }
            Event::Recover {
                backup,
                follow,
                after,
            } => self.recover(backup, follow, after),
            Event::Switch(to) => self.current = to % self.lines.len(),
            Event::Day => self.pass(TimeDelta::days(1)),
        }
    }

    fn pass(&mut self, time: TimeDelta) {
        self.time += time;
        self.clock.advance(time);
        self.memory.set_now(self.time);
    }

    fn wal(&mut self, count: u64) {
        for _ in 0..count {
            let line = &mut self.lines[self.current];
            let segment = name(line.id, line.next);
            line.next += 1;
            self.written.insert(segment);
            self.memory.insert(&wal_key(segment), content(segment));
            self.pass(TimeDelta::minutes(1));
        }
    }

    fn backup(&mut self, segments: u64) {
        let (line, start) = (self.current, self.lines[self.current].next);
        let first = name(self.lines[line].id, start);
        let offset = self.step();
        let backup = BackupName::new(&first, offset);
        let (began, stop) = (self.time, start + segments);
        let stop_lsn = stop * BYTES + self.step();
        self.wal(segments + 1);
        let note = ArchiveFileName::BackupHistory {
            segment: first,
            offset: u32::try_from(offset).expect("small"),
        };
        self.memory.insert(&wal_key(note), "note");
        let sentinel = json!({
            "wal_segment_backup_stop": name(self.lines[line].id, stop).to_string(),
            "LSN": start * BYTES + offset,
            "FinishLSN": stop_lsn,
            "StartTime": began.to_rfc3339(),
            "FinishTime": self.time.to_rfc3339(),
        });
        let put = |key: String, content: String| {
            let key = ObjectKey::new(&key).expect("a key");
            self.memory.insert(&key, content);
        };
        put(
            layout::extended_version(&backup),
            "PostgreSQL 15.4".to_owned(),
        );
        put(layout::partition(&backup, 0, Codec::None), "tar".to_owned());
        put(layout::sentinel(&backup), sentinel.to_string());
        self.backups.push(Made {
            name: backup,
            line,
            start,
            stop,
            stop_lsn,
        });
        self.pass(TimeDelta::hours(1));
    }

    /// A recovery: it reads what the timeline that it follows has, and begins a new one. It may end before the one that it
    /// follows was begun.
    fn recover(&mut self, backup: usize, follow: usize, after: u64) {
        let Some(index) = backup.checked_rem(self.backups.len()) else {
            return;
        };
        let (backup, follow) = (&self.backups[index], follow % self.lines.len());
        let (line, end) = (&self.lines[follow], backup.stop + after);
        if backup.leads_to(line) && end < line.next {
            self.leave(follow, end);
        }
    }

    /// The place in its segment of what happens now.
    fn step(&mut self) -> u64 {
        self.offset += STEP;
        self.offset
    }

    /// A server that followed a timeline begins a new one in this segment.
    fn leave(&mut self, followed: usize, number: u64) {
        let at = number * BYTES + self.step();
        let id = u32::try_from(self.lines.len() + 1)
            .ok()
            .and_then(TimelineId::new);
        let id = id.expect("few");
        let line = &self.lines[followed];
        let mut real = line.real.clone();
        real.retain(|(begin, _)| *begin < at);
        real.push((at, id));
        let history = format!("{}{}\t{}\tx\n", line.history, line.id, Lsn::new(at));
        let key = wal_key(ArchiveFileName::TimelineHistory(id));
        self.memory.insert(&key, history.clone());
        let parents = line.parents.iter().copied().chain([line.id]).collect();
        self.lines.push(Line {
            id,
            real,
            history,
            parents,
            next: number,
        });
        self.current = self.lines.len() - 1;
        self.pass(TimeDelta::minutes(1));
    }

    async fn lose(&self, loss: &Loss) {
        let there: Vec<WalSegmentName> = self.written.iter().copied().collect();
        let mut gone: Vec<ObjectKey> = Vec::new();
        match *loss {
            Loss::Wal(index) => {
                let segment = index.checked_rem(there.len()).map(|index| there[index]);
                gone.extend(segment.map(wal_key));
            }
            Loss::Tail(index) => {
                let from = index.checked_rem(there.len()).map(|index| there[index]);
                let after = |one: &&WalSegmentName| {
                    from.is_some_and(|from| one.timeline() == from.timeline() && **one >= from)
                };
                gone.extend(there.iter().filter(after).copied().map(wal_key));
            }
            Loss::History(index) => {
                let line = index.checked_rem(self.lines.len() - 1);
                let line = line.map(|index| self.lines[index + 1].id);
                gone.extend(line.map(|id| wal_key(ArchiveFileName::TimelineHistory(id))));
            }
        }
        for key in gone {
            self.memory.delete(&key).await.expect("deleted");
        }
    }

    pub(super) fn has(&self, file: impl Into<ArchiveFileName>) -> bool {
        self.memory.content(&wal_key(file)).is_some()
    }

    pub(super) fn is_listed(&self, backup: &Made) -> bool {
        let key = ObjectKey::new(&layout::sentinel(&backup.name)).expect("a key");
        self.memory.content(&key).is_some()
    }

    /// The segments that a server reads from a backup to the end of a timeline to which it leads.
    pub(super) fn way(&self, backup: &Made, line: usize) -> Vec<WalSegmentName> {
        let line = &self.lines[line];
        (backup.start..line.next)
            .map(|number| line.segment(number))
            .collect()
    }
}

fn options(store: Arc<dyn Store>) -> ArchiveOptions {
    ArchiveOptions {
        store,
        seal: Seal::unencrypted(Codec::None),
        clock: Clock::System,
        budget: wale_pipeline::MemoryBudget::new(256 << 20),
        created_by: "wale test".to_owned(),
    }
}
