//! The header of a WAL segment's first page, and whether it belongs to the name under which it was handed over.
//!
//! PostgreSQL's `XLogLongPageHeaderData` (`src/include/access/xlog_internal.h`, 10 to 19), little endian, 40 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | magic, one per major version |
//! | 2 | 2 | flags; 0x0002 is set on the first page of every segment |
//! | 4 | 4 | timeline |
//! | 8 | 8 | position of the page |
//! | 16 | 4 | rest of a record continued from the page before |
//! | 24 | 8 | system identifier |
//! | 32 | 4 | segment size |
//! | 36 | 4 | WAL block size |
//!
//! Of the other flags 0x0001 (a record is continued here) is the same everywhere; 0x0004 says until 18 that backup blocks
//! may be removed and from 19 on that a continuation was overwritten (0x0008 until 18). None of them is checked.
//!
//! The offsets of system identifier, segment size and page address have been the same since 9.3. So the header of a
//! *newer* server can be read, too, and a magic beyond the ones known here is no error of this module: callers ask
//! [`WalPageHeader::major`] where they want to know it.
//!
//! The check needs nothing but these bytes, the name and the file's size: it reads no WAL record.

use crate::cluster_identity::ClusterIdentity;
use crate::lsn::Lsn;
use crate::major_version::MajorVersion;
use crate::system_identifier::SystemIdentifier;
use crate::wal_segment::{WalSegmentError, WalSegmentName, WalSegmentSize};

/// `XLP_LONG_HEADER`: the page header is the long form.
const LONG_HEADER: u16 = 0x0002;

/// All flags that any version sets.
const FLAGS_MAX: u16 = 0x000F;

/// `XLOG_PAGE_MAGIC` of each major version, as read from the segments of running servers; 19's from its headers.
const MAGICS: [(u16, u32); 10] = [
    (0xD097, 10),
    (0xD098, 11),
    (0xD101, 12),
    (0xD106, 13),
    (0xD10D, 14),
    (0xD110, 15),
    (0xD113, 16),
    (0xD116, 17),
    (0xD118, 18),
    (0xD122, 19),
];

/// Magics of versions to come: above the newest known one. The number grows by a few from one major version to the next,
/// and has begun with D since it exists.
const NEWER_MAGICS: std::ops::RangeInclusive<u16> = 0xD123..=0xDFFF;

/// The header of the first page of a WAL segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalPageHeader {
    /// The page magic: shows the major version, see [`WalPageHeader::major`].
    pub magic: u16,
    /// Flags; bit 0x0002 says that the header is a long one.
    pub info: u16,
    /// The timeline of the first record. It may be older than the timeline in the segment's name: the first segment
    /// after a promotion begins as a copy of the old timeline's last.
    pub timeline: u32,
    /// The position of the page: the beginning of the segment.
    pub page_address: Lsn,
    /// The cluster that wrote the segment.
    pub system_identifier: SystemIdentifier,
    /// The segment size in bytes, unchecked.
    pub segment_size: u32,
    /// The size of a WAL page in bytes, unchecked; 8192 unless the server was compiled otherwise.
    pub block_size: u32,
}

/// What is known of a segment apart from its content and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderExpectation {
    /// The cluster it must be of; `None` when not known yet.
    pub system_identifier: Option<SystemIdentifier>,
    /// The cluster's segment size; `None` when not known: then the header's own must fit the file.
    pub segment_size: Option<WalSegmentSize>,
    /// The size of the file in bytes.
    pub file_size: u64,
}

impl WalPageHeader {
    /// The bytes of the header, and so the fewest that [`WalPageHeader::parse`] needs.
    pub const LENGTH: usize = 40;

    /// Decodes the first bytes of a segment. What comes back has the magic of a known version or of a newer one, and the
    /// long form.
    ///
    /// # Errors
    /// When there are fewer than 40 bytes, all of them are zero, the magic is of no supported version and of no newer
    /// one, or the header is not a long one.
    pub fn parse(bytes: &[u8]) -> Result<Self, WalHeaderError> {
        let too_short = WalHeaderError::TooShort {
            length: bytes.len(),
        };
        let header: &[u8; Self::LENGTH] = bytes.first_chunk().ok_or(too_short)?;
        let header = Self {
            magic: u16::from_le_bytes(field(header, 0)),
            info: u16::from_le_bytes(field(header, 2)),
            timeline: u32::from_le_bytes(field(header, 4)),
            page_address: Lsn::new(u64::from_le_bytes(field(header, 8))),
            system_identifier: SystemIdentifier::new(u64::from_le_bytes(field(header, 24))),
            segment_size: u32::from_le_bytes(field(header, 32)),
            block_size: u32::from_le_bytes(field(header, 36)),
        };
        header.check_form()?;
        Ok(header)
    }

