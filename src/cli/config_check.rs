//! `prismesh config check`: what `run` would use, and where each value comes from.

use std::sync::Arc;

use anyhow::Context as _;

use super::keygen::KEYRING_MOST;
use super::output::{Failure, print, say};
use super::settings::Settings;
use crate::agent::process::StartError;
use crate::config::{Config, ConfigError, Loaded, Setting, Sources};
use crate::gossip::keys::Keyring;
use crate::probe::{Before, Trust};
use crate::world::{Store, real};

pub(super) fn check(settings: Settings) -> Result<(), Failure> {
    let sources = settings.sources();
    let store = real::Files;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let loaded = runtime.block_on(load(&sources, &store))?;
    // `run` would wait for it; who checks wants to know.
    if let Some(missing) = loaded.missing.first() {
        return Err(missing.error.clone().into());
    }
    for warning in &loaded.warnings {
        say(&format!("warning: {warning}"));
    }
    let (files, clock) = (Arc::new(real::Files), Arc::new(real::SystemClock));
    let trust = runtime.block_on(Trust::load(files, clock, &loaded.config, Before::Nothing));
    let trust = trust.map_err(|error| Failure::Start(StartError::Configuration(error.to_string())))?;
    if let Some(problem) = trust.problem() {
        say(&format!("warning: {problem}; nothing would be verified"));
    }
    print(&loaded.effective.to_yaml())
}

/// Loads the configuration and looks into the keyring, whose format is gossip's and not the configuration's to know.
pub(super) async fn load(sources: &Sources, store: &dyn Store) -> Result<Loaded, ConfigError> {
    let mut loaded = Config::load(sources, store).await?;
    let Some(gossip) = &loaded.config.gossip else { return Ok(loaded) };
    if loaded.missing.iter().any(|missing| missing.setting == Setting::Keyring) {
        return Ok(loaded);
    }
    let read = store.read(&gossip.keyring, KEYRING_MOST).await.map_err(|error| error.to_string());
    match read.and_then(|text| Keyring::parse_for(&text, loaded.config.is_core()).map_err(|error| error.to_string())) {
        Ok(keyring) => {
            if keyring.is_full() && !loaded.config.is_core() {
                loaded.warnings.push(format!(
                    "{} is a full keyring, and this node is a worker: whoever takes this node over can sign for every control \
                     plane; give it what `prismesh key public` prints",
                    gossip.keyring.display()
                ));
            }
            Ok(loaded)
        }
        Err(error) => {
            let what = format!("{} is not a keyring that this node can use: {error}", gossip.keyring.display());
            Err(loaded.effective.complaint(Setting::Keyring, what, "make one with `prismesh keygen FILE`"))
        }
    }
}
