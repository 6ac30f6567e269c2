//! What the modelled network does to packets, to the millisecond.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prismesh::engine::liveness::Unanswered;
use prismesh::world::{Datagram, Stream as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::core::Sim;
use super::seams::{Host, SimListener, SimStream};
use super::state::{MachineId, Rule, Toll};
use super::tcp::Owner;
use super::testing::{agent, host, in_virtual_time, ip, state};

const HERE: MachineId = 0;
const THERE: MachineId = 1;
const PORT: u16 = 9_000;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(ip(THERE), port)
}

/// From now on this happens to packets from one machine to the other.
fn toll(sim: &Sim, from: MachineId, to: MachineId, what: Toll) {
    let rule = Rule { id: 1, from: Arc::new([from].into()), to: Arc::new([to].into()), class: None, what };
    sim.change(|state| state.rules.push(rule));
}

/// All is well again.
fn heal(sim: &Sim) {
    sim.change(|state| state.rules.clear());
}

async fn heal_after(sim: Sim, after: u64) {
    sleep(ms(after)).await;
    heal(&sim);
}

fn listening(sim: &Sim) -> SimListener {
    host(sim, THERE).bind_listener(at(PORT)).expect("free")
}

/// A connection of this owner's, and its other end.
async fn connected(dialler: &Host, owner: Owner, listener: &SimListener) -> (SimStream, SimStream) {
    let (dialled, accepted) = tokio::join!(dialler.dial(at(PORT), owner), listener.next());
    (dialled.expect("connected"), accepted.expect("accepted").0)
}

async fn how_long<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (what.await, begun.elapsed())
}

#[test]
fn a_dial_takes_a_round_trip() {
    in_virtual_time(state(2), async |sim| {
        let _listener = listening(&sim);
        let (dialled, took) = how_long(host(&sim, HERE).dial(at(PORT), Owner::Task)).await;
        dialled.expect("connected");
        assert_eq!(took, ms(2));
    });
}

#[test]
fn a_lost_syn_is_sent_again_after_1_3_and_7_seconds() {
    for (healed, connected) in [(500, 1_002), (1_500, 3_002), (3_500, 7_002), (7_500, 15_002)] {
        in_virtual_time(state(2), async |sim| {
            let _listener = listening(&sim);
            toll(&sim, HERE, THERE, Toll::Block);
            tokio::spawn(heal_after(sim.clone(), healed));
            let (dialled, took) = how_long(host(&sim, HERE).dial(at(PORT), Owner::Task)).await;
            dialled.expect("connected");
            assert_eq!(took, ms(connected), "healed after {healed} ms");
        });
    }
}

#[test]
fn lost_data_is_sent_again_after_200_ms_and_then_after_twice_as_long() {
    // 200, 600, 1,400 and 3,000 ms after it was written first.
    for (healed, arrived) in [(100, 201), (300, 601), (700, 1_401), (1_500, 3_001)] {
        in_virtual_time(state(2), async |sim| {
            let (mut one, mut other) = connected(&host(&sim, HERE), Owner::Task, &listening(&sim)).await;
            toll(&sim, HERE, THERE, Toll::Block);
            tokio::spawn(heal_after(sim.clone(), healed));
            one.write_all(b"first").await.expect("taken");
            one.write_all(b", second").await.expect("taken");
            let mut got = [0; 13];
            let (read, took) = how_long(other.read_exact(&mut got)).await;
            read.expect("read");
            assert_eq!((&got[..], took), (&b"first, second"[..], ms(arrived)), "healed after {healed} ms");
        });
    }
}

#[test]
fn an_upstream_that_acknowledges_nothing_shows_it() {
    in_virtual_time(state(2), async |sim| {
        let (own, run) = agent(&sim, HERE);
        let (mut one, _other) = connected(&own, Owner::Agent(run), &listening(&sim)).await;
        toll(&sim, HERE, THERE, Toll::Block);
        one.write_all(b"anybody there?").await.expect("taken");
        sleep(ms(5_000)).await;
        let state = one.peer().expect("a kernel");
        assert_eq!(state.unanswered, Unanswered::Data);
        assert!((ms(4_900)..=ms(5_000)).contains(&state.since_acknowledged), "{state:?}");
    });
}

