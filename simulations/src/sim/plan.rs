//! A story as data: who there is, what happens when, and what must hold beside the invariants.
//!
//! Because it is data it can be read from a file, written into a result, and made smaller while it still fails.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::state::{Class, Mode, Ms};
use super::{span, written};

/// A whole story.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// Who there is.
    pub cluster: Cluster,
    /// What happens.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// How long it is watched, in ms.
    #[serde(with = "span")]
    pub lasts: Ms,
}

/// The machines, how far they are from one another, and who uses them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Cluster {
    /// Round trips between zones in ms; row and column are zones. One row of one number: one zone.
    #[serde(deserialize_with = "written::round_trips")]
    pub zones: Vec<Vec<u32>>,
    /// How much one packet's time differs from the zones' distance, as a share of it.
    pub jitter: f64,
    /// The nodes, control planes first or not. In a file one line may stand for several: `count: 3`.
    #[serde(deserialize_with = "written::nodes")]
    pub nodes: Vec<Node>,
    /// Nodes come up over this time, in ms.
    #[serde(with = "span")]
    pub stagger: Ms,
    /// There is an external balancer, in this zone, and every node's configuration names it.
    pub balancer: Option<usize>,
    /// The configuration names the balancer by a DNS name.
    pub by_name: bool,
    /// How many control planes each node has as a seed, and how many of all nodes.
    pub seeds: usize,
    /// A client of each node opens a new connection this often, in ms; 0: never.
    #[serde(with = "span")]
    pub fresh_every: Ms,
    /// Each node has a kubelet with its lease and watches.
    pub kubelets: bool,
    /// Connections that each worker's clients keep open; a tenth of them is renewed each minute.
    pub steady: usize,
    /// Each worker has clients whose exchanges last: watches, uploads, long requests, connections that are kept.
    pub exchanges: bool,
    /// Each of these has a twin that does the same directly at the endpoint that prismesh chose.
    pub twins: bool,
    /// Machines have IPv6 addresses only.
    pub ipv6_only: bool,
    /// More of prismesh's configuration, as YAML, for every node.
    pub config: String,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            zones: vec![vec![2]],
            jitter: 0.1,
            nodes: Vec::new(),
            stagger: 500,
            balancer: None,
            by_name: false,
            seeds: 3,
            fresh_every: 500,
            kubelets: true,
            steady: 0,
            exchanges: false,
            twins: false,
            ipv6_only: false,
            config: String::new(),
        }
    }
}

/// One node.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Node {
    /// Its name; empty: made from its role and place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// It runs an apiserver.
    #[serde(skip_serializing_if = "is_default")]
    pub control_plane: bool,
    /// Where it stands.
    #[serde(skip_serializing_if = "is_default")]
    pub zone: usize,
    /// It has addresses of both families.
    #[serde(skip_serializing_if = "is_default")]
    pub dual_stack: bool,
    /// It comes up when a step says so, not at the beginning.
    #[serde(skip_serializing_if = "is_default")]
    pub later: bool,
    /// More of its prismesh configuration, as YAML.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config: String,
}

/// What a reader takes for granted need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// When, in ms.
    #[serde(with = "span")]
    pub at: Ms,
    /// How long it is so, in ms; [`None`]: for good, or it is over at once.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "span::maybe::serialize")]
    pub lasts: Option<Ms>,
    /// What.
    #[serde(flatten)]
    pub what: Fault,
}

/// Who, by name; a name that ends in `*` is everyone whose name begins so.
pub type Who = Vec<String>;

