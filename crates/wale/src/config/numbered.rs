//! Names with a number: a setting of archive 2 is the one of its kind whose name ends with `_2`.
//!
//! Only what belongs to one archive has such a name: where it is, its store's own settings, what is kept in it.

use super::declared::SETTINGS;
use super::group::Group;
use super::setting::{Declared, Facts};

/// Settings of the group of the archive that belong to one archive; the others of this group are the same for all.
const OF_ONE_ARCHIVE: [&str; 10] = [
    "WALE_FILE_PREFIX",
    "WALE_S3_PREFIX",
    "WALE_S3_BUCKET",
    "WALE_S3_PATH",
    "WALE_GS_PREFIX",
    "WALE_WABS_PREFIX",
    "WALE_SWIFT_PREFIX",
    "WALE_PREFIX",
    "WALG_STORAGE_PREFIX",
    "WALE_FAULT_CONTROL",
];

/// Whether a setting belongs to one archive.
pub(super) fn is_of_one_archive(facts: &Facts) -> bool {
    match facts.group {
        Group::S3 | Group::Gcs | Group::Azure | Group::Swift | Group::Retention => true,
        Group::Archive => OF_ONE_ARCHIVE.contains(&facts.name),
        _ => false,
    }
}

/// The setting that is read under a name.
pub(super) fn setting_of(name: &str) -> Option<&'static dyn Declared> {
    let mut all = SETTINGS.iter().copied();
    all.find(|setting| setting.facts().goes_by(name))
}

/// Whether a name is one of a setting that belongs to one archive.
pub(super) fn names_one_archive(name: &str) -> bool {
    setting_of(name).is_some_and(|setting| is_of_one_archive(setting.facts()))
}

/// A name without its number, and the number.
pub(super) fn split(name: &str) -> Option<(&str, u8)> {
    let (base, digit) = name.rsplit_once('_')?;
    let [digit @ b'2'..=b'9'] = digit.as_bytes() else {
        return None;
    };
    (!base.is_empty()).then_some((base, digit - b'0'))
}

/// A text about the settings of archive `number`, with the names that they have.
pub(super) fn with_numbers(text: &str, number: u8) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut told, mut rest) = (String::with_capacity(text.len() + 8), text);
    while let Some(begin) = rest.find(is_part) {
        let (before, from) = rest.split_at(begin);
        let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        told.push_str(before);
        told.push_str(word);
        if names_one_archive(word) {
            told.push('_');
            told.push(char::from(b'0' + number));
        }
        rest = after;
    }
    told + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_the_names_of_one_archive_only() {
        let text = "set AWS_REGION, or WALE_MEMORY; AWS_SECRET_ACCESS_KEY_FILE: x (environment WALE_PREFIX_2)";
        assert_eq!(
            with_numbers(text, 2),
            "set AWS_REGION_2, or WALE_MEMORY; AWS_SECRET_ACCESS_KEY_FILE_2: x (environment WALE_PREFIX_2)"
        );
        assert_eq!(split("WALE_PREFIX_2"), Some(("WALE_PREFIX", 2)));
        for name in ["WALE_PREFIX", "WALE_PREFIX_1", "WALE_PREFIX_22", "_2", "X2"] {
            assert_eq!(split(name), None, "{name}");
        }
    }
}
