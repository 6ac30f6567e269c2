//! The door of the fuzz targets in `tests/fuzz`: what lies behind a seal, with the seal already open. Nobody else has a use for it.
//!
//! Only who holds a key can send what is tried here. That is no reason to trust it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;

use super::cache::Cache;
use super::codec;
use super::envelope::{Kind, Opened};
use super::exchange::{Exchange, Me};
use super::fragment::Assembler;
use super::item::{Item, read};
use super::keys::Keyring;
use super::packet::Packet;
use crate::engine::NodeId;

/// The one sender's session.
const SESSION: u64 = 7;

/// One core member, as far as it decodes.
pub struct Receiver {
    assembler: Assembler,
    exchange: Exchange,
    now: Instant,
}

impl Default for Receiver {
    fn default() -> Receiver {
        let now = Instant::now();
        let me = Me { node: NodeId::of("fuzz"), name: "fuzz".to_owned(), core: true, version: String::new() };
        let mut exchange = Exchange::new(now, me, Keyring::random(), "fuzz", Arc::default());
        exchange.begin(now, 1, SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 7447)));
        Receiver { assembler: Assembler::new(), exchange, now }
    }
}

impl Receiver {
    /// Takes what was in one datagram, as each kind.
    pub fn take(&mut self, plaintext: &[u8]) {
        if let Some(Packet::Part(part)) = Packet::decode(plaintext) {
            // Whether it is whole now is all the same here.
            let _ = self.assembler.take(self.now, SESSION, part);
        }
        let from = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 7447));
        for kind in Kind::ALL {
            let opened = Opened { kind, key: self.exchange.catalog.keyring().primary().id(), plaintext: plaintext.to_vec() };
            self.exchange.receive(self.now, from, &opened, plaintext.len());
        }
        self.exchange.tick(self.now);
        drop(self.exchange.take_sends());
        drop(self.exchange.take_changes());
    }
}

/// Decodes what was sealed in a cache file. Whether it is one.
pub fn cache(plaintext: &[u8]) -> bool {
    codec::decode::<Cache>(plaintext).is_some()
}

/// Decodes what was signed, as one of the kinds.
pub fn item(kind: u8, body: &[u8]) -> Option<Item> {
    read(kind % 3 + 1, body)
}
