//! What counts as best: a rank, and among equals a draw.
//!
//! Near is a band and not a winner. A single best upstream would move with every millisecond of noise, and with it all the
//! connections of a cluster at once; a draw among all that are near enough spreads them and moves nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, Source};
use super::event::Verdict;
use super::policy;

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
    /// A dial to it leaves the race after this.
    pub dial_stay: Duration,
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

impl Routing {
    /// Whether a proxy would act differently by `self` than by `other`. A round trip that moved a little is no difference.
    pub(crate) fn differs_from(&self, other: &Routing) -> bool {
        self.upstreams.len() != other.upstreams.len()
            || self.upstreams.iter().zip(&other.upstreams).any(|(one, two)| one.differs_from(two))
    }
}

impl Upstream {
    /// How often one race may dial it again after it refused or closed. An apiserver would do so again; behind a balancer there are
    /// several, and the next connection leads to another.
    pub fn redials_a_race(&self) -> u32 {
        match path(&self.sources) {
            Path::Direct => 0,
            Path::External => policy::BALANCER_REDIALS_A_RACE,
        }
    }

    fn differs_from(&self, other: &Upstream) -> bool {
        /// Delays and round trips within a quarter of one another are the same to a race.
        fn apart(one: Duration, two: Duration) -> bool {
            one.max(two) > one.min(two).mul_f64(1.25)
        }
        (self.endpoint, self.verdict, self.group, self.weight) != (other.endpoint, other.verdict, other.group, other.weight)
            || self.sources != other.sources
            || apart(self.second_dial, other.second_dial)
            || apart(self.first_byte, other.first_byte)
            || self.rtt.is_some() != other.rtt.is_some()
    }
}

/// The rank of an upstream. The order of the fields is the policy: whether it answers comes before everything; then, where
/// something speaks against it, what it costs a client to find out that it is true; then the apiserver of this very machine,
/// which no network can take away; then the direct way before the balancer's detour; then distance. What nobody has measured
/// stands behind everything measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    pub(crate) verdict: Verdict,
    pub(crate) trouble: Trouble,
    pub(crate) place: Place,
    pub(crate) path: Path,
    pub(crate) distance: Distance,
}

/// How an upstream fails that something speaks against. A refusal costs a client nothing, silence costs it a delay; and who
/// answers again is the first to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Its last probe was answered, and traffic has met nothing since.
    Answers,
    /// It refuses, closes, or says what no apiserver says.
    Refuses,
    /// It drops, or accepts and says nothing.
    Silent,
}

/// On this machine or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Local,
    Elsewhere,
}

/// Straight to the apiserver, or through a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Path {
    Direct,
    External,
}

/// How far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Distance {
    /// In the band of the nearest.
    Near,
    Far(Duration),
    Unmeasured,
}

impl Score {
    /// In words.
    pub(crate) fn explain(&self) -> String {
        let place = match (self.place, self.path) {
            (Place::Local, _) => "on this machine",
            (Place::Elsewhere, Path::Direct) => "direct",
            (Place::Elsewhere, Path::External) => "through the external balancer",
        };
        let distance = match self.distance {
            Distance::Near => "in the band of the nearest",
            Distance::Far(_) => "farther than the band of the nearest",
            Distance::Unmeasured => "distance not measured",
        };
        let trouble = match self.trouble {
            Trouble::Answers => "",
            Trouble::Refuses => " (refuses)",
            Trouble::Silent => " (silent)",
        };
        format!("{}{trouble}, {place}, {distance}", self.verdict.as_str())
    }
}

fn path(sources: &[Source]) -> Path {
    let direct = |source: &Source| matches!(source, Source::Local | Source::Static | Source::Member);
    let external = sources.contains(&Source::External) && !sources.iter().any(direct);
    if external { Path::External } else { Path::Direct }
}

/// What ranking needs to know of an endpoint that may carry.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) endpoint: Endpoint,
    pub(crate) verdict: Verdict,
    /// How it fails, if it does.
    pub(crate) trouble: Trouble,
    pub(crate) sources: Vec<Source>,
    pub(crate) rtt: Option<Duration>,
    /// Connections it bears.
    pub(crate) load: u32,
    /// How long ago it joined or recovered; [`None`] if it never was `ready`.
    pub(crate) ready_for: Option<Duration>,
    /// At the last ranking it was measured and had this verdict ...
    pub(crate) ranked: bool,
    /// ... and was in the band.
    pub(crate) was_near: bool,
}

impl Candidate {
    fn place(&self) -> Place {
        if self.sources.contains(&Source::Local) { Place::Local } else { Place::Elsewhere }
    }

    fn trouble(&self) -> Trouble {
        match self.verdict {
            Verdict::Suspect | Verdict::Down => self.trouble,
            Verdict::Ready | Verdict::Draining | Verdict::Unproven => Trouble::Answers,
        }
    }

