//! Agents that reset what works.

use std::time::Duration;

use prismesh::engine::event::{Notice, ResetReason, Verdict};
use prismesh::engine::{Effect, Endpoint, Moment};

use crate::sim::watched::Spoil;

/// Resets what has received nothing since now: all that is quiet.
fn reset(endpoint: Endpoint, now: Moment) -> Effect {
    Effect::Reset { endpoint, reason: ResetReason::Hung, silent_since: Some(now), over: Duration::ZERO }
}

/// Resets the connections of the best upstream.
#[derive(Default)]
pub(super) struct ResetsAtRandom {
    best: Option<Endpoint>,
    next: Option<Moment>,
}

impl Spoil for ResetsAtRandom {
    fn effects(&mut self, now: Moment, mut effects: Vec<Effect>) -> Vec<Effect> {
        for effect in &effects {
            if let Effect::Route(routing) = effect {
                self.best = routing.upstreams.first().map(|upstream| upstream.endpoint);
            }
        }
        let due = *self.next.get_or_insert(now + Duration::from_secs(10));
        if let Some(endpoint) = self.best.filter(|_| now >= due) {
            self.next = Some(now + Duration::from_secs(10));
            effects.push(reset(endpoint, now));
        }
        effects
    }

    fn due(&self) -> Option<Moment> {
        self.next
    }
}

/// Resets whatever is suspected.
pub(super) struct ResetsSuspects;

impl Spoil for ResetsSuspects {
    fn effects(&mut self, now: Moment, mut effects: Vec<Effect>) -> Vec<Effect> {
        let suspects = effects.iter().filter_map(|effect| match effect {
            Effect::Notice(Notice::Verdict { endpoint, to: Verdict::Suspect | Verdict::Down, .. }) => Some(*endpoint),
            _ => None,
        });
        let resets: Vec<Effect> = suspects.map(|endpoint| reset(endpoint, now)).collect();
        effects.extend(resets);
        effects
    }
}

/// Resets all for a hang, whatever has received something.
pub(super) struct ResetsWhatHears;

impl Spoil for ResetsWhatHears {
    fn effects(&mut self, _: Moment, mut effects: Vec<Effect>) -> Vec<Effect> {
        for effect in &mut effects {
            if let Effect::Reset { silent_since, .. } = effect {
                *silent_since = None;
            }
        }
        effects
    }
}
