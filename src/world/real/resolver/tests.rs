use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use super::*;

/// Files of our own, with a name server that does not answer.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(hosts: &str) -> Files {
        let files = Files { directory: tempfile::tempdir().unwrap() };
        files.write("hosts", hosts);
        files.write("resolv.conf", "nameserver 127.255.255.254\n");
        files
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.directory.path().join(name), content).unwrap();
    }

    fn resolver(&self, port: u16) -> SystemResolver {
        let file = |name| self.directory.path().join(name);
        SystemResolver { hosts: Hosts::new(file("hosts")), resolv_conf: ResolvConf::new(file("resolv.conf"), port) }
    }
}

type Told = Vec<(Family, Result<Lookup, String>)>;

async fn look_up(resolver: &SystemResolver, name: &str) -> (Told, Result<(), ResolveError>) {
    let told = Mutex::new(Told::new());
    let found = |family, answer: Result<Lookup, ResolveError>| {
        told.lock().unwrap().push((family, answer.map_err(|error| error.reason)));
    };
    let ended = resolver.lookup(name, &found).await;
    (told.into_inner().unwrap(), ended)
}

async fn addrs(resolver: &SystemResolver, name: &str) -> Vec<String> {
    let (told, ended) = look_up(resolver, name).await;
    ended.unwrap();
    told.into_iter().flat_map(|(_, answer)| answer.unwrap().addrs).map(|addr| addr.to_string()).collect()
}

async fn reason(resolver: &SystemResolver, name: &str) -> String {
    let (told, ended) = look_up(resolver, name).await;
    assert_eq!(told, []);
    ended.unwrap_err().reason
}

#[tokio::test]
async fn the_hosts_file_answers_with_all_addresses_of_both_families() {
    let files = Files::new("10.0.0.1 api API.example # the first\n10.0.0.2\tapi\nfd00::1 api.example\n");
    let resolver = files.resolver(1);
    assert_eq!(addrs(&resolver, "api").await, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(addrs(&resolver, "Api.Example.").await, ["10.0.0.1", "fd00::1"]);
    let (told, _) = look_up(&resolver, "api").await;
    assert!(told.iter().all(|(_, answer)| answer.as_ref().is_ok_and(|lookup| lookup.complete && lookup.ttl == TTL_OF_FILES)));
}

#[tokio::test]
async fn a_changed_file_is_noticed_and_one_that_cannot_be_read_says_what_it_said() {
    let files = Files::new("10.0.0.1 api\n");
    let resolver = files.resolver(1);
    assert_eq!(addrs(&resolver, "api").await, ["10.0.0.1"]);
    files.write("hosts", "10.0.0.22 api\n");
    assert_eq!(addrs(&resolver, "api").await, ["10.0.0.22"]);
    std::fs::remove_file(files.directory.path().join("hosts")).unwrap();
    std::fs::create_dir(files.directory.path().join("hosts")).unwrap();
    assert_eq!(addrs(&resolver, "api").await, ["10.0.0.22"]);
}

#[tokio::test]
async fn localhost_never_leaves_the_machine() {
    let files = Files::new("");
    std::fs::remove_file(files.directory.path().join("hosts")).unwrap();
    std::fs::remove_file(files.directory.path().join("resolv.conf")).unwrap();
    let resolver = files.resolver(1);
    for name in ["localhost", "LOCALHOST.", "api.localhost"] {
        assert_eq!(addrs(&resolver, name).await, ["127.0.0.1", "::1"], "{name}");
    }
}

#[tokio::test]
async fn what_is_no_name_is_told_so() {
    let files = Files::new("");
    assert!(reason(&files.resolver(1), &"x".repeat(300)).await.contains("not a name"));
}

/// What a scripted name server answers to a question: nothing at all, or a code and records.
type Answers = fn(&Name, RecordType) -> Option<(ResponseCode, Vec<(Name, u32, RData)>)>;

/// A name server at 127.0.0.`host`, for the same port as others of the test.
async fn name_server(host: u8, port: u16, answers: Answers) -> (u16, Arc<AtomicU32>) {
    let socket = Arc::new(UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), port)).await.unwrap());
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
            let socket = socket.clone();
            tokio::spawn(async move {
                let asked = question.clone();
                // One that takes its time holds up no other.
                let (tell, told) = tokio::sync::oneshot::channel();
                std::thread::spawn(move || tell.send(answers(asked.name(), asked.query_type())));
                let Some((code, records)) = told.await.unwrap() else { return };
                let mut answer = query.into_response();
                answer.metadata.response_code = code;
                answer.metadata.recursion_available = true;
                answer.add_answers(records.into_iter().map(|(name, ttl, data)| Record::from_rdata(name, ttl, data)));
                // What is not for us does no harm: another id, another question, noise.
                let mut other = answer.clone();
                other.metadata.id = answer.metadata.id.wrapping_add(1);
                other.answers.clear();
                socket.send_to(&other.to_vec().unwrap(), from).await.unwrap();
                socket.send_to(b"noise", from).await.unwrap();
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            });
        }
    });
    (port, asked)
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn here(kind: RecordType) -> RData {
    match kind {
        RecordType::A => RData::from(IpAddr::from([10, 0, 0, 1])),
        _ => RData::from(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])),
    }
}