    /// Whether bytes begin as the first page of a segment does, be it a damaged one: by magic and flags, or by both sizes. Of
    /// random bytes one in 50 million does: 10 of 65,536 magics, 8 of 65,536 combinations of flags; the sizes are next to
    /// nothing beside these.
    #[must_use]
    pub fn resembles(head: &[u8]) -> bool {
        let Some(header) = head.first_chunk::<{ Self::LENGTH }>() else {
            return false;
        };
        let magic = u16::from_le_bytes(field(header, 0));
        let info = u16::from_le_bytes(field(header, 2));
        let segment = u32::from_le_bytes(field(header, 32));
        let block = u32::from_le_bytes(field(header, 36));
        let has_magic = MAGICS.iter().any(|(known, _)| *known == magic);
        let has_flags = info & LONG_HEADER != 0 && info <= FLAGS_MAX;
        let has_sizes = WalSegmentSize::new(segment.into()).is_ok() && is_block_size(block);
        (has_magic && has_flags) || has_sizes
    }

    /// The major version whose magic the header carries; `None` for one that is newer than any known.
    pub fn major(&self) -> Option<MajorVersion> {
        let (_, major) = MAGICS.iter().find(|(magic, _)| *magic == self.magic)?;
        MajorVersion::new(*major).ok()
    }

    /// The cluster that wrote the segment; `None` when the segment size is impossible.
    pub fn identity(&self) -> Option<ClusterIdentity> {
        Some(ClusterIdentity {
            system_identifier: self.system_identifier,
            major: self.major(),
            wal_segment_size: WalSegmentSize::new(u64::from(self.segment_size)).ok()?,
        })
    }

    /// Whether the header belongs to a file of this name, and to the cluster that is expected.
    ///
    /// Checked in this order: size of the file, zeros, magic, long form, position, system identifier, segment size
    /// and block size, timeline.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(
        &self,
        name: &WalSegmentName,
        expectation: &HeaderExpectation,
    ) -> Result<(), WalHeaderError> {
        let size = match expectation.segment_size {
            Some(size) => size,
            None => self.own_segment_size()?,
        };
        check_file_size(expectation.file_size, size)?;
        self.check_form()?;
        let expected = name
            .start_lsn(size)
            .map_err(WalHeaderError::ImpossibleName)?;
        if self.page_address != expected {
            return Err(WalHeaderError::WrongPageAddress {
                found: self.page_address,
                expected,
            });
        }
        match expectation.system_identifier {
            Some(expected) if expected != self.system_identifier => {
                return Err(WalHeaderError::WrongSystemIdentifier {
                    found: self.system_identifier,
                    expected,
                });
            }
            _ => {}
        }
        if self.own_segment_size()? != size {
            return Err(WalHeaderError::WrongSegmentSize {
                found: self.segment_size,
                expected: Some(size),
            });
        }
        if !is_block_size(self.block_size) {
            return Err(WalHeaderError::WrongBlockSize {
                found: self.block_size,
            });
        }
        if self.timeline == 0 || self.timeline > name.timeline().get() {
            return Err(WalHeaderError::WrongTimeline {
                found: self.timeline,
                named: name.timeline().get(),
            });
        }
        Ok(())
    }

    /// [`WalPageHeader::parse`] and [`WalPageHeader::check`] in one, with the file's size checked before anything else.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(
        bytes: &[u8],
        name: &WalSegmentName,
        expectation: &HeaderExpectation,
    ) -> Result<Self, WalHeaderError> {
        if let Some(size) = expectation.segment_size {
            check_file_size(expectation.file_size, size)?;
        }
        let header = Self::parse(bytes)?;
        header.check(name, expectation)?;
        Ok(header)
    }

    fn check_form(&self) -> Result<(), WalHeaderError> {
        if self.magic == 0
            && self.info == 0
            && self.page_address == Lsn::new(0)
            && self.system_identifier.as_u64() == 0
        {
            return Err(WalHeaderError::AllZero);
        }
        if self.major().is_none() && !NEWER_MAGICS.contains(&self.magic) {
            return Err(WalHeaderError::UnknownMagic { found: self.magic });
        }
        if self.info & LONG_HEADER == 0 {
            return Err(WalHeaderError::NotLongHeader { info: self.info });
        }
        Ok(())
    }

    fn own_segment_size(&self) -> Result<WalSegmentSize, WalHeaderError> {
        WalSegmentSize::new(self.segment_size.into()).map_err(|_| {
            WalHeaderError::WrongSegmentSize {
                found: self.segment_size,
                expected: None,
            }
        })
    }
}

