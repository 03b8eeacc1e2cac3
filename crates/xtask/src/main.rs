//! Work on the repository itself: `cargo run -p xtask -- docs` writes the generated pages,
//! `cargo run -p xtask -- tidy` checks the rules that a program can check, `cargo run -p xtask -- parts FOLDER` says
//! whose work the binary holds, `… provenance` where an image comes from, and `… zones` makes wale-pg's time zones.
//!
//! Knows nothing of what wale does: the pages come from the program, the rules from
//! `ARCHITECTURE.md`.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "it prints what it found, and writes pages into a repository"
)]

mod docs;
mod faults;
mod known;
mod modules;
mod names;
mod parts;
mod provenance;
mod rules;
mod source;
mod tidy;
mod tokens;
mod walls;
mod zones;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask -- docs [--check] [PROGRAM] | tidy [--lower] | parts FOLDER | provenance BINARY IMAGE ID FILE | zones";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["docs"] => docs::write(&root(), None),
        ["docs", "--check"] => docs::check(&root(), None),
        ["docs", "--check", program] => docs::check(&root(), Some(program.as_ref())),
        ["docs", program] => docs::write(&root(), Some(program.as_ref())),
        ["tidy"] => tidy::run(&root()),
        ["tidy", "--lower"] => tidy::lower(&root()),
        ["zones"] => zones::write(&root()),
        ["parts", folder] => parts::write(&root(), folder.as_ref()),
        ["provenance", binary, image, id, file] => {
            provenance::write(&root(), binary.as_ref(), (image, id), file.as_ref())
        }
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository: two folders above this crate's.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root.pop();
    root
}
