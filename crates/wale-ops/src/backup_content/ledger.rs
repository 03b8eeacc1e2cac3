//! Which files of the backup have arrived: each exactly once, with the size and the CRC that the manifest says.
//!
//! With a manifest nothing else is let in. Without one (a backup that WAL-E or WAL-G made) every file is let in once, and
//! what its maker listed must come. The ledger is asked twice for each file, before and after its body, by all workers.
//!
//! Memory: names are kept as digests, 24 bytes for each file of a manifest; [`DescriptionBounds`] says for how many files.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroU8;
use std::sync::{Mutex, MutexGuard, PoisonError};
use wale_archive::Remedy;
use wale_archive::described::{
    Delivery, DescriptionBounds, ExpectedNames, MANIFEST_FILE_BYTES, NameDigest,
};

use crate::error::{Kind, OpError, Result};

const _: () = assert!(size_of::<Item>() as u64 == MANIFEST_FILE_BYTES);

/// Which partition brings a file, and at which attempt to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carrier {
    /// Number of the partition.
    pub(super) partition: u32,
    /// Attempt, from 1.
    pub(super) attempt: NonZeroU8,
}

impl Carrier {
    /// No partition: the file was there before. No backup has so many partitions.
    const NOBODY: Self = Self {
        partition: u32::MAX,
        attempt: NonZeroU8::MIN,
    };
}

/// What to do with a file that a partition offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Write it.
    Write,
    /// An earlier attempt at the same partition has brought it whole, or it was there before.
    HaveIt,
}

/// A file as the manifest says it must arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpectedFile {
    /// Size in bytes.
    pub(super) size: u64,
    /// Checksum of the content, where the manifest has one of this kind.
    pub(super) crc32c: Option<u32>,
}

/// A file of the manifest, in 24 bytes: there may be a million of them.
#[derive(Debug)]
struct Item {
    name: ShortDigest,
    /// The upper bits of its size, and whether there is a CRC-32C.
    size_upper: u16,
    size_lower: u32,
    crc32c: u32,
    arrival: Arrival,
}

/// 80 bits of a name, keyed anew for each reading. That two names of a million have the same happens once in 10^12 readings, by chance:
/// nobody who does not know the keys can make two. Such a reading is refused, and the next one is not.
type ShortDigest = [u8; 10];

/// The keys of [`ShortDigest`]s.
#[derive(Debug, Clone, Default)]
struct DigestKeys(RandomState, RandomState);

impl DigestKeys {
    fn digest(&self, name: &str) -> ShortDigest {
        let mut digest = ShortDigest::default();
        digest[..8].copy_from_slice(&self.0.hash_one(name).to_le_bytes());
        digest[8..].copy_from_slice(&self.1.hash_one(name).to_le_bytes()[..2]);
        digest
    }
}

/// Says in [`Item::size_upper`] that there is a CRC-32C.
const HAS_CRC: u16 = 1 << 15;
/// The largest size that an item holds, 128 TiB: a larger file is beyond every file system's, and never fits what arrives.
const SIZE_MAX: u64 = (1 << 47) - 1;

impl Item {
    fn new(name: ShortDigest, expected: ExpectedFile) -> Self {
        let size = expected.size.min(SIZE_MAX);
        let upper = u16::try_from(size >> 32).expect("47 bits without 32 are 15");
        let has_crc = if expected.crc32c.is_some() {
            HAS_CRC
        } else {
            0
        };
        Self {
            name,
            size_upper: upper | has_crc,
            size_lower: u32::try_from(size & u64::from(u32::MAX)).expect("32 bits"),
            crc32c: expected.crc32c.unwrap_or(0),
            arrival: Arrival::NONE,
        }
    }

    fn expected(&self) -> ExpectedFile {
        let upper = u64::from(self.size_upper & !HAS_CRC);
        ExpectedFile {
            size: (upper << 32) | u64::from(self.size_lower),
            crc32c: (self.size_upper & HAS_CRC != 0).then_some(self.crc32c),
        }
    }
}

/// What brought a file, in four bytes: nothing yet, nobody, or the number of its partition and, in the lowest byte, the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arrival(u32);

/// Partitions with larger numbers do not fit into an [`Arrival`]: at 1 GiB each that many are 16 PiB.
const PARTITION_MAX: u32 = (1 << 24) - 2;

