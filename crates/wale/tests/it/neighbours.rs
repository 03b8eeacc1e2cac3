//! Neighbours: clients that read slowly beside a recovery, and other programs' work below a shared prefix.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use wale_testkit::s3::{Action, BUCKET, Fault, Kind, S3Server};
use wale_testkit::{Sidecar, SidecarOptions, free_port, shell, wait_until};

use crate::s3_stage::{PATH, S3Stage};
use crate::support::{Stage, WALE, fingerprint, verify};

const LONG: Duration = Duration::from_secs(120);

/// Connections that ask for a file and read nothing of it.
fn slow_readers(port: u16, segment: &str, count: usize) -> Vec<TcpStream> {
    let head = format!("GET /wal/{segment} HTTP/1.1\r\nHost: x\r\n\r\n");
    let open = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // One that is turned away at once may be closed by now.
        let _ = stream.write_all(head.as_bytes());
        stream
    };
    (0..count).map(open).collect()
}

/// Row 88: 280 clients ask for files and read nothing, from the address that the recovery comes from, too. A server that
/// recovers through the same sidecar comes to the end of its WAL, and is not stopped by an answer that it takes for a failure.
#[test]
fn fault_88_slow_readers_do_not_keep_a_server_from_the_end_of_its_recovery() {
    let stage = Stage::new("readers", 15);
    let primary = &stage.cluster;
    primary.sql("create table t (v int)");
    stage.backup();
    let mut last = String::new();
    for part in 0..2 {
        primary.sql(&format!(
            "insert into t select {part} from generate_series(1, 1000)"
        ));
        last = stage.archive_all();
    }
    let expected = fingerprint(primary, "t");
    let recover = |client: &str| {
        let (mut cluster, options) = stage.restore_options(client, "");
        let folder = stage.sandbox.folder(&format!("bin-{client}"));
        shell(&format!("chmod 755 {}", folder.display()));
        if client == "wale" {
            std::fs::copy(WALE, folder.join("wale")).unwrap();
        }
        cluster.path_prefix = Some(folder);
        let options = options.set("WALE_RESTORE_CLIENT", client);
        let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
        sidecar.wait_ready(LONG);
        cluster.configure(&["archive_mode = off".into()]);
        let readers = slow_readers(sidecar.port, &last, 280);
        // 16 are served, 128 wait, and the others were turned away.
        wait_until("more to ask than can wait", LONG, || {
            (refused_reads(&sidecar) >= 120).then_some(())
        });
        cluster.start();
        cluster.wait_promoted();
        assert_eq!(fingerprint(&cluster, "t"), expected, "{client}");
        drop(readers);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| recover("wget"));
        scope.spawn(|| recover("wale"));
    });
}

