//! Apiservers that are far away, or come to be: nothing is judged by a limit that is shorter than what the path needs.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::quiet::{all_go_on, no_resets, several};
use crate::rig::{START, millis, secs, until};
use crate::wired::{Requests, on_a_wire, told};

const ONE: u8 = 11;
const TWO: u8 = 12;

/// A worker that has just started, so far from every apiserver: nobody fails, and each new connection is dialled once.
fn fresh_worker(test: &str, round_trip: Duration) -> Result<()> {
    on_a_wire(&format!("distance::{test}"), &[ONE, TWO], async |wired| {
        for host in [ONE, TWO] {
            wired.wire.round_trip(host, round_trip);
        }
        let agent = wired.agent()?.start().await?;
        let target = wired.rig.client(&agent, "/")?;
        let before = Requests::make(&target, millis(250), secs(5)).await?;
        let ready = async |host| agent.becomes(wired.endpoint(host)?, "ready", START).await;
        let became = (ready(ONE).await?, ready(TWO).await?);
        let dials = agent.metric("prismesh_dials_total").await?;
        let (all, asked) = (wired.dials(), agent.metric("prismesh_probes_total").await?);
        let after = Requests::make(&target, millis(100), secs(5)).await?;
        let (dials, all) = (agent.metric("prismesh_dials_total").await? - dials, wired.dials() - all);
        let asked = agent.metric("prismesh_probes_total").await? - asked;
        told(&format!("{round_trip:?}: at start {}; ready {became:?} later; then {}", before.told(), after.told()));
        told(&format!("  {dials} dials for {} clients, {all} on the wire with those of {asked} probes", after.all()));
        before.none_failed(&agent)?;
        after.none_failed(&agent)?;
        ensure!(dials == after.all() as f64, "{dials} dials for {} connections", after.all());
        ensure!(agent.logged(&["verdict changed", "to=\"down\""]).is_empty(), "{}", agent.log());
        agent.is_sound().await
    })
}

#[test]
fn a_fresh_worker_260_ms_from_every_apiserver_fails_nobody_and_dials_once() -> Result<()> {
    fresh_worker("a_fresh_worker_260_ms_from_every_apiserver_fails_nobody_and_dials_once", millis(260))
}

#[test]
fn a_fresh_worker_400_ms_from_every_apiserver_fails_nobody_and_dials_once() -> Result<()> {
    fresh_worker("a_fresh_worker_400_ms_from_every_apiserver_fails_nobody_and_dials_once", millis(400))
}

#[test]
fn a_fresh_worker_600_ms_from_every_apiserver_fails_nobody_and_dials_once() -> Result<()> {
    fresh_worker("a_fresh_worker_600_ms_from_every_apiserver_fails_nobody_and_dials_once", millis(600))
}

#[test]
fn a_fresh_worker_1000_ms_from_every_apiserver_fails_nobody_and_dials_once() -> Result<()> {
    fresh_worker("a_fresh_worker_1000_ms_from_every_apiserver_fails_nobody_and_dials_once", millis(1_000))
}

/// Paths of 100 ms become 400 ms long, without loss: established connections go on, and nobody fails.
fn grows(test: &str, growing: &[u8]) -> Result<()> {
    on_a_wire(&format!("distance::{test}"), &[ONE, TWO], async |wired| {
        // The second one is farther, so that all clients are at the first.
        wired.wire.round_trip(ONE, millis(100));
        wired.wire.round_trip(TWO, millis(130));
        let agent = wired.ready().await?;
        let (one, target) = (wired.endpoint(ONE)?, wired.rig.client(&agent, "/")?);
        let best = async |host| Requests::make(&target, millis(100), millis(500)).await.is_ok_and(|it| it.share(host) == 1.0);
        until("the nearer one is preferred", START, async || best(ONE).await).await?;
        let mut clients = several(&wired.rig, &agent).await?;
        for host in growing {
            wired.wire.round_trip(*host, millis(400));
        }
        let requests = Requests::make(&target, millis(50), secs(8)).await?;
        told(&format!("{growing:?} grow: {}", requests.told()));
        requests.none_failed(&agent)?;
        sleep(secs(1)).await;
        all_go_on(&mut clients).await?;
        ensure!(agent.logged(&["verdict changed", "to=\"down\""]).is_empty(), "{}", agent.log());
        if growing == [ONE] {
            let later = Requests::make(&target, millis(100), secs(2)).await?;
            told(&format!("  then {}; {one} is {}", later.told(), agent.verdict(one).await));
            later.none_failed(&agent)?;
            ensure!(later.share(TWO) == 1.0, "the other one is preferred: {}\n{}", later.told(), agent.ask("explain")?);
        }
        no_resets(&agent).await
    })
}

#[test]
fn a_path_that_grows_from_100_to_400_ms_resets_nothing_and_the_other_is_preferred() -> Result<()> {
    grows("a_path_that_grows_from_100_to_400_ms_resets_nothing_and_the_other_is_preferred", &[ONE])
}

#[test]
fn all_paths_that_grow_from_100_to_400_ms_reset_nothing_and_fail_nobody() -> Result<()> {
    grows("all_paths_that_grow_from_100_to_400_ms_reset_nothing_and_fail_nobody", &[ONE, TWO])
}
