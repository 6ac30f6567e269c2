//! All signed items that this node holds. They are merged here and nowhere else, whether they came from chitchat, an exchange, a
//! push, the cache or a worker.
//!
//! | offered | what happens |
//! |---|---|
//! | newer than what is held, by (generation, version) | it replaces it |
//! | older | the held item is returned to the sender |
//! | the same version with other content | the greater hash wins, and it is a conflict |
//! | a higher generation at another address, while the lower one is live | both are kept, and it is a conflict |
//! | up to the generation of a removal | it is refused |
//! | this node's own, above what it signed | this node goes on above it |
//!
//! An item is held together with the key that signed it, and goes with that key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant};

use super::item::{Item, ItemError, Record, Removal, SignedItem, View};
use super::keys::Keyring;
use crate::engine::endpoint::NodeId;

/// Nodes whose records are held at most: only holders of the signing key can make any.
pub const RECORDS: usize = 256;
/// Removals that are held at most.
pub const REMOVALS: usize = 256;
/// Two generations of one name that are both live for so long are two machines.
const RIVALS: Duration = Duration::from_secs(5);
/// A view is worth something for so long after it was heard, in a small cluster.
const VIEW_IS_FRESH: Duration = Duration::from_secs(14);

/// The short name of one item, and of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tag {
    /// A hash of kind and author.
    pub subject: [u8; 4],
    /// A hash of its bytes.
    pub content: [u8; 4],
}

/// What came of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is held now: a record of this node.
    Record(NodeId),
    /// It is held now: a view of this node.
    View(NodeId),
    /// It is held now: the removal of a node.
    Removal {
        /// Which node.
        node: NodeId,
        /// A record was held that this removal beats: it is dropped.
        dropped: bool,
    },
    /// It is what was held already.
    Known,
    /// Something newer is held: hand this back.
    Older(Arc<[u8]>),
    /// It is about this node, and above what this node signed.
    OwnAbove(Record),
    /// This node has been removed, up to this generation.
    OwnRemoval(u64),
    /// There is no room for another node.
    Crowded,
}

/// Two different statements that cannot both be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Whose name it is.
    pub node: NodeId,
    /// The statement that is held.
    pub held: Record,
    /// The other one.
    pub other: Record,
}

/// A signed item at rest.
#[derive(Clone, Debug)]
struct Held<T> {
    content: T,
    signed: SignedItem,
    tag: Tag,
}

/// The catalog.
pub struct Catalog {
    own: NodeId,
    cluster: String,
    keyring: Keyring,
    records: BTreeMap<NodeId, Held<Record>>,
    /// A higher generation of a name whose lower one is live elsewhere.
    rivals: BTreeMap<NodeId, (Held<Record>, Instant)>,
    views: BTreeMap<NodeId, (Held<View>, Instant)>,
    removals: BTreeMap<NodeId, Held<Removal>>,
    /// Who is live as this node sees it itself, on a core member.
    live: BTreeSet<(NodeId, u64)>,
    fresh: Duration,
    conflicts: Vec<Conflict>,
    /// Which rival of each name was told of.
    told: BTreeMap<NodeId, u64>,
    /// Where another machine with this node's name was said to be last.
    namesake: Vec<SocketAddr>,
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn front(hash: [u8; 32]) -> [u8; 4] {
    [hash[0], hash[1], hash[2], hash[3]]
}

fn tag(kind: u8, node: NodeId, bytes: &[u8]) -> Tag {
    Tag { subject: front(hash(&[&[kind], node.as_str().as_bytes()])), content: front(hash(&[bytes])) }
}

impl<T> Held<T> {
    fn new(kind: u8, node: NodeId, content: T, signed: SignedItem) -> Held<T> {
        let tag = tag(kind, node, &signed.bytes);
        Held { content, signed, tag }
    }
}

fn edition(record: &Record) -> (u64, u64) {
    (record.generation, record.version)
}

fn same_place(one: &Record, other: &Record) -> bool {
    one.gossip.iter().any(|addr| other.gossip.contains(addr))
}

impl Catalog {
    /// An empty one.
    pub fn new(own: NodeId, cluster: String, keyring: Keyring) -> Catalog {
        Catalog {
            own,
            cluster,
            keyring,
            records: BTreeMap::new(),
            rivals: BTreeMap::new(),
            views: BTreeMap::new(),
            removals: BTreeMap::new(),
            live: BTreeSet::new(),
            fresh: VIEW_IS_FRESH,
            conflicts: Vec::new(),
            told: BTreeMap::new(),
            namesake: Vec::new(),
        }
    }

