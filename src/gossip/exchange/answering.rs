//! Answers to Reports.
//!
//! Who has not shown yet that it receives at its address is answered with no more bytes than it sent, and changes nothing
//! here. Such answers are limited: at most 50 a second to one address, and about 5,000 a second in all, beyond which which
//! ones are answered is left to chance.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use tokio::time::Instant;

use super::super::envelope::{Kind, Opened, PLAINTEXT};
use super::super::message::{self, NONE, PRIORS, Report, SAMPLE, TAGS, Update};
use super::super::stats::DropReason;
use super::super::workers::{Taken, same_network};
use super::{Change, Exchange, NodeId};

/// Answers a second to one address that has shown nothing yet.
const AN_ADDRESS: u32 = 50;
/// Answers a second to all such addresses.
const IN_ALL: u32 = 5_000;
const WINDOW: Duration = Duration::from_secs(1);
/// Who has been heard for so long goes into a sample before others.
const SETTLED: Duration = Duration::from_secs(600);
/// Addresses of one network in a sample.
const OF_A_NETWORK: usize = 2;

/// Limits answers to those who have shown nothing yet.
pub(super) struct Answering {
    since: Instant,
    by_address: HashMap<IpAddr, u32>,
    asked: u32,
    /// How many asked in the second before.
    before: u32,
}

impl Answering {
    pub(super) fn new(now: Instant) -> Answering {
        Answering { since: now, by_address: HashMap::new(), asked: 0, before: 0 }
    }

    fn admits(&mut self, now: Instant, from: IpAddr) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            let before = if elapsed < 2 * WINDOW { self.asked } else { 0 };
            *self = Answering { since: now, by_address: HashMap::new(), asked: 0, before };
        }
        self.asked = self.asked.saturating_add(1);
        let expected = self.before.max(self.asked);
        if expected > IN_ALL && rand::rng().random_range(0..expected) >= IN_ALL {
            return false;
        }
        let of_it = self.by_address.entry(from).or_default();
        *of_it += 1;
        *of_it <= AN_ADDRESS
    }
}

impl Exchange {
    pub(super) fn take_report(
        &mut self,
        now: Instant,
        from: SocketAddr,
        opened: &Opened,
        len: usize,
    ) -> Result<NodeId, DropReason> {
        let report = Report::decode(&opened.plaintext).ok_or(DropReason::Malformed)?;
        let own_address = report.generation == self.generation && Some(from) == self.own_addr;
        // By another address of this machine its own question comes back too.
        if report.node == self.me.node && (own_address || self.reporter.has_asked(report.echo)) {
            return Err(DropReason::Own);
        }
        let valid = self.cookies.is_valid(now, from, report.cookie);
        let mut update = self.blank(now, from, &report);
        let mut most = PLAINTEXT;
        if valid {
            self.take_valid(now, from, &report, opened, &mut update)?;
            if update.above > 0 {
                // It may be an old Report that another sends again, for its answer to go where it does not belong.
                most = opened.plaintext.len();
            }
        } else if self.answering.admits(now, from.ip()) {
            most = opened.plaintext.len().min(len);
        } else {
            return Err(DropReason::Limited);
        }
        update.digest = self.catalog.digest();
        if report.digest != update.digest {
            update.wanted = self.catalog.unknown(&report.holds);
            update.wanted.truncate(TAGS);
        }
        if valid && update.above == 0 && (report.introduction.is_some() || self.workers.sample_is_due(now, from, report.node)) {
            update.priors = self
                .workers
                .priors(from, self.core_observations())
                .into_iter()
                .take(PRIORS)
                .map(|(tag, rtt)| message::prior(tag, rtt))
                .collect();
            update.sample = self.sample(now, from);
        }
        update.view = self.view(now).map(|view| view.to_vec()).unwrap_or_default();
        let lacking = if report.digest == update.digest { Vec::new() } else { self.catalog.lacking(&report.holds, TAGS) };
        let items: Vec<Vec<u8>> = lacking.into_iter().map(|item| item.bytes.to_vec()).collect();
        if update.encode().is_none_or(|bytes| bytes.len() > most) {
            // The cookie at least, with which it asks again.
            update.view = Vec::new();
        }
        let plaintext = update.encode_with(items.iter().map(Vec::as_slice), most).ok_or(DropReason::Oversized)?;
        if let Some(datagram) = self.envelopes.seal_with(opened.key, Kind::Update, &plaintext) {
            self.sends.push((from, datagram));
        }
        Ok(report.node)
    }

