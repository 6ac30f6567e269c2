//! All control planes are replaced while a worker is cut off.

use super::planes_replaced::{known_in_time, replaced};
use super::zone_cut_with::severed;
use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, nobody_failed};
use crate::sim::state::Ms;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "control-planes-replaced-unseen",
    story: "While all control planes are replaced one after the other, at new addresses, one worker is cut off, and perhaps restarted. \
            When it returns none of its seeds is left and no apiserver that it ever knew. It remembers the other workers, and they tell it.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// From one replacement to the next: a cluster in a hurry.
const APART: Ms = 9_000;
/// Longer than the last old one takes to go.
const STAYS_AWAY: Ms = 2_000;

fn plan(cast: &Cast) -> Plan {
    cut_off(cast, APART)
}

/// One worker is cut off from before the first replacement until after the last one.
pub(super) fn cut_off(cast: &Cast, apart: Ms) -> Plan {
    let mut plan = replaced(cast, apart);
    let of = cast.worker(&cast.cluster(&[1, 2, 3, 5]), "who is cut off");
    let from = plan.steps.first().map_or(0, |step| step.at) - cast.moment("cut off before", 500, 2_000);
    let away = plan.lasts + STAYS_AWAY - from;
    plan.lasts += STAYS_AWAY + 20_000;
    if cast.draw.chance("it is restarted meanwhile", 0.5) {
        plan = plan.fault(from + away / 2, 1_500, Fault::AgentKilled { of: who(of.clone()) });
    }
    plan.fault(from, away, severed(who(of)))
}

pub(super) fn holds(ran: &Ran) -> Vec<String> {
    let Some(cut) = ran.plan.steps.last() else { return Vec::new() };
    let Fault::Partition { from, .. } = &cut.what else { return vec!["nobody was cut off".to_owned()] };
    let lost = ran.machines(from);
    let others = ran.machines(&who("worker-*")).difference(&lost).copied().collect();
    let back = cut.at + cut.lasts.unwrap_or(0);
    let mut broken = nobody_failed(ran, &others, 5_000, ran.ended);
    broken.extend(known_in_time(ran, &others));
    // Who returns is served, from its first connection on, and knows all of them as soon as one who starts anew.
    broken.extend(nobody_failed(ran, &lost, back, ran.ended));
    broken.extend(all_know(ran, &lost, &ran.endpoints(&ran.machines(&who("new-*")), ran.ended), back + 5_000));
    broken
}
