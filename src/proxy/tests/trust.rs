//! Trust in an upstream is withdrawn.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::Play::{Answers, AnswersAfter};
use super::*;
use crate::engine::event::ResetReason;

fn withdraw(scene: &Scene, upstream: u16) {
    scene.proxy.reset(endpoint(upstream), ResetReason::TrustWithdrawn, None, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn all_that_is_forwarded_there_is_reset_and_counted_and_nothing_else() {
    let scene = Scene::of(&[(1, Answers), (2, Answers)]);
    let (mut first, of_first) = scene.served().await;
    assert_eq!(of_first, 1);
    scene.route.send_replace(ready(&[2]));
    let (mut second, of_second) = scene.served().await;
    assert_eq!(of_second, 2);
    withdraw(&scene, 1);
    assert_eq!(to_the_end(&mut first).await.1, Ended::Reset);
    assert!(timeout(ms(500), to_the_end(&mut second)).await.is_err(), "the other goes on");
    let counts = scene.proxy.stats().upstreams[&endpoint(1)].clone();
    assert_eq!(counts.resets, [(ResetReason::TrustWithdrawn, 1)].into());
}

#[tokio::test(start_paused = true)]
async fn what_was_on_trial_meanwhile_gets_no_client_until_it_is_routed_again() {
    let scene = Scene::of(&[(1, AnswersAfter(ms(100)))]);
    let mut client = scene.client();
    client.write_all(&hello()).await.expect("written");
    sleep(ms(50)).await;
    withdraw(&scene, 1);
    scene.route.send_replace(Arc::default());
    assert_eq!(to_the_end(&mut client).await.1, Ended::Reset);
    scene.route.send_replace(ready(&[1]));
    let (mut again, _) = scene.served().await;
    assert!(timeout(ms(500), to_the_end(&mut again)).await.is_err(), "it goes on");
}
