//! Health, metrics and status over HTTP.
//!
//! This is a window, not a door: it shows what a [`View`] tells it and changes nothing. `/healthz` asks whether the loops turn
//! (for a liveness check that restarts the agent); `/readyz` whether something can carry (for people and alerts: restarting
//! the agent because the apiservers are gone would help nobody).
//!
//! It shares a process with the data path, so it is bounded: connections, their life, the time for a request's head; a request's
//! body is never read.

use std::convert::Infallible;
use std::sync::Arc;
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
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::world::{BoxFuture, Listener, Stream};

pub mod metrics;
pub mod status;
#[cfg(test)]
mod tests;

pub use metrics::Metrics;
pub use status::Status;

/// Connections at once; more wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// A request's head must be there within this time. An idle kept connection ends after it too.
const HEAD_WAIT: Duration = Duration::from_secs(5);
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
}

/// Serves `view` on `listener` until the task is aborted; its connections end with it.
pub fn serve(listener: Box<dyn Listener>, view: Arc<dyn View>) -> JoinHandle<()> {
    tokio::spawn(accept(listener, view))
}

async fn accept(listener: Box<dyn Listener>, view: Arc<dyn View>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let view = view.clone();
                connections.spawn(async move {
                    // A client that went away or took too long: nobody else has to know.
                    let _ = timeout(CONNECTION_LIFE, converse(stream, view)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept an admin connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: Box<dyn Stream>, view: Arc<dyn View>) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let view = view.clone();
        async move { Ok::<_, Infallible>(answer(&request, &*view).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

type Answer = Response<Full<Bytes>>;

const HELP: &str = "prismesh: /healthz (the loops turn), /readyz (something can carry), /metrics (Prometheus), /status (JSON)\n";

async fn answer(request: &Request<Incoming>, view: &dyn View) -> Answer {
    let path = request.uri().path();
    if !matches!(path, "/" | "/healthz" | "/readyz" | "/metrics" | "/status") {
        return text(StatusCode::NOT_FOUND, HELP);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/healthz" => verdict(
            timeout(HEALTH_WAIT, view.healthy())
                .await
                .unwrap_or_else(|_| Err(format!("no answer from the loops within {} s", HEALTH_WAIT.as_secs()))),
        ),
        "/readyz" => verdict(view.ready()),
        "/metrics" => view.metrics().await.map_or_else(|reason| verdict(Err(reason)), |metrics| scrape(&metrics)),
        "/status" => view.status().await.map_or_else(|reason| verdict(Err(reason)), |now| status(&now)),
        _ => text(StatusCode::OK, HELP),
    }
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
