//! What comes, what stays, what goes: configuration, cache and records make and unmake endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Engine;
use super::doubt::Evidence;
use super::endpoint::{Endpoint, EndpointTag, NodeId, Source};
use super::event::{ApiserverState, CachedEndpoint, Configured, Effect, MemberRecord, Notice, Role};
use super::known::Known;
use super::policy::{ENDPOINTS, ENDPOINTS_A_MEMBER};
use super::selection::Trouble;

impl Engine {
    pub(super) fn configured(&mut self, all: &[Configured], effects: &mut Vec<Effect>) {
        for known in self.endpoints.values_mut() {
            let before = std::mem::take(&mut known.configured);
            known.configured = all.iter().filter(|one| one.endpoint == known.endpoint).cloned().collect();
            if !before.is_empty() && known.configured.is_empty() && known.members.is_empty() && known.cached.is_none() {
                known.dismissed = true;
                known.former = before.clone();
            }
            if known.configured != before {
                known.schedule.bring_forward(self.now);
            }
        }
        self.forget_configured_listeners(&all.iter().map(|one| one.endpoint).collect());
        for one in all {
            if let Some(known) = self.admit(one.endpoint, one.source, true, effects) {
                known.configured = all.iter().filter(|other| other.endpoint == one.endpoint).cloned().collect();
            }
        }
        self.rerank = true;
    }

    pub(super) fn cached(&mut self, all: &[CachedEndpoint], cluster_size: u32, effects: &mut Vec<Effect>) {
        self.cluster.remember_size(self.now, cluster_size);
        for one in all {
            if self.identity.advertised.contains(&one.endpoint) {
                continue;
            }
            if let Some(known) = self.admit(one.endpoint, Source::Cached, false, effects) {
                known.cached = Some(one.age);
                known.node = known.node.or(one.node);
            }
        }
    }

    pub(super) fn record(&mut self, mut record: MemberRecord, effects: &mut Vec<Effect>) {
        if !self.cluster.is_news(&record) {
            return;
        }
        record.endpoints.truncate(ENDPOINTS_A_MEMBER);
        self.name_endpoints(&record, effects);
        let (node, apiserver, generation) = (record.node, record.apiserver, record.generation);
        let before = self.cluster.merge(record);
        // Whoever started anew says everything for the first time: a machine that lost power never took back that it was ready.
        let said_before = before.filter(|before| before.generation == generation).and_then(|before| before.apiserver);
        if let Some(state) = apiserver
            && said_before != Some(state)
        {
            self.told_by_its_node(node, state);
        }
    }

    /// Gives a member's endpoints to it, and takes from it what it no longer names.
    fn name_endpoints(&mut self, record: &MemberRecord, effects: &mut Vec<Effect>) {
        let serves = record.role == Role::ControlPlane;
        let named: BTreeSet<Endpoint> = record.endpoints.iter().copied().filter(|_| serves).collect();
        for endpoint in self.taken_from(record.node, &named) {
            self.prompt(endpoint);
        }
        for endpoint in named.into_iter().filter(|endpoint| !self.identity.advertised.contains(endpoint)).collect::<Vec<_>>() {
            if let Some(known) = self.admit(endpoint, Source::Member, false, effects) {
                known.members.insert(record.node);
                known.node.get_or_insert(record.node);
            }
        }
    }

    /// What members' records name is taken again: something that was refused may be taken now.
    pub(super) fn name_all_again(&mut self, effects: &mut Vec<Effect>) {
        for record in self.cluster.records() {
            self.name_endpoints(&record, effects);
        }
    }

    /// Takes from a member what it no longer names, and returns what it moved away from. Only the node that named an
    /// endpoint first can move it: who claims another's address and drops it again has removed nothing.
    fn taken_from(&mut self, node: NodeId, named: &BTreeSet<Endpoint>) -> Vec<Endpoint> {
        let mut moved = Vec::new();
        for known in self.endpoints.values_mut() {
            let (listed, its) = (known.members.remove(&node), known.node == Some(node));
            if !(listed || its) || named.contains(&known.endpoint) {
                continue;
            }
            known.health.unsaid(node);
            if !its || named.is_empty() {
                continue;
            }
            known.cached = None;
            known.node = known.members.first().copied();
            if known.members.is_empty() && known.configured.is_empty() {
                known.moved = true;
                moved.push(known.endpoint);
            }
        }
        moved
    }

    fn told_by_its_node(&mut self, node: NodeId, state: ApiserverState) {
        let its: Vec<Endpoint> =
            self.endpoints.values().filter(|known| known.members.contains(&node)).map(|known| known.endpoint).collect();
        for endpoint in its {
            if let Some(known) = self.endpoints.get_mut(&endpoint) {
                known.health.told(self.now, node, state);
            }
            match state {
                ApiserverState::Ready => self.heard_of_recovery(endpoint),
                ApiserverState::Draining | ApiserverState::Down => self.look_if_it_is_ours_to(endpoint),
            }
        }
        self.rerank = true;
    }

