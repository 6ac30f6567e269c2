//! One probe of one endpoint: `GET /readyz` over TLS, and what came of it.
//!
//! A bare TCP check would call a hung apiserver healthy (its kernel still accepts), and a TLS handshake for each probe would
//! fill the apiserver's log and cost it a signature. So the question is a real one, and the connection is kept between
//! questions: a probe of a healthy endpoint is one small request on a connection that is already there.
//!
//! What this promises:
//! - each phase of a probe (dial, TLS handshake, answer) ends within its limit, and the outcome says which one did not;
//! - an answer counts only if the certificate was verified against [`Trust`]; without a CA, that a handshake was completed;
//! - what this node could not even try ([`Outcome::LocalError`]) is never blamed on the endpoint;
//! - a kept connection that ends before its answer is [`Outcome::Stale`], no evidence: whoever ordered the probe repeats it.
//!
//! No task is spawned: a kept connection is polled only while a probe uses it, so that the number of connections and tasks
//! is bounded by the endpoints that are probed. Policy (when to probe, what an outcome means) is the engine's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::engine::Endpoint;
use crate::engine::event::{Outcome, ProbeOrder, Probed};
use crate::engine::policy;
use crate::world::{BoxFuture, Clock, Net, Prober};

mod algorithms;
mod connection;
mod http;
mod outcome;
mod presented;
#[cfg(test)]
mod tests;
mod trust;
mod verify;

use connection::Connection;
use presented::Certificate;
pub use trust::{Before, Trust, TrustError};

/// A kept connection that no probe has used for this long belongs to an endpoint that is probed no more.
/// Connections are kept only where probes are at most this far apart, jitter and all.
const KEPT_UNUSED: Duration = Duration::from_secs(2 * policy::PROBE_KEEP_BELOW.as_secs());

/// Certificates seen longer ago than this are forgotten: a probed endpoint shows its certificate at least this often.
const CERTIFICATE_REMEMBERED: Duration = Duration::from_secs(12 * policy::PROBE_RENEW.as_secs());

/// The real prober.
pub struct TlsProber {
    net: Arc<dyn Net>,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    trust: Arc<Trust>,
    kept: BTreeMap<Endpoint, Connection>,
    certificates: BTreeMap<Endpoint, Certificate>,
}

/// What one probe measured beside its outcome.
#[derive(Default)]
struct Measured {
    rtt: Option<Duration>,
    handshake: Option<Duration>,
    hello_bytes: u32,
}

impl TlsProber {
    /// A prober that dials through `net` and believes what `trust` says.
    pub fn new(net: Arc<dyn Net>, clock: Clock, trust: Trust) -> TlsProber {
        let state = State { trust: Arc::new(trust), kept: BTreeMap::new(), certificates: BTreeMap::new() };
        TlsProber { net, clock, state: Mutex::new(state) }
    }

    /// What is believed now.
    pub fn trust(&self) -> Arc<Trust> {
        self.state().trust.clone()
    }

    async fn run(&self, order: ProbeOrder) -> Probed {
        let begun = Instant::now();
        let (trust, kept) = self.begin(&order, begun);
        let fresh = kept.is_none();
        let mut seen = Measured::default();
        let outcome = match self.ask(&order, &trust, kept, &mut seen).await {
            Err(outcome) => outcome,
            Ok((connection, answer)) => {
                let outcome = self.as_trusted_now(connection.outcome(answer.status.as_u16()), &order, &trust, connection.seen());
                if order.keep
                    && let Some(connection) = connection.settle(answer).await
                {
                    self.keep(order.endpoint, &trust, connection);
                }
                outcome
            }
        };
        Probed {
            id: order.id,
            endpoint: order.endpoint,
            sent: self.clock.moment(begun),
            fresh,
            rtt: seen.rtt,
            handshake: seen.handshake,
            hello_bytes: seen.hello_bytes,
            outcome,
        }
    }

    /// Asks over the kept connection, or over a new one. Each phase has its own limit.
    async fn ask(
        &self,
        order: &ProbeOrder,
        trust: &Arc<Trust>,
        kept: Option<Connection>,
        seen: &mut Measured,
    ) -> Result<(Connection, http::Answer), Outcome> {
        if let Some(mut connection) = kept {
            let asked = Instant::now();
            let answer = timeout(order.limits.answer, connection.ask()).await.map_err(|_| Outcome::AnswerTimedOut)?;
            // Whatever ended it (an idle time-out, even with a word of farewell) says nothing about a new one.
            let answer = answer.map_err(|_| Outcome::Stale)?;
            seen.rtt = Some(asked.elapsed());
            return Ok((connection, answer));
        }
        let dialled = timeout(order.limits.dial, connection::dial(&*self.net, order.endpoint, order.limits.dial)).await;
        let (stream, round_trip) = dialled.map_err(|_| Outcome::DialTimedOut)?.map_err(|error| outcome::of_dial(&error))?;
        seen.rtt = Some(round_trip);
        let begun = Instant::now();
        let opened = Connection::open(stream, order, trust, &mut seen.hello_bytes).await;
        let mut connection = opened?;
        seen.handshake = Some(begun.elapsed());
        self.note_certificate(order, connection.seen());
        let answer = timeout(order.limits.answer, connection.ask()).await.map_err(|_| connection.late())??;
        Ok((connection, answer))
    }

    /// What holds for this probe: the trust of now, and the kept connection if it may be used.
    fn begin(&self, order: &ProbeOrder, now: Instant) -> (Arc<Trust>, Option<Connection>) {
        let mut state = self.state();
        state.kept.retain(|_, connection| now.saturating_duration_since(connection.used()) < KEPT_UNUSED);
        let kept = state.kept.remove(&order.endpoint);
        let usable = kept.filter(|connection| !order.fresh && connection.serves(order.server_name.as_deref(), now));
        (state.trust.clone(), usable)
    }

    fn keep(&self, endpoint: Endpoint, trust: &Arc<Trust>, connection: Connection) {
        let mut state = self.state();
        if Arc::ptr_eq(&state.trust, trust) {
            state.kept.insert(endpoint, connection);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prober for TlsProber {
    fn probe(&self, order: ProbeOrder) -> BoxFuture<'_, Probed> {
        Box::pin(self.run(order))
    }

    fn forget(&self, endpoint: Endpoint) {
        let mut state = self.state();
        state.kept.remove(&endpoint);
        state.certificates.remove(&endpoint);
    }

    fn certificates(&self) -> BTreeMap<Endpoint, i64> {
        let state = self.state();
        state.certificates.iter().filter_map(|(endpoint, shown)| Some((*endpoint, shown.not_after?))).collect()
    }
}
