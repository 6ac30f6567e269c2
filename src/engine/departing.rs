//! How an endpoint leaves: it gets no new connections any more, and is forgotten when it has none left.
//!
//! A connection is only watched while its endpoint is known: were it forgotten at once, connections to an apiserver that hangs
//! later would hang for as long as their clients have patience. So it is probed, and reported on, until the last one has ended.

use super::Engine;
use super::endpoint::Endpoint;
use super::event::Effect;
use super::policy::DEPARTURE;
use super::time::Moment;

impl Engine {
    /// Removes what has to go and bears nothing. The last proven one stays, and so does the last of all.
    pub(super) fn let_go(&mut self, effects: &mut Vec<Effect>) {
        for known in self.endpoints.values_mut() {
            if known.departing.is_some() && known.leaves(self.now).is_none() {
                known.departing = None;
                self.rerank = true;
            }
        }
        let leaving: Vec<(Endpoint, &str)> =
            self.endpoints.values().filter_map(|known| Some((known.endpoint, known.leaves(self.now)?))).collect();
        for (endpoint, reason) in leaving {
            if self.is_needed(endpoint) {
                self.stay(endpoint);
            } else if self.depart(endpoint) {
                self.remove(endpoint, reason, effects);
            }
        }
    }

    /// Whether nothing that stays could take its place.
    fn is_needed(&self, endpoint: Endpoint) -> bool {
        let proven = self.endpoints.get(&endpoint).is_some_and(|known| known.health.proven());
        let mut others = self.endpoints.values().filter(|known| known.endpoint != endpoint && known.departing.is_none());
        if proven { !others.any(|known| known.health.proven()) } else { others.next().is_none() }
    }

    fn stay(&mut self, endpoint: Endpoint) {
        if let Some(known) = self.endpoints.get_mut(&endpoint) {
            self.rerank |= known.departing.take().is_some();
        }
    }

    /// It gets no new connections from now on. Returns whether it can be forgotten: it bears none, and none can be on its way.
    fn depart(&mut self, endpoint: Endpoint) -> bool {
        let Some(known) = self.endpoints.get_mut(&endpoint) else { return false };
        if known.departing.is_none() {
            // Nothing becomes a connection where nothing answers.
            if known.connections == 0 && !(known.carries() && known.health.answering()) {
                return true;
            }
            known.departing = Some(self.now);
            self.rerank = true;
        }
        known.connections == 0 && known.departing.is_some_and(|since| self.now.since(since) >= DEPARTURE)
    }

    /// When those that depart, and bear nothing, go.
    pub(super) fn departures(&self) -> impl Iterator<Item = Moment> + '_ {
        let departing = self.endpoints.values().filter(|known| known.connections == 0);
        departing.filter_map(|known| Some(known.departing? + DEPARTURE)).filter(|at| *at > self.now)
    }
}
