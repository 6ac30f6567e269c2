//! Scenario by invariant, scenario by sabotage.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::gather::{Chapter, Gathered, Held};
use super::model;
use crate::sim::results::Caught;
use crate::sim::words::{count, number, short};

/// A scenario's name that leads to its chapter.
fn link(name: &str) -> Markup {
    html! { a href={ "#scenario-" (name) } { (name) } }
}

/// The invariants, or halves of them, with their numbers.
type Rules = Vec<(u8, String)>;

pub(super) fn invariants(chapters: &[Chapter]) -> Markup {
    let mut rules: Rules = Vec::new();
    for held in chapters.iter().flat_map(Chapter::invariants) {
        if rules.iter().all(|(_, name)| *name != held.name) {
            rules.push((held.number, held.name));
        }
    }
    rules.sort_by_key(|(number, _)| *number);
    html! {
        @if rules.is_empty() { p.none { "No runs." } } @else {
            p {
                "How often each invariant was looked at in a moment at which it could have been broken, over all seeds. Where that is never, "
                "nothing was shown, and it says so: "
                span.cell.held { "✓ 1.2k" } " held so often, " span.cell.broken { "✗ 3" } " was broken so often, "
                span.cell.idle { "–" } " not exercised."
            }
            ol.rules {
                @for (number, name) in &rules {
                    li value=(number) { b { (name) } @if let Some(rule) = model::invariant(name) { ": " (rule) } }
                }
            }
            div.wide.tall tabindex="0" {
                table.matrix.invariants {
                    thead {
                        tr {
                            th { "scenario" }
                            th { span { "runs" } }
                            @for (number, name) in &rules {
                                th { span title=[model::invariant(name)] { (number) " " (name) } }
                            }
                            th { span title="promises, complaints, left over" { "otherwise" } }
                        }
                    }
                    tbody { @for chapter in chapters { (row(chapter, &rules)) } }
                }
            }
        }
    }
}

fn row(chapter: &Chapter, rules: &Rules) -> Markup {
    let all = chapter.invariants();
    let otherwise =
        chapter.runs.iter().filter(|outcome| outcome.broken_kinds().iter().any(|kind| !kind.starts_with("invariant")));
    let otherwise = otherwise.count();
    html! {
        tr {
            th scope="row" { (link(chapter.name)) }
            td.n { (chapter.runs.len()) }
            @for (_, name) in rules { td { (cell(all.iter().find(|held| held.name == *name))) } }
            td { @if otherwise > 0 { span.cell.broken title="promises, complaints, left over" { "✗ " (otherwise) } } }
        }
    }
}

fn cell(held: Option<&Held>) -> Markup {
    match held {
        Some(held) if held.broken > 0 => html! { span.cell.broken title=(told(held)) { "✗ " (short(held.broken)) } },
        Some(held) if held.evaluated > 0 => html! { span.cell.held title=(told(held)) { "✓ " (short(held.evaluated)) } },
        _ => html! { span.cell.idle title="not exercised" { "–" } },
    }
}

/// What became of an invariant, in words.
pub(super) fn told(held: &Held) -> String {
    match (held.evaluated, held.broken) {
        (0, 0) => "not exercised".to_owned(),
        (1, 0) => "held once".to_owned(),
        (evaluated, 0) => format!("held {} times", number(evaluated as f64)),
        (evaluated, broken) => format!("broken {} of {} times", number(broken as f64), number(evaluated as f64)),
    }
}

/// Which scenario notices which sabotage.
pub(super) fn sabotages(all: &Gathered) -> Markup {
    if all.matrix.is_empty() {
        return html! { p.none { "Not in these results. " code { "sabotages --all --json FILE" } " plays every sabotage in every quick scenario, and with " code { "--play" } " in the one that is known to show it; give the file to " code { "report" } " beside the others." } };
    }
    let mut aims: BTreeMap<&str, u8> = BTreeMap::new();
    let mut cells: BTreeMap<(&str, &str), Vec<&Caught>> = BTreeMap::new();
    for caught in &all.matrix {
        aims.insert(&caught.sabotage, caught.aims_at);
        cells.entry((&caught.scenario, &caught.sabotage)).or_default().push(caught);
    }
    let mut order: Vec<(u8, &str)> = aims.iter().map(|(name, aim)| (*aim, *name)).collect();
    order.sort_unstable();
    let scenarios: BTreeSet<&str> = all.matrix.iter().map(|caught| caught.scenario.as_str()).collect();
    let missed: Vec<&str> =
        aims.keys().copied().filter(|name| !all.matrix.iter().any(|caught| caught.sabotage == *name && hit(caught))).collect();
    let idle: Vec<&str> = scenarios
        .iter()
        .copied()
        .filter(|name| !all.matrix.iter().any(|caught| caught.scenario == *name && any(caught)))
        .collect();
    html! {
        p {
            "The agents were spoilt in one way at a time, to see whether anybody would notice. In a cell stand the invariants that broke, and "
            b { "+" } " for a promise of the story, a complaint or something left over; bold, on green, is what the sabotage aims at. "
            strong { (aims.len() - missed.len()) " of " (count(aims.len(), "sabotage")) } " broke what they aim at in at least one scenario."
        }
        @if !missed.is_empty() { p.untried { strong { "What these aim at broke in none of these scenarios: " } (missed.join(", ")) } }
        @if !idle.is_empty() { p.untried { strong { "Scenarios that noticed nothing: " } (idle.join(", ")) } }
        div.wide.tall tabindex="0" {
            table.matrix.sabotages {
                thead { tr { th { "scenario" } @for (aim, name) in &order { th { span { (name) @if *aim > 0 { " (" (aim) ")" } } } } } }
                tbody {
                    @for scenario in &scenarios {
                        tr {
                            th scope="row" { (link(scenario)) }
                            @for (_, name) in &order { td { (noticed(cells.get(&(*scenario, *name)))) } }
                        }
                    }
                }
            }
        }
    }
}

/// By what it aims at: an invariant, or, of 0, what holds beside them.
fn hit(caught: &Caught) -> bool {
    match caught.aims_at {
        0 => caught.otherwise,
        invariant => caught.caught_by.contains(&invariant),
    }
}

/// By anything.
fn any(caught: &Caught) -> bool {
    !caught.caught_by.is_empty() || caught.otherwise
}

fn noticed(caught: Option<&Vec<&Caught>>) -> Markup {
    let Some(caught) = caught else { return html! { span.cell.idle title="not played" { "·" } } };
    let by: BTreeSet<u8> = caught.iter().flat_map(|caught| &caught.caught_by).copied().collect();
    let aim = caught.first().map(|caught| caught.aims_at);
    let otherwise = caught.iter().any(|caught| caught.otherwise);
    let class = if caught.iter().any(|caught| hit(caught)) {
        "held"
    } else if by.is_empty() && !otherwise {
        "idle"
    } else {
        "partly"
    };
    html! {
        span.cell.(class) {
            @if by.is_empty() && !otherwise { "–" }
            @for number in &by { @if Some(*number) == aim { b { (number) } } @else { (number) } " " }
            @if otherwise && aim == Some(0) { b { "+" } } @else if otherwise { "+" }
        }
    }
}
