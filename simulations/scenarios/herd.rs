//! Everybody waits for the same moment.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "herd-after-recovery",
    story: "All apiservers are gone at once, and so many clients ask for one that agents hold them. Then all come back together: who \
            waited is served at once, and no apiserver gets the whole herd.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// How long clients are held at most before they are told, and so how long nobody may fail.
const HELD: u64 = 6_000;

/// Of fair shares of the herd nobody gets more.
const TWICE: usize = 2;

fn plan(cast: &Cast) -> Plan {
    let planes = if cast.smallest { 3 } else { cast.draw.one_of("control planes", &[3, 5]) };
    let workers = cast.count("workers", 6, 9);
    // All are alike, and it is the draw that is looked at.
    let cluster = Cluster { fresh_every: 50, jitter: 0.0, ..cast.zoned(planes, workers, 1) };
    let at = cast.moment("when", 15_000, 17_000);
    let gone = Fault::Apiserver { of: who("cp-*"), mode: Mode::Refusing };
    Plan { cluster, steps: Vec::new(), lasts: 45_000 }.fault(at, HELD, gone)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let gone = promises.step(0);
    // Whoever asked while nobody was there waited, and got an answer soon after somebody was.
    promises.nobody_fails().waits_at_most(HELD + 2_000, (gone.from, gone.to));
    promises.waits_at_most(1_500, (gone.to, gone.to + 1_500)).waits_at_most(100, (gone.to + 1_500, ran.ended));
    let workers = promises.machines(&who("worker-*"));
    promises.none_has_more_than(TWICE, &workers, &gone.endpoints, (gone.from + 100, gone.to + 1_500));
    promises.broken()
}
