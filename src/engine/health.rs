//! Evidence to verdict, for one endpoint.
//!
//! Two layers. The *state* is what own probes say, and only it knows `down`: two failures in a row, the second on a fresh
//! connection sent [`CONFIRM_AFTER`] after the first was. Over it lie *doubts* (what traffic, peers and the endpoint's own
//! node say): they can lower an answering endpoint to `suspect` or `draining`. A doubt is lifted only by evidence of its own kind
//! that is newer ([`Doubt::refuted_by`]). So nothing but this node's own probes can make an endpoint `down`, and a lie costs one probe.
//!
//! `down` says that new clients had better go elsewhere. It says nothing about established connections: those are reset only where
//! the process behind the endpoint is *hung* ([`Hang`]), which is one way of being `down` among several.

use std::collections::VecDeque;
use std::time::Duration;

use super::doubt::{Doubt, Evidence, at_least, weight};
use super::endpoint::NodeId;
use super::event::{ApiserverState, Verdict};
use super::finding::{Answer, Failure, Readiness};
use super::policy::{
    BALANCER_NOTICES, CONFIRM_AFTER, FLAP_WINDOW, HUNG_RESET_AFTER, MIN_HUNG_PROBES, MIN_HUNG_PROBES_OF_A_BALANCER, RECOVERY_GAP,
    RECOVERY_GAP_MOST, TRAFFIC_DOUBT,
};
use super::selection::Trouble;
use super::time::Moment;

/// What own probes say.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Nothing yet, or nothing that still counts.
    Unknown,
    Answering(Answer),
    /// It answers, and could not be verified: these probes in a row.
    Unverifiable(FailureRun),
    /// One failure or several, not confirmed yet.
    Failing {
        before: Option<Answer>,
        run: FailureRun,
    },
    Down {
        run: FailureRun,
        first_success: Option<Moment>,
    },
}

/// Failed probes in a row.
#[derive(Clone, Debug, PartialEq)]
struct FailureRun {
    /// When the first of them was sent.
    first_sent: Moment,
    /// When its failure was known.
    noticed: Moment,
    count: u32,
    last: Failure,
    /// All of the latest ones found a process that hangs.
    hang: Option<Hang>,
}

/// A process that accepts connections and does not answer.
#[derive(Clone, Debug, Default, PartialEq)]
struct Hang {
    /// Probes in a row that found it so.
    probes: u32,
    /// When those of them were sent for which no reset was ordered yet; of those that are old enough the last.
    unreset: VecDeque<Moment>,
}

impl FailureRun {
    fn add(&mut self, now: Moment, sent: Moment, failure: Failure) {
        self.count = self.count.saturating_add(1);
        self.hang = failure.hung.then(|| {
            let mut hang = self.hang.take().unwrap_or_default();
            hang.add(now, sent);
            hang
        });
        self.last = failure;
    }

    fn begin(now: Moment, sent: Moment, failure: Failure) -> FailureRun {
        let mut run = FailureRun { first_sent: sent, noticed: now, count: 0, last: failure.clone(), hang: None };
        run.add(now, sent, failure);
        run
    }
}

impl Hang {
    fn add(&mut self, now: Moment, sent: Moment) {
        self.probes = self.probes.saturating_add(1);
        self.unreset.push_back(sent);
        while self.unreset.get(1).is_some_and(|next| *next + HUNG_RESET_AFTER <= now) {
            self.unreset.pop_front();
        }
    }
}

/// Whether it is an apiserver of ours.
#[derive(Clone, Debug, PartialEq)]
enum Proof {
    /// It has not shown it, or it was taken back. `ever`: it had shown it once, so that it is worth asking again.
    Unproven {
        ever: bool,
        withdrawn: Option<Moment>,
    },
    Proven,
    /// It has shown the contrary.
    Disproven {
        ever: bool,
        why: String,
    },
}

