//! Authenticated encryption of single datagrams. Who may be spoken to, and what was seen before, is
//! [`sessions`](super::sessions)' business.
//!
//! A datagram is a header in the open, and the sealed rest:
//!
//! ```text
//! version 1 | key id 4 | sender's session 8 | receiver's session 8 | counter 8 | ciphertext | tag 16
//! ```
//!
//! The last three fields of the header are XChaCha20-Poly1305's nonce; all of it is authenticated. The
//! cluster's id goes into the key's derivation, so a datagram of another cluster does not open even with the same key.
//! A nonce never comes twice under one key: a session is 64 random bits drawn by one process, and that process counts
//! up for each receiver.

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};

use super::keyring::{Key, KeyId, Keyring};
use super::stats::DropReason;

/// The format that this build speaks.
pub const FORMAT: u8 = 1;
/// Bytes of a header.
pub const HEADER: usize = 5 + NONCE;
/// Bytes of the authentication tag.
pub const TAG: usize = 16;
/// Bytes of a datagram at most: what passes every path of an IPv6 network (1,280) with room for tunnels.
pub const DATAGRAM: usize = 1_200;
/// Bytes of plaintext in one datagram at most.
pub const PLAINTEXT: usize = DATAGRAM - HEADER - TAG;

const NONCE: usize = 24;

/// What stands in front of each datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which key sealed it.
    pub key: KeyId,
    /// The sender's session.
    pub sender: u64,
    /// The receiver's session; 0 when the sender does not know it.
    pub receiver: u64,
    /// Counts the sender's datagrams to that receiver.
    pub counter: u64,
}

impl Header {
    /// Reads a datagram's header; the rest is what it seals.
    pub fn parse(datagram: &[u8]) -> Result<(Header, &[u8]), DropReason> {
        let (version, rest) = datagram.split_first().ok_or(DropReason::Short)?;
        if *version != FORMAT {
            return Err(DropReason::Version);
        }
        if datagram.len() > DATAGRAM {
            return Err(DropReason::Oversized);
        }
        let (key, rest) = rest.split_first_chunk::<4>().ok_or(DropReason::Short)?;
        let (sender, rest) = rest.split_first_chunk::<8>().ok_or(DropReason::Short)?;
        let (receiver, rest) = rest.split_first_chunk::<8>().ok_or(DropReason::Short)?;
        let (counter, rest) = rest.split_first_chunk::<8>().ok_or(DropReason::Short)?;
        if rest.len() < TAG {
            return Err(DropReason::Short);
        }
        let header = Header {
            key: KeyId(*key),
            sender: u64::from_be_bytes(*sender),
            receiver: u64::from_be_bytes(*receiver),
            counter: u64::from_be_bytes(*counter),
        };
        Ok((header, rest))
    }

    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = FORMAT;
        bytes[1..5].copy_from_slice(&self.key.0);
        bytes[5..].copy_from_slice(&self.nonce());
        bytes
    }

    fn nonce(self) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        nonce[..8].copy_from_slice(&self.sender.to_be_bytes());
        nonce[8..16].copy_from_slice(&self.receiver.to_be_bytes());
        nonce[16..].copy_from_slice(&self.counter.to_be_bytes());
        nonce
    }
}

/// The keys of a ring, each made ready for one purpose in one cluster.
pub struct Cipher {
    keys: Vec<(KeyId, XChaCha20Poly1305)>,
}

/// The purpose of the keys that seal datagrams.
pub(crate) const GOSSIP: &str = "gossip 1";
/// The purpose of the keys that seal the peer cache.
pub(crate) const CACHE: &str = "cache 1";

impl Cipher {
    /// The cipher that seals datagrams.
    pub fn for_gossip(keyring: &Keyring, cluster: &str) -> Cipher {
        Cipher::new(keyring, GOSSIP, cluster)
    }

    /// The cipher for a purpose.
    pub(crate) fn new(keyring: &Keyring, purpose: &str, cluster: &str) -> Cipher {
        let ready = |key: &Key| (key.id(), XChaCha20Poly1305::new(&key.derive(purpose, cluster).into()));
        Cipher { keys: keyring.keys().iter().map(ready).collect() }
    }

    /// The id of the key that seals.
    pub(crate) fn sealing_key(&self) -> KeyId {
        self.keys.first().map_or(KeyId([0; 4]), |(id, _)| *id)
    }

    /// Seals one datagram, with the first key.
    pub fn seal(&self, sender: u64, receiver: u64, counter: u64, plaintext: &[u8]) -> Vec<u8> {
        let header = Header { key: self.sealing_key(), sender, receiver, counter };
        let mut datagram = Vec::with_capacity(HEADER + plaintext.len() + TAG);
        datagram.extend(header.to_bytes());
        self.seal_after(&mut datagram, &header.nonce(), plaintext);
        datagram
    }

