//! Names of objects: key ↔ meaning, relative to the prefix of the archive.
//!
//! One layout for three tools: WAL-E's tree of version 005, which WAL-G kept. wale adds `wale.json`
//! at the root and `backup_manifest` beside a backup's partitions, where the deletes of both others
//! leave no leftovers and take no offence.
//!
//! ```text
//! wale.json
//! wale_sealed_test_<method>-<8 hex>               ours: a small text, encrypted as the archive is, to try a key on
//! wale_slot.json                                  ours: who serves the schedule's slot now; gone at the end
//! wale_waits_for_<number>                         ours: since when retention waits for that archive; gone when it has caught up
//! wale_disputed.json                              ours, of an archive that follows another: WAL that differs from the first's
//! wale_clock                                      ours, gone at once: its time is the store's time of day
//! wale_verified_wal.json                          ours: which WAL was read and found good, and when
//! basebackups_005/
//!     <backup>_backup_stop_sentinel.json          written last: its presence commits the backup
//!     <backup>/extended_version.txt
//!     <backup>/metadata.json                      WAL-G's
//!     <backup>/files_metadata.json                WAL-G's, read only
//!     <backup>/backup_manifest                    PostgreSQL's
//!     <backup>/wale_frames.json.zst               ours: where in the partitions the files lie
//!     <backup>/wale_configuration.json            ours: the server's configuration, where it lies outside of PGDATA
//!     <backup>/wale_rehearsed.json                ours: what the last rehearsal of a restore from it found
//!     <backup>/wale_attempt.json                  ours: who writes the backup, or removes what is left of it; gone at the end
//!     <backup>/wale_deletion                      ours: the backup is being deleted
//!     <backup>/wale_verified.json                 ours: when the backup was read, and what was found
//!     <backup>/tar_partitions/part_NNNNNNNN.tar[.<ext>]
//! wal_005/
//!     <segment>.                                  WAL-G 3.0.8's, of what it did not compress; read only
//!     <segment>[.<ext>]   <segment>.partial[.<ext>]   <segment>.<8 HEX>.backup[.<ext>]   <8 HEX>.history[.<ext>]
//!     <segment>.partial.<16 hex>[.<ext>]          another partial segment of the same name, other bytes
//! ```
//!
//! Refuses to know: stores, prefixes, encryption (no name shows it).
//!
//! Invariant: bijective. `parse(key).to_key() == Some(key)` for every key that is not
//! [`ArchiveKey::Unknown`], and `parse(meaning.to_key()) == meaning`. What other tools' readers are
//! lax about (digits of a partition number, WAL-G 3.0.8's dangling dot) is therefore
//! [`ArchiveKey::ForeignPartition`] or unknown.

use wale_pg::ArchiveFileName;

use crate::{BackupName, Codec};

/// The object that says whose archive this is.
pub const IDENTITY: &str = "wale.json";
/// The object that is put to learn the store's time of day, and deleted again.
pub const CLOCK: &str = "wale_clock";
/// The claim on the slot of a schedule that several sidecars share; gone when the slot is served.
pub const SLOT: &str = "wale_slot.json";
/// What the objects begin with whose time says since when retention waits for a further archive; its number follows.
pub const WAITS_PREFIX: &str = "wale_waits_for_";
/// What an archive that follows another one holds with other bytes than that one.
pub const DISPUTED: &str = "wale_disputed.json";
/// What is known of the WAL that was read to verify it.
pub const VERIFIED_WAL: &str = "wale_verified_wal.json";
/// What the objects begin with that a key can be tried on; the word of method and keys follows.
pub const SEALED_TEST_PREFIX: &str = "wale_sealed_test_";
/// Where WAL lies.
pub const WAL_PREFIX: &str = "wal_005/";
/// Where base backups lie.
pub const BACKUP_PREFIX: &str = "basebackups_005/";

