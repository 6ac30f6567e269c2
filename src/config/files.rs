//! The files that a configuration names: there, readable, of the right kind, and not open to others where they are secret.

use std::io;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::access;
use super::bundle::holds_a_certificate;
use super::error::ConfigError;
use super::file::FILE_MOST;
use super::layer::{Layer, Origin, Sources};
use super::setting::Setting;
use super::{Config, Missing, PLACEHOLDER, ProbeCredentials};
use crate::world::Store;

/// Where kubeadm keeps the cluster's CA.
pub(super) const DEFAULT_CA: &str = "/etc/kubernetes/pki/ca.crt";
/// A PEM file, keyring or token is at most this long, in bytes.
const SECRET_MOST: usize = 1024 * 1024;

impl Sources {
    /// All sources merged, and what a person should know although it is no error.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is not a configuration, or a variable is not text. Values have not been looked at.
    pub async fn merge(&self, store: &dyn Store) -> Result<(Layer, Vec<String>), ConfigError> {
        let mut merged = self.defaults();
        if let Some(path) = &self.file {
            merged = merged.under(read_file(path, store).await?);
        }
        merged = merged.under(self.environment_layer()?).under(self.flags.clone());
        if merged.get(Setting::Ca).is_none() && (expects_ca(&merged) || default_ca_exists(store).await) {
            merged.put(Setting::Ca, &Origin::Default, [DEFAULT_CA]);
        }
        if merged.get(Setting::LocalApiserver).is_none()
            && let Some(first) = merged.values(Setting::Apiserver).first().cloned()
        {
            merged.put(Setting::LocalApiserver, &Origin::Default, [first.text]);
        }
        let unknown = self.unknown_variables();
        let warnings = unknown.into_iter().map(|name| format!("environment {name}: no setting of this name; it is ignored"));
        Ok((merged, warnings.collect()))
    }

    fn defaults(&self) -> Layer {
        let mut layer = Layer::default();
        let mut put = |setting, texts: &[&str]| layer.put(setting, &Origin::Default, texts.iter().copied());
        let hostname = self.hostname.as_deref().filter(|hostname| !hostname.is_empty());
        put(Setting::Node, &[hostname.unwrap_or(PLACEHOLDER)]);
        put(Setting::Listen, &["127.0.0.1:7445", "[::1]:7445"]);
        put(Setting::Admin, &["127.0.0.1:7446"]);
        put(Setting::GossipListen, &["[::]:7447"]);
        put(Setting::ServerName, &["kubernetes"]);
        put(Setting::StateDir, &["/var/lib/prismesh"]);
        put(Setting::LogFormat, &["human"]);
        put(Setting::Log, &["info"]);
        layer
    }
}

/// A probe token is only sent to servers of a CA that is known, so there is one to come.
fn expects_ca(merged: &Layer) -> bool {
    merged.value(Setting::ProbeTokenFile).is_some()
}

/// One that is there and cannot be read is no missing one: whoever answers must not be believed for it.
async fn default_ca_exists(store: &dyn Store) -> bool {
    match store.read(Path::new(DEFAULT_CA), SECRET_MOST).await {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

async fn read_file(path: &Path, store: &dyn Store) -> Result<Layer, ConfigError> {
    let bytes = store.read(path, FILE_MOST).await.map_err(|error| {
        let (what, right) = unreadable(&error, FILE_MOST);
        let what = format!("the configuration file (--config, {}) {what}", Sources::FILE_VARIABLE);
        ConfigError::new(path.display(), what, right).missing(may_come(&error))
    })?;
    Layer::from_yaml(path, &bytes)
}

/// What is wrong with a file that could not be read, and what would be right.
fn unreadable(error: &io::Error, most: usize) -> (String, &'static str) {
    match error.kind() {
        io::ErrorKind::NotFound => ("does not exist".to_owned(), "write the path of a file that is there"),
        io::ErrorKind::PermissionDenied => {
            ("cannot be read: permission denied".to_owned(), "let the user who runs prismesh read it")
        }
        io::ErrorKind::FileTooLarge => (format!("is longer than {most} bytes"), "write the path of the right file"),
        io::ErrorKind::IsADirectory => ("is a directory".to_owned(), "write the path of a file"),
        _ => (format!("cannot be read: {error}"), "write the path of a file that can be read"),
    }
}

/// Whether a file that cannot be read may be there, and readable, later.
fn may_come(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, InvalidFilename, InvalidInput, IsADirectory, NotADirectory};
    !matches!(error.kind(), FileTooLarge | InvalidFilename | InvalidInput | IsADirectory | NotADirectory)
}

/// Checks the files that a configuration names. Those that are missing, or cannot be read for now, are returned.
pub(super) async fn check(config: &Config, given: &Layer, store: &dyn Store) -> Result<Vec<Missing>, ConfigError> {
    let named = Named { given, store };
    let mut missing = Vec::new();
    let mut note = |setting, checked: Result<(), ConfigError>| match checked {
        Err(error) if error.missing => {
            missing.push(Missing { setting, error });
            Ok(())
        }
        checked => checked,
    };
    if let Some(gossip) = &config.gossip {
        note(Setting::Keyring, named.keyring(&gossip.keyring).await)?;
    }
    named.state_directory(&config.state_dir).await?;
    if let Some(ca) = &config.ca {
        named.authorities(ca).await?;
    }
    match &config.probe_credentials {
        Some(ProbeCredentials::Certificate { cert, key }) => {
            note(Setting::ProbeCert, named.certificates(Setting::ProbeCert, cert).await)?;
            note(Setting::ProbeKey, named.private_key(key).await)?;
        }
        Some(ProbeCredentials::Token(token)) => note(Setting::ProbeTokenFile, named.token(token).await)?,
        None => {}
    }
    Ok(missing)
}

/// Files with the settings that name them.
struct Named<'a> {
    given: &'a Layer,
    store: &'a dyn Store,
}

