//! Health, metrics and status over HTTP.
//!
//! It shows what a [`View`] tells it, and takes one thing: a removal that is signed with the cluster's signing key (`forget`).
//! Whatever is not signed so is refused, so a process on this machine changes nothing here without the full keyring.
//! `/healthz` asks whether the loops turn
//! (for a liveness check that restarts the agent); `/readyz` whether something can carry (for people and alerts: restarting
//! the agent because the apiservers are gone would help nobody).
//!
//! It shares a process with the data path, so it is bounded: connections, their life, the time for a request's head; a request's
//! body is read for a removal alone, and is small. And it must answer a liveness check whatever other clients do, since the agent is restarted otherwise: so
//! a newcomer never waits for a place (`connections`).

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::supervise::Supervised;
use crate::world::{BoxFuture, Listener, Stream};

mod connections;
mod forget;
mod host;
pub mod metrics;
pub mod status;
#[cfg(test)]
mod tests;

use connections::{Admission, Connections, Place};
pub use forget::Refused;
pub use host::Own;
pub use metrics::Metrics;
pub use status::Status;

/// Connections at once; one more takes another one's place (`connections`).
const CONNECTIONS: usize = 64;
/// Answers at once of those that cost much, so that a liveness check waits for few of them.
const LARGE_ANSWERS: usize = 2;
/// A request's head must be there within this time. An idle kept connection ends after it too.
const HEAD_WAIT: Duration = Duration::from_secs(2);
/// A request's head is at most this large.
const HEAD_BYTES: usize = 16 << 10;
/// A connection ends after this, whether its client reads or not.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// Loops that take longer to answer do not turn.
const HEALTH_WAIT: Duration = Duration::from_secs(2);
/// After a failed accept, so that a lack of descriptors does not make this a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What there is to see.
pub trait View: Send + Sync {
    /// Whether the loops turn: a round trip through each of them. The error says which one does not.
    fn healthy(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Whether some upstream can carry. The error says why not.
    fn ready(&self) -> Result<(), String>;

    /// The node and its upstreams, now. The error says who does not answer.
    fn status(&self) -> BoxFuture<'_, Result<Status, String>>;

    /// All numbers, now. The error says who does not answer.
    fn metrics(&self) -> BoxFuture<'_, Result<Metrics, String>>;

    /// Takes a signed removal, and says what was done.
    fn forget(&self, removal: Vec<u8>) -> BoxFuture<'_, Result<String, Refused>>;

    /// This node's name, as it is now.
    fn node(&self) -> String;

    /// Whether this machine has the address now.
    fn has_address(&self, ip: IpAddr) -> bool;
}

/// What the admin port has turned away since its start.
#[derive(Debug, Default)]
pub struct Rejections {
    evicted: AtomicU64,
    full: AtomicU64,
    wrong_host: AtomicU64,
    removal: AtomicU64,
}

impl Rejections {
    /// The counts by reason.
    pub fn counts(&self) -> metrics::Counts {
        [("evicted", &self.evicted), ("full", &self.full), ("wrong_host", &self.wrong_host), ("removal", &self.removal)]
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
            .into()
    }
}

/// What each connection needs to know.
struct Shared {
    view: Arc<dyn View>,
    own: Own,
    rejections: Arc<Rejections>,
    large: Semaphore,
}

/// Serves `view` on `listener` until the task is aborted; its connections end with it. After a panic it is started again.
pub fn serve(
    listener: Box<dyn Listener>,
    view: Arc<dyn View>,
    own: Own,
    rejections: Arc<Rejections>,
    task: Arc<Supervised>,
) -> JoinHandle<()> {
    let shared = Arc::new(Shared { view, own, rejections, large: Semaphore::new(LARGE_ANSWERS) });
    tokio::spawn(async move { task.keep(|| accept(&*listener, &shared)).await })
}

async fn accept(listener: &dyn Listener, shared: &Arc<Shared>) {
    let places = Connections::new(CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept an admin connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match places.admit() {
            Admission::Free(place) => place,
            Admission::Evicting(place) => {
                shared.rejections.evicted.fetch_add(1, Ordering::Relaxed);
                place
            }
            Admission::Full => {
                shared.rejections.full.fetch_add(1, Ordering::Relaxed);
                stream.reset_on_drop();
                continue;
            }
        };
        connections.spawn(converse(stream, place, shared.clone()));
        // A client that has sent its request with its connection is heard before the next newcomer can take its place.
        yield_now().await;
    }
}

/// Whether its client went away, took too long or had to go: nobody else has to know.
async fn converse(stream: Box<dyn Stream>, place: Place, shared: Arc<Shared>) {
    tokio::select! {
        biased;
        () = place.evicted() => {}
        _ = timeout(CONNECTION_LIFE, exchange(stream, &place, &shared)) => {}
    }
}

async fn exchange(stream: Box<dyn Stream>, place: &Place, shared: &Shared) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| async move {
        if request.uri().path() == "/healthz" {
            place.stays();
        }
        let answer = answer(request, shared).await;
        place.may_go();
        Ok::<_, Infallible>(answer)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

type Answer = Response<Full<Bytes>>;

impl Shared {
    /// The answer to a request that is not addressed to this agent.
    fn misdirected(&self, request: &Request<Incoming>) -> Option<Answer> {
        if self.own.addressed_by(request, &*self.view) {
            return None;
        }
        self.rejections.wrong_host.fetch_add(1, Ordering::Relaxed);
        Some(text(StatusCode::MISDIRECTED_REQUEST, WRONG_HOST))
    }
}

const HELP: &str = "prismesh: /healthz (the loops turn), /readyz (something can carry), /metrics (Prometheus), /status (JSON); \
    POST /forget takes a signed removal\n";

const WRONG_HOST: &str = "the request's Host is no name of this agent; ask by its address, as localhost, or by the node's name as the agent knows it\n";

async fn answer(request: Request<Incoming>, shared: &Shared) -> Answer {
    let view = &*shared.view;
    let path = request.uri().path();
    if path == "/forget" {
        return forget::answer(request, shared).await;
    }
    if !matches!(path, "/" | "/healthz" | "/readyz" | "/metrics" | "/status") {
        return text(StatusCode::NOT_FOUND, HELP);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return only("GET, HEAD");
    }
    if matches!(path, "/metrics" | "/status")
        && let Some(refused) = shared.misdirected(&request)
    {
        return refused;
    }
    match path {
        "/healthz" => verdict(
            timeout(HEALTH_WAIT, view.healthy())
                .await
                .unwrap_or_else(|_| Err(format!("no answer from the loops within {} s", HEALTH_WAIT.as_secs()))),
        ),
        "/readyz" => verdict(view.ready()),
        "/metrics" | "/status" => {
            // Never closed.
            let _turn = shared.large.acquire().await;
            let told = if path == "/metrics" {
                view.metrics().await.map(|metrics| scrape(&metrics))
            } else {
                view.status().await.map(|now| status(&now))
            };
            told.unwrap_or_else(|reason| verdict(Err(reason)))
        }
        _ => text(StatusCode::OK, HELP),
    }
}

fn only(methods: &'static str) -> Answer {
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods}\n"));
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    refused
}

fn verdict(holds: Result<(), String>) -> Answer {
    match holds {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn scrape(metrics: &Metrics) -> Answer {
    match metrics::encode(metrics) {
        Ok(encoded) => respond(StatusCode::OK, metrics::CONTENT_TYPE, encoded),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")),
    }
}

fn status(status: &Status) -> Answer {
    match serde_json::to_vec_pretty(status) {
        Ok(encoded) => respond(StatusCode::OK, "application/json", encoded),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the status: {error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
