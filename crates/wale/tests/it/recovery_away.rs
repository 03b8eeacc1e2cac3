//! Recoveries in bad company: a sidecar or store that is away at the one moment that counts, a gap after the target, a
//! neighbour who has WAL put beside a running primary.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wale_testkit::{Cluster, Sidecar, shell, wait_until, wale_command};

use crate::support::{Stage, WALE, fingerprint, on_every_major, wait_fingerprint};

const LONG: Duration = Duration::from_secs(120);

/// What a drill's server archives with: nothing.
fn deaf() -> Vec<String> {
    vec!["archive_mode = off".into()]
}

/// A server that lies in wait: `program` in a folder of its own does `first` when the server that calls it has lost its
/// signal file and asks for the history of timeline `parent`; then it is the `real` program. The mark that is returned
/// is made at that moment.
fn ambush(
    stage: &Stage,
    cluster: &mut Cluster,
    parent: u32,
    (program, real): (&str, &str),
    first: &str,
) -> PathBuf {
    let name = cluster
        .data
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let folder = stage.sandbox.folder(&format!("bin-{name}"));
    let mark = folder.join("mark");
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *{parent:08X}.history*)\n\
         if [ ! -e recovery.signal ] && [ ! -e recovery.conf ]; then {first}; : >{mark}; fi;;\nesac\n\
         exec {real} \"$@\"\n",
        mark = mark.display()
    );
    let path = folder.join(program);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    cluster.path_prefix = Some(folder);
    mark
}

/// `kill -9`, and waits until the process answers nobody any more.
fn kill(pid: u32) -> String {
    format!(
        "kill -9 {pid}; until grep -q '^State:.Z' /proc/{pid}/status 2>/dev/null || [ ! -e /proc/{pid} ]; do sleep 0.05; done"
    )
}

/// Settings of a recovery to a restore point, and of the promotion there.
fn to(name: &str) -> String {
    format!("recovery_target_name = '{name}'\nrecovery_target_action = 'promote'")
}

/// Row 104: the sidecar, or for `wal-fetch` its store, goes away after "selected new timeline ID", when the server asks
/// once more for the history of its parent and could not go on where it was after a stop.
#[test]
fn fault_104_the_sidecar_goes_away_at_the_moment_of_promotion_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("moment{major}"), major);
        let first = &stage.cluster;
        first.sql("create table t (v int); insert into t values (1)");
        stage.backup();
        first.sql("select pg_create_restore_point('one')");
        first.sql("insert into t values (99)");
        stage.archive_all();
        first.kill();
        let (second, _sidecar) = stage.restore("second", &to("one"), &[]);
        second.start();
        second.wait_promoted();
        second.sql("insert into t values (2)");
        second.sql("select pg_create_restore_point('two')");
        second.sql("insert into t values (3)");
        second.switch_wal();
        second.wait_archived();
        second.kill();

        let check = |cluster: &Cluster, mark: &Path, parent: u32, what: &str| {
            let what = format!("PostgreSQL {major}, {what}, from timeline {parent}");
            cluster.start();
            cluster.wait_promoted();
            assert!(mark.exists(), "{what}: nobody went away");
            let rows = cluster.sql("select string_agg(v::text, ',' order by v) from t");
            assert_eq!(rows, if parent == 1 { "1" } else { "1,2" }, "{what}");
            let segment = cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
            assert!(segment.starts_with("00000003"), "{what}: {segment}");
        };
        let wale = wale_for_postgres(&stage);
        let clients = [
            ("wget", "wget", "/usr/bin/wget"),
            ("busybox", "wget", "/bin/busybox wget"),
            ("curl", "curl", "/usr/bin/curl"),
            ("wale", "wale", &wale),
        ];
        // The command's text depends on the client, the moment on the major.
        let tried = if major == 15 { clients.len() } else { 1 };
        for (client, program, real) in &clients[..tried] {
            for (parent, place) in [(1, "one"), (2, "two")] {
                let addition = format!("{}\nrecovery_target_timeline = '{parent}'", to(place));
                let name = format!("{client}-{place}");
                let (mut cluster, options) = stage.restore_options(&name, &addition);
                let options = options.set("WALE_RESTORE_CLIENT", program);
                let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
                sidecar.wait_ready(LONG);
                cluster.configure(&deaf());
                let end = kill(sidecar.pid());
                let mark = ambush(&stage, &mut cluster, parent, (program, real), &end);
                check(&cluster, &mark, parent, client);
            }
        }
        if major < 12 {
            return;
        }
        let archive = stage.archive();
        let away = format!("mv {0} {0}.away", archive.display());
        for (parent, place) in [(1, "one"), (2, "two")] {
            let addition = format!("{}\nrecovery_target_timeline = '{parent}'", to(place));
            let mut cluster = by_verb(&stage, &format!("verb-{place}"), "wale", &addition);
            let mark = ambush(&stage, &mut cluster, parent, ("wale", &wale), &away);
            check(&cluster, &mark, parent, "wal-fetch");
            shell(&format!("mv {0}.away {0}", archive.display()));
        }
    });
}

