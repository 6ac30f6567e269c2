//! Ways to spoil an agent, to see that each invariant can fail: an invariant that nothing breaks says nothing.
//!
//! Each stands between an agent and its engine and drops, delays or forges one kind of event, effect or routing, or is a setting no
//! person may write. Nothing of it is in the agent.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use prismesh::engine::event::{Notice, Outcome, Probed, Saw, Verdict};
use prismesh::engine::{Effect, Endpoint, Event, Moment, Routing, Source, Upstream};

use super::watched::Spoil;

mod resets;
mod stale;
mod trusting;
mod weak;

use resets::{ResetsAtRandom, ResetsSuspects, ResetsWhatHears};
use stale::{BelievesEachAnswer, Nervous, Stubborn};

/// One way to spoil an agent.
#[derive(Clone, Copy, Debug)]
pub struct Sabotage {
    /// Its name.
    pub name: &'static str,
    /// The invariant that it is meant to break; 0: it wants to hang the simulation itself.
    pub aims_at: u8,
    /// A scenario in which that shows, and with which seed.
    pub shows_in: (&'static str, u64),
    /// What it does, in words.
    pub what: &'static str,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// Changes what passes.
    Spoils(fn() -> Box<dyn Spoil>),
    /// Connections at most.
    MostConnections(usize),
    /// The kernel's user time-out counts a closed window as silence.
    ClosedWindowsAreSilent,
}

impl Sabotage {
    /// What spoils one agent's engine.
    pub fn spoil(&self) -> Option<Box<dyn Spoil>> {
        match self.how {
            How::Spoils(make) => Some(make()),
            How::MostConnections(_) | How::ClosedWindowsAreSilent => None,
        }
    }

    /// A closed window is told as data that nothing acknowledges.
    pub fn closed_windows_are_silent(&self) -> bool {
        matches!(self.how, How::ClosedWindowsAreSilent)
    }

    /// Connections at most, where that is what is wrong.
    pub fn most_connections(&self) -> Option<usize> {
        match self.how {
            How::Spoils(_) | How::ClosedWindowsAreSilent => None,
            How::MostConnections(most) => Some(most),
        }
    }
}

/// The sabotage of this name.
pub fn find(name: &str) -> Option<&'static Sabotage> {
    ALL.iter().chain([&WITHOUT_REPORTS]).find(|sabotage| sabotage.name == name)
}