    fn class(&self) -> (Verdict, Trouble, Place, Path) {
        (self.verdict, self.trouble(), self.place(), path(&self.sources))
    }
}

/// Ranks the candidates. Beside the routing, the score of each in its order.
pub(crate) fn rank(candidates: &[Candidate]) -> (Routing, Vec<Score>) {
    let mut scored: Vec<(Score, &Candidate)> =
        candidates.iter().map(|candidate| (score(candidate, candidates), candidate)).collect();
    scored.sort_by_key(|(score, candidate)| (*score, candidate.endpoint));
    let mut routing = Routing::default();
    for (group, alike) in (0..).zip(scored.chunk_by(|(one, _), (next, _)| one == next)) {
        let mean = alike.iter().map(|(_, candidate)| f64::from(candidate.load)).sum::<f64>() / alike.len() as f64;
        let first = routing.upstreams.len();
        routing.upstreams.extend(alike.iter().map(|(_, candidate)| upstream(candidate, group, mean)));
        share_out(&mut routing.upstreams[first..]);
    }
    (routing, scored.into_iter().map(|(score, _)| score).collect())
}

fn score(candidate: &Candidate, all: &[Candidate]) -> Score {
    let measured =
        all.iter().filter(|other| other.class() == candidate.class()).filter_map(|other| Some((other.rtt?, other.ranked)));
    let lowest = measured.min_by_key(|(rtt, ranked)| (*rtt, !ranked));
    let distance = match (candidate.rtt, lowest) {
        (Some(rtt), Some((lowest, known))) if within_band(rtt, lowest, candidate.was_near && known) => Distance::Near,
        (Some(rtt), _) => Distance::Far(rtt),
        (None, _) => Distance::Unmeasured,
    };
    let (verdict, trouble, place, path) = candidate.class();
    Score { verdict, trouble, place, path, distance }
}

/// Entering asks for more than staying, so that noise moves nothing. Who was near before the nearest was known has to enter anew.
fn within_band(rtt: Duration, lowest: Duration, was_near: bool) -> bool {
    let band = band(lowest);
    rtt <= if was_near { band.leave } else { band.enter }
}

/// How far the band of the nearest reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// Up to this round trip an upstream enters it.
    pub enter: Duration,
    /// Above this one it leaves it.
    pub leave: Duration,
}

/// The band where this is the lowest estimate of a round trip.
pub fn band(lowest: Duration) -> Band {
    let slack = |factor: f64, least: Duration, most: Duration| lowest.mul_f64(factor - 1.0).clamp(least, most);
    let enter = slack(policy::BAND_ENTER_FACTOR, policy::BAND_ENTER_SLACK, policy::MAX_BAND_ENTER_SLACK);
    let leave = slack(policy::BAND_LEAVE_FACTOR, policy::BAND_LEAVE_SLACK, policy::MAX_BAND_LEAVE_SLACK);
    Band {
        enter: lowest + enter.max(lowest.mul_f64(policy::BAND_ENTER_SHARE)),
        leave: lowest + leave.max(lowest.mul_f64(policy::BAND_LEAVE_SHARE)),
    }
}

/// How long an upstream at this distance may take for its first byte before the hello goes to one more.
pub(crate) fn first_byte_delay(rtt: Duration) -> Duration {
    let most = policy::FIRST_BYTE_MOST.max(rtt.saturating_mul(policy::FIRST_BYTE_MIN_ROUND_TRIPS));
    rtt.saturating_mul(policy::FIRST_BYTE_ROUND_TRIPS).clamp(policy::FIRST_BYTE_LEAST, most)
}

/// How long a dial at this distance may take before the next upstream is dialled beside it.
fn second_dial_delay(rtt: Option<Duration>) -> Duration {
    let Some(rtt) = rtt else { return policy::SECOND_DIAL_MOST };
    let most = policy::SECOND_DIAL_MOST.max(rtt.mul_f64(policy::SECOND_DIAL_PATIENCE));
    rtt.saturating_mul(policy::SECOND_DIAL_ROUND_TRIPS).clamp(policy::SECOND_DIAL_LEAST, most)
}

fn upstream(candidate: &Candidate, group: u32, mean_load: f64) -> Upstream {
    Upstream {
        endpoint: candidate.endpoint,
        verdict: candidate.verdict,
        group,
        weight: weight(candidate, mean_load),
        rtt: candidate.rtt,
        second_dial: second_dial_delay(candidate.rtt),
        dial_stay: policy::DIAL_STAY.max(candidate.rtt.unwrap_or_default().saturating_mul(policy::DIAL_STAY_ROUND_TRIPS)),
        first_byte: candidate.rtt.map_or(policy::FIRST_BYTE_MOST, first_byte_delay),
        sources: candidate.sources.clone(),
    }
}

