//! What the tests of this folder share.

use chrono::{DateTime, TimeDelta, Utc};
use wale_format::BackupName;
use wale_pg::{TimelineId, WalSegmentName, WalSegmentSize};

use super::facts::{BackupFacts, BackupPlace, Branch};

pub(super) fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

pub(super) fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).expect("a timeline")
}

pub(super) fn segment(name: &str) -> WalSegmentName {
    WalSegmentName::parse(name).expect("a segment")
}

/// A backup that starts and stops in the segment with that number, an hour after the one with the number before.
pub(super) fn backup(on: u32, number: u32) -> BackupFacts {
    let size = WalSegmentSize::DEFAULT;
    let segment = WalSegmentName::from_number(timeline(on), u64::from(number), size);
    let segment = segment.expect("a small number");
    let time = at("2026-01-01T00:00:00Z") + TimeDelta::hours(i64::from(number));
    BackupFacts {
        name: BackupName::new(&segment, 40),
        time,
        recorded: true,
        committed: time,
        began: time,
        requested: false,
        branch: Branch::Present,
        damaged: None,
        unreadable: None,
        marked: false,
        deletion: false,
        place: BackupPlace::Named,
        parent: None,
        last: Some(segment),
        size: Some(size),
    }
}

mod decisions;
mod marks;
mod plans;
mod properties;
mod runs;
mod world;
