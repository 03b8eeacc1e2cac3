//! WAL segments of other sizes than 16 MiB, and names where their last part begins again: after `FF` only with 16 MiB.

use wale_testkit::{ClusterOptions, Sidecar, client_tool, run_as_postgres};

use crate::support::{Stage, WALE, fingerprint, on_every_major, verify};

/// The sizes that a major can have: `initdb --wal-segsize` came with 11.
fn sizes(major: u32) -> &'static [u32] {
    if major == 10 { &[16] } else { &[1, 64] }
}

fn stage(name: &str, major: u32, segment_mib: u32) -> Stage {
    let options = ClusterOptions {
        major,
        segment_mib,
        ..ClusterOptions::default()
    };
    let name = format!("{name}{major}x{segment_mib}");
    let stage = Stage::with(&name, &options, |options| options);
    stage.cluster.sql("create table t (v int)");
    stage
}

/// Writes and closes some segments.
fn write(stage: &Stage, segments: u32) -> Vec<String> {
    (0..segments)
        .map(|part| {
            stage.cluster.sql(&format!(
                "insert into t select {part} from generate_series(1, 500)"
            ));
            stage.cluster.switch_wal()
        })
        .collect()
}

/// A backlog that is pushed ahead, a backup, and a restore that fetches ahead.
#[test]
fn segments_of_1_and_64_mib_are_archived_and_restored_on_every_major() {
    on_every_major(|major| {
        for &size in sizes(major) {
            let mut stage = stage("sized", major, size);
            stage.sidecar.kill();
            let backlog = write(&stage, 4);
            stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
            stage.cluster.wait_archived();
            assert!(
                metric(&stage.sidecar, "wale_wal_look_ahead_hits_total") > 0,
                "PostgreSQL {major}, {size} MiB"
            );
            for name in &backlog {
                let reply = stage.sidecar.get(&format!("/wal/{name}"));
                assert_eq!(reply.body.len(), (size as usize) << 20, "{name}");
            }
            stage.backup();
            write(&stage, 4);
            stage.cluster.wait_archived();
            let noted = fingerprint(&stage.cluster, "t");
            stage.cluster.kill();
            verify(&stage.fetch("plain", &[]).data);

            let (restored, _sidecar) = stage.restore("restored", "", &[]);
            restored.start();
            restored.wait_promoted();
            assert_eq!(
                fingerprint(&restored, "t"),
                noted,
                "PostgreSQL {major}, {size} MiB"
            );
            restored.sql("insert into t values (0)");
            let segment = crate::support::archive_all(&restored);
            assert!(segment.starts_with("00000002"), "{segment}");
        }
    });
}

/// `pg_resetwal` puts the server two segments before the end of the last part of the names.
#[test]
fn names_go_on_where_their_last_part_ends_at_every_segment_size() {
    for size in [1, 16, 64] {
        let stage = stage("crossing", 15, size);
        let pg = &stage.cluster;
        pg.stop("fast");
        let last = 4096 / size - 1;
        let start = format!("0000000100000000{:08X}", last - 2);
        let data = pg.data.to_string_lossy().into_owned();
        run_as_postgres(&client_tool("pg_resetwal"), &["-l", &start, "-D", &data]);
        pg.start();
        stage.backup();
        let written = write(&stage, 5);
        pg.wait_archived();
        let edge = [
            format!("0000000100000000{last:08X}"),
            "000000010000000100000000".to_owned(),
        ];
        for name in &edge {
            assert!(
                written.contains(name),
                "{size} MiB: {name} is not in {written:?}"
            );
            assert_eq!(
                stage.sidecar.get(&format!("/wal/{name}")).status,
                200,
                "{name}"
            );
        }
        let noted = fingerprint(pg, "t");
        let (restored, _sidecar) = stage.restore("restored", "", &["archive_mode = off".into()]);
        restored.start();
        restored.wait_promoted();
        assert_eq!(fingerprint(&restored, "t"), noted, "{size} MiB");
    }
}

/// The value of a counter.
fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    let text = sidecar.get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in {text}"))
}
