//! The control file, `global/pg_control`: identity and state of a cluster, as bytes on disk.
//!
//! PostgreSQL's `ControlFileData` (`src/include/catalog/pg_control.h`), little endian. The layout follows the field
//! `pg_control_version`; the offsets in `layout.rs` were read from running servers of 10 to 18, and from the headers of
//! 19's second release candidate. A server
//! rewrites the file in place, so a reader may see half of a write: the CRC shows it, and the reader reads again.

mod layout;
mod nonce;

use crate::cluster_identity::ClusterIdentity;
use crate::enforced_settings::{EnforcedSettings, WalLevel};
use crate::lsn::Lsn;
use crate::major_version::MajorVersion;
use crate::system_identifier::SystemIdentifier;
use crate::timeline::TimelineId;
use crate::wal_segment::WalSegmentSize;

pub use nonce::ClusterNonce;

use layout::{CATALOG_VERSIONS, LAYOUTS, Layout};

/// What a control file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster's identity.
    pub system_identifier: SystemIdentifier,
    /// The version of the file's layout: 1002, 1100, 1201, 1300, 1700, 1800 or 1905.
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
    /// The state of the page checksums: 0 off, 1 on; from 19 on, where they can be switched while the server runs, also 2
    /// (being switched off) and 3 (being switched on).
    pub data_checksum_version: u32,
    /// The settings a recovery must not fall below.
    pub settings: EnforcedSettings,
    /// `mock_authentication_nonce`; nothing where it is all zeros.
    pub nonce: Option<ClusterNonce>,
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

impl ControlFile {
    /// The size of the file in bytes, of which a server uses the first few hundred.
    pub const FILE_SIZE: usize = 8192;

    /// Where the file is, relative to the data directory.
    pub const PATH: &'static str = "global/pg_control";

    /// Decodes the file; its first 312 bytes are enough.
    ///
    /// # Errors
    /// [`ControlFileError::CrcMismatch`] also when the server was just writing the file: read it again. Else when the
    /// bytes are too few, of an unsupported version, or make no sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let reader = Reader { bytes };
        let version = reader.u32(8)?;
        let Some(layout) = LAYOUTS.iter().find(|layout| layout.version == version) else {
            // A version number is small; with its bytes in the other order it is a multiple of 65536.
            let foreign = LAYOUTS
                .iter()
                .any(|layout| layout.version == version.swap_bytes());
            return Err(if foreign {
                ControlFileError::ForeignByteOrder
            } else {
                ControlFileError::UnsupportedVersion { version }
            });
        };
        let covered = bytes.get(..layout.crc).ok_or(ControlFileError::TooShort {
            length: bytes.len(),
        })?;
        let (found, expected) = (reader.u32(layout.crc)?, crc32c(covered));
        if found != expected {
            return Err(ControlFileError::CrcMismatch { found, expected });
        }
        let state = reader.u32(16)?;
        let timeline = reader.u32(layout.redo + 8)?;
        let wal_segment_size = reader.u32(layout.wal_block_size + 4)?;
        Ok(Self {
            system_identifier: SystemIdentifier::new(reader.u64(0)?),
            pg_control_version: version,
            catalog_version: reader.u32(12)?,
            state: usize::try_from(state)
                .ok()
                .and_then(|state| ClusterState::ALL.get(state))
                .copied()
                .ok_or(ControlFileError::Implausible {
                    field: "state",
                    value: state,
                })?,
            time_unix_s: reader.u64(24)?.cast_signed(),
            checkpoint: Lsn::new(reader.u64(32)?),
            redo: Lsn::new(reader.u64(layout.redo)?),
            timeline: TimelineId::new(timeline).ok_or(ControlFileError::Implausible {
                field: "timeline",
                value: timeline,
            })?,
            min_recovery_point: Lsn::new(reader.u64(layout.min_recovery_point)?),
            min_recovery_timeline: TimelineId::new(reader.u32(layout.min_recovery_point + 8)?),
            block_size: reader.u32(layout.block_size)?,
            blocks_per_segment: reader.u32(layout.block_size + 4)?,
            wal_block_size: reader.u32(layout.wal_block_size)?,
            wal_segment_size: WalSegmentSize::new(wal_segment_size.into()).map_err(|_| {
                ControlFileError::Implausible {
                    field: "WAL segment size",
                    value: wal_segment_size,
                }
            })?,
            data_checksum_version: reader.u32(layout.data_checksum_version)?,
            settings: reader.settings(layout)?,
            nonce: ClusterNonce::new(reader.array(layout.nonce)?),
        })
    }

    /// The major versions that write a control file of this layout. 1300 is four of them.
    pub fn major_versions(&self) -> &'static [u32] {
        LAYOUTS
            .iter()
            .find(|layout| layout.version == self.pg_control_version)
            .map_or(&[], |layout| layout.majors)
    }

    /// The major version, known by the catalog version; `None` for a catalog that is no release's.
    pub fn major(&self) -> Option<MajorVersion> {
        let (_, major) = CATALOG_VERSIONS
            .iter()
            .find(|(catalog, _)| *catalog == self.catalog_version)?;
        MajorVersion::new(*major).ok()
    }

    /// The cluster it is of.
    pub fn identity(&self) -> ClusterIdentity {
        ClusterIdentity {
            system_identifier: self.system_identifier,
            major: self.major(),
            wal_segment_size: self.wal_segment_size,
        }
    }

    /// Whether every page carries a checksum. Not while checksums are being switched on or off: a page without the right
    /// one is no damage then.
    pub const fn has_data_checksums(&self) -> bool {
        self.data_checksum_version == 1
    }
}

