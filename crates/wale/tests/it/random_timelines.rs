//! Restores to random places over several timelines: whatever was seen at a place is what a restore to it gives.
//!
//! Each history is made by one seed (`WALE_TEST_SEED`; printed): a cluster writes, takes backups and notes what its table
//! holds, goes back to a random place on its way, and writes on there, on a new timeline. `WALE_TEST_HISTORIES` says how
//! many histories (1; `make soak` 10). Every restore chooses its place, the kind of its target, and one of the base
//! backups that lead there.

use std::fmt::Write as _;

use wale_testkit::{Cluster, Sidecar};

use crate::promises::{Random, number};
use crate::support::{Stage, WALE, fingerprint, majors};

/// A place in the log, and what table `t` held there.
#[derive(Debug, Clone)]
struct Place {
    timeline: u32,
    /// Bytes from the beginning of the log.
    position: u64,
    target: Target,
    rows: String,
}

/// How a restore is told to end there.
#[derive(Debug, Clone)]
enum Target {
    Name(String),
    Position(String),
    Transaction(String),
    Time(String),
    /// The end of this backup.
    Immediate(String),
    /// The end of the timeline.
    End,
}

#[derive(Debug, Clone)]
struct Backup {
    name: String,
    timeline: u32,
    /// It is consistent before this position.
    position: u64,
}

/// What happened.
struct History {
    stage: Stage,
    random: Random,
    places: Vec<Place>,
    backups: Vec<Backup>,
    /// For timeline 2 and later: the timeline that it left, and where.
    parents: Vec<(u32, u64)>,
    inserted: u32,
    restores: u32,
}

/// Row 111.
#[test]
fn fault_111_restores_over_several_timelines_equal_what_was_seen_there_on_every_major() {
    let first = number("WALE_TEST_SEED", 112);
    let majors = majors();
    for seed in first..first + number("WALE_TEST_HISTORIES", 1) {
        println!("WALE_TEST_SEED={seed}");
        let chosen = usize::try_from(seed).unwrap() % majors.len();
        run(seed, majors[chosen]);
    }
}

fn run(seed: u64, major: u32) {
    let stage = Stage::new(&format!("history{seed}"), major);
    stage.cluster.sql("create table t (v int)");
    let mut history = History {
        stage,
        random: Random::new(seed),
        places: Vec::new(),
        backups: Vec::new(),
        parents: Vec::new(),
        inserted: 0,
        restores: 0,
    };
    let timelines = 3 + u32::try_from(history.random.below(3)).unwrap();
    let mut branch: Option<(Cluster, Sidecar)> = None;
    for timeline in 1..=timelines {
        history.write(timeline, branch.as_ref());
        if timeline == timelines {
            break;
        }
        let place = history.any_place();
        history.parents.push((place.timeline, place.position));
        branch = Some(history.restore(&place, &[]));
    }
    drop(branch);
    let checks = 2 + 2 * usize::try_from(timelines).unwrap();
    for _ in 0..checks {
        let place = history.any_place();
        let _ = history.restore(&place, &["archive_mode = off".into()]);
    }
}

impl History {
    /// Some steps on this timeline, up to its end.
    fn write(&mut self, timeline: u32, branch: Option<&(Cluster, Sidecar)>) {
        let steps = 4 + self.random.below(4);
        // Timeline 1 begins with a backup; on others the old ones lead here.
        if timeline == 1 {
            self.back_up(timeline, branch);
        }
        for _ in 0..steps {
            match self.random.below(6) {
                0 => self.back_up(timeline, branch),
                1 => {
                    cluster(&self.stage, branch).switch_wal();
                }
                _ => self.insert(timeline, branch),
            }
        }
        // A commit after every noted time: a recovery to a time ends before the first one after it.
        self.insert(timeline, branch);
        cluster(&self.stage, branch).sql("insert into t values (0)");
        let pg = cluster(&self.stage, branch);
        let rows = fingerprint(pg, "t");
        let position = position(pg);
        pg.switch_wal();
        pg.wait_archived();
        pg.kill();
        self.places.push(Place {
            timeline,
            position,
            target: Target::End,
            rows,
        });
    }

    /// Some rows, and one way to come back to them.
    fn insert(&mut self, timeline: u32, branch: Option<&(Cluster, Sidecar)>) {
        let pg = cluster(&self.stage, branch);
        self.inserted += 1;
        let n = self.inserted;
        let said = pg.sql(&format!(
            "begin; insert into t select {n} from generate_series(1, {}); select txid_current(); commit",
            1 + n % 7
        ));
        let rows = fingerprint(pg, "t");
        let at = pg.sql("select pg_current_wal_insert_lsn()");
        let target = match self.random.below(4) {
            0 => Target::Transaction(said.lines().last().unwrap().to_owned()),
            1 => Target::Position(at),
            2 => {
                pg.sql("select pg_sleep(0.05)");
                let time = pg.sql("select clock_timestamp()");
                pg.sql("select pg_sleep(0.05)");
                Target::Time(time)
            }
            _ => Target::Name(format!("place {n}")),
        };
        // Behind every position there is a record that changes nothing.
        pg.sql(&format!("select pg_create_restore_point('place {n}')"));
        let position = position(pg);
        self.places.push(Place {
            timeline,
            position,
            target,
            rows,
        });
    }

