//! What gossip costs and how fast it is, measured with real agents: as many processes as there are nodes, on loopback addresses
//! in a network namespace of their own, beside the goals of the design.
//!
//! The namespace makes the kernel's counters count nothing else, and lets many runs and machines use the same ports. Nothing
//! here decides whether a figure is good enough: a figure that misses its goal is marked in the table.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::demo::interrupted;
use crate::lab::cluster::MOST_NODES;
use crate::lab::netns::{Again, enter_again, inside};
use crate::sim::span;
use figures::{Check, Conditions, Measured, Report};

mod agents;
mod figures;
mod idle;
mod kernel;
mod serf;

/// Memory that a process is expected to need at most, in bytes. An agent's own pages are 5 to 10 MB.
const MEMORY_A_PROCESS: u64 = 32 << 20;
/// Processes beside those of the nodes: agents without gossip, a new worker, apiservers.
const MORE_PROCESSES: u64 = 8;
/// Processes that are started at a time: more would keep those that run from answering.
const BATCH: usize = 10;
/// Nodes that are asked, beside core members, when a piece of news is to be known to all.
const SAMPLE: usize = 20;
/// New nodes that are measured for each kind of seed.
const NEW_NODES: usize = 5;
/// What is waited for takes no longer, or the run has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a node.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks at a single new node.
const CLOSE_LOOK: Duration = Duration::from_millis(5);

/// What the measurement takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Agents
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=i64::from(MOST_NODES)))]
    pub nodes: u8,
    /// Those of them that are core members: control planes, each with an apiserver
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub core: u8,
    /// How long idle agents are measured: 30s, 2m
    #[arg(long = "for", default_value = "60s", value_name = "SPAN", value_parser = span::parse)]
    pub lasts: u64,
    /// How long agents are left alone before that
    #[arg(long, default_value = "15s", value_name = "SPAN", value_parser = span::parse)]
    pub settle: u64,
    /// Measure another program in the same way as well
    #[arg(long, value_enum, value_name = "PROGRAM")]
    pub peer: Option<Peer>,
    /// Write the result here, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Another program that gossips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// HashiCorp's serf, as its package installs it.
    Serf,
}

/// The longest span that idle agents are measured for, so that no run is without end.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs it. 0: everything was measured; 1: something could not be; 2: it could not begin.
pub fn main(options: &Options) -> ExitCode {
    match begin(options) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("gossip cannot be measured: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn begin(options: &Options) -> Result<ExitCode> {
    options.possible()?;
    match enter_again(options.args())? {
        Again::Inside => {}
        Again::Ended(code) => return Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))),
        Again::Forbidden(why) => anyhow::bail!("{why}"),
    }
    // Who ended the process outside the namespace means this one too.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // One thread: what is measured shares the machine with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Dropping the run ends all of its children.
    runtime.block_on(async {
        tokio::select! {
            ended = run(options) => ended,
            signal = interrupted() => signal,
        }
    })
}

impl Options {
    /// Fails where a run could not succeed.
    fn possible(&self) -> Result<()> {
        ensure!(self.nodes > self.core, "{} nodes, {} of them core members: there is no worker", self.nodes, self.core);
        ensure!(self.lasts > 0 && self.measured_for() <= LONGEST, "idle agents are measured for 1 ms to {LONGEST:?}");
        ensure!(Duration::from_millis(self.settle) <= LONGEST, "agents are left alone for at most {LONGEST:?}");
        ensure!(
            self.peer != Some(Peer::Serf) || serf::installed(),
            "serf is not installed (Debian and Ubuntu: apt-get install serf)"
        );
        let needed = (u64::from(self.nodes) + MORE_PROCESSES) * MEMORY_A_PROCESS;
        let available = kernel::available_memory()?;
        ensure!(
            // Once inside, what was possible outside still is.
            inside() || needed <= available,
            "{} nodes may need {} MB of memory, and this machine has {} MB to spare",
            self.nodes,
            needed >> 20,
            available >> 20
        );
        Ok(())
    }

    fn measured_for(&self) -> Duration {
        Duration::from_millis(self.lasts)
    }

    /// The command line that gives these options.
    fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["gossip".into()];
        let mut flag = |name: &str, value: OsString| args.extend([name.into(), value]);
        flag("--nodes", self.nodes.to_string().into());
        flag("--core", self.core.to_string().into());
        flag("--for", self.lasts.to_string().into());
        flag("--settle", self.settle.to_string().into());
        if let Some(Peer::Serf) = self.peer {
            flag("--peer", "serf".into());
        }
        if let Some(file) = &self.json {
            flag("--json", file.into());
        }
        args
    }
}

async fn run(options: &Options) -> Result<ExitCode> {
    let conditions = Conditions {
        nodes: options.nodes,
        core: options.core,
        seconds: options.measured_for().as_secs_f64(),
        optimised: !cfg!(debug_assertions),
        cores: std::thread::available_parallelism()?.get(),
        load_average: kernel::load_average()?,
    };
    let mut report = Report { conditions, prismesh: Measured::new(), check: Check::default(), serf: None };
    let mut ended = agents::measure(options, &mut report.prismesh, &mut report.check).await.context("prismesh");
    if ended.is_ok() && options.peer == Some(Peer::Serf) {
        let (serf, check) = report.serf.insert((Measured::new(), Check::default()));
        ended = serf::measure(options, serf, check).await.context("serf");
    }
    // What was measured before something failed is worth reading.
    say(&report.table());
    let workers = usize::from(options.nodes - options.core);
    if workers > SAMPLE {
        say(&format!("\"the last node\" is the last of the core members and of {SAMPLE} of the {workers} workers"));
    }
    if let Some(file) = &options.json {
        std::fs::write(file, report.json()?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Err(error) = ended {
        say(&format!("FAILED: {error:#}"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// At most so many of these, spread evenly over all of them.
fn sample<T: Copy>(of: &[T], most: usize) -> Vec<T> {
    let step = of.len().div_ceil(most.max(1)).max(1);
    of.iter().copied().step_by(step).collect()
}

/// The mean of these; 0 of none.
fn mean(of: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = of.into_iter().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The median and the greatest of these times, in milliseconds.
fn median_and_slowest(mut times: Vec<Duration>) -> Option<(f64, f64)> {
    times.sort_unstable();
    Some((millis(*times.get(times.len() / 2)?), millis(*times.last()?)))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_all_and_no_larger_than_allowed() {
        let all: Vec<u32> = (0..197).collect();
        let sampled = sample(&all, SAMPLE);
        assert!(sampled.len() <= SAMPLE && sampled.contains(&0) && sampled.iter().any(|place| *place > 180), "{sampled:?}");
        assert_eq!(sample(&all[..3], SAMPLE), [0, 1, 2]);
        assert_eq!(sample(&all[..0], SAMPLE), [0_u32; 0]);
    }

    #[test]
    fn means_and_medians_of_nothing_are_no_panic() {
        assert_eq!(mean([]).to_bits(), 0.0_f64.to_bits());
        assert_eq!(median_and_slowest(Vec::new()), None);
        let times = [3, 1, 2].map(Duration::from_millis).to_vec();
        assert_eq!(median_and_slowest(times), Some((2.0, 3.0)));
    }
}
