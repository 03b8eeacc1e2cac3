//! The history of a timeline that was lost: a server stops where it asks for it. Restore and the alarm ask here. The proofs
//! of absence know the same witnesses.

use wale_pg::{ArchiveFileName, TimelineId};

use crate::error::Result;
use crate::lineage::Histories;
use crate::{Archive, HistoryWitness};

/// The history of a timeline that existed, which is not in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostHistory {
    /// The timeline.
    pub timeline: TimelineId,
    /// What shows that it existed.
    pub witness: HistoryWitness,
}

impl LostHistory {
    /// The name of the file.
    #[must_use]
    pub const fn name(&self) -> ArchiveFileName {
        ArchiveFileName::TimelineHistory(self.timeline)
    }
}

impl Archive {
    /// The first timeline after `own` that existed and whose history is not there. `known` are the later histories that are
    /// there.
    ///
    /// Costs two short listings for each timeline that a server may come to: eight after the last one that has a history, as a rule.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn lost_history(
        &self,
        own: TimelineId,
        known: &Histories,
    ) -> Result<Option<LostHistory>> {
        if let Some((timeline, later)) = known.first_lost(own) {
            let witness = HistoryWitness::Later(later);
            return Ok(Some(LostHistory { timeline, witness }));
        }
        for timeline in known.without_one(own) {
            let Some(trace) = self.trace_of(timeline).await? else {
                continue;
            };
            let name = ArchiveFileName::TimelineHistory(timeline);
            if self.find_wal(&name).await?.is_some() {
                continue;
            }
            let witness = HistoryWitness::Trace(trace);
            return Ok(Some(LostHistory { timeline, witness }));
        }
        Ok(None)
    }
}
