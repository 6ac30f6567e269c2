//! What chaos can be made of: every kind of fault that heals or that a cluster has to live with, drawn so that it can be played.

use std::collections::BTreeSet;

use crate::sim::plan::{Cluster, Fault, Hostility, Node, Plan, Step, Who, who};
use crate::sim::scenario::Cast;
use crate::sim::state::{Class as Packets, Mode, Ms};

/// The machine of somebody who means harm.
pub(super) const INTRUDER: &str = "intruder";
/// A copy of a state directory is one of this moment: everybody has been up for a while.
const SNAPSHOT: Ms = 8_000;
/// From one step of a key rotation to the next: all nodes have taken the one before.
const KEYS_APART: Ms = 7_000;
/// A new CA's file reaches all nodes within this.
const FILES_ARRIVE: Ms = 8_000;

/// One thing that goes wrong, being drawn.
pub(super) struct Lot<'a> {
    pub(super) cast: &'a Cast,
    pub(super) cluster: &'a mut Cluster,
    /// Whom or what something has befallen already: of two things that overlap nobody could say what ends when.
    pub(super) taken: &'a mut BTreeSet<String>,
    /// What its draws are called.
    pub(super) name: String,
    pub(super) at: Ms,
    pub(super) lasts: Ms,
}

/// What goes wrong; [`None`] if it cannot in this cluster, or has already.
pub(super) type Kind = fn(&mut Lot<'_>) -> Option<Vec<Step>>;

/// All kinds.
pub(super) const KINDS: &[Kind] = &[
    |it| it.apiserver(MODES),
    |it| it.apiserver(MODES),
    |it| it.at_control_plane(|of| Fault::Drain { of }),
    |it| it.at_control_plane(|of| Fault::Expired { of }),
    |it| it.flaps(),
    |it| it.impostor(),
    |it| it.family(),
    |it| it.at_node(|of| Fault::Machine { of }),
    |it| it.at_node(|of| Fault::AgentKilled { of }),
    |it| it.halting(|of| Fault::Stall { of }),
    |it| it.halting(|of| Fault::AgentRestart { of }),
    |it| it.halting(|of| Fault::Newer { of }),
    |it| it.joins(),
    |it| it.leaves(),
    |it| it.moves(),
    |it| it.state_lost(),
    |it| it.state_restored(),
    |it| it.cloned(),
    |it| it.configured(),
    |it| it.balancer(),
    |it| it.balancer_blind(),
    |it| it.balancer_moves(),
    |it| it.dns(),
    |it| it.new_ca(),
    |it| it.new_key(),
    |it| it.hostile(),
    |it| it.partition(),
    |it| it.partition(),
    |it| it.on_the_way(|it, of| Fault::Loss { of, share: it.share("lost", 1, 50) }),
    |it| it.on_the_way(|it, of| Fault::Latency { of, to: Vec::new(), ms: u32::try_from(it.number("ms", 1, 80)).unwrap_or(1) }),
    |it| it.on_the_way(|it, of| Fault::Disorder { of, share: it.share("out of order", 5, 50) }),
    |it| it.on_the_way(|it, of| Fault::Mtu { of, bytes: it.one_of("bytes", &[300, 600, 1_000, 1_199]) }),
    |it| it.on_the_way(|it, of| Fault::Jitter { of, share: it.share("jitter", 10, 90) }),
    |it| it.on_the_way(|it, of| Fault::ClockJump { of, by: it.one_of("by", &[-18_000_000, -5_000, 5_000, 18_000_000]) }),
];

/// What apiservers do.
const MODES: &[Mode] =
    &[Mode::Refusing, Mode::Dropping, Mode::Hung, Mode::Slow(200), Mode::Slow(700), Mode::Draining, Mode::Overloaded];

/// Draws.
impl Lot<'_> {
    fn named(&self, what: &str) -> String {
        format!("{what} {}", self.name)
    }

    fn number(&self, what: &str, from: u64, to: u64) -> u64 {
        self.cast.draw.number(&self.named(what), from, to)
    }

    fn one_of<T: Clone>(&self, what: &str, of: &[T]) -> T {
        self.cast.draw.one_of(&self.named(what), of)
    }

    fn chance(&self, what: &str, share: f64) -> bool {
        self.cast.draw.chance(&self.named(what), share)
    }

    fn share(&self, what: &str, from: u64, to: u64) -> f64 {
        self.number(what, from, to) as f64 / 100.0
    }

    /// It is this one's turn, unless it had it.
    fn claim(&mut self, name: impl Into<String>) -> Option<Who> {
        let name = name.into();
        self.taken.insert(name.clone()).then(|| who(name))
    }

    fn control_plane(&mut self) -> Option<Who> {
        let name = self.cast.control_plane(&from_the_beginning(self.cluster), &self.named("which control plane"));
        self.claim(name)
    }

    fn node(&mut self) -> Option<Who> {
        let name = self.cast.anybody(&from_the_beginning(self.cluster), &self.named("who"));
        self.claim(name)
    }

    /// One node, a few of them, or half of all.
    fn some(&self) -> Who {
        let names = Plan { cluster: from_the_beginning(self.cluster), steps: Vec::new(), lasts: 0 }.names();
        let count = usize::try_from(self.number("how many", 1, names.len() as u64 / 2)).unwrap_or(1);
        let places = self.cast.draw.several(&self.named("some"), count, names.len());
        places.into_iter().map(|place| names[place].clone()).collect()
    }

    /// Files are handed round in a rotation only while every agent takes what it is given, and the other way round.
    fn unless(&mut self, other: &str, this: &str) -> Option<()> {
        (!self.taken.contains(other)).then(|| {
            self.taken.insert(this.to_owned());
        })
    }

    fn processes_halt(&mut self) -> Option<()> {
        self.unless("files are handed round", "processes halt")
    }

    fn files_are_handed_round(&mut self) -> Option<()> {
        self.unless("processes halt", "files are handed round")
    }

    fn for_a_while(&self, what: Fault) -> Step {
        Step { at: self.at, lasts: Some(self.lasts), what }
    }

    fn now(&self, what: Fault) -> Step {
        Step { at: self.at, lasts: None, what }
    }
}