/// How many requests for a WAL file were told to come again.
fn refused_reads(sidecar: &Sidecar) -> u32 {
    let series = "wale_http_requests_total{route=\"/wal\",status=\"503\"} ";
    let text = sidecar.get("/metrics").text();
    let count = text.lines().find_map(|line| line.strip_prefix(series));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

/// A sidecar of the same cluster with another archive.
fn sidecar_at(stage: &Stage, settings: impl FnOnce(SidecarOptions) -> SidecarOptions) -> Sidecar {
    let port = free_port();
    let mut options = settings(stage.options.clone()).set("WALE_LISTEN_PORT", &port.to_string());
    options.port = port;
    Sidecar::start(&stage.sandbox, WALE, &options)
}

fn wait_swept(sidecar: &Sidecar) {
    wait_until("the sweep", LONG, || {
        let log = sidecar.log_text();
        log.contains("removed what crashes left").then_some(())
    });
}

/// Row 95: an archive at the root of a bucket, below which another one and another program have theirs. A sweep takes what
/// was begun under the archive's own names; the other sidecar's base backup, which is being uploaded, ends whole.
#[test]
fn fault_95_a_sweep_leaves_the_uploads_of_others_below_its_prefix() {
    let s3 = S3Stage::with("s3-95", S3Server::moto, |options| {
        options.set("WALE_COMPRESSION", "none")
    });
    s3.stage
        .cluster
        .sql("create table filler as select repeat('x', 1000) v from generate_series(1, 30000)");
    // moto says of each upload that it began years ago, but of a part that it came just now: none arrives.
    s3.proxy.fault(Fault::on(&[Kind::PutPart]), Action::Stall);
    let begun = s3.stage.sidecar.get("/backup-push?wait=false");
    assert_eq!(begun.status, 202, "{}", begun.text());
    wait_until("a part", LONG, || {
        (s3.proxy.count(Kind::PutPart, "part_") >= 1).then_some(())
    });
    let own = "wal_005/000000010000000000000099.zst";
    let foreign = ["registry/layer-1", "wal_005/notes", "basebackups_005/x/y"];
    for key in foreign.iter().chain([&own]) {
        s3.server
            .send("POST", &format!("/{BUCKET}/{key}?uploads"), b"");
    }
    s3.proxy.forget();
    let root = sidecar_at(&s3.stage, |options| {
        options.on_s3(S3Server::settings(s3.proxy.port(), ""))
    });
    wait_swept(&root);
    let aborted: BTreeSet<String> = s3
        .proxy
        .requests()
        .into_iter()
        .filter(|seen| seen.kind == Kind::AbortUpload && !seen.key.contains("wale_probe_"))
        .map(|seen| seen.key)
        .collect();
    assert_eq!(aborted, BTreeSet::from([own.to_owned()]));
    let listed = s3.server.send("GET", &format!("/{BUCKET}?uploads="), b"");
    let is_listed = |key: &str| listed.text().contains(&format!("<Key>{key}</Key>"));
    assert!(foreign.iter().all(|key| is_listed(key)) && !is_listed(own));

    s3.proxy.clear();
    wait_until("the backup to end", LONG, || {
        let status = s3.stage.sidecar.get("/status").json();
        status["backup"]["running"].is_null().then_some(())
    });
    let backups = s3.stage.sidecar.get("/backups").json();
    assert_eq!(backups.as_array().map(Vec::len), Some(1), "{backups}");
    verify(&s3.stage.fetch("restored", &[]).data);
    assert!(s3.server.objects_with(PATH).len() > 3);
}

/// The same of folders: another archive's attempt that looks dead, its unfinished files and another program's stay.
#[test]
fn fault_95_a_sweep_leaves_the_files_of_others_below_its_folder() {
    let stage = Stage::new("shared", 15);
    stage.archive_all();
    let archive = stage.archive().display().to_string();
    let attempt = "basebackups_005/base_000000010000000000000002_00000040";
    let make = |folder: &str, old: &[&str]| {
        for file in old {
            let path = format!("{archive}/{folder}{file}");
            shell(&format!(
                "mkdir -p $(dirname {path}); echo x > {path}; touch -d '3 days ago' {path}"
            ));
        }
    };
    let own = [
        "wal_005/.000000010000000000000099.zst.1.2f.wale-tmp",
        &format!("{attempt}/wale_attempt.json"),
        &format!("{attempt}/tar_partitions/part_00000001.tar.zst"),
    ];
    make("", &own);
    make("team/pg/", &own);
    make(
        "",
        &[
            "wal_005/.notes.1.2f.wale-tmp",
            "registry/.layer.1.2f.wale-tmp",
            "registry/layer",
        ],
    );
    shell(&format!("chown -R postgres: {archive}"));
    let files = || {
        shell(&format!(
            "find {archive} -type f -mtime +1 -printf '%P\\n' | sort"
        ))
    };
    let before: BTreeSet<String> = files().lines().map(str::to_owned).collect();
    let sidecar = sidecar_at(&stage, |options| options);
    wait_swept(&sidecar);
    let after: BTreeSet<String> = files().lines().map(str::to_owned).collect();
    let gone: Vec<&String> = before.difference(&after).collect();
    let mut expected = own.to_vec();
    expected.sort_unstable();
    assert_eq!(gone, expected);
}
