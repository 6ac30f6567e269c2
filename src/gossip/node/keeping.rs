//! What is kept on disk for the next start.

use std::time::Duration;

use tokio::time::Instant;

use super::super::cache::{Cache, KeptEndpoint};
use super::super::{identity, unpoisoned};
use super::Node;
use crate::engine::event::Remembered;
use crate::engine::policy;

/// Between two looks at what to keep.
const APART: Duration = Duration::from_secs(30);

impl Node {
    /// Keeps these endpoints, and what gossip knows now, on disk.
    pub(super) fn remember(&mut self, endpoints: Vec<Remembered>, cluster_size: u32) {
        let before = self.keeper.cache();
        let now = identity::millis(&*self.world.wall);
        let ago = |age: Duration| now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let keep = |kept: Remembered| KeptEndpoint { endpoint: kept.endpoint, node: kept.node, proven: ago(kept.age) };
        let mut kept: Vec<KeptEndpoint> = endpoints.into_iter().map(keep).take(policy::ENDPOINTS).collect();
        // Nothing to remember is no reason to forget: the next start may need what the last one knew.
        if kept.is_empty() {
            kept.clone_from(&before.endpoints);
        }
        self.write(Cache { endpoints: kept, cluster_size, ..(*before).clone() });
    }

    /// Keeps what gossip knows now, from time to time.
    pub(super) fn keep(&mut self, now: Instant) {
        if self.identity.keeping_is_due(now, APART) {
            self.keep_now();
        }
    }

    /// Keeps what gossip knows now.
    pub(super) fn keep_now(&self) {
        let cache = (*self.keeper.cache()).clone();
        self.write(cache);
    }

    fn write(&self, mut cache: Cache) {
        let exchange = unpoisoned(&self.shared.exchange);
        cache.items = exchange.catalog.items().map(|item| item.bytes.to_vec()).collect();
        let leads: Vec<_> = exchange.leads().collect();
        // Nobody to ask is no reason to forget whom one could ask.
        if !leads.is_empty() {
            cache.leads = leads;
        }
        cache.cookies = exchange.reporter.cookies().iter().map(|(addr, cookie)| (*addr, *cookie)).collect();
        drop(exchange);
        self.keeper.keep(cache);
    }
}
