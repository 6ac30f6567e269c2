//! Two results side by side: what moved, and whether anything got worse.
//!
//! Two builds that differ in anything draw differently from the same seed, so a figure of one run always differs. What says
//! something is a difference outside the spread of seeds: the medians are apart by more than the middle half of the seeds of
//! either side is wide, or the p99 of one is twice that of the other and beyond it by more than all of the other's runs are apart.
//! What is below 5% or below the figure's grain never counts. With one seed there is no spread, and every difference above those
//! counts. When nothing but the agents' draws was changed, one of some 350 figures (39 scenarios, 4 seeds) moved by this.

use std::collections::{BTreeMap, BTreeSet};

use super::outcome::Outcome;
use super::results::Results;
use super::spread::{self, Spread, grain, more_is_worse};
use super::words::{count, label, number};

/// A difference that is a smaller share than this does not count.
const SHARE: f64 = 0.05;

/// Worst runs are a matter of luck: below this factor they do not count.
const TAIL: f64 = 2.0;

/// What came of comparing.
#[derive(Debug, Default)]
pub struct Compared {
    /// How many runs both have.
    pub runs: usize,
    /// What is only in one of them, in words.
    pub missing: Vec<String>,
    /// What moved, scenario by scenario.
    pub moved: Vec<Moved>,
}

/// Something moved.
#[derive(Debug)]
pub struct Moved {
    /// In which story.
    pub scenario: String,
    /// What.
    pub what: String,
    /// How it was, and how it is.
    pub from_to: (String, String),
    /// Whether that is worse, better, or neither.
    pub sense: Sense,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sense {
    /// It got worse.
    Worse,
    /// It got better.
    Better,
    /// It is different.
    Neither,
}

impl Sense {
    /// As people call it.
    pub fn word(self) -> &'static str {
        match self {
            Sense::Worse => "WORSE",
            Sense::Better => "better",
            Sense::Neither => "",
        }
    }
}

impl Compared {
    /// Whether anything got worse.
    pub fn worse(&self) -> bool {
        self.moved.iter().any(|moved| moved.sense == Sense::Worse)
    }
}

type Runs<'r> = BTreeMap<(&'r str, u64), &'r Outcome>;

/// Compares the runs that both have: the same scenarios with the same seeds. Two results of a cluster from a file each are two
/// configurations, whatever the files are called.
///
/// # Errors
/// They have none in common.
pub fn compare(before: &Results, after: &Results) -> anyhow::Result<Compared> {
    let renamed = name_of_a_file(before).zip(name_of_a_file(after)).filter(|(was, is)| was != is);
    let name = renamed.map(|(was, is)| format!("{was} / {is}"));
    let (before, after) = (by_run(before, name.as_deref()), by_run(after, name.as_deref()));
    let both: BTreeSet<(&str, u64)> = before.keys().copied().filter(|key| after.contains_key(key)).collect();
    anyhow::ensure!(!both.is_empty(), "they have no scenario with the same seed in common");
    let mut compared = Compared { runs: both.len(), ..Compared::default() };
    missing(&mut compared, "the first", &before, &both);
    missing(&mut compared, "the second", &after, &both);
    let scenarios: BTreeSet<&str> = both.iter().map(|(scenario, _)| *scenario).collect();
    for scenario in scenarios {
        let keys = both.iter().filter(|(name, _)| *name == scenario);
        let (then, now): (Vec<&Outcome>, Vec<&Outcome>) = keys.map(|key| (before[key], after[key])).unzip();
        one(&mut compared, scenario, &then, &now);
    }
    Ok(compared)
}

/// The runs, under their scenario's name or this one.
fn by_run<'r>(results: &'r Results, name: Option<&'r str>) -> Runs<'r> {
    let key = |outcome: &'r Outcome| (name.unwrap_or(&outcome.scenario), outcome.seed);
    results.outcomes.iter().map(|outcome| (key(outcome), outcome)).collect()
}

/// What these runs are called, if all are of one cluster from a file.
fn name_of_a_file(results: &Results) -> Option<&str> {
    let first = results.outcomes.first()?;
    let same = |outcome: &Outcome| outcome.from_file && outcome.scenario == first.scenario;
    results.outcomes.iter().all(same).then_some(&first.scenario)
}

fn missing(compared: &mut Compared, side: &str, runs: &Runs<'_>, both: &BTreeSet<(&str, u64)>) {
    let mut seeds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (scenario, seed) in runs.keys().filter(|key| !both.contains(key)) {
        seeds.entry(scenario).or_default().push(seed.to_string());
    }
    for (scenario, seeds) in seeds {
        compared.missing.push(format!("{scenario}, seed {}: only in {side}", seeds.join(" ")));
    }
}

