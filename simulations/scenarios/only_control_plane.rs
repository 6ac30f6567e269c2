//! The only apiserver that there is dies, and comes back.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::{Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "only-control-plane",
    story: "There is one control plane only. Its apiserver dies for a few seconds, and everybody's new clients are held until it is \
            back: not one fails. Later it dies for longer than anybody can be held: those fail that must, and nobody else.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// A client is held until so long after its first byte.
const HELD: Ms = 8_000;
/// While clients are held it is probed every half second; then handshakes follow, a few round trips each.
const RELEASED_WITHIN: Ms = 700;
/// A dial and a handshake take a few round trips of at most 10 ms.
const UNDER_WAY: Ms = 60;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1]);
    let dies = || Fault::Apiserver { of: who("cp-1"), mode: Mode::Refusing };
    let first = cast.moment("when it dies", 12_000, 15_000);
    let briefly = cast.moment("for how long", 1_000, 7_000);
    let again = cast.moment("when it dies again", 32_000, 35_000);
    let long = cast.moment("for how long then", 10_000, 20_000);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }.fault(first, briefly, dies()).fault(again, long, dies())
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let (brief, long) = (promises.step(0), promises.step(1));
    // Whose time would have ended later than it came back.
    let in_time = long.to + RELEASED_WITHIN - HELD;
    // A hello that was under way when it died is one that came too late.
    let died = long.from - UNDER_WAY;
    promises.nobody_fails_between(0, died).nobody_fails_between(in_time, Ms::MAX);
    promises.held_at_least(HELD, (died, in_time));
    for (from, back) in [(brief.from, brief.to), (in_time, long.to)] {
        promises.answered_by(back + RELEASED_WITHIN, (from, back));
        promises.late_at_most(NOT_LATE, brief.from, (back + RELEASED_WITHIN, back + 10_000));
    }
    promises.reset_within(500, &brief).reset_within(500, &long);
    promises.ready_everywhere(&long.endpoints, long.to + 5_000);
    promises.broken()
}
