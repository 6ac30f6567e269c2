//! What stands beside the scenarios: baselines, growth, peers' reports, calibration.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::charts;
use super::gather::{Gathered, carrier};
use super::{figures, table};
use crate::sim::measure::calibration::LEFT_OUT;
use crate::sim::measure::limits::{self, Limit, NAMED};
use crate::sim::measure::reports::ENOUGH;
use crate::sim::outcome::{Carrier, Outcome};
use crate::sim::spread::{self, Spread, more_is_worse};
use crate::sim::waits::Waits;
use crate::sim::words::{count, label, number, span};

fn named(figure: &str) -> Markup {
    let (words, unit) = label(figure);
    html! { (words) @if !unit.is_empty() { " (" (unit) ")" } }
}

/// The same stories and seeds, carried by others.
pub(super) fn baselines(all: &Gathered) -> anyhow::Result<Markup> {
    if all.baselines.is_empty() {
        return Ok(html! { p.none { "Not in these results." } });
    }
    let key = |outcome: &Outcome| (outcome.scenario.clone(), outcome.seed);
    let played: BTreeSet<_> = all.baselines.iter().map(key).collect();
    let mut by: BTreeMap<Carrier, Vec<&Outcome>> = BTreeMap::new();
    for outcome in all.outcomes.iter().filter(|outcome| played.contains(&key(outcome))).chain(&all.baselines) {
        by.entry(outcome.by).or_default().push(outcome);
    }
    let by: Vec<(Carrier, Vec<&Outcome>)> = by.into_iter().collect();
    let plot = figures(&charts::carriers(&by).into_iter().collect::<Vec<_>>())?;
    let scenarios: BTreeSet<&str> = all.baselines.iter().map(|outcome| outcome.scenario.as_str()).collect();
    let most = by.iter().flat_map(|(_, runs)| shares(runs)).fold(0.0, f64::max);
    let mut rows = Vec::new();
    for scenario in std::iter::once(None).chain(scenarios.into_iter().map(Some)) {
        for (place, (carried_by, runs)) in by.iter().enumerate() {
            let runs: Vec<&Outcome> =
                runs.iter().copied().filter(|outcome| scenario.is_none_or(|name| name == outcome.scenario)).collect();
            if !runs.is_empty() {
                let first = if place == 0 { scenario.unwrap_or("all of them") } else { "" };
                rows.push(carried(first, *carried_by, &runs, most));
            }
        }
    }
    Ok(html! {
        p {
            "The same clusters, clients, faults and seeds with something else in prismesh's place: the external balancer alone, and a "
            strong { "model of the rules that KubePrism publishes" } ", which is not KubePrism: " (UNMODELLED)
        }
        p {
            "Quantiles are those of all connections; one without an answer has waited for ever. Stories whose faults are the agents' own "
            "(" code { "agent-*" } ", " code { "agents-*" } ") do not touch the others, which have no agents."
        }
        (plot)
        (table(&["scenario", "carried by", "connections", "without an answer", "share", "p50", "p99", "slowest answered", "oldest lease (s)"], &rows))
    })
}

/// What the model of KubePrism's rules lacks.
const UNMODELLED: &str = "it knows of every apiserver at once, which is in its favour, and the kernel's user time-out of 30 s is not \
                          modelled, which is not.";

/// The share of connections without an answer, scenario by scenario.
fn shares(runs: &[&Outcome]) -> Vec<f64> {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for outcome in runs {
        let (asked, failed) = sums.entry(&outcome.scenario).or_default();
        *asked += outcome.figures.get("connections").copied().unwrap_or(0.0);
        *failed += outcome.figures.get("connections_failed").copied().unwrap_or(0.0);
    }
    sums.into_values().map(|(asked, failed)| failed / asked.max(1.0)).collect()
}

