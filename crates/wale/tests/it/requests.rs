//! What each operation costs in requests, counted at real servers. The table of the guide says the same, by this test.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use wale_format::{Codec, Seal};
use wale_ops::wal_fetch::{Fetcher, FetcherOptions};
use wale_ops::wal_push::{PushOutcome, Pusher, PusherOptions};
use wale_ops::{Archive, ArchiveOptions, Clock, WalDirectory};
use wale_pg::ArchiveFileName;
use wale_pipeline::MemoryBudget;
use wale_storage::{RetryPolicy, RetryStore, Store};
use wale_testkit::azure::Azurite;
use wale_testkit::gcs::GcsServer;
use wale_testkit::s3::{FaultProxy, Kind, S3Server};
use wale_testkit::{Sandbox, StoreServer};

use crate::{azure, gcs, s3_store, swift_store};

const CLUSTER: u64 = 7_447_234_573_249_283_074;
const SEGMENT_BYTES: usize = 1 << 20;

/// The guide's page.
const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/requests.md");

/// The operations, in the words of the guide.
const OPERATIONS: [&str; 15] = [
    "push of a new segment, the first of a process",
    "push of a new segment, the second",
    "push of a new segment, within 2 s of another",
    "push of a new segment, later",
    "push of a timeline's history",
    "push of a backup's history",
    "push of a segment again, by the same process",
    "push of a segment again, by another process",
    "fetch of a segment",
    "fetch of the next one",
    "fetch of a segment that is not there, the first time",
    "proof of its absence, the first time",
    "poll for a segment: the fetch",
    "poll for a segment: the proof",
    "poll for a history: fetch and proof",
];

/// A server, as seen through the proxy.
struct Counter {
    store: Arc<dyn Store>,
    proxy: FaultProxy,
    rows: Vec<String>,
    /// Whether operations that share a look were too far apart.
    is_slow: bool,
}

fn archive(store: &Arc<dyn Store>) -> Archive {
    Archive::open(ArchiveOptions {
        store: Arc::clone(store),
        seal: Seal::unencrypted(Codec::Zstd),
        clock: Clock::System,
        budget: MemoryBudget::new(64 << 20),
        created_by: "wale test".to_owned(),
    })
}

impl Counter {
    fn archive(&self) -> Archive {
        archive(&self.store)
    }

    /// Notes whether what began then has ended before its look was too old.
    fn shared_a_look(&mut self, begun: Instant) {
        self.is_slow |= begun.elapsed() >= LOOK_HOLDS;
    }

    /// What was asked since the last note, in words.
    fn note(&mut self) {
        let seen = self.proxy.requests();
        self.proxy.forget();
        let kinds: [(&str, &[Kind]); 5] = [
            ("PUT", &[Kind::Put]),
            ("LIST", &[Kind::List]),
            ("HEAD", &[Kind::Head]),
            ("GET", &[Kind::Get]),
            ("other", &[Kind::Other]),
        ];
        let mut words = Vec::new();
        let mut counted = 0;
        for (word, kinds) in kinds {
            let count = seen.iter().filter(|one| kinds.contains(&one.kind)).count();
            counted += count;
            if count > 0 {
                words.push(format!("{count} {word}"));
            }
        }
        assert_eq!(counted, seen.len(), "{seen:?}");
        self.rows.push(words.join(", "));
    }
}

/// The directory of a server that archives.
struct Server {
    wal: WalDirectory,
    _sandbox: Sandbox,
}

