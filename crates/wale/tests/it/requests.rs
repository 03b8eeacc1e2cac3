//! What each operation costs in requests, counted at real servers. The table of the guide says the same, by this test.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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

/// Runs the operations, and counts.
async fn measure(store: impl Store + 'static, proxy: FaultProxy, name: &str) -> Vec<String> {
    let store = RetryStore::new(Arc::new(store), RetryPolicy::default());
    let mut counter = Counter {
        store: Arc::new(store),
        proxy,
        rows: Vec::new(),
    };
    let server = Server::new(name);
    // The archive is begun, and the store tried.
    let pusher = server.pusher(counter.archive());
    pusher.push(&server.segment(1)).await.expect("stored");
    counter.proxy.forget();

    let pusher = server.pusher(counter.archive());
    for number in 2..=5 {
        if number == 5 {
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

    let fetcher = Fetcher::new(
        counter.archive(),
        FetcherOptions {
            prefetch: 0,
            ..FetcherOptions::default()
        },
    );
    for name in ["000000010000000000000002", "000000010000000000000003"] {
        let name = ArchiveFileName::parse(name).expect("a name");
        assert!(fetched(&fetcher, &name).await);
        counter.note();
    }
    let absent = ArchiveFileName::parse("000000020000000000000005").expect("a name");
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert!(!fetched(&fetcher, &absent).await);
        counter.note();
        fetcher.prove_absent(&absent).await.expect("proven");
        counter.note();
    }
    let absent = ArchiveFileName::parse("00000003.history").expect("a name");
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        counter.proxy.forget();
        assert!(!fetched(&fetcher, &absent).await);
        fetcher.prove_absent(&absent).await.expect("proven");
    }
    counter.note();
    counter.rows
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
    let proxy = FaultProxy::start(server.port());
    let store = s3_store::store(proxy.port(), "some/path/");
    compare("S3", &measure(store, proxy, "requests-s3").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_each_operation_on_gcs() {
    let sandbox = Sandbox::new("requests-gcs-server");
    let server = GcsServer::start(&sandbox);
    let proxy = FaultProxy::start(server.port());
    let store = gcs::store(&proxy, "/some/path/");
    compare(
        "Google Cloud Storage",
        &measure(store, proxy, "requests-gcs").await,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_each_operation_on_azure() {
    let sandbox = Sandbox::new("requests-azure-server");
    let server = Azurite::start(&sandbox);
    let proxy = FaultProxy::start(server.port());
    let store = azure::store(proxy.port(), "some/path/", azure::shared_access());
    compare("Azure", &measure(store, proxy, "requests-azure").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_each_operation_on_swift() {
    let Some((_sandbox, server)) = swift_store::server("requests-swift-server") else {
        return;
    };
    let proxy = FaultProxy::start(server.port());
    let store = swift_store::open(&swift_store::options(proxy.port(), "some/path/"));
    compare("Swift", &measure(store, proxy, "requests-swift").await);
}

/// Not a test: `cargo test --workspace --test it -- --ignored --nocapture rate_of_pushes` prints how long a push takes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn rate_of_pushes_on_s3() {
    const PUSHES: u8 = 64;
    let sandbox = Sandbox::new("rate-s3-server");
    for kind in ["s3s-fs", "moto"] {
        let server = match kind {
            "moto" => S3Server::moto(&sandbox),
            _ => S3Server::s3s(&sandbox, None),
        };
        let store = s3_store::store(server.port(), "some/path/");
        let store = RetryStore::new(Arc::new(store), RetryPolicy::default());
        let store: Arc<dyn Store> = Arc::new(store);
        let local = Server::new("rate-s3");
        let pusher = local.pusher(archive(&store));
        let names: Vec<_> = (1..=PUSHES).map(|number| local.segment(number)).collect();
        pusher.push(&names[0]).await.expect("stored");
        let mut took = Vec::new();
        for name in &names[1..] {
            let begun = std::time::Instant::now();
            pusher.push(name).await.expect("stored");
            took.push(begun.elapsed());
        }
        took.sort();
        let all: Duration = took.iter().sum();
        println!(
            "{kind}: median {:?}, all {all:?} of {} pushes",
            took[took.len() / 2],
            took.len()
        );
    }
}
