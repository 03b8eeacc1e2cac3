//! What PostgreSQL was told, compared with what the archive has: for the tests that kill and cut power at random.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use wale_testkit::{Cluster, Sidecar, shell, wait_until};

/// A number from a variable of the environment.
pub(crate) fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}

/// xorshift64: what is killed and when follows from the seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// The random moment at which something is to happen: it is the fault itself, and no condition to wait for.
    pub(crate) fn pause(&mut self, at_least: u64, at_most: u64) {
        std::thread::sleep(Duration::from_millis(
            at_least + self.below(at_most - at_least),
        ));
    }
}

/// Rows are written and segments switched until `body` has ended. Nothing is written while `body` holds the lock that it
/// is given.
///
/// # Panics
/// When nothing was ever written.
pub(crate) fn under_load<T>(cluster: &Cluster, body: impl FnOnce(&Mutex<()>) -> T) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stop, quiet) = (AtomicBool::new(false), Mutex::new(()));
    let written = AtomicU64::new(0);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // The one that waits for the lock gets it.
                std::thread::sleep(Duration::from_millis(5));
                let _busy = quiet.lock();
                // The server itself may be the one that was killed just now.
                let done = cluster.try_sql(
                    "insert into t select random() * 1e9 from generate_series(1, 2000); select pg_switch_wal()",
                );
                written.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
            }
        });
        let _stop = Stop(&stop);
        body(&quiet)
    });
    assert!(written.into_inner() > 0, "the load wrote nothing");
    result
}

/// What was acknowledged so far, and seen to be stored.
#[derive(Default)]
pub(crate) struct Promises {
    /// Files that PostgreSQL has marked as archived (the mark stands for a status of 200), with a digest of each: the
    /// server itself need not keep them for ever.
    pub(crate) kept: BTreeMap<String, u64>,
    /// Inode and time of change of each object: neither changes while nothing is overwritten.
    objects: BTreeMap<String, String>,
}

impl Promises {
    /// I1 for every file that was acknowledged since the last look: it can be fetched, byte for byte.
    pub(crate) fn check_new(&mut self, cluster: &Cluster, sidecar: &Sidecar) {
        for name in acknowledged(cluster) {
            if self.kept.contains_key(&name) {
                continue;
            }
            let local = std::fs::read(cluster.wal.join(&name)).ok();
            let body = fetch(sidecar, &name);
            match local {
                Some(local) => assert!(body == local, "{name} was acknowledged, and differs"),
                // The server removes the history file of a backup when the next one begins; segments it is told to
                // keep for long enough.
                None => assert!(name.ends_with(".backup"), "the server has removed {name}"),
            }
            self.kept.insert(name, digest(&body));
        }
    }

    /// I1 for some that were acknowledged earlier.
    pub(crate) fn check_some(&self, sidecar: &Sidecar, random: &mut Random, count: u64) {
        let names: Vec<&String> = self.kept.keys().collect();
        for _ in 0..count.min(names.len() as u64) {
            let position = usize::try_from(random.below(names.len() as u64)).unwrap();
            self.check(sidecar, names[position]);
        }
    }

    /// I1 for every file that was ever acknowledged.
    pub(crate) fn check_all(&mut self, cluster: &Cluster, sidecar: &Sidecar) {
        self.check_new(cluster, sidecar);
        for name in self.kept.keys() {
            self.check(sidecar, name);
        }
    }

    fn check(&self, sidecar: &Sidecar, name: &str) {
        assert_eq!(
            digest(&fetch(sidecar, name)),
            self.kept[name],
            "{name} has changed"
        );
    }

    /// I2: no object of WAL that was seen before has been replaced or is gone.
    pub(crate) fn check_objects(&mut self, archive: &Path) {
        let listing = shell(&format!(
            "find {}/wal_005 -type f ! -name '.*' -printf '%f %i %T@\\n' 2>/dev/null || true",
            archive.display()
        ));
        let now: BTreeMap<String, String> = listing
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, stamp)| (name.to_owned(), stamp.to_owned()))
            .collect();
        for (name, stamp) in &self.objects {
            assert_eq!(now.get(name), Some(stamp), "{name} was replaced or is gone");
        }
        self.objects = now;
    }
}

/// I6: archiving goes on by itself.
pub(crate) fn wait_archiving_resumes(cluster: &Cluster) {
    let archived = || -> u64 {
        let count = cluster.try_sql("select archived_count from pg_stat_archiver");
        count.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let before = archived();
    wait_until("archiving to resume", Duration::from_secs(90), || {
        (archived() > before).then_some(())
    });
}

fn acknowledged(cluster: &Cluster) -> Vec<String> {
    let entries = std::fs::read_dir(cluster.wal.join("archive_status")).unwrap();
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".done").map(str::to_owned))
        .collect();
    names.sort();
    names
}

fn fetch(sidecar: &Sidecar, name: &str) -> Vec<u8> {
    // It may have been started just now.
    sidecar.wait_ready(Duration::from_secs(60));
    let reply = sidecar.get(&format!("/wal/{name}"));
    assert_eq!(
        reply.status,
        200,
        "{name} was acknowledged: {}",
        reply.text()
    );
    reply.body
}

fn digest(body: &[u8]) -> u64 {
    let mut digest = DefaultHasher::new();
    body.hash(&mut digest);
    digest.finish()
}
