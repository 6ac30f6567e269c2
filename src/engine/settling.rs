//! What follows from the state after each event: who leaves, who is probed, what is routed, cut, released and said.

use std::time::Duration;

use super::endpoint::Endpoint;
use super::event::{Effect, Notice, ProbeOrder, Verdict};
use super::policy::{CUT_SPREAD, HOLD, PROBE_TIMEOUT, RAMP, RAMP_STEP, UNANSWERED};
use super::probing::{self, UnderWay};
use super::selection::{Distance, Trouble, rank};
use super::time::Moment;
use super::{Engine, hash};

impl Engine {
    pub(super) fn settle(&mut self, effects: &mut Vec<Effect>) {
        self.let_go(effects);
        self.probe_who_is_due(effects);
        self.tell_verdicts(effects);
        self.route(effects);
        self.release(effects);
        self.publish(effects);
        self.remember(effects);
    }

    /// The longest between two probes of anyone, back-off or not, while there are clients that nobody answers. Those that wait
    /// at an upstream are not known by number, so for them it is the ordinary interval, which costs nothing beyond the budget.
    fn most_apart(&self) -> Option<Duration> {
        if self.held > 0 {
            return Some(probing::held_interval(self.cluster.size()));
        }
        let waits = !self.routing.answers() && self.stranded.is_some_and(|then| self.now.since(then) < HOLD);
        waits.then(|| self.probe_interval())
    }

    fn probe_who_is_due(&mut self, effects: &mut Vec<Effect>) {
        let most_apart = self.most_apart();
        let due: Vec<Endpoint> = self
            .endpoints
            .values_mut()
            .filter_map(|known| {
                if let (Some(apart), Some(sent)) = (most_apart, known.schedule.last_sent()) {
                    known.schedule.no_later_than(sent + apart);
                }
                (known.schedule.due() <= self.now).then_some(known.endpoint)
            })
            .collect();
        for endpoint in due {
            let answered_elsewhere = self.last_answer_elsewhere(endpoint);
            let pace = self.endpoints[&endpoint].pace(self.cluster.size());
            let Some(known) = self.endpoints.get_mut(&endpoint) else { continue };
            self.probes += 1;
            let keep = probing::keeps(pace.interval()) && !known.may_be_a_balancer();
            let steady = known.health.verdict() == Verdict::Ready;
            let fresh = known.schedule.fresh() || !keep || !steady;
            let noticed = known.health.failure_noticed();
            let corroborated = noticed.is_some() && answered_elsewhere > noticed;
            let seed = hash(&[self.identity.seed, u64::from(known.tag.0)]);
            known.schedule.sent(self.now, UnderWay { id: self.probes, corroborated }, pace, seed);
            effects.push(Effect::Probe(ProbeOrder {
                id: self.probes,
                endpoint,
                server_name: known.server_name(),
                fresh,
                keep,
                timeout: PROBE_TIMEOUT,
            }));
        }
    }

    /// Tells every change of a verdict once, with its reason, and cuts what has become silent.
    fn tell_verdicts(&mut self, effects: &mut Vec<Effect>) {
        let mut silent = None;
        for known in self.endpoints.values_mut() {
            let (from, to) = (known.told, known.health.verdict());
            if from != to {
                known.holds(self.now, to);
                self.rerank = true;
                let reason = known.health.reason();
                effects.push(Effect::Notice(Notice::Verdict { endpoint: known.endpoint, from, to, reason }));
            }
            if known.health.expired() && !known.told_expired {
                effects.push(Effect::Notice(Notice::Expired(known.endpoint)));
            }
            if known.health.answering() {
                known.told_expired = known.health.expired();
            }
            if let Some(silent_since) = known.health.order_cut(self.now) {
                let unanswered = Duration::ZERO;
                effects.push(Effect::Cut { endpoint: known.endpoint, silent_since, unanswered, over: CUT_SPREAD });
                silent = silent.max(Some(silent_since).filter(|_| known.health.trouble() == Trouble::Silent));
            }
        }
        // One that is silent may stand behind a balancer as well.
        let Some(silent_since) = silent else { return };
        let balancers = self.endpoints.values().filter(|known| known.may_be_a_balancer() && known.health.answering());
        for known in balancers.filter(|known| known.connections > 0) {
            effects.push(Effect::Cut { endpoint: known.endpoint, silent_since, unanswered: UNANSWERED, over: CUT_SPREAD });
        }
    }

    /// The routing is published when a proxy would act by it differently, and at each step of a ramp.
    fn route(&mut self, effects: &mut Vec<Effect>) {
        if !self.rerank && self.ramp_step_due().is_none_or(|due| due > self.now) {
            return;
        }
        self.rerank = false;
        self.ranked_at = self.now;
        let (routing, scores) = rank(&self.candidates());
        for known in self.endpoints.values_mut() {
            let place = routing.upstreams.iter().position(|upstream| upstream.endpoint == known.endpoint);
            let measured = place.map(|place| scores[place]).filter(|score| score.distance != Distance::Unmeasured);
            known.ranked = measured.map(|score| (score.verdict, score.distance == Distance::Near));
        }
        if !routing.differs_from(&self.routing) {
            return;
        }
        let best = |routing: &super::Routing| {
            let group: Vec<Endpoint> = routing.upstreams.iter().filter(|one| one.group == 0).map(|one| one.endpoint).collect();
            group
        };
        if best(&routing) != best(&self.routing) {
            let reason = scores.first().map_or("nothing may carry".into(), |score| score.explain());
            effects.push(Effect::Notice(Notice::Best { endpoints: best(&routing), reason }));
        }
        self.routing = routing.clone();
        effects.push(Effect::Route(routing));
    }

    /// When the shares of those that joined lately grow next.
    pub(super) fn ramp_step_due(&self) -> Option<Moment> {
        let grows = |since: Moment| self.ranked_at.since(since) < RAMP;
        self.endpoints.values().any(|known| known.ready_since.is_some_and(grows)).then(|| self.ranked_at + RAMP_STEP)
    }

    /// Every answer while clients are held lets them dial again.
    fn release(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.answered) && self.held > 0 {
            effects.push(Effect::Release);
        }
    }
}
