//! The partitions of a base backup as the archive has them, compared with what its maker recorded.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use wale_format::layout::{self, ArchiveKey};
use wale_format::{BackupName, Codec, Sentinel};

use crate::Archive;
use crate::error::{Kind, OpError, Result};
use crate::member_list::MemberList;

/// Names in messages that were not understood, at most; the others are counted.
const STRANGE_TOLD: usize = 3;

/// How the name of WAL-G's partition for `global/pg_control` begins.
const CONTROL_FILE_PART: &str = "pg_control.tar";

/// A partition in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Its key.
    pub key: String,
    /// Its number; WAL-G's `pg_control` and `backup_label` have none.
    pub number: Option<u32>,
    /// Its codec.
    pub codec: Codec,
    /// Bytes stored.
    pub size: u64,
}

impl StoredPart {
    /// Whether it is the one that WAL-G makes for `global/pg_control` alone.
    pub fn holds_control_file(&self) -> bool {
        self.file_name().starts_with(CONTROL_FILE_PART)
    }

    /// The last component of its key.
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }

    /// The same without the extension of its codec.
    fn bare_name(&self) -> &str {
        let name = self.file_name();
        let bare = name.strip_suffix(self.codec.extension());
        bare.and_then(|bare| bare.strip_suffix('.')).unwrap_or(name)
    }
}

/// What lies where a backup's partitions lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// The partitions.
    pub known: Vec<StoredPart>,
    /// Objects whose names this version does not understand.
    pub strange: Vec<String>,
}

impl Archive {
    /// What lies where the backup's partitions lie.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn parts(&self, name: &BackupName) -> Result<Parts> {
        let prefix = layout::partitions_prefix(name);
        let failed = |error| OpError::from_store(error, format_args!("list {prefix}"));
        let mut listing = self.store().list(&prefix).await.map_err(failed)?;
        let mut parts = Parts::default();
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            let key = meta.key.to_string();
            let (number, codec) = match layout::parse(&key) {
                ArchiveKey::Partition { number, codec, .. } => (Some(number), codec),
                ArchiveKey::ForeignPartition { codec, .. } => (None, codec),
                _ => {
                    parts.strange.push(key);
                    continue;
                }
            };
            parts.known.push(StoredPart {
                key,
                number,
                codec,
                size: meta.size,
            });
        }
        Ok(parts)
    }

    /// Holds the partitions against what their maker recorded, and gives them.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`], naming the first partition that is missing, has another size or is one too many;
    /// [`Kind::Configuration`] for an object that is not understood: it may be a part of the backup.
    pub async fn checked_parts(
        &self,
        name: &BackupName,
        sentinel: &Sentinel,
        list: Option<&MemberList>,
    ) -> Result<Vec<StoredPart>> {
        let parts = self.parts(name).await?;
        if let Some(record) = &sentinel.wale {
            let recorded = record
                .partitions
                .iter()
                .map(|part| (part.number, part.bytes_stored))
                .collect();
            check_recorded(name, &recorded, &parts.known)?;
        } else {
            check_listed(name, list, &parts)?;
        }
        if !parts.strange.is_empty() {
            return Err(not_understood(name, &parts.strange));
        }
        Ok(parts.known)
    }
}

fn damaged(backup: &BackupName, what: &str) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!("backup {backup} is damaged: {what}"),
    )
    .hint("restore another backup, and find out who deletes or changes objects of the archive")
}

fn not_understood(backup: &BackupName, strange: &[String]) -> OpError {
    let mut named = strange[..strange.len().min(STRANGE_TOLD)].join(", ");
    if strange.len() > STRANGE_TOLD {
        named = format!("{named} and {} more", strange.len() - STRANGE_TOLD);
    }
    OpError::new(
        Kind::Configuration,
        format!("backup {backup} has parts that this version does not understand: {named}"),
    )
    .detail("They may hold files of the cluster, so a restore without them would be incomplete.")
    .hint("restore it with the tool that made it, or restore another backup")
}

/// Compares the partitions that our sentinel recorded (number → bytes stored) with those the archive has.
///
/// # Errors
///
/// [`Kind::CorruptData`], naming the first partition that is missing, has another size or is one too many.
pub(crate) fn check_recorded(
    backup: &BackupName,
    recorded: &BTreeMap<u32, u64>,
    stored: &[StoredPart],
) -> Result<()> {
    let damaged = |what: String| damaged(backup, &what);
    let mut seen = BTreeSet::new();
    for part in stored {
        let Some(&size) = part.number.as_ref().and_then(|number| recorded.get(number)) else {
            return Err(damaged(format!(
                "object {} is not one of its partitions",
                part.key
            )));
        };
        if part.size != size {
            return Err(damaged(format!(
                "object {} has {} bytes instead of {size}",
                part.key, part.size
            )));
        }
        if !seen.insert(part.number) {
            return Err(damaged(format!(
                "object {} is there under two codecs",
                part.key
            )));
        }
    }
    match recorded
        .keys()
        .find(|number| !seen.contains(&Some(**number)))
    {
        Some(missing) => Err(damaged(format!(
            "partition {missing} of {} is not in the archive",
            recorded.len()
        ))),
        None => Ok(()),
    }
}

