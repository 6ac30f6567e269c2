//! What is trusted: algorithms, bundles, tokens, and a CA that is not there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use simulations::lab::apiserver::Options;
use simulations::lab::ca::{Ca, Pair};
use simulations::lab::children::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::gossip::{CONTROL_PLANE, WORKER, make_keyring, member, teller};
use crate::rig::{Agent, Plan, Rig, SOON, START, client_hello, secs, until};

/// A missing CA is looked for each 5 s.
const ADOPTED: std::time::Duration = secs(8);

/// An apiserver whose certificate is one of `tests/certificates`.
fn of_kind(rig: &Rig, kind: &str, host: u8) -> Result<Options> {
    let pem = std::fs::read_to_string(kind_file(kind))?;
    let blocks: Vec<&str> = pem.split_inclusive("-----END CERTIFICATE-----\n").collect();
    let [_, leaf, key] = blocks[..] else { anyhow::bail!("{kind}: {} blocks", blocks.len()) };
    let (cert, key_file) = (rig.dir().join(format!("{kind}.crt")), rig.dir().join(format!("{kind}.key")));
    std::fs::write(&cert, leaf)?;
    std::fs::write(&key_file, key)?;
    Ok(Options::new(kind, rig.endpoint(host), Pair { cert, key: key_file }))
}

fn kind_file(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/certificates/{kind}.pem"))
}

/// The authorities of these kinds, in one file.
fn bundle(rig: &Rig, kinds: &[&str]) -> Result<PathBuf> {
    let mut all = String::new();
    for kind in kinds {
        let pem = std::fs::read_to_string(kind_file(kind))?;
        all.push_str(pem.split_inclusive("-----END CERTIFICATE-----\n").next().context("a CA")?);
    }
    let path = rig.dir().join("bundle.crt");
    std::fs::write(&path, all)?;
    Ok(path)
}

/// Whether a ClientHello that goes through the agent is answered by TLS.
async fn answers(agent: &Agent, within: std::time::Duration) -> Result<bool> {
    let mut stream = TcpStream::connect(agent.proxy).await?;
    stream.write_all(&client_hello()?).await?;
    let mut first = [0];
    Ok(matches!(timeout(within, stream.read_exact(&mut first)).await, Ok(Ok(_)) if first == [22]))
}

async fn shown(agent: &Agent, rig: &Rig, host: u8) -> Result<Value> {
    agent.upstream(rig.endpoint(host)).await?.with_context(|| format!("it knows {host}"))
}

#[tokio::test]
async fn authorities_and_certificates_that_go_can_verify_are_verified() -> Result<()> {
    let rig = Rig::new().await?;
    let kinds = ["p256-sha512", "p384-sha512", "p521-sha512"];
    let mut plan = rig.agent().instead("--ca", bundle(&rig, &kinds)?);
    let mut servers = Vec::new();
    for (host, kind) in (11..).zip(kinds) {
        servers.push(rig.serve(&of_kind(&rig, kind, host)?).await?);
        plan = plan.endpoint(host);
    }
    plan.ready(&[11, 12, 13]).await?.blames_nobody().await
}

