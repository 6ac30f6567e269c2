//! What a member publishes about itself, and its encoding.
//!
//! A record is one value in chitchat, written whole, so that a reader never sees half of a change. It is a format
//! version, then bincode, at most [`RECORD_BYTES`]; in chitchat, whose values are strings, that in base64url. It has
//! the node's name, since gossip's ids are only hashes of names, and the session of the process that wrote it, by which
//! two machines with one name are told from one machine that restarted.
//!
//! Round trips are quantised to one byte: about 6% between two steps, far finer than the band that selection puts them
//! into, and a round trip that wavers then mostly leaves the record as it was.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::codec;
use super::codes::{
    agent_code, agent_of, apiserver_code, apiserver_of, role_code, role_of, rtt_code, rtt_of, verdict_code, verdict_of,
};
use super::stats::{DropReason, Stats};
use crate::engine::endpoint::{Endpoint, EndpointTag, NodeId};
use crate::engine::event::{AgentState, MemberRecord, Observation, OwnReport, Role};
use crate::engine::policy;

/// The format that this build writes.
pub const FORMAT: u8 = 1;
/// Bytes of a record at most, before base64.
pub const RECORD_BYTES: usize = 512;
/// Characters of a record's text at most.
pub const TEXT_BYTES: usize = RECORD_BYTES.div_ceil(3) * 4;
/// Bytes of a node's name at most, as in DNS.
pub const NAME_BYTES: usize = 253;

/// What a member publishes about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Drawn at random when the process that wrote this started.
    pub session: u64,
    /// The node's name.
    pub name: String,
    /// Whether it runs an apiserver.
    pub role: Role,
    /// Its agent's state.
    pub agent: AgentState,
    /// Where others reach its apiserver.
    pub endpoints: Vec<Endpoint>,
    /// What it says of its own apiserver and saw of others.
    pub report: OwnReport,
}

/// Why a record cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a later build.
    #[error("a record of format version {0}, which this build does not know")]
    Future(u8),
    /// Not a record.
    #[error("not a record")]
    Malformed,
}

impl RecordError {
    pub(crate) fn reason(self) -> DropReason {
        match self {
            RecordError::Future(_) => DropReason::FutureRecord,
            RecordError::Malformed => DropReason::Record,
        }
    }
}

/// The record as bincode sees it. The order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct Wire {
    session: u64,
    name: String,
    role: u8,
    agent: u8,
    apiserver: u8,
    endpoints: Vec<Endpoint>,
    observations: Vec<WireObservation>,
}

#[derive(Serialize, Deserialize)]
struct WireObservation {
    endpoint: [u8; 4],
    rtt: u8,
    verdict: u8,
    connections: u32,
}

impl Record {
    /// Encodes. Endpoints beyond [`policy::ENDPOINTS_A_MEMBER`] are left out, and so are the last observations where
    /// they do not fit; [`None`] if even then it does not, which a valid configuration cannot bring about.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let most = self.report.observations.len().min(policy::OBSERVATIONS);
        (0..=most).rev().find_map(|observations| self.encode_with(observations).filter(|bytes| bytes.len() <= RECORD_BYTES))
    }

    /// Encodes as chitchat's value.
    pub fn encode_text(&self) -> Option<String> {
        self.encode().map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
    }

    fn encode_with(&self, observations: usize) -> Option<Vec<u8>> {
        let wire = Wire {
            session: self.session,
            name: self.name.clone(),
            role: role_code(self.role),
            agent: agent_code(self.agent),
            apiserver: apiserver_code(self.report.apiserver),
            endpoints: self.endpoints.iter().copied().take(policy::ENDPOINTS_A_MEMBER).collect(),
            observations: self.report.observations.iter().take(observations).map(WireObservation::from).collect(),
        };
        let mut bytes = vec![FORMAT];
        bytes.extend(codec::encode(&wire)?);
        Some(bytes)
    }

    /// Decodes and checks. Never more than [`policy::ENDPOINTS_A_MEMBER`] endpoints and [`policy::OBSERVATIONS`]
    /// observations come out.
    pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
        let (format, rest) = bytes.split_first().ok_or(RecordError::Malformed)?;
        match *format {
            FORMAT if bytes.len() <= RECORD_BYTES => {}
            0 | FORMAT => return Err(RecordError::Malformed),
            future => return Err(RecordError::Future(future)),
        }
        let wire: Wire = codec::decode(rest).ok_or(RecordError::Malformed)?;
        Record::checked(wire).ok_or(RecordError::Malformed)
    }

    /// Decodes chitchat's value.
    pub fn decode_text(text: &str) -> Result<Record, RecordError> {
        if text.len() > TEXT_BYTES {
            return Err(RecordError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| RecordError::Malformed)?;
        Record::decode(&bytes)
    }

    fn checked(wire: Wire) -> Option<Record> {
        let named = (1..=NAME_BYTES).contains(&wire.name.len()) && wire.name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !named {
            return None;
        }
        let observations = wire.observations.into_iter().take(policy::OBSERVATIONS).map(Observation::try_from);
        Some(Record {
            session: wire.session,
            name: wire.name,
            role: role_of(wire.role)?,
            agent: agent_of(wire.agent)?,
            endpoints: wire.endpoints.into_iter().take(policy::ENDPOINTS_A_MEMBER).collect(),
            report: OwnReport {
                apiserver: apiserver_of(wire.apiserver)?,
                observations: observations.collect::<Result<_, _>>().ok()?,
            },
        })
    }

    /// The node it is about.
    pub fn node(&self) -> NodeId {
        NodeId::of(&self.name)
    }

    /// Whether going from `before` to this one is a change of state, which a control plane tells every live member directly.
    pub fn changes_state_of(&self, before: &Record) -> bool {
        self.role != before.role
            || self.agent != before.agent
            || self.endpoints != before.endpoints
            || self.report.apiserver != before.report.apiserver
    }

    /// The record as the engine is told it, without the endpoints that a record may not name; those are counted.
    pub(crate) fn told(&self, generation: u64, version: u64, rule: &NamingRule, stats: &Stats) -> MemberRecord {
        let mut endpoints = Vec::with_capacity(self.endpoints.len());
        for endpoint in &self.endpoints {
            if !rule.permits(*endpoint) {
                stats.count_drop(DropReason::Endpoint);
            } else if !endpoints.contains(endpoint) {
                endpoints.push(*endpoint);
            }
        }
        MemberRecord {
            node: self.node(),
            name: self.name.clone(),
            generation,
            version,
            role: self.role,
            agent: self.agent,
            apiserver: self.report.apiserver,
            endpoints,
            observations: self.report.observations.clone(),
        }
    }
}

