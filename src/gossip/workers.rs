//! What a core member holds of the nodes that report to it, and what follows from it for its view.
//!
//! An entry belongs to one source address and one name: what comes from one address never changes what is held of another. It
//! lasts for twice the time in which the next Report was announced, and six seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::departed::{Departed, Gone};
use super::keys::KeyId;
use super::message::{Introduction, PRIORS, Report};
use crate::engine::endpoint::{EndpointTag, NodeId};
use crate::engine::event::{Observation, Verdict};
use crate::engine::policy;

/// Entries at most: those inside stay, newcomers are answered and not held.
pub const WORKERS: usize = 16_384;
/// Entries of one address at most: so many nodes may share one behind a NAT.
const OF_AN_ADDRESS: usize = policy::NODES_OF_AN_ADDRESS;
/// An entry outlives twice the announced time by this.
const SLACK: Duration = Duration::from_secs(6);
/// The longest time in which a next Report may be announced.
const LONGEST: Duration = Duration::from_secs(40);
/// So many addresses must report an endpoint before it counts as failing.
const REPORTERS: usize = 2;
/// Between two samples for one node, at first and at most.
const SAMPLES_APART: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3_600));
/// A sequence number further below the last one comes from a resumed snapshot: no network reorders that many Reports.
const REORDERED: u32 = 16;
/// Nodes whose round trips make a prior.
const NEIGHBOURS: usize = 5;

/// One node that reports.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its start, and its last Report's number.
    pub edition: (u64, u32),
    /// Since when it reports from there.
    pub since: Instant,
    /// When it was given a sample of others' addresses last.
    pub sampled: Instant,
    /// When it was heard last.
    pub heard: Instant,
    /// When its entry ends.
    pub expires: Instant,
    /// What it sees of endpoints.
    pub observations: Vec<Observation>,
    /// Core members that do not answer it.
    pub unanswered: Vec<NodeId>,
    /// Of the signed items that it holds.
    pub digest: u64,
    /// The number of this node's last view that it has heard, cut to 32 bits.
    pub view: u32,
    /// What it said of itself.
    pub introduction: Option<Introduction>,
    /// The key that its last Report was sealed with.
    pub key: KeyId,
    /// It has said that this Report was its last.
    pub left: bool,
}

/// What came of a Report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is held now; whether this node was unknown.
    Held {
        /// The entry is new.
        new: bool,
    },
    /// Not above the last from there: seen already, or replayed.
    Stale,
    /// The node is held at this generation, with a Report that is far above this one.
    Above(u64),
    /// It is held now, and another node of its name is heard at this address.
    Namesake(SocketAddr),
    /// There is no room.
    Crowded,
}

/// The table.
#[derive(Default)]
pub struct Workers {
    entries: BTreeMap<(NodeId, SocketAddr), Worker>,
    /// Entries of each address.
    of_address: BTreeMap<IpAddr, usize>,
    /// The next look for entries whose time is over: at most once a second, for each passes over all of them.
    expiry: Option<Instant>,
    departed: Departed,
}