/// Those who come later are named, and are at the end.
fn from_the_beginning(cluster: &Cluster) -> Cluster {
    let nodes = cluster.nodes.iter().filter(|node| !node.later).cloned().collect();
    Cluster { nodes, ..cluster.clone() }
}

/// Apiservers and nodes.
impl Lot<'_> {
    fn at_control_plane(&mut self, what: fn(Who) -> Fault) -> Option<Vec<Step>> {
        let of = self.control_plane()?;
        Some(vec![self.for_a_while(what(of))])
    }

    fn at_node(&mut self, what: fn(Who) -> Fault) -> Option<Vec<Step>> {
        let of = self.node()?;
        Some(vec![self.for_a_while(what(of))])
    }

    fn halting(&mut self, what: fn(Who) -> Fault) -> Option<Vec<Step>> {
        self.processes_halt()?;
        self.at_node(what)
    }

    fn apiserver(&mut self, modes: &[Mode]) -> Option<Vec<Step>> {
        let (of, mode) = (self.control_plane()?, self.one_of("does", modes));
        Some(vec![self.for_a_while(Fault::Apiserver { of, mode })])
    }

    fn impostor(&mut self) -> Option<Vec<Step>> {
        let (of, mode) = (self.control_plane()?, self.one_of("answers", &[Mode::WrongCertificate, Mode::NotTls]));
        Some(vec![self.for_a_while(Fault::Impostor { of, mode })])
    }

    fn flaps(&mut self) -> Option<Vec<Step>> {
        let (of, period) = (self.control_plane()?, self.number("period", 2_000, 6_000));
        self.lasts = self.lasts.max(2 * period);
        Some(vec![self.for_a_while(Fault::Flap { of, period })])
    }

    fn family(&mut self) -> Option<Vec<Step>> {
        self.dual_stack().then_some(())?;
        let (of, ipv6) = (self.control_plane()?, self.chance("IPv6", 0.5));
        Some(vec![self.for_a_while(Fault::Family { of, ipv6 })])
    }

    fn dual_stack(&self) -> bool {
        self.cluster.nodes.iter().any(|node| node.dual_stack)
    }

    fn joins(&mut self) -> Option<Vec<Step>> {
        let of = self.claim("newcomer")?;
        let control_plane = self.chance("a control plane joins", 0.5);
        self.cluster.nodes.push(Node { name: of[0].clone(), control_plane, later: true, ..Node::default() });
        Some(vec![self.now(Fault::Join { of })])
    }

    /// The last control plane stays.
    fn leaves(&mut self) -> Option<Vec<Step>> {
        self.processes_halt()?;
        let planes = self.cluster.nodes.iter().filter(|node| node.control_plane && !node.later).count();
        let of = if planes > 1 { self.node()? } else { self.worker()? };
        self.claim("somebody leaves")?;
        Some(vec![self.now(Fault::Leave { of })])
    }

    fn worker(&mut self) -> Option<Who> {
        let name = self.cast.worker(&from_the_beginning(self.cluster), &self.named("which worker"));
        self.claim(name)
    }

    /// It comes back with one address, and so is no part of a story of two families.
    fn moves(&mut self) -> Option<Vec<Step>> {
        (!self.dual_stack()).then_some(())?;
        let of = self.node()?;
        Some(vec![self.now(Fault::Readdress { of })])
    }

    fn state_lost(&mut self) -> Option<Vec<Step>> {
        let of = self.node()?;
        let lost = Step { at: self.at + self.lasts / 2, ..self.now(Fault::StateLost { of: of.clone() }) };
        Some(vec![self.for_a_while(Fault::AgentKilled { of }), lost])
    }

    fn state_restored(&mut self) -> Option<Vec<Step>> {
        self.processes_halt()?;
        let of = self.node()?;
        let restored = Fault::StateRestored { of: of.clone(), from: SNAPSHOT };
        let restored = Step { at: self.at + self.lasts / 2, ..self.now(restored) };
        Some(vec![self.for_a_while(Fault::AgentKilled { of }), restored])
    }

    fn cloned(&mut self) -> Option<Vec<Step>> {
        self.processes_halt()?;
        let from = self.worker()?;
        let workers = self.cluster.nodes.iter().filter(|node| !node.control_plane && !node.later).count();
        let of = (1..=workers).find_map(|number| self.claim(format!("worker-{number}")))?;
        Some(vec![self.now(Fault::Cloned { of: of[0].clone(), from: from[0].clone() })])
    }

    /// A person names the control planes, and takes it back.
    fn configured(&mut self) -> Option<Vec<Step>> {
        let of = self.node()?;
        let planes = self.cluster.nodes.iter().filter(|node| node.control_plane && !node.later).count();
        // Machines are numbered from 10.0.0.1 on.
        let endpoints: Vec<String> = (1..=planes).map(|number| format!("\"10.0.0.{number}:6443\"")).collect();
        let config = format!("endpoint: [{}]\n", endpoints.join(", "));
        Some(vec![self.for_a_while(Fault::Configure { of, config })])
    }
}

