//! Logs, to standard error, through the one thread that writes there.

use std::io::{self, IsTerminal};

use anyhow::Context as _;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat, Setting, Sources};
use crate::log::Log;
use crate::world::real;

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

/// Logs for as long as the guard lives, on this thread alone, before the configuration is known: in JSON if a flag or the
/// environment says so.
pub(super) async fn early(sources: &Sources, log: &'static Log) -> DefaultGuard {
    let without_file = Sources { file: None, ..sources.clone() };
    let json = match without_file.merge(&real::Files).await {
        Ok((layer, _)) => layer.value(Setting::LogFormat).is_some_and(|format| format.text == "json"),
        Err(_) => false,
    };
    let lines = tracing_subscriber::fmt().log_internal_errors(false).with_ansi(false).with_writer(move || log);
    if json {
        tracing::subscriber::set_default(lines.json().flatten_event(true).finish())
    } else {
        tracing::subscriber::set_default(lines.finish())
    }
}

/// The gossip library tells of every round's trouble, and that of HTTP/2 of every frame; what matters of it this crate tells itself.
/// Who names one of them gets it all.
fn quieted(filter: &str) -> String {
    const LIBRARIES: [&str; 2] = ["chitchat", "h2"];
    let unnamed = LIBRARIES.into_iter().filter(|library| !filter.contains(library));
    unnamed.fold(filter.to_owned(), |quieted, library| format!("{quieted},{library}=error"))
}
