//! Faults of a whole process, steered from outside by a small text file.
//!
//! A test of the real program cannot hand it a [`super::FaultPlan`]. It hands it the path of a file, and
//! writes into that file what is to go wrong from now on. The file is read before every call; a file that
//! is missing or empty means no faults. Without the option that names the file none of this code runs.
//!
//! One fault a line, `#` starts a comment: `[VERB] [key=PREFIX] FAULT [ARGUMENT]`
//!
//! ```text
//! down                     every call fails as unavailable
//! put full                 put, put-if-absent and confirm find no space
//! get key=wal_005/ denied  reading keys with this prefix is not permitted
//! slow 200ms               every call waits first (ms or s)
//! put rate 20000000        bodies are taken at so many bytes a second, each for itself
//! hang                     no call is answered
//! hold                     every call waits until the file says so no more
//! cut 1000                 bodies break after 1000 bytes
//! truncate 1000            objects are silently that short
//! corrupt 17               byte 17 is silently garbled
//! lost-reply               the work is done, but the answer is unavailable
//! ignore-condition         put-if-absent overwrites
//! ```
//!
//! Verbs: `put` (both kinds), `put-if-absent`, `confirm`, `get`, `head`, `list`, `delete`, `check`. What makes an
//! object durable fails with the puts: `put` and `put-if-absent` stand for `confirm`, too. A line that is not
//! understood fails every call: a test with a slip of the pen must not pass.

use std::path::PathBuf;
use std::str::SplitWhitespace;
use std::time::Duration;

use super::{Fault, Verb};
use crate::StoreError;

/// A file that says what is to go wrong.
#[derive(Debug)]
pub(super) struct FaultControlFile {
    path: PathBuf,
}

/// How often a call that is held checks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One line of the file. Without a fault the call is held.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    verbs: Vec<Verb>,
    prefix: String,
    fault: Option<Fault>,
}

impl Line {
    fn applies(&self, verb: Verb, key: &str) -> bool {
        (self.verbs.is_empty() || self.verbs.contains(&verb)) && key.starts_with(&self.prefix)
    }
}

impl FaultControlFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What is to go wrong with this call; returns when nothing holds it.
    pub(super) async fn faults(&self, verb: Verb, key: &str) -> Result<Vec<Fault>, StoreError> {
        loop {
            let mut lines = self.lines().await?;
            lines.retain(|line| line.applies(verb, key));
            if lines.iter().all(|line| line.fault.is_some()) {
                return Ok(lines.into_iter().filter_map(|line| line.fault).collect());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn lines(&self) -> Result<Vec<Line>, StoreError> {
        let failed = |source| StoreError::Io {
            what: format!("fault control file {}", self.path.display()),
            source,
        };
        let text = match tokio::fs::read_to_string(&self.path).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error.into())),
        };
        parse(&text).map_err(|reason| failed(reason.into()))
    }
}

fn parse(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            lines.push(parse_line(line).ok_or_else(|| format!("{line:?} is not understood"))?);
        }
    }
    Ok(lines)
}

fn parse_line(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace();
    let mut word = words.next()?;
    let mut verbs = Vec::new();
    if let Some(named) = parse_verbs(word) {
        verbs = named;
        word = words.next()?;
    }
    let mut prefix = "";
    if let Some(named) = word.strip_prefix("key=") {
        prefix = named;
        word = words.next()?;
    }
    let fault = match word {
        "hold" => None,
        _ => Some(parse_fault(word, &mut words)?),
    };
    words.next().is_none().then(|| Line {
        verbs,
        prefix: prefix.to_owned(),
        fault,
    })
}

fn parse_verbs(word: &str) -> Option<Vec<Verb>> {
    Some(match word {
        "put" => vec![Verb::Put, Verb::PutIfAbsent, Verb::Confirm],
        "put-if-absent" => vec![Verb::PutIfAbsent, Verb::Confirm],
        "get" => vec![Verb::Get],
        "head" => vec![Verb::Head],
        "list" => vec![Verb::List],
        "delete" => vec![Verb::Delete],
        "confirm" => vec![Verb::Confirm],
        "check" => vec![Verb::Check],
        _ => return None,
    })
}

fn parse_fault(word: &str, arguments: &mut SplitWhitespace<'_>) -> Option<Fault> {
    Some(match word {
        "down" => Fault::Unavailable,
        "full" => Fault::Full,
        "denied" => Fault::PermissionDenied,
        "hang" => Fault::Hang,
        "slow" => Fault::Delay(parse_duration(arguments.next()?)?),
        "rate" => Fault::Rate(arguments.next()?.parse().ok()?),
        "cut" => Fault::CutBody(arguments.next()?.parse().ok()?),
        "truncate" => Fault::Truncate(arguments.next()?.parse().ok()?),
        "corrupt" => Fault::CorruptByte(arguments.next()?.parse().ok()?),
        "lost-reply" => Fault::LostReply,
        "ignore-condition" => Fault::IgnoreCondition,
        _ => return None,
    })
}

fn parse_duration(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    let number = text.strip_suffix('s')?;
    number.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let both = || vec![Verb::Put, Verb::PutIfAbsent, Verb::Confirm];
        let cases: [(&str, Vec<Verb>, &str, Option<Fault>); 9] = [
            ("down", vec![], "", Some(Fault::Unavailable)),
            (
                "slow 200ms",
                vec![],
                "",
                Some(Fault::Delay(Duration::from_millis(200))),
            ),
            (
                "slow 2s # so",
                vec![],
                "",
                Some(Fault::Delay(Duration::from_secs(2))),
            ),
            ("cut 1000", vec![], "", Some(Fault::CutBody(1000))),
            ("put full", both(), "", Some(Fault::Full)),
            (
                "get key=w/ denied",
                vec![Verb::Get],
                "w/",
                Some(Fault::PermissionDenied),
            ),
            ("key=w corrupt 7", vec![], "w", Some(Fault::CorruptByte(7))),
            ("  list   hang  ", vec![Verb::List], "", Some(Fault::Hang)),
            ("put hold", both(), "", None),
        ];
        for (text, verbs, prefix, fault) in cases {
            let expected = Line {
                verbs,
                prefix: prefix.to_owned(),
                fault,
            };
            assert_eq!(parse(text), Ok(vec![expected]), "{text}");
        }
        assert_eq!(parse("\n# nothing\n\n"), Ok(vec![]));
        assert_eq!(parse("down\nfull").expect("two").len(), 2);
    }

    #[test]
    fn slips_are_refused() {
        for text in [
            "up",
            "slow",
            "slow 5",
            "cut",
            "cut x",
            "down now",
            "get",
            "put key=a",
            "get get down",
        ] {
            parse(text).expect_err(text);
        }
    }

    #[tokio::test]
    async fn the_file_is_read_at_every_call() {
        let folder = tempfile::tempdir().expect("made");
        let path = folder.path().join("control");
        let control = FaultControlFile::new(path.clone());
        let asked = || control.faults(Verb::Get, "wal/a");
        assert_eq!(asked().await.expect("no file"), []);
        std::fs::write(&path, "get key=wal/ full\nput down\nget key=base/ hang").expect("written");
        assert_eq!(asked().await.expect("read"), [Fault::Full]);
        std::fs::write(&path, "dwon").expect("written");
        let error = asked().await.expect_err("a slip");
        assert!(!error.is_transient());
        std::fs::write(&path, "").expect("written");
        assert_eq!(asked().await.expect("empty"), []);
    }
}
