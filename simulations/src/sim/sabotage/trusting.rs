//! Agents that trust the wrong ones: what cannot be verified, or not what was.

use prismesh::engine::Event;
use prismesh::engine::event::{Lack, Outcome, Probed, Reverified};

/// What cannot be verified for want of an algorithm is told as verified.
pub(super) fn believes_the_unsupported(event: &mut Event) {
    believes(event, |lack| matches!(lack, Lack::Algorithm(_)));
}

/// So is what cannot be verified for want of a CA.
pub(super) fn believes_without_ca(event: &mut Event) {
    believes(event, |lack| matches!(lack, Lack::Ca(_)));
}

fn believes(event: &mut Event, such: fn(&Lack) -> bool) {
    if let Event::Probed(Probed { outcome, .. }) = event
        && let Outcome::Unverified { code, lack } = &*outcome
        && such(lack)
    {
        *outcome = Outcome::Status { code: *code, expired: false };
    }
}

/// Whatever was verified is told as rejected when the CA's file changes.
pub(super) fn rejects_what_was(event: &mut Event) {
    if let Event::TrustChanged(worth) = event {
        worth.values_mut().for_each(|worth| *worth = Reverified::Rejected("it was verified before".to_owned()));
    }
}
