//! Too many clients, an accept that fails, a bug in a task, an engine that does not listen.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::Play::{Answers, Echoes, Panics, Refuses, Silent};
use super::*;
use crate::engine::{Moment, policy};
use crate::proxy::TurnedAway;

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_the_longest_waiting_silent_clients_go_first() {
    let scene = Scene::with(&[(1, Answers)], 3, 100);
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(scene.client());
        sleep(ms(1)).await;
    }
    let begun = Instant::now();
    let (_first, _second) = (scene.served().await, scene.served().await);
    for client in &mut silent[..2] {
        assert_eq!(to_the_end(client).await, (vec![], Ended::Reset));
    }
    assert_eq!(begun.elapsed(), ms(0));
    silent[2].write_all(&hello()).await.expect("written");
    assert_eq!(answer(&mut silent[2]).await.expect("an answer"), 1);
    assert_eq!(scene.proxy.stats().turned_away, [(TurnedAway::Evicted, 2)].into());
}

#[tokio::test(start_paused = true)]
async fn half_a_hello_or_what_is_no_tls_keeps_no_place_before_it_is_answered() {
    for said in [&hello()[..25], b"G"] {
        let scene = Scene::with(&[(1, Silent)], 3, 100);
        let mut first = Vec::new();
        for _ in 0..3 {
            let mut client = scene.client();
            client.write_all(said).await.expect("written");
            sleep(ms(1)).await;
            first.push(client);
        }
        scene.town.now_plays(1, Answers);
        assert_eq!(scene.served().await.1, 1);
        assert_eq!(to_the_end(&mut first[0]).await, (vec![], Ended::Reset));
        assert_eq!(scene.proxy.stats().turned_away, [(TurnedAway::Evicted, 1)].into());
        for client in &mut first[1..] {
            to_the_end(client).await;
        }
        assert_eq!(scene.clock.now().since(Moment::START).as_secs(), policy::CLIENT_HELLO.as_secs());
        assert_eq!(scene.proxy.stats().turned_away[&TurnedAway::Silent], 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_tls_and_was_answered_stays() {
    let scene = Scene::with(&[(1, Echoes)], 1, 100);
    let mut client = scene.client();
    client.write_all(b"GET").await.expect("written");
    client.read_exact(&mut [0; 3]).await.expect("the echo");
    let mut surplus = scene.greeter().await;
    assert_eq!(to_the_end(&mut surplus).await, (vec![], Ended::Reset));
    sleep(ms(60_000)).await;
    client.write_all(b"GET").await.expect("still carried");
    client.read_exact(&mut [0; 3]).await.expect("still carried");
}

#[tokio::test(start_paused = true)]
async fn when_everyone_is_busy_newcomers_are_reset() {
    let scene = Scene::with(&[(1, Answers)], 2, 100);
    let first = scene.served().await;
    let _second = scene.served().await;
    let mut surplus = scene.greeter().await;
    assert_eq!(to_the_end(&mut surplus).await, (vec![], Ended::Reset));
    assert_eq!(scene.proxy.stats().turned_away, [(TurnedAway::Full, 1)].into());
    drop(first);
    sleep(ms(1)).await;
    assert_eq!(scene.served().await.1, 1, "relief is seen at once");
    sleep(ms(1)).await;
    let counts = scene.proxy.stats();
    assert_eq!((counts.clients, counts.accepted), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn errors_of_accept_are_counted_and_end_nothing() {
    let scene = Scene::of(&[(1, Answers)]);
    for kind in [io::ErrorKind::Other, io::ErrorKind::OutOfMemory, io::ErrorKind::ConnectionAborted] {
        scene.door.send(Err(kind.into())).expect("the listener is open");
    }
    assert_eq!(scene.served().await.1, 1);
    assert!(scene.proxy.beat().await);
    assert_eq!(scene.proxy.stats().accept_errors, 3);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_counted_and_harms_nobody() {
    let scene = Scene::of(&[(1, Answers), (2, Answers)]);
    let mut bystander = scene.served().await.0;
    scene.town.now_plays(1, Panics);
    let mut victim = scene.greeter().await;
    to_the_end(&mut victim).await;
    scene.town.now_plays(1, Answers);
    assert_eq!(scene.served().await.1, 1);
    bystander.write_all(b"alive").await.expect("still carried");
    sleep(ms(1)).await;
    let counts = scene.proxy.stats();
    assert_eq!((counts.panics, counts.clients), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_listen_delays_no_client() {
    let mut scene = Scene::with(&[(1, Refuses), (2, Answers)], 100, 1);
    assert_eq!(scene.served().await.1, 2);
    assert_eq!((scene.proxy.stats().sightings_dropped, scene.sightings().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_counts_of_upstreams_that_came_and_went_do_not_pile_up() {
    let scene = Scene::of(&[(1, Answers)]);
    let _client = scene.served().await;
    for port in 100..1_000 {
        scene.town.now_plays(port, Answers);
        scene.route.send_replace(ready(&[port]));
        scene.served().await;
    }
    let counts = scene.proxy.stats().upstreams;
    assert!(counts.len() <= 256, "{} are kept", counts.len());
    assert_eq!(counts[&endpoint(1)].open, 1);
}