    /// Verifies and merges what was offered.
    pub fn offer(&mut self, now: Instant, bytes: &[u8]) -> Result<Offered, ItemError> {
        if self.holds(bytes) {
            for (_, heard) in self.views.values_mut().filter(|(held, _)| *held.signed.bytes == *bytes) {
                *heard = now;
            }
            return Ok(Offered::Known);
        }
        let signed = SignedItem::verify(bytes, &self.keyring, &self.cluster)?;
        Ok(match signed.item.clone() {
            Item::Record(record) => self.offer_record(now, record, signed),
            Item::View(view) => self.offer_view(now, view, signed),
            Item::Removal(removal) => self.offer_removal(removal, signed),
        })
    }

    /// Holds this node's own record, which it has just signed.
    pub fn set_own(&mut self, signed: SignedItem) {
        if let Item::Record(record) = signed.item.clone() {
            self.records.insert(self.own, Held::new(0, self.own, record, signed));
        }
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        let records = self.records.values().chain(self.rivals.values().map(|(rival, _)| rival)).map(|held| &held.signed);
        let removals = self.removals.values().map(|held| &held.signed);
        let views = self.views.values().map(|(held, _)| &held.signed);
        records.chain(removals).chain(views).any(|signed| *signed.bytes == *bytes)
    }

    fn offer_record(&mut self, now: Instant, record: Record, signed: SignedItem) -> Offered {
        let node = NodeId::of(&record.name);
        if node == self.own {
            return self.offer_own(record);
        }
        if let Some(removal) = self.removals.get(&node)
            && record.generation <= removal.content.generation
        {
            return Offered::Older(Arc::clone(&removal.signed.bytes));
        }
        let Some(held) = self.records.get(&node) else {
            if self.records.len() >= RECORDS {
                return Offered::Crowded;
            }
            self.records.insert(node, Held::new(0, node, record, signed));
            return Offered::Record(node);
        };
        let (ours, theirs) = (edition(&held.content), edition(&record));
        if theirs < ours {
            return Offered::Older(Arc::clone(&held.signed.bytes));
        }
        if theirs == ours {
            self.conflicts.push(Conflict { node, held: held.content.clone(), other: record.clone() });
            if hash(&[&signed.bytes]) < hash(&[&held.signed.bytes]) {
                return Offered::Older(Arc::clone(&held.signed.bytes));
            }
        } else if theirs.0 > ours.0 && !same_place(&held.content, &record) && self.is_live(now, node, ours.0) {
            let since = self.rivals.get(&node).map_or(now, |(_, since)| *since);
            self.rivals.insert(node, (Held::new(0, node, record, signed), since));
            return Offered::Known;
        }
        self.rivals.remove(&node);
        self.records.insert(node, Held::new(0, node, record, signed));
        Offered::Record(node)
    }

    fn offer_own(&mut self, record: Record) -> Offered {
        if self.records.get(&self.own).is_some_and(|own| !same_place(&own.content, &record)) {
            self.namesake.clone_from(&record.gossip);
        }
        match self.records.get(&self.own) {
            Some(own) if edition(&record) < edition(&own.content) => Offered::Older(Arc::clone(&own.signed.bytes)),
            _ => Offered::OwnAbove(record),
        }
    }

    fn offer_view(&mut self, now: Instant, view: View, signed: SignedItem) -> Offered {
        let Some(node) = view.author.filter(|node| *node != self.own) else { return Offered::Known };
        if self.removed_up_to(node).is_some_and(|generation| view.generation <= generation) {
            return Offered::Known;
        }
        let held = self.views.get(&node).map(|(held, _)| (held.content.generation, held.content.number));
        if held.is_some_and(|held| held >= (view.generation, view.number)) {
            return Offered::Known;
        }
        if held.is_none() && self.views.len() >= RECORDS {
            return Offered::Crowded;
        }
        self.views.insert(node, (Held::new(1, node, view, signed), now));
        Offered::View(node)
    }