impl Named<'_> {
    fn wrong(&self, setting: Setting, path: &Path, what: &str, right: &str) -> ConfigError {
        self.given.complaint(setting, format!("{} {what}", path.display()), right)
    }

    async fn read(&self, setting: Setting, path: &Path) -> Result<Vec<u8>, ConfigError> {
        self.store.read(path, SECRET_MOST).await.map_err(|error| {
            let (what, right) = unreadable(&error, SECRET_MOST);
            self.wrong(setting, path, &what, right).missing(may_come(&error))
        })
    }

    /// A missing file is told before its permissions are, and both before its content.
    async fn keyring(&self, path: &Path) -> Result<(), ConfigError> {
        let bytes = self.read(Setting::Keyring, path).await?;
        let access = self.store.access(path).await.map_err(|error| {
            let (what, right) = unreadable(&error, SECRET_MOST);
            self.wrong(Setting::Keyring, path, &what, right).missing(may_come(&error))
        })?;
        let checked = access::secret(path, &access, self.store.user());
        checked.map_err(|(what, right)| self.wrong(Setting::Keyring, path, &what, &right))?;
        if bytes.trim_ascii().is_empty() {
            return Err(self.wrong(Setting::Keyring, path, "is empty", "make a key with `prismesh keygen`"));
        }
        Ok(())
    }

    /// One that is not there is made; one that cannot be looked at shows when it is written.
    async fn state_directory(&self, path: &Path) -> Result<(), ConfigError> {
        let Ok(access) = self.store.access(path).await else { return Ok(()) };
        let checked = access::state_directory(&access, self.store.user());
        checked.map_err(|(what, right)| self.wrong(Setting::StateDir, path, &what, &right))
    }

    /// A CA that cannot be read may come yet: the agent looks for it, and meanwhile believes nobody but what is configured.
    async fn authorities(&self, path: &Path) -> Result<(), ConfigError> {
        let bytes = match self.store.read(path, SECRET_MOST).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let (what, right) = unreadable(&error, SECRET_MOST);
                return Err(self.wrong(Setting::Ca, path, &what, right));
            }
            Err(_) => return Ok(()),
        };
        // Whether its certificates are any good is found out where they are used.
        if holds_a_certificate(&bytes) {
            return Ok(());
        }
        Err(self.wrong(Setting::Ca, path, "holds no certificate in PEM", "it begins with -----BEGIN CERTIFICATE-----"))
    }

    async fn certificates(&self, setting: Setting, path: &Path) -> Result<(), ConfigError> {
        let bytes = self.read(setting, path).await?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match found {
            Ok(certificates) if !certificates.is_empty() => Ok(()),
            _ => Err(self.wrong(setting, path, "holds no certificate in PEM", "it begins with -----BEGIN CERTIFICATE-----")),
        }
    }

    async fn private_key(&self, path: &Path) -> Result<(), ConfigError> {
        let bytes = self.read(Setting::ProbeKey, path).await?;
        match PrivateKeyDer::from_pem_slice(&bytes) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.wrong(
                Setting::ProbeKey,
                path,
                "holds no private key in PEM",
                "it begins with -----BEGIN PRIVATE KEY-----",
            )),
        }
    }

    async fn token(&self, path: &Path) -> Result<(), ConfigError> {
        let bytes = self.read(Setting::ProbeTokenFile, path).await?;
        let token = bytes.trim_ascii();
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            return Err(self.wrong(
                Setting::ProbeTokenFile,
                path,
                "holds no bearer token",
                "it holds one token and nothing else",
            ));
        }
        Ok(())
    }
}
