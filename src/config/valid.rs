//! From merged text to a valid [`Config`]: every value parsed, and what must fit together checked together.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::error::{ConfigError, Wrong};
use super::layer::{Layer, Written};
use super::setting::Setting;
use super::{Config, GossipConfig, Host, Listen, ProbeCredentials, Target, parse};
use crate::engine::policy;

/// Parses the merged settings. `file` is only noted.
pub(super) fn config(given: &Layer, file: Option<PathBuf>) -> Result<Config, ConfigError> {
    let apiservers = apiservers(given)?;
    let config = Config {
        cluster: required(given, Setting::Cluster, parse::cluster)?,
        node: node(given)?,
        listen: listeners(given)?,
        admin: admin(given)?,
        gossip: gossip(given)?,
        local_apiserver: local_apiserver(given, &apiservers)?,
        apiservers,
        external: all(given, Setting::External, str::parse)?,
        endpoints: all(given, Setting::Endpoint, str::parse)?,
        ca: one(given, Setting::Ca, parse::path)?,
        server_name: required(given, Setting::ServerName, parse::server_name)?,
        probe_credentials: probe_credentials(given)?,
        allow: all(given, Setting::Allow, parse::network)?,
        max_connections: one(given, Setting::MaxConnections, parse::connections)?,
        state_dir: required(given, Setting::StateDir, parse::path)?,
        log_format: required(given, Setting::LogFormat, parse::log_format)?,
        log: required(given, Setting::Log, parse::log)?,
        file,
    };
    check_number_of_endpoints(given, &config)?;
    check_own_listeners(given, &config)?;
    check_advertised(given, &config)?;
    check_reachable(given, &config)?;
    Ok(config)
}

fn parsed<T>(setting: Setting, written: &Written, parse: impl Fn(&str) -> Result<T, Wrong>) -> Result<T, ConfigError> {
    parse(&written.text).map_err(|wrong| wrong.at(written.origin.of(setting)))
}

/// The value of a setting that may be missing.
fn one<T>(given: &Layer, setting: Setting, parse: impl Fn(&str) -> Result<T, Wrong>) -> Result<Option<T>, ConfigError> {
    given.value(setting).map(|written| parsed(setting, written, parse)).transpose()
}

fn required<T>(given: &Layer, setting: Setting, parse: impl Fn(&str) -> Result<T, Wrong>) -> Result<T, ConfigError> {
    one(given, setting, parse)?.ok_or_else(|| missing(setting, "it is required"))
}

fn missing(setting: Setting, why: &str) -> ConfigError {
    let right = format!("give --{setting} {}, {}, or {setting}: in the file", setting.about().value, setting.variable());
    ConfigError::new(setting, format!("not set, and {why}"), right)
}

fn all<T>(given: &Layer, setting: Setting, parse: impl Fn(&str) -> Result<T, Wrong>) -> Result<Vec<T>, ConfigError> {
    given.values(setting).iter().map(|written| parsed(setting, written, &parse)).collect()
}

/// A name that a person has written is a name; what the machine is called may be none yet.
fn node(given: &Layer) -> Result<String, ConfigError> {
    let node = required(given, Setting::Node, parse::node)?;
    if given.written(Setting::Node) && parse::is_placeholder(&node) {
        let right = "write the name that `kubectl get nodes` shows, or leave it out: then the hostname is used";
        return Err(given.complaint(Setting::Node, format!("{node} is the name of every machine"), right));
    }
    Ok(node)
}

fn listeners(given: &Layer) -> Result<Vec<Listen>, ConfigError> {
    let written = given.written(Setting::Listen);
    let addrs = all(given, Setting::Listen, parse::listen)?;
    for (place_in_list, (addr, text)) in addrs.iter().zip(given.values(Setting::Listen)).enumerate() {
        if addr.port() != 0 && addrs.iter().take(place_in_list).any(|earlier| earlier == addr) {
            return Err(
                Wrong::new(format!("{addr} is given twice"), "give each address once").at(text.origin.of(Setting::Listen))
            );
        }
    }
    if addrs.is_empty() {
        return Err(match given.get(Setting::Listen) {
            Some(entry) => Wrong::new("no address to listen on", "give at least one").at(entry.origin.of(Setting::Listen)),
            None => missing(Setting::Listen, "clients need one"),
        });
    }
    Ok(addrs.into_iter().map(|addr| Listen { addr, written }).collect())
}

/// Where health, metrics and status are served.
pub(super) fn admin_addr(given: &Layer) -> Result<SocketAddr, ConfigError> {
    required(given, Setting::Admin, parse::listen)
}

