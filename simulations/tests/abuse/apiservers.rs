//! What an apiserver may do, what is held of it then, and that `explain` says why.

use anyhow::{Context, Result, ensure};
use simulations::lab::apiserver::{Manner, Options};
use simulations::lab::ca::Ca;
use tokio::time::sleep;

use crate::rig::{Rig, START, secs};

/// An apiserver's way, the verdict that follows, and words that tell why.
struct Case {
    way: &'static str,
    options: Options,
    verdict: &'static str,
    why: &'static str,
}

fn cases(rig: &Rig, stranger: &Ca) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let mut host = 100;
    let mut add = |way, change: &dyn Fn(&mut Options) -> Result<()>, verdict, why| {
        host += 1;
        let mut options = rig.options(host)?;
        change(&mut options)?;
        cases.push(Case { way, options, verdict, why });
        Ok::<_, anyhow::Error>(())
    };
    let manner = |manner| {
        move |options: &mut Options| {
            options.manner = manner;
            Ok(())
        }
    };
    let says = |code| {
        move |options: &mut Options| {
            options.readyz = code;
            Ok(())
        }
    };
    add("is as it should be", &|_| Ok(()), "ready", "answers that it is ready")?;
    add("closes at accept", &manner(Manner::Close), "down", "closed")?;
    add("answers with an alert", &manner(Manner::Alert), "down", "refused or closed")?;
    add("speaks plain HTTP", &manner(Manner::Plain), "down", "does not speak TLS")?;
    add("sends garbage", &manner(Manner::Garbage), "down", "does not speak TLS")?;
    let of_another_ca = |options: &mut Options| {
        let pair = stranger.server(&options.name, &[options.listen.ip()])?;
        (options.cert, options.key) = (pair.cert, pair.key);
        Ok(())
    };
    add("is of another CA", &of_another_ca, "down", "not of this cluster's CA")?;
    let expired = |options: &mut Options| {
        let pair = rig.ca.expired_server(&options.name, &[options.listen.ip()])?;
        (options.cert, options.key) = (pair.cert, pair.key);
        Ok(())
    };
    add("has an expired certificate", &expired, "draining", "outside its validity")?;
    let slow = |options: &mut Options| {
        options.readyz_delay_ms = 3000;
        Ok(())
    };
    add("takes 3 s for its readyz", &slow, "draining", "its TLS answers, and /readyz does not in time")?;
    add("answers 401", &says(401), "ready", "readiness unknown")?;
    add("answers 403", &says(403), "ready", "readiness unknown")?;
    add("answers 404", &says(404), "down", "answered 404")?;
    add("answers 429", &says(429), "draining", "not ready")?;
    add("answers 500", &says(500), "draining", "not ready")?;
    add("answers 503", &says(503), "draining", "not ready")?;
    Ok(cases)
}

#[tokio::test]
async fn each_way_of_an_apiserver_has_its_verdict_and_explain_tells_why() -> Result<()> {
    let rig = Rig::new().await?;
    let stranger = Ca::create(rig.dir(), "stranger")?;
    let cases = cases(&rig, &stranger)?;
    let mut plan = rig.agent();
    let mut servers = Vec::new();
    for case in &cases {
        servers.push(rig.serve(&case.options).await.context(case.way)?);
        plan = plan.flag("--endpoint", case.options.listen.to_string());
    }
    let agent = plan.start().await?;
    for case in &cases {
        agent.becomes(case.options.listen, case.verdict, START).await.with_context(|| case.way)?;
    }
    // What follows is to stay.
    sleep(secs(3)).await;
    let explained = agent.ask("explain")?;
    for case in &cases {
        let upstream = agent.upstream(case.options.listen).await?.context(case.way)?;
        let reasons = upstream["reasons"].to_string();
        ensure!(upstream["verdict"] == case.verdict, "one that {} is {}: {upstream:#}", case.way, case.verdict);
        ensure!(reasons.contains(case.why), "one that {}: {:?} is in {reasons}", case.way, case.why);
        ensure!(part(&explained, &case.options.listen.to_string()).contains(case.why), "one that {}:\n{explained}", case.way);
    }
    let expired = agent.logged(&["WARN", "outside its validity"]);
    ensure!(expired.len() == 1, "an expired certificate is warned of, once: {expired:?}");
    let served = rig.client(&agent, "/")?.get(secs(5)).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
    ensure!(served.server.is_some(), "and clients are served meanwhile");
    agent.is_sound().await
}

/// What `explain` says of one endpoint.
fn part<'e>(explained: &'e str, endpoint: &str) -> &'e str {
    let begin = explained.find(&format!(" {endpoint} ")).unwrap_or(explained.len());
    let rest = &explained[begin..];
    let end = rest.match_indices('\n').find(|(at, _)| rest[at + 1..].starts_with(|first: char| first.is_ascii_digit()));
    &rest[..end.map_or(rest.len(), |(at, _)| at)]
}

#[tokio::test]
async fn what_is_not_of_the_clusters_ca_never_gets_a_byte_of_a_client() -> Result<()> {
    let rig = Rig::new().await?;
    let stranger = Ca::create(rig.dir(), "stranger")?;
    let mut options = rig.options(11)?;
    let pair = stranger.server("api-11", &[options.listen.ip()])?;
    (options.cert, options.key, options.tell_hellos) = (pair.cert, pair.key, true);
    let server = rig.serve(&options).await?;
    let agent = rig.agent().endpoint(11).start().await?;
    agent.becomes(rig.endpoint(11), "down", START).await?;
    // A name that no probe asks for tells its hello from theirs.
    let client = rig.client(&agent, "/")?.named("a-client-of-ours")?;
    let failure = client.get(secs(3)).await.err().context("nobody may serve it")?;
    ensure!(failure.before_first_byte, "{failure:?}");
    ensure!(server.output().contains("\"hello\""), "probes arrive:\n{}", server.output());
    ensure!(!server.output().contains("a-client-of-ours"), "the client's hello does not:\n{}", server.output());
    agent.is_sound().await
}
