//! An agent with its clients on one node, and apiservers on others, at the ends of a wire.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use simulations::lab::apiserver::Options;
use simulations::lab::children::Process;
use simulations::lab::client::{Failure, Target};
use simulations::lab::wire::{HERE, Wire, enter};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::rig::{Agent, Plan, Rig, START, in_a_network_by};

/// What a client waits for an answer: client-go's TLS handshake alone may take 10 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// A world with a wire.
pub(crate) struct Wired {
    pub(crate) rig: Rig,
    pub(crate) wire: Wire,
    servers: BTreeMap<u8, Process>,
}

/// Runs a test on a wire to these hosts, each with an apiserver.
pub(crate) fn on_a_wire(test: &str, hosts: &[u8], story: impl AsyncFnOnce(Wired) -> Result<()>) -> Result<()> {
    if !in_a_network_by(enter, test)? {
        return Ok(());
    }
    let wire = Wire::lay(hosts)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut wired = Wired { rig: Rig::new().await?, wire, servers: BTreeMap::new() };
        for host in hosts {
            let options = wired.options(*host)?;
            wired.serve(*host, &options).await?;
        }
        story(wired).await
    })
}

impl Wired {
    pub(crate) fn endpoint(&self, host: u8) -> Result<SocketAddr> {
        Ok(self.wire.node(host)?.at(6443))
    }

    /// An apiserver as it should be, to be changed.
    fn options(&self, host: u8) -> Result<Options> {
        let (name, listen) = (format!("api-{host}"), self.endpoint(host)?);
        Ok(Options::new(&name, listen, self.rig.ca.server(&name, &[listen.ip()])?))
    }

    /// Starts an apiserver.
    async fn serve(&mut self, host: u8, options: &Options) -> Result<()> {
        let start = || self.rig.apiserver_process(options);
        let mut process = self.wire.node(host)?.within(start)??;
        process.ready(START).await?;
        self.servers.insert(host, process);
        Ok(())
    }

    /// An agent that has all of them for endpoints.
    pub(crate) fn agent(&self) -> Result<Plan<'_>> {
        let mut plan = self.rig.agent();
        for host in self.servers.keys() {
            plan = plan.flag("--endpoint", self.endpoint(*host)?.to_string());
        }
        Ok(plan)
    }

    /// The same, running, and they are ready.
    pub(crate) async fn ready(&self) -> Result<Agent> {
        let agent = self.agent()?.start().await?;
        for host in self.servers.keys() {
            agent.becomes(self.endpoint(*host)?, "ready", START).await?;
        }
        Ok(agent)
    }

    /// Attempts to connect to any of them so far, by clients and probes.
    pub(crate) fn dials(&self) -> u64 {
        self.servers.keys().map(|host| self.wire.counts(HERE, *host).dials).sum()
    }
}

/// What became of some requests, each over a connection of its own.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) failed: Vec<Failure>,
    /// How long those took that were answered, shortest first.
    pub(crate) took: Vec<Duration>,
    /// Answers by server.
    pub(crate) servers: BTreeMap<String, usize>,
}

impl Requests {
    /// Begins one each `every` for so long, and waits for all answers.
    pub(crate) async fn make(target: &Target, every: Duration, lasting: Duration) -> Result<Requests> {
        let end = Instant::now() + lasting;
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut running, mut requests) = (JoinSet::new(), Requests::default());
        while ticks.tick().await < end {
            let target = target.clone();
            running.spawn(async move {
                let begin = Instant::now();
                target.get(PATIENCE).await.map(|answer| (answer, begin.elapsed()))
            });
        }
        for outcome in running.join_all().await {
            match outcome {
                Ok((answer, took)) => {
                    requests.took.push(took);
                    *requests.servers.entry(answer.server.context("a name")?).or_default() += 1;
                }
                Err(failure) => requests.failed.push(failure),
            }
        }
        requests.took.sort();
        Ok(requests)
    }

    pub(crate) fn all(&self) -> usize {
        self.failed.len() + self.took.len()
    }

    /// The time within which so many percent of the answered ones were answered.
    pub(crate) fn within(&self, percent: usize) -> Duration {
        let place = self.took.len() * percent / 100;
        self.took.get(place.min(self.took.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// Share of answers that came from this server.
    pub(crate) fn share(&self, host: u8) -> f64 {
        let answers = self.servers.get(&format!("api-{host}")).copied().unwrap_or_default();
        answers as f64 / self.took.len().max(1) as f64
    }

    pub(crate) fn none_failed(&self, agent: &Agent) -> Result<()> {
        let (failed, all) = (self.failed.len(), self.all());
        ensure!(failed == 0, "{failed} of {all} failed: {:?}\n{}", self.failed, agent.process.output());
        Ok(())
    }

    pub(crate) fn told(&self) -> String {
        let (half, most, all) = (self.within(50), self.within(99), self.all());
        format!("{} of {all} failed, median {half:.0?}, p99 {most:.0?}, by {:?}", self.failed.len(), self.servers)
    }
}

/// How often an agent has changed its mind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changes {
    /// About an endpoint's state.
    pub(crate) state: usize,
    /// About which are the best.
    pub(crate) best: usize,
}

impl Changes {
    pub(crate) fn so_far(agent: &Agent) -> Changes {
        Changes { state: agent.logged(&["verdict changed"]).len(), best: agent.logged(&["best upstream changed"]).len() }
    }

    pub(crate) fn since(self, before: Changes) -> Changes {
        Changes { state: self.state - before.state, best: self.best - before.best }
    }
}

/// A line with what was measured.
#[expect(clippy::print_stderr, reason = "what was measured is worth more than that it passed")]
pub(crate) fn told(line: &str) {
    eprintln!("{line}");
}
