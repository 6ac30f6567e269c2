//! A scenario: a story told once, played with any seed.

use super::draw::Draw;
use super::plan::{Cluster, Node, Plan, Who, who};
use super::run::Ran;
use super::state::Ms;

/// A story, and what must hold in it beside the invariants.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, as people type it.
    pub name: &'static str,
    /// What happens, in a sentence or three.
    pub story: &'static str,
    /// Whether it takes at most 90 virtual seconds.
    pub class: Class,
    /// The story with its parameters drawn.
    pub plan: fn(&Cast) -> Plan,
    /// What must hold beside the invariants: what does not, in words.
    pub holds: fn(&Ran) -> Vec<String>,
    /// ERRORs that belong to the story: part of their text.
    pub errors: &'static [&'static str],
}

impl Scenario {
    /// The story as this seed has it.
    pub fn tell(&self, seed: u64, smallest: bool) -> Plan {
        (self.plan)(&Cast { draw: Draw::of_story(seed, self.name), smallest })
    }
}

/// How long a scenario is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// At most 90 virtual seconds.
    Quick,
    /// Longer.
    Long,
}

impl Class {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Class::Quick => "quick",
            Class::Long => "long",
        }
    }
}

/// Nothing beside the invariants.
pub fn nothing_more(_: &Ran) -> Vec<String> {
    Vec::new()
}

/// Nodes of a cluster whose story has no need of more, or of fewer.
pub const FEWEST: usize = 6;
/// And at most.
pub const MOST: usize = 12;

/// Who could play, and with which draws.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// The seed's draws.
    pub draw: Draw,
    /// As few as the story can be told with.
    pub smallest: bool,
}

impl Cast {
    /// A number of `from..=to`; in the smallest cast `from`.
    pub fn count(&self, name: &str, from: usize, to: usize) -> usize {
        if self.smallest {
            return from;
        }
        let drawn = self.draw.number(name, from as u64, to as u64);
        usize::try_from(drawn).unwrap_or(from)
    }

    /// A moment of `from..=to`, which is never the same twice over seeds: spread over intervals of gossip and probes.
    pub fn moment(&self, name: &str, from: Ms, to: Ms) -> Ms {
        self.draw.number(name, from, to)
    }

    /// A cluster of this many control planes, drawn from `planes`, and 6 to 12 nodes in all.
    pub fn cluster(&self, planes: &[usize]) -> Cluster {
        let least = planes.first().copied().unwrap_or(1);
        let control_planes = if self.smallest { least } else { self.draw.one_of("control planes", planes) };
        let least = control_planes + 3;
        let all = self.count("nodes", if self.smallest { least } else { least.max(FEWEST) }, MOST);
        self.cluster_of(control_planes, all - control_planes)
    }

    /// Such a cluster whose clients have something under way, sometimes with a balancer, which is known by address or by name.
    pub fn cluster_at_work(&self, planes: &[usize]) -> Cluster {
        let balancer = self.draw.chance("there is a balancer", 0.5).then_some(0);
        let by_name = self.draw.chance("it is known by name", 0.5);
        Cluster { exchanges: true, balancer, by_name, ..self.cluster(planes) }
    }

    /// A cluster of so many, in one to three zones.
    pub fn cluster_of(&self, control_planes: usize, workers: usize) -> Cluster {
        self.zoned(control_planes, workers, self.count("zones", 1, 3))
    }

    /// A cluster of so many, in so many zones.
    pub fn zoned(&self, control_planes: usize, workers: usize, zones: usize) -> Cluster {
        let distance = |one: usize, other: usize| {
            let drawn = self.draw.number(&format!("from zone {} to {}", one.max(other), one.min(other)), 1, 5);
            if one == other { 2 } else { 2 * u32::try_from(drawn).unwrap_or(1) }
        };
        let distances = (0..zones).map(|one| (0..zones).map(|other| distance(one, other)).collect()).collect();
        let node = |place: usize| Node { control_plane: place < control_planes, zone: place % zones, ..Node::default() };
        Cluster {
            zones: distances,
            nodes: (0..control_planes + workers).map(node).collect(),
            stagger: self.draw.number("stagger", 0, 2_000),
            ..Cluster::default()
        }
    }

