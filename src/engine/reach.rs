//! Destinations that the kernel finds no way to, or that a rule of this node forbids: is it the path, or this node?
//!
//! The errno does not tell. Without a default route everything is unreachable, and no apiserver is to blame; with a
//! prohibiting route or a firewall's rule one destination is, and waiting for it to answer would be in vain. So the others
//! decide: what is unreachable while another endpoint connects has failed. A failure that was seen before anything else connected is
//! kept, and counts as soon as something does.

use super::Engine;
use super::doubt::Evidence;
use super::endpoint::Endpoint;
use super::event::Outcome;
use super::selection::Trouble;
use super::time::Moment;

/// How connecting to one endpoint went last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reach {
    /// When a dial connected, or a probe was answered.
    connected: Option<Moment>,
    lack: Option<Lack>,
}

/// Why nothing was sent there.
#[derive(Clone, Debug, PartialEq)]
enum Lack {
    /// The kernel finds no way, since then.
    Unreachable { since: Moment, why: String },
    /// This node could not try.
    Local(String),
}

impl Reach {
    /// What `explain` says of it, if something is wrong.
    pub(crate) fn explain(&self) -> Option<String> {
        Some(match self.lack.as_ref()? {
            Lack::Unreachable { why, .. } => format!("this node finds no way to it: {why}"),
            Lack::Local(why) => format!("this node could not try it: {why}; that is held against no endpoint"),
        })
    }

    fn unreachable_since(&self) -> Option<Moment> {
        match self.lack {
            Some(Lack::Unreachable { since, .. }) => Some(since),
            _ => None,
        }
    }
}

/// The reason that an unreachable endpoint's health state is given.
pub(super) fn unreachable(why: &str) -> String {
    format!("cannot be reached from this node: {why}")
}

/// Whether a probe with this outcome was not even sent.
pub(super) fn was_not_sent(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unreachable(_) | Outcome::LocalError(_))
}

impl Engine {
    /// Notes how connecting went at the end of a probe. False if the outcome is an unreachable destination and says nothing yet:
    /// nothing else has connected since it was first seen to be.
    pub(super) fn note_reach(&mut self, endpoint: Endpoint, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Unreachable(why) => return self.note_unreachable(endpoint, why),
            Outcome::LocalError(why) => self.note_local_lack(endpoint, why),
            Outcome::Status { .. } | Outcome::HandshakeTimedOut { .. } => self.note_connected(endpoint),
            _ => self.reach(endpoint, |reach| reach.lack = None),
        }
        true
    }

    /// Something connected: so this node can, and what it finds no way to has failed by itself.
    pub(super) fn note_connected(&mut self, endpoint: Endpoint) {
        let now = self.now;
        self.reach(endpoint, |reach| *reach = Reach { connected: Some(now), lack: None });
        let mut failed = Vec::new();
        for known in self.endpoints.values_mut().filter(|known| known.endpoint != endpoint && known.health.answering()) {
            if let Some(Lack::Unreachable { why, .. }) = &known.reach.lack {
                known.health.doubt(now, &unreachable(why), Trouble::Refuses, Evidence::Connection);
                failed.push(known.endpoint);
            }
        }
        for endpoint in failed {
            self.prompt(endpoint);
            self.rerank = true;
        }
    }

    /// A dial or a probe found no way. True if something else has connected since that was first seen, so that it is a failure.
    pub(super) fn note_unreachable(&mut self, endpoint: Endpoint, why: &str) -> bool {
        let now = self.now;
        let Some(known) = self.endpoints.get_mut(&endpoint) else { return false };
        let since = known.reach.unreachable_since().unwrap_or(now);
        known.reach.lack = Some(Lack::Unreachable { since, why: why.to_owned() });
        let mut others = self.endpoints.values().filter(|known| known.endpoint != endpoint);
        let failed = others.any(|other| other.reach.connected.is_some_and(|at| at > since));
        if !failed {
            self.call_witness(endpoint);
        }
        failed
    }

    /// This node could not try: that is shown, and held against nothing.
    pub(super) fn note_local_lack(&mut self, endpoint: Endpoint, why: &str) {
        self.reach(endpoint, |reach| reach.lack = Some(Lack::Local(why.to_owned())));
    }

    fn reach(&mut self, endpoint: Endpoint, change: impl FnOnce(&mut Reach)) {
        if let Some(known) = self.endpoints.get_mut(&endpoint) {
            change(&mut known.reach);
        }
    }
}
