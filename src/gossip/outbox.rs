//! What the agent is still to be told.
//!
//! It holds the latest of each thing, not a queue of all: an agent that is slow for a while is told where things stand
//! and not how they came to be so, and nothing here grows beyond the number of members.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Heard;
use super::exchange::Summary;
use crate::engine::Event;
use crate::engine::endpoint::{EndpointTag, NodeId};
use crate::engine::event::MemberRecord;

/// Conflicts that are still to be told: they come seconds apart.
const CONFLICTS: usize = 8;

/// The latest of each thing that the agent has not been told.
#[derive(Default)]
pub(super) struct Outbox {
    cached: Option<Event>,
    forgotten: BTreeSet<NodeId>,
    removed: BTreeSet<NodeId>,
    records: BTreeMap<NodeId, MemberRecord>,
    cluster_size: Option<u32>,
    failing: Option<BTreeSet<EndpointTag>>,
    priors: Option<BTreeMap<EndpointTag, Duration>>,
    loads: Option<BTreeMap<EndpointTag, u32>>,
    conflicts: VecDeque<Heard>,
    /// What was told last of what others report.
    summary: Summary,
}

impl Outbox {
    pub(super) fn cached(&mut self, event: Event) {
        self.cached = Some(event);
    }

    pub(super) fn record(&mut self, record: MemberRecord) {
        self.records.insert(record.node, record);
    }

    pub(super) fn forgotten(&mut self, node: NodeId) {
        self.records.remove(&node);
        self.forgotten.insert(node);
    }

    pub(super) fn removed(&mut self, node: NodeId) {
        self.records.remove(&node);
        self.removed.insert(node);
    }

    /// What others report: only what of it has changed is told.
    pub(super) fn summary(&mut self, summary: &Summary) {
        let before = std::mem::replace(&mut self.summary, summary.clone());
        if before.cluster_size != summary.cluster_size {
            self.cluster_size = Some(summary.cluster_size);
        }
        if before.failing != summary.failing {
            self.failing = Some(summary.failing.clone());
        }
        if before.priors != summary.priors {
            self.priors = Some(summary.priors.clone());
        }
        if before.loads != summary.loads {
            self.loads = Some(summary.loads.clone());
        }
    }

    pub(super) fn conflict(&mut self, heard: Heard) {
        self.conflicts.push_back(heard);
        if self.conflicts.len() > CONFLICTS {
            self.conflicts.pop_front();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cached.is_none()
            && self.forgotten.is_empty()
            && self.removed.is_empty()
            && self.records.is_empty()
            && self.cluster_size.is_none()
            && self.failing.is_none()
            && self.priors.is_none()
            && self.loads.is_none()
            && self.conflicts.is_empty()
    }

    /// The next thing to tell. What was cached comes before all else, and that a node is forgotten before its return.
    pub(super) fn next(&mut self) -> Option<Heard> {
        let cached = self.cached.take();
        let event = cached
            .or_else(|| self.forgotten.pop_first().map(Event::Forgotten))
            .or_else(|| self.removed.pop_first().map(|node| Event::Removed { node }))
            .or_else(|| self.records.pop_first().map(|(_, record)| Event::Record(record)))
            .or_else(|| self.cluster_size.take().map(Event::ClusterSize))
            .or_else(|| self.failing.take().map(|failing| Event::PeerReports { failing }))
            .or_else(|| self.priors.take().map(Event::Priors))
            .or_else(|| self.loads.take().map(Event::Loads));
        event.map(Heard::Event).or_else(|| self.conflicts.pop_front())
    }
}
