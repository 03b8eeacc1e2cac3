//! The record that a server writes last when it is shut down: a checkpoint from which it starts again.
//!
//! Source: PostgreSQL's `XLogRecord` (`access/xlogrecord.h`), `XLogPageHeaderData` (`access/xlog_internal.h`) and
//! `CheckPoint` (`catalog/pg_control.h`), little endian, the same from 10 to 19. A record is
//!
//! ```text
//! offset  0  u32 length of the record, this header included
//!         4  u32 transaction
//!         8  u64 position of the record before
//!        16  u8  info: 0x00 for a checkpoint of a shutdown
//!        17  u8  resource manager: 0, the log's own
//!        20  u32 CRC-32C of all that follows, then of the 20 bytes above
//!        24  u8 255, u8 length, then the checkpoint, which begins with the position of its redo point
//! ```
//!
//! and where it crosses into the next page, that page's header lies in its middle.

use crate::control_file::crc32c;
use crate::lsn::Lsn;
use crate::wal_segment::WalSegmentSize;

/// `SizeOfXLogRecord`.
const HEADER_LENGTH: usize = 24;
/// Two bytes before the data, and the redo point.
const SHORTEST: usize = HEADER_LENGTH + 2 + 8;
/// `SizeOfXLogShortPHD`: header of a page, aligned.
const PAGE_HEADER: u64 = 24;
/// `SizeOfXLogLongPHD`: header of the first page of a segment, aligned.
const FIRST_PAGE_HEADER: u64 = 40;

/// There is no checkpoint of a shutdown at the position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownCheckpointError {
    /// The bytes end before the record does.
    #[error("the log ends within the record at {at}")]
    TooShort {
        /// Where the record begins.
        at: Lsn,
    },
    /// There is something else.
    #[error("there is no checkpoint of a shutdown at {at}: {reason}")]
    Other {
        /// Where it was looked for.
        at: Lsn,
        /// What is wrong.
        reason: String,
    },
}

/// Where the log ends after the checkpoint of a shutdown at `at`.
///
/// `log` holds the bytes from the beginning of the WAL page in which the record begins, two pages of `page_size` bytes
/// or more: a record of this kind is shorter than a page.
///
/// # Errors
/// When what is at `at` is not that record, whole and with the right CRC.
pub fn end_of_shutdown_checkpoint(
    at: Lsn,
    log: &[u8],
    page_size: u32,
    segment_size: WalSegmentSize,
) -> Result<Lsn, ShutdownCheckpointError> {
    let other = |reason: &str| ShutdownCheckpointError::Other {
        at,
        reason: reason.to_owned(),
    };
    let too_short = ShutdownCheckpointError::TooShort { at };
    let page_size = u64::from(page_size);
    if page_size <= FIRST_PAGE_HEADER {
        return Err(other("the size of its pages is impossible"));
    }
    let in_page = at.as_u64() % page_size;
    let page = at.as_u64() - in_page;
    let room = usize::try_from(page_size - in_page).map_err(|_| too_short.clone())?;
    let begin = usize::try_from(in_page).map_err(|_| too_short.clone())?;
    let length = log
        .get(begin..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u32::from_le_bytes(*bytes) as usize)
        .ok_or_else(|| too_short.clone())?;
    if length < SHORTEST || length as u64 > page_size - FIRST_PAGE_HEADER {
        return Err(other("its length is impossible"));
    }
    let next_page = Lsn::new(page.saturating_add(page_size));
    let next_header = if segment_size.offset_in_segment(next_page) == 0 {
        FIRST_PAGE_HEADER
    } else {
        PAGE_HEADER
    };
    let mut record = log
        .get(begin..begin + length.min(room))
        .ok_or_else(|| too_short.clone())?
        .to_vec();
    let rest = length - record.len();
    if rest > 0 {
        let from = begin + room + usize::try_from(next_header).map_err(|_| too_short.clone())?;
        record.extend(log.get(from..from + rest).ok_or(too_short)?);
    }
    let found = u32::from_le_bytes(field(&record, 20));
    if found != crc_of(&record) {
        return Err(other("its CRC does not match"));
    }
    if record[16] & 0xF0 != 0 || record[17] != 0 || record[24] != 255 {
        return Err(other("it is another kind of record"));
    }
    if u64::from_le_bytes(field(&record, 26)) != at.as_u64() {
        return Err(other("its redo point lies elsewhere"));
    }
    let end = if rest > 0 {
        next_page.as_u64() + next_header + rest as u64
    } else {
        at.as_u64() + length as u64
    };
    Ok(Lsn::new(end.next_multiple_of(8)))
}

