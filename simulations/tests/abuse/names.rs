//! Names that have to be resolved although DNS misbehaves: whatever glibc resolves is resolved, and not later.
//!
//! Each test has a network and an /etc of its own, so that glibc and the agent ask the same name servers.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use simulations::lab::children::Process;
use simulations::lab::watcher::Watcher;
use tokio::time::{Instant, sleep};

use crate::dns::{Etc, FORMERR, NOTIMP, NameServer, Over, Question, REFUSED, Reply, SERVFAIL, glibc};
use crate::rig::{Agent, Rig, SOON, in_a_network_of_its_own, millis, secs, until};

/// The name that is asked for.
const NAME: &str = "api.cluster.example";
/// Where name servers answer.
const FIRST: &str = "127.0.0.53:53";
const SECOND: &str = "127.0.0.54:53";
/// An address of each family that answers as an apiserver does.
const SIX: &str = "fd00::11";
/// What a name may take that needs one answer.
const AT_ONCE: Duration = secs(1);
/// What a name may take when a name server has to be given up first.
const ONE_SILENT: Duration = secs(4);
/// How long glibc is watched.
const GLIBC: Duration = secs(2);

/// Runs a test in a network, and with an /etc, of its own.
fn alone(test: &str, story: impl AsyncFnOnce(Place) -> Result<()>) -> Result<()> {
    if !in_a_network_of_its_own(&format!("names::{test}"))? {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        ip("-6 addr add fd00::11/128 dev lo nodad")?;
        ip("-6 addr add fd00::12/128 dev lo nodad")?;
        let rig = Rig::new().await?;
        let etc = Etc::new(rig.dir())?;
        let apiserver = rig.apiserver(11).await?;
        story(Place { rig, etc, _apiserver: apiserver }).await
    })
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    ensure!(status.success(), "ip {arguments}: {status}");
    Ok(())
}

struct Place {
    rig: Rig,
    etc: Etc,
    _apiserver: Process,
}

impl Place {
    /// The address that the name has.
    fn four(&self) -> IpAddr {
        self.rig.endpoint(11).ip()
    }

    fn here(&self, ttl: u32) -> Reply {
        Reply::Is(vec![self.four()], ttl)
    }

    /// An agent whose only endpoint is this name.
    async fn agent(&self, name: &str) -> Result<Agent> {
        self.rig.agent().flag("--endpoint", format!("{name}:6443")).start().await
    }

    /// Starts an agent that asks for a name, and claims that it has the endpoint in time; and says what glibc needed.
    async fn resolves(&self, what: &str, name: &str, within: Duration) -> Result<Agent> {
        let (found, took) = glibc(name, GLIBC).await?;
        let glibc = if found.is_empty() { format!("nothing in {took:.1?}") } else { format!("{found:?} in {took:.1?}") };
        let agent = self.agent(name).await?;
        let ours = self.has(&agent, self.rig.endpoint(11), within).await;
        told(&format!("{what}: glibc {glibc}; prismesh {ours:.1?}"));
        ours.with_context(|| format!("{what}; glibc: {glibc}"))?;
        Ok(agent)
    }

    /// Waits until the agent has an endpoint.
    async fn has(&self, agent: &Agent, endpoint: SocketAddr, within: Duration) -> Result<Duration> {
        let what = format!("{endpoint} is an endpoint");
        let known = async || agent.upstream(endpoint).await.is_ok_and(|upstream| upstream.is_some());
        until(&what, within, known).await.with_context(|| agent.log())
    }
}

/// A name server that has the name in IPv4.
fn healthy(here: Reply) -> impl Fn(&Question) -> Reply + Send + Sync + 'static {
    move |question| match (question.name.as_str(), question.six) {
        (NAME, false) => here.clone(),
        (NAME, true) => Reply::NoData,
        _ => Reply::NxDomain,
    }
}

fn two_servers(more: &str) -> String {
    format!("nameserver 127.0.0.53\nnameserver 127.0.0.54\n{more}")
}

fn one_server(more: &str) -> String {
    format!("nameserver 127.0.0.53\n{more}")
}

