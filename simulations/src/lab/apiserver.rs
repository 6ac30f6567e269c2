//! A stand-in for kube-apiserver: what prismesh can tell of one, and little more. TLS, `/readyz`, a watch that never ends,
//! a small answer to everything else; and on SIGTERM what kube-apiserver does with a shutdown delay: `/readyz` says 500
//! while it serves on, then it closes everything.
//!
//! Cheap on purpose (one thread, P-256, no files): three of them and a hundred handshakes a second share two cores with
//! everything else. It can also misbehave, see [`Manner`].

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_rustls::LazyConfigAcceptor;

use super::ca::Pair;
use super::moods::{self, Mood};

/// Between two lines of a watch.
pub const WATCH_PERIOD: Duration = Duration::from_millis(200);
/// What ALPN calls HTTP/2.
const HTTP2: &[u8] = b"h2";
/// A part of a bulk answer: whole rows.
const BULK_PART: usize = 32 * 1024;

/// How it behaves below HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Manner {
    /// As an apiserver does.
    #[default]
    Tls,
    /// HTTP without TLS.
    Plain,
    /// Bytes that are neither.
    Garbage,
    /// Closes as soon as it has accepted.
    Close,
    /// Answers every ClientHello with a TLS alert.
    Alert,
}

/// What the hidden subcommand takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What it calls itself in its answers.
    #[arg(long)]
    pub name: String,
    /// Where it listens.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Its certificate.
    #[arg(long)]
    pub cert: PathBuf,
    /// Its key.
    #[arg(long)]
    pub key: PathBuf,
    /// What `/readyz` answers.
    #[arg(long, default_value_t = 200)]
    pub readyz: u16,
    /// How long `/readyz` takes.
    #[arg(long, default_value_t = 0)]
    pub readyz_delay_ms: u64,
    /// How long it serves on after SIGTERM.
    #[arg(long, default_value_t = 5000)]
    pub drain_ms: u64,
    /// After SIGTERM it closes its port at once and serves those that are connected, as kube-apiserver does without a shutdown delay.
    #[arg(long)]
    pub closes_port_first: bool,
    /// How it behaves below HTTP.
    #[arg(long, value_enum, default_value_t)]
    pub manner: Manner,
    /// Print a line for every ClientHello, with the name asked for.
    #[arg(long)]
    pub tell_hellos: bool,
    /// Print a line for every request, with its `Authorization` header.
    #[arg(long)]
    pub tell_requests: bool,
}

impl Options {
    /// An apiserver as it should be.
    pub fn new(name: &str, listen: SocketAddr, pair: Pair) -> Options {
        Options {
            name: name.to_owned(),
            listen,
            cert: pair.cert,
            key: pair.key,
            readyz: 200,
            readyz_delay_ms: 0,
            drain_ms: 5000,
            closes_port_first: false,
            manner: Manner::Tls,
            tell_hellos: false,
            tell_requests: false,
        }
    }

    /// The command line that gives these options.
    pub fn args(&self) -> Vec<OsString> {
        let manner =
            clap::ValueEnum::to_possible_value(&self.manner).map_or_else(String::new, |value| value.get_name().to_owned());
        let mut args: Vec<OsString> = vec!["apiserver".into()];
        let mut flag = |name: &str, value: OsString| args.extend([OsString::from(name), value]);
        flag("--name", self.name.clone().into());
        flag("--listen", self.listen.to_string().into());
        flag("--cert", self.cert.clone().into());
        flag("--key", self.key.clone().into());
        flag("--readyz", self.readyz.to_string().into());
        flag("--readyz-delay-ms", self.readyz_delay_ms.to_string().into());
        flag("--drain-ms", self.drain_ms.to_string().into());
        flag("--manner", manner.into());
        if self.closes_port_first {
            args.push("--closes-port-first".into());
        }
        if self.tell_hellos {
            args.push("--tell-hellos".into());
        }
        if self.tell_requests {
            args.push("--tell-requests".into());
        }
        args
    }
}

/// The certificate, read again when its file has changed, as kube-apiserver does for new connections.
struct Certificate {
    changed: SystemTime,
    tls: Arc<rustls::ServerConfig>,
}

