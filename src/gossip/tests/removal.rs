//! Control planes that an administrator removes.

use std::time::Duration;

use super::super::Heard;
use super::super::item::{Item, Removal};
use super::super::keys::Keyring;
use super::super::testing::{CLUSTER, Lan, Machine, Node, at};
use crate::engine::Event;
use crate::engine::endpoint::NodeId;
use crate::engine::event::Role;

const SECOND: Duration = Duration::from_secs(1);

fn generation(node: &Node) -> u64 {
    node.gossip.stats().generation.get().unsigned_abs()
}

fn removal(ring: &Keyring, name: &str, generation: u64) -> Vec<u8> {
    Item::Removal(Removal { name: name.to_owned(), generation }).sign(ring, CLUSTER).unwrap().bytes.to_vec()
}

fn machines(lan: &Lan) -> Vec<Machine> {
    (1..=5).map(|host| Machine::new(lan, host, if host <= 3 { Role::ControlPlane } else { Role::Worker })).collect()
}

async fn together(machines: &[Machine], ring: &Keyring) -> Vec<Node> {
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(ring, &[at(1)])).collect();
    for node in &mut nodes {
        node.until(10 * SECOND, "all live", |node| node.cluster_size as usize == machines.len()).await;
    }
    nodes
}

fn is_gone(node: &Node, name: &str) -> bool {
    node.record(name).is_none()
        && node.all.contains(&Heard::Event(Event::Removed { node: NodeId::of(name) }))
        && node.gossip.members().iter().all(|member| member.name != name)
}

#[tokio::test(start_paused = true)]
async fn forget_reaches_every_node_wherever_it_enters() {
    // At a core member, and at a worker.
    for entry in [0, 3] {
        let (lan, ring) = (Lan::default(), Keyring::random());
        let machines = machines(&lan);
        let mut nodes = together(&machines, &ring).await;
        let dead = nodes.remove(2);
        let up_to = generation(&dead);
        drop(dead);
        nodes[0].idle(10 * SECOND).await;
        let entry = if entry == 3 { 2 } else { entry };
        let taken = nodes[entry].gossip.forget(removal(&ring, "node-3", up_to)).await.unwrap();
        assert!(taken.new && taken.name == "node-3");
        for node in &mut nodes {
            node.until(2 * SECOND, "it is gone", |node| is_gone(node, "node-3")).await;
        }
        for node in &mut nodes {
            node.idle(60 * SECOND).await;
            assert!(is_gone(node, "node-3"));
            assert_eq!(node.cluster_size, 4);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_core_member_that_was_away_or_lost_its_disk_learns_of_a_removal() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = machines(&lan);
    let mut nodes = together(&machines, &ring).await;
    let up_to = generation(&nodes[2]);
    nodes[1].idle(40 * SECOND).await;
    // Node 3 is gone for good, node 2 is away, and no worker runs that could tell.
    nodes.truncate(1);
    nodes[0].idle(10 * SECOND).await;
    nodes[0].gossip.forget(removal(&ring, "node-3", up_to)).await.unwrap();
    nodes[0].until(SECOND, "it is gone", |node| is_gone(node, "node-3")).await;
    let mut away = machines[1].start(&ring, &[at(1)]);
    away.until(5 * SECOND, "the one that was away knows", |node| node.sees("node-1") && is_gone(node, "node-3")).await;
    drop(away);
    machines[1].disk.files.lock().unwrap().clear();
    let mut without_disk = machines[1].start(&ring, &[at(1)]);
    without_disk.until(5 * SECOND, "the one without a disk knows", |node| node.sees("node-1") && is_gone(node, "node-3")).await;
    // The other one has it from it alone.
    drop(nodes);
    machines[0].disk.files.lock().unwrap().clear();
    let mut last = machines[0].start(&ring, &[at(2)]);
    last.until(10 * SECOND, "it is handed on", |node| node.sees("node-2") && is_gone(node, "node-3")).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_returns_after_its_removal() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = machines(&lan);
    let mut nodes = together(&machines, &ring).await;
    let up_to = generation(&nodes[2]);
    nodes[0].gossip.forget(removal(&ring, "node-3", up_to)).await.unwrap();
    let mut removed = nodes.remove(2);
    for node in &mut nodes {
        node.until(2 * SECOND, "it is gone though it lives", |node| is_gone(node, "node-3")).await;
        node.idle(20 * SECOND).await;
        assert!(is_gone(node, "node-3"), "it says nothing more");
        assert_eq!(node.cluster_size, 4);
    }
    removed.idle(SECOND).await;
    drop(removed);
    // Its clock has gone back, and the file with its generation is lost.
    *machines[2].wall.date.lock().unwrap() = SECOND;
    machines[2].disk.put("generation", Vec::new());
    let again = machines[2].start(&ring, &[at(1)]);
    for node in &mut nodes {
        let back = |node: &Node| node.record("node-3").is_some() && node.sees("node-3");
        node.until(10 * SECOND, "it is back", back).await;
        assert_eq!(node.record("node-3").unwrap().endpoints.len(), 1);
    }
    assert!(generation(&again) > up_to);
    // A worker that starts now, and one that was restarted, learn of its return and not of its removal alone.
    let mut worker = Machine::new(&lan, 9, Role::Worker).start(&ring, &[at(4)]);
    worker.until(5 * SECOND, "a new worker knows it", |node| node.record("node-3").is_some()).await;
    worker.idle(60 * SECOND).await;
    assert!(worker.record("node-3").is_some());
    nodes[0].gossip.forget(removal(&ring, "node-3", up_to)).await.unwrap();
    nodes[0].idle(30 * SECOND).await;
    assert!(nodes[0].record("node-3").is_some(), "its old removal does nothing when it is sent again");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_restarted_still_knows_whom_an_administrator_removed() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = machines(&lan);
    let mut nodes = together(&machines, &ring).await;
    let up_to = generation(&nodes[2]);
    nodes.remove(2);
    nodes[0].idle(10 * SECOND).await;
    nodes[2].gossip.forget(removal(&ring, "node-3", up_to)).await.unwrap();
    nodes[2].idle(SECOND).await;
    drop(nodes);
    let mut alone = machines[3].start(&ring, &[]);
    alone.until(5 * SECOND, "told from its disk", |node| is_gone(node, "node-3") && node.record("node-1").is_some()).await;
}