#[test]
fn one_server_that_refuses_does_not_hide_the_other() -> Result<()> {
    alone("one_server_that_refuses_does_not_hide_the_other", async |place| {
        place.etc.write("resolv.conf", two_servers(""))?;
        // One that resolves takes longer than one that refuses to.
        let good_answers = || healthy(Reply::After(millis(50), Box::new(place.here(60))));
        for (what, code) in [("SERVFAIL", SERVFAIL), ("REFUSED", REFUSED), ("NOTIMP", NOTIMP), ("FORMERR", FORMERR)] {
            for (broken, good) in [(FIRST, SECOND), (SECOND, FIRST)] {
                let _broken = NameServer::start(broken.parse()?, Over::Both, move |_| Reply::Code(code)).await?;
                let _good = NameServer::start(good.parse()?, Over::Both, good_answers()).await?;
                place.resolves(&format!("{what} from {broken}"), NAME, AT_ONCE).await?;
            }
        }
        let _good = NameServer::start(SECOND.parse()?, Over::Both, healthy(place.here(60))).await?;
        place.resolves("the first's port is closed", NAME, AT_ONCE).await?;
        Ok(())
    })
}

#[test]
fn a_silent_server_does_not_hide_the_other() -> Result<()> {
    alone("a_silent_server_does_not_hide_the_other", async |place| {
        let _silent = NameServer::start(FIRST.parse()?, Over::Both, |_| Reply::Silence).await?;
        let _good = NameServer::start(SECOND.parse()?, Over::Both, healthy(place.here(60))).await?;
        place.etc.write("resolv.conf", two_servers(""))?;
        place.resolves("the first is silent", NAME, AT_ONCE).await?;
        place.etc.write("resolv.conf", two_servers("options timeout:30 attempts:5\n"))?;
        place.resolves("the first is silent, timeout:30", NAME, AT_ONCE).await?;
        place.etc.write("resolv.conf", two_servers("search a.example b.example c.example\noptions ndots:5\n"))?;
        place.resolves("the first is silent, ndots:5", NAME, ONE_SILENT).await?;
        Ok(())
    })
}

#[test]
fn swallowed_aaaa_queries_do_not_delay_ipv4() -> Result<()> {
    alone("swallowed_aaaa_queries_do_not_delay_ipv4", async |place| {
        let here = healthy(place.here(60));
        let swallows = move |question: &Question| if question.six { Reply::Silence } else { here(question) };
        let _server = NameServer::start(FIRST.parse()?, Over::Both, swallows).await?;
        let search = "search a.example b.example c.example\n";
        for (options, within) in [
            (String::new(), AT_ONCE),
            ("options timeout:7 attempts:4\n".to_owned(), AT_ONCE),
            (format!("{search}options ndots:5\n"), ONE_SILENT),
            (format!("{search}options ndots:5 timeout:7 attempts:4\n"), ONE_SILENT),
        ] {
            place.etc.write("resolv.conf", one_server(&options))?;
            place.resolves(&format!("AAAA swallowed, {options:?}"), NAME, within).await?;
        }
        Ok(())
    })
}

#[test]
fn swallowed_a_queries_do_not_delay_ipv6() -> Result<()> {
    alone("swallowed_a_queries_do_not_delay_ipv6", async |place| {
        let six: IpAddr = SIX.parse()?;
        let swallows = move |question: &Question| if question.six { Reply::Is(vec![six], 60) } else { Reply::Silence };
        let _server = NameServer::start(FIRST.parse()?, Over::Both, swallows).await?;
        place.etc.write("resolv.conf", one_server(""))?;
        let agent = place.agent(NAME).await?;
        place.has(&agent, SocketAddr::new(six, 6443), AT_ONCE).await?;
        Ok(())
    })
}

