//! Stopped, woken, told to go.

use anyhow::{Result, ensure};
use simulations::lab::client::Target;
use simulations::lab::watcher::Watcher;
use tokio::time::{Instant, sleep};

use crate::rig::{Agent, Rig, SOON, millis, secs, until, wide};

/// The drain at stop.
const DRAIN: std::time::Duration = secs(5);

/// A stream through the agent to one of two apiservers, and those.
async fn carrying(rig: &Rig) -> Result<(Vec<simulations::lab::children::Process>, Agent, Target, Watcher)> {
    let apiservers = vec![rig.apiserver(11).await?, rig.apiserver(12).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).ready(&[11, 12]).await?;
    let client = rig.client(&agent, "/")?;
    let watcher = Watcher::start(client.path("/watch"));
    until("the stream begins", SOON, async || watcher.current().is_some()).await?;
    Ok((apiservers, agent, client, watcher))
}

#[tokio::test]
async fn an_agent_that_was_stopped_for_a_while_cuts_nothing_and_holds_nothing_against_anyone() -> Result<()> {
    let rig = Rig::new().await?;
    let (_apiservers, agent, client, watcher) = carrying(&rig).await?;
    let mut agent = agent;
    // Longer than probes wait, longer than it takes until a silent connection may be cut.
    let stopped = if cfg!(debug_assertions) { secs(4) } else { secs(10) };
    agent.process.stop()?;
    let waiting = tokio::spawn(async move { client.get(secs(30)).await });
    sleep(stopped).await;
    agent.process.go_on()?;
    let answer = waiting.await?;
    ensure!(answer.is_ok(), "who came meanwhile is served: {answer:?}");
    sleep(secs(3)).await;
    let streams = watcher.streams();
    ensure!(streams.len() == 1 && watcher.current().is_some(), "the stream goes on: {streams:?}\n{}", agent.log());
    ensure!(streams[0].last.is_some_and(|last| last.elapsed() < secs(1)), "with lines: {streams:?}");
    agent.blames_nobody().await
}

#[tokio::test]
async fn told_to_stop_it_serves_and_accepts_on_until_the_drain_ends() -> Result<()> {
    let rig = Rig::new().await?;
    let (_apiservers, mut agent, client, watcher) = carrying(&rig).await?;
    agent.process.terminate()?;
    let begin = Instant::now();
    while begin.elapsed() < DRAIN - millis(500) {
        let answer = client.get(SOON).await;
        ensure!(answer.is_ok(), "a newcomer {:?} after it was told: {answer:?}", begin.elapsed());
        sleep(millis(100)).await;
    }
    ensure!(watcher.current().is_some() && watcher.streams().len() == 1, "the stream is served: {:?}", watcher.streams());
    let status = agent.process.end(SOON).await?;
    ensure!(status.success(), "{status}:\n{}", agent.process.output());
    ensure!(begin.elapsed() < DRAIN + wide(millis(500)), "it ends with the drain, not after {:?}", begin.elapsed());
    until("the stream is reset", SOON, async || watcher.streams()[0].ended.is_some()).await?;
    Ok(())
}

#[tokio::test]
async fn told_twice_to_stop_it_ends_at_once() -> Result<()> {
    let rig = Rig::new().await?;
    let (_apiservers, mut agent, _client, _watcher) = carrying(&rig).await?;
    agent.process.terminate()?;
    sleep(millis(300)).await;
    let begin = Instant::now();
    agent.process.terminate()?;
    let status = agent.process.end(SOON).await?;
    ensure!(status.success() && begin.elapsed() < secs(2), "{status} after {:?}:\n{}", begin.elapsed(), agent.process.output());
    Ok(())
}

#[tokio::test]
async fn told_to_stop_without_a_connection_it_ends_at_once() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let mut agent = rig.agent().endpoint(11).ready(&[11]).await?;
    let begin = Instant::now();
    agent.process.terminate()?;
    let status = agent.process.end(SOON).await?;
    ensure!(status.success() && begin.elapsed() < secs(2), "{status} after {:?}:\n{}", begin.elapsed(), agent.process.output());
    Ok(())
}