#[tokio::test]
async fn an_algorithm_that_cannot_be_verified_is_named_and_configured_endpoints_carry() -> Result<()> {
    let named =
        [("pss-ca", "RSASSA-PSS"), ("ed448-ca", "Ed448"), ("brainpool-ca", "brainpoolP256r1"), ("rsa1024-ca", "RSA, 1024 bits")];
    for (kind, name) in named {
        let rig = Rig::new().await?;
        let _server = rig.serve(&of_kind(&rig, kind, 11)?).await?;
        let agent = rig.agent().instead("--ca", bundle(&rig, &[kind])?).endpoint(11).start().await?;
        agent.says(&["WARN", &rig.endpoint(11).to_string(), name], SOON).await?;
        sleep(secs(3)).await;
        let upstream = shown(&agent, &rig, 11).await?;
        ensure!(upstream["carries"] == true, "{kind}: a configured one carries: {upstream:#}");
        ensure!(upstream["reasons"].to_string().contains(name), "{kind}: explain names it: {upstream:#}");
        ensure!(agent.logged(&["WARN", name]).len() == 1, "{kind}: once:\n{}", agent.log());
        ensure!(agent.metric("prismesh_probes_total{").await? > 0.0, "{kind}: probes are counted");
        ensure!(answers(&agent, SOON).await?, "{kind}: clients are served");
        agent.is_sound().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_gossiped_endpoint_whose_algorithm_cannot_be_verified_never_carries() -> Result<()> {
    let rig = Rig::new().await?;
    make_keyring(&rig.dir().join("keyring"))?;
    let mut options = of_kind(&rig, "pss-ca", 11)?;
    options.tell_hellos = true;
    let server = rig.serve(&options).await?;
    let ca = bundle(&rig, &["pss-ca"])?;
    let _teller = teller(&rig, "teller", CONTROL_PLANE, 11).instead("--ca", &ca).start().await?;
    let agent = member(&rig, "worker", WORKER).instead("--ca", &ca).start().await?;
    agent.says(&["WARN", &rig.endpoint(11).to_string(), "RSASSA-PSS"], START).await?;
    let client = rig.client(&agent, "/")?.named("a-client-of-ours")?;
    let failure = client.get(secs(3)).await.err().context("nobody may serve it")?;
    ensure!(failure.before_first_byte, "{failure:?}");
    ensure!(!server.output().contains("a-client-of-ours"), "the client's hello does not arrive:\n{}", server.output());
    ensure!(shown(&agent, &rig, 11).await?["carries"] == false, "{:#}", shown(&agent, &rig, 11).await?);
    agent.is_sound().await
}

#[tokio::test]
async fn a_certificate_of_a_bundle_that_cannot_be_parsed_is_named_and_the_others_count() -> Result<()> {
    let rig = Rig::new().await?;
    let _server = rig.apiserver(11).await?;
    let good = std::fs::read_to_string(rig.ca.certificate())?;
    let block = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    // Not DER, not base64, and one that lost its end.
    let bad = [block("AAAA"), block("no base64 at all!"), "-----BEGIN CERTIFICATE-----\nMIIB\n".to_owned()];
    for (place, bad) in bad.iter().enumerate() {
        let path = rig.dir().join(format!("bundle-{place}.crt"));
        std::fs::write(&path, format!("{bad}{good}"))?;
        let agent = rig.agent().instead("--ca", &path).endpoint(11).ready(&[11]).await?;
        agent.says(&["WARN", &path.display().to_string(), "certificate 1"], SOON).await?;
        agent.is_sound().await?;
    }
    Ok(())
}

/// The requests that an apiserver of the lab got: how many, and how many of them with a token.
fn requests(server: &Process) -> (usize, usize) {
    let output = server.output();
    let lines: Vec<&str> = output.lines().filter(|line| line.contains("\"request\"")).collect();
    (lines.len(), lines.iter().filter(|line| line.contains("Bearer")).count())
}

fn with_token<'r>(rig: &Rig, plan: Plan<'r>) -> Result<Plan<'r>> {
    let token = rig.dir().join("token");
    std::fs::write(&token, "a-secret\n")?;
    Ok(plan.flag("--probe-token-file", token))
}

#[tokio::test]
async fn a_probe_token_never_goes_to_a_server_without_a_valid_certificate() -> Result<()> {
    let rig = Rig::new().await?;
    let mut expired = rig.options(11)?;
    let pair = rig.ca.expired_server("api-11", &[expired.listen.ip()])?;
    (expired.cert, expired.key, expired.tell_requests) = (pair.cert, pair.key, true);
    let mut valid = rig.options(12)?;
    valid.tell_requests = true;
    let (expired, valid) = (rig.serve(&expired).await?, rig.serve(&valid).await?);
    let agent = with_token(&rig, rig.agent())?.endpoint(11).endpoint(12).ready(&[12]).await?;
    agent.becomes(rig.endpoint(11), "draining", START).await?;
    until("several probes", SOON, async || requests(&expired).0 > 2 && requests(&valid).1 > 2).await?;
    ensure!(requests(&expired).1 == 0, "the expired one got it:\n{}", expired.output());
    agent.is_sound().await
}

/// A rogue that a member tells of, and the apiserver that is configured.
struct Rogue {
    rig: Rig,
    server: Process,
    rogue: Process,
    _teller: Agent,
}

impl Rogue {
    async fn new() -> Result<Rogue> {
        let rig = Rig::new().await?;
        make_keyring(&rig.dir().join("keyring"))?;
        let mut options = rig.options(11)?;
        options.tell_requests = true;
        let server = rig.serve(&options).await?;
        let stranger = Ca::create(rig.dir(), "stranger")?;
        let mut options = rig.options(12)?;
        let pair = stranger.server("api-12", &[options.listen.ip()])?;
        (options.cert, options.key, options.tell_hellos, options.tell_requests) = (pair.cert, pair.key, true, true);
        let rogue = rig.serve(&options).await?;
        let _teller = teller(&rig, "teller", CONTROL_PLANE, 12).instead("--ca", stranger.certificate()).ready(&[12]).await?;
        Ok(Rogue { rig, server, rogue, _teller })
    }

