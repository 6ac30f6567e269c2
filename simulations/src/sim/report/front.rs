//! What stands at the top: what was played, what came of it, and how much that says.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::gather::{Chapter, Gathered};
use super::model;
use crate::sim::outcome::Outcome;
use crate::sim::waits::Waits;
use crate::sim::words::{count, number, span};

pub(super) fn summary(all: &Gathered, chapters: &[Chapter]) -> Markup {
    let runs = all.outcomes.len();
    let failed = all.outcomes.iter().filter(|outcome| !outcome.passed()).count();
    let class = if failed > 0 { "broken" } else { "held" };
    html! {
        header {
            h1 { "prismesh in simulated clusters" }
            p.lead {
                "Whole clusters in virtual time: every node is the agent that ships, over a modelled network, modelled apiservers and "
                "modelled clients. Each run was judged from what was true in the modelled world; no agent was asked."
            }
            @if runs > 0 {
                p.verdict.(class) {
                    strong { (if failed == 0 { "None of " } else { "" }) @if failed > 0 { (number(failed as f64)) " of " } (count(runs, "run")) " failed." }
                    " " (sureness(failed, runs))
                }
                (tiles(all, chapters))
            }
            (untried(chapters))
            (builds(all))
        }
    }
}

/// How sure one can be. After none of n failed, more than 3/n of all would have been seen with 95%.
fn sureness(failed: usize, runs: usize) -> String {
    if failed > 0 {
        return "What broke, and how to play it again, stands below.".to_owned();
    }
    let most = 100.0 * (3.0 / runs.max(1) as f64).min(1.0);
    format!(
        "So with 95% certainty at most {most:.2}% of all runs of this kind would (3/n): of these stories, drawn with other seeds."
    )
}

fn tiles(all: &Gathered, chapters: &[Chapter]) -> Markup {
    let runs: Vec<&Outcome> = all.outcomes.iter().collect();
    let sum = |figure: &str| runs.iter().filter_map(|outcome| outcome.figures.get(figure)).sum::<f64>();
    let virtual_ms: u64 = runs.iter().map(|outcome| outcome.virtual_ms).sum();
    let failed = sum("connections_failed");
    let waits = Waits::of(runs.iter().copied());
    let unanswered = if failed > 0.0 { number(failed) } else { "none".to_owned() };
    let seeds: BTreeSet<u64> = runs.iter().map(|outcome| outcome.seed).collect();
    let needless: u64 =
        chapters.iter().flat_map(Chapter::invariants).filter(|held| held.number == 1).map(|held| held.broken).sum();
    let tile = |figure: String, what: String| html! { div.tile { b { (figure) } span { (what) } } };
    html! {
        div.tiles {
            (tile(number(chapters.len() as f64), format!("scenarios, {}", count(seeds.len(), "seed"))))
            (tile(span(virtual_ms as f64), format!("virtual time, in {} of work", span(all.wall_s * 1e3))))
            (tile(number(sum("connections")), "connections of clients".to_owned()))
            (tile(unanswered, format!("of them without an answer; {} although one could have been had", number(needless as f64))))
            (tile(waits.told(0.5), "to the first byte, for half of all".to_owned()))
            (tile(waits.told(0.99), format!("for 99 in 100; {} for 999 in 1,000", waits.told(0.999))))
        }
    }
}

/// What no run at all could have broken.
fn untried(chapters: &[Chapter]) -> Markup {
    let all: Vec<_> = chapters.iter().flat_map(Chapter::invariants).collect();
    let tried: BTreeSet<&str> = all.iter().filter(|held| held.evaluated > 0).map(|held| held.name.as_str()).collect();
    let mut names: Vec<(u8, &str)> =
        all.iter().filter(|held| !tried.contains(held.name.as_str())).map(|held| (held.number, held.name.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    html! {
        @if !names.is_empty() {
            p.untried {
                strong { "Not exercised by any of these runs: " }
                @for (place, (number, name)) in names.iter().enumerate() { @if place > 0 { ", " } (number) " " (name) }
                ". Nothing here shows that they hold."
            }
        }
    }
}

fn builds(all: &Gathered) -> Markup {
    html! {
        @for (build, files) in &all.builds {
            p.build {
                "prismesh " (build.version) ", " (build.profile) " build, " (build.machine) " (" (files.join(", ")) ")"
            }
        }
        @if all.builds.len() > 1 { p.build { "These are different builds, put together; to set one against the other there is " code { "compare" } "." } }
        @if all.repeated > 0 { p.build { (count(all.repeated, "run")) " stood in more than one file and counted once." } }
    }
}

/// What broke, first of all.
pub(super) fn failures(chapters: &[Chapter]) -> Markup {
    let failed: Vec<&Outcome> =
        chapters.iter().flat_map(|chapter| &chapter.runs).copied().filter(|outcome| !outcome.passed()).collect();
    html! {
        @if !failed.is_empty() {
            section.failures id="failures" {
                h2 { "What broke" }
                @for outcome in &failed {
                    div.failure {
                        h3 { a href={ "#scenario-" (outcome.scenario) } { (outcome.scenario) } ", seed " (outcome.seed) }
                        ul { @for failure in outcome.failures() { li { (failure) } } }
                        pre { (outcome.command()) }
                    }
                }
            }
        }
    }
}

/// What is not modelled, in the words of the documentation.
pub(super) fn left_out() -> Markup {
    html! {
        p { strong { "Not modelled: " } (model::left_out()) }
        p {
            "A modelled network is kinder and crueller than a real one in ways nobody has thought of. That none of many runs failed says "
            "something of the stories that were told, and nothing of those that were not."
        }
        p {
            "What carries the name of KubePrism is a model of the rules that it publishes, not KubePrism: it knows of every apiserver at "
            "once, which is in its favour, and the kernel's user time-out of 30 s is not modelled, which is not. Times are those of the "
            "model: a whole number of milliseconds each way, and no time at all for computing."
        }
    }
}
