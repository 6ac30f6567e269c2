//! Whom to talk to beside the members that gossip already talks to: seeds, peers from the cache, and those lost.
//!
//! Gossip's library forgets a dead member after its grace, and would then never heal a longer partition, nor one
//! that began while the seeds were gone. So what was once known is tried again and again, one of each kind at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::seq::IteratorRandom;
use tokio::time::Instant;

use crate::engine::policy;

/// Lost members that are remembered.
const LOST: usize = 256;
/// At the start, so many are asked at once.
const FIRST: usize = 8;
/// While nobody is heard, so many are asked each interval.
const ALONE: usize = 3;
/// Otherwise one seed and one lost peer are asked this often.
const NOW_AND_THEN: Duration = Duration::from_secs(5);

/// Whom to try.
pub(super) struct Contacts {
    lost: BTreeMap<SocketAddr, Instant>,
    next: Option<Instant>,
}

impl Contacts {
    /// Begins with the peers from the cache.
    pub(super) fn new(now: Instant, cached: impl Iterator<Item = SocketAddr>) -> Contacts {
        Contacts { lost: cached.map(|addr| (addr, now)).collect(), next: None }
    }

    /// A life of gossip's library begins: ask many at once.
    pub(super) fn begin_life(&mut self) {
        self.next = None;
    }

    /// Notes where members are, so that they can be asked when they are gone.
    pub(super) fn remember(&mut self, now: Instant, members: impl Iterator<Item = SocketAddr>) {
        self.lost.extend(members.map(|addr| (addr, now)));
        self.lost.retain(|_, seen| now < *seen + policy::CACHED_GONE);
        while self.lost.len() > LOST {
            let oldest = self.lost.iter().min_by_key(|(_, seen)| **seen).map(|(addr, _)| *addr);
            oldest.and_then(|addr| self.lost.remove(&addr));
        }
    }

    /// Whom to ask now. `known` are the addresses of live members and our own: those need no asking.
    pub(super) fn due(
        &mut self,
        now: Instant,
        seeds: &[SocketAddr],
        known: &BTreeSet<SocketAddr>,
        alone: bool,
    ) -> Vec<SocketAddr> {
        let mut rng = rand::rng();
        let seeds: BTreeSet<SocketAddr> = seeds.iter().copied().filter(|addr| !known.contains(addr)).collect();
        let lost = self.lost.keys().copied().filter(|addr| !known.contains(addr) && !seeds.contains(addr));
        let Some(next) = self.next else {
            self.next = Some(now + NOW_AND_THEN);
            let mut first = seeds.iter().copied().sample(&mut rng, FIRST);
            first.extend(lost.sample(&mut rng, FIRST - first.len()));
            return first;
        };
        if alone {
            return seeds.iter().copied().chain(lost).sample(&mut rng, ALONE);
        }
        if now < next {
            return Vec::new();
        }
        self.next = Some(now + NOW_AND_THEN);
        let mut both = seeds.iter().copied().sample(&mut rng, 1);
        both.extend(lost.sample(&mut rng, 1));
        both
    }
}