/// A row; its bar is as long as its share is of the greatest.
fn carried(scenario: &str, by: Carrier, runs: &[&Outcome], greatest: f64) -> Vec<Markup> {
    let sum = |name: &str| runs.iter().filter_map(|outcome| outcome.figures.get(name)).sum::<f64>();
    let most = |name: &str| runs.iter().filter_map(|outcome| outcome.figures.get(name)).copied().reduce(f64::max);
    let (asked, failed) = (sum("connections"), sum("connections_failed"));
    let share = failed / asked.max(1.0);
    let waits = Waits::of(runs.iter().copied());
    let bar = 100.0 * share / greatest.max(f64::MIN_POSITIVE);
    let or_none = |value: Option<f64>, tell: fn(f64) -> String| value.map_or_else(|| "–".to_owned(), tell);
    vec![
        html! { @if !scenario.is_empty() { b { (scenario) } } },
        html! { (carrier(by)) },
        html! { (number(asked)) },
        html! { (if failed > 0.0 { number(failed) } else { "none".to_owned() }) },
        html! { span.bar { i style={ "width:" (format!("{bar:.1}")) "%" } {} } (format!("{:.2}%", share * 100.0)) },
        html! { (waits.told(0.5)) },
        html! { (waits.told(0.99)) },
        html! { (or_none(most("first_byte_slowest_ms"), span)) },
        html! { (or_none(most("lease_age_oldest_s"), number)) },
    ]
}

/// What a cluster costs, and how fast it learns, by its size.
pub(super) fn growth(all: &Gathered) -> anyhow::Result<Markup> {
    if all.growth.is_empty() {
        return Ok(html! { p.none { "Not in these results." } });
    }
    let grown = charts::grown(&all.growth);
    let plotted = NAMED.iter().filter_map(|named| Some((named, grown.get(named.figure).filter(|points| points.len() > 1)?)));
    let plots = figures(&plotted.map(|(named, points)| charts::growth(named, points)).collect::<Vec<_>>())?;
    let sizes: BTreeSet<usize> = all.growth.iter().map(|point| point.nodes).collect();
    let head: Vec<String> = std::iter::once("figure".to_owned())
        .chain(sizes.iter().map(|nodes| format!("{} nodes", number(*nodes as f64))))
        .collect();
    let row = |name: &&str| {
        let at = |nodes: usize| grown[name].iter().find(|(size, _)| *size == nodes).map(|(_, value)| *value);
        let cells = sizes.iter().map(|nodes| measured(at(*nodes), limits::limit(name, *nodes)));
        let words = match limits::words(name) {
            Some(known) => html! { b { (known.words) } " (" (known.unit) ")" },
            None => named(name),
        };
        std::iter::once(words).chain(cells).collect()
    };
    let rows: Vec<Vec<Markup>> = limits::ordered(&all.growth).iter().map(row).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    Ok(html! {
        p {
            "Dashed: what the figure may be at most; for speed, at least. Speed is also the machine's, and fails nobody. The worst of all stories "
            "counts: one worker in ten comes at once, an apiserver's process dies, a control plane's machine loses power, a new control plane "
            "comes, an apiserver drains; beyond 200 nodes only the first, the second and the fourth."
        }
        (plots)
        (table(&head, &rows))
    })
}

/// A figure beside its limit.
fn measured(value: Option<f64>, limit: Option<Limit>) -> Markup {
    let Some(value) = value else { return html! { "–" } };
    let Some(limit) = limit else { return html! { (number(value)) } };
    let class = match (limit.kept(value), limit.binds()) {
        (true, _) => "held",
        (false, true) => "broken",
        (false, false) => "partly",
    };
    let beside = format!("at {} {}", if limit.at_least { "least" } else { "most" }, number(limit.bound));
    html! { (number(value)) " " span.cell.(class) { (beside) } }
}

