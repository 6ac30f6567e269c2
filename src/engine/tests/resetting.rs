//! Resets: when established connections are ended, and above all when not.

use super::*;

/// When a reset was first ordered for apiserver 1, after it began to behave so at this phase of the probes.
fn reset_after(site: Site, seed: u64, phase: Duration) -> Option<Duration> {
    let mut world = World::busy(3, seed);
    world.run(phase);
    let fault = world.now;
    world.site(apiserver(1), site);
    world.run(secs(20));
    world.resets(apiserver(1), fault).first().map(|(when, _)| when.since(fault))
}

#[test]
fn connections_to_a_hung_process_are_reset_within_9_s_at_any_phase_and_not_before_4() {
    for seed in 0..6 {
        for phase in (0..1200).step_by(100) {
            let reset = reset_after(Site::Hung, seed, ms(phase)).expect("it is reset");
            assert!(reset + policy::RESET_SPREAD <= secs(9), "seed {seed}, phase {phase} ms: {reset:?}");
            assert!(reset >= policy::HUNG_RESET_AFTER, "seed {seed}, phase {phase} ms: {reset:?}");
        }
    }
}

#[test]
fn nothing_but_a_hang_resets_a_connection_at_any_phase() {
    let others = [
        Site::Silent,
        Site::Late,
        Site::Status(500),
        Site::Status(404),
        Site::Slow(ms(1300)),
        Site::Ends(Outcome::Refused),
        Site::Ends(Outcome::NotHttp),
        Site::Ends(Outcome::NotTls),
        Site::Ends(Outcome::Untrusted("another CA".into())),
        Site::Ends(Outcome::HandshakeTimedOut { hung: false }),
    ];
    for site in others {
        for phase in (0..1200).step_by(300) {
            assert_eq!(reset_after(site.clone(), 1, ms(phase)), None, "{site:?}");
        }
    }
}

#[test]
fn an_apiserver_whose_readyz_is_late_is_draining_and_never_down() {
    let mut world = World::busy(3, 1);
    let fault = world.now;
    world.site(apiserver(1), Site::Late);
    world.run(secs(60));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Draining);
    assert!(!world.verdicts(apiserver(1), fault).contains(&Verdict::Down));
    world.site(apiserver(1), Site::Status(200));
    world.run(secs(3));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
}

#[test]
fn when_all_are_late_all_are_draining_and_carry() {
    let mut world = World::busy(3, 1);
    for n in 1..=3 {
        world.site(apiserver(n), Site::Late);
    }
    world.run(secs(60));
    assert_eq!(world.best().len(), 3);
    assert!((1..=3).all(|n| world.verdict(apiserver(n)) == Verdict::Draining));
}

#[test]
fn one_quick_500_among_late_answers_resets_nothing() {
    let mut world = World::busy(3, 1);
    let fault = world.now;
    for n in 1..=3 {
        world.site(apiserver(n), Site::Late);
    }
    world.run(secs(4));
    world.site(apiserver(2), Site::Status(500));
    world.run(secs(20));
    assert!((1..=3).all(|n| world.resets(apiserver(n), fault).is_empty()));
}

#[test]
fn a_killed_apiserver_is_down_within_an_interval_and_a_second() {
    for seed in 0..6 {
        for phase in (0..1200).step_by(100) {
            let mut world = World::busy(3, seed);
            world.run(ms(phase));
            world.site(apiserver(1), Site::Ends(Outcome::Refused));
            let took = world.run_until(secs(5), |world| world.verdict(apiserver(1)) == Verdict::Down);
            assert!(took <= longest_interval(1) + policy::CONFIRM_AFTER + ms(10), "{took:?}");
        }
    }
}

#[test]
fn a_reset_is_ordered_4_s_after_the_failed_probe_was_sent_and_spares_what_heard_something_since() {
    let mut world = World::busy(3, 1);
    let fault = world.now;
    world.site(apiserver(1), Site::Hung);
    world.run(secs(20));
    let fresh = world.probes(apiserver(1), fault).into_iter().filter(|(_, order)| order.fresh);
    let fresh: Vec<Moment> = fresh.map(|(sent, _)| sent).collect();
    let resets = world.resets(apiserver(1), fault);
    assert_eq!(resets[0].1, fresh[0], "the first that could tell a hang");
    for (when, silent_since) in &resets {
        assert!(fresh.contains(silent_since), "silent since a failed probe was sent");
        assert!(when.since(*silent_since) >= policy::HUNG_RESET_AFTER);
    }
    assert!(resets.windows(2).all(|pair| pair[0].1 < pair[1].1), "what heard something since the first is reset by a later one");
}

#[test]
fn pauses_shorter_than_a_hang_leave_everything_untouched() {
    for pause in [ms(600), secs(3), ms(3900)] {
        for phase in (0..1200).step_by(100) {
            let mut world = World::busy(3, 1);
            world.run(ms(phase));
            let fault = world.now;
            world.site(apiserver(1), Site::PausedUntil(fault + pause));
            world.run(secs(20));
            assert!(world.resets(apiserver(1), fault).is_empty(), "{pause:?}, phase {phase} ms");
            assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
        }
    }
}

