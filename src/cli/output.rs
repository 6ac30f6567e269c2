//! Printing, and how a command ends.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::agent::process::StartError;
use crate::config::ConfigError;

/// Why a command did not go well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Wrongly configured or called; nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The agent could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It failed while running.
    #[error("{0:#}")]
    Runtime(#[from] anyhow::Error),
    /// Whoever read our output has gone, as in `prismesh status | head -1`: no failure.
    #[error("the output was closed")]
    Closed,
    /// It has been told already, and the process ends with this code.
    #[error("told already")]
    Told(u8),
}

impl Failure {
    /// The exit code that says so.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::Closed => 0,
            Failure::Config(_) | Failure::Start(StartError::Configuration(_)) => 2,
            Failure::Runtime(_) | Failure::Start(_) => 1,
            Failure::Told(code) => *code,
        }
    }
}

/// Prints to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Closed),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output").into()),
    }
}

/// Says something to a person, on standard error. A closed one is not worth failing for.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "prismesh: {line}");
}

/// Tells a failure, and turns the end of a command into the process's.
pub(super) fn end(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if !matches!(failure, Failure::Closed | Failure::Told(_)) {
        say(&failure.to_string());
    }
    ExitCode::from(failure.exit_code())
}

/// An exit code from a number.
pub(super) fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Foreign text for a terminal: control characters would move its cursor or change its title.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
