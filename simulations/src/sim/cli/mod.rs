//! The command line of the simulations: one file a subcommand.
//!
//! Exit codes: 0 all held, 1 something was broken, 2 it was called wrongly or a file is bad.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what people read")]

use std::process::ExitCode;

use clap::Subcommand;

mod list;
mod pool;
mod run;
pub mod sabotages;
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
}

impl Command {
    /// Does it.
    pub fn main(self) -> ExitCode {
        let done = match self {
            Command::List(list) => list.execute(),
            Command::Run(run) => run.execute(),
            Command::Sabotages(sabotages) => sabotages.execute(),
            Command::Sweep(sweep) => sweep.execute(),
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
