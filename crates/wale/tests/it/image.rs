//! The container image, built from the static binary and run with podman: archives, backs up, lists and
//! restores through the container, as any uid, with a read-only root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use wale_testkit::{
    Cluster, ClusterOptions, Sandbox, SidecarOptions, free_port, get, shell, skip, wait_until,
};

use crate::support::{archiving, fingerprint};

/// A running container, removed when dropped.
struct Container {
    name: String,
    port: u16,
}

impl Container {
    fn start(image: &str, sandbox: &Sandbox, options: &SidecarOptions) -> Self {
        let name = format!("wale-it-{}-{}", std::process::id(), options.port);
        let uid = shell("id -u postgres; id -g postgres")
            .trim()
            .replace('\n', ":");
        let folder = sandbox.path().display();
        let mut command = podman();
        command.args([
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            "host",
            "--read-only",
        ]);
        command.args([
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1000:1000",
        ]);
        command.args(["--user", &uid, "-v", &format!("{folder}:{folder}")]);
        for (key, value) in &options.environment {
            command.arg("-e").arg(format!("{key}={value}"));
        }
        output(command.arg(image));
        let container = Self {
            name,
            port: options.port,
        };
        wait_until("the container to listen", Duration::from_secs(60), || {
            get(container.port, "/ping")
                .ok()
                .filter(|reply| reply.status == 200)
        });
        container
    }

    fn exec(&self, arguments: &[&str]) -> String {
        output(podman().args(["exec", &self.name]).args(arguments))
    }

    /// A text file of the container.
    fn copy_out(&self, sandbox: &Sandbox, path: &str) -> String {
        let copy = sandbox.path().join("copied");
        let from = format!("{}:/{path}", self.name);
        output(podman().arg("cp").arg(from).arg(&copy));
        std::fs::read_to_string(copy).unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = podman().args(["logs", &self.name]).output();
            if let Ok(logs) = logs {
                eprintln!("{}", String::from_utf8_lossy(&logs.stderr));
            }
        }
        let _ = podman().args(["rm", "-f", "-t", "1", &self.name]).output();
    }
}

fn podman() -> Command {
    let mut command = Command::new("podman");
    command.args(["--runtime", "runc"]);
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("podman runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn static_binary(test: &str) -> Option<PathBuf> {
    let Some(path) = std::env::var_os("WALE_STATIC") else {
        skip(
            test,
            "WALE_STATIC names no static binary (scripts/test.sh sets it)",
        );
        return None;
    };
    if !rustix::process::geteuid().is_root() {
        skip(test, "podman is run as root here");
        return None;
    }
    Some(PathBuf::from(path))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The bill of materials, and the terms of others.
fn says_whose_work_it_holds(sidecar: &Container, sandbox: &Sandbox) {
    let bill: serde_json::Value =
        serde_json::from_str(&sidecar.copy_out(sandbox, "usr/share/doc/wale/sbom.cdx.json"))
            .unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert!(bill["components"].as_array().unwrap().len() > 100);
    let terms = sidecar.copy_out(sandbox, "usr/share/doc/wale/THIRD-PARTY-NOTICES.txt");
    for of in ["tokio ", "zstd-sys ", "the GNU C Library"] {
        assert!(terms.contains(of), "{of}");
    }
}

/// The statement beside the image is about this image and this binary.
fn says_where_it_comes_from(file: &Path, binary: &Path, tag: &str) {
    let text = std::fs::read_to_string(file).expect("written");
    let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(said["predicateType"], "https://slsa.dev/provenance/v1");
    let id = output(podman().args(["image", "inspect", "--format", "{{.Id}}", tag]));
    let subject = &said["subject"];
    assert_eq!(subject[0]["digest"]["sha256"], id.trim(), "{said}");
    let digest = shell(&format!("sha256sum {}", binary.display()));
    let digest = digest.split(' ').next().expect("a digest");
    assert_eq!(subject[1]["digest"]["sha256"], digest, "{said}");
}

#[test]
fn the_image_archives_backs_up_lists_and_restores() {
    let Some(binary) = static_binary("the_image_archives_backs_up_lists_and_restores") else {
        return;
    };
    let tag = format!("wale-it:{}", std::process::id());
    let sandbox = Sandbox::new("image");
    let provenance = sandbox.path().join("provenance.json");
    shell(&format!(
        "{}/scripts/image.sh {} {tag} {}",
        repository().display(),
        binary.display(),
        provenance.display()
    ));
    says_where_it_comes_from(&provenance, &binary, &tag);
    let image = format!("localhost/{tag}");
    let size: u64 = output(podman().args(["image", "inspect", "--format", "{{.Size}}", &image]))
        .trim()
        .parse()
        .unwrap();
    assert!(size < 32 * 1000 * 1000, "the image has {size} bytes");

    let cluster = Cluster::init(&sandbox, &ClusterOptions::default());
    let options = SidecarOptions::new(&sandbox, &cluster);
    cluster.configure(&archiving(options.port));
    let sidecar = Container::start(&image, &sandbox, &options);
    cluster.start();
    cluster.sql("create table t as select g from generate_series(1, 1000) g");
    let data = cluster.data.to_string_lossy().into_owned();
    sidecar.exec(&["wal-e", "backup-push", &data]);
    let list = sidecar.exec(&["wal-e", "backup-list"]);
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.starts_with("name\tlast_modified\t"), "{list}");
    assert!(sidecar.exec(&["wale", "client", "ready"]).len() < 200);
    says_whose_work_it_holds(&sidecar, &sandbox);
    cluster.sql("insert into t select generate_series(1, 500)");
    let noted = fingerprint(&cluster, "t");
    cluster.switch_wal();
    cluster.wait_archived();
    cluster.kill();
    drop(sidecar);

    let restored = Cluster::at(&sandbox, 15, "restored", free_port());
    let _ = sandbox.folder("restored");
    let port = free_port();
    let mut options = options
        .set("PGDATA", &restored.data.to_string_lossy())
        .set("PGWAL", &restored.data.join("pg_wal").to_string_lossy())
        .set("PGPORT", &restored.port.to_string())
        .set("WALE_LISTEN_PORT", &port.to_string())
        .set("START_MODE", "RESTORE");
    options.port = port;
    let sidecar = Container::start(&image, &sandbox, &options);
    wait_until("the restore", Duration::from_secs(60), || {
        get(port, "/startupz")
            .ok()
            .filter(|reply| reply.status == 200)
    });
    restored.configure(&archiving(port));
    restored.start();
    restored.wait_promoted();
    assert_eq!(fingerprint(&restored, "t"), noted);
    drop(sidecar);
    output(podman().args(["rmi", "-f", &image]));
}
