//! Whom this node asks, and when: each core member every few seconds, and while none answers, whoever may know one.
//!
//! | | |
//! |---|---|
//! | period T | clamp(N / 125, 4 C / 3, 4 s to 30 s), ± 20%, for N nodes and C core members |
//! | a change of this node's health or address | soon, at most once a second, spread over N / 2,000 s |
//! | no answer | asked again after 300, 600 and 1,200 ms; then it counts as unreachable and is asked every 30 s |
//! | an answer that calls for another question | at once if it brought news, else three times a second |
//! | no core member answers | two leads at a time, the pause between growing from 0.2 s to N / 200 s, which is at least 1 and at most 5 s |
//!
//! It decides and sends nothing itself: [`Reporter::due`] says which questions are to be sent now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::IteratorRandom as _;
use tokio::time::Instant;

use super::message::{Cookie, Echo, NONE};
use crate::engine::endpoint::NodeId;

/// The shortest and the longest period.
const PERIOD: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(30));
/// A period is up to this much longer or shorter.
const SPREAD: f64 = 0.2;
/// Pauses before an unanswered question is asked again.
const AGAIN: [Duration; 3] = [Duration::from_millis(300), Duration::from_millis(600), Duration::from_millis(1_200)];
/// Who did not answer any of these is asked this often.
const UNREACHABLE: Duration = Duration::from_secs(30);
/// The last of an unanswered question's repetitions is given up after this.
const PATIENCE: Duration = Duration::from_millis(900);
/// Between two Reports because of changes.
const CHANGES_APART: Duration = Duration::from_secs(1);
/// Questions at once in a second because of answers that brought no news: two that cannot agree do not ask without end.
const PROMPTS: (u32, Duration) = (3, Duration::from_secs(1));
/// An answer that comes later than this is none.
const ECHO: Duration = Duration::from_secs(5);
/// Leads that are asked at a time.
const LEADS: usize = 2;
/// The pause between two searches at first, at most in a small cluster, and at most in a large one.
const SEARCH: (Duration, Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5));
/// Questions on their way, and cookies, at most.
const KEPT: usize = 256;
/// The longest time that a Report may announce.
const ANNOUNCED: u8 = 40;

/// A question that is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Where.
    pub to: SocketAddr,
    /// To whom, where that is known.
    pub node: Option<NodeId>,
    /// Given back in its answer.
    pub echo: Echo,
    /// What was given for this address.
    pub cookie: Cookie,
    /// The next one comes within this.
    pub next_within_s: u8,
    /// The receiver has not answered this node's present generation yet.
    pub introduce: bool,
    /// What the receiver held when it last answered: the digest of its items.
    pub agreed: Option<u64>,
    /// Signed items that it lacks.
    pub items: Vec<Arc<[u8]>>,
}

/// A core member, as this node reaches it.
#[derive(Debug)]
struct Peer {
    addrs: Vec<SocketAddr>,
    place: usize,
    due: Instant,
    tries: usize,
    unreachable: bool,
    /// Somebody says that it is gone, since then.
    told_gone: Option<Instant>,
    answered: Option<Instant>,
    agreed: Option<u64>,
    introduced: bool,
    items: Vec<Arc<[u8]>>,
    rtt: Option<Duration>,
    /// Since when so many answers without news have called for another question.
    prompts: (Instant, u32),
}

struct Asked {
    to: SocketAddr,
    node: Option<NodeId>,
    agreed: Option<u64>,
    sent: Instant,
}

/// See the module.
pub struct Reporter {
    peers: BTreeMap<NodeId, Peer>,
    asked: BTreeMap<Echo, Asked>,
    cookies: BTreeMap<SocketAddr, Cookie>,
    cluster_size: u32,
    /// The next Report is the last one.
    leaving: bool,
    changed: Option<Instant>,
    /// Leads are asked at this time, after which the pause grows.
    search: Instant,
    pause: Duration,
    /// Whether leads are asked at all.
    searching: bool,
    /// The last answer's time and sender, a core member or not.
    last_answer: Option<(Instant, SocketAddr)>,
}

/// What an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// How long it took.
    pub rtt: Duration,
    /// The core member that was asked, where one was.
    pub node: Option<NodeId>,
    /// What the asked one was taken to hold: then the question did not name what this node holds.
    pub agreed: Option<u64>,
}

