//! The event log: what an agent was told and what it decided, to be replayed elsewhere.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use prismesh::agent::decide::Entry;
use prismesh::engine::Engine;
use tokio::time::sleep;

use crate::gossip::Scene;
use crate::rig::{Rig, SOON, START, secs};

#[tokio::test]
async fn what_an_agent_decided_follows_again_from_what_it_was_told_byte_for_byte() -> Result<()> {
    let mut scene = Scene::new().await?;
    let log = scene.rig.dir().join("events");
    let mut agent = scene.newcomer().flag("--record", &log).ready(&[11]).await?;
    let endpoint = scene.rig.endpoint(11);
    // Something to tell of: clients, an apiserver that dies while they come, and that comes back.
    let client = scene.rig.client(&agent, "/")?;
    client.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
    scene.apiserver.kill();
    agent.becomes(endpoint, "down", SOON).await?;
    let held = tokio::spawn(async move { client.get(SOON).await });
    sleep(secs(1)).await;
    scene.apiserver = scene.rig.apiserver(11).await?;
    agent.becomes(endpoint, "ready", SOON).await?;
    held.await?.map_err(|failure| anyhow::anyhow!(failure.why))?;
    agent.process.terminate()?;
    agent.process.end(SOON).await?;
    let told = replay(&log)?;
    for event in ["Configured", "Probed", "Record", "ClusterSize", "Traffic", "Held", "Wake"] {
        ensure!(told.contains(event), "no {event} among {told:?}");
    }
    Ok(())
}

/// Replays a log, and names the kinds of event that it holds.
fn replay(log: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(log)?;
    ensure!(text.ends_with('\n'), "the last line is whole");
    let mut lines = text.lines();
    let first = lines.next().context("a first line")?;
    let Entry::Identity(identity) = serde_json::from_str(first)? else { bail!("not who it is: {first}") };
    ensure!(identity.name == "newcomer", "{identity:?}");
    let mut engine = Engine::new(identity);
    let mut told = BTreeSet::new();
    for line in lines {
        let Entry::Step { at, event, .. } = serde_json::from_str(line)? else { bail!("not a step: {line}") };
        let effects = engine.handle(at, event.clone());
        let again = serde_json::to_string(&Entry::Step { at, event, effects })?;
        ensure!(again == line, "after {} events of other kinds\nit wrote {line}\nit would {again}", told.len());
        let step: serde_json::Value = serde_json::from_str(line)?;
        let event = &step["step"]["event"];
        let kind = event.as_str().or_else(|| event.as_object()?.keys().next().map(String::as_str));
        told.insert(kind.context("a kind of event")?.to_owned());
    }
    Ok(told)
}

#[tokio::test]
async fn a_log_that_nobody_reads_is_refused_at_the_start() -> Result<()> {
    let rig = Rig::new().await?;
    let fifo = rig.dir().join("fifo");
    ensure!(std::process::Command::new("mkfifo").arg(&fifo).status()?.success());
    let mut agent = rig.agent().endpoint(11).flag("--record", &fifo).launch()?;
    let status = agent.process.end(START).await?;
    ensure!(status.code() == Some(2) && agent.process.output().contains("flag --record"), "{status} {}", agent.process.output());
    Ok(())
}

#[tokio::test]
async fn a_disk_that_is_full_ends_the_log_and_not_the_service() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let agent = rig.agent().endpoint(11).flag("--record", "/dev/full").ready(&[11]).await?;
    agent.says(&["ERROR", "event log has ended"], SOON).await?;
    sleep(secs(1)).await;
    ensure!(agent.logged(&["event log"]).len() == 1, "it says so once:\n{}", agent.log());
    rig.client(&agent, "/")?.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
    agent.blames_nobody().await
}
