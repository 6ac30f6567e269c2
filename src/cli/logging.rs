//! Logs, to standard error, through the one thread that writes there.

use std::io::{self, IsTerminal};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::log::Log;

/// Starts logging to `log` as the configuration says. Where a subscriber is already in place, as in a test, it stays.
pub(super) fn start(config: &Config, log: &'static Log) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(quieted(&config.log)).context("the log filter")?;
    // Internal errors would be written to standard error directly, past the thread that may wait for it.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(move || log);
    // An error means that a subscriber is in place.
    let _ = match config.log_format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    Ok(())
}

/// The gossip library tells of every round's trouble; what matters of it this crate tells itself. Who names it gets it all.
fn quieted(filter: &str) -> String {
    if filter.contains("chitchat") { filter.to_owned() } else { format!("{filter},chitchat=error") }
}
