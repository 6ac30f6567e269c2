//! Members find one another, and find one another again.

use std::time::Duration;

use super::super::keys::Keyring;
use super::super::testing::{Lan, Machine, Node, at, ip};
use super::super::{GRACE, Heard, Say};
use crate::engine::Event;
use crate::engine::endpoint::{Endpoint, EndpointTag, NodeId};
use crate::engine::event::{AgentState, ApiserverState, Observation, Remembered, Role, Verdict};

const SECOND: Duration = Duration::from_secs(1);

fn control_planes(lan: &Lan) -> [Machine; 3] {
    [1, 2, 3].map(|host| Machine::new(lan, host, Role::ControlPlane))
}

async fn all_know(nodes: &mut [Node], machines: &[&Machine]) {
    for node in nodes {
        node.until(4 * SECOND, "every control plane is known", |node| {
            let others: Vec<&Machine> = machines
                .iter()
                .copied()
                .filter(|machine| node.gossip.advertised().is_none_or(|own| own.ip() != machine.ip()))
                .collect();
            node.knows(&others)
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_knows_one_seed_knows_every_control_plane_within_three_seconds() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    let worker = Machine::new(&lan, 9, Role::Worker);
    let mut node = worker.start(&ring, &[at(2)]);
    let took = node.until(3 * SECOND, "all known and live", |node| {
        node.knows(&machines.each_ref()) && machines.iter().all(|machine| node.sees(&machine.name))
    });
    took.await;
    assert!(matches!(node.all.first(), Some(Heard::Event(Event::Cached { cluster_size: 0, .. }))), "the cache comes first");
    let members = node.gossip.members();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member.alive && member.role == Role::ControlPlane));
}

#[tokio::test(start_paused = true)]
async fn a_worker_measures_its_round_trip_to_every_core_member() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    let mut worker = Machine::new(&lan, 9, Role::Worker).start(&ring, &[at(1)]);
    let measured = |node: &Node| {
        let members = node.gossip.members();
        members.len() == 3 && members.iter().all(|member| member.rtt_ms.is_some() && member.last_heard_s.is_some())
    };
    worker.until(2 * SECOND, "all round trips", measured).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_control_planes_state_is_known_everywhere_before_the_next_round() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    // Not on the beat of gossip's own rounds, which would tell it at once by chance.
    nodes[0].idle(5 * SECOND + Duration::from_millis(130)).await;
    let mut say = machines[0].say();
    say.report.apiserver = Some(ApiserverState::Draining);
    nodes[0].gossip.say(say, true);
    for node in &mut nodes[1..] {
        node.catch_up();
        let draining = |node: &Node| node.record("node-1").unwrap().apiserver == Some(ApiserverState::Draining);
        let took = node.until(SECOND, "draining is known", draining).await;
        assert!(took < Duration::from_millis(20), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_direct_message_could_not_tell_gossip_tells() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    // Nodes 1 and 3 cannot speak to one another, only by way of node 2.
    lan.cut(&[ip(1)], &[ip(3)]);
    let mut say = machines[0].say();
    say.report.apiserver = Some(ApiserverState::Draining);
    nodes[0].gossip.say(say, true);
    let draining = |node: &Node| node.record("node-1").unwrap().apiserver == Some(ApiserverState::Draining);
    nodes[2].until(4 * SECOND, "draining is known", draining).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_ordered_is_published_when_it_is_ordered_and_the_same_again_is_not() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    let versions = |node: &Node| {
        let its = |heard: &&Heard| matches!(heard, Heard::Event(Event::Record(record)) if record.name == "node-1");
        node.all.iter().filter(its).count()
    };
    let before = versions(&nodes[1]);
    for state in [ApiserverState::Ready, ApiserverState::Draining, ApiserverState::Down] {
        let mut say = machines[0].say();
        say.report.apiserver = Some(state);
        nodes[0].gossip.say(say.clone(), false);
        let told = |node: &Node| node.record("node-1").unwrap().apiserver == Some(state);
        nodes[1].until(2 * SECOND, "the state", told).await;
        for _ in 0..5 {
            nodes[0].gossip.say(say.clone(), false);
            nodes[1].idle(SECOND).await;
        }
    }
    assert_eq!(versions(&nodes[1]) - before, 3);
}

/// What a node says of one endpoint, and nothing of its own apiserver.
fn seeing(machine: &Machine, seen: Observation) -> Say {
    let mut say = machine.say();
    say.report.observations = vec![seen];
    say
}

#[tokio::test(start_paused = true)]
async fn two_other_live_nodes_that_report_an_endpoint_as_failing_make_it_failing() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    let failing = |node: &Node| node.failing.contains(&EndpointTag(7));
    let seen = |verdict| Observation { endpoint: EndpointTag(7), rtt: None, verdict, connections: 0 };
    nodes[0].gossip.say(seeing(&machines[0], seen(Verdict::Down)), false);
    nodes[1].gossip.say(seeing(&machines[1], seen(Verdict::Suspect)), false);
    nodes[2].until(2 * SECOND, "two others report it", failing).await;
    nodes[0].idle(2 * SECOND).await;
    assert!(!failing(&nodes[0]), "its own report does not count, and node 3 reports nothing");
    nodes[1].gossip.say(seeing(&machines[1], seen(Verdict::Ready)), false);
    nodes[2].until(2 * SECOND, "one of them takes it back", |node| !failing(node)).await;
    nodes[1].gossip.say(seeing(&machines[1], seen(Verdict::Down)), false);
    nodes[2].until(2 * SECOND, "two others report it again", failing).await;
    drop(nodes.remove(0));
    nodes[1].until(20 * SECOND, "the report of a dead node no longer counts", |node| !failing(node)).await;
}

#[tokio::test(start_paused = true)]
async fn the_median_round_trip_that_others_report_is_told() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    for (place, rtt) in [(0, 30), (1, 40)] {
        let rtt = Some(Duration::from_millis(rtt));
        let seen = Observation { endpoint: EndpointTag(7), rtt, verdict: Verdict::Ready, connections: 0 };
        nodes[place].gossip.say(seeing(&machines[place], seen), false);
    }
    // A record holds round trips to within 3%.
    let median = |node: &Node| node.priors.get(&EndpointTag(7)).map(Duration::as_millis);
    nodes[2].until(5 * SECOND, "the lower one of two", |node| matches!(median(node), Some(29..=31))).await;
    nodes[0].until(5 * SECOND, "its own is not in it", |node| matches!(median(node), Some(38..=42))).await;
}

