//! What a report is made of: results of several files, put together, each run once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::scenarios;
use crate::sim::outcome::{Carrier, Outcome};
use crate::sim::results::{Build, Calibrated, Caught, Point, Reports, Results, read_json};
use crate::sim::scenario::Scenario;

/// All that was read.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Each build, with the files that come from it.
    pub(super) builds: Vec<(Build, Vec<String>)>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) baselines: Vec<Outcome>,
    pub(super) growth: Vec<Point>,
    pub(super) reports: Vec<Reports>,
    pub(super) matrix: Vec<Caught>,
    pub(super) calibration: Vec<Calibrated>,
    /// How long it all took on the wall, in seconds.
    pub(super) wall_s: f64,
    /// Runs that were in more than one file. The same run twice says no more than once.
    pub(super) repeated: usize,
}

impl Gathered {
    /// Reads results (`sweep --out`, `run --json`) and lists of what was caught (`sabotages --json`), and takes what was measured
    /// just now.
    ///
    /// # Errors
    /// A file cannot be read, is neither, or there is nothing in any of them.
    pub fn read(paths: &[PathBuf], measured: Option<Results>) -> anyhow::Result<Gathered> {
        let mut all = Gathered::default();
        if let Some(measured) = measured {
            all.add(Path::new("measured just now"), measured);
        }
        for path in paths {
            let value: Value = read_json(path)?;
            let what = || format!("{}:1: no results of a sweep, of a run or of sabotages", path.display());
            if value.is_array() {
                all.matrix.extend(serde_json::from_value::<Vec<Caught>>(value).with_context(what)?);
            } else {
                all.add(path, serde_json::from_value(value).with_context(what)?);
            }
        }
        anyhow::ensure!(!all.is_empty(), "there is nothing to report on");
        Ok(all)
    }

    fn is_empty(&self) -> bool {
        let runs = self.outcomes.is_empty() && self.baselines.is_empty();
        runs && self.matrix.is_empty() && self.growth.is_empty() && self.reports.is_empty() && self.calibration.is_empty()
    }

    fn add(&mut self, path: &Path, results: Results) {
        // All are called results.json: it is the directory that tells them apart.
        let file = path.iter().rev().take(2).map(|part| part.to_string_lossy()).collect::<Vec<_>>();
        let file = file.into_iter().rev().collect::<Vec<_>>().join("/");
        match self.builds.iter_mut().find(|(build, _)| *build == results.build) {
            Some((_, files)) => files.push(file),
            None => self.builds.push((results.build, vec![file])),
        }
        self.wall_s += results.wall_s.values().sum::<f64>();
        self.repeated += take_new(&mut self.outcomes, results.outcomes) + take_new(&mut self.baselines, results.baselines);
        self.growth.extend(results.growth);
        self.growth.sort_by_key(|point| point.nodes);
        self.reports.extend(results.reports);
        self.matrix.extend(results.matrix);
        self.calibration.extend(results.calibration);
    }

    /// The runs, scenario by scenario, in the order in which they were played.
    pub(super) fn chapters(&self) -> Vec<Chapter<'_>> {
        let mut chapters: Vec<Chapter> = Vec::new();
        for outcome in &self.outcomes {
            match chapters.iter_mut().find(|chapter| chapter.name == outcome.scenario) {
                Some(chapter) => chapter.runs.push(outcome),
                None => chapters.push(Chapter::begin(outcome, &self.baselines)),
            }
        }
        chapters
    }
}

/// Adds those that are not there yet, and says how many were.
fn take_new(all: &mut Vec<Outcome>, more: Vec<Outcome>) -> usize {
    let key = |outcome: &Outcome| (outcome.scenario.clone(), outcome.seed, outcome.by, outcome.hash.clone());
    let mut seen: BTreeSet<_> = all.iter().map(key).collect();
    let before = all.len() + more.len();
    all.extend(more.into_iter().filter(|outcome| seen.insert(key(outcome))));
    before - all.len()
}

/// All runs of one scenario.
pub(super) struct Chapter<'r> {
    pub(super) name: &'r str,
    /// [`None`] if this build does not know it: a cluster from a file, or another revision's.
    pub(super) scenario: Option<&'static Scenario>,
    pub(super) runs: Vec<&'r Outcome>,
    /// The same story with something else in prismesh's place.
    pub(super) others: Vec<&'r Outcome>,
}

/// What all runs of a scenario say of one invariant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub(super) number: u8,
    pub(super) name: String,
    pub(super) evaluated: u64,
    pub(super) broken: u64,
}

