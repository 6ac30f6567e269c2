//! The other nodes, as far as the policy needs them: how many they are, what members' records say, and the sums of what all
//! nodes report.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::endpoint::{Endpoint, EndpointTag, NodeId};
use super::event::MemberRecord;
use super::policy::{CONFIRMING_NODES, SIZE_WINDOW};
use super::time::Moment;
use super::{hash, share};

#[derive(Debug)]
pub(crate) struct Cluster {
    me: NodeId,
    /// Live nodes as gossip counted them last, this one included.
    live: u32,
    records: BTreeMap<NodeId, MemberRecord>,
    /// Endpoints that other nodes report as failing.
    failing: BTreeSet<EndpointTag>,
    /// Round trips that other nodes report.
    priors: BTreeMap<EndpointTag, Duration>,
    /// Sizes within the window and when they came, each larger than all after it.
    sizes: VecDeque<(Moment, u32)>,
}

impl Cluster {
    pub(crate) fn new(me: NodeId) -> Cluster {
        Cluster {
            me,
            live: 1,
            records: BTreeMap::new(),
            failing: BTreeSet::new(),
            priors: BTreeMap::new(),
            sizes: VecDeque::from([(Moment::START, 1)]),
        }
    }

    /// This node is known by another name from now on.
    pub(crate) fn rename(&mut self, me: NodeId) {
        self.me = me;
    }

    /// The size another run saw last.
    pub(crate) fn remember_size(&mut self, now: Moment, size: u32) {
        self.note_size(now, size);
    }

    /// So many nodes are live now, this one included.
    pub(crate) fn set_live(&mut self, now: Moment, live: u32) {
        self.live = live;
        if !self.hears_nobody() {
            self.note_size(now, live);
        }
    }

    fn hears_nobody(&self) -> bool {
        self.live <= 1
    }

    fn note_size(&mut self, now: Moment, size: u32) {
        self.expire_sizes(now);
        let mut since = now;
        while let Some((then, _)) = self.sizes.pop_back_if(|(_, smaller)| *smaller < size) {
            since = then;
        }
        if self.sizes.back().is_none_or(|(_, last)| *last > size) {
            self.sizes.push_back((since, size));
        }
    }

    /// A size leaves the window's length after a smaller one came in its place. A node that hears nobody keeps what it had:
    /// it must not think that it is alone.
    pub(crate) fn expire_sizes(&mut self, now: Moment) {
        while !self.hears_nobody() && self.sizes.len() > 1 && now.since(self.sizes[1].0) >= SIZE_WINDOW {
            self.sizes.pop_front();
        }
    }

    /// The largest number of live nodes of late, this one included: at least 1.
    pub(crate) fn size(&self) -> u32 {
        self.sizes.front().map_or(1, |(_, size)| *size).max(1)
    }

    /// Whether a record is of another node and newer than what is there. The same version told otherwise is newer too: what
    /// a record may name has changed here, not there.
    pub(crate) fn is_news(&self, record: &MemberRecord) -> bool {
        let newer = |before: &MemberRecord| {
            let (age, age_before) = ((record.generation, record.version), (before.generation, before.version));
            age > age_before || (age == age_before && record != before)
        };
        record.node != self.me && self.records.get(&record.node).is_none_or(newer)
    }

    /// Takes a record and returns the one it replaces.
    pub(crate) fn merge(&mut self, record: MemberRecord) -> Option<MemberRecord> {
        self.records.insert(record.node, record)
    }

    /// Whether a member names this endpoint.
    pub(crate) fn names(&self, endpoint: Endpoint) -> bool {
        self.records.values().any(|record| record.endpoints.contains(&endpoint))
    }

    /// What each member last said.
    pub(crate) fn records(&self) -> Vec<MemberRecord> {
        self.records.values().cloned().collect()
    }

    pub(crate) fn forget(&mut self, node: NodeId) {
        self.records.remove(&node);
    }

    /// Takes the endpoints that other nodes report as failing now, and returns those reported before.
    pub(crate) fn set_failing(&mut self, failing: BTreeSet<EndpointTag>) -> BTreeSet<EndpointTag> {
        std::mem::replace(&mut self.failing, failing)
    }

    /// Whether other nodes report this endpoint as failing.
    pub(crate) fn reported_failing(&self, endpoint: EndpointTag) -> bool {
        self.failing.contains(&endpoint)
    }

    /// Takes the round trips that other nodes report now.
    pub(crate) fn set_priors(&mut self, priors: BTreeMap<EndpointTag, Duration>) {
        self.priors = priors;
    }

    /// The median round trip to an endpoint that other nodes report.
    pub(crate) fn prior(&self, endpoint: EndpointTag) -> Option<Duration> {
        self.priors.get(&endpoint).copied()
    }

    /// Whether this node confirms what other nodes report of an endpoint. Each node draws for itself with probability
    /// [`CONFIRMING_NODES`] / N, from a hash of the endpoint and its own name, so that no node needs to know the others' names.
    pub(crate) fn confirms(&self, endpoint: Endpoint) -> bool {
        let drawn = share(hash(&[u64::from(endpoint.tag().0), node_bits(self.me)]));
        drawn * f64::from(self.size()) < f64::from(CONFIRMING_NODES)
    }
}

fn node_bits(node: NodeId) -> u64 {
    node.as_str().bytes().fold(0, |bits, byte| (bits << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    #[test]
    fn the_size_is_the_largest_of_the_last_15_minutes() {
        let mut cluster = Cluster::new(NodeId::of("node-0"));
        cluster.set_live(at(1), 40);
        cluster.set_live(at(10), 3);
        assert_eq!(cluster.size(), 40);
        cluster.set_live(at(900), 3);
        assert_eq!(cluster.size(), 40, "the window is not over yet");
        cluster.set_live(at(911), 3);
        assert_eq!(cluster.size(), 3);
    }

    #[test]
    fn a_node_that_hears_nobody_keeps_the_last_size() {
        for alone in [0, 1] {
            let mut cluster = Cluster::new(NodeId::of("node-0"));
            cluster.remember_size(at(0), 50);
            for minute in 0..60 {
                cluster.set_live(at(60 * minute), alone);
            }
            assert_eq!(cluster.size(), 50);
        }
    }

    /// How many nodes of a cluster of this size confirm a report, for each of a hundred endpoints.
    fn confirming(nodes: u32) -> Vec<usize> {
        let clusters: Vec<Cluster> = (0..nodes)
            .map(|n| {
                let mut cluster = Cluster::new(NodeId::of(&format!("node-{n}")));
                cluster.set_live(at(0), nodes);
                cluster
            })
            .collect();
        let endpoint = |n: u8| Endpoint::from(std::net::SocketAddr::from(([10, 0, 0, n], 6443)));
        (0..100).map(|n| clusters.iter().filter(|cluster| cluster.confirms(endpoint(n))).count()).collect()
    }

    #[test]
    fn about_five_nodes_confirm_a_report_at_any_size() {
        for nodes in [30, 1_000] {
            let mean = confirming(nodes).iter().sum::<usize>() as f64 / 100.0;
            assert!((4.0..6.0).contains(&mean), "{mean} of {nodes} nodes on average");
        }
    }

    #[test]
    fn all_nodes_of_a_cluster_of_up_to_five_confirm_a_report() {
        for nodes in 1..=5 {
            assert!(confirming(nodes).iter().all(|confirming| *confirming == nodes as usize), "{nodes} nodes");
        }
    }
}
