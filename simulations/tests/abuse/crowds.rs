//! More clients than a machine likes. What a connection costs, and what happens when descriptors run out.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::Acceptor;
use simulations::lab::children::{Process, end_with_stdin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;

use crate::rig::{Agent, Rig, SOON, client_hello, hello_for, millis, secs, until, wide};

/// Connections that are busy both ways.
const BUSY: u32 = 500;
/// What each may cost at most.
const CARRIED_KIB: f64 = 32.0;
/// A connection takes nothing more once a write has waited this long.
const STUCK: std::time::Duration = millis(500);
/// Segments as small as they get, in bytes: the kernel's buffers grow with them, and are not what is measured here.
const SEGMENT: u32 = 536;
/// What asks for this name is a client, not a probe.
const CLIENT: &str = "a-client-of-ours";

/// What a process has in memory, in KiB.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn socket(addr: SocketAddr) -> Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_tcp_mss(SEGMENT)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// An upstream that answers probes, and tells everyone else more than they want to hear without ever listening.
fn talker(rig: &Rig, at: SocketAddr) -> Result<()> {
    let pair = rig.ca.server("talker", &[at.ip()])?;
    let certs = CertificateDer::pem_file_iter(&pair.cert)?.collect::<Result<Vec<_>, _>>()?;
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(certs, PrivateKeyDer::from_pem_file(&pair.key)?)?);
    let listening = socket(at)?;
    listening.bind(&at.into())?;
    listening.listen(1024)?;
    let listener = TcpListener::from_std(listening.into())?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, config.clone()));
        }
    });
    Ok(())
}

async fn talk(stream: TcpStream, config: Arc<rustls::ServerConfig>) -> Result<()> {
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    if hello.client_hello().server_name() == Some(CLIENT) {
        // A handshake record, as far as anyone can tell who only looks at the first byte.
        return gorge(&mut hello.io, &[22; 16 * 1024]).await;
    }
    let mut stream = hello.into_stream(config).await?;
    while stream.read(&mut [0; 4096]).await? > 0 {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        stream.flush().await?;
    }
    Ok(())
}

/// Says something again and again, and keeps the connection for as long as the other side does.
async fn gorge(stream: &mut TcpStream, something: &[u8]) -> Result<()> {
    loop {
        stream.write_all(something).await?;
    }
}

