//! What counts as healthy: what an own probe's outcome makes of an endpoint.

use super::*;

/// The verdict on an apiserver, ready before, once its probes end so for a while.
fn after(site: Site) -> Verdict {
    let mut world = World::quiet(2, 1);
    world.site(apiserver(1), site);
    world.run(secs(6));
    world.verdict(apiserver(1))
}

#[test]
fn the_answers_mean_what_the_table_says() {
    assert_eq!(after(Site::Status(200)), Verdict::Ready);
    assert_eq!(after(Site::Status(401)), Verdict::Ready);
    assert_eq!(after(Site::Status(403)), Verdict::Ready);
    for draining in [429, 500, 503] {
        assert_eq!(after(Site::Status(draining)), Verdict::Draining, "{draining}");
    }
    for failing in [100, 204, 301, 404, 502, 504, 999] {
        assert_eq!(after(Site::Status(failing)), Verdict::Down, "{failing}");
    }
    for failing in [Outcome::NotHttp, Outcome::Refused, Outcome::DialTimedOut, Outcome::NotTls] {
        assert_eq!(after(Site::Ends(failing.clone())), Verdict::Down, "{failing:?}");
    }
    assert_eq!(after(Site::Expired), Verdict::Draining);
}

#[test]
fn who_answers_401_is_ready_with_the_note_that_readiness_is_unknown() {
    let mut world = World::quiet(1, 1);
    world.site(apiserver(1), Site::Status(401));
    world.run(secs(3));
    let explained = world.explained(apiserver(1)).unwrap();
    assert!(explained.reasons.iter().any(|reason| reason.contains("readiness unknown")), "{:?}", explained.reasons);
}

#[test]
fn one_success_makes_the_unproven_ready() {
    let mut world = World::worker(1);
    world.site(apiserver(1), Site::Status(200));
    world.record(1, &[apiserver(1)]);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Unproven);
    world.run(RTT);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
}

#[test]
fn two_failures_make_the_unproven_down() {
    let mut world = World::worker(1);
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.record(1, &[apiserver(1)]);
    world.run(ms(900));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Unproven, "one failure is not enough");
    world.run(ms(200));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Down);
}

#[test]
fn a_first_failed_probe_makes_suspect_and_one_success_ends_it() {
    let mut world = World::quiet(2, 1);
    let since = world.now;
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run_until(secs(2), |world| world.verdict(apiserver(1)) == Verdict::Suspect);
    assert_eq!(world.ranked(), [apiserver(2), apiserver(1)], "below every ready one");
    world.site(apiserver(1), Site::Status(200));
    world.run(ms(1100));
    assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect, Verdict::Ready]);
}

#[test]
fn the_second_failure_that_makes_down_is_of_a_fresh_probe_sent_1_s_after_the_first() {
    for seed in 0..20 {
        let mut world = World::quiet(2, seed);
        world.site(apiserver(1), Site::Ends(Outcome::Refused));
        let failing_from = world.now;
        world.run_until(secs(4), |world| world.verdict(apiserver(1)) == Verdict::Down);
        let probes = world.probes(apiserver(1), failing_from);
        assert_eq!(probes.len(), 2);
        assert_eq!(probes[1].0.since(probes[0].0), policy::CONFIRM_AFTER);
        assert!(probes[1].1.fresh);
    }
}

#[test]
fn a_pause_of_600_ms_is_no_failure_at_any_phase() {
    for phase in (0..1300).step_by(100) {
        let mut world = World::busy(3, phase);
        world.run(ms(phase));
        let since = world.now;
        world.site(apiserver(1), Site::PausedUntil(world.now + ms(600)));
        world.run(ms(600));
        world.site(apiserver(1), Site::Status(200));
        world.run(secs(10));
        world.assert_untouched(since);
    }
}

#[test]
fn a_pause_of_600_ms_under_traffic_makes_suspect_at_most_and_never_cuts() {
    for phase in (0..1300).step_by(100) {
        let mut world = World::busy(3, phase);
        world.run(ms(phase));
        let since = world.now;
        world.site(apiserver(1), Site::PausedUntil(world.now + ms(600)));
        world.run(ms(550));
        world.saw(apiserver(1), Saw::NoFirstByte { deadline: world.now, hello_bytes: HELLO_BYTES });
        world.run(ms(50));
        world.site(apiserver(1), Site::Status(200));
        world.run(secs(10));
        assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Suspect, Verdict::Ready]);
        assert!(world.resets(apiserver(1), since).is_empty());
    }
}

#[test]
fn what_does_not_speak_tls_is_disproven_when_only_gossip_named_it() {
    let mut world = World::quiet(2, 1);
    world.site(apiserver(1), Site::Ends(Outcome::NotTls));
    world.run_until(secs(2), |world| world.verdict(apiserver(1)) == Verdict::Down);
    assert!(!world.carries(apiserver(1)));
}

