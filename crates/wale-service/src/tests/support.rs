//! A sidecar over a store in memory, a WAL directory to fill, and a client that sees what is on the wire.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wale_format::{Codec, Seal};
use wale_ops::backup_push;
use wale_ops::wal_fetch::FetcherOptions;
use wale_ops::wal_push::PusherOptions;
use wale_ops::{Archive, ArchiveOptions, Clock, OpError};
use wale_pipeline::MemoryBudget;
use wale_storage::{FaultPlan, FaultyStore, MemoryStore, Store};

use crate::app::App;
use crate::backup::testing::Scripted;
use crate::{HttpLimits, Service, ServiceOptions, StartMode};

/// 1 MiB, the smallest that PostgreSQL knows.
pub(super) const SEGMENT_BYTES: usize = 1 << 20;

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Sidecar {
    pub(super) address: SocketAddr,
    pub(super) app: Arc<App>,
    pub(super) store: Arc<FaultyStore>,
    pub(super) memory: Arc<MemoryStore>,
    pub(super) folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), OpError>>,
}

/// Options over a fresh folder and a store in memory.
pub(super) struct Bench {
    pub(super) options: ServiceOptions,
    pub(super) folder: TempDir,
    pub(super) store: Arc<FaultyStore>,
    pub(super) memory: Arc<MemoryStore>,
}

pub(super) fn bench() -> Bench {
    bench_over(Arc::new(MemoryStore::new()))
}

/// A second sidecar over the first one's archive.
pub(super) fn bench_over(memory: Arc<MemoryStore>) -> Bench {
    bench_at(memory, Clock::System)
}

/// The same at another time.
pub(super) fn bench_at(memory: Arc<MemoryStore>, clock: Clock) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let wal = data.join("pg_wal");
    for folder in [wal.join("archive_status"), data.join("global")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(data.join("global/pg_control"), control_file()).unwrap();
    let inner = Arc::clone(&memory) as Arc<dyn Store>;
    let store = Arc::new(FaultyStore::new(inner, FaultPlan::new()));
    let archive = Archive::open(ArchiveOptions {
        store: Arc::clone(&store) as Arc<dyn Store>,
        seal: Seal::unencrypted(Codec::Zstd),
        clock,
        budget: MemoryBudget::new(64 << 20),
        created_by: "test".into(),
    });
    // Nobody listens on port 1: a real backup fails at once.
    let connect = wale_cluster::ConnectOptions {
        host: "127.0.0.1".into(),
        port: 1,
        ..Default::default()
    };
    let retry = wale_ops::retry::RetryBudget::within(Duration::from_millis(50));
    let options = ServiceOptions {
        readers: wale_ops::readers::Readers::of_one(archive.clone()),
        further: Vec::new(),
        max_archive_lag: None,
        retain_wait: Duration::from_hours(72),
        housekeeping: crate::Housekeeping {
            policy: wale_ops::retention::Policy::default(),
            grace: Duration::from_hours(24),
            request_interval: wale_ops::retention::DEFAULT_REQUEST_INTERVAL,
        },
        backup_request_interval: Duration::ZERO,
        listen: "127.0.0.1:0".parse().unwrap(),
        mode: StartMode::ContinuousBackup,
        lock_file: data.join("wale_init_lockfile"),
        notifier: crate::Notifier::default(),
        notices: crate::NoticeOptions::default(),
        schedule: None,
        verification: None,
        backup_role: wale_ops::backup_push::Role::Any,
        grace: Duration::from_secs(20),
        token: None,
        token_for: crate::TokenFor::Everything,
        hosts: Vec::new(),
        tls: None,
        archive,
        pusher: PusherOptions {
            retry,
            ..PusherOptions::default()
        },
        fetcher: FetcherOptions {
            deadline: Duration::from_millis(50),
            ..FetcherOptions::default()
        },
        backup: backup_push::BackupOptions::new(data.clone(), connect),
        wal_directory: wal,
        data_directory: data,
        limits: HttpLimits::default(),
        version: "9.9.9",
    };
    Bench {
        options,
        folder,
        store,
        memory,
    }
}

impl Bench {
    /// Starts the sidecar, with real backups or with scripted ones.
    #[expect(
        clippy::unused_async,
        reason = "what it binds belongs to the runtime that awaits it"
    )]
    pub(super) async fn start(self, script: Option<Scripted>) -> Sidecar {
        let Self {
            options,
            folder,
            store,
            memory,
        } = self;
        let app = match script {
            Some(script) => App::with_taker(&options, Box::new(script)),
            None => App::new(&options),
        };
        let service = Service::bind_app(options, Arc::clone(&app)).unwrap();
        let address = service.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(service.run(async move {
            let _ = stopped.await;
        }));
        Sidecar {
            address,
            app,
            store,
            memory,
            folder,
            stop: Some(stop),
            task,
        }
    }
}

/// A sidecar that serves.
pub(super) async fn serving() -> Sidecar {
    let sidecar = bench().start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    sidecar
}

