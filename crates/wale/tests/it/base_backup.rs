//! Base backups and their restores: under write load, with tablespaces and a WAL directory of its own,
//! damaged pages, owners and modes, several codecs in one archive.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use wale_testkit::{ClusterOptions, Sidecar, client_tool, run, run_as_postgres, shell, wait_until};

use crate::support::{Stage, WALE, amcheck, fingerprint, majors, under_write_load, verify};

#[test]
fn a_backup_under_write_load_restores_verified_and_passes_amcheck_on_every_major() {
    for major in majors() {
        let stage = Stage::new(&format!("load{major}"), major);
        let pg = &stage.cluster;
        pg.sql("create table t (id int, v int); create index on t (id)");
        pg.sql("insert into t select g, g from generate_series(1, 50000) g");
        pg.sql("create unlogged table u as select g from generate_series(1, 1000) g");
        let report = under_write_load(pg, || {
            pg.sql("select pg_sleep(1)");
            stage.backup();
            stage.backup()
        });
        assert!(!report.stderr.contains("panicked"), "{}", report.stderr);
        let noted = fingerprint(pg, "t");
        pg.switch_wal();
        pg.wait_archived();
        let backups = stage.sidecar.get("/backups").json();
        assert_eq!(backups.as_array().map(Vec::len), Some(2), "{backups}");

        let plain = stage.fetch("plain", &[]);
        verify(&plain.data);

        let (restored, _sidecar) = stage.restore("restored", "", &["archive_mode = off".into()]);
        restored.start();
        restored.wait_promoted();
        assert_eq!(fingerprint(&restored, "t"), noted, "PostgreSQL {major}");
        assert_eq!(
            restored.sql("select count(*) from u"),
            "0",
            "unlogged tables come back empty"
        );
        amcheck(&restored);
        if major >= 14 {
            let port = restored.port.to_string();
            let socket = restored.socket.to_string_lossy().into_owned();
            let options = [
                "-h",
                &socket,
                "-p",
                &port,
                "-U",
                "postgres",
                "-d",
                "postgres",
                "--heapallindexed",
            ];
            run_as_postgres(&client_tool("pg_amcheck"), &options);
        }
        restored.stop("fast");
        if major == 15 {
            let data = restored.data.to_string_lossy().into_owned();
            run_as_postgres(&client_tool("pg_checksums"), &["--check", "-D", &data]);
        }
    }
}

/// The digests of the files in a place.
fn digests(place: &Path) -> String {
    shell(&format!(
        "cd '{}' && find . -type f | xargs -d '\\n' md5sum",
        place.display()
    ))
}

#[test]
fn tablespaces_and_a_wal_directory_of_its_own_are_restored_elsewhere_on_every_major() {
    for major in majors() {
        let options = ClusterOptions {
            major,
            separate_wal: true,
            configuration: vec!["allow_in_place_tablespaces = on".into()],
            ..ClusterOptions::default()
        };
        let stage = Stage::with(&format!("space{major}"), &options, |options| options);
        let pg = &stage.cluster;
        let place = stage.sandbox.folder("space one");
        pg.sql(&format!(
            "create tablespace one location '{}'",
            place.display()
        ));
        pg.sql("create table t (v int) tablespace one");
        pg.sql("insert into t select generate_series(1, 1000)");
        // A folder in pg_tblspc instead of a link.
        pg.sql("create tablespace inplace location ''");
        pg.sql("create table i tablespace inplace as select generate_series(1, 700) v");
        stage.backup();
        pg.sql("insert into t select generate_series(1, 500); insert into i select 0");
        let noted = [fingerprint(pg, "t"), fingerprint(pg, "i")];
        pg.switch_wal();
        pg.wait_archived();

        let elsewhere = stage.sandbox.folder("space two");
        let mapping = format!("{}={}", place.display(), elsewhere.display());
        let plain = stage.fetch("plain", &["-T", &mapping]);
        verify(&plain.data);
        let oid = pg.sql("select oid from pg_tablespace where spcname = 'one'");
        let link = std::fs::read_link(plain.data.join("pg_tblspc").join(&oid)).unwrap();
        assert_eq!(link, elsewhere);
        let map = std::fs::read_to_string(plain.data.join("tablespace_map")).unwrap();
        assert!(
            map.contains("space two") && !map.contains("space one"),
            "{map}"
        );
        std::fs::remove_dir_all(&plain.data).unwrap();
        shell(&format!("rm -rf '{}'/*", elsewhere.display()));

        // The sidecar's RESTORE, with the WAL directory on another volume.
        let wal = stage.sandbox.folder("restored-wal");
        let (cluster, options) = stage.restore_options("restored", "");
        let options = options
            .set("PGWAL", &wal.to_string_lossy())
            .set("WALE_TABLESPACE_MAPPING", &mapping);
        let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
        sidecar.wait_ready(Duration::from_secs(60));
        assert_eq!(
            std::fs::read_link(cluster.data.join("pg_wal")).unwrap(),
            wal
        );
        cluster.configure(&["archive_mode = off".into()]);
        let origin = digests(&place);
        pg.stop("fast");
        cluster.start();
        cluster.wait_promoted();
        let found = [fingerprint(&cluster, "t"), fingerprint(&cluster, "i")];
        assert_eq!(found, noted, "PostgreSQL {major}");
        cluster.sql("insert into t values (1)");
        cluster.sql("checkpoint");
        let after = digests(&place);
        assert_eq!(
            origin.lines().count(),
            after.lines().count(),
            "the origin's tablespace is not the restored one's"
        );
    }
}

