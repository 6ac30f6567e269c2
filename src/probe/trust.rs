//! Whom a probe believes, and how it introduces itself.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use hyper::header::HeaderValue;
use rustls::client::{ClientConfig, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use tokio::time::timeout;

use super::http::ALPN;
use super::outcome;
use super::verify::{Authorities, Authority, Chain, Judged, Seen, Verifier, judge};
use crate::config::{Bundle, Config, ProbeCredentials};
use crate::engine::event::Outcome;
use crate::world::{Store, WallClock};

/// A CA bundle, certificate or key file is at most this large; public bundles of the whole web are a quarter of it.
const PEM_BYTES: usize = 1 << 20;
/// A token file is at most this large; a service account's token has about 1 KiB.
const TOKEN_BYTES: usize = 16 << 10;
/// A token that cannot be read within this time (a hanging network file system) is taken from memory.
const TOKEN_WAIT: Duration = Duration::from_millis(200);

/// Whom a probe believes (the CA and the name), and how it introduces itself (client certificate or token).
#[derive(Clone)]
pub struct Trust {
    tls: ClientConfig,
    authority: Authority,
    /// A CA is configured, or was in force, and could not be read: why.
    problem: Option<String>,
    provider: Arc<CryptoProvider>,
    server_name: ServerName<'static>,
    token: Option<Arc<Token>>,
    wall: Arc<dyn WallClock>,
}

/// What is known of the CA when it is loaded.
#[derive(Clone, Copy, Debug)]
pub enum Before<'t> {
    /// Nothing: there never was one, as far as is known.
    Nothing,
    /// One was in force in an earlier run of the agent.
    InForce,
    /// This is what is believed so far: a CA that cannot be read any more stays in force.
    Believed(&'t Trust),
}

/// The trust could not be loaded; what was believed before stays.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file could not be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{what} {}: {problem}", path.display())]
    Malformed {
        /// Which file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The name that certificates must cover is neither a DNS name nor an address.
    #[error("{0:?} is not a name that a certificate can cover: a DNS name or an IP address is expected")]
    ServerName(String),
    /// A token without a CA would go to any address that a member names.
    #[error("a probe token needs a CA: without one it would be sent to any address that a member names")]
    TokenWithoutCa,
    /// The TLS library refused.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Trust {
    /// Reads the files that the configuration names. A CA that cannot be read is no error: see [`Trust::problem`].
    ///
    /// # Errors
    /// A file that is readable and wrong, or a credential that cannot be read.
    pub async fn load(
        store: Arc<dyn Store>,
        wall: Arc<dyn WallClock>,
        config: &Config,
        before: Before<'_>,
    ) -> Result<Trust, TrustError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (authority, problem) = authority(&*store, config, &provider, before).await?;
        let server_name = server_name(&config.server_name).ok_or_else(|| TrustError::ServerName(config.server_name.clone()))?;
        let verifier = Verifier { authority: authority.clone(), provider: provider.clone(), seen: Arc::default() };
        let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(TimeOfDay(wall.clone())))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut tls = match &config.probe_credentials {
            Some(ProbeCredentials::Certificate { cert, key }) => {
                let (certificates, private) = read_identity(&*store, cert, key).await?;
                builder.with_client_auth_cert(certificates, private).map_err(|error| malformed(CERTIFICATE, cert, &error))?
            }
            _ => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        // A resumed session shows no certificate, so that nothing would be verified or noted.
        tls.resumption = Resumption::disabled();
        let token = match &config.probe_credentials {
            Some(ProbeCredentials::Token(_)) if matches!(authority, Authority::Anybody) => {
                return Err(TrustError::TokenWithoutCa);
            }
            Some(ProbeCredentials::Token(path)) => Some(Arc::new(Token::load(store, path).await?)),
            _ => None,
        };
        Ok(Trust { tls, authority, problem, provider, server_name, token, wall })
    }

    /// The same with the CA as its file is now, however it stands with the other files.
    ///
    /// # Errors
    /// A file that is readable and wrong.
    pub async fn with_ca(&self, store: &dyn Store, config: &Config) -> Result<Trust, TrustError> {
        let (authority, problem) = authority(store, config, &self.provider, Before::Believed(self)).await?;
        Ok(Trust { authority, problem, ..self.clone() })
    }

    /// Whether certificates are verified against a CA.
    pub fn has_ca(&self) -> bool {
        matches!(self.authority, Authority::Known(_))
    }

    /// Why the CA that is configured, or was in force, could not be read. If one was believed before, it stays in force.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// There may be a CA to come: none is in force, or its file cannot be read any more.
    pub fn wants_ca(&self) -> bool {
        !self.has_ca() || self.problem.is_some()
    }

    /// Verifies what a server has shown, without asking it again.
    pub(super) fn judge(&self, chain: &Chain, own: Option<&str>) -> Result<Judged, Outcome> {
        let Some(((end_entity, intermediates), name)) = chain.split_first().zip(self.name(own)) else {
            return Err(Outcome::LocalError("nothing was shown".to_owned()));
        };
        let judged = judge(&self.authority, end_entity, intermediates, &name, time_of_day(&*self.wall));
        judged.map_err(|error| outcome::of_tls(&error))
    }

    /// TLS for one connection; what its verification saw is noted in the second.
    pub(super) fn tls(&self) -> (Arc<ClientConfig>, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let verifier = Verifier { authority: self.authority.clone(), provider: self.provider.clone(), seen: seen.clone() };
        let mut tls = self.tls.clone();
        tls.dangerous().set_certificate_verifier(Arc::new(verifier));
        (Arc::new(tls), seen)
    }

    /// How long a certificate is still valid; [`None`] if it is not, or that cannot be read.
    pub(super) fn valid_for(&self, seen: &Seen) -> Option<Duration> {
        let ends = u64::try_from(seen.not_after()?).ok()?;
        ends.checked_sub(time_of_day(&*self.wall).as_secs()).filter(|left| *left > 0).map(Duration::from_secs)
    }

    /// Whether another one believes the same authorities and the same name, so that nothing has to be verified again.
    pub fn believes_as(&self, other: &Trust) -> bool {
        let same = match (&self.authority, &other.authority) {
            (Authority::Anybody, Authority::Anybody) | (Authority::Missing(_), Authority::Missing(_)) => true,
            (Authority::Known(one), Authority::Known(another)) => one.certificates == another.certificates,
            _ => false,
        };
        same && self.server_name == other.server_name
    }

    /// The name to ask for: the order's own, or the cluster's ordinary one. [`None`] if it is no name.
    pub(super) fn name(&self, own: Option<&str>) -> Option<ServerName<'static>> {
        own.map_or_else(|| Some(self.server_name.clone()), server_name)
    }

    /// The `Authorization` header for one connection: only to a server with a valid certificate of a CA that is known.
    pub(super) async fn authorization(&self, seen: &Seen) -> Option<HeaderValue> {
        match &self.token {
            Some(token) if self.has_ca() && seen.lack().is_none() && !seen.expired() => Some(token.header().await),
            _ => None,
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("ca", &self.has_ca()).field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

const CA: &str = "the CA file";
const CERTIFICATE: &str = "the probe certificate";
const KEY: &str = "the probe key";
const TOKEN: &str = "the probe token file";

fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

async fn read(store: &dyn Store, what: &'static str, path: &Path, most: usize) -> Result<Vec<u8>, TrustError> {
    store.read(path, most).await.map_err(|source| TrustError::Unreadable { what, path: path.to_owned(), source })
}

fn malformed(what: &'static str, path: &Path, problem: &(impl ToString + ?Sized)) -> TrustError {
    TrustError::Malformed { what, path: path.to_owned(), problem: problem.to_string() }
}

/// Whom to believe, and why the CA could not be read if it could not.
async fn authority(
    store: &dyn Store,
    config: &Config,
    provider: &Arc<CryptoProvider>,
    before: Before<'_>,
) -> Result<(Authority, Option<String>), TrustError> {
    let problem = match &config.ca {
        Some(path) => match store.read(path, PEM_BYTES).await {
            Ok(pem) => return Ok((Authority::Known(Arc::new(authorities(path, &pem, provider)?)), None)),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(malformed(CA, path, &error)),
            Err(error) => format!("the CA file {} cannot be read: {error}", path.display()),
        },
        None => match before {
            Before::Nothing => return Ok((Authority::Anybody, None)),
            Before::Believed(trust) if matches!(trust.authority, Authority::Anybody) => return Ok((Authority::Anybody, None)),
            _ => "a CA was in force here before, and none is configured or found any more".to_owned(),
        },
    };
    let authority = match before {
        Before::Believed(Trust { authority: known @ Authority::Known(_), .. }) => known.clone(),
        _ => Authority::Missing(problem.clone()),
    };
    Ok((authority, Some(problem)))
}

fn authorities(path: &Path, pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Authorities, TrustError> {
    let Bundle { roots, certificates, left_out } = Bundle::parse(pem).map_err(|what| malformed(CA, path, &what))?;
    for line in left_out {
        tracing::warn!(path = %path.display(), "the CA bundle: {line}; the others count");
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| malformed(CA, path, &error))?;
    Ok(Authorities { chain, certificates, provider: provider.clone() })
}

async fn read_identity(
    store: &dyn Store,
    cert: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TrustError> {
    let certificates = read_certificates(store, CERTIFICATE, cert).await?;
    let pem = read(store, KEY, key, PEM_BYTES).await?;
    let private = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| malformed(KEY, key, &format!("{error}; a PEM private key is expected")))?;
    Ok((certificates, private))
}

async fn read_certificates(
    store: &dyn Store,
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let pem = read(store, what, path, PEM_BYTES).await?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(what, path, &format!("{error}; PEM certificates are expected")))?;
    if certificates.is_empty() {
        return Err(malformed(what, path, "there is no certificate in it; at least one in PEM is expected"));
    }
    Ok(certificates)
}

/// A bearer token that its issuer replaces now and then.
struct Token {
    store: Arc<dyn Store>,
    path: PathBuf,
    last: Mutex<Last>,
}

struct Last {
    header: HeaderValue,
    unreadable: bool,
}

impl Token {
    async fn load(store: Arc<dyn Store>, path: &Path) -> Result<Token, TrustError> {
        let bytes = read(&*store, TOKEN, path, TOKEN_BYTES).await?;
        let header = bearer(&bytes).ok_or_else(|| malformed(TOKEN, path, "one line of printable ASCII is expected"))?;
        Ok(Token { store, path: path.to_owned(), last: Mutex::new(Last { header, unreadable: false }) })
    }

    /// What the file says now; where it cannot be read, what it said last: an unreadable token must not make endpoints fail.
    async fn header(&self) -> HeaderValue {
        let read = timeout(TOKEN_WAIT, self.store.read(&self.path, TOKEN_BYTES)).await;
        let now = read.ok().and_then(Result::ok).and_then(|bytes| bearer(&bytes));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_none() && !last.unreadable {
            tracing::warn!(path = %self.path.display(), "the probe token cannot be read; the last one is used");
        }
        last.unreadable = now.is_none();
        if let Some(header) = now {
            last.header = header;
        }
        last.header.clone()
    }
}

fn bearer(bytes: &[u8]) -> Option<HeaderValue> {
    let token = std::str::from_utf8(bytes).ok()?.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// rustls asks the time of day through our own seam.
struct TimeOfDay(Arc<dyn WallClock>);

impl fmt::Debug for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimeOfDay")
    }
}

impl TimeProvider for TimeOfDay {
    fn current_time(&self) -> Option<UnixTime> {
        Some(time_of_day(&*self.0))
    }
}

/// A clock before 1970 is as wrong as one at 1970; both are outside every validity.
fn time_of_day(wall: &dyn WallClock) -> UnixTime {
    UnixTime::since_unix_epoch(wall.now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
