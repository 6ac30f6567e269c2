//! While nothing answers.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::rig::{Rig, SOON, client_hello, millis, program, secs, until};

/// Clients that are held at most.
const HELD: u16 = 1024;
const TOO_MANY: u16 = 60;

#[tokio::test]
async fn with_every_apiserver_dead_a_client_is_held_and_reset_at_eight_seconds() -> Result<()> {
    let rig = Rig::new().await?;
    let agent = rig.agent().endpoint(11).endpoint(12).start().await?;
    let mut client = TcpStream::connect(agent.proxy).await?;
    client.write_all(&client_hello()?).await?;
    let begin = Instant::now();
    let end = tokio::time::timeout(secs(20), client.read(&mut [0; 64])).await.context("it is not kept for ever")?;
    let held = begin.elapsed();
    let error = end.err().context("it is reset, not closed: client-go tries again after that")?;
    ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
    ensure!(held > millis(7800) && held < millis(9500), "held for {held:?}");
    ensure!(agent.metric("prismesh_holds_total").await? >= 1.0, "and counted");
    agent.is_sound().await
}

#[tokio::test]
async fn a_client_that_is_held_is_served_once_an_apiserver_comes_back() -> Result<()> {
    let rig = Rig::new().await?;
    let agent = rig.agent().endpoint(11).endpoint(12).start().await?;
    let client = rig.client(&agent, "/")?;
    let request = tokio::spawn(async move { (client.get(secs(20)).await, Instant::now()) });
    until("it is held", SOON, async || agent.metric("prismesh_clients_held").await.is_ok_and(|held| held == 1.0)).await?;
    sleep(secs(2)).await;
    let _apiserver = rig.apiserver(12).await?;
    let back = Instant::now();
    let (answer, at) = request.await?;
    let answer = answer.map_err(|failure| anyhow::anyhow!(failure.why)).with_context(|| agent.log())?;
    ensure!(answer.server.as_deref() == Some("api-12"), "{answer:?}");
    ensure!(at.duration_since(back) < secs(3), "{:?} after it came back", at.duration_since(back));
    agent.is_sound().await
}

#[tokio::test]
async fn no_more_clients_are_held_than_there_are_seats_and_the_others_are_reset_at_once() -> Result<()> {
    let rig = Rig::alone().await?;
    let agent = rig.agent().endpoint(11).flag("--max-connections", "3000").start().await?;
    agent.becomes(rig.endpoint(11), "down", SOON).await?;
    let hello = client_hello()?;
    let mut clients = JoinSet::new();
    for _ in 0..HELD + TOO_MANY {
        let (hello, to) = (hello.clone(), agent.proxy);
        clients.spawn(async move {
            let mut client = TcpStream::connect(to).await?;
            client.write_all(&hello).await?;
            client.read(&mut [0; 64]).await
        });
    }
    for _ in 0..TOO_MANY {
        let turned_away = tokio::time::timeout(secs(6), clients.join_next()).await?.context("all are there")??;
        ensure!(turned_away.is_err(), "reset: {turned_away:?}");
    }
    ensure!(agent.metric("prismesh_clients_held").await? == f64::from(HELD), "the others are held");
    ensure!(agent.metric("prismesh_refusals_total{limit=\"hold-full\"").await? == f64::from(TOO_MANY), "and counted");
    // When it comes back they are let go, and none is forgotten: each hello is answered.
    let _apiserver = rig.apiserver(11).await?;
    let mut served = 0;
    while let Some(answer) = clients.join_next().await {
        served += u16::from(answer?.is_ok_and(|bytes| bytes > 0));
    }
    ensure!(served == HELD, "{served} of {HELD} were served; {:?}", program());
    agent.is_sound().await
}
