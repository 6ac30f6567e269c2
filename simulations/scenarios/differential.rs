//! Clients with and without prismesh, side by side.

use std::collections::BTreeSet;

use crate::sim::plan::{Cluster, Fault, Plan, Step, who};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::{Class as Packets, Mode, Ms};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "differential",
    story: "Watches, uploads, long requests and kept connections, each of them twice: once through prismesh, and once directly to the \
            endpoint that prismesh chose for the other. Two to six things go wrong with apiservers and the ways to them, also at the \
            same time. Whatever the direct client survives, the other one survives too.",
    class: Class::Quick,
    plan,
    holds: |_: &Ran| Vec::new(),
    errors: &[],
};

/// Things go wrong from here on, and have ended by there.
const FROM: Ms = 10_000;
const TO: Ms = 75_000;

fn plan(cast: &Cast) -> Plan {
    let mut cluster = cast.cluster_at_work(&[1, 2, 3, 5]);
    cluster.twins = true;
    // Kubelets and fresh clients are other stories'.
    cluster.fresh_every = 2_000;
    let faults = cast.count("faults", 2, 6);
    let mut taken = BTreeSet::new();
    let steps = (0..faults).filter_map(|round| one(cast, &cluster, round, &mut taken)).collect();
    Plan { cluster, steps, lasts: 88_000 }
}

/// Two things at one apiserver at the same time would leave open what ends when.
fn one(cast: &Cast, cluster: &Cluster, round: usize, taken: &mut BTreeSet<String>) -> Option<Step> {
    let name = |what: &str| format!("{what} {round}");
    let of = cast.control_plane(cluster, &name("who"));
    let at = cast.moment(&name("when"), FROM, 40_000);
    let most = cast.draw.one_of(&name("about how long"), &[600, 3_000, 35_000]);
    let lasts = cast.moment(&name("for how long"), 200, most);
    let what = match cast.draw.number(&name("what"), 0, 12) {
        0 => Fault::Partition { from: who(of), to: Vec::new(), both: false, class: Some(Packets::Api) },
        1 => Fault::Partition { from: others(cluster, &of), to: who(of.clone()), both: false, class: Some(Packets::Api) },
        2 => Fault::SegmentHole { from: others(cluster, &of), to: who(of.clone()), bytes: 1_400 },
        3 => Fault::Loss { of: who(of), share: cast.draw.number(&name("lost"), 1, 5) as f64 / 100.0 },
        4 => Fault::Latency { of: who(of), to: Vec::new(), ms: cast.draw.one_of(&name("farther"), &[10, 50, 200]) },
        5 if taken.insert(of.clone()) => {
            let serves_on = lasts.max(1_000);
            return Some(Step { at, lasts: Some(serves_on + 2_000), what: Fault::GracefulStop { of: who(of), serves_on } });
        }
        6 if taken.is_empty() => {
            taken.extend((1..=cluster.nodes.len()).map(|number| format!("cp-{number}")));
            Fault::Apiserver { of: who("cp-*"), mode: Mode::EtcdFrozen }
        }
        _ if taken.insert(of.clone()) => Fault::Apiserver { of: who(of), mode: cast.draw.one_of(&name("mode"), MODES) },
        _ => return None,
    };
    Some(Step { at, lasts: Some(lasts.min(TO - at)), what })
}

const MODES: &[Mode] = &[
    Mode::Refusing,
    Mode::Hung,
    Mode::Hung,
    Mode::Slow(700),
    Mode::Draining,
    Mode::Overloaded,
    Mode::LateReadyz(300, 4_000),
    Mode::LateReadyz(60_000, 60_000),
    Mode::NotReading,
    Mode::QueueFull,
];

fn others(cluster: &Cluster, of: &str) -> Vec<String> {
    let all = Plan { cluster: cluster.clone(), steps: Vec::new(), lasts: 0 }.names();
    all.into_iter().filter(|name| name != of).collect()
}
