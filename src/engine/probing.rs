//! Who is probed when, under a budget for the whole cluster.
//!
//! Each node probes each endpoint at an interval that grows with the cluster, so that what one apiserver bears does not.
//! Everything urgent (a confirmation, a recovery, a doubt) only brings the one next probe forward: there is at most one on
//! its way to an endpoint, whatever happens.

use std::time::Duration;

use super::event::ProbeLimits;
use super::known::Known;
use super::policy::{
    CONFIRM_NODES_A_SECOND, HANDSHAKE_EVERY, HELD_NODES_A_SECOND, HELD_PROBE_INTERVAL_LEAST, HUNG_HANDSHAKE,
    LOCAL_HANDSHAKE_EVERY, MAX_PROBE_PHASE, PATIENT_PROBE_EVERY, PROBE_GIVEN_UP, PROBE_INTERVAL_LEAST, PROBE_INTERVAL_LOCAL,
    PROBE_JITTER, PROBE_KEEP_BELOW, PROBE_PHASE, PROBE_PHASE_ROUND_TRIPS, PROBES_A_SECOND, PROMPT_GAP, UNPROVEN_BACKOFF_MOST,
};
use super::time::Moment;
use super::{hash, share};

/// One node's interval between two probes of one endpoint in quiet, without jitter.
pub(crate) fn interval(cluster_size: u32) -> Duration {
    PROBE_INTERVAL_LEAST.max(Duration::from_secs(u64::from(cluster_size)) / PROBES_A_SECOND)
}

/// The interval while clients are held.
pub(crate) fn held_interval(cluster_size: u32) -> Duration {
    HELD_PROBE_INTERVAL_LEAST.max(Duration::from_secs(u64::from(cluster_size)) / HELD_NODES_A_SECOND)
}

/// Over how long confirming probes are spread.
pub(crate) fn confirm_spread(cluster_size: u32) -> Duration {
    Duration::from_secs(u64::from(cluster_size)) / CONFIRM_NODES_A_SECOND
}

/// Whether connections are worth keeping between probes.
pub(crate) fn keeps(interval: Duration) -> bool {
    interval <= PROBE_KEEP_BELOW
}

/// How long each phase of the next probe may take. Nothing is judged by a limit that is shorter than what its path needs.
pub(crate) fn limits(known: &Known, something_answers: bool) -> ProbeLimits {
    let failures = known.health.failures();
    // What peers say is of their own paths: it may make this node patient, and never impatient.
    let own = known.latency.own();
    let never_measured = own.is_none() && !something_answers;
    let rtt = own.max(known.latency.estimate());
    if never_measured || (failures > 0 && (failures + 1).is_multiple_of(PATIENT_PROBE_EVERY)) {
        return ProbeLimits::of(MAX_PROBE_PHASE);
    }
    let path = rtt.unwrap_or_default().saturating_mul(PROBE_PHASE_ROUND_TRIPS);
    let each = ProbeLimits::of(path.clamp(PROBE_PHASE, MAX_PROBE_PHASE));
    match known.health.hung_since() {
        Some(_) => ProbeLimits { handshake: each.handshake.max(HUNG_HANDSHAKE), ..each },
        None => each,
    }
}

/// What decides on an endpoint's ordinary interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// This node's own apiserver.
    pub(crate) local: bool,
    /// Failures in a row of an endpoint that was never proven; 0 for any other.
    pub(crate) fruitless: u32,
    /// The cluster's size.
    pub(crate) cluster_size: u32,
}

impl Pace {
    /// The interval without jitter.
    pub(crate) fn interval(self) -> Duration {
        if self.local {
            return PROBE_INTERVAL_LOCAL;
        }
        let ordinary = interval(self.cluster_size);
        // Two failures make it `down`; from the third on it is tried ever less often.
        let doublings = self.fruitless.saturating_sub(2);
        ordinary.saturating_mul(2_u32.saturating_pow(doublings)).min(UNPROVEN_BACKOFF_MOST.max(ordinary))
    }
}

/// The beat is drawn anew when the cluster's interval has grown by this factor.
const RESPREAD: f64 = 1.2;

/// A probe under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct UnderWay {
    pub(crate) id: u64,
    pub(crate) limits: ProbeLimits,
}

/// When an endpoint is probed next.
///
/// Ordinary probes keep a beat of their own, which those out of turn do not move, and which is drawn anew when the cluster has grown:
/// nodes that came up together, or saw an endpoint fail together, do not go on probing together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schedule {
    next: Moment,
    /// The next beat.
    ordinary: Moment,
    /// The interval of this cluster's size when the beat was last drawn.
    spread_over: Duration,
    /// The next probe goes over a fresh connection: it is out of turn, or it is to tell how far the endpoint is.
    fresh: bool,
    last_sent: Option<Moment>,
    /// For when evidence last asked for a probe.
    prompted: Option<Moment>,
    round: u64,
    under_way: Option<UnderWay>,
}

