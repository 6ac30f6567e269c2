//! The engine's driver: one task that brings it events in order and carries out its effects.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::decide::Decide;
use super::endpoints::{self, Own};
use super::measures::Tally;
use crate::config::Config;
use crate::engine::event::{Notice, Outcome, OwnReport, ProbeOrder, Probed, Reverified, Saw, Verdict};
use crate::engine::policy;
use crate::engine::{Effect, Endpoint, Event, Explained, Routing, Source};
use crate::gossip::keys::Keyring;
use crate::gossip::{self, Gossip, Heard, Say};
use crate::names::Resolved;
use crate::proxy::Proxy;
use crate::supervise::caught;
use crate::world::{DatagramSocket, World};

/// How often the proxy's connection counts are read.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// What others ask of the driver.
pub(super) enum Order {
    /// What the engine knows.
    Explain(oneshot::Sender<Knowledge>),
    /// A new configuration is in force, and the keys of gossip that belong to it.
    Configure(Arc<Config>, Option<Keyring>),
    /// Probes believe another CA; what the last certificate of each endpoint is worth to it.
    TrustChanged(BTreeMap<Endpoint, Reverified>),
    /// Gossip begins on this socket with these keys: it had to wait for something.
    Gossip(Arc<dyn DatagramSocket>, Keyring),
}

/// What the engine knows, for people.
#[derive(Debug)]
pub(super) struct Knowledge {
    pub(super) endpoints: Vec<Explained>,
    pub(super) cluster_size: u32,
    /// Things worth knowing that are no endpoint.
    pub(super) notes: Vec<String>,
}

/// Where the driver hears from everyone.
pub(super) struct Ears {
    pub(super) heard: mpsc::Receiver<Heard>,
    pub(super) saw: mpsc::Receiver<(Endpoint, Saw)>,
    pub(super) resolved: watch::Receiver<Resolved>,
    pub(super) orders: mpsc::Receiver<Order>,
}

pub(super) struct Driver {
    pub(super) engine: Box<dyn Decide>,
    pub(super) world: World,
    pub(super) config: Arc<Config>,
    pub(super) own: Own,
    pub(super) routing: watch::Sender<Arc<Routing>>,
    pub(super) proxy: Proxy,
    /// Empty while gossip is off, or waits for something.
    pub(super) gossip: Arc<OnceLock<Gossip>>,
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) tally: Arc<Tally>,
    pub(super) say: Say,
    pub(super) seeds: watch::Sender<gossip::Seeds>,
    pub(super) connections: BTreeMap<Endpoint, u32>,
}

