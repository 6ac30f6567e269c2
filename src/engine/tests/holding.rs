//! Hold: nothing answers, clients wait, and every endpoint is asked often.

use super::*;

fn outage(nodes: u32, seed: u64) -> World {
    let mut world = World::quiet(3, seed);
    world.tell(Event::ClusterSize(nodes));
    world.run(secs(60));
    for n in 1..=3 {
        world.site(apiserver(n), Site::Ends(Outcome::Refused));
    }
    world.run(secs(40));
    world
}

fn releases(world: &World, since: Moment) -> Vec<Moment> {
    world.since(since, |effect| matches!(effect, Effect::Release).then_some(())).into_iter().map(|(when, ())| when).collect()
}

#[test]
fn while_clients_are_held_every_endpoint_is_probed_each_500_ms_or_n_hundredths_of_a_second() {
    for (nodes, apart) in [(5, ms(500)), (200, ms(2000))] {
        let mut world = outage(nodes, 1);
        world.record(9, &[apiserver(9)]);
        world.tell(Event::Held(1));
        let since = world.now + apart;
        world.run(secs(40));
        for n in [1, 2, 3] {
            for pair in world.probes(apiserver(n), since).windows(2) {
                assert_eq!(pair[1].0.since(pair[0].0), apart, "{nodes} nodes");
            }
        }
    }
}

#[test]
fn when_nobody_is_held_any_more_the_ordinary_interval_returns() {
    let mut world = outage(5, 1);
    world.tell(Event::Held(1));
    world.run(secs(5));
    world.tell(Event::Held(0));
    let since = world.now;
    world.run(secs(20));
    assert!(world.probes(apiserver(1), since).len() <= 26);
}

#[test]
fn while_clients_are_held_one_success_is_enough_and_releases_them() {
    for seed in 0..10 {
        let mut world = outage(5, seed);
        world.tell(Event::Held(7));
        world.run(secs(3));
        let back = world.now;
        world.site(apiserver(2), Site::Status(200));
        let took = world.run_until(secs(2), |world| world.verdict(apiserver(2)) == Verdict::Ready);
        assert!(took <= ms(510), "{took:?}");
        assert_eq!(world.probes(apiserver(2), back).len(), 1);
        assert_eq!(releases(&world, back).len(), 1);
        let route = world.since(back, |effect| matches!(effect, Effect::Route(_) | Effect::Release).then(|| effect.clone()));
        assert!(matches!(route[0].1, Effect::Route(_)), "who is released finds the new routing there: {route:?}");
    }
}

#[test]
fn after_each_answer_while_clients_are_held_they_are_released_again() {
    let mut world = outage(5, 1);
    world.tell(Event::Held(500));
    world.site(apiserver(2), Site::Status(200));
    let back = world.now;
    world.run(secs(5));
    let (answers, released) = (world.probes(apiserver(2), back).len(), releases(&world, back).len());
    assert!(released >= 8 && released <= answers, "{released} of {answers}");
}

#[test]
fn an_upstream_that_answers_a_client_releases_the_held_too() {
    let mut world = outage(5, 1);
    world.tell(Event::Held(5));
    let since = world.now;
    world.saw(apiserver(1), Saw::Connected(ms(1)));
    assert!(releases(&world, since).is_empty(), "a connect is not an answer");
    world.saw(apiserver(1), Saw::Answered { hello_bytes: HELLO_BYTES });
    assert_eq!(releases(&world, since), [since]);
}

#[test]
fn an_apiserver_that_answers_draining_releases_the_held() {
    let mut world = outage(5, 1);
    world.tell(Event::Held(5));
    world.site(apiserver(2), Site::Status(500));
    let since = world.now;
    world.run(secs(1));
    assert!(!releases(&world, since).is_empty());
    assert_eq!(world.best(), [apiserver(2)]);
}

#[test]
fn while_a_client_waits_at_a_hung_balancer_nobody_who_never_answered_stays_on_its_back_off() {
    let mut world = World::worker(1);
    world.configure(&[(apiserver(9), Source::External)]);
    for n in 1..=3 {
        world.site(apiserver(n), Site::Ends(Outcome::Refused));
        world.record(n, &[apiserver(n)]);
    }
    world.run(secs(1200));
    let since = world.now;
    world.saw(apiserver(9), Saw::NoFirstByte { deadline: world.now, hello_bytes: HELLO_BYTES });
    world.run(secs(2));
    world.site(apiserver(2), Site::Status(200));
    world.run(world.engine.probe_interval() + policy::RECOVERY_GAP + ms(10));
    assert_eq!(world.best(), [apiserver(2)]);
    world.run(secs(600));
    let probes = world.probes(apiserver(1), since).len();
    assert!(probes <= 13, "{probes} probes: the back-off goes on when the client must have given up");
}

#[test]
fn as_soon_as_something_answers_the_back_off_goes_on() {
    let mut world = World::quiet(1, 1);
    world.site(apiserver(2), Site::Ends(Outcome::Refused));
    world.record(2, &[apiserver(2)]);
    world.run(secs(1200));
    let since = world.now;
    world.saw(apiserver(1), Saw::NoFirstByte { deadline: world.now, hello_bytes: HELLO_BYTES });
    world.run(secs(9));
    assert!(world.probes(apiserver(2), since).len() <= 2, "while the one that answers was suspect, until its prompted probe");
}

#[test]
fn nobody_is_released_when_nobody_is_held() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    world.run(secs(10));
    assert!(releases(&world, since).is_empty());
}
