//! What befalls whole machines and the ways between them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use prismesh::gossip::Keyring;

use super::draw::Draw;
use super::node::Order;
use super::plan::{Fault, Who};
use super::run::{API_PORT, BALANCER_NAME, Stage, address, new_site};
use super::state::{Class, MachineId, Mode, Ms, Name, Rule, State, Toll};

/// For so long there is no process between two.
const STARTS: Ms = 1;

impl Stage {
    pub(super) fn power_off(&mut self, machines: &BTreeSet<MachineId>, more: isize) {
        self.faults(
            |state| {
                for machine in machines {
                    state.machines[*machine].up = false;
                    // Whatever comes back later is another process.
                    for site in state.sites.values_mut().filter(|site| site.machine == *machine && site.backends.is_none()) {
                        site.mode = Mode::Gone;
                    }
                }
            },
            more,
        );
        for machine in machines {
            let Some(node) = self.nodes.get(*machine).cloned() else { continue };
            self.work.spawn(async move { node.lock().await.obey(Order::Kill).await });
        }
    }

    pub(super) fn power_on(&mut self, machines: &BTreeSet<MachineId>, more: isize) -> anyhow::Result<()> {
        self.faults(
            |state| {
                for machine in machines {
                    state.machines[*machine].up = true;
                    for site in state.sites.values_mut().filter(|site| site.machine == *machine && site.backends.is_none()) {
                        super::director::set_mode(site, Mode::Ready);
                    }
                }
            },
            more,
        );
        for machine in machines {
            if *machine < self.nodes.len() {
                self.start_after(*machine, STARTS);
            }
        }
        Ok(())
    }

    /// Nodes that were to come later.
    pub(super) fn join(&mut self, of: &Who, draw: Draw) -> anyhow::Result<()> {
        let machines = self.machines(of)?;
        self.came.extend(&machines);
        for machine in &machines {
            self.write_config(*machine)?;
        }
        let nodes = self.plan.cluster.nodes.clone();
        let ca = self.ca;
        self.faults(
            |state| {
                for machine in &machines {
                    let it = &mut state.machines[*machine];
                    it.up = true;
                    if nodes[*machine].control_plane {
                        for ip in it.addrs.clone() {
                            state.sites.insert(SocketAddr::new(ip, API_PORT), new_site(*machine, 1, ca));
                        }
                    }
                }
                know_backends(state);
            },
            0,
        );
        let stagger = self.plan.cluster.stagger;
        for machine in machines {
            let after = draw.number(&format!("start of {}", self.names[machine]), 0, stagger);
            self.start_after(machine, after);
            self.add_clients(machine, draw);
        }
        Ok(())
    }

    /// Nodes that go for good: first their agents, then their apiservers.
    pub(super) fn leave(&mut self, of: &Who) -> anyhow::Result<()> {
        let machines = self.machines(of)?;
        self.left.extend(&machines);
        let (sim, nodes) = (self.sim.clone(), self.nodes.clone());
        self.work.spawn(async move {
            for machine in &machines {
                // After the agent's own good-bye, which is in turn before this.
                drop(nodes[*machine].lock().await);
            }
            sim.change(|state| {
                for machine in &machines {
                    state.machines[*machine].up = false;
                }
                for site in state.sites.values_mut().filter(|site| machines.contains(&site.machine)) {
                    site.mode = Mode::Gone;
                }
            });
            Ok(())
        });
        Ok(())
    }

    /// A reboot after which the machine has another address.
    pub(super) fn readdress(&mut self, of: &Who) -> anyhow::Result<()> {
        let machines = self.machines(of)?;
        self.power_off(&machines, 0);
        for machine in &machines {
            let moved = self.moves.entry(*machine).or_default();
            *moved += 1;
            let addr = address(*machine, *moved);
            let control_plane = self.plan.cluster.nodes[*machine].control_plane;
            let ca = self.ca;
            self.sim.change(|state| {
                let old = std::mem::replace(&mut state.machines[*machine].addrs, vec![addr]);
                if control_plane {
                    let gone = old.iter().filter_map(|ip| state.sites.remove(&SocketAddr::new(*ip, API_PORT)));
                    let incarnation = gone.map(|site| site.incarnation).max().unwrap_or(0) + 1;
                    let site = super::state::Site { mode: Mode::Gone, ..new_site(*machine, incarnation, ca) };
                    state.sites.insert(SocketAddr::new(addr, API_PORT), site);
                    know_backends(state);
                }
            });
            self.write_config(*machine)?;
        }
        self.power_on(&machines, 0)
    }

    /// The external balancer goes on at another address, and whoever looks its name up again finds it there.
    pub(super) fn move_balancer(&mut self) {
        let balancer = self.names.len();
        let Some(old) = self.balancer_site().into_iter().next() else { return };
        let moved = self.moves.entry(balancer).or_default();
        *moved += 1;
        let new = SocketAddr::new(address(balancer, *moved), old.port());
        self.faults(
            |state| {
                state.machines[balancer].addrs = vec![new.ip()];
                if let Some(site) = state.sites.remove(&old) {
                    state.sites.insert(new, site);
                }
                state.names.insert(BALANCER_NAME.to_owned(), Name::Is(vec![new.ip()]));
            },
            0,
        );
    }

