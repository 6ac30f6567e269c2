//! A client that measures: a new TLS connection and one GET, as kubelet's first request after each reconnect.
//!
//! A request *fails* when its client sees an error; whether before the upstream's first byte or after decides whose fault
//! it is. `retried` ones were reset and succeeded when sent again, as client-go does with what is idempotent.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ca::Pair;
use super::tally::Tally;

/// A small answer's size at most.
const ANSWER_BYTES: usize = 1024 * 1024;

/// Whom a client asks, and for what.
#[derive(Clone)]
pub struct Target {
    /// Where it connects.
    pub addr: SocketAddr,
    /// The name that it asks for and that the certificate must cover.
    pub server_name: ServerName<'static>,
    /// The path of its requests.
    pub path: String,
    /// The address that it connects from; [`None`]: which one is the kernel's matter.
    pub from: Option<IpAddr>,
    /// The size of its kernel's buffer for what comes; [`None`]: as large as the kernel makes it.
    pub receive_buffer: Option<u32>,
    tls: TlsConnector,
}

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// No byte had come from the upstream.
    pub before_first_byte: bool,
    /// The connection was reset or closed: what client-go repeats.
    pub reset: bool,
    /// The server asks to try again after this: client-go does.
    pub again_after: Option<Duration>,
    /// In words.
    pub why: String,
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: StatusCode,
    /// What `Retry-After` says.
    pub again_after: Option<Duration>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)
    }
}

impl std::error::Error for Refused {}

/// A good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server that says it answered.
    pub server: Option<String>,
}

impl Target {
    /// A target whose certificate one of the authorities in `ca` has signed, with a client certificate where one is given.
    pub fn new(addr: SocketAddr, path: &str, ca: &Path, client: Option<&Pair>) -> Result<Target> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(ca)? {
            roots.add(authority?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match client {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let certs = CertificateDer::pem_file_iter(&pair.cert)?.collect::<Result<Vec<_>, _>>()?;
                config.with_client_auth_cert(certs, PrivateKeyDer::from_pem_file(&pair.key)?)?
            }
        };
        // Each connection is a whole handshake, as a new process makes it.
        config.resumption = rustls::client::Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Target {
            addr,
            server_name: ServerName::try_from("kubernetes").context("a server name")?,
            path: path.to_owned(),
            from: None,
            receive_buffer: None,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The same, elsewhere.
    pub fn at(&self, addr: SocketAddr) -> Target {
        Target { addr, ..self.clone() }
    }

    /// The same, from this address.
    pub fn from(&self, from: IpAddr) -> Target {
        Target { from: Some(from), ..self.clone() }
    }

    /// The same, another path.
    pub fn path(&self, path: &str) -> Target {
        Target { path: path.to_owned(), ..self.clone() }
    }

    /// The same, by another name.
    pub fn named(&self, name: &'static str) -> Result<Target> {
        Ok(Target { server_name: ServerName::try_from(name)?, ..self.clone() })
    }

    /// One GET over a new connection.
    pub async fn get(&self, within: Duration) -> Result<Answer, Failure> {
        self.send(get(&self.path), within).await
    }

    /// One request over a new connection.
    pub async fn send(&self, request: Result<Request<Full<Bytes>>>, within: Duration) -> Result<Answer, Failure> {
        let first_byte = FirstByte::default();
        let sent = async {
            let stream = self.connect(&first_byte).await?;
            ask(stream, request?, collect).await
        };
        let outcome = match timeout(within, sent).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("no answer within {within:?}")),
        };
        outcome.map_err(|error| Failure {
            before_first_byte: first_byte.0.get().is_none(),
            reset: is_reset(&error),
            again_after: error.downcast_ref::<Refused>().and_then(|refused| refused.again_after),
            why: format!("{error:#}"),
        })
    }

    /// A TLS connection.
    pub async fn connect(&self, first_byte: &FirstByte) -> Result<TlsStream<Noting<TcpStream>>> {
        let socket = if self.addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(self.addr).await.context("connect")?;
        stream.set_nodelay(true)?;
        let stream = Noting { inner: stream, first: first_byte.clone() };
        self.tls.connect(self.server_name.clone(), stream).await.context("TLS")
    }
}