    fn blank(&mut self, now: Instant, from: SocketAddr, report: &Report) -> Update {
        Update {
            echo: report.echo,
            cookie: self.cookies.of(now, from),
            node: self.me.node,
            core: self.me.core,
            digest: 0,
            seen: from,
            above: 0,
            namesake: None,
            view: Vec::new(),
            items: Vec::new(),
            more: false,
            wanted: Vec::new(),
            priors: Vec::new(),
            sample: Vec::new(),
        }
    }

    /// Takes in what an address reports that has shown that it receives.
    fn take_valid(
        &mut self,
        now: Instant,
        from: SocketAddr,
        report: &Report,
        opened: &Opened,
        update: &mut Update,
    ) -> Result<(), DropReason> {
        if report.node == self.me.node {
            self.changes.push(Change::Namesake(from));
            return Ok(());
        }
        for item in &report.items {
            self.offer_from_worker(now, item);
        }
        if !self.me.core || report.core {
            return Ok(());
        }
        if !self.counts(from.ip()) {
            self.stats.count_drop(DropReason::NotAllowed);
            return Ok(());
        }
        match self.workers.take(now, from, report, opened.key) {
            Taken::Stale => return Err(DropReason::Replayed),
            Taken::Above(generation) => update.above = generation,
            Taken::Crowded => self.stats.count_drop(DropReason::Crowded),
            Taken::Held { .. } => self.stale = true,
            Taken::Namesake(theirs) => {
                self.stale = true;
                update.namesake = Some(theirs);
            }
        }
        Ok(())
    }

    /// Addresses of other nodes, of as many networks as can be.
    fn sample(&self, now: Instant, of: SocketAddr) -> Vec<SocketAddr> {
        let others = self.workers.iter().filter(|(addr, ..)| *addr != of);
        let (mut settled, mut recent): (Vec<_>, Vec<_>) = others.partition(|(.., worker)| now >= worker.since + SETTLED);
        settled.shuffle(&mut rand::rng());
        recent.shuffle(&mut rand::rng());
        let settled = settled.into_iter().chain(recent).map(|(addr, ..)| addr);
        let mut sample: Vec<SocketAddr> = Vec::new();
        let mut rest: Vec<SocketAddr> = Vec::new();
        for addr in settled {
            let near = sample.iter().filter(|other| same_network(other.ip(), addr.ip())).count();
            if near < OF_A_NETWORK && sample.len() < SAMPLE { sample.push(addr) } else { rest.push(addr) }
        }
        let missing = SAMPLE - sample.len();
        sample.extend(rest.into_iter().take(missing));
        sample
    }

    /// What is pushed to one worker: these items, and this node's view.
    pub(super) fn pushed(&mut self, now: Instant, to: SocketAddr, items: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut update = Update {
            echo: NONE,
            cookie: NONE,
            node: self.me.node,
            core: true,
            digest: self.catalog.digest(),
            seen: to,
            above: 0,
            namesake: None,
            view: self.view(now).map(|view| view.to_vec()).unwrap_or_default(),
            items: Vec::new(),
            more: false,
            wanted: Vec::new(),
            priors: Vec::new(),
            sample: Vec::new(),
        };
        update.encode_with(items.iter().map(Vec::as_slice), PLAINTEXT)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn one_address_is_answered_fifty_times_a_second_and_all_together_five_thousand_times() {
        let now = Instant::now();
        let mut answering = Answering::new(now);
        let one = IpAddr::from([10, 0, 0, 1]);
        assert_eq!((0..1_000).filter(|_| answering.admits(now, one)).count(), 50);
        let mut answering = Answering::new(now);
        let mut admitted = BTreeMap::new();
        for second in 0..4_u64 {
            for n in 0..40_000_u32 {
                let from = IpAddr::from((11_u32 << 24 | n).to_be_bytes());
                let at = now + Duration::from_secs(second) + Duration::from_micros(20 * u64::from(n));
                *admitted.entry(second).or_insert(0_u32) += u32::from(answering.admits(at, from));
            }
        }
        assert!((4_000..=6_000).contains(&admitted[&3]), "{admitted:?}");
    }
}