impl Certificate {
    fn load(options: &Options) -> Result<Certificate> {
        let changed = std::fs::metadata(&options.cert)?.modified()?;
        let certs = CertificateDer::pem_file_iter(&options.cert)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&options.key)?;
        let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certs, key)?;
        tls.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        // As kube-apiserver, whose clients resume nothing across the servers behind a balancer.
        tls.send_tls13_tickets = 0;
        Ok(Certificate { changed, tls: Arc::new(tls) })
    }

    /// What a new connection is shown. A pair that is half written is left for the next one.
    fn current(&mut self, options: &Options) -> Arc<rustls::ServerConfig> {
        let changed = std::fs::metadata(&options.cert).and_then(|file| file.modified());
        if changed.is_ok_and(|changed| changed != self.changed)
            && let Ok(newer) = Certificate::load(options)
        {
            *self = newer;
        }
        Arc::clone(&self.tls)
    }
}

struct Apiserver {
    options: Options,
    draining: AtomicBool,
    mood: watch::Receiver<Mood>,
}

/// Serves until SIGTERM and the drain, or until standard input ends, whose lines change its [`Mood`].
pub async fn serve(options: Options) -> Result<()> {
    let mut mood = moods::heard(Mood { readyz_delay_ms: options.readyz_delay_ms, ..Mood::default() });
    let mut tls = Certificate::load(&options)?;
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut listener = Some(TcpListener::bind(options.listen).await?);
    tell(&serde_json::json!({ "ready": options.name, "listen": options.listen }));
    let server = Arc::new(Apiserver { options, draining: AtomicBool::new(false), mood: mood.clone() });
    loop {
        tokio::select! {
            accepted = accept(listener.as_ref()) => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&server).connection(stream, tls.current(&server.options)))),
                // Out of descriptors, most likely: the next one may do better.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            _ = terminated.recv() => {
                listener.take_if(|_| server.options.closes_port_first);
                drop(tokio::spawn(Arc::clone(&server).drain()));
            }
            Ok(()) = mood.changed() => {
                let closed = mood.borrow_and_update().port_closed;
                match &listener {
                    Some(_) if closed => listener = None,
                    None if !closed => listener = Some(TcpListener::bind(server.options.listen).await?),
                    _ => {}
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

impl Apiserver {
    async fn drain(self: Arc<Self>) {
        self.draining.store(true, Ordering::Relaxed);
        sleep(Duration::from_millis(self.options.drain_ms)).await;
        std::process::exit(0);
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream, tls: Arc<rustls::ServerConfig>) {
        let _ = stream.set_nodelay(true);
        match self.options.manner {
            Manner::Tls => self.tls(stream, tls).await,
            Manner::Plain => self.http(stream, false).await,
            Manner::Garbage => {
                let _ = stream.write_all(b"SSH-2.0-NotAnApiserver_1.0\r\n").await;
                let _ = stream.read(&mut [0; 1024]).await;
            }
            Manner::Close => {}
            Manner::Alert => {
                let _ = stream.read(&mut [0; 4096]).await;
                // Alert record, TLS 1.2: fatal, handshake_failure (RFC 8446, section 6).
                let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).await;
            }
        }
    }

    async fn tls(self: Arc<Self>, stream: TcpStream, tls: Arc<rustls::ServerConfig>) {
        let Ok(hello) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else { return };
        if self.options.tell_hellos {
            tell(&serde_json::json!({ "hello": hello.client_hello().server_name() }));
        }
        if let Ok(stream) = hello.into_stream(tls).await {
            let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
            self.http(stream, http2).await;
        }
    }

    async fn http(
        self: Arc<Self>,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        http2: bool,
    ) {
        let service = service_fn(|request| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let stream = TokioIo::new(stream);
        let _ = if http2 {
            http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
        } else {
            http1::Builder::new().serve_connection(stream, service).with_upgrades().await
        };
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        if self.options.tell_requests {
            let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            tell(&serde_json::json!({ "request": request.uri().path(), "authorization": authorization }));
        }
        let mood = self.mood.borrow().clone();
        if request.uri().path() != "/readyz" {
            sleep(Duration::from_millis(mood.answer_delay_ms)).await;
        }
        match request.uri().path() {
            "/readyz" => {
                sleep(Duration::from_millis(mood.readyz_delay_ms)).await;
                let code = if self.draining.load(Ordering::Relaxed) { 500 } else { self.options.readyz };
                let text = if code == 200 { "ok" } else { "[-]shutdown failed: reason withheld" };
                whole(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Bytes::from(text))
            }
            "/slow" => {
                sleep(Duration::from_millis(number(&request, "ms="))).await;
                whole(StatusCode::OK, Bytes::from("late, and answered"))
            }
            "/upload" => {
                // Nothing is read for so long: the client's bytes fill the window.
                sleep(Duration::from_millis(number(&request, "pause_ms="))).await;
                let read = moods::read(request.into_body(), self.mood.clone()).await;
                whole(StatusCode::OK, Bytes::from(read.to_string()))
            }
            "/exec" => {
                drop(tokio::spawn(moods::echo(hyper::upgrade::on(request), self.mood.clone())));
                let mut response = whole(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
                response.headers_mut().extend(moods::UPGRADED.map(|(name, value)| (name, HeaderValue::from_static(value))));
                response
            }
            "/watch" => Response::new(Either::Right(Endless::watch(&self.options.name))),
            "/events" => Response::new(Either::Right(Endless::events(WATCH_PERIOD, number(&request, "ms=")))),
            "/quiet" => {
                let ms = number(&request, "ms=");
                Response::new(Either::Right(Endless::events(Duration::from_millis(ms.max(1)), ms)))
            }
            "/bulk" => {
                let bytes = number(&request, "bytes=");
                Response::new(Either::Right(Endless::Bulk { sent: 0, bytes }))
            }
            path => {
                let text = serde_json::json!({ "server": self.options.name, "path": path }).to_string();
                whole(StatusCode::OK, Bytes::from(text))
            }
        }
    }
}

/// The number that a request's query gives after `name`, or 0.
fn number(request: &Request<Incoming>, name: &str) -> u64 {
    request.uri().query().and_then(|query| query.strip_prefix(name)?.parse().ok()).unwrap_or(0)
}

type Answer = Either<Full<Bytes>, Endless>;

fn whole(status: StatusCode, text: Bytes) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::new(text)));
    *response.status_mut() = status;
    response
}