/// A cluster in which nodes hear what others report, and one in which they do not.
pub(super) fn reports(all: &Gathered) -> anyhow::Result<Markup> {
    if all.reports.is_empty() {
        return Ok(html! { p.none { "Not in these results." } });
    }
    let of = |heard: bool| all.reports.iter().filter(move |run| run.heard == heard);
    let names = spread::spreads(all.reports.iter().map(|run| &run.figures));
    let (mut plots, mut rows) = (Vec::new(), Vec::new());
    for name in names.keys() {
        let values = |heard| of(heard).filter_map(|run| run.figures.get(*name).copied()).collect::<Vec<f64>>();
        let (with, without) = (values(true), values(false));
        let spreads = (Spread::of(with.iter().copied()), Spread::of(without.iter().copied()));
        if let (Some(heard), Some(not)) = spreads {
            let range = |spread: &Spread| format!("{} ({} to {})", number(spread.p50), number(spread.least), number(spread.most));
            rows.push(vec![
                named(name),
                html! { (range(&heard)) },
                html! { (range(&not)) },
                html! { (worth(name, &heard, &not)) },
            ]);
            plots.push(charts::reports(name, &with, &without));
        }
    }
    Ok(html! {
        p { "Medians, and from the least to the most, over " (count(of(true).count(), "seed")) " with reports and " (count(of(false).count(), "seed")) " without." }
        (figures(&plots)?)
        (table(&["figure", "with reports", "without", "so they"], &rows))
    })
}

/// Whether reports earn their keep, by one figure: medians are apart by more than the middle half of the seeds.
fn worth(name: &str, heard: &Spread, not: &Spread) -> &'static str {
    if (heard.runs.min(not.runs) as u64) < ENOUGH {
        return "too few seeds to tell";
    }
    let apart = heard.p50 - not.p50;
    if apart.abs() <= heard.middle().max(not.middle()).max(1e-9) {
        return "change nothing beyond the spread of seeds";
    }
    match (more_is_worse(name), apart < 0.0) {
        (false, _) => "change it",
        (true, true) => "help",
        (true, false) => "cost",
    }
}

/// The fault table on real sockets and in the model.
pub(super) fn calibration(all: &Gathered) -> Markup {
    if all.calibration.is_empty() {
        return html! { p.none { "Not in these results." } };
    }
    let mut rows = Vec::new();
    for row in &all.calibration {
        let names: BTreeSet<&String> = row.real.keys().chain(row.model.keys()).collect();
        for (place, name) in names.into_iter().enumerate() {
            let (real, model) = (row.real.get(name), row.model.get(name));
            let tell = |value: Option<&f64>| value.map_or_else(|| "–".to_owned(), |value| number(*value));
            let ratio = row.ratio(name).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
            rows.push(vec![
                html! { @if place == 0 { b { (row.row) } } },
                named(name),
                html! { (tell(real)) },
                html! { (tell(model)) },
                html! { (ratio) },
            ]);
        }
    }
    html! {
        p { "The agent's fault table, on real sockets of this machine and in the model. Ratio: model over real." }
        p.none { (LEFT_OUT) }
        (table(&["fault", "figure", "real sockets", "model", "ratio"], &rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_help_only_beyond_the_spread_of_seeds() {
        let of = |values: &[f64]| Spread::of(values.iter().copied()).unwrap();
        let (fast, slow) = (of(&[1.0, 2.0, 3.0, 2.0, 2.0]), of(&[10.0, 11.0, 12.0, 11.0, 11.0]));
        assert_eq!(worth("near_after_ms", &fast, &slow), "help");
        assert_eq!(worth("near_after_ms", &slow, &fast), "cost");
        assert_eq!(worth("near_after_ms", &of(&[1.0, 5.0, 9.0, 15.0, 20.0]), &slow), "change nothing beyond the spread of seeds");
        assert_eq!(worth("share", &fast, &slow), "change it");
        assert_eq!(worth("near_after_ms", &of(&[1.0, 2.0]), &slow), "too few seeds to tell");
    }
}
