//! `run`: one story, once.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::time::Instant;

use super::baselines;
use super::pool::{self, Job};
use super::story::Story;
use crate::lab::children;
use crate::sim::measure::{calibration, growth, reports};
use crate::sim::outcome::{Carrier, Outcome};
use crate::sim::run::{self, Options};
use crate::sim::{complaints, results};

/// How long a baseline may take on the wall.
const WALL: Duration = Duration::from_secs(300);
/// Breaches shown of one invariant.
const SHOWN: usize = 5;

/// Which story, and what is kept of it.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    story: Story,
    /// Write the outcome to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show the agents' logs: a `tracing` filter.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Write each node's event log to this directory, for `replay`.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Add the figures that are measured for clusters of several sizes.
    #[arg(long, value_enum, value_name = "WHAT")]
    measure: Option<Measure>,
    /// What carries the clients' traffic in prismesh's place; invariants are counted then, and fail nothing.
    #[arg(long, value_enum, default_value_t = Carrier::Prismesh)]
    by: Carrier,
    /// Play it again with the external balancer alone, and with a model of KubePrism's published rules, in prismesh's place.
    #[arg(long)]
    baselines: bool,
    /// Ends when its standard input does: somebody started it who may die.
    #[arg(long, hide = true)]
    child: bool,
}

/// What is measured beside the figures of every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    /// Who learnt what when, costs, memory and speed.
    Growth,
    /// How a node that comes late finds what is near.
    Reports,
    /// What can be compared with real sockets.
    Calibration,
}

impl Run {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        if self.child {
            children::end_with_stdin();
        }
        let told = self.story.tell()?;
        if let Some(dir) = &self.record {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let (begun, memory) = (Instant::now(), memory("VmRSS"));
        let options = Options {
            log: self.log.clone(),
            record: self.record.clone(),
            sabotage: self.story.sabotage,
            by: self.by,
            ..Options::default()
        };
        let ran = run::run(&told.plan, self.story.seed, &options);
        let took = begun.elapsed();
        let outcome = match ran {
            Ok(ran) => {
                let grown = self::memory("VmHWM") - memory;
                let mut outcome = told.judge(&ran);
                match self.measure {
                    Some(Measure::Growth) => {
                        outcome.figures.extend(growth::figures(&ran));
                        outcome.figures.insert("memory_kB_per_node".to_owned(), grown / ran.names.len().max(1) as f64);
                        outcome.figures.insert("wall_s".to_owned(), took.as_secs_f64());
                        outcome.figures.insert("speed_times".to_owned(), ran.ended as f64 / 1e3 / took.as_secs_f64());
                    }
                    Some(Measure::Reports) => outcome.figures = reports::figures(&ran),
                    Some(Measure::Calibration) => outcome.figures = calibration::figures(&ran),
                    None => {}
                }
                outcome
            }
            Err(error) => {
                let heard = complaints::heard();
                // Nobody fell over: it is the story that cannot be played.
                anyhow::ensure!(!heard.is_empty(), self.story.cannot(error, told.scenario.name));
                Outcome::fallen(told.scenario.name, self.story.seed, heard)
            }
        };
        if let Some(path) = &self.json {
            results::write_json(path, &outcome)?;
        }
        tell(&outcome, took.as_secs_f64());
        let passed = outcome.passed() || self.by != Carrier::Prismesh;
        if !passed {
            tell_failure(&outcome, &self.story.command("run"));
        }
        if self.baselines {
            let job = Job { name: outcome.scenario.clone(), seed: self.story.seed, arguments: self.story.arguments() };
            let others = baselines::play(&[job], pool::cores(), WALL)?;
            baselines::tell(&[outcome], &others);
        }
        Ok(passed)
    }
}

/// A line of this process's own `/proc/self/status`, in kB; 0 where there is none.
fn memory(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|said| said.strip_prefix(line)?.strip_prefix(':'));
    value.and_then(|value| value.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0.0)
}

fn tell(outcome: &Outcome, took: f64) {
    let times = outcome.virtual_ms as f64 / 1e3 / took;
    say!(
        "{}, seed {}: {} nodes, {} virtual s in {took:.2} s ({times:.0} times), hash {}",
        outcome.scenario,
        outcome.seed,
        outcome.nodes,
        outcome.virtual_ms / 1000,
        outcome.hash
    );
    for (name, figure) in &outcome.figures {
        say!("  {name} {figure:.1}");
    }
    for judged in &outcome.invariants {
        let how = match (judged.evaluated, judged.broken) {
            (0, 0) => "not exercised".to_owned(),
            (evaluated, 0) => format!("held {evaluated} times"),
            (evaluated, broken) => format!("BROKEN {broken} of {evaluated} times"),
        };
        say!("  {:>2} {:<18} {how}", judged.number, judged.name);
        for broken in judged.first.iter().take(SHOWN) {
            say!("       at {} ms: {}", broken.at, broken.what);
        }
    }
    for (what, list) in
        [("promise", &outcome.broken_promises), ("complaint", &outcome.complaints), ("left over", &outcome.leftovers)]
    {
        for item in list.iter().take(2 * SHOWN) {
            say!("  {what}: {item}");
        }
    }
}

fn tell_failure(outcome: &Outcome, command: &str) {
    say!("FAILED: {}, seed {}", outcome.scenario, outcome.seed);
    for failure in outcome.failures() {
        say!("  {failure}");
    }
    say!("again:  {command}");
}
