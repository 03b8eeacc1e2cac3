//! The script of a faulty store: which call fails, and how.

use std::num::NonZeroU64;
use std::time::Duration;

/// What a rule applies to, and what calls are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Every verb.
    Any,
    /// [`crate::Store::put_if_absent`].
    PutIfAbsent,
    /// [`crate::Store::put`].
    Put,
    /// [`crate::Store::get`].
    Get,
    /// [`crate::Store::head`].
    Head,
    /// [`crate::Store::list`].
    List,
    /// [`crate::Store::delete`].
    Delete,
    /// [`crate::Store::confirm`].
    Confirm,
    /// [`crate::Store::check`].
    Check,
}

/// Which of the calls that a rule applies to fail. The first call is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurrence {
    /// All.
    Always,
    /// One.
    Nth(u64),
    /// This one and all after it.
    From(u64),
    /// From the first to the second, both included.
    Between(u64, u64),
}

impl Verb {
    /// How many there are, [`Verb::Any`] included. Kept right by a test.
    pub(super) const COUNT: usize = 9;
}

impl Occurrence {
    fn covers(self, call: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(nth) => call == nth,
            Self::From(first) => call >= first,
            Self::Between(first, last) => (first..=last).contains(&call),
        }
    }
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Fails with [`crate::StoreError::Unavailable`] before anything is done.
    Unavailable,
    /// Fails with [`crate::StoreError::Full`]. A put takes its whole body first, and stores nothing.
    Full,
    /// Fails with [`crate::StoreError::PermissionDenied`].
    PermissionDenied,
    /// Waits, then goes on.
    Delay(Duration),
    /// The body of a put is taken at so many bytes a second. Each body has the rate for itself.
    Rate(NonZeroU64),
    /// Never answers.
    Hang,
    /// The connection breaks after so many bytes of the body, or entries of a list, with
    /// [`crate::StoreError::Unavailable`]. What is not longer passes whole.
    CutBody(u64),
    /// The object is (get, head, confirm) or becomes (put) that short, and nobody says so.
    Truncate(u64),
    /// The byte at this position is garbled on its way, and nobody says so.
    CorruptByte(u64),
    /// Does the work, then fails with [`crate::StoreError::Unavailable`].
    LostReply,
    /// [`crate::Store::put_if_absent`] overwrites, as a store does that ignores the condition.
    IgnoreCondition,
    /// [`crate::Store::list`] leaves out the keys with this prefix, as a stale list does.
    OmitFromList(String),
}

/// A script of faults. Rules are tried in the order in which they were added, and all that apply happen.
///
/// ```
/// use wale_storage::{Fault, FaultPlan, Occurrence, Verb};
/// let plan = FaultPlan::new()
///     .fail(Verb::Get, Occurrence::Nth(2), Fault::Unavailable)
///     .fail_keys("wal_005/", Verb::PutIfAbsent, Occurrence::Always, Fault::LostReply);
/// ```
#[derive(Debug, Default)]
pub struct FaultPlan {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    prefix: String,
    verb: Verb,
    occurrence: Occurrence,
    fault: Fault,
    /// Calls it applied to so far.
    calls: u64,
}

impl FaultPlan {
    /// No faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault for calls of a verb.
    #[must_use]
    pub fn fail(self, verb: Verb, occurrence: Occurrence, fault: Fault) -> Self {
        self.fail_keys("", verb, occurrence, fault)
    }

    /// Adds a fault for calls of a verb whose key (of a list, whose prefix) starts with `prefix`.
    #[must_use]
    pub fn fail_keys(
        mut self,
        prefix: &str,
        verb: Verb,
        occurrence: Occurrence,
        fault: Fault,
    ) -> Self {
        self.rules.push(Rule {
            prefix: prefix.to_owned(),
            verb,
            occurrence,
            fault,
            calls: 0,
        });
        self
    }

    /// Counts a call and answers what is to happen to it.
    pub(super) fn faults(&mut self, verb: Verb, key: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        for rule in &mut self.rules {
            let applies = rule.verb == Verb::Any || rule.verb == verb;
            if applies && key.starts_with(&rule.prefix) {
                rule.calls += 1;
                if rule.occurrence.covers(rule.calls) {
                    faults.push(rule.fault.clone());
                }
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_counted() {
        assert_eq!(Verb::Any as usize, 0);
        assert_eq!(Verb::Check as usize, Verb::COUNT - 1);
    }

    #[test]
    fn all_rules_that_apply_happen_in_order() {
        let mut plan = FaultPlan::new()
            .fail(Verb::Any, Occurrence::Nth(2), Fault::LostReply)
            .fail_keys("a/", Verb::Get, Occurrence::Always, Fault::Hang)
            .fail(Verb::Put, Occurrence::Always, Fault::Full);
        assert_eq!(plan.faults(Verb::Get, "a/b"), [Fault::Hang]);
        assert_eq!(
            plan.faults(Verb::Get, "a/b"),
            [Fault::LostReply, Fault::Hang]
        );
        assert_eq!(plan.faults(Verb::Get, "b"), []);
    }
}