#[tokio::test(start_paused = true)]
async fn loads_are_sums_over_live_members_and_this_node() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    for (node, connections) in nodes.iter().zip([1, 10, 100]) {
        let mut say = machines[0].say();
        let seen = Observation { endpoint: EndpointTag(7), rtt: None, verdict: Verdict::Ready, connections };
        say.report.observations = vec![seen];
        node.gossip.say(say, false);
    }
    nodes[0].until(20 * SECOND, "all three summed", |node| node.loads.get(&EndpointTag(7)) == Some(&111)).await;
    drop(nodes.remove(2));
    nodes[0].until(20 * SECOND, "the dead one's are gone", |node| node.loads.get(&EndpointTag(7)) == Some(&11)).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_seen_within_seconds_and_the_record_stays() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    nodes[0].idle(10 * SECOND).await;
    drop(nodes.remove(2));
    nodes[0].until(2 * SECOND, "node 3 is dead", |node| !node.sees("node-3")).await;
    nodes[0].idle(2 * GRACE).await;
    assert!(nodes[0].record("node-3").is_some() && !nodes[0].sees("node-3"));
    assert!(nodes[0].record("node-2").is_some() && nodes[0].sees("node-2"));
}

#[tokio::test(start_paused = true)]
async fn a_leaving_member_says_so_and_its_record_is_still_told() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    let leaver = nodes.remove(0);
    leaver.gossip.leave().await;
    for node in &mut nodes {
        node.catch_up();
        let record = node.record("node-1").unwrap();
        assert_eq!(record.agent, AgentState::Leaving);
        assert_eq!(record.endpoints, [Endpoint::from(machines[0].endpoint())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_returns_at_another_address_is_known_everywhere_within_five_seconds() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    drop(nodes.remove(2));
    nodes[0].idle(2 * SECOND).await;
    *machines[2].ip.lock().unwrap() = Some(ip(33));
    let _back = machines[2].start(&ring, &[at(1)]);
    for node in &mut nodes {
        node.until(5 * SECOND, "the new address and no other", |node| {
            node.sees("node-3") && node.record("node-3").unwrap().endpoints == [Endpoint::from(machines[2].endpoint())]
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn gossip_waits_for_an_address_and_follows_it_when_it_changes() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines[..2].iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    let (settings, say) = (machines[2].settings(&ring, &[at(1)]), machines[2].say());
    *machines[2].ip.lock().unwrap() = None;
    let late = Node::start(&machines[2].world(), settings, say);
    nodes[0].idle(5 * SECOND).await;
    assert_eq!(late.gossip.advertised(), None);
    *machines[2].ip.lock().unwrap() = Some(ip(3));
    nodes[0].until(6 * SECOND, "the late one is there", |node| node.sees("node-3")).await;
    let before = late.gossip.stats().generation.get();
    *machines[2].ip.lock().unwrap() = Some(ip(4));
    nodes[0].idle(12 * SECOND).await;
    assert_eq!(late.gossip.advertised(), Some(at(4)));
    assert!(late.gossip.stats().generation.get() > before);
}

#[tokio::test(start_paused = true)]
async fn a_node_finds_its_cluster_again_from_the_cache_when_every_seed_is_dead() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    let endpoint = Endpoint::from(machines[0].endpoint());
    let node = Some(NodeId::of("node-1"));
    nodes[2].gossip.remember(vec![Remembered { endpoint, node, age: 2 * SECOND }], 3);
    nodes[2].idle(SECOND).await;
    // The seed dies, and node 3 restarts with no seed that lives.
    drop(nodes.remove(0));
    drop(nodes.remove(1));
    nodes[0].idle(10 * SECOND).await;
    let mut back = machines[2].start(&ring, &[at(1)]);
    back.until(SECOND, "the cache is told at once", |node| !node.all.is_empty()).await;
    match &back.all[0] {
        Heard::Event(Event::Cached { endpoints, cluster_size: 3 }) => {
            assert_eq!(endpoints[0].endpoint, endpoint);
            assert_eq!(endpoints[0].node, node);
            assert!((12 * SECOND..15 * SECOND).contains(&endpoints[0].age), "{:?}", endpoints[0].age);
        }
        other => panic!("{other:?}"),
    }
    back.until(3 * SECOND, "node 2 is found", |node| node.sees("node-2")).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_longer_than_the_grace_heals_by_itself_though_the_seed_is_dead() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines: Vec<Machine> = (1..=5).map(|host| Machine::new(&lan, host, Role::ControlPlane)).collect();
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.iter().collect::<Vec<_>>()).await;
    drop(nodes.remove(0));
    lan.cut(&[ip(2), ip(3)], &[ip(4), ip(5)]);
    nodes[0].idle(2 * GRACE).await;
    assert!(!nodes[0].sees("node-4") && nodes[0].sees("node-3"));
    lan.mend();
    nodes[0].until(15 * SECOND, "both sides are one", |node| node.sees("node-4") && node.sees("node-5")).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_librarys_task_dies_it_is_back_in_seconds_and_nothing_is_lost_meanwhile() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = control_planes(&lan);
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    all_know(&mut nodes, &machines.each_ref()).await;
    nodes[0].idle(3 * SECOND).await;
    let told = nodes[0].all.len();
    nodes[0].gossip.order(super::super::Command::EndLife);
    nodes[0].idle(10 * SECOND).await;
    assert_eq!(nodes[0].gossip.stats().restarts.get(), 1);
    for heard in &nodes[0].all[told..] {
        match heard {
            Heard::Event(Event::Forgotten(node)) => panic!("{node} was forgotten"),
            Heard::Event(Event::ClusterSize(nodes)) => assert_eq!(*nodes, 3, "nobody seemed to be gone"),
            _ => {}
        }
    }
    // It hears again what is new, and is heard.
    let mut say = machines[1].say();
    say.report.apiserver = Some(ApiserverState::Down);
    nodes[1].gossip.say(say, true);
    let down = |node: &Node| node.record("node-2").unwrap().apiserver == Some(ApiserverState::Down);
    nodes[0].until(3 * SECOND, "node 2's state", down).await;
    nodes[1].until(SECOND, "node 1 lives", |node| node.sees("node-1")).await;
}

#[tokio::test(start_paused = true)]
async fn twenty_nodes_know_one_another_within_ten_seconds_and_idle_cheaply() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines: Vec<Machine> = (1..=20).map(|host| Machine::new(&lan, host, Role::ControlPlane)).collect();
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1)])).collect();
    for node in &mut nodes {
        node.until(10 * SECOND, "all live and known", |node| node.cluster_size == 20 && node.records.len() == 19).await;
    }
    let before = nodes[7].gossip.stats().bytes_out.get();
    nodes[7].idle(10 * SECOND).await;
    let rate = (nodes[7].gossip.stats().bytes_out.get() - before) / 10;
    assert!(rate < 15_000, "{rate} bytes a second");
}
