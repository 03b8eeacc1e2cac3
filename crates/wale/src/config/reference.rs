//! The reference page of the settings, generated from the declared list.

use std::fmt::Write;

use super::declared::SETTINGS;
use super::group::Group;
use super::setting::{Declared, Default, Facts};
use super::value;

const HEAD: &str = "\
<!-- Generated from the declared list of settings by `cargo run -p xtask -- docs`. Do not edit. -->

# Settings

wale reads a setting from, in this order: a flag, the environment, the configuration file that
`WALE_CONFIG_FILE` names (lines `NAME=value`), the default. An empty value counts as not set. All
mistakes are reported together, with exit status 78. `wale config show` prints every setting, its
value and where the value came from.

Sizes take `B`, `kB`, `MB`, `GB`, `TB` in steps of 1024, as PostgreSQL's. Durations take `ms`, `s`,
`min`, `h`, `d`. A secret may be read from a file: set `<NAME>_FILE` to its path.
An empty file is a mistake, not an unset secret.

Further archives follow the first ([guide](../guide/several-archives.md)). The settings of archive 2
are those that belong to one archive with `_2` at the end of the name (`WALE_PREFIX_2`,
`AWS_REGION_2`, `AWS_SECRET_ACCESS_KEY_FILE_2`, `WALE_RETAIN_DAYS_2`), and so on up to 9: the place,
the sections of the stores, and retention. They inherit nothing from the first. Every other setting
is the same for all archives, and with a number it is a mistake.
";

/// The page.
pub(crate) fn settings_page() -> String {
    let mut page = HEAD.to_owned();
    for group in Group::ALL {
        let _ = writeln!(page, "\n## {}", group.title());
        let of_group = |s: &&&dyn Declared| s.facts().group == group && !s.facts().hidden;
        for setting in SETTINGS.iter().filter(of_group) {
            page.push_str(&entry(*setting));
        }
    }
    page.push_str("\n## For tests only\n");
    for setting in SETTINGS.iter().filter(|s| s.facts().hidden) {
        page.push_str(&entry(*setting));
    }
    page
}

fn entry(setting: &dyn Declared) -> String {
    let facts = setting.facts();
    let mut text = format!("\n### `{}`\n\n{}\n\n", facts.name, facts.doc);
    let _ = writeln!(text, "* Type: {}", setting.describe());
    let default = default_words(facts).unwrap_or_else(|| "none".to_owned());
    let _ = writeln!(text, "* Default: {default}");
    if let Some(flag) = facts.flag {
        let _ = writeln!(text, "* Flag: `--{flag}`");
    }
    if let Some(variable) = facts.file_variable() {
        let _ = writeln!(text, "* Secret; from a file: `{variable}`");
    }
    if !facts.aliases.is_empty() {
        let aliases: Vec<String> = facts.aliases.iter().map(|a| format!("`{a}`")).collect();
        let _ = writeln!(text, "* Also read: {}", aliases.join(", "));
    }
    let _ = writeln!(text, "* Since: {}", facts.since);
    text
}
/// The default of a setting, in words; none where there is none.
pub(crate) fn default_words(facts: &Facts) -> Option<String> {
    Some(match facts.default {
        Default::None => return None,
        Default::Fixed(value) => format!("`{value}`"),
        Default::Time(time) => format!("`{}`", value::duration_text(time)),
        Default::Words(words) | Default::Derived(words, _) => words.to_owned(),
    })
}
