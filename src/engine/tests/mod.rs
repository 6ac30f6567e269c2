//! The rules of the engine, told as stories in a scripted world: endpoints that answer probes after a delay, a clock that
//! jumps from one deadline to the next, and everything the engine asked for, written down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::endpoint::{Endpoint, NodeId, Source};
use super::event::{
    AgentState, ApiserverState, CachedEndpoint, Configured, Effect, Event, Lack, MemberRecord, Notice, Outcome, OwnReport,
    ProbeLimits, ProbeOrder, Probed, ResetReason, Reverified, Role, Saw, Verdict,
};
use super::{Engine, Explained, Identity, Moment, policy};

mod calm;
mod evidence;
mod health;
mod holding;
mod membership;
mod own_listeners;
mod probing;
mod properties;
mod reach;
mod removal;
mod replay;
mod reporting;
mod resetting;
mod selection;
mod trust;

/// What stands at an address.
#[derive(Clone, Debug, PartialEq)]
enum Site {
    /// Answers `/readyz` with this status.
    Status(u16),
    /// Answers 200 with a certificate outside its validity.
    Expired,
    /// Drops everything: dials are not answered.
    Silent,
    /// Accepts, and does not answer the TLS handshake.
    Hung,
    /// Completes the TLS handshake, and does not answer `/readyz`.
    Late,
    /// Stopped, and goes on at this moment with what had come in.
    PausedUntil(Moment),
    /// Answers 200 on fresh connections and has closed the kept ones.
    ClosedKept,
    /// Answers 200 this long after it was asked.
    Slow(Duration),
    /// Every probe ends so, a round trip after it was sent.
    Ends(Outcome),
}

/// A probe on its way.
#[derive(Clone, Debug)]
struct Flying {
    order: ProbeOrder,
    sent: Moment,
}

/// One node's engine and what it can reach.
struct World {
    engine: Engine,
    now: Moment,
    sites: BTreeMap<Endpoint, Site>,
    /// The round trip to each site.
    rtts: BTreeMap<Endpoint, Duration>,
    /// This node's own network is gone.
    cut_off: bool,
    /// Round trips vary by this share, up and down.
    noise: f64,
    draws: u64,
    flying: BTreeMap<(Moment, u64), Flying>,
    /// Everything the engine was told, and when.
    told: Vec<(Moment, Event)>,
    /// Everything the engine asked for, and when.
    asked: Vec<(Moment, Effect)>,
    versions: u64,
}

const RTT: Duration = Duration::from_millis(1);
/// A ClientHello of a probe, and of a client.
const HELLO_BYTES: u32 = 1_700;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(span: Duration) -> Moment {
    Moment::START + span
}

/// The apiserver of control-plane node `n`.
fn apiserver(n: u8) -> Endpoint {
    address([10, 0, 0, n])
}

fn address(ip: [u8; 4]) -> Endpoint {
    SocketAddr::from((ip, 6443)).into()
}

fn control_plane(n: u8) -> NodeId {
    NodeId::of(&format!("cp-{n}"))
}

fn configured(endpoint: Endpoint, source: Source) -> Configured {
    Configured { endpoint, source, by_name: false, server_name: None }
}

impl World {
    /// A worker that knows nothing yet.
    fn worker(seed: u64) -> World {
        World::node(Identity { name: "worker".into(), advertised: Vec::new(), seed })
    }

    fn node(identity: Identity) -> World {
        World {
            engine: Engine::new(identity),
            now: Moment::START,
            sites: BTreeMap::new(),
            rtts: BTreeMap::new(),
            cut_off: false,
            noise: 0.0,
            draws: 0,
            flying: BTreeMap::new(),
            told: Vec::new(),
            asked: Vec::new(),
            versions: 0,
        }
    }

    /// A worker that learnt of `count` apiservers by gossip, all ready and this node quiet for half a minute.
    fn quiet(count: u8, seed: u64) -> World {
        let mut world = World::worker(seed);
        for n in 1..=count {
            world.site(apiserver(n), Site::Status(200));
            world.record(n, &[apiserver(n)]);
        }
        world.run(secs(40));
        for n in 1..=count {
            assert_eq!(world.verdict(apiserver(n)), Verdict::Ready, "the story starts with apiservers that are ready");
        }
        world
    }

