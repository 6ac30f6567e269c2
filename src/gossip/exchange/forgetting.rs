//! Removals: how one enters the cluster here, and how it goes on from here.
//!
//! A core member at which a removal enters, by its admin port or from a worker, pushes it to the other core members and to all
//! workers. A worker brings it to one core member. Whoever misses that learns of it later: core members by chitchat, workers by
//! the digest in their next Report.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::catalog::Offered;
use super::super::item::{Item, ItemError, SignedItem};
use super::{Change, Exchange, NodeId};

/// A removal that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Whom it removes.
    pub name: String,
    /// Up to which generation.
    pub generation: u64,
    /// It was not held before.
    pub new: bool,
}

/// Why a removal is refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// It is not signed by who holds the full keyring of this cluster.
    #[error("{0}")]
    Item(#[from] ItemError),
    /// It is signed, and is a record or a view.
    #[error("a signed {0}, and only a removal is taken here")]
    NotARemoval(&'static str),
    /// It would remove the node that is asked.
    #[error("this is the node that would be removed; stop its agent instead, and ask another node's agent")]
    OwnNode,
    /// As many removals as may be are held.
    #[error("this node holds as many removals as it may; rotate the key, which drops those that the old key has signed")]
    Crowded,
    /// Gossip is off, or is being started again.
    #[error("gossip does not run on this node now")]
    NotRunning,
}

impl Exchange {
    /// Takes a removal that an administrator has signed, and passes it on.
    pub fn forget(&mut self, now: Instant, bytes: &[u8]) -> Result<Forgotten, ForgetError> {
        let signed = SignedItem::verify(bytes, self.catalog.keyring(), self.catalog.cluster())?;
        let removal = match signed.item {
            Item::Removal(removal) => removal,
            Item::Record(_) => return Err(ForgetError::NotARemoval("record")),
            Item::View(_) => return Err(ForgetError::NotARemoval("view")),
        };
        let node = NodeId::of(&removal.name);
        if node == self.me.node {
            return Err(ForgetError::OwnNode);
        }
        let offered = self.catalog.offer(now, bytes)?;
        let new = matches!(offered, Offered::Removal { .. });
        if offered == Offered::Crowded {
            return Err(ForgetError::Crowded);
        }
        self.offered(now, offered);
        if new {
            self.spread(now, node);
        }
        Ok(Forgotten { name: removal.name, generation: removal.generation, new })
    }

    /// Merges what a worker has brought. Of a removal that is news here the others are told: this may be the only core member
    /// that the worker has told.
    pub(super) fn offer_from_worker(&mut self, now: Instant, bytes: &[u8]) {
        match self.catalog.offer(now, bytes) {
            Ok(offered) => {
                let news = match offered {
                    // Where nothing was dropped this node may be learning again what all others know.
                    Offered::Removal { node, dropped: true } => Some(node),
                    _ => None,
                };
                self.offered(now, offered);
                if let Some(node) = news {
                    self.spread(now, node);
                }
            }
            Err(error) => self.stats.count_drop(error.reason()),
        }
    }

    /// A removal is held now.
    pub(super) fn removed(&mut self, now: Instant, node: NodeId, dropped: bool) {
        // Of a node that was started again meanwhile nothing is removed.
        if self.catalog.record(node).is_none() {
            self.changes.push(Change::Removed { node, dropped });
        }
        self.know_core(now);
    }

    fn spread(&mut self, now: Instant, node: NodeId) {
        let removal = self.catalog.removals().find(|(removed, ..)| *removed == node);
        let Some(bytes) = removal.map(|(.., signed)| Arc::clone(&signed.bytes)) else { return };
        if self.me.core {
            self.pushing.begin(now, node);
            self.tell_core(now, &bytes);
        } else {
            self.reporter.bring(now, &bytes);
        }
    }
}
