//! Evidence that is not an own probe: traffic, peers, the endpoint's own node. It lowers and prompts; it never makes `down`.

use super::*;

fn against() -> Vec<Saw> {
    let deadline = at(secs(40));
    vec![
        Saw::Refused,
        Saw::DialTimedOut { deadline },
        Saw::NoFirstByte { deadline, hello_bytes: HELLO_BYTES },
        Saw::ClosedEarly { hello_bytes: HELLO_BYTES },
        Saw::PeerSilent,
        Saw::Unanswered,
    ]
}

#[test]
fn traffic_evidence_makes_suspect_and_prompts_one_probe_that_ends_it() {
    for saw in against() {
        let mut world = World::quiet(3, 1);
        let since = world.now;
        world.saw(apiserver(1), saw.clone());
        assert_eq!(world.verdict(apiserver(1)), Verdict::Suspect, "{saw:?}");
        assert_eq!(world.ranked().last(), Some(&apiserver(1)), "below every ready one");
        world.run(ms(260));
        assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect, Verdict::Ready], "{saw:?}");
        assert_eq!(world.probes(apiserver(1), since).len(), 1);
        assert!(world.probes(apiserver(1), since)[0].1.fresh, "only a fresh connection sees that new ones fail");
    }
}

#[test]
fn what_hearsay_led_to_and_is_not_tls_carries_nothing_until_an_own_probe_has_proven_it_again() {
    for from_the_cache in [false, true] {
        let mut world = World::quiet(2, 1);
        if from_the_cache {
            world.site(apiserver(3), Site::Status(200));
            world.tell(Event::Cached { endpoints: vec![cached(apiserver(3), None, secs(50))], cluster_size: 3 });
            world.run(secs(30));
        }
        let subject = apiserver(if from_the_cache { 3 } else { 1 });
        world.tell(Event::Connections { endpoint: subject, open: 10 });
        let since = world.now;
        world.saw(subject, Saw::NotTls);
        assert_eq!(world.verdict(subject), Verdict::Unproven);
        assert!(!world.carries(subject), "no client's bytes go there again before a probe has looked");
        world.run(ms(260));
        assert_eq!(world.verdicts(subject, since), [Verdict::Unproven, Verdict::Ready]);
        assert!(world.carries(subject) && world.resets(subject, since).is_empty());
    }
}

#[test]
fn the_answer_to_a_probe_that_was_sent_before_what_is_not_tls_was_seen_proves_nothing() {
    let mut world = World::quiet(2, 1);
    world.distance(apiserver(1), ms(100));
    let since = world.now;
    world.run_until(secs(2), |world| !world.probes(apiserver(1), since).is_empty());
    world.saw(apiserver(1), Saw::NotTls);
    world.run(ms(101));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Unproven);
    world.run(secs(1));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
}

#[test]
fn what_was_proven_and_goes_on_talking_something_that_is_not_tls_is_down_with_the_first_probe_and_not_cut_by_traffic() {
    let mut world = World::busy(2, 1);
    world.site(apiserver(1), Site::Ends(Outcome::NotTls));
    let since = world.now;
    world.saw(apiserver(1), Saw::NotTls);
    world.run(ms(260));
    assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Unproven, Verdict::Down]);
}

#[test]
fn a_configured_endpoint_that_is_not_tls_is_suspect_and_still_carries() {
    for source in [Source::Static, Source::External] {
        let mut world = World::worker(1);
        for n in [1, 2] {
            world.site(apiserver(n), Site::Status(200));
        }
        world.configure(&[(apiserver(1), source), (apiserver(2), Source::Static)]);
        world.run(secs(30));
        world.saw(apiserver(1), Saw::NotTls);
        assert_eq!((world.verdict(apiserver(1)), world.carries(apiserver(1))), (Verdict::Suspect, true), "{source:?}");
    }
}

#[test]
fn the_only_upstream_carries_nothing_once_it_is_not_tls_until_its_probe_which_comes_at_once() {
    let mut world = World::quiet(1, 1);
    world.saw(apiserver(1), Saw::NotTls);
    assert!(!world.carries(apiserver(1)), "another process may stand there, and gets no client's byte");
    let took = world.run_until(secs(2), |world| world.carries(apiserver(1)));
    assert!(took <= policy::PROMPT_GAP + ms(50), "{took:?}");
}

