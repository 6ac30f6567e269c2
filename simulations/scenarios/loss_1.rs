//! One packet in a hundred is lost.

use super::loss_5::lossy;
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loss-1-percent",
    story: "Everywhere one packet in a hundred is lost for a while, as on a line that has seen better days. A probe fails here and \
            there; nobody is cut off for it.",
    class: Class::Quick,
    plan: |cast: &Cast| lossy(cast, 0.01),
    holds,
    errors: &[],
};

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    promises.nobody_fails().nothing_cut((0, ran.ended));
    promises.broken()
}
