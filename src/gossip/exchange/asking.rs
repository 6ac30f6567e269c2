//! A node's questions, and what it learns from answers and pushes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::catalog::Offered;
use super::super::envelope::Kind;
use super::super::message::{self, NONE, Report, TAGS, Update};
use super::super::reporter::Question;
use super::super::stats::DropReason;
use super::{Exchange, HeardView, NodeId};

/// A generation further above this node's own is not believed: fifty years in milliseconds, for who has no clock.
const AHEAD: u64 = 50 * 366 * 24 * 3_600_000;

impl Exchange {
    pub(super) fn ask(&mut self, now: Instant) {
        if self.generation == 0 {
            return;
        }
        let leads = self.known_addresses();
        for question in self.reporter.due(now, &leads) {
            self.send_report(&question);
        }
    }

    /// Addresses of nodes that may know the core: seeds, samples, the cache and records; never this node's own.
    pub fn known_addresses(&self) -> BTreeSet<SocketAddr> {
        let known = self.seeds.iter().chain(&self.leads).copied().chain(self.gossip_addresses());
        known.filter(|addr| Some(*addr) != self.own_addr).collect()
    }

    fn send_report(&mut self, question: &Question) {
        self.sequence = self.sequence.saturating_add(1);
        let digest = self.catalog.digest();
        let holds = if question.agreed == Some(digest) { Vec::new() } else { self.catalog.tags(TAGS) };
        let mut items: Vec<Vec<u8>> = question.items.iter().map(|item| item.to_vec()).collect();
        if self.me.core {
            // Whoever is asked for the core learns of this one.
            items.extend(self.catalog.own().map(|own| own.bytes.to_vec()));
        }
        let mut report = Report {
            node: self.me.node,
            core: self.me.core,
            generation: self.generation,
            sequence: self.sequence,
            next_within_s: question.next_within_s,
            cookie: question.cookie,
            echo: question.echo,
            digest,
            view: question.node.and_then(|node| self.heard.get(&node)).map_or(0, |heard| cut(heard.number)),
            holds,
            observations: self.seen_endpoints(),
            unanswered: self.reporter.unanswered(),
            introduction: question.introduce.then(|| self.introduction()),
            items,
        };
        let plaintext = loop {
            match report.encode() {
                Some(plaintext) => break plaintext,
                // What does not fit is brought by a later one.
                None if !report.items.is_empty() => {
                    report.items.pop();
                }
                None => return self.stats.count_drop(DropReason::Oversized),
            }
        };
        if let Some(datagram) = self.envelopes.seal(Kind::Report, &plaintext) {
            self.sends.push((question.to, datagram));
        }
    }

    pub(super) fn take_update(&mut self, now: Instant, from: SocketAddr, plaintext: &[u8]) -> Result<NodeId, DropReason> {
        let update = Update::decode(plaintext).ok_or(DropReason::Malformed)?;
        if update.node == self.me.node {
            // It answers this node's question, and is another: with its cookie it will be told of this one.
            let answered = self.reporter.answer(now, update.node, update.echo, update.cookie, update.digest);
            let namesake = answered.ok_or(DropReason::Own).map(|_| super::Change::Namesake(from))?;
            self.changes.push(namesake);
            return Ok(update.node);
        }
        let push = update.echo == NONE;
        let answered =
            if push { None } else { self.reporter.answer(now, update.node, update.echo, update.cookie, update.digest) };
        if answered.is_none() && !push {
            return Err(DropReason::Replayed);
        }
        let mut back: Vec<Arc<[u8]>> = Vec::new();
        let mut news = false;
        for item in &update.items {
            match self.catalog.offer(now, item) {
                Ok(offered) => {
                    news |= matches!(offered, Offered::Record(_) | Offered::Removal { .. });
                    back.extend(self.offered(now, offered));
                }
                Err(error) => self.stats.count_drop(error.reason()),
            }
        }
        news |= self.take_view(now, &update.view);
        self.settle_rivals(now);
        back.extend(self.catalog.about(&update.wanted).into_iter().map(|item| Arc::clone(&item.bytes)));
        if !push {
            self.learn(now, from, &update, answered.and_then(|answered| answered.node));
        }
        // It holds something else than it was taken to hold: it is told by name what this node holds.
        let unlisted = answered.is_some_and(|answered| answered.agreed.is_some_and(|agreed| agreed != update.digest));
        let differs = unlisted && self.catalog.digest() != update.digest;
        let wanted = !back.is_empty() || update.more || differs;
        // A push is unasked and may be an old one: it is worth a Report only where it brought something signed and new.
        if if push { news } else { wanted } {
            self.reporter.acknowledge(now, update.node, back, news);
        }
        self.summarise(now);
        Ok(update.node)
    }

    /// What only an answer to one's own question can say.
    fn learn(&mut self, now: Instant, from: SocketAddr, update: &Update, asked: Option<NodeId>) {
        self.changes.extend(update.namesake.map(super::Change::Namesake));
        // A core member's generations are told by what it signed itself. No start is so far ahead as to be forged.
        let plausible = update.above.saturating_sub(self.generation) < AHEAD && !self.me.core && asked.is_some();
        if update.above > 0 && update.above >= self.generation && plausible {
            self.changes.push(super::Change::HeardAbove(update.above));
        }
        self.add_leads(update.sample.iter().copied().chain([from]));
        for (endpoint, rtt) in update.priors.iter().copied().filter_map(message::prior_of) {
            if self.priors.len() < super::LEADS || self.priors.contains_key(&endpoint) {
                self.priors.insert(endpoint, rtt);
            }
        }
        // Its record may have come with this answer: whoever was asked as a lead is known by name now.
        self.know_core(now);
    }

    /// Takes a view; whether somebody went or came.
    fn take_view(&mut self, now: Instant, bytes: &[u8]) -> bool {
        // A core member sees for itself who is live.
        if bytes.is_empty() || self.me.core {
            return false;
        }
        match self.catalog.offer(now, bytes) {
            Ok(Offered::View(author)) => {
                let Some(view) = self.catalog.view(author) else { return false };
                let live: BTreeSet<NodeId> = view.live.iter().map(|(node, _)| *node).collect();
                let heard = HeardView { number: view.number, live: live.clone() };
                // Only what the author itself said before is compared: who sees whom differs while the core is cut in two.
                let Some(before) = self.heard.insert(author, heard) else { return true };
                for node in before.live.difference(&live) {
                    self.reporter.doubt(now, *node);
                }
                for node in live.difference(&before.live) {
                    self.reporter.hope(now, *node);
                }
                before.live != live
            }
            Ok(_) => false,
            Err(error) => {
                self.stats.count_drop(error.reason());
                false
            }
        }
    }
}

/// The low 32 bits.
pub(super) fn cut(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
}
