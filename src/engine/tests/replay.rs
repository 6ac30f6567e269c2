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
    world.tell(Event::ClusterSize(12));
    for n in [2, 3] {
        world.record(n, &[apiserver(n)]);
    }
    world.tell(Event::Priors([(apiserver(2).tag(), ms(4))].into()));
    world.run(secs(10));
    world.tell(Event::Connections { endpoint: apiserver(2), open: 30 });
    world.tell(Event::Loads([(apiserver(2).tag(), 90), (apiserver(3).tag(), 20)].into()));
    world.word(3, ApiserverState::Draining);
    world.saw(apiserver(5), Saw::NoFirstByte { deadline: world.now, hello_bytes: HELLO_BYTES });
    world.site(apiserver(2), Site::Silent);
    world.peers_report(&[apiserver(2)]);
    world.run(secs(8));
    world.peers_report(&[]);
    world.tell(Event::Held(3));
    world.site(apiserver(3), Site::Ends(Outcome::Untrusted("another CA".into())));
    world.run(secs(8));
    world.tell(Event::Held(0));
    world.tell(Event::Forgotten(control_plane(2)));
    world.tell(Event::Removed { node: control_plane(5) });
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

/// A log that a simulation wrote of a node in a story in which an engine once did harm. Its first line is whose engine it
/// is, the others are what it was told; what it answered is left out, since the rules may change and only the one that the test
/// names must hold. `docs/SIMULATIONS.md` says how to make one.
fn replayed(log: &str) -> World {
    let mut lines = log.lines();
    let mut world = World::node(serde_json::from_str(lines.next().expect("whose engine it is")).unwrap());
    for line in lines {
        let (when, event): (Moment, Event) = serde_json::from_str(line).unwrap();
        // Its own deadlines are the engine's of today.
        while let Some(due) = world.engine.next_deadline().filter(|due| *due <= when) {
            world.now = due.max(world.now);
            world.tell(Event::Wake);
        }
        world.now = when;
        match event {
            Event::Wake => {}
            Event::Probed(probed) => answer(&mut world, probed),
            event => drop(world.tell(event)),
        }
    }
    world
}

/// An answer goes to the probe of today's engine that waits for one longest, if there is one: it may probe at other moments than then.
fn answer(world: &mut World, probed: Probed) {
    let mut waiting: Vec<(Moment, u64)> =
        world.flying.iter().filter(|(_, it)| it.order.endpoint == probed.endpoint).map(|(key, _)| *key).collect();
    waiting.sort_unstable_by_key(|(_, id)| *id);
    let Some(flying) = waiting.first().and_then(|key| world.flying.remove(key)) else { return };
    world.tell(Event::Probed(Probed { id: flying.order.id, sent: flying.sent, fresh: flying.order.fresh, ..probed }));
}

/// When probes of it ended, and when they had been sent.
fn probed(world: &World, endpoint: Endpoint, ended: impl Fn(&Outcome) -> bool) -> Vec<(Moment, Moment)> {
    let probes = world.told.iter().filter_map(|(when, event)| match event {
        Event::Probed(probed) if probed.endpoint == endpoint && ended(&probed.outcome) => Some((*when, probed.sent)),
        _ => None,
    });
    probes.collect()
}

/// An apiserver was too slow for probes from 6 s on, and so `down`, but what it sent on open connections came, late. At 11 s it hung:
/// those connections had heard something since the first failed probe, and when only that one ordered a cut they were never cut.
#[test]
fn a_connection_that_falls_silent_while_its_endpoint_is_down_is_reset_by_a_later_failed_probe() {
    let world = replayed(include_str!("logs/falls-silent-while-down.jsonl"));
    let (down, hung) = (apiserver(1), secs_at(11));
    let failed = probed(&world, down, |outcome| !matches!(outcome, Outcome::Status { .. }));
    let resets = world.resets(down, Moment::START);
    let later = resets.iter().find(|(_, silent_since)| *silent_since >= hung);
    let (when, silent_since) = later.expect("those who have been silent since it hung are cut");
    assert!(failed.iter().any(|(_, sent)| sent == silent_since), "they were silent from a probe on that failed");
    assert!(when.since(*silent_since) >= policy::HUNG_RESET_AFTER, "and for long enough");
    assert!(when.since(hung) <= policy::HUNG_RESET_AFTER + secs(2), "soon after the first probe that was sent when it hung");
}

fn secs_at(seconds: u64) -> Moment {
    Moment::START + secs(seconds)
}