/// What the endpoint's own node says against it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Word {
    by: NodeId,
    state: ApiserverState,
    arrived: Moment,
    /// It says so no longer: then the next own answer lifts it, even one that tells nothing of readiness.
    retracted: bool,
}

/// What is held of one endpoint's health.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Health {
    state: State,
    proof: Proof,
    doubt: Option<Doubt>,
    /// Its own node says that it is draining or down, or said so.
    word: Option<Word>,
    /// When it was taken to be `down`, within the flap window.
    downs: Vec<Moment>,
    last_answer: Option<Moment>,
    reason: String,
}

/// A probe that has ended, as far as its answer's weight depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Moment,
    /// Bytes of its ClientHello; 0 on a kept connection.
    pub(crate) hello_bytes: u32,
    /// Its handshake took longer than a client waits for its first byte.
    pub(crate) slow: bool,
}

impl Health {
    /// An endpoint of which nothing is known.
    pub(crate) fn new() -> Health {
        Health {
            state: State::Unknown,
            proof: Proof::Unproven { ever: false, withdrawn: None },
            doubt: None,
            word: None,
            downs: Vec::new(),
            last_answer: None,
            reason: "not probed yet".into(),
        }
    }

    /// The verdict.
    pub(crate) fn verdict(&self) -> Verdict {
        match &self.state {
            State::Unknown | State::Unverifiable(_) | State::Failing { before: None, .. } => Verdict::Unproven,
            State::Down { .. } => Verdict::Down,
            State::Failing { before: Some(_), .. } => Verdict::Suspect,
            State::Answering(answer) => match self.word.map(|word| word.state) {
                _ if self.doubt.is_some() => Verdict::Suspect,
                _ if answer.unverified => Verdict::Unproven,
                Some(ApiserverState::Down) => Verdict::Suspect,
                Some(ApiserverState::Draining) => Verdict::Draining,
                _ if answer.draining() || answer.expired => Verdict::Draining,
                _ => Verdict::Ready,
            },
        }
    }

    /// Whether it has shown to be an apiserver of ours, and nothing to the contrary since.
    pub(crate) fn proven(&self) -> bool {
        self.proof == Proof::Proven
    }

    /// Whether it ever has: then it is worth asking again, whatever stands there now.
    pub(crate) fn once_proven(&self) -> bool {
        match self.proof {
            Proof::Proven => true,
            Proof::Unproven { ever, .. } | Proof::Disproven { ever, .. } => ever,
        }
    }

    /// The last own probe was answered, and it is not `down`.
    pub(crate) fn answering(&self) -> bool {
        matches!(self.state, State::Answering(_))
    }

    /// Why it is known not to be an apiserver of ours.
    pub(crate) fn disproven(&self) -> Option<&str> {
        match &self.proof {
            Proof::Disproven { why, .. } => Some(why),
            Proof::Proven | Proof::Unproven { .. } => None,
        }
    }

    /// When an own probe was last answered.
    pub(crate) fn last_answer(&self) -> Option<Moment> {
        self.last_answer
    }

    fn run(&self) -> Option<&FailureRun> {
        match &self.state {
            State::Failing { run, .. } | State::Down { run, .. } | State::Unverifiable(run) => Some(run),
            State::Unknown | State::Answering(_) => None,
        }
    }

    /// When the first failed probe of the present run of failures was sent.
    pub(crate) fn failing_since(&self) -> Option<Moment> {
        self.run().map(|run| run.first_sent)
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.run().map_or(0, |run| run.count)
    }

    /// How it fails clients that try it: what its last probe met, or the worst that traffic has since. An endpoint that answers
    /// again, to be confirmed, is the first to be tried.
    pub(crate) fn trouble(&self) -> Trouble {
        match &self.state {
            State::Failing { run, .. } | State::Down { run, first_success: None } => run.last.trouble,
            State::Down { .. } | State::Unverifiable(_) | State::Unknown => Trouble::Answers,
            State::Answering(_) => self.doubt.as_ref().map_or(Trouble::Answers, |doubt| doubt.trouble),
        }
    }

