//! The settings that the log raises after the backup: read along the way that the recovery will go, beside the copying of the
//! files.
//!
//! A server that comes to such a record with smaller values stops, or pauses for good. The control file knows only those of
//! the backup's time, and the sentinel the same. So every segment of the WAL is read for them, once: what recovery
//! itself does again later. That must not double the time of a restore, so it is waited for no longer than [`PATIENCE`]
//! after the last file, and what was not read is said.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wale_archive::Archive;
use wale_archive::lineage::legs;
use wale_pg::{
    ArchiveFileName, EnforcedSettings, Lsn, ParameterScan, TimelineHistory, WalSegmentName,
    WalSegmentSize,
};

use crate::backup_content::WORKER_BYTES;
use crate::error::Result;

/// How long a restore whose files are there waits for the rest of the WAL to be read: some 100 segments from a slow store.
const PATIENCE: Duration = Duration::from_mins(2);

/// The way of a recovery.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// The backup's first segment.
    pub(super) begins: WalSegmentName,
    /// History of the timeline that is followed; `None` for the backup's own.
    pub(super) followed: Option<TimelineHistory>,
    pub(super) size: WalSegmentSize,
    /// Where it ends, if that is a position.
    pub(super) until: Option<Lsn>,
}

/// What was read so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// The largest values.
    pub(super) settings: Option<EnforcedSettings>,
    /// The last segment that was read.
    last: Option<WalSegmentName>,
}

/// The end that reads.
#[derive(Debug)]
pub(super) struct RaisedReader {
    told: Arc<Mutex<Told>>,
    done: Sender<Option<String>>,
}

/// The end that wants to know.
#[derive(Debug)]
pub(super) struct Listener {
    told: Arc<Mutex<Told>>,
    done: Receiver<Option<String>>,
}

/// Both ends.
pub(super) fn channel() -> (RaisedReader, Listener) {
    let told = Arc::new(Mutex::new(Told::default()));
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = RaisedReader {
        told: Arc::clone(&told),
        done: sender,
    };
    let listener = Listener {
        told,
        done: receiver,
    };
    (reader, listener)
}

impl Listener {
    /// What was read, and a sentence about what was not. Blocks for [`PATIENCE`] at most.
    pub(super) fn wait(self) -> (Told, Option<String>) {
        let problem = match self.done.recv_timeout(PATIENCE) {
            Ok(problem) => problem,
            Err(RecvTimeoutError::Timeout) => {
                Some("there is too much of it to wait for".to_owned())
            }
            Err(RecvTimeoutError::Disconnected) => None,
        };
        let told = self
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let sentence = problem.map(|problem| {
            let from = told.last.map_or_else(
                || "the archive's WAL was not read".to_owned(),
                |last| format!("the archive's WAL was read up to {last} only"),
            );
            format!(
                "{from} for settings that were raised after the backup ({problem}): where recovery stops or pauses because a \
                 setting is lower than on the primary, raise that setting in postgresql.auto.conf and start the server anew"
            )
        });
        (told, sentence)
    }
}

impl RaisedReader {
    /// Reads until the archive has no more.
    pub(super) async fn read(self, archive: &Archive, way: Way) {
        let problem = match self.read_along(archive, &way).await {
            Ok(()) => None,
            Err(error) => Some(error.chain()),
        };
        // A restore that failed does not listen any more.
        let _ = self.done.send(problem);
    }

    async fn read_along(&self, archive: &Archive, way: &Way) -> Result<()> {
        let last = way.until.map(|until| way.size.segment_number(until));
        let mut scan = ParameterScan::default();
        for leg in legs(way.begins, way.followed.as_ref(), way.size)? {
            let mut number = leg.first;
            while leg.end.is_none_or(|end| number < end) && last.is_none_or(|last| number <= last) {
                let name = leg.segment(number, way.size)?;
                let Some(stored) = archive.find_wal(&ArchiveFileName::Segment(name)).await? else {
                    return Ok(());
                };
                let _memory = archive.budget().acquire(WORKER_BYTES).await;
                let consume = move |plain: &mut dyn Read| {
                    let mut scan = scan;
                    let mut page = vec![0; ParameterScan::PAGE_SIZE];
                    while fill(plain, &mut page)? {
                        scan.page(&page);
                    }
                    Ok(scan)
                };
                scan = archive.decode(&stored.key, stored.codec, consume).await?;
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                told.settings = scan.found();
                told.last = Some(name);
                number += 1;
            }
        }
        Ok(())
    }
}

/// Reads a whole page; `false` at the end.
pub(super) fn fill(plain: &mut dyn Read, page: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < page.len() {
        match plain.read(&mut page[filled..]) {
            Ok(0) => return Ok(false),
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
