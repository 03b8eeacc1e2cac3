//! The whole run with age: a database host that has public keys only, a restore by whoever has the secret one, and encryption
//! that nobody switches off by leaving a setting out.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use wale_testkit::{
    ClusterOptions, Sandbox, Sidecar, client_tool, run_as_postgres, shell, wait_until,
};

use crate::support::{Stage, WALE, fingerprint};

/// A secret key in a file, and its public key. None where Debian's `age` is not installed.
fn key(sandbox: &Path, name: &str) -> Option<(PathBuf, String)> {
    let file = sandbox.join(name);
    let made = Command::new("age-keygen").arg("-o").arg(&file).output();
    match made {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => {
            let why = format!("the program age-keygen cannot be run: {error}");
            wale_testkit::skip("encryption with age", &why);
            return None;
        }
    }
    shell(&format!("chmod 0644 {}", file.display()));
    let public = shell(&format!("age-keygen -y {}", file.display()));
    Some((file, public.trim().to_owned()))
}

/// The files below the archive that hold `needle`, and are not in the clear by intent.
fn in_the_clear(archive: &Path, needle: &str) -> String {
    shell(&format!(
        "grep -rlaF '{needle}' {} || true",
        archive.display()
    ))
}

#[test]
fn a_host_without_the_secret_key_archives_and_whoever_has_it_restores() {
    let keys = Sandbox::new("age-keys");
    let Some((identity, recipient)) = key(keys.path(), "office.key") else {
        return;
    };
    let (_, other) = key(keys.path(), "other.key").expect("age-keygen was there");
    let options = ClusterOptions::default();
    let mut stage = Stage::with("age", &options, |options| {
        options.set("WALE_AGE_RECIPIENTS", &recipient)
    });
    let pg = &stage.cluster;
    pg.sql("create table needle_of_a_table as select g as v, md5(g::text) from generate_series(1, 20000) g");
    stage.backup();
    pg.sql(
        "insert into needle_of_a_table select g, 'needle-of-a-row' from generate_series(1, 500) g",
    );
    let segment = stage.archive_all();
    let noted = fingerprint(pg, "needle_of_a_table");
    pushed_again_it_is_compared_without_the_key(&mut stage, &segment);
    let archive = stage.archive();
    // Names of files are in the manifest: nothing of it can be read. What must stay readable, can.
    assert_eq!(in_the_clear(&archive, "needle"), "");
    assert_eq!(in_the_clear(&archive, "PG_VERSION"), "");
    let identity_json = std::fs::read_to_string(archive.join("wale.json")).unwrap();
    assert!(identity_json.contains(&recipient), "{identity_json}");
    // A backup that this host cannot read is listed, kept, and no reason to delete it or to doubt it.
    let list = stage
        .sidecar
        .verb(WALE, "wale", &["backup-list", "--detail"]);
    assert_eq!(list.code(), 0, "{}", list.stderr);
    assert!(
        list.stdout.contains("\tage\tX25519\tno\t\t\r\n"),
        "{}",
        list.stdout
    );
    let with_key = &[(
        "WALE_AGE_IDENTITY_FILE",
        identity.to_string_lossy().into_owned(),
    )];
    let readable = listed_with(&stage, with_key);
    assert!(
        readable.contains("\tage\tX25519\tyes\t\t\r\n"),
        "{readable}"
    );
    let retain = stage.sidecar.verb(WALE, "wale", &["delete", "retain", "1"]);
    assert_eq!(retain.code(), 0, "{}", retain.stderr);
    // The absence of a segment needs no key.
    let absent = stage.sidecar.get("/wal-absent/0000000100000000000000FF");
    assert_eq!(absent.status, 200, "{}", absent.text());
    // Debian's age opens what wale wrote.
    let segment = shell(&format!("ls {}/wal_005/*.zst | head -1", archive.display()));
    let bytes = shell(&format!(
        "age -d -i {} {} | zstd -dc | wc -c",
        identity.display(),
        segment.trim()
    ));
    assert_eq!(bytes.trim(), "16777216");

    off_and_others_are_refused(&stage, &other);

    stage.cluster.kill();
    stage.sidecar.kill();
    restores_with_the_key_only(&stage, &identity, &noted);
}

