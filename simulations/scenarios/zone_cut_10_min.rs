//! A zone is cut off for ten minutes.

use crate::sim::plan::Plan;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, served};
use crate::sim::state::Ms;

use super::zone_cut_with::{severed, zones};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "zone-cut-10-min",
    story: "For ten minutes a zone, with or without a control plane in it, hears nothing of the others. \
            When the way is back everybody finds everybody again.",
    class: Class::Long,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    cut_for(cast, 600_000)
}

/// A zone is cut off for so long.
pub(super) fn cut_for(cast: &Cast, lasts: Ms) -> Plan {
    let (mut cluster, cut) = zones(cast, cast.draw.chance("with a control plane", 0.5));
    cluster.fresh_every = 2_000;
    let at = cast.moment("when", 15_000, 18_000);
    Plan { cluster, steps: Vec::new(), lasts: at + lasts + 120_000 }.fault(at, lasts, severed(cut))
}

/// After the way is back everybody is served, and everybody knows everybody.
pub(super) fn holds(ran: &Ran) -> Vec<String> {
    let (everyone, healed) = (everyone(ran), ran.last_step());
    let mut broken = served(ran, &everyone, healed + 2_000, ran.ended);
    broken.extend(all_know(ran, &everyone, &ran.endpoints(&everyone, ran.ended), healed + 60_000));
    broken
}
