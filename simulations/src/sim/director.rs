//! Plays a plan's steps at their times, and undoes each when it is over.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::sleep;

use super::draw::Draw;
use super::node::{CA, Order, STATE};
use super::plan::{Fault, Step};
use super::run::{BALANCER_NAME, Stage};
use super::span::Span;
use super::state::{AgentLife, MachineId, Mode, Ms, Name, Site, State};

/// An apiserver that is told to stop serves on for so long, saying that it is not ready.
const DRAIN: Ms = 5_000;

/// While clients are held a node probes each 500 ms; so long a new CA's file takes to bear fruit.
const BELIEVES_AFTER: Duration = Duration::from_millis(600);

/// Whether a step begins or is over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Over,
    Begins,
}

/// Plays the whole plan.
pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    let steps = stage.plan.steps.clone();
    let lasts = stage.plan.lasts;
    let mut turns: Vec<(Ms, Turn, usize)> = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        turns.push((step.at, Turn::Begins, place));
        turns.extend(step.lasts.map(|lasts| (step.at + lasts, Turn::Over, place)));
        if let Fault::StateRestored { of, from } = &step.what {
            for machine in stage.machines(of)? {
                stage.snapshots.insert((machine, *from), stage.disks[machine].clone());
                turns.push((*from, Turn::Over, usize::MAX));
            }
        }
    }
    turns.sort_unstable();
    for (at, turn, place) in turns.into_iter().filter(|(at, ..)| *at <= lasts) {
        stage.sim.until(at).await;
        stage.alone.check("while it runs");
        stage.check_work()?;
        let Some(step) = steps.get(place) else {
            stage.take_snapshots(at);
            continue;
        };
        let so = || format!("the step at {}, {}", Span(step.at), step.what.words());
        match turn {
            Turn::Begins => stage.begins(step, place as u64).with_context(so)?,
            Turn::Over => stage.over(step, place as u64).with_context(so)?,
        }
    }
    stage.sim.until(lasts).await;
    stage.check_work()
}

impl Stage {
    /// A step that failed fails the run.
    fn check_work(&mut self) -> anyhow::Result<()> {
        while let Some(done) = self.work.try_join_next() {
            done.context("a step panicked")??;
        }
        Ok(())
    }

    fn take_snapshots(&mut self, at: Ms) {
        for ((_, from), disk) in &mut self.snapshots {
            if *from == at {
                *disk = disk.snapshot();
            }
        }
    }

    /// The machines that a list of names means, the balancer among them.
    pub(super) fn machines(&self, who: &[String]) -> anyhow::Result<BTreeSet<MachineId>> {
        let mut found = BTreeSet::new();
        for name in who {
            let before = found.len();
            let begins = name.strip_suffix('*');
            let means = |known: &str| begins.map_or(known == name, |begins| known.starts_with(begins));
            found.extend((0..self.names.len()).filter(|machine| means(&self.names[*machine])));
            if name == "balancer" && self.plan.cluster.balancer.is_some() {
                found.insert(self.names.len());
            }
            if found.len() == before && begins.is_none() {
                bail!("nobody is named {name:?}");
            }
        }
        Ok(found)
    }

    fn sites(&self, who: &[String]) -> anyhow::Result<BTreeSet<SocketAddr>> {
        let machines = self.machines(who)?;
        let core = self.sim.core();
        let sites = core.state.sites.iter().filter(|(_, site)| machines.contains(&site.machine) && site.backends.is_none());
        Ok(sites.map(|(addr, _)| *addr).collect())
    }

    fn family(&self, who: &[String], ipv6: bool) -> anyhow::Result<BTreeSet<SocketAddr>> {
        Ok(self.sites(who)?.into_iter().filter(|site| site.is_ipv6() == ipv6).collect())
    }

    pub(super) fn faults(&self, change: impl FnOnce(&mut State), more: isize) {
        self.sim.change(|state| {
            change(state);
            state.faults = state.faults.saturating_add_signed(more);
        });
    }

    fn mode(&self, sites: &BTreeSet<SocketAddr>, mode: Mode, more: isize) {
        self.faults(
            |state| {
                for (_, site) in state.sites.iter_mut().filter(|(addr, _)| sites.contains(addr)) {
                    set_mode(site, mode);
                }
            },
            more,
        );
    }

