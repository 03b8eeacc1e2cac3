//! Where a recovery from a base backup leads: to the end of the newest timeline that grew out of it.

use wale_format::{BackupName, Sentinel};
use wale_pg::{
    Lsn, RecoveryTargetKind, RecoveryTargetTimeline, TimelineHistory, TimelineId, WalSegmentSize,
};

use crate::Archive;
use crate::error::{Kind, Result};
use crate::lineage::{Histories, Leg, Wish, judge, legs};

/// The way of a recovery.
#[derive(Clone, Debug)]
pub struct Onward {
    /// The cluster's segment size.
    pub size: WalSegmentSize,
    /// The WAL that makes the backup consistent; `None` where the backup holds it itself, or where that is not known.
    pub own: Option<Leg>,
    /// The way from the backup's first segment on.
    pub legs: Vec<Leg>,
    /// The histories of the timelines after the backup's own.
    pub histories: Histories,
}

impl Archive {
    /// The way of a recovery from a backup that is consistent at that position.
    ///
    /// # Errors
    /// The store's failures; those of a history that cannot be read; [`Kind::CorruptData`] where the way lies outside the log.
    pub async fn onward(
        &self,
        backup: &BackupName,
        sentinel: &Sentinel,
        consistent_at: Lsn,
    ) -> Result<Onward> {
        let size = self.segment_size_of(backup, sentinel).await?;
        let timeline = backup.segment().timeline();
        let histories = self.later_histories(timeline).await?;
        let followed = followed(&histories, timeline, consistent_at)?;
        Ok(Onward {
            size,
            own: self.own_wal(backup, sentinel).await?,
            legs: legs(backup.segment(), followed, size)?,
            histories,
        })
    }
}

/// The history of the timeline that a recovery to the latest position follows; `None` for the backup's own. One that left
/// the backup's timeline before the backup was complete is not followed.
fn followed(
    histories: &Histories,
    own: TimelineId,
    consistent_at: Lsn,
) -> Result<Option<&TimelineHistory>> {
    let wish = Wish {
        backup_timeline: own,
        consistent_at,
        timeline: RecoveryTargetTimeline::Latest,
        target: &RecoveryTargetKind::Latest,
    };
    match judge(&wish, histories) {
        Ok(way) => Ok(histories.get(way.followed)),
        Err(error) if error.kind == Kind::ArchiveMismatch => Ok(None),
        Err(error) => Err(error),
    }
}
