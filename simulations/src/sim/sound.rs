//! What keeps a plan from being played, found before anybody moves.

use std::collections::BTreeSet;

use super::plan::{Cluster, Fault, Plan, Step, Who, names};

/// Where in a plan something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In no place of its own.
    Anywhere,
    /// At this node.
    Node(usize),
    /// At this step.
    Step(usize),
}

impl Cluster {
    fn faulty(&self) -> Option<(Place, String)> {
        let zones = self.zones.len();
        let anywhere = |what: &str| Some((Place::Anywhere, what.to_owned()));
        if zones == 0 || self.zones.iter().any(|row| row.len() != zones) {
            return anywhere("zones: a row for each zone with its round trip to each zone, in ms");
        }
        if !(0.0..1.0).contains(&self.jitter) {
            return anywhere("jitter: a share, from 0 to less than 1");
        }
        if self.balancer.is_some_and(|zone| zone >= zones) {
            return anywhere("balancer: it stands in a zone that is not there; zones are counted from 0");
        }
        if self.nodes.is_empty() {
            return anywhere("nodes: there is none");
        }
        let mut seen = BTreeSet::new();
        let names = names(&self.nodes);
        for (place, (node, name)) in self.nodes.iter().zip(names).enumerate() {
            if node.zone >= zones {
                return Some((
                    Place::Node(place),
                    format!("{name} stands in zone {}, and zones are 0 to {}", node.zone, zones - 1),
                ));
            }
            if name == "balancer" || name.contains('*') {
                return Some((Place::Node(place), format!("no node can be named {name:?}")));
            }
            if let Some(name) = seen.replace(name) {
                return Some((Place::Node(place), format!("two nodes are named {name:?}")));
            }
        }
        None
    }
}

impl Fault {
    /// The nodes that it names. A hostile member may be nobody's node.
    pub(super) fn named(&self) -> Who {
        if let Fault::StateRestored { of, .. } = self {
            return of.clone();
        }
        // Whatever kinds there are and will be, they name nodes in these fields.
        let written = serde_json::to_value(self).unwrap_or_default();
        let fields = written.as_object().into_iter().flat_map(|kind| kind.values()).filter_map(|fields| fields.as_object());
        let naming = fields.flatten().filter(|(key, _)| matches!(key.as_str(), "of" | "from" | "to"));
        let names = naming.flat_map(|(_, names)| names.as_array().map_or(std::slice::from_ref(names), Vec::as_slice));
        names.filter_map(|name| name.as_str()).map(str::to_owned).collect()
    }
}

impl Plan {
    /// The first thing that keeps it from being played, and where it stands; what only an agent can tell is not looked at.
    pub(super) fn faulty(&self) -> Option<(Place, String)> {
        self.cluster.faulty().or_else(|| {
            let names = self.names();
            let steps = self.steps.iter().enumerate();
            steps.filter_map(|(place, step)| Some((Place::Step(place), self.faulty_step(step, &names)?))).next()
        })
    }

    fn faulty_step(&self, step: &Step, names: &[String]) -> Option<String> {
        if step.at > self.lasts {
            return Some(format!("this happens after the end, which is at {} ms", self.lasts));
        }
        let known = |name: &String| {
            let balancer = name == "balancer" && self.cluster.balancer.is_some();
            balancer || name.ends_with('*') || names.contains(name)
        };
        if let Some(unknown) = step.what.named().iter().find(|name| !known(name)) {
            return Some(format!("nobody is named {unknown:?}"));
        }
        match &step.what {
            Fault::Loss { share, .. } | Fault::Jitter { share, .. } | Fault::Disorder { share, .. }
                if !(0.0..=1.0).contains(share) =>
            {
                Some(format!("a share is 0 to 1, not {share}"))
            }
            _ => None,
        }
    }
}