const SENTINEL_SUFFIX: &str = "_backup_stop_sentinel.json";
const EXTENDED_VERSION: &str = "extended_version.txt";
const METADATA: &str = "metadata.json";
const FILES_METADATA: &str = "files_metadata.json";
const MANIFEST: &str = "backup_manifest";
const FRAMES: &str = "wale_frames.json.zst";
const CONFIGURATION: &str = "wale_configuration.json";
const REHEARSED: &str = "wale_rehearsed.json";
const ATTEMPT: &str = "wale_attempt.json";
const DELETION: &str = "wale_deletion";
const VERIFIED: &str = "wale_verified.json";
const PARTITIONS: &str = "tar_partitions/";
/// Hexadecimal digits of a content digest in the name of a conflicting file.
const CONFLICT_DIGITS: usize = 16;

/// The key of an archived file.
#[must_use]
pub fn wal(name: &ArchiveFileName, codec: Codec) -> String {
    format!("{WAL_PREFIX}{name}{}", codec.suffix())
}

/// The key under which WAL-G 3.0.8 stored an archived file that it did not compress.
#[must_use]
pub fn wal_with_dot(name: &ArchiveFileName) -> String {
    format!("{WAL_PREFIX}{name}.")
}

/// The key for a file whose name is taken by other bytes: in practice the partial segment of a second
/// promotion from one timeline. The first 16 digits of the plain bytes' SHA-256 distinguish them.
///
/// # Panics
/// When `digest_hex` does not begin with 16 lower-case hexadecimal digits: a bug of the caller.
#[must_use]
pub fn wal_conflicting_partial(name: &ArchiveFileName, digest_hex: &str, codec: Codec) -> String {
    let digits = digest_hex.get(..CONFLICT_DIGITS).unwrap_or_default();
    assert!(
        is_conflict(digits),
        "a content digest begins with 16 lower-case hexadecimal digits"
    );
    format!("{WAL_PREFIX}{name}.{digits}{}", codec.suffix())
}

/// The key of a backup's commit record.
#[must_use]
pub fn sentinel(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}{SENTINEL_SUFFIX}")
}

/// The prefix of everything of a backup but its sentinel; ends in `/`.
#[must_use]
pub fn backup_folder(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/")
}

/// The key of the text with the server's version.
#[must_use]
pub fn extended_version(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{EXTENDED_VERSION}")
}

/// The key of WAL-G's `metadata.json`.
#[must_use]
pub fn metadata(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{METADATA}")
}

/// The key of WAL-G's list of files.
#[must_use]
pub fn files_metadata(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{FILES_METADATA}")
}

/// The key of PostgreSQL's `backup_manifest`.
#[must_use]
pub fn manifest(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{MANIFEST}")
}

/// The key of the index that says where in the partitions the files lie. Nothing needs it.
#[must_use]
pub fn frames(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{FRAMES}")
}

/// The key of the configuration that lay outside of the data directory.
#[must_use]
pub fn configuration(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{CONFIGURATION}")
}

/// The key of what the last rehearsal of a restore from the backup found. It is written over, goes with the backup, and is no
/// part of it.
#[must_use]
pub fn rehearsed(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{REHEARSED}")
}

/// The key of the note that a backup is being deleted. It is there before the sentinel goes, and goes last: what has
/// the note and no sentinel is no backup that is being written.
#[must_use]
pub fn deletion(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{DELETION}")
}

/// The key of the claim on a backup's name: its holder writes the backup, or removes what is left of it. Beside a
/// sentinel it means nothing.
#[must_use]
pub fn attempt(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{ATTEMPT}")
}

/// The key of the record of the last time when the whole backup was read. It goes with the backup, and not along to a copy.
#[must_use]
pub fn verified(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{VERIFIED}")
}

/// The prefix of a backup's partitions; ends in `/`. Nothing but tar files may lie there.
#[must_use]
pub fn partitions_prefix(backup: &BackupName) -> String {
    format!("{BACKUP_PREFIX}{backup}/{PARTITIONS}")
}

