//! Round-trip estimates: own samples, with peers' reports standing in until there are enough.
//!
//! Noise on a round trip only ever adds, so each sample is first held against the one before it and the lower of
//! the two counts; what is left is smoothed. A step of the real distance shows after two samples, a single stall never.

use std::time::Duration;

/// Weight of a new sample in the smoothed estimate.
const GAIN: f64 = 1.0 / 3.0;
/// Peers' reports weigh as much as this many own samples ...
const PRIOR_SAMPLES: f64 = 2.0;
/// ... and nothing any more once there are this many own ones.
const OWN_ALONE: u32 = 8;

/// The round trip to one endpoint, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Latency {
    smoothed: Option<f64>,
    last: f64,
    samples: u32,
    prior: Option<Duration>,
}

impl Latency {
    /// Takes an own sample: of a dial or of a probe.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        let sample = rtt.as_secs_f64();
        self.smoothed = Some(match self.smoothed {
            None => sample,
            Some(smoothed) => smoothed + GAIN * (sample.min(self.last) - smoothed),
        });
        self.last = sample;
        self.samples = (self.samples + 1).min(OWN_ALONE);
    }

    /// Replaces what peers say; [`None`] when none of them says anything.
    pub(crate) fn set_prior(&mut self, prior: Option<Duration>) {
        self.prior = prior;
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
            (Some(own), Some(_)) if self.samples >= OWN_ALONE => Some(own),
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
            (Some(own), Some(prior)) if self.samples < OWN_ALONE => {
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

/// The median of what the nearest peers report; the lower one of an even number.
pub(crate) fn median(mut reports: Vec<Duration>) -> Option<Duration> {
    reports.sort_unstable();
    reports.get(reports.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
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
    fn the_median_ignores_one_peer_that_lies() {
        assert_eq!(median(vec![millis(3), millis(1), millis(900)]), Some(millis(3)));
        assert_eq!(median(vec![]), None);
    }
}
