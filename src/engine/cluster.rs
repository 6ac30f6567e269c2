//! The other members, as far as the policy needs them: how many, how near, and what they last said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::endpoint::{Endpoint, EndpointTag, NodeId};
use super::event::{MemberRecord, Observation, Verdict};
use super::hash;
use super::latency::median;
use super::policy::{CONFIRMING_NODES, PRIOR_PEERS, ROUND_TRIP_MOST, SIZE_WINDOW};
use super::time::Moment;

/// Weight of a new gossip round trip in a peer's distance.
const PEER_GAIN: f64 = 0.25;

#[derive(Debug)]
pub(crate) struct Cluster {
    me: NodeId,
    live: BTreeSet<NodeId>,
    records: BTreeMap<NodeId, MemberRecord>,
    distance: BTreeMap<NodeId, Duration>,
    /// The same, the nearest first.
    nearest: BTreeSet<(Duration, NodeId)>,
    /// Sizes within the window and when they came, each larger than all after it.
    sizes: VecDeque<(Moment, u32)>,
}

impl Cluster {
    pub(crate) fn new(me: NodeId) -> Cluster {
        Cluster {
            me,
            live: BTreeSet::from([me]),
            records: BTreeMap::new(),
            distance: BTreeMap::new(),
            nearest: BTreeSet::new(),
            sizes: VecDeque::from([(Moment::START, 1)]),
        }
    }

    /// This node is known by another name from now on.
    pub(crate) fn rename(&mut self, me: NodeId) {
        self.live.remove(&self.me);
        self.live.insert(me);
        self.me = me;
    }

    /// The size another run saw last.
    pub(crate) fn remember_size(&mut self, now: Moment, size: u32) {
        self.note_size(now, size);
    }

    pub(crate) fn set_live(&mut self, now: Moment, live: BTreeSet<NodeId>) {
        self.live = live;
        self.live.insert(self.me);
        if !self.hears_nobody() {
            self.note_size(now, u32::try_from(self.live.len()).unwrap_or(u32::MAX));
        }
        let live = &self.live;
        self.distance.retain(|node, _| live.contains(node));
        self.nearest.retain(|(_, node)| live.contains(node));
    }

