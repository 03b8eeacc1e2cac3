//! What is remembered of earlier verifications, for status, lists and metrics.

use chrono::{DateTime, Utc};
use wale_archive::proof::{Damage, WalProof};
use wale_archive::{Archive, Catalog};
use wale_format::layout;
use wale_pg::{ArchiveFileName, WalSegmentName, WalSegmentSize};

use crate::error::{OpError, Result};

/// What is known of an archive by what was read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastVerified {
    /// Base backups there are.
    pub backups: u64,
    /// Those of which every byte was found good.
    pub proven_backups: u64,
    /// The oldest of these proofs.
    pub oldest_backup: Option<DateTime<Utc>>,
    /// Segments that were found good. Some may be gone by now.
    pub proven_segments: u64,
    /// The oldest of these proofs.
    pub oldest_segment: Option<DateTime<Utc>>,
    /// When something was last read to verify it.
    pub at: Option<DateTime<Utc>>,
    /// Objects that were found damaged.
    pub damaged: u64,
    /// Some of them.
    pub examples: Vec<Damage>,
}

/// Damaged objects that are named.
const EXAMPLES: usize = 10;

/// What is remembered. Costs a listing, a read of every sentinel, and a small read for each backup.
///
/// # Errors
/// The store's failures.
pub async fn last(archive: &Archive) -> Result<LastVerified> {
    let owner = archive.identity().await.ok().flatten();
    let owner = owner.map(|identity| identity.cluster.system_identifier);
    let catalog = archive.catalog().await?;
    let proofs = archive.backup_proofs(&catalog.backups).await?;
    let wal = archive.wal_proof(owner).await?;
    let mut last = LastVerified {
        backups: catalog.backups.len() as u64,
        ..LastVerified::default()
    };
    for proof in proofs.into_iter().filter_map(|(_, proof)| proof) {
        last.at = last.at.max(Some(proof.at));
        if proof.damaged() > 0 {
            last.damaged += proof.damaged() - proof.damages().count() as u64;
            for damage in proof.damages() {
                last.note(damage.clone());
            }
        } else if let Some(proven) = proof.proven() {
            last.proven_backups += 1;
            let oldest = last.oldest_backup.unwrap_or(proven);
            last.oldest_backup = Some(oldest.min(proven));
        }
    }
    if let Some(mut wal) = wal {
        let mut damaged = Vec::new();
        for damage in std::mem::take(&mut wal.damaged) {
            if outlives(archive, &catalog, wal.proven.size(), &damage).await? {
                damaged.push(damage);
            } else {
                wal.damaged_count = wal.damaged_count.saturating_sub(1);
            }
        }
        wal.damaged = damaged;
        last.of_wal(wal);
    }
    Ok(last)
}

/// Whether remembered damage of WAL still means something: its object is there, or a base backup may need it. One needs none from
/// before its start. Costs a small request for each that no backup needs, 100 at most.
async fn outlives(
    archive: &Archive,
    catalog: &Catalog,
    size: WalSegmentSize,
    damage: &Damage,
) -> Result<bool> {
    let starts = catalog
        .backups
        .iter()
        .map(|one| one.name.segment().number(size));
    let claimed = layout::wal_claim(&damage.object);
    let is_needed = match (claimed, missing_last(&damage.object)) {
        (Some(ArchiveFileName::Segment(segment)), _) | (None, Some(segment)) => {
            let number = segment.number(size).unwrap_or(u64::MAX);
            starts.flatten().any(|start| start <= number)
        }
        _ => !catalog.backups.is_empty(),
    };
    if is_needed || claimed.is_none() {
        return Ok(is_needed);
    }
    let Ok(key) = Archive::key(&damage.object) else {
        return Ok(false);
    };
    let head = archive.store().head(&key).await;
    let head = head.map_err(|error| OpError::from_store(error, format_args!("look for {key}")))?;
    Ok(head.is_some())
}

/// The last segment of a stretch that is missing: `X`, or `X to Y`.
fn missing_last(object: &str) -> Option<WalSegmentName> {
    WalSegmentName::parse(object.rsplit(' ').next()?).ok()
}

impl LastVerified {
    fn of_wal(&mut self, wal: WalProof) {
        self.at = self.at.max(wal.at);
        self.proven_segments = wal.proven.count();
        self.oldest_segment = wal.proven.times().map(|(oldest, _)| oldest);
        let unnamed = wal.damaged_count.saturating_sub(wal.damaged.len() as u64);
        self.damaged += unnamed;
        for damage in wal.damaged {
            self.note(damage);
        }
    }

    fn note(&mut self, damage: Damage) {
        self.damaged += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(damage);
        }
    }
}