/// `XLOG_BLCKSZ` is chosen when the server is compiled, from 1 to 64 kB.
fn is_block_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (1 << 10..=1 << 16).contains(&bytes)
}

fn check_file_size(found: u64, expected: WalSegmentSize) -> Result<(), WalHeaderError> {
    if found == expected.bytes() {
        Ok(())
    } else {
        Err(WalHeaderError::WrongSize {
            found,
            expected: expected.bytes(),
        })
    }
}

/// The bytes of a field of the fixed-size header; offsets are the constants of the table above.
fn field<const SIZE: usize>(header: &[u8; WalPageHeader::LENGTH], offset: usize) -> [u8; SIZE] {
    std::array::from_fn(|index| header[offset + index])
}

/// Why a file is not the WAL segment that its name says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalHeaderError {
    /// Fewer bytes than a header has.
    #[error("the WAL segment ends after {length} bytes, within its header")]
    TooShort {
        /// The bytes there were.
        length: usize,
    },
    /// The file has another size than the cluster's segments.
    #[error("the WAL segment has {found} bytes instead of {expected}")]
    WrongSize {
        /// The file's size in bytes.
        found: u64,
        /// The segment size in bytes.
        expected: u64,
    },
    /// A file that was made, or recycled, and never written.
    #[error("the WAL segment begins with zeros")]
    AllZero,
    /// No WAL, or WAL of a version that is not supported.
    #[error("the WAL segment has the unknown page magic {found:04X}")]
    UnknownMagic {
        /// The magic in the file.
        found: u16,
    },
    /// The first page lacks the long header, so it is not a first page.
    #[error("the first page of the WAL segment has no long header (flags {info:04X})")]
    NotLongHeader {
        /// The flags in the file.
        info: u16,
    },
    /// The name cannot be one of this cluster.
    #[error(transparent)]
    ImpossibleName(WalSegmentError),
    /// The content is another segment's: a recycled file, or a file under a wrong name.
    #[error("the WAL segment begins at {found} instead of {expected}")]
    WrongPageAddress {
        /// The position in the file.
        found: Lsn,
        /// The position that the name says.
        expected: Lsn,
    },
    /// The segment is another cluster's.
    #[error("the WAL segment is of the cluster with system identifier {found}, not {expected}")]
    WrongSystemIdentifier {
        /// The identifier in the file.
        found: SystemIdentifier,
        /// The identifier of the expected cluster.
        expected: SystemIdentifier,
    },
    /// The header's segment size is another than the cluster's, or none at all.
    #[error("the header of the WAL segment says that segments have {found} bytes")]
    WrongSegmentSize {
        /// The size in the header, in bytes.
        found: u32,
        /// The cluster's, where it is known.
        expected: Option<WalSegmentSize>,
    },
    /// No server can be compiled with such WAL pages.
    #[error("the header of the WAL segment says that WAL pages have {found} bytes")]
    WrongBlockSize {
        /// The size in the header, in bytes.
        found: u32,
    },
    /// The content is of a younger timeline than the name.
    #[error("the WAL segment is of timeline {found}, its name says {named}")]
    WrongTimeline {
        /// The timeline in the file.
        found: u32,
        /// The timeline in the name.
        named: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::TimelineId;
    use proptest::prelude::*;

    /// Segment size in MiB, name, first bytes: from a real server of each major version.
    const REAL: [(u32, u64, &str, &[u8; 40]); 9] = [
        (
            10,
            16,
            "000000010000000000000001",
            include_bytes!("../testdata/wal_header/10-000000010000000000000001"),
        ),
        (
            11,
            1,
            "00000001000000000000000B",
            include_bytes!("../testdata/wal_header/11-00000001000000000000000B"),
        ),
        (
            12,
            16,
            "000000010000000000000001",
            include_bytes!("../testdata/wal_header/12-000000010000000000000001"),
        ),
        (
            13,
            64,
            "000000010000000000000001",
            include_bytes!("../testdata/wal_header/13-000000010000000000000001"),
        ),
        (
            14,
            16,
            "000000010000000000000001",
            include_bytes!("../testdata/wal_header/14-000000010000000000000001"),
        ),
        (
            15,
            16,
            "000000010000000000000001",
            include_bytes!("../testdata/wal_header/15-000000010000000000000001"),
        ),
        (
            16,
            16,
            "000000010000000000000001",
            include_bytes!("../testdata/wal_header/16-000000010000000000000001"),
        ),
        (
            17,
            16,
            "000000010000000000000001",
            include_bytes!("../testdata/wal_header/17-000000010000000000000001"),
        ),
        (
            18,
            16,
            "000000010000000000000001",
            include_bytes!("../testdata/wal_header/18-000000010000000000000001"),
        ),
    ];

    const IDENTIFIER: SystemIdentifier = SystemIdentifier::new(7_711_396_062_007_654_755);

    fn name(text: &str) -> WalSegmentName {
        text.parse().unwrap()
    }

    fn expected(mebibytes: u64) -> HeaderExpectation {
        HeaderExpectation {
            system_identifier: None,
            segment_size: Some(WalSegmentSize::new(mebibytes << 20).unwrap()),
            file_size: mebibytes << 20,
        }
    }

    /// The header of 15, with bytes replaced, under its own name and with everything known.
    fn verify_altered(offset: usize, bytes: &[u8]) -> Result<WalPageHeader, WalHeaderError> {
        let mut header = *REAL[5].3;
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
        let known = HeaderExpectation {
            system_identifier: Some(IDENTIFIER),
            ..expected(16)
        };
        WalPageHeader::verify(&header, &name(REAL[5].2), &known)
    }

    #[test]
    fn segments_of_real_servers() {
        for (major, mebibytes, text, bytes) in REAL {
            let header = WalPageHeader::verify(bytes, &name(text), &expected(mebibytes)).unwrap();
            assert_eq!(header.major().map(MajorVersion::get), Some(major));
            assert_eq!((header.timeline, header.block_size), (1, 8192));
            let unknown = HeaderExpectation {
                segment_size: None,
                ..expected(mebibytes)
            };
            assert_eq!(
                header.check(&name(text), &unknown),
                Ok(()),
                "the header knows its own size"
            );
        }
        assert_eq!(
            verify_altered(0, &[]).map(|header| header.system_identifier),
            Ok(IDENTIFIER)
        );
    }

    #[test]
    fn fault_118_a_damaged_header_still_resembles_one_and_noise_does_not() {
        for (_, _, _, bytes) in REAL {
            for bit in 0..WalPageHeader::LENGTH * 8 {
                let mut flipped = *bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(WalPageHeader::resembles(&flipped), "bit {bit}");
            }
            assert!(!WalPageHeader::resembles(&bytes[..39]));
        }
        // A version to come, whose magic nobody knows.
        let mut newer = *REAL[5].3;
        newer[..2].copy_from_slice(&0xD177_u16.to_le_bytes());
        assert!(WalPageHeader::resembles(&newer));
        for noise in [
            [0; 40],
            [0xFF; 40],
            *b"4$9Zq\x80\xf1\x07 noise of forty bytes, no zero\x99\xfe",
        ] {
            assert!(!WalPageHeader::resembles(&noise));
        }
    }

    #[test]
    fn each_field_is_checked() {
        let other = SystemIdentifier::new(1);
        let start = Lsn::new(16 << 20);
        let small = Some(WalSegmentSize::DEFAULT);
        for (offset, bytes, error) in [
            (
                0,
                &[0x17, 0xD1][..],
                WalHeaderError::UnknownMagic { found: 0xD117 },
            ),
            (2, &[0x05, 0], WalHeaderError::NotLongHeader { info: 5 }),
            (
                8,
                &[1],
                WalHeaderError::WrongPageAddress {
                    found: Lsn::new((16 << 20) + 1),
                    expected: start,
                },
            ),
            (
                24,
                &[1, 0, 0, 0, 0, 0, 0, 0],
                WalHeaderError::WrongSystemIdentifier {
                    found: other,
                    expected: IDENTIFIER,
                },
            ),
            (
                32,
                &[0, 0, 0, 2],
                WalHeaderError::WrongSegmentSize {
                    found: 32 << 20,
                    expected: small,
                },
            ),
            (
                32,
                &[1, 0, 0, 1],
                WalHeaderError::WrongSegmentSize {
                    found: (16 << 20) + 1,
                    expected: None,
                },
            ),
            (36, &[1, 32], WalHeaderError::WrongBlockSize { found: 8193 }),
            (
                4,
                &[2],
                WalHeaderError::WrongTimeline { found: 2, named: 1 },
            ),
            (
                4,
                &[0],
                WalHeaderError::WrongTimeline { found: 0, named: 1 },
            ),
        ] {
            assert_eq!(verify_altered(offset, bytes), Err(error));
        }
    }

    /// The first bytes of a segment of 19, made from the table of its header: no server of it was to be had.
    const NINETEEN: [u8; 40] = [
        0x22, 0xD1, 0x06, 0x00, 0x01, 0x00, 0x00,
        0x00, // magic, long header and overwritten continuation, timeline
        0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, // 0/1000000
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
        0xF7, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, // system identifier
        0x00, 0x00, 0x00, 0x01, 0x00, 0x20, 0x00, 0x00, // 16 MiB, 8192
    ];

    #[test]
    fn fault_102_a_segment_of_19_by_the_table() {
        let segment = name("000000010000000000000001");
        let header = WalPageHeader::verify(&NINETEEN, &segment, &expected(16)).unwrap();
        assert_eq!(header.major().map(MajorVersion::get), Some(19));
        let identifier = SystemIdentifier::new(0x0706_0504_0302_01F7);
        assert_eq!(header.system_identifier, identifier);
    }

    #[test]
    fn fault_102_a_newer_magic_is_read_and_belongs_to_no_known_version() {
        let segment = name("000000010000000000000001");
        for (magic, is_newer) in [
            (0xD123_u16, true),
            (0xD130, true),
            (0xD201, true),
            // Betas of 19, and what is no magic of any version.
            (0xD121, false),
            (0xE000, false),
            (0xD096, false),
        ] {
            let mut bytes = NINETEEN;
            bytes[..2].copy_from_slice(&magic.to_le_bytes());
            let read = WalPageHeader::verify(&bytes, &segment, &expected(16));
            assert_eq!(read.is_ok(), is_newer, "{magic:04X}");
            assert!(read.is_err() || read.unwrap().major().is_none());
            // All else is checked as ever.
            let other = name("000000010000000000000002");
            assert!(WalPageHeader::verify(&bytes, &other, &expected(16)).is_err());
        }
    }

    #[test]
    fn the_timeline_may_be_older_than_the_name() {
        let header = WalPageHeader::parse(REAL[5].3).unwrap();
        let promoted = name(REAL[5].2).with_timeline(TimelineId::new(2).unwrap());
        assert_eq!(header.check(&promoted, &expected(16)), Ok(()));
    }

    #[test]
    fn the_first_thing_wrong_is_the_one_told() {
        let zeros = [0; 40];
        let segment = name("000000010000000000000001");
        let short = HeaderExpectation {
            file_size: 1000,
            ..expected(16)
        };
        let wrong_size = WalHeaderError::WrongSize {
            found: 1000,
            expected: 16 << 20,
        };
        assert_eq!(
            WalPageHeader::verify(&zeros, &segment, &short),
            Err(wrong_size.clone())
        );
        assert_eq!(
            WalPageHeader::verify(&zeros, &segment, &expected(16)),
            Err(WalHeaderError::AllZero)
        );
        assert_eq!(WalPageHeader::parse(&zeros), Err(WalHeaderError::AllZero));
        assert_eq!(
            WalPageHeader::parse(&zeros[1..]),
            Err(WalHeaderError::TooShort { length: 39 })
        );
        let header = WalPageHeader::parse(REAL[5].3).unwrap();
        assert_eq!(
            header.check(&name("000000010000000000000009"), &short),
            Err(wrong_size)
        );
    }

    #[test]
    fn a_name_that_is_none_of_this_cluster_is_told_apart() {
        let header = WalPageHeader::parse(REAL[5].3).unwrap();
        let result = header.check(&name("000000010000000000000100"), &expected(16));
        assert!(
            matches!(result, Err(WalHeaderError::ImpossibleName(_))),
            "{result:?}"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), magic in 0_usize..9, log_id: u32) {
            let mut bytes = bytes;
            if let Some(start) = bytes.get_mut(..4) {
                start.copy_from_slice(&REAL[magic].3[..4]);
            }
            let segment = name(&format!("00000001{log_id:08X}00000001"));
            let known = HeaderExpectation { segment_size: None, ..expected(16) };
            let _ = WalPageHeader::verify(&bytes, &segment, &known);
        }
    }
}
