//! WAL that changes hands: `wale client fetch` takes files beside `pg_wal` that the sidecar made, without their bytes being sent. Real
//! servers recover so; either side dies in the middle; the volume is not shared, or full.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use wale_testkit::{Cluster, Sidecar, SidecarOptions, get, shell, wait_until, wale_command};

use crate::faults_disk::{SmallDisk, can_mount};
use crate::support::{Stage, WALE, fingerprint, on_every_major};

const LONG: Duration = Duration::from_secs(120);

/// A folder for the server's `PATH` in which there is `wale`.
fn programs(stage: &Stage) -> PathBuf {
    let folder = stage.sandbox.folder("programs");
    let real = wale_command(WALE, "wale", &stage.options);
    let real = real.get_args().last().unwrap_or_else(|| real.get_program());
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", real.display());
    std::fs::write(folder.join("wale"), script).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.join("wale"), mode).unwrap();
    folder
}

/// Table `t` over several segments, archived after a base backup. The name of the last segment.
fn write_wal(stage: &Stage) -> String {
    let primary = &stage.cluster;
    primary.sql("create table t (id int, v int)");
    stage.backup();
    let mut last = String::new();
    for round in 0..6 {
        primary.sql(&format!(
            "insert into t select {round}, g from generate_series(1, 500) g"
        ));
        last = primary.switch_wal();
    }
    primary.wait_archived();
    last
}

/// How many files a sidecar has handed over, and how many it has sent.
fn counted(port: u16) -> (u64, u64) {
    let text = get(port, "/metrics").unwrap().text();
    let of = |outcome: &str| {
        let start = format!("wale_wal_fetches_total{{outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.expect("it counts them").parse().unwrap()
    };
    (of("handed-over"), of("found"))
}

fn recovered(cluster: &Cluster, all: &str, what: &str) {
    cluster.configure(&["archive_mode = off".into()]);
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(fingerprint(cluster, "t"), all, "{what}");
    assert!(!cluster.wal.join(".wale").exists(), "{what}");
}

/// Its own sidecar hands the segments over, also as root; another server's sends them.
#[test]
fn a_server_recovers_by_files_that_change_hands_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("handed{major}"), major);
        write_wal(&stage);
        let all = fingerprint(&stage.cluster, "t");
        let path = programs(&stage);
        for (name, as_postgres) in [("same", true), ("root", false)] {
            let (mut cluster, options) = stage.restore_options(name, "");
            let mut options = options.set("WALE_RESTORE_CLIENT", "wale");
            options.as_postgres = as_postgres;
            cluster.path_prefix = Some(path.clone());
            let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
            sidecar.wait_ready(LONG);
            recovered(&cluster, &all, name);
            let (handed, _) = counted(sidecar.port);
            assert!(handed >= 6, "{name}: {handed} of PostgreSQL {major}");
        }
        let (mut cluster, options) = stage.restore_options("bytes", "");
        let options = options.set("WALE_RESTORE_CLIENT", "wale");
        cluster.path_prefix = Some(path);
        let own = Sidecar::start(&stage.sandbox, WALE, &options);
        own.wait_ready(LONG);
        shell(&format!(
            "sed -i 's/:{}/:{2}/' {1}/postgresql.auto.conf {1}/recovery.conf 2>/dev/null || true",
            own.port,
            cluster.data.display(),
            stage.sidecar.port,
        ));
        recovered(&cluster, &all, "another's");
        let (handed, sent) = counted(stage.sidecar.port);
        assert!(
            handed == 0 && sent >= 6,
            "{handed}, {sent}: PostgreSQL {major}"
        );
        assert!(!stage.cluster.wal.join(".wale").exists());
    });
}

/// A server that is to recover and was not started, and its sidecar.
struct Waiting {
    stage: Stage,
    cluster: Cluster,
    options: SidecarOptions,
    sidecar: Sidecar,
    faults: PathBuf,
    segment: String,
}

