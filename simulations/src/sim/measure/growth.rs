//! How what a cluster costs and how fast it learns grows with its size: five short stories for each size, and the figures that
//! are read from the published routings, from what clients saw and from the network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;

use prismesh::engine::event::Verdict;

use crate::sim::log::{ClientConn, ClientKind};
use crate::sim::plan::{Cluster, Fault, Node, Plan, Step, who};
use crate::sim::run::Ran;
use crate::sim::state::{MachineId, Mode, Ms};

/// Everybody has come up and has long learnt of everyone.
pub const BREAKS: Ms = 30_000;
/// What is looked at for what is usual, before that.
const QUIET: Ms = 10_000;
/// And after it things are watched for so long.
const WATCHED: Ms = 30_000;
/// Nodes come up over this time, whatever the size.
const STAGGER: Ms = 5_000;
/// Beside its kubelet each node has a client that opens a new connection this often.
pub const FRESH_EVERY: Ms = 10_000;
/// Control planes; the size of a cluster is in its workers.
const CONTROL_PLANES: usize = 3;

/// A story with more nodes takes minutes.
const MANY: usize = 200;

/// Named numbers; the unit is the end of the name.
pub type Figures = BTreeMap<String, f64>;

/// What happens to a cluster of each size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// One worker in ten comes at the same moment.
    Join,
    /// An apiserver's process dies.
    Dies,
    /// A control plane's machine loses its power.
    Vanishes,
    /// A fourth control plane comes.
    NewControlPlane,
    /// An apiserver drains for 5 s and closes.
    Drains,
}

impl Story {
    /// All of them.
    pub const ALL: [Story; 5] = [Story::Join, Story::Dies, Story::Vanishes, Story::NewControlPlane, Story::Drains];

    /// Those that are told of a cluster of so many nodes: beyond [`MANY`] only those that everybody asks for.
    pub fn of(nodes: usize) -> &'static [Story] {
        if nodes > MANY { &[Story::Join, Story::Dies, Story::NewControlPlane] } else { &Story::ALL }
    }

    /// As files are named.
    pub fn name(self) -> &'static str {
        match self {
            Story::Join => "growth-join",
            Story::Dies => "growth-dies",
            Story::Vanishes => "growth-vanishes",
            Story::NewControlPlane => "growth-new-control-plane",
            Story::Drains => "growth-drains",
        }
    }

    /// The story in a cluster of so many nodes, those that come later among them.
    pub fn plan(self, nodes: usize) -> Plan {
        let workers = nodes.saturating_sub(CONTROL_PLANES);
        let joining = if self == Story::Join { (nodes / 10).max(1) } else { 0 };
        let worker = |place: usize| Node { zone: place % 3, later: place + joining >= workers, ..Node::default() };
        let mut all: Vec<Node> =
            (0..CONTROL_PLANES).map(|place| Node { control_plane: true, zone: place % 3, ..Node::default() }).collect();
        all.extend((0..workers).map(worker));
        if self == Story::NewControlPlane {
            all.push(Node { control_plane: true, later: true, ..Node::default() });
        }
        let cluster = Cluster {
            zones: vec![vec![2, 4, 6], vec![4, 2, 4], vec![6, 4, 2]],
            nodes: all,
            stagger: STAGGER,
            fresh_every: FRESH_EVERY,
            ..Cluster::default()
        };
        let newcomers = (workers - joining.min(workers)..workers).map(|place| format!("worker-{}", place + 1)).collect();
        let what = match self {
            Story::Join => Fault::Join { of: newcomers },
            Story::Dies => Fault::Apiserver { of: who("cp-2"), mode: Mode::Refusing },
            Story::Vanishes => Fault::Machine { of: who("cp-2") },
            Story::NewControlPlane => Fault::Join { of: who("cp-4") },
            Story::Drains => Fault::Drain { of: who("cp-2") },
        };
        Plan { cluster, steps: vec![Step { at: BREAKS, lasts: None, what }], lasts: BREAKS + WATCHED }
    }
}

