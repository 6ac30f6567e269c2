//! Panics. No process can be made to panic from outside, so the agents here live in this process, over a world that is real but
//! for one seam that panics when it is told to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prismesh::agent::decide::Decide;
use prismesh::agent::process::{self, StartError};
use prismesh::agent::{Agent, Sockets};
use prismesh::config::{Config, Snapshot, Sources};
use prismesh::engine::event::{ProbeOrder, Probed};
use prismesh::engine::{Effect, Endpoint, Engine, Event, Explained, Moment, Source};
use prismesh::gossip::keys::Keyring;
use prismesh::probe::{Before, TlsProber, Trust};
use prismesh::service::Inherited;
use prismesh::world::real::{Files, RealDatagram, RealDatagramSocket, RealListener, RealNet, SystemClock};
use prismesh::world::{
    BoxFuture, Clock, DatagramSocket, Family, Found, Listener, Lookup, Prober, ResolveError, Resolver, Store as _, Stream, World,
};
use simulations::lab::client::Target;
use simulations::lab::status::{Status, page};
use simulations::lab::watcher::Watcher;
use tokio::time::timeout;

use crate::gossip::make_keyring;
use crate::rig::{Rig, SOON, START, secs, until};

/// Panics while it is told to.
#[derive(Default)]
struct Fuse(AtomicBool);

impl Fuse {
    fn set(&self, blows: bool) {
        self.0.store(blows, Ordering::Relaxed);
    }

    fn blow(&self, what: &str) {
        assert!(!self.0.load(Ordering::Relaxed), "{what} panics, as it was told to");
    }
}

struct Seam<T>(T, Arc<Fuse>);

impl DatagramSocket for Seam<RealDatagramSocket> {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        self.1.blow("sending");
        self.0.send(to, bytes)
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        self.1.blow("receiving");
        self.0.receive(buffer)
    }
}

impl Prober for Seam<TlsProber> {
    fn probe(&self, order: ProbeOrder) -> BoxFuture<'_, Probed> {
        Box::pin(async {
            self.1.blow("probing");
            self.0.probe(order).await
        })
    }
}

impl Listener for Seam<RealListener> {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept_now(&self) -> io::Result<Option<(Box<dyn Stream>, SocketAddr)>> {
        self.0.accept_now()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            let accepted = self.0.accept().await;
            self.1.blow("accepting");
            accepted
        })
    }
}

/// Every name has this IPv4 address, once looking it up no longer panics.
struct Names(IpAddr, Arc<Fuse>);

impl Resolver for Names {
    fn lookup<'a>(&'a self, _: &'a str, found: Found<'a>) -> BoxFuture<'a, Result<(), ResolveError>> {
        Box::pin(async move {
            self.1.blow("looking a name up");
            found(Family::V4, Ok(Lookup { addrs: vec![self.0], ttl: secs(60), complete: true }));
            Ok(())
        })
    }
}

/// An engine that panics at its next event once it is told to.
struct PanickingEngine(Engine, Arc<Fuse>);

impl Decide for PanickingEngine {
    fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        self.1.blow("the engine");
        self.0.handle(now, event)
    }

    fn next_deadline(&self) -> Option<Moment> {
        self.0.next_deadline()
    }

    fn explain(&self, now: Moment) -> Vec<Explained> {
        self.0.explain(now)
    }

    fn cluster_size(&self) -> u32 {
        self.0.cluster_size()
    }

    fn refused_listeners(&self) -> Vec<(Endpoint, Source)> {
        self.0.refused_listeners()
    }
}

/// What may panic.
#[derive(Default)]
struct Fuses {
    datagram: Arc<Fuse>,
    prober: Arc<Fuse>,
    resolver: Arc<Fuse>,
    proxy: Arc<Fuse>,
    admin: Arc<Fuse>,
}

/// An agent in this process, with an apiserver behind it.
struct Here {
    fuses: Fuses,
    agent: Agent,
    admin: SocketAddr,
    client: Target,
}

