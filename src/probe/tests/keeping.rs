//! Which connections are kept, and which are not.

use std::time::Duration;

use tokio::time::{advance, pause, resume, sleep};

use super::bench::*;
use crate::engine::event::{Outcome, ProbeOrder, Reverified};
use crate::engine::policy::{PROBE_JITTER, PROBE_RENEW};
use crate::probe::{KEPT_UNUSED, TlsProber};
use crate::world::Prober as _;

async fn kept(does: Does) -> (Authority, Server, TlsProber) {
    let authority = Authority::new();
    let server = Server::tls(authority.server(&["kubernetes", "other"], VALID).tls(), does).await;
    let prober = Bench::with_ca(&authority).prober().await;
    assert_eq!(prober.probe(order(server.endpoint)).await.outcome, answered(200));
    (authority, server, prober)
}

async fn again(prober: &TlsProber, server: &Server) -> (bool, Outcome) {
    seen(&prober.probe(order(server.endpoint)).await)
}

#[tokio::test]
async fn one_connection_serves_many_probes() {
    let (_, server, prober) = kept(Does::Answers(status(200))).await;
    for _ in 0..20 {
        assert_eq!(again(&prober, &server).await, (false, answered(200)));
    }
    assert_eq!((server.accepted(), server.requests().len()), (1, 21));
}

