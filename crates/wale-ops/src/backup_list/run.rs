//! The catalog as a list. A backup whose sentinel cannot be read is listed by its name: it is there, and an operator
//! who looks for it must see it.

use futures_util::{StreamExt, TryStreamExt, stream};
use wale_archive::{
    Archive, BackupEntry, BackupSelector, Catalog, CheckDepth, Looks, SeenEncryption,
    SentinelRecord,
};
use wale_format::{Encryption, Sentinel};
use wale_pg::{MajorVersion, SystemIdentifier};

use super::report::{BackupLook, BackupSummary, Tool};
use crate::error::Result;

/// Backups looked at together: they hide a store's latency well enough.
const LOOKS_AT_ONCE: usize = 8;

/// All base backups of the archive, the one that ended first coming first.
///
/// # Errors
///
/// Those of the store. One listing and one small read per backup.
pub async fn run(archive: &Archive) -> Result<Vec<BackupSummary>> {
    Ok(archive
        .catalog()
        .await?
        .backups
        .iter()
        .map(summary)
        .collect())
}

/// Looks at the objects of each of these backups: what they are, how they are encrypted, and whether the backup can be restored.
///
/// # Errors
///
/// Those of the store. Once more what [`run`] costs, two listings and a few small reads per backup (the record of its rehearsal among them), and of one that may be
/// encrypted the beginning of one partition.
pub async fn look(archive: &Archive, backups: Vec<BackupSummary>) -> Result<Vec<BackupSummary>> {
    let catalog = archive.catalog().await?;
    let looks = Looks::new(archive, &catalog);
    let encrypts = encrypts(archive).await?;
    let looks: Vec<_> = backups
        .into_iter()
        .map(|summary| look_at(archive, &catalog, &looks, encrypts, summary))
        .collect();
    stream::iter(looks)
        .buffered(LOOKS_AT_ONCE)
        .try_collect()
        .await
}

/// Whether wale ever wrote encrypted objects here. Where its record cannot be read, it may have.
async fn encrypts(archive: &Archive) -> Result<bool> {
    match archive.read_identity().await {
        Ok(identity) => Ok(identity.is_some_and(|identity| {
            identity.encryption != Encryption::None || !identity.encryptions.is_empty()
        })),
        Err(error) if error.kind.retryable() => Err(error),
        Err(_) => Ok(true),
    }
}

async fn look_at(
    archive: &Archive,
    catalog: &Catalog,
    looks: &Looks<'_>,
    encrypts: bool,
    summary: BackupSummary,
) -> Result<BackupSummary> {
    let (mut cannot, mut seen) = match catalog.find(&summary.name) {
        Some(entry) => {
            let looked = looks.at(entry, CheckDepth::Whole).await?;
            let flaw = looked.flaw.map(|flaw| flaw.words().to_owned());
            (flaw, looked.encryption)
        }
        None => (
            Some("it was deleted just now".to_owned()),
            SeenEncryption::Clear,
        ),
    };
    let proof = match catalog.find(&summary.name) {
        Some(entry) => archive.backup_proof(entry).await?,
        None => None,
    };
    let parts = archive.parts(&summary.name).await?.known;
    // Of a backup of wale's the look opens nothing, and of one that lacks something it may not come so far.
    if seen == SeenEncryption::Unknown && (encrypts || !summary.wale) {
        match archive.shown_encryption(&parts).await {
            Ok(shown) => seen = shown.into(),
            Err(error) if error.kind.retryable() => return Err(error),
            Err(error) => drop(cannot.get_or_insert_with(|| error.chain())),
        }
    }
    let encryption = match seen {
        SeenEncryption::Encrypted(shown) => Some(shown),
        SeenEncryption::Clear | SeenEncryption::Unknown => None,
    };
    if let Some(locked) = encryption.as_ref().and_then(|shown| shown.locked) {
        cannot.get_or_insert_with(|| locked.to_string());
    }
    let looked = BackupLook {
        codecs: parts.iter().map(|part| part.codec).collect(),
        cannot,
        encryption,
        proof,
        rehearsed: archive.rehearsed(&summary.name).await?,
    };
    Ok(BackupSummary {
        looked: Some(looked),
        ..summary
    })
}