    /// Compares what other nodes report with what they reported before. Only an endpoint that begins or ceases to be reported
    /// as failing is news.
    pub(super) fn peer_reports(&mut self, failing: BTreeSet<EndpointTag>) {
        let before = self.cluster.set_failing(failing);
        let known: Vec<(Endpoint, EndpointTag)> = self.endpoints.values().map(|known| (known.endpoint, known.tag)).collect();
        for (endpoint, tag) in known {
            match (before.contains(&tag), self.cluster.reported_failing(tag)) {
                (false, true) => self.heard_of_trouble(endpoint),
                (true, false) => self.heard_of_recovery(endpoint),
                _ => {}
            }
        }
    }

    /// Takes the round trips that stand in for own samples.
    pub(super) fn priors(&mut self, priors: BTreeMap<EndpointTag, Duration>) {
        self.cluster.set_priors(priors);
        for known in self.endpoints.values_mut() {
            self.rerank |= known.latency.set_prior(self.cluster.prior(known.tag));
        }
    }

    /// Own fresh success beats any number of peers: only who has none lately lowers the endpoint.
    fn heard_of_trouble(&mut self, endpoint: Endpoint) {
        let (now, fresh) = (self.now, 2 * self.probe_interval());
        if let Some(known) = self.endpoints.get_mut(&endpoint)
            && known.health.last_answer().is_none_or(|answer| now.since(answer) > fresh)
        {
            known.health.doubt(now, "peers report that it fails", Trouble::Answers, Evidence::Peers);
            self.rerank = true;
        }
        self.look_if_it_is_ours_to(endpoint);
    }

    /// Few confirm what was said, and who has connections to lose.
    fn look_if_it_is_ours_to(&mut self, endpoint: Endpoint) {
        let carries = self.endpoints.get(&endpoint).is_some_and(|known| known.connections > 0);
        if carries || self.cluster.confirms(endpoint) {
            self.prompt(endpoint);
        }
    }

    fn heard_of_recovery(&mut self, endpoint: Endpoint) {
        let soon = self.now + self.probe_interval();
        if let Some(known) = self.endpoints.get_mut(&endpoint) {
            known.schedule.no_later_than(soon);
        }
    }

    pub(super) fn forgotten(&mut self, node: NodeId) {
        self.cluster.forget(node);
        for known in self.endpoints.values_mut() {
            known.members.remove(&node);
            known.health.unsaid(node);
        }
        self.rerank = true;
    }

    /// The endpoints that only this node named leave, whether they answer or not. As in [`Engine::taken_from`], an endpoint that
    /// another node named first stays: a node that claims another's address and is removed takes nothing with it.
    pub(super) fn removed(&mut self, node: NodeId) {
        self.forgotten(node);
        for known in self.endpoints.values_mut().filter(|known| known.node == Some(node)) {
            known.cached = None;
            known.node = known.members.first().copied();
            known.removed = known.node.is_none();
        }
    }

    /// The endpoint, made if there is room. Who is already proven never makes room; what a person wrote always gets some.
    fn admit(&mut self, endpoint: Endpoint, source: Source, always: bool, effects: &mut Vec<Effect>) -> Option<&mut Known> {
        if !always && !self.permits(endpoint) {
            self.refused += 1;
            return None;
        }
        if self.is_own_listener(endpoint, source, effects) {
            return None;
        }
        if !self.endpoints.contains_key(&endpoint) {
            if self.endpoints.values().filter(|known| known.departing.is_none()).count() >= ENDPOINTS {
                let hearsay = self.endpoints.values().filter(|known| known.is_hearsay() && known.connections == 0);
                let fruitless = hearsay.filter(|known| !known.health.proven());
                let worst = fruitless.max_by_key(|known| known.health.failures()).map(|known| known.endpoint);
                match worst.filter(|worst| always || self.endpoints[worst].health.failures() > 0) {
                    Some(worst) => self.remove(worst, "made room for another", effects),
                    None if always => {}
                    None => {
                        self.refused += 1;
                        return None;
                    }
                }
            }
            let mut known = Known::new(endpoint, self.now);
            known.latency.set_prior(self.cluster.prior(known.tag));
            self.endpoints.insert(endpoint, known);
            effects.push(Effect::Notice(Notice::Learnt { endpoint, source }));
            self.rerank = true;
        }
        let known = self.endpoints.get_mut(&endpoint)?;
        known.dismissed = false;
        known.former.clear();
        self.rerank |= known.departing.take().is_some();
        known.moved = false;
        known.removed = false;
        Some(known)
    }

    pub(super) fn remove(&mut self, endpoint: Endpoint, reason: &str, effects: &mut Vec<Effect>) {
        self.endpoints.remove(&endpoint);
        self.rerank = true;
        effects.push(Effect::Notice(Notice::Left { endpoint, reason: reason.into() }));
    }
}
