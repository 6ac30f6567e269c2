//! How a probe introduces itself, and what is wrong with its files.

use std::path::PathBuf;
use std::time::Duration;

use super::bench::*;
use crate::config::ProbeCredentials;
use crate::engine::event::{Lack, Outcome, ProbeOrder};
use crate::probe::Before;
use crate::world::Prober as _;

#[tokio::test]
async fn a_token_is_read_again_for_each_new_connection_and_an_unreadable_one_remembered() {
    let authority = Authority::new();
    let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::Answers(status(200))).await;
    let bench = Bench::with_ca(&authority).with_token("first\n");
    let prober = bench.prober().await;
    let fresh = ProbeOrder { fresh: true, ..order(server.endpoint) };
    prober.probe(fresh.clone()).await;
    let path = bench.file("token", "second");
    prober.probe(order(server.endpoint)).await;
    prober.probe(fresh.clone()).await;
    std::fs::remove_file(path).unwrap();
    assert_eq!(prober.probe(fresh).await.outcome, answered(200));
    let said = |request: String| request.split_once("authorization: ").unwrap().1.split('\r').next().unwrap().to_owned();
    let tokens: Vec<_> = server.requests().into_iter().map(said).collect();
    assert_eq!(tokens, ["Bearer first", "Bearer first", "Bearer second", "Bearer second"]);
}

#[tokio::test]
async fn a_token_is_never_shown_to_a_stranger() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::tls(theirs.server(&["kubernetes"], VALID).tls(), Does::Answers(status(200))).await;
    assert!(matches!(Bench::with_ca(&ours).with_token("secret").outcome(server.endpoint).await, Outcome::Untrusted(_)));
    assert_eq!(server.requests(), [""; 0]);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks_for_one() {
    let authority = Authority::new();
    let tls = authority.server(&["kubernetes"], VALID).tls_asking(&authority);
    let server = Server::tls(tls, Does::Answers(status(200))).await;
    let mut bench = Bench::with_ca(&authority);
    assert_eq!(bench.outcome(server.endpoint).await, Outcome::Refused, "anonymous");
    let (cert, key) = authority.client();
    bench.config.probe_credentials =
        Some(ProbeCredentials::Certificate { cert: bench.file("client.crt", cert), key: bench.file("client.key", key) });
    assert_eq!(bench.outcome(server.endpoint).await, answered(200));
}

async fn problem(bench: &Bench) -> String {
    bench.trust().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_bad_ca_file_is_told_with_its_name_and_what_would_be_right() {
    let authority = Authority::new();
    let bench = Bench::with_ca(&authority);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut_off = authority.pem().split_at(200).0.to_owned();
    for (content, says) in [
        (String::new(), "no certificate"),
        ("hello".to_owned(), "no certificate"),
        (authority.client().1, "no certificate"),
        (broken.to_owned(), "certificate 1 of 1 cannot be used"),
        (cut_off, "it has no end"),
        ("x".repeat(2 << 20), "more than"),
    ] {
        bench.file("ca.crt", &content);
        let problem = problem(&bench).await;
        assert!(problem.contains(says) && problem.contains("ca.crt"), "{problem}");
    }
}

#[tokio::test]
async fn without_the_ca_that_is_to_be_there_nothing_is_verified_and_no_token_is_sent() {
    let authority = Authority::new();
    let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::Answers(status(200))).await;
    let mut bench = Bench::with_ca(&authority).with_token("secret");
    let known = bench.trust().await.unwrap();
    bench.config.ca = Some(PathBuf::from("/nowhere/ca.crt"));
    let missing = bench.trust().await.unwrap();
    assert!(!missing.has_ca() && missing.problem().unwrap().contains("/nowhere/ca.crt"), "{:?}", missing.problem());
    let outcome = bench.outcome(server.endpoint).await;
    assert!(
        matches!(&outcome, Outcome::Unverified { code: 200, lack: Lack::Ca(why) } if why.contains("/nowhere")),
        "{outcome:?}"
    );
    assert!(server.requests().iter().all(|request| !request.contains("authorization")), "{:?}", server.requests());
    let slow = Does::AnswersAfter(Duration::from_secs(3), status(200));
    let slow = Server::tls(authority.server(&["kubernetes"], VALID).tls(), slow).await;
    let late = bench.prober().await.probe(impatient(slow.endpoint)).await.outcome;
    assert!(matches!(late, Outcome::Unverified { .. }), "its handshake shows nothing: {late:?}");
    let kept = bench.trust_after(Before::Believed(&known)).await.unwrap();
    assert!(kept.has_ca() && kept.problem().is_some(), "what was believed stays in force");
    (bench.config.ca, bench.config.probe_credentials) = (None, None);
    assert!(bench.trust_after(Before::Nothing).await.unwrap().problem().is_none());
    let gone = bench.trust_after(Before::InForce).await.unwrap();
    assert!(!gone.has_ca() && gone.problem().is_some(), "there was one in an earlier run");
}

#[tokio::test]
async fn a_token_is_never_shown_where_the_certificate_is_outside_its_validity() {
    let authority = Authority::new();
    for years in [EXPIRED, TO_COME] {
        let server = Server::tls(authority.server(&["kubernetes"], years).tls(), Does::Answers(status(401))).await;
        assert_eq!(Bench::with_ca(&authority).with_token("secret").outcome(server.endpoint).await, expired(401));
        assert!(!server.requests()[0].to_lowercase().contains("authorization"), "{:?}", server.requests());
    }
}

#[tokio::test]
async fn a_bundle_of_several_authorities_believes_each_of_them() {
    let (one, other) = (Authority::new(), Authority::new());
    let bench = Bench::with_ca(&one);
    bench.file("ca.crt", format!("# old\n{}\n# new\n{}", one.pem(), other.pem()));
    for authority in [one, other] {
        let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::Answers(status(200))).await;
        assert_eq!(bench.outcome(server.endpoint).await, answered(200));
    }
}

#[tokio::test]
async fn credentials_that_cannot_work_are_told() {
    let authority = Authority::new();
    let mut bench = Bench::with_ca(&authority).with_token("two words");
    assert!(problem(&bench).await.contains("one line of printable ASCII"));
    let (cert, _) = authority.client();
    let (_, another) = authority.client();
    let (cert, key) = (bench.file("client.crt", cert), bench.file("client.key", another));
    bench.config.probe_credentials = Some(ProbeCredentials::Certificate { cert: cert.clone(), key });
    assert!(problem(&bench).await.contains("client.crt"), "a key of another certificate");
    bench.config.probe_credentials = Some(ProbeCredentials::Certificate { cert: cert.clone(), key: cert });
    assert!(problem(&bench).await.contains("a PEM private key is expected"));
    let without = Bench::without_ca().with_token("secret");
    assert!(problem(&without).await.contains("needs a CA"));
    let mut unnamed = Bench::with_ca(&authority);
    unnamed.config.server_name = "no name".to_owned();
    assert!(problem(&unnamed).await.contains("\"no name\""));
}
