//! A world in memory for the proxy's tests: scripted upstreams, clients, and a clock that may stand still.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::{Proxy, Settings};
use crate::engine::event::{Saw, Verdict};
use crate::engine::{Endpoint, Routing, Source, Upstream, policy};
use crate::world::real::carry::carry;
use crate::world::testing::Nothing;
use crate::world::{BoxFuture, Carried, Clock, Listener, Meter, Net, Stream, World};

/// How an upstream behaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Play {
    /// Answers a hello with a handshake record that names its port, then echoes.
    Answers,
    /// The same, but echoes nothing.
    AnswersOnce,
    /// The same, but late.
    AnswersAfter(Duration),
    /// Connects late, then answers.
    ConnectsAfter(Duration),
    /// Echoes from the first byte.
    Echoes,
    /// Accepts and says nothing.
    Silent,
    /// Refuses connections.
    Refuses,
    /// Its address drops everything.
    Drops,
    /// Accepts and closes, having read what was said.
    Closes,
    /// Accepts, and closes after a while.
    ClosesAfter(Duration),
    /// Accepts and resets.
    Resets,
    /// Says a TLS alert.
    Alerts,
    /// Says something that is not TLS.
    Chats,
    /// This node has no descriptor left.
    LocalError,
    /// One after the other, a dial each, and from the beginning again: a balancer.
    Turns(&'static [Play]),
    /// A bug.
    Panics,
}

/// One dial, and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) port: u16,
    pub(super) after: Duration,
    pub(super) got: Vec<u8>,
    /// How the proxy ended it.
    pub(super) ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Fin,
    Reset,
}

/// The upstreams, by port.
pub(super) struct Town {
    start: Instant,
    plays: Mutex<BTreeMap<u16, Play>>,
    visits: Arc<Mutex<Vec<Visit>>>,
}

/// A proxy in a town.
pub(super) struct Scene {
    pub(super) town: Arc<Town>,
    pub(super) proxy: Proxy,
    pub(super) clock: Clock,
    pub(super) route: watch::Sender<Arc<Routing>>,
    pub(super) door: mpsc::UnboundedSender<io::Result<MemStream>>,
    saw: mpsc::Receiver<(Endpoint, Saw)>,
}

pub(super) const SECOND_DIAL: Duration = Duration::from_millis(50);
pub(super) const FIRST_BYTE: Duration = Duration::from_millis(500);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn endpoint(port: u16) -> Endpoint {
    SocketAddr::from(([10, 0, 0, 1], port)).into()
}

/// Ready upstreams in this order.
pub(super) fn ready(ports: &[u16]) -> Arc<Routing> {
    ranked(&ports.iter().map(|port| (*port, Verdict::Ready)).collect::<Vec<_>>())
}

/// Upstreams in this order.
pub(super) fn ranked(upstreams: &[(u16, Verdict)]) -> Arc<Routing> {
    let upstream = |(group, (port, verdict)): (u32, &(u16, Verdict))| Upstream {
        endpoint: endpoint(*port),
        verdict: *verdict,
        group,
        weight: 1000,
        rtt: None,
        second_dial: SECOND_DIAL,
        dial_stay: policy::DIAL_STAY,
        first_byte: FIRST_BYTE,
        sources: vec![Source::Static],
    };
    Arc::new(Routing { upstreams: (0..).zip(upstreams).map(upstream).collect() })
}

/// The same, of which this one is the external balancer.
pub(super) fn with_balancer(balancer: u16, ports: &[u16]) -> Arc<Routing> {
    let mut routing = Arc::unwrap_or_clone(ready(ports));
    for upstream in routing.upstreams.iter_mut().filter(|upstream| upstream.endpoint == endpoint(balancer)) {
        upstream.sources = vec![Source::External];
    }
    routing.into()
}

impl Scene {
    /// A proxy before these upstreams, which are ready, best first.
    pub(super) fn of(plays: &[(u16, Play)]) -> Scene {
        Scene::with(plays, 100, 1000)
    }