/// The byte at a place of a bulk answer: a client can tell a lost, a doubled and a changed one.
pub fn bulk_byte(place: u64) -> u8 {
    u8::try_from((place ^ (place >> 8) ^ (place >> 16)) & 0xff).unwrap_or_default()
}

/// Rows of 256 bytes, of which bulk answers consist: byte by byte a build for tests would take longer than all the rest.
static ROWS: LazyLock<Vec<[u8; 256]>> =
    LazyLock::new(|| (0..=u8::MAX).map(|row| std::array::from_fn(|place| bulk_byte(place as u64) ^ row)).collect());

/// So many bytes of a bulk answer, from the beginning of this row.
fn bulk_part(row: u64, bytes: usize) -> Bytes {
    let rows = (row..).map(|row| &ROWS[usize::from(bulk_byte(row << 8))]).take(bytes.div_ceil(256));
    let mut part = rows.fold(Vec::with_capacity(BULK_PART), |mut part, row| {
        part.extend_from_slice(row);
        part
    });
    part.truncate(bytes);
    part.into()
}

/// An answer that is made as it is read.
enum Endless {
    Watch {
        name: String,
        line: u64,
        ticks: Pin<Box<Interval>>,
    },
    /// A watch that its server ends after so many lines.
    Events {
        line: u64,
        last: u64,
        ticks: Pin<Box<Interval>>,
    },
    Bulk {
        sent: u64,
        bytes: u64,
    },
}

impl Endless {
    fn watch(name: &str) -> Endless {
        let mut ticks = interval(WATCH_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Endless::Watch { name: name.to_owned(), line: 0, ticks: Box::pin(ticks) }
    }

    /// A line at once, and one each period for so long.
    fn events(period: Duration, ms: u64) -> Endless {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let last = 1 + ms / u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        Endless::Events { line: 0, last, ticks: Box::pin(ticks) }
    }
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Endless::Watch { name, line, ticks } => {
                ready!(ticks.poll_tick(cx));
                *line += 1;
                let text = format!("{}\n", serde_json::json!({ "server": name, "line": line }));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))))
            }
            Endless::Events { line, last, .. } if *line == *last => Poll::Ready(None),
            Endless::Events { line, ticks, .. } => {
                ready!(ticks.poll_tick(cx));
                *line += 1;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("{line}\n"))))))
            }
            Endless::Bulk { sent, bytes } => {
                let part = (*bytes - *sent).min(BULK_PART as u64);
                if part == 0 {
                    return Poll::Ready(None);
                }
                let data = bulk_part(*sent >> 8, usize::try_from(part).unwrap_or(BULK_PART));
                *sent += part;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
        }
    }
}

/// A line for the parent.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
pub(super) fn tell(line: &serde_json::Value) {
    println!("{line}");
}
