//! What a restore keeps of the files that a backup's description names: a digest of each name, never the name, so that
//! names of any length cost the same; and how many fit into memory.

use sha2::{Digest as _, Sha256};

use crate::error::{Kind, OpError};
use crate::remedy::Remedy;

/// What is read although the memory budget's quarter has no room for it: 1,000,000 files, 24 MB with a manifest and 64 MB
/// with another tool's list.
const FILES_FLOOR: u64 = 1_000_000;
/// The part of the budget that a description may take.
const SHARE: u64 = 4;
/// Bytes of text for each file, on average, at most: some 150 are usual. What has more is no description: with the floor
/// 1 GiB is read.
const TEXT_BYTES: u64 = 1 << 10;
/// What a budget is of the memory limit at least: uploads and segments fetched ahead have a quarter each.
const BUDGET_PART: u64 = 2;

/// Memory of a file that the manifest has: digest 10, size and whether there is a CRC-32C 6, that 4, what brought it 4.
pub const MANIFEST_FILE_BYTES: u64 = 24;
/// Memory of a file of another tool's backup: a map of digests and what brought them, 24 bytes in nodes that are two thirds
/// full, makes some 40; 18 more where its maker listed it; rounded up.
pub(crate) const FOREIGN_FILE_BYTES: u64 = 64;

/// The first 128 bits of the SHA-256 of a path: none is met twice by chance, nor made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameDigest([u8; 16]);

impl NameDigest {
    /// The digest of a name.
    pub fn of(name: &str) -> Self {
        let whole: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        let mut first = [0; 16];
        first.copy_from_slice(&whole[..16]);
        Self(first)
    }
}

/// How much of a description is kept, by the memory that there is for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptionBounds {
    file_bytes: u64,
    files_max: u64,
    share: u64,
}

impl DescriptionBounds {
    /// For a manifest, out of a budget of `total` bytes.
    pub fn of_manifest(total: u64) -> Self {
        Self::new(MANIFEST_FILE_BYTES, total)
    }

    /// For another tool's backup, with or without a list.
    pub fn of_foreign(total: u64) -> Self {
        Self::new(FOREIGN_FILE_BYTES, total)
    }

    fn new(file_bytes: u64, total: u64) -> Self {
        let share = total / SHARE;
        Self {
            file_bytes,
            files_max: (share / file_bytes).max(FILES_FLOOR),
            share,
        }
    }

    /// Files at most.
    pub fn files_max(self) -> u64 {
        self.files_max
    }

    /// Bytes of text at most. None of them is kept.
    pub fn text_max(self) -> u64 {
        self.files_max.saturating_mul(TEXT_BYTES)
    }

    /// What so many files take of the budget: what the floor allows beyond the share stands beside it, or nothing else
    /// could run; and so does what would leave no room for `rest`.
    pub fn counted(self, files: u64, rest: u64) -> u64 {
        let total = self.share.saturating_mul(SHARE);
        let most = self.share.min(total.saturating_sub(rest));
        files.saturating_mul(self.file_bytes).min(most)
    }

    /// Refuses more than fit. `what` names the description.
    pub fn too_many(self, what: &str, files: u64) -> OpError {
        OpError::new(
            Kind::Configuration,
            format!(
                "{what} names {files} files, and the memory limit has room for {}",
                self.files_max
            ),
        )
        .detail(format!(
            "A restore keeps {} bytes for each file until its end; a quarter of the memory is for that.",
            self.file_bytes
        ))
        .hint("raise the memory limit; nothing was written")
        .remedy(self.remedy(files))
    }

    /// What has room for so many files.
    fn remedy(self, files: u64) -> Remedy {
        let needed = files
            .saturating_mul(self.file_bytes)
            .saturating_mul(SHARE * BUDGET_PART);
        Remedy::Memory {
            mib: Some(needed.div_ceil(1 << 20)),
        }
    }

    /// Refuses a text of so many bytes.
    pub fn too_long(self, what: &str, bytes: u64) -> OpError {
        let files = bytes.div_ceil(TEXT_BYTES);
        OpError::new(
            Kind::Configuration,
            format!(
                "{what} has {bytes} bytes, and with this memory limit {} are read",
                self.text_max()
            ),
        )
        .hint("raise the memory limit; nothing was written")
        .remedy(self.remedy(files))
    }
}

/// How a listed member comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// As it is: the whole of a file, or a directory.
    Whole,
    /// As the pages that changed since the backup before.
    Increment,
    /// Not at all: it is as it was in the backup before.
    Elsewhere,
}

/// A member of a list: 17 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedMember {
    /// Its name.
    pub name: NameDigest,
    /// How it comes.
    pub delivery: Delivery,
}

