//! What a client has said before it was answered.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::hello::{Hello, Shape};
use crate::engine::policy::REPLAY_BYTES;
use crate::world::Stream;

/// Read at once from someone who has not been answered or has not answered: a hello or its answer's beginning.
pub(super) const SIP: usize = 4 * 1024;

/// A client's bytes, kept until an upstream answers. Positions count from the first byte it ever sent.
#[derive(Debug, Default)]
pub(super) struct Said {
    kept: Vec<u8>,
    forgotten: usize,
    hello: Hello,
    ended: bool,
}

impl Said {
    /// Listens to the client for more: true if there is, false at the end of what it says.
    /// Never completes while no more can be kept, nor after the end. Cancel-safe.
    pub(super) async fn more(&mut self, client: &mut Box<dyn Stream>) -> io::Result<bool> {
        poll_fn(|cx| self.poll_more(cx, client)).await
    }

    /// [`Said::more`], for who has others to listen to.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>, client: &mut Box<dyn Stream>) -> Poll<io::Result<bool>> {
        let room = SIP.min(REPLAY_BYTES.saturating_sub(self.kept.len()));
        if room == 0 || self.ended {
            return Poll::Pending;
        }
        let mut space = [const { MaybeUninit::uninit() }; SIP];
        let mut sip = ReadBuf::uninit(space.split_at_mut(room).0);
        ready!(Pin::new(client).poll_read(cx, &mut sip))?;
        let more = sip.filled().len();
        self.kept.extend_from_slice(sip.filled());
        self.ended = more == 0;
        if self.forgotten == 0 {
            self.hello.follow(&self.kept, more);
        }
        Poll::Ready(Ok(more > 0))
    }

    /// It began as TLS does.
    pub(super) fn is_tls(&self) -> bool {
        self.hello.shape() != Shape::Other
    }

    /// All of it may be sent to one more upstream.
    pub(super) fn replayable(&self) -> bool {
        match self.hello.shape() {
            Shape::Partial => self.forgotten == 0 && self.kept.len() < REPLAY_BYTES,
            Shape::Complete { early_data } => !early_data,
            Shape::More | Shape::Other => false,
        }
    }

    /// It begins with one whole ClientHello.
    pub(super) fn is_hello(&self) -> bool {
        matches!(self.hello.shape(), Shape::Complete { .. } | Shape::More)
    }

    /// The whole ClientHello that it begins with; empty if it does not.
    pub(super) fn hello(&self) -> &[u8] {
        self.kept.get(..self.hello.length()).unwrap_or_default()
    }

    /// It may become a ClientHello and is none yet.
    pub(super) fn is_partial(&self) -> bool {
        self.hello.shape() == Shape::Partial && self.forgotten == 0 && self.kept.len() < REPLAY_BYTES
    }

    /// It is one whole ClientHello, so that an answer is due.
    pub(super) fn asks(&self) -> bool {
        matches!(self.hello.shape(), Shape::Complete { .. })
    }

    /// Bytes of the ClientHello, as far as it has come.
    pub(super) fn hello_bytes(&self) -> u32 {
        u32::try_from(self.forgotten + self.kept.len()).unwrap_or(u32::MAX)
    }

    /// The client will say no more.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// What follows a position; empty if nothing does (yet).
    pub(super) fn after(&self, position: usize) -> &[u8] {
        self.kept.get(position.saturating_sub(self.forgotten)..).unwrap_or_default()
    }

    /// Makes room for more: what comes before this position is not needed any more.
    pub(super) fn forget(&mut self, position: usize) {
        let done = position.saturating_sub(self.forgotten).min(self.kept.len());
        self.kept.drain(..done);
        self.forgotten += done;
    }
}