/// What a run of one of the stories shows; of another plan, what can be said of any.
pub fn figures(ran: &Ran) -> Figures {
    let mut found = Found { ran, figures: Figures::new() };
    found.costs();
    if let Some(step) = ran.plan.steps.first() {
        match &step.what {
            Fault::Apiserver { of, .. } => found.lost("dead", step.at, &ran.machines(of)),
            Fault::Machine { of } => found.lost("vanished", step.at, &ran.machines(of)),
            Fault::Drain { of } => found.drained(step.at, &ran.machines(of)),
            Fault::Join { of } => found.joined(&ran.machines(of)),
            _ => {}
        }
    }
    found.figures
}

struct Found<'a> {
    ran: &'a Ran,
    figures: Figures,
}

impl Found<'_> {
    fn put(&mut self, name: impl Into<String>, value: f64) {
        self.figures.insert(name.into(), value);
    }

    /// The first and the last of some moments, in seconds after another one.
    fn first_and_last(&mut self, name: &str, after: Ms, moments: &[Ms]) {
        let seconds = |at: &Ms| at.saturating_sub(after) as f64 / 1e3;
        if let (Some(first), Some(last)) = (moments.iter().min(), moments.iter().max()) {
            self.put(format!("{name}_first_s"), seconds(first));
            self.put(format!("{name}_last_s"), seconds(last));
        }
    }

    /// What a quiet cluster costs, and how fast it came up.
    fn costs(&mut self) {
        let ran = self.ran;
        let quiet_to = ran.plan.steps.first().map_or(ran.ended, |step| step.at);
        let quiet_from = quiet_to.saturating_sub(QUIET);
        let seconds = (quiet_to - quiet_from).max(1) as f64 / 1e3;
        let there: BTreeSet<MachineId> = ran.in_service(quiet_from, quiet_to);
        let nodes = there.len().max(1) as f64;
        let place = |at: Ms| usize::try_from(at / 1_000).unwrap_or(usize::MAX);
        let sent = |machine: &MachineId| -> u64 {
            let bytes = ran.log.gossip.get(machine).map_or(&[][..], Vec::as_slice);
            bytes.iter().take(place(quiet_to)).skip(place(quiet_from)).sum()
        };
        self.put("gossip_kB_per_node_s", there.iter().map(sent).sum::<u64>() as f64 / 1e3 / seconds / nodes);
        self.put("gossip_busiest_kB_per_s", there.iter().map(sent).max().unwrap_or(0) as f64 / 1e3 / seconds);
        let sites = &ran.history.at(quiet_from).sites;
        let others = |probe: &&super::super::log::ProbeSeen| {
            (quiet_from..quiet_to).contains(&probe.at)
                && sites.get(&probe.endpoint).is_some_and(|site| site.machine != probe.machine)
        };
        let probes = ran.log.probes.iter().filter(others).count();
        self.put("probes_per_apiserver_s", probes as f64 / seconds / sites.len().max(1) as f64);
        self.put("probes_peak_at_start", most_in_a_second(ran, 0..quiet_from) as f64);
        self.put("engine_steps_per_node_s", ran.steps as f64 / (ran.ended.max(1) as f64 / 1e3) / nodes);
        let endpoints: BTreeSet<SocketAddr> = sites.keys().copied().collect();
        let started = |machine: &MachineId| ran.log.runs.values().find(|run| run.machine == *machine).map(|run| run.from);
        let took =
            there.iter().filter_map(|node| Some(ran.first(*node, 0, |held| all_ready(held, &endpoints))? - started(node)?));
        let took: Vec<Ms> = took.collect();
        self.first_and_last("start_all_ready", 0, &took);
        self.put("start_never_ready_nodes", (there.len() - took.len()) as f64);
    }

    /// Nodes get off an apiserver, and what was open to it is opened elsewhere.
    fn lost(&mut self, how: &str, at: Ms, machines: &BTreeSet<MachineId>) {
        let ran = self.ran;
        let endpoints = ran.endpoints(machines, at - 1);
        let nodes: Vec<MachineId> = ran.in_service(at - 1, ran.ended - 1).into_iter().collect();
        let off = |node: &MachineId| ran.first(*node, at, |held| endpoints.iter().all(|it| held(it) != Some(Verdict::Ready)));
        let moments: Vec<Ms> = nodes.iter().filter_map(off).collect();
        self.first_and_last(&format!("{how}_off"), at, &moments);
        self.put(format!("{how}_never_off_nodes"), (nodes.len() - moments.len()) as f64);
        self.put("probes_peak_after_failure", most_in_a_second(ran, at..ran.ended) as f64);
        let open = ran.log.clients.iter().filter(|client| carried(ran, client, &endpoints, at) && nodes.contains(&client.node));
        let open: Vec<&ClientConn> = open.filter(|client| client.kind != ClientKind::Fresh).collect();
        let again = |client: &&ClientConn| {
            let mut later = ran.log.clients.iter().filter(|other| other.node == client.node && other.kind == client.kind);
            later.find(|other| other.opened >= at && other.first_byte.is_some()).and_then(|other| other.first_byte)
        };
        let restored: Vec<Ms> = open.iter().filter_map(again).collect();
        self.put(format!("{how}_established_connections"), open.len() as f64);
        self.put(format!("{how}_restored_connections"), restored.len() as f64);
        self.first_and_last(&format!("{how}_restored"), at, &restored);
    }

    fn drained(&mut self, at: Ms, machines: &BTreeSet<MachineId>) {
        let ran = self.ran;
        let endpoints = ran.endpoints(machines, at - 1);
        let nodes = ran.in_service(at - 1, ran.ended - 1);
        let told = |node: &MachineId| ran.first(*node, at, |held| endpoints.iter().all(|it| held(it) != Some(Verdict::Ready)));
        let moments: Vec<Ms> = nodes.iter().filter_map(told).collect();
        self.first_and_last("draining_known", at, &moments);
        self.put("draining_unknown_nodes", (nodes.len() - moments.len()) as f64);
    }

    /// Workers, or a control plane, have come.
    fn joined(&mut self, machines: &BTreeSet<MachineId>) {
        let ran = self.ran;
        let came: Vec<Ms> = ran.log.runs.values().filter(|run| machines.contains(&run.machine)).map(|run| run.from).collect();
        let endpoints = ran.endpoints(machines, ran.ended);
        if endpoints.is_empty() {
            let sites: BTreeSet<SocketAddr> = ran.history.at(ran.ended).sites.keys().copied().collect();
            let took = |run: &super::super::log::RunSeen| {
                let ready = ran.first(run.machine, run.from, |held| all_ready(held, &sites))?;
                Some(ready - run.from)
            };
            let took: Vec<Ms> = ran.log.runs.values().filter(|run| machines.contains(&run.machine)).filter_map(took).collect();
            self.first_and_last("joined_all_ready", 0, &took);
            self.put("joined_nodes", machines.len() as f64);
            self.put("joined_never_ready_nodes", (machines.len() - took.len()) as f64);
            return;
        }
        let Some(came) = came.into_iter().min() else { return };
        let nodes: Vec<MachineId> =
            ran.in_service(came, ran.ended - 1).into_iter().filter(|node| !machines.contains(node)).collect();
        let knows = |node: &MachineId| ran.first(*node, came, |held| endpoints.iter().all(|it| held(it).is_some()));
        let uses = |node: &MachineId| ran.first(*node, came, |held| all_ready(held, &endpoints));
        let (known, used): (Vec<Ms>, Vec<Ms>) =
            (nodes.iter().filter_map(knows).collect(), nodes.iter().filter_map(uses).collect());
        self.first_and_last("new_control_plane_known", came, &known);
        self.first_and_last("new_control_plane_ready", came, &used);
        self.put("new_control_plane_unknown_nodes", (nodes.len() - known.len()) as f64);
    }
}

