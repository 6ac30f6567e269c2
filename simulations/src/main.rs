//! `simulations demo`: watch prismesh at work. `simulations run`, `sweep` and so on: whole clusters in virtual time. The hidden
//! subcommands are the lab's children.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use simulations::demo;
use simulations::differential;
use simulations::gossip;
use simulations::lab::{apiserver, balancer, children};
use simulations::sim;

/// Demonstrations and simulations of prismesh.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Break a small control plane, piece by piece, and watch who notices.
    Demo(demo::Options),
    /// Pairs of equal clients, one through prismesh and one direct, while things break.
    Differential(differential::Options),
    /// What gossip costs and how fast it is, with real agents, beside its goals.
    Gossip(gossip::Options),
    /// Clusters in virtual time.
    #[command(flatten)]
    Simulated(sim::cli::Command),
    /// prismesh, as a child of the lab.
    #[command(hide = true, disable_help_flag = true)]
    Agent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// An apiserver of the lab.
    #[command(hide = true)]
    Apiserver(apiserver::Options),
    /// The external balancer of the lab.
    #[command(hide = true)]
    Balancer(balancer::Options),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if matches!(command, Command::Agent { .. } | Command::Balancer(_)) {
        children::end_with_stdin();
    }
    match command {
        Command::Simulated(command) => command.main(),
        Command::Demo(options) => demo::main(&options),
        Command::Differential(options) => differential::main(&options),
        Command::Gossip(options) => gossip::main(&options),
        Command::Agent { args } => agent(args),
        Command::Apiserver(options) => child(apiserver::serve(options)),
        Command::Balancer(options) => child(balancer::serve(options)),
    }
}

/// One thread is enough for a child, and three apiservers share two cores with everything else.
#[expect(clippy::print_stderr, reason = "the parent keeps what its children print")]
fn child(serve: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(serve)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn agent(args: Vec<OsString>) -> ExitCode {
    prismesh::cli::main(std::iter::once("prismesh".into()).chain(args))
}
