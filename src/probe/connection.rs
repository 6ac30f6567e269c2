//! One connection to one endpoint: dialled, verified, asked.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rand::RngExt;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::outcome;
use super::trust::Trust;
use super::verify::Seen;
use crate::engine::Endpoint;
use crate::engine::event::{Outcome, ProbeOrder};
use crate::engine::policy;
use crate::world::{Net, Stream};

/// An answer whose head is still in hand and whose body has not been read.
pub(super) type Answer = Response<Incoming>;

type Body = Empty<Bytes>;
type Driver = http1::Connection<TokioIo<TlsStream<Box<dyn Stream>>>, Body>;

/// An answer's head is at most this large; an apiserver's has about 300 bytes.
const HEAD_BYTES: usize = 16 << 10;
/// A body longer than this is not read to its end: a failing `/readyz` lists its checks in 2 to 4 KiB.
const BODY_BYTES: usize = 64 << 10;
/// A body that has not come this long after its head costs the connection, not the probe. It usually comes in the same segment.
const BODY_WAIT: Duration = Duration::from_millis(100);

/// Who asks: what an apiserver's audit log shows.
const AGENT: &str = concat!("prismesh/", env!("CARGO_PKG_VERSION"));

/// Dials once, and beside it once more if nothing has come of it after [`policy::PROBE_SECOND_DIAL`].
/// The duration is the round trip of the dial that connected.
pub(super) async fn dial(net: &dyn Net, to: Endpoint) -> io::Result<(Box<dyn Stream>, Duration)> {
    let mut first = pin!(timed(net, to));
    tokio::select! {
        connected = &mut first => return connected,
        () = sleep(policy::PROBE_SECOND_DIAL) => {}
    }
    let mut second = pin!(timed(net, to));
    tokio::select! {
        biased;
        connected = &mut first => match connected {
            Err(_) => second.await,
            connected => connected,
        },
        connected = &mut second => match connected {
            Err(_) => first.await,
            connected => connected,
        },
    }
}

async fn timed(net: &dyn Net, to: Endpoint) -> io::Result<(Box<dyn Stream>, Duration)> {
    let begun = Instant::now();
    let stream = net.connect(to.addr()).await?;
    Ok((stream, begun.elapsed()))
}

/// A connection over which `/readyz` can be asked, again and again.
pub(super) struct Connection {
    sender: http1::SendRequest<Body>,
    /// [`None`] once it has ended.
    driver: Option<Pin<Box<Driver>>>,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    server_name: Option<String>,
    seen: Arc<Seen>,
    used: Instant,
    renew: Instant,
}

impl Connection {
    /// Shakes hands on a stream that has just connected.
    pub(super) async fn open(stream: Box<dyn Stream>, order: &ProbeOrder, trust: &Trust) -> Result<Connection, Outcome> {
        let own = order.server_name.as_deref();
        let name = trust.name(own).ok_or_else(|| Outcome::LocalError(format!("{own:?} is not a name")))?;
        let host = HeaderValue::try_from(order.endpoint.to_string()).map_err(|_| Outcome::LocalError("host".to_owned()))?;
        let (tls, seen) = trust.tls();
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| outcome::of_stream(&error))?;
        // Read only now: a token is of no use before the other side has proven itself.
        let authorization = trust.authorization().await;
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| outcome::of_http(&error, None))?;
        let now = Instant::now();
        Ok(Connection {
            sender,
            driver: Some(Box::pin(driver)),
            host,
            authorization,
            server_name: order.server_name.clone(),
            seen,
            used: now,
            renew: now + jittered(policy::PROBE_RENEW),
        })
    }

    /// The chain is right but outside its validity.
    pub(super) fn expired(&self) -> bool {
        self.seen.expired()
    }

    /// When its certificate ends, in seconds since 1970.
    pub(super) fn not_after(&self) -> Option<i64> {
        self.seen.not_after()
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
        let request = self.request()?;
        let sender = &mut self.sender;
        let exchange = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let (answer, ended) = drive(&mut self.driver, exchange).await;
        answer.map_err(|error| outcome::of_http(&error, ended.as_ref()))
    }

    /// Reads what is left of an answer. [`None`] if the connection cannot be used again.
    pub(super) async fn settle(mut self, answer: Answer, deadline: Instant) -> Option<Connection> {
        let until = deadline.min(Instant::now() + BODY_WAIT);
        let sender = &mut self.sender;
        let rest = async {
            Limited::new(answer.into_body(), BODY_BYTES).collect().await.ok()?;
            sender.ready().await.ok()
        };
        let (settled, _) = timeout_at(until, drive(&mut self.driver, rest)).await.ok()?;
        settled.filter(|()| self.driver.is_some()).map(|()| self)
    }

    fn request(&self) -> Result<Request<Body>, Outcome> {
        let mut request = Request::get("/readyz")
            .header(HOST, &self.host)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "*/*")
            .body(Empty::new())
            .map_err(|error| Outcome::LocalError(error.to_string()))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }
}

/// Does `work` while moving the connection's bytes; also tells the error with which the connection ended meanwhile.
async fn drive<T>(driver: &mut Option<Pin<Box<Driver>>>, work: impl Future<Output = T>) -> (T, Option<hyper::Error>) {
    let mut work = pin!(work);
    let mut ended = None;
    let done = poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        if let Some(running) = driver
            && let Poll::Ready(end) = running.as_mut().poll(context)
        {
            ended = end.err();
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await;
    (done, ended)
}

/// Spread, so that a cluster's connections are not all renewed in one moment.
fn jittered(span: Duration) -> Duration {
    span.mul_f64(1.0 + policy::PROBE_JITTER * rand::rng().random_range(-1.0..=1.0))
}
