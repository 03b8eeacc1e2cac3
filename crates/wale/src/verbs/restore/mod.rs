//! `restore`: the plan first, then the cluster, then what is to be done next. The operation is the sidecar's RESTORE.

mod next;
mod said;
pub(super) mod show;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use indicatif::ProgressBar;
use wale_cluster::recovery::{Rehearsal, SHARED_BUFFERS};
use wale_ops::backup_fetch::{
    self, BackupSelector, Existing, RestoreAs, RestoreClusterOptions, RestoreReport, UnarchivedWal,
};
use wale_ops::{Archive, Kind, OpError};
use wale_pipeline::{CancellationToken, Progress};

pub(super) use self::said::Said;

use self::next::NextSteps;
use super::print::print;
use crate::assemble::{self, ClusterRequest};
use crate::bounds::Bounds;
use crate::cli::{RestoreArguments, WalFrom};
use crate::config::{Group, Loaded, Settings, declared};
use crate::goal;
use crate::progress::watch;
use crate::report::Failure;
use crate::runtime::{self, Signals};

/// The first port that a copy beside production may take.
const FIRST_PORT: u16 = 5433;
/// How many ports are tried.
const PORTS_MAX: u16 = 100;

/// Runs the verb.
pub(crate) fn run(
    arguments: &RestoreArguments,
    loaded: &Loaded,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let settings = loaded.require(&[
        Group::Archive,
        Group::Cluster,
        Group::Endpoint,
        Group::Wal,
        Group::Restore,
    ])?;
    let options = options(arguments, settings)?;
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let readers = assemble::readers(loaded, &archive)?;
    let steps = NextSteps::of(&options, wal_from(arguments, settings));
    let work = readers.read("the restore", async |archive: Archive| {
        restore(&archive, &options, arguments, &steps, bar).await
    });
    let done = runtime::large(options.fetch.workers)?.block_on(work);
    done.map_err(|error| in_flags(error).into())
}

async fn restore(
    archive: &Archive,
    options: &RestoreClusterOptions,
    arguments: &RestoreArguments,
    steps: &NextSteps,
    bar: &ProgressBar,
) -> Result<(), OpError> {
    let print = |text: &str| print(text).map_err(|failure| failure.error);
    let progress = Progress::new();
    // Boxed: the work's own state is tens of kilobytes.
    let planning = Box::pin(backup_fetch::plan_restore(archive, options, &progress));
    let planned = planning.await?;
    let plan = planned.plan.clone();
    if arguments.dry_run {
        return print(&if arguments.json {
            show::json(&plan, options, None, &[])
        } else {
            flags_for_settings(show::text(&plan, options))
        });
    }
    if !arguments.json {
        print(&flags_for_settings(show::text(&plan, options)))?;
    }
    let (signals, cancel) = (Signals::listen()?, CancellationToken::new());
    let work = Box::pin(planned.run(archive, options, &progress, &cancel));
    let report = signals.cancel(&cancel, watch(bar, &progress, work)).await?;
    tell(&report, &plan.files.notes);
    let next = steps.lines(&plan, &report);
    print(&if arguments.json {
        show::json(&plan, options, Some(&report), &next)
    } else {
        show::done(&report, &next)
    })
}

/// What the last steps said; what the plan has shown is not said again.
pub(super) fn tell(report: &RestoreReport, shown: &[String]) {
    let news = report.notes.iter().filter(|note| !shown.contains(note));
    for note in news {
        tracing::info!("{note}");
    }
    for warning in &report.warnings {
        tracing::warn!("{}", flags_for_settings(warning.clone()));
    }
}

fn options(
    arguments: &RestoreArguments,
    settings: &Settings,
) -> Result<RestoreClusterOptions, OpError> {
    let directory = directory(arguments, settings)?;
    let selector = match &arguments.backup {
        None => settings.get(&declared::WALE_RESTORE_LABEL),
        Some(name) => name.parse::<BackupSelector>().map_err(|problem| {
            OpError::new(Kind::Usage, problem)
                .hint("write LATEST or a name that backup-list prints")
        })?,
    };
    let restore_as = if arguments.as_standby {
        RestoreAs::Standby
    } else {
        settings.get(&declared::WALE_RESTORE_AS)
    };
    let rehearsal = if arguments.rehearsal {
        let port = match arguments.port {
            Some(port) => port,
            None => free_port(settings.get(&declared::PGPORT))?,
        };
        Some(Rehearsal {
            port,
            shared_buffers: arguments.shared_buffers.unwrap_or(SHARED_BUFFERS),
        })
    } else {
        None
    };
    let request = ClusterRequest {
        directory,
        selector,
        restore_as,
        goal: goal::with_flags(said(arguments).items(), goal::of_settings(settings)),
        wal_from: wal_from(arguments, settings),
        restore_command: settings.get(&declared::WALE_RESTORE_COMMAND),
        rehearsal,
    };
    let mut options = assemble::restore_cluster(settings, request)?;
    // The command line comes first: the first mapping that names a tablespace decides.
    let mut mapping = assemble::mappings(&arguments.tablespace_mapping);
    mapping.append(&mut options.fetch.tablespace_mapping);
    options.fetch.tablespace_mapping = mapping;
    options.fetch.existing = match (arguments.delta, arguments.discard_wal) {
        (false, _) => Existing::Refuse,
        (true, false) => Existing::Keep(UnarchivedWal::Refuse),
        (true, true) => Existing::Keep(UnarchivedWal::Discard),
    };
    if let Some(wal) = &arguments.wal_dir {
        options.fetch.pg_wal_link = Some(absolute(wal)?);
    }
    Ok(options)
}

