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

/// A table that scrolls alone where there is no room for it. Columns of numbers stand on the right.
fn table(head: &[&str], rows: &[Vec<Markup>]) -> Markup {
    let of_numbers: Vec<bool> = (0..head.len()).map(|column| column > 0 && numeric(rows, column)).collect();
    let class = |column: usize| of_numbers.get(column).filter(|right| **right).map(|_| "n");
    html! {
        div.wide tabindex="0" {
            table {
                thead { tr { @for (column, cell) in head.iter().enumerate() { th class=[class(column)] { (cell) } } } }
                tbody { @for row in rows { tr { @for (column, cell) in row.iter().enumerate() { td class=[class(column)] { (cell) } } } } }
            }
        }
    }
}

/// Whether a column has numbers, and beside them only what stands in a number's place.
fn numeric(rows: &[Vec<Markup>], column: usize) -> bool {
    let cells = || rows.iter().filter_map(|row| row.get(column)).map(|cell| text(&cell.0));
    let number = |cell: &String| cell.starts_with(|sign: char| sign.is_ascii_digit() || sign == '-');
    let instead = |cell: &String| cell.is_empty() || ["–", "none", "no answer"].contains(&cell.as_str());
    cells().any(|cell| number(&cell)) && cells().all(|cell| number(&cell) || instead(&cell))
}

/// What a reader sees of a piece of HTML.
fn text(html: &str) -> String {
    let (mut text, mut inside) = (String::new(), false);
    for sign in html.chars() {
        match sign {
            '<' => inside = true,
            '>' => inside = false,
            _ if !inside => text.push(sign),
            _ => {}
        }
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_numbers_stand_on_the_right_and_words_on_the_left() {
        let row = |name: &str, value: &str, word: &str| vec![html! { (name) }, html! { i {} (value) }, html! { b { (word) } }];
        let rows = [row("1", "2.5 s", "first"), row("2", "no answer", "3")];
        assert_eq!([0, 1, 2].map(|column| numeric(&rows, column)), [true, true, false]);
        let page = table(&["", "time", "word"], &rows).into_string();
        assert!(page.contains("<th class=\"n\">time</th>") && page.contains("<td>1</td>"), "{page}");
    }
}