/// The period for so many nodes and core members.
pub fn period(nodes: u32, core: usize) -> Duration {
    let by_nodes = Duration::from_secs(nodes.into()) / 125;
    let by_core = Duration::from_secs(4 * core as u64) / 3;
    by_nodes.max(by_core).clamp(PERIOD.0, PERIOD.1)
}

fn spread(of: Duration) -> Duration {
    of.mul_f64(rand::rng().random_range(1.0 - SPREAD..=1.0 + SPREAD))
}

fn jitter(most: Duration) -> Duration {
    if most.is_zero() { most } else { most.mul_f64(rand::rng().random_range(0.0..1.0)) }
}

impl Peer {
    fn new(addrs: Vec<SocketAddr>, due: Instant) -> Peer {
        Peer {
            addrs,
            place: 0,
            due,
            tries: 0,
            unreachable: false,
            told_gone: None,
            answered: None,
            agreed: None,
            introduced: false,
            items: Vec::new(),
            rtt: None,
            prompts: (due, 0),
        }
    }

    fn addr(&self) -> Option<SocketAddr> {
        self.addrs.get(self.place % self.addrs.len().max(1)).copied()
    }

    fn answers(&self) -> bool {
        self.answered.is_some() && !self.unreachable
    }
}

impl Reporter {
    /// Begins with a search.
    pub fn new(now: Instant) -> Reporter {
        Reporter {
            peers: BTreeMap::new(),
            asked: BTreeMap::new(),
            cookies: BTreeMap::new(),
            cluster_size: 0,
            leaving: false,
            changed: None,
            search: now,
            pause: SEARCH.0,
            searching: true,
            last_answer: None,
        }
    }

    /// Takes in what was kept on disk. After a start of the whole cluster not all begin at once.
    pub fn restore(&mut self, now: Instant, cookies: &[(SocketAddr, Cookie)], cluster_size: u32) {
        self.cluster_size = cluster_size;
        self.cookies.extend(cookies.iter().copied().take(KEPT));
        let first = now + jitter(Duration::from_secs(cluster_size.into()) / 2_000);
        self.search = first;
        for peer in self.peers.values_mut() {
            peer.due = first;
        }
    }

    /// This node ends: all are told once more, and that nothing comes after that.
    pub fn leave(&mut self, now: Instant) {
        self.leaving = true;
        for peer in self.peers.values_mut() {
            peer.due = now;
        }
    }

    /// Says who the core is now: all core members and their signed addresses.
    pub fn know(&mut self, now: Instant, core: BTreeMap<NodeId, Vec<SocketAddr>>) {
        self.peers.retain(|node, _| core.contains_key(node));
        for (node, addrs) in core {
            match self.peers.get_mut(&node) {
                Some(peer) if peer.addrs == addrs => {}
                Some(peer) => {
                    (peer.addrs, peer.place, peer.tries, peer.unreachable) = (addrs, 0, 0, false);
                    peer.due = now;
                }
                None => {
                    self.peers.insert(node, Peer::new(addrs, now));
                }
            }
        }
    }

    /// How often each core member is asked.
    pub fn period(&self) -> Duration {
        period(self.cluster_size, self.peers.len())
    }

    /// Says how large the cluster is.
    pub fn size(&mut self, nodes: u32) {
        self.cluster_size = nodes;
    }

