//! What is known of one base backup, and where it leads. Pure.

use chrono::{DateTime, Utc};
use wale_archive::lineage::{EndPosition, Lineage};
use wale_format::BackupName;
use wale_pg::{TimelineId, WalSegmentName, WalSegmentSize};

/// What is known of a base backup that has a sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct BackupFacts {
    /// Its name.
    pub name: BackupName,
    /// When it ended: as recorded, otherwise when its sentinel was stored.
    pub time: DateTime<Utc>,
    /// Whether `time` is recorded in the backup.
    pub recorded: bool,
    /// When its sentinel was stored, by the store's clock.
    pub committed: DateTime<Utc>,
    /// When it began, as recorded; otherwise as `time`.
    pub began: DateTime<Utc>,
    /// Whether it was requested over HTTP, by anybody who could reach the sidecar.
    pub requested: bool,
    /// Where it leads.
    pub branch: Branch,
    /// Why it cannot be used: its sentinel cannot be read, or something of it is missing.
    pub damaged: Option<String>,
    /// Why this version cannot restore it, although it may be whole.
    pub unreadable: Option<String>,
    /// Whether it is marked to stay.
    pub marked: bool,
    /// Whether a deletion of it was begun, and interrupted before anything went.
    pub deletion: bool,
    /// Where it begins.
    pub place: BackupPlace,
    /// The backup that this one only holds the changes to.
    pub parent: Option<String>,
    /// The last segment that makes it consistent, on the timeline of its start.
    pub last: Option<WalSegmentName>,
    /// The segment size of its cluster, where it is known.
    pub size: Option<WalSegmentSize>,
}

/// Where in the log a backup begins, and on which timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupPlace {
    /// Where its name says.
    Named,
    /// It is not known: WAL-E names its backup of a stopped server wrongly.
    Unknown,
}

impl BackupFacts {
    /// Whether it only holds the changes to another one.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.parent.is_some() || self.name.is_delta()
    }

    /// Whether this version can restore it, as far as is known.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.damaged.is_none() && self.unreadable.is_none()
    }
}

/// Where a backup leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Branch {
    /// To the newest timeline of the archive. Also what is on an unknown timeline.
    Present,
    /// To this timeline at most, which was left for another one before the backup ended.
    Left(TimelineId),
    /// To this timeline for certain; whether to the newest is not known, because its history cannot be read.
    Unclear(TimelineId),
}

impl Branch {
    /// The branch of a backup that ends there; `None` where its timeline is not known.
    #[must_use]
    pub fn of(lineage: &Lineage, ending: Option<EndPosition>) -> Self {
        let (Some(ending), Some(newest)) = (ending, lineage.newest()) else {
            return Self::Present;
        };
        match lineage.leads(ending, newest) {
            Some(true) => Self::Present,
            Some(false) => Self::Left(lineage.tip(ending)),
            None => Self::Unclear(lineage.tip(ending)),
        }
    }

    /// In words that follow `on`; none for the present.
    #[must_use]
    pub fn words(self) -> Option<String> {
        match self {
            Self::Present => None,
            Self::Left(timeline) => Some(format!("the abandoned branch of timeline {timeline}")),
            Self::Unclear(timeline) => Some(format!(
                "timeline {timeline}, and it is not known whether that leads to the newest one"
            )),
        }
    }
}
