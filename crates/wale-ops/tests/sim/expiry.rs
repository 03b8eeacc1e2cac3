//! Base backups and retention in the simulation.
//!
//! A backup is put into the store as it is after its commit: how one is taken is the business of tests with real
//! servers. What is simulated is retention beside the archiver: it may be killed, and the store may fail it, between any
//! two of its calls.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinHandle;
use wale_format::{
    BackupName, Codec, PartitionRecord, Sentinel, SentinelOrigin, WaleSentinel, layout,
};
use wale_ops::retention::{Act, Line, Options, Policy, Request, run};
use wale_ops::{Archive, OpError};
use wale_pg::{Lsn, MajorVersion, SystemIdentifier, WalSegmentName, WalSegmentSize};
use wale_storage::{MemoryStore, ObjectKey};

/// How many backups the policy keeps.
const KEPT: u32 = 2;

/// The time of day of every simulation: it stands still.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(10_000)
}

/// Puts a committed backup into the store that begins and ends in `segment`. `number` orders the backups by time.
pub(crate) fn put_backup(
    memory: &MemoryStore,
    cluster: u64,
    segment: WalSegmentName,
    number: u32,
) -> String {
    let size = WalSegmentSize::MIN;
    let start = segment
        .start_lsn(size)
        .expect("a name of this size")
        .as_u64();
    let name = BackupName::parse(&format!("base_{segment}_00000040")).expect("a name");
    let time = now() - TimeDelta::days(100) + TimeDelta::seconds(i64::from(number));
    let record = WaleSentinel {
        format_version: WaleSentinel::FORMAT,
        wale_version: "simulation".to_owned(),
        backup_label: String::new(),
        start_lsn: Lsn::new(start + 40),
        stop_lsn: Lsn::new(start + 4096),
        start_timeline: segment.timeline(),
        stop_timeline: segment.timeline(),
        start_time: time,
        stop_time: time,
        system_identifier: SystemIdentifier::new(cluster),
        major: MajorVersion::parse("15").expect("a major"),
        wal_segment_size: size.bytes(),
        data_checksums: false,
        codec: Codec::None,
        partitions: vec![PartitionRecord {
            number: 0,
            members: 0,
            bytes_plain: 9,
            bytes_stored: 9,
        }],
        tablespaces: Vec::new(),
        manifest_sha256: None,
        settings: BTreeMap::new(),
        extensions: BTreeMap::new(),
        timescaledb: BTreeMap::new(),
        damaged_pages: Vec::new(),
        files: 0,
        bytes: 0,
        from_standby: false,
        holds_its_wal: false,
        requested_over_http: false,
        pg_wal_link: None,
        configuration: None,
    };
    let origin = SentinelOrigin {
        server_version_num: 150_000,
        hostname: "h".to_owned(),
        data_directory: "/data".to_owned(),
        has_file_list: false,
    };
    let sentinel = Sentinel::new(record, &origin)
        .expect("a sentinel")
        .to_json();
    let objects = [
        (
            layout::partition(&name, 0, Codec::None),
            b"partition".to_vec(),
        ),
        (layout::manifest(&name), b"manifest".to_vec()),
        (layout::sentinel(&name), sentinel),
    ];
    for (key, content) in objects {
        memory.insert(&ObjectKey::new(&key).expect("a key"), content);
    }
    name.to_string()
}

/// Starts retention.
pub(crate) fn begin(archive: Archive) -> JoinHandle<Result<(), OpError>> {
    let options = Options {
        request: Request::Policy(Policy {
            backups: Some(KEPT),
            ..Policy::default()
        }),
        act: Act::Delete,
        grace: Duration::from_hours(24),
        request_interval: wale_ops::retention::DEFAULT_REQUEST_INTERVAL,
    };
    tokio::spawn(async move {
        let mut tell = |_: &Line| {};
        run(&archive, &options, &mut tell).await.map(drop)
    })
}

/// Judges what is there after retention had its way with some of it.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    had_a_backup: bool,
}

impl Stock {
    /// The backups that are listed: those with a sentinel. Each must be whole, and once there was one there always is.
    pub(crate) fn check(&mut self, memory: &MemoryStore) -> Result<Vec<BackupName>, String> {
        let keys: Vec<ObjectKey> = memory.keys();
        let has = |key: String| keys.iter().any(|known| known.as_str() == key);
        let mut listed = Vec::new();
        for key in &keys {
            let layout::ArchiveKey::Sentinel(name) = layout::parse(key.as_str()) else {
                continue;
            };
            if !has(layout::partition(&name, 0, Codec::None)) || !has(layout::manifest(&name)) {
                return Err(format!("I3: {name} is listed, and not whole"));
            }
            listed.push(name);
        }
        if self.had_a_backup && listed.is_empty() {
            return Err("the last backup was deleted".to_owned());
        }
        self.had_a_backup |= !listed.is_empty();
        Ok(listed)
    }
}

/// Whether a listed backup needs this segment (or one of its timeline and later): such a one is never deleted.
pub(crate) fn needs(listed: &[BackupName], segment: WalSegmentName) -> bool {
    let number = |segment: WalSegmentName| segment.number(WalSegmentSize::MIN).unwrap_or(u64::MAX);
    listed.is_empty()
        || listed.iter().any(|backup| {
            let start = backup.segment();
            segment.timeline() >= start.timeline() && number(segment) >= number(start)
        })
}