    /// One machine becomes a copy of another: its state directory, and with it its name.
    pub(super) fn clone_machine(&mut self, of: &str, from: &str) -> anyhow::Result<()> {
        let one = |names: BTreeSet<MachineId>| names.into_iter().next();
        let of_id = one(self.machines(&[of.to_owned()])?).context("a copy needs a name")?;
        let from_id = one(self.machines(&[from.to_owned()])?).context("an original needs a name")?;
        self.disks[of_id].restore(&self.disks[from_id]);
        self.more.insert(of_id, format!("node: {from}"));
        self.write_config(of_id)?;
        self.faults(|_| {}, 0);
        self.each(&[of.to_owned()], &Order::Kill)?;
        self.start_after(of_id, STARTS);
        Ok(())
    }

    /// One step of a key rotation on these nodes.
    pub(super) fn turn_keys(&mut self, of: &Who, step: &str) -> anyhow::Result<()> {
        for machine in self.machines(of)? {
            let path = std::path::Path::new("/etc/prismesh/keyring");
            let file = self.disks[machine].read(path, usize::MAX)?;
            let edited = match step {
                // Everybody is given the same new key, as an operator would copy the file.
                "add" => {
                    let key = Keyring::parse(self.new_key().as_bytes())?;
                    let key = if Keyring::parse(&file)?.is_full() { key.to_text() } else { key.reader_text() };
                    [file.as_slice(), key.as_bytes()].concat()
                }
                "promote" => Keyring::promote(&file, None)?.text.into_bytes(),
                "retire" => {
                    let last = Keyring::parse(&file)?.key_ids().pop().context("a keyring has a key")?;
                    Keyring::remove(&file, last)?.text.into_bytes()
                }
                other => bail!("a key rotation has no step {other:?}: add, promote, retire"),
            };
            let text = String::from_utf8(edited)?;
            self.each(&[self.names[machine].clone()], &Order::Keys(text))?;
        }
        self.faults(|_| {}, 0);
        Ok(())
    }

    /// The cluster's second key: the same whoever asks.
    fn new_key(&mut self) -> String {
        self.second_key.get_or_insert_with(Keyring::generate).clone()
    }

    /// What the network does while this fault is in force.
    pub(super) fn rules(&self, what: &Fault, id: u64) -> anyhow::Result<Vec<Rule>> {
        let everyone: BTreeSet<MachineId> = (0..self.sim.core().state.machines.len()).collect();
        let set = |who: &Who| anyhow::Ok(Arc::new(self.machines(who)?));
        let others = |of: &BTreeSet<MachineId>| Arc::new(everyone.difference(of).copied().collect::<BTreeSet<_>>());
        let rule = |from: &Arc<BTreeSet<MachineId>>, to: &Arc<BTreeSet<MachineId>>, class: Option<Class>, what| Rule {
            id,
            from: from.clone(),
            to: to.clone(),
            class,
            what,
        };
        let all = Arc::new(everyone.clone());
        Ok(match what {
            Fault::Partition { from, to, both, class } => {
                let from = set(from)?;
                let to = if to.is_empty() { others(&from) } else { set(to)? };
                let mut rules = vec![rule(&from, &to, *class, Toll::Block)];
                if *both {
                    rules.push(rule(&to, &from, *class, Toll::Block));
                }
                rules
            }
            Fault::Forbid { of, to } => vec![rule(&set(of)?, &set(to)?, Some(Class::Api), Toll::Forbid)],
            Fault::SegmentHole { from, to, bytes } => {
                vec![rule(&set(from)?, &set(to)?, Some(Class::Api), Toll::Segment(*bytes))]
            }
            Fault::Latency { of, to, ms } => {
                let of = set(of)?;
                let to = if to.is_empty() { others(&of) } else { set(to)? };
                vec![rule(&of, &to, None, Toll::Longer(*ms)), rule(&to, &of, None, Toll::Longer(*ms))]
            }
            Fault::Loss { of, share } => between(&set(of)?, &all, &rule, Toll::Loss(*share)),
            Fault::Jitter { of, share } => between(&set(of)?, &all, &rule, Toll::Jitter(*share)),
            Fault::Mtu { of, bytes } => between(&set(of)?, &all, &rule, Toll::Mtu(*bytes)),
            Fault::Disorder { of, share } => {
                let of = set(of)?;
                let mut rules = between(&of, &all, &rule, Toll::Twice(*share));
                rules.extend(between(&of, &all, &rule, Toll::Late(*share)));
                rules
            }
            _ => Vec::new(),
        })
    }
}

/// Whatever goes from or to these.
fn between(
    of: &Arc<BTreeSet<MachineId>>,
    all: &Arc<BTreeSet<MachineId>>,
    rule: &impl Fn(&Arc<BTreeSet<MachineId>>, &Arc<BTreeSet<MachineId>>, Option<Class>, Toll) -> Rule,
    what: Toll,
) -> Vec<Rule> {
    let others = Arc::new(all.difference(of).copied().collect::<BTreeSet<_>>());
    vec![rule(of, all, None, what), rule(&others, of, None, what)]
}

/// The balancer's operator keeps its list up to date.
fn know_backends(state: &mut State) {
    let all: Arc<[SocketAddr]> =
        state.sites.iter().filter(|(addr, site)| site.backends.is_none() && addr.is_ipv4()).map(|(addr, _)| *addr).collect();
    for site in state.sites.values_mut().filter(|site| site.backends.is_some()) {
        site.backends = Some(all.clone());
    }
}
