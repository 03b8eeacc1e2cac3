//! Lines of the log that requests cause: however many come, so many of one kind are written, and the rest is counted.
//!
//! Without it a neighbour could fill the log: each refused request is a line. It refuses to know what a line says.
//! Invariants: a kind is made of words of ours and of a status, never of anything that a client sent, so the table is
//! bounded; what was left out is reported in the next line of its kind or within two minutes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wale_ops::OpError;

use crate::journal::log_failure;

/// Lines of one kind in one [`WINDOW`]. PostgreSQL repeats a failing command three times a minute, and each is logged.
/// A line of 300 bytes, ten times a minute, is 4 MB a day for each kind; there are some dozens.
const LINES: u32 = 10;

/// How long lines of one kind are counted together.
const WINDOW: Duration = Duration::from_mins(1);

/// What happened, and how it ended: a route and a status, an operation and the name of an error's kind.
type LineKind = (&'static str, &'static str);

/// How many lines of each kind were written.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    kinds: Mutex<BTreeMap<LineKind, Counted>>,
}

#[derive(Debug)]
struct Counted {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl Quiet {
    /// Whether a line of this kind is written now. Reports what was left out of the window before.
    pub(crate) fn allows(&self, what: &'static str, how: &'static str) -> bool {
        self.allows_at(Instant::now(), what, how)
    }

    fn allows_at(&self, now: Instant, what: &'static str, how: &'static str) -> bool {
        let mut kinds = self.lock();
        let counted = kinds.entry((what, how)).or_insert(Counted {
            since: now,
            written: 0,
            left_out: 0,
        });
        let mut told = 0;
        if now.duration_since(counted.since) >= WINDOW {
            told = counted.left_out;
            *counted = Counted {
                since: now,
                written: 0,
                left_out: 0,
            };
        }
        let allowed = counted.written < LINES;
        if allowed {
            counted.written += 1;
        } else {
            counted.left_out += 1;
        }
        drop(kinds);
        tell((what, how), told);
        allowed
    }

    /// Logs a failure that a request caused, unless there were too many like it.
    pub(crate) fn failure(&self, what: &'static str, error: &OpError) {
        if self.allows(what, error.kind.name()) {
            log_failure(what, error);
        }
    }

    /// Reports what was left out of windows that are over, and forgets them.
    fn tell_rest(&self, now: Instant) {
        let mut over = Vec::new();
        self.lock().retain(|kind, counted| {
            let is_over = now.duration_since(counted.since) >= WINDOW;
            if is_over {
                over.push((*kind, counted.left_out));
            }
            !is_over
        });
        for (kind, left_out) in over {
            tell(kind, left_out);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LineKind, Counted>> {
        // Every change leaves whole counts behind.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell((what, how): LineKind, left_out: u64) {
    if left_out > 0 {
        tracing::warn!(
            what,
            how,
            left_out,
            "more lines like those before were left out of the log in the last minute"
        );
    }
}

/// Tells what was left out, for ever. May be dropped at any await.
pub(crate) async fn keep_telling(quiet: Arc<Quiet>) {
    loop {
        tokio::time::sleep(WINDOW).await;
        quiet.tell_rest(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(quiet: &Quiet, kind: LineKind) -> Option<u64> {
        quiet.lock().get(&kind).map(|counted| counted.left_out)
    }

    #[test]
    fn fault_89_a_flood_of_one_kind_writes_ten_lines_a_minute_and_hides_no_other() {
        let quiet = Quiet::default();
        let (flood, now) = (("/wal", "unauthorized"), Instant::now());
        let written = (0..10_000).filter(|_| quiet.allows_at(now, flood.0, flood.1));
        assert_eq!(written.count(), 10);
        assert_eq!(left_out(&quiet, flood), Some(9_990));
        let others = [("/wal-push", "unauthorized"), ("/wal", "not-found")];
        for (what, how) in others {
            assert!(quiet.allows_at(now, what, how), "{what} {how}");
        }
        let next = now + WINDOW;
        assert!(quiet.allows_at(next, flood.0, flood.1), "the next minute");
        assert_eq!(left_out(&quiet, flood), Some(0), "told with it");
        quiet.tell_rest(next);
        assert!(left_out(&quiet, flood).is_some(), "its minute has begun");
        assert!(left_out(&quiet, others[1]).is_none(), "its minute is over");
    }
}
