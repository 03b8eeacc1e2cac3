//! `adopt`: what a prefix holds that another tool filled, how far it can be restored, and what changes when wale goes on in
//! it. Nothing is written: the first push or base backup adopts it.

use std::fmt::Write;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use wale_format::{ArchiveIdentity, Codec};
use wale_ops::backup_list::{self, BackupSummary, Tool};
use wale_ops::recoverable::{self, Recoverable};
use wale_ops::wal_survey::{self, WalSurvey};
use wale_ops::{Archive, DataDirectory, Encryption, Kind, OpError, RefusedEncryption, Remedy};
use wale_pg::{ClusterIdentity, SystemIdentifier};

use crate::config::{Settings, declared};
use crate::logging::escaped;
use crate::progress::bytes;

/// All that was found.
struct Found {
    location: String,
    identity: Option<ArchiveIdentity>,
    backups: Vec<BackupSummary>,
    wal: WalSurvey,
    stretches: Vec<Recoverable>,
    cluster: Option<ClusterIdentity>,
    /// Why nothing would be written for how the archive is encrypted.
    refused: Option<RefusedEncryption>,
}

/// What to print.
///
/// # Errors
///
/// [`Kind::NotFound`] where nothing is there; [`Kind::ArchiveMismatch`] when it is another cluster's than the one in the data
/// directory; the store's.
pub(super) async fn run(
    archive: &Archive,
    settings: &Settings,
    json: bool,
) -> Result<String, OpError> {
    let found = look(archive, &settings.get(&declared::PGDATA)).await?;
    if found.backups.is_empty() && found.wal == WalSurvey::default() && found.identity.is_none() {
        return Err(OpError::new(
            Kind::NotFound,
            format!(
                "{} holds no archive: neither wale.json nor base backups nor WAL",
                found.location
            ),
        )
        .hint(
            "check the prefix; WAL-G's archives may lie in a folder below it (WALG_STORAGE_PREFIX)",
        ));
    }
    if let (Some(cluster), Some(owner)) = (&found.cluster, found.owner())
        && cluster.system_identifier != owner
    {
        return Err(wale_ops::foreign_cluster(
            owner,
            cluster.system_identifier,
            &found.location,
        ));
    }
    let codec = settings.get(&declared::WALE_COMPRESSION);
    let changes = found.changes(codec, settings.retention().is_set());
    Ok(if json {
        format!("{:#}\n", found.as_json(&changes))
    } else {
        found.as_text(&changes)
    })
}

async fn look(archive: &Archive, data_directory: &Path) -> Result<Found, OpError> {
    let backups = backup_list::run(archive).await?;
    let backups = backup_list::look(archive, backups).await?;
    let can = |one: &&BackupSummary| cannot(one).is_none();
    let restorable: Vec<_> = backups
        .iter()
        .filter(can)
        .map(|one| one.name.clone())
        .collect();
    let identity = match archive.read_identity().await {
        Ok(identity) => identity,
        // Begun by wale, and its record is gone: the report says what is there.
        Err(error) if !error.kind.retryable() => None,
        Err(error) => return Err(error),
    };
    let wal = wal_survey::run(archive).await?;
    let newest = wal.newest_object.as_ref();
    Ok(Found {
        location: archive.location(),
        refused: archive
            .refused_encryption(identity.as_ref(), newest)
            .await?,
        identity,
        wal,
        stretches: recoverable::stretches(archive, &restorable).await?,
        backups,
        cluster: DataDirectory::at(data_directory)
            .control_file()
            .ok()
            .map(|control| control.identity()),
    })
}

/// Why a backup cannot be restored; `None` where it can.
fn cannot(backup: &BackupSummary) -> Option<&str> {
    let looked = backup
        .looked
        .as_ref()
        .and_then(|looked| looked.cannot.as_deref());
    backup.damaged.as_deref().or(looked)
}

impl Found {
    /// Whose archive it is, where anything says so.
    fn owner(&self) -> Option<SystemIdentifier> {
        let recorded = self
            .identity
            .as_ref()
            .map(|own| own.cluster.system_identifier);
        let of_wal = || self.wal.owner.map(|owner| owner.system_identifier);
        let mut newest_first = self.backups.iter().rev();
        let of_backup = || newest_first.find_map(|one| one.system_identifier);
        recorded.or_else(of_wal).or_else(of_backup)
    }

