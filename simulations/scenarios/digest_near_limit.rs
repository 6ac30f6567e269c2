//! Gossip's digest is near its limit.

use super::crash_loops::{crashing, others_never_notice};
use super::hostile_endpoint::meant_harm;
use crate::sim::plan::{Cluster, Hostility, Plan, Step};
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "digest-near-its-limit",
    story: "Somebody who has the key invents a member each second, for so long that the digest of all that gossip remembers is full, and \
            all the while the agents of half of the workers crash and are started again. Nothing panics, nobody else notices, and who \
            comes back is heard of.",
    class: Class::Long,
    plan,
    holds: others_never_notice,
    errors: &[],
};

/// Longer than gossip remembers the dead.
const STORM: u64 = 1_000_000;
/// How often each crashes in that time.
const CRASHES: usize = 40;

fn plan(cast: &Cast) -> Plan {
    let plan = meant_harm(cast, Hostility::RecordStorm);
    let cluster = Cluster { fresh_every: 2_000, ..plan.cluster };
    let steps = plan.steps.into_iter().map(|step| Step { lasts: Some(STORM), ..step }).collect();
    let who = cast.workers(&cluster, "whose agents crash", 0.5);
    let plan = Plan { cluster, steps, lasts: STORM + 60_000 };
    crashing(cast, plan, who, CRASHES, (15_000, 30_000))
}
