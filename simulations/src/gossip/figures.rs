//! The figures, their goals, and how they are printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    /// An idle worker sends, in whole IPv4 datagrams.
    WorkerSent,
    /// The same in packets.
    WorkerPackets,
    /// The mean size of these packets.
    WorkerPacketSize,
    /// A core member sends, in whole IPv4 datagrams.
    CoreSent,
    /// The same in packets.
    CorePackets,
    /// An idle agent without gossip uses.
    OffCpu,
    /// An idle worker's agent uses.
    WorkerCpu,
    /// A core member's agent uses.
    CoreCpu,
    /// Memory of an agent without gossip, shared pages by share.
    OffPss,
    /// Memory of a worker's agent, shared pages by share.
    WorkerPss,
    /// Memory of a worker's agent, shared pages in full.
    WorkerRss,
    /// Memory of a core member's agent, shared pages by share.
    CorePss,
    /// Memory of a core member's agent, shared pages in full.
    CoreRss,
    /// A new worker whose seed is a core member knows the records of all core members: median.
    JoinByCore,
    /// The same, the slowest.
    JoinByCoreSlowest,
    /// A new worker whose seed is a worker knows the records of all core members: median.
    JoinByWorker,
    /// The same, the slowest.
    JoinByWorkerSlowest,
    /// The last node knows that a core member leaves.
    Leaving,
    /// The last node knows that an apiserver drains, after the agent of its own node.
    Draining,
    /// The last of the other core members knows that the agent of a core member was killed.
    CrashCore,
    /// The last node knows it.
    Crash,
}

impl Figure {
    /// All of them, in the order of the table.
    const ALL: [Figure; 21] = [
        Figure::WorkerSent,
        Figure::WorkerPackets,
        Figure::WorkerPacketSize,
        Figure::CoreSent,
        Figure::CorePackets,
        Figure::OffCpu,
        Figure::WorkerCpu,
        Figure::CoreCpu,
        Figure::OffPss,
        Figure::WorkerPss,
        Figure::WorkerRss,
        Figure::CorePss,
        Figure::CoreRss,
        Figure::JoinByCore,
        Figure::JoinByCoreSlowest,
        Figure::JoinByWorker,
        Figure::JoinByWorkerSlowest,
        Figure::Leaving,
        Figure::Draining,
        Figure::CrashCore,
        Figure::Crash,
    ];

    /// What it is, and its unit.
    fn described(self) -> (&'static str, &'static str) {
        match self {
            Figure::WorkerSent => ("worker, idle, sends", "B/s"),
            Figure::WorkerPackets => ("worker, idle, sends", "packets/s"),
            Figure::WorkerPacketSize => ("worker, idle, mean packet", "B"),
            Figure::CoreSent => ("core member, sends", "kB/s"),
            Figure::CorePackets => ("core member, sends", "packets/s"),
            Figure::OffCpu => ("agent with gossip off, idle, CPU", "% of a core"),
            Figure::WorkerCpu => ("worker, idle, CPU", "% of a core"),
            Figure::CoreCpu => ("core member, CPU", "% of a core"),
            Figure::OffPss => ("agent with gossip off, PSS", "MB"),
            Figure::WorkerPss => ("worker, PSS", "MB"),
            Figure::WorkerRss => ("worker, RSS", "MB"),
            Figure::CorePss => ("core member, PSS", "MB"),
            Figure::CoreRss => ("core member, RSS", "MB"),
            Figure::JoinByCore => ("new worker knows all core members, seed is one of them, median", "ms"),
            Figure::JoinByCoreSlowest => ("... slowest", "ms"),
            Figure::JoinByWorker => ("new worker knows all core members, seed is a worker, median", "ms"),
            Figure::JoinByWorkerSlowest => ("... slowest", "ms"),
            Figure::Leaving => ("core member leaves, known on the last node", "ms"),
            Figure::Draining => ("apiserver drains, known on the last node after its own", "ms"),
            Figure::CrashCore => ("core member's agent is killed, known on the last core member", "ms"),
            Figure::Crash => ("... on the last node", "ms"),
        }
    }
}

/// What one kind of agent showed.
pub(super) type Measured = BTreeMap<Figure, f64>;

/// How and where it was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Conditions {
    /// Agents.
    pub(super) nodes: u8,
    /// Those of them that are core members.
    pub(super) core: u8,
    /// How long idle agents were measured.
    pub(super) seconds: f64,
    /// Whether this build is optimised.
    pub(super) optimised: bool,
    /// The machine's cores.
    pub(super) cores: usize,
    /// The machine's load average before the first agent was started.
    pub(super) load_average: f64,
}

/// What else is worth knowing of one kind of agent's run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Check {
    /// Cores that processes outside the measurement used meanwhile, apiservers of the lab included.
    pub(super) others_cores: f64,
    /// UDP datagrams a second of the whole network, by its kernel.
    pub(super) kernel_udp_per_second: f64,
    /// The same by the agents' own counters, where they have some.
    pub(super) agents_udp_per_second: Option<f64>,
    /// IP bytes a second of all protocols in the whole network, probes included.
    pub(super) network_bytes_per_second: f64,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) conditions: Conditions,
    pub(super) prismesh: Measured,
    pub(super) check: Check,
    pub(super) serf: Option<(Measured, Check)>,
}

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    figure: Figure,
    what: &'static str,
    unit: &'static str,
    /// At most this.
    goal: Option<f64>,
    prismesh: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serf: Option<f64>,
}

