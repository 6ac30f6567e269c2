//! What may reach gossip's library. Everything here comes from a member with the key, which may be hostile or broken.
//!
//! A message is judged entry by entry, and what is not good is taken out of it, rather than the message refused: two
//! honest nodes that each met other inventions of a hostile third must go on understanding each other.
//!
//! The rules keep out what would end the library's task (versions out of order, keys that are not ASCII, a digest
//! beyond what it can send), what nobody but its subject may say (anything of ourselves), and what would grow without
//! bound: nodes, restarts of one node, keys, values.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chitchat::{ChitchatId, ChitchatMessage, Deserializable};
use tokio::time::Instant;

use super::record::{TEXT_BYTES, addressable};
use super::stats::{DropReason, Stats};
use super::wire::{Decoder, Delta, Digest, Message, Value, digest_bytes};
use crate::engine::endpoint::NodeId;

/// Bytes of a digest at most. The library's task ends at 65,403, with everything in it that a node may still add by
/// itself below that.
pub const DIGEST_CEILING: usize = 60_000;
/// Above this share of the ceiling names that were never heard before are not admitted, so that inventing names
/// cannot keep the known ones from coming back after a restart.
const NEW_NAMES_BELOW: usize = DIGEST_CEILING / 10 * 9;
/// Generations of one name that are admitted as fast as they come.
const GENERATIONS_AT_ONCE: usize = 3;
/// Between two generations of one name after that: a crash loop fills nobody's digest.
const GENERATION_GAP: Duration = Duration::from_secs(10);
/// The key of the record.
pub(crate) const RECORD_KEY: &str = "r";
/// This key and the three after it are let through, for records of formats to come.
const KEYS: [&str; 4] = [RECORD_KEY, "s", "t", "u"];
/// Versions beyond this are nobody's: one write a millisecond would take 49 days.
const VERSIONS: u64 = 1 << 32;
/// An admitted id is kept this long before the library must know it.
const SETTLING: Duration = Duration::from_secs(5);
const SET: u8 = 0;

/// Judges messages, and remembers which nodes were admitted.
pub(crate) struct Inspector {
    cluster: String,
    own: ChitchatId,
    loopback: bool,
    decoder: Decoder,
    admitted: HashMap<ChitchatId, Instant>,
    digest_bytes: usize,
    newest_generation: u64,
    heard_of_us: HeardOfUs,
}

/// The most that others said they know of our current generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeardOfUs {
    pub(crate) heartbeat: u64,
    pub(crate) version: u64,
}

impl Inspector {
    /// An inspector for one life of gossip's task. `newest_generation` is the highest one that is believed.
    pub(crate) fn new(cluster: String, own: ChitchatId, loopback: bool, newest_generation: u64) -> Inspector {
        let digest_bytes = digest_bytes(&own);
        Inspector {
            cluster,
            own,
            loopback,
            decoder: Decoder::new(),
            admitted: HashMap::new(),
            digest_bytes,
            newest_generation,
            heard_of_us: HeardOfUs::default(),
        }
    }

    /// Makes of a message what the library may see of it.
    pub(crate) fn inspect(&mut self, now: Instant, bytes: &[u8], stats: &Stats) -> Result<ChitchatMessage, DropReason> {
        let mut message = self.decoder.decode(bytes).ok_or(DropReason::Message)?;
        match &mut message {
            Message::Syn { digest, cluster } => {
                if *cluster != self.cluster {
                    return Err(DropReason::Message);
                }
                self.sieve_digest(now, digest, stats);
            }
            Message::SynAck { digest, delta } => {
                self.sieve_digest(now, digest, stats);
                self.sieve_delta(delta, stats);
            }
            Message::Ack { delta } => self.sieve_delta(delta, stats),
        }
        let good = message.encode().ok_or(DropReason::Message)?;
        ChitchatMessage::deserialize(&mut &good[..]).map_err(|_| DropReason::Message)
    }

