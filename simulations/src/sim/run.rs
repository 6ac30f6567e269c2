//! One run of one plan with one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prismesh::gossip::Keyring;
use tokio::runtime::Handle;
use tokio::sync::{Mutex as Turns, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::alone::Alone;
use super::client::{self, PROXY};
use super::core::Sim;
use super::disk::Disk;
use super::draw::Draw;
use super::history::History;
use super::log::{ClientEnd, ClientKind, Log};
use super::node::{Basics, Node};
use super::outcome::Carrier;
use super::plan::Plan;
use super::recorder::Recorder;
use super::sabotage::Sabotage;
use super::state::{AgentLife, Machine, MachineId, Mode, Ms, Site, State, Zones};
use super::{balancer, complaints, director, exchange, kubelet, kubeprism, seed};

/// The cluster's id.
pub(super) const CLUSTER: &str = "simulated";
/// Gossip's default port.
pub(super) const GOSSIP_PORT: u16 = 7447;
/// Where modelled apiservers listen.
pub(super) const API_PORT: u16 = 6443;
/// After everything was told to stop, it is gone within this.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// How a run is made.
#[derive(Clone, Default)]
pub struct Options {
    /// What spoils the agents.
    pub sabotage: Option<&'static Sabotage>,
    /// Event logs are written to this directory, one file a node.
    pub record: Option<PathBuf>,
    /// What of the agents' logs is shown: a `tracing` filter.
    pub log: Option<String>,
    /// What carries the clients' traffic.
    pub by: Carrier,
    /// This node's agent is asked for its status at this time.
    pub ask: Option<(String, Ms)>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    /// The plan.
    pub plan: Plan,
    /// The nodes' names; a node's place is its machine's.
    pub names: Vec<String>,
    /// The seed.
    pub seed: u64,
    /// What carried the clients' traffic.
    pub by: Carrier,
    /// The hash of all that happened.
    pub hash: String,
    /// When it ended.
    pub ended: Ms,
    /// What was true when.
    pub history: History,
    /// What was seen.
    pub log: Log,
    /// Engine steps.
    pub steps: u64,
    /// Datagrams sent, and their bytes.
    pub datagrams: (u64, u64),
    /// The most things queued in the world, connections open, datagrams waiting in one socket.
    pub peaks: [usize; 3],
    /// What was left over when all had stopped.
    pub leftovers: Vec<String>,
    /// Every ERROR that was logged, and every panic.
    pub complaints: Vec<String>,
    /// What each agent that ran at the end had dropped of gossip since its start, by reason.
    pub drops: BTreeMap<MachineId, BTreeMap<String, u64>>,
    /// The status that was asked for, as it came; or why it did not.
    pub asked: Option<Result<Vec<u8>, String>>,
}

impl Ran {
    /// What people call an endpoint: its machine, as it is called last.
    pub fn name_of(&self, endpoint: SocketAddr) -> String {
        let state = self.history.at(self.ended);
        let machine = state.sites.get(&endpoint).map(|site| site.machine);
        let name = machine.and_then(|machine| state.machines.get(machine)).map(|machine| machine.name.to_string());
        name.unwrap_or_else(|| endpoint.to_string())
    }
}

/// Runs a plan. It must be the first and only simulation of this process.
///
/// # Errors
/// The plan cannot be played: a name nobody has, a configuration that prismesh refuses.
///
/// # Panics
/// The seed does not reach everyone who draws, it is not the first simulation of this process, or it is not alone there.
pub fn run(plan: &Plan, seed: u64, options: &Options) -> anyhow::Result<Ran> {
    complaints::listen(options.log.as_deref());
    let alone = Alone::begin();
    seed::assert_reached();
    let (mut plan, options) = (plan.clone(), options.clone());
    if options.by == Carrier::Balancer {
        plan.cluster.balancer.get_or_insert(0);
    }
    let thread = std::thread::Builder::new().name("simulation".to_owned()).stack_size(16 << 20).spawn(move || {
        seed::plant(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        runtime.block_on(whole(plan, seed, options, alone))
    })?;
    thread.join().map_err(|_| anyhow::anyhow!("the simulation panicked"))?
}

/// Everybody, while a story runs.
pub(super) struct Stage {
    /// Nobody else is in this process.
    pub(super) alone: Alone,
    pub(super) sim: Sim,
    pub(super) plan: Plan,
    pub(super) names: Vec<String>,
    /// What is done to one node is done in turn.
    pub(super) nodes: Vec<Arc<Turns<Node>>>,
    pub(super) disks: Vec<Disk>,
    pub(super) clients: JoinSet<()>,
    pub(super) work: JoinSet<anyhow::Result<()>>,
    pub(super) blind: watch::Sender<bool>,
    pub(super) snapshots: BTreeMap<(MachineId, Ms), Disk>,
    /// Which CA is in force.
    pub(super) ca: u32,
    /// Who came later than the others, and who went for good.
    pub(super) came: BTreeSet<MachineId>,
    pub(super) left: BTreeSet<MachineId>,
    /// Addresses given out so far, by machine, for those that move.
    pub(super) moves: BTreeMap<MachineId, u8>,
    pub(super) more: BTreeMap<MachineId, String>,
    /// The key that a rotation brings.
    pub(super) second_key: Option<String>,
    /// What carries the clients' traffic.
    pub(super) by: Carrier,
    /// Who means harm, by node.
    pub(super) hostile: BTreeMap<String, JoinSet<()>>,
}

async fn whole(plan: Plan, seed: u64, options: Options, alone: Alone) -> anyhow::Result<Ran> {
    let draw = Draw::of(seed);
    let mut stage = Stage::set(plan, draw, &options, alone)?;
    let pump = tokio::spawn(stage.sim.clone().pump());
    stage.begin(draw);
    let asking = options.ask.map(|(node, at)| stage.ask(&node, at)).transpose()?;
    director::play(&mut stage).await?;
    let ended = stage.sim.now();
    let asked = match asking {
        Some(asking) => Some(asking.await.context("who asked panicked")?),
        None => None,
    };
    let drops = stage.drops().await;
    let leftovers = stage.strike(pump).await?;
    alone.check("at its end");
    let Stage { sim, plan, names, by, .. } = stage;
    let mut core = sim.core();
    let now = core.now;
    let core = &mut *core;
    for (number, client) in core.log.clients.iter_mut().enumerate().filter(|(_, client)| client.ended.is_none()) {
        client.ended = Some((ended.min(now), ClientEnd::Over));
        core.trace.client(now, number, client);
    }
    Ok(Ran {
        plan,
        names,
        seed,
        by,
        hash: core.trace.digest(),
        ended,
        history: std::mem::take(&mut core.history),
        log: std::mem::take(&mut core.log),
        steps: core.trace.steps,
        datagrams: (core.udp.sent, core.udp.sent_bytes),
        peaks: [core.queue_peak, core.tcp.peak, core.udp.peak],
        leftovers,
        complaints: complaints::heard(),
        drops,
        asked,
    })
}

/// The address of the n-th machine, after it has moved so often.
pub fn address(machine: MachineId, moved: u8) -> IpAddr {
    let [.., high, low] = (machine + 1).to_be_bytes();
    Ipv4Addr::new(10, moved, high, low).into()
}

fn second_address(machine: MachineId) -> IpAddr {
    let [.., high, low] = (machine + 1).to_be_bytes();
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from_be_bytes([high, low])).into()
}

impl Stage {
    /// Sets everything up; nobody moves yet.
    fn set(plan: Plan, draw: Draw, options: &Options, alone: Alone) -> anyhow::Result<Stage> {
        let names = plan.names();
        let state = first_state(&plan, &names)?;
        let sim = Sim::new(draw, state);
        sim.core().closed_windows_are_silent = options.sabotage.is_some_and(Sabotage::closed_windows_are_silent);
        let disks: Vec<Disk> = names.iter().map(|_| Disk::default()).collect();
        let keyring = Keyring::random();
        let recorder = options.record.clone().map(|dir| Recorder::new(dir, names.clone()));
        let nodes = disks.iter().enumerate().map(|(machine, disk)| {
            let node = Node {
                sim: sim.clone(),
                machine,
                disk: disk.clone(),
                sabotage: options.sabotage,
                record: recorder.clone(),
                running: None,
                newer: false,
            };
            let signs = plan.cluster.nodes[node.machine].control_plane;
            node.keys(&if signs { keyring.to_text() } else { keyring.reader_text() })?;
            node.trust(&[0])?;
            Ok(Arc::new(Turns::new(node)))
        });
        let nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
        let stage = Stage {
            alone,
            sim,
            plan,
            names,
            nodes,
            disks,
            clients: JoinSet::new(),
            work: JoinSet::new(),
            blind: watch::Sender::new(false),
            snapshots: BTreeMap::new(),
            ca: 0,
            came: BTreeSet::new(),
            left: BTreeSet::new(),
            moves: BTreeMap::new(),
            more: BTreeMap::new(),
            second_key: None,
            by: options.by,
            hostile: BTreeMap::new(),
        };
        for machine in 0..stage.names.len() {
            stage.write_config(machine)?;
        }
        Ok(stage)
    }

    /// Writes a node's configuration as it should be now.
    pub(super) fn write_config(&self, machine: MachineId) -> anyhow::Result<()> {
        let cluster = &self.plan.cluster;
        let mut core = self.sim.core();
        let at = |state: &State, machine: MachineId, port| SocketAddr::new(state.machines[machine].addrs[0], port);
        let state = core.state.clone();
        // Whoever writes a configuration names the control planes of that day.
        let here = |other: &MachineId| !cluster.nodes[*other].later || self.came.contains(other);
        let control_planes = (0..self.names.len()).filter(|other| cluster.nodes[*other].control_plane && here(other));
        let control_planes = control_planes.filter(|other| !self.left.contains(other));
        let seeds: Vec<SocketAddr> = control_planes.take(cluster.seeds).map(|seed| at(&state, seed, GOSSIP_PORT)).collect();
        let node = &cluster.nodes[machine];
        let addrs = state.machines[machine].addrs.iter().map(|ip| SocketAddr::new(*ip, API_PORT));
        let apiservers: Vec<SocketAddr> = if node.control_plane { addrs.collect() } else { Vec::new() };
        let balancer = cluster.balancer.map(|_| at(&state, self.names.len(), balancer::PORT));
        let external =
            balancer.map(|addr| if cluster.by_name { format!("{BALANCER_NAME}:{}", addr.port()) } else { addr.to_string() });
        let basics = Basics {
            cluster: CLUSTER.to_owned(),
            node: self.names[machine].clone(),
            seeds: seeds.clone(),
            apiservers: apiservers.clone(),
            external,
        };
        let more = self.more.get(&machine).map_or(node.config.as_str(), String::as_str);
        let yaml = basics.yaml(&[cluster.config.as_str(), more]);
        let named = yaml_addresses(&[cluster.config.as_str(), more]);
        let own: Vec<&str> = [cluster.config.as_str(), more].into_iter().filter(|it| it.contains("external:")).collect();
        let by_name = if own.is_empty() { cluster.by_name } else { own.iter().any(|own| own.contains(BALANCER_NAME)) };
        // Where a name leads is known once it has been looked up, which the resolver notes; an address stands there itself.
        let looked_up = |addr: &SocketAddr| state.machines[machine].configured.contains(addr);
        let balancer = balancer.filter(|addr| if by_name { looked_up(addr) } else { own.is_empty() });
        core.change(|state| {
            let named_seeds = named.iter().filter(|addr| addr.port() == GOSSIP_PORT);
            state.machines[machine].seeds = seeds.into_iter().chain(named_seeds.copied()).collect();
            state.machines[machine].configured = apiservers.into_iter().chain(balancer).chain(named).collect();
        });
        drop(core);
        self.disks[machine].write(std::path::Path::new("/etc/prismesh/config.yaml"), yaml.as_bytes())?;
        Ok(())
    }

    /// Everyone who is there from the beginning comes up, one after the other.
    fn begin(&mut self, draw: Draw) {
        let stagger = self.plan.cluster.stagger;
        for machine in 0..self.names.len() {
            if !self.plan.cluster.nodes[machine].later {
                let after = draw.number(&format!("start of {}", self.names[machine]), 0, stagger);
                self.start_after(machine, after);
                self.add_clients(machine, draw);
            }
        }
        if self.plan.cluster.balancer.is_some() {
            let host = self.plain_host(self.names.len());
            if let Ok(listener) = host.bind_listener(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), balancer::PORT)) {
                self.clients.spawn(balancer::serve(host, listener, self.blind.subscribe()));
            }
        }
    }

    pub(super) fn plain_host(&self, machine: MachineId) -> super::seams::Host {
        super::seams::Host { sim: self.sim.clone(), machine, run: None, disk: Disk::default() }
    }

    pub(super) fn start_after(&mut self, machine: MachineId, after: Ms) {
        let node = self.nodes[machine].clone();
        self.work.spawn(async move {
            sleep(Duration::from_millis(after)).await;
            node.lock().await.start().await
        });
    }

    /// The clients of a node.
    pub(super) fn add_clients(&mut self, machine: MachineId, draw: Draw) {
        let cluster = &self.plan.cluster;
        let host = self.plain_host(machine);
        let name = &self.names[machine];
        let to = match self.by {
            Carrier::Prismesh => PROXY,
            Carrier::Balancer => SocketAddr::new(address(self.names.len(), 0), balancer::PORT),
            Carrier::KubeprismModel => {
                if let Ok(listener) = host.bind_listener(kubeprism::PORT) {
                    self.clients.spawn(kubeprism::serve(host.clone(), listener));
                }
                kubeprism::PORT
            }
        };
        if cluster.fresh_every > 0 {
            let rng = draw.stream(&format!("fresh clients of {name}"));
            self.clients.spawn(client::fresh(host.clone(), to, ClientKind::Fresh, cluster.fresh_every, rng));
        }
        if cluster.kubelets {
            let rng = draw.stream(&format!("kubelet of {name}"));
            self.clients.spawn(kubelet::kubelet(host.clone(), to, rng));
        }
        if !cluster.nodes[machine].control_plane {
            for each in 0..cluster.steady {
                let rng = draw.stream(&format!("steady client {each} of {name}"));
                self.clients.spawn(client::steady(host.clone(), to, rng));
            }
            for what in exchange::ALL.iter().copied().filter(|_| cluster.exchanges) {
                let rng = draw.stream(&format!("{what:?} of {name}"));
                self.clients.spawn(exchange::exchanges(host.clone(), to, what, cluster.twins, rng));
            }
        }
    }

    /// Stops everybody, and says what is left although nothing should be.
    async fn strike(&mut self, pump: tokio::task::JoinHandle<()>) -> anyhow::Result<Vec<String>> {
        self.clients.shutdown().await;
        self.hostile.clear();
        while let Some(done) = self.work.join_next().await {
            done.context("a step panicked")??;
        }
        // Nothing that is still broken keeps anybody from leaving.
        self.sim.change(|state| {
            state.rules.clear();
            for machine in &mut state.machines {
                machine.up = true;
                if machine.agent == AgentLife::Stalled {
                    machine.agent = AgentLife::Running;
                }
            }
            for site in state.sites.values_mut() {
                site.mode = Mode::Ready;
            }
        });
        let mut stopping = JoinSet::new();
        for node in self.nodes.clone() {
            stopping.spawn(async move { node.lock().await.stop().await });
        }
        while let Some(done) = stopping.join_next().await {
            done.context("a stop panicked")?;
        }
        sleep(LAST_WORDS).await;
        let mut left = Vec::new();
        {
            let core = self.sim.core();
            let mut count = |what: &str, count: usize| {
                if count > 0 {
                    left.push(format!("{count} {what}"));
                }
            };
            count("connections", core.tcp.conns.len());
            count("connections held by apiservers", core.apiserver_connections());
            count("things queued in the world", core.waiting());
        }
        pump.abort();
        let _ = pump.await;
        let tasks = Handle::current().metrics().num_alive_tasks();
        if tasks > 0 {
            left.push(format!("{tasks} tasks"));
        }
        Ok(left)
    }
}