    /// The certificate it showed last is outside its validity.
    pub(crate) fn expired(&self) -> bool {
        matches!(self.state, State::Answering(Answer { expired: true, .. }))
    }

    /// The evidence behind the verdict, in words.
    pub(crate) fn reason(&self) -> String {
        match (&self.state, &self.doubt, self.word.map(|word| word.state)) {
            (State::Answering(_), Some(doubt), _) => doubt.reason.clone(),
            (State::Answering(_), None, Some(ApiserverState::Down)) => "its own node says that it is down".into(),
            (State::Answering(_), None, Some(ApiserverState::Draining)) => "its own node says that it is draining".into(),
            _ => self.reason.clone(),
        }
    }

    /// What this node, running that apiserver, says of it to the others; [`None`] while there is nothing new to say.
    pub(crate) fn own_word(&self) -> Option<ApiserverState> {
        match &self.state {
            State::Answering(answer) if answer.draining() => Some(ApiserverState::Draining),
            State::Answering(_) => Some(ApiserverState::Ready),
            State::Down { .. } => Some(ApiserverState::Down),
            State::Unknown | State::Unverifiable(_) | State::Failing { .. } => None,
        }
    }

    /// An own probe was answered. `one_is_enough`: clients are held.
    pub(crate) fn answered(&mut self, now: Moment, probe: Sent, answer: Answer, one_is_enough: bool) {
        if matches!(self.proof, Proof::Unproven { withdrawn: Some(then), .. } if probe.at < then) {
            return;
        }
        if answer.unverified {
            self.lose_proof();
        } else {
            self.proof = Proof::Proven;
        }
        self.doubt.take_if(|doubt| doubt.refuted_by(probe));
        self.last_answer = Some(now);
        let gap = self.recovery_gap();
        if let State::Down { first_success, run } = &mut self.state
            && !one_is_enough
            && probe.at < *first_success.get_or_insert(now) + gap
        {
            // Only hangs in a row are a hang.
            run.hang = None;
            self.reason = "answers again, to be confirmed".into();
            return;
        }
        self.state = State::Answering(answer);
        let says_ready = matches!(answer.readiness, Readiness::Ready);
        self.word.take_if(|word| word.arrived <= probe.at && !answer.draining() && (word.retracted || says_ready));
        self.reason = answer.reason().into();
    }

    /// An own probe failed.
    pub(crate) fn failed(&mut self, now: Moment, sent: Moment, fresh: bool, failure: Failure) {
        self.reason.clone_from(&failure.why);
        self.state = match std::mem::replace(&mut self.state, State::Unknown) {
            State::Unknown | State::Unverifiable(_) => {
                State::Failing { before: None, run: FailureRun::begin(now, sent, failure) }
            }
            State::Answering(answer) => State::Failing { before: Some(answer), run: FailureRun::begin(now, sent, failure) },
            State::Failing { before, mut run } => {
                let confirms = fresh && sent >= run.first_sent + CONFIRM_AFTER;
                run.add(now, sent, failure);
                if confirms { self.fall(now, run) } else { State::Failing { before, run } }
            }
            State::Down { mut run, .. } => {
                run.add(now, sent, failure);
                State::Down { run, first_success: None }
            }
        };
    }

    /// What it shows now cannot be verified, whatever it showed before.
    pub(crate) fn lose_proof(&mut self) {
        self.proof = Proof::Unproven { ever: self.once_proven(), withdrawn: None };
    }

