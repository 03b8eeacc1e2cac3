//! The server's standard error: two things that are waited for, and its last lines.
//!
//! The server is started with `lc_messages = C`, an empty prefix and its log on standard error. PostgreSQL puts a tab before each
//! further line of a message, so no statement and no value can look like the beginning of one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::watch;

/// Lines that are kept, and the bytes of each: 60 × 500 = 30 kB.
const LINES_MAX: usize = 60;
const LINE_MAX: usize = 500;
/// The longest line that is read as one: a longer one is cut, and its rest is another.
const READ_MAX: u64 = 8 << 10;

/// A server that has ended its recovery says this.
const READY: &str = "LOG:  database system is ready to accept connections";
/// A recovery that comes to its target begins a message so, whatever kind of target it is.
const STOPPING: &str = "LOG:  recovery stopping ";
/// What says why a server ended.
const GRAVE: [&str; 2] = ["FATAL:  ", "PANIC:  "];

/// What the server has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// That recovery is over and it takes writes.
    pub(super) ready: bool,
    /// Where recovery stopped before the end of the log.
    pub(super) stopping: Option<String>,
    /// The first reason for its end.
    pub(super) grave: Option<String>,
}

impl Said {
    /// Whether this line says something new.
    fn hear(&mut self, line: &str) -> bool {
        if line == READY {
            self.ready = true;
        } else if let Some(rest) = line.strip_prefix(STOPPING) {
            self.stopping = Some(rest.to_owned());
        } else if let Some(rest) = GRAVE.iter().find_map(|word| line.strip_prefix(word)) {
            self.grave.get_or_insert(rest.to_owned());
        } else {
            return false;
        }
        true
    }
}

/// The last lines, shared with the task that reads them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line[..line.floor_char_boundary(LINE_MAX)].to_owned());
    }

    /// The lines, the oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

/// Reads the server's words to their end.
pub(super) async fn read(from: impl AsyncRead + Unpin, said: watch::Sender<Said>, tail: Tail) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut from).take(READ_MAX);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\n');
        tracing::debug!(target: "postgres", "{text}");
        tail.push(text);
        said.send_if_modified(|said| said.hear(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_recovery_is_heard_and_a_statement_cannot_fake_it() {
        let faked = "ERROR:  x\nSTATEMENT:  select 1\n\tLOG:  database system is ready to accept connections\n";
        let standby = "LOG:  database system is ready to accept read-only connections\n";
        let stopping = "LOG:  recovery stopping before commit of transaction 7, time 2026-01-01\n";
        let ready = format!("{READY}\n");
        let cases = [
            (String::new(), false, false),
            (faked.to_owned(), false, false),
            (standby.to_owned(), false, false),
            (stopping.to_owned(), false, true),
            (format!("{stopping}{ready}"), true, true),
            // Longer than what is read as one.
            (
                format!("LOG:  {}\n{ready}", "x".repeat(20_000)),
                true,
                false,
            ),
        ];
        for (text, is_ready, stops) in cases {
            let (sender, receiver) = watch::channel(Said::default());
            let tail = Tail::default();
            read(text.as_bytes(), sender, tail.clone()).await;
            let said = receiver.borrow().clone();
            assert_eq!(
                (said.ready, said.stopping.is_some()),
                (is_ready, stops),
                "{text}"
            );
            assert_eq!(said.grave, None);
            assert!(tail.lines().iter().all(|line| line.len() <= LINE_MAX));
        }
    }

    #[tokio::test]
    async fn the_last_lines_and_the_first_reason_are_kept() {
        let (sender, receiver) = watch::channel(Said::default());
        let tail = Tail::default();
        let many: Vec<String> = (0..500).map(|number| format!("LOG:  {number}\n")).collect();
        let many = many.concat();
        let text = format!("FATAL:  first\nFATAL:  second\n{many}");
        read(text.as_bytes(), sender, tail.clone()).await;
        assert_eq!(receiver.borrow().grave.as_deref(), Some("first"));
        let lines = tail.lines();
        assert_eq!(
            (lines.len(), lines.last().unwrap().as_str()),
            (LINES_MAX, "LOG:  499")
        );
    }
}
