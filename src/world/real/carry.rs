//! Carries bytes between two streams by reading and writing.
//!
//! A connection that is idle owns no buffer at all: bytes are read into the stack and written from there, and only what the
//! other side did not take at once is put aside. Thousands of idle watches then cost their sockets and little else, which a
//! buffer per direction (as `copy_bidirectional` has) would not allow. While something is put aside nothing more is read that
//! way, so a connection never holds more than 16 KiB a direction.
//!
//! What happened on one side happens on the other: an end of stream is passed on as a half-close, a reset as a reset. When
//! *writing* fails the other way goes on first for as long as it gets on, since a server that answers and closes without having
//! read the whole request has its answer on the way.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::has_budget_remaining;

use crate::world::{Carried, Meter, Stream};

/// Bytes moved at once, and put aside at most, in each direction.
const CHUNK: usize = 16 * 1024;

/// Carries bytes both ways; see [`Net::carry`](crate::world::Net::carry). Works with any streams.
pub async fn carry(mut client: Box<dyn Stream>, mut upstream: Box<dyn Stream>, meter: Arc<Meter>) -> Carried {
    let carried = both_ways(&mut client, &mut upstream, &meter).await;
    if carried != Carried::Closed {
        client.reset_on_drop();
        upstream.reset_on_drop();
    }
    carried
}

async fn both_ways(client: &mut Box<dyn Stream>, upstream: &mut Box<dyn Stream>, meter: &Meter) -> Carried {
    let mut up = Way::default();
    let mut down = Way::default();
    let mut nudged = pin!(meter.nudged());
    std::future::poll_fn(|cx| {
        while nudged.as_mut().poll(cx).is_ready() {
            meter.look_if_asked(&**upstream);
            nudged.set(meter.nudged());
        }
        if meter.end_reason().is_some() {
            return Poll::Ready(Carried::Ended);
        }
        let up_now = up.poll(cx, client, upstream, |_| {}, |bytes| meter.count_to_upstream(bytes));
        let down_now = down.poll(cx, upstream, client, |bytes| meter.count_to_client(bytes), |_| {});
        // A sink that takes nothing because this task's turn is over is not stuck. The task is woken for its next turn.
        let stuck = |way: &Way| way.is_stuck() && has_budget_remaining();
        match (up_now, down_now) {
            (Poll::Ready(Passed::Whole), Poll::Ready(Passed::Whole)) => Poll::Ready(Carried::Closed),
            (Poll::Ready(Passed::SourceFailed), _) => Poll::Ready(Carried::ClientFailed),
            (_, Poll::Ready(Passed::SourceFailed)) => Poll::Ready(Carried::UpstreamFailed),
            (other, Poll::Ready(Passed::SinkFailed)) if other.is_ready() || stuck(&up) => Poll::Ready(Carried::ClientFailed),
            (Poll::Ready(Passed::SinkFailed), other) if other.is_ready() || stuck(&down) => Poll::Ready(Carried::UpstreamFailed),
            _ => Poll::Pending,
        }
    })
    .await
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    /// The source's end of stream was passed on.
    Whole,
    /// Reading failed.
    SourceFailed,
    /// Writing failed.
    SinkFailed,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// What the sink has not taken yet, from `taken` on. Without capacity when empty.
    aside: Vec<u8>,
    taken: usize,
    ended: bool,
    passed: Option<Passed>,
}

impl Way {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        read: impl Fn(usize),
        written: impl Fn(usize),
    ) -> Poll<Passed> {
        loop {
            if let Some(passed) = self.passed {
                return Poll::Ready(passed);
            }
            self.passed = Some(match ready!(self.step(cx, source, sink, &read, &written)) {
                Ok(false) => continue,
                Ok(true) => Passed::Whole,
                Err(failed) => failed,
            });
            self.aside = Vec::new();
        }
    }

    /// Waits for its sink.
    fn is_stuck(&self) -> bool {
        !self.aside.is_empty()
    }

    /// Passes on what was put aside, then either the end or one more chunk. True when all is done.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        read: &impl Fn(usize),
        written: &impl Fn(usize),
    ) -> Poll<Result<bool, Passed>> {
        while let Some(left) = self.aside.get(self.taken..).filter(|left| !left.is_empty()) {
            let count = ready!(write_some(cx, sink, left)).map_err(|_| Passed::SinkFailed)?;
            written(count);
            self.taken += count;
        }
        self.aside = Vec::new();
        self.taken = 0;
        if self.ended {
            // A sink that is gone already has, as far as this direction goes, ended too.
            let _ = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
            return Poll::Ready(Ok(true));
        }
        let mut space = [const { MaybeUninit::uninit() }; CHUNK];
        let mut chunk = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *source).poll_read(cx, &mut chunk)).map_err(|_| Passed::SourceFailed)?;
        let bytes = chunk.filled();
        self.ended = bytes.is_empty();
        if !self.ended {
            read(bytes.len());
        }
        match write_some(cx, sink, bytes) {
            Poll::Ready(Ok(count)) => {
                written(count);
                self.aside.extend_from_slice(bytes.get(count..).unwrap_or_default());
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Passed::SinkFailed)),
            Poll::Pending => self.aside.extend_from_slice(bytes),
        }
        Poll::Ready(Ok(false))
    }
}

