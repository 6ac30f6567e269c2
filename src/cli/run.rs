//! `prismesh run`: configuration, logs, and then the agent.

use anyhow::Context as _;

use super::output::Failure;
use super::settings::Settings;
use super::{config_check, logging};
use crate::agent::process;
use crate::service;
use crate::world::real;

/// Threads that carry at most: more buy nothing for an apiserver's traffic, and each costs memory on every node.
const WORKERS: usize = 4;

pub(super) fn run(settings: Settings) -> Result<(), Failure> {
    let sources = settings.sources();
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
        Ok(process::run(loaded, sources, inherited).await?)
    })
}
