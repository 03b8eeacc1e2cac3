//! A further archive beside the sidecar's: it follows, stops nothing, and is told.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use wale_format::{Codec, Seal};
use wale_ops::archive_copy::follow::Lag;
use wale_ops::{Archive, ArchiveOptions, Clock, Kind};
use wale_pg::ArchiveFileName;
use wale_pipeline::MemoryBudget;
use wale_storage::{FaultPlan, FaultyStore, MemoryStore, Store};

use super::support::{Bench, Sidecar, bench, bench_over, eventually, segment};
use crate::FurtherArchive;
use crate::backup::testing::Scripted;
use crate::replica::Replica;

fn further(memory: &Arc<MemoryStore>, bench: &Bench) -> (FurtherArchive, Arc<FaultyStore>) {
    let inner = Arc::clone(memory) as Arc<dyn Store>;
    let store = Arc::new(FaultyStore::new(inner, FaultPlan::new()));
    let archive = Archive::open(ArchiveOptions {
        store: Arc::clone(&store) as Arc<dyn Store>,
        seal: Seal::unencrypted(Codec::Zstd),
        clock: Clock::System,
        budget: MemoryBudget::new(8 << 20),
        created_by: "test".into(),
    });
    let further = FurtherArchive {
        number: 2,
        archive,
        housekeeping: bench.options.housekeeping.clone(),
    };
    (further, store)
}

async fn push(sidecar: &Sidecar, number: u32) -> (String, u16) {
    let (name, _) = sidecar.segment(number);
    let status = sidecar.get(&format!("/wal-push/{name}")).await.status();
    (name, status)
}

