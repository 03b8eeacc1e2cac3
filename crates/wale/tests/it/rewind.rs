//! `pg_rewind -c`: the WAL that an old primary has recycled comes through the very command that a restore writes.

use std::os::unix::fs::symlink;
use std::path::Path;

use wale_cluster::recovery::{RecoveryMode, RestoreClient, RestoreEndpoint, restore_command};
use wale_testkit::{Cluster, client_tool, free_port, shell};

use crate::support::{Stage, WALE, archive_all, fingerprint, wait_fingerprint, wait_streaming};

/// Row 110, the part of `pg_rewind`: a diverged primary whose own WAL is in the archive alone is rewound through each
/// client and by `wal-fetch`, and is what its new primary is. (13 and later; Debian has the program of one major.)
#[test]
fn fault_110_pg_rewind_fetches_through_each_client() {
    let stage = Stage::new("rewind", 15);
    let first = &stage.cluster;
    first.sql("create table t (id int, v int)");
    stage.backup();
    let upstream = |of: &Cluster| {
        format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres'",
            of.port
        )
    };
    let (second, _second_sidecar, _) = stage.standby("second", &upstream(first), &[]);
    wait_streaming(first);
    rows(first, 1);
    wait_fingerprint(&second, "t", &fingerprint(first, "t"));
    second.promote();
    rows(&second, 2);
    archive_all(&second);
    // The old primary goes on, and archives what nobody else has.
    for round in 10..14 {
        rows(first, round);
        stage.archive_all();
    }
    first.stop("fast");

    let program = stage.sandbox.folder("program");
    std::fs::copy(WALE, program.join("wale")).unwrap();
    symlink("/bin/busybox", stage.sandbox.folder("busybox").join("wget")).unwrap();
    let text = |client| through(client, stage.sidecar.port);
    let verb = format!(
        "env WALE_FILE_PREFIX=file://{} wale wal-fetch %f \"%p\"",
        stage.archive().display()
    );
    for (name, path, command) in [
        ("wget", "/usr/bin".into(), text(RestoreClient::Wget)),
        (
            "busybox",
            stage.sandbox.path().join("busybox"),
            text(RestoreClient::Wget),
        ),
        ("curl", "/usr/bin".into(), text(RestoreClient::Curl)),
        ("wale", program.clone(), text(RestoreClient::Wale)),
        ("verb", program.clone(), verb),
    ] {
        let rewound = without_its_wal(&stage, &format!("old-{name}"));
        set_restore_command(&rewound, &command);
        rewind(&rewound, &second, &path);
        rewound.configure(&[
            "hot_standby = on".into(),
            "archive_mode = off".into(),
            upstream(&second),
        ]);
        let data = rewound.data.display();
        shell(&format!(
            "touch {data}/standby.signal; chown postgres {data}/standby.signal"
        ));
        rewound.start();
        rows(&second, 20);
        wait_fingerprint(&rewound, "t", &fingerprint(&second, "t"));
        rewound.stop("immediate");
    }
}

fn rows(cluster: &Cluster, id: i32) {
    cluster.sql(&format!(
        "insert into t select {id}, g from generate_series(1, 100) g"
    ));
}

/// A copy of the old primary's directory, without the segments that are archived.
fn without_its_wal(stage: &Stage, name: &str) -> Cluster {
    let copy = Cluster::at(&stage.sandbox, 15, name, free_port());
    shell(&format!(
        "cp -a {0} {1}; cd {1}/pg_wal; for mark in archive_status/*.done; do\n\
         rm -f \"$(basename \"$mark\" .done)\"; done",
        stage.cluster.data.display(),
        copy.data.display()
    ));
    // The checkpoint at its end has recycled some already.
    let is_own = |name: &&String| name.starts_with("00000001") && name.len() == 24;
    let archived: Vec<String> = stage.wal_names().iter().filter(is_own).cloned().collect();
    assert!(archived.len() >= 5, "{archived:?}");
    assert!(
        archived.iter().all(|name| !copy.wal.join(name).exists()),
        "{archived:?}"
    );
    copy
}

/// Runs `pg_rewind -c` with `path` before everything else in its `PATH`.
fn rewind(target: &Cluster, source: &Cluster, path: &Path) {
    let said = shell(&format!(
        "cd /; runuser -u postgres -- env PATH={}:/usr/local/bin:/usr/bin:/bin {} -c --target-pgdata={} \
         --source-server='host=127.0.0.1 port={} user=postgres dbname=postgres' 2>&1",
        path.display(),
        client_tool("pg_rewind").display(),
        target.data.display(),
        source.port
    ));
    assert!(said.contains("Done!"), "{said}");
}

/// The command by which a client fetches from the sidecar.
fn through(client: RestoreClient, port: u16) -> String {
    let endpoint = RestoreEndpoint {
        host: "127.0.0.1".to_owned(),
        port,
        token: None,
        tls: None,
    };
    let command = restore_command(client, &endpoint, RecoveryMode::Recover);
    command.unwrap().text
}

fn set_restore_command(cluster: &Cluster, command: &str) {
    let auto = cluster.data.join("postgresql.auto.conf");
    let quoted = command.replace('\'', "''");
    shell(&format!(
        "cat >> {} <<'END'\nrestore_command = '{quoted}'\nEND",
        auto.display()
    ));
}
