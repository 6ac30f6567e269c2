//! The demo.
use std::process::ExitCode;
/// What the demo takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {}
/// Runs it.
pub fn main(_: Options) -> ExitCode { ExitCode::SUCCESS }
