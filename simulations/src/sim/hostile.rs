//! A member that has the key and means harm: it gossips as the agents do, by the shipped gossip, and says what is not so.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prismesh::engine::Endpoint;
use prismesh::engine::event::{AgentState, ApiserverState, Observation, OwnReport, ProbeOrder, Probed, Role, Verdict};
use prismesh::gossip::envelope::{Envelopes, Kind, PLAINTEXT};
use prismesh::gossip::{Gossip, Heard, Keyring, Say, Seeds, Settings};
use prismesh::world::{BoxFuture, Clock, Datagram, Prober, World};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::plan::Hostility;
use super::run::{API_PORT, CLUSTER, GOSSIP_PORT, Stage, new_site};
use super::seams::{Host, SimClock};
use super::state::{AgentLife, MachineId, Mode};

/// As so many members it speaks, where one voice is not enough: more than it takes to be heard about somebody's recovery.
const VOICES: u16 = 5;
/// Between two things that a storm says, or two datagrams that are too long.
const STORM: Duration = Duration::from_millis(20);
/// Datagrams that are no gossip have up to so many bytes: what UDP takes.
const LONGEST: usize = 60_000;
/// A member that a storm invents lives so long.
const LIVES: Duration = Duration::from_millis(700);

/// It probes nobody.
struct NoProbes;

impl Prober for NoProbes {
    fn probe(&self, _: ProbeOrder) -> BoxFuture<'_, Probed> {
        Box::pin(std::future::pending())
    }
}

/// Where it is, and what it knows.
#[derive(Clone)]
struct Liar {
    host: Host,
    name: String,
    keyring: Keyring,
    seeds: Vec<SocketAddr>,
    /// Where it sits.
    home: SocketAddr,
    /// The cluster's apiservers, of which it lies.
    apiservers: Vec<SocketAddr>,
}

pub(super) fn begin(stage: &mut Stage, node: &str, act: &Hostility) -> anyhow::Result<()> {
    let machine = stage.names.iter().position(|name| name == node).with_context(|| format!("no node is called {node:?}"))?;
    let (liar, hearers) = {
        let mut core = stage.sim.core();
        let run = core.new_run(machine);
        let state = &core.state;
        anyhow::ensure!(
            state.machines[machine].agent == AgentLife::Off,
            "{node} runs an agent: who means harm sits on a machine of its own, which comes `later`"
        );
        let gossip_at = |id: MachineId| SocketAddr::new(state.machines[id].addrs[0], GOSSIP_PORT);
        let others: Vec<MachineId> = (0..stage.names.len()).filter(|id| *id != machine).collect();
        let planes: Vec<MachineId> = others.iter().copied().filter(|id| stage.plan.cluster.nodes[*id].control_plane).collect();
        // What it holds was stolen from a control plane: with a worker's keyring it could sign nothing.
        let robbed = planes.first().copied().context("somebody holds the full keyring")?;
        let keyring = Keyring::parse(&stage.disks[robbed].read(Path::new("/etc/prismesh/keyring"), usize::MAX)?)?;
        let liar = Liar {
            host: Host { sim: stage.sim.clone(), machine, run: Some(run), disk: stage.disks[machine].clone() },
            name: node.to_owned(),
            keyring,
            seeds: planes.iter().map(|id| gossip_at(*id)).collect(),
            home: SocketAddr::new(state.machines[machine].addrs[0], API_PORT),
            apiservers: state.sites.iter().filter(|(_, site)| site.backends.is_none()).map(|(addr, _)| *addr).collect(),
        };
        (liar, others.iter().map(|id| gossip_at(*id)).collect::<Vec<_>>())
    };
    let home = liar.home;
    // What answers at its address is nothing that the cluster's CA has signed for.
    stage.faults(
        |state| {
            state.machines[machine].up = true;
            state
                .sites
                .insert(home, super::state::Site { mode: Mode::WrongCertificate, ..new_site(machine, 1, super::wire::NOBODYS) });
        },
        1,
    );
    let rng = stage.draw().stream(&format!("what {node} invents"));
    let mut tasks = JoinSet::new();
    match act {
        Hostility::ForgedEndpoint => {
            tasks.spawn(liar.clone().speak(0, forged_endpoints(&liar)));
        }
        Hostility::ForgedVerdicts => {
            for voice in 0..VOICES {
                tasks.spawn(liar.clone().speak(voice, all_down(&liar.apiservers)));
            }
        }
        Hostility::RecordStorm => {
            tasks.spawn(liar.clone().storm());
            tasks.spawn(liar.crowd(rng));
        }
        Hostility::Oversize => {
            let mut most = forged_endpoints(&liar);
            most.report = all_down(&(0..u16::MAX / 64).map(|port| SocketAddr::new(home.ip(), port)).collect::<Vec<_>>()).report;
            tasks.spawn(liar.clone().speak(0, most));
            tasks.spawn(liar.shout(hearers, rng));
        }
    }
    stage.hostile.insert(node.to_owned(), tasks);
    Ok(())
}

