//! Which files of the backup have arrived: each exactly once, with the size and the CRC that the manifest says.
//!
//! With a manifest nothing else is let in. Without one (a backup that WAL-E or WAL-G made) every file is let in once.
//! The ledger is asked twice for each file, before and after its body, by all workers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::plan::ExpectedFile;
use crate::error::{Kind, OpError, Result};

/// Files of a backup without a manifest, at most: more than the tools that write such backups can handle. 2,097,152 × some
/// 120 bytes and their names = 380 MB.
const FOREIGN_FILES_MAX: usize = 1 << 21;
/// Bytes of their names together: 64 for each, twice what relations have.
const FOREIGN_NAMES_MAX: usize = FOREIGN_FILES_MAX * 64;

/// Which partition brings a file, and at which attempt to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carrier {
    /// Number of the partition.
    pub(super) partition: u32,
    /// Attempt, from 1.
    pub(super) attempt: u32,
}

/// What to do with a file that a partition offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Write it.
    Write,
    /// An earlier attempt at the same partition has brought it whole.
    HaveIt,
}

#[derive(Debug)]
struct Item {
    expected: Option<ExpectedFile>,
    arrived: Option<Carrier>,
}

/// The files of one restore.
#[derive(Debug)]
pub(super) struct Ledger {
    has_manifest: bool,
    items: Mutex<BTreeMap<String, Item>>,
    /// Bytes of the names that no manifest announced.
    names: AtomicUsize,
}

impl Ledger {
    /// Expects exactly these files, or anything when there is no manifest.
    pub(super) fn new(manifest: Option<BTreeMap<String, ExpectedFile>>) -> Self {
        let has_manifest = manifest.is_some();
        let items = manifest.unwrap_or_default().into_iter();
        let items = items
            .map(|(path, expected)| {
                (
                    path,
                    Item {
                        expected: Some(expected),
                        arrived: None,
                    },
                )
            })
            .collect();
        Self {
            has_manifest,
            items: Mutex::new(items),
            names: AtomicUsize::new(0),
        }
    }

    /// Asks whether the file may be written.
    pub(super) fn admit(&self, path: &str, size: u64, carrier: Carrier) -> Result<Admission> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let known = items.len();
        let item = match items.entry(path.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if self.has_manifest => {
                return Err(refused(path, carrier, "the manifest does not have it"));
            }
            Entry::Vacant(_) if known >= FOREIGN_FILES_MAX => {
                return Err(OpError::new(
                    Kind::CorruptData,
                    format!("the backup holds more than {FOREIGN_FILES_MAX} files"),
                ));
            }
            Entry::Vacant(entry) => {
                let names = self.names.fetch_add(path.len(), Ordering::Relaxed);
                if names.saturating_add(path.len()) > FOREIGN_NAMES_MAX {
                    return Err(OpError::new(
                        Kind::CorruptData,
                        "the names of the backup's files are far too long together",
                    ));
                }
                entry.insert(Item {
                    expected: None,
                    arrived: None,
                })
            }
        };
        if let Some(expected) = &item.expected
            && expected.size != size
        {
            return Err(refused(
                path,
                carrier,
                &format!("it has {size} bytes, the manifest says {}", expected.size),
            ));
        }
        match item.arrived {
            None => Ok(Admission::Write),
            Some(earlier)
                if earlier.partition == carrier.partition && earlier.attempt < carrier.attempt =>
            {
                item.arrived = Some(carrier);
                Ok(Admission::HaveIt)
            }
            Some(earlier) => Err(refused(
                path,
                carrier,
                &format!("it came already, in partition {}", earlier.partition),
            )),
        }
    }

    /// Notes that the file is written, with the CRC-32C of what was written.
    pub(super) fn arrived(&self, path: &str, crc32c: u32, carrier: Carrier) -> Result<()> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let item = items
            .get_mut(path)
            .ok_or_else(|| OpError::internal(format!("\"{path}\" was never admitted")))?;
        if let Some(expected) = item.expected.as_ref().and_then(|expected| expected.crc32c)
            && expected != crc32c
        {
            let found = format!("its CRC-32C is {crc32c:08x}, the manifest says {expected:08x}");
            return Err(refused(path, carrier, &found));
        }
        // Two partitions that bring it at the same time were both let in.
        if let Some(earlier) = item.arrived.replace(carrier) {
            let why = format!("it came already, in partition {}", earlier.partition);
            return Err(refused(path, carrier, &why));
        }
        Ok(())
    }

    /// Whether every file of the manifest has arrived.
    pub(super) fn check_complete(&self) -> Result<()> {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = items
            .iter()
            .filter(|(_, item)| item.arrived.is_none())
            .map(|(path, _)| path);
        let Some(first) = missing.next() else {
            return Ok(());
        };
        let more = missing.count();
        Err(
            OpError::new(Kind::CorruptData, format!("the backup lacks \"{first}\""))
                .detail(format!(
                    "The manifest has it, no partition brought it; {more} more files are missing."
                ))
                .hint("restore another backup; this one was damaged in the archive"),
        )
    }
}

