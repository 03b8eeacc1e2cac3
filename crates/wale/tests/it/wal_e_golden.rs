//! Archives that the real WAL-E made: wale restores them to every target that its makers saw WAL-E restore them to.
//!
//! What is in them, and where the expected values come from: `testdata/wal-e-1.1.1/README.md`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wale_testkit::{
    Cluster, Sandbox, Sidecar, SidecarOptions, free_port, run_as_postgres, shell, wait_until,
    wale_command,
};

use crate::support::{WALE, archiving};

const PG10: &str = "pg10-tablespace-gnutar";
const PG13_ENCRYPTED: &str = "pg13-gpg-walseg1m";
const PG14: &str = "pg14-two-backups-timeline2";
const FIRST: &str = "base_000000010000000000000003_00000040";
const SECOND: &str = "base_000000010000000000000006_00000040";

/// Rows, sum and digest of table `t` with so many rows.
fn t(rows: u32) -> &'static str {
    match rows {
        2000 => "2000|2001000|bcb7add837e768e14b3af895a9e0e3d9",
        3000 => "3000|4501500|ec4fc959abd1befa78b60ab27352fbf9",
        3100 => "3100|4806550|95d084ce87c6547b8d6b713cebe7e4cc",
        3500 => "3500|6126750|1b4deaf43f9903cc3eb4392125e68fe5",
        _ => panic!("no value for {rows} rows"),
    }
}

const U_AT_TWO_THOUSAND: &str = "700|245350|e8899a17add94d446328bb35e2c9e35f";
const U_AT_THE_END: &str = "600|240300|f32b5d8eae8697e8b8d34c08a3d8a65d";

fn check(cluster: &Cluster, table: &str) -> String {
    cluster.sql(&format!(
        "select count(*), sum(id), md5(string_agg(id||':'||v, ',' order by id)) from {table}"
    ))
}

/// The golden archive of PostgreSQL 14, unpacked.
pub(crate) fn unpacked(sandbox: &Sandbox) -> PathBuf {
    unpack(sandbox, PG14)
}

fn unpack(sandbox: &Sandbox, golden: &str) -> PathBuf {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/wal-e-1.1.1")
        .join(format!("{golden}.tar.zst"));
    let folder = sandbox.path().display();
    shell(&format!(
        "zstd -dcq --long=27 {} | tar -x -C {folder}",
        packed.display()
    ));
    shell(&format!("chown -R postgres:postgres {folder}/{golden}"));
    sandbox.path().join(golden).join("archive")
}

/// One golden archive, unpacked, and room for restores.
struct Golden {
    major: u32,
    archive: PathBuf,
    sandbox: Sandbox,
}

impl Golden {
    fn new(name: &str, golden: &str, major: u32) -> Self {
        let sandbox = Sandbox::new(name);
        Self {
            major,
            archive: unpack(&sandbox, golden),
            sandbox,
        }
    }

    /// A cluster to be restored, and a sidecar's settings for that, whose own files are those of an operator.
    fn place(&self, name: &str) -> (Cluster, SidecarOptions) {
        let cluster = Cluster::at(&self.sandbox, self.major, name, free_port());
        let _ = self.sandbox.folder(name);
        let conf = self.sandbox.folder(&format!("{name}-conf"));
        std::fs::write(conf.join("postgresql.conf"), "hot_standby = on\n").unwrap();
        let trust = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
        std::fs::write(conf.join("pg_hba.conf"), trust).unwrap();
        shell(&format!("chown -R postgres:postgres {}", conf.display()));
        let prefix = format!("file://localhost{}", self.archive.display());
        let mut options = SidecarOptions::new(&self.sandbox, &cluster)
            .set("WALE_FILE_PREFIX", &prefix)
            .set("PGCONF_BACKUP_DIR", &conf.to_string_lossy());
        if self.major == 10 {
            let space = self.sandbox.folder(&format!("{name}-ts1"));
            let mapping = format!("16384={}", space.display());
            options = options.set("WALE_TABLESPACE_MAPPING", &mapping);
        }
        (cluster, options)
    }

    /// By the sidecar's RESTORE, up to the point where the server may be started.
    fn fetch(&self, name: &str, label: &str, addition: &str) -> (Cluster, Sidecar) {
        let (cluster, options) = self.place(name);
        let options = options
            .set("START_MODE", "RESTORE")
            .set("WALE_RESTORE_LABEL", label)
            .set("RECOVERY_ADDITION", addition);
        let sidecar = Sidecar::start(&self.sandbox, WALE, &options);
        sidecar.wait_ready(Duration::from_secs(120));
        (cluster, sidecar)
    }

    /// The same, and the server has recovered. It does not archive: its timeline would be the latest of the next restore.
    fn restore(&self, name: &str, label: &str, addition: &str) -> (Cluster, Sidecar) {
        let (cluster, sidecar) = self.fetch(name, label, addition);
        cluster.configure(&["archive_mode = off".into()]);
        cluster.start();
        cluster.wait_promoted();
        (cluster, sidecar)
    }

