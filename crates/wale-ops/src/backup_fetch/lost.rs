//! What was lost from the archive and would stop the recovery, reported before the first write. The proofs of absence
//! know the same witnesses.

use wale_archive::{Archive, HistoryWitness};
use wale_pg::{ArchiveFileName, TimelineId};

use crate::error::Result;

/// A sentence about the first timeline after the backup's that existed and whose history is not there.
pub(super) async fn history(archive: &Archive, backup: TimelineId) -> Result<Option<String>> {
    let known = archive.later_histories(backup).await?;
    let lost = archive.lost_history(backup, &known).await?;
    Ok(lost.map(|lost| match &lost.witness {
        HistoryWitness::Later(later) => shown_by(lost.timeline, *later),
        HistoryWitness::Trace(trace) => format!(
            "{} is missing from the archive, but {trace} is there: the server stops where it asks for it; put it back: \
             a server of timeline {} has it in pg_wal",
            lost.name(),
            lost.timeline
        ),
    }))
}

/// A warning about the first history that was lost. The server asks for it on its way up, or when it is promoted, and
/// stops: nobody proves to it that the history never existed.
fn shown_by(lost: TimelineId, later: TimelineId) -> String {
    let name = ArchiveFileName::TimelineHistory;
    let (lost_name, later_name) = (name(lost), name(later));
    format!(
        "{lost_name} is missing from the archive, but {later_name} is there: the server stops where it asks for it; put \
         it back, or one that has the lines of {later_name} which begin with a timeline before {lost}"
    )
}
