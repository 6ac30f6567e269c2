//! Keys change while nodes run, and the cache on disk with them.

use std::time::Duration;

use super::super::Heard;
use super::super::cache::Cache;
use super::super::keys::Keyring;
use super::super::stats::DropReason;
use super::super::testing::{CLUSTER, Disk, Lan, Machine, Node, at};
use crate::engine::Event;
use crate::engine::endpoint::Endpoint;
use crate::engine::event::{Remembered, Role};

const SECOND: Duration = Duration::from_secs(1);

fn remembered(port: u16) -> Vec<Remembered> {
    let addr = std::net::SocketAddr::from(([10, 0, 0, 1], port));
    vec![Remembered { endpoint: Endpoint::from(addr), node: None, age: SECOND }]
}

fn on_disk(disk: &Disk, ring: &Keyring) -> Option<Cache> {
    Cache::open(&disk.file("peers")?, ring, CLUSTER).ok()
}

async fn together(machines: &[Machine], ring: &Keyring) -> Vec<Node> {
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(ring, &[at(1)])).collect();
    for node in &mut nodes {
        node.until(5 * SECOND, "all live", |node| node.cluster_size as usize == machines.len()).await;
    }
    nodes
}

#[tokio::test(start_paused = true)]
async fn a_rotation_on_one_node_after_the_other_loses_nobody() {
    let lan = Lan::default();
    let machines = [1, 2, 3].map(|host| Machine::new(&lan, host, Role::ControlPlane));
    let first = Keyring::random();
    let added = Keyring::append(first.to_text().as_bytes()).unwrap().text;
    let promoted = Keyring::promote(added.as_bytes(), None).unwrap().text;
    let retired = Keyring::remove(promoted.as_bytes(), first.key_ids()[0]).unwrap().text;
    let mut nodes = together(&machines, &first).await;
    nodes[0].gossip.remember(remembered(1), 3);
    for text in [added, promoted, retired] {
        let ring = Keyring::parse(text.as_bytes()).unwrap();
        for place in 0..3 {
            nodes[place].gossip.reload(ring.clone(), Vec::new());
            for node in &mut nodes {
                let told = node.all.len();
                node.idle(4 * SECOND).await;
                let lost = node.all[told..].iter().any(|heard| matches!(heard, Heard::Event(Event::ClusterSize(_))));
                assert!(!lost && node.cluster_size == 3);
            }
        }
        assert!(on_disk(&machines[0].disk, &ring).is_some());
    }
    assert!(on_disk(&machines[0].disk, &first).is_none(), "the retired key opens the cache no more");
}