/// Owner and modes: the images run PostgreSQL as uid 70, 999 or 1000.
#[test]
fn a_restore_by_root_belongs_to_the_owner_of_the_target() {
    if !rustix::process::geteuid().is_root() {
        wale_testkit::skip(
            "a_restore_by_root_belongs_to_the_owner_of_the_target",
            "not root",
        );
        return;
    }
    let stage = Stage::new("owner", 15);
    stage.backup();
    for uid in [70, 999, 1000] {
        let target = stage.sandbox.path().join(format!("data-{uid}"));
        shell(&format!(
            "mkdir -m 0700 {0} && chown {uid}:{uid} {0}",
            target.display()
        ));
        let mut options = stage.options.clone();
        options.as_postgres = false;
        let exit = wale_testkit::wale_command(WALE, "wale", &options)
            .args(["backup-fetch", &target.to_string_lossy(), "LATEST"])
            .output()
            .unwrap();
        assert!(
            exit.status.success(),
            "{}",
            String::from_utf8_lossy(&exit.stderr)
        );
        let odd = run(
            "find",
            &[&target.to_string_lossy(), "!", "-uid", &uid.to_string()],
        );
        assert_eq!(odd, "", "uid {uid}");
        let odd = run(
            "find",
            &[
                &target.to_string_lossy(),
                "(",
                "-type",
                "f",
                "!",
                "-perm",
                "600",
                ")",
                "-o",
                "(",
                "-type",
                "d",
                "!",
                "-perm",
                "700",
                ")",
            ],
        );
        assert_eq!(odd, "", "uid {uid}");
        assert_eq!(std::fs::metadata(&target).unwrap().mode() & 0o7777, 0o700);
    }
}

/// A page that fails its checksum and is older than the backup's start.
#[test]
fn a_damaged_page_is_told_and_recorded_or_fails_the_backup_by_policy() {
    let stage = Stage::new("damage", 15);
    let pg = &stage.cluster;
    pg.sql("create table t as select g, repeat('x', 500) from generate_series(1, 1000) g");
    let path = pg.sql("select pg_relation_filepath('t')");
    pg.stop("fast");
    let file = pg.data.join(&path);
    // One byte in the middle of block 2.
    shell(&format!(
        "printf '\\377' | dd of={} bs=1 seek=$((2 * 8192 + 5000)) conv=notrunc status=none",
        file.display()
    ));
    pg.start();
    let exit = stage.backup();
    assert!(
        exit.stderr.contains(&path) && exit.stderr.contains("checksum"),
        "{}",
        exit.stderr
    );
    let data = pg.data.to_string_lossy().into_owned();
    let strict = stage.options.clone().set("WALE_DAMAGED_PAGES", "fail");
    let output = wale_testkit::wale_command(WALE, "wale", &strict)
        .args(["backup-push", &data])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(65), "{stderr}");
    assert!(stderr.contains(&path), "{stderr}");
    let backups = stage.sidecar.get("/backups").json();
    assert_eq!(backups.as_array().map(Vec::len), Some(1), "{backups}");
}

