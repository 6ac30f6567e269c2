//! The same events give the same effects, byte for byte: a log of production replays as a test.

use super::*;

/// A story with some of everything.
fn story(seed: u64) -> World {
    let mut world = World::node(Identity { name: "cp-1".into(), advertised: vec![apiserver(1)], seed });
    let local = address([127, 0, 0, 1]);
    world.noise = 0.3;
    world.tell(Event::Cached { endpoints: vec![cached(apiserver(5), Some(control_plane(5)), secs(5))], cluster_size: 30 });
    world.site(local, Site::Status(200));
    for n in 2..=5 {
        world.site(apiserver(n), Site::Status(200));
    }
    world.configure(&[(local, Source::Local), (apiserver(4), Source::External)]);
    world.tell(Event::Members(live(12)));
    for n in [2, 3] {
        world.record(n, &[apiserver(n)]);
        world.tell(Event::PeerRoundTrip { node: control_plane(n), rtt: ms(n.into()) });
    }
    world.report("peer", apiserver(2), Verdict::Ready, Some(ms(4)));
    world.run(secs(10));
    world.tell(Event::Connections { endpoint: apiserver(2), open: 30 });
    world.tell(Event::Loads([(apiserver(2).tag(), 90), (apiserver(3).tag(), 20)].into()));
    world.word(3, ApiserverState::Draining);
    world.saw(apiserver(5), Saw::NoFirstByte { deadline: world.now });
    world.site(apiserver(2), Site::Silent);
    world.run(secs(8));
    world.tell(Event::Held(3));
    world.site(apiserver(3), Site::Ends(Outcome::Untrusted("another CA".into())));
    world.run(secs(8));
    world.tell(Event::Held(0));
    world.tell(Event::Forgotten(control_plane(2)));
    world.record(3, &[apiserver(33)]);
    world.site(apiserver(33), Site::Expired);
    world.run(secs(70));
    world
}

/// A log as it is written: a line an event.
fn written(told: &[(Moment, Event)]) -> String {
    told.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
}

fn effects_of(log: &str, seed: u64) -> String {
    let mut engine = Engine::new(Identity { name: "cp-1".into(), advertised: vec![apiserver(1)], seed });
    let mut effects = String::new();
    for line in log.lines() {
        let (when, event): (Moment, Event) = serde_json::from_str(line).unwrap();
        for effect in engine.handle(when, event) {
            effects += &serde_json::to_string(&(when, effect)).unwrap();
            effects.push('\n');
        }
    }
    effects
}

#[test]
fn a_written_log_replays_to_the_same_effects_byte_for_byte() {
    let world = story(7);
    let log = written(&world.told);
    let asked: String = world.asked.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    assert!(world.asked.len() > 500, "the story is long enough to mean something");
    assert_eq!(effects_of(&log, 7), asked);
    assert_eq!(effects_of(&log, 7), effects_of(&log, 7));
}

#[test]
fn another_seed_is_another_timing() {
    let log = |seed| written(&story(seed).told);
    assert_ne!(log(7), log(8));
}

#[test]
fn every_event_and_effect_survives_being_written_and_read() {
    let world = story(7);
    for line in &world.told {
        let read: (Moment, Event) = serde_json::from_str(&serde_json::to_string(line).unwrap()).unwrap();
        assert_eq!(&read, line);
    }
    for line in &world.asked {
        let read: (Moment, Effect) = serde_json::from_str(&serde_json::to_string(line).unwrap()).unwrap();
        assert_eq!(&read, line);
    }
}

#[test]
fn a_clock_that_goes_back_counts_as_standing_still() {
    let mut world = World::quiet(3, 1);
    let before = world.engine.next_deadline();
    let effects = world.engine.handle(Moment::START, Event::Wake);
    assert_eq!((effects, world.engine.next_deadline()), (Vec::new(), before));
}

#[test]
fn waking_too_early_does_nothing() {
    let mut world = World::quiet(3, 1);
    for _ in 0..100 {
        assert!(world.tell(Event::Wake).is_empty());
    }
}