/// An agent's resolver and the name servers it asks, in this order.
async fn asking(servers: &[Answers], more: &str) -> (SystemResolver, Files, Vec<Arc<AtomicU32>>) {
    let files = Files::new("");
    let (mut port, mut counts, mut text) = (0, Vec::new(), more.to_owned());
    for (place, answers) in servers.iter().enumerate() {
        let host = u8::try_from(place).unwrap() + 1;
        let (bound, count) = name_server(host, port, *answers).await;
        port = bound;
        counts.push(count);
        text.push_str(&format!("nameserver 127.0.0.{host}\n"));
    }
    files.write("resolv.conf", text);
    (files.resolver(port), files, counts)
}

#[tokio::test]
async fn dns_answers_with_both_families_and_a_bounded_ttl_and_is_asked_each_time() {
    let answers: [(Answers, Duration); 3] = [
        (|name, kind| Some((ResponseCode::NoError, vec![(name.clone(), 0, here(kind))])), TTL_LEAST),
        (|name, kind| Some((ResponseCode::NoError, vec![(name.clone(), 60, here(kind))])), Duration::from_secs(60)),
        (|name, kind| Some((ResponseCode::NoError, vec![(name.clone(), 86_400, here(kind))])), TTL_MOST),
    ];
    for (answers, kept) in answers {
        let (resolver, _files, asked) = asking(&[answers], "").await;
        let mut found = addrs(&resolver, "api.example.").await;
        found.sort();
        assert_eq!(found, ["10.0.0.1", "fd00::1"]);
        let (told, _) = look_up(&resolver, "api.example.").await;
        assert!(told.iter().all(|(_, answer)| answer.as_ref().is_ok_and(|lookup| lookup.ttl == kept && !lookup.complete)));
        assert_eq!(asked[0].load(Ordering::SeqCst), 4, "nothing is cached below us");
    }
}

#[tokio::test]
async fn an_alias_leads_to_its_addresses_in_whatever_order_they_stand_and_nothing_else_does() {
    let answers: Answers = |asked, kind| {
        let alias = |to: &str| RData::CNAME(CNAME(name(to)));
        let records = vec![
            (name("c.example."), 60, here(kind)),
            (name("B.example."), 50, alias("c.example.")),
            (name("other.example."), 1, RData::from(IpAddr::from([10, 9, 9, 9]))),
            (asked.clone(), 70, alias("b.EXAMPLE.")),
            (name("c.example."), 60, RData::from(IpAddr::from([0, 0, 0, 0]))),
        ];
        Some((ResponseCode::NoError, records))
    };
    let (resolver, _files, _) = asking(&[answers], "options no-aaaa\n").await;
    let (told, ended) = look_up(&resolver, "api.example.").await;
    ended.unwrap();
    let lookup = |family| told.iter().find(|(of, _)| *of == family).unwrap().1.clone().unwrap();
    assert_eq!(lookup(Family::V4).addrs, [IpAddr::from([10, 0, 0, 1])]);
    assert_eq!(lookup(Family::V4).ttl, Duration::from_secs(50));
    assert_eq!(lookup(Family::V6).addrs, [] as [IpAddr; 0]);
}