fn one(compared: &mut Compared, scenario: &str, before: &[&Outcome], after: &[&Outcome]) {
    let mut note = |what: &str, from: String, to: String, sense: Sense| {
        let moved = Moved { scenario: scenario.to_owned(), what: what.to_owned(), from_to: (from, to), sense };
        compared.moved.push(moved);
    };
    let (then, now) = (kinds(before), kinds(after));
    for kind in then.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        let (then, now) = (then.get(kind).copied().unwrap_or(0), now.get(kind).copied().unwrap_or(0));
        let told = |runs: usize| if runs == 0 { "in no run".to_owned() } else { format!("in {}", count(runs, "run")) };
        if then != now {
            note(&format!("{kind} broken"), told(then), told(now), if now > then { Sense::Worse } else { Sense::Better });
        }
    }
    let (then, now) = (exercised(before), exercised(after));
    for number in then.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        let told =
            |runs: usize| if runs == 0 { "not exercised".to_owned() } else { format!("exercised in {}", count(runs, "run")) };
        let sense = match (then.get(number).copied().unwrap_or(0), now.get(number).copied().unwrap_or(0)) {
            // What is no longer looked at is no longer shown to hold. Where few runs looked, that may be luck.
            (runs, 0) if 2 * runs > before.len() => Sense::Worse,
            (0, runs) if 2 * runs > after.len() => Sense::Better,
            (0, _) | (_, 0) => Sense::Neither,
            _ => continue,
        };
        let of = |all: &BTreeMap<u8, usize>| told(all.get(number).copied().unwrap_or(0));
        note(&format!("invariant {number}"), of(&then), of(&now), sense);
    }
    let (then, now) = (spread::figures(before.iter().copied()), spread::figures(after.iter().copied()));
    for (name, was) in &then {
        match now.get(name) {
            Some(is) => figure(name, was, is, &mut note),
            None => note(&words(name), number(was.p50), "missing".to_owned(), Sense::Neither),
        }
    }
    for (name, is) in now.iter().filter(|(name, _)| !then.contains_key(*name)) {
        note(&words(name), "missing".to_owned(), number(is.p50), Sense::Neither);
    }
}

