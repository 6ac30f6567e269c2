//! Identities: node, endpoint, source.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A node's short id: eight lower-case characters, a hash of its name.
///
/// Short because ids are most of what a gossip digest weighs; the name is in the record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 8]);

/// The text is not a node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a node id: eight characters of a-z and 2-7 are expected")]
pub struct NotANodeId;

impl NodeId {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

    /// The id of the node of this name: 40 bits of SHA-256, in base 32.
    pub fn of(name: &str) -> NodeId {
        let hash = Sha256::digest(name.as_bytes());
        let bits = hash[..5].iter().fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
        let mut id = [0; 8];
        for (place, character) in id.iter_mut().enumerate() {
            *character = Self::ALPHABET[(bits >> (35 - 5 * place) & 31) as usize];
        }
        NodeId(id)
    }

    /// The eight characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// In the order of the text, compared as one number: members are looked up by it all the time.
impl Ord for NodeId {
    fn cmp(&self, other: &NodeId) -> Ordering {
        u64::from_be_bytes(self.0).cmp(&u64::from_be_bytes(other.0))
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &NodeId) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for NodeId {
    type Err = NotANodeId;

    fn from_str(text: &str) -> Result<NodeId, NotANodeId> {
        let id: [u8; 8] = text.as_bytes().try_into().map_err(|_| NotANodeId)?;
        if id.iter().all(|character| matches!(character, b'a'..=b'z' | b'2'..=b'7')) { Ok(NodeId(id)) } else { Err(NotANodeId) }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One `ip:port` where a kube-apiserver may answer, in canonical form: never an IPv4 address mapped into IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "SocketAddr", into = "SocketAddr")]
pub struct Endpoint(SocketAddr);

impl Endpoint {
    /// The address to dial.
    pub fn addr(self) -> SocketAddr {
        self.0
    }

    /// The short name by which reports speak of it.
    pub fn tag(self) -> EndpointTag {
        let mut hash = Sha256::new();
        match self.0.ip() {
            IpAddr::V4(ip) => hash.update(ip.octets()),
            IpAddr::V6(ip) => hash.update(ip.octets()),
        }
        hash.update(self.0.port().to_be_bytes());
        let hash = hash.finalize();
        EndpointTag(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Endpoint {
        Endpoint(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> SocketAddr {
        endpoint.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A 32-bit hash of an endpoint's address: reports name what is not their sender's by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointTag(pub u32);

/// Why an endpoint is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// This node's own apiserver.
    Local,
    /// The configuration names it.
    Static,
    /// Gossip: a member's record names it.
    Member,
    /// The external balancer.
    External,
    /// The peer cache on disk, or a member that is gone while its apiserver answers on.
    Cached,
}

impl Source {
    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Local => "local",
            Source::Static => "static",
            Source::Member => "member",
            Source::External => "external",
            Source::Cached => "cached",
        }
    }

    /// Whether it may carry traffic before it has proven itself: only what a person wrote may.
    pub fn carries_unproven(self) -> bool {
        matches!(self, Source::Local | Source::Static | Source::External)
    }
}
