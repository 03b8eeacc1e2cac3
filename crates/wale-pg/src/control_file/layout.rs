//! Where the fields of a control file are, per version of its layout: declared tables, no code.

/// Where the fields are that move between versions: byte offsets.
pub(super) struct Layout {
    pub(super) version: u32,
    /// The major versions that write this layout.
    pub(super) majors: &'static [u32],
    pub(super) redo: usize,
    pub(super) min_recovery_point: usize,
    /// `wal_level`, `wal_log_hints` and the settings follow one another from here.
    pub(super) wal_level: usize,
    pub(super) has_max_wal_senders: bool,
    /// block size and blocks per segment follow one another from here.
    pub(super) block_size: usize,
    /// WAL block size and WAL segment size follow one another from here.
    pub(super) wal_block_size: usize,
    pub(super) data_checksum_version: usize,
    /// `mock_authentication_nonce`: 32 bytes.
    pub(super) nonce: usize,
    /// The CRC, of all bytes before it.
    pub(super) crc: usize,
}

pub(super) const LAYOUTS: [Layout; 7] = [
    // 10 still records the previous checkpoint, eight bytes before redo.
    Layout {
        version: 1002,
        majors: &[10],
        redo: 48,
        min_recovery_point: 136,
        wal_level: 172,
        has_max_wal_senders: false,
        block_size: 216,
        wal_block_size: 224,
        data_checksum_version: 252,
        nonce: 256,
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
        wal_block_size: 216,
        data_checksum_version: 244,
        nonce: 248,
        crc: 280,
    },
    // 12 widened the next transaction ID and added max_wal_senders.
    Layout {
        version: 1201,
        majors: &[12],
        ..LAYOUT_FROM_12
    },
    Layout {
        version: 1300,
        majors: &[13, 14, 15, 16],
        ..LAYOUT_FROM_12
    },
    Layout {
        version: 1700,
        majors: &[17],
        ..LAYOUT_FROM_12
    },
    // 18 added default_char_signedness, one byte before the nonce.
    Layout {
        version: 1800,
        majors: &[18],
        nonce: 257,
        crc: 292,
        ..LAYOUT_FROM_12
    },
    // 19 widened the checkpoint by eight bytes (logical decoding, 64-bit MultiXact offsets), put the pages of an SLRU
    // segment after the blocks per segment, and keeps what initdb chose about checksums before what is in force.
    Layout {
        version: 1905,
        majors: &[19],
        redo: 40,
        min_recovery_point: 144,
        wal_level: 180,
        has_max_wal_senders: true,
        block_size: 224,
        wal_block_size: 236,
        data_checksum_version: 268,
        nonce: 273,
        crc: 308,
    },
];

const LAYOUT_FROM_12: Layout = Layout {
    version: 0,
    majors: &[],
    redo: 40,
    min_recovery_point: 136,
    wal_level: 172,
    has_max_wal_senders: true,
    block_size: 216,
    wal_block_size: 224,
    data_checksum_version: 252,
    nonce: 256,
    crc: 288,
};

/// The catalog version of each release. Betas have others.
pub(super) const CATALOG_VERSIONS: [(u32, u32); 10] = [
    (201_707_211, 10),
    (201_809_051, 11),
    (201_909_212, 12),
    (202_007_201, 13),
    (202_107_181, 14),
    (202_209_061, 15),
    (202_307_071, 16),
    (202_406_281, 17),
    (202_506_291, 18),
    (202_610_061, 19),
];
