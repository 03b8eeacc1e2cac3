//! The real WAL-E 1.1.1 beside wale on one archive: it restores what wale wrote with `WALE_COMPRESSION=lzo`, and what
//! both wrote in turns. `scripts/setup.sh` installs it where Debian's Python can still run it.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wale_testkit::s3::S3Server;
use wale_testkit::{
    Cluster, ClusterOptions, Exit, Sandbox, Sidecar, SidecarOptions, client_tool, free_port,
    run_as_postgres, shell, skip,
};

use crate::support::{Stage, WALE, archiving, fingerprint};

/// The program, or a counted skip.
fn program(test: &str) -> Option<PathBuf> {
    let tools = std::env::var("WALE_TEST_TOOLS").unwrap_or_else(|_| "/var/tmp/wale-tools".into());
    let program = Path::new(&tools).join("wal-e/bin/wal-e");
    if program.exists() {
        return Some(program);
    }
    skip(
        test,
        "WAL-E 1.1.1 is not installed: it cannot run on Python 3.12 and later",
    );
    None
}

/// WAL-E as the user of one cluster calls it: a script, because a server's archiver calls it too.
struct RealWalE(PathBuf);

impl RealWalE {
    /// On the archive in the sandbox's folder, or where `place` says.
    fn new(
        program: &Path,
        sandbox: &Sandbox,
        cluster: &Cluster,
        place: &[(String, String)],
    ) -> Self {
        let script = sandbox.path().join("real-wal-e.sh");
        let mut text = format!(
            "#!/bin/sh\nexport PATH=$EXTRA_PATH/usr/local/bin:/usr/bin:/bin WALE_LOG_DESTINATION=stderr\n\
             export PGHOST={} PGPORT={} PGUSER=postgres WALE_RETRIES=2\n",
            cluster.socket.display(),
            cluster.port,
        );
        if place.is_empty() {
            let archive = sandbox.path().join("archive");
            let _ = writeln!(
                text,
                "export WALE_FILE_PREFIX=file://localhost{}",
                archive.display()
            );
        }
        for (name, value) in place {
            let _ = writeln!(text, "export {name}='{value}'");
        }
        let _ = writeln!(text, "exec {} \"$@\"", program.display());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(script)
    }

    fn run(&self, arguments: &[&str]) -> String {
        run_as_postgres(&self.0, arguments)
    }

    /// Restores into a new data directory with WAL-E alone, as its manual says, and recovers to the end. `tablespace`
    /// goes to a new place, for which WAL-E wants the link beforehand.
    fn restore(
        &self,
        stage: &Place<'_>,
        name: &str,
        label: &str,
        tablespace: Option<u32>,
    ) -> Cluster {
        let cluster = Cluster::at(stage.sandbox, stage.major, name, free_port());
        let data = stage.sandbox.folder(name).display().to_string();
        if let Some(oid) = tablespace {
            let space = stage.sandbox.folder(&format!("{name}-space"));
            let _ = stage.sandbox.folder(&format!("{name}/pg_tblspc"));
            shell(&format!("ln -s {} {data}/pg_tblspc/{oid}", space.display()));
        }
        self.run(&["backup-fetch", &data, label]);
        // WAL-E's trap: with the map the server would go to the original's tablespace.
        shell(&format!("rm -f {data}/tablespace_map"));
        let own = cluster.data.join("postgresql.conf");
        if !own.exists() {
            std::fs::write(&own, "").unwrap();
            std::fs::write(cluster.data.join("pg_hba.conf"), "local all all trust\n").unwrap();
        }
        cluster.configure(&["archive_mode = off".into()]);
        let text = format!(
            "restore_command = '{} wal-fetch -p 0 %f %p'\n",
            self.0.display()
        );
        let file = if stage.major < 12 {
            "recovery.conf"
        } else {
            std::fs::write(cluster.data.join("recovery.signal"), "").unwrap();
            "postgresql.auto.conf"
        };
        std::fs::write(cluster.data.join(file), text).unwrap();
        shell(&format!(
            "chown -hR postgres:postgres {data} && chmod 600 {data}/*.conf"
        ));
        cluster.start();
        cluster.wait_promoted();
        cluster
    }
}

struct Place<'a> {
    sandbox: &'a Sandbox,
    major: u32,
}

