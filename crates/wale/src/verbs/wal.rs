//! `wal-push` and `wal-fetch`: one file each, for `archive_command` and `restore_command`.
//!
//! Signals keep their default action here: PostgreSQL takes a `restore_command` that SIGTERM killed
//! for a shutdown, and any status of ours for an answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wale_cluster::WalDirectory;
use wale_ops::readers::Readers;
use wale_ops::wal_fetch::{FetchReport, Fetcher, FetcherOptions, Patience};
use wale_ops::wal_push::{self, LOOK_AHEAD_MAX, PushOptions, PushReport, Pusher, PusherOptions};
use wale_ops::{Archive, Kind, OpError};
use wale_pg::ArchiveFileName;
use wale_service::advice;

use super::recovery::{self, Role};
use super::wal_ahead::Window;
use super::wal_record::WalObject;
use crate::assemble;
use crate::bounds::Bounds;
use crate::cli::{Face, Invocation, WalFetch, WalPush};
use crate::config::{Group, Loaded, declared};
use crate::history_beside;
use crate::report::{Failure, RESTORER};
use crate::runtime;
use crate::stores;

/// Archives one file. Success is a promise about this one: PostgreSQL removes its copy.
pub(crate) fn push(arguments: &WalPush, loaded: &Loaded) -> Result<(), Failure> {
    let settings = loaded.require(&[Group::Archive, Group::Wal])?;
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let name = arguments.path.file_name().unwrap_or_default();
    // What is no name has no object either; it is refused below.
    if let Ok(name) = name.to_string_lossy().parse() {
        let object = WalObject::to_push(&archive, &name);
        tracing::info!(
            target: "wal_e.worker.upload",
            detail = format!("Uploading \"{}\" to \"{}\".", arguments.path.display(), object.key),
            action = "push-wal",
            key = object.key,
            prefix = object.prefix,
            seg = object.seg,
            state = "begin",
            "begin archiving a file"
        );
    }
    let location = archive.location();
    let pool = arguments.pool_size.map_or(1, usize::from);
    let wanted = pool.saturating_sub(1).min(LOOK_AHEAD_MAX);
    let look_ahead = stores::look_ahead(settings, &Bounds::of_verb(settings), wanted);
    let report = if look_ahead > 0 {
        runtime::large(look_ahead + 1)?.block_on(push_several(archive, arguments, look_ahead))?
    } else {
        let options = PushOptions {
            data_directory: data_directory(arguments),
            ..PushOptions::default()
        };
        let push = wal_push::run_path(&archive, &arguments.path, &options);
        runtime::small()?.block_on(push)?
    };
    let rate = rate(report.bytes_stored, report.duration);
    let object = WalObject::stored(&location, &report.name, &report.key);
    tracing::info!(
        target: "wal_e.worker.upload",
        detail = format!("Archiving to \"{}\" complete at {rate}KiB/s.", object.key),
        action = "push-wal",
        key = object.key,
        outcome = report.outcome.name(),
        bytes = report.bytes_plain,
        prefix = object.prefix,
        rate,
        seg = object.seg,
        state = "complete",
        "completed archiving to a file"
    );
    Ok(())
}

/// Archives the file that is asked for and others that wait. Those are nobody's promise: their marks in
/// `archive_status` are PostgreSQL's, which asks for each of them in its turn.
async fn push_several(
    archive: Archive,
    arguments: &WalPush,
    look_ahead: usize,
) -> Result<PushReport, OpError> {
    let name = arguments.path.file_name().unwrap_or_default();
    let name = archive_name(&name.to_string_lossy(), "%p")?;
    let folder = match arguments.path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let directory = WalDirectory::open(folder)
        .map_err(|e| OpError::from_cluster(e, format_args!("open {}", folder.display())))?;
    let options = PusherOptions {
        look_ahead,
        data_directory: data_directory(arguments),
        ..PusherOptions::default()
    };
    let pusher = Pusher::new(archive, directory, options);
    let outcome = pusher.push(&name).await;
    pusher.drain().await;
    outcome
}