#[test]
fn three_codecs_lie_in_one_archive_and_all_restore() {
    let mut stage = Stage::new("codecs", 15);
    stage
        .cluster
        .sql("create table t as select g from generate_series(1, 1000) g");
    let data = stage.cluster.data.to_string_lossy().into_owned();
    for (codec, extension) in [("none", ""), ("lz4", ".lz4"), ("zstd", ".zst")] {
        let options = stage.options.clone().set("WALE_COMPRESSION", codec);
        stage.sidecar.kill();
        stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
        let exit = stage.sidecar.verb(WALE, "wale", &["backup-push", &data]);
        assert_eq!(exit.code(), 0, "{codec}: {}", exit.stderr);
        stage.cluster.sql("insert into t values (0)");
        let segment = stage.cluster.switch_wal();
        stage.cluster.wait_archived();
        let object = stage
            .archive()
            .join(format!("wal_005/{segment}{extension}"));
        assert!(object.exists(), "{}", object.display());
        assert_eq!(stage.sidecar.get(&format!("/wal/{segment}")).status, 200);
    }
    let list = stage.sidecar.verb(WALE, "wal-e", &["backup-list"]);
    let listed: Vec<&str> = list
        .stdout
        .lines()
        .skip(1)
        .filter_map(|line| line.split('\t').next())
        .collect();
    assert_eq!(listed.len(), 3, "{}", list.stdout);
    for name in listed {
        let target = stage.sandbox.folder(&format!("target-{name}"));
        let path = target.to_string_lossy().into_owned();
        let exit = stage
            .sidecar
            .verb(WALE, "wal-e", &["backup-fetch", &path, name]);
        assert_eq!(exit.code(), 0, "{}", exit.stderr);
        verify(&target);
    }
    // The oldest backup, and WAL under three extensions.
    let oldest = stage.sidecar.get("/backups").json()[0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    stage.options = stage.options.clone().set("WALE_RESTORE_LABEL", &oldest);
    let (restored, _sidecar) = stage.restore("mixed", "", &["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(restored.sql("select count(*) from t"), "1003");
}

/// The sentinel is the last word: it waits until every segment from the start to the stop is stored.
#[test]
fn a_backup_is_listed_only_when_its_wal_is_in_the_archive() {
    let mut stage = Stage::new("walwait", 15);
    stage.backup();
    stage.sidecar.kill();
    let data = stage.cluster.data.to_string_lossy().into_owned();
    let mut verb = wale_testkit::wale_command(WALE, "wale", &stage.options)
        .args(["backup-push", &data])
        .spawn()
        .unwrap();
    let count = |pattern: &str| {
        let archive = stage.archive();
        shell(&format!(
            "find {} -name '{pattern}' | wc -l",
            archive.display()
        ))
        .trim()
        .to_owned()
    };
    wait_until("the second manifest", Duration::from_secs(60), || {
        (count("backup_manifest") == "2").then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        count("*sentinel.json"),
        "1",
        "nothing archives: the backup must wait"
    );
    assert!(verb.try_wait().unwrap().is_none());
    stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
    assert!(verb.wait().unwrap().success());
    assert_eq!(
        stage
            .sidecar
            .get("/backups")
            .json()
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[test]
fn the_route_takes_a_backup_and_answers_when_it_is_complete() {
    let stage = Stage::new("route", 15);
    stage
        .cluster
        .sql("create table t as select g from generate_series(1, 100000) g");
    let reply = stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let started = stage.sidecar.get("/backup-push?wait=false");
    assert_eq!(started.status, 202, "{}", started.text());
    wait_until("the second backup", Duration::from_secs(60), || {
        (stage.sidecar.get("/backups").json().as_array()?.len() == 2).then_some(())
    });
}

/// What stands in a backup's way is named over HTTP and by the verb alike, with what to do.
#[test]
fn a_backup_that_cannot_begin_names_the_object_and_the_remedy() {
    let stage = Stage::new("named", 15);
    let root = stage.cluster.data.join("root.file");
    std::fs::write(&root, "x").unwrap();
    shell(&format!("chown root {0} && chmod 600 {0}", root.display()));
    let told = stage.sidecar.get("/backup-push").text();
    assert!(told.contains("\"root.file\""), "{told}");
    assert!(told.contains("hint: no base backup was made"), "{told}");
    std::fs::remove_file(&root).unwrap();
    stage.cluster.stop("immediate");
    let told = stage.sidecar.get("/backup-push").text();
    assert!(told.contains("could not reach the server at "), "{told}");
}
