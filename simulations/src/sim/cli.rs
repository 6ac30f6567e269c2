//! The command line of the simulations.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what people read")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::draw::Draw;
use super::outcome::Outcome;
use super::run::{self, Options};
use super::scenario::Cast;
use crate::scenarios;

/// Plays one scenario with one seed.
#[derive(Debug, Args)]
pub struct Run {
    /// The scenario's name; `list` prints them all.
    scenario: String,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The smallest cluster in which the story means something.
    #[arg(long)]
    smallest: bool,
    /// Write the outcome to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Show the agents' logs: a `tracing` filter.
    #[arg(long)]
    log: Option<String>,
}

impl Run {
    /// Plays it.
    pub fn main(&self) -> ExitCode {
        match self.play() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::from(2)
            }
        }
    }

    fn play(&self) -> anyhow::Result<bool> {
        let scenario = scenarios::ALL.iter().find(|scenario| scenario.name == self.scenario);
        let Some(scenario) = scenario else { anyhow::bail!("there is no scenario {:?}; `list` prints them all", self.scenario) };
        let plan = (scenario.plan)(&Cast { draw: Draw::of(self.seed), smallest: self.smallest });
        let begun = Instant::now();
        let ran = run::run(&plan, self.seed, &Options { log: self.log.clone(), ..Options::default() })?;
        let took = begun.elapsed();
        let outcome = Outcome::of(scenario, &ran);
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_vec(&outcome)?)?;
        }
        tell(&outcome, took.as_secs_f64());
        Ok(outcome.passed())
    }
}

fn tell(outcome: &Outcome, took: f64) {
    let times = outcome.virtual_ms as f64 / 1e3 / took;
    println!(
        "{} seed {}: {} nodes, {} virtual s in {took:.2} s ({times:.0} times), hash {}",
        outcome.scenario,
        outcome.seed,
        outcome.nodes,
        outcome.virtual_ms / 1000,
        outcome.hash
    );
    for (name, figure) in &outcome.figures {
        println!("  {name} {figure:.1}");
    }
    for judged in &outcome.invariants {
        let how = match (judged.evaluated, judged.broken) {
            (0, 0) => "not exercised".to_owned(),
            (evaluated, 0) => format!("held {evaluated} times"),
            (evaluated, broken) => format!("BROKEN {broken} of {evaluated} times"),
        };
        println!("  {:>2} {:<18} {how}", judged.number, judged.name);
        for broken in judged.first.iter().take(5) {
            println!("       at {} ms: {}", broken.at, broken.what);
        }
    }
    for (what, list) in
        [("promise", &outcome.broken_promises), ("complaint", &outcome.complaints), ("left over", &outcome.leftovers)]
    {
        for item in list.iter().take(10) {
            println!("  {what}: {item}");
        }
    }
}