    #[expect(clippy::too_many_lines, reason = "one arm a fault: a table, not an algorithm")]
    fn begins(&mut self, step: &Step, id: u64) -> anyhow::Result<()> {
        let more = isize::from(step.lasts.is_some());
        let draw = self.draw();
        match &step.what {
            Fault::Apiserver { of, mode } | Fault::Impostor { of, mode } => self.mode(&self.sites(of)?, *mode, more),
            Fault::Drain { of } => {
                let sites = self.sites(of)?;
                self.mode(&sites, Mode::Draining, more);
                self.ends_in_order(sites, Mode::Draining, DRAIN);
            }
            Fault::GracefulStop { of, serves_on } => {
                let sites = self.sites(of)?;
                self.mode(&sites, Mode::Closed, more);
                sites.iter().for_each(|site| self.sim.core().say_no_more(*site));
                self.sim.rouse();
                self.ends_in_order(sites, Mode::Closed, *serves_on);
            }
            Fault::Flap { of, period } => {
                let (sites, sim, half) = (self.sites(of)?, self.sim.clone(), (*period / 2).max(1));
                let halves = step.lasts.unwrap_or(0).div_ceil(half);
                self.faults(|_| {}, more);
                self.work.spawn(async move {
                    for turn in 0..halves {
                        let mode = if turn % 2 == 0 { Mode::Refusing } else { Mode::Ready };
                        sim.change(|state| {
                            for (_, site) in state.sites.iter_mut().filter(|(addr, _)| sites.contains(addr)) {
                                set_mode(site, mode);
                            }
                        });
                        sleep(Duration::from_millis(half)).await;
                    }
                    Ok(())
                });
            }
            Fault::Family { of, ipv6 } => self.mode(&self.family(of, *ipv6)?, Mode::Unrouted, more),
            Fault::Balancer { mode } => self.mode(&self.balancer_site(), *mode, more),
            Fault::BalancerBlind => {
                self.blind.send_replace(true);
                self.faults(|_| {}, more);
            }
            Fault::Dns { silent } => {
                let name = if *silent { Name::Silent } else { Name::Fails };
                self.faults(|state| state.names.values_mut().for_each(|is| *is = name.clone()), more);
            }
            Fault::Machine { of } => self.power_off(&self.machines(of)?, more),
            Fault::Stall { of } => {
                let machines = self.machines(of)?;
                self.faults(|state| stall(state, &machines, true), more);
            }
            Fault::AgentKilled { of } => {
                self.faults(|_| {}, more);
                self.each(of, &Order::Kill)?;
            }
            Fault::AgentRestart { of } | Fault::Leave { of } => {
                self.faults(|_| {}, more);
                self.each(of, &Order::Stop)?;
                if matches!(step.what, Fault::Leave { .. }) {
                    self.leave(of)?;
                }
            }
            Fault::Join { of } => self.join(of, draw)?,
            Fault::Readdress { of } => self.readdress(of)?,
            Fault::StateLost { of } => {
                for machine in self.machines(of)? {
                    self.disks[machine].wipe(Path::new(STATE));
                }
                self.faults(|_| {}, 0);
            }
            Fault::StateRestored { of, from } => {
                for machine in self.machines(of)? {
                    if let Some(disk) = self.snapshots.get(&(machine, *from)) {
                        self.disks[machine].restore(disk);
                    }
                }
                self.faults(|_| {}, 0);
            }
            Fault::Cloned { of, from } => self.clone_machine(of, from)?,
            Fault::ClockJump { of, by } => {
                let machines = self.machines(of)?;
                self.faults(|state| machines.iter().for_each(|machine| state.machines[*machine].clock_off += by), more);
            }
            Fault::Configure { of, config } => {
                for machine in self.machines(of)? {
                    self.more.insert(machine, config.clone());
                    self.write_config(machine)?;
                }
                self.faults(|_| {}, more);
                self.each(of, &Order::Reload)?;
            }
            Fault::NewCa => {
                self.ca += 1;
                let ca = self.ca;
                self.faults(|state| state.sites.values_mut().for_each(|site| renew(site, ca)), 0);
            }
            Fault::NextCa => {
                self.ca += 1;
                self.faults(|_| {}, 0);
            }
            Fault::Reissue { of } => {
                let (sites, ca) = (self.sites(of)?, self.ca);
                let reissued = |(addr, _): &(&SocketAddr, &mut Site)| sites.contains(addr);
                self.faults(|state| state.sites.iter_mut().filter(reissued).for_each(|(_, site)| site.ca = ca), 0);
            }
            Fault::GiveCa { of, old_too } => {
                let oldest = if *old_too { self.ca.saturating_sub(1) } else { self.ca };
                let cas: Vec<u32> = (oldest..=self.ca).collect();
                let machines = self.machines(of)?;
                self.each(of, &Order::Trust(cas.clone()))?;
                let sim = self.sim.clone();
                sim.change(|state| state.faults += 1);
                self.work.spawn(async move {
                    // Whoever has a new file believes nobody before a probe of its own.
                    sleep(BELIEVES_AFTER).await;
                    sim.change(|state| {
                        state.faults -= 1;
                        machines.iter().for_each(|machine| state.machines[*machine].trusts = cas.iter().copied().collect());
                    });
                    Ok(())
                });
            }
            Fault::LoseCa { of } => {
                for machine in self.machines(of)? {
                    self.disks[machine].wipe(Path::new(CA));
                    self.faults(|state| state.machines[machine].trusts.clear(), 0);
                }
            }
            Fault::Keyring { of, step } => self.turn_keys(of, step)?,
            Fault::Hostile { node, act } => super::hostile::begin(self, node, act)?,
            Fault::Expired { of } => self.expire(&self.sites(of)?, true, more),
            Fault::BalancerMoves => self.move_balancer(),
            Fault::NameTakesTurns { of } => {
                let machines = self.machines(of)?;
                self.faults(
                    |state| {
                        let turns = machines.iter().map(|machine| state.machines[*machine].addrs.clone()).collect();
                        state.names.insert(BALANCER_NAME.to_owned(), Name::TakesTurns(turns));
                    },
                    more,
                );
            }
            Fault::Newer { of } => {
                self.faults(|_| {}, more);
                self.install(of, true)?;
            }
            Fault::Partition { .. }
            | Fault::Forbid { .. }
            | Fault::Loss { .. }
            | Fault::Latency { .. }
            | Fault::Jitter { .. }
            | Fault::Mtu { .. }
            | Fault::SegmentHole { .. }
            | Fault::Disorder { .. } => {
                let rules = self.rules(&step.what, id)?;
                self.faults(|state| state.rules.extend(rules), more);
            }
        }
        Ok(())
    }