#[test]
fn a_tls_handshake_that_takes_2_s_each_time_is_no_hang() {
    assert_eq!(reset_after(Site::Slow(secs(2)), 1, ms(0)), None);
}

#[test]
fn in_a_cluster_of_200_a_hung_apiserver_is_reset_as_soon_after_its_first_failed_probe_as_in_a_small_one() {
    for seed in 0..10 {
        let (mut world, fault) = World::silent_among(200, seed);
        world.site(apiserver(1), Site::Hung);
        world.run(secs(40));
        let (when, silent_since) = world.resets(apiserver(1), fault)[0];
        assert!(silent_since.since(fault) <= longest_interval(200) + policy::PROBE_PHASE, "seed {seed}");
        let most = policy::PROBE_PHASE + policy::HUNG_HANDSHAKE + ms(50);
        assert!(when.since(silent_since) <= most, "seed {seed}: {:?}", when.since(silent_since));
    }
}

#[test]
fn when_nothing_answers_nothing_is_reset_at_any_phase() {
    for seed in 0..4 {
        for phase in (0..1200).step_by(100) {
            let mut world = World::busy(3, seed);
            world.distance(apiserver(1), ms(400));
            world.distance(apiserver(2), ms(150));
            world.run(secs(5) + ms(phase));
            let fault = world.now;
            for n in 1..=3 {
                world.site(apiserver(n), Site::Hung);
            }
            world.run(secs(15));
            for n in 1..=3 {
                assert_eq!(world.verdict(apiserver(n)), Verdict::Down);
                assert!(world.resets(apiserver(n), fault).is_empty(), "seed {seed}, phase {phase} ms");
            }
        }
    }
}

#[test]
fn what_still_hangs_when_another_answers_again_is_reset() {
    let mut world = World::busy(3, 1);
    for n in 1..=3 {
        world.site(apiserver(n), Site::Hung);
    }
    world.run(secs(20));
    let back = world.now;
    world.site(apiserver(2), Site::Status(200));
    world.run(secs(10));
    assert!(!world.resets(apiserver(1), back).is_empty());
    assert!(world.resets(apiserver(2), back).is_empty());
}

#[test]
fn when_a_node_that_was_cut_off_hears_apiservers_again_none_of_those_is_reset() {
    for seed in 0..10 {
        for outage in [ms(500), ms(1500), secs(4), secs(20)] {
            let mut world = World::busy(3, seed);
            let fault = world.now;
            world.cut_off = true;
            world.run(outage);
            world.cut_off = false;
            world.run(secs(20));
            for n in 1..=3 {
                assert!(world.resets(apiserver(n), fault).is_empty(), "seed {seed}, {outage:?}");
                assert_eq!(world.verdict(apiserver(n)), Verdict::Ready);
            }
        }
    }
}

#[test]
fn two_apiservers_that_hang_together_are_both_reset() {
    for seed in 0..20 {
        let mut world = World::busy(3, seed);
        let fault = world.now;
        world.site(apiserver(1), Site::Hung);
        world.site(apiserver(2), Site::Hung);
        world.run(secs(15));
        for n in [1, 2] {
            let reset = world.resets(apiserver(n), fault)[0].0.since(fault);
            assert!(reset + policy::RESET_SPREAD <= secs(9), "seed {seed}: {reset:?}");
        }
    }
}

#[test]
fn two_that_recover_together_do_not_set_off_one_anothers_probes() {
    let mut world = World::busy(2, 1);
    world.cut_off = true;
    world.run(secs(10));
    let back = world.now;
    world.cut_off = false;
    world.run(secs(3));
    for n in [1, 2] {
        assert_eq!(world.verdict(apiserver(n)), Verdict::Ready);
        let probes = world.probes(apiserver(n), back).len();
        assert!(probes <= 6, "{probes} in 3 s");
    }
}

#[test]
fn the_only_apiserver_is_never_reset() {
    let mut world = World::busy(1, 1);
    let fault = world.now;
    world.site(apiserver(1), Site::Hung);
    world.run(secs(60));
    assert!(world.resets(apiserver(1), fault).is_empty());
}

#[test]
fn traffic_and_peers_alone_never_reset() {
    let mut world = World::busy(3, 1);
    let (since, subject) = (world.now, [apiserver(1)]);
    for round in 0..200 {
        world.saw(apiserver(1), Saw::Refused);
        world.saw(apiserver(1), Saw::ClosedEarly { hello_bytes: HELLO_BYTES });
        world.saw(apiserver(1), Saw::NoFirstByte { deadline: world.now, hello_bytes: HELLO_BYTES });
        world.saw(apiserver(1), Saw::PeerSilent);
        world.peers_report(if round % 2 == 0 { &subject } else { &[] });
        world.word(1, ApiserverState::Down);
        world.run(ms(50));
    }
    assert!(world.resets(apiserver(1), since).is_empty());
    assert!(!world.verdicts(apiserver(1), since).contains(&Verdict::Down));
}

