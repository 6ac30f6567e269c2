//! What must hold in every story. The judge reads the world's own history and what was seen from outside, never what an engine
//! thinks, except through what it published.

use super::outcome::{Broken, Judged};
use super::run::Ran;
use super::state::Ms;

/// Breaches told in full.
const TOLD: usize = 20;

/// Judges a run by all of them.
pub(super) fn judge(ran: &Ran) -> Vec<Judged> {
    let _ = ran;
    Vec::new()
}

/// One invariant's findings.
pub(super) struct Docket {
    judged: Judged,
}

impl Docket {
    pub(super) fn new(number: u8, name: &str) -> Docket {
        Docket { judged: Judged { number, name: name.to_owned(), evaluated: 0, broken: 0, first: Vec::new() } }
    }

    /// It was looked at where it could have been broken.
    pub(super) fn evaluated(&mut self) {
        self.judged.evaluated += 1;
    }

    /// It was broken.
    pub(super) fn broken(&mut self, at: Ms, what: impl FnOnce() -> String) {
        self.judged.broken += 1;
        if self.judged.first.len() < TOLD {
            self.judged.first.push(Broken { at, what: what() });
        }
    }

    pub(super) fn close(self) -> Judged {
        self.judged
    }
}
