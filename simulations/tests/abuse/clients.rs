//! Clients that do what no client should, and that no apiserver may be blamed for.

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use simulations::lab::apiserver::bulk_byte;
use simulations::lab::children::Process;
use simulations::lab::client::{FirstByte, Target, ask, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::rig::{Agent, Rig, SOON, client_hello, millis, secs};

/// As many of each kind.
const MANY: usize = 40;
/// A client that says nothing is closed after this.
const FIRST_BYTE: std::time::Duration = secs(10);

/// An agent and two apiservers that are as they should be.
async fn scene() -> Result<(Rig, Vec<Process>, Agent)> {
    let rig = Rig::new().await?;
    let apiservers = vec![rig.apiserver(11).await?, rig.apiserver(12).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).ready(&[11, 12]).await?;
    Ok((rig, apiservers, agent))
}

/// What follows any abuse: it serves, nobody is blamed, nothing is left behind.
async fn unharmed(rig: &Rig, agent: &Agent) -> Result<()> {
    let answer = rig.client(agent, "/")?.get(SOON).await;
    ensure!(answer.is_ok(), "it serves: {answer:?}");
    agent.empty(SOON).await?;
    agent.blames_nobody().await
}

/// Connections that say this much and wait.
async fn that_say(agent: &Agent, bytes: &[u8]) -> Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    for _ in 0..MANY {
        let mut client = TcpStream::connect(agent.proxy).await?;
        client.write_all(bytes).await?;
        clients.push(client);
    }
    Ok(clients)
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_after_ten_seconds_and_reaches_no_apiserver() -> Result<()> {
    let (rig, _apiservers, agent) = scene().await?;
    let dials = agent.metric("prismesh_dials_total").await.unwrap_or(0.0);
    let begin = Instant::now();
    for mut client in that_say(&agent, b"").await? {
        let end = timeout(FIRST_BYTE + secs(5), client.read(&mut [0; 64])).await.context("it is closed")?;
        ensure!(matches!(end, Ok(0)), "in an orderly way: {end:?}");
    }
    ensure!(begin.elapsed() > FIRST_BYTE - millis(500), "but not before: {:?}", begin.elapsed());
    ensure!(agent.metric("prismesh_dials_total").await.unwrap_or(0.0) == dials, "nobody was dialled");
    unharmed(&rig, &agent).await
}

#[tokio::test]
async fn half_a_hello_is_nobodys_fault_whether_its_client_waits_or_goes() -> Result<()> {
    let (rig, _apiservers, agent) = scene().await?;
    let hello = client_hello()?;
    let waiting = that_say(&agent, &hello[..hello.len() / 2]).await?;
    let mut gone = that_say(&agent, &hello[..3]).await?;
    for client in &mut gone {
        client.shutdown().await?;
    }
    // Longer than the first-byte delay, and than it takes to become down.
    sleep(secs(4)).await;
    agent.blames_nobody().await?;
    drop((waiting, gone));
    unharmed(&rig, &agent).await
}

#[tokio::test]
async fn a_client_that_closes_its_side_after_its_hello_is_nobodys_fault() -> Result<()> {
    let (rig, _apiservers, agent) = scene().await?;
    let mut clients = that_say(&agent, &client_hello()?).await?;
    for client in &mut clients {
        client.shutdown().await?;
    }
    sleep(secs(3)).await;
    drop(clients);
    unharmed(&rig, &agent).await
}

#[tokio::test]
async fn a_client_that_sends_byte_by_byte_is_served() -> Result<()> {
    let (rig, _apiservers, agent) = scene().await?;
    let hello = client_hello()?;
    let mut clients = JoinSet::new();
    for _ in 0..MANY {
        let (hello, to) = (hello.clone(), agent.proxy);
        clients.spawn(async move {
            let mut client = TcpStream::connect(to).await?;
            client.set_nodelay(true)?;
            for byte in hello {
                client.write_all(&[byte]).await?;
                // A current hello has more than a thousand bytes, and 10 s are granted for all of it.
                sleep(millis(2)).await;
            }
            let mut first = [0];
            client.read_exact(&mut first).await?;
            Ok::<_, std::io::Error>(first[0])
        });
    }
    while let Some(first) = clients.join_next().await {
        let first = first?;
        ensure!(matches!(first, Ok(22)), "its hello is answered with a handshake: {first:?}");
    }
    unharmed(&rig, &agent).await
}

#[tokio::test]
async fn what_is_no_tls_is_answered_by_the_apiserver_and_blames_nobody() -> Result<()> {
    let (rig, _apiservers, agent) = scene().await?;
    for junk in
        [&b"GET / HTTP/1.1\r\nhost: kubernetes\r\n\r\n"[..], &[0; 5000], &[22, 3, 1, 255, 255], &[22, 3, 1, 0, 4, 1, 0, 0, 0]]
    {
        for mut client in that_say(&agent, junk).await? {
            let mut answer = Vec::new();
            // An alert, a close or a reset: as that apiserver likes.
            let _ = timeout(millis(200), client.read_to_end(&mut answer)).await;
        }
    }
    unharmed(&rig, &agent).await
}

#[tokio::test]
async fn a_client_that_resets_mid_stream_ends_its_upstream_connection_and_blames_nobody() -> Result<()> {
    let (rig, _apiservers, agent) = scene().await?;
    let target = rig.client(&agent, "/watch")?;
    let mut clients = JoinSet::new();
    for _ in 0..MANY {
        // An apiserver that is late because it is overloaded is blamed for it, and rightly.
        sleep(millis(20)).await;
        let target = target.clone();
        clients.spawn(async move { read_some_and_reset(&target).await });
    }
    while let Some(read) = clients.join_next().await {
        read??;
    }
    unharmed(&rig, &agent).await?;
    let open = agent.metric("prismesh_upstream_connections").await?;
    ensure!(open == 0.0, "{open} upstream connections are left");
    Ok(())
}

/// A TCP connection of ours carries the client's, so that its end can be a reset.
async fn read_some_and_reset(target: &Target) -> Result<()> {
    let first_byte = FirstByte::default();
    let relay = tokio::net::TcpListener::bind((target.addr.ip(), 0)).await?;
    let near = target.at(relay.local_addr()?);
    let client = tokio::spawn(async move { ask(near.connect(&first_byte).await?, get(&near.path)?, some).await });
    let (mut inner, _) = relay.accept().await?;
    let mut outer = TcpStream::connect(target.addr).await?;
    let _ = timeout(millis(700), tokio::io::copy_bidirectional(&mut inner, &mut outer)).await;
    outer.set_zero_linger()?;
    drop(outer);
    client.abort();
    Ok(())
}

async fn some(mut body: Incoming) -> Result<()> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_stops_reading_for_a_while_loses_nothing() -> Result<()> {
    const BYTES: u64 = 10_000_000;
    let (rig, _apiservers, agent) = scene().await?;
    let target = rig.client(&agent, &format!("/bulk?bytes={BYTES}"))?;
    let pause = if cfg!(debug_assertions) { secs(7) } else { secs(60) };
    let stream = target.connect(&FirstByte::default()).await?;
    let read = ask(stream, get(&target.path)?, |mut body| async move {
        let (mut place, mut paused) = (0, false);
        while let Some(frame) = body.frame().await {
            for byte in frame?.into_data().unwrap_or_default() {
                ensure!(byte == bulk_byte(place), "byte {place} is another");
                place += 1;
            }
            if place > BYTES / 20 && !paused {
                paused = true;
                sleep(pause).await;
            }
            if place % 50 == 0 {
                sleep(millis(1)).await;
            }
        }
        Ok(place)
    })
    .await?;
    ensure!(read == BYTES, "{read} of {BYTES} bytes");
    unharmed(&rig, &agent).await
}
