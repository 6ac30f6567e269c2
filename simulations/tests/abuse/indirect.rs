//! Established connections through a load balancer, to endpoints that a name gave, and past a full accept queue: the same
//! leaves them alone as where an address leads to an apiserver ([`crate::established`]).

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use simulations::lab::apiserver::Options;
use simulations::lab::balancer;
use simulations::lab::children::Process;
use simulations::lab::netns::Silence;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::dns::Etc;
use crate::quiet::{Quiet, all_go_on, no_resets, several};
use crate::rig::{Agent, Rig, START, in_a_network_of_its_own, millis, program, secs, wide};
use crate::wired::{Requests, told};

const NAME: &str = "api.cluster.example";
const BALANCER: u8 = 21;
/// Longer than anything that once reset connections needed for it.
const QUIET: Duration = secs(9);

/// How the agent knows the apiservers.
#[derive(Clone, Copy, PartialEq)]
enum Through {
    Balancer,
    Name,
}

/// Two apiservers, and an agent that knows them in one of these ways only.
struct Behind {
    rig: Rig,
    servers: Vec<Process>,
    _balancer: Option<Process>,
    agent: Agent,
}

impl Behind {
    /// The endpoints that the agent has.
    fn endpoints(rig: &Rig, through: Through) -> Vec<SocketAddr> {
        let hosts: &[u8] = if through == Through::Balancer { &[BALANCER] } else { &[11, 12] };
        hosts.iter().map(|host| rig.endpoint(*host)).collect()
    }

    /// Starts everything, each apiserver changed in this way.
    async fn start(through: Through, change: impl Fn(u8, &mut Options)) -> Result<Behind> {
        let rig = Rig::new().await?;
        let mut servers = Vec::new();
        for host in [11, 12] {
            let mut options = rig.options(host)?;
            change(host, &mut options);
            servers.push(rig.serve(&options).await?);
        }
        let (plan, balancer) = match through {
            Through::Name => {
                let hosts = format!("{} {NAME}\n{} {NAME}\n", rig.endpoint(11).ip(), rig.endpoint(12).ip());
                Etc::new(rig.dir())?.write("hosts", hosts)?;
                (rig.agent().flag("--endpoint", format!("{NAME}:6443")), None)
            }
            Through::Balancer => {
                let listen = rig.endpoint(BALANCER);
                let options = balancer::Options { listen, backends: vec![rig.endpoint(11), rig.endpoint(12)] };
                let mut balancer = rig.child("balancer", program(), options.args())?;
                balancer.ready(START).await?;
                (rig.agent().flag("--external", listen.to_string()), Some(balancer))
            }
        };
        let agent = plan.start().await?;
        Ok(Behind { rig, servers, _balancer: balancer, agent })
    }

    /// The same, and all that the agent has is ready.
    async fn ready(through: Through, change: impl Fn(u8, &mut Options)) -> Result<Behind> {
        let behind = Behind::start(through, change).await?;
        for endpoint in Behind::endpoints(&behind.rig, through) {
            behind.agent.becomes(endpoint, "ready", START).await?;
        }
        Ok(behind)
    }
}

/// Runs a story through both ways, in a network, and with an /etc, of its own.
fn both_ways(test: &str, story: impl AsyncFn(Through) -> Result<()>) -> Result<()> {
    if !in_a_network_of_its_own(&format!("indirect::{test}"))? {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        story(Through::Balancer).await.context("through a load balancer")?;
        story(Through::Name).await.context("by name")
    })
}

#[test]
#[ignore = "bounds: half a minute"]
fn a_readyz_that_takes_a_minute_resets_nothing_through_a_balancer_or_a_name() -> Result<()> {
    both_ways("a_readyz_that_takes_a_minute_resets_nothing_through_a_balancer_or_a_name", async |through| {
        let behind = Behind::start(through, |_, options| options.readyz_delay_ms = 60_000).await?;
        for endpoint in Behind::endpoints(&behind.rig, through) {
            behind.agent.becomes(endpoint, "draining", START).await?;
        }
        let mut clients = several(&behind.rig, &behind.agent).await?;
        sleep(QUIET).await;
        all_go_on(&mut clients).await?;
        no_resets(&behind.agent).await
    })
}

#[test]
#[ignore = "bounds: half a minute"]
fn a_port_that_closes_first_resets_nothing_through_a_balancer_or_a_name() -> Result<()> {
    both_ways("a_port_that_closes_first_resets_nothing_through_a_balancer_or_a_name", async |through| {
        let mut behind = Behind::ready(through, |_, options| {
            (options.closes_port_first, options.drain_ms) = (true, 30_000);
        })
        .await?;
        let mut clients = several(&behind.rig, &behind.agent).await?;
        let (mut one, mut other) = (clients.pop().context("nine")?, clients.pop().context("nine")?);
        let slow = tokio::spawn(async move { tokio::try_join!(one.ask("/slow?ms=9000"), other.ask("/slow?ms=9000")) });
        sleep(millis(500)).await;
        // One after the other, so that all connections live through it.
        behind.servers[0].terminate()?;
        sleep(secs(4)).await;
        behind.servers[1].terminate()?;
        let (one, other) = slow.await?.context("requests under way")?;
        ensure!(one == other && one == "late, and answered");
        all_go_on(&mut clients).await?;
        no_resets(&behind.agent).await
    })
}