    /// What will be other than before, in sentences.
    fn changes(&self, codec: Codec, deletes: bool) -> Vec<String> {
        let mut changes: Vec<String> = self.refused.iter().map(of_refusal).collect();
        if self.identity.is_none() {
            changes.push(
                "the first push or base backup writes wale.json, which says whose archive this is; another cluster is refused \
                 from then on"
                    .to_owned(),
            );
        }
        changes.push(format!(
            "new WAL and base backups are written as {codec}; what is there stays as it is, and is read"
        ));
        let made_by = |tool| self.backups.iter().any(|one| one.tool == Some(tool));
        if made_by(Tool::WalE) && codec != Codec::Lzo {
            changes.push(
                "the real WAL-E reads only lzo: WALE_COMPRESSION=lzo keeps the way back to it"
                    .to_owned(),
            );
        }
        changes.push(if deletes {
            "the rules of retention that are set count backups of every tool; `wale retain` shows what they delete".to_owned()
        } else {
            "nothing is deleted: no rule of retention is set".to_owned()
        });
        if made_by(Tool::WalE) || made_by(Tool::WalG) {
            changes.push(
                "the other tool's own deletions must end: they know nothing of what wale's backups need".to_owned(),
            );
        }
        let unreadable = self
            .backups
            .iter()
            .filter(|one| cannot(one).is_some())
            .count();
        if unreadable > 0 {
            changes.push(format!(
                "{unreadable} base backups cannot be restored as wale is set up now; keep the other tool and its keys for them"
            ));
        }
        if self
            .backups
            .last()
            .is_none_or(|one| one.tool != Some(Tool::Wale))
        {
            changes
                .push("take a base backup with wale at once, and try a restore of it".to_owned());
        }
        changes
    }

    fn as_text(&self, changes: &[String]) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Much of it is the archive's: no control character of it may reach the terminal.
            let _ = writeln!(text, "{name:<10} {}", escaped(&value));
        };
        line("archive", self.location.clone());
        line("belongs to", self.belongs_to());
        if self.cluster.is_some() {
            line(
                "cluster",
                "the data directory is of this cluster".to_owned(),
            );
        }
        let restorable = self
            .backups
            .iter()
            .filter(|one| cannot(one).is_none())
            .count();
        line(
            "backups",
            format!(
                "{}, of which {restorable} can be restored",
                self.backups.len()
            ),
        );
        for backup in &self.backups {
            line("", of_backup(backup));
            if let Some(why) = cannot(backup) {
                line("", format!("  cannot be restored: {why}"));
            }
        }
        line("wal", self.of_wal());
        if let Some(why) = &self.wal.newest_unreadable {
            line("", format!("the newest segment cannot be read: {why}"));
        }
        for stretch in &self.stretches {
            line("recovery", self.of_stretch(stretch));
            if let Some(gap) = gap_of(stretch) {
                line("", gap);
            }
        }
        if self.stretches.is_empty() {
            line(
                "recovery",
                "none: no base backup can be restored".to_owned(),
            );
        }
        for change in changes {
            line("changes", change.clone());
        }
        text
    }

    fn belongs_to(&self) -> String {
        let how = match (&self.identity, &self.wal.owner) {
            (Some(_), _) => "as wale.json says",
            (None, Some(_)) => "as its newest segment says",
            (None, None) => "as its newest base backup says",
        };
        let size = self
            .identity
            .as_ref()
            .map(|own| own.cluster.wal_segment_size);
        let size = size.or(self.wal.owner.map(|owner| owner.segment_size));
        match (self.owner(), size) {
            (Some(owner), Some(size)) => format!(
                "system identifier {owner}, with segments of {}, {how}",
                bytes(size.bytes())
            ),
            (Some(owner), None) => format!("system identifier {owner}, {how}"),
            (None, _) => {
                "nobody knows: neither wale.json, nor a segment that can be read, nor a base backup says it".to_owned()
            }
        }
    }

    fn of_wal(&self) -> String {
        let wal = &self.wal;
        let Some((first, last)) = wal.ends else {
            return "none".to_owned();
        };
        let codecs = wal.segments.iter().map(|(codec, (count, _))| match codec {
            Some(codec) => format!("{count} {}", how(*codec)),
            None => format!("{count} under an extension that this version does not know"),
        });
        let stored: u64 = wal.segments.values().map(|(_, bytes)| bytes).sum();
        format!(
            "{} segments ({}), {}, {first} to {last}; {} histories, {} partial segments, {} notes of backups, {} other objects",
            wal.count(),
            codecs.collect::<Vec<_>>().join(", "),
            bytes(stored),
            wal.histories,
            wal.partials,
            wal.notes,
            wal.others
        )
    }

    /// From when to when: the end of the backup, and when the last segment was stored.
    fn of_stretch(&self, stretch: &Recoverable) -> String {
        let backup = self.backups.iter().find(|one| one.name == stretch.backup);
        let ended = backup.map(|one| one.stop_time.unwrap_or(one.modified));
        let mut text = format!("from {}", stretch.backup);
        if let Some(ended) = ended {
            let _ = write!(text, ", which ended at {}", shown(ended));
        }
        match stretch.until {
            Some(until) => {
                let _ = write!(text, ", to the end of segment {until}");
                if let Some((newest, stored)) = self.wal.newest
                    && newest == until
                {
                    let _ = write!(text, ", stored at {}", shown(stored));
                }
            }
            None => text.push_str(", whose own WAL is missing"),
        }
        text
    }

    fn as_json(&self, changes: &[String]) -> Value {
        let stretches = self.stretches.iter().map(|stretch| {
            json!({
                "backup": stretch.backup.as_str(),
                "from": stretch.from.to_string(),
                "until": stretch.until.map(|until| until.to_string()),
                "gap": gap_of(stretch),
            })
        });
        let backups = self.backups.iter().map(|backup| {
            json!({
                "name": backup.name.as_str(),
                "made_by": backup.tool.map(Tool::name),
                "delta_of": backup.parent,
                "restorable": cannot(backup).is_none(),
                "not_restorable_because": cannot(backup),
            })
        });
        let codecs = self.wal.segments.iter().map(|(codec, (count, _))| {
            (
                codec.map_or("unknown", Codec::name).to_owned(),
                json!(count),
            )
        });
        json!({
            "archive": self.location,
            "system_identifier": self.owner().map(|owner| owner.to_string()),
            "adopted": self.identity.is_some(),
            "backups": backups.collect::<Vec<_>>(),
            "segments": codecs.collect::<serde_json::Map<_, _>>(),
            "recovery": stretches.collect::<Vec<_>>(),
            "refused_because": self.refused.as_ref().map(|refused| refused.error.chain()),
            "changes": changes,
        })
    }
}

