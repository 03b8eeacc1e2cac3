//! What WAL an archive holds, whoever put it there, and whose it is. Reads only: one listing, and the beginning of one segment.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use wale_archive::{Archive, StoredWal};
use wale_format::Codec;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{ArchiveFileName, SystemIdentifier, WalSegmentName, WalSegmentSize};

use crate::error::{Kind, OpError, Result};

/// The WAL of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalSurvey {
    /// Segments by how they are compressed, as their names say: how many objects there are, and their bytes as stored. None
    /// stands for an extension that this version does not know.
    pub segments: BTreeMap<Option<Codec>, (u64, u64)>,
    /// Partial segments.
    pub partials: u64,
    /// Timeline histories.
    pub histories: u64,
    /// Notes that PostgreSQL leaves of base backups.
    pub notes: u64,
    /// Objects beside the WAL that hold none, as WAL-G's delta maps and its descriptions of segments.
    pub others: u64,
    /// The first and the last segment in the order of their names.
    pub ends: Option<(WalSegmentName, WalSegmentName)>,
    /// The segment that was stored last, and when, by the store's clock.
    pub newest: Option<(WalSegmentName, DateTime<Utc>)>,
    /// The same as an object.
    pub newest_object: Option<StoredWal>,
    /// Whose WAL the newest segment is, where it can be read.
    pub owner: Option<WalOwner>,
    /// Why the newest segment cannot be read.
    pub newest_unreadable: Option<String>,
}

/// Whose WAL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOwner {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Its segment size.
    pub segment_size: WalSegmentSize,
}

/// Looks through all WAL of the archive.
///
/// # Errors
///
/// Those of the store: one request for 1,000 objects, and the beginning of one segment.
pub async fn run(archive: &Archive) -> Result<WalSurvey> {
    let prefix = layout::WAL_PREFIX;
    let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
    let mut listing = archive.store().list(prefix).await.map_err(failed)?;
    let (mut survey, mut newest) = (WalSurvey::default(), None);
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        let Some(claimed) = layout::wal_claim(meta.key.as_str()) else {
            survey.others += 1;
            continue;
        };
        let codec = match layout::parse(meta.key.as_str()) {
            ArchiveKey::Wal { codec, .. } => Some(codec),
            // WAL-G describes a segment in an object beside it.
            _ if meta.key.as_str().ends_with(".json") => {
                survey.others += 1;
                continue;
            }
            _ => None,
        };
        match claimed {
            ArchiveFileName::Segment(segment) => {
                survey.add(segment, codec, meta.size);
                let stored = codec.map(|codec| StoredWal {
                    name: claimed,
                    key: meta.key,
                    codec,
                    size: meta.size,
                    modified: meta.modified,
                });
                keep_newer(&mut newest, stored);
            }
            ArchiveFileName::Partial(_) => survey.partials += 1,
            ArchiveFileName::TimelineHistory(_) => survey.histories += 1,
            ArchiveFileName::BackupHistory { .. } => survey.notes += 1,
        }
    }
    if let Some(newest) = newest {
        survey.open(archive, &newest).await?;
        survey.newest_object = Some(newest);
    }
    Ok(survey)
}

impl WalSurvey {
    /// How many segments there are, each object counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.segments.values().map(|(count, _)| count).sum()
    }

    fn add(&mut self, segment: WalSegmentName, codec: Option<Codec>, bytes: u64) {
        let (count, sum) = self.segments.entry(codec).or_default();
        *count += 1;
        *sum += bytes;
        let (first, last) = self.ends.unwrap_or((segment, segment));
        self.ends = Some((first.min(segment), last.max(segment)));
    }

    async fn open(&mut self, archive: &Archive, newest: &StoredWal) -> Result<()> {
        if let ArchiveFileName::Segment(segment) = newest.name {
            self.newest = Some((segment, newest.modified));
        }
        match archive.read_wal_header(newest).await {
            Ok(header) => {
                self.owner = WalSegmentSize::new(u64::from(header.segment_size))
                    .ok()
                    .map(|segment_size| WalOwner {
                        system_identifier: header.system_identifier,
                        segment_size,
                    });
            }
            Err(error) if matches!(error.kind, Kind::Configuration | Kind::CorruptData) => {
                self.newest_unreadable = Some(error.chain());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// By the store's time; of equal times (a copied archive) the greater name.
fn keep_newer(kept: &mut Option<StoredWal>, candidate: Option<StoredWal>) {
    let Some(candidate) = candidate else { return };
    let age = |stored: &StoredWal| (stored.modified, stored.name);
    if kept.as_ref().is_none_or(|kept| age(&candidate) > age(kept)) {
        *kept = Some(candidate);
    }
}

#[cfg(test)]
mod tests {
    use wale_storage::ObjectKey;

    use super::*;
    use crate::testing::{Bench, segment};

    #[tokio::test]
    async fn what_lies_there_is_counted_and_the_newest_segment_says_whose_it_is() {
        let bench = Bench::new();
        assert_eq!(
            run(&bench.archive).await.expect("read"),
            WalSurvey::default()
        );
        let names = ["000000010000000000000001", "000000010000000000000002"];
        bench.store_wal(names[0], Codec::Lz4, &segment(names[0], 1));
        bench.store_wal(names[1], Codec::Zstd, &segment(names[1], 2));
        bench.store_wal("00000002.history", Codec::Zstd, b"1\t0/400100\tx\n");
        for key in [
            "wal_005/000000010000000000000003.xz",
            "wal_005/000000010000000000000002.00000028.backup.lz4",
            "wal_005/000000010000000000000002.json",
            "wal_005/000000010000000000000000_delta.lz4",
            "wal_005/000000010000000000000003.partial.lz4",
        ] {
            bench
                .memory
                .insert(&ObjectKey::new(key).expect("a key"), b"x".to_vec());
        }
        let survey = run(&bench.archive).await.expect("read");
        let counted: Vec<(Option<Codec>, u64)> = survey
            .segments
            .iter()
            .map(|(codec, (count, _))| (*codec, *count))
            .collect();
        assert_eq!(counted.len(), 3, "{counted:?}");
        assert!(counted.iter().all(|(_, count)| *count == 1));
        assert_eq!(survey.count(), 3);
        let beside = (
            survey.partials,
            survey.histories,
            survey.notes,
            survey.others,
        );
        assert_eq!(beside, (1, 1, 1, 2));
        let (first, last) = survey.ends.expect("some");
        assert_eq!(first.to_string(), names[0]);
        assert_eq!(last.to_string(), "000000010000000000000003");
        assert!(survey.owner.is_some(), "{survey:?}");
    }
}
