//! Whatever is told, in whatever order: no panic, everything bounded, no busy loop, and never nothing where something was.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What happens next, by small numbers, so that stories shrink.
#[derive(Clone, Debug)]
enum Happening {
    Tell(Event),
    /// The oldest probe on its way ends so.
    End(Outcome, Option<Duration>),
    /// All probes on their way are answered 200.
    AllAnswer,
    Pass(Duration),
}

fn an_endpoint() -> impl Strategy<Value = Endpoint> {
    prop_oneof![4 => (1..6_u8).prop_map(apiserver), 1 => any::<[u8; 4]>().prop_map(address)]
}

fn a_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..5_000_000_u64).prop_map(Duration::from_micros),
        1 => (0..1_000_000_u64).prop_map(Duration::from_secs),
        1 => Just(Duration::MAX),
        1 => Just(Duration::ZERO),
    ]
}

fn a_node() -> impl Strategy<Value = NodeId> {
    (0..12_u8).prop_map(control_plane)
}

fn a_hostile_record() -> impl Strategy<Value = Event> {
    let state = prop::sample::select(vec![ApiserverState::Ready, ApiserverState::Draining, ApiserverState::Down]);
    let who = (a_node(), 0..3_u64, any::<u64>(), any::<bool>(), any::<bool>());
    (who, prop::option::of(state), vec(an_endpoint(), 0..30)).prop_map(
        |((node, generation, version, serves, leaves), apiserver, endpoints)| {
            Event::Record(MemberRecord {
                node,
                name: "liar".into(),
                generation,
                version,
                role: if serves { Role::ControlPlane } else { Role::Worker },
                agent: if leaves { AgentState::Leaving } else { AgentState::Running },
                apiserver,
                endpoints,
            })
        },
    )
}

fn an_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Status { code: 200, expired: false }),
        1 => (any::<u16>(), any::<bool>()).prop_map(|(code, expired)| Outcome::Status { code, expired }),
        1 => prop::sample::select(vec![Outcome::NotHttp, Outcome::Refused, Outcome::NotTls, Outcome::Stale]),
        1 => prop::sample::select(vec![
            Outcome::DialTimedOut,
            Outcome::AnswerTimedOut,
            Outcome::HandshakeTimedOut { hung: false },
            Outcome::HandshakeTimedOut { hung: true },
        ]),
        1 => Just(Outcome::Untrusted("another CA".into())),
        1 => any::<u16>().prop_map(|code| Outcome::Unverified { code, lack: Lack::Algorithm("RSASSA-PSS".into()) }),
        1 => Just(Outcome::LocalError("no descriptors".into())),
        1 => Just(Outcome::Unreachable("EPERM".into())),
    ]
}

fn traffic() -> impl Strategy<Value = Event> {
    let deadline = (0..2_000_000_000_000_u64).prop_map(Moment::from_nanos);
    let saw = prop_oneof![
        a_duration().prop_map(Saw::Connected),
        Just(Saw::Answered { hello_bytes: HELLO_BYTES }),
        Just(Saw::Refused),
        deadline.clone().prop_map(|deadline| Saw::Overtaken { deadline }),
        deadline.clone().prop_map(|deadline| Saw::DialTimedOut { deadline }),
        (deadline, any::<u32>()).prop_map(|(deadline, hello_bytes)| Saw::NoFirstByte { deadline, hello_bytes }),
        Just(Saw::PeerSilent),
        Just(Saw::Unanswered),
        Just(Saw::ClosedEarly { hello_bytes: HELLO_BYTES }),
        Just(Saw::NotTls),
        Just(Saw::LocalError("no descriptors".into())),
        Just(Saw::Unreachable("EPERM".into())),
    ];
    (an_endpoint(), saw).prop_map(|(endpoint, saw)| Event::Traffic { endpoint, saw })
}

fn configuration() -> impl Strategy<Value = Event> {
    let source = prop::sample::select(vec![Source::Local, Source::Static, Source::External]);
    let one = (an_endpoint(), source, any::<bool>())
        .prop_map(|(endpoint, source, by_name)| Configured { by_name, ..configured(endpoint, source) });
    vec(one, 0..5).prop_map(Event::Configured)
}

fn trust_changed() -> impl Strategy<Value = Event> {
    let worth = prop::sample::select(vec![
        Reverified::Verified,
        Reverified::Verified,
        Reverified::Rejected("another CA".into()),
        Reverified::Unverified,
    ]);
    vec((an_endpoint(), worth), 0..12).prop_map(|worth| Event::TrustChanged(worth.into_iter().collect()))
}

