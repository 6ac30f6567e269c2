//! An agent of a later build: what it signs has a later format version, and is otherwise what this build writes.
//!
//! It is the shipping agent. Only its socket differs: it opens what goes out, raises the version of the agent's own signed items,
//! whether gossip's library carries them or an Update does, and seals it again. What was compressed or split is put together
//! first. The formats are those of `src/gossip/packet.rs`, `fragment.rs`, `item.rs` and of the library, of which no more is read
//! here than where an item begins; a message whose shape is unknown goes out as it is.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use prismesh::engine::NodeId;
use prismesh::gossip::Keyring;
use prismesh::gossip::envelope::{Envelopes, Kind, PLAINTEXT};
use prismesh::gossip::item::{FORMAT, SignedItem};
use prismesh::gossip::message::{Report, Update};
use prismesh::world::{BoxFuture, Datagram, DatagramSocket};

use super::run::CLUSTER;
use super::seams::Host;

/// What this build cannot read.
const LATER: u8 = FORMAT + 1;
/// Kinds of packets, by their first byte.
const WHOLE: u8 = 1;
const PART: u8 = 2;
/// In front of a part's own bytes: kind, message, place and count.
const PART_HEAD: usize = 7;
/// Of gossip's library: the kinds of messages that carry records, and the most in a block and in a message.
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;
const BLOCK: usize = 16_384;
const MESSAGE: usize = 64 * 1024;

/// The network as an agent of a later build uses it.
pub(super) struct Newer {
    host: Host,
    of: Arc<Translator>,
}

struct Translator {
    envelopes: Envelopes,
    keyring: Keyring,
    own: String,
    /// Parts of messages of which the last one has not been sent yet.
    waiting: Mutex<Waiting>,
}

/// Parts by receiver and message.
type Waiting = BTreeMap<(SocketAddr, u32), Vec<Vec<u8>>>;

impl Newer {
    pub(super) fn new(host: Host, name: &str, keyring: &Keyring) -> Newer {
        let envelopes = Envelopes::new(keyring, CLUSTER);
        let own = NodeId::of(name).as_str().to_owned();
        Newer { host, of: Arc::new(Translator { envelopes, keyring: keyring.clone(), own, waiting: Mutex::default() }) }
    }
}

impl Datagram for Newer {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
        Box::pin(async move {
            let socket = Datagram::bind(&self.host, addr).await?;
            Ok(Box::new(NewerSocket { socket, of: self.of.clone() }) as Box<dyn DatagramSocket>)
        })
    }

    fn source_towards(&self, to: SocketAddr) -> io::Result<IpAddr> {
        Datagram::source_towards(&self.host, to)
    }
}

struct NewerSocket {
    socket: Box<dyn DatagramSocket>,
    of: Arc<Translator>,
}

impl DatagramSocket for NewerSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            for datagram in self.of.translated(to, bytes) {
                self.socket.send(to, &datagram).await?;
            }
            Ok(())
        })
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        self.socket.receive(buffer)
    }
}

impl Translator {
    /// What goes out in place of this datagram: nothing while the rest of its message is not there.
    fn translated(&self, to: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
        let Ok(opened) = self.envelopes.open(datagram) else { return vec![datagram.to_vec()] };
        let plaintext = opened.plaintext;
        let raised = match (opened.kind, plaintext.first()) {
            (Kind::Update, _) => self.raised_update(&plaintext),
            (Kind::Report, _) => self.raised_report(&plaintext),
            (Kind::Core, Some(&WHOLE)) => {
                self.raised_letter(&plaintext[1..]).map(|letter| [&[WHOLE], letter.as_slice()].concat())
            }
            (Kind::Core, Some(&PART)) => return self.part(to, plaintext),
            _ => None,
        };
        match raised {
            None => vec![datagram.to_vec()],
            // Its own build would have split it; here it is lost, and said again.
            Some(plaintext) if plaintext.len() > PLAINTEXT => Vec::new(),
            Some(plaintext) => self.envelopes.seal(opened.kind, &plaintext).into_iter().collect(),
        }
    }

    /// An Update in which what this node has signed is of the later format.
    fn raised_update(&self, plaintext: &[u8]) -> Option<Vec<u8>> {
        let mut update = Update::decode(plaintext)?;
        update.items.iter_mut().chain([&mut update.view]).for_each(|item| self.raise(item));
        update.encode()
    }

    /// The same of a Report.
    fn raised_report(&self, plaintext: &[u8]) -> Option<Vec<u8>> {
        let mut report = Report::decode(plaintext)?;
        report.items.iter_mut().for_each(|item| self.raise(item));
        report.encode()
    }

    /// The same of what core members send one another.
    fn raised_letter(&self, letter: &[u8]) -> Option<Vec<u8>> {
        let (head, message) = letter.split_at_checked(message_at(letter)?)?;
        let mut head = head.to_vec();
        let record = if head[0] == 4 { 1 + 4 + 4 } else { 1 + 16 + 4 };
        let own = head.len() > record;
        self.raise(&mut head[record..]);
        let raised = raised_message(message, &self.own);
        let message = raised.as_deref().or(own.then_some(message))?;
        Some([&head, message].concat())
    }

    fn raise(&self, item: &mut [u8]) {
        let signed = SignedItem::verify(item, &self.keyring, CLUSTER);
        if signed.is_ok_and(|signed| signed.item.node().as_str() == self.own) {
            item[0] = LATER;
        }
    }

