//! What a program with a worker's keyring, or without any, cannot do.

use super::super::super::envelope::{Envelopes, Kind};
use super::super::super::item::{Item, View};
use super::super::super::message::{NONE, Report, Update};
use super::super::super::stats::DropReason;
use super::*;
use crate::engine::event::Verdict;

fn forged_update(items: Vec<Vec<u8>>, view: Vec<u8>) -> Update {
    Update {
        echo: NONE,
        cookie: NONE,
        node: node(1),
        core: true,
        digest: 0,
        seen: addr(4),
        above: 0,
        namesake: None,
        view,
        items,
        more: false,
        wanted: Vec::new(),
        priors: Vec::new(),
        sample: Vec::new(),
    }
}

fn report(host: usize, generation: u64) -> Report {
    Report {
        node: node(host),
        core: false,
        generation,
        sequence: 1,
        next_within_s: 5,
        cookie: NONE,
        echo: [7; 8],
        digest: 0,
        view: 0,
        holds: Vec::new(),
        observations: Vec::new(),
        unanswered: Vec::new(),
        introduction: None,
        items: Vec::new(),
    }
}

/// What a node knows, in one value.
fn state(net: &Net, host: usize) -> (u64, Vec<bool>, usize, u32) {
    let exchange = net.exchange(host);
    let live = (1..=3).map(|core| net.sees(host, core)).collect();
    (exchange.catalog.digest(), live, exchange.workers.len(), exchange.summary().cluster_size)
}

#[test]
fn a_worker_keyring_forges_neither_record_nor_view_in_a_control_planes_name() {
    let mut net = Net::cluster(3, 1);
    net.run(ms(5_000));
    let before = state(&net, 4);
    let other = Keyring::random();
    let mut record = net.nodes[&1].record.clone().unwrap();
    record.version = 99;
    record.endpoints = (0..8).map(|n| endpoint(200 + n)).collect();
    let mut forged_record = Item::Record(record).sign(&other, CLUSTER).unwrap().bytes.to_vec();
    let view = View { author: Some(node(1)), generation: 1, number: u64::MAX, cluster_size: 1_000_000, ..View::default() };
    let mut forged_view = Item::View(view).sign(&other, CLUSTER).unwrap().bytes.to_vec();
    // Signed by somebody, and said to be by the cluster's key.
    let id = net.full.key_ids()[0];
    forged_record[2..6].copy_from_slice(&id.0);
    forged_view[2..6].copy_from_slice(&id.0);
    let envelopes = Envelopes::new(&net.reader, CLUSTER);
    for echo in [NONE, [5; 8]] {
        let update = Update { echo, ..forged_update(vec![forged_record.clone()], forged_view.clone()) };
        let datagram = envelopes.seal(Kind::Update, &update.encode().unwrap()).unwrap();
        net.inject(addr(1), addr(4), datagram.clone());
    }
    net.run(ms(100));
    assert_eq!(state(&net, 4), before);
    let stats = &net.nodes[&4].stats;
    assert_eq!(stats.dropped(DropReason::Forged), 2);
    assert_eq!(stats.dropped(DropReason::Replayed), 1, "an answer that nobody asked for");
}

#[test]
fn every_datagram_that_was_ever_sent_changes_nothing_when_it_is_sent_again() {
    let mut net = Net::new();
    net.captured = Some(Vec::new());
    for host in 1..=3 {
        net.start_core(host, 1, &[]);
    }
    net.chitchat();
    net.start_worker(4, 1, &[1]);
    net.start_worker(5, 1, &[4]);
    net.run(ms(6_000));
    net.change(1, |record| record.apiserver = Some(ApiserverState::Draining));
    net.run(ms(6_000));
    net.nodes.get_mut(&3).unwrap().up = false;
    net.chitchat();
    net.run(ms(6_000));
    let captured = net.captured.take().unwrap();
    assert!(captured.len() > 50);
    let hosts = [1, 2, 4, 5];
    let before: Vec<_> = hosts.iter().map(|host| state(&net, *host)).collect();
    for datagram in &captured {
        for to in [datagram.to, addr(1), addr(2), addr(4), addr(5)] {
            for from in [datagram.from, addr(77)] {
                net.inject(from, to, datagram.bytes.clone());
            }
        }
    }
    net.run(ms(200));
    let after: Vec<_> = hosts.iter().map(|host| state(&net, *host)).collect();
    assert_eq!(after, before);
}

#[test]
fn a_restarted_node_takes_nothing_new_from_what_was_sent_to_it_before() {
    let mut net = Net::new();
    net.captured = Some(Vec::new());
    net.start_core(1, 1, &[]);
    net.start_worker(4, 1, &[1]);
    net.run(ms(6_000));
    let captured = net.captured.take().unwrap();
    net.nodes.get_mut(&1).unwrap().up = false;
    net.start_worker(4, 2, &[]);
    for datagram in captured.iter().filter(|datagram| datagram.to == addr(4)) {
        net.inject(datagram.from, datagram.to, datagram.bytes.clone());
    }
    net.run(ms(200));
    assert_eq!(net.exchange(4).catalog.records().count(), 0, "answers to the questions of another process");
}

