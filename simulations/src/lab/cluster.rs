//! The lab's cluster: apiservers, the external balancer before them, and a node each with its agent.
//!
//! Every node and every server has an address of its own, so that the ports are the ordinary ones.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::apiserver;
use super::balancer;
use super::ca::{Ca, Pair};
use super::children::{Launch, Process};
use super::client::Target;
use super::kubernetes;
use super::status::{Status, page};
use super::subnet::Subnet;

/// The port of an apiserver, and of the balancer before them.
pub const APISERVER_PORT: u16 = 6443;
/// The port clients of prismesh use.
pub const PROXY_PORT: u16 = 7445;
/// Health, metrics and status.
pub const ADMIN_PORT: u16 = 7446;
/// Gossip.
pub const GOSSIP_PORT: u16 = 7447;

/// If set, files of a cluster are kept when it is gone.
const KEEP: &str = "PRISMESH_LAB_KEEP";
const ETCD_HOST: u8 = 9;
const ETCD_PORT: u16 = 2379;
const BALANCER_HOST: u8 = 10;
const FIRST_APISERVER_HOST: u8 = 11;
/// The host of the first node; the others follow.
pub const FIRST_NODE_HOST: u8 = 31;
/// Nodes that have room in the subnet.
pub const MOST_NODES: u8 = 200;
/// A process of ours listens within this, on a machine with much else to do.
const START: Duration = Duration::from_secs(20);
/// A real apiserver takes five seconds alone; three share two cores with a demo.
const START_APISERVER: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What to build.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The executable whose hidden subcommands are the children.
    pub program: PathBuf,
    /// Nodes with an apiserver.
    pub control_planes: u8,
    /// Nodes without.
    pub workers: u8,
    /// Whether the nodes know of the external balancer.
    pub external: bool,
    /// The program with real API servers, to use these instead of the lab's own.
    pub kubernetes: Option<PathBuf>,
}

impl Plan {
    /// Three control-plane nodes, two workers, an external balancer.
    pub fn ordinary(program: PathBuf) -> Plan {
        Plan { program, control_planes: 3, workers: 2, external: true, kubernetes: None }
    }
}

/// An apiserver of the lab.
#[derive(Debug)]
pub struct Apiserver {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The executable.
    pub program: PathBuf,
    /// Its command line.
    pub args: Vec<OsString>,
    /// Its process, while there is one.
    pub process: Option<Process>,
}

impl Apiserver {
    /// One of the lab's own.
    pub fn lab(program: &Path, options: &apiserver::Options) -> Apiserver {
        let apiserver::Options { name, listen, .. } = options;
        Apiserver { name: name.clone(), addr: *listen, program: program.to_owned(), args: options.args(), process: None }
    }

    /// Its process, while there is one.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is not running", self.name))
    }
}

/// A node of the lab.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its apiserver's address, on control-plane nodes.
    pub apiserver: Option<SocketAddr>,
    /// The members that it begins with.
    pub seeds: Vec<SocketAddr>,
    /// The external balancer, where it knows of it.
    pub external: Option<SocketAddr>,
    /// Further flags.
    pub flags: Vec<OsString>,
    /// The cluster's name, as this node was told.
    pub cluster: String,
    /// Its keyring.
    pub keyring: PathBuf,
    /// Its agent, while there is one.
    pub agent: Option<Process>,
}

impl Node {
    /// Where its clients connect.
    pub fn proxy(&self) -> SocketAddr {
        SocketAddr::new(self.ip, PROXY_PORT)
    }