/// The CRC of a record: of its data, then of its header up to the CRC.
fn crc_of(record: &[u8]) -> u32 {
    crc32c(&[&record[HEADER_LENGTH..], &record[..20]].concat())
}

/// A field of a record that is long enough: its length was checked.
fn field<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&record[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u32 = 8192;
    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    /// Two pages with a checkpoint at `at`.
    fn log(at: u64) -> Vec<u8> {
        let mut record = vec![0; 114];
        record[0..4].copy_from_slice(&114_u32.to_le_bytes());
        record[24..26].copy_from_slice(&[255, 88]);
        record[26..34].copy_from_slice(&at.to_le_bytes());
        seal(&mut record);
        let mut log = vec![0; 2 * PAGE as usize];
        let begin = usize::try_from(at % u64::from(PAGE)).unwrap();
        let first = record.len().min(PAGE as usize - begin);
        log[begin..begin + first].copy_from_slice(&record[..first]);
        let next = at - at % u64::from(PAGE) + u64::from(PAGE);
        let header = if next.is_multiple_of(SIZE.bytes()) {
            40
        } else {
            24
        };
        let from = PAGE as usize + header;
        log[from..from + record.len() - first].copy_from_slice(&record[first..]);
        log
    }

    fn seal(record: &mut [u8]) {
        let crc = crc_of(record);
        record[20..24].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn a_record_ends_in_its_page_or_behind_the_next_header() {
        let segment = SIZE.bytes();
        let cases = [
            (segment + 40, segment + 40 + 120),
            (segment + 8192 - 120, segment + 8192),
            // 100 bytes fit, 14 follow behind a header of 24; at the end of a segment of 40.
            (segment + 16384 - 100, segment + 16384 + 40),
            (2 * segment - 100, 2 * segment + 56),
        ];
        for (at, end) in cases {
            let found = end_of_shutdown_checkpoint(Lsn::new(at), &log(at), PAGE, SIZE);
            assert_eq!(found, Ok(Lsn::new(end)), "{at:X}");
        }
    }

    #[test]
    fn what_is_no_checkpoint_of_a_shutdown_is_refused() {
        let at = SIZE.bytes() + 40;
        let judge = |log: &[u8]| end_of_shutdown_checkpoint(Lsn::new(at), log, PAGE, SIZE);
        let good = log(at);
        for length in [0, 40, 43, 100, 153] {
            assert!(judge(&good[..length]).is_err(), "{length}");
        }
        assert!(judge(&good[..154]).is_ok());
        for bit in [40, 41, 56, 57, 60, 64, 66, 100] {
            let mut bad = good.clone();
            bad[bit] ^= 1;
            assert!(judge(&bad).is_err(), "{bit}");
        }
        // Right CRCs of other records: a checkpoint of a running server, another resource manager's, another position's.
        for (byte, value) in [(16, 0x10), (17, 1), (24, 254), (26, 0)] {
            let mut bad = good.clone();
            bad[40 + byte] = value;
            seal(&mut bad[40..154]);
            assert!(judge(&bad).is_err(), "{byte}");
        }
        for page in [0, 24, 40] {
            assert!(end_of_shutdown_checkpoint(Lsn::new(at), &good, page, SIZE).is_err());
        }
    }
}