#[test]
fn who_answers_later_than_a_client_is_let_wait_is_suspect_until_it_answers_faster() {
    let mut world = World::quiet(2, 1);
    let since = world.now;
    world.site(apiserver(1), Site::Slow(ms(700)));
    world.run(secs(10));
    assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect], "and it is never down, nor ready in between");
    assert_eq!(world.ranked(), [apiserver(2), apiserver(1)], "below every ready one");
    world.site(apiserver(1), Site::Slow(ms(300)));
    world.run(secs(3));
    assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect, Verdict::Ready]);
}

#[test]
fn a_connected_dial_and_an_answer_are_no_evidence_against_anyone() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    world.saw(apiserver(1), Saw::Connected(ms(1)));
    world.saw(apiserver(1), Saw::Answered { hello_bytes: HELLO_BYTES });
    world.run(secs(5));
    world.assert_untouched(since);
}

#[test]
fn only_an_own_probe_sent_after_the_doubt_arrived_lifts_it() {
    let mut world = World::quiet(3, 1);
    world.distance(apiserver(1), ms(100));
    let since = world.now;
    world.run_until(secs(2), |world| !world.probes(apiserver(1), since).is_empty());
    world.saw(apiserver(1), Saw::Refused);
    world.run(ms(101));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Suspect, "the answer is older than the doubt");
    world.run(secs(1));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
}

#[test]
fn a_thousand_pieces_of_evidence_at_most_double_the_probing() {
    for nodes in [3, 200] {
        let mut world = World::quiet(3, 1);
        world.tell(Event::ClusterSize(nodes));
        world.run(secs(60));
        let since = world.now;
        for round in 0..3000 {
            for saw in against() {
                world.saw(apiserver(1), saw);
            }
            match round % 10 {
                0 => world.peers_report(&[apiserver(1)]),
                5 => world.peers_report(&[]),
                _ => {}
            }
            world.run(ms(20));
        }
        let interval = world.engine.probe_interval().as_secs_f64();
        let each = interval * world.probes(apiserver(1), since).len() as f64 / 60.0;
        assert!(each <= 2.6, "{nodes} nodes: {each} probes an interval");
    }
}

#[test]
fn all_nodes_that_see_the_same_evidence_spread_their_probes() {
    let mut sent = Vec::new();
    for node in 0..200 {
        let mut world = World::quiet(1, node);
        world.tell(Event::ClusterSize(200));
        world.run(secs(60));
        let since = world.now;
        for _ in 0..20 {
            world.saw(apiserver(1), Saw::Refused);
            world.run(ms(1));
        }
        world.run(secs(3));
        sent.push(world.probes(apiserver(1), since)[0].0.since(since));
    }
    let soonest = sent.iter().filter(|delay| **delay < ms(200)).count();
    assert!(soonest < 40, "{soonest} of 200 in the first tenth of 2 s");
    assert!(sent.iter().all(|delay| *delay <= ms(2010)));
}

#[test]
fn evidence_does_not_put_off_the_probe_that_confirms_a_first_failure() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run_until(secs(2), |world| world.verdict(apiserver(1)) == Verdict::Suspect);
    world.site(apiserver(1), Site::Silent);
    for _ in 0..10 {
        world.saw(apiserver(1), Saw::Refused);
        world.run(ms(100));
    }
    world.run(secs(2));
    let probes = world.probes(apiserver(1), since);
    assert_eq!(probes[1].0.since(probes[0].0), policy::CONFIRM_AFTER);
}

#[test]
fn peers_that_report_failure_do_not_take_away_a_path_that_works_here() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    for _ in 0..50 {
        world.peers_report(&[apiserver(1)]);
        world.run(ms(100));
        world.peers_report(&[]);
        world.run(ms(100));
    }
    world.assert_untouched(since);
}

