//! Reports and Updates: what a node does with each, and what it learns.
//!
//! It is told what arrives and that time has passed, and it leaves behind what is to be sent ([`Exchange::take_sends`]) and
//! what has changed ([`Exchange::take_changes`]). Sockets, tasks and chitchat are others' business.
//!
//! ```text
//!             Report ───▶ answering ──▶ workers ──▶ view
//!                             │                      │
//!   catalog ◀── items ────────┴──── asking ◀── Update, push
//! ```

mod answering;
mod asking;
mod forgetting;
mod members;
mod pushing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use self::answering::Answering;
pub use self::forgetting::{ForgetError, Forgotten};
use self::pushing::Pushing;
use super::catalog::{Catalog, Conflict, Offered};
use super::cookie::Cookies;
use super::envelope::{Envelopes, Kind, Opened};
use super::item::{Item, Record, View};
use super::keys::Keyring;
use super::message::{Cookie, Introduction, SeenEndpoint};
use super::reporter::Reporter;
use super::stats::{DropReason, Stats};
use super::workers::Workers;
use crate::engine::endpoint::{EndpointTag, NodeId};
use crate::engine::event::Observation;
use crate::engine::policy;

/// A view is made at most this often.
const VIEWS_APART: Duration = Duration::from_secs(1);
/// A view is fresh for twice the period and this.
const VIEW_SLACK: Duration = Duration::from_secs(6);
/// Addresses of nodes that were sampled or cached, at most.
const LEADS: usize = 64;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Me {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it is a core member.
    pub core: bool,
    /// The agent's version.
    pub version: String,
}

/// A core member as chitchat shows it.
#[derive(Clone, Debug)]
pub struct CoreMember {
    /// Which generation of it.
    pub generation: u64,
    /// Where it gossips.
    pub addr: SocketAddr,
    /// Whether it is live.
    pub live: bool,
    /// When its heartbeat advanced last.
    pub heard: Option<Instant>,
    /// What it sees of endpoints.
    pub observations: Vec<Observation>,
    /// Its version and keys.
    pub introduction: Option<Introduction>,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A node's record: see [`Exchange::catalog`].
    Record(NodeId),
    /// A node's record is gone with its key.
    Gone(NodeId),
    /// A node was removed by an administrator.
    Removed {
        /// Which.
        node: NodeId,
        /// Its record was held until now.
        dropped: bool,
    },
    /// This node was removed, up to this generation.
    OwnRemoval(u64),
    /// This node's own record is known above what it signed: it is to go on above this generation.
    GoOnAbove(Record),
    /// Core members have heard more from this node than it sent: it is to go on above this generation.
    HeardAbove(u64),
    /// Two statements that cannot both be right.
    Conflict(Conflict),
    /// A node at this address has this node's name as well.
    Namesake(SocketAddr),
    /// What others report of endpoints, or how many they are, has changed: see [`Exchange::summary`].
    Summary,
}

/// What others report, as far as this node hears.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Nodes, this one included; 1 while no other is heard.
    pub cluster_size: u32,
    /// Connections by endpoint.
    pub loads: BTreeMap<EndpointTag, u32>,
    /// Endpoints that several nodes report as failing.
    pub failing: BTreeSet<EndpointTag>,
    /// Round trips that others report.
    pub priors: BTreeMap<EndpointTag, Duration>,
}

/// What is kept on disk for the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The cluster's size; 0 if unknown.
    pub cluster_size: u32,
    /// Signed items, as they travel.
    pub items: Vec<Vec<u8>>,
    /// Addresses at which somebody may know the core.
    pub leads: Vec<SocketAddr>,
    /// What core members gave to prove this node's address.
    pub cookies: Vec<(SocketAddr, Cookie)>,
}

/// What is compared of two views of one core member.
struct HeardView {
    number: u64,
    live: BTreeSet<NodeId>,
}

