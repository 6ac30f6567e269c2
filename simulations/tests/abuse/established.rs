//! Established connections: what leaves them alone, whatever is thought of the endpoint they lead to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use simulations::lab::netns::Silence;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::quiet::{Quiet, all_go_on, no_resets, several};
use crate::rig::{Rig, START, in_a_network_of_its_own, millis, secs, until, wide};

/// Longer than anything that once reset connections needed for it.
const QUIET: Duration = secs(9);

/// Serves with this delay of `/readyz` on one apiserver or on both.
async fn late(delays: [u64; 2]) -> Result<()> {
    let rig = Rig::new().await?;
    let mut servers = Vec::new();
    for (host, delay) in [11, 12].into_iter().zip(delays) {
        let mut options = rig.options(host)?;
        options.readyz_delay_ms = delay;
        servers.push(rig.serve(&options).await?);
    }
    let agent = rig.agent().endpoint(11).endpoint(12).start().await?;
    let expected = |delay| if delay > 0 { "draining" } else { "ready" };
    for (host, delay) in [11, 12].into_iter().zip(delays) {
        agent.becomes(rig.endpoint(host), expected(delay), START).await?;
    }
    let mut clients = several(&rig, &agent).await?;
    sleep(QUIET).await;
    all_go_on(&mut clients).await?;
    no_resets(&agent).await
}

#[tokio::test]
async fn a_readyz_that_takes_1300_ms_resets_no_quiet_connection() -> Result<()> {
    late([1_300, 0]).await
}

#[tokio::test]
async fn a_readyz_that_takes_a_minute_on_all_apiservers_resets_no_quiet_connection() -> Result<()> {
    late([60_000, 60_000]).await
}

/// As real apiservers do while etcd is frozen: some answer 500 quickly, others late.
#[tokio::test]
async fn a_late_readyz_and_a_quick_500_elsewhere_reset_nothing() -> Result<()> {
    let rig = Rig::new().await?;
    let (mut slow, mut failing) = (rig.options(11)?, rig.options(12)?);
    (slow.readyz_delay_ms, failing.readyz) = (60_000, 500);
    let _servers = [rig.serve(&slow).await?, rig.serve(&failing).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).start().await?;
    agent.becomes(rig.endpoint(11), "draining", START).await?;
    agent.becomes(rig.endpoint(12), "draining", START).await?;
    let mut clients = several(&rig, &agent).await?;
    sleep(QUIET).await;
    all_go_on(&mut clients).await?;
    no_resets(&agent).await
}

#[tokio::test]
async fn an_apiserver_that_closes_its_port_first_answers_what_is_under_way() -> Result<()> {
    let rig = Rig::new().await?;
    let mut options = rig.options(11)?;
    (options.closes_port_first, options.drain_ms) = (true, 30_000);
    let mut server = rig.serve(&options).await?;
    let _other = rig.apiserver(12).await?;
    // The other one is known, and not used while this one is there: it is the load balancer.
    let agent = rig.agent().endpoint(11).flag("--external", rig.endpoint(12).to_string()).ready(&[11, 12]).await?;
    let mut clients = several(&rig, &agent).await?;
    let mut waiting = clients.pop().context("nine")?;
    let slow = tokio::spawn(async move { waiting.ask("/slow?ms=11000").await });
    sleep(millis(500)).await;
    server.terminate()?;
    agent.becomes(rig.endpoint(11), "down", wide(secs(5))).await?;
    ensure!(slow.await?? == "late, and answered");
    all_go_on(&mut clients).await?;
    no_resets(&agent).await
}

#[tokio::test]
async fn an_upload_to_an_apiserver_that_does_not_read_for_17_s_arrives_whole() -> Result<()> {
    let rig = Rig::new().await?;
    let _servers = [rig.apiserver(11).await?, rig.apiserver(12).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).ready(&[11, 12]).await?;
    let mut client = Quiet::open(&rig, &agent).await?;
    ensure!(client.upload(20_000_000, 17_000).await? == "20000000");
    no_resets(&agent).await
}