/// The program under test where the server's user may run it.
fn wale_for_postgres(stage: &Stage) -> String {
    let path = stage.sandbox.folder("program").join("wale");
    std::fs::copy(WALE, &path).unwrap();
    shell(&format!(
        "chown -R postgres {}",
        path.parent().unwrap().display()
    ));
    path.display().to_string()
}

/// The newest backup in a new directory, to be recovered by `program wal-fetch` with these settings. From 12 on.
fn by_verb(stage: &Stage, name: &str, program: &str, lines: &str) -> Cluster {
    let cluster = stage.fetch(name, &[]);
    recover_by_verb(stage, &cluster, program, lines);
    cluster
}

fn recover_by_verb(stage: &Stage, cluster: &Cluster, program: &str, lines: &str) {
    cluster.configure(&deaf());
    let auto = cluster.data.join("postgresql.auto.conf");
    let mut text = std::fs::read_to_string(&auto).unwrap_or_default();
    write!(
        text,
        "\nrestore_command = 'env WALE_FILE_PREFIX=file://{} WALE_FETCH_DEADLINE=1s {program} wal-fetch %f \"%p\"'\n{lines}\n",
        stage.archive().display()
    )
    .unwrap();
    std::fs::write(&auto, text).unwrap();
    std::fs::write(cluster.data.join("recovery.signal"), "").unwrap();
    shell(&format!(
        "chown postgres {0}/recovery.signal {0}/postgresql.auto.conf",
        cluster.data.display()
    ));
}

fn assert_stops_unpromoted(cluster: &Cluster, why: &str) -> String {
    cluster.launch();
    cluster.wait_stopped(LONG);
    let log = cluster.log_text();
    assert!(!log.contains("selected new timeline"), "{why}: {log}");
    log
}

/// Row 72: from 15 on a recovery reads ahead, far beyond its target. What is missing there must not stop it; what is
/// missing before the target must, and so it must where there is no target.
#[test]
fn fault_72_a_target_before_a_gap_is_reached_and_one_behind_it_is_not_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("before{major}"), major);
        let pg = &stage.cluster;
        pg.sql("create table t (v int)");
        stage.backup();
        let mut segments = Vec::new();
        for part in 1..=12 {
            pg.sql(&format!("insert into t values ({part})"));
            pg.sql(&format!("select pg_create_restore_point('p{part}')"));
            segments.push(pg.switch_wal());
        }
        pg.wait_archived();
        pg.kill();
        let gap = &segments[8];
        std::fs::remove_file(stage.archive().join(format!("wal_005/{gap}.zst"))).unwrap();
        let reached = |cluster: &Cluster, what: &str| {
            cluster.start();
            cluster.wait_promoted();
            assert_eq!(
                cluster.sql("select count(*) from t"),
                "2",
                "PostgreSQL {major}, {what}"
            );
        };
        let (restored, _sidecar) = stage.restore("restored", &to("p2"), &deaf());
        reached(&restored, "RESTORE");
        let (after, _sidecar) = stage.restore("after-gap", &to("p11"), &deaf());
        assert_stops_unpromoted(&after, "a target after the gap");
        if major < 12 {
            return;
        }
        let wale = wale_for_postgres(&stage);
        reached(&by_verb(&stage, "verb", &wale, &to("p2")), "wal-fetch");
        let after = by_verb(&stage, "verb-after", &wale, &to("p11"));
        let log = assert_stops_unpromoted(&after, "wal-fetch, a target after the gap");
        assert!(log.contains(gap), "it names the segment: {log}");
        let endless = by_verb(&stage, "verb-endless", &wale, "");
        let log = assert_stops_unpromoted(&endless, "wal-fetch, no target");
        assert!(log.contains("could not restore file"), "{log}");
    });
}