/// The balancer, files, gossip and the network.
impl Lot<'_> {
    fn balancer(&mut self) -> Option<Vec<Step>> {
        self.cluster.balancer?;
        self.claim("the balancer")?;
        let mode = self.one_of("the balancer", &[Mode::Refusing, Mode::Dropping, Mode::Hung]);
        Some(vec![self.for_a_while(Fault::Balancer { mode })])
    }

    fn balancer_blind(&mut self) -> Option<Vec<Step>> {
        self.cluster.balancer?;
        self.claim("the balancer's eyes")?;
        Some(vec![self.for_a_while(Fault::BalancerBlind)])
    }

    fn balancer_moves(&mut self) -> Option<Vec<Step>> {
        self.named_balancer()?;
        self.claim("the balancer")?;
        Some(vec![self.now(Fault::BalancerMoves)])
    }

    fn dns(&mut self) -> Option<Vec<Step>> {
        self.named_balancer()?;
        self.claim("DNS")?;
        let silent = self.chance("silent", 0.5);
        Some(vec![self.for_a_while(Fault::Dns { silent })])
    }

    /// Nobody asks DNS for anything else.
    fn named_balancer(&self) -> Option<usize> {
        self.cluster.balancer.filter(|_| self.cluster.by_name)
    }

    /// Apiservers change, and the file follows node by node.
    fn new_ca(&mut self) -> Option<Vec<Step>> {
        self.files_are_handed_round()?;
        self.claim("the CA")?;
        let mut steps = vec![self.now(Fault::NewCa)];
        for name in self.everybody() {
            let after = self.number(&format!("the file reaches {name} in"), 1_000, FILES_ARRIVE);
            steps.push(Step { at: self.at + after, ..self.now(Fault::GiveCa { of: who(name), old_too: false }) });
        }
        Some(steps)
    }

    /// Added everywhere, then promoted everywhere, then the old one retired everywhere.
    fn new_key(&mut self) -> Option<Vec<Step>> {
        self.files_are_handed_round()?;
        self.claim("the key")?;
        let mut steps = Vec::new();
        for (turn, step) in ["add", "promote", "retire"].into_iter().enumerate() {
            for name in self.everybody() {
                let after = KEYS_APART * turn as Ms + self.number(&format!("{step} at {name} in"), 0, 2_000);
                let rotated = Fault::Keyring { of: who(name), step: step.to_owned() };
                steps.push(Step { at: self.at + after, ..self.now(rotated) });
            }
        }
        Some(steps)
    }

    /// Also those who come later: they are given what holds by then.
    fn everybody(&mut self) -> Vec<String> {
        // Nobody else comes: he would not be among them.
        self.taken.extend(["newcomer".to_owned(), INTRUDER.to_owned()]);
        Plan { cluster: self.cluster.clone(), steps: Vec::new(), lasts: 0 }.names()
    }

    fn hostile(&mut self) -> Option<Vec<Step>> {
        self.claim(INTRUDER)?;
        self.cluster.nodes.push(Node { name: INTRUDER.to_owned(), later: true, ..Node::default() });
        let acts = [Hostility::ForgedEndpoint, Hostility::ForgedVerdicts, Hostility::RecordStorm, Hostility::Oversize];
        let act = self.one_of("means to", &acts);
        Some(vec![self.for_a_while(Fault::Hostile { node: INTRUDER.to_owned(), act })])
    }

    fn partition(&mut self) -> Option<Vec<Step>> {
        let class = self.one_of("which packets", &[None, Some(Packets::Api), Some(Packets::Gossip)]);
        let both = self.chance("both ways", 0.5);
        Some(vec![self.for_a_while(Fault::Partition { from: self.some(), to: Vec::new(), both, class })])
    }

    fn on_the_way(&mut self, what: fn(&Lot<'_>, Who) -> Fault) -> Option<Vec<Step>> {
        let of = self.some();
        Some(vec![self.for_a_while(what(self, of))])
    }
}