    /// This node begins another generation: everybody is to be told who it is again.
    pub fn begin_again(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.introduced = false;
            peer.due = now;
        }
    }

    /// This node's health or address has changed.
    pub fn change(&mut self, now: Instant) {
        let due = match self.changed {
            // One is on its way already, and will tell of this as well.
            Some(due) if now < due => due,
            last => {
                let earliest = last.map_or(now, |last| now.max(last + CHANGES_APART));
                earliest + jitter(Duration::from_secs(self.cluster_size.into()) / 2_000)
            }
        };
        self.changed = Some(due);
        for peer in self.peers.values_mut().filter(|peer| !peer.unreachable) {
            peer.due = peer.due.min(due);
        }
    }

    /// Somebody says that a core member is gone: it is asked soon.
    pub fn doubt(&mut self, now: Instant, node: NodeId) {
        let soon = now + jitter(Duration::from_secs(self.cluster_size.into()) / 10_000);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.told_gone.get_or_insert(now);
            peer.due = peer.due.min(soon);
        }
    }

    /// Somebody says that a core member is back: if it did not answer it is asked soon.
    pub fn hope(&mut self, now: Instant, node: NodeId) {
        let soon = now + jitter(Duration::from_secs(self.cluster_size.into()) / 10_000);
        if let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.unreachable || peer.told_gone.is_some()) {
            (peer.due, peer.tries) = (peer.due.min(soon), 0);
        }
    }

    /// A core member is asked now: it has sent news, or wants something.
    pub fn acknowledge(&mut self, now: Instant, node: NodeId, items: Vec<Arc<[u8]>>, news: bool) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        for item in items {
            if !peer.items.contains(&item) {
                peer.items.push(item);
            }
        }
        (peer.tries, peer.unreachable) = (0, false);
        if now >= peer.prompts.0 + PROMPTS.1 {
            peer.prompts = (now, 0);
        }
        peer.prompts.1 += u32::from(!news);
        peer.due = if peer.prompts.1 <= PROMPTS.0 { now } else { peer.due.min(peer.prompts.0 + PROMPTS.1) };
    }

    /// A signed item is to be brought to the core now: to the nearest core member that answers, or to all where none is known to.
    pub fn bring(&mut self, now: Instant, item: &Arc<[u8]>) {
        let answering = self.peers.iter().filter(|(_, peer)| peer.answers());
        let nearest = answering.min_by_key(|(_, peer)| peer.rtt).map(|(node, _)| *node);
        for (node, peer) in &mut self.peers {
            if nearest.is_none_or(|nearest| nearest == *node) && !peer.items.contains(item) {
                peer.items.push(Arc::clone(item));
                (peer.due, peer.tries) = (now, 0);
            }
        }
    }

    /// The questions that are to be sent now. `leads` are addresses at which somebody may know the core; `period` of a core
    /// member is none: it only searches.
    pub fn due(&mut self, now: Instant, leads: &BTreeSet<SocketAddr>) -> Vec<Question> {
        self.asked.retain(|_, asked| now < asked.sent + ECHO);
        let period = period(self.cluster_size, self.peers.len());
        let nodes: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| now >= peer.due).map(|(node, _)| *node).collect();
        let mut questions: Vec<Question> = nodes.into_iter().filter_map(|node| self.ask(now, node, period)).collect();
        questions.extend(self.search(now, leads));
        questions
    }

    fn ask(&mut self, now: Instant, node: NodeId, period: Duration) -> Option<Question> {
        let peer = self.peers.get_mut(&node)?;
        if peer.tries > AGAIN.len() && !peer.unreachable {
            peer.unreachable = true;
            peer.due = now + spread(UNREACHABLE);
            return None;
        }
        // Where it has several addresses, the next one in turn.
        peer.place = peer.place.wrapping_add(usize::from(peer.tries > 0));
        peer.due = now
            + match AGAIN.get(peer.tries) {
                _ if peer.unreachable => spread(UNREACHABLE),
                Some(pause) => *pause,
                None => PATIENCE,
            };
        peer.tries += 1;
        let within = if peer.unreachable { UNREACHABLE } else { period }.mul_f64(1.0 + SPREAD) + AGAIN.iter().sum::<Duration>();
        let question = Question {
            to: peer.addr()?,
            node: Some(node),
            echo: rand::random(),
            cookie: NONE,
            next_within_s: if self.leaving { 0 } else { u8::try_from(within.as_secs() + 1).unwrap_or(u8::MAX).min(ANNOUNCED) },
            introduce: !peer.introduced,
            agreed: peer.agreed,
            items: std::mem::take(&mut peer.items),
        };
        Some(self.sent(now, question))
    }

    fn search(&mut self, now: Instant, leads: &BTreeSet<SocketAddr>) -> Vec<Question> {
        if !self.is_searching() || now < self.search {
            return Vec::new();
        }
        self.search = now + spread(self.pause);
        // Few nodes are no burden to whoever starts first.
        let most = (Duration::from_secs(self.cluster_size.into()) / 200).clamp(SEARCH.1, SEARCH.2);
        self.pause = (self.pause * 2).min(most);
        let at = leads.iter().copied().sample(&mut rand::rng(), LEADS);
        at.into_iter()
            .map(|to| {
                let question = Question {
                    to,
                    node: None,
                    echo: rand::random(),
                    cookie: NONE,
                    next_within_s: 10,
                    introduce: true,
                    agreed: None,
                    items: Vec::new(),
                };
                self.sent(now, question)
            })
            .collect()
    }

    fn sent(&mut self, now: Instant, mut question: Question) -> Question {
        question.cookie = self.cookies.get(&question.to).copied().unwrap_or(NONE);
        if self.asked.len() < KEPT {
            self.asked.insert(question.echo, Asked { to: question.to, node: question.node, agreed: question.agreed, sent: now });
        }
        question
    }

    /// Takes an answer; [`None`] for one that nobody asked for, or that was given already.
    pub fn answer(&mut self, now: Instant, by: NodeId, echo: Echo, cookie: Cookie, digest: u64) -> Option<Answered> {
        // Somebody else may have been sent the question as well, by whoever recorded it.
        self.asked.get(&echo).filter(|asked| asked.node.is_none_or(|node| node == by))?;
        let Asked { to, node, agreed, sent } = self.asked.remove(&echo)?;
        let rtt = now.saturating_duration_since(sent);
        if rtt >= ECHO {
            return None;
        }
        self.last_answer = Some((now, to));
        // Another cookie than before is what a core member gives that was started again, and holds nothing of this node.
        let known_there = self.cookies.get(&to) == Some(&cookie);
        if self.cookies.len() < KEPT || self.cookies.contains_key(&to) {
            self.cookies.insert(to, cookie);
        }
        let period = period(self.cluster_size, self.peers.len());
        if let Some(peer) = node.and_then(|node| self.peers.get_mut(&node)) {
            if peer.told_gone.is_some_and(|told| sent >= told) {
                peer.told_gone = None;
            }
            // Smoothed as TCP does (RFC 6298).
            peer.rtt = Some(peer.rtt.map_or(rtt, |smooth| (smooth * 7 + rtt) / 8));
            (peer.tries, peer.unreachable, peer.introduced) = (0, false, known_there);
            (peer.answered, peer.agreed) = (Some(now), Some(digest));
            peer.due = now + spread(period);
            self.pause = SEARCH.0;
        }
        Some(Answered { rtt, node, agreed })
    }

    /// Whether leads are asked: none of the core answers.
    pub fn is_searching(&self) -> bool {
        self.searching && !self.peers.values().any(Peer::answers)
    }

    /// Whether a question is this node's own, and not answered yet.
    pub fn has_asked(&self, echo: Echo) -> bool {
        self.asked.contains_key(&echo)
    }

    /// The last answer's time and sender, a core member or not.
    pub fn last_answer(&self) -> Option<(Instant, SocketAddr)> {
        self.last_answer
    }

    /// Whether to search at all: a core member does as long as it is alone.
    pub fn search_if(&mut self, now: Instant, alone: bool) {
        if alone && !self.searching {
            (self.search, self.pause) = (now, SEARCH.0);
        }
        self.searching = alone;
    }

    /// When [`Reporter::due`] is to be asked next.
    pub fn next(&self) -> Option<Instant> {
        let search = self.is_searching().then_some(self.search);
        self.peers.values().map(|peer| peer.due).chain(search).min()
    }

    /// Whether a core member answers this node: [`None`] where that is not known yet.
    pub fn answers(&self, node: NodeId) -> Option<bool> {
        let peer = self.peers.get(&node)?;
        if peer.told_gone.is_some() || peer.unreachable {
            return Some(false);
        }
        peer.answered.map(|_| true)
    }

    /// Whether somebody says that a core member is gone, and it has not answered since.
    pub fn told_gone(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.told_gone.is_some())
    }

    /// Core members that do not answer.
    pub fn unanswered(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.unreachable).map(|(node, _)| *node).collect()
    }

    /// The smoothed round trip to a core member, and when it answered last.
    pub fn reached(&self, node: NodeId) -> (Option<Duration>, Option<Instant>) {
        self.peers.get(&node).map_or((None, None), |peer| (peer.rtt, peer.answered))
    }

    /// Cookies worth keeping on disk.
    pub fn cookies(&self) -> &BTreeMap<SocketAddr, Cookie> {
        &self.cookies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 7447))
    }

    fn node(host: u8) -> NodeId {
        NodeId::of(&format!("cp-{host}"))
    }

    fn core(hosts: std::ops::RangeInclusive<u8>) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        hosts.map(|host| (node(host), vec![addr(host)])).collect()
    }

    /// Runs until `over`; answers what `answers` says. Gives the times of all questions to each.
    fn run(
        reporter: &mut Reporter,
        from: Instant,
        over: Instant,
        answers: impl Fn(SocketAddr) -> bool,
    ) -> Vec<(f64, SocketAddr)> {
        let mut asked = Vec::new();
        while let Some(now) = reporter.next().filter(|next| *next < over) {
            for question in reporter.due(now, &BTreeSet::from([addr(200), addr(201), addr(202)])) {
                asked.push(((now - from).as_secs_f64(), question.to));
                if answers(question.to) {
                    let by = question.node.unwrap_or(node(99));
                    reporter.answer(now + Duration::from_millis(1), by, question.echo, [1; 8], 1);
                }
            }
        }
        asked
    }

    #[test]
    fn the_period_grows_with_the_cluster_and_the_core() {
        let seconds = |nodes, core| period(nodes, core).as_secs_f64();
        assert!((seconds(5, 3) - 4.0).abs() < 1e-9);
        assert!((seconds(1_000, 3) - 8.0).abs() < 1e-9);
        assert!((seconds(100_000, 3) - 30.0).abs() < 1e-9);
        assert!((seconds(5, 5) - 20.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn every_core_member_is_asked_about_every_four_seconds() {
        let now = Instant::now();
        let mut reporter = Reporter::new(now);
        reporter.know(now, core(1..=3));
        let asked = run(&mut reporter, now, now + Duration::from_secs(400), |_| true);
        assert!((280..=330).contains(&asked.len()), "{}", asked.len());
    }

    #[test]
    fn who_does_not_answer_is_asked_four_times_in_two_seconds_and_then_every_half_minute() {
        let now = Instant::now();
        let mut reporter = Reporter::new(now);
        reporter.know(now, core(1..=2));
        let silent = |to: SocketAddr| to == addr(1);
        let asked = run(&mut reporter, now, now + Duration::from_secs(100), |to| !silent(to));
        let times: Vec<f64> = asked.into_iter().filter(|(_, to)| silent(*to)).map(|(at, _)| at).collect();
        assert_eq!(times.iter().filter(|at| **at < 2.2).count(), 4, "{times:?}");
        assert!((6..=9).contains(&times.len()), "{times:?}");
        assert_eq!(reporter.unanswered(), [node(1)]);
        assert_eq!((reporter.answers(node(1)), reporter.answers(node(2))), (Some(false), Some(true)));
        assert!(!reporter.is_searching(), "one answers");
    }

    #[test]
    fn while_nobody_answers_two_leads_are_asked_more_and_more_rarely() {
        let now = Instant::now();
        let mut reporter = Reporter::new(now);
        reporter.size(1_000);
        let asked = run(&mut reporter, now, now + Duration::from_secs(60), |_| false);
        assert!(asked.iter().filter(|(at, _)| *at < 0.1).count() == 2);
        assert!((20..=40).contains(&asked.len()), "{}", asked.len());
    }

    #[test]
    fn changes_are_reported_at_most_once_a_second() {
        let now = Instant::now();
        let mut reporter = Reporter::new(now);
        reporter.know(now, core(1..=1));
        run(&mut reporter, now, now + Duration::from_millis(1), |_| true);
        let mut asked = Vec::new();
        for tenth in 1..=30 {
            let at = now + Duration::from_millis(100 * tenth);
            reporter.change(at);
            asked.extend(run(&mut reporter, now, at + Duration::from_millis(99), |_| true));
        }
        assert!((3..=5).contains(&asked.len()), "{asked:?}");
    }

    #[test]
    fn who_is_said_to_be_gone_is_asked_at_once_and_back_only_when_that_is_answered() {
        let now = Instant::now();
        let mut reporter = Reporter::new(now);
        reporter.know(now, core(1..=2));
        run(&mut reporter, now, now + Duration::from_secs(1), |_| true);
        let later = now + Duration::from_secs(1);
        reporter.doubt(later, node(1));
        assert_eq!(reporter.answers(node(1)), Some(false));
        let asked = run(&mut reporter, now, later + Duration::from_millis(50), |_| true);
        assert_eq!(asked.len(), 1);
        assert_eq!(reporter.answers(node(1)), Some(true));
    }

    #[test]
    fn an_answer_counts_once_and_not_late() {
        let now = Instant::now();
        let mut reporter = Reporter::new(now);
        reporter.know(now, core(1..=1));
        let question = reporter.due(now, &BTreeSet::new()).remove(0);
        assert_eq!(reporter.answer(now, node(1), [9; 8], NONE, 0), None, "nobody asked");
        assert_eq!(reporter.answer(now, node(2), question.echo, NONE, 0), None, "another was asked");
        assert!(reporter.answer(now, node(1), question.echo, NONE, 0).is_some());
        assert_eq!(reporter.answer(now, node(1), question.echo, NONE, 0), None, "twice");
    }
}
