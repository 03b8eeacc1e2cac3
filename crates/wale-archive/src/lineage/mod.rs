//! Timelines and the WAL that leads along them. Pure: no store, no clock; what an archive has of them is read elsewhere
//! (`histories.rs`, `walk.rs`, `evidence.rs`).
//!
//! Restore, fetch, the proof of absence, the alarm and deletion ask their questions here and know nothing of their own:
//!
//! | question | answer |
//! |---|---|
//! | what is known of the timelines | [`Histories`], the one type |
//! | which timeline does a server follow, and why not another | [`judge`] |
//! | does a backup lead to a timeline | [`Lineage::leads`] |
//! | which WAL leads from a backup to the end of a timeline | [`legs`], and [`own_leg`] to where the backup is consistent |
//! | where does what the archive has of it end | [`Walk`] |
//! | is a segment that is not there missing, or was it never written | [`is_gap`], [`Histories::written_through`] |
//! | which history is lost | [`Histories::shows`], [`Histories::first_lost`] |
//! | where did a server leave a timeline | [`fork`], [`cut_off`] |
//! | may a recovery come to a segment, or ask for a history | [`Histories::may_read`], [`Histories::may_be_asked_for`] |
//!
//! Two answers are apart on purpose. A recovery follows a timeline along `TimelineHistory::way`: a timeline that was left
//! before its own beginning owns nothing there. What was *written* goes by each line's own switch, which is never earlier:
//! so it decides what may be deleted, and what is missing.

mod absence;
mod course;
mod family;
mod fork;
mod histories;
mod needs;
mod way;

pub(crate) use absence::{Neighbours, is_gap};
pub use course::{Course, Wish, judge};
pub use family::{EndPosition, Lineage};
pub use fork::{Fork, cut_off, fork};
pub use histories::{Histories, MISSING_MAX};
pub use needs::is_before;
pub use way::{Gap, Leg, legs};
pub(crate) use way::{Walk, beyond_the_log, own_leg};
