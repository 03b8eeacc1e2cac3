//! The fault battery, rows 15 to 21, 55 and 68: full disks, volumes that are taken away, vanished and damaged files, unreadable pages,
//! targets that must not be restored into.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wale_testkit::{
    ClusterOptions, Exit, Sidecar, free_port, run, shell, skip, wait_until, wale_command,
};

use crate::support::{Stage, WALE};

const LONG: Duration = Duration::from_secs(120);

/// A file system in memory of a few MiB, unmounted when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(path: &Path, options: &str) -> Self {
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                options,
                "tmpfs",
                &path.to_string_lossy(),
            ],
        );
        shell(&format!(
            "chown postgres:postgres {0} && chmod 700 {0}",
            path.display()
        ));
        Self(path.to_owned())
    }

    /// What is mounted at `from`, also at `path`.
    fn mount_again(from: &Path, path: &Path) -> Self {
        let [from, place] = [from, path].map(|path| path.to_string_lossy().into_owned());
        run("mount", &["--bind", &from, &place]);
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

pub(crate) fn can_mount(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "only root can mount a small file system");
    }
    root
}

fn leftovers(folder: &Path) -> String {
    shell(&format!("find {} -name '*tmp*'", folder.display()))
}

/// Segments of 1 MiB, so that small disks hold some.
fn small_segments(name: &str) -> Stage {
    let cluster = ClusterOptions {
        segment_mib: 1,
        ..ClusterOptions::default()
    };
    Stage::with(name, &cluster, |options| {
        options.set("WALE_COMPRESSION", "none")
    })
}