/// `backup-list` by both: WAL-E lists a folder as the file system gives it, so the order is nobody's promise.
fn assert_lists_are_equal(real: &RealWalE, ours: impl Fn(&[&str]) -> Exit) {
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let listed = ours(&["backup-list"]);
    assert_eq!(listed.code(), 0, "{}", listed.stderr);
    assert_eq!(sorted(&listed.stdout), sorted(&real.run(&["backup-list"])));
    // On a file prefix WAL-E reads no sentinel and leaves the details empty; wale fills them in.
    let detail = ["backup-list", "--detail"];
    let (listed, theirs) = (sorted(&ours(&detail).stdout), sorted(&real.run(&detail)));
    assert_eq!(listed.len(), theirs.len());
    for (ours, theirs) in listed.iter().zip(&theirs) {
        assert_eq!(ours.matches('\t').count(), theirs.matches('\t').count());
        let mut cells = ours.split('\t').zip(theirs.split('\t'));
        assert!(
            cells.all(|(ours, theirs)| theirs.is_empty() || theirs == ours),
            "{ours}: {theirs}"
        );
    }
}

/// A base backup, its tablespace and its WAL, written by wale with lzo; everything after that is WAL-E's.
fn restores_what_wale_wrote(test: &str, major: u32, on_s3: bool) {
    let Some(program) = program(test) else { return };
    let cluster = ClusterOptions {
        major,
        ..ClusterOptions::default()
    };
    let cloud = Sandbox::new("cloud");
    let server = on_s3.then(|| S3Server::moto(&cloud));
    let bucket = |server: &S3Server| S3Server::settings(server.port(), "some/prefix");
    let place = server.as_ref().map(bucket).unwrap_or_default();
    let stage = Stage::with(&format!("reale{major}"), &cluster, |mut options| {
        if on_s3 {
            options.environment.remove("WALE_FILE_PREFIX");
        }
        options.environment.extend(place.clone());
        options.set("WALE_COMPRESSION", "lzo")
    });
    let pg = &stage.cluster;
    let real = RealWalE::new(&program, &stage.sandbox, pg, &place);
    let space = stage.sandbox.folder("space");
    pg.sql(&format!(
        "create tablespace ts location '{}'",
        space.display()
    ));
    pg.sql("create table t as select g, md5(g::text) v from generate_series(1, 50000) g");
    pg.sql("create table u tablespace ts as select g from generate_series(1, 700) g");
    stage.backup();
    pg.sql("insert into t select g, 'after' from generate_series(50001, 60000) g");
    pg.sql("delete from u where g > 600");
    pg.switch_wal();
    pg.wait_archived();
    let noted = (fingerprint(pg, "t"), fingerprint(pg, "u"));
    if on_s3 {
        // Here WAL-E reads the sentinel: of ours it takes what is its own. Two backups, for the order.
        stage.backup();
        for arguments in [&["backup-list"][..], &["backup-list", "--detail"]] {
            let ours = stage.sidecar.verb(WALE, "wal-e", arguments);
            assert_eq!(ours.stdout.lines().count(), 3, "{}", ours.stderr);
            assert_eq!(ours.stdout, real.run(arguments));
        }
    } else {
        assert_lists_are_equal(&real, |arguments| {
            stage.sidecar.verb(WALE, "wal-e", arguments)
        });
    }
    let oid = pg.sql("select oid from pg_tablespace where spcname = 'ts'");
    pg.kill();
    // The original's files must not be what the restored server reads.
    std::fs::remove_dir_all(&pg.data).unwrap();
    shell(&format!("rm -rf {}/*", space.display()));

    let place = Place {
        sandbox: &stage.sandbox,
        major,
    };
    let restored = real.restore(&place, "restored", "LATEST", oid.parse().ok());
    assert_eq!(
        (fingerprint(&restored, "t"), fingerprint(&restored, "u")),
        noted
    );
    assert_eq!(restored.sql("select count(*) from t"), "60000");
    let location = restored.sql(&format!("select pg_tablespace_location({oid})"));
    assert!(location.ends_with("restored-space"), "{location}");
}

#[test]
fn real_wal_e_restores_what_wale_wrote_on_10() {
    restores_what_wale_wrote("real_wal_e_restores_what_wale_wrote_on_10", 10, false);
}

#[test]
fn real_wal_e_restores_what_wale_wrote_on_14() {
    restores_what_wale_wrote("real_wal_e_restores_what_wale_wrote_on_14", 14, false);
}

#[test]
fn real_wal_e_restores_from_s3_what_wale_wrote() {
    restores_what_wale_wrote("real_wal_e_restores_from_s3_what_wale_wrote", 14, true);
}

