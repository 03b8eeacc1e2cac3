//! Removing what crashes left in the archive: base backups that will never be complete, and unfinished writes.
//!
//! Nothing that was ever acknowledged is touched: a backup without a sentinel is not listed, and an unfinished write
//! was never visible. Age alone decides, by the store's own clock, because nobody can ask a writer on another host
//! whether it lives: a base backup has a claim that its writer refreshes, and is dead ten minutes after the last time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use wale_archive::Archive;
use wale_archive::claim;
use wale_format::layout;

use super::inventory::folders;
use super::report::Refused;
use super::run::remove_left_over;
use super::time_of_day::TimeOfDay;
use crate::error::{OpError, Result};

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

/// Removes base backups whose claim is dead, and what nobody has touched for `grace`: unfinished writes, and the backups
/// of writers that make no claim. `grace` must exceed every pause within an upload or such a backup that is alive.
///
/// # Errors
///
/// The store's.
pub async fn run(archive: &Archive, grace: Duration) -> Result<SweepReport> {
    let mut report = SweepReport::default();
    let age = TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX);
    // This comes first, because a folder that is emptied afterwards goes with its last object.
    let location = archive.location();
    report.unfinished = archive
        .store()
        .discard_unfinished(grace, layout::is_ours)
        .await
        .map_err(|error| {
            OpError::from_store(
                error,
                format_args!("look for unfinished writes in {location}"),
            )
        })?;
    let now = claim::store_now(archive).await?;
    let (found, _) = folders(archive, &mut TimeOfDay::new(now)).await?;
    for folder in found.values() {
        if !folder.is_left_over(age, now) {
            continue;
        }
        let removed = remove_left_over(archive, folder, age, now, &mut |_| {}).await?;
        report.backups += u64::from(removed.objects > 0);
        report.objects += removed.objects;
        report.bytes += removed.bytes;
        report.refused.extend(removed.refused);
    }
    Ok(report)
}

/// Tries whether objects can be written: puts a small one and takes it away. Gives the store's time of day.
///
/// # Errors
///
/// The store's; [`crate::Kind::PermissionDenied`] where every push would fail.
pub async fn try_writing(archive: &Archive) -> Result<DateTime<Utc>> {
    claim::store_now(archive).await
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use wale_archive::claim::{Claim, Purpose, Taken};
    use wale_format::{BackupName, Codec};

    use super::*;
    use crate::testing::Bench;

    const GRACE: Duration = Duration::from_hours(24);

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    #[tokio::test]
    async fn fault_103_a_slow_backup_is_swept_when_its_claim_is_dead_and_not_before() {
        let bench = Bench::new();
        bench.memory.set_now(at(0));
        let name = BackupName::parse("base_000000010000000000000002_00000040").expect("a name");
        let taken = Claim::take(&bench.archive, &layout::attempt(&name), Purpose::Write).await;
        let Ok(Taken::Ours { claim, .. }) = taken else {
            panic!("the name is free")
        };
        let part = Archive::key(&layout::partition(&name, 0, Codec::Zstd)).expect("a key");
        bench.memory.insert(&part, "x");
        // Two days without an object, and alive.
        bench.memory.set_now(at(2 * 24 * 3600));
        claim.refresh().await.expect("ours");
        bench.memory.set_now(at(2 * 24 * 3600 + 599));
        let swept = run(&bench.archive, GRACE).await.expect("swept");
        assert_eq!(swept, SweepReport::default());
        claim.check().await.expect("untouched");
        bench.memory.set_now(at(2 * 24 * 3600 + 600));
        let swept = run(&bench.archive, GRACE).await.expect("swept");
        assert_eq!((swept.backups, swept.objects), (1, 1));
        assert_eq!(bench.memory.keys(), [], "nor is a claim left");
        claim.check().await.expect_err("lost");
    }
}
