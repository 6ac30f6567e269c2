//! Which plots tell a scenario's story.

use std::collections::{BTreeMap, BTreeSet};

use super::gather::{Chapter, carrier};
use super::plot::{Axis, Ink, Plot, Shape, power_of, powers, shares, up_to};
use crate::sim::measure::limits::{self, Named};
use crate::sim::outcome::{Carrier, Learned, Outcome, Timelines, Turn};
use crate::sim::spread::spreads;
use crate::sim::waits::Waits;
use crate::sim::words::{self, tick};

/// A plot with what stands around it.
pub(super) struct Figure {
    pub(super) title: String,
    /// Its units, and of which runs it is.
    pub(super) note: String,
    pub(super) legend: Vec<(Ink, String)>,
    pub(super) plot: Plot,
}

/// Bands of its own that one plot can have; the rest goes into one.
const BANDS: usize = 7;
/// A limit is drawn below the upper edge.
const HEADROOM: f64 = 1.05;
/// A node whose lease is older is NotReady.
const GRACE_S: f64 = 40.0;

/// What tells of a scenario; what is empty is left out.
pub(super) fn of(chapter: &Chapter) -> Vec<Figure> {
    let shown = chapter.worst();
    let lines = &shown.timelines;
    let mut figures = Vec::new();
    if lines.step_ms > 0 {
        figures.extend(upstreams(lines));
        figures.extend(slowest(lines));
        figures.extend(failures(chapter, shown));
        figures.extend(leases(lines));
    }
    figures.extend(learned(&chapter.runs));
    figures.extend(first_bytes(&chapter.runs));
    figures
}

/// The time of a timeline: how many of a step make an x, and the axis.
struct Time {
    step: f64,
    axis: Axis,
}

impl Time {
    fn of(lines: &Timelines) -> Time {
        let all_s = lines.step_ms as f64 * lines.faults.len() as f64 / 1e3;
        let (unit, tell): (f64, fn(&f64) -> String) = match all_s {
            _ if all_s <= 300.0 => (1.0, |at| format!("{} s", words::number(*at))),
            _ if all_s <= 3.0 * 3_600.0 => (60.0, |at| format!("{} min", words::number(*at))),
            _ => (3_600.0, |at| format!("{} h", words::number(*at))),
        };
        Time { step: lines.step_ms as f64 / 1e3 / unit, axis: Axis { from: 0.0, to: all_s / unit, ticks: 6, tell } }
    }

    fn plot(&self, lines: &Timelines, y: Axis, shapes: Vec<(Ink, Shape)>) -> Plot {
        Plot { x: self.axis.clone(), y, shaded: self.spans(&lines.faults), level: None, shapes }
    }

    /// Where a line is above nothing.
    fn spans(&self, line: &[u32]) -> Vec<(f64, f64)> {
        let mut spans: Vec<(f64, f64)> = Vec::new();
        for (place, _) in line.iter().enumerate().filter(|(_, value)| **value > 0) {
            let (from, to) = (place as f64 * self.step, (place + 1) as f64 * self.step);
            match spans.last_mut() {
                Some(last) if last.1 >= from - 1e-9 => last.1 = to,
                _ => spans.push((from, to)),
            }
        }
        spans
    }

    /// A line that goes in steps.
    fn stairs(&self, line: impl IntoIterator<Item = f64>) -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (place, value) in line.into_iter().enumerate() {
            let (from, to) = (place as f64 * self.step, (place + 1) as f64 * self.step);
            match points.last_mut() {
                Some(last) if last.1 == value => last.0 = to,
                _ => points.extend([(from, value), (to, value)]),
            }
        }
        points
    }
}

