//! Why each base backup stays, for a list that people read.

use std::collections::BTreeMap;
use std::time::Duration;

use wale_archive::Archive;
use wale_format::BackupName;

use super::inventory::Inventory;
use super::plan::{Request, decide};
use super::policy::Policy;
use crate::error::Result;

/// Why each backup stays, and `None` for one that goes with the next retention. Without a rule nothing goes, and nothing is said.
///
/// # Errors
/// As [`run`](super::run()): a clock that is behind the archive decides nothing.
pub async fn reasons(
    archive: &Archive,
    policy: &Policy,
    request_interval: Duration,
) -> Result<BTreeMap<BackupName, Option<String>>> {
    if !policy.is_set() {
        return Ok(BTreeMap::new());
    }
    let stock = Inventory::take(archive, archive.clock().now()).await?;
    let request = Request::Policy(policy.clone());
    let verdicts = decide(&request, &stock.backups, &[], &stock.time, request_interval)?;
    let told = verdicts.into_iter().map(|verdict| {
        let reason = (!verdict.goes()).then(|| verdict.stays.join("; "));
        (verdict.backup.name, reason)
    });
    Ok(told.collect())
}
