//! The messages of gossip's library as they are on the wire, read and written here a second time.
//!
//! The library's own types hide their content, and its decoder believes what it reads: lengths, versions, and that a
//! small block does not grow without end. So a message is first taken apart here, where each part can be judged, and
//! put together anew from what was found good; only that is handed to the library's decoder.
//!
//! The format is that of chitchat 0.11 (its protocol version 0), numbers little-endian.

use std::net::{IpAddr, SocketAddr};

use chitchat::ChitchatId;
use zstd::bulk::Decompressor;

const MAGIC: u16 = 45_139;
const PROTOCOL: u8 = 0;

const SYN: u8 = 0;
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;

const NO_MORE_BLOCKS: u8 = 0;
const COMPRESSED: u8 = 1;
const UNCOMPRESSED: u8 = 2;
/// The library fills blocks to this.
const BLOCK: usize = 16_384;
/// Bytes of a delta, decompressed, at most: more than the records of all nodes that one may know.
const DELTA: usize = 1024 * 1024;

const OP_NODE: u8 = 0;
const OP_KEY_VALUE: u8 = 1;
const OP_MAX_VERSION: u8 = 2;

/// A message taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Syn { digest: Vec<Digest>, cluster: String },
    SynAck { digest: Vec<Digest>, delta: Vec<Delta> },
    Ack { delta: Vec<Delta> },
}

/// What the sender knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) id: ChitchatId,
    pub(crate) heartbeat: u64,
    pub(crate) last_gc_version: u64,
    pub(crate) max_version: u64,
}

/// What the sender tells of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) id: ChitchatId,
    pub(crate) last_gc_version: u64,
    pub(crate) from_version: u64,
    pub(crate) values: Vec<Value>,
    /// An operation that nobody with a record has a use for.
    pub(crate) sets_max_version: bool,
}

/// One key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) version: u64,
    pub(crate) status: u8,
}

/// Reads messages. Keeps its tools between two of them.
pub(crate) struct Decoder {
    decompressor: Option<Decompressor<'static>>,
    block: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { decompressor: None, block: Vec::new() }
    }

    /// Takes a message apart; [`None`] if it is none.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Option<Message> {
        let mut input = Input(bytes);
        if input.u16()? != MAGIC || input.u8()? != PROTOCOL {
            return None;
        }
        let message = match input.u8()? {
            SYN => Message::Syn { digest: digests(&mut input)?, cluster: input.text()?.to_owned() },
            SYN_ACK => Message::SynAck { digest: digests(&mut input)?, delta: self.deltas(&mut input)? },
            ACK => Message::Ack { delta: self.deltas(&mut input)? },
            _ => return None,
        };
        input.0.is_empty().then_some(message)
    }

    fn deltas(&mut self, input: &mut Input<'_>) -> Option<Vec<Delta>> {
        let stream = self.stream(input)?;
        let mut input = Input(&stream);
        let mut deltas: Vec<Delta> = Vec::new();
        while !input.0.is_empty() {
            match input.u8()? {
                OP_NODE => deltas.push(Delta {
                    id: input.id()?,
                    last_gc_version: input.u64()?,
                    from_version: input.u64()?,
                    values: Vec::new(),
                    sets_max_version: false,
                }),
                OP_KEY_VALUE => {
                    let value = Value {
                        key: input.text()?.to_owned(),
                        value: input.text()?.to_owned(),
                        version: input.u64()?,
                        status: input.u8()?,
                    };
                    deltas.last_mut()?.values.push(value);
                }
                OP_MAX_VERSION => {
                    input.u64()?;
                    deltas.last_mut()?.sets_max_version = true;
                }
                _ => return None,
            }
        }
        Some(deltas)
    }

    fn stream(&mut self, input: &mut Input<'_>) -> Option<Vec<u8>> {
        let mut stream = Vec::new();
        loop {
            let kind = input.u8()?;
            if kind == NO_MORE_BLOCKS {
                return Some(stream);
            }
            let len = usize::from(input.u16()?);
            let block = input.take(len)?;
            match kind {
                COMPRESSED => stream.extend_from_slice(self.decompress(block)?),
                UNCOMPRESSED => stream.extend_from_slice(block),
                _ => return None,
            }
            if stream.len() > DELTA {
                return None;
            }
        }
    }

    fn decompress(&mut self, block: &[u8]) -> Option<&[u8]> {
        if self.decompressor.is_none() {
            self.decompressor = Decompressor::new().ok();
        }
        self.block.resize(BLOCK, 0);
        let len = self.decompressor.as_mut()?.decompress_to_buffer(block, &mut self.block[..]).ok()?;
        self.block.get(..len)
    }
}

