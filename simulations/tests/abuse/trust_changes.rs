//! Trust that changes under a running agent: another CA, a narrower `allow`, a default CA that appears.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use simulations::lab::apiserver::Options;
use simulations::lab::ca::Ca;
use simulations::lab::children::Process;
use simulations::lab::client::Target;
use simulations::lab::status::page;
use simulations::lab::watcher::{End, Watcher};
use tokio::time::{Instant, sleep};

use crate::gossip::{CONTROL_PLANE, WORKER, make_keyring, member, teller};
use crate::rig::{Agent, Plan, Rig, SOON, START, millis, secs, until, wide};

/// What is trusted no more is reset within this, though it may not answer.
const RESET: std::time::Duration = secs(2);

/// Two apiservers, of which the second is of another CA than the first, and an agent that believes both.
struct Scene {
    rig: Rig,
    second: Ca,
    options: [Options; 2],
    servers: [Process; 2],
    trusted: PathBuf,
}

impl Scene {
    async fn new() -> Result<Scene> {
        let rig = Rig::new().await?;
        let second = Ca::create(rig.dir(), "second")?;
        let (first, mut other) = (rig.options(11)?, rig.options(12)?);
        let pair = second.server("api-12", &[other.listen.ip()])?;
        (other.cert, other.key) = (pair.cert, pair.key);
        let servers = [rig.serve(&first).await?, rig.serve(&other).await?];
        let trusted = rig.dir().join("trusted.crt");
        let scene = Scene { rig, second, options: [first, other], servers, trusted };
        scene.trust(&[&scene.rig.ca, &scene.second])?;
        Ok(scene)
    }

    fn plan(&self) -> Plan<'_> {
        self.rig.agent().instead("--ca", &self.trusted)
    }

    fn trust(&self, authorities: &[&Ca]) -> Result<()> {
        let all = authorities.iter().map(|ca| std::fs::read_to_string(ca.certificate())).collect::<Result<Vec<_>, _>>()?;
        Ok(std::fs::write(&self.trusted, all.concat())?)
    }

    /// A client that believes both.
    fn client(&self, agent: &Agent, path: &str) -> Result<Target> {
        let both = self.rig.dir().join("both.crt");
        let all = [&self.rig.ca, &self.second].map(|ca| std::fs::read_to_string(ca.certificate()));
        std::fs::write(&both, all.into_iter().collect::<Result<Vec<_>, _>>()?.concat())?;
        Target::new(agent.proxy, path, &both, None)
    }

    /// Streams through an agent, until each of these servers has some.
    async fn streams(&self, agent: &Agent, servers: &[&str]) -> Result<Vec<Watcher>> {
        let mut watchers = Vec::new();
        let target = self.client(agent, "/watch")?;
        let deadline = Instant::now() + START;
        while !servers.iter().all(|server| !on(&watchers, server).is_empty()) {
            ensure!(Instant::now() < deadline && watchers.len() < 64, "each of {servers:?} has a stream: {}", agent.log());
            watchers.push(Watcher::start(target.clone()));
            sleep(millis(150)).await;
        }
        Ok(watchers)
    }
}

/// The watchers whose first stream this server sent.
fn on<'w>(watchers: &'w [Watcher], server: &str) -> Vec<&'w Watcher> {
    let first = |watcher: &Watcher| watcher.streams().first().and_then(|stream| stream.server.clone());
    watchers.iter().filter(|watcher| first(watcher).as_deref() == Some(server)).collect()
}

fn was_reset(watcher: &Watcher) -> bool {
    let streams = watcher.streams();
    streams.first().is_some_and(|stream| matches!(stream.ended, Some((_, End::Reset(_)))))
}

fn goes_on(watcher: &Watcher) -> bool {
    watcher.streams().first().is_some_and(|stream| stream.ended.is_none())
}