impl Server {
    fn new(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        fs::create_dir(sandbox.path().join("archive_status")).expect("made");
        let wal = WalDirectory::open(sandbox.path()).expect("opened");
        Self {
            wal,
            _sandbox: sandbox,
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> ArchiveFileName {
        let folder: &Path = self.wal.path();
        fs::write(folder.join(name), content).expect("written");
        let ready = folder.join(format!("archive_status/{name}.ready"));
        fs::write(ready, "").expect("written");
        ArchiveFileName::parse(name).expect("a name")
    }

    fn segment(&self, number: u8) -> ArchiveFileName {
        self.write(&format!("{:08X}{:08X}{number:08X}", 1, 0), &segment(number))
    }

    fn pusher(&self, archive: Archive) -> Pusher {
        let options = PusherOptions {
            look_ahead: 0,
            ..PusherOptions::default()
        };
        Pusher::new(archive, self.wal.clone(), options)
    }
}

/// A segment of 1 MiB: PostgreSQL 15's long header, and zeros.
fn segment(number: u8) -> Vec<u8> {
    let mut content = Vec::with_capacity(SEGMENT_BYTES);
    content.extend_from_slice(&0xD110_u16.to_le_bytes());
    content.extend_from_slice(&2_u16.to_le_bytes());
    content.extend_from_slice(&1_u32.to_le_bytes());
    content.extend_from_slice(&(u64::from(number) << 20).to_le_bytes());
    content.extend_from_slice(&[0; 8]);
    content.extend_from_slice(&CLUSTER.to_le_bytes());
    content.extend_from_slice(&(1_u32 << 20).to_le_bytes());
    content.extend_from_slice(&8192_u32.to_le_bytes());
    content.resize(SEGMENT_BYTES, 0);
    content
}

async fn fetched(fetcher: &Fetcher, name: &ArchiveFileName) -> bool {
    match fetcher.fetch(name).await {
        Ok(found) => {
            let pieces: Vec<_> = found.body.try_collect().await.expect("whole");
            assert!(!pieces.is_empty());
            true
        }
        Err(error) => {
            assert_eq!(error.kind, wale_ops::Kind::NotFound, "{error}");
            false
        }
    }
}

/// For how long a look counts, as the guide says.
const LOOK_HOLDS: Duration = Duration::from_secs(2);

/// Runs the operations, and counts. What a busy machine did too slowly to share a look is counted again, in another place.
async fn measure<S: Store + 'static>(
    name: &str,
    open: impl Fn(&str) -> (S, FaultProxy),
) -> Vec<String> {
    for attempt in 1..=5 {
        let (store, proxy) = open(&format!("some/path{attempt}/"));
        if let Some(rows) = measure_once(store, proxy, &format!("{name}{attempt}")).await {
            return rows;
        }
    }
    panic!("five times slower than a look counts: this machine is too busy");
}

/// `None` where operations that share a look were too far apart.
async fn measure_once(
    store: impl Store + 'static,
    proxy: FaultProxy,
    name: &str,
) -> Option<Vec<String>> {
    let store = RetryStore::new(Arc::new(store), RetryPolicy::default());
    let mut counter = Counter {
        store: Arc::new(store),
        proxy,
        rows: Vec::new(),
        is_slow: false,
    };
    let server = Server::new(name);
    // The archive is begun, and the store tried.
    let pusher = server.pusher(counter.archive());
    pusher.push(&server.segment(1)).await.expect("stored");
    counter.proxy.forget();
    push_all(&mut counter, &server).await;
    fetch_all(&mut counter).await;
    (!counter.is_slow).then_some(counter.rows)
}

async fn push_all(counter: &mut Counter, server: &Server) {
    let pusher = server.pusher(counter.archive());
    let mut begun = Instant::now();
    for number in 2..=5 {
        if number == 3 {
            begun = Instant::now();
        }
        if number == 5 {
            counter.shared_a_look(begun);
            tokio::time::sleep(Duration::from_millis(2_500)).await;
        }
        let report = pusher.push(&server.segment(number)).await.expect("stored");
        assert_eq!(report.outcome, PushOutcome::Stored);
        counter.note();
    }
    let history = server.write("00000002.history", b"1\t0/500000\tno recovery target\n");
    let backup = server.write(
        "000000010000000000000004.00000028.backup",
        b"START WAL LOCATION: 0/400028 (file 000000010000000000000004)\n",
    );
    for name in [history, backup] {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let report = pusher.push(&name).await.expect("stored");
        assert_eq!(report.outcome, PushOutcome::Stored);
        counter.note();
    }
    let again = ArchiveFileName::parse("000000010000000000000004").expect("a name");
    for pusher in [&pusher, &server.pusher(counter.archive())] {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        pusher.push(&again).await.expect("there");
        counter.note();
    }
}

async fn fetch_all(counter: &mut Counter) {
    let fetcher = Fetcher::new(
        counter.archive(),
        FetcherOptions {
            prefetch: 0,
            ..FetcherOptions::default()
        },
    );
    let mut begun = Instant::now();
    for name in ["000000010000000000000002", "000000010000000000000003"] {
        let name = ArchiveFileName::parse(name).expect("a name");
        assert!(fetched(&fetcher, &name).await);
        counter.note();
    }
    counter.shared_a_look(begun);
    let absent = ArchiveFileName::parse("000000020000000000000005").expect("a name");
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        begun = Instant::now();
        assert!(!fetched(&fetcher, &absent).await);
        counter.note();
        fetcher.prove_absent(&absent).await.expect("proven");
        counter.note();
        counter.shared_a_look(begun);
    }
    let absent = ArchiveFileName::parse("00000003.history").expect("a name");
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        counter.proxy.forget();
        begun = Instant::now();
        assert!(!fetched(&fetcher, &absent).await);
        fetcher.prove_absent(&absent).await.expect("proven");
        counter.shared_a_look(begun);
    }
    counter.note();
}

