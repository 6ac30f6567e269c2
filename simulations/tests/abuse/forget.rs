//! `prismesh forget` on running agents.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gossip::{Scene, make_keyring, member, teller};
use crate::rig::{Agent, SOON, START, program, until};

/// Runs a subcommand: whether it succeeded, and what it said.
fn run(args: &[&str]) -> Result<(bool, String)> {
    let command = &mut Command::new(program());
    let mut child =
        command.arg("agent").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Our children end when their standard input does.
    let stdin = child.stdin.take();
    let output = child.wait_with_output()?;
    drop(stdin);
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

fn forget(at: &Agent, node: &str, keyring: &Path, more: &[&str]) -> Result<(bool, String)> {
    let (admin, keyring) = (at.admin.to_string(), keyring.display().to_string());
    run(&[&["forget", node, "--admin", &admin, "--keyring", &keyring], more].concat())
}

async fn shows(agent: &Agent, name: &str) -> bool {
    let status = agent.status().await.unwrap_or_default();
    status["peers"].as_array().is_some_and(|peers| peers.iter().any(|peer| peer["name"] == name))
}

/// The code that a POST of these bytes is answered with.
async fn post(admin: SocketAddr, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let head = format!(
        "POST /forget HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(&[head.as_bytes(), bytes].concat()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1).context("an answer")?.to_owned())
}

#[tokio::test]
async fn a_control_plane_that_is_forgotten_leaves_every_node_and_returns_when_it_is_started_again() -> Result<()> {
    let scene = Scene::new().await?;
    let (rig, full) = (&scene.rig, scene.rig.dir().join("keyring"));
    let reader = rig.dir().join("reader");
    std::fs::write(&reader, run(&["key", "public", &full.display().to_string()])?.1)?;
    make_keyring(&rig.dir().join("other"))?;
    let mut apiserver = rig.apiserver(12).await?;
    let mut second = teller(rig, "second", 43, 12).ready(&[11, 12]).await?;
    let third = member(rig, "third", 44).ready(&[11, 12]).await?;
    let agents = [&scene.worker, &scene.teller, &third];
    for agent in agents {
        agent.becomes(rig.endpoint(12), "ready", START).await?;
    }
    let refused = |node: &str, keyring: &Path, words: &[&str]| -> Result<()> {
        let (done, said) = forget(&scene.worker, node, keyring, &[])?;
        ensure!(!done && words.iter().all(|word| said.contains(word)), "{said}");
        Ok(())
    };
    refused("second", &full, &["second is live", "--force"])?;
    second.process.kill();
    until("it is away", START, async || {
        let status = scene.worker.status().await.unwrap_or_default();
        let away = |peer: &serde_json::Value| peer["name"] == "second" && peer["alive"] == false && peer["apiserver"].is_null();
        status["peers"].as_array().is_some_and(|peers| peers.iter().any(away))
    })
    .await?;
    ensure!(scene.worker.ask("peers")?.lines().any(|line| line.starts_with("second") && line.contains(" away")), "peers says so");
    refused("second", &full, &["endpoint", "answers", "--force"])?;
    apiserver.kill();
    scene.worker.becomes(rig.endpoint(12), "down", START).await?;
    refused("second", &reader, &["reader", "full keyring"])?;
    refused("second", &rig.dir().join("other"), &["403", "not in the keyring"])?;
    refused("worker", &full, &["stop that agent"])?;
    refused("third", &full, &["second, teller"])?;
    ensure!(post(scene.worker.admin, b"forget second").await? == "403");
    ensure!(scene.worker.metric("prismesh_admin_rejections_total{reason=\"removal\"").await? >= 2.0);
    for agent in agents {
        ensure!(shows(agent, "second").await || std::ptr::eq(agent, &third), "nothing has changed");
    }
    let (done, said) = forget(&scene.worker, "second", &full, &[])?;
    ensure!(done && said.contains("second is removed"), "{said}");
    for agent in agents {
        let gone = async || !shows(agent, "second").await && agent.verdict(rig.endpoint(12)).await.is_empty();
        until("its endpoint is gone", SOON, gone).await.with_context(|| agent.log())?;
        agent.says(&["second was removed"], SOON).await?;
        agent.is_sound().await?;
    }
    drop((apiserver, second));
    let _apiserver = rig.apiserver(12).await?;
    let _second = teller(rig, "second", 43, 12).ready(&[11, 12]).await?;
    for agent in agents {
        agent.becomes(rig.endpoint(12), "ready", START).await.context("it has returned")?;
    }
    Ok(())
}