impl Workers {
    /// Takes in what a validated address reports.
    pub fn take(&mut self, now: Instant, from: SocketAddr, report: &Report, key: KeyId) -> Taken {
        let place = (report.node, from);
        let edition = (report.generation, report.sequence);
        let before = self.entries.get(&place);
        if let Some(before) = before {
            if (report.generation, report.sequence.saturating_add(REORDERED)) < before.edition {
                return Taken::Above(before.edition.0);
            }
            if edition <= before.edition {
                return Taken::Stale;
            }
        } else if self.entries.len() >= WORKERS || self.of_address.get(&from.ip()).is_some_and(|of_it| *of_it >= OF_AN_ADDRESS) {
            return Taken::Crowded;
        }
        let former = self.departed.is_here(report.node, report.generation);
        let held = || before.and_then(|before| before.introduction.clone());
        let introduction = report.introduction.clone().or_else(held).or(former);
        let announced = Duration::from_secs(report.next_within_s.into()).min(LONGEST);
        let new = before.is_none();
        if new {
            *self.of_address.entry(from.ip()).or_default() += 1;
        }
        let expires = now + 2 * announced + SLACK;
        self.expiry = Some(self.expiry.map_or(expires, |expiry| expiry.min(expires)));
        let since = before.map_or(now, |before| before.since);
        self.entries.insert(
            place,
            Worker {
                edition,
                since,
                sampled: before.map_or(now, |before| before.sampled),
                heard: now,
                expires,
                observations: report.observations().collect(),
                unanswered: report.unanswered.clone(),
                digest: report.digest,
                view: report.view,
                introduction,
                key,
                left: report.next_within_s == 0,
            },
        );
        match self.namesake(report.node, from, since) {
            Some(theirs) => Taken::Namesake(theirs),
            None => Taken::Held { new },
        }
    }

    /// Where else a node of this name is heard: since this one came from here, and not by chance just before it moved.
    fn namesake(&self, node: NodeId, from: SocketAddr, since: Instant) -> Option<SocketAddr> {
        let its = (node, SocketAddr::from(([0, 0, 0, 0], 0)))..;
        let its = self.entries.range(its).take_while(|((named, _), _)| *named == node);
        its.filter(|((_, addr), other)| *addr != from && other.heard > since).map(|((_, addr), _)| *addr).next()
    }

    /// Whether a node is to be given a sample of other nodes' addresses again: the younger the cluster, the sooner.
    pub fn sample_is_due(&mut self, now: Instant, addr: SocketAddr, node: NodeId) -> bool {
        let Some(worker) = self.entries.get_mut(&(node, addr)) else { return false };
        let age = worker.sampled.saturating_duration_since(worker.since);
        let due = now >= worker.sampled + (3 * age).clamp(SAMPLES_APART.0, SAMPLES_APART.1);
        if due {
            worker.sampled = now;
        }
        due
    }

    /// Forgets those whose time is over; whether any was.
    pub fn expire(&mut self, now: Instant) -> bool {
        if self.expiry.is_none_or(|expiry| now < expiry) {
            return false;
        }
        let before = self.entries.len();
        for ((node, addr), worker) in self.entries.extract_if(.., |_, worker| now >= worker.expires) {
            self.departed.note(node, addr, worker);
        }
        self.of_address.clear();
        for (_, addr) in self.entries.keys() {
            *self.of_address.entry(addr.ip()).or_default() += 1;
        }
        let first = self.entries.values().map(|worker| worker.expires).min();
        self.expiry = first.map(|first| first.max(now + Duration::from_secs(1)));
        self.entries.len() < before
    }

