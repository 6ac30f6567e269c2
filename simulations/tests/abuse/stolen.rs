//! A program with the reader keyring of a worker: its attacks fail, and all clients are served.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prismesh::engine::event::{AgentState, ApiserverState, Observation, Role, Verdict};
use prismesh::engine::{Endpoint, NodeId};
use prismesh::gossip::Keyring;
use prismesh::gossip::envelope::{Envelopes, Kind};
use prismesh::gossip::item::{Item, Record};
use prismesh::gossip::message::{Cookie, NONE, Report, SeenEndpoint, Update};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::gossip::{CONTROL_PLANE, Scene, WORKER, member};
use crate::rig::{Rig, SOON, START, millis, secs, until};

/// The cluster's id in all of these tests.
const CLUSTER: &str = "abuse";
/// From so many addresses one program reports.
const ADDRESSES: u8 = 60;
/// Reports that are sent, and their pace.
const FLOOD: usize = 60_000;
const A_BATCH: usize = 200;
const BATCHES_APART: Duration = Duration::from_millis(10);

/// One address of a program that has a reader keyring.
struct Thief {
    socket: UdpSocket,
    envelopes: Envelopes,
    node: NodeId,
    sequence: u32,
    cookie: Cookie,
}

impl Thief {
    async fn at(rig: &Rig, host: u8, reader: &Keyring) -> Result<Thief> {
        let socket = UdpSocket::bind(rig.subnet.at(host, 0)).await?;
        let node = NodeId::of(&format!("thief-{host}"));
        Ok(Thief { socket, envelopes: Envelopes::new(reader, CLUSTER), node, sequence: 0, cookie: NONE })
    }

    fn report(&mut self, seen: &[Observation], items: Vec<Vec<u8>>) -> Report {
        self.sequence += 1;
        Report {
            node: self.node,
            core: false,
            generation: 1,
            sequence: self.sequence,
            next_within_s: 40,
            cookie: self.cookie,
            echo: rand::random(),
            digest: 0,
            view: 0,
            holds: Vec::new(),
            observations: seen.iter().map(SeenEndpoint::from).collect(),
            unanswered: Vec::new(),
            introduction: None,
            items,
        }
    }

    fn sealed(&self, report: &Report) -> Result<Vec<u8>> {
        self.envelopes.seal(Kind::Report, &report.encode().context("it fits")?).context("it fits")
    }

    /// Reports, and takes the answer.
    async fn ask(&mut self, to: SocketAddr, seen: &[Observation], items: Vec<Vec<u8>>) -> Result<Update> {
        let report = self.report(seen, items);
        self.socket.send_to(&self.sealed(&report)?, to).await?;
        let mut buffer = vec![0; 2_000];
        let answered = async {
            loop {
                let (len, _) = self.socket.recv_from(&mut buffer).await?;
                let Ok(opened) = self.envelopes.open(&buffer[..len]) else { continue };
                let update = Update::decode(&opened.plaintext).context("an Update")?;
                if update.echo == report.echo {
                    return anyhow::Ok(update);
                }
            }
        };
        let update = timeout(SOON, answered).await.context("it is answered")??;
        self.cookie = update.cookie;
        Ok(update)
    }
}

fn reader_of(scene: &Scene) -> Result<Keyring> {
    let full = Keyring::parse(&std::fs::read(scene.rig.dir().join("keyring"))?)?;
    Ok(Keyring::parse(full.reader_text().as_bytes())?)
}

/// A record in the control plane's name that names another endpoint, signed with a key that the thief has made.
fn forged_record(endpoint: SocketAddr, gossip: SocketAddr) -> Result<Vec<u8>> {
    let record = Record {
        name: "teller".to_owned(),
        generation: u64::MAX / 2,
        version: 1,
        role: Role::ControlPlane,
        agent: AgentState::Running,
        apiserver: Some(ApiserverState::Ready),
        endpoints: vec![Endpoint::from(endpoint)],
        gossip: vec![gossip],
    };
    let signed = Item::Record(record).sign(&Keyring::random(), CLUSTER).context("it can be signed")?;
    Ok(signed.bytes.to_vec())
}

