//! The committed baseline: a few figures of each scenario, small enough to be read in a change.
//!
//! It tells a change that makes something worse from one that does not, on another machine and after any other change. So it holds
//! neither hashes nor single runs: of each figure that is worse the more there is, the median and the most over a few seeds. Whatever
//! changes in an agent changes what it draws, and with that every figure a little; the tolerance is what that came to when nothing
//! but the draws was changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::compare::{exercised, words};
use super::outcome::Outcome;
use super::results::read_json;
use super::spread::{self, grain, more_is_worse};
use super::words::number;

/// How much more a figure may be.
struct Tolerance {
    /// The median, by this share of it.
    p50: f64,
    /// The worst run, by this share of it.
    most: f64,
    /// And by so many of the figure's grain.
    grains: f64,
}

/// Of times and failures. When only draws were changed, medians over three seeds were up to 49% apart and worst runs up to 67%,
/// beside those that are apart by less than the grains.
const LUCK: Tolerance = Tolerance { p50: 0.5, most: 1.0, grains: 10.0 };
/// Of what is done all the time, such as gossip; that moved by less than 2%.
const STEADY: Tolerance = Tolerance { p50: 0.1, most: 0.2, grains: 1.0 };

/// Figures of some scenarios with some seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// With these seeds.
    pub seeds: BTreeSet<u64>,
    /// In the smallest clusters.
    pub smallest: bool,
    /// The scenarios.
    pub scenarios: BTreeMap<String, Kept>,
}

/// What is kept of one scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The invariants that every run could have broken.
    pub exercised: BTreeSet<u8>,
    /// Those that any of them could have broken.
    #[serde(skip)]
    in_some: BTreeSet<u8>,
    /// The figures.
    pub figures: BTreeMap<String, Key>,
}

/// What is kept of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// The median over the seeds.
    pub p50: f64,
    /// The most.
    pub most: f64,
}

/// What came of looking at a baseline.
#[derive(Debug, Default)]
pub struct Checked {
    /// How many scenarios were looked at.
    pub scenarios: usize,
    /// What got worse beyond the tolerance, in words.
    pub worse: Vec<String>,
    /// What could not be looked at, in words.
    pub missing: Vec<String>,
}

impl Baseline {
    /// Of runs, all of which passed.
    pub fn of(outcomes: &[Outcome], smallest: bool) -> Baseline {
        let mut by_scenario: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            by_scenario.entry(&outcome.scenario).or_default().push(outcome);
        }
        let scenarios = by_scenario.into_iter().map(|(name, runs)| (name.to_owned(), Kept::of(&runs)));
        Baseline { seeds: outcomes.iter().map(|outcome| outcome.seed).collect(), smallest, scenarios: scenarios.collect() }
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// It cannot be read, or it is no baseline.
    pub fn read(path: &Path) -> anyhow::Result<Baseline> {
        read_json(path)
    }

    /// Writes it to a file, a line a scenario, so that a change shows which of them moved.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = String::new();
        writeln!(
            text,
            "{{\"seeds\": {}, \"smallest\": {}, \"scenarios\": {{",
            serde_json::to_string(&self.seeds)?,
            self.smallest
        )?;
        for (place, (name, kept)) in self.scenarios.iter().enumerate() {
            let comma = if place + 1 < self.scenarios.len() { "," } else { "" };
            writeln!(text, "{}: {}{comma}", serde_json::to_string(name)?, serde_json::to_string(kept)?)?;
        }
        text.push_str("}}\n");
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes from another what it does not have itself, of the scenarios that still exist.
    ///
    /// # Errors
    /// The other is of other seeds or sizes.
    pub fn fill_from(&mut self, other: Baseline, exists: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let missing: Vec<_> =
            other.scenarios.into_iter().filter(|(name, _)| exists(name) && !self.scenarios.contains_key(name)).collect();
        let same = (&self.seeds, self.smallest) == (&other.seeds, other.smallest);
        anyhow::ensure!(
            same || missing.is_empty(),
            "{} scenarios in it are of other seeds or sizes: play them all, or with the same",
            missing.len()
        );
        self.scenarios.extend(missing);
        Ok(())
    }

    /// Runs with these seeds can be set against it.
    ///
    /// # Errors
    /// It is of other seeds or sizes.
    pub fn suits(&self, seeds: &BTreeSet<u64>, smallest: bool) -> anyhow::Result<()> {
        let sizes = |smallest| if smallest { " in the smallest clusters" } else { "" };
        anyhow::ensure!(
            (&self.seeds, self.smallest) == (seeds, smallest),
            "the baseline is of seeds {:?}{}, these runs are of {seeds:?}{}",
            self.seeds,
            sizes(self.smallest),
            sizes(smallest)
        );
        Ok(())
    }

    /// Whether runs are worse than this.
    ///
    /// # Errors
    /// They are of other seeds or sizes.
    pub fn check(&self, outcomes: &[Outcome], smallest: bool) -> anyhow::Result<Checked> {
        let now = Baseline::of(outcomes, smallest);
        self.suits(&now.seeds, smallest)?;
        let mut checked = Checked::default();
        for (name, is) in &now.scenarios {
            match self.scenarios.get(name) {
                Some(was) => {
                    checked.scenarios += 1;
                    checked.worse.extend(was.worse(is).into_iter().map(|what| format!("{name}: {what}")));
                }
                None => checked.missing.push(format!("{name} is not in the baseline")),
            }
        }
        Ok(checked)
    }
}

