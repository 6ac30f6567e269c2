//! What of a new configuration a running agent can take up.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::files::DEFAULT_CA;
use super::setting::Setting;
use super::{Config, GossipConfig, ProbeCredentials};
use crate::world::Store;

/// What comes of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// What is in force from now on: the new configuration, but for what needs a restart.
    pub config: Config,
    /// The settings that were changed and need a restart: they keep what they had.
    pub restart: Vec<&'static str>,
}

/// A watched file is read up to this many bytes.
const WATCHED_MOST: usize = 1024 * 1024;

impl Config {
    /// What is in force when a running agent with this configuration has loaded `new`.
    ///
    /// A CA that there was is never given up by a reload, because probes would then take anybody for an apiserver: that needs a
    /// restart.
    #[must_use]
    pub fn reload(&self, new: Config) -> Reload {
        let restart = restart_needed(self, &new);
        let gossip = match (&self.gossip, new.gossip) {
            (Some(old), Some(new)) => Some(GossipConfig { seeds: new.seeds, keyring: new.keyring, ..old.clone() }),
            (old, _) => old.clone(),
        };
        let keep_ca = self.ca.is_some() && new.ca.is_none();
        let config = Config {
            node: if self.unnamed() { new.node } else { self.node.clone() },
            gossip,
            external: new.external,
            endpoints: new.endpoints,
            ca: if keep_ca { self.ca.clone() } else { new.ca },
            server_name: new.server_name,
            probe_credentials: new.probe_credentials,
            allow: new.allow,
            file: new.file,
            ..self.clone()
        };
        Reload { config, restart }
    }

    /// The files whose change is a reason to load again: the configuration itself and what it names.
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.file.iter().cloned().collect();
        files.extend(self.gossip.as_ref().map(|gossip| gossip.keyring.clone()));
        files.push(self.ca.clone().unwrap_or_else(|| DEFAULT_CA.into()));
        match &self.probe_credentials {
            Some(ProbeCredentials::Certificate { cert, key }) => files.extend([cert.clone(), key.clone()]),
            Some(ProbeCredentials::Token(token)) => files.push(token.clone()),
            None => {}
        }
        files
    }

    /// A hash over the content of the watched files: another one means that something changed. An unreadable file counts as
    /// missing.
    pub async fn fingerprint(&self, store: &dyn Store) -> [u8; 32] {
        let mut hash = Sha256::new();
        for path in self.watched_files() {
            let content = store.read(&path, WATCHED_MOST).await.ok();
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update([0, u8::from(content.is_some())]);
            hash.update(Sha256::digest(content.unwrap_or_default()));
        }
        hash.finalize().into()
    }
}

/// The settings that differ and that a reload does not take up.
pub fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let gossip_listen = |config: &Config| config.gossip.as_ref().map(|gossip| gossip.listen);
    let advertise = |config: &Config| config.gossip.as_ref().and_then(|gossip| gossip.advertise);
    let both = old.gossip.as_ref().zip(new.gossip.as_ref());
    let changed = [
        (Setting::Cluster, old.cluster != new.cluster),
        (Setting::Node, old.node != new.node && !old.unnamed()),
        (Setting::Listen, old.listen != new.listen),
        (Setting::Admin, old.admin != new.admin),
        (Setting::GossipListen, gossip_listen(old) != gossip_listen(new)),
        (Setting::GossipAdvertise, advertise(old) != advertise(new)),
        (Setting::GossipCore, old.is_core() != new.is_core() && old.apiservers.is_empty() == new.apiservers.is_empty()),
        (Setting::GossipAllowCidr, both.is_some_and(|(old, new)| old.allow != new.allow)),
        (Setting::GossipNamesPerAddress, both.is_some_and(|(old, new)| old.names_per_address != new.names_per_address)),
        (Setting::Apiserver, old.apiservers != new.apiservers),
        (Setting::LocalApiserver, old.local_apiserver != new.local_apiserver),
        (Setting::Ca, old.ca.is_some() && new.ca.is_none()),
        (Setting::MaxConnections, old.max_connections != new.max_connections),
        (Setting::StateDir, old.state_dir != new.state_dir),
        (Setting::LogFormat, old.log_format != new.log_format),
        (Setting::Log, old.log != new.log),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(setting, _)| setting.name()).collect()
}
