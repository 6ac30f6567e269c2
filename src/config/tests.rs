//! The rules of a configuration, from its sources to its types, with files that exist in memory only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::world::BoxFuture;

/// Files in memory: content and mode; one without content cannot be read.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, (Option<Vec<u8>>, u32)>);

impl Files {
    fn with(mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Files {
        self.0.insert(path.into(), (Some(content.into()), mode));
        self
    }

    fn with_unreadable(mut self, path: &str) -> Files {
        self.0.insert(path.into(), (None, 0o000));
        self
    }
}

impl Store for Files {
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        let answer = match self.0.get(path) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some((None, _)) => Err(io::ErrorKind::PermissionDenied.into()),
            Some((Some(content), _)) if content.len() > most => Err(io::ErrorKind::FileTooLarge.into()),
            Some((Some(content), _)) => Ok(content.clone()),
        };
        Box::pin(async { answer })
    }

    fn write<'a>(&'a self, _: &'a Path, _: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        unreachable!("loading a configuration writes nothing")
    }

    fn mode<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<u32>> {
        Box::pin(async move { self.0.get(path).map(|(_, mode)| *mode).ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }
}

fn pem() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["kubernetes".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A keyring, a CA and credentials, all as they should be.
fn files() -> Files {
    let (cert, key) = pem();
    Files::default()
        .with("/k", 0o600, "key\n")
        .with("/ca", 0o644, cert.clone())
        .with("/cert", 0o644, cert)
        .with("/key", 0o600, key)
        .with("/token", 0o600, "abc.def\n")
}

/// `--a b --c d` as a layer.
fn flags(line: &str) -> Layer {
    let mut values: BTreeMap<Setting, Vec<&str>> = BTreeMap::new();
    let mut words = line.split_whitespace();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let setting = Setting::named(name.trim_start_matches("--")).unwrap();
        values.entry(setting).or_default().push(value);
    }
    let mut layer = Layer::default();
    for (setting, values) in values {
        layer.put(setting, &Origin::Flag(setting), values);
    }
    layer
}

fn sources(line: &str) -> Sources {
    Sources { flags: flags(line), hostname: Some("host".to_owned()), ..Sources::default() }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn load(line: &str) -> Result<Loaded, String> {
    block_on(Config::load(&sources(line), &files())).map_err(|error| error.to_string())
}

const GOOD: &str = "--cluster prod --keyring /k --ca /ca";

fn good(more: &str) -> Config {
    load(&format!("{GOOD} {more}")).unwrap().config
}

fn refused(more: &str) -> String {
    let error = load(&format!("{GOOD} {more}")).expect_err(more);
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn defaults_are_those_of_the_design() {
    let config = good("");
    let shown = |listen: &Listen| (listen.addr.to_string(), listen.written);
    let listen: Vec<_> = config.listen.iter().map(shown).collect();
    assert_eq!(listen, [("127.0.0.1:7445".to_owned(), false), ("[::1]:7445".to_owned(), false)]);
    assert_eq!(shown(&config.admin), ("127.0.0.1:7446".to_owned(), false));
    assert_eq!(shown(&config.gossip.as_ref().unwrap().listen), ("[::]:7447".to_owned(), false));
    assert_eq!((config.node.as_str(), config.server_name.as_str(), config.log.as_str()), ("host", "kubernetes", "info"));
    assert_eq!((config.state_dir.as_path(), config.log_format), (Path::new("/var/lib/prismesh"), LogFormat::Human));
    assert_eq!((config.apiservers.len(), config.local_apiserver, config.max_connections), (0, None, None));
}

#[test]
fn flags_win_over_environment_over_file_setting_by_setting() {
    let files = files().with("/c.yaml", 0o644, "cluster: file\nnode: file\nlog: warn\nseed: [\"f1:1\", \"f2:2\"]\nkeyring: /k\n");
    let environment = [("PRISMESH_NODE", "env"), ("PRISMESH_LOG", "error"), ("PRISMESH_CA", "/ca")];
    let sources = Sources {
        file: Some("/c.yaml".into()),
        environment: environment.map(|(name, value)| (OsString::from(name), OsString::from(value))).to_vec(),
        flags: flags("--log debug --seed x:9"),
        hostname: None,
    };
    let loaded = block_on(Config::load(&sources, &files)).unwrap();
    let origin = |setting| loaded.effective.value(setting).unwrap().origin.to_string();
    assert_eq!((loaded.config.cluster.as_str(), origin(Setting::Cluster).as_str()), ("file", "/c.yaml:1"));
    assert_eq!((loaded.config.node.as_str(), origin(Setting::Node).as_str()), ("env", "environment PRISMESH_NODE"));
    assert_eq!((loaded.config.log.as_str(), origin(Setting::Log).as_str()), ("debug", "flag --log"));
    assert_eq!(origin(Setting::StateDir), "default");
    let seeds: Vec<String> = loaded.config.gossip.unwrap().seeds.iter().map(ToString::to_string).collect();
    assert_eq!(seeds, ["x:9"], "a list given higher up replaces the one below");
    assert_eq!(loaded.config.file.as_deref(), Some(Path::new("/c.yaml")));
}

#[test]
fn a_wrong_value_in_the_file_is_named_with_its_line() {
    for (text, complaint) in [
        (
            "cluster: a\nlisten:\n  - 127.0.0.1:1\n  - 127.0.0.1:70000\n",
            "/c.yaml:4: listen: \"70000\" is not a port, which is 0 to 65535; ",
        ),
        ("max-connections: many\n", "/c.yaml:1: max-connections: \"many\" is not a number of connections; "),
        ("\n\nallow: [\"10.0.0.0/40\"]\n", "/c.yaml:3: allow: \"10.0.0.0/40\" is not a network; "),
        ("colour: red\n", "/c.yaml:1: unknown setting \"colour\"; "),
        ("listen: []\n", "/c.yaml:1: listen: no address to listen on; "),
    ] {
        // Each is the only fault: what is required comes from the flags, and flags hide nothing here.
        let sources = Sources { file: Some("/c.yaml".into()), ..sources("--keyring /k --ca /ca") };
        let sources = if text.contains("cluster") { sources } else { Sources { flags: flags(GOOD), ..sources } };
        let error = block_on(Config::load(&sources, &files().with("/c.yaml", 0o644, text))).unwrap_err().to_string();
        assert!(error.starts_with(complaint), "{error}");
    }
}

#[test]
fn a_missing_unreadable_or_endless_file_is_refused_and_named() {
    let with = |files: Files| {
        let sources = Sources { file: Some("/c".into()), ..sources(GOOD) };
        block_on(Config::load(&sources, &files)).unwrap_err().to_string()
    };
    assert!(with(files()).starts_with("/c: the configuration file (--config, PRISMESH_CONFIG) does not exist; "));
    assert!(with(files().with_unreadable("/c")).contains("permission denied"));
    assert!(with(files().with("/c", 0o644, vec![b'#'; 2 * 1024 * 1024])).contains("longer than"));
}

#[test]
fn the_cluster_is_required_and_a_nodes_name_is_printable() {
    assert!(
        load("--keyring /k")
            .unwrap_err()
            .starts_with("cluster: not set, and it is required; give --cluster ID, PRISMESH_CLUSTER")
    );
    assert!(refused(&format!("--cluster {}", "c".repeat(65))).starts_with("flag --cluster: the cluster's id has 65 bytes"));
    assert!(refused("--node knöten").contains("is no node name"));
}

#[test]
fn gossip_needs_a_keyring_unless_it_is_off() {
    let error = load("--cluster a").unwrap_err();
    assert!(error.starts_with("keyring: not set") && error.contains("--gossip-listen off"), "{error}");
    assert_eq!(load("--cluster a --gossip-listen off --seed a:1").unwrap().config.gossip, None);
}

#[test]
fn a_keyring_that_others_can_read_is_refused() {
    for mode in [0o640, 0o604, 0o644, 0o620, 0o601] {
        let error = block_on(Config::load(&sources(GOOD), &files().with("/k", mode, "key"))).unwrap_err().to_string();
        assert!(error.contains("is open to others") && error.ends_with("chmod 600 /k"), "{error}");
    }
    for mode in [0o600, 0o400] {
        assert!(block_on(Config::load(&sources(GOOD), &files().with("/k", mode, "key"))).is_ok());
    }
}

#[test]
fn a_missing_or_unreadable_keyring_is_told_as_missing_and_an_empty_one_is_refused() {
    let missing = load(&format!("{GOOD} --keyring /none")).unwrap().missing;
    let told = missing[0].error.to_string();
    assert_eq!(told, "flag --keyring: /none does not exist; write the path of a file that is there");
    let missing = block_on(Config::load(&sources(GOOD), &files().with_unreadable("/k"))).unwrap().missing;
    assert!(missing[0].error.to_string().contains("cannot be read: permission denied"));
    let with = |files: Files| block_on(Config::load(&sources(GOOD), &files)).unwrap_err().to_string();
    assert!(with(files().with("/k", 0o600, " \n")).contains("is empty"));
}

#[test]
fn a_dialled_address_has_a_port_and_one_host_and_a_listener_may_take_any_port() {
    for setting in ["--apiserver", "--external", "--endpoint", "--seed", "--gossip-advertise"] {
        assert!(refused(&format!("{setting} 10.0.0.1:0")).contains("port 0 cannot be dialled"), "{setting}");
        assert!(refused(&format!("{setting} 10.0.0.1:70000")).contains("is not a port"), "{setting}");
        assert!(refused(&format!("{setting} 0.0.0.0:6443")).contains("cannot be dialled"), "{setting}");
        assert!(refused(&format!("{setting} [::]:6443")).contains("cannot be dialled"), "{setting}");
    }
    let config = good("--listen 127.0.0.1:0 --listen [::1]:0 --admin 127.0.0.1:0 --gossip-listen 127.0.0.1:0");
    assert!(config.listen.iter().chain([&config.admin]).all(|listen| listen.written && listen.addr.port() == 0));
}

#[test]
fn an_address_given_to_two_listeners_is_refused() {
    assert!(refused("--listen 127.0.0.1:7000 --admin 127.0.0.1:7000").contains("is a listen address too"));
    assert!(refused("--admin 127.0.0.1:7445").contains("is a listen address too"));
    assert!(refused("--listen 127.0.0.1:7000 --listen 127.0.0.1:7000").contains("is given twice"));
}

#[test]
fn our_own_proxy_listener_is_no_endpoint() {
    for line in [
        "--endpoint 127.0.0.1:7445",
        "--external 127.0.0.1:7445,server-name=x",
        "--endpoint [::1]:7445",
        "--endpoint [::ffff:127.0.0.1]:7445",
        "--apiserver 10.0.0.1:6443 --local-apiserver 127.0.0.1:7445",
        "--listen 10.0.0.1:6443 --apiserver 10.0.0.1:6443",
        "--listen 0.0.0.0:6443 --endpoint 127.0.0.1:6443",
        "--listen [::]:6443 --endpoint 127.0.0.1:6443",
        "--listen [::]:6443 --endpoint [::1]:6443",
    ] {
        assert!(refused(line).contains("is our own proxy listener"), "{line}");
    }
    for line in [
        "--endpoint 127.0.0.1:6443",
        "--endpoint 127.0.0.2:7445",
        "--listen 0.0.0.0:6443 --endpoint 10.0.0.1:6443",
        "--listen 0.0.0.0:6443 --endpoint [::1]:6443",
        "--listen 127.0.0.1:0 --endpoint 127.0.0.1:7445",
        "--endpoint localhost:7445",
    ] {
        good(line);
    }
}

#[test]
fn what_is_told_to_others_is_of_use_to_others() {
    assert!(refused("--apiserver 127.0.0.1:6443").contains("is a loopback address"));
    assert!(refused("--apiserver [fe80::1]:6443").contains("is a link-local address"));
    assert!(refused("--apiserver 169.254.0.1:6443").contains("is a link-local address"));
    good("--apiserver 127.0.0.1:6443 --gossip-listen 127.0.0.1:0");
    good("--apiserver 127.0.0.1:6443 --gossip-advertise 127.0.0.1:7447");
    good("--apiserver 127.0.0.1:6443 --gossip-listen off");
    for ours in ["--gossip-listen 127.0.0.1:7447", "--gossip-listen [::1]:7447", "--gossip-advertise 127.0.0.1:7447"] {
        assert!(
            refused(&format!("{ours} --seed 10.0.0.1:7447")).contains("the seed 10.0.0.1:7447 on another machine cannot answer")
        );
        good(&format!("{ours} --seed 127.0.0.1:7448"));
        good(&format!("{ours} --seed localhost:7448"));
    }
    let nodes = good("--gossip-allow-cidr 10.0.0.0/8 --gossip-allow-cidr fd00::/8 --gossip-names-per-address 9").gossip.unwrap();
    assert_eq!((nodes.allow.len(), nodes.names_per_address), (2, 9));
    let nine: String = (1..=9).map(|host| format!("--apiserver 10.0.0.{host}:6443 ")).collect();
    assert!(refused(&nine).contains("9 addresses; give at most 8"));
}

#[test]
fn a_node_reaches_its_own_apiserver_where_others_do_unless_told_otherwise() {
    let config = good("--apiserver 10.0.0.1:6443 --apiserver [fd00::1]:6443");
    assert_eq!(config.local_apiserver, Some("10.0.0.1:6443".parse().unwrap()));
    let config = good("--apiserver 10.0.0.1:6443 --local-apiserver 127.0.0.1:6443");
    assert_eq!(config.local_apiserver, Some("127.0.0.1:6443".parse().unwrap()));
    assert!(refused("--local-apiserver 127.0.0.1:6443").starts_with("flag --local-apiserver: given without apiserver; "));
}

#[test]
fn more_endpoints_than_can_be_held_are_refused() {
    let line = |number: usize| (0..number).map(|host| format!("--endpoint e{host}:6443 ")).collect::<String>();
    good(&line(64));
    assert!(refused(&line(65)).contains("65 endpoints; name at most 64"));
}

#[test]
fn a_token_expects_a_ca_to_tell_whom_it_goes_to_be_it_there_or_not() {
    let expects = load("--cluster a --keyring /k --probe-token-file /token").unwrap().config.ca;
    assert_eq!(expects, Some(Config::DEFAULT_CA.into()));
    assert_eq!(good("--probe-token-file /token").probe_credentials, Some(ProbeCredentials::Token("/token".into())));
}

#[test]
fn probe_credentials_are_a_certificate_with_its_key_or_a_token() {
    assert!(refused("--probe-cert /cert").contains("without probe-key"));
    assert!(refused("--probe-key /key").contains("without probe-cert"));
    assert!(refused("--probe-cert /cert --probe-key /key --probe-token-file /token").contains("one of them"));
    assert!(refused("--probe-cert /key --probe-key /key").contains("holds no certificate"));
    assert!(refused("--probe-cert /cert --probe-key /cert").contains("holds no private key"));
    assert!(refused("--probe-token-file /key").contains("holds no bearer token"));
    assert!(refused("--ca /k").contains("/k holds no certificate in PEM"));
    assert_eq!(good("--ca /none").ca, Some("/none".into()), "it may come yet");
    good("--probe-cert /cert --probe-key /key");
}

#[test]
fn the_ca_is_kubeadms_where_it_can_be_read_and_its_absence_is_said() {
    let without = load("--cluster a --keyring /k").unwrap();
    assert_eq!(without.config.ca, None);
    assert!(without.warnings.iter().any(|warning| warning.starts_with("no CA")), "{:?}", without.warnings);
    let files = files().with("/etc/kubernetes/pki/ca.crt", 0o644, pem().0);
    let with = block_on(Config::load(&sources("--cluster a --keyring /k"), &files)).unwrap();
    assert_eq!((with.config.ca.as_deref(), with.warnings.len()), (Some(Path::new("/etc/kubernetes/pki/ca.crt")), 0));
}

#[test]
fn a_reload_takes_up_what_it_can_and_names_what_needs_a_restart() {
    let old = good("--seed a:1");
    let new = good("--seed b:2 --external lb:6443 --endpoint e:1 --allow 10.0.0.0/8 --server-name x --probe-token-file /token");
    let reload = old.reload(new.clone());
    assert_eq!((&reload.config, reload.restart.len()), (&new, 0));

    let elsewhere = good("--listen 127.0.0.1:1 --node other --gossip-listen off --log debug --seed c:3 --external lb:1");
    let reload = old.reload(elsewhere);
    assert_eq!(reload.restart, ["node", "listen", "gossip-listen", "log"]);
    assert_eq!(reload.config, Config { external: vec!["lb:1".parse().unwrap()], ..old }, "the rest stays");
}

#[test]
fn a_reload_never_gives_up_the_ca() {
    let old = good("");
    let reload = old.reload(load("--cluster prod --keyring /k").unwrap().config);
    assert_eq!((reload.config.ca, reload.restart), (old.ca, vec!["ca"]));
}

#[test]
fn what_a_reload_takes_up_is_what_the_table_says() {
    let changes = [
        "--cluster x",
        "--node x",
        "--listen 127.0.0.1:1",
        "--admin 127.0.0.1:1",
        "--gossip-listen 127.0.0.1:1",
        "--gossip-advertise 10.0.0.1:1",
        "--seed x:1",
        "--keyring /token",
        "--gossip-core true",
        "--gossip-allow-cidr 10.0.0.0/8",
        "--gossip-names-per-address 9",
        "--apiserver 10.0.0.1:1",
        "--apiserver 10.0.0.9:9 --local-apiserver 10.0.0.1:1",
        "--external x:1",
        "--endpoint x:1",
        "--ca /cert",
        "--server-name x",
        "--probe-cert /cert --probe-key /key",
        "--probe-cert /cert --probe-key /key2",
        "--probe-token-file /token",
        "--allow 10.0.0.0/8",
        "--max-connections 5",
        "--state-dir /x",
        "--log-format json",
        "--log warn",
    ];
    let files = files().with("/key2", 0o600, pem().1);
    for (setting, change) in Setting::ALL.into_iter().zip(changes) {
        let kept: String = ["--cluster prod", "--keyring /k", "--ca /ca"]
            .into_iter()
            .filter(|kept| !change.starts_with(&kept[..5]))
            .collect::<Vec<_>>()
            .join(" ");
        let old = if setting == Setting::LocalApiserver { good("--apiserver 10.0.0.9:9") } else { good("") };
        let new = block_on(Config::load(&sources(&format!("{kept} {change}")), &files)).unwrap().config;
        let restart = restart_needed(&old, &new);
        assert_eq!(restart.contains(&setting.name()), !setting.about().reload, "{change}: {restart:?}");
    }
}

#[test]
fn a_change_of_any_watched_file_changes_the_fingerprint() {
    let config = good("--probe-cert /cert --probe-key /key");
    let before =
        block_on(config.fingerprint(&files().with("/ca", 0o644, "x").with("/cert", 0o644, "x").with("/key", 0o600, "x")));
    let after = |path: &str| {
        let same = files().with("/ca", 0o644, "x").with("/cert", 0o644, "x").with("/key", 0o600, "x");
        block_on(config.fingerprint(&same.with(path, 0o600, "changed")))
    };
    for path in ["/k", "/ca", "/cert", "/key"] {
        assert_ne!(after(path), before, "{path}");
    }
    assert_eq!(after("/token"), before, "not named by this configuration");
}

#[test]
fn a_ca_that_appears_where_kubeadm_puts_it_is_noticed() {
    let config = load("--cluster a --keyring /k").unwrap().config;
    assert!(config.watched_files().contains(&PathBuf::from("/etc/kubernetes/pki/ca.crt")));
}

/// Each read finds one byte more.
#[derive(Default)]
struct Growing(std::sync::atomic::AtomicUsize);

impl Store for Growing {
    fn read<'a>(&'a self, _: &'a Path, _: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        let length = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move { Ok(vec![b'#'; length]) })
    }

    fn write<'a>(&'a self, _: &'a Path, _: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        unreachable!("loading a configuration writes nothing")
    }

    fn mode<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<u32>> {
        Box::pin(async { Ok(0o600) })
    }
}

#[test]
fn the_fingerprint_is_of_the_bytes_that_were_loaded_though_the_file_has_changed_since() {
    let config = good("");
    let growing = std::sync::Arc::new(Growing::default());
    let loaded = Snapshot::new(growing.clone());
    let (bytes, later) =
        (block_on(loaded.read(Path::new("/ca"), 100)).unwrap(), block_on(loaded.read(Path::new("/ca"), 100)).unwrap());
    assert_eq!(bytes, later, "whoever loads reads the same");
    let fingerprint = block_on(config.fingerprint(&loaded));
    assert_eq!(block_on(config.fingerprint(&loaded)), fingerprint);
    assert_ne!(block_on(config.fingerprint(&Snapshot::new(growing))), fingerprint, "the next look sees the change");
    block_on(loaded.thaw());
    assert_ne!(block_on(loaded.read(Path::new("/ca"), 100)).unwrap(), bytes, "and what reads it later sees it too");
}

#[test]
fn files_that_may_come_are_missing_and_no_error() {
    let loaded = load("--cluster prod --keyring /none --ca /ca --probe-cert /cert --probe-key /none").unwrap();
    let missing: Vec<Setting> = loaded.missing.iter().map(|missing| missing.setting).collect();
    assert_eq!(missing, [Setting::Keyring, Setting::ProbeKey]);
    let unreadable = files().with_unreadable("/k");
    let loaded = block_on(Config::load(&sources(GOOD), &unreadable)).unwrap();
    assert_eq!(loaded.missing[0].setting, Setting::Keyring);
    let error = block_on(Config::load(&Sources { file: Some("/none".into()), ..sources(GOOD) }, &files())).unwrap_err();
    assert!(error.missing, "{error}");
    let long = files().with("/k", 0o600, vec![b'x'; 2 << 20]);
    let error = block_on(Config::load(&sources(GOOD), &long)).unwrap_err();
    assert!(!error.missing, "{error}");
}

#[test]
fn a_machine_without_a_name_has_a_node_without_one_until_it_is_named() {
    let named = |hostname: Option<&str>| {
        let sources = Sources { hostname: hostname.map(str::to_owned), ..sources(GOOD) };
        block_on(Config::load(&sources, &files())).unwrap().config
    };
    for hostname in
        [None, Some(""), Some("(none)"), Some("localhost"), Some("LOCALHOST.localdomain"), Some("localhost6.localdomain6")]
    {
        assert!(named(hostname).unnamed(), "{hostname:?}");
    }
    let reload = named(None).reload(named(Some("worker-7")));
    assert_eq!((reload.config.node.as_str(), reload.restart.as_slice()), ("worker-7", [].as_slice()));
    let reload = reload.config.reload(named(Some("worker-8")));
    assert_eq!((reload.config.node.as_str(), reload.restart.as_slice()), ("worker-7", ["node"].as_slice()));
    assert!(refused("--node localhost").starts_with("flag --node: localhost is the name of every machine; "));
    assert!(!named(Some("localhosting")).unnamed());
}

#[test]
fn core_members_are_control_planes_and_who_is_told_to_be_one() {
    assert!(!good("").is_core());
    assert!(good("--apiserver 10.0.0.1:6443").is_core());
    assert!(good("--gossip-core true").is_core());
    assert!(!good("--gossip-core false").is_core());
    assert!(refused("--gossip-core false --apiserver 10.0.0.1:6443").contains("is a core member of gossip"));
    let (old, new) = (good(""), good("--gossip-core true --gossip-names-per-address 5 --gossip-allow-cidr 10.0.0.0/8"));
    assert_eq!(old.reload(new).restart, ["gossip-core", "gossip-allow-cidr", "gossip-names-per-address"]);
}