/// A home of `GnuPG` with the key of WAL-E's golden archive, for the user of the servers.
fn gnupg_home(sandbox: &Sandbox) -> PathBuf {
    let _ = crate::wal_e_golden::unpacked_encrypted(sandbox);
    let home = sandbox.folder("gnupg");
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(home.join("gpg.conf"), "trust-model always\n").unwrap();
    let key = sandbox.path().join("pg13-gpg-walseg1m/secret-key.asc");
    let (home_text, key) = (home.display().to_string(), key.display().to_string());
    run_as_postgres(
        Path::new("gpg"),
        &["--homedir", &home_text, "--batch", "-q", "--import", &key],
    );
    home
}

/// Written by wale to an OpenPGP key, through the home of `GnuPG`; read by WAL-E's gpg.
#[test]
fn real_wal_e_restores_what_wale_encrypted_with_openpgp() {
    const KEY: &str = "wal-fixture@example.invalid";
    let test = "real_wal_e_restores_what_wale_encrypted_with_openpgp";
    let Some(program) = program(test) else { return };
    let keys = Sandbox::new("reale-keys");
    let home = gnupg_home(&keys).display().to_string();
    let cluster = ClusterOptions {
        major: 14,
        ..ClusterOptions::default()
    };
    let stage = Stage::with("reale-gpg", &cluster, |options| {
        options
            .set("WALE_COMPRESSION", "lzo")
            .set("WALE_GPG_KEY_ID", KEY)
            .set("GNUPGHOME", &home)
    });
    let pg = &stage.cluster;
    pg.sql("create table t as select g, md5(g::text) v from generate_series(1, 50000) g");
    stage.backup();
    pg.sql("insert into t select g, 'needle-of-a-row' from generate_series(50001, 51000) g");
    pg.switch_wal();
    pg.wait_archived();
    let noted = fingerprint(pg, "t");
    let archive = stage.sandbox.path().join("archive").display().to_string();
    let clear = format!("grep -rlaE 'needle-of|PG_VERSION' {archive} || true");
    assert_eq!(shell(&clear), "", "nothing of it can be read");
    let place = [
        (
            "WALE_FILE_PREFIX".to_owned(),
            format!("file://localhost{archive}"),
        ),
        ("WALE_GPG_KEY_ID".to_owned(), KEY.to_owned()),
        ("GNUPGHOME".to_owned(), home.clone()),
    ];
    let real = RealWalE::new(&program, &stage.sandbox, pg, &place);
    pg.kill();
    let place = Place {
        sandbox: &stage.sandbox,
        major: 14,
    };
    let restored = real.restore(&place, "restored", "LATEST", None);
    assert_eq!(fingerprint(&restored, "t"), noted);
    // wale itself, through gpg; the timeline of the other server is not archived.
    let (own, options) = stage.restore_options("own", "");
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(120));
    own.configure(&["archive_mode = off".into()]);
    own.start();
    own.wait_promoted();
    assert_eq!(fingerprint(&own, "t"), noted);
    run_as_postgres(
        Path::new("gpgconf"),
        &["--homedir", &home, "--kill", "gpg-agent"],
    );
}