fn sources(rig: &Rig) -> Result<Sources> {
    let (proxy, admin, gossip) = (rig.subnet.at(31, 7445), rig.subnet.at(31, 7446), rig.subnet.at(31, 7447));
    let (file, keyring, state) = (rig.dir().join("agent.yaml"), rig.dir().join("keyring"), rig.dir().join("state"));
    make_keyring(&keyring)?;
    let text = format!(
        "cluster: abuse\nnode: abused\nlisten: [\"{proxy}\"]\nadmin: \"{admin}\"\ngossip-listen: \"{gossip}\"\nkeyring: {}\n\
         state-dir: {}\nca: {}\nendpoint: [\"{}\", \"api.test:{}\"]\n",
        keyring.display(),
        state.display(),
        rig.ca.certificate().display(),
        rig.endpoint(11),
        rig.endpoint(12).port()
    );
    std::fs::write(&file, text)?;
    Ok(Sources { file: Some(file), ..Sources::default() })
}

impl Here {
    async fn start(rig: &Rig, fuses: Fuses) -> Result<Here> {
        let config = Config::load(&sources(rig)?, &Files).await?.config;
        let (clock, net, store, wall) = (Clock::start(), Arc::new(RealNet), Arc::new(Files), Arc::new(SystemClock));
        let trust = Trust::load(store.clone(), wall.clone(), &config, Before::Nothing).await?;
        let keyring = Keyring::parse(&Files.read(&rig.dir().join("keyring"), 4096).await?)?;
        let (admin, proxy) = (config.admin.addr, config.listen[0].addr);
        let gossip = config.gossip.as_ref().context("gossip")?.listen.addr;
        let sockets = Sockets {
            proxy: vec![Box::new(Seam(RealListener::bind(proxy)?, fuses.proxy.clone()))],
            admin: Box::new(Seam(RealListener::bind(admin)?, fuses.admin.clone())),
            gossip: Some((Box::new(Seam(RealDatagramSocket::bind(gossip)?, fuses.datagram.clone())), keyring)),
        };
        let world = World {
            datagram: Arc::new(RealDatagram),
            net: net.clone(),
            prober: Arc::new(Seam(TlsProber::new(net, clock, trust), fuses.prober.clone())),
            resolver: Arc::new(Names(rig.endpoint(12).ip(), fuses.resolver.clone())),
            store,
            wall,
            clock,
        };
        let agent = Agent::start(config, &world, sockets, 1000, |engine| Box::new(engine))?;
        let client = Target::new(proxy, "/", &rig.ca.certificate(), None)?;
        Ok(Here { fuses, agent, admin, client })
    }

    async fn becomes(&self, endpoint: SocketAddr, verdict: &str) -> Result<()> {
        let is = async || Status::of(self.admin).await.is_ok_and(|status| status.verdict(endpoint) == Some(verdict));
        until(&format!("{endpoint} becomes {verdict}"), START, is).await?;
        Ok(())
    }

    async fn metric(&self, series: &str) -> f64 {
        let text = page(self.admin, "/metrics").await.unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a note tells of it, and a start of this task is counted, as are its panics.
    async fn is_told_and_counted(&self, task: &str, within: Duration) -> Result<()> {
        let noted = async || page(self.admin, "/status").await.is_ok_and(|status| status.contains(&format!("{task} ended")));
        until(&format!("a note that {task} has ended"), within, noted).await?;
        let restarts = format!("prismesh_task_restarts_total{{task=\"{task}\"}}");
        until(&format!("{task} is started again"), within, async || self.metric(&restarts).await >= 1.0).await?;
        ensure!(self.metric("prismesh_panics_total").await >= 1.0, "the panic is counted");
        Ok(())
    }
}

#[tokio::test]
async fn gossip_that_panics_is_started_again_and_connections_are_untouched() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let here = Here::start(&rig, Fuses::default()).await?;
    here.becomes(rig.endpoint(11), "ready").await?;
    let watcher = Watcher::start(here.client.path("/watch"));
    until("the stream begins", SOON, async || watcher.current().is_some()).await?;
    here.fuses.datagram.set(true);
    // Something for it to receive.
    std::net::UdpSocket::bind(rig.subnet.at(32, 0))?.send_to(b"junk", rig.subnet.at(31, 7447))?;
    until("a note", SOON, async || page(here.admin, "/status").await.is_ok_and(|status| status.contains("gossip ended"))).await?;
    here.fuses.datagram.set(false);
    here.is_told_and_counted("gossip", START).await?;
    let joined =
        async || page(here.admin, "/status").await.is_ok_and(|status| status.contains(&rig.subnet.at(31, 7447).to_string()));
    until("it gossips", SOON, joined).await?;
    ensure!(watcher.streams().len() == 1 && watcher.current().is_some(), "the stream goes on: {:?}", watcher.streams());
    ensure!(here.client.get(SOON).await.is_ok(), "clients are served");
    Ok(())
}

