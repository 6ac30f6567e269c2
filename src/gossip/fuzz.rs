//! The door of the fuzz targets in `tests/fuzz`: what lies behind a seal, with the seal already open. Nobody else has a use for it.
//!
//! Only a member with the key can send what is tried here. That is no reason to trust it.

use std::net::{Ipv4Addr, SocketAddr};

use chitchat::ChitchatId;
use tokio::time::Instant;

use super::codec;
use super::fragment::Assembler;
use super::inspect::Inspector;
use super::packet::Packet;
use super::peers::Cache;
use super::record::Record;
use super::stats::Stats;
use crate::engine::NodeId;

/// The cluster's id in a message that gets through.
const CLUSTER: &str = "fuzz";
/// The one sender's session.
const SESSION: u64 = 7;

/// One receiver, as far as it decodes.
pub struct Receiver {
    assembler: Assembler,
    inspector: Inspector,
    stats: Stats,
    now: Instant,
}

impl Default for Receiver {
    fn default() -> Receiver {
        let own = ChitchatId::new(NodeId::of("fuzz").as_str(), 1, SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 7447)));
        Receiver {
            assembler: Assembler::new(),
            inspector: Inspector::new(CLUSTER.to_owned(), own, false, u64::MAX),
            stats: Stats::default(),
            now: Instant::now(),
        }
    }
}

impl Receiver {
    /// Takes what was in one datagram.
    pub fn take(&mut self, plaintext: &[u8]) {
        match Packet::decode(plaintext) {
            Some(Packet::Whole(message)) => self.inspect(message),
            Some(Packet::Part(part)) => {
                if let Ok(Some(message)) = self.assembler.take(self.now, SESSION, part) {
                    self.inspect(&message);
                }
            }
            Some(Packet::Direct(direct)) => {
                // Whether it is one or not is all the same here.
                let _ = Record::decode(&direct.record);
            }
            Some(other) => assert_eq!(Packet::decode(&other.encode()), Some(other), "what was decoded can be said again"),
            None => {}
        }
    }

    fn inspect(&mut self, message: &[u8]) {
        // Refused or not is all the same here.
        let _ = self.inspector.inspect(self.now, message, &self.stats);
    }
}

/// Decodes what was sealed in a cache file. Whether it is one.
pub fn cache(plaintext: &[u8]) -> bool {
    codec::decode::<Cache>(plaintext).is_some()
}
