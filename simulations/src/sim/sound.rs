//! What keeps a plan from being played, found before anybody moves.

use std::collections::BTreeSet;

use super::plan::{Cluster, Fault, Plan, Step, Who, names};
use super::span::Span;
use super::state::Ms;

/// Where in a plan something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In what is said of the cluster under this key.
    Cluster(&'static str),
    /// At this node.
    Node(usize),
    /// At this step.
    Step(usize),
}

impl Cluster {
    fn faulty(&self) -> Option<(Place, String)> {
        let of = |key: &'static str, what: &str| Some((Place::Cluster(key), format!("{key}: {what}")));
        if let Some(what) = self.faulty_zones() {
            return of("zones", &what);
        }
        if !(0.0..1.0).contains(&self.jitter) {
            return of("jitter", "a share, from 0 to less than 1");
        }
        if self.balancer.is_some_and(|zone| zone >= self.zones.len()) {
            return of("balancer", "it stands in a zone that is not there; zones are counted from 0");
        }
        if self.nodes.is_empty() {
            return of("nodes", "there is none");
        }
        self.faulty_node()
    }

    fn faulty_zones(&self) -> Option<String> {
        let zones = self.zones.len();
        if zones == 0 || self.zones.iter().any(|row| row.len() != zones) {
            return Some("a row for each zone with its round trip to each zone, in ms".to_owned());
        }
        let pairs = (0..zones).flat_map(|one| (0..zones).map(move |other| (one, other)));
        pairs.into_iter().find_map(|(one, other)| {
            let (there, back) = (self.zones[one][other], self.zones[other][one]);
            let between = format!("from zone {one} to zone {other}");
            if there != back {
                return Some(format!("a round trip is as long from either end, and {between} it is {there} ms, back {back} ms"));
            }
            let halves = there >= 2 && there.is_multiple_of(2);
            (!halves).then(|| {
                format!(
                    "one way takes whole ms and at least one, so a round trip is 2, 4, 6 ms and so on, not {there} ms ({between})"
                )
            })
        })
    }

    fn faulty_node(&self) -> Option<(Place, String)> {
        let zones = self.zones.len();
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
    /// What it is called in a file, and whom it concerns.
    pub(super) fn words(&self) -> String {
        let written = serde_json::to_value(self).unwrap_or_default();
        let kind = written.as_str().or_else(|| written.as_object()?.keys().next().map(String::as_str)).unwrap_or_default();
        match self.named().as_slice() {
            [] => format!("`{kind}`"),
            names => format!("`{kind}` of {}", names.join(", ")),
        }
    }

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
        if let Some(faulty) = self.cluster.faulty() {
            return Some(faulty);
        }
        if !self.knows_an_endpoint() {
            let what =
                "nodes: none is a control plane, there is no balancer, and no `config` names an endpoint: nobody can be reached";
            return Some((Place::Cluster("nodes"), what.to_owned()));
        }
        let names = self.names();
        let faulty = |(place, step)| Some((Place::Step(place), self.faulty_step(step, &names)?));
        self.steps.iter().enumerate().find_map(faulty).or_else(|| self.faulty_join(&names))
    }

    /// Whether there is anything at all that clients could be carried to.
    fn knows_an_endpoint(&self) -> bool {
        let cluster = &self.cluster;
        let given = self.steps.iter().filter_map(|step| match &step.what {
            Fault::Configure { config, .. } => Some(config),
            _ => None,
        });
        let mut written = given.chain(cluster.nodes.iter().map(|node| &node.config)).chain([&cluster.config]);
        let names_one = |config: &String| config.lines().any(|line| line.starts_with("endpoint") || line.starts_with("external"));
        self.control_planes() > 0 || cluster.balancer.is_some() || written.any(names_one)
    }

