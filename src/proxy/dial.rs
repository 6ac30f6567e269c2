//! The dials of one race that are under way.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::event::Verdict;
use crate::engine::{Endpoint, Upstream};
use crate::world::{BoxFuture, Net, Stream};

/// An upstream, as a race needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) endpoint: Endpoint,
    /// What was held of it when it was lined up.
    pub(super) verdict: Verdict,
    pub(super) second_dial: Duration,
    pub(super) dial_stay: Duration,
    pub(super) first_byte: Duration,
    /// So often may one race dial it again that it refused or closed.
    pub(super) redials: u32,
}

impl From<&Upstream> for Candidate {
    fn from(upstream: &Upstream) -> Candidate {
        Candidate {
            endpoint: upstream.endpoint,
            verdict: upstream.verdict,
            second_dial: upstream.second_dial,
            dial_stay: upstream.dial_stay,
            first_byte: upstream.first_byte,
            redials: upstream.redials_a_race(),
        }
    }
}

/// A dial under way.
pub(super) struct Dial<'n> {
    pub(super) to: Candidate,
    pub(super) begun: Instant,
    connecting: BoxFuture<'n, io::Result<Box<dyn Stream>>>,
}

impl Dial<'_> {
    /// Who has not connected by now leaves the race.
    pub(super) fn leaves(&self) -> Instant {
        self.begun + self.to.dial_stay
    }
}

/// The dials under way, in the order in which they were begun.
pub(super) struct Dials<'n> {
    net: &'n dyn Net,
    flying: Vec<Dial<'n>>,
    next: Instant,
}

impl<'n> Dials<'n> {
    pub(super) fn new(net: &'n dyn Net) -> Dials<'n> {
        Dials { net, flying: Vec::new(), next: Instant::now() }
    }

    pub(super) fn begin(&mut self, to: Candidate) {
        let begun = Instant::now();
        self.next = begun + to.second_dial;
        self.flying.push(Dial { to, begun, connecting: self.net.connect(to.endpoint.addr()) });
    }

    pub(super) fn none(&self) -> bool {
        self.flying.is_empty()
    }

    /// Whether it is being dialled.
    pub(super) fn includes(&self, endpoint: Endpoint) -> bool {
        self.flying.iter().any(|dial| dial.to.endpoint == endpoint)
    }

    /// When the next dial may be begun beside those that fly: at once where none does, or the latest was refused.
    pub(super) fn next(&self) -> Instant {
        if self.none() { Instant::now() } else { self.next }
    }

    /// When the first of them has to leave the race.
    pub(super) fn leave(&self) -> Option<Instant> {
        self.flying.iter().map(Dial::leaves).min()
    }

    /// The next dial that ends, the earliest begun first. Never completes when none flies. Cancel-safe.
    pub(super) async fn ended(&mut self) -> (Dial<'n>, io::Result<Box<dyn Stream>>) {
        poll_fn(|cx| {
            for place in 0..self.flying.len() {
                let Some(dial) = self.flying.get_mut(place) else { break };
                if let Poll::Ready(connected) = dial.connecting.as_mut().poll(cx) {
                    if place + 1 == self.flying.len() {
                        self.next = Instant::now();
                    }
                    return Poll::Ready((self.flying.remove(place), connected));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes out those that `wanted` does not name.
    pub(super) fn keep(&mut self, mut wanted: impl FnMut(&Dial<'n>) -> bool) -> Vec<Dial<'n>> {
        let (kept, out) = std::mem::take(&mut self.flying).into_iter().partition(|dial| wanted(dial));
        self.flying = kept;
        out
    }
}
