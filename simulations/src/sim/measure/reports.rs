//! What peers' reports are worth: a node comes into a running cluster, and hears what others measured, or does not.

use std::collections::BTreeMap;

use super::growth::Figures;
use crate::sim::log::ClientKind;
use crate::sim::plan::{Cluster, Fault, Node, Plan, who};
use crate::sim::run::Ran;
use crate::sim::state::Ms;

/// The newcomer.
const NEW: &str = "worker-new";
/// When it comes.
const COMES: Ms = 30_000;
/// How long it is watched.
const WATCHED: Ms = 30_000;
/// Its clients open a connection this often.
const FRESH_EVERY: Ms = 50;

/// With fewer seeds a difference is a matter of luck.
pub const ENOUGH: u64 = 5;

/// Two near control planes and three far ones, at 20, 40 and 80 ms, and enough nodes that each is probed rarely.
pub fn plan() -> Plan {
    let plane = |zone| Node { control_plane: true, zone, ..Node::default() };
    let mut nodes = vec![plane(0), plane(0), plane(1), plane(2), plane(3)];
    nodes.extend((0..35).map(|place| Node { zone: place % 4, ..Node::default() }));
    nodes.push(Node { name: NEW.to_owned(), later: true, ..Node::default() });
    let cluster = Cluster {
        zones: vec![vec![2, 20, 40, 80], vec![20, 2, 40, 80], vec![40, 40, 2, 80], vec![80, 80, 80, 2]],
        nodes,
        stagger: 5_000,
        fresh_every: FRESH_EVERY,
        ..Cluster::default()
    };
    Plan { cluster, steps: Vec::new(), lasts: COMES + WATCHED }.step(COMES, Fault::Join { of: who(NEW) })
}

/// What came of it.
pub fn figures(ran: &Ran) -> Figures {
    let mut figures = Figures::new();
    let Some(new) = ran.machine(NEW) else { return figures };
    let Some((run, seen)) = ran.log.runs.iter().find(|(_, seen)| seen.machine == new) else { return figures };
    let state = ran.history.at(ran.ended);
    let near = |addr| state.sites.get(&addr).is_some_and(|site| state.round_trip(new, site.machine) <= 2);
    let mut opened: Vec<(Ms, std::net::SocketAddr)> = Vec::new();
    let fresh = ran.log.clients.iter().filter(|client| client.node == new && client.kind == ClientKind::Fresh);
    for client in fresh.filter(|client| client.opened >= seen.from) {
        let upstream = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn));
        if let (Some(first), Some(upstream)) = (client.first_byte, upstream) {
            opened.push((first, upstream.to));
        }
    }
    opened.sort_unstable();
    let seconds = |at: Ms| at.saturating_sub(seen.from) as f64 / 1e3;
    let probes = |until: Ms| ran.log.probes.iter().filter(|probe| probe.run == *run && probe.at <= until).count() as f64;
    if let Some((at, _)) = opened.iter().find(|(_, to)| near(*to)) {
        figures.insert("first_near_s".to_owned(), seconds(*at));
        figures.insert("probes_until_first_near".to_owned(), probes(*at));
    }
    let last_far = opened.iter().rev().find(|(_, to)| !near(*to)).map_or(seen.from, |(at, _)| *at);
    figures.insert("always_near_s".to_owned(), seconds(last_far));
    figures.insert("probes_until_always_near".to_owned(), probes(last_far));
    figures.insert("far_connections".to_owned(), opened.iter().filter(|(_, to)| !near(*to)).count() as f64);
    let mut shares: BTreeMap<_, usize> = BTreeMap::new();
    for (_, to) in opened.iter().filter(|(at, to)| *at > last_far && near(*to)) {
        *shares.entry(*to).or_default() += 1;
    }
    let all: usize = shares.values().sum();
    if let Some(most) = shares.values().max().filter(|_| all > 0) {
        figures.insert("busiest_near_share".to_owned(), *most as f64 / all as f64);
    }
    figures
}