/// Names that are expected: 18 bytes for each.
#[derive(Debug, Default)]
pub struct ExpectedNames {
    /// In order, each once.
    members: Box<[ListedMember]>,
    /// Whether each has come.
    came: Box<[bool]>,
}

impl ExpectedNames {
    /// Names that shall come; what is elsewhere must not.
    pub fn new(mut members: Vec<ListedMember>) -> Self {
        members.sort_unstable();
        members.dedup_by_key(|member| member.name);
        let is_elsewhere = |member: &ListedMember| member.delivery == Delivery::Elsewhere;
        Self {
            came: members.iter().map(is_elsewhere).collect(),
            members: members.into_boxed_slice(),
        }
    }

    /// Notes that a name has come; others are passed over.
    pub fn come(&mut self, name: &str) {
        if let Some(at) = self.find(name) {
            self.came[at] = true;
        }
    }

    /// How this one comes; `None` where it is not listed.
    pub fn delivery_of(&self, name: &str) -> Option<Delivery> {
        self.find(name).map(|at| self.members[at].delivery)
    }

    /// How many have not come.
    pub fn missing(&self) -> usize {
        self.came.iter().filter(|came| !**came).count()
    }

    /// Whether this one is expected and has not come.
    pub fn is_missing(&self, name: &str) -> bool {
        self.find(name).is_some_and(|at| !self.came[at])
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// As [`ExpectedNames::delivery_of`].
    pub(crate) fn delivery_of_digest(&self, name: NameDigest) -> Option<Delivery> {
        self.position(name).map(|at| self.members[at].delivery)
    }

    /// Those that are not whole here.
    pub(crate) fn not_whole(&self) -> Vec<ListedMember> {
        let members = self.members.iter().copied();
        members
            .filter(|member| member.delivery != Delivery::Whole)
            .collect()
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.position(NameDigest::of(name))
    }

    fn position(&self, name: NameDigest) -> Option<usize> {
        self.members
            .binary_search_by_key(&name, |member| member.name)
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_is_missed_no_more() {
        let member = |(name, delivery)| ListedMember {
            name: NameDigest::of(name),
            delivery,
        };
        let names = [
            ("b", Delivery::Increment),
            ("a", Delivery::Whole),
            ("c", Delivery::Whole),
            ("a", Delivery::Whole),
            ("e", Delivery::Elsewhere),
        ];
        let mut expected = ExpectedNames::new(names.map(member).to_vec());
        assert_eq!((expected.count(), expected.missing()), (4, 3));
        assert_eq!(expected.delivery_of("b"), Some(Delivery::Increment));
        assert_eq!(expected.delivery_of("e"), Some(Delivery::Elsewhere));
        assert_eq!(expected.delivery_of("d"), None);
        for name in ["a", "a", "d", "A"] {
            expected.come(name);
        }
        assert_eq!(expected.missing(), 2);
        let still = ["a", "b", "c", "d"].map(|name| expected.is_missing(name));
        assert_eq!(still, [false, true, true, false]);
        assert_eq!(ExpectedNames::default().missing(), 0);
    }

    #[test]
    fn the_bound_grows_with_the_memory_and_has_a_floor() {
        for (total, files, counted) in [
            // Nothing is counted where it would leave nothing for the work itself.
            (12 << 20, 1_000_000, 0),
            (16 << 20, 1_000_000, 4 << 20),
            (256 << 20, (64 << 20) / 40, 40_000_000),
            (4 << 30, (1 << 30) / 40, 40_000_000),
        ] {
            let bounds = DescriptionBounds::new(40, total);
            assert_eq!(bounds.files_max(), files, "{total}");
            assert_eq!(bounds.counted(1_000_000, 12 << 20), counted, "{total}");
            assert_eq!(bounds.text_max(), files << 10);
        }
    }

    /// A user who follows it gets on, even where the budget is half of the setting.
    #[test]
    fn the_remedy_is_enough() {
        let bounds = DescriptionBounds::new(40, 128 << 20);
        for error in [
            bounds.too_many("it", 3_000_000),
            bounds.too_long("it", 3_000_000 << 10),
        ] {
            assert_eq!(error.kind, Kind::Configuration);
            let Some(Remedy::Memory { mib: Some(mib) }) = error.remedy.as_deref() else {
                panic!("{error:?}");
            };
            let setting = mib << 20;
            let raised = DescriptionBounds::new(40, setting / BUDGET_PART);
            assert!(raised.files_max() >= 3_000_000, "{mib}");
            assert!(setting < 3_000_000 * 330, "and not far more than that");
        }
    }
}
