//! What gossip counts: plain atomics that the metrics page reads whenever it likes.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Why something that arrived, or was about to be sent, was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Shorter than a header and its tag.
    Short,
    /// Longer than any datagram of ours.
    Oversized,
    /// Of a format version that this build does not know.
    Version,
    /// Sealed with a key that is not in the keyring, or not sealed by us at all.
    UnknownKey,
    /// The key is known, the seal is broken: tampered with, or of another cluster.
    Unauthentic,
    /// From this very process: sent back, or a seed that is ourselves.
    Own,
    /// Already seen, or too old to tell.
    Replayed,
    /// It opened, and what was inside makes no sense.
    Malformed,
    /// More fragments than may be kept waiting.
    Reassembly,
    /// A message whose fragments did not all come in time.
    Incomplete,
    /// A message from gossip's library that is none, or would end its task.
    Message,
    /// A node more than this one keeps, or one that restarts too often.
    Crowded,
    /// A record that cannot be read or is not its node's.
    Record,
    /// A record of a format version that this build does not know.
    FutureRecord,
    /// An endpoint that a record may not name.
    Endpoint,
    /// Traffic of the core, which this node has no key for.
    NotCore,
    /// Traffic of the core from an address that is in no signed record.
    UnknownAddress,
    /// A Report from a network whose Reports do not count.
    NotAllowed,
    /// A signed item whose key is not in the keyring.
    UnknownSigner,
    /// A signed item whose signature does not verify.
    Forged,
    /// A question from an address that has shown nothing yet, above what is answered.
    Limited,
    /// A queue inside this process was full.
    Congested,
    /// The socket refused to send.
    Send,
    /// The socket reported an error while receiving.
    Receive,
}

impl DropReason {
    /// All of them.
    pub const ALL: [DropReason; 24] = [
        DropReason::Short,
        DropReason::Oversized,
        DropReason::Version,
        DropReason::UnknownKey,
        DropReason::Unauthentic,
        DropReason::Own,
        DropReason::Replayed,
        DropReason::Malformed,
        DropReason::Reassembly,
        DropReason::Incomplete,
        DropReason::Message,
        DropReason::Crowded,
        DropReason::Record,
        DropReason::FutureRecord,
        DropReason::Endpoint,
        DropReason::NotCore,
        DropReason::UnknownAddress,
        DropReason::NotAllowed,
        DropReason::UnknownSigner,
        DropReason::Forged,
        DropReason::Limited,
        DropReason::Congested,
        DropReason::Send,
        DropReason::Receive,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::Short => "short",
            DropReason::Oversized => "oversized",
            DropReason::Version => "version",
            DropReason::UnknownKey => "unknown-key",
            DropReason::Unauthentic => "unauthentic",
            DropReason::Own => "own",
            DropReason::Replayed => "replayed",
            DropReason::Malformed => "malformed",
            DropReason::Reassembly => "reassembly",
            DropReason::Incomplete => "incomplete",
            DropReason::Message => "message",
            DropReason::Crowded => "crowded",
            DropReason::Record => "record",
            DropReason::FutureRecord => "future-record",
            DropReason::Endpoint => "endpoint",
            DropReason::NotCore => "not-core",
            DropReason::UnknownAddress => "unknown-address",
            DropReason::NotAllowed => "not-allowed",
            DropReason::UnknownSigner => "unknown-signer",
            DropReason::Forged => "forged",
            DropReason::Limited => "limited",
            DropReason::Congested => "congested",
            DropReason::Send => "send",
            DropReason::Receive => "receive",
        }
    }

    fn place(self) -> usize {
        self as usize
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Writes; what does not fit is written as the largest that does.
    pub fn set(&self, value: u64) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All of gossip's counters.
#[derive(Debug, Default)]
pub struct Stats {
    /// Datagrams received.
    pub datagrams_in: Counter,
    /// Datagrams sent.
    pub datagrams_out: Counter,
    /// Bytes of payload received.
    pub bytes_in: Counter,
    /// Bytes of payload sent.
    pub bytes_out: Counter,
    /// Starts of the gossip task after its first.
    pub restarts: Counter,
    /// 1 while another machine uses this node's name.
    pub name_conflict: Gauge,
    /// 1 while this node is isolated.
    pub isolated: Gauge,
    /// The generation this process publishes under.
    pub generation: Gauge,
    /// 1 while the peer cache cannot be written.
    pub cache_failing: Gauge,
    dropped: [Counter; DropReason::ALL.len()],
}

impl Stats {
    /// Counts one drop.
    pub fn count_drop(&self, reason: DropReason) {
        if let Some(counter) = self.dropped.get(reason.place()) {
            counter.add(1);
        }
    }

    /// How often something was dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason.place()).map_or(0, Counter::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_place_and_a_word_of_its_own() {
        let stats = Stats::default();
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(place, reason.place(), "{reason:?}");
            stats.count_drop(reason);
            assert_eq!(stats.dropped(reason), 1);
        }
        let words: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), DropReason::ALL.len());
    }
}