    /// Opens one datagram with whichever key sealed it.
    pub fn open(&self, datagram: &[u8]) -> Result<(Header, Vec<u8>), DropReason> {
        let (header, sealed) = Header::parse(datagram)?;
        let head = datagram.get(..HEADER).ok_or(DropReason::Short)?;
        self.open_sealed(header.key, head, &header.nonce(), sealed).map(|plaintext| (header, plaintext))
    }

    /// Appends sealed `plaintext` to `head`, which is authenticated with it.
    pub(crate) fn seal_after(&self, head: &mut Vec<u8>, nonce: &[u8; NONCE], plaintext: &[u8]) {
        let start = head.len();
        head.extend_from_slice(plaintext);
        let (head_part, body) = head.split_at_mut(start);
        let (_, cipher) = self.keys.first().expect("a ring has at least one key");
        let tag =
            cipher.encrypt_in_place_detached(XNonce::from_slice(nonce), head_part, body).expect("XChaCha20 seals up to 256 GiB");
        head.extend_from_slice(&tag);
    }

    /// Opens what was sealed after `head` with the key of this id.
    pub(crate) fn open_sealed(&self, key: KeyId, head: &[u8], nonce: &[u8; NONCE], sealed: &[u8]) -> Result<Vec<u8>, DropReason> {
        let at = sealed.len().checked_sub(TAG).ok_or(DropReason::Short)?;
        let (body, tag) = sealed.split_at(at);
        let mut refusal = DropReason::UnknownKey;
        // Ids are 32 bits of a hash: two keys of one ring may share one.
        for (_, cipher) in self.keys.iter().filter(|(id, _)| *id == key) {
            let mut plaintext = body.to_vec();
            match cipher.decrypt_in_place_detached(XNonce::from_slice(nonce), head, &mut plaintext, Tag::from_slice(tag)) {
                Ok(()) => return Ok(plaintext),
                Err(_) => refusal = DropReason::Unauthentic,
            }
        }
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cipher() -> Cipher {
        Cipher::for_gossip(&Keyring::random(), "c")
    }

    #[test]
    fn what_is_sealed_opens_for_who_has_the_key() {
        let cipher = cipher();
        let datagram = cipher.seal(1, 2, 3, b"hello");
        let (header, plaintext) = cipher.open(&datagram).unwrap();
        assert_eq!((header.sender, header.receiver, header.counter), (1, 2, 3));
        assert_eq!(plaintext, b"hello");
        assert!(!datagram.windows(5).any(|window| window == b"hello"));
    }

    #[test]
    fn another_key_or_another_cluster_opens_nothing() {
        let ring = Keyring::random();
        let datagram = Cipher::for_gossip(&ring, "a").seal(1, 2, 3, b"x");
        assert_eq!(cipher().open(&datagram).unwrap_err(), DropReason::UnknownKey);
        assert_eq!(Cipher::for_gossip(&ring, "b").open(&datagram).unwrap_err(), DropReason::Unauthentic);
        assert_eq!(Cipher::new(&ring, CACHE, "a").open(&datagram).unwrap_err(), DropReason::Unauthentic);
    }

    #[test]
    fn every_byte_of_a_datagram_is_authenticated() {
        let cipher = cipher();
        let datagram = cipher.seal(1, 2, 3, b"payload");
        for place in 0..datagram.len() {
            let mut bent = datagram.clone();
            bent[place] ^= 1;
            assert!(cipher.open(&bent).is_err(), "byte {place}");
        }
    }

    #[test]
    fn a_truncated_long_or_later_datagram_has_its_own_reason() {
        let cipher = cipher();
        let datagram = cipher.seal(1, 2, 3, b"");
        assert_eq!(cipher.open(&datagram[..datagram.len() - 1]).unwrap_err(), DropReason::Short);
        assert_eq!(cipher.open(&[]).unwrap_err(), DropReason::Short);
        assert_eq!(cipher.open(&[0; 65_507]).unwrap_err(), DropReason::Version);
        let mut long = datagram.clone();
        long.resize(DATAGRAM + 1, 0);
        assert_eq!(cipher.open(&long).unwrap_err(), DropReason::Oversized);
        let mut later = datagram;
        later[0] = FORMAT + 1;
        assert_eq!(cipher.open(&later).unwrap_err(), DropReason::Version);
    }

    proptest! {
        #[test]
        fn any_bytes_open_to_nothing(mut bytes in proptest::collection::vec(any::<u8>(), 0..1300), known in any::<bool>()) {
            let cipher = cipher();
            if known && bytes.len() > 5 {
                bytes[0] = FORMAT;
                bytes[1..5].copy_from_slice(&cipher.sealing_key().0);
            }
            prop_assert!(cipher.open(&bytes).is_err());
        }

        #[test]
        fn any_plaintext_comes_back(plaintext in proptest::collection::vec(any::<u8>(), 0..PLAINTEXT), counter in any::<u64>()) {
            let cipher = cipher();
            prop_assert_eq!(cipher.open(&cipher.seal(1, 2, counter, &plaintext)).unwrap().1, plaintext);
        }
    }
}
