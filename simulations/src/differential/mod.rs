//! Whatever a client survives without prismesh it must survive with it.
//!
//! Pairs of equal clients do the same at the same time, on real sockets: one through a real agent, the other directly with the apiserver
//! that the agent chose for the first. Faults are drawn, and overlap. A client *survives* if its exchange ends as it would have without a
//! fault: all bytes, no reset. A pair *differs* if the direct client survived and the one of prismesh did not, or not for as long;
//! one that differs fails the run. Exempt is only what clients want: see [`exempt`].
//!
//! Nothing here decides anything for the agent, and nothing is known of its rules but the bounds that it promises.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::lab::kubernetes::{self, Built};
use crate::lab::netns::{Again, enter_again, inside};
use crate::sim::span;
use draw::{Possible, Trial, World};
use real::Kubernetes;
use report::{Report, say};
use stage::{AgentProgram, Servers};

pub mod draw;
mod exchange;
pub mod exempt;
mod faults;
mod judge;
mod pair;
mod play;
mod real;
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
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub lanes: u8,
    /// No trials with real API servers
    #[arg(long)]
    pub lab_only: bool,
    /// The program with real API servers, which was built already
    #[arg(long, hide = true, value_name = "PROGRAM")]
    pub kubernetes_program: Option<PathBuf>,
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
    let runtime = tokio::runtime::Runtime::new()?;
    let mut options = options.clone();
    let seed = *options.seed.get_or_insert_with(|| rand::random_range(1..1_000_000));
    // Before a network of its own is entered, which leads nowhere.
    if !options.lab_only && options.kubernetes_program.is_none() && !inside() {
        match runtime.block_on(kubernetes::build())? {
            Built::Program(program) => options.kubernetes_program = Some(program),
            Built::Not(why) => say(&format!("SKIPPED: trials with real API servers. {why}")),
        }
    }
    let drops = match enter_again(options.args())? {
        Again::Inside => true,
        Again::Ended(code) => return Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))),
        Again::Forbidden(why) => {
            say(&format!("LEFT OUT: lost packets, one way and both. {why}"));
            false
        }
    };
    let possible = Possible { drops, kubernetes: !options.lab_only && options.kubernetes_program.is_some() };
    // Dropping the run ends all of its children.
    runtime.block_on(async {
        tokio::select! {
            ended = run(&options, seed, possible) => ended,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        }
    })
}

impl Options {
    /// The command line that gives these options.
    fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["differential".into()];
        let mut flag =
            |name: &str, value: Option<OsString>| args.extend(value.into_iter().flat_map(|value| [name.into(), value]));
        flag("--for", Some(self.lasts.to_string().into()));
        flag("--seed", self.seed.map(|seed| seed.to_string().into()));
        flag("--trial", self.trial.map(|trial| trial.to_string().into()));
        flag("--json", self.json.clone().map(OsString::from));
        flag("--agent", self.agent.clone().map(OsString::from));
        flag("--lanes", Some(self.lanes.to_string().into()));
        flag("--kubernetes-program", self.kubernetes_program.clone().map(OsString::from));
        if self.lab_only {
            args.push("--lab-only".into());
        }
        args
    }
}

/// Which trials are to be played.
struct Plan {
    seed: u64,
    possible: Possible,
    only: Option<u64>,
    ends: Instant,
    /// The first number that was not looked at yet, for either world.
    next: Mutex<BTreeMap<World, u64>>,
}

impl Plan {
    /// The next trial in this world; [`None`]: it is over.
    fn next(&self, world: World) -> Option<Trial> {
        let mut next = self.next.lock().ok()?;
        let first = *next.get(&world).unwrap_or(&0);
        if first > 0 && (self.only.is_some() || Instant::now() + TRIAL > self.ends) {
            return None;
        }
        let numbers = self.only.map_or(first..u64::MAX, |only| only..only + 1);
        let trial = numbers.map(|number| Trial::draw(self.seed, number, self.possible)).find(|trial| trial.world == world)?;
        next.insert(world, trial.number + 1);
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
        next: Mutex::default(),
    };
    let report = Mutex::new(Report::new(seed));
    say(&format!("seed {seed}: the same trials again with --seed {seed}, one of them with --trial N"));
    let lab = (0..options.lanes).map(|_| lab_lane(&plan, &itself, &program, &report));
    let real = async {
        match &options.kubernetes_program {
            Some(servers) if possible.kubernetes => real_lane(&plan, servers, &program, &report).await,
            _ => Ok(()),
        }
    };
    futures_util::future::try_join(futures_util::future::try_join_all(lab), real).await?;
    let report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    say(&report.summary());
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One trial after the other, each with servers of its own.
async fn lab_lane(plan: &Plan, itself: &Path, program: &AgentProgram, report: &Mutex<Report>) -> Result<()> {
    while let Some(trial) = plan.next(World::Lab) {
        let mut servers = Servers::lab(itself).await?;
        tell(report, &play::play(trial, &mut servers, program).await?);
    }
    Ok(())
}

/// One trial after the other with the same servers, which come to rest in between.
async fn real_lane(plan: &Plan, servers: &Path, program: &AgentProgram, report: &Mutex<Report>) -> Result<()> {
    let mut next = plan.next(World::Kubernetes);
    if next.is_none() {
        return Ok(());
    }
    let mut kubernetes = Kubernetes::start(servers).await.context("real API servers do not start")?;
    while let Some(trial) = next {
        let played = play::play(trial, &mut kubernetes.servers, program).await?;
        tell(report, &played);
        kubernetes.servers.rest().await.with_context(|| format!("after trial {}", played.trial.number))?;
        next = plan.next(World::Kubernetes);
    }
    Ok(())
}

fn tell(report: &Mutex<Report>, played: &play::Played) {
    if let Ok(mut report) = report.lock() {
        say(&report.add(played));
    }
}