impl Driver {
    /// Runs until all who could ask are gone.
    pub(super) async fn run(mut self, mut ears: Ears) {
        let (probed, mut probes) = mpsc::channel::<Probed>(policy::ENDPOINTS);
        let mut held = self.proxy.held();
        // The proxy accepts already: who is held since before this task began must be heard of too.
        held.mark_changed();
        let mut count = interval(COUNT_INTERVAL);
        count.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if !self.config.allow.is_empty() {
            self.tell(Event::Allowed(self.config.allow.clone()), &probed);
        }
        self.configured(&ears.resolved.borrow_and_update().clone(), &probed);
        loop {
            let deadline = self.engine.next_deadline().map(|at| self.world.clock.instant(at));
            let event = tokio::select! {
                Some(done) = probes.recv() => {
                    self.tally.probed(done.endpoint, &done.outcome);
                    Event::Probed(done)
                }
                Some(heard) = ears.heard.recv() => match Self::hear(heard) {
                    Some(event) => event,
                    None => continue,
                },
                Some((endpoint, saw)) = ears.saw.recv() => Event::Traffic { endpoint, saw },
                Ok(()) = held.changed() => Event::Held(*held.borrow_and_update()),
                Ok(()) = ears.resolved.changed() => {
                    let resolved = ears.resolved.borrow_and_update().clone();
                    self.configured(&resolved, &probed);
                    continue;
                }
                _ = count.tick() => {
                    self.count_connections(&probed);
                    let resolved = ears.resolved.borrow().clone();
                    self.look_at_addresses(&resolved, &probed);
                    continue;
                }
                order = ears.orders.recv() => {
                    let Some(order) = order else { return };
                    let resolved = ears.resolved.borrow().clone();
                    self.obey(order, &resolved, &probed);
                    continue;
                }
                () = tokio::time::sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)), if deadline.is_some() => Event::Wake,
            };
            self.tell(event, &probed);
        }
    }

    fn obey(&mut self, order: Order, resolved: &Resolved, probed: &mpsc::Sender<Probed>) {
        match order {
            Order::Explain(asker) => {
                let notes = self.left_out(resolved);
                let endpoints = self.engine.explain(self.world.clock.now());
                let knowledge = Knowledge { endpoints, cluster_size: self.engine.cluster_size(), notes };
                // Whoever asked may have gone.
                let _ = asker.send(knowledge);
            }
            Order::TrustChanged(worth) => self.tell(Event::TrustChanged(worth), probed),
            Order::Configure(config, keyring) => {
                if config.allow != self.config.allow {
                    self.tell(Event::Allowed(config.allow.clone()), probed);
                }
                if config.node != self.config.node {
                    self.tell(Event::Named(config.node.clone()), probed);
                }
                self.config = config;
                // After the engine: gossip tells again at once of what a wider `allow` lets in.
                if let (Some(gossip), Some(keyring)) = (self.gossip.get(), keyring) {
                    gossip.reload(keyring, self.config.allow.clone());
                }
                self.configured(resolved, probed);
            }
            Order::Gossip(socket, keyring) => self.gossip(socket, keyring),
        }
    }

    /// Begins gossip. A second time changes nothing.
    pub(super) fn gossip(&mut self, socket: Arc<dyn DatagramSocket>, keyring: Keyring) {
        self.gossip.get_or_init(|| {
            let config = &self.config;
            let given = config.gossip.as_ref();
            let settings = gossip::Settings {
                cluster: config.cluster.clone(),
                name: config.node.clone(),
                core: config.is_core(),
                socket,
                advertise: given.and_then(|gossip| gossip.advertise),
                apiservers: config.apiservers.clone(),
                keyring,
                seeds: self.seeds.subscribe(),
                allow: config.allow.clone(),
                allow_reports: given.map(|gossip| gossip.allow.clone()).unwrap_or_default(),
                names_per_address: given.map_or(policy::NAMES_PER_ADDRESS, |gossip| gossip.names_per_address),
                state_dir: config.state_dir.clone(),
            };
            Gossip::start(&self.world, settings, self.say.clone(), self.heard.clone())
        });
    }

    fn configured(&mut self, resolved: &Resolved, probed: &mpsc::Sender<Probed>) {
        let names = self.config.gossip.iter().flat_map(|gossip| &gossip.seeds);
        let addrs = names.clone().filter_map(|seed| resolved.get(seed)).flatten().copied().collect();
        let seeds = gossip::Seeds { given: names.count() > 0, addrs };
        self.seeds.send_if_modified(|before| {
            let news = *before != seeds;
            *before = seeds;
            news
        });
        // What leaves is watched for as long as it has connections, so they must be known before.
        self.count_connections(probed);
        self.tell(Event::Configured(endpoints::configured(&self.config, resolved)), probed);
    }

    /// Endpoints that were refused because they are this agent's own listeners, in words.
    fn left_out(&self, resolved: &Resolved) -> Vec<String> {
        let in_words = |(endpoint, source): (Endpoint, Source)| match endpoints::name_of(endpoint, &self.config, resolved) {
            Some(name) => format!("{name} is left out: it resolves to this agent's own listener {endpoint}"),
            None => format!("{endpoint} ({}) is left out: it is this agent's own listener", source.as_str()),
        };
        self.engine.refused_listeners().into_iter().map(in_words).collect()
    }

    /// This machine may have got or lost an address at which a wildcard listener answers.
    fn look_at_addresses(&mut self, resolved: &Resolved, probed: &mpsc::Sender<Probed>) {
        if !self.own.may_change() {
            return;
        }
        let known = self.engine.explain(self.world.clock.now());
        if let Some(own) = self.own.look(known.into_iter().map(|known| known.endpoint), &*self.world.datagram) {
            self.step(Event::OwnListeners(own), probed);
            self.configured(resolved, probed);
        }
    }

    fn count_connections(&mut self, probed: &mpsc::Sender<Probed>) {
        let now = self.proxy.connections();
        let gone = self.connections.keys().filter(|endpoint| !now.contains_key(endpoint)).map(|endpoint| (*endpoint, 0));
        let changes: Vec<(Endpoint, u32)> = now
            .iter()
            .map(|(endpoint, open)| (*endpoint, *open))
            .chain(gone)
            .filter(|(endpoint, open)| self.connections.get(endpoint).copied().unwrap_or(0) != *open)
            .collect();
        self.connections = now;
        for (endpoint, open) in changes {
            self.tell(Event::Connections { endpoint, open }, probed);
        }
    }

    fn hear(heard: Heard) -> Option<Event> {
        match heard {
            Heard::Event(event) => Some(event),
            // Gossip tells people of it; to the engine a namesake is nothing.
            Heard::Conflict { .. } | Heard::ConflictOver => None,
        }
    }

    fn tell(&mut self, event: Event, probed: &mpsc::Sender<Probed>) {
        let named = endpoints::named_by(&event);
        if !named.is_empty()
            && let Some(own) = self.own.look(named, &*self.world.datagram)
        {
            self.step(Event::OwnListeners(own), probed);
        }
        self.step(event, probed);
    }

    fn step(&mut self, event: Event, probed: &mpsc::Sender<Probed>) {
        self.tally.events.fetch_add(1, Ordering::Relaxed);
        for effect in self.engine.handle(self.world.clock.now(), event) {
            self.carry_out(effect, probed);
        }
    }

    fn carry_out(&mut self, effect: Effect, probed: &mpsc::Sender<Probed>) {
        match effect {
            Effect::Probe(order) => self.probe(order, probed.clone()),
            Effect::Route(routing) => {
                self.routing.send_replace(Arc::new(routing));
            }
            Effect::Reset { endpoint, reason, silent_since, over } => self.proxy.reset(endpoint, reason, silent_since, over),
            Effect::Release => self.proxy.release(),
            Effect::Publish { say, urgent } => self.publish(say, urgent),
            Effect::Remember { endpoints, cluster_size } => {
                if let Some(gossip) = self.gossip.get() {
                    gossip.remember(endpoints, cluster_size);
                }
            }
            Effect::Notice(notice) => {
                if let Notice::Left { endpoint, .. } = notice {
                    self.tally.left(endpoint);
                    self.world.prober.forget(endpoint);
                }
                log(&notice);
            }
        }
    }

    /// Each probe is answered, or its endpoint would never be probed again: one that panicked was not even tried.
    fn probe(&self, order: ProbeOrder, probed: mpsc::Sender<Probed>) {
        let (prober, tally) = (self.world.prober.clone(), self.tally.clone());
        let (id, endpoint, sent) = (order.id, order.endpoint, self.world.clock.now());
        tokio::spawn(async move {
            let done = caught(prober.probe(order)).await.unwrap_or_else(|reason| {
                tally.probe_panicked(endpoint, &reason);
                let outcome = Outcome::LocalError(reason);
                Probed { id, endpoint, sent, fresh: true, rtt: None, handshake: None, hello_bytes: 0, outcome }
            });
            // The driver may have gone.
            let _ = probed.send(done).await;
        });
    }

    fn publish(&mut self, report: OwnReport, urgent: bool) {
        self.say.report = report;
        if let Some(gossip) = self.gossip.get() {
            gossip.say(self.say.clone(), urgent);
        }
    }
}