#[test]
fn peers_make_suspect_what_this_node_has_had_no_answer_from_for_two_intervals() {
    let mut world = World::quiet(3, 1);
    world.tell(Event::ClusterSize(200));
    world.run(secs(60));
    // This node cannot look: no answer, and no evidence either.
    world.site(apiserver(1), Site::Ends(Outcome::LocalError("no ports".into())));
    world.run(secs(40));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
    world.peers_report(&[apiserver(1)]);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Suspect);
}

#[test]
fn what_peers_report_is_confirmed_by_a_few_nodes_and_by_those_that_carry() {
    let nodes: Vec<String> = (1..=40).map(|n| format!("cp-{n}")).collect();
    let mut confirming = 0;
    for (n, name) in nodes.iter().enumerate() {
        for carries in [false, true] {
            let mut world = World::node(Identity { name: name.clone(), advertised: Vec::new(), seed: n as u64 });
            let subject = apiserver(99);
            world.site(subject, Site::Status(200));
            world.record(99, &[subject]);
            world.tell(Event::ClusterSize(40));
            world.run(secs(60));
            if carries {
                world.tell(Event::Connections { endpoint: subject, open: 3 });
            }
            // Just after a periodic probe: the next one of those is more than a second away.
            let before = world.now;
            world.run_until(secs(4), |world| !world.probes(subject, before).is_empty());
            world.run(ms(10));
            let since = world.now;
            world.peers_report(&[subject]);
            world.run(ms(610));
            match world.probes(subject, since).len() {
                0 => assert!(!carries, "who carries looks, within N / 100 s"),
                one => confirming += usize::from(!carries) * one,
            }
        }
    }
    assert!((1..=10).contains(&confirming), "{confirming} of 40 nodes, where 5 are expected");
}

#[test]
fn reports_that_come_and_go_every_200_ms_prompt_one_probe_an_interval() {
    for nodes in [3, 200] {
        let mut world = World::busy(1, 1);
        world.tell(Event::ClusterSize(nodes));
        world.run(secs(60));
        let since = world.now;
        for _ in 0..600 {
            world.peers_report(&[apiserver(1)]);
            world.run(ms(100));
            world.peers_report(&[]);
            world.run(ms(100));
        }
        let intervals = world.now.since(since).as_secs_f64() / world.engine.probe_interval().as_secs_f64();
        let each = world.probes(apiserver(1), since).len() as f64 / intervals;
        assert!((1.5..=2.3).contains(&each), "{nodes} nodes: {each} probes an interval, of which one is the ordinary one");
        world.assert_untouched(since);
    }
}

#[test]
fn reports_that_come_and_go_bring_an_unverified_endpoint_one_probe_an_interval_at_most() {
    let mut world = World::worker(1);
    world.tell(Event::ClusterSize(3));
    world.record(1, &[apiserver(1)]);
    world.run(secs(1200));
    let since = world.now;
    for _ in 0..300 {
        world.peers_report(&[apiserver(1)]);
        world.run(ms(100));
        world.peers_report(&[]);
        world.run(ms(100));
    }
    let probes = world.probes(apiserver(1), since);
    assert!(probes.windows(2).all(|pair| pair[1].0.since(pair[0].0) >= world.engine.probe_interval()), "{probes:?}");
}

#[test]
fn the_same_report_again_is_no_news() {
    let mut world = World::busy(3, 1);
    world.peers_report(&[apiserver(1)]);
    world.run(secs(60));
    let since = world.now;
    world.peers_report(&[apiserver(1), apiserver(9)]);
    world.run(ms(50));
    assert!(world.probes(apiserver(1), since).iter().all(|(_, order)| !order.fresh));
}

#[test]
fn draining_said_by_its_own_node_applies_at_once_and_holds_until_an_own_later_probe_answers_200() {
    let mut world = World::quiet(3, 1);
    world.site(apiserver(1), Site::Status(503));
    world.word(1, ApiserverState::Draining);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Draining, "at once");
    assert_eq!(world.ranked().last(), Some(&apiserver(1)));
    world.run(secs(20));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Draining);
    world.site(apiserver(1), Site::Status(200));
    world.run(longest_interval(1) + RTT);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
}

