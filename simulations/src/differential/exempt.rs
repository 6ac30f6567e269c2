//! Which resets clients want: the kernel of an apiserver that has been silent, or its process that has hung, for longer than prismesh
//! promises to leave alone. Decided by when the faults really began and ended, and by when the client was reset.

use std::time::Duration;

use serde::Serialize;

/// A connection whose packets are lost for no longer than this survives.
pub const SILENCE: Duration = Duration::from_secs(3);
/// A process that stands still for no longer than this keeps its connections.
pub const HANG: Duration = Duration::from_secs(3);
/// A reset that was decided while the fault lasted may be seen so much later.
const DECIDED: Duration = Duration::from_secs(2);
/// A process that goes on for less than this may not have answered anybody.
const TOO_SHORT_TO_ANSWER: Duration = Duration::from_secs(1);
/// Bytes that were under way when a process died may arrive so much before its end was noticed here.
const NOTICED: Duration = Duration::from_millis(100);

/// What happened to an apiserver, in time since the trial's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Harm {
    /// Which one.
    pub apiserver: usize,
    /// What.
    pub what: What,
    /// When it began.
    pub from: Duration,
    /// When it ended; [`None`]: it has not.
    pub to: Option<Duration>,
}

/// What matters for the exemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Packets are lost, one way or both.
    Silent,
    /// The process is stopped.
    Stopped,
    /// The process ended, and with it its connections.
    Dead,
}

/// Why a reset is no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exemption {
    /// The kernel was silent for longer than [`SILENCE`].
    Silent,
    /// The process hung for longer than [`HANG`].
    Hung,
    /// The process had ended.
    Dead,
}

/// Whether it is what clients want that a client who began then was reset at this moment.
pub fn exemption(harms: &[Harm], apiserver: usize, begun: Duration, at: Duration) -> Option<Exemption> {
    let of = |what| harms.iter().filter(move |harm| harm.apiserver == apiserver && harm.what == what);
    if death(harms, apiserver, begun).is_some_and(|dead| at + NOTICED >= dead) {
        return Some(Exemption::Dead);
    }
    // A kernel repeats what is not acknowledged at gaps that double: after a silence of some length, the next try may come as much
    // later. A gap that is shorter may have gone by unheard.
    let silences = merged(of(What::Silent), |silence, gap| gap < silence);
    if silences.into_iter().any(|span| span.reaches(at, SILENCE)) {
        return Some(Exemption::Silent);
    }
    let hangs = merged(of(What::Stopped), |_, gap| gap < TOO_SHORT_TO_ANSWER);
    hangs.into_iter().any(|span| span.reaches(at, HANG)).then_some(Exemption::Hung)
}

/// When the process ended to which a connection leads that began then.
pub fn death(harms: &[Harm], apiserver: usize, begun: Duration) -> Option<Duration> {
    let dead = harms.iter().filter(|harm| harm.apiserver == apiserver && harm.what == What::Dead);
    dead.map(|harm| harm.from).filter(|from| *from + NOTICED >= begun).min()
}

struct Span {
    from: Duration,
    to: Option<Duration>,
}

impl Span {
    /// Whether it had lasted longer than this at that moment, or had by its end, a moment before.
    fn reaches(&self, at: Duration, bound: Duration) -> bool {
        let lasted = self.to.map_or(at, |to| to.min(at)).saturating_sub(self.from);
        lasted > bound && self.to.is_none_or(|to| at <= to + DECIDED)
    }
}

/// Spans that overlap are one, and so are those with a gap that does not count.
fn merged<'h>(harms: impl Iterator<Item = &'h Harm>, no_gap: impl Fn(Duration, Duration) -> bool) -> Vec<Span> {
    let mut spans: Vec<Span> = harms.map(|harm| Span { from: harm.from, to: harm.to }).collect();
    spans.sort_by_key(|span| span.from);
    let mut merged: Vec<Span> = Vec::new();
    for next in spans {
        if let Some(last) = merged.last_mut() {
            let joins = last.to.is_none_or(|to| next.from <= to || no_gap(to - last.from, next.from - to));
            if joins {
                last.to = last.to.zip(next.to).map(|(one, other)| one.max(other));
                continue;
            }
        }
        merged.push(next);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn harm(what: What, from: f64, to: f64) -> Harm {
        Harm { apiserver: 1, what, from: secs(from), to: Some(secs(to)) }
    }

    #[test]
    fn a_silence_exempts_after_3_s_of_it_and_only_on_its_apiserver() {
        let harms = [harm(What::Silent, 10.0, 16.0)];
        let at = |apiserver, seconds| exemption(&harms, apiserver, secs(0.0), secs(seconds));
        assert_eq!(at(1, 12.9), None, "too early, though it will last");
        assert_eq!(at(1, 13.1), Some(Exemption::Silent));
        assert_eq!(at(1, 17.9), Some(Exemption::Silent), "decided before its end");
        assert_eq!(at(1, 18.1), None);
        assert_eq!(at(0, 15.0), None);
    }

    #[test]
    fn a_stop_of_3_s_exempts_nothing_and_a_longer_one_does() {
        assert_eq!(exemption(&[harm(What::Stopped, 5.0, 8.0)], 1, secs(0.0), secs(8.5)), None);
        assert_eq!(exemption(&[harm(What::Stopped, 5.0, 8.2)], 1, secs(0.0), secs(8.5)), Some(Exemption::Hung));
    }

    #[test]
    fn gaps_in_which_nothing_can_be_heard_do_not_count() {
        // After a silence of 2 s the kernel may try again only 2 s later.
        let silences = [harm(What::Silent, 1.0, 3.0), harm(What::Silent, 4.5, 6.0)];
        assert_eq!(exemption(&silences, 1, secs(0.0), secs(5.0)), Some(Exemption::Silent));
        let apart = [harm(What::Silent, 1.0, 3.0), harm(What::Silent, 5.1, 7.0)];
        assert_eq!(exemption(&apart, 1, secs(0.0), secs(7.0)), None);
        let stops = [harm(What::Stopped, 1.0, 3.0), harm(What::Stopped, 3.5, 5.5)];
        assert_eq!(exemption(&stops, 1, secs(0.0), secs(5.0)), Some(Exemption::Hung));
        let stops = [harm(What::Stopped, 1.0, 3.0), harm(What::Stopped, 4.5, 6.5)];
        assert_eq!(exemption(&stops, 1, secs(0.0), secs(6.0)), None);
    }

    #[test]
    fn both_ways_one_after_the_other_are_one_silence() {
        let harms = [harm(What::Silent, 1.0, 3.0), harm(What::Silent, 2.5, 4.5)];
        assert_eq!(exemption(&harms, 1, secs(0.0), secs(4.2)), Some(Exemption::Silent));
    }

    #[test]
    fn what_is_over_with_its_process_is_no_difference() {
        let harms = [Harm { apiserver: 1, what: What::Dead, from: secs(5.0), to: Some(secs(7.0)) }];
        assert_eq!(exemption(&harms, 1, secs(0.0), secs(4.0)), None);
        assert_eq!(exemption(&harms, 1, secs(0.0), secs(5.0)), Some(Exemption::Dead));
        assert_eq!(exemption(&harms, 1, secs(0.0), secs(30.0)), Some(Exemption::Dead));
        assert_eq!(exemption(&harms, 1, secs(7.5), secs(30.0)), None, "it led to the next process");
    }
}
