//! `report`: a page for people who decide whether to trust this with a control plane.
//!
//! One file that needs nothing else: what it shows and the data behind it are in it. It is made of results alone, so that it can
//! be made again, and of several files, so that a long sweep and a short one can stand together. What was not looked at is said as
//! loudly as what was broken.

use maud::{DOCTYPE, Markup, PreEscaped, html};

mod aside;
mod charts;
mod data;
mod front;
mod gather;
mod matrices;
mod model;
mod plot;
mod story;

pub use gather::Gathered;

/// What the page looks like.
const STYLE: &str = include_str!("style.css");
/// Opens and closes details, and hands out the data. The page can be read without it.
const SCRIPT: &str = include_str!("script.js");

/// Makes the page.
///
/// # Errors
/// A plot cannot be drawn.
pub fn page(all: &Gathered) -> anyhow::Result<String> {
    let chapters = all.chapters();
    let stories = chapters.iter().map(story::section).collect::<anyhow::Result<Vec<Markup>>>()?;
    let sections = [
        ("invariants", ("Invariants", "Invariants: what was looked at, and where"), matrices::invariants(&chapters)),
        ("scenarios", ("Scenarios", "The scenarios"), html! { (story::intro(&chapters)) @for story in &stories { (story) } }),
        ("baselines", ("Baselines", "The same with something else"), aside::baselines(all)?),
        ("growth", ("Growth", "How it grows"), aside::growth(all)?),
        ("reports", ("Peers' reports", "What peers' reports are worth"), aside::reports(all)?),
        ("sabotages", ("Sabotages", "Who notices a spoilt agent"), matrices::sabotages(all)),
        ("calibration", ("Calibration", "Real sockets and the model"), aside::calibration(all)),
        ("left-out", ("Left out", "What this cannot show"), front::left_out()),
        ("data", ("Numbers", "The numbers"), data::section(all, &chapters)?),
    ];
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "prismesh in simulated clusters" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (front::summary(all, &chapters))
                nav aria-label="Sections" { @for (id, (short, _), _) in &sections { a href={ "#" (id) } { (short) } } }
                main {
                    (front::failures(&chapters))
                    @for (id, (_, title), body) in &sections { section id=(id) { h2 { (title) } (body) } }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

/// A plot with its title, units and legend.
fn figure(figure: &charts::Figure) -> anyhow::Result<Markup> {
    let svg = figure.plot.svg()?;
    Ok(html! {
        figure {
            figcaption { b { (figure.title) } span { (figure.note) } }
            div.plot role="img" aria-label={ (figure.title) ": " (figure.note) } { (PreEscaped(svg)) }
            @if !figure.legend.is_empty() {
                ul.legend { @for (ink, words) in &figure.legend { li { i class=(ink.class()) {} (words) } } }
            }
        }
    })
}

/// Several of them, side by side where there is room.
fn figures(all: &[charts::Figure]) -> anyhow::Result<Markup> {
    let drawn = all.iter().map(figure).collect::<anyhow::Result<Vec<Markup>>>()?;
    Ok(html! { @if !drawn.is_empty() { div.figures { @for one in &drawn { (one) } } } })
}

/// A table that scrolls alone where there is no room for it.
fn table(head: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div.wide {
            table {
                thead { tr { @for cell in head { th { (cell) } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            }
        }
    }
}
