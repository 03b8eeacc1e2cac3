//! A client on the server's own volume, which takes files; and what happens where it cannot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wale_cluster::hand_over::{HandOver, TakingPlace};
use wale_format::Codec;
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::landing::Destination;
use super::*;
use crate::error::Kind;
use crate::testing::{Bench, SEGMENT_BYTES, content, file_name, segment, segment_name};

fn numbered(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

/// A server's WAL directory, its archive of segments 1 to `last`, and the fetcher beside it.
struct Scene {
    bench: Bench,
    fetcher: Fetcher,
    wal: tempfile::TempDir,
}

/// How a client got its file.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Taken,
    Sent,
}

impl Scene {
    async fn new(last: u32) -> Self {
        let bench = Bench::new();
        bench.claim().await;
        for number in 1..=last {
            let name = numbered(number);
            bench.store_wal(&name, Codec::Zstd, &segment(&name, 1));
        }
        let wal = tempfile::tempdir().expect("made");
        let fetcher = Fetcher::new(bench.archive.clone(), FetcherOptions::default())
            .handing_over_in(wal.path().to_owned());
        Self {
            bench,
            fetcher,
            wal,
        }
    }

    fn destination(&self) -> PathBuf {
        self.wal.path().join("RECOVERYXLOG")
    }

    /// A client that waits beside `destination` asks for a segment, which comes whole.
    async fn ask(&self, number: u32, destination: &Path) -> Way {
        let name = numbered(number);
        let place = TakingPlace::beside(destination).expect("a place");
        let asked = file_name(&name);
        let delivery = self.fetcher.fetch_for_taker(&asked, Some(place.nonce()));
        let (way, bytes) = match delivery.await.expect(&name) {
            Delivery::HandedOver(size) => {
                place.take(size).expect("it lies there");
                let bytes = fs::read(destination).expect("read");
                fs::remove_file(destination).expect("removed");
                (Way::Taken, bytes)
            }
            Delivery::Sent(fetched) => {
                assert!(place.take(SEGMENT_BYTES as u64).is_err());
                (Way::Sent, content(fetched).await.expect("whole"))
            }
        };
        assert!(bytes == segment(&name, 1), "{name}: {way:?}");
        way
    }

    async fn take(&self, number: u32) -> Way {
        self.ask(number, &self.destination()).await
    }

    /// A client that knows nothing of files.
    async fn send(&self, number: u32) {
        let name = numbered(number);
        let fetched = self.fetcher.fetch(&file_name(&name)).await.expect(&name);
        let bytes = content(fetched).await.expect("whole");
        assert!(bytes == segment(&name, 1), "{name}");
    }

    fn left(&self) -> usize {
        fs::read_dir(self.wal.path()).expect("read").count()
    }
}

#[tokio::test]
async fn a_client_on_the_servers_volume_takes_files_and_no_memory_holds_them() {
    let scene = Scene::new(8).await;
    for number in 1..=8 {
        assert_eq!(scene.take(number).await, Way::Taken, "{number}");
        let ahead = scene.fetcher.ahead().expect("it fetches ahead");
        assert_eq!(ahead.memory(), 0, "{number}");
    }
    let stats = scene.fetcher.stats();
    assert_eq!(
        (stats.delivered, stats.handed_over, stats.prefetch_hits),
        (8, 8, 6)
    );
    assert_eq!(scene.left(), 0);
}

#[tokio::test]
async fn files_fetched_ahead_are_sent_to_who_takes_none_and_memory_to_who_takes_them() {
    let scene = Scene::new(9).await;
    for number in 1..=3 {
        assert_eq!(scene.take(number).await, Way::Taken);
    }
    for number in 4..=7 {
        scene.send(number).await;
    }
    assert!(scene.fetcher.ahead().expect("on").memory() > 0);
    assert_eq!(scene.take(8).await, Way::Sent, "it lay in memory");
    assert_eq!(scene.take(9).await, Way::Sent);
    let stats = scene.fetcher.stats();
    assert_eq!((stats.prefetch_hits, stats.handed_over), (7, 3));
}

#[tokio::test]
async fn on_a_small_volume_only_what_is_asked_for_is_written() {
    let scene = Scene::new(6).await;
    assert_eq!(scene.take(1).await, Way::Taken);
    assert_eq!(scene.take(2).await, Way::Taken);
    let ahead = scene.fetcher.ahead().expect("on");
    assert_eq!(ahead.memory(), 0);
    let small = Destination::Taker {
        over: HandOver::at(scene.wal.path()),
        free: 1 << 29,
    };
    let third = ahead.take(segment_name(&numbered(3)), Some(&small)).await;
    assert!(third.is_some_and(|third| third.landed.is_some()));
    assert_eq!(ahead.memory(), 1 << 20, "the one after the next");
}

