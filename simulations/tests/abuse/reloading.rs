//! Files that change under a running agent.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use simulations::lab::ca::Ca;
use simulations::lab::children::Process;
use simulations::lab::watcher::Watcher;
use tokio::time::sleep;

use crate::gossip::make_keyring;
use crate::rig::{Agent, Rig, SOON, START, millis, secs, until};

const RELOADED: &str = "configuration reloaded";
const FAILED: &str = "reload failed";

/// An agent whose endpoint, CA and keyring are in files, and a stream through it.
struct Scene {
    rig: Rig,
    agent: Agent,
    watcher: Watcher,
    _apiservers: Vec<Process>,
}

impl Scene {
    async fn new() -> Result<Scene> {
        let rig = Rig::new().await?;
        let apiservers = vec![rig.apiserver(11).await?, rig.apiserver(12).await?];
        make_keyring(&rig.dir().join("keyring"))?;
        std::fs::copy(rig.ca.certificate(), rig.dir().join("trusted.crt"))?;
        std::fs::write(file(&rig), text(&rig, &[11], ""))?;
        let plan = rig.agent().without("--ca").flag("--config", file(&rig));
        let gossip = rig.subnet.at(31, 7447).to_string();
        let plan = plan.instead("--gossip-listen", gossip).flag("--keyring", rig.dir().join("keyring"));
        let agent = plan.ready(&[11]).await?;
        let watcher = Watcher::start(rig.client(&agent, "/watch")?);
        until("the stream begins", SOON, async || watcher.current().is_some()).await?;
        Ok(Scene { rig, agent, watcher, _apiservers: apiservers })
    }

    /// Tells it to load again, and waits for what it says.
    async fn reload(&mut self, says: &str) -> Result<()> {
        let before = self.agent.logged(&[says]).len();
        self.agent.process.signal(Signal::HUP)?;
        until(says, SOON, async || self.agent.logged(&[says]).len() > before).await.with_context(|| self.agent.log())?;
        Ok(())
    }

    /// Waits, after something was mended, until it has loaded again by itself.
    async fn is_loaded_after(&self, mend: impl FnOnce() -> std::io::Result<()>) -> Result<()> {
        let before = self.agent.logged(&[RELOADED]).len();
        mend()?;
        let loaded = async || self.agent.logged(&[RELOADED]).len() > before;
        until("it has loaded again", START, loaded).await.with_context(|| self.agent.log())?;
        Ok(())
    }

    async fn write(&mut self, text: &str, says: &str) -> Result<()> {
        std::fs::write(file(&self.rig), text)?;
        self.reload(says).await
    }

    /// Who serves a new request.
    async fn server(&self) -> Result<String> {
        let answer = self.rig.client(&self.agent, "/")?.get(SOON).await;
        let answer = answer.map_err(|failure| anyhow::anyhow!(failure.why)).with_context(|| self.agent.log())?;
        answer.server.context("a server that names itself")
    }

    /// Claims that the stream is the first one still.
    async fn nothing_was_dropped(&self) -> Result<()> {
        sleep(millis(500)).await;
        let streams = self.watcher.streams();
        ensure!(streams.len() == 1 && self.watcher.current().is_some(), "the stream goes on: {streams:?}\n{}", self.agent.log());
        self.agent.is_sound().await
    }
}

fn file(rig: &Rig) -> PathBuf {
    rig.dir().join("prismesh.yaml")
}

fn text(rig: &Rig, hosts: &[u8], more: &str) -> String {
    let endpoints: Vec<String> = hosts.iter().map(|host| format!("  - {}\n", rig.endpoint(*host))).collect();
    format!("ca: {}\nendpoint:\n{}{more}", rig.dir().join("trusted.crt").display(), endpoints.concat())
}

