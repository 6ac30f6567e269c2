//! Keeps names resolved, so that nobody who dials has to wait for DNS.
//!
//! DNS must not be able to take the cluster down: it delays no start (names appear when they are known), and when it fails the
//! last good answer stays for as long as it takes. Addresses that were written as such are there at once.
//!
//! One task asks for all names, each again at its TTL, and publishes the whole map when something in it changed. The families of a name are
//! kept apart ([`addresses`]): each is published when its answer is there, and one that fails keeps what it had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Host, HostPort};
use crate::supervise::{Supervised, caught};
use crate::world::{Family, Lookup, ResolveError, Resolver};

mod addresses;
#[cfg(test)]
mod tests;

use addresses::Known;

/// A look-up that takes longer has failed, as far as it has told nothing.
const LOOKUP: Duration = Duration::from_secs(20);

/// What is known of all hosts, those that never resolved left out. Addresses are sorted.
pub type Resolved = BTreeMap<HostPort, Vec<SocketAddr>>;

/// What cannot be resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failing {
    /// Names whose last look-up failed in a family, and why.
    pub names: BTreeMap<String, String>,
    /// Families of names that could not be looked up, since the start.
    pub failures: u64,
}

/// Keeps a set of hosts resolved until it is dropped.
#[derive(Debug)]
pub struct Names {
    resolved: watch::Receiver<Resolved>,
    failing: watch::Receiver<Failing>,
    task: Arc<Supervised>,
    _running: AbortOnDropHandle<()>,
}

impl Names {
    /// Starts to keep `targets` resolved, whatever they are at the time. Needs a running runtime; waits for nothing.
    pub fn start(resolver: Arc<dyn Resolver>, targets: watch::Receiver<Vec<HostPort>>) -> Names {
        let mut keeper = Keeper::new(resolver, targets);
        keeper.retarget();
        let (resolved, failing) = (keeper.published.subscribe(), keeper.failing.subscribe());
        let task = Arc::new(Supervised::new("names"));
        let running = tokio::spawn(keep_running(keeper, Arc::clone(&task)));
        Names { resolved, failing, task, _running: AbortOnDropHandle::new(running) }
    }

    /// How the task that resolves fares.
    pub fn task(&self) -> Arc<Supervised> {
        Arc::clone(&self.task)
    }

    /// What is known, now and after each change.
    pub fn resolved(&self) -> watch::Receiver<Resolved> {
        self.resolved.clone()
    }

    /// What cannot be resolved, now and after each change.
    pub fn failing(&self) -> watch::Receiver<Failing> {
        self.failing.clone()
    }
}

/// What is known of the names outlives a panic.
async fn keep_running(mut keeper: Keeper, task: Arc<Supervised>) {
    while let Err(reason) = caught(keeper.run()).await {
        task.panicked(&reason).await;
    }
}

/// A family's answer on its way from a look-up.
struct Told {
    name: String,
    lookup: u64,
    family: Family,
    answer: Result<Lookup, ResolveError>,
}

/// A look-up that is over, and why what it has not told has no answer.
struct Ended {
    name: String,
    lookup: u64,
    outcome: Result<(), String>,
}

struct Keeper {
    resolver: Arc<dyn Resolver>,
    targets: watch::Receiver<Vec<HostPort>>,
    hosts: BTreeMap<String, Known>,
    lookups: JoinSet<Ended>,
    count: u64,
    telling: mpsc::UnboundedSender<Told>,
    told: mpsc::UnboundedReceiver<Told>,
    published: watch::Sender<Resolved>,
    failing: watch::Sender<Failing>,
}

impl Keeper {
    fn new(resolver: Arc<dyn Resolver>, targets: watch::Receiver<Vec<HostPort>>) -> Keeper {
        // Two messages a look-up at most.
        let (telling, told) = mpsc::unbounded_channel();
        Keeper {
            resolver,
            targets,
            hosts: BTreeMap::new(),
            lookups: JoinSet::new(),
            count: 0,
            telling,
            told,
            published: watch::Sender::default(),
            failing: watch::Sender::default(),
        }
    }