    fn offer_removal(&mut self, removal: Removal, signed: SignedItem) -> Offered {
        let node = NodeId::of(&removal.name);
        if let Some(held) = self.removals.get(&node)
            && held.content.generation >= removal.generation
        {
            return Offered::Older(Arc::clone(&held.signed.bytes));
        }
        if self.removals.len() >= REMOVALS && !self.removals.contains_key(&node) {
            return Offered::Crowded;
        }
        let generation = removal.generation;
        self.removals.insert(node, Held::new(2, node, removal, signed));
        let before = self.records.len();
        self.records.retain(|named, held| *named != node || held.content.generation > generation);
        self.rivals.retain(|named, (held, _)| *named != node || held.content.generation > generation);
        self.views.retain(|author, (held, _)| *author != node || held.content.generation > generation);
        if node == self.own {
            return Offered::OwnRemoval(generation);
        }
        Offered::Removal { node, dropped: self.records.len() < before }
    }

    /// Lets rivals in whose lower generation is live no more; whose record changed so. Where both stay live it is a conflict.
    pub fn settle_rivals(&mut self, now: Instant) -> Vec<NodeId> {
        let over: Vec<NodeId> = self
            .rivals
            .keys()
            .filter(|node| self.records.get(node).is_none_or(|held| !self.is_live(now, **node, held.content.generation)))
            .copied()
            .collect();
        for node in &over {
            if let Some((rival, _)) = self.rivals.remove(node) {
                self.records.insert(*node, rival);
            }
        }
        for (node, (rival, since)) in &self.rivals {
            let told = self.told.get(node) == Some(&rival.content.generation);
            if now >= *since + RIVALS
                && !told
                && let Some(held) = self.records.get(node)
            {
                self.told.insert(*node, rival.content.generation);
                let (held, other) = (held.content.clone(), rival.content.clone());
                self.conflicts.push(Conflict { node: *node, held, other });
            }
        }
        over
    }

    /// Conflicts since this was asked last.
    pub fn take_conflicts(&mut self) -> Vec<Conflict> {
        std::mem::take(&mut self.conflicts)
    }

    /// Says who is live as this core member sees it itself.
    pub fn set_live(&mut self, live: BTreeSet<(NodeId, u64)>) {
        self.live = live;
    }

    /// Says how long a view is worth something after it was heard.
    pub fn set_freshness(&mut self, fresh: Duration) {
        self.fresh = fresh.max(VIEW_IS_FRESH);
    }

    /// Whether this node is live at this generation, as this core member sees it or a fresh view lists it.
    pub fn is_live(&self, now: Instant, node: NodeId, generation: u64) -> bool {
        self.live.contains(&(node, generation))
            || self.others_views(now, node).any(|view| view.live.contains(&(node, generation)))
    }

    /// Whether a fresh view lists this node as live.
    pub fn any_live(&self, now: Instant, node: NodeId) -> bool {
        self.others_views(now, node).any(|view| view.live.iter().any(|(live, _)| *live == node))
    }

    /// The fresh views of other nodes: a node's own view is no evidence that the node is live.
    fn others_views(&self, now: Instant, node: NodeId) -> impl Iterator<Item = &View> {
        self.fresh_views(now).filter(move |view| view.author != Some(node))
    }

    /// Views that were heard lately.
    pub fn fresh_views(&self, now: Instant) -> impl Iterator<Item = &View> {
        self.views.values().filter(move |(_, heard)| now < *heard + self.fresh).map(|(held, _)| &held.content)
    }

    /// All records, of this node too.
    pub fn records(&self) -> impl Iterator<Item = (NodeId, &Record)> {
        self.records.iter().map(|(node, held)| (*node, &held.content))
    }

    /// The record of a node.
    pub fn record(&self, node: NodeId) -> Option<&Record> {
        self.records.get(&node).map(|held| &held.content)
    }

    /// Whether another core member has signed that it gossips at this address.
    pub fn names_address(&self, addr: SocketAddr) -> bool {
        let records = self.records.iter().filter(|(node, _)| **node != self.own).map(|(_, held)| held);
        let all = records.chain(self.rivals.values().map(|(rival, _)| rival));
        all.flat_map(|held| &held.content.gossip).chain(&self.namesake).any(|named| *named == addr)
    }

    /// The last view of a core member.
    pub fn view(&self, node: NodeId) -> Option<&View> {
        self.views.get(&node).map(|(held, _)| &held.content)
    }

    /// The removals: of whom, up to which generation, and as they travel.
    pub fn removals(&self) -> impl Iterator<Item = (NodeId, u64, &SignedItem)> {
        self.removals.iter().map(|(node, held)| (*node, held.content.generation, &held.signed))
    }

    /// The name of a node that is removed.
    pub fn removed_name(&self, node: NodeId) -> Option<&str> {
        self.removals.get(&node).map(|held| held.content.name.as_str())
    }

