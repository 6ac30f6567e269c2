//! One agent, its apiservers and its clients.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::Value;
use simulations::lab::apiserver::Options;
use simulations::lab::ca::Ca;
use simulations::lab::children::{Launch, Process};
use simulations::lab::client::Target;
use simulations::lab::netns::{Place, enter};
use simulations::lab::status::page;
use simulations::lab::subnet::Subnet;
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, sleep};

/// A process of ours starts within this, on a machine with much else to do.
pub(crate) const START: Duration = Duration::from_secs(20);
/// Whatever should come soon and has no bound of its own.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
const APISERVER_PORT: u16 = 6443;
const AGENT_HOST: u8 = 31;

/// Held by each test for as long as it runs: those that need the machine for themselves hold it for writing.
static MACHINE: RwLock<()> = RwLock::const_new(());

#[expect(dead_code, reason = "held, not looked at")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// For tests that drop packets, which have the machine for themselves: whether to go on here.
pub(crate) fn in_a_network_of_its_own(test: &str) -> Result<bool> {
    in_a_network_by(enter, test)
}

/// The same by another way in.
#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
pub(crate) fn in_a_network_by(enter: impl FnOnce(&str) -> Result<Place>, test: &str) -> Result<bool> {
    let _turn = MACHINE.blocking_write();
    match enter(test)? {
        Place::Inside => Ok(true),
        Place::Passed => Ok(false),
        Place::Forbidden(why) => {
            eprintln!("SKIPPED {test}: {why}");
            Ok(false)
        }
    }
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A promised time, five times as wide where the build or the machine is not what it was promised for.
pub(crate) fn wide(bound: Duration) -> Duration {
    if cfg!(debug_assertions) { bound * 5 } else { bound }
}

/// The executable whose hidden subcommands are the children.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_simulations"))
}

/// Waits until something is so, and says how long that took.
pub(crate) async fn until(what: &str, within: Duration, so: impl AsyncFn() -> bool) -> Result<Duration> {
    let begin = Instant::now();
    while !so().await {
        ensure!(begin.elapsed() < within, "not within {within:?}: {what}");
        sleep(LOOK).await;
    }
    Ok(begin.elapsed())
}

/// A whole ClientHello, as a client of the cluster sends it.
pub(crate) fn client_hello() -> Result<Vec<u8>> {
    hello_for("kubernetes")
}

/// The same for another name.
pub(crate) fn hello_for(name: &'static str) -> Result<Vec<u8>> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name.try_into()?)?.write_tls(&mut hello)?;
    Ok(hello)
}

/// What a test needs of the world.
pub(crate) struct Rig {
    pub(crate) ca: Ca,
    pub(crate) subnet: Subnet,
    dir: TempDir,
    _turn: Turn,
}

impl Rig {
    /// For tests that others may run beside.
    pub(crate) async fn new() -> Result<Rig> {
        Rig::with(Turn::Shared(MACHINE.read().await))
    }

    /// For tests that need the machine for themselves.
    pub(crate) async fn alone() -> Result<Rig> {
        Rig::with(Turn::Alone(MACHINE.write().await))
    }

    fn with(turn: Turn) -> Result<Rig> {
        let dir = tempfile::Builder::new().prefix("prismesh-abuse-").tempdir()?;
        Ok(Rig { ca: Ca::create(dir.path(), "ca")?, subnet: Subnet::claim()?, dir, _turn: turn })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The address of an apiserver.
    pub(crate) fn endpoint(&self, host: u8) -> SocketAddr {
        self.subnet.at(host, APISERVER_PORT)
    }

    /// An apiserver as it should be, to be changed.
    pub(crate) fn options(&self, host: u8) -> Result<Options> {
        let listen = self.endpoint(host);
        let name = format!("api-{host}");
        Ok(Options::new(&name, listen, self.ca.server(&name, &[listen.ip()])?))
    }

    /// An apiserver that has not begun to listen yet.
    pub(crate) fn apiserver_process(&self, options: &Options) -> Result<Process> {
        self.child(&options.name, program(), options.args())
    }

    /// Starts an apiserver.
    pub(crate) async fn serve(&self, options: &Options) -> Result<Process> {
        let mut process = self.apiserver_process(options)?;
        process.ready(START).await?;
        Ok(process)
    }

    /// An apiserver as it should be.
    pub(crate) async fn apiserver(&self, host: u8) -> Result<Process> {
        self.serve(&self.options(host)?).await
    }

    /// A process that ends with this one.
    pub(crate) fn child(&self, name: &str, program: PathBuf, args: Vec<OsString>) -> Result<Process> {
        Process::start(Launch { name: name.to_owned(), program, args, dir: self.dir().to_owned(), socket: None })
    }

    /// An agent without gossip, to be changed.
    pub(crate) fn agent(&self) -> Plan<'_> {
        let plan = Plan {
            rig: self,
            name: "agent".to_owned(),
            proxy: self.subnet.at(AGENT_HOST, 7445),
            admin: self.subnet.at(AGENT_HOST, 7446),
            flags: Vec::new(),
            before: String::new(),
            user: None,
        };
        plan.flag("--cluster", "abuse")
            .flag("--node", "abused")
            .flag("--gossip-listen", "off")
            .flag("--log-format", "human")
            .flag("--state-dir", self.dir().join("state"))
            .flag("--ca", self.ca.certificate())
    }