#[tokio::test(start_paused = true)]
async fn other_endpoints_are_written_at_once_and_mere_freshness_is_not() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machine = Machine::new(&lan, 1, Role::Worker);
    let mut node = together(std::slice::from_ref(&machine), &ring).await.remove(0);
    node.gossip.remember(remembered(1), 3);
    node.idle(Duration::from_millis(10)).await;
    assert_eq!(on_disk(&machine.disk, &ring).unwrap().cluster_size, 3);
    let before = machine.disk.writes.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..100 {
        node.gossip.remember(remembered(1), 3);
        node.idle(Duration::from_millis(100)).await;
    }
    let writes = machine.disk.writes.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!((1..=3).contains(&writes), "{writes} writes in ten seconds");
    node.gossip.remember(remembered(2), 3);
    node.idle(Duration::from_millis(10)).await;
    assert_eq!(on_disk(&machine.disk, &ring).unwrap().endpoints[0].endpoint.addr().port(), 2);
    node.gossip.remember(Vec::new(), 3);
    node.idle(10 * SECOND).await;
    assert_eq!(on_disk(&machine.disk, &ring).unwrap().endpoints.len(), 1, "nothing to remember is no reason to forget");
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_leaves_the_good_file_and_is_made_up_for() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machine = Machine::new(&lan, 1, Role::Worker);
    let mut node = together(std::slice::from_ref(&machine), &ring).await.remove(0);
    node.gossip.remember(remembered(1), 3);
    node.idle(SECOND).await;
    *machine.disk.full.lock().unwrap() = true;
    node.gossip.remember(remembered(2), 3);
    node.idle(SECOND).await;
    assert_eq!(node.gossip.stats().cache_failing.get(), 1);
    assert_eq!(on_disk(&machine.disk, &ring).unwrap().endpoints[0].endpoint.addr().port(), 1);
    *machine.disk.full.lock().unwrap() = false;
    node.idle(10 * SECOND).await;
    assert_eq!(on_disk(&machine.disk, &ring).unwrap().endpoints[0].endpoint.addr().port(), 2);
    assert_eq!(node.gossip.stats().cache_failing.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_still_to_be_written_is_written_when_the_agent_leaves() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machine = Machine::new(&lan, 1, Role::Worker);
    let node = together(std::slice::from_ref(&machine), &ring).await.remove(0);
    node.gossip.remember(remembered(1), 3);
    tokio::time::sleep(Duration::from_millis(10)).await;
    node.gossip.remember(remembered(1), 4);
    node.gossip.leave().await;
    assert_eq!(on_disk(&machine.disk, &ring).unwrap().cluster_size, 4);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_cannot_be_read_is_as_good_as_none() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let good = Cache { cluster_size: 9, ..Cache::default() }.seal(&ring, CLUSTER);
    let mut corrupt = good.clone();
    corrupt[50] ^= 1;
    let mut future = good.clone();
    future[8] = 2;
    let files = [
        (good.clone(), 9),
        (good[..good.len() - 1].to_vec(), 0),
        (good[..3].to_vec(), 0),
        (Vec::new(), 0),
        (corrupt, 0),
        (future, 0),
        (vec![0; 1_000_000], 0),
        (Cache { cluster_size: 9, ..Cache::default() }.seal(&ring, "another"), 0),
        (Cache { cluster_size: 9, ..Cache::default() }.seal(&Keyring::random(), CLUSTER), 0),
    ];
    let mut futures = 0;
    for (place, (file, size)) in files.into_iter().enumerate() {
        let machine = Machine::new(&lan, 1, Role::Worker);
        machine.disk.put("peers", file);
        let mut node = machine.start(&ring, &[]);
        node.until(SECOND, "the cache is told", |node| !node.all.is_empty()).await;
        match &node.all[0] {
            Heard::Event(Event::Cached { cluster_size, .. }) => assert_eq!(*cluster_size, size, "file {place}"),
            other => panic!("{other:?}"),
        }
        futures += node.gossip.stats().dropped(DropReason::Version);
    }
    assert_eq!(futures, 1);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_file_is_a_cache_or_an_error(mut file in proptest::collection::vec(any::<u8>(), 0..300), framed in any::<bool>()) {
            let ring = Keyring::random();
            if framed {
                let start = Cache::default().seal(&ring, CLUSTER);
                let len = file.len().min(30);
                file[..len].copy_from_slice(&start[..len]);
            }
            prop_assert!(Cache::open(&file, &ring, CLUSTER).is_err());
        }

        #[test]
        fn any_cache_comes_back(
            leads in proptest::collection::vec(any::<std::net::SocketAddrV4>(), 0..64),
            items in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
            cluster_size in any::<u32>(),
        ) {
            let ring = Keyring::random();
            let leads: Vec<_> = leads.into_iter().map(std::net::SocketAddr::from).collect();
            let cookies = leads.iter().map(|addr| (*addr, [7; 8])).collect();
            let cache = Cache { endpoints: Vec::new(), cluster_size, items, leads, cookies };
            prop_assert_eq!(Cache::open(&cache.seal(&ring, CLUSTER), &ring, CLUSTER), Ok(cache));
        }
    }
}
