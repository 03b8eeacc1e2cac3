//! The history of a timeline that was lost: a server stops where it asks for it. Restore and the alarm ask here. The proofs
//! of absence know the same witnesses.

use futures_util::{StreamExt, TryStreamExt, stream};
use wale_pg::{ArchiveFileName, TimelineId};

use crate::error::{OpError, Result};
use crate::lineage::{Histories, MISSING_MAX};
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
    /// Costs two short listings for each timeline that a server may come to, eight of them at a time: eight after the last one that has
    /// a history, as a rule.
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
        let traces: Vec<_> =
            known
                .without_one(own)
                .map(|timeline| async move {
                    Ok::<_, OpError>((timeline, self.trace_of(timeline).await?))
                })
                .collect();
        let mut traces = stream::iter(traces).buffered(MISSING_MAX as usize);
        while let Some((timeline, trace)) = traces.try_next().await? {
            let Some(trace) = trace else { continue };
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
