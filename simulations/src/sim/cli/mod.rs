//! The command line of the simulations: one file a subcommand.
//!
//! Exit codes: 0 all held, 1 something was broken, 2 it was called wrongly or a file is bad.
#![expect(clippy::print_stderr, reason = "this is what people read")]

use std::process::ExitCode;

use clap::Subcommand;

/// Prints a line. Who reads only the first of them, as in `list | head -1`, wants no complaint about the rest.
macro_rules! say {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($what)*);
    }};
}

mod baselines;
mod calibrate;
mod compare;
mod explain;
mod growth;
mod list;
mod pool;
mod replay;
mod report;
mod reports;
mod run;
pub mod sabotages;
mod shrink;
mod story;
mod sweep;
mod table;

/// What the simulations are asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Name the scenarios.
    List(list::List),
    /// Play one scenario, or a cluster of your own, in virtual time.
    Run(Box<run::Run>),
    /// Name the ways to spoil an agent, or see who notices.
    Sabotages(sabotages::Sabotages),
    /// Play many scenarios with many seeds, each in a process of its own.
    Sweep(Box<sweep::Sweep>),
    /// Take from a story that fails whatever is not needed for it.
    Shrink(Box<shrink::Shrink>),
    /// Show what `prismesh explain` shows on one node of a simulated cluster at one moment.
    Explain(Box<explain::Explain>),
    /// Measure what peers' reports are worth to a node that has just come.
    Reports(reports::Reports),
    /// Measure how things grow with the size of a cluster.
    Growth(growth::Growth),
    /// Look whether the engine decides as it did when an event log was written.
    Replay(replay::Replay),
    /// Make a page of results, to be looked at.
    Report(report::Report),
    /// Set two results side by side: the same scenarios and seeds, and what moved.
    Compare(compare::Compare),
}

impl Command {
    /// Does it.
    pub fn main(self) -> ExitCode {
        let done = match self {
            Command::List(list) => list.execute(),
            Command::Run(run) => run.execute(),
            Command::Sabotages(sabotages) => sabotages.execute(),
            Command::Sweep(sweep) => sweep.execute(),
            Command::Shrink(shrink) => shrink.execute(),
            Command::Explain(explain) => explain.execute(),
            Command::Reports(reports) => reports.execute(),
            Command::Growth(growth) => growth.execute(),
            Command::Replay(replay) => replay.execute(),
            Command::Report(report) => report.execute(),
            Command::Compare(compare) => compare.execute(),
        };
        match done {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("simulations: {error:#}");
                ExitCode::from(2)
            }
        }
    }
}