    /// It answered, and only gossip or the cache names it, and it could not be verified. It is as good as never verified, and is
    /// probed ever less often.
    pub(crate) fn unverifiable(&mut self, now: Moment, sent: Moment, why: String) {
        self.lose_proof();
        self.doubt = None;
        let failure = Failure { why: why.clone(), trouble: Trouble::Refuses, hung: false };
        self.reason = why;
        self.state = match std::mem::replace(&mut self.state, State::Unknown) {
            State::Unknown | State::Answering(_) => State::Unverifiable(FailureRun::begin(now, sent, failure)),
            State::Failing { mut run, .. } | State::Down { mut run, .. } | State::Unverifiable(mut run) => {
                run.add(now, sent, failure);
                State::Unverifiable(run)
            }
        };
    }

    /// An own probe showed that this is no apiserver of ours.
    pub(crate) fn disprove(&mut self, now: Moment, sent: Moment, why: String) {
        let failure = Failure { why: why.clone(), trouble: Trouble::Refuses, hung: false };
        self.proof = Proof::Disproven { ever: self.once_proven(), why: why.clone() };
        self.reason = why;
        self.state = match std::mem::replace(&mut self.state, State::Unknown) {
            State::Unknown | State::Unverifiable(_) | State::Answering(_) => {
                self.fall(now, FailureRun::begin(now, sent, failure))
            }
            State::Failing { mut run, .. } => {
                run.add(now, sent, failure);
                self.fall(now, run)
            }
            State::Down { mut run, .. } => {
                run.add(now, sent, failure);
                State::Down { run, first_success: None }
            }
        };
    }

    fn fall(&mut self, now: Moment, run: FailureRun) -> State {
        self.downs.retain(|then| now.since(*then) < FLAP_WINDOW);
        self.downs.push(now);
        State::Down { run, first_success: None }
    }

    /// Traffic or peers speak against it. Only an answering endpoint is lowered by that. The first doubt counts: an answer
    /// to a probe sent after it lifts it, however many more came in between. A doubt that is harder to refute takes its place.
    pub(crate) fn doubt(&mut self, now: Moment, reason: &str, trouble: Trouble, evidence: Evidence) {
        if !self.answering() {
            return;
        }
        match &mut self.doubt {
            None => self.doubt = Some(Doubt { arrived: now, reason: reason.into(), evidence, trouble }),
            Some(doubt) => {
                doubt.trouble = doubt.trouble.max(trouble);
                if weight(evidence) > weight(doubt.evidence) {
                    *doubt = Doubt { arrived: now, reason: reason.into(), evidence, trouble: doubt.trouble };
                }
            }
        }
    }

    /// A client's hello of so many bytes was answered now.
    pub(crate) fn hello_answered(&mut self, hello_bytes: u32) -> bool {
        let refuted = |doubt: &mut Doubt| matches!(doubt.evidence, Evidence::Hello(bytes) if at_least(hello_bytes, bytes));
        self.doubt.take_if(refuted).is_some()
    }

    /// When a doubt ends that no probe can refute, because no probe's hello is as large: it is time to try a client's again.
    pub(crate) fn doubt_ends(&self) -> Option<Moment> {
        self.doubt
            .as_ref()
            .filter(|doubt| matches!(doubt.evidence, Evidence::Hello(_)))
            .map(|doubt| doubt.arrived + TRAFFIC_DOUBT)
    }

    pub(crate) fn expire_doubt(&mut self, now: Moment) {
        if self.doubt_ends().is_some_and(|ends| ends <= now) {
            self.doubt = None;
        }
    }

    /// Traffic found something there that is no apiserver: it is as if it had never been proven, until an own probe that is
    /// sent from now on is answered. It takes nothing from what own probes held against it, and adds nothing.
    pub(crate) fn withdraw(&mut self, now: Moment, reason: &str) {
        self.proof = Proof::Unproven { ever: self.once_proven(), withdrawn: Some(now) };
        match &mut self.state {
            State::Answering(_) => {
                self.state = State::Unknown;
                self.reason = reason.into();
            }
            State::Failing { before, .. } => *before = None,
            State::Unknown | State::Unverifiable(_) | State::Down { .. } => {}
        }
        self.doubt = None;
    }

