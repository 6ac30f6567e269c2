//! The one place that knows everyone: owns the engine, brings it what happened, and turns its effects into work.
//!
//! [`Agent`] runs over any [`World`]; [`process`] is the agent as a process of a real machine, with sockets, signals and
//! files. No policy is in here: where a fix looks like one, it belongs into the engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use crate::admin;
use crate::config::{Config, HostPort};
use crate::engine::event::{AgentState, OwnReport, Reverified, Role};
use crate::engine::{Endpoint, Engine, Identity, Routing, policy};
use crate::gossip::keys::Keyring;
use crate::gossip::{self, Gossip, Say};
use crate::names::Names;
use crate::proxy::{self, Proxy};
use crate::supervise::{Ended, Essential, Supervised};
use crate::world::{DatagramSocket, Listener, Store, World};

mod ca;
pub mod decide;
mod driver;
mod endpoints;
mod measures;
pub mod process;
mod sockets;
mod state;
mod view;

pub use ca::CaStatus;
use decide::Decide;
use driver::{Driver, Ears, Order};
use endpoints::{Bound, Own};
use measures::Tally;
use state::WatchedStore;
use view::View;

/// Room for what gossip tells and the proxy saw while the driver is busy; gossip waits beyond it, sightings are dropped and counted.
const BACKLOG: usize = 1024;

/// An agent in service.
///
/// Dropping it is a death without a word: nobody is told, what it carries is reset, and within seconds none of its tasks is
/// left. [`Agent::stop`] is the orderly way.
pub struct Agent {
    proxy: Proxy,
    gossip: Arc<OnceLock<Gossip>>,
    orders: mpsc::Sender<Order>,
    names: watch::Sender<Vec<HostPort>>,
    config: Arc<ArcSwap<Config>>,
    view: Arc<View>,
    driver_ended: Ended,
    _names: Names,
    _tasks: [AbortOnDropHandle<()>; 3],
}

/// Sockets that are bound already, so that nothing about an address can fail any more.
pub struct Sockets {
    /// Where clients connect.
    pub proxy: Vec<Box<dyn Listener>>,
    /// Health, metrics, status.
    pub admin: Box<dyn Listener>,
    /// Gossip and its keys; [`None`] when it is off, or [has to wait](Agent::begin_gossip).
    pub gossip: Option<(Box<dyn DatagramSocket>, Keyring)>,
}

impl Agent {
    /// Starts an agent. It serves from now on, with whatever it knows; `max_connections` is its limit. What it asks is its
    /// engine `within` whatever records or watches it; a plain box puts nothing around it.
    ///
    /// # Errors
    /// A socket that does not know its own address; nothing was started.
    pub fn start(
        config: Config,
        world: &World,
        sockets: Sockets,
        max_connections: usize,
        within: impl FnOnce(Engine) -> Box<dyn Decide>,
    ) -> std::io::Result<Agent> {
        let bound = sockets.proxy.iter().map(|listener| Bound::of(&**listener)).collect::<Result<Vec<_>, _>>()?;
        let listening: Vec<SocketAddr> = bound.iter().map(Bound::addr).collect();
        let admin_addr = sockets.admin.local_addr()?;
        let gossip_addr = sockets.gossip.as_ref().map(|(socket, _)| socket.local_addr()).transpose()?;
        let state = Arc::new(WatchedStore::new(world.store.clone()));
        let world = &World { store: state.clone(), ..world.clone() };
        let rewriting = AbortOnDropHandle::new(tokio::spawn(state.clone().keep_retrying()));
        let (routing, routes) = watch::channel(Arc::new(Routing::default()));
        let (saw, sights) = mpsc::channel(BACKLOG);
        let (heard, hearing) = mpsc::channel(BACKLOG);
        let (orders, ordered) = mpsc::channel(BACKLOG);
        let (names, targets) = watch::channel(targets(&config));
        let seeds = watch::Sender::new(gossip::Seeds::default());
        let names_kept = Names::start(world.resolver.clone(), targets);
        let resolved = names_kept.resolved();

        let proxy = Proxy::start(world, sockets.proxy, routes.clone(), proxy::Settings { max_connections }, saw);
        let (gossip, tally) = (Arc::new(OnceLock::new()), Arc::new(Tally::default()));
        let config = Arc::new(config);
        let mut driver = Driver {
            engine: within(Engine::new(identity(&config))),
            world: world.clone(),
            config: config.clone(),
            own: Own::new(bound),
            routing,
            proxy: proxy.clone(),
            gossip: gossip.clone(),
            heard,
            tally: tally.clone(),
            say: first_say(&config),
            seeds,
            connections: BTreeMap::new(),
        };
        if let Some((socket, keyring)) = sockets.gossip {
            driver.gossip(socket.into(), keyring);
        }
        let ears = Ears { heard: hearing, saw: sights, resolved, orders: ordered };
        let (essential, driver_ended) = Essential::new();
        let driver = AbortOnDropHandle::new(tokio::spawn(essential.run("the engine's driver", driver.run(ears))));
        info!(
            node = %config.node, role = role(&config).as_str(), cluster = %config.cluster,
            listen = ?listening, admin = %admin_addr, gossip = ?gossip_addr, "prismesh serves"
        );
        let config = Arc::new(ArcSwap::from(config));
        let view = Arc::new(View {
            addresses: view::Addresses { listen: listening, admin: admin_addr, gossip: gossip_addr },
            world: world.clone(),
            config: config.clone(),
            orders: orders.clone(),
            proxy: proxy.clone(),
            gossip: gossip.clone(),
            routing: routes,
            unresolved: names_kept.failing(),
            tally,
            rejections: Arc::default(),
            state,
            names: names_kept.task(),
            admin: Arc::new(Supervised::new("admin")),
        });
        let _tasks = [serve_admin(sockets.admin, &view), driver, rewriting];
        Ok(Agent { proxy, gossip, orders, names, config, view, driver_ended, _names: names_kept, _tasks })
    }

