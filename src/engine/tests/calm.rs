//! Noise moves nothing, and a real change moves what it must.

use super::*;

/// How often the best upstreams or a verdict changed in each 10 min of half an hour, once an apiserver `ratio` times as far as
/// a 10 ms one has settled, at 20% noise on both.
fn changes(ratio: f64, seed: u64) -> Vec<usize> {
    let mut world = World::worker(seed);
    world.noise = 0.2;
    world.draws = seed * 1_000_000;
    for (n, rtt) in [(1, ms(10)), (2, ms(10).mul_f64(ratio)), (3, ms(12))] {
        world.site(apiserver(n), Site::Status(200));
        world.distance(apiserver(n), rtt);
        world.record(n, &[apiserver(n)]);
    }
    world.run(secs(60));
    let from = world.now;
    world.run(secs(1800));
    let changes =
        world.since(from, |effect| matches!(effect, Effect::Notice(Notice::Best { .. } | Notice::Verdict { .. })).then_some(()));
    (0..3).map(|tenth| changes.iter().filter(|(when, ())| when.since(from).as_secs() / 600 == tenth).count()).collect()
}

#[test]
fn noise_of_a_fifth_changes_band_or_verdict_at_most_once_in_10_min() {
    for (seed, ratio) in [1.0, 1.4, 1.6, 1.8, 2.2].into_iter().enumerate() {
        let changes = changes(ratio, seed as u64);
        assert!(changes.iter().all(|changes| *changes <= 1), "at {ratio} times the distance: {changes:?}");
    }
}

#[test]
fn a_step_from_10_to_30_ms_changes_the_band_within_5_own_intervals() {
    for nodes in [3, 200] {
        for seed in 0..5 {
            let mut world = World::worker(seed);
            world.noise = 0.2;
            for n in [1, 2] {
                world.site(apiserver(n), Site::Status(200));
                world.distance(apiserver(n), ms(10));
                world.record(n, &[apiserver(n)]);
            }
            world.tell(Event::ClusterSize(nodes));
            world.run(secs(600));
            assert_eq!(world.best().len(), 2);
            world.distance(apiserver(2), ms(30));
            world.run(5 * world.engine.probe_interval().mul_f64(1.2));
            assert_eq!(world.best(), [apiserver(1)], "{nodes} nodes, seed {seed}");
        }
    }
}

#[test]
fn one_stalled_probe_moves_nothing() {
    let mut world = World::quiet(3, 1);
    let since = world.now;
    world.distance(apiserver(1), ms(900));
    world.run_until(secs(2), |world| !world.probes(apiserver(1), since).is_empty());
    world.distance(apiserver(1), RTT);
    world.run(secs(10));
    world.assert_untouched(since);
    assert_eq!(world.best().len(), 3);
}

#[test]
fn in_quiet_nothing_is_routed_anew() {
    let mut world = World::quiet(3, 1);
    world.noise = 0.05;
    world.run(secs(5));
    let since = world.now;
    world.run(secs(600));
    let routed = world.since(since, |effect| matches!(effect, Effect::Route(_)).then_some(())).len();
    assert!(routed <= 5, "{routed}");
}
