//! The modelled probe: `GET /readyz` over a modelled connection, kept between probes as the real one is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use prismesh::engine::event::{Lack, Outcome, ProbeOrder, Probed, Reverified};
use prismesh::engine::liveness::{PeerState, Unanswered};
use prismesh::engine::{Endpoint, policy};
use prismesh::world::fault::Fault;
use prismesh::world::{BoxFuture, Clock, Prober, Stream as _};
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, interval_at, timeout};

use super::log::ProbeSeen;
use super::seams::{Host, SimStream};
use super::tcp::Owner;
use super::wire::{self, Frame, Shown, Verb};

/// Probes of one agent's process.
pub(super) struct SimProber {
    host: Host,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    /// The CAs that are believed; [`None`] where their file is missing.
    trusted: Option<BTreeSet<u32>>,
    /// How often that has changed.
    changes: u64,
    kept: BTreeMap<Endpoint, Kept>,
    /// The CA of the certificate that each endpoint showed last.
    shown: BTreeMap<Endpoint, u32>,
}

/// What one probe measured beside its outcome.
#[derive(Default)]
struct Measured {
    rtt: Option<Duration>,
    handshake: Option<Duration>,
    hello_bytes: u32,
}

struct Kept {
    stream: SimStream,
    read: Vec<u8>,
    shown: Shown,
    server_name: Option<String>,
    used: Instant,
    renew: Instant,
}

/// A kept connection that no probe has used for this long belongs to an endpoint that is probed no more.
const KEPT_UNUSED: Duration = Duration::from_secs(2 * policy::PROBE_KEEP_BELOW.as_secs());

impl SimProber {
    pub(super) fn new(host: Host, clock: Clock, trusted: Option<BTreeSet<u32>>) -> Arc<SimProber> {
        Arc::new(SimProber {
            host,
            clock,
            state: Mutex::new(State { trusted, changes: 0, kept: BTreeMap::new(), shown: BTreeMap::new() }),
        })
    }

    /// Believes these from now on, and tells what the certificate that each endpoint showed last is worth to them, as the real one
    /// does; [`None`] if nothing has changed.
    pub(super) async fn replace(&self, trusted: BTreeSet<u32>) -> Option<BTreeMap<Endpoint, Reverified>> {
        let shown = {
            let state = self.state();
            (state.trusted.as_ref() != Some(&trusted)).then(|| state.shown.clone())
        };
        let mut worth = BTreeMap::new();
        for (endpoint, ca) in shown.iter().flatten() {
            let unknown = !trusted.contains(ca) && *ca != wire::UNSUPPORTED;
            let shows = if unknown { self.look(*endpoint).await } else { Some(*ca) };
            let reverified = match shows {
                Some(wire::UNSUPPORTED) => Reverified::Unverified,
                Some(ca) if trusted.contains(&ca) => Reverified::Verified,
                _ => Reverified::Rejected("another CA".to_owned()),
            };
            worth.insert(*endpoint, reverified);
        }
        let mut state = self.state();
        state.trusted = Some(trusted);
        state.changes += 1;
        let dropped = std::mem::take(&mut state.kept);
        drop(state);
        drop(dropped);
        shown.map(|_| worth)
    }

    /// The CA of what an endpoint shows now.
    async fn look(&self, endpoint: Endpoint) -> Option<u32> {
        let shakes_hands = async {
            let (stream, _) = self.dial(endpoint.addr(), policy::REJECTED_LOOK).await.ok()?;
            let (_, shown, _) = hello(stream).await.ok()?;
            Some(shown.ca)
        };
        timeout(policy::REJECTED_LOOK, shakes_hands).await.ok().flatten()
    }

    /// A CA was read, be it that its file is gone by now.
    pub(super) fn has_ca(&self) -> bool {
        self.state().trusted.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, order: ProbeOrder) -> Probed {
        let begun = Instant::now();
        let sent_at = self.host.sim.now();
        let (kept, changes, dropped) = self.begin(&order, begun);
        drop(dropped);
        let fresh = kept.is_none();
        let mut measured = Measured::default();
        let (outcome, shown) = match self.ask(&order, kept, &mut measured).await {
            Err(outcome) => (outcome, None),
            Ok((kept, status)) => {
                let shown = kept.shown;
                if order.keep {
                    self.keep(order.endpoint, kept, changes);
                }
                // What is trusted may have changed meanwhile.
                let outcome = match self.verify(shown.ca) {
                    Ok(None) => Outcome::Status { code: status, expired: shown.expired },
                    Ok(Some(lack)) => Outcome::Unverified { code: status, lack },
                    Err(untrusted) => untrusted,
                };
                (outcome, Some(shown))
            }
        };
        self.note(&order, sent_at, shown.as_ref(), &outcome);
        Probed {
            id: order.id,
            endpoint: order.endpoint,
            sent: self.clock.moment(begun),
            fresh,
            rtt: measured.rtt,
            handshake: measured.handshake,
            hello_bytes: measured.hello_bytes,
            outcome,
        }
    }