    /// When [`Workers::expire`] may forget somebody, to the second.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiry
    }

    /// Workers that went within the last hour and have not come back, here or at another address.
    pub fn departed(&self, now: Instant) -> impl Iterator<Item = (NodeId, &Gone)> {
        let anywhere = |node: NodeId| (node, SocketAddr::from(([0, 0, 0, 0], 0)))..;
        let held = move |node: NodeId| self.entries.range(anywhere(node)).next().is_some_and(|((named, _), _)| *named == node);
        self.departed.iter(now).filter(move |(node, _)| !held(*node))
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, NodeId, &Worker)> {
        self.entries.iter().map(|((node, addr), worker)| (*addr, *node, worker))
    }

    /// One entry.
    pub fn get(&self, addr: SocketAddr, node: NodeId) -> Option<&Worker> {
        self.entries.get(&(node, addr))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody reports.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Nodes by address: at most so many names of one address count.
    pub fn count(&self, names_per_address: usize) -> usize {
        let mut names: BTreeMap<IpAddr, BTreeSet<NodeId>> = BTreeMap::new();
        for (node, addr) in self.entries.keys() {
            names.entry(addr.ip()).or_default().insert(*node);
        }
        names.values().map(|names| names.len().min(names_per_address)).sum()
    }

    /// The connections that these nodes and those hold, by endpoint.
    pub fn loads<'a>(&'a self, others: impl Iterator<Item = &'a Observation>) -> BTreeMap<EndpointTag, u32> {
        let theirs = self.entries.values().flat_map(|worker| &worker.observations);
        let mut loads: BTreeMap<EndpointTag, u32> = BTreeMap::new();
        for saw in theirs.chain(others).filter(|saw| saw.connections > 0) {
            let load = loads.entry(saw.endpoint).or_default();
            *load = load.saturating_add(saw.connections);
        }
        loads
    }

    /// Endpoints that several addresses, of these and of those, report as failing.
    pub fn failing(&self, others: impl Iterator<Item = (IpAddr, Observation)>) -> BTreeSet<EndpointTag> {
        let theirs = self.entries.iter().flat_map(|((_, addr), worker)| worker.observations.iter().map(|saw| (addr.ip(), *saw)));
        let mut reporters: BTreeMap<EndpointTag, BTreeSet<IpAddr>> = BTreeMap::new();
        for (addr, saw) in theirs.chain(others) {
            if matches!(saw.verdict, Verdict::Suspect | Verdict::Down) {
                reporters.entry(saw.endpoint).or_default().insert(addr);
            }
        }
        reporters.into_iter().filter(|(_, from)| from.len() >= REPORTERS).map(|(endpoint, _)| endpoint).collect()
    }

    /// For up to eight endpoints the median of what up to five other nodes report, those in the same network first.
    pub fn priors<'a>(
        &'a self,
        of: SocketAddr,
        others: impl Iterator<Item = (IpAddr, &'a Observation)>,
    ) -> BTreeMap<EndpointTag, Duration> {
        let theirs = self.entries.iter().flat_map(|((_, addr), worker)| worker.observations.iter().map(|saw| (addr.ip(), saw)));
        let (near, far): (Vec<_>, Vec<_>) =
            theirs.chain(others).filter(|(ip, _)| *ip != of.ip()).partition(|(ip, _)| same_network(*ip, of.ip()));
        let mut reports: BTreeMap<EndpointTag, Vec<Duration>> = BTreeMap::new();
        for (_, saw) in near.into_iter().chain(far) {
            let (Some(rtt), true) = (saw.rtt, reports.len() < PRIORS || reports.contains_key(&saw.endpoint)) else { continue };
            let of_it = reports.entry(saw.endpoint).or_default();
            if of_it.len() < NEIGHBOURS {
                of_it.push(rtt);
            }
        }
        reports.into_iter().filter_map(|(endpoint, rtts)| Some((endpoint, median(rtts)?))).collect()
    }
}

/// Whether two addresses are in one /24, or one /64.
pub fn same_network(one: IpAddr, other: IpAddr) -> bool {
    match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.segments()[..4] == other.segments()[..4],
        _ => false,
    }
}

