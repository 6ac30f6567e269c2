//! The wire does what it is asked for, and nothing else.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use simulations::lab::netns::Place;
use simulations::lab::wire::{HERE, Link, Wire, addr, enter};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const NEAR: u8 = 11;
const FAR: u8 = 12;
const ECHO: u16 = 7;

#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn inside(test: &str) -> Result<bool> {
    match enter(&format!("wire::{test}"))? {
        Place::Inside => Ok(true),
        Place::Passed => Ok(false),
        Place::Forbidden(why) => {
            eprintln!("SKIPPED {test}: {why}");
            Ok(false)
        }
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A wire whose hosts return each datagram.
fn echoing() -> Result<Wire> {
    let wire = Wire::lay(&[NEAR, FAR])?;
    for host in [NEAR, FAR] {
        let node = wire.node(host)?;
        let socket = node.within(|| UdpSocket::bind(node.at(ECHO)))??;
        std::thread::spawn(move || -> Result<()> {
            let mut buffer = [0; 2000];
            loop {
                let (length, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(&buffer[..length], from)?;
            }
        });
    }
    Ok(wire)
}

struct Pinger {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Pinger {
    fn new(host: u8) -> Result<Pinger> {
        let socket = UdpSocket::bind((addr(HERE), 0))?;
        socket.set_read_timeout(Some(millis(1_000)))?;
        Ok(Pinger { socket, to: (addr(host), ECHO).into() })
    }

    fn once(&self, bytes: usize) -> Option<Duration> {
        let begin = Instant::now();
        self.socket.send_to(&vec![1; bytes], self.to).ok()?;
        self.socket.recv_from(&mut [0; 2000]).ok().map(|_| begin.elapsed())
    }

    /// The lowest of several round trips: a machine with much else to do only adds to them.
    fn lowest(&self) -> Result<Duration> {
        let took: Vec<Duration> = (0..9).filter_map(|_| self.once(100)).collect();
        ensure!(took.len() == 9, "{} of 9 came back", took.len());
        took.into_iter().min().context("nine")
    }
}

fn is_about(measured: Duration, asked: Duration) -> Result<()> {
    let most = asked + millis(2);
    ensure!(measured >= asked && measured <= most, "{measured:.1?} where {asked:?} were asked for");
    Ok(())
}

#[test]
fn a_round_trip_takes_as_long_as_asked_each_link_for_itself_and_may_be_changed() -> Result<()> {
    if !inside("a_round_trip_takes_as_long_as_asked_each_link_for_itself_and_may_be_changed")? {
        return Ok(());
    }
    let wire = echoing()?;
    let (near, far) = (Pinger::new(NEAR)?, Pinger::new(FAR)?);
    is_about(near.lowest()?, millis(0))?;
    for round_trip in [1, 30, 200, 20].map(millis) {
        wire.round_trip(FAR, round_trip);
        is_about(far.lowest()?, round_trip)?;
        is_about(near.lowest()?, millis(0))?;
    }
    wire.set(FAR, HERE, Link { delay: millis(50), ..Link::default() });
    is_about(far.lowest()?, millis(60))?;
    wire.set_both(FAR, Link { delay: millis(50), jitter: 0.2, ..Link::default() });
    let took: Vec<Duration> = (0..20).filter_map(|_| far.once(100)).collect();
    let (least, most) = (took.iter().min().copied().unwrap_or_default(), took.iter().max().copied().unwrap_or_default());
    ensure!(least >= millis(80) && least < millis(98) && most - least >= millis(5), "{least:?} to {most:?}");
    Ok(())
}

#[test]
fn it_loses_cuts_and_swallows_as_much_as_asked_in_the_direction_asked_for() -> Result<()> {
    if !inside("it_loses_cuts_and_swallows_as_much_as_asked_in_the_direction_asked_for")? {
        return Ok(());
    }
    let wire = echoing()?;
    let far = Pinger::new(FAR)?;
    wire.set(HERE, FAR, Link { loss: 0.05, ..Link::default() });
    far.socket.set_read_timeout(Some(millis(5)))?;
    for _ in 0..4_000 {
        far.once(100);
    }
    let there = wire.counts(HERE, FAR);
    ensure!(there.lost + there.delivered == 4_000, "{there:?}");
    ensure!((140..=260).contains(&there.lost), "5% of 4,000 are 200: {there:?}");
    ensure!(wire.counts(FAR, HERE).lost == 0, "nothing is lost on the way back");

    wire.set(HERE, FAR, Link { largest: Some(1_400), ..Link::default() });
    far.socket.set_read_timeout(Some(millis(500)))?;
    let headers = 28;
    ensure!(far.once(1_400 - headers).is_some() && far.once(1_401 - headers).is_none() && far.once(100).is_some());
    ensure!(wire.counts(HERE, FAR).too_large == 1);
    wire.set(HERE, FAR, Link::default());
    ensure!(far.once(1_401 - headers).is_some(), "it is mended");

    wire.set(FAR, HERE, Link { cut: true, ..Link::default() });
    ensure!(far.once(100).is_none());
    ensure!((wire.counts(HERE, FAR).cut, wire.counts(FAR, HERE).cut) == (0, 1));
    ensure!(Pinger::new(NEAR)?.once(100).is_some(), "the other one is not touched");
    Ok(())
}

#[test]
fn it_counts_attempts_to_connect_apart_from_repeated_syns() -> Result<()> {
    if !inside("it_counts_attempts_to_connect_apart_from_repeated_syns")? {
        return Ok(());
    }
    let wire = Wire::lay(&[FAR])?;
    wire.round_trip(FAR, millis(20));
    tokio::runtime::Runtime::new()?.block_on(async {
        let node = wire.node(FAR)?;
        let listener = node.within(|| std::net::TcpListener::bind(node.at(6443)))??;
        listener.set_nonblocking(true)?;
        let _listener = TcpListener::from_std(listener)?;
        for _ in 0..3 {
            TcpStream::connect(node.at(6443)).await?;
        }
        wire.set(HERE, FAR, Link { cut: true, ..Link::default() });
        let (later, mended) = tokio::join!(TcpStream::connect(node.at(6443)), async {
            tokio::time::sleep(millis(500)).await;
            wire.set(HERE, FAR, Link::default());
        });
        let ((), _) = (mended, later?);
        let counts = wire.counts(HERE, FAR);
        ensure!((counts.dials, counts.syns) == (4, 5), "{counts:?}");
        Ok(())
    })
}
