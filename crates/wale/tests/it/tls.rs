//! The endpoint over TLS and with a token, as a database uses it: real servers, real wget, curl and
//! wale, and an eye on the list of processes.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wale_testkit::{
    Cluster, ClusterOptions, Sandbox, Sidecar, SidecarOptions, shell, wait_until, wale_command,
};

use crate::support::{Stage, WALE, fingerprint};

pub(crate) const TOKEN: &str = "canary-0f-the-tok3n";

/// Writes an authority's certificate, and a certificate for `localhost` with its key.
fn write_certificates(sandbox: &Sandbox) {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    // Another name than its certificates': OpenSSL takes one that issued itself for self-signed.
    let name = (rcgen::DnType::CommonName, "test authority");
    parameters.distinguished_name.push(name.0, name.1);
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertifiedIssuer::self_signed(parameters, ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &ca).unwrap();
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("tls.crt", certificate.pem()),
        ("tls.key", key.serialize_pem()),
    ] {
        let path = sandbox.path().join(name);
        std::fs::write(&path, text).unwrap();
        shell(&format!(
            "chown postgres {0} && chmod 600 {0}",
            path.display()
        ));
    }
}

fn secured(sandbox: &Sandbox, options: SidecarOptions) -> SidecarOptions {
    let path = |name: &str| sandbox.path().join(name).to_string_lossy().into_owned();
    options
        .set("WALE_TLS_CERT_FILE", &path("tls.crt"))
        .set("WALE_TLS_KEY_FILE", &path("tls.key"))
        .set("WALE_CLIENT_CA_FILE", &path("ca.pem"))
        .set("WALE_HTTP_TOKEN", TOKEN)
}

/// A sidecar over TLS; `wale client ready` is the health check of its container.
fn start(sandbox: &Sandbox, options: &SidecarOptions) -> Sidecar {
    let sidecar = Sidecar::launch(sandbox, WALE, options);
    wait_until("the sidecar to be ready", Duration::from_secs(60), || {
        let ready = sidecar.verb(WALE, "wale", &["client", "ready"]);
        (ready.code() == 0).then_some(())
    });
    sidecar
}

/// A folder for the server's `PATH`: `wget` as the client's name says, and `wale` with the token in
/// its environment, as a Compose file would set it.
fn programs(stage: &Stage, client: &str) -> PathBuf {
    let folder = stage.sandbox.path().join(format!("bin-{client}"));
    std::fs::create_dir(&folder).unwrap();
    if client == "busybox" {
        symlink("/bin/busybox", folder.join("wget")).unwrap();
    }
    let real = wale_command(WALE, "wale", &stage.options);
    let real = real.get_args().last().unwrap_or_else(|| real.get_program());
    let script = format!(
        "#!/bin/sh\nWALE_HTTP_TOKEN={TOKEN} exec {} \"$@\"\n",
        real.display()
    );
    std::fs::write(folder.join("wale"), script).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.join("wale"), mode).unwrap();
    folder
}

/// What command lines are seen while `work` runs: programs of interest by name, and whether any line
/// of any process shows the token.
fn watching<T>(work: impl FnOnce() -> T) -> (T, Vec<String>, Option<String>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut seen, mut leaked) = (Vec::new(), None);
            while !done.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let line = String::from_utf8_lossy(&line).replace('\0', " ");
                    if line.contains(TOKEN) {
                        leaked = Some(line.clone());
                    }
                    for part in ["wget -q", "curl -sf", "client fetch"] {
                        if line.contains(part) && line.contains("https://") && !seen.contains(&part)
                        {
                            seen.push(part);
                        }
                    }
                }
                // Requests last 300 ms: none is missed.
                std::thread::park_timeout(Duration::from_millis(20));
            }
            (seen, leaked)
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let (seen, leaked) = watcher.join().unwrap();
        (
            result,
            seen.into_iter().map(str::to_owned).collect(),
            leaked,
        )
    })
}

/// A cluster that archives over TLS, with a sidecar that wants the token.
pub(crate) fn stage() -> Stage {
    let sandbox = Sandbox::new("tls");
    write_certificates(&sandbox);
    let cluster = Cluster::init(&sandbox, &ClusterOptions::default());
    let control = sandbox.path().join("faults");
    std::fs::write(&control, "get key=wal_005/ slow 300ms\nlist slow 300ms").unwrap();
    let options = secured(&sandbox, SidecarOptions::new(&sandbox, &cluster))
        .set("WALE_FAULT_CONTROL", &control.to_string_lossy())
        .set("WALE_FETCH_PREFETCH", "0");
    let rc = sandbox.path().join("wgetrc");
    std::fs::write(&rc, format!("header = Authorization: Bearer {TOKEN}\n")).unwrap();
    shell(&format!(
        "chown postgres {0} && chmod 600 {0}",
        rc.display()
    ));
    let command = format!(
        "wget -q --config={} --ca-certificate={}/ca.pem https://localhost:{}/wal-push/%f -O -",
        rc.display(),
        sandbox.path().display(),
        options.port
    );
    cluster.configure(&[
        "wal_level = replica".into(),
        "archive_mode = on".into(),
        format!("archive_command = '{command}'"),
    ]);
    let sidecar = start(&sandbox, &options);
    cluster.start();
    Stage {
        sidecar,
        cluster,
        options,
        sandbox,
    }
}

