//! What the admin server shows: gathered from everyone at the moment it is asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::driver::{Counts, Knowledge, Order};
use crate::admin;
use crate::admin::status::{PeerStatus, Status, UpstreamStatus};
use crate::config::Config;
use crate::engine::Explained;
use crate::engine::event::Verdict;
use crate::gossip::Gossip;
use crate::proxy::Proxy;
use crate::world::{BoxFuture, Clock, Prober};

/// A loop that does not take part within this time counts as hung.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// Where this agent listens, ports as they really are.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) admin: SocketAddr,
    pub(super) gossip: Option<SocketAddr>,
}

pub(super) struct View {
    pub(super) addresses: Addresses,
    pub(super) clock: Clock,
    pub(super) prober: Arc<dyn Prober>,
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) proxy: Proxy,
    pub(super) gossip: Option<Gossip>,
    pub(super) counts: Arc<Counts>,
    pub(super) reload_failures: AtomicU64,
}

impl View {
    /// Asks the driver, which answers between two events.
    async fn knowledge(&self) -> Result<Knowledge, String> {
        let (asker, answer) = oneshot::channel();
        let asked = async {
            self.orders.send(Order::Explain(asker)).await.ok()?;
            answer.await.ok()
        };
        match timeout(ALIVE_WITHIN, asked).await {
            Ok(Some(knowledge)) => Ok(knowledge),
            Ok(None) => Err("the engine's driver has ended".into()),
            Err(_) => Err("the engine's driver does not answer".into()),
        }
    }

    /// Whether the driver and the accept loops take part.
    pub(super) async fn alive(&self) -> Result<(), String> {
        self.knowledge().await?;
        if self.proxy.beat().await { Ok(()) } else { Err("an accept loop does not answer".into()) }
    }
}
