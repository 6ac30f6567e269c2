//! prismesh: a cluster of the lab, whose first nodes are its core members.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::figures::{Check, Figure, Measured};
use super::kernel::{Memory, memory};
use super::{BATCH, CLOSE_LOOK, LOOK, NEW_NODES, Options, PATIENCE, SAMPLE, idle, mean, median_and_slowest, millis, sample};
use crate::lab::children::Process;
use crate::lab::cluster::{ADMIN_PORT, Cluster, FIRST_NODE_HOST, MOST_NODES, Node, PROXY_PORT, Plan};
use crate::lab::status::{Status, page};

/// Agents without gossip: the mean of several, since an idle one uses little.
const OFF_AGENTS: u8 = 4;
/// The first host of the subnet that is no node of the cluster.
const FIRST_FREE_HOST: u8 = FIRST_NODE_HOST + MOST_NODES;
/// Headers of IPv4 and UDP.
const HEADERS: u64 = 28;
/// After the agents' counters were read, their CPU time is not read before this.
const BREATH: Duration = Duration::from_millis(200);

/// Measures everything, and says what it knows so far where something fails.
pub(super) async fn measure(options: &Options, measured: &mut Measured, check: &mut Check) -> Result<()> {
    let mut bench = Bench::start(options).await?;
    sleep(Duration::from_millis(options.settle)).await;
    bench.idle(options.measured_for(), measured, check).await.context("while idle")?;
    bench.new_workers(measured).await.context("new workers")?;
    bench.leaving(measured).await.context("a core member leaves")?;
    bench.crash(measured).await.context("the agent of a core member is killed")?;
    bench.draining(measured).await.context("an apiserver drains")?;
    match bench.cluster.unexpected_death() {
        Some(death) => anyhow::bail!("this was not asked for: {death}"),
        None => Ok(()),
    }
}

struct Bench {
    cluster: Cluster,
    /// Core members are the first nodes.
    core: usize,
    reader: PathBuf,
    off: Vec<Process>,
    new: u8,
}