    fn part(&self, to: SocketAddr, plaintext: Vec<u8>) -> Vec<Vec<u8>> {
        let Some([_, a, b, c, d, _, count]) = plaintext.first_chunk::<PART_HEAD>().copied() else { return Vec::new() };
        let key = (to, u32::from_be_bytes([a, b, c, d]));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = waiting.entry(key).or_default();
        parts.push(plaintext);
        if parts.len() < usize::from(count) {
            return Vec::new();
        }
        let parts = waiting.remove(&key).unwrap_or_default();
        drop(waiting);
        let parts = self.raised_parts(&parts).unwrap_or(parts);
        parts.iter().filter_map(|plaintext| self.envelopes.seal(Kind::Core, plaintext)).collect()
    }

    /// The same message in as many parts; [`None`] if it has no record of ours, or does not fit any more.
    fn raised_parts(&self, parts: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
        let compressed: Vec<u8> = parts.iter().flat_map(|plaintext| &plaintext[PART_HEAD..]).copied().collect();
        let letter = zstd::bulk::decompress(&compressed, MESSAGE).ok()?;
        let raised = zstd::bulk::compress(&self.raised_letter(&letter)?, 1).ok()?;
        let each = raised.len().div_ceil(parts.len());
        let fits = each <= PLAINTEXT - PART_HEAD && raised.len().div_ceil(each) == parts.len();
        let heads = parts.iter().map(|plaintext| &plaintext[..PART_HEAD]);
        fits.then(|| heads.zip(raised.chunks(each)).map(|(head, bytes)| [head, bytes].concat()).collect())
    }
}

/// Where a message of gossip's library begins: behind its sender's address and record.
fn message_at(letter: &[u8]) -> Option<usize> {
    let at = if *letter.first()? == 4 { 1 + 4 + 2 } else { 1 + 16 + 2 };
    let len = letter.get(at..at + 2)?;
    Some(at + 2 + usize::from(u16::from_be_bytes([len[0], len[1]])))
}

/// A message of gossip's library in which our own record, if it is there, is of the later format.
fn raised_message(message: &[u8], own: &str) -> Option<Vec<u8>> {
    let mut input = Input { bytes: message, at: 4 };
    match *message.get(3)? {
        SYN_ACK => input.digests()?,
        ACK => {}
        _ => return None,
    }
    let mut raised = message[..input.at].to_vec();
    let mut stream = input.stream()?;
    let records = Input { bytes: &stream, at: 0 }.records_of(own)?;
    for at in &records {
        raise_text(stream.get_mut(*at..*at + 2)?)?;
    }
    for block in stream.chunks(BLOCK) {
        let compressed = zstd::bulk::compress(block, 1).ok()?;
        let (kind, block) = if compressed.len() < block.len() { (1, compressed.as_slice()) } else { (2, block) };
        raised.push(kind);
        raised.extend(u16::try_from(block.len()).ok()?.to_le_bytes());
        raised.extend_from_slice(block);
    }
    raised.push(0);
    (!records.is_empty()).then_some(raised)
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The first byte of what is written in base64 stands in its first two signs.
fn raise_text(signs: &mut [u8]) -> Option<()> {
    let low = BASE64.iter().position(|sign| *sign == signs[1])? & 0b1111;
    signs[0] = BASE64[usize::from(LATER >> 2)];
    signs[1] = BASE64[usize::from(LATER & 0b11) << 4 | low];
    Some(())
}

/// What is being read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.take(2)?;
        self.take(usize::from(u16::from_le_bytes([length[0], length[1]])))
    }

    /// A node's id: its name, generation and address.
    fn id(&mut self) -> Option<&'a [u8]> {
        let name = self.sized()?;
        self.take(8)?;
        let ip = if self.u8()? == 4 { 4 } else { 16 };
        self.take(ip + 2)?;
        Some(name)
    }

    fn digests(&mut self) -> Option<()> {
        let count = self.take(2)?;
        for _ in 0..u16::from_le_bytes([count[0], count[1]]) {
            self.id()?;
            self.take(3 * 8)?;
        }
        Some(())
    }

    /// What is told of nodes, without the blocks that it comes in.
    fn stream(&mut self) -> Option<Vec<u8>> {
        let mut stream = Vec::new();
        loop {
            match self.u8()? {
                0 => return Some(stream),
                1 => stream.extend(zstd::bulk::decompress(self.sized()?, BLOCK).ok()?),
                _ => stream.extend_from_slice(self.sized()?),
            }
        }
    }

    /// Where the records of this node begin.
    fn records_of(mut self, own: &str) -> Option<Vec<usize>> {
        let (mut found, mut ours) = (Vec::new(), false);
        while self.at < self.bytes.len() {
            match self.u8()? {
                0 => {
                    ours = self.id()? == own.as_bytes();
                    self.take(2 * 8)?;
                }
                1 => {
                    let record = self.sized()? == b"r";
                    let at = self.at + 2;
                    let length = self.sized()?.len();
                    found.extend((ours && record && length >= 2).then_some(at));
                    self.take(8 + 1)?;
                }
                _ => drop(self.take(8)?),
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_format_is_the_first_byte_in_base64() {
        // FORMAT, and twelve more bits.
        let mut signs = *b"AQ";
        raise_text(&mut signs).expect("base64");
        assert_eq!(&signs, b"Ag");
        let mut signs = *b"Af";
        raise_text(&mut signs).expect("base64");
        assert_eq!(&signs, b"Av");
    }
}