fn admin(given: &Layer) -> Result<Listen, ConfigError> {
    let addr = admin_addr(given)?;
    let taken = all(given, Setting::Listen, parse::listen)?.contains(&addr);
    if taken && addr.port() != 0 {
        let text = given.value(Setting::Admin).map(|written| written.origin.of(Setting::Admin)).unwrap_or_default();
        return Err(Wrong::new(format!("{addr} is a listen address too"), "give each its own port").at(text));
    }
    Ok(Listen { addr, written: given.written(Setting::Admin) })
}

fn gossip(given: &Layer) -> Result<Option<GossipConfig>, ConfigError> {
    let advertise = one(given, Setting::GossipAdvertise, parse::dialled)?;
    let seeds = all(given, Setting::Seed, str::parse)?;
    let keyring = one(given, Setting::Keyring, parse::path)?;
    let listen = required(given, Setting::GossipListen, |text| match text {
        "off" => Ok(None),
        _ => parse::listen(text).map(Some),
    })?;
    let Some(addr) = listen else { return Ok(None) };
    let keyring = keyring.ok_or_else(|| {
        let right = "make one with `prismesh keygen FILE` and give --keyring FILE (PRISMESH_KEYRING, keyring: in the file), \
                     or turn gossip off with --gossip-listen off";
        ConfigError::new(Setting::Keyring, "not set, and gossip needs its keys", right)
    })?;
    let listen = Listen { addr, written: given.written(Setting::GossipListen) };
    let core = one(given, Setting::GossipCore, parse::truth)?;
    let control_plane = given.value(Setting::Apiserver).is_some();
    if let (Some(false), true, Some(written)) = (core, control_plane, given.value(Setting::GossipCore)) {
        let wrong = Wrong::new("a node with an apiserver is a core member of gossip", "leave it out, or write true");
        return Err(wrong.at(written.origin.of(Setting::GossipCore)));
    }
    let allow = all(given, Setting::GossipAllowCidr, parse::network)?;
    let names = one(given, Setting::GossipNamesPerAddress, parse::names)?;
    let names_per_address = names.unwrap_or(policy::NAMES_PER_ADDRESS);
    let core = core.unwrap_or(control_plane);
    Ok(Some(GossipConfig { listen, advertise, seeds, keyring, core, allow, names_per_address }))
}

fn apiservers(given: &Layer) -> Result<Vec<SocketAddr>, ConfigError> {
    let addrs = all(given, Setting::Apiserver, parse::dialled)?;
    if let Some(written) = given.values(Setting::Apiserver).get(policy::ENDPOINTS_A_MEMBER) {
        let most = policy::ENDPOINTS_A_MEMBER;
        return Err(Wrong::new(format!("{} addresses", addrs.len()), format!("give at most {most}: other nodes take no more"))
            .at(written.origin.of(Setting::Apiserver)));
    }
    Ok(addrs)
}

fn local_apiserver(given: &Layer, apiservers: &[SocketAddr]) -> Result<Option<SocketAddr>, ConfigError> {
    let local = one(given, Setting::LocalApiserver, parse::dialled)?;
    match given.value(Setting::LocalApiserver) {
        Some(written) if apiservers.is_empty() => Err(Wrong::new(
            "given without apiserver",
            "give --apiserver, where other nodes reach it, as well; or name it with --endpoint if others should not use it",
        )
        .at(written.origin.of(Setting::LocalApiserver))),
        _ => Ok(local.or_else(|| apiservers.first().copied())),
    }
}

fn probe_credentials(given: &Layer) -> Result<Option<ProbeCredentials>, ConfigError> {
    let cert = one(given, Setting::ProbeCert, parse::path)?;
    let key = one(given, Setting::ProbeKey, parse::path)?;
    let token = one(given, Setting::ProbeTokenFile, parse::path)?;
    let wrong = |setting: Setting, what: &str, right: &str| {
        let place = given.value(setting).map(|written| written.origin.of(setting)).unwrap_or_default();
        Err(ConfigError::new(place, what, right))
    };
    match (cert, key, token) {
        (None, None, None) => Ok(None),
        (Some(cert), Some(key), None) => Ok(Some(ProbeCredentials::Certificate { cert, key })),
        (Some(_), None, _) => wrong(Setting::ProbeCert, "given without probe-key", "give its private key with --probe-key FILE"),
        (None, Some(_), _) => wrong(Setting::ProbeKey, "given without probe-cert", "give its certificate with --probe-cert FILE"),
        (Some(_), Some(_), Some(_)) => {
            wrong(Setting::ProbeTokenFile, "given beside probe-cert", "give one of them: a certificate or a token")
        }
        (None, None, Some(token)) => Ok(Some(ProbeCredentials::Token(token))),
    }
}

