//! One node's software: its agent, started and stopped as an init system would.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prismesh::agent::{Agent, CaStatus, Sockets};
use prismesh::config::{Config, ConfigError, Sources};
use prismesh::gossip::Keyring;
use prismesh::world::{Clock, Datagram, Net, World};
use tokio_util::sync::CancellationToken;

use super::core::{RunId, Sim};
use super::disk::Disk;
use super::file::Misconfigured;
use super::log::RunSeen;
use super::newer::Newer;
use super::prober::SimProber;
use super::recorder::Recorder;
use super::sabotage::Sabotage;
use super::seams::{Host, SimClock};
use super::state::{AgentLife, MachineId, Ms};
use super::watched::Watched;

/// Where a node's files are.
const CONFIG: &str = "/etc/prismesh/config.yaml";
const KEYRING: &str = "/etc/prismesh/keyring";
pub(super) const CA: &str = "/etc/kubernetes/pki/ca.crt";
pub(super) const STATE: &str = "/var/lib/prismesh";
/// Connections at most, as an agent has them by default.
const MOST_CONNECTIONS: usize = 20_000;

/// A node.
pub(super) struct Node {
    pub(super) sim: Sim,
    pub(super) machine: MachineId,
    pub(super) disk: Disk,
    pub(super) sabotage: Option<&'static Sabotage>,
    pub(super) record: Option<Recorder>,
    pub(super) running: Option<Running>,
    /// The build that is installed is a later one.
    pub(super) newer: bool,
}

/// An agent in service.
pub(super) struct Running {
    pub(super) run: RunId,
    pub(super) agent: Agent,
    world: World,
    prober: Arc<SimProber>,
}

/// What is done to a node's agent.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Start,
    Stop,
    Kill,
    /// Another build is there from its next start on: a later one, or this one.
    Install {
        newer: bool,
    },
    /// As on SIGHUP.
    Reload,
    /// These CAs are in its file from now on.
    Trust(Vec<u32>),
    /// This is its keyring from now on.
    Keys(String),
}

/// An agent that is told to stop has promised to serve on for so long.
const DRAIN: Duration = Duration::from_secs(5);

/// What a node's configuration says beside what a person added.
pub(super) struct Basics {
    pub(super) cluster: String,
    pub(super) node: String,
    pub(super) seeds: Vec<SocketAddr>,
    pub(super) apiservers: Vec<SocketAddr>,
    pub(super) external: Option<String>,
}

