//! The documents, executed: every block of `README.md` and of the pages of the guide runs as it is written, beside real
//! servers. A block that cannot run says why in a comment above it (`<!-- not run: … -->`). A block that neither runs nor
//! says so is a failure, and so is a page that no test reads.
//!
//! What a reader puts in (hosts, paths, names of backups) stands in each page's test, as `page.replace`. For
//! `docker compose exec wale` stands the environment of the sidecar.

mod by_hand;
mod page;

use std::time::Duration;

use wale_testkit::azure::{ACCOUNT, ACCOUNT_KEY, Azurite, CONTAINER};
use wale_testkit::gcs::{GcsServer, service_account};
use wale_testkit::s3::{BUCKET, S3Server};
use wale_testkit::swift::{Keystone, SwiftServer};
use wale_testkit::{
    Cluster, ClusterOptions, Sandbox, Sidecar, StoreServer, free_port, get, wait_until,
};

use self::by_hand::restore_by_hand;
use self::page::{Page, Shell, blocks, parse_yaml, root};
use crate::support::{Stage, WALE, fingerprint};
use crate::wal_g_golden::Golden;
use crate::{tls, wal_e_golden, walrus};

/// The pages with their tests.
macro_rules! pages {
    ($($test:ident: $page:literal, $body:expr;)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() {
                let mut page = Page::open($page);
                let body: fn(&mut Page) = $body;
                body(&mut page);
                page.finish();
            }
        )*
    };
}

pages! {
    the_readme_runs: "README.md", readme;
    the_guide_to_archiving_runs: "docs/guide/archiving.md", archiving;
    the_guide_to_azure_runs: "docs/guide/azure.md", azure;
    the_guide_to_backups_runs: "docs/guide/backup.md", backup;
    the_guide_to_copies_runs: "docs/guide/copy.md", copying;
    the_guide_from_wal_e_runs: "docs/guide/from-wal-e.md", from_wal_e;
    the_guide_from_wal_g_runs: "docs/guide/from-wal-g.md", from_wal_g;
    the_guide_from_walrus_runs: "docs/guide/from-walrus.md", from_walrus;
    the_guide_to_google_runs: "docs/guide/gcs.md", gcs;
    the_guide_to_a_host_runs: "docs/guide/host.md", host;
    the_guide_to_keys_runs: "docs/guide/keys.md", keys;
    the_guide_to_kubernetes_runs: "docs/guide/kubernetes.md", |_| {};
    the_guide_to_monitoring_runs: "docs/guide/monitoring.md", |_| {};
    the_guide_to_the_page_runs: "docs/guide/page.md", |_| {};
    the_guide_to_patroni_runs: "docs/guide/patroni.md", patroni;
    the_guide_to_a_point_in_time_runs: "docs/guide/point-in-time.md", point_in_time;
    a_backup_is_restored_by_hand_with_tar_zstd_and_a_shell:
        "docs/guide/restore-by-hand.md", |page| restore_by_hand(page, "zstd");
    a_backup_is_restored_by_hand_with_tar_lzop_and_a_shell:
        "docs/guide/restore-by-hand.md", |page| restore_by_hand(page, "lzo");
    the_guide_to_rehearsals_runs: "docs/guide/rehearse.md", rehearsals;
    the_guide_to_requests_runs: "docs/guide/requests.md", |_| {};
    the_guide_to_a_restore_runs: "docs/guide/restore.md", restore;
    the_guide_to_retention_runs: "docs/guide/retention.md", retention;
    the_guide_to_several_archives_runs: "docs/guide/several-archives.md", several_archives;
    the_guide_to_s3_runs: "docs/guide/s3.md", s3;
    the_guide_to_stores_runs: "docs/guide/stores.md", |_| {};
    the_guide_to_swift_runs: "docs/guide/swift.md", swift;
    the_guide_to_tls_runs: "docs/guide/tls.md", over_tls;
    the_guide_to_verification_runs: "docs/guide/verify.md", |_| {};
}