/// The key of a partition.
#[must_use]
pub fn partition(backup: &BackupName, number: u32, codec: Codec) -> String {
    format!(
        "{BACKUP_PREFIX}{backup}/{PARTITIONS}part_{number:08}.tar{}",
        codec.suffix()
    )
}

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ArchiveKey {
    /// `wale.json`.
    Identity,
    /// An archived file.
    Wal {
        /// The file's name in PostgreSQL.
        name: ArchiveFileName,
        /// How it is compressed.
        codec: Codec,
        /// 16 digits of a digest when the object stands beside another of the same name.
        conflict: Option<String>,
        /// Whether the name ends in a dot, as WAL-G 3.0.8 named what it did not compress. Every WAL-G reads it.
        dot: bool,
    },
    /// The commit record of a backup.
    Sentinel(BackupName),
    /// The text with the server's version.
    ExtendedVersion(BackupName),
    /// WAL-G's small description of a backup.
    Metadata(BackupName),
    /// WAL-G's list of files.
    FilesMetadata(BackupName),
    /// PostgreSQL's manifest.
    Manifest(BackupName),
    /// Where in the partitions the files lie.
    Frames(BackupName),
    /// The configuration that lay outside of the data directory.
    Configuration(BackupName),
    /// What the last rehearsal found.
    Rehearsed(BackupName),
    /// The claim on a backup's name.
    Attempt(BackupName),
    /// The note that a backup is being deleted.
    Deletion(BackupName),
    /// The record of the last time when the whole backup was read.
    Verified(BackupName),
    /// A partition as WAL-E and wale name them.
    Partition {
        /// The backup.
        backup: BackupName,
        /// From 0.
        number: u32,
        /// How it is compressed.
        codec: Codec,
    },
    /// A partition as WAL-G names them: `part_001`, `copy_3`, `pg_control`, `backup_label`.
    ForeignPartition {
        /// The backup.
        backup: BackupName,
        /// Name without `.tar` and the codec's extension: ASCII letters, digits and underscores, and `copy_3.tar` of a
        /// part that was copied uncompressed.
        part: String,
        /// How it is compressed.
        codec: Codec,
        /// Whether the name ends in a dot, as WAL-G 3.0.8 named what it did not compress.
        dot: bool,
    },
    /// Nothing that this version knows.
    Unknown,
}

impl ArchiveKey {
    /// The key; `None` for [`ArchiveKey::Unknown`].
    #[must_use]
    pub fn to_key(&self) -> Option<String> {
        Some(match self {
            Self::Identity => IDENTITY.to_owned(),
            Self::Wal {
                name, dot: true, ..
            } => wal_with_dot(name),
            Self::Wal {
                name,
                codec,
                conflict: None,
                ..
            } => wal(name, *codec),
            Self::Wal {
                name,
                codec,
                conflict: Some(digits),
                ..
            } => wal_conflicting_partial(name, digits, *codec),
            Self::Sentinel(backup) => sentinel(backup),
            Self::ExtendedVersion(backup) => extended_version(backup),
            Self::Metadata(backup) => metadata(backup),
            Self::FilesMetadata(backup) => files_metadata(backup),
            Self::Manifest(backup) => manifest(backup),
            Self::Frames(backup) => frames(backup),
            Self::Configuration(backup) => configuration(backup),
            Self::Rehearsed(backup) => rehearsed(backup),
            Self::Attempt(backup) => attempt(backup),
            Self::Deletion(backup) => deletion(backup),
            Self::Verified(backup) => verified(backup),
            Self::Partition {
                backup,
                number,
                codec,
            } => partition(backup, *number, *codec),
            Self::ForeignPartition {
                backup,
                part,
                codec,
                dot,
            } => format!(
                "{BACKUP_PREFIX}{backup}/{PARTITIONS}{part}.tar{}{}",
                codec.suffix(),
                if *dot { "." } else { "" }
            ),
            Self::Unknown => return None,
        })
    }