/// That nothing will be written, why, and what to set.
fn of_refusal(refused: &RefusedEncryption) -> String {
    let RefusedEncryption { error, method } = refused;
    let mut text = format!(
        "nothing is written as wale is set up now: pushes and base backups are refused, and PostgreSQL keeps its WAL until the \
         archive's keys are set ({}). {}.",
        key_settings(*method),
        error.chain()
    );
    if let Some(detail) = &error.detail {
        let _ = write!(text, " {detail}");
    }
    if let Some(Remedy::EncryptionChange { word }) = error.remedy.as_deref() {
        let _ = write!(
            text,
            " WALE_ENCRYPTION_CHANGE={word} goes on as it is set now, on purpose."
        );
    }
    text
}

/// The settings that hold keys to write with.
const fn key_settings(method: Option<Encryption>) -> &'static str {
    match method {
        Some(Encryption::Age) => "WALE_AGE_RECIPIENTS",
        Some(Encryption::OpenPgp) => "WALE_GPG_KEY_ID, or WALG_PGP_KEY_PATH",
        Some(Encryption::Libsodium) => {
            "WALG_LIBSODIUM_KEY_PATH, with WALG_LIBSODIUM_KEY_TRANSFORM as it was"
        }
        Some(Encryption::None) | None => {
            "WALG_LIBSODIUM_KEY_PATH with WALG_LIBSODIUM_KEY_TRANSFORM, WALG_PGP_KEY_PATH, WALE_GPG_KEY_ID or WALE_AGE_RECIPIENTS"
        }
    }
}

fn how(codec: Codec) -> &'static str {
    match codec {
        Codec::None => "uncompressed",
        codec => codec.name(),
    }
}

fn of_backup(backup: &BackupSummary) -> String {
    let mut text = backup.name.to_string();
    if let Some(tool) = backup.tool {
        let _ = write!(text, ", by {}", tool.name());
    }
    if let Some(major) = backup.major {
        let _ = write!(text, ", PostgreSQL {major}");
    }
    if let Some(looked) = &backup.looked {
        let codecs: Vec<&str> = looked.codecs.iter().copied().map(how).collect();
        let _ = write!(text, ", {}", codecs.join(" and "));
        if let Some(shown) = &looked.encryption {
            let method = shown.method.map_or("something unknown", Encryption::name);
            let _ = write!(text, ", encrypted with {method}");
            if !shown.keys.is_empty() && shown.method != Some(Encryption::Libsodium) {
                let _ = write!(text, " for {}", shown.keys.join(", "));
            }
        }
    }
    if let Some(parent) = &backup.parent {
        let _ = write!(text, ", a delta of {parent}");
    }
    if let Some(ended) = backup.stop_time {
        let _ = write!(text, ", ended at {}", shown(ended));
    }
    text
}

/// What ends a stretch, where it is a gap.
fn gap_of(stretch: &Recoverable) -> Option<String> {
    if let Some(lost) = &stretch.lost_history {
        return Some(format!(
            "{} is missing, and recovery asks for it",
            lost.name()
        ));
    }
    let gap = stretch.gap?;
    Some(match &stretch.unreadable {
        Some(key) => format!("{key} cannot be read as wale is set up now"),
        None => format!(
            "{} segments are missing, {} to {}: only a later base backup leads past them",
            stretch.missing, gap.from, gap.to
        ),
    })
}

fn shown(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S+00").to_string()
}
