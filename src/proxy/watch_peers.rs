//! Looks at the peers of established connections, and resets those whose kernel has fallen silent.
//!
//! The rule is [`liveness`](crate::engine::liveness)'s. Here is only who is looked at, which is kept cheap: a connection whose client has
//! asked and got nothing, at each look; of the others the quietest one of each endpoint, now and then; and all of an endpoint's
//! while one of them is in doubt. Meanwhile the address is dialled, without a byte, to learn whether it answers at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::engine::event::{ResetReason, Saw};
use crate::engine::liveness::{Reach, dial_limit};
use crate::engine::policy::{PEER_LOOK_AFTER, PEER_LOOK_INTERVAL, PEER_SAMPLE_INTERVAL, UNANSWERED};
use crate::engine::{Endpoint, Moment};
use crate::world::Meter;
use crate::world::fault::Fault;

/// What is known of one endpoint's connections as a whole.
#[derive(Default)]
struct Watched {
    /// When one of its connections was last seen in doubt.
    in_doubt: Option<Moment>,
    sampled: Option<Moment>,
    /// Since when some connection has counted as silent.
    silent_since: Option<Moment>,
    /// The longest round trip that its connections show.
    round_trip: Duration,
    reach: Reach,
}

/// A dial has ended, or not been answered in its time.
struct Dialled {
    endpoint: Endpoint,
    begun: Moment,
    /// [`None`]: this node could not dial.
    answered: Option<bool>,
}

/// Runs until the proxy closes.
pub(super) async fn run(shared: Arc<Shared>, closing: CancellationToken) {
    let mut watcher = Watcher { shared, endpoints: BTreeMap::new(), dials: mpsc::channel(64) };
    let mut looks = interval(PEER_LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let open = async {
            watcher.shared.clients.some().await;
            looks.tick().await;
        };
        tokio::select! {
            () = open => watcher.look(),
            () = closing.cancelled() => return,
        }
    }
}

struct Watcher {
    shared: Arc<Shared>,
    endpoints: BTreeMap<Endpoint, Watched>,
    dials: (mpsc::Sender<Dialled>, mpsc::Receiver<Dialled>),
}

impl Watcher {
    fn look(&mut self) {
        let now = self.shared.clock.now();
        self.hear_of_dials(now);
        let mut seen = BTreeMap::new();
        let mut events = Vec::new();
        let before = &mut self.endpoints;
        self.shared.clients.visit(|endpoint, meters| {
            let mut watched = before.remove(&endpoint).unwrap_or_default();
            watched.look(now, meters, |event| events.push((endpoint, event)));
            seen.insert(endpoint, watched);
        });
        self.endpoints = seen;
        for (endpoint, event) in events {
            self.shared.saw(endpoint, event);
        }
        self.dial_those_in_doubt(now);
    }

    fn hear_of_dials(&mut self, now: Moment) {
        while let Ok(Dialled { endpoint, begun, answered }) = self.dials.1.try_recv() {
            let Some(watched) = self.endpoints.get_mut(&endpoint) else { continue };
            match answered {
                Some(true) => watched.reach.answered(now),
                Some(false) => watched.reach.unanswered(begun),
                None => {}
            }
        }
    }

    fn dial_those_in_doubt(&mut self, now: Moment) {
        for (endpoint, watched) in &mut self.endpoints {
            let limit = dial_limit(watched.round_trip);
            let due = watched
                .reach
                .last_dialled()
                .is_none_or(|then| now.since(then) >= limit || watched.silent_since.is_some_and(|since| then < since));
            if !due || watched.in_doubt.is_none_or(|then| now.since(then) > PEER_LOOK_INTERVAL) {
                continue;
            }
            watched.reach.dialled(now);
            let (shared, endpoint, told) = (self.shared.clone(), *endpoint, self.dials.0.clone());
            tokio::spawn(async move {
                let answered = match timeout(limit, shared.net.connect(endpoint.addr())).await {
                    Ok(Ok(_)) => Some(true),
                    Ok(Err(error)) => answers(&error),
                    Err(_) => Some(false),
                };
                // Where so many wait to be heard, one more or less is no matter.
                let _ = told.try_send(Dialled { endpoint, begun: now, answered });
            });
        }
    }
}

