//! The fault battery, rows 14, 88 and 91: a container's memory limit while pushes or reads come side by side, and memory over backups.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wale_testkit::{
    ClusterOptions, SidecarOptions, free_port, get, skip, wait_until, wale_command,
};

use crate::support::{Stage, WALE};

const LIMIT: u64 = 64 << 20;

/// A control group of the kernel with a memory limit, version 2 or 1. Removed when dropped.
pub(crate) struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// `None` where the kernel or the container does not allow one to be made.
    pub(crate) fn new(name: &str, bytes: u64) -> Option<Self> {
        let name = format!("wale-{name}-{}", std::process::id());
        let places = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        places.into_iter().find_map(|(root, limit)| {
            let place = Path::new(root).join(&name);
            std::fs::create_dir(&place).ok()?;
            let made = Self(place);
            std::fs::write(made.0.join(limit), bytes.to_string()).ok()?;
            // Swap would hide what the limit is there to show.
            let _ = std::fs::write(made.0.join("memory.swappiness"), "0");
            let _ = std::fs::write(made.0.join("memory.swap.max"), "0");
            Some(made)
        })
    }

    fn serve(&self, options: &SidecarOptions, log: &std::fs::File) -> Child {
        self.start(Path::new(WALE), &["serve"], options, log)
    }

    /// Starts a verb of `wale` in the group: a shell joins it and becomes the program.
    pub(crate) fn start(
        &self,
        wale: &Path,
        verb: &[&str],
        options: &SidecarOptions,
        log: &std::fs::File,
    ) -> Child {
        let wale = wale_command(&wale.to_string_lossy(), "wale", options);
        let environment = wale
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        Command::new("sh")
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.0.join("cgroup.procs"))
            .arg(wale.get_program())
            .args(wale.get_args())
            .args(verb)
            .env_clear()
            .envs(environment)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap()
    }

    /// How many processes of the group the kernel has killed because memory was short.
    pub(crate) fn killed(&self) -> u64 {
        ["memory.oom_control", "memory.events"]
            .into_iter()
            .filter_map(|name| std::fs::read_to_string(self.0.join(name)).ok())
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
            .sum()
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// The program in the group; killed when dropped, before the group goes.
pub(crate) struct Limited {
    pub(crate) child: Child,
    pub(crate) group: MemoryLimit,
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn peak_kib(pid: u32) -> u64 {
    kib(pid, "VmHWM").expect("it runs")
}

/// `None` of a process that has ended, though nobody has waited for it yet.
pub(crate) fn kib(pid: u32, what: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what))?;
    line.split_whitespace().nth(1).unwrap().parse().ok()
}

/// Eight pushes of 16 MiB side by side, twice, with every codec, under a limit of 64 MiB: all are stored, nothing is
/// killed, and what the process itself holds stays below the limit.
#[test]
fn fault_14_eight_pushes_at_once_stay_within_64_mib() {
    let cluster = ClusterOptions {
        configuration: vec!["wal_keep_size = '1GB'".into()],
        ..ClusterOptions::default()
    };
    let stage = Stage::with("memory", &cluster, |options| options);
    let pg = &stage.cluster;
    pg.sql("create table t (v text)");
    let segments: Vec<String> = (0..16)
        .map(|_| {
            pg.sql("insert into t select md5(random()::text) || md5(random()::text) from generate_series(1, 40000)");
            pg.switch_wal()
        })
        .collect();
    pg.wait_archived();
    let Some(group) = MemoryLimit::new("14", LIMIT) else {
        return skip(
            "fault_14",
            "no control group with a memory limit can be made here",
        );
    };
    let mut log = tempfile::tempfile().unwrap();
    let archive = stage.sandbox.folder("limited");
    let port = free_port();
    let mut options = stage
        .options
        .clone()
        .set("WALE_FILE_PREFIX", &format!("file://{}", archive.display()))
        .set("WALE_LISTEN_PORT", &port.to_string())
        .set("WALE_MEMORY", "64MiB");
    options.port = port;
    let limited = Limited {
        child: group.serve(&options, &log),
        group,
    };
    wait_until("the sidecar to listen", Duration::from_secs(30), || {
        get(port, "/ping").ok()
    });
    for round in segments.chunks(8) {
        let answers: Vec<u16> = std::thread::scope(|scope| {
            let clients: Vec<_> = round
                .iter()
                .map(|name| scope.spawn(move || get(port, &format!("/wal-push/{name}"))))
                .collect();
            let answers = clients.into_iter().map(|client| client.join().unwrap());
            answers
                .map(|reply| reply.map_or(0, |reply| reply.status))
                .collect()
        });
        let mut text = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut text).unwrap();
        assert_eq!(answers, [200; 8], "{text}");
    }
    for name in &segments {
        let reply = get(port, &format!("/wal/{name}")).unwrap();
        let local = std::fs::read(pg.wal.join(name)).unwrap();
        assert!(reply.status == 200 && reply.body == local, "{name}");
    }
    assert_eq!(limited.group.killed(), 0);
    let peak = peak_kib(limited.child.id());
    println!("peak {peak} KiB");
    assert!(peak < LIMIT / 1024, "{peak} KiB");
}

