//! What is known of one name: the addresses of each family, and when to ask again.
//!
//! An answer of DNS need not be the whole truth: round-robin records, load balancers and large sets are answered in subsets that take
//! turns. So an address stays until it has been missing from [`MISSED_ANSWERS`] answers in a row and for [`MISSED_FOR`]: what
//! left and joined with each answer would have no connections, no history and no share of new clients. What stands in a file is
//! complete and replaces what was known at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::world::{Family, Lookup};

/// After a failure the name is asked for again after this ...
const RETRY_LEAST: Duration = Duration::from_secs(1);
/// ... doubled with each further failure up to this, or to the TTL of the other family's answer ...
const RETRY_MOST: Duration = Duration::from_secs(30);
/// ... but while it has no address at all only up to this: it may be all that this node could connect to.
const RETRY_WITHOUT: Duration = Duration::from_secs(2);
/// A resolver that says less is not asked more often.
const TTL_LEAST: Duration = Duration::from_secs(1);
/// An address that answers leave out stays for so long ...
const MISSED_FOR: Duration = Duration::from_secs(300);
/// ... and for so many of them.
const MISSED_ANSWERS: u32 = 3;
/// Of one answer at most this many addresses are used, the numerically first.
const ADDRESSES_AN_ANSWER: usize = 16;
/// Of one family at most this many are kept, the last seen.
const ADDRESSES_A_FAMILY: usize = 32;

/// What is known of one name.
pub(super) struct Known {
    families: [Addresses; 2],
    /// The look-up under way.
    pub(super) lookup: Option<u64>,
    /// When to ask again; [`None`] while a look-up is under way.
    pub(super) due: Option<Instant>,
}

/// The addresses of one family.
#[derive(Default)]
struct Addresses {
    seen: BTreeMap<IpAddr, Seen>,
    /// What the look-up under way has told.
    told: Option<Result<Duration, String>>,
    /// Why it could not be looked up last, and how often in a row.
    failing: Option<(String, u32)>,
}

/// When an answer had an address last.
struct Seen {
    at: Instant,
    /// Answers since then.
    missed: u32,
}

impl Known {
    pub(super) fn new(due: Instant) -> Known {
        Known { families: Default::default(), lookup: None, due: Some(due) }
    }

    /// A look-up begins.
    pub(super) fn begin(&mut self, lookup: u64) {
        self.lookup = Some(lookup);
        self.due = None;
        self.families.iter_mut().for_each(|family| family.told = None);
    }

    /// One family's answer.
    pub(super) fn learn(&mut self, name: &str, family: Family, answer: Result<Lookup, String>) {
        let before = self.addrs();
        let others = Family::ALL.iter().any(|other| *other != family && !self.families[*other as usize].seen.is_empty());
        let addresses = &mut self.families[family as usize];
        addresses.told = Some(match answer {
            // A name without addresses is a mistake of whoever serves it: what is known of it stays.
            Ok(lookup) if lookup.addrs.is_empty() && !others => Ok(lookup.ttl),
            Ok(lookup) => {
                addresses.learn(&lookup);
                Ok(lookup.ttl)
            }
            Err(reason) => Err(reason),
        });
        let addrs = self.addrs();
        if addrs != before {
            tracing::info!(name, ?addrs, ?before, "the name resolves");
        }
    }

    /// The look-up has ended; what it has told nothing of has failed for this reason. Returns how many families failed.
    pub(super) fn end(&mut self, name: &str, reason: &str) -> u64 {
        self.lookup = None;
        if self.addrs().is_empty() && self.families.iter().all(|family| matches!(family.told, Some(Ok(_)))) {
            self.families.iter_mut().for_each(|family| family.told = Some(Err("the name has no address".to_owned())));
        }
        let (mut failed, mut recovered) = (Vec::new(), Vec::new());
        let (mut failures, mut ttl, mut retry) = (0, None, None);
        for (family, addresses) in Family::ALL.iter().zip(&mut self.families) {
            match addresses.told.take().unwrap_or_else(|| Err(reason.to_owned())) {
                Ok(kept) => {
                    ttl = ttl.min(Some(kept)).or(Some(kept));
                    recovered.extend(addresses.failing.take().map(|_| family.as_str()));
                }
                Err(reason) => {
                    failures += 1;
                    let before = addresses.failing.as_ref().map_or(0, |(_, times)| *times);
                    if before == 0 {
                        failed.push((family.as_str(), reason.clone()));
                    }
                    let wait = RETRY_LEAST.saturating_mul(1 << before.min(16));
                    retry = retry.min(Some(wait)).or(Some(wait));
                    addresses.failing = Some((reason, before.saturating_add(1)));
                }
            }
        }
        for (family, reason) in failed {
            tracing::warn!(name, family, reason, kept = ?self.addrs(), "cannot resolve the name; what is known of it is kept");
        }
        for family in recovered {
            tracing::info!(name, family, addrs = ?self.addrs(), "the name resolves again");
        }
        let most = match ttl {
            Some(ttl) => ttl.max(TTL_LEAST),
            None if self.addrs().is_empty() => RETRY_WITHOUT,
            None => RETRY_MOST,
        };
        self.due = Some(Instant::now() + retry.unwrap_or(most).min(most));
        failures
    }

    /// All addresses, sorted.
    pub(super) fn addrs(&self) -> Vec<IpAddr> {
        self.families.iter().flat_map(|family| family.seen.keys().copied()).collect()
    }

    /// What cannot be looked up, and why.
    pub(super) fn problem(&self) -> Option<String> {
        let failing = Family::ALL.iter().zip(&self.families).filter_map(|(family, addresses)| {
            let (reason, times) = addresses.failing.as_ref()?;
            let kept = addresses.seen.len();
            Some(format!("{}: {reason} ({times} times in a row, {kept} addresses kept)", family.as_str()))
        });
        let failing: Vec<String> = failing.collect();
        (!failing.is_empty()).then(|| failing.join("; "))
    }
}

impl Addresses {
    fn learn(&mut self, lookup: &Lookup) {
        let now = Instant::now();
        let mut addrs: Vec<IpAddr> = lookup.addrs.iter().map(IpAddr::to_canonical).collect();
        addrs.sort();
        addrs.dedup();
        addrs.truncate(ADDRESSES_AN_ANSWER);
        self.seen.values_mut().for_each(|seen| seen.missed += 1);
        self.seen.extend(addrs.into_iter().map(|addr| (addr, Seen { at: now, missed: 0 })));
        self.seen.retain(|_, seen| {
            let lately = seen.missed < MISSED_ANSWERS || now.duration_since(seen.at) < MISSED_FOR;
            seen.missed == 0 || (lately && !lookup.complete)
        });
        while self.seen.len() > ADDRESSES_A_FAMILY {
            let oldest = self.seen.iter().min_by_key(|(addr, seen)| (seen.at, Reverse(**addr))).map(|(addr, _)| *addr);
            self.seen.retain(|addr, _| Some(*addr) != oldest);
        }
    }
}