    /// Its own node says so, and did not before.
    pub(crate) fn told(&mut self, now: Moment, by: NodeId, state: ApiserverState) {
        match state {
            ApiserverState::Ready => self.unsaid(by),
            ApiserverState::Draining | ApiserverState::Down => {
                self.word = Some(Word { by, state, arrived: now, retracted: false });
            }
        }
    }

    /// Its own node takes back what it said, or is no longer its node, or is gone.
    pub(crate) fn unsaid(&mut self, by: NodeId) {
        if let Some(word) = self.word.as_mut().filter(|word| word.by == by) {
            word.retracted = true;
        }
    }

    /// When the confirming probe of a first failure is due.
    pub(crate) fn confirm_at(&self) -> Option<Moment> {
        match &self.state {
            State::Failing { run, .. } => Some(run.first_sent + CONFIRM_AFTER),
            _ => None,
        }
    }

    /// When the next of the probes is due that a hang of a balancer takes.
    pub(crate) fn hang_confirm_at(&self, may_be_a_balancer: bool) -> Option<Moment> {
        let State::Down { run, first_success: None } = &self.state else { return None };
        let hang = run.hang.as_ref().filter(|hang| may_be_a_balancer && hang.probes < MIN_HUNG_PROBES_OF_A_BALANCER)?;
        hang.unreset.back().map(|sent| *sent + CONFIRM_AFTER)
    }

    /// When the second success that ends `down` is due.
    pub(crate) fn recover_at(&self) -> Option<Moment> {
        match self.state {
            State::Down { first_success: Some(first), .. } => Some(first + self.recovery_gap()),
            _ => None,
        }
    }

    /// Its last probe found a process that hangs; since when this node knows that it fails.
    pub(crate) fn hung_since(&self) -> Option<Moment> {
        self.run().filter(|run| run.hang.is_some()).map(|run| run.noticed)
    }

    /// Its last probe got no answer, or none to its hello, and a balancer may still choose it: an address that answers no dial is noticed
    /// in a while, and a process that hangs behind one that does perhaps never.
    pub(crate) fn may_still_be_chosen(&self, now: Moment) -> bool {
        let lately = |run: &FailureRun| now.since(run.first_sent) < BALANCER_NOTICES;
        self.run().is_some_and(|run| run.last.trouble == Trouble::Silent && (run.hang.is_some() || lately(run)))
    }

    /// From when on connections to a hung process may be reset, if at all. A reset is ordered once for each failed probe, some time
    /// after it was sent: a connection that was not silent at the first may be at a later one.
    pub(crate) fn reset_from(&self, may_be_a_balancer: bool) -> Option<Moment> {
        let State::Down { run, first_success: None } = &self.state else { return None };
        let least = if may_be_a_balancer { MIN_HUNG_PROBES_OF_A_BALANCER } else { MIN_HUNG_PROBES };
        let hang = run.hang.as_ref().filter(|hang| hang.probes >= least)?;
        hang.unreset.front().map(|sent| *sent + HUNG_RESET_AFTER)
    }

    /// If a reset is due: since when the connections that it is meant for have been silent.
    pub(crate) fn order_reset(&mut self, now: Moment, may_be_a_balancer: bool) -> Option<Moment> {
        let mut silent_since = None;
        while self.reset_from(may_be_a_balancer).is_some_and(|from| from <= now) {
            let State::Down { run: FailureRun { hang: Some(hang), .. }, .. } = &mut self.state else { break };
            silent_since = hang.unreset.pop_front();
        }
        silent_since
    }

    fn recovery_gap(&self) -> Duration {
        let returns = u32::try_from(self.downs.len().saturating_sub(1)).unwrap_or(u32::MAX);
        RECOVERY_GAP.saturating_mul(2_u32.saturating_pow(returns)).min(RECOVERY_GAP_MOST)
    }
}
