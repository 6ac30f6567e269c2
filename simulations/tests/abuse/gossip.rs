//! Datagrams and members that mean harm, and a cache that somebody has been at.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use simulations::lab::ca::Ca;
use simulations::lab::children::Process;
use simulations::lab::status::page;
use tokio::time::{Instant, sleep};

use crate::rig::{Agent, Plan, Rig, SOON, START, millis, program, secs, until};

pub(crate) const CONTROL_PLANE: u8 = 41;
pub(crate) const WORKER: u8 = 42;
/// Junk that is sent, and from how many ports at once.
const DATAGRAMS: usize = 1_000_000;
const SENDERS: usize = 4;
/// What all that junk may take in memory, in KiB.
const LEFT_BEHIND: f64 = 16.0 * 1024.0;

/// A keyring with a fresh key.
pub(crate) fn make_keyring(path: &Path) -> Result<()> {
    let command = &mut Command::new(program());
    let mut child = command.args(["agent", "keygen"]).arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    // Our children end when their standard input does.
    let stdin = child.stdin.take();
    let status = child.wait()?;
    drop(stdin);
    ensure!(status.success(), "keygen: {status}");
    Ok(())
}

fn gossip_at(rig: &Rig, host: u8) -> SocketAddr {
    rig.subnet.at(host, 7447)
}

/// A member at a host of its own, which begins with those that the others begin with.
pub(crate) fn member<'r>(rig: &'r Rig, name: &str, host: u8) -> Plan<'r> {
    let mut plan = rig.agent();
    (plan.name, plan.proxy, plan.admin) = (name.to_owned(), rig.subnet.at(host, 7445), rig.subnet.at(host, 7446));
    plan.instead("--node", name)
        .instead("--gossip-listen", gossip_at(rig, host).to_string())
        .instead("--state-dir", rig.dir().join(format!("{name}-state")))
        .flag("--keyring", rig.dir().join("keyring"))
        .flag("--seed", gossip_at(rig, CONTROL_PLANE).to_string())
        .flag("--seed", gossip_at(rig, WORKER).to_string())
}

/// A control-plane member that tells of its apiserver.
pub(crate) fn teller<'r>(rig: &'r Rig, name: &str, host: u8, apiserver: u8) -> Plan<'r> {
    member(rig, name, host).flag("--apiserver", rig.endpoint(apiserver).to_string())
}

/// A control-plane node with an apiserver, and a worker that has learnt of it.
pub(crate) struct Scene {
    pub(crate) rig: Rig,
    pub(crate) apiserver: Process,
    pub(crate) teller: Agent,
    pub(crate) worker: Agent,
}

impl Scene {
    pub(crate) async fn new() -> Result<Scene> {
        Scene::of(Rig::new().await?).await
    }

    pub(crate) async fn of(rig: Rig) -> Result<Scene> {
        make_keyring(&rig.dir().join("keyring"))?;
        let apiserver = rig.apiserver(11).await?;
        let teller = teller(&rig, "teller", CONTROL_PLANE, 11).ready(&[11]).await?;
        let worker = member(&rig, "worker", WORKER).ready(&[11]).await?;
        Ok(Scene { rig, apiserver, teller, worker })
    }

    /// Another worker, not started.
    pub(crate) fn newcomer(&self) -> Plan<'_> {
        member(&self.rig, "newcomer", 43)
    }

    pub(crate) async fn serves(&self) -> Result<()> {
        let answer = self.rig.client(&self.worker, "/")?.get(SOON).await;
        ensure!(answer.as_ref().is_ok_and(|answer| answer.server.as_deref() == Some("api-11")), "it serves: {answer:?}");
        Ok(())
    }
}

