//! A probe as the engine orders it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;

/// A probe to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOrder {
    /// Told back in [`Probed`](super::event::Probed).
    pub id: u64,
    /// Where.
    pub endpoint: Endpoint,
    /// The name its certificate must cover; [`None`] for the cluster's ordinary one.
    pub server_name: Option<String>,
    /// Do not use a kept connection, and drop the one there is.
    pub fresh: bool,
    /// Keep the connection afterwards.
    pub keep: bool,
    /// How long each phase may take.
    pub limits: ProbeLimits,
}

/// How long each phase of a probe may take; an answer that comes later is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeLimits {
    /// From the first SYN to the connection.
    pub dial: Duration,
    /// From the connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the request to the answer's head.
    pub answer: Duration,
}

impl ProbeLimits {
    /// The same limit for each phase.
    pub fn of(each: Duration) -> ProbeLimits {
        ProbeLimits { dial: each, handshake: each, answer: each }
    }

    /// How long the whole probe may take.
    pub fn total(&self) -> Duration {
        self.dial + self.handshake + self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_may_take_as_long_as_all_its_phases() {
        let [dial, handshake, answer] = [400, 20, 1].map(Duration::from_millis);
        assert_eq!(ProbeLimits { dial, handshake, answer }.total(), Duration::from_millis(421));
    }
}
