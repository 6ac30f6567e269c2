//! Every setting there is, in one table: the flags, the environment variables, the file's keys, `config check` and the
//! test that holds `docs/CONFIGURATION.md` complete are all made from it, so that none can be forgotten anywhere.
//!
//! A setting has one name everywhere: `--state-dir`, `state-dir:` in the file, `PRISMESH_STATE_DIR`.

use std::fmt;

/// One setting. The order is the order in which they are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "what each means is in the table below, where people read it too")]
pub enum Setting {
    Cluster,
    Node,
    Listen,
    Admin,
    GossipListen,
    GossipAdvertise,
    Seed,
    Keyring,
    GossipCore,
    GossipAllowCidr,
    GossipNamesPerAddress,
    Apiserver,
    LocalApiserver,
    External,
    Endpoint,
    Ca,
    ServerName,
    ProbeCert,
    ProbeKey,
    ProbeTokenFile,
    Allow,
    MaxConnections,
    StateDir,
    LogFormat,
    Log,
}

/// What there is to say about a setting.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Which.
    pub setting: Setting,
    /// Its name: of the flag without the dashes, and of the key in the file.
    pub name: &'static str,
    /// What its value is called in help texts.
    pub value: &'static str,
    /// It may be given more than once; a list in the file.
    pub many: bool,
    /// What it means, in a sentence or two.
    pub help: &'static str,
    /// Its default, in words; empty: not set.
    pub default: &'static str,
    /// A reload takes it up; what is not reloadable needs a restart.
    pub reload: bool,
}

const ONE: bool = false;
const MANY: bool = true;
const RESTART: bool = false;
const RELOAD: bool = true;

const fn about(
    setting: Setting,
    name: &'static str,
    value: &'static str,
    many: bool,
    reload: bool,
    default: &'static str,
    help: &'static str,
) -> About {
    About { setting, name, value, many, help, default, reload }
}

/// How many settings there are.
const COUNT: usize = 25;

