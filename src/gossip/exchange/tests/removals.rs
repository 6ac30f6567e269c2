//! Removals: what is taken, and how fast it is everywhere.

use super::super::super::item::{Item, ItemError, Removal, View};
use super::super::ForgetError;
use super::*;

fn removal(net: &Net, host: usize, generation: u64) -> Vec<u8> {
    Item::Removal(Removal { name: name(host), generation }).sign(&net.full, CLUSTER).unwrap().bytes.to_vec()
}

fn forget(net: &mut Net, at: usize, item: &[u8]) -> Result<super::super::Forgotten, ForgetError> {
    let now = net.now;
    net.nodes.get_mut(&at).unwrap().exchange.forget(now, item)
}

/// A core whose third member has died, and 20 workers.
fn with_a_dead_core_member() -> Net {
    let mut net = Net::cluster(3, 20);
    net.run(ms(5_000));
    net.nodes.get_mut(&3).unwrap().up = false;
    net.chitchat();
    net.run(ms(5_000));
    net
}

#[test]
fn a_removal_that_enters_anywhere_is_known_everywhere_within_a_tenth_of_a_second() {
    for at in [1, 7] {
        let mut net = with_a_dead_core_member();
        let item = removal(&net, 3, 1);
        let taken = forget(&mut net, at, &item).unwrap();
        assert_eq!((taken.name, taken.generation, taken.new), (name(3), 1, true));
        let live: Vec<usize> = net.hosts().into_iter().filter(|host| *host != 3).collect();
        let gone = |net: &Net| live.iter().all(|host| net.exchange(*host).catalog.record(node(3)).is_none());
        let took = net.run_until(ms(5_000), gone).unwrap();
        assert!(took <= ms(100), "{took:?} from {at}");
        assert!(live.iter().all(|host| net.exchange(*host).members(net.now).iter().all(|member| member.node != node(3))));
        net.run(ms(60_000));
        assert!(gone(&net));
        assert!(!forget(&mut net, at, &item).unwrap().new, "once more changes nothing");
    }
}

#[test]
fn with_30_percent_loss_a_removal_is_known_everywhere_within_a_few_seconds() {
    for at in [1, 7] {
        let mut net = with_a_dead_core_member();
        net.loss = 0.3;
        let item = removal(&net, 3, 1);
        forget(&mut net, at, &item).unwrap();
        // What is lost between core members chitchat brings, with its next round.
        net.run(ms(500));
        net.chitchat();
        let live: Vec<usize> = net.hosts().into_iter().filter(|host| *host != 3).collect();
        let gone = |net: &Net| live.iter().all(|host| net.exchange(*host).catalog.record(node(3)).is_none());
        let took = net.run_until(ms(30_000), gone).unwrap();
        assert!(took <= ms(10_000), "{took:?} from {at}");
    }
}

#[test]
fn a_node_that_was_started_again_stays_when_its_removal_comes_late() {
    let mut net = Net::cluster(2, 3);
    net.start_core(2, 5, &[1]);
    net.chitchat();
    net.run(ms(3_000));
    let late = removal(&net, 2, 1);
    forget(&mut net, 4, &late).unwrap();
    net.run(ms(30_000));
    for host in [1, 3, 4, 5] {
        assert!(net.knows(host, 2), "{host}");
        let told = net.nodes[&host].changes.iter().any(|change| matches!(change, Change::Removed { .. }));
        assert!(!told, "{host} removes nothing of it");
    }
    assert_eq!(net.exchange(2).catalog.own().unwrap().item.node(), node(2));
}

#[test]
fn a_core_member_that_is_shown_its_own_removal_says_nothing_more() {
    let mut net = Net::cluster(3, 3);
    let item = removal(&net, 3, 1);
    forget(&mut net, 1, &item).unwrap();
    let told = |net: &Net| net.nodes[&3].changes.contains(&Change::OwnRemoval(1));
    assert!(net.run_until(ms(100), told).is_some());
    net.nodes.get_mut(&3).unwrap().exchange.withdraw();
    assert!(net.exchange(3).catalog.own().is_none());
    let sent = net.nodes[&3].sent;
    net.run(ms(60_000));
    assert_eq!(net.nodes[&3].sent, sent);
}

#[test]
fn nothing_but_a_removal_of_another_node_signed_with_the_clusters_key_is_taken() {
    let mut net = Net::cluster(2, 2);
    let now = net.now;
    let good = removal(&net, 2, 1);
    let other = Item::Removal(Removal { name: name(2), generation: 1 });
    let sign = |item: &Item, ring: &Keyring, cluster: &str| item.clone().sign(ring, cluster).unwrap().bytes.to_vec();
    let strange = sign(&other, &Keyring::random(), CLUSTER);
    let elsewhere = sign(&other, &net.full, "other");
    let record = net.exchange(1).catalog.own().unwrap().bytes.to_vec();
    let view = sign(&Item::View(View { author: Some(node(2)), ..View::default() }), &net.full, CLUSTER);
    let mut bent = good.clone();
    *bent.last_mut().unwrap() ^= 1;
    let own = removal(&net, 3, u64::MAX);
    let cases = [
        (&b""[..], ForgetError::Item(ItemError::Malformed)),
        (&[0xff; 4_096], ForgetError::Item(ItemError::Future)),
        (&good[6..], ForgetError::Item(ItemError::Future)),
        (&strange, ForgetError::Item(ItemError::UnknownKey)),
        (&elsewhere, ForgetError::Item(ItemError::Forged)),
        (&bent, ForgetError::Item(ItemError::Forged)),
        (&record, ForgetError::NotARemoval("record")),
        (&view, ForgetError::NotARemoval("view")),
        (&own, ForgetError::OwnNode),
    ];
    for (item, error) in cases {
        assert_eq!(net.nodes.get_mut(&3).unwrap().exchange.forget(now, item), Err(error));
    }
    assert!(net.knows(3, 2) && net.exchange(3).catalog.removals().next().is_none());
}

#[test]
fn as_many_removals_as_may_be_reach_a_worker_that_has_none() {
    let mut net = Net::cluster(2, 1);
    for n in 0..256 {
        let item = Item::Removal(Removal { name: format!("gone-{n}"), generation: 1 }).sign(&net.full, CLUSTER).unwrap();
        let now = net.now;
        for core in [1, 2] {
            net.nodes.get_mut(&core).unwrap().exchange.offer(now, &item.bytes);
        }
    }
    net.start_worker(9, 1, &[1]);
    let all = |net: &Net| [3, 9].iter().all(|host| net.exchange(*host).catalog.digest() == net.exchange(1).catalog.digest());
    let took = net.run_until(ms(600_000), all);
    assert!(took.is_some(), "{}", net.exchange(9).catalog.removals().count());
}