impl Arrival {
    const NONE: Self = Self(0);
    const NOBODY: Self = Self(u32::MAX);

    fn of(carrier: Carrier) -> Self {
        let partition = carrier.partition.min(PARTITION_MAX);
        Self((partition << 8) | u32::from(carrier.attempt.get()))
    }

    fn carrier(self) -> Option<Carrier> {
        let attempt = NonZeroU8::new(self.0.to_le_bytes()[0])?;
        if self == Self::NOBODY {
            return Some(Carrier::NOBODY);
        }
        Some(Carrier {
            partition: self.0 >> 8,
            attempt,
        })
    }
}

/// The files that a manifest says must arrive, as they are gathered.
#[derive(Debug)]
pub(super) struct ExpectedFiles {
    items: Vec<Item>,
    keys: DigestKeys,
    bounds: DescriptionBounds,
    seen: u64,
}

impl ExpectedFiles {
    /// Room for `announced` files, if they fit into the bounds.
    pub(super) fn new(bounds: DescriptionBounds, announced: u64) -> Self {
        let announced = announced.min(bounds.files_max());
        Self {
            items: Vec::with_capacity(usize::try_from(announced).unwrap_or(0)),
            keys: DigestKeys::default(),
            bounds,
            seen: 0,
        }
    }

    /// Adds a file. What does not fit any more is only counted.
    pub(super) fn add(&mut self, path: &str, expected: ExpectedFile) {
        self.seen += 1;
        if self.seen <= self.bounds.files_max() {
            let name = self.keys.digest(path);
            self.items.push(Item::new(name, expected));
        }
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.seen
    }
}

/// What is known of the files of one backup.
#[derive(Debug)]
enum Items {
    /// Those of the manifest, in the order of their digests.
    Manifest(Box<[Item]>),
    /// Those that have come to a backup without a manifest, and the names that its maker listed.
    Foreign {
        arrived: BTreeMap<NameDigest, Carrier>,
        listed: ExpectedNames,
    },
}

/// The files of one backup, for one reading of it.
#[derive(Debug)]
pub(super) struct Ledger {
    items: Mutex<Items>,
    /// Those of a manifest's names.
    keys: DigestKeys,
    files_max: u64,
}

impl Ledger {
    /// Expects exactly these files.
    ///
    /// # Errors
    ///
    /// [`Kind::Configuration`] when they are too many; [`Kind::CorruptData`] when a path occurs twice. `what` names their
    /// manifest.
    pub(super) fn of_manifest(expected: ExpectedFiles, what: &str) -> Result<Self> {
        let ExpectedFiles {
            mut items,
            keys,
            bounds,
            seen,
        } = expected;
        if seen > bounds.files_max() {
            return Err(bounds.too_many(what, seen));
        }
        items.sort_unstable_by_key(|item| item.name);
        if items.is_sorted_by(|one, next| one.name < next.name) {
            return Ok(Self {
                items: Mutex::new(Items::Manifest(items.into_boxed_slice())),
                keys,
                files_max: bounds.files_max(),
            });
        }
        Err(OpError::new(
            Kind::CorruptData,
            format!("{what} is damaged: a path occurs twice"),
        ))
    }

    /// Lets anything in once, and expects the names of a list, which may be empty.
    pub(super) fn of_list(bounds: DescriptionBounds, listed: ExpectedNames) -> Self {
        Self {
            items: Mutex::new(Items::Foreign {
                arrived: BTreeMap::new(),
                listed,
            }),
            keys: DigestKeys::default(),
            files_max: bounds.files_max(),
        }
    }

    /// Notes that a member has come, whatever it is: lists have directories and links, too.
    pub(super) fn come(&self, name: &str) {
        if let Items::Foreign { listed, .. } = &mut *self.lock() {
            listed.come(name);
        }
    }

    /// How the list says that a member comes; `None` where nothing lists it.
    pub(super) fn delivery_of(&self, name: &str) -> Option<Delivery> {
        match &*self.lock() {
            Items::Manifest(_) => None,
            Items::Foreign { listed, .. } => listed.delivery_of(name),
        }
    }

    /// The size of a file, in bytes, where the manifest has it.
    pub(super) fn size_of(&self, path: &str) -> Option<u64> {
        Some(self.item(path)?.0.size)
    }

