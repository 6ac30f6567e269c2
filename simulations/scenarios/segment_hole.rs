//! Long segments towards one apiserver vanish.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "long-segments-vanish",
    story: "On the way to one apiserver every segment of more than 1,400 bytes vanishes, and nobody says so: dials succeed, small requests \
            too, and a ClientHello of 1,700 bytes never arrives. The first few clients wait a moment, nobody fails, and that apiserver \
            is left alone, without coming and going, until its path is whole again.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster_at_work(&[2, 3, 5]);
    let of = cast.control_plane(&cluster, "who");
    let others = Plan { cluster: cluster.clone(), steps: Vec::new(), lasts: 0 }.names();
    let from = others.into_iter().filter(|name| *name != of).collect();
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 20_000, 35_000);
    let hole = Fault::SegmentHole { from, to: who(of), bytes: 1_400 };
    Plan { cluster, steps: Vec::new(), lasts: 85_000 }.fault(at, lasts, hole)
}

/// A hello that is not answered goes elsewhere after this at most.
const FIRST: u64 = 2_000;
/// After that everybody knows.
const KNOWN: u64 = 5_000;

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let hole = promises.step(0);
    promises.nobody_fails().leases_kept(15_000);
    promises.late_at_most(FIRST, hole.from, (hole.from, hole.from + KNOWN));
    promises.late_at_most(NOT_LATE, hole.from, (hole.from + KNOWN, hole.to));
    promises.unused_by_others(&hole, (hole.from + KNOWN, hole.to));
    promises.broken()
}