    /// After so long whoever is still in this mode closes its connections, and is gone.
    fn ends_in_order(&mut self, sites: BTreeSet<SocketAddr>, mode: Mode, after: Ms) {
        let sim = self.sim.clone();
        self.work.spawn(async move {
            sleep(Duration::from_millis(after)).await;
            // It may have been told to go on meanwhile.
            let state = sim.core().state.clone();
            let ends = |addr: &SocketAddr| state.sites.get(addr).is_some_and(|site| site.mode == mode);
            let sites: Vec<SocketAddr> = sites.into_iter().filter(ends).collect();
            for site in &sites {
                sim.core().say_go_away(*site);
            }
            sim.rouse();
            // What was said has to get out before the process is gone.
            sleep(Duration::from_millis(5)).await;
            sim.change(|state| {
                for (_, site) in state.sites.iter_mut().filter(|(addr, _)| sites.contains(addr)) {
                    set_mode(site, Mode::Refusing);
                }
            });
            Ok(())
        });
    }

    fn over(&mut self, step: &Step, id: u64) -> anyhow::Result<()> {
        match &step.what {
            Fault::Apiserver { of, .. }
            | Fault::Impostor { of, .. }
            | Fault::Drain { of }
            | Fault::GracefulStop { of, .. }
            | Fault::Flap { of, .. } => {
                self.mode(&self.sites(of)?, Mode::Ready, -1);
            }
            Fault::Family { of, ipv6 } => self.mode(&self.family(of, *ipv6)?, Mode::Ready, -1),
            Fault::Balancer { .. } => self.mode(&self.balancer_site(), Mode::Ready, -1),
            Fault::BalancerBlind => {
                self.blind.send_replace(false);
                self.faults(|_| {}, -1);
            }
            Fault::Dns { .. } | Fault::NameTakesTurns { .. } => {
                let balancer = self.names.len();
                self.faults(
                    |state| {
                        let addrs = state.machines.get(balancer).map(|machine| machine.addrs.clone()).unwrap_or_default();
                        state.names.insert(BALANCER_NAME.to_owned(), Name::Is(addrs));
                    },
                    -1,
                );
            }
            Fault::Machine { of } => self.power_on(&self.machines(of)?, -1)?,
            Fault::Stall { of } => {
                let machines = self.machines(of)?;
                self.faults(|state| stall(state, &machines, false), -1);
            }
            Fault::AgentKilled { of } | Fault::AgentRestart { of } => {
                self.faults(|_| {}, -1);
                self.each(of, &Order::Start)?;
            }
            Fault::ClockJump { of, by } => {
                let machines = self.machines(of)?;
                self.faults(|state| machines.iter().for_each(|machine| state.machines[*machine].clock_off -= by), -1);
            }
            Fault::Configure { of, .. } => {
                for machine in self.machines(of)? {
                    self.more.remove(&machine);
                    self.write_config(machine)?;
                }
                self.faults(|_| {}, -1);
                self.each(of, &Order::Reload)?;
            }
            Fault::Hostile { node, .. } => super::hostile::end(self, node)?,
            Fault::Expired { of } => self.expire(&self.sites(of)?, false, -1),
            Fault::Newer { of } => {
                self.faults(|_| {}, -1);
                self.install(of, false)?;
            }
            _ => self.faults(|state| state.rules.retain(|rule| rule.id != id), -1),
        }
        Ok(())
    }

