//! A zone that has a control plane is cut off for ten minutes.

use super::zone_cut_with::{severed, zones};
use crate::sim::plan::Plan;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, served};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-cut-10-min-with-control-plane",
    story: "For ten minutes a zone with a control plane in it hears nothing of the others. Both sides serve with what they have, and \
            when the way is back everybody finds everybody again.",
    class: Class::Long,
    plan: |cast: &Cast| cut_for(cast, TEN_MINUTES, true),
    holds: both_sides_serve,
    errors: &[],
};

pub(super) const TEN_MINUTES: Ms = 600_000;

/// A zone, with a control plane in it or without, is cut off for so long.
pub(super) fn cut_for(cast: &Cast, lasts: Ms, with: bool) -> Plan {
    let (mut cluster, cut) = zones(cast, with);
    cluster.fresh_every = 2_000;
    let at = cast.moment("when", 15_000, 18_000);
    Plan { cluster, steps: Vec::new(), lasts: at + lasts + 120_000 }.fault(at, lasts, severed(cut))
}

/// Whoever was left without a control plane is served when the way is back, and everybody knows everybody.
pub(super) fn found_again(ran: &Ran) -> Vec<String> {
    let (everyone, healed) = (everyone(ran), ran.last_step());
    let mut broken = served(ran, &everyone, healed + 2_000, ran.ended);
    broken.extend(all_know(ran, &everyone, &ran.endpoints(&everyone, ran.ended), healed + 60_000));
    broken
}

/// By then each side knows who is left.
const KNOWN: Ms = 15_000;

/// The same, and meanwhile too.
pub(super) fn both_sides_serve(ran: &Ran) -> Vec<String> {
    let cut = ran.plan.steps.first().map_or(0, |step| step.at);
    let mut broken = served(ran, &everyone(ran), cut + KNOWN, ran.last_step());
    broken.extend(found_again(ran));
    broken
}
