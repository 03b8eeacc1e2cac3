//! Several archives: the settings of archive 2 are those whose names end with `_2`, and so on up to 9.
//!
//! Only what belongs to one archive has such a name: where it is, its store's own settings, what is kept in it. Nothing of
//! this kind is inherited from the first, so no key of one store goes to another. Everything else is set once, and is the
//! same for all: the codec and the keys too, since objects are copied as they are stored.

use std::collections::BTreeSet;

use wale_ops::OpError;

use super::declared::{
    ARCHIVES, STORAGE_EMULATOR_HOST, WABS_ACCOUNT_NAME, WALE_ARCHIVE, WALE_GS_ENDPOINT,
    WALE_S3_ENDPOINT, WALE_WABS_ENDPOINT,
};
use super::group::Group;
use super::mistake::{self, Mistake};
use super::numbered::{is_of_one_archive, names_one_archive, setting_of, split, with_numbers};
use super::prefix::Place;
use super::setting::Declared;
use super::settings::{Settings, places};
use super::source::{Sources, is_declared};

/// An archive after the first.
#[derive(Debug, Clone)]
pub(crate) struct FurtherArchive {
    /// Its number, 2 or more.
    pub(crate) number: u8,
    /// Its own settings, and those that are the same for all.
    pub(crate) settings: Settings,
    /// What is wrong with its own.
    pub(super) mistakes: Vec<Mistake>,
}

impl FurtherArchive {
    /// Whether it can be used.
    pub(crate) fn is_sound(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Why it cannot.
    pub(crate) fn mistake(&self) -> OpError {
        mistake::error(&self.mistakes)
    }
}

/// The numbers of the further archives whose place is set.
pub(super) fn numbers(sources: &Sources) -> BTreeSet<u8> {
    let is_place = |name: &str| {
        let mut places = places().into_iter();
        places.any(|place| Declared::facts(place).goes_by(name))
    };
    let set = sources.set_names().filter(|(_, text)| is_set(text));
    set.filter_map(|(name, _)| split(name))
        .filter(|(base, _)| is_place(base))
        .map(|(_, number)| number)
        .collect()
}

fn is_set(text: &str) -> bool {
    !text.trim().is_empty()
}

/// What is wrong with the names that have a number, and what deserves a warning.
pub(super) fn check(sources: &Sources) -> (Vec<Mistake>, Vec<String>) {
    let archives = numbers(sources);
    let (mut mistakes, mut warnings) = (Vec::new(), Vec::new());
    for (wanted, number) in (2..).zip(&archives) {
        if wanted != *number {
            let text = format!("archive {number} is set, and archive {wanted} is not");
            let hint = "number further archives from 2 on, without gaps";
            mistakes.push(Mistake::new(Group::Several, text).hint(hint));
            break;
        }
    }
    let names: BTreeSet<&str> = sources
        .set_names()
        .filter(|(name, text)| is_set(text) && !is_declared(name))
        .map(|(name, _)| name)
        .collect();
    for name in names {
        let Some((base, number)) = split(name) else {
            continue;
        };
        let Some(setting) = setting_of(base) else {
            continue;
        };
        let is_ours = name.starts_with("WALE_") || name.starts_with("WALG_");
        let is_there = archives.contains(&number);
        let is_meant = is_ours || sources.is_in_file(name);
        if !is_of_one_archive(setting.facts()) {
            if is_meant || is_there {
                let text = format!("{name}: {base} is set once and is the same for all archives");
                let hint = format!("unset {name}");
                mistakes.push(Mistake::new(Group::Several, text).hint(hint));
            }
        } else if !is_there {
            let text = format!("{name} is set, and the place of archive {number} is not");
            if is_meant {
                let hint = format!(
                    "set WALE_PREFIX_{number}, or another prefix that ends with _{number}; or unset {name}"
                );
                mistakes.push(Mistake::new(Group::Several, text).hint(hint));
            } else {
                warnings.push(format!(
                    "{name} has no effect: the place of archive {number} is not set"
                ));
            }
        }
    }
    (mistakes, warnings)
}

/// The number that `WALE_ARCHIVE` names, where it is one.
pub(super) fn chosen(sources: &Sources) -> Option<u8> {
    let text = sources.value(&WALE_ARCHIVE).text?;
    let number = text.trim().parse().ok()?;
    ARCHIVES.contains(&number).then_some(number)
}

/// What is wrong with the choice of one archive.
pub(super) fn check_choice(sources: &Sources, chosen: u8) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if chosen == 1 {
        return mistakes;
    }
    let archives = numbers(sources);
    if !archives.contains(&chosen) {
        let text = format!("{}: no archive {chosen} is set", WALE_ARCHIVE.name());
        let hint = match archives.last() {
            Some(last) => format!("give a number from 1 to {last}"),
            None => format!("set WALE_PREFIX_{chosen}, or leave the number out"),
        };
        mistakes.push(Mistake::new(Group::Archive, text).hint(hint));
    }
    for name in sources.flag_names().filter(|name| names_one_archive(name)) {
        let text =
            format!("the flag of {name} is a setting of archive 1, and archive {chosen} is used");
        let hint = format!("set {name}_{chosen} in the environment or the file");
        mistakes.push(Mistake::new(Group::Archive, text).hint(hint));
    }
    mistakes
}

