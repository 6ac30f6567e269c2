//! Agents that believe weak evidence: for a hang a late answer, a refusal, a dial that was not answered; against a doubt a hello that
//! was shorter than clients' are.

use prismesh::engine::Event;
use prismesh::engine::event::{Outcome, Probed};

/// A late answer is told as a handshake that was not answered.
pub(super) fn late_is_hung(event: &mut Event) {
    told_as_hung(event, |outcome| matches!(outcome, Outcome::AnswerTimedOut));
}

/// So is a refusal.
pub(super) fn refused_is_hung(event: &mut Event) {
    told_as_hung(event, |outcome| matches!(outcome, Outcome::Refused));
}

/// So is a dial that nothing answered.
pub(super) fn undialled_is_hung(event: &mut Event) {
    told_as_hung(event, |outcome| matches!(outcome, Outcome::DialTimedOut));
}

/// A hello that nothing answered is told as answered, as that of a probe was which is shorter than clients' are.
pub(super) fn small_hellos_pass(event: &mut Event) {
    if let Event::Probed(Probed { outcome, hello_bytes, .. }) = event
        && matches!(outcome, Outcome::HandshakeTimedOut { hung: false })
    {
        *outcome = Outcome::Status { code: 200, expired: false };
        *hello_bytes = u32::MAX;
    }
}

fn told_as_hung(event: &mut Event, such: fn(&Outcome) -> bool) {
    if let Event::Probed(Probed { outcome, fresh, .. }) = event
        && such(outcome)
    {
        *outcome = Outcome::HandshakeTimedOut { hung: true };
        *fresh = true;
    }
}