/// Compares the partitions that WAL-G's list names with what the archive has; the one of `pg_control` is never named.
fn check_listed(backup: &BackupName, list: Option<&MemberList>, parts: &Parts) -> Result<()> {
    if parts.known.is_empty() {
        return Err(OpError::new(
            Kind::CorruptData,
            format!("backup {backup} has no partition in the archive"),
        ));
    }
    let Some(list) = list.filter(|list| !list.partitions.is_empty()) else {
        return Ok(());
    };
    let strange = parts.strange.iter();
    let strange = strange.map(|key| key.rsplit('/').next().unwrap_or(key));
    // WAL-G lists names as they are stored, walrus without the codec's extension.
    let known = parts
        .known
        .iter()
        .flat_map(|part| [part.file_name(), part.bare_name()]);
    let there: BTreeSet<&str> = known.chain(strange).collect();
    let missing = |name: &&String| !there.contains(name.as_str());
    if let Some(lost) = list.partitions.iter().find(missing) {
        let what = format!(
            "partition {lost} of {} is not in the archive",
            list.partitions.len()
        );
        return Err(damaged(backup, &what));
    }
    if !there.iter().any(|name| name.starts_with(CONTROL_FILE_PART)) {
        return Err(damaged(
            backup,
            "partition pg_control.tar is not in the archive",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::described::ExpectedNames;
    use crate::member_list::list;

    fn name() -> BackupName {
        BackupName::parse("base_000000010000000000000002_00000040").unwrap()
    }

    fn part(number: u32, codec: Codec, size: u64) -> StoredPart {
        StoredPart {
            key: format!("part_{number}"),
            number: Some(number),
            codec,
            size,
        }
    }

    #[test]
    fn partitions_must_be_exactly_those_of_the_sentinel() {
        let recorded = BTreeMap::from([(0, 10), (1, 20)]);
        let zstd = Codec::Zstd;
        check_recorded(&name(), &recorded, &[part(1, zstd, 20), part(0, zstd, 10)]).unwrap();
        let foreign = StoredPart {
            number: None,
            ..part(9, zstd, 1)
        };
        let cases = [
            vec![part(0, zstd, 10)],
            vec![],
            vec![part(0, zstd, 10), part(1, zstd, 21)],
            vec![part(0, zstd, 10), part(1, zstd, 20), part(2, zstd, 1)],
            vec![
                part(0, zstd, 10),
                part(1, zstd, 20),
                part(1, Codec::Lz4, 20),
            ],
            vec![part(0, zstd, 10), part(1, zstd, 20), foreign],
        ];
        for stored in cases {
            assert_eq!(
                check_recorded(&name(), &recorded, &stored)
                    .unwrap_err()
                    .kind,
                Kind::CorruptData,
                "{stored:?}"
            );
        }
    }

    #[test]
    fn fault_117_what_wal_g_lists_must_be_there() {
        let listed = list(
            r#"{"Files": {"/": {"IsSkipped": false}, "/base/5": {"IsSkipped": false, "MTime": "x", "CorruptBlocks": [1]},
                          "/base/5/1": {"IsSkipped": true}},
                "TarFileSets": {"part_001.tar.lz4": ["/", "/PG_VERSION"], "backup_label.tar.lz4": ["backup_label"]},
                "DatabasesByNames": {"a": {"oid": 1}}}"#,
        );
        // What is skipped is in the parent.
        let members = ["backup_label", "base/5", "base/5/1"];
        let all = ExpectedNames::new(listed.members.clone());
        let expected = members.map(|name| all.is_missing(name));
        assert_eq!((expected, all.count()), ([true, true, false], 3));
        let stored = |names: &[&str]| Parts {
            known: names
                .iter()
                .map(|name| StoredPart {
                    key: format!("basebackups_005/x/tar_partitions/{name}"),
                    number: None,
                    codec: Codec::Lz4,
                    size: 1,
                })
                .collect(),
            strange: Vec::new(),
        };
        let all = [
            "backup_label.tar.lz4",
            "part_001.tar.lz4",
            "pg_control.tar.lz4",
        ];
        check_listed(&name(), Some(&listed), &stored(&all)).unwrap();
        for lost in all {
            let others: Vec<&str> = all.into_iter().filter(|one| *one != lost).collect();
            let error = check_listed(&name(), Some(&listed), &stored(&others)).unwrap_err();
            assert_eq!(error.kind, Kind::CorruptData);
            let named = lost.trim_end_matches(".lz4");
            assert!(error.message.contains(named), "{}", error.message);
        }
        // walrus (wal-rus 0.4.0) leaves the extension away.
        let bare = list(r#"{"TarFileSets": {"part_001.tar": [], "part_002.tar": []}}"#);
        let both = ["part_001.tar.lz4", "part_002.tar.lz4", "pg_control.tar.lz4"];
        check_listed(&name(), Some(&bare), &stored(&both)).unwrap();
        let error = check_listed(&name(), Some(&bare), &stored(&both[1..])).unwrap_err();
        assert!(error.message.contains("part_001.tar"), "{}", error.message);
        // A streamed backup lists no partitions, a backup without a list nothing.
        for streamed in [
            r#"{"Files": {"PG_VERSION": {}}}"#,
            "{}",
            r#"{"TarFileSets": null}"#,
        ] {
            check_listed(&name(), Some(&list(streamed)), &stored(&all[1..2])).unwrap();
        }
        check_listed(&name(), None, &stored(&all[1..2])).unwrap();
        assert!(check_listed(&name(), None, &Parts::default()).is_err());
    }
}