#[test]
fn every_page_has_a_test_and_every_block_that_does_not_run_says_why() {
    let mut pages = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs/guide")).unwrap() {
        let name = entry.unwrap().file_name();
        pages.push(format!("docs/guide/{}", name.to_string_lossy()));
    }
    let (mut run, mut marked) = (0, Vec::new());
    for page in &pages {
        assert!(PAGES.contains(&page.as_str()), "no test runs {page}");
        for block in blocks(&std::fs::read_to_string(root().join(page)).unwrap()) {
            match block.marker {
                None => run += 1,
                Some(why) => {
                    assert!(
                        why.len() > 10,
                        "{page}:{}: {why:?} is no reason",
                        block.line
                    );
                    marked.push(format!("{page}:{}: {why}", block.line));
                }
            }
        }
    }
    assert!(
        PAGES
            .iter()
            .all(|page| pages.iter().any(|known| known == page))
    );
    println!(
        "{run} blocks run, {} do not:\n{}",
        marked.len(),
        marked.join("\n")
    );
}

/// A stand-in for Docker: what it is asked to run in the sidecar's container runs in the shell, which has its
/// environment.
const DOCKER: &str = r#"[ "$1 $2 $3" = "compose exec wale" ] || { echo "no stand-in for docker $*" >&2; exit 9; }
shift 3
exec "$@""#;

fn readme(page: &mut Page) {
    let stage = Stage::new("readme", 15);
    page.replace(
        "/var/lib/postgresql/data",
        stage.cluster.data.display().to_string(),
    );
    page.replace(
        "localhost:5000",
        format!("localhost:{}", stage.options.port),
    );
    let mut shell = Shell::of_sidecar(&stage.sandbox, &stage.cluster, &stage.options);
    shell.program("docker", DOCKER);
    page.yaml();
    let told = page.sh(&mut shell);
    assert!(
        told.contains("wal_segment_backup_start") && told.contains("last_failure"),
        "{told}"
    );
    parse_yaml(
        "compose.yaml",
        &std::fs::read_to_string(root().join("compose.yaml")).unwrap(),
    );
}

/// The commands of `archive_command = '…'` lines.
fn archive_commands(ini: &str) -> Vec<String> {
    ini.lines()
        .filter_map(|line| line.strip_prefix("archive_command = '"))
        .map(|rest| rest.split_once('\'').expect("a closing quote").0.to_owned())
        .collect()
}

/// Runs an `archive_command` as the archiver does: it succeeds for a segment that is there, and fails for one that is not.
fn archives(shell: &mut Shell, command: &str, segment: &str) {
    let good = shell.write("good", &command.replace("%f", segment));
    let bad = shell.write("bad", &command.replace("%f", "0000000100000000000000FF"));
    let lines = format!(
        "sh {}
if sh {}; then exit 9; fi
",
        good.display(),
        bad.display()
    );
    shell.run(command, &lines);
}

fn archiving(page: &mut Page) {
    let stage = Stage::new("archiving-guide", 15);
    page.replace("wale:5000", format!("127.0.0.1:{}", stage.options.port));
    let ini = page.ini();
    // PostgreSQL takes every line of it.
    stage.cluster.configure(std::slice::from_ref(&ini));
    let wrong = "select name || ': ' || error from pg_file_settings where error is not null and name <> 'wal_level'";
    assert_eq!(stage.cluster.sql(wrong), "");
    let segment = stage.archive_all();
    let mut shell = Shell::start(&stage.sandbox, &stage.cluster, []);
    let commands = archive_commands(&ini);
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in commands {
        archives(&mut shell, &command, &segment);
    }
}

fn backup(page: &mut Page) {
    let stage = Stage::new("backup-guide", 15);
    let port = stage.options.port;
    page.replace(
        "/var/lib/postgresql/data",
        stage.cluster.data.display().to_string(),
    );
    page.replace("localhost:5000", format!("localhost:{port}"));
    let mut shell = Shell::of_sidecar(&stage.sandbox, &stage.cluster, &stage.options);
    shell.program("docker", DOCKER);
    page.sh(&mut shell);
    // The one that was asked for last is on its way.
    wait_until("three backups", Duration::from_mins(2), || {
        let list = get(port, "/backups").ok()?.json();
        (list.as_array()?.len() == 3).then_some(())
    });
    stage.cluster.sql("create role wale login");
    page.sql(&stage.cluster);
    let told = page.sh(&mut shell);
    assert_eq!(told.matches("\"name\": \"base_").count(), 3, "{told}");
    stage.archive_all();
    stage.cluster.stop("fast");
    page.sh(&mut shell);
}