    /// Up to which generation a node is removed.
    pub fn removed_up_to(&self, node: NodeId) -> Option<u64> {
        self.removals.get(&node).map(|held| held.content.generation)
    }

    /// Records and removals as they travel.
    pub fn items(&self) -> impl Iterator<Item = &SignedItem> {
        let records = self.records.values().map(|held| &held.signed);
        records.chain(self.removals.values().map(|held| &held.signed))
    }

    /// This node's own record as it travels.
    pub fn own(&self) -> Option<&SignedItem> {
        self.records.get(&self.own).map(|held| &held.signed)
    }

    /// What is held of a node, as it travels: its record, else its removal.
    pub fn signed(&self, node: NodeId) -> Option<&SignedItem> {
        let record = self.records.get(&node).map(|held| &held.signed);
        record.or_else(|| self.removals.get(&node).map(|held| &held.signed))
    }

    fn tagged(&self) -> impl Iterator<Item = (Tag, &SignedItem)> {
        let records = self.records.values().map(|held| (held.tag, &held.signed));
        records.chain(self.removals.values().map(|held| (held.tag, &held.signed)))
    }

    /// The short names of all records and removals, or of as many that follow one another in order, from a random one on: the
    /// last one is followed by the first.
    pub fn tags(&self, most: usize) -> Vec<Tag> {
        let mut tags: Vec<Tag> = self.tagged().map(|(tag, _)| tag).collect();
        tags.sort_unstable();
        if tags.len() >= most {
            let first = rand::rng().random_range(0..tags.len());
            tags.rotate_left(first);
            tags.truncate(most);
        }
        tags
    }