#[test]
fn an_idle_upstream_whose_way_is_broken_shows_that_keepalives_are_not_acknowledged() {
    in_virtual_time(state(2), async |sim| {
        let (own, run) = agent(&sim, HERE);
        let (one, _other) = connected(&own, Owner::Agent(run), &listening(&sim)).await;
        sleep(ms(61_000)).await;
        let state = one.peer().expect("a kernel");
        assert!(state.unanswered == Unanswered::Nothing && state.since_acknowledged < ms(2_000), "{state:?}");
        toll(&sim, HERE, THERE, Toll::Block);
        sleep(ms(5_000)).await;
        let state = one.peer().expect("a kernel");
        assert!(state.unanswered == Unanswered::Keepalives && state.since_acknowledged >= ms(5_000), "{state:?}");
    });
}

#[test]
fn a_closed_window_is_asked_about_at_growing_gaps_and_shows_a_peer_that_lives() {
    in_virtual_time(state(2), async |sim| {
        let (own, run) = agent(&sim, HERE);
        let (mut one, mut other) = connected(&own, Owner::Agent(run), &listening(&sim)).await;
        // More than the window holds, so that the rest waits.
        let pouring = tokio::spawn(async move {
            one.write_all(&vec![7; 400_000]).await.expect("taken in the end");
            one
        });
        let peer = |sim: &Sim| sim.core().peer(1, 0).expect("a kernel");
        sleep(ms(600_000)).await;
        let state = peer(&sim);
        assert_eq!(state.unanswered, Unanswered::Nothing, "each question is acknowledged");
        assert!(state.since_acknowledged > ms(15_000) && state.since_acknowledged <= ms(120_000), "{state:?}");
        toll(&sim, HERE, THERE, Toll::Block);
        sleep(ms(240_000)).await;
        assert_eq!(peer(&sim).unanswered, Unanswered::WindowProbes(2));
        heal(&sim);
        other.read_exact(&mut vec![0; 400_000]).await.expect("all of it");
        let one = pouring.await.expect("no panic");
        assert_eq!(one.peer().expect("a kernel").unanswered, Unanswered::Nothing);
    });
}

#[test]
fn a_hole_swallows_long_segments_and_what_waits_behind_them_until_it_is_closed() {
    in_virtual_time(state(2), async |sim| {
        let (own, run) = agent(&sim, HERE);
        let (mut one, mut other) = connected(&own, Owner::Agent(run), &listening(&sim)).await;
        toll(&sim, HERE, THERE, Toll::Segment(1_400));
        let mut read = vec![0; 4_000];
        one.write_all(&[1; 1_400]).await.expect("taken");
        assert_eq!(other.read(&mut read).await.expect("what is short enough"), 1_400);
        one.write_all(&[2; 1_700]).await.expect("taken");
        one.write_all(b"and this").await.expect("taken");
        timeout(ms(20_000), other.read(&mut read)).await.expect_err("nothing comes");
        assert_eq!(one.peer().expect("a kernel").unanswered, Unanswered::Data);
        other.write_all(&[3; 1_700]).await.expect("taken");
        assert_eq!(one.read(&mut read).await.expect("the other way is whole"), 1_700);
        heal(&sim);
        other.read_exact(&mut read[..1_708]).await.expect("all of it");
    });
}

#[test]
fn a_process_that_dies_resets_its_connections_and_refuses_new_ones() {
    in_virtual_time(state(2), async |sim| {
        let (own, run) = agent(&sim, THERE);
        let listener = own.bind_listener(at(PORT)).expect("free");
        let (mut one, _other) = connected(&host(&sim, HERE), Owner::Task, &listener).await;
        sim.core().end_run(run);
        sim.rouse();
        let (read, took) = how_long(one.read(&mut [0; 8])).await;
        assert_eq!((read.expect_err("reset").kind(), took), (io::ErrorKind::ConnectionReset, ms(1)));
        let (dialled, took) = how_long(host(&sim, HERE).dial(at(PORT), Owner::Task)).await;
        assert_eq!((dialled.map(drop).expect_err("refused").kind(), took), (io::ErrorKind::ConnectionRefused, ms(2)));
    });
}