#[test]
fn a_peer_that_acknowledges_nothing_is_given_up_within_6_s_with_data_under_way_and_without() -> Result<()> {
    if !in_a_network_of_its_own(
        "established::a_peer_that_acknowledges_nothing_is_given_up_within_6_s_with_data_under_way_and_without",
    )? {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(silent_peer())
}

async fn silent_peer() -> Result<()> {
    let rig = Rig::new().await?;
    // The only one: the connection itself shows it, whatever others answer.
    let _server = rig.apiserver(11).await?;
    let agent = rig.agent().endpoint(11).ready(&[11]).await?;
    let mut clients = several(&rig, &agent).await?;
    let silence = Silence::of(rig.endpoint(11).ip())?;
    let begin = Instant::now();
    let (idle, asking) = clients.split_at_mut(5);
    for client in asking.iter_mut() {
        client.0.write_all(b"GET / HTTP/1.1\r\nhost: kubernetes\r\n\r\n").await?;
    }
    for client in idle.iter_mut().chain(asking) {
        let ended = timeout(wide(secs(6)), client.0.read_u8()).await;
        ensure!(ended.context("it is not given up")?.is_err());
    }
    let took = begin.elapsed();
    ensure!(took >= millis(2_800) && took <= wide(secs(6)), "after {took:?}");
    let reset = until("they are counted", secs(2), async || {
        agent.metric("prismesh_upstream_resets_total").await.is_ok_and(|resets| resets == 9.0)
    });
    reset.await.with_context(|| agent.process.output())?;
    drop(silence);
    agent.is_sound().await
}

#[test]
fn a_silence_of_3_s_leaves_every_connection_untouched() -> Result<()> {
    if !in_a_network_of_its_own("established::a_silence_of_3_s_leaves_every_connection_untouched")? {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(short_silence())
}

async fn short_silence() -> Result<()> {
    let rig = Rig::new().await?;
    let _servers = [rig.apiserver(11).await?, rig.apiserver(12).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).ready(&[11, 12]).await?;
    let mut clients = several(&rig, &agent).await?;
    let silence = Silence::of(rig.endpoint(11).ip())?;
    let (asking, _) = clients.split_at_mut(4);
    for client in asking.iter_mut() {
        client.0.write_all(b"GET / HTTP/1.1\r\nhost: kubernetes\r\n\r\n").await?;
    }
    sleep(secs(3)).await;
    drop(silence);
    for client in asking {
        timeout(secs(15), client.answer()).await.context("it is answered once the path is back")??;
    }
    sleep(secs(4)).await;
    all_go_on(&mut clients).await?;
    no_resets(&agent).await
}

#[test]
fn a_short_silence_leaves_idle_connections_untouched_whenever_they_were_last_heard() -> Result<()> {
    if !in_a_network_of_its_own("established::a_short_silence_leaves_idle_connections_untouched_whenever_they_were_last_heard")? {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(short_silence_of_idle_connections())
}

async fn short_silence_of_idle_connections() -> Result<()> {
    let rig = Rig::new().await?;
    // Each endpoint's connections are looked at by themselves, so that many give many phases.
    let hosts: Vec<u8> = (101..=110).collect();
    let (mut servers, mut agent) = (Vec::new(), rig.agent());
    for host in &hosts {
        servers.push(rig.apiserver(*host).await?);
        agent = agent.endpoint(*host);
    }
    let agent = agent.ready(&hosts).await?;
    let mut clients = Vec::new();
    // Each is asked for a sign of life every 2 s, counted from when it was last heard.
    for _ in 0..40 {
        clients.push(Quiet::open(&rig, &agent).await?);
        sleep(millis(50)).await;
    }
    for silent in [2_700, 2_750] {
        sleep(secs(3)).await;
        let silences = hosts.iter().map(|host| Silence::of(rig.endpoint(*host).ip())).collect::<Result<Vec<_>>>()?;
        sleep(millis(silent)).await;
        drop(silences);
    }
    sleep(secs(3)).await;
    all_go_on(&mut clients).await?;
    no_resets(&agent).await
}

#[tokio::test]
async fn a_process_that_stops_for_3_s_keeps_its_connections_and_one_that_hangs_loses_them_within_10_s() -> Result<()> {
    let rig = Rig::new().await?;
    let mut server = rig.apiserver(11).await?;
    let _other = rig.apiserver(12).await?;
    // The other one is known, and not used while this one is there: it is the load balancer.
    let agent = rig.agent().endpoint(11).flag("--external", rig.endpoint(12).to_string()).ready(&[11, 12]).await?;
    let mut clients = several(&rig, &agent).await?;
    server.stop()?;
    sleep(secs(3)).await;
    server.go_on()?;
    sleep(secs(3)).await;
    all_go_on(&mut clients).await?;
    no_resets(&agent).await?;
    server.stop()?;
    let hung = async || agent.metric("prismesh_upstream_resets_total{").await.is_ok_and(|resets| resets > 0.0);
    let reset = until("connections to the process that hangs are reset", wide(secs(10)), hung).await;
    reset.with_context(|| agent.process.output())?;
    agent.is_sound().await
}

/// It accepts no new connection and serves the established ones, like a load balancer at its connection limit.
#[tokio::test]
async fn an_apiserver_without_descriptors_keeps_the_connections_that_it_serves() -> Result<()> {
    let rig = Rig::new().await?;
    let server = rig.apiserver(11).await?;
    let _other = rig.apiserver(12).await?;
    let agent = rig.agent().endpoint(11).flag("--external", rig.endpoint(12).to_string()).ready(&[11, 12]).await?;
    let mut clients = several(&rig, &agent).await?;
    // Fewer than it has: what probes close makes no room.
    let limit = std::process::Command::new("prlimit").args([&format!("--pid={}", server.pid()), "--nofile=8"]).status()?;
    ensure!(limit.success(), "{limit}");
    let mut lively = clients.pop().context("nine")?;
    let begin = Instant::now();
    let mut down = false;
    while begin.elapsed() < secs(14) {
        lively.ask("/still-there").await.context("what is served goes on")?;
        down |= agent.verdict(rig.endpoint(11)).await == "down";
        sleep(millis(500)).await;
    }
    ensure!(down, "new clients are sent elsewhere:\n{}", agent.log());
    all_go_on(&mut clients).await?;
    no_resets(&agent).await
}