    /// Tells which nodes the library holds now: others are no longer admitted.
    pub(crate) fn settle<'a>(&mut self, now: Instant, held: impl Iterator<Item = &'a ChitchatId>) {
        let held: HashSet<&ChitchatId> = held.collect();
        self.admitted.retain(|id, since| held.contains(id) || now < *since + SETTLING);
        self.digest_bytes = digest_bytes(&self.own) + self.admitted.keys().map(digest_bytes).sum::<usize>();
    }

    /// Bytes of the digest of all nodes that are admitted.
    pub(crate) fn digest_bytes(&self) -> usize {
        self.digest_bytes
    }

    /// The most that others know of us.
    pub(crate) fn heard_of_us(&self) -> HeardOfUs {
        self.heard_of_us
    }

    /// Raises the highest generation that is believed, as time passes.
    pub(crate) fn believe_generations_to(&mut self, newest: u64) {
        self.newest_generation = newest;
    }

    fn sieve_digest(&mut self, now: Instant, digest: &mut Vec<Digest>, stats: &Stats) {
        digest.retain_mut(|entry| self.judge(now, entry).inspect_err(|reason| stats.count_drop(*reason)).is_ok());
    }

    fn judge(&mut self, now: Instant, entry: &mut Digest) -> Result<(), DropReason> {
        // Nobody deletes keys here, so there is never garbage.
        entry.last_gc_version = 0;
        if entry.id == self.own {
            self.heard_of_us.heartbeat = self.heard_of_us.heartbeat.max(entry.heartbeat);
            self.heard_of_us.version = self.heard_of_us.version.max(entry.max_version);
            return Ok(());
        }
        self.admit(now, &entry.id)
    }

    fn admit(&mut self, now: Instant, id: &ChitchatId) -> Result<(), DropReason> {
        if self.admitted.contains_key(id) {
            return Ok(());
        }
        let well_formed = id.node_id.parse::<NodeId>().is_ok() && addressable(id.gossip_advertise_addr, self.loopback);
        if !well_formed || id.generation_id > self.newest_generation {
            return Err(DropReason::Content);
        }
        if self.digest_bytes + digest_bytes(id) > DIGEST_CEILING {
            return Err(DropReason::Crowded);
        }
        let namesakes: Vec<_> = self.admitted.iter().filter(|(other, _)| other.node_id == id.node_id).collect();
        let newer: BTreeSet<u64> =
            namesakes.iter().map(|(other, _)| other.generation_id).filter(|other| *other > id.generation_id).collect();
        let lately = namesakes.iter().any(|(_, since)| now < **since + GENERATION_GAP);
        if newer.len() >= 2 || (namesakes.len() >= GENERATIONS_AT_ONCE && lately) {
            return Err(DropReason::Crowded);
        }
        let known = !namesakes.is_empty() || id.node_id == self.own.node_id;
        if !known && self.digest_bytes + digest_bytes(id) > NEW_NAMES_BELOW {
            return Err(DropReason::Crowded);
        }
        self.digest_bytes += digest_bytes(id);
        self.admitted.insert(id.clone(), now);
        Ok(())
    }

    fn sieve_delta(&self, delta: &mut Vec<Delta>, stats: &Stats) {
        let mut told = BTreeSet::new();
        delta.retain(|entry| {
            // Of a node that was not admitted the digest has been counted already.
            let known = self.admitted.contains_key(&entry.id);
            let good = known && sound(entry) && told.insert(entry.id.clone());
            if !good && (known || entry.id == self.own) {
                stats.count_drop(DropReason::Content);
            }
            good
        });
    }
}

/// Whether what is told of a node can neither end the library's task nor grow what it holds beyond one record.
fn sound(delta: &Delta) -> bool {
    let ascending = delta.values.iter().is_sorted_by(|one, next| one.version < next.version);
    let keys: BTreeSet<&str> = delta.values.iter().map(|value| value.key.as_str()).collect();
    let plain = delta.last_gc_version == 0 && !delta.sets_max_version && delta.from_version <= VERSIONS;
    plain && ascending && !keys.is_empty() && keys.len() == delta.values.len() && delta.values.iter().all(sound_value)
}

fn sound_value(value: &Value) -> bool {
    KEYS.contains(&value.key.as_str())
        && value.status == SET
        && (1..=VERSIONS).contains(&value.version)
        && value.value.len() <= TEXT_BYTES
        && value.value.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> ChitchatId {
        let [high, low] = n.to_be_bytes();
        ChitchatId::new(NodeId::of(&format!("node-{n}")).as_str(), 1_800_000_000_000, ([10, 0, high, low], 7447).into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_nodes_have_room_and_so_has_a_hundred_of_them_that_restarts() {
        let mut inspector = Inspector::new("c".to_owned(), id(0), false, u64::MAX);
        let admitted = |inspector: &mut Inspector, ids: Vec<ChitchatId>| {
            let entry = |id| Digest { id, heartbeat: 1, last_gc_version: 0, max_version: 1 };
            let syn = Message::Syn { digest: ids.into_iter().map(entry).collect(), cluster: "c".to_owned() };
            inspector.inspect(Instant::now(), &syn.encode().unwrap(), &Stats::default()).unwrap();
            inspector.admitted.len()
        };
        assert_eq!(admitted(&mut inspector, (1..1_050).map(id).collect()), 1_049);
        let again = |n| ChitchatId { generation_id: 1_800_000_001_000, ..id(n) };
        assert_eq!(admitted(&mut inspector, (1..101).map(again).collect()), 1_149);
    }
}
