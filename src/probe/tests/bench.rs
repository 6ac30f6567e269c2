//! The bench that probes are tried on: a PKI of its own, and servers of every kind on loopback sockets.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Listen, LogFormat, ProbeCredentials};
use crate::engine::Endpoint;
use crate::engine::event::{Outcome, ProbeLimits, ProbeOrder, Probed};
use crate::probe::{Before, TlsProber, Trust, TrustError};
use crate::world::real::Files;
use crate::world::testing::Plain;
use crate::world::{BoxFuture, Carried, Clock, Listener, Meter, Net, Prober as _, Stream, WallClock};

/// 2026-07-01, by which the certificates below are valid or not.
const NOW: Duration = Duration::from_secs(1_782_864_000);

struct FixedClock;

impl WallClock for FixedClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + NOW
    }
}

/// Years between which a certificate is valid.
#[derive(Clone, Copy)]
pub(super) struct Years(pub(super) i32, pub(super) i32);

pub(super) const VALID: Years = Years(2026, 2036);
pub(super) const EXPIRED: Years = Years(2020, 2025);
pub(super) const TO_COME: Years = Years(2030, 2040);

fn params(names: &[&str], Years(from, to): Years) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}

/// A certificate authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn params(years: Years) -> CertificateParams {
        let mut params = params(&[], years);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// An authority of this name.
    pub(super) fn named(name: &str) -> Authority {
        Authority::of_years(name, Years(2020, 2040))
    }

    /// One of this name that is valid between these years.
    pub(super) fn of_years(name: &str, years: Years) -> Authority {
        let mut params = Authority::params(years);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The cluster's own.
    pub(super) fn new() -> Authority {
        Authority::named("kubernetes")
    }

    pub(super) fn intermediate(&self, years: Years) -> Authority {
        let mut params = Authority::params(years);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an intermediate");
        Authority(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate, with this authority's own behind it.
    pub(super) fn server(&self, names: &[&str], years: Years) -> Identity {
        self.sign(params(names, years))
    }

    pub(super) fn sign(&self, mut params: CertificateParams) -> Identity {
        if params.extended_key_usages.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, &self.0).unwrap().der().clone();
        Identity { chain: vec![own, self.0.der().clone()], key }
    }

    /// A server's certificate with something about it that this sets.
    pub(super) fn server_with(&self, set: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = params(&["kubernetes"], VALID);
        set(&mut params);
        self.sign(params)
    }

    pub(super) fn client(&self) -> (String, String) {
        let mut params = params(&["a-node"], VALID);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub(super) fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }
}

/// What a server shows.
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: KeyPair,
}

impl Identity {
    /// One that nobody else has signed, and that may sign others.
    pub(super) fn self_signed(names: &[&str], years: Years) -> Identity {
        let mut params = params(names, years);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Identity { chain: vec![params.self_signed(&key).unwrap().der().clone()], key }
    }

    /// Its own certificate as a file's text.
    pub(super) fn pem(&self) -> String {
        let own = self.chain.first().expect("a certificate");
        let lines = base64::engine::general_purpose::STANDARD.encode(own);
        format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
    }

    pub(super) fn tls(&self) -> ServerConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        // Unseen: the server need not understand it.
        let key = CertifiedKey::new(self.chain.clone(), key);
        builder().with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
    }

    pub(super) fn tls_asking(&self, clients: &Authority) -> ServerConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(clients.root()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let asks = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        builder().with_client_cert_verifier(asks).with_single_cert(self.chain.clone(), key).unwrap()
    }
}

pub(super) fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap()
}

/// A server on a loopback port, for as long as this lives.
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    accepted: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    tls: Arc<Mutex<Option<TlsAcceptor>>>,
    _task: AbortOnDropHandle<()>,
}

