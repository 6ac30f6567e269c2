//! Three control-plane nodes and two workers, ten new TLS connections a second and one long-lived stream on each; and
//! what may be claimed about them once something has broken.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use simulations::lab::client::{Asking, Habit};
use simulations::lab::cluster::{Cluster, Plan};
use simulations::lab::tally::{Request, Tally, usual};
use simulations::lab::watcher::{End, Stream, Watcher};
use tokio::time::{Instant, sleep};

use crate::bounds::{Claims, either, granted, strict};

/// Each node's new connections.
const EVERY: Duration = Duration::from_millis(100);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// By then a stream that has ended has been dialled again.
const REDIALLED: Duration = Duration::from_secs(1);
/// A new connection that is no more than this late is not late.
pub(crate) const NOT_LATE: Duration = Duration::from_millis(50);
/// A node's agent did not say.
const NO_WORD: &str = "no word";
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The executable whose hidden subcommands are the children.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_simulations"))
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The clients of one node.
struct Clients {
    node: usize,
    tally: Tally,
    asking: Option<Asking>,
    watcher: Watcher,
    /// The stream that it had when something broke.
    before: Option<Stream>,
}

/// A cluster at work.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    clients: Vec<Clients>,
    began: Instant,
    /// When it broke.
    pub(crate) broke: Instant,
    usual: Duration,
}

impl Scene {
    /// The ordinary cluster, at work for as long as it takes to know what is usual.
    pub(crate) async fn calm() -> Result<Scene> {
        let cluster = Cluster::start(Plan::ordinary(program())).await?;
        Scene::of(cluster).await
    }

    /// This cluster at work.
    pub(crate) async fn of(cluster: Cluster) -> Result<Scene> {
        let began = Instant::now();
        let habit = Habit { every: EVERY, patience: PATIENCE, retries: false };
        let mut clients = Vec::new();
        for node in 0..cluster.nodes.len() {
            let tally = Tally::default();
            let watcher = Watcher::start(cluster.through(node, "/watch")?);
            let asking = Some(Asking::start(cluster.through(node, "/api/v1/nodes")?, habit, tally.clone()));
            clients.push(Clients { node, tally, asking, watcher, before: None });
        }
        sleep(either(secs(10), secs(3))).await;
        Ok(Scene { cluster, clients, began, broke: Instant::now(), usual: Duration::ZERO })
    }

    /// From here on it is broken: what is usual is known, and who holds which stream.
    pub(crate) fn breaks(&mut self) {
        self.broke = Instant::now();
        let before: Vec<Request> =
            self.clients.iter().flat_map(|clients| clients.tally.between(self.began, self.broke)).collect();
        self.usual = usual(&before);
        for clients in &mut self.clients {
            clients.before = clients.watcher.current();
        }
    }

    /// Times count from here on; what is claimed of streams and of what is usual stays. To be called when something has died:
    /// until then what dies still answers, and can take a new request with it.
    pub(crate) fn mark(&mut self) {
        self.broke = Instant::now();
    }

    /// This node's clients are gone with it.
    pub(crate) fn without(&mut self, node: usize) {
        self.clients.retain(|clients| clients.node != node);
    }

    /// Lets time pass: so long after the break.
    pub(crate) async fn until(&self, after: Duration) {
        tokio::time::sleep_until(self.broke + after).await;
    }

    /// Lets time pass until something is so; [`None`] if it is not within the time after the break.
    pub(crate) async fn wait(&self, within: Duration, so: impl AsyncFn(&Scene) -> bool) -> Option<Duration> {
        loop {
            if so(self).await {
                return Some(self.broke.elapsed());
            }
            if self.broke.elapsed() > within {
                return None;
            }
            sleep(LOOK).await;
        }
    }

