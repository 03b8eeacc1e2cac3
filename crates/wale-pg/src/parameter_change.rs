//! The settings that recovery enforces, as the log has them, and when its newest transactions were committed or rolled back.
//!
//! A primary that was started with other values writes a record of them (`XLOG_PARAMETER_CHANGE`), and a recovery that comes
//! to that record with smaller ones stops or pauses. The control file of a base backup knows only the values of its time.
//!
//! Source: `xl_parameter_change` and `XLogRecord` of PostgreSQL 10 to 18, little endian:
//!
//! ```text
//! offset  0  u32 length of the record, this header included
//!        16  u8  info: 0x60 in its high half
//!        17  u8  resource manager: 0, the log's own
//!        20  u32 CRC-32C of all that follows, then of the 20 bytes above
//!        24  u8 255, u8 length of the data: 24 (10, 11) or 28 (from 12 on)
//!        26  i32 max_connections, max_worker_processes, [from 12 on max_wal_senders], max_prepared_transactions,
//!            max_locks_per_transaction, wal_level; two flags and padding
//! ```
//!
//! The record of a commit (`xl_xact_commit`, resource manager 1, info 0x00 or, of a prepared transaction, 0x30 under the mask
//! 0x70) has no blocks. Its data begins with the time, behind the identifiers 253 (two bytes, the origin) and 252 (four bytes, the
//! transaction above) where they are there:
//!
//! ```text
//! offset  0  u8 255, u8 length of the data; or u8 254, u32 length
//!            i64 microseconds since 2000-01-01 00:00 UTC
//! ```
//!
//! The record of a rollback (info 0x20 or, of a prepared transaction, 0x40) begins in the same way (`xl_xact_abort`). A recovery that
//! ends at a time ends before the first record of either kind that is later (`recoveryStopsBefore`).
//!
//! Records run on behind the next page's header. Only the lengths of the others are read: a page that makes no sense ends
//! the look at its segment, and the next segment is entered by its own header.

use crate::control_file::crc32c;
use crate::enforced_settings::{EnforcedSettings, WalLevel};

/// `SizeOfXLogRecord`.
const HEADER_LENGTH: usize = 24;
/// What is kept of a record: the whole of one that matters, 24 + 2 + 28 bytes.
const KEPT: usize = 64;
/// Bytes of a page of the log. PostgreSQL can be built with others; then nothing is found.
const PAGE: usize = 8192;
/// Header of a page, and of the first page of a segment.
const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
/// The page begins with the rest of a record.
const CONTINUES: u16 = 1;
/// The header is the long one.
const LONG: u16 = 2;

/// Looks through the log, page by page, in its order.
#[derive(Clone, Debug, Default)]
pub struct ParameterScan {
    /// The beginning of the record that is being read.
    kept: Vec<u8>,
    /// Bytes of it that are still to come.
    missing: usize,
    /// Whether its beginning was seen.
    is_known: bool,
    /// Nothing more is to be had from this segment.
    is_over: bool,
    found: Option<EnforcedSettings>,
    newest_commit: Option<i64>,
    newest_end: Option<i64>,
}

impl ParameterScan {
    /// Bytes that [`ParameterScan::page`] takes.
    pub const PAGE_SIZE: usize = PAGE;

    /// The largest values that were found; `None` where no record was.
    #[must_use]
    pub const fn found(&self) -> Option<EnforcedSettings> {
        self.found
    }

    /// When the newest commit was made that was found: microseconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub const fn newest_commit_micros(&self) -> Option<i64> {
        self.newest_commit
    }

    /// When the newest transaction ended that was found, by a commit or a rollback: microseconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub const fn newest_end_micros(&self) -> Option<i64> {
        self.newest_end
    }

    /// Takes the next page, whole.
    pub fn page(&mut self, page: &[u8]) {
        let (Some(magic), Some(info), Some(rest)) = (
            u16_at(page, 0),
            u16_at(page, 2),
            u32_at(page, 16).map(|rest| rest as usize),
        ) else {
            return;
        };
        if info & LONG != 0 {
            self.is_over = false;
        }
        if self.is_over || magic == 0 || page.len() != PAGE {
            self.give_up();
            return;
        }
        let mut at = if info & LONG != 0 {
            LONG_HEADER
        } else {
            SHORT_HEADER
        };
        if info & CONTINUES == 0 {
            // A record that should go on here was given up by the server.
            self.missing = 0;
        } else {
            if self.missing != rest {
                self.is_known = false;
                self.missing = rest;
            }
            at = self.take(page, at);
        }
        while at < PAGE && !self.is_over {
            match u32_at(page, at).map(|length| length as usize) {
                Some(length) if length >= HEADER_LENGTH => {
                    self.kept.clear();
                    self.missing = length;
                    self.is_known = true;
                    at = self.take(page, at);
                }
                // The end of the log, or of this segment's use.
                _ => self.give_up(),
            }
        }
    }

    /// Reads on in the record; returns where the next one begins.
    fn take(&mut self, page: &[u8], at: usize) -> usize {
        let end = at.saturating_add(self.missing).min(PAGE);
        if self.is_known && self.kept.len() < KEPT {
            let keep = (KEPT - self.kept.len()).min(end - at);
            self.kept.extend_from_slice(&page[at..at + keep]);
        }
        self.missing -= end - at;
        if self.missing == 0 && self.is_known {
            self.judge();
        }
        end.next_multiple_of(8)
    }

    fn give_up(&mut self) {
        self.is_over = true;
        self.missing = 0;
        self.is_known = false;
    }

    fn judge(&mut self) {
        if let Some((end, time)) = end_of(&self.kept) {
            self.newest_end = self.newest_end.max(Some(time));
            if end == End::Commit {
                self.newest_commit = self.newest_commit.max(Some(time));
            }
        }
        let Some(settings) = settings_of(&self.kept) else {
            return;
        };
        self.found = Some(match self.found {
            None => settings,
            Some(before) => before.larger(settings),
        });
    }
}

