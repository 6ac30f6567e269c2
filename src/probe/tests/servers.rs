//! The outcome of a probe of every kind of server.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa};
use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::bench::*;
use crate::engine::event::ProbeLimits;
use crate::engine::event::{Lack, Outcome, ProbeOrder};
use crate::engine::policy;
use crate::world::Prober as _;

#[tokio::test]
async fn every_status_of_readyz_is_told_as_it_is() {
    let authority = Authority::new();
    let bench = Bench::with_ca(&authority);
    for code in [200, 401, 403, 429, 500, 503, 302] {
        let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::Answers(status(code))).await;
        let probed = bench.prober().await.probe(order(server.endpoint)).await;
        assert_eq!(seen(&probed), (true, answered(code)));
        assert_eq!((probed.id, probed.endpoint), (7, server.endpoint));
        assert!(probed.rtt.unwrap() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn the_request_is_one_that_an_apiserver_understands_and_its_audit_log_can_name() {
    let authority = Authority::new();
    let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::Answers(status(200))).await;
    Bench::with_ca(&authority).outcome(server.endpoint).await;
    let request = server.requests().remove(0).to_lowercase();
    assert!(request.starts_with("get /readyz http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: {}\r\n", server.endpoint)), "{request}");
    assert!(request.contains(concat!("\r\nuser-agent: prismesh/", env!("CARGO_PKG_VERSION"), "\r\n")), "{request}");
    assert!(!request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(Bench::without_ca().outcome(gone.into()).await, Outcome::Refused);
}

#[tokio::test]
async fn closing_at_accept_is_refused() {
    let server = Server::plain(Does::Closes).await;
    assert_eq!(Bench::without_ca().outcome(server.endpoint).await, Outcome::Refused);
}

#[tokio::test]
async fn a_tls_alert_at_once_is_refused_and_no_proof_of_a_stranger() {
    let handshake_failure = Server::plain(Does::Says(vec![21, 3, 3, 0, 2, 2, 40])).await;
    assert_eq!(Bench::without_ca().outcome(handshake_failure.endpoint).await, Outcome::Refused);
}

#[tokio::test]
async fn what_does_not_begin_as_tls_is_not_tls() {
    let bytes: [&[u8]; 5] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"220 mail.example.com ESMTP\r\n",
        &[0; 64],
        &[0xff; 64],
    ];
    for said in bytes {
        let server = Server::plain(Does::Says(said.to_vec())).await;
        assert_eq!(Bench::without_ca().outcome(server.endpoint).await, Outcome::NotTls, "{said:?}");
    }
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_is_timed_out() {
    let server = Server::plain(Does::Says(vec![])).await;
    let begun = Instant::now();
    let probed = Bench::without_ca().prober().await.probe(impatient(server.endpoint)).await;
    assert_eq!(seen(&probed), (true, Outcome::HandshakeTimedOut { hung: true }));
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < SHORT + Duration::from_secs(1));
}

#[tokio::test]
async fn an_answer_after_the_time_out_is_none() {
    let authority = Authority::new();
    let late = Does::AnswersAfter(Duration::from_secs(3), status(200));
    let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), late).await;
    let prober = Bench::with_ca(&authority).prober().await;
    assert_eq!(prober.probe(impatient(server.endpoint)).await.outcome, Outcome::AnswerTimedOut);
}

#[tokio::test]
async fn another_authority_is_untrusted_with_the_reason() {
    let ours = Authority::new();
    let expected = [
        (Authority::named("theirs"), "not signed by the cluster's CA"),
        (Authority::new(), "not signed by the cluster's CA but by one of its name"),
    ];
    for (theirs, reason) in expected {
        let server = Server::tls(theirs.server(&["kubernetes"], VALID).tls(), Does::Answers(status(200))).await;
        let outcome = Bench::with_ca(&ours).outcome(server.endpoint).await;
        assert_eq!(outcome, Outcome::Untrusted(reason.to_owned()));
        assert_eq!(server.requests(), [""; 0], "nothing is said to a stranger");
    }
}

/// As `openssl req -x509` makes them: it may sign others, and stands for itself.
#[tokio::test]
async fn a_certificate_that_signed_itself_is_right_where_it_is_what_is_trusted() {
    let own = Identity::self_signed(&["kubernetes"], VALID);
    let server = Server::tls(own.tls(), Does::Answers(status(200))).await;
    let trusting = |identity: &Identity| {
        let mut bench = Bench::without_ca();
        bench.config.ca = Some(bench.file("ca.crt", identity.pem()));
        bench
    };
    assert_eq!(trusting(&own).outcome(server.endpoint).await, answered(200));
    let another = Identity::self_signed(&["kubernetes"], VALID);
    assert!(matches!(trusting(&another).outcome(server.endpoint).await, Outcome::Untrusted(_)));
    let elsewhere = Identity::self_signed(&["etcd"], VALID);
    let server = Server::tls(elsewhere.tls(), Does::Answers(status(200))).await;
    assert!(matches!(trusting(&elsewhere).outcome(server.endpoint).await, Outcome::WrongName(_)));
}

