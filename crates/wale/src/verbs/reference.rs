//! Pages of the reference that follow from the program's own tables.

use std::fmt::Write;
use std::io::Write as _;

use wale_ops::error::TABLE;
use wale_ops::{Level, Retry};

use crate::cli::{self, Page};
use crate::config::settings_page;

const GENERATED: &str = "by `cargo run -p xtask -- docs`. Do not edit. -->";

/// The page's text, Markdown.
pub(crate) fn page(page: Page) -> String {
    match page {
        Page::Settings => settings_page(),
        Page::Errors => errors_page(),
        Page::Commands => commands_page(),
        Page::Manual => manual(),
    }
}

/// The manual, for `man`: the page of the program and of each of its verbs, one after the other. Each begins with a comment that names
/// its file.
fn manual() -> String {
    let program = cli::command();
    let mut pages = Vec::new();
    let mut append = |command: clap::Command| {
        let name = command.get_name().to_owned();
        // Writing to memory cannot fail.
        let _ = writeln!(pages, ".\\\" {name}.1");
        let _ = clap_mangen::Man::new(command).render(&mut pages);
    };
    append(program.clone());
    for verb in program.get_subcommands() {
        if !verb.is_hide_set() {
            append(verb.clone().name(format!("wale-{}", verb.get_name())));
        }
    }
    String::from_utf8_lossy(&pages).into_owned()
}

/// What completes verbs and options in a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "wale", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn errors_page() -> String {
    let mut page = format!(
        "<!-- Generated from the table of errors {GENERATED}\n\n# Errors and statuses\n\n\
         Every failure has a kind; the kind decides the exit status of `wale`, the HTTP status of the\n\
         sidecar and the level in the log. No exit status is above 125: there PostgreSQL's archiver\n\
         would stop and not count the failure.\n\n\
         | Kind | Retry helps | Exit as `wale` | as `wal-e` | in a recovery | HTTP | Level |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for row in &TABLE {
        let retry = match row.retry {
            Retry::No => "no",
            Retry::Yes => "yes",
            Retry::Operator => "after a repair",
        };
        let level = match row.level {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let (name, own, of_wal_e, http) =
            (row.name, row.exit_status, row.wal_e_status, row.http_status);
        let (fetch, client) = (row.in_recovery.of_wal_fetch(), row.in_recovery.of_client());
        let recovery = if fetch == client {
            fetch.to_string()
        } else {
            format!("{fetch} or {client}")
        };
        let _ = writeln!(
            page,
            "| {name} | {retry} | {own} | {of_wal_e} | {recovery} | {http} | {level} |"
        );
    }
    page.push_str(
        "\nWhere they apply:\n\n\
         * Called as `wal-e`, the statuses are WAL-E's: 0 done, 1 a reported failure, 2 a bug or a mistake on\n  \
           the command line, 127 no verb.\n\
         * In a recovery: PostgreSQL asks for WAL while the cluster is in archive recovery and is not a\n  \
           standby. A status of 1 says that the archive does not have the file, and ends the recovery; one\n  \
           above 125 says that nobody knows, and stops it instead. `wal-fetch` stops it with 250,\n  \
           `wale client fetch` and the line of shell that a restore writes with 255; both mean the same.\n  \
           On a standby they end with 1, and PostgreSQL asks again. `WALE_FETCH_STOPS_RECOVERY=off`\n  \
           switches 250 off.\n\
         * A 404 of the sidecar is no proof that the archive does not have a file: `wale client fetch` and\n  \
           the line of shell ask `/wal-absent/` for one.\n",
    );
    page
}

fn commands_page() -> String {
    let mut page = format!("<!-- Generated from the command line {GENERATED}\n\n# Commands\n\n");
    page.push_str(
        "Flags of settings are accepted by every verb; they are on the page of the settings.\n",
    );
    let mut command = cli::command();
    command.build();
    describe(&command, "", &mut page);
    page
}

fn describe(command: &clap::Command, above: &str, page: &mut String) {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = format!("{above}{}", verb.get_name());
        if verb.has_subcommands() {
            describe(verb, &format!("{name} "), page);
            continue;
        }
        let about = verb
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        let _ = writeln!(page, "\n## `wale {name}`\n\n{about}.\n");
        let own = |argument: &&clap::Arg| {
            !argument.is_hide_set() && !argument.is_global_set() && argument.get_id() != "help"
        };
        for argument in verb.get_arguments().filter(own) {
            let help = argument
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let short = argument
                .get_short()
                .map_or_else(String::new, |s| format!("`-{s}`, "));
            let _ = writeln!(page, "* {short}`{argument}` {help}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_pages_are_current() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference");
        for (file, name) in [
            ("settings.md", Page::Settings),
            ("errors.md", Page::Errors),
            ("commands.md", Page::Commands),
        ] {
            let committed = std::fs::read_to_string(format!("{folder}/{file}")).unwrap_or_default();
            assert!(
                committed == page(name),
                "docs/reference/{file} is stale: run `make docs`"
            );
        }
    }
}
