//! `prismesh config check`: what `run` would use, and where each value comes from.

use anyhow::Context as _;

use super::output::{Failure, print, say};
use super::settings::Settings;
use super::{run, seams};

pub(super) fn check(settings: Settings) -> Result<(), Failure> {
    let sources = settings.sources();
    let store = seams::store();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let loaded = runtime.block_on(run::load(&sources, &*store))?;
    for warning in &loaded.warnings {
        say(&format!("warning: {warning}"));
    }
    print(&loaded.effective.to_yaml())
}