    /// Where it tells of itself.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.ip, ADMIN_PORT)
    }

    /// Where others send gossip.
    pub fn gossip(&self) -> SocketAddr {
        SocketAddr::new(self.ip, GOSSIP_PORT)
    }

    /// What its agent says of itself.
    pub async fn status(&self) -> Result<Status> {
        Status::of(self.admin()).await
    }

    /// Its agent's process.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().with_context(|| format!("{} has no agent", self.name))
    }

    fn args(&self, dir: &Path, ca: &Path) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["agent".into(), "run".into()];
        let mut flag = |name: &str, value: OsString| args.extend([OsString::from(name), value]);
        flag("--cluster", self.cluster.clone().into());
        flag("--node", self.name.clone().into());
        flag("--listen", self.proxy().to_string().into());
        flag("--admin", self.admin().to_string().into());
        flag("--gossip-listen", self.gossip().to_string().into());
        flag("--state-dir", dir.join(format!("{}-state", self.name)).into());
        flag("--keyring", self.keyring.clone().into());
        flag("--ca", ca.into());
        self.seeds.iter().for_each(|seed| flag("--seed", seed.to_string().into()));
        self.apiserver.iter().for_each(|apiserver| flag("--apiserver", apiserver.to_string().into()));
        self.external.iter().for_each(|external| flag("--external", external.to_string().into()));
        args.extend(self.flags.iter().cloned());
        args
    }
}

/// A running cluster. Everything in it ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The apiservers, one for each control-plane node.
    pub apiservers: Vec<Apiserver>,
    /// The external balancer.
    pub balancer: Option<Process>,
    /// The nodes, control-plane nodes first.
    pub nodes: Vec<Node>,
    /// The CA that signed the apiservers.
    pub ca: Ca,
    /// How clients prove who they are, where apiservers ask.
    pub client: Option<Pair>,
    /// What real apiservers keep their objects in.
    etcd: Option<Process>,
    plan: Plan,
    subnet: Subnet,
    // Last: the processes that write there are gone by then.
    dir: TempDir,
}