impl Waiting {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name, 15);
        let segment = write_wal(&stage);
        let faults = stage.sandbox.path().join("faults");
        std::fs::write(&faults, "").unwrap();
        let (cluster, options) = stage.restore_options("copy", "");
        let options = options
            .set("WALE_FAULT_CONTROL", &faults.to_string_lossy())
            .set("WALE_FETCH_DEADLINE", "10min");
        let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
        sidecar.wait_ready(LONG);
        Self {
            stage,
            cluster,
            options,
            sidecar,
            faults,
            segment,
        }
    }

    fn destination(&self) -> PathBuf {
        self.cluster.wal.join("RECOVERYXLOG")
    }

    /// PostgreSQL's command for the last segment.
    fn client(&self) -> Child {
        let mut command = wale_command(WALE, "wale", &self.options);
        command
            .args(["client", "fetch", &self.segment])
            .arg(self.destination())
            .stdin(Stdio::null());
        command.spawn().unwrap()
    }

    /// A client that has asked and waits, since the store does not answer.
    fn waiting_client(&self) -> Child {
        std::fs::write(&self.faults, "get key=wal_005/ hang").unwrap();
        let client = self.client();
        wait_until("the client's place", LONG, || {
            let places = std::fs::read_dir(self.cluster.wal.join(".wale")).ok()?;
            (places.count() == 1).then_some(())
        });
        client
    }

    fn fetches(&self) {
        std::fs::write(&self.faults, "").unwrap();
        assert!(self.client().wait().unwrap().success());
        let found = std::fs::read(self.destination()).unwrap();
        let origin = std::fs::read(self.stage.cluster.wal.join(&self.segment)).unwrap();
        assert!(found == origin, "the bytes differ");
        std::fs::remove_file(self.destination()).unwrap();
        assert!(!self.left().exists());
    }

    fn left(&self) -> PathBuf {
        self.cluster.wal.join(".wale")
    }
}

fn gone(path: &Path) {
    wait_until("nothing to be left", LONG, || {
        (!path.exists()).then_some(())
    });
}

/// Either side is killed while a file changes hands. Recovery stops, and nothing is left beside its WAL.
#[test]
fn a_side_that_dies_leaves_nothing_beside_the_wal() {
    let mut waiting = Waiting::new("hand-over-dies");
    waiting.fetches();
    assert_eq!(counted(waiting.sidecar.port).0, 1);

    // The sidecar: its client removes its place itself.
    let mut client = waiting.waiting_client();
    waiting.sidecar.kill();
    assert_eq!(client.wait().unwrap().code(), Some(255));
    assert!(!waiting.destination().exists() && !waiting.left().exists());

    // The client: the next request finds what it left, then a sidecar that starts, then one that stops.
    std::fs::write(&waiting.faults, "").unwrap();
    waiting.sidecar = Sidecar::start(&waiting.stage.sandbox, WALE, &waiting.options);
    waiting.sidecar.wait_ready(LONG);
    let die = |waiting: &Waiting| {
        let mut client = waiting.waiting_client();
        client.kill().unwrap();
        client.wait().unwrap();
        assert!(waiting.left().exists());
    };
    die(&waiting);
    waiting.fetches();
    die(&waiting);
    waiting.sidecar.kill();
    assert!(waiting.left().exists());
    waiting.sidecar = Sidecar::start(&waiting.stage.sandbox, WALE, &waiting.options);
    gone(&waiting.left());
    waiting.sidecar.wait_ready(LONG);
    die(&waiting);
    waiting.sidecar.terminate();
    gone(&waiting.left());
    waiting.sidecar.wait_exit(LONG);
}

/// Nothing can be written beside the WAL, neither by the sidecar nor by the client: recovery stops, and goes on when there is room.
#[test]
fn a_full_wal_volume_stops_the_recovery_and_nothing_is_left_there() {
    if !can_mount("hand_over_full") {
        return;
    }
    let waiting = Waiting::new("hand-over-full");
    let wal = waiting.cluster.wal.clone();
    let disk = SmallDisk::mount(&wal, "size=8m");
    assert_eq!(waiting.client().wait().unwrap().code(), Some(255));
    assert_eq!(std::fs::read_dir(&wal).unwrap().count(), 0);
    shell(&format!("mount -o remount,size=64m {}", wal.display()));
    waiting.fetches();
    assert_eq!(counted(waiting.sidecar.port).0, 1);
    drop(disk);
}
