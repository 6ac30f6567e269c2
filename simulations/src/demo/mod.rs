//! The demo: a small control plane is broken, piece by piece, and mended; on every node a client as kubelet is one reaches
//! it through prismesh, beside another that uses the external balancer, so that the difference shows.
//!
//! It promises to end by itself, to leave nothing behind, and to fail if a request through prismesh failed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::lab::cluster::{Cluster, MOST_NODES, Plan};
use kubernetes::Guests;
use report::{Report, Span};
use script::Phase;
use stage::{Paths, Stage};
use voice::{Goal, Voice};

mod kubernetes;
pub mod report;
pub mod script;
pub mod stage;
mod voice;

/// Nodes with an apiserver.
const CONTROL_PLANES: u8 = 3;
/// Between two looks at the agents.
const LOOK: Duration = Duration::from_millis(250);
/// Looks a second.
const LOOKS_A_SECOND: u32 = 4;
/// What was started again is awaited for so long.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// What is still under way when the story is over may end.
const LAST_ANSWERS: Duration = Duration::from_secs(4);

/// What the demo takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Nodes, three of them with an apiserver
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u8).range(i64::from(CONTROL_PLANES)..=i64::from(MOST_NODES)))]
    pub nodes: u8,
    /// Which apiserver meets which fate, and in which order; drawn if not given
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Half a minute instead of a whole one
    #[arg(long)]
    pub fast: bool,
    /// Write the table here, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Use real Kubernetes API servers (builds them with Go at first: minutes)
    #[arg(long)]
    pub kubernetes: bool,
}