#[test]
fn what_does_not_speak_tls_only_fails_when_a_person_configured_it() {
    let mut world = World::worker(1);
    for n in [1, 2] {
        world.site(apiserver(n), Site::Status(200));
    }
    world.configure(&[(apiserver(1), Source::External), (apiserver(2), Source::Static)]);
    world.run(secs(5));
    world.site(apiserver(1), Site::Ends(Outcome::NotTls));
    world.run(secs(5));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Down);
    assert!(world.carries(apiserver(1)), "a balancer may have a bad day");
}

#[test]
fn a_foreign_certificate_makes_down_at_once_and_withdraws_the_proof() {
    for outcome in [Outcome::Untrusted("another CA".into()), Outcome::WrongName("other.example".into())] {
        let mut world = World::quiet(2, 1);
        let since = world.now;
        world.site(apiserver(1), Site::Ends(outcome));
        world.run_until(secs(2), |world| !world.verdicts(apiserver(1), since).is_empty());
        assert_eq!(world.verdicts(apiserver(1), since), [Verdict::Down], "without being suspect first");
        assert!(!world.carries(apiserver(1)));
    }
}

#[test]
fn what_was_disproven_is_never_dialled_not_even_when_configured_or_while_clients_are_held() {
    let mut world = World::worker(1);
    world.site(apiserver(1), Site::Ends(Outcome::Untrusted("another CA".into())));
    world.configure(&[(apiserver(1), Source::Static)]);
    assert!(world.carries(apiserver(1)), "a person wrote it, and nothing speaks against it yet");
    world.run(RTT);
    assert!(!world.carries(apiserver(1)));
    world.tell(Event::Held(5));
    world.run(secs(5));
    world.configure(&[(apiserver(1), Source::Static), (apiserver(1), Source::External)]);
    world.record(1, &[apiserver(1)]);
    assert!(!world.carries(apiserver(1)));
}

#[test]
fn a_disproven_endpoint_that_shows_the_right_certificate_carries_again() {
    let mut world = World::quiet(2, 1);
    world.site(apiserver(1), Site::Ends(Outcome::Untrusted("another CA".into())));
    world.run(secs(5));
    world.site(apiserver(1), Site::Status(200));
    world.run(secs(10));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready);
    assert!(world.carries(apiserver(1)));
}

#[test]
fn an_expired_certificate_ranks_as_draining_is_told_and_never_cut() {
    let mut world = World::busy(2, 1);
    let since = world.now;
    world.site(apiserver(1), Site::Expired);
    world.run(secs(60));
    assert_eq!(world.ranked(), [apiserver(2), apiserver(1)]);
    assert!(world.resets(apiserver(1), since).is_empty());
    let told =
        world.since(since, |effect| matches!(effect, Effect::Notice(Notice::Expired(one)) if *one == apiserver(1)).then_some(()));
    assert_eq!(told.len(), 1, "once");
}

#[test]
fn a_certificate_that_expires_while_its_apiserver_drains_is_told_too() {
    let mut world = World::quiet(2, 1);
    world.site(apiserver(1), Site::Status(503));
    world.run(secs(3));
    let since = world.now;
    world.site(apiserver(1), Site::Expired);
    world.run(secs(3));
    let told =
        world.since(since, |effect| matches!(effect, Effect::Notice(Notice::Expired(one)) if *one == apiserver(1)).then_some(()));
    assert_eq!(told.len(), 1);
}

#[test]
fn when_all_certificates_are_expired_all_carry() {
    let mut world = World::quiet(3, 1);
    for n in 1..=3 {
        world.site(apiserver(n), Site::Expired);
    }
    world.run(secs(10));
    assert_eq!(world.best().len(), 3, "a clock without battery must not take the cluster down");
}

#[test]
fn if_all_drain_they_carry_as_if_ready() {
    let mut world = World::quiet(3, 1);
    for n in 1..=3 {
        world.site(apiserver(n), Site::Status(500));
    }
    world.run(secs(10));
    assert_eq!(world.best().len(), 3);
    assert!(world.engine.routing().answers());
}

#[test]
fn draining_never_cuts() {
    let mut world = World::busy(2, 1);
    let since = world.now;
    world.site(apiserver(1), Site::Status(503));
    world.run(secs(60));
    assert!(world.resets(apiserver(1), since).is_empty());
}

#[test]
fn local_errors_are_no_evidence() {
    let mut world = World::busy(3, 1);
    let since = world.now;
    for n in 1..=3 {
        world.site(apiserver(n), Site::Ends(Outcome::LocalError("too many open files".into())));
        world.saw(apiserver(n), Saw::LocalError("too many open files".into()));
    }
    world.run(secs(30));
    world.assert_untouched(since);
}

