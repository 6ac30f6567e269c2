//! Keeps names resolved, so that nobody who dials has to wait for DNS.
//!
//! DNS must not be able to take the cluster down: it delays no start (names appear when they are known), and when it fails the
//! last good answer stays for as long as it takes. Addresses that were written as such are there at once.
//!
//! One task asks for all names, each again at its TTL, and publishes the whole map when something in it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Host, HostPort};
use crate::supervise::{Supervised, caught};
use crate::world::{Lookup, ResolveError, Resolver};

/// After a failure the name is asked for again after this ...
const RETRY_LEAST: Duration = Duration::from_secs(1);
/// ... doubled with each further failure up to this.
const RETRY_MOST: Duration = Duration::from_secs(30);
/// A lookup that takes longer has failed. Two servers, two attempts, 5 s each are what resolv.conf(5) makes of a dead network.
const LOOKUP: Duration = Duration::from_secs(20);
/// A resolver that says less is not asked more often.
const TTL_LEAST: Duration = Duration::from_secs(1);
/// Of one name's addresses at most this many are used, the numerically first.
const ADDRESSES_A_NAME: usize = 16;

/// What is known of all hosts, those that never resolved left out. Addresses are sorted.
pub type Resolved = BTreeMap<HostPort, Vec<SocketAddr>>;

/// Keeps a set of hosts resolved until it is dropped.
#[derive(Debug)]
pub struct Names {
    resolved: watch::Receiver<Resolved>,
    task: Arc<Supervised>,
    _running: AbortOnDropHandle<()>,
}

impl Names {
    /// Starts to keep `targets` resolved, whatever they are at the time. Needs a running runtime; waits for nothing.
    pub fn start(resolver: Arc<dyn Resolver>, targets: watch::Receiver<Vec<HostPort>>) -> Names {
        let mut keeper =
            Keeper { resolver, targets, hosts: BTreeMap::new(), lookups: JoinSet::new(), published: watch::Sender::default() };
        keeper.retarget();
        let resolved = keeper.published.subscribe();
        let task = Arc::new(Supervised::new("names"));
        let running = tokio::spawn(keep_running(keeper, Arc::clone(&task)));
        Names { resolved, task, _running: AbortOnDropHandle::new(running) }
    }

    /// How the task that resolves fares.
    pub fn task(&self) -> Arc<Supervised> {
        Arc::clone(&self.task)
    }

    /// What is known, now and after each change.
    pub fn resolved(&self) -> watch::Receiver<Resolved> {
        self.resolved.clone()
    }
}

/// What is known of the names outlives a panic.
async fn keep_running(mut keeper: Keeper, task: Arc<Supervised>) {
    while let Err(reason) = caught(keeper.run()).await {
        task.panicked(&reason).await;
    }
}

struct Keeper {
    resolver: Arc<dyn Resolver>,
    targets: watch::Receiver<Vec<HostPort>>,
    hosts: BTreeMap<String, Known>,
    lookups: JoinSet<(String, Result<Lookup, ResolveError>)>,
    published: watch::Sender<Resolved>,
}

/// What is known of one name.
#[derive(Default)]
struct Known {
    addrs: Vec<IpAddr>,
    failures: u32,
    /// When to ask again; [`None`] while a lookup is under way.
    due: Option<Instant>,
}

