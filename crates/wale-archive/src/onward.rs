//! Where a recovery from a base backup leads: to the end of the newest timeline that grew out of it, or of one that is named.

use wale_format::{BackupName, Sentinel};
use wale_pg::{Lsn, RecoveryTargetKind, RecoveryTargetTimeline, TimelineId, WalSegmentSize};

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
    /// The way of a recovery from a backup that is consistent at that position, towards a timeline. `None` where the backup does
    /// not lead to the one that is named; towards the latest it stays on its own then.
    ///
    /// # Errors
    /// The store's failures; those of a history that cannot be read; [`Kind::CorruptData`] where the way lies outside the log.
    pub async fn onward(
        &self,
        backup: &BackupName,
        sentinel: &Sentinel,
        consistent_at: Lsn,
        towards: RecoveryTargetTimeline,
    ) -> Result<Option<Onward>> {
        let size = self.segment_size_of(backup, sentinel).await?;
        let timeline = backup.segment().timeline();
        let histories = self.later_histories(timeline).await?;
        let Some(followed) = followed(&histories, timeline, consistent_at, towards)? else {
            return Ok(None);
        };
        Ok(Some(Onward {
            size,
            own: self.own_wal(backup, sentinel).await?,
            legs: legs(backup.segment(), histories.get(followed), size)?,
            histories,
        }))
    }
}

/// The timeline that a recovery follows. Towards the latest position one that left the backup's timeline before the backup was
/// complete is not followed; towards a named timeline there is none then.
fn followed(
    histories: &Histories,
    own: TimelineId,
    consistent_at: Lsn,
    timeline: RecoveryTargetTimeline,
) -> Result<Option<TimelineId>> {
    let wish = Wish {
        backup_timeline: own,
        consistent_at,
        timeline,
        target: &RecoveryTargetKind::Latest,
    };
    match judge(&wish, histories) {
        Ok(way) => Ok(Some(way.followed)),
        Err(error) if error.kind == Kind::ArchiveMismatch => {
            Ok((timeline == RecoveryTargetTimeline::Latest).then_some(own))
        }
        Err(error) => Err(error),
    }
}