#[test]
fn a_machine_without_power_is_silent() {
    in_virtual_time(state(2), async |sim| {
        let listener = listening(&sim);
        let (mut one, _other) = connected(&host(&sim, HERE), Owner::Task, &listener).await;
        sim.change(|state| state.machines[THERE].up = false);
        one.write_all(b"anybody there?").await.expect("taken");
        timeout(ms(60_000), one.read(&mut [0; 8])).await.expect_err("nothing comes");
        timeout(ms(20_000), host(&sim, HERE).dial(at(PORT), Owner::Task)).await.map(drop).expect_err("nobody answers");
    });
}

#[test]
fn a_way_that_is_blocked_one_way_lets_nothing_through_that_way_only() {
    in_virtual_time(state(2), async |sim| {
        let (mut one, mut other) = connected(&host(&sim, HERE), Owner::Task, &listening(&sim)).await;
        toll(&sim, HERE, THERE, Toll::Block);
        other.write_all(b"this arrives").await.expect("taken");
        let (read, took) = how_long(one.read(&mut [0; 64])).await;
        assert_eq!((read.expect("read"), took), (12, ms(1)));
        one.write_all(b"this does not").await.expect("taken");
        timeout(ms(10_000), other.read(&mut [0; 64])).await.expect_err("nothing comes");
    });
}

/// How many of a thousand datagrams of so many bytes arrive, and how long the slowest took.
async fn a_thousand(sim: &Sim, bytes: usize) -> (usize, Duration) {
    let (there, _) = agent(sim, THERE);
    let (here, _) = agent(sim, HERE);
    let to = at(PORT);
    let ears = Datagram::bind(&there, to).await.expect("free");
    let mouth = Datagram::bind(&here, SocketAddr::new(ip(HERE), PORT)).await.expect("free");
    let (mut got, mut slowest) = (0, Duration::ZERO);
    let mut buffer = vec![0; 4_096];
    for _ in 0..1_000 {
        let begun = Instant::now();
        mouth.send(to, &vec![7; bytes]).await.expect("sent");
        while timeout(ms(50), ears.receive(&mut buffer)).await.is_ok() {
            got += 1;
            slowest = slowest.max(begun.elapsed());
        }
    }
    (got, slowest)
}

#[test]
fn of_datagrams_a_share_is_lost_or_doubled_or_late_as_was_asked_for() {
    let of = |what: Toll, bytes: usize| {
        let mut found = (0, Duration::ZERO);
        in_virtual_time(state(2), async |sim| {
            toll(&sim, HERE, THERE, what);
            found = a_thousand(&sim, bytes).await;
        });
        found
    };
    assert_eq!(of(Toll::Loss(0.0), 100), (1_000, ms(1)));
    assert!((640..760).contains(&of(Toll::Loss(0.3), 100).0));
    assert!((1_240..1_360).contains(&of(Toll::Twice(0.3), 100).0));
    assert_eq!(of(Toll::Longer(9), 100), (1_000, ms(10)));
    assert_eq!(of(Toll::Mtu(1_200), 1_200).0, 1_000);
    assert_eq!(of(Toll::Mtu(1_200), 1_201).0, 0);
}

#[test]
fn a_stalled_agent_hears_and_says_nothing_until_it_goes_on() {
    in_virtual_time(state(2), async |sim| {
        let (own, _) = agent(&sim, HERE);
        let _listener = listening(&sim);
        sim.change(|state| state.machines[HERE].agent = super::state::AgentLife::Stalled);
        let dialling = tokio::spawn(async move { how_long(own.dial(at(PORT), Owner::Task)).await.1 });
        sleep(ms(10_000)).await;
        assert!(!dialling.is_finished());
        sim.change(|state| state.machines[HERE].agent = super::state::AgentLife::Running);
        sim.rouse();
        assert_eq!(dialling.await.expect("no panic"), ms(10_002));
    });
}
