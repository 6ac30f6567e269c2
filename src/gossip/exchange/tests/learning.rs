//! How nodes learn of the core, and the core of what it lost.

use super::super::super::item::{Item, Removal};
use super::*;
use crate::engine::event::Verdict;

#[test]
fn a_worker_with_one_seed_knows_every_control_plane_within_a_tenth_of_a_second() {
    let mut net = Net::cluster(3, 0);
    net.start_worker(9, 1, &[2]);
    let all = |net: &Net| (1..=3).all(|core| net.knows(9, core) && net.sees(9, core));
    let took = net.run_until(ms(2_000), all).unwrap();
    assert!(took <= ms(100), "{took:?}");
}

#[test]
fn a_seed_that_is_a_worker_serves_within_a_fifth_of_a_second() {
    let mut net = Net::cluster(3, 2);
    net.start_worker(9, 1, &[5]);
    let took = net.run_until(ms(2_000), |net| (1..=3).all(|core| net.knows(9, core) && net.sees(9, core))).unwrap();
    assert!(took <= ms(200), "{took:?}");
}

#[test]
fn workers_that_are_there_before_the_core_know_it_within_six_seconds() {
    let mut net = Net::new();
    for host in 4..=8 {
        net.start_worker(host, 1, &[1, 2]);
    }
    net.run(ms(60_000));
    for host in 1..=3 {
        net.start_core(host, 1, &[]);
    }
    net.chitchat();
    let took = net.run_until(ms(10_000), |net| (4..=8).all(|host| (1..=3).all(|core| net.knows(host, core)))).unwrap();
    assert!(took <= ms(6_000), "{took:?}");
}

#[test]
fn a_core_member_that_lost_everything_learns_of_the_others_from_workers() {
    let mut net = Net::cluster(3, 4);
    // The other two are cut off from it and everybody, so only workers can tell.
    net.start_core(1, 2, &[]);
    for gone in [2, 3] {
        net.nodes.get_mut(&gone).unwrap().up = false;
    }
    let took = net.run_until(ms(10_000), |net| net.knows(1, 2) && net.knows(1, 3)).unwrap();
    assert!(took <= ms(6_000), "{took:?}");
}

#[test]
fn a_core_member_that_comes_back_below_what_it_signed_is_told() {
    let mut net = Net::cluster(2, 2);
    net.change(1, |record| record.version = 500);
    net.run(ms(1_000));
    // Its state directory was restored from a copy.
    net.start_core(1, 1, &[]);
    let told = |net: &Net| {
        net.nodes[&1].changes.iter().any(|change| matches!(change, Change::GoOnAbove(record) if record.version == 500))
    };
    assert!(net.run_until(ms(10_000), told).is_some());
}

#[test]
fn a_removal_reaches_every_node_and_the_record_does_not_come_back() {
    let mut net = Net::cluster(3, 3);
    net.nodes.get_mut(&3).unwrap().up = false;
    let removal = Item::Removal(Removal { name: name(3), generation: 1 }).sign(&net.full, CLUSTER).unwrap();
    let now = net.now;
    net.nodes.get_mut(&5).unwrap().exchange.offer(now, &removal.bytes);
    let gone = |net: &Net| [1, 4, 5, 6].iter().all(|host| net.exchange(*host).catalog.record(node(3)).is_none());
    assert!(net.run_until(ms(20_000), gone).is_some(), "handed on by a worker, to the core, to the other workers");
    net.run(ms(60_000));
    assert!(gone(&net));
    assert!(net.nodes[&1].changes.contains(&Change::Removed { node: node(3), dropped: true }));
}

#[test]
fn what_workers_report_is_in_every_view() {
    let mut net = Net::cluster(2, 4);
    let saw = |verdict, connections| Observation { endpoint: endpoint(1).tag(), rtt: Some(ms(3)), verdict, connections };
    for host in 3..=6 {
        net.observe(host, vec![saw(if host < 5 { Verdict::Down } else { Verdict::Ready }, 10)]);
    }
    let told = |net: &Net| {
        net.hosts().iter().all(|host| {
            let summary = net.exchange(*host).summary();
            summary.cluster_size == 6
                && summary.loads.get(&endpoint(1).tag()) == Some(&40)
                && summary.failing.contains(&endpoint(1).tag())
        })
    };
    let took = net.run_until(ms(20_000), told).unwrap();
    assert!(took <= ms(8_000), "{took:?}");
    net.start_worker(7, 1, &[1]);
    net.run(ms(1_000));
    assert!(net.exchange(7).priors.contains_key(&endpoint(1).tag()), "a newcomer has what others measured");
}

#[test]
fn an_idle_worker_sends_at_most_140_bytes_a_second() {
    let mut net = Net::cluster(3, 2);
    let saw = |n: usize| Observation { endpoint: endpoint(n).tag(), rtt: Some(ms(1)), verdict: Verdict::Ready, connections: 3 };
    net.observe(4, (1..=4).map(saw).collect());
    net.run(ms(10_000));
    let before = net.nodes[&4].sent;
    net.run(ms(600_000));
    let rate = (net.nodes[&4].sent - before) as f64 / 600.0;
    assert!(rate <= 140.0, "{rate}");
}

#[test]
fn a_worker_that_runs_from_a_snapshot_hears_so_within_a_second() {
    let mut net = Net::cluster(3, 1);
    net.run(ms(60_000));
    net.start_worker(4, 1, &[1]);
    let heard = net.run_until(ms(1_000), |net| net.nodes[&4].changes.contains(&Change::HeardAbove(1)));
    assert!(heard.is_some());
}

#[test]
fn two_that_cannot_agree_do_not_ask_without_end() {
    let mut net = Net::cluster(3, 1);
    net.run(ms(10_000));
    // It runs from an old disk, and here nothing makes it go on above what the others hold of it.
    net.start_core(3, 0, &[]);
    net.chitchat();
    let before = net.nodes[&4].sent;
    net.run(ms(10_000));
    let rate = (net.nodes[&4].sent - before) / 10;
    assert!(rate < 3_000, "{rate} bytes a second");
}