    /// Puts a new configuration in force, as far as it can be without a restart. No connection is dropped.
    pub async fn reload(&self, config: Config, keyring: Option<Keyring>) {
        self.view.tally.reload_failed(None);
        self.names.send_replace(targets(&config));
        let config = Arc::new(config);
        self.config.store(config.clone());
        // The driver ends only with the agent.
        let _ = self.orders.send(Order::Configure(config, keyring)).await;
    }

    /// What probes believe, at the start and whenever it is loaded again. Where it has changed, `worth` says what the certificate that
    /// each endpoint showed last is worth now.
    pub async fn trust(&self, ca: CaStatus, worth: Option<BTreeMap<Endpoint, Reverified>>) {
        ca.log(&self.view.ca());
        *self.view.tally.ca.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca);
        if let Some(worth) = worth {
            // The driver ends only with the agent.
            let _ = self.orders.send(Order::TrustChanged(worth)).await;
        }
    }

    /// Begins gossip, where it had to wait for its keys or for this node's name.
    pub async fn begin_gossip(&self, socket: Box<dyn DatagramSocket>, keyring: Keyring) {
        // The driver ends only with the agent.
        let _ = self.orders.send(Order::Gossip(socket.into(), keyring)).await;
    }

    /// What this agent waits for while it serves, in words by a word of a fixed set. Replaces what was said before.
    pub fn waits_for(&self, missing: BTreeMap<&'static str, String>) {
        self.view.tally.waits_for(missing);
    }

    /// A reload failed: what was there stays, but for a CA that is good, and the metric and the status say so.
    pub fn reload_failed(&self, reason: String) {
        self.view.tally.reload_failed(Some(reason));
    }

    /// Where it keeps what must survive a restart.
    pub fn store(&self) -> Arc<dyn Store> {
        self.view.state.clone()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Whether the engine's driver and the accept loops take part.
    ///
    /// # Errors
    /// Which of them does not, in words.
    pub async fn healthy(&self) -> Result<(), String> {
        self.view.alive().await
    }

    /// Completes when a task has ended without which this agent is of no use, the engine's driver or an accept loop, and says
    /// which and why. The process should end then, so that it is started again.
    pub async fn ended(&self) -> String {
        tokio::select! {
            reason = self.driver_ended.clone().reason() => reason,
            reason = self.proxy.ended().reason() => reason,
        }
    }

    /// Says good-bye, serves on until the drain ends or `hurry` is cancelled, and stops.
    pub async fn stop(self, hurry: CancellationToken) {
        let farewell = async {
            if let Some(gossip) = self.gossip.get() {
                tokio::select! {
                    () = gossip.leave() => {}
                    () = hurry.cancelled() => {}
                }
            }
        };
        tokio::join!(self.proxy.stop(policy::DRAIN, hurry.clone()), farewell);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.proxy.end();
    }
}

/// Serves health, metrics and status.
fn serve_admin(listener: Box<dyn Listener>, view: &Arc<View>) -> AbortOnDropHandle<()> {
    let own = admin::Own { listener: view.addresses.admin };
    AbortOnDropHandle::new(admin::serve(listener, view.clone(), own, view.rejections.clone(), view.admin.clone()))
}

fn role(config: &Config) -> Role {
    if config.apiservers.is_empty() { Role::Worker } else { Role::ControlPlane }
}

/// Who the engine of this configuration is. The seed is drawn anew at each start.
fn identity(config: &Config) -> Identity {
    Identity {
        name: config.node.clone(),
        advertised: config.apiservers.iter().copied().map(Endpoint::from).collect(),
        seed: rand::random(),
    }
}

/// What the first record says, before anything was probed.
fn first_say(config: &Config) -> Say {
    Say { role: role(config), agent: AgentState::Running, endpoints: config.apiservers.clone(), report: OwnReport::default() }
}

/// Every host that has to be resolved.
fn targets(config: &Config) -> Vec<HostPort> {
    let seeds = config.gossip.iter().flat_map(|gossip| &gossip.seeds);
    let endpoints = config.external.iter().chain(&config.endpoints).map(|target| &target.at);
    seeds.chain(endpoints).cloned().collect()
}
