//! Destinations that the kernel finds no way to, or that a rule forbids, while others connect.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use simulations::lab::watcher::Watcher;
use tokio::time::sleep;

use crate::rig::{Rig, SOON, in_a_network_of_its_own, secs, until};

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split_ascii_whitespace()).output()?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn in_reach(name: &str, test: impl Future<Output = Result<()>>) -> Result<()> {
    if !in_a_network_of_its_own(name)? {
        return Ok(());
    }
    // Rules of this test come before the table of this machine's own addresses.
    ip("rule add pref 1000 lookup local")?;
    ip("rule del pref 0")?;
    tokio::runtime::Runtime::new()?.block_on(test)
}

#[test]
fn an_endpoint_that_cannot_be_reached_while_others_can_has_failed_and_explain_names_the_errno() -> Result<()> {
    let name = "reach::an_endpoint_that_cannot_be_reached_while_others_can_has_failed_and_explain_names_the_errno";
    in_reach(name, one_unreachable())
}

#[test]
fn where_nothing_can_be_reached_no_endpoint_is_to_blame() -> Result<()> {
    in_reach("reach::where_nothing_can_be_reached_no_endpoint_is_to_blame", all_unreachable())
}

async fn one_unreachable() -> Result<()> {
    let rig = Rig::new().await?;
    let _servers = [rig.apiserver(11).await?, rig.apiserver(12).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).ready(&[11, 12]).await?;
    ip("route add unreachable default table 100")?;
    for (kind, errno) in
        [("prohibit", "EACCES"), ("unreachable", "ENETUNREACH"), ("blackhole", "EINVAL"), ("lookup 100", "EHOSTUNREACH")]
    {
        let rule = format!("to {}/32 pref 10 {kind}", rig.subnet.host(11));
        ip(&format!("rule add {rule}"))?;
        agent.becomes(rig.endpoint(11), "down", SOON).await.context(kind)?;
        let explained = agent.ask("explain")?;
        ensure!(explained.contains(errno), "{kind}: explain names {errno}:\n{explained}");
        for _ in 0..5 {
            let answer = rig.client(&agent, "/")?.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
            ensure!(answer.server.as_deref() == Some("api-12"), "{kind}: {answer:?}");
        }
        ip(&format!("rule del {rule}"))?;
        agent.becomes(rig.endpoint(11), "ready", SOON).await.context(kind)?;
    }
    // An agent that starts meanwhile says so as well.
    let rule = format!("to {}/32 pref 10 prohibit", rig.subnet.host(11));
    ip(&format!("rule add {rule}"))?;
    let mut plan = rig.agent().endpoint(11).endpoint(12);
    (plan.name, plan.proxy, plan.admin) = ("late".to_owned(), rig.subnet.at(32, 7445), rig.subnet.at(32, 7446));
    let late = plan.instead("--state-dir", rig.dir().join("late")).ready(&[12]).await?;
    late.becomes(rig.endpoint(11), "down", SOON).await?;
    ip(&format!("rule del {rule}"))?;
    agent.is_sound().await
}

async fn all_unreachable() -> Result<()> {
    let rig = Rig::new().await?;
    let _servers = [rig.apiserver(11).await?, rig.apiserver(12).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).ready(&[11, 12]).await?;
    let watcher = Watcher::start(rig.client(&agent, "/watch")?);
    until("the stream begins", SOON, async || watcher.current().is_some()).await?;
    for host in [11, 12] {
        ip(&format!("rule add to {}/32 pref 10 prohibit", rig.subnet.host(host)))?;
    }
    sleep(secs(5)).await;
    for host in [11, 12] {
        ensure!(agent.verdict(rig.endpoint(host)).await != "down", "{host} is not to blame:\n{}", agent.log());
    }
    agent.is_sound().await
}
