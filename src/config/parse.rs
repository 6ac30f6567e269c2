//! The grammar of single values: text in, a valid type or what is wrong with it out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use ipnet::IpNet;
use rustls_pki_types::ServerName;
use tracing_subscriber::EnvFilter;

use super::error::{Wrong, quoted};
use super::{Host, HostPort, LogFormat, Target};
use crate::engine::policy::NODES_OF_AN_ADDRESS;

/// Bytes of a cluster's id at most.
pub(super) const CLUSTER_MOST: usize = 64;
/// Bytes of a node's name at most: as Kubernetes has it.
pub(super) const NODE_MOST: usize = 253;
/// Bytes of a DNS name at most (RFC 1035).
const NAME_MOST: usize = 253;
/// Bytes of one label of a DNS name at most (RFC 1035).
const LABEL_MOST: usize = 63;

/// A cluster's id.
pub(super) fn cluster(text: &str) -> Result<String, Wrong> {
    let right = format!("give the cluster an id of 1 to {CLUSTER_MOST} bytes, the same on all its nodes");
    match text {
        "" => Err(Wrong::new("the cluster's id is empty", right)),
        _ if text.len() > CLUSTER_MOST => Err(Wrong::new(format!("the cluster's id has {} bytes", text.len()), right)),
        _ if text.chars().any(char::is_control) => Err(Wrong::new("the cluster's id has control characters", right)),
        _ => Ok(text.to_owned()),
    }
}

/// A node's name.
pub(super) fn node(text: &str) -> Result<String, Wrong> {
    let right = format!("name the node with 1 to {NODE_MOST} printable ASCII characters and no spaces");
    match text {
        "" => Err(Wrong::new("the node's name is empty", right)),
        _ if text.len() > NODE_MOST => Err(Wrong::new(format!("the node's name has {} bytes", text.len()), right)),
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(Wrong::new(format!("{} is no node name", quoted(text)), right))
        }
        _ => Ok(text.to_owned()),
    }
}

/// Whether a name is what a machine is called that nobody has named yet.
pub(super) fn is_placeholder(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    ["", "(none)", "localhost", "localhost4", "localhost6"].iter().any(|placeholder| first.eq_ignore_ascii_case(placeholder))
}

/// An address where we listen: port 0 is allowed.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Wrong> {
    let addr = socket_addr(text, "IP:PORT, such as 127.0.0.1:7445 or [::1]:7445; port 0 takes a free one")?;
    if addr.ip().is_multicast() {
        return Err(Wrong::new(format!("{addr} is a multicast address"), "write an address of this machine"));
    }
    Ok(addr)
}

/// An address that somebody dials: port 0, and what no host has, are refused.
pub(super) fn dialled(text: &str) -> Result<SocketAddr, Wrong> {
    let addr = socket_addr(text, "IP:PORT, such as 10.0.0.11:6443 or [fd00::11]:6443")?;
    dialled_port(addr.port())?;
    dialled_ip(addr.ip())?;
    Ok(addr)
}

fn dialled_port(port: u16) -> Result<(), Wrong> {
    if port == 0 {
        return Err(Wrong::new("port 0 cannot be dialled", "write the port that it listens on, 1 to 65535"));
    }
    Ok(())
}

fn dialled_ip(ip: IpAddr) -> Result<(), Wrong> {
    let why = if ip.is_unspecified() {
        "means any address and cannot be dialled"
    } else if ip.is_multicast() || ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) {
        "is not the address of one host"
    } else {
        return Ok(());
    };
    Err(Wrong::new(format!("{ip} {why}"), "write an address that one host has"))
}

/// An address in canonical form: never an IPv4 address mapped into IPv6.
fn socket_addr(text: &str, right: &str) -> Result<SocketAddr, Wrong> {
    let write = format!("write {right}");
    if let Ok(addr) = SocketAddr::from_str(text) {
        return Ok(canonical(addr));
    }
    let (host, port) = split(text).map_err(|what| Wrong::new(what, write.clone()))?;
    let port = port_number(port, &write)?;
    match host_ip(host) {
        Some(ip) => Ok(canonical(SocketAddr::new(ip, port))),
        None => Err(Wrong::new(format!("{} is not an IP address", quoted(host)), write)),
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(six) => match six.ip().to_ipv4_mapped() {
            Some(four) => SocketAddrV4::new(four, six.port()).into(),
            None => SocketAddrV6::new(*six.ip(), six.port(), 0, six.scope_id()).into(),
        },
        SocketAddr::V4(_) => addr,
    }
}