    /// The backup that the object belongs to, if any.
    #[must_use]
    pub const fn backup(&self) -> Option<&BackupName> {
        match self {
            Self::Sentinel(backup)
            | Self::ExtendedVersion(backup)
            | Self::Metadata(backup)
            | Self::FilesMetadata(backup)
            | Self::Manifest(backup)
            | Self::Frames(backup)
            | Self::Configuration(backup)
            | Self::Rehearsed(backup)
            | Self::Attempt(backup)
            | Self::Deletion(backup)
            | Self::Verified(backup)
            | Self::Partition { backup, .. }
            | Self::ForeignPartition { backup, .. } => Some(backup),
            Self::Identity | Self::Wal { .. } | Self::Unknown => None,
        }
    }
}

/// What a key, relative to the prefix, means. Anything that is not exactly as this room writes it, or
/// as WAL-G names its partitions, is [`ArchiveKey::Unknown`].
#[must_use]
pub fn parse(key: &str) -> ArchiveKey {
    let found = if key == IDENTITY {
        Some(ArchiveKey::Identity)
    } else if let Some(rest) = key.strip_prefix(WAL_PREFIX) {
        parse_wal(rest)
    } else if let Some(rest) = key.strip_prefix(BACKUP_PREFIX) {
        parse_backup(rest)
    } else {
        None
    };
    found.unwrap_or(ArchiveKey::Unknown)
}

/// The archived file that an object claims to hold by its name, under whatever extension, known or not. For questions
/// of absence: an object that cannot be read is still there.
#[must_use]
pub fn wal_claim(key: &str) -> Option<ArchiveFileName> {
    let mut stem = key.strip_prefix(WAL_PREFIX)?;
    loop {
        // From the longest on: `<segment>.partial.<ext>` is no segment.
        if let Ok(name) = ArchiveFileName::parse(stem) {
            return Some(name);
        }
        stem = stem.rsplit_once('.')?.0;
    }
}

/// Whether an object of this key belongs to an archive: whatever wale, WAL-E or WAL-G write, under an extension known or
/// not. Other programs may have theirs below the same prefix.
#[must_use]
pub fn is_ours(key: &str) -> bool {
    parse(key) != ArchiveKey::Unknown
        || key == CLOCK
        || key.starts_with(SEALED_TEST_PREFIX)
        || key == SLOT
        || key == DISPUTED
        || key.starts_with(WAITS_PREFIX)
        || key == VERIFIED_WAL
        || wal_claim(key).is_some()
        || backup_of(key).is_some()
}

/// The backup to which an object belongs by its place, known name or not: its sentinel, or anything in its folder.
#[must_use]
pub fn backup_of(key: &str) -> Option<BackupName> {
    let rest = key.strip_prefix(BACKUP_PREFIX)?;
    let name = match rest.split_once('/') {
        Some((name, _)) => name,
        None => rest.strip_suffix(SENTINEL_SUFFIX)?,
    };
    BackupName::parse(name).ok()
}

fn parse_wal(rest: &str) -> Option<ArchiveKey> {
    let (stem, codec) = split_codec(rest);
    let (whole, dot) = match (codec, stem.strip_suffix('.')) {
        (Codec::None, Some(whole)) => (whole, true),
        _ => (stem, false),
    };
    if let Ok(name) = ArchiveFileName::parse(whole) {
        return Some(ArchiveKey::Wal {
            name,
            codec,
            conflict: None,
            dot,
        });
    }
    let (stem, digits) = stem.rsplit_once('.')?;
    let name = ArchiveFileName::parse(stem).ok()?;
    is_conflict(digits).then(|| ArchiveKey::Wal {
        name,
        codec,
        conflict: Some(digits.to_owned()),
        dot: false,
    })
}

