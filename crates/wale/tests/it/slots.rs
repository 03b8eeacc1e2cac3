//! The schedule beside several servers: a primary and its standby with one archive, and a recovery that is paused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use serde_json::Value;
use wale_testkit::{Cluster, Sandbox, Sidecar, SidecarOptions, free_port, shell, wait_until};

use crate::support::{Stage, WALE, archiving, wait_streaming};

const LONG: Duration = Duration::from_secs(180);
const EVERY_MINUTE: &str = "* * * * *";

/// A sidecar that is begun anew with other settings.
struct Node<'a> {
    sandbox: &'a Sandbox,
    sidecar: Sidecar,
    options: SidecarOptions,
}

impl Node<'_> {
    fn restart(&mut self, settings: &[(&str, &str)]) {
        self.sidecar.kill();
        let mut options = self.options.clone();
        for (name, value) in settings {
            options = options.set(name, value);
        }
        self.sidecar = Sidecar::start(self.sandbox, WALE, &options);
    }

    fn status(&self) -> Value {
        self.sidecar.get("/status").json()
    }

    fn backups(&self) -> usize {
        let list = self.sidecar.get("/backups").json();
        list.as_array().unwrap().len()
    }

    fn has_said(&self, text: &str) -> bool {
        self.sidecar.log_text().contains(text)
    }

    /// Waits until the schedule rests, for this reason.
    fn wait_rests(&self, reason: &str) {
        wait_until("the schedule to rest", LONG, || {
            let rests = self.status()["schedule"]["rests"].clone();
            rests.as_str()?.contains(reason).then_some(())
        });
    }
}

/// As if the base backups of the archive had been taken two days ago: a slot was missed since, and is served at the start.
fn age_backups(archive: &Path) {
    let long_ago = (Utc::now() - TimeDelta::days(2)).to_rfc3339();
    for entry in std::fs::read_dir(archive.join("basebackups_005")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let mut sentinel: Value =
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            set_times(&mut sentinel, &long_ago);
            std::fs::write(&path, sentinel.to_string()).unwrap();
        }
    }
}

fn set_times(value: &mut Value, time: &str) {
    for (name, inner) in value.as_object_mut().into_iter().flatten() {
        match name.as_str() {
            "StartTime" | "start_time" => *inner = time.into(),
            _ => set_times(inner, time),
        }
    }
}

/// A schedule of every day whose next slot is some twelve hours away.
fn daily() -> String {
    format!("0 {} * * *", (Utc::now().hour() + 12) % 24)
}

/// A primary and its standby, with a sidecar beside each and one archive.
struct Pair<'a> {
    archive: PathBuf,
    primary: &'a Cluster,
    standby: Cluster,
    first: Node<'a>,
    second: Node<'a>,
}

impl<'a> Pair<'a> {
    fn new(stage: &'a Stage) -> Self {
        let primary = &stage.cluster;
        let port = primary.port;
        let streaming = format!("primary_conninfo = 'host=127.0.0.1 port={port} user=postgres'");
        let (standby, sidecar, options) = stage.standby("standby", &streaming, &[]);
        wait_streaming(primary);
        let second = Node {
            sandbox: &stage.sandbox,
            sidecar,
            options,
        };
        // Beside the one through which the primary archives, which goes on undisturbed.
        let port = free_port();
        let mut options = stage.options.clone();
        options.port = port;
        let options = options.set("WALE_LISTEN_PORT", &port.to_string());
        let first = Node {
            sandbox: &stage.sandbox,
            sidecar: Sidecar::start(&stage.sandbox, WALE, &options),
            options,
        };
        Self {
            archive: stage.archive(),
            primary,
            standby,
            first,
            second,
        }
    }

    /// A new restartpoint for the standby: a backup of it would else have the name of the one before.
    fn new_restartpoint(&self) {
        let primary = self.primary;
        primary.sql("insert into t values (0)");
        primary.sql("checkpoint");
        primary.sql("insert into t values (1)");
        let position = primary.sql("select pg_current_wal_lsn()");
        let sql = format!("select pg_last_wal_replay_lsn() >= '{position}'");
        wait_until("the standby to replay", LONG, || {
            (self.standby.try_sql(&sql).ok()? == "t").then_some(())
        });
    }

    fn stop_and_age(&mut self) {
        self.first.sidecar.kill();
        self.second.sidecar.kill();
        age_backups(&self.archive);
    }

    /// Closes segments on the primary until so many backups are listed: one of the standby waits for them.
    fn wait_backups(&self, count: usize) {
        wait_until("the backup of the slot", LONG, || {
            self.primary.switch_wal();
            (self.second.backups() >= count).then_some(())
        });
    }

    /// The slot of each start is served once: by the standby where the role says so, otherwise by one of the two.
    fn serve_slots_once(&mut self) {
        let daily = daily();
        let daily = ("CRON_TIMING", daily.as_str());
        self.new_restartpoint();
        self.first
            .restart(&[daily, ("WALE_BACKUP_ROLE", "standby")]);
        self.second
            .restart(&[daily, ("WALE_BACKUP_ROLE", "standby")]);
        self.first.wait_rests("the server is a primary");
        self.wait_backups(2);
        for (node, role) in [(&self.first, "primary"), (&self.second, "standby")] {
            let status = node.status();
            assert_eq!(status["server"]["role"], role, "{status}");
            assert_eq!(status["server"]["timeline"], 1, "{status}");
            assert_eq!(status["schedule"]["role"], "standby", "{status}");
        }
        assert_eq!(self.second.status()["schedule"]["rests"], Value::Null);

        self.stop_and_age();
        self.new_restartpoint();
        self.first.restart(&[daily]);
        self.second.restart(&[daily]);
        self.wait_backups(3);
        // The sidecar that came second waits half a minute, or found the backup there already.
        wait_until("the other sidecar's answer", LONG, || {
            let words = ["another sidecar takes the scheduled", "is served: backup"];
            let nodes = [&self.first, &self.second];
            let declined = |words| nodes.iter().any(|node| node.has_said(words));
            words.into_iter().any(declined).then_some(())
        });
        assert_eq!(self.first.backups(), 3);
    }

