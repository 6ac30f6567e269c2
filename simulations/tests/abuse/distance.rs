//! Apiservers that are far away, or come to be: nothing is judged by a limit that is shorter than what the path needs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use simulations::lab::wire::Link;
use tokio::time::sleep;

use crate::quiet::{all_go_on, no_resets, several};
use crate::rig::{START, millis, secs, until, wide};
use crate::wired::{Changes, Requests, on_a_wire, told};

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

/// A path of this length is cut for 3 s, some times, at other moments of the connections' keepalives: none is reset.
fn pauses(test: &str, round_trip: Duration) -> Result<()> {
    on_a_wire(&format!("distance::{test}"), &[ONE, TWO], async |wired| {
        wired.wire.round_trip(ONE, round_trip);
        wired.wire.round_trip(TWO, 2 * round_trip);
        let agent = wired.ready().await?;
        let mut clients = several(&wired.rig, &agent).await?;
        for pause in 0..3 {
            sleep(secs(4) + round_trip + millis(370) * pause).await;
            wired.wire.set_both(ONE, Link { cut: true, ..Link::default() });
            sleep(secs(3)).await;
            wired.wire.round_trip(ONE, round_trip);
        }
        sleep(secs(6)).await;
        all_go_on(&mut clients).await?;
        no_resets(&agent).await
    })
}

#[test]
#[ignore = "bounds: a minute"]
fn pauses_of_3_s_over_500_ms_reset_no_quiet_connection() -> Result<()> {
    pauses("pauses_of_3_s_over_500_ms_reset_no_quiet_connection", millis(500))
}

#[test]
#[ignore = "bounds: a minute"]
fn pauses_of_3_s_over_1000_ms_reset_no_quiet_connection() -> Result<()> {
    pauses("pauses_of_3_s_over_1000_ms_reset_no_quiet_connection", millis(1_000))
}

#[test]
fn the_nearest_that_steps_from_1_to_30_ms_is_left_for_one_at_20_ms() -> Result<()> {
    let test = "distance::the_nearest_that_steps_from_1_to_30_ms_is_left_for_one_at_20_ms";
    on_a_wire(test, &[ONE, TWO], async |wired| {
        wired.wire.round_trip(ONE, millis(1));
        wired.wire.round_trip(TWO, millis(20));
        let agent = wired.ready().await?;
        let target = wired.rig.client(&agent, "/")?;
        let all_at = async |host| Requests::make(&target, millis(50), secs(1)).await.is_ok_and(|it| it.share(host) == 1.0);
        until("the nearer one is preferred", START, async || all_at(ONE).await).await?;
        wired.wire.round_trip(ONE, millis(30));
        let left = until("the one at 20 ms is preferred", wide(secs(5)), async || all_at(TWO).await).await;
        let left = left.with_context(|| agent.ask("explain").unwrap_or_default())?;
        let later = Requests::make(&target, millis(50), secs(5)).await?;
        told(&format!("from 1 to 30 ms beside 20 ms: left after {left:.1?}, then {}", later.told()));
        later.none_failed(&agent)?;
        ensure!(later.share(TWO) == 1.0, "{}\n{}", later.told(), agent.ask("explain")?);
        no_resets(&agent).await
    })
}

/// Two equally far away, each packet up to a fifth later or earlier.
fn jitter(test: &str, round_trip: Duration, lasting: Duration, most: usize) -> Result<()> {
    on_a_wire(&format!("distance::{test}"), &[ONE, TWO], async |wired| {
        for host in [ONE, TWO] {
            wired.wire.set_both(host, Link { delay: round_trip / 2, jitter: 0.2, ..Link::default() });
        }
        let agent = wired.ready().await?;
        let target = wired.rig.client(&agent, "/")?;
        // Until own samples alone decide.
        Requests::make(&target, millis(50), secs(3)).await?.none_failed(&agent)?;
        let before = Changes::so_far(&agent);
        let requests = Requests::make(&target, millis(100), lasting).await?;
        let changes = Changes::so_far(&agent).since(before);
        told(&format!("{round_trip:?} with 20% jitter for {lasting:?}: {changes:?}, {}", requests.told()));
        requests.none_failed(&agent)?;
        ensure!(changes.state == 0 && changes.best <= most, "{changes:?}\n{}", agent.log());
        agent.is_sound().await
    })
}

#[test]
fn jitter_of_20_percent_of_20_ms_leaves_the_best_alone() -> Result<()> {
    jitter("jitter_of_20_percent_of_20_ms_leaves_the_best_alone", millis(20), secs(10), 2)
}

#[test]
#[ignore = "bounds: two minutes"]
fn jitter_of_20_percent_of_20_ms_leaves_the_best_alone_for_2_minutes() -> Result<()> {
    jitter("jitter_of_20_percent_of_20_ms_leaves_the_best_alone_for_2_minutes", millis(20), secs(120), 2)
}

#[test]
#[ignore = "bounds: two minutes"]
fn jitter_of_20_percent_of_100_ms_leaves_the_best_alone_for_2_minutes() -> Result<()> {
    jitter("jitter_of_20_percent_of_100_ms_leaves_the_best_alone_for_2_minutes", millis(100), secs(120), 4)
}
