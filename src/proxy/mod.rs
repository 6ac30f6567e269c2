//! The data path: accept, race, carry, reset, hold.
//!
//! A client of this node's port never pays for an apiserver that died a moment ago. It is not connected to *an* upstream and
//! told of the failure; its bytes are looked at first, and as long as they are a ClientHello, which changes nothing until it
//! is answered, they go to whoever answers. So the proxy hides failures that no health check has noticed yet, and the engine
//! may take its time to be sure. What it cannot hide is a connection that was answered: from then on it carries bytes and
//! nothing else.
//!
//! The engine is never asked: each new connection reads the newest [`Routing`], and what is seen of upstreams goes back as
//! [`Saw`], dropped (and counted) rather than waited for.
//!
//! What happens to one client, in order: `accept` gives it a place, `session` waits for its first byte, `race` finds its
//! upstream (`dial`, then `trial`), `hold` keeps it while there is none, the world's [`Net::carry`] does the rest, and
//! `watch_peers` looks whether the upstream's kernel still acknowledges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::accept::Beat;
use self::bucket::Bucket;
use self::clients::Clients;
use self::echoes::Echoes;
use self::hold::Hold;
use self::stats::Stats;
pub use self::stats::{DialEnd, Snapshot, TurnedAway, UpstreamCounts};
use crate::engine::event::{ResetReason, Saw};
use crate::engine::{Endpoint, Moment, Routing, policy};
use crate::supervise::{Ended, Essential, Supervised};
use crate::world::{Clock, Listener, Net, World};

mod accept;
mod bucket;
mod clients;
mod dial;
mod echoes;
pub mod hello;
mod hold;
mod race;
mod said;
mod session;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trial;
mod watch_peers;

/// An accept loop answers within this time, or something is very wrong.
const BEAT: Duration = Duration::from_secs(1);
/// Before a reset for a hang it is looked this often whether any connection to that endpoint has received something.
const LOOKED_AT_ALL: Duration = Duration::from_millis(50);
/// A connection that is reset is gone within this time.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What the proxy is told once.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Client connections at most.
    pub max_connections: usize,
}

/// The running proxy.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
    beats: Arc<[mpsc::Sender<Beat>]>,
    doors: TaskTracker,
    closing: CancellationToken,
    ended: Ended,
    watch_task: Arc<Supervised>,
}

/// What all connections share.
struct Shared {
    net: Arc<dyn Net>,
    clock: Clock,
    routing: watch::Receiver<Arc<Routing>>,
    saw: mpsc::Sender<(Endpoint, Saw)>,
    stats: Stats,
    hold: Arc<Hold>,
    bucket: Bucket,
    clients: Arc<Clients>,
    echoes: Arc<Echoes>,
}