impl Bench {
    /// All agents run and know the core members.
    async fn start(options: &Options) -> Result<Bench> {
        let program = std::env::current_exe().context("where am I?")?;
        let workers = options.nodes - options.core;
        let plan = Plan { program: program.clone(), control_planes: options.core, workers, external: false, kubernetes: None };
        let mut cluster = Cluster::lay_out(plan)?;
        let core = usize::from(options.core);
        let reader = reader_keyring(&cluster, &program)?;
        let seed = cluster.nodes.first().context("there are nodes")?.gossip();
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            node.seeds = if index == 0 { Vec::new() } else { vec![seed] };
            if index >= core {
                node.keyring.clone_from(&reader);
            }
        }
        for index in 0..core {
            cluster.start_apiserver(index)?;
        }
        for index in 0..core {
            cluster.apiserver_ready(index).await?;
        }
        let mut bench = Bench { cluster, core, reader, off: Vec::new(), new: 0 };
        for host in 0..OFF_AGENTS {
            let agent = bench.start_without_gossip(host)?;
            bench.off.push(agent);
        }
        let nodes: Vec<usize> = (0..bench.cluster.nodes.len()).collect();
        let (core, workers) = nodes.split_at(core);
        bench.start_agents(core).await?;
        for batch in workers.chunks(BATCH) {
            bench.start_agents(batch).await?;
        }
        Ok(bench)
    }

    /// Starts these, and waits until they know that all core members are live.
    async fn start_agents(&mut self, nodes: &[usize]) -> Result<()> {
        for index in nodes {
            self.cluster.start_agent(*index)?;
        }
        let core = self.core;
        let settled = known_to_all(self.asked(nodes), move |status| status.live_core_members() >= core).await;
        if let Some(death) = self.cluster.unexpected_death() {
            anyhow::bail!("{death}");
        }
        settled.map(drop)
    }

    /// An agent that is told of the apiservers instead of hearing of them.
    fn start_without_gossip(&self, number: u8) -> Result<Process> {
        let name = format!("off-{}", number + 1);
        let at = |port| self.cluster.subnet().at(FIRST_FREE_HOST + number, port).to_string();
        let state = self.cluster.dir().join(format!("{name}-state"));
        let ca = self.cluster.ca.certificate();
        let mut args: Vec<std::ffi::OsString> =
            ["agent", "run", "--cluster", "lab", "--gossip-listen", "off"].map(Into::into).into();
        let (listen, admin) = (at(PROXY_PORT), at(ADMIN_PORT));
        args.extend(["--node", &name, "--listen", &listen, "--admin", &admin].map(Into::into));
        args.extend(["--state-dir".into(), state.into(), "--ca".into(), ca.into()]);
        for apiserver in &self.cluster.apiservers {
            args.extend(["--endpoint".into(), apiserver.addr.to_string().into()]);
        }
        self.cluster.spawn(&name, args)
    }

    /// Where these nodes are asked.
    fn asked(&self, nodes: &[usize]) -> Vec<SocketAddr> {
        nodes.iter().filter_map(|index| self.cluster.nodes.get(*index)).map(Node::admin).collect()
    }

    /// Bytes, packets, CPU and memory while nothing happens.
    async fn idle(&mut self, span: Duration, measured: &mut Measured, check: &mut Check) -> Result<()> {
        let mut pids: Vec<u32> = self.off.iter().map(Process::pid).collect();
        let off = pids.len();
        for node in &mut self.cluster.nodes {
            pids.push(node.agent()?.pid());
        }
        let before = self.counted().await?;
        sleep(BREATH).await;
        let idle = idle::watch(&pids, span).await?;
        let after = self.counted().await?;
        let sent: Vec<Sent> = before.iter().zip(&after).map(|(before, after)| after.since(before)).collect();
        *check = Check { agents_udp_per_second: Some(sent.iter().map(|sent| sent.packets).sum()), ..idle.check };

        let (core, workers) = sent.split_at(self.core);
        let worker_bytes = mean(workers.iter().map(|sent| sent.bytes));
        let worker_packets = mean(workers.iter().map(|sent| sent.packets));
        measured.insert(Figure::WorkerSent, worker_bytes);
        measured.insert(Figure::WorkerPackets, worker_packets);
        if worker_packets > 0.0 {
            measured.insert(Figure::WorkerPacketSize, worker_bytes / worker_packets);
        }
        measured.insert(Figure::CoreSent, mean(core.iter().map(|sent| sent.bytes)) / 1_000.0);
        measured.insert(Figure::CorePackets, mean(core.iter().map(|sent| sent.packets)));

        let memory: Vec<Memory> = pids.iter().map(|pid| memory(*pid)).collect::<Result<_>>()?;
        let rows = [
            (0..off, Figure::OffCpu, Figure::OffPss, None),
            (off..off + self.core, Figure::CoreCpu, Figure::CorePss, Some(Figure::CoreRss)),
            (off + self.core..pids.len(), Figure::WorkerCpu, Figure::WorkerPss, Some(Figure::WorkerRss)),
        ];
        for (range, cpu, pss, rss) in rows {
            let megabytes = |of: fn(&Memory) -> u64| mean(memory[range.clone()].iter().map(|memory| of(memory) as f64 / 1e6));
            measured.insert(cpu, mean(idle.cpu[range.clone()].iter().copied()));
            measured.insert(pss, megabytes(|memory| memory.proportional));
            if let Some(rss) = rss {
                measured.insert(rss, megabytes(|memory| memory.resident));
            }
        }
        // They are of no more use.
        self.off.clear();
        Ok(())
    }

    /// What all agents have sent so far.
    async fn counted(&self) -> Result<Vec<Counted>> {
        let mut counted = Vec::new();
        for node in &self.cluster.nodes {
            let metrics = page(node.admin(), "/metrics").await.with_context(|| node.name.clone())?;
            let out = |name: &str| {
                let name = format!("prismesh_gossip_{name}_total{{direction=\"out\"}} ");
                let value = metrics.lines().find_map(|line| line.strip_prefix(name.as_str()));
                let number = value.and_then(|value| value.trim().parse::<u64>().ok());
                number.with_context(|| format!("{} has no metric {name}", node.name))
            };
            let packets = out("datagrams")?;
            counted.push(Counted { at: Instant::now(), packets, bytes: out("bytes")? + HEADERS * packets });
        }
        Ok(counted)
    }

    /// New workers, one after the other, with a core member for their seed and then with a worker.
    async fn new_workers(&mut self, measured: &mut Measured) -> Result<()> {
        let seeds =
            [(0, Figure::JoinByCore, Figure::JoinByCoreSlowest), (self.core, Figure::JoinByWorker, Figure::JoinByWorkerSlowest)];
        for (seed, median, slowest) in seeds {
            let seed = self.cluster.nodes.get(seed).context("no such seed")?.gossip();
            let mut times = Vec::new();
            for _ in 0..NEW_NODES {
                times.push(self.new_worker(seed).await?);
            }
            if let Some(times) = median_and_slowest(times) {
                measured.insert(median, times.0);
                measured.insert(slowest, times.1);
            }
        }
        Ok(())
    }

    /// From the start of a process to the moment when it knows the records of all core members. It is gone afterwards.
    async fn new_worker(&mut self, seed: SocketAddr) -> Result<Duration> {
        let index = self.cluster.nodes.len();
        let host = FIRST_FREE_HOST + OFF_AGENTS + self.new;
        self.new += 1;
        self.cluster.nodes.push(Node {
            name: format!("new-{}", self.new),
            ip: self.cluster.subnet().host(host),
            apiserver: None,
            seeds: vec![seed],
            external: None,
            flags: Vec::new(),
            cluster: "lab".to_owned(),
            keyring: self.reader.clone(),
            agent: None,
        });
        let admin = self.cluster.nodes[index].admin();
        let began = Instant::now();
        self.cluster.start_agent(index)?;
        let core = self.core;
        let known = known(admin, CLOSE_LOOK, &move |status: &Status| status.core_members() >= core).await;
        self.cluster.nodes.truncate(index);
        Ok(known? - began)
    }

    /// The last core member is told to leave; it is back afterwards.
    async fn leaving(&mut self, measured: &mut Measured) -> Result<()> {
        let index = self.core - 1;
        let (name, others) = self.all_but(index)?;
        let agent = self.cluster.nodes[index].agent()?;
        let began = Instant::now();
        agent.terminate()?;
        let last = known_to_all(others, move |status| status.gone_or(&name, |peer| peer.agent == "leaving")).await?;
        measured.insert(Figure::Leaving, millis(last - began));
        self.cluster.nodes[index].agent()?.end(PATIENCE).await?;
        self.back(index).await
    }

    /// The agent of the last core member but one is killed; it is back afterwards.
    ///
    /// Another one than left before: news of one member's going and coming that follow one another are paced.
    async fn crash(&mut self, measured: &mut Measured) -> Result<()> {
        let index = self.core.saturating_sub(2);
        let (name, others) = self.all_but(index)?;
        let (core, workers) = others.split_at(self.core - 1);
        let agent = self.cluster.nodes[index].agent()?;
        let began = Instant::now();
        agent.kill();
        let gone = move |status: &Status| status.gone_or(&name, |_| false);
        let (core, workers) = tokio::join!(known_to_all(core.to_vec(), gone.clone()), known_to_all(workers.to_vec(), gone));
        let (core, workers) = (core?, workers?);
        if self.core > 1 {
            measured.insert(Figure::CrashCore, millis(core - began));
        }
        measured.insert(Figure::Crash, millis(core.max(workers) - began));
        self.back(index).await
    }

    /// Starts a core member's agent again, and waits until all know it.
    async fn back(&mut self, index: usize) -> Result<()> {
        self.cluster.start_agent(index)?;
        let (name, others) = self.all_but(index)?;
        let back =
            move |status: &Status| status.peers.iter().any(|peer| peer.name == name && peer.alive && peer.agent == "running");
        known_to_all(others, back).await.context("it came back")?;
        // The core members' own looks at one another.
        let core = self.core;
        known_to_all(self.asked(&[index]), move |status| status.live_core_members() >= core).await.map(drop)
    }

    /// An apiserver drains: from the moment when its own node's agent shows it.
    async fn draining(&mut self, measured: &mut Measured) -> Result<()> {
        let (name, others) = self.all_but(0)?;
        let own = self.cluster.nodes[0].admin();
        let apiserver = self.cluster.apiservers.first_mut().context("there is an apiserver")?;
        let addr = apiserver.addr;
        apiserver.process()?.terminate()?;
        // Who was not asked in time sees its end: that counts, and later.
        let drains = |state: Option<&str>| matches!(state, Some("draining" | "down"));
        let own_drains = move |status: &Status| drains(status.verdict(addr));
        let told = move |status: &Status| status.peers.iter().any(|peer| peer.name == name && drains(peer.apiserver.as_deref()));
        let (own, last) = tokio::join!(known(own, CLOSE_LOOK, &own_drains), known_to_all(others, told));
        measured.insert(Figure::Draining, millis(last?.saturating_duration_since(own?)));
        Ok(())
    }

    /// The name of a core member, and where a sample of the workers and all other core members are asked.
    fn all_but(&self, index: usize) -> Result<(String, Vec<SocketAddr>)> {
        let name = self.cluster.nodes.get(index).context("no such node")?.name.clone();
        let all: Vec<usize> = (0..self.cluster.nodes.len()).collect();
        let (core, workers) = all.split_at(self.core);
        let mut others: Vec<usize> = core.iter().copied().filter(|other| *other != index).collect();
        others.extend(sample(workers, SAMPLE));
        Ok((name, self.asked(&others)))
    }
}

