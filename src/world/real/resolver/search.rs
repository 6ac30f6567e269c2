//! One name, through its search domains, in both families.
//!
//! The first candidate that has an address of either family is the one that was meant, as for glibc: its other family is told too, and no
//! other candidate's. A candidate is passed over when it has no address, when it does not exist in one family and the other
//! has not said otherwise for [`OTHER_FAMILY`] or [`IPV4`], or when it has been silent for [`SILENT`]. So that silent ones do not add up, the
//! next is asked for after [`NEXT_AFTER`] already.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::conf::Conf;
use super::exchange::Answer;
use super::servers::ask_all;
use super::{TTL_LEAST, TTL_MOST};
use crate::world::{Family, Lookup};

/// A candidate that is not settled by then gets company.
const NEXT_AFTER: Duration = Duration::from_secs(1);
/// A name that does not exist in one family does not exist (RFC 8020): the other one has so long to say otherwise ...
const OTHER_FAMILY: Duration = Duration::from_millis(500);
/// ... and IPv4 so long, for there are name servers that say so of IPv6 only (RFC 4074, section 4.2).
const IPV4: Duration = Duration::from_secs(2);
/// A candidate that says nothing for so long does not keep the next one from being taken.
const SILENT: Duration = Duration::from_secs(5);

/// Where each family's answer is told.
pub(super) type Tell<'a> = &'a (dyn Fn(Family, Result<Lookup, String>) + Send + Sync);

/// Looks for the first of these names that has an address, and tells its addresses.
///
/// # Errors
/// None of them has one; nothing was told.
pub(super) async fn search(conf: Arc<Conf>, names: Vec<Name>, tell: Tell<'_>) -> Result<(), String> {
    let (candidates, under_way, told) = (Vec::new(), JoinSet::new(), BTreeSet::new());
    Search { began: Instant::now(), conf, names, candidates, under_way, chosen: None, told }.run(tell).await
}

struct Search {
    began: Instant,
    conf: Arc<Conf>,
    names: Vec<Name>,
    /// Those of the names that were asked for, in order.
    candidates: Vec<Candidate>,
    under_way: JoinSet<(usize, Family, Result<Answer, String>)>,
    /// The one of which something was told; nothing is told of another one afterwards.
    chosen: Option<usize>,
    told: BTreeSet<Family>,
}

struct Candidate {
    since: Instant,
    answers: [Option<Result<Answer, String>>; 2],
    /// From when on it is believed that there is no such name, where that was said of one family.
    denied: Option<Instant>,
}

impl Candidate {
    fn settled(&self) -> bool {
        self.answers.iter().all(Option::is_some)
    }

    fn found(&self) -> bool {
        self.answers.iter().flatten().any(|answer| matches!(answer, Ok(Answer::Addresses(..))))
    }

    /// When the next one may be taken instead; [`None`] if never, as it has an address.
    fn passed_over_at(&self) -> Option<Instant> {
        if self.found() {
            return None;
        }
        if self.settled() {
            return Some(self.since);
        }
        Some(self.denied.unwrap_or(self.since + SILENT).min(self.since + SILENT))
    }
}

impl Search {
    async fn run(&mut self, tell: Tell<'_>) -> Result<(), String> {
        loop {
            let now = Instant::now();
            while self.next_due().is_some_and(|due| due <= now) {
                self.next_candidate();
            }
            self.chosen = self.chosen.or_else(|| self.choose(now));
            if let Some(chosen) = self.chosen.map(|chosen| &self.candidates[chosen]) {
                tell_new(chosen, &mut self.told, tell);
                if chosen.settled() {
                    return Ok(());
                }
            }
            if self.next_due().is_none() && self.candidates.iter().all(|one| one.settled() && !one.found()) {
                return Err(self.reasons());
            }
            let passes = self.candidates.iter().filter_map(Candidate::passed_over_at).filter(|at| *at > now);
            let wake = passes.chain(self.next_due()).min();
            tokio::select! {
                Some(done) = self.under_way.join_next() => match done {
                    Ok((candidate, family, answer)) => self.learn(candidate, family, answer),
                    // Its place stays as if it were silent.
                    Err(error) => tracing::debug!(%error, "looking up a name has panicked"),
                },
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    /// The first candidate that has an address, unless one before it may still have one.
    fn choose(&self, now: Instant) -> Option<usize> {
        let passed = |candidate: &Candidate| candidate.passed_over_at().is_some_and(|at| at <= now);
        let first = self.candidates.iter().position(|candidate| !passed(candidate))?;
        self.candidates[first].found().then_some(first)
    }

    /// When the next candidate is asked for; [`None`] if that is not needed.
    fn next_due(&self) -> Option<Instant> {
        if self.candidates.len() >= self.names.len() {
            return None;
        }
        let Some(last) = self.candidates.last() else { return Some(self.began) };
        Some(last.passed_over_at()?.min(last.since + NEXT_AFTER))
    }

    fn next_candidate(&mut self) {
        let place = self.candidates.len();
        let mut candidate = Candidate { since: Instant::now(), answers: [None, None], denied: None };
        for family in Family::ALL {
            if family == Family::V6 && self.conf.no_aaaa {
                candidate.answers[family as usize] = Some(Ok(Answer::NoData));
                continue;
            }
            let (conf, name) = (self.conf.clone(), self.names[place].clone());
            self.under_way.spawn(async move { (place, family, ask_all(conf, name, family).await) });
        }
        self.candidates.push(candidate);
    }

    fn learn(&mut self, place: usize, family: Family, answer: Result<Answer, String>) {
        let candidate = &mut self.candidates[place];
        if answer == Ok(Answer::NoName) {
            let wait = if family == Family::V4 { OTHER_FAMILY } else { IPV4 };
            let believed = Instant::now() + wait;
            candidate.denied = Some(candidate.denied.map_or(believed, |at| at.min(believed)));
        }
        candidate.answers[family as usize] = Some(answer);
    }

    fn reasons(&self) -> String {
        let answers = self.candidates.iter().flat_map(|candidate| candidate.answers.iter().flatten());
        let reasons: BTreeSet<String> = answers.clone().filter_map(|answer| answer.clone().err()).collect();
        if !reasons.is_empty() {
            return reasons.into_iter().collect::<Vec<_>>().join("; ");
        }
        let exists = answers.into_iter().any(|answer| *answer == Ok(Answer::NoData));
        if exists { "the name has no address".to_owned() } else { "there is no such name".to_owned() }
    }
}

/// Tells those families of the chosen candidate that were not told yet.
fn tell_new(chosen: &Candidate, told: &mut BTreeSet<Family>, tell: Tell<'_>) {
    for family in Family::ALL {
        let Some(answer) = &chosen.answers[family as usize] else { continue };
        if !told.insert(family) {
            continue;
        }
        let lookup = match answer {
            Ok(Answer::Addresses(addrs, ttl)) => {
                Ok(Lookup { addrs: addrs.clone(), ttl: (*ttl).clamp(TTL_LEAST, TTL_MOST), complete: false })
            }
            Ok(Answer::NoData | Answer::NoName) => Ok(Lookup { addrs: Vec::new(), ttl: TTL_MOST, complete: false }),
            Err(reason) => Err(reason.clone()),
        };
        tell(family, lookup);
    }
}
