//! What a trial is made of: drawn from a seed and the trial's number, so that one trial can be played again alone.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use serde::Serialize;

use crate::lab::netns::Way;

/// Apiservers of a trial.
pub const APISERVERS: usize = 3;
/// Faults begin in this time, in milliseconds after the trial's begin.
const FAULTS_BEGIN: RangeInclusive<u64> = 1_000..=14_000;
/// How many faults a trial has.
const FAULTS: RangeInclusive<usize> = 2..=6;
/// Pairs of each kind in a trial.
const PAIRS_OF_A_KIND: usize = 2;
/// One pair in so many begins while things break.
const LATE_ONE_IN: u32 = 4;
/// A fault that finds no place beside the others is drawn anew so often.
const TRIES: usize = 20;

/// Which servers a trial runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// The lab's own.
    Lab,
    /// Kubernetes' own.
    Kubernetes,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            World::Lab => "lab",
            World::Kubernetes => "kubernetes",
        })
    }
}

/// What a pair of clients does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A watch on which nothing happens.
    QuietWatch,
    /// A watch with events, five a second.
    EventWatch,
    /// One request whose answer takes long.
    LongRequest,
    /// A large request.
    Upload,
    /// A large answer, read slowly through small windows.
    SlowList,
    /// Bytes both ways, as `kubectl exec` has them.
    Exec,
    /// Short requests, one after the other, on one connection.
    ShortRequests,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] =
        [Kind::QuietWatch, Kind::EventWatch, Kind::LongRequest, Kind::Upload, Kind::SlowList, Kind::Exec, Kind::ShortRequests];

    /// Those that servers of a world can serve.
    pub fn of(world: World) -> impl Iterator<Item = Kind> {
        // What Kubernetes publishes as a library has no pods.
        Kind::ALL.into_iter().filter(move |kind| world == World::Lab || *kind != Kind::Exec)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::QuietWatch => "quiet watch",
            Kind::EventWatch => "event watch",
            Kind::LongRequest => "long request",
            Kind::Upload => "upload",
            Kind::SlowList => "slow list",
            Kind::Exec => "exec",
            Kind::ShortRequests => "short requests",
        })
    }
}

/// A pair of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What both do.
    pub kind: Kind,
    /// When they connect, after the trial's begin.
    pub begins: Duration,
    /// How long their exchange lasts where nothing disturbs it.
    pub lasts: Duration,
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Break {
    /// The process is stopped (SIGSTOP).
    Stop,
    /// It is killed, and started again when the fault ends.
    Kill,
    /// It is told to stop (SIGTERM) and closes its port; started again when it has ended and the fault as well.
    Graceful,
    /// Packets are lost one way.
    Drop(Way),
    /// Packets are lost both ways.
    DropBoth,
    /// `/readyz` is late.
    ReadyzLate(Duration),
    /// All other answers are late.
    AnswersLate(Duration),
    /// The port is closed; connections that are open are served.
    PortClosed,
    /// Nothing is read of requests and streams.
    ReadsNothing,
    /// etcd is stopped, behind all apiservers.
    EtcdFrozen,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Break::Stop => f.write_str("stopped"),
            Break::Kill => f.write_str("killed"),
            Break::Graceful => f.write_str("told to stop"),
            Break::Drop(Way::Towards) => f.write_str("packets towards it lost"),
            Break::Drop(Way::From) => f.write_str("packets from it lost"),
            Break::DropBoth => f.write_str("packets lost both ways"),
            Break::ReadyzLate(by) => write!(f, "readyz late by {by:?}"),
            Break::AnswersLate(by) => write!(f, "answers late by {by:?}"),
            Break::PortClosed => f.write_str("port closed, serves on"),
            Break::ReadsNothing => f.write_str("reads nothing"),
            Break::EtcdFrozen => f.write_str("etcd frozen"),
        }
    }
}

impl Break {
    /// Two faults with the same subject exclude each other on one apiserver.
    fn subject(self) -> u8 {
        match self {
            Break::Stop | Break::Kill | Break::Graceful => 0,
            Break::Drop(Way::Towards) => 1,
            Break::Drop(Way::From) => 2,
            Break::DropBoth => 3,
            Break::ReadyzLate(_) => 4,
            Break::AnswersLate(_) => 5,
            Break::PortClosed => 6,
            Break::ReadsNothing => 7,
            Break::EtcdFrozen => 8,
        }
    }

    /// Whether packets are dropped for it.
    pub fn drops(self) -> bool {
        matches!(self, Break::Drop(_) | Break::DropBoth)
    }
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What breaks.
    pub what: Break,
    /// On which apiservers.
    pub on: Vec<usize>,
    /// When, after the trial's begin.
    pub begins: Duration,
    /// How long.
    pub lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<String> = self.on.iter().map(|index| format!("api-{}", index + 1)).collect();
        let (from, to) = (self.begins.as_secs_f64(), (self.begins + self.lasts).as_secs_f64());
        write!(f, "{} {} {from:.2} to {to:.2} s", on.join(" "), self.what)
    }
}

/// A trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Its number, from 0.
    pub number: u64,
    /// Which servers it runs against.
    pub world: World,
    /// Its clients.
    pub pairs: Vec<Pair>,
    /// What breaks.
    pub faults: Vec<Fault>,
}

/// What can be had on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Possible {
    /// Packets can be dropped.
    pub drops: bool,
    /// There are real API servers.
    pub kubernetes: bool,
}

