//! Random kills of everything that can be killed, with the promises checked after each: the sidecar while it archives
//! and while it backs up, the command of a backup and of a restore, the server, the sidecar of a recovery.
//!
//! `WALE_CAMPAIGN_KILLS` says how many (30; `make soak` 500), `WALE_CAMPAIGN_SEED` which: kinds and moments follow
//! from it. What is checked afterwards is drawn from a second row of numbers: how many there are depends on how far the
//! server had come, and would else decide about the next kill.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::Child;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use wale_testkit::{
    Cluster, ClusterOptions, Sandbox, Sidecar, SidecarOptions, client_tool, run_as_postgres, shell,
    wait_until, wale_command,
};

use crate::promises::{Promises, Random, number, under_load, wait_archiving_resumes};
use crate::support::{Stage, WALE, restore_options};

const LONG: Duration = Duration::from_secs(90);
/// What every secret is set to, and which are set: those that change nothing else.
const CANARY: &str = "c4nary-that-nobody-sees";
const SECRETS: [&str; 2] = ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY"];
/// After how many kills a listed backup is restored and started.
const RESTORE_EVERY: u64 = 50;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Sidecar,
    BackupCommand,
    BackupInSidecar,
    Restore,
    Server,
    Recovery,
}

/// How often each comes, of 100.
const VICTIMS: [(Victim, u64); 6] = [
    (Victim::Sidecar, 60),
    (Victim::BackupCommand, 14),
    (Victim::BackupInSidecar, 10),
    (Victim::Restore, 10),
    (Victim::Server, 4),
    (Victim::Recovery, 2),
];

struct Campaign<'a> {
    sandbox: &'a Sandbox,
    options: &'a SidecarOptions,
    cluster: &'a Cluster,
    sidecar: &'a mut Sidecar,
    archive: &'a Path,
    /// Decides what is killed and when.
    random: Random,
    /// Decides what is checked.
    looks: Random,
    promises: Promises,
    backups: BTreeSet<String>,
    /// A server that is killed after it closed a segment, and before it marked it as ready, marks it no sooner than at the
    /// checkpoint that would recycle it (`XLogArchiveCheckDone`). Until then the archive has a gap, which only a newer
    /// backup is behind.
    may_have_gap: bool,
    restores: u64,
    counts: BTreeMap<Victim, (u64, Duration)>,
}

#[test]
fn a_campaign_of_kills_breaks_no_promise() {
    let kills = number("WALE_CAMPAIGN_KILLS", 30);
    let seed = number("WALE_CAMPAIGN_SEED", 500);
    println!("WALE_CAMPAIGN_SEED={seed} WALE_CAMPAIGN_KILLS={kills}");
    let cluster = ClusterOptions {
        segment_mib: 1,
        // Enough that what was acknowledged between two looks is still there to be compared.
        configuration: vec!["wal_keep_size = '512MB'".into()],
        ..ClusterOptions::default()
    };
    let stage = Stage::with("campaign", &cluster, |options| {
        SECRETS.iter().fold(
            options.set("WALE_FETCH_DEADLINE", "1s"),
            |options, secret| options.set(secret, CANARY),
        )
    });
    stage.cluster.sql("create table t (v int)");
    stage.backup();
    let archive = stage.archive();
    let Stage {
        sandbox,
        options,
        cluster,
        mut sidecar,
    } = stage;
    let mut campaign = Campaign {
        sandbox: &sandbox,
        options: &options,
        cluster: &cluster,
        sidecar: &mut sidecar,
        archive: &archive,
        random: Random::new(seed),
        looks: Random::new(!seed),
        promises: Promises::default(),
        backups: BTreeSet::new(),
        may_have_gap: false,
        restores: 0,
        counts: BTreeMap::new(),
    };
    let started = Instant::now();
    let victims = victims(&mut campaign.random, kills);
    under_load(&cluster, |quiet| {
        for (kill, victim) in (1..).zip(victims) {
            let begun = Instant::now();
            campaign.kill_one(victim, quiet);
            campaign.look();
            let entry = campaign.counts.entry(victim).or_default();
            *entry = (entry.0 + 1, entry.1 + begun.elapsed());
            if kill % RESTORE_EVERY == 0 || kill == kills {
                campaign.back_up();
                let _quiet = quiet.lock();
                campaign.restore_and_start();
            }
        }
    });
    cluster.switch_wal();
    cluster.wait_archived();
    campaign.sweep();
    campaign.promises.check_all(&cluster, campaign.sidecar);
    campaign.assert_no_secret();
    let acknowledged = campaign.promises.kept.len() as u64;
    println!(
        "{kills} kills in {:.0?}: {:.1?}; {acknowledged} acknowledged files, {} backups, {} restores",
        started.elapsed(),
        campaign.counts,
        campaign.backups.len(),
        campaign.restores,
    );
    assert!(acknowledged > kills, "only {acknowledged}");
}

