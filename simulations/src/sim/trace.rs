//! The hash of everything that happened, in order, as it happens.
//!
//! It covers every event and effect of every engine (routings among them), every datagram's bytes, every client's outcome
//! (how and when it ended, when its first byte came, and by which of the proxy's connections) and every change of the world, each
//! with its virtual time; no wall time, task id or pointer. Two runs of one binary on one kind of machine with one seed have the
//! same hash.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;

use prismesh::engine::{Effect, Event};
use sha2::{Digest, Sha256};

use super::core::RunId;
use super::log::ClientConn;
use super::seed;
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
        assert!(seed::planted(), "an engine decides in another thread than the simulation's");
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

    /// What became of a client's connection.
    pub(super) fn client(&mut self, now: Ms, number: usize, client: &ClientConn) {
        self.number(now);
        let _ = write!(Text(&mut self.hash), "client {number} of {}: {:?}", client.node, client.kind);
        for at in [Some(client.opened), client.hello, client.first_byte, client.upstream, client.ended.map(|(at, _)| at)] {
            self.number(at.unwrap_or(Ms::MAX));
        }
        self.number(client.ended.map_or(u64::MAX, |(_, end)| end as u64));
    }

    /// The world is another one from now on.
    pub(super) fn changed(&mut self, now: Ms) {
        self.number(now);
        self.hash.update(b"changed");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::log::{ClientEnd, ClientKind};

    #[test]
    fn when_and_how_a_client_was_served_is_in_the_hash() {
        let client = ClientConn {
            node: 1,
            kind: ClientKind::Fresh,
            opened: 5,
            hello: Some(6),
            first_byte: Some(8),
            upstream: Some(3),
            ended: Some((9, ClientEnd::Done)),
            agent_ended: None,
        };
        let hash = |now, client: &ClientConn| {
            let mut trace = Trace::default();
            trace.client(now, 0, client);
            trace.digest()
        };
        let changes: [fn(&mut ClientConn); 4] = [
            |client| client.first_byte = Some(7),
            |client| client.upstream = Some(4),
            |client| client.ended = Some((10, ClientEnd::Done)),
            |client| client.ended = Some((9, ClientEnd::Reset)),
        ];
        assert_eq!(hash(9, &client), hash(9, &client));
        assert_ne!(hash(9, &client), hash(10, &client), "a later time");
        for change in changes {
            let mut other = client.clone();
            change(&mut other);
            assert_ne!(hash(9, &client), hash(9, &other), "{other:?}");
        }
    }
}
