//! What people are shown of the other nodes.

use super::super::super::MemberStatus;
use super::*;
use crate::engine::event::Verdict;

fn shown(net: &Net, at: usize) -> Vec<MemberStatus> {
    net.exchange(at).members(net.now)
}

fn of(net: &Net, at: usize, host: usize) -> MemberStatus {
    shown(net, at).into_iter().find(|member| member.name == name(host)).unwrap()
}

#[test]
fn a_core_member_shows_all_nodes_and_a_worker_the_core_members_core_first_and_by_name() {
    let mut net = Net::cluster(2, 3);
    net.observe(4, vec![Observation { endpoint: endpoint(1).tag(), rtt: None, verdict: Verdict::Ready, connections: 7 }]);
    net.run(ms(10_000));
    let names = |at| shown(&net, at).into_iter().map(|member| member.name).collect::<Vec<_>>();
    assert_eq!(names(1), [name(2), name(3), name(4), name(5)]);
    assert_eq!(names(3), [name(1), name(2)]);
    let worker = of(&net, 1, 4);
    assert_eq!((worker.version.as_deref(), worker.connections), (Some("test"), Some(7)));
    assert_eq!((worker.keys, worker.full_keyring), (net.full.key_ids(), Some(false)));
    let core = of(&net, 3, 2);
    assert_eq!((core.apiserver, core.generation, core.away_s), (Some(ApiserverState::Ready), 1, None));
    assert!(core.rtt_ms.is_some() && core.last_heard_s.is_some());
}

#[test]
fn a_control_plane_that_is_gone_is_away_since_it_was_heard_and_not_ready() {
    let mut net = Net::cluster(3, 1);
    net.run(ms(5_000));
    net.nodes.get_mut(&2).unwrap().up = false;
    net.chitchat();
    net.run(ms(100_000));
    let away = of(&net, 4, 2);
    assert_eq!((away.alive, away.apiserver), (false, None));
    assert!(away.away_s.is_some_and(|away| (100.0..=105.0).contains(&away)), "{away:?}");
}

#[test]
fn a_control_plane_that_chitchat_has_forgotten_keeps_the_time_when_it_was_heard() {
    let mut net = Net::cluster(2, 0);
    let heard = net.now;
    let member =
        CoreMember { generation: 1, addr: addr(2), live: true, heard: Some(heard), observations: Vec::new(), introduction: None };
    let exchange = &mut net.nodes.get_mut(&1).unwrap().exchange;
    exchange.set_core(heard, [(node(2), member)].into(), false);
    exchange.set_core(heard, BTreeMap::new(), false);
    net.now += ms(3_600_000);
    assert_eq!(of(&net, 1, 2).away_s, Some(3_600.0));
}

#[test]
fn a_worker_that_went_is_away_or_has_left_for_an_hour() {
    let mut net = Net::cluster(1, 3);
    net.run(ms(5_000));
    let now = net.now;
    net.nodes.get_mut(&2).unwrap().exchange.leave(now);
    net.run(ms(100));
    let leaving = of(&net, 1, 2);
    assert_eq!((leaving.alive, leaving.agent, leaving.away_s), (true, AgentState::Leaving, None));
    net.nodes.get_mut(&2).unwrap().up = false;
    net.nodes.get_mut(&3).unwrap().up = false;
    net.run(ms(60_000));
    for (host, agent) in [(2, AgentState::Leaving), (3, AgentState::Running)] {
        let gone = of(&net, 1, host);
        assert_eq!((gone.alive, gone.agent, gone.connections), (false, agent, None));
        assert!(gone.away_s.is_some_and(|away| away > 50.0) && gone.version.is_some());
    }
    net.nodes.get_mut(&3).unwrap().up = true;
    net.run(ms(40_000));
    assert!(of(&net, 1, 3).alive && shown(&net, 1).len() == 3, "it is back, and shown once");
    net.run(ms(3_600_000));
    assert_eq!(shown(&net, 1).into_iter().map(|member| member.name).collect::<Vec<_>>(), [name(3), name(4)]);
}

#[test]
fn workers_that_hold_the_full_keyring_are_counted_and_marked_on_core_members() {
    let mut net = Net::cluster(2, 1);
    let full = net.full.clone();
    net.start(9, false, full, 1, &[1]);
    net.run(ms(5_000));
    assert_eq!(net.exchange(1).workers_with_full_keyring(), Some(1));
    assert_eq!((of(&net, 1, 9).full_keyring, of(&net, 1, 3).full_keyring), (Some(true), Some(false)));
    assert_eq!(net.exchange(9).workers_with_full_keyring(), None);
}

#[test]
fn a_core_member_that_was_started_again_learns_the_names_and_versions_of_workers() {
    let mut net = Net::cluster(1, 3);
    net.run(ms(5_000));
    net.start_core(1, 2, &[]);
    net.run(ms(20_000));
    assert_eq!(shown(&net, 1).into_iter().map(|member| member.name).collect::<Vec<_>>(), [name(2), name(3), name(4)]);
}