async fn withdrawn(agent: &Agent) -> Result<f64> {
    let page = page(agent.admin, "/metrics").await?;
    let of_trust = |line: &&str| line.starts_with("prismesh_upstream_resets_total") && line.contains("trust_withdrawn");
    Ok(page.lines().filter(of_trust).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Tells an agent to load again, and waits until it has.
async fn reload(agent: &mut Agent) -> Result<()> {
    let before = agent.logged(&["configuration reloaded"]).len();
    agent.process.signal(Signal::HUP)?;
    until("it reloads", SOON, async || agent.logged(&["configuration reloaded"]).len() > before)
        .await
        .with_context(|| agent.log())?;
    Ok(())
}

#[tokio::test]
async fn a_ca_that_is_removed_resets_what_it_signed_at_once_and_nothing_else() -> Result<()> {
    let mut scene = Scene::new().await?;
    let mut agent = scene.plan().endpoint(11).endpoint(12).ready(&[11, 12]).await?;
    let streams = scene.streams(&agent, &["api-11", "api-12"]).await?;
    // One that does not even answer has shown its certificate before.
    scene.servers[0].signal(Signal::STOP)?;
    scene.trust(&[&scene.second])?;
    reload(&mut agent).await?;
    let what = "all streams of what is trusted no more are reset";
    let waited = until(what, wide(RESET), async || on(&streams, "api-11").into_iter().all(was_reset)).await;
    scene.servers[0].signal(Signal::CONT)?;
    waited.with_context(|| agent.log())?;
    ensure!(agent.verdict(scene.rig.endpoint(11)).await != "ready", "{}", agent.log());
    ensure!(withdrawn(&agent).await? >= 1.0, "they are counted");
    sleep(secs(3)).await;
    ensure!(on(&streams, "api-12").into_iter().all(goes_on), "the others go on:\n{}", agent.log());
    agent.is_sound().await
}

/// The metric that counts clients that had to wait.
async fn waits(agent: &Agent) -> Result<f64> {
    let page = page(agent.admin, "/metrics").await?;
    let named = ["prismesh_client_waits_total", "prismesh_holds_total"];
    let line = page.lines().find(|line| named.iter().any(|name| line.starts_with(name)));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).context("a number of clients that waited")
}

#[tokio::test]
async fn a_routine_rotation_of_the_ca_under_load_fails_nothing_and_nothing_waits() -> Result<()> {
    let scene = Scene::new().await?;
    scene.trust(&[&scene.second])?;
    // Both are of the same CA to begin with: the second one's certificate is reissued as the first one's will be.
    let pair = scene.second.server("api-11", &[scene.options[0].listen.ip()])?;
    std::fs::copy(&pair.key, &scene.options[0].key)?;
    std::fs::copy(&pair.cert, &scene.options[0].cert)?;
    make_keyring(&scene.rig.dir().join("keyring"))?;
    // One of them is only heard of, which carries nothing while it is unverified.
    let _teller = teller(&scene.rig, "teller", CONTROL_PLANE, 12).instead("--ca", &scene.trusted).ready(&[12]).await?;
    let mut agent = member(&scene.rig, "worker", WORKER).instead("--ca", &scene.trusted).endpoint(11).ready(&[11, 12]).await?;
    let streams = scene.streams(&agent, &["api-11", "api-12"]).await?;
    let client = scene.client(&agent, "/")?;
    let load = tokio::spawn(async move {
        let mut failures = Vec::new();
        for number in 0_u32.. {
            if let Err(failure) = client.get(SOON).await {
                failures.push(failure.why);
            }
            sleep(millis(10)).await;
            if number > 5_000 || std::fs::metadata(client_stop()).is_ok() {
                break;
            }
        }
        failures
    });
    let (old, new) = (&scene.second, &scene.rig.ca);
    for step in [vec![old, new], vec![new]] {
        if step.len() == 1 {
            for options in &scene.options {
                let pair = new.server(&format!("{}-new", options.name), &[options.listen.ip()])?;
                std::fs::copy(&pair.key, &options.key)?;
                std::fs::copy(&pair.cert, &options.cert)?;
            }
            sleep(secs(1)).await;
        }
        scene.trust(&step)?;
        reload(&mut agent).await?;
        sleep(secs(3)).await;
    }
    std::fs::write(client_stop(), "")?;
    let failures = load.await;
    std::fs::remove_file(client_stop())?;
    let failures = failures?;
    ensure!(failures.is_empty(), "{} failed: {:?}\n{}", failures.len(), failures.first(), agent.log());
    ensure!(waits(&agent).await? == 0.0, "nothing waited:\n{}", agent.log());
    ensure!(streams.iter().all(goes_on), "every stream goes on:\n{}", agent.log());
    ensure!(withdrawn(&agent).await? == 0.0, "nothing was reset");
    for host in [11, 12] {
        ensure!(agent.verdict(scene.rig.endpoint(host)).await == "ready", "{host}:\n{}", agent.log());
    }
    agent.is_sound().await
}

/// A file that ends the load, so that the test needs no channel into a task that is busy.
fn client_stop() -> PathBuf {
    std::env::temp_dir().join(format!("prismesh-abuse-stop-{}", std::process::id()))
}

/// An agent whose `/etc` is a directory of the test's, where a default CA can appear.
fn with_own_etc<'r>(rig: &Rig, plan: Plan<'r>) -> Result<(Plan<'r>, PathBuf)> {
    let etc = rig.dir().join("etc");
    std::fs::create_dir_all(etc.join("kubernetes/pki"))?;
    let script = format!(
        "exec unshare --user --map-root-user --mount sh -c 'mount --bind {} /etc && exec \"$0\" \"$@\"' \"$0\" \"$@\"",
        etc.display()
    );
    Ok((plan.after(&script).without("--ca"), etc.join("kubernetes/pki/ca.crt")))
}