/// A bounded share by load, times the ramp. Load is seconds old and the same everywhere: whoever followed it to the end
/// would do so together with everyone else, so it only tilts the draw.
fn weight(candidate: &Candidate, mean_load: f64) -> u32 {
    let by_load = (mean_load + 1.0) / (f64::from(candidate.load) + 1.0);
    let weight = by_load.clamp(policy::WEIGHT_LEAST, policy::WEIGHT_MOST) * ramp(candidate.ready_for);
    // At most 1,400.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by WEIGHT_MOST")]
    let thousandths = (weight * 1000.0).round() as u32;
    thousandths.max(1)
}

/// Nobody is drawn more often than [`policy::SHARE_MOST`] fair shares: where most of a band have just come back, as in a rolling
/// upgrade, their ramps would leave nearly everything to the one that has not. Of two, one may bear all.
fn share_out(alike: &mut [Upstream]) {
    if alike.len() < 3 {
        return;
    }
    let most = policy::SHARE_MOST / alike.len() as f64;
    let mut weights: Vec<u32> = alike.iter().map(|upstream| upstream.weight).collect();
    weights.sort_unstable_by(|one, other| other.cmp(one));
    let mut left: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    for (capped, weight) in weights.iter().enumerate() {
        // So much for each, if the heaviest so far have it and the others what they have.
        let cap = most * left / (1.0 - most * capped as f64);
        if f64::from(*weight) <= cap {
            // Where nobody is too heavy the cap is above all of them.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the sum of some weights")]
            let cap = (cap.floor() as u32).max(1);
            for upstream in alike {
                upstream.weight = upstream.weight.min(cap);
            }
            return;
        }
        left -= f64::from(*weight);
    }
}

