//! Nodes that an administrator has removed from the cluster.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, info};

use super::super::exchange::{ForgetError, Forgotten};
use super::super::{core, unpoisoned};
use super::Node;
use crate::engine::endpoint::NodeId;

impl Node {
    /// A removal comes in by this agent's admin port.
    pub(super) fn forget(&mut self, item: &[u8], done: oneshot::Sender<Result<Forgotten, ForgetError>>) {
        let result = unpoisoned(&self.shared.exchange).forget(Instant::now(), item);
        // Whoever asked may have gone.
        let _ = done.send(result);
    }

    /// Another node was removed.
    pub(super) fn take_removal(&mut self, node: NodeId, dropped: bool) {
        if dropped {
            let name = unpoisoned(&self.shared.exchange).catalog.removed_name(node).unwrap_or_default().to_owned();
            info!("{name} was removed from the cluster by an administrator: its endpoints leave unless another node names them");
        }
        self.outbox.removed(node);
        self.keep_now();
    }

    /// This node was removed.
    pub(super) fn removed(&mut self, generation: u64) {
        if self.identity.remove(generation) {
            let text = "this node was removed from the cluster by an administrator: it no longer announces itself; start it again to return";
            error!("{text}");
            self.shared.set_note("removal", Some(text.to_owned()));
            self.life = None;
            unpoisoned(&self.shared.exchange).withdraw();
        }
        self.keep_now();
    }

    /// Every core member publishes all removals that it holds, so that one that was away, or has lost its disk, learns of them.
    pub(super) async fn publish_removals(&mut self) {
        let Some(life) = &self.life else { return };
        let texts: BTreeMap<String, String> = {
            let exchange = unpoisoned(&self.shared.exchange);
            let held: BTreeSet<(NodeId, u64)> = exchange.catalog.removals().map(|(node, up_to, _)| (node, up_to)).collect();
            if held == self.removals {
                return;
            }
            self.removals = held;
            let removals = exchange.catalog.removals();
            removals.map(|(node, up_to, signed)| (core::removal_key(node, up_to), core::text(&signed.bytes))).collect()
        };
        life.publish_removals(&texts).await;
    }
}