/// Splits at the last colon; what stands before it is not empty and holds a colon only inside brackets.
fn split(text: &str) -> Result<(&str, &str), String> {
    if text.is_empty() {
        return Err("the address is empty".to_owned());
    }
    if Ipv6Addr::from_str(text).is_ok() {
        return Err(format!("{} has no port, or no brackets around its IPv6 address", quoted(text)));
    }
    match text.rsplit_once(':') {
        Some((_, port)) if port.contains(']') => Err(format!("{} has no port", quoted(text))),
        Some(("", _)) => Err(format!("{} has no host", quoted(text))),
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
            Err(format!("{} has more than one colon, and no brackets around an IPv6 address", quoted(text)))
        }
        Some(parts) => Ok(parts),
        None => Err(format!("{} has no port", quoted(text))),
    }
}

fn port_number(text: &str, right: &str) -> Result<u16, Wrong> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { text.parse().ok() } else { None };
    port.ok_or_else(|| Wrong::new(format!("{} is not a port, which is 0 to 65535", quoted(text)), right))
}

fn host_ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(six) => Ipv6Addr::from_str(six).ok().map(|six| IpAddr::V6(six).to_canonical()),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    }
}

impl FromStr for HostPort {
    type Err = Wrong;

    /// `name:port`, `1.2.3.4:port` or `[::1]:port`; names in lower case, addresses in canonical form.
    fn from_str(text: &str) -> Result<HostPort, Wrong> {
        const RIGHT: &str = "write HOST:PORT, such as cp1.example:6443, 10.0.0.11:6443 or [fd00::11]:6443";
        let (host, port) = split(text).map_err(|what| Wrong::new(what, RIGHT))?;
        let port = port_number(port, RIGHT)?;
        dialled_port(port)?;
        let host = match host_ip(host) {
            Some(ip) => {
                dialled_ip(ip)?;
                Host::Ip(ip)
            }
            None => Host::Name(dns_name(host).map_err(|what| Wrong::new(what, RIGHT))?),
        };
        Ok(HostPort { host, port })
    }
}

/// A DNS name, in lower case. A final dot, which keeps search domains away, is kept.
fn dns_name(text: &str) -> Result<String, String> {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let fine = |label: &str| {
        (1..=LABEL_MOST).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if labels.len() > NAME_MOST || !labels.split('.').all(fine) {
        return Err(format!("{} is neither an address nor a host name", quoted(text)));
    }
    let last = labels.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is not an IP address", quoted(text)));
    }
    Ok(text.to_ascii_lowercase())
}

impl FromStr for Target {
    type Err = Wrong;

    /// `HOST:PORT`, and after a comma `server-name=NAME`.
    fn from_str(text: &str) -> Result<Target, Wrong> {
        const RIGHT: &str = "write HOST:PORT or HOST:PORT,server-name=NAME, in quotes inside a bracketed YAML list";
        let Some((at, option)) = text.split_once(',') else {
            if text.starts_with("server-name=") {
                return Err(Wrong::new(format!("{} has no HOST:PORT before it", quoted(text)), RIGHT));
            }
            return Ok(Target { at: text.parse()?, server_name: None });
        };
        let Some(name) = option.strip_prefix("server-name=") else {
            return Err(Wrong::new(format!("{} is not an option of an endpoint", quoted(option)), RIGHT));
        };
        Ok(Target { at: at.parse()?, server_name: Some(server_name(name)?) })
    }
}

/// A name that a certificate can cover: a DNS name or an address.
pub(super) fn server_name(text: &str) -> Result<String, Wrong> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Wrong::new(
            format!("{} is no name that a certificate can cover", quoted(text)),
            "write a DNS name or an IP address",
        )),
    }
}

