//! The decisions of a copy, as pure functions: what belongs to it, in which order backups go, and what becomes of an object.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use wale_archive::lineage::Histories;
use wale_format::layout::{self, ArchiveKey};
use wale_format::{ArchiveIdentity, BackupName};
use wale_pg::{ArchiveFileName, WalSegmentName, WalSegmentSize};

use super::options::{Present, WalWish};

/// Where the recovery of a chosen backup begins to read WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// The backup.
    pub(super) backup: BackupName,
    /// Its first segment; `None` where its record does not say where it begins, and everything may be needed.
    pub(super) start: Option<WalSegmentName>,
    /// The segment size of its cluster, where it is known.
    pub(super) size: Option<WalSegmentSize>,
}

impl Need {
    /// Whether a restore of the backup, to whatever target, may read this file.
    pub(super) fn may_read(&self, histories: &Histories, name: &ArchiveFileName) -> bool {
        let (Some(start), Some(segment)) = (self.start, name.segment()) else {
            // A history is small, and a server asks for all of them.
            return true;
        };
        histories.may_read(start, self.size, segment)
    }
}

/// Which WAL belongs to the copy.
#[derive(Debug)]
pub(super) struct WalChoice {
    /// What the chosen backups need; `None` where everything is copied.
    pub(super) needs: Option<Vec<Need>>,
    /// The histories of the source.
    pub(super) histories: Histories,
    /// What else must hold for a file.
    pub(super) wish: WalWish,
}

impl WalChoice {
    /// As [`WalChoice::takes`], of an object that was stored at that time.
    pub(super) fn takes_stored(&self, key: &str, stored: DateTime<Utc>) -> bool {
        let wished = |name| self.wish.takes(&name, stored);
        self.takes(key) && layout::wal_claim(key).is_none_or(wished)
    }

    /// Whether the object of this key is copied. What claims no name of a file that PostgreSQL archives is not.
    pub(super) fn takes(&self, key: &str) -> bool {
        let Some(name) = layout::wal_claim(key) else {
            return is_map_of_changes(key);
        };
        match &self.needs {
            None => true,
            Some(needs) => needs
                .iter()
                .any(|need| need.may_read(&self.histories, &name)),
        }
    }
}

/// Whether an object is one of WAL-G's maps of the blocks that 16 segments change, `<segment>_delta`. No restore reads them;
/// WAL-G's next delta backup does. They are small, so all of them go along.
fn is_map_of_changes(key: &str) -> bool {
    const DIGITS: usize = 24;
    let name = key.strip_prefix(layout::WAL_PREFIX);
    let Some((segment, rest)) = name.and_then(|name| name.split_at_checked(DIGITS)) else {
        return false;
    };
    let end = rest.strip_prefix("_delta");
    WalSegmentName::parse(segment).is_ok()
        && end.is_some_and(|end| end.is_empty() || end.starts_with('.'))
}

/// Whether an object in the folder of a backup is copied, under a name known or not: what is not understood may hold
/// files of the cluster. Claims, notes of deletions, what was verified and what a rehearsal found speak of the source only.
pub(super) fn takes_of_backup(key: &str) -> bool {
    !matches!(
        layout::parse(key),
        ArchiveKey::Attempt(_)
            | ArchiveKey::Deletion(_)
            | ArchiveKey::Rehearsed(_)
            | ArchiveKey::Sentinel(_)
            | ArchiveKey::Verified(_)
    )
}

/// The chosen backups and all their parents, each after its parent and otherwise in the order of `all`. `parents` names the
/// parent of each delta backup.
///
/// # Errors
/// The first backup that is chosen and not among `all`.
pub(super) fn order(
    all: &[BackupName],
    parents: &BTreeMap<BackupName, BackupName>,
    chosen: &[BackupName],
) -> Result<Vec<BackupName>, BackupName> {
    let known: BTreeSet<&BackupName> = all.iter().collect();
    let mut wanted: BTreeSet<&BackupName> = BTreeSet::new();
    for name in chosen {
        if !known.contains(name) {
            return Err(name.clone());
        }
        let mut next = Some(name);
        // A parent that is not there is found when the delta is looked at. One that was seen ends a circle, too.
        while let Some(name) = next.filter(|name| known.contains(name) && wanted.insert(name)) {
            next = parents.get(name);
        }
    }
    let mut placed: BTreeSet<&BackupName> = BTreeSet::new();
    let mut ordered = Vec::new();
    for name in all.iter().filter(|name| wanted.contains(name)) {
        let mut chain = Vec::new();
        let mut next = Some(name);
        while let Some(name) = next.filter(|name| wanted.contains(name) && placed.insert(name)) {
            chain.push(name.clone());
            next = parents.get(name);
        }
        ordered.extend(chain.into_iter().rev());
    }
    Ok(ordered)
}

