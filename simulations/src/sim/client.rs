//! Modelled clients of a node's localhost port: those that open a connection for each request, and those that keep one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::log::{ClientEnd, ClientKind};
use super::prober::next_record;
use super::seams::{Host, SimStream};
use super::state::Ms;
use super::tcp::Owner;
use super::wire::{self, Frame, Verb};

/// Where clients connect: prismesh's default.
pub(super) const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7445);
/// client-go gives up dialling after this.
const DIAL: Duration = Duration::from_secs(30);
/// And a TLS handshake after this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// And, as most callers configure it, a request after this.
const REQUEST: Duration = Duration::from_secs(30);

/// A client's connection whose handshake is done.
pub(super) struct Session {
    pub(super) stream: SimStream,
    pub(super) read: Vec<u8>,
    /// Its number in the log.
    pub(super) number: usize,
}

/// Opens a connection as a client does. What became of it is in the log; [`None`] where nothing did.
pub(super) async fn open(host: &Host, to: SocketAddr, kind: ClientKind) -> Option<Session> {
    let number = {
        let mut core = host.sim.core();
        let now = core.now;
        core.log.client(now, host.machine, kind)
    };
    match handshake(host, to, number).await {
        Ok(session) => Some(session),
        Err(end) => {
            ended(host, number, end);
            None
        }
    }
}

async fn handshake(host: &Host, to: SocketAddr, number: usize) -> Result<Session, ClientEnd> {
    let dialled = timeout(DIAL, host.dial(to, Owner::Task)).await.map_err(|_| ClientEnd::GaveUp)?;
    let mut stream = dialled.map_err(|error| of_error(&error))?;
    host.sim.core().log.client_dialled(number, stream.conn);
    stream.write_all(&wire::client_hello(number as u64)).await.map_err(|error| of_error(&error))?;
    {
        let mut core = host.sim.core();
        let now = core.now;
        core.log.clients[number].hello = Some(now);
    }
    let mut read = Vec::new();
    let answer = timeout(HANDSHAKE, next_record(&mut stream, &mut read)).await.map_err(|_| ClientEnd::GaveUp)?;
    let (_, content) = answer.map_err(|error| of_error(&error))?;
    let mut core = host.sim.core();
    let now = core.now;
    let shown = wire::shown(&content);
    let upstream = shown.as_ref().map(|shown| core.log.front(shown.conn));
    let client = &mut core.log.clients[number];
    client.first_byte = Some(now);
    client.upstream = upstream;
    drop(core);
    if shown.is_some_and(|shown| shown.ca == wire::NOBODYS) {
        return Err(ClientEnd::Distrusts);
    }
    Ok(Session { stream, read, number })
}

pub(super) fn of_error(error: &io::Error) -> ClientEnd {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ClientEnd::Refused,
        io::ErrorKind::UnexpectedEof => ClientEnd::Closed,
        _ => ClientEnd::Reset,
    }
}

/// Notes how a client's connection ended.
pub(super) fn ended(host: &Host, number: usize, end: ClientEnd) {
    let mut core = host.sim.core();
    let now = core.now;
    // A machine without power has no clients whose opinion counts.
    let end = if core.state.machines[host.machine].up { end } else { ClientEnd::Over };
    let client = &mut core.log.clients[number];
    if client.ended.is_none() {
        client.ended = Some((now, end));
    }
    let core = &mut *core;
    core.trace.client(now, number, &core.log.clients[number]);
}

impl Session {
    /// Asks something, and waits for its answer.
    pub(super) async fn ask(&mut self, verb: Verb, stream: u32) -> io::Result<()> {
        self.stream.write_all(&Frame::ask(verb, stream).encode()).await?;
        loop {
            let (_, content) = next_record(&mut self.stream, &mut self.read).await?;
            match Frame::decode(&content) {
                Some(frame) if (frame.verb, frame.stream) == (verb, stream) => return Ok(()),
                Some(frame) if frame.verb == Verb::GoAway => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }
}

/// Opens a new connection for each request, one request each `every` ms or so, for ever.
pub(super) async fn fresh(host: Host, to: SocketAddr, kind: ClientKind, every: Ms, mut rng: StdRng) {
    loop {
        sleep(Duration::from_millis(rng.random_range(every / 2..=every + every / 2))).await;
        if host.sim.core().state.machines[host.machine].up {
            tokio::spawn(one_request(host.clone(), to, kind));
        }
    }
}

async fn one_request(host: Host, to: SocketAddr, kind: ClientKind) {
    let Some(mut session) = open(&host, to, kind).await else { return };
    let end = match timeout(REQUEST, session.ask(Verb::Get, 1)).await {
        Ok(Ok(())) => ClientEnd::Done,
        Ok(Err(error)) => of_error(&error),
        Err(_) => ClientEnd::GaveUp,
    };
    ended(&host, session.number, end);
}

/// Keeps one connection open, and opens another when it ends. Of many such a tenth is renewed a minute.
pub(super) async fn steady(host: Host, to: SocketAddr, mut rng: StdRng) {
    loop {
        sleep(Duration::from_millis(rng.random_range(0..2_000))).await;
        if !host.sim.core().state.machines[host.machine].up {
            continue;
        }
        let Some(mut session) = open(&host, to, ClientKind::Steady).await else { continue };
        // Lives are as long as radioactive atoms': ten minutes in the mean.
        let life = Duration::from_secs_f64(-600.0 * f64::ln(1.0 - rng.random::<f64>()));
        let end = tokio::select! {
            biased;
            watched = watch(&mut session) => watched.err().map_or(ClientEnd::Closed, |error| of_error(&error)),
            () = sleep(life) => ClientEnd::Done,
        };
        ended(&host, session.number, end);
    }
}

async fn watch(session: &mut Session) -> io::Result<()> {
    session.ask(Verb::Watch, 1).await?;
    loop {
        let (_, content) = next_record(&mut session.stream, &mut session.read).await?;
        if Frame::decode(&content).is_some_and(|frame| frame.verb == Verb::GoAway) {
            return Ok(());
        }
    }
}