impl Schedule {
    /// A first probe now.
    pub(crate) fn new(now: Moment) -> Schedule {
        Schedule {
            next: now,
            ordinary: now,
            spread_over: PROBE_INTERVAL_LEAST,
            fresh: true,
            last_sent: None,
            prompted: None,
            round: 0,
            under_way: None,
        }
    }

    /// When the next probe is due. While one is under way, when that one is given up: whoever was to tell its end is gone.
    pub(crate) fn due(&self) -> Moment {
        match (self.under_way, self.last_sent) {
            (Some(_), Some(sent)) => self.next.max(sent + PROBE_GIVEN_UP),
            _ => self.next,
        }
    }

    /// No probe is under way.
    pub(crate) fn idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// Whether the next one needs a connection of its own.
    pub(crate) fn fresh(&self) -> bool {
        self.fresh
    }

    pub(crate) fn last_sent(&self) -> Option<Moment> {
        self.last_sent
    }

    /// A probe is sent now; the one after it comes with the next beat unless something brings it forward.
    pub(crate) fn sent(&mut self, now: Moment, probe: UnderWay, pace: Pace, seed: u64) {
        self.under_way = Some(probe);
        self.last_sent = Some(now);
        self.round += 1;
        self.fresh = self.round.is_multiple_of(if pace.local { LOCAL_HANDSHAKE_EVERY } else { HANDSHAKE_EVERY as u64 });
        self.next_beat(now, pace, hash(&[seed, self.round]));
        self.next = self.ordinary;
    }

    fn next_beat(&mut self, now: Moment, pace: Pace, drawn: u64) {
        let length = pace.interval();
        let later = now + jittered(length, drawn);
        let grown = interval(pace.cluster_size);
        if grown > self.spread_over.mul_f64(RESPREAD) {
            self.spread_over = grown;
            self.ordinary = now + length.mul_f64(share(drawn));
            return;
        }
        self.spread_over = self.spread_over.min(grown);
        // Where the interval is the shortest there is, the budget is not reached, and probes may come together.
        if length <= PROBE_INTERVAL_LEAST || self.ordinary <= now || self.ordinary > later {
            self.ordinary = later;
        } else if self.ordinary < now + length / 2 {
            // One out of turn stands for the beat that it just precedes.
            self.ordinary += jittered(length, drawn);
        }
    }

    /// The probe of this number has ended; [`None`] if it is not the one under way.
    pub(crate) fn ended(&mut self, id: u64) -> Option<UnderWay> {
        self.under_way.take_if(|probe| probe.id == id)
    }

    /// Evidence asks for a probe, `delay` from now and over a fresh connection. Only once an ordinary interval (`apart`), so
    /// that evidence at most doubles the probing, and what keeps coming in neither draws a shorter delay nor adds a probe.
    pub(crate) fn prompt(&mut self, now: Moment, delay: Duration, apart: Duration) {
        if self.prompted.is_some_and(|last| now < last + apart) {
            return;
        }
        let earliest = self.last_sent.map_or(now, |sent| sent + PROMPT_GAP);
        let at = earliest.max(now + delay);
        self.prompted = Some(at);
        self.bring_forward(at);
    }

    /// Probes at `at` at the latest, over a fresh connection.
    pub(crate) fn bring_forward(&mut self, at: Moment) {
        if at <= self.next {
            self.next = at;
            self.fresh = true;
        }
    }

    /// Probes at exactly `at`, over a fresh connection.
    pub(crate) fn set(&mut self, at: Moment) {
        self.next = at;
        self.fresh = true;
    }

    /// Probes at `at` at the latest, however it likes.
    pub(crate) fn no_later_than(&mut self, at: Moment) {
        self.next = self.next.min(at);
    }
}

/// An interval ± [`PROBE_JITTER`].
pub(crate) fn jittered(interval: Duration, hash: u64) -> Duration {
    interval.mul_f64(1.0 - PROBE_JITTER + 2.0 * PROBE_JITTER * share(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_nodes_together_probe_an_endpoint_20_times_a_second_at_most() {
        for nodes in [1, 5, 20, 21, 200, 5000] {
            let together = f64::from(nodes) / interval(nodes).as_secs_f64();
            assert!(together <= 20.0 + 1e-9, "{nodes} nodes make {together} probes a second");
        }
        assert_eq!(interval(5), Duration::from_secs(1));
    }

    #[test]
    fn what_never_proved_itself_is_tried_ever_less_often_up_to_five_minutes() {
        let pace = |fruitless| Pace { local: false, fruitless, cluster_size: 3 }.interval().as_secs();
        assert_eq!([0, 1, 2, 3, 4, 20].map(pace), [1, 1, 1, 2, 4, 300]);
    }

    #[test]
    fn jitter_keeps_within_a_fifth() {
        for round in 0..1000 {
            let span = jittered(Duration::from_secs(10), hash(&[7, round]));
            assert!(span >= Duration::from_secs(8) && span <= Duration::from_secs(12));
        }
    }
}