/// The most probes of one apiserver in any second of a span, by whomever.
fn most_in_a_second(ran: &Ran, span: Range<Ms>) -> usize {
    let mut by_endpoint: BTreeMap<SocketAddr, Vec<Ms>> = BTreeMap::new();
    for probe in ran.log.probes.iter().filter(|probe| span.contains(&probe.at)) {
        by_endpoint.entry(probe.endpoint).or_default().push(probe.at);
    }
    by_endpoint.into_values().map(most_within_a_second).max().unwrap_or(0)
}

fn most_within_a_second(mut moments: Vec<Ms>) -> usize {
    moments.sort_unstable();
    let until = |place: usize| moments.partition_point(|at| *at < moments[place] + 1_000);
    (0..moments.len()).map(|place| until(place) - place).max().unwrap_or(0)
}

fn all_ready(held: &dyn Fn(&SocketAddr) -> Option<Verdict>, endpoints: &BTreeSet<SocketAddr>) -> bool {
    endpoints.iter().all(|endpoint| held(endpoint) == Some(Verdict::Ready))
}

/// A connection that was open at a moment, and to one of these.
fn carried(ran: &Ran, client: &ClientConn, endpoints: &BTreeSet<SocketAddr>, at: Ms) -> bool {
    let upstream = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn));
    client.first_byte.is_some_and(|first| first < at)
        && client.ended.is_none_or(|(ended, _)| ended >= at)
        && upstream.is_some_and(|upstream| endpoints.contains(&upstream.to))
}