    /// Size and CRC-32C of a file, where the manifest has both.
    pub(super) fn expected(&self, path: &str) -> Option<(u64, u32)> {
        let (expected, _) = self.item(path)?;
        Some((expected.size, expected.crc32c?))
    }

    /// A file of the manifest, and what brought it.
    fn item(&self, path: &str) -> Option<(ExpectedFile, Arrival)> {
        let name = self.keys.digest(path);
        match &*self.lock() {
            Items::Manifest(items) => {
                let item = &items[find(items, name)?];
                Some((item.expected(), item.arrival))
            }
            Items::Foreign { .. } => None,
        }
    }

    /// Notes that a file is there already, and stays. No partition needs to bring it.
    pub(super) fn keep(&self, path: &str) {
        let name = self.keys.digest(path);
        if let Items::Manifest(items) = &mut *self.lock()
            && let Some(at) = find(items, name)
        {
            items[at].arrival = Arrival::NOBODY;
        }
    }

    /// Whether a file that was there stays.
    pub(super) fn is_kept(&self, path: &str) -> bool {
        let item = self.item(path);
        item.is_some_and(|(_, arrival)| arrival == Arrival::NOBODY)
    }

    /// Asks whether the file may be written.
    pub(super) fn admit(&self, path: &str, size: u64, carrier: Carrier) -> Result<Admission> {
        let name = self.keys.digest(path);
        let mut items = self.lock();
        let earlier = match &*items {
            Items::Manifest(items) => {
                let Some(at) = find(items, name) else {
                    return Err(refused(path, carrier, "the manifest does not have it"));
                };
                let expected = items[at].expected().size;
                if expected != size {
                    let why = format!("it has {size} bytes, the manifest says {expected}");
                    return Err(refused(path, carrier, &why));
                }
                if carrier.partition > PARTITION_MAX {
                    return Err(refused(path, carrier, "no backup has so many partitions"));
                }
                items[at].arrival.carrier()
            }
            Items::Foreign { arrived, .. } => {
                let earlier = arrived.get(&NameDigest::of(path)).copied();
                if earlier.is_none() && arrived.len() as u64 >= self.files_max {
                    return Err(self.full());
                }
                earlier
            }
        };
        match earlier {
            None => Ok(Admission::Write),
            Some(Carrier::NOBODY) => Ok(Admission::HaveIt),
            Some(earlier)
                if earlier.partition == carrier.partition && earlier.attempt < carrier.attempt =>
            {
                note(&mut items, path, name, carrier);
                Ok(Admission::HaveIt)
            }
            Some(earlier) => Err(came_already(path, carrier, earlier)),
        }
    }

    /// Notes that the file is written, with the CRC-32C of what was written.
    pub(super) fn arrived(&self, path: &str, crc32c: u32, carrier: Carrier) -> Result<()> {
        let name = self.keys.digest(path);
        let mut items = self.lock();
        if let Items::Manifest(items) = &*items {
            let at = find(items, name)
                .ok_or_else(|| OpError::internal(format!("\"{path}\" was never admitted")))?;
            if let Some(expected) = items[at].expected().crc32c
                && expected != crc32c
            {
                let found =
                    format!("its CRC-32C is {crc32c:08x}, the manifest says {expected:08x}");
                return Err(refused(path, carrier, &found));
            }
        }
        // Two partitions that bring it at the same time were both let in.
        match note(&mut items, path, name, carrier) {
            None => Ok(()),
            Some(earlier) => Err(came_already(path, carrier, earlier)),
        }
    }

    /// Whether a file has arrived.
    pub(super) fn has(&self, path: &str) -> bool {
        let name = self.keys.digest(path);
        match &*self.lock() {
            Items::Manifest(items) => {
                find(items, name).is_some_and(|at| items[at].arrival != Arrival::NONE)
            }
            Items::Foreign { arrived, .. } => arrived.contains_key(&NameDigest::of(path)),
        }
    }

    /// How many files of the manifest, or names of the list, have not come.
    pub(super) fn missing(&self) -> usize {
        match &*self.lock() {
            Items::Manifest(items) => {
                let arrivals = items.iter().map(|item| item.arrival);
                arrivals.filter(|came| *came == Arrival::NONE).count()
            }
            Items::Foreign { listed, .. } => listed.missing(),
        }
    }

