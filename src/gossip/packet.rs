//! What a datagram between core members holds once it is open: a message of chitchat, or a fragment of one. In front of each
//! message is the address to which its sender wants the reply.

use std::net::{IpAddr, SocketAddr};

/// A datagram's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// A whole message.
    Whole(&'a [u8]),
    /// A fragment of a compressed message.
    Part(Part<'a>),
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

/// Bytes in front of a fragment's own.
pub(crate) const PART_HEAD: usize = 1 + 4 + 1 + 1;

const WHOLE: u8 = 1;
const PART: u8 = 2;

const V4: u8 = 4;
const V6: u8 = 6;

/// A message with its sender's address in front.
pub(crate) fn addressed(sender: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 19);
    match sender.ip() {
        IpAddr::V4(ip) => {
            out.push(V4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(V6);
            out.extend(ip.octets());
        }
    }
    out.extend(sender.port().to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// The sender's address, and the message.
pub(crate) fn sender(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (family, rest) = bytes.split_first()?;
    let (ip, rest) = match *family {
        V4 => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        V6 => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        _ => return None,
    };
    let (port, message) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), message))
}

impl Packet<'_> {
    /// Encodes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
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
        }
        out
    }
}

impl<'a> Packet<'a> {
    /// Decodes; [`None`] for what this build does not know.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            WHOLE => Some(Packet::Whole(rest)),
            PART => {
                let (message, rest) = rest.split_first_chunk::<4>()?;
                let ([place, count], bytes) = rest.split_first_chunk::<2>()?;
                Some(Packet::Part(Part { message: u32::from_be_bytes(*message), place: *place, count: *count, bytes }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_kinds_survive_their_encoding() {
        let part = Packet::Part(Part { message: 7, place: 0, count: 1, bytes: b"a fragment" });
        assert_eq!(Packet::decode(&part.encode()), Some(part));
        assert_eq!(Packet::decode(&Packet::Whole(b"").encode()), Some(Packet::Whole(b"")));
        assert_eq!(Packet::decode(&[99, 1, 2]), None);
    }

    #[test]
    fn the_senders_address_is_in_front_of_its_message() {
        for addr in ["10.0.0.1:7447", "[fd00::1]:65535"] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(sender(&addressed(addr, b"hello")), Some((addr, &b"hello"[..])));
            assert_eq!(sender(&addressed(addr, b"")[..6]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let _ = (Packet::decode(&bytes), sender(&bytes));
        }
    }
}