#[tokio::test]
async fn another_list_of_endpoints_applies_and_no_connection_is_dropped() -> Result<()> {
    let mut scene = Scene::new().await?;
    ensure!(scene.server().await? == "api-11");
    let text = text(&scene.rig, &[12], "");
    scene.write(&text, RELOADED).await?;
    scene.agent.becomes(scene.rig.endpoint(12), "ready", SOON).await?;
    let old = scene.agent.upstream(scene.rig.endpoint(11)).await?.context("it is watched while the stream goes on")?;
    ensure!(old["carries"] == false, "the old one gets no new connections: {old}");
    ensure!(scene.server().await? == "api-12", "new ones go to the new one");
    scene.nothing_was_dropped().await
}

#[tokio::test]
async fn another_ca_applies_and_no_connection_is_dropped() -> Result<()> {
    let mut scene = Scene::new().await?;
    let second = Ca::create(scene.rig.dir(), "second")?;
    let mut options = scene.rig.options(13)?;
    let pair = second.server("api-13", &[options.listen.ip()])?;
    (options.cert, options.key) = (pair.cert, pair.key);
    let _apiserver = scene.rig.serve(&options).await?;
    let text = text(&scene.rig, &[11, 13], "");
    scene.write(&text, RELOADED).await?;
    scene.agent.becomes(options.listen, "down", START).await?;
    // As a CA is rotated: both are trusted for a while.
    let both = std::fs::read_to_string(scene.rig.ca.certificate())? + &std::fs::read_to_string(second.certificate())?;
    std::fs::write(scene.rig.dir().join("trusted.crt"), both)?;
    scene.reload(RELOADED).await?;
    scene.agent.becomes(options.listen, "ready", START).await?;
    scene.nothing_was_dropped().await
}

#[tokio::test]
async fn another_keyring_applies_and_no_connection_is_dropped() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (keyring, other) = (scene.rig.dir().join("keyring"), scene.rig.dir().join("other"));
    make_keyring(&other)?;
    // Another member, which has the other key alone, and an endpoint to tell of.
    let endpoint = scene.rig.endpoint(12);
    let mut plan = scene.rig.agent().instead("--node", "told").instead("--keyring", &other);
    plan = plan.instead("--gossip-listen", scene.rig.subnet.at(32, 7447).to_string());
    plan = plan.instead("--state-dir", scene.rig.dir().join("told-state"));
    plan = plan.flag("--apiserver", endpoint.to_string()).flag("--seed", scene.rig.subnet.at(31, 7447).to_string());
    (plan.name, plan.proxy, plan.admin) = ("told".to_owned(), scene.rig.subnet.at(32, 7445), scene.rig.subnet.at(32, 7446));
    let _member = plan.ready(&[12]).await?;
    sleep(secs(2)).await;
    ensure!(scene.agent.verdict(endpoint).await.is_empty(), "without the key it learns nothing");
    let both = std::fs::read_to_string(&keyring)? + &std::fs::read_to_string(&other)?;
    std::fs::write(&keyring, both)?;
    scene.reload(RELOADED).await?;
    // The other one does not have the first key and need not: what is sealed with its own opens.
    std::fs::copy(&other, &keyring)?;
    scene.reload(RELOADED).await?;
    scene.agent.becomes(endpoint, "ready", START).await?;
    scene.nothing_was_dropped().await
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_and_counted() -> Result<()> {
    let mut scene = Scene::new().await?;
    let good = text(&scene.rig, &[11], "");
    let bad = [
        ("endpoint: [".to_owned(), "prismesh.yaml"),
        (text(&scene.rig, &[12], "no-such-setting: 1\n"), "no-such-setting"),
        (text(&scene.rig, &[12], "max-connections: many\n"), "max-connections"),
        (text(&scene.rig, &[12], "external: [\"balancer:0\"]\n"), "port 0 cannot be dialled"),
    ];
    let mut failures = 0.0;
    for (bad, why) in &bad {
        scene.write(bad, FAILED).await?;
        failures += 1.0;
        ensure!(!scene.agent.logged(&["ERROR", FAILED, why]).is_empty(), "with its reason, {why}: {}", scene.agent.log());
        ensure!(scene.agent.metric("prismesh_reload_failures_total").await? == failures, "counted: {bad}");
        ensure!(scene.agent.verdict(scene.rig.endpoint(11)).await == "ready", "what there was stays: {bad}");
        ensure!(scene.agent.verdict(scene.rig.endpoint(12)).await.is_empty(), "nothing of it is taken: {bad}");
    }
    scene.write(&good, RELOADED).await?;
    // The files that it names may be bad as well.
    for (name, text) in [("trusted.crt", "no certificate\n"), ("keyring", "no key\n"), ("keyring", "")] {
        let path = scene.rig.dir().join(name);
        let kept = std::fs::read(&path)?;
        std::fs::write(&path, text)?;
        scene.reload(FAILED).await?;
        failures += 1.0;
        ensure!(scene.agent.metric("prismesh_reload_failures_total").await? == failures, "counted: {name}");
        std::fs::write(&path, kept)?;
    }
    scene.reload(RELOADED).await?;
    let errors = scene.agent.logged(&["ERROR", FAILED]).len();
    ensure!(errors == bad.len() + 3, "{errors} errors:\n{}", scene.agent.log());
    ensure!(scene.server().await? == "api-11");
    scene.nothing_was_dropped().await
}

