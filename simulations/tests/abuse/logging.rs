//! A log that cannot be written, or whose reader stalls: lines are lost, and nothing else changes.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use simulations::lab::children::Process;
use tokio::time::{Instant, sleep};

use crate::rig::{Agent, Rig, SOON, millis, secs, until, wide};

const DROPPED: &str = "prismesh_log_lines_dropped_total";

/// Two apiservers and an agent whose standard error is what the shell's `redirect` makes of it.
async fn scene(rig: &Rig, redirect: &str) -> Result<(Vec<Process>, Agent)> {
    let apiservers = vec![rig.apiserver(11).await?, rig.apiserver(12).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).after(redirect).ready(&[11, 12]).await?;
    Ok((apiservers, agent))
}

/// A pipe with a name, and its reading end, open.
fn fifo(rig: &Rig) -> Result<(PathBuf, File)> {
    let path = rig.dir().join("log");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)?;
    // It is opened without waiting for a writer; it blocks like any other afterwards.
    let reader = OpenOptions::new().read(true).custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits())?).open(&path)?;
    rustix::io::ioctl_fionbio(&reader, false)?;
    Ok((path, reader))
}

/// Claims that the agent still decides, serves, shows itself, and ends when it is told to.
async fn is_unimpressed(rig: &Rig, mut agent: Agent, mut apiservers: Vec<Process>) -> Result<()> {
    for host in [11, 12] {
        let mut gone = apiservers.remove(0);
        gone.kill();
        agent.becomes(rig.endpoint(host), "down", SOON).await?;
        let answer = rig.client(&agent, "/")?.get(SOON).await;
        ensure!(host == 12 || answer.is_ok(), "{answer:?}");
        apiservers.push(rig.apiserver(host).await?);
        agent.becomes(rig.endpoint(host), "ready", SOON).await?;
    }
    let answer = rig.client(&agent, "/")?.get(SOON).await;
    ensure!(answer.is_ok(), "{answer:?}");
    ensure!(simulations::lab::status::page(agent.admin, "/healthz").await? == "ok\n");
    ensure!(agent.metric("prismesh_panics_total").await? == 0.0, "nothing panicked");
    agent.process.terminate()?;
    let begun = Instant::now();
    let status = agent.process.end(SOON).await?;
    ensure!(status.success(), "{status}");
    ensure!(begun.elapsed() < wide(secs(1)), "nobody waits for the log: {:?}", begun.elapsed());
    Ok(())
}