#[tokio::test]
async fn a_probe_that_panics_says_nothing_and_the_endpoint_is_probed_again() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let fuses = Fuses::default();
    fuses.prober.set(true);
    let here = Here::start(&rig, fuses).await?;
    until("panics are counted", SOON, async || here.metric("prismesh_panics_total").await >= 2.0).await?;
    here.fuses.prober.set(false);
    here.becomes(rig.endpoint(11), "ready").await?;
    ensure!(here.client.get(SOON).await.is_ok(), "clients are served");
    Ok(())
}

#[tokio::test]
async fn a_look_up_that_panics_is_tried_again_and_harms_nothing_else() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiservers = [rig.apiserver(11).await?, rig.apiserver(12).await?];
    let fuses = Fuses::default();
    fuses.resolver.set(true);
    let here = Here::start(&rig, fuses).await?;
    here.becomes(rig.endpoint(11), "ready").await?;
    let told = async || page(here.admin, "/status").await.is_ok_and(|status| status.contains("as it was told to"));
    until("a note says why the name does not resolve", SOON, told).await?;
    ensure!(here.client.get(SOON).await.is_ok(), "clients are served");
    here.fuses.resolver.set(false);
    here.becomes(rig.endpoint(12), "ready").await
}

#[tokio::test]
async fn the_admin_server_that_panics_is_started_again() -> Result<()> {
    let rig = Rig::new().await?;
    let here = Here::start(&rig, Fuses::default()).await?;
    until("it serves", START, async || page(here.admin, "/healthz").await.is_ok()).await?;
    here.fuses.admin.set(true);
    let _ = page(here.admin, "/healthz").await;
    here.fuses.admin.set(false);
    here.is_told_and_counted("admin", START).await
}

#[tokio::test]
async fn an_accept_that_panics_is_survived_and_a_loop_that_does_nothing_else_ends_the_agent() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let here = Here::start(&rig, Fuses::default()).await?;
    here.becomes(rig.endpoint(11), "ready").await?;
    here.fuses.proxy.set(true);
    ensure!(here.client.get(SOON).await.is_err(), "this one is lost");
    here.fuses.proxy.set(false);
    ensure!(here.client.get(SOON).await.is_ok(), "and the next one is served");
    ensure!(timeout(Duration::from_millis(200), here.agent.ended()).await.is_err(), "nothing has ended");
    here.fuses.proxy.set(true);
    for _ in 0..20 {
        let _ = here.client.get(SOON).await;
    }
    let reason = timeout(SOON, here.agent.ended()).await?;
    ensure!(reason.contains("an accept loop has ended") && reason.contains("accepting panics"), "{reason}");
    ensure!(here.agent.healthy().await.is_err(), "nor does the watchdog hear that all is well");
    Ok(())
}

#[tokio::test]
async fn a_process_whose_engine_panics_ends_with_the_reason() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let sources = sources(&rig)?;
    let files = Arc::new(Snapshot::new(Arc::new(Files)));
    let loaded = Config::load(&sources, &*files).await?;
    let (fuse, late) = (Arc::new(Fuse::default()), secs(1));
    let lit = fuse.clone();
    tokio::spawn(async move {
        tokio::time::sleep(late).await;
        lit.set(true);
    });
    let within = |engine| -> Box<dyn Decide> { Box::new(PanickingEngine(engine, fuse)) };
    let run = process::run(loaded, files, sources, Inherited::default(), within);
    let ended = timeout(START, run).await.context("it ends")?;
    let Err(StartError::Ended(reason)) = ended else { anyhow::bail!("not so: {ended:?}") };
    ensure!(reason.contains("the engine's driver has ended: panicked: the engine panics"), "{reason}");
    Ok(())
}
