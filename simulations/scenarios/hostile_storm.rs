//! A member never stops to talk.

use super::hostile_endpoint::{meant_harm, nobody_is_harmed};
use crate::sim::measure::limits::gossip;
use crate::sim::plan::Hostility;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hostile-record-storm",
    story: "Somebody who has the key says something new fifty times a second, and that it is urgent, and comes again and again as one \
            more member. The others have work to do, and do it: what they send for its sake at most doubles what gossip may cost.",
    class: Class::Quick,
    plan: |cast: &Cast| meant_harm(cast, Hostility::RecordStorm),
    holds,
    errors: &[],
};

fn holds(ran: &Ran) -> Vec<String> {
    let mut broken = nobody_is_harmed(ran);
    let planes = ran.plan.cluster.nodes.iter().filter(|node| node.control_plane).count() as f64;
    let most = 2e3 * gossip(planes, ran.names.len() as f64);
    for (machine, seconds) in &ran.log.gossip {
        let mean = seconds.iter().sum::<u64>() as f64 / seconds.len().max(1) as f64;
        let agent = ran.log.runs.values().any(|run| run.machine == *machine);
        if agent && mean > most {
            broken.push(format!("{} sent {mean:.0} B/s of gossip for it, more than {most:.0}", ran.names[*machine]));
        }
    }
    broken
}