fn median(mut of: Vec<Duration>) -> Option<Duration> {
    of.sort_unstable();
    of.get(of.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::super::message::{NONE, SeenEndpoint};
    use super::*;

    const KEY: KeyId = KeyId([1; 4]);

    fn addr(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, host / 100, host], port))
    }

    fn report(name: &str, generation: u64, sequence: u32, seen: &[Observation]) -> Report {
        Report {
            node: NodeId::of(name),
            core: false,
            generation,
            sequence,
            next_within_s: 5,
            cookie: NONE,
            echo: NONE,
            digest: 0,
            view: 0,
            holds: Vec::new(),
            observations: seen.iter().map(SeenEndpoint::from).collect(),
            unanswered: Vec::new(),
            introduction: None,
            items: Vec::new(),
        }
    }

    fn saw(endpoint: u32, verdict: Verdict, ms: u64) -> Observation {
        Observation { endpoint: EndpointTag(endpoint), rtt: Some(Duration::from_millis(ms)), verdict, connections: 2 }
    }

    #[test]
    fn what_was_heard_already_changes_nothing_and_a_former_start_is_told() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        assert_eq!(workers.take(now, addr(1, 1), &report("w", 5, 9, &[]), KEY), Taken::Held { new: true });
        assert_eq!(workers.take(now, addr(1, 1), &report("w", 5, 9, &[]), KEY), Taken::Stale);
        assert_eq!(workers.take(now, addr(1, 1), &report("w", 5, 8, &[]), KEY), Taken::Stale);
        assert_eq!(workers.take(now, addr(1, 1), &report("w", 4, 99, &[]), KEY), Taken::Above(5));
        assert_eq!(workers.take(now, addr(1, 1), &report("w", 6, 1, &[]), KEY), Taken::Held { new: false });
    }

    #[test]
    fn who_runs_from_a_snapshot_is_told_to_begin_another_generation() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        workers.take(now, addr(1, 1), &report("w", 5, 100, &[]), KEY);
        assert_eq!(workers.take(now, addr(1, 1), &report("w", 5, 83, &[]), KEY), Taken::Above(5));
        assert_eq!(workers.take(now, addr(1, 1), &report("w", 5, 84, &[]), KEY), Taken::Stale, "it may be late");
    }

    #[test]
    fn one_address_changes_nothing_of_another() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        workers.take(now, addr(1, 1), &report("w", 5, 9, &[saw(1, Verdict::Ready, 1)]), KEY);
        let later = now + Duration::from_secs(4);
        assert_eq!(workers.take(later, addr(2, 1), &report("w", u64::MAX, u32::MAX, &[]), KEY), Taken::Held { new: true });
        let told = workers.take(later, addr(1, 1), &report("w", 5, 10, &[]), KEY);
        assert_eq!(told, Taken::Namesake(addr(2, 1)), "it is held, and told of the other");
        let later = later + Duration::from_secs(4);
        assert_eq!(workers.take(later, addr(2, 1), &report("w", u64::MAX, u32::MAX, &[]), KEY), Taken::Stale);
    }

    #[test]
    fn an_entry_ends_after_twice_the_announced_time_and_six_seconds() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        workers.take(now, addr(1, 1), &report("w", 5, 9, &[]), KEY);
        assert!(!workers.expire(now + Duration::from_millis(15_999)));
        assert!(workers.expire(now + Duration::from_secs(16)));
        let forever = Report { next_within_s: 255, ..report("w", 5, 10, &[]) };
        workers.take(now, addr(1, 1), &forever, KEY);
        assert!(workers.expire(now + Duration::from_secs(86)));
    }

    #[test]
    fn who_went_is_remembered_for_an_hour_or_until_it_is_back() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        let seconds = Duration::from_secs;
        workers.take(now, addr(1, 1), &report("away", 5, 1, &[]), KEY);
        workers.take(now, addr(2, 1), &Report { next_within_s: 0, ..report("left", 5, 1, &[]) }, KEY);
        assert_eq!(workers.departed(now).count(), 0);
        assert!(workers.expire(now + seconds(16)));
        let gone = |workers: &Workers, at: Instant| {
            workers.departed(at).map(|(node, gone)| (node, gone.left)).collect::<BTreeMap<_, _>>()
        };
        let both = BTreeMap::from([(NodeId::of("away"), false), (NodeId::of("left"), true)]);
        assert_eq!(gone(&workers, now + seconds(3_599)), both);
        assert!(gone(&workers, now + seconds(3_600)).is_empty());
        workers.take(now + seconds(20), addr(3, 1), &report("away", 6, 1, &[]), KEY);
        assert_eq!(gone(&workers, now + seconds(20)).len(), 1, "it is back at another address");
    }

    #[test]
    fn of_very_many_that_went_the_last_are_remembered() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        for n in 0..2_000_u16 {
            let [high, low] = n.to_be_bytes();
            let from = SocketAddr::from(([10, 1, high, low], 7447));
            workers.take(now + Duration::from_millis(n.into()), from, &report(&format!("w-{n}"), 1, 1, &[]), KEY);
        }
        let later = now + Duration::from_secs(60);
        workers.expire(later);
        let oldest = workers.departed(later).map(|(_, gone)| gone.heard).min().unwrap();
        assert_eq!((workers.departed(later).count(), oldest), (1_024, now + Duration::from_millis(2_000 - 1_024)));
    }

    #[test]
    fn a_full_table_keeps_who_is_inside() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        for n in 0..WORKERS {
            let from = {
                let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
                SocketAddr::from(([10, 1, high, low], 7447))
            };
            assert_eq!(workers.take(now, from, &report("w", 1, 1, &[]), KEY), Taken::Held { new: true });
        }
        assert_eq!(workers.take(now, addr(1, 1), &report("new", 1, 1, &[]), KEY), Taken::Crowded);
        let inside = SocketAddr::from(([10, 1, 0, 0], 7447));
        assert_eq!(workers.take(now, inside, &report("w", 1, 2, &[]), KEY), Taken::Held { new: false });
    }

    #[test]
    fn one_address_does_not_fill_the_table() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        for n in 0..2 * u16::try_from(OF_AN_ADDRESS).unwrap() {
            workers.take(now, addr(1, n), &report(&format!("w-{n}"), 1, 1, &[]), KEY);
        }
        assert_eq!(workers.len(), OF_AN_ADDRESS);
        assert_eq!(workers.take(now, addr(2, 1), &report("other", 1, 1, &[]), KEY), Taken::Held { new: true });
        let later = now + Duration::from_secs(60);
        assert!(workers.expire(later) && workers.is_empty());
        assert_eq!(workers.take(later, addr(1, 1), &report("w", 1, 1, &[]), KEY), Taken::Held { new: true });
    }

    #[test]
    fn many_names_of_one_address_count_as_four() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        for n in 0..100 {
            workers.take(now, addr(1, n), &report(&format!("w-{n}"), 1, 1, &[]), KEY);
        }
        workers.take(now, addr(2, 1), &report("other", 1, 1, &[]), KEY);
        assert_eq!(workers.count(4), 5);
    }

    #[test]
    fn one_address_alone_makes_no_endpoint_fail_whatever_names_it_uses() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        for n in 0..50 {
            workers.take(now, addr(1, n), &report(&format!("w-{n}"), 1, 1, &[saw(7, Verdict::Down, 1)]), KEY);
        }
        assert!(workers.failing(std::iter::empty()).is_empty());
        workers.take(now, addr(2, 1), &report("other", 1, 1, &[saw(7, Verdict::Suspect, 1)]), KEY);
        assert_eq!(workers.failing(std::iter::empty()), [EndpointTag(7)].into());
    }

    #[test]
    fn a_prior_is_the_median_of_neighbours_before_others() {
        let (now, mut workers) = (Instant::now(), Workers::default());
        for host in 1..=5 {
            workers.take(now, addr(host, 1), &report(&format!("near-{host}"), 1, 1, &[saw(7, Verdict::Ready, 3)]), KEY);
        }
        for host in 101..=150 {
            workers.take(now, addr(host, 1), &report(&format!("far-{host}"), 1, 1, &[saw(7, Verdict::Ready, 80)]), KEY);
        }
        let near = workers.priors(addr(9, 1), std::iter::empty())[&EndpointTag(7)];
        assert!(near < Duration::from_millis(4), "{near:?}");
        assert!(workers.priors(addr(160, 1), std::iter::empty())[&EndpointTag(7)] > Duration::from_millis(70));
    }
}