/// See the module.
pub struct Exchange {
    me: Me,
    generation: u64,
    sequence: u32,
    envelopes: Envelopes,
    pub(super) catalog: Catalog,
    pub(super) workers: Workers,
    pub(super) reporter: Reporter,
    cookies: Cookies,
    answering: Answering,
    pushing: Pushing,
    /// What this node sees of endpoints.
    observations: Vec<Observation>,
    core: BTreeMap<NodeId, CoreMember>,
    /// When each core member was heard last by chitchat, which forgets the dead.
    core_heard: BTreeMap<NodeId, Instant>,
    view: Option<(Instant, View, Arc<[u8]>)>,
    views: u64,
    /// The number of the first view that lists the core members which are live now.
    live_since: u64,
    /// The last view heard from each core member.
    heard: BTreeMap<NodeId, HeardView>,
    seeds: BTreeSet<SocketAddr>,
    leads: Vec<SocketAddr>,
    own_addr: Option<SocketAddr>,
    summary: Summary,
    /// The summary is to be worked out again.
    stale: bool,
    summarised: Instant,
    priors: BTreeMap<EndpointTag, Duration>,
    sends: Vec<(SocketAddr, Vec<u8>)>,
    changes: Vec<Change>,
    names_per_address: usize,
    /// Networks whose Reports count; empty: any.
    allow: Vec<IpNet>,
    stats: Arc<Stats>,
}

impl Exchange {
    /// An empty one.
    pub fn new(now: Instant, me: Me, keyring: Keyring, cluster: &str, stats: Arc<Stats>) -> Exchange {
        Exchange {
            envelopes: Envelopes::new(&keyring, cluster),
            catalog: Catalog::new(me.node, cluster.to_owned(), keyring),
            me,
            generation: 0,
            sequence: 0,
            workers: Workers::default(),
            reporter: Reporter::new(now),
            cookies: Cookies::new(now),
            answering: Answering::new(now),
            pushing: Pushing::default(),
            observations: Vec::new(),
            core: BTreeMap::new(),
            core_heard: BTreeMap::new(),
            view: None,
            views: 0,
            live_since: 0,
            heard: BTreeMap::new(),
            seeds: BTreeSet::new(),
            leads: Vec::new(),
            own_addr: None,
            summary: Summary::default(),
            stale: false,
            summarised: now,
            priors: BTreeMap::new(),
            sends: Vec::new(),
            changes: Vec::new(),
            names_per_address: policy::NAMES_PER_ADDRESS,
            allow: Vec::new(),
            stats,
        }
    }

    /// Which Reports count: so many names of one address, and from these networks only unless there are none.
    pub fn count_only(&mut self, names_per_address: usize, allow: Vec<IpNet>) {
        (self.names_per_address, self.allow) = (names_per_address, allow);
    }

