//! The second step of a backup: its files are stored, and it has ended.

use chrono::{DateTime, Utc};
use wale_pg::{ControlFile, WalSegmentName};

use super::backup_end::BackupEnd;
use super::contents::BackupContents;
use super::copied::Copied;
use super::listing::ListingFacts;
use super::plan;
use super::ready::Ready;
use super::report::Started;
use crate::error::{Kind, OpError, Result};

/// A backup whose files are stored and whose end is known.
pub(super) struct Ended {
    pub(super) ready: Ready,
    pub(super) started: Started,
    pub(super) ending: BackupEnd,
    pub(super) stopped_at: DateTime<Utc>,
    /// The segments that a restore must find, in their order.
    pub(super) segments: Vec<WalSegmentName>,
    /// `global/pg_control` as it was read after all other files.
    pub(super) control_bytes: Vec<u8>,
    /// Whether every page carries a checksum, from start to end.
    pub(super) has_checksums: bool,
    pub(super) listing: ListingFacts,
    pub(super) contents: BackupContents,
}

impl Ended {
    /// Checks what is known at the end against what was known at the beginning.
    ///
    /// # Errors
    ///
    /// [`Kind::PostgresUnavailable`] when the timeline has changed; [`Kind::CorruptData`] when the positions are no range, or
    /// the control file is none; [`Kind::ArchiveMismatch`] when it is another cluster's.
    pub(super) fn new(
        copied: Copied,
        ending: BackupEnd,
        stopped_at: DateTime<Utc>,
    ) -> Result<Self> {
        let Copied {
            ready,
            started,
            partitions,
            control_bytes,
            listing,
        } = copied;
        if let Some(end) = ending.running() {
            let stopped = &end.stopped;
            plan::same_timeline(started.timeline, stopped.timeline, stopped.stop_timeline)?;
        }
        let segments = plan::required_segments(
            started.timeline,
            started.start_lsn,
            ending.stop_lsn(),
            ready.control_file.wal_segment_size,
        )?;
        let control = ControlFile::parse(&control_bytes).map_err(|error| {
            OpError::new(Kind::CorruptData, "global/pg_control is damaged").source(error)
        })?;
        if control.system_identifier != ready.control_file.system_identifier {
            return Err(OpError::new(
                Kind::ArchiveMismatch,
                "the data directory was exchanged during the backup",
            ));
        }
        let mut ended = Self {
            has_checksums: ready.control_file.has_data_checksums(),
            ready,
            started,
            ending,
            stopped_at,
            segments,
            control_bytes,
            listing,
            contents: BackupContents::of(partitions),
        };
        ended.judge_checksums(&control);
        Ok(ended)
    }

    /// Pages are judged only where checksums were on when the backup began and are on when it ends: from 19 on they can be
    /// switched while the server runs, and a page without the right one is no damage then.
    fn judge_checksums(&mut self, at_the_end: &ControlFile) {
        if !self.has_checksums || at_the_end.has_data_checksums() {
            return;
        }
        self.has_checksums = false;
        self.contents.damaged.clear();
        self.contents.damaged_count = 0;
        self.listing.warnings.push(
            "page checksums were switched while the base backup ran: its pages were not judged"
                .to_owned(),
        );
    }
}
