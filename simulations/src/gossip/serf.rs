//! serf: the same measurements, as far as it has the same things.
//!
//! All members are equal, so one figure stands for workers and for core members. serf does not count what it sends; the
//! namespace's kernel does, all protocols together, since serf also exchanges its whole state over TCP each 30 s or more. News are
//! read from the members' logs, which are files here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::figures::{Check, Figure, Measured};
use super::kernel::memory;
use super::{BATCH, CLOSE_LOOK, LOOK, NEW_NODES, Options, PATIENCE, SAMPLE, idle, mean, median_and_slowest, millis, sample};
use crate::lab::children::{Launch, Process};
use crate::lab::cluster::FIRST_NODE_HOST;
use crate::lab::subnet::Subnet;

const GOSSIP_PORT: u16 = 7946;
const RPC_PORT: u16 = 7373;

/// Whether it can be run.
pub(super) fn installed() -> bool {
    Command::new("serf").arg("version").output().is_ok_and(|output| output.status.success())
}

/// Measures what there is to measure.
pub(super) async fn measure(options: &Options, measured: &mut Measured, check: &mut Check) -> Result<()> {
    let mut ring = Ring::new()?;
    let nodes = usize::from(options.nodes);
    while ring.members.len() < nodes {
        // The first one alone: others end if it does not listen yet.
        let batch = if ring.members.is_empty() { 1 } else { BATCH.min(nodes - ring.members.len()) };
        for _ in 0..batch {
            ring.start()?;
        }
        let known = ring.members.len();
        ring.known(&ring.logs(), LOOK, |log| joined(log) >= known).await.context("they join")?;
    }
    sleep(Duration::from_millis(options.settle)).await;
    ring.idle(options.measured_for(), measured, check).await.context("while idle")?;
    ring.new_members(measured).await.context("new members")?;
    ring.leaving(measured).await.context("a member leaves")?;
    ring.crash(measured).await.context("a member is killed")
}

struct Member {
    name: String,
    process: Process,
    log: PathBuf,
}

struct Ring {
    members: Vec<Member>,
    started: u8,
    key: String,
    subnet: Subnet,
    // Last: the processes that write there are gone by then.
    dir: TempDir,
}

impl Ring {
    fn new() -> Result<Ring> {
        let output = Command::new("serf").arg("keygen").output().context("cannot run serf keygen")?;
        ensure!(output.status.success(), "serf keygen failed: {}", String::from_utf8_lossy(&output.stderr));
        let key = String::from_utf8(output.stdout)?.trim().to_owned();
        let dir = tempfile::Builder::new().prefix("prismesh-serf-").tempdir()?;
        Ok(Ring { members: Vec::new(), started: 0, key, subnet: Subnet::claim()?, dir })
    }

    /// Starts one more, which joins the first.
    fn start(&mut self) -> Result<()> {
        let host = FIRST_NODE_HOST + self.started;
        self.started += 1;
        let name = format!("serf-{}", self.started);
        let at = |port| self.subnet.at(host, port);
        // It does not end with its standard input, as the lab's own children do.
        let mut args: Vec<String> =
            ["--pdeathsig", "KILL", "serf", "agent", "-profile=lan", "-log-level=info"].map(Into::into).into();
        args.push(format!("-node={name}"));
        args.push(format!("-bind={}", at(GOSSIP_PORT)));
        args.push(format!("-rpc-addr={}", at(RPC_PORT)));
        args.push(format!("-encrypt={}", self.key));
        if host != FIRST_NODE_HOST {
            args.push(format!("-join={}", self.subnet.at(FIRST_NODE_HOST, GOSSIP_PORT)));
        }
        let args = args.into_iter().map(Into::into).collect();
        let dir = self.dir.path().to_owned();
        let log = dir.join(format!("{name}.out"));
        let process = Process::start(Launch { name: name.clone(), program: "setpriv".into(), args, dir, socket: None })?;
        self.members.push(Member { name, process, log });
        Ok(())
    }

