//! The apiservers of a trial and the agent before them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::draw::APISERVERS;
use crate::lab::apiserver::Options;
use crate::lab::ca::{Ca, Pair};
use crate::lab::children::{Launch, Process};
use crate::lab::client::Target;
use crate::lab::cluster::{ADMIN_PORT, APISERVER_PORT, PROXY_PORT};
use crate::lab::moods::Mood;
use crate::lab::status::Status;
use crate::lab::subnet::Subnet;

const FIRST_APISERVER_HOST: u8 = 11;
const AGENT_HOST: u8 = 31;
/// A process of ours listens within this, on a machine with much else to do.
const START: Duration = Duration::from_secs(30);
/// A real apiserver takes five seconds alone.
const START_REAL: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// An apiserver.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    pub(super) options: Options,
    /// By this its clients know that they reached it.
    pub(super) certificate: CertificateDer<'static>,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    dir: PathBuf,
    pub(super) process: Option<Process>,
    /// It was told to stop, and may be at it.
    stops: bool,
    pub(super) mood: Mood,
}

impl Server {
    /// Starts it; it listens soon.
    pub(super) fn start(&mut self) -> Result<()> {
        let (name, program, args) = (self.name.clone(), self.program.clone(), self.args.clone());
        self.process = Some(Process::start(Launch { name, program, args, dir: self.dir.clone(), socket: None })?);
        self.mood = Mood::default();
        self.stops = false;
        Ok(())
    }

    /// SIGTERM: it ends when it has done what is under way.
    pub(super) fn tell_to_stop(&mut self) {
        self.stops = true;
        let _ = self.process.as_mut().map(Process::terminate);
    }

    /// Tells it how to behave from now on; one that has ended does not hear it.
    pub(super) fn be(&mut self, change: impl FnOnce(&mut Mood)) -> Result<()> {
        change(&mut self.mood);
        let line = serde_json::to_string(&self.mood)?;
        if let Some(process) = &mut self.process {
            let _ = process.say(&line);
        }
        Ok(())
    }
}

/// The apiservers, their files and their addresses.
pub(super) struct Servers {
    pub(super) all: Vec<Server>,
    pub(super) ca: Ca,
    /// How clients prove who they are, where apiservers ask.
    pub(super) client: Option<Pair>,
    /// What real ones keep their objects in.
    pub(super) etcd: Option<Process>,
    subnet: Subnet,
    // Last: the processes that write there are gone by then.
    dir: TempDir,
}

impl Servers {
    /// The lab's own.
    pub(super) async fn lab(program: &Path) -> Result<Servers> {
        let mut servers = Servers::lay_out(program)?;
        for server in &mut servers.all {
            server.start()?;
        }
        for server in &mut servers.all {
            server.process.as_mut().context("just started")?.ready(START).await?;
        }
        Ok(servers)
    }

    /// Their places, as servers of the lab; none runs.
    pub(super) fn lay_out(program: &Path) -> Result<Servers> {
        let dir = tempfile::Builder::new().prefix("prismesh-differential-").tempdir()?;
        let (ca, subnet) = (Ca::create(dir.path(), "ca")?, Subnet::claim()?);
        let mut servers = Servers { all: Vec::new(), ca, client: None, etcd: None, subnet, dir };
        for host in (FIRST_APISERVER_HOST..).take(APISERVERS) {
            let name = format!("api-{}", servers.all.len() + 1);
            let addr = servers.subnet.at(host, APISERVER_PORT);
            let pair = servers.ca.server(&name, &[addr.ip()])?;
            let certificate = CertificateDer::from_pem_file(&pair.cert)?;
            let options = Options::new(&name, addr, pair);
            let (program, dir) = (program.to_owned(), servers.dir.path().to_owned());
            let (args, mood) = (options.args(), Mood::default());
            servers.all.push(Server { name, addr, options, certificate, program, args, dir, process: None, stops: false, mood });
        }
        Ok(servers)
    }

    /// Where their files are.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A host of their subnet.
    pub(super) fn at(&self, host: u8, port: u16) -> SocketAddr {
        self.subnet.at(host, port)
    }

    /// Everything is as it was before a trial.
    pub(super) async fn rest(&mut self) -> Result<()> {
        for server in &mut self.all {
            let running = server.process.as_mut().is_some_and(|process| process.ended().is_none());
            if !running || server.stops {
                // Killed, if it is still at it.
                server.process = None;
                server.start()?;
            }
        }
        for server in &self.all {
            let (target, deadline) = (self.target(server.addr)?.path("/readyz"), Instant::now() + START_REAL);
            while let Err(failure) = target.get(LOOK * 100).await {
                ensure!(Instant::now() < deadline, "{} is not ready: {}", server.name, failure.why);
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// A client of an address. Its path is the exchange's matter.
    pub(super) fn target(&self, addr: SocketAddr) -> Result<Target> {
        Target::new(addr, "/", &self.ca.certificate(), self.client.as_ref())
    }

    /// An agent that knows them all, and holds them all to be ready.
    pub(super) async fn agent(&self, program: &AgentProgram, number: u64) -> Result<Agent> {
        let (proxy, admin) = (self.subnet.at(AGENT_HOST, PROXY_PORT), self.subnet.at(AGENT_HOST, ADMIN_PORT));
        let name = format!("agent-{number}");
        let mut args = program.args.clone();
        let mut flag = |name: &str, value: OsString| args.extend([OsString::from(name), value]);
        flag("--cluster", "differential".into());
        flag("--node", "differential".into());
        flag("--gossip-listen", "off".into());
        flag("--listen", proxy.to_string().into());
        flag("--admin", admin.to_string().into());
        flag("--state-dir", self.dir.path().join(format!("{name}-state")).into());
        flag("--ca", self.ca.certificate().into());
        flag("--log", "debug".into());
        self.all.iter().for_each(|server| flag("--endpoint", server.addr.to_string().into()));
        let log = self.dir.path().join(format!("{name}.err"));
        let launch = Launch { name, program: program.program.clone(), args, dir: self.dir.path().to_owned(), socket: None };
        let mut agent = Agent { process: Process::start(launch)?, proxy, admin, log };
        agent.ready(&self.all).await?;
        Ok(agent)
    }
}

/// How an agent is started.
#[derive(Clone, Debug)]
pub(super) struct AgentProgram {
    pub(super) program: PathBuf,
    /// What comes before the flags.
    pub(super) args: Vec<OsString>,
}

/// A running agent.
pub(super) struct Agent {
    pub(super) process: Process,
    pub(super) proxy: SocketAddr,
    pub(super) admin: SocketAddr,
    log: PathBuf,
}

impl Agent {
    async fn ready(&mut self, servers: &[Server]) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let status = Status::of(self.admin).await.unwrap_or_default();
            if servers.iter().all(|server| status.verdict(server.addr) == Some("ready")) {
                return Ok(());
            }
            if let Some(status) = self.process.ended() {
                bail!("the agent ended ({status}):\n{}", self.process.output());
            }
            ensure!(Instant::now() < deadline, "the agent is not ready: {:?}\n{}", status.upstreams, self.process.output());
            sleep(LOOK).await;
        }
    }

    /// All that it has logged.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What is wrong with it, whatever its clients saw.
    pub(super) fn complaint(&mut self) -> Option<String> {
        if let Some(status) = self.process.died() {
            return Some(format!("the agent ended ({status}):\n{}", self.process.output()));
        }
        let log = self.log();
        let panicked = log.lines().find(|line| line.contains("panicked"));
        panicked.map(|line| format!("the agent panicked: {line}"))
    }
}
