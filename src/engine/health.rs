//! Evidence to verdict, for one endpoint.
//!
//! Two layers. The *base* is what own probes say, and only it knows `down`: two failures in a row, the second on a fresh
//! connection sent [`CONFIRM_AFTER`] after the first was. Over it lie *doubts* (what traffic, peers and the endpoint's own
//! node say): they can lower an answering endpoint to `suspect` or `draining`, and an own answer to a probe sent after
//! they arrived lifts them. So nothing but this node's own probes can make an endpoint `down`, and a lie costs one probe.

use std::collections::VecDeque;
use std::time::Duration;

use super::endpoint::NodeId;
use super::event::{ApiserverState, Outcome, Verdict};
use super::policy::{CONFIRM_AFTER, CUT_AFTER, FLAP_WINDOW, RECOVERY_GAP, RECOVERY_GAP_MOST};
use super::selection::Trouble;
use super::time::Moment;

/// The answer of an endpoint that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Asks for less.
    pub(crate) draining: bool,
    /// 401 or 403: it serves, but does not tell us whether it is ready.
    pub(crate) readiness_unknown: bool,
    /// Its certificate is outside its validity.
    pub(crate) expired: bool,
}

/// What a probe's outcome says, once it is clear what may answer there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// An apiserver of ours answered.
    Answers(Answer),
    /// It failed to answer.
    Fails(String, Trouble),
    /// Not an apiserver of ours.
    Disproves(String),
    /// Says nothing about the endpoint.
    Nothing,
}