    /// The names of some of the workers: a share of them, at least one.
    pub fn workers(&self, cluster: &Cluster, name: &str, share: f64) -> Who {
        let all = cluster.nodes.iter().filter(|node| !node.control_plane && !node.later).count();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a handful")]
        let count = ((all as f64 * share).round() as usize).max(1);
        self.draw.several(name, count, all).into_iter().map(|place| format!("worker-{}", place + 1)).collect()
    }

    /// The name of any node that is there from the beginning.
    pub fn anybody(&self, cluster: &Cluster, name: &str) -> String {
        if self.draw.chance(&format!("{name}: a control plane"), 0.5) {
            self.control_plane(cluster, name)
        } else {
            self.worker(cluster, name)
        }
    }

    /// The name of one of the control planes.
    pub fn control_plane(&self, cluster: &Cluster, name: &str) -> String {
        let count = cluster.nodes.iter().filter(|node| node.control_plane).count();
        format!("cp-{}", self.draw.number(name, 1, count.max(1) as u64))
    }

    /// One of the control planes, or all.
    pub fn one_or_all(&self, cluster: &Cluster) -> Who {
        if self.draw.chance("all", 0.5) { who("cp-*") } else { who(self.control_plane(cluster, "who")) }
    }

    /// The name of one of the workers.
    pub fn worker(&self, cluster: &Cluster, name: &str) -> String {
        let count = cluster.nodes.iter().filter(|node| !node.control_plane).count();
        format!("worker-{}", self.draw.number(name, 1, count.max(1) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::ALL;
    use crate::sim::plan::Step;

    /// Seeds whose plans are looked at.
    const SEEDS: u64 = 200;
    /// What a quick story lasts at most, in ms.
    const QUICK: u64 = 90_000;
    /// Stories that need more nodes: those that see many, and those in which some come beside the others.
    const LARGER: &[&str] = &[
        "chaos",
        "chaos-for-minutes",
        "control-planes-replaced",
        "control-planes-replaced-unseen",
        "control-planes-replaced-unseen-for-long",
        "control-planes-replaced-while-idle",
        "control-planes-stopped-in-turn",
        "herd-after-recovery",
        "many-nodes-join",
        "many-see-one-fail",
    ];
    /// Somebody who comes in addition, in a story about him.
    const COMES_TOO: usize = 1;

    #[test]
    fn every_plan_can_be_played_is_as_long_as_its_class_and_has_six_to_twelve_nodes_unless_it_needs_more() {
        for scenario in ALL {
            let smallest = scenario.tell(1, true).cluster.nodes.len();
            for seed in 0..SEEDS {
                let (plan, so) = (scenario.tell(seed, false), format!("{} with seed {seed}", scenario.name));
                assert_eq!(plan.faulty(), None, "{so}");
                assert_eq!(plan.lasts <= QUICK, scenario.class == Class::Quick, "{so} lasts {} ms", plan.lasts);
                let over = plan.steps.iter().map(|step| step.at + step.lasts.unwrap_or(0)).max().unwrap_or(0);
                assert!(over <= plan.lasts, "{so} ends before its last step, at {over} ms");
                let nodes = plan.cluster.nodes.len();
                let most = if LARGER.contains(&scenario.name) { usize::MAX } else { MOST + COMES_TOO };
                assert!((FEWEST..=most).contains(&nodes) && smallest <= nodes, "{so} has {nodes} nodes, {smallest} at least");
            }
        }
    }

    #[test]
    fn chaos_is_three_to_eight_things_and_in_many_seeds_all_of_them() {
        let kinds = |plan: &Plan| -> Vec<String> {
            let named = |step: &Step| format!("{:?}", step.what).split([' ', '{']).next().map(str::to_owned);
            plan.steps.iter().filter_map(named).collect()
        };
        let told = |seed| ALL.iter().find(|it| it.name == "chaos").map(|it| it.tell(seed, false));
        let plans: Vec<Plan> = (0..SEEDS).filter_map(told).collect();
        assert!(plans.iter().all(|plan| plan.steps.len() >= 3));
        let seen: std::collections::BTreeSet<String> = plans.iter().flat_map(kinds).collect();
        // What is drawn is all that there is.
        assert_eq!(seen.len(), ALL_FAULTS, "{seen:?}");
    }

    /// So many kinds of faults there are.
    const ALL_FAULTS: usize = 33;
}
