//! What was sent a moment ago, for peers that turn out not to have known whom it was for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::sessions::Parts;

/// A hello later than this after what it answers is none.
const KEPT: Duration = Duration::from_secs(2);
/// Messages kept: a change of state goes to all members at once.
const MESSAGES: usize = 1_024;
/// Bytes kept.
const BYTES: usize = 512 * 1024;

/// One message that was sent.
pub(super) struct Sent {
    /// Where it was sent.
    pub(super) to: SocketAddr,
    /// The session it was addressed to.
    pub(super) receiver: u64,
    /// Its first datagram's counter.
    pub(super) first: u64,
    /// How many datagrams it was.
    pub(super) count: u64,
    /// What to send again; nothing where that makes no sense, or was done.
    pub(super) parts: Parts,
    /// When.
    pub(super) at: Instant,
}

impl Sent {
    fn bytes(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }
}

/// The last messages, bounded by number, bytes and time.
#[derive(Default)]
pub(super) struct Recent {
    sent: VecDeque<Sent>,
    bytes: usize,
}

impl Recent {
    /// Keeps one more.
    pub(super) fn push(&mut self, sent: Sent) {
        let now = sent.at;
        self.bytes += sent.bytes();
        self.sent.push_back(sent);
        while self.sent.len() > MESSAGES || self.bytes > BYTES || self.sent.front().is_some_and(|first| now > first.at + KEPT) {
            self.forget_first();
        }
    }

    /// Takes out the message that had a datagram to this session under this counter.
    pub(super) fn take(&mut self, now: Instant, receiver: u64, counter: u64) -> Option<Sent> {
        let hit =
            |sent: &Sent| sent.receiver == receiver && counter.checked_sub(sent.first).is_some_and(|place| place < sent.count);
        let place = self.sent.iter().position(hit)?;
        let sent = self.sent.remove(place)?;
        self.bytes -= sent.bytes();
        (now <= sent.at + KEPT).then_some(sent)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Recent::default();
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.sent.pop_front() {
            self.bytes -= first.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_stays_within_its_bounds() {
        let mut recent = Recent::default();
        let parts: Parts = vec![vec![0; 1_000]].into();
        for first in 0..10_000 {
            let to = SocketAddr::from(([10, 0, 0, 1], 1));
            recent.push(Sent { to, receiver: 0, first, count: 1, parts: Parts::clone(&parts), at: Instant::now() });
            assert!(recent.bytes <= BYTES && recent.sent.len() <= MESSAGES);
        }
        assert!(recent.take(Instant::now(), 0, 9_999).is_some());
        assert!(recent.take(Instant::now(), 0, 9_999).is_none(), "once");
        assert!(recent.take(Instant::now(), 0, 1).is_none(), "long gone");
    }
}