/// CRC-32C (Castagnoli), as PostgreSQL computes it (`src/port/pg_crc32c_sb8.c`).
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
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
            .ok_or(ControlFileError::TooShort {
                length: self.bytes.len(),
            })
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
        let slot = |index: usize| {
            self.array(layout.wal_level + 4 * index)
                .map(i32::from_le_bytes)
        };
        let after_senders = if layout.has_max_wal_senders { 5 } else { 4 };
        Ok(EnforcedSettings {
            wal_level: match wal_level {
                0 => WalLevel::Minimal,
                1 => WalLevel::Replica,
                2 => WalLevel::Logical,
                value => {
                    return Err(ControlFileError::Implausible {
                        field: "wal_level",
                        value,
                    });
                }
            },
            max_connections: slot(2)?,
            max_worker_processes: slot(3)?,
            max_wal_senders: if layout.has_max_wal_senders {
                Some(slot(4)?)
            } else {
                None
            },
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    macro_rules! golden {
        ($name:literal) => {
            include_bytes!(concat!("../testdata/control_file/", $name))
        };
    }

    /// Of a real server of each major version: system identifier, checkpoint, redo and time as SQL told them.
    type Real = (
        u32,
        &'static [u8; 512],
        u64,
        &'static str,
        &'static str,
        i64,
    );

    #[rustfmt::skip]
    const REAL: [Real; 9] = [
        (10, golden!("10"), 7_711_396_035_700_754_494, "0/1AA5100", "0/1AA50C8", 1_795_449_303),
        (11, golden!("11"), 7_711_396_040_763_099_303, "0/BCFE68", "0/BCFE30", 1_795_449_304),
        (12, golden!("12"), 7_711_396_046_856_849_622, "0/1ACC168", "0/1ACC130", 1_795_449_305),
        (13, golden!("13"), 7_711_396_052_198_893_829, "0/4A75408", "0/4A753D0", 1_795_449_307),
        (14, golden!("14"), 7_711_396_057_318_996_276, "0/1BB4E10", "0/1BB4DD8", 1_795_449_308),
        (15, golden!("15"), 7_711_396_062_007_654_755, "0/19A14E0", "0/19A14A8", 1_795_449_309),
        (16, golden!("16"), 7_711_396_069_915_302_323, "0/1991FE8", "0/1991FB0", 1_795_449_311),
        (17, golden!("17"), 7_711_396_075_767_413_217, "0/1990FB0", "0/1990F58", 1_795_449_312),
        (18, golden!("18"), 7_711_396_081_182_538_359, "0/19BC5B8", "0/19BC560", 1_795_449_313),
    ];

    fn settings(max_wal_senders: Option<i32>) -> EnforcedSettings {
        EnforcedSettings {
            max_connections: 123,
            max_worker_processes: 17,
            max_wal_senders,
            max_prepared_transactions: 29,
            max_locks_per_transaction: 71,
            wal_level: WalLevel::Logical,
        }
    }

    /// By the headers of each version: 11 has eight bytes less before it, 18 one byte more, and three of padding after it.
    fn nonce(major: u32, bytes: &[u8]) -> [u8; 32] {
        let at = match major {
            11 => 248,
            18 => 257,
            _ => 256,
        };
        if major == 18 {
            assert_eq!((bytes[at - 1], &bytes[at + 32..at + 35]), (1, &[0; 3][..]));
            assert_eq!(bytes[at..at + 4], [0x58, 0x1d, 0x0e, 0xfe]);
        }
        bytes[at..].first_chunk().copied().unwrap()
    }

    #[test]
    fn the_nonce_is_a_secret_and_zeros_are_none() {
        let file = ControlFile::parse(REAL[8].1).unwrap();
        assert!(format!("{file:?}").contains("ClusterNonce(…)"));
        assert_eq!(ClusterNonce::new([0; 32]), None);
        let all: Vec<_> = REAL.iter().map(|real| nonce(real.0, real.1)).collect();
        assert!(all.windows(2).all(|two| two[0] != two[1]));
    }

    /// Puts the right CRC behind altered content.
    fn seal(bytes: &mut [u8], crc_at: usize) {
        let crc = crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn files_of_real_servers() {
        for (major, bytes, identifier, checkpoint, redo, written) in REAL {
            let file = ControlFile::parse(bytes).unwrap();
            let expected = ControlFile {
                system_identifier: SystemIdentifier::new(identifier),
                pg_control_version: file.pg_control_version,
                catalog_version: file.catalog_version,
                state: ClusterState::InProduction,
                time_unix_s: written,
                checkpoint: checkpoint.parse().unwrap(),
                redo: redo.parse().unwrap(),
                timeline: TimelineId::FIRST,
                min_recovery_point: Lsn::new(0),
                min_recovery_timeline: None,
                block_size: 8192,
                blocks_per_segment: 131_072,
                wal_block_size: 8192,
                wal_segment_size: match major {
                    11 => WalSegmentSize::MIN,
                    13 => WalSegmentSize::new(64 << 20).unwrap(),
                    _ => WalSegmentSize::DEFAULT,
                },
                data_checksum_version: 1,
                settings: settings(if major >= 12 { Some(13) } else { None }),
                nonce: ClusterNonce::new(nonce(major, bytes)),
            };
            assert_eq!(file, expected, "{major}");
            assert_eq!(file.major().map(MajorVersion::get), Some(major));
            assert!(file.major_versions().contains(&major));
            assert!(file.has_data_checksums());
        }
    }

    /// A file of 19, made field by field from the table of its layout: no server of it was to be had.
    fn nineteen() -> Vec<u8> {
        let mut bytes = vec![0; ControlFile::FILE_SIZE];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &7_711_396_081_182_538_359_u64.to_le_bytes());
        put(24, &1_795_449_313_u64.to_le_bytes());
        put(32, &0x19B_C5B8_u64.to_le_bytes());
        put(40, &0x19B_C560_u64.to_le_bytes());
        put(144, &0x1A0_0000_u64.to_le_bytes());
        for (at, value) in [
            (8, 1905_u32),
            (12, 202_610_061),
            (16, 5),
            (48, 7),
            (152, 6),
            (180, 2),
            (184, 1),
            (188, 123),
            (192, 17),
            (196, 13),
            (200, 29),
            (204, 71),
            (224, 8192),
            (228, 131_072),
            (232, 32),
            (236, 8192),
            (240, 64 << 20),
            (264, 0),
            (268, 1),
        ] {
            put(at, &value.to_le_bytes());
        }
        bytes[273..305].fill(7);
        seal(&mut bytes, 308);
        bytes
    }

    #[test]
    fn fault_102_a_file_of_19_by_the_table() {
        let file = ControlFile::parse(&nineteen()).unwrap();
        let expected = ControlFile {
            system_identifier: SystemIdentifier::new(7_711_396_081_182_538_359),
            pg_control_version: 1905,
            catalog_version: 202_610_061,
            state: ClusterState::InArchiveRecovery,
            time_unix_s: 1_795_449_313,
            checkpoint: "0/19BC5B8".parse().unwrap(),
            redo: "0/19BC560".parse().unwrap(),
            timeline: TimelineId::new(7).unwrap(),
            min_recovery_point: "0/1A00000".parse().unwrap(),
            min_recovery_timeline: TimelineId::new(6),
            block_size: 8192,
            blocks_per_segment: 131_072,
            wal_block_size: 8192,
            wal_segment_size: WalSegmentSize::new(64 << 20).unwrap(),
            data_checksum_version: 1,
            settings: settings(Some(13)),
            nonce: ClusterNonce::new([7; 32]),
        };
        assert_eq!(file, expected);
        assert_eq!(file.major().map(MajorVersion::get), Some(19));
        assert_eq!(file.major_versions(), [19]);
        assert!(ControlFile::parse(&nineteen()[..312]).is_ok());
        let short = ControlFile::parse(&nineteen()[..311]);
        assert_eq!(short, Err(ControlFileError::TooShort { length: 311 }));
        let mut torn = nineteen();
        torn[300] ^= 1;
        let torn = ControlFile::parse(&torn);
        assert!(matches!(torn, Err(ControlFileError::CrcMismatch { .. })));
        // Beta 3 had other offsets.
        let mut beta = nineteen();
        beta[8..12].copy_from_slice(&1902_u32.to_le_bytes());
        let beta = ControlFile::parse(&beta);
        assert_eq!(
            beta,
            Err(ControlFileError::UnsupportedVersion { version: 1902 })
        );
    }

    #[test]
    fn fault_102_checksums_count_only_while_they_are_on() {
        for (state, counts) in [(0, false), (1, true), (2, false), (3, false)] {
            let mut bytes = nineteen();
            bytes[268] = state;
            bytes[273..305].fill(7);
            seal(&mut bytes, 308);
            let file = ControlFile::parse(&bytes).unwrap();
            assert_eq!(file.has_data_checksums(), counts, "{state}");
        }
    }

    #[test]
    fn the_file_of_a_standby() {
        let file = ControlFile::parse(golden!("15-standby")).unwrap();
        assert_eq!(file.state, ClusterState::InArchiveRecovery);
        assert_eq!(file.min_recovery_point, "0/1A07970".parse().unwrap());
        assert_eq!(file.min_recovery_timeline, Some(TimelineId::FIRST));
        assert!(!file.state.is_clean_shutdown());
    }

    #[test]
    fn all_of_the_file_or_the_needed_part_of_it() {
        for (major, bytes, ..) in REAL {
            let end = ControlFile::parse(bytes).unwrap().pg_control_version;
            let end = LAYOUTS
                .iter()
                .find(|layout| layout.version == end)
                .unwrap()
                .crc
                + 4;
            assert!(ControlFile::parse(&bytes[..end]).is_ok(), "{major}");
            let mut whole = bytes.to_vec();
            whole.resize(ControlFile::FILE_SIZE, 0);
            assert!(ControlFile::parse(&whole).is_ok(), "{major}");
            for length in [0, 7, 11, 12, 100, end - 4, end - 1] {
                let result = ControlFile::parse(&bytes[..length]);
                assert_eq!(
                    result,
                    Err(ControlFileError::TooShort { length }),
                    "{major}"
                );
            }
        }
    }

    #[test]
    fn half_a_write_is_a_crc_mismatch() {
        for (major, bytes, ..) in REAL {
            let mut torn = *bytes;
            torn[40] ^= 0xFF;
            assert!(
                matches!(
                    ControlFile::parse(&torn),
                    Err(ControlFileError::CrcMismatch { .. })
                ),
                "{major}"
            );
        }
    }

    #[test]
    fn impossible_fields_are_told() {
        let newest = REAL[8].1;
        for (offset, value, error) in [
            (
                8,
                2000,
                ControlFileError::UnsupportedVersion { version: 2000 },
            ),
            (
                8,
                942,
                ControlFileError::UnsupportedVersion { version: 942 },
            ),
            (8, 0, ControlFileError::UnsupportedVersion { version: 0 }),
            (8, 1800_u32.swap_bytes(), ControlFileError::ForeignByteOrder),
            (
                16,
                7,
                ControlFileError::Implausible {
                    field: "state",
                    value: 7,
                },
            ),
            (
                48,
                0,
                ControlFileError::Implausible {
                    field: "timeline",
                    value: 0,
                },
            ),
            (
                172,
                3,
                ControlFileError::Implausible {
                    field: "wal_level",
                    value: 3,
                },
            ),
            (
                228,
                5,
                ControlFileError::Implausible {
                    field: "WAL segment size",
                    value: 5,
                },
            ),
        ] {
            let mut altered = *newest;
            altered[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            seal(&mut altered, 292);
            assert_eq!(ControlFile::parse(&altered), Err(error));
        }
    }

    #[test]
    fn the_catalog_of_a_beta_is_no_release() {
        let mut altered = *REAL[6].1;
        altered[12] ^= 1;
        seal(&mut altered, 288);
        let file = ControlFile::parse(&altered).unwrap();
        assert_eq!(
            (file.major(), file.major_versions()),
            (None, &[13, 14, 15, 16][..])
        );
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_seen(index in 0..REAL.len(), at in 0_usize..280, bit in 0..8) {
            let mut altered = *REAL[index].1;
            altered[at] ^= 1_u8 << bit;
            prop_assert!(ControlFile::parse(&altered).is_err());
        }

        #[test]
        fn no_bytes_panic(index in 0..LAYOUTS.len(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = bytes;
            let layout = &LAYOUTS[index];
            if let Some(version) = bytes.get_mut(8..12) {
                version.copy_from_slice(&layout.version.to_le_bytes());
            }
            if bytes.len() >= layout.crc + 4 {
                seal(&mut bytes, layout.crc);
            }
            let _ = ControlFile::parse(&bytes);
        }
    }
}
