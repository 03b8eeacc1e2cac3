//! What is read this time. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use wale_archive::proof::CLOCKS_APART;

use super::options::Share;

/// A time before which, or none at all, something was read: what was never read comes first.
pub(super) type ReadAt = Option<DateTime<Utc>>;

/// What is old enough to be read again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// When the reading begins.
    pub(super) now: DateTime<Utc>,
    /// How long a proof holds; none holds at all without.
    pub(super) holds: Option<TimeDelta>,
}

impl Due {
    /// Whether something is read again that was last proven then.
    pub(super) fn is(&self, proven: ReadAt) -> bool {
        match (proven, self.holds) {
            // A clock that was ahead proves nothing for ever.
            (Some(proven), Some(holds)) => {
                self.now - proven >= holds || proven > self.now + CLOCKS_APART
            }
            _ => true,
        }
    }
}

/// When WAL has its turn: what was never read first, then what was read longest ago, whatever was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// When it was read last, or tried.
    pub(super) read: ReadAt,
    /// When it was found good.
    pub(super) proven: ReadAt,
}

/// A backup that may be read.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Bytes stored.
    pub(super) bytes: u64,
    /// When it was read last, whatever was found.
    pub(super) read: ReadAt,
    /// When it was found good at last.
    pub(super) proven: ReadAt,
    /// Whether it can be read at all: its objects are there.
    pub(super) is_readable: bool,
    /// The one that it holds the changes to.
    pub(super) parent: Option<usize>,
}

/// Which of the backups are read, oldest first by their places. Of a share whole ones: those that were read longest ago, of
/// equal ones the newest, until another one would be more than half too much; one in any case. What a delta builds on, and
/// was not proven, goes along.
pub(super) fn chosen(candidates: &[Candidate], due: Due, share: Option<Share>) -> BTreeSet<usize> {
    let is_due = |one: &Candidate| one.is_readable && due.is(one.proven);
    let mut order: Vec<usize> = (0..candidates.len())
        .filter(|&index| is_due(&candidates[index]))
        .collect();
    order.sort_by_key(|&index| (candidates[index].read, Reverse(index)));
    let all = candidates.iter().filter(|one| one.is_readable);
    let wanted = share.map(|share| share.of(all.map(|one| one.bytes).sum()));
    let (mut chosen, mut bytes) = (BTreeSet::new(), 0);
    for index in order {
        let one = &candidates[index];
        let is_enough = wanted.is_some_and(|wanted| bytes + one.bytes / 2 > wanted);
        if is_enough && !chosen.is_empty() {
            break;
        }
        let mut next = Some(index);
        while let Some(index) = next.filter(|index| !chosen.contains(index)) {
            bytes += candidates[index].bytes;
            chosen.insert(index);
            let parent = candidates[index].parent;
            let is_read_along = |one: &Candidate| one.is_readable && one.proven.is_none();
            next = parent.filter(|&parent| is_read_along(&candidates[parent]));
        }
    }
    chosen
}

/// Which WAL is read: a rule that is asked segment by segment, in the order of a listing.
#[derive(Clone, Debug)]
pub(super) struct Quota {
    due: Due,
    /// What was read later than this is left; of what was read just then, the first `left` bytes are taken.
    up_to: Option<Turn>,
    left: u64,
    /// How much may be given back: where this host can read nothing, it does not ask for everything.
    to_give_back: u64,
}

impl Quota {
    /// A rule for WAL of which so many bytes have these turns.
    pub(super) fn new(bytes: &BTreeMap<Turn, u64>, due: Due, share: Option<Share>) -> Self {
        let all = Self {
            due,
            up_to: None,
            left: u64::MAX,
            to_give_back: 0,
        };
        let Some(share) = share else {
            return all;
        };
        let mut left = share.of(bytes.values().sum());
        let to_give_back = left;
        for (&turn, &bytes) in bytes.iter().filter(|(turn, _)| due.is(turn.proven)) {
            if bytes >= left {
                return Self {
                    due,
                    up_to: Some(turn),
                    left,
                    to_give_back,
                };
            }
            left -= bytes;
        }
        all
    }

    /// Whether the next segment is read.
    pub(super) fn takes(&mut self, turn: Turn, bytes: u64) -> bool {
        if !self.due.is(turn.proven) {
            return false;
        }
        match self.up_to {
            None => true,
            Some(last) if turn == last => {
                let takes = self.left > 0;
                self.left = self.left.saturating_sub(bytes);
                takes
            }
            Some(last) => turn < last,
        }
    }

