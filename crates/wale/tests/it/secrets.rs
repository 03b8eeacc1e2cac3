//! Secrets are in no output: every secret setting of the declared list gets a canary, and everything
//! that wale says, writes or shows is searched for it. A new secret is covered as soon as it is declared.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use wale_testkit::{
    ClusterOptions, Sandbox, Sidecar, SidecarOptions, get, request, shell, wait_until, wale_command,
};

use crate::support::{Stage, WALE};

const CANARY: &str = "c4nary-that-nobody-sees";

/// One setting of the reference page, which is made from the declared list.
struct Setting {
    name: String,
    entry: String,
}

impl Setting {
    fn all() -> Vec<Self> {
        let output = std::process::Command::new(WALE)
            .args(["reference", "settings"])
            .output();
        let page = String::from_utf8(output.unwrap().stdout).unwrap();
        let entry = |text: &str| {
            let (name, entry) = text.split_once('`').unwrap();
            Self {
                name: name.to_owned(),
                entry: entry.to_owned(),
            }
        };
        page.split("\n### `").skip(1).map(entry).collect()
    }

    fn is_secret(&self) -> bool {
        self.entry.contains("\n* Secret;")
    }

    /// Known and refused: a sidecar does not start with it.
    fn is_refused(&self) -> bool {
        self.entry.contains("\n* Type: refused")
    }

    fn is_place(&self) -> bool {
        self.entry.contains("\n* Type: URL")
    }
}

fn secrets() -> Vec<Setting> {
    let secrets: Vec<Setting> = Setting::all()
        .into_iter()
        .filter(Setting::is_secret)
        .collect();
    for known in ["WALE_HTTP_TOKEN", "PGPASSWORD"] {
        assert!(secrets.iter().any(|secret| secret.name == known), "{known}");
    }
    secrets
}

/// Fails when the text holds a canary.
fn assert_clean(what: &str, text: &str) {
    let found = text.lines().find(|line| line.contains(CANARY));
    assert_eq!(found, None, "{what}");
}

/// Verbs that end at once, by the program's name.
const VERBS: [(&str, &[&str]); 18] = [
    ("wale", &["serve"]),
    ("wale", &["config", "show"]),
    ("wale", &["config", "show", "--json"]),
    ("wale", &["backup-list"]),
    ("wale", &["backup-mark", "LATEST"]),
    ("wale", &["backup-fetch", "/nowhere/at/all", "LATEST"]),
    ("wale", &["delete", "--confirm", "everything"]),
    ("wale", &["retain", "--confirm"]),
    ("wale", &["wal-push", SEGMENT]),
    (
        "wale",
        &["wal-fetch", "00000002.history", "/nowhere/at/all"],
    ),
    (
        "wale",
        &[
            "client",
            "push",
            "00000002.history",
            "--url",
            "http://127.0.0.1:1",
        ],
    ),
    ("wal-e", &["backup-push", "/nowhere/at/all"]),
    ("wal-e", &["backup-fetch", "/nowhere/at/all", "LATEST"]),
    ("wal-e", &["backup-list", "--detail"]),
    ("wal-e", &["delete", "--confirm", "everything"]),
    ("wal-e", &["wal-push", SEGMENT]),
    (
        "wal-e",
        &["wal-fetch", "00000002.history", "/nowhere/at/all"],
    ),
    (
        "wal-e",
        &[
            "wal-prefetch",
            "/nowhere/at/all",
            "000000010000000000000001",
        ],
    ),
];

const SEGMENT: &str = "pg_wal/000000010000000000000001";

/// Runs verbs that end at once and searches what they print and send to the system log.
fn assert_verbs_are_clean(what: &str, options: &SidecarOptions) {
    assert_these_are_clean(what, options, &VERBS);
}

fn assert_these_are_clean(what: &str, options: &SidecarOptions, verbs: &[(&str, &[&str])]) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("log");
    let syslog = UnixDatagram::bind(&socket).unwrap();
    syslog.set_nonblocking(true).unwrap();
    // One mistake is always there: so `serve` ends, and reports all of them.
    let options = options
        .clone()
        .set("START_MODE", "NONSENSE")
        .set("WALE_LOG", "trace")
        // Nothing can be proved about an archive that is not there, however long one tries.
        .set("WALE_FETCH_DEADLINE", "1ms")
        .set("WALE_LOG_DESTINATION", "stderr,syslog")
        .set("WALE_SYSLOG_SOCKET", &socket.to_string_lossy());
    let mut heard = 0;
    for (program, verb) in verbs {
        let output = wale_command(WALE, program, &options)
            .args(*verb)
            .output()
            .unwrap();
        let what = format!("{what}, {program} {verb:?}");
        assert!(
            !output.stdout.is_empty() || !output.stderr.is_empty(),
            "{what} said nothing"
        );
        assert_clean(&what, &String::from_utf8_lossy(&output.stdout));
        assert_clean(&what, &String::from_utf8_lossy(&output.stderr));
        let mut record = [0; 16 << 10];
        while let Ok(length) = syslog.recv(&mut record) {
            assert_clean(&what, &String::from_utf8_lossy(&record[..length]));
            heard += 1;
        }
    }
    let logs = verbs.iter().any(|(program, _)| *program == "wal-e");
    assert!(
        heard > 0 || !logs,
        "{what}: nothing was sent to the system log"
    );
}