fn write_some(cx: &mut Context<'_>, sink: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Poll<io::Result<usize>> {
    if bytes.is_empty() {
        return Poll::Ready(Ok(0));
    }
    match ready!(Pin::new(sink).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        count => Poll::Ready(Ok(count)),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::super::net::RealNet;
    use super::*;
    use crate::world::{Clock, Net};

    /// A client and an upstream, and one connection carried between them on real sockets.
    struct Line {
        client: TcpStream,
        upstream: TcpStream,
        meter: Arc<Meter>,
        carried: JoinHandle<Carried>,
    }

    async fn line() -> Line {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let front = RealNet.listen(any).await.expect("listens");
        let back = TcpListener::bind(any).await.expect("listens");
        let client = TcpStream::connect(front.local_addr().expect("bound")).await.expect("connects");
        let (inside, _) = front.accept().await.expect("accepts");
        let outside = RealNet.connect(back.local_addr().expect("bound")).await.expect("connects");
        let (upstream, _) = back.accept().await.expect("accepts");
        let meter = Arc::new(Meter::new(Clock::start()));
        let carried = tokio::spawn(RealNet.carry(inside, outside, meter.clone()));
        Line { client, upstream, meter, carried }
    }

    fn pattern(length: usize) -> Vec<u8> {
        let mut bytes = (0..251).collect::<Vec<u8>>().repeat(length / 251 + 1);
        bytes.truncate(length);
        bytes
    }

    async fn is_reset(stream: &mut TcpStream) -> bool {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    }

    const MANY: usize = 10_000_000;

    #[tokio::test]
    async fn every_byte_arrives_in_order_both_ways_at_once_and_is_counted() {
        let Line { client, upstream, meter, carried } = line().await;
        let talk = |stream: TcpStream| async move {
            let (mut read, mut write) = stream.into_split();
            let writing = tokio::spawn(async move {
                write.write_all(&pattern(MANY)).await.expect("written");
                write.shutdown().await.expect("half-closed");
            });
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.expect("read");
            writing.await.expect("written");
            got == pattern(MANY)
        };
        let (one, other) = tokio::join!(tokio::spawn(talk(client)), tokio::spawn(talk(upstream)));
        assert!(one.expect("done") && other.expect("done"));
        assert_eq!(carried.await.expect("done"), Carried::Closed);
        assert_eq!((meter.to_client(), meter.to_upstream()), (MANY as u64, MANY as u64));
    }

    #[tokio::test]
    async fn a_half_close_is_passed_on_and_the_other_way_stays_open() {
        for upstream_first in [false, true] {
            let Line { client, upstream, carried, .. } = line().await;
            let (mut first, mut second) = if upstream_first { (upstream, client) } else { (client, upstream) };
            first.write_all(b"question").await.expect("written");
            first.shutdown().await.expect("half-closed");
            let mut got = Vec::new();
            second.read_to_end(&mut got).await.expect("read");
            assert_eq!(got, b"question");
            tokio::time::sleep(Duration::from_millis(20)).await;
            second.write_all(b"a late answer").await.expect("written");
            drop(second);
            got.clear();
            first.read_to_end(&mut got).await.expect("read");
            assert_eq!(got, b"a late answer");
            assert_eq!(carried.await.expect("done"), Carried::Closed);
        }
    }

    #[tokio::test]
    async fn a_reset_is_passed_on_as_a_reset_either_way() {
        let Line { client, mut upstream, carried, .. } = line().await;
        client.set_zero_linger().expect("set");
        drop(client);
        assert!(is_reset(&mut upstream).await);
        assert_eq!(carried.await.expect("done"), Carried::ClientFailed);

        let Line { mut client, upstream, carried, .. } = line().await;
        upstream.set_zero_linger().expect("set");
        drop(upstream);
        assert!(is_reset(&mut client).await);
        assert_eq!(carried.await.expect("done"), Carried::UpstreamFailed);
    }

    #[tokio::test]
    async fn a_reset_in_the_middle_of_a_flood_is_passed_on() {
        let Line { client, mut upstream, carried, .. } = line().await;
        client.set_zero_linger().expect("set");
        let flood = tokio::spawn(async move { upstream.write_all(&pattern(MANY)).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(client);
        assert!(flood.await.expect("done").is_err());
        assert_eq!(carried.await.expect("done"), Carried::ClientFailed);
    }

    #[tokio::test]
    async fn an_answer_before_a_close_is_delivered_though_the_request_was_not_read() {
        let Line { mut client, mut upstream, .. } = line().await;
        let (mut read, mut write) = client.split();
        let sending = async { while write.write_all(&[1; 4096]).await.is_ok() {} };
        let answering = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            upstream.write_all(b"too much").await.expect("written");
            drop(upstream);
        };
        let mut got = [0; 8];
        let reading = async { read.read_exact(&mut got).await.expect("the answer") };
        tokio::join!(sending, answering, reading);
        assert_eq!(&got, b"too much");
    }

    /// A stream that takes part in the runtime's cooperation: it has chunks to read and counts what is written, or fails.
    struct Cooperative {
        chunks: usize,
        ends: bool,
        written: Option<Arc<AtomicUsize>>,
    }

    fn turn(cx: &mut Context<'_>) -> Poll<()> {
        std::pin::pin!(tokio::task::coop::consume_budget()).as_mut().poll(cx)
    }

    impl AsyncRead for Cooperative {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            ready!(turn(cx));
            match self.chunks.checked_sub(1) {
                Some(left) => {
                    self.chunks = left;
                    buffer.put_slice(&[7; CHUNK]);
                }
                None if !self.ends => return Poll::Pending,
                None => {}
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Cooperative {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            ready!(turn(cx));
            let Some(written) = &self.written else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
            written.fetch_add(bytes.len(), Ordering::SeqCst);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for Cooperative {
        fn reset_on_drop(&mut self) {}

        fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
            self
        }
    }

    #[tokio::test]
    async fn an_answer_of_more_than_one_turn_is_delivered_though_the_upstream_takes_no_more() {
        const CHUNKS: usize = 500;
        let written = Arc::new(AtomicUsize::new(0));
        let client = Cooperative { chunks: 1, ends: false, written: Some(written.clone()) };
        let upstream = Cooperative { chunks: CHUNKS, ends: true, written: None };
        let meter = Arc::new(Meter::new(Clock::start()));
        carry(Box::new(client), Box::new(upstream), meter).await;
        assert_eq!(written.load(Ordering::SeqCst), CHUNKS * CHUNK);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_up_its_own_bytes_and_loses_none() {
        let Line { mut client, mut upstream, meter, .. } = line().await;
        let flood = tokio::spawn(async move {
            upstream.write_all(&pattern(MANY)).await.expect("written");
            let mut got = Vec::new();
            upstream.read_to_end(&mut got).await.expect("read");
            got
        });
        // Until the sockets are full; from then on nothing moves.
        let mut before = u64::MAX;
        while meter.to_client() != before {
            before = meter.to_client();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(before < MANY as u64);
        client.write_all(b"the other way is free").await.expect("written");
        let mut got = Vec::new();
        let mut sip = [0; 40_000];
        while got.len() < MANY {
            let count = client.read(&mut sip).await.expect("read");
            got.extend_from_slice(&sip[..count]);
        }
        assert!(got == pattern(MANY));
        client.shutdown().await.expect("half-closed");
        assert_eq!(flood.await.expect("done"), b"the other way is free");
    }

    #[tokio::test]
    async fn a_client_that_sends_without_reading_what_echoes_is_carried_within_bounds() {
        let Line { mut client, upstream, meter, carried } = line().await;
        let echo = tokio::spawn(async move {
            let (mut read, mut write) = upstream.into_split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let stuck = Duration::from_millis(200);
        while let Ok(written) = tokio::time::timeout(stuck, client.write_all(&[0; 65_536])).await {
            written.expect("carried");
        }
        let aside = meter.to_client() + meter.to_upstream();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(meter.to_client() + meter.to_upstream(), aside, "nothing moves, so nothing grows");
        drop(client);
        assert_eq!(carried.await.expect("done"), Carried::ClientFailed, "both ways were stuck, and yet it ends");
        echo.await.expect("done");
    }

    #[tokio::test]
    async fn ending_resets_both_ends_even_when_nobody_reads() {
        let Line { mut client, mut upstream, meter, carried } = line().await;
        let _ = tokio::time::timeout(Duration::from_millis(50), upstream.write_all(&pattern(MANY))).await;
        meter.end(None);
        assert_eq!(carried.await.expect("done"), Carried::Ended);
        assert!(is_reset(&mut client).await);
        assert!(is_reset(&mut upstream).await);
    }

    #[tokio::test]
    async fn an_idle_connection_owns_no_buffer_and_a_stuck_one_at_most_a_chunk_each_way() {
        let (mut source, mut source_end) = tokio::io::duplex(64 * 1024);
        let (mut sink_end, sink) = tokio::io::duplex(64 * 1024);
        let mut way = Way::default();
        source.write_all(&[1; 60_000]).await.expect("written");
        let mut poll = async |way: &mut Way| {
            std::future::poll_fn(|cx| Poll::Ready(way.poll(cx, &mut source_end, &mut sink_end, |_| {}, |_| {}))).await
        };
        assert!(poll(&mut way).await.is_pending());
        assert_eq!(way.aside.capacity(), 0, "all of it was taken");
        source.write_all(&[1; 60_000]).await.expect("written");
        assert!(poll(&mut way).await.is_pending());
        assert!((1..=CHUNK).contains(&way.aside.capacity()), "{} bytes are kept", way.aside.capacity());
        drop(sink);
        assert_eq!(poll(&mut way).await, Poll::Ready(Passed::SinkFailed));
        assert_eq!(way.aside.capacity(), 0);
    }
}
