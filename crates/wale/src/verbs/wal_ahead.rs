//! Fetching ahead of a recovery that calls `wal-fetch` for every file: `wal-prefetch` and who starts it.
//!
//! WAL-E's way: a process of its own fetches the next segments into `.wal-e/prefetch` beside the WAL while PostgreSQL
//! replays, and the next `wal-fetch` only moves a file. It is started only where recovery goes forward: PostgreSQL
//! asks for segments as `RECOVERYXLOG`, `pg_rewind`, which walks backwards, by their names. When the WAL ends, or
//! recovery looks for another timeline, everything is removed again.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use wale_ops::wal_fetch::folder::{PrefetchFolder, segments_after};
use wale_ops::wal_fetch::{Fetcher, FetcherOptions};
use wale_ops::{Kind, OpError};
use wale_pg::{ArchiveFileName, WalSegmentName};

use super::recovery;
use super::wal_record::WalObject;
use crate::assemble;
use crate::bounds::Bounds;
use crate::cli::{Face, Invocation, WalPrefetch};
use crate::config::{Group, Loaded, declared};
use crate::report::{Failure, RESTORER};
use crate::runtime;

/// How long a fetch waits for the same segment that is on its way already: longer than a slow store needs for it.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// WAL-E's word for this verb in its log.
const ACTION: &str = "wal-prefetch";

/// The name under which PostgreSQL's recovery asks for segments, `xlogarchive.c`.
const RECOVERY_NAME: &str = "RECOVERYXLOG";

/// What one `wal-fetch` has to do with segments ahead of it.
pub(super) struct Window<'a> {
    ahead: usize,
    segment: Option<WalSegmentName>,
    folder: Option<PrefetchFolder>,
    destination: &'a Path,
}

impl<'a> Window<'a> {
    pub(super) fn new(ahead: usize, name: &ArchiveFileName, destination: &'a Path) -> Self {
        let segment = match name {
            ArchiveFileName::Segment(segment) => Some(*segment),
            _ => None,
        };
        let wal = match destination.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = std::fs::canonicalize(wal).ok().map(PrefetchFolder::new);
        Self {
            ahead,
            segment,
            folder,
            destination,
        }
    }

    /// Moves the segment into place if it was fetched ahead, or is just being; its size in bytes.
    pub(super) fn promote(&self) -> Option<u64> {
        let (segment, folder) = (self.segment?, self.folder.as_ref()?);
        if self.ahead == 0 {
            return None;
        }
        folder.wait(segment, WAIT_LIMIT);
        let promoted = folder.promote(segment, self.destination);
        // Nobody needs to fetch it any more.
        folder.abandon(segment);
        promoted
    }

    /// The segment was delivered: its successors are fetched, everything else is removed.
    pub(super) fn advance(&self, bytes: u64, invocation: &Invocation) {
        let (Some(segment), Some(folder)) = (self.segment, &self.folder) else {
            return self.clean();
        };
        let wanted = segments_after(segment, bytes, self.ahead);
        folder.keep_only(&wanted);
        if self
            .destination
            .file_name()
            .is_none_or(|n| n != RECOVERY_NAME)
        {
            return;
        }
        let placed: Vec<WalSegmentName> = wanted
            .into_iter()
            .filter(|name| folder.make_place(*name).unwrap_or(false))
            .collect();
        if placed.is_empty() {
            return;
        }
        if let Err(error) = start(folder, &placed, invocation) {
            tracing::warn!(%error, "could not start to fetch ahead");
            for name in placed {
                folder.abandon(name);
            }
        }
    }

    /// Nothing that was fetched ahead will be asked for.
    pub(super) fn clean(&self) {
        if let Some(folder) = &self.folder {
            folder.keep_only(&[]);
        }
    }
}