fn gossip(largest: u32) -> impl Strategy<Value = Event> {
    let cached =
        (an_endpoint(), prop::option::of(a_node()), a_duration()).prop_map(|(endpoint, node, age)| cached(endpoint, node, age));
    prop_oneof![
        6 => a_hostile_record(),
        1 => (0..largest).prop_map(Event::ClusterSize),
        1 => a_node().prop_map(Event::Forgotten),
        1 => a_node().prop_map(|node| Event::Removed { node }),
        2 => vec(an_endpoint(), 0..6)
            .prop_map(|failing| Event::PeerReports { failing: failing.iter().map(|endpoint| endpoint.tag()).collect() }),
        1 => vec((an_endpoint(), a_duration()), 0..6)
            .prop_map(|priors| Event::Priors(priors.into_iter().map(|(endpoint, rtt)| (endpoint.tag(), rtt)).collect())),
        1 => vec((an_endpoint(), any::<u32>()), 0..6)
            .prop_map(|loads| Event::Loads(loads.into_iter().map(|(endpoint, load)| (endpoint.tag(), load)).collect())),
        1 => (vec(cached, 0..9), 0..largest).prop_map(|(endpoints, cluster_size)| Event::Cached { endpoints, cluster_size }),
    ]
}

/// `largest`: the size of cluster that a cache may speak of.
fn a_happening(largest: u32) -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => gossip(largest).prop_map(Happening::Tell),
        2 => traffic().prop_map(Happening::Tell),
        1 => configuration().prop_map(Happening::Tell),
        1 => trust_changed().prop_map(Happening::Tell),
        1 => (0..3_u32).prop_map(|clients| Happening::Tell(Event::Held(clients))),
        1 => (an_endpoint(), any::<u32>()).prop_map(|(endpoint, open)| Happening::Tell(Event::Connections { endpoint, open })),
        6 => (an_outcome(), prop::option::of(a_duration())).prop_map(|(outcome, rtt)| Happening::End(outcome, rtt)),
        2 => Just(Happening::AllAnswer),
        3 => (0..3_000_000_u64).prop_map(|micros| Happening::Pass(Duration::from_micros(micros))),
        1 => (0..100_u64).prop_map(|seconds| Happening::Pass(Duration::from_secs(seconds))),
    ]
}

/// A driver that does what it is told and checks after each event what must always hold.
struct Driver {
    engine: Engine,
    now: Moment,
    flying: Vec<(Moment, ProbeOrder)>,
    /// Endpoints that have shown the right certificate, and nothing to the contrary since.
    proven: BTreeSet<Endpoint>,
    configured: BTreeSet<Endpoint>,
    /// When traffic last found something else than TLS at an endpoint that nobody configured: older answers prove nothing.
    withdrawn: BTreeMap<Endpoint, Moment>,
    /// Endpoints whose last probe that says something found a process that hangs.
    hung: BTreeSet<Endpoint>,
}

impl Driver {
    fn new(seed: u64) -> Driver {
        let identity = Identity { name: "cp-1".into(), advertised: vec![apiserver(1)], seed };
        Driver {
            engine: Engine::new(identity),
            now: Moment::START,
            flying: Vec::new(),
            proven: BTreeSet::new(),
            configured: BTreeSet::new(),
            withdrawn: BTreeMap::new(),
            hung: BTreeSet::new(),
        }
    }

    fn live_through(&mut self, happening: Happening) {
        match happening {
            Happening::Tell(event) => self.tell(event),
            Happening::Pass(span) => self.pass(span),
            Happening::End(outcome, rtt) if !self.flying.is_empty() => self.end(0, outcome, rtt),
            Happening::End(..) => {}
            Happening::AllAnswer => {
                for answer in 0.. {
                    assert!(answer < 1000, "answers at one moment ask for ever more probes");
                    if self.flying.is_empty() {
                        break;
                    }
                    self.end(0, Outcome::Status { code: 200, expired: false }, Some(ms(1)));
                }
                assert!(self.proven.is_empty() || !self.engine.routing().upstreams.is_empty());
            }
        }
    }

    fn tell(&mut self, event: Event) {
        if let Event::Configured(all) = &event {
            self.configured = all.iter().map(|one| one.endpoint).collect();
        }
        if let Event::TrustChanged(worth) = &event {
            self.proven.retain(|endpoint| worth.get(endpoint) == Some(&Reverified::Verified));
            for endpoint in self.engine.endpoints.keys().filter(|endpoint| worth.get(endpoint) != Some(&Reverified::Verified)) {
                self.withdrawn.insert(*endpoint, self.now);
            }
        }
        if let Event::Traffic { endpoint, saw: Saw::NotTls } = &event
            && !self.configured.contains(endpoint)
            && self.proven.remove(endpoint)
        {
            self.withdrawn.insert(*endpoint, self.now);
        }
        let before: BTreeSet<Endpoint> = self.engine.routing().upstreams.iter().map(|upstream| upstream.endpoint).collect();
        let rejected: BTreeSet<Endpoint> = match &event {
            Event::TrustChanged(worth) => worth
                .iter()
                .filter(|(_, worth)| matches!(worth, Reverified::Rejected(_)))
                .map(|(endpoint, _)| *endpoint)
                .collect(),
            _ => BTreeSet::new(),
        };
        for effect in self.engine.handle(self.now, event) {
            match effect {
                Effect::Reset { endpoint, reason: ResetReason::TrustWithdrawn, silent_since, .. } => {
                    assert!(rejected.contains(&endpoint) && silent_since.is_none(), "only a rejected certificate resets all");
                }
                Effect::Probe(order) => {
                    self.flying.retain(|(_, other)| other.endpoint != order.endpoint);
                    self.flying.push((self.now, order));
                }
                Effect::Reset { endpoint, reason, silent_since, .. } => {
                    assert_eq!(reason, ResetReason::Hung);
                    let since = silent_since.expect("what has received something since is spared");
                    assert!(self.now.since(since) >= policy::HUNG_RESET_AFTER, "too soon");
                    assert_eq!(self.verdict(endpoint), Some(Verdict::Down), "only what is down is reset");
                    assert!(self.hung.contains(&endpoint), "its last probe found a process that hangs");
                }
                Effect::Notice(Notice::Left { endpoint, .. }) => {
                    assert!(!self.proven.remove(&endpoint) || !self.proven.is_empty(), "the last proven one left");
                }
                Effect::Publish { say, .. } => assert!(say.observations.len() <= policy::OBSERVATIONS),
                _ => {}
            }
        }
        self.check(&before);
    }