fn options(folder: &Path) -> SidecarOptions {
    let environment = [
        ("PGDATA", folder.join("data").to_string_lossy().into_owned()),
        (
            "WALE_FILE_PREFIX",
            format!("file://localhost{}", folder.display()),
        ),
        ("PGHOST", "127.0.0.1".into()),
        ("PGPORT", "1".into()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    SidecarOptions {
        environment: environment.into(),
        port: 0,
        as_postgres: false,
    }
}

#[test]
fn no_verb_shows_a_secret_that_is_set_right_wrong_twice_or_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{CANARY}\n")).unwrap();
    let file = file.to_string_lossy();
    for Setting { name, .. } in secrets() {
        let in_file = format!("{name}_FILE");
        let cases = [
            ("right", options.clone().set(&name, CANARY)),
            (
                "wrong",
                options
                    .clone()
                    .set(&name, &format!("{CANARY} \u{1} {CANARY}\nü")),
            ),
            ("in a file", options.clone().set(&in_file, &file)),
            (
                "in place of its file",
                options.clone().set(&in_file, CANARY),
            ),
            (
                "twice",
                options.clone().set(&name, CANARY).set(&in_file, &file),
            ),
        ];
        for (how, options) in cases {
            assert_verbs_are_clean(&format!("{name} {how}"), &options);
        }
    }
}

#[test]
fn no_verb_shows_a_password_within_another_setting() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let places: Vec<Setting> = Setting::all()
        .into_iter()
        .filter(Setting::is_place)
        .collect();
    assert!(places.len() >= 5);
    for Setting { name, .. } in places {
        for url in [
            format!("s3://key:{CANARY}@bucket/path"),
            // A folder that is there: one that is not is asked for again and again.
            format!("file://user:{CANARY}@localhost{}", folder.path().display()),
            format!("what://user:{CANARY}@h"),
            format!("key:{CANARY}@bucket"),
            format!("s3://key:{CANARY}"),
        ] {
            let options = options.clone().set(&name, &url);
            assert_verbs_are_clean(&format!("{name}={url}"), &options);
        }
    }
    let addition = "RECOVERY_ADDITION";
    for (name, value) in [
        (
            addition,
            format!("primary_conninfo = 'host=a password={CANARY}'"),
        ),
        (
            addition,
            format!("primary_conninfo = host=a password={CANARY}"),
        ),
        (
            addition,
            format!("recovery_target_time = 'x'\nprimary_conninfo = 'password=''{CANARY}"),
        ),
        (
            "WALE_RESTORE_COMMAND",
            format!("wget --header 'Authorization: Bearer {CANARY}' x"),
        ),
        (
            "WALE_RESTORE_COMMAND",
            format!("AWS_SECRET_ACCESS_KEY={CANARY} x --password {CANARY} %f %p"),
        ),
        ("PGHOST", format!("host=x password={CANARY}")),
        ("PGHOST", format!("postgres://u:{CANARY}@h/x")),
        ("PGDATABASE", format!("dbname=x password={CANARY}")),
        ("PGUSER", format!("postgres://u:{CANARY}@h/x")),
        ("WALE_LISTEN_PORT", format!("http://u:{CANARY}@h")),
        ("https_proxy", format!("http://user:{CANARY}@127.0.0.1:1")),
    ] {
        assert_verbs_are_clean(
            &format!("{name}={value}"),
            &options.clone().set(name, &value),
        );
    }
}

/// What is reported of an address that holds a password, whether it is refused or used.
#[test]
fn no_verb_shows_a_password_within_an_address_of_s3() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = options(folder.path())
        .unset("WALE_FILE_PREFIX")
        .set("WALE_S3_PREFIX", "s3://bucket/path")
        .set("AWS_REGION", "us-east-1")
        .set("AWS_ACCESS_KEY_ID", "id")
        .set("AWS_SECRET_ACCESS_KEY", &format!("{CANARY}-key"))
        .set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/wale");
    for name in [
        "WALE_S3_ENDPOINT",
        "AWS_ENDPOINT_URL_STS",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ] {
        for url in [
            format!("http://user:{CANARY}@127.0.0.1:1"),
            format!("https+path://{CANARY}@h"),
            format!("https://user:{CANARY}@h:nonsense/x?y=z"),
        ] {
            let options = s3.clone().set(name, &url);
            // Those that read the settings; the others would ask a server that is not there.
            assert_these_are_clean(&format!("{name}={url}"), &options, &VERBS[..3]);
        }
    }
}

