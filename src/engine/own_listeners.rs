//! This agent's own listeners are no endpoints.
//!
//! An endpoint that is the agent's own proxy answers like an apiserver, through TLS that is the apiserver's own, and is nearer than any.
//! Each connection that is given to it comes back as another client, until the draw leads elsewhere or descriptors run out. So
//! the engine does not take such an endpoint from any source: not from the configuration, not from a member's record, not from
//! the cache. It tells the refusal once.
//!
//! The driver tells the addresses ([`Event::OwnListeners`](super::Event::OwnListeners)), and tells them again when this machine
//! gets or loses one that a wildcard listener answers at. An address that this machine has lost, such as a virtual one that has
//! moved to another node, may be an endpoint again.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::endpoint::{Endpoint, Source};
use super::event::{Effect, Notice};

/// The own listeners, and which of them were named as endpoints.
#[derive(Debug, Default)]
pub(super) struct OwnListeners {
    addresses: BTreeSet<Endpoint>,
    /// Refused endpoints with the source that named each last.
    refused: BTreeMap<Endpoint, Source>,
}

impl OwnListeners {
    /// Whether the endpoint, which `source` names, is to be refused.
    fn refuses(&mut self, endpoint: Endpoint, source: Source, effects: &mut Vec<Effect>) -> bool {
        let own = self.addresses.contains(&endpoint);
        if own && self.refused.insert(endpoint, source).is_none() {
            effects.push(Effect::Notice(Notice::OwnListener { endpoint, source }));
        }
        own
    }
}

impl Engine {
    /// Whether the endpoint is an own listener and must not become known.
    pub(super) fn is_own_listener(&mut self, endpoint: Endpoint, source: Source, effects: &mut Vec<Effect>) -> bool {
        self.own_listeners.refuses(endpoint, source, effects)
    }

    /// The configuration is told anew: what it named before counts no more.
    pub(super) fn forget_configured_listeners(&mut self, named: &BTreeSet<Endpoint>) {
        let refused = &mut self.own_listeners.refused;
        refused.retain(|endpoint, source| !source.carries_unproven() || named.contains(endpoint));
    }

    /// These are the own listeners now.
    pub(super) fn own_listeners(&mut self, addresses: BTreeSet<Endpoint>, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.own_listeners.addresses, addresses);
        self.own_listeners.refused.retain(|endpoint, _| self.own_listeners.addresses.contains(endpoint));
        let own = |endpoint: &Endpoint| self.own_listeners.addresses.contains(endpoint);
        let known: Vec<(Endpoint, Source)> = self
            .endpoints
            .values()
            .filter(|known| own(&known.endpoint))
            .filter_map(|known| Some((known.endpoint, *known.sources().first()?)))
            .collect();
        for (endpoint, source) in known {
            self.remove(endpoint, "it is this agent's own listener", effects);
            self.is_own_listener(endpoint, source, effects);
        }
        if before.iter().any(|endpoint| !self.own_listeners.addresses.contains(endpoint)) {
            self.name_all_again(effects);
        }
    }

    /// The endpoints that were refused because they are own listeners, with a source that named each.
    pub fn refused_listeners(&self) -> Vec<(Endpoint, Source)> {
        let named = |endpoint: &Endpoint| self.cluster.names(*endpoint);
        let refused =
            self.own_listeners.refused.iter().filter(|(endpoint, source)| **source != Source::Member || named(endpoint));
        refused.map(|(endpoint, source)| (*endpoint, *source)).collect()
    }
}