/// Row 73: a backup that was kept for its own end only, with the WAL after it pruned on purpose.
#[test]
fn fault_73_a_backup_kept_for_its_own_end_is_restored_to_it_on_every_major() {
    on_every_major(|major| {
        let mut stage = Stage::new(&format!("own{major}"), major);
        let pg = &stage.cluster;
        pg.sql("create table t (v int); insert into t values (1)");
        stage.backup();
        let label = stage.sidecar.get("/backups").json()[0]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        for part in 2..=4 {
            pg.sql(&format!("insert into t values ({part})"));
            stage.archive_all();
        }
        stage.backup();
        stage.archive_all();
        pg.kill();
        let options = stage
            .options
            .clone()
            .set("WALE_RETAIN_BACKUPS", "1")
            .set("WALE_RETAIN_WAL", "consistent");
        for arguments in [&["backup-mark", &label][..], &["retain", "--confirm"]] {
            let output = wale_command(WALE, "wale", &options)
                .args(arguments)
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        }
        let names = stage.wal_names();
        let numbers: Vec<u64> = names
            .iter()
            .filter(|name| name.len() == 24)
            .map(|name| u64::from_str_radix(&name[16..], 16).unwrap())
            .collect();
        let pruned = numbers.windows(2).any(|pair| pair[1] > pair[0] + 1);
        assert!(pruned, "WAL between the two backups is gone: {names:?}");

        let immediate = "recovery_target = 'immediate'\nrecovery_target_action = 'promote'";
        stage.options = stage.options.clone().set("WALE_RESTORE_LABEL", &label);
        let (restored, _sidecar) = stage.restore("restored", immediate, &deaf());
        restored.start();
        restored.wait_promoted();
        assert_eq!(
            restored.sql("select count(*) from t"),
            "1",
            "PostgreSQL {major}"
        );
        if major < 12 {
            return;
        }
        let wale = wale_for_postgres(&stage);
        let (cluster, _) = stage.restore_options("verb", "");
        let data = cluster.data.to_string_lossy().into_owned();
        let fetched = stage
            .sidecar
            .verb(WALE, "wale", &["backup-fetch", &data, &label]);
        assert_eq!(fetched.code(), 0, "{}", fetched.stderr);
        recover_by_verb(&stage, &cluster, &wale, immediate);
        cluster.start();
        cluster.wait_promoted();
        assert_eq!(
            cluster.sql("select count(*) from t"),
            "1",
            "PostgreSQL {major}"
        );
    });
}

/// Row 109: a store that answers nobody, and a standby that is started again and promoted. Each request waits for one
/// short try, whatever the patience of a recovery is.
#[test]
fn fault_109_a_standby_starts_and_is_promoted_while_the_store_is_silent_on_every_major() {
    on_every_major(|major| {
        let stage = Stage::new(&format!("silent{major}"), major);
        let primary = &stage.cluster;
        primary.sql("create table t (id int, v int)");
        stage.backup();
        let control = stage.sandbox.path().join("faults");
        let settings = [
            // Ten minutes: a server that waited out the outage would not be promoted within the limits of this test.
            ("WALE_FETCH_DEADLINE", "10min"),
            ("WALE_FAULT_CONTROL", control.to_str().unwrap()),
        ];
        let (standby, sidecar, _) = stage.standby_with("standby", "", &deaf(), &settings);
        primary.sql("insert into t select 1, g from generate_series(1, 500) g");
        stage.archive_all();
        let all = fingerprint(primary, "t");
        wait_fingerprint(&standby, "t", &all);

        std::fs::write(&control, "hang").unwrap();
        shell(&format!("chmod 644 {}", control.display()));
        standby.stop("fast");
        standby.launch();
        wait_until("the standby to answer", LONG, || {
            standby.try_sql("select 1").ok()
        });
        let told = || sidecar.log_text().matches("did not answer within").count();
        let before = told();
        wait_until("the standby to ask in vain", LONG, || {
            (told() > before).then_some(())
        });
        standby.promote();
        assert_eq!(fingerprint(&standby, "t"), all, "PostgreSQL {major}");
    });
}