    /// By WAL-E's verbs, as its users restore: `backup-fetch`, their own configuration, a `restore_command` that is
    /// `wal-fetch`.
    fn restore_by_verbs(&self, name: &str, label: &str, lines: &[&str]) -> Cluster {
        let (cluster, mut options) = self.place(name);
        let data = cluster.data.to_string_lossy().into_owned();
        if options
            .environment
            .remove("WALE_TABLESPACE_MAPPING")
            .is_some()
        {
            // WAL-E knows no mapping: the link is made before.
            let _ = self.sandbox.folder(&format!("{name}/pg_tblspc"));
            let space = self.sandbox.path().join(format!("{name}-ts1"));
            shell(&format!("ln -s {} {data}/pg_tblspc/16384", space.display()));
        }
        let output = wale_command(WALE, "wal-e", &options)
            .args(["backup-fetch", &data, label])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(
            told.contains("postgresql.conf"),
            "the user must supply it: {told}"
        );
        let conf = self.sandbox.path().join(format!("{name}-conf"));
        shell(&format!("cp -p {}/*.conf {data}/", conf.display()));
        cluster.configure(&["archive_mode = off".into()]);
        let command = wale_command(WALE, "wal-e", &options);
        let program = command.get_args().last().unwrap_or(command.get_program());
        let mut text = format!(
            "restore_command = 'WALE_FILE_PREFIX={} {} wal-fetch %f %p'\n\
             recovery_target_action = 'promote'\n",
            options.environment["WALE_FILE_PREFIX"],
            program.to_string_lossy()
        );
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        let file = if self.major < 12 {
            "recovery.conf"
        } else {
            std::fs::write(cluster.data.join("recovery.signal"), "").unwrap();
            "postgresql.auto.conf"
        };
        std::fs::write(cluster.data.join(file), text).unwrap();
        shell(&format!("chown -R postgres:postgres {data}"));
        cluster.start();
        cluster.wait_promoted();
        cluster
    }

    fn options(&self) -> SidecarOptions {
        self.place("none").1
    }
}

const PROMOTE: &str = "recovery_target_action = 'promote'";

#[test]
fn wal_e_archive_of_10_with_a_tablespace_to_every_target() {
    let golden = Golden::new("golden10", PG10, 10);
    let targets = [
        (
            "two",
            "recovery_target_name = 'rp_two_thousand'",
            2000,
            U_AT_TWO_THOUSAND,
        ),
        (
            "three",
            "recovery_target_name = 'rp_three_thousand'",
            3000,
            U_AT_THE_END,
        ),
        ("end", "", 3000, U_AT_THE_END),
    ];
    for (name, target, rows, u) in targets {
        let action = if target.is_empty() { "" } else { PROMOTE };
        let (cluster, sidecar) = golden.restore(name, "LATEST", &format!("{target}\n{action}"));
        assert_eq!(check(&cluster, "t"), t(rows), "{name}");
        assert_eq!(check(&cluster, "u"), u, "{name}");
        // The server itself says where the tablespace is now.
        let location = cluster.sql("select pg_tablespace_location(16384)");
        assert!(location.ends_with(&format!("{name}-ts1")), "{location}");
        assert!(
            sidecar.log_text().contains("has no manifest"),
            "{}",
            sidecar.log_text()
        );
        let mode = shell(&format!("stat -c %a {}", cluster.data.display()));
        assert_eq!(
            mode.trim(),
            "700",
            "the member of the data directory itself"
        );
        cluster.stop("immediate");
    }
    let cluster = golden.restore_by_verbs("verbs", "LATEST", &[]);
    let location = cluster.sql("select pg_tablespace_location(16384)");
    assert!(location.ends_with("verbs-ts1"), "{location}");
    assert_eq!(
        (check(&cluster, "t").as_str(), check(&cluster, "u").as_str()),
        (t(3000), U_AT_THE_END)
    );
}

#[test]
fn wal_e_archive_of_14_with_two_timelines_to_every_target() {
    let golden = Golden::new("golden14", PG14, 14);
    let two = format!("recovery_target_name = 'rp_two_thousand'\n{PROMOTE}");
    let three = format!(
        "recovery_target_name = 'rp_three_thousand'\nrecovery_target_timeline = '1'\n{PROMOTE}"
    );
    let targets = [
        (FIRST, two.as_str(), 2000),
        (FIRST, "", 3500),
        ("LATEST", three.as_str(), 3000),
        ("LATEST", "recovery_target_timeline = '1'", 3100),
        ("LATEST", "", 3500),
    ];
    for (number, (label, addition, rows)) in targets.into_iter().enumerate() {
        let (cluster, _sidecar) = golden.restore(&format!("r{number}"), label, addition);
        assert_eq!(check(&cluster, "t"), t(rows), "{label} {addition}");
        cluster.sql("checkpoint");
        assert_eq!(
            cluster.sql("select timeline_id from pg_control_checkpoint()"),
            "3"
        );
        cluster.stop("immediate");
    }
    let cluster = golden.restore_by_verbs("verbs", FIRST, &[]);
    assert_eq!(check(&cluster, "t"), t(3500));
}

