//! A scenario's chapter: its story, what became of each invariant, its plots and figures.

use maud::{Markup, html};

use super::gather::Chapter;
use super::matrices::told;
use super::{charts, figures, model, table};
use crate::sim::outcome::{Happened, Judged, Outcome};
use crate::sim::spread::{self, Spread};
use crate::sim::words::{count, label, number, span};

/// Steps told at once; the rest is there for whoever opens it.
const STEPS: usize = 10;

pub(super) fn intro(chapters: &[Chapter]) -> Markup {
    html! {
        @if chapters.is_empty() { p.none { "No runs." } } @else {
            p {
                "Plots over time show one run: of those that failed, or else of all, the one with the most connections without an answer and then the "
                "slowest first byte after the first 10 s. Grey ground: a fault is in force; which, stands above the plots. "
                button type="button" data-open="1" { "Open all" } " " button type="button" data-open="" { "Close all" }
            }
        }
    }
}

pub(super) fn section(chapter: &Chapter) -> anyhow::Result<Markup> {
    let failed = chapter.failed();
    let shown = chapter.worst();
    let plots = figures(&charts::of(chapter))?;
    let idle = chapter.invariants().iter().filter(|held| held.evaluated == 0).count();
    Ok(html! {
        details.scenario id={ "scenario-" (chapter.name) } open[failed > 0] {
            summary {
                h3 { (chapter.name) }
                @if failed > 0 { span.chip.broken { "✗ " (failed) " of " (chapter.runs.len()) " failed" } }
                @else { span.chip.held { "✓ " (count(chapter.runs.len(), "run")) } }
                @if idle > 0 { span.chip.idle { (idle) " not exercised" } }
                (glance(chapter))
            }
            p.story { (chapter.scenario.map_or("A cluster from a file, or a story that this build does not know.", |scenario| scenario.story)) }
            p.facts { (facts(chapter)) "; shown: seed " (shown.seed) ", " (count(shown.nodes, "node")) ", " (count(shown.control_planes, "control plane")) }
            @if failed > 0 { ul.broken { @for failure in shown.failures() { li { (failure) } } } }
            (happened(shown))
            (plots)
            (invariants(chapter))
            (numbers(chapter))
            (turns(chapter))
        }
    })
}

fn glance(chapter: &Chapter) -> Markup {
    let all = spread::figures(chapter.runs.iter().copied());
    let most = |figure: &str| all.get(figure).map(|spread| span(spread.most));
    let (start, later) = (most("first_byte_slowest_ms"), most("first_byte_slowest_after_10_s_ms"));
    let failed: f64 = chapter.runs.iter().filter_map(|outcome| outcome.figures.get("connections_failed")).sum();
    html! {
        span.glance {
            @if let Some(later) = &later { "slowest first byte " (later) }
            @if let Some(start) = start.filter(|start| Some(start) != later.as_ref()) { " (" (start) " while agents start)" }
            @if all.contains_key("connections_failed") {
                ", " (if failed > 0.0 { number(failed) } else { "none".to_owned() }) " without an answer"
            }
        }
    }
}

/// What happens in the run that is shown, so that its grey ground has a name, and how to play it again.
fn happened(shown: &Outcome) -> Markup {
    let second = |ms: u64| number(ms as f64 / 1e3);
    let when = |step: &Happened| match step.until {
        Some(until) => format!("{} to {} s", second(step.at), second(until)),
        None => format!("{} s", second(step.at)),
    };
    let told = |steps: &[Happened]| {
        html! { ul.steps { @for step in steps { li { span.when { (when(step)) } " " (step.what) } } } }
    };
    let (first, more) = shown.steps.split_at(shown.steps.len().min(STEPS));
    let all_answered = shown.figures.get("connections_failed") == Some(&0.0);
    html! {
        @if shown.steps.is_empty() { p.facts { "Nothing happens to this cluster: no grey ground." } } @else {
            p.facts { "What happens in the run that is shown:" }
            (told(first))
            @if !more.is_empty() { details { summary { (count(more.len(), "more step")) } (told(more)) } }
        }
        pre { (shown.command()) }
        @if all_answered { p.facts { "Connections without an answer: none." } }
    }
}