impl Kept {
    fn of(runs: &[&Outcome]) -> Kept {
        let looked = exercised(runs);
        let always = looked.iter().filter(|(_, in_runs)| **in_runs == runs.len());
        let figures = spread::figures(runs.iter().copied()).into_iter().filter(|(name, _)| more_is_worse(name));
        let key = |(name, spread): (&str, spread::Spread)| {
            (name.to_owned(), Key { p50: rounded(spread.p50), most: rounded(spread.most) })
        };
        Kept {
            exercised: always.map(|(number, _)| *number).collect(),
            in_some: looked.keys().copied().collect(),
            figures: figures.map(key).collect(),
        }
    }

    /// What is worse, in words.
    fn worse(&self, is: &Kept) -> Vec<String> {
        let idle = self.exercised.difference(&is.in_some);
        let mut worse: Vec<String> =
            idle.map(|number| format!("invariant {number} was exercised, and it no longer is")).collect();
        for (name, was) in &self.figures {
            // A figure that is gone is no worse: a story without an apiserver that comes has no time until all know it.
            let Some(is) = is.figures.get(name) else { continue };
            let tolerance = if name.contains("_per_") { STEADY } else { LUCK };
            for (which, was, is, share) in [("p50", was.p50, is.p50, tolerance.p50), ("most", was.most, is.most, tolerance.most)]
            {
                let bound = was * (1.0 + share) + tolerance.grains * grain(name);
                if is > bound {
                    worse.push(format!(
                        "{}, {which} over seeds: was {}, is {}, and more than {} is too much",
                        words(name),
                        number(was),
                        number(is),
                        number(bound)
                    ));
                }
            }
        }
        worse
    }
}

/// With four digits, so that a line shows only what matters.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let grain = 10_f64.powf(value.abs().log10().floor() - 3.0);
    // Through text, so that it is written with as many digits as it has.
    format!("{:.4}", (value / grain).round() * grain).parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scenario: &str, seed: u64, ms: f64) -> Outcome {
        let mut outcome = Outcome::fallen(scenario, seed, Vec::new());
        outcome.figures.insert("first_byte_slowest_ms".to_owned(), ms);
        outcome.figures.insert("connections".to_owned(), 7.0);
        outcome
    }

    fn runs(ms: f64) -> Vec<Outcome> {
        (1..=3).map(|seed| run("a-story", seed, ms)).collect()
    }

    #[test]
    fn a_sweep_is_not_worse_than_itself_nor_than_what_is_slightly_better() {
        let baseline = Baseline::of(&runs(1_000.0), false);
        for ms in [10.0, 1_000.0, 1_100.0] {
            let checked = baseline.check(&runs(ms), false).unwrap();
            assert!(checked.worse.is_empty(), "{:?}", checked.worse);
            assert_eq!(checked.scenarios, 1);
        }
    }

    #[test]
    fn what_is_worse_beyond_the_tolerance_is_named_with_its_bound() {
        let checked = Baseline::of(&runs(1_000.0), false).check(&runs(5_000.0), false).unwrap();
        assert_eq!(checked.worse.len(), 2);
        let told = "a-story: first byte slowest (ms), p50 over seeds: was 1,000, is 5,000, and more than 1,550 is too much";
        assert_eq!(checked.worse[0], told);
    }

    #[test]
    fn a_scenario_that_the_baseline_lacks_is_told_and_is_no_fault() {
        let mut all = runs(1_000.0);
        all.extend((1..=3).map(|seed| run("a-new-story", seed, 9_000.0)));
        let checked = Baseline::of(&runs(1_000.0), false).check(&all, false).unwrap();
        assert_eq!(checked.missing, ["a-new-story is not in the baseline"]);
        assert!(checked.worse.is_empty());
    }

    #[test]
    fn an_invariant_that_is_no_longer_exercised_is_worse() {
        let mut baseline = Baseline::of(&runs(1.0), false);
        baseline.scenarios.get_mut("a-story").unwrap().exercised.insert(4);
        let checked = baseline.check(&runs(1.0), false).unwrap();
        assert_eq!(checked.worse, ["a-story: invariant 4 was exercised, and it no longer is"]);
    }

    #[test]
    fn other_seeds_or_sizes_cannot_be_checked() {
        let baseline = Baseline::of(&runs(1.0), false);
        assert!(baseline.check(&runs(1.0)[..2], false).is_err());
        assert!(baseline.check(&runs(1.0), true).is_err());
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written_and_keeps_what_was_not_played() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baseline.json");
        let mut all = runs(0.123_456);
        all.push(run("gone", 1, 2.0));
        let old = Baseline::of(&all, false);
        old.write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), old);
        let played: Vec<Outcome> = (1..=3).map(|seed| run("another", seed, 3.0)).collect();
        let mut new = Baseline::of(&played, false);
        new.fill_from(old.clone(), |name| name != "gone").unwrap();
        assert_eq!(new.scenarios.keys().collect::<Vec<_>>(), ["a-story", "another"]);
        assert!(Baseline::of(&played[..1], false).fill_from(old, |_| true).is_err(), "other seeds do not mix");
    }
}