    /// The same, with ten connections carried to each apiserver.
    fn busy(count: u8, seed: u64) -> World {
        let mut world = World::quiet(count, seed);
        for n in 1..=count {
            world.tell(Event::Connections { endpoint: apiserver(n), open: 10 });
        }
        world
    }

    /// A worker of a cluster of so many that has probed three apiservers for a minute.
    fn among(nodes: u32, seed: u64) -> World {
        let mut world = World::busy(3, seed);
        world.tell(Event::ClusterSize(nodes));
        world.run(secs(60));
        world
    }

    /// A load balancer too, with five connections, for long enough to be known.
    fn with_balancer(mut self) -> (World, Endpoint) {
        let balancer = apiserver(9);
        self.tell(Event::Configured(vec![configured(balancer, Source::External)]));
        self.site(balancer, Site::Status(200));
        self.tell(Event::Connections { endpoint: balancer, open: 5 });
        self.run(secs(10));
        (self, balancer)
    }

    /// A worker as in [`World::among`], and the first apiserver falls silent now.
    fn silent_among(nodes: u32, seed: u64) -> (World, Moment) {
        let mut world = World::among(nodes, seed);
        world.site(apiserver(1), Site::Silent);
        let fault = world.now;
        (world, fault)
    }

    fn site(&mut self, endpoint: Endpoint, site: Site) {
        self.sites.insert(endpoint, site);
    }

    fn distance(&mut self, endpoint: Endpoint, rtt: Duration) {
        self.rtts.insert(endpoint, rtt);
    }

    /// A control plane's record that names these addresses; each newer than the one before.
    fn record(&mut self, n: u8, endpoints: &[Endpoint]) {
        let record = self.a_record(n, endpoints);
        self.tell(Event::Record(record));
    }

    fn a_record(&mut self, n: u8, endpoints: &[Endpoint]) -> MemberRecord {
        self.versions += 1;
        MemberRecord {
            node: control_plane(n),
            name: format!("cp-{n}"),
            generation: 1,
            version: self.versions,
            role: Role::ControlPlane,
            agent: AgentState::Running,
            apiserver: None,
            endpoints: endpoints.to_vec(),
        }
    }

    /// Control plane `n` says this of its own apiserver.
    fn word(&mut self, n: u8, state: ApiserverState) {
        let record = MemberRecord { apiserver: Some(state), ..self.a_record(n, &[apiserver(n)]) };
        self.tell(Event::Record(record));
    }

    /// At least two other nodes report these as suspect or down, and no others.
    fn peers_report(&mut self, failing: &[Endpoint]) {
        self.tell(Event::PeerReports { failing: failing.iter().map(|endpoint| endpoint.tag()).collect() });
    }

    fn saw(&mut self, endpoint: Endpoint, saw: Saw) {
        self.tell(Event::Traffic { endpoint, saw });
    }

    fn configure(&mut self, endpoints: &[(Endpoint, Source)]) {
        self.tell(Event::Configured(endpoints.iter().map(|(endpoint, source)| configured(*endpoint, *source)).collect()));
    }