/// The backup that `LATEST` means, and sentences about newer ones that it passes over. `None` where there is none.
///
/// # Errors
///
/// Those of the store.
pub async fn latest(archive: &Archive) -> Result<(Option<BackupSummary>, Vec<String>)> {
    let catalog = archive.catalog().await?;
    match archive.choose(&catalog, &BackupSelector::Latest).await {
        Ok(chosen) => Ok((Some(summary(&chosen.entry)), chosen.passed_over)),
        Err(error) if error.kind.retryable() => Err(error),
        Err(_) if catalog.backups.is_empty() => Ok((None, Vec::new())),
        Err(error) => {
            let detail = error.detail.as_deref().unwrap_or_default();
            Ok((None, vec![format!("{} {detail}", error.chain())]))
        }
    }
}

fn summary(entry: &BackupEntry) -> BackupSummary {
    let nothing = Sentinel::default();
    let (sentinel, damaged) = match &entry.sentinel {
        SentinelRecord::Readable(sentinel) => (sentinel.as_ref(), None),
        SentinelRecord::Damaged(reason) => (&nothing, Some(reason.clone())),
    };
    let wale = sentinel.wale.as_ref();
    let segment = entry.name.segment();
    let foreign_major = || {
        sentinel
            .pg_version
            .and_then(|number| MajorVersion::from_server_version_num(number).ok())
    };
    BackupSummary {
        name: entry.name.clone(),
        modified: entry.modified,
        expanded_size_bytes: sentinel.bytes(),
        start_segment: segment.to_string(),
        start_offset: entry.name.offset().unwrap_or_default().to_owned(),
        stop_segment: sentinel.wal_segment_backup_stop.clone().unwrap_or_default(),
        stop_offset: sentinel
            .wal_segment_offset_backup_stop
            .clone()
            .unwrap_or_default(),
        start_time: sentinel.started_at(),
        stop_time: sentinel.stopped_at(),
        start_lsn: sentinel.start_lsn(),
        stop_lsn: sentinel.stop_lsn(),
        timeline: wale.map_or(segment.timeline(), |wale| wale.start_timeline),
        major: wale.map(|wale| wale.major).or_else(foreign_major),
        files: wale.map(|wale| wale.files),
        stored_bytes: wale
            .map(wale_format::WaleSentinel::bytes_stored)
            .or(sentinel.compressed_size),
        damaged_pages: wale.map_or(0, |wale| wale.damaged_pages.len() as u64),
        preload_libraries: wale
            .and_then(|wale| wale.settings.get("shared_preload_libraries"))
            .cloned(),
        extensions: wale.map(|wale| wale.extensions.clone()).unwrap_or_default(),
        timescaledb: wale
            .map(|wale| wale.timescaledb.clone())
            .unwrap_or_default(),
        wale: wale.is_some(),
        tool: damaged.is_none().then(|| tool_of(sentinel)),
        system_identifier: sentinel.system_identifier.map(SystemIdentifier::new),
        parent: sentinel.delta_from.clone(),
        looked: None,
        damaged,
    }
}

/// WAL-E records segments; WAL-G records positions, and of what it copied of WAL-E's it leaves the record as it was.
fn tool_of(sentinel: &Sentinel) -> Tool {
    if sentinel.wale.is_some() {
        Tool::Wale
    } else if sentinel.lsn.is_some() || sentinel.finish_lsn.is_some() {
        Tool::WalG
    } else {
        Tool::WalE
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use wale_format::BackupName;

    use super::*;

    #[test]
    fn a_foreign_or_damaged_sentinel_still_makes_a_line() {
        let name = BackupName::parse("base_000000020000000000000003_00000040").unwrap();
        let text = br#"{"wal_segment_backup_stop": "000000020000000000000003",
            "wal_segment_offset_backup_stop": "00000256", "expanded_size_bytes": 18075613}"#;
        let wal_e = Sentinel::parse(text).unwrap();
        let entry = |sentinel| BackupEntry {
            name: name.clone(),
            sentinel,
            modified: DateTime::UNIX_EPOCH,
            time: DateTime::UNIX_EPOCH,
            recorded: false,
        };
        let listed = summary(&entry(SentinelRecord::Readable(Box::new(wal_e))));
        assert_eq!(listed.expanded_size_bytes, Some(18_075_613));
        assert_eq!(
            (listed.start_offset.as_str(), listed.stop_offset.as_str()),
            ("00000040", "00000256")
        );
        assert_eq!(
            (listed.timeline.get(), listed.wale, listed.damaged),
            (2, false, None)
        );
        assert_eq!((listed.tool, listed.looked), (Some(Tool::WalE), None));
        let listed = summary(&entry(SentinelRecord::Damaged("no JSON".to_owned())));
        assert_eq!(
            (listed.stop_segment.as_str(), listed.damaged.as_deref()),
            ("", Some("no JSON"))
        );
    }
}