/// Starts `wal-prefetch` in a process group of its own: signals to PostgreSQL's are not meant for it. It ends by
/// itself, at the latest with the deadline of a fetch.
fn start(
    folder: &PrefetchFolder,
    placed: &[WalSegmentName],
    invocation: &Invocation,
) -> std::io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0(match invocation.face {
        Face::Wale => "wale",
        Face::WalE => "wal-e",
    });
    let (first, further) = placed.split_first().expect("the caller has some");
    // As options, not as variables: of those an alias or a configuration file might take precedence.
    command.args(invocation.options());
    command.args(["wal-prefetch", "--placed"]);
    for name in further {
        command.args(["--and", &name.to_string()]);
    }
    command
        .arg(folder.wal_directory())
        .arg(first.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    // Not waited for: this process ends now, and init takes the child over.
    command.spawn().map(drop)
}

/// `wal-prefetch`: fetches segments into their places, the nearest first.
pub(crate) fn prefetch(arguments: &WalPrefetch, loaded: &Loaded) -> Result<(), Failure> {
    let settings = loaded.require(&[Group::Archive, Group::Wal])?;
    let wal: PathBuf = std::fs::canonicalize(&arguments.directory).map_err(|error| {
        OpError::from_io(
            error,
            format_args!("open {}", arguments.directory.display()),
        )
    })?;
    let folder = PrefetchFolder::new(wal.clone());
    let names = std::iter::once(&arguments.name).chain(&arguments.further);
    let names = names
        .map(|name| segment(name))
        .collect::<Result<Vec<_>, _>>()?;
    if !arguments.placed {
        for name in &names {
            folder.make_place(*name)?;
        }
    }
    let archive = assemble::archive(settings, Bounds::of_fetch(settings))?.archive;
    let options = FetcherOptions {
        prefetch: 0,
        deadline: settings.get(&declared::WALE_FETCH_DEADLINE),
        ..FetcherOptions::default()
    };
    let location = archive.location();
    let readers = assemble::readers(loaded, &archive)?;
    let cluster = recovery::cluster_of(&wal.join("x"));
    let fetcher =
        Fetcher::of_several(readers.first().clone(), readers.others(), options).of_cluster(cluster);
    let result = runtime::small()?.block_on(async {
        for name in &names {
            fetch_ahead(&fetcher, &location, &folder, *name).await?;
        }
        Ok(())
    });
    if result.is_err() {
        // The archive does not have one, or does not answer: what comes later would fare no better.
        for name in names {
            folder.abandon(name);
        }
    }
    result
}

async fn fetch_ahead(
    fetcher: &Fetcher,
    location: &str,
    folder: &PrefetchFolder,
    name: WalSegmentName,
) -> Result<(), Failure> {
    // No place: wal-fetch was faster, or nobody wants the segment any more.
    let Some(place) = folder.take_place(name) else {
        return Ok(());
    };
    let file = ArchiveFileName::Segment(name);
    let object = WalObject::to_fetch(location, &file);
    tracing::info!(
        target: RESTORER,
        action = ACTION,
        key = object.key,
        prefix = object.prefix,
        seg = object.seg,
        state = "begin",
        "begin wal restore"
    );
    let result = fetcher.fetch_to_path(&file, &place.file, None).await;
    let report = result.map_err(|error| match error.kind {
        Kind::NotFound => Failure::with_status(error, 1).of(ACTION, object),
        _ => Failure::from(error),
    })?;
    if folder.publish(name, &place).is_ok() {
        let object = WalObject::stored(location, &file, &report.key);
        tracing::info!(
            target: RESTORER,
            action = ACTION,
            key = object.key,
            prefix = object.prefix,
            seg = object.seg,
            state = "complete",
            "complete wal restore"
        );
    }
    Ok(())
}

fn segment(text: &str) -> Result<WalSegmentName, OpError> {
    WalSegmentName::parse(text).map_err(|error| {
        let message = format!("\"{}\" is no name of a segment", text.escape_default());
        OpError::new(Kind::InvalidName, message).source(error)
    })
}
