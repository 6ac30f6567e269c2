//! An administrator removes a node from the cluster.

use super::*;

fn remove(world: &mut World, n: u8) {
    world.tell(Event::Removed { node: control_plane(n) });
}

#[test]
fn a_removed_nodes_endpoint_gets_no_new_connections_and_nothing_is_reset() {
    let mut world = World::busy(3, 1);
    let since = world.now;
    remove(&mut world, 1);
    assert_eq!(world.ranked().len(), 2, "at once, although it answers");
    assert!(!world.carries(apiserver(1)));
    world.run(secs(600));
    world.assert_untouched(since);
    assert!(!world.probes(apiserver(1), since).is_empty(), "it is watched while it has connections");
    world.tell(Event::Connections { endpoint: apiserver(1), open: 0 });
    assert!(!world.knows(apiserver(1)), "and forgotten with the last one");
}

#[test]
fn the_endpoint_of_a_node_that_was_forgotten_before_is_removed_too() {
    let mut world = World::quiet(2, 1);
    world.tell(Event::Forgotten(control_plane(1)));
    assert!(world.carries(apiserver(1)), "it answers");
    remove(&mut world, 1);
    assert!(!world.carries(apiserver(1)));
}

#[test]
fn an_endpoint_that_only_the_cache_knew_is_removed_and_not_kept_for_the_next_start() {
    let mut world = World::worker(1);
    let of = |n: u8| cached(apiserver(n), Some(control_plane(n)), secs(60));
    for n in 1..=2 {
        world.site(apiserver(n), Site::Status(200));
    }
    world.tell(Event::Cached { endpoints: vec![of(1), of(2)], cluster_size: 2 });
    world.run(secs(5));
    let since = world.now;
    remove(&mut world, 1);
    assert_eq!(world.ranked(), [apiserver(2)]);
    let kept = world.since(since, |effect| match effect {
        Effect::Remember { endpoints, .. } => Some(endpoints.iter().map(|one| one.endpoint).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(kept.last().map(|(_, kept)| &kept[..]), Some(&[apiserver(2)][..]));
}

#[test]
fn the_last_verified_endpoint_stays_until_another_is_verified() {
    let mut world = World::quiet(2, 1);
    for n in 1..=2 {
        remove(&mut world, n);
    }
    world.run(secs(600));
    assert_eq!(world.ranked(), [apiserver(2)]);
    world.site(apiserver(3), Site::Status(200));
    world.record(3, &[apiserver(3)]);
    world.run(secs(1));
    assert_eq!(world.ranked(), [apiserver(3)]);
}

#[test]
fn a_removed_node_that_joins_again_is_used_again() {
    let mut world = World::quiet(2, 1);
    remove(&mut world, 1);
    assert!(!world.carries(apiserver(1)));
    world.record(1, &[apiserver(1)]);
    assert!(world.carries(apiserver(1)), "gossip passes on a record only if it is newer than the removal");
}

#[test]
fn an_endpoint_that_is_configured_or_named_by_another_node_too_stays() {
    let mut world = World::quiet(3, 1);
    world.configure(&[(apiserver(1), Source::Static)]);
    world.record(3, &[apiserver(2), apiserver(3)]);
    for n in 1..=2 {
        remove(&mut world, n);
    }
    assert_eq!(world.ranked().len(), 3);
    world.configure(&[]);
    world.run(secs(1));
    assert!(!world.carries(apiserver(1)), "what the configuration no longer names leaves");
}

#[test]
fn a_removed_node_takes_no_endpoint_with_it_that_another_node_named_first() {
    let mut world = World::quiet(3, 1);
    world.record(66, &[apiserver(1)]);
    world.tell(Event::Forgotten(control_plane(1)));
    remove(&mut world, 66);
    world.run(secs(60));
    assert!(world.carries(apiserver(1)));
}