    /// What was taken could not be read: others have its share, twice the share at most.
    pub(super) fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.to_give_back);
        self.to_give_back -= bytes;
        self.left = self.left.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(days)
    }

    fn due(holds: Option<i64>) -> Due {
        Due {
            now: at(100),
            holds: holds.map(TimeDelta::days),
        }
    }

    fn backup(bytes: u64, read: Option<i64>) -> Candidate {
        Candidate {
            bytes,
            read: read.map(at),
            proven: read.map(at),
            is_readable: true,
            parent: None,
        }
    }

    fn share_of(text: &str) -> Share {
        text.parse().expect("a share")
    }

    #[test]
    fn a_proof_holds_for_as_long_as_is_said() {
        assert!(due(None).is(Some(at(100))));
        assert!(due(Some(30)).is(None));
        assert!(due(Some(30)).is(Some(at(70))));
        assert!(!due(Some(30)).is(Some(at(71))));
    }

    #[test]
    fn of_backups_the_longest_unread_comes_first_and_one_in_any_case() {
        let all = [
            backup(10, Some(5)),
            backup(10, None),
            backup(10, Some(3)),
            backup(10, None),
        ];
        let of = |text: &str| Vec::from_iter(chosen(&all, due(None), Some(share_of(text))));
        assert_eq!(of("1%"), [3]);
        assert_eq!(of("50%"), [1, 3]);
        assert_eq!(of("60%"), [1, 3]);
        assert_eq!(of("75%"), [1, 2, 3]);
        assert_eq!(of("100%"), [0, 1, 2, 3]);
        assert_eq!(chosen(&all, due(None), None).len(), 4);
        // What was proven lately is left; what is not there cannot be read.
        let lately = chosen(&all, due(Some(96)), None);
        assert_eq!(Vec::from_iter(lately), [1, 2, 3]);
        let mut lost = all.clone();
        lost[3].is_readable = false;
        assert_eq!(
            Vec::from_iter(chosen(&lost, due(None), Some(share_of("1%")))),
            [1]
        );
    }

    #[test]
    fn a_damaged_backup_is_read_again_and_lets_others_have_their_turn() {
        let mut all = [backup(10, Some(5)), backup(10, Some(4))];
        all[0].proven = None;
        assert_eq!(Vec::from_iter(chosen(&all, due(Some(99)), None)), [0]);
        assert_eq!(
            Vec::from_iter(chosen(&all, due(None), Some(share_of("10%")))),
            [1]
        );
    }

    #[test]
    fn what_a_delta_builds_on_and_was_not_proven_goes_along() {
        let mut all = [backup(10, None), backup(1, None), backup(1, None)];
        (all[1].parent, all[2].parent) = (Some(0), Some(1));
        assert_eq!(
            Vec::from_iter(chosen(&all, due(None), Some(share_of("1%")))),
            [0, 1, 2]
        );
        all[0].proven = Some(at(99));
        assert_eq!(
            Vec::from_iter(chosen(&all, due(None), Some(share_of("1%")))),
            [1, 2]
        );
    }

    /// Of what was found good then, if it was.
    fn turn(read: ReadAt) -> Turn {
        Turn { read, proven: read }
    }

    #[test]
    fn a_clock_that_was_ahead_proves_nothing() {
        let minutes = |minutes| at(100) + TimeDelta::minutes(minutes);
        let due = due(Some(30));
        assert!(!due.is(Some(minutes(0))) && !due.is(Some(minutes(10))));
        assert!(due.is(Some(minutes(11))) && due.is(Some(at(9999))));
    }

    #[test]
    fn wal_that_cannot_be_read_lets_other_wal_have_its_turn() {
        let tried = |days| Turn {
            read: Some(at(days)),
            proven: None,
        };
        let bytes = BTreeMap::from([(tried(90), 10), (turn(Some(at(5))), 10), (turn(None), 10)]);
        let mut quota = Quota::new(&bytes, due(Some(9)), Some(share_of("34%")));
        assert!(quota.takes(turn(None), 10));
        assert!(quota.takes(turn(Some(at(5))), 10));
        assert!(!quota.takes(tried(90), 10), "it was tried lately");
        // All of it is due where there is no share.
        assert!(Quota::new(&bytes, due(Some(9)), None).takes(tried(90), 10));
        // None was tried: what cannot be read costs nothing of the share, once.
        let bytes = BTreeMap::from([(turn(None), 100)]);
        let mut quota = Quota::new(&bytes, due(None), Some(share_of("10%")));
        for _ in 0..2 {
            assert!(quota.takes(turn(None), 10));
            quota.give_back(10);
        }
        assert!(!quota.takes(turn(None), 10));
    }

    /// Reads samples of ten segments of 10 bytes until all were read; gives how many it took.
    fn runs_to_cover(text: &str) -> usize {
        let mut read: Vec<ReadAt> = vec![None; 10];
        for run in 1..100 {
            let mut bytes = BTreeMap::new();
            for at in &read {
                *bytes.entry(turn(*at)).or_default() += 10;
            }
            let mut quota = Quota::new(&bytes, due(None), Some(share_of(text)));
            for at_last in &mut read {
                if quota.takes(turn(*at_last), 10) {
                    *at_last = Some(at(i64::try_from(run).expect("few")));
                }
            }
            if read.iter().all(Option::is_some) {
                return run;
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn samples_of_wal_cover_everything_in_turn() {
        let runs = ["1%", "10%", "25%", "50%", "100%"].map(runs_to_cover);
        assert_eq!(runs, [10, 10, 4, 2, 1]);
    }

    #[test]
    fn of_wal_only_what_is_due_is_taken() {
        let bytes = [None, Some(at(5)), Some(at(90))].map(|read| (turn(read), 10));
        let bytes = BTreeMap::from(bytes);
        let mut all = Quota::new(&bytes, due(Some(30)), None);
        let mut part = Quota::new(&bytes, due(Some(30)), Some(share_of("50%")));
        for (read, expected) in [(None, true), (Some(at(5)), true), (Some(at(90)), false)] {
            assert_eq!(
                (all.takes(turn(read), 10), part.takes(turn(read), 10)),
                (expected, expected)
            );
        }
        // Less is due than the share.
        let mut rest = Quota::new(&bytes, due(Some(99)), Some(share_of("90%")));
        let taken = [None, None, Some(at(90))].map(|read| rest.takes(turn(read), 5));
        assert_eq!(taken, [true, true, false]);
    }
}