    pub(super) fn with(plays: &[(u16, Play)], max_connections: usize, sightings: usize) -> Scene {
        let town =
            Arc::new(Town { start: Instant::now(), plays: Mutex::new(plays.iter().copied().collect()), visits: Arc::default() });
        let (route, routing) = watch::channel(ready(&plays.iter().map(|(port, _)| *port).collect::<Vec<_>>()));
        let (door, visitors) = mpsc::unbounded_channel();
        let (say, saw) = mpsc::channel(sightings);
        let clock = Clock::start();
        let world = World {
            datagram: Arc::new(Nothing),
            net: town.clone(),
            prober: Arc::new(Nothing),
            resolver: Arc::new(Nothing),
            store: Arc::new(Nothing),
            wall: Arc::new(Nothing),
            clock,
        };
        let listener = Box::new(MemListener(tokio::sync::Mutex::new(visitors)));
        let proxy = Proxy::start(&world, vec![listener], routing, Settings { max_connections }, say);
        Scene { town, proxy, clock, route, door, saw }
    }

    /// A client that has connected.
    pub(super) fn client(&self) -> MemStream {
        let (near, far) = pair();
        self.door.send(Ok(far)).expect("the listener is open");
        near
    }

    /// A client that has said hello.
    pub(super) async fn greeter(&self) -> MemStream {
        let mut client = self.client();
        client.write_all(&hello()).await.expect("written");
        client
    }

    /// A client that is served, and by which port.
    pub(super) async fn served(&self) -> (MemStream, u16) {
        let mut client = self.greeter().await;
        let port = answer(&mut client).await.expect("an answer");
        (client, port)
    }

    /// What the engine was told so far.
    pub(super) fn sightings(&mut self) -> Vec<(u16, Saw)> {
        std::iter::from_fn(|| self.saw.try_recv().ok()).map(|(endpoint, saw)| (endpoint.addr().port(), saw)).collect()
    }
}

impl Town {
    pub(super) fn now_plays(&self, port: u16, play: Play) {
        self.plays.lock().expect("whole").insert(port, play);
    }

    /// All dials so far, in order.
    pub(super) fn visits(&self) -> Vec<Visit> {
        self.visits.lock().expect("whole").clone()
    }

    /// Whom the proxy dialled, in order.
    pub(super) fn dialled(&self) -> Vec<u16> {
        self.visits().iter().map(|visit| visit.port).collect()
    }

    /// The dials to one upstream.
    pub(super) fn visits_to(&self, port: u16) -> Vec<Visit> {
        self.visits().into_iter().filter(|visit| visit.port == port).collect()
    }
}

/// What the upstream at this port answers.
pub(super) fn server_hello(port: u16) -> [u8; 7] {
    let [high, low] = port.to_be_bytes();
    [22, 3, 3, 0, 2, high, low]
}

pub(super) const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// Reads a server's hello: whose it is.
pub(super) async fn answer(client: &mut MemStream) -> io::Result<u16> {
    let mut said = [0; 7];
    client.read_exact(&mut said).await?;
    assert_eq!(said[..5], [22, 3, 3, 0, 2]);
    Ok(u16::from_be_bytes([said[5], said[6]]))
}

/// Whatever comes until the end, and how it ends.
pub(super) async fn to_the_end(stream: &mut MemStream) -> (Vec<u8>, Ended) {
    let mut bytes = Vec::new();
    let ended = if stream.read_to_end(&mut bytes).await.is_ok() { Ended::Fin } else { Ended::Reset };
    (bytes, ended)
}