/// A network.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    const RIGHT: &str = "write ADDRESS/PREFIX, such as 10.0.0.0/8 or fd00::/8";
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| Wrong::new(format!("{} is not a network", quoted(text)), RIGHT))
}

/// A number of connections.
pub(super) fn connections(text: &str) -> Result<usize, Wrong> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number > 0 => Ok(number),
        _ => Err(Wrong::new(format!("{} is not a number of connections", quoted(text)), "write a whole number, 1 or more")),
    }
}

/// True or false.
pub(super) fn truth(text: &str) -> Result<bool, Wrong> {
    text.parse().map_err(|_| Wrong::new(format!("{} is neither", quoted(text)), "write true or false"))
}

/// A number of nodes at one address.
pub(super) fn names(text: &str) -> Result<usize, Wrong> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && (1..=NODES_OF_AN_ADDRESS).contains(&number) => Ok(number),
        _ => Err(Wrong::new(
            format!("{} is not a number of nodes at one address", quoted(text)),
            format!("write a whole number from 1 to {NODES_OF_AN_ADDRESS}"),
        )),
    }
}

/// How logs are written.
pub(super) fn log_format(text: &str) -> Result<LogFormat, Wrong> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err(Wrong::new(format!("{} is not a log format", quoted(text)), "write human or json")),
    }
}

/// What is logged. ASCII only: the filter's own parser panics on some other characters.
pub(super) fn log(text: &str) -> Result<String, Wrong> {
    let fine = text.is_ascii() && !text.trim().is_empty();
    match fine.then(|| EnvFilter::builder().parse(text)) {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err(Wrong::new(
            format!("{} is not a log filter", quoted(text)),
            "write error, warn, info, debug, trace, or a list such as info,prismesh::gossip=debug",
        )),
    }
}

