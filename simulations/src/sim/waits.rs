//! How long the connections of several runs waited for their first byte. One that never got any waited for ever: who fails fast
//! must not look quick.

use std::collections::BTreeMap;

use super::outcome::Outcome;
use super::state::Ms;
use super::words::span;

/// What is said of a quantile that was never answered.
const NO_ANSWER: &str = "no answer";

/// All connections of some runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    /// How many were answered after so many ms.
    pub(super) answered: BTreeMap<Ms, u64>,
    /// How many never were.
    pub(super) unanswered: u64,
}

impl Waits {
    pub(super) fn of<'r>(runs: impl IntoIterator<Item = &'r Outcome>) -> Waits {
        let mut all = Waits::default();
        for outcome in runs {
            for (ms, count) in &outcome.waits {
                *all.answered.entry(*ms).or_default() += count;
            }
            let failed = outcome.figures.get("connections_failed").copied().unwrap_or(0.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let failed = failed.max(0.0) as u64;
            all.unanswered += failed;
        }
        all
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.answered.values().sum::<u64>() + self.unanswered
    }

    /// What this share of all had to wait at most, in words.
    pub(super) fn told(&self, share: f64) -> String {
        let all = self.count();
        let mut below = 0;
        let found = self.answered.iter().find(|(_, count)| {
            below += **count;
            below as f64 >= share * all as f64
        });
        match found {
            Some((ms, _)) => span(*ms as f64),
            None if all > 0 => NO_ANSWER.to_owned(),
            None => "–".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_never_answered_waits_longer_than_anybody() {
        let mut outcome = Outcome::fallen("a-story", 1, Vec::new());
        outcome.waits = [(2, 6), (40, 3)].into();
        assert_eq!(Waits::of([&outcome]).told(1.0), "40 ms");
        outcome.figures.insert("connections_failed".to_owned(), 1.0);
        let waits = Waits::of([&outcome]);
        assert_eq!([0.5, 0.9, 0.99].map(|share| waits.told(share)), ["2 ms", "40 ms", "no answer"]);
        assert_eq!(Waits::default().told(0.5), "–");
    }
}