const fn spoils(
    name: &'static str,
    aims_at: u8,
    shows_in: (&'static str, u64),
    what: &'static str,
    make: fn() -> Box<dyn Spoil>,
) -> Sabotage {
    Sabotage { name, aims_at, shows_in, what, how: How::Spoils(make) }
}

/// All of them: two or more for each invariant, and one for the watch over the simulation itself.
pub const ALL: &[Sabotage] = &[
    Sabotage {
        name: "one-connection",
        aims_at: 1,
        shows_in: ("calm", 1),
        what: "the agent takes one connection at most",
        how: How::MostConnections(1),
    },
    spoils("one-upstream", 1, ("apiserver-drops", 1), "the proxy is told of one upstream only, and never of another", || {
        Box::new(OneUpstream::default())
    }),
    spoils("no-second-dial", 2, ("apiserver-drops", 1), "the second dial begins after ten seconds", || {
        Box::new(Routes(|routing| each(routing, |upstream| upstream.second_dial = Duration::from_secs(10))))
    }),
    spoils("no-first-byte-delay", 2, ("apiserver-hangs", 1), "a silent upstream is waited for half a minute", || {
        Box::new(Routes(|routing| each(routing, |upstream| upstream.first_byte = Duration::from_secs(30))))
    }),
    spoils("believes-probes", 3, ("apiserver-replaced-by-something-else", 1), "every failed probe counts as an answer", || {
        Box::new(Events(|event| {
            if let Event::Probed(probed) = event {
                probed.outcome = Outcome::Status { code: 200, expired: false };
            }
        }))
    }),
    spoils("believes-gossip", 3, ("workers-start-first", 1), "what gossip names is used before it has proven itself", || {
        Box::new(BelievesGossip::default())
    }),
    spoils(
        "believes-the-unsupported",
        3,
        ("certificate-unsupported", 1),
        "what cannot be checked for want of an algorithm is believed",
        || Box::new(Events(trusting::believes_the_unsupported)),
    ),
    spoils("believes-without-ca", 3, ("ca-file-lost", 1), "while the CA's file is missing everybody is believed", || {
        Box::new(Events(trusting::believes_without_ca))
    }),
    spoils("allows-all", 3, ("allow-narrowed", 1), "the engine is not told which networks are allowed", || {
        Box::new(Swallows(|event| matches!(event, Event::Allowed(_))))
    }),
    spoils("forgets-its-listeners", 3, ("own-listener-is-named", 1), "the engine is not told where its agent listens", || {
        Box::new(Swallows(|event| matches!(event, Event::OwnListeners(_))))
    }),
    spoils("resets-at-random", 4, ("calm", 1), "the best upstream's quiet connections are reset every ten seconds", || {
        Box::new(ResetsAtRandom::default())
    }),
    spoils("resets-suspects", 4, ("apiserver-pauses", 1), "whatever is suspected is reset at once", || Box::new(ResetsSuspects)),
    spoils("late-is-hung", 4, ("readyz-late", 5), "an answer of /readyz that comes too late is told as a hang", || {
        Box::new(Events(weak::late_is_hung))
    }),
    spoils("refused-is-hung", 4, ("apiserver-closes-its-port", 3), "a refusal is told as a hang", || {
        Box::new(Events(weak::refused_is_hung))
    }),
    spoils("undialled-is-hung", 4, ("apiserver-queue-full", 3), "a dial that nothing answers is told as a hang", || {
        Box::new(Events(weak::undialled_is_hung))
    }),
    spoils(
        "resets-what-hears",
        4,
        ("apiserver-without-descriptors", 2),
        "for a hang all is reset, whatever has received something",
        || Box::new(ResetsWhatHears),
    ),
    Sabotage {
        name: "closed-window-is-silent",
        aims_at: 4,
        shows_in: ("apiserver-does-not-read", 1),
        what: "a closed window counts as silence, as it does with the kernel's user time-out",
        how: How::ClosedWindowsAreSilent,
    },
    spoils(
        "rejects-what-was",
        4,
        ("ca-replaced-in-three-steps", 1),
        "with each new file of the CA all that was verified is rejected",
        || Box::new(Events(trusting::rejects_what_was)),
    ),
    spoils("never-resets", 5, ("apiserver-hangs", 1), "nothing is ever reset because it hangs", || {
        Box::new(Effects(|effect| !matches!(effect, Effect::Reset { .. })))
    }),
    spoils(
        "slow-to-learn",
        5,
        ("apiserver-hangs", 1),
        "failed probes are told twelve seconds late",
        || Box::new(Late::default()),
    ),
    spoils("deaf", 6, ("an-hour-of-noise", 1), "what members say is not heard", || {
        Box::new(Swallows(|event| matches!(event, Event::Record(_))))
    }),
    spoils("empties", 6, ("apiserver-crashes", 2), "the routing is emptied when an endpoint is down", || Box::new(Empties)),
    spoils("blind-to-errno", 6, ("path-forbidden", 1), "what the kernel forbids is held against nothing", || {
        Box::new(Events(|event| match event {
            Event::Probed(Probed { outcome: outcome @ Outcome::Unreachable(_), .. }) => {
                *outcome = Outcome::LocalError("not tried".to_owned());
            }
            Event::Traffic { saw: saw @ Saw::Unreachable(_), .. } => *saw = Saw::LocalError("not tried".to_owned()),
            _ => {}
        }))
    }),
    spoils("far-is-near", 7, ("zone-80-ms-away", 1), "round trips are told upside down", || {
        Box::new(Events(|event| {
            if let Event::Probed(Probed { rtt: Some(rtt), .. }) = event {
                *rtt = Duration::from_millis(200).saturating_sub(*rtt);
            }
        }))
    }),
    spoils("all-alike", 7, ("zone-80-ms-away", 1), "all upstreams are equally good", || {
        Box::new(Routes(|routing| each(routing, |upstream| upstream.group = 0)))
    }),
    spoils("nervous", 8, ("an-hour-of-noise", 1), "every second round trip is told tenfold", || Box::new(Nervous::default())),
    spoils("stubborn", 8, ("from-10-to-30-ms", 1), "round trips are not told after the first ones", || {
        Box::new(Stubborn::default())
    }),
    spoils(
        "believes-each-answer",
        8,
        ("balancer-name-takes-turns", 1),
        "only one of a name's addresses is told, each time another one",
        || Box::new(BelievesEachAnswer::default()),
    ),
    spoils("small-hellos-pass", 8, ("long-segments-vanish", 1), "a probe's hello arrives where clients' are swallowed", || {
        Box::new(Events(weak::small_hellos_pass))
    }),
    spoils("favourite", 9, ("busy", 1), "all prefer the same upstream", || {
        Box::new(Routes(|routing| {
            let first = routing.upstreams.iter().map(|upstream| upstream.endpoint).min();
            each(routing, |upstream| upstream.weight = if Some(upstream.endpoint) == first { 1_000 } else { 1 });
        }))
    }),
    spoils(
        "least-loaded",
        9,
        ("busy", 1),
        "all choose the one that had the fewest connections when they heard of it last",
        || {
            Box::new(Routes(|routing| {
                let lightest = routing
                    .upstreams
                    .iter()
                    .filter(|upstream| upstream.group == 0)
                    .map(|upstream| (upstream.weight, upstream.endpoint))
                    .max();
                each(routing, |upstream| {
                    upstream.weight = if Some(upstream.endpoint) == lightest.map(|(_, endpoint)| endpoint) { 1_000 } else { 1 }
                });
            }))
        },
    ),
    spoils("probes-thrice", 10, ("calm", 1), "each probe is made twelve times", || Box::new(Multiplies)),
    spoils("alone", 10, ("many-see-one-fail", 1), "each node thinks that it is alone, and probes as if it were", || {
        Box::new(Events(|event| match event {
            Event::ClusterSize(nodes) => *nodes = 1,
            Event::Cached { cluster_size, .. } => *cluster_size = 1,
            _ => {}
        }))
    }),
    spoils("gives-up", 11, ("apiserver-hangs-for-a-minute", 1), "after a quarter of a minute nothing is routed any more", || {
        Box::new(GivesUp)
    }),
    spoils(
        "never-resets-leases",
        11,
        ("apiserver-hangs-for-a-minute", 1),
        "nothing is ever reset, so that a kubelet waits for its own time-out",
        || Box::new(Effects(|effect| !matches!(effect, Effect::Reset { .. }))),
    ),
    spoils("resets-suspects-of-twins", 12, ("differential", 1), "whatever is suspected is reset at once", || {
        Box::new(ResetsSuspects)
    }),
    spoils("resets-refused-twins", 12, ("differential", 2), "a refusal is told as a hang", || {
        Box::new(Events(weak::refused_is_hung))
    }),
    spoils("never-rests", 0, ("calm", 1), "after some seconds the agent is asked to go on at once, again and again", || {
        Box::new(NeverRests::default())
    }),
];

/// No sabotage in earnest: what nodes say of others' endpoints is not heard, to see what it is worth.
pub const WITHOUT_REPORTS: Sabotage = spoils("without-reports", 0, ("calm", 1), "what members measured is not heard", || {
    Box::new(Events(|event| match event {
        Event::PeerReports { failing } => failing.clear(),
        Event::Priors(priors) => priors.clear(),
        _ => {}
    }))
});

fn each(routing: &mut Routing, change: impl FnMut(&mut Upstream)) {
    routing.upstreams.iter_mut().for_each(change);
}

/// Changes events.
struct Events(fn(&mut Event));

impl Spoil for Events {
    fn event(&mut self, _: Moment, mut event: Event) -> Vec<Event> {
        (self.0)(&mut event);
        vec![event]
    }
}

/// Drops events.
struct Swallows(fn(&Event) -> bool);

impl Spoil for Swallows {
    fn event(&mut self, _: Moment, event: Event) -> Vec<Event> {
        if (self.0)(&event) { Vec::new() } else { vec![event] }
    }
}

/// Keeps only some effects.
struct Effects(fn(&Effect) -> bool);

impl Spoil for Effects {
    fn effects(&mut self, _: Moment, mut effects: Vec<Effect>) -> Vec<Effect> {
        effects.retain(self.0);
        effects
    }
}

/// Changes routings.
struct Routes(fn(&mut Routing));

impl Spoil for Routes {
    fn effects(&mut self, _: Moment, mut effects: Vec<Effect>) -> Vec<Effect> {
        for effect in &mut effects {
            if let Effect::Route(routing) = effect {
                (self.0)(routing);
            }
        }
        effects
    }
}

/// The first upstream that ever was best is all there is.
#[derive(Default)]
struct OneUpstream(Option<Endpoint>);

impl Spoil for OneUpstream {
    fn effects(&mut self, _: Moment, mut effects: Vec<Effect>) -> Vec<Effect> {
        for effect in &mut effects {
            if let Effect::Route(routing) = effect {
                let ready = routing.upstreams.iter().find(|upstream| upstream.verdict == Verdict::Ready);
                let only = *self.0.get_or_insert(match ready {
                    Some(ready) => ready.endpoint,
                    None => continue,
                });
                routing.upstreams.retain(|upstream| upstream.endpoint == only);
            }
        }
        effects
    }
}

/// Whatever a record names is an upstream.
#[derive(Default)]
struct BelievesGossip(BTreeSet<SocketAddr>);

impl Spoil for BelievesGossip {
    fn event(&mut self, _: Moment, event: Event) -> Vec<Event> {
        if let Event::Record(record) = &event {
            self.0.extend(record.endpoints.iter().map(|endpoint| endpoint.addr()));
        }
        vec![event]
    }

    fn effects(&mut self, _: Moment, mut effects: Vec<Effect>) -> Vec<Effect> {
        if effects.iter().any(|effect| matches!(effect, Effect::Notice(Notice::Learnt { .. }))) {
            if !effects.iter().any(|effect| matches!(effect, Effect::Route(_))) {
                effects.push(Effect::Route(Routing::default()));
            }
            // Whoever is held is let go to it.
            effects.push(Effect::Release);
        }
        for effect in &mut effects {
            if let Effect::Route(routing) = effect {
                let known: BTreeSet<SocketAddr> = routing.upstreams.iter().map(|upstream| upstream.endpoint.addr()).collect();
                routing.upstreams.extend(self.0.difference(&known).map(|addr| hearsay(*addr)));
            }
        }
        effects
    }
}

fn hearsay(addr: SocketAddr) -> Upstream {
    Upstream {
        endpoint: addr.into(),
        verdict: Verdict::Ready,
        group: 0,
        weight: 1_000,
        rtt: None,
        second_dial: Duration::from_millis(250),
        dial_stay: Duration::from_secs(2),
        first_byte: Duration::from_secs(2),
        sources: vec![Source::Member],
    }
}

/// Tells of failed probes late.
#[derive(Default)]
struct Late(VecDeque<(Moment, Event)>);

impl Spoil for Late {
    fn event(&mut self, now: Moment, event: Event) -> Vec<Event> {
        let mut events = Vec::new();
        while self.0.front().is_some_and(|(at, _)| *at <= now) {
            events.extend(self.0.pop_front().map(|(_, event)| event));
        }
        let failed = matches!(
            &event,
            Event::Probed(Probed {
                outcome: Outcome::DialTimedOut | Outcome::HandshakeTimedOut { .. } | Outcome::AnswerTimedOut | Outcome::Refused,
                ..
            })
        );
        if failed {
            self.0.push_back((now + Duration::from_secs(12), event));
        } else {
            events.push(event);
        }
        events
    }

    fn due(&self) -> Option<Moment> {
        self.0.front().map(|(at, _)| *at)
    }
}

/// Empties the routing when something is down.
struct Empties;

impl Spoil for Empties {
    fn effects(&mut self, _: Moment, mut effects: Vec<Effect>) -> Vec<Effect> {
        for effect in &mut effects {
            if let Effect::Route(routing) = effect
                && routing.upstreams.iter().any(|upstream| upstream.verdict == Verdict::Down)
            {
                routing.upstreams.clear();
            }
        }
        effects
    }
}

/// Makes each probe many times.
struct Multiplies;

impl Spoil for Multiplies {
    fn effects(&mut self, _: Moment, effects: Vec<Effect>) -> Vec<Effect> {
        let times = |effect: &Effect| if matches!(effect, Effect::Probe(_)) { 12 } else { 1 };
        effects.into_iter().flat_map(|effect| std::iter::repeat_n(effect.clone(), times(&effect))).collect()
    }
}

/// Routes nothing after a while.
struct GivesUp;

impl Spoil for GivesUp {
    fn effects(&mut self, now: Moment, mut effects: Vec<Effect>) -> Vec<Effect> {
        if now > Moment::START + Duration::from_secs(15) {
            effects.retain(|effect| !matches!(effect, Effect::Route(_) | Effect::Release));
            effects.push(Effect::Route(Routing::default()));
        }
        effects
    }
}

/// Has always something to do, and never does it.
#[derive(Default)]
struct NeverRests(Option<Moment>);

impl Spoil for NeverRests {
    fn event(&mut self, now: Moment, event: Event) -> Vec<Event> {
        self.0.get_or_insert(now + Duration::from_secs(5));
        vec![event]
    }

    fn due(&self) -> Option<Moment> {
        self.0
    }
}