#[test]
#[ignore = "bounds: forty seconds"]
fn an_upload_that_is_not_read_for_17_s_arrives_through_a_balancer_or_a_name() -> Result<()> {
    both_ways("an_upload_that_is_not_read_for_17_s_arrives_through_a_balancer_or_a_name", async |through| {
        let behind = Behind::ready(through, |_, _| ()).await?;
        let mut client = Quiet::open(&behind.rig, &behind.agent).await?;
        ensure!(client.upload(20_000_000, 17_000).await? == "20000000");
        no_resets(&behind.agent).await
    })
}

#[test]
fn a_silent_balancer_or_address_of_a_name_is_given_up_within_6_s() -> Result<()> {
    both_ways("a_silent_balancer_or_address_of_a_name_is_given_up_within_6_s", async |through| {
        let behind = Behind::ready(through, |_, _| ()).await?;
        let mut clients = several(&behind.rig, &behind.agent).await?;
        let silences: Vec<Silence> = Behind::endpoints(&behind.rig, through)
            .into_iter()
            .map(|endpoint| Silence::of(endpoint.ip()))
            .collect::<Result<_>>()?;
        let begin = Instant::now();
        for client in &mut clients[..4] {
            client.0.write_all(b"GET / HTTP/1.1\r\nhost: kubernetes\r\n\r\n").await?;
        }
        for client in &mut clients {
            let ended = timeout(wide(secs(6)).saturating_sub(begin.elapsed()), client.0.read_u8()).await;
            ensure!(ended.context("it is not given up")?.is_err());
        }
        told(&format!("the last of nine was given up after {:.1?}", begin.elapsed()));
        drop(silences);
        behind.agent.is_sound().await
    })
}

#[test]
fn only_connections_to_the_silent_address_of_a_name_are_given_up() -> Result<()> {
    if !in_a_network_of_its_own("indirect::only_connections_to_the_silent_address_of_a_name_are_given_up")? {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        let behind = Behind::ready(Through::Name, |_, _| ()).await?;
        let (mut silent, mut living) = (Vec::new(), Vec::new());
        while silent.is_empty() || living.len() < 2 {
            let mut client = Quiet::open(&behind.rig, &behind.agent).await?;
            let at_silent = client.ask("/who").await?.contains("api-11");
            if at_silent { &mut silent } else { &mut living }.push(client);
        }
        let mut uploading = living.pop().context("two")?;
        // It goes on for longer than the silent ones are waited for.
        let upload = tokio::spawn(async move { uploading.upload(20_000_000, 8_000).await });
        sleep(millis(500)).await;
        let silence = Silence::of(behind.rig.endpoint(11).ip())?;
        for client in &mut silent {
            let ended = timeout(wide(secs(6)), client.0.read_u8()).await;
            ensure!(ended.context("it is not given up")?.is_err());
        }
        ensure!(upload.await?.context("the upload to the living one")? == "20000000");
        all_go_on(&mut living).await?;
        let resets = async |host| {
            let series = format!("prismesh_upstream_resets_total{{endpoint=\"{}\"", behind.rig.endpoint(host));
            behind.agent.metric(&series).await
        };
        let (gone, kept) = (resets(11).await?, resets(12).await?);
        ensure!(gone == silent.len() as f64 && kept == 0.0, "{gone} and {kept} were reset");
        drop(silence);
        behind.agent.is_sound().await
    })
}

/// Passes connections on to an apiserver until told otherwise; then it accepts no more, and the kernel drops SYNs.
struct Narrow {
    addr: SocketAddr,
    accepting: watch::Sender<bool>,
    waiting: Vec<TcpStream>,
}

impl Narrow {
    fn start(addr: SocketAddr, to: SocketAddr) -> Result<Narrow> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(0)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        let (accepting, mut told) = watch::channel(true);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((mut client, _)) = accepted {
                        tokio::spawn(async move {
                            let mut server = TcpStream::connect(to).await?;
                            copy_bidirectional(&mut client, &mut server).await
                        });
                    },
                    _ = told.wait_for(|accepting| !accepting) => break,
                }
            }
            // The port stays open, and nobody accepts.
            let _listener = listener;
            std::future::pending::<()>().await;
        });
        Ok(Narrow { addr, accepting, waiting: Vec::new() })
    }

    /// Accepts no more, and waits until its queue is full.
    async fn fill(&mut self) -> Result<()> {
        self.accepting.send(false)?;
        sleep(millis(20)).await;
        while let Ok(stream) = timeout(millis(300), TcpStream::connect(self.addr)).await {
            self.waiting.push(stream?);
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_full_accept_queue_resets_nothing_and_costs_new_clients_nothing() -> Result<()> {
    let rig = Rig::new().await?;
    let mut options = rig.options(11)?;
    options.listen = rig.subnet.at(11, 7443);
    let _servers = [rig.serve(&options).await?, rig.apiserver(12).await?];
    let mut narrow = Narrow::start(rig.endpoint(11), options.listen)?;
    let agent = rig.agent().endpoint(11).flag("--external", rig.endpoint(12).to_string()).ready(&[11, 12]).await?;
    let mut clients = several(&rig, &agent).await?;
    narrow.fill().await?;
    let requests = Requests::make(&rig.client(&agent, "/")?, millis(50), QUIET).await?;
    told(&format!("{} fill the queue: {}", narrow.waiting.len(), requests.told()));
    requests.none_failed(&agent)?;
    ensure!(requests.within(100) <= wide(millis(1_000)), "{}", requests.told());
    all_go_on(&mut clients).await?;
    let who = clients[0].ask("/who").await?;
    ensure!(who.contains("api-11"), "they were at the full one: {who}");
    no_resets(&agent).await
}
