//! What is trusted changes: another CA, other networks that gossip may name.
//!
//! Trust is the one reason to reset connections that work. What a client has sent to an endpoint that is no apiserver of this cluster
//! must not go on; so it is not left to the next probe, which a large cluster makes seconds later, to find out.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Engine;
use super::endpoint::Endpoint;
use super::event::{Effect, Notice, ResetReason, Reverified, Verdict};

impl Engine {
    /// The CA that probes believe has changed. What was verified and is rejected now is unverified and reset; what can no longer be
    /// told is unverified and left alone; all that is not ready is probed at once.
    pub(super) fn trust_changed(&mut self, worth: &BTreeMap<Endpoint, Reverified>, effects: &mut Vec<Effect>) {
        let now = self.now;
        for known in self.endpoints.values_mut() {
            match worth.get(&known.endpoint) {
                Some(Reverified::Verified) => {}
                Some(Reverified::Rejected(why)) => {
                    known.health.withdraw(now, &format!("the CA that is in force now rejects its certificate: {why}"));
                    effects.push(reset(known.endpoint));
                }
                // A probe that is under way was judged by what was trusted before.
                Some(Reverified::Unverified) | None => known.health.withdraw(now, "its certificate could not be verified again"),
            }
            if known.health.verdict() != Verdict::Ready {
                known.schedule.set(now);
            }
        }
        self.rerank = true;
    }

    /// Other networks are allowed. What is outside goes with what follows from each event; what is inside now is taken from the
    /// records that are known, for their members may have nothing new to tell.
    pub(super) fn allowed(&mut self, networks: Vec<IpNet>, effects: &mut Vec<Effect>) {
        self.allowed = networks;
        self.name_all_again(effects);
    }

    /// Whether gossip and the cache may name it.
    pub(super) fn permits(&self, endpoint: Endpoint) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|network| network.contains(&endpoint.addr().ip()))
    }

    /// Removes what only gossip or the cache names and they may not name, and resets its connections. Not even the last verified one
    /// stays.
    pub(super) fn expel(&mut self, effects: &mut Vec<Effect>) {
        let outside = self.endpoints.values().filter(|known| known.is_hearsay() && !self.permits(known.endpoint));
        for endpoint in outside.map(|known| known.endpoint).collect::<Vec<_>>() {
            effects.push(reset(endpoint));
            self.remove(endpoint, "it is outside the allowed networks", effects);
        }
    }

    /// Tells once of each algorithm for want of which an endpoint cannot be verified.
    pub(super) fn tell_unsupported(&mut self, effects: &mut Vec<Effect>) {
        for known in self.endpoints.values_mut() {
            let algorithm = known.unsupported.clone();
            if algorithm == known.told_unsupported {
                continue;
            }
            known.told_unsupported.clone_from(&algorithm);
            if let Some(algorithm) = algorithm {
                let carries = known.carries();
                effects.push(Effect::Notice(Notice::UnsupportedAlgorithm { endpoint: known.endpoint, algorithm, carries }));
            }
        }
    }
}

fn reset(endpoint: Endpoint) -> Effect {
    Effect::Reset { endpoint, reason: ResetReason::TrustWithdrawn, silent_since: None, over: std::time::Duration::ZERO }
}
