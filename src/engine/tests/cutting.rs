//! Cut: when established connections are closed, and above all when not.

use super::*;

/// When the cut of apiserver 1 was ordered, after it began to behave so at this phase of the probes.
fn cut_after(site: Site, seed: u64, phase: Duration) -> Option<Duration> {
    let mut world = World::busy(3, seed);
    world.run(phase);
    let fault = world.now;
    world.site(apiserver(1), site);
    world.run(secs(10));
    world.cuts(apiserver(1), fault).first().map(|(when, _)| when.since(fault))
}

#[test]
fn a_silent_apiserver_is_down_and_every_connection_to_it_reset_within_5200_ms_at_any_phase() {
    for seed in 0..6 {
        for phase in (0..1200).step_by(100) {
            let cut = cut_after(Site::Silent, seed, ms(phase)).expect("it is cut");
            assert!(cut + policy::CUT_SPREAD <= ms(5220), "seed {seed}, phase {phase} ms: {cut:?}");
        }
    }
}

#[test]
fn a_killed_apiserver_is_down_within_an_interval_and_a_second_and_cut_within_5200_ms() {
    for seed in 0..6 {
        for phase in (0..1200).step_by(100) {
            let refused = Site::Ends(Outcome::Refused);
            let cut = cut_after(refused.clone(), seed, ms(phase)).expect("it is cut");
            assert!(cut + policy::CUT_SPREAD <= ms(5220), "seed {seed}, phase {phase} ms: {cut:?}");
            let mut world = World::busy(3, seed);
            world.run(ms(phase));
            world.site(apiserver(1), refused);
            let took = world.run_until(secs(5), |world| world.verdict(apiserver(1)) == Verdict::Down);
            assert!(took <= longest_interval(1) + policy::CONFIRM_AFTER + ms(10), "{took:?}");
        }
    }
}

#[test]
fn in_a_cluster_of_200_a_silent_apiserver_is_cut_as_soon_after_its_first_failed_probe_as_in_a_small_one() {
    for seed in 0..10 {
        let (mut world, fault) = World::silent_among(200, seed);
        world.run(secs(30));
        let (when, silent_since) = world.cuts(apiserver(1), fault)[0];
        assert!(silent_since.since(fault) <= longest_interval(200), "seed {seed}");
        assert!(when.since(silent_since) <= policy::CUT_AFTER + ms(50), "seed {seed}: {:?}", when.since(silent_since));
    }
}

#[test]
fn a_cut_is_ordered_3_s_after_the_first_failed_probe_was_sent_and_spares_who_heard_something_since() {
    let mut world = World::busy(3, 1);
    let fault = world.now;
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run(secs(10));
    let first_failed = world.probes(apiserver(1), fault)[0].0;
    let (when, silent_since) = world.cuts(apiserver(1), fault)[0];
    assert_eq!(silent_since, first_failed);
    assert!(when.since(first_failed) >= policy::CUT_AFTER);
}

#[test]
fn while_it_is_down_each_failed_probe_orders_a_cut_anew_for_those_that_fell_silent_later() {
    let mut world = World::busy(3, 1);
    let fault = world.now;
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run(secs(20));
    let (cuts, probes) = (world.cuts(apiserver(1), fault), world.probes(apiserver(1), fault));
    assert!(cuts.len() > 5 && cuts.len() <= probes.len(), "{} cuts, {} probes", cuts.len(), probes.len());
    for (when, silent_since) in &cuts {
        assert!(probes.iter().any(|(sent, _)| sent == silent_since), "silent since a failed probe was sent");
        assert!(when.since(*silent_since) >= policy::CUT_AFTER);
    }
    assert!(cuts.windows(2).all(|pair| pair[0].1 < pair[1].1), "who heard something since the first is cut by a later one");
}

#[test]
fn when_nothing_answers_nothing_is_cut_at_any_phase() {
    for seed in 0..8 {
        for phase in (0..1200).step_by(100) {
            let mut world = World::busy(3, seed);
            // Far apart, so that one's answer often comes while another's is lost on its way.
            world.distance(apiserver(1), ms(400));
            world.distance(apiserver(2), ms(150));
            world.run(secs(5) + ms(phase));
            let fault = world.now;
            world.cut_off = true;
            world.run(secs(15));
            for n in 1..=3 {
                assert_eq!(world.verdict(apiserver(n)), Verdict::Down);
                assert!(world.cuts(apiserver(n), fault).is_empty(), "seed {seed}, phase {phase} ms");
            }
        }
    }
}