impl Trial {
    /// The trial of this seed and number.
    pub fn draw(seed: u64, number: u64, possible: Possible) -> Trial {
        // The numbers of one seed must not be the next seed's.
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
        // Drawn in any case, so that what is possible changes as little as it can.
        let real = random.random_ratio(1, 3);
        let world = if real && possible.kubernetes { World::Kubernetes } else { World::Lab };
        let mut trial = Trial { number, world, pairs: pairs(&mut random, world), faults: Vec::new() };
        for _ in 0..random.random_range(FAULTS) {
            let place = (0..TRIES).map(|_| fault(&mut random, world)).find(|fault| trial.has_room_for(fault, possible));
            trial.faults.extend(place);
        }
        trial.faults.sort_by_key(|fault| fault.begins);
        trial
    }

    fn has_room_for(&self, new: &Fault, possible: Possible) -> bool {
        let clashes = |old: &Fault| {
            let same = old.what.subject() == new.what.subject() && old.on.iter().any(|index| new.on.contains(index));
            same && old.begins <= new.begins + new.lasts && new.begins <= old.begins + old.lasts
        };
        (possible.drops || !new.what.drops()) && !self.faults.iter().any(clashes)
    }

    /// When the last fault is over.
    pub fn calm_from(&self) -> Duration {
        self.faults.iter().map(|fault| fault.begins + fault.lasts).max().unwrap_or_default()
    }
}

fn pairs(random: &mut StdRng, world: World) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for kind in Kind::of(world) {
        for _ in 0..PAIRS_OF_A_KIND {
            let late = random.random_ratio(1, LATE_ONE_IN) || kind == Kind::Upload;
            let begins = if late { millis(random, FAULTS_BEGIN) } else { millis(random, 0..=500) };
            let lasts = match kind {
                Kind::LongRequest => Duration::from_secs(20),
                // As fast as it can, or for a while.
                Kind::Upload => *[Duration::ZERO, Duration::from_secs(8)].choose(random).unwrap_or(&Duration::ZERO),
                _ => millis(random, 12_000..=20_000),
            };
            pairs.push(Pair { kind, begins, lasts });
        }
    }
    pairs
}

fn fault(random: &mut StdRng, world: World) -> Fault {
    let what = match world {
        World::Lab => lab_break(random),
        World::Kubernetes => kubernetes_break(random),
    };
    let lasts = match what {
        Break::Stop => short_or_long(random, 200..=2_900, 3_100..=12_000),
        Break::Drop(_) | Break::DropBoth => short_or_long(random, 200..=3_000, 3_000..=12_000),
        Break::Kill => millis(random, 100..=6_000),
        Break::ReadsNothing | Break::EtcdFrozen => millis(random, 1_000..=20_000),
        Break::ReadyzLate(_) | Break::AnswersLate(_) | Break::PortClosed | Break::Graceful => millis(random, 2_000..=15_000),
    };
    let all = what == Break::EtcdFrozen || (matches!(what, Break::ReadyzLate(_)) && random.random_ratio(1, 3));
    let several = random.random_ratio(1, 4);
    let mut on: Vec<usize> = (0..APISERVERS).collect();
    if !all {
        on = on.sample(random, if several { 2 } else { 1 }).copied().collect();
        on.sort_unstable();
    }
    Fault { what, on, begins: millis(random, FAULTS_BEGIN), lasts }
}

fn lab_break(random: &mut StdRng) -> Break {
    match random.random_range(0..10) {
        0 | 1 => Break::Stop,
        2 => Break::Kill,
        3 => Break::Drop(Way::Towards),
        4 => Break::Drop(Way::From),
        5 => Break::DropBoth,
        6 => Break::ReadyzLate(millis(random, 500..=60_000)),
        7 => Break::AnswersLate(millis(random, 100..=5_000)),
        8 => Break::PortClosed,
        _ => Break::ReadsNothing,
    }
}

fn kubernetes_break(random: &mut StdRng) -> Break {
    match random.random_range(0..9) {
        0 | 1 => Break::Stop,
        2 => Break::Kill,
        3 => Break::Drop(Way::Towards),
        4 => Break::Drop(Way::From),
        5 => Break::DropBoth,
        6 => Break::Graceful,
        _ => Break::EtcdFrozen,
    }
}

/// Mostly short: what lasts long is where a reset is wanted, and tells little.
fn short_or_long(random: &mut StdRng, short: RangeInclusive<u64>, long: RangeInclusive<u64>) -> Duration {
    if random.random_ratio(7, 10) { millis(random, short) } else { millis(random, long) }
}

fn millis(random: &mut impl Rng, range: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Possible = Possible { drops: true, kubernetes: true };

    #[test]
    fn a_seed_and_a_number_draw_the_same_trial_again() {
        for number in 0..20 {
            assert_eq!(Trial::draw(7, number, ALL), Trial::draw(7, number, ALL));
        }
        assert_ne!(Trial::draw(7, 1, ALL), Trial::draw(8, 0, ALL));
    }

    #[test]
    fn every_kind_of_client_and_of_fault_is_drawn() {
        let trials: Vec<Trial> = (0..200).map(|number| Trial::draw(1, number, ALL)).collect();
        for kind in Kind::ALL {
            assert!(trials.iter().any(|trial| trial.pairs.iter().any(|pair| pair.kind == kind)), "{kind}");
        }
        let breaks: std::collections::BTreeSet<u8> =
            trials.iter().flat_map(|trial| &trial.faults).map(|fault| fault.what.subject()).collect();
        assert_eq!(breaks.len(), 9, "{breaks:?}");
        assert!(trials.iter().any(|trial| trial.world == World::Kubernetes));
    }

    #[test]
    fn what_is_not_possible_is_not_drawn() {
        let less = Possible { drops: false, kubernetes: false };
        for trial in (0..200).map(|number| Trial::draw(1, number, less)) {
            assert_eq!(trial.world, World::Lab);
            assert!(!trial.faults.iter().any(|fault| fault.what.drops()), "{trial:?}");
        }
    }
}