fn refused(path: &str, carrier: Carrier, why: &str) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!(
            "\"{path}\" in partition {} is not the file of the manifest: {why}",
            carrier.partition
        ),
    )
    .hint("restore another backup; this one was damaged in the archive")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> BTreeMap<String, ExpectedFile> {
        let expect = |size, crc32c| ExpectedFile { size, crc32c };
        BTreeMap::from([
            ("a".to_owned(), expect(1, Some(7))),
            ("b".to_owned(), expect(2, None)),
        ])
    }

    fn carrier(partition: u32, attempt: u32) -> Carrier {
        Carrier { partition, attempt }
    }

    #[test]
    fn each_file_of_the_manifest_arrives_exactly_once() {
        let ledger = Ledger::new(Some(manifest()));
        assert_eq!(
            ledger.admit("a", 1, carrier(0, 1)).unwrap(),
            Admission::Write
        );
        assert!(ledger.check_complete().is_err());
        ledger.arrived("a", 7, carrier(0, 1)).unwrap();
        assert_eq!(
            ledger.admit("b", 2, carrier(1, 1)).unwrap(),
            Admission::Write
        );
        ledger.arrived("b", 99, carrier(1, 1)).unwrap();
        ledger.check_complete().unwrap();
        // Another attempt at the same partition skips it; twice in one attempt, or elsewhere, is damage.
        assert_eq!(
            ledger.admit("a", 1, carrier(0, 2)).unwrap(),
            Admission::HaveIt
        );
        assert!(ledger.admit("a", 1, carrier(0, 2)).is_err());
        assert!(ledger.admit("b", 2, carrier(2, 1)).is_err());
    }

    #[test]
    fn strangers_wrong_sizes_and_wrong_sums_are_refused() {
        let ledger = Ledger::new(Some(manifest()));
        for (path, size) in [("c", 1), ("a", 2), ("A", 1)] {
            assert_eq!(
                ledger.admit(path, size, carrier(0, 1)).unwrap_err().kind,
                Kind::CorruptData,
                "{path}"
            );
        }
        ledger.admit("a", 1, carrier(0, 1)).unwrap();
        assert_eq!(
            ledger.arrived("a", 8, carrier(0, 1)).unwrap_err().kind,
            Kind::CorruptData
        );
        assert!(
            ledger
                .check_complete()
                .unwrap_err()
                .message
                .contains("\"a\"")
        );
    }

    #[test]
    fn without_a_manifest_everything_is_let_in_once() {
        let ledger = Ledger::new(None);
        assert_eq!(
            ledger.admit("x", 5, carrier(3, 1)).unwrap(),
            Admission::Write
        );
        ledger.arrived("x", 1, carrier(3, 1)).unwrap();
        ledger.check_complete().unwrap();
        assert!(ledger.admit("x", 5, carrier(4, 1)).is_err());
    }

    #[test]
    fn a_file_that_two_partitions_bring_at_once_is_refused() {
        let ledger = Ledger::new(None);
        ledger.admit("x", 5, carrier(3, 1)).unwrap();
        ledger.admit("x", 5, carrier(4, 1)).unwrap();
        ledger.arrived("x", 1, carrier(4, 1)).unwrap();
        assert!(ledger.arrived("x", 1, carrier(3, 1)).is_err());
    }
}
