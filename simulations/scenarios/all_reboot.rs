//! The lights go out, and whatever is outside the cluster stays dark.

use std::collections::{BTreeMap, BTreeSet};

use crate::sim::plan::{Cluster, Fault, Plan, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{all_know, everyone, served};
use crate::sim::state::{Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "whole-cluster-reboots",
    story: "All machines lose their power, and with them the external balancer and DNS, which do not return. The machines do, one by \
            one, in any order; what each knows is in its cache. Each is served as soon as it and one apiserver are back.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = Cluster { balancer: Some(0), by_name: true, seeds: 1, ..cast.cluster(&[1, 2, 3, 5]) };
    let dark = cast.moment("when", 18_000, 21_000);
    let mode = cast.draw.one_of("the balancer", &[Mode::Refusing, Mode::Dropping]);
    let silent = cast.draw.chance("DNS is silent", 0.5);
    let plan = Plan { cluster, steps: Vec::new(), lasts: 70_000 };
    let names = plan.names();
    let plan = plan.step(dark, Fault::Balancer { mode }).step(dark, Fault::Dns { silent });
    names.into_iter().fold(plan, |plan, name| {
        let away = cast.moment(&format!("{name} is dark for"), 3_000, 25_000);
        plan.fault(dark, away, Fault::Machine { of: who(name) })
    })
}

/// A node that starts with all its peers dead and its state kept serves within this.
const SERVES: Ms = 1_000;
/// A client is held for so long.
const HELD: Ms = 8_000;
/// And knows all that came back within this.
const SETTLED: Ms = 5_000;

/// When each machine came back.
fn came_back(ran: &Ran) -> BTreeMap<usize, Ms> {
    let reboots = ran.plan.steps.iter().filter_map(|step| match &step.what {
        Fault::Machine { of } => Some((ran.machines(of), step.at + step.lasts.unwrap_or(0))),
        _ => None,
    });
    reboots.flat_map(|(machines, at)| machines.into_iter().map(move |machine| (machine, at))).collect()
}

fn holds(ran: &Ran) -> Vec<String> {
    let back = came_back(ran);
    let planes = ran.machines(&who("cp-*"));
    let first_plane = back.iter().filter(|(node, _)| planes.contains(node)).map(|(_, at)| *at).min().unwrap_or(ran.ended);
    let mut broken = Vec::new();
    for (node, up) in &back {
        // Whoever came before there was an apiserver is held for it.
        let held_for_it = first_plane.saturating_sub(HELD - SERVES);
        broken.extend(served(ran, &BTreeSet::from([*node]), (*up).max(held_for_it), ran.ended));
        let opened = ran.log.clients.iter().filter(|client| client.node == *node && client.opened >= *up);
        let late = |opened: Ms, first: Ms| first > opened.max(*up).max(first_plane) + SERVES;
        let late = opened.filter(|client| client.first_byte.is_some_and(|first| late(client.opened, first)));
        broken.extend(late.take(5).map(|client| {
            format!("{}: the connection of {} ms was answered at {:?}", ran.names[*node], client.opened, client.first_byte)
        }));
    }
    let all_back = back.values().copied().max().unwrap_or(ran.ended);
    broken.extend(all_know(ran, &everyone(ran), &ran.endpoints(&planes, ran.ended), all_back + SETTLED));
    broken
}
