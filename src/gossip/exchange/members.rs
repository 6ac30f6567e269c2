//! The other nodes, for people.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::super::item::Record;
use super::super::keys::KeyId;
use super::super::message::Introduction;
use super::super::{MemberStatus, departed::Gone, workers::Worker};
use super::{Exchange, NodeId, SocketAddr};
use crate::engine::event::{AgentState, Observation, Role};

impl Exchange {
    /// On a core member all nodes that are heard, and workers that went within the last hour; on a worker the core members.
    /// Control planes come first, then by name.
    pub fn members(&self, now: Instant) -> Vec<MemberStatus> {
        let others = self.catalog.records().filter(|(node, _)| *node != self.me.node);
        let core = others.filter_map(|(node, record)| self.core_member(now, node, record));
        let workers = self.workers.iter().map(|(addr, node, worker)| heard_worker(now, addr, node, worker));
        let gone = self.workers.departed(now).filter(|(node, _)| self.catalog.record(*node).is_none());
        let gone = gone.map(|(node, gone)| gone_worker(now, node, gone));
        let mut members: Vec<MemberStatus> = core.chain(workers).chain(gone).collect();
        members.sort_by(|one, other| (one.role == Role::Worker, &one.name).cmp(&(other.role == Role::Worker, &other.name)));
        members
    }

    /// Workers that hold the full keyring without need; [`None`] on a worker.
    pub fn workers_with_full_keyring(&self) -> Option<usize> {
        let full = |worker: &Worker| worker.introduction.as_ref().is_some_and(|introduction| introduction.full);
        let holders = self.workers.iter().filter(|(.., worker)| full(worker)).map(|(_, node, _)| node);
        self.me.core.then(|| holders.collect::<BTreeSet<NodeId>>().len())
    }

    fn core_member(&self, now: Instant, node: NodeId, record: &Record) -> Option<MemberStatus> {
        let (rtt, answered) = self.reporter.reached(node);
        let in_core = self.core.get(&node);
        let introduction = in_core.and_then(|member| member.introduction.as_ref());
        let alive = self.is_live(now, node);
        let last_heard_s = answered.or(self.core_heard.get(&node).copied()).map(|heard| seconds(now, heard));
        Some(MemberStatus {
            node,
            name: record.name.clone(),
            role: record.role,
            agent: record.agent,
            apiserver: record.apiserver.filter(|_| alive),
            address: in_core.map(|member| member.addr).or(record.gossip.first().copied())?,
            endpoints: record.endpoints.clone(),
            alive,
            rtt_ms: rtt.map(|rtt: Duration| rtt.as_secs_f64() * 1e3),
            last_heard_s,
            generation: record.generation,
            version: introduction.map(|introduction| introduction.version.clone()),
            keys: introduction.into_iter().flat_map(|introduction| introduction.keys.iter().copied().map(KeyId)).collect(),
            full_keyring: introduction.map(|introduction| introduction.full),
            connections: in_core.filter(|_| alive).map(|member| connections(&member.observations)),
            away_s: last_heard_s.filter(|_| !alive),
        })
    }
}

fn heard_worker(now: Instant, addr: SocketAddr, node: NodeId, worker: &Worker) -> MemberStatus {
    let Worker { edition: (generation, _), heard, left, introduction, .. } = worker;
    let status = worker_status(now, node, (addr, *generation), (*heard, *left), introduction.as_ref());
    MemberStatus { alive: true, connections: Some(connections(&worker.observations)), away_s: None, ..status }
}

fn gone_worker(now: Instant, node: NodeId, gone: &Gone) -> MemberStatus {
    worker_status(now, node, (gone.addr, gone.generation), (gone.heard, gone.left), gone.introduction.as_ref())
}

/// A worker that is not there.
fn worker_status(
    now: Instant,
    node: NodeId,
    (address, generation): (SocketAddr, u64),
    (heard, left): (Instant, bool),
    introduction: Option<&Introduction>,
) -> MemberStatus {
    let last_heard_s = Some(seconds(now, heard));
    MemberStatus {
        node,
        name: introduction.map_or_else(|| node.to_string(), |introduction| introduction.name.clone()),
        role: Role::Worker,
        agent: if left { AgentState::Leaving } else { AgentState::Running },
        apiserver: None,
        address,
        endpoints: Vec::new(),
        alive: false,
        rtt_ms: None,
        last_heard_s,
        generation,
        version: introduction.map(|introduction| introduction.version.clone()),
        keys: introduction.into_iter().flat_map(|introduction| introduction.keys.iter().copied().map(KeyId)).collect(),
        full_keyring: introduction.map(|introduction| introduction.full),
        connections: None,
        away_s: last_heard_s,
    }
}

fn seconds(now: Instant, heard: Instant) -> f64 {
    now.saturating_duration_since(heard).as_secs_f64()
}

fn connections(of: &[Observation]) -> u32 {
    of.iter().fold(0, |sum, saw| sum.saturating_add(saw.connections))
}
