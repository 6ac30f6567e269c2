//! Our own change of state, straight to every live member: acknowledged, and repeated a few times.
//!
//! Gossip would tell them too, some rounds later; and it tells who was missed here. So nothing is promised, and
//! what is sent is no more than the record that gossip carries anyway.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::packet::{Direct, Packet, Received};
use crate::engine::endpoint::NodeId;

/// Pauses between one sending and the next, to those who have not answered.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];

/// One change on its way.
#[derive(Default)]
pub(super) struct Urgent {
    edition: (u64, u64),
    plaintext: Vec<u8>,
    unanswered: BTreeMap<NodeId, SocketAddr>,
    sent: usize,
    next: Option<Instant>,
}

impl Urgent {
    /// A new change, which replaces one that is still on its way. Due at once.
    pub(super) fn begin(&mut self, now: Instant, direct: Direct, to: BTreeMap<NodeId, SocketAddr>) {
        let edition = (direct.generation, direct.version);
        let next = (!to.is_empty()).then_some(now);
        *self = Urgent { edition, plaintext: Packet::Direct(direct).encode(), unanswered: to, sent: 0, next };
    }

    /// A member has it.
    pub(super) fn received(&mut self, received: Received) {
        if (received.generation, received.version) == self.edition {
            self.unanswered.remove(&received.by);
            if self.unanswered.is_empty() {
                *self = Urgent::default();
            }
        }
    }

    /// When [`Urgent::due`] is to be asked next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// What to send now, and to whom.
    pub(super) fn due(&mut self, now: Instant) -> Option<(Vec<SocketAddr>, Vec<u8>)> {
        self.next.filter(|next| now >= *next)?;
        let due = (self.unanswered.values().copied().collect(), self.plaintext.clone());
        match PAUSES.get(self.sent) {
            Some(pause) => self.next = Some(now + *pause),
            None => *self = Urgent::default(),
        }
        self.sent += 1;
        Some(due)
    }
}
