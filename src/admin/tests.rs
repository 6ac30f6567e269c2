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

    fn accept_now(&self) -> io::Result<Option<(Box<dyn Stream>, SocketAddr)>> {
        Ok(None)
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
    fn forget(&self, removal: Vec<u8>) -> BoxFuture<'_, Result<String, Refused>> {
        Box::pin(async move {
            match removal.as_slice() {
                b"signed" => Ok("cp-3 is removed up to generation 7".to_owned()),
                b"" => Err(Refused::Unavailable("gossip does not run".to_owned())),
                _ => Err(Refused::Forbidden("the signature does not verify".to_owned())),
            }
        })
    }
    fn node(&self) -> String {
        "worker-1".to_owned()
    }
    fn has_address(&self, ip: IpAddr) -> bool {
        ip == IpAddr::from([10, 0, 0, 7])
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
        seeds: Vec::new(),
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
            generation: 7,
            endpoints: vec![endpoint()],
            version: None,
            keys: Vec::new(),
            full_keyring: None,
            connections: Some(3),
            away_s: None,
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
    served_at(address(), view).0
}

/// The same for a listener at an address, with what it turns away.
fn served_at(listener: SocketAddr, view: Shown) -> (mpsc::Sender<Option<DuplexStream>>, Arc<Rejections>) {
    let (clients, queue) = mpsc::channel(1000);
    let rejections = Arc::new(Rejections::default());
    let own = Own { listener };
    serve(Box::new(Queue(Mutex::new(queue))), Arc::new(view), own, rejections.clone(), Arc::new(Supervised::new("admin")));
    (clients, rejections)
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
    let answer = ask(view, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
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
        "seeds",
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
    let refused = ask(WELL, "DELETE /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_requests_body_is_never_waited_for() {
    let begun = Instant::now();
    let refused = ask(WELL, "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    assert!(begun.elapsed() <= HEAD_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_closed_after_the_time_for_a_head() {
    for said in ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"] {
        let begun = Instant::now();
        ask(WELL, said).await;
        assert_eq!(begun.elapsed().as_secs(), HEAD_WAIT.as_secs(), "{said:?}");
    }
}

/// Asks one of many, and what came of it.
async fn healthz(clients: &mpsc::Sender<Option<DuplexStream>>) -> String {
    let mut client = connect(clients).await;
    client.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn clients_that_do_nothing_delay_no_other_and_the_longest_waiting_goes_first() {
    let (clients, rejections) = served_at(address(), WELL);
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(connect(&clients).await);
    }
    silent[1].write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let begun = Instant::now();
    for _ in 0..3 {
        assert!(healthz(&clients).await.ends_with("ok\n"));
    }
    assert_eq!((begun.elapsed(), rejections.counts()["evicted"]), (Duration::ZERO, 1), "one place was enough for all three");
    assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(begun.elapsed(), Duration::ZERO, "the first one had to go");
    for _ in 0..10 * CONNECTIONS {
        silent.push(connect(&clients).await);
        assert!(healthz(&clients).await.ends_with("ok\n"));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn clients_that_do_not_read_their_answer_keep_no_other_out() {
    let clients = served(WELL);
    let mut stuck = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        let (mut near, far) = duplex(64);
        clients.send(Some(far)).await.unwrap();
        near.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        yield_now().await;
        stuck.push(near);
    }
    let begun = Instant::now();
    assert!(healthz(&clients).await.ends_with("ok\n"));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_reset_when_all_others_are_worked_on() {
    let (clients, rejections) = served_at(address(), Shown { healthy: None, ..WELL });
    let mut asking = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = connect(&clients).await;
        client.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
        asking.push(client);
    }
    sleep(Duration::from_millis(1)).await;
    let mut surplus = connect(&clients).await;
    assert_eq!(surplus.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(rejections.counts(), [("evicted", 0), ("full", 1), ("wrong_host", 0), ("removal", 0)].into());
    for mut client in asking {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    }
}

async fn code(listener: &str, request: &str) -> (String, u64) {
    let (clients, rejections) = served_at(listener.parse().unwrap(), WELL);
    let mut client = connect(&clients).await;
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    (answer.split(' ').nth(1).unwrap_or_default().to_owned(), rejections.counts()["wrong_host"])
}

#[tokio::test(start_paused = true)]
async fn what_tells_of_the_cluster_is_told_under_own_names_only() {
    let hosts = [
        ("127.0.0.1:7446", "127.0.0.1:7446", true),
        ("127.0.0.1:7446", "127.0.0.1", true),
        ("127.0.0.1:7446", "[::1]:9999", true),
        ("127.0.0.1:7446", "LocalHost:9999", true),
        ("127.0.0.1:7446", "localhost.", true),
        ("127.0.0.1:7446", "Worker-1:7446", true),
        ("127.0.0.1:7446", "worker-1.", true),
        ("10.0.0.1:7446", "10.0.0.1:7446", true),
        ("10.0.0.1:7446", "10.0.0.7:7446", false),
        ("0.0.0.0:7446", "10.0.0.7:7446", true),
        ("[::]:7446", "10.0.0.7:7446", true),
        ("[::]:7446", "[::ffff:10.0.0.7]", true),
        ("0.0.0.0:7446", "10.0.0.8:7446", false),
        ("127.0.0.1:7446", "evil.example", false),
        ("127.0.0.1:7446", "127.0.0.1.evil.example", false),
        ("127.0.0.1:7446", "localhost.evil.example:7446", false),
        ("127.0.0.1:7446", "worker-1.evil.example", false),
        ("127.0.0.1:7446", "evil.example:7446@localhost", false),
        ("127.0.0.1:7446", "localhost@evil.example", false),
        ("127.0.0.1:7446", "", false),
        ("127.0.0.1:7446", "a b", false),
    ];
    for (listener, host, own) in hosts {
        for path in ["/status", "/metrics"] {
            let found = code(listener, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
            let expected = if own { ("200".to_owned(), 0) } else { ("421".to_owned(), 1) };
            assert_eq!(found, expected, "{path} of {host:?} at {listener}");
        }
    }
    let two = "GET /status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(code("127.0.0.1:7446", two).await.0, "421");
    let in_line = "GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(code("127.0.0.1:7446", in_line).await.0, "421");
    assert_eq!(code("127.0.0.1:7446", "GET /status HTTP/1.0\r\n\r\n").await.0, "200", "no browser asks so");
    for path in ["/healthz", "/readyz", "/"] {
        let found = code("127.0.0.1:7446", &format!("GET {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(found.0, "200", "{path} tells nothing of the cluster, and checks come under any name");
    }
}

/// The code of the answer to a POST of a body, and what it says.
async fn forget(head: &str, body: &[u8]) -> (u16, String) {
    let (clients, rejections) = served_at(address(), WELL);
    let mut client = connect(&clients).await;
    let head = format!("POST /forget HTTP/1.1\r\nConnection: close\r\n{head}\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    // Whoever is refused before it has said all notices that the connection is closed.
    let _ = client.write_all(body).await;
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(rejections.counts()["removal"], u64::from(code == 403));
    (code, body.to_owned())
}

const KIND: &str = "Host: localhost\r\nContent-Type: application/octet-stream\r\n";

#[tokio::test(start_paused = true)]
async fn a_signed_removal_is_the_one_thing_that_is_taken() {
    let length = |bytes: usize| format!("{KIND}Content-Length: {bytes}\r\n");
    assert_eq!(forget(&length(6), b"signed").await, (200, "cp-3 is removed up to generation 7\n".to_owned()));
    assert_eq!(forget(&length(6), b"forged").await, (403, "the signature does not verify\n".to_owned()));
    assert_eq!(forget(&length(0), b"").await.0, 503);
    for head in ["Host: localhost\r\n", "Host: localhost\r\nContent-Type: text/plain\r\n"] {
        assert_eq!(forget(&format!("{head}Content-Length: 6\r\n"), b"signed").await.0, 415, "{head:?}");
    }
    let elsewhere = "Host: evil.example\r\nContent-Type: application/octet-stream\r\nContent-Length: 6\r\n";
    assert_eq!(forget(elsewhere, b"signed").await.0, 421);
    let asked = ask(WELL, "GET /forget HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(asked.starts_with("HTTP/1.1 405 ") && asked.contains("allow: POST"), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_large_a_slow_and_an_endless_removal_are_refused_in_time() {
    let begun = Instant::now();
    let megabyte = vec![b'x'; 1 << 20];
    assert_eq!(forget(&format!("{KIND}Content-Length: {}\r\n", megabyte.len()), &megabyte).await.0, 413);
    let chunk = [b"1000\r\n".as_slice(), &megabyte[..0x1000], b"\r\n"].concat().repeat(16);
    assert_eq!(forget(&format!("{KIND}Transfer-Encoding: chunked\r\n"), &chunk).await.0, 413);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(forget(&format!("{KIND}Content-Length: 6\r\n"), b"sig").await.0, 408);
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn removals_that_never_come_keep_no_other_out() {
    let clients = served(WELL);
    let mut slow = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        let mut client = connect(&clients).await;
        let head = format!("POST /forget HTTP/1.1\r\n{KIND}Content-Length: 6\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        yield_now().await;
        slow.push(client);
    }
    let begun = Instant::now();
    assert!(healthz(&clients).await.ends_with("ok\n"));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_endless_head_is_refused() {
    let answer = ask(WELL, &format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(2 * HEAD_BYTES))).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
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