#[test]
fn real_wal_e_restores_an_archive_that_it_began_and_wale_continued() {
    let test = "real_wal_e_restores_an_archive_that_it_began_and_wale_continued";
    let Some(program) = program(test) else { return };
    let sandbox = Sandbox::new("began");
    let options = ClusterOptions {
        major: 14,
        ..ClusterOptions::default()
    };
    let pg = Cluster::init(&sandbox, &options);
    let sidecar_options = SidecarOptions::new(&sandbox, &pg).set("WALE_COMPRESSION", "lzo");
    let real = RealWalE::new(&program, &sandbox, &pg, &[]);
    let mut settings = archiving(sidecar_options.port);
    settings.push(format!(
        "archive_command = '{} wal-push %p'",
        real.0.display()
    ));
    // WAL-E asks for a spread checkpoint.
    settings.push("checkpoint_completion_target = 0".into());
    pg.configure(&settings);
    pg.start();
    pg.sql("create table t as select g, md5(g::text) v from generate_series(1, 1000) g");
    pg.sql("checkpoint");
    real.run(&["backup-push", &pg.data.to_string_lossy()]);
    pg.sql("insert into t select g, 'by WAL-E' from generate_series(1001, 1500) g");
    pg.switch_wal();
    pg.wait_archived();

    // The image is replaced: from here on wale archives, into the same prefix.
    let sidecar = Sidecar::start(&sandbox, WALE, &sidecar_options);
    let command = archiving(sidecar.port).pop().expect("three lines");
    pg.sql(&format!("alter system set {command}"));
    pg.sql("select pg_reload_conf()");
    pg.sql("insert into t select g, 'by wale' from generate_series(1501, 1800) g");
    pg.switch_wal();
    pg.wait_archived();
    let exit = sidecar.verb(WALE, "wal-e", &["backup-push", &pg.data.to_string_lossy()]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    pg.sql("insert into t select g, 'by wale' from generate_series(1801, 2000) g");
    pg.switch_wal();
    pg.wait_archived();
    let noted = fingerprint(&pg, "t");
    assert_lists_are_equal(&real, |arguments| sidecar.verb(WALE, "wal-e", arguments));
    let listed = real.run(&["backup-list"]);
    let mut names: Vec<&str> = listed
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    names.sort_unstable();
    assert_eq!(names.len(), 2, "{listed}");
    pg.kill();

    let place = Place {
        sandbox: &sandbox,
        major: 14,
    };
    // wale's backup is the newest; WAL-E's own is restored through the WAL of both.
    for (name, label) in [("newest", "LATEST"), ("oldest", names[0])] {
        let restored = real.restore(&place, name, label, None);
        assert_eq!(fingerprint(&restored, "t"), noted, "{label}");
        assert_eq!(restored.sql("select count(*) from t"), "2000");
        restored.stop("immediate");
    }
}

/// WAL-E asks `pg_config` where `pg_controldata` is; the servers of the tests come without either.
fn folder_with_pg_config(sandbox: &Sandbox) -> PathBuf {
    let controldata = client_tool("pg_controldata");
    let bin = sandbox.folder("bin");
    let config = format!(
        "#!/bin/sh\necho BINDIR = {}\necho VERSION = PostgreSQL 15.20\n",
        controldata.parent().expect("a folder").display()
    );
    std::fs::write(bin.join("pg_config"), config).unwrap();
    shell(&format!(
        "chmod -R a+rx {0} && chown -R postgres {0}",
        bin.display()
    ));
    bin
}

/// WAL-E takes the name of such a backup from the wrong digits of the position, and the start for the end.
#[test]
fn wale_restores_what_real_wal_e_took_of_a_stopped_server() {
    let test = "wale_restores_what_real_wal_e_took_of_a_stopped_server";
    let Some(program) = program(test) else { return };
    let sandbox = Sandbox::new("offline");
    let pg = Cluster::init(&sandbox, &ClusterOptions::default());
    let real = RealWalE::new(&program, &sandbox, &pg, &[]);
    let options = SidecarOptions::new(&sandbox, &pg);
    let mut settings = archiving(options.port);
    settings.push(format!(
        "archive_command = '{} wal-push %p'",
        real.0.display()
    ));
    pg.configure(&settings);
    pg.start();
    pg.sql("create table t as select g, md5(g::text) v from generate_series(1, 1000) g");
    pg.stop("fast");
    let bin = folder_with_pg_config(&sandbox);
    let with_path = format!(
        "EXTRA_PATH={}: exec {} \"$@\"",
        bin.display(),
        real.0.display()
    );
    let data = pg.data.to_string_lossy().into_owned();
    let push = [
        "-c",
        &with_path,
        "sh",
        "backup-push",
        "--while-offline",
        &data,
    ];
    run_as_postgres(Path::new("sh"), &push);
    // The checkpoint of the shutdown lies in a segment that the server archives only after its next start.
    pg.start();
    pg.sql("insert into t select g, 'after' from generate_series(1001, 1100) g");
    pg.switch_wal();
    pg.wait_archived();
    let noted = fingerprint(&pg, "t");
    pg.kill();

    let port = free_port();
    let restored = Cluster::at(&sandbox, 15, "restored", free_port());
    let _ = sandbox.folder("restored");
    let conf = sandbox.folder("conf");
    std::fs::write(conf.join("postgresql.conf"), "").unwrap();
    std::fs::write(conf.join("pg_hba.conf"), "local all all trust\n").unwrap();
    shell(&format!("chown -R postgres {}", conf.display()));
    let mut options = options
        .set("START_MODE", "RESTORE")
        .set("PGDATA", &restored.data.to_string_lossy())
        .set("PGWAL", &restored.data.join("pg_wal").to_string_lossy())
        .set("PGCONF_BACKUP_DIR", &conf.to_string_lossy())
        .set("WALE_LISTEN_PORT", &port.to_string());
    options.port = port;
    let sidecar = Sidecar::start(&sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(120));
    restored.configure(&["archive_mode = off".into()]);
    restored.start();
    restored.wait_promoted();
    assert_eq!(fingerprint(&restored, "t"), noted);
}
