//! One client's race, from its first byte to its upstream's.
//!
//! The race has two stages for each upstream. A *dial* is in the race until it connects, is refused or has had its time; the
//! first to connect ends that stage for all. A *trial* is a connected upstream that has been sent what the client said; the
//! first to answer with a TLS handshake record wins. Connecting alone wins nothing, since the kernel of a hung apiserver
//! connects as well as any.
//!
//! Moving on to one more upstream costs nothing when the one before refused, closed, reset, became `down`, or has answered
//! with something else than a handshake: nobody is working on the client's hello then. While one is merely silent, one more
//! means one more handshake for the control plane, and that is paid from the bucket.
//!
//! A balancer that refused or closed is dialled again, after all others, some times: another apiserver may be behind its next
//! connection.
//!
//! Who was `down` already when it was dialled is on trial because nobody better was left, and may just be coming back. It is
//! not given up for being `down`: another one is asked beside it, as soon as there is one that this race has not tried.
//!
//! A close before the first byte is not passed on while the client's bytes may still be sent elsewhere: with nobody left the
//! client is held. That is what an external balancer does that has lost its last backend, and what an apiserver does that is
//! just stopping; in both cases something will answer soon. So it is with what is not TLS. An alert is an answer, and is passed on when nobody is left who
//! could give a better one.
//!
//! What the client has said beyond one ClientHello, or instead of one, is never sent twice: the race is then over for all but
//! one upstream, and whatever that one does is passed on.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::dial::{Candidate, Dial, Dials};
use super::echoes::Echo;
use super::hello::{ALERT, HANDSHAKE};
use super::said::Said;
use super::stats::DialEnd;
use super::trial::{Heard, Trial};
use crate::engine::event::{Saw, Verdict};
use crate::engine::{Endpoint, Routing, policy};
use crate::world::Stream;
use crate::world::fault::Fault;

/// How a race ended.
pub(super) enum End {
    /// An upstream answered, or what it did is to be passed on.
    Answered(Winner),
    /// Nothing is left to try: hold the client.
    Nothing,
    /// The client went away.
    Gone,
    /// The only upstream that may have the client's bytes closed.
    Closed,
    /// It reset.
    Reset,
}

/// The upstream that serves the client.
pub(super) struct Winner {
    pub(super) endpoint: Endpoint,
    pub(super) stream: Box<dyn Stream>,
    /// What it began with.
    pub(super) head: Vec<u8>,
    /// How much of what the client said it has.
    pub(super) forwarded: usize,
}

/// What a client brings to each of its races.
pub(super) struct Runner<'a> {
    pub(super) client: &'a mut Box<dyn Stream>,
    pub(super) said: Said,
    pub(super) replays: u32,
    /// Its hold ends then.
    pub(super) patience: Instant,
    /// Where else its hello is being forwarded, if it has said one.
    pub(super) echo: Option<Echo>,
}

/// A race.
pub(super) struct Race<'a, 'c> {
    shared: &'a Shared,
    routing: watch::Receiver<Arc<Routing>>,
    runner: &'a mut Runner<'c>,
    /// Who is dialled next.
    waiting: VecDeque<Candidate>,
    /// Who is not dialled again in this race unless it recovers, and the worst that was held of it since it was dialled.
    tried: Vec<(Endpoint, Verdict)>,
    /// Dials so far of a balancer that had refused or closed.
    redials: u32,
    dials: Dials<'a>,
    /// In the order in which they connected.
    trials: Vec<Trial>,
    /// One more connection is wanted.
    wanting: bool,
    /// There was no token for one more; it is asked for again then.
    refused_until: Option<Instant>,
}

enum Event<'n> {
    Dialled(Dial<'n>, io::Result<Box<dyn Stream>>),
    Heard(usize, Heard),
    Client(io::Result<bool>),
    Rerouted,
    Due,
}

impl<'a, 'c> Race<'a, 'c> {
    /// A race down the routing as it is now.
    pub(super) fn new(shared: &'a Shared, runner: &'a mut Runner<'c>) -> Race<'a, 'c> {
        let mut race = Race {
            shared,
            routing: shared.routing.clone(),
            runner,
            waiting: VecDeque::new(),
            tried: Vec::new(),
            redials: 0,
            dials: Dials::new(&*shared.net),
            trials: Vec::new(),
            wanting: true,
            refused_until: None,
        };
        race.line_up();
        race
    }

