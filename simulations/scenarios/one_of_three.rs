//! Of three apiservers one succeeds, one fails and one times out, as go-loadbalancer tests its own.

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::promises::{NOT_LATE, Promises};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::{Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "only-the-succeeding-of-three",
    story: "From the beginning one of three apiservers serves, one refuses and one never answers. Only the first is ever used, and \
            nobody waits for the others once they are known for what they are.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = Cluster { fresh_every: 200, ..cast.cluster(&[3]) };
    let order = cast.draw.several("who does what", 3, 3);
    let of = |place: usize| who(format!("cp-{}", order[place] + 1));
    let silent = cast.draw.one_of("how it times out", &[Mode::Hung, Mode::Dropping]);
    let plan = Plan { cluster, steps: Vec::new(), lasts: 45_000 };
    plan.step(0, Fault::Apiserver { of: of(0), mode: Mode::Refusing }).step(0, Fault::Apiserver { of: of(1), mode: silent })
}

/// By then all have started and tried everybody.
const TRIED: Ms = 6_000;

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let (refuses, times_out) = (promises.step(0), promises.step(1));
    let useless = refuses.endpoints.union(&times_out.endpoints).copied().collect();
    promises.nobody_fails().unused(&useless, (0, ran.ended)).no_hello_at(&useless, (TRIED, ran.ended));
    promises.waits_at_most(NOT_LATE, (TRIED, ran.ended));
    promises.broken()
}