fn parse_backup(rest: &str) -> Option<ArchiveKey> {
    if let Some(name) = rest.strip_suffix(SENTINEL_SUFFIX) {
        return BackupName::parse(name).ok().map(ArchiveKey::Sentinel);
    }
    let (name, rest) = rest.split_once('/')?;
    let backup = BackupName::parse(name).ok()?;
    match rest {
        EXTENDED_VERSION => Some(ArchiveKey::ExtendedVersion(backup)),
        METADATA => Some(ArchiveKey::Metadata(backup)),
        FILES_METADATA => Some(ArchiveKey::FilesMetadata(backup)),
        MANIFEST => Some(ArchiveKey::Manifest(backup)),
        FRAMES => Some(ArchiveKey::Frames(backup)),
        CONFIGURATION => Some(ArchiveKey::Configuration(backup)),
        REHEARSED => Some(ArchiveKey::Rehearsed(backup)),
        ATTEMPT => Some(ArchiveKey::Attempt(backup)),
        DELETION => Some(ArchiveKey::Deletion(backup)),
        VERIFIED => Some(ArchiveKey::Verified(backup)),
        _ => parse_partition(backup, rest.strip_prefix(PARTITIONS)?),
    }
}

fn parse_partition(backup: BackupName, rest: &str) -> Option<ArchiveKey> {
    let (stem, codec) = split_codec(rest);
    let (stem, dot) = match (codec, stem.strip_suffix('.')) {
        (Codec::None, Some(stem)) => (stem, true),
        _ => (stem, false),
    };
    let part = stem.strip_suffix(".tar")?;
    if !dot
        && let Some(digits) = part.strip_prefix("part_")
        && let Ok(number) = digits.parse::<u32>()
        && format!("{number:08}") == digits
    {
        return Some(ArchiveKey::Partition {
            backup,
            number,
            codec,
        });
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    // WAL-G takes `tar` for the extension of what it copies uncompressed.
    let stem = match (codec, part.strip_suffix(".tar")) {
        (Codec::None, Some(stem)) if stem.starts_with("copy_") => stem,
        _ => part,
    };
    (!stem.is_empty() && stem.bytes().all(plain)).then(|| ArchiveKey::ForeignPartition {
        backup,
        part: part.to_owned(),
        codec,
        dot,
    })
}

/// Cuts the extension of a codec off; a name without one is not compressed.
fn split_codec(name: &str) -> (&str, Codec) {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !extension.is_empty() => {
            match Codec::from_extension(extension) {
                Some(codec) => (stem, codec),
                None => (name, Codec::None),
            }
        }
        _ => (name, Codec::None),
    }
}