    /// Whether a certificate of this CA is verified, and what is missing where that cannot be told.
    fn verify(&self, ca: u32) -> Result<Option<Lack>, Outcome> {
        match &self.state().trusted {
            None => Ok(Some(Lack::Ca("the CA's file is missing".to_owned()))),
            Some(_) if ca == wire::UNSUPPORTED => Ok(Some(Lack::Algorithm("an algorithm".to_owned()))),
            Some(trusted) if trusted.contains(&ca) => Ok(None),
            Some(_) => Err(Outcome::Untrusted("not signed by the cluster's CA".to_owned())),
        }
    }

    /// The kept connection if it may be used, under which trust, and what may go.
    fn begin(&self, order: &ProbeOrder, now: Instant) -> (Option<Kept>, u64, Vec<Kept>) {
        let mut state = self.state();
        let unused = |kept: &Kept| now.saturating_duration_since(kept.used) >= KEPT_UNUSED;
        let old: Vec<Endpoint> = state.kept.iter().filter(|(_, kept)| unused(kept)).map(|(endpoint, _)| *endpoint).collect();
        let mut dropped: Vec<Kept> = old.iter().filter_map(|endpoint| state.kept.remove(endpoint)).collect();
        let kept = state.kept.remove(&order.endpoint);
        let serves = |kept: &Kept| !order.fresh && now < kept.renew && kept.server_name == order.server_name;
        let (kept, other) = match kept {
            Some(kept) if serves(&kept) => (Some(kept), None),
            other => (None, other),
        };
        dropped.extend(other);
        (kept, state.changes, dropped)
    }

    /// Keeps a connection, unless what is trusted has changed since it was verified.
    fn keep(&self, endpoint: Endpoint, kept: Kept, changes: u64) {
        let mut state = self.state();
        let dropped = if state.changes == changes { state.kept.insert(endpoint, kept) } else { Some(kept) };
        drop(state);
        drop(dropped);
    }

    /// For the judge: what the world saw of this probe.
    fn note(&self, order: &ProbeOrder, at: u64, shown: Option<&Shown>, outcome: &Outcome) {
        let Some(run) = self.host.run else { return };
        let mut core = self.host.sim.core();
        let (now, endpoint) = (core.now, order.endpoint.addr());
        let answered = matches!(outcome, Outcome::Status { code: 200 | 401 | 403 | 429 | 500 | 503, .. });
        let byte = answered
            || *outcome == Outcome::AnswerTimedOut
            || matches!(outcome, Outcome::NotTls | Outcome::Untrusted(_) | Outcome::WrongName(_) | Outcome::Unverified { .. });
        core.log.probes.push(ProbeSeen { at, machine: self.host.machine, run, endpoint, done: now, answered, byte });
        if let Some(shown) = shown.filter(|_| answered) {
            core.log.proofs.entry((run, endpoint, shown.incarnation)).or_insert(now);
        }
    }

    /// Asks over the kept connection, or over a new one. Each phase has its own limit.
    async fn ask(&self, order: &ProbeOrder, kept: Option<Kept>, measured: &mut Measured) -> Result<(Kept, u16), Outcome> {
        let limits = order.limits;
        if let Some(mut kept) = kept {
            let asked = Instant::now();
            kept.used = asked;
            let status = timeout(limits.answer, readyz(&mut kept)).await.map_err(|_| Outcome::AnswerTimedOut)?;
            let status = status.map_err(|_| Outcome::Stale)?;
            measured.rtt = Some(asked.elapsed());
            return Ok((kept, status));
        }
        let dialled = timeout(limits.dial, self.dial(order.endpoint.addr(), limits.dial)).await;
        let (stream, round_trip) = dialled.map_err(|_| Outcome::DialTimedOut)?.map_err(|error| of_error(&error))?;
        measured.rtt = Some(round_trip);
        let begun = Instant::now();
        let mut kept = self.greet(stream, order, measured).await?;
        measured.handshake = Some(begun.elapsed());
        let status = timeout(limits.answer, readyz(&mut kept)).await.map_err(|_| Outcome::AnswerTimedOut)?;
        Ok((kept, status.map_err(|error| of_error(&error))?))
    }