    /// Runs it.
    pub(super) async fn run(mut self) -> End {
        loop {
            self.dial_on();
            if let Some(end) = self.nobody_left() {
                return end;
            }
            let event = self.next().await;
            if let Some(end) = self.handle(event) {
                self.drop_dials(|_| false);
                return end;
            }
        }
    }

    /// Puts those that were not tried in the routing's order.
    fn line_up(&mut self) {
        let routing = self.routing.borrow_and_update().clone();
        let order = routing.order(|below| rand::random_range(0..below.max(1)));
        let mut waiting: Vec<Candidate> = order.into_iter().map(Candidate::from).collect();
        waiting.retain(|next| !self.has_tried(next.endpoint));
        if let Some(echo) = &self.runner.echo {
            echo.prefer_others(&mut waiting, |next| next.endpoint, |next| next.verdict);
        }
        self.waiting = waiting.into();
    }

    fn line_up_again(&mut self, next: Candidate) {
        self.tried.retain(|(tried, _)| *tried != next.endpoint);
        self.waiting.push_back(next);
    }

    /// It refused or closed, or might as well have.
    fn disappointed_by(&mut self, candidate: Candidate) {
        if self.redials < candidate.redials {
            self.redials += 1;
            self.line_up_again(candidate);
        }
    }

    fn has_tried(&self, endpoint: Endpoint) -> bool {
        self.tried.iter().any(|(tried, _)| *tried == endpoint)
    }

    /// Begins the dials that are due.
    fn dial_on(&mut self) {
        while self.wanting && self.dials.next() <= Instant::now() {
            let Some(next) = self.waiting.pop_front() else { return };
            self.tried.push((next.endpoint, next.verdict));
            self.dials.begin(next);
        }
    }

    /// The end, when nothing can come any more.
    fn nobody_left(&mut self) -> Option<End> {
        if !self.dials.none() || self.trials.iter().any(Trial::is_open) {
            return None;
        }
        let Some(trial) = (!self.trials.is_empty()).then(|| self.trials.remove(0)) else { return Some(End::Nothing) };
        Some(End::Answered(won(trial)))
    }

