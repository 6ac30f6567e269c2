//! What the admin server shows: gathered from everyone at the moment it is asked for.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::ca::CaStatus;
use super::driver::{Knowledge, Order};
use super::measures::Tally;
use super::state::WatchedStore;
use crate::admin::status::{PeerStatus, Status, UpstreamStatus};
use crate::admin::{self, Metrics, Refused};
use crate::config::Config;
use crate::engine::{Explained, Moment, Routing};
use crate::gossip::{ForgetError, Forgotten, Gossip, MemberStatus};
use crate::log;
use crate::names;
use crate::proxy::Proxy;
use crate::supervise::Supervised;
use crate::world::{BoxFuture, World};

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
    pub(super) world: World,
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) proxy: Proxy,
    pub(super) gossip: Arc<OnceLock<Gossip>>,
    pub(super) routing: watch::Receiver<Arc<Routing>>,
    pub(super) unresolved: watch::Receiver<names::Failing>,
    pub(super) tally: Arc<Tally>,
    pub(super) rejections: Arc<admin::Rejections>,
    pub(super) state: Arc<WatchedStore>,
    pub(super) names: Arc<Supervised>,
    pub(super) admin: Arc<Supervised>,
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

    /// Addresses to listen on that this machine does not have, or not yet.
    fn absent_addresses(&self) -> impl Iterator<Item = String> {
        let Addresses { listen, admin, gossip } = &self.addresses;
        let all = listen.iter().chain([admin]).chain(gossip);
        // 127.0.0.0/8 is there wherever there is loopback, though packets to most of it come from 127.0.0.1.
        let has = |ip: IpAddr| ip.is_unspecified() || (ip.is_ipv4() && ip.is_loopback()) || admin::View::has_address(self, ip);
        let absent = all.filter(move |addr| !has(addr.ip()));
        absent.map(|addr| format!("this machine does not have the listen address {addr}: it is served once it does"))
    }

    /// The tasks that are started again when they end.
    pub(super) fn supervised(&self) -> impl Iterator<Item = &Supervised> {
        let gossip = self.gossip.get().map(Gossip::task);
        gossip.into_iter().chain([&*self.names, &*self.admin, self.proxy.watch_task(), self.state.task()])
    }

    /// How it stands with the CA.
    pub(super) fn ca(&self) -> CaStatus {
        let told = self.tally.ca.lock().unwrap_or_else(PoisonError::into_inner).clone();
        told.unwrap_or_else(|| CaStatus { in_force: self.config.load().ca.is_some(), problem: None })
    }

    /// Whether the driver and the accept loops take part.
    pub(super) async fn alive(&self) -> Result<(), String> {
        self.knowledge().await?;
        if self.proxy.beat().await { Ok(()) } else { Err("an accept loop does not answer".into()) }
    }
}

impl admin::View for View {
    fn healthy(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.alive())
    }

    fn ready(&self) -> Result<(), String> {
        if self.routing.borrow().answers() { Ok(()) } else { Err("no upstream answers".into()) }
    }

    fn status(&self) -> BoxFuture<'_, Result<Status, String>> {
        Box::pin(async {
            let knowledge = self.knowledge().await?;
            let config = self.config.load();
            let mut notes = knowledge.notes;
            notes.extend(self.supervised().filter_map(Supervised::note));
            notes.extend(log::trouble());
            notes.extend(self.tally.notes());
            notes.extend(self.absent_addresses());
            notes.extend(self.state.notes());
            notes.extend(self.gossip.get().into_iter().flat_map(Gossip::notes));
            let repeated = self.proxy.stats().repeated_hellos;
            if repeated > 0 {
                notes.push(format!(
                    "{repeated} ClientHellos came back to this agent: an endpoint leads to it through another agent"
                ));
            }
            let failing = self.unresolved.borrow().names.clone();
            notes.extend(failing.into_iter().map(|(name, why)| format!("{name} cannot be resolved: {why}")));
            notes.extend(self.ca().note());
            Ok(Status {
                node: config.node.clone(),
                role: super::role(&config),
                cluster: config.cluster.clone(),
                cluster_size: knowledge.cluster_size,
                version: env!("CARGO_PKG_VERSION").into(),
                listen: self.addresses.listen.clone(),
                admin: self.addresses.admin,
                gossip: self.gossip.get().and_then(Gossip::advertised).or(self.addresses.gossip),
                seeds: config.gossip.iter().flat_map(|gossip| &gossip.seeds).map(ToString::to_string).collect(),
                started_s_ago: self.world.clock.now().since(Moment::START).as_secs_f64(),
                upstreams: knowledge.endpoints.into_iter().map(upstream).collect(),
                peers: self.gossip.get().into_iter().flat_map(Gossip::members).map(peer).collect(),
                notes,
            })
        })
    }

    fn metrics(&self) -> BoxFuture<'_, Result<Metrics, String>> {
        Box::pin(async { Ok(self.measure(&self.knowledge().await?)) })
    }

    fn forget(&self, removal: Vec<u8>) -> BoxFuture<'_, Result<String, Refused>> {
        Box::pin(async move {
            let gossip = self.gossip.get().ok_or_else(|| Refused::Unavailable(ForgetError::NotRunning.to_string()))?;
            match gossip.forget(removal).await {
                Ok(Forgotten { name, generation, new: true }) => Ok(format!("{name} is removed up to generation {generation}")),
                Ok(Forgotten { name, .. }) => Ok(format!("{name} was removed already")),
                Err(error @ ForgetError::NotRunning) => Err(Refused::Unavailable(error.to_string())),
                Err(error) => Err(Refused::Forbidden(error.to_string())),
            }
        })
    }

    fn node(&self) -> String {
        self.config.load().node.clone()
    }

    fn has_address(&self, ip: IpAddr) -> bool {
        self.world.datagram.source_towards(SocketAddr::new(ip, 9)).is_ok_and(|source| source == ip)
    }
}

fn upstream(explained: Explained) -> UpstreamStatus {
    UpstreamStatus {
        endpoint: explained.endpoint,
        verdict: explained.verdict,
        sources: explained.sources,
        rtt_ms: explained.rtt.map(milliseconds),
        load: explained.load,
        connections: explained.connections,
        best: explained.best,
        carries: explained.carries,
        reasons: explained.reasons,
    }
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn peer(member: MemberStatus) -> PeerStatus {
    PeerStatus {
        node: member.node.to_string(),
        name: member.name,
        role: member.role,
        agent: member.agent,
        apiserver: member.apiserver,
        address: member.address,
        alive: member.alive,
        rtt_ms: member.rtt_ms,
        last_heard_s: member.last_heard_s,
        generation: member.generation,
        endpoints: member.endpoints,
        version: member.version,
        keys: member.keys.iter().map(ToString::to_string).collect(),
        full_keyring: member.full_keyring,
        connections: member.connections,
        away_s: member.away_s,
    }
}
