//! What is pushed, and who counts as live.

use super::*;

#[test]
fn a_change_of_a_control_plane_is_known_to_all_workers_after_one_way_through_the_network() {
    let mut net = Net::cluster(3, 20);
    net.change(1, |record| record.apiserver = Some(ApiserverState::Draining));
    let took = net.run_until(ms(2_000), |net| (4..=23).all(|host| net.knows(host, 1))).unwrap();
    assert!(took <= ms(100), "{took:?}");
}

#[test]
fn with_30_percent_loss_a_change_is_known_to_all_within_two_seconds() {
    let mut net = Net::cluster(3, 50);
    net.loss = 0.3;
    net.change(1, |record| record.apiserver = Some(ApiserverState::Draining));
    let took = net.run_until(ms(10_000), |net| (4..=53).all(|host| net.knows(host, 1))).unwrap();
    assert!(took <= ms(2_000), "{took:?}");
}

#[test]
fn what_was_acknowledged_is_not_sent_again() {
    let mut net = Net::cluster(1, 10);
    net.run(ms(10_000));
    net.captured = Some(Vec::new());
    net.change(1, |record| record.apiserver = Some(ApiserverState::Down));
    net.run(ms(1_500));
    let pushes = net.captured.take().unwrap().iter().filter(|sent| sent.from == addr(1)).count();
    // One push, and one answer to each acknowledgement; regular Reports come besides.
    assert!(pushes <= 40, "{pushes}");
}

#[test]
fn that_a_core_member_is_gone_is_known_to_workers_when_another_says_so() {
    let mut net = Net::cluster(3, 10);
    net.run(ms(5_000));
    net.nodes.get_mut(&2).unwrap().up = false;
    net.chitchat();
    let took = net.run_until(ms(5_000), |net| (4..=13).all(|host| !net.sees(host, 2))).unwrap();
    assert!(took <= ms(300), "{took:?}");
    net.nodes.get_mut(&2).unwrap().up = true;
    net.chitchat();
    let back = net.run_until(ms(40_000), |net| (4..=13).all(|host| net.sees(host, 2)));
    assert!(back.is_some());
}

#[test]
fn a_core_member_that_others_take_for_gone_and_that_answers_stays_live() {
    let mut net = Net::cluster(3, 1);
    net.run(ms(5_000));
    // The rest of the core does not hear it; workers do.
    let now = net.now;
    for host in [1, 3] {
        let others = [1, 2, 3].into_iter().filter(|other| *other != host).map(|other| {
            let live = other != 2;
            (
                node(other),
                CoreMember { generation: 1, addr: addr(other), live, heard: None, observations: Vec::new(), introduction: None },
            )
        });
        let core = others.collect();
        net.nodes.get_mut(&host).unwrap().exchange.set_core(now, core, false);
    }
    net.run(ms(500));
    assert!(net.sees(4, 2));
    net.run(ms(60_000));
    assert!(net.sees(4, 2));
}

#[test]
fn a_core_member_that_only_this_worker_does_not_reach_is_live_by_what_the_others_say() {
    let mut net = Net::cluster(3, 2);
    net.run(ms(5_000));
    net.cut.push((4, 2));
    net.run(ms(60_000));
    assert_eq!(net.exchange(4).reporter.unanswered(), [node(2)]);
    assert!(net.sees(4, 2));
    // Its news come to that worker all the same, through the others.
    net.change(2, |record| record.apiserver = Some(ApiserverState::Draining));
    net.chitchat();
    let took = net.run_until(ms(5_000), |net| net.knows(4, 2)).unwrap();
    assert!(took <= ms(300), "{took:?}");
}

#[test]
fn the_only_core_member_is_gone_for_a_worker_after_its_period_and_three_seconds() {
    let mut net = Net::cluster(1, 3);
    net.run(ms(5_000));
    net.nodes.get_mut(&1).unwrap().up = false;
    let took = net.run_until(ms(20_000), |net| (2..=4).all(|host| net.exchange(host).reporter.answers(node(1)) == Some(false)));
    assert!(took.unwrap() <= ms(4_800 + 3_100), "{took:?}");
}
