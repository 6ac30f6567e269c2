//! Servers that speak HTTP/2, as every kube-apiserver does with whoever offers it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use hyper::{HeaderMap, Request, Response, Version};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::bench::*;
use crate::engine::Endpoint;
use crate::engine::event::Outcome;
use crate::world::Prober as _;

/// What becomes of a request.
#[derive(Clone, Copy)]
enum Does {
    Answers(u16),
    AnswersAfter(Duration),
    AnswersWithAHeadOf(usize),
    AnswersWithoutEnd,
    ResetsTheStream(Reason),
    SaysFarewell,
    /// Answers this many requests of a connection, and says farewell at the next.
    AnswersSome(usize),
}

/// What was seen of the requests.
#[derive(Default)]
struct Requests {
    connections: usize,
    /// Authority, path and headers.
    asked: Vec<(String, HeaderMap)>,
}

struct Server {
    endpoint: Endpoint,
    requests: Arc<Mutex<Requests>>,
    _task: AbortOnDropHandle<()>,
}

fn of_http_2(mut tls: ServerConfig) -> ServerConfig {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tls
}

impl Server {
    async fn start(tls: ServerConfig, does: Does) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        let requests = Arc::<Mutex<Requests>>::default();
        let (tls, told) = (TlsAcceptor::from(Arc::new(of_http_2(tls))), requests.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(tls.clone(), stream, does, told.clone()));
            }
        });
        Server { endpoint, requests, _task: AbortOnDropHandle::new(task) }
    }

    /// How many connections and requests there were.
    fn counts(&self) -> (usize, usize) {
        let requests = self.requests.lock().unwrap();
        (requests.connections, requests.asked.len())
    }
}

async fn serve(tls: TlsAcceptor, stream: TcpStream, does: Does, told: Arc<Mutex<Requests>>) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    told.lock().unwrap().connections += 1;
    let mut asked = 0;
    while let Some(Ok((request, response))) = connection.accept().await {
        note(&request, &told);
        if matches!(does, Does::SaysFarewell) || matches!(does, Does::AnswersSome(most) if asked >= most) {
            connection.abrupt_shutdown(Reason::NO_ERROR);
            continue;
        }
        asked += 1;
        tokio::spawn(answer(response, does));
    }
}

fn note(request: &Request<h2::RecvStream>, told: &Mutex<Requests>) {
    assert_eq!(request.version(), Version::HTTP_2);
    told.lock().unwrap().asked.push((request.uri().to_string(), request.headers().clone()));
}

