//! The kernel of one worker forbids new connections to one apiserver.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-forbidden",
    story: "A firewall rule on one worker forbids new connections to one control plane: each dial fails at once with a permission error, \
            and what is open goes on. Only that worker leaves that apiserver, since it reaches the others.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = who(cast.worker(&cluster, "which worker"));
    let to = who(cast.control_plane(&cluster, "which apiserver"));
    let at = cast.moment("when", 12_000, 15_000);
    // For good: what a node counts on is judged once nothing changes any more.
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.step(at, Fault::Forbid { of, to })
}

fn holds(ran: &Ran) -> Vec<String> {
    let Some(Fault::Forbid { of, .. }) = ran.plan.steps.first().map(|step| &step.what) else { return Vec::new() };
    let others = everyone(ran).difference(&ran.machines(of)).copied().collect();
    let apiservers = ran.endpoints(&everyone(ran), 0);
    let mut broken = nobody_failed(ran, &everyone(ran), 5_000, ran.ended);
    broken.extend(never_down(ran, &others, &apiservers, 5_000, ran.ended));
    broken
}
