//! Which level of zstd is taken next, by how long codec and store waited for each other. Pure: the times come from `levels`.

use std::time::Duration;

use wale_format::CodecSettings;

/// What an object has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// From its beginning until all of it was made.
    pub(crate) span: Duration,
    /// The codec stood still in it, because the store had not taken what there was.
    pub(crate) blocked: Duration,
    /// The store had nothing to do, because the codec had made nothing.
    pub(crate) idle: Duration,
    /// From when all of it was made until the store had confirmed it.
    pub(crate) tail: Duration,
}

/// What a higher step may take of the time in which the codec stands still: nine tenths. It is the store's anyway.
const OF_BLOCKED: (u32, u32) = (9, 10);

/// What it may take beside the time that the store has an object to itself: a twentieth, by which everything may be slower.
const OF_TAIL: u32 = 20;

/// A step is left when it costs more than this of all: a fourteenth, more than a twentieth, so that one that was just worth it
/// stays.
const COSTS_TOO_MUCH: u32 = 14;

/// So many objects go by, after a step was left, before it is tried again.
const REST: u32 = 8;

/// Which step of [`CodecSettings::ADAPTIVE`] is taken next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LevelChoice {
    pub(crate) step: usize,
    /// So many objects go by before a higher step is tried.
    rest: u32,
}

impl LevelChoice {
    /// Notes what an object of this step has shown.
    pub(crate) fn note(&mut self, step: usize, shown: Shown) {
        if step != self.step {
            // It began before the last change.
            return;
        }
        let steps = &CodecSettings::ADAPTIVE;
        let cost = steps[step].cost;
        let Shown {
            span,
            blocked,
            idle,
            tail,
        } = shown;
        let work = span.saturating_sub(blocked);
        if let Some(lower) = step.checked_sub(1) {
            // Only what the store waits for is lost, and only what the step costs comes back.
            let lost = idle.min(work * (cost - steps[lower].cost) / cost);
            if lost * COSTS_TOO_MUCH > span + tail {
                *self = Self {
                    step: lower,
                    rest: REST,
                };
                return;
            }
        }
        self.rest = self.rest.saturating_sub(1);
        if self.rest > 0 {
            return;
        }
        if let Some(higher) = steps.get(step + 1) {
            let more = work * (higher.cost - cost) / cost;
            if more < blocked * OF_BLOCKED.0 / OF_BLOCKED.1 + tail / OF_TAIL {
                self.step = step + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a store takes a body.
    #[derive(Clone, Copy, Debug)]
    enum Taking {
        /// All of it, and then it goes on its way: a part of an upload is gathered so.
        First,
        /// Piece by piece, while others are made.
        Meanwhile,
    }

    /// What an object shows of a codec of so many µs at the first step, and of a store of so many µs. Each higher step leaves a
    /// tenth less to store. Also its bytes, and the time in all.
    fn show(step: usize, codec: u64, store: u64, taking: Taking) -> (Shown, u64, Duration) {
        let cost = |step: usize| u64::from(CodecSettings::ADAPTIVE[step].cost);
        let bytes = 100 - 10 * step as u64;
        let codec = Duration::from_micros(codec * cost(step) / cost(0));
        let store = Duration::from_micros(store * bytes / 100);
        let shown = match taking {
            Taking::First => Shown {
                span: codec,
                idle: codec,
                tail: store,
                blocked: Duration::ZERO,
            },
            Taking::Meanwhile => Shown {
                span: codec.max(store),
                blocked: store.saturating_sub(codec),
                idle: codec.saturating_sub(store),
                tail: Duration::ZERO,
            },
        };
        (shown, bytes, shown.span + shown.tail)
    }

    /// The choice after 1,000 objects, their bytes, and the time that they took.
    fn thousand(codec: u64, store: u64, taking: Taking) -> (LevelChoice, u64, Duration) {
        let mut choice = LevelChoice::default();
        let (mut all_bytes, mut all_time) = (0, Duration::ZERO);
        for _ in 0..1000 {
            let (shown, bytes, time) = show(choice.step, codec, store, taking);
            choice.note(choice.step, shown);
            all_bytes += bytes;
            all_time += time;
        }
        (choice, all_bytes, all_time)
    }

    #[test]
    fn a_store_that_is_waited_for_gets_fewer_bytes_and_no_other_does() {
        use Taking::{First, Meanwhile};
        let last = CodecSettings::ADAPTIVE.len() - 1;
        for (codec, store, taking, step) in [
            (20_000, 0, First, 0),
            (20_000, 0, Meanwhile, 0),
            (20_000, 5_000, First, 0),
            (20_000, 5_000, Meanwhile, 0),
            (20_000, 40_000, Meanwhile, 0),
            (1_000, 100_000, First, 1),
            (1_000, 20_000, Meanwhile, 1),
            (1_000, 2_000_000, First, last),
            (1_000, 100_000, Meanwhile, last),
        ] {
            let (choice, bytes, _) = thousand(codec, store, taking);
            assert_eq!(choice.step, step, "{codec} {store} {taking:?}");
            assert_eq!(bytes < 100_000, step > 0, "{codec} {store} {taking:?}");
        }
    }

    /// A twentieth is what a step may cost that saves nothing, or what one brings that is not taken.
    #[test]
    fn it_is_hardly_slower_than_the_best_fixed_step() {
        for taking in [Taking::First, Taking::Meanwhile] {
            for codec in [100, 1_000, 3_000, 10_000, 100_000] {
                for store in [0, 100, 1_000, 5_000, 10_000, 50_000, 100_000, 1_000_000] {
                    let (_, _, time) = thousand(codec, store, taking);
                    let steps = 0..CodecSettings::ADAPTIVE.len();
                    let fixed = steps.map(|step| show(step, codec, store, taking).2);
                    let best = fixed.min().expect("there are steps") * 1000;
                    assert!(
                        time * 100 <= best * 107,
                        "codec {codec}, store {store}, {taking:?}: {time:?}, best {best:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_step_is_left_when_the_processor_becomes_the_limit() {
        let mut choice = LevelChoice { step: 1, rest: 0 };
        choice.note(1, show(1, 20_000, 20_000, Taking::Meanwhile).0);
        assert_eq!((choice.step, choice.rest), (0, REST));
        // It is not tried again at once.
        for _ in 1..REST {
            choice.note(0, show(0, 100, 1_000_000, Taking::Meanwhile).0);
            assert_eq!(choice.step, 0);
        }
        choice.note(0, show(0, 100, 1_000_000, Taking::Meanwhile).0);
        assert_eq!(choice.step, 1);
        // What was begun at another step says nothing.
        choice.note(0, show(0, 100, 1_000_000, Taking::Meanwhile).0);
        assert_eq!(choice.step, 1);
    }
}
