//! `archive_command` as the guide has it, run by a real server.

use std::time::Duration;

use wale_testkit::{Cluster, ClusterOptions, shell, wait_until};

use crate::support::Stage;

const LONG: Duration = Duration::from_secs(180);

/// The guide's lines that have a limit of time, against the sidecar at `port`, with a limit of 1 s.
fn documented(port: u16) -> Vec<String> {
    let guide = include_str!("../../../../docs/guide/archiving.md");
    let lines = guide
        .lines()
        .filter_map(|line| line.strip_prefix("archive_command = '"))
        .filter_map(|rest| rest.split_once('\''))
        .map(|(command, _)| command)
        .filter(|command| command.contains("120"));
    let here = format!("127.0.0.1:{port}");
    lines
        .map(|line| line.replace("wale:5000", &here).replace("120", "1"))
        .map(|line| match line.strip_prefix("timeout 1 wget") {
            Some(rest) => format!("busybox timeout 1 busybox wget{rest}"),
            None => line,
        })
        .collect()
}

fn signal(stage: &Stage, name: &str) {
    shell(&format!("kill -{name} {}", stage.sidecar.pid()));
}

fn wait_done(cluster: &Cluster, segment: &str) {
    let marks = cluster.wal.join("archive_status");
    // After three failures PostgreSQL sleeps for a minute.
    wait_until("the segment to be archived", LONG, || {
        marks.join(format!("{segment}.done")).exists().then_some(())
    });
}

fn set_command(server: &Cluster, command: &str) {
    server.sql(&format!("alter system set archive_command = '{command}'"));
    server.sql("select pg_reload_conf()");
    wait_until("the new archive_command", LONG, || {
        (server.sql("show archive_command") == *command).then_some(())
    });
}

/// The processes whose command line holds `text`.
fn running(text: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

/// Row 99: the sidecar stands still and does not answer. Each of the documented commands ends by itself, the server hands
/// the segment over again and it is archived; and a server that is told to stop meanwhile does, and loses nothing.
#[test]
fn fault_99_the_documented_commands_end_by_themselves_beside_a_frozen_sidecar() {
    let cluster = ClusterOptions {
        segment_mib: 1,
        ..ClusterOptions::default()
    };
    let stage = Stage::with("frozen", &cluster, |options| options);
    let server = &stage.cluster;
    server.sql("create table t (i int)");
    stage.archive_all();
    let commands = documented(stage.sidecar.port);
    assert_eq!(commands.len(), 3, "{commands:?}");
    let (last, others) = commands.split_last().unwrap();
    for command in others {
        set_command(server, command);
        signal(&stage, "STOP");
        server.sql("insert into t values (1)");
        let segment = server.switch_wal();
        let told = command.replace("%f", &segment);
        wait_until("the command to be given up", LONG, || {
            server.log_text().contains(&told).then_some(())
        });
        signal(&stage, "CONT");
        wait_done(server, &segment);
        let stored = stage.sidecar.get(&format!("/wal/{segment}"));
        let own = std::fs::read(server.wal.join(&segment)).unwrap();
        assert!(stored.status == 200 && stored.body == own, "{command}");
    }

    set_command(server, last);
    signal(&stage, "STOP");
    server.sql("insert into t values (2)");
    let segment = server.sql("select pg_walfile_name(pg_current_wal_lsn())");
    server.stop("fast");
    let log = server.log_text();
    let failures = log.matches("archive command failed with exit code").count();
    assert!(failures > others.len(), "{log}");
    assert!(!log.contains("archive command was terminated"), "{log}");
    let ready = server.wal.join(format!("archive_status/{segment}.ready"));
    assert!(ready.exists(), "{segment} waits");
    let left = running(&format!(":{}/wal-push/", stage.sidecar.port));
    assert_eq!(left, [""; 0], "no command outlives the server");
    signal(&stage, "CONT");
    server.start();
    wait_done(server, &segment);
    let stored = stage.sidecar.get(&format!("/wal/{segment}"));
    assert_eq!(stored.status, 200, "{}", stored.text());
}