    pub(super) fn draw(&self) -> Draw {
        self.sim.core().draw
    }

    pub(super) fn balancer_site(&self) -> BTreeSet<SocketAddr> {
        let core = self.sim.core();
        core.state.sites.iter().filter(|(_, site)| site.backends.is_some()).map(|(addr, _)| *addr).collect()
    }

    fn expire(&self, sites: &BTreeSet<SocketAddr>, expired: bool, more: isize) {
        self.faults(
            |state| {
                for (_, site) in state.sites.iter_mut().filter(|(addr, _)| sites.contains(addr)) {
                    site.expired = expired;
                }
            },
            more,
        );
    }

    fn install(&mut self, of: &[String], newer: bool) -> anyhow::Result<()> {
        [Order::Stop, Order::Install { newer }, Order::Start].iter().try_for_each(|order| self.each(of, order))
    }

    /// Gives an order to the agents of these, in turn with whatever else they are told.
    pub(super) fn each(&mut self, who: &[String], order: &Order) -> anyhow::Result<()> {
        for machine in self.machines(who)? {
            let (Some(node), order) = (self.nodes.get(machine).cloned(), order.clone()) else { continue };
            self.work.spawn(async move { node.lock().await.obey(order).await });
        }
        Ok(())
    }
}

fn stall(state: &mut State, machines: &BTreeSet<MachineId>, stalled: bool) {
    for machine in machines {
        let agent = &mut state.machines[*machine].agent;
        *agent = match (*agent, stalled) {
            (AgentLife::Running, true) => AgentLife::Stalled,
            (AgentLife::Stalled, false) => AgentLife::Running,
            (other, _) => other,
        };
    }
}

/// What comes back after it was gone is another process.
pub(super) fn set_mode(site: &mut Site, mode: Mode) {
    let gone = |mode: Mode| matches!(mode, Mode::Refusing | Mode::Gone);
    if gone(site.mode) && !gone(mode) && site.backends.is_none() {
        site.incarnation += 1;
    }
    // An impostor is another process than the apiserver that was here, and so is what comes after it; and an apiserver that shows
    // a certificate of another kind.
    let another = |mode: Mode| match mode {
        Mode::WrongCertificate | Mode::NotTls => 1,
        Mode::UnsupportedCertificate => 2,
        _ => 0,
    };
    if another(site.mode) != another(mode) {
        site.incarnation += 1;
    }
    site.mode = mode;
}

/// It shows a certificate of another CA from now on: another process.
fn renew(site: &mut Site, ca: u32) {
    if site.backends.is_none() {
        site.ca = ca;
        site.incarnation += 1;
    }
}