#[test]
fn when_a_node_that_was_cut_off_hears_apiservers_again_none_of_those_is_cut() {
    for seed in 0..10 {
        for outage in [ms(500), ms(1500), secs(4), secs(20)] {
            let mut world = World::busy(3, seed);
            let fault = world.now;
            world.cut_off = true;
            world.run(outage);
            world.cut_off = false;
            world.run(secs(20));
            for n in 1..=3 {
                assert!(world.cuts(apiserver(n), fault).is_empty(), "seed {seed}, {outage:?}");
                assert_eq!(world.verdict(apiserver(n)), Verdict::Ready);
            }
        }
    }
}

#[test]
fn what_is_still_dead_when_the_network_is_back_is_cut_after_a_probe_that_another_answer_preceded() {
    let mut world = World::busy(3, 1);
    world.cut_off = true;
    world.run(secs(20));
    let back = world.now;
    world.cut_off = false;
    world.site(apiserver(1), Site::Silent);
    world.run(secs(6));
    let (when, _) = world.cuts(apiserver(1), back)[0];
    let probed_since = world.probes(apiserver(1), back);
    assert!(probed_since.iter().any(|(sent, _)| *sent + policy::PROBE_TIMEOUT <= when), "a whole probe lies between");
}

#[test]
fn two_apiservers_that_die_together_are_both_cut() {
    for seed in 0..20 {
        let mut world = World::busy(3, seed);
        let fault = world.now;
        world.site(apiserver(1), Site::Silent);
        world.site(apiserver(2), Site::Silent);
        world.run(secs(7));
        for n in [1, 2] {
            let cut = world.cuts(apiserver(n), fault)[0].0.since(fault);
            assert!(cut + policy::CUT_SPREAD <= ms(6000), "seed {seed}: {cut:?}");
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
fn the_only_apiserver_is_never_cut() {
    let mut world = World::busy(1, 1);
    let fault = world.now;
    world.site(apiserver(1), Site::Silent);
    world.run(secs(60));
    assert!(world.cuts(apiserver(1), fault).is_empty());
}

#[test]
fn traffic_and_peers_alone_never_cut() {
    let mut world = World::busy(3, 1);
    let since = world.now;
    for round in 0..200 {
        world.saw(apiserver(1), Saw::Refused);
        world.saw(apiserver(1), Saw::ClosedEarly);
        world.saw(apiserver(1), Saw::NoFirstByte { deadline: world.now });
        world.report(&format!("peer-{round}"), apiserver(1), Verdict::Down, None);
        world.word(1, ApiserverState::Down);
        world.run(ms(50));
    }
    assert!(world.cuts(apiserver(1), since).is_empty());
    assert!(!world.verdicts(apiserver(1), since).contains(&Verdict::Down));
}

#[test]
fn while_one_is_silent_clients_of_the_balancer_that_ask_and_get_no_answer_are_cut_and_the_others_not() {
    for (site, cuts) in [(Site::Silent, true), (Site::Ends(Outcome::Refused), false)] {
        let mut world = World::busy(3, 1);
        let balancer = apiserver(9);
        world.tell(Event::Configured(vec![configured(balancer, Source::External)]));
        world.site(balancer, Site::Status(200));
        world.tell(Event::Connections { endpoint: balancer, open: 5 });
        world.run(secs(10));
        let fault = world.now;
        world.site(apiserver(1), site);
        world.run(secs(20));
        let ordered = world.since(fault, |effect| match effect {
            Effect::Cut { endpoint, unanswered, .. } if *endpoint == balancer => Some(*unanswered),
            _ => None,
        });
        assert_eq!(!ordered.is_empty(), cuts);
        assert!(ordered.iter().all(|(_, unanswered)| *unanswered == policy::UNANSWERED));
        assert_eq!(world.verdict(balancer), Verdict::Ready);
    }
}