/// Claims that lines are dropped, counted, and that the status says why.
async fn tells_what_is_lost(agent: &Agent, why: &str) -> Result<()> {
    until("dropped lines are counted", SOON, async || agent.metric(DROPPED).await.is_ok_and(|lines| lines > 0.0)).await?;
    let noted = async || agent.status().await.is_ok_and(|status| status["notes"].to_string().contains(why));
    until(&format!("a note with {why:?}"), SOON, noted).await?;
    Ok(())
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_costs_its_lines_alone() -> Result<()> {
    let rig = Rig::new().await?;
    let (path, reader) = fifo(&rig)?;
    let (apiservers, agent) = scene(&rig, &format!("exec 2>{}", path.display())).await?;
    drop(reader);
    let mut apiservers = apiservers;
    apiservers[0].kill();
    agent.becomes(rig.endpoint(11), "down", SOON).await?;
    tells_what_is_lost(&agent, "Broken pipe").await?;
    apiservers[0] = rig.apiserver(11).await?;
    agent.becomes(rig.endpoint(11), "ready", SOON).await?;
    is_unimpressed(&rig, agent, apiservers).await
}

#[tokio::test]
async fn a_log_on_a_full_disk_costs_its_lines_alone() -> Result<()> {
    let rig = Rig::new().await?;
    let (apiservers, agent) = scene(&rig, "exec 2>/dev/full").await?;
    tells_what_is_lost(&agent, "No space left on device").await?;
    is_unimpressed(&rig, agent, apiservers).await
}

#[tokio::test]
async fn a_log_that_may_grow_no_further_costs_its_lines_alone() -> Result<()> {
    let rig = Rig::new().await?;
    let log = rig.dir().join("limited.log");
    // In units of 512 or 1,024 bytes, whichever the shell has.
    let (apiservers, agent) = scene(&rig, &format!("ulimit -f 1; exec 2>>{}", log.display())).await?;
    tells_what_is_lost(&agent, "File too large").await?;
    is_unimpressed(&rig, agent, apiservers).await
}

#[tokio::test]
async fn a_log_that_is_closed_at_the_start_changes_nothing() -> Result<()> {
    let rig = Rig::new().await?;
    let (apiservers, agent) = scene(&rig, "exec 2>&-").await?;
    is_unimpressed(&rig, agent, apiservers).await
}

#[tokio::test]
async fn a_log_that_is_open_for_reading_alone_costs_its_lines_alone() -> Result<()> {
    let rig = Rig::new().await?;
    let (apiservers, agent) = scene(&rig, "exec 2</dev/null").await?;
    tells_what_is_lost(&agent, "Bad file descriptor").await?;
    is_unimpressed(&rig, agent, apiservers).await
}

#[tokio::test]
async fn a_log_whose_reader_stalls_costs_its_lines_alone_and_says_so_when_it_is_read_again() -> Result<()> {
    let rig = Rig::new().await?;
    let (path, mut reader) = fifo(&rig)?;
    let file = rig.dir().join("prismesh.yaml");
    std::fs::write(&file, "max-connections: 100\n")?;
    let apiservers = vec![rig.apiserver(11).await?, rig.apiserver(12).await?];
    let plan = rig.agent().endpoint(11).endpoint(12).flag("--config", &file).after(&format!("exec 2>{}", path.display()));
    let mut agent = plan.ready(&[11, 12]).await?;
    // Each reload brings some lines: the pipe fills, then the queue.
    std::fs::write(&file, "max-connections: 200\napiserver: [\"10.0.0.1:6443\"]\n")?;
    for _ in 0..1000 {
        agent.process.signal(rustix::process::Signal::HUP)?;
        sleep(millis(3)).await;
    }
    let answer = rig.client(&agent, "/")?.get(SOON).await;
    ensure!(answer.is_ok(), "clients are served: {answer:?}");
    ensure!(simulations::lab::status::page(agent.admin, "/healthz").await? == "ok\n");
    tells_what_is_lost(&agent, "its reader has taken nothing for").await?;
    let readable = std::thread::spawn(move || -> std::io::Result<bool> {
        let (mut read, mut buffer) = (Vec::new(), [0; 1 << 16]);
        for _ in 0..10_000 {
            let length = reader.read(&mut buffer)?;
            read.extend_from_slice(&buffer[..length]);
            if String::from_utf8_lossy(&read).contains("log lines were dropped") {
                // Its other end stays open, and full again soon.
                std::mem::forget(reader);
                return Ok(true);
            }
        }
        Ok(false)
    });
    until("the log tells of its hole", SOON, async || readable.is_finished()).await?;
    ensure!(readable.join().expect("no panic")?, "the log tells of its hole");
    sleep(millis(500)).await;
    is_unimpressed(&rig, agent, apiservers).await
}

#[tokio::test]
async fn a_start_that_fails_ends_with_its_code_though_nobody_reads_why() -> Result<()> {
    let rig = Rig::new().await?;
    for (number, redirect) in ["exec 2>/dev/full", "exec 2>&-", "exec 2</dev/null"].into_iter().enumerate() {
        for (flag, value, code) in [("--max-connections", "none", 2), ("--listen", "192.0.2.1:7445,", 2)] {
            let mut plan = rig.agent().flag(flag, value).after(redirect);
            plan.name = format!("fails-{number}-{}", &flag[2..]);
            let status = plan.launch()?.process.end(SOON).await?;
            ensure!(status.code() == Some(code), "{redirect} {flag}: {status}");
        }
    }
    Ok(())
}