    fn counts(&self, from: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|net| net.contains(&from.to_canonical()))
    }

    /// Takes in what was kept on disk.
    pub fn restore(&mut self, now: Instant, kept: &Kept) {
        for item in &kept.items {
            self.offer(now, item);
        }
        self.add_leads(kept.leads.iter().copied());
        self.reporter.restore(now, &kept.cookies, kept.cluster_size);
    }

    /// This node is about to end: whoever holds it may forget it.
    pub fn leave(&mut self, now: Instant) {
        self.reporter.leave(now);
    }

    /// This node begins a generation at an address.
    pub fn begin(&mut self, now: Instant, generation: u64, addr: SocketAddr) {
        (self.generation, self.sequence, self.own_addr) = (generation, 0, Some(addr));
        self.reporter.begin_again(now);
        self.summarise(now);
    }

    /// This node does not announce itself any more.
    pub fn withdraw(&mut self) {
        (self.generation, self.view) = (0, None);
        self.core.clear();
    }

    /// The seeds, as they are now.
    pub fn set_seeds(&mut self, seeds: impl IntoIterator<Item = SocketAddr>) {
        self.seeds = seeds.into_iter().collect();
    }

    /// Addresses at which somebody may know the core, the best first.
    pub fn add_leads(&mut self, leads: impl IntoIterator<Item = SocketAddr>) {
        for lead in leads {
            if !self.leads.contains(&lead) && self.leads.len() < LEADS {
                self.leads.push(lead);
            }
        }
    }

    /// What this node sees of endpoints now; `news` if the others are to be told soon.
    pub fn observe(&mut self, now: Instant, observations: Vec<Observation>, news: bool) {
        self.observations = observations;
        if news {
            self.reporter.change(now);
        }
        self.summarise(now);
    }

    /// A core member signs what it says of itself, and tells all that report to it.
    pub fn publish(&mut self, now: Instant, record: Record) -> Option<Arc<[u8]>> {
        let signed = Item::Record(record).sign(self.catalog.keyring(), self.catalog.cluster())?;
        let bytes = Arc::clone(&signed.bytes);
        self.catalog.set_own(signed);
        self.view = None;
        self.pushing.begin(now, self.me.node);
        self.tell_core(now, &bytes);
        Some(bytes)
    }

    /// Merges a signed item that chitchat or the cache brought.
    pub fn offer(&mut self, now: Instant, bytes: &[u8]) -> Option<Arc<[u8]>> {
        match self.catalog.offer(now, bytes) {
            Ok(offered) => self.offered(now, offered),
            Err(error) => {
                self.stats.count_drop(error.reason());
                None
            }
        }
    }

    /// What came of an offer is a change; what is to be handed back is returned.
    fn offered(&mut self, now: Instant, offered: Offered) -> Option<Arc<[u8]>> {
        let conflicts = self.catalog.take_conflicts().into_iter().map(Change::Conflict);
        self.changes.extend(conflicts);
        match offered {
            Offered::Known | Offered::View(_) => {}
            Offered::Crowded => self.stats.count_drop(DropReason::Crowded),
            Offered::Record(node) => {
                self.changes.push(Change::Record(node));
                self.know_core(now);
                self.relay(now, node);
            }
            Offered::Removal { node, dropped } => self.removed(now, node, dropped),
            Offered::OwnAbove(record) => self.changes.push(Change::GoOnAbove(record)),
            Offered::OwnRemoval(generation) => self.changes.push(Change::OwnRemoval(generation)),
            Offered::Older(bytes) => return Some(bytes),
        }
        None
    }

    /// A worker reports to every core member; a core member hears the others by chitchat.
    fn know_core(&mut self, now: Instant) {
        if self.me.core {
            return;
        }
        let others = self.catalog.records().filter(|(node, record)| *node != self.me.node && !record.gossip.is_empty());
        let core = others.map(|(node, record)| (node, record.gossip.clone())).collect();
        self.reporter.know(now, core);
    }

    /// What chitchat shows of the core now. Where it has just begun again it has not met everybody yet: `settling`.
    pub fn set_core(&mut self, now: Instant, mut core: BTreeMap<NodeId, CoreMember>, settling: bool) {
        for (node, before) in self.core.iter().filter(|(_, before)| settling && before.live) {
            if core.get(node).is_none_or(|member| !member.live) {
                core.insert(*node, before.clone());
            }
        }
        let live = |core: &BTreeMap<NodeId, CoreMember>| -> BTreeSet<(NodeId, u64)> {
            core.iter().filter(|(_, member)| member.live).map(|(node, member)| (*node, member.generation)).collect()
        };
        let (before, after) = (live(&self.core), live(&core));
        self.core_heard.extend(core.iter().filter_map(|(node, member)| Some((*node, member.heard?))));
        self.core_heard.retain(|node, _| self.catalog.record(*node).is_some());
        self.core = core;
        self.catalog.set_live(after.clone());
        self.reporter.search_if(now, after.is_empty());
        if before != after {
            self.view = None;
            self.live_since = self.views + 1;
            let moved = before.symmetric_difference(&after).map(|(node, _)| *node).collect::<BTreeSet<_>>();
            self.pushing.view_changed(now, &moved);
        }
        self.settle_rivals(now);
        self.summarise(now);
    }

    fn settle_rivals(&mut self, now: Instant) {
        for node in self.catalog.settle_rivals(now) {
            self.changes.push(Change::Record(node));
            self.know_core(now);
        }
        self.changes.extend(self.catalog.take_conflicts().into_iter().map(Change::Conflict));
    }

    /// Takes another keyring.
    pub fn rekey(&mut self, now: Instant, keyring: Keyring) {
        self.envelopes = Envelopes::new(&keyring, self.catalog.cluster());
        for node in self.catalog.rekey(keyring) {
            self.changes.push(Change::Gone(node));
        }
        self.view = None;
        self.reporter.begin_again(now);
        self.know_core(now);
    }

    /// A datagram was opened. Whose it is, unless it is dropped.
    pub fn receive(&mut self, now: Instant, from: SocketAddr, opened: &Opened, len: usize) -> Option<NodeId> {
        let result = match opened.kind {
            Kind::Report => self.take_report(now, from, opened, len),
            Kind::Update => self.take_update(now, from, &opened.plaintext),
            Kind::Core => Err(DropReason::Malformed),
        };
        result.inspect_err(|reason| self.stats.count_drop(*reason)).ok()
    }

    /// The time that was asked for has come.
    pub fn tick(&mut self, now: Instant) {
        self.stale |= self.workers.expire(now);
        if self.stale && now >= self.summarised + VIEWS_APART {
            self.summarise(now);
        }
        self.ask(now);
        self.push(now);
    }

    /// When [`Exchange::tick`] is wanted next.
    pub fn next(&self) -> Option<Instant> {
        let summary = self.stale.then(|| self.summarised + VIEWS_APART);
        let expiry = self.workers.next_expiry();
        let asking = self.reporter.next().filter(|_| self.generation > 0);
        [asking, self.pushing.next(), summary, expiry].into_iter().flatten().min()
    }

    /// What is to be sent, and where.
    pub fn take_sends(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.sends)
    }

    /// What has changed.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// What others report.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The envelopes, for traffic of the core.
    pub fn envelopes(&self) -> &Envelopes {
        &self.envelopes
    }

    /// Whether a core member is live, as far as this node can tell.
    pub fn is_live(&self, now: Instant, node: NodeId) -> bool {
        if self.me.core {
            return self.core.get(&node).is_some_and(|member| member.live);
        }
        match self.reporter.answers(node) {
            Some(true) => true,
            Some(false) => self.catalog.any_live(now, node) && !self.reporter.told_gone(node),
            None => self.catalog.any_live(now, node),
        }
    }

    /// Whether a core member answers this worker, or this core member hears any other node; and the node that answered within
    /// `recent`.
    pub fn answered(&self, now: Instant, recent: Duration) -> (bool, Option<SocketAddr>) {
        let lead = self.reporter.last_answer().filter(|(at, _)| now < *at + recent).map(|(_, by)| by);
        let answered = if self.me.core {
            self.live_core().next().is_some() || !self.workers.is_empty() || lead.is_some()
        } else {
            !self.reporter.is_searching()
        };
        (answered, lead)
    }

    /// Where live core members gossip.
    pub fn live_core(&self) -> impl Iterator<Item = SocketAddr> {
        self.core.values().filter(|member| member.live).map(|member| member.addr)
    }

    /// The gossip addresses in others' records.
    pub fn gossip_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.catalog.records().filter(|(node, _)| *node != self.me.node).flat_map(|(_, record)| record.gossip.iter().copied())
    }

    /// Addresses worth keeping for the next start: nodes that report here, or that were sampled.
    pub fn leads(&self) -> impl Iterator<Item = SocketAddr> {
        let reporting = self.workers.iter().map(|(addr, ..)| addr);
        reporting.chain(self.leads.iter().copied()).take(LEADS)
    }

    /// What this node says of its version and keys.
    pub fn introduction(&self) -> Introduction {
        let keyring = self.catalog.keyring();
        Introduction {
            name: self.me.name.clone(),
            version: self.me.version.clone(),
            keys: keyring.key_ids().into_iter().map(|id| id.0).collect(),
            full: keyring.is_full(),
        }
    }

    /// This core member's view, made anew where the last one is a second old.
    fn view(&mut self, now: Instant) -> Option<Arc<[u8]>> {
        if !self.me.core || self.generation == 0 {
            return None;
        }
        if let Some((made, _, bytes)) = &self.view
            && now < *made + VIEWS_APART
        {
            return Some(Arc::clone(bytes));
        }
        self.views += 1;
        let live = self.core.iter().filter(|(_, member)| member.live).map(|(node, member)| (*node, member.generation));
        let own = self.observations.iter().filter_map(|saw| Some((saw.endpoint, saw.rtt?)));
        let view = View {
            author: Some(self.me.node),
            generation: self.generation,
            number: self.views,
            live: live.chain([(self.me.node, self.generation)]).collect(),
            cluster_size: self.count(),
            loads: self.sum_loads().into_iter().collect(),
            failing: self.sum_failing(true).into_iter().collect(),
            round_trips: own.collect(),
        };
        let signed = Item::View(view.clone()).sign(self.catalog.keyring(), self.catalog.cluster())?;
        self.view = Some((now, view, Arc::clone(&signed.bytes)));
        Some(signed.bytes)
    }

    fn count(&self) -> u32 {
        let core = 1 + self.core.values().filter(|member| member.live).count();
        u32::try_from(core + self.workers.count(self.names_per_address)).unwrap_or(u32::MAX)
    }

    fn sum_loads(&self) -> BTreeMap<EndpointTag, u32> {
        self.workers.loads(self.core_observations().map(|(_, saw)| saw).chain(&self.observations))
    }

    /// With or without what this node itself reports.
    fn sum_failing(&self, own: bool) -> BTreeSet<EndpointTag> {
        let ip = self.own_addr.map(|addr| addr.ip()).filter(|_| own);
        let own = ip.into_iter().flat_map(|ip| self.observations.iter().map(move |saw| (ip, *saw)));
        self.workers.failing(self.core_observations().map(|(ip, saw)| (ip, *saw)).chain(own))
    }

    fn core_observations(&self) -> impl Iterator<Item = (IpAddr, &Observation)> {
        let core = self.core.values().filter(|member| member.live);
        core.flat_map(|member| member.observations.iter().map(|saw| (member.addr.ip(), saw)))
    }

    /// Works out what others report, and says whether that has changed.
    fn summarise(&mut self, now: Instant) {
        (self.stale, self.summarised) = (false, now);
        let summary = if self.me.core {
            let priors = self.own_addr.map(|addr| self.workers.priors(addr, self.core_observations())).unwrap_or_default();
            Summary { cluster_size: self.count(), loads: self.sum_loads(), failing: self.sum_failing(false), priors }
        } else {
            let mut summary = Summary { cluster_size: 1, priors: self.priors.clone(), ..Summary::default() };
            for (endpoint, rtt) in self.catalog.fresh_views(now).flat_map(|view| &view.round_trips) {
                summary.priors.entry(*endpoint).or_insert(*rtt);
            }
            for view in self.catalog.fresh_views(now) {
                summary.cluster_size = summary.cluster_size.max(view.cluster_size);
                summary.failing.extend(&view.failing);
                for (endpoint, load) in &view.loads {
                    let most = summary.loads.entry(*endpoint).or_default();
                    *most = (*most).max(*load);
                }
            }
            summary
        };
        if summary != self.summary {
            self.reporter.size(summary.cluster_size);
            self.catalog.set_freshness(2 * self.reporter.period() + VIEW_SLACK);
            self.summary = summary;
            self.changes.push(Change::Summary);
        }
    }

    fn seen_endpoints(&self) -> Vec<SeenEndpoint> {
        self.observations.iter().map(SeenEndpoint::from).collect()
    }
}