#[test]
fn a_200_to_a_probe_sent_before_the_word_arrived_does_not_lift_it() {
    let mut world = World::quiet(3, 1);
    world.distance(apiserver(1), ms(100));
    let since = world.now;
    world.run_until(secs(2), |world| !world.probes(apiserver(1), since).is_empty());
    world.word(1, ApiserverState::Draining);
    world.run(ms(101));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Draining);
}

#[test]
fn draining_applies_as_draining_even_where_nobody_has_looked_lately() {
    let mut world = World::quiet(3, 1);
    world.site(apiserver(1), Site::Ends(Outcome::LocalError("no ports".into())));
    world.run(secs(10));
    world.word(1, ApiserverState::Draining);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Draining, "not suspect: it still answers");
}

#[test]
fn where_anonymous_access_is_off_draining_holds_until_its_own_node_takes_it_back() {
    let mut world = World::quiet(3, 1);
    world.site(apiserver(1), Site::Status(401));
    world.run(secs(3));
    world.word(1, ApiserverState::Draining);
    world.run(secs(60));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Draining, "a 401 says nothing of readiness");
    world.word(1, ApiserverState::Ready);
    world.run(longest_interval(1) + RTT);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
}

#[test]
fn where_anonymous_access_is_off_a_word_ends_with_the_member_that_said_it() {
    let mut world = World::quiet(3, 1);
    world.site(apiserver(1), Site::Status(401));
    world.word(1, ApiserverState::Draining);
    world.run(secs(10));
    world.tell(Event::Forgotten(control_plane(1)));
    world.run(longest_interval(1) + RTT);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready, "nobody is left who could take it back");
}

#[test]
fn down_said_by_its_own_node_makes_suspect_at_once_until_an_own_later_probe_answers_200() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    world.word(1, ApiserverState::Down);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Suspect);
    world.run(longest_interval(1) + RTT);
    assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect, Verdict::Ready]);
}

#[test]
fn an_agent_that_leaves_changes_nothing_about_its_apiserver() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    let record = MemberRecord { agent: AgentState::Leaving, ..world.a_record(1, &[apiserver(1)]) };
    world.tell(Event::Record(record));
    world.tell(Event::ClusterSize(1));
    world.run(secs(10));
    world.assert_untouched(since);
}

#[test]
fn gossip_liveness_is_no_verdict() {
    let mut world = World::quiet(3, 1);
    world.tell(Event::ClusterSize(3));
    let since = world.now;
    world.tell(Event::ClusterSize(1));
    world.run(secs(30));
    world.assert_untouched(since);
}

#[test]
fn a_recovery_said_by_the_own_node_or_by_peers_brings_a_probe_within_the_ordinary_interval() {
    for said_by_peers in [false, true] {
        let mut world = World::worker(1);
        world.site(apiserver(1), Site::Ends(Outcome::Refused));
        world.record(1, &[apiserver(1)]);
        world.tell(Event::ClusterSize(3));
        world.peers_report(&[apiserver(1)]);
        world.run(secs(1200));
        world.site(apiserver(1), Site::Status(200));
        if said_by_peers {
            world.peers_report(&[]);
        } else {
            world.word(1, ApiserverState::Ready);
        }
        world.run(world.engine.probe_interval() + policy::RECOVERY_GAP + ms(10));
        assert_eq!(world.verdict(apiserver(1)), Verdict::Ready, "although it was tried only every 5 min by now");
    }
}

#[test]
fn a_node_that_lost_power_and_says_again_that_it_is_ready_is_probed_within_the_ordinary_interval() {
    let mut world = World::worker(1);
    world.word(1, ApiserverState::Ready);
    world.run(secs(1200));
    world.site(apiserver(1), Site::Status(200));
    world.word(1, ApiserverState::Ready);
    world.run(world.engine.probe_interval() + policy::RECOVERY_GAP + ms(10));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Down, "said again in one life it is no news");
    let record = world.a_record(1, &[apiserver(1)]);
    world.tell(Event::Record(MemberRecord { generation: 2, apiserver: Some(ApiserverState::Ready), ..record }));
    world.run(world.engine.probe_interval() + policy::RECOVERY_GAP + ms(10));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready, "although it was tried only every 5 min by now");
}

