//! What a datagram between core members holds once it is open: a message of chitchat, or a fragment of one. Each message
//! comes with the address to which its sender wants the reply.

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

/// A message of chitchat, and its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Letter<'a> {
    /// Where the sender wants the reply.
    pub(crate) sender: SocketAddr,
    /// The sender's signed record, where the receiver may not hold it; else empty.
    pub(crate) record: &'a [u8],
    pub(crate) message: &'a [u8],
}

impl Letter<'_> {
    /// Encodes.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(1 + 16 + 2 + 2 + self.record.len() + self.message.len());
        match self.sender.ip() {
            IpAddr::V4(ip) => {
                out.push(V4);
                out.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(V6);
                out.extend(ip.octets());
            }
        }
        out.extend(self.sender.port().to_be_bytes());
        out.extend(u16::try_from(self.record.len()).ok()?.to_be_bytes());
        out.extend_from_slice(self.record);
        out.extend_from_slice(self.message);
        Some(out)
    }
}

impl<'a> Letter<'a> {
    /// Decodes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Letter<'a>> {
        let (family, rest) = bytes.split_first()?;
        let (ip, rest) = match *family {
            V4 => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
            V6 => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
            _ => return None,
        };
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let (record, message) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        Some(Letter { sender: SocketAddr::new(ip, u16::from_be_bytes(*port)), record, message })
    }
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
    fn a_letter_survives_its_encoding_and_is_nothing_when_cut_off() {
        for sender in ["10.0.0.1:7447", "[fd00::1]:65535"] {
            let letter = Letter { sender: sender.parse().unwrap(), record: b"signed", message: b"hello" };
            let bytes = letter.encode().unwrap();
            assert_eq!(Letter::decode(&bytes), Some(letter));
            assert_eq!(Letter::decode(&bytes[..bytes.len() - 6]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let _ = (Packet::decode(&bytes), Letter::decode(&bytes));
        }
    }
}
