use std::sync::atomic::{AtomicU32, Ordering};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{RData, Record};
use tokio::net::UdpSocket;
use tokio::time::{advance, pause};

use std::fs;

use super::*;

/// Files of our own, with a name server that does not answer.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(hosts: &str) -> Files {
        let files = Files { directory: tempfile::tempdir().unwrap() };
        files.write("hosts", hosts);
        files.write("resolv.conf", "nameserver 127.255.255.254\noptions timeout:1 attempts:1\n");
        files
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.directory.path().join(name), content).unwrap();
    }

    fn resolver(&self) -> SystemResolver {
        SystemResolver::reading(self.directory.path().join("hosts"), self.directory.path().join("resolv.conf"))
    }
}

async fn addrs(resolver: &SystemResolver, name: &str) -> Vec<String> {
    resolver.lookup(name).await.unwrap().addrs.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_hosts_file_answers_with_all_addresses_of_both_families() {
    let files = Files::new("10.0.0.1 api API.example # the first\n10.0.0.2\tapi\nfd00::1 api.example\n");
    let resolver = files.resolver();
    assert_eq!(addrs(&resolver, "api").await, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(addrs(&resolver, "Api.Example.").await, ["10.0.0.1", "fd00::1"]);
    assert_eq!(resolver.lookup("api").await.unwrap().ttl, TTL_OF_FILES);
}

#[tokio::test]
async fn a_changed_hosts_file_is_noticed() {
    let files = Files::new("10.0.0.1 api\n");
    let resolver = files.resolver();
    assert_eq!(addrs(&resolver, "api").await, ["10.0.0.1"]);
    files.write("hosts", "10.0.0.22 api\n");
    pause();
    advance(LOOK_AGAIN).await;
    tokio::time::resume();
    assert_eq!(addrs(&resolver, "api").await, ["10.0.0.22"]);
}

#[tokio::test]
async fn localhost_never_leaves_the_machine() {
    let files = Files::new("");
    fs::remove_file(files.directory.path().join("hosts")).unwrap();
    fs::remove_file(files.directory.path().join("resolv.conf")).unwrap();
    let resolver = files.resolver();
    for name in ["localhost", "LOCALHOST.", "api.localhost"] {
        assert_eq!(addrs(&resolver, name).await, ["127.0.0.1", "::1"], "{name}");
    }
    assert_eq!(addrs(&resolver, "10.1.2.3").await, ["10.1.2.3"]);
}

#[tokio::test]
async fn without_a_resolv_conf_names_fail_with_the_reason_and_work_once_it_is_there() {
    let files = Files::new("10.0.0.1 api\n");
    let path = files.directory.path().join("resolv.conf");
    fs::remove_file(&path).unwrap();
    let resolver = files.resolver();
    let error = resolver.lookup("elsewhere.example").await.unwrap_err();
    assert_eq!(error.name, "elsewhere.example");
    assert!(error.reason.contains("resolv.conf"), "{error}");
    assert_eq!(addrs(&resolver, "api").await, ["10.0.0.1"]);
    files.write("resolv.conf", "search example\n");
    pause();
    advance(LOOK_AGAIN).await;
    tokio::time::resume();
    let error = resolver.lookup("elsewhere.example").await.unwrap_err();
    assert!(error.reason.contains("no nameservers"), "{error}");
}

#[tokio::test]
async fn what_is_no_name_is_told_so() {
    let files = Files::new("");
    let resolver = files.resolver();
    assert!(resolver.lookup(&"x".repeat(300)).await.unwrap_err().reason.contains("not a name"));
}

/// A name server on a loopback port: one A and one AAAA record for every name, with this TTL.
async fn name_server(ttl: u32) -> (TokioResolver, Arc<AtomicU32>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let question = query.queries[0].clone();
            let data = match question.query_type() {
                RecordType::A => RData::from(IpAddr::from([10, 0, 0, 1])),
                _ => RData::from(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])),
            };
            let mut answer = query.into_response();
            answer.add_answer(Record::from_rdata(question.name().clone(), ttl, data));
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    let mut connection = ConnectionConfig::udp();
    connection.port = port;
    let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    (build(config, ResolverOpts::default()).unwrap(), asked)
}

#[tokio::test]
async fn dns_answers_with_both_families_and_a_bounded_ttl_and_is_asked_each_time() {
    for (said, kept) in [(0, TTL_LEAST), (60, Duration::from_secs(60)), (86_400, TTL_MOST)] {
        let (dns, asked) = name_server(said).await;
        let lookup = ask(&dns, "api.example.").await.unwrap();
        let mut addrs = lookup.addrs;
        addrs.sort();
        assert_eq!(addrs, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(lookup.ttl, kept);
        ask(&dns, "api.example.").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 4, "nothing is cached below us");
    }
}