fn digests(input: &mut Input<'_>) -> Option<Vec<Digest>> {
    let count = input.u16()?;
    let mut digests = Vec::new();
    for _ in 0..count {
        digests.push(Digest {
            id: input.id()?,
            heartbeat: input.u64()?,
            last_gc_version: input.u64()?,
            max_version: input.u64()?,
        });
    }
    Some(digests)
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::from(self.u16()?);
        std::str::from_utf8(self.take(len)?).ok()
    }

    fn ip(&mut self) -> Option<IpAddr> {
        match self.u8()? {
            4 => self.array::<4>().map(IpAddr::from),
            6 => self.array::<16>().map(IpAddr::from),
            _ => None,
        }
    }

    fn id(&mut self) -> Option<ChitchatId> {
        let node = self.text()?;
        let generation = self.u64()?;
        let ip = self.ip()?;
        Some(ChitchatId::new(node, generation, SocketAddr::new(ip, self.u16()?)))
    }
}

impl Message {
    /// Puts the message together; the library's decoder reads it. [`None`] for what a valid message cannot hold.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        out.extend(MAGIC.to_le_bytes());
        out.push(PROTOCOL);
        match self {
            Message::Syn { digest, cluster } => {
                out.push(SYN);
                put_digests(&mut out, digest)?;
                put_text(&mut out, cluster)?;
            }
            Message::SynAck { digest, delta } => {
                out.push(SYN_ACK);
                put_digests(&mut out, digest)?;
                put_deltas(&mut out, delta)?;
            }
            Message::Ack { delta } => {
                out.push(ACK);
                put_deltas(&mut out, delta)?;
            }
        }
        Some(out)
    }
}