/// What is killed, one after the other: drawn by weight, and each kind at least once where there are enough.
fn victims(random: &mut Random, kills: u64) -> Vec<Victim> {
    let draw = |_| {
        let mut left = random.below(100);
        let (victim, _) = VICTIMS
            .into_iter()
            .find(|(_, weight)| {
                let found = left < *weight;
                left = left.saturating_sub(*weight);
                found
            })
            .expect("the weights are 100 together");
        victim
    };
    let mut victims: Vec<Victim> = (0..kills).map(draw).collect();
    for (kind, _) in VICTIMS {
        let sidecars = victims.iter().filter(|victim| **victim == Victim::Sidecar);
        if sidecars.count() > 1
            && !victims.contains(&kind)
            && let Some(place) = victims.iter().position(|victim| *victim == Victim::Sidecar)
        {
            victims[place] = kind;
        }
    }
    victims
}

impl Campaign<'_> {
    fn kill_one(&mut self, victim: Victim, quiet: &Mutex<()>) {
        match victim {
            Victim::Sidecar => self.random.pause(10, 300),
            Victim::BackupCommand => {
                let data = self.cluster.data.to_string_lossy().into_owned();
                let command = self.spawn(&["backup-push", &data]);
                self.random.pause(10, 2500);
                end(command);
                return self.wait_no_backup_on_the_server();
            }
            Victim::BackupInSidecar => {
                let reply = self.sidecar.get("/backup-push?wait=false");
                assert!([202, 503].contains(&reply.status), "{}", reply.text());
                self.random.pause(10, 2000);
            }
            Victim::Restore => return self.kill_a_restore(),
            Victim::Server => {
                self.random.pause(10, 300);
                self.cluster.kill();
                self.may_have_gap = true;
                let _ = std::fs::remove_file(self.cluster.data.join("postmaster.pid"));
                return self.cluster.start();
            }
            Victim::Recovery => {
                // A server that recovers while another still archives may meet a segment at the moment it arrives; it
                // stops then, which is safe, and not what is looked for here.
                if self.may_have_gap {
                    self.back_up();
                }
                let _quiet = quiet.lock();
                return self.kill_a_recovery();
            }
        }
        self.sidecar.kill();
        *self.sidecar = Sidecar::start(self.sandbox, WALE, self.options);
        if victim == Victim::BackupInSidecar {
            self.wait_no_backup_on_the_server();
        }
    }

    /// What must hold after each kill.
    fn look(&mut self) {
        wait_archiving_resumes(self.cluster);
        self.promises.check_new(self.cluster, self.sidecar);
        self.promises.check_some(self.sidecar, &mut self.looks, 5);
        self.promises.check_objects(self.archive);
        let listed = self.sidecar.get("/backups").json();
        let names: BTreeSet<String> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|backup| backup["name"].as_str().unwrap().to_owned())
            .collect();
        assert!(
            self.backups.is_subset(&names),
            "a backup is gone: {:?} of {names:?}",
            self.backups
        );
        // What is newly listed is whole.
        for name in names.difference(&self.backups) {
            let target = self.sandbox.path().join("whole");
            let command = self.spawn(&["backup-fetch", &target.to_string_lossy(), name]);
            let output = command.wait_with_output().unwrap();
            assert!(output.status.success(), "{name} is listed, and not whole");
            verify(&target);
            std::fs::remove_dir_all(&target).unwrap();
        }
        self.backups = names;
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        wale_command(WALE, "wale", self.options)
            .args(arguments)
            .stdout(self.output())
            .stderr(self.output())
            .spawn()
            .unwrap()
    }

    /// Where all commands write.
    fn output(&self) -> File {
        let path = self.sandbox.path().join("commands.log");
        let file = File::options().create(true).append(true).open(path);
        file.unwrap()
    }

    /// A backup that nobody kills.
    fn back_up(&mut self) {
        let data = self.cluster.data.to_string_lossy().into_owned();
        let output = self.spawn(&["backup-push", &data]).wait_with_output();
        assert!(output.unwrap().status.success(), "the backup fails");
        self.may_have_gap = false;
    }

    /// I4: what the killed ones left unfinished goes when it is old enough, and nothing else.
    fn sweep(&mut self) {
        self.promises.check_objects(self.archive);
        let archive = self.archive.display();
        self.sidecar.kill();
        // Everything is three days old now: the grace is an hour at least.
        shell(&format!(
            "find {archive} -type f -exec touch -d '3 days ago' {{}} +"
        ));
        *self.sidecar = Sidecar::start(self.sandbox, WALE, self.options);
        // What vanishes while it is checked is swept.
        let left = format!(
            "exec 2>/dev/null; set +e; find {archive} -name '*.wale-tmp'; \
             for folder in {archive}/basebackups_005/*/; do \
               sentinel=\"${{folder%/}}_backup_stop_sentinel.json\"; \
               [ -f \"$sentinel\" ] || find \"$folder\" -type f; \
             done; true"
        );
        wait_until("the leftovers to be swept", LONG, || {
            shell(&left).is_empty().then_some(())
        });
        let listed = self.sidecar.get("/backups").json();
        assert!(listed.as_array().unwrap().len() >= self.backups.len());
    }

    /// I5: what was said and written holds no secret.
    fn assert_no_secret(&self) {
        for path in ["/status", "/metrics", "/backups"] {
            let said = self.sidecar.get(path).text();
            assert!(!said.contains(CANARY), "{path}: {said}");
        }
        let found = shell(&format!(
            "grep -lF {CANARY} {}/*.log || true; grep -rlF {CANARY} {} || true",
            self.sandbox.path().display(),
            self.archive.display()
        ));
        assert_eq!(found, "");
    }

    fn wait_no_backup_on_the_server(&self) {
        wait_until("the server's backup session to end", LONG, || {
            let locks = self
                .cluster
                .sql("select count(*) from pg_locks where locktype = 'advisory'");
            (locks == "0").then_some(())
        });
    }

    /// A directory that a killed restore leaves cannot be started, and the next restore takes it.
    fn kill_a_restore(&mut self) {
        let target = self.sandbox.path().join("killed");
        let path = target.to_string_lossy().into_owned();
        let command = self.spawn(&["backup-fetch", &path, "LATEST"]);
        self.random.pause(10, 1200);
        end(command);
        if target.join("global/pg_control").exists() {
            verify(&target);
        } else {
            let output = self
                .spawn(&["backup-fetch", &path, "LATEST"])
                .wait_with_output()
                .unwrap();
            assert!(output.status.success(), "the restore is not done again");
            verify(&target);
        }
        std::fs::remove_dir_all(&target).unwrap();
    }

    /// The sidecar that feeds a recovery is killed: the server stops, or had reached the end. It does not promote early.
    fn kill_a_recovery(&mut self) {
        let noted = self.note();
        let (cluster, options, mut sidecar) = self.restored();
        cluster.launch();
        self.random.pause(10, 1500);
        sidecar.kill();
        let promoted = wait_until("the recovery to end somehow", LONG, || {
            if !cluster.is_running() {
                return Some(false);
            }
            (cluster.try_sql("select pg_is_in_recovery()").ok()? == "f").then_some(true)
        });
        if !promoted {
            assert!(
                !cluster.log_text().contains("selected new timeline"),
                "it promoted: {}",
                cluster.log_text()
            );
            sidecar = Sidecar::start(self.sandbox, WALE, &options);
            sidecar.wait_ready(LONG);
            cluster.start();
            cluster.wait_promoted();
        }
        assert_reached(&cluster, noted);
        clear(cluster);
        drop(sidecar);
    }

    /// I3: a listed backup restores, is what its manifest says, recovers to the end and passes amcheck.
    fn restore_and_start(&mut self) {
        let noted = self.note();
        let (cluster, _, sidecar) = self.restored();
        cluster.start();
        cluster.wait_promoted();
        assert_reached(&cluster, noted);
        cluster.sql("create extension amcheck");
        cluster.sql(
            "select bt_index_check(c.oid) from pg_class c join pg_am a on a.oid = c.relam \
             where c.relkind = 'i' and a.amname = 'btree' and c.relpersistence = 'p'",
        );
        clear(cluster);
        drop(sidecar);
    }

    fn restored(&mut self) -> (Cluster, SidecarOptions, Sidecar) {
        self.restores += 1;
        let name = format!("restored{}", self.restores);
        let major = self.cluster.server.major;
        let (cluster, options) = restore_options(self.sandbox, self.options, major, &name, "");
        let sidecar = Sidecar::start(self.sandbox, WALE, &options);
        sidecar.wait_ready(LONG);
        run_as_postgres(
            &client_tool("pg_verifybackup"),
            &[
                "-n",
                "-i",
                "wale_restore.json",
                &cluster.data.to_string_lossy(),
            ],
        );
        cluster.configure(&["archive_mode = off".into()]);
        (cluster, options, sidecar)
    }

    /// Rows that are in the archive now.
    fn note(&self) -> u64 {
        let noted = rows(self.cluster);
        let segment = self.cluster.switch_wal();
        let mark = self
            .cluster
            .wal
            .join(format!("archive_status/{segment}.done"));
        wait_until("the rows to be archived", LONG, || {
            mark.exists().then_some(())
        });
        noted
    }
}

fn clear(cluster: Cluster) {
    let data = cluster.data.clone();
    drop(cluster);
    std::fs::remove_dir_all(data).unwrap();
}

fn rows(cluster: &Cluster) -> u64 {
    cluster.sql("select count(*) from t").parse().unwrap()
}

/// I7: a server that promoted had everything that was archived before.
fn assert_reached(cluster: &Cluster, noted: u64) {
    let found = rows(cluster);
    assert!(
        found >= noted,
        "promoted with {found} of {noted} rows: {}",
        cluster.log_text()
    );
}

fn verify(data: &Path) {
    run_as_postgres(
        &client_tool("pg_verifybackup"),
        &["-n", &data.to_string_lossy()],
    );
}

fn end(mut command: Child) {
    command.kill().unwrap();
    command.wait().unwrap();
}