impl Watched {
    fn look(&mut self, now: Moment, meters: &mut dyn Iterator<Item = &Arc<Meter>>, mut tell: impl FnMut(Saw)) {
        let sample = self.sampled.is_none_or(|then| now.since(then) >= PEER_SAMPLE_INTERVAL);
        let all = self.in_doubt.is_some_and(|then| now.since(then) <= PEER_SAMPLE_INTERVAL);
        let mut quietest: Option<&Arc<Meter>> = None;
        let mut silent = false;
        self.round_trip = Duration::ZERO;
        for meter in meters {
            silent |= self.judge(now, meter, &mut tell);
            let asks = meter.unanswered_since().is_some_and(|since| now.since(since) >= PEER_LOOK_AFTER);
            if asks && meter.turns_unanswered(UNANSWERED) {
                tell(Saw::Unanswered);
            }
            if all || asks {
                meter.look();
            } else if sample && quietest.is_none_or(|quiet| meter.last_from_upstream() < quiet.last_from_upstream()) {
                quietest = Some(meter);
            }
        }
        self.silent_since = silent.then(|| self.silent_since.unwrap_or(now));
        if sample {
            self.sampled = Some(now);
            quietest.into_iter().for_each(|meter| meter.look());
        }
    }

    /// What was seen at the last look. An older one says nothing any more. Whether its peer counts as silent.
    fn judge(&mut self, now: Moment, meter: &Meter, tell: &mut impl FnMut(Saw)) -> bool {
        let Some(record) = meter.peer().filter(|record| now.since(record.at()) <= 2 * PEER_LOOK_INTERVAL) else { return false };
        self.round_trip = self.round_trip.max(record.round_trip());
        if record.is_in_doubt() {
            self.in_doubt = Some(now);
        }
        let silent = record.is_silent(&self.reach) && meter.end_reason().is_none();
        if silent && self.silent_since.is_some_and(|since| self.reach.was_asked_again(since, now, record.round_trip())) {
            meter.end(Some(ResetReason::PeerSilent));
            tell(Saw::PeerSilent);
        }
        silent
    }
}

/// Whether a failed dial shows that the address answers; [`None`]: this node could not dial.
fn answers(error: &std::io::Error) -> Option<bool> {
    match Fault::of(error) {
        Fault::Refused => Some(true),
        Fault::TimedOut | Fault::Unreachable(_) => Some(false),
        Fault::Local(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::io;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::*;
    use crate::engine::liveness::{PeerState, Unanswered};
    use crate::world::{Clock, Stream};

    /// A stream whose kernel says this of its peer, and how often it was asked.
    struct Says(Unanswered, AtomicU32);

    impl Stream for Says {
        fn reset_on_drop(&mut self) {}

        fn peer(&self) -> Option<PeerState> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Some(PeerState {
                unanswered: self.0,
                since_acknowledged: Duration::from_secs(3),
                acknowledged_bytes: 0,
                has_sent: true,
                round_trip: Duration::ZERO,
            })
        }

        fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
            self
        }
    }

    impl AsyncRead for Says {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Says {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_many_quiet_connections_is_looked_at_each_second_and_all_while_one_is_in_doubt() {
        for (says, asked) in [(Unanswered::Nothing, 1 + 1), (Unanswered::Keepalives, 1 + 3 * 5)] {
            let clock = Clock::start();
            let connections: Vec<_> = (0..5).map(|_| (Arc::new(Meter::new(clock)), Says(says, AtomicU32::new(0)))).collect();
            let mut watched = Watched::default();
            // The first look samples one, the second hears what was said to it; from then on all are looked at.
            for _ in 0..5 {
                watched.look(clock.now(), &mut connections.iter().map(|(meter, _)| meter), |_| {});
                connections.iter().for_each(|(meter, stream)| meter.look_if_asked(stream));
                tokio::time::sleep(PEER_LOOK_INTERVAL).await;
            }
            let times: u32 = connections.iter().map(|(_, stream)| stream.1.load(Ordering::Relaxed)).sum();
            assert_eq!(times, asked, "{says:?}");
        }
    }
}