/// The list of backups with these settings beside those of the stage.
fn listed_with(stage: &Stage, settings: &[(&str, String)]) -> String {
    let mut options = stage.options.clone();
    for (name, value) in settings {
        options = options.set(name, value);
    }
    let output = wale_testkit::wale_command(WALE, "wale", &options)
        .args(["backup-list", "--detail"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// After a restart nothing is remembered: the same bytes are acknowledged, others refused, and nothing is stored.
fn pushed_again_it_is_compared_without_the_key(stage: &mut Stage, segment: &str) {
    let before = stage.wal_objects();
    stage.sidecar.kill();
    stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
    stage.sidecar.wait_ready(Duration::from_secs(60));
    let path = format!("/wal-push/{segment}");
    let file = stage.cluster.data.join("pg_wal").join(segment);
    let good = std::fs::read(&file).unwrap();
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    for (content, status) in [(&good, 200), (&other, 409), (&good, 200)] {
        std::fs::write(&file, content).unwrap();
        let reply = stage.sidecar.get(&path);
        assert_eq!(reply.status, status, "{}", reply.text());
    }
    assert_eq!(stage.wal_objects(), before);
    let log = stage.sidecar.log_text();
    assert!(!log.contains("no key here opens it"), "{log}");
}

/// Without the key an error that names it, before anything is written; with it a cluster that goes on archiving, encrypted.
fn restores_with_the_key_only(stage: &Stage, identity: &Path, noted: &str) {
    let (without, options) = stage.restore_options("without", "");
    let mut refused = Sidecar::launch(&stage.sandbox, WALE, &options);
    assert_eq!(refused.wait_exit(Duration::from_secs(60)).code(), Some(78));
    assert!(
        refused.log_text().contains("WALE_AGE_IDENTITY_FILE"),
        "{}",
        refused.log_text()
    );
    assert!(!without.data.join("PG_VERSION").exists());

    let (restored, options) = stage.restore_options("restored", "");
    let options = options.set("WALE_AGE_IDENTITY_FILE", &identity.to_string_lossy());
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(Duration::from_secs(120));
    run_as_postgres(
        &client_tool("pg_verifybackup"),
        &[
            "-n",
            "-i",
            "wale_restore.json",
            &restored.data.to_string_lossy(),
        ],
    );
    restored.configure(&crate::support::archiving(options.port));
    restored.start();
    restored.wait_promoted();
    assert_eq!(fingerprint(&restored, "needle_of_a_table"), noted);
    // It goes on archiving, encrypted.
    restored.sql("insert into needle_of_a_table values (1, 'needle')");
    restored.switch_wal();
    restored.wait_archived();
    assert_eq!(in_the_clear(&stage.archive(), "needle"), "");
}

/// A sidecar without the key, or with another, is up and archives nothing; with the word for it, it does.
fn off_and_others_are_refused(stage: &Stage, other: &str) {
    let before = stage.wal_objects();
    let data = stage.cluster.data.to_string_lossy().into_owned();
    let off = stage.options.clone().unset("WALE_AGE_RECIPIENTS");
    let another = stage.options.clone().set("WALE_AGE_RECIPIENTS", other);
    for (options, word) in [
        (off.clone(), "WALE_ENCRYPTION_CHANGE=none"),
        (another, "WALE_ENCRYPTION_CHANGE=age-"),
    ] {
        let mut options = options;
        options.port = wale_testkit::free_port();
        let options = options
            .clone()
            .set("WALE_LISTEN_PORT", &options.port.to_string());
        let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
        let exit = sidecar.verb(WALE, "wale", &["backup-push", &data]);
        assert_eq!(exit.code(), 78, "{}", exit.stderr);
        assert!(exit.stderr.contains(word), "{}", exit.stderr);
        wait_until("the sidecar to complain", Duration::from_secs(30), || {
            let ready = sidecar.get("/readyz");
            (ready.status == 503 && ready.text().contains("encrypted with age")).then_some(())
        });
    }
    assert_eq!(stage.wal_objects(), before);
    let config = stage.sidecar.verb(WALE, "wale", &["config", "show"]);
    assert!(
        config.stdout.contains("WALE_AGE_RECIPIENTS"),
        "{}",
        config.stdout
    );
    assert!(!config.stdout.contains("AGE-SECRET-KEY"));
}
