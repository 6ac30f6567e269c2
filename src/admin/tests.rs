//! What the admin port promises, on streams in memory and in virtual time.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::metrics::{Counts, GossipMetrics, UpstreamMetrics};
use super::status::{PeerStatus, UpstreamStatus};
use super::*;
use crate::engine::event::{AgentState, ApiserverState, Role, Verdict};
use crate::engine::{Endpoint, NodeId, Source};
use crate::world::testing::Plain;

/// Clients that the test has sent; an error for each [`None`].
struct Queue(Mutex<mpsc::Receiver<Option<DuplexStream>>>);

impl Listener for Queue {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            match self.0.lock().await.recv().await {
                Some(Some(stream)) => Ok((Box::new(Plain(stream)) as Box<dyn Stream>, address())),
                Some(None) => Err(io::Error::other("no descriptors")),
                None => std::future::pending().await,
            }
        })
    }
}

struct Shown {
    healthy: Option<Result<(), String>>,
    ready: Result<(), String>,
}

impl View for Shown {
    fn healthy(&self) -> BoxFuture<'_, Result<(), String>> {
        let healthy = self.healthy.clone();
        Box::pin(async move {
            match healthy {
                Some(healthy) => healthy,
                None => std::future::pending().await,
            }
        })
    }
    fn ready(&self) -> Result<(), String> {
        self.ready.clone()
    }
    fn status(&self) -> BoxFuture<'_, Result<Status, String>> {
        Box::pin(async { Ok(a_status()) })
    }
    fn metrics(&self) -> BoxFuture<'_, Result<Metrics, String>> {
        Box::pin(async { Ok(some_metrics()) })
    }
}

const WELL: Shown = Shown { healthy: Some(Ok(())), ready: Ok(()) };

fn address() -> SocketAddr {
    "127.0.0.1:7446".parse().unwrap()
}

fn endpoint() -> Endpoint {
    "10.0.0.1:6443".parse::<SocketAddr>().unwrap().into()
}

fn a_status() -> Status {
    Status {
        node: "worker-1".to_owned(),
        role: Role::Worker,
        cluster: "test".to_owned(),
        cluster_size: 5,
        version: "0.1.0".to_owned(),
        listen: vec!["127.0.0.1:7445".parse().unwrap(), "[::1]:7445".parse().unwrap()],
        admin: address(),
        gossip: None,
        started_s_ago: 1.5,
        upstreams: vec![UpstreamStatus {
            endpoint: endpoint(),
            verdict: Verdict::Ready,
            sources: vec![Source::Member],
            rtt_ms: Some(0.4),
            load: None,
            connections: 2,
            best: true,
            carries: true,
            reasons: vec!["answers its probes".to_owned()],
        }],
        peers: vec![PeerStatus {
            node: NodeId::of("control-1").to_string(),
            name: "control-1".to_owned(),
            role: Role::ControlPlane,
            agent: AgentState::Running,
            apiserver: Some(ApiserverState::Ready),
            address: "10.0.0.1:7447".parse().unwrap(),
            alive: true,
            rtt_ms: None,
            last_heard_s: Some(0.2),
        }],
        notes: vec![],
    }
}

fn some_metrics() -> Metrics {
    let mut upstream = UpstreamMetrics::new(endpoint(), Verdict::Draining);
    upstream.rtt = Some(Duration::from_micros(400));
    upstream.dials = Counts::from([("connected", 7), ("refused", 1)]);
    upstream.bytes_to_client = 12;
    upstream.certificate_not_after = Some(1_900_000_000);
    let gossip = GossipMetrics { members: 5, dropped: Counts::from([("junk", 3)]), ..GossipMetrics::default() };
    Metrics { upstreams: vec![upstream], ca_missing: true, gossip: Some(gossip), ..Metrics::default() }
}

/// A served view, and where clients come in.
fn served(view: Shown) -> mpsc::Sender<Option<DuplexStream>> {
    let (clients, queue) = mpsc::channel(1000);
    serve(Box::new(Queue(Mutex::new(queue))), Arc::new(view));
    clients
}

async fn connect(clients: &mpsc::Sender<Option<DuplexStream>>) -> DuplexStream {
    let (near, far) = duplex(1 << 16);
    clients.send(Some(far)).await.unwrap();
    near
}

