//! Workers that went lately, for people.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::message::Introduction;
use super::workers::Worker;
use crate::engine::endpoint::NodeId;

/// Workers at most; of more, those that went first are dropped.
const MOST: usize = 1_024;
/// So long is a worker remembered after it was heard last.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// A worker that went.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Where it was.
    pub addr: SocketAddr,
    /// Which start of its gossip it was.
    pub generation: u64,
    /// When it was heard last.
    pub heard: Instant,
    /// It said that it leaves.
    pub left: bool,
    /// What it said of itself.
    pub introduction: Option<Introduction>,
}

/// See the module.
#[derive(Default)]
pub struct Departed(BTreeMap<NodeId, Gone>);

impl Departed {
    /// A worker has gone from an address.
    pub fn note(&mut self, node: NodeId, addr: SocketAddr, worker: Worker) {
        let Worker { edition: (generation, _), heard, left, introduction, .. } = worker;
        self.0.insert(node, Gone { addr, generation, heard, left, introduction });
        if self.0.len() > MOST {
            let first = self.0.iter().min_by_key(|(_, gone)| gone.heard).map(|(node, _)| *node);
            first.and_then(|node| self.0.remove(&node));
        }
    }

    /// A worker is here. What it had said of itself, if it is the same start of its gossip: it does not say that again.
    pub fn is_here(&mut self, node: NodeId, generation: u64) -> Option<Introduction> {
        self.0.remove(&node).filter(|gone| gone.generation == generation)?.introduction
    }

    /// Those that went within the last hour.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = (NodeId, &Gone)> {
        self.0.iter().filter(move |(_, gone)| now < gone.heard + REMEMBERED).map(|(node, gone)| (*node, gone))
    }
}
