//! Who has no key, and who has it and means ill.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::ChitchatId;
use proptest::prelude::*;
use tokio::time::Instant;

use super::super::fragment::Splitter;
use super::super::inspect::DIGEST_CEILING;
use super::super::keyring::Keyring;
use super::super::packet::{Direct, Packet};
use super::super::record::{Record, TEXT_BYTES};
use super::super::seal::Cipher;
use super::super::sessions::{Opened, Parts, Sessions};
use super::super::stats::DropReason;
use super::super::testing::{CLUSTER, Lan, LanSocket, Machine, Node, at, ip};
use super::super::wire::{Delta, Digest, Message, Value};
use super::super::{Heard, Settings};
use crate::engine::Event;
use crate::engine::endpoint::{Endpoint, NodeId};
use crate::engine::event::{AgentState, ApiserverState, OwnReport, Role};
use crate::world::DatagramSocket;

const SECOND: Duration = Duration::from_secs(1);

/// Three control planes that know one another.
struct Cluster {
    lan: Lan,
    ring: Keyring,
    machines: [Machine; 3],
    nodes: Vec<Node>,
}

impl Cluster {
    async fn start() -> Cluster {
        let (lan, ring) = (Lan::default(), Keyring::random());
        let machines = [1, 2, 3].map(|host| Machine::new(&lan, host, Role::ControlPlane));
        let nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
        let mut cluster = Cluster { lan, ring, machines, nodes };
        cluster.is_well().await;
        cluster
    }

    /// Every node sees every other one live, with its true record.
    async fn is_well(&mut self) {
        for (place, node) in self.nodes.iter_mut().enumerate() {
            for machine in self.machines.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, machine)| machine) {
                let true_record = |node: &Node| {
                    let record = node.record(&machine.name);
                    node.sees(&machine.name)
                        && record.is_some_and(|record| record.endpoints == [Endpoint::from(machine.endpoint())])
                };
                node.until(10 * SECOND, &format!("{} is well", machine.name), true_record).await;
            }
        }
    }

    fn dropped(&self, place: usize, reason: DropReason) -> u64 {
        self.nodes[place].gossip.stats().dropped(reason)
    }

    fn restarts(&self) -> u64 {
        self.nodes.iter().map(|node| node.gossip.stats().restarts.get()).sum()
    }

    async fn idle(&mut self, span: Duration) {
        let over = Instant::now() + span;
        for node in &mut self.nodes {
            node.idle(over.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))).await;
        }
    }

    /// The id under which a node runs now.
    fn id(&self, place: usize) -> ChitchatId {
        let generation = u64::try_from(self.nodes[place].gossip.stats().generation.get()).unwrap();
        let addr = self.nodes[place].gossip.advertised().unwrap();
        ChitchatId::new(NodeId::of(&self.machines[place].name).as_str(), generation, addr)
    }
}

/// A member with the key that says whatever it likes.
struct Mallory {
    socket: LanSocket,
    sessions: Sessions,
    splitter: Splitter,
}

impl Mallory {
    fn new(cluster: &Cluster) -> Mallory {
        let cipher = Cipher::for_gossip(&cluster.ring, CLUSTER);
        Mallory { socket: cluster.lan.bind(at(66)), sessions: Sessions::new(cipher, Arc::default()), splitter: Splitter::new() }
    }

    async fn tell(&mut self, to: SocketAddr, message: &Message) {
        let parts = self.splitter.split(&message.encode().unwrap()).unwrap();
        self.say(to, parts).await;
    }

    async fn say(&mut self, to: SocketAddr, parts: Vec<Vec<u8>>) {
        for datagram in self.sessions.seal(Instant::now(), to, &Parts::from(parts)) {
            self.socket.send(to, &datagram).await.unwrap();
        }
        let mut buffer = [0; 2048];
        while let Ok(received) = tokio::time::timeout(Duration::from_millis(2), self.socket.receive(&mut buffer)).await {
            let (len, from) = received.unwrap();
            let answers = match self.sessions.open(Instant::now(), from, &buffer[..len]) {
                Ok(Opened::Resend(_, datagrams)) => datagrams,
                Ok(Opened::Stranger(hello)) => hello.into_iter().collect(),
                _ => Vec::new(),
            };
            for answer in answers {
                self.socket.send(from, &answer).await.unwrap();
            }
        }
    }
}