/// Whether this machine lets a test have mounts of its own.
fn may_mount() -> bool {
    let mut command = std::process::Command::new("unshare");
    let status = command.args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).status();
    status.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_default_ca_that_appears_is_adopted_and_what_was_accepted_is_verified_again() -> Result<()> {
    if !may_mount() {
        return skipped();
    }
    let scene = Scene::new().await?;
    let (plan, ca) = with_own_etc(&scene.rig, scene.plan())?;
    let plan = plan.endpoint(11).endpoint(12);
    let mut agent = plan.clone().ready(&[11, 12]).await?;
    let streams = scene.streams(&agent, &["api-11", "api-12"]).await?;
    std::fs::copy(scene.rig.ca.certificate(), &ca)?;
    agent.becomes(scene.rig.endpoint(12), "down", secs(8)).await?;
    until("its streams are reset", SOON, async || on(&streams, "api-12").into_iter().all(was_reset)).await?;
    ensure!(on(&streams, "api-11").into_iter().all(goes_on), "those of the other go on:\n{}", agent.log());
    ensure!(agent.verdict(scene.rig.endpoint(11)).await == "ready", "{}", agent.log());
    agent.process.kill();
    // It was in force, and cannot be read at the next start: nothing is taken for an apiserver that was not configured.
    std::fs::remove_file(&ca)?;
    std::os::unix::fs::symlink(&ca, &ca)?;
    let agent = plan.start().await?;
    agent.says(&["ERROR", "/etc/kubernetes/pki/ca.crt"], SOON).await?;
    std::fs::remove_file(&ca)?;
    std::fs::copy(scene.rig.ca.certificate(), &ca)?;
    agent.becomes(scene.rig.endpoint(11), "ready", secs(8)).await?;
    agent.becomes(scene.rig.endpoint(12), "down", SOON).await?;
    agent.is_sound().await
}

#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn skipped() -> Result<()> {
    ensure!(std::env::var_os("PRISMESH_DEMAND_NETNS").is_none(), "this machine forbids mounts of one's own");
    eprintln!("SKIPPED: this machine forbids mounts of one's own");
    Ok(())
}

fn allowing(path: &Path, allow: &[String]) -> Result<()> {
    let list: Vec<String> = allow.iter().map(|net| format!("  - {net}\n")).collect();
    Ok(std::fs::write(path, if list.is_empty() { String::new() } else { format!("allow:\n{}", list.concat()) })?)
}

#[tokio::test]
async fn a_narrower_allow_removes_what_is_outside_and_resets_it_by_reload_and_by_restart() -> Result<()> {
    let scene = Scene::new().await?;
    make_keyring(&scene.rig.dir().join("keyring"))?;
    let _teller = teller(&scene.rig, "teller", CONTROL_PLANE, 12).instead("--ca", &scene.trusted).ready(&[12]).await?;
    let file = scene.rig.dir().join("prismesh.yaml");
    allowing(&file, &[])?;
    let plan = member(&scene.rig, "worker", WORKER).instead("--ca", &scene.trusted).flag("--config", &file).endpoint(11);
    let mut agent = plan.clone().ready(&[11, 12]).await?;
    let streams = scene.streams(&agent, &["api-11", "api-12"]).await?;
    let outside = scene.rig.endpoint(12);
    allowing(&file, &[format!("{}/32", scene.rig.subnet.host(77))])?;
    reload(&mut agent).await?;
    until("it is known no more", wide(RESET), async || agent.verdict(outside).await.is_empty()).await?;
    until("its streams are reset", wide(RESET), async || on(&streams, "api-12").into_iter().all(was_reset)).await?;
    // Its series end with it; the log tells why it left.
    agent.says(&["endpoint left", &outside.to_string(), "outside the allowed networks"], SOON).await?;
    ensure!(on(&streams, "api-11").into_iter().all(goes_on), "what is configured goes on:\n{}", agent.log());
    // Allowed again, it is learnt again, and kept on disk.
    allowing(&file, &[scene.rig.subnet.cidr()])?;
    reload(&mut agent).await?;
    agent.becomes(outside, "ready", START).await?;
    let cache = scene.rig.dir().join("worker-state/peers");
    until("it is kept", SOON, async || cache.exists()).await?;
    sleep(secs(6)).await;
    agent.process.kill();
    allowing(&file, &[format!("{}/32", scene.rig.subnet.host(77))])?;
    let agent = plan.ready(&[11]).await?;
    for _ in 0..20 {
        ensure!(agent.verdict(outside).await.is_empty(), "the cache brings nothing from outside:\n{}", agent.log());
        sleep(millis(100)).await;
    }
    agent.is_sound().await
}
