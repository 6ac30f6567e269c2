//! When an established connection's own peer counts as silent, so that the connection is reset.
//!
//! The evidence is the connection's own: what its kernel knows of acknowledgements (`TCP_INFO` on Linux). Whatever answers late,
//! with an error, or not at all on *other* connections says nothing about this one. A closed window is no silence: its peer
//! acknowledges the questions whether it is still closed.
//!
//! One thing is asked of the address itself: whether it answers a dial. After some seconds without an acknowledgement the kernel
//! repeats what it sent only every few seconds, so a path that is back would not show on the connection yet. While dials are
//! answered the connection gets [`PEER_SILENT_WHILE_REACHABLE`]. A dial that is *not* answered never resets anything alone: a full
//! accept queue drops SYNs as well. Before a connection is reset the address is dialled once more: a path that was down for less than
//! [`PEER_SILENT`] may be back, and nothing that was sent meanwhile can show it. All of it grants the path the round trips that it needs.

use std::time::Duration;

use super::policy::{
    DIAL_STAY_ROUND_TRIPS, LAST_DIAL, MIN_WINDOW_PROBES, PEER_DIAL_INTERVAL, PEER_SILENT, PEER_SILENT_WHILE_REACHABLE,
    ROUND_TRIP_MOST, SECOND_DIAL_PATIENCE, UPSTREAM_KEEPALIVE,
};
use super::time::Moment;

/// What a connection's kernel says of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// What was sent and is not acknowledged.
    pub unanswered: Unanswered,
    /// How long ago the peer last acknowledged anything, or sent something.
    pub since_acknowledged: Duration,
    /// Bytes that it has acknowledged so far: a peer that hears nothing may go on sending.
    pub acknowledged_bytes: u64,
    /// The peer has sent data, even if not all of it has arrived.
    pub has_sent: bool,
    /// The round trip, as the kernel estimates it.
    pub round_trip: Duration,
}

/// What a peer has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nothing is to be acknowledged.
    Nothing,
    /// Data, sent for the first time a moment ago.
    FreshData,
    /// Data that was sent more than once.
    Data,
    /// A keepalive, or several.
    Keepalives,
    /// So many questions whether its window is still closed.
    WindowProbes(u32),
}

/// What was seen of one connection's peer, look by look.
#[derive(Clone, Copy, Debug)]
pub struct PeerRecord {
    at: Moment,
    state: PeerState,
    /// When data, or a question about a closed window, was first seen unacknowledged; nothing has been acknowledged since.
    asked_since: Option<Moment>,
}

impl PeerRecord {
    /// After one more look.
    pub fn after(before: Option<PeerRecord>, now: Moment, state: PeerState) -> PeerRecord {
        let acknowledged = now.since(Moment::START).saturating_sub(state.since_acknowledged);
        let same_bytes = before.filter(|before| before.state.acknowledged_bytes == state.acknowledged_bytes);
        let asked_since = match state.unanswered {
            Unanswered::Data => Some(same_bytes.and_then(|before| before.asked_since).unwrap_or(now)),
            Unanswered::WindowProbes(_) => {
                let asked_before = before.and_then(|before| before.asked_since);
                Some(asked_before.filter(|since| since.since(Moment::START) >= acknowledged).unwrap_or(now))
            }
            Unanswered::Nothing | Unanswered::FreshData | Unanswered::Keepalives => None,
        };
        PeerRecord { at: now, state, asked_since }
    }

    /// The round trip to the peer.
    pub fn round_trip(&self) -> Duration {
        self.state.round_trip.min(ROUND_TRIP_MOST)
    }

    /// When it was looked at.
    pub fn at(&self) -> Moment {
        self.at
    }

    /// Something was sent again and again, or asked, and is not acknowledged.
    pub fn is_in_doubt(&self) -> bool {
        !matches!(self.state.unanswered, Unanswered::Nothing | Unanswered::FreshData)
    }

    /// Whether the connection is to be reset.
    pub fn is_silent(&self, reach: &Reach) -> bool {
        if !self.is_in_doubt() {
            return false;
        }
        let silent_for = self.state.since_acknowledged;
        let patience = PEER_SILENT + self.round_trip();
        let acknowledged = self.at.since(Moment::START).saturating_sub(silent_for);
        let asked_for = self.asked_since.map_or(Duration::ZERO, |since| self.at.since(since));
        // What is asked of the address counts from when the peer was last heard, or from when this connection first showed a doubt.
        let since = self.asked_since.unwrap_or(Moment::START + acknowledged);
        if reach.is_unreachable_since(since) && asked_for >= patience - UPSTREAM_KEEPALIVE {
            return true;
        }
        match self.state.unanswered {
            Unanswered::WindowProbes(count) => count >= MIN_WINDOW_PROBES && asked_for >= PEER_SILENT_WHILE_REACHABLE,
            _ => {
                let unreachable = reach.is_unreachable_since(Moment::START + acknowledged);
                (unreachable && silent_for >= patience) || silent_for.max(asked_for) >= PEER_SILENT_WHILE_REACHABLE
            }
        }
    }
}