    /// A client of the agent.
    pub(crate) fn client(&self, agent: &Agent, path: &str) -> Result<Target> {
        Target::new(agent.proxy, path, &self.ca.certificate(), None)
    }
}

/// An agent to be started.
#[derive(Clone)]
pub(crate) struct Plan<'r> {
    rig: &'r Rig,
    pub(crate) name: String,
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
    flags: Vec<(&'static str, OsString)>,
    before: String,
    user: Option<(u32, PathBuf)>,
}

impl Plan<'_> {
    /// One more flag.
    pub(crate) fn flag(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.flags.push((name, value.into()));
        self
    }

    /// A flag that takes the place of what there was.
    pub(crate) fn instead(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self = self.without(name);
        self.flag(name, value)
    }

    /// The flag is not given.
    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.flags.retain(|(flag, _)| *flag != name);
        self
    }

    /// A static endpoint.
    pub(crate) fn endpoint(self, host: u8) -> Self {
        let endpoint = self.rig.endpoint(host).to_string();
        self.flag("--endpoint", endpoint)
    }

    /// What a shell does before it becomes the agent.
    pub(crate) fn after(mut self, script: &str) -> Self {
        self.before = script.to_owned();
        self
    }

    /// It runs as this user, who can start that copy of the program.
    pub(crate) fn run_by(mut self, user: u32, program: PathBuf) -> Self {
        self.user = Some((user, program));
        self
    }

    /// The command line after the program.
    pub(crate) fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["agent".into(), "run".into()];
        let own = |name| self.flags.iter().any(|(flag, _)| *flag == name);
        if !own("--listen") {
            args.extend(["--listen".into(), self.proxy.to_string().into()]);
        }
        if !own("--admin") {
            args.extend(["--admin".into(), self.admin.to_string().into()]);
        }
        for (flag, value) in &self.flags {
            args.extend([flag.into(), value.clone()]);
        }
        args
    }

    /// Starts it; it serves soon, or ends.
    pub(crate) fn launch(self) -> Result<Agent> {
        let args = self.args();
        let (program, args) = if let Some((user, program)) = &self.user {
            let id = OsString::from(user.to_string());
            let other: [OsString; 5] = ["--reuid".into(), id.clone(), "--regid".into(), id, "--clear-groups".into()];
            (PathBuf::from("setpriv"), other.into_iter().chain([program.into()]).chain(args).collect())
        } else if self.before.is_empty() {
            (program(), args)
        } else {
            let script = format!("{}; exec \"$0\" \"$@\"", self.before);
            let shell: [OsString; 3] = ["-c".into(), script.into(), program().into()];
            (PathBuf::from("sh"), shell.into_iter().chain(args).collect())
        };
        let process = self.rig.child(&self.name, program, args)?;
        let log = self.rig.dir().join(format!("{}.err", self.name));
        Ok(Agent { process, log, proxy: self.proxy, admin: self.admin })
    }

    /// Starts it, and waits until it shows its status.
    pub(crate) async fn start(self) -> Result<Agent> {
        let mut agent = self.launch()?;
        agent.serves().await?;
        Ok(agent)
    }

    /// Starts it, and waits until these are ready.
    pub(crate) async fn ready(self, hosts: &[u8]) -> Result<Agent> {
        let endpoints: Vec<SocketAddr> = hosts.iter().map(|host| self.rig.endpoint(*host)).collect();
        let agent = self.start().await?;
        for endpoint in endpoints {
            agent.becomes(endpoint, "ready", START).await?;
        }
        Ok(agent)
    }
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) process: Process,
    log: PathBuf,
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Agent {
    pub(crate) async fn serves(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while self.status().await.is_err() {
            if let Some(status) = self.process.ended() {
                bail!("the agent ended ({status}):\n{}", self.process.output());
            }
            ensure!(Instant::now() < deadline, "the agent shows no status:\n{}", self.process.output());
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// `/status`, whole.
    pub(crate) async fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&page(self.admin, "/status").await?)?)
    }

    /// An endpoint in `/status`.
    pub(crate) async fn upstream(&self, endpoint: SocketAddr) -> Result<Option<Value>> {
        let (status, endpoint) = (self.status().await?, endpoint.to_string());
        let upstreams = status["upstreams"].as_array().context("a list of upstreams")?;
        Ok(upstreams.iter().find(|upstream| upstream["endpoint"] == endpoint.as_str()).cloned())
    }

    /// What it holds of an endpoint; empty if it does not know it.
    pub(crate) async fn verdict(&self, endpoint: SocketAddr) -> String {
        let upstream = self.upstream(endpoint).await.ok().flatten();
        upstream.and_then(|upstream| upstream["verdict"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Waits for a verdict.
    pub(crate) async fn becomes(&self, endpoint: SocketAddr, verdict: &str, within: Duration) -> Result<Duration> {
        let what = format!("{endpoint} becomes {verdict}");
        let waited = until(&what, within, async || self.verdict(endpoint).await == verdict).await;
        waited.with_context(|| self.process.output())
    }

    /// A number of `/metrics`: the sum over the series whose line begins so.
    pub(crate) async fn metric(&self, series: &str) -> Result<f64> {
        let text = page(self.admin, "/metrics").await?;
        let values = text.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit(' ').next());
        let values: Vec<f64> = values.filter_map(|value| value.parse().ok()).collect();
        ensure!(!values.is_empty(), "no {series} in\n{text}");
        Ok(values.iter().sum())
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Lines of its log that hold all of these.
    pub(crate) fn logged(&self, words: &[&str]) -> Vec<String> {
        let log = self.log();
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
    }

    /// Waits for a line of its log that holds all of these.
    pub(crate) async fn says(&self, words: &[&str], within: Duration) -> Result<String> {
        until(&format!("a line with {words:?}"), within, async || !self.logged(words).is_empty())
            .await
            .with_context(|| self.process.output())?;
        self.logged(words).pop().context("just seen")
    }

    /// Claims that it has never held anything against an apiserver, and that nothing in it panicked.
    pub(crate) async fn blames_nobody(&self) -> Result<()> {
        for verdict in ["suspect", "down", "draining"] {
            let blamed = self.logged(&["verdict changed", &format!("to=\"{verdict}\"")]);
            ensure!(blamed.is_empty(), "an apiserver was blamed: {blamed:?}");
        }
        self.is_sound().await
    }

    /// Claims that nothing in it panicked.
    pub(crate) async fn is_sound(&self) -> Result<()> {
        let panics = self.metric("prismesh_panics_total").await?;
        ensure!(panics == 0.0 && self.logged(&["panicked"]).is_empty(), "it panicked:\n{}", self.process.output());
        Ok(())
    }

    /// Waits until it has no client any more.
    pub(crate) async fn empty(&self, within: Duration) -> Result<Duration> {
        until("all clients are gone", within, async || self.metric("prismesh_clients ").await.is_ok_and(|open| open == 0.0)).await
    }

    /// What a subcommand says of this agent.
    pub(crate) fn ask(&self, subcommand: &str) -> Result<String> {
        let mut child = Command::new(program())
            .args(["agent", subcommand, "--admin", &self.admin.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // Our children end when their standard input does.
        let stdin = child.stdin.take();
        let output = child.wait_with_output()?;
        drop(stdin);
        ensure!(output.status.success(), "{subcommand} failed: {}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }
}
