//! Authenticated encryption of single datagrams.
//!
//! ```text
//! format 1 | kind 1 | key id 4 | nonce 24 | ciphertext | tag 16
//! ```
//!
//! XChaCha20-Poly1305; format, kind and key id are authenticated, and the cluster's id goes into the derivation of the key, so
//! that a datagram of another cluster does not open even under the same keyring. Reports and Updates are sealed with the group
//! key, traffic of the core with the core key, which no worker has.
//!
//! There are no counters and no sessions. The nonce is the front of HMAC-SHA256(nonce key, 32 random bytes ‖ header ‖
//! plaintext): a process that was forked, or a machine that resumes a snapshot, draws the same random bytes again, and still
//! repeats a nonce only for an equal datagram.

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::keys::{Key, KeyId, Keyring};
use super::stats::DropReason;

/// The format that this build speaks.
pub const FORMAT: u8 = 1;
/// Bytes of the authentication tag.
const TAG: usize = 16;
const NONCE: usize = 24;
/// Bytes that are authenticated and not encrypted.
const HEADER: usize = 1 + 1 + 4;
/// Bytes of a datagram beside its plaintext.
pub const OVERHEAD: usize = HEADER + NONCE + TAG;
/// Bytes of a datagram at most: what passes every path of an IPv6 network (1,280) with room for tunnels.
pub const DATAGRAM: usize = 1_200;
/// Bytes of plaintext in one datagram at most.
pub const PLAINTEXT: usize = DATAGRAM - OVERHEAD;

/// What a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A question: see [`Report`](super::message::Report).
    Report,
    /// An answer, or a push: see [`Update`](super::message::Update).
    Update,
    /// A message of chitchat, or a part of one, between core members.
    Core,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Report, Kind::Update, Kind::Core];

    fn code(self) -> u8 {
        match self {
            Kind::Report => 1,
            Kind::Update => 2,
            Kind::Core => 3,
        }
    }

    fn of(code: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// A datagram that was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// What it carries.
    pub kind: Kind,
    /// Which key sealed it: its answer is sealed with the same.
    pub key: KeyId,
    /// What was sealed.
    pub plaintext: Vec<u8>,
}

/// Why a datagram does not open, and under which key it says that it was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: DropReason,
    /// The key id in its header, where there is one.
    pub key: Option<KeyId>,
}

/// The keys of a ring, each made ready for the datagrams of one cluster.
pub struct Envelopes {
    keys: Vec<Ready>,
}

struct Ready {
    id: KeyId,
    group: XChaCha20Poly1305,
    core: Option<XChaCha20Poly1305>,
    nonce: [u8; 32],
}

impl Ready {
    fn new(key: &Key, cluster: &str) -> Ready {
        let cipher = |secret: [u8; 32]| XChaCha20Poly1305::new(&secret.into());
        Ready {
            id: key.id(),
            group: cipher(key.derive("datagram 1", cluster)),
            core: key.derive_core("core 1", cluster).map(cipher),
            nonce: key.derive("nonce 1", cluster),
        }
    }

    fn cipher(&self, kind: Kind) -> Option<&XChaCha20Poly1305> {
        match kind {
            Kind::Report | Kind::Update => Some(&self.group),
            Kind::Core => self.core.as_ref(),
        }
    }
}

fn draw_nonce(key: &[u8; 32], random: [u8; 32], header: &[u8], plaintext: &[u8]) -> [u8; NONCE] {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in [&random[..], header, plaintext] {
        mac.update(part);
    }
    let mut nonce = [0; NONCE];
    nonce.copy_from_slice(&mac.finalize().into_bytes()[..NONCE]);
    nonce
}

/// A file that is sealed as datagrams are: what its caller writes in front, then key id, nonce, ciphertext and tag.
pub(super) struct Sealed;

impl Sealed {
    /// Appends key id and nonce to `head`, and after them what is sealed with the first key.
    pub(super) fn seal(keyring: &Keyring, purpose: &str, cluster: &str, mut head: Vec<u8>, plaintext: &[u8]) -> Vec<u8> {
        let key = keyring.primary();
        head.extend(key.id().0);
        let nonce = draw_nonce(&key.derive("nonce 1", cluster), rand::random(), &head, plaintext);
        head.extend(nonce);
        let mut body = plaintext.to_vec();
        let cipher = XChaCha20Poly1305::new(&key.derive(purpose, cluster).into());
        let sealed = cipher.encrypt_in_place_detached(XNonce::from_slice(&nonce), &head, &mut body);
        let tag = sealed.expect("XChaCha20 seals up to 256 GiB");
        head.extend(body);
        head.extend_from_slice(&tag);
        head
    }

