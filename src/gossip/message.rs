//! The two messages between a node and a core member. Each is harmless when it is replayed: what it changes is signed, or
//! belongs to the address that it came from, or answers a question that was asked once.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::catalog::Tag;
use super::envelope::PLAINTEXT;
use super::{codec, codes};
use crate::engine::endpoint::{EndpointTag, NodeId};
use crate::engine::event::Observation;
use crate::engine::policy;

/// Eight bytes that whoever is addressed gives back: drawn at random for each question, zeros in a push.
pub type Echo = [u8; 8];
/// Eight bytes that prove that their sender receives at its address; zeros where it has none yet.
pub type Cookie = [u8; 8];
/// None of either.
pub const NONE: [u8; 8] = [0; 8];

/// Bytes of a Report's plaintext at least: whose cookie is not valid any more is answered with another, in no more than that.
const LEAST: usize = 72;
/// Short names in a Report at most.
pub const TAGS: usize = 24;
/// Core members in a Report that do not answer, at most.
const UNANSWERED: usize = 32;
/// Addresses in a sample at most.
pub const SAMPLE: usize = 16;
/// Endpoints with a prior at most.
pub const PRIORS: usize = 8;
/// Key ids in an introduction at most.
const KEYS: usize = 8;

/// What a node sends to each core member every few seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports.
    pub node: NodeId,
    /// It is a core member that looks for the others: nothing is held of it.
    pub core: bool,
    /// Which start of its gossip.
    pub generation: u64,
    /// Grows with each Report.
    pub sequence: u32,
    /// The next one comes within so many seconds.
    pub next_within_s: u8,
    /// What the receiver last gave to prove this node's address.
    pub cookie: Cookie,
    /// Given back in the answer.
    pub echo: Echo,
    /// Of all signed items that it holds.
    pub digest: u64,
    /// The number of the receiver's last view that it has heard, cut to 32 bits.
    pub view: u32,
    /// The short names of those items, where the receiver holds others.
    pub holds: Vec<Tag>,
    /// What it sees of endpoints.
    pub observations: Vec<SeenEndpoint>,
    /// Core members that do not answer it.
    pub unanswered: Vec<NodeId>,
    /// Who it is, until the receiver has answered once.
    pub introduction: Option<Introduction>,
    /// Signed items that the receiver lacks.
    pub items: Vec<Vec<u8>>,
}

/// What a node says of itself once in each generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The node's name.
    pub name: String,
    /// The agent's version.
    pub version: String,
    /// The keys it has, the one that seals first.
    pub keys: Vec<[u8; 4]>,
    /// It holds the full keyring.
    pub full: bool,
}

/// What a node sees of an endpoint, as it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenEndpoint {
    endpoint: [u8; 4],
    verdict: u8,
    rtt: u8,
    connections: u32,
}

/// The answer to a Report, or what a core member sends unasked when something has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The question's; zeros in a push.
    pub echo: Echo,
    /// For the next Report from this address.
    pub cookie: Cookie,
    /// Who answers.
    pub node: NodeId,
    /// Whether it is a core member.
    pub core: bool,
    /// Of all signed items that it holds.
    pub digest: u64,
    /// The receiver's address as it is seen from there.
    pub seen: SocketAddr,
    /// The receiver has been heard at this generation, with more than it asks with; 0: it has not.
    pub above: u64,
    /// Where another node is heard that has the receiver's name.
    pub namesake: Option<SocketAddr>,
    /// Its view, signed; empty: none.
    pub view: Vec<u8>,
    /// Signed items that the receiver lacks.
    pub items: Vec<Vec<u8>>,
    /// There are more of them than fit.
    pub more: bool,
    /// Subjects of items that the receiver holds and the sender does not.
    pub wanted: Vec<[u8; 4]>,
    /// Round trips that other nodes report, by endpoint.
    pub priors: Vec<([u8; 4], u8)>,
    /// Addresses of other nodes.
    pub sample: Vec<SocketAddr>,
}

impl From<&Observation> for SeenEndpoint {
    fn from(saw: &Observation) -> SeenEndpoint {
        SeenEndpoint {
            endpoint: saw.endpoint.0.to_be_bytes(),
            verdict: codes::verdict_code(saw.verdict),
            rtt: codes::rtt_code(saw.rtt),
            connections: saw.connections,
        }
    }
}

impl SeenEndpoint {
    /// What it says; [`None`] for a verdict that this build does not know.
    pub fn decoded(self) -> Option<Observation> {
        Some(Observation {
            endpoint: EndpointTag(u32::from_be_bytes(self.endpoint)),
            rtt: codes::rtt_of(self.rtt),
            verdict: codes::verdict_of(self.verdict)?,
            connections: self.connections,
        })
    }
}

/// A prior as it is encoded.
pub fn prior(endpoint: EndpointTag, rtt: Duration) -> ([u8; 4], u8) {
    (endpoint.0.to_be_bytes(), codes::rtt_code(Some(rtt)))
}

/// A prior as it is meant.
pub fn prior_of((endpoint, rtt): ([u8; 4], u8)) -> Option<(EndpointTag, Duration)> {
    Some((EndpointTag(u32::from_be_bytes(endpoint)), codes::rtt_of(rtt)?))
}

