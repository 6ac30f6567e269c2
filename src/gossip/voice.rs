//! Whether this node's record is written, and to whom a change is told directly.
//!
//! How often something is worth a write is the engine's business: what it orders is written when it orders it.

use tokio::time::Instant;

use super::Say;
use super::record::Record;
use super::urgent::Urgent;
use crate::engine::endpoint::Endpoint;
use crate::engine::event::Role;

/// What this node says, and has said.
pub(super) struct Voice {
    name: String,
    /// Drawn at random when this process started.
    pub(super) session: u64,
    pub(super) urgent: Urgent,
    written: Option<Record>,
}

/// What to do about something new to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speak {
    /// Publish it.
    Now {
        /// And tell every live member directly.
        directly: bool,
    },
    /// It is what was said already.
    Never,
}

impl Voice {
    pub(super) fn new(name: String) -> Voice {
        Voice { name, session: rand::random(), urgent: Urgent::default(), written: None }
    }

    /// The record of what is to be said.
    pub(super) fn record(&self, say: &Say) -> Record {
        Record {
            session: self.session,
            name: self.name.clone(),
            role: say.role,
            agent: say.agent,
            endpoints: say.endpoints.iter().copied().map(Endpoint::from).collect(),
            report: say.report.clone(),
        }
    }

    /// Whether and how a record is to be published.
    pub(super) fn judge(&self, record: &Record, urgent: bool) -> Speak {
        let Some(written) = &self.written else { return Speak::Now { directly: false } };
        let control_plane = record.role == Role::ControlPlane || written.role == Role::ControlPlane;
        if urgent || record.changes_state_of(written) {
            return Speak::Now { directly: urgent || control_plane };
        }
        if record == written { Speak::Never } else { Speak::Now { directly: false } }
    }

    /// Notes what was published.
    pub(super) fn wrote(&mut self, record: Record) {
        self.written = Some(record);
    }
}

/// A timer that may not be set.
pub(super) async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::{AgentState, OwnReport};

    #[test]
    fn of_those_that_leave_only_a_control_plane_tells_everybody_directly() {
        for (role, directly) in [(Role::ControlPlane, true), (Role::Worker, false)] {
            let mut voice = Voice::new("node".to_owned());
            let say = |agent| Say { role, agent, endpoints: Vec::new(), report: OwnReport::default() };
            voice.wrote(voice.record(&say(AgentState::Running)));
            let leaving = voice.record(&say(AgentState::Leaving));
            assert_eq!(voice.judge(&leaving, false), Speak::Now { directly });
        }
    }
}
