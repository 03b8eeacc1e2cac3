//! The body of a member that WAL-G calls incremented: the size of a file, and those of its pages that changed since the
//! backup before.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `wi1U` |
//! | 4 | 8 | size of the file, little-endian, in bytes |
//! | 12 | 4 | N, the number of pages |
//! | 16 | 4 · N | their block numbers in the file, ascending |
//! | 16 + 4 · N | 8192 · N | the pages, in the same order |
//!
//! Refuses to know: which file it is, and where its pages go. Whether a member is one says the list of the backup, never its
//! first bytes: a file of a user's may begin as it likes.
//!
//! Source followed: WAL-G 43fb039.

use std::io::{self, Read};

/// As the constant of [`Increment`].
const PAGE_BYTES: u64 = Increment::PAGE_BYTES as u64;

const MAGIC: [u8; 4] = *b"wi1U";
const HEADER_BYTES: usize = 16;
const NUMBER_BYTES: usize = 4;

/// Pages of a file, at most: 2 GiB, twice what PostgreSQL's files have at most. Their numbers take 1 MiB of memory.
const PAGES_MAX: u32 = 1 << 18;

/// What an increment says before its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Increment {
    file_bytes: u64,
    blocks: Vec<u32>,
}

/// An increment cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IncrementError {
    /// Its source cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is none, or not whole.
    #[error("it is no increment of WAL-G's: {0}")]
    Invalid(String),
}

impl Increment {
    /// Bytes of a page. WAL-G can be set to others for a server that was built with them; wale supports none.
    pub const PAGE_BYTES: usize = 8192;

    /// Reads what stands before the pages of a member of `member_bytes` bytes; they are what follows in `source`.
    ///
    /// # Errors
    /// Those of the source; `Invalid` for what is no increment of this length.
    pub fn read(source: &mut impl Read, member_bytes: u64) -> Result<Self, IncrementError> {
        let invalid = |why: String| Err(IncrementError::Invalid(why));
        if member_bytes < HEADER_BYTES as u64 {
            return invalid(format!("it has {member_bytes} bytes"));
        }
        let mut header = [0; HEADER_BYTES];
        source.read_exact(&mut header)?;
        let [
            m0,
            m1,
            m2,
            m3,
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            n0,
            n1,
            n2,
            n3,
        ] = header;
        if [m0, m1, m2, m3] != MAGIC {
            return invalid("it begins otherwise".to_owned());
        }
        let file_bytes = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        if file_bytes % PAGE_BYTES != 0 {
            return invalid(format!("its file has {file_bytes} bytes, no whole pages"));
        }
        if file_bytes > u64::from(PAGES_MAX) * PAGE_BYTES {
            return invalid(format!("its file has {file_bytes} bytes, far too many"));
        }
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        let expected = HEADER_BYTES as u64 + u64::from(count) * (NUMBER_BYTES as u64 + PAGE_BYTES);
        if count > PAGES_MAX || expected != member_bytes {
            return invalid(format!(
                "{count} pages of 8192 bytes do not make {member_bytes} bytes"
            ));
        }
        let blocks = read_numbers(source, count)?;
        if !blocks.is_sorted_by(|one, next| one < next) {
            return invalid("its block numbers do not ascend".to_owned());
        }
        Ok(Self { file_bytes, blocks })
    }

    /// The size of the file, in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Where each page lies in the file, in bytes, in the order in which they follow. A page that lies behind the file's
    /// end came while the backup ran: the WAL makes it again, and it has no place.
    pub fn places(&self) -> impl Iterator<Item = Option<u64>> + '_ {
        self.blocks.iter().map(|&block| {
            let place = u64::from(block) * PAGE_BYTES;
            (place < self.file_bytes).then_some(place)
        })
    }
}

/// The numbers of the pages; memory is taken as they come.
fn read_numbers(source: &mut impl Read, count: u32) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    let mut left = count as usize;
    let mut piece = [[0; NUMBER_BYTES]; 1024];
    while left > 0 {
        let some = left.min(piece.len());
        source.read_exact(piece[..some].as_flattened_mut())?;
        numbers.extend(
            piece[..some]
                .iter()
                .map(|number| u32::from_le_bytes(*number)),
        );
        left -= some;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(file_bytes: u64, blocks: &[u32]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(file_bytes.to_le_bytes());
        bytes.extend(u32::try_from(blocks.len()).unwrap().to_le_bytes());
        bytes.extend(blocks.iter().flat_map(|block| block.to_le_bytes()));
        bytes.extend(
            blocks
                .iter()
                .flat_map(|block| [block.to_le_bytes()[0]; 8192]),
        );
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Increment, IncrementError> {
        Increment::read(&mut &bytes[..], bytes.len() as u64)
    }

    /// The example of WAL-G's own documents: a file of three pages, of which the first and the third changed.
    #[test]
    fn pages_follow_their_numbers() {
        let bytes = member(3 * 8192, &[0, 2]);
        assert_eq!(bytes.len(), 16_408);
        let mut source = &bytes[..];
        let increment = Increment::read(&mut source, 16_408).unwrap();
        assert_eq!(increment.file_bytes(), 24_576);
        let places: Vec<_> = increment.places().collect();
        assert_eq!(places, [Some(0), Some(16_384)]);
        assert_eq!((source.len(), source[0], source[8192]), (16_384, 0, 2));
    }

    #[test]
    fn a_file_may_only_change_its_size_and_pages_behind_its_end_have_no_place() {
        let cut = read(&member(0, &[])).unwrap();
        assert_eq!((cut.file_bytes(), cut.places().count()), (0, 0));
        let grown = read(&member(8192, &[0, 1, 7])).unwrap();
        let places: Vec<_> = grown.places().collect();
        assert_eq!(places, [Some(0), None, None]);
        let many: Vec<u32> = (0..3000).map(|number| number * 2).collect();
        let bytes = member(6000 * 8192, &many);
        assert_eq!(
            read(&bytes).unwrap().places().last(),
            Some(Some(5998 * 8192))
        );
    }

    #[test]
    fn what_is_no_whole_increment_is_refused() {
        let whole = member(3 * 8192, &[0, 2]);
        let patched = |at: usize, bytes: &[u8]| {
            let mut patched = whole.clone();
            patched[at..at + bytes.len()].copy_from_slice(bytes);
            patched
        };
        let cases = [
            Vec::new(),
            whole[..15].to_vec(),
            whole[..16].to_vec(),
            whole[..whole.len() - 1].to_vec(),
            [&whole[..], &[0]].concat(),
            // A later version of the format.
            patched(2, b"2"),
            patched(4, &8193u64.to_le_bytes()),
            patched(4, &(u64::MAX - 8191).to_le_bytes()),
            patched(12, &3u32.to_le_bytes()),
            patched(12, &u32::MAX.to_le_bytes()),
            // The same block twice, and out of order.
            member(3 * 8192, &[2, 2]),
            member(3 * 8192, &[2, 0]),
        ];
        for bytes in cases {
            let error = read(&bytes).unwrap_err();
            assert!(matches!(error, IncrementError::Invalid(_)), "{error:?}");
        }
        // What its tar says is longer than what follows.
        let error = Increment::read(&mut &whole[..20], whole.len() as u64).unwrap_err();
        assert!(matches!(error, IncrementError::Read(_)), "{error:?}");
    }
}
