//! Who is dialled when, who wins, and what the engine is told.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::Play::{
    Alerts, Answers, AnswersAfter, Chats, Closes, ConnectsAfter, Drops, Echoes, LocalError, Refuses, Resets, Silent, Turns,
};
use super::*;
use crate::engine::event::{Saw, Verdict};
use crate::engine::policy;
use crate::proxy::DialEnd;

#[tokio::test(start_paused = true)]
async fn the_best_upstream_serves_and_is_seen_to() {
    let mut scene = Scene::of(&[(1, Answers), (2, Answers)]);
    let (mut client, port) = scene.served().await;
    assert_eq!(port, 1);
    assert_eq!(scene.sightings(), [(1, Saw::Connected(ms(0))), (1, Saw::Answered { hello_bytes: hello_bytes() })]);
    client.write_all(b"request").await.expect("written");
    let mut echo = [0; 7];
    client.read_exact(&mut echo).await.expect("read");
    assert_eq!(&echo, b"request");
    assert_eq!(scene.proxy.connections(), [(endpoint(1), 1)].into());
    drop(client);
    sleep(ms(1)).await;
    assert!(scene.proxy.connections().is_empty());
    let counts = &scene.proxy.stats().upstreams[&endpoint(1)];
    assert_eq!((counts.opened, counts.open, counts.to_upstream, counts.to_client), (1, 0, hello().len() as u64 + 7, 7 + 7));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_reaches_no_apiserver_and_is_closed_after_ten_seconds() {
    let mut scene = Scene::of(&[(1, Answers)]);
    let begun = Instant::now();
    let mut client = scene.client();
    assert_eq!(to_the_end(&mut client).await, (vec![], Ended::Fin));
    assert_eq!(begun.elapsed(), policy::CLIENT_HELLO);
    assert!(scene.town.dialled().is_empty() && scene.sightings().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_moved_on_from_at_once() {
    let mut scene = Scene::of(&[(1, Refuses), (2, Refuses), (3, Answers)]);
    let begun = Instant::now();
    assert_eq!(scene.served().await.1, 3);
    assert_eq!(begun.elapsed(), ms(0));
    let seen = scene.sightings();
    assert_eq!(
        seen,
        [(1, Saw::Refused), (2, Saw::Refused), (3, Saw::Connected(ms(0))), (3, Saw::Answered { hello_bytes: hello_bytes() })]
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_costs_the_second_dials_delay_and_is_told_of() {
    let mut scene = Scene::of(&[(1, Drops), (2, Drops), (3, Answers)]);
    let begun = Instant::now();
    assert_eq!(scene.served().await.1, 3);
    assert_eq!(begun.elapsed(), 2 * SECOND_DIAL);
    let deadline = scene.clock.now();
    let overtaken = [(1, Saw::Overtaken { deadline }), (2, Saw::Overtaken { deadline })];
    assert_eq!(scene.sightings()[1..3], overtaken);
}

#[tokio::test(start_paused = true)]
async fn a_slow_dial_that_connects_first_wins_and_the_later_one_is_not_blamed() {
    let mut scene = Scene::of(&[(1, ConnectsAfter(ms(80))), (2, ConnectsAfter(ms(80)))]);
    assert_eq!(scene.served().await.1, 1);
    assert_eq!(scene.town.dialled(), [1, 2]);
    assert_eq!(scene.sightings(), [(1, Saw::Connected(ms(80))), (1, Saw::Answered { hello_bytes: hello_bytes() })]);
    assert_eq!(scene.proxy.stats().upstreams[&endpoint(2)].dials, [(DialEnd::Dropped, 1)].into());
}

#[tokio::test(start_paused = true)]
async fn a_dial_leaves_the_race_after_two_seconds() {
    let mut scene = Scene::of(&[(1, Drops)]);
    let _client = scene.greeter().await;
    let mut held = scene.proxy.held();
    held.wait_for(|held| *held == 1).await.expect("held");
    let deadline = scene.clock.now();
    assert_eq!(deadline.since(crate::engine::Moment::START), policy::DIAL_STAY);
    assert_eq!(scene.sightings(), [(1, Saw::DialTimedOut { deadline })]);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_was_overtaken_is_tried_again_when_the_winner_disappoints() {
    let scene = Scene::of(&[(1, ConnectsAfter(ms(60))), (2, Closes)]);
    assert_eq!(scene.served().await.1, 1);
    assert_eq!(scene.town.dialled(), [1, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_leads_to_the_dead_is_dialled_again_until_it_leads_to_the_living() {
    let scene = Scene::of(&[(1, Turns(&[Closes, Refuses, Resets, Chats, Answers]))]);
    scene.route.send_replace(with_balancer(1, &[1]));
    let begun = Instant::now();
    assert_eq!(scene.served().await.1, 1);
    assert_eq!((scene.town.dialled().len(), begun.elapsed()), (5, ms(0)));
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_leads_to_nobody_is_dialled_again_after_all_others_and_then_the_client_is_held() {
    let scene = Scene::of(&[(1, Closes), (2, Refuses), (3, Closes)]);
    scene.route.send_replace(with_balancer(1, &[1, 2, 3]));
    let _client = scene.greeter().await;
    let mut held = scene.proxy.held();
    held.wait_for(|held| *held == 1).await.expect("held");
    assert_eq!(scene.town.dialled(), [1, 2, 3, 1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_balancer_is_dialled_once() {
    let scene = Scene::of(&[(1, Drops)]);
    scene.route.send_replace(with_balancer(1, &[1]));
    let _client = scene.greeter().await;
    let mut held = scene.proxy.held();
    held.wait_for(|held| *held == 1).await.expect("held");
    assert_eq!(scene.town.dialled(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_hung_upstreams_hello_goes_to_the_next_one_byte_for_byte() {
    let mut scene = Scene::of(&[(1, Silent), (2, Answers)]);
    let begun = Instant::now();
    let (client, port) = scene.served().await;
    assert_eq!((port, begun.elapsed()), (2, FIRST_BYTE));
    let deadline = scene.clock.now();
    assert_eq!(scene.sightings()[1], (1, Saw::NoFirstByte { deadline, hello_bytes: hello_bytes() }));
    sleep(ms(1)).await;
    let visits = scene.town.visits();
    assert_eq!((&visits[0].got, &visits[1].got), (&hello(), &hello()));
    assert_eq!(visits[0].ended, Some(Ended::Fin), "losers are closed in an orderly way");
    assert_eq!(scene.proxy.stats().replays, 1);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_hello_of_ten_kilobytes_is_replayed_like_any_other() {
    let long = hello_with(&(1_000..3_000).collect::<Vec<_>>());
    let scene = Scene::of(&[(1, Silent), (2, Answers)]);
    let mut client = scene.client();
    client.write_all(&long).await.expect("written");
    assert_eq!(answer(&mut client).await.expect("an answer"), 2);
    assert_eq!(scene.town.visits_to(2)[0].got, long);
}

#[tokio::test(start_paused = true)]
async fn a_late_first_upstream_still_wins_if_it_answers_first() {
    let scene = Scene::of(&[(1, AnswersAfter(ms(550))), (2, AnswersAfter(ms(100)))]);
    assert_eq!(scene.served().await.1, 1);
    sleep(ms(100)).await;
    assert_eq!(scene.town.visits_to(2)[0].ended, Some(Ended::Fin));
}

#[tokio::test(start_paused = true)]
async fn a_hello_is_replayed_twice_at_most_and_then_waits_for_as_long_as_the_client_likes() {
    let scene = Scene::of(&[(1, AnswersAfter(ms(60_000))), (2, Silent), (3, Silent), (4, Answers)]);
    let begun = Instant::now();
    assert_eq!(scene.served().await.1, 1);
    assert_eq!(begun.elapsed(), ms(60_000));
    assert_eq!(scene.town.dialled(), [1, 2, 3]);
    let counts = scene.proxy.stats();
    assert_eq!((counts.replays, counts.holds), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn replays_end_when_the_bucket_is_empty() {
    let scene = Scene::of(&[(1, Silent), (2, Silent), (3, Silent)]);
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(scene.greeter().await);
    }
    sleep(ms(5_000)).await;
    let counts = scene.proxy.stats();
    assert_eq!(counts.replays, 10, "nine connections bring less than one more token");
    assert_eq!(counts.replays_refused, 8, "one of the nine had its second");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_token_moves_on_when_there_is_one_again() {
    let scene = Scene::of(&[(1, Silent), (2, Silent), (3, Silent)]);
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(scene.greeter().await);
    }
    sleep(ms(5_000)).await;
    scene.town.now_plays(2, Answers);
    scene.town.now_plays(3, Answers);
    let begun = Instant::now();
    // Each ten new connections bring a token.
    scene.route.send_replace(ready(&[2, 3]));
    for _ in 0..20 {
        scene.served().await;
    }
    sleep(ms(2_000)).await;
    let counts = scene.proxy.stats();
    assert!(counts.replays >= 11, "{} replays, {:?} later", counts.replays, begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_hello_in_pieces_is_forwarded_once_it_is_whole_and_its_answer_is_due_from_then_on() {
    let scene = Scene::of(&[(1, Silent), (2, Answers)]);
    let mut client = scene.client();
    for byte in hello() {
        client.write_all(&[byte]).await.expect("written");
        sleep(ms(20)).await;
    }
    let whole = Instant::now() - ms(20);
    assert_eq!(answer(&mut client).await.expect("an answer"), 2);
    assert_eq!(whole.elapsed(), FIRST_BYTE);
}

#[tokio::test(start_paused = true)]
async fn early_data_is_never_sent_twice() {
    let mut scene = Scene::of(&[(1, Silent), (2, Answers)]);
    let mut client = scene.client();
    client.write_all(&hello_with(&[42])).await.expect("written");
    sleep(ms(5_000)).await;
    assert_eq!(scene.town.dialled(), [1]);
    assert!(matches!(scene.sightings()[1], (1, Saw::NoFirstByte { .. })), "its silence is told all the same");
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_hello_is_never_sent_twice() {
    let scene = Scene::of(&[(1, Silent), (2, Answers)]);
    let mut client = scene.greeter().await;
    client.write_all(b"more").await.expect("written");
    sleep(ms(5_000)).await;
    assert_eq!(scene.town.dialled(), [1]);
    assert_eq!(scene.town.visits()[0].got, [hello(), b"more".to_vec()].concat());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_more_after_a_replay_goes_on_with_the_newest_upstream() {
    let scene = Scene::of(&[(1, Silent), (2, AnswersAfter(ms(100)))]);
    let mut client = scene.greeter().await;
    sleep(ms(550)).await;
    client.write_all(b"more").await.expect("written");
    assert_eq!(answer(&mut client).await.expect("an answer"), 2);
    assert_eq!(scene.town.visits_to(1)[0].got, hello());
    assert_eq!(scene.town.visits_to(2)[0].got, [hello(), b"more".to_vec()].concat());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_tls_is_carried_to_one_upstream_and_any_first_byte_wins() {
    let mut scene = Scene::of(&[(1, Refuses), (2, Echoes), (3, Answers)]);
    let mut client = scene.client();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("written");
    client.shutdown().await.expect("half-closed");
    assert_eq!(to_the_end(&mut client).await, (b"GET / HTTP/1.0\r\n\r\n".to_vec(), Ended::Fin));
    assert_eq!(scene.town.dialled(), [1, 2]);
    assert_eq!(scene.sightings(), [(1, Saw::Refused), (2, Saw::Connected(ms(0)))]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_tls_is_carried_however_long_it_is_before_the_answer() {
    let scene = Scene::of(&[(1, Silent), (2, Answers)]);
    let mut client = scene.client();
    let sent: Vec<u8> = (0..7).cycle().take(100_000).collect();
    client.write_all(&sent).await.expect("written");
    sleep(ms(1)).await;
    assert_eq!(scene.town.visits()[0].got, sent);
}

#[tokio::test(start_paused = true)]
async fn a_close_or_a_reset_that_cannot_be_made_good_is_passed_on_as_such() {
    for (play, ended) in [(Closes, Ended::Fin), (Resets, Ended::Reset)] {
        let mut scene = Scene::of(&[(1, play), (2, Answers)]);
        let mut client = scene.client();
        client.write_all(b"junk").await.expect("written");
        assert_eq!(to_the_end(&mut client).await, (vec![], ended));
        assert_eq!(scene.sightings(), [(1, Saw::Connected(ms(0)))], "junk blames no apiserver");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_or_a_reset_before_the_first_byte_is_moved_on_from_at_once_and_free() {
    let mut scene = Scene::of(&[(1, Closes), (2, Resets), (3, Answers)]);
    let begun = Instant::now();
    assert_eq!(scene.served().await.1, 3);
    assert_eq!(begun.elapsed(), ms(0));
    let seen = scene.sightings();
    assert!(
        seen.contains(&(1, Saw::ClosedEarly { hello_bytes: hello_bytes() }))
            && seen.contains(&(2, Saw::ClosedEarly { hello_bytes: hello_bytes() }))
    );
    assert_eq!(scene.proxy.stats().replays, 0);
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_passed_on_only_when_nobody_is_left() {
    let scene = Scene::of(&[(1, Alerts), (2, Answers)]);
    assert_eq!(scene.served().await.1, 2);

    let mut scene = Scene::of(&[(1, Alerts), (2, Refuses)]);
    let mut client = scene.greeter().await;
    let mut said = [0; 7];
    client.read_exact(&mut said).await.expect("the alert");
    assert_eq!(said, ALERT);
    assert_eq!(scene.sightings(), [(1, Saw::Connected(ms(0))), (2, Saw::Refused)], "an alert is no answer");
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_passed_on_though_whoever_said_it_is_down_by_then() {
    let scene = Scene::of(&[(1, Alerts), (2, Silent)]);
    let mut client = scene.greeter().await;
    sleep(ms(100)).await;
    scene.town.now_plays(3, Refuses);
    scene.route.send_replace(ranked(&[(3, Verdict::Suspect), (2, Verdict::Down), (1, Verdict::Down)]));
    let mut said = [0; 7];
    client.read_exact(&mut said).await.expect("the alert");
    assert_eq!((said, scene.town.dialled()), (ALERT, vec![1, 2, 3]));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_tls_is_moved_on_from_and_told() {
    let mut scene = Scene::of(&[(1, Chats), (2, Answers)]);
    assert_eq!(scene.served().await.1, 2);
    assert!(scene.sightings().contains(&(1, Saw::NotTls)));

    let mut scene = Scene::of(&[(1, Chats)]);
    let mut client = scene.client();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("written");
    client.read_exact(&mut [0; 4]).await.expect("HTTP");
    assert_eq!(scene.sightings(), [(1, Saw::Connected(ms(0)))], "who asks in plain text is answered in plain text");
}

#[tokio::test(start_paused = true)]
async fn where_all_answer_with_what_is_not_tls_the_client_is_held_and_not_told() {
    let scene = Scene::of(&[(1, Chats)]);
    let mut client = scene.client();
    client.write_all(&hello()).await.expect("written");
    sleep(ms(1_000)).await;
    assert_eq!(*scene.proxy.held().borrow(), 1);
    scene.town.now_plays(1, Answers);
    scene.proxy.release();
    client.read_exact(&mut [0; 4]).await.expect("the handshake");
}

#[tokio::test(start_paused = true)]
async fn moving_on_from_an_answer_that_is_no_handshake_is_free_though_the_bucket_be_empty() {
    for play in [Alerts, Chats] {
        let scene = Scene::of(&[(1, play), (2, play), (3, play), (4, Answers)]);
        for _ in 0..12 {
            assert_eq!(scene.served().await.1, 4, "{play:?}");
        }
        let counts = scene.proxy.stats();
        assert_eq!((counts.replays, counts.replays_refused), (0, 0), "{play:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_hello_blames_no_apiserver() {
    let mut scene = Scene::of(&[(1, Answers), (2, Answers)]);
    let mut client = scene.client();
    let begun = Instant::now();
    sleep(ms(4_000)).await;
    client.write_all(&hello()[..20]).await.expect("written");
    sleep(ms(4_000)).await;
    client.write_all(&hello()[20..40]).await.expect("written");
    assert_eq!(to_the_end(&mut client).await, (vec![], Ended::Fin));
    assert_eq!(begun.elapsed(), policy::CLIENT_HELLO, "from when it was accepted, however often it says a little");
    assert_eq!((scene.sightings(), scene.town.dialled()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn trouble_of_this_node_is_told_as_such() {
    let mut scene = Scene::of(&[(1, LocalError), (2, Answers)]);
    assert_eq!(scene.served().await.1, 2);
    assert!(matches!(scene.sightings()[0], (1, Saw::LocalError(_))));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_its_race_without_evidence() {
    let mut scene = Scene::of(&[(1, Silent), (2, Answers)]);
    let client = scene.greeter().await;
    sleep(ms(100)).await;
    drop(client);
    sleep(ms(5_000)).await;
    assert_eq!(scene.town.dialled(), [1]);
    assert_eq!(scene.town.visits()[0].ended, Some(Ended::Fin));
    assert_eq!(scene.sightings(), [(1, Saw::Connected(ms(0)))]);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_becomes_down_before_its_first_byte_is_moved_on_from_at_once_and_free() {
    let scene = Scene::of(&[(1, Silent), (2, Answers)]);
    let mut client = scene.greeter().await;
    sleep(ms(100)).await;
    scene.route.send_replace(ranked(&[(2, Verdict::Ready), (1, Verdict::Down)]));
    assert_eq!(answer(&mut client).await.expect("an answer"), 2);
    assert_eq!((scene.town.visits()[1].after, scene.proxy.stats().replays), (ms(100), 0));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_left_is_moved_on_from_too() {
    let scene = Scene::of(&[(1, Silent), (2, Answers)]);
    let mut client = scene.greeter().await;
    sleep(ms(100)).await;
    scene.route.send_replace(ready(&[2]));
    assert_eq!(answer(&mut client).await.expect("an answer"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_down_is_waited_for_when_there_is_no_other() {
    let scene = Scene::of(&[(1, AnswersAfter(ms(3_000))), (2, Refuses)]);
    let mut client = scene.greeter().await;
    sleep(ms(1_000)).await;
    scene.route.send_replace(ranked(&[(1, Verdict::Down), (2, Verdict::Down)]));
    assert_eq!(answer(&mut client).await.expect("an answer"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_was_down_when_it_was_dialled_is_not_left_for_one_that_refused_this_race() {
    let scene = Scene::of(&[(1, AnswersAfter(ms(1_000))), (2, Refuses)]);
    scene.route.send_replace(ranked(&[(2, Verdict::Suspect), (1, Verdict::Down)]));
    let mut client = scene.greeter().await;
    for _ in 0..9 {
        sleep(ms(100)).await;
        scene.route.send_replace(ranked(&[(2, Verdict::Suspect), (1, Verdict::Down)]));
    }
    assert_eq!(answer(&mut client).await.expect("an answer"), 1);
    assert_eq!(scene.town.dialled(), [2, 1], "once each");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_becomes_down_is_not_left_for_one_that_refused_this_race() {
    let scene = Scene::of(&[(1, Refuses), (2, AnswersAfter(ms(400)))]);
    let mut client = scene.greeter().await;
    sleep(ms(100)).await;
    scene.route.send_replace(ranked(&[(1, Verdict::Suspect), (2, Verdict::Down)]));
    assert_eq!(answer(&mut client).await.expect("an answer"), 2);
    assert_eq!(scene.town.dialled(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_was_down_when_it_was_dialled_may_still_answer_first_when_another_one_comes() {
    for (late, winner) in [(ms(400), 1), (ms(800), 2)] {
        let scene = Scene::of(&[(1, AnswersAfter(late)), (2, AnswersAfter(ms(200)))]);
        scene.route.send_replace(ranked(&[(1, Verdict::Down)]));
        let mut client = scene.greeter().await;
        sleep(ms(300)).await;
        scene.route.send_replace(ranked(&[(2, Verdict::Ready), (1, Verdict::Down)]));
        assert_eq!(answer(&mut client).await.expect("an answer"), winner);
        assert_eq!((scene.town.dialled(), scene.proxy.stats().replays), (vec![1, 2], 0));
    }
}

#[tokio::test(start_paused = true)]
async fn who_refused_this_race_and_answers_again_is_tried_again_instead_of_one_that_is_down() {
    let scene = Scene::of(&[(1, Refuses), (2, Silent)]);
    let mut client = scene.greeter().await;
    sleep(ms(100)).await;
    scene.route.send_replace(ranked(&[(1, Verdict::Suspect), (2, Verdict::Down)]));
    sleep(ms(100)).await;
    scene.town.now_plays(1, Answers);
    scene.route.send_replace(ranked(&[(1, Verdict::Ready), (2, Verdict::Down)]));
    let begun = Instant::now();
    assert_eq!(answer(&mut client).await.expect("an answer"), 1);
    assert_eq!((begun.elapsed(), scene.proxy.stats().replays), (ms(0), 0));
}

#[tokio::test(start_paused = true)]
async fn who_left_the_routing_while_being_dialled_gets_no_client_byte() {
    let scene = Scene::of(&[(1, ConnectsAfter(ms(100)))]);
    let mut client = scene.greeter().await;
    sleep(ms(20)).await;
    scene.town.now_plays(2, Answers);
    scene.route.send_replace(ready(&[2]));
    assert_eq!(answer(&mut client).await.expect("an answer"), 2);
    sleep(ms(200)).await;
    assert!(scene.town.visits_to(1)[0].got.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_routing_that_changes_during_the_race_is_followed() {
    let scene = Scene::of(&[(1, Drops)]);
    let mut client = scene.greeter().await;
    sleep(ms(1_000)).await;
    scene.town.now_plays(2, Answers);
    scene.route.send_replace(ready(&[1, 2]));
    let begun = Instant::now();
    assert_eq!(answer(&mut client).await.expect("an answer"), 2);
    assert_eq!(begun.elapsed(), ms(0));
}
