//! An apiserver's accept queue is full.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-queue-full",
    story: "The accept queue of an apiserver is full for a while: its kernel drops every SYN, and what is open is served as ever. New \
            connections go elsewhere, and nothing that is open is reset.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster_at_work(&[2, 3, 5]);
    let of = who(cast.control_plane(&cluster, "who"));
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 15_000, 30_000);
    let full = Fault::Apiserver { of, mode: Mode::QueueFull };
    Plan { cluster, steps: Vec::new(), lasts: 65_000 }.fault(at, lasts, full)
}

/// What the first ones may wait for a dial that nothing answers before they go elsewhere.
const FIRST: u64 = 300;
/// After that everybody knows.
const KNOWN: u64 = 2_000;

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let full = promises.step(0);
    promises.nobody_fails().nothing_cut((0, ran.ended)).exchanges_end_well((0, ran.ended)).leases_kept(15_000);
    promises.late_at_most(FIRST, full.from, (full.from, full.from + KNOWN));
    promises.late_at_most(NOT_LATE, full.from, (full.from + KNOWN, ran.ended));
    promises.ready_everywhere(&full.endpoints, full.to + 5_000);
    promises.broken()
}
