//! The modelled probe: `GET /readyz` over a modelled connection, kept between probes as the real one is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prismesh::engine::event::{Outcome, ProbeOrder, Probed};
use prismesh::engine::{Endpoint, policy};
use prismesh::world::fault::Fault;
use prismesh::world::{BoxFuture, Clock, Prober};
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout_at};

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
    /// The CAs that are believed.
    trusted: BTreeSet<u32>,
    /// How often that has changed.
    changes: u64,
    kept: BTreeMap<Endpoint, Kept>,
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
    pub(super) fn new(host: Host, clock: Clock, trusted: BTreeSet<u32>) -> Arc<SimProber> {
        Arc::new(SimProber { host, clock, state: Mutex::new(State { trusted, changes: 0, kept: BTreeMap::new() }) })
    }

    /// Believes these from now on.
    pub(super) fn replace(&self, trusted: BTreeSet<u32>) {
        let mut state = self.state();
        state.trusted = trusted;
        state.changes += 1;
        let dropped = std::mem::take(&mut state.kept);
        drop(state);
        drop(dropped);
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
        let mut rtt = None;
        let asked = timeout_at(begun + order.timeout, self.ask(&order, kept, &mut rtt)).await;
        let (outcome, shown) = match asked {
            Err(_) => (Outcome::TimedOut, None),
            Ok(Err(outcome)) => (outcome, None),
            Ok(Ok((kept, status))) => {
                let shown = kept.shown;
                if order.keep {
                    self.keep(order.endpoint, kept, changes);
                }
                (Outcome::Status { code: status, expired: shown.expired }, Some(shown))
            }
        };
        self.note(&order, sent_at, shown.as_ref(), &outcome);
        Probed { id: order.id, endpoint: order.endpoint, sent: self.clock.moment(begun), fresh, rtt, outcome }
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
        let byte = answered || matches!(outcome, Outcome::NotTls | Outcome::Untrusted(_) | Outcome::WrongName(_));
        core.log.probes.push(ProbeSeen { at, machine: self.host.machine, run, endpoint, done: now, answered, byte });
        if let Some(shown) = shown.filter(|_| answered) {
            core.log.proofs.entry((run, endpoint, shown.incarnation)).or_insert(now);
        }
    }

    async fn ask(&self, order: &ProbeOrder, kept: Option<Kept>, rtt: &mut Option<Duration>) -> Result<(Kept, u16), Outcome> {
        if let Some(mut kept) = kept {
            let asked = Instant::now();
            kept.used = asked;
            let status = readyz(&mut kept).await.map_err(|_| Outcome::Stale)?;
            *rtt = Some(asked.elapsed());
            return Ok((kept, status));
        }
        let (stream, handshake) = self.dial(order.endpoint.addr()).await.map_err(|error| of_error(&error))?;
        *rtt = Some(handshake);
        let mut kept = self.greet(stream, order).await?;
        let status = readyz(&mut kept).await.map_err(|error| of_error(&error))?;
        Ok((kept, status))
    }

    /// Dials, and once more beside it where nothing has come of it after a while, as the real one does.
    async fn dial(&self, to: SocketAddr) -> io::Result<(SimStream, Duration)> {
        let dial = async || {
            let begun = Instant::now();
            let owner = self.host.run.map_or(Owner::Task, Owner::Probe);
            let stream = self.host.dial(to, owner).await?;
            Ok((stream, begun.elapsed()))
        };
        let mut first = Box::pin(dial());
        tokio::select! {
            biased;
            connected = &mut first => return connected,
            () = sleep(policy::PROBE_SECOND_DIAL) => {}
        }
        let mut second = Box::pin(dial());
        tokio::select! {
            biased;
            connected = &mut first => match connected { Err(_) => second.await, connected => connected },
            connected = &mut second => match connected { Err(_) => first.await, connected => connected },
        }
    }

    async fn greet(&self, mut stream: SimStream, order: &ProbeOrder) -> Result<Kept, Outcome> {
        stream.write_all(&wire::client_hello(u64::MAX)).await.map_err(|error| of_error(&error))?;
        let mut read = Vec::new();
        let (kind, content) = next_record(&mut stream, &mut read).await.map_err(|error| of_error(&error))?;
        let shown = wire::shown(&content).filter(|_| kind == wire::HANDSHAKE).ok_or(Outcome::NotTls)?;
        if !self.state().trusted.contains(&shown.ca) {
            return Err(Outcome::Untrusted("not signed by the cluster's CA".to_owned()));
        }
        let now = Instant::now();
        // Spread as the real ones are, so that a cluster's connections are not all renewed in one moment.
        let spread = 1.0 + policy::PROBE_JITTER * rand::rng().random_range(-1.0..=1.0);
        let renew = now + policy::PROBE_RENEW.mul_f64(spread);
        Ok(Kept { stream, read, shown, server_name: order.server_name.clone(), used: now, renew })
    }
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
        Fault::TimedOut => Outcome::TimedOut,
        Fault::Unreachable(why) => Outcome::Unreachable(why),
        Fault::Local(why) => Outcome::LocalError(why),
    }
}

impl Prober for SimProber {
    fn probe(&self, order: ProbeOrder) -> BoxFuture<'_, Probed> {
        Box::pin(self.run(order))
    }

    fn forget(&self, endpoint: Endpoint) {
        let forgotten = self.state().kept.remove(&endpoint);
        drop(forgotten);
    }
}
