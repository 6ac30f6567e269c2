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
    live: BTreeSet<SocketAddr>,
    /// And when each was last known to live.
    lost: BTreeMap<SocketAddr, Instant>,
    next: Option<Instant>,
}

impl Contacts {
    /// Begins with the peers from the cache.
    pub(super) fn new(now: Instant, cached: impl Iterator<Item = SocketAddr>) -> Contacts {
        Contacts { live: BTreeSet::new(), lost: cached.map(|addr| (addr, now)).collect(), next: None }
    }

    /// A life of gossip's library begins: ask many at once.
    pub(super) fn begin_life(&mut self) {
        self.next = None;
    }

    /// Notes where live members are, so that they can be asked once they are gone.
    pub(super) fn remember(&mut self, now: Instant, live: &BTreeSet<SocketAddr>) {
        self.lost.retain(|addr, seen| !live.contains(addr) && now < *seen + policy::CACHED_GONE);
        self.lost.extend(self.live.difference(live).map(|addr| (*addr, now)));
        while self.lost.len() > LOST {
            let oldest = self.lost.iter().min_by_key(|(_, seen)| **seen).map(|(addr, _)| *addr);
            oldest.and_then(|addr| self.lost.remove(&addr));
        }
        self.live.clone_from(live);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(places: std::ops::Range<u16>) -> BTreeSet<SocketAddr> {
        places.map(|place| SocketAddr::from(([10, 0, 0, 1], 10_000 + place))).collect()
    }

    /// Who is asked in the next hour.
    fn asked(contacts: &mut Contacts, from: Instant, live: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
        (1..=720).flat_map(|look| contacts.due(from + NOW_AND_THEN * look, &[], live, false)).collect()
    }

    #[test]
    fn who_is_lost_is_asked_however_many_live() {
        let now = Instant::now();
        let (all, rest) = (addresses(0..1_000), addresses(2..1_000));
        let mut contacts = Contacts::new(now, std::iter::empty());
        contacts.remember(now, &all);
        contacts.remember(now, &rest);
        contacts.remember(now + Duration::from_secs(3_600), &rest);
        assert_eq!(asked(&mut contacts, now, &rest), addresses(0..2));
    }

    #[test]
    fn who_is_back_is_not_lost_and_of_too_many_those_lost_last_are_kept() {
        let (now, many) = (Instant::now(), u16::try_from(LOST).unwrap());
        let mut contacts = Contacts::new(now, addresses(0..1).into_iter());
        contacts.remember(now, &addresses(0..1_000));
        contacts.remember(now + Duration::from_secs(1), &addresses(many..1_000));
        contacts.remember(now + Duration::from_secs(2), &addresses(many + 10..1_000));
        let lost: BTreeSet<SocketAddr> = contacts.lost.keys().copied().collect();
        assert_eq!(lost.len(), LOST);
        assert!(lost.is_superset(&addresses(many..many + 10)));
        contacts.remember(now + Duration::from_secs(3), &addresses(0..1_000));
        assert!(contacts.lost.is_empty());
    }

    #[test]
    fn whom_nobody_heard_for_days_is_given_up() {
        let now = Instant::now();
        let mut contacts = Contacts::new(now, addresses(0..3).into_iter());
        contacts.remember(now + policy::CACHED_GONE, &addresses(5..6));
        assert!(contacts.lost.is_empty());
    }
}
