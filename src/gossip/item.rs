//! What core members sign: records, views and removals.
//!
//! An item travels, rests on disk and is handed on as the bytes that its author made; what is verified are those bytes, never
//! an encoding made again here.
//!
//! ```text
//! format 1 | kind 1 | key id 4 | signature 64 | body
//! ```
//!
//! The signature is Ed25519 over "prismesh " ‖ kind ‖ format ‖ length of the cluster's id (2) ‖ cluster's id ‖ body, and is
//! checked strictly: no weak keys, no second form of one signature.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{SIGNATURE_LENGTH, Signature, Signer as _};
use serde::{Deserialize, Serialize};

use super::codec;
use super::codes;
use super::keys::{KeyId, Keyring};
use super::stats::DropReason;
use crate::engine::endpoint::{Endpoint, EndpointTag, NodeId};
use crate::engine::event::{AgentState, ApiserverState, Role};
use crate::engine::policy;

/// The format that this build writes.
pub const FORMAT: u8 = 1;
/// Bytes of a signed item at most: one, and what stands beside it, fits a datagram.
pub const ITEM_BYTES: usize = 960;
/// Bytes of a node's name at most, as in DNS.
pub const NAME_BYTES: usize = 253;
/// Gossip addresses in a record at most.
pub const ADDRESSES: usize = 4;
/// Core members in a view at most.
pub const LIVE: usize = 32;
/// Endpoints in a view at most.
pub const ENDPOINTS: usize = 32;

const HEAD: usize = 1 + 1 + 4 + SIGNATURE_LENGTH;

/// A core member's statement about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The node's name.
    pub name: String,
    /// Which start of its gossip; a higher one replaces a lower one.
    pub generation: u64,
    /// Grows with each change within a generation.
    pub version: u64,
    /// Whether it runs an apiserver.
    pub role: Role,
    /// Its agent's state.
    pub agent: AgentState,
    /// What it says of its own apiserver.
    pub apiserver: Option<ApiserverState>,
    /// Where others reach its apiserver.
    pub endpoints: Vec<Endpoint>,
    /// Where others reach its gossip.
    pub gossip: Vec<SocketAddr>,
}

/// What a core member sees, the same for all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whose view it is: its author's id as text; empty only before it is signed.
    pub author: Option<NodeId>,
    /// Its author's generation.
    pub generation: u64,
    /// Grows with each view.
    pub number: u64,
    /// Core members that are live, with their generations.
    pub live: Vec<(NodeId, u64)>,
    /// Nodes in the cluster, by address.
    pub cluster_size: u32,
    /// Connections by endpoint, of all nodes together.
    pub loads: Vec<(EndpointTag, u32)>,
    /// Endpoints that several nodes report as failing.
    pub failing: Vec<EndpointTag>,
    /// The author's own round trips.
    pub round_trips: Vec<(EndpointTag, Duration)>,
}

/// An administrator's word that a node is gone for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The node's name.
    pub name: String,
    /// Beats every record of that name up to this generation.
    pub generation: u64,
}

/// One of the three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// See [`Record`].
    Record(Record),
    /// See [`View`].
    View(View),
    /// See [`Removal`].
    Removal(Removal),
}

/// An item with its author's signature, as it was received or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedItem {
    /// What it says.
    pub item: Item,
    /// Which key signed it.
    pub key: KeyId,
    /// As it travels.
    pub bytes: Arc<[u8]>,
}

/// Why an item is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// Not an item, or one that says what none may say.
    #[error("not a signed item")]
    Malformed,
    /// Of a format or kind that a later build may know.
    #[error("a signed item of a format that this build does not know")]
    Future,
    /// Signed with a key that is not in the keyring.
    #[error("signed with a key that is not in the keyring")]
    UnknownKey,
    /// Not signed by who holds that key, or for another cluster.
    #[error("the signature does not verify")]
    Forged,
}

