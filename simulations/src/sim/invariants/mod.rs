//! What must hold in every story. The judge reads the world's own history and what was seen from outside, never what an engine
//! thinks, except through what it published: its routings, its notices and its probe interval.

use super::outcome::{Broken, Judged};
use super::run::Ran;
use super::state::Ms;

mod agreement;
mod balance;
mod calm;
mod conditions;
mod connections;
mod leases;
mod nearness;
mod resets;
mod thrift;
mod trust;
mod twins;

/// Breaches told in full.
const TOLD: usize = 20;

/// Judges a run by all of them.
pub(super) fn judge(ran: &Ran) -> Vec<Judged> {
    let mut all = Vec::with_capacity(18);
    all.extend(connections::judge(ran));
    all.push(trust::judge(ran));
    all.extend(resets::judge(ran));
    all.push(agreement::judge(ran));
    all.push(nearness::judge(ran));
    all.extend(calm::judge(ran));
    all.extend(balance::judge(ran));
    all.push(thrift::judge(ran));
    all.push(leases::judge(ran));
    all.push(twins::judge(ran));
    all
}

/// One invariant's findings.
struct Docket {
    judged: Judged,
}

impl Docket {
    fn new(number: u8, name: &str) -> Docket {
        Docket { judged: Judged { number, name: name.to_owned(), evaluated: 0, broken: 0, first: Vec::new() } }
    }

    /// It was looked at where it could have been broken.
    fn evaluated(&mut self) {
        self.judged.evaluated += 1;
    }

    /// It was broken.
    fn broken(&mut self, at: Ms, what: impl FnOnce() -> String) {
        self.judged.broken += 1;
        if self.judged.first.len() < TOLD {
            self.judged.first.push(Broken { at, what: what() });
        }
    }

    fn close(self) -> Judged {
        self.judged
    }
}