#[tokio::test]
async fn a_reload_that_failed_is_tried_again_until_it_is_good() -> Result<()> {
    let mut scene = Scene::new().await?;
    let dir = scene.rig.dir().to_owned();
    // Nothing that is watched changes its content when this is mended.
    let (keyring, other) = (dir.join("keyring"), dir.join("other"));
    make_keyring(&other)?;
    std::fs::write(&keyring, std::fs::read_to_string(&keyring)? + &std::fs::read_to_string(&other)?)?;
    std::fs::set_permissions(&keyring, std::fs::Permissions::from_mode(0o644))?;
    scene.reload(FAILED).await?;
    scene.is_loaded_after(|| std::fs::set_permissions(&keyring, std::fs::Permissions::from_mode(0o600))).await?;
    // Nor is a file watched that only the new configuration names.
    let token = dir.join("late-token");
    let text = text(&scene.rig, &[11], &format!("probe-token-file: {}\n", token.display()));
    scene.write(&text, FAILED).await?;
    scene.is_loaded_after(|| std::fs::write(&token, "a.token\n")).await?;
    ensure!(scene.agent.logged(&["ERROR", FAILED]).len() == 2, "each is told once:\n{}", scene.agent.log());
    scene.nothing_was_dropped().await
}

#[tokio::test]
async fn a_ca_is_followed_though_something_else_is_wrong() -> Result<()> {
    let mut scene = Scene::new().await?;
    let dir = scene.rig.dir().to_owned();
    std::fs::set_permissions(dir.join("keyring"), std::fs::Permissions::from_mode(0o644))?;
    scene.reload(FAILED).await?;
    // The one before stays in the file: what was verified stays so.
    let before = std::fs::read_to_string(dir.join("trusted.crt"))?;
    let next = Ca::create(&dir, "next")?;
    std::fs::write(dir.join("trusted.crt"), before + &std::fs::read_to_string(next.certificate())?)?;
    until("it is read", START, async || !scene.agent.logged(&["CA was loaded again"]).is_empty()).await?;
    ensure!(scene.agent.logged(&[RELOADED]).is_empty(), "the rest is not");
    scene.agent.becomes(scene.rig.endpoint(11), "ready", SOON).await?;
    scene.nothing_was_dropped().await
}

#[tokio::test]
async fn a_setting_that_needs_a_restart_is_named_and_keeps_what_it_had() -> Result<()> {
    let mut scene = Scene::new().await?;
    let text = text(&scene.rig, &[11], "max-connections: 7\napiserver: [\"10.0.0.1:6443\"]\n");
    scene.write(&text, RELOADED).await?;
    for setting in ["max-connections", "apiserver", "local-apiserver"] {
        let named = scene.agent.logged(&["WARN", "restart", &format!("\"{setting}\"")]);
        ensure!(named.len() == 1, "{setting} is named:\n{}", scene.agent.log());
    }
    ensure!(scene.agent.status().await?["role"] == "worker");
    scene.nothing_was_dropped().await
}