/// A path of a file or directory.
pub(super) fn path(text: &str) -> Result<std::path::PathBuf, Wrong> {
    if text.is_empty() || text.contains('\0') {
        return Err(Wrong::new(format!("{} is not a path", quoted(text)), "write the path of a file or directory"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host_port(text: &str) -> Result<HostPort, String> {
        text.parse().map_err(|wrong: Wrong| wrong.to_string())
    }

    #[test]
    fn a_host_is_a_name_or_an_address_in_canonical_form() {
        for (given, shown) in [
            ("10.0.0.1:6443", "10.0.0.1:6443"),
            ("[FD00::1]:6443", "[fd00::1]:6443"),
            ("[::ffff:10.0.0.1]:6443", "10.0.0.1:6443"),
            ("API.Example:1", "api.example:1"),
            ("api.example.:65535", "api.example.:65535"),
            ("my_host-1:80", "my_host-1:80"),
        ] {
            assert_eq!(host_port(given).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_bad_host_and_port_is_refused_with_what_is_wrong() {
        for (given, what) in [
            ("", "the address is empty"),
            ("host", "has no port"),
            (":6443", "has no host"),
            ("host:", "is not a port"),
            ("host:0", "port 0 cannot be dialled"),
            ("host:70000", "\"70000\" is not a port, which is 0 to 65535"),
            ("host:+80", "is not a port"),
            ("::1", "no brackets"),
            ("::1:6443", "no brackets"),
            ("fd00::1:x", "no brackets"),
            ("[::1]", "has no port"),
            ("[::1:6443", "neither an address nor a host name"),
            ("[10.0.0.1]:6443", "neither an address nor a host name"),
            ("256.1.1.1:6443", "is not an IP address"),
            ("10.0.0:6443", "is not an IP address"),
            ("0.0.0.0:6443", "cannot be dialled"),
            ("[::]:6443", "cannot be dialled"),
            ("224.0.0.1:6443", "is not the address of one host"),
            ("a..b:1", "neither"),
            ("-a:1", "neither"),
            ("a b:1", "neither"),
            ("https://a:1", "more than one colon"),
        ] {
            let error = host_port(given).expect_err(given);
            assert!(error.contains(what), "{given:?}: {error}");
        }
    }

    #[test]
    fn a_listener_may_have_port_0_and_what_is_dialled_may_not() {
        assert!(listen("127.0.0.1:0").is_ok());
        assert!(dialled("127.0.0.1:0").is_err());
        assert!(listen("[::]:7447").is_ok());
        assert!(dialled("[::]:7447").is_err());
        assert!(listen("localhost:7445").unwrap_err().to_string().contains("is not an IP address"));
        assert!(listen("127.0.0.1:70000").unwrap_err().to_string().contains("is not a port"));
        assert!(listen("239.0.0.1:7447").is_err());
    }

    #[test]
    fn an_endpoint_may_have_a_server_name_of_its_own() {
        let target: Target = "lb.example:6443,server-name=api.example".parse().unwrap();
        assert_eq!(target.server_name.as_deref(), Some("api.example"));
        for bad in ["lb:6443,", "lb:6443,server-name=", "lb:6443,name=x", "server-name=x", "lb:6443,server-name=a b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_have_bounds() {
        assert!(cluster(&"c".repeat(64)).is_ok());
        assert!(cluster(&"c".repeat(65)).is_err());
        assert!(cluster("").is_err());
        assert!(cluster("a\nb").is_err());
        assert!(node(&"n".repeat(253)).is_ok());
        assert!(node(&"n".repeat(254)).is_err());
        for bad in ["", "a b", "knöten", "a\tb"] {
            assert!(node(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn networks_numbers_and_filters_are_checked() {
        assert_eq!(network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        for bad in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8", ""] {
            assert!(network(bad).is_err(), "{bad:?}");
        }
        assert_eq!(connections("1").unwrap(), 1);
        for bad in ["0", "-1", "+1", "1e3", "", "many", "99999999999999999999999"] {
            assert!(connections(bad).is_err(), "{bad:?}");
        }
        assert_eq!((names("1").unwrap(), names("256").unwrap()), (1, 256));
        for bad in ["0", "257", "-1", "+1", "four", ""] {
            assert!(names(bad).is_err(), "{bad:?}");
        }
        assert_eq!((truth("true").unwrap(), truth("false").unwrap()), (true, false));
        for bad in ["yes", "1", "True", ""] {
            assert!(truth(bad).is_err(), "{bad:?}");
        }
        assert!(log("info,prismesh::gossip=debug").is_ok());
        assert!(log("prismesh=loud").is_err());
        assert!(log("").is_err());
    }

    fn any_host_port() -> impl Strategy<Value = HostPort> {
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(|six| IpAddr::from(six).to_canonical())
        ];
        let ip = ip.prop_filter("a host's address", |ip| dialled_ip(*ip).is_ok());
        let host =
            prop_oneof![ip.prop_map(Host::Ip), "[a-z][a-z0-9]{0,9}(\\.[a-z][a-z0-9-]{0,8}[a-z]){0,3}".prop_map(Host::Name)];
        (host, 1..=u16::MAX).prop_map(|(host, port)| HostPort { host, port })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed_again(at in any_host_port()) {
            prop_assert_eq!(at.to_string().parse::<HostPort>().unwrap(), at);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,80}") {
            let _ = text.parse::<Target>();
            let _ = listen(&text);
            let _ = dialled(&text);
            let _ = network(&text);
            let _ = node(&text);
            let _ = cluster(&text);
            let _ = log(&text);
        }

        #[test]
        fn no_filter_makes_the_filters_parser_panic(text in "[ -~\\t]{0,30}", directive in "[a-z:,=\\[\\]{}\"/*]{0,30}") {
            let _ = log(&text);
            let _ = log(&directive);
        }

        #[test]
        fn nothing_that_looks_like_an_address_makes_a_parser_panic(text in "[\\[\\]:.,0-9a-f=%-]{0,40}(,server-name=[a-z.]{0,9})?") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_ne!(target.at.port, 0);
                prop_assert_eq!(&target.to_string().parse::<Target>().unwrap(), &target);
            }
            let _ = listen(&text);
        }
    }
}