    fn back_up(&mut self, timeline: u32, branch: Option<&(Cluster, Sidecar)>) {
        let pg = cluster(&self.stage, branch);
        let sidecar = branch.map_or(&self.stage.sidecar, |(_, sidecar)| sidecar);
        let data = pg.data.to_string_lossy().into_owned();
        let exit = sidecar.verb(WALE, "wale", &["backup-push", &data]);
        assert_eq!(exit.code(), 0, "{}", exit.stderr);
        let list = sidecar.get("/backups").json();
        let names = list
            .as_array()
            .unwrap()
            .iter()
            .map(|backup| backup["name"].as_str().unwrap());
        let known = |name: &&str| self.backups.iter().any(|backup| backup.name == **name);
        let new: Vec<&str> = names.filter(|name| !known(name)).collect();
        assert_eq!(new.len(), 1, "{list}");
        let backup = Backup {
            name: new[0].to_owned(),
            timeline,
            position: position(pg),
        };
        self.places.push(Place {
            timeline,
            position: backup.position,
            target: Target::Immediate(backup.name.clone()),
            rows: fingerprint(pg, "t"),
        });
        self.backups.push(backup);
    }

    fn any_place(&mut self) -> Place {
        let index = usize::try_from(self.random.below(self.places.len() as u64)).unwrap();
        self.places[index].clone()
    }

    /// The backups that lead to a place: taken on its way, before the way's next turn and before the place.
    fn leading_to(&self, place: &Place) -> Vec<Backup> {
        let mut way = Vec::new();
        let (mut timeline, mut until) = (place.timeline, place.position);
        loop {
            way.push((timeline, until));
            if timeline == 1 {
                break;
            }
            let (parent, left) = self.parents[timeline as usize - 2];
            (timeline, until) = (parent, until.min(left));
        }
        let leads = |backup: &&Backup| match &place.target {
            Target::Immediate(name) => backup.name == *name,
            _ => way
                .iter()
                .any(|(timeline, until)| backup.timeline == *timeline && backup.position <= *until),
        };
        self.backups.iter().filter(leads).cloned().collect()
    }

    /// Restores to a place from one of the backups that lead there, and compares.
    fn restore(&mut self, place: &Place, lines: &[String]) -> (Cluster, Sidecar) {
        let leading = self.leading_to(place);
        let index = self.random.below(leading.len() as u64);
        let backup = &leading[usize::try_from(index).unwrap()];
        let mut addition = format!("recovery_target_timeline = '{}'\n", place.timeline);
        let target = match &place.target {
            Target::Name(name) => format!("recovery_target_name = '{name}'"),
            Target::Position(at) => format!("recovery_target_lsn = '{at}'"),
            Target::Transaction(id) => format!("recovery_target_xid = '{id}'"),
            Target::Time(time) => format!("recovery_target_time = '{time}'"),
            Target::Immediate(_) => "recovery_target = 'immediate'".to_owned(),
            Target::End => String::new(),
        };
        if !target.is_empty() {
            write!(addition, "{target}\nrecovery_target_action = 'promote'").unwrap();
        }
        self.restores += 1;
        let what = format!("restore {}: {place:?} from {}", self.restores, backup.name);
        println!("{what}");
        let options = self.stage.options.clone();
        self.stage.options = options.clone().set("WALE_RESTORE_LABEL", &backup.name);
        let name = format!("restored{}", self.restores);
        let (cluster, sidecar) = self.stage.restore(&name, &addition, lines);
        self.stage.options = options;
        cluster.start();
        cluster.wait_promoted();
        assert_eq!(fingerprint(&cluster, "t"), place.rows, "{what}");
        (cluster, sidecar)
    }
}

/// The cluster that writes: the first one, or the branch.
fn cluster<'a>(stage: &'a Stage, branch: Option<&'a (Cluster, Sidecar)>) -> &'a Cluster {
    branch.map_or(&stage.cluster, |(cluster, _)| cluster)
}

/// Bytes of WAL that a cluster has written.
fn position(cluster: &Cluster) -> u64 {
    let bytes = cluster.sql("select pg_current_wal_insert_lsn() - '0/0'");
    bytes.parse().unwrap()
}