#[test]
fn a_family_that_fails_keeps_its_last_good_addresses() -> Result<()> {
    alone("a_family_that_fails_keeps_its_last_good_addresses", async |place| {
        let (four, six): (IpAddr, IpAddr) = (place.four(), SIX.parse()?);
        let questions = Arc::new(AtomicUsize::new(0));
        let asked = questions.clone();
        let answers = move |question: &Question| match question.six {
            false => Reply::Is(vec![four], 1),
            true if asked.fetch_add(1, Ordering::Relaxed) == 0 => Reply::Is(vec![six], 1),
            true => Reply::Code(SERVFAIL),
        };
        let _server = NameServer::start(FIRST.parse()?, Over::Both, answers).await?;
        place.etc.write("resolv.conf", one_server(""))?;
        let agent = place.agent(NAME).await?;
        let six = SocketAddr::new(six, 6443);
        place.has(&agent, six, AT_ONCE).await?;
        until("it has asked again", secs(15), async || questions.load(Ordering::Relaxed) >= 3).await?;
        sleep(millis(500)).await;
        ensure!(agent.upstream(six).await?.is_some(), "SERVFAIL has removed it:\n{}", agent.log());
        ensure!(agent.upstream(place.rig.endpoint(11)).await?.is_some(), "the other family as well:\n{}", agent.log());
        agent.is_sound().await
    })
}

#[test]
fn answers_that_rotate_through_subsets_keep_all_endpoints() -> Result<()> {
    alone("answers_that_rotate_through_subsets_keep_all_endpoints", async |place| {
        let all: Vec<IpAddr> = (11..=14).map(|host| place.rig.subnet.host(host)).collect();
        let (turns, questions) = (all.clone(), Arc::new(AtomicUsize::new(0)));
        let asked = questions.clone();
        let rotates = move |question: &Question| match question.six {
            true => Reply::NoData,
            false => Reply::Is(vec![turns[asked.fetch_add(1, Ordering::Relaxed) % turns.len()]], 1),
        };
        let _server = NameServer::start(FIRST.parse()?, Over::Both, rotates).await?;
        place.etc.write("resolv.conf", one_server(""))?;
        let agent = place.agent(NAME).await?;
        until("each was answered", secs(30), async || questions.load(Ordering::Relaxed) > 3).await?;
        sleep(millis(500)).await;
        for ip in all {
            ensure!(agent.upstream(SocketAddr::new(ip, 6443)).await?.is_some(), "{ip} is missing:\n{}", agent.log());
        }
        ensure!(agent.logged(&["endpoint left"]).is_empty(), "one has left:\n{}", agent.log());
        agent.is_sound().await
    })
}

#[test]
fn a_byte_that_is_not_utf_8_costs_nothing_of_the_files() -> Result<()> {
    alone("a_byte_that_is_not_utf_8_costs_nothing_of_the_files", async |place| {
        let four = place.four().to_string();
        place.etc.write("resolv.conf", "")?;
        let before = b"127.0.0.1 localhost\n10.0.0.1 m\xfcnchen # B\xfcro\n".to_vec();
        let line = format!("{four} {NAME} # B").into_bytes();
        place.etc.write("hosts", [before, line, b"\xfcro\r\n".to_vec()].concat())?;
        place.resolves("Latin-1 in the hosts file", NAME, AT_ONCE).await?;
        place.etc.write("hosts", "127.0.0.1 localhost\n")?;
        let _server = NameServer::start(FIRST.parse()?, Over::Both, healthy(place.here(60))).await?;
        place.etc.write("resolv.conf", b"# B\xfcro\nsearch m\xfcnchen.example\nnameserver 127.0.0.53 # B\xfcro\n")?;
        place.resolves("Latin-1 in resolv.conf", NAME, AT_ONCE).await?;
        Ok(())
    })
}

#[test]
fn a_huge_hosts_file_is_read_to_its_end_and_costs_little_memory() -> Result<()> {
    alone("a_huge_hosts_file_is_read_to_its_end_and_costs_little_memory", async |place| {
        place.etc.write("resolv.conf", "")?;
        let blocked = (0..700_000).map(|n| format!("0.0.0.0 blocked-{n}.advertising.example\n"));
        let mut hosts: String = blocked.collect();
        hosts.push_str(&format!("{} {NAME}\n", place.four()));
        ensure!(hosts.len() > 20 << 20, "{} bytes", hosts.len());
        place.etc.write("hosts", hosts)?;
        let agent = place.resolves("a hosts file of 28 MB", NAME, secs(10)).await?;
        let resident = crate::crowds::resident(agent.process.pid())?;
        ensure!(resident < 80.0 * 1024.0, "{resident} KiB");
        Ok(())
    })
}