impl Basics {
    /// As a file; what `more` says replaces what would be here.
    pub(super) fn yaml(&self, more: &[&str]) -> String {
        let list = |addrs: &[SocketAddr]| addrs.iter().map(|addr| format!("\"{addr}\"")).collect::<Vec<_>>().join(", ");
        let mut lines = vec![
            ("cluster", self.cluster.clone()),
            ("node", self.node.clone()),
            ("keyring", KEYRING.to_owned()),
            ("ca", CA.to_owned()),
            ("state-dir", STATE.to_owned()),
            ("listen", "[\"127.0.0.1:7445\"]".to_owned()),
        ];
        if !self.seeds.is_empty() {
            lines.push(("seed", format!("[{}]", list(&self.seeds))));
        }
        if !self.apiservers.is_empty() {
            lines.push(("apiserver", format!("[{}]", list(&self.apiservers))));
        }
        if let Some(external) = &self.external {
            lines.push(("external", format!("[\"{external}\"]")));
        }
        let said = |key: &str| more.iter().any(|more| more.lines().any(|line| line.starts_with(&format!("{key}:"))));
        let mut text: String =
            lines.iter().filter(|(key, _)| !said(key)).map(|(key, value)| format!("{key}: {value}\n")).collect();
        for more in more.iter().filter(|more| !more.trim().is_empty()) {
            text.push_str(more.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A CA's file in the model: its number in PEM's clothes.
pub(super) fn ca_file(cas: &[u32]) -> String {
    let block = |ca: &u32| format!("-----BEGIN CERTIFICATE-----\n{ca:08x}\n-----END CERTIFICATE-----\n");
    cas.iter().map(block).collect()
}

fn cas_of(file: &[u8]) -> BTreeSet<u32> {
    let text = String::from_utf8_lossy(file);
    text.lines().filter(|line| !line.starts_with('-')).filter_map(|line| u32::from_str_radix(line, 16).ok()).collect()
}

impl Node {
    pub(super) fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        Ok(self.disk.write(Path::new(path), text.as_bytes())?)
    }

    pub(super) fn trust(&self, cas: &[u32]) -> anyhow::Result<()> {
        self.write(CA, &ca_file(cas))
    }

    pub(super) fn keys(&self, keyring: &str) -> anyhow::Result<()> {
        self.write(KEYRING, keyring)
    }

    /// Where its agent serves its status, if one runs.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.running.as_ref().map(|running| running.agent.config().admin.addr)
    }

    /// Does as it is told.
    pub(super) async fn obey(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::Start => self.start().await,
            Order::Stop => {
                self.stop().await;
                Ok(())
            }
            Order::Kill => {
                self.kill();
                Ok(())
            }
            Order::Install { newer } => {
                self.newer = newer;
                Ok(())
            }
            Order::Reload => self.reload().await,
            Order::Trust(cas) => {
                self.trust(&cas)?;
                self.reload().await
            }
            Order::Keys(keyring) => {
                self.keys(&keyring)?;
                self.reload().await
            }
        }
    }

    fn host(&self, run: RunId) -> Host {
        Host { sim: self.sim.clone(), machine: self.machine, run: Some(run), disk: self.disk.clone() }
    }

    /// What of its configuration the agent refuses, in the words of the plan that it is made of.
    fn misconfigured(&self, error: &ConfigError) -> Misconfigured {
        let text = self.disk.read(Path::new(CONFIG), usize::MAX).unwrap_or_default();
        let number = error.place.strip_prefix(CONFIG).and_then(|line| line.strip_prefix(':')?.parse::<usize>().ok());
        let said =
            number.and_then(|number| String::from_utf8_lossy(&text).lines().nth(number - 1).map(|line| line.trim().to_owned()));
        let node = self.sim.core().state.machines[self.machine].name.to_string();
        Misconfigured { node, said, what: format!("{}; {}", error.what, error.right) }
    }

    /// Its configuration; the CAs in its file, if that is there; and its keys.
    async fn load(&self, host: &Host) -> anyhow::Result<(Config, Option<BTreeSet<u32>>, Option<Keyring>)> {
        let sources = Sources { file: Some(PathBuf::from(CONFIG)), ..Sources::default() };
        let config = Config::load(&sources, host).await.map_err(|error| self.misconfigured(&error))?.config;
        let trusted = match &config.ca {
            Some(ca) => self.disk.read(ca, usize::MAX).ok().map(|file| cas_of(&file)),
            None => Some((0..=u32::MAX).take(64).collect()),
        };
        let keyring = match &config.gossip {
            Some(gossip) => Some(Keyring::parse_for(&self.disk.read(&gossip.keyring, usize::MAX)?, config.is_core())?),
            None => None,
        };
        Ok((config, trusted, keyring))
    }

    /// Starts the agent, unless one runs or the machine has no power.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        if self.running.is_some() || !self.sim.core().state.machines[self.machine].up {
            return Ok(());
        }
        let run = self.sim.core().new_run(self.machine);
        let host = self.host(run);
        let (config, trusted, keyring) = self.load(&host).await?;
        let clock = Clock::start();
        let ca = ca_status(&config, trusted.is_none(), trusted.is_some());
        let prober = SimProber::new(host.clone(), clock, trusted);
        let datagram: Arc<dyn Datagram> = match keyring.as_ref().filter(|_| self.newer) {
            Some(keyring) => Arc::new(Newer::new(host.clone(), &config.node, keyring)),
            None => Arc::new(host.clone()),
        };
        let world = World {
            datagram: datagram.clone(),
            net: Arc::new(host.clone()),
            prober: prober.clone(),
            resolver: Arc::new(host.clone()),
            store: Arc::new(host.clone()),
            wall: Arc::new(SimClock(host.clone())),
            clock,
        };
        let sockets = sockets(&host, &*datagram, &config, keyring).await?;
        let spoilt = self.sabotage.and_then(Sabotage::most_connections);
        let most = spoilt.or(config.max_connections).unwrap_or(MOST_CONNECTIONS);
        let spoil = self.sabotage.and_then(Sabotage::spoil);
        let (sim, machine) = (self.sim.clone(), self.machine);
        let record = self.record.as_ref().map(|record| record.of(machine));
        let advertised: BTreeSet<SocketAddr> = config.apiservers.iter().copied().collect();
        let allows = config.allow.clone();
        // What a later build says of itself nobody here can read.
        let gossips = config.gossip.is_some() && !self.newer;
        let agent = Agent::start(config, &world, sockets, most, move |engine| {
            let record = record.map(|record| record.begin(engine.identity()));
            Box::new(Watched { engine, sim, machine, run, spoil, interval: Duration::ZERO, record })
        })?;
        agent.trust(ca, None).await;
        {
            let mut core = self.sim.core();
            let now = core.now;
            core.log.runs.insert(run, RunSeen { machine: self.machine, from: now, to: None, gone: None });
        }
        self.sim.change(|state| {
            let machine = &mut state.machines[machine];
            machine.agent = AgentLife::Running;
            machine.advertises = if gossips { advertised } else { BTreeSet::new() };
            machine.gossips = gossips;
            machine.allows = allows;
        });
        self.running = Some(Running { run, agent, world, prober });
        Ok(())
    }

    /// Stops the agent in an orderly way.
    pub(super) async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.set_life(AgentLife::Stopping);
        self.over(running.run, DRAIN);
        let Running { run, agent, world, prober } = running;
        agent.stop(CancellationToken::new()).await;
        drop((world, prober));
        self.sim.core().end_run(run);
        self.sim.rouse();
        self.set_life(AgentLife::Off);
    }

    /// The agent's process dies without a word.
    pub(super) fn kill(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.over(running.run, Duration::ZERO);
        self.sim.core().end_run(running.run);
        self.sim.rouse();
        drop(running);
        self.set_life(AgentLife::Off);
    }

    /// A process is told to stop, and serves on for so long.
    fn over(&self, run: RunId, drain: Duration) {
        let mut core = self.sim.core();
        let now = core.now;
        if let Some(seen) = core.log.runs.get_mut(&run) {
            seen.to = Some(now);
            seen.gone = Some(now + u64::try_from(drain.as_millis()).unwrap_or(Ms::MAX));
        }
    }

    fn set_life(&self, life: AgentLife) {
        let machine = self.machine;
        self.sim.change(|state| {
            state.machines[machine].agent = life;
            if life == AgentLife::Off {
                state.machines[machine].advertises.clear();
            }
        });
    }

    /// Reads the files again, as on SIGHUP.
    pub(super) async fn reload(&mut self) -> anyhow::Result<()> {
        let Some(running) = &self.running else { return Ok(()) };
        let (config, trusted, keyring) = self.load(&self.host(running.run)).await?;
        let missing = trusted.is_none();
        // What was read before stays in force where the file is gone.
        let worth = match trusted {
            Some(trusted) => running.prober.replace(trusted).await,
            None => None,
        };
        let reload = running.agent.config().reload(config);
        let ca = ca_status(&reload.config, missing, running.prober.has_ca());
        let (allows, machine) = (reload.config.allow.clone(), self.machine);
        running.agent.reload(reload.config, keyring).await;
        running.agent.trust(ca, worth).await;
        self.sim.change(|state| state.machines[machine].allows = allows);
        Ok(())
    }
}

fn ca_status(config: &Config, missing: bool, read: bool) -> CaStatus {
    CaStatus { in_force: config.ca.is_some() && read, problem: missing.then(|| "the CA's file is missing".to_owned()) }
}

async fn sockets(host: &Host, datagram: &dyn Datagram, config: &Config, keyring: Option<Keyring>) -> anyhow::Result<Sockets> {
    let mut proxy = Vec::new();
    for listen in &config.listen {
        proxy.push(Net::listen(host, listen.addr).await.context("the proxy's port")?);
    }
    let admin = Net::listen(host, config.admin.addr).await.context("the admin port")?;
    let gossip = match (&config.gossip, keyring) {
        (Some(gossip), Some(keyring)) => Some((datagram.bind(gossip.listen.addr).await.context("the gossip port")?, keyring)),
        _ => None,
    };
    Ok(Sockets { proxy, admin, gossip })
}