/// A ClientHello with these extensions.
pub(super) fn hello_with(extensions: &[u16]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 2, 0x13, 0x01, 1, 0]);
    let length = u16::try_from(extensions.len() * 5).expect("few");
    body.extend(length.to_be_bytes());
    for extension in extensions {
        body.extend(extension.to_be_bytes());
        body.extend([0, 1, 9]);
    }
    let length = u16::try_from(body.len()).expect("short");
    let mut record = vec![22, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

/// A ClientHello.
pub(super) fn hello_bytes() -> u32 {
    u32::try_from(hello().len()).unwrap()
}

pub(super) fn hello() -> Vec<u8> {
    hello_with(&[0, 43])
}

impl Net for Town {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let mut play = self.plays.lock().expect("whole").get(&to.port()).copied().unwrap_or(Play::Drops);
        if let Play::Turns(plays) = play {
            play = plays[self.visits_to(to.port()).len() % plays.len()];
        }
        let place = {
            let mut visits = self.visits.lock().expect("whole");
            visits.push(Visit { port: to.port(), after: self.start.elapsed(), got: Vec::new(), ended: None });
            visits.len() - 1
        };
        let visits = self.visits.clone();
        Box::pin(async move {
            match play {
                Play::Refuses => return Err(io::ErrorKind::ConnectionRefused.into()),
                Play::Drops => std::future::pending().await,
                Play::LocalError => return Err(io::ErrorKind::OutOfMemory.into()),
                Play::ConnectsAfter(delay) => sleep(delay).await,
                Play::Panics => panic!("a bug in the world"),
                _ => {}
            }
            let (near, far) = pair();
            tokio::spawn(Actor { port: to.port(), stream: far, visits, place }.act(play));
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }

    fn carry(&self, client: Box<dyn Stream>, upstream: Box<dyn Stream>, meter: Arc<Meter>) -> BoxFuture<'static, Carried> {
        Box::pin(carry(client, upstream, meter))
    }
}

struct Actor {
    port: u16,
    stream: MemStream,
    visits: Arc<Mutex<Vec<Visit>>>,
    place: usize,
}

impl Actor {
    async fn act(mut self, play: Play) {
        match play {
            Play::Closes => drop(self.listen().await),
            Play::ClosesAfter(delay) => sleep(delay).await,
            Play::Resets => {
                self.listen().await;
                self.stream.reset_on_drop();
            }
            Play::Silent => while self.listen().await.is_some() {},
            Play::Echoes => self.echo().await,
            Play::Alerts => {
                self.listen().await;
                let _ = self.stream.write_all(&ALERT).await;
                while self.listen().await.is_some() {}
            }
            Play::Chats => {
                self.listen().await;
                let _ = self.stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
                while self.listen().await.is_some() {}
            }
            Play::AnswersOnce => {
                self.answer(Duration::ZERO).await;
                while self.listen().await.is_some() {}
            }
            Play::AnswersAfter(delay) => {
                self.answer(delay).await;
                self.echo().await;
            }
            _ => {
                self.answer(Duration::ZERO).await;
                self.echo().await;
            }
        }
    }

    async fn answer(&mut self, delay: Duration) {
        let mut got = 0;
        while got < hello().len() {
            match self.listen().await {
                Some(bytes) => got += bytes.len(),
                None => return,
            }
        }
        sleep(delay).await;
        let _ = self.stream.write_all(&server_hello(self.port)).await;
    }

    async fn echo(&mut self) {
        while let Some(bytes) = self.listen().await {
            let _ = self.stream.write_all(&bytes).await;
        }
        let _ = self.stream.shutdown().await;
    }

    async fn listen(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let read = self.stream.read(&mut bytes).await;
        let mut visits = self.visits.lock().expect("whole");
        let visit = visits.get_mut(self.place).expect("entered");
        match read {
            Ok(0) => visit.ended = Some(Ended::Fin),
            Err(_) => visit.ended = Some(Ended::Reset),
            Ok(count) => {
                bytes.truncate(count);
                visit.got.extend(&bytes);
                return Some(bytes);
            }
        }
        None
    }
}

/// A connection in memory that can be reset.
#[derive(Debug)]
pub(super) struct MemStream {
    pipe: DuplexStream,
    resets: bool,
    reset_here: Arc<AtomicBool>,
    reset_there: Arc<AtomicBool>,
}

/// Both ends of a connection.
pub(super) fn pair() -> (MemStream, MemStream) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (one, other) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let near = MemStream { pipe: near, resets: false, reset_here: one.clone(), reset_there: other.clone() };
    (near, MemStream { pipe: far, resets: false, reset_here: other, reset_there: one })
}

impl Drop for MemStream {
    fn drop(&mut self) {
        self.reset_here.store(self.resets, Ordering::SeqCst);
    }
}

impl AsyncRead for MemStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(cx, buffer);
        if read.is_ready() && buffer.filled().len() == before && self.reset_there.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl AsyncWrite for MemStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

impl Stream for MemStream {
    fn reset_on_drop(&mut self) {
        self.resets = true;
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

struct MemListener(tokio::sync::Mutex<mpsc::UnboundedReceiver<io::Result<MemStream>>>);

impl Listener for MemListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(endpoint(7445).addr())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            match self.0.lock().await.recv().await {
                Some(visitor) => Ok((Box::new(visitor?) as Box<dyn Stream>, endpoint(1).addr())),
                None => std::future::pending().await,
            }
        })
    }

    fn accept_now(&self) -> io::Result<Option<(Box<dyn Stream>, SocketAddr)>> {
        let Some(Ok(visitor)) = self.0.try_lock().ok().map(|mut visitors| visitors.try_recv()) else { return Ok(None) };
        Ok(Some((Box::new(visitor?), endpoint(1).addr())))
    }
}