#[tokio::test]
async fn a_client_of_another_volume_gets_the_bytes_and_this_one_is_not_touched() {
    let scene = Scene::new(4).await;
    let other = tempfile::tempdir().expect("made");
    for number in 1..=4 {
        let way = scene.ask(number, &other.path().join("RECOVERYXLOG")).await;
        assert_eq!(way, Way::Sent);
        assert_eq!(scene.left(), 0);
    }
    // Nor is anything given where nothing can be written.
    let scene = Scene::new(2).await;
    let place = TakingPlace::beside(&scene.destination()).expect("a place");
    let gone = scene.wal.path().join("gone");
    fs::rename(scene.wal.path().join(".wale"), &gone).expect("moved");
    let name = file_name(&numbered(1));
    let asked = scene.fetcher.fetch_for_taker(&name, Some(place.nonce()));
    assert!(matches!(asked.await, Ok(Delivery::Sent(_))));
}

#[tokio::test]
async fn what_is_damaged_is_given_to_nobody() {
    let scene = Scene::new(3).await;
    for call in 1..6 {
        let fault =
            FaultPlan::new().fail(Verb::Get, Occurrence::Nth(call), Fault::CorruptByte(900));
        scene.bench.faulty.set_plan(fault);
        for number in 1..=3 {
            let place = TakingPlace::beside(&scene.destination()).expect("a place");
            let name = numbered(number);
            let file = file_name(&name);
            let asked = scene.fetcher.fetch_for_taker(&file, Some(place.nonce()));
            match asked.await {
                Ok(Delivery::HandedOver(size)) => {
                    place.take(size).expect("it lies there");
                    let bytes = fs::read(scene.destination()).expect("read");
                    assert!(bytes == segment(&name, 1), "call {call}, {name}");
                    fs::remove_file(scene.destination()).expect("removed");
                }
                Ok(Delivery::Sent(_)) => panic!("nothing was in the way of a file"),
                Err(error) => {
                    assert_ne!(error.kind, Kind::NotFound, "call {call}, {name}");
                    drop(place);
                }
            }
            assert_eq!(scene.left(), 0, "call {call}, {name}");
        }
    }
}

/// A client that is gone before the answer, as after SIGKILL of either.
async fn ask_and_die(scene: &Scene, number: u32) {
    let place = TakingPlace::beside(&scene.destination()).expect("a place");
    let name = file_name(&numbered(number));
    let asked = scene.fetcher.fetch_for_taker(&name, Some(place.nonce()));
    assert!(matches!(asked.await, Ok(Delivery::HandedOver(_))));
    let lost = place.nonce().clone();
    drop(place);
    // What SIGKILL leaves: the same folder and file, and nobody's lock.
    let folder = scene.wal.path().join(".wale").join(lost.as_str());
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("segment"), b"left").expect("written");
}

#[tokio::test]
async fn what_a_dead_client_left_goes_with_the_next_request_at_the_start_and_at_the_end() {
    let scene = Scene::new(9).await;
    ask_and_die(&scene, 1).await;
    assert_eq!(scene.take(2).await, Way::Taken);
    assert_eq!(scene.left(), 0, "with the next request");
    ask_and_die(&scene, 3).await;
    assert_eq!(scene.left(), 1);
    scene.fetcher.sweep().await;
    assert_eq!(scene.left(), 0, "at the start");
    ask_and_die(&scene, 4).await;
    scene.fetcher.drain().await;
    assert_eq!(scene.left(), 0, "at the end");
    assert_eq!(scene.take(5).await, Way::Taken, "which refuses nobody");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_client_left_goes_when_nobody_asks_any_more() {
    let scene = Scene::new(4).await;
    ask_and_die(&scene, 1).await;
    let living = TakingPlace::beside(&scene.destination()).expect("a place");
    ask_and_die(&scene, 2).await;
    let kept = || fs::read_dir(scene.wal.path().join(".wale")).map_or(0, Iterator::count);
    assert_eq!(kept(), 2);
    wait_for(|| kept() == 1).await;
    drop(living);
    // What dies after that is not forgotten.
    ask_and_die(&scene, 3).await;
    wait_for(|| scene.left() == 0).await;
}

/// The clock is the test's own and runs ahead while the folder is read on a thread.
async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it never came true");
}
