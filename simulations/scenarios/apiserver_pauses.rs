//! An apiserver pauses.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-pauses",
    story: "An apiserver pauses for 600 ms, as a virtual machine that is moved or a process short of memory does, and again some seconds later. Nobody loses a connection.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// How long.
const PAUSE: u64 = 600;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    let again = at + cast.moment("again after", 5_000, 15_000);
    let pause = |of| Fault::Apiserver { of, mode: Mode::Hung };
    Plan { cluster, steps: Vec::new(), lasts: 50_000 }.fault(at, PAUSE, pause(of.clone())).fault(again, PAUSE, pause(of))
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let pause = promises.step(0);
    // The pause itself is all that anybody may feel: 600 ms, and what a first byte takes.
    promises.nobody_fails().nothing_cut((0, ran.ended)).late_at_most(PAUSE + 50, pause.from, (pause.from, ran.ended));
    promises.broken()
}