fn is_conflict(digits: &str) -> bool {
    digits.len() == CONFLICT_DIGITS
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKUP: &str = "base_000000010000000000000003_00000040";

    fn backup() -> BackupName {
        BackupName::parse(BACKUP).expect("a backup name")
    }

    fn file(name: &str) -> ArchiveFileName {
        ArchiveFileName::parse(name).expect(name)
    }

    #[test]
    fn an_object_claims_a_file_under_any_extension() {
        const SEGMENT: &str = "000000010000000000000003";
        let cases = [
            ("", ""),
            (".zst", ""),
            (".", ""),
            (".lzo.gpg", ""),
            (".zst.age", ""),
            (".partial", ".partial"),
            (".partial.0123456789abcdef.zst", ".partial"),
            (".partial.new", ".partial"),
            (".00000028.backup.new", ".00000028.backup"),
        ];
        for (end, name) in cases {
            let key = format!("wal_005/{SEGMENT}{end}");
            let claimed = wal_claim(&key).expect(&key);
            assert_eq!(claimed, file(&format!("{SEGMENT}{name}")), "{key}");
        }
        for key in ["wal_005/", "wal_005/x.zst", "wal_005/0000000A", "wale.json"] {
            assert_eq!(wal_claim(key), None, "{key}");
        }
    }

    #[test]
    fn an_object_belongs_to_a_backup_by_its_place() {
        for (key, belongs) in [
            (sentinel(&backup()), true),
            (manifest(&backup()), true),
            (format!("{}strange/name", backup_folder(&backup())), true),
            (format!("{BACKUP_PREFIX}{BACKUP}"), false),
            (format!("{BACKUP_PREFIX}strange/name"), false),
            (format!("wal_005/{BACKUP}/x"), false),
        ] {
            assert_eq!(backup_of(&key), belongs.then(backup), "{key}");
        }
    }

    #[test]
    fn keys_of_each_meaning() {
        let in_folder = |name: &str| format!("basebackups_005/{BACKUP}/{name}");
        let segment = file("000000010000000000000003");
        let partial = file("000000010000000000000003.partial");
        let history = file("00000002.history");
        let note = file("000000010000000000000003.00000028.backup");
        let cases = [
            (
                "wal_005/000000010000000000000003.zst",
                wal(&segment, Codec::Zstd),
            ),
            (
                "wal_005/000000010000000000000003",
                wal(&segment, Codec::None),
            ),
            (
                "wal_005/000000010000000000000003.lzo",
                wal(&segment, Codec::Lzo),
            ),
            (
                "wal_005/000000010000000000000003.partial.lz4",
                wal(&partial, Codec::Lz4),
            ),
            ("wal_005/00000002.history", wal(&history, Codec::None)),
            (
                "wal_005/000000010000000000000003.00000028.backup.zst",
                wal(&note, Codec::Zstd),
            ),
            (
                "wal_005/000000010000000000000003.partial.0123456789abcdef.zst",
                wal_conflicting_partial(&partial, "0123456789abcdef0123", Codec::Zstd),
            ),
            (
                "basebackups_005/base_000000010000000000000003_00000040_backup_stop_sentinel.json",
                sentinel(&backup()),
            ),
            (
                "basebackups_005/base_000000010000000000000003_00000040/tar_partitions/part_00000012.tar.zst",
                partition(&backup(), 12, Codec::Zstd),
            ),
            (
                "basebackups_005/base_000000010000000000000003_00000040/backup_manifest",
                manifest(&backup()),
            ),
            (
                "basebackups_005/base_000000010000000000000003_00000040/wale_configuration.json",
                configuration(&backup()),
            ),
        ];
        let own = [
            ("wale_rehearsed.json", rehearsed(&backup())),
            ("wale_attempt.json", attempt(&backup())),
            ("wale_deletion", deletion(&backup())),
            ("wale_verified.json", verified(&backup())),
        ];
        let cases = cases.map(|(expected, key)| (expected.to_owned(), key));
        let own = own.map(|(name, key)| (in_folder(name), key));
        for (expected, key) in cases.into_iter().chain(own) {
            assert_eq!(key, expected);
            let meaning = parse(&key);
            assert_ne!(meaning, ArchiveKey::Unknown, "{key}");
            assert_eq!(meaning.to_key(), Some(expected));
        }
    }

    #[test]
    fn fault_95_what_belongs_to_an_archive_is_told_by_its_name() {
        let folder = format!("basebackups_005/{BACKUP}");
        let ours = [
            IDENTITY.to_owned(),
            CLOCK.to_owned(),
            format!("{SEALED_TEST_PREFIX}age-0f3c21ab"),
            SLOT.to_owned(),
            VERIFIED_WAL.to_owned(),
            "wal_005/000000010000000000000003.zst".to_owned(),
            "wal_005/000000010000000000000003.br".to_owned(),
            format!("{folder}/tar_partitions/part_001.tar.lz4"),
            format!("{folder}/tar_partitions/copy_0.tar.tar"),
            format!("{folder}/{ATTEMPT}"),
            format!("{folder}_backup_stop_sentinel.json"),
        ];
        assert!(ours.iter().all(|key| is_ours(key)), "{ours:?}");
        let others = [
            "registry/layer-1".to_owned(),
            "a".to_owned(),
            "wal_005/readme".to_owned(),
            format!("other/{folder}/{ATTEMPT}"),
            "other/wal_005/000000010000000000000003.zst".to_owned(),
        ];
        assert!(!others.iter().any(|key| is_ours(key)), "{others:?}");
    }

    #[test]
    fn keys_of_real_archives() {
        let folder = format!("basebackups_005/{BACKUP}/");
        let parts = [
            (
                format!("{folder}extended_version.txt"),
                ArchiveKey::ExtendedVersion(backup()),
            ),
            (
                format!("{folder}metadata.json"),
                ArchiveKey::Metadata(backup()),
            ),
            (
                format!("{folder}files_metadata.json"),
                ArchiveKey::FilesMetadata(backup()),
            ),
            (
                format!("{folder}tar_partitions/part_00000000.tar.lzo"),
                ArchiveKey::Partition {
                    backup: backup(),
                    number: 0,
                    codec: Codec::Lzo,
                },
            ),
            (
                format!("{folder}tar_partitions/part_001.tar.lz4"),
                ArchiveKey::ForeignPartition {
                    backup: backup(),
                    part: "part_001".into(),
                    codec: Codec::Lz4,
                    dot: false,
                },
            ),
            (
                format!("{folder}tar_partitions/copy_0.tar.tar"),
                ArchiveKey::ForeignPartition {
                    backup: backup(),
                    part: "copy_0.tar".into(),
                    codec: Codec::None,
                    dot: false,
                },
            ),
            (
                format!("{folder}tar_partitions/part_001.tar."),
                ArchiveKey::ForeignPartition {
                    backup: backup(),
                    part: "part_001".into(),
                    codec: Codec::None,
                    dot: true,
                },
            ),
            (
                format!("{folder}tar_partitions/pg_control.tar.br"),
                ArchiveKey::ForeignPartition {
                    backup: backup(),
                    part: "pg_control".into(),
                    codec: Codec::Brotli,
                    dot: false,
                },
            ),
        ];
        for (key, meaning) in parts {
            assert_eq!(parse(&key), meaning, "{key}");
            assert_eq!(meaning.backup(), Some(&backup()));
        }
    }

    #[test]
    fn a_dot_after_the_name_of_wal_is_wal_gs() {
        for name in [
            "000000010000000000000003",
            "000000010000000000000003.partial",
            "000000010000000000000003.00000028.backup",
            "00000002.history",
        ] {
            let key = wal_with_dot(&file(name));
            let meaning = ArchiveKey::Wal {
                name: file(name),
                codec: Codec::None,
                conflict: None,
                dot: true,
            };
            assert_eq!(parse(&key), meaning);
        }
    }

    #[test]
    fn unknown_keys() {
        let cases = [
            "",
            "wale.json/",
            "/wale.json",
            "wal_005/",
            "wal_005",
            "wal_005/000000010000000000000003..",
            "wal_005/000000010000000000000003.zst.",
            "wal_005/000000010000000000000003.partial.0123456789abcdef.",
            "wal_005/000000010000000000000003.zst.zst",
            "wal_005/000000010000000000000003.gz",
            "wal_005/000000010000000000000003_delta.lz4",
            "wal_005/000000010000000000000003.json",
            "wal_005/00000001000000000000000a.zst",
            "wal_005/x/000000010000000000000003.zst",
            "wal_005/000000010000000000000003.partial.0123456789ABCDEF.zst",
            "wal_005/000000010000000000000003.partial.0123456789abcde.zst",
            "basebackups_005/",
            "basebackups_005/base_000000010000000000000003_00000040",
            "basebackups_005/base_000000010000000000000003_00000040/",
            "basebackups_005/base_000000010000000000000003_00000040/tar_partitions/",
            "basebackups_005/base_000000010000000000000003_00000040/tar_partitions/part_00000000",
            "basebackups_005/base_000000010000000000000003_00000040/tar_partitions/part_001.tar..",
            "basebackups_005/base_000000010000000000000003_00000040/tar_partitions/part_001.tar.zst.",
            "basebackups_005/base_000000010000000000000003_00000040/tar_partitions/.tar.lzo",
            "basebackups_005/base_000000010000000000000003_00000040/tar_partitions/part_001.tar.tar",
            "basebackups_005/base_000000010000000000000003_00000040/tar_partitions/copy_0.tar.tar.zst",
            "basebackups_005/base_000000010000000000000003_00000040/tar_partitions/a/b.tar",
            "basebackups_005/x_backup_stop_sentinel.json",
            "catchup_005/base_000000010000000000000003_backup_stop_sentinel.json",
        ];
        for key in cases {
            assert_eq!(parse(key), ArchiveKey::Unknown, "{key}");
        }
        assert_eq!(ArchiveKey::Unknown.to_key(), None);
    }

    #[test]
    #[should_panic(expected = "16 lower-case")]
    fn a_short_digest_is_a_bug() {
        let _ = wal_conflicting_partial(
            &file("000000010000000000000003.partial"),
            "abc",
            Codec::Zstd,
        );
    }

    fn any_meaning() -> impl Strategy<Value = ArchiveKey> {
        let codec = prop::sample::select(Codec::ALL.to_vec());
        let segment = (1u32.., any::<u32>(), any::<u32>())
            .prop_map(|(timeline, log, seg)| format!("{timeline:08X}{log:08X}{seg:08X}"));
        let name = (segment.clone(), 0u8..4, any::<u32>()).prop_map(|(segment, form, offset)| {
            file(&match form {
                0 => segment,
                1 => format!("{segment}.partial"),
                2 => format!("{segment}.{offset:08X}.backup"),
                _ => format!("{}.history", &segment[..8]),
            })
        });
        let dotted = name.clone();
        let backup = (segment, any::<u64>()).prop_map(|(segment, offset)| {
            BackupName::new(&wale_pg::WalSegmentName::parse(&segment).unwrap(), offset)
        });
        prop_oneof![
            Just(ArchiveKey::Identity),
            (name, codec.clone(), prop::option::of("[0-9a-f]{16}")).prop_map(
                |(name, codec, conflict)| ArchiveKey::Wal {
                    name,
                    codec,
                    conflict,
                    dot: false,
                }
            ),
            dotted.prop_map(|name| ArchiveKey::Wal {
                name,
                codec: Codec::None,
                conflict: None,
                dot: true,
            }),
            backup.clone().prop_map(ArchiveKey::Sentinel),
            backup.clone().prop_map(ArchiveKey::ExtendedVersion),
            backup.clone().prop_map(ArchiveKey::Metadata),
            backup.clone().prop_map(ArchiveKey::FilesMetadata),
            backup.clone().prop_map(ArchiveKey::Manifest),
            (backup.clone(), any::<u32>(), codec.clone()).prop_map(|(backup, number, codec)| {
                ArchiveKey::Partition {
                    backup,
                    number,
                    codec,
                }
            }),
            (
                backup,
                "(part_0[0-9]{2}|copy_[0-9]|pg_control|backup_label)",
                codec
            )
                .prop_map(|(backup, part, codec)| ArchiveKey::ForeignPartition {
                    backup,
                    dot: codec == Codec::None && part.len() % 2 == 0,
                    part,
                    codec,
                }),
        ]
    }

    proptest! {
        #[test]
        fn meaning_to_key_and_back(meaning in any_meaning()) {
            let key = meaning.to_key().expect("known");
            prop_assert_eq!(parse(&key), meaning);
        }

        #[test]
        fn key_to_meaning_and_back(
            key in "(wal_005/0000000[1-2]00000000000000[0-9A-F]{2}|basebackups_005/base_000000010000000000000003_00000040[_/])(\\.|partial|history|backup|[0-9a-f]{16}|zst|lzo|tar_partitions/|part_|[0-9]{8}|[0-9]{10}|\\.tar|metadata\\.json){0,6}"
        ) {
            if let Some(printed) = parse(&key).to_key() {
                prop_assert_eq!(printed, key);
            }
        }
    }
}
