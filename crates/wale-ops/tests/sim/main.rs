//! Deterministic simulation of archiving.
//!
//! Servers write WAL, their sidecars (the real [`wale_ops::wal_push::Pusher`], looking ahead) push it into one store,
//! among them a clone with other bytes under the same names and a stranger; clients hang up, sidecars are killed and
//! start anew, the store fails in every way that a store may; readers fetch and ask for proofs of absence; retention
//! removes old backups and WAL, and is killed in the middle. One seed decides everything. After each step the promises are checked (`judge.rs`), and at the end, when the faults have
//! ended, everything must get archived by itself.
//!
//! What makes it replay: one thread for tasks and one for blocking work; a clock that moves only when all stand still;
//! a gate before the store that lets one call through at a time, chosen by the seed (`gate.rs`). Real are the files of
//! the WAL directories and the codecs. Not simulated: time of day (it stands still) and the file store's system calls.
//!
//! `WALE_SIM_SEED=n` runs one seed; `WALE_SIM_RUNS=n` runs so many, from `WALE_SIM_FIRST` on.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests make files, read the environment and print as they like"
)]

mod expiry;
mod gate;
mod judge;
mod random;
mod server;
mod world;

use gate::Lie;
use world::{Broken, Summary};

/// Runs of `make test`: some seconds. `make soak` runs many more.
const RUNS: u64 = 20;
/// Lines of a trace that are shown: the last ones.
const SHOWN_LINES: usize = 60;

fn simulate(seed: u64, lie: Lie) -> Result<Summary, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    runtime.block_on(world::simulate(seed, lie))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

fn explain(seed: u64, broken: &Broken) -> String {
    let start = broken.trace.len().saturating_sub(SHOWN_LINES);
    format!(
        "{}\nreplay: WALE_SIM_SEED={seed} cargo test -p wale-ops --test sim -- the_promises\n  {}",
        broken.why,
        broken.trace[start..].join("\n  ")
    )
}

/// Invariants I1, I2 and I6, and that no error is taken for absence, over many seeds.
#[test]
fn the_promises_hold_whatever_goes_wrong() {
    let seeds = if let Some(seed) = number("WALE_SIM_SEED") {
        seed..seed + 1
    } else {
        let first = number("WALE_SIM_FIRST").unwrap_or(1);
        first..first + number("WALE_SIM_RUNS").unwrap_or(RUNS)
    };
    println!("seeds {seeds:?}");
    let mut all = Summary::default();
    for seed in seeds.clone() {
        if seed % 500 == 0 {
            println!("seed {seed}");
        }
        let one =
            simulate(seed, Lie::None).unwrap_or_else(|broken| panic!("{}", explain(seed, &broken)));
        all.acknowledgements += one.acknowledgements;
        all.refusals += one.refusals;
        all.faults += one.faults;
        all.crashes += one.crashes;
        all.reads += one.reads;
        all.disputes += one.disputes;
        all.removed += one.removed;
    }
    println!("{all:?}");
    // A simulation in which nothing happens proves nothing.
    if seeds.end - seeds.start >= RUNS {
        assert!(
            all.acknowledgements > 10 * RUNS && all.refusals > RUNS && all.faults > RUNS,
            "{all:?}"
        );
        assert!(all.crashes > RUNS && all.reads > RUNS, "{all:?}");
        assert!(all.removed > RUNS / 4, "{all:?}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 4, 5] {
        let first = simulate(seed, Lie::None).expect("the promises hold");
        let again = simulate(seed, Lie::None).expect("as before");
        let parted = first
            .trace
            .iter()
            .zip(&again.trace)
            .position(|(one, other)| one != other);
        let shown = parted.map(|at| {
            (
                at,
                &first.trace[at.saturating_sub(5)..=at],
                &again.trace[at],
            )
        });
        assert_eq!(shown, None, "seed {seed}: the runs part there");
        assert_eq!(first, again, "seed {seed}");
    }
}

/// A store that breaks its word is found out: the simulation can fail.
#[test]
fn every_lie_of_a_store_is_found_out() {
    for lie in [
        Lie::Overwrites,
        Lie::Forgets,
        Lie::Garbles,
        Lie::DeniesExistence,
    ] {
        let found =
            (1..=RUNS).find_map(|seed| simulate(seed, lie).err().map(|broken| (seed, broken.why)));
        let (seed, why) = found.unwrap_or_else(|| panic!("{lie:?} was believed"));
        println!("{lie:?}: seed {seed}: {why}");
    }
}
