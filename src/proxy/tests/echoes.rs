//! Hellos that come back, as where two agents have each other for an endpoint.

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use super::Play::{Answers, Refuses, Silent};
use super::*;
use crate::engine::event::Verdict::{Down, Ready};
use crate::engine::policy;
use crate::proxy::TurnedAway;

#[tokio::test(start_paused = true)]
async fn a_hello_that_comes_back_goes_elsewhere_the_second_time() {
    let scene = Scene::of(&[(1, Silent), (2, Answers), (3, Answers)]);
    let _first = scene.greeter().await;
    sleep(ms(10)).await;
    assert_eq!(scene.served().await.1, 2, "the first has it already");
    let mut other = scene.client();
    other.write_all(&hello_with(&[0, 43, 51])).await.expect("written");
    sleep(ms(10)).await;
    assert_eq!(scene.town.dialled(), [1, 2, 1], "another hello goes to the best");
    assert_eq!(scene.proxy.stats().repeated_hellos, 1);
    assert_eq!(scene.served().await.1, 2, "one that was answered is under way no more");
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_comes_back_goes_to_no_worse_upstream_for_that() {
    let scene = Scene::of(&[(1, Silent), (2, Refuses)]);
    scene.route.send_replace(ranked(&[(1, Ready), (2, Down)]));
    let _clients = (scene.greeter().await, scene.greeter().await);
    sleep(ms(10)).await;
    assert_eq!(scene.town.dialled(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn of_one_hello_64_are_forwarded_at_a_time_and_the_others_wait_for_their_turn() {
    let scene = Scene::with(&[(1, Silent)], 1_000, 10_000);
    let mut clients = Vec::new();
    for _ in 0..66 {
        clients.push(scene.greeter().await);
        sleep(ms(1)).await;
    }
    assert_eq!(scene.town.dialled().len(), 64);
    let begun = Instant::now();
    drop(clients.remove(0));
    sleep(ms(1)).await;
    assert_eq!(scene.town.dialled().len(), 65);
    let (bytes, ended) = to_the_end(&mut clients[64]).await;
    assert_eq!((bytes, ended), (vec![], Ended::Reset));
    assert!(begun.elapsed() < policy::HOLD);
    assert_eq!(scene.proxy.stats().turned_away, [(TurnedAway::HoldOver, 1)].into());
    clients.clear();
    sleep(ms(1)).await;
    scene.town.now_plays(1, Answers);
    assert_eq!(scene.served().await.1, 1);
}