    async fn idle(&mut self, span: Duration, measured: &mut Measured, check: &mut Check) -> Result<()> {
        let pids: Vec<u32> = self.members.iter().map(|member| member.process.pid()).collect();
        let idle = idle::watch(&pids, span).await?;
        *check = idle.check;
        let each = |of_all: f64| of_all / pids.len() as f64;
        let (bytes, packets) = (each(check.network_bytes_per_second), each(idle.packets));
        measured.extend([(Figure::WorkerSent, bytes), (Figure::CoreSent, bytes / 1_000.0)]);
        measured.extend([(Figure::WorkerPackets, packets), (Figure::CorePackets, packets)]);
        if packets > 0.0 {
            measured.insert(Figure::WorkerPacketSize, bytes / packets);
        }
        let cpu = mean(idle.cpu);
        measured.extend([(Figure::WorkerCpu, cpu), (Figure::CoreCpu, cpu)]);
        let memory = pids.iter().map(|pid| memory(*pid)).collect::<Result<Vec<_>>>()?;
        let pss = mean(memory.iter().map(|memory| memory.proportional as f64 / 1e6));
        let rss = mean(memory.iter().map(|memory| memory.resident as f64 / 1e6));
        measured.extend([(Figure::WorkerPss, pss), (Figure::CorePss, pss), (Figure::WorkerRss, rss), (Figure::CoreRss, rss)]);
        Ok(())
    }

    /// From the start of a process to the moment when it knows all others.
    async fn new_members(&mut self, measured: &mut Measured) -> Result<()> {
        let all = self.members.len() + 1;
        let mut times = Vec::new();
        for _ in 0..NEW_NODES {
            let began = Instant::now();
            self.start()?;
            let log = self.members.last().context("just started")?.log.clone();
            times.push(self.known(&[log], CLOSE_LOOK, |log| joined(log) >= all).await? - began);
            let mut member = self.members.pop().context("just started")?;
            member.process.signal(Signal::INT)?;
            member.process.end(PATIENCE).await?;
        }
        if let Some((median, slowest)) = median_and_slowest(times) {
            measured.extend([(Figure::JoinByCore, median), (Figure::JoinByWorker, median)]);
            measured.extend([(Figure::JoinByCoreSlowest, slowest), (Figure::JoinByWorkerSlowest, slowest)]);
        }
        Ok(())
    }

    async fn leaving(&mut self, measured: &mut Measured) -> Result<()> {
        let mut member = self.members.pop().context("there are members")?;
        let began = Instant::now();
        member.process.signal(Signal::INT)?;
        let last = self.event("EventMemberLeave", &member.name).await?;
        measured.insert(Figure::Leaving, millis(last - began));
        member.process.end(PATIENCE).await.map(drop)
    }

    async fn crash(&mut self, measured: &mut Measured) -> Result<()> {
        let mut member = self.members.pop().context("there are members")?;
        let began = Instant::now();
        member.process.kill();
        let last = self.event("EventMemberFailed", &member.name).await?;
        measured.insert(Figure::Crash, millis(last - began));
        Ok(())
    }

    /// When the last of a sample of the members logged this event of a member.
    async fn event(&self, event: &str, name: &str) -> Result<Instant> {
        let line = format!("{event}: {name} ");
        let logs = self.logs();
        let sampled: Vec<&PathBuf> = sample(&logs.iter().collect::<Vec<_>>(), SAMPLE);
        self.known(&sampled, LOOK, |log| log.contains(&line)).await
    }

    fn logs(&self) -> Vec<PathBuf> {
        self.members.iter().map(|member| member.log.clone()).collect()
    }

    /// When the last of these logs showed it.
    async fn known(&self, logs: &[impl AsRef<Path>], every: Duration, shows: impl Fn(&str) -> bool) -> Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        let mut waiting: Vec<&Path> = logs.iter().map(AsRef::as_ref).collect();
        loop {
            waiting.retain(|log| !shows(&std::fs::read_to_string(log).unwrap_or_default()));
            let Some(log) = waiting.first() else { return Ok(Instant::now()) };
            if Instant::now() > deadline {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("{} does not show it after {PATIENCE:?}:\n{said}", log.display());
            }
            sleep(every).await;
        }
    }
}

/// Members that this one has heard of, itself included.
fn joined(log: &str) -> usize {
    log.lines().filter(|line| line.contains("EventMemberJoin: ")).count()
}
