//! Which start this is, and who else claims the name.

use std::time::Duration;

use super::super::Heard;
use super::super::keys::Keyring;
use super::super::testing::{Lan, Machine, Node, at};
use crate::engine::endpoint::Endpoint;
use crate::engine::event::Role;

const SECOND: Duration = Duration::from_secs(1);

fn generation(node: &Node) -> i64 {
    node.gossip.stats().generation.get()
}

async fn started(machine: &Machine, ring: &Keyring) -> Node {
    let mut node = machine.start(ring, &[at(1)]);
    node.until(SECOND, "it has told something", |node| node.gossip.advertised().is_some()).await;
    node
}

#[tokio::test(start_paused = true)]
async fn each_start_has_a_higher_generation_whether_the_clock_or_the_disk_fails() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machine = Machine::new(&lan, 1, Role::Worker);
    let first = generation(&started(&machine, &ring).await);
    assert_eq!(machine.disk.file("generation").unwrap(), format!("{first}\n").as_bytes());
    // The clock goes back for years.
    *machine.wall.date.lock().unwrap() = Duration::from_secs(1_000);
    let second = generation(&started(&machine, &ring).await);
    assert_eq!(second, first + 1);
    // The file is destroyed, and the clock is right.
    machine.disk.put("generation", b"\xff\xfe".to_vec());
    *machine.wall.date.lock().unwrap() = Duration::from_secs(1_900_000_000);
    let third = generation(&started(&machine, &ring).await);
    assert!(third > second);
    *machine.disk.full.lock().unwrap() = true;
    let fourth = generation(&started(&machine, &ring).await);
    assert!(fourth > third, "a full disk is no reason not to start");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_disk_and_its_clock_goes_on_above_its_former_self() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let (one, two) = (Machine::new(&lan, 1, Role::ControlPlane), Machine::new(&lan, 2, Role::ControlPlane));
    let mut first = one.start(&ring, &[]);
    let second = two.start(&ring, &[at(1)]);
    first.until(5 * SECOND, "two is there", |node| node.sees("node-2")).await;
    let before = generation(&second);
    drop(second);
    first.idle(3 * SECOND).await;
    let anew = Machine::new(&lan, 2, Role::ControlPlane);
    *anew.wall.date.lock().unwrap() = Duration::from_secs(5);
    let again = anew.start(&ring, &[at(1)]);
    let mut say = anew.say();
    say.endpoints = vec!["10.0.0.22:6443".parse().unwrap()];
    again.gossip.say(say, false);
    let new = |node: &Node| {
        node.sees("node-2")
            && node.record("node-2").unwrap().endpoints
                == [Endpoint::from("10.0.0.22:6443".parse::<std::net::SocketAddr>().unwrap())]
    };
    first.until(15 * SECOND, "what it says now is heard", new).await;
    assert!(generation(&again) > before);
    assert_eq!(again.gossip.stats().name_conflict.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_machines_with_one_name_both_say_so_keep_serving_and_notice_when_it_is_over() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let one = Machine::new(&lan, 1, Role::ControlPlane);
    let (two, mut three) = (Machine::new(&lan, 2, Role::ControlPlane), Machine::new(&lan, 3, Role::ControlPlane));
    three.name = "node-2".to_owned();
    let mut first = one.start(&ring, &[]);
    let mut second = two.start(&ring, &[at(1)]);
    second.idle(5 * SECOND).await;
    let mut third = three.start(&ring, &[at(1)]);
    let conflict = |ours, theirs| move |node: &Node| node.all.contains(&Heard::Conflict { ours: at(ours), theirs: at(theirs) });
    second.until(15 * SECOND, "two knows of three", conflict(2, 3)).await;
    third.until(15 * SECOND, "three knows of two", conflict(3, 2)).await;
    let generations = (generation(&second), generation(&third));
    first.idle(60 * SECOND).await;
    second.catch_up();
    third.catch_up();
    assert_eq!((generation(&second), generation(&third)), generations, "no war");
    assert_eq!((second.gossip.stats().name_conflict.get(), third.gossip.stats().name_conflict.get()), (1, 1));
    let told = |node: &Node| node.all.iter().filter(|heard| matches!(heard, Heard::Conflict { .. })).count();
    assert_eq!((told(&second), told(&third)), (1, 1), "once each");
    assert!(second.sees("node-1") && third.sees("node-1") && first.sees("node-2"));
    drop(third);
    second.until(60 * SECOND, "it is over", |node| node.all.contains(&Heard::ConflictOver)).await;
    assert_eq!(second.gossip.stats().name_conflict.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_list_of_seeds_serves_all_nodes_the_seeds_themselves_too() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let machines = [1, 2, 3].map(|host| Machine::new(&lan, host, if host == 1 { Role::ControlPlane } else { Role::Worker }));
    let mut nodes: Vec<Node> = machines.iter().map(|machine| machine.start(&ring, &[at(1), at(2), at(3)])).collect();
    for node in &mut nodes {
        node.until(5 * SECOND, "all three", |node| node.cluster_size == 3).await;
        assert_eq!(node.gossip.stats().name_conflict.get(), 0);
    }
}