    fn worker(&self) -> Plan<'_> {
        member(&self.rig, "worker", WORKER).without("--ca").endpoint(11)
    }

    /// The configured one serves every client, the rogue none, and no token leaves.
    async fn is_kept_out_of(&self, agent: &Agent) -> Result<()> {
        until("it hears of the rogue", START, async || agent.upstream(self.rig.endpoint(12)).await.is_ok_and(|it| it.is_some()))
            .await?;
        sleep(secs(2)).await;
        for _ in 0..20 {
            let client = self.rig.client(agent, "/")?.named("kubernetes.default")?;
            let answer = client.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
            ensure!(answer.server.as_deref() == Some("api-11"), "{answer:?}");
        }
        ensure!(!self.rogue.output().contains("kubernetes.default"), "no client's hello reaches it:\n{}", self.rogue.output());
        let upstream = shown(agent, &self.rig, 12).await?;
        ensure!(upstream["carries"] == false, "{upstream:#}");
        ensure!(requests(&self.rogue).1 == 0, "it got a token:\n{}", self.rogue.output());
        Ok(())
    }
}

#[tokio::test]
async fn a_ca_that_is_not_there_yet_is_waited_for_and_only_configured_endpoints_carry() -> Result<()> {
    let scene = Rogue::new().await?;
    let late = scene.rig.dir().join("late.crt");
    let agent = with_token(&scene.rig, scene.worker().flag("--ca", &late))?.start().await?;
    agent.says(&["ERROR", &late.display().to_string()], SOON).await?;
    ensure!(agent.metric("prismesh_ca_missing").await? == 1.0, "the gauge says so");
    ensure!(agent.status().await?["notes"].to_string().contains("late.crt"), "status says so: {:#}", agent.status().await?);
    scene.is_kept_out_of(&agent).await?;
    ensure!(requests(&scene.server).1 == 0, "nor did the configured one get the token:\n{}", scene.server.output());
    std::fs::copy(scene.rig.ca.certificate(), &late)?;
    agent.becomes(scene.rig.endpoint(11), "ready", ADOPTED).await?;
    agent.becomes(scene.rig.endpoint(12), "down", SOON).await?;
    ensure!(agent.metric("prismesh_ca_missing").await? == 0.0, "the gauge says so");
    until("the token is sent", SOON, async || requests(&scene.server).1 > 0).await?;
    scene.is_kept_out_of(&agent).await?;
    agent.is_sound().await
}

#[tokio::test]
async fn a_ca_that_was_in_force_and_is_gone_after_a_restart_opens_no_door() -> Result<()> {
    let scene = Rogue::new().await?;
    let ca = scene.rig.dir().join("trusted.crt");
    std::fs::copy(scene.rig.ca.certificate(), &ca)?;
    let mut agent = scene.worker().flag("--ca", &ca).ready(&[11]).await?;
    agent.process.kill();
    // Gone, a link to itself (which not even root can read), a directory, and not named any more.
    for how in ["gone", "unreadable", "a directory", "not named"] {
        match how {
            "gone" => std::fs::remove_file(&ca)?,
            "unreadable" => std::os::unix::fs::symlink(&ca, &ca)?,
            "a directory" => std::fs::remove_file(&ca).and_then(|()| std::fs::create_dir(&ca))?,
            _ => {}
        }
        let plan = if how == "not named" { scene.worker() } else { scene.worker().flag("--ca", &ca) };
        let mut agent = plan.start().await.context(how)?;
        agent.says(&["ERROR", "CA"], SOON).await.context(how)?;
        scene.is_kept_out_of(&agent).await.context(how)?;
        agent.is_sound().await?;
        agent.process.kill();
    }
    Ok(())
}

#[tokio::test]
async fn a_ca_that_can_be_read_and_is_wrong_ends_the_start() -> Result<()> {
    let rig = Rig::new().await?;
    let wrong = rig.dir().join("wrong.crt");
    std::fs::write(&wrong, "no certificate at all\n")?;
    let mut agent = rig.agent().instead("--ca", &wrong).endpoint(11).launch()?;
    until("it ends", START, async || agent.process.output().contains("wrong.crt")).await?;
    let deadline = tokio::time::Instant::now() + SOON;
    let status = loop {
        if let Some(status) = agent.process.ended() {
            break status;
        }
        ensure!(tokio::time::Instant::now() < deadline, "it goes on:\n{}", agent.process.output());
        sleep(crate::rig::millis(20)).await;
    };
    ensure!(status.code() == Some(2), "{status}");
    Ok(())
}
