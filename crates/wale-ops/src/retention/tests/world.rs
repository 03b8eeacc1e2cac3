//! A cluster that archives into a store in memory: segments, timelines, backups, and time that passes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use serde_json::json;
use wale_archive::{Archive, ArchiveOptions};
use wale_format::{BackupName, Codec, Seal, layout};
use wale_pg::{ArchiveFileName, Lsn, TimelineId, WalSegmentName, WalSegmentSize};
use wale_pipeline::MemoryBudget;
use wale_storage::{FaultPlan, FaultyStore, MemoryStore, ObjectKey, Store};

use super::super::branches::DEFAULT_REQUEST_INTERVAL;
use super::super::options::{Act, Options};
use super::super::plan::Request;
use super::super::report::{Line, Report};
use super::super::run::run;
use super::{at, timeline};
use crate::Clock;
use crate::error::Result;

pub(super) const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;
pub(super) const GRACE: std::time::Duration = std::time::Duration::from_hours(24);

/// One timeline of the world.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) id: TimelineId,
    /// Index of the parent and where it was left.
    pub(super) parent: Option<(usize, Lsn)>,
    pub(super) first: u64,
    /// The number of the segment that is being written.
    pub(super) next: u64,
}

/// One backup of the world, as it was made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) name: BackupName,
    pub(super) branch: usize,
    pub(super) start: u64,
    pub(super) stop: u64,
    pub(super) stop_lsn: Lsn,
    pub(super) time: DateTime<Utc>,
    pub(super) recorded: bool,
    pub(super) marked: bool,
    pub(super) damaged: bool,
    /// Index of the backup that it only holds the changes to.
    pub(super) parent: Option<usize>,
    pub(super) keys: Vec<String>,
}

/// A backup without a sentinel.
#[derive(Clone, Debug)]
pub(super) struct Started {
    pub(super) branch: usize,
    pub(super) start: u64,
    pub(super) time: DateTime<Utc>,
}

pub(super) struct World {
    pub(super) memory: MemoryStore,
    pub(super) faulty: Arc<FaultyStore>,
    pub(super) archive: Archive,
    pub(super) time: DateTime<Utc>,
    pub(super) branches: Vec<Branch>,
    pub(super) current: usize,
    pub(super) backups: Vec<Made>,
    pub(super) unfinished: Vec<Started>,
    clock: Clock,
}

