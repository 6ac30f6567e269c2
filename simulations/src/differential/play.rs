//! One trial, from the agent's start to the verdicts.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::draw::Trial;
use super::exempt::Harm;
use super::faults::{self, Record};
use super::judge::{Verdict, judge};
use super::pair::{self, Fared, Scene};
use super::stage::{AgentProgram, Servers};

/// After the last fault, and after what was left to be done then: a kernel may repeat what was lost only after as long again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether this machine stands still.
const BEAT: Duration = Duration::from_millis(20);

/// What came of a trial.
pub(super) struct Played {
    pub(super) trial: Trial,
    pub(super) pairs: Vec<(Fared, Verdict)>,
    pub(super) harms: Vec<Harm>,
    /// What was wrong with the agent besides.
    pub(super) complaint: Option<String>,
    /// What the agent logged.
    pub(super) log: String,
    /// The longest time for which this process did not run although it should have.
    pub(super) stalled: Duration,
}

/// Plays a trial.
pub(super) async fn play(trial: Trial, servers: &mut Servers, program: &AgentProgram) -> Result<Played> {
    let mut agent = servers.agent(program, trial.number).await?;
    let record = Record::default();
    let began = Instant::now();
    let left = trial.pairs.iter().map(|pair| pair.lasts).max().unwrap_or_default();
    let last = trial.pairs.iter().map(|pair| pair.begins).max().unwrap_or_default();
    let scene = Scene {
        world: trial.world,
        began,
        until: trial.calm_from().max(last) + left + PATIENCE,
        through: servers.target(agent.proxy)?,
        direct: servers.all.iter().map(|server| servers.target(server.addr)).collect::<Result<_>>()?,
        certificates: servers.all.iter().map(|server| server.certificate.clone()).collect(),
        admin: agent.admin,
        record: record.clone(),
    };
    let mut clients = JoinSet::new();
    for pair in &trial.pairs {
        clients.spawn(pair::play(*pair, scene.clone()));
    }
    let done = CancellationToken::new();
    let ended = async {
        let broken = faults::play(&trial.faults, servers, began, &record, &done);
        let fared = async {
            let mut fared = Vec::new();
            while let Some(ended) = clients.join_next().await {
                fared.push(ended.context("a client panicked")?);
            }
            done.cancel();
            anyhow::Ok(fared)
        };
        let (broken, fared) = tokio::join!(broken, fared);
        broken.and(fared)
    };
    let mut stalled = Duration::ZERO;
    let fared = tokio::select! {
        fared = ended => fared?,
        never = watch_machine(&mut stalled) => match never {},
    };
    let harms = record.harms();
    let mut pairs: Vec<(Fared, Verdict)> = fared.into_iter().map(|fared| (fared.clone(), judge(&fared, &harms))).collect();
    pairs.sort_by_key(|(fared, _)| (fared.pair.kind, fared.pair.begins));
    Ok(Played { pairs, harms, complaint: agent.complaint(), log: agent.log(), stalled, trial })
}

/// Writes down for how long this process did not run.
async fn watch_machine(stalled: &mut Duration) -> Infallible {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = beats.tick().await;
        *stalled = due.elapsed().max(*stalled);
    }
}
