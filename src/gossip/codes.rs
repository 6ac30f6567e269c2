//! Small things as numbers on the wire.

use std::time::Duration;

use crate::engine::event::{AgentState, ApiserverState, Role, Verdict};

/// The shortest round trip that is told apart from none.
const MIN_RTT: Duration = Duration::from_micros(10);
/// Ratio of two neighbouring steps: 254 of them reach from 10 µs to 27 s.
const RTT_STEP: f64 = 1.06;
const NO_RTT: u8 = 255;

/// A round trip in one byte: about 6% between two steps, far finer than the band that selection puts it into, so that one
/// which wavers mostly stays the same.
pub(super) fn rtt_code(rtt: Option<Duration>) -> u8 {
    let Some(rtt) = rtt else { return NO_RTT };
    let steps = (rtt.max(MIN_RTT).as_secs_f64() / MIN_RTT.as_secs_f64()).log(RTT_STEP).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=254 just before")]
    let code = steps.clamp(0.0, f64::from(NO_RTT - 1)) as u8;
    code
}

/// What [`rtt_code`] stands for.
pub(super) fn rtt_of(code: u8) -> Option<Duration> {
    (code != NO_RTT).then(|| MIN_RTT.mul_f64(RTT_STEP.powi(i32::from(code))))
}

pub(super) fn role_code(role: Role) -> u8 {
    match role {
        Role::ControlPlane => 1,
        Role::Worker => 2,
    }
}

pub(super) fn role_of(code: u8) -> Option<Role> {
    [Role::ControlPlane, Role::Worker].into_iter().find(|role| role_code(*role) == code)
}

pub(super) fn agent_code(agent: AgentState) -> u8 {
    match agent {
        AgentState::Running => 1,
        AgentState::Leaving => 2,
    }
}

pub(super) fn agent_of(code: u8) -> Option<AgentState> {
    [AgentState::Running, AgentState::Leaving].into_iter().find(|agent| agent_code(*agent) == code)
}

pub(super) fn apiserver_code(state: Option<ApiserverState>) -> u8 {
    match state {
        None => 0,
        Some(ApiserverState::Ready) => 1,
        Some(ApiserverState::Draining) => 2,
        Some(ApiserverState::Down) => 3,
    }
}

pub(super) fn apiserver_of(code: u8) -> Option<Option<ApiserverState>> {
    let all = [None, Some(ApiserverState::Ready), Some(ApiserverState::Draining), Some(ApiserverState::Down)];
    all.into_iter().find(|state| apiserver_code(*state) == code)
}

pub(super) fn verdict_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ready => 1,
        Verdict::Draining => 2,
        Verdict::Unproven => 3,
        Verdict::Suspect => 4,
        Verdict::Down => 5,
    }
}

pub(super) fn verdict_of(code: u8) -> Option<Verdict> {
    let all = [Verdict::Ready, Verdict::Draining, Verdict::Unproven, Verdict::Suspect, Verdict::Down];
    all.into_iter().find(|verdict| verdict_code(*verdict) == code)
}