/// What makes a certificate one of that form.
type Form = fn(&mut CertificateParams);

/// The TLS library refuses such certificates unseen; other clients take them. That is no proof of a stranger.
#[tokio::test]
async fn a_certificate_of_a_form_that_the_library_does_not_know_is_unverified_and_a_strangers_is_not() {
    let critical = |params: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 36], vec![0x30, 0x03, 0x80, 0x01, 0x00]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    };
    let signs = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let any = |params: &mut CertificateParams| params.extended_key_usages.push(ExtendedKeyUsagePurpose::Any);
    let forms: [(Form, &str); 3] = [(critical, "2.5.29.36"), (signs, "CA:TRUE"), (any, "anyExtendedKeyUsage")];
    let ours = Authority::new();
    let bench = Bench::with_ca(&ours).with_token("secret");
    for (set, what) in forms {
        let server = Server::tls(ours.server_with(set).tls(), Does::Answers(status(200))).await;
        let outcome = bench.outcome(server.endpoint).await;
        let Outcome::Unverified { code: 200, lack: Lack::Algorithm(named) } = &outcome else { panic!("{what}: {outcome:?}") };
        assert!(named.contains(what), "{named}");
        assert!(!server.requests()[0].contains("authorization"), "{what}: no token");
        let stranger = Server::tls(Authority::named("another").server_with(set).tls(), Does::Answers(status(200))).await;
        let outcome = bench.outcome(stranger.endpoint).await;
        assert!(matches!(outcome, Outcome::Untrusted(_)), "{what}: {outcome:?}");
    }
}

/// The TLS library does not look at the validity of what is trusted; other clients do.
#[tokio::test]
async fn what_an_authority_signed_that_has_ended_is_expired_unless_one_in_force_vouches_for_it() {
    let (old, new) = (Authority::of_years("kubernetes", Years(2010, 2020)), Authority::new());
    let mut bench = Bench::without_ca().with_token("secret");
    bench.config.ca = Some(bench.file("ca.crt", old.pem() + &new.pem()));
    for (authority, expired) in [(&old, true), (&new, false)] {
        let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::Answers(status(200))).await;
        assert_eq!(bench.outcome(server.endpoint).await, Outcome::Status { code: 200, expired });
        assert_eq!(server.requests()[0].contains("authorization"), !expired);
    }
}

#[tokio::test]
async fn an_intermediate_that_pretends_to_be_signed_is_untrusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut identity = theirs.server(&["kubernetes"], VALID);
    identity.chain[1] = ours.root();
    let server = Server::tls(identity.tls(), Does::Answers(status(200))).await;
    assert!(matches!(Bench::with_ca(&ours).outcome(server.endpoint).await, Outcome::Untrusted(_)));
}

#[tokio::test]
async fn a_name_that_is_not_covered_is_the_wrong_name() {
    let authority = Authority::new();
    let server = Server::tls(authority.server(&["etcd"], VALID).tls(), Does::Answers(status(200))).await;
    let Outcome::WrongName(reason) = Bench::with_ca(&authority).outcome(server.endpoint).await else { panic!("not the name") };
    assert!(reason.contains("kubernetes") && reason.contains("etcd"), "{reason}");
}

#[tokio::test]
async fn an_order_may_ask_for_a_name_of_its_own_or_an_address() {
    let authority = Authority::new();
    let server = Server::tls(authority.server(&["lb.example", "10.0.0.1"], VALID).tls(), Does::Answers(status(200))).await;
    let mut bench = Bench::with_ca(&authority);
    let order = order(server.endpoint);
    let named = ProbeOrder { server_name: Some("lb.example".to_owned()), ..order.clone() };
    assert_eq!(bench.prober().await.probe(named).await.outcome, answered(200));
    let nonsense = ProbeOrder { server_name: Some("no name".to_owned()), ..order.clone() };
    assert!(matches!(bench.prober().await.probe(nonsense).await.outcome, Outcome::LocalError(_)));
    bench.config.server_name = "10.0.0.1".to_owned();
    assert_eq!(bench.prober().await.probe(order).await.outcome, answered(200));
}