/// Things that happen to a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Apiservers do something else than to serve. Those that crash ([`Mode::Refusing`], [`Mode::Gone`]) come back as new processes.
    Apiserver {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// What they do.
        mode: Mode,
    },
    /// Apiservers drain for 5 s, close, and come back when it ends.
    Drain {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// Apiservers close their ports at once, serve what is open for a while, close it, and come back when it ends.
    GracefulStop {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// For how long, in ms.
        #[serde(with = "span")]
        serves_on: Ms,
    },
    /// An apiserver changes between crashed and serving each half period.
    Flap {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// In ms.
        #[serde(with = "span")]
        period: Ms,
    },
    /// Something else answers at an apiserver's address.
    Impostor {
        /// Whose address.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// What it does.
        mode: Mode,
    },
    /// API packets between machines to and from the addresses of one family vanish, where machines have both.
    Family {
        /// Whose.
        of: Who,
        /// IPv6; otherwise IPv4.
        ipv6: bool,
    },
    /// The external balancer does something else than to serve.
    Balancer {
        /// What.
        mode: Mode,
    },
    /// The external balancer keeps sending to apiservers that are gone: its checks find nothing.
    BalancerBlind,
    /// DNS fails.
    Dns {
        /// It does not even answer.
        silent: bool,
    },
    /// Machines have no power.
    Machine {
        /// Which.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// Agents' processes do not get on.
    Stall {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// Agents are killed, and started again when it ends.
    AgentKilled {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// Agents stop in an orderly way and start again when it ends.
    AgentRestart {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// A node that was to come later comes up, with its apiserver if it has one.
    Join {
        /// Which.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// Nodes go for good, in an orderly way.
    Leave {
        /// Which.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// A machine comes back at another address after a reboot; a control plane's apiserver with it.
    Readdress {
        /// Which.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// A machine's state directory is lost; felt at its agent's next start.
    StateLost {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// A machine's state directory is put back to what it was when the simulation had lasted this long.
    StateRestored {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// In ms.
        #[serde(with = "span")]
        from: Ms,
    },
    /// A machine gets the state directory and the name of another one.
    Cloned {
        /// The copy.
        of: String,
        /// Of whom.
        from: String,
    },
    /// Packets do not pass.
    Partition {
        /// From these.
        #[serde(deserialize_with = "written::who")]
        from: Who,
        /// To these; empty: to everyone else.
        #[serde(default, deserialize_with = "written::who")]
        to: Who,
        /// Not the other way either.
        #[serde(default)]
        both: bool,
        /// Only these packets.
        #[serde(default)]
        class: Option<Class>,
    },
    /// The kernel of these machines forbids new TCP connections to others, as a firewall's rule does: a dial fails at once, and what is
    /// open goes on.
    Forbid {
        /// On these.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// To these.
        #[serde(deserialize_with = "written::who")]
        to: Who,
    },
    /// Packets to and from these are lost this often.
    Loss {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// As a share.
        share: f64,
    },
    /// Packets between these and the others take longer, one way, in ms.
    Latency {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// To whom; empty: everyone else.
        #[serde(default, deserialize_with = "written::who")]
        to: Who,
        /// How much longer.
        ms: u32,
    },
    /// Times differ by this share.
    Jitter {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// As a share.
        share: f64,
    },
    /// Datagrams of more bytes vanish.
    Mtu {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// Bytes.
        bytes: usize,
    },
    /// Segments of TCP with more bytes vanish on their way from some machines to others, and nobody says so.
    SegmentHole {
        /// From these.
        #[serde(deserialize_with = "written::who")]
        from: Who,
        /// To these.
        #[serde(deserialize_with = "written::who")]
        to: Who,
        /// Bytes.
        bytes: usize,
    },
    /// Datagrams come twice, and out of order.
    Disorder {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// As a share of all.
        share: f64,
    },
    /// A machine's time of day jumps.
    ClockJump {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// In ms.
        by: i64,
    },
    /// Agents read their configuration again, with this in place of what was added for their node.
    Configure {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// YAML.
        config: String,
    },
    /// The cluster's CA is another one from now on: apiservers show its certificates.
    NewCa,
    /// There is a new CA, and nobody shows its certificates yet.
    NextCa,
    /// Apiservers show certificates of the newest CA to new connections from now on, as the same processes.
    Reissue {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// Agents get the file of the newest CA.
    GiveCa {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// The CA before it is in the file as well.
        #[serde(default)]
        old_too: bool,
    },
    /// Agents' CA files are gone; felt at their next start.
    LoseCa {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// One step of a key rotation: `add`, `promote` or `retire`.
    Keyring {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
        /// Which step.
        step: String,
    },
    /// A member that has the key misbehaves.
    Hostile {
        /// As which node, or as one of its own.
        node: String,
        /// What it does.
        act: Hostility,
    },
    /// Apiservers' certificates are outside their validity. Whoever has verified one keeps what it saw while its connection lasts.
    Expired {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// Agents are stopped, and a later build is started, whose records this one cannot read; when it ends, this one again.
    Newer {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
    /// The external balancer goes on at another address, its name follows, and nothing answers at the old one.
    BalancerMoves,
    /// The external balancer's name is answered with the addresses of these nodes' apiservers, one node's at a time.
    NameTakesTurns {
        /// Whose.
        #[serde(deserialize_with = "written::who")]
        of: Who,
    },
}

/// What a hostile member does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hostility {
    /// It advertises somebody else's address as its apiserver, where nothing of the cluster's CA answers.
    ForgedEndpoint,
    /// It says that all apiservers are down.
    ForgedVerdicts,
    /// It writes its record all the time.
    RecordStorm,
    /// It sends what is no record, or a huge one.
    Oversize,
}

pub(super) fn names(nodes: &[Node]) -> Vec<String> {
    let mut counts: BTreeMap<bool, usize> = BTreeMap::new();
    let name = |node: &Node| {
        let count = counts.entry(node.control_plane).or_default();
        *count += 1;
        if node.name.is_empty() {
            format!("{}-{count}", if node.control_plane { "cp" } else { "worker" })
        } else {
            node.name.clone()
        }
    };
    nodes.iter().map(name).collect()
}

impl Plan {
    /// The nodes' names, made where they were left out.
    pub fn names(&self) -> Vec<String> {
        names(&self.cluster.nodes)
    }

    /// How many nodes run an apiserver.
    pub fn control_planes(&self) -> usize {
        self.cluster.nodes.iter().filter(|node| node.control_plane).count()
    }

    /// A step at `at` that lasts for good.
    #[must_use]
    pub fn step(mut self, at: Ms, what: Fault) -> Plan {
        self.steps.push(Step { at, lasts: None, what });
        self
    }

    /// A step from `at` on, for `lasts` ms.
    #[must_use]
    pub fn fault(mut self, at: Ms, lasts: Ms, what: Fault) -> Plan {
        self.steps.push(Step { at, lasts: Some(lasts), what });
        self
    }
}

/// One name.
pub fn who(name: impl Into<String>) -> Who {
    vec![name.into()]
}
