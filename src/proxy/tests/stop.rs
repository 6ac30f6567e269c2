//! How the proxy stops, and that it shows when it turns.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Play::{Answers, Refuses, Silent};
use super::*;
use crate::engine::policy;

#[tokio::test(start_paused = true)]
async fn with_nobody_connected_it_stops_at_once() {
    let scene = Scene::of(&[(1, Answers)]);
    assert!(scene.proxy.beat().await);
    let begun = Instant::now();
    scene.proxy.stop(policy::DRAIN, CancellationToken::new()).await;
    assert_eq!(begun.elapsed(), ms(0));
    assert!(scene.door.is_closed());
    assert!(scene.proxy.beat().await, "a stopped proxy is no stuck one");
}

#[tokio::test(start_paused = true)]
async fn newcomers_are_served_until_the_drain_ends_and_none_that_came_in_time_fails() {
    let scene = Scene::of(&[(1, Answers)]);
    let mut old = scene.served().await.0;
    let proxy = scene.proxy.clone();
    let begun = Instant::now();
    let stopped = tokio::spawn(async move { proxy.stop(policy::DRAIN, CancellationToken::new()).await });
    sleep(ms(4_600)).await;
    let mut young = scene.served().await.0;
    let mut quick = scene.client();
    sleep(ms(399)).await;
    let mut last = scene.client();
    assert_eq!(to_the_end(&mut old).await, (vec![], Ended::Reset));
    assert_eq!(begun.elapsed(), policy::DRAIN);
    quick.write_all(&hello()).await.expect("written");
    last.write_all(&hello()).await.expect("written");
    assert_eq!((answer(&mut quick).await.ok(), answer(&mut last).await.ok()), (Some(1), Some(1)));
    drop(quick);
    assert_eq!(to_the_end(&mut young).await, (vec![], Ended::Reset));
    assert_eq!(begun.elapsed(), ms(4_600) + policy::DRAIN_YOUNG);
    assert_eq!(to_the_end(&mut last).await, (vec![], Ended::Reset));
    assert_eq!(begun.elapsed(), ms(4_999) + policy::DRAIN_YOUNG);
    stopped.await.expect("stopped");
    assert_eq!((scene.proxy.stats().clients, begun.elapsed()), (0, ms(4_999) + policy::DRAIN_YOUNG));
}

#[tokio::test(start_paused = true)]
async fn the_drain_ends_early_when_no_connection_is_left() {
    let scene = Scene::of(&[(1, Answers)]);
    let client = scene.served().await.0;
    let proxy = scene.proxy.clone();
    let begun = Instant::now();
    let stopped = tokio::spawn(async move { proxy.stop(policy::DRAIN, CancellationToken::new()).await });
    sleep(ms(700)).await;
    drop(client);
    stopped.await.expect("stopped");
    assert_eq!(begun.elapsed(), ms(700));
}

#[tokio::test(start_paused = true)]
async fn who_is_queued_when_the_listener_closes_is_still_served() {
    let scene = Scene::of(&[(1, Answers)]);
    let mut clients: Vec<MemStream> = (0..10).map(|_| scene.client()).collect();
    let hurry = CancellationToken::new();
    let proxy = scene.proxy.clone();
    let stopped = tokio::spawn(async move { proxy.stop(ms(0), hurry).await });
    for client in &mut clients {
        client.write_all(&hello()).await.expect("written");
        assert_eq!(answer(client).await.expect("an answer"), 1);
    }
    drop(clients);
    stopped.await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_everything_at_once() {
    for after in [ms(300), ms(5_100)] {
        let scene = Scene::of(&[(1, Answers), (2, Silent)]);
        let proxy = scene.proxy.clone();
        let hurry = CancellationToken::new();
        let begun = Instant::now();
        let second_signal = hurry.clone();
        let stopped = tokio::spawn(async move { proxy.stop(policy::DRAIN, hurry).await });
        let mut old = scene.served().await.0;
        sleep(after.saturating_sub(ms(200))).await;
        let young = if after < policy::DRAIN { Some(scene.served().await.0) } else { None };
        sleep(after - begun.elapsed()).await;
        second_signal.cancel();
        stopped.await.expect("stopped");
        assert!(begun.elapsed() <= after);
        if let Some(mut client) = young {
            assert_eq!(to_the_end(&mut client).await, (vec![], Ended::Reset));
        }
        assert_eq!(to_the_end(&mut old).await, (vec![], Ended::Reset));
    }
}

#[tokio::test(start_paused = true)]
async fn the_held_and_the_waiting_are_reset_when_the_drain_is_over() {
    let scene = Scene::of(&[(1, Refuses)]);
    let proxy = scene.proxy.clone();
    let mut held = scene.greeter().await;
    let mut silent = scene.client();
    sleep(ms(1)).await;
    let begun = Instant::now();
    let stopped = tokio::spawn(async move { proxy.stop(policy::DRAIN, CancellationToken::new()).await });
    assert_eq!(to_the_end(&mut held).await, (vec![], Ended::Reset));
    assert_eq!(to_the_end(&mut silent).await, (vec![], Ended::Reset));
    assert_eq!(begun.elapsed(), policy::DRAIN);
    stopped.await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_is_delivered_to_who_has_time_left() {
    let scene = Scene::of(&[(1, Answers)]);
    let mut client = scene.served().await.0;
    let proxy = scene.proxy.clone();
    tokio::spawn(async move { proxy.stop(ms(10), CancellationToken::new()).await });
    sleep(ms(500)).await;
    client.write_all(b"request").await.expect("written");
    let mut echo = [0; 7];
    client.read_exact(&mut echo).await.expect("served though the listener is closed");
}