/// KiB per second with two digits, as WAL-E writes it: `NaN` where no time passed.
fn rate(bytes: u64, duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds <= 0.0 {
        return "NaN".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let rate = bytes as f64 / 1024.0 / seconds;
    format!("{rate:.2}")
}

fn archive_name(text: &str, placeholder: &str) -> Result<ArchiveFileName, OpError> {
    text.parse().map_err(|error| {
        let message = format!(
            "\"{}\" is no name of an archive file",
            text.escape_default()
        );
        OpError::new(Kind::InvalidName, message)
            .hint(format!("pass {placeholder}"))
            .source(error)
    })
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
pub(crate) fn fetch(
    arguments: &WalFetch,
    invocation: &Invocation,
    loaded: &Loaded,
) -> Result<(), Failure> {
    let mut looked_for = None;
    let fetched = fetch_file(arguments, invocation, loaded, &mut looked_for);
    let had = |error| history_beside::instead(error, &arguments.name, &arguments.destination);
    fetched.or_else(had).map_err(|error| {
        let role = Role::of_destination(&arguments.destination);
        let stops = loaded.settings.get(&declared::WALE_FETCH_STOPS_RECOVERY);
        let status = recovery::status(error.kind, role, stops, invocation.face);
        let failure = Failure::with_status(error, status);
        match looked_for {
            Some(object) => failure.of("wal-fetch", object),
            None => failure,
        }
    })
}

/// `looked_for` is what the archive was asked for, if it was.
fn fetch_file(
    arguments: &WalFetch,
    invocation: &Invocation,
    loaded: &Loaded,
    looked_for: &mut Option<WalObject>,
) -> Result<(), OpError> {
    let settings = loaded.require(&[Group::Archive, Group::Wal])?;
    let name = archive_name(&arguments.name, "%f")?;
    let location = stores::location(settings);
    let object = &*looked_for.insert(WalObject::to_fetch(&location, &name));
    let ahead = arguments
        .prefetch
        .map_or_else(|| settings.get(&declared::WALE_FETCH_PREFETCH), usize::from);
    let window = Window::new(ahead, &name, &arguments.destination);
    if let Some(bytes) = window.promote() {
        tracing::info!(
            target: RESTORER,
            action = "wal-fetch",
            bytes,
            key = object.key,
            prefix = object.prefix,
            seg = object.seg,
            "promoted prefetched wal segment"
        );
        window.advance(bytes, invocation);
        return Ok(());
    }
    // A line for each file is enough in a server's log, unless somebody reads WAL-E's.
    if invocation.face == Face::WalE {
        tracing::info!(
            target: RESTORER,
            action = "wal-fetch",
            key = object.key,
            prefix = object.prefix,
            seg = object.seg,
            state = "begin",
            "begin wal restore"
        );
    }
    let archive = assemble::archive(settings, Bounds::of_fetch(settings))?.archive;
    let readers = assemble::readers(loaded, &archive)?;
    let fetched = runtime::small()?.block_on(fetch_now(
        &readers,
        settings.get(&declared::WALE_FETCH_DEADLINE),
        &name,
        &arguments.destination,
    ));
    match &fetched {
        Ok(report) => window.advance(report.bytes_plain, invocation),
        // The end of the WAL: what was fetched ahead will not be asked for.
        Err(error) if error.kind == Kind::NotFound => window.clean(),
        Err(_) => {}
    }
    fetched.map(|report| told_complete(arguments, &location, &report))
}

fn told_complete(arguments: &WalFetch, location: &str, report: &FetchReport) {
    let rate = rate(report.bytes_stored, report.duration);
    let object = WalObject::stored(location, &report.name, &report.key);
    tracing::info!(
        target: RESTORER,
        detail = format!(
            "The file was fetched to \"{}\" at {rate}KiB/s.",
            arguments.destination.display()
        ),
        action = "wal-fetch",
        key = object.key,
        bytes = report.bytes_plain,
        prefix = object.prefix,
        rate,
        seg = object.seg,
        state = "complete",
        "complete wal restore"
    );
}

async fn fetch_now(
    readers: &Readers,
    deadline: Duration,
    name: &ArchiveFileName,
    destination: &Path,
) -> Result<FetchReport, OpError> {
    let role = Role::of_destination(destination);
    let text = name.to_string();
    let has_it = history_beside::is_of_the_first_timeline(&text)
        || history_beside::at_hand(&text, destination).is_some();
    // One call lives for one file: what it fetched ahead into memory would be thrown away.
    let options = FetcherOptions {
        prefetch: 0,
        deadline,
        patience: if role == Role::Standby || has_it {
            Patience::ShortTry
        } else {
            Patience::Outage
        },
        ..FetcherOptions::default()
    };
    let archive = readers.first();
    let fetcher = Fetcher::of_several(archive.clone(), readers.others(), options)
        .of_cluster(recovery::cluster_of(destination));
    let error = match fetcher.fetch_to_path(name, destination, None).await {
        Ok(report) => return Ok(report),
        Err(error) => error,
    };
    // No object under any extension is not yet a proof: there may be a gap, or no archive. A standby hears the same in
    // either case, and asks every few seconds: it does without the proof.
    let error = match error.kind {
        Kind::NotFound if role == Role::Standby => return Err(error),
        Kind::NotFound => match fetcher.prove_absent(name).await {
            Ok(_) => return Err(error),
            Err(unproven) => unproven,
        },
        _ => error,
    };
    let ends_elsewhere = error.kind == Kind::CorruptData
        && role == Role::ArchiveRecovery
        && recovery::may_end_before(readers, name, destination).await?;
    if !ends_elsewhere {
        return Err(error);
    }
    tracing::warn!(
        hint = advice(&error),
        "{}; this server has a recovery target and does not promote before it, so it may go on",
        error.chain()
    );
    let message = format!("{name} cannot be fetched");
    Err(OpError::new(Kind::NotFound, message).detail(
        "If the recovery target lies before it, recovery ends there. If it does not, the server stops without promoting.",
    ))
}
