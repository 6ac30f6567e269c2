//! Doubts: what traffic and peers hold against an endpoint that answers its probes, and what refutes them.

use super::health::Sent;
use super::selection::Trouble;
use super::time::Moment;

/// Which evidence a doubt rests on, and so which evidence can refute it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Peers speak against it.
    Peers,
    /// A connection could not be made, or an established one was not answered.
    Connection,
    /// A ClientHello of so many bytes was not answered: what passes a smaller one may lose this one.
    Hello(u32),
}

/// Traffic or peers speak against an endpoint that answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Doubt {
    pub(super) arrived: Moment,
    pub(super) reason: String,
    pub(super) evidence: Evidence,
    pub(super) trouble: Trouble,
}

impl Doubt {
    /// Whether an own probe refutes it: one that was sent afterwards, and could have failed as the traffic did.
    pub(super) fn refuted_by(&self, probe: Sent) -> bool {
        let fresh = probe.hello_bytes > 0;
        self.arrived <= probe.at
            && match self.evidence {
                Evidence::Peers => true,
                Evidence::Connection => fresh,
                Evidence::Hello(bytes) => fresh && !probe.slow && at_least(probe.hello_bytes, bytes),
            }
    }
}

/// Hellos differ by the length of a name and the like: an eighth is no difference to a path.
pub(super) fn at_least(hello_bytes: u32, bytes: u32) -> bool {
    hello_bytes.saturating_add(hello_bytes / 8) >= bytes
}

/// How hard a doubt is to refute.
pub(super) fn weight(evidence: Evidence) -> u32 {
    match evidence {
        Evidence::Peers => 0,
        Evidence::Connection => 1,
        Evidence::Hello(bytes) => 1 + bytes,
    }
}
