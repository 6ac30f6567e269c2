//! 10, thrift: neither probes nor gossip cost more than they may.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Docket;
use crate::sim::log::ProbeSeen;
use crate::sim::outcome::Judged;
use crate::sim::plan::{Fault, Step};
use crate::sim::run::Ran;
use crate::sim::state::{AgentLife, MachineId, Ms};

/// Probes are counted over this.
const WINDOW: Ms = 10_000;
/// Periodic probes of one endpoint by all nodes but its own, a second.
const PROBES: u64 = 22;
/// Its own node adds four a second, and a tenth for jitter, as is in the others' number; over [`WINDOW`].
const OWN: u64 = 44;
/// A node may send these to prove an endpoint ...
const TO_PROVE: u64 = 2;
/// ... these after a report of a peer's ...
const AFTER_REPORT: u64 = 1;
/// ... and these after a change of its own verdict.
const AFTER_CHANGE: u64 = 3;
/// Gossip a node, in bytes a second: a part that is always there, and one a member.
const GOSSIP: (f64, f64) = (7_000.0, 165.0);
/// The longest datagram, in bytes of payload.
const DATAGRAM: usize = 1_200;
/// Until everybody has met everybody.
const BEGINNING: Ms = 20_000;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> Judged {
    let mut docket = Docket::new(10, "thrift");
    probes(ran, &mut docket);
    gossip(ran, &mut docket);
    for (machine, longest) in ran.log.longest_datagrams.iter().filter(|(machine, _)| !means_harm(ran, **machine)) {
        docket.evaluated();
        if *longest > DATAGRAM {
            docket.broken(ran.ended, || format!("a datagram of {} had {longest} bytes", ran.names[*machine]));
        }
    }
    docket.close()
}

/// What sits on this machine is no agent, and keeps to nothing.
fn means_harm(ran: &Ran, machine: MachineId) -> bool {
    let hostile = |step: &Step| matches!(&step.what, Fault::Hostile { node, .. } if ran.names.get(machine) == Some(node));
    ran.plan.steps.iter().any(hostile)
}

fn probes(ran: &Ran, docket: &mut Docket) {
    let mut windows: BTreeMap<(SocketAddr, Ms), Vec<&ProbeSeen>> = BTreeMap::new();
    for probe in &ran.log.probes {
        windows.entry((probe.endpoint, probe.at / WINDOW)).or_default().push(probe);
    }
    for ((e, window), seen) in windows {
        let (from, to) = (window * WINDOW, (window + 1) * WINDOW);
        let owner = ran.history.at(to.min(ran.ended)).sites.get(&e).map(|site| site.machine);
        let (own, others): (Vec<&ProbeSeen>, Vec<&ProbeSeen>) = seen.into_iter().partition(|probe| Some(probe.machine) == owner);
        let extra = extras(ran, e, from, to);
        docket.evaluated();
        let most = PROBES * WINDOW / 1_000;
        for (what, count, most) in [("others", others.len() as u64, most), ("its own node", own.len() as u64, OWN)] {
            if count > most + extra {
                docket.broken(from, || {
                    format!("{} was probed {count} times in 10 s by {what}, {} are explained", ran.name_of(e), most + extra)
                });
            }
        }
    }
}

/// What may be added to the periodic probes in a window.
fn extras(ran: &Ran, e: SocketAddr, from: Ms, to: Ms) -> u64 {
    let before = from.saturating_sub(WINDOW);
    let about = |change: &&crate::sim::log::VerdictChange| change.endpoint.addr() == e && (before..to).contains(&change.at);
    let changes = ran.log.verdicts.iter().filter(about).count() as u64;
    let began = ran.log.runs.values().filter(|run| (before..to).contains(&run.from)).count() as u64;
    let nodes = ran.names.len() as u64;
    // Each change may be told to everybody, and each may ask once for itself.
    let reports = changes.min(8) * nodes * AFTER_REPORT;
    let pause = 500.max(nodes * 10);
    let held = held_ms(ran, from, to) / pause;
    began * TO_PROVE + nodes.min(changes) * TO_PROVE + reports + changes * AFTER_CHANGE + held
}

/// For how long clients were held, summed over nodes.
fn held_ms(ran: &Ran, from: Ms, to: Ms) -> Ms {
    let one = |changes: &Vec<(Ms, u32)>| {
        let ends = changes.iter().map(|(at, _)| *at).skip(1).chain([ran.ended]);
        let spans = changes.iter().zip(ends).filter(|((_, held), _)| *held > 0);
        spans.map(|((began, _), ended)| ended.min(to).saturating_sub((*began).max(from))).sum::<Ms>()
    };
    ran.log.held.values().map(one).sum()
}

fn gossip(ran: &Ran, docket: &mut Docket) {
    for (machine, seconds) in &ran.log.gossip {
        for (window, bytes) in (0_u64..).zip(seconds.chunks_exact(10)) {
            let (from, to) = (window * WINDOW, (window + 1) * WINDOW);
            let quiet = ran.history.quiet_since(to.min(ran.ended)).is_some_and(|since| since + BEGINNING <= from);
            if !quiet || *machine >= ran.names.len() {
                continue;
            }
            docket.evaluated();
            let members = ran.history.at(from).machines.iter().filter(|machine| machine.agent == AgentLife::Running).count();
            let most = GOSSIP.0 + GOSSIP.1 * members as f64;
            let sent = bytes.iter().sum::<u64>() as f64 / bytes.len() as f64;
            if sent > most {
                docket.broken(from, || {
                    format!("{} sent {:.1} kB/s of gossip, where {:.1} are allowed", ran.names[*machine], sent / 1e3, most / 1e3)
                });
            }
        }
    }
}