/// The guide's table has these costs under this heading.
fn compare(heading: &str, rows: &[String]) {
    assert_eq!(rows.len(), OPERATIONS.len());
    let lines: Vec<String> = OPERATIONS
        .iter()
        .zip(rows)
        .map(|(operation, cost)| format!("| {operation} | {cost} |"))
        .collect();
    println!("## {heading}\n{}", lines.join("\n"));
    if std::env::var_os("WALE_TEST_KEEP").is_some() {
        return;
    }
    let guide = fs::read_to_string(GUIDE).expect("the guide");
    let (_, below) = guide
        .split_once(&format!("## {heading}\n"))
        .expect("the heading");
    let section = below.split("\n## ").next().unwrap_or_default();
    for line in lines {
        assert!(section.contains(&line), "the guide lacks: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_each_operation_on_s3() {
    let sandbox = Sandbox::new("requests-s3-server");
    let server = S3Server::moto(&sandbox);
    let open = |prefix: &str| {
        let proxy = FaultProxy::start(server.port());
        (s3_store::store(proxy.port(), prefix), proxy)
    };
    compare("S3", &measure("requests-s3", open).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_each_operation_on_gcs() {
    let sandbox = Sandbox::new("requests-gcs-server");
    let server = GcsServer::start(&sandbox);
    let open = |prefix: &str| {
        let proxy = FaultProxy::start(server.port());
        (gcs::store(&proxy, &format!("/{prefix}")), proxy)
    };
    compare("Google Cloud Storage", &measure("requests-gcs", open).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_each_operation_on_azure() {
    let sandbox = Sandbox::new("requests-azure-server");
    let server = Azurite::start(&sandbox);
    let open = |prefix: &str| {
        let proxy = FaultProxy::start(server.port());
        let store = azure::store(proxy.port(), prefix, azure::shared_access());
        (store, proxy)
    };
    compare("Azure", &measure("requests-azure", open).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_each_operation_on_swift() {
    let Some((_sandbox, server)) = swift_store::server("requests-swift-server") else {
        return;
    };
    let open = |prefix: &str| {
        let proxy = FaultProxy::start(server.port());
        let store = swift_store::open(&swift_store::options(proxy.port(), prefix));
        (store, proxy)
    };
    compare("Swift", &measure("requests-swift", open).await);
}