fn log(notice: &Notice) {
    match notice {
        Notice::Learnt { endpoint, source } => info!(%endpoint, source = source.as_str(), "endpoint learnt"),
        Notice::Left { endpoint, reason } => info!(%endpoint, reason, "endpoint left"),
        Notice::Verdict { endpoint, from, to: to @ Verdict::Down, reason } => {
            warn!(%endpoint, from = from.as_str(), to = to.as_str(), reason, "verdict changed");
        }
        Notice::Verdict { endpoint, from, to, reason } => {
            info!(%endpoint, from = from.as_str(), to = to.as_str(), reason, "verdict changed");
        }
        Notice::Best { endpoints, reason } if endpoints.is_empty() => warn!(reason, "no upstream"),
        Notice::Best { endpoints, reason } => {
            let best: Vec<String> = endpoints.iter().map(Endpoint::to_string).collect();
            info!(best = best.join(" "), reason, "best upstream changed");
        }
        Notice::OwnListener { endpoint, source } => {
            warn!(%endpoint, source = source.as_str(), "endpoint left out: it is this agent's own listener");
        }
        Notice::Expired(endpoint) => {
            warn!(%endpoint, "its certificate is outside its validity; it is used only when nothing better answers");
        }
        Notice::UnsupportedAlgorithm { endpoint, algorithm, carries } => {
            let so = if *carries { "it carries all the same, because it is configured" } else { "it carries nothing" };
            warn!(%endpoint, algorithm, "its certificate cannot be verified, this build cannot check {algorithm}: {so}");
        }
    }
    debug!(?notice);
}
