//! The files of a backup in few bytes each: those that are to be copied, and those that are stored. There may be a million, and the
//! whole of wale has 64 MiB then.
//!
//! ```text
//! a path   how many bytes are those of the path before, how many others follow, these
//! a number seven bits a byte, the last byte below 128
//! ```
//!
//! Memory: of `base/16384/10000123` after `base/16384/10000121` a path takes 3 bytes. So a file that waits takes some 6 bytes, with
//! its size; one that is stored some 20: 8 for the time of its change, 4 for the CRC-32C, 3 for its size and 2 for its place. A million
//! files wait in 6 MB, and are stored in 20 MB; what waits of a partition is gone when that is stored.

use chrono::{DateTime, Utc};

/// A file to copy, as the listing saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// Path relative to the data directory.
    pub(super) relative: String,
    /// Size when it was listed.
    pub(super) size: u64,
}

/// A file as it was stored: what the manifest says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileRecord {
    /// Path relative to the data directory.
    pub(super) path: String,
    /// Bytes stored.
    pub(super) size: u64,
    /// Time of the last change.
    pub(super) mtime: DateTime<Utc>,
    /// Whether every change after it was read shows in that time.
    pub(super) is_settled: bool,
    /// Of the bytes stored.
    pub(super) crc32c: u32,
    /// Offset of its header in the partition's tar.
    pub(super) offset: u64,
}

/// Why what is read here is what was written.
const OWN: &str = "what was packed in this process is whole";

/// A number takes so many bytes at most.
const NUMBER_BYTES_MAX: u32 = 64_u32.div_ceil(7);

/// Writes paths and numbers.
#[derive(Debug, Clone, Default)]
struct Packer {
    bytes: Vec<u8>,
    /// The last path.
    last: String,
}

impl Packer {
    fn path(&mut self, path: &str) {
        let pairs = self.last.bytes().zip(path.bytes());
        let same = pairs.take_while(|(one, other)| one == other).count();
        let same = path.floor_char_boundary(same);
        self.number(same as u64);
        self.number((path.len() - same) as u64);
        self.bytes.extend_from_slice(&path.as_bytes()[same..]);
        self.last.truncate(same);
        self.last.push_str(&path[same..]);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.bytes.push(number.to_le_bytes()[0]);
    }
}

/// Reads what a [`Packer`] wrote.
#[derive(Debug)]
struct Unpacker<'a> {
    bytes: &'a [u8],
    last: String,
}

impl<'a> Unpacker<'a> {
    fn new(packer: &'a Packer) -> Self {
        Self {
            bytes: &packer.bytes,
            last: String::new(),
        }
    }

    fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take(&mut self, count: u64) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(usize::try_from(count).expect(OWN));
        self.bytes = rest;
        taken
    }

    fn path(&mut self) -> String {
        let same = usize::try_from(self.number()).expect(OWN);
        let count = self.number();
        let rest = std::str::from_utf8(self.take(count)).expect(OWN);
        self.last.truncate(same);
        self.last.push_str(rest);
        self.last.clone()
    }

    fn number(&mut self) -> u64 {
        let mut number = 0;
        for place in 0..NUMBER_BYTES_MAX {
            let byte = u64::from(self.take(1)[0]);
            number |= (byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                break;
            }
        }
        number
    }
}

/// Files that are to be copied.
#[derive(Debug, Clone, Default)]
pub(super) struct PackedSources {
    packer: Packer,
    files: u64,
    bytes: u64,
}

impl PackedSources {
    /// Adds one.
    pub(super) fn push(&mut self, path: &str, size: u64) {
        self.packer.path(path);
        self.packer.number(size);
        self.files += 1;
        self.bytes += size;
    }

    /// Adds files after these.
    pub(super) fn extend(&mut self, files: impl IntoIterator<Item = SourceFile>) {
        for file in files {
            self.push(&file.relative, file.size);
        }
    }

    /// How many there are.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Their bytes, as they were listed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// They, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = SourceFile> {
        let mut unpacker = Unpacker::new(&self.packer);
        std::iter::from_fn(move || {
            (!unpacker.is_at_end()).then(|| SourceFile {
                relative: unpacker.path(),
                size: unpacker.number(),
            })
        })
    }

    /// The same list in as much memory as it needs.
    pub(super) fn fitted(mut self) -> Self {
        self.packer.bytes.shrink_to_fit();
        self
    }
}

/// Files of one partition that are stored.
#[derive(Debug, Clone, Default)]
pub(super) struct PackedRecords {
    packer: Packer,
    files: u64,
    bytes: u64,
    last_second: i64,
    last_offset: u64,
}