fn forged(name: &str, endpoint: &str) -> Record {
    Record {
        session: 1,
        name: name.to_owned(),
        role: Role::ControlPlane,
        agent: AgentState::Running,
        endpoints: vec![Endpoint::from(endpoint.parse::<SocketAddr>().unwrap())],
        report: OwnReport { apiserver: Some(ApiserverState::Down), observations: Vec::new() },
    }
}

fn digest(id: &ChitchatId, heartbeat: u64, max_version: u64) -> Digest {
    Digest { id: id.clone(), heartbeat, last_gc_version: 0, max_version }
}

fn value(key: &str, value: &str, version: u64) -> Value {
    Value { key: key.to_owned(), value: value.to_owned(), version, status: 0 }
}

fn delta(id: &ChitchatId, values: Vec<Value>) -> Delta {
    Delta { id: id.clone(), last_gc_version: 0, from_version: 0, values, sets_max_version: false }
}

fn invented(n: u32) -> ChitchatId {
    let [a, b, c, d] = n.to_be_bytes();
    let addr = SocketAddr::from(([172, 16 + a + b, c, d], 9));
    ChitchatId::new(NodeId::of(&format!("invented-{n}")).as_str(), 1_800_000_000_000, addr)
}

#[tokio::test(start_paused = true)]
async fn who_has_no_key_learns_nothing_and_changes_nothing() {
    let mut cluster = Cluster::start().await;
    cluster.lan.capture();
    let outsider = Machine::new(&cluster.lan, 7, Role::ControlPlane);
    let mut node = outsider.start(&Keyring::random(), &[at(1), at(2)]);
    node.idle(10 * SECOND).await;
    assert!(node.records.is_empty() && node.live.len() == 1 && node.gossip.members().is_empty());
    assert!(cluster.lan.captured().iter().all(|sent| sent.to != at(7)), "not even an answer");
    cluster.is_well().await;
    assert!(cluster.nodes.iter().all(|node| !node.sees(&outsider.name) && node.records.len() == 2));
    assert!(cluster.dropped(0, DropReason::UnknownKey) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_of_another_cluster_learns_nothing_even_with_the_same_key() {
    let mut cluster = Cluster::start().await;
    cluster.lan.capture();
    let stray = Machine::new(&cluster.lan, 7, Role::ControlPlane);
    let settings = Settings { cluster: "another".to_owned(), ..stray.settings(&cluster.ring, &[at(1), at(2)]) };
    let mut node = stray.start_with(settings);
    node.idle(10 * SECOND).await;
    assert!(node.records.is_empty() && node.live.len() == 1);
    assert!(cluster.lan.captured().iter().all(|sent| sent.to != at(7)));
    cluster.is_well().await;
    assert!(cluster.nodes.iter().all(|node| !node.sees(&stray.name)));
    assert!(cluster.dropped(0, DropReason::Unauthentic) > 0);
}

#[tokio::test(start_paused = true)]
async fn junk_is_dropped_by_reason_while_gossip_goes_on() {
    let mut cluster = Cluster::start().await;
    for n in 0..20_000_u32 {
        cluster.lan.inject(at(99), at(1), &n.to_le_bytes());
        if n % 500 == 0 {
            cluster.lan.inject(at(99), at(1), &vec![0; 65_507]);
            let mut long = vec![7; 2_000];
            long[0] = 1;
            cluster.lan.inject(at(99), at(1), &long);
            cluster.idle(Duration::from_millis(10)).await;
        }
    }
    cluster.idle(Duration::from_millis(10)).await;
    cluster.is_well().await;
    let version = cluster.dropped(0, DropReason::Version);
    let short = cluster.dropped(0, DropReason::Short);
    assert!(version + short >= 20_000, "{version} of another version, {short} too short");
    assert_eq!(cluster.dropped(0, DropReason::Oversized), 40);
}

#[tokio::test(start_paused = true)]
async fn replays_to_the_receiver_another_node_the_sender_and_a_restarted_receiver_change_nothing() {
    let mut cluster = Cluster::start().await;
    cluster.lan.capture();
    let mut say = cluster.machines[1].say();
    say.report.apiserver = Some(ApiserverState::Draining);
    cluster.nodes[1].gossip.say(say.clone(), true);
    cluster.idle(3 * SECOND).await;
    say.report.apiserver = Some(ApiserverState::Ready);
    cluster.nodes[1].gossip.say(say, true);
    let captured = cluster.lan.captured();
    cluster.idle(3 * SECOND).await;
    let told = cluster.nodes[0].all.len();
    let replayed_before = cluster.dropped(0, DropReason::Replayed);
    for sent in &captured {
        for to in [1, 2, 3].map(at) {
            cluster.lan.inject(sent.from, to, &sent.bytes);
        }
    }
    cluster.idle(3 * SECOND).await;
    assert!(cluster.dropped(0, DropReason::Replayed) > replayed_before);
    assert!(cluster.dropped(0, DropReason::Own) > 0 && cluster.dropped(0, DropReason::Stranger) > 0);
    let news = cluster.nodes[0].all[told..].iter().filter(|heard| matches!(heard, Heard::Event(Event::Record(_))));
    assert_eq!(news.count(), 0, "no replay tells anything");
    // The receiver restarts, and hears it all once more.
    cluster.nodes.remove(0);
    let back = cluster.machines[0].start(&cluster.ring, &[at(2)]);
    cluster.nodes.insert(0, back);
    for sent in captured.iter().filter(|sent| sent.to == at(1)) {
        cluster.lan.inject(sent.from, at(1), &sent.bytes);
    }
    cluster.is_well().await;
    let draining = |heard: &Heard| matches!(heard, Heard::Event(Event::Record(record)) if record.apiserver == Some(ApiserverState::Draining));
    assert!(!cluster.nodes[0].all.iter().any(draining), "what was said before it started is not heard after");
}

#[tokio::test(start_paused = true)]
async fn nobody_tells_a_node_anything_about_itself() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let id = cluster.id(0);
    let text = forged("node-1", "203.0.113.1:443").encode_text().unwrap();
    let ack = Message::Ack { delta: vec![delta(&id, vec![value("r", &text, 900)])] };
    mallory.tell(at(1), &ack).await;
    cluster.idle(5 * SECOND).await;
    assert!(cluster.dropped(0, DropReason::Content) > 0);
    cluster.is_well().await;
    assert_eq!(cluster.restarts(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_would_end_the_librarys_task_does_not_reach_it() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let id = invented(1);
    let known = Message::SynAck { digest: vec![digest(&id, 5, 1)], delta: vec![delta(&id, vec![value("r", "x", 1)])] };
    mallory.tell(at(1), &known).await;
    let plain = |values: Vec<Value>| delta(&id, values);
    let hostile = [
        Delta { sets_max_version: true, ..plain(vec![value("r", "x", 50)]) },
        Delta { last_gc_version: u64::MAX, ..plain(vec![value("r", "x", 51)]) },
        plain(vec![value("r", "x", 60), value("s", "x", 52)]),
        plain(vec![value("é", "x", 53)]),
        plain(vec![value("", "x", 54)]),
        plain(vec![value("r", &"x".repeat(TEXT_BYTES + 1), 55)]),
        plain(vec![value("r", "x", u64::MAX)]),
        plain(vec![Value { status: 1, ..value("r", "x", 56) }]),
        plain(Vec::new()),
    ];
    for delta in hostile {
        let before = cluster.dropped(0, DropReason::Content);
        mallory.tell(at(1), &Message::Ack { delta: vec![delta.clone()] }).await;
        assert_eq!(cluster.dropped(0, DropReason::Content), before + 1, "{delta:?}");
    }
    for bytes in [vec![0; 100], b"\x53\xb0\0\xff".to_vec(), vec![0x53, 0xb0, 0, 3]] {
        let before = cluster.dropped(0, DropReason::Message);
        mallory.say(at(1), vec![Packet::Whole(&bytes).encode()]).await;
        assert_eq!(cluster.dropped(0, DropReason::Message), before + 1, "{bytes:?}");
    }
    let stray = Message::Syn { digest: Vec::new(), cluster: "another".to_owned() };
    mallory.tell(at(1), &stray).await;
    cluster.is_well().await;
    assert_eq!(cluster.restarts(), 0);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_invented_nodes_neither_end_gossip_nor_keep_the_real_ones_out() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    for chunk in 0..6 {
        for to in [1, 2, 3].map(at) {
            // Others for each node, so that the nodes then disagree.
            let first = u32::from(to.ip() == ip(2)) * 10_000 + chunk * 1_000;
            let digest = (first..first + 1_000).map(|n| digest(&invented(n), 5, 0)).collect();
            mallory.tell(to, &Message::Syn { digest, cluster: CLUSTER.to_owned() }).await;
        }
    }
    cluster.idle(3 * SECOND).await;
    for place in 0..3 {
        let bytes = cluster.nodes[place].gossip.stats().digest_bytes.get();
        assert!(bytes > 0 && bytes <= i64::try_from(DIGEST_CEILING).unwrap(), "{bytes}");
        assert!(cluster.dropped(place, DropReason::Crowded) > 1_000);
    }
    cluster.is_well().await;
    // One restarts, and is heard again all the same.
    cluster.nodes.remove(1);
    let back = cluster.machines[1].start(&cluster.ring, &[at(1)]);
    cluster.nodes.insert(1, back);
    cluster.idle(3 * SECOND).await;
    cluster.is_well().await;
    assert_eq!(cluster.restarts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_of_one_name_fills_nobodys_digest() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let before = cluster.nodes[0].gossip.stats().digest_bytes.get();
    for generation in 0..200 {
        let id = ChitchatId { generation_id: 1_800_000_000_000 + generation, ..invented(1) };
        mallory.tell(at(1), &Message::Syn { digest: vec![digest(&id, 5, 0)], cluster: CLUSTER.to_owned() }).await;
    }
    cluster.idle(SECOND).await;
    let grown = cluster.nodes[0].gossip.stats().digest_bytes.get() - before;
    assert!(grown <= 5 * 50, "{grown} bytes for one name");
    assert!(cluster.dropped(0, DropReason::Crowded) >= 190);
}

#[tokio::test(start_paused = true)]
async fn a_record_forged_over_another_nodes_is_outlived() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let generation = cluster.nodes[1].gossip.stats().generation.get();
    let id = cluster.id(1);
    let text = forged("node-2", "203.0.113.1:443").encode_text().unwrap();
    mallory.tell(at(1), &Message::Ack { delta: vec![delta(&id, vec![value("r", &text, 1_000_000)])] }).await;
    let lied_to = |node: &Node| node.record("node-2").unwrap().endpoints[0].addr().port() == 443;
    cluster.nodes[0].until(SECOND, "the lie is believed for now", lied_to).await;
    cluster.idle(5 * SECOND).await;
    cluster.is_well().await;
    assert!(cluster.nodes[1].gossip.stats().generation.get() > generation, "it went on above the lie");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_forged_over_another_nodes_is_outlived() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let id = cluster.id(1);
    let syn = Message::Syn { digest: vec![digest(&id, 1 << 40, 1)], cluster: CLUSTER.to_owned() };
    for to in [1, 3].map(at) {
        mallory.tell(to, &syn).await;
    }
    cluster.idle(20 * SECOND).await;
    cluster.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_generation_beyond_belief_hides_nobody() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let id = ChitchatId { generation_id: u64::MAX - 1, ..cluster.id(1) };
    mallory.tell(at(1), &Message::Syn { digest: vec![digest(&id, 5, 0)], cluster: CLUSTER.to_owned() }).await;
    assert!(cluster.dropped(0, DropReason::Content) > 0);
    cluster.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn direct_records_are_only_ahead_of_gossip_never_beside_it() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let generation = cluster.id(1).generation_id;
    let send = |name: &str, generation, version| {
        let record = forged(name, "10.0.0.99:6443").encode().unwrap();
        vec![Packet::Direct(Direct { generation, version, record }).encode()]
    };
    let refused = [
        send("nobody", 1, 1),
        send("node-2", generation + 1, 1),
        send("node-2", generation, 1_000),
        send("node-1", generation, 2),
        vec![Packet::Direct(Direct { generation, version: 2, record: vec![1; 400] }).encode()],
        vec![Packet::Direct(Direct { generation, version: 2, record: vec![9; 40] }).encode()],
    ];
    for parts in refused {
        mallory.say(at(1), parts).await;
    }
    cluster.idle(SECOND).await;
    assert_eq!(cluster.dropped(0, DropReason::Direct), 4);
    assert_eq!((cluster.dropped(0, DropReason::Record), cluster.dropped(0, DropReason::FutureRecord)), (1, 1));
    cluster.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_records_is_told_as_the_last_ones_only() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let id = invented(1);
    let name = "invented-1";
    let told = cluster.nodes[0].all.len();
    mallory.tell(at(1), &Message::Syn { digest: vec![digest(&id, 5, 0)], cluster: CLUSTER.to_owned() }).await;
    for version in 1..2_000 {
        let text = forged(name, &format!("10.0.0.99:{version}")).encode_text().unwrap();
        mallory.tell(at(1), &Message::Ack { delta: vec![delta(&id, vec![value("r", &text, version)])] }).await;
    }
    // The agent listened to nobody all the while.
    cluster.is_well().await;
    cluster.nodes[0].until(SECOND, "the last one", |node| node.record(name).is_some_and(|record| record.version == 1_999)).await;
    assert!(cluster.nodes[0].all.len() - told < 100);
}

#[tokio::test(start_paused = true)]
async fn endpoints_at_loopback_or_outside_of_what_is_allowed_are_not_told() {
    let mut cluster = Cluster::start().await;
    let mut say = cluster.machines[1].say();
    say.endpoints = ["127.0.0.1:22", "203.0.113.1:443", "10.0.0.2:6443"].map(|addr| addr.parse().unwrap()).to_vec();
    cluster.nodes[1].gossip.say(say, false);
    let endpoints =
        |node: &Node| node.record("node-2").unwrap().endpoints.iter().map(|one| one.addr().port()).collect::<Vec<_>>();
    cluster.nodes[0].until(3 * SECOND, "without loopback", |node| endpoints(node) == [443, 6443]).await;
    cluster.nodes[0].gossip.reload(cluster.ring.clone(), vec!["10.0.0.0/8".parse().unwrap()]);
    cluster.nodes[0].until(SECOND, "only what is allowed", |node| endpoints(node) == [6443]).await;
    assert!(cluster.dropped(0, DropReason::Endpoint) >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_format_to_come_is_counted_and_ignored() {
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let id = invented(1);
    let future = Message::SynAck { digest: vec![digest(&id, 5, 0)], delta: vec![delta(&id, vec![value("r", "Ag", 1)])] };
    mallory.tell(at(1), &future).await;
    cluster.idle(SECOND).await;
    assert!(cluster.dropped(0, DropReason::FutureRecord) > 0);
    assert_eq!(cluster.dropped(0, DropReason::Record), 0);
    cluster.is_well().await;
}

fn any_delta() -> impl Strategy<Value = Delta> {
    let version = prop_oneof![0..6_u64, Just(u64::MAX), Just(1 << 32)];
    let key = prop_oneof![Just("r"), Just("s"), Just("é"), Just("")];
    let any_value =
        (key, version.clone(), 0..3_u8).prop_map(|(key, version, status)| Value { status, ..value(key, "x", version) });
    (0..4_u32, version.clone(), version, proptest::collection::vec(any_value, 0..4), any::<bool>()).prop_map(
        |(node, last_gc_version, from_version, values, sets_max_version)| Delta {
            id: invented(node),
            last_gc_version: last_gc_version.min(3),
            from_version: from_version.min(3),
            values,
            sets_max_version,
        },
    )
}

#[tokio::test(start_paused = true)]
async fn whatever_a_member_says_the_librarys_task_goes_on() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut cluster = Cluster::start().await;
    let mut mallory = Mallory::new(&cluster);
    let mut runner = TestRunner::default();
    let messages = proptest::collection::vec(any_delta(), 0..6);
    for _ in 0..500 {
        let delta = messages.new_tree(&mut runner).unwrap().current();
        let digest = (0..4).map(|n| digest(&invented(n), rand::random(), rand::random_range(0..6))).collect();
        mallory.tell(at(1), &Message::SynAck { digest, delta }).await;
    }
    cluster.is_well().await;
    assert_eq!(cluster.restarts(), 0);
}
