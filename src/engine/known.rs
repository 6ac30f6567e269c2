//! One endpoint as the engine knows it: why it is known, how it does, when it is looked at next, and when it leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use super::endpoint::{Endpoint, EndpointTag, NodeId, Source};
use super::event::{Configured, Lack, Outcome, Verdict};
use super::health::Health;
use super::latency::{Latency, ms};
use super::policy::{CACHED_GONE, MEMBER_GONE};
use super::probing::{Pace, Schedule};
use super::reach::Reach;
use super::selection::Candidate;
use super::time::Moment;

#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) endpoint: Endpoint,
    /// Its short name, kept because hashing it anew for each report would be the engine's main work.
    pub(crate) tag: EndpointTag,
    /// What the configuration says of it, at most one a source.
    pub(crate) configured: Vec<Configured>,
    /// Members whose present records name it.
    pub(crate) members: BTreeSet<NodeId>,
    /// The node it belongs to, as far as was ever heard.
    pub(crate) node: Option<NodeId>,
    /// From the disk: how long before the agent's start it was last proven.
    pub(crate) cached: Option<Duration>,
    /// The configuration wants it no more; it goes unless it is the last proven one.
    pub(crate) dismissed: bool,
    /// What the configuration said of it before that: while it still has connections it is probed as before.
    pub(crate) former: Vec<Configured>,
    /// Since when it gets no new connections because it has to go; it goes when it has none left.
    pub(crate) departing: Option<Moment>,
    /// Its node says that it has moved. It goes once it does not answer: a forged record must not remove what works.
    pub(crate) moved: bool,
    /// An administrator removed the node that it belonged to, and no other node names it.
    pub(crate) removed: bool,
    pub(crate) health: Health,
    pub(crate) latency: Latency,
    pub(crate) schedule: Schedule,
    /// How connecting to it went last.
    pub(crate) reach: Reach,
    /// This node's own established connections.
    pub(crate) connections: u32,
    /// The verdict that was told last.
    pub(crate) told: Verdict,
    /// That its certificate is outside its validity was told.
    pub(crate) told_expired: bool,
    /// The algorithm for want of which its last certificate could not be verified, and the one that was told.
    pub(crate) unsupported: Option<String>,
    pub(crate) told_unsupported: Option<String>,
    /// Its last TLS handshake took longer than a client waits for it.
    pub(crate) slow: bool,
    /// Dials in a row that a later one overtook.
    pub(crate) overtaken: u32,
    /// It has not answered yet, or was `down` since it did.
    away: bool,
    /// When it last joined those that answer.
    pub(crate) ready_since: Option<Moment>,
    /// The verdict with which it was ranked last, measured, and whether it is in the band of the nearest of those.
    pub(crate) ranked: Option<(Verdict, bool)>,
}

impl Known {
    pub(crate) fn new(endpoint: Endpoint, now: Moment) -> Known {
        Known {
            endpoint,
            tag: endpoint.tag(),
            configured: Vec::new(),
            members: BTreeSet::new(),
            node: None,
            cached: None,
            dismissed: false,
            former: Vec::new(),
            departing: None,
            moved: false,
            removed: false,
            health: Health::new(),
            latency: Latency::default(),
            schedule: Schedule::new(now),
            reach: Reach::default(),
            connections: 0,
            told: Verdict::Unproven,
            told_expired: false,
            unsupported: None,
            told_unsupported: None,
            slow: false,
            overtaken: 0,
            away: true,
            ready_since: None,
            ranked: None,
        }
    }

    /// Why it is known. One that nobody names any more is as good as cached.
    pub(crate) fn sources(&self) -> Vec<Source> {
        let mut sources: Vec<Source> = self.configured.iter().map(|configured| configured.source).collect();
        if !self.members.is_empty() {
            sources.push(Source::Member);
        }
        if sources.is_empty() || self.cached.is_some() {
            sources.push(Source::Cached);
        }
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    pub(crate) fn is_local(&self) -> bool {
        self.configured.iter().any(|configured| configured.source == Source::Local)
    }

    /// Only gossip or the cache speaks of it.
    pub(crate) fn is_hearsay(&self) -> bool {
        self.configured.is_empty()
    }

    /// What the configuration says of it, or said before it was dismissed.
    fn said_of_it(&self) -> impl Iterator<Item = &Configured> {
        self.configured.iter().chain(&self.former)
    }

    /// A balancer may stand behind it, which would pin a kept connection to one apiserver.
    pub(crate) fn may_be_a_balancer(&self) -> bool {
        self.said_of_it().any(|configured| configured.by_name || configured.source == Source::External)
    }

    /// It is known by its own address, be it that a name leads to it as well: what it answers and how it fails is one apiserver's.
    pub(crate) fn is_one_apiserver(&self) -> bool {
        !self.may_be_a_balancer() || self.is_local() || !self.members.is_empty()
    }

    /// Whether that it answers shows that another one hangs, and not this node. Another address of a balancer may be the same balancer's.
    pub(crate) fn witnesses(&self, hung: Endpoint, balancer: bool) -> bool {
        self.endpoint != hung && (!balancer || self.is_one_apiserver())
    }

    pub(crate) fn server_name(&self) -> Option<String> {
        self.said_of_it().find_map(|configured| configured.server_name.clone())
    }

    /// Whether client bytes may go there: never to what was disproven or departs, and to what gossip named only after proof.
    pub(crate) fn carries(&self) -> bool {
        self.departing.is_none() && self.health.disproven().is_none() && (self.health.proven() || !self.is_hearsay())
    }

    /// From when on connections to it may be reset because the process behind it hangs.
    pub(crate) fn resets_at(&self) -> Option<Moment> {
        self.health.reset_from(self.may_be_a_balancer())
    }

    pub(crate) fn pace(&self, cluster_size: u32) -> Pace {
        let fruitless = if self.health.once_proven() || !self.is_hearsay() { 0 } else { self.health.failures() };
        Pace { local: self.is_local(), fruitless, cluster_size }
    }

    /// Its verdict is this now: who joins those that answer begins with a small share.
    pub(crate) fn holds(&mut self, now: Moment, verdict: Verdict) {
        self.told = verdict;
        match verdict {
            Verdict::Unproven | Verdict::Down => self.away = true,
            // Its own probe failed: what it carried may be gone, though it was too short for `down`.
            Verdict::Suspect if self.health.failures() > 0 => self.away = true,
            Verdict::Ready | Verdict::Draining if std::mem::take(&mut self.away) => self.ready_since = Some(now),
            Verdict::Ready | Verdict::Draining | Verdict::Suspect => {}
        }
    }

    /// Whether its last certificate could be verified.
    pub(crate) fn note_verified(&mut self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Unverified { .. }) {
            self.health.lose_proof();
        }
        match outcome {
            Outcome::Unverified { lack: Lack::Algorithm(name), .. } => self.unsupported = Some(name.clone()),
            Outcome::Unverified { .. } | Outcome::Status { .. } | Outcome::Untrusted(_) => self.unsupported = None,
            _ => {}
        }
    }

