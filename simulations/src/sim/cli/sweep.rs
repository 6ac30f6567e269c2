//! `sweep`: many scenarios with many seeds.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::time::Instant;

use super::baselines;
use super::pool::{self, Job, Played};
use super::story::{matching, name_of};
use super::table::Table;
use crate::scenarios;
use crate::sim::baseline::{Baseline, Checked};
use crate::sim::file;
use crate::sim::outcome::{Outcome, PROGRAM};
use crate::sim::results::{self, Results};
use crate::sim::scenario::{Class, Scenario};

/// Failures that are listed in full.
const LISTED: usize = 30;
/// How the committed baseline is made.
const BASELINE_AGAIN: &str = "sweep --seeds 3 --write-baseline simulations/baseline.json";
/// The width of the progress bar.
const BAR: usize = 30;

/// Which runs, and where they are kept.
#[derive(Debug, Args)]
pub struct Sweep {
    /// So many seeds of each scenario.
    #[arg(long, default_value_t = 10, value_name = "N")]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1, value_name = "S")]
    from: u64,
    /// The long scenarios in place of the quick ones.
    #[arg(long)]
    long: bool,
    /// Only these scenarios, quick or long; a * at the end of a name stands for whatever follows.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// A cluster of your own, a YAML file, in place of the scenarios.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["long", "only", "smallest", "baseline", "write_baseline"])]
    cluster: Option<PathBuf>,
    /// The smallest cluster in which each story means something.
    #[arg(long)]
    smallest: bool,
    /// Write results.json to this directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Play everything again with the external balancer alone, and with a model of KubePrism's published rules, in prismesh's place.
    #[arg(long)]
    baselines: bool,
    /// Fail if figures are worse than in this file beyond a tolerance.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write figures to this file, for --baseline; what it holds of scenarios that are not played is kept.
    #[arg(long, value_name = "FILE", conflicts_with = "baseline")]
    write_baseline: Option<PathBuf>,
    /// A run that takes longer than this on the wall is ended, and has failed.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    wall: u64,
    /// Runs at the same time [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

impl Sweep {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let stories = self.stories()?;
        let baseline = self.baseline.as_deref().map(Baseline::read).transpose()?;
        if let Some(baseline) = &baseline {
            baseline.suits(&self.seeds().collect(), self.smallest)?;
        }
        if let Some(dir) = &self.out {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let begun = Instant::now();
        let results = self.play(&stories)?;
        if let Some(dir) = &self.out {
            results::write_json(&dir.join("results.json"), &results)?;
        }
        summary(&results, begun.elapsed());
        list_failures(&results);
        if self.baselines {
            baselines::tell(&results.outcomes, &results.baselines);
        }
        if let Some(dir) = &self.out {
            say!("written to {}", dir.join("results.json").display());
        }
        let passed = results.outcomes.iter().all(Outcome::passed);
        if let Some(path) = &self.write_baseline {
            anyhow::ensure!(passed, "runs that failed are no baseline: {} was left as it is", path.display());
            self.write(&results, path)?;
        }
        let kept = baseline.map(|baseline| baseline.check(&results.outcomes, self.smallest)).transpose()?;
        Ok(passed & kept.is_none_or(|checked| tell_checked(&checked)))
    }

    fn write(&self, results: &Results, path: &Path) -> anyhow::Result<()> {
        let mut baseline = Baseline::of(&results.outcomes, self.smallest);
        if path.exists() {
            let exists = |name: &str| scenarios::ALL.iter().any(|scenario| scenario.name == name);
            baseline.fill_from(Baseline::read(path)?, exists).with_context(|| path.display().to_string())?;
        }
        baseline.write(path)?;
        say!("written to {}", path.display());
        Ok(())
    }

    /// What is played, and what follows `run` to name it.
    fn stories(&self) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        if let Some(path) = &self.cluster {
            file::plan(path)?;
            return Ok(vec![(name_of(path), vec!["--cluster".to_owned(), path.to_string_lossy().into_owned()])]);
        }
        let scenarios = self.scenarios()?;
        Ok(scenarios.into_iter().map(|scenario| (scenario.name.to_owned(), vec![scenario.name.to_owned()])).collect())
    }

