//! `backup-mark`: a base backup that is to stay, whatever retention says.
//!
//! The mark is WAL-G's: `is_permanent` in `metadata.json` beside the backup, so that its `delete` spares the backup as
//! ours does. A backup of WAL-E's has no such object and is given one. Everything else in it is left as it was.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use wale_archive::{Archive, BackupEntry, BackupSelector};
use wale_format::{BackupName, layout};
use wale_storage::body_from;

use crate::error::{Kind, OpError, Result};

/// What a backup is marked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// To stay.
    Permanent,
    /// To go when its time has come.
    Impermanent,
}

/// Marks a backup and gives its name.
///
/// # Errors
///
/// [`Kind::NotFound`] when there is no such backup or it is deleted meanwhile, [`Kind::Busy`] when a deletion of it may
/// have begun before the mark was there, [`Kind::CorruptData`] when its `metadata.json` is damaged, the store's failures.
pub async fn run(archive: &Archive, selector: &BackupSelector, mark: Mark) -> Result<BackupName> {
    let catalog = archive.catalog().await?;
    let chosen;
    let entry = match selector {
        BackupSelector::Latest => {
            chosen = archive.choose(&catalog, selector).await?;
            for sentence in &chosen.passed_over {
                tracing::warn!("{sentence}");
            }
            &chosen.entry
        }
        // This also takes one that cannot be restored: the mark keeps it from being deleted.
        BackupSelector::Name(name) => catalog.find(name).ok_or_else(|| {
            OpError::new(Kind::NotFound, format!("no backup {name} in the archive"))
                .hint("backup-list prints the names of all backups")
        })?,
    };
    let key = Archive::key(&layout::metadata(&entry.name))?;
    let mut metadata: Map<String, Value> = match archive.read_small(&key).await? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            OpError::new(Kind::CorruptData, format!("object {key} is damaged"))
                .hint("repair or delete it: the backup can be restored without it")
                .source(error)
        })?,
        None => known(entry),
    };
    metadata.insert("is_permanent".to_owned(), (mark == Mark::Permanent).into());
    let bytes = Bytes::from(Value::from(metadata).to_string());
    archive
        .store()
        .put(&key, body_from(bytes))
        .await
        .map_err(|error| OpError::from_store(error, format_args!("store {key}")))?;
    if mark == Mark::Permanent {
        check_it_stays(archive, &entry.name).await?;
    }
    Ok(entry.name.clone())
}

/// A deletion that began before the mark was there has not seen it. It puts its note first and takes it away last, after
/// the sentinel; so without a note it is over or begins after the mark. The check for the sentinel afterwards shows
/// which.
async fn check_it_stays(archive: &Archive, name: &BackupName) -> Result<()> {
    let look = async |key: String| {
        let key = Archive::key(&key)?;
        let head = archive.store().head(&key).await;
        head.map_err(|error| OpError::from_store(error, format_args!("look for {key}")))
    };
    let note = look(layout::deletion(name)).await?;
    if look(layout::sentinel(name)).await?.is_none() {
        // Otherwise the mark would be all that is left of the backup.
        let key = Archive::key(&layout::metadata(name))?;
        let deleted = archive.store().delete(&key).await;
        deleted.map_err(|error| OpError::from_store(error, format_args!("delete {key}")))?;
        return Err(OpError::new(
            Kind::NotFound,
            format!("backup {name} was deleted while it was marked"),
        ));
    }
    if note.is_some() {
        return Err(OpError::new(
            Kind::Busy,
            format!("a deletion of backup {name} may be running"),
        )
        .detail("A deletion of it began before it was marked, and may not have seen the mark.")
        .hint("mark it again when that deletion has ended; if it was interrupted, the next deletion spares what is \
               marked"));
    }
    Ok(())
}

/// What WAL-G's object says where the backup has none: the little that is known.
fn known(entry: &BackupEntry) -> Map<String, Value> {
    let sentinel = entry.readable();
    let lsn = |position: Option<wale_pg::Lsn>| position.map_or(0, wale_pg::Lsn::as_u64);
    let time = |time: chrono::DateTime<chrono::Utc>| {
        time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
    };
    let start = sentinel
        .and_then(wale_format::Sentinel::started_at)
        .unwrap_or(entry.time);
    let value = json!({
        "start_time": time(start),
        "finish_time": time(entry.time),
        "date_fmt": "%Y-%m-%dT%H:%M:%S.%fZ",
        "hostname": "",
        "data_dir": "",
        "pg_version": 0,
        "start_lsn": lsn(sentinel.and_then(wale_format::Sentinel::start_lsn)),
        "finish_lsn": lsn(sentinel.and_then(wale_format::Sentinel::stop_lsn)),
        "is_permanent": false,
        "system_identifier": null,
        "uncompressed_size": sentinel.and_then(wale_format::Sentinel::bytes).unwrap_or(0),
        "compressed_size": 0,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