/// Who answers, as bands on one another.
fn upstreams(lines: &Timelines) -> Option<Figure> {
    let mut busiest: Vec<(u64, &str)> =
        lines.answered_by.iter().map(|(name, counts)| (counts.iter().copied().map(u64::from).sum(), name.as_str())).collect();
    busiest.sort_unstable_by(|one, other| other.cmp(one));
    let rest: Vec<&str> = busiest.iter().skip(BANDS).map(|(_, name)| *name).collect();
    let per_s = 1e3 / lines.step_ms as f64;
    let rates = |counts: &[u32]| counts.iter().map(|count| f64::from(*count) * per_s).collect::<Vec<f64>>();
    let own = lines.answered_by.iter().filter(|(name, _)| !rest.contains(&name.as_str()));
    let mut by: Vec<(&str, Vec<f64>)> = own.map(|(name, counts)| (name.as_str(), rates(counts))).collect();
    if !rest.is_empty() {
        let mut sum = vec![0.0; lines.faults.len()];
        for name in rest {
            sum.iter_mut().zip(rates(&lines.answered_by[name])).for_each(|(sum, rate)| *sum += rate);
        }
        by.push(("others", sum));
    }
    let time = Time::of(lines);
    let mut under = vec![0.0; lines.faults.len()];
    let (mut shapes, mut legend) = (Vec::new(), Vec::new());
    let inks = inks(&by.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for ((name, counts), ink) in by.iter().zip(inks) {
        let over: Vec<f64> = under.iter().zip(counts).map(|(under, count)| under + count).collect();
        let steps = under.iter().zip(&over).enumerate();
        let edges = steps.flat_map(|(step, (under, over))| {
            [(step as f64 * time.step, *under, *over), ((step + 1) as f64 * time.step, *under, *over)]
        });
        shapes.push((ink, Shape::Band(edges.collect())));
        legend.push((ink, (*name).to_owned()));
        under = over;
    }
    let most = under.iter().copied().fold(0.0, f64::max);
    (!by.is_empty()).then(|| Figure {
        title: "Who answers new connections".to_owned(),
        note: "connections a second, by upstream".to_owned(),
        legend,
        plot: time.plot(lines, up_to(most, tick), shapes),
    })
}

/// An upstream's colour follows from its number, so that it has the same one in every plot of the page, whoever else answers there;
/// where two would have the same, the second has the next that is free. The balancer is grey.
fn inks(names: &[&str]) -> Vec<Ink> {
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    let number = |name: &str| name.rsplit('-').next().and_then(|end| end.parse::<usize>().ok()).filter(|number| *number > 0);
    let mut ink = |name: &str| match name {
        "balancer" => Ink::Muted,
        "others" => Ink::Series(BANDS),
        _ => {
            let first = number(name).unwrap_or(1) - 1;
            let place = (first..first + BANDS).map(|place| place % BANDS).find(|place| !taken.contains(place));
            let place = place.unwrap_or(first % BANDS);
            taken.insert(place);
            Ink::Series(place)
        }
    };
    names.iter().map(|name| ink(name)).collect()
}

/// The slowest first byte of each step.
fn slowest(lines: &Timelines) -> Option<Figure> {
    let most = lines.slowest_ms.iter().copied().max().filter(|most| *most > 0)?;
    let time = Time::of(lines);
    // Where nobody was answered there is no time, and the line breaks.
    let mut pieces: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
    for (place, ms) in lines.slowest_ms.iter().enumerate() {
        let (from, to) = (place as f64 * time.step, (place + 1) as f64 * time.step);
        match pieces.last_mut() {
            Some(piece) if *ms > 0 => piece.extend([(from, power_of(f64::from(*ms))), (to, power_of(f64::from(*ms)))]),
            Some(piece) if !piece.is_empty() => pieces.push(Vec::new()),
            _ => {}
        }
    }
    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
    let shapes = pieces.map(|piece| (Ink::Series(0), Shape::Line(piece))).collect();
    Some(Figure {
        title: "Slowest first byte".to_owned(),
        note: "of the connections opened in each step".to_owned(),
        legend: Vec::new(),
        plot: time.plot(lines, powers(1.0, f64::from(most)), shapes),
    })
}

/// Connections without an answer; those of the baselines beside them.
fn failures(chapter: &Chapter, shown: &Outcome) -> Option<Figure> {
    let others = chapter.others.iter().filter(|other| other.seed == shown.seed && other.timelines.step_ms > 0);
    let all: Vec<&Outcome> = std::iter::once(shown).chain(others.copied()).collect();
    let rate = |outcome: &Outcome| -> Vec<f64> {
        let per_s = 1e3 / outcome.timelines.step_ms as f64;
        outcome.timelines.failed.iter().map(|count| f64::from(*count) * per_s).collect()
    };
    let most = all.iter().flat_map(|outcome| rate(outcome)).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let ink = |by| match by {
        Carrier::Prismesh => Ink::Bad,
        Carrier::Balancer => Ink::Muted,
        Carrier::KubeprismModel => Ink::Series(2),
    };
    let mut shapes = Vec::new();
    // What it is about is drawn last, over the others.
    for outcome in all.iter().rev() {
        let time = Time::of(&outcome.timelines);
        shapes.push((ink(outcome.by), Shape::Line(time.stairs(rate(outcome)))));
    }
    let legend = all.iter().map(|outcome| (ink(outcome.by), carrier(outcome.by).to_owned()));
    Some(Figure {
        title: "Connections without an answer".to_owned(),
        note: "a second; whether one could have been had is what invariant 1 judges".to_owned(),
        legend: if all.len() > 1 { legend.collect() } else { Vec::new() },
        plot: Time::of(&shown.timelines).plot(&shown.timelines, up_to(most, tick), shapes),
    })
}

fn leases(lines: &Timelines) -> Vec<Figure> {
    let time = Time::of(lines);
    let mut figures = Vec::new();
    let oldest = lines.lease_age_s.iter().copied().max().unwrap_or(0);
    if oldest > 0 {
        let line = time.stairs(lines.lease_age_s.iter().map(|age| f64::from(*age)));
        let y = up_to(f64::from(oldest).max(GRACE_S * 1.1), |age| format!("{} s", tick(age)));
        let mut plot = time.plot(lines, y, vec![(Ink::Series(0), Shape::Line(line))]);
        plot.level = Some(GRACE_S);
        figures.push(Figure {
            title: "Oldest node lease".to_owned(),
            note: "renewed each 10 s; a node is NotReady from 40 s on (line)".to_owned(),
            legend: Vec::new(),
            plot,
        });
    }
    let most = lines.not_ready.iter().copied().max().unwrap_or(0);
    if most > 0 {
        let line = time.stairs(lines.not_ready.iter().map(|nodes| f64::from(*nodes)));
        figures.push(Figure {
            title: "Nodes NotReady".to_owned(),
            note: "that are up and whose lease is older than 40 s".to_owned(),
            legend: Vec::new(),
            plot: time.plot(lines, up_to(f64::from(most), tick), vec![(Ink::Bad, Shape::Line(line))]),
        });
    }
    figures
}

/// How what nodes know follows what is true, over all seeds.
fn learned(runs: &[&Outcome]) -> Option<Figure> {
    let of = |what| runs.iter().flat_map(|outcome| &outcome.learned).filter(move |learned| learned.what == what);
    let (mut shapes, mut legend, mut most) = (Vec::new(), Vec::new(), 1.0_f64);
    for (place, (what, words)) in
        [(Turn::Went, "no longer count on one that died"), (Turn::Came, "count on one that came")].into_iter().enumerate()
    {
        let turns: Vec<&Learned> = of(what).collect();
        let all: usize = turns.iter().map(|turn| turn.nodes).sum();
        let mut after: Vec<f64> = turns.iter().flat_map(|turn| &turn.after_ms).map(|ms| *ms as f64).collect();
        if all == 0 {
            continue;
        }
        after.sort_by(f64::total_cmp);
        most = most.max(after.last().copied().unwrap_or(1.0));
        shapes.push((Ink::Series(place), Shape::Line(climbing(after.iter().map(|ms| (*ms, 1.0)), all as f64))));
        legend.push((Ink::Series(place), format!("{words}: {} of {all}", after.len())));
    }
    let x = powers(10.0, most);
    close(&mut shapes, x.to);
    (!shapes.is_empty()).then(|| Figure {
        title: "How fast nodes take notice".to_owned(),
        note: "share of nodes in service, over the time since an apiserver turned; all seeds".to_owned(),
        legend,
        plot: Plot { x, y: shares(), shaded: Vec::new(), level: None, shapes },
    })
}

/// How long connections waited, over all seeds.
fn first_bytes(runs: &[&Outcome]) -> Option<Figure> {
    let waits = Waits::of(runs.iter().copied());
    let all = waits.count();
    let (mut shapes, mut legend) = (Vec::new(), Vec::new());
    if all > 0 {
        let steps = waits.answered.iter().map(|(ms, count)| (*ms as f64, *count as f64));
        shapes.push((Ink::Series(0), Shape::Line(climbing(steps, all as f64))));
        legend.push((Ink::Series(0), "each connection".to_owned()));
    }
    let mut most = waits.answered.keys().last().map_or(1.0, |ms| *ms as f64);
    if runs.len() > 1 {
        for (ink, name, words) in [
            (Ink::Series(1), "first_byte_p99_ms", "the p99 of each run"),
            (Ink::Series(2), "first_byte_slowest_after_10_s_ms", "the slowest of each run, after the first 10 s"),
        ] {
            let mut each: Vec<f64> = runs.iter().filter_map(|outcome| outcome.figures.get(name).copied()).collect();
            each.sort_by(f64::total_cmp);
            let Some(last) = each.last() else { continue };
            most = most.max(*last);
            shapes.push((ink, Shape::Line(climbing(each.iter().map(|ms| (*ms, 1.0)), each.len() as f64))));
            legend.push((ink, words.to_owned()));
        }
    }
    let x = powers(1.0, most);
    close(&mut shapes, x.to);
    (!shapes.is_empty()).then(|| Figure {
        title: "Time to the first byte".to_owned(),
        note: format!("share of all that took at most so long; {}", words::count(runs.len(), "seed")),
        legend,
        plot: Plot { x, y: shares(), shaded: Vec::new(), level: None, shapes },
    })
}

/// Milliseconds and how many, ascending, as the share of `all` that is at most there; on an axis of powers.
fn climbing(steps: impl IntoIterator<Item = (f64, f64)>, all: f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    let mut sum = 0.0;
    for (ms, count) in steps {
        points.push((power_of(ms), sum / all));
        sum += count;
        points.push((power_of(ms), sum / all));
    }
    points
}

/// Lines that climb stay where they are to the end of the axis: those that never got there are missing above.
fn close(shapes: &mut [(Ink, Shape)], end: f64) {
    for (_, shape) in shapes {
        if let Shape::Line(points) = shape {
            points.push((end, points.last().map_or(0.0, |last| last.1)));
        }
    }
}

/// The same for each that carried the traffic, over all scenarios that were played with all of them.
pub(super) fn carriers(by: &[(Carrier, Vec<&Outcome>)]) -> Option<Figure> {
    let (mut shapes, mut legend, mut most) = (Vec::new(), Vec::new(), 1.0_f64);
    for (place, (carried_by, runs)) in by.iter().enumerate() {
        let waits = Waits::of(runs.iter().copied());
        most = waits.answered.keys().last().map_or(most, |ms| most.max(*ms as f64));
        let steps = waits.answered.iter().map(|(ms, count)| (*ms as f64, *count as f64));
        shapes.push((Ink::Series(place), Shape::Line(climbing(steps, waits.count().max(1) as f64))));
        legend.push((Ink::Series(place), carrier(*carried_by).to_owned()));
    }
    let x = powers(1.0, most);
    close(&mut shapes, x.to);
    (!shapes.is_empty()).then(|| Figure {
        title: "Time to the first byte".to_owned(),
        note: "share of all connections; what is missing to 100% got no answer".to_owned(),
        legend,
        plot: Plot { x, y: shares(), shaded: Vec::new(), level: None, shapes },
    })
}

/// A figure over the size of the cluster, with its limit.
pub(super) fn growth(named: &Named, points: &[(usize, f64)]) -> Figure {
    let x = |nodes: usize| (nodes as f64).log10();
    let bounds = points.iter().filter_map(|(nodes, _)| Some((x(*nodes), limits::limit(named.figure, *nodes)?.bound)));
    let bounds: Vec<(f64, f64)> = bounds.collect();
    let values = points.iter().map(|(_, value)| *value).chain(bounds.iter().map(|(_, bound)| *bound * HEADROOM));
    let most = values.fold(0.0, f64::max);
    let ends = (points.first().map_or(0.0, |first| x(first.0)), points.last().map_or(1.0, |last| x(last.0)));
    let axis = Axis {
        from: ends.0.floor(),
        to: ends.1.ceil().max(ends.0.floor() + 1.0),
        ticks: 5,
        tell: |power| if (power - power.round()).abs() < 1e-6 { words::number(10_f64.powf(*power)) } else { String::new() },
    };
    let line = points.iter().map(|(nodes, value)| (x(*nodes), *value)).collect();
    let mut shapes = vec![(Ink::Series(0), Shape::Dotted(line))];
    if !bounds.is_empty() {
        shapes.push((Ink::Bad, Shape::Dashed(bounds)));
    }
    Figure {
        title: named.words.to_owned(),
        note: format!("{}, over the number of nodes", named.unit),
        legend: Vec::new(),
        plot: Plot { x: axis, y: up_to(most, tick), shaded: Vec::new(), level: None, shapes },
    }
}

/// With peers' reports and without, over seeds.
pub(super) fn reports(name: &str, heard: &[f64], not: &[f64]) -> Figure {
    let (label, unit) = words::label(name);
    let most = heard.iter().chain(not).copied().fold(0.0, f64::max);
    let rise = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let all = sorted.len().max(1) as f64;
        let steps = sorted.iter().enumerate();
        let mut points: Vec<(f64, f64)> =
            steps.flat_map(|(place, value)| [(*value, place as f64 / all), (*value, (place + 1) as f64 / all)]).collect();
        points.push((round_end(most), 1.0));
        Shape::Line(points)
    };
    Figure {
        title: capital(&label),
        note: format!("{}{}share of seeds with at most so much", unit, if unit.is_empty() { "" } else { ", " }),
        legend: vec![(Ink::Series(0), "with reports".to_owned()), (Ink::Muted, "without".to_owned())],
        plot: Plot {
            x: up_to(most, tick),
            y: shares(),
            shaded: Vec::new(),
            level: None,
            shapes: vec![(Ink::Muted, rise(not)), (Ink::Series(0), rise(heard))],
        },
    }
}

fn round_end(most: f64) -> f64 {
    up_to(most, tick).to
}

fn capital(words: &str) -> String {
    let mut signs = words.chars();
    signs.next().map_or_else(String::new, |first| first.to_uppercase().chain(signs).collect())
}

/// Every figure that points of growth have, with its points.
pub(super) fn grown(all: &[crate::sim::results::Point]) -> BTreeMap<&str, Vec<(usize, f64)>> {
    let names = spreads(all.iter().map(|point| &point.figures));
    let points = |name: &str| {
        let mut by_size: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for point in all {
            if let Some(value) = point.figures.get(name) {
                by_size.entry(point.nodes).or_default().push(*value);
            }
        }
        let middle = |values: Vec<f64>| crate::sim::spread::Spread::of(values).map_or(0.0, |spread| spread.p50);
        by_size.into_iter().map(|(nodes, values)| (nodes, middle(values))).collect()
    };
    names.into_keys().map(|name| (name, points(name))).collect()
}
