//! What is trusted changes, or cannot be told.

use super::*;

fn worth(of: &[(Endpoint, Reverified)]) -> Event {
    Event::TrustChanged(of.iter().cloned().collect())
}

fn rejected() -> Reverified {
    Reverified::Rejected("not signed by the cluster's CA".into())
}

impl World {
    /// Endpoints whose connections were reset since because trust was withdrawn, all of them and at once.
    fn withdrawn(&self, since: Moment) -> Vec<(Moment, Endpoint)> {
        self.since(since, |effect| match effect {
            Effect::Reset { endpoint, reason: ResetReason::TrustWithdrawn, silent_since: None, over: Duration::ZERO } => {
                Some(*endpoint)
            }
            _ => None,
        })
    }
}

#[test]
fn what_a_new_ca_rejects_is_unverified_and_reset_at_once_and_nothing_else_is() {
    let mut world = World::busy(3, 1);
    let since = world.now;
    world.site(apiserver(1), Site::Ends(Outcome::Untrusted("not signed by the cluster's CA".into())));
    world.tell(worth(&[(apiserver(1), rejected()), (apiserver(2), Reverified::Verified), (apiserver(3), Reverified::Verified)]));
    assert_eq!(world.withdrawn(since), [(since, apiserver(1))]);
    assert_eq!(world.verdict(apiserver(1)), Verdict::Unproven);
    assert!(!world.carries(apiserver(1)));
    assert_eq!(world.best(), [apiserver(2), apiserver(3)]);
    assert_eq!(world.probes(apiserver(1), since).len(), 1, "and it is probed at once");
    world.run(secs(2));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Down);
    assert_eq!(world.withdrawn(since).len(), 1, "once");
    assert_eq!(world.verdicts(apiserver(2), since), []);
}

#[test]
fn a_routine_rotation_changes_nothing() {
    let mut world = World::busy(3, 1);
    let since = world.now;
    for _ in ["old and new", "new"] {
        world.tell(worth(&[1, 2, 3].map(|n| (apiserver(n), Reverified::Verified))));
        world.run(secs(10));
    }
    world.assert_untouched(since);
    assert_eq!(world.withdrawn(since), []);
}

#[test]
fn a_probe_that_was_sent_before_the_ca_changed_verifies_nothing() {
    let mut world = World::quiet(2, 1);
    world.distance(apiserver(1), ms(200));
    world.run_until(secs(5), |world| world.flying.values().any(|flying| flying.order.endpoint == apiserver(1)));
    world.tell(worth(&[(apiserver(1), rejected()), (apiserver(2), Reverified::Verified)]));
    world.site(apiserver(1), Site::Silent);
    let (key, flying) = world.flying.pop_first().unwrap();
    world.now = key.0;
    world.tell(Event::Probed(Probed {
        id: key.1,
        endpoint: apiserver(1),
        sent: flying.sent,
        fresh: true,
        rtt: Some(ms(200)),
        handshake: None,
        hello_bytes: 0,
        outcome: Outcome::Status { code: 200, expired: false },
    }));
    assert!(!world.carries(apiserver(1)));
}

#[test]
fn what_can_no_longer_be_verified_is_left_alone_and_gets_no_new_clients() {
    let mut world = World::busy(2, 1);
    world.configure(&[(apiserver(2), Source::Static)]);
    world.run(secs(2));
    let since = world.now;
    let lack = Lack::Ca("the CA file cannot be read".into());
    for n in [1, 2] {
        world.site(apiserver(n), Site::Ends(Outcome::Unverified { code: 200, lack: lack.clone() }));
    }
    world.tell(worth(&[(apiserver(1), Reverified::Unverified)]));
    world.run(secs(10));
    assert_eq!(world.withdrawn(since), []);
    assert!(!world.carries(apiserver(1)), "only gossip names it");
    assert!(world.carries(apiserver(2)), "the configuration names it");
    world.site(apiserver(1), Site::Status(200));
    world.site(apiserver(2), Site::Status(200));
    world.tell(worth(&[(apiserver(1), Reverified::Verified), (apiserver(2), Reverified::Verified)]));
    world.run(ms(10));
    assert!(world.carries(apiserver(1)), "as soon as the CA is there");
    assert_eq!(world.verdict(apiserver(2)), Verdict::Ready);
}