    fn faulty_step(&self, step: &Step, names: &[String]) -> Option<String> {
        if step.at > self.lasts {
            return Some(format!("this happens after the end, which is at {}", Span(self.lasts)));
        }
        if let Some(unknown) = step.what.named().iter().find(|name| !self.knows(name, names)) {
            return Some(match unknown.strip_suffix('*') {
                Some(begins) => format!("nobody's name begins with {begins:?}"),
                None => format!("nobody is named {unknown:?}"),
            });
        }
        match &step.what {
            Fault::Balancer { .. } | Fault::BalancerBlind if self.cluster.balancer.is_none() => {
                Some("there is no balancer; `balancer: 0` in the cluster puts one into zone 0".to_owned())
            }
            Fault::NameTakesTurns { .. } if self.cluster.balancer.is_none() || !self.cluster.by_name => {
                Some("the balancer has no name; `balancer: 0` and `by-name: true` in the cluster give it one".to_owned())
            }
            Fault::StateRestored { from, .. } if *from > step.at => {
                Some(format!("what the state directory is at {} cannot be put back at {}", Span(*from), Span(step.at)))
            }
            Fault::Flap { period, .. } => faulty_flap(*period, step.lasts),
            Fault::GracefulStop { serves_on, .. } if step.lasts.is_none_or(|lasts| lasts <= *serves_on) => {
                Some("it comes back after it has closed what is open: `lasts` is longer than `serves-on`".to_owned())
            }
            Fault::Keyring { step, .. } if !["add", "promote", "retire"].contains(&step.as_str()) => {
                Some(format!("a key rotation has no step {step:?}: add, promote, retire"))
            }
            Fault::Loss { share, .. } | Fault::Jitter { share, .. } | Fault::Disorder { share, .. }
                if !(0.0..=1.0).contains(share) =>
            {
                Some(format!("a share is 0 to 1, not {share}"))
            }
            _ => None,
        }
    }

    fn knows(&self, name: &str, names: &[String]) -> bool {
        let balancer = name == "balancer" && self.cluster.balancer.is_some();
        balancer || names.iter().any(|known| means(name, known))
    }

    /// Somebody comes who is there.
    fn faulty_join(&self, names: &[String]) -> Option<(Place, String)> {
        let mut there: BTreeSet<&String> =
            names.iter().zip(&self.cluster.nodes).filter(|(_, node)| !node.later).map(|(name, _)| name).collect();
        let mut joins: Vec<(Ms, usize, &Who)> = Vec::new();
        for (place, step) in self.steps.iter().enumerate() {
            if let Fault::Join { of } = &step.what {
                joins.push((step.at, place, of));
            }
        }
        joins.sort_unstable();
        for (_, place, of) in joins {
            let come: BTreeSet<&String> = names.iter().filter(|known| of.iter().any(|name| means(name, known))).collect();
            if let Some(name) = come.intersection(&there).next() {
                let what = format!("{name} is there already; only who is `later: true` can join, and once");
                return Some((Place::Step(place), what));
            }
            there.extend(come);
        }
        None
    }
}

fn faulty_flap(period: Ms, lasts: Option<Ms>) -> Option<String> {
    match lasts {
        _ if period < 2 => Some("a period has two halves of at least 1 ms".to_owned()),
        None => Some("how long does it go on? `lasts: 30s`".to_owned()),
        Some(_) => None,
    }
}

/// Whether a name in a step, which may end in `*`, means this node.
fn means(name: &str, known: &str) -> bool {
    name.strip_suffix('*').map_or(known == name, |begins| known.starts_with(begins))
}

#[cfg(test)]
mod tests {
    use crate::scenarios;
    use crate::sim::draw::Draw;
    use crate::sim::scenario::Cast;

    #[test]
    fn whatever_a_scenario_draws_can_be_played() {
        for scenario in scenarios::ALL {
            for (seed, smallest) in (1..=50).flat_map(|seed| [(seed, false), (seed, true)]) {
                let plan = (scenario.plan)(&Cast { draw: Draw::of(seed), smallest });
                assert_eq!(plan.faulty(), None, "{}, seed {seed}", scenario.name);
            }
        }
    }
}