    fn verdict(&self, endpoint: Endpoint) -> Option<Verdict> {
        self.engine.endpoints.get(&endpoint).map(|known| known.health.verdict())
    }

    fn check(&self, before: &BTreeSet<Endpoint>) {
        let known = self.engine.endpoints.len();
        assert!(known <= policy::ENDPOINTS + self.configured.len(), "{known} endpoints");
        for upstream in &self.engine.routing().upstreams {
            let may = self.proven.contains(&upstream.endpoint) || self.configured.contains(&upstream.endpoint);
            assert!(may, "{} carries, and nobody but gossip ever spoke for it", upstream.endpoint);
            assert!(upstream.weight >= 1 && upstream.weight <= 1400);
        }
        // What was there may go only when it was disproven or a person took it away unproven.
        let emptied = !before.is_empty() && self.engine.routing().upstreams.is_empty();
        assert!(!emptied || before.iter().all(|endpoint| !self.proven.contains(endpoint)), "nothing is left of {before:?}");
    }

    fn end(&mut self, which: usize, outcome: Outcome, rtt: Option<Duration>) {
        let (sent, order) = self.flying.remove(which);
        let known = self.verdict(order.endpoint).is_some();
        let stale = self.withdrawn.get(&order.endpoint).is_some_and(|then| sent < *then);
        if !matches!(outcome, Outcome::LocalError(_) | Outcome::Stale) {
            self.hung.remove(&order.endpoint);
        }
        match &outcome {
            Outcome::Status { code: 200 | 401 | 403 | 429 | 500 | 503, .. } if known && !stale => {
                self.proven.insert(order.endpoint);
            }
            Outcome::AnswerTimedOut if order.fresh && known && !stale && !self.is_late(sent, &order) => {
                self.proven.insert(order.endpoint);
            }
            Outcome::HandshakeTimedOut { hung: true } => {
                self.hung.insert(order.endpoint);
            }
            Outcome::Untrusted(_) | Outcome::WrongName(_) | Outcome::Unverified { .. } => {
                self.proven.remove(&order.endpoint);
            }
            Outcome::NotTls if !self.configured.contains(&order.endpoint) => {
                self.proven.remove(&order.endpoint);
            }
            _ => {}
        }
        let probed = Probed {
            id: order.id,
            endpoint: order.endpoint,
            sent,
            fresh: order.fresh,
            rtt,
            handshake: rtt,
            hello_bytes: if order.fresh { HELLO_BYTES } else { 0 },
            outcome,
        };
        self.tell(Event::Probed(probed));
    }

    /// A time-out that is told so late that this process was asleep says nothing.
    fn is_late(&self, sent: Moment, order: &ProbeOrder) -> bool {
        self.now.since(sent) > order.limits.total() + policy::STALE_TIMEOUT
    }

    /// Wakes the engine as often as it asks for; a busy loop would never end.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..2_000 {
            let Some(due) = self.engine.next_deadline().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.tell(Event::Wake);
            assert!(self.engine.next_deadline().is_none_or(|due| due > self.now), "it asks to be woken at once, again and again");
        }
        self.now = end;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn no_story_panics_grows_spins_or_leaves_nothing_where_something_was(seed in any::<u64>(), story in vec(a_happening(u32::MAX), 1..80)) {
        let mut driver = Driver::new(seed);
        for happening in story {
            driver.live_through(happening);
        }
    }

    #[test]
    fn every_event_survives_being_written_and_read(event in gossip(u32::MAX)) {
        let written = serde_json::to_string(&event).unwrap();
        prop_assert_eq!(serde_json::from_str::<Event>(&written).unwrap(), event);
    }

    #[test]
    fn an_honest_world_heals_whatever_was_told_before(seed in any::<u64>(), story in vec(a_happening(200), 1..60)) {
        let mut driver = Driver::new(seed);
        for happening in story {
            driver.live_through(happening);
        }
        driver.tell(Event::Held(0));
        driver.tell(Event::Configured(vec![configured(apiserver(5), Source::Static)]));
        for _ in 0..3_000 {
            driver.pass(ms(100));
            driver.live_through(Happening::AllAnswer);
        }
        prop_assert_eq!(driver.verdict(apiserver(5)), Some(Verdict::Ready));
    }
}
