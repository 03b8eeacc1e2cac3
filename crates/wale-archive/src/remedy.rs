//! What an operator changes so that a failed operation succeeds, as data.
//!
//! An operation does not know how its options are called: a hint says what to do, and the remedy names what is to be
//! changed. The command and the service put it into words with their own settings and flags.

use wale_format::Encryption;

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// More memory.
    Memory {
        /// What suffices, in MiB; nothing where that is not known.
        mib: Option<u64>,
    },
    /// More memory, or fewer workers of a restore that share it.
    MemoryOrWorkers {
        /// The memory that suffices for the workers that there are, in MiB.
        mib: u64,
    },
    /// The restored server is a standby.
    RestoreAsStandby,
    /// The request itself says where a tablespace goes.
    TablespacePlace {
        /// The tablespace.
        oid: u32,
        /// Where it would go, if that is known.
        place: Option<String>,
    },
    /// A restore keeps the files that are there already where they are the backup's.
    KeepFiles,
    /// A restore that keeps files removes WAL that the archive does not have.
    DiscardWal,
    /// Libraries that are missing on this host are reported, and do not fail the restore.
    MissingLibrariesWarn,
    /// The folder whose configuration files a restore takes.
    ConfigurationFolder,
    /// How long an unfinished backup of another tool counts as one that is being written.
    SweepGrace,
    /// Of which server scheduled base backups are taken.
    BackupRole,
    /// The checksum that is sent along with objects.
    StoreChecksum,
    /// The tool by whose spelling the names of a store are read.
    StoreNames,
    /// A key to read with.
    ReadingKey {
        /// For objects of this method, where it is known.
        method: Option<Encryption>,
    },
    /// One of several archives is used alone.
    OneArchive {
        /// Its number.
        number: u8,
    },
    /// What the encryption of the archive may become.
    EncryptionChange {
        /// The word for it.
        word: String,
    },
}
