//! An agent that starts before what it needs is there: it waits for it, says so once, and serves what it can meanwhile.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::time::sleep;

use crate::admin;
use crate::gossip::make_keyring;
use crate::rig::{Agent, Plan, Rig, SOON, START, in_a_network_of_its_own, millis, secs, until};

/// The notes in `status`.
async fn notes(agent: &Agent) -> String {
    agent.status().await.map(|status| status["notes"].to_string()).unwrap_or_default()
}

/// Claims that a client is served.
async fn serves(rig: &Rig, agent: &Agent) -> Result<()> {
    let answer = rig.client(agent, "/")?.get(SOON).await;
    ensure!(answer.is_ok(), "{answer:?}\n{}", agent.log());
    Ok(())
}

fn gossiping<'r>(rig: &'r Rig, keyring: &str) -> Plan<'r> {
    let gossip = rig.subnet.at(31, 7447).to_string();
    rig.agent().endpoint(11).instead("--gossip-listen", gossip).flag("--keyring", rig.dir().join(keyring))
}

#[test]
fn listen_addresses_that_come_later_are_served_once_they_are_there() -> Result<()> {
    if !in_a_network_of_its_own("starting::listen_addresses_that_come_later_are_served_once_they_are_there")? {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        let rig = Rig::new().await?;
        let _apiserver = rig.apiserver(11).await?;
        make_keyring(&rig.dir().join("keyring"))?;
        for (round, ip, local) in [(1, "10.123.0.9", "10.123.0.9/32"), (2, "fd00:123::9", "fd00:123::9/128")] {
            let at = |port| SocketAddr::new(ip.parse().expect("an address"), port);
            let mut plan = gossiping(&rig, "keyring").instead("--gossip-listen", at(7447).to_string());
            (plan.name, plan.proxy) = (format!("early-{round}"), at(7445));
            let mut agent = plan.ready(&[11]).await?;
            for addr in [at(7445), at(7447)] {
                ensure!(agent.logged(&["WARN", &addr.to_string(), "does not have this address"]).len() == 1, "{}", agent.log());
                ensure!(notes(&agent).await.contains(&addr.to_string()), "{}", notes(&agent).await);
            }
            let status = Command::new("ip").args(["addr", "add", local, "dev", "lo"]).status()?;
            ensure!(status.success(), "{status}");
            serves(&rig, &agent).await?;
            ensure!(!notes(&agent).await.contains("listen address"), "{}", notes(&agent).await);
            agent.says(&["gossip runs as", ip], SOON).await?;
            agent.is_sound().await?;
            agent.process.terminate()?;
            agent.process.end(SOON).await?;
        }
        Ok(())
    })
}

#[tokio::test]
async fn a_keyring_that_comes_later_is_waited_for_by_gossip_alone() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let agent = gossiping(&rig, "keyring").ready(&[11]).await?;
    serves(&rig, &agent).await?;
    sleep(secs(3)).await;
    ensure!(agent.logged(&["WARN", "gossip waits for its keyring"]).len() == 1, "once:\n{}", agent.log());
    ensure!(notes(&agent).await.contains("gossip waits for its keyring"), "{}", notes(&agent).await);
    ensure!(agent.metric("prismesh_waiting{for=\"keyring\"}").await? == 1.0);
    ensure!(agent.status().await?["gossip"] == Value::Null);
    make_keyring(&rig.dir().join("keyring"))?;
    agent.says(&["gossip runs as"], SOON).await?;
    until("nothing is waited for", SOON, async || !notes(&agent).await.contains("waits")).await?;
    ensure!(agent.metric("prismesh_gossip_members").await? == 1.0);
    ensure!(agent.metric("prismesh_waiting").await.is_err(), "the series ends with the wait");
    serves(&rig, &agent).await?;
    agent.is_sound().await
}