    fn scenarios(&self) -> anyhow::Result<Vec<&'static Scenario>> {
        let class = if self.long { Class::Long } else { Class::Quick };
        if self.only.is_empty() {
            return Ok(scenarios::ALL.iter().filter(|scenario| scenario.class == class).collect());
        }
        let wanted: Vec<_> = self.only.iter().map(|name| matching(name)).collect::<anyhow::Result<_>>()?;
        let wanted: Vec<_> = wanted.iter().flatten().map(|scenario| scenario.name).collect();
        Ok(scenarios::ALL.iter().filter(|scenario| wanted.contains(&scenario.name)).collect())
    }

    fn seeds(&self) -> Range<u64> {
        self.from..self.from.saturating_add(self.seeds)
    }

    fn job(&self, (name, words): &(String, Vec<String>), seed: u64) -> Job {
        let mut arguments = words.clone();
        arguments.extend(["--seed".to_owned(), seed.to_string()]);
        if self.smallest {
            arguments.push("--smallest".to_owned());
        }
        Job { name: name.clone(), seed, arguments }
    }

    fn play(&self, stories: &[(String, Vec<String>)]) -> anyhow::Result<Results> {
        let jobs: Vec<Job> = stories.iter().flat_map(|story| self.seeds().map(|seed| self.job(story, seed))).collect();
        anyhow::ensure!(!jobs.is_empty(), "there is nothing to play");
        let mut played: BTreeMap<usize, Played> = BTreeMap::new();
        let mut bar = Bar::new(jobs.len());
        let at_once = self.jobs.unwrap_or_else(pool::cores);
        pool::play_all(&jobs, at_once, Duration::from_secs(self.wall), |place, it| {
            bar.advance(&it.outcome);
            played.insert(place, it);
        })?;
        bar.end();
        let wall_s = played.values().map(|it| (Results::key(&it.outcome), it.seconds)).collect();
        let outcomes = played.into_values().map(|it| it.outcome).collect();
        let mut results = Results::of(outcomes, wall_s);
        if self.baselines {
            results.baselines = baselines::play(&jobs, at_once, Duration::from_secs(self.wall))?;
        }
        Ok(results)
    }
}

fn list_failures(results: &Results) {
    let failed: Vec<&Outcome> = results.outcomes.iter().filter(|outcome| !outcome.passed()).collect();
    for outcome in failed.iter().take(LISTED) {
        say!("FAILED: {}, seed {}", outcome.scenario, outcome.seed);
        for failure in outcome.failures() {
            say!("  {failure}");
        }
        say!("  again: {}", outcome.command());
    }
    if failed.len() > LISTED {
        say!("and {} more", failed.len() - LISTED);
    }
}

/// What came of all runs, by scenario.
fn summary(results: &Results, took: Duration) {
    let mut table = Table::new(&["scenario", "runs", "failed", "broken", "not exercised"]);
    let mut by_scenario: Vec<(&str, Vec<&Outcome>)> = Vec::new();
    for outcome in &results.outcomes {
        match by_scenario.last_mut() {
            Some((name, runs)) if *name == outcome.scenario => runs.push(outcome),
            _ => by_scenario.push((&outcome.scenario, vec![outcome])),
        }
    }
    for (name, runs) in &by_scenario {
        let failed = runs.iter().filter(|outcome| !outcome.passed()).count();
        let cells = [(*name).to_owned(), runs.len().to_string(), failed.to_string(), broken(runs), idle(runs)];
        table.row(cells.into());
    }
    for line in table.lines() {
        say!("{line}");
    }
    let runs = results.outcomes.len();
    let failed = results.outcomes.iter().filter(|outcome| !outcome.passed()).count();
    let virtual_s: u64 = results.outcomes.iter().map(|outcome| outcome.virtual_ms / 1_000).sum();
    say!("{runs} runs, {virtual_s} virtual s, in {:.0} s: {}", took.as_secs_f64(), chance(failed, runs));
}

