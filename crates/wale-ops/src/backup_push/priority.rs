//! What the system gives the workers of a backup where others want it too.
//!
//! On Linux the priority belongs to a thread, and one that is low stays so: only a privileged process raises it again. So low
//! workers have threads of their own, which end with the backup, and nothing else, a push of WAL least of all, ever runs on them.

use rustix::process::{getpriority_process, setpriority_process};
use wale_pipeline::{Crew, ThreadSource};

/// The lowest priority. Where nothing else is set, the kernel reads and writes for such a thread at the lowest priority of the
/// class best-effort, too (`ioprio_set(2)`), if the disk's scheduler knows priorities.
const LOWEST: i32 = 19;

/// What the system gives the workers of a backup where others want it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// As much as the others.
    #[default]
    Normal,
    /// What the others leave.
    Low,
}

impl Priority {
    /// Both, the default first.
    pub const ALL: [Self; 2] = [Self::Normal, Self::Low];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// So many threads at this priority.
    pub(crate) const fn crew(self, threads: usize) -> Crew {
        let from = match self {
            Self::Normal => ThreadSource::Pool,
            Self::Low => ThreadSource::Own(lower),
        };
        Crew { threads, from }
    }
}

/// Gives this thread the lowest priority, for good.
fn lower() {
    if let Err(error) = setpriority_process(None, LOWEST) {
        let priority = getpriority_process(None).unwrap_or_default();
        tracing::warn!(%error, priority, "the priority of a worker of the base backup could not be lowered");
    }
}

#[cfg(test)]
mod tests {
    use wale_pipeline::{CancellationToken, run_workers};

    use super::*;

    /// The priority of the thread that asks.
    fn own() -> i32 {
        getpriority_process(None).expect("a thread knows its priority")
    }

    #[tokio::test]
    async fn low_workers_are_low_and_nothing_else_is() {
        let cancel = CancellationToken::new();
        let before = own();
        for (priority, expected) in [(Priority::Low, LOWEST), (Priority::Normal, before)] {
            let crew = priority.crew(2);
            let seen =
                run_workers(vec![(); 8], crew, &cancel, |(), _| Ok::<_, String>(own())).await;
            assert_eq!(seen, Ok(vec![expected; 8]), "{priority:?}");
        }
        assert_eq!(
            tokio::task::spawn_blocking(own).await.expect("joined"),
            before
        );
        assert_eq!(own(), before);
    }
}
