//! The cluster's CA is another one.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, served};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "ca-rotated",
    story: "The apiservers show certificates of a new CA while the agents hold the old one's file: they trust nobody, and carry to nobody. \
            Node by node the new file arrives, and each serves from then on.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let rotated = cast.moment("when", 12_000, 15_000);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 75_000 }.step(rotated, Fault::NewCa);
    for name in plan.names() {
        let given = rotated + cast.moment(&format!("the file reaches {name}"), 3_000, 20_000);
        plan = plan.step(given, Fault::GiveCa { of: who(name) });
    }
    plan
}

fn holds(ran: &Ran) -> Vec<String> {
    let (everyone, over) = (everyone(ran), ran.last_step());
    let mut broken = served(ran, &everyone, over + 3_000, ran.ended);
    broken.extend(all_know(ran, &everyone, &ran.endpoints(&everyone, ran.ended), over + 10_000));
    broken
}
