//! A PostgreSQL server as the archive sees it: it writes WAL files, marks them ready, has its archiver push one after
//! the other through a sidecar, and removes or recycles what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use wale_cluster::WalDirectory;
use wale_format::{Codec, Seal};
use wale_ops::retry::RetryBudget;
use wale_ops::wal_push::{PushReport, Pusher, PusherOptions};
use wale_ops::{Archive, ArchiveOptions, Clock, OpError};
use wale_pg::ArchiveFileName;
use wale_pipeline::MemoryBudget;
use wale_storage::Store;

/// 1 MiB: the smallest legal segment.
const SEGMENT_BYTES: usize = 1 << 20;

/// A request of the archiver that has not been answered.
pub(crate) struct Request {
    pub(crate) name: ArchiveFileName,
    pub(crate) answer: JoinHandle<Result<PushReport, OpError>>,
}

/// One server with its sidecar.
pub(crate) struct Server {
    pub(crate) label: &'static str,
    pub(crate) request: Option<Request>,
    /// Files that PostgreSQL waits for, in its order.
    pub(crate) ready: Vec<ArchiveFileName>,
    /// What it wrote under each name.
    pub(crate) written: BTreeMap<String, Arc<Vec<u8>>>,
    done: BTreeSet<String>,
    pusher: Option<Arc<Pusher>>,
    pub(crate) system_identifier: u64,
    /// What makes its bytes different from those of another server of the same cluster.
    lineage: u8,
    timeline: u32,
    history: String,
    next: u32,
    codec: Codec,
    look_ahead: usize,
    starts: u32,
    folder: TempDir,
}

impl Server {
    pub(crate) fn new(label: &'static str, system_identifier: u64, lineage: u8) -> Self {
        let folder = TempDir::new().expect("a folder");
        fs::create_dir(folder.path().join("archive_status")).expect("a folder");
        // A server always has a segment that it has not handed over; it tells whose a history file is.
        let current = "00000001000000FF000000FF";
        fs::write(
            folder.path().join(current),
            segment(system_identifier, current, lineage),
        )
        .expect("written");
        Self {
            label,
            request: None,
            ready: Vec::new(),
            written: BTreeMap::new(),
            done: BTreeSet::new(),
            pusher: None,
            system_identifier,
            lineage,
            timeline: 1,
            history: String::new(),
            next: 1,
            codec: Codec::None,
            look_ahead: 0,
            starts: 0,
            folder,
        }
    }

    /// Starts the sidecar with nothing in its memory. Gives its name in the trace.
    pub(crate) fn start(
        &mut self,
        door: impl FnOnce(&str) -> Arc<dyn Store>,
        codec: Codec,
        look_ahead: usize,
    ) -> String {
        self.starts += 1;
        (self.codec, self.look_ahead) = (codec, look_ahead);
        let caller = format!("{}{}", self.label, self.starts);
        let directory = WalDirectory::open(self.folder.path()).expect("a folder");
        let options = PusherOptions {
            look_ahead,
            retry: RetryBudget::ONCE,
            ..PusherOptions::default()
        };
        let pusher = Pusher::new(archive(door(&caller), codec), directory, options);
        self.pusher = Some(Arc::new(pusher));
        caller
    }

    /// `kill -9`: whatever the sidecar knew and did is gone.
    pub(crate) fn crash(&mut self) {
        if let Some(request) = self.request.take() {
            request.answer.abort();
        }
        self.pusher = None;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.pusher.is_some()
    }

    /// The server writes its next segment.
    pub(crate) fn write_segment(&mut self) -> String {
        let name = format!(
            "{:08X}{:08X}{:08X}",
            self.timeline,
            self.next >> 12,
            self.next & 0xFFF
        );
        self.next += 1;
        let content = segment(self.system_identifier, &name, self.lineage);
        self.write(name, content)
    }

    /// The server is promoted: its last segment ends as a partial one, and a new timeline begins in it.
    pub(crate) fn promote(&mut self) -> String {
        let last = format!(
            "{:08X}{:08X}{:08X}.partial",
            self.timeline,
            self.next >> 12,
            self.next & 0xFFF
        );
        let content = segment(self.system_identifier, &last, self.lineage);
        self.write(last, content);
        // A history tells of all ancestors.
        let (line, lsn) = (self.timeline, (self.next >> 12, (self.next & 0xFFF) << 20));
        let _ = writeln!(
            self.history,
            "{line}\t{:X}/{:X}\tsimulated by {}",
            lsn.0, lsn.1, self.lineage
        );
        let history = self.history.clone();
        self.timeline += 1;
        self.write(
            format!("{:08X}.history", self.timeline),
            history.into_bytes(),
        )
    }

