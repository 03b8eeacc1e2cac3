//! Proofs of absence that this process has given, so that a server that polls is answered by one request.
//!
//! The first proof for a file asks for everything that could show that it was written. The next one comes out the same as
//! long as a listing of all that is named from there on shows nothing, and shows the archive whose identity was read: all
//! WAL, all later timelines and their histories are in it. Only what base backups show is not, so the proof is made in full
//! again after a minute. What would have to happen in between is that the file is stored, a base backup ends after it, and
//! the file is lost again. The listing is not believed alone: the file is asked for by its name, too.
//!
//! Where a listing begins where its prefix does, it shows the sixteen segments around the file, or all of a history's timeline; the
//! identity and the next timeline's history are asked for by their names. What comes later than that, and nothing in between, is
//! noticed with the next proof in full.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join;
use tokio::time::Instant;
use wale_archive::{Archive, Tail};
use wale_pg::{ArchiveFileName, WalSegmentName};

use super::absent::{Asker, present};
use super::plan;
use super::report::Absence;
use crate::error::Result;

/// For how long a proof in full counts, a minute: a standby polls every five seconds, so it costs a twelfth of them.
const HOLDS: Duration = Duration::from_mins(1);

/// Proofs that are kept: a server polls for its next segment and for the next timeline's history.
const PROOFS_MAX: usize = 8;

/// The proofs in full of the last minute.
#[derive(Debug, Default)]
pub(super) struct Proofs(Mutex<VecDeque<Proof>>);

#[derive(Debug)]
struct Proof {
    name: ArchiveFileName,
    asker: Asker,
    at: Instant,
}

impl Proofs {
    /// A proof in full that began at that time.
    pub(super) fn note(&self, name: ArchiveFileName, asker: Asker, at: Instant) {
        let mut proofs = self.recent();
        proofs.retain(|proof| proof.name != name);
        if proofs.len() == PROOFS_MAX {
            proofs.pop_front();
        }
        proofs.push_back(Proof { name, asker, at });
    }

    /// Whether somebody polls for this file.
    pub(super) fn is_polled(&self, name: &ArchiveFileName) -> bool {
        self.recent().iter().any(|proof| proof.name == *name)
    }

    /// Whether the file was proven to be absent to this server.
    pub(super) fn holds(&self, name: &ArchiveFileName, asker: &Asker) -> bool {
        let proofs = self.recent();
        proofs
            .iter()
            .any(|proof| proof.name == *name && proof.asker == *asker)
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Proof>> {
        let mut proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.retain(|proof| proof.at.elapsed() < HOLDS);
        proofs
    }
}

/// The listing with which a poll for this file is answered: from the file on, or from the segment before it, where that was
/// delivered last. `None` where the archive is not asked in this way.
pub(super) async fn tail_for(
    archive: &Archive,
    name: &ArchiveFileName,
    served: Option<WalSegmentName>,
) -> Result<Option<Arc<Tail>>> {
    let before = delivered_before(archive, name, served).await?;
    if archive.looks_by_prefix() {
        return archive.look_around(name, before).await;
    }
    archive.tail(&before.map_or(*name, Into::into)).await
}

/// Proves once more that the file is absent. `None` where that has to be done in full.
pub(super) async fn prove_again(
    archive: &Archive,
    name: &ArchiveFileName,
    asker: &Asker,
) -> Result<Option<Absence>> {
    let before = delivered_before(archive, name, asker.served).await?;
    let tail = match recently_listed(archive, name, before) {
        Some(tail) => Some(tail),
        None => tail_for(archive, name, asker.served).await?,
    };
    let Some(tail) = tail else {
        return Ok(None);
    };
    let is_before_there = before.is_none_or(|before| tail.shows(&before.into()));
    if !tail.ends_before(name) || !is_before_there {
        return Ok(None);
    }
    let by_name = archive.head_wal(name, archive.codec());
    let (is_own, stored) = if archive.looks_by_prefix() {
        try_join(archive.is_as_before(name), by_name).await?
    } else if archive.is_own(&tail) {
        (true, by_name.await?)
    } else {
        (false, None)
    };
    match stored {
        Some(stored) => Err(present(name, stored.key.as_str())),
        None => Ok(is_own.then_some(Absence::Proven)),
    }
}

/// What the poll's fetch has listed a moment ago.
fn recently_listed(
    archive: &Archive,
    name: &ArchiveFileName,
    before: Option<WalSegmentName>,
) -> Option<Arc<Tail>> {
    if archive.looks_by_prefix() {
        return archive.recently_around(name, before);
    }
    archive.recent_tail(&before.map_or(*name, Into::into))
}

/// The segment right before this one, where it was delivered last.
async fn delivered_before(
    archive: &Archive,
    name: &ArchiveFileName,
    served: Option<WalSegmentName>,
) -> Result<Option<WalSegmentName>> {
    let (ArchiveFileName::Segment(asked), Some(before)) = (name, served) else {
        return Ok(None);
    };
    let identity = archive.identity().await?;
    let is_next =
        identity.is_some_and(|own| plan::follows(served, *asked, own.cluster.wal_segment_size));
    Ok(is_next.then_some(before))
}

#[cfg(test)]
mod tests {
    use wale_format::{Codec, layout};
    use wale_storage::{Fault, FaultPlan, Looking, Occurrence, Verb};