#[tokio::test]
async fn a_right_chain_outside_its_validity_still_answers_and_is_marked() {
    let authority = Authority::new();
    let bench = Bench::with_ca(&authority);
    for years in [EXPIRED, TO_COME] {
        let server = Server::tls(authority.server(&["kubernetes"], years).tls(), Does::Answers(status(200))).await;
        let prober = bench.prober().await;
        assert_eq!(seen(&prober.probe(order(server.endpoint)).await), (true, expired(200)));
        assert_eq!(seen(&prober.probe(order(server.endpoint)).await), (false, expired(200)), "on the kept connection too");
    }
}

#[tokio::test]
async fn an_intermediate_outside_its_validity_is_marked_as_well() {
    let authority = Authority::new();
    let bench = Bench::with_ca(&authority);
    let overlapping = Years(2024, 2036);
    for (intermediate, own) in [(EXPIRED, overlapping), (overlapping, EXPIRED), (EXPIRED, EXPIRED), (TO_COME, VALID)] {
        let identity = authority.intermediate(intermediate).server(&["kubernetes"], own);
        let server = Server::tls(identity.tls(), Does::Answers(status(200))).await;
        assert_eq!(bench.outcome(server.endpoint).await, expired(200));
    }
    let valid = authority.intermediate(VALID).server(&["kubernetes"], VALID);
    let server = Server::tls(valid.tls(), Does::Answers(status(200))).await;
    assert_eq!(bench.outcome(server.endpoint).await, answered(200));
}

#[tokio::test]
async fn an_expired_certificate_with_anything_else_wrong_is_refused_for_that() {
    let (ours, theirs) = (Authority::new(), Authority::named("theirs"));
    let bench = Bench::with_ca(&ours);
    let foreign = Server::tls(theirs.server(&["kubernetes"], EXPIRED).tls(), Does::Answers(status(200))).await;
    assert_eq!(bench.outcome(foreign.endpoint).await, Outcome::Untrusted("not signed by the cluster's CA".to_owned()));
    let misnamed = Server::tls(ours.server(&["etcd"], EXPIRED).tls(), Does::Answers(status(200))).await;
    assert!(matches!(bench.outcome(misnamed.endpoint).await, Outcome::WrongName(_)));
    let mut params = CertificateParams::new(vec!["kubernetes".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    let client = Server::tls(ours.sign(params).tls(), Does::Answers(status(200))).await;
    let Outcome::Untrusted(reason) = bench.outcome(client.endpoint).await else { panic!("a client's certificate") };
    assert!(!reason.contains("expired"), "{reason}");
}

#[tokio::test]
async fn without_a_ca_any_certificate_will_do_and_its_validity_is_still_told() {
    let stranger = Authority::new();
    let bench = Bench::without_ca();
    let server = Server::tls(stranger.server(&["whatever"], VALID).tls(), Does::Answers(status(200))).await;
    assert_eq!(bench.outcome(server.endpoint).await, answered(200));
    let server = Server::tls(stranger.server(&["whatever"], EXPIRED).tls(), Does::Answers(status(200))).await;
    assert_eq!(bench.outcome(server.endpoint).await, expired(200));
    assert!(!bench.trust().await.unwrap().has_ca());
}

#[tokio::test]
async fn what_is_not_http_inside_tls_is_not_http() {
    let authority = Authority::new();
    let bench = Bench::with_ca(&authority);
    let bytes: [&[u8]; 3] = [b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64", b"SSH-2.0-OpenSSH_9.2\r\n", &[0; 64]];
    for said in bytes {
        let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::Says(said.to_vec())).await;
        assert_eq!(bench.outcome(server.endpoint).await, Outcome::NotHttp, "{said:?}");
    }
    let garbled = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::Answers("what?\r\n\r\n".into())).await;
    assert_eq!(bench.outcome(garbled.endpoint).await, Outcome::NotHttp);
}

#[tokio::test]
async fn a_close_instead_of_an_answer_is_refused() {
    let authority = Authority::new();
    let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::ClosesWhenAsked).await;
    assert_eq!(Bench::with_ca(&authority).outcome(server.endpoint).await, Outcome::Refused);
}

#[tokio::test]
async fn an_endless_head_is_not_http_and_an_endless_body_is_not_read() {
    let authority = Authority::new();
    let bench = Bench::with_ca(&authority);
    let head = Does::AnswersWithoutEnd("HTTP/1.1 200 OK\r\n".into(), "X-More: of the same\r\n".repeat(50));
    let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), head).await;
    assert_eq!(bench.outcome(server.endpoint).await, Outcome::NotHttp);
    let body = Does::AnswersWithoutEnd("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".into(), "more ".repeat(1000));
    let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), body).await;
    let prober = bench.prober().await;
    assert_eq!(seen(&prober.probe(order(server.endpoint)).await), (true, answered(200)));
    assert_eq!(seen(&prober.probe(order(server.endpoint)).await), (true, answered(200)), "it was not kept");
}

