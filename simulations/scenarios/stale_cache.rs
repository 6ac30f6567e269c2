//! What is in the cache is gone, or somebody else's.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, no_bytes_to, served};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "stale-cache",
    story: "While the workers' agents are down one control plane is removed and something else answers at its address, and another \
            one comes back at a new address. The workers start with a cache that names the old addresses.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[3, 5]);
    let killed = cast.moment("workers killed", 18_000, 21_000);
    let down = cast.moment("down for", 8_000, 12_000);
    let mode = cast.draw.one_of("what answers", &[Mode::WrongCertificate, Mode::NotTls, Mode::Hung, Mode::Dropping]);
    Plan { cluster, steps: Vec::new(), lasts: 75_000 }
        .fault(killed, down, Fault::AgentKilled { of: who("worker-*") })
        .step(killed + 1_000, Fault::AgentKilled { of: who("cp-1") })
        .step(killed + 1_500, Fault::Impostor { of: who("cp-1"), mode })
        .step(killed + 2_000, Fault::Readdress { of: who("cp-2") })
}

fn holds(ran: &Ran) -> Vec<String> {
    let (Some(down), Some(impostor)) = (
        ran.first_step(|fault| matches!(fault, Fault::AgentKilled { .. })),
        ran.first_step(|fault| matches!(fault, Fault::Impostor { .. })),
    ) else {
        return vec!["the story was not played".to_owned()];
    };
    let workers = ran.machines(&who("worker-*"));
    let up = down.at + down.lasts.unwrap_or(0);
    let gone = ran.endpoints(&ran.machines(&["cp-1".to_owned(), "cp-2".to_owned()]), down.at);
    let mut broken = no_bytes_to(ran, &workers, &gone, impostor.at);
    broken.extend(served(ran, &workers, up + 2_000, ran.ended));
    broken.extend(all_know(ran, &workers, &ran.endpoints(&ran.machines(&who("cp-2")), ran.ended), up + 15_000));
    broken
}
