//! Which clients are held, for how long, and how they are let go; and which connections are reset.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::Play::{Answers, AnswersOnce, Closes, ClosesAfter, ConnectsAfter, LocalError, Refuses, Silent};
use super::*;
use crate::engine::event::{ResetReason, Saw};
use crate::engine::policy;
use crate::engine::{Moment, Routing};
use crate::proxy::TurnedAway;

#[tokio::test(start_paused = true)]
async fn a_client_is_held_while_nobody_answers_and_served_on_release() {
    let scene = Scene::of(&[(1, Refuses), (2, Closes), (3, LocalError)]);
    let mut client = scene.greeter().await;
    sleep(ms(3_000)).await;
    assert_eq!(*scene.proxy.held().borrow(), 1);
    assert_eq!(scene.town.dialled(), [1, 2, 3], "the held do not dial");
    scene.town.now_plays(2, Answers);
    scene.proxy.release();
    let begun = Instant::now();
    assert_eq!(answer(&mut client).await.expect("an answer"), 2);
    assert_eq!((begun.elapsed(), *scene.proxy.held().borrow()), (ms(0), 0));
}

#[tokio::test(start_paused = true)]
async fn with_an_empty_routing_clients_are_held_and_the_routing_is_read_anew() {
    let scene = Scene::of(&[(1, Answers)]);
    scene.route.send_replace(Routing::default().into());
    let mut client = scene.greeter().await;
    sleep(ms(1_000)).await;
    scene.route.send_replace(ready(&[1]));
    sleep(ms(1_000)).await;
    assert_eq!(*scene.proxy.held().borrow(), 1);
    scene.proxy.release();
    assert_eq!(answer(&mut client).await.expect("an answer"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_held_client_is_reset_eight_seconds_after_its_first_byte_whatever_happens_meanwhile() {
    let scene = Scene::of(&[(1, Refuses)]);
    let mut client = scene.client();
    sleep(ms(5_000)).await;
    client.write_all(&hello()).await.expect("written");
    let begun = Instant::now();
    for _ in 0..3 {
        sleep(ms(1_000)).await;
        scene.proxy.release();
    }
    assert_eq!(to_the_end(&mut client).await, (vec![], Ended::Reset));
    assert_eq!(begun.elapsed(), policy::HOLD);
    let counts = scene.proxy.stats();
    assert_eq!((scene.town.dialled().len(), counts.holds), (4, 4));
    assert_eq!((counts.turned_away, counts.held), ([(TurnedAway::HoldOver, 1)].into(), 0));
}

#[tokio::test(start_paused = true)]
async fn the_held_are_let_go_in_order_thirty_two_at_a_time() {
    let scene = Scene::with(&[(1, Refuses)], 1_000, 10_000);
    let mut clients = Vec::new();
    for _ in 0..80 {
        clients.push(scene.greeter().await);
        sleep(ms(1)).await;
    }
    scene.town.now_plays(1, Answers);
    let before = scene.town.visits().len();
    let begun = scene.clock.now().since(Moment::START);
    scene.proxy.release();
    for client in &mut clients[..32] {
        answer(client).await.expect("an answer");
    }
    assert_eq!(scene.clock.now().since(Moment::START), begun, "the first 32 at once");
    for client in &mut clients[32..] {
        answer(client).await.expect("an answer");
    }
    let after: Vec<u128> = scene.town.visits()[before..].iter().map(|visit| (visit.after - begun).as_millis()).collect();
    let pause = policy::RELEASE_PAUSE.as_millis();
    assert_eq!(after, [vec![0; 32], vec![pause; 32], vec![2 * pause; 16]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_release_during_the_race_is_not_missed() {
    let scene = Scene::of(&[(1, Refuses), (2, ConnectsAfter(ms(10_000)))]);
    let mut client = scene.greeter().await;
    sleep(ms(1_000)).await;
    // The client has tried the first one already, and waits for the second.
    scene.town.now_plays(1, Answers);
    scene.proxy.release();
    let begun = Instant::now();
    assert_eq!(answer(&mut client).await.expect("an answer"), 1);
    assert_eq!(begun.elapsed(), ms(1_000), "when the second has left the race");
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_race_missed_a_release_releases_itself_only() {
    let scene = Scene::with(&[(1, Refuses), (2, Refuses)], 1_000, 10_000);
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(scene.greeter().await);
    }
    sleep(ms(100)).await;
    scene.town.now_plays(2, ClosesAfter(ms(1_000)));
    for _ in 0..21 {
        clients.push(scene.greeter().await);
        sleep(ms(20)).await;
    }
    scene.town.now_plays(2, Refuses);
    scene.proxy.release();
    sleep(ms(300)).await;
    let before = scene.town.dialled().len();
    sleep(ms(1_000)).await;
    assert_eq!(scene.town.dialled().len() - before, 21 * 2, "each late one dials both again, and no other client does");
    assert_eq!(*scene.proxy.held().borrow(), 221);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_finds_nobody_lets_nobody_go_later() {
    let scene = Scene::of(&[(1, Refuses)]);
    scene.proxy.release();
    let _client = scene.greeter().await;
    sleep(ms(1_000)).await;
    assert_eq!((scene.town.dialled().len(), *scene.proxy.held().borrow()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn at_most_1024_are_held_and_who_goes_away_frees_its_place_at_once() {
    let scene = Scene::with(&[(1, Refuses)], 10_000, 10_000);
    let mut clients = Vec::new();
    for _ in 0..policy::HELD_CLIENTS {
        clients.push(scene.greeter().await);
    }
    sleep(ms(1)).await;
    assert_eq!(*scene.proxy.held().borrow(), 1024);
    let mut surplus = scene.greeter().await;
    assert_eq!(to_the_end(&mut surplus).await, (vec![], Ended::Reset));
    assert_eq!(scene.proxy.stats().turned_away[&TurnedAway::HoldFull], 1);
    clients.pop();
    sleep(ms(1)).await;
    assert_eq!(*scene.proxy.held().borrow(), 1023);
    clients.push(scene.greeter().await);
    sleep(ms(1)).await;
    assert_eq!(*scene.proxy.held().borrow(), 1024);
    clients.clear();
    sleep(ms(1)).await;
    assert_eq!((*scene.proxy.held().borrow(), scene.proxy.stats().clients), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_upstream_is_silent_is_not_held() {
    let scene = Scene::of(&[(1, Silent)]);
    let _client = scene.greeter().await;
    sleep(ms(60_000)).await;
    let counts = scene.proxy.stats();
    assert_eq!((counts.holds, counts.clients), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn connections_are_reset_for_a_hang_if_all_of_them_are_silent() {
    let scene = Scene::of(&[(1, Answers)]);
    let mut first = scene.served().await.0;
    let mut second = scene.served().await.0;
    sleep(ms(1_000)).await;
    let failed_probe = scene.clock.now();
    sleep(ms(10)).await;
    scene.proxy.reset(endpoint(2), ResetReason::Hung, Some(failed_probe), ms(1_000));
    scene.proxy.reset(endpoint(1), ResetReason::Hung, Some(failed_probe), ms(1_000));
    assert_eq!(to_the_end(&mut first).await, (vec![], Ended::Reset));
    assert_eq!(to_the_end(&mut second).await, (vec![], Ended::Reset));
    assert_eq!(scene.proxy.stats().upstreams[&endpoint(1)].resets, [(ResetReason::Hung, 2)].into());
    assert_eq!(scene.town.visits()[0].ended, Some(Ended::Reset), "the upstream is told, too");
}

/// Such is a process without descriptors, or a balancer that has as many connections as it may: it accepts nobody, and serves on.
#[tokio::test(start_paused = true)]
async fn no_connection_is_reset_for_a_hang_while_one_to_the_same_endpoint_receives() {
    let scene = Scene::of(&[(1, Answers)]);
    let mut silent = scene.served().await.0;
    let mut lively = scene.served().await.0;
    sleep(ms(1_000)).await;
    let failed_probe = scene.clock.now();
    sleep(ms(10)).await;
    lively.write_all(b"alive").await.expect("written");
    let mut echo = [0; 5];
    lively.read_exact(&mut echo).await.expect("read");
    scene.proxy.reset(endpoint(1), ResetReason::Hung, Some(failed_probe), ms(1_000));
    sleep(ms(5_000)).await;
    for client in [&mut silent, &mut lively] {
        client.write_all(b"alive").await.expect("still carried");
        client.read_exact(&mut echo).await.expect("still carried");
    }
    assert!(scene.proxy.stats().upstreams[&endpoint(1)].resets.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nor_where_one_that_has_ended_received_something() {
    let scene = Scene::of(&[(1, Answers)]);
    let mut silent = scene.served().await.0;
    let mut lively = scene.served().await.0;
    sleep(ms(1_000)).await;
    let failed_probe = scene.clock.now();
    sleep(ms(10)).await;
    lively.write_all(b"alive").await.expect("written");
    let mut echo = [0; 5];
    lively.read_exact(&mut echo).await.expect("read");
    drop(lively);
    sleep(ms(10)).await;
    assert_eq!(scene.proxy.connections(), [(endpoint(1), 1)].into());
    scene.proxy.reset(endpoint(1), ResetReason::Hung, Some(failed_probe), ms(1_000));
    sleep(ms(5_000)).await;
    silent.write_all(b"alive").await.expect("still carried");
    silent.read_exact(&mut echo).await.expect("still carried");
    assert!(scene.proxy.stats().upstreams[&endpoint(1)].resets.is_empty());
    scene.proxy.reset(endpoint(1), ResetReason::Hung, Some(scene.clock.now()), ms(1_000));
    assert_eq!(to_the_end(&mut silent).await, (vec![], Ended::Reset), "what fell silent after that is reset");
}

#[tokio::test(start_paused = true)]
async fn where_trust_is_withdrawn_every_connection_is_reset() {
    let scene = Scene::of(&[(1, Answers)]);
    let mut lively = scene.served().await.0;
    lively.write_all(b"alive").await.expect("written");
    lively.read_exact(&mut [0; 5]).await.expect("read");
    scene.proxy.reset(endpoint(1), ResetReason::TrustWithdrawn, None, ms(0));
    assert_eq!(to_the_end(&mut lively).await, (vec![], Ended::Reset));
    assert_eq!(scene.proxy.stats().upstreams[&endpoint(1)].resets, [(ResetReason::TrustWithdrawn, 1)].into());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_on_asking_without_an_answer_is_told_once_and_left_alone() {
    let mut scene = Scene::of(&[(1, AnswersOnce)]);
    let mut asks = scene.served().await.0;
    scene.sightings();
    for _ in 0..5 {
        asks.write_all(b"alive?").await.expect("written");
        sleep(ms(5_000)).await;
    }
    assert_eq!(scene.sightings(), [(1, Saw::Unanswered)]);
    assert_eq!(scene.proxy.connections(), [(endpoint(1), 1)].into());
}

#[tokio::test(start_paused = true)]
async fn resets_are_spread_and_what_hears_something_meanwhile_is_spared() {
    let scene = Scene::of(&[(1, Answers)]);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(scene.served().await.0);
    }
    sleep(ms(5)).await;
    let begun = Instant::now();
    scene.proxy.reset(endpoint(1), ResetReason::Hung, Some(scene.clock.now()), ms(1_000));
    let (mut last, mut one_but_last) = (clients.pop().expect("ten"), clients.pop().expect("nine"));
    for (turn, client) in (0_u64..).zip(&mut clients) {
        assert_eq!(to_the_end(client).await, (vec![], Ended::Reset));
        assert_eq!(begun.elapsed(), ms(100 * turn));
    }
    last.write_all(b"alive").await.expect("written");
    let mut echo = [0; 5];
    last.read_exact(&mut echo).await.expect("read");
    sleep(ms(1_000)).await;
    assert_eq!(scene.proxy.stats().upstreams[&endpoint(1)].resets, [(ResetReason::Hung, 8)].into());
    one_but_last.write_all(b"alive").await.expect("whatever answers the last one lives");
    one_but_last.read_exact(&mut echo).await.expect("read");
}
