//! `prismesh run`: configuration, logs, and then the agent.

use anyhow::Context as _;

use super::keygen::KEYRING_MOST;
use super::output::Failure;
use super::settings::Settings;
use super::{logging, seams};
use crate::config::{Config, ConfigError, Loaded, Setting, Sources};
use crate::world::Store;

pub(super) fn run(settings: Settings) -> Result<(), Failure> {
    let sources = settings.sources();
    let store = seams::store();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let loaded = load(&sources, &*store).await?;
        logging::start(&loaded.config)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(seams::agent(loaded, sources).await?)
    })
}

/// Loads the configuration and looks into the keyring, whose format is gossip's and not the configuration's to know.
pub(super) async fn load(sources: &Sources, store: &dyn Store) -> Result<Loaded, ConfigError> {
    let loaded = Config::load(sources, store).await?;
    let Some(gossip) = &loaded.config.gossip else { return Ok(loaded) };
    let checked = match store.read(&gossip.keyring, KEYRING_MOST).await {
        Ok(text) => seams::keyring::check(&text),
        Err(error) => Err(error.into()),
    };
    match checked {
        Ok(()) => Ok(loaded),
        Err(error) => {
            let what = format!("{} is not a keyring: {error}", gossip.keyring.display());
            Err(loaded.effective.complaint(Setting::Keyring, what, "make one with `prismesh keygen FILE`"))
        }
    }
}