/// Bytes that a node takes in a digest.
pub(crate) fn digest_bytes(id: &ChitchatId) -> usize {
    let ip = if id.gossip_advertise_addr.is_ipv4() { 4 } else { 16 };
    2 + id.node_id.len() + 8 + 1 + ip + 2 + 3 * 8
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Option<()> {
    out.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Some(())
}

fn put_id(out: &mut Vec<u8>, id: &ChitchatId) -> Option<()> {
    put_text(out, &id.node_id)?;
    out.extend(id.generation_id.to_le_bytes());
    match id.gossip_advertise_addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    out.extend(id.gossip_advertise_addr.port().to_le_bytes());
    Some(())
}

fn put_digests(out: &mut Vec<u8>, digests: &[Digest]) -> Option<()> {
    out.extend(u16::try_from(digests.len()).ok()?.to_le_bytes());
    for digest in digests {
        put_id(out, &digest.id)?;
        for number in [digest.heartbeat, digest.last_gc_version, digest.max_version] {
            out.extend(number.to_le_bytes());
        }
    }
    Some(())
}

fn put_deltas(out: &mut Vec<u8>, deltas: &[Delta]) -> Option<()> {
    let mut stream = Vec::new();
    for delta in deltas {
        stream.push(OP_NODE);
        put_id(&mut stream, &delta.id)?;
        stream.extend(delta.last_gc_version.to_le_bytes());
        stream.extend(delta.from_version.to_le_bytes());
        for value in &delta.values {
            stream.push(OP_KEY_VALUE);
            put_text(&mut stream, &value.key)?;
            put_text(&mut stream, &value.value)?;
            stream.extend(value.version.to_le_bytes());
            stream.push(value.status);
        }
        if delta.sets_max_version {
            stream.push(OP_MAX_VERSION);
            stream.extend(0_u64.to_le_bytes());
        }
    }
    // Not compressed: it goes no further than the next function.
    for block in stream.chunks(BLOCK) {
        out.push(UNCOMPRESSED);
        out.extend(u16::try_from(block.len()).ok()?.to_le_bytes());
        out.extend_from_slice(block);
    }
    out.push(NO_MORE_BLOCKS);
    Some(())
}

#[cfg(test)]
mod tests {
    use chitchat::{ChitchatMessage, Deserializable, Serializable};
    use proptest::prelude::*;

    use super::*;

    fn id(node: &str) -> ChitchatId {
        ChitchatId::new(node, 7, "10.0.0.1:7447".parse().unwrap())
    }

    fn syn_ack() -> Message {
        let value = |n: u64| Value { key: "r".to_owned(), value: "v".repeat(500), version: n, status: 0 };
        let delta = |n: u64| Delta {
            id: id(&format!("node{n}")),
            last_gc_version: 0,
            from_version: 0,
            values: vec![value(n + 1)],
            sets_max_version: false,
        };
        let digest = |n: u64| Digest { id: id(&format!("node{n}")), heartbeat: n, last_gc_version: 0, max_version: n };
        Message::SynAck { digest: (0..90).map(digest).collect(), delta: (0..90).map(delta).collect() }
    }

    fn through_the_library(message: &Message) -> Message {
        let bytes = message.encode().unwrap();
        let theirs = ChitchatMessage::deserialize(&mut &bytes[..]).unwrap();
        // The library's delta remembers the length that it had on the wire, so only one without a delta is written again.
        let again = match message {
            Message::Syn { .. } => theirs.serialize_to_vec(),
            _ => bytes,
        };
        Decoder::new().decode(&again).unwrap()
    }

    #[test]
    fn the_library_reads_what_is_written_here_and_the_other_way_round() {
        let syn = Message::Syn {
            digest: vec![Digest { id: id("a"), heartbeat: 1, last_gc_version: 2, max_version: 3 }],
            cluster: "c".into(),
        };
        assert_eq!(through_the_library(&syn), syn);
        assert_eq!(through_the_library(&syn_ack()), syn_ack());
        let ack = Message::Ack { delta: Vec::new() };
        assert_eq!(through_the_library(&ack), ack);
    }

    #[test]
    fn a_node_weighs_in_a_digest_what_is_counted_for_it() {
        let digest = |digest| Message::Syn { digest, cluster: String::new() }.encode().unwrap().len();
        let one = Digest { id: id("abcdefgh"), heartbeat: 1, last_gc_version: 2, max_version: 3 };
        assert_eq!(digest(vec![one.clone()]) - digest(Vec::new()), digest_bytes(&one.id));
    }

    #[test]
    fn a_stream_of_bombs_is_given_up_on() {
        let bomb = zstd::bulk::compress(&[0; BLOCK], 1).unwrap();
        let mut bytes = Message::Ack { delta: Vec::new() }.encode().unwrap();
        bytes.pop();
        for _ in 0..200 {
            bytes.push(COMPRESSED);
            bytes.extend(u16::try_from(bomb.len()).unwrap().to_le_bytes());
            bytes.extend(&bomb);
        }
        bytes.push(NO_MORE_BLOCKS);
        assert_eq!(Decoder::new().decode(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..600), kind in 0_u8..4) {
            let mut framed = MAGIC.to_le_bytes().to_vec();
            framed.extend([PROTOCOL, kind]);
            framed.extend(&bytes);
            let _ = Decoder::new().decode(&framed);
            let _ = Decoder::new().decode(&bytes);
        }

        #[test]
        fn a_damaged_message_is_a_message_or_nothing(place in any::<usize>(), byte in any::<u8>()) {
            let mut bytes = syn_ack().encode().unwrap();
            let place = place % bytes.len();
            bytes[place] = byte;
            if let Some(message) = Decoder::new().decode(&bytes) {
                let _ = message.encode();
            }
        }
    }
}