impl PackedRecords {
    /// Adds one.
    pub(super) fn push(&mut self, file: &FileRecord) {
        let seconds = file.mtime.timestamp();
        let (since, farther) = (
            seconds.wrapping_sub(self.last_second),
            file.offset.wrapping_sub(self.last_offset),
        );
        self.packer.path(&file.path);
        self.packer.number(file.size);
        self.packer.number(zigzag(since));
        let settled = u64::from(file.is_settled);
        let nanoseconds = u64::from(file.mtime.timestamp_subsec_nanos());
        self.packer.number((nanoseconds << 1) | settled);
        self.packer
            .bytes
            .extend_from_slice(&file.crc32c.to_le_bytes());
        self.packer.number(farther);
        (self.last_second, self.last_offset) = (seconds, file.offset);
        self.files += 1;
        self.bytes += file.size;
    }

    /// How many there are.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// They, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = FileRecord> {
        let mut unpacker = Unpacker::new(&self.packer);
        let (mut seconds, mut offset) = (0_i64, 0_u64);
        std::iter::from_fn(move || {
            if unpacker.is_at_end() {
                return None;
            }
            let path = unpacker.path();
            let size = unpacker.number();
            seconds = seconds.wrapping_add(unzigzag(unpacker.number()));
            let rest = unpacker.number();
            let nanoseconds = u32::try_from(rest >> 1).expect(OWN);
            let crc = unpacker.take(4).try_into().expect(OWN);
            offset = offset.wrapping_add(unpacker.number());
            Some(FileRecord {
                path,
                size,
                mtime: DateTime::<Utc>::from_timestamp(seconds, nanoseconds).expect(OWN),
                is_settled: rest & 1 == 1,
                crc32c: u32::from_le_bytes(crc),
                offset,
            })
        })
    }

    /// The same list in as much memory as it needs.
    pub(super) fn fitted(mut self) -> Self {
        self.packer.bytes.shrink_to_fit();
        self.packer.last = String::new();
        self
    }

    /// Bytes of memory.
    #[cfg(test)]
    fn memory(&self) -> usize {
        self.packer.bytes.capacity()
    }
}

impl FromIterator<FileRecord> for PackedRecords {
    fn from_iter<I: IntoIterator<Item = FileRecord>>(files: I) -> Self {
        let mut packed = Self::default();
        for file in files {
            packed.push(&file);
        }
        packed.fitted()
    }
}

/// A number near zero, of either sign, as a small one without.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_million_files_have_room_in_64_mib() {
        let mut waiting = PackedSources::default();
        let mut stored = PackedRecords::default();
        let changed = DateTime::from_timestamp(1_780_000_000, 987_654_321).expect("a time");
        for number in 0..10_000_u32 {
            let path = format!("base/16384/{}", 10_000_000 + 7 * number);
            waiting.push(&path, 8192);
            stored.push(&FileRecord {
                path,
                size: 8192,
                mtime: changed + chrono::TimeDelta::milliseconds(i64::from(number) * 77),
                is_settled: true,
                crc32c: number.wrapping_mul(2_654_435_761),
                offset: u64::from(number) * 8704,
            });
        }
        let waits = waiting.fitted().packer.bytes.capacity();
        assert!(waits <= 10_000 * 8, "{waits}");
        let stored = stored.fitted().memory();
        assert!(stored <= 10_000 * 22, "{stored}");
    }

    fn record() -> impl Strategy<Value = FileRecord> {
        let path = prop_oneof!["base/[0-9]{1,3}/[0-9]{1,5}", "[a/é字\u{10FE80}]{0,6}"];
        let time = (-9_000_000_000_i64..9_000_000_000, 0..1_000_000_000_u32);
        (
            path,
            any::<u64>(),
            time,
            any::<bool>(),
            any::<u32>(),
            any::<u64>(),
        )
            .prop_map(
                |(path, size, (seconds, nanoseconds), is_settled, crc32c, offset)| FileRecord {
                    path,
                    // The sum of all must be a number.
                    size: size >> 8,
                    mtime: DateTime::from_timestamp(seconds, nanoseconds).expect("a time"),
                    is_settled,
                    crc32c,
                    offset,
                },
            )
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out(files in prop::collection::vec(record(), 0..30)) {
            let packed: PackedRecords = files.iter().cloned().collect();
            prop_assert_eq!(packed.files(), files.len() as u64);
            prop_assert_eq!(packed.bytes(), files.iter().map(|file| file.size).sum::<u64>());
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), files.clone());
            let mut sources = PackedSources::default();
            let waiting = files.into_iter().map(|file| SourceFile { relative: file.path, size: file.size });
            let waiting: Vec<_> = waiting.collect();
            sources.extend(waiting.clone());
            prop_assert_eq!(sources.iter().collect::<Vec<_>>(), waiting);
        }
    }
}