    /// Whether the manifest or the list has this name, and it has not come.
    pub(super) fn is_missing(&self, path: &str) -> bool {
        let name = self.keys.digest(path);
        match &*self.lock() {
            Items::Manifest(items) => {
                find(items, name).is_some_and(|at| items[at].arrival == Arrival::NONE)
            }
            Items::Foreign { listed, .. } => listed.is_missing(path),
        }
    }

    /// What the files of the manifest cost.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        match &*self.lock() {
            Items::Manifest(items) => size_of_val(&**items),
            Items::Foreign { .. } => 0,
        }
    }

    fn full(&self) -> OpError {
        OpError::new(
            Kind::Configuration,
            format!(
                "the backup holds more than {} files, for which the memory limit has no room",
                self.files_max
            ),
        )
        .hint("its maker did not say how many: double the memory limit, and restore again")
        .remedy(Remedy::Memory { mib: None })
    }

    fn lock(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(items: &[Item], name: ShortDigest) -> Option<usize> {
    items.binary_search_by_key(&name, |item| item.name).ok()
}

/// Notes what brought a file that is known. Gives what brought it before.
fn note(items: &mut Items, path: &str, name: ShortDigest, carrier: Carrier) -> Option<Carrier> {
    match items {
        Items::Manifest(items) => {
            let at = find(items, name)?;
            std::mem::replace(&mut items[at].arrival, Arrival::of(carrier)).carrier()
        }
        Items::Foreign { arrived, .. } => arrived.insert(NameDigest::of(path), carrier),
    }
}

fn came_already(path: &str, carrier: Carrier, earlier: Carrier) -> OpError {
    let why = format!("it came already, in partition {}", earlier.partition);
    refused(path, carrier, &why)
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
    use wale_archive::described::ListedMember;

    use super::*;

    fn bounds() -> DescriptionBounds {
        DescriptionBounds::of_manifest(64 << 20)
    }

    fn ledger(files: &[(&str, u64, Option<u32>)]) -> Result<Ledger> {
        let mut expected = ExpectedFiles::new(bounds(), 0);
        for &(path, size, crc32c) in files {
            expected.add(path, ExpectedFile { size, crc32c });
        }
        Ledger::of_manifest(expected, "the manifest")
    }

    fn manifest() -> Ledger {
        ledger(&[("b", 2, None), ("a", 1, Some(7))]).unwrap()
    }

    fn anything() -> Ledger {
        Ledger::of_list(bounds(), ExpectedNames::default())
    }

    fn carrier(partition: u32, attempt: u8) -> Carrier {
        Carrier {
            partition,
            attempt: NonZeroU8::new(attempt).unwrap(),
        }
    }

    #[test]
    fn a_manifest_that_names_a_path_twice_or_too_many_is_refused() {
        let twice = ledger(&[("a", 1, None), ("b", 1, None), ("a", 1, None)]).unwrap_err();
        assert_eq!(twice.kind, Kind::CorruptData);
        assert!(twice.message.contains("twice"), "{twice}");
        let bounds = bounds();
        let mut many = ExpectedFiles::new(bounds, u64::MAX);
        let file = ExpectedFile {
            size: 1,
            crc32c: None,
        };
        let most = bounds.files_max() + 5;
        for number in 0..most {
            many.add(&number.to_string(), file);
        }
        assert_eq!(many.items.len() as u64, bounds.files_max());
        let error = Ledger::of_manifest(many, "the manifest of x").unwrap_err();
        assert_eq!(error.kind, Kind::Configuration);
        let told =
            "the manifest of x names 1000005 files, and the memory limit has room for 1000000";
        assert_eq!(error.message, told);
        assert_eq!(
            error.remedy.as_deref(),
            Some(&Remedy::Memory { mib: Some(184) })
        );
    }

    #[test]
    fn an_item_says_what_the_manifest_says() {
        let name = ShortDigest::default();
        for size in [0, 1, 8192, u64::from(u32::MAX), 1 << 32, SIZE_MAX] {
            for crc32c in [None, Some(0), Some(u32::MAX)] {
                let expected = ExpectedFile { size, crc32c };
                assert_eq!(Item::new(name, expected).expected(), expected);
            }
        }
        for carrier in [carrier(0, 1), carrier(7, 255), carrier(PARTITION_MAX, 255)] {
            assert_eq!(Arrival::of(carrier).carrier(), Some(carrier));
        }
        assert_eq!(Arrival::NONE.carrier(), None);
        let nobody = Arrival::NOBODY.carrier();
        assert_eq!(nobody, Some(Carrier::NOBODY));
    }

    #[test]
    fn each_file_of_the_manifest_arrives_exactly_once() {
        let ledger = manifest();
        assert_eq!(
            ledger.admit("a", 1, carrier(0, 1)).unwrap(),
            Admission::Write
        );
        assert_eq!(ledger.missing(), 2);
        ledger.arrived("a", 7, carrier(0, 1)).unwrap();
        assert!(ledger.has("a") && !ledger.has("b") && !ledger.has("c"));
        assert_eq!(
            ledger.admit("b", 2, carrier(1, 1)).unwrap(),
            Admission::Write
        );
        ledger.arrived("b", 99, carrier(1, 1)).unwrap();
        assert_eq!(ledger.missing(), 0);
        // Another attempt at the same partition skips it; twice in one attempt, or elsewhere, is damage.
        assert_eq!(
            ledger.admit("a", 1, carrier(0, 2)).unwrap(),
            Admission::HaveIt
        );
        assert!(ledger.admit("a", 1, carrier(0, 2)).is_err());
        assert!(ledger.admit("b", 2, carrier(2, 1)).is_err());
    }

    #[test]
    fn a_file_that_was_there_is_kept_whoever_brings_it() {
        let ledger = manifest();
        assert_eq!(ledger.expected("a"), Some((1, 7)));
        // Without a checksum nothing says that it is the same.
        assert_eq!((ledger.expected("b"), ledger.expected("c")), (None, None));
        ledger.keep("a");
        ledger.keep("c");
        assert!(ledger.is_kept("a") && ledger.has("a") && !ledger.is_kept("b") && !ledger.has("c"));
        assert_eq!(ledger.missing(), 1);
        for partition in [3, 4] {
            let admitted = ledger.admit("a", 1, carrier(partition, 1)).unwrap();
            assert_eq!(admitted, Admission::HaveIt);
        }
        ledger.admit("b", 2, carrier(1, 1)).unwrap();
        ledger.arrived("b", 0, carrier(1, 1)).unwrap();
        assert!(!ledger.is_kept("b"));
        let foreign = anything();
        foreign.keep("a");
        assert!(!foreign.is_kept("a") && foreign.expected("a").is_none());
    }

    #[test]
    fn strangers_wrong_sizes_and_wrong_sums_are_refused() {
        let ledger = manifest();
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
        assert!(ledger.is_missing("a") && ledger.is_missing("b") && !ledger.is_missing("c"));
        assert_eq!((ledger.size_of("b"), ledger.size_of("c")), (Some(2), None));
    }

    #[test]
    fn without_a_manifest_everything_is_let_in_once() {
        let ledger = anything();
        assert_eq!(
            ledger.admit("x", 5, carrier(3, 1)).unwrap(),
            Admission::Write
        );
        assert!(!ledger.has("x"));
        ledger.arrived("x", 1, carrier(3, 1)).unwrap();
        assert!(ledger.has("x") && !ledger.is_missing("x") && ledger.missing() == 0);
        assert_eq!(
            ledger.admit("x", 5, carrier(3, 2)).unwrap(),
            Admission::HaveIt
        );
        assert!(ledger.admit("x", 5, carrier(4, 1)).is_err());
    }

    #[test]
    fn what_a_list_names_must_come_whatever_it_is() {
        let names = ["base/5", "base/5/1"].map(|name| ListedMember {
            name: NameDigest::of(name),
            delivery: Delivery::Whole,
        });
        let ledger = Ledger::of_list(bounds(), ExpectedNames::new(names.to_vec()));
        ledger.come("base/5");
        ledger.come("base/6");
        assert!(ledger.is_missing("base/5/1") && !ledger.is_missing("base/5"));
        assert_eq!((ledger.missing(), ledger.has("base/5")), (1, false));
        ledger.come("base/5/1");
        assert_eq!(ledger.missing(), 0);
    }

    #[test]
    fn a_file_that_two_partitions_bring_at_once_is_refused() {
        let ledger = anything();
        ledger.admit("x", 5, carrier(3, 1)).unwrap();
        ledger.admit("x", 5, carrier(4, 1)).unwrap();
        ledger.arrived("x", 1, carrier(4, 1)).unwrap();
        assert!(ledger.arrived("x", 1, carrier(3, 1)).is_err());
    }
}