/// Rows 100 and 109, the verb's part: a standby gets its answer after one short try, without a listing of the archive,
/// and nothing is written into its server's log for what is simply not there yet.
#[test]
fn fault_100_a_polling_standby_costs_a_look_and_no_line_in_its_log() {
    let stage = Stage::new("polls", 15);
    stage.cluster.sql("create table t (v int)");
    stage.archive_all();
    let control = stage.sandbox.path().join("faults");
    let data = stage.sandbox.folder("standby");
    let next = "0000000100000000000000F0";
    let fetch = |faults: &str| {
        std::fs::write(&control, faults).unwrap();
        shell(&format!("chmod 644 {}", control.display()));
        let options = stage
            .options
            .clone()
            .set("WALE_FETCH_DEADLINE", "10min")
            .set("WALE_FAULT_CONTROL", &control.to_string_lossy())
            .set("WALE_LOG", "error");
        let path = data.join("pg_wal/RECOVERYXLOG");
        let output = wale_command(WALE, "wale", &options)
            .args(["wal-fetch", next, &path.to_string_lossy()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    std::fs::create_dir(data.join("pg_wal")).unwrap();
    std::fs::write(data.join("standby.signal"), "").unwrap();
    shell(&format!("chown -R postgres {}", data.display()));
    // A listing would fail.
    assert_eq!(fetch("list down"), (Some(1), String::new()));
    let (status, said) = fetch("hang");
    assert_eq!(status, Some(1));
    assert!(said.contains("did not answer within"), "{said}");
    // A recovery that would end there needs the proof.
    std::fs::remove_file(data.join("standby.signal")).unwrap();
    std::fs::write(data.join("recovery.signal"), "").unwrap();
    assert_eq!(fetch("list denied").0, Some(250));
    let (status, said) = fetch("");
    assert_eq!(status, Some(1));
    assert!(said.contains("is not in the archive"), "{said}");
}

/// Row 86: anybody who reaches the port has WAL put beside a running primary. Nothing is added and nothing replaced,
/// also where the archive is ahead of a data directory that was rolled back; a server in recovery is served.
#[test]
fn fault_86_no_wal_is_put_beside_a_running_primary() {
    let stage = Stage::new("beside", 15);
    let pg = &stage.cluster;
    pg.sql("create table t (v int)");
    stage.backup();
    pg.stop("fast");
    let snapshot = stage.sandbox.path().join("snapshot");
    shell(&format!(
        "cp -a {} {}",
        pg.data.display(),
        snapshot.display()
    ));
    pg.start();
    for part in 0..3 {
        pg.sql(&format!("insert into t values ({part})"));
        stage.archive_all();
    }
    let archived = stage.wal_names();
    pg.stop("fast");
    shell(&format!(
        "rm -rf {0} && mv {1} {0}",
        pg.data.display(),
        snapshot.display()
    ));
    pg.configure(&["archive_command = 'false'".into()]);
    pg.start();
    let current = pg.sql("select pg_walfile_name(pg_current_wal_lsn())");
    assert!(archived.contains(&current), "{current} {archived:?}");
    let seen = || {
        shell(&format!(
            "find {} -type f -printf '%P %i %s\\n' | sort",
            pg.wal.display()
        ))
    };
    let before = seen();
    for name in archived.iter().filter(|name| name.len() == 24) {
        let reply = stage.sidecar.get(&format!("/wal-fetch/{name}"));
        assert_eq!(reply.status, 409, "{name}: {}", reply.text());
        assert!(reply.text().contains("/wal/"), "{}", reply.text());
    }
    assert_eq!(seen(), before);
    // A standby of the same archive takes what it asks for that way, until it is promoted.
    let (standby, sidecar, _) = stage.standby("standby", "", &deaf());
    let fetch = || sidecar.get(&format!("/wal-fetch/{}", archived[0])).status;
    assert_eq!(fetch(), 200);
    standby.promote();
    assert_eq!(fetch(), 409);
}