async fn answer(mut response: SendResponse<Bytes>, does: Does) {
    let mut head = Response::new(());
    match does {
        Does::Answers(code) => *head.status_mut() = code.try_into().unwrap(),
        Does::AnswersAfter(delay) => tokio::time::sleep(delay).await,
        Does::AnswersWithAHeadOf(bytes) => {
            head.headers_mut().insert("x-more", "m".repeat(bytes).parse().unwrap());
        }
        Does::ResetsTheStream(reason) => return response.send_reset(reason),
        Does::AnswersWithoutEnd | Does::SaysFarewell | Does::AnswersSome(_) => {}
    }
    let Ok(mut body) = response.send_response(head, false) else { return };
    if matches!(does, Does::AnswersWithoutEnd) {
        while body.send_data(Bytes::from_static(&[b'm'; 1024]), false).is_ok() {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    } else {
        let _ = body.send_data(Bytes::from_static(b"ok"), true);
    }
}

async fn against(does: Does) -> (Server, Outcome) {
    let authority = Authority::new();
    let server = Server::start(authority.server(&["kubernetes"], VALID).tls(), does).await;
    let outcome = Bench::with_ca(&authority).prober().await.probe(impatient(server.endpoint)).await.outcome;
    (server, outcome)
}

#[tokio::test]
async fn a_probe_asks_in_http_2_as_in_http_1_1() {
    let authority = Authority::new();
    let server = Server::start(authority.server(&["kubernetes"], VALID).tls(), Does::Answers(200)).await;
    let bench = Bench::with_ca(&authority).with_token("secret");
    assert_eq!(bench.outcome(server.endpoint).await, answered(200));
    let requests = server.requests.lock().unwrap();
    let [(uri, headers)] = &*requests.asked else { panic!("one request") };
    assert_eq!(*uri, format!("https://{}/readyz", server.endpoint));
    assert_eq!(headers["authorization"], "Bearer secret");
    assert!(headers["user-agent"].to_str().unwrap().starts_with("prismesh/"));
}

#[tokio::test]
async fn one_connection_of_http_2_serves_many_probes() {
    let authority = Authority::new();
    let server = Server::start(authority.server(&["kubernetes"], VALID).tls(), Does::Answers(500)).await;
    let prober = Bench::with_ca(&authority).prober().await;
    for probe in 0..20 {
        assert_eq!(seen(&prober.probe(order(server.endpoint)).await), (probe == 0, answered(500)));
    }
    assert_eq!(server.counts(), (1, 20));
}

#[tokio::test]
async fn a_farewell_is_a_refusal_on_a_fresh_connection_and_no_evidence_on_a_kept_one() {
    assert_eq!(against(Does::SaysFarewell).await.1, Outcome::Refused);
    let authority = Authority::new();
    let server = Server::start(authority.server(&["kubernetes"], VALID).tls(), Does::AnswersSome(1)).await;
    let prober = Bench::with_ca(&authority).prober().await;
    for _ in 0..2 {
        assert_eq!(seen(&prober.probe(order(server.endpoint)).await), (true, answered(200)));
        assert_eq!(seen(&prober.probe(order(server.endpoint)).await), (false, Outcome::Stale));
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_is_a_refusal() {
    for reason in [Reason::REFUSED_STREAM, Reason::ENHANCE_YOUR_CALM, Reason::INTERNAL_ERROR, Reason::HTTP_1_1_REQUIRED] {
        assert_eq!(against(Does::ResetsTheStream(reason)).await.1, Outcome::Refused, "{reason:?}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_late_and_no_failure_of_the_handshake() {
    assert_eq!(against(Does::AnswersAfter(SHORT * 5)).await.1, Outcome::AnswerTimedOut);
}

#[tokio::test]
async fn a_head_without_measure_is_refused_and_a_body_without_end_is_not_read() {
    assert_eq!(against(Does::AnswersWithAHeadOf(8 << 10)).await.1, answered(200));
    let (_, outcome) = against(Does::AnswersWithAHeadOf(40 << 10)).await;
    assert!(matches!(outcome, Outcome::NotHttp | Outcome::Refused), "{outcome:?}");
    let authority = Authority::new();
    let server = Server::start(authority.server(&["kubernetes"], VALID).tls(), Does::AnswersWithoutEnd).await;
    let prober = Bench::with_ca(&authority).prober().await;
    for _ in 0..2 {
        assert_eq!(seen(&prober.probe(order(server.endpoint)).await), (true, answered(200)), "it was not kept");
    }
}

#[tokio::test]
async fn what_chose_http_2_and_does_not_speak_it_is_not_http() {
    let authority = Authority::new();
    let bench = Bench::with_ca(&authority);
    let settings_of_half_a_frame = b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64SSH-2.0-Ope".to_vec();
    for does in [super::bench::Does::Answers(status(200)), super::bench::Does::Says(settings_of_half_a_frame)] {
        let tls = of_http_2(authority.server(&["kubernetes"], VALID).tls());
        let server = super::bench::Server::tls(tls, does).await;
        let outcome = bench.prober().await.probe(impatient(server.endpoint)).await.outcome;
        assert!(matches!(outcome, Outcome::NotHttp | Outcome::AnswerTimedOut), "{outcome:?}");
    }
}

#[tokio::test]
async fn what_speaks_neither_is_not_http() {
    let authority = Authority::new();
    let mut tls = authority.server(&["kubernetes"], VALID).tls();
    tls.alpn_protocols = vec![b"postgresql".to_vec()];
    let server = super::bench::Server::tls(tls, super::bench::Does::Answers(status(200))).await;
    assert_eq!(Bench::with_ca(&authority).outcome(server.endpoint).await, Outcome::NotHttp);
}
