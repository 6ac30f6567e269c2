//! Endpoints that lead back: to this agent's own listener, or to another agent that leads here.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use crate::gossip::{make_keyring, member, peers, teller};
use crate::rig::{Agent, Rig, SOON, secs, until};

const REQUESTS: usize = 20;

async fn dials(agents: &[&Agent]) -> Result<f64> {
    let mut dials = 0.0;
    for agent in agents {
        dials += agent.metric("prismesh_dials_total").await.unwrap_or(0.0);
    }
    Ok(dials)
}

/// Dials beyond those of as long a time without requests.
async fn dials_for_requests(rig: &Rig, through: &Agent, agents: &[&Agent]) -> Result<f64> {
    let client = rig.client(through, "/")?;
    let begun = (dials(agents).await?, tokio::time::Instant::now());
    for number in 0..REQUESTS {
        let answer = client.get(SOON).await;
        ensure!(answer.is_ok(), "request {number}: {answer:?}");
    }
    let (after, took) = (dials(agents).await?, begun.1.elapsed());
    sleep(took).await;
    Ok(after - begun.0 - (dials(agents).await? - after))
}

async fn is_left_out(agent: &Agent, own: SocketAddr, source: &str) -> Result<()> {
    ensure!(agent.upstream(own).await?.is_none(), "it is no upstream: {:#}", agent.status().await?);
    let notes = agent.status().await?["notes"].to_string();
    ensure!(notes.contains(&own.to_string()) && notes.contains("own listener"), "{notes}");
    let told = agent.logged(&["WARN", "left out", &own.to_string(), source]);
    ensure!(told.len() == 1, "it is told once: {told:?}");
    let text = simulations::lab::status::page(agent.admin, "/metrics").await?;
    let series = format!("prismesh_dials_total{{endpoint=\"{own}\"");
    ensure!(!text.contains(&series), "it was never dialled");
    Ok(())
}

#[tokio::test]
async fn a_member_that_names_our_own_listener_is_not_believed() -> Result<()> {
    let rig = Rig::alone().await?;
    make_keyring(&rig.dir().join("keyring"))?;
    let _apiserver = rig.apiserver(11).await?;
    let _teller = teller(&rig, "teller", 41, 11).ready(&[11]).await?;
    let worker = member(&rig, "worker", 42).ready(&[11]).await?;
    let _liar = member(&rig, "liar", 43).flag("--apiserver", worker.proxy.to_string()).start().await?;
    until("they know one another", SOON, async || peers(&worker).await.is_ok_and(|peers| peers.len() == 2)).await?;
    sleep(secs(3)).await;
    let dialled = dials_for_requests(&rig, &worker, &[&worker]).await?;
    ensure!(dialled <= 2.0 * REQUESTS as f64, "{REQUESTS} requests became {dialled} dials");
    is_left_out(&worker, worker.proxy, "member").await?;
    worker.is_sound().await
}

#[tokio::test]
async fn a_cached_endpoint_at_which_we_listen_now_is_left_out() -> Result<()> {
    let rig = Rig::new().await?;
    make_keyring(&rig.dir().join("keyring"))?;
    let mut moved = rig.apiserver(12).await?;
    let _apiserver = rig.apiserver(11).await?;
    let mut teller = teller(&rig, "teller", 41, 12).ready(&[12]).await?;
    let mut worker = member(&rig, "worker", 42).endpoint(11).ready(&[11, 12]).await?;
    let cache = rig.dir().join("worker-state").join("peers");
    until("the cache is written", SOON, async || cache.exists()).await?;
    sleep(secs(1)).await;
    worker.process.kill();
    teller.process.kill();
    moved.kill();
    let mut plan = member(&rig, "worker", 42).endpoint(11);
    (plan.proxy, plan.name) = (rig.endpoint(12), "worker-moved".to_owned());
    let worker = plan.ready(&[11]).await?;
    sleep(secs(2)).await;
    let dialled = dials_for_requests(&rig, &worker, &[&worker]).await?;
    ensure!(dialled <= 2.0 * REQUESTS as f64, "{REQUESTS} requests became {dialled} dials");
    is_left_out(&worker, worker.proxy, "cached").await
}

/// Each calls the other's listener its own apiserver, which it tells everybody, and has a real one beside.
#[tokio::test]
async fn two_agents_that_name_each_others_listeners_pass_a_request_on_once_each() -> Result<()> {
    let rig = Rig::alone().await?;
    make_keyring(&rig.dir().join("keyring"))?;
    let _apiserver = rig.apiserver(11).await?;
    let listen = |host| rig.subnet.at(host, 7445);
    let plan = |name, host, other| member(&rig, name, host).endpoint(11).flag("--apiserver", listen(other).to_string());
    let (one, other) = (plan("one", 41, 42).ready(&[11]).await?, plan("other", 42, 41).ready(&[11]).await?);
    until("they know each other", SOON, async || peers(&one).await.is_ok_and(|peers| peers == ["other"])).await?;
    sleep(secs(3)).await;
    for agent in [&one, &other] {
        let dialled = dials_for_requests(&rig, agent, &[&one, &other]).await?;
        eprintln!("{REQUESTS} requests became {dialled} dials");
        ensure!(dialled <= 4.0 * REQUESTS as f64, "{REQUESTS} requests became {dialled} dials");
        is_left_out(agent, agent.proxy, "member").await?;
        agent.is_sound().await?;
    }
    let told = [&one, &other].map(|agent| agent.logged(&["WARN", "leads back to this agent"]).len());
    ensure!(told.iter().sum::<usize>() >= 1 && told.iter().all(|told| *told <= 1), "told once at most: {told:?}");
    Ok(())
}

/// Nothing else is there: each leads to the other for as long as a client waits.
#[tokio::test]
async fn two_agents_that_know_only_each_other_do_not_use_up_what_they_have() -> Result<()> {
    let rig = Rig::alone().await?;
    let agent = |name: &str, host, other: u8| {
        let mut plan = rig.agent();
        (plan.name, plan.proxy, plan.admin) = (name.to_owned(), rig.subnet.at(host, 7445), rig.subnet.at(host, 7446));
        let state = rig.dir().join(format!("{name}-state"));
        plan.flag("--endpoint", rig.subnet.at(other, 7445).to_string()).instead("--state-dir", state)
    };
    let (one, other) = (agent("one", 41, 42).start().await?, agent("other", 42, 41).start().await?);
    let clients: Vec<_> = (0..5)
        .map(|_| {
            let client = rig.client(&one, "/");
            tokio::spawn(async move { client?.get(secs(20)).await.map_err(|failure| anyhow::anyhow!(failure.why)) })
        })
        .collect();
    let mut most = 0.0_f64;
    for _ in 0..30 {
        sleep(secs(1) / 4).await;
        most = most.max(one.metric("prismesh_clients ").await.context("it shows what it does")?);
    }
    for client in clients {
        ensure!(client.await?.is_err(), "nobody is there to answer");
    }
    eprintln!("5 requests were at most {most} connections at a time");
    ensure!(most <= 1_000.0, "5 requests became {most} connections");
    for agent in [&one, &other] {
        ensure!(agent.metric("prismesh_accept_errors_total").await? == 0.0, "no lack of descriptors");
        agent.is_sound().await?;
    }
    Ok(())
}