/// What was broken, in how many runs.
fn kinds(runs: &[&Outcome]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for kind in runs.iter().flat_map(|outcome| outcome.broken_kinds()) {
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// In how many runs each invariant could have been broken; those that could be in none are missing.
pub(super) fn exercised(runs: &[&Outcome]) -> BTreeMap<u8, usize> {
    let mut exercised = BTreeMap::new();
    for outcome in runs {
        // Who could have broken both halves of one counts once.
        let looked: BTreeSet<u8> =
            outcome.invariants.iter().filter(|judged| judged.evaluated > 0).map(|judged| judged.number).collect();
        for number in looked {
            *exercised.entry(number).or_default() += 1;
        }
    }
    exercised
}

fn figure(name: &str, was: &Spread, is: &Spread, note: &mut impl FnMut(&str, String, String, Sense)) {
    let sense = |from: f64, to: f64| match (more_is_worse(name), to > from) {
        (false, _) => Sense::Neither,
        (true, true) => Sense::Worse,
        (true, false) => Sense::Better,
    };
    let counts = |from: f64, to: f64, spread: f64| {
        let apart = (to - from).abs();
        apart > spread && apart > grain(name) && apart > SHARE * from.abs().max(to.abs())
    };
    if counts(was.p50, is.p50, was.middle().max(is.middle())) {
        note(&format!("{}, p50", words(name)), number(was.p50), number(is.p50), sense(was.p50, is.p50));
    }
    // How far apart the runs are on the side whose worst is less bad.
    let width = if is.p99 > was.p99 { was.most - was.least } else { is.most - is.least };
    let twice = was.p99.max(is.p99) >= TAIL * was.p99.min(is.p99);
    // Of one run the worst is the median.
    if was.runs.min(is.runs) > 1 && twice && counts(was.p99, is.p99, width) {
        note(&format!("{}, p99", words(name)), number(was.p99), number(is.p99), sense(was.p99, is.p99));
    }
}

/// A figure and its unit.
pub(super) fn words(name: &str) -> String {
    let (words, unit) = label(name);
    if unit.is_empty() { words } else { format!("{words} ({unit})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::outcome::{Broken, Judged};

    fn results(figure: &str, values: &[f64]) -> Results {
        let outcomes = values.iter().zip(1..).map(|(value, seed)| {
            let mut outcome = Outcome::fallen("a-story", seed, Vec::new());
            outcome.figures.insert(figure.to_owned(), *value);
            outcome
        });
        Results::of(outcomes.collect(), BTreeMap::new())
    }

    fn moved(figure: &str, before: &[f64], after: &[f64]) -> Vec<(String, Sense)> {
        let compared = compare(&results(figure, before), &results(figure, after)).unwrap();
        compared.moved.into_iter().map(|moved| (moved.what, moved.sense)).collect()
    }

    #[test]
    fn a_result_compared_with_itself_has_not_moved() {
        let results = results("first_byte_p50_ms", &[5.0, 9.0, 300.0]);
        let compared = compare(&results, &results).unwrap();
        assert!(compared.moved.is_empty() && compared.missing.is_empty() && !compared.worse());
        assert_eq!(compared.runs, 3);
    }

    #[test]
    fn what_lies_within_the_spread_of_seeds_has_not_moved() {
        assert_eq!(moved("first_byte_p50_ms", &[100.0, 200.0, 300.0], &[150.0, 250.0, 350.0]), []);
    }

    #[test]
    fn medians_further_apart_than_the_spread_of_seeds_have_moved() {
        let worse = moved("first_byte_p50_ms", &[100.0, 110.0, 120.0], &[200.0, 210.0, 220.0]);
        assert_eq!(worse[0], ("first byte p50 (ms), p50".to_owned(), Sense::Worse));
        let better = moved("first_byte_p50_ms", &[200.0, 210.0, 220.0], &[100.0, 110.0, 120.0]);
        assert_eq!(better[0].1, Sense::Better);
        let other = moved("connections", &[100.0, 110.0, 120.0], &[200.0, 210.0, 220.0]);
        assert_eq!(other[0].1, Sense::Neither, "more connections are nobody's fault");
    }

    #[test]
    fn one_run_far_beyond_all_others_has_moved() {
        let worse = moved("first_byte_slowest_ms", &[100.0, 110.0, 120.0], &[100.0, 110.0, 900.0]);
        assert_eq!(worse, [("first byte slowest (ms), p99".to_owned(), Sense::Worse)]);
        let better = moved("first_byte_slowest_ms", &[100.0, 110.0, 900.0], &[100.0, 110.0, 120.0]);
        assert_eq!(better, [("first byte slowest (ms), p99".to_owned(), Sense::Better)]);
    }

    #[test]
    fn what_breaks_and_what_is_no_longer_looked_at_is_worse() {
        let judged = |number, evaluated, broken| Judged {
            number,
            name: "a rule".to_owned(),
            evaluated,
            broken,
            first: vec![Broken { at: 1, what: "it broke".to_owned() }],
        };
        let (mut good, mut bad) = (results("connections", &[1.0]), results("connections", &[1.0]));
        good.outcomes[0].invariants = vec![judged(1, 9, 0), judged(2, 9, 0)];
        bad.outcomes[0].invariants = vec![judged(1, 9, 1), judged(2, 0, 0)];
        let compared = compare(&good, &bad).unwrap();
        assert_eq!(compared.moved.iter().filter(|moved| moved.sense == Sense::Worse).count(), 2, "{:?}", compared.moved);
        assert!(!compare(&bad, &good).unwrap().worse());
    }

    #[test]
    fn what_only_one_of_them_has_is_told_and_is_no_fault() {
        let (one, two) = (results("connections", &[1.0]), results("connections", &[1.0, 2.0]));
        let compared = compare(&one, &two).unwrap();
        assert_eq!(compared.missing, ["a-story, seed 2: only in the second"]);
        assert!(!compared.worse());
    }

    #[test]
    fn two_clusters_from_files_are_two_configurations_whatever_the_files_are_called() {
        let of = |name: &str, value: f64| {
            let mut results = results("first_byte_p50_ms", &[value]);
            results.outcomes[0] = Outcome { scenario: name.to_owned(), from_file: true, ..results.outcomes[0].clone() };
            results
        };
        let compared = compare(&of("as-it-is", 10.0), &of("as-it-could-be", 90.0)).unwrap();
        assert_eq!((compared.runs, compared.worse()), (1, true));
        assert_eq!(compared.moved[0].scenario, "as-it-is / as-it-could-be");
    }

    #[test]
    fn results_without_a_common_run_cannot_be_compared() {
        let mut other = results("connections", &[1.0]);
        other.outcomes[0].scenario = "another".to_owned();
        assert!(compare(&results("connections", &[1.0]), &other).is_err());
    }
}
