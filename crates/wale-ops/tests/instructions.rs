//! What a push and a fetch of a segment take of a processor, in instructions as callgrind counts them: it shows the program the same
//! processor everywhere. The count holds for the tests' own profile, in which what touches every byte is optimised.
//!
//! The test runs itself under valgrind, with few segments and with more: the difference is theirs alone.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test asks whether it is the counted one, and prints what it counted"
)]

mod segments;

use std::env;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Which work the test does itself, on how many segments, and where they are: "push 3 /tmp/x".
const WORK: &str = "WALE_TEST_COUNTED";
const FEW: u32 = 1;
const MORE: u32 = 3;

/// Counted: 439 million, of which all but a hundredth are zstd's. An eighth more is allowed: compilers differ.
const PUSH_INSTRUCTIONS: u64 = 495_000_000;
/// Counted: 133 to 141 million, zstd's and copies of the bytes.
const FETCH_INSTRUCTIONS: u64 = 165_000_000;

#[test]
fn a_push_and_a_fetch_take_no_more_instructions_than_they_did() {
    if let Ok(work) = env::var(WORK) {
        return run(&work);
    }
    let installed = Command::new("valgrind").arg("--version").output();
    if !installed.is_ok_and(|output| output.status.success()) {
        wale_testkit::skip(
            "instructions",
            "no valgrind (scripts/setup.sh test installs it)",
        );
        return;
    }
    let directory = TempDir::new().expect("a folder");
    segments::write(directory.path(), MORE);
    // A fetch needs what was pushed before it.
    let pushed = each("push", directory.path());
    let fetched = each("fetch", directory.path()) - pushed;
    println!("a push: {pushed} instructions, a fetch: {fetched}");
    assert!(pushed <= PUSH_INSTRUCTIONS, "{pushed}");
    assert!(fetched <= FETCH_INSTRUCTIONS, "{fetched}");
}

fn run(work: &str) {
    let [what, count, directory] = work.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("{WORK}={work}");
    };
    let (count, directory) = (count.parse().expect("a number"), Path::new(directory));
    let archive = segments::archive();
    segments::runtime().block_on(async {
        segments::push(&archive, directory, count, |_| {}).await;
        if what == "fetch" {
            segments::fetch(&archive, count, |_| {}).await;
        }
    });
}

/// Instructions for each segment.
fn each(what: &str, directory: &Path) -> u64 {
    (counted(what, MORE, directory) - counted(what, FEW, directory)) / u64::from(MORE - FEW)
}

fn counted(what: &str, count: u32, directory: &Path) -> u64 {
    let program = env::current_exe().expect("this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--test-threads=1", "a_push_and_a_fetch"])
        .env(WORK, format!("{what} {count} {}", directory.display()))
        .output()
        .expect("valgrind runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let line = told
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, number) = line.expect("callgrind tells what it collected");
    number.trim().parse().expect("a number")
}