/// A client that talks and never listens; it comes back once nothing moves any more.
async fn talk_back(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpSocket::from_std_stream(socket(to)?.into()).connect(to).await;
    let mut stream = stream?;
    stream.write_all(&hello_for(CLIENT)?).await?;
    // Until its upstream has answered it must not say more.
    stream.peek(&mut [0]).await?;
    while let Ok(wrote) = timeout(STUCK, stream.write_all(&[0; 16 * 1024])).await {
        wrote?;
    }
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carried_connection_that_is_busy_both_ways_takes_at_most_32_kib() -> Result<()> {
    let rig = Rig::alone().await?;
    talker(&rig, rig.endpoint(11))?;
    let agent = rig.agent().endpoint(11).ready(&[11]).await?;
    let before = resident(agent.process.pid())?;
    let mut talking = JoinSet::new();
    for _ in 0..BUSY {
        talking.spawn(talk_back(agent.proxy));
        // A burst that makes the upstream late is not what is measured here.
        sleep(millis(3)).await;
    }
    let mut stuck = Vec::new();
    while let Some(client) = talking.join_next().await {
        stuck.push(client?.with_context(|| agent.process.output())?);
    }
    let carried = agent.metric("prismesh_upstream_connections").await?;
    ensure!(carried == f64::from(BUSY), "{carried} are carried");
    let each = (resident(agent.process.pid())? - before) / f64::from(BUSY);
    for direction in ["to_upstream", "to_client"] {
        let bytes = bytes(&agent, direction).await?;
        ensure!(bytes > f64::from(BUSY) * 20_000.0, "{bytes} bytes {direction}: not busy that way");
    }
    eprintln!("{BUSY} connections busy both ways: {each:.1} KiB resident each, {before:.0} KiB before");
    ensure!(each <= CARRIED_KIB, "{each:.1} KiB each");
    drop(stuck);
    agent.empty(SOON).await?;
    agent.is_sound().await
}

async fn bytes(agent: &Agent, direction: &str) -> Result<f64> {
    let text = simulations::lab::status::page(agent.admin, "/metrics").await?;
    let series = format!("direction=\"{direction}\"");
    let lines = text.lines().filter(|line| line.starts_with("prismesh_bytes_total") && line.contains(&series));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Processes of clients, and clients in each.
const CROWDS: usize = 4;
const CROWD: usize = 1250;
/// Where a crowd connects.
const AT: &str = "ABUSED_ADDRESS";

/// A process with a crowd of clients.
fn crowd(rig: &Rig, name: &str, at: SocketAddr) -> Result<Process> {
    let this = std::env::current_exe()?.into_os_string();
    let args: [OsString; 6] = [
        format!("{AT}={at}").into(),
        this,
        "crowds::as_a_crowd".into(),
        "--exact".into(),
        "--ignored".into(),
        "--nocapture".into(),
    ];
    rig.child(name, PathBuf::from("env"), args.to_vec())
}

/// Clients that come, say nothing or a hello, stay for as long as they may, and come again.
#[tokio::test]
#[ignore = "a process that another test starts"]
async fn as_a_crowd() -> Result<()> {
    let Some(at) = std::env::var(AT).ok() else { return Ok(()) };
    let at: SocketAddr = at.parse()?;
    end_with_stdin();
    let hello = client_hello()?;
    let mut clients = JoinSet::new();
    for number in 0..CROWD {
        let hello = if number % 4 == 0 { hello.clone() } else { Vec::new() };
        clients.spawn(async move {
            loop {
                // Whatever happens to it.
                let _ = stay(at, &hello).await;
                sleep(secs(3)).await;
            }
        });
        if number % 50 == 0 {
            sleep(millis(5)).await;
        }
    }
    while clients.join_next().await.is_some() {}
    Ok(())
}

async fn stay(at: SocketAddr, hello: &[u8]) -> std::io::Result<()> {
    let mut client = TcpStream::connect(at).await?;
    client.write_all(hello).await?;
    let mut buffer = [0; 4096];
    while client.read(&mut buffer).await? > 0 {}
    Ok(())
}

#[tokio::test]
async fn an_agent_whose_descriptors_run_out_serves_again_at_once_when_there_are_some() -> Result<()> {
    let rig = Rig::alone().await?;
    let apiservers = [rig.apiserver(11).await?, rig.apiserver(12).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).after("ulimit -n 1024").ready(&[11, 12]).await?;
    besieged(&rig, agent).await?;
    drop(apiservers);
    Ok(())
}

#[tokio::test]
async fn a_limit_of_connections_beyond_the_descriptors_is_lowered_and_said_so() -> Result<()> {
    let rig = Rig::alone().await?;
    let apiservers = [rig.apiserver(11).await?, rig.apiserver(12).await?];
    let plan = rig.agent().endpoint(11).endpoint(12).after("ulimit -n 1024").flag("--max-connections", "20000");
    let agent = plan.ready(&[11, 12]).await?;
    agent.says(&["WARN", "max-connections"], SOON).await?;
    besieged(&rig, agent).await?;
    drop(apiservers);
    Ok(())
}

/// Five thousand clients come, stay for a while, and go.
#[expect(clippy::print_stderr, reason = "the figures are what a person wants to know")]
async fn besieged(rig: &Rig, agent: Agent) -> Result<()> {
    let mut crowds = Vec::new();
    for number in 0..CROWDS {
        crowds.push(crowd(rig, &format!("crowd-{number}"), agent.proxy)?);
    }
    let all = (CROWDS * CROWD) as f64;
    let here = async || accepted(&agent).await.is_ok_and(|accepted| accepted >= all * 0.9);
    until("they are there", secs(30), here).await.with_context(|| crowds[0].output())?;
    let mut slowest = secs(0);
    for _ in 0..20 {
        let asked = Instant::now();
        agent.status().await.context("the admin port answers meanwhile")?;
        slowest = slowest.max(asked.elapsed());
        sleep(millis(100)).await;
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.process.pid()))?.count();
    let (errors, clients) = (agent.metric("prismesh_accept_errors_total").await?, agent.metric("prismesh_clients ").await?);
    let relief = Instant::now();
    drop(crowds);
    let client = rig.client(&agent, "/")?;
    while client.get(secs(5)).await.is_err() {
        ensure!(relief.elapsed() < SOON, "it does not serve again:\n{}", agent.process.output());
    }
    let served = relief.elapsed();
    eprintln!(
        "besieged: {clients} clients, {open} descriptors, {errors} failed accepts, status within {slowest:?}, serves after {served:?}"
    );
    ensure!(served < wide(secs(1)), "serves again after {served:?}");
    agent.empty(SOON).await?;
    agent.blames_nobody().await
}

/// How many came so far: those it has, those it turned away, and those it let go.
async fn accepted(agent: &Agent) -> Result<f64> {
    Ok(agent.metric("prismesh_clients ").await? + agent.metric("prismesh_refusals_total").await.unwrap_or(0.0))
}