/// The names of an agent's live peers.
pub(crate) async fn peers(agent: &Agent) -> Result<Vec<String>> {
    let status = agent.status().await?;
    let peers = status["peers"].as_array().context("a list of peers")?;
    let alive = peers.iter().filter(|peer| peer["alive"] == true);
    Ok(alive.filter_map(|peer| peer["name"].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn who_has_another_key_or_another_cluster_learns_nothing_and_tells_nothing() -> Result<()> {
    let scene = Scene::new().await?;
    let rig = &scene.rig;
    make_keyring(&rig.dir().join("other"))?;
    let _told = rig.apiserver(12).await?;
    let keyless = teller(rig, "keyless", 43, 12).instead("--keyring", rig.dir().join("other")).ready(&[12]).await?;
    let foreign = teller(rig, "foreign", 44, 12).instead("--cluster", "another").ready(&[12]).await?;
    // What they send is not opened, so nothing comes back: why is in the log of the control plane that they ask.
    for intruder in [&keyless, &foreign] {
        intruder.says(&["WARN", "no core member answers", "nothing arrives"], secs(18)).await?;
        ensure!(intruder.status().await?["notes"].to_string().contains("nothing arrives"), "{}", intruder.status().await?);
        ensure!(intruder.metric("prismesh_gossip_isolated").await? == 1.0, "the gauge says so");
    }
    let senders = [43, 44].map(|host| format!("datagrams from {}", gossip_at(rig, host)));
    let warned = senders.iter().map(|sender| scene.teller.logged(&["WARN", sender]).len()).sum::<usize>();
    ensure!(warned == 1, "it warns once a minute: {}", scene.teller.log());
    ensure!(scene.teller.metric("prismesh_gossip_isolated").await? == 0.0, "the others are answered");
    for intruder in [&keyless, &foreign] {
        ensure!(intruder.upstream(rig.endpoint(11)).await?.is_none(), "it learns no endpoint: {}", intruder.status().await?);
        ensure!(intruder.status().await?["peers"] == serde_json::json!([]), "nor any member: {}", intruder.status().await?);
    }
    for member in [&scene.worker, &scene.teller] {
        ensure!(member.upstream(rig.endpoint(12)).await?.is_none(), "it is told no endpoint: {}", member.status().await?);
        let peers = peers(member).await?;
        ensure!(peers.len() == 1, "nor of any member: {peers:?}");
        ensure!(member.metric("prismesh_gossip_dropped_total").await? > 0.0, "what they sent is counted");
    }
    scene.serves().await?;
    scene.worker.blames_nobody().await
}

/// Junk of many kinds: noise, zeros, the beginnings of what is genuine, and what is as long as a datagram gets.
fn junk(number: usize) -> Vec<u8> {
    let noise = |length: usize| (0..length).map(|_| rand::random()).collect::<Vec<u8>>();
    match number % 8 {
        0 => Vec::new(),
        1 => vec![1],
        2 => noise(40),
        3 => [vec![1], noise(63)].concat(),
        4 => [vec![0], noise(300)].concat(),
        5 => vec![0; 1200],
        6 => [vec![1], noise(1199)].concat(),
        _ if number % 200 == 7 => vec![0; 65_507],
        _ => vec![255; 80],
    }
}

/// Sends a share of the junk from a port of its own.
fn send_junk(from: SocketAddr, to: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind(from)?;
    let junk: Vec<Vec<u8>> = (0..1600).map(junk).collect();
    for (number, datagram) in junk.iter().cycle().take(DATAGRAMS / SENDERS).enumerate() {
        if number % 250 == 0 {
            // What the kernel drops for want of room reaches nobody.
            std::thread::sleep(millis(10));
        }
        socket.send_to(datagram, to)?;
    }
    Ok(())
}

/// What the kernel had no room for at a socket, from `/proc/net/udp` (its last column).
fn kernel_dropped(port: SocketAddr) -> Result<u64> {
    let SocketAddr::V4(v4) = port else { bail!("{port} is not IPv4") };
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(v4.ip().octets()), v4.port());
    let table = std::fs::read_to_string("/proc/net/udp")?;
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local)).context("its socket")?;
    Ok(line.split_whitespace().last().context("a last column")?.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_junk_datagrams_are_dropped_and_counted_and_harm_nobody() -> Result<()> {
    let scene = Scene::of(Rig::alone().await?).await?;
    let (from, to) = (scene.rig.subnet.at(50, 0), gossip_at(&scene.rig, WORKER));
    let before = crate::crowds::resident(scene.worker.process.pid())?;
    let counted_before = scene.worker.metric("prismesh_gossip_dropped_total").await?;
    let (begin, mut most) = (Instant::now(), before);
    let senders: Vec<_> = (0..SENDERS).map(|_| std::thread::spawn(move || send_junk(from, to))).collect();
    while senders.iter().any(|sender| !sender.is_finished()) {
        scene.serves().await?;
        page(scene.worker.admin, "/healthz").await?;
        most = crate::crowds::resident(scene.worker.process.pid())?.max(most);
        sleep(millis(50)).await;
    }
    for sender in senders {
        sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
    }
    let sent = begin.elapsed();
    sleep(secs(1)).await;
    let text = page(scene.worker.admin, "/metrics").await?;
    let counted: Vec<&str> = text.lines().filter(|line| line.starts_with("prismesh_gossip_dropped_total")).collect();
    let counted: Vec<&&str> = counted.iter().filter(|line| !line.ends_with(" 0")).collect();
    let dropped = scene.worker.metric("prismesh_gossip_dropped_total").await? - counted_before;
    let (lost, grown) = (kernel_dropped(to)?, most - before);
    eprintln!(
        "{DATAGRAMS} junk datagrams in {sent:?}: {dropped} counted, {lost} lost on the way, {grown:.0} KiB more; {counted:#?}"
    );
    ensure!(dropped + lost as f64 >= DATAGRAMS as f64, "each one that arrives is counted: {counted:#?}");
    ensure!(dropped > DATAGRAMS as f64 / 10.0, "and they arrive: {counted:#?}");
    ensure!(counted.len() >= 2, "by reason: {counted:#?}");
    ensure!(grown < LEFT_BEHIND, "{grown:.0} KiB more");
    ensure!(peers(&scene.worker).await? == ["teller"], "gossip goes on");
    // And what is new is heard.
    scene.worker.blames_nobody().await?;
    let _second = scene.rig.apiserver(12).await?;
    let _another = teller(&scene.rig, "another", 43, 12).start().await?;
    scene.worker.becomes(scene.rig.endpoint(12), "ready", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn what_was_caught_on_its_way_and_is_sent_again_changes_nothing() -> Result<()> {
    let scene = Scene::new().await?;
    let rig = &scene.rig;
    // Whoever is named as a seed is sent something genuine.
    let catcher = tokio::net::UdpSocket::bind(gossip_at(rig, 61)).await?;
    let talker = teller(rig, "talker", 43, 11).flag("--seed", catcher.local_addr()?.to_string()).ready(&[11]).await?;
    until("all know one another", SOON, async || peers(&talker).await.is_ok_and(|peers| peers.len() == 2)).await?;
    let mut caught = Vec::new();
    let mut buffer = [0; 2048];
    while caught.len() < 3 {
        let (length, _) = tokio::time::timeout(SOON, catcher.recv_from(&mut buffer)).await.context("nothing comes")??;
        caught.push(buffer[..length].to_vec());
    }
    let before = (peers(&scene.worker).await?, scene.worker.metric("prismesh_gossip_dropped_total").await?);
    for bytes in &caught {
        let mut changed = bytes.clone();
        *changed.last_mut().context("not empty")? ^= 1;
        for bytes in [bytes, &changed, &bytes[..bytes.len() - 1].to_vec()] {
            for _ in 0..100 {
                catcher.send_to(bytes, gossip_at(rig, WORKER)).await?;
            }
        }
    }
    sleep(secs(1)).await;
    let after = (peers(&scene.worker).await?, scene.worker.metric("prismesh_gossip_dropped_total").await?);
    ensure!(after.0 == before.0, "{after:?} after {before:?}");
    // What is genuine may be answered again, as often as any question from an address that has shown nothing.
    ensure!(after.1 - before.1 >= 600.0, "what was changed is dropped and counted: {after:?} after {before:?}");
    scene.serves().await?;
    scene.worker.blames_nobody().await
}

#[tokio::test]
async fn an_endpoint_that_a_member_forged_never_gets_a_byte_of_a_client() -> Result<()> {
    let mut scene = Scene::new().await?;
    let stranger = Ca::create(scene.rig.dir(), "stranger")?;
    let mut options = scene.rig.options(13)?;
    let pair = stranger.server("api-13", &[options.listen.ip()])?;
    (options.cert, options.key, options.tell_hellos) = (pair.cert, pair.key, true);
    let forged = scene.rig.serve(&options).await?;
    // It has the key, and to itself its apiserver looks fine.
    let liar = teller(&scene.rig, "liar", 43, 13).instead("--ca", stranger.certificate());
    let _liar = liar.ready(&[13]).await?;
    scene.worker.becomes(options.listen, "down", START).await?;
    let reasons = scene.worker.upstream(options.listen).await?.context("it is known")?;
    ensure!(reasons["reasons"].to_string().contains("not of this cluster's CA") && reasons["carries"] == false, "{reasons:#}");
    // Not even when there is nobody else.
    let client = scene.rig.client(&scene.worker, "/")?.named("a-client-of-ours")?;
    for _ in 0..20 {
        let _ = client.get(secs(1)).await;
    }
    scene.apiserver.kill();
    let failure = client.get(secs(5)).await.err().context("nobody may serve it")?;
    ensure!(failure.before_first_byte, "{failure:?}");
    ensure!(forged.output().contains("\"hello\""), "probes arrive:\n{}", forged.output());
    ensure!(!forged.output().contains("a-client-of-ours"), "the client's hello does not:\n{}", forged.output());
    scene.worker.is_sound().await
}

#[tokio::test]
async fn two_machines_with_one_name_are_told_with_both_addresses_and_both_serve_on() -> Result<()> {
    let scene = Scene::new().await?;
    let (rig, first) = (&scene.rig, &scene.worker);
    let mut plan = member(rig, "namesake", 43).instead("--node", "worker");
    plan = plan.instead("--state-dir", rig.dir().join("namesake-state"));
    let second = plan.start().await?;
    let (ours, theirs) = (gossip_at(rig, WORKER).to_string(), gossip_at(rig, 43).to_string());
    for agent in [first, &second] {
        agent.says(&["ERROR", "name", &ours, &theirs], secs(40)).await?;
        let gauge = async || agent.metric("prismesh_gossip_name_conflict").await.is_ok_and(|value| value == 1.0);
        until("the gauge says so", SOON, gauge).await?;
        ensure!(agent.status().await?["notes"].to_string().contains("two machines have the name"), "so does status");
    }
    let peers = peers(&scene.teller).await?;
    second.becomes(rig.endpoint(11), "ready", SOON).await.with_context(|| format!("the teller knows {peers:?}"))?;
    for agent in [first, &second] {
        let answer = rig.client(agent, "/")?.get(SOON).await;
        ensure!(answer.is_ok(), "it serves: {answer:?}");
        agent.blames_nobody().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_worker_with_a_control_planes_name_is_told_and_changes_nothing_for_others() -> Result<()> {
    let scene = Scene::new().await?;
    let rig = &scene.rig;
    let plan = member(rig, "imitator", 43).instead("--node", "teller");
    let imitator = plan.instead("--state-dir", rig.dir().join("imitator-state")).start().await?;
    let (ours, theirs) = (gossip_at(rig, CONTROL_PLANE).to_string(), gossip_at(rig, 43).to_string());
    for agent in [&scene.teller, &imitator] {
        agent.says(&["ERROR", "name", &ours, &theirs], secs(12)).await?;
        ensure!(agent.metric("prismesh_gossip_name_conflict").await? == 1.0, "the gauge says so");
        ensure!(agent.status().await?["notes"].to_string().contains("two machines have the name"), "so does status");
    }
    scene.serves().await?;
    ensure!(peers(&scene.worker).await? == ["teller"], "the control plane is known as before");
    scene.worker.blames_nobody().await
}

#[tokio::test]
async fn a_cache_that_is_of_no_use_is_told_once_and_ignored_and_never_stops_anyone() -> Result<()> {
    let mut scene = Scene::new().await?;
    let cache = scene.rig.dir().join("worker-state").join("peers");
    until("the cache is written", SOON, async || cache.exists()).await?;
    scene.worker.process.kill();
    let good = std::fs::read(&cache)?;
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let huge = vec![7; 32 * 1024 * 1024];
    let bad = [&good[..good.len() / 2], &good[..5], &flipped, &[], &[0; 4096], b"peers:\n- 10.0.0.1\n", &huge];
    for (number, bytes) in bad.into_iter().enumerate() {
        std::fs::write(&cache, bytes)?;
        let mut plan = member(&scene.rig, "worker", WORKER);
        plan.name = format!("worker-{number}");
        let agent = plan.ready(&[11]).await.with_context(|| format!("with {} bytes of cache", bytes.len()))?;
        let told = agent.logged(&["WARN", "peer cache"]);
        ensure!(told.len() == 1, "cache {number} is told of once: {told:?}\n{}", agent.log());
        agent.blames_nobody().await?;
    }
    // One of another cluster, which has nobody to ask.
    std::fs::write(&cache, &good)?;
    let mut plan = member(&scene.rig, "worker", WORKER).instead("--cluster", "another");
    plan.name = "worker-elsewhere".to_owned();
    let agent = plan.start().await?;
    agent.says(&["WARN", "peer cache", "another cluster"], SOON).await?;
    sleep(secs(1)).await;
    ensure!(agent.status().await?["upstreams"] == serde_json::json!([]), "nothing of it is taken");
    drop(agent);
    // And a good one is what it was for: everybody else is gone.
    std::fs::write(&cache, &good)?;
    scene.teller.process.kill();
    let mut plan = member(&scene.rig, "worker", WORKER);
    plan.name = "worker-alone".to_owned();
    let agent = plan.ready(&[11]).await?;
    ensure!(agent.logged(&["WARN", "peer cache"]).is_empty(), "{}", agent.log());
    Ok(())
}
