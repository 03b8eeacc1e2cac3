//! Rows 80 to 82 and 93 of the fault battery: every byte of a cluster is in its backup and comes back, whatever its name
//! and wherever it lies; and nothing is written where nobody asked for it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use wale_testkit::{Cluster, ClusterOptions, shell, wait_until};

use crate::support::{Stage, WALE, fingerprint, verify};

#[test]
fn fault_80_a_tablespace_in_the_data_directory_comes_back_and_a_linked_database_fails_the_backup() {
    let stage = Stage::new("content80", 15);
    let pg = &stage.cluster;
    let inside = pg.data.join("my space");
    shell(&format!(
        "mkdir '{0}' && chown postgres '{0}'",
        inside.display()
    ));
    pg.sql(&format!(
        "create tablespace a location '{}'",
        inside.display()
    ));
    pg.sql("create table t tablespace a as select g as v from generate_series(1, 1000) g");
    pg.sql("create database big");
    stage.backup();
    pg.sql("insert into t select generate_series(1, 500)");
    stage.archive_all();
    let noted = fingerprint(pg, "t");

    let plain = stage.fetch("plain", &[]);
    let oid = pg.sql("select oid from pg_tablespace where spcname = 'a'");
    let link = std::fs::read_link(plain.data.join("pg_tblspc").join(&oid)).unwrap();
    assert_eq!(link, plain.data.join("my space"));
    // Beside the original that runs, and without any setting.
    let (restored, _sidecar) = stage.restore("restored", "", &["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(fingerprint(&restored, "t"), noted);
    let location = format!("select pg_tablespace_location({oid})");
    assert!(restored.sql(&location).ends_with("restored/my space"));
    assert_eq!(fingerprint(pg, "t"), noted);

    // The folder of a database on another disk, linked back: the server lives with it, a backup would lack it.
    let database = pg.sql("select oid from pg_database where datname = 'big'");
    let backups = || stage.sidecar.get("/backups").json();
    let before = backups();
    pg.stop("fast");
    let disk = stage.sandbox.folder("disk");
    shell(&format!(
        "cd {0}/base && mv {database} {1}/ && ln -s {1}/{database} {database}",
        pg.data.display(),
        disk.display()
    ));
    pg.start();
    let data = pg.data.to_string_lossy();
    let exit = stage.sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_ne!(exit.code(), 0);
    let named = format!("\"base/{database}\"");
    for told in [&*named, "symbolic link", "HINT"] {
        assert!(exit.stderr.contains(told), "{told}: {}", exit.stderr);
    }
    assert_eq!(backups(), before, "nothing new is listed");
}

/// A client that sends and shows bytes as they are.
fn psql(pg: &Cluster, database: &str) -> Command {
    let mut command = Command::new(wale_testkit::client_tool("psql"));
    command
        .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-U", "postgres"])
        .args(["-d", database, "-h"])
        .arg(&pg.socket)
        .args(["-p", &pg.port.to_string()])
        .env("PGCLIENTENCODING", "SQL_ASCII");
    command
}

#[test]
fn fault_81_names_in_any_encoding_come_back_and_a_locked_catalogue_holds_up_nothing() {
    let stage = Stage::new("content81", 15);
    let pg = &stage.cluster;
    let place = stage.sandbox.path().join(OsStr::from_bytes(b"ts\xe9"));
    let odd = pg.data.join(OsStr::from_bytes(b"caf\xe9.txt"));
    std::fs::create_dir(&place).unwrap();
    std::fs::write(&odd, b"odd").unwrap();
    let folder = stage.sandbox.path().display();
    shell(&format!(
        "chown postgres {folder}/ts* {}/caf*",
        pg.data.display()
    ));
    // What a database in another encoding stores in the shared catalogues, no UTF-8 database can show.
    pg.sql(
        "create database l1 encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'",
    );
    let script = stage.sandbox.path().join("odd.sql");
    let mut text = b"create database \"caf\xe9\"; create tablespace odd location '".to_vec();
    text.extend(place.as_os_str().as_bytes());
    text.extend(b"'; create table t tablespace odd as select g from generate_series(1, 1000) g;");
    std::fs::write(&script, &text).unwrap();
    let status = psql(pg, "l1").arg("-f").arg(&script).status().unwrap();
    assert!(status.success());

    // Somebody holds a lock on a catalogue that only serves the report.
    pg.sql("create database app");
    let mut holder = psql(pg, "app")
        .args(["-c", "begin; lock table pg_extension; select pg_sleep(600)"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the lock", Duration::from_secs(60), || {
        let held = "select count(*) from pg_locks where relation = 'pg_extension'::regclass
                    and mode = 'AccessExclusiveLock' and granted";
        (pg.sql(held) == "1").then_some(())
    });
    let exit = stage.backup();
    for told in ["database=\"app\"", "its name is not UTF-8"] {
        assert!(exit.stderr.contains(told), "{told}: {}", exit.stderr);
    }
    pg.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where query like 'begin; lock%'",
    );
    holder.wait().unwrap();
    stage.archive_all();
    pg.stop("fast");

    // To its own place, which only the backup names, byte by byte alike in both of its records.
    shell(&format!("rm -rf {folder}/ts*/*"));
    let plain = stage.fetch("plain", &[]);
    verify(&plain.data);
    let came = plain.data.join(OsStr::from_bytes(b"caf\xe9.txt"));
    assert_eq!(std::fs::read(came).unwrap(), b"odd");
    let links: Vec<_> = std::fs::read_dir(plain.data.join("pg_tblspc"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(links, [place]);
}

/// A cluster with group access, and a default isolation level that no standby can serve (of the role, so that the test itself
/// may ask): the standby is backed up, and a
/// restore keeps the group's access.
#[test]
fn fault_81_a_serializable_default_and_group_access() {
    let options = ClusterOptions {
        major: 15,
        ..ClusterOptions::default()
    };
    let stage = Stage::with("group81", &options, |options| {
        options.set("PGUSER", "backup")
    });
    let pg = &stage.cluster;
    pg.stop("fast");
    shell(&format!("chmod -R g+rX {}", pg.data.display()));
    pg.start();
    pg.sql("create table t (v int); create role backup superuser login");
    pg.sql("alter role backup set default_transaction_isolation = 'serializable'");
    stage.backup();
    stage.archive_all();
    let (standby, sidecar, _) = stage.standby("standby", "", &[]);
    let modes = |file: &str| {
        let path = standby.data.join(file);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(modes(""), 0o750);
    assert_eq!(modes("global/pg_control"), 0o640);
    let unreadable = shell(&format!(
        "find {} -maxdepth 2 -type f ! -perm -040 ! -name 'wale_*' ! -name '*.signal' ! -name 'postmaster.*'",
        standby.data.display()
    ));
    assert_eq!(unreadable, "");
    // Only a checkpoint after the restored one gives a backup of the standby a name of its own.
    pg.sql("insert into t values (1)");
    pg.sql("checkpoint");
    stage.archive_all();
    wait_until("a restartpoint", Duration::from_secs(120), || {
        standby.sql("checkpoint");
        let here = standby.sql("select redo_lsn from pg_control_checkpoint()");
        let there = pg.sql("select redo_lsn from pg_control_checkpoint()");
        (here == there).then_some(())
    });
    let data = standby.data.to_string_lossy();
    let exit = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
}

/// Root restores into a directory that is not there yet: it belongs to the owner of the one above, and that is said.
#[test]
fn fault_82_a_restore_by_root_follows_the_owner_of_the_directory_above() {
    if !rustix::process::geteuid().is_root() {
        wale_testkit::skip("fault_82_a_restore_by_root", "not root");
        return;
    }
    let stage = Stage::new("owner82", 15);
    stage.backup();
    for (uid, told) in [
        (999, "the owner of"),
        (0, "PostgreSQL refuses to run as root"),
    ] {
        let volume = stage.sandbox.folder(&format!("volume{uid}"));
        shell(&format!("chown {uid}:{uid} {}", volume.display()));
        let target = volume.join("pgdata");
        let output = Command::new(WALE)
            .args(["backup-fetch", &target.to_string_lossy(), "LATEST"])
            .env_clear()
            .env("WALE_FILE_PREFIX", stage.archive())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains(told), "{uid}: {stderr}");
        for file in ["", "base", "global/pg_control", "PG_VERSION"] {
            let owner = std::fs::metadata(target.join(file)).unwrap().uid();
            assert_eq!(owner, uid, "{file}");
        }
    }
}
