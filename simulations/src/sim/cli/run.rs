//! `run`: one story, once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum as _};
use tokio::time::Instant;

use super::baselines;
use super::pool::{self, Job};
use super::story::{Story, Told, quoted};
use crate::lab::children;
use crate::sim::measure::{calibration, growth, reports};
use crate::sim::outcome::{Carrier, Outcome, Peaks};
use crate::sim::results::{self, Results};
use crate::sim::run::{self, Options};
use crate::sim::{complaints, words};

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
    /// If it takes longer than this on the wall it is ended, and has failed.
    #[arg(long, value_name = "SECONDS")]
    wall: Option<u64>,
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
        if let Some(seconds) = self.wall {
            self.end_after(Duration::from_secs(seconds), told.scenario.name);
        }
        let begun = Instant::now();
        let outcome = Outcome { again: self.command(), by: self.by, ..self.play(&told)? };
        let took = begun.elapsed().as_secs_f64();
        tell(&outcome, took);
        let passed = outcome.passed() || self.by != Carrier::Prismesh;
        if !passed {
            tell_failure(&outcome);
        }
        let mut results = Results::of(vec![outcome.clone()], [(Results::key(&outcome), took)].into());
        if self.baselines {
            let job = Job { name: outcome.scenario.clone(), seed: self.story.seed, arguments: self.story.arguments() };
            results.baselines.extend(baselines::play(&[job], pool::cores(), WALL)?);
            baselines::tell(&[outcome], &results.baselines);
        }
        if let Some(path) = &self.json {
            results::write_json(path, &results)?;
        }
        Ok(passed)
    }

    /// Plays it, and judges what came of it.
    fn play(&self, told: &Told) -> anyhow::Result<Outcome> {
        let (begun, memory) = (Instant::now(), memory("VmRSS"));
        let options = Options {
            log: self.log.clone(),
            record: self.record.clone(),
            sabotage: self.story.sabotage,
            by: self.by,
            ..Options::default()
        };
        let ran = run::run(&told.plan, self.story.seed, &options);
        let took = begun.elapsed().as_secs_f64();
        let ran = match ran {
            Ok(ran) => ran,
            Err(error) => {
                let heard = complaints::heard();
                // Nobody fell over: it is the story that cannot be played.
                anyhow::ensure!(!heard.is_empty(), self.story.cannot(error, told.scenario.name));
                return Ok(Outcome::fallen(told.scenario.name, self.story.seed, heard));
            }
        };
        let most = self::memory("VmHWM");
        let mut outcome = told.judge(&ran);
        match self.measure {
            Some(Measure::Growth) => {
                outcome.figures.extend(growth::figures(&ran));
                let speed = ran.ended as f64 / 1e3 / took;
                let each = (most - memory) / ran.names.len().max(1) as f64;
                let costs = [("memory_kB_per_node", each), ("memory_MB", most / 1e3), ("wall_s", took), ("speed_times", speed)];
                outcome.figures.extend(costs.map(|(name, value)| (name.to_owned(), value)));
            }
            Some(Measure::Reports) => outcome.figures = reports::figures(&ran),
            Some(Measure::Calibration) => outcome.figures = calibration::figures(&ran),
            None => {}
        }
        Ok(outcome)
    }

    /// What follows the program's name in the command that plays it again.
    fn command(&self) -> String {
        let mut words = self.story.arguments();
        let named = |value: Option<clap::builder::PossibleValue>| value.map(|it| it.get_name().to_owned());
        if self.by != Carrier::Prismesh {
            words.extend(named(self.by.to_possible_value()).into_iter().flat_map(|by| ["--by".to_owned(), by]));
        }
        if let Some(what) = self.measure {
            words.extend(named(what.to_possible_value()).into_iter().flat_map(|what| ["--measure".to_owned(), what]));
        }
        format!("run {}", quoted(&words))
    }

    /// Ends this process, as having failed, if it takes longer. A story that never rests leaves nobody else to do so.
    fn end_after(&self, wall: Duration, name: &str) {
        let fallen = Outcome::fallen(name, self.story.seed, vec![pool::not_ended(wall)]);
        let (outcome, json) = (Outcome { again: self.command(), by: self.by, ..fallen }, self.json.clone());
        std::thread::spawn(move || {
            std::thread::sleep(wall);
            tell_failure(&outcome);
            if let Some(path) = json {
                let _ = results::write_json(&path, &Results::of(vec![outcome], BTreeMap::new()));
            }
            std::process::exit(1);
        });
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
        "{}, seed {}: {} nodes, {} virtual s in {took:.2} s ({} times), hash {}",
        outcome.scenario,
        outcome.seed,
        outcome.nodes,
        outcome.virtual_ms / 1000,
        words::number(times),
        outcome.hash
    );
    for (name, figure) in &outcome.figures {
        say!("  {name} {figure:.1}");
    }
    let Peaks { things_due, connections, datagrams } = outcome.peaks;
    say!("  peaks: {things_due} things due, {connections} connections open, {datagrams} datagrams queued in one socket");
    for judged in &outcome.invariants {
        let how = match (judged.evaluated, judged.broken) {
            (0, 0) => "not exercised".to_owned(),
            (evaluated, 0) => format!("held {evaluated} times"),
            (evaluated, broken) => format!("BROKEN {broken} of {evaluated} times"),
        };
        say!("  {:>2} {:<22} {how}", judged.number, judged.name);
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

fn tell_failure(outcome: &Outcome) {
    say!("FAILED: {}, seed {}", outcome.scenario, outcome.seed);
    for failure in outcome.failures() {
        say!("  {failure}");
    }
    say!("again:  {}", outcome.command());
}
