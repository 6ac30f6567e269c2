//! The command line: one file a subcommand. It prints, and calls in; what a command means is elsewhere in the library.
//!
//! Exit codes: 0 it went well, 1 it failed while running, 2 it was called or configured wrongly, and then nothing was started.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod admin;
mod completions;
mod config_check;
mod explain;
mod forget;
mod key;
mod keygen;
mod logging;
mod output;
mod peers;
mod record;
mod run;
mod settings;
mod status;
mod table;

pub use explain::explained;
use output::Failure;

/// A node-local balancer for the Kubernetes API that learns the control plane by gossip.
#[derive(Debug, Parser)]
#[command(
    name = "prismesh",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 ok, 1 failed while running, 2 wrong usage or configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent of this node.
    Run(Box<run::Run>),
    /// Show this node's agent and its upstreams, best first.
    Status(status::Status),
    /// Show the other nodes as gossip sees them.
    Peers(peers::Peers),
    /// Show, for each endpoint, why it stands where it stands.
    Explain(explain::Explain),
    /// Remove a control plane that is gone for good: every node drops what it knows of it.
    Forget(forget::Forget),
    /// Make a new full keyring for gossip.
    Keygen(keygen::Keygen),
    /// Print the reader keyring, or change the keys of gossip while it runs in three steps: add, promote, remove.
    #[command(subcommand)]
    Key(key::Key),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell.
    Completions(completions::Completions),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the configuration that `run` would use, and where each value comes from; refuse what `run` would refuse.
    Check(Box<settings::Settings>),
}

/// Runs the command line `args`, the program's name first, and says how it ended.
///
/// Writes to standard output and standard error; may start a runtime of its own, so it must not be called from inside one.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help, version and wrong usage; where nobody reads it there is nobody to tell.
            let _ = error.print();
            return output::exit_code(error.exit_code());
        }
    };
    output::end(execute(cli.command))
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(run) => run::run(*run),
        Command::Status(status) => status.execute(),
        Command::Peers(peers) => peers.execute(),
        Command::Explain(explain) => explain.execute(),
        Command::Forget(forget) => forget.execute(),
        Command::Keygen(keygen) => keygen.execute(),
        Command::Key(key) => key.execute(),
        Command::Config(ConfigCommand::Check(settings)) => config_check::check(*settings),
        Command::Completions(completions) => completions.execute(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;
    use crate::config::Setting;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_setting_with_its_variable_and_default() {
        let mut command = Cli::command();
        command.build();
        let run = command.find_subcommand_mut("run").unwrap();
        let help = run.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in Setting::ALL {
            for part in [format!("--{setting}"), setting.variable(), setting.about().default.to_owned()] {
                assert!(help.contains(&part), "{part} is missing in:\n{help}");
            }
        }
        assert!(help.contains("PRISMESH_CONFIG"));
    }
}