#[test]
fn a_report_without_a_cookie_changes_nothing_and_is_answered_by_no_more_than_it_brought() {
    let mut net = Net::cluster(3, 1);
    let before = state(&net, 1);
    let envelopes = Envelopes::new(&net.reader, CLUSTER);
    net.captured = Some(Vec::new());
    let padded = envelopes.seal(Kind::Report, &report(66, 1).encode().unwrap()).unwrap();
    let mut short_plaintext = report(67, 1).encode().unwrap();
    short_plaintext.truncate(70);
    let short = envelopes.seal(Kind::Report, &short_plaintext).unwrap();
    net.inject(addr(66), addr(1), padded.clone());
    net.inject(addr(67), addr(1), short.clone());
    net.run(ms(2));
    assert_eq!(state(&net, 1), before);
    let answers: Vec<_> = net.captured.take().unwrap().into_iter().filter(|sent| sent.from == addr(1)).collect();
    for (to, asked) in [(addr(66), padded.len()), (addr(67), short.len())] {
        assert!(answers.iter().filter(|sent| sent.to == to).all(|sent| sent.bytes.len() <= asked), "{to}");
    }
    assert!(answers.iter().any(|sent| sent.to == addr(66)));
}

#[test]
fn another_workers_name_from_elsewhere_takes_nothing_from_it() {
    let mut net = Net::cluster(1, 1);
    net.start_worker(66, u64::MAX, &[1]);
    // The thief calls itself as the worker does.
    let thief = Me { node: node(2), name: name(2), core: false, version: String::new() };
    let now = net.now;
    let mut exchange = Exchange::new(now, thief, net.reader.clone(), CLUSTER, Arc::default());
    exchange.set_seeds([addr(1)]);
    exchange.begin(now, u64::MAX - 1, addr(66));
    net.nodes.get_mut(&66).unwrap().exchange = exchange;
    net.run(ms(20_000));
    net.change(1, |record| record.apiserver = Some(ApiserverState::Draining));
    let took = net.run_until(ms(1_000), |net| net.knows(2, 1)).unwrap();
    assert!(took <= ms(100), "it is still pushed to: {took:?}");
    assert!(net.sees(2, 1));
}

#[test]
fn a_forged_answer_to_a_search_moves_nobodys_generation() {
    let mut net = Net::new();
    net.start_worker(4, 1, &[66]);
    net.start_core(1, 1, &[66]);
    net.captured = Some(Vec::new());
    net.run(ms(2_000));
    let envelopes = Envelopes::new(&net.reader, CLUSTER);
    let asked: Vec<Datagram> = net.captured.take().unwrap();
    let asked: Vec<&Datagram> = asked.iter().filter(|datagram| datagram.to == addr(66)).rev().take(4).collect();
    assert!(!asked.is_empty());
    for datagram in asked {
        let question = Report::decode(&envelopes.open(&datagram.bytes).unwrap().plaintext).unwrap();
        let forged = Update { echo: question.echo, node: node(66), above: u64::MAX, ..forged_update(Vec::new(), Vec::new()) };
        net.inject(addr(66), datagram.from, envelopes.seal(Kind::Update, &forged.encode().unwrap()).unwrap());
    }
    net.run(ms(100));
    for host in [1, 4] {
        let moved = |change: &Change| matches!(change, Change::HeardAbove(_) | Change::GoOnAbove(_));
        assert!(!net.nodes[&host].changes.iter().any(moved), "{host}");
    }
}

#[test]
fn forged_pushes_make_nobody_report_and_no_dead_core_member_live() {
    let mut net = Net::cluster(2, 1);
    net.run(ms(5_000));
    let old = net.exchange(3).catalog.signed(node(2)).unwrap().bytes.to_vec();
    net.change(2, |record| record.apiserver = Some(ApiserverState::Draining));
    net.run(ms(1_000));
    net.nodes.get_mut(&2).unwrap().up = false;
    net.chitchat();
    net.run(ms(10_000));
    assert!(!net.sees(3, 2));
    let sent = net.nodes[&3].sent;
    let envelopes = Envelopes::new(&net.reader, CLUSTER);
    for _ in 0..200 {
        let forged = Update { node: node(2), more: true, wanted: vec![[7; 4]], ..forged_update(vec![old.clone()], Vec::new()) };
        net.inject(addr(2), addr(3), envelopes.seal(Kind::Update, &forged.encode().unwrap()).unwrap());
    }
    net.run(ms(300));
    assert!(!net.sees(3, 2));
    assert!(net.nodes[&3].sent - sent <= 1_000, "at most one regular round: {}", net.nodes[&3].sent - sent);
}

#[test]
fn any_bytes_are_counted_and_nothing_else() {
    let mut net = Net::cluster(1, 1);
    let before = state(&net, 1);
    let envelopes = Envelopes::new(&net.reader, CLUSTER);
    for n in 0..500_u32 {
        let len = rand::rng().random_range(0..1_100);
        let junk: Vec<u8> = (0..len).map(|_| rand::random()).collect();
        let kind = if n % 2 == 0 { Kind::Report } else { Kind::Update };
        net.inject(addr(50), addr(1), envelopes.seal(kind, &junk).unwrap());
        net.inject(addr(50), addr(1), junk);
    }
    net.run(ms(50));
    assert_eq!(state(&net, 1), before);
}

#[test]
fn what_is_reported_from_outside_the_nodes_networks_is_answered_and_does_not_count() {
    let mut net = Net::cluster(1, 0);
    let nodes = "10.0.0.0/24".parse().unwrap();
    net.nodes.get_mut(&1).unwrap().exchange.count_only(2, vec![nodes]);
    let pods: Vec<usize> = (300..310).collect();
    for host in [5].iter().chain(&pods) {
        net.start_worker(*host, 1, &[1]);
        net.observe(*host, vec![Observation { endpoint: endpoint(1).tag(), rtt: None, verdict: Verdict::Down, connections: 9 }]);
    }
    net.run(ms(10_000));
    let summary = net.exchange(1).summary();
    assert_eq!((summary.cluster_size, summary.failing.len()), (2, 0));
    assert_eq!(summary.loads.get(&endpoint(1).tag()), Some(&9));
    assert!(pods.iter().all(|pod| net.knows(*pod, 1)), "they are served");
}