fn facts(chapter: &Chapter) -> String {
    let class = chapter.scenario.map_or("", |scenario| scenario.class.name());
    let range = |of: fn(&Outcome) -> usize| {
        let (least, most) = chapter
            .runs
            .iter()
            .map(|outcome| of(outcome))
            .fold((usize::MAX, 0), |(least, most), it| (least.min(it), most.max(it)));
        if least >= most { most.to_string() } else { format!("{least} to {most}") }
    };
    let seeds =
        if chapter.runs.len() == 1 { format!("seed {}", chapter.runs[0].seed) } else { format!("{} seeds", chapter.runs.len()) };
    let lasts = Spread::of(chapter.runs.iter().map(|outcome| outcome.virtual_ms as f64)).map_or(0.0, |spread| spread.p50);
    let sizes =
        format!("{} nodes, {} of them control planes", range(|outcome| outcome.nodes), range(|outcome| outcome.control_planes));
    let class = if class.is_empty() { String::new() } else { format!("{class}, ") };
    format!("{class}{}, {seeds}, {sizes}", span(lasts))
}

fn invariants(chapter: &Chapter) -> Markup {
    let rows: Vec<Vec<Markup>> = chapter
        .invariants()
        .iter()
        .map(|held| {
            let class = if held.broken > 0 {
                "broken"
            } else if held.evaluated > 0 {
                "held"
            } else {
                "idle"
            };
            let sign = match class {
                "broken" => "✗ ",
                "held" => "✓ ",
                _ => "",
            };
            let rule = model::invariant(&held.name).unwrap_or_default();
            vec![
                html! { (held.number) },
                html! { b { (held.name) } " " small { (rule) } },
                html! { span.cell.(class) { (sign) (told(held)) } (breaches(chapter, &held.name)) },
            ]
        })
        .collect();
    html! { @if !rows.is_empty() { h4 { "Invariants" } div.judged { (table(&["", "what must hold", "over all seeds"], &rows)) } } }
}

/// The first breaches of one invariant, of each seed.
fn breaches(chapter: &Chapter, name: &str) -> Markup {
    let of = |outcome: &&Outcome| -> Option<(u64, Judged)> {
        let judged = outcome.invariants.iter().find(|judged| judged.name == name && judged.broken > 0)?;
        Some((outcome.seed, judged.clone()))
    };
    let broken: Vec<(u64, Judged)> = chapter.runs.iter().filter_map(of).collect();
    html! {
        @if !broken.is_empty() {
            ul.breaches {
                @for (seed, judged) in broken.iter().take(10) {
                    @for first in judged.first.iter().take(3) { li { "seed " (seed) ", at " (first.at) " ms: " (first.what) } }
                }
            }
        }
    }
}

fn numbers(chapter: &Chapter) -> Markup {
    let all = spread::figures(chapter.runs.iter().copied());
    let rows: Vec<Vec<Markup>> = all
        .iter()
        .map(|(name, spread)| {
            let (words, unit) = label(name);
            let mut row = vec![html! { (words) @if !unit.is_empty() { " (" (unit) ")" } }];
            row.extend([spread.least, spread.p50, spread.p99, spread.most].map(|value| html! { (number(value)) }));
            row
        })
        .collect();
    html! {
        @if !rows.is_empty() {
            details {
                summary { "Figures over seeds" }
                (table(&["figure", "least", "p50", "p99", "most"], &rows))
                p.facts { "The most that ever waited: " (peaks(chapter)) }
            }
        }
    }
}

fn peaks(chapter: &Chapter) -> String {
    let most = |of: fn(&Outcome) -> usize| number(chapter.runs.iter().map(|outcome| of(outcome)).max().unwrap_or(0) as f64);
    format!(
        "{} datagrams in one socket, {} connections open, {} things due in the modelled world.",
        most(|outcome| outcome.peaks.datagrams),
        most(|outcome| outcome.peaks.connections),
        most(|outcome| outcome.peaks.things_due)
    )
}

fn turns(chapter: &Chapter) -> Markup {
    use crate::sim::outcome::Turn;
    let all = chapter.runs.iter().flat_map(|outcome| outcome.learned.iter().map(move |learned| (outcome.seed, learned)));
    let rows: Vec<Vec<Markup>> = all
        .map(|(seed, learned)| {
            let what = match learned.what {
                Turn::Came => "serves",
                Turn::Went => "serves no longer",
            };
            let after = Spread::of(learned.after_ms.iter().map(|ms| *ms as f64));
            let time = |of: fn(&Spread) -> f64| after.as_ref().map_or_else(|| "–".to_owned(), |after| number(of(after)));
            vec![
                html! { (seed) },
                html! { (learned.whose) " " (what) },
                html! { (number(learned.at as f64)) },
                html! { (learned.after_ms.len()) " of " (learned.nodes) },
                html! { (time(|after| after.least)) },
                html! { (time(|after| after.p50)) },
                html! { (time(|after| after.most)) },
            ]
        })
        .collect();
    html! {
        @if !rows.is_empty() {
            details {
                summary { "Who took notice when" }
                (table(&["seed", "what", "at (ms)", "nodes", "first (ms)", "p50 (ms)", "last (ms)"], &rows))
            }
        }
    }
}