/// What an agent has sent since it started.
struct Counted {
    at: Instant,
    packets: u64,
    bytes: u64,
}

/// What an agent sends in a second.
struct Sent {
    packets: f64,
    bytes: f64,
}

impl Counted {
    fn since(&self, before: &Counted) -> Sent {
        let seconds = (self.at - before.at).as_secs_f64().max(f64::EPSILON);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        Sent { packets: rate(self.packets, before.packets), bytes: rate(self.bytes, before.bytes) }
    }
}

/// When the last of these nodes knew it.
async fn known_to_all(
    nodes: Vec<SocketAddr>,
    knows: impl Fn(&Status) -> bool + Clone + Send + Sync + 'static,
) -> Result<Instant> {
    let mut asked = JoinSet::new();
    for node in nodes {
        let knows = knows.clone();
        asked.spawn(async move { known(node, LOOK, &knows).await });
    }
    let mut last = Instant::now();
    while let Some(known) = asked.join_next().await {
        last = last.max(known??);
    }
    Ok(last)
}

/// When a node knew it: the moment of its first answer that says so.
async fn known(node: SocketAddr, every: Duration, knows: &(impl Fn(&Status) -> bool + Sync)) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let status = Status::of(node).await;
        if status.as_ref().is_ok_and(knows) {
            return Ok(Instant::now());
        }
        ensure!(Instant::now() < deadline, "{node} does not know it after {PATIENCE:?}: {status:?}");
    }
}

/// What workers hold, in a file.
fn reader_keyring(cluster: &Cluster, program: &std::path::Path) -> Result<PathBuf> {
    let full = &cluster.nodes.first().context("there are nodes")?.keyring;
    let mut command = Command::new(program);
    command.args(["agent", "key", "public"]).arg(full).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run key public")?;
    // It ends with its standard input, which waiting for it would close.
    let _stdin = child.stdin.take();
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "key public failed: {}", String::from_utf8_lossy(&output.stderr));
    let reader = cluster.dir().join("keyring.reader");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&reader)?;
    file.write_all(&output.stdout)?;
    Ok(reader)
}