/// Runs the demo. 0: nothing failed through prismesh; 1: something did; 2: it could not begin.
pub fn main(options: &Options) -> ExitCode {
    let mut voice = Voice::new();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            voice.alarm(&format!("cannot start: {error}"));
            return ExitCode::from(2);
        }
    };
    let ended = runtime.block_on(async {
        // Dropping the story ends all of its children.
        tokio::select! {
            ended = run(options, &mut voice) => ended,
            signal = interrupted() => signal,
        }
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            voice.alarm(&format!("the demo could not go on: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C and its like: the exit code that a shell expects.
pub(crate) async fn interrupted() -> Result<ExitCode> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = tokio::signal::ctrl_c() => ExitCode::from(130),
        _ = terminated.recv() => ExitCode::from(143),
        _ = hung_up.recv() => ExitCode::from(129),
    })
}

async fn run(options: &Options, voice: &mut Voice) -> Result<ExitCode> {
    let program = std::env::current_exe().context("where am I?")?;
    let mut plan = Plan::ordinary(program);
    plan.workers = options.nodes - CONTROL_PLANES;
    if options.kubernetes {
        match kubernetes::build(voice).await? {
            Some(program) => plan.kubernetes = Some(program),
            None => return Ok(ExitCode::from(2)),
        }
    }
    let seed = options.seed.unwrap_or_else(|| rand::random_range(1..1000));
    let cluster = Cluster::start(plan).await?;
    introduce(voice, &cluster, options, seed);
    let guests = if options.kubernetes { Some(Guests::welcome(&cluster, voice).await?) } else { None };
    let paths = if options.kubernetes { kubernetes::paths() } else { Paths::ordinary() };
    let mut stage = Stage::set(cluster, &paths)?;
    let apiservers: Vec<String> = stage.cluster.apiservers.iter().map(|apiserver| apiserver.name.clone()).collect();
    voice.begin();
    let mut spans = Vec::new();
    for phase in script::story(seed, &apiservers, options.fast) {
        spans.push(play(voice, &mut stage, &phase).await?);
        if let Some(death) = stage.cluster.unexpected_death() {
            anyhow::bail!("nobody asked for this: {death}");
        }
    }
    last_answers(&stage).await;
    let report = Report::of(&stage, &spans, seed, options.kubernetes);
    finish(voice, &stage, &report, guests.as_ref(), options)
}

fn introduce(voice: &Voice, cluster: &Cluster, options: &Options, seed: u64) {
    let nodes = cluster.nodes.len();
    let whose = if options.kubernetes { "real Kubernetes API servers" } else { "apiservers" };
    let flags = format!("{}{}", if options.fast { " --fast" } else { "" }, if options.kubernetes { " --kubernetes" } else { "" });
    voice.say(&format!(
        "Three {whose}, an external load balancer before them, and {nodes} nodes with a prismesh agent each: all on this machine\n\
         ({}), each a process of its own. On every node a client behaves as a kubelet does, with a long-lived watch and new requests\n\
         all the time, through prismesh on the node's localhost port. Beside it another one uses the external balancer directly.\n\
         api-1 {nodes}/{nodes} means: {nodes} of {nodes} nodes would send a new connection there.\n\
         (The same story again: demo --seed {seed} --nodes {nodes}{flags})",
        cluster.subnet().cidr(),
    ));
}

/// Plays one phase; tells how things stand each second, and when the agents have noticed.
async fn play(voice: &Voice, stage: &mut Stage, phase: &Phase) -> Result<Span> {
    voice.announce(&phase.told);
    let from = Instant::now();
    stage.act(phase.act)?;
    let mut goal = Goal::of(phase.act, stage);
    let (end, latest) = (from + phase.lasts, from + BACK_WITHIN.max(phase.lasts));
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut looks = 0;
    loop {
        // The next thing breaks when the last one is mended: a real apiserver takes its time to start.
        let until = if matches!(goal, Some(Goal::Back(..))) { latest } else { end };
        tokio::select! {
            _ = ticks.tick() => {}
            () = sleep_until(until) => break,
        }
        let statuses = stage.statuses().await;
        if let Some(text) = goal.as_ref().and_then(|goal| goal.reached(&statuses, stage.cluster.nodes.len())) {
            voice.noticed(from.elapsed(), &text);
            goal = None;
        }
        looks += 1;
        if looks % LOOKS_A_SECOND == 0 {
            voice.second(stage, &statuses, Instant::now() - Duration::from_secs(1));
        }
    }
    Ok(Span { name: phase.name.clone(), from, to: Instant::now() })
}

/// Everything works again: what is under way ends soon, or counts as failed.
async fn last_answers(stage: &Stage) {
    let deadline = Instant::now() + LAST_ANSWERS;
    let now = Instant::now();
    while Instant::now() < deadline {
        let waiting = [&stage.prismesh, &stage.direct].iter().any(|way| way.tally.waiting_since(now.elapsed()) > 0);
        if !waiting {
            break;
        }
        sleep(LOOK).await;
    }
}

fn finish(voice: &Voice, stage: &Stage, report: &Report, guests: Option<&Guests>, options: &Options) -> Result<ExitCode> {
    voice.say("");
    voice.say(&report.table());
    if let Some(file) = &options.json {
        let json = serde_json::to_vec_pretty(report)?;
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let guests_failed = guests.is_some_and(|guests| !guests.tell(voice));
    let (with, without) = (&report.total.prismesh, &report.total.direct);
    let told = format!(
        "Through prismesh {} of {} requests failed; through the external balancer {} of {}.",
        with.failed, with.requests, without.failed, without.requests
    );
    if report.passed && !guests_failed {
        voice.say(&told);
        return Ok(ExitCode::SUCCESS);
    }
    voice.alarm(&told);
    let begin = Instant::now() - Duration::from_secs(24 * 3600);
    for request in stage.prismesh.tally.since(begin).iter().filter(|request| !request.answered()).take(10) {
        let why = request.failure().map_or("still waiting for its answer", |failure| failure.why.as_str());
        voice.alarm(&format!("  after {:?}: {why}", request.took()));
    }
    Ok(ExitCode::FAILURE)
}