impl Proxy {
    /// Starts to accept. With an empty routing clients are held.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(
        world: &World,
        listeners: Vec<Box<dyn Listener>>,
        routing: watch::Receiver<Arc<Routing>>,
        settings: Settings,
        saw: mpsc::Sender<(Endpoint, Saw)>,
    ) -> Proxy {
        let shared = Arc::new(Shared {
            net: world.net.clone(),
            clock: world.clock,
            routing,
            saw,
            stats: Stats::default(),
            hold: Hold::new(),
            bucket: Bucket::default(),
            clients: Clients::new(settings.max_connections),
            echoes: Arc::default(),
        });
        let (doors, closing) = (TaskTracker::new(), CancellationToken::new());
        let (essential, ended) = Essential::new();
        let open = |listener| {
            let (ask, beats) = mpsc::channel(1);
            let accepting = accept::accept(shared.clone(), listener, beats, closing.clone());
            doors.spawn(essential.run("an accept loop", accepting));
            ask
        };
        let beats = listeners.into_iter().map(open).collect();
        doors.close();
        let watch_task = Arc::new(Supervised::new("connections"));
        let (watched, watching, closed) = (shared.clone(), watch_task.clone(), closing.clone());
        tokio::spawn(async move { watching.keep(|| watch_peers::run(watched.clone(), closed.clone())).await });
        Proxy { shared, beats, doors, closing, ended, watch_task }
    }

    /// What completes when an accept loop has ended, also by [`Proxy::stop`].
    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }

    /// How the watch over established connections fares.
    pub fn watch_task(&self) -> &Supervised {
        &self.watch_task
    }

    /// How many clients are held now.
    pub fn held(&self) -> watch::Receiver<u32> {
        self.shared.hold.count()
    }

    /// Something answers: who is held may dial again, [`policy::RELEASE_BATCH`] at a time.
    pub fn release(&self) {
        self.shared.hold.release();
    }

    /// Resets the established connections to an endpoint (all of them, where `silent_since` is [`None`]), spread evenly over `over`. With
    /// `silent_since` none is reset once something was received from there since then: whatever accepts and does not answer there, what serves
    /// established connections lives.
    pub fn reset(&self, endpoint: Endpoint, reason: ResetReason, silent_since: Option<Moment>, over: Duration) {
        if reason == ResetReason::TrustWithdrawn {
            self.shared.clients.distrust(endpoint);
        }
        let meters = self.shared.clients.meters(endpoint);
        let Ok(count) = u32::try_from(meters.len()) else { return };
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let (begin, mut looked) = (Instant::now(), None);
            for (turn, meter) in (0_u32..).zip(meters) {
                sleep_until(begin + over.mul_f64(f64::from(turn) / f64::from(count))).await;
                // To look at all of very many at each turn would take longer than the turns.
                let all = looked.is_none_or(|looked: Instant| looked.elapsed() >= LOOKED_AT_ALL);
                looked = if all { Some(Instant::now()) } else { looked };
                let heard = |since| meter.last_from_upstream() > since || (all && shared.clients.heard_since(endpoint, since));
                if silent_since.is_some_and(heard) {
                    tracing::info!(%endpoint, "fresh connections are not answered, and established ones are: no more is reset");
                    return;
                }
                meter.end(Some(reason));
            }
        });
    }

    /// Established connections now, by upstream.
    pub fn connections(&self) -> BTreeMap<Endpoint, u32> {
        self.shared.clients.connections()
    }

    /// Stops. Goes on accepting and serving for `drain`, but not when nobody is connected, nor once `hurry` is cancelled;
    /// then closes the listeners, gives connections younger than [`policy::DRAIN_YOUNG`] the rest of that age, and resets what
    /// is left. After `hurry` nobody is given time.
    pub async fn stop(&self, drain: Duration, hurry: CancellationToken) {
        let clients = &self.shared.clients;
        tokio::select! {
            () = sleep(drain) => {}
            () = hurry.cancelled() => {}
            () = clients.none() => {}
        }
        self.closing.cancel();
        self.doors.wait().await;
        clients.closing.cancel();
        tokio::select! {
            () = sleep(policy::DRAIN_YOUNG + LAST_WORD) => {}
            () = hurry.cancelled() => {}
            () = clients.none() => {}
        }
        clients.at_once.cancel();
        // Who is not gone by now goes with the process.
        let _ = timeout(LAST_WORD, clients.none()).await;
    }

    /// Closes the listeners and resets everybody, now.
    pub fn end(&self) {
        self.closing.cancel();
        self.shared.clients.closing.cancel();
        self.shared.clients.at_once.cancel();
    }

    /// Whether all accept loops answer.
    pub async fn beat(&self) -> bool {
        if self.closing.is_cancelled() {
            return true;
        }
        let all = async {
            for ask in self.beats.iter() {
                let (beat, answered) = oneshot::channel();
                if ask.send(beat).await.is_err() || answered.await.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(BEAT, all).await.unwrap_or(false)
    }

    /// What has been counted so far.
    pub fn stats(&self) -> Snapshot {
        let mut counts = self.shared.stats.so_far();
        counts.clients = self.shared.clients.open();
        counts.held = *self.shared.hold.count().borrow();
        for (endpoint, totals) in self.shared.clients.totals() {
            let upstream = counts.upstreams.entry(endpoint).or_default();
            upstream.open = totals.open;
            upstream.to_upstream = totals.to_upstream;
            upstream.to_client = totals.to_client;
        }
        counts
    }
}

impl Shared {
    /// Tells the engine what was seen. A busy engine misses it, and the next one will say the same.
    fn saw(&self, endpoint: Endpoint, saw: Saw) {
        if self.saw.try_send((endpoint, saw)).is_err() {
            self.stats.count(|counts| counts.sightings_dropped += 1);
        }
    }

    /// Whether trust in an endpoint was withdrawn, and the routing does not have it again: an upstream that was on trial meanwhile may
    /// have answered since.
    fn distrusts(&self, endpoint: Endpoint) -> bool {
        let routed = self.routing.borrow().verdict(endpoint).is_some();
        self.clients.distrusts(endpoint, routed)
    }

    /// Counts a dial's end, and tells what it showed.
    fn dialled(&self, endpoint: Endpoint, end: DialEnd, saw: Option<Saw>) {
        self.upstream(endpoint, |counts| *counts.dials.entry(end).or_default() += 1);
        if let Some(saw) = saw {
            self.saw(endpoint, saw);
        }
    }

    /// Changes one upstream's counts. Addresses come and go for as long as the agent runs; when there are very many, those that
    /// nothing is carried to are forgotten.
    fn upstream(&self, endpoint: Endpoint, change: impl FnOnce(&mut UpstreamCounts)) {
        if self.stats.upstream(endpoint, change) {
            self.clients.forget_idle();
            self.stats.count(|counts| counts.upstreams.retain(|known, _| *known == endpoint || self.clients.carries(*known)));
        }
    }
}