/// What a server does on a connection once it has a request, or has nothing to wait for.
#[derive(Clone)]
pub(super) enum Does {
    /// Reads requests, answers each with these bytes.
    Answers(String),
    /// Answers once, then closes.
    AnswersOnce(String),
    /// Answers the first request and closes at the second.
    AnswersTheFirst(String),
    /// Answers, and a moment later says this unasked and closes.
    AnswersAndSays(String, &'static str),
    /// Answers after a while.
    AnswersAfter(Duration, String),
    /// Answers and goes on sending for ever.
    AnswersWithoutEnd(String, String),
    /// Sends these bytes without having been asked, then waits.
    Says(Vec<u8>),
    /// Closes.
    Closes,
    /// Closes once it has a request.
    ClosesWhenAsked,
}

pub(super) fn status(code: u16) -> String {
    format!("HTTP/1.1 {code} Whatever\r\nContent-Length: 2\r\n\r\nok")
}

impl Server {
    /// Speaks TLS, and then does this.
    pub(super) async fn tls(config: ServerConfig, does: Does) -> Server {
        Server::start(Some(TlsAcceptor::from(Arc::new(config))), does).await
    }

    /// Does this without TLS.
    pub(super) async fn plain(does: Does) -> Server {
        Server::start(None, does).await
    }

    async fn start(tls: Option<TlsAcceptor>, does: Does) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        let accepted = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let tls = Arc::new(Mutex::new(tls));
        let (count, told, shown) = (accepted.clone(), requests.clone(), tls.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (tls, does, told) = (shown.lock().unwrap().clone(), does.clone(), told.clone());
                tokio::spawn(async move {
                    let _ = match tls {
                        None => perform(stream, does, told).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => perform(stream, does, told).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        Server { endpoint, accepted, requests, tls, _task: AbortOnDropHandle::new(task) }
    }

    /// What new connections are shown from now on.
    pub(super) fn shows(&self, config: ServerConfig) {
        *self.tls.lock().unwrap() = Some(TlsAcceptor::from(Arc::new(config)));
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn perform(mut stream: impl AsyncRead + AsyncWrite + Unpin, does: Does, told: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    match &does {
        Does::Closes => return stream.shutdown().await,
        Does::Says(bytes) => {
            say(&mut stream, bytes).await?;
            while stream.read(&mut [0; 1024]).await? > 0 {}
            return Ok(());
        }
        _ => {}
    }
    loop {
        let asked = request(&mut stream).await?;
        told.lock().unwrap().push(asked);
        if !answer(&mut stream, &does).await? {
            return stream.shutdown().await;
        }
    }
}

/// Answers one request. Tells whether to go on with the next one.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), does: &Does) -> io::Result<bool> {
    match does {
        Does::Closes | Does::Says(_) | Does::ClosesWhenAsked => return Ok(false),
        Does::Answers(answer) => say(stream, answer.as_bytes()).await?,
        Does::AnswersOnce(answer) => {
            stream.write_all(answer.as_bytes()).await?;
            return Ok(false);
        }
        Does::AnswersTheFirst(answer) => {
            say(stream, answer.as_bytes()).await?;
            request(stream).await?;
            return Ok(false);
        }
        Does::AnswersAndSays(answer, farewell) => {
            say(stream, answer.as_bytes()).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            say(stream, farewell.as_bytes()).await?;
            return Ok(false);
        }
        Does::AnswersAfter(delay, answer) => {
            tokio::time::sleep(*delay).await;
            say(stream, answer.as_bytes()).await?;
        }
        Does::AnswersWithoutEnd(answer, more) => {
            say(stream, answer.as_bytes()).await?;
            loop {
                say(stream, more.as_bytes()).await?;
                tokio::task::yield_now().await;
            }
        }
    }
    Ok(true)
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut read = String::new();
    while !read.ends_with("\r\n\r\n") {
        read.push(char::from(stream.read_u8().await?));
    }
    Ok(read)
}

/// Dials for real, but for the dials that are scripted.
#[derive(Default)]
pub(super) struct Loopback {
    pub(super) script: Mutex<VecDeque<Dial>>,
}

/// What becomes of a dial.
pub(super) enum Dial {
    /// It connects.
    Connects,
    /// It connects, but late.
    ConnectsAfter(Duration),
    /// Nothing comes back.
    Hangs,
    /// It fails after a while.
    Fails(Duration, rustix::io::Errno),
}

impl Net for Loopback {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        unimplemented!("a prober does not listen")
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let dial = self.script.lock().unwrap().pop_front().unwrap_or(Dial::Connects);
        Box::pin(async move {
            match dial {
                Dial::Connects => {}
                Dial::ConnectsAfter(delay) => tokio::time::sleep(delay).await,
                Dial::Hangs => std::future::pending().await,
                Dial::Fails(delay, errno) => {
                    tokio::time::sleep(delay).await;
                    return Err(errno.into());
                }
            }
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(Plain(stream)) as Box<dyn Stream>)
        })
    }

    fn carry(&self, _: Box<dyn Stream>, _: Box<dyn Stream>, _: Arc<Meter>) -> BoxFuture<'static, Carried> {
        unimplemented!("a prober does not carry")
    }
}

/// A prober, and the directory its files are in.
pub(super) struct Bench {
    pub(super) directory: tempfile::TempDir,
    pub(super) config: Config,
    pub(super) net: Arc<Loopback>,
}

impl Bench {
    /// Nothing is verified.
    pub(super) fn without_ca() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let loopback = Listen { addr: "127.0.0.1:0".parse().unwrap(), written: true };
        let config = Config {
            cluster: "test".to_owned(),
            node: "here".to_owned(),
            listen: vec![loopback],
            admin: loopback,
            gossip: None,
            apiservers: vec![],
            local_apiserver: None,
            external: vec![],
            endpoints: vec![],
            ca: None,
            server_name: "kubernetes".to_owned(),
            probe_credentials: None,
            allow: vec![],
            max_connections: None,
            state_dir: directory.path().to_owned(),
            log_format: LogFormat::Human,
            log: String::new(),
            file: None,
        };
        Bench { directory, config, net: Arc::default() }
    }