    /// Dials, and beside the dials that are under way once more each time a share of the limit has passed, as the real one does.
    async fn dial(&self, to: SocketAddr, limit: Duration) -> io::Result<(SimStream, Duration)> {
        let dial = || async move {
            let begun = Instant::now();
            let owner = self.host.run.map_or(Owner::Task, Owner::Probe);
            let stream = self.host.dial(to, owner).await?;
            Ok((stream, begun.elapsed()))
        };
        let mut dials = FuturesUnordered::from_iter([dial()]);
        let mut again = interval_at(Instant::now() + limit / policy::PROBE_DIALS, limit / policy::PROBE_DIALS);
        loop {
            tokio::select! {
                biased;
                Some(connected) = dials.next() => {
                    if connected.is_ok() || dials.is_empty() {
                        return connected;
                    }
                }
                _ = again.tick() => dials.push(dial()),
            }
        }
    }

    async fn greet(&self, mut stream: SimStream, order: &ProbeOrder, measured: &mut Measured) -> Result<Kept, Outcome> {
        let hello = wire::client_hello(u64::MAX);
        stream.write_all(&hello).await.map_err(|error| of_error(&error))?;
        measured.hello_bytes = u32::try_from(hello.len()).unwrap_or(u32::MAX);
        let mut read = Vec::new();
        let answer = timeout(order.limits.handshake, next_record(&mut stream, &mut read)).await;
        let hangs = |peer: PeerState| peer.unanswered == Unanswered::Nothing && !peer.has_sent;
        let hung = || Outcome::HandshakeTimedOut { hung: stream.peer().is_none_or(hangs) };
        let (kind, content) = answer.map_err(|_| hung())?.map_err(|error| of_error(&error))?;
        let shown = wire::shown(&content).filter(|_| kind == wire::HANDSHAKE).ok_or(Outcome::NotTls)?;
        self.state().shown.insert(order.endpoint, shown.ca);
        self.verify(shown.ca)?;
        let now = Instant::now();
        // Spread as the real ones are, so that a cluster's connections are not all renewed in one moment.
        let spread = 1.0 + policy::PROBE_JITTER * rand::rng().random_range(-1.0..=1.0);
        let renew = now + policy::PROBE_RENEW.mul_f64(spread);
        Ok(Kept { stream, read, shown, server_name: order.server_name.clone(), used: now, renew })
    }
}

/// Says hello, and reads what the other side shows.
async fn hello(mut stream: SimStream) -> Result<(SimStream, Shown, Vec<u8>), Outcome> {
    stream.write_all(&wire::client_hello(u64::MAX)).await.map_err(|error| of_error(&error))?;
    let mut read = Vec::new();
    let (kind, content) = next_record(&mut stream, &mut read).await.map_err(|error| of_error(&error))?;
    let shown = wire::shown(&content).filter(|_| kind == wire::HANDSHAKE).ok_or(Outcome::NotTls)?;
    Ok((stream, shown, read))
}

async fn readyz(kept: &mut Kept) -> io::Result<u16> {
    kept.stream.write_all(&Frame::ask(Verb::Readyz, 1).encode()).await?;
    loop {
        let (kind, content) = next_record(&mut kept.stream, &mut kept.read).await?;
        if let (wire::DATA, Some(frame)) = (kind, Frame::decode(&content))
            && frame.verb == Verb::Readyz
        {
            return Ok(frame.status);
        }
    }
}

/// The next record; what is no TLS ends as invalid data.
pub(super) async fn next_record(stream: &mut SimStream, read: &mut Vec<u8>) -> io::Result<(u8, Vec<u8>)> {
    loop {
        if read.first().is_some_and(|kind| !matches!(*kind, 20..=23)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Some(record) = wire::take_record(read) {
            return Ok(record);
        }
        let mut space = [0; 2048];
        let count = stream.read(&mut space).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read.extend_from_slice(&space[..count]);
    }
}

fn of_error(error: &io::Error) -> Outcome {
    // What the modelled TLS makes of bytes that are none.
    if error.kind() == io::ErrorKind::InvalidData {
        return Outcome::NotTls;
    }
    match Fault::of(error) {
        Fault::Refused => Outcome::Refused,
        Fault::TimedOut => Outcome::DialTimedOut,
        Fault::Unreachable(why) => Outcome::Unreachable(why),
        Fault::Local(why) => Outcome::LocalError(why),
    }
}

impl Prober for SimProber {
    fn probe(&self, order: ProbeOrder) -> BoxFuture<'_, Probed> {
        Box::pin(self.run(order))
    }

    fn forget(&self, endpoint: Endpoint) {
        self.state().shown.remove(&endpoint);
        let forgotten = self.state().kept.remove(&endpoint);
        drop(forgotten);
    }
}