/// A key that every user of the host may read is reported; one that belongs to the sidecar alone, or to its group, is
/// not.
#[test]
fn a_key_that_other_users_may_read_is_a_warning() {
    let sandbox = Sandbox::new("tls-key");
    write_certificates(&sandbox);
    let cluster = Cluster::init(&sandbox, &ClusterOptions::default());
    let key = sandbox.path().join("tls.key");
    let words = "other users may read the endpoint's TLS key";
    for (mode, is_told) in [(0o644, true), (0o440, false)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let options = secured(&sandbox, SidecarOptions::new(&sandbox, &cluster));
        let mut sidecar = start(&sandbox, &options);
        if is_told {
            wait_until("the warning", Duration::from_secs(60), || {
                sidecar.log_text().contains(words).then_some(())
            });
        }
        sidecar.terminate();
        sidecar.wait_exit(Duration::from_secs(60));
        assert_eq!(sidecar.log_text().contains(words), is_told, "{mode:o}");
    }
}

/// Row 62: archiving and recovery over TLS with every client, and the token on no command line, in no
/// file that others read, in no log, and not in the archive.
#[test]
fn fault_62_over_tls_every_client_recovers_and_no_command_line_shows_the_token() {
    let stage = stage();
    let pg = &stage.cluster;
    let (all, seen, leaked) = watching(|| {
        pg.sql("create table t (v int)");
        stage.backup();
        for part in 0..2 {
            pg.sql(&format!(
                "insert into t select {part} from generate_series(1, 1000)"
            ));
            pg.switch_wal();
        }
        pg.wait_archived();
        fingerprint(pg, "t")
    });
    assert_eq!(leaked, None, "archiving");
    assert!(seen.contains(&"wget -q".to_owned()), "{seen:?}");
    let (logs, seen, leaked) = watching(|| {
        std::thread::scope(|scope| {
            let recover = |client: &'static str| {
                let (stage, all) = (&stage, &all);
                scope.spawn(move || recovered(stage, client, all))
            };
            let drills = ["wget", "curl", "wale"].map(recover);
            drills.map(|drill| drill.join().unwrap())
        })
    });
    assert_eq!(leaked, None, "recovery");
    for part in ["wget -q", "curl -sf", "client fetch"] {
        assert!(seen.contains(&part.to_owned()), "{part} was never seen");
    }
    for log in logs.iter().chain([&stage.sidecar.log_text()]) {
        assert!(!log.contains(TOKEN), "{log}");
    }
    let archive = stage.archive();
    let find = format!("grep -rl {TOKEN} {} || true", archive.display());
    assert_eq!(shell(&find), "");
    refused_without_check(&stage);
}

/// Restores with a client, recovers every row, backs the copy up, and returns both logs.
fn recovered(stage: &Stage, client: &str, all: &str) -> String {
    let (mut cluster, options) = stage.restore_options(&format!("drill-{client}"), "");
    let options = options.set("WALE_RESTORE_CLIENT", client);
    cluster.path_prefix = Some(programs(stage, client));
    let sidecar = start(&stage.sandbox, &options);
    cluster.configure(&["archive_mode = off".into()]);
    let file = cluster.data.join("wale_restore_authorization");
    if client == "wale" {
        assert!(!file.exists());
    } else {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    cluster.start();
    cluster.wait_promoted();
    assert_eq!(fingerprint(&cluster, "t"), all, "{client}");
    let command = cluster.sql("show restore_command");
    assert!(
        command.contains("https://") && !command.contains(TOKEN),
        "{command}"
    );
    sidecar.log_text() + &cluster.log_text()
}

/// `BusyBox` under the name of wget cannot check the certificate: the server stops and does not promote.
fn refused_without_check(stage: &Stage) {
    let (mut cluster, options) = stage.restore_options("drill-busybox", "");
    let options = options.set("WALE_RESTORE_CLIENT", "wget");
    cluster.path_prefix = Some(programs(stage, "busybox"));
    let _sidecar = start(&stage.sandbox, &options);
    cluster.configure(&["archive_mode = off".into()]);
    cluster.launch();
    cluster.wait_stopped(Duration::from_secs(60));
    let log = cluster.log_text();
    assert!(log.contains("unrecognized option"), "{log}");
    assert!(!log.contains("selected new timeline"), "{log}");
    let refused = wale_command(WALE, "wale", &options.set("WALE_RESTORE_CLIENT", "busybox"))
        .arg("serve")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(78));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("cannot check the certificate"), "{text}");
}
