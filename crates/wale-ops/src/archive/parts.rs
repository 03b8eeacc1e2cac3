//! The partitions of a base backup as the archive has them, held against what its maker recorded.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use serde::Deserialize;
use wale_format::layout::{self, ArchiveKey};
use wale_format::{BackupName, Codec, Sentinel};
use wale_storage::ObjectKey;

use super::Archive;
use super::catalog::SENTINEL_MAX;
use crate::error::{Kind, OpError, Result};

/// A list of members larger than this is refused, as a sentinel that holds one: some 150 bytes for each file make 64 MiB
/// for 400,000 files. As much again is kept of it until the restore is done.
const LIST_MAX: u64 = SENTINEL_MAX;

/// Names in messages that were not understood, at most; the others are counted.
const STRANGE_TOLD: usize = 3;

/// The file without which nobody knows where the recovery of a backup begins.
const LABEL: &str = "backup_label";

/// A partition in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredPart {
    /// Its key.
    pub(crate) key: String,
    /// Its number; WAL-G's `pg_control` and `backup_label` have none.
    pub(crate) number: Option<u32>,
    /// Its codec.
    pub(crate) codec: Codec,
    /// Bytes stored.
    pub(crate) size: u64,
}

impl StoredPart {
    /// The last component of its key.
    fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }
}

/// What lies where a backup's partitions lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The partitions.
    pub(crate) known: Vec<StoredPart>,
    /// Objects whose names this version does not understand.
    pub(crate) strange: Vec<String>,
}

/// WAL-G's list of the members of a backup, where it made one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemberList {
    /// The partitions that the list names, by the last component of their keys.
    pub(crate) partitions: BTreeSet<String>,
    /// The members that some partition must hold, without a slash at either end. The data directory itself is none.
    pub(crate) members: BTreeSet<String>,
}

/// WAL-G's `files_metadata.json`, or the same in a sentinel of before 2.0, as far as it matters here.
#[derive(Deserialize)]
struct RawList {
    #[serde(default, rename = "Files")]
    files: Option<BTreeMap<String, RawFile>>,
    #[serde(default, rename = "TarFileSets")]
    sets: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Deserialize)]
struct RawFile {
    /// Its content is in the backup's parent.
    #[serde(default, rename = "IsSkipped")]
    is_skipped: Option<bool>,
}

impl MemberList {
    fn of(raw: RawList) -> Self {
        let clean = |name: &str| name.trim_start_matches("./").trim_matches('/').to_owned();
        let mut list = Self::default();
        for (partition, members) in raw.sets.unwrap_or_default() {
            list.partitions.insert(partition);
            // WAL-G also names what was gone when it came to it; but the label never is.
            let label = |name: &String| name == LABEL;
            list.members
                .extend(members.unwrap_or_default().into_iter().filter(label));
        }
        let files = raw.files.unwrap_or_default().into_iter();
        let here = files.filter(|(_, file)| file.is_skipped != Some(true));
        list.members.extend(here.map(|(name, _)| clean(&name)));
        list.members.remove("");
        list.members.remove(".");
        // JSON of WAL-G's has this in the place of bytes that are not UTF-8.
        list.members
            .retain(|name| !name.contains(char::REPLACEMENT_CHARACTER));
        list
    }
}

impl Archive {
    /// What lies where the backup's partitions lie.
    pub(crate) async fn parts(&self, name: &BackupName) -> Result<Parts> {
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

    /// WAL-G's list of the backup's members. `None` for a backup of another tool, and for one that was made without it.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`] when the list is not there although the backup's record says so, or cannot be read.
    pub(crate) async fn member_list(
        &self,
        name: &BackupName,
        sentinel: &Sentinel,
    ) -> Result<Option<MemberList>> {
        if sentinel.wale.is_some() || sentinel.lsn.is_none() {
            return Ok(None);
        }
        let key = Self::key(&layout::files_metadata(name))?;
        let damaged = |why: &str| {
            OpError::new(
                Kind::CorruptData,
                format!("backup {name} is damaged: its list of files, {key}, {why}"),
            )
            .hint("restore another backup; without the list nobody can tell whether this one is whole")
        };
        // Before WAL-G 2.0 the list was in the sentinel itself.
        if sentinel.version.is_none() {
            let record = Self::key(&layout::sentinel(name))?;
            let raw = self.raw_list(&record).await?;
            if let Some(raw) = raw.filter(|raw| raw.files.is_some() || raw.sets.is_some()) {
                return Ok(Some(MemberList::of(raw)));
            }
        }
        if sentinel.files_metadata_disabled == Some(true) {
            return Ok(None);
        }
        match self.raw_list(&key).await {
            Ok(Some(raw)) => Ok(Some(MemberList::of(raw))),
            Ok(None) if sentinel.version >= Some(2) => Err(damaged("is not in the archive")),
            Ok(None) => Ok(None),
            Err(error) if error.kind == Kind::CorruptData => {
                Err(damaged("cannot be read").source(error))
            }
            Err(error) => Err(error),
        }
    }

    /// A list of members as it is stored. Its text is taken from the memory budget while it is read.
    async fn raw_list(&self, key: &ObjectKey) -> Result<Option<RawList>> {
        let head = self.store().head(key).await;
        let head =
            head.map_err(|error| OpError::from_store(error, format_args!("look for {key}")))?;
        let Some(meta) = head else {
            return Ok(None);
        };
        let _memory = self.budget().acquire(meta.size.min(LIST_MAX)).await;
        let Some(bytes) = self.read_up_to(key, LIST_MAX).await? else {
            return Ok(None);
        };
        tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes))
            .await
            .map_err(|e| OpError::internal(format!("the reader of {key} panicked")).source(e))?
            .map(Some)
            .map_err(|error| {
                OpError::new(Kind::CorruptData, format!("object {key} is damaged")).source(error)
            })
    }

    /// Holds the partitions against what their maker recorded, and gives them.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`], naming the first partition that is missing, has another size or is one too many;
    /// [`Kind::Configuration`] for an object that is not understood: it may be a part of the backup.
    pub(crate) async fn checked_parts(
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
    let there: BTreeSet<&str> = parts
        .known
        .iter()
        .map(StoredPart::file_name)
        .chain(strange)
        .collect();
    let missing = |name: &&String| !there.contains(name.as_str());
    if let Some(lost) = list.partitions.iter().find(missing) {
        let what = format!(
            "partition {lost} of {} is not in the archive",
            list.partitions.len()
        );
        return Err(damaged(backup, &what));
    }
    if !there.iter().any(|name| name.starts_with("pg_control.tar")) {
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

    fn list(json: &str) -> MemberList {
        MemberList::of(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn fault_117_what_wal_g_lists_must_be_there() {
        let listed = list(
            r#"{"Files": {"/": {"IsSkipped": false}, "/base/5": {"IsSkipped": false, "MTime": "x", "CorruptBlocks": [1]},
                          "/base/5/1": {"IsSkipped": true}},
                "TarFileSets": {"part_001.tar.lz4": ["/", "/PG_VERSION"], "backup_label.tar.lz4": ["backup_label"]},
                "DatabasesByNames": {"a": {"oid": 1}}}"#,
        );
        let members: Vec<&str> = listed.members.iter().map(String::as_str).collect();
        // What is skipped is in the parent.
        assert_eq!(members, ["backup_label", "base/5"]);
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