#[test]
fn an_answer_is_used_whatever_is_wrong_behind_it() -> Result<()> {
    alone("an_answer_is_used_whatever_is_wrong_behind_it", async |place| {
        place.etc.write("resolv.conf", one_server(""))?;
        let addresses = vec![place.four()];
        let _first = NameServer::start(FIRST.parse()?, Over::Both, move |_| Reply::OneTooFew(addresses.clone())).await?;
        place.resolves("a record too few", NAME, AT_ONCE).await?;
        Ok(())
    })
}

#[test]
fn a_truncated_answer_is_used_where_tcp_is_refused() -> Result<()> {
    alone("a_truncated_answer_is_used_where_tcp_is_refused", async |place| {
        place.etc.write("resolv.conf", one_server(""))?;
        for over in [Over::Both, Over::Udp] {
            let here = Reply::Truncated(vec![place.four(), place.rig.subnet.host(12)]);
            let _server = NameServer::start(FIRST.parse()?, over, healthy(here)).await?;
            let agent = place.resolves(&format!("truncated, {over:?}"), NAME, AT_ONCE).await?;
            ensure!(over == Over::Udp || agent.upstream(place.rig.endpoint(12)).await?.is_some(), "all of it over TCP");
        }
        let _server = NameServer::start(FIRST.parse()?, Over::Tcp, healthy(place.here(60))).await?;
        place.etc.write("resolv.conf", one_server("options use-vc\n"))?;
        place.resolves("only TCP, use-vc", NAME, AT_ONCE).await?;
        place.etc.write("resolv.conf", one_server(""))?;
        place.resolves("only TCP", NAME, secs(6)).await?;
        Ok(())
    })
}

#[test]
fn a_link_local_name_server_is_asked_over_its_interface() -> Result<()> {
    alone("a_link_local_name_server_is_asked_over_its_interface", async |place| {
        ip("link add br-lan.7 type veth peer name far")?;
        ip("link set br-lan.7 up")?;
        ip("link set far up")?;
        ip("-6 addr add fe80::53/64 dev br-lan.7 nodad")?;
        let any = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        let index = rustix::net::netdevice::name_to_index(any, "br-lan.7")?;
        let at = SocketAddrV6::new("fe80::53".parse()?, 53, 0, index).into();
        let _server = NameServer::start(at, Over::Both, healthy(place.here(60))).await?;
        place.etc.write("resolv.conf", "nameserver fe80::53%br-lan.7\n")?;
        place.resolves("a link-local name server", NAME, AT_ONCE).await?;
        Ok(())
    })
}

#[test]
fn without_name_servers_in_resolv_conf_the_machine_itself_is_asked() -> Result<()> {
    alone("without_name_servers_in_resolv_conf_the_machine_itself_is_asked", async |place| {
        let _server = NameServer::start("127.0.0.1:53".parse()?, Over::Both, healthy(place.here(60))).await?;
        for (what, text) in [
            ("empty", ""),
            ("only comments", "; none\n# none\n"),
            ("only what nobody understands", "nameserver\nnameserver ::g\noptions no-such:1\nlookup file bind\n"),
        ] {
            place.etc.write("resolv.conf", text)?;
            place.resolves(&format!("resolv.conf: {what}"), NAME, AT_ONCE).await?;
        }
        place.etc.remove("resolv.conf")?;
        place.resolves("no resolv.conf", NAME, AT_ONCE).await?;
        Ok(())
    })
}

#[test]
fn whatever_glibc_reads_in_resolv_conf_is_read() -> Result<()> {
    alone("whatever_glibc_reads_in_resolv_conf_is_read", async |place| {
        let _server = NameServer::start(FIRST.parse()?, Over::Both, healthy(place.here(60))).await?;
        let _none = NameServer::start(SECOND.parse()?, Over::Both, |_| Reply::Code(REFUSED)).await?;
        for (text, name) in [
            ("nameserver\t127.0.0.53\r\noptions edns0 trust-ad\r\n", NAME),
            ("nameserver 127.0.0.53 # the first\n; a comment\n# another\nno-such-keyword x\n", NAME),
            ("options rotate no-such-option timeout:x ndots: single-request\nnameserver 127.0.0.53\n", NAME),
            ("nameserver 127.0.0.53\nsearch nowhere.example cluster.example\n", "api"),
            ("nameserver 127.0.0.53\ndomain cluster.example\n", "api"),
            ("nameserver 127.0.0.53\nsearch -- .. x..y cluster.example\n", "api"),
            ("nameserver 127.0.0.53\nsearch cluster.example\n", "api.cluster.example."),
            ("nameserver 127.0.0.54\nnameserver 127.0.0.54\nnameserver 127.0.0.53\nnameserver 127.0.0.54\n", NAME),
            ("nameserver 127.0.0.53\nnameserver 127.0.0.53\nnameserver 127.0.0.53\nnameserver 127.0.0.53\n", NAME),
        ] {
            place.etc.write("resolv.conf", text)?;
            place.resolves(&format!("{text:?}"), name, AT_ONCE).await?;
        }
        Ok(())
    })
}