    /// Opens what was sealed after `head`.
    pub(super) fn open(
        keyring: &Keyring,
        purpose: &str,
        cluster: &str,
        key: KeyId,
        head: &[u8],
        nonce: &[u8; NONCE],
        sealed: &[u8],
    ) -> Result<Vec<u8>, DropReason> {
        let (body, tag) = sealed.split_at(sealed.len().checked_sub(TAG).ok_or(DropReason::Short)?);
        let mut refusal = DropReason::UnknownKey;
        for key in keyring.keys().iter().filter(|candidate| candidate.id() == key) {
            let cipher = XChaCha20Poly1305::new(&key.derive(purpose, cluster).into());
            let mut plaintext = body.to_vec();
            match cipher.decrypt_in_place_detached(XNonce::from_slice(nonce), head, &mut plaintext, Tag::from_slice(tag)) {
                Ok(()) => return Ok(plaintext),
                Err(_) => refusal = DropReason::Unauthentic,
            }
        }
        Err(refusal)
    }
}

impl Envelopes {
    /// Those of a keyring, for one cluster.
    pub fn new(keyring: &Keyring, cluster: &str) -> Envelopes {
        Envelopes { keys: keyring.keys().iter().map(|key| Ready::new(key, cluster)).collect() }
    }

    /// Seals with the first key. [`None`] for what is too long, and for traffic of the core without its key.
    pub fn seal(&self, kind: Kind, plaintext: &[u8]) -> Option<Vec<u8>> {
        seal(self.keys.first()?, kind, rand::random(), plaintext)
    }

    /// Seals with the key of this id, as an answer is to its question; with the first where that is gone.
    pub fn seal_with(&self, key: KeyId, kind: Kind, plaintext: &[u8]) -> Option<Vec<u8>> {
        let ready = self.keys.iter().find(|ready| ready.id == key).or(self.keys.first())?;
        seal(ready, kind, rand::random(), plaintext)
    }

    /// Opens with whichever key sealed it.
    pub fn open(&self, datagram: &[u8]) -> Result<Opened, Refused> {
        let refused = |reason| Refused { reason, key: None };
        if datagram.len() > DATAGRAM {
            return Err(refused(DropReason::Oversized));
        }
        let ([format, kind], rest) = datagram.split_first_chunk::<2>().ok_or(refused(DropReason::Short))?;
        if *format != FORMAT {
            return Err(refused(DropReason::Version));
        }
        let (key, rest) = rest.split_first_chunk::<4>().ok_or(refused(DropReason::Short))?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or(refused(DropReason::Short))?;
        let (body, tag) = rest.split_at_checked(rest.len().saturating_sub(TAG)).ok_or(refused(DropReason::Short))?;
        if tag.len() < TAG {
            return Err(refused(DropReason::Short));
        }
        let key = KeyId(*key);
        let mut reason = DropReason::UnknownKey;
        let kind = Kind::of(*kind).ok_or(Refused { reason: DropReason::Version, key: Some(key) })?;
        let header = datagram.get(..HEADER).unwrap_or_default();
        // Ids are 32 bits of a hash: two keys of one ring may share one.
        for ready in self.keys.iter().filter(|ready| ready.id == key) {
            let Some(cipher) = ready.cipher(kind) else {
                reason = DropReason::NotCore;
                continue;
            };
            let mut plaintext = body.to_vec();
            match cipher.decrypt_in_place_detached(XNonce::from_slice(nonce), header, &mut plaintext, Tag::from_slice(tag)) {
                Ok(()) => return Ok(Opened { kind, key, plaintext }),
                Err(_) => reason = DropReason::Unauthentic,
            }
        }
        Err(Refused { reason, key: Some(key) })
    }
}

