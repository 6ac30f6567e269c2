//! Logs and notes an isolation, its cause and its end.

use std::net::SocketAddr;

use tokio::time::Instant;
use tracing::{info, warn};

use super::super::envelope::Refused;
use super::super::isolation::{Isolation, Situation, Told};
use super::super::unpoisoned;
use super::Node;

/// The subject of its note.
pub(super) const SUBJECT: &str = "isolation";

impl Node {
    /// A datagram arrived that does not open.
    pub(super) fn refused(&mut self, now: Instant, from: SocketAddr, refused: Refused) {
        // A worker receives only answers and pushes. If these do not open, the report of its isolation says so.
        if let Some(warning) = self.isolation.refused(now, from, refused).filter(|_| self.settings.core) {
            warn!("{warning}");
        }
    }

    pub(super) fn watch_isolation(&mut self, now: Instant) {
        if self.leaving.is_some() || self.identity.is_removed() {
            return;
        }
        let situation = self.situation(now);
        let Some(told) = self.isolation.look(now, &situation) else { return };
        match told {
            Told::Isolated(text) => warn!("{text}"),
            Told::Over(lasted) => info!("this node is answered again after {} s", lasted.as_secs()),
        }
        self.shared.stats.isolated.set(u64::from(self.isolation.note().is_some()));
        self.shared.set_note(SUBJECT, self.isolation.note().map(str::to_owned));
    }

    fn situation(&self, now: Instant) -> Situation {
        let exchange = unpoisoned(&self.shared.exchange);
        let (answered, lead) = exchange.answered(now, Isolation::RECENT_ANSWER);
        if answered {
            return Situation { answered, ..Situation::default() };
        }
        let seeds = self.settings.seeds.borrow().clone();
        Situation {
            answered,
            lead,
            no_address: !self.identity.has_begun(),
            seeds_given: seeds.given,
            seeds: seeds.addrs,
            asked: exchange.known_addresses().into_iter().collect(),
            core: self.settings.core,
        }
    }
}
