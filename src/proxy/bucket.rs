//! The bucket that replays are drawn from.
//!
//! An overloaded control plane answers late, and sending its hellos again loads it further. So replays are at most a tenth of
//! the new connections in the long run, with a few in reserve for the one upstream that hangs.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::engine::policy::{CONNECTIONS_A_REPLAY_TOKEN, REPLAY_TOKENS};

/// Counted in parts of a token: each new connection brings one.
#[derive(Debug)]
pub(super) struct Bucket(AtomicU32);

const FULL: u32 = REPLAY_TOKENS * CONNECTIONS_A_REPLAY_TOKEN;

impl Default for Bucket {
    fn default() -> Bucket {
        Bucket(AtomicU32::new(FULL))
    }
}

impl Bucket {
    /// A new connection is there.
    pub(super) fn refill(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |parts| (parts < FULL).then(|| parts + 1));
    }

    /// Takes one token, if there is one.
    pub(super) fn take(&self) -> bool {
        let less = |parts: u32| parts.checked_sub(CONNECTIONS_A_REPLAY_TOKEN);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_replays_are_in_reserve_and_ten_connections_bring_one_more() {
        let bucket = Bucket::default();
        bucket.refill();
        assert_eq!((0..20).filter(|_| bucket.take()).count(), 10);
        (0..9).for_each(|_| bucket.refill());
        assert!(!bucket.take());
        bucket.refill();
        assert!(bucket.take());
        assert!(!bucket.take());
    }
}
