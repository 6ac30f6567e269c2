//! The figures of growth that people ask for, in the order in which they ask, and what each may be at most.
//!
//! A limit that the agent alone decides is one that `growth` fails by; speed is the machine's as well, and is only marked.

use std::cmp::Ordering;

use crate::sim::results::Point;

/// A figure with the words for it.
#[derive(Debug)]
pub struct Named {
    /// As it is called in files.
    pub figure: &'static str,
    /// As people call it.
    pub words: &'static str,
    /// Of what it is so many.
    pub unit: &'static str,
}

const fn named(figure: &'static str, words: &'static str, unit: &'static str) -> Named {
    Named { figure, words, unit }
}

/// What has a plot of its own.
pub const NAMED: [Named; 14] = [
    named("new_control_plane_known_last_s", "All know a new control plane after", "s"),
    named("draining_known_last_s", "Draining is known to all after", "s"),
    named("dead_off_first_s", "First node off an apiserver that died", "s"),
    named("dead_off_last_s", "Last node off an apiserver that died", "s"),
    named("dead_restored_last_s", "Established connections restored after", "s"),
    named("gossip_kB_per_node_s", "Gossip of a node", "kB/s"),
    named("gossip_busiest_kB_per_s", "Gossip of the busiest node", "kB/s"),
    named("probes_per_apiserver_s", "Probes of an apiserver by others", "a second"),
    named("probes_peak_at_start", "Most probes of an apiserver at start", "in any 1 s"),
    named("probes_peak_after_failure", "Most probes of an apiserver after one failed", "in any 1 s"),
    named("engine_steps_per_node_s", "Engine steps of a node", "a second"),
    named("memory_kB_per_node", "Memory of a node", "kB"),
    named("speed_times", "Speed of the slowest story", "virtual seconds a second"),
    named("wall_s", "Wall time of the slowest story", "s"),
];

/// The names of all figures of some points: those with words first, in their order, then the others.
pub fn ordered(points: &[Point]) -> Vec<&str> {
    let mut names: Vec<&str> = points.iter().flat_map(|point| point.figures.keys().map(String::as_str)).collect();
    let place = |name: &str| NAMED.iter().position(|named| named.figure == name).unwrap_or(NAMED.len());
    names.sort_unstable_by_key(|name| (place(name), *name));
    names.dedup();
    names
}

/// What people call a figure, if they do.
pub fn words(figure: &str) -> Option<&'static Named> {
    NAMED.iter().find(|named| named.figure == figure)
}

/// What a figure may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// It may be this.
    pub bound: f64,
    /// And less is worse; otherwise more is.
    pub at_least: bool,
}

impl Limit {
    /// Whether a figure keeps to it.
    pub fn kept(&self, value: f64) -> bool {
        let beyond = if self.at_least { Ordering::Less } else { Ordering::Greater };
        value.partial_cmp(&self.bound).is_some_and(|order| order != beyond)
    }

    /// Whether who does not keep to it has failed. How fast a machine is says nothing of the agent.
    pub fn binds(&self) -> bool {
        !self.at_least
    }
}

/// Periodic probes of one endpoint by nodes other than its own, a second, at most ...
const PROBES: usize = 22;
/// ... up to so many nodes.
const PROBED: usize = 200;
/// At so many nodes everybody knows a new control plane within its limit.
const KNOWN: usize = 50;
/// How much faster than the clock, up to so many nodes.
const SPEEDS: [(usize, f64); 3] = [(8, 100.0), (50, 10.0), (200, 0.5)];

/// What a worker may gossip, in kB/s: at rest it is 0.14; while no core member answers it asks two addresses a second for one, and more often at first.
pub const WORKER_GOSSIP: f64 = 3.4;

/// What a core member may gossip, in kB/s: a part for each other core member, and one for each answer to a worker.
pub fn gossip(core: f64, members: f64) -> f64 {
    let period = (members / 125.0).clamp(4.0, 30.0);
    8.0 + 2.2 * core + 0.3 * members / period
}

/// Periodic probes of one endpoint by so many nodes other than its own, a second; [`None`] where there is no limit.
pub fn probes(nodes: usize) -> Option<usize> {
    (nodes <= PROBED).then_some(PROBES)
}

/// The limit of a figure in a cluster of so many nodes, if it has one.
pub fn limit(figure: &str, nodes: usize) -> Option<Limit> {
    let at_most = |bound| Some(Limit { bound, at_least: false });
    match figure {
        "new_control_plane_known_last_s" if nodes <= KNOWN => at_most(3.0),
        "draining_known_last_s" => at_most(1.5),
        "gossip_kB_per_node_s" | "gossip_busiest_kB_per_s" => at_most(gossip(5.0, nodes as f64)),
        "probes_per_apiserver_s" => at_most(probes(nodes)? as f64),
        "new_control_plane_unknown_nodes" | "draining_unknown_nodes" => at_most(0.0),
        "speed_times" => {
            let (_, bound) = SPEEDS.into_iter().find(|(most, _)| nodes <= *most)?;
            Some(Limit { bound, at_least: true })
        }
        _ => None,
    }
}

/// The figures of a point that miss their limits, with these.
pub fn missed(point: &Point) -> impl Iterator<Item = (&str, f64, Limit)> {
    let of = |(name, value)| Some((name, value, limit(name, point.nodes)?));
    let all = point.figures.iter().map(|(name, value)| (name.as_str(), *value)).filter_map(of);
    all.filter(|(_, value, limit)| !limit.kept(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_grows_with_the_cluster_where_it_should_and_speed_binds_nobody() {
        assert!((limit("gossip_kB_per_node_s", 50).unwrap().bound - 22.75).abs() < 1e-9);
        assert_eq!(limit("new_control_plane_known_last_s", 200), None);
        assert_eq!(limit("probes_per_apiserver_s", 500), None);
        let speeds = [5, 8, 50, 200].map(|nodes| limit("speed_times", nodes).unwrap().bound);
        assert_eq!(speeds, [100.0, 100.0, 10.0, 0.5]);
        let slow = limit("speed_times", 50).unwrap();
        assert!(!slow.kept(9.0) && slow.kept(10.0) && !slow.binds());
        assert!(limit("draining_known_last_s", 5).unwrap().binds());
        assert!(!limit("draining_known_last_s", 5).unwrap().kept(f64::NAN), "what is no number keeps to nothing");
    }

    #[test]
    fn what_misses_its_limit_is_told_and_what_has_none_is_not() {
        let figures = [("draining_known_last_s", 1.6), ("probes_per_apiserver_s", 21.9), ("dead_off_last_s", 99.0)];
        let point = Point { nodes: 50, figures: figures.map(|(name, value)| (name.to_owned(), value)).into() };
        let missed: Vec<&str> = missed(&point).map(|(name, ..)| name).collect();
        assert_eq!(missed, ["draining_known_last_s"]);
        assert_eq!(ordered(&[point])[..2], ["draining_known_last_s", "dead_off_last_s"]);
    }
}