/// The seconds from 1970 to 2000, when PostgreSQL's time begins.
const EPOCH_SECONDS: i64 = 946_684_800;

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
}

/// How and when a transaction ended, of a record that says it. Its CRC is not checked: what is kept of a long one does not
/// suffice for it.
fn end_of(record: &[u8]) -> Option<(End, i64)> {
    if *record.get(17)? != 1 {
        return None;
    }
    let end = match record.get(16)? & 0x70 {
        0x00 | 0x30 => End::Commit,
        0x20 | 0x40 => End::Rollback,
        _ => return None,
    };
    let mut at = HEADER_LENGTH;
    for (identifier, length) in [(253, 3), (252, 5)] {
        if *record.get(at)? == identifier {
            at += length;
        }
    }
    at += match *record.get(at)? {
        255 => 2,
        254 => 5,
        _ => return None,
    };
    let time = i64::from_le_bytes(*record.get(at..)?.first_chunk()?);
    let micros = time.checked_add(EPOCH_SECONDS * 1_000_000)?;
    (time > 0).then_some((end, micros))
}

/// The settings of a record that is one of them, whole and with the right CRC.
fn settings_of(record: &[u8]) -> Option<EnforcedSettings> {
    let length = u32_at(record, 0)? as usize;
    if record.get(16)? & 0xF0 != 0x60 || *record.get(17)? != 0 || record.len() != length {
        return None;
    }
    let data_length = *record.get(25)?;
    if *record.get(24)? != 255 || !matches!(data_length, 24 | 28) {
        return None;
    }
    if crc32c(&[&record[HEADER_LENGTH..], &record[..20]].concat()) != u32_at(record, 20)? {
        return None;
    }
    let mut at = 26;
    let mut next = || {
        let value = u32_at(record, at).map(u32::cast_signed);
        at += 4;
        value
    };
    let (max_connections, max_worker_processes) = (next()?, next()?);
    let max_wal_senders = if data_length == 28 {
        Some(next()?)
    } else {
        None
    };
    Some(EnforcedSettings {
        max_connections,
        max_worker_processes,
        max_wal_senders,
        max_prepared_transactions: next()?,
        max_locks_per_transaction: next()?,
        wal_level: match next()? {
            0 => WalLevel::Minimal,
            1 => WalLevel::Replica,
            _ => WalLevel::Logical,
        },
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(manager: u8, info: u8, data: &[u8]) -> Vec<u8> {
        let length = HEADER_LENGTH + 2 + data.len();
        let mut record = vec![0; length];
        record[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        record[16] = info;
        record[17] = manager;
        record[24] = 255;
        record[25] = u8::try_from(data.len()).unwrap();
        record[26..].copy_from_slice(data);
        let crc = crc32c(&[&record[HEADER_LENGTH..], &record[..20]].concat());
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        record
    }

    fn parameters(values: &[i32]) -> Vec<u8> {
        let mut data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        data.extend([0; 4]);
        record(0, 0x60, &data)
    }

    /// Records laid over pages, from the beginning of a segment on.
    fn pages(records: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut pages: Vec<Vec<u8>> = Vec::new();
        let new = |rest: usize, is_first: bool| {
            let mut page = vec![0; if is_first { LONG_HEADER } else { SHORT_HEADER }];
            page[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
            let flags = u16::from(rest > 0) | if is_first { LONG } else { 0 };
            page[2..4].copy_from_slice(&flags.to_le_bytes());
            page[16..20].copy_from_slice(&u32::try_from(rest).unwrap().to_le_bytes());
            page
        };
        let mut page = new(0, true);
        for record in records {
            let mut rest = record.as_slice();
            loop {
                let room = PAGE - page.len();
                let (now, later) = rest.split_at(rest.len().min(room));
                page.extend_from_slice(now);
                rest = later;
                if page.len() == PAGE {
                    pages.push(std::mem::replace(&mut page, new(rest.len(), false)));
                }
                if rest.is_empty() {
                    break;
                }
            }
            let aligned = page.len().next_multiple_of(8);
            page.resize(aligned, 0);
            if page.len() == PAGE {
                pages.push(std::mem::replace(&mut page, new(0, false)));
            }
        }
        page.resize(PAGE, 0);
        pages.push(page);
        pages
    }

    fn scan(pages: &[Vec<u8>]) -> Option<EnforcedSettings> {
        let mut scan = ParameterScan::default();
        for page in pages {
            scan.page(page);
        }
        scan.found()
    }

    #[test]
    fn the_newest_commit_is_found_and_nothing_else_is_taken_for_one() {
        let commit = |time: i64, rest: usize| {
            let mut data = time.to_le_bytes().to_vec();
            data.resize(8 + rest, 9);
            record(1, 0x80, &data)
        };
        let newest = |records: &[Vec<u8>]| {
            let mut scan = ParameterScan::default();
            for page in pages(records) {
                scan.page(&page);
            }
            (scan.newest_commit_micros(), scan.newest_end_micros())
        };
        let abort = record(1, 0x20, &9_000_i64.to_le_bytes());
        let other = record(10, 0, &9_000_i64.to_le_bytes());
        let since_1970 = |time: i64| Some(time + EPOCH_SECONDS * 1_000_000);
        // A rollback is no commit, but the end of a transaction; a prepared one's, too.
        assert_eq!(newest(std::slice::from_ref(&other)), (None, None));
        assert_eq!(newest(&[abort.clone(), other]), (None, since_1970(9_000)));
        let prepared_abort = record(1, 0x40, &9_500_i64.to_le_bytes());
        assert_eq!(newest(&[prepared_abort]), (None, since_1970(9_500)));
        let assignment = record(1, 0x50, &9_900_i64.to_le_bytes());
        assert_eq!(newest(&[assignment]), (None, None));
        // A long one is kept in part; the last of a prepared transaction counts, too.
        let prepared = record(1, 0x30, &7_000_i64.to_le_bytes());
        let found = newest(&[commit(5_000, 200), commit(4_000, 0), abort]);
        assert_eq!(found, (since_1970(5_000), since_1970(9_000)));
        assert_eq!(newest(&[commit(5_000, 0), prepared]).0, since_1970(7_000));
        // Behind the identifier of an origin.
        let mut data = vec![253, 1, 0, 255, 8];
        data.extend(6_000_i64.to_le_bytes());
        let mut behind = record(1, 0, &[0; 11]);
        behind[24..24 + data.len()].copy_from_slice(&data);
        assert_eq!(newest(&[behind]).0, since_1970(6_000));
    }

    #[test]
    fn fault_84_the_largest_values_are_found_wherever_their_records_lie() {
        let other = |length: usize| record(10, 0, &vec![7; length]);
        let first = parameters(&[100, 8, 10, 0, 64, 1]);
        let second = parameters(&[50, 20, 10, 0, 64, 1]);
        assert_eq!(scan(&pages(&[other(100), other(200)])), None);
        // The second record lies in one page, then over the border of two, at each place that alignment allows.
        for filler in (0..200).step_by(8) {
            let mut records = vec![first.clone()];
            records.extend(std::iter::repeat_with(|| other(214)).take(33));
            records.push(other(filler));
            records.push(second.clone());
            records.push(other(100));
            let found = scan(&pages(&records)).unwrap();
            assert_eq!(
                (found.max_connections, found.max_worker_processes),
                (100, 20),
                "{filler}"
            );
            assert_eq!(found.max_wal_senders, Some(10));
        }
        // 10 and 11 have no max_wal_senders.
        let old = scan(&pages(&[parameters(&[100, 8, 5, 64, 1])])).unwrap();
        assert_eq!(
            (old.max_wal_senders, old.max_prepared_transactions),
            (None, 5)
        );
        // A record that is not whole, or damaged, is none.
        let mut damaged = first;
        damaged[30] ^= 1;
        assert_eq!(scan(&pages(&[damaged])), None);
    }

    #[test]
    fn a_segment_is_entered_behind_the_rest_of_an_earlier_record() {
        let mut all = pages(&[
            record(10, 0, &[1; 200]),
            parameters(&[100, 8, 10, 0, 64, 1]),
        ]);
        // The first record is the rest of one that began in a segment that nobody saw.
        let rest = 226_u32;
        all[0][2] |= 1;
        all[0][16..20].copy_from_slice(&rest.to_le_bytes());
        assert!(scan(&all).is_some());
        // A segment whose rest is empty, then another one.
        let mut two = vec![vec![0; PAGE]];
        two.extend(pages(&[parameters(&[7, 8, 10, 0, 64, 1])]));
        assert_eq!(scan(&two).unwrap().max_connections, 7);
    }

    proptest! {
        #[test]
        fn no_page_breaks_the_scan(bytes in proptest::collection::vec(any::<u8>(), 0..200), times in 0_usize..60) {
            let mut page: Vec<u8> = bytes.iter().copied().cycle().take(PAGE.min(bytes.len() * times)).collect();
            page.resize(PAGE, 0);
            let mut scan = ParameterScan::default();
            scan.page(&page);
            scan.page(&page);
            scan.page(&bytes);
        }
    }
}