    /// This authority's certificates are believed.
    pub(super) fn with_ca(authority: &Authority) -> Bench {
        let mut bench = Bench::without_ca();
        bench.config.ca = Some(bench.file("ca.crt", authority.pem()));
        bench
    }

    pub(super) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(super) fn with_token(mut self, token: &str) -> Bench {
        self.config.probe_credentials = Some(ProbeCredentials::Token(self.file("token", token)));
        self
    }

    pub(super) async fn trust(&self) -> Result<Trust, TrustError> {
        self.trust_after(Before::Nothing).await
    }

    pub(super) async fn trust_after(&self, before: Before<'_>) -> Result<Trust, TrustError> {
        Trust::load(Arc::new(Files), Arc::new(FixedClock), &self.config, before).await
    }

    pub(super) async fn prober(&self) -> TlsProber {
        TlsProber::new(self.net.clone(), Clock::start(), self.trust().await.unwrap())
    }

    /// One fresh probe by a prober of its own.
    pub(super) async fn outcome(&self, of: Endpoint) -> Outcome {
        self.prober().await.probe(order(of)).await.outcome
    }
}

/// The time within which a server that never answers is given up, so that tests are short.
pub(super) const SHORT: Duration = Duration::from_millis(200);

/// A probe that may use a kept connection, and keeps it.
pub(super) fn order(endpoint: Endpoint) -> ProbeOrder {
    ProbeOrder { id: 7, endpoint, server_name: None, fresh: false, keep: true, limits: ProbeLimits::of(Duration::from_secs(5)) }
}

pub(super) fn impatient(endpoint: Endpoint) -> ProbeOrder {
    ProbeOrder { limits: ProbeLimits::of(SHORT), ..order(endpoint) }
}

/// What a probe's outcome is when all is well but perhaps the status.
pub(super) fn answered(code: u16) -> Outcome {
    Outcome::Status { code, expired: false }
}

pub(super) fn expired(code: u16) -> Outcome {
    Outcome::Status { code, expired: true }
}

/// `(fresh, outcome)` of a probe.
pub(super) fn seen(probed: &Probed) -> (bool, Outcome) {
    (probed.fresh, probed.outcome.clone())
}