#[tokio::test]
async fn a_fresh_probe_drops_the_kept_connection_and_leaves_its_own() {
    let (_, server, prober) = kept(Does::Answers(status(200))).await;
    let fresh = ProbeOrder { fresh: true, ..order(server.endpoint) };
    assert_eq!(seen(&prober.probe(fresh).await), (true, answered(200)));
    assert_eq!(again(&prober, &server).await, (false, answered(200)));
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_not() {
    let (_, server, prober) = kept(Does::Answers(status(200))).await;
    let last = ProbeOrder { keep: false, ..order(server.endpoint) };
    assert_eq!(seen(&prober.probe(last).await), (false, answered(200)));
    assert_eq!(again(&prober, &server).await, (true, answered(200)));
}

#[tokio::test]
async fn a_kept_connection_that_ends_before_its_answer_is_stale_and_the_next_probe_is_fresh() {
    let (_, server, prober) = kept(Does::AnswersTheFirst(status(200))).await;
    assert_eq!(again(&prober, &server).await, (false, Outcome::Stale));
    assert_eq!(again(&prober, &server).await, (true, answered(200)));
}

#[tokio::test]
async fn a_kept_connection_that_ended_while_idle_is_stale_whatever_it_said_at_last() {
    for farewell in ["", "HTTP/1.0 408 Request Time-out\r\nContent-Length: 0\r\n\r\n", "\0\0\0"] {
        let (_, server, prober) = kept(Does::AnswersAndSays(status(200), farewell)).await;
        sleep(Duration::from_millis(60)).await;
        assert_eq!(again(&prober, &server).await, (false, Outcome::Stale), "{farewell:?}");
        assert_eq!(again(&prober, &server).await, (true, answered(200)));
    }
}

#[tokio::test]
async fn a_connection_that_the_server_said_it_would_close_is_not_kept() {
    let goodbye = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let (_, server, prober) = kept(Does::AnswersOnce(goodbye.to_owned())).await;
    assert_eq!(again(&prober, &server).await, (true, answered(200)));
}

#[tokio::test]
async fn a_body_that_does_not_come_costs_the_connection_and_not_the_answer() {
    let (_, server, prober) = kept(Does::Answers("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_owned())).await;
    assert_eq!(again(&prober, &server).await, (true, answered(200)));
}

#[tokio::test]
async fn a_chunked_body_is_read_to_its_end() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (_, server, prober) = kept(Does::Answers(chunked.to_owned())).await;
    assert_eq!(again(&prober, &server).await, (false, answered(200)));
}

#[tokio::test]
async fn a_connection_verified_for_one_name_does_not_serve_another() {
    let (_, server, prober) = kept(Does::Answers(status(200))).await;
    let other = ProbeOrder { server_name: Some("other".to_owned()), ..order(server.endpoint) };
    assert_eq!(seen(&prober.probe(other.clone()).await), (true, answered(200)));
    assert_eq!(seen(&prober.probe(other).await), (false, answered(200)));
}

#[tokio::test]
async fn connections_are_renewed_so_that_it_is_seen_when_new_ones_fail() {
    let (_, server, prober) = kept(Does::Answers(status(200))).await;
    // Often enough that it is never left alone for too long.
    let step = Duration::from_secs(40);
    let mut age = Duration::ZERO;
    while server.accepted() == 1 {
        pause();
        advance(step).await;
        resume();
        age += step;
        again(&prober, &server).await;
    }
    let (least, most) = (PROBE_RENEW.mul_f64(1.0 - PROBE_JITTER), PROBE_RENEW.mul_f64(1.0 + PROBE_JITTER) + step);
    assert!((least..=most).contains(&age), "renewed after {age:?}");
}

#[tokio::test]
async fn what_is_probed_no_more_is_dropped() {
    let (_, server, prober) = kept(Does::Answers(status(200))).await;
    pause();
    advance(KEPT_UNUSED).await;
    resume();
    assert_eq!(again(&prober, &server).await, (true, answered(200)), "left alone for too long");
    prober.forget(server.endpoint);
    assert_eq!(prober.certificates().len(), 0);
    assert_eq!(again(&prober, &server).await, (true, answered(200)), "forgotten");
}

#[tokio::test]
async fn a_new_trust_drops_what_was_verified_under_the_old_one() {
    let (authority, server, prober) = kept(Does::Answers(status(200))).await;
    assert_eq!(prober.replace(Bench::with_ca(&authority).trust().await.unwrap()).await, None, "the same CA");
    assert_eq!(again(&prober, &server).await, (true, answered(200)));
    let worth = prober.replace(Bench::with_ca(&Authority::new()).trust().await.unwrap()).await.unwrap();
    assert!(matches!(worth[&server.endpoint], Reverified::Rejected(_)), "{worth:?}");
    assert!(matches!(again(&prober, &server).await, (true, Outcome::Untrusted(_))));
}

#[tokio::test]
async fn what_was_shown_last_is_verified_against_a_new_ca_without_asking() {
    let (authority, server, prober) = kept(Does::Answers(status(200))).await;
    let (asked, bench) = (server.accepted(), Bench::with_ca(&authority));
    bench.file("ca.crt", authority.pem() + &Authority::named("new").pem());
    let worth = prober.replace(bench.trust().await.unwrap()).await.unwrap();
    assert_eq!(worth, [(server.endpoint, Reverified::Verified)].into());
    assert_eq!(server.accepted(), asked);
    let mut missing = Bench::without_ca();
    missing.config.ca = Some("/nowhere/ca.crt".into());
    let worth = prober.replace(missing.trust().await.unwrap()).await.unwrap();
    assert_eq!(worth, [(server.endpoint, Reverified::Unverified)].into());
    assert_eq!(server.accepted(), asked);
}

#[tokio::test]
async fn a_server_that_shows_another_certificate_by_now_is_not_rejected_for_the_old_one() {
    let (old, new) = (Authority::named("old"), Authority::named("new"));
    let server = Server::tls(old.server(&["kubernetes"], VALID).tls(), Does::Answers(status(200))).await;
    let prober = Bench::with_ca(&old).prober().await;
    assert_eq!(again(&prober, &server).await, (true, answered(200)));
    server.shows(new.server(&["kubernetes"], VALID).tls());
    assert_eq!(again(&prober, &server).await, (false, answered(200)), "what is kept shows nothing of it");
    let worth = prober.replace(Bench::with_ca(&new).trust().await.unwrap()).await.unwrap();
    assert_eq!(worth, [(server.endpoint, Reverified::Verified)].into());
}

#[tokio::test]
async fn the_end_of_each_certificate_is_told() {
    let (_, server, prober) = kept(Does::Answers(status(200))).await;
    let first_of_2036 = 2_082_758_400;
    assert_eq!(prober.certificates(), [(server.endpoint, first_of_2036)].into());
}

#[tokio::test]
async fn probes_of_one_endpoint_at_once_do_not_wait_for_one_another() {
    let (_, server, prober) = kept(Does::Answers(status(200))).await;
    let (one, other) = tokio::join!(again(&prober, &server), again(&prober, &server));
    assert_eq!((one.1, other.1), (answered(200), answered(200)));
    assert_eq!(server.accepted(), 2);
}
