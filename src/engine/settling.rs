//! What follows from the state after each event: who leaves, who is probed, what is routed, cut, released and said.

use std::time::Duration;

use super::endpoint::Endpoint;
use super::event::{Effect, Notice, ProbeOrder, ResetReason, Verdict};
use super::known::Known;
use super::policy::{HOLD, RAMP, RAMP_STEP, RESET_SPREAD};
use super::probing::{self, UnderWay};
use super::selection::{Distance, rank};
use super::time::Moment;
use super::{Engine, hash};

impl Engine {
    pub(super) fn settle(&mut self, effects: &mut Vec<Effect>) {
        self.expel(effects);
        self.let_go(effects);
        self.probe_who_is_due(effects);
        self.tell_verdicts(effects);
        self.tell_unsupported(effects);
        self.reset_the_hung(effects);
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
            let something_answers = self.endpoints.values().any(|known| known.health.answering());
            let Some(known) = self.endpoints.get_mut(&endpoint) else { continue };
            let pace = known.pace(self.cluster.size());
            self.probes += 1;
            let keep = probing::keeps(pace.interval()) && !known.may_be_a_balancer();
            let steady = known.health.verdict() == Verdict::Ready;
            let fresh = known.schedule.fresh() || !keep || !steady;
            let limits = probing::limits(known, something_answers);
            let seed = hash(&[self.identity.seed, u64::from(known.tag.0)]);
            known.schedule.sent(self.now, UnderWay { id: self.probes, limits }, pace, seed);
            effects.push(Effect::Probe(ProbeOrder {
                id: self.probes,
                endpoint,
                server_name: known.server_name(),
                fresh,
                keep,
                limits,
            }));
        }
    }

    /// Tells every change of a verdict once, with its reason.
    fn tell_verdicts(&mut self, effects: &mut Vec<Effect>) {
        for known in self.endpoints.values_mut() {
            known.health.expire_doubt(self.now);
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
        }
    }

    /// A process with connections hangs: is it that, or this node? The witness that answered last is asked at once.
    pub(super) fn call_witness(&mut self, failing: Endpoint) {
        let balancer = self.may_be_a_balancer(failing);
        let others = self.endpoints.values_mut().filter(|known| known.witnesses(failing, balancer) && known.health.answering());
        if let Some(witness) = others.max_by_key(|known| known.health.last_answer()).filter(|known| known.schedule.idle()) {
            witness.schedule.no_later_than(self.now);
        }
    }

    pub(super) fn may_be_a_balancer(&self, endpoint: Endpoint) -> bool {
        self.endpoints.get(&endpoint).is_some_and(Known::may_be_a_balancer)
    }

    pub(super) fn last_answer_elsewhere(&self, endpoint: Endpoint) -> Option<Moment> {
        let balancer = self.may_be_a_balancer(endpoint);
        let others = self.endpoints.values().filter(|known| known.witnesses(endpoint, balancer));
        others.filter_map(|known| known.health.last_answer()).max()
    }

    /// Whether an apiserver hangs or is silent. A balancer may have chosen that one for each of its probes, so they do not show that it hangs
    /// itself: its connections to the others are as good as ever. What never was an apiserver here explains nothing.
    pub(super) fn an_apiserver_explains_a_hang_of(&self, balancer: Endpoint) -> bool {
        let apiserver = |known: &&Known| known.is_one_apiserver() && (!known.is_hearsay() || known.health.once_proven());
        let mut others = self.endpoints.values().filter(|known| known.endpoint != balancer).filter(apiserver);
        others.any(|known| known.health.may_still_be_chosen(self.now))
    }

    /// Resets what is silent on connections to a process that hangs, while another apiserver answers: if none does, this node is
    /// the suspect.
    fn reset_the_hung(&mut self, effects: &mut Vec<Effect>) {
        let hung: Vec<Endpoint> =
            self.endpoints.values().filter(|known| known.resets_at().is_some()).map(|it| it.endpoint).collect();
        for endpoint in hung {
            let elsewhere = self.last_answer_elsewhere(endpoint);
            let Some(known) = self.endpoints.get_mut(&endpoint) else { continue };
            if elsewhere <= known.health.hung_since() {
                continue;
            }
            let balancer = known.may_be_a_balancer();
            let silent_since = known.health.order_reset(self.now, balancer);
            if silent_since.is_some() {
                effects.push(Effect::Reset { endpoint, reason: ResetReason::Hung, silent_since, over: RESET_SPREAD });
            }
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