impl World {
    pub(super) fn new() -> Self {
        let memory = MemoryStore::new();
        let time = at("2026-01-01T00:00:00Z");
        let clock = Clock::fixed(time);
        let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), FaultPlan::new()));
        let archive = Archive::open(ArchiveOptions {
            store: faulty.clone(),
            seal: Seal::unencrypted(Codec::None),
            clock: clock.clone(),
            budget: MemoryBudget::new(64 << 20),
            created_by: "wale test".to_owned(),
        });
        let world = Self {
            memory,
            faulty,
            archive,
            time,
            branches: vec![Branch {
                id: TimelineId::FIRST,
                parent: None,
                first: 1,
                next: 1,
            }],
            current: 0,
            backups: Vec::new(),
            unfinished: Vec::new(),
            clock,
        };
        let identity = json!({"format": 1, "system_identifier": "7", "wal_segment_size": SIZE.bytes(),
            "codecs": ["none"], "created_at": "2026-01-01T00:00:00Z", "created_by": "wale test"});
        world.put("wale.json", identity.to_string());
        world
    }

    pub(super) fn put(&self, key: &str, content: impl Into<Bytes>) {
        self.memory.set_now(self.time);
        self.memory
            .insert(&ObjectKey::new(key).expect(key), content);
    }

    pub(super) fn pass(&mut self, time: TimeDelta) {
        self.time += time;
        self.clock.advance(time);
        self.memory.set_now(self.time);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.memory
            .content(&ObjectKey::new(key).expect(key))
            .is_some()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.memory.keys().iter().map(ToString::to_string).collect()
    }

    pub(super) fn segment(&self, branch: usize, number: u64) -> WalSegmentName {
        WalSegmentName::from_number(self.branches[branch].id, number, SIZE).expect("in range")
    }

    pub(super) fn wal_key(segment: WalSegmentName) -> String {
        layout::wal(&ArchiveFileName::Segment(segment), Codec::None)
    }

    /// Archives so many segments of the current timeline.
    pub(super) fn wal(&mut self, count: u64) {
        for _ in 0..count {
            let number = self.branches[self.current].next;
            self.put(&Self::wal_key(self.segment(self.current, number)), "wal");
            self.branches[self.current].next += 1;
            self.pass(TimeDelta::minutes(1));
        }
    }

    /// A base backup that stops so many segments after its start; `recorded` as wale does, else as WAL-E does.
    pub(super) fn backup(&mut self, segments: u64, recorded: bool) -> BackupName {
        let branch = self.current;
        let start = self.branches[branch].next;
        let name = BackupName::new(&self.segment(branch, start), 40);
        let began = self.time;
        self.put(&layout::extended_version(&name), "PostgreSQL");
        self.wal(segments + 1);
        let stop = start + segments;
        self.put(
            &layout::wal(
                &ArchiveFileName::BackupHistory {
                    segment: self.segment(branch, start),
                    offset: 40,
                },
                Codec::None,
            ),
            "note",
        );
        for number in 0..2 {
            self.put(&layout::partition(&name, number, Codec::None), "tar");
        }
        self.pass(TimeDelta::minutes(1));
        let stop_lsn = Lsn::new(stop * SIZE.bytes() + 300);
        let mut sentinel = json!({
            "wal_segment_backup_stop": self.segment(branch, stop).to_string(),
            "wal_segment_offset_backup_stop": "00000300",
        });
        if recorded {
            self.put(&layout::metadata(&name), r#"{"is_permanent":false}"#);
            sentinel["LSN"] = (start * SIZE.bytes() + 40).into();
            sentinel["FinishLSN"] = stop_lsn.as_u64().into();
            sentinel["StartTime"] = began.to_rfc3339().into();
            sentinel["FinishTime"] = self.time.to_rfc3339().into();
        }
        self.put(&layout::sentinel(&name), sentinel.to_string());
        let folder = layout::backup_folder(&name);
        let keys = self.keys().into_iter();
        self.backups.push(Made {
            keys: keys.filter(|key| key.starts_with(&folder)).collect(),
            name: name.clone(),
            branch,
            start,
            stop,
            stop_lsn,
            time: self.time,
            recorded,
            marked: false,
            damaged: false,
            parent: None,
        });
        self.pass(TimeDelta::hours(1));
        name
    }

    /// A backup that only holds the changes to another one, as WAL-G names and records it.
    pub(super) fn delta(&mut self, parent: usize) -> BackupName {
        let full = self.backup(0, true);
        let (of, start) = (self.backups[parent].name.clone(), full.segment());
        let name = format!("base_{start}_D_{}", of.segment());
        let name = BackupName::parse(&name).expect("a delta's name");
        let made = self.backups.last_mut().expect("just made");
        made.parent = Some(parent);
        made.name = name.clone();
        let (from, to) = (layout::backup_folder(&full), layout::backup_folder(&name));
        made.keys = made
            .keys
            .iter()
            .map(|key| key.replace(&from, &to))
            .collect();
        // What both have is in the parent.
        for (index, name) in [(parent, &of), (self.backups.len() - 1, &name)] {
            let list = layout::files_metadata(name);
            if !self.has(&list) {
                self.put(&list, r#"{"Files":{"/":{}}}"#);
                self.backups[index].keys.push(list);
            }
        }
        let since = self.backups[parent].start * SIZE.bytes() + 40;
        let sentinels = (layout::sentinel(&full), layout::sentinel(&name));
        for (key, content) in self.snapshot() {
            let moved = if key == sentinels.0 {
                let mut value: serde_json::Value = serde_json::from_slice(&content).expect("JSON");
                value["DeltaFrom"] = of.as_str().into();
                value["DeltaLSN"] = since.into();
                (sentinels.1.clone(), value.to_string().into())
            } else if key.starts_with(&from) {
                (key.replace(&from, &to), content)
            } else {
                continue;
            };
            self.put(&moved.0, moved.1);
            self.remove(&key);
        }
        name
    }

    pub(super) fn remove(&self, key: &str) {
        let key = ObjectKey::new(key).expect(key);
        let deleted = self.memory.delete(&key).now_or_never();
        deleted.expect("memory does not wait").expect("deleted");
    }

    /// Spoils the record of a backup.
    pub(super) fn damage(&mut self, index: usize, text: &'static str) {
        self.backups[index].damaged = true;
        self.put(&layout::sentinel(&self.backups[index].name), text);
    }

    /// The archive as another process sees it, which has no faults.
    pub(super) fn beside(&self) -> Archive {
        Archive::open(ArchiveOptions {
            store: Arc::new(self.memory.clone()),
            seal: Seal::unencrypted(Codec::None),
            clock: Clock::fixed(self.time),
            budget: MemoryBudget::new(64 << 20),
            created_by: "wale test".to_owned(),
        })
    }

    /// A backup that its writer left when it had stored the first partition.
    pub(super) fn abandoned(&mut self) -> BackupName {
        let segment = self.segment(self.current, self.branches[self.current].next);
        self.unfinished.push(Started {
            branch: self.current,
            start: self.branches[self.current].next,
            time: self.time,
        });
        let name = BackupName::new(&segment, 80);
        self.put(&layout::extended_version(&name), "PostgreSQL");
        self.put(&layout::partition(&name, 0, Codec::None), "tar");
        name
    }

    pub(super) fn mark(&mut self, index: usize) {
        let backup = &mut self.backups[index];
        backup.marked = true;
        let (key, name) = (layout::metadata(&backup.name), backup.name.clone());
        if !backup.keys.contains(&key) {
            backup.keys.push(key.clone());
        }
        assert_eq!(name, self.backups[index].name);
        self.put(&key, r#"{"is_permanent":true}"#);
    }

    /// Leaves the current timeline for a new one, `back` segments before its end.
    pub(super) fn promote(&mut self, back: u64) {
        let parent = &self.branches[self.current];
        let number = parent.next.saturating_sub(back).max(parent.first);
        // Before the place in a segment where a backup begins: none begins before its timeline does.
        let fork = Lsn::new(number * SIZE.bytes() + 0x10);
        let old = self.segment(self.current, number);
        self.put(
            &layout::wal(&ArchiveFileName::Partial(old), Codec::None),
            "partial",
        );
        let id = timeline(u32::try_from(self.branches.len()).expect("few") + 1);
        let branch = Branch {
            id,
            parent: Some((self.current, fork)),
            first: number,
            next: number,
        };
        self.branches.push(branch);
        self.current = self.branches.len() - 1;
        let lines: String = self
            .path(self.current)
            .into_iter()
            .filter_map(|index| {
                let (parent, fork) = self.branches[index].parent?;
                Some(format!("{}\t{fork}\tx\n", self.branches[parent].id))
            })
            .collect();
        let name = ArchiveFileName::TimelineHistory(id);
        self.put(&layout::wal(&name, Codec::None), lines);
    }

    /// The timelines that lead to a timeline, itself last.
    pub(super) fn path(&self, branch: usize) -> Vec<usize> {
        let mut path = vec![branch];
        while let Some((parent, _)) = self.branches[path[0]].parent {
            path.insert(0, parent);
        }
        path
    }

    pub(super) async fn run(&self, request: Request, act: Act) -> Result<(Report, Vec<Line>)> {
        Self::run_on(&self.archive, request, act).await
    }

    pub(super) async fn run_on(
        archive: &Archive,
        request: Request,
        act: Act,
    ) -> Result<(Report, Vec<Line>)> {
        let options = Options {
            request,
            act,
            grace: GRACE,
            request_interval: DEFAULT_REQUEST_INTERVAL,
        };
        let mut lines = Vec::new();
        let mut tell = |line: &Line| lines.push(line.clone());
        let report = run(archive, &options, &mut tell).await?;
        Ok((report, lines))
    }

    pub(super) async fn delete(&self, request: Request) -> Result<Report> {
        Ok(self.run(request, Act::Delete).await?.0)
    }

    /// Every object in its place, by key.
    pub(super) fn snapshot(&self) -> BTreeMap<String, Bytes> {
        let content = |key: &ObjectKey| self.memory.content(key).expect("listed");
        self.memory
            .keys()
            .iter()
            .map(|key| (key.to_string(), content(key)))
            .collect()
    }
}
