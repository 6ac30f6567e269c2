//! What a core member tells all workers at once, unasked: that its own record has changed, that another core member's has
//! which some of them do not reach, or that one went or came.
//!
//! A push is repeated until a Report shows that it has arrived: nine times 200 ms apart, then after 400, 800 and 1,600 ms. What
//! goes out is paced, in batches with receiving in between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::super::envelope::Kind;
use super::super::keys::KeyId;
use super::asking::cut;
use super::{Exchange, NodeId};

/// Pushes in a batch.
const BATCH: usize = 64;
/// Between two batches: 25,000 pushes a second.
const BATCHES_APART: Duration = Duration::from_micros(2_560);
/// Repetitions at an equal pace, and that pace.
const EQUAL: (u32, Duration) = (9, Duration::from_millis(200));
/// Repetitions in all.
const REPETITIONS: u32 = 12;
/// That one member went, and that it came back, is pushed at once; what follows waits so long, at first and at most.
const MOVES_APART: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
const MOVES_AT_ONCE: u32 = 2;

/// See the module.
#[derive(Default)]
pub(super) struct Pushing {
    round: Option<Round>,
    /// For each member: when it was last pushed that it went or came, and how often of late.
    moves: BTreeMap<NodeId, (Instant, u32)>,
    /// A push of a move that had to wait.
    waiting: Option<Instant>,
}

struct Round {
    /// Whose records, or removals, are pushed.
    about: BTreeSet<NodeId>,
    /// Only to those who do not reach one of these; [`None`]: to all.
    only: Option<BTreeSet<NodeId>>,
    /// Who is still to be told in this repetition.
    pending: Vec<(SocketAddr, NodeId, KeyId)>,
    repetition: u32,
    began: Instant,
    next: Instant,
    fresh: bool,
}

fn pause(repetition: u32) -> Duration {
    let (equal, pace) = EQUAL;
    pace * (1 << (repetition + 1).saturating_sub(equal).min(3))
}

fn wait(times: u32) -> Duration {
    match times.checked_sub(MOVES_AT_ONCE) {
        None => Duration::ZERO,
        Some(more) => (MOVES_APART.0 * (1 << more.min(8))).min(MOVES_APART.1),
    }
}

impl Pushing {
    /// What is held of a node is to be pushed to everybody.
    pub(super) fn begin(&mut self, now: Instant, about: NodeId) {
        let mut subjects = self.round.take().map(|round| round.about).unwrap_or_default();
        subjects.insert(about);
        self.round = Some(Round::new(now, subjects, None));
    }

    /// A record is to be pushed to those who do not reach its node.
    pub(super) fn relay(&mut self, now: Instant, about: NodeId) {
        let (mut subjects, mut only) = match self.round.take() {
            Some(round) => (round.about, round.only),
            None => (BTreeSet::new(), Some(BTreeSet::new())),
        };
        subjects.insert(about);
        if let Some(only) = &mut only {
            only.insert(about);
        }
        self.round = Some(Round::new(now, subjects, only));
    }

    /// These members went or came.
    pub(super) fn view_changed(&mut self, now: Instant, moved: &BTreeSet<NodeId>) {
        for node in moved {
            let (last, times) = self.moves.get(node).copied().unwrap_or((now, 0));
            let due = last + wait(times);
            if now < due {
                self.waiting = Some(self.waiting.map_or(due, |waiting| waiting.min(due)));
                continue;
            }
            let calm = now >= last + 2 * MOVES_APART.1;
            self.moves.insert(*node, (now, if calm { 1 } else { times + 1 }));
            self.waiting = Some(now);
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.round.as_ref().map(|round| round.next).into_iter().chain(self.waiting).min()
    }
}

impl Round {
    fn new(now: Instant, about: BTreeSet<NodeId>, only: Option<BTreeSet<NodeId>>) -> Round {
        Round { about, only, pending: Vec::new(), repetition: 0, began: now, next: now, fresh: true }
    }
}

impl Exchange {
    /// The other core members are told of an item at once, beside chitchat, which would tell them a round later.
    pub(super) fn tell_core(&mut self, now: Instant, item: &[u8]) {
        let item = item.to_vec();
        let core: Vec<SocketAddr> = self.live_core().collect();
        for to in core {
            let pushed = self.pushed(now, to, std::slice::from_ref(&item));
            let datagram = pushed.and_then(|plaintext| self.envelopes.seal(Kind::Update, &plaintext));
            self.sends.extend(datagram.map(|datagram| (to, datagram)));
        }
    }

    /// Another core member's record is new here: those who do not reach it are told.
    pub(super) fn relay(&mut self, now: Instant, node: NodeId) {
        if self.me.core && self.workers.iter().any(|(.., worker)| worker.unanswered.contains(&node)) {
            self.pushing.relay(now, node);
        }
    }

    pub(super) fn push(&mut self, now: Instant) {
        if self.pushing.waiting.is_some_and(|waiting| now >= waiting) {
            self.pushing.waiting = None;
            self.pushing.begin(now, self.me.node);
        }
        let Some(mut round) = self.pushing.round.take_if(|round| now >= round.next) else { return };
        if round.fresh || round.pending.is_empty() {
            round.pending = self.who_lacks(&round);
            (round.fresh, round.began) = (false, now);
        }
        if round.pending.is_empty() {
            return;
        }
        let batch = round.pending.split_off(round.pending.len().saturating_sub(BATCH));
        let about = round.about.iter().filter_map(|node| self.catalog.signed(*node));
        let items: Vec<Vec<u8>> = about.map(|signed| signed.bytes.to_vec()).collect();
        for (to, _, key) in batch {
            let pushed =
                self.pushed(now, to, &items).and_then(|plaintext| self.envelopes.seal_with(key, Kind::Update, &plaintext));
            self.sends.extend(pushed.map(|datagram| (to, datagram)));
        }
        if !round.pending.is_empty() {
            round.next = now + BATCHES_APART;
        } else if round.repetition < REPETITIONS {
            round.next = (round.began + pause(round.repetition)).max(now + BATCHES_APART);
            round.repetition += 1;
        } else {
            return;
        }
        self.pushing.round = Some(round);
    }

    /// Workers whose last Report does not show that what is pushed has arrived.
    fn who_lacks(&mut self, round: &Round) -> Vec<(SocketAddr, NodeId, KeyId)> {
        let digest = self.catalog.digest();
        let number = self.live_since;
        let reached =
            |unanswered: &[NodeId]| round.only.as_ref().is_none_or(|only| unanswered.iter().any(|node| only.contains(node)));
        self.workers
            .iter()
            .filter(|(.., worker)| reached(&worker.unanswered) && (worker.digest != digest || worker.view < cut(number)))
            .map(|(addr, node, worker)| (addr, node, worker.key))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_repeated_nine_times_at_200_ms_then_after_400_800_and_1600() {
        let pauses: Vec<u128> = (0..REPETITIONS).map(|repetition| pause(repetition).as_millis()).collect();
        assert_eq!(pauses, [200, 200, 200, 200, 200, 200, 200, 200, 200, 400, 800, 1_600]);
    }
}