fn check_number_of_endpoints(given: &Layer, config: &Config) -> Result<(), ConfigError> {
    let number = config.external.len() + config.endpoints.len();
    if number <= policy::ENDPOINTS {
        return Ok(());
    }
    let setting = if config.endpoints.len() > config.external.len() { Setting::Endpoint } else { Setting::External };
    let place = given.get(setting).map(|entry| entry.origin.of(setting)).unwrap_or_default();
    let right = format!("name at most {} with external and endpoint together", policy::ENDPOINTS);
    Err(ConfigError::new(place, format!("{number} endpoints"), right))
}

/// A proxy that dials itself would carry its own connections in a circle until descriptors run out.
fn check_own_listeners(given: &Layer, config: &Config) -> Result<(), ConfigError> {
    let literal = |target: &Target| match &target.at.host {
        Host::Ip(ip) => Some(SocketAddr::new(*ip, target.at.port)),
        Host::Name(_) => None,
    };
    let dialled: [(Setting, Vec<Option<SocketAddr>>); 4] = [
        (Setting::Apiserver, config.apiservers.iter().copied().map(Some).collect()),
        (Setting::LocalApiserver, vec![config.local_apiserver]),
        (Setting::External, config.external.iter().map(literal).collect()),
        (Setting::Endpoint, config.endpoints.iter().map(literal).collect()),
    ];
    for (setting, addrs) in dialled {
        for (addr, written) in addrs.into_iter().zip(given.values(setting)) {
            let own = addr.filter(|addr| config.listen.iter().any(|listen| reaches_listener(listen.addr, *addr)));
            if let Some(addr) = own {
                let right = "write the apiserver's own address and port, not the one where prismesh listens";
                return Err(Wrong::new(format!("{addr} is our own proxy listener"), right).at(written.origin.of(setting)));
            }
        }
    }
    Ok(())
}

/// Whether a connection to `addr` from this machine arrives at a listener bound to `listen`, as far as the addresses alone tell.
pub fn reaches_listener(listen: SocketAddr, addr: SocketAddr) -> bool {
    let (here, there) = (listen.ip().to_canonical(), addr.ip().to_canonical());
    let any = match here {
        IpAddr::V4(here) => here.is_unspecified() && there.is_ipv4(),
        IpAddr::V6(here) => here.is_unspecified(),
    };
    listen.port() != 0 && listen.port() == addr.port() && (here == there || (any && there.is_loopback()))
}

/// What is told to others must be of use to others: they refuse loopback and link-local addresses.
fn check_advertised(given: &Layer, config: &Config) -> Result<(), ConfigError> {
    let Some(gossip) = &config.gossip else { return Ok(()) };
    let among_ourselves = gossip.listen.addr.ip().is_loopback() || gossip.advertise.is_some_and(|addr| addr.ip().is_loopback());
    for (addr, written) in config.apiservers.iter().zip(given.values(Setting::Apiserver)) {
        let why = if addr.ip().is_loopback() && !among_ourselves {
            "is a loopback address, which means another machine to every other node"
        } else if is_link_local(addr.ip()) {
            "is a link-local address, which other nodes refuse"
        } else {
            continue;
        };
        let right = "write the address where other nodes reach it, and this one with --local-apiserver";
        return Err(Wrong::new(format!("{} {why}", addr.ip()), right).at(written.origin.of(Setting::Apiserver)));
    }
    Ok(())
}

/// A seed on another machine cannot answer to a loopback address.
fn check_reachable(given: &Layer, config: &Config) -> Result<(), ConfigError> {
    let Some(gossip) = &config.gossip else { return Ok(()) };
    let elsewhere = gossip.seeds.iter().find(|seed| matches!(seed.host, Host::Ip(ip) if !ip.is_loopback()));
    let (Some(seed), listen) = (elsewhere, gossip.listen.addr) else { return Ok(()) };
    let advertised = gossip.advertise.map(|addr| (Setting::GossipAdvertise, addr));
    let ours = [Some((Setting::GossipListen, listen)), advertised];
    let Some((setting, addr)) = ours.into_iter().flatten().find(|(_, addr)| addr.ip().is_loopback()) else { return Ok(()) };
    let what = format!("{addr} is a loopback address, to which the seed {seed} on another machine cannot answer");
    let wrong = Wrong::new(what, "write an address of this machine that other nodes reach, or 0.0.0.0 to listen on all");
    Err(match given.value(setting) {
        Some(written) => wrong.at(written.origin.of(setting)),
        None => wrong.at(setting),
    })
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
