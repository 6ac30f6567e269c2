//! What came of one run, as it is written to files and read again by `sweep`, `compare` and `report`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::happens;
use super::invariants;
use super::run::Ran;
use super::scenario::Scenario;
use super::state::Ms;

/// How people start this program.
pub const PROGRAM: &str = "cargo run --release -p simulations --";

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which story.
    pub scenario: String,
    /// With which seed.
    pub seed: u64,
    /// What follows [`PROGRAM`] in the command that plays exactly this again, as a shell takes it.
    #[serde(default)]
    pub again: String,
    /// Its cluster came from a file, so that its name is that file's.
    #[serde(default)]
    pub from_file: bool,
    /// What carried the clients' traffic.
    #[serde(default)]
    pub by: Carrier,
    /// Nodes, and how many of them are control planes.
    pub nodes: usize,
    /// Control planes among them.
    pub control_planes: usize,
    /// How long it lasted, in virtual ms.
    pub virtual_ms: Ms,
    /// The hash of all that happened.
    pub hash: String,
    /// Events that engines were told.
    pub engine_steps: u64,
    /// Datagrams that were sent.
    pub datagrams: u64,
    /// Their bytes, without headers.
    pub datagram_bytes: u64,
    /// The most that ever waited.
    pub peaks: Peaks,
    /// What happened, step by step.
    #[serde(default)]
    pub steps: Vec<Happened>,
    /// What was found, invariant by invariant.
    pub invariants: Vec<Judged>,
    /// What did not hold of what the story promises.
    pub broken_promises: Vec<String>,
    /// ERRORs and panics that the story does not name.
    pub complaints: Vec<String>,
    /// What was left when all had stopped.
    pub leftovers: Vec<String>,
    /// Named numbers; the unit is the end of the name.
    pub figures: BTreeMap<String, f64>,
    /// What happened over time, for plots.
    pub timelines: Timelines,
    /// How many connections waited so many ms for their first byte; from 100 ms on rounded up to two digits.
    #[serde(default)]
    pub waits: BTreeMap<Ms, u64>,
    /// How what nodes know followed what was true.
    #[serde(default)]
    pub learned: Vec<Learned>,
}

/// The most that ever waited somewhere. What grows without end shows here before it shows anywhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peaks {
    /// Things due in the world.
    pub things_due: usize,
    /// Open connections.
    pub connections: usize,
    /// Datagrams in one socket.
    pub datagrams: usize,
}

/// A step of the story, in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happened {
    /// When, in virtual ms.
    pub at: Ms,
    /// When it was over; [`None`]: it was over at once, or never.
    pub until: Option<Ms>,
    /// What.
    pub what: String,
}

/// An apiserver came or went, and one node after the other took notice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Learned {
    /// What happened.
    pub what: Turn,
    /// At whose apiserver.
    pub whose: String,
    /// When, in virtual ms.
    pub at: Ms,
    /// The nodes that were in service all the time until its next turn.
    pub nodes: usize,
    /// How long it took each that came to know, in ms, ascending.
    pub after_ms: Vec<Ms>,
}

/// What becomes of an apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// It serves, and it did not before.
    Came,
    /// It serves no longer.
    Went,
}

/// What carries the traffic of a node's clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// prismesh, as it ships.
    #[default]
    Prismesh,
    /// The external balancer alone.
    Balancer,
    /// A model of what KubePrism publishes as its rules; not KubePrism itself.
    KubeprismModel,
}

/// What became of one invariant in one run, or of one of its two halves where both have to be exercised.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judged {
    /// Its number, 1 to 12.
    pub number: u8,
    /// Its name, the half's where it has two.
    pub name: String,
    /// How often it was looked at where it could have been broken; 0: not exercised.
    pub evaluated: u64,
    /// How often it was broken.
    pub broken: u64,
    /// The first of them.
    pub first: Vec<Broken>,
}

/// One breach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Broken {
    /// When, in virtual ms.
    pub at: Ms,
    /// What, in words.
    pub what: String,
}

/// What happened over time, a value each [`Timelines::step_ms`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timelines {
    /// The width of one step.
    pub step_ms: Ms,
    /// New connections answered, by upstream.
    pub answered_by: BTreeMap<String, Vec<u32>>,
    /// Connections that ended without an answer although their client had not given up.
    pub failed: Vec<u32>,
    /// The slowest first byte, in ms.
    pub slowest_ms: Vec<u32>,
    /// Nodes whose lease is older than 40 s.
    pub not_ready: Vec<u32>,
    /// The oldest lease of all nodes that are up, in s.
    #[serde(default)]
    pub lease_age_s: Vec<u32>,
    /// Faults in force.
    pub faults: Vec<u32>,
}