    use super::super::{Fetcher, FetcherOptions};
    use super::*;
    use crate::error::Kind;
    use crate::testing::{Bench, content, file_name, segment};

    const FIRST: &str = "00000001000000000000000F";
    const SECOND: &str = "000000010000000000000010";
    const HISTORY: &str = "00000002.history";

    /// A standby that has fetched the first segment, and polls for the second.
    async fn polled(looking: Looking) -> (Bench, Fetcher) {
        let bench = Bench::new();
        bench.memory.set_looking(looking);
        bench.claim().await;
        bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
        let options = FetcherOptions {
            prefetch: 0,
            deadline: Duration::ZERO,
            ..FetcherOptions::default()
        };
        let fetcher = Fetcher::new(bench.archive.clone(), options);
        let first = fetcher.fetch(&file_name(FIRST)).await.expect("there");
        content(first).await.expect("whole");
        for name in [SECOND, HISTORY] {
            poll(&fetcher, name).await.expect("absent");
        }
        (bench, fetcher)
    }

    /// A fetch that finds nothing, five seconds after the last one, and the proof.
    async fn poll(fetcher: &Fetcher, name: &str) -> std::result::Result<(), Kind> {
        tokio::time::advance(Duration::from_secs(5)).await;
        let name = file_name(name);
        match fetcher.fetch(&name).await {
            Ok(_) => Err(Kind::ArchiveConflict),
            Err(error) if error.kind == Kind::NotFound => {
                let proven = fetcher.prove_absent(&name).await;
                proven.map(drop).map_err(|error| error.kind)
            }
            Err(error) => Err(error.kind),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fault_100_a_poll_costs_a_request_for_the_fetch_and_one_for_the_proof() {
        // By its prefix, the names of the segment, of the identity and of the next timeline's history are asked for beside; and the
        // segment before it is named otherwise, which is another listing for one segment in sixteen.
        let cases = [
            (Looking::FromAnyKey, [(SECOND, 1, 1), (HISTORY, 1, 1)]),
            (Looking::ByPrefix, [(SECOND, 2, 3), (HISTORY, 1, 3)]),
        ];
        for (looking, costs) in cases {
            let (bench, fetcher) = polled(looking).await;
            for _ in 0..5 {
                for (name, listed, by_name) in costs {
                    let (lists, all) = (
                        bench.faulty.calls(Verb::List),
                        bench.faulty.calls(Verb::Any),
                    );
                    poll(&fetcher, name).await.expect("absent");
                    let lists = bench.faulty.calls(Verb::List) - lists;
                    let all = bench.faulty.calls(Verb::Any) - all;
                    assert_eq!(
                        (lists, all - lists),
                        (listed, by_name),
                        "{looking:?}: {name}"
                    );
                }
            }
            // After a minute everything is asked for again.
            let all = bench.faulty.calls(Verb::Any);
            tokio::time::advance(HOLDS).await;
            poll(&fetcher, SECOND).await.expect("absent");
            assert!(bench.faulty.calls(Verb::Any) - all > 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fault_52_a_poll_notices_whatever_happens() {
        for looking in [Looking::FromAnyKey, Looking::ByPrefix, Looking::ByName] {
            let cases: [(&str, &str, Kind); 5] = [
                ("it is stored", SECOND, Kind::ArchiveConflict),
                (
                    "a later one is stored",
                    "000000010000000000000012",
                    Kind::CorruptData,
                ),
                (
                    "a later timeline leads through it",
                    HISTORY,
                    Kind::CorruptData,
                ),
                (
                    "the segment before it is gone",
                    FIRST,
                    Kind::StorageUnavailable,
                ),
                (
                    "the archive is gone",
                    layout::IDENTITY,
                    Kind::StorageUnavailable,
                ),
            ];
            for (case, name, expected) in cases {
                let (bench, fetcher) = polled(looking).await;
                let history = b"1\t0/1180000\tno recovery target specified\n";
                match name {
                    FIRST => bench
                        .memory
                        .remove(&Archive::key(&bench.wal_keys()[0]).expect("a key")),
                    HISTORY => drop(bench.store_wal(name, Codec::Zstd, history)),
                    name if name == layout::IDENTITY => {
                        bench.memory.remove(&Archive::key(name).expect("a key"));
                    }
                    name => drop(bench.store_wal(name, Codec::Lz4, &segment(name, 1))),
                }
                let found = poll(&fetcher, SECOND).await;
                assert_eq!(found, Err(expected), "{looking:?}: {case}");
            }
        }
    }

    /// What lies beyond the prefixes that a poll lists, the proof in full sees, a minute later.
    #[tokio::test(start_paused = true)]
    async fn fault_52_what_a_poll_by_its_prefix_does_not_list_the_next_proof_in_full_sees() {
        for name in ["000000010000000000000099", "00000003.history"] {
            let (bench, fetcher) = polled(Looking::ByPrefix).await;
            let history = b"1\t0/1180000\tno recovery target specified\n";
            match file_name(name) {
                ArchiveFileName::Segment(_) => {
                    bench.store_wal(name, Codec::Zstd, &segment(name, 1))
                }
                _ => bench.store_wal(name, Codec::Zstd, history),
            };
            assert_eq!(poll(&fetcher, SECOND).await, Ok(()), "{name}");
            tokio::time::advance(HOLDS).await;
            let found = poll(&fetcher, SECOND).await;
            assert_eq!(found, Err(Kind::CorruptData), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fault_29_a_poll_does_not_believe_a_listing_alone() {
        for looking in [Looking::FromAnyKey, Looking::ByPrefix] {
            let (bench, fetcher) = polled(looking).await;
            bench.store_wal(SECOND, Codec::Zstd, &segment(SECOND, 1));
            let hidden = Fault::OmitFromList(format!("wal_005/{SECOND}"));
            bench
                .faulty
                .set_plan(FaultPlan::new().fail(Verb::List, Occurrence::Always, hidden));
            let found = poll(&fetcher, SECOND).await;
            assert_eq!(found, Err(Kind::ArchiveConflict), "{looking:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fault_52_a_question_without_an_answer_is_no_absence_in_a_poll() {
        for looking in [Looking::FromAnyKey, Looking::ByPrefix] {
            for verb in [Verb::List, Verb::Head] {
                let (bench, fetcher) = polled(looking).await;
                let plan = FaultPlan::new().fail(verb, Occurrence::Always, Fault::Unavailable);
                bench.faulty.set_plan(plan);
                let found = poll(&fetcher, SECOND).await;
                assert_eq!(
                    found,
                    Err(Kind::StorageUnavailable),
                    "{looking:?}: {verb:?}"
                );
            }
        }
    }
}
