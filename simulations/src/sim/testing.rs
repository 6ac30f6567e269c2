//! A small modelled world for tests: machines one millisecond apart, each with an apiserver if a test puts one there.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::core::{RunId, Sim};
use super::disk::Disk;
use super::draw::Draw;
use super::run::{API_PORT, GOSSIP_PORT, address, new_site};
use super::seams::Host;
use super::state::{AgentLife, Machine, MachineId, State, Zones};

/// The address of a machine.
pub(super) fn ip(machine: MachineId) -> IpAddr {
    address(machine, 0)
}

/// Where a machine's apiserver is.
pub(super) fn api(machine: MachineId) -> SocketAddr {
    SocketAddr::new(ip(machine), API_PORT)
}

/// So many machines, without faults or jitter.
pub(super) fn state(machines: usize) -> State {
    let machine = |id: MachineId| Machine {
        name: format!("machine-{id}").into(),
        zone: 0,
        addrs: vec![ip(id)],
        up: true,
        agent: AgentLife::Running,
        clock_off: 0,
        trusts: [0].into(),
        allows: Vec::new(),
        configured: Default::default(),
        seeds: (0..machines).map(|seed| SocketAddr::new(ip(seed), GOSSIP_PORT)).collect(),
        advertises: Default::default(),
        gossips: true,
    };
    State {
        zones: Arc::new(Zones { one_way: vec![vec![1]], jitter: 0.0 }),
        machines: (0..machines).map(machine).collect(),
        sites: BTreeMap::new(),
        rules: Vec::new(),
        names: BTreeMap::new(),
        faults: 0,
        by_ip: BTreeMap::new(),
    }
}

/// The same, and this machine has an apiserver.
pub(super) fn with_apiserver(mut state: State, machine: MachineId) -> State {
    state.sites.insert(api(machine), new_site(machine, 1, 0));
    state
}

/// Whoever is on a machine and is no agent.
pub(super) fn host(sim: &Sim, machine: MachineId) -> Host {
    Host { sim: sim.clone(), machine, run: None, disk: Disk::default() }
}

/// An agent's process on a machine.
pub(super) fn agent(sim: &Sim, machine: MachineId) -> (Host, RunId) {
    let run = sim.core().new_run(machine);
    (Host { sim: sim.clone(), machine, run: Some(run), disk: Disk::default() }, run)
}

/// Runs this in a world of its own whose clock is virtual.
pub(super) fn in_virtual_time(state: State, play: impl AsyncFnOnce(Sim)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let sim = Sim::new(Draw::of(1), state);
        let pump = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(sim.clone().pump()));
        play(sim).await;
        drop(pump);
    });
}
