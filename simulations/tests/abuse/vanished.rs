//! Clients that vanish without a word, as a machine does that loses its power: nothing comes from them, and nothing that is
//! sent to them arrives.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prismesh::engine::policy::CLIENT_KEEPALIVE;
use simulations::lab::client::{FirstByte, Noting, Target};
use simulations::lab::netns::Silence;
use simulations::lab::watcher::Watcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::client::TlsStream;

use crate::crowds::resident;
use crate::rig::{Agent, Rig, SOON, in_a_network_of_its_own, millis, secs, until};

/// Of each kind.
const MANY: usize = 30;
/// What a carried connection may cost at most, in KiB.
const CARRIED_KIB: f64 = 32.0;
/// An answer that is never read whole.
const BULK: u64 = 1 << 30;
/// How often the kernel repeats what is not acknowledged, in the test's network: for 3 s, not for a quarter of an hour.
const REPEATS: (&str, &str) = ("/proc/sys/net/ipv4/tcp_retries2", "3");
/// An idle client is asked for a sign of life within 30 s, and gone 30 s later.
const GIVEN_UP: Duration = secs(60);

type Client = TlsStream<Noting<TcpStream>>;

#[test]
fn clients_that_vanish_cost_little_disturb_nobody_and_are_given_up() -> Result<()> {
    if !in_a_network_of_its_own("vanished::clients_that_vanish_cost_little_disturb_nobody_and_are_given_up")? {
        return Ok(());
    }
    std::fs::write(REPEATS.0, REPEATS.1)?;
    tokio::runtime::Runtime::new()?.block_on(vanish())
}

async fn vanish() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiservers = [rig.apiserver(11).await?, rig.apiserver(12).await?];
    let agent = rig.agent().endpoint(11).endpoint(12).ready(&[11, 12]).await?;
    let neighbour = Watcher::start(rig.client(&agent, "/watch")?);
    let before = resident(agent.process.pid())?;
    let vanishing = rig.subnet.host(60);
    let from = rig.client(&agent, "/")?.from(vanishing);
    let idle = clients(&from, Says::Nothing).await?;
    let watching = clients(&from, Says::Asks("/watch")).await?;
    let flooded = clients(&from, Says::Asks(&format!("/bulk?bytes={BULK}"))).await?;
    until("the neighbour watches", SOON, async || neighbour.current().is_some()).await?;
    let dialled = neighbour.current().context("it watches")?.dialled;

    let silence = Silence::of(vanishing)?;
    let begin = Instant::now();
    // What waits for an acknowledgement is given up by the kernel, and the idle are left.
    let left = MANY as f64 + 1.0;
    let gone = until("who was sent something is given up", secs(15), async || {
        agent.metric("prismesh_clients ").await.is_ok_and(|open| open == left)
    });
    let most = async {
        let mut most = resident(agent.process.pid())?;
        while begin.elapsed() < secs(2) {
            rig.client(&agent, "/")?.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
            most = resident(agent.process.pid())?.max(most);
            sleep(millis(50)).await;
        }
        Ok::<_, anyhow::Error>(most)
    };
    let (gone, most) = tokio::join!(gone, most);
    let (gone, most) = (gone.with_context(|| agent.process.output())?, most?);
    let each = (most - before) / (3 * MANY) as f64;
    told(&format!(
        "{} vanished clients: {each:.1} KiB each; those with something to acknowledge were given up after {gone:?}",
        3 * MANY
    ));
    ensure!(each <= CARRIED_KIB, "{each:.1} KiB each");
    let carried = agent.metric("prismesh_upstream_connections").await?;
    ensure!(carried == left, "what was theirs upstream is closed too: {carried} are left");
    are_watched_over(&agent, vanishing)?;
    if !cfg!(debug_assertions) {
        given_up(&agent, begin).await?;
    }
    ensure!(neighbour.current().is_some_and(|stream| stream.dialled == dialled), "the neighbour's stream goes on");
    drop((idle, watching, flooded, silence, neighbour));
    agent.empty(SOON).await?;
    agent.blames_nobody().await
}

/// What a client does before it vanishes.
#[derive(Clone, Copy)]
enum Says<'a> {
    /// A TLS handshake, and then nothing.
    Nothing,
    /// It asks for this, reads the beginning, and then nothing more.
    Asks(&'a str),
}

async fn clients(target: &Target, says: Says<'_>) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..MANY {
        // An apiserver that is late because it is overloaded is blamed for it, and rightly.
        sleep(millis(20)).await;
        let mut client = target.connect(&FirstByte::default()).await?;
        if let Says::Asks(path) = says {
            client.write_all(format!("GET {path} HTTP/1.1\r\nhost: kubernetes\r\n\r\n").as_bytes()).await?;
            client.read_u8().await?;
        }
        clients.push(client);
    }
    Ok(clients)
}

/// Claims that the kernel asks every client of this address for a sign of life soon.
fn are_watched_over(agent: &Agent, from: IpAddr) -> Result<()> {
    let timers = keepalives(&std::fs::read_to_string("/proc/self/net/tcp")?, agent.proxy, from);
    ensure!(timers.len() == MANY, "{} sockets", timers.len());
    let late: Vec<_> = timers.iter().filter(|timer| timer.is_none_or(|left| left > CLIENT_KEEPALIVE)).collect();
    ensure!(late.is_empty(), "nobody asks them soon: {late:?}");
    Ok(())
}

/// When the kernel next asks for a sign of life, for each socket between these, from `/proc/net/tcp` (proc_net_tcp in the
/// kernel's documentation: of the columns, the 2nd and 3rd are the addresses, the 6th the timer, of which kind 2 is
/// keepalive, and what is left of it in ticks of 10 ms).
fn keepalives(table: &str, near: SocketAddr, far: IpAddr) -> Vec<Option<Duration>> {
    let hex = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => format!("{:08X}", u32::from_le_bytes(v4.octets())),
        IpAddr::V6(_) => String::new(),
    };
    let (near, far) = (format!("{}:{:04X}", hex(near.ip()), near.port()), hex(far));
    let sockets = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = sockets.filter(|columns| {
        columns.get(1).is_some_and(|local| *local == near) && columns.get(2).is_some_and(|remote| remote.starts_with(&far))
    });
    ours.map(|columns| {
        let left = u64::from_str_radix(columns.get(5)?.strip_prefix("02:")?, 16).ok()?;
        Some(Duration::from_millis(left * 10))
    })
    .collect()
}

/// Waits until the idle ones are gone as well.
async fn given_up(agent: &Agent, begin: Instant) -> Result<()> {
    let gone = async || agent.metric("prismesh_clients ").await.is_ok_and(|open| open == 1.0);
    until("the idle ones are given up", GIVEN_UP + secs(5), gone).await?;
    told(&format!("the idle ones after {:?}", begin.elapsed()));
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the figures are what a person wants to know")]
fn told(text: &str) {
    eprintln!("{text}");
}
