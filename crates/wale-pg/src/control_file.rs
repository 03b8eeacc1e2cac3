//! The control file, `global/pg_control`: identity and state of a cluster, as bytes on disk.
//!
//! PostgreSQL's `ControlFileData` (`src/include/catalog/pg_control.h`), little endian. The layout follows the field
//! `pg_control_version`; the offsets in [`Layout`] were read from running servers of every major version. A server
//! rewrites the file in place, so that a reader may see half of a write: the CRC tells, and the reader reads again.

use crate::lsn::Lsn;
use crate::major_version::MajorVersion;
use crate::system_identifier::SystemIdentifier;
use crate::timeline::TimelineId;
use crate::wal_segment::WalSegmentSize;

/// What a control file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster's identity.
    pub system_identifier: SystemIdentifier,
    /// The version of the file's layout: 1002, 1100, 1201, 1300, 1700 or 1800.
    pub pg_control_version: u32,
    /// The version of the system catalogs, `CATALOG_VERSION_NO`.
    pub catalog_version: u32,
    /// What the server was doing when it last wrote the file.
    pub state: ClusterState,
    /// When the file was last written, in seconds since 1970-01-01 UTC.
    pub time_unix_s: i64,
    /// The position of the last checkpoint record.
    pub checkpoint: Lsn,
    /// Where recovery from that checkpoint begins.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: TimelineId,
    /// How far recovery must go before the data is consistent; 0/0 outside of recovery.
    pub min_recovery_point: Lsn,
    /// The timeline of that position; `None` outside of recovery.
    pub min_recovery_timeline: Option<TimelineId>,
    /// The size of a page in bytes.
    pub block_size: u32,
    /// The pages in one file of a relation, 131072 by default (1 GiB).
    pub blocks_per_segment: u32,
    /// The size of a WAL page in bytes.
    pub wal_block_size: u32,
    /// The size of a WAL segment.
    pub wal_segment_size: WalSegmentSize,
    /// The version of the page checksums; 0 when they are off.
    pub data_checksum_version: u32,
    /// The settings a recovery must not fall below.
    pub settings: EnforcedSettings,
}

/// `DBState`: what the server was doing when it last wrote the control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Before initdb was done.
    StartingUp,
    /// Shut down cleanly.
    ShutDown,
    /// Shut down cleanly while it was in recovery.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    InCrashRecovery,
    /// Recovering from an archive, or a standby.
    InArchiveRecovery,
    /// Running.
    InProduction,
}

impl ClusterState {
    const ALL: [Self; 7] = [
        Self::StartingUp,
        Self::ShutDown,
        Self::ShutDownInRecovery,
        Self::ShuttingDown,
        Self::InCrashRecovery,
        Self::InArchiveRecovery,
        Self::InProduction,
    ];

    /// Whether the server stopped in good order.
    pub const fn is_clean_shutdown(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

/// The settings of the primary that a standby or a recovery must reach, or recovery stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnforcedSettings {
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`, enforced and recorded from 12 on.
    pub max_wal_senders: Option<i32>,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// `wal_level`, which must not be minimal.
    pub wal_level: WalLevel,
}

impl EnforcedSettings {
    /// The numbers under the names that PostgreSQL's configuration knows them by.
    pub fn minimums(&self) -> impl Iterator<Item = (&'static str, i32)> {
        [
            ("max_connections", Some(self.max_connections)),
            ("max_worker_processes", Some(self.max_worker_processes)),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", Some(self.max_prepared_transactions)),
            ("max_locks_per_transaction", Some(self.max_locks_per_transaction)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// `wal_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalLevel {
    /// Only what crash recovery needs: no archiving, no base backups.
    Minimal,
    /// Enough for archives and standbys.
    Replica,
    /// Also for logical decoding.
    Logical,
}

impl WalLevel {
    /// The value as configuration spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Replica => "replica",
            Self::Logical => "logical",
        }
    }
}