/// `Retry-After`, where it is in seconds.
fn again_after(response: &hyper::Response<Incoming>) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A GET, as `kubectl` and kubelet put it.
pub fn get(path: &str) -> Result<Request<Full<Bytes>>> {
    Ok(Request::get(path).header("host", "kubernetes").header("accept", "application/json").body(Full::default())?)
}

/// Sends a request and hands the answer's body on.
pub async fn ask<S, T, F>(stream: S, request: Request<Full<Bytes>>, read: impl FnOnce(Incoming) -> F) -> Result<T>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Result<T>>,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection);
    let mut reply = pin!(async {
        let response = sender.send_request(request).await.context("no answer")?;
        let status = response.status();
        if !status.is_success() {
            return Err(Refused { status, again_after: again_after(&response) }.into());
        }
        read(response.into_body()).await
    });
    let mut open = true;
    loop {
        tokio::select! {
            reply = &mut reply => return reply,
            // What it failed of, the reply will say.
            _ = &mut connection, if open => open = false,
        }
    }
}

async fn collect(body: Incoming) -> Result<Answer> {
    let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(anyhow::Error::from_boxed).context("answer broke off")?;
    let server = serde_json::from_slice::<serde_json::Value>(&body.to_bytes())
        .ok()
        .and_then(|answer| answer.get("server").and_then(|server| server.as_str()).map(str::to_owned));
    Ok(Answer { server })
}

/// Whether the other side reset or closed: what client-go takes as reason to send an idempotent request again.
pub fn is_reset(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let closed =
            cause.downcast_ref::<hyper::Error>().is_some_and(|error| error.is_incomplete_message() || error.is_canceled());
        closed || matches!(io, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe))
    })
}

/// How one client asks.
#[derive(Clone, Copy, Debug)]
pub struct Habit {
    /// A new request this often.
    pub every: Duration,
    /// How long it waits for an answer.
    pub patience: Duration,
    /// Whether it sends a request once more after a reset.
    pub retries: bool,
}

/// Asks again and again until it is dropped; each request is counted.
pub struct Asking {
    task: tokio::task::JoinHandle<()>,
    paused: watch::Sender<bool>,
}

impl Asking {
    /// Starts; clients begin at different times.
    pub fn start(target: Target, habit: Habit, tally: Tally) -> Asking {
        let (paused, listen) = watch::channel(false);
        Asking { task: tokio::spawn(ask_on(target, habit, tally, listen)), paused }
    }

    /// Begins no more requests; those under way go on.
    pub fn pause(&mut self) {
        self.paused.send_replace(true);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask_on(target: Target, habit: Habit, tally: Tally, paused: watch::Receiver<bool>) {
    let begin = Instant::now() + habit.every.mul_f64(rand::random());
    let mut ticks = interval_at(begin, habit.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut requests = tokio::task::JoinSet::new();
    loop {
        ticks.tick().await;
        if !*paused.borrow() {
            requests.spawn(request(target.clone(), habit, tally.clone()));
        }
        while requests.try_join_next().is_some() {}
    }
}

async fn request(target: Target, habit: Habit, tally: Tally) {
    let id = tally.begin();
    let (mut outcome, mut retried) = (target.get(habit.patience).await, false);
    if habit.retries {
        while let Some(pause) = outcome.as_ref().err().and_then(|failure| failure.pause(retried)) {
            sleep(pause).await;
            retried = true;
            outcome = target.get(habit.patience).await;
        }
    }
    tally.end(id, outcome, retried);
}

impl Failure {
    /// How long to wait until a GET is sent again, if it is: once after a reset, and whenever the server asks for it.
    pub fn pause(&self, retried: bool) -> Option<Duration> {
        self.again_after.or((self.reset && !retried).then_some(Duration::ZERO))
    }
}

/// When the first byte came.
#[derive(Clone, Debug, Default)]
pub struct FirstByte(Arc<OnceLock<Instant>>);

/// A stream that notes when the first byte came.
pub struct Noting<S> {
    inner: S,
    first: FirstByte,
}

impl<S> Noting<S> {
    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.first.0.get_or_init(Instant::now);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