#[tokio::test]
async fn a_stolen_reader_keyring_names_no_endpoint_and_spoils_none() -> Result<()> {
    let scene = Scene::new().await?;
    let (rig, reader) = (&scene.rig, reader_of(&scene)?);
    let _relay = rig.apiserver(13).await?;
    let (teller, worker) = (rig.subnet.at(CONTROL_PLANE, 7447), rig.subnet.at(WORKER, 7447));
    let (good, relay) = (rig.endpoint(11), rig.endpoint(13));
    let mut thieves = Vec::new();
    for host in 100..100 + ADDRESSES {
        let mut thief = Thief::at(rig, host, &reader).await?;
        let genuine = thief.ask(teller, &[], Vec::new()).await?;
        // A record of the control plane with a bit of its signature changed, and one in its name with a key of one's own.
        let mut changed = genuine.items.first().context("it is told of the control plane")?.clone();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        let forged = vec![changed, forged_record(relay, rig.subnet.at(host, 7447))?];
        thief.ask(teller, &[], forged.clone()).await?;
        // To the worker as a push as well, which is what a core member would send.
        let push = Update { echo: NONE, items: forged.clone(), view: forged[0].clone(), ..genuine };
        let push = thief.envelopes.seal(Kind::Update, &push.encode().context("it fits")?).context("it fits")?;
        thief.socket.send_to(&push, worker).await?;
        thieves.push(thief);
    }
    let client = rig.client(&scene.worker, "/")?;
    let begun = Instant::now();
    for round in 0..15_u32 {
        // All of them say that the good endpoint fails, and take it back, and that the relay is idle and near.
        let verdict = if round % 2 == 0 { Verdict::Down } else { Verdict::Ready };
        let saw = |endpoint: SocketAddr, verdict, connections| Observation {
            endpoint: Endpoint::from(endpoint).tag(),
            rtt: Some(Duration::from_micros(1)),
            verdict,
            connections,
        };
        for thief in &mut thieves {
            let report = thief.report(&[saw(good, verdict, 1_000_000), saw(relay, Verdict::Ready, 0)], Vec::new());
            thief.socket.send_to(&thief.sealed(&report)?, teller).await?;
        }
        let answer = client.get(SOON).await;
        ensure!(answer.as_ref().is_ok_and(|answer| answer.server.as_deref() == Some("api-11")), "it serves: {answer:?}");
        sleep(millis(200)).await;
    }
    eprintln!("{ADDRESSES} addresses reported 15 times in {:?}", begun.elapsed());
    for agent in [&scene.worker, &scene.teller] {
        ensure!(agent.upstream(relay).await?.is_none(), "no agent learns the relay: {}", agent.status().await?);
        ensure!(agent.verdict(good).await == "ready", "{}", agent.status().await?);
        agent.blames_nobody().await?;
    }
    for reason in ["forged", "unknown-signer"] {
        let series = format!("prismesh_gossip_dropped_total{{reason=\"{reason}\"}}");
        for agent in [&scene.worker, &scene.teller] {
            ensure!(agent.metric(&series).await? >= f64::from(ADDRESSES), "each is counted as {reason}");
        }
    }
    // What they can do is to look like as many nodes as they have addresses.
    let size = scene.worker.status().await?["cluster_size"].as_u64().context("a size")?;
    ensure!(size <= 2 + u64::from(ADDRESSES), "{size} nodes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_genuine_questions_is_limited_and_others_are_served() -> Result<()> {
    let scene = Scene::of(Rig::alone().await?).await?;
    let (rig, reader) = (&scene.rig, reader_of(&scene)?);
    let mut thief = Thief::at(rig, 100, &reader).await?;
    let reports: Vec<Report> = (0..1_000).map(|_| thief.report(&[], Vec::new())).collect();
    let sealed = reports.iter().map(|report| thief.sealed(report)).collect::<Result<Vec<_>>>()?;
    let from = thief.socket.into_std()?;
    from.set_nonblocking(false)?;
    let teller = rig.subnet.at(CONTROL_PLANE, 7447);
    let flood = std::thread::spawn(move || -> std::io::Result<Duration> {
        let begun = Instant::now();
        for (number, datagram) in sealed.iter().cycle().take(FLOOD).enumerate() {
            if number % A_BATCH == 0 {
                std::thread::sleep(BATCHES_APART);
            }
            from.send_to(datagram, teller)?;
        }
        Ok(begun.elapsed())
    });
    let newcomer = member(rig, "newcomer", 43).ready(&[11]).await?;
    let mut served = 0;
    while !flood.is_finished() {
        scene.serves().await?;
        served += 1;
        sleep(millis(50)).await;
    }
    let took = flood.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    eprintln!("{FLOOD} questions in {took:?}; {served} clients were served meanwhile");
    let limited = scene.teller.metric("prismesh_gossip_dropped_total{reason=\"limited\"}").await?;
    ensure!(limited > FLOOD as f64 / 10.0, "{limited} were not answered");
    let answered = scene.teller.metric("prismesh_gossip_datagrams_total{direction=\"out\"}").await?;
    ensure!(answered < 50.0 * (took + START).as_secs_f64() + 1_000.0, "one address is answered 50 times a second: {answered}");
    until("gossip goes on", secs(10), async || crate::gossip::peers(&newcomer).await.is_ok_and(|peers| peers == ["teller"]))
        .await?;
    scene.teller.is_sound().await?;
    scene.worker.blames_nobody().await
}