    fn hears_nobody(&self) -> bool {
        self.live.len() <= 1
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

    pub(crate) fn forget(&mut self, node: NodeId) -> Option<MemberRecord> {
        if let Some(distance) = self.distance.remove(&node) {
            self.nearest.remove(&(distance, node));
        }
        self.records.remove(&node)
    }

    pub(crate) fn measured(&mut self, node: NodeId, rtt: Duration) {
        let rtt = rtt.min(ROUND_TRIP_MOST);
        let distance = self.distance.entry(node).or_insert(rtt);
        self.nearest.remove(&(*distance, node));
        *distance = distance.mul_f64(1.0 - PEER_GAIN) + rtt.mul_f64(PEER_GAIN);
        self.nearest.insert((*distance, node));
    }

    /// The median of what the nearest peers report of an endpoint; where too few were measured yet, of any others with them.
    pub(crate) fn prior(&self, endpoint: EndpointTag) -> Option<Duration> {
        let report = |node: &NodeId| self.seen(*node, endpoint)?.rtt;
        let measured = self.nearest.iter().map(|(_, node)| node).filter(|node| self.live.contains(node));
        let mut reports: Vec<Duration> = measured.filter_map(report).take(PRIOR_PEERS).collect();
        if reports.len() < PRIOR_PEERS {
            let others = self.live.iter().filter(|node| !self.distance.contains_key(node));
            let mut others: Vec<Duration> = others.filter_map(report).collect();
            others.sort_unstable();
            reports.extend(others.into_iter().take(PRIOR_PEERS - reports.len()));
        }
        median(reports)
    }

    /// Whether so many live peers hold this endpoint to be ready.
    pub(crate) fn ready_at(&self, endpoint: EndpointTag, peers: usize) -> bool {
        let ready = |node: &&NodeId| self.seen(**node, endpoint).is_some_and(|seen| seen.verdict == Verdict::Ready);
        self.live.iter().filter(ready).take(peers).count() == peers
    }

    /// What a member last said of an endpoint.
    fn seen(&self, node: NodeId, endpoint: EndpointTag) -> Option<&Observation> {
        self.records.get(&node)?.observations.iter().find(|seen| seen.endpoint == endpoint)
    }

    /// Whether this node is among the first in rendezvous order for an endpoint: those confirm what a peer reports.
    pub(crate) fn confirms(&self, endpoint: Endpoint) -> bool {
        let tag = endpoint.tag().0;
        let place = |node: &NodeId| hash(&[u64::from(tag), node_bits(*node)]);
        let mine = place(&self.me);
        self.live.iter().filter(|node| place(node) < mine).count() < CONFIRMING_NODES
    }
}

fn node_bits(node: NodeId) -> u64 {
    node.as_str().bytes().fold(0, |bits, byte| (bits << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::super::event::{AgentState, Role};
    use super::*;

    fn nodes(count: usize) -> BTreeSet<NodeId> {
        (0..count).map(|n| NodeId::of(&format!("node-{n}"))).collect()
    }

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    #[test]
    fn the_size_is_the_largest_of_the_last_15_minutes() {
        let mut cluster = Cluster::new(NodeId::of("node-0"));
        cluster.set_live(at(1), nodes(40));
        cluster.set_live(at(10), nodes(3));
        assert_eq!(cluster.size(), 40);
        cluster.set_live(at(900), nodes(3));
        assert_eq!(cluster.size(), 40, "the window is not over yet");
        cluster.set_live(at(911), nodes(3));
        assert_eq!(cluster.size(), 3);
    }

    #[test]
    fn a_node_that_hears_nobody_keeps_the_last_size() {
        let mut cluster = Cluster::new(NodeId::of("node-0"));
        cluster.remember_size(at(0), 50);
        for minute in 0..60 {
            cluster.set_live(at(60 * minute), nodes(1));
        }
        assert_eq!(cluster.size(), 50);
    }

    #[test]
    fn five_nodes_confirm_a_report_whoever_they_are() {
        let endpoint = Endpoint::from("10.0.0.1:6443".parse::<std::net::SocketAddr>().unwrap());
        let confirming = (0..30).filter(|n| {
            let mut cluster = Cluster::new(NodeId::of(&format!("node-{n}")));
            cluster.set_live(at(0), nodes(30));
            cluster.confirms(endpoint)
        });
        assert_eq!(confirming.count(), CONFIRMING_NODES);
    }

    #[test]
    fn the_nearest_peers_stand_in_for_own_samples_and_others_only_where_too_few_were_measured() {
        let endpoint = Endpoint::from("10.0.0.1:6443".parse::<std::net::SocketAddr>().unwrap());
        let mut cluster = Cluster::new(NodeId::of("me"));
        cluster.set_live(at(0), nodes(40));
        for n in 0..40 {
            cluster.merge(reporting(n, endpoint, n));
        }
        assert_eq!(cluster.prior(endpoint.tag()), Some(ms(2)), "nobody was measured: those who report the least");
        for n in 20..30 {
            cluster.measured(NodeId::of(&format!("node-{n}")), ms(100 - n));
        }
        assert_eq!(cluster.prior(endpoint.tag()), Some(ms(27)), "of the nearest, 29 to 25");
        for n in 23..30 {
            cluster.forget(NodeId::of(&format!("node-{n}")));
        }
        assert_eq!(cluster.prior(endpoint.tag()), Some(ms(20)), "of 20 to 22, and of 0 and 1");
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn reporting(n: u64, endpoint: Endpoint, rtt: u64) -> MemberRecord {
        let observations =
            vec![Observation { endpoint: endpoint.tag(), verdict: Verdict::Ready, rtt: Some(ms(rtt)), connections: 0 }];
        let name = format!("node-{n}");
        MemberRecord {
            node: NodeId::of(&name),
            name,
            generation: 1,
            version: 1,
            role: Role::Worker,
            agent: AgentState::Running,
            apiserver: None,
            endpoints: Vec::new(),
            observations,
        }
    }
}
