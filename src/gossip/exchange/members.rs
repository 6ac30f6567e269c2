//! The other nodes, for people.

use std::time::Duration;

use tokio::time::Instant;

use super::super::MemberStatus;
use super::Exchange;
use crate::engine::event::{AgentState, Role};

impl Exchange {
    /// On a core member all nodes that are heard, on a worker the core members.
    pub fn members(&self, now: Instant) -> Vec<MemberStatus> {
        let seconds = |heard: Instant| now.saturating_duration_since(heard).as_secs_f64();
        let core = self.catalog.records().filter(|(node, _)| *node != self.me.node).filter_map(|(node, record)| {
            let (rtt, answered) = self.reporter.reached(node);
            let in_core = self.core.get(&node);
            Some(MemberStatus {
                node,
                name: record.name.clone(),
                role: record.role,
                agent: record.agent,
                apiserver: record.apiserver,
                address: in_core.map(|member| member.addr).or(record.gossip.first().copied())?,
                endpoints: record.endpoints.clone(),
                alive: self.is_live(now, node),
                rtt_ms: rtt.map(|rtt: Duration| rtt.as_secs_f64() * 1e3),
                last_heard_s: answered.or(in_core.and_then(|member| member.heard)).map(seconds),
            })
        });
        let workers = self.workers.iter().map(|(addr, node, worker)| MemberStatus {
            node,
            name: worker.introduction.as_ref().map_or_else(|| node.to_string(), |introduction| introduction.name.clone()),
            role: Role::Worker,
            agent: AgentState::Running,
            apiserver: None,
            address: addr,
            endpoints: Vec::new(),
            alive: true,
            rtt_ms: None,
            last_heard_s: Some(seconds(worker.heard)),
        });
        core.chain(workers).collect()
    }
}