/// An archive that the real WAL-E made.
fn from_wal_e(page: &mut Page) {
    let stage = Stage::new("from-wal-e-guide", 14);
    let archive = wal_e_golden::unpacked(&stage.sandbox);
    let empty = stage.sandbox.folder("empty");
    page.replace("/srv/wale-archive", archive.display().to_string());
    page.replace("/srv/empty", empty.display().to_string());
    let elsewhere = empty.display().to_string();
    let settings = [("PGDATA", elsewhere.as_str())];
    let mut shell = Shell::start(&stage.sandbox, &stage.cluster, settings);
    let told = page.sh(&mut shell);
    for words in [
        "2, of which 2 can be restored",
        "by WAL-E",
        "lzo",
        "to the end of segment",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

/// wale's own archive has WAL-G's layout; the settings are WAL-G's.
fn keys(page: &mut Page) {
    if std::process::Command::new("age")
        .arg("--version")
        .output()
        .is_err()
    {
        wale_testkit::skip("the guide to keys", "the program age is not installed");
        return;
    }
    let sandbox = Sandbox::new("keys-guide");
    let folder = sandbox.folder("keys").display().to_string();
    page.replace("wale-archive.", format!("{folder}/wale-archive."));
    page.replace("base.tar.zst.age", format!("{folder}/base.tar.zst.age"));
    let cluster = Cluster::init(&sandbox, &ClusterOptions::default());
    let mut shell = Shell::start(&sandbox, &cluster, []);
    page.sh(&mut shell);
    page.yaml();
    shell.run(
        "an object",
        &format!(
            "cd {folder} && tar -cf - wale-archive.pub | zstd -qc | age -R wale-archive.pub -o base.tar.zst.age"
        ),
    );
    assert!(page.sh(&mut shell).contains("wale-archive.pub"));
}

/// An archive that the real WAL-G made; the newest backup is a delta.
fn from_wal_g(page: &mut Page) {
    let golden = Golden::chain("from-wal-g-guide");
    page.replace("/srv/walg-archive", golden.archive.display().to_string());
    let (told, restored) = taken_over(page, &golden.sandbox);
    for words in ["4, of which 4 can be restored", "by WAL-G", "_D_"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    golden.compare_the_end(&restored);
}

/// An archive that the real walrus made.
fn from_walrus(page: &mut Page) {
    let sandbox = Sandbox::new("from-walrus-guide");
    let Some(begun) = walrus::begin(&sandbox, "zstd", &walrus::Source::Files) else {
        page.pass_over();
        return;
    };
    let archive = sandbox.path().join("archive").display().to_string();
    page.replace("/srv/walrus-archive", archive);
    let (told, restored) = taken_over(page, &sandbox);
    assert!(told.contains("1, of which 1 can be restored"), "{told}");
    assert_eq!(fingerprint(&restored, "t"), begun.noted);
}

/// Runs the two blocks of a page about another tool: the look at its archive, and the restore of its newest backup, into a server
/// beside whatever else there is. What the first one printed, and the server.
fn taken_over(page: &mut Page, sandbox: &Sandbox) -> (String, Cluster) {
    let empty = sandbox.folder("empty");
    page.replace("/srv/empty", empty.display().to_string());
    let restored = Cluster::at(sandbox, 15, "empty/data", free_port());
    let place = format!(
        "-c archive_mode=off -c port={} -c unix_socket_directories={}",
        restored.port,
        restored.socket.display()
    );
    page.replace("-c archive_mode=off", place);
    let mut shell = Shell::start(sandbox, &restored, []);
    let told = page.sh(&mut shell);
    page.sh(&mut shell);
    restored.wait_promoted();
    assert_eq!(restored.sql("show archive_mode"), "off");
    (told, restored)
}

fn host(page: &mut Page) {
    let stage = Stage::new("host-guide", 15);
    page.replace(
        "/srv/wal-archive/main",
        stage.archive().display().to_string(),
    );
    page.replace(
        "/var/lib/postgresql/15/main",
        stage.cluster.data.display().to_string(),
    );
    page.replace(
        "/var/run/postgresql",
        stage.cluster.socket.display().to_string(),
    );
    let mut shell = Shell::start(&stage.sandbox, &stage.cluster, []);
    let file = shell.write("main.conf", &page.ini());
    let port = stage.cluster.port;
    let lines = format!(
        "export WALE_CONFIG_FILE={} PGPORT={port}\nwale config show\nwale backup-push {}\nwale backup-list\n",
        file.display(),
        stage.cluster.data.display()
    );
    let told = shell.run("host.md", &lines);
    assert!(
        told.contains("0 3 * * *") && told.contains("base_"),
        "{told}"
    );
}

fn patroni(page: &mut Page) {
    let stage = Stage::new("patroni-guide", 15);
    stage.backup();
    for _ in 0..3 {
        page.yaml();
    }
    let settings = stage.sandbox.folder("env");
    let prefix = format!("file://{}", stage.archive().display());
    std::fs::write(settings.join("WALE_FILE_PREFIX"), prefix).unwrap();
    page.replace("/etc/wal-e.d/env", settings.display().to_string());
    let mut shell = Shell::start(&stage.sandbox, &stage.cluster, []);
    // daemontools' program, which few machines have.
    let envdir = r#"for file in "$1"/*; do export "${file##*/}=$(cat "$file")"; done
shift
exec "$@""#;
    shell.program("envdir", envdir);
    let data = stage.sandbox.folder("replica");
    page.script(
        &mut shell,
        &format!("--scope=demo --datadir={}", data.display()),
    );
    assert!(data.join("global/pg_control").exists());
}

fn point_in_time(page: &mut Page) {
    let stage = Stage::new("point-guide", 15);
    let production = &stage.cluster;
    production.sql("create table t (v int)");
    stage.backup();
    production.sql("insert into t values (1)");
    let moment = production.sql("select clock_timestamp()");
    production.sql("select pg_sleep(0.01)");
    production.sql("insert into t values (2)");
    stage.archive_all();

    let copy = Cluster::at(&stage.sandbox, 15, "copy", wale_testkit::free_port());
    let data = stage.sandbox.folder("copy");
    page.replace("/srv/copy", data.display().to_string());
    page.replace(
        "/srv/restored",
        stage.sandbox.folder("restored").display().to_string(),
    );
    page.replace("-p 5433", format!("-p {}", copy.port));
    page.replace("--port 5433", format!("--port {}", copy.port));
    page.replace("2026-11-28 02:12:00+00", moment.clone());
    let prefix = format!("file://{}", stage.archive().display());
    let socket = production.socket.display().to_string();
    let environment = [("WALE_FILE_PREFIX", prefix.as_str()), ("PGHOST", &socket)];
    let mut shell = Shell::start(&stage.sandbox, production, environment);
    let told = page.sh(&mut shell);
    assert!(
        told.contains(&moment) && told.contains("the newest commit in it"),
        "{told}"
    );
    page.yaml();
    page.sh(&mut shell);
    let mut copy = copy;
    copy.socket.clone_from(&production.socket);
    wait_until("the target", Duration::from_mins(1), || {
        (copy.sql("select pg_is_wal_replay_paused()") == "t").then_some(())
    });
    assert_eq!(copy.sql("select string_agg(v::text, ' ') from t"), "1");
    assert_eq!(copy.sql("show archive_mode"), "off");
    copy.kill();

    // Production takes a timeline of its own.
    production.stop("fast");
    let wrapper = format!(
        "PATH={} WALE_LISTEN_PORT={} exec wale \"$@\"",
        shell.path, stage.options.port
    );
    let shared = shell.program("shared-wale", &wrapper);
    page.replace("/shared/wale", shared.display().to_string());
    shell.run("PGDATA", &format!("PGDATA={}", production.data.display()));
    page.sh(&mut shell);
    production.start();
    production.wait_promoted();
    assert!(
        production
            .sql("select pg_walfile_name(pg_current_wal_lsn())")
            .starts_with("00000002")
    );
    production.sql("alter system reset restore_command");
    production.sql("alter system reset recovery_target_timeline");
}

/// The name of the newest base backup.
fn newest(stage: &Stage) -> String {
    let list = stage.sidecar.get("/backups").json();
    let names = list.as_array().into_iter().flatten();
    let newest = names.filter_map(|backup| backup["name"].as_str()).max();
    newest.expect("a base backup").to_owned()
}

fn restore(page: &mut Page) {
    let stage = Stage::new("restore-guide", 15);
    let data = stage.cluster.data.display().to_string();
    stage.backup();
    page.replace("base_000000010000000000000003_00000040", newest(&stage));
    page.replace(
        "/path/to",
        stage.sandbox.folder("restored").display().to_string(),
    );
    let mut shell = Shell::of_sidecar(&stage.sandbox, &stage.cluster, &stage.options);
    let told = page.sh(&mut shell);
    assert!(told.contains("restored") && told.contains("next"), "{told}");
    let copy = Cluster::at(
        &stage.sandbox,
        15,
        "restored/data",
        wale_testkit::free_port(),
    );
    copy.configure(&["archive_mode = off".into()]);
    copy.start();
    copy.wait_promoted();
    copy.kill();
    page.sh(&mut shell);
    crate::support::verify(&stage.sandbox.path().join("restored/another"));
    let old = stage.sandbox.folder("old");
    stage.cluster.sql(&format!(
        "create tablespace elsewhere location '{}'",
        old.display()
    ));
    stage
        .cluster
        .sql("create table t tablespace elsewhere as select generate_series(1, 1000) v");
    assert_eq!(
        stage
            .sidecar
            .verb(WALE, "wale", &["backup-push", &data])
            .code(),
        0
    );
    let new = stage.sandbox.path().join("new");
    page.replace("/old/tablespace", old.display().to_string());
    page.replace("/new/place", new.display().to_string());
    page.sh(&mut shell);
    crate::support::verify(&stage.sandbox.path().join("restored/third"));
    assert!(new.read_dir().unwrap().next().is_some());
}

fn rehearsals(page: &mut Page) {
    let stage = Stage::new("rehearse-guide", 15);
    stage.cluster.sql("create table orders (v int)");
    stage.backup();
    stage.cluster.sql("insert into orders values (1)");
    stage.archive_all();
    let place = stage.sandbox.folder("place");
    let checks = place.join("checks.sql");
    std::fs::write(&checks, "select count(*) >= 0 from orders;").expect("written");
    wale_testkit::shell(&format!("chmod a+r {}", checks.display()));
    page.replace("/path/to", place.display().to_string());
    let mut shell = Shell::of_sidecar(&stage.sandbox, &stage.cluster, &stage.options);
    for _ in 0..2 {
        let told = page.sh(&mut shell);
        assert!(told.contains("a restore from this backup works"), "{told}");
    }
    assert!(!place.join("scratch").exists());
}

fn retention(page: &mut Page) {
    let stage = Stage::new("retention-guide", 15);
    stage.backup();
    stage
        .cluster
        .sql("create table t as select generate_series(1, 1000) v");
    stage.backup();
    let newest = newest(&stage);
    let segment = newest[5..29].to_owned();
    page.replace("base_00000001000000000000000B_00000040", newest);
    page.replace("00000001000000000000000B", segment);
    let options = stage.options.clone().set("WALE_RETAIN_BACKUPS", "7");
    let mut shell = Shell::of_sidecar(&stage.sandbox, &stage.cluster, &options);
    for _ in 0..3 {
        page.sh(&mut shell);
    }
    assert_eq!(
        stage
            .sidecar
            .get("/backups")
            .json()
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

/// Pushes a segment and lists the backups with these lines as the configuration file. Gives the segment.
fn pushes_and_lists(cluster: &Cluster, shell: &mut Shell, configuration: &str) -> String {
    let file = shell.write("wale.conf", configuration);
    let keeps = ["archive_mode = on", "archive_command = 'false'"];
    cluster.configure(&keeps.map(str::to_owned));
    cluster.start();
    let segment = cluster.switch_wal();
    let lines = format!(
        "export WALE_CONFIG_FILE={}\nwale wal-push {}/{segment}\nwale backup-list\n",
        file.display(),
        cluster.wal.display()
    );
    shell.run("a store", &lines);
    segment
}

fn azure(page: &mut Page) {
    let sandbox = Sandbox::new("azure-guide");
    let server = Azurite::start(&sandbox);
    let cluster = Cluster::init(&sandbox, &ClusterOptions::default());
    let mut shell = Shell::start(&sandbox, &cluster, []);
    let secret = shell.write("azure", ACCOUNT_KEY);
    page.replace("wabs://container/path", format!("wabs://{CONTAINER}/path"));
    page.replace("NAME=account", format!("NAME={ACCOUNT}"));
    page.replace("/run/secrets/azure", secret.display().to_string());
    let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", server.port());
    let text = page.ini() + &format!("WALE_WABS_ENDPOINT={endpoint}\n");
    let segment = pushes_and_lists(&cluster, &mut shell, &text);
    assert_eq!(server.objects_with(&segment).len(), 1);
    page.json();
}

fn copying(page: &mut Page) {
    let stage = Stage::new("copy-guide", 15);
    stage.backup();
    stage.archive_all();
    let second = stage.sandbox.folder("second");
    page.replace("/mnt/second", second.display().to_string());
    let mut shell = Shell::of_sidecar(&stage.sandbox, &stage.cluster, &stage.options);
    let file = shell.write("second.conf", &page.ini());
    page.replace("/etc/wale/second.conf", file.display().to_string());
    let told = page.sh(&mut shell);
    assert!(
        told.contains("to copy") && told.contains("copied"),
        "{told}"
    );
    let listed = page.sh(&mut shell);
    assert!(listed.contains("base_00000001"), "{listed}");
    let wal = wale_testkit::shell(&format!("ls {}/wal_005", second.display()));
    assert_eq!(wal.lines().count(), stage.wal_names().len());
}

fn several_archives(page: &mut Page) {
    let mut stage = Stage::new("several-guide", 15);
    stage.sidecar.kill();
    let folder = stage.sandbox.folder("second");
    page.replace("/mnt/second", folder.display().to_string());
    let path = stage.sandbox.path().join("further.conf");
    std::fs::write(&path, page.ini()).unwrap();
    stage.options = (stage.options.clone()).set("WALE_CONFIG_FILE", &path.display().to_string());
    stage.sidecar = Sidecar::start(&stage.sandbox, WALE, &stage.options);
    stage.archive_all();
    assert_eq!(stage.sidecar.get("/backup-push").status, 200);
    wait_until("the second to have it", Duration::from_secs(60), || {
        let listed = wale_testkit::shell(&format!(
            "ls {}/basebackups_005 2>/dev/null || true",
            folder.display()
        ));
        listed.contains("sentinel").then_some(())
    });
    let mut shell = Shell::of_sidecar(&stage.sandbox, &stage.cluster, &stage.options);
    let told = page.sh(&mut shell);
    let listed = told.lines().filter(|line| line.starts_with("base_0"));
    assert_eq!(listed.count(), 2, "{told}");
    std::fs::rename(stage.archive(), stage.sandbox.path().join("lost")).unwrap();
    let alone = page.sh(&mut shell);
    assert!(alone.contains("base_00000001"), "{alone}");
}

fn gcs(page: &mut Page) {
    let sandbox = Sandbox::new("gcs-guide");
    let server = GcsServer::start(&sandbox);
    let cluster = Cluster::init(&sandbox, &ClusterOptions::default());
    let mut shell = Shell::start(&sandbox, &cluster, []);
    // The emulator wants no token; the account's file is read when one is wanted.
    let account = shell.write("account.json", &service_account("http://127.0.0.1:9/token"));
    page.replace("gs://bucket/path", format!("gs://{BUCKET}/path"));
    page.replace("/run/secrets/wale.json", account.display().to_string());
    let text = page.ini() + &format!("STORAGE_EMULATOR_HOST=127.0.0.1:{}\n", server.port());
    let segment = pushes_and_lists(&cluster, &mut shell, &text);
    assert_eq!(server.objects_with(&segment).len(), 1);
}

fn swift(page: &mut Page) {
    let sandbox = Sandbox::new("swift-guide");
    let Some(server) = SwiftServer::start(&sandbox) else {
        // The skip is counted; the blocks are read all the same.
        page.ini();
        return;
    };
    let keystone = Keystone::start(&server, server.port());
    let cluster = Cluster::init(&sandbox, &ClusterOptions::default());
    let mut shell = Shell::start(&sandbox, &cluster, []);
    let secret = shell.write("swift", Keystone::PASSWORD);
    page.replace("swift://container/path", format!("swift://{BUCKET}/path"));
    let login = format!("http://127.0.0.1:{}/v3", keystone.port());
    page.replace("https://keystone.example.org:5000/v3", login);
    page.replace("RegionOne", "One".to_owned());
    page.replace("USER=wale", format!("USER={}", Keystone::USER));
    page.replace("/run/secrets/swift", secret.display().to_string());
    let text = page.ini();
    let segment = pushes_and_lists(&cluster, &mut shell, &text);
    assert_eq!(server.objects_with(&segment).len(), 1);
}

fn s3(page: &mut Page) {
    let sandbox = Sandbox::new("s3-guide");
    let server = S3Server::moto(&sandbox);
    let cluster = Cluster::init(&sandbox, &ClusterOptions::default());
    let settings = S3Server::settings(server.port(), "path");
    let setting = |name: &str| {
        let found = settings.iter().find(|(known, _)| known == name);
        found.expect("a setting of the server").1.clone()
    };
    let mut shell = Shell::start(&sandbox, &cluster, []);
    let secret = shell.write("aws", &setting("AWS_SECRET_ACCESS_KEY"));
    page.replace("s3://bucket/path", setting("WALE_S3_PREFIX"));
    page.replace("eu-central-1", setting("AWS_REGION"));
    page.replace(
        "AWS_ACCESS_KEY_ID=…",
        format!("AWS_ACCESS_KEY_ID={}", setting("AWS_ACCESS_KEY_ID")),
    );
    page.replace("/run/secrets/aws", secret.display().to_string());
    let text = page.ini() + &format!("WALE_S3_ENDPOINT={}\n", setting("WALE_S3_ENDPOINT"));
    let segment = pushes_and_lists(&cluster, &mut shell, &text);
    assert_eq!(server.objects_with(&segment).len(), 1);
    // Who archives, who deletes, who restores: `rights.rs` runs them.
    for _ in 0..3 {
        page.json();
    }
}

fn over_tls(page: &mut Page) {
    let stage = tls::stage();
    let folder = stage.sandbox.folder("rc");
    page.replace("wale:5000", format!("localhost:{}", stage.options.port));
    page.replace("/etc/wale", folder.display().to_string());
    page.replace(
        "/tls/ca.crt",
        stage.options.environment["WALE_CLIENT_CA_FILE"].clone(),
    );
    page.replace("5f0c…", tls::TOKEN.to_owned());
    page.yaml();
    let mut environment = vec![("WALE_HTTP_TOKEN".to_owned(), tls::TOKEN.to_owned())];
    let port = stage.options.port.to_string();
    environment.push(("WALE_LISTEN_PORT".to_owned(), port));
    environment.push(("WALE_SIDECAR_HOSTNAME".to_owned(), "localhost".to_owned()));
    let authority = stage.options.environment["WALE_CLIENT_CA_FILE"].clone();
    environment.push(("WALE_CLIENT_CA_FILE".to_owned(), authority));
    let pairs = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let mut shell = Shell::start(&stage.sandbox, &stage.cluster, pairs);
    let shared = shell.program("shared-wale", "exec wale \"$@\"");
    page.replace("/shared/wale", shared.display().to_string());
    page.sh(&mut shell);
    let segment = stage.archive_all();
    // For BusyBox the port without TLS.
    let plain = stage
        .options
        .clone()
        .unset("WALE_TLS_CERT_FILE")
        .unset("WALE_TLS_KEY_FILE");
    let other = wale_testkit::free_port();
    let mut plain = plain.set("WALE_LISTEN_PORT", &other.to_string());
    plain.port = other;
    let commands = archive_commands(&page.ini());
    assert_eq!(commands.len(), 4, "{commands:?}");
    let (over_tls, over_http): (Vec<String>, Vec<String>) = commands
        .into_iter()
        .partition(|command| !command.contains("http://"));
    for command in over_tls {
        archives(&mut shell, &command, &segment);
    }
    let sidecar = Sidecar::launch(&stage.sandbox, WALE, &plain);
    wait_until("the second sidecar", Duration::from_mins(1), || {
        (sidecar.verb(WALE, "wale", &["client", "ready"]).code() == 0).then_some(())
    });
    for command in over_http {
        let here = command.replace(&format!(":{}/", stage.options.port), &format!(":{other}/"));
        archives(
            &mut shell,
            &here.replace("wget -q", "busybox wget -q"),
            &segment,
        );
    }
    page.yaml();
}
