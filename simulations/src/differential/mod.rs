//! Whatever a client survives without prismesh it must survive with it.
//!
//! Pairs of equal clients do the same at the same time, on real sockets: one through a real agent, the other directly with the apiserver
//! that the agent chose for the first. Faults are drawn, and overlap. A client *survives* if its exchange ends as it would have without a
//! fault: all bytes, no reset. A pair *differs* if the direct client survived and the one of prismesh did not, or not for as long;
//! one that differs fails the run. Exempt is only what clients want: see [`exempt`].
//!
//! Nothing here decides anything for the agent, and nothing is known of its rules but the bounds that it promises.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::lab::netns::{Again, enter_again};
use crate::sim::span;
use draw::{Possible, Trial, World};
use report::{Report, say};
use stage::{AgentProgram, Servers};

pub mod draw;
mod exchange;
pub mod exempt;
mod faults;
mod judge;
mod pair;
mod play;
mod report;
mod stage;

/// No trial begins so late before the end that it could not be over by then.
const TRIAL: Duration = Duration::from_secs(45);

/// What the differential test takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How long: 2m, 10m, 1h
    #[arg(long = "for", default_value = "2m", value_name = "SPAN", value_parser = span::parse)]
    pub lasts: u64,
    /// What all trials are drawn from; drawn itself if not given
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Only this trial of the seed
    #[arg(long, value_name = "N")]
    pub trial: Option<u64>,
    /// Write the result here, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Another prismesh to try, instead of this build's
    #[arg(long, value_name = "PROGRAM")]
    pub agent: Option<PathBuf>,
    /// Trials with the lab's own apiservers at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub lanes: u8,
}

/// Runs it. 0: no pair differs; 1: one does; 2: it could not begin.
pub fn main(options: &Options) -> ExitCode {
    match begin(options) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("the differential test could not go on: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn begin(options: &Options) -> Result<ExitCode> {
    let seed = options.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    let again = std::env::args_os().skip(1).chain(if options.seed.is_none() { seed_flag(seed) } else { Vec::new() });
    let drops = match enter_again(again)? {
        Again::Inside => true,
        Again::Ended(code) => return Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))),
        Again::Forbidden(why) => {
            say(&format!("LEFT OUT: lost packets, one way and both. {why}"));
            false
        }
    };
    let runtime = tokio::runtime::Runtime::new()?;
    // Dropping the run ends all of its children.
    runtime.block_on(async {
        tokio::select! {
            ended = run(options, seed, Possible { drops, kubernetes: false }) => ended,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        }
    })
}

fn seed_flag(seed: u64) -> Vec<OsString> {
    vec!["--seed".into(), seed.to_string().into()]
}

/// Which trials are to be played.
struct Plan {
    seed: u64,
    possible: Possible,
    only: Option<u64>,
    ends: Instant,
    next: Mutex<u64>,
}

impl Plan {
    /// The next trial; [`None`]: it is over.
    fn next(&self) -> Option<Trial> {
        let mut next = self.next.lock().ok()?;
        let begun = *next > 0;
        if let Some(only) = self.only {
            *next += 1;
            return (!begun).then(|| Trial::draw(self.seed, only, self.possible));
        }
        if begun && Instant::now() + TRIAL > self.ends {
            return None;
        }
        let trial = Trial::draw(self.seed, *next, self.possible);
        *next += 1;
        Some(trial)
    }
}

async fn run(options: &Options, seed: u64, possible: Possible) -> Result<ExitCode> {
    let itself = std::env::current_exe().context("where am I?")?;
    let program = match &options.agent {
        Some(program) => AgentProgram { program: program.clone(), args: vec!["run".into()] },
        None => AgentProgram { program: itself.clone(), args: vec!["agent".into(), "run".into()] },
    };
    let plan = Plan {
        seed,
        possible,
        only: options.trial,
        ends: Instant::now() + Duration::from_millis(options.lasts),
        next: Mutex::new(0),
    };
    let report = Mutex::new(Report::new(seed));
    say(&format!("seed {seed}: the same trials again with --seed {seed}, one of them with --trial N"));
    let lanes = (0..options.lanes).map(|_| lab_lane(&plan, &itself, &program, &report));
    futures_util::future::try_join_all(lanes).await?;
    let report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    say(&report.summary());
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One trial after the other, each with servers of its own.
async fn lab_lane(plan: &Plan, itself: &std::path::Path, program: &AgentProgram, report: &Mutex<Report>) -> Result<()> {
    while let Some(trial) = plan.next() {
        debug_assert_eq!(trial.world, World::Lab);
        let mut servers = Servers::lab(itself).await?;
        let played = play::play(trial, &mut servers, program).await?;
        if let Ok(mut report) = report.lock() {
            say(&report.add(&played));
        }
    }
    Ok(())
}