/// Tells what is worse than the baseline, and whether nothing is.
fn tell_checked(checked: &Checked) -> bool {
    for missing in &checked.missing {
        say!("{missing}");
    }
    for worse in &checked.worse {
        say!("WORSE than the baseline: {worse}");
    }
    if !checked.worse.is_empty() {
        say!("if that is as it should be: {PROGRAM} {BASELINE_AGAIN}");
    } else if checked.scenarios > 0 {
        say!("no worse than the baseline in {} scenarios", checked.scenarios);
    }
    checked.worse.is_empty()
}

/// How sure one can be after so many runs. After none of n failed, more than 3/n of all would have been seen with 95%.
pub(super) fn chance(failed: usize, runs: usize) -> String {
    if failed > 0 {
        return format!("{failed} failed");
    }
    let most = 100.0 * (3.0 / runs.max(1) as f64).min(1.0);
    format!("none failed, so with 95% at most {most:.1}% of all runs of this kind would (3/n)")
}

/// What was broken in some run.
fn broken(runs: &[&Outcome]) -> String {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for kind in runs.iter().flat_map(|outcome| outcome.broken_kinds()) {
        *found.entry(kind).or_default() += 1;
    }
    let told = found.iter().map(|(kind, runs)| format!("{kind} in {runs}"));
    told.collect::<Vec<_>>().join(", ")
}

/// Invariants that no run could have broken; with its name a half of one whose other half some could have.
fn idle(runs: &[&Outcome]) -> String {
    let mut looked: BTreeMap<u8, BTreeMap<&str, u64>> = BTreeMap::new();
    for judged in runs.iter().flat_map(|outcome| &outcome.invariants) {
        *looked.entry(judged.number).or_default().entry(&judged.name).or_default() += judged.evaluated;
    }
    let told = |(number, halves): (&u8, &BTreeMap<&str, u64>)| {
        let idle: Vec<&str> = halves.iter().filter(|(_, evaluated)| **evaluated == 0).map(|(name, _)| *name).collect();
        match idle.as_slice() {
            [] => None,
            all if all.len() == halves.len() => Some(number.to_string()),
            some => Some(format!("{number} ({})", some.join(", "))),
        }
    };
    looked.iter().filter_map(told).collect::<Vec<_>>().join(" ")
}

/// Progress, on a terminal.
struct Bar {
    all: usize,
    done: usize,
    failed: usize,
    shown: bool,
}

impl Bar {
    fn new(all: usize) -> Bar {
        Bar { all, done: 0, failed: 0, shown: std::io::stderr().is_terminal() }
    }

    fn advance(&mut self, outcome: &Outcome) {
        self.done += 1;
        self.failed += usize::from(!outcome.passed());
        if self.shown {
            let full = BAR * self.done / self.all.max(1);
            let (bar, rest) = ("#".repeat(full), " ".repeat(BAR - full));
            let (done, all, failed, scenario) = (self.done, self.all, self.failed, &outcome.scenario);
            // The end of the line before may be longer.
            eprint!("\r\x1b[K[{bar}{rest}] {done} of {all}, {failed} failed, last {scenario} {}", outcome.seed);
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::outcome::Judged;

    #[test]
    fn what_no_run_could_have_broken_is_told_by_its_number_and_half_of_it_by_its_name() {
        let judged =
            |number, name: &str, evaluated| Judged { number, name: name.to_owned(), evaluated, broken: 0, first: Vec::new() };
        let invariants = vec![
            judged(4, "no needless reset", 0),
            judged(8, "calm in noise", 0),
            judged(8, "calm after a step", 0),
            judged(9, "balance of new", 3),
        ];
        let run = Outcome { invariants, ..Outcome::fallen("calm", 1, Vec::new()) };
        let mut other = run.clone();
        other.invariants.push(judged(9, "balance of established", 0));
        assert_eq!(idle(&[&run, &other]), "4 8 9 (balance of established)");
    }

    #[test]
    fn no_failure_in_n_runs_is_told_with_its_bound() {
        assert!(chance(0, 300).contains("at most 1.0%"));
        assert!(chance(0, 1).contains("at most 100.0%"));
        assert_eq!(chance(2, 300), "2 failed");
    }
}