/// The balancer's name in DNS.
pub(super) const BALANCER_NAME: &str = "api.cluster.example";

fn first_state(plan: &Plan, names: &[String]) -> anyhow::Result<State> {
    let cluster = &plan.cluster;
    let zones = cluster.zones.len();
    anyhow::ensure!(zones > 0 && cluster.zones.iter().all(|row| row.len() == zones), "zones: a square of round trips");
    anyhow::ensure!(cluster.nodes.iter().all(|node| node.zone < zones), "a node stands in a zone that is not there");
    let one_way = cluster.zones.iter().map(|row| row.iter().map(|rtt| (rtt / 2).max(1)).collect()).collect();
    let machine = |id: MachineId, name: &str, zone: usize, dual: bool, up: bool| Machine {
        name: name.into(),
        zone,
        addrs: match (dual, cluster.ipv6_only) {
            (true, _) => vec![address(id, 0), second_address(id)],
            (false, true) => vec![second_address(id)],
            (false, false) => vec![address(id, 0)],
        },
        up,
        agent: AgentLife::Off,
        clock_off: 0,
        trusts: [0].into(),
        allows: Vec::new(),
        configured: Default::default(),
        seeds: Default::default(),
        advertises: Default::default(),
        gossips: false,
    };
    let mut machines: Vec<Machine> = Vec::new();
    let mut sites = BTreeMap::new();
    for (id, (node, name)) in cluster.nodes.iter().zip(names).enumerate() {
        machines.push(machine(id, name, node.zone, node.dual_stack, !node.later));
        if node.control_plane && !node.later {
            for ip in machines[id].addrs.clone() {
                sites.insert(SocketAddr::new(ip, API_PORT), new_site(id, 1, 0));
            }
        }
    }
    let mut dns = BTreeMap::new();
    if let Some(zone) = cluster.balancer {
        let id = machines.len();
        machines.push(machine(id, "balancer", zone, false, true));
        let backends: Vec<SocketAddr> = sites.keys().filter(|addr| addr.is_ipv4()).copied().collect();
        sites.insert(
            SocketAddr::new(address(id, 0), balancer::PORT),
            Site { backends: Some(backends.into()), ..new_site(id, 1, 0) },
        );
        dns.insert(BALANCER_NAME.to_owned(), super::state::Name::Is(vec![address(id, 0)]));
    }
    Ok(State {
        zones: Arc::new(Zones { one_way, jitter: cluster.jitter }),
        machines,
        sites,
        rules: Vec::new(),
        names: dns,
        faults: 0,
        by_ip: BTreeMap::new(),
    })
}

/// An apiserver that has just started.
pub(super) fn new_site(machine: MachineId, incarnation: u64, ca: u32) -> Site {
    Site { machine, mode: Mode::Ready, incarnation, ca, expired: false, backends: None }
}

/// The addresses of static and external endpoints that a piece of configuration names.
fn yaml_addresses(texts: &[&str]) -> Vec<SocketAddr> {
    let words =
        texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("endpoint") || line.starts_with("external"));
    words.flat_map(|line| line.split(['"', '\'', ' ', ',', '[', ']'])).filter_map(|word| word.parse().ok()).collect()
}
