//! The admin port beside clients that mean harm, or that only take up room.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::rig::{Rig, SOON, millis, secs};

/// Connections that do nothing.
const IDLE: usize = 600;
/// And so many new ones a second.
const NEW: u64 = 100;
/// Connections that ask without end.
const ASKERS: usize = 100;
/// Liveness checks beside them.
const CHECKS: usize = 100;

/// An answer to one request on a connection of its own: the status code and all of the text.
async fn request(admin: SocketAddr, lines: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(format!("{lines}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let code = answer.split(' ').nth(1).with_context(|| format!("no answer: {answer:?}"))?.parse()?;
    Ok((code, answer))
}

pub(crate) async fn get(admin: SocketAddr, path: &str, host: &str) -> Result<u16> {
    Ok(request(admin, &format!("GET {path} HTTP/1.1\r\nHost: {host}")).await?.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liveness_check_is_answered_within_a_second_whatever_other_connections_do() -> Result<()> {
    let rig = Rig::alone().await?;
    let agent = rig.agent().endpoint(11).start().await?;
    let admin = agent.admin;
    for said in ["", "GET /healthz HTTP/1.1\r\nHost: ", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut idle = Vec::new();
        for _ in 0..IDLE {
            let mut stream = TcpStream::connect(admin).await?;
            // What was evicted already refuses it.
            let _ = stream.write_all(said.as_bytes()).await;
            idle.push(stream);
        }
        let over = Arc::new(AtomicBool::new(false));
        let (until, says) = (over.clone(), said.to_owned());
        let coming = tokio::spawn(async move {
            let mut tick = interval(secs(1) / u32::try_from(NEW).unwrap_or(1));
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut open = Vec::new();
            while !until.load(Ordering::SeqCst) {
                tick.tick().await;
                if let Ok(mut stream) = TcpStream::connect(admin).await {
                    let _ = stream.write_all(says.as_bytes()).await;
                    open.push(stream);
                }
            }
        });
        let (mut slowest, mut failed) = (secs(0), Vec::new());
        for check in 0..CHECKS {
            let begun = Instant::now();
            match timeout(secs(1), get(admin, "/healthz", "10.1.2.3:7446")).await {
                Ok(Ok(200)) => slowest = slowest.max(begun.elapsed()),
                other => failed.push((check, other)),
            }
            sleep(millis(30)).await;
        }
        over.store(true, Ordering::SeqCst);
        coming.await?;
        eprintln!("{CHECKS} checks beside {IDLE} connections that say {said:?}, {NEW} new ones a second: slowest {slowest:?}");
        ensure!(failed.is_empty(), "{} of {CHECKS} failed beside {said:?}: {:?}", failed.len(), failed.first());
    }
    ensure!(agent.metric("prismesh_admin_rejections_total{reason=\"evicted\"").await? > 500.0, "they are counted");
    agent.is_sound().await
}

/// Clients that ask for what costs most, again and again without waiting for answers, on as many connections as there may be and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liveness_check_is_answered_while_others_ask_without_end() -> Result<()> {
    let rig = Rig::alone().await?;
    let agent = rig.agent().endpoint(11).start().await?;
    let admin = agent.admin;
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..ASKERS {
        askers.spawn(async move {
            let questions = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
            loop {
                let Ok(mut stream) = TcpStream::connect(admin).await else { continue };
                let (mut answers, mut asks) = stream.split();
                let ask = async { while asks.write_all(questions.as_bytes()).await.is_ok() {} };
                let read = async {
                    let mut buffer = vec![0; 64 * 1024];
                    while answers.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                };
                tokio::join!(ask, read);
            }
        });
    }
    sleep(secs(1)).await;
    let mut failed = Vec::new();
    for check in 0..CHECKS {
        match timeout(secs(1), get(admin, "/healthz", "10.1.2.3:7446")).await {
            Ok(Ok(200)) => {}
            other => failed.push((check, other)),
        }
    }
    askers.shutdown().await;
    ensure!(failed.is_empty(), "{} of {CHECKS} failed: {:?}", failed.len(), failed.first());
    agent.is_sound().await
}

#[tokio::test]
async fn what_tells_of_the_cluster_is_not_told_under_a_name_that_leads_here_by_accident() -> Result<()> {
    let rig = Rig::new().await?;
    let agent = rig.agent().endpoint(11).start().await?;
    let (admin, ip) = (agent.admin, agent.admin.ip());
    for path in ["/status", "/metrics"] {
        for own in
            [admin.to_string(), ip.to_string(), "localhost".into(), format!("LOCALHOST:{}", admin.port()), "abused:1".into()]
        {
            ensure!(get(admin, path, &own).await? == 200, "{path} for {own}");
        }
        for foreign in
            ["rebound.example", "rebound.example:7446", "abused.example", &format!("{ip}.example"), "192.0.2.7:7446", ""]
        {
            let code = get(admin, path, foreign).await?;
            ensure!(code == 421, "{path} for {foreign:?}: {code}");
        }
        let (code, answer) = request(admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example")).await?;
        ensure!(code == 421 && !answer.contains("cluster"), "{answer}");
    }
    for path in ["/healthz", "/readyz"] {
        // A kubelet sends whatever address the check has.
        let code = get(admin, path, "192.0.2.7:7446").await?;
        ensure!(matches!(code, 200 | 503), "{path}: {code}");
    }
    ensure!(agent.metric("prismesh_admin_rejections_total{reason=\"wrong_host\"").await? == 14.0, "they are counted");
    ensure!(agent.ask("status").is_ok(), "the subcommands ask under its own name");
    agent.is_sound().await
}

/// On all addresses it answers to each of this machine's, and to none else.
#[tokio::test]
async fn on_a_wildcard_each_address_of_this_machine_is_its_own() -> Result<()> {
    let rig = Rig::new().await?;
    let mut agent = rig.agent().endpoint(11).flag("--admin", "0.0.0.0:0").launch()?;
    let line = agent.says(&["prismesh serves"], SOON).await?;
    let admin: SocketAddr = line.split("admin=").nth(1).and_then(|rest| rest.split(' ').next()).context("admin")?.parse()?;
    agent.admin = SocketAddr::new(rig.subnet.host(77), admin.port());
    ensure!(agent.status().await?["node"] == "abused");
    ensure!(get(agent.admin, "/status", "127.0.0.1").await? == 200);
    ensure!(get(agent.admin, "/status", "192.0.2.7").await? == 421);
    // And to the address that other machines reach it by, where there is one.
    let outward = std::net::UdpSocket::bind("0.0.0.0:0")?;
    if outward.connect("192.0.2.7:9").is_ok() {
        let own = outward.local_addr()?.ip();
        ensure!(get(agent.admin, "/status", &own.to_string()).await? == 200, "{own}");
    }
    Ok(())
}