/// Every secret that a sidecar can have, all with a canary.
fn with_canaries(mut options: SidecarOptions) -> SidecarOptions {
    // One method encrypts, and a canary is no key of age or OpenPGP: the archive of this sidecar is encrypted with libsodium.
    let other_methods = ["WALE_AGE_RECIPIENTS", "WALG_PGP_KEY"];
    let can_be_set =
        |secret: &&Setting| !secret.is_refused() && !other_methods.contains(&&*secret.name);
    for secret in secrets().iter().filter(can_be_set) {
        // An address may hold one; nobody listens there.
        let scheme = if secret.name.ends_with("_URL") {
            "http://127.0.0.1:1/"
        } else {
            ""
        };
        let value = format!("{scheme}{CANARY}-{}", secret.name);
        options = options.set(&secret.name, &value);
    }
    options
        .set("WALE_LOG", "trace")
        .set("WALE_COMPRESSION", "none")
}

fn ask(sidecar: &Sidecar, path: &str, token: &str) -> String {
    let raw = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let reply = request(sidecar.port, &raw).unwrap();
    format!("{} {}\n{}", reply.status, reply.head, reply.text())
}

/// Searches what a sidecar answers, logs and shows of itself to other users.
fn assert_sidecar_is_clean(what: &str, sidecar: &Sidecar, token: &str) {
    for path in [
        "/status",
        "/metrics",
        "/backups",
        "/readyz",
        "/startupz",
        "/nothing",
        "/wal/x",
    ] {
        let text = ask(sidecar, path, token);
        assert!(
            !text.starts_with("401"),
            "{path}: the token does not count: {text}"
        );
        assert_clean(&format!("{what}, {path}"), &text);
        assert_clean(
            &format!("{what}, {path} with a wrong token"),
            &ask(sidecar, path, "wrong"),
        );
    }
    let line = std::fs::read(format!("/proc/{}/cmdline", sidecar.pid())).unwrap();
    assert!(line.ends_with(b"serve\0"));
    assert_clean(
        &format!("{what}, process list"),
        &String::from_utf8_lossy(&line),
    );
    assert_clean(&format!("{what}, log"), &sidecar.log_text());
}