impl Report {
    /// Encodes. A Report without a cookie is padded: its answer is never longer than it is.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = codec::encode(self).filter(|bytes| bytes.len() <= PLAINTEXT)?;
        let least = if self.cookie == NONE { PLAINTEXT } else { LEAST };
        bytes.resize(bytes.len().max(least), 0);
        Some(bytes)
    }

    /// Decodes and checks.
    pub fn decode(bytes: &[u8]) -> Option<Report> {
        let report: Report = codec::decode(bytes)?;
        let few = report.holds.len() <= TAGS
            && report.observations.len() <= policy::OBSERVATIONS
            && report.unanswered.len() <= UNANSWERED;
        let known = report.introduction.as_ref().is_none_or(Introduction::is_plain);
        (few && known).then_some(report)
    }

    /// What it says of endpoints.
    pub fn observations(&self) -> impl Iterator<Item = Observation> {
        self.observations.iter().filter_map(|seen| seen.decoded())
    }
}

impl Introduction {
    /// Whether it can be shown to people as it is.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |text: &str| text.len() <= 64 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        super::item::is_name(&self.name) && plain(&self.version) && self.keys.len() <= KEYS
    }
}

impl Update {
    /// Encodes.
    pub fn encode(&self) -> Option<Vec<u8>> {
        codec::encode(self).filter(|bytes| bytes.len() <= PLAINTEXT)
    }

    /// Encodes with as many of these items as leave it within so many bytes of plaintext; the rest are told of by `more`.
    pub fn encode_with<'a>(&mut self, items: impl IntoIterator<Item = &'a [u8]>, most: usize) -> Option<Vec<u8>> {
        let most = most.min(PLAINTEXT);
        let mut bytes = codec::encode(self)?.len();
        for item in items {
            // Its own bytes, its length, and one more for the count.
            let more = item.len() + 4;
            if bytes + more > most {
                self.more = true;
                continue;
            }
            bytes += more;
            self.items.push(item.to_vec());
        }
        self.encode().filter(|bytes| bytes.len() <= most)
    }

    /// Decodes and checks.
    pub fn decode(bytes: &[u8]) -> Option<Update> {
        let update: Update = codec::decode(bytes)?;
        let few = update.sample.len() <= SAMPLE && update.priors.len() <= PRIORS && update.wanted.len() <= TAGS;
        few.then_some(update)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::envelope::OVERHEAD;
    use super::*;
    use crate::engine::event::Verdict;

    /// What an idle worker of a cluster with three control planes and a load balancer sends.
    pub(crate) fn idle() -> Report {
        let seen = |n: u32| Observation {
            endpoint: EndpointTag(n * 1_000_003_579),
            rtt: Some(Duration::from_micros(700)),
            verdict: Verdict::Ready,
            connections: 5,
        };
        Report {
            node: NodeId::of("worker-1"),
            core: false,
            generation: 1_800_000_000_000,
            sequence: 100_000,
            next_within_s: 5,
            cookie: [7; 8],
            echo: [9; 8],
            digest: u64::MAX,
            view: 1_000_000,
            holds: Vec::new(),
            observations: (1..5).map(|n| SeenEndpoint::from(&seen(n))).collect(),
            unanswered: Vec::new(),
            introduction: None,
            items: Vec::new(),
        }
    }

    fn update() -> Update {
        Update {
            echo: [1; 8],
            cookie: [2; 8],
            node: NodeId::of("cp-1"),
            core: true,
            digest: 5,
            seen: "[fd00::1]:7447".parse().unwrap(),
            above: 0,
            namesake: None,
            view: vec![1; 300],
            items: Vec::new(),
            more: false,
            wanted: Vec::new(),
            priors: vec![prior(EndpointTag(3), Duration::from_millis(1))],
            sample: vec!["10.0.0.1:7447".parse().unwrap()],
        }
    }

    #[test]
    fn an_idle_worker_sends_at_most_140_bytes_a_second_to_three_control_planes() {
        let datagram = 20 + 8 + OVERHEAD + idle().encode().unwrap().len();
        assert!(3 * datagram / 4 <= 140, "{datagram} bytes every four seconds to each of three");
    }

    #[test]
    fn the_shortest_report_has_room_for_the_shortest_answer() {
        let empty =
            Update { view: Vec::new(), priors: Vec::new(), sample: Vec::new(), digest: u64::MAX, above: u64::MAX, ..update() };
        assert!(empty.encode().unwrap().len() <= LEAST);
    }

    #[test]
    fn both_survive_their_encoding() {
        assert_eq!(Report::decode(&idle().encode().unwrap()), Some(idle()));
        assert_eq!(Update::decode(&update().encode().unwrap()), Some(update()));
    }

    #[test]
    fn a_report_without_a_cookie_is_as_long_as_any_answer() {
        let report = Report { cookie: NONE, ..idle() };
        let bytes = report.encode().unwrap();
        assert_eq!(bytes.len(), PLAINTEXT);
        assert_eq!(Report::decode(&bytes), Some(report));
    }

    #[test]
    fn an_update_takes_as_many_items_as_fit_and_tells_of_the_rest() {
        let mut update = update();
        let items = vec![vec![3; 300]; 9];
        let bytes = update.encode_with(items.iter().map(Vec::as_slice), PLAINTEXT).unwrap();
        let back = Update::decode(&bytes).unwrap();
        assert!(back.more && back.items.len() == 2, "{}", back.items.len());
        let mut few = self::update();
        few.encode_with(items[..1].iter().map(Vec::as_slice), PLAINTEXT).unwrap();
        assert!(!few.more);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let _ = Report::decode(&bytes);
            let _ = Update::decode(&bytes);
        }
    }
}