/// What becomes of an object of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The destination does not have it: it is put, and read back.
    Put,
    /// The destination has it: both are read and compared.
    Compare,
    /// The destination has it with the same size, and that is trusted.
    Done,
    /// The destination has it with another size.
    Conflict,
}

/// What becomes of an object of `size` bytes, of which the destination has one of `there` bytes, or none.
pub(super) const fn step(size: u64, there: Option<u64>, present: Present) -> Step {
    match (there, present) {
        (None, _) => Step::Put,
        (Some(there), _) if there != size => Step::Conflict,
        (Some(_), Present::Compared) => Step::Compare,
        (Some(_), Present::TrustedBySize) => Step::Done,
    }
}

/// The objects of the destination that hold the same file as `key` under another codec, and which the source does not have:
/// a fetch that finds two copies with different bytes refuses both. `ours` and `theirs` are the keys around it.
pub(super) fn rivals(key: &str, ours: &BTreeSet<&str>, theirs: &BTreeSet<&str>) -> Vec<String> {
    let same_file = |other: &str| {
        let whole = |key: &str| match layout::parse(key) {
            ArchiveKey::Wal {
                name,
                conflict: None,
                ..
            } => Some(name),
            ArchiveKey::Unknown => layout::wal_claim(key),
            _ => None,
        };
        whole(key).is_some() && whole(key) == whole(other)
    };
    let strange = theirs.iter().filter(|other| !ours.contains(**other));
    strange
        .filter(|other| same_file(other))
        .map(|other| (*other).to_owned())
        .collect()
}

/// What `wale.json` of the destination becomes: `None` where it stays as it is. A copy's is the source's, which may have
/// learned since. An archive that began by itself only learns of the codecs.
pub(super) fn merged_identity(
    source: &ArchiveIdentity,
    copy: &ArchiveIdentity,
) -> Option<ArchiveIdentity> {
    let mut merged = if is_copy_of(source, copy) {
        let mut merged = source.clone();
        for (name, value) in &copy.extra {
            let known = merged.extra.entry(name.clone());
            known.or_insert_with(|| value.clone());
        }
        merged
    } else {
        copy.clone()
    };
    merged
        .codecs
        .extend(source.codecs.iter().chain(&copy.codecs));
    (merged != *copy).then_some(merged)
}

/// Whether an identity is a copy of the other one.
pub(super) fn is_copy_of(source: &ArchiveIdentity, copy: &ArchiveIdentity) -> bool {
    source.created_at == copy.created_at && source.created_by == copy.created_by
}

/// How two `metadata.json` of one backup differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// In the mark to be kept alone; whether the source's has it.
    Differ {
        /// Whether the source's backup is marked to be kept.
        source_has_it: bool,
    },
    /// In the order of their fields alone.
    Same,
    /// In more than that.
    Unlike,
}