impl<'r> Chapter<'r> {
    fn begin(first: &'r Outcome, baselines: &'r [Outcome]) -> Chapter<'r> {
        Chapter {
            name: &first.scenario,
            scenario: scenarios::ALL.iter().find(|scenario| scenario.name == first.scenario),
            runs: vec![first],
            others: baselines.iter().filter(|outcome| outcome.scenario == first.scenario).collect(),
        }
    }

    pub(super) fn failed(&self) -> usize {
        self.runs.iter().filter(|outcome| !outcome.passed()).count()
    }

    /// The run that is shown: one that failed if there is one; of those the one that served its clients worst.
    pub(super) fn worst(&self) -> &'r Outcome {
        let figure = |outcome: &Outcome, name: &str| outcome.figures.get(name).copied().unwrap_or(0.0);
        let bad = |outcome: &Outcome| {
            (!outcome.passed(), figure(outcome, "connections_failed"), figure(outcome, "first_byte_slowest_after_10_s_ms"))
        };
        let mut worst = self.runs[0];
        for outcome in &self.runs {
            if bad(outcome) > bad(worst) {
                worst = outcome;
            }
        }
        worst
    }

    pub(super) fn invariants(&self) -> Vec<Held> {
        let mut all: Vec<Held> = Vec::new();
        for judged in self.runs.iter().flat_map(|outcome| &outcome.invariants) {
            match all.iter_mut().find(|held| held.name == judged.name) {
                Some(held) => {
                    held.evaluated += judged.evaluated;
                    held.broken += judged.broken;
                }
                None => all.push(Held {
                    number: judged.number,
                    name: judged.name.clone(),
                    evaluated: judged.evaluated,
                    broken: judged.broken,
                }),
            }
        }
        all.sort_by_key(|held| held.number);
        all
    }
}

/// What people call it.
pub(super) fn carrier(by: Carrier) -> &'static str {
    match by {
        Carrier::Prismesh => "prismesh",
        Carrier::Balancer => "the external balancer only",
        Carrier::KubeprismModel => "a model of KubePrism's published rules",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sim::outcome::Judged;

    fn run(scenario: &str, seed: u64, failed: f64, complaints: &[&str]) -> Outcome {
        let complaints = complaints.iter().map(|it| (*it).to_owned()).collect();
        let mut outcome = Outcome { hash: format!("{seed}"), ..Outcome::fallen(scenario, seed, complaints) };
        outcome.figures.insert("connections_failed".to_owned(), failed);
        outcome
    }

    fn gathered(files: Vec<Vec<Outcome>>) -> Gathered {
        let mut all = Gathered::default();
        for outcomes in files {
            all.add(Path::new("results.json"), Results::of(outcomes, BTreeMap::new()));
        }
        all
    }

    #[test]
    fn a_run_that_stands_in_two_files_counts_once() {
        let again = run("calm", 1, 0.0, &[]);
        let all = gathered(vec![vec![again.clone(), run("busy", 1, 0.0, &[])], vec![again, run("calm", 2, 0.0, &[])]]);
        assert_eq!((all.outcomes.len(), all.repeated, all.builds.len()), (3, 1, 1));
        let chapters = all.chapters();
        let told: Vec<(&str, usize)> = chapters.iter().map(|chapter| (chapter.name, chapter.runs.len())).collect();
        assert_eq!(told, [("calm", 2), ("busy", 1)]);
    }

    #[test]
    fn the_run_that_is_shown_is_one_that_failed_or_else_the_worst() {
        let good = gathered(vec![vec![run("calm", 1, 0.0, &[]), run("calm", 2, 7.0, &[]), run("calm", 3, 2.0, &[])]]);
        assert_eq!(good.chapters()[0].worst().seed, 2);
        let bad = gathered(vec![vec![run("calm", 1, 0.0, &["it panicked"]), run("calm", 2, 7.0, &[])]]);
        assert_eq!((bad.chapters()[0].worst().seed, bad.chapters()[0].failed()), (1, 1));
    }

    #[test]
    fn an_invariant_is_told_of_all_seeds_together() {
        let judged =
            |evaluated, broken| Judged { number: 4, name: "no needless reset".to_owned(), evaluated, broken, first: Vec::new() };
        let of = |seed, evaluated, broken| Outcome { invariants: vec![judged(evaluated, broken)], ..run("calm", seed, 0.0, &[]) };
        let all = gathered(vec![vec![of(1, 3, 0), of(2, 0, 0), of(3, 5, 1)]]);
        let held = all.chapters()[0].invariants();
        assert_eq!(held, [Held { number: 4, name: "no needless reset".to_owned(), evaluated: 8, broken: 1 }]);
    }
}
