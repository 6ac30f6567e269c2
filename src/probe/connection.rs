//! One connection to one endpoint: dialled, verified, asked.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rand::RngExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, interval_at, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http::{Answer, Http};
use super::outcome;
use super::trust::Trust;
use super::verify::Seen;
use crate::engine::Endpoint;
use crate::engine::event::{Outcome, ProbeOrder};
use crate::engine::liveness::{PeerState, Unanswered};
use crate::engine::policy;
use crate::world::{Net, Stream};

/// Dials, and beside the dials that are under way once more each time a share of the limit has passed
/// ([`policy::PROBE_DIALS`]). The duration is the round trip of the dial that connected. Ends with the first that connects, or with
/// the last error. Never ends by the limit: the caller's timer does that.
pub(super) async fn dial(net: &dyn Net, to: Endpoint, limit: Duration) -> io::Result<(Box<dyn Stream>, Duration)> {
    let mut dials = FuturesUnordered::from_iter([timed(net, to)]);
    let mut again = interval_at(Instant::now() + limit / policy::PROBE_DIALS, limit / policy::PROBE_DIALS);
    loop {
        tokio::select! {
            biased;
            Some(connected) = dials.next() => {
                if connected.is_ok() || dials.is_empty() {
                    return connected;
                }
            }
            _ = again.tick() => dials.push(timed(net, to)),
        }
    }
}

async fn timed(net: &dyn Net, to: Endpoint) -> io::Result<(Box<dyn Stream>, Duration)> {
    let begun = Instant::now();
    let stream = net.connect(to.addr()).await?;
    Ok((stream, begun.elapsed()))
}

/// A connection over which `/readyz` can be asked, again and again.
pub(super) struct Connection {
    http: Http,
    server_name: Option<String>,
    seen: Arc<Seen>,
    used: Instant,
    renew: Instant,
}

impl Connection {
    /// Shakes hands on a stream that has just connected, within the order's limit. The size of the ClientHello is written to `hello_bytes`.
    pub(super) async fn open(
        stream: Box<dyn Stream>,
        order: &ProbeOrder,
        trust: &Trust,
        hello_bytes: &mut u32,
    ) -> Result<Connection, Outcome> {
        let own = order.server_name.as_deref();
        let name = trust.name(own).ok_or_else(|| Outcome::LocalError(format!("{own:?} is not a name")))?;
        let (tls, seen) = trust.tls();
        let stream = shake_hands(TlsConnector::from(tls), name, stream, order.limits.handshake, hello_bytes).await?;
        // Read only now: a token is of no use before the other side has proven itself.
        let authorization = trust.authorization(&seen).await;
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let http = Http::over(stream, alpn.as_deref(), order.endpoint.to_string(), authorization).await?;
        let now = Instant::now();
        Ok(Connection {
            http,
            server_name: order.server_name.clone(),
            used: now,
            renew: now + trust.valid_for(&seen).unwrap_or(Duration::MAX).min(jittered(policy::PROBE_RENEW)),
            seen,
        })
    }

    /// What an answer with this status says, coming from a server with this certificate.
    pub(super) fn outcome(&self, code: u16) -> Outcome {
        match self.seen.lack() {
            Some(lack) => Outcome::Unverified { code, lack },
            None => Outcome::Status { code, expired: self.seen.expired() },
        }
    }

    /// What it says that a new connection's answer did not come in time. The handshake of a certificate that could not be verified
    /// shows nothing, so that it counts as the answer that asks for less.
    pub(super) fn late(&self) -> Outcome {
        match self.seen.lack() {
            Some(lack) => Outcome::Unverified { code: 503, lack },
            None => Outcome::AnswerTimedOut,
        }
    }

    /// What its server has shown.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// When it was used last.
    pub(super) fn used(&self) -> Instant {
        self.used
    }

    /// Whether it may be used for a probe now that asks for this name.
    pub(super) fn serves(&self, server_name: Option<&str>, now: Instant) -> bool {
        now < self.renew && self.server_name.as_deref() == server_name
    }

    /// Asks, and waits for the answer's head.
    pub(super) async fn ask(&mut self) -> Result<Answer, Outcome> {
        self.used = Instant::now();
        self.http.ask().await
    }

    /// Reads what is left of an answer. [`None`] if the connection cannot be used again.
    pub(super) async fn settle(mut self, answer: Answer) -> Option<Connection> {
        self.http.settle(answer).await.then_some(self)
    }
}

/// Completes the TLS handshake. Where it does not come in time, the kernel tells whether the process behind the connection hangs or
/// the path loses what is as large as a ClientHello or an answer to it.
async fn shake_hands(
    connector: TlsConnector,
    name: ServerName<'static>,
    stream: Box<dyn Stream>,
    limit: Duration,
    hello_bytes: &mut u32,
) -> Result<TlsStream<Measured>, Outcome> {
    let mut connecting = connector.connect(name, Measured { stream, hello_bytes: 0, heard: false });
    match timeout(limit, &mut connecting).await {
        Ok(Ok(stream)) => {
            *hello_bytes = stream.get_ref().0.hello_bytes;
            Ok(stream)
        }
        Ok(Err(error)) => Err(outcome::of_stream(&error)),
        Err(_) => {
            let peer = connecting.get_ref().and_then(|measured| measured.stream.peer());
            Err(Outcome::HandshakeTimedOut { hung: peer.as_ref().is_none_or(hangs) })
        }
    }
}

/// The kernel has all of the hello, and the process has said nothing at all.
fn hangs(peer: &PeerState) -> bool {
    peer.unanswered == Unanswered::Nothing && !peer.has_sent
}

/// A stream that counts what is written before the other side says something: the ClientHello.
struct Measured {
    stream: Box<dyn Stream>,
    hello_bytes: u32,
    heard: bool,
}

impl AsyncRead for Measured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.heard |= buffer.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Measured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        if !self.heard {
            self.hello_bytes = self.hello_bytes.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Spread, so that a cluster's connections are not all renewed in one moment.
fn jittered(span: Duration) -> Duration {
    span.mul_f64(1.0 + policy::PROBE_JITTER * rand::rng().random_range(-1.0..=1.0))
}
