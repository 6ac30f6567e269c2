//! The same stories and seeds with something else in prismesh's place.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pool::{self, Job};
use super::sweep::chance;
use super::table::Table;
use crate::sim::outcome::{Carrier, Outcome};
use crate::sim::waits::Waits;

/// What they are called on the command line and in tables.
const OTHERS: [(Carrier, &str); 2] = [(Carrier::Balancer, "balancer"), (Carrier::KubeprismModel, "kubeprism-model")];

/// Plays these again, carried by others.
pub(super) fn play(jobs: &[Job], at_once: usize, wall: Duration) -> anyhow::Result<Vec<Outcome>> {
    let by = |(_, name): &(Carrier, &str)| {
        let name = (*name).to_owned();
        jobs.iter().map(move |job| {
            let mut job = job.clone();
            job.arguments.extend(["--by".to_owned(), name.clone()]);
            job
        })
    };
    let jobs: Vec<Job> = OTHERS.iter().flat_map(by).collect();
    let mut played = BTreeMap::new();
    let each = jobs.len() / OTHERS.len();
    pool::play_all(&jobs, at_once, wall, |place, it| {
        // One that fell could not say what carried it.
        let by = OTHERS[place / each.max(1)].0;
        played.insert(place, Outcome { by, ..it.outcome });
    })?;
    Ok(played.into_values().collect())
}

/// Prints what clients had of each.
pub(super) fn tell(outcomes: &[Outcome], baselines: &[Outcome]) {
    let mut table = Table::new(&[
        "carried by",
        "runs",
        "connections",
        "failed",
        "share",
        "p50",
        "p99",
        "slowest answered ms",
        "oldest lease s",
    ]);
    for (by, name) in [(Carrier::Prismesh, "prismesh")].into_iter().chain(OTHERS) {
        let runs: Vec<&Outcome> = outcomes.iter().chain(baselines).filter(|outcome| outcome.by == by).collect();
        let figure = |name: &'static str| runs.iter().filter_map(move |outcome| outcome.figures.get(name).copied());
        let (asked, failed) = (figure("connections").sum::<f64>(), figure("connections_failed").sum::<f64>());
        let most = |name: &'static str| figure(name).fold(0.0, f64::max);
        let waits = Waits::of(runs.iter().copied());
        table.row(vec![
            name.to_owned(),
            runs.len().to_string(),
            format!("{asked:.0}"),
            format!("{failed:.0}"),
            format!("{:.3}%", 100.0 * failed / asked.max(1.0)),
            waits.told(0.5),
            waits.told(0.99),
            format!("{:.0}", most("first_byte_slowest_ms")),
            format!("{:.0}", most("lease_age_oldest_s")),
        ]);
    }
    for line in table.lines() {
        say!("{line}");
    }
    let failed = outcomes.iter().filter(|outcome| outcome.figures.get("connections_failed").is_some_and(|count| *count > 0.0));
    say!("runs of prismesh in which a connection failed: {}", chance(failed.count(), outcomes.len()));
    say!("p50 and p99 are those of all connections: one without an answer has waited for ever");
    say!("stories whose faults are the agents' own (agent-*, agents-*) do not touch the others, which have no agents");
    say!("kubeprism-model is a model of the rules that KubePrism publishes, not KubePrism; its user time-out is not modelled");
}