impl Cluster {
    /// Lays everything out; nothing runs yet.
    pub fn lay_out(plan: Plan) -> Result<Cluster> {
        ensure!(plan.control_planes >= 1, "a cluster needs an apiserver");
        let total = plan.control_planes.checked_add(plan.workers).filter(|total| *total <= MOST_NODES);
        ensure!(total.is_some(), "at most {MOST_NODES} nodes");
        let mut dir = tempfile::Builder::new().prefix("prismesh-lab-").tempdir()?;
        dir.disable_cleanup(std::env::var_os(KEEP).is_some());
        let subnet = Subnet::claim()?;
        let ca = Ca::create(dir.path(), "ca")?;
        let client = plan.kubernetes.as_ref().map(|_| ca.client("demo", "system:masters")).transpose()?;
        let mut cluster =
            Cluster { apiservers: Vec::new(), balancer: None, nodes: Vec::new(), ca, client, etcd: None, plan, subnet, dir };
        for index in 0..cluster.plan.control_planes {
            let apiserver = cluster.lay_out_apiserver(index)?;
            cluster.apiservers.push(apiserver);
        }
        cluster.make_keyring("keyring")?;
        for index in 0..cluster.plan.control_planes + cluster.plan.workers {
            let node = cluster.lay_out_node(index);
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// A cluster that runs: all apiservers, the balancer, all agents, and every node knows every apiserver as ready.
    pub async fn start(plan: Plan) -> Result<Cluster> {
        let mut cluster = Cluster::lay_out(plan)?;
        cluster.start_servers().await?;
        for index in 0..cluster.nodes.len() {
            cluster.start_agent(index)?;
        }
        cluster.agreed(START).await?;
        Ok(cluster)
    }

    /// Starts the apiservers and the balancer.
    pub async fn start_servers(&mut self) -> Result<()> {
        if let Some(program) = self.plan.kubernetes.clone() {
            let etcd = self.etcd_addr();
            let args = kubernetes::etcd_args(etcd, &self.dir.path().join("etcd"));
            self.etcd.insert(self.launch("etcd", program, args, None)?).ready(START).await?;
        }
        for index in 0..self.apiservers.len() {
            self.start_apiserver(index)?;
        }
        self.start_balancer()?;
        for index in 0..self.apiservers.len() {
            self.apiserver_ready(index).await?;
        }
        self.balancer.as_mut().context("just started")?.ready(START).await?;
        Ok(())
    }

    /// The options of an apiserver at another host of the subnet.
    pub fn apiserver_options(&self, name: &str, host: u8) -> Result<apiserver::Options> {
        let listen = self.subnet.at(host, APISERVER_PORT);
        Ok(apiserver::Options::new(name, listen, self.ca.server(name, &[listen.ip(), self.balancer_addr().ip()])?))
    }

    /// Starts an apiserver; it listens soon.
    pub fn start_apiserver(&mut self, index: usize) -> Result<()> {
        let apiserver = self.apiservers.get(index).context("no such apiserver")?;
        let process = self.launch(&apiserver.name, apiserver.program.clone(), apiserver.args.clone(), None)?;
        self.apiservers[index].process = Some(process);
        Ok(())
    }

    /// Waits until an apiserver that was started says that it is ready.
    pub async fn apiserver_ready(&mut self, index: usize) -> Result<()> {
        let ca = self.ca.certificate();
        let apiserver = self.apiservers.get_mut(index).context("no such apiserver")?;
        let target = Target::new(apiserver.addr, "/readyz", &ca, None)?;
        let deadline = Instant::now() + START_APISERVER;
        while let Err(failure) = target.get(LOOK * 100).await {
            let process = apiserver.process()?;
            if let Some(status) = process.ended() {
                anyhow::bail!("{} ended ({status}):\n{}", process.name(), process.output());
            }
            ensure!(Instant::now() < deadline, "{} is not ready: {}\n{}", process.name(), failure.why, process.output());
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Starts the balancer; it listens soon.
    pub fn start_balancer(&mut self) -> Result<()> {
        let backends = self.apiservers.iter().map(|apiserver| apiserver.addr).collect();
        let options = balancer::Options { listen: self.balancer_addr(), backends };
        self.balancer = Some(self.spawn("balancer", options.args())?);
        Ok(())
    }

    /// Starts a node's agent.
    pub fn start_agent(&mut self, index: usize) -> Result<()> {
        self.start_agent_with(index, None)
    }

    /// Starts a node's agent with a listening socket to inherit.
    pub fn start_agent_with(&mut self, index: usize, socket: Option<OwnedFd>) -> Result<()> {
        let node = self.nodes.get(index).context("no such node")?;
        let args = node.args(self.dir.path(), &self.ca.certificate());
        let process = self.launch(&node.name, self.plan.program.clone(), args, socket)?;
        self.nodes[index].agent = Some(process);
        Ok(())
    }

    /// Waits until every node that has an agent has heard of all the others, and holds every apiserver to be ready.
    pub async fn agreed(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        for index in 0..self.nodes.len() {
            while self.nodes[index].agent.is_some() && !self.agrees(index).await {
                let node = &mut self.nodes[index];
                let agent = node.agent()?;
                if let Some(status) = agent.ended() {
                    anyhow::bail!("{} ended ({status}):\n{}", agent.name(), agent.output());
                }
                let output = agent.output();
                let said = page(node.admin(), "/status").await.unwrap_or_else(|error| format!("{error:#}"));
                ensure!(Instant::now() < deadline, "{} does not know all after {within:?}: {said}\n{output}", node.name);
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Whether a node has heard of all others that have an agent, and holds every apiserver to be ready.
    async fn agrees(&self, index: usize) -> bool {
        let agents = self.nodes.iter().filter(|node| node.agent.is_some()).count() as u64;
        let Ok(status) = self.nodes[index].status().await else { return false };
        let mut apiservers = self.apiservers.iter().map(|apiserver| apiserver.addr);
        status.cluster_size >= agents && apiservers.all(|addr| status.verdict(addr) == Some("ready"))
    }

    /// Whether a node holds all these to be ready.
    pub async fn knows(&self, index: usize, endpoints: &[SocketAddr]) -> bool {
        let Some(node) = self.nodes.get(index) else { return false };
        let Ok(status) = node.status().await else { return false };
        endpoints.iter().all(|endpoint| status.verdict(*endpoint) == Some("ready"))
    }

    /// A target for clients of a node.
    pub fn through(&self, index: usize, path: &str) -> Result<Target> {
        let node = self.nodes.get(index).context("no such node")?;
        Target::new(node.proxy(), path, &self.ca.certificate(), self.client.as_ref())
    }

    /// A target for clients of the external balancer.
    pub fn direct(&self, path: &str) -> Result<Target> {
        Target::new(self.balancer_addr(), path, &self.ca.certificate(), self.client.as_ref())
    }

    /// The external balancer's address.
    pub fn balancer_addr(&self) -> SocketAddr {
        self.subnet.at(BALANCER_HOST, APISERVER_PORT)
    }

    /// Its loopback subnet.
    pub fn subnet(&self) -> &Subnet {
        &self.subnet
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A keyring with a fresh key, as `prismesh keygen` makes it.
    pub fn make_keyring(&self, name: &str) -> Result<PathBuf> {
        let keyring = self.dir.path().join(name);
        let mut keygen = std::process::Command::new(&self.plan.program);
        keygen.args(["agent", "keygen"]).arg(&keyring).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = keygen.spawn().context("cannot run keygen")?;
        // It ends with its standard input, which waiting for it would close.
        let _stdin = child.stdin.take();
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "keygen failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(keyring)
    }

    /// Starts a child of this executable.
    pub fn spawn(&self, name: &str, args: Vec<OsString>) -> Result<Process> {
        self.launch(name, self.plan.program.clone(), args, None)
    }

    /// A child that has ended although nobody asked it to.
    pub fn unexpected_death(&mut self) -> Option<String> {
        let servers = self.apiservers.iter_mut().filter_map(|apiserver| apiserver.process.as_mut());
        let agents = self.nodes.iter_mut().filter_map(|node| node.agent.as_mut());
        servers.chain(agents).chain(self.balancer.as_mut()).chain(self.etcd.as_mut()).find_map(|process| {
            process.died().map(|status| format!("{} ended ({status}):\n{}", process.name(), process.output()))
        })
    }

    fn launch(&self, name: &str, program: PathBuf, args: Vec<OsString>, socket: Option<OwnedFd>) -> Result<Process> {
        Process::start(Launch { name: name.to_owned(), program, args, dir: self.dir.path().to_owned(), socket })
    }

    fn etcd_addr(&self) -> SocketAddr {
        self.subnet.at(ETCD_HOST, ETCD_PORT)
    }

    fn lay_out_apiserver(&self, index: u8) -> Result<Apiserver> {
        let options = self.apiserver_options(&format!("api-{}", index + 1), FIRST_APISERVER_HOST + index)?;
        let mut apiserver = Apiserver::lab(&self.plan.program, &options);
        if let Some(program) = &self.plan.kubernetes {
            apiserver.program = program.clone();
            apiserver.args = kubernetes::apiserver_args(&options, self.etcd_addr(), &self.ca.certificate(), "5s");
        }
        Ok(apiserver)
    }

    fn lay_out_node(&self, index: u8) -> Node {
        let control_planes = self.plan.control_planes;
        let apiserver = self.apiservers.get(usize::from(index)).map(|apiserver| apiserver.addr);
        let name =
            if apiserver.is_some() { format!("cp-{}", index + 1) } else { format!("worker-{}", index - control_planes + 1) };
        Node {
            name,
            ip: self.subnet.host(FIRST_NODE_HOST + index),
            apiserver,
            seeds: (0..control_planes).map(|seed| self.subnet.at(FIRST_NODE_HOST + seed, GOSSIP_PORT)).collect(),
            external: self.plan.external.then(|| self.balancer_addr()),
            flags: Vec::new(),
            cluster: "lab".to_owned(),
            keyring: self.dir.path().join("keyring"),
            agent: None,
        }
    }
}
