//! This agent's own listeners are no endpoints, whatever names them.

use super::*;

/// A listener of this agent.
fn own() -> Endpoint {
    address([10, 0, 0, 9])
}

fn listening(world: &mut World, listeners: &[Endpoint]) {
    world.tell(Event::OwnListeners(listeners.iter().copied().collect()));
}

fn known(world: &World, endpoint: Endpoint) -> bool {
    world.engine.explain(world.now).iter().any(|explained| explained.endpoint == endpoint)
}

fn refusals(world: &World) -> usize {
    let refused = |effect: &&(Moment, Effect)| matches!(effect.1, Effect::Notice(Notice::OwnListener { .. }));
    world.asked.iter().filter(refused).count()
}

fn probes_to(world: &World, endpoint: Endpoint) -> usize {
    let to = |effect: &&(Moment, Effect)| matches!(&effect.1, Effect::Probe(order) if order.endpoint == endpoint);
    world.asked.iter().filter(to).count()
}

#[test]
fn an_own_listener_is_taken_from_no_source_and_told_once() {
    type Name = fn(&mut World);
    let named_by: [(Source, Name); 5] = [
        (Source::Member, |world| world.record(1, &[own()])),
        (Source::Cached, |world| {
            let endpoints = vec![CachedEndpoint { endpoint: own(), node: None, age: secs(1) }];
            world.tell(Event::Cached { endpoints, cluster_size: 3 });
        }),
        (Source::Local, |world| world.configure(&[(own(), Source::Local)])),
        (Source::Static, |world| world.configure(&[(own(), Source::Static)])),
        (Source::External, |world| world.configure(&[(own(), Source::External)])),
    ];
    for (source, name) in named_by {
        let mut world = World::worker(1);
        world.site(own(), Site::Status(200));
        listening(&mut world, &[own()]);
        name(&mut world);
        name(&mut world);
        world.run(secs(10));
        assert!(!known(&world, own()) && world.ranked().is_empty(), "{source:?}");
        assert_eq!((refusals(&world), probes_to(&world, own())), (1, 0), "{source:?}");
        assert_eq!(world.engine.refused_listeners(), [(own(), source)]);
    }
}

#[test]
fn an_apiserver_at_another_port_of_the_same_address_is_used() {
    let mut world = World::worker(1);
    let beside = Endpoint::from(SocketAddr::new(own().addr().ip(), 7445));
    listening(&mut world, &[beside]);
    world.site(own(), Site::Status(200));
    world.record(1, &[own(), beside]);
    world.run(secs(5));
    assert_eq!(world.ranked(), [own()]);
}

#[test]
fn what_turns_out_to_be_an_own_listener_goes_though_it_be_the_last() {
    let mut world = World::worker(1);
    world.site(own(), Site::Status(200));
    world.record(1, &[own()]);
    world.run(secs(5));
    assert_eq!(world.ranked(), [own()]);
    listening(&mut world, &[own()]);
    assert!(world.ranked().is_empty() && !known(&world, own()));
    let before = probes_to(&world, own());
    world.record(1, &[own()]);
    world.run(secs(60));
    assert_eq!((refusals(&world), probes_to(&world, own())), (1, before));
}

#[test]
fn an_address_that_this_machine_has_lost_is_an_endpoint_again() {
    let mut world = World::worker(1);
    world.site(own(), Site::Status(200));
    listening(&mut world, &[own()]);
    world.record(1, &[own()]);
    world.run(secs(1));
    listening(&mut world, &[]);
    world.run(secs(5));
    assert_eq!(world.ranked(), [own()]);
    assert_eq!(world.engine.refused_listeners(), []);
    listening(&mut world, &[own()]);
    assert_eq!((refusals(&world), world.ranked()), (2, vec![]), "it is told again when it comes back");
}

#[test]
fn what_nobody_names_any_more_is_not_listed_as_refused() {
    let mut world = World::worker(1);
    listening(&mut world, &[own(), apiserver(8)]);
    world.configure(&[(own(), Source::Static)]);
    world.record(1, &[apiserver(8)]);
    assert_eq!(world.engine.refused_listeners().len(), 2);
    world.configure(&[]);
    world.record(1, &[apiserver(1)]);
    assert_eq!(world.engine.refused_listeners(), []);
}