/// The table, in the order of the declaration.
const TABLE: [About; COUNT] = [
    about(
        Setting::Cluster,
        "cluster",
        "ID",
        ONE,
        RESTART,
        "",
        "The cluster's id, 1 to 64 bytes, the same on every node. Required. Nodes of another cluster are not heard",
    ),
    about(
        Setting::Node,
        "node",
        "NAME",
        ONE,
        RESTART,
        "the hostname",
        "This node's name, unique in the cluster, 1 to 253 characters",
    ),
    about(
        Setting::Listen,
        "listen",
        "IP:PORT",
        MANY,
        RESTART,
        "127.0.0.1:7445 and [::1]:7445",
        "Where clients of the Kubernetes API connect. Port 0 takes a free one",
    ),
    about(
        Setting::Admin,
        "admin",
        "IP:PORT",
        ONE,
        RESTART,
        "127.0.0.1:7446",
        "Where health, metrics and status are served, in plain HTTP. Port 0 takes a free one",
    ),
    about(
        Setting::GossipListen,
        "gossip-listen",
        "IP:PORT|off",
        ONE,
        RESTART,
        "[::]:7447",
        "Where gossip is received, UDP. `off`: no gossip, only endpoints that the configuration names",
    ),
    about(
        Setting::GossipAdvertise,
        "gossip-advertise",
        "IP:PORT",
        ONE,
        RESTART,
        "found out from the routes",
        "Where other nodes send gossip to this one. For machines with several networks",
    ),
    about(
        Setting::Seed,
        "seed",
        "HOST:PORT",
        MANY,
        RELOAD,
        "",
        "A member to begin gossip with. Two or three control-plane nodes, the same list on every node",
    ),
    about(
        Setting::Keyring,
        "keyring",
        "FILE",
        ONE,
        RELOAD,
        "",
        "The keys that seal gossip, mode 0600, made by `prismesh keygen`. Required unless gossip is off",
    ),
    about(
        Setting::GossipCore,
        "gossip-core",
        "true|false",
        ONE,
        RESTART,
        "true on control-plane nodes, else false",
        "Be a core member of gossip without an apiserver: for clusters whose control planes cannot run the agent",
    ),
    about(
        Setting::GossipAllowCidr,
        "gossip-allow-cidr",
        "CIDR",
        MANY,
        RESTART,
        "any",
        "Networks of the nodes: what is reported from elsewhere is answered and does not count. For core members",
    ),
    about(
        Setting::GossipNamesPerAddress,
        "gossip-names-per-address",
        "N",
        ONE,
        RESTART,
        "4",
        "Nodes at one address that count for the size of the cluster. Raise it where many are behind one NAT. For core members",
    ),
    about(
        Setting::Apiserver,
        "apiserver",
        "IP:PORT",
        MANY,
        RESTART,
        "none: a worker",
        "Where others reach this node's kube-apiserver, at most 8. Makes the node a control-plane node",
    ),
    about(
        Setting::LocalApiserver,
        "local-apiserver",
        "IP:PORT",
        ONE,
        RESTART,
        "the first --apiserver",
        "Where this node itself reaches its own kube-apiserver. Never told to others",
    ),
    about(
        Setting::External,
        "external",
        "HOST:PORT[,server-name=NAME]",
        MANY,
        RELOAD,
        "",
        "An external load balancer before the apiservers: used when nothing direct is ready",
    ),
    about(Setting::Endpoint, "endpoint", "HOST:PORT[,server-name=NAME]", MANY, RELOAD, "", "A kube-apiserver known beforehand"),
    about(
        Setting::Ca,
        "ca",
        "FILE",
        ONE,
        RELOAD,
        "/etc/kubernetes/pki/ca.crt if that file exists",
        "The cluster's CA, PEM: what it did not sign gets no traffic",
    ),
    about(
        Setting::ServerName,
        "server-name",
        "NAME",
        ONE,
        RELOAD,
        "kubernetes",
        "The name that apiserver certificates must cover",
    ),
    about(
        Setting::ProbeCert,
        "probe-cert",
        "FILE",
        ONE,
        RELOAD,
        "",
        "A client certificate for probes, PEM, where anonymous access to /readyz is off. With --probe-key",
    ),
    about(Setting::ProbeKey, "probe-key", "FILE", ONE, RELOAD, "", "The private key of --probe-cert, PEM"),
    about(
        Setting::ProbeTokenFile,
        "probe-token-file",
        "FILE",
        ONE,
        RELOAD,
        "",
        "A bearer token for probes, instead of --probe-cert. Needs a CA",
    ),
    about(
        Setting::Allow,
        "allow",
        "CIDR",
        MANY,
        RELOAD,
        "any address that a node may name",
        "Endpoints learnt by gossip must be in one of these networks",
    ),
    about(
        Setting::MaxConnections,
        "max-connections",
        "N",
        ONE,
        RESTART,
        "min(20000, (limit of descriptors - 256) / 2)",
        "Client connections at most, 1 or more",
    ),
    about(
        Setting::StateDir,
        "state-dir",
        "DIR",
        ONE,
        RESTART,
        "/var/lib/prismesh",
        "Where what must survive a restart is kept: the peer cache and the generation",
    ),
    about(Setting::LogFormat, "log-format", "human|json", ONE, RESTART, "human", "How logs are written, to standard error"),
    about(
        Setting::Log,
        "log",
        "FILTER",
        ONE,
        RESTART,
        "info",
        "What is logged: error, warn, info, debug, trace, or a tracing filter such as info,prismesh::gossip=debug",
    ),
];

impl Setting {
    /// All of them.
    pub const ALL: [Setting; COUNT] = {
        let mut all = [Setting::Cluster; COUNT];
        let mut place = 0;
        while place < COUNT {
            all[place] = TABLE[place].setting;
            place += 1;
        }
        all
    };

    /// The setting of this name.
    pub fn named(name: &str) -> Option<Setting> {
        Setting::ALL.into_iter().find(|setting| setting.name() == name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// The environment variable that sets it.
    pub fn variable(self) -> String {
        format!("PRISMESH_{}", self.name().replace('-', "_").to_ascii_uppercase())
    }

    /// What there is to say about it.
    pub const fn about(self) -> About {
        TABLE[self as usize]
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Setting;

    #[test]
    fn every_setting_is_listed_once_in_the_order_of_its_declaration() {
        assert!(Setting::ALL.is_sorted_by(|one, next| one < next));
        assert!(Setting::ALL.into_iter().all(|setting| setting.about().setting == setting));
    }

    #[test]
    fn a_setting_has_one_name_everywhere() {
        assert_eq!(Setting::StateDir.name(), "state-dir");
        assert_eq!(Setting::StateDir.variable(), "PRISMESH_STATE_DIR");
        for setting in Setting::ALL {
            assert_eq!(Setting::named(setting.name()), Some(setting));
        }
    }
}