    /// How long ago it last proved itself, an earlier run's word included.
    pub(crate) fn proof_age(&self, now: Moment) -> Option<Duration> {
        match self.health.last_answer() {
            Some(answer) => Some(now.since(answer)),
            None => self.cached.map(|age| age.saturating_add(now.since(Moment::START))),
        }
    }

    /// Why it has to go by now, if it has to.
    pub(crate) fn leaves(&self, now: Moment) -> Option<&'static str> {
        if self.dismissed {
            return Some("the configuration no longer names it");
        }
        // What it carries may have to be reset, and is only watched while it is known.
        if self.moved && !self.health.answering() && self.connections == 0 {
            return Some("its node now names other addresses");
        }
        if !self.configured.is_empty() || !self.members.is_empty() {
            return None;
        }
        if self.removed {
            return Some("its node was removed from the cluster");
        }
        let unanswered = self.health.failing_since().map_or(Duration::ZERO, |since| now.since(since));
        match self.cached {
            None if unanswered >= MEMBER_GONE => Some("no record names it and it does not answer"),
            Some(_) if self.proof_age(now).is_some_and(|age| age >= CACHED_GONE) => Some("cached, and not proven for 7 days"),
            _ => None,
        }
    }

    pub(crate) fn candidate(&self, now: Moment, load: u32) -> Candidate {
        // Where a distance is still guessed nobody has a place to keep.
        let ranked = self.ranked.filter(|(verdict, _)| *verdict == self.health.verdict() && self.latency.settled());
        Candidate {
            endpoint: self.endpoint,
            verdict: self.health.verdict(),
            trouble: self.health.trouble(),
            sources: self.sources(),
            rtt: self.latency.estimate(),
            load,
            ready_for: self.ready_since.map(|since| now.since(since)),
            ranked: ranked.is_some(),
            was_near: ranked.is_some_and(|(_, near)| near),
        }
    }

    /// The evidence, a sentence each.
    pub(crate) fn explain(&self, now: Moment) -> Vec<String> {
        let ago = |then: Moment| format!("{:.1} s ago", now.since(then).as_secs_f64());
        let mut reasons = vec![format!("{}: {}", self.health.verdict().as_str(), self.health.reason())];
        reasons.extend(self.reach.explain());
        if let Some(answer) = self.health.last_answer() {
            reasons.push(format!("last own probe answered {}", ago(answer)));
        }
        if let Some(since) = self.health.failing_since() {
            reasons.push(format!("{} failures in a row since {}", self.health.failures(), ago(since)));
        }
        if let Some(name) = &self.unsupported {
            reasons.push(Lack::Algorithm(name.clone()).explain());
        }
        if let Some(why) = self.health.disproven() {
            reasons.push(format!("never carries: {why}"));
        } else if !self.carries() && self.departing.is_none() {
            reasons.push("carries nothing before it has proven itself".into());
        }
        if let Some(since) = self.ready_since
            && now.since(since) < super::policy::RAMP
        {
            reasons.push(format!("joined {}: its share still grows", ago(since)));
        }
        if let (Some(why), Some(_)) = (self.leaves(now), self.departing) {
            reasons.push(format!("gets no new connections, and leaves when it has none left: {why}"));
        } else if let Some(why) = self.leaves(now) {
            reasons.push(format!("kept only as the last proven one: {why}"));
        } else if self.moved {
            reasons.push("kept while it answers: its node now names other addresses".into());
        }
        reasons.push(self.latency.explain());
        if let Some(sent) = self.schedule.last_sent() {
            reasons.push(format!("last probe sent {}", ago(sent)));
        }
        if self.schedule.idle() {
            reasons.push(format!("next probe in {}", ms(self.schedule.due().since(now))));
        }
        reasons
    }
}