#[tokio::test]
async fn endless_interim_answers_end_with_the_time_out() {
    let authority = Authority::new();
    let interim = Does::AnswersWithoutEnd(String::new(), "HTTP/1.1 102 Processing\r\n\r\n".into());
    let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), interim).await;
    let begun = Instant::now();
    let probed = Bench::with_ca(&authority).prober().await.probe(impatient(server.endpoint)).await;
    assert!(matches!(probed.outcome, Outcome::AnswerTimedOut | Outcome::NotHttp), "{:?}", probed.outcome);
    assert!(begun.elapsed() < SHORT + Duration::from_secs(1));
}

#[tokio::test]
async fn no_bytes_whatever_hang_a_probe_or_prove_an_endpoint() {
    let authority = Authority::new();
    let bench = Bench::with_ca(&authority);
    let mut tries = tokio::task::JoinSet::new();
    for seed in 0..60 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut bytes: Vec<u8> = (0..random.random_range(1..400)).map(|_| random.random()).collect();
        // Most begin as a TLS record does, so that more than the first check is tried; half come through TLS.
        if seed % 4 != 0 {
            let length = u8::try_from(bytes.len() % 200).unwrap();
            bytes.splice(0..0, [random.random_range(20..25), 3, 3, 0, length, random.random_range(0..25), 0, 0, length / 2]);
        }
        let prober = bench.prober().await;
        let tls = authority.server(&["kubernetes"], VALID).tls();
        tries.spawn(async move {
            let says = Does::Says(bytes);
            let server = if seed % 2 == 0 { Server::plain(says).await } else { Server::tls(tls, says).await };
            timeout(SHORT * 5, prober.probe(impatient(server.endpoint))).await.unwrap().outcome
        });
    }
    for outcome in tries.join_all().await {
        assert!(!matches!(outcome, Outcome::Status { .. } | Outcome::LocalError(_) | Outcome::Stale), "{outcome:?}");
    }
}

/// When a dial that has not connected is joined by another one.
const SECOND_DIAL: Duration = Duration::from_millis(250);

async fn dialled(script: impl IntoIterator<Item = Dial>) -> (Outcome, Option<Duration>, Duration) {
    let authority = Authority::new();
    let server = Server::tls(authority.server(&["kubernetes"], VALID).tls(), Does::Answers(status(200))).await;
    let bench = Bench::with_ca(&authority);
    bench.net.script.lock().unwrap().extend(script);
    let prober = bench.prober().await;
    let begun = Instant::now();
    let probed =
        prober.probe(ProbeOrder { limits: ProbeLimits::of(policy::PROBE_DIALS * SECOND_DIAL), ..order(server.endpoint) }).await;
    (probed.outcome, probed.rtt, begun.elapsed())
}

#[tokio::test]
async fn a_lost_syn_costs_a_second_dial_and_not_the_probe() {
    let (outcome, rtt, took) = dialled([Dial::Hangs, Dial::Connects]).await;
    assert_eq!(outcome, answered(200));
    assert!(took >= SECOND_DIAL);
    assert!(rtt.unwrap() < SECOND_DIAL, "{rtt:?} is counted from the second dial's own begin");
}

#[tokio::test]
async fn the_first_dial_may_still_win() {
    let late = Duration::from_millis(300);
    let (outcome, rtt, _) = dialled([Dial::ConnectsAfter(late), Dial::Hangs]).await;
    assert_eq!(outcome, answered(200));
    assert!(rtt.unwrap() >= late);
}

#[tokio::test]
async fn one_dial_that_fails_does_not_end_the_other() {
    let refused = |after| Dial::Fails(Duration::from_millis(after), Errno::CONNREFUSED);
    let (second_fails, first_fails, both_fail) = tokio::join!(
        dialled([Dial::ConnectsAfter(Duration::from_millis(350)), refused(0)]),
        dialled([refused(300), Dial::ConnectsAfter(Duration::from_millis(100))]),
        dialled([refused(300), refused(100)]),
    );
    assert_eq!((second_fails.0, first_fails.0, both_fail.0), (answered(200), answered(200), Outcome::Refused));
}

#[tokio::test]
async fn a_dial_that_is_refused_early_is_not_repeated() {
    let (outcome, rtt, took) = dialled([Dial::Fails(Duration::ZERO, Errno::CONNREFUSED)]).await;
    assert_eq!((outcome, rtt), (Outcome::Refused, None));
    assert!(took < SECOND_DIAL);
}

#[tokio::test]
async fn a_lack_of_descriptors_is_this_nodes_own() {
    let (outcome, ..) = dialled([Dial::Fails(Duration::ZERO, Errno::MFILE)]).await;
    assert!(matches!(outcome, Outcome::LocalError(_)));
}