fn ramp(ready_for: Option<Duration>) -> f64 {
    let Some(ready_for) = ready_for else { return 1.0 };
    let grown = (ready_for.as_secs_f64() / policy::RAMP.as_secs_f64()).min(1.0);
    policy::RAMP_FROM + (1.0 - policy::RAMP_FROM) * grown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(last: u8, rtt_ms: Option<f64>) -> Candidate {
        Candidate {
            endpoint: std::net::SocketAddr::from(([10, 0, 0, last], 6443)).into(),
            verdict: Verdict::Ready,
            trouble: Trouble::Answers,
            sources: vec![Source::Member],
            rtt: rtt_ms.map(|ms| Duration::from_secs_f64(ms / 1e3)),
            load: 0,
            ready_for: None,
            ranked: true,
            was_near: false,
        }
    }

    #[test]
    fn nothing_is_drawn_for_an_upstream_that_is_alone_in_its_group() {
        let (routing, _) = rank(&[candidate(1, Some(1.0)), candidate(2, Some(20.0)), candidate(3, Some(20.0))]);
        let mut draws = 0;
        let order = routing.order(|_| {
            draws += 1;
            0
        });
        assert_eq!((order.len(), draws), (3, 1), "the one that is near, and one of two equals");
    }

    fn lasts(routing: &Routing) -> Vec<u8> {
        routing
            .upstreams
            .iter()
            .map(|upstream| match upstream.endpoint.addr().ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            })
            .collect()
    }

    #[test]
    fn only_what_is_nothing_but_a_balancer_is_dialled_again_in_one_race() {
        let redials = |sources: &[Source]| {
            let (routing, _) = rank(&[Candidate { sources: sources.into(), ..candidate(1, None) }]);
            routing.upstreams[0].redials_a_race()
        };
        assert_eq!(redials(&[Source::Member]), 0);
        assert_eq!(redials(&[Source::External]), policy::BALANCER_REDIALS_A_RACE);
        assert_eq!(redials(&[Source::Cached, Source::External]), policy::BALANCER_REDIALS_A_RACE);
        assert_eq!(redials(&[Source::Member, Source::External]), 0, "an apiserver whose address is configured as the balancer's");
    }

    #[test]
    fn an_answering_far_one_outranks_a_near_suspect() {
        let mut near = candidate(1, Some(0.1));
        near.verdict = Verdict::Suspect;
        let (routing, _) = rank(&[near, candidate(2, Some(80.0))]);
        assert_eq!(lasts(&routing), [2, 1]);
    }

    #[test]
    fn the_local_one_comes_first_the_external_one_last_of_the_ready() {
        let mut local = candidate(1, Some(5.0));
        local.sources = vec![Source::Local];
        let mut external = candidate(2, Some(0.1));
        external.sources = vec![Source::External];
        let mut down = candidate(4, Some(0.1));
        down.verdict = Verdict::Down;
        let (routing, _) = rank(&[down, external, candidate(3, Some(90.0)), local]);
        assert_eq!(lasts(&routing), [1, 3, 2, 4]);
    }

    #[test]
    fn of_those_that_are_down_who_answers_again_comes_first_and_who_is_silent_last() {
        for verdict in [Verdict::Suspect, Verdict::Down] {
            let against = |last, rtt_ms, trouble| Candidate { verdict, trouble, ..candidate(last, Some(rtt_ms)) };
            let silent = Candidate { sources: vec![Source::Local], ..against(1, 0.1, Trouble::Silent) };
            let (routing, _) = rank(&[silent, against(2, 1.0, Trouble::Refuses), against(3, 90.0, Trouble::Answers)]);
            assert_eq!(lasts(&routing), [3, 2, 1], "{verdict:?}");
        }
    }

    #[test]
    fn what_nobody_measured_never_outranks_what_somebody_did() {
        let (routing, _) = rank(&[candidate(1, None), candidate(2, Some(500.0))]);
        assert_eq!(lasts(&routing), [2, 1]);
    }

    #[test]
    fn an_apiserver_20_ms_away_gets_nothing_while_a_near_one_is_ready() {
        let (routing, _) = rank(&[candidate(1, Some(20.0)), candidate(2, Some(0.3)), candidate(3, Some(0.9))]);
        for draw in 0..2000 {
            assert_ne!(routing.order(|n| draw % n)[0].endpoint, candidate(1, None).endpoint);
        }
    }

    #[test]
    fn the_band_is_left_later_than_it_is_entered() {
        let (near, mut edge) = (candidate(1, Some(10.0)), candidate(2, Some(18.0)));
        assert_eq!(rank(&[near.clone(), edge.clone()]).1[1].distance, Distance::Far(Duration::from_millis(18)));
        edge.was_near = true;
        assert_eq!(rank(&[near, edge]).1[1].distance, Distance::Near);
    }

    #[test]
    fn who_was_near_for_want_of_a_nearer_one_has_to_enter_anew_when_that_one_is_measured() {
        let (mut newcomer, mut edge) = (candidate(1, Some(10.0)), candidate(2, Some(18.0)));
        (newcomer.ranked, edge.was_near) = (false, true);
        assert_eq!(rank(&[newcomer, edge]).1[1].distance, Distance::Far(Duration::from_millis(18)));
    }

    #[test]
    fn within_the_band_the_draw_follows_the_weights() {
        let mut loaded = candidate(1, Some(1.0));
        loaded.load = 1000;
        let (routing, _) = rank(&[loaded.clone(), candidate(2, Some(1.0))]);
        let firsts = (0..2100).filter(|n| routing.order(|total| n % total)[0].endpoint == loaded.endpoint).count();
        assert_eq!(firsts, 700, "0.7 of 2.1: load tilts the draw and never decides it");
    }

    #[test]
    fn who_comes_back_starts_with_a_tenth() {
        let mut back = candidate(1, Some(1.0));
        back.ready_for = Some(Duration::ZERO);
        let (routing, _) = rank(&[back, candidate(2, Some(1.0))]);
        assert_eq!(routing.upstreams.iter().map(|upstream| upstream.weight).collect::<Vec<_>>(), [100, 1000]);
    }

    #[test]
    fn nobody_is_drawn_more_than_its_share_and_a_little_while_most_of_the_others_come_back() {
        for (all, back) in [(3, 2), (5, 4), (5, 3), (9, 8)] {
            let mut candidates: Vec<Candidate> = (1..=all).map(|last| candidate(last, Some(1.0))).collect();
            candidates.iter_mut().take(back).for_each(|candidate| candidate.ready_for = Some(Duration::ZERO));
            let (routing, _) = rank(&candidates);
            let weights: Vec<f64> = routing.upstreams.iter().map(|upstream| f64::from(upstream.weight)).collect();
            let share = weights.iter().copied().fold(0.0, f64::max) / weights.iter().sum::<f64>() * f64::from(all);
            assert!((share - policy::SHARE_MOST).abs() <= 0.03, "{back} of {all} come back: {share} fair shares, {weights:?}");
            assert!(weights.iter().all(|weight| *weight >= 100.0), "who comes back keeps what its ramp gives: {weights:?}");
        }
    }

    #[test]
    fn every_upstream_is_in_the_order_of_a_connection_once() {
        let all: Vec<_> = (1..=9).map(|last| candidate(last, Some(1.0))).collect();
        let (routing, _) = rank(&all);
        let mut order = routing.order(|n| n - 1);
        order.sort_by_key(|upstream| upstream.endpoint);
        order.dedup_by_key(|upstream| upstream.endpoint);
        assert_eq!(order.len(), 9);
    }
}
