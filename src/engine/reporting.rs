//! What this node tells the others and its own disk, and how often.
//!
//! Every write of a record costs each member work, so noise is not news: a verdict is said at once, unless one was said just
//! before ([`verdicts_apart`]), a round trip or a load that moved by a good part within [`PUBLISH_INTERVAL`]. Gossip
//! publishes what is ordered here when it is ordered.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Engine;
use super::endpoint::{Endpoint, NodeId};
use super::event::{Effect, Observation, OwnReport, Remembered};
use super::known::Known;
use super::policy::{OBSERVATIONS, PUBLISH_INTERVAL, VERDICT_REPORTS_A_SECOND, VERDICTS_APART};
use super::time::Moment;

/// The cache is written this often even if nothing changed, so that the ages in it are about right.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(600);
/// Round trips and loads that differ by less than this factor are the same news.
const NEWS_FACTOR: f64 = 1.5;
/// So many connections more or less are never news: among all of a cluster's they weigh nothing.
const LOAD_SLACK: f64 = 4.0;

#[derive(Debug, Default)]
pub(super) struct Reporting {
    said: Option<(Moment, OwnReport)>,
    /// When a change of this node's own apiserver was said last.
    turned: Option<Moment>,
    /// When the changed report, that is not said yet, is due.
    due: Option<Moment>,
    remembered: Option<(Moment, Memory)>,
}

/// What of the cache is worth a write when it changes.
type Memory = (BTreeSet<(Endpoint, Option<NodeId>)>, u32);

impl Reporting {
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }
}

impl Engine {
    pub(super) fn publish(&mut self, effects: &mut Vec<Effect>) {
        let report = self.report();
        let (due, urgent) = match &self.reporting.said {
            None => (self.now, report.apiserver.is_some()),
            Some((_, said)) if said.apiserver != report.apiserver => {
                (self.reporting.turned.map_or(self.now, |then| then + VERDICTS_APART), true)
            }
            Some((then, said)) if self.verdict_is_news(said, &report) => (*then + verdicts_apart(self.cluster.size()), false),
            Some((then, said)) if is_news(said, &report) => (*then + PUBLISH_INTERVAL, false),
            Some(_) => {
                self.reporting.due = None;
                return;
            }
        };
        if due > self.now {
            self.reporting.due = Some(due);
            return;
        }
        self.reporting.due = None;
        if urgent {
            self.reporting.turned = Some(self.now);
        }
        self.reporting.said = Some((self.now, report.clone()));
        effects.push(Effect::Publish { say: report, urgent });
    }

    /// Where not all endpoints have room, noise decides which of them are said: that alone is no change of a verdict.
    fn verdict_is_news(&self, said: &OwnReport, now: &OwnReport) -> bool {
        let all_have_room = self.endpoints.len() <= OBSERVATIONS;
        now.observations.iter().any(|seen| {
            let last = said.observations.iter().find(|last| last.endpoint == seen.endpoint);
            last.map_or(all_have_room, |last| last.verdict != seen.verdict)
        })
    }

    /// The nearest endpoints first; what is local is told by its public name, and its round trip is nobody else's.
    fn report(&self) -> OwnReport {
        let mut seen: Vec<(Option<Duration>, Observation)> =
            self.endpoints.values().map(|known| (known.latency.estimate(), self.observation(known))).collect();
        seen.sort_by_key(|(rtt, seen)| (rtt.is_none(), *rtt, seen.endpoint));
        seen.truncate(OBSERVATIONS);
        let said = self.reporting.said.as_ref().and_then(|(_, said)| said.apiserver);
        OwnReport {
            apiserver: self.endpoints.values().find(|known| known.is_local()).and_then(|known| known.health.own_word()).or(said),
            observations: seen.into_iter().map(|(_, seen)| seen).collect(),
        }
    }

    fn observation(&self, known: &Known) -> Observation {
        Observation {
            endpoint: self.public_tag(known),
            rtt: if known.is_local() { None } else { known.latency.own() },
            verdict: known.health.verdict(),
            connections: known.connections,
        }
    }

    pub(super) fn remember(&mut self, effects: &mut Vec<Effect>) {
        let worth: Vec<&Known> = self
            .endpoints
            .values()
            .filter(|known| known.is_hearsay() && !known.dismissed && !known.removed)
            .filter(|known| known.health.proven() || (known.cached.is_some() && known.health.disproven().is_none()))
            .collect();
        let memory: Memory = (worth.iter().map(|known| (known.endpoint, known.node)).collect(), self.cluster.size());
        let stale = self
            .reporting
            .remembered
            .as_ref()
            .is_none_or(|(then, last)| *last != memory || self.now.since(*then) >= REMEMBER_INTERVAL);
        // A start that has found nothing yet must not overwrite what an earlier run knew.
        let nothing = memory == (BTreeSet::new(), 1) && self.reporting.remembered.is_none();
        if !stale || nothing {
            return;
        }
        let endpoints = worth
            .iter()
            .filter_map(|known| Some(Remembered { endpoint: known.endpoint, node: known.node, age: known.proof_age(self.now)? }))
            .collect();
        effects.push(Effect::Remember { endpoints, cluster_size: self.cluster.size() });
        self.reporting.remembered = Some((self.now, memory));
    }
}

/// How far apart two reports because of verdicts are: all nodes see the same trouble, and each hears what all say of it.
fn verdicts_apart(cluster_size: u32) -> Duration {
    (Duration::from_secs(u64::from(cluster_size)) / VERDICT_REPORTS_A_SECOND).clamp(VERDICTS_APART, PUBLISH_INTERVAL)
}

fn is_news(said: &OwnReport, now: &OwnReport) -> bool {
    said.observations.len() != now.observations.len()
        || now.observations.iter().any(|seen| {
            let Some(last) = said.observations.iter().find(|last| last.endpoint == seen.endpoint) else { return true };
            let load = (f64::from(seen.connections) + LOAD_SLACK, f64::from(last.connections) + LOAD_SLACK);
            let rtt = (seconds(seen.rtt), seconds(last.rtt));
            differs(load.0, load.1) || differs(rtt.0, rtt.1)
        })
}

/// Unmeasured is a round trip that no measured one is near.
fn seconds(rtt: Option<Duration>) -> f64 {
    rtt.map_or(f64::MAX, |rtt| rtt.as_secs_f64().max(1e-4))
}

fn differs(one: f64, two: f64) -> bool {
    one.max(two) > one.min(two) * NEWS_FACTOR
}
