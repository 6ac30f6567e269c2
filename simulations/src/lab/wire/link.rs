//! What happens to packets from one host to another.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

/// Conditions of one direction between two hosts. The default delivers everything at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Each packet takes so long.
    pub delay: Duration,
    /// A packet's delay differs from [`Link::delay`] by up to this share of it, up or down.
    pub jitter: f64,
    /// Share of packets that are lost, each on its own.
    pub loss: f64,
    /// IP packets of more bytes than this vanish, without an ICMP message.
    pub largest: Option<usize>,
    /// Nothing is delivered.
    pub cut: bool,
}

/// What has gone over a link so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that were delivered, or are under way.
    pub delivered: u64,
    /// Packets that [`Link::loss`] took.
    pub lost: u64,
    /// Packets that were larger than [`Link::largest`].
    pub too_large: u64,
    /// Packets that met a cut.
    pub cut: u64,
    /// Attempts to connect by TCP: SYNs, a repeated one not counted again.
    pub dials: u64,
    /// SYNs, repeated ones included.
    pub syns: u64,
}

/// A link and its past.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) link: Link,
    counts: Counts,
    /// Both ports and the sequence number of each attempt to connect.
    dialled: HashSet<[u8; 8]>,
    /// When the last packet arrives.
    last: Option<Instant>,
}

impl State {
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// When a packet that enters now arrives, if it does.
    pub(super) fn admit(&mut self, packet: &[u8], now: Instant) -> Option<Instant> {
        if let Some(attempt) = syn(packet) {
            self.counts.syns += 1;
            self.counts.dials += u64::from(self.dialled.insert(attempt));
        }
        let Link { delay, jitter, loss, largest, cut } = self.link;
        let taken = if cut {
            Some(&mut self.counts.cut)
        } else if largest.is_some_and(|largest| packet.len() > largest) {
            Some(&mut self.counts.too_large)
        } else if rand::random::<f64>() < loss {
            Some(&mut self.counts.lost)
        } else {
            None
        };
        if let Some(count) = taken {
            *count += 1;
            return None;
        }
        self.counts.delivered += 1;
        let factor = 1.0 + jitter * (2.0 * rand::random::<f64>() - 1.0);
        let due = (now + delay.mul_f64(factor.max(0.0))).max(self.last.unwrap_or(now));
        self.last = Some(due);
        Some(due)
    }
}

/// The ports and the sequence number of an IPv4 packet that begins a TCP connection: a repeated one has the same.
fn syn(packet: &[u8]) -> Option<[u8; 8]> {
    const TCP: u8 = 6;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let segment = packet.get(header..).filter(|_| packet.get(9) == Some(&TCP))?;
    let flags = segment.get(13)? & (SYN | ACK);
    (flags == SYN).then(|| segment.first_chunk().copied())?
}
