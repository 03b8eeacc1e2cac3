//! Two members under the real Patroni with etcd, and a new cluster of Patroni's made from the archive: as
//! `docs/guide/patroni.md` says. `scripts/setup.sh` installs both.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wale_testkit::{
    Cluster, Sandbox, Sidecar, SidecarOptions, client_tool, free_port, get, shell, wait_until,
};

use crate::support::{WALE, archive_all, fingerprint, wait_fingerprint};

const GUIDE: &str = include_str!("../../../../docs/guide/patroni.md");

/// Row 110, the parts of Patroni: a replica made by `patroni_wale_restore` follows its leader, and a new cluster made by a custom
/// bootstrap has the rows of the moment that was asked for.
#[test]
fn fault_110_patroni_makes_a_replica_and_a_new_cluster_from_the_archive() {
    let sandbox = Sandbox::new("patroni");
    let programs = Programs::new(&sandbox);
    let etcd = Etcd::start(&sandbox);
    let envdir = sandbox.folder("env");

    let leader = Cluster::at(&sandbox, 15, "one", free_port());
    let options = SidecarOptions::new(&sandbox, &leader);
    std::fs::write(
        envdir.join("WALE_FILE_PREFIX"),
        &options.environment["WALE_FILE_PREFIX"],
    )
    .unwrap();
    let _ = sandbox.folder("one");
    let sidecar = Sidecar::start(&sandbox, WALE, &options);
    let archiving = format!(
        "archive_command: \"wget -q --tries=1 --timeout=120 -O - http://127.0.0.1:{}/wal-push/%f\"",
        sidecar.port
    );
    let archiving = ["archive_mode: \"on\"", "archive_timeout: 60s", &archiving];
    let member = |name: &'static str, cluster| {
        Member::new(&sandbox, &programs, &etcd, &envdir, name, cluster)
    };

    let leader = member("one", leader).start(&cluster_settings(&archiving, ""));
    leader.wait("/primary");
    leader.cluster.sql("create table t (id int, v int)");
    rows(&leader.cluster, 1);
    let data = leader.cluster.data.to_string_lossy().into_owned();
    let exit = sidecar.verb(WALE, "wale", &["backup-push", &data]);
    assert_eq!(exit.code(), 0, "{}", exit.stderr);
    rows(&leader.cluster, 2);
    archive_all(&leader.cluster);
    let wanted = fingerprint(&leader.cluster, "t");
    let target = leader.cluster.sql("select clock_timestamp()");
    rows(&leader.cluster, 3);
    archive_all(&leader.cluster);

    let replica = Cluster::at(&sandbox, 15, "two", free_port());
    let replica = member("two", replica).start(&cluster_settings(&archiving, ""));
    replica.wait("/replica");
    let log = replica.log();
    assert!(log.contains("using wal-e basebackup"), "{log}");
    rows(&leader.cluster, 4);
    let now = fingerprint(&leader.cluster, "t");
    wait_fingerprint(&replica.cluster, "t", &now);

    let script = bootstrap_script(&sandbox, &envdir, &target);
    let method = format!(
        "  method: wale\n  wale:\n    command: {}\n    keep_existing_recovery_conf: false\n    recovery_conf:\n      \
         restore_command: '{}'\n      recovery_target_timeline: latest\n      recovery_target_time: '{target}'\n      \
         recovery_target_action: promote\n",
        script.display(),
        wal_fetch(&envdir),
    );
    let copy = Cluster::at(&sandbox, 15, "copy", free_port());
    let alone = ["archive_mode: \"off\""];
    let mut copy = member("copy", copy);
    copy.scope = "copy";
    let copy = copy.start(&cluster_settings(&alone, &method));
    copy.wait("/primary");
    assert_eq!(fingerprint(&copy.cluster, "t"), wanted);
    rows(&copy.cluster, 5);
    // Production does not notice.
    assert_eq!(fingerprint(&leader.cluster, "t"), now);
    wait_fingerprint(&replica.cluster, "t", &now);
}

fn rows(cluster: &Cluster, id: i32) {
    cluster.sql(&format!(
        "insert into t select {id}, g from generate_series(1, 1000) g"
    ));
}

fn wal_fetch(envdir: &Path) -> String {
    format!("envdir {} wal-e wal-fetch %f \"%p\"", envdir.display())
}

