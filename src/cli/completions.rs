//! `prismesh completions`: a script for a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::output::{Failure, print};

/// Prints the script. For bash: `prismesh completions bash > /etc/bash_completion.d/prismesh`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "prismesh", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