#[tokio::test]
async fn a_configuration_file_that_comes_later_is_waited_for() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let file = rig.dir().join("later.yaml");
    let mut agent = rig.agent().flag("--config", &file).launch()?;
    agent.says(&["WARN", "later.yaml", "does not exist", "waiting for it"], START).await?;
    agent.process.signal(rustix::process::Signal::HUP)?;
    sleep(millis(2500)).await;
    ensure!(agent.process.ended().is_none(), "it waits:\n{}", agent.log());
    ensure!(agent.logged(&["WARN"]).len() == 1, "once:\n{}", agent.log());
    std::fs::write(&file, format!("endpoint:\n  - {}\n", rig.endpoint(11)))?;
    agent.becomes(rig.endpoint(11), "ready", START).await?;
    serves(&rig, &agent).await?;
    // What waiting cannot mend is not waited for.
    let mut plan = rig.agent().flag("--config", rig.dir());
    plan.name = "directory".to_owned();
    let status = plan.launch()?.process.end(START).await?;
    ensure!(status.code() == Some(2), "{status}");
    Ok(())
}

#[tokio::test]
async fn probe_credentials_that_come_later_are_taken_up() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let token = rig.dir().join("token");
    let agent = rig.agent().endpoint(11).flag("--probe-token-file", &token).ready(&[11]).await?;
    ensure!(notes(&agent).await.contains("without credentials"), "{}", notes(&agent).await);
    ensure!(agent.logged(&["WARN", "without credentials"]).len() == 1, "{}", agent.log());
    std::fs::write(&token, "a.token\n")?;
    until("nothing is missing", SOON, async || !notes(&agent).await.contains("credentials")).await?;
    serves(&rig, &agent).await
}

/// A shell's way to a hostname of its own: what the agent is started from.
fn under_hostname(name: &str) -> String {
    format!("exec unshare --uts sh -c 'echo {name} >/proc/sys/kernel/hostname; exec \"$0\" \"$@\"' \"$0\" \"$@\"")
}

#[tokio::test]
async fn gossip_waits_for_a_node_name_that_is_its_own_and_the_proxy_serves() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    make_keyring(&rig.dir().join("keyring"))?;
    for (round, placeholder) in ["localhost", "localhost.localdomain", "''"].into_iter().enumerate() {
        let mut plan = gossiping(&rig, "keyring").without("--node").after(&under_hostname(placeholder));
        plan.name = format!("unnamed-{round}");
        let mut agent = plan.ready(&[11]).await?;
        serves(&rig, &agent).await?;
        sleep(secs(2)).await;
        ensure!(agent.logged(&["WARN", "gossip waits for this node's name"]).len() == 1, "once:\n{}", agent.log());
        ensure!(notes(&agent).await.contains("this node's name"), "{}", notes(&agent).await);
        ensure!(agent.logged(&["gossip runs as"]).is_empty(), "it waits:\n{}", agent.log());
        let target = agent.process.pid().to_string();
        let renamed = Command::new("nsenter").args(["--uts", "--target", &target, "hostname", "worker-7"]).status()?;
        ensure!(renamed.success(), "{renamed}");
        agent.says(&["gossip runs as"], SOON).await?;
        ensure!(agent.status().await?["node"] == "worker-7");
        ensure!(admin::get(agent.admin, "/metrics", "worker-7:7446").await? == 200, "it is asked under its new name");
        ensure!(!notes(&agent).await.contains("name"), "{}", notes(&agent).await);
        serves(&rig, &agent).await?;
        agent.is_sound().await?;
        agent.process.terminate()?;
        agent.process.end(SOON).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_a_person_calls_localhost_is_refused() -> Result<()> {
    let rig = Rig::new().await?;
    for (round, name) in ["localhost", "LOCALHOST", "localhost.localdomain"].into_iter().enumerate() {
        let mut plan = rig.agent().instead("--node", name);
        plan.name = format!("refused-{round}");
        let mut agent = plan.launch()?;
        let status = agent.process.end(START).await?;
        ensure!(
            status.code() == Some(2) && agent.process.output().contains("flag --node"),
            "{status} {}",
            agent.process.output()
        );
    }
    Ok(())
}
