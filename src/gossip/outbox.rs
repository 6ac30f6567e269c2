//! What the agent is still to be told.
//!
//! It holds the latest of each thing, not a queue of all: an agent that is slow for a while is told where things stand
//! and not how they came to be so, and nothing here grows beyond the number of members.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Heard;
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
    records: BTreeMap<NodeId, MemberRecord>,
    members: Option<BTreeSet<NodeId>>,
    loads: Option<BTreeMap<EndpointTag, u32>>,
    round_trips: BTreeMap<NodeId, Duration>,
    conflicts: VecDeque<Heard>,
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
        self.round_trips.remove(&node);
        self.forgotten.insert(node);
    }

    pub(super) fn members(&mut self, live: BTreeSet<NodeId>) {
        self.members = Some(live);
    }

    pub(super) fn loads(&mut self, loads: BTreeMap<EndpointTag, u32>) {
        self.loads = Some(loads);
    }

    pub(super) fn round_trip(&mut self, node: NodeId, rtt: Duration) {
        self.round_trips.insert(node, rtt);
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
            && self.records.is_empty()
            && self.members.is_none()
            && self.loads.is_none()
            && self.round_trips.is_empty()
            && self.conflicts.is_empty()
    }

    /// The next thing to tell. What was cached comes before all else, and that a node is forgotten before its return.
    pub(super) fn next(&mut self) -> Option<Heard> {
        let cached = self.cached.take();
        let event = cached
            .or_else(|| self.forgotten.pop_first().map(Event::Forgotten))
            .or_else(|| self.records.pop_first().map(|(_, record)| Event::Record(record)))
            .or_else(|| self.members.take().map(Event::Members))
            .or_else(|| self.loads.take().map(Event::Loads))
            .or_else(|| self.round_trips.pop_first().map(|(node, rtt)| Event::PeerRoundTrip { node, rtt }));
        event.map(Heard::Event).or_else(|| self.conflicts.pop_front())
    }
}