#[test]
fn where_an_algorithm_cannot_be_verified_only_what_is_configured_carries_and_it_is_told_once() {
    let mut world = World::worker(1);
    let ends = Site::Ends(Outcome::Unverified { code: 200, lack: Lack::Algorithm("RSASSA-PSS".into()) });
    world.site(apiserver(1), ends.clone());
    world.site(apiserver(2), ends);
    world.configure(&[(apiserver(1), Source::Static)]);
    world.record(2, &[apiserver(2)]);
    world.run(secs(20));
    assert_eq!([1, 2].map(|n| world.carries(apiserver(n))), [true, false]);
    assert_eq!([1, 2].map(|n| world.verdict(apiserver(n))), [Verdict::Unproven; 2]);
    for n in [1, 2] {
        let told = world.since(Moment::START, |effect| match effect {
            Effect::Notice(Notice::UnsupportedAlgorithm { endpoint, algorithm, .. }) if *endpoint == apiserver(n) => {
                Some(algorithm.clone())
            }
            _ => None,
        });
        assert_eq!(told.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), ["RSASSA-PSS"]);
        assert!(world.explained(apiserver(n)).unwrap().reasons.iter().any(|reason| reason.contains("RSASSA-PSS")));
    }
    let probes = world.probes(apiserver(2), Moment::START).len();
    assert!(probes < 8, "what gossip names and nobody can verify is probed ever less often: {probes}");
    world.site(apiserver(1), Site::Silent);
    world.run(secs(10));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Down, "its health is known all the same");
}

#[test]
fn what_cannot_be_verified_makes_room_for_what_can() {
    let mut world = World::worker(1);
    let lack = Lack::Algorithm("RSASSA-PSS".into());
    let all: Vec<Endpoint> = (0..64).map(|host| address([10, 1, 0, host])).collect();
    for (n, eight) in (100..).zip(all.chunks(8)) {
        for endpoint in eight {
            world.site(*endpoint, Site::Ends(Outcome::Unverified { code: 200, lack: lack.clone() }));
        }
        world.record(n, eight);
    }
    world.run(secs(10));
    world.site(apiserver(1), Site::Status(200));
    world.record(1, &[apiserver(1)]);
    world.run(secs(2));
    assert!(world.carries(apiserver(1)));
}

fn networks(of: &[&str]) -> Event {
    Event::Allowed(of.iter().map(|network| network.parse().unwrap()).collect())
}

#[test]
fn a_narrower_allow_removes_what_is_outside_and_resets_it_even_the_last_one() {
    let mut world = World::busy(2, 1);
    let since = world.now;
    world.tell(networks(&["10.0.0.2/32"]));
    assert!(!world.knows(apiserver(1)) && world.knows(apiserver(2)));
    assert_eq!(world.withdrawn(since), [(since, apiserver(1))]);
    assert!(!world.carries(apiserver(1)));
    world.tell(networks(&["192.0.2.0/24"]));
    assert!(!world.knows(apiserver(2)), "not even the last verified one stays");
    world.tell(networks(&[]));
    world.record(1, &[apiserver(1)]);
    world.run(secs(1));
    assert!(world.carries(apiserver(1)), "allowed again, it is learnt again");
}

#[test]
fn what_is_configured_need_not_be_allowed_until_only_gossip_names_it() {
    let mut world = World::busy(2, 1);
    world.configure(&[(apiserver(1), Source::Static)]);
    world.tell(networks(&["10.0.0.2/32"]));
    assert!(world.carries(apiserver(1)));
    let since = world.now;
    world.configure(&[]);
    assert!(!world.knows(apiserver(1)));
    assert_eq!(world.withdrawn(since).len(), 1);
}

#[test]
fn neither_gossip_nor_the_cache_brings_what_is_not_allowed() {
    let mut world = World::worker(1);
    world.tell(networks(&["10.0.0.2/32"]));
    world.tell(Event::Cached {
        endpoints: vec![cached(apiserver(1), None, secs(60)), cached(apiserver(2), None, secs(60))],
        cluster_size: 3,
    });
    world.record(3, &[apiserver(3)]);
    assert_eq!([1, 2, 3].map(|n| world.knows(apiserver(n))), [false, true, false]);
}

#[test]
fn a_wider_allow_takes_what_a_record_names_that_was_told_before() {
    let mut world = World::quiet(2, 1);
    world.tell(networks(&["10.0.0.2/32"]));
    assert!(!world.knows(apiserver(1)));
    world.tell(networks(&["10.0.0.0/8"]));
    world.run(secs(1));
    assert!(world.carries(apiserver(1)), "its member has nothing new to tell");
    let mut world = World::worker(1);
    world.site(apiserver(1), Site::Status(200));
    world.tell(networks(&["192.0.2.0/24"]));
    world.record(1, &[apiserver(1)]);
    world.tell(networks(&[]));
    world.run(secs(1));
    assert!(world.carries(apiserver(1)), "the record came before the wider list");
}
