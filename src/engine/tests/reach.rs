//! Destinations that the kernel finds no way to: the path's fault while others connect, this node's own where nothing does.

use super::*;

fn forbidden() -> Site {
    Site::Ends(Outcome::Unreachable("EPERM: Operation not permitted (os error 1)".into()))
}

#[test]
fn what_cannot_be_reached_while_others_answer_is_down_and_explain_names_the_errno() {
    let mut world = World::busy(3, 1);
    world.site(apiserver(1), forbidden());
    world.run_until(secs(6), |world| world.verdict(apiserver(1)) == Verdict::Down);
    assert!(world.explained(apiserver(1)).unwrap().reasons.iter().any(|reason| reason.contains("EPERM")));
    assert_eq!(world.best(), [apiserver(2), apiserver(3)]);
    world.site(apiserver(1), Site::Status(200));
    world.run(secs(10));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready, "and comes back as any other");
    assert!(!world.explained(apiserver(1)).unwrap().reasons.iter().any(|reason| reason.contains("EPERM")));
}

#[test]
fn what_could_never_be_reached_is_not_called_unprobed_for_ever() {
    let mut world = World::worker(1);
    world.site(apiserver(1), forbidden());
    world.site(apiserver(2), Site::Status(200));
    world.configure(&[(apiserver(1), Source::Static), (apiserver(2), Source::Static)]);
    world.run(secs(6));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Down);
    assert!(world.explained(apiserver(1)).unwrap().reasons[1].contains("EPERM"));
}

#[test]
fn where_nothing_connects_this_node_is_to_blame_and_its_trouble_is_shown() {
    let mut world = World::busy(3, 1);
    let since = world.now;
    for n in 1..=3 {
        world.site(apiserver(n), forbidden());
        world.saw(apiserver(n), Saw::Unreachable("EPERM: Operation not permitted (os error 1)".into()));
    }
    world.run(secs(60));
    world.assert_untouched(since);
    for n in 1..=3 {
        assert!(world.explained(apiserver(n)).unwrap().reasons.iter().any(|reason| reason.contains("EPERM")), "{n}");
    }
}

#[test]
fn a_dial_that_finds_no_way_is_a_doubt_as_soon_as_another_connects() {
    let mut world = World::quiet(2, 1);
    world.saw(apiserver(1), Saw::Unreachable("EACCES: Permission denied (os error 13)".into()));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Ready, "not yet: it may be this node");
    world.run(ms(1));
    world.saw(apiserver(2), Saw::Connected(ms(1)));
    assert_eq!(world.verdict(apiserver(1)), Verdict::Suspect);
    assert!(world.explained(apiserver(1)).unwrap().reasons.iter().any(|reason| reason.contains("EACCES")));
}

#[test]
fn what_this_node_could_not_try_is_shown_and_held_against_nothing() {
    let mut world = World::busy(2, 1);
    let since = world.now;
    world.site(apiserver(1), Site::Ends(Outcome::LocalError("EMFILE: Too many open files (os error 24)".into())));
    world.run(secs(20));
    world.assert_untouched(since);
    assert!(world.explained(apiserver(1)).unwrap().reasons.iter().any(|reason| reason.contains("EMFILE")));
}
