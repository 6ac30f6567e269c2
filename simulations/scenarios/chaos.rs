//! Several things go wrong at the same time.

use std::collections::BTreeSet;

use crate::sim::plan::{Cluster, Fault, Plan, Who, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, nobody_failed, served};
use crate::sim::state::{Class as Packets, Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "chaos",
    story: "Three to eight things go wrong, of whatever kind, at the same time or while others last: apiservers, machines, agents, \
            the balancer, DNS, the network, clocks. Then all is healed, and everybody agrees again.",
    class: Class::Quick,
    plan: |cast: &Cast| chaos(cast, Span { begins: 12_000, over: 12_000, shortest: 1_000, longest: 20_000, lasts: 85_000 }),
    holds: all_is_well_again,
    errors: &[],
};

/// When things go wrong, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) begins: Ms,
    pub(super) over: Ms,
    pub(super) shortest: Ms,
    pub(super) longest: Ms,
    pub(super) lasts: Ms,
}

pub(super) fn chaos(cast: &Cast, span: Span) -> Plan {
    let mut cluster = cast.cluster(&[2, 3, 5]);
    cluster.balancer = cast.draw.chance("there is a balancer", 0.5).then_some(0);
    cluster.by_name = cast.draw.chance("it is known by name", 0.5);
    let count = cast.count("faults", 3, 8);
    let mut hit = BTreeSet::new();
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: span.lasts };
    for round in 0..count {
        let Some(fault) = drawn(cast, &plan.cluster, round, &mut hit) else { continue };
        let at = span.begins + cast.moment(&format!("when {round}"), 0, span.over);
        let lasts = cast.moment(&format!("for how long {round}"), span.shortest, span.longest);
        plan = plan.fault(at, lasts, fault);
    }
    plan
}

/// The kinds of faults.
const KINDS: u64 = 19;

/// One fault. What befalls a machine itself befalls each once at most: of two that overlap nobody could say what ends when.
fn drawn(cast: &Cast, cluster: &Cluster, round: usize, hit: &mut BTreeSet<String>) -> Option<Fault> {
    let named = |what: &str| format!("{what} {round}");
    let number = |what: &str, from, to| cast.draw.number(&named(what), from, to);
    let plane = || cast.control_plane(cluster, &named("which control plane"));
    let anybody = || cast.anybody(cluster, &named("who"));
    let some = || some_of(cast, cluster, &named("some"));
    let mut once = |name: String| hit.insert(name.clone()).then(|| who(name));
    let kind = number("kind", 0, KINDS - 1);
    Some(match kind {
        0..=2 => Fault::Apiserver { of: once(plane())?, mode: cast.draw.one_of(&named("does"), MODES) },
        3 => Fault::Drain { of: once(plane())? },
        4 => Fault::Flap { of: once(plane())?, period: number("period", 2_000, 6_000) },
        5 => Fault::Machine { of: once(anybody())? },
        6 => Fault::Stall { of: once(anybody())? },
        7 => Fault::AgentKilled { of: once(anybody())? },
        8 => Fault::AgentRestart { of: once(anybody())? },
        9 => {
            cluster.balancer?;
            Fault::Balancer { mode: cast.draw.one_of(&named("the balancer"), &[Mode::Refusing, Mode::Dropping, Mode::Hung]) }
        }
        10 => Fault::Dns { silent: cast.draw.chance(&named("silent"), 0.5) },
        11 | 12 => Fault::Partition {
            from: some(),
            to: Vec::new(),
            both: cast.draw.chance(&named("both ways"), 0.5),
            class: cast.draw.one_of(&named("which packets"), &[None, Some(Packets::Api), Some(Packets::Gossip)]),
        },
        13 => Fault::Loss { of: some(), share: number("per cent", 1, 50) as f64 / 100.0 },
        14 => Fault::Latency { of: some(), to: Vec::new(), ms: u32::try_from(number("ms", 1, 80)).unwrap_or(1) },
        15 => Fault::Disorder { of: some(), share: number("per cent out of order", 5, 50) as f64 / 100.0 },
        16 => Fault::Mtu { of: some(), bytes: cast.draw.one_of(&named("bytes"), &[1_000, 1_280, 1_400]) },
        17 => Fault::Jitter { of: some(), share: number("per cent of jitter", 10, 90) as f64 / 100.0 },
        _ => Fault::ClockJump { of: some(), by: cast.draw.one_of(&named("by"), &[-18_000_000, -5_000, 5_000, 18_000_000]) },
    })
}

/// What apiservers do.
const MODES: &[Mode] = &[
    Mode::Refusing,
    Mode::Dropping,
    Mode::Hung,
    Mode::Slow(200),
    Mode::Slow(700),
    Mode::Draining,
    Mode::Overloaded,
    Mode::WrongCertificate,
    Mode::NotTls,
];

/// One node, a few of them, or a zone.
fn some_of(cast: &Cast, cluster: &Cluster, name: &str) -> Who {
    let names = Plan { cluster: cluster.clone(), steps: Vec::new(), lasts: 0 }.names();
    let count = cast.draw.number(&format!("{name}: how many"), 1, names.len() as u64 / 2);
    let places = cast.draw.several(name, usize::try_from(count).unwrap_or(1), names.len());
    places.into_iter().map(|place| names[place].clone()).collect()
}

/// Some time after the last thing was healed everybody is served, and nobody fails any more.
pub(super) fn all_is_well_again(ran: &Ran) -> Vec<String> {
    let healed = ran.last_step() + 15_000;
    let mut broken = nobody_failed(ran, &everyone(ran), healed, ran.ended);
    broken.extend(served(ran, &everyone(ran), healed, ran.ended));
    broken
}