#[tokio::test]
async fn names_that_do_not_exist_and_servers_that_fail_are_told_apart() {
    let (resolver, _files, _) = asking(&[|_, _| Some((ResponseCode::NXDomain, vec![]))], "").await;
    assert_eq!(reason(&resolver, "api.example.").await, "there is no such name");
    let (resolver, _files, _) = asking(&[|_, _| Some((ResponseCode::NoError, vec![]))], "").await;
    assert_eq!(reason(&resolver, "api.example.").await, "the name has no address");
    let refuses: Answers = |_, _| Some((ResponseCode::Refused, vec![]));
    let (resolver, _files, _) = asking(&[refuses, refuses], "").await;
    let told = reason(&resolver, "api.example.").await;
    assert!(told.starts_with("127.0.0.1: answers") && told.contains("127.0.0.2: answers"), "{told}");
    let closed = Files::new("");
    closed.write("resolv.conf", "nameserver 127.0.0.9\nnameserver fe80::1%no-such-one\n");
    let told = reason(&closed.resolver(1), "api.example.").await;
    assert!(told.contains("127.0.0.9: Connection refused") && told.contains("no-such-one"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_earlier_server_that_is_slow_overrules_a_later_one_that_knows_no_such_name() {
    let knows: Answers = |name, kind| {
        std::thread::sleep(Duration::from_millis(500));
        Some((ResponseCode::NoError, vec![(name.clone(), 60, here(kind))]))
    };
    let denies: Answers = |_, _| Some((ResponseCode::NXDomain, vec![]));
    let (resolver, _files, _) = asking(&[knows, denies], "options no-aaaa\n").await;
    assert_eq!(addrs(&resolver, "api.example.").await, ["10.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nor_is_the_address_taken_that_a_later_one_has_sooner() {
    let inside: Answers = |name, kind| {
        std::thread::sleep(Duration::from_millis(350));
        Some((ResponseCode::NoError, vec![(name.clone(), 60, here(kind))]))
    };
    let outside: Answers =
        |name, _| Some((ResponseCode::NoError, vec![(name.clone(), 60, RData::from(IpAddr::from([192, 0, 2, 1])))]));
    let (resolver, _files, _) = asking(&[inside, outside], "options no-aaaa\n").await;
    assert_eq!(addrs(&resolver, "api.example.").await, ["10.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn where_only_ipv6_is_denied_a_search_domain_waits_for_ipv4() {
    let answers: Answers = |asked, kind| match (*asked == name("api.example."), kind) {
        (true, RecordType::A) => {
            std::thread::sleep(Duration::from_millis(900));
            Some((ResponseCode::NoError, vec![(asked.clone(), 60, here(RecordType::A))]))
        }
        (true, _) => Some((ResponseCode::NXDomain, vec![])),
        _ => Some((ResponseCode::NoError, vec![(asked.clone(), 60, RData::from(IpAddr::from([192, 0, 2, 1])))])),
    };
    let (resolver, _files, _) = asking(&[answers], "search corp.example\n").await;
    assert_eq!(addrs(&resolver, "api.example").await, ["10.0.0.1"]);
}

/// As old ones do that know no EDNS: with a header and nothing else.
#[tokio::test]
async fn a_server_that_does_not_repeat_what_it_does_not_understand_is_asked_again_without_edns() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let (edns, question) = (query.edns.is_some(), query.queries[0].clone());
            let mut answer = query.into_response();
            if edns {
                answer.metadata.response_code = ResponseCode::FormErr;
                answer.queries.clear();
                answer.edns = None;
            } else {
                answer.metadata.recursion_available = true;
                answer.add_answer(Record::from_rdata(question.name().clone(), 60, here(question.query_type())));
            }
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    let files = Files::new("");
    files.write("resolv.conf", "nameserver 127.0.0.1\noptions edns0\n");
    let mut found = addrs(&files.resolver(port), "api.example.").await;
    found.sort();
    assert_eq!(found, ["10.0.0.1", "fd00::1"]);
}

#[tokio::test]
async fn a_server_that_was_silent_is_not_waited_for_again() {
    let silent: Answers = |_, _| None;
    let denies: Answers = |_, _| Some((ResponseCode::NXDomain, vec![]));
    let (resolver, _files, asked) = asking(&[silent, denies], "").await;
    let took = async || {
        let begin = Instant::now();
        assert_eq!(reason(&resolver, "api.example.").await, "there is no such name");
        begin.elapsed()
    };
    assert!(took().await >= Duration::from_secs(2), "it might have known better");
    assert!(took().await < Duration::from_secs(1));
    assert_eq!(asked[0].load(Ordering::SeqCst), 6, "it is asked all the same");
    sleep(Duration::from_millis(1)).await;
}
