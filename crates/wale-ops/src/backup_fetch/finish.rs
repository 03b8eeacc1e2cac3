//! What is done to a restored directory last, before it can be started.

use wale_cluster::recovery::WrittenSetting;
use wale_pg::ControlFile;

use super::target::Target;
use crate::error::Result;

/// What is done to the whole directory before `global/pg_control` makes it startable.
pub(super) type Finish = Box<dyn FnOnce(&Target, &ControlFile) -> Result<Finished> + Send>;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// The settings that were written, for the marker.
    pub(super) written: Vec<WrittenSetting>,
    /// Sentences that say what was decided.
    pub(super) notes: Vec<String>,
    /// Sentences about what the user should check.
    pub(super) warnings: Vec<String>,
    /// Whether background jobs are held.
    pub(super) jobs_held: bool,
}