fn directory(arguments: &RestoreArguments, settings: &Settings) -> Result<PathBuf, OpError> {
    match &arguments.directory {
        Some(directory) => absolute(directory),
        None => Ok(settings.get(&declared::PGDATA)),
    }
}

pub(super) fn absolute(path: &std::path::Path) -> Result<PathBuf, OpError> {
    std::path::absolute(path)
        .map_err(|error| OpError::from_io(error, format_args!("find {}", path.display())))
}

/// Where the restored server gets its WAL. A sidecar that has a name in the settings is there to be asked.
fn wal_from(arguments: &RestoreArguments, settings: &Settings) -> WalFrom {
    let has_sidecar = settings.is_set(&declared::WALE_SIDECAR_HOSTNAME)
        || settings.is_set(&declared::WALE_RESTORE_CLIENT);
    match arguments.wal_from {
        Some(from) => from,
        None if has_sidecar => WalFrom::Sidecar,
        None => WalFrom::Archive,
    }
}

fn said(arguments: &RestoreArguments) -> Said<'_> {
    Said {
        time: arguments.to_time.as_deref(),
        lsn: arguments.to_lsn.as_deref(),
        name: arguments.to_name.as_deref(),
        xid: arguments.to_xid.as_deref(),
        timeline: arguments.timeline.as_deref(),
        immediate: arguments.immediate,
        latest: arguments.latest,
        exclusive: arguments.exclusive,
        action: arguments.action,
    }
}

/// A port of this machine that nobody listens at, and that is not production's.
fn free_port(taken: u16) -> Result<u16, OpError> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut ports = (FIRST_PORT..FIRST_PORT + PORTS_MAX).filter(|port| *port != taken);
    ports.find(is_free).ok_or_else(|| {
        OpError::new(
            Kind::Configuration,
            format!(
                "no port from {FIRST_PORT} to {} is free",
                FIRST_PORT + PORTS_MAX - 1
            ),
        )
        .hint("name one (--port)")
    })
}

/// An error in the words of this verb: the rooms below know PostgreSQL's settings.
pub(super) fn in_flags(error: OpError) -> OpError {
    OpError {
        message: flags_for_settings(error.message),
        detail: error.detail.map(flags_for_settings),
        hint: error.hint.map(flags_for_settings),
        ..error
    }
}

fn flags_for_settings(mut text: String) -> String {
    for (name, flag) in [
        ("recovery_target_timeline", "--timeline"),
        ("recovery_target_time", "--to-time"),
        ("recovery_target_lsn", "--to-lsn"),
        ("recovery_target_name", "--to-name"),
        ("recovery_target_xid", "--to-xid"),
    ] {
        for what in ["add", "with", "as in", "example", "Write"] {
            text = text.replace(&format!("{what} {name} = "), &format!("{what} {flag} "));
        }
        for place in ["which", "in"] {
            let there = format!("{place} {name}");
            text = text.replace(&there, &format!("{place} {flag}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rooms_below_say_is_said_with_this_verbs_flags() {
        let cases = [
            (
                "to stay on timeline 1 add recovery_target_timeline = '1'",
                "to stay on timeline 1 add --timeline '1'",
            ),
            (
                "PostgreSQL 15 refuses the time zone \"CEST\" in recovery_target_time",
                "PostgreSQL 15 refuses the time zone \"CEST\" in --to-time",
            ),
            (
                "as in recovery_target_time = '2026",
                "as in --to-time '2026",
            ),
            // What is written stays as it is.
            ("recovery_target_time = 'x'", "recovery_target_time = 'x'"),
        ];
        for (told, expected) in cases {
            assert_eq!(flags_for_settings(told.to_owned()), expected);
        }
    }

    #[test]
    fn a_copy_takes_a_port_that_is_free_and_not_productions() {
        let port = free_port(FIRST_PORT).unwrap();
        assert!(port > FIRST_PORT && port < FIRST_PORT + PORTS_MAX);
    }
}