/// A sidecar's whole life at the most talkative level: archiving, a backup, a restore, failures.
#[test]
fn a_sidecar_says_writes_and_shows_no_secret() {
    let stage = Stage::with(
        "secrets",
        &wale_testkit::ClusterOptions::default(),
        with_canaries,
    );
    let token = format!("{CANARY}-WALE_HTTP_TOKEN");
    let pg = &stage.cluster;
    let rc = stage.sandbox.path().join("wgetrc");
    std::fs::write(&rc, format!("header = Authorization: Bearer {token}\n")).unwrap();
    shell(&format!(
        "chown postgres {0} && chmod 600 {0}",
        rc.display()
    ));
    let port = stage.sidecar.port;
    pg.configure(&[format!(
        "archive_command = 'wget -q --config={} http://127.0.0.1:{port}/wal-push/%f -O -'",
        rc.display()
    )]);
    pg.sql("select pg_reload_conf()");
    pg.sql("create table t (v int)");
    stage.backup();
    pg.switch_wal();
    pg.wait_archived();
    assert!(
        stage.sidecar.log_text().contains(" DEBUG "),
        "the log is at its most talkative"
    );
    assert_sidecar_is_clean("archiving", &stage.sidecar, &token);

    // A standby's connection to its primary has a password, which no line may repeat.
    let addition = format!("primary_conninfo = 'host=127.0.0.1 password={CANARY}-conninfo'");
    let (cluster, options) = stage.restore_options("restored", &addition);
    let options = options.set("WALE_LOG_FORMAT", "json");
    let restoring = Sidecar::start(&stage.sandbox, WALE, &options);
    restoring.wait_ready(Duration::from_secs(60));
    assert_sidecar_is_clean("restored", &restoring, &token);
    let conf = std::fs::read_to_string(cluster.data.join("postgresql.auto.conf")).unwrap();
    assert!(
        conf.contains(&format!("{CANARY}-conninfo")),
        "the server needs it: {conf}"
    );
    assert!(!conf.contains(&token), "{conf}");
    for name in [
        "postgresql.auto.conf",
        "wale_restore.json",
        "wale_restore_authorization",
    ] {
        let mode = std::fs::metadata(cluster.data.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    drop(restoring);

    assert_refusal_is_clean(&stage);
    let archive = stage.archive();
    assert!(!shell(&format!("grep -rl system_identifier {}", archive.display())).is_empty());
    let found = shell(&format!("grep -rl {CANARY} {} || true", archive.display()));
    assert_eq!(found, "", "the archive holds a secret");
    for arguments in [&["--help"][..], &["serve", "--help"], &["client", "--help"]] {
        let exit = stage.sidecar.verb(WALE, "wale", arguments);
        assert_clean("help", &(exit.stdout + &exit.stderr));
    }
    wait_until("the sidecar to answer", Duration::from_secs(10), || {
        get(port, "/ping").ok().filter(|reply| reply.status == 200)
    });
}

/// What is refused at the restore is reported without it.
fn assert_refusal_is_clean(stage: &Stage) {
    let addition = format!("primary_conninfo = host=a password={CANARY}-conninfo");
    let (_, options) = stage.restore_options("refused", &addition);
    let mut refused = Sidecar::launch(&stage.sandbox, WALE, &options);
    let status = refused.wait_exit(Duration::from_secs(60));
    assert!(!status.success());
    let log = refused.log_text();
    assert!(log.contains("primary_conninfo"), "{log}");
    assert_clean("a refused restore", &log);
}

/// The role's password is rotated, and its file with it: the running sidecar goes on.
#[test]
fn fault_97_a_rotated_password_file_is_used_without_a_restart() {
    let options = ClusterOptions {
        major: 15,
        ..ClusterOptions::default()
    };
    let sandbox = Sandbox::new("rotate97-secret");
    let file = sandbox.path().join("password");
    let write = |password: &str| {
        std::fs::write(&file, format!("{password}\n")).unwrap();
        shell(&format!(
            "chown postgres {0} && chmod 600 {0}",
            file.display()
        ));
    };
    write("one");
    let stage = Stage::with("rotate97", &options, |options| {
        options.set("PGPASSWORD_FILE", &file.to_string_lossy())
    });
    let pg = &stage.cluster;
    pg.sql("create table t (v int); alter user postgres password 'one'");
    // Over TCP, as the sidecar comes, a password is asked for from now on.
    shell(&format!(
        "sed -i '/^host/s/trust$/scram-sha-256/' {}/pg_hba.conf",
        pg.data.display()
    ));
    pg.sql("select pg_reload_conf()");
    wait_until(
        "a session without a password to be refused",
        Duration::from_secs(60),
        || {
            let port = pg.port.to_string();
            let session = std::process::Command::new(wale_testkit::client_tool("psql"))
                .args([
                    "-XqAtw",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-U",
                    "postgres",
                    "-c",
                    "select 1",
                ])
                .env_remove("PGPASSWORD")
                .output();
            (!session.unwrap().status.success()).then_some(())
        },
    );
    let backup = || {
        let reply = stage.sidecar.get("/backup-push");
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    backup();
    pg.sql("alter user postgres password 'two'");
    write("two");
    pg.sql("insert into t values (1)");
    backup();
}

/// A secret, a certificate or a configuration in a pipe or a device: the program says so at once. It neither waits, where not
/// even SIGTERM ended it, nor fills the memory.
#[test]
fn fault_59_files_of_settings_that_wait_or_never_end_are_refused_at_once() {
    let sandbox = Sandbox::new("settingsfiles");
    let folder = sandbox.path();
    let pipe = folder.join("pipe");
    shell(&format!("mkfifo '{}'", pipe.display()));
    let files = format!("WALE_FILE_PREFIX=file://{}/archive", folder.display());
    let s3 = "WALE_S3_PREFIX=s3://bucket/prefix WALE_S3_ENDPOINT=http://127.0.0.1:1";
    let cases = [
        (format!("{files} WALE_CONFIG_FILE=FILE"), "backup-list"),
        (
            format!("{files} WALE_TLS_CERT_FILE=FILE WALE_TLS_KEY_FILE=FILE"),
            "serve",
        ),
        (
            format!("{s3} AWS_SHARED_CREDENTIALS_FILE=FILE"),
            "backup-list",
        ),
        (
            format!("{s3} AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b WALE_S3_CA_FILE=FILE"),
            "backup-list",
        ),
        (files, "backup-fetch --restore-spec FILE /nowhere LATEST"),
    ];
    for file in [pipe.to_str().unwrap(), "/dev/zero"] {
        for (settings, verb) in &cases {
            let command = format!(
                "env -i PATH=\"$PATH\" PGDATA='{}' {settings} timeout -s KILL 120 {WALE} {verb}",
                folder.display()
            );
            let output = std::process::Command::new("sh")
                .args([
                    "-c",
                    &command
                        .replace("FILE=FILE", &format!("FILE={file}"))
                        .replace("spec FILE", &format!("spec {file}")),
                ])
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(
                told.contains("no regular file"),
                "{settings} {verb}: {told}"
            );
            assert!(matches!(output.status.code(), Some(64 | 78)), "{output:?}");
        }
    }
}