/// Row 88: a neighbour asks 200 times at once, again and again, for one segment: nothing is killed, and what the process
/// holds stays below the limit of its container, and below twice what it was told.
#[test]
fn fault_88_two_hundred_requests_at_once_stay_within_256_mib() {
    const FLOOD_LIMIT: u64 = 256 << 20;
    let stage = Stage::with("flood", &ClusterOptions::default(), |options| options);
    let pg = &stage.cluster;
    pg.sql("create table t as select g, md5(random()::text) m from generate_series(1, 200000) g");
    let name = pg.switch_wal();
    pg.wait_archived();
    let Some(group) = MemoryLimit::new("88", FLOOD_LIMIT) else {
        return skip(
            "fault_88",
            "no control group with a memory limit can be made here",
        );
    };
    let log = tempfile::tempfile().unwrap();
    let port = free_port();
    let mut options = stage
        .options
        .clone()
        .set("WALE_LISTEN_PORT", &port.to_string())
        .set("WALE_MEMORY", "128MiB");
    options.port = port;
    let limited = Limited {
        child: group.serve(&options, &log),
        group,
    };
    wait_until("the sidecar to listen", Duration::from_secs(60), || {
        get(port, "/ping").ok()
    });
    let path = format!("/wal/{name}");
    let served: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..200)
            .map(|_| scope.spawn(|| (0..3).filter(|_| asked(port, &path)).count()))
            .collect();
        let served = clients.into_iter().map(|client| client.join().unwrap());
        served.sum()
    });
    assert_eq!(limited.group.killed(), 0);
    let peak = peak_kib(limited.child.id());
    println!("{served} of 600 were served, peak {peak} KiB");
    assert!(served > 0 && peak < FLOOD_LIMIT / 1024, "{peak} KiB");
    assert_eq!(get(port, "/ping").unwrap().status, 200);
}

/// Whether the whole file came; the rest are told to come again.
fn asked(port: u16, path: &str) -> bool {
    get(port, path).is_ok_and(|reply| reply.status == 200 && !reply.body.is_empty())
}

/// Row 91: what one base backup leaves behind is not left behind by each: after eight of them the process is as large as
/// after two.
#[test]
fn fault_91_memory_after_eight_base_backups_is_as_after_two() {
    let stage = Stage::with("backups", &ClusterOptions::default(), |options| options);
    stage
        .cluster
        .sql("do $$ begin for i in 1..1500 loop execute format('create table t%s (a int)', i); end loop; end $$");
    let take = |count: usize| {
        for _ in 0..count {
            let reply = stage.sidecar.get("/backup-push");
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        rss_kib(stage.sidecar.pid())
    };
    let two = take(2);
    let eight = take(6);
    println!("after two {two} KiB, after eight {eight} KiB");
    // 16 MiB for what differs by chance: a page of an arena here, a thread more there.
    assert!(eight < two + (16 << 10), "{two} KiB, then {eight} KiB");
    assert!(eight < 96 << 10, "{eight} KiB");
}

fn rss_kib(pid: u32) -> u64 {
    kib(pid, "VmRSS").expect("it runs")
}