    /// The primary's sidecar fails at a slot, and the standby's is at work until after the next one.
    fn pass_a_slot(&mut self) {
        self.stop_and_age();
        let stranger = ("PGUSER", "nobody_yet");
        self.first
            .restart(&[("CRON_TIMING", EVERY_MINUTE), stranger]);
        wait_until("the slot to fail", LONG, || {
            let failure = self.first.status()["backup"]["last_failure"].clone();
            failure.is_object().then_some(())
        });
        self.new_restartpoint();
        self.second.restart(&[("CRON_TIMING", EVERY_MINUTE)]);
        wait_until("the standby's backup to wait for WAL", LONG, || {
            let status = self.second.status();
            let phase = &status["backup"]["running"]["progress"]["phase"];
            (phase == "waiting for WAL").then_some(())
        });
        let slot = Utc::now() + TimeDelta::minutes(1);
        let slot = slot.with_second(0).unwrap();
        wait_until("the slot after the one that failed", LONG, || {
            let words = "the next slot of the schedule has come: it is served instead";
            (Utc::now() > slot && self.first.has_said(words)).then_some(())
        });
        for node in [&self.first, &self.second] {
            let asked = Utc::now();
            let status = node.status();
            let next = status["schedule"]["next"].as_str().unwrap();
            let next: DateTime<Utc> = next.parse().unwrap();
            assert!(next > asked, "{status}");
        }
        self.wait_backups(4);
        wait_until("the slot that passed to be counted", LONG, || {
            (self.second.status()["schedule"]["skipped"].as_u64()? >= 1).then_some(())
        });
        let metrics = self.second.sidecar.get("/metrics").text();
        let series = "wale_backups_total{outcome=\"skipped-overlap\"} ";
        let counted = metrics.lines().find_map(|line| line.strip_prefix(series));
        assert!(counted.is_some_and(|count| count != "0"), "{metrics}");
    }
}

/// A server that waits at its target, with an archive of its own, and its sidecar whose schedule is due.
fn paused<'a>(stage: &'a Stage, archive: &Path) -> (Cluster, Node<'a>) {
    let target = "recovery_target_name = 'here'\nrecovery_target_action = 'pause'";
    let (cluster, options) = stage.restore_options("paused", target);
    let options = options
        .set("WALE_FILE_PREFIX", &format!("file://{}", archive.display()))
        .set("CRON_TIMING", EVERY_MINUTE);
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    sidecar.wait_ready(LONG);
    cluster.configure(&archiving(options.port));
    cluster.start();
    wait_until("the recovery to pause", LONG, || {
        let shown = cluster.try_sql("select pg_get_wal_replay_pause_state()");
        (shown.ok()? == "paused").then_some(())
    });
    let mut node = Node {
        sandbox: &stage.sandbox,
        sidecar,
        options,
    };
    // The slot that was missed is due now.
    node.restart(&[]);
    (cluster, node)
}

/// Row 85: the schedule rests, and says so, beside a recovery that is paused; nothing is wrong for that. It goes on when
/// the server was promoted. Row 108: a primary and a standby with one schedule and one archive. The role decides between
/// them, else one takes the backup of a slot and the other does not; a slot that failed, or that another one holds, does
/// not hold up the next; slots that pass meanwhile are counted.
#[test]
fn faults_85_and_108_one_backup_for_each_slot_and_none_beside_a_paused_recovery() {
    let stage = Stage::new("slots", 15);
    let server = &stage.cluster;
    server.sql("create table t (v int)");
    stage.backup();
    let archive = stage.archive();
    age_backups(&archive);
    server.sql("select pg_create_restore_point('here')");
    stage.archive_all();
    let copy = stage.sandbox.path().join("copy");
    shell(&format!("cp -a {} {}", archive.display(), copy.display()));
    let (recovering, third) = paused(&stage, &copy);
    let mut pair = Pair::new(&stage);
    pair.serve_slots_once();

    third.wait_rests("the server recovers and is no standby");
    let status = third.status();
    assert_eq!(status["server"]["role"], "recovering", "{status}");
    assert_eq!(status["backup"]["last_failure"], Value::Null, "{status}");
    assert_eq!(third.sidecar.get("/readyz").status, 200);
    assert_eq!(third.backups(), 1);
    recovering.sql("select pg_wal_replay_resume()");
    recovering.wait_promoted();

    pair.pass_a_slot();

    wait_until("the backup of the promoted server", LONG, || {
        (third.backups() > 1).then_some(())
    });
    wait_until("the end of the rest", LONG, || {
        third.status()["schedule"]["rests"].is_null().then_some(())
    });
    let status = third.status();
    assert_eq!(status["server"]["role"], "primary", "{status}");
    assert_eq!(status["server"]["timeline"], 2, "{status}");
}
