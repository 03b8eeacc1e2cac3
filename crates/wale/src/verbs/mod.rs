//! The verbs: settings in, one operation, exit status out.

mod adopt;
mod backup_fetch;
mod backup_list;
mod backup_push;
mod backup_table;
mod check;
mod copy;
mod deletion;
mod install;
mod print;
pub(crate) mod recovery;
mod reference;
mod rehearse;
mod restore;
mod restore_spec;
mod serve;
mod status;
mod verify;
mod wal;
mod wal_ahead;
mod wal_record;

pub(crate) use wal_record::WalObject;

use print::print;

use indicatif::ProgressBar;
use wale_ops::{Archive, Kind, OpError, WalDirectory};

use crate::assemble::VERSION;
use crate::bounds::Bounds;
use crate::cli::{Config, Face, Invocation, Verb};
use crate::client;
use crate::config::{Group, Loaded, declared, show_json, show_text};
use crate::report::Failure;
use crate::{assemble, runtime};

/// WAL-E's status for a command line without a verb.
const NO_VERB: u8 = 127;

/// Runs what was asked for.
///
/// # Errors
/// What to report, and the status to end with.
pub(crate) fn run(
    invocation: &Invocation,
    loaded: &Loaded,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    match &invocation.verb {
        Verb::Missing => {
            loaded.require(&[Group::Archive])?;
            let error = OpError::new(Kind::Usage, "subcommand not implemented");
            Err(Failure::with_status(
                error.hint("name a verb; see wal-e --help"),
                NO_VERB,
            ))
        }
        Verb::Serve => serve::run(loaded),
        Verb::BackupPush(arguments) => backup_push::run(arguments, loaded, bar),
        Verb::BackupFetch(arguments) => backup_fetch::run(arguments, loaded, bar),
        Verb::BackupFetchSome(arguments) => backup_fetch::run_some(arguments, loaded, bar),
        Verb::Restore(arguments) => restore::run(arguments, loaded, bar),
        Verb::Rehearse(arguments) => rehearse::run(arguments, loaded, bar),
        Verb::BackupList(arguments) => {
            let settings = loaded.require(&[Group::Archive])?;
            let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
            let readers = assemble::readers(loaded, &archive)?;
            let list = readers.read("the list of backups", async |archive: Archive| {
                if backup_list::is_for_a_person(arguments, invocation.face) {
                    let policy = settings.retention();
                    let interval = settings.get(&declared::WALE_RETAIN_REQUEST_INTERVAL);
                    return backup_table::run(&archive, arguments, &policy, interval).await;
                }
                backup_list::run(&archive, arguments, invocation.face).await
            });
            print(&runtime::small()?.block_on(list)?)
        }
        Verb::Adopt { json } => {
            let settings = loaded.require(&[Group::Archive, Group::Retention])?;
            let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
            let adopt = adopt::run(&archive, settings, *json);
            print(&runtime::small()?.block_on(adopt)?)
        }
        Verb::Check(arguments) => check::run(arguments, loaded),
        Verb::Status { json } => {
            let settings = loaded.require(&[Group::Archive])?;
            let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
            let wal = WalDirectory::at(settings.get(&declared::PGWAL));
            let status = status::run(&archive, &wal, *json);
            print(&runtime::small()?.block_on(status)?)
        }
        Verb::Verify(arguments) => verify::run(arguments, loaded, bar),
        Verb::BackupMark(arguments) => deletion::mark(arguments, loaded),
        Verb::Delete(arguments) => deletion::delete(arguments, invocation, loaded),
        Verb::Retain(arguments) => deletion::retain(arguments, invocation, loaded),
        Verb::Copy(arguments) => copy::run(arguments, loaded, bar),
        Verb::WalPush(arguments) => wal::push(arguments, loaded),
        Verb::WalFetch(arguments) => wal::fetch(arguments, invocation, loaded),
        Verb::WalPrefetch(arguments) => wal_ahead::prefetch(arguments, loaded),
        Verb::Client(arguments) => client::run(arguments, loaded),
        Verb::Config(Config::Show { json }) => show(loaded, *json),
        Verb::Install { folder } => install::run(folder),
        Verb::Completions(shell) => print(&reference::completions(*shell)),
        Verb::Version => print(&match invocation.face {
            Face::Wale => format!("wale {VERSION}\n"),
            Face::WalE => format!("{VERSION}\n"),
        }),
        Verb::Reference(page) => print(&reference::page(*page)),
    }
}

/// Shows the settings, and fails when there are mistakes: the same status as the sidecar's start.
fn show(loaded: &Loaded, json: bool) -> Result<(), Failure> {
    let text = if json {
        format!("{:#}\n", show_json(&loaded.shown()))
    } else {
        show_text(&loaded.shown())
    };
    print(&text)?;
    loaded.require_all()?;
    Ok(())
}