impl Finding {
    /// Reads an outcome as the table of answers says. What does not speak TLS is disproven only where just gossip or the
    /// cache named it (`hearsay`); what a person configured may be a balancer having a bad day. A connection that ends
    /// before its answer says nothing if it was kept; one that was made for the probe (`fresh`) has failed.
    pub(crate) fn of(outcome: &Outcome, hearsay: bool, fresh: bool) -> Finding {
        let fails = |why: &str| Finding::Fails(why.into(), Trouble::Refuses);
        match outcome {
            Outcome::Status { code, expired } => match code {
                200 | 401 | 403 => {
                    Finding::Answers(Answer { draining: false, readiness_unknown: *code != 200, expired: *expired })
                }
                429 | 500 | 503 => Finding::Answers(Answer { draining: true, readiness_unknown: false, expired: *expired }),
                _ => fails(&format!("answered {code} to /readyz")),
            },
            Outcome::NotHttp => fails("what it answered is not HTTP"),
            Outcome::Refused => fails("refused or closed"),
            Outcome::TimedOut => Finding::Fails("no answer in time".into(), Trouble::Silent),
            Outcome::NotTls if hearsay => Finding::Disproves("it does not speak TLS".into()),
            Outcome::NotTls => fails("it does not speak TLS"),
            Outcome::Untrusted(why) => Finding::Disproves(format!("its certificate is not of this cluster's CA: {why}")),
            Outcome::WrongName(why) => Finding::Disproves(format!("its certificate does not cover the name: {why}")),
            Outcome::Stale if fresh => fails("closed before its answer"),
            // Whether it counts, the engine decides by how the others do.
            Outcome::Unreachable(why) => Finding::Fails(super::reach::unreachable(why), Trouble::Refuses),
            Outcome::Stale | Outcome::LocalError(_) => Finding::Nothing,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Base {
    Unproven,
    Answering(Answer),
    /// One failure, not confirmed yet.
    Failing {
        before: Option<Answer>,
    },
    Down {
        first_success: Option<Moment>,
    },
}

#[derive(Clone, Debug, PartialEq)]
struct Doubt {
    arrived: Moment,
    reason: String,
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
    base: Base,
    proven: bool,
    /// It has been at some time.
    once_proven: bool,
    disproven: Option<String>,
    /// Traffic took back the proof then, and no own probe sent later has given it again.
    withdrawn: Option<Moment>,
    /// When the first failed probe of the present run of failures was sent.
    first_failed: Option<Moment>,
    /// When that failure was known.
    noticed: Option<Moment>,
    /// A probe of the present run, sent after another apiserver had answered, has failed.
    corroborated: bool,
    /// Traffic or peers speak against it.
    suspicion: Option<Doubt>,
    /// Its own node says that it is draining or down, or said so.
    word: Option<Word>,
    /// When it was taken to be `down`, within the flap window.
    downs: Vec<Moment>,
    last_answer: Option<Moment>,
    failures: u32,
    /// How it fails whoever tries it, as far as is known.
    trouble: Trouble,
    /// When the failed probes of the present run were sent for which no cut was ordered yet; of those that are old enough the last.
    uncut: VecDeque<Moment>,
    reason: String,
}

impl Health {
    /// An endpoint of which nothing is known.
    pub(crate) fn new() -> Health {
        Health {
            base: Base::Unproven,
            proven: false,
            once_proven: false,
            disproven: None,
            withdrawn: None,
            first_failed: None,
            noticed: None,
            corroborated: false,
            suspicion: None,
            word: None,
            downs: Vec::new(),
            last_answer: None,
            failures: 0,
            trouble: Trouble::Answers,
            uncut: VecDeque::new(),
            reason: "not probed yet".into(),
        }
    }

    /// The verdict.
    pub(crate) fn verdict(&self) -> Verdict {
        match &self.base {
            Base::Unproven | Base::Failing { before: None } => Verdict::Unproven,
            Base::Down { .. } => Verdict::Down,
            Base::Failing { before: Some(_) } => Verdict::Suspect,
            Base::Answering(answer) => match self.word.map(|word| word.state) {
                _ if self.suspicion.is_some() => Verdict::Suspect,
                Some(ApiserverState::Down) => Verdict::Suspect,
                Some(ApiserverState::Draining) => Verdict::Draining,
                _ if answer.draining || answer.expired => Verdict::Draining,
                _ => Verdict::Ready,
            },
        }
    }

    /// Whether it has shown to be an apiserver of ours, and nothing to the contrary since.
    pub(crate) fn proven(&self) -> bool {
        self.proven
    }

    /// Whether it ever has: then it is worth asking again, whatever stands there now.
    pub(crate) fn once_proven(&self) -> bool {
        self.once_proven
    }

    /// The last own probe was answered, and it is not `down`.
    pub(crate) fn answering(&self) -> bool {
        matches!(self.base, Base::Answering(_))
    }

    /// Why it is known not to be an apiserver of ours.
    pub(crate) fn disproven(&self) -> Option<&str> {
        self.disproven.as_deref()
    }

    /// When an own probe was last answered.
    pub(crate) fn last_answer(&self) -> Option<Moment> {
        self.last_answer
    }

    /// When the first failed probe of the present run of failures was sent.
    pub(crate) fn failing_since(&self) -> Option<Moment> {
        self.first_failed
    }

    /// When the first failure of the present run was known. Only what another apiserver answers after that tells this
    /// node's fault from the endpoint's: an answer that came while the failing probe was still on its way may be older
    /// than what made it fail.
    pub(crate) fn failure_noticed(&self) -> Option<Moment> {
        self.noticed
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// How it fails whoever tries it: what its last probe met, or the worst that traffic has since.
    pub(crate) fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// The certificate it showed last is outside its validity.
    pub(crate) fn expired(&self) -> bool {
        matches!(self.base, Base::Answering(Answer { expired: true, .. }))
    }

    /// The evidence behind the verdict, in words.
    pub(crate) fn reason(&self) -> String {
        match (&self.base, &self.suspicion, self.word.map(|word| word.state)) {
            (Base::Answering(_), Some(doubt), _) => doubt.reason.clone(),
            (Base::Answering(_), None, Some(ApiserverState::Down)) => "its own node says that it is down".into(),
            (Base::Answering(_), None, Some(ApiserverState::Draining)) => "its own node says that it is draining".into(),
            _ => self.reason.clone(),
        }
    }

    /// What this node, running that apiserver, says of it to the others; [`None`] while there is nothing new to say.
    pub(crate) fn own_word(&self) -> Option<ApiserverState> {
        match &self.base {
            Base::Answering(answer) if answer.draining => Some(ApiserverState::Draining),
            Base::Answering(_) => Some(ApiserverState::Ready),
            Base::Down { .. } => Some(ApiserverState::Down),
            Base::Unproven | Base::Failing { .. } => None,
        }
    }

    /// An own probe, sent at `sent`, was answered. `one_is_enough`: clients are held.
    pub(crate) fn answered(&mut self, now: Moment, sent: Moment, answer: Answer, one_is_enough: bool) {
        if self.withdrawn.is_some_and(|then| sent < then) {
            return;
        }
        self.withdrawn = None;
        self.suspicion.take_if(|doubt| doubt.arrived <= sent);
        if self.suspicion.is_none() {
            self.trouble = Trouble::Answers;
        }
        self.last_answer = Some(now);
        self.proven = true;
        self.once_proven = true;
        self.disproven = None;
        if let Base::Down { first_success } = &mut self.base
            && !one_is_enough
        {
            let first = *first_success.get_or_insert(now);
            if sent < first + self.recovery_gap() {
                self.reason = "answers again, to be confirmed".into();
                return;
            }
        }
        self.base = Base::Answering(answer);
        self.first_failed = None;
        self.noticed = None;
        self.corroborated = false;
        self.failures = 0;
        self.uncut.clear();
        self.word.take_if(|word| word.arrived <= sent && !answer.draining && (word.retracted || !answer.readiness_unknown));
        self.reason = match answer {
            Answer { expired: true, .. } => "answers with a certificate outside its validity",
            Answer { draining: true, .. } => "answers that it is not ready",
            Answer { readiness_unknown: true, .. } => "serves; readiness unknown: it does not answer /readyz to us",
            _ => "answers that it is ready",
        }
        .into();
    }

    /// An own probe failed. `corroborated`: it was sent after another apiserver had answered this node during this run of failures.
    pub(crate) fn failed(
        &mut self,
        now: Moment,
        sent: Moment,
        fresh: bool,
        corroborated: bool,
        (why, trouble): (String, Trouble),
    ) {
        let first = self.count_failure(now, sent, corroborated);
        self.reason = why;
        self.trouble = trouble;
        match &mut self.base {
            Base::Unproven => self.base = Base::Failing { before: None },
            Base::Answering(answer) => self.base = Base::Failing { before: Some(*answer) },
            Base::Failing { .. } if fresh && sent >= first + CONFIRM_AFTER => self.fall(now),
            Base::Failing { .. } => {}
            Base::Down { first_success } => *first_success = None,
        }
    }

    /// An own probe showed that this is no apiserver of ours.
    pub(crate) fn disprove(&mut self, now: Moment, sent: Moment, corroborated: bool, why: String) {
        self.count_failure(now, sent, corroborated);
        self.proven = false;
        self.disproven = Some(why.clone());
        self.reason = why;
        match &mut self.base {
            Base::Down { first_success } => *first_success = None,
            _ => self.fall(now),
        }
    }

    /// Returns when the first of the run was sent.
    fn count_failure(&mut self, now: Moment, sent: Moment, corroborated: bool) -> Moment {
        self.failures = self.failures.saturating_add(1);
        self.noticed.get_or_insert(now);
        self.corroborated |= corroborated;
        self.uncut.push_back(sent);
        while self.uncut.get(1).is_some_and(|next| *next + CUT_AFTER <= now) {
            self.uncut.pop_front();
        }
        *self.first_failed.get_or_insert(sent)
    }

    fn fall(&mut self, now: Moment) {
        self.base = Base::Down { first_success: None };
        self.downs.retain(|then| now.since(*then) < FLAP_WINDOW);
        self.downs.push(now);
    }

    /// Traffic or peers speak against it. Only an answering endpoint is lowered by that. The first doubt counts: an answer
    /// to a probe sent after it lifts it, however many more came in between.
    pub(crate) fn doubt(&mut self, now: Moment, reason: &str, trouble: Trouble) {
        if self.answering() {
            self.trouble = self.trouble.max(trouble);
            self.suspicion.get_or_insert_with(|| Doubt { arrived: now, reason: reason.into() });
        }
    }

    /// Traffic found something there that is no apiserver: it is as if it had never been proven, until an own probe that is
    /// sent from now on is answered. It takes nothing from what own probes held against it, and adds nothing.
    pub(crate) fn withdraw(&mut self, now: Moment, reason: &str) {
        self.proven = false;
        self.withdrawn = Some(now);
        match &mut self.base {
            Base::Answering(_) => {
                self.base = Base::Unproven;
                self.reason = reason.into();
            }
            Base::Failing { before } => *before = None,
            Base::Unproven | Base::Down { .. } => {}
        }
        self.suspicion = None;
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
        match self.base {
            Base::Failing { .. } => self.first_failed.map(|first| first + CONFIRM_AFTER),
            _ => None,
        }
    }

    /// When the second success that ends `down` is due.
    pub(crate) fn recover_at(&self) -> Option<Moment> {
        match self.base {
            Base::Down { first_success: Some(first) } => Some(first + self.recovery_gap()),
            _ => None,
        }
    }

    /// It fails, and no probe has failed yet that was sent after another apiserver had answered.
    pub(crate) fn wants_corroboration(&self) -> bool {
        matches!(self.base, Base::Failing { .. } | Base::Down { first_success: None }) && !self.corroborated
    }

    /// From when on silent connections may be cut, if at all. A cut is ordered once for each failed probe, some time after it
    /// was sent: a connection that was not silent at the first may be at a later one.
    pub(crate) fn cut_from(&self) -> Option<Moment> {
        let cuts = self.corroborated && matches!(self.base, Base::Down { first_success: None });
        self.uncut.front().filter(|_| cuts).map(|sent| *sent + CUT_AFTER)
    }

    /// If a cut is due: since when the connections that it is meant for have been silent.
    pub(crate) fn order_cut(&mut self, now: Moment) -> Option<Moment> {
        let mut silent_since = None;
        while self.cut_from().is_some_and(|from| from <= now) {
            silent_since = self.uncut.pop_front();
        }
        silent_since
    }

    fn recovery_gap(&self) -> Duration {
        let returns = u32::try_from(self.downs.len().saturating_sub(1)).unwrap_or(u32::MAX);
        RECOVERY_GAP.saturating_mul(2_u32.saturating_pow(returns)).min(RECOVERY_GAP_MOST)
    }
}
