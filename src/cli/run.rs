//! `prismesh run`: configuration, logs, and then the agent.

use anyhow::Context as _;

use super::output::Failure;
use super::settings::Settings;
use super::{logging, seams};
use crate::config::Config;

pub(super) fn run(settings: Settings) -> Result<(), Failure> {
    let sources = settings.sources();
    let store = seams::store();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let loaded = Config::load(&sources, &*store).await?;
        logging::start(&loaded.config)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(seams::agent(loaded, sources).await?)
    })
}