#[test]
fn forged_verdicts_on_all_apiservers_move_nothing_for_longer_than_one_probe() {
    let mut world = World::busy(3, 1);
    let since = world.now;
    for n in 1..=3 {
        world.word(n, ApiserverState::Down);
    }
    world.peers_report(&[1, 2, 3].map(apiserver));
    assert_eq!(world.ranked().len(), 3, "all still carry");
    world.run(longest_interval(1) + RTT);
    for n in 1..=3 {
        assert_eq!(world.verdict(apiserver(n)), Verdict::Ready);
        assert!(world.resets(apiserver(n), since).is_empty());
    }
}

#[test]
fn a_few_overtaken_dials_are_lost_packets_and_four_in_a_row_are_a_doubt() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    let overtaken = Saw::Overtaken { deadline: since };
    for _ in 0..5 {
        for _ in 1..policy::MIN_OVERTAKEN_DIALS {
            world.saw(apiserver(1), overtaken.clone());
        }
        assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
        world.saw(apiserver(1), Saw::Connected(RTT));
    }
    assert!(!world.probes(apiserver(1), since).is_empty() || world.engine.next_deadline() <= Some(since + policy::PROMPT_GAP));
    for _ in 0..policy::MIN_OVERTAKEN_DIALS {
        assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
        world.saw(apiserver(1), overtaken.clone());
    }
    assert_eq!(world.verdict(apiserver(1)), Verdict::Suspect);
}

#[test]
fn a_probe_with_a_smaller_hello_does_not_refute_what_a_larger_one_met_and_a_clients_does() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    let hello_bytes = 3 * HELLO_BYTES;
    world.saw(apiserver(1), Saw::NoFirstByte { deadline: since, hello_bytes });
    world.run(secs(20));
    assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect], "one change of state, whatever the probes say");
    assert_eq!(world.best(), [apiserver(2), apiserver(3)]);
    world.saw(apiserver(1), Saw::Answered { hello_bytes: HELLO_BYTES });
    assert_eq!(world.verdict(apiserver(1)), Verdict::Suspect);
    world.saw(apiserver(1), Saw::Answered { hello_bytes });
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
}

#[test]
fn what_no_probe_can_refute_is_tried_again_after_a_minute() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    world.saw(apiserver(1), Saw::NoFirstByte { deadline: since, hello_bytes: 3 * HELLO_BYTES });
    world.run(policy::TRAFFIC_DOUBT - ms(1));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Suspect);
    world.run(ms(2));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
}

#[test]
fn an_apiserver_whose_handshake_comes_later_than_clients_wait_is_suspect_at_its_second_late_one() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    world.site(apiserver(1), Site::Slow(ms(700)));
    world.run(secs(10));
    assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect]);
    let late = world.told.iter().filter(|(when, event)| {
        *when >= since
            && matches!(event, Event::Probed(probed) if probed.endpoint == apiserver(1) && probed.handshake > Some(ms(500)))
    });
    assert!(late.count() >= 2);
}

#[test]
fn a_late_answer_does_not_refute_what_lateness_raised() {
    let mut world = World::quiet(3, 1);
    world.site(apiserver(1), Site::Slow(ms(700)));
    let since = world.now;
    world.saw(apiserver(1), Saw::NoFirstByte { deadline: since + secs(1), hello_bytes: HELLO_BYTES });
    world.run(secs(10));
    assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect]);
    world.site(apiserver(1), Site::Status(200));
    world.run(secs(5));
    assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect, Verdict::Ready]);
}

#[test]
fn a_late_handshake_is_looked_at_again_after_a_moment() {
    let mut world = World::among(200, 1);
    world.site(apiserver(1), Site::Slow(ms(700)));
    let since = world.now;
    let late = |world: &World| {
        let late = |event: &Event| matches!(event, Event::Probed(probed) if probed.endpoint == apiserver(1) && probed.fresh && probed.handshake > Some(ms(500)));
        world.told.iter().find(|(when, event)| *when >= since && late(event)).map(|(when, _)| *when)
    };
    world.run_until(secs(60), |world| late(world).is_some());
    let late = late(&world).expect("seen");
    world.run(secs(2));
    assert_eq!(world.probes(apiserver(1), late)[0].0, late + policy::CONFIRM_AFTER);
}
