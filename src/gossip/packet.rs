//! What a datagram holds once it is open: one byte says which kind, the rest is that kind's.

use serde::{Deserialize, Serialize};

use super::codec;
use crate::engine::endpoint::NodeId;

/// A datagram's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// "This is my session", to a datagram that was not addressed to it; echoes that datagram's receiver and counter.
    Hello(Echo),
    /// A whole message of gossip's library.
    Whole(&'a [u8]),
    /// A fragment of a compressed message.
    Part(Part<'a>),
    /// "Are you there?"
    Ping(u64),
    /// The answer to a ping, with its token.
    Pong(u64),
    /// A member's record, straight from it.
    Direct(Direct),
    /// The answer to a direct record.
    Received(Received),
}

/// What a hello answers: the refused datagram's receiver and counter. Its sender is whom the hello is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo {
    pub(crate) receiver: u64,
    pub(crate) counter: u64,
}

/// One fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// Tells a sender's messages apart.
    pub(crate) message: u32,
    /// Its place, from 0.
    pub(crate) place: u8,
    /// How many there are.
    pub(crate) count: u8,
    pub(crate) bytes: &'a [u8],
}

/// A member's record, straight from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Direct {
    pub(crate) generation: u64,
    pub(crate) version: u64,
    /// Its record, encoded.
    pub(crate) record: Vec<u8>,
}

/// Says which direct record has arrived, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) by: NodeId,
    pub(crate) generation: u64,
    pub(crate) version: u64,
}

/// Bytes of a hello. A ping is padded to as many, so that it may be answered by one: an answer is never longer than
/// what it answers.
pub(crate) const HELLO_BYTES: usize = 1 + 16;
/// Bytes in front of a fragment's own.
pub(crate) const PART_HEAD: usize = 1 + 4 + 1 + 1;

const HELLO: u8 = 0;
const WHOLE: u8 = 1;
const PART: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const DIRECT: u8 = 5;
const RECEIVED: u8 = 6;

impl Packet<'_> {
    /// Encodes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_BYTES);
        match self {
            Packet::Hello(echo) => {
                out.push(HELLO);
                out.extend(echo.receiver.to_be_bytes());
                out.extend(echo.counter.to_be_bytes());
            }
            Packet::Whole(bytes) => {
                out.push(WHOLE);
                out.extend_from_slice(bytes);
            }
            Packet::Part(part) => {
                out.push(PART);
                out.extend(part.message.to_be_bytes());
                out.extend([part.place, part.count]);
                out.extend_from_slice(part.bytes);
            }
            Packet::Ping(token) => padded(&mut out, PING, *token),
            Packet::Pong(token) => padded(&mut out, PONG, *token),
            Packet::Direct(direct) => {
                out.push(DIRECT);
                out.extend(codec::encode(direct).unwrap_or_default());
            }
            Packet::Received(received) => {
                out.push(RECEIVED);
                out.extend(codec::encode(received).unwrap_or_default());
                // So that a hello may answer it.
                out.resize(out.len().max(HELLO_BYTES), 0);
            }
        }
        out
    }
}

impl<'a> Packet<'a> {
    /// Decodes; [`None`] for what this build does not know.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let (kind, rest) = bytes.split_first()?;
        Some(match *kind {
            HELLO => {
                let (receiver, rest) = rest.split_first_chunk::<8>()?;
                let (counter, _) = rest.split_first_chunk::<8>()?;
                Packet::Hello(Echo { receiver: u64::from_be_bytes(*receiver), counter: u64::from_be_bytes(*counter) })
            }
            WHOLE => Packet::Whole(rest),
            PART => {
                let (message, rest) = rest.split_first_chunk::<4>()?;
                let ([place, count], bytes) = rest.split_first_chunk::<2>()?;
                Packet::Part(Part { message: u32::from_be_bytes(*message), place: *place, count: *count, bytes })
            }
            PING => Packet::Ping(token(rest)?),
            PONG => Packet::Pong(token(rest)?),
            DIRECT => Packet::Direct(codec::decode(rest)?),
            RECEIVED => Packet::Received(codec::decode(rest)?),
            _ => return None,
        })
    }
}

fn padded(out: &mut Vec<u8>, kind: u8, token: u64) {
    out.push(kind);
    out.extend(token.to_be_bytes());
    out.resize(HELLO_BYTES, 0);
}

fn token(bytes: &[u8]) -> Option<u64> {
    bytes.split_first_chunk::<8>().map(|(token, _)| u64::from_be_bytes(*token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_survives_its_encoding_and_may_be_answered_by_a_hello() {
        let node = NodeId::of("n");
        let direct = Direct { generation: 1, version: 2, record: vec![1; 40] };
        let packets = [
            Packet::Hello(Echo { receiver: 1, counter: u64::MAX }),
            Packet::Part(Part { message: 7, place: 0, count: 1, bytes: b"a fragment" }),
            Packet::Ping(3),
            Packet::Pong(4),
            Packet::Direct(direct),
            Packet::Received(Received { by: node, generation: 1, version: 2 }),
        ];
        for packet in packets {
            let bytes = packet.encode();
            assert!(bytes.len() >= HELLO_BYTES, "{packet:?}");
            assert_eq!(Packet::decode(&bytes), Some(packet));
        }
        assert_eq!(Packet::decode(&Packet::Whole(b"").encode()), Some(Packet::Whole(b"")));
        assert_eq!(Packet::decode(&[99, 1, 2]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let _ = Packet::decode(&bytes);
        }
    }
}
