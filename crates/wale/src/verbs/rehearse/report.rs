//! A rehearsal that was made.

use wale_format::RehearsalRecord;
use wale_ops::backup_fetch::RestorePlan;

/// A rehearsal that was made.
pub(super) struct Rehearsed {
    /// What was to be done.
    pub(super) plan: RestorePlan,
    /// What was found.
    pub(super) record: RehearsalRecord,
    /// The last lines of a server that did not come up.
    pub(super) last_lines: Vec<String>,
    /// Why the archive does not keep the record.
    pub(super) not_recorded: Option<String>,
}