fn seal(ready: &Ready, kind: Kind, random: [u8; 32], plaintext: &[u8]) -> Option<Vec<u8>> {
    if plaintext.len() > PLAINTEXT {
        return None;
    }
    let mut datagram = Vec::with_capacity(OVERHEAD + plaintext.len());
    datagram.extend([FORMAT, kind.code()]);
    datagram.extend(ready.id.0);
    let nonce = draw_nonce(&ready.nonce, random, &datagram, plaintext);
    datagram.extend(nonce);
    datagram.extend_from_slice(plaintext);
    let (head, body) = datagram.split_at_mut(HEADER + NONCE);
    let header = head.get(..HEADER)?;
    let tag = ready.cipher(kind)?.encrypt_in_place_detached(XNonce::from_slice(&nonce), header, body).ok()?;
    datagram.extend_from_slice(&tag);
    Some(datagram)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full() -> Keyring {
        Keyring::random()
    }

    fn reader(of: &Keyring) -> Keyring {
        Keyring::parse(of.reader_text().as_bytes()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_for_who_has_the_key() {
        let ring = full();
        let (core, worker) = (Envelopes::new(&ring, "c"), Envelopes::new(&reader(&ring), "c"));
        let datagram = core.seal(Kind::Update, b"hello").unwrap();
        let opened = worker.open(&datagram).unwrap();
        assert_eq!((opened.kind, opened.plaintext.as_slice()), (Kind::Update, &b"hello"[..]));
        assert_eq!(core.open(&worker.seal(Kind::Report, b"x").unwrap()).unwrap().kind, Kind::Report);
        assert!(!datagram.windows(5).any(|window| window == b"hello"));
    }

    #[test]
    fn a_worker_neither_opens_nor_seals_what_is_for_the_core() {
        let ring = full();
        let (core, worker) = (Envelopes::new(&ring, "c"), Envelopes::new(&reader(&ring), "c"));
        let datagram = core.seal(Kind::Core, b"digest").unwrap();
        assert_eq!(worker.open(&datagram).unwrap_err().reason, DropReason::NotCore);
        assert_eq!(worker.seal(Kind::Core, b"digest"), None);
        let mut bent = worker.seal(Kind::Report, b"digest").unwrap();
        bent[1] = Kind::Core.code();
        assert_eq!(core.open(&bent).unwrap_err().reason, DropReason::Unauthentic);
    }

    #[test]
    fn another_key_or_another_cluster_opens_nothing_and_the_key_is_named() {
        let ring = full();
        let datagram = Envelopes::new(&ring, "a").seal(Kind::Report, b"x").unwrap();
        let id = Some(ring.keys()[0].id());
        let opened = |ring: &Keyring, cluster: &str| Envelopes::new(ring, cluster).open(&datagram).unwrap_err();
        assert_eq!(opened(&full(), "a"), Refused { reason: DropReason::UnknownKey, key: id });
        assert_eq!(opened(&ring, "b"), Refused { reason: DropReason::Unauthentic, key: id });
    }

    #[test]
    fn an_answer_is_sealed_with_the_key_of_its_question() {
        let (old, new) = (full(), full());
        let both = Keyring::parse(format!("{}{}", new.to_text(), old.to_text()).as_bytes()).unwrap();
        let (before, during) = (Envelopes::new(&old, "c"), Envelopes::new(&both, "c"));
        let question = during.open(&before.seal(Kind::Report, b"?").unwrap()).unwrap();
        let answer = during.seal_with(question.key, Kind::Update, b"!").unwrap();
        assert!(before.open(&answer).is_ok());
        assert_eq!(before.open(&during.seal(Kind::Update, b"!").unwrap()).unwrap_err().reason, DropReason::UnknownKey);
    }

    #[test]
    fn the_same_random_bytes_repeat_a_nonce_only_for_an_equal_datagram() {
        let ring = full();
        let ready = Ready::new(&ring.keys()[0], "c");
        let sealed = |kind, plaintext: &[u8]| seal(&ready, kind, [7; 32], plaintext).unwrap();
        let nonce = |datagram: &[u8]| datagram[HEADER..HEADER + NONCE].to_vec();
        let first = sealed(Kind::Report, b"one");
        assert_eq!(first, sealed(Kind::Report, b"one"));
        assert_ne!(nonce(&first), nonce(&sealed(Kind::Report, b"two")));
        assert_ne!(nonce(&first), nonce(&sealed(Kind::Update, b"one")));
        assert_ne!(nonce(&first), nonce(&seal(&ready, Kind::Report, [8; 32], b"one").unwrap()));
    }

    #[test]
    fn every_byte_of_a_datagram_is_authenticated() {
        let envelopes = Envelopes::new(&full(), "c");
        let datagram = envelopes.seal(Kind::Report, b"payload").unwrap();
        for place in 0..datagram.len() {
            let mut bent = datagram.clone();
            bent[place] ^= 1;
            assert!(envelopes.open(&bent).is_err(), "byte {place}");
        }
    }

    #[test]
    fn a_truncated_long_or_later_datagram_has_its_own_reason() {
        let envelopes = Envelopes::new(&full(), "c");
        let datagram = envelopes.seal(Kind::Report, b"").unwrap();
        let reason = |bytes: &[u8]| envelopes.open(bytes).unwrap_err().reason;
        assert_eq!(datagram.len(), OVERHEAD);
        assert_eq!(reason(&datagram[..datagram.len() - 1]), DropReason::Short);
        assert_eq!(reason(&[]), DropReason::Short);
        assert_eq!(reason(&[0; DATAGRAM]), DropReason::Version);
        assert_eq!(reason(&[FORMAT; DATAGRAM + 1]), DropReason::Oversized);
        let mut later = datagram;
        later[1] = 77;
        assert_eq!(reason(&later), DropReason::Version);
        assert_eq!(envelopes.seal(Kind::Report, &[0; PLAINTEXT + 1]), None);
        assert_eq!(envelopes.seal(Kind::Report, &[0; PLAINTEXT]).unwrap().len(), DATAGRAM);
    }

    proptest! {
        #[test]
        fn any_bytes_open_to_nothing(mut bytes in proptest::collection::vec(any::<u8>(), 0..1300), known in any::<bool>()) {
            let ring = full();
            let envelopes = Envelopes::new(&ring, "c");
            if known && bytes.len() > 5 {
                bytes[0] = FORMAT;
                bytes[1] = Kind::Report.code();
                bytes[2..6].copy_from_slice(&ring.keys()[0].id().0);
            }
            prop_assert!(envelopes.open(&bytes).is_err());
        }
    }
}
