//! What `wale --help`, `wale VERB --help` and `wale help VERB` show: the verbs; of a verb its own options, and the settings that
//! it uses, each in a few words with its values and its default. All of every setting is in the reference and in the manual.
//!
//! It refuses to parse: every flag is understood before and after every verb, shown or not.

use std::ffi::OsString;

use clap::{Arg, Command};

use crate::config::{Declared, Group, SETTINGS, default_words};

/// What stands below the verbs.
const SETTINGS_HINT: &str = "\
Settings are flags, environment variables, or lines of a configuration file. wale help VERB has those that a verb uses, \
wale config show all of them with their values.";

/// Below a page that leaves out the flags of the archive, so that it can be read.
const ARCHIVE_HINT: &str =
    "The flags of the archive itself (--prefix, --s3-endpoint, ...) are those of wale help status.";

/// The groups whose flags the page of a verb lists.
fn groups(verb: &str) -> &'static [Group] {
    match verb {
        "serve" => &[
            Group::Sidecar,
            Group::Endpoint,
            Group::Wal,
            Group::Retention,
            Group::Several,
        ],
        "backup-push" => &[Group::Cluster, Group::Backup],
        "restore" | "backup-fetch" | "rehearse" => &[Group::Cluster, Group::Restore],
        "wal-push" | "wal-fetch" | "wal-prefetch" => &[Group::Wal],
        "retain" | "delete" => &[Group::Retention],
        "client" => &[Group::Endpoint],
        "copy" => &[Group::Backup],
        "check" => &[Group::Cluster, Group::Server],
        "config" | "install" | "completions" | "version" | "reference" => &[],
        _ => &[
            Group::Archive,
            Group::S3,
            Group::Gcs,
            Group::Azure,
            Group::Several,
        ],
    }
}

/// Whether a verb works on an archive, whose flags its page leaves out.
fn leaves_out_the_archive(verb: &str) -> bool {
    let shown = groups(verb);
    verb != "client" && !shown.is_empty() && !shown.contains(&Group::Archive)
}

/// The command that pages of help are made of, out of the one without the settings' flags.
pub(super) fn command(bare: Command) -> Command {
    let root = flags(&[]).into_iter().map(|flag| flag.global(true));
    let verbs: Vec<String> = bare
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    let command = bare.args(root).after_help(SETTINGS_HINT);
    verbs.into_iter().fold(command, |command, name| {
        let shown = flags(groups(&name));
        let hint = leaves_out_the_archive(&name).then_some(ARCHIVE_HINT);
        command.mut_subcommand(name, |verb| {
            // Its own verbs show what it shows.
            let verb = verb.args(shown.into_iter().map(|flag| flag.global(true)));
            match hint {
                Some(hint) => verb.after_help(hint),
                None => verb,
            }
        })
    })
}

/// A flag for every setting that has one; those of other groups are hidden.
fn flags(shown: &[Group]) -> Vec<Arg> {
    let made = SETTINGS.iter().filter_map(|setting| {
        let facts = setting.facts();
        let flag = Arg::new(facts.name)
            .long(facts.flag?)
            .value_name("VALUE")
            .help(in_short(*setting))
            .help_heading(facts.group.title())
            .hide_short_help(true);
        Some(flag.hide(!shown.contains(&facts.group)))
    });
    made.collect()
}

/// The first sentence of a setting's paragraph, its values and its default.
fn in_short(setting: &dyn Declared) -> String {
    let facts = setting.facts();
    let first = facts
        .doc
        .split_once(". ")
        .map_or(facts.doc, |(first, _)| first);
    let first = first.trim_end_matches(['.', ':']);
    let values = setting.describe().replace('`', "");
    let default = match default_words(facts) {
        Some(default) => format!("; default {}", default.replace('`', "")),
        None => String::new(),
    };
    format!("{first} [{values}{default}]")
}

/// `help VERB` in the words of `VERB --help`.
pub(super) fn in_other_words(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|word| word == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    arguments
}
