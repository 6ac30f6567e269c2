//! An apiserver takes its time.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-slow",
    story: "An apiserver takes longer for everything, by a tenth of a second up to one and a half. As long as its answers come within \
            the first-byte delay of 500 ms nobody is moved on from it; beyond that whoever has a choice goes to another one.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// Who takes longer than this, in ms, for near clients is moved on from.
const FIRST_BYTE_DELAY: u32 = 500;
/// By then everybody has probed it several times.
const MEASURED: u64 = 6_000;

fn plan(cast: &Cast) -> Plan {
    // So many new connections that whoever is used at all is used often.
    let cluster = Cluster { fresh_every: 200, ..cast.cluster(&[2, 3, 5]) };
    let of = who(cast.control_plane(&cluster, "who"));
    let mode = Mode::Slow(cast.draw.one_of("by", &[100, 300, 450, 550, 800, 1_500]));
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 15_000, 25_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(at, lasts, Fault::Apiserver { of, mode })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    // A hello that is not answered within the first-byte delay goes to another one.
    promises.nobody_fails().late_at_most(1_000, fault.from, (fault.from, ran.ended)).leases_kept(30_000);
    let mode = ran.plan.steps.first().map(|step| &step.what);
    if matches!(mode, Some(Fault::Apiserver { mode: Mode::Slow(FIRST_BYTE_DELAY..), .. })) {
        promises.unused_by_others(&fault, (fault.from + MEASURED, fault.to));
    }
    promises.broken()
}
