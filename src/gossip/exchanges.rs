//! How many exchanges a node begins beside those that others begin with it.
//!
//! Each exchange costs a digest of the whole cluster on either side. The library begins as many whatever else the node sends. So a node keeps to a
//! number of them, and who is asked more often than others begins fewer exchanges of its own: seeds are, and for a while who was restarted, as the
//! library goes on asking for the process that was there before.

use tokio::time::Instant;

/// Large digests a second that a node sends. The library would begin three exchanges an interval, and answers as many: twelve. At 200 nodes
/// that is 38 kB/s, and what comes beside it would exceed what a node may send.
const A_SECOND: f64 = 9.5;
/// So many may come at once, and be owed.
const AT_ONCE: f64 = 5.0;
/// A message shorter than this fits a datagram once it is compressed, and costs less ...
const SMALL: usize = 2_000;
/// ... by so much that what the library begins and what comes in reply are never too many: 14 a second.
const OF_SMALL: f64 = 0.68;

/// A node's account of digests.
#[derive(Debug)]
pub(super) struct Exchanges {
    credit: f64,
    at: Instant,
}

impl Exchanges {
    pub(super) fn new(now: Instant) -> Exchanges {
        Exchanges { credit: AT_ONCE, at: now }
    }

    /// An exchange with a message of so many bytes may begin.
    pub(super) fn begin(&mut self, now: Instant, bytes: usize) -> bool {
        self.earn(now);
        let may = self.credit >= cost(bytes);
        if may {
            self.credit -= cost(bytes);
        }
        may
    }

    /// One that another node began is answered with a message of so many bytes.
    pub(super) fn answered(&mut self, now: Instant, bytes: usize) {
        self.earn(now);
        self.credit = (self.credit - cost(bytes)).max(-AT_ONCE);
    }

    fn earn(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.credit = (self.credit + A_SECOND * since).min(AT_ONCE);
        self.at = now;
    }
}

fn cost(bytes: usize) -> f64 {
    if bytes < SMALL { OF_SMALL } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How many exchanges begin in a minute where the library wants six a second and others begin so many.
    fn begun(others: u32, bytes: usize) -> u32 {
        let start = Instant::now();
        let mut exchanges = Exchanges::new(start);
        let mut begun = 0;
        for second in 0..60_u64 {
            for part in 0..6 {
                let now = start + Duration::from_secs(second) + Duration::from_millis(part * 160);
                begun += u32::from(exchanges.begin(now, bytes));
            }
            for _ in 0..others {
                exchanges.answered(start + Duration::from_millis(second * 1_000 + 999), bytes);
            }
        }
        begun
    }

    #[test]
    fn who_is_asked_less_often_than_others_begins_as_many_as_the_library_wants() {
        assert_eq!(begun(3, 10_000), 360);
    }

    #[test]
    fn who_is_asked_more_often_begins_fewer_and_never_sends_more_in_all() {
        let many = begun(8, 10_000);
        assert!((85..=130).contains(&many), "{many}");
    }

    #[test]
    fn in_a_small_cluster_only_who_is_asked_twice_as_often_begins_fewer() {
        assert_eq!(begun(6, 500), 360);
        let many = begun(12, 500);
        assert!((85..=130).contains(&many), "{many}");
    }
}
