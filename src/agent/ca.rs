//! The CA as a file: that one was in force is remembered, and one that is missing is looked for.
//!
//! An agent that takes a CA that it cannot read for a CA that does not exist would believe every server that speaks TLS. So the state
//! directory remembers that there was one. To run without a CA again, remove that file.

use std::path::PathBuf;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::config::Config;
use crate::probe::{Before, Trust};
use crate::world::Store;

/// A CA that is missing is looked for this often.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// In the state directory: a CA was in force.
const MARKER: &str = "ca-in-force";
const MARKER_MOST: usize = 4096;

/// How it stands with the CA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaStatus {
    /// Certificates are verified.
    pub in_force: bool,
    /// One is configured, or was in force, and cannot be read: why.
    pub problem: Option<String>,
}

impl CaStatus {
    /// Of what probes believe.
    pub fn of(trust: &Trust) -> CaStatus {
        CaStatus { in_force: trust.has_ca(), problem: trust.problem().map(str::to_owned) }
    }

    /// What `status` says of it, if something is to be said.
    pub(super) fn note(&self) -> Option<String> {
        match (&self.problem, self.in_force) {
            (Some(problem), true) => Some(format!("{problem}; the CA that was read before stays in force")),
            (Some(problem), false) => Some(format!(
                "{problem}; nothing is verified: configured endpoints carry, those that gossip or the cache names do not, and no \
                 probe token is sent"
            )),
            (None, true) => None,
            (None, false) => Some("no CA: apiservers cannot be told from others".to_owned()),
        }
    }

    /// Logs what has changed since.
    pub(super) fn log(&self, before: &CaStatus) {
        match &self.problem {
            Some(_) if self.problem != before.problem => {
                let note = self.note().unwrap_or_default();
                error!(every_s = RETRY.as_secs(), "{note}; it is looked for again and again");
            }
            None if before.problem.is_some() && self.in_force => info!("the CA is read, and in force"),
            _ => {}
        }
    }
}

/// Whether a CA was in force in an earlier run.
pub(super) async fn before(store: &dyn Store, config: &Config) -> Before<'static> {
    match store.read(&marker(config), MARKER_MOST).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Before::Nothing,
        Ok(_) => Before::InForce,
        Err(error) => {
            let path = marker(config);
            warn!(path = %path.display(), %error, "cannot tell whether a CA was in force before; if none is found now, one is taken to have been");
            Before::InForce
        }
    }
}

/// Keeps on disk that a CA is in force.
pub(super) async fn remember(store: &dyn Store, config: &Config, trust: &Trust) {
    if !trust.has_ca() || store.read(&marker(config), MARKER_MOST).await.is_ok() {
        return;
    }
    let text = "A CA was in force here. While this file exists, an agent that cannot read its CA believes nobody but the endpoints that \
                are configured.\n";
    if let Err(error) = store.write(&marker(config), text.as_bytes()).await {
        let path = marker(config);
        warn!(path = %path.display(), %error, "cannot remember that a CA is in force: an agent that starts without it will not know");
    }
}

fn marker(config: &Config) -> PathBuf {
    config.state_dir.join(MARKER)
}