/// A mistake in the settings of archive `number`.
pub(super) fn of_archive(mistake: &Mistake, number: u8) -> Mistake {
    Mistake {
        group: Group::Several,
        text: with_numbers(&mistake.text, number),
        hint: mistake.hint.as_ref().map(|hint| with_numbers(hint, number)),
    }
}

/// The archives that are certainly at one place: what is not certain here is found out by the first copy.
pub(super) fn same_places(first: &Settings, further: &[FurtherArchive]) -> Vec<Mistake> {
    let all = std::iter::once((1, first));
    let all: Vec<_> = all
        .chain(further.iter().map(|one| (one.number, &one.settings)))
        .collect();
    let mut mistakes = Vec::new();
    for (index, (number, settings)) in all.iter().enumerate() {
        let same = all[..index]
            .iter()
            .find(|(_, other)| is_same(settings, other));
        if let Some((other, _)) = same {
            let text = format!("archives {other} and {number} are at the same place");
            let hint = "name another place: a copy in the same place is lost with it";
            mistakes.push(Mistake::new(Group::Several, text).hint(hint));
        }
    }
    mistakes
}

fn is_same(one: &Settings, other: &Settings) -> bool {
    match (&one.place, &other.place) {
        (Some(Place::Directory(one)), Some(Place::Directory(other))) => one == other,
        // A container of Swift is known by the account, which the login says.
        (Some(Place::SwiftContainer { .. }) | None, _) | (_, None) => false,
        (Some(place), Some(another)) => place == another && server(one) == server(other),
    }
}