    /// Tells the engine something now.
    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let woken = event == Event::Wake;
        self.told.push((self.now, event.clone()));
        let effects = self.engine.handle(self.now, event);
        for effect in &effects {
            if let Effect::Probe(order) = effect {
                self.take_off(order.clone());
            }
            self.asked.push((self.now, effect.clone()));
        }
        if woken {
            assert!(self.engine.next_deadline().is_none_or(|due| due > self.now), "a deadline that was met is not due again");
        }
        effects
    }

    fn take_off(&mut self, order: ProbeOrder) {
        let rtt = self.rtts.get(&order.endpoint).copied().unwrap_or(RTT);
        self.draws += 1;
        let rtt =
            rtt.mul_f64(1.0 + self.noise * (2.0 * super::share(super::hash(&[self.draws, order.endpoint.tag().0.into()])) - 1.0));
        self.flying.insert((self.now + rtt, order.id), Flying { order, sent: self.now });
    }

    /// Lets time pass, deadline by deadline.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let landing = self.flying.keys().next().map(|(when, _)| *when);
            let Some(next) = landing.into_iter().chain(self.engine.next_deadline()).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            match self.flying.pop_first() {
                Some(((when, id), flying)) if when <= self.now => self.land(when, id, flying),
                Some((key, flying)) => {
                    self.flying.insert(key, flying);
                    self.tell(Event::Wake);
                }
                None => {
                    self.tell(Event::Wake);
                }
            }
        }
        self.now = end;
    }

    /// Lets time pass until this holds; no longer than `most`.
    fn run_until(&mut self, most: Duration, mut holds: impl FnMut(&World) -> bool) -> Duration {
        let began = self.now;
        while !holds(self) {
            assert!(self.now.since(began) < most, "it did not come to pass within {most:?}");
            self.run(ms(5));
        }
        self.now.since(began)
    }

    fn land(&mut self, when: Moment, id: u64, flying: Flying) {
        let (limits, fresh) = (flying.order.limits, flying.order.fresh);
        let site = if self.cut_off { &Site::Silent } else { self.sites.get(&flying.order.endpoint).unwrap_or(&Site::Silent) };
        // What it ends with unless something comes before, and when. A kept connection has only the last phase.
        let (outcome, expiry) = match site {
            _ if !fresh => (Outcome::AnswerTimedOut, limits.answer),
            Site::Silent => (Outcome::DialTimedOut, limits.dial),
            Site::Late => (Outcome::AnswerTimedOut, limits.answer),
            _ => (Outcome::HandshakeTimedOut { hung: true }, limits.handshake),
        };
        let expiry = flying.sent + expiry;
        let ok = Outcome::Status { code: 200, expired: false };
        let outcome = match site {
            _ if when >= expiry => outcome,
            Site::Status(code) => Outcome::Status { code: *code, expired: false },
            Site::Expired => Outcome::Status { code: 200, expired: true },
            Site::ClosedKept if !fresh => Outcome::Stale,
            Site::ClosedKept => ok,
            Site::Slow(by) if when >= flying.sent + *by => ok,
            Site::Slow(by) => {
                self.flying.insert(((flying.sent + *by).min(expiry), id), flying);
                return;
            }
            Site::Ends(outcome) => outcome.clone(),
            Site::PausedUntil(until) if *until <= when => ok,
            Site::PausedUntil(until) => {
                self.flying.insert(((*until).min(expiry), id), flying);
                return;
            }
            Site::Silent | Site::Hung | Site::Late => {
                self.flying.insert((expiry, id), flying);
                return;
            }
        };
        self.tell_probed(when, id, &flying, outcome);
    }

    fn tell_probed(&mut self, when: Moment, id: u64, flying: &Flying, outcome: Outcome) {
        let answered = matches!(outcome, Outcome::Status { .. });
        let took = when.since(flying.sent);
        let slow = if let Some(Site::Slow(by)) = self.sites.get(&flying.order.endpoint) { *by } else { Duration::ZERO };
        self.tell(Event::Probed(Probed {
            id,
            endpoint: flying.order.endpoint,
            sent: flying.sent,
            fresh: flying.order.fresh,
            rtt: answered.then(|| took.saturating_sub(slow)),
            handshake: (answered && flying.order.fresh).then_some(took),
            hello_bytes: if flying.order.fresh { HELLO_BYTES } else { 0 },
            outcome,
        }));
    }

    /// The agent does nothing for a while: what it had on its way has timed out when it looks again.
    fn stall(&mut self, span: Duration) {
        self.now += span;
        for ((_, id), flying) in std::mem::take(&mut self.flying) {
            let outcome = if flying.order.fresh { Outcome::DialTimedOut } else { Outcome::AnswerTimedOut };
            self.tell_probed(self.now, id, &flying, outcome);
        }
    }

    fn all_explained(&self) -> Vec<Explained> {
        self.engine.explain(self.now)
    }

    fn explained(&self, endpoint: Endpoint) -> Option<Explained> {
        self.all_explained().into_iter().find(|one| one.endpoint == endpoint)
    }

    fn knows(&self, endpoint: Endpoint) -> bool {
        self.explained(endpoint).is_some()
    }

    fn verdict(&self, endpoint: Endpoint) -> Verdict {
        self.explained(endpoint).unwrap_or_else(|| panic!("{endpoint} is not known")).verdict
    }

    /// It is in the routing: a client's bytes may go there.
    fn carries(&self, endpoint: Endpoint) -> bool {
        self.engine.routing().upstreams.iter().any(|upstream| upstream.endpoint == endpoint)
    }

    /// The endpoints in rank order.
    fn ranked(&self) -> Vec<Endpoint> {
        self.engine.routing().upstreams.iter().map(|upstream| upstream.endpoint).collect()
    }

    /// The best upstreams.
    fn best(&self) -> Vec<Endpoint> {
        self.engine.routing().upstreams.iter().filter(|upstream| upstream.group == 0).map(|upstream| upstream.endpoint).collect()
    }

    fn weight(&self, endpoint: Endpoint) -> u32 {
        self.engine
            .routing()
            .upstreams
            .iter()
            .find(|upstream| upstream.endpoint == endpoint)
            .map_or(0, |upstream| upstream.weight)
    }

    /// What the engine asked for since, as far as `pick` wants it.
    fn since<T>(&self, since: Moment, pick: impl Fn(&Effect) -> Option<T>) -> Vec<(Moment, T)> {
        let later = self.asked.iter().filter(|(when, _)| *when >= since);
        later.filter_map(|(when, effect)| Some((*when, pick(effect)?))).collect()
    }

    /// When it was probed since, and how.
    fn probes(&self, endpoint: Endpoint, since: Moment) -> Vec<(Moment, ProbeOrder)> {
        self.since(since, |effect| match effect {
            Effect::Probe(order) if order.endpoint == endpoint => Some(order.clone()),
            _ => None,
        })
    }

    /// When connections to it were reset since, and since when they must have been silent.
    fn resets(&self, of: Endpoint, since: Moment) -> Vec<(Moment, Moment)> {
        self.since(since, |effect| match effect {
            Effect::Reset { endpoint, silent_since, .. } if *endpoint == of => Some(silent_since.unwrap_or(self.now)),
            _ => None,
        })
    }

    /// The verdicts it has had since, in order.
    fn verdicts(&self, of: Endpoint, since: Moment) -> Vec<Verdict> {
        let changes = self.since(since, |effect| match effect {
            Effect::Notice(Notice::Verdict { endpoint, to, .. }) if *endpoint == of => Some(*to),
            _ => None,
        });
        changes.into_iter().map(|(_, verdict)| verdict).collect()
    }

    fn published(&self, since: Moment) -> Vec<(Moment, (OwnReport, bool))> {
        self.since(since, |effect| match effect {
            Effect::Publish { say, urgent } => Some((say.clone(), *urgent)),
            _ => None,
        })
    }

    /// Nothing was reset and no verdict changed since.
    fn assert_untouched(&self, since: Moment) {
        let touched = self.since(since, |effect| match effect {
            Effect::Reset { .. } | Effect::Notice(Notice::Verdict { .. }) => Some(effect.clone()),
            _ => None,
        });
        assert!(touched.is_empty(), "nothing was to change, but {touched:?}");
    }
}

/// The longest that one node's interval can be at this size.
fn longest_interval(nodes: u32) -> Duration {
    super::probing::interval(nodes).mul_f64(1.0 + policy::PROBE_JITTER)
}

fn cached(endpoint: Endpoint, node: Option<NodeId>, age: Duration) -> CachedEndpoint {
    CachedEndpoint { endpoint, node, age }
}