impl Outcome {
    /// Judges a run.
    pub fn of(scenario: &Scenario, ran: &Ran) -> Outcome {
        let named = |complaint: &&String| !scenario.errors.iter().any(|error| complaint.contains(error));
        Outcome {
            scenario: scenario.name.to_owned(),
            seed: ran.seed,
            again: String::new(),
            from_file: false,
            by: ran.by,
            nodes: ran.names.len(),
            control_planes: ran.plan.control_planes(),
            virtual_ms: ran.ended,
            hash: ran.hash.clone(),
            engine_steps: ran.steps,
            datagrams: ran.datagrams.0,
            datagram_bytes: ran.datagrams.1,
            peaks: Peaks { things_due: ran.peaks[0], connections: ran.peaks[1], datagrams: ran.peaks[2] },
            steps: ran.plan.steps.iter().map(happens::told).collect(),
            invariants: invariants::judge(ran),
            broken_promises: (scenario.holds)(ran),
            complaints: ran.complaints.iter().filter(named).cloned().collect(),
            leftovers: ran.leftovers.clone(),
            figures: super::figures::of(ran),
            timelines: super::timelines::of(ran),
            waits: super::figures::waits(ran),
            learned: super::learned::of(ran),
        }
    }

    /// A run of which nothing can be said but that it did not come to its end.
    pub fn fallen(scenario: &str, seed: u64, complaints: Vec<String>) -> Outcome {
        Outcome {
            scenario: scenario.to_owned(),
            seed,
            again: String::new(),
            from_file: false,
            by: Carrier::Prismesh,
            nodes: 0,
            control_planes: 0,
            virtual_ms: 0,
            hash: String::new(),
            engine_steps: 0,
            datagrams: 0,
            datagram_bytes: 0,
            peaks: Peaks::default(),
            steps: Vec::new(),
            invariants: Vec::new(),
            broken_promises: Vec::new(),
            complaints,
            leftovers: Vec::new(),
            figures: BTreeMap::new(),
            timelines: Timelines::default(),
            waits: BTreeMap::new(),
            learned: Vec::new(),
        }
    }

    /// What a person types to play exactly this again.
    pub fn command(&self) -> String {
        if self.again.is_empty() {
            return format!("{PROGRAM} run {} --seed {}", self.scenario, self.seed);
        }
        format!("{PROGRAM} {}", self.again)
    }

    /// What was broken, a line each: of every invariant the first breach.
    pub fn failures(&self) -> Vec<String> {
        let invariants = self.invariants.iter().filter(|judged| judged.broken > 0).map(|judged| {
            let first = judged.first.first();
            let (at, what) = first.map_or((0, ""), |first| (first.at, first.what.as_str()));
            format!("at {at} ms: invariant {}, {}: {what} ({} in all)", judged.number, judged.name, judged.broken)
        });
        let others =
            [("promise", &self.broken_promises), ("complaint", &self.complaints), ("left over at the end", &self.leftovers)];
        let others = others.into_iter().filter_map(|(what, list)| {
            let more = if list.len() > 1 { format!(" ({} in all)", list.len()) } else { String::new() };
            Some(format!("{what}: {}{more}", list.first()?))
        });
        invariants.chain(others).collect()
    }

    /// The kinds of what was broken: `invariant 4`, `promise`, `complaint`, `left over`.
    pub fn broken_kinds(&self) -> Vec<String> {
        let broken = self.invariants.iter().filter(|judged| judged.broken > 0);
        let invariants = broken.map(|judged| format!("invariant {}", judged.number));
        let others = [("promise", &self.broken_promises), ("complaint", &self.complaints), ("left over", &self.leftovers)];
        let others = others.into_iter().filter(|(_, list)| !list.is_empty()).map(|(kind, _)| kind.to_owned());
        invariants.chain(others).collect()
    }

    /// Nothing was broken.
    pub fn passed(&self) -> bool {
        self.invariants.iter().all(|judged| judged.broken == 0)
            && self.broken_promises.is_empty()
            && self.complaints.is_empty()
            && self.leftovers.is_empty()
    }
}