impl Ran {
    /// When a node's published routing first was so, at or after a moment; what it held then counts as well.
    pub fn first(&self, node: MachineId, from: Ms, so: impl Fn(&dyn Fn(&SocketAddr) -> Option<Verdict>) -> bool) -> Option<Ms> {
        let runs = self.log.runs.iter().filter(|(_, run)| run.machine == node && run.to.is_none_or(|to| to > from));
        let published = runs.flat_map(|(run, _)| self.log.routes.get(run)).flatten();
        let before = published.clone().take_while(|(at, _)| *at <= from).last();
        let after = published.filter(|(at, _)| *at > from);
        let right = before.into_iter().chain(after).find(|(_, routing)| {
            so(&|endpoint| routing.upstreams.iter().find(|it| it.endpoint.addr() == *endpoint).map(|it| it.verdict))
        });
        right.map(|(at, _)| (*at).max(from))
    }
}

/// One size's figures, out of those of its stories. A figure that several tell is the worst of them for speed, the most for what
/// it costs.
pub fn point<'a>(stories: impl IntoIterator<Item = &'a Figures>) -> Figures {
    let mut all = Figures::new();
    for (name, value) in stories.into_iter().flatten() {
        let slot = all.entry(name.clone()).or_insert(*value);
        *slot = match name.as_str() {
            "speed_times" => slot.min(*value),
            _ => slot.max(*value),
        };
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_n_nodes_has_n_nodes_of_which_those_that_join_come_later() {
        for nodes in [5, 50, 200] {
            for story in Story::ALL {
                let plan = story.plan(nodes);
                let more = usize::from(story == Story::NewControlPlane);
                assert_eq!(plan.cluster.nodes.len(), nodes + more, "{}", story.name());
                let later = plan.cluster.nodes.iter().filter(|node| node.later).count();
                let expected = match story {
                    Story::Join => (nodes / 10).max(1),
                    Story::NewControlPlane => 1,
                    _ => 0,
                };
                assert_eq!(later, expected, "{}", story.name());
                assert!(plan.faulty().is_none(), "{}: {:?}", story.name(), plan.faulty());
            }
        }
    }

    #[test]
    fn the_busiest_second_may_begin_at_any_moment() {
        assert_eq!(most_within_a_second(vec![2_300, 0, 900, 1_100, 1_899, 1_900]), 3);
        assert_eq!(most_within_a_second(Vec::new()), 0);
    }

    #[test]
    fn of_what_several_stories_tell_the_slowest_and_the_dearest_counts() {
        let one = Figures::from([("speed_times".to_owned(), 9.0), ("gossip_kB_per_node_s".to_owned(), 1.0)]);
        let two = Figures::from([("speed_times".to_owned(), 7.0), ("gossip_kB_per_node_s".to_owned(), 2.0)]);
        let all = point([&one, &two]);
        assert_eq!(all["speed_times"], 7.0);
        assert_eq!(all["gossip_kB_per_node_s"], 2.0);
    }
}
