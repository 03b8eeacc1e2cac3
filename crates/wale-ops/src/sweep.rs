//! Removing what crashes left in the archive: base backups that will never be complete, and unfinished writes.
//!
//! Nothing that was ever acknowledged is touched: a backup without a sentinel is not listed, and an unfinished write
//! was never visible. Age alone decides, by the store's own clock, because nobody can ask a writer on another host
//! whether it lives.

use std::time::Duration;

use chrono::TimeDelta;

use crate::archive::Archive;
use crate::error::{OpError, Result};
use crate::retention::{self, Refused, TimeOfDay};

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Backups without a sentinel.
    pub backups: u64,
    /// Their objects.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Unfinished writes.
    pub unfinished: u64,
    /// Objects that the store would not delete.
    pub refused: Vec<Refused>,
}

/// Removes what nobody has touched for `grace`. It must exceed every pause within an upload or a base backup that is
/// alive, the wait for WAL at the end of a backup included.
///
/// # Errors
///
/// The store's.
pub async fn run(archive: &Archive, grace: Duration) -> Result<SweepReport> {
    let mut report = SweepReport::default();
    let age = TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX);
    // First, because a folder that is emptied afterwards goes with its last object.
    let location = archive.location();
    report.unfinished = archive
        .store()
        .discard_unfinished(grace)
        .await
        .map_err(|error| {
            OpError::from_store(
                error,
                format_args!("look for unfinished writes in {location}"),
            )
        })?;
    let now = retention::store_now(archive).await?;
    let (folders, _) = retention::folders(archive, &mut TimeOfDay::new(now)).await?;
    for folder in folders.values() {
        if !folder.is_left_over(age, now) {
            continue;
        }
        let removed = retention::remove_left_over(archive, folder, age, now, &mut |_| {}).await?;
        report.backups += u64::from(removed.objects > 0);
        report.objects += removed.objects;
        report.bytes += removed.bytes;
        report.refused.extend(removed.refused);
    }
    Ok(report)
}