async fn ask(view: Shown, request: &str) -> String {
    let mut client = connect(&served(view)).await;
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(view: Shown, path: &str) -> (u16, String) {
    let answer = ask(view, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(start_paused = true)]
async fn health_is_that_the_loops_turn() {
    assert_eq!(get(WELL, "/healthz").await, (200, "ok\n".to_owned()));
    let stuck = Shown { healthy: Some(Err("the accept loop stands still".to_owned())), ..WELL };
    assert_eq!(get(stuck, "/healthz").await, (503, "the accept loop stands still\n".to_owned()));
    let begun = Instant::now();
    assert_eq!(get(Shown { healthy: None, ..WELL }, "/healthz").await.0, 503);
    assert_eq!(begun.elapsed(), HEALTH_WAIT);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_that_something_can_carry_and_says_why_not() {
    assert_eq!(get(WELL, "/readyz").await.0, 200);
    let alone = Shown { ready: Err("all 3 upstreams are down".to_owned()), ..WELL };
    assert_eq!(get(alone, "/readyz").await, (503, "all 3 upstreams are down\n".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_status_is_json_with_the_promised_names() {
    let (code, body) = get(WELL, "/status").await;
    assert_eq!(code, 200);
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(value["role"], "worker");
    assert_eq!(value["gossip"], serde_json::Value::Null);
    let upstream = &value["upstreams"][0];
    assert_eq!(
        *upstream,
        serde_json::json!({"endpoint": "10.0.0.1:6443", "verdict": "ready", "sources": ["member"], "rtt_ms": 0.4, "load": null,
            "connections": 2, "best": true, "carries": true, "reasons": ["answers its probes"]})
    );
    let mut fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let promised = [
        "admin",
        "cluster",
        "cluster_size",
        "gossip",
        "listen",
        "node",
        "notes",
        "peers",
        "role",
        "started_s_ago",
        "upstreams",
        "version",
    ];
    assert_eq!(fields, promised);
    assert_eq!(serde_json::from_str::<Status>(&body).unwrap(), a_status());
}

#[tokio::test(start_paused = true)]
async fn metrics_have_conventional_names_units_and_a_help_each() {
    let (code, body) = get(WELL, "/metrics").await;
    assert_eq!(code, 200);
    let expected = [
        "prismesh_build_info{version=\"0.1.0\"} 1",
        "prismesh_upstream_connections{endpoint=\"10.0.0.1:6443\"} 0",
        "prismesh_dials_total{endpoint=\"10.0.0.1:6443\",outcome=\"connected\"} 7",
        "prismesh_bytes_total{endpoint=\"10.0.0.1:6443\",direction=\"to_client\"} 12",
        "prismesh_upstream_round_trip_seconds{endpoint=\"10.0.0.1:6443\"} 0.0004",
        "prismesh_upstream_verdict{endpoint=\"10.0.0.1:6443\",verdict=\"draining\"} 1",
        "prismesh_upstream_verdict{endpoint=\"10.0.0.1:6443\",verdict=\"ready\"} 0",
        "prismesh_upstream_certificate_expiry_timestamp_seconds{endpoint=\"10.0.0.1:6443\"} 1900000000",
        "prismesh_gossip_dropped_total{reason=\"junk\"} 3",
        "prismesh_gossip_members 5",
        "prismesh_ca_missing 1",
        "prismesh_reload_failures_total 0",
    ];
    for line in expected {
        assert!(body.lines().any(|found| found.strip_suffix(".0").unwrap_or(found) == line), "{line} is missing in\n{body}");
    }
    let names = |kind: &str| {
        body.lines().filter_map(|line| line.strip_prefix(kind)?.split(' ').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(names("# HELP "), names("# TYPE "));
    assert!(body.ends_with("# EOF\n"));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_404_and_what_would_change_something_405() {
    assert_eq!(get(WELL, "/secrets").await.0, 404);
    assert_eq!(get(WELL, "/").await, (200, HELP.to_owned()));
    let refused = ask(WELL, "DELETE /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_requests_body_is_never_waited_for() {
    let begun = Instant::now();
    let refused = ask(WELL, "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    assert!(begun.elapsed() <= HEAD_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go_after_five_seconds() {
    for said in ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: x\r\n"] {
        let begun = Instant::now();
        ask(WELL, said).await;
        assert_eq!(begun.elapsed().as_secs(), HEAD_WAIT.as_secs(), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_head_is_refused() {
    let answer = ask(WELL, &format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(2 * HEAD_BYTES))).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn sixty_five_silent_clients_delay_the_next_one_and_do_not_lock_it_out() {
    let clients = served(WELL);
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(connect(&clients).await);
    }
    let begun = Instant::now();
    let mut client = connect(&clients).await;
    client.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    assert_eq!(begun.elapsed().as_secs(), HEAD_WAIT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_failed_accept_does_not_end_the_listener() {
    let clients = served(WELL);
    clients.send(None).await.unwrap();
    let mut client = connect(&clients).await;
    client.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_let_go() {
    let (mut near, far) = duplex(16);
    served(WELL).send(Some(far)).await.unwrap();
    near.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    sleep(CONNECTION_LIFE + Duration::from_secs(1)).await;
    let mut some = Vec::new();
    near.read_to_end(&mut some).await.unwrap();
    assert!(some.len() <= 16);
}
