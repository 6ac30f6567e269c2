//! An upstream that has connected and not answered yet.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::dial::Candidate;
use super::said::{SIP, Said};
use crate::world::Stream;

/// What is sent to such an upstream, and heard from it.
pub(super) struct Trial {
    pub(super) to: Candidate,
    pub(super) stream: Box<dyn Stream>,
    /// What it has been sent of what the client said.
    pub(super) forwarded: usize,
    /// When a whole ClientHello had been forwarded.
    asked: Option<Instant>,
    /// Its first-byte delay has passed.
    pub(super) late: bool,
    /// Its first bytes, when they were not a handshake: passed on if nobody says anything better.
    pub(super) spoke: Option<Vec<u8>>,
    broken: bool,
    shut: bool,
}

/// What happened to a trial.
pub(super) enum Heard {
    /// It took something of what the client said.
    Forwarded,
    /// Its first bytes.
    Bytes(Vec<u8>),
    /// It closed.
    Closed,
    /// It reset, or failed otherwise.
    Reset,
}

impl Trial {
    pub(super) fn new(to: Candidate, stream: Box<dyn Stream>) -> Trial {
        Trial { to, stream, forwarded: 0, asked: None, late: false, spoke: None, broken: false, shut: false }
    }

    /// It may still say something.
    pub(super) fn is_open(&self) -> bool {
        self.spoke.is_none()
    }

    /// When its first byte is due, as long as that has not been judged.
    pub(super) fn due(&self) -> Option<Instant> {
        self.asked.filter(|_| self.is_open() && !self.late).map(|asked| asked + self.to.first_byte)
    }

    /// Forwards and listens.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, said: &Said) -> Poll<Heard> {
        if !self.is_open() {
            return Poll::Pending;
        }
        if !self.broken && self.forward(cx, said) {
            return Poll::Ready(Heard::Forwarded);
        }
        let mut space = [const { MaybeUninit::uninit() }; SIP];
        let mut sip = ReadBuf::uninit(&mut space);
        Poll::Ready(match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut sip)) {
            Err(_) => Heard::Reset,
            Ok(()) if sip.filled().is_empty() && self.broken => Heard::Reset,
            Ok(()) if sip.filled().is_empty() => Heard::Closed,
            Ok(()) => Heard::Bytes(sip.filled().to_vec()),
        })
    }

    /// True if something went out. A failure shows when reading: what the upstream said before is still to be heard.
    fn forward(&mut self, cx: &mut Context<'_>, said: &Said) -> bool {
        let before = self.forwarded;
        while !said.after(self.forwarded).is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, said.after(self.forwarded)) {
                Poll::Ready(Ok(count)) if count > 0 => self.forwarded += count,
                Poll::Ready(_) => {
                    self.broken = true;
                    return true;
                }
                Poll::Pending => break,
            }
        }
        if said.after(self.forwarded).is_empty() {
            if said.asks() && self.asked.is_none() {
                self.asked = Some(Instant::now());
            }
            if said.ended() && !self.shut {
                self.shut = Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
            }
        }
        self.forwarded > before
    }
}