/// How long a dial may take to an address that is so far away, before it counts as unanswered.
pub fn dial_limit(round_trip: Duration) -> Duration {
    PEER_DIAL_INTERVAL.max(round_trip.saturating_mul(DIAL_STAY_ROUND_TRIPS))
}

/// What dials to an address have shown while one of its connections was in doubt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reach {
    dialled: Option<Moment>,
    answered: Option<Moment>,
    unanswered: Option<Moment>,
}

impl Reach {
    /// A dial was begun.
    pub fn dialled(&mut self, now: Moment) {
        self.dialled = Some(now);
    }

    /// When the last dial was begun.
    pub fn last_dialled(&self) -> Option<Moment> {
        self.dialled
    }

    /// Whether the address was dialled once more after a connection was first seen silent, and had [`LAST_DIAL`] to answer, or what the path
    /// needs. The dials before, and the connection's own questions, may all be from a time when the path was down; it may be back since.
    pub fn was_asked_again(&self, silent_since: Moment, now: Moment, round_trip: Duration) -> bool {
        let least = LAST_DIAL.max(round_trip.mul_f64(SECOND_DIAL_PATIENCE));
        self.dialled.is_some_and(|dialled| dialled >= silent_since && now.since(dialled) >= least)
    }

    /// A dial was answered, with a connection or a refusal.
    pub fn answered(&mut self, now: Moment) {
        self.answered = Some(now);
    }

    /// A dial that was begun then was not answered in its time.
    pub fn unanswered(&mut self, begun: Moment) {
        self.unanswered = Some(begun);
    }