/// The guide's script, which Patroni calls to fill the data directory of a new cluster; with its sentence about a point in
/// time.
fn bootstrap_script(sandbox: &Sandbox, envdir: &Path, target: &str) -> PathBuf {
    let begin = GUIDE
        .find("#!/bin/sh\n# Patroni adds")
        .expect("the guide's script");
    let end = GUIDE[begin..].find("```").expect("its end");
    let script = GUIDE[begin..begin + end].replace("/etc/wal-e.d/env", &envdir.to_string_lossy());
    let addition =
        format!("#!/bin/sh\nexport RECOVERY_ADDITION=\"recovery_target_time = '{target}'\"\n");
    let script = script.replacen("#!/bin/sh\n", &addition, 1);
    let path = sandbox.path().join("restore.sh");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What all members of a cluster share: the server's parameters, and how the first is made.
fn cluster_settings(parameters: &[&str], method: &str) -> String {
    let mut text = "bootstrap:\n".to_owned() + method;
    text += "  dcs:\n    ttl: 20\n    loop_wait: 1\n    retry_timeout: 5\n    postgresql:\n      parameters:\n";
    for line in parameters {
        let _ = writeln!(text, "        {line}");
    }
    text += "  initdb:\n    - encoding: UTF8\n    - locale: C\n    - data-checksums\n";
    text
}

/// The programs that Patroni and its scripts call, on one `PATH`.
struct Programs {
    patroni: PathBuf,
    /// Debian's server: Patroni wants `pg_isready` beside it.
    server: PathBuf,
    path: String,
}

impl Programs {
    fn new(sandbox: &Sandbox) -> Self {
        let tools =
            std::env::var("WALE_TEST_TOOLS").unwrap_or_else(|_| "/var/tmp/wale-tools".into());
        let bin = Path::new(&tools).join("patroni/bin");
        let patroni = bin.join("patroni");
        assert!(
            patroni.exists(),
            "no {}: run scripts/setup.sh",
            patroni.display()
        );
        let own = sandbox.folder("program");
        std::fs::copy(WALE, own.join("wal-e")).unwrap();
        let path = format!(
            "{}:{}:/usr/local/bin:/usr/bin:/bin",
            own.display(),
            bin.display()
        );
        let server = client_tool("pg_isready");
        let server = server.parent().expect("its folder").to_owned();
        Self {
            patroni,
            server,
            path,
        }
    }
}

/// A store of configuration for Patroni. Dropping it kills it.
struct Etcd {
    child: Child,
    port: u16,
}

impl Etcd {
    fn start(sandbox: &Sandbox) -> Self {
        let (port, peer) = (free_port(), free_port());
        let (client_url, peer_url) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let log = File::create(sandbox.path().join("etcd.log")).unwrap();
        let child = Command::new("etcd")
            .args(["--name", "only", "--data-dir"])
            .arg(sandbox.path().join("etcd"))
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("only={peer_url}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd is installed: run scripts/setup.sh");
        let etcd = Self { child, port };
        wait_until("etcd to answer", Duration::from_secs(60), || {
            get(port, "/health")
                .ok()
                .filter(|reply| reply.status == 200)
        });
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A member that is to be started.
struct Member<'a> {
    sandbox: &'a Sandbox,
    programs: &'a Programs,
    etcd: &'a Etcd,
    envdir: &'a Path,
    name: &'a str,
    scope: &'a str,
    cluster: Cluster,
}

impl<'a> Member<'a> {
    fn new(
        sandbox: &'a Sandbox,
        programs: &'a Programs,
        etcd: &'a Etcd,
        envdir: &'a Path,
        name: &'a str,
        cluster: Cluster,
    ) -> Self {
        Self {
            sandbox,
            programs,
            etcd,
            envdir,
            name,
            scope: "demo",
            cluster,
        }
    }

    /// Patroni's configuration, whose section about replicas is the guide's.
    fn configuration(&self, api: u16) -> String {
        let (name, scope, cluster) = (self.name, self.scope, &self.cluster);
        let base = self.sandbox.path().display();
        let begin = GUIDE
            .find("  create_replica_methods:")
            .expect("the guide's section");
        let end = GUIDE[begin..].find("```").expect("its end");
        // Only from the archive: a copy of the leader would prove nothing.
        let replicas = GUIDE[begin..begin + end]
            .replace("[wal_e, basebackup]", "[wal_e]")
            // A test's backup is small beside its segments.
            .replace("percentage: 300", "percentage: 100000")
            .replace("/etc/wal-e.d/env", &self.envdir.to_string_lossy());
        format!(
            "scope: {scope}\nname: {name}\n\
             restapi:\n  listen: 127.0.0.1:{api}\n  connect_address: 127.0.0.1:{api}\n\
             etcd3:\n  host: 127.0.0.1:{etcd}\n\
             postgresql:\n  listen: 127.0.0.1:{port}\n  connect_address: 127.0.0.1:{port}\n  \
             data_dir: {data}\n  bin_dir: {bin}\n  pgpass: {base}/{name}.pgpass\n  \
             authentication:\n    superuser: {{username: postgres, password: super}}\n    \
             replication: {{username: replicator, password: copy}}\n  \
             pg_hba:\n    - local all all trust\n    - host all all 127.0.0.1/32 trust\n    \
             - host replication all 127.0.0.1/32 trust\n  \
             parameters:\n    unix_socket_directories: {socket}\n  \
             recovery_conf:\n    restore_command: '{fetch}'\n{replicas}",
            etcd = self.etcd.port,
            port = cluster.port,
            data = cluster.data.display(),
            bin = self.programs.server.display(),
            socket = cluster.socket.display(),
            fetch = wal_fetch(self.envdir),
        )
    }

    fn start(self, shared: &str) -> RunningMember {
        let api = free_port();
        let file = self.sandbox.path().join(format!("{}.yml", self.name));
        std::fs::write(&file, self.configuration(api) + shared).unwrap();
        let _ = self.sandbox.folder(self.name);
        let log = self
            .sandbox
            .path()
            .join(format!("patroni-{}.log", self.name));
        let out = File::create(&log).unwrap();
        let mut command = if shell("id -u").trim() == "0" {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
                .arg(&self.programs.patroni);
            command
        } else {
            Command::new(&self.programs.patroni)
        };
        let child = command
            .arg(&file)
            .env_clear()
            .env("PATH", &self.programs.path)
            .env("HOME", self.sandbox.path())
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .expect("Patroni starts");
        RunningMember {
            child,
            api,
            log,
            cluster: self.cluster,
        }
    }
}

/// Patroni and its server. Dropping it kills both, Patroni first.
struct RunningMember {
    child: Child,
    api: u16,
    log: PathBuf,
    cluster: Cluster,
}

impl RunningMember {
    /// Waits until Patroni answers `path` with 200: the member has this role and its server runs.
    fn wait(&self, path: &str) {
        wait_until("the member's role", Duration::from_secs(180), || {
            get(self.api, path).ok().filter(|reply| reply.status == 200)
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for RunningMember {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- Patroni ---\n{}", self.log());
        }
    }
}