#[test]
fn a_balancer_that_seems_to_hang_while_an_apiserver_does_may_have_chosen_that_one_each_time() {
    let (mut world, balancer) = World::busy(3, 1).with_balancer();
    let fault = world.now;
    world.site(apiserver(1), Site::Hung);
    world.site(balancer, Site::Hung);
    world.run(secs(40));
    assert!(!world.resets(apiserver(1), fault).is_empty());
    assert!(world.resets(balancer, fault).is_empty());
    let alone = world.now;
    world.site(apiserver(1), Site::Status(200));
    world.run(secs(60));
    assert!(!world.resets(balancer, alone).is_empty(), "nothing else explains it now");
}

#[test]
fn an_apiserver_that_has_been_silent_for_long_explains_no_hang_of_a_balancer() {
    let (mut world, balancer) = World::busy(3, 1).with_balancer();
    world.site(apiserver(1), Site::Silent);
    world.run(policy::BALANCER_NOTICES + secs(5));
    let fault = world.now;
    world.site(balancer, Site::Hung);
    world.run(secs(20));
    assert!(!world.resets(balancer, fault).is_empty());
}

#[test]
fn in_a_cluster_of_200_all_probes_that_a_hang_of_a_balancer_takes_follow_at_once() {
    for seed in 0..10 {
        let (mut world, balancer) = World::among(200, seed).with_balancer();
        let fault = world.now;
        world.site(balancer, Site::Hung);
        world.run(secs(60));
        let (when, silent_since) = world.resets(balancer, fault)[0];
        let most = policy::PROBE_PHASE + 2 * policy::HUNG_HANDSHAKE + ms(50);
        assert!(when.since(silent_since) <= most, "seed {seed}: {:?}", when.since(silent_since));
    }
}

#[test]
fn behind_a_balancer_two_hung_probes_in_a_row_may_have_met_one_apiserver_of_several() {
    // One more is on its way then.
    for (hung, resets) in [(1, false), (9, true)] {
        let (mut world, balancer) = World::busy(3, 1).with_balancer();
        let fault = world.now;
        world.site(balancer, Site::Hung);
        let is_hung = |event: &Event| {
            matches!(event, Event::Probed(probed) if probed.endpoint == balancer
                && matches!(probed.outcome, Outcome::HandshakeTimedOut { .. }))
        };
        world.run_until(secs(60), |world| {
            world.told.iter().filter(|(when, event)| *when >= fault && is_hung(event)).count() >= hung
        });
        world.site(balancer, Site::Status(200));
        world.run(secs(10));
        assert_eq!(!world.resets(balancer, fault).is_empty(), resets, "{hung} and one more in a row");
    }
}

#[test]
fn an_answer_between_two_hangs_of_a_balancer_begins_the_count_anew() {
    let (mut world, balancer) = World::busy(3, 1).with_balancer();
    let fault = world.now;
    for _ in 0..20 {
        world.site(balancer, Site::Hung);
        let from = world.now;
        let failed = |world: &World| {
            let hangs = world.told.iter().filter(|(when, event)| {
                *when >= from
                    && matches!(event, Event::Probed(probed) if probed.endpoint == balancer
                        && matches!(probed.outcome, Outcome::HandshakeTimedOut { .. }))
            });
            hangs.count() >= 1
        };
        world.run_until(secs(60), failed);
        world.site(balancer, Site::Status(200));
        let from = world.now;
        world.run_until(secs(60), |world| !world.probes(balancer, from).is_empty());
        world.run(RTT);
    }
    world.run(secs(20));
    assert!(world.resets(balancer, fault).is_empty(), "never were three in a row");
}

#[test]
fn an_apiserver_that_has_hung_for_long_explains_a_hang_of_a_balancer_that_never_notices() {
    let (mut world, balancer) = World::busy(3, 1).with_balancer();
    world.site(apiserver(1), Site::Hung);
    world.run(policy::BALANCER_NOTICES + secs(60));
    let fault = world.now;
    world.site(balancer, Site::Hung);
    world.run(secs(60));
    assert!(world.resets(balancer, fault).is_empty());
}

#[test]
fn that_another_address_of_the_same_name_answers_shows_no_hang_of_this_one() {
    let mut world = World::worker(1);
    let by_name = |n: u8| Configured { by_name: true, ..configured(apiserver(n), Source::Static) };
    world.tell(Event::Configured(vec![by_name(1), by_name(2)]));
    for n in 1..=2 {
        world.site(apiserver(n), Site::Status(200));
        world.tell(Event::Connections { endpoint: apiserver(n), open: 10 });
    }
    world.run(secs(20));
    let fault = world.now;
    world.site(apiserver(1), Site::Hung);
    world.run(secs(60));
    assert!(world.resets(apiserver(1), fault).is_empty(), "behind each of them may stand the same apiservers");
    world.site(apiserver(3), Site::Status(200));
    world.record(3, &[apiserver(3)]);
    world.run(secs(60));
    assert!(!world.resets(apiserver(1), fault).is_empty(), "one that is known by its own address does");
}