/// Where the fields are that move between versions: byte offsets.
struct Layout {
    version: u32,
    /// The major versions that write this layout.
    majors: &'static [u32],
    redo: usize,
    min_recovery_point: usize,
    /// wal_level, wal_log_hints and the settings follow one another from here.
    wal_level: usize,
    has_max_wal_senders: bool,
    /// block size, blocks per segment, WAL block size and WAL segment size follow one another from here.
    block_size: usize,
    data_checksum_version: usize,
    /// The CRC, of all bytes before it.
    crc: usize,
}

const LAYOUTS: [Layout; 6] = [
    // 10 still records the previous checkpoint, eight bytes before redo.
    Layout {
        version: 1002,
        majors: &[10],
        redo: 48,
        min_recovery_point: 136,
        wal_level: 172,
        has_max_wal_senders: false,
        block_size: 216,
        data_checksum_version: 252,
        crc: 288,
    },
    // 11 dropped it.
    Layout {
        version: 1100,
        majors: &[11],
        redo: 40,
        min_recovery_point: 128,
        wal_level: 164,
        has_max_wal_senders: false,
        block_size: 208,
        data_checksum_version: 244,
        crc: 280,
    },
    // 12 widened the next transaction ID and added max_wal_senders.
    Layout { version: 1201, majors: &[12], ..LAYOUT_FROM_12 },
    Layout { version: 1300, majors: &[13, 14, 15, 16], ..LAYOUT_FROM_12 },
    Layout { version: 1700, majors: &[17], ..LAYOUT_FROM_12 },
    // 18 added default_char_signedness before the CRC.
    Layout { version: 1800, majors: &[18], crc: 292, ..LAYOUT_FROM_12 },
];

const LAYOUT_FROM_12: Layout = Layout {
    version: 0,
    majors: &[],
    redo: 40,
    min_recovery_point: 136,
    wal_level: 172,
    has_max_wal_senders: true,
    block_size: 216,
    data_checksum_version: 252,
    crc: 288,
};

/// The catalog version of each release. Betas have others.
const CATALOG_VERSIONS: [(u32, u32); 9] = [
    (201_707_211, 10),
    (201_809_051, 11),
    (201_909_212, 12),
    (202_007_201, 13),
    (202_107_181, 14),
    (202_209_061, 15),
    (202_307_071, 16),
    (202_406_281, 17),
    (202_506_291, 18),
];

impl ControlFile {
    /// The size of the file in bytes, of which a server uses the first few hundred.
    pub const FILE_SIZE: usize = 8192;

    /// Where the file is, relative to the data directory.
    pub const PATH: &'static str = "global/pg_control";

    /// Decodes the file; its first 296 bytes are enough.
    ///
    /// # Errors
    /// [`ControlFileError::CrcMismatch`] also when the server was just writing the file: read it again. Else when the
    /// bytes are too few, of an unsupported version, or make no sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let reader = Reader { bytes };
        let version = reader.u32(8)?;
        let Some(layout) = LAYOUTS.iter().find(|layout| layout.version == version) else {
            // A version number is small; with its bytes in the other order it is a multiple of 65536.
            let foreign = LAYOUTS.iter().any(|layout| layout.version == version.swap_bytes());
            return Err(if foreign {
                ControlFileError::ForeignByteOrder
            } else {
                ControlFileError::UnsupportedVersion { version }
            });
        };
        let covered = bytes.get(..layout.crc).ok_or(ControlFileError::TooShort { length: bytes.len() })?;
        let (found, expected) = (reader.u32(layout.crc)?, crc32c(covered));
        if found != expected {
            return Err(ControlFileError::CrcMismatch { found, expected });
        }
        let state = reader.u32(16)?;
        let timeline = reader.u32(layout.redo + 8)?;
        let wal_segment_size = reader.u32(layout.block_size + 12)?;
        Ok(Self {
            system_identifier: SystemIdentifier::new(reader.u64(0)?),
            pg_control_version: version,
            catalog_version: reader.u32(12)?,
            state: usize::try_from(state)
                .ok()
                .and_then(|state| ClusterState::ALL.get(state))
                .copied()
                .ok_or(ControlFileError::Implausible { field: "state", value: state })?,
            time_unix_s: reader.u64(24)?.cast_signed(),
            checkpoint: Lsn::new(reader.u64(32)?),
            redo: Lsn::new(reader.u64(layout.redo)?),
            timeline: TimelineId::new(timeline)
                .ok_or(ControlFileError::Implausible { field: "timeline", value: timeline })?,
            min_recovery_point: Lsn::new(reader.u64(layout.min_recovery_point)?),
            min_recovery_timeline: TimelineId::new(reader.u32(layout.min_recovery_point + 8)?),
            block_size: reader.u32(layout.block_size)?,
            blocks_per_segment: reader.u32(layout.block_size + 4)?,
            wal_block_size: reader.u32(layout.block_size + 8)?,
            wal_segment_size: WalSegmentSize::new(wal_segment_size.into()).map_err(|_| {
                ControlFileError::Implausible { field: "WAL segment size", value: wal_segment_size }
            })?,
            data_checksum_version: reader.u32(layout.data_checksum_version)?,
            settings: reader.settings(layout)?,
        })
    }

    /// The major versions that write a control file of this layout. 1300 is four of them.
    pub fn major_versions(&self) -> &'static [u32] {
        LAYOUTS.iter().find(|layout| layout.version == self.pg_control_version).map_or(&[], |layout| layout.majors)
    }

    /// The major version, told by the catalog version; `None` for a catalog that is no release's.
    pub fn major(&self) -> Option<MajorVersion> {
        let (_, major) = CATALOG_VERSIONS.iter().find(|(catalog, _)| *catalog == self.catalog_version)?;
        MajorVersion::new(*major).ok()
    }

    /// Whether pages carry checksums.
    pub const fn has_data_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }
}