/// Compares two `metadata.json` of one backup: `backup-mark` rewrites it on each side, so the mark may differ.
pub(super) fn marks(source: &[u8], copy: &[u8]) -> Marks {
    let read = |bytes: &[u8]| {
        let mut map: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(bytes).ok()?;
        let mark = map.remove("is_permanent");
        Some((map, mark.and_then(|mark| mark.as_bool()).unwrap_or(false)))
    };
    match (read(source), read(copy)) {
        (Some((source, one)), Some((copy, other))) if source == copy => {
            if one == other {
                Marks::Same
            } else {
                Marks::Differ { source_has_it: one }
            }
        }
        _ => Marks::Unlike,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wale_format::{Codec, Encryption};
    use wale_pg::{ClusterIdentity, SystemIdentifier, TimelineHistory, TimelineId};

    use super::*;

    fn name(number: u32) -> BackupName {
        BackupName::parse(&format!("base_0000000100000000{number:08X}_00000040")).unwrap()
    }

    fn names(numbers: &[u32]) -> Vec<BackupName> {
        numbers.iter().copied().map(name).collect()
    }

    #[test]
    fn a_parent_comes_before_its_delta_and_comes_along() {
        let all = names(&[4, 3, 2, 1]);
        let parents = BTreeMap::from([(name(4), name(3)), (name(3), name(1))]);
        let of = |chosen: &[u32]| order(&all, &parents, &names(chosen));
        assert_eq!(of(&[4]), Ok(names(&[1, 3, 4])));
        assert_eq!(of(&[2]), Ok(names(&[2])));
        assert_eq!(of(&[2, 4, 3]), Ok(names(&[1, 3, 4, 2])));
        assert_eq!(of(&[]), Ok(vec![]));
        assert_eq!(of(&[9]), Err(name(9)));
        // A parent that is not there, and a circle, which only damage makes.
        let odd = BTreeMap::from([(name(4), name(8)), (name(2), name(1)), (name(1), name(2))]);
        assert_eq!(order(&all, &odd, &names(&[4])), Ok(names(&[4])));
        let mut circle = order(&all, &odd, &names(&[2])).unwrap();
        circle.sort();
        assert_eq!(circle, names(&[1, 2]));
    }

    proptest! {
        #[test]
        fn every_chosen_backup_is_there_once_after_its_parent(
            parents in proptest::collection::vec(0_usize..12, 12),
            chosen in proptest::collection::btree_set(0_u32..12, 0..6),
        ) {
            let all: Vec<BackupName> = (0..12).map(name).collect();
            // A parent has a smaller number, as it is older.
            let parents: BTreeMap<_, _> = parents.iter().enumerate()
                .filter(|(child, parent)| *parent < child)
                .map(|(child, parent)| (all[child].clone(), all[*parent].clone()))
                .collect();
            let chosen: Vec<BackupName> = chosen.into_iter().map(name).collect();
            let ordered = order(&all, &parents, &chosen).unwrap();
            let place = |name: &BackupName| ordered.iter().position(|one| one == name);
            for name in &chosen {
                prop_assert!(place(name).is_some());
            }
            for (index, name) in ordered.iter().enumerate() {
                prop_assert_eq!(place(name), Some(index));
                if let Some(parent) = parents.get(name) {
                    prop_assert!(place(parent) < place(name) && place(parent).is_some());
                }
            }
        }
    }

    #[test]
    fn what_an_object_becomes() {
        use Present::{Compared, TrustedBySize};
        for (there, present, expected) in [
            (None, Compared, Step::Put),
            (None, TrustedBySize, Step::Put),
            (Some(7), Compared, Step::Compare),
            (Some(7), TrustedBySize, Step::Done),
            (Some(8), Compared, Step::Conflict),
            (Some(0), TrustedBySize, Step::Conflict),
        ] {
            assert_eq!(step(7, there, present), expected);
        }
    }

    #[test]
    fn claims_and_notes_stay_and_what_is_not_understood_goes_along() {
        let backup = name(1);
        for (key, taken) in [
            (layout::partition(&backup, 0, Codec::Zstd), true),
            (layout::manifest(&backup), true),
            (layout::configuration(&backup), true),
            (layout::metadata(&backup), true),
            (
                format!(
                    "{}tar_partitions/new.tar.xyz",
                    layout::backup_folder(&backup)
                ),
                true,
            ),
            (layout::attempt(&backup), false),
            (layout::deletion(&backup), false),
            (layout::rehearsed(&backup), false),
            (layout::sentinel(&backup), false),
        ] {
            assert_eq!(takes_of_backup(&key), taken, "{key}");
        }
    }

    /// All WAL, that of a backup before the fork, of one after it, and of one whose start is not known.
    fn choices() -> [WalChoice; 4] {
        let mut histories = Histories::default();
        let text = "1\t0/7000100\tx\n";
        histories.insert(TimelineHistory::parse(TimelineId::new(2).unwrap(), text).unwrap());
        let need = |start: Option<u32>| Need {
            backup: name(3),
            start: start.map(|number| name(number).segment()),
            size: Some(WalSegmentSize::DEFAULT),
        };
        let some = [Some(3), Some(9), None].map(|start| Some(vec![need(start)]));
        let [one, late, unknown] = some;
        [None, one, late, unknown].map(|needs| WalChoice {
            needs,
            histories: histories.clone(),
            wish: WalWish::default(),
        })
    }

    #[test]
    fn wal_of_a_chosen_backup_is_everything_from_its_start_along_its_timelines() {
        let choices = choices();
        for (key, expected) in [
            ("000000010000000000000002.zst", [true, false, false, true]),
            ("000000010000000000000003.zst", [true, true, false, true]),
            ("000000010000000000000009", [true, true, true, true]),
            ("000000020000000000000007.br", [true, true, false, true]),
            ("000000020000000000000009.zst", [true, true, false, true]),
            (
                "000000010000000000000007.partial.zst",
                [true, true, false, true],
            ),
            (
                "000000010000000000000002.00000028.backup",
                [true, false, false, true],
            ),
            (
                "000000010000000000000003.00000028.backup",
                [true, true, false, true],
            ),
            ("00000002.history.zst", [true, true, true, true]),
            ("00000001000000000000000A.zst.age", [true, true, true, true]),
            ("note.txt", [false, false, false, false]),
            (
                "000000010000000000000010_delta.lzma",
                [true, true, true, true],
            ),
            ("000000010000000000000010_delta", [true, true, true, true]),
            (
                "000000010000000000000010_deltas",
                [false, false, false, false],
            ),
            ("00000001_delta.lzma", [false, false, false, false]),
        ] {
            let key = format!("wal_005/{key}");
            let found = choices.each_ref().map(|choice| choice.takes(&key));
            assert_eq!(found, expected, "{key}");
        }
    }

    #[test]
    fn the_same_file_under_another_codec_is_a_rival() {
        const S: &str = "wal_005/000000010000000000000003";
        let zst = format!("{S}.zst");
        let [lz4, partial, digest, strange] = [
            ".lz4",
            ".partial.lz4",
            ".partial.0123456789abcdef.lz4",
            ".gpg",
        ]
        .map(|end| format!("{S}{end}"));
        let ours = BTreeSet::from([zst.as_str()]);
        let theirs = [&lz4, &partial, &digest, &strange];
        let theirs: BTreeSet<&str> = theirs.iter().map(|key| key.as_str()).collect();
        assert_eq!(rivals(&zst, &ours, &theirs), [strange.clone(), lz4.clone()]);
        // The source has both: they are copied as they are.
        let ours = BTreeSet::from([zst.as_str(), lz4.as_str(), strange.as_str()]);
        assert!(rivals(&zst, &ours, &theirs).is_empty());
        // Partial segments of the same name lie side by side by design.
        let ours = BTreeSet::from([partial.as_str()]);
        let theirs = BTreeSet::from([digest.as_str()]);
        assert!(rivals(&partial, &ours, &theirs).is_empty());
    }

    fn identity(by: &str, codecs: &[Codec]) -> ArchiveIdentity {
        ArchiveIdentity {
            format: ArchiveIdentity::FORMAT,
            cluster: ClusterIdentity {
                system_identifier: SystemIdentifier::new(1),
                major: None,
                wal_segment_size: WalSegmentSize::DEFAULT,
            },
            codecs: codecs.iter().copied().collect(),
            encryption: Encryption::None,
            encryptions: Vec::new(),
            created_at: chrono::DateTime::UNIX_EPOCH,
            created_by: by.to_owned(),
            extra: serde_json::Map::new(),
        }
    }

    #[test]
    fn an_identity_learns_and_forgets_nothing() {
        let source = identity("a", &[Codec::Zstd, Codec::Lz4]);
        assert_eq!(merged_identity(&source, &source), None);
        let copy = identity("a", &[Codec::Zstd]);
        assert_eq!(merged_identity(&source, &copy), Some(source.clone()));
        assert_eq!(merged_identity(&copy, &source), None);
        let mut later = copy.clone();
        later.extra.insert("keys".to_owned(), "new".into());
        assert_eq!(merged_identity(&later, &copy), Some(later.clone()));
        assert_eq!(merged_identity(&copy, &later), None);
        let own = identity("b", &[Codec::Lzo]);
        let merged = merged_identity(&later, &own).unwrap();
        assert_eq!(merged, identity("b", &[Codec::Lzo, Codec::Zstd]));
    }

    #[test]
    fn marks_may_differ_and_nothing_else() {
        let text = |mark: &str, host: &str| format!(r#"{{"hostname": "{host}", {mark} "x": 1}}"#);
        let of = |one: (&str, &str), other: (&str, &str)| {
            marks(
                text(one.0, one.1).as_bytes(),
                text(other.0, other.1).as_bytes(),
            )
        };
        let (yes, no) = (r#""is_permanent": true,"#, r#""is_permanent":false,"#);
        assert_eq!(
            of((yes, "h"), (no, "h")),
            Marks::Differ {
                source_has_it: true
            }
        );
        assert_eq!(
            of(("", "h"), (yes, "h")),
            Marks::Differ {
                source_has_it: false
            }
        );
        assert_eq!(of(("", "h"), (no, "h")), Marks::Same);
        assert_eq!(of((yes, "h"), (no, "i")), Marks::Unlike);
        assert_eq!(marks(b"no json", b"{}"), Marks::Unlike);
    }
}
