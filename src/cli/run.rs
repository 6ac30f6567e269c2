//! `prismesh run`: configuration, logs, and then the agent.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::output::Failure;
use super::record::Log;
use super::settings::Settings;
use super::{config_check, logging};
use crate::agent::decide::{Decide, Recorded};
use crate::agent::process;
use crate::service;
use crate::world::real;

/// Threads that carry at most: more buy nothing for an apiserver's traffic, and each costs memory on every node.
const WORKERS: usize = 4;

/// `prismesh run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    settings: Settings,

    /// Write every event that the engine is told, and what it answers, to this file as JSON lines, so that what it decided can
    /// be replayed. About 1 MB a minute in a small cluster; it names nodes and addresses
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

pub(super) fn run(run: Run) -> Result<(), Failure> {
    let sources = run.settings.sources();
    // Before there are other threads: it changes the environment.
    let inherited = service::inherited();
    let store = real::Files;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS.min(std::thread::available_parallelism().map_or(1, usize::from)))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let loaded = config_check::load(&sources, &store).await?;
        logging::start(&loaded.config)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let log = run.record.as_deref().map(Log::create).transpose()?;
        let within = |engine| -> Box<dyn Decide> {
            match log {
                None => Box::new(engine),
                Some(mut log) => Box::new(Recorded::new(engine, move |entry| log.write(entry))),
            }
        };
        Ok(process::run(loaded, sources, inherited, within).await?)
    })
}