#[derive(Serialize)]
struct Json<'a> {
    conditions: &'a Conditions,
    prismesh_check: Check,
    #[serde(skip_serializing_if = "Option::is_none")]
    serf_check: Option<Check>,
    figures: Vec<Row>,
}

impl Report {
    /// For programs.
    pub(super) fn json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(&Json {
            conditions: &self.conditions,
            prismesh_check: self.check,
            serf_check: self.serf.as_ref().map(|(_, check)| *check),
            figures: self.rows(),
        })
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let rows = self.rows();
        let head = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
        let mut text = String::new();
        let serf = if self.serf.is_some() { format!(" | {:>9}", "serf") } else { String::new() };
        let _ = writeln!(text, "{:head$} | {:11} | {:>9} | {:>9}{serf}", "figure", "unit", "at most", "prismesh");
        let _ = writeln!(text, "{}", "-".repeat(head + 38 + serf.len()));
        for row in &rows {
            let serf = if self.serf.is_some() { format!(" | {:>9}", number(row.serf)) } else { String::new() };
            let Row { what, unit, .. } = row;
            let missed = if row.prismesh.zip(row.goal).is_some_and(|(is, goal)| is > goal) { "  missed" } else { "" };
            let (goal, prismesh) = (number(row.goal), number(row.prismesh));
            let _ = writeln!(text, "{what:head$} | {unit:11} | {goal:>9} | {prismesh:>9}{serf}{missed}");
        }
        let _ = writeln!(text, "\n{}", self.conditions.told());
        let _ = writeln!(text, "prismesh: {}", self.check.told());
        if let Some((_, check)) = &self.serf {
            let _ = writeln!(text, "serf: {}", check.told());
        }
        text
    }

    fn rows(&self) -> Vec<Row> {
        let row = |figure: Figure| {
            let (what, unit) = figure.described();
            let serf = self.serf.as_ref().and_then(|(serf, _)| serf.get(&figure).copied());
            let prismesh = self.prismesh.get(&figure).copied();
            Row { figure, what, unit, goal: self.goal(figure), prismesh, serf }
        };
        Figure::ALL.into_iter().map(row).collect()
    }

    /// The goal of a figure in a cluster of this size; [`None`] where there is none.
    fn goal(&self, figure: Figure) -> Option<f64> {
        let Conditions { nodes, core, .. } = self.conditions;
        match figure {
            Figure::WorkerSent => (core <= 5).then_some(140.0),
            Figure::CoreSent => core_goal(nodes, core),
            // What it is with gossip off, and 0.03% of a core.
            Figure::WorkerCpu => self.prismesh.get(&Figure::OffCpu).map(|off| off + 0.03),
            Figure::CoreCpu => Some(3.0),
            Figure::JoinByCore | Figure::JoinByCoreSlowest => Some(100.0),
            Figure::JoinByWorker | Figure::JoinByWorkerSlowest => Some(200.0),
            // One network delay beside it, of which loopback has none.
            Figure::Leaving | Figure::Draining => Some(100.0),
            Figure::Crash => (core >= 3).then_some(2_000.0),
            _ => None,
        }
    }
}

/// Goals in kB/s are set for 50 and 1,000 nodes. Between them they grow as the number of Reports does that a core member answers, and
/// below 50 nodes the first one holds.
fn core_goal(nodes: u8, core: u8) -> Option<f64> {
    let (at_50, at_1000) = match core {
        ..=3 => (8.0, 36.0),
        4..=5 => (13.0, 45.0),
        _ => return None,
    };
    // The period of `src/gossip/reporter.rs`.
    let reports = |nodes: f64| nodes / (nodes / 125.0).max(f64::from(core) * 4.0 / 3.0).max(4.0);
    let (now, least, most) = (reports(f64::from(nodes)), reports(50.0), reports(1_000.0));
    Some(at_50 + (at_1000 - at_50) * (now - least).max(0.0) / (most - least))
}

impl Conditions {
    fn told(&self) -> String {
        let Conditions { nodes, core, seconds, optimised, cores, load_average } = self;
        let build = if *optimised { "optimised build" } else { "build without optimisation: times and CPU mean little" };
        format!(
            "{nodes} nodes, {core} of them core members; idle for {seconds:.0} s; {build}; {cores} cores, load average {load_average:.1} \
             before the start"
        )
    }
}

impl Check {
    fn told(&self) -> String {
        let agents =
            self.agents_udp_per_second.map(|agents| format!(", by the agents' counters {agents:.1}")).unwrap_or_default();
        format!(
            "other processes used {:.2} cores meanwhile; UDP datagrams a second in all by the kernel {:.1}{agents}; IP bytes a second in \
             all, probes included, {:.0}",
            self.others_cores, self.kernel_udp_per_second, self.network_bytes_per_second
        )
    }
}

/// Three digits that count.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 1.0 => format!("{value:.3}"),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_grow_with_the_cluster_and_with_its_core() {
        assert_eq!(core_goal(5, 3), Some(8.0));
        assert_eq!(core_goal(50, 5), Some(13.0));
        assert_eq!(core_goal(150, 3), Some(8.0 + 28.0 * 25.0 / 112.5));
        assert_eq!(core_goal(50, 6), None);
    }

    #[test]
    fn each_figure_has_a_row_of_its_own() {
        let whats: std::collections::BTreeSet<_> = Figure::ALL.into_iter().collect();
        assert_eq!(whats.len(), Figure::ALL.len());
    }
}
