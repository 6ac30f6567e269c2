//! The hash of everything that happened, in order, as it happens.
//!
//! It covers virtual time, every event and effect of every engine (routings among them), every datagram's bytes and every
//! client's outcome; no wall time, task id or pointer. Two runs of one binary on one kind of machine with one seed have the
//! same hash.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;

use prismesh::engine::{Effect, Event};
use sha2::{Digest, Sha256};

use super::core::RunId;
use super::state::Ms;

/// The hash so far.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: Sha256,
    scratch: Vec<u8>,
    /// Engine steps so far.
    pub(super) steps: u64,
    /// Engine events at the last instant, and when that was.
    pub(super) at_once: (Ms, u64),
}

impl Trace {
    /// One step of an agent's engine.
    pub(super) fn step(&mut self, now: Ms, run: RunId, event: &Event, effects: &[Effect]) {
        self.steps += 1;
        self.at_once = if self.at_once.0 == now { (now, self.at_once.1 + 1) } else { (now, 1) };
        self.number(now);
        self.number(run);
        self.scratch.clear();
        let written = serde_json::to_writer(&mut self.scratch, &(event, effects));
        debug_assert!(written.is_ok(), "events and effects are plain data");
        self.hash.update(&self.scratch);
    }

    /// One datagram, as it was sent.
    pub(super) fn datagram(&mut self, now: Ms, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.number(now);
        let _ = write!(Text(&mut self.hash), "{from}>{to}");
        self.hash.update(bytes);
    }

    /// Anything else that is worth a word.
    pub(super) fn note(&mut self, what: &str, number: u64) {
        self.hash.update(what.as_bytes());
        self.number(number);
    }

    fn number(&mut self, number: u64) {
        self.hash.update(number.to_be_bytes());
    }

    /// The hash, in hexadecimal.
    pub(super) fn digest(&self) -> String {
        let mut text = String::new();
        for byte in &self.hash.clone().finalize()[..16] {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Formats into a hash without making a string of it.
struct Text<'a>(&'a mut Sha256);

impl Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