#[test]
fn a_name_is_searched_for_as_glibc_does() -> Result<()> {
    alone("a_name_is_searched_for_as_glibc_does", async |place| {
        let (four, wrong) = (place.four(), place.rig.subnet.host(19));
        let six: IpAddr = SIX.parse()?;
        // The first domain has the name in IPv6 only, the second has another one in IPv4; a third cannot be asked.
        let answers = move |question: &Question| match (question.name.as_str(), question.six) {
            ("api.broken.example", _) => Reply::Code(SERVFAIL),
            ("api.six.example", true) => Reply::Is(vec![six], 60),
            ("api.six.example", false) => Reply::NoData,
            ("api.wrong.example", false) => Reply::Is(vec![wrong], 60),
            ("api.four.example", false) => Reply::Is(vec![four], 60),
            ("api.four.example" | "api.wrong.example", true) => Reply::NoData,
            _ => Reply::NxDomain,
        };
        let _server = NameServer::start(FIRST.parse()?, Over::Both, answers).await?;
        let at = |ip| SocketAddr::new(ip, 6443);
        for (search, right) in [
            ("six.example wrong.example", six),
            ("nowhere.example four.example wrong.example", four),
            ("broken.example four.example", four),
        ] {
            place.etc.write("resolv.conf", one_server(&format!("search {search}\n")))?;
            let (found, _) = glibc("api", GLIBC).await?;
            ensure!(found == [right], "glibc: {found:?}");
            let agent = place.agent("api").await?;
            place.has(&agent, at(right), AT_ONCE).await?;
            sleep(millis(700)).await;
            ensure!(agent.upstream(at(wrong)).await?.is_none(), "of another name, {search}:\n{}", agent.log());
        }
        Ok(())
    })
}

#[test]
fn an_endpoint_that_left_the_configuration_is_watched_while_it_has_connections() -> Result<()> {
    alone("an_endpoint_that_left_the_configuration_is_watched_while_it_has_connections", async |place| {
        let rig = &place.rig;
        let mut other = rig.apiserver(12).await?;
        let config = rig.dir().join("prismesh.yaml");
        std::fs::write(&config, format!("endpoint:\n  - {}\n", rig.endpoint(12)))?;
        let mut agent = rig.agent().flag("--config", &config).ready(&[12]).await?;
        let watcher = Watcher::start(rig.client(&agent, "/watch")?);
        until("the stream begins", SOON, async || watcher.current().is_some()).await?;
        std::fs::write(&config, format!("endpoint:\n  - {}\n", rig.endpoint(11)))?;
        agent.process.signal(Signal::HUP)?;
        agent.becomes(rig.endpoint(11), "ready", SOON).await?;
        sleep(secs(2)).await;
        other.signal(Signal::STOP)?;
        let begin = Instant::now();
        let first = watcher.streams().len();
        let moved = until("the stream of the hung one is given up", secs(14), async || watcher.streams().len() > first).await;
        other.signal(Signal::CONT)?;
        moved.with_context(|| agent.log())?;
        told(&format!("given up after {:.1?}", begin.elapsed()));
        until("it has left", SOON, async || agent.verdict(rig.endpoint(12)).await.is_empty())
            .await
            .with_context(|| agent.log())?;
        agent.is_sound().await
    })
}

#[expect(clippy::print_stderr, reason = "the figures are what a person wants to know")]
fn told(text: &str) {
    eprintln!("{text}");
}