    /// Dials come first and timers last, so that an agent that was stopped for a while takes nobody's silence for granted.
    async fn next(&mut self) -> Event<'a> {
        let due = self.due();
        let Race { routing, runner, dials, trials, .. } = self;
        let Runner { client, said, .. } = &mut **runner;
        let talk = poll_fn(|cx| {
            for (place, trial) in trials.iter_mut().enumerate() {
                if let Poll::Ready(heard) = trial.poll(cx, said) {
                    return Poll::Ready(Event::Heard(place, heard));
                }
            }
            said.poll_more(cx, client).map(Event::Client)
        });
        tokio::select! {
            biased;
            (dial, connected) = dials.ended() => Event::Dialled(dial, connected),
            event = talk => event,
            () = changed(routing) => Event::Rerouted,
            () = until(due) => Event::Due,
        }
    }

    /// When something has to be done though nothing happens.
    fn due(&self) -> Option<Instant> {
        let next_dial = (self.wanting && !self.waiting.is_empty()).then(|| self.dials.next());
        let first_bytes = self.trials.iter().filter_map(Trial::due);
        let next_token = self.refused_until.filter(|_| self.replay_is_wanted());
        first_bytes.chain(next_dial).chain(self.dials.leave()).chain(next_token).min()
    }

    fn handle(&mut self, event: Event<'a>) -> Option<End> {
        match event {
            Event::Dialled(dial, Ok(stream)) => self.connected(&dial, stream),
            Event::Dialled(dial, Err(error)) => self.refused(&dial, &error),
            Event::Heard(place, heard) => return self.heard(place, heard),
            Event::Client(Err(_)) => return Some(End::Gone),
            // Without more from the client there will be no TLS session; another protocol may half-close and wait.
            Event::Client(Ok(false)) if self.runner.said.is_tls() => return Some(End::Gone),
            Event::Client(Ok(_)) => self.settle(),
            Event::Rerouted => self.rerouted(),
            Event::Due => self.judge(),
        }
        None
    }

    /// The first to connect ends the other dials; they may be dialled again if it disappoints.
    fn connected(&mut self, dial: &Dial<'_>, stream: Box<dyn Stream>) {
        let now = Instant::now();
        self.shared.dialled(dial.to.endpoint, DialEnd::Connected, Some(Saw::Connected(now - dial.begun)));
        for loser in self.dials.keep(|_| false) {
            let overtaken = loser.begun < dial.begun;
            let deadline = self.shared.clock.moment(now);
            let (end, saw) =
                if overtaken { (DialEnd::Overtaken, Some(Saw::Overtaken { deadline })) } else { (DialEnd::Dropped, None) };
            self.shared.dialled(loser.to.endpoint, end, saw);
            self.line_up_again(loser.to);
        }
        if let Some(echo) = &mut self.runner.echo {
            echo.forwards(dial.to.endpoint);
        }
        self.trials.push(Trial::new(dial.to, stream));
        self.wanting = false;
        self.settle();
    }

    fn refused(&mut self, dial: &Dial<'_>, error: &io::Error) {
        let (end, saw) = match Fault::of(error) {
            Fault::Refused => (DialEnd::Refused, Saw::Refused),
            Fault::TimedOut => (DialEnd::TimedOut, Saw::DialTimedOut { deadline: self.shared.clock.moment(Instant::now()) }),
            Fault::Unreachable(why) => (DialEnd::Unreachable, Saw::Unreachable(why)),
            Fault::Local(why) => (DialEnd::LocalError, Saw::LocalError(why)),
        };
        self.shared.dialled(dial.to.endpoint, end, Some(saw));
        if end == DialEnd::Refused {
            self.disappointed_by(dial.to);
        }
    }

    fn heard(&mut self, place: usize, heard: Heard) -> Option<End> {
        let said = &mut self.runner.said;
        match heard {
            Heard::Forwarded => {
                if let Some(trial) = self.trials.get(place).filter(|_| !said.replayable()) {
                    said.forget(trial.forwarded);
                }
                None
            }
            Heard::Bytes(head) => self.answered(place, head),
            Heard::Closed => self.closed(place, End::Closed),
            Heard::Reset => self.closed(place, End::Reset),
        }
    }

    fn answered(&mut self, place: usize, head: Vec<u8>) -> Option<End> {
        let kind = head.first().copied();
        let handshake = kind == Some(HANDSHAKE);
        let trial = self.trials.get_mut(place)?;
        trial.spoke = Some(head);
        if handshake {
            // What comes late refutes nothing that is held against it for its lateness.
            let hello_bytes = if trial.late { 0 } else { self.runner.said.hello_bytes() };
            self.shared.saw(trial.to.endpoint, Saw::Answered { hello_bytes });
        } else if kind != Some(ALERT) && self.runner.said.asks() {
            self.shared.saw(trial.to.endpoint, Saw::NotTls);
        }
        if handshake || !self.runner.said.replayable() {
            return Some(End::Answered(won(self.trials.remove(place))));
        }
        if kind != Some(ALERT) && self.runner.said.asks() {
            // A TLS client can do nothing with it: as good as a close.
            let trial = self.trials.remove(place);
            self.disappointed_by(trial.to);
        }
        self.wanting |= !self.trials.iter().any(Trial::is_open);
        None
    }

    /// A close blames the upstream only if it had a whole hello to answer.
    fn closed(&mut self, place: usize, end: End) -> Option<End> {
        let newest = place + 1 == self.trials.len();
        let trial = self.trials.remove(place);
        let (said, shared) = (&self.runner.said, self.shared);
        if said.asks() {
            shared.upstream(trial.to.endpoint, |counts| counts.closed_early += 1);
            shared.saw(trial.to.endpoint, Saw::ClosedEarly { hello_bytes: said.hello_bytes() });
        }
        // Half a hello is answered by nobody, however long one tries.
        let hopeless = !said.asks() && self.runner.patience <= Instant::now();
        if hopeless || !said.replayable() {
            return Some(end);
        }
        self.wanting |= newest || !self.trials.iter().any(Trial::is_open);
        self.disappointed_by(trial.to);
        None
    }

    /// Once the client's bytes may not be sent to one more, the newest of those that have them is the only one left.
    fn settle(&mut self) {
        if self.runner.said.replayable() {
            return;
        }
        if let Some(newest) = self.trials.iter().rposition(Trial::is_open) {
            let only = self.trials.swap_remove(newest);
            self.runner.said.forget(only.forwarded);
            self.trials = vec![only];
            self.wanting = false;
            self.drop_dials(|_| false);
        }
    }

    /// Timers: dials leave the race, first bytes are missed.
    fn judge(&mut self) {
        let (now, shared) = (Instant::now(), self.shared);
        for dial in self.dials.keep(|dial| now < dial.leaves()) {
            let deadline = shared.clock.moment(dial.leaves());
            shared.dialled(dial.to.endpoint, DialEnd::TimedOut, Some(Saw::DialTimedOut { deadline }));
        }
        for trial in &mut self.trials {
            let Some(due) = trial.due().filter(|due| *due <= now) else { continue };
            trial.late = true;
            shared.upstream(trial.to.endpoint, |counts| counts.no_first_byte += 1);
            let hello_bytes = self.runner.said.hello_bytes();
            shared.saw(trial.to.endpoint, Saw::NoFirstByte { deadline: shared.clock.moment(due), hello_bytes });
        }
        self.replay_if_late();
    }

    /// One more upstream for a hello that all who have it leave unanswered.
    fn replay_if_late(&mut self) {
        if self.replay_is_wanted() && self.refused_until.is_none_or(|until| until <= Instant::now()) {
            self.wanting = self.may_replay();
        }
    }

    fn replay_is_wanted(&self) -> bool {
        let all_are_late = !self.trials.is_empty() && self.trials.iter().all(|trial| trial.late || !trial.is_open());
        let runner = &*self.runner;
        let may = runner.said.replayable() && runner.replays < policy::REPLAYS_A_CONNECTION && !self.waiting.is_empty();
        all_are_late && may && !self.wanting
    }

    /// Takes a token for one more upstream, or asks for it again later. A refusal counts once a race.
    fn may_replay(&mut self) -> bool {
        let paid = self.shared.bucket.take();
        self.runner.replays += u32::from(paid);
        let counts_as_refused = !paid && self.refused_until.is_none();
        self.shared.stats.count(|counts| {
            counts.replays += u64::from(paid);
            counts.replays_refused += u64::from(counts_as_refused);
        });
        self.refused_until = (!paid).then(|| Instant::now() + policy::REPLAY_AGAIN);
        paid
    }

    /// A new routing: who is not in it any more is not dialled any more, and who is down is not waited for.
    fn rerouted(&mut self) {
        let routing = self.routing.borrow_and_update().clone();
        self.drop_dials(|dial| routing.verdict(dial.to.endpoint).is_some());
        self.forgive(&routing);
        self.leave_the_dead(&routing);
        self.line_up();
        self.replay_if_late();
    }

    /// Who disappointed this race, was thought ill of, and answers again may be tried again.
    fn forgive(&mut self, routing: &Routing) {
        let Race { tried, trials, dials, .. } = self;
        tried.retain_mut(|(endpoint, worst)| {
            let now = routing.verdict(*endpoint).unwrap_or(Verdict::Down);
            let recovered = now <= Verdict::Draining && *worst > Verdict::Draining;
            *worst = now.max(*worst);
            let busy = dials.includes(*endpoint) || trials.iter().any(|trial| trial.to.endpoint == *endpoint);
            busy || !recovered
        });
    }

    /// Moves on from upstreams that are down, if there is one that is not and has not disappointed this race. Those that became
    /// so since they were dialled are left; who was so before gets company.
    fn leave_the_dead(&mut self, routing: &Routing) {
        let mut others = routing.upstreams.iter().filter(|upstream| upstream.verdict != Verdict::Down);
        if !self.runner.said.replayable() || !others.any(|upstream| !self.has_tried(upstream.endpoint)) {
            return;
        }
        let down = |trial: &Trial| routing.verdict(trial.to.endpoint).is_none_or(|verdict| verdict == Verdict::Down);
        let known = |trial: &Trial| trial.to.verdict == Verdict::Down && routing.verdict(trial.to.endpoint).is_some();
        let before = self.trials.len();
        self.trials.retain(|trial| !trial.is_open() || !down(trial) || known(trial));
        let hopeless = self.trials.iter().all(|trial| !trial.is_open() || down(trial));
        self.wanting |= hopeless && before > 0;
    }

    fn drop_dials(&mut self, keep: impl FnMut(&Dial<'a>) -> bool) {
        for dial in self.dials.keep(keep) {
            self.shared.dialled(dial.to.endpoint, DialEnd::Dropped, None);
        }
    }
}

fn won(trial: Trial) -> Winner {
    Winner {
        endpoint: trial.to.endpoint,
        stream: trial.stream,
        head: trial.spoke.unwrap_or_default(),
        forwarded: trial.forwarded,
    }
}

async fn changed(routing: &mut watch::Receiver<Arc<Routing>>) {
    if routing.changed().await.is_err() {
        pending::<()>().await;
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => pending().await,
    }
}
