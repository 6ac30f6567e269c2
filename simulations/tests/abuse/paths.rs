//! Paths that lose packets, or swallow large ones: the one that works is used, and nobody fails meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use simulations::lab::client::Target;
use simulations::lab::wire::{HERE, Link};

use crate::rig::{Agent, START, client_hello, millis, secs, until};
use crate::wired::{Changes, Requests, Wired, on_a_wire, told};

const NEAR: u8 = 11;
const FAR: u8 = 12;
const FARTHER: u8 = 13;

/// What a packet is at most that gets through the hole.
const HOLE: usize = 1_400;

#[test]
#[ignore = "bounds: a minute"]
fn a_path_mtu_hole_towards_one_apiserver_fails_nobody_and_is_avoided() -> Result<()> {
    mtu_hole("a_path_mtu_hole_towards_one_apiserver_fails_nobody_and_is_avoided", (HERE, NEAR), secs(60))
}

#[test]
fn a_path_mtu_hole_towards_one_apiserver_fails_nobody_at_its_beginning() -> Result<()> {
    mtu_hole("a_path_mtu_hole_towards_one_apiserver_fails_nobody_at_its_beginning", (HERE, NEAR), secs(8))
}

#[test]
fn a_path_mtu_hole_on_the_way_back_fails_nobody_at_its_beginning() -> Result<()> {
    mtu_hole("a_path_mtu_hole_on_the_way_back_fails_nobody_at_its_beginning", (NEAR, HERE), secs(8))
}

/// Packets over 1,400 bytes from or to the nearest apiserver vanish: handshakes do not get through, what is smaller does.
fn mtu_hole(test: &str, (from, to): (u8, u8), lasting: Duration) -> Result<()> {
    on_a_wire(&format!("paths::{test}"), &[NEAR, FAR, FARTHER], async |wired| {
        // That of Go 1.26 has 1,532 bytes.
        let hello = client_hello()?.len();
        ensure!(hello > HOLE, "a hello of {hello} bytes would get through");
        let (agent, target) = near_and_far(&wired).await?;
        let into = format!("prismesh_dials_total{{endpoint=\"{}\",outcome=\"connected\"}}", wired.endpoint(NEAR)?);
        let (before, dials) = (Changes::so_far(&agent), agent.metric(&into).await?);
        wired.wire.set(from, to, Link { delay: millis(1), largest: Some(HOLE), ..Link::default() });
        let requests = Requests::make(&target, millis(100), lasting).await?;
        let dials = agent.metric(&into).await? - dials;
        let changes = Changes::so_far(&agent).since(before);
        told(&format!("hole for {lasting:?}: {}; {dials} dials into it, {changes:?}", requests.told()));
        ensure!(wired.wire.counts(from, to).too_large > 0, "nothing was too large");
        requests.none_failed(&agent)?;
        // Those that came before the first was found silent, which takes 500 ms, and as many again on a slow machine.
        ensure!(dials <= 12.0, "{dials} dials into it\n{}", agent.log());
        ensure!(changes.state <= 4, "{changes:?}\n{}", agent.log());
        agent.is_sound().await
    })
}

/// An agent whose clients are all at the nearest of three apiservers.
async fn near_and_far(wired: &Wired) -> Result<(Agent, Target)> {
    for (host, round_trip) in [(NEAR, 2), (FAR, 20), (FARTHER, 20)] {
        wired.wire.round_trip(host, millis(round_trip));
    }
    let agent = wired.ready().await?;
    let target = wired.rig.client(&agent, "/")?;
    let nearest = async || Requests::make(&target, millis(50), millis(500)).await.is_ok_and(|it| it.share(NEAR) == 1.0);
    until("the nearest is preferred", START, nearest).await?;
    Ok((agent, target))
}

#[test]
#[ignore = "bounds: three minutes"]
fn a_path_that_loses_1_percent_stays_the_best() -> Result<()> {
    lossy("a_path_that_loses_1_percent_stays_the_best", 0.01, secs(180), Changes { state: 4, best: 12 })
}

#[test]
#[ignore = "bounds: three minutes"]
fn a_path_that_loses_5_percent_stays_the_best() -> Result<()> {
    lossy("a_path_that_loses_5_percent_stays_the_best", 0.05, secs(180), Changes { state: 20, best: 30 })
}

#[test]
fn a_path_that_loses_5_percent_stays_the_best_for_12_s() -> Result<()> {
    lossy("a_path_that_loses_5_percent_stays_the_best_for_12_s", 0.05, secs(12), Changes { state: 4, best: 8 })
}

/// The nearest loses this share of packets each way. A lost SYN, or its answer, sends one client farther, and no other.
fn lossy(test: &str, loss: f64, lasting: Duration, most: Changes) -> Result<()> {
    on_a_wire(&format!("paths::{test}"), &[NEAR, FAR, FARTHER], async |wired| {
        let (agent, target) = near_and_far(&wired).await?;
        let before = Changes::so_far(&agent);
        wired.wire.set_both(NEAR, Link { delay: millis(1), loss, ..Link::default() });
        let requests = Requests::make(&target, millis(50), lasting).await?;
        let changes = Changes::so_far(&agent).since(before);
        let (farther, lost) = (1.0 - requests.share(NEAR), 1.0 - (1.0 - loss).powi(2));
        told(&format!("{loss} lost each way: {}; {:.1}% went farther; {changes:?}", requests.told(), farther * 100.0));
        requests.none_failed(&agent)?;
        // Three deviations of chance beyond what the loss itself takes.
        let chance = 3.0 * (lost / requests.all() as f64).sqrt();
        ensure!(farther <= 1.2 * lost + chance, "{farther} went farther, {lost} of the dials were lost\n{}", agent.log());
        ensure!(changes.state <= most.state && changes.best <= most.best, "{changes:?}\n{}", agent.log());
        agent.is_sound().await
    })
}
