//! An apiserver does not read what is uploaded to it.

use crate::sim::plan::{Fault, Plan};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::{Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-does-not-read",
    story: "For 20 s one apiserver, or each of them, reads nothing of what is uploaded to it, and serves everything else. Its kernel \
            closes the window and says so whenever it is asked: every upload waits, none is reset, and each arrives whole.",
    class: Class::Quick,
    plan: |cast| plan(cast, 20_000, 65_000),
    holds,
    errors: &[],
};

pub(super) fn plan(cast: &Cast, lasts: Ms, whole: Ms) -> Plan {
    let cluster = cast.cluster_at_work(&[2, 3, 5]);
    let of = cast.one_or_all(&cluster);
    let at = cast.moment("when", 12_000, 15_000);
    Plan { cluster, steps: Vec::new(), lasts: whole }.fault(at, lasts, Fault::Apiserver { of, mode: Mode::NotReading })
}

pub(super) fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().nothing_cut((0, ran.ended)).exchanges_end_well((0, ran.ended)).leases_kept(15_000);
    promises.late_at_most(NOT_LATE, fault.from, (fault.from, ran.ended));
    promises.ready_everywhere(&fault.endpoints, fault.from + 5_000);
    promises.broken()
}
