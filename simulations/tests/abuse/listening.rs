//! Where it listens.

use std::net::{TcpListener, UdpSocket};

use anyhow::{Context, Result};

use crate::rig::{Rig, SOON, START, secs};

#[tokio::test]
async fn a_port_that_is_taken_ends_the_start_and_the_message_names_it_and_its_setting() -> Result<()> {
    let rig = Rig::new().await?;
    let keyring = rig.dir().join("keyring");
    crate::gossip::make_keyring(&keyring)?;
    let gossip = rig.subnet.at(31, 7447);
    let plan = rig.agent().instead("--gossip-listen", gossip.to_string()).flag("--keyring", keyring);
    let taken = [(plan.proxy, "--listen (PRISMESH_LISTEN"), (plan.admin, "--admin (PRISMESH_ADMIN")];
    for (addr, setting) in taken {
        let _taken = TcpListener::bind(addr)?;
        refuses(plan.clone(), &addr.to_string(), setting).await?;
    }
    let _taken = UdpSocket::bind(gossip)?;
    refuses(plan, &gossip.to_string(), "--gossip-listen (PRISMESH_GOSSIP_LISTEN").await
}

async fn refuses(mut plan: crate::rig::Plan<'_>, addr: &str, setting: &str) -> Result<()> {
    plan.name = setting.split(' ').next().unwrap_or_default().to_owned();
    let mut agent = plan.launch()?;
    let status = agent.process.end(START).await?;
    let output = agent.process.output();
    assert_eq!(status.code(), Some(1), "{output}");
    let told: Vec<&str> = output.lines().filter(|line| line.contains(addr) && line.contains(setting)).collect();
    assert_eq!(told.len(), 1, "one line with {addr} and {setting}:\n{output}");
    Ok(())
}

#[tokio::test]
async fn a_free_port_that_was_asked_for_is_told_in_the_log_and_in_the_status() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let free = rig.subnet.at(31, 0).to_string();
    let mut agent = rig.agent().endpoint(11).flag("--listen", &free).flag("--admin", &free).launch()?;
    let line = agent.says(&["prismesh serves"], START).await?;
    let admin = line.split("admin=").nth(1).and_then(|rest| rest.split(' ').next()).context("the admin address")?;
    agent.admin = admin.parse()?;
    let status = agent.status().await?;
    assert_eq!(status["admin"], admin);
    agent.proxy = status["listen"][0].as_str().context("a listen address")?.parse()?;
    assert!(agent.proxy.port() != 0 && line.contains(&agent.proxy.to_string()), "{line}");
    agent.becomes(rig.endpoint(11), "ready", START).await?;
    rig.client(&agent, "/")?.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
    Ok(())
}

#[tokio::test]
async fn a_name_that_resolves_to_our_own_listener_is_left_out_and_told_once() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    // `localhost` is the one name that needs nobody's help to resolve, and it has no subnet of ours.
    let own = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut plan = rig.agent().endpoint(11).flag("--external", format!("localhost:{}", own.port()));
    plan.proxy = own;
    let mut agent = plan.ready(&[11]).await?;
    let warned = ["WARN", "left out", &own.to_string()];
    agent.says(&warned, SOON).await?;
    assert!(agent.upstream(own).await?.is_none(), "it is no upstream");
    let notes = agent.status().await?["notes"].to_string();
    assert!(notes.contains(&own.to_string()) && notes.contains("own listener"), "{notes}");
    let explained = agent.ask("explain")?;
    assert!(explained.contains(&own.to_string()) && explained.contains("left out"), "explain shows it:\n{explained}");
    // What is loaded again is the same, and nobody is told twice.
    agent.process.signal(rustix::process::Signal::HUP)?;
    agent.says(&["configuration reloaded"], SOON).await?;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(agent.logged(&warned).len(), 1, "{}", agent.log());
    rig.client(&agent, "/")?.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
    agent.is_sound().await
}
