//! `wal-push` and `wal-fetch`: one file each, for `archive_command` and `restore_command`.
//!
//! Signals keep their default action here: PostgreSQL takes a `restore_command` that SIGTERM killed
//! for a shutdown, and any status of ours for an answer.

use std::path::PathBuf;

use wale_ops::wal_fetch::{Fetcher, FetcherOptions};
use wale_ops::wal_push::{self, PushOptions};
use wale_ops::{Kind, OpError};
use wale_pg::ArchiveFileName;

use super::recovery::{self, Role};
use crate::assemble::{self, Bounds};
use crate::cli::{Face, WalFetch, WalPush};
use crate::config::{Group, Loaded};
use crate::report::Failure;
use crate::runtime;

/// Archives one file. Success is a promise: PostgreSQL removes its copy.
pub(crate) fn push(arguments: &WalPush, loaded: &Loaded) -> Result<(), Failure> {
    let settings = loaded.require(&[Group::Archive, Group::Wal])?;
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let options = PushOptions {
        data_directory: data_directory(arguments),
        ..PushOptions::default()
    };
    let push = wal_push::run_path(&archive, &arguments.path, &options);
    let report = runtime::small()?.block_on(push)?;
    tracing::info!(
        name = %report.name,
        outcome = report.outcome.name(),
        key = report.key,
        bytes = report.bytes_plain,
        stored = report.bytes_stored,
        ms = report.duration.as_millis(),
        "wal-push"
    );
    Ok(())
}

/// The data directory whose `pg_control` must agree with the WAL: the folder above the WAL folder,
/// which for `pg_wal/…` is the working directory. Where it is none, the WAL's own header must do.
fn data_directory(arguments: &WalPush) -> Option<PathBuf> {
    let above = arguments.path.parent()?.parent()?;
    let above = if above.as_os_str().is_empty() {
        ".".into()
    } else {
        above.to_path_buf()
    };
    above.join("global/pg_control").is_file().then_some(above)
}

/// Fetches one file. What a failure means to PostgreSQL is decided in [`recovery`].
pub(crate) fn fetch(arguments: &WalFetch, face: Face, loaded: &Loaded) -> Result<(), Failure> {
    fetch_file(arguments, loaded).map_err(|error| {
        let role = Role::of_destination(&arguments.destination);
        let stops = loaded.settings.fetch_stops_recovery;
        let status = recovery::status(error.kind, role, stops, face);
        Failure::with_status(error, status)
    })
}

fn fetch_file(arguments: &WalFetch, loaded: &Loaded) -> Result<(), OpError> {
    let settings = loaded.require(&[Group::Archive, Group::Wal])?;
    let name: ArchiveFileName = arguments.name.parse().map_err(|error| {
        let shown = arguments.name.escape_default();
        OpError::new(
            Kind::InvalidName,
            format!("\"{shown}\" is no name of an archive file"),
        )
        .hint("pass %f")
        .source(error)
    })?;
    let archive = assemble::archive(settings, Bounds::of_fetch(settings))?.archive;
    // One call lives for one file: what it fetched ahead would be thrown away.
    let options = FetcherOptions {
        prefetch: 0,
        deadline: settings.fetch_deadline,
        ..FetcherOptions::default()
    };
    let fetched = runtime::small()?.block_on(async {
        let fetcher = Fetcher::new(archive, options);
        match fetcher
            .fetch_to_path(&name, &arguments.destination, None)
            .await
        {
            // No object under any extension is not yet a proof: there may be a gap, or no archive.
            Err(absent) if absent.kind == Kind::NotFound => {
                fetcher.prove_absent(&name).await?;
                Err(absent)
            }
            other => other,
        }
    });
    let report = fetched?;
    tracing::info!(
        name = %report.name,
        key = report.key,
        bytes = report.bytes_plain,
        stored = report.bytes_stored,
        ms = report.duration.as_millis(),
        "wal-fetch"
    );
    Ok(())
}
