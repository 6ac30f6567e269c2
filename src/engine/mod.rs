//! The engine: all policy, and nothing else.
//!
//! A state machine that is told what happened ([`Event`]) and when ([`Moment`]), and answers with what to do ([`Effect`]).
//! It has no clock, no randomness of its own, no sockets and no tasks; jitter is a hash of the seed it was given, and every
//! map iterates in key order. So the same events give the same effects, byte for byte: a log of a production agent
//! replays as a test, and a simulation that drives the engine tests the policy that ships.
//!
//! The alternative, policy spread over the tasks that probe, dial and gossip, is how balancers usually grow. Then what the
//! policy *is* can be found out only by running it, and two tasks' views of an endpoint differ whenever it matters.
//!
//! What it promises: nothing is queued inside, [`Engine::next_deadline`] says when it wants to be woken, the routing
//! never becomes empty once something could carry, and only own probes make an endpoint `down`.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

mod cluster;
mod departing;
mod doubt;
pub mod endpoint;
pub mod event;
mod finding;
mod health;
mod hearing;
mod known;
mod latency;
pub mod liveness;
mod order;
mod own_listeners;
pub mod policy;
mod probing;
mod reach;
mod reporting;
pub mod selection;
mod settling;
#[cfg(test)]
mod tests;
pub mod time;
mod trust;

pub use endpoint::{Endpoint, EndpointTag, NodeId, Source};
pub use event::{Effect, Event};
pub use selection::{Band, Routing, Upstream, band};
use selection::{Trouble, first_byte_delay};
pub use time::Moment;

use cluster::Cluster;
use doubt::Evidence;
use event::{Outcome, ProbeLimits, Probed, Saw, Verdict};
use finding::Finding;
use health::Sent;
use known::Known;
use own_listeners::OwnListeners;
use probing::confirm_spread;
use reporting::Reporting;

/// Who this node is, as far as the policy needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// This node's name.
    pub name: String,
    /// Where others reach its apiserver; empty on workers.
    pub advertised: Vec<Endpoint>,
    /// Seeds the jitter: different on each node.
    pub seed: u64,
}

/// The state machine.
#[derive(Debug)]
pub struct Engine {
    identity: Identity,
    now: Moment,
    cluster: Cluster,
    endpoints: BTreeMap<Endpoint, Known>,
    own_listeners: OwnListeners,
    /// Connections by endpoint as all members gossip them; [`None`] where gossip is off.
    loads: Option<BTreeMap<EndpointTag, u32>>,
    held: u32,
    /// When an upstream last failed a client: it may still wait there, held by nobody.
    stranded: Option<Moment>,
    probes: u64,
    routing: Routing,
    /// Something that ranking reads has changed.
    rerank: bool,
    /// Something has answered since held clients were last released.
    answered: bool,
    /// Since when the weights are as they are.
    ranked_at: Moment,
    reporting: Reporting,
    /// Endpoints refused because there were too many, or because they are outside the allowed networks.
    refused: u64,
    /// Networks in which endpoints must be that gossip or the cache names; empty: any.
    allowed: Vec<IpNet>,
}

