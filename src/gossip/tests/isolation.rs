//! An isolated node reports that it is, and the cause.

use std::time::Duration;

use super::super::keys::Keyring;
use super::super::testing::{Lan, Machine, Node, at};
use crate::engine::event::Role;

const SECOND: Duration = Duration::from_secs(1);

fn told(node: &Node, what: &str) -> bool {
    let notes = node.gossip.notes();
    node.gossip.stats().isolated.get() == 1 && notes.len() == 1 && notes[0].contains(what)
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_another_key_says_within_12_s_that_nothing_arrives_and_when_that_is_over() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let cp = Machine::new(&lan, 1, Role::ControlPlane);
    let _cp = cp.start(&ring, &[]);
    let mut worker = Machine::new(&lan, 9, Role::Worker).start(&Keyring::random(), &[at(1)]);
    worker.idle(9 * SECOND).await;
    assert_eq!(worker.gossip.notes(), Vec::<String>::new());
    worker.until(3 * SECOND, "it is told", |node| told(node, "nothing arrives")).await;
    worker.gossip.reload(ring, Vec::new());
    worker.until(7 * SECOND, "it is over", |node| node.gossip.notes().is_empty()).await;
    assert_eq!(worker.gossip.stats().isolated.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn core_members_with_different_keys_name_each_others_key() {
    let lan = Lan::default();
    let rings = [Keyring::random(), Keyring::random()];
    let start = |host: u8, ring| Machine::new(&lan, host, Role::ControlPlane).start(ring, &[at(1), at(2)]);
    let mut nodes = [start(1, &rings[0]), start(2, &rings[1])];
    for (node, other) in nodes.iter_mut().zip([&rings[1], &rings[0]]) {
        let key = format!("sealed with the key {}", other.key_ids()[0]);
        node.until(13 * SECOND, "the other's key is named", |node| told(node, &key)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn core_members_of_different_clusters_say_so() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let mut one = Machine::new(&lan, 1, Role::ControlPlane).start(&ring, &[at(2)]);
    let other = Machine::new(&lan, 2, Role::ControlPlane);
    let mut settings = other.settings(&ring, &[at(1)]);
    settings.cluster = "another".to_owned();
    let mut other = other.start_with(settings);
    for node in [&mut one, &mut other] {
        node.until(13 * SECOND, "the cluster is named", |node| told(node, "the cluster id there is another")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_only_seed_is_itself_says_so() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    for role in [Role::ControlPlane, Role::Worker] {
        let mut node = Machine::new(&lan, 1, role).start(&ring, &[at(1)]);
        node.until(13 * SECOND, "it is told", |node| told(node, "this node itself")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_control_plane_without_seeds_has_nothing_to_say() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let mut node = Machine::new(&lan, 1, Role::ControlPlane).start(&ring, &[]);
    node.idle(60 * SECOND).await;
    assert_eq!((node.gossip.notes(), node.gossip.stats().isolated.get()), (Vec::new(), 0));
}