    /// One number for all records and removals together: equal where all are.
    pub fn digest(&self) -> u64 {
        let tags: BTreeSet<Tag> = self.tagged().map(|(tag, _)| tag).collect();
        let mut hash = Sha256::new();
        for tag in tags {
            hash.update(tag.subject);
            hash.update(tag.content);
        }
        let hash: [u8; 32] = hash.finalize().into();
        hash[..8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }

    /// Items that a node with these short names lacks, or holds with other content. As many names as fit (`most`) tell only of
    /// what is between the first and the last of them.
    pub fn lacking(&self, theirs: &[Tag], most: usize) -> Vec<&SignedItem> {
        let told = |tag: &Tag| match theirs {
            [first, .., last] if theirs.len() >= most && first <= last => (first.subject..=last.subject).contains(&tag.subject),
            [first, .., last] if theirs.len() >= most => tag.subject >= first.subject || tag.subject <= last.subject,
            _ => true,
        };
        self.tagged().filter(|(tag, _)| told(tag) && !theirs.contains(tag)).map(|(_, signed)| signed).collect()
    }

    /// Subjects among these of which this node holds nothing.
    pub fn unknown(&self, theirs: &[Tag]) -> Vec<[u8; 4]> {
        let held: BTreeSet<[u8; 4]> = self.tagged().map(|(tag, _)| tag.subject).collect();
        theirs.iter().map(|tag| tag.subject).filter(|subject| !held.contains(subject)).collect()
    }

    /// Items of these subjects.
    pub fn about(&self, subjects: &[[u8; 4]]) -> Vec<&SignedItem> {
        self.tagged().filter(|(tag, _)| subjects.contains(&tag.subject)).map(|(_, signed)| signed).collect()
    }

    /// Takes another keyring; what its keys have not signed goes. Whose record went.
    pub fn rekey(&mut self, keyring: Keyring) -> Vec<NodeId> {
        let ids = keyring.key_ids();
        let before: BTreeSet<NodeId> = self.records.keys().copied().collect();
        self.records.retain(|node, held| *node == self.own || ids.contains(&held.signed.key));
        self.rivals.retain(|_, (held, _)| ids.contains(&held.signed.key));
        self.views.retain(|_, (held, _)| ids.contains(&held.signed.key));
        self.removals.retain(|_, held| ids.contains(&held.signed.key));
        self.keyring = keyring;
        before.into_iter().filter(|node| !self.records.contains_key(node)).collect()
    }

    /// The keyring that signs and verifies.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The cluster's id.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::message::TAGS;
    use super::*;
    use crate::engine::event::{AgentState, Role};

    fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 7447))
    }

    fn record(name: &str, generation: u64, version: u64, host: u8) -> Record {
        Record {
            name: name.to_owned(),
            generation,
            version,
            role: Role::ControlPlane,
            agent: AgentState::Running,
            apiserver: None,
            endpoints: Vec::new(),
            gossip: vec![addr(host)],
        }
    }

    /// A catalog of the node "me", and what signs for its cluster.
    struct Scene {
        ring: Keyring,
        catalog: Catalog,
        now: Instant,
    }

    impl Scene {
        fn new() -> Scene {
            let ring = Keyring::random();
            let catalog = Catalog::new(NodeId::of("me"), "c".to_owned(), ring.clone());
            Scene { ring, catalog, now: Instant::now() }
        }

        fn signed(&self, item: Item) -> SignedItem {
            item.sign(&self.ring, "c").unwrap()
        }

        fn offer(&mut self, item: Item) -> Offered {
            let signed = self.signed(item);
            self.catalog.offer(self.now, &signed.bytes).unwrap()
        }

        fn offer_record(&mut self, record: Record) -> Offered {
            self.offer(Item::Record(record))
        }

        /// A view of another core member that lists these as live.
        fn hear_view(&mut self, number: u64, live: &[(&str, u64)]) {
            let live = live.iter().map(|(name, generation)| (NodeId::of(name), *generation)).collect();
            let view = View { author: Some(NodeId::of("author")), generation: 1, number, live, ..View::default() };
            assert_eq!(self.offer(Item::View(view)), Offered::View(NodeId::of("author")));
        }

        fn held(&self, name: &str) -> Option<(u64, u64)> {
            self.catalog.record(NodeId::of(name)).map(edition)
        }
    }

    #[test]
    fn the_newest_wins_whoever_brings_it_and_who_offers_an_older_one_is_given_it() {
        let mut scene = Scene::new();
        let cp = NodeId::of("cp");
        assert_eq!(scene.offer_record(record("cp", 5, 2, 1)), Offered::Record(cp));
        assert_eq!(scene.offer_record(record("cp", 5, 2, 1)), Offered::Known);
        let held = scene.catalog.signed(cp).unwrap().bytes.clone();
        assert_eq!(scene.offer_record(record("cp", 5, 1, 1)), Offered::Older(held.clone()));
        assert_eq!(scene.offer_record(record("cp", 4, 99, 1)), Offered::Older(held));
        assert_eq!(scene.offer_record(record("cp", 5, 3, 1)), Offered::Record(cp));
        assert_eq!(scene.offer_record(record("cp", 6, 1, 1)), Offered::Record(cp));
        assert_eq!(scene.held("cp"), Some((6, 1)));
    }

    #[test]
    fn of_two_with_one_version_all_nodes_keep_the_same_and_it_is_a_conflict() {
        let (one, other) = (record("cp", 5, 2, 1), record("cp", 5, 2, 2));
        let mut scenes = [Scene::new(), Scene::new()];
        scenes[1].ring = scenes[0].ring.clone();
        scenes[1].catalog = Catalog::new(NodeId::of("me"), "c".to_owned(), scenes[0].ring.clone());
        let (first, second) = (scenes[0].signed(Item::Record(one)), scenes[0].signed(Item::Record(other)));
        for (scene, order) in scenes.iter_mut().zip([[&first, &second], [&second, &first]]) {
            for signed in order {
                let _ = scene.catalog.offer(scene.now, &signed.bytes).unwrap();
            }
            assert_eq!(scene.catalog.take_conflicts().len(), 1);
        }
        let kept = |scene: &Scene| scene.catalog.record(NodeId::of("cp")).unwrap().gossip.clone();
        assert_eq!(kept(&scenes[0]), kept(&scenes[1]));
    }

    #[test]
    fn a_higher_generation_elsewhere_waits_until_nobody_lists_the_lower_one_and_both_live_are_a_conflict() {
        let mut scene = Scene::new();
        scene.offer_record(record("cp", 5, 1, 1));
        scene.hear_view(1, &[("cp", 5)]);
        assert_eq!(scene.offer_record(record("cp", 6, 1, 2)), Offered::Known);
        assert_eq!((scene.held("cp"), scene.catalog.settle_rivals(scene.now)), (Some((5, 1)), Vec::new()));
        scene.now += RIVALS;
        scene.hear_view(2, &[("cp", 5)]);
        scene.catalog.settle_rivals(scene.now);
        scene.catalog.settle_rivals(scene.now);
        assert_eq!(scene.catalog.take_conflicts().len(), 1, "told once");
        scene.hear_view(3, &[("cp", 6)]);
        assert_eq!(scene.catalog.settle_rivals(scene.now), [NodeId::of("cp")]);
        assert_eq!(scene.held("cp"), Some((6, 1)));
    }

    #[test]
    fn a_restart_at_the_same_address_replaces_at_once_and_nobodys_own_view_says_that_it_is_live() {
        let mut scene = Scene::new();
        scene.offer_record(record("cp", 5, 1, 1));
        scene.hear_view(1, &[("cp", 5)]);
        assert_eq!(scene.offer_record(record("cp", 6, 1, 1)), Offered::Record(NodeId::of("cp")));
        scene.offer_record(record("author", 1, 1, 8));
        scene.hear_view(2, &[("author", 1)]);
        assert_eq!(scene.offer_record(record("author", 2, 1, 9)), Offered::Record(NodeId::of("author")));
    }

    #[test]
    fn a_removal_beats_every_record_up_to_its_generation_and_never_ends() {
        let mut scene = Scene::new();
        scene.offer_record(record("cp", 5, 1, 1));
        let removal = Removal { name: "cp".to_owned(), generation: 5 };
        assert_eq!(scene.offer(Item::Removal(removal.clone())), Offered::Removal { node: NodeId::of("cp"), dropped: true });
        assert_eq!(scene.held("cp"), None);
        scene.now += Duration::from_secs(30 * 24 * 3_600);
        let held = scene.signed(Item::Removal(removal.clone())).bytes;
        assert_eq!(scene.offer_record(record("cp", 5, 99, 1)), Offered::Older(held));
        assert_eq!(scene.offer_record(record("cp", 6, 1, 1)), Offered::Record(NodeId::of("cp")), "it was started again");
        let older = Removal { generation: 4, ..removal };
        assert!(matches!(scene.offer(Item::Removal(older)), Offered::Older(_)));
        assert_eq!(scene.held("cp"), Some((6, 1)));
    }

    #[test]
    fn this_nodes_own_record_is_nobody_elses_to_replace() {
        let mut scene = Scene::new();
        let own = scene.signed(Item::Record(record("me", 5, 3, 1)));
        scene.catalog.set_own(own.clone());
        assert_eq!(scene.offer_record(record("me", 5, 2, 1)), Offered::Older(own.bytes));
        let above = record("me", 5, 9, 1);
        assert_eq!(scene.offer_record(above.clone()), Offered::OwnAbove(above));
        assert_eq!(scene.held("me"), Some((5, 3)));
        let removal = Removal { name: "me".to_owned(), generation: 5 };
        assert_eq!(scene.offer(Item::Removal(removal)), Offered::OwnRemoval(5));
    }

    #[test]
    fn what_a_removed_key_signed_goes_with_it() {
        let mut scene = Scene::new();
        scene.offer_record(record("cp", 5, 1, 1));
        scene.hear_view(1, &[("cp", 5)]);
        scene.offer(Item::Removal(Removal { name: "gone".to_owned(), generation: 1 }));
        let next = Keyring::random();
        let both = Keyring::parse(format!("{}{}", next.to_text(), scene.ring.to_text()).as_bytes()).unwrap();
        assert_eq!(scene.catalog.rekey(both), Vec::new());
        assert_eq!(scene.catalog.rekey(next), [NodeId::of("cp")]);
        assert_eq!((scene.catalog.items().count(), scene.catalog.fresh_views(scene.now).count()), (0, 0));
        assert_eq!(
            scene.catalog.offer(scene.now, &scene.signed(Item::Record(record("cp", 6, 1, 1))).bytes),
            Err(ItemError::UnknownKey)
        );
    }

    #[test]
    fn equal_catalogs_have_one_digest_and_who_lacks_something_is_told_what() {
        let mut scene = Scene::new();
        let mut other = Catalog::new(NodeId::of("other"), "c".to_owned(), scene.ring.clone());
        assert_eq!(scene.catalog.digest(), other.digest());
        for name in ["a", "b"] {
            scene.offer_record(record(name, 1, 1, 1));
        }
        assert_ne!(scene.catalog.digest(), other.digest());
        for item in scene.catalog.lacking(&other.tags(TAGS), TAGS) {
            let _ = other.offer(scene.now, &item.bytes).unwrap();
        }
        assert_eq!(scene.catalog.digest(), other.digest());
        assert!(scene.catalog.lacking(&other.tags(TAGS), TAGS).is_empty() && scene.catalog.unknown(&other.tags(TAGS)).is_empty());
        let empty = Catalog::new(NodeId::of("empty"), "c".to_owned(), scene.ring.clone());
        let unknown = empty.unknown(&other.tags(TAGS));
        assert_eq!(other.about(&unknown).len(), 2);
    }
}