impl Keeper {
    async fn run(&mut self) {
        let mut told = true;
        loop {
            self.ask_what_is_due();
            let next = self.hosts.values().filter_map(|known| known.due).min();
            tokio::select! {
                changed = self.targets.changed(), if told => {
                    // Whoever named the targets may be gone; the names are kept resolved for who reads them.
                    told = changed.is_ok();
                    self.retarget();
                }
                Some(done) = self.lookups.join_next() => {
                    if let Ok((name, answer)) = done {
                        self.learn(&name, answer);
                    }
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
            self.hosts.entry(name).or_insert_with(|| Known { due: Some(Instant::now()), ..Known::default() });
        }
        self.publish();
    }

    fn ask_what_is_due(&mut self) {
        let now = Instant::now();
        for (name, known) in &mut self.hosts {
            if known.due.is_none_or(|due| due > now) {
                continue;
            }
            known.due = None;
            let (resolver, name) = (self.resolver.clone(), name.clone());
            self.lookups.spawn(async move {
                let late = || ResolveError { name: name.clone(), reason: format!("no answer within {} s", LOOKUP.as_secs()) };
                let answer = timeout(LOOKUP, resolver.lookup(&name)).await.unwrap_or_else(|_| Err(late()));
                (name, answer)
            });
        }
    }

    fn learn(&mut self, name: &str, answer: Result<Lookup, ResolveError>) {
        // Asked for no longer; or let go of and taken up again, with a lookup of its own to come.
        let Some(known) = self.hosts.get_mut(name).filter(|known| known.due.is_none()) else { return };
        match answer {
            Ok(lookup) if !lookup.addrs.is_empty() => {
                known.learn(name, &lookup);
                self.publish();
            }
            Ok(_) => known.fail(name, &"the name has no address"),
            Err(error) => known.fail(name, &error.reason),
        }
    }

    fn publish(&self) {
        let targets = self.targets.borrow().clone();
        let resolved: Resolved =
            targets.into_iter().filter_map(|target| Some((target.clone(), self.addresses(&target)?))).collect();
        self.published.send_if_modified(|published| {
            let changed = *published != resolved;
            *published = resolved;
            changed
        });
    }

    fn addresses(&self, target: &HostPort) -> Option<Vec<SocketAddr>> {
        match &target.host {
            Host::Ip(ip) => Some(vec![SocketAddr::new(ip.to_canonical(), target.port)]),
            Host::Name(name) => {
                let addrs = &self.hosts.get(name)?.addrs;
                (!addrs.is_empty()).then(|| addrs.iter().map(|ip| SocketAddr::new(*ip, target.port)).collect())
            }
        }
    }
}

impl Known {
    fn learn(&mut self, name: &str, lookup: &Lookup) {
        let addrs: BTreeSet<IpAddr> = lookup.addrs.iter().map(IpAddr::to_canonical).collect();
        let addrs: Vec<IpAddr> = addrs.into_iter().take(ADDRESSES_A_NAME).collect();
        if self.failures > 0 {
            tracing::info!(name, ?addrs, "the name resolves again");
        } else if self.addrs != addrs {
            tracing::info!(name, ?addrs, before = ?self.addrs, "the name resolves");
        }
        self.addrs = addrs;
        self.failures = 0;
        self.due = Some(Instant::now() + lookup.ttl.max(TTL_LEAST));
    }

    fn fail(&mut self, name: &str, reason: &dyn std::fmt::Display) {
        if self.failures == 0 {
            tracing::warn!(name, %reason, kept = ?self.addrs, "cannot resolve the name; what is known of it is kept");
        }
        let wait = RETRY_LEAST.saturating_mul(1 << self.failures.min(5)).min(RETRY_MOST);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(Instant::now() + wait);
    }
}

fn name(host: Host) -> Option<String> {
    match host {
        Host::Name(name) => Some(name),
        Host::Ip(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::time::{advance, sleep};

    use super::*;
    use crate::world::BoxFuture;

    /// Answers as scripted, then fails; counts the questions.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Answer>>,
        asked: Mutex<Vec<Instant>>,
    }

    enum Answer {
        Is(&'static [&'static str], u64),
        Fails,
        Hangs,
    }

    impl Script {
        fn of(answers: impl Into<VecDeque<Answer>>) -> Arc<Script> {
            Arc::new(Script { answers: Mutex::new(answers.into()), asked: Mutex::default() })
        }

        fn asked_after(&self) -> Vec<u64> {
            let asked = self.asked.lock().unwrap();
            asked.iter().map(|at| (*at - asked[0]).as_secs()).collect()
        }
    }

    impl Resolver for Script {
        fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Lookup, ResolveError>> {
            self.asked.lock().unwrap().push(Instant::now());
            let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Fails);
            Box::pin(async move {
                match answer {
                    Answer::Is(addrs, ttl) => {
                        let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
                        Ok(Lookup { addrs, ttl: Duration::from_secs(ttl) })
                    }
                    Answer::Fails => Err(ResolveError { name: name.to_owned(), reason: "scripted".to_owned() }),
                    Answer::Hangs => std::future::pending().await,
                }
            })
        }
    }

    fn named(name: &str) -> HostPort {
        HostPort { host: Host::Name(name.to_owned()), port: 6443 }
    }

    fn literal(ip: &str) -> HostPort {
        HostPort { host: Host::Ip(ip.parse().unwrap()), port: 6443 }
    }

    fn addresses(names: &Names, target: &HostPort) -> Option<Vec<String>> {
        Some(names.resolved().borrow().get(target)?.iter().map(ToString::to_string).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_written_address_is_there_at_once_and_a_name_once_it_is_known() {
        let script = Script::of([Answer::Is(&["10.0.0.2", "10.0.0.1", "fd00::1"], 60)]);
        let (_targets, watched) = watch::channel(vec![literal("10.1.1.1"), named("api")]);
        let names = Names::start(script, watched);
        assert_eq!(addresses(&names, &literal("10.1.1.1")).unwrap(), ["10.1.1.1:6443"]);
        assert_eq!(addresses(&names, &named("api")), None);
        names.resolved().changed().await.unwrap();
        assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443", "10.0.0.2:6443", "[fd00::1]:6443"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_again_at_its_ttl() {
        let script = Script::of([Answer::Is(&["10.0.0.1"], 60), Answer::Is(&["10.0.0.2"], 600)]);
        let (_targets, watched) = watch::channel(vec![named("api")]);
        let names = Names::start(script.clone(), watched);
        sleep(Duration::from_secs(59)).await;
        assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443"]);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.2:6443"]);
        assert_eq!(script.asked_after(), [0, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_is_kept_while_dns_fails_and_the_retries_back_off() {
        let script = Script::of([Answer::Is(&["10.0.0.1"], 10)]);
        let (_targets, watched) = watch::channel(vec![named("api")]);
        let names = Names::start(script.clone(), watched);
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443"]);
        assert_eq!(script.asked_after()[..9], [0, 10, 11, 13, 17, 25, 41, 71, 101]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_holds_up_neither_the_start_nor_the_other_names() {
        let script = Script::of([Answer::Hangs, Answer::Is(&["10.0.0.2"], 600), Answer::Is(&["10.0.0.1"], 600)]);
        let (_targets, watched) = watch::channel(vec![named("a"), named("b")]);
        let names = Names::start(script, watched);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(addresses(&names, &named("a")), None);
        assert_eq!(addresses(&names, &named("b")).unwrap(), ["10.0.0.2:6443"]);
        sleep(LOOKUP + RETRY_LEAST + Duration::from_millis(1)).await;
        assert_eq!(addresses(&names, &named("a")).unwrap(), ["10.0.0.1:6443"]);
    }

    #[tokio::test(start_paused = true)]
    async fn targets_come_and_go_and_what_stays_is_not_asked_for_again() {
        let script = Script::of([Answer::Is(&["10.0.0.1"], 600), Answer::Is(&["10.0.0.2"], 600)]);
        let (targets, watched) = watch::channel(vec![named("a")]);
        let names = Names::start(script.clone(), watched);
        sleep(Duration::from_secs(5)).await;
        targets.send_replace(vec![named("a"), named("b"), literal("10.0.0.3")]);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(script.asked_after(), [0, 5]);
        assert_eq!(names.resolved().borrow().len(), 3);
        targets.send_replace(vec![named("b")]);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(names.resolved().borrow().keys().cloned().collect::<Vec<_>>(), [named("b")]);
        drop(targets);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(addresses(&names, &named("b")).unwrap(), ["10.0.0.2:6443"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_changes_nothing_wakes_nobody() {
        let script = Script::of([Answer::Is(&["10.0.0.1", "10.0.0.2"], 10), Answer::Is(&["10.0.0.2", "10.0.0.1"], 600)]);
        let (_targets, watched) = watch::channel(vec![named("a")]);
        let names = Names::start(script, watched);
        let mut resolved = names.resolved();
        resolved.changed().await.unwrap();
        resolved.mark_unchanged();
        advance(Duration::from_secs(11)).await;
        sleep(Duration::from_secs(1)).await;
        assert!(!resolved.has_changed().unwrap());
    }
}