#[test]
fn wal_e_archive_without_configuration_files_starts_with_defaults() {
    let golden = Golden::new("goldenconf", PG14, 14);
    let (cluster, mut options) = golden.place("bare");
    options.environment.remove("PGCONF_BACKUP_DIR");
    let options = options.set("START_MODE", "RESTORE");
    let sidecar = Sidecar::start(&golden.sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(120));
    let log = sidecar.log_text();
    assert!(
        log.contains("postgresql.conf, pg_hba.conf, pg_ident.conf"),
        "{log}"
    );
    let conf = std::fs::read_to_string(cluster.data.join("postgresql.conf")).unwrap();
    assert!(conf.contains("PGCONF_BACKUP_DIR"), "{conf}");
    cluster.configure(&["archive_mode = off".into()]);
    cluster.launch();
    let port = cluster.port.to_string();
    let socket = cluster.socket.display();
    // The socket's owner comes in as himself; over the network nobody without a password.
    let ask = "select count(*) from t where not pg_is_in_recovery()";
    let script = format!("psql -XAtq -h {socket} -p {port} -c '{ask}' 2>/dev/null || true");
    let rows = wait_until(
        "the server to have recovered",
        Duration::from_secs(60),
        || {
            let rows = run_as_postgres(Path::new("sh"), &["-c", &script]);
            (!matches!(rows.trim(), "" | "0")).then_some(rows)
        },
    );
    assert_eq!(rows.trim(), "3500");
    let refused = shell(&format!(
        "! psql -XAtqw -h 127.0.0.1 -p {port} -U postgres -c 'select 1' 2>&1"
    ));
    assert!(refused.contains("password"), "{refused}");
}

#[test]
fn wal_e_archive_that_is_encrypted_is_refused_as_such() {
    // The server never starts, so any installed one will do for the place.
    let golden = Golden::new("golden13", PG13_ENCRYPTED, 14);
    let (cluster, options) = golden.place("refused");
    let data = cluster.data.to_string_lossy().into_owned();
    let output = wale_command(WALE, "wale", &options)
        .args(["backup-fetch", &data, "LATEST"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(
        told.contains("it is encrypted") && !told.contains("damaged"),
        "{told}"
    );
    assert!(!cluster.data.join("global/pg_control").exists());
}

#[test]
fn wal_e_archive_is_adopted_and_continued() {
    let golden = Golden::new("adopt14", PG14, 14);
    let (cluster, sidecar) = golden.fetch("heir", "LATEST", "");
    cluster.configure(&archiving(sidecar.port));
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(check(&cluster, "t"), t(3500));
    cluster.sql("insert into t select g, md5(g::text) from generate_series(3501, 3600) g");
    let segment = cluster.switch_wal();
    assert!(segment.starts_with("00000003"), "{segment}");
    cluster.wait_archived();
    let identity = std::fs::read_to_string(golden.archive.join("wale.json")).unwrap();
    assert!(
        identity.contains("7710887106564214552") && identity.contains("lzo"),
        "{identity}"
    );
    // What is there already under WAL-E's name is never written again under another.
    let old = golden.archive.join("wal_005/000000010000000000000006.zst");
    assert!(
        !old.exists()
            && golden
                .archive
                .join(format!("wal_005/{segment}.zst"))
                .exists()
    );
    assert_eq!(sidecar.get("/wal/000000010000000000000006").status, 200);
    let exit = sidecar.verb(
        WALE,
        "wale",
        &["backup-push", &cluster.data.to_string_lossy()],
    );
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    let listed = sidecar.verb(WALE, "wal-e", &["backup-list"]).stdout;
    assert!(
        listed.contains(FIRST) && listed.contains(SECOND) && listed.lines().count() == 4,
        "{listed}"
    );
    cluster.kill();
    // The newest is the one that ended last, not the one whose name is the greatest.
    let (again, _sidecar) = golden.restore("again", "LATEST", "");
    assert_eq!(again.sql("select count(*) from t"), "3600");

    // Another cluster is refused, by the WAL that WAL-E wrote.
    let stranger = Golden::new("stranger", PG10, 10);
    std::fs::remove_dir_all(stranger.archive.join("basebackups_005")).unwrap();
    let exit = wale_command(
        WALE,
        "wale",
        &stranger
            .options()
            .set("PGPORT", &again.port.to_string())
            .set("PGDATA", &again.data.to_string_lossy()),
    )
    .args(["backup-push", &again.data.to_string_lossy()])
    .output()
    .unwrap();
    assert_eq!(
        exit.status.code(),
        Some(65),
        "{}",
        String::from_utf8_lossy(&exit.stderr)
    );
}
