//! When the library's next life may begin.
//!
//! Each life adds an id to every other node's digest, so lives that end soon are spaced out more and more.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause ...
const LEAST: Duration = Duration::from_secs(1);
/// ... is doubled up to this; and a life that lasted so long clears the record.
const MOST: Duration = Duration::from_secs(60);

/// Spaces lives out.
pub(super) struct Starts {
    next: Instant,
    strikes: u32,
    begun: u64,
}

impl Starts {
    pub(super) fn new(now: Instant) -> Starts {
        Starts { next: now, strikes: 0, begun: 0 }
    }

    /// Whether a life may begin now.
    pub(super) fn due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Something that a life needs is missing: try again later.
    pub(super) fn wait(&mut self, until: Instant) {
        self.next = until;
    }

    /// A life has begun; whether it is not the first.
    pub(super) fn begun(&mut self) -> bool {
        self.begun += 1;
        self.begun > 1
    }

    /// A life was ended on purpose: the first time the next may begin at once.
    pub(super) fn ended(&mut self, now: Instant, began: Instant) {
        if now >= began + MOST {
            self.strikes = 0;
        }
        self.next = now + self.pause();
        self.strikes += 1;
    }

    /// A life ended by itself, or could not begin.
    pub(super) fn failed(&mut self, now: Instant, began: Instant) {
        if now >= began + MOST {
            self.strikes = 0;
        }
        self.strikes = self.strikes.max(1);
        self.next = now + self.pause();
        self.strikes += 1;
    }

    fn pause(&self) -> Duration {
        match self.strikes.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => LEAST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lives_that_end_by_themselves_are_spaced_from_one_second_to_sixty() {
        let now = Instant::now();
        let mut starts = Starts::new(now);
        assert!(starts.due(now));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            starts.failed(now, now);
            pauses.push((starts.next - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        starts.failed(now + MOST, now);
        assert_eq!(starts.next, now + MOST + LEAST, "a long life clears the record");
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_that_was_ended_on_purpose_is_followed_at_once_but_not_again_and_again() {
        let now = Instant::now();
        let mut starts = Starts::new(now);
        starts.ended(now, now);
        assert!(starts.due(now));
        starts.ended(now, now);
        assert!(!starts.due(now));
    }
}
