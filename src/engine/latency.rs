//! Round-trip estimates: own samples, with peers' reports standing in until there are enough.
//!
//! Noise on a round trip only ever adds, and so does the server's own work where a sample is of a request and not of a handshake: the
//! lowest of the last few samples counts, among which there is always a handshake. So a stall never shows, and an endpoint
//! that carries nothing is measured as those are that clients dial. What is near the estimate moves it little, as noise does; what is far
//! from it is another distance, and is it at once. (One gain for both flapped: at 1.6 times the lowest, four changes of the band in 10
//! minutes; and so did the lowest of the last few without any smoothing, at 1.7 times the lowest.)

use std::time::Duration;

use super::policy::{HANDSHAKE_EVERY, ROUND_TRIP_MOST};

/// What differs from the estimate by more than this factor is no noise.
const FAR_FACTOR: f64 = 1.4;
/// Peers' reports weigh as much as this many own samples ...
const PRIOR_SAMPLES: f64 = 2.0;
/// ... and nothing any more once there are this many own ones.
const OWN_ALONE: u32 = 8;

/// The round trip to one endpoint, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Latency {
    smoothed: Option<f64>,
    /// The last samples, in a ring: of so many probes in a row one was a handshake.
    recent: [f64; HANDSHAKE_EVERY],
    next: usize,
    samples: u32,
    prior: Option<Duration>,
}

impl Latency {
    /// Takes an own sample: of a dial or of a probe.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        let sample = rtt.min(ROUND_TRIP_MOST).as_secs_f64();
        if self.smoothed.is_none() {
            self.recent = [sample; HANDSHAKE_EVERY];
        }
        self.recent[self.next] = sample;
        self.next = (self.next + 1) % HANDSHAKE_EVERY;
        let lowest = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
        let smoothed = self.smoothed.unwrap_or(lowest);
        let far = lowest.max(smoothed) > lowest.min(smoothed) * FAR_FACTOR;
        // The mean of the first few, then a slow one.
        let gain = if far { 1.0 } else { 1.0 / f64::from(self.samples + 1) };
        self.smoothed = Some(smoothed + gain * (lowest - smoothed));
        self.samples = (self.samples + 1).min(OWN_ALONE);
    }

    /// Replaces what peers say; [`None`] when none of them says anything. Returns whether that is news.
    pub(crate) fn set_prior(&mut self, prior: Option<Duration>) -> bool {
        let prior = prior.map(|rtt| rtt.min(ROUND_TRIP_MOST));
        std::mem::replace(&mut self.prior, prior) != prior
    }

    /// Own samples decide alone.
    pub(crate) fn settled(&self) -> bool {
        self.samples >= OWN_ALONE
    }

    /// The estimate from own samples alone.
    pub(crate) fn own(&self) -> Option<Duration> {
        self.smoothed.map(Duration::from_secs_f64)
    }

    /// The best estimate there is; [`None`] when nobody has measured.
    pub(crate) fn estimate(&self) -> Option<Duration> {
        match (self.own(), self.prior) {
            (None, prior) => prior,
            (Some(own), None) => Some(own),
            (Some(own), Some(_)) if self.settled() => Some(own),
            (Some(own), Some(prior)) => {
                let weight = f64::from(self.samples) / (f64::from(self.samples) + PRIOR_SAMPLES);
                Some(own.mul_f64(weight) + prior.mul_f64(1.0 - weight))
            }
        }
    }

    /// In words, for people.
    pub(crate) fn explain(&self) -> String {
        match (self.own(), self.prior) {
            (None, None) => "round trip not measured yet".into(),
            (None, Some(prior)) => format!("round trip {} from the nearest peers' reports", ms(prior)),
            (Some(own), Some(prior)) if !self.settled() => {
                format!("round trip {} from {} own samples, peers say {}", ms(own), self.samples, ms(prior))
            }
            (Some(own), _) => format!("round trip {} from own samples", ms(own)),
        }
    }
}

/// Milliseconds with two decimals.
pub(crate) fn ms(span: Duration) -> String {
    format!("{:.2} ms", span.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_is_told_who_measured_what() {
        let mut latency = Latency::default();
        assert_eq!(latency.explain(), "round trip not measured yet");
        latency.set_prior(Some(millis(30)));
        assert_eq!(latency.explain(), "round trip 30.00 ms from the nearest peers' reports");
        latency.sample(millis(10));
        assert_eq!(latency.explain(), "round trip 10.00 ms from 1 own samples, peers say 30.00 ms");
        (0..OWN_ALONE).for_each(|_| latency.sample(millis(10)));
        assert_eq!(latency.explain(), "round trip 10.00 ms from own samples");
    }

    #[test]
    fn peers_stand_in_until_there_are_own_samples_and_then_fade() {
        let mut latency = Latency::default();
        latency.set_prior(Some(millis(30)));
        assert_eq!(latency.estimate(), Some(millis(30)));
        latency.sample(millis(10));
        let blended = latency.estimate().unwrap();
        assert!(blended > millis(20) && blended < millis(30), "one sample weighs less than the peers: {blended:?}");
        for _ in 0..OWN_ALONE {
            latency.sample(millis(10));
        }
        assert_eq!(latency.estimate(), Some(millis(10)));
    }

    #[test]
    fn one_stalled_sample_moves_nothing() {
        let mut latency = Latency::default();
        latency.sample(millis(10));
        latency.sample(millis(900));
        latency.sample(millis(10));
        assert_eq!(latency.estimate(), Some(millis(10)));
    }

    #[test]
    fn a_step_from_10_to_30_ms_passes_20_ms_within_5_samples() {
        let mut latency = Latency::default();
        for _ in 0..20 {
            latency.sample(millis(10));
        }
        for _ in 0..5 {
            latency.sample(millis(30));
        }
        assert!(latency.estimate().unwrap() > millis(20));
    }

    #[test]
    fn what_the_server_needs_for_a_request_is_no_distance() {
        let mut latency = Latency::default();
        for round in 0..100 {
            latency.sample(millis(if round % HANDSHAKE_EVERY == 0 { 1 } else { 6 }));
        }
        assert_eq!(latency.estimate(), Some(millis(1)));
    }

    #[test]
    fn who_comes_nearer_is_near_at_the_first_sample() {
        let mut latency = Latency::default();
        for _ in 0..20 {
            latency.sample(millis(80));
        }
        latency.sample(millis(2));
        assert_eq!(latency.estimate(), Some(millis(2)));
    }
}