#[test]
fn time_outs_handled_late_are_no_evidence_and_the_probes_are_repeated_at_once() {
    for phase in (0..1300).step_by(100) {
        let mut world = World::busy(3, phase);
        world.run(ms(phase));
        let since = world.now;
        // Something is on its way when the agent stops.
        for n in 1..=3 {
            world.site(apiserver(n), Site::PausedUntil(world.now + ms(900)));
        }
        world.run(ms(890));
        world.stall(secs(10));
        for n in 1..=3 {
            world.site(apiserver(n), Site::Status(200));
            world.saw(apiserver(n), Saw::NoFirstByte { deadline: since + secs(2), hello_bytes: HELLO_BYTES });
            world.saw(apiserver(n), Saw::Overtaken { deadline: since + secs(2) });
        }
        let woke = world.now;
        world.run(secs(10));
        world.assert_untouched(since);
        for n in 1..=3 {
            assert!(world.probes(apiserver(n), woke)[0].0.since(woke) <= ms(10), "asked again at once");
        }
    }
}

#[test]
fn a_kept_connection_that_ends_is_no_evidence_and_the_probe_repeats_at_once_on_a_fresh_one() {
    let mut world = World::quiet(2, 1);
    let since = world.now;
    world.site(apiserver(1), Site::ClosedKept);
    world.run_until(secs(3), |world| world.probes(apiserver(1), since).iter().any(|(_, order)| !order.fresh));
    world.run(RTT);
    let probes = world.probes(apiserver(1), since);
    let [.., kept, repeated] = &probes[..] else { panic!("{probes:?}") };
    assert!(!kept.1.fresh && repeated.1.fresh);
    assert_eq!(repeated.0.since(kept.0), RTT);
    world.site(apiserver(1), Site::Status(200));
    world.run(secs(5));
    world.assert_untouched(since);
}

#[test]
fn a_fresh_connection_that_ends_without_an_answer_is_a_failure() {
    assert_eq!(after(Site::Ends(Outcome::Stale)), Verdict::Down);
}

#[test]
fn recovery_from_down_takes_two_successes_200_ms_apart() {
    let mut world = World::quiet(2, 1);
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run(secs(10));
    let since = world.now;
    world.site(apiserver(1), Site::Status(200));
    world.run_until(secs(2), |world| world.verdict(apiserver(1)) == Verdict::Ready);
    let probes = world.probes(apiserver(1), since);
    assert_eq!(probes.len(), 2);
    let apart = probes[1].0.since(probes[0].0);
    assert!(apart >= policy::RECOVERY_GAP && apart <= policy::RECOVERY_GAP + ms(10), "{apart:?}");
}

#[test]
fn a_failure_between_the_two_successes_starts_the_recovery_over() {
    let mut world = World::quiet(2, 1);
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run(secs(10));
    let since = world.now;
    world.site(apiserver(1), Site::Status(200));
    world.run_until(secs(2), |world| !world.probes(apiserver(1), since).is_empty());
    world.run(ms(50));
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run(ms(300));
    world.site(apiserver(1), Site::Status(200));
    let over = world.now;
    world.run_until(secs(3), |world| world.verdict(apiserver(1)) == Verdict::Ready);
    assert_eq!(world.probes(apiserver(1), over).len(), 2);
}

/// The gap between the two successes that ended the last `down`.
fn fall_and_recover(world: &mut World) -> Duration {
    world.site(apiserver(1), Site::Ends(Outcome::Refused));
    world.run_until(secs(5), |world| world.verdict(apiserver(1)) == Verdict::Down);
    let since = world.now;
    world.site(apiserver(1), Site::Status(200));
    world.run_until(secs(10), |world| world.verdict(apiserver(1)) == Verdict::Ready);
    let probes = world.probes(apiserver(1), since);
    probes[probes.len() - 1].0.since(probes[0].0)
}

#[test]
fn each_return_to_down_within_5_min_doubles_the_gap_to_3200_ms() {
    let mut world = World::quiet(2, 1);
    let gaps: Vec<u128> = (0..7).map(|_| fall_and_recover(&mut world).as_millis() / 100).collect();
    assert_eq!(gaps, [2, 4, 8, 16, 32, 32, 32], "in tenths of a second");
    world.run(secs(301));
    assert_eq!(fall_and_recover(&mut world).as_millis() / 100, 2, "forgiven after five quiet minutes");
}

#[test]
fn a_down_apiserver_that_returns_is_ready_within_an_interval_and_the_gap() {
    for seed in 0..15 {
        for site in [Site::Ends(Outcome::Refused), Site::Silent] {
            let mut world = World::quiet(3, seed);
            let silent = site == Site::Silent;
            world.site(apiserver(1), site);
            world.run(secs(10));
            world.site(apiserver(1), Site::Status(200));
            let took = world.run_until(secs(5), |world| world.verdict(apiserver(1)) == Verdict::Ready);
            let bound = longest_interval(1) + policy::RECOVERY_GAP + ms(10) + if silent { ms(20) } else { ms(0) };
            assert!(took <= bound, "seed {seed}: {took:?}");
        }
    }
}