    /// Stops the clients and lets what is under way end: requests, and streams that are dialled again.
    pub(crate) async fn settle(&mut self) {
        for clients in &mut self.clients {
            if let Some(asking) = clients.asking.as_mut() {
                asking.pause();
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.clients.iter().any(|clients| clients.tally.waiting() > 0) {
            sleep(LOOK).await;
        }
        let deadline = Instant::now() + granted(REDIALLED);
        while Instant::now() < deadline && !self.all_flow() {
            sleep(LOOK).await;
        }
    }

    /// Requests begun so long after the break, or later.
    pub(crate) fn requests(&self, after: Duration) -> Vec<Request> {
        self.clients.iter().flat_map(|clients| clients.tally.since(self.broke + after)).collect()
    }

    /// The requests of one node, begun so long after the break, or later.
    pub(crate) fn requests_of(&self, node: usize, after: Duration) -> Vec<Request> {
        let of = self.clients.iter().filter(|clients| clients.node == node);
        of.flat_map(|clients| clients.tally.since(self.broke + after)).collect()
    }

    /// A connection has failed if its client saw an error before the upstream's first byte, or if it was opened after the
    /// break and fails.
    pub(crate) fn none_failed(&self, claims: &mut Claims) {
        let all: Vec<Request> = self.clients.iter().flat_map(|clients| clients.tally.since(self.began)).collect();
        let failed: Vec<String> = all.iter().filter_map(|request| self.failed(request)).collect();
        let few = failed.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        claims.add(failed.is_empty(), "0 failed", format!("{} of {} {few}", failed.len(), all.len()));
    }

    fn failed(&self, request: &Request) -> Option<String> {
        let began = format!("{:+.3} s", request.began.saturating_duration_since(self.broke).as_secs_f64());
        match (&request.ended, request.failure()) {
            (None, _) => Some(format!("{began}: no answer yet")),
            (_, Some(failure)) if failure.before_first_byte || request.began >= self.broke => {
                Some(format!("{began}, after {:?}: {}", request.took(), failure.why))
            }
            _ => None,
        }
    }

    /// No connection opened so long after the break, or later, was later than this.
    pub(crate) fn none_later_than(&self, late: Duration, after: Duration, claims: &mut Claims) {
        let (late, after) = (granted(late), granted(after));
        let worst = self.requests(after).iter().map(|request| request.took().saturating_sub(self.usual)).max();
        // An ordinary run does not wait until there are any.
        let Some(worst) = worst.or(strict().then_some(Duration::MAX)) else { return };
        let should = format!("none later than {late:?} after {after:?}");
        claims.add(worst <= late, &should, format!("at most {worst:.1?}, usual {:.1?}", self.usual));
    }

    /// Streams that were not carried by this server go on; with [`None`]: all streams.
    pub(crate) fn others_untouched(&self, server: Option<&str>, claims: &mut Claims) {
        let others = self.clients.iter().filter(|clients| server.is_none() || before(clients) != server);
        let mut count = 0;
        let mut touched = Vec::new();
        for clients in others {
            count += 1;
            let (Some(before), Some(now)) = (&clients.before, clients.watcher.current()) else {
                touched.push(format!("{} has none", self.name(clients)));
                continue;
            };
            if before.dialled != now.dialled {
                touched.push(format!("{} lost its own to {:?}", self.name(clients), before.server));
            }
        }
        claims.add(
            touched.is_empty(),
            "other streams untouched",
            format!("{} of {count} {}", count - touched.len(), touched.join("; ")),
        );
    }

    /// Whether every stream that this server carried has ended.
    pub(crate) fn all_ended(&self, server: &str) -> bool {
        self.ends(server).iter().all(Option::is_some)
    }

    /// Streams that this server carried have ended, none before and none after these times.
    pub(crate) fn streams_ended(&self, server: &str, not_before: Duration, within: Duration, claims: &mut Claims) {
        let within = granted(within);
        let ends = self.ends(server);
        let good = |end: &Option<Duration>| end.is_some_and(|end| end >= not_before && end <= within);
        let seen: Vec<String> =
            ends.iter().map(|end| end.map_or("not".to_owned(), |end| format!("{:.2} s", end.as_secs_f64()))).collect();
        let should = format!("{server}'s streams ended within {within:?}, not before {not_before:?}");
        claims.add(!ends.is_empty() && ends.iter().all(good), &should, seen.join(", "));
    }

    /// A node's stream, whoever carried it, has ended between these times.
    pub(crate) fn stream_of_node_ended(&self, node: usize, not_before: Duration, within: Duration, claims: &mut Claims) {
        let within = granted(within);
        let end = self.clients.iter().find(|clients| clients.node == node).and_then(|clients| self.end_of(clients));
        let should = format!("its stream ended within {within:?}, not before {not_before:?}");
        claims.add(end.is_some_and(|end| end >= not_before && end <= within), &should, format!("{end:.2?}"));
    }

    /// The server that carries a node's stream now.
    pub(crate) fn server_of(&self, node: usize) -> Option<String> {
        self.clients.iter().find(|clients| clients.node == node)?.watcher.current()?.server
    }

    /// When the streams of this server ended, after the break.
    fn ends(&self, server: &str) -> Vec<Option<Duration>> {
        let its = self.clients.iter().filter(|clients| before(clients) == Some(server));
        its.map(|clients| self.end_of(clients)).collect()
    }

    /// When the stream ended that a node had when it broke.
    fn end_of(&self, clients: &Clients) -> Option<Duration> {
        let dialled = clients.before.as_ref()?.dialled;
        let stream = clients.watcher.streams().into_iter().find(|stream| stream.dialled == dialled)?;
        stream.ended.map(|(at, _)| at.saturating_duration_since(self.broke))
    }

    /// Every node has a stream, and no stream ever lost a line.
    pub(crate) fn streams_flow(&self, claims: &mut Claims) {
        let without: Vec<&str> =
            self.clients.iter().filter(|clients| clients.watcher.current().is_none()).map(|clients| self.name(clients)).collect();
        claims.add(without.is_empty(), "every node has a stream", format!("{} have none {}", without.len(), without.join(", ")));
        let streams = self.clients.iter().flat_map(|clients| clients.watcher.streams());
        let broken: Vec<String> = streams
            .filter_map(|stream| match stream.ended {
                Some((_, End::Broken(why))) => Some(why),
                _ => None,
            })
            .collect();
        claims.add(broken.is_empty(), "no stream lost a line", format!("{} did {}", broken.len(), broken.join("; ")));
    }

    /// Whether every node has a stream.
    pub(crate) fn all_flow(&self) -> bool {
        self.clients.iter().all(|clients| clients.watcher.current().is_some())
    }

    /// Whether no node that has an agent holds this apiserver to be ready.
    pub(crate) async fn off_everywhere(&self, apiserver: usize) -> bool {
        self.verdicts(apiserver).await.iter().all(|verdict| verdict != "ready" && verdict != NO_WORD)
    }

    /// Whether every node that has an agent holds this apiserver to be ready.
    pub(crate) async fn used_everywhere(&self, apiserver: usize) -> bool {
        self.all_hold(apiserver, "ready").await
    }

    /// Whether every node that has an agent holds this of an apiserver.
    pub(crate) async fn all_hold(&self, apiserver: usize, verdict: &str) -> bool {
        self.verdicts(apiserver).await.iter().all(|held| held == verdict)
    }

    /// What the nodes that have an agent hold of an apiserver.
    pub(crate) async fn verdicts(&self, apiserver: usize) -> Vec<String> {
        let mut verdicts = Vec::new();
        let Some(addr) = self.cluster.apiservers.get(apiserver).map(|apiserver| apiserver.addr) else { return verdicts };
        for node in self.cluster.nodes.iter().filter(|node| node.agent.is_some()) {
            let verdict = node.status().await.map(|status| status.verdict(addr).unwrap_or("unknown").to_owned());
            verdicts.push(verdict.unwrap_or_else(|_| NO_WORD.to_owned()));
        }
        verdicts
    }

    /// An apiserver's process.
    pub(crate) fn apiserver(&mut self, index: usize) -> Result<&mut simulations::lab::children::Process> {
        self.cluster.apiservers.get_mut(index).context("no such apiserver")?.process()
    }

    fn name(&self, clients: &Clients) -> &str {
        self.cluster.nodes.get(clients.node).map_or("?", |node| node.name.as_str())
    }
}

/// The server that carried a node's stream when it broke.
fn before(clients: &Clients) -> Option<&str> {
    clients.before.as_ref()?.server.as_deref()
}
