//! What counts as best.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, Source};
use super::event::Verdict;

/// The snapshot that the proxy reads for each new connection: upstreams in rank order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routing {
    /// Best first. Upstreams of one group stand together.
    pub upstreams: Vec<Upstream>,
}

/// An endpoint as the proxy uses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    /// Where to dial.
    pub endpoint: Endpoint,
    /// What the engine holds of it.
    pub verdict: Verdict,
    /// Upstreams of the same group are equally good: one of them is drawn by weight.
    pub group: u32,
    /// Its weight in the draw, in thousandths; at least 1.
    pub weight: u32,
    /// The estimated round trip.
    pub rtt: Option<Duration>,
    /// If it has not connected after this, the next upstream is dialled beside it.
    pub second_dial: Duration,
    /// If no byte has come this long after a ClientHello was forwarded whole, the hello goes to the next upstream too.
    pub first_byte: Duration,
    /// Why it is known.
    pub sources: Vec<Source>,
}

impl Routing {
    /// The order in which one new connection tries the upstreams: group after group, within a group drawn by weight.
    ///
    /// `below(n)` draws a number in `0..n`; it is asked once for each upstream of a group of several.
    pub fn order(&self, mut below: impl FnMut(u64) -> u64) -> Vec<&Upstream> {
        let mut order = Vec::with_capacity(self.upstreams.len());
        for group in self.upstreams.chunk_by(|one, next| one.group == next.group) {
            let mut left: Vec<&Upstream> = group.iter().collect();
            while left.len() > 1 {
                let total = left.iter().map(|upstream| u64::from(upstream.weight)).sum();
                let mut drawn = below(total);
                let place = left.iter().position(|upstream| {
                    let here = drawn < u64::from(upstream.weight);
                    drawn = drawn.saturating_sub(u64::from(upstream.weight));
                    here
                });
                order.push(left.remove(place.unwrap_or(0)));
            }
            order.append(&mut left);
        }
        order
    }

    /// Whether some upstream answers, ready or draining.
    pub fn answers(&self) -> bool {
        self.upstreams.iter().any(|upstream| matches!(upstream.verdict, Verdict::Ready | Verdict::Draining))
    }

    /// The verdict on an endpoint, if it is known and may carry.
    pub fn verdict(&self, endpoint: Endpoint) -> Option<Verdict> {
        self.upstreams.iter().find(|upstream| upstream.endpoint == endpoint).map(|upstream| upstream.verdict)
    }
}