#[test]
fn fault_15_a_full_wal_volume_does_not_stop_archiving() {
    if !can_mount("fault_15") {
        return;
    }
    let stage = small_segments("fullwal");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let bytes = stage.cluster.wal.join(&segment);
    let place = stage.sandbox.folder("small");
    let _disk = SmallDisk::mount(&place, "size=1088k");
    shell(&format!("cp {} {}", bytes.display(), place.display()));
    shell(&format!(
        "dd if=/dev/zero of={}/filler bs=1k 2>/dev/null || true",
        place.display()
    ));
    shell(&format!("chown postgres {}/*", place.display()));
    let archive = stage.sandbox.folder("other-archive");
    let options = stage
        .options
        .clone()
        .set("PGWAL", &place.to_string_lossy())
        .set("WALE_FILE_PREFIX", &format!("file://{}", archive.display()));
    let file = place.join(&segment).to_string_lossy().into_owned();
    let output = wale_command(WALE, "wale", &options)
        .args(["wal-push", &file])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn fault_16_a_full_archive_is_507_leaves_nothing_and_recovers() {
    if !can_mount("fault_16") {
        return;
    }
    let stage = small_segments("fullarchive");
    let first = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let place = stage.sandbox.folder("small");
    let _disk = SmallDisk::mount(&place, "size=600k");
    let port = wale_testkit::free_port();
    let mut options = stage
        .options
        .clone()
        .set("WALE_FILE_PREFIX", &format!("file://{}", place.display()))
        .set("WALE_LISTEN_PORT", &port.to_string());
    options.port = port;
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    let reply = sidecar.get(&format!("/wal-push/{first}"));
    assert_eq!(reply.status, 507, "{}", reply.text());
    assert_eq!(
        shell(&format!(
            "find {} -path '*wal_005/*' -type f",
            place.display()
        )),
        ""
    );
    assert_eq!(leftovers(&place), "");
    run(
        "mount",
        &["-o", "remount,size=8m", &place.to_string_lossy()],
    );
    let reply = sidecar.get(&format!("/wal-push/{first}"));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn fault_18_a_file_that_vanished_is_a_clear_error() {
    let stage = Stage::new("vanished", 15);
    let name = "0000000100000000000000AA";
    std::fs::write(
        stage
            .cluster
            .wal
            .join(format!("archive_status/{name}.ready")),
        "",
    )
    .unwrap();
    let reply = stage.sidecar.get(&format!("/wal-push/{name}"));
    assert_eq!(reply.status, 404, "{}", reply.text());
    assert!(reply.text().contains(name), "{}", reply.text());
    std::fs::remove_file(
        stage
            .cluster
            .wal
            .join(format!("archive_status/{name}.ready")),
    )
    .unwrap();
}

/// What is done to a good segment.
type Damage = Box<dyn Fn(&mut Vec<u8>)>;

#[test]
fn fault_19_a_damaged_segment_is_refused_with_the_reason() {
    let stage = Stage::new("damaged", 15);
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let good = std::fs::read(stage.cluster.wal.join(&segment)).unwrap();
    let name = "0000000100000000000000AB";
    let cases: [(&str, Damage); 5] = [
        ("truncated", Box::new(|bytes| bytes.truncate(1_000_000))),
        ("all zeros", Box::new(|bytes| bytes.fill(0))),
        ("wrong magic", Box::new(|bytes| bytes[0] ^= 0xFF)),
        ("another position", Box::new(|_| ())),
        ("empty", Box::new(Vec::clear)),
    ];
    let ready = stage
        .cluster
        .wal
        .join(format!("archive_status/{name}.ready"));
    for (what, damage) in cases {
        let mut bytes = good.clone();
        damage(&mut bytes);
        std::fs::write(stage.cluster.wal.join(name), &bytes).unwrap();
        shell(&format!(
            "chown postgres {}",
            stage.cluster.wal.join(name).display()
        ));
        // After its segment: the server takes a `.ready` away whose segment is not there.
        std::fs::write(&ready, "").unwrap();
        let reply = stage.sidecar.get(&format!("/wal-push/{name}"));
        assert_eq!(reply.status, 500, "{what}: {}", reply.text());
        assert!(
            reply.text().lines().count() >= 2,
            "{what}: {}",
            reply.text()
        );
        assert_eq!(
            shell(&format!(
                "find {} -name '*{name}*'",
                stage.archive().display()
            )),
            ""
        );
    }
    std::fs::remove_file(ready).unwrap();
    std::fs::remove_file(stage.cluster.wal.join(name)).unwrap();
}

/// An I/O error under the program: a preloaded library makes reads of one relation file fail.
#[test]
fn fault_20_a_page_that_cannot_be_read_fails_the_backup_by_name() {
    let stage = Stage::new("eio", 15);
    let pg = &stage.cluster;
    pg.sql("create table t as select g, repeat('x', 500) from generate_series(1, 5000) g");
    pg.sql("checkpoint");
    let path = pg.sql("select pg_relation_filepath('t')");
    let folder = stage.sandbox.folder("shim");
    let source = folder.join("eio.c");
    std::fs::write(&source, EIO_SHIM).unwrap();
    let library = folder.join("eio.so");
    run(
        "gcc",
        &[
            "-shared",
            "-fPIC",
            "-O1",
            "-o",
            &library.to_string_lossy(),
            &source.to_string_lossy(),
            "-ldl",
        ],
    );
    shell(&format!(
        "chmod 755 {0} && chmod 644 {0}/*",
        folder.display()
    ));
    let data = pg.data.to_string_lossy().into_owned();
    let options = stage
        .options
        .clone()
        .set("LD_PRELOAD", &library.to_string_lossy())
        .set("EIO_PATH", &format!("{data}/{path}"));
    let output = wale_command(WALE, "wale", &options)
        .args(["backup-push", &data])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains(&path), "{stderr}");
    assert_eq!(
        stage
            .sidecar
            .get("/backups")
            .json()
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    // The start of the backup closed a segment: until that is archived, the sidecar has a temporary file of its own.
    pg.wait_archived();
    assert_eq!(leftovers(&stage.archive()), "");
    stage.backup();
}

/// Fails `read` and `pread` on the file `EIO_PATH` from 64 KiB on.
const EIO_SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int bad(int fd, off_t at, size_t n) {
  char link[64], path[4096];
  const char *want = getenv("EIO_PATH");
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (!want || length < 0) return 0;
  path[length] = 0;
  return strcmp(path, want) == 0 && at + (off_t)n > 65536;
}
ssize_t read(int fd, void *to, size_t n) {
  static ssize_t (*real)(int, void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "read");
  if (bad(fd, lseek(fd, 0, SEEK_CUR), n)) { errno = EIO; return -1; }
  return real(fd, to, n);
}
ssize_t pread64(int fd, void *to, size_t n, off_t at) {
  static ssize_t (*real)(int, void *, size_t, off_t);
  if (!real) real = dlsym(RTLD_NEXT, "pread64");
  if (bad(fd, at, n)) { errno = EIO; return -1; }
  return real(fd, to, n, at);
}
"#;

fn fetch_into(stage: &Stage, target: &Path, arguments: &[&str]) -> Exit {
    let path = target.to_string_lossy().into_owned();
    let mut all = vec!["backup-fetch"];
    all.extend_from_slice(arguments);
    all.extend([path.as_str(), "LATEST"]);
    stage.sidecar.verb(WALE, "wale", &all)
}

#[test]
fn fault_21_a_target_that_cannot_hold_the_backup_fails_early_and_is_not_startable() {
    if !can_mount("fault_21") {
        return;
    }
    let stage = Stage::new("target", 15);
    stage.backup();
    let place = stage.sandbox.folder("small");
    for (options, what) in [("size=64m,nr_inodes=200", "inodes"), ("size=8m", "space")] {
        let disk = SmallDisk::mount(&place, options);
        let exit = fetch_into(&stage, &place, &[]);
        assert_ne!(exit.code(), 0, "{what}");
        assert!(
            exit.stderr.contains("DETAIL") || exit.stderr.contains("HINT"),
            "{what}: {}",
            exit.stderr
        );
        assert!(!place.join("global/pg_control").exists(), "{what}");
        drop(disk);
    }
    let disk = SmallDisk::mount(&place, "size=256m");
    run("mount", &["-o", "remount,ro", &place.to_string_lossy()]);
    let exit = fetch_into(&stage, &place, &[]);
    assert_ne!(exit.code(), 0, "read-only");
    assert!(
        exit.stderr.to_lowercase().contains("read-only"),
        "{}",
        exit.stderr
    );
    drop(disk);
}

#[test]
fn fault_55_a_directory_that_is_not_empty_or_runs_is_refused_before_any_write() {
    let stage = Stage::new("refuse", 15);
    let place = stage.sandbox.folder("space");
    stage.cluster.sql(&format!(
        "create tablespace s location '{}'",
        place.display()
    ));
    stage.cluster.sql("create table t (v int) tablespace s");
    stage.backup();

    let running = fetch_into(&stage, &stage.cluster.data, &[]);
    assert_eq!(running.code(), 73, "{}", running.stderr);
    assert!(stage.cluster.is_running());

    let full = stage.sandbox.folder("full");
    std::fs::write(full.join("precious"), "data").unwrap();
    let exit = fetch_into(&stage, &full, &[]);
    assert_eq!(exit.code(), 73, "{}", exit.stderr);
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);

    // The tablespace's place is that of the running server: not empty.
    let empty = stage.sandbox.folder("empty");
    let exit = fetch_into(&stage, &empty, &[]);
    assert_ne!(exit.code(), 0, "{}", exit.stderr);
    assert_eq!(
        std::fs::read_dir(&empty).unwrap().count(),
        0,
        "nothing was written"
    );
    assert_eq!(stage.cluster.sql("select count(*) from t"), "0");
}

/// The rest of row 55: nothing is written into a directory of another user, one without room for the backup, or beside
/// a tablespace whose place is missing.
#[test]
fn fault_55_another_user_too_little_space_or_a_missing_place_is_refused_before_any_write() {
    if !can_mount("fault_55_another_user") {
        return;
    }
    let stage = Stage::new("refuse55", 15);
    let place = stage.sandbox.folder("space");
    stage.cluster.sql(&format!(
        "create tablespace s location '{}'",
        place.display()
    ));
    stage.cluster.sql("create table t (v int) tablespace s");
    stage.backup();
    let elsewhere = stage.sandbox.folder("elsewhere");
    let mapping = format!("{}={}", place.display(), elsewhere.display());
    let mapped = ["--tablespace-mapping", mapping.as_str()];
    let assert_refused = |target: &Path, arguments: &[&str], code: i32, what: &str| {
        let exit = fetch_into(&stage, target, arguments);
        assert_eq!(exit.code(), code, "{what}: {}", exit.stderr);
        assert!(exit.stderr.contains("HINT"), "{what}: {}", exit.stderr);
        let left = shell(&format!(
            "find {} {} -mindepth 1",
            target.display(),
            elsewhere.display()
        ));
        assert_eq!(left, "", "{what}: something was written");
    };

    let foreign = stage.sandbox.folder("foreign");
    shell(&format!(
        "chown daemon:daemon {0} && chmod 777 {0}",
        foreign.display()
    ));
    assert_refused(&foreign, &mapped, 77, "another user's directory");

    let small = stage.sandbox.folder("small");
    let disk = SmallDisk::mount(&small, "size=8m");
    assert_refused(&small, &mapped, 74, "too little space");
    drop(disk);

    let empty = stage.sandbox.folder("empty");
    let missing = format!(
        "{}={}/PG_VERSION/place",
        place.display(),
        stage.cluster.data.display()
    );
    let arguments = ["--tablespace-mapping", missing.as_str()];
    assert_refused(&empty, &arguments, 73, "a place that cannot be");
    // One that can be made is made, as pg_basebackup makes it.
    let made = stage.sandbox.path().join("made/place");
    let mapping = format!("{}={}", place.display(), made.display());
    let exit = fetch_into(&stage, &empty, &["--tablespace-mapping", &mapping]);
    assert!(made.is_dir());
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
}

/// What a push that was cut off leaves in the archive's folder is never taken for WAL.
#[test]
fn a_half_written_object_of_a_dead_process_is_never_served() {
    let stage = Stage::new("residue", 15);
    stage.cluster.sql("create table t (v int)");
    let segment = stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let folder = stage.archive().join("wal_005");
    let next = "0000000100000000000000AC";
    let residue = std::fs::File::create(folder.join(format!(".{next}.zst.1.1.wale-tmp"))).unwrap();
    residue.write_all_at(b"half", 0).unwrap();
    assert_eq!(stage.sidecar.get(&format!("/wal/{next}")).status, 404);
    assert_eq!(
        stage.sidecar.get(&format!("/wal-absent/{next}")).status,
        200
    );
    assert_eq!(stage.sidecar.get(&format!("/wal/{segment}")).status, 200);
}

/// A stage whose archive is the mount point of a volume, and the mounts: the last is the archive's. It has a folder `below`,
/// and the folder that it covers has one, too.
fn on_a_volume(name: &str) -> (Stage, Vec<SmallDisk>) {
    let mut disks = Vec::new();
    let cluster = ClusterOptions {
        segment_mib: 1,
        configuration: vec!["wal_keep_size = '1GB'".into()],
        ..ClusterOptions::default()
    };
    let stage = Stage::with(name, &cluster, |options| {
        let prefix = &options.environment["WALE_FILE_PREFIX"];
        let place = PathBuf::from(prefix.trim_start_matches("file://"));
        let volume = place.with_file_name("volume");
        shell(&format!("mkdir {}", volume.display()));
        make_below(&place);
        disks.push(SmallDisk::mount(&volume, "size=64m"));
        disks.push(SmallDisk::mount_again(&volume, &place));
        make_below(&place);
        options.set("WALE_FETCH_DEADLINE", "1s")
    });
    (stage, disks)
}

fn make_below(place: &Path) {
    let below = place.join("below").display().to_string();
    shell(&format!("mkdir {below} && chown postgres: {below}"));
}

/// Row 68: the volume of an archive is taken away while two sidecars run: of one the archive is the mount point itself, of
/// the other a folder in it, and such a folder lies below the mount point, too. Both refuse, and say why, until it is back.
#[test]
fn fault_68_an_archive_whose_volume_is_taken_away_gets_nothing_until_it_is_back() {
    if !can_mount("fault_68") {
        return;
    }
    let (stage, mut disks) = on_a_volume("unmounted");
    let place = stage.archive();
    let below = place.join("below").display().to_string();
    let port = free_port();
    let mut options = stage.options.clone();
    options.port = port;
    let options = options
        .set("WALE_FILE_PREFIX", &format!("file://{below}"))
        .set("WALE_LISTEN_PORT", &port.to_string());
    let beside = Sidecar::start(&stage.sandbox, WALE, &options);
    let server = &stage.cluster;
    server.sql("create table t (i int)");
    let first = stage.archive_all();
    assert_eq!(beside.get(&format!("/wal-push/{first}")).status, 200);

    drop(disks.pop());
    server.sql("insert into t values (1)");
    let waiting = server.switch_wal();
    assert_refused(&stage, &beside, &waiting);
    wait_until("the server to be refused", LONG, || {
        let failed = server.sql("select last_failed_wal from pg_stat_archiver");
        (failed == waiting).then_some(())
    });
    let written = shell(&format!("find {} -mindepth 1", place.display()));
    assert_eq!(written.trim(), below);

    let volume = place.with_file_name("volume");
    disks.push(SmallDisk::mount_again(&volume, &place));
    stage.archive_all();
    for sidecar in [&stage.sidecar, &beside] {
        let pushed = sidecar.get(&format!("/wal-push/{waiting}"));
        assert_eq!(pushed.status, 200, "{}", pushed.text());
        for segment in [&first, &waiting] {
            let stored = sidecar.get(&format!("/wal/{segment}"));
            let own = std::fs::read(server.wal.join(segment)).unwrap();
            assert!(stored.status == 200 && stored.body == own, "{segment}");
        }
    }
    // The base backup that failed keeps readiness off until one is there.
    let taken = stage.sidecar.get("/backup-push");
    assert_eq!(taken.status, 200, "{}", taken.text());
    for sidecar in [&stage.sidecar, &beside] {
        wait_until("readiness to come back", LONG, || {
            (sidecar.get("/readyz").status == 200).then_some(())
        });
    }
}

/// Neither of the two takes the segment or is ready, and no base backup is taken.
fn assert_refused(stage: &Stage, beside: &Sidecar, segment: &str) {
    std::thread::scope(|scope| {
        // Each asks the store for some seconds before it gives up.
        scope.spawn(|| {
            let refused = stage.sidecar.get("/backup-push");
            assert_eq!(refused.status, 503, "{}", refused.text());
        });
        for (sidecar, reason) in [
            (&stage.sidecar, "no longer mounted"),
            (beside, "was there and is gone"),
        ] {
            for path in [&format!("/wal-push/{segment}"), "/readyz"] {
                let reply = sidecar.get(path);
                assert_eq!(reply.status, 503, "{path}: {}", reply.text());
                assert!(reply.text().contains(reason), "{path}: {}", reply.text());
            }
        }
    });
}