    async fn run(&mut self) {
        let mut retargets = true;
        loop {
            self.ask_what_is_due();
            let next = self.hosts.values().filter_map(|known| known.due).min();
            tokio::select! {
                // What a look-up told comes before its end.
                biased;
                Some(told) = self.told.recv() => self.learn(told),
                Some(ended) = self.lookups.join_next() => match ended {
                    Ok(ended) => self.ended(ended),
                    // It catches its panics, and is never aborted.
                    Err(error) => tracing::debug!(%error, "a look-up has not ended by itself"),
                },
                changed = self.targets.changed(), if retargets => {
                    // Whoever named the targets may be gone; the names are kept resolved for who reads them.
                    retargets = changed.is_ok();
                    self.retarget();
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = self.published.closed() => return,
            }
        }
    }

    /// Takes up names that are new and lets go of those that are no longer asked for.
    fn retarget(&mut self) {
        let targets = self.targets.borrow_and_update().clone();
        let names: BTreeSet<String> = targets.into_iter().filter_map(|target| name(target.host)).collect();
        self.hosts.retain(|name, _| names.contains(name));
        for name in names {
            self.hosts.entry(name).or_insert_with(|| Known::new(Instant::now()));
        }
        self.publish();
    }

    fn ask_what_is_due(&mut self) {
        let now = Instant::now();
        for (name, known) in &mut self.hosts {
            if known.due.is_none_or(|due| due > now) {
                continue;
            }
            self.count += 1;
            let lookup = self.count;
            known.begin(lookup);
            self.lookups.spawn(look_up(self.resolver.clone(), name.clone(), lookup, self.telling.clone()));
        }
    }

    fn learn(&mut self, told: Told) {
        // Asked for no longer; or let go of and taken up again, with a look-up of its own.
        let Some(known) = self.hosts.get_mut(&told.name).filter(|known| known.lookup == Some(told.lookup)) else { return };
        known.learn(&told.name, told.family, told.answer.map_err(|error| error.reason));
        self.publish();
    }

    fn ended(&mut self, ended: Ended) {
        let Some(known) = self.hosts.get_mut(&ended.name).filter(|known| known.lookup == Some(ended.lookup)) else { return };
        let failures = known.end(&ended.name, ended.outcome.err().as_deref().unwrap_or("no answer"));
        self.failing.send_modify(|failing| failing.failures += failures);
        self.publish();
    }

    fn publish(&self) {
        let targets = self.targets.borrow().clone();
        let resolved: Resolved =
            targets.into_iter().filter_map(|target| Some((target.clone(), self.addresses(&target)?))).collect();
        self.published.send_if_modified(|published| replaced(published, resolved));
        let names = self.hosts.iter().filter_map(|(name, known)| Some((name.clone(), known.problem()?))).collect();
        self.failing.send_if_modified(|failing| replaced(&mut failing.names, names));
    }

    fn addresses(&self, target: &HostPort) -> Option<Vec<SocketAddr>> {
        match &target.host {
            Host::Ip(ip) => Some(vec![SocketAddr::new(ip.to_canonical(), target.port)]),
            Host::Name(name) => {
                let addrs = self.hosts.get(name)?.addrs();
                (!addrs.is_empty()).then(|| addrs.iter().map(|ip: &IpAddr| SocketAddr::new(*ip, target.port)).collect())
            }
        }
    }
}

/// Whether that changed anything.
fn replaced<T: PartialEq>(place: &mut T, by: T) -> bool {
    let changed = *place != by;
    *place = by;
    changed
}

/// One look-up. One that panics has failed, as far as it has told nothing.
async fn look_up(resolver: Arc<dyn Resolver>, name: String, lookup: u64, telling: mpsc::UnboundedSender<Told>) -> Ended {
    let found = |family, answer| {
        // The keeper may have gone.
        let _ = telling.send(Told { name: name.clone(), lookup, family, answer });
    };
    let outcome = match caught(timeout(LOOKUP, resolver.lookup(&name, &found))).await {
        Ok(Ok(outcome)) => outcome.map_err(|error| error.reason),
        Ok(Err(_)) => Err(format!("no answer within {} s", LOOKUP.as_secs())),
        Err(panic) => {
            tracing::error!(name, panic, "a look-up has panicked; it is tried again");
            Err(panic)
        }
    };
    Ended { name, lookup, outcome }
}

fn name(host: Host) -> Option<String> {
    match host {
        Host::Name(name) => Some(name),
        Host::Ip(_) => None,
    }
}