pub(super) fn end(stage: &mut Stage, node: &str) -> anyhow::Result<()> {
    let machine = stage.names.iter().position(|name| name == node).with_context(|| format!("no node is called {node:?}"))?;
    // Whoever speaks for it falls silent.
    stage.hostile.remove(node);
    stage.faults(
        |state| {
            state.machines[machine].up = false;
            state.sites.retain(|_, site| site.machine != machine);
        },
        -1,
    );
    Ok(())
}

/// Its own address as an apiserver's, and that of somebody who runs none.
fn forged_endpoints(liar: &Liar) -> Say {
    let nobody = SocketAddr::new(liar.home.ip(), API_PORT + 1);
    Say {
        role: Role::ControlPlane,
        agent: AgentState::Running,
        endpoints: vec![liar.home, nobody],
        report: OwnReport { apiserver: Some(ApiserverState::Ready), observations: Vec::new() },
    }
}

/// All of these are down, it says.
fn all_down(apiservers: &[SocketAddr]) -> Say {
    let down = |addr: &SocketAddr| Observation {
        endpoint: Endpoint::from(*addr).tag(),
        rtt: Some(Duration::from_millis(1)),
        verdict: Verdict::Down,
        connections: 0,
    };
    let report = OwnReport { apiserver: None, observations: apiservers.iter().map(down).collect() };
    Say { role: Role::Worker, agent: AgentState::Running, endpoints: Vec::new(), report }
}

impl Liar {
    /// Becomes a member that says this, at a port of its own.
    async fn join(&self, voice: u16, name: String, say: Say) -> anyhow::Result<Gossip> {
        let at = SocketAddr::new(self.home.ip(), GOSSIP_PORT + voice);
        let host = self.host.clone();
        let socket = Datagram::bind(&host, at).await?;
        let world = World {
            datagram: Arc::new(host.clone()),
            net: Arc::new(host.clone()),
            prober: Arc::new(NoProbes),
            resolver: Arc::new(host.clone()),
            store: Arc::new(host.clone()),
            wall: Arc::new(SimClock(host)),
            clock: Clock::start(),
        };
        let settings = Settings {
            cluster: CLUSTER.to_owned(),
            allow_reports: Vec::new(),
            names_per_address: 4,
            state_dir: format!("/var/lib/{name}").into(),
            core: say.role == Role::ControlPlane,
            name,
            socket: socket.into(),
            advertise: Some(at),
            apiservers: say.endpoints.clone(),
            keyring: self.keyring.clone(),
            seeds: watch::channel(Seeds { given: true, addrs: self.seeds.clone() }).1,
            allow: Vec::new(),
        };
        let (heard, mut hears) = mpsc::channel::<Heard>(64);
        // It ends with the gossip that it listens to.
        tokio::spawn(async move { while hears.recv().await.is_some() {} });
        Ok(Gossip::start(&world, settings, say, heard))
    }

    /// Says one thing for ever.
    async fn speak(self, voice: u16, say: Say) {
        let name = if voice == 0 { self.name.clone() } else { format!("{}-{voice}", self.name) };
        if let Ok(_gossip) = self.join(voice, name, say).await {
            std::future::pending::<()>().await;
        }
    }

    /// Says something else all the time, and says that it is urgent.
    async fn storm(self) {
        let Ok(gossip) = self.join(0, self.name.clone(), forged_endpoints(&self)).await else { return };
        loop {
            for state in [ApiserverState::Down, ApiserverState::Draining, ApiserverState::Ready] {
                sleep(STORM).await;
                let mut say = forged_endpoints(&self);
                say.report.apiserver = Some(state);
                gossip.say(say, true);
            }
        }
    }

    /// Comes again and again under another name.
    async fn crowd(self, mut rng: StdRng) {
        loop {
            let name = format!("{}-{:08x}", self.name, rng.random::<u32>());
            let Ok(_gossip) = self.join(1, name, all_down(&self.apiservers)).await else { return };
            sleep(LIVES).await;
        }
    }

    /// Sends datagrams of any length to everybody: sealed with the key, and not.
    async fn shout(self, hearers: Vec<SocketAddr>, mut rng: StdRng) {
        let Ok(socket) = Datagram::bind(&self.host, SocketAddr::new(self.home.ip(), GOSSIP_PORT + 1)).await else { return };
        let envelopes = Envelopes::new(&self.keyring, CLUSTER);
        for counter in 1_u64.. {
            sleep(STORM).await;
            let mut bytes = vec![0; rng.random_range(0..LONGEST)];
            rng.fill_bytes(&mut bytes);
            if counter % 2 == 0 {
                bytes.truncate(PLAINTEXT);
                let kind = Kind::ALL[rng.random_range(0..Kind::ALL.len())];
                bytes = envelopes.seal(kind, &bytes).unwrap_or_default();
            }
            let _ = socket.send(hearers[rng.random_range(0..hearers.len())], &bytes).await;
        }
    }
}