/// Which addresses a record may name, so that a member with the key cannot aim a cluster's probes at a third party.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamingRule {
    /// Our own gossip address is a loopback one: then so may others be.
    pub(crate) loopback: bool,
    /// Endpoints must be in one of these; empty: any.
    pub(crate) allow: Vec<IpNet>,
}

impl NamingRule {
    /// Whether an endpoint may be taken from a record.
    pub(crate) fn permits(&self, endpoint: Endpoint) -> bool {
        let ip = endpoint.addr().ip();
        addressable(endpoint.addr(), self.loopback) && (self.allow.is_empty() || self.allow.iter().any(|net| net.contains(&ip)))
    }
}

/// Whether datagrams and dials may go to an address that only gossip named.
pub(crate) fn addressable(addr: SocketAddr, loopback: bool) -> bool {
    let ip = addr.ip().to_canonical();
    let refused = match ip {
        // 0.0.0.0/8 is "this network" (RFC 1122); Linux takes its first address for the machine itself.
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    addr.port() != 0 && !refused && !ip.is_multicast() && (loopback || !ip.is_loopback())
}

impl From<&Observation> for WireObservation {
    fn from(saw: &Observation) -> WireObservation {
        WireObservation {
            endpoint: saw.endpoint.0.to_be_bytes(),
            rtt: rtt_code(saw.rtt),
            verdict: verdict_code(saw.verdict),
            connections: saw.connections,
        }
    }
}

impl TryFrom<WireObservation> for Observation {
    type Error = RecordError;

    fn try_from(wire: WireObservation) -> Result<Observation, RecordError> {
        Ok(Observation {
            endpoint: EndpointTag(u32::from_be_bytes(wire.endpoint)),
            rtt: rtt_of(wire.rtt),
            verdict: verdict_of(wire.verdict).ok_or(RecordError::Malformed)?,
            connections: wire.connections,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::event::{ApiserverState, Verdict};

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::from(text.parse::<SocketAddr>().unwrap())
    }

    fn observation(place: u32) -> Observation {
        Observation { endpoint: EndpointTag(place), rtt: None, verdict: Verdict::Ready, connections: 4_000_000_000 }
    }

    fn record() -> Record {
        Record {
            session: u64::MAX,
            name: "cp-1".to_owned(),
            role: Role::ControlPlane,
            agent: AgentState::Running,
            endpoints: vec![endpoint("10.0.0.1:6443"), endpoint("[fd00::1]:6443")],
            report: OwnReport { apiserver: Some(ApiserverState::Draining), observations: vec![observation(1), observation(2)] },
        }
    }

    #[test]
    fn a_record_survives_its_encoding() {
        assert_eq!(Record::decode_text(&record().encode_text().unwrap()), Ok(record()));
    }

    #[test]
    fn the_longest_name_and_eight_endpoints_fit_and_the_farthest_observations_give_way() {
        let mut full = record();
        full.name = "n".repeat(NAME_BYTES);
        full.endpoints = (0..20).map(|n| endpoint(&format!("[fd00:1:2:3:4:5:6:{n:x}]:65535"))).collect();
        full.report.observations = (0..40).map(observation).collect();
        let bytes = full.encode().unwrap();
        assert!(bytes.len() <= RECORD_BYTES);
        let back = Record::decode(&bytes).unwrap();
        assert_eq!(back.endpoints, full.endpoints[..policy::ENDPOINTS_A_MEMBER]);
        assert!(!back.report.observations.is_empty());
        assert_eq!(back.report.observations, full.report.observations[..back.report.observations.len()]);
    }

    #[test]
    fn a_later_format_is_told_from_nonsense() {
        let mut bytes = record().encode().unwrap();
        bytes[0] = FORMAT + 1;
        assert_eq!(Record::decode(&bytes), Err(RecordError::Future(FORMAT + 1)));
        assert_eq!(Record::decode(&[]), Err(RecordError::Malformed));
        assert_eq!(Record::decode(&[FORMAT]), Err(RecordError::Malformed));
        assert_eq!(Record::decode_text("*"), Err(RecordError::Malformed));
    }

    #[test]
    fn fields_that_a_later_build_appends_are_passed_over() {
        let mut bytes = record().encode().unwrap();
        bytes.extend([9; 20]);
        assert_eq!(Record::decode(&bytes), Ok(record()));
    }

    #[test]
    fn a_thousand_endpoints_are_no_record() {
        let wire = Wire {
            session: 1,
            name: "n".to_owned(),
            role: 1,
            agent: 1,
            apiserver: 0,
            endpoints: vec![endpoint("10.0.0.1:1"); 1000],
            observations: Vec::new(),
        };
        let mut bytes = vec![FORMAT];
        bytes.extend(codec::encode(&wire).unwrap());
        assert_eq!(Record::decode(&bytes), Err(RecordError::Malformed));
    }

    #[test]
    fn a_record_may_not_name_what_is_nobodys_apiserver() {
        let rule = NamingRule::default();
        for refused in [
            "127.0.0.1:6443",
            "[::1]:6443",
            "[::ffff:127.0.0.1]:6443",
            "0.0.0.0:6443",
            "0.1.2.3:6443",
            "[::]:6443",
            "224.0.0.1:6443",
            "[ff02::1]:6443",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:6443",
            "255.255.255.255:6443",
            "10.0.0.1:0",
        ] {
            assert!(!rule.permits(endpoint(refused)), "{refused}");
        }
        assert!(rule.permits(endpoint("10.0.0.1:6443")));
        assert!(rule.permits(endpoint("[fd00::1]:6443")));
        let loopback = NamingRule { loopback: true, allow: Vec::new() };
        assert!(loopback.permits(endpoint("127.0.0.1:6443")));
        let allow = NamingRule { loopback: false, allow: vec!["10.0.0.0/8".parse().unwrap()] };
        assert!(allow.permits(endpoint("10.9.9.9:6443")));
        assert!(!allow.permits(endpoint("203.0.113.1:6443")));
    }

    #[test]
    fn what_may_not_be_named_is_left_out_and_counted() {
        let mut named = record();
        named.endpoints = vec![endpoint("127.0.0.1:1"), endpoint("10.0.0.1:6443"), endpoint("10.0.0.1:6443")];
        let stats = Stats::default();
        let told = named.told(3, 4, &NamingRule::default(), &stats);
        assert_eq!(told.endpoints, [endpoint("10.0.0.1:6443")]);
        assert_eq!((told.generation, told.version), (3, 4));
        assert_eq!(stats.dropped(DropReason::Endpoint), 1);
    }

    #[test]
    fn a_round_trip_is_told_within_three_per_cent() {
        for micros in [10_u64, 37, 250, 1_000, 12_345, 100_000, 2_000_000] {
            let rtt = Duration::from_micros(micros);
            let back = rtt_of(rtt_code(Some(rtt))).unwrap();
            let error = (back.as_secs_f64() / rtt.as_secs_f64() - 1.0).abs();
            assert!(error < 0.03, "{rtt:?} came back as {back:?}");
        }
        assert_eq!(rtt_of(rtt_code(None)), None);
        assert!(rtt_of(rtt_code(Some(Duration::from_secs(3600)))).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            if let Ok(record) = Record::decode(&bytes) {
                prop_assert!(record.endpoints.len() <= policy::ENDPOINTS_A_MEMBER);
                prop_assert!(record.report.observations.len() <= policy::OBSERVATIONS);
                prop_assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
            }
        }

        #[test]
        fn a_damaged_record_is_a_record_or_an_error(place in 0_usize..120, bit in 0_u8..8) {
            let mut bytes = record().encode().unwrap();
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            let _ = Record::decode(&bytes);
        }

        #[test]
        fn any_text_is_a_record_or_an_error(text in ".{0,800}") {
            let _ = Record::decode_text(&text);
        }
    }
}