    /// A dial begun after this moment was not answered, and none has been answered since.
    fn is_unreachable_since(&self, then: Moment) -> bool {
        self.unanswered.is_some_and(|begun| begun >= then && self.answered.is_none_or(|answered| answered < begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::START + Duration::from_millis(ms)
    }

    fn state(unanswered: Unanswered, ago_ms: u64) -> PeerState {
        PeerState {
            unanswered,
            since_acknowledged: Duration::from_millis(ago_ms),
            acknowledged_bytes: 7,
            has_sent: false,
            round_trip: Duration::ZERO,
        }
    }

    fn unreachable() -> Reach {
        Reach { answered: Some(at(0)), unanswered: Some(at(100_000)), ..Reach::default() }
    }

    fn silent(unanswered: Unanswered, ago_ms: u64, reach: Reach) -> bool {
        PeerRecord::after(None, at(100_000 + ago_ms), state(unanswered, ago_ms)).is_silent(&reach)
    }

    #[test]
    fn data_or_keepalives_that_nothing_acknowledges_are_silence_after_5_s() {
        for unanswered in [Unanswered::Data, Unanswered::Keepalives] {
            assert!(!silent(unanswered, 4_900, unreachable()));
            assert!(silent(unanswered, 5_000, unreachable()));
        }
    }

    #[test]
    fn a_peer_that_goes_on_sending_and_acknowledges_nothing_is_silent_3_s_after_that_was_seen() {
        let mut record = None;
        let mut silent_at = None;
        for look in 0..40_u64 {
            let seen = PeerRecord::after(record, at(200_000 + 250 * look), state(Unanswered::Data, 10));
            if seen.is_silent(&Reach { unanswered: Some(at(201_000)), ..Reach::default() }) {
                silent_at.get_or_insert(250 * look);
            }
            record = Some(seen);
        }
        assert_eq!(silent_at, Some(3_000));
    }

    #[test]
    fn a_slow_upload_that_is_acknowledged_bit_by_bit_is_no_silence() {
        let mut record = None;
        for look in 0..400_u64 {
            let state = PeerState { acknowledged_bytes: look / 4, ..state(Unanswered::Data, 10) };
            let seen = PeerRecord::after(record, at(200_000 + 250 * look), state);
            assert!(!seen.is_silent(&Reach { unanswered: Some(at(201_000)), ..Reach::default() }));
            record = Some(seen);
        }
    }

    #[test]
    fn a_connection_on_which_nothing_is_to_be_acknowledged_is_never_silent() {
        for unanswered in [Unanswered::Nothing, Unanswered::FreshData] {
            assert!(!silent(unanswered, 3_600_000, unreachable()));
        }
    }

    #[test]
    fn while_the_address_answers_dials_a_connection_gets_15_s() {
        let reach = Reach { answered: Some(at(104_000)), unanswered: Some(at(103_000)), ..Reach::default() };
        assert!(!silent(Unanswered::Data, 6_000, reach));
        assert!(!silent(Unanswered::Data, 14_900, reach));
        assert!(silent(Unanswered::Data, 15_000, reach));
    }

    #[test]
    fn before_a_reset_the_address_is_dialled_once_more() {
        let mut reach = Reach::default();
        let asked_again = |reach: &Reach, now_ms: u64| reach.was_asked_again(at(5_000), at(now_ms), Duration::from_millis(1));
        assert!(!asked_again(&reach, 9_000));
        reach.dialled(at(4_999));
        assert!(!asked_again(&reach, 9_000), "that dial may have been lost before the path was back");
        reach.dialled(at(5_000));
        assert!(!asked_again(&reach, 5_100), "it had no time");
        assert!(asked_again(&reach, 5_250));
    }

    /// What a path of this length needs: the answer to a keepalive, a dial that ends, the answer to the last dial.
    #[test]
    fn a_far_peer_gets_the_round_trips_that_its_path_needs() {
        for ms in [250, 500, 1_000] {
            let far = Duration::from_millis(ms);
            let silent = |ago_ms| {
                let state = PeerState { round_trip: far, ..state(Unanswered::Keepalives, ago_ms) };
                PeerRecord::after(None, at(100_000 + ago_ms), state).is_silent(&unreachable())
            };
            assert!(!silent(5_000 + ms - 1) && silent(5_000 + ms), "{ms} ms");
            assert!(dial_limit(far) >= 4 * far);
            let mut reach = Reach::default();
            reach.dialled(at(9_000));
            assert!(!reach.was_asked_again(at(9_000), at(9_000) + far, far), "its answer may be just arriving");
            assert!(reach.was_asked_again(at(9_000), at(9_000) + 2 * far, far));
        }
        assert_eq!(dial_limit(Duration::from_millis(1)), PEER_DIAL_INTERVAL);
    }

    #[test]
    fn an_unanswered_dial_from_before_the_silence_proves_nothing() {
        let reach = Reach { unanswered: Some(at(99_999)), ..Reach::default() };
        assert!(!silent(Unanswered::Data, 6_000, reach));
    }

    #[test]
    fn a_window_that_stays_closed_for_10_minutes_and_is_acknowledged_is_no_silence() {
        let mut record = None;
        for look in 0..2_400_u64 {
            let now = at(200_000 + 250 * look);
            // Each question is acknowledged after a moment, which a look may or may not see.
            let asked = look % 240 == 0;
            let unanswered = if asked { Unanswered::WindowProbes(1) } else { Unanswered::Nothing };
            let seen = PeerRecord::after(record, now, state(unanswered, 250 * (look % 240) + 60_000 * u64::from(asked)));
            assert!(!seen.is_silent(&unreachable()), "look {look}");
            record = Some(seen);
        }
    }

    #[test]
    fn while_the_address_answers_dials_a_closed_window_gets_three_questions_and_15_s() {
        let reach = Reach { answered: Some(at(300_000)), ..Reach::default() };
        for (questions, silent_from) in [(2, None), (3, Some(15_000)), (6, Some(15_000))] {
            let (mut record, mut silent_at) = (None, None);
            for look in 0..80_u64 {
                let state = state(Unanswered::WindowProbes(questions), 60_000 + 250 * look);
                let seen = PeerRecord::after(record, at(200_000 + 250 * look), state);
                if seen.is_silent(&reach) {
                    silent_at.get_or_insert(250 * look);
                }
                record = Some(seen);
            }
            assert_eq!(silent_at, silent_from, "{questions} questions");
        }
    }

    #[test]
    fn a_closed_window_whose_peer_falls_silent_is_silence_3_s_after_the_first_question() {
        let mut record = None;
        let mut silent_at = None;
        for look in 0..40_u64 {
            let seen =
                PeerRecord::after(record, at(200_000 + 250 * look), state(Unanswered::WindowProbes(2), 60_000 + 250 * look));
            if seen.is_silent(&Reach { unanswered: Some(at(200_000)), ..Reach::default() }) {
                silent_at.get_or_insert(250 * look);
            }
            record = Some(seen);
        }
        assert_eq!(silent_at, Some(3_000));
    }
}
