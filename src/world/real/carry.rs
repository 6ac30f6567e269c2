//! Carries bytes between two streams by reading and writing.
//!
//! A connection that is idle owns no buffer at all: bytes are read into the stack and written from there, and only what the
//! other side did not take at once is put aside. Thousands of idle watches then cost their sockets and little else, which a
//! buffer per direction (as `copy_bidirectional` has) would not allow. While something is put aside nothing more is read that
//! way, so a connection never holds more than [`CHUNK`] bytes a direction.
//!
//! What happened on one side happens on the other: an end of stream is passed on as a half-close, a reset as a reset. When
//! *writing* fails the other way is still read to its end first, since a server that answers and closes without having read
//! the whole request has its answer on the way.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::world::{Carried, Meter, Stream};

/// Bytes moved at once, and put aside at most, in each direction.
const CHUNK: usize = 16 * 1024;

/// Carries bytes both ways; see [`Net::carry`](crate::world::Net::carry). Works with any streams.
pub(crate) async fn carry(mut client: Box<dyn Stream>, mut upstream: Box<dyn Stream>, meter: Arc<Meter>) -> Carried {
    let carried = tokio::select! {
        biased;
        () = meter.ended() => Carried::Ended,
        carried = both_ways(&mut client, &mut upstream, &meter) => carried,
    };
    if carried != Carried::Closed {
        client.reset_on_drop();
        upstream.reset_on_drop();
    }
    carried
}

async fn both_ways(client: &mut Box<dyn Stream>, upstream: &mut Box<dyn Stream>, meter: &Meter) -> Carried {
    let mut up = Way::default();
    let mut down = Way::default();
    std::future::poll_fn(|cx| {
        let up_now = up.poll(cx, client, upstream, |_| {}, |bytes| meter.count_to_upstream(bytes));
        let down_now = down.poll(cx, upstream, client, |bytes| meter.count_to_client(bytes), |_| {});
        match (up_now, down_now) {
            (Poll::Ready(Passed::SourceFailed), _) | (Poll::Ready(_), Poll::Ready(Passed::SinkFailed)) => {
                Poll::Ready(Carried::ClientFailed)
            }
            (Poll::Pending, Poll::Ready(Passed::SinkFailed)) => {
                // The client is gone, so what it said last is here already. An upstream that takes none of it now would keep a
                // dead connection for as long as it likes; without us it would have had the reset at once.
                let _ = up.poll(cx, client, upstream, |_| {}, |bytes| meter.count_to_upstream(bytes));
                Poll::Ready(Carried::ClientFailed)
            }
            (_, Poll::Ready(Passed::SourceFailed)) | (Poll::Ready(Passed::SinkFailed), Poll::Ready(_)) => {
                Poll::Ready(Carried::UpstreamFailed)
            }
            (Poll::Ready(Passed::Whole), Poll::Ready(Passed::Whole)) => Poll::Ready(Carried::Closed),
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
        source: &mut Box<dyn Stream>,
        sink: &mut Box<dyn Stream>,
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

    /// Passes on what was put aside, then either the end or one more chunk. True when all is done.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Box<dyn Stream>,
        sink: &mut Box<dyn Stream>,
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

fn write_some(cx: &mut Context<'_>, sink: &mut Box<dyn Stream>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    if bytes.is_empty() {
        return Poll::Ready(Ok(0));
    }
    match ready!(Pin::new(sink).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        count => Poll::Ready(Ok(count)),
    }
}