impl Sidecar {
    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(super) fn wal(&self) -> PathBuf {
        self.data().join("pg_wal")
    }

    /// Puts segment `number` of timeline 1 into the WAL directory, ready; its name and bytes.
    pub(super) fn segment(&self, number: u32) -> (String, Vec<u8>) {
        let (name, bytes) = segment(number);
        std::fs::write(self.wal().join(&name), &bytes).unwrap();
        std::fs::write(
            self.wal()
                .join("archive_status")
                .join(format!("{name}.ready")),
            b"",
        )
        .unwrap();
        (name, bytes)
    }

    /// `GET path`, on a connection of its own.
    pub(super) async fn get(&self, path: &str) -> Reply {
        self.raw(format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    /// Sends these bytes and reads until the sidecar closes.
    pub(super) async fn raw(&self, bytes: impl Into<Vec<u8>>) -> Reply {
        let (address, bytes) = (self.address, bytes.into());
        tokio::task::spawn_blocking(move || exchange(address, &bytes))
            .await
            .unwrap()
    }

    pub(super) async fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/status").await.body()).unwrap()
    }

    /// Makes it look as if a server in another container ran: a process id that cannot exist here.
    pub(super) fn server_runs(&self) -> PathBuf {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let path = self.data().join("postmaster.pid");
        std::fs::write(
            &path,
            format!("2000000000\n/data\n{now}\n5432\n/tmp\n*\n\nready\n"),
        )
        .unwrap();
        path
    }

    /// Asks for shutdown; does not wait.
    pub(super) fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits for the end; the folder stays.
    pub(super) async fn ended_by_itself(&mut self) -> Result<(), OpError> {
        tokio::time::timeout(PATIENCE, &mut self.task)
            .await
            .expect("the sidecar ends")
            .unwrap()
    }

    /// Waits for the end.
    pub(super) async fn ended(mut self) -> Result<(), OpError> {
        self.ended_by_itself().await
    }

    pub(super) async fn stop(mut self) -> Result<(), OpError> {
        self.ask_to_stop();
        self.ended().await
    }
}

/// A real control file of PostgreSQL 15, made the one of the cluster that [`segment`] belongs to, in recovery: so nothing
/// is told by the WAL that is there and the WAL that is not.
fn control_file() -> Vec<u8> {
    let mut bytes = include_bytes!("../../../wale-pg/testdata/control_file/15").to_vec();
    bytes[0..8].copy_from_slice(&7_300_000_000_000_000_001_u64.to_le_bytes());
    bytes[16..20].copy_from_slice(&5_u32.to_le_bytes());
    bytes[228..232].copy_from_slice(&u32::try_from(SEGMENT_BYTES).unwrap().to_le_bytes());
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[..288]);
    bytes[288..292].copy_from_slice(&u32::try_from(crc).unwrap().to_le_bytes());
    bytes
}

/// Segment `number` of timeline 1 as PostgreSQL 15 would begin it.
pub(super) fn segment(number: u32) -> (String, Vec<u8>) {
    let mut bytes: Vec<u8> = (0..=250_u8)
        .flat_map(|byte| [byte; 977])
        .cycle()
        .take(SEGMENT_BYTES)
        .collect();
    bytes[0..2].copy_from_slice(&0xD110_u16.to_le_bytes());
    bytes[2..4].copy_from_slice(&2_u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
    bytes[8..16].copy_from_slice(&(u64::from(number) * SEGMENT_BYTES as u64).to_le_bytes());
    bytes[16..24].fill(0);
    bytes[24..32].copy_from_slice(&7_300_000_000_000_000_001_u64.to_le_bytes());
    bytes[32..36].copy_from_slice(&u32::try_from(SEGMENT_BYTES).unwrap().to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    (
        format!("00000001{:08X}{:08X}", number / 4096, number % 4096),
        bytes,
    )
}

/// What came back, to the end of the connection.
#[derive(Debug, Clone)]
pub(super) struct Reply(pub(super) Vec<u8>);

impl Reply {
    fn split(&self) -> (&[u8], &[u8]) {
        let at = self.0.windows(4).position(|four| four == b"\r\n\r\n");
        at.map_or((&self.0[..], &[]), |at| (&self.0[..at], &self.0[at + 4..]))
    }

    pub(super) fn status(&self) -> u16 {
        let head = self.head();
        head.split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    }

    /// In lower case.
    pub(super) fn head(&self) -> String {
        String::from_utf8_lossy(self.split().0).to_lowercase()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.split().1
    }

    pub(super) fn body(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// What the head promised.
    pub(super) fn declared(&self) -> Option<usize> {
        self.head()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
    }
}

pub(super) fn exchange(address: SocketAddr, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The sidecar may close before it has read everything: what it said before counts.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    Reply(all)
}

/// Waits until `condition` is true.
pub(super) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let looking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, looking).await.is_ok(),
        "never came true: {what}"
    );
}
