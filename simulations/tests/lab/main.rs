//! The lab is to be trusted before what it measures is.

mod wire;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use simulations::lab::cluster::{Cluster, Plan};
use simulations::lab::watcher::{End, Watcher};
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(10);

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_simulations"))
}

/// Apiservers and a balancer, without agents.
async fn servers() -> Result<Cluster> {
    let mut plan = Plan::ordinary(program());
    plan.workers = 0;
    let mut cluster = Cluster::lay_out(plan)?;
    cluster.start_servers().await?;
    Ok(cluster)
}

async fn until(mut so: impl FnMut() -> bool) -> Option<Duration> {
    let begin = Instant::now();
    while begin.elapsed() < SOON {
        if so() {
            return Some(begin.elapsed());
        }
        sleep(Duration::from_millis(5)).await;
    }
    None
}

#[tokio::test]
async fn the_balancer_spreads_connections_and_passes_over_who_refuses() -> Result<()> {
    let mut cluster = servers().await?;
    let target = cluster.direct("/api")?;
    let mut servers = std::collections::BTreeSet::new();
    for _ in 0..3 {
        servers.extend(target.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?.server);
    }
    assert_eq!(servers.len(), 3, "round robin reaches all: {servers:?}");
    cluster.apiservers[1].process()?.kill();
    for _ in 0..6 {
        let answer = target.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
        assert_ne!(answer.server.as_deref(), Some("api-2"));
    }
    Ok(())
}

#[tokio::test]
async fn an_apiserver_that_drains_serves_on_and_says_that_it_is_not_ready() -> Result<()> {
    let mut cluster = servers().await?;
    let direct = cluster.direct("/")?.at(cluster.apiservers[0].addr);
    let watcher = Watcher::start(direct.path("/watch"));
    assert!(until(|| watcher.current().is_some()).await.is_some(), "the watch begins");
    cluster.apiservers[0].process()?.terminate()?;
    sleep(Duration::from_millis(500)).await;
    let readyz = direct.path("/readyz").get(SOON).await.expect_err("it drains");
    assert!(readyz.why.contains("500"), "{}", readyz.why);
    assert!(direct.path("/api").get(SOON).await.is_ok(), "it serves on");
    assert!(watcher.current().is_some(), "its watches go on");
    let status = cluster.apiservers[0].process()?.end(SOON).await?;
    assert!(status.success(), "{status}");
    assert!(until(|| watcher.streams()[0].ended.is_some()).await.is_some(), "its watches end with it");
    assert!(!matches!(watcher.streams()[0].ended, Some((_, End::Broken(_)))), "and lost no line");
    Ok(())
}

#[tokio::test]
async fn a_stopped_apiserver_still_accepts_and_goes_on_where_it_was() -> Result<()> {
    let mut cluster = servers().await?;
    let direct = cluster.direct("/")?.at(cluster.apiservers[0].addr);
    let watcher = Watcher::start(direct.path("/watch"));
    assert!(until(|| watcher.current().is_some()).await.is_some(), "the watch begins");
    cluster.apiservers[0].process()?.stop()?;
    let begin = Instant::now();
    assert!(tokio::net::TcpStream::connect(direct.addr).await.is_ok(), "its kernel accepts");
    assert!(direct.get(Duration::from_millis(700)).await.is_err(), "it does not answer");
    cluster.apiservers[0].process()?.go_on()?;
    assert!(until(|| direct_silence(&watcher, begin) > Duration::from_millis(600)).await.is_some(), "the silence is noted");
    assert_eq!(watcher.streams().len(), 1, "it is the same stream");
    Ok(())
}

fn direct_silence(watcher: &Watcher, from: Instant) -> Duration {
    watcher.longest_silence(from, Instant::now())
}

#[test]
fn a_child_ends_when_its_parent_is_gone() -> Result<()> {
    let mut child = Command::new(program())
        .args(["balancer", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("piped")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    assert!(line.contains("ready"), "it runs: {line}");
    drop(child.stdin.take());
    assert!(child.wait()?.success());
    Ok(())
}

#[test]
fn the_demo_refuses_fewer_nodes_than_it_has_apiservers() -> Result<()> {
    let output = Command::new(program()).args(["demo", "--nodes", "2"]).output()?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("3..=200"), "it says what would be right");
    Ok(())
}