/// CRC-32C (Castagnoli), as PostgreSQL computes it (`src/port/pg_crc32c_sb8.c`).
fn crc32c(bytes: &[u8]) -> u32 {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(crc).expect("a 32-bit CRC fits 32 bits")
}

/// Reads fields at checked offsets.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const SIZE: usize>(&self, offset: usize) -> Result<[u8; SIZE], ControlFileError> {
        self.bytes
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .ok_or(ControlFileError::TooShort { length: self.bytes.len() })
    }

    fn u32(&self, offset: usize) -> Result<u32, ControlFileError> {
        self.array(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, ControlFileError> {
        self.array(offset).map(u64::from_le_bytes)
    }

    fn settings(&self, layout: &Layout) -> Result<EnforcedSettings, ControlFileError> {
        let wal_level = self.u32(layout.wal_level)?;
        // Every slot is four bytes; slot 1 is the flag wal_log_hints.
        let slot = |index: usize| self.array(layout.wal_level + 4 * index).map(i32::from_le_bytes);
        let after_senders = if layout.has_max_wal_senders { 5 } else { 4 };
        Ok(EnforcedSettings {
            wal_level: match wal_level {
                0 => WalLevel::Minimal,
                1 => WalLevel::Replica,
                2 => WalLevel::Logical,
                value => return Err(ControlFileError::Implausible { field: "wal_level", value }),
            },
            max_connections: slot(2)?,
            max_worker_processes: slot(3)?,
            max_wal_senders: if layout.has_max_wal_senders { Some(slot(4)?) } else { None },
            max_prepared_transactions: slot(after_senders)?,
            max_locks_per_transaction: slot(after_senders + 1)?,
        })
    }
}

/// Why bytes are not a control file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// The file ends before its CRC.
    #[error("the control file ends after {length} bytes")]
    TooShort {
        /// The bytes there were.
        length: usize,
    },
    /// The content and its CRC do not agree: the server was writing, or the file is damaged.
    #[error("the control file has the CRC {found:08X}, its content {expected:08X}")]
    CrcMismatch {
        /// The CRC in the file.
        found: u32,
        /// The CRC of the bytes before it.
        expected: u32,
    },
    /// The layout is not known.
    #[error("the control file has the unsupported version {version}")]
    UnsupportedVersion {
        /// `pg_control_version`.
        version: u32,
    },
    /// The file is a big-endian server's.
    #[error("the control file was written by a server of another byte order")]
    ForeignByteOrder,
    /// The CRC is right and yet a field is impossible: perhaps a vendor's variant of PostgreSQL.
    #[error("the control file says {field} {value}")]
    Implausible {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
}