    fn write(&mut self, name: String, content: Vec<u8>) -> String {
        fs::write(self.folder.path().join(&name), &content).expect("written");
        let mark = format!("archive_status/{name}.ready");
        fs::write(self.folder.path().join(mark), "").expect("written");
        self.ready
            .push(ArchiveFileName::parse(&name).expect("a name"));
        self.ready.sort_by(ArchiveFileName::cmp_archiving);
        self.written.insert(name.clone(), Arc::new(content));
        name
    }

    /// The archiver asks for a file that is ready: the first, or one further on (as several archivers would).
    pub(crate) fn ask(&mut self, position: usize) -> Option<ArchiveFileName> {
        let name = *self.ready.get(position)?;
        let pusher = Arc::clone(self.pusher.as_ref()?);
        let answer = tokio::spawn(async move { pusher.push(&name).await });
        self.request = Some(Request { name, answer });
        Some(name)
    }

    /// The client hangs up; the sidecar goes on.
    pub(crate) fn hang_up(&mut self) -> Option<ArchiveFileName> {
        let request = self.request.take()?;
        request.answer.abort();
        Some(request.name)
    }

    /// What PostgreSQL does when a file was archived, or when its operator gives up on it.
    pub(crate) fn done(&mut self, name: &ArchiveFileName) {
        self.ready.retain(|waiting| waiting != name);
        let status = self.folder.path().join("archive_status");
        fs::rename(
            status.join(format!("{name}.ready")),
            status.join(format!("{name}.done")),
        )
        .expect("renamed");
        self.done.insert(name.to_string());
    }

    /// A checkpoint removes the files that were archived.
    pub(crate) fn recycle(&mut self) -> usize {
        let done = std::mem::take(&mut self.done);
        for name in &done {
            fs::remove_file(self.folder.path().join(name)).expect("removed");
            fs::remove_file(
                self.folder
                    .path()
                    .join(format!("archive_status/{name}.done")),
            )
            .expect("removed");
        }
        done.len()
    }
}

/// An archive in a store.
pub(crate) fn archive(store: Arc<dyn Store>, codec: Codec) -> Archive {
    Archive::open(ArchiveOptions {
        store,
        seal: Seal::unencrypted(codec),
        clock: Clock::fixed(crate::expiry::now()),
        budget: MemoryBudget::new(64 << 20),
        created_by: "wale simulation".to_owned(),
    })
}

/// The content of a segment: the long header of PostgreSQL 15, then a block of random bytes again and again.
fn segment(system_identifier: u64, name: &str, lineage: u8) -> Vec<u8> {
    let number = |range| u32::from_str_radix(&name[range], 16).expect("hexadecimal");
    let (timeline, high, low) = (number(0..8), number(8..16), number(16..24));
    let address = (u64::from(high) << 32) | (u64::from(low) << 20);
    let mut content = Vec::with_capacity(SEGMENT_BYTES);
    content.extend_from_slice(&0xD110_u16.to_le_bytes());
    content.extend_from_slice(&0x0002_u16.to_le_bytes());
    content.extend_from_slice(&timeline.to_le_bytes());
    content.extend_from_slice(&address.to_le_bytes());
    content.extend_from_slice(&[0; 8]);
    content.extend_from_slice(&system_identifier.to_le_bytes());
    content.extend_from_slice(&u32::try_from(SEGMENT_BYTES).expect("1 MiB").to_le_bytes());
    content.extend_from_slice(&8192_u32.to_le_bytes());
    let mut random =
        crate::random::Random::new(address ^ (u64::from(lineage) << 56) ^ u64::from(timeline));
    let block: Vec<u8> = (0..512).flat_map(|_| random.next().to_le_bytes()).collect();
    while content.len() < SEGMENT_BYTES {
        content.extend_from_slice(&block);
    }
    content.truncate(SEGMENT_BYTES);
    content
}
