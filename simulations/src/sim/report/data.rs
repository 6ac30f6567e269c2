//! Everything the page shows, as data, for whoever trusts a plot as little as we do.

use std::collections::BTreeMap;

use maud::{Markup, PreEscaped, html};
use serde_json::{Value, json};

use super::gather::{Chapter, Gathered};
use super::table;
use crate::sim::outcome::Outcome;
use crate::sim::spread;
use crate::sim::words::{label, number};

pub(super) fn section(all: &Gathered, chapters: &[Chapter]) -> anyhow::Result<Markup> {
    let data = whole(all, chapters)?;
    Ok(html! {
        p {
            "Every run's invariants, figures and waits, and the timelines that are drawn: "
            button type="button" data-save="prismesh-simulations.json" { "Save as JSON" }
            " It stands in this page, in the element " code { "script#results" } "."
        }
        details { summary { "Key figures of all scenarios (p50 and most, over seeds)" } (all_figures(chapters)) }
        script type="application/json" id="results" { (PreEscaped(data)) }
    })
}

/// JSON that cannot end the element it stands in.
fn whole(all: &Gathered, chapters: &[Chapter]) -> anyhow::Result<String> {
    let shown: BTreeMap<&str, u64> = chapters.iter().map(|chapter| (chapter.name, chapter.worst().seed)).collect();
    let run = |outcome: &Outcome| -> anyhow::Result<Value> {
        let mut value = serde_json::to_value(outcome)?;
        if shown.get(outcome.scenario.as_str()) != Some(&outcome.seed)
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("timelines");
        }
        Ok(value)
    };
    let runs = |outcomes: &[Outcome]| outcomes.iter().map(run).collect::<anyhow::Result<Vec<Value>>>();
    let scenarios = chapters.iter().map(|chapter| {
        json!({
            "name": chapter.name,
            "story": chapter.scenario.map(|scenario| scenario.story),
            "runs": chapter.runs.len(),
            "failed": chapter.failed(),
            "figures": spread::figures(chapter.runs.iter().copied()),
        })
    });
    let value = json!({
        "builds": all.builds.iter().map(|(build, _)| build).collect::<Vec<_>>(),
        "scenarios": scenarios.collect::<Vec<_>>(),
        "runs": runs(&all.outcomes)?,
        "baselines": runs(&all.baselines)?,
        "growth": all.growth,
        "reports": all.reports,
        "matrix": all.matrix,
        "calibration": all.calibration,
    });
    Ok(serde_json::to_string(&value)?.replace('<', "\\u003c"))
}

fn all_figures(chapters: &[Chapter]) -> Markup {
    let by_chapter: Vec<_> =
        chapters.iter().map(|chapter| (chapter.name, spread::figures(chapter.runs.iter().copied()))).collect();
    let mut names: Vec<&str> = by_chapter.iter().flat_map(|(_, figures)| figures.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    let head: Vec<String> = names
        .iter()
        .map(|name| {
            let (words, unit) = label(name);
            if unit.is_empty() { words } else { format!("{words} ({unit})") }
        })
        .collect();
    let head: Vec<&str> = std::iter::once("scenario").chain(head.iter().map(String::as_str)).collect();
    let rows: Vec<Vec<Markup>> = by_chapter
        .iter()
        .map(|(chapter, figures)| {
            let cell = |name: &&str| match figures.get(name) {
                Some(spread) if spread.p50 == spread.most => html! { (number(spread.p50)) },
                Some(spread) => html! { (number(spread.p50)) " / " (number(spread.most)) },
                None => html! { "–" },
            };
            std::iter::once(html! { (chapter) }).chain(names.iter().map(cell)).collect()
        })
        .collect();
    table(&head, &rows)
}