/// What tells one server or account from another.
fn server(settings: &Settings) -> [Option<&str>; 5] {
    [
        settings.text(&WALE_S3_ENDPOINT),
        settings.text(&WALE_GS_ENDPOINT),
        settings.text(&STORAGE_EMULATOR_HOST),
        settings.text(&WALE_WABS_ENDPOINT),
        settings.text(&WABS_ACCOUNT_NAME),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::declared::{AWS_ACCESS_KEY_ID, AWS_REGION, WALE_MEMORY, WALE_RETAIN_BACKUPS};
    use super::super::{Loaded, show_text};
    use super::*;

    const FIRST: (&str, &str) = ("WALE_FILE_PREFIX", "/a");

    fn load(set: &[(&str, &str)]) -> Loaded {
        Loaded::for_test(&[&[FIRST][..], set].concat(), "")
    }

    fn told(set: &[(&str, &str)]) -> String {
        let error = load(set).require(&[Group::Several]).expect_err("a mistake");
        format!("{error}\n{:?}\n{:?}", error.detail, error.hint)
    }

    #[test]
    fn an_archive_has_its_own_settings_and_those_of_the_machine() {
        let loaded = load(&[
            ("WALE_PREFIX_2", "s3://b/p"),
            ("AWS_REGION_2", "r"),
            ("AWS_ACCESS_KEY_2", "of-the-second"),
            ("AWS_SECRET_ACCESS_KEY_2", "canary"),
            ("WALE_RETAIN_BACKUPS", "7"),
            ("WALE_RETAIN_DAYS_2", "3"),
            ("WALE_FILE_PREFIX_3", "/c"),
            ("WALE_MEMORY", "64MiB"),
        ]);
        let settings = loaded.require_all().expect("good settings");
        assert_eq!(settings.retention().backups, Some(7));
        let [two, three] = loaded.further.as_slice() else {
            panic!("two further archives");
        };
        assert_eq!((two.number, three.number), (2, 3));
        assert!(matches!(&two.settings.place, Some(Place::Bucket { bucket, .. }) if bucket == "b"));
        assert_eq!(two.settings.get(&AWS_REGION).as_deref(), Some("r"));
        assert_eq!(
            two.settings.get(&AWS_ACCESS_KEY_ID).as_deref(),
            Some("of-the-second")
        );
        assert_eq!(two.settings.get(&WALE_RETAIN_BACKUPS), None);
        assert_eq!(two.settings.retention().days, Some(3));
        assert_eq!(two.settings.get(&WALE_MEMORY), 64 << 20);
        assert_eq!(three.settings.place, Some(Place::Directory("/c".into())));
        assert!(!three.settings.retention().is_set());
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let shown = show_text(&loaded.shown());
        assert!(shown.contains("# Archive 2\n"), "{shown}");
        assert!(shown.contains("# environment WALE_PREFIX_2\n"), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn nothing_of_one_store_goes_to_another() {
        let loaded = load(&[
            ("WALE_S3_PREFIX_2", "s3://b/p"),
            ("AWS_REGION", "r"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ]);
        assert_eq!(loaded.further[0].settings.get(&AWS_ACCESS_KEY_ID), None);
        assert!(!loaded.further[0].is_sound());
        loaded
            .require(&[Group::Archive, Group::Retention])
            .expect("a mistake in archive 2 stops nothing of archive 1");
        let error = loaded.require_all().expect_err("no region");
        assert!(
            format!("{error} {:?}", error.detail).contains("AWS_REGION_2"),
            "{error}"
        );
    }

    #[test]
    fn names_that_mean_nothing_are_refused_or_told() {
        for (set, words) in [
            (
                &[("WALE_PREFIX_3", "/c")][..],
                "archive 3 is set, and archive 2 is not",
            ),
            (
                &[("WALE_RETAIN_DAYS_2", "3")],
                "the place of archive 2 is not",
            ),
            (
                &[("WALE_COMPRESSION_2", "lz4")],
                "the same for all archives",
            ),
            (
                &[("WALE_FILE_PREFIX_2", "/b"), ("PGDATA_2", "/d")],
                "the same for all archives",
            ),
            (&[("WALE_FILE_PREFIX_2", "file:///a/")], "at the same place"),
            (
                &[("WALE_FILE_PREFIX_2", "/b"), ("WALE_S3_PREFIX_2", "s3://b")],
                "several places",
            ),
            (&[("WALE_FILE_PREFIX_2", "b")], "WALE_FILE_PREFIX_2: "),
            (
                &[("WALE_FILE_PREFIX_2", "/b"), ("WALE_RETAIN_DAYS_2", "no")],
                "WALE_RETAIN_DAYS_2: ",
            ),
        ] {
            let told = told(set);
            assert!(told.contains(words), "{set:?}: {told}");
        }
        let loaded = load(&[
            ("AWS_REGION_2", "r"),
            ("PGDATA_2", "/another/cluster"),
            ("WALE_FILE_PERFIX_2", "/b"),
        ]);
        loaded.require_all().expect("warnings");
        assert_eq!(
            loaded.warnings,
            [
                "WALE_FILE_PERFIX_2 is not a known setting and has no effect; did you mean WALE_FILE_PREFIX_2?",
                "AWS_REGION_2 has no effect: the place of archive 2 is not set",
            ]
        );
    }

    #[test]
    fn one_archive_alone() {
        let both = [("WALE_PREFIX_2", "file:///b"), ("WALE_RETAIN_DAYS", "3")];
        let choose = |number| load(&[&both[..], &[("WALE_ARCHIVE", number)]].concat());
        let first = choose("1");
        assert_eq!(first.settings.place, Some(Place::Directory("/a".into())));
        let second = choose("2");
        let settings = second.require_all().expect("good settings");
        assert_eq!(settings.place, Some(Place::Directory("/b".into())));
        assert!(!settings.retention().is_set());
        assert!(first.further.is_empty() && second.further.is_empty());
        for (number, words) in [("3", "no archive 3 is set"), ("0", "WALE_ARCHIVE: ")] {
            let error = choose(number).require_all().expect_err("a mistake");
            let told = format!("{error} {:?}", error.detail);
            assert!(told.contains(words), "{told}");
        }
    }
}