impl ItemError {
    pub(super) fn reason(self) -> DropReason {
        match self {
            ItemError::Malformed => DropReason::Record,
            ItemError::Future => DropReason::FutureRecord,
            ItemError::UnknownKey => DropReason::UnknownSigner,
            ItemError::Forged => DropReason::Forged,
        }
    }
}

const RECORD: u8 = 1;
const VIEW: u8 = 2;
const REMOVAL: u8 = 3;

fn context(kind: u8, cluster: &str, body: &[u8]) -> Vec<u8> {
    let word = match kind {
        RECORD => "record",
        VIEW => "view",
        _ => "removal",
    };
    let mut message = Vec::with_capacity(32 + cluster.len() + body.len());
    message.extend(b"prismesh ");
    message.extend(word.as_bytes());
    message.push(FORMAT);
    message.extend(u16::try_from(cluster.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(cluster.as_bytes());
    message.extend(body);
    message
}

impl Item {
    fn kind(&self) -> u8 {
        match self {
            Item::Record(_) => RECORD,
            Item::View(_) => VIEW,
            Item::Removal(_) => REMOVAL,
        }
    }

    fn body(&self) -> Option<Vec<u8>> {
        match self {
            Item::Record(record) => codec::encode(&RecordBody::from(record)),
            Item::View(view) => codec::encode(&ViewBody::of(view)?),
            Item::Removal(removal) => codec::encode(removal),
        }
    }

    /// Signs with the keyring's first key. [`None`] with a reader keyring, and for what is too large.
    pub fn sign(self, keyring: &Keyring, cluster: &str) -> Option<SignedItem> {
        let key = keyring.keys().first()?;
        let body = self.body()?;
        let signature = key.signing()?.sign(&context(self.kind(), cluster, &body));
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.extend([FORMAT, self.kind()]);
        bytes.extend(key.id().0);
        bytes.extend(signature.to_bytes());
        bytes.extend(body);
        (bytes.len() <= ITEM_BYTES).then(|| SignedItem { item: self, key: key.id(), bytes: bytes.into() })
    }

    /// Whom it is about: its author, but for a removal.
    pub fn node(&self) -> NodeId {
        match self {
            Item::Record(record) => NodeId::of(&record.name),
            Item::View(view) => view.author.unwrap_or_else(|| NodeId::of("")),
            Item::Removal(removal) => NodeId::of(&removal.name),
        }
    }
}

impl SignedItem {
    /// Verifies what arrived.
    pub fn verify(bytes: &[u8], keyring: &Keyring, cluster: &str) -> Result<SignedItem, ItemError> {
        let ([format, kind], rest) = bytes.split_first_chunk::<2>().ok_or(ItemError::Malformed)?;
        let (key, rest) = rest.split_first_chunk::<4>().ok_or(ItemError::Malformed)?;
        let (signature, body) = rest.split_first_chunk::<SIGNATURE_LENGTH>().ok_or(ItemError::Malformed)?;
        if *format != FORMAT || !(RECORD..=REMOVAL).contains(kind) {
            return Err(ItemError::Future);
        }
        if bytes.len() > ITEM_BYTES {
            return Err(ItemError::Malformed);
        }
        let key = KeyId(*key);
        let message = context(*kind, cluster, body);
        let signature = Signature::from_bytes(signature);
        let mut candidates = keyring.keys().iter().filter(|candidate| candidate.id() == key).peekable();
        candidates.peek().ok_or(ItemError::UnknownKey)?;
        if !candidates.any(|candidate| candidate.verifying().verify_strict(&message, &signature).is_ok()) {
            return Err(ItemError::Forged);
        }
        let item = read(*kind, body).ok_or(ItemError::Malformed)?;
        Ok(SignedItem { item, key, bytes: bytes.into() })
    }
}

pub(super) fn read(kind: u8, body: &[u8]) -> Option<Item> {
    Some(match kind {
        RECORD => Item::Record(codec::decode::<RecordBody>(body)?.checked()?),
        VIEW => Item::View(codec::decode::<ViewBody>(body)?.checked()?),
        _ => Item::Removal(codec::decode::<Removal>(body).filter(|removal| is_name(&removal.name))?),
    })
}

/// Whether a node may have this name.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// A record as it is encoded. The order of the fields is the format; a later build appends.
#[derive(Serialize, Deserialize)]
struct RecordBody {
    name: String,
    generation: u64,
    version: u64,
    role: u8,
    agent: u8,
    apiserver: u8,
    endpoints: Vec<Endpoint>,
    gossip: Vec<SocketAddr>,
}

impl From<&Record> for RecordBody {
    fn from(record: &Record) -> RecordBody {
        RecordBody {
            name: record.name.clone(),
            generation: record.generation,
            version: record.version,
            role: codes::role_code(record.role),
            agent: codes::agent_code(record.agent),
            apiserver: codes::apiserver_code(record.apiserver),
            endpoints: record.endpoints.iter().copied().take(policy::ENDPOINTS_A_MEMBER).collect(),
            gossip: record.gossip.iter().copied().take(ADDRESSES).collect(),
        }
    }
}

impl RecordBody {
    fn checked(self) -> Option<Record> {
        let few = self.endpoints.len() <= policy::ENDPOINTS_A_MEMBER && self.gossip.len() <= ADDRESSES;
        (few && is_name(&self.name)).then_some(())?;
        Some(Record {
            role: codes::role_of(self.role)?,
            agent: codes::agent_of(self.agent)?,
            apiserver: codes::apiserver_of(self.apiserver)?,
            name: self.name,
            generation: self.generation,
            version: self.version,
            endpoints: self.endpoints,
            gossip: self.gossip,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct ViewBody {
    author: NodeId,
    generation: u64,
    number: u64,
    live: Vec<(NodeId, u64)>,
    cluster_size: u32,
    loads: Vec<([u8; 4], u32)>,
    failing: Vec<[u8; 4]>,
    round_trips: Vec<([u8; 4], u8)>,
}

impl ViewBody {
    fn of(view: &View) -> Option<ViewBody> {
        Some(ViewBody {
            author: view.author?,
            generation: view.generation,
            number: view.number,
            live: view.live.iter().copied().take(LIVE).collect(),
            cluster_size: view.cluster_size,
            loads: view.loads.iter().take(ENDPOINTS).map(|(tag, load)| (tag.0.to_be_bytes(), *load)).collect(),
            failing: view.failing.iter().take(ENDPOINTS).map(|tag| tag.0.to_be_bytes()).collect(),
            round_trips: view
                .round_trips
                .iter()
                .take(ENDPOINTS)
                .map(|(tag, rtt)| (tag.0.to_be_bytes(), codes::rtt_code(Some(*rtt))))
                .collect(),
        })
    }

    fn checked(self) -> Option<View> {
        let tag = |bytes: [u8; 4]| EndpointTag(u32::from_be_bytes(bytes));
        let few = self.live.len() <= LIVE
            && [self.loads.len(), self.failing.len(), self.round_trips.len()].iter().all(|len| *len <= ENDPOINTS);
        few.then_some(())?;
        Some(View {
            author: Some(self.author),
            generation: self.generation,
            number: self.number,
            live: self.live,
            cluster_size: self.cluster_size,
            loads: self.loads.into_iter().map(|(bytes, load)| (tag(bytes), load)).collect(),
            failing: self.failing.into_iter().map(tag).collect(),
            round_trips: self
                .round_trips
                .into_iter()
                .filter_map(|(bytes, rtt)| Some((tag(bytes), codes::rtt_of(rtt)?)))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::from(text.parse::<SocketAddr>().unwrap())
    }

    fn record() -> Record {
        Record {
            name: "cp-1".to_owned(),
            generation: 1_800_000_000_000,
            version: 3,
            role: Role::ControlPlane,
            agent: AgentState::Running,
            apiserver: Some(ApiserverState::Draining),
            endpoints: vec![endpoint("10.0.0.1:6443"), endpoint("[fd00::1]:6443")],
            gossip: vec!["10.0.0.1:7447".parse().unwrap()],
        }
    }

    fn full_view() -> View {
        let tag = |n: u32| EndpointTag(n * 77_777_777);
        let numbers = 0..u32::try_from(ENDPOINTS).unwrap();
        View {
            author: Some(NodeId::of("cp-1")),
            generation: 1_800_000_000_000,
            number: u64::MAX,
            live: (0..16).map(|n| (NodeId::of(&format!("cp-{n}")), u64::MAX - n)).collect(),
            cluster_size: 10_000,
            loads: numbers.clone().map(|n| (tag(n), 60_000)).collect(),
            failing: (0..16).map(tag).collect(),
            round_trips: numbers.map(|n| (tag(n), Duration::from_millis(3))).collect(),
        }
    }

    fn removal() -> Removal {
        Removal { name: "cp-9".to_owned(), generation: 9 }
    }

    #[test]
    fn what_a_full_keyring_signs_a_reader_keyring_verifies() {
        let ring = Keyring::random();
        let reader = Keyring::parse(ring.reader_text().as_bytes()).unwrap();
        for item in
            [Item::Record(record()), Item::View(View { round_trips: Vec::new(), ..full_view() }), Item::Removal(removal())]
        {
            let signed = item.clone().sign(&ring, "c").unwrap();
            assert_eq!(SignedItem::verify(&signed.bytes, &reader, "c"), Ok(signed));
            assert_eq!(item.sign(&reader, "c"), None, "a reader signs nothing");
        }
    }

    #[test]
    fn a_view_of_sixteen_core_members_and_all_endpoints_fits_a_datagram() {
        let signed = Item::View(full_view()).sign(&Keyring::random(), "c").unwrap();
        assert!(signed.bytes.len() <= ITEM_BYTES, "{}", signed.bytes.len());
    }

    #[test]
    fn the_longest_name_and_eight_endpoints_fit() {
        let endpoints = (0..20).map(|n| endpoint(&format!("[fd00:1:2:3:4:5:6:{n:x}]:65535"))).collect();
        let full = Record { name: "n".repeat(NAME_BYTES), endpoints, ..record() };
        let ring = Keyring::random();
        let signed = Item::Record(full.clone()).sign(&ring, "c").unwrap();
        let Item::Record(back) = SignedItem::verify(&signed.bytes, &ring, "c").unwrap().item else { panic!("a record") };
        assert_eq!(back.endpoints, full.endpoints[..policy::ENDPOINTS_A_MEMBER]);
    }

    #[test]
    fn no_byte_of_an_item_can_be_changed_and_none_is_taken_for_another_kind_or_cluster() {
        let ring = Keyring::random();
        let signed = Item::Record(record()).sign(&ring, "c").unwrap();
        for place in 0..signed.bytes.len() {
            let mut bent = signed.bytes.to_vec();
            bent[place] ^= 1;
            assert!(SignedItem::verify(&bent, &ring, "c").is_err(), "byte {place}");
        }
        let mut other_kind = signed.bytes.to_vec();
        other_kind[1] = VIEW;
        assert_eq!(SignedItem::verify(&other_kind, &ring, "c"), Err(ItemError::Forged));
        assert_eq!(SignedItem::verify(&signed.bytes, &ring, "d"), Err(ItemError::Forged));
        assert_eq!(SignedItem::verify(&signed.bytes, &Keyring::random(), "c"), Err(ItemError::UnknownKey));
    }

    #[test]
    fn a_later_format_is_told_from_nonsense() {
        let ring = Keyring::random();
        let mut bytes = Item::Record(record()).sign(&ring, "c").unwrap().bytes.to_vec();
        bytes[0] = FORMAT + 1;
        assert_eq!(SignedItem::verify(&bytes, &ring, "c"), Err(ItemError::Future));
        assert_eq!(SignedItem::verify(&[], &ring, "c"), Err(ItemError::Malformed));
        assert_eq!(SignedItem::verify(&[FORMAT, RECORD], &ring, "c"), Err(ItemError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(kind in 1..=3_u8, body in proptest::collection::vec(any::<u8>(), 0..1000)) {
            let _ = read(kind, &body);
        }
    }
}