/// An endpoint as a person sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Its address.
    pub endpoint: Endpoint,
    /// What the engine holds of it.
    pub verdict: Verdict,
    /// Why it is known.
    pub sources: Vec<Source>,
    /// The estimated round trip.
    pub rtt: Option<Duration>,
    /// Connections as all members gossip them; [`None`] where gossip is off.
    pub load: Option<u32>,
    /// This node's own connections.
    pub connections: u32,
    /// It may carry.
    pub carries: bool,
    /// No other upstream is better.
    pub best: bool,
    /// Why it is where it is, a sentence each.
    pub reasons: Vec<String>,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(identity: Identity) -> Engine {
        Engine {
            cluster: Cluster::new(NodeId::of(&identity.name)),
            identity,
            now: Moment::START,
            endpoints: BTreeMap::new(),
            own_listeners: OwnListeners::default(),
            loads: None,
            held: 0,
            stranded: None,
            probes: 0,
            routing: Routing::default(),
            rerank: false,
            answered: false,
            ranked_at: Moment::START,
            reporting: Reporting::default(),
            refused: 0,
            allowed: Vec::new(),
        }
    }

    /// Takes one event and returns everything that follows from it. `now` never goes back: an earlier one counts as the last.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.cluster.expire_sizes(self.now);
        let mut effects = Vec::new();
        match event {
            Event::Wake => {}
            Event::OwnListeners(addresses) => self.own_listeners(addresses, &mut effects),
            Event::Named(name) => {
                self.cluster.rename(NodeId::of(&name));
                self.identity.name = name;
            }
            Event::Configured(all) => self.configured(&all, &mut effects),
            Event::Cached { endpoints, cluster_size } => self.cached(&endpoints, cluster_size, &mut effects),
            Event::ClusterSize(nodes) => self.cluster.set_live(self.now, nodes),
            Event::Record(record) => self.record(record, &mut effects),
            Event::Forgotten(node) => self.forgotten(node),
            Event::Removed { node } => self.removed(node),
            Event::PeerReports { failing } => self.peer_reports(failing),
            Event::Priors(priors) => self.priors(priors),
            Event::Loads(loads) => {
                self.loads = Some(loads);
                self.rerank = true;
            }
            Event::Connections { endpoint, open } => self.connections(endpoint, open),
            Event::Probed(probed) => self.probed(&probed),
            Event::Traffic { endpoint, saw } => self.traffic(endpoint, &saw),
            Event::Held(clients) => self.held = clients,
            Event::TrustChanged(worth) => self.trust_changed(&worth, &mut effects),
            Event::Allowed(networks) => self.allowed(networks, &mut effects),
        }
        self.settle(&mut effects);
        self.assert_sound();
        effects
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When to call [`Engine::handle`] with [`Event::Wake`], unless something happens before.
    pub fn next_deadline(&self) -> Option<Moment> {
        let probes = self.endpoints.values().map(|known| known.schedule.due());
        let resets = self.endpoints.values().filter_map(Known::resets_at).filter(|at| *at > self.now);
        let doubts = self.endpoints.values().filter_map(|known| known.health.doubt_ends());
        let ramp = self.ramp_step_due();
        let report = self.reporting.due();
        let departures = self.departures();
        probes.chain(departures).chain(resets).chain(doubts).chain(ramp).chain(report).min()
    }

    /// The routing in force.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// The cluster's size: the largest number of live node names of late.
    pub fn cluster_size(&self) -> u32 {
        self.cluster.size()
    }

    /// How far apart this node's periodic probes of one endpoint are now, without jitter.
    pub fn probe_interval(&self) -> Duration {
        probing::interval(self.cluster.size())
    }

    /// Endpoints that were refused because there were too many.
    pub fn refused_endpoints(&self) -> u64 {
        self.refused
    }

    /// Every endpoint, those that carry in rank order first, in the words of this moment: the last event may be long ago.
    pub fn explain(&self, now: Moment) -> Vec<Explained> {
        let now = now.max(self.now);
        let (routing, scores) = selection::rank(&self.candidates());
        let ranked = routing.upstreams.iter().zip(&scores).filter_map(|(upstream, score)| {
            let mut explained = self.explain_one(self.endpoints.get(&upstream.endpoint)?, now);
            explained.best = upstream.group == 0;
            explained.reasons.insert(0, score.explain());
            Some(explained)
        });
        let others = self.endpoints.values().filter(|known| !known.carries()).map(|known| self.explain_one(known, now));
        ranked.chain(others).collect()
    }

    fn explain_one(&self, known: &Known, now: Moment) -> Explained {
        Explained {
            endpoint: known.endpoint,
            verdict: known.health.verdict(),
            sources: known.sources(),
            rtt: known.latency.estimate(),
            load: self.loads.as_ref().map(|_| self.load(known)),
            connections: known.connections,
            carries: known.carries(),
            best: false,
            reasons: known.explain(now),
        }
    }

    /// The connections an endpoint bears: the whole cluster's where gossip tells, else this node's own.
    fn load(&self, known: &Known) -> u32 {
        let Some(loads) = &self.loads else { return known.connections };
        loads.get(&self.public_tag(known)).copied().unwrap_or(known.connections)
    }

    /// The name by which the cluster speaks of an endpoint: this node's own apiserver is known to the others by what it
    /// advertises, not by where this node reaches it.
    fn public_tag(&self, known: &Known) -> EndpointTag {
        match self.identity.advertised.first() {
            Some(advertised) if known.is_local() => advertised.tag(),
            _ => known.tag,
        }
    }

    fn candidates(&self) -> Vec<selection::Candidate> {
        let carrying = self.endpoints.values().filter(|known| known.carries());
        carrying.map(|known| known.candidate(self.now, self.load(known))).collect()
    }

    fn connections(&mut self, endpoint: Endpoint, open: u32) {
        if let Some(known) = self.endpoints.get_mut(&endpoint) {
            known.connections = open;
            self.rerank |= self.loads.is_none();
        }
    }

    fn probed(&mut self, probed: &Probed) {
        let now = self.now;
        let held = self.held > 0;
        let Some(known) = self.endpoints.get_mut(&probed.endpoint) else { return };
        let Some(probe) = known.schedule.ended(probed.id) else { return };
        let counts = self.note_reach(probed.endpoint, &probed.outcome);
        let explained = self.an_apiserver_explains_a_hang_of(probed.endpoint);
        let Some(known) = self.endpoints.get_mut(&probed.endpoint) else { return };
        known.note_verified(&probed.outcome);
        let finding = match Finding::of(&probed.outcome, known.is_hearsay(), probed.fresh) {
            // A process that was asleep when the answer may have come knows nothing.
            Finding::Fails(_) | Finding::Unclear | Finding::Answers(_) | Finding::Unverifiable(_)
                if late(now, probed, probe.limits) =>
            {
                Finding::Nothing
            }
            Finding::Fails(_) if !counts => Finding::Nothing,
            finding => finding,
        };
        match finding {
            Finding::Answers(answer) => {
                if let Some(rtt) = probed.rtt {
                    known.latency.sample(rtt);
                }
                known.overtaken = 0;
                let slow = is_slow(known, probed);
                known.health.answered(now, Sent { at: probed.sent, hello_bytes: probed.hello_bytes, slow }, answer, held);
                self.answered = true;
                self.judge_handshake(probed);
            }
            Finding::Fails(mut failure) => {
                failure.hung &= !(explained && known.may_be_a_balancer());
                known.health.failed(now, probed.sent, probed.fresh, failure);
            }
            Finding::Unverifiable(why) => known.health.unverifiable(now, probed.sent, why),
            Finding::Disproves(why) => known.health.disprove(now, probed.sent, why),
            Finding::Unclear => {
                let why = "a kept connection is not answered";
                known.health.doubt(now, why, Trouble::Silent, Evidence::Connection);
                known.schedule.set(now);
            }
            Finding::Nothing if reach::was_not_sent(&probed.outcome) => {
                // What could not be tried fails at once, and would do so again and again if it were due at once.
                known.schedule.no_later_than(now + policy::CONFIRM_AFTER);
                return;
            }
            Finding::Nothing => known.schedule.set(now),
        }
        self.reschedule(probed.endpoint);
        self.rerank = true;
    }

    /// Clients would not have waited for so late a handshake, if there had been another endpoint. Once may be chance.
    fn judge_handshake(&mut self, probed: &Probed) {
        let now = self.now;
        let Some(known) = self.endpoints.get_mut(&probed.endpoint) else { return };
        if !probed.fresh {
            // A late answer on a kept connection may be a late handshake on a fresh one: that is looked at once.
            let most = first_byte_delay(known.latency.estimate().unwrap_or_default());
            if probed.rtt.is_some_and(|took| took > most) {
                known.slow = true;
                known.schedule.set(now);
            }
            return;
        }
        let slow = is_slow(known, probed);
        if slow && known.slow {
            let why = "its TLS handshake takes longer than a client waits for its first byte";
            known.health.doubt(now, why, Trouble::Answers, Evidence::Connection);
        } else if slow {
            known.schedule.bring_forward(now + policy::CONFIRM_AFTER);
        }
        known.slow = slow;
    }

    /// What the outcome of a probe makes of the next one.
    fn reschedule(&mut self, endpoint: Endpoint) {
        let (now, balancer) = (self.now, self.may_be_a_balancer(endpoint));
        let elsewhere = self.last_answer_elsewhere(endpoint);
        let Some(known) = self.endpoints.get_mut(&endpoint) else { return };
        let health = &known.health;
        if let Some(at) = health.confirm_at().or(health.recover_at()).or(health.hang_confirm_at(balancer)) {
            known.schedule.set(at.max(now));
        }
        if known.connections > 0 && known.health.hung_since().is_some_and(|since| elsewhere <= Some(since)) {
            self.call_witness(endpoint);
        }
    }

    fn traffic(&mut self, endpoint: Endpoint, saw: &Saw) {
        // Until something else connects it says nothing.
        if let Saw::Unreachable(why) = saw
            && !self.note_unreachable(endpoint, why)
        {
            return;
        }
        let now = self.now;
        let Some(known) = self.endpoints.get_mut(&endpoint) else { return };
        let hello = |bytes: &u32| Evidence::Hello(*bytes);
        let (doubt, trouble, evidence) = match saw {
            Saw::Connected(rtt) => {
                known.overtaken = 0;
                known.latency.sample(*rtt);
                self.rerank = true;
                self.note_connected(endpoint);
                return;
            }
            Saw::Answered { hello_bytes } => {
                self.rerank |= known.health.hello_answered(*hello_bytes);
                self.answered = true;
                return;
            }
            Saw::LocalError(why) => return self.note_local_lack(endpoint, why),
            Saw::Overtaken { deadline } | Saw::DialTimedOut { deadline } | Saw::NoFirstByte { deadline, .. }
                if now.since(*deadline) > policy::STALE_TIMEOUT =>
            {
                return;
            }
            Saw::Overtaken { .. } => {
                known.overtaken = known.overtaken.saturating_add(1);
                if known.overtaken < policy::MIN_OVERTAKEN_DIALS {
                    self.prompt(endpoint);
                    return;
                }
                ("dials begun later connected before it".into(), Trouble::Silent, Evidence::Connection)
            }
            Saw::DialTimedOut { .. } => ("a dial is not answered".into(), Trouble::Silent, Evidence::Connection),
            Saw::Unreachable(why) => (reach::unreachable(why), Trouble::Refuses, Evidence::Connection),
            Saw::Refused => ("a connection was refused".into(), Trouble::Refuses, Evidence::Connection),
            Saw::NoFirstByte { hello_bytes, .. } => {
                ("connected, and no first byte came in time".into(), Trouble::Silent, hello(hello_bytes))
            }
            Saw::ClosedEarly { hello_bytes } => ("closed before its first byte".into(), Trouble::Refuses, hello(hello_bytes)),
            Saw::NotTls => ("answered a hello with something that is not TLS".into(), Trouble::Refuses, Evidence::Connection),
            Saw::PeerSilent => ("an established connection is not acknowledged".into(), Trouble::Silent, Evidence::Connection),
            Saw::Unanswered => {
                ("a client asks on its connection and is not answered".into(), Trouble::Silent, Evidence::Connection)
            }
        };
        let doubt: String = doubt;
        known.health.doubt(now, &doubt, trouble, evidence);
        self.stranded = Some(now);
        self.prompt(endpoint);
        if *saw == Saw::NotTls {
            self.withdraw_proof(endpoint, &doubt);
        }
        self.rerank = true;
    }

    /// What hearsay led to carries nothing once it is no apiserver, until it has proven itself again; where a person configured it,
    /// a balancer may have a bad day. Where it is the only one clients are held until a probe has told, which is prompted by this.
    fn withdraw_proof(&mut self, endpoint: Endpoint, why: &str) {
        if let Some(known) = self.endpoints.get_mut(&endpoint).filter(|known| known.is_hearsay() && known.health.proven()) {
            known.health.withdraw(self.now, why);
        }
    }

    /// Evidence asks for an own probe soon: spread over the nodes that may have seen the same. Against what fails already
    /// it is no news, and the probe that confirms or ends the failure has its time.
    fn prompt(&mut self, endpoint: Endpoint) {
        let size = self.cluster.size();
        let drawn = share(hash(&[self.identity.seed, u64::from(endpoint.tag().0), self.now.as_nanos()]));
        let delay = confirm_spread(size).mul_f64(drawn);
        if let Some(known) = self.endpoints.get_mut(&endpoint).filter(|known| known.health.answering()) {
            let apart = known.pace(size).interval();
            known.schedule.prompt(self.now, delay, apart);
        }
    }

    fn assert_sound(&self) {
        let staying = self.endpoints.values().filter(|known| known.departing.is_none()).count();
        debug_assert!(staying <= policy::ENDPOINTS + self.configured_count(), "endpoints are bounded");
        debug_assert!(
            self.routing.upstreams.iter().all(|upstream| self.endpoints.contains_key(&upstream.endpoint)),
            "the routing names only what is known"
        );
        debug_assert!(
            self.endpoints.values().all(|known| known.health.verdict() == known.told),
            "every change of a verdict was told"
        );
    }

    fn configured_count(&self) -> usize {
        self.endpoints.values().filter(|known| !known.is_hearsay()).count()
    }
}

/// Whether a probe's handshake took longer than a client waits for its first byte.
fn is_slow(known: &Known, probed: &Probed) -> bool {
    probed.handshake.is_some_and(|took| took > first_byte_delay(known.latency.estimate().unwrap_or_default()))
}

/// Whether a phase's end was told so late that this process was asleep when the answer may have come.
fn late(now: Moment, probed: &Probed, limits: ProbeLimits) -> bool {
    let due = match probed.outcome {
        Outcome::DialTimedOut => limits.dial,
        Outcome::HandshakeTimedOut { .. } => limits.dial + limits.handshake,
        Outcome::AnswerTimedOut if probed.fresh => limits.total(),
        Outcome::AnswerTimedOut => limits.answer,
        _ => return false,
    };
    now.since(probed.sent) > due + policy::STALE_TIMEOUT
}

/// A well-mixed number from several (the finaliser of `splitmix64`, by Steele, Lea and Flood, 2014).
pub(crate) fn hash(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        let mut mixed = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// A hash as a share of one, 0 included, 1 not.
pub(crate) fn share(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}