fn holds(memory: &MemoryStore, name: &str) -> bool {
    let key = format!("wal_005/{name}.zst");
    memory.keys().iter().any(|found| found.as_str() == key)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_stops_nothing_while_it_is_away_and_is_found_again_by_the_next_process() {
    let mut bench = bench();
    let second = Arc::new(MemoryStore::new());
    let (further_archive, store) = further(&second, &bench);
    bench.options.further.push(further_archive);
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let (first_name, status) = push(&sidecar, 1).await;
    assert_eq!(status, 200);
    eventually("the second has it", || async {
        holds(&second, &first_name)
    })
    .await;

    store.switch().set_down(true);
    let (later, status) = push(&sidecar, 2).await;
    assert_eq!(status, 200, "a dead second stops nothing");
    eventually("it is told", || async {
        let told = &sidecar.status().await["further_archives"][0];
        told["reachable"] == false && told["lag"]["segments"] == 1 && told["state"] == "failing"
    })
    .await;
    let metrics = sidecar.get("/metrics").await;
    let line = "wale_archive_lag_segments{archive=\"2\"} 1";
    assert!(metrics.body().contains(line), "{}", metrics.body());
    let memory = Arc::clone(&sidecar.memory);
    sidecar.stop().await.unwrap();
    assert!(!holds(&second, &later));

    let mut bench = bench_over(memory);
    let (further_archive, _) = further(&second, &bench);
    bench.options.further.push(further_archive);
    let sidecar = bench.start(None).await;
    eventually("the next process brings it", || async {
        holds(&second, &later)
    })
    .await;
    eventually("it is told", || async {
        let told = &sidecar.status().await["further_archives"][0];
        told["reachable"] == true && told["lag"]["segments"] == 0 && told["state"] == "following"
    })
    .await;
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_makes_pushes_wait_until_it_has_caught_up() {
    let mut bench = bench();
    let second = Arc::new(MemoryStore::new());
    let (further_archive, store) = further(&second, &bench);
    bench.options.further.push(further_archive);
    bench.options.max_archive_lag = Some(Duration::from_millis(300));
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    eventually("the second is compared", || async {
        let told = &sidecar.status().await["further_archives"][0];
        told["lag"]["known"] == true
    })
    .await;
    store.switch().set_down(true);
    let (waiting, status) = push(&sidecar, 1).await;
    assert_eq!(status, 200);
    eventually("a push is refused", || async {
        let (_, status) = push(&sidecar, 2).await;
        status == 503
    })
    .await;
    let refused = sidecar.get(&format!("/wal-push/{waiting}")).await;
    assert!(refused.body().contains("archive 2"), "{}", refused.body());
    store.switch().set_down(false);
    eventually("a push is taken", || async {
        let (_, status) = push(&sidecar, 3).await;
        status == 200
    })
    .await;
    assert!(holds(&second, &waiting));
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_remembered_in_the_archive_until_it_is_gone() {
    let mut bench = bench();
    let second = Arc::new(MemoryStore::new());
    let (further_archive, _) = further(&second, &bench);
    bench.options.further.push(further_archive);
    let sidecar = bench.start(None).await;
    sidecar.app.life.wait(crate::Phase::started).await;
    let (one, _) = push(&sidecar, 1).await;
    eventually("it follows", || async { holds(&second, &one) }).await;
    let (name, _) = segment(2);
    let key = Archive::key(&format!("wal_005/{name}.zst")).unwrap();
    second.insert(&key, "of somebody else");
    push(&sidecar, 2).await;
    let conflicts = async |sidecar: &Sidecar| {
        let told = sidecar.status().await["further_archives"][0].clone();
        told["conflicts_count"].as_u64().unwrap()
    };
    eventually("the conflict is told", || async {
        conflicts(&sidecar).await == 1
    })
    .await;
    let note = Archive::key("wale_disputed.json").unwrap();
    let noted = || {
        let content = second.content(&note).expect("noted");
        String::from_utf8_lossy(&content).contains(&name)
    };
    eventually("it is noted", || async {
        second.keys().contains(&note) && noted()
    })
    .await;
    let memory = Arc::clone(&sidecar.memory);
    sidecar.stop().await.unwrap();

    // The next process knows of it, although it has the size of the first's by now.
    let size = memory.content(&key).unwrap().len();
    second.insert(&key, vec![0; size]);
    let mut bench = bench_over(Arc::clone(&memory));
    let (further_archive, _) = further(&second, &bench);
    bench.options.further.push(further_archive);
    let sidecar = bench.start(None).await;
    eventually("everything was compared", || async {
        let told = sidecar.status().await["further_archives"][0].clone();
        told["state"] == "following"
    })
    .await;
    assert_eq!(conflicts(&sidecar).await, 1);
    assert!(noted());
    sidecar.stop().await.unwrap();

    // Once it is the same, or gone, nothing is disputed any more.
    second.insert(&key, memory.content(&key).unwrap());
    let mut bench = bench_over(memory);
    let (further_archive, _) = further(&second, &bench);
    bench.options.further.push(further_archive);
    let sidecar = bench.start(None).await;
    eventually("the note says nothing", || async { !noted() }).await;
    assert_eq!(conflicts(&sidecar).await, 0);
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_of_the_first_waits_for_one_that_is_away_as_long_as_it_may() {
    for (wait, waits) in [(Duration::from_hours(1), true), (Duration::ZERO, false)] {
        let mut bench = bench();
        let second = Arc::new(MemoryStore::new());
        let (further_archive, store) = further(&second, &bench);
        bench.options.further.push(further_archive);
        bench.options.retain_wait = wait;
        bench.options.housekeeping.policy.backups = Some(1);
        let sidecar = bench.start(Some(Scripted::new([]))).await;
        sidecar.app.life.wait(crate::Phase::started).await;
        push(&sidecar, 1).await;
        eventually("it follows", || async {
            sidecar.status().await["further_archives"][0]["state"] == "following"
        })
        .await;
        store.switch().set_down(true);
        push(&sidecar, 2).await;
        eventually("it is away", || async {
            sidecar.status().await["further_archives"][0]["state"] == "failing"
        })
        .await;
        assert_eq!(sidecar.get("/backup-push").await.status(), 200);
        let retention = async || sidecar.status().await["retention"].clone();
        if waits {
            eventually("it waits, and says so", || async {
                let failure = retention().await["last_failure"]["message"].to_string();
                failure.contains("archive 2 lags behind")
            })
            .await;
            assert!(retention().await["last"].is_null());
            store.switch().set_down(false);
        }
        eventually("it has run", || async {
            !retention().await["last"].is_null()
        })
        .await;
        assert!(retention().await["last_failure"].is_null());
        sidecar.stop().await.unwrap();
    }
}

#[test]
fn what_is_not_compared_again_stays_disputed() {
    let bench = bench();
    let (further, _) = further(&Arc::new(MemoryStore::new()), &bench);
    let replica = Replica::new(&further);
    let mut noted = wale_ops::Disputed::default();
    let key = |number: u32| format!("wal_005/0000000100000000{number:08X}.zst");
    for number in [1, 2] {
        noted.add(&key(number), "differs");
    }
    replica.remember(Some(&noted));
    let name: ArchiveFileName = "000000010000000000000001".parse().unwrap();
    replica.still_disputed(&name);
    replica.settle_conflicts();
    let known = replica.known();
    let keys: Vec<&String> = known.conflicts.objects.keys().collect();
    assert_eq!(keys, [&key(1)]);
    assert!(known.is_to_note);
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

#[test]
fn the_lag_is_what_was_measured_and_what_came_since() {
    let bench = bench();
    let (further, _) = further(&Arc::new(MemoryStore::new()), &bench);
    let replica = Replica::new(&further);
    let name = |number: u32| -> ArchiveFileName {
        format!("0000000100000000{number:08X}").parse().unwrap()
    };
    let told = |now| {
        let lag = replica.lag(at(now));
        (lag.known, lag.segments, lag.age.as_secs())
    };
    let refused = |now| {
        replica
            .refusal(Duration::from_secs(50), at(now))
            .map(|e| e.kind)
    };
    assert_eq!(told(10), (false, 0, 0));
    assert_eq!(refused(1000), None, "nothing is followed yet");
    replica.known().began = Some(at(10));
    assert_eq!(refused(60), None);
    assert_eq!(
        refused(61),
        Some(Kind::Busy),
        "what was never compared may lack anything"
    );
    replica.archived(&name(1), at(20));
    replica.archived(&name(1), at(25));
    assert_eq!(told(30), (false, 1, 10));
    let lag = Lag {
        segments: 7,
        oldest: Some(at(5)),
    };
    replica.known().measured = Some((lag, at(30)));
    replica.known().is_measured = true;
    // The first one was there when it was measured.
    assert_eq!(told(30), (true, 7, 25));
    replica.archived(&name(2), at(40));
    assert_eq!(told(45), (true, 8, 40));
    assert_eq!(refused(55), None);
    assert_eq!(refused(56), Some(Kind::Busy));
    replica.known().measured = None;
    replica.known().pending.clear();
    assert_eq!(told(60), (true, 0, 0));
}
