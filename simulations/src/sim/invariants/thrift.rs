//! 10, thrift: neither probes nor gossip cost more than they may.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Docket;
use crate::sim::measure::limits;
use crate::sim::outcome::Judged;
use crate::sim::plan::{Fault, Step};
use crate::sim::run::Ran;
use crate::sim::state::{AgentLife, MachineId, Ms, State, Toll};

/// Probes and bytes are counted over this.
const WINDOW: Ms = 10_000;
/// The same in seconds, by which bytes are noted.
const SECONDS: usize = 10;
/// Periodic probes of one endpoint by a node that is not its own, over [`WINDOW`]: an interval of a second, give or take its jitter.
const EACH: usize = 12;
/// Its own node adds four a second, and a tenth for jitter, as is in the others' number.
const OWN: usize = 44;
/// A node may send these to prove an endpoint ...
const TO_PROVE: usize = 2;
/// ... these after a report of a peer's ...
const AFTER_REPORT: usize = 1;
/// ... and these after a change of its own verdict.
const AFTER_CHANGE: usize = 3;
/// Whoever starts does not know yet how large the cluster is, and probes as in a small one at first: so long ...
const GROWS: Ms = 15_000;
/// ... and so often beyond its share.
const WHILE_GROWING: usize = 6;
/// So soon after it.
const PROMPT: Ms = 5_000;
/// Beside what a node may gossip anyway, in bytes, for each process that has just come: it is told of everybody, and everybody of it; a part that is always
/// there, and one a member.
const MEETING: (f64, f64) = (3_000.0, 64.0);
/// What a way is too narrow for is said again in each exchange: then a node may gossip so many times as much.
const SAID_AGAIN: f64 = 1.25;
/// Who is gone is a member for gossip until it is forgotten.
const FORGOTTEN: Ms = 900_000;
/// The longest datagram, in bytes of payload, on a way where nothing is wrong.
const DATAGRAM: usize = 1_200;

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

/// What one node may send to one endpoint beyond its periodic probes, and within which span.
struct Credit {
    from: Ms,
    to: Ms,
    probes: usize,
}

fn probes(ran: &Ran, docket: &mut Docket) {
    let mut sent: BTreeMap<SocketAddr, BTreeMap<MachineId, Vec<Ms>>> = BTreeMap::new();
    for probe in &ran.log.probes {
        sent.entry(probe.endpoint).or_default().entry(probe.machine).or_default().push(probe.at);
    }
    let reports = reports(ran);
    for (e, by) in sent {
        let owner = ran.history.during(0, ran.ended).find_map(|state| state.sites.get(&e).map(|site| site.machine));
        let periodic = |n: MachineId, at: &Vec<Ms>| periodic(at, &credits(ran, n, e, reports.get(&e)));
        let (mut others, mut nodes) = (Vec::new(), 0);
        for (n, at) in &by {
            if Some(*n) == owner {
                at_most(ran, e, "its own node", &periodic(*n, at), OWN, docket);
            } else {
                others.extend(periodic(*n, at));
                nodes += 1;
            }
        }
        others.sort_unstable();
        if let Some(a_second) = limits::probes(nodes) {
            at_most(ran, e, "others", &others, (nodes * EACH).min(a_second * SECONDS), docket);
        }
    }
}

/// No ten seconds have more.
fn at_most(ran: &Ran, e: SocketAddr, who: &str, probes: &[Ms], most: usize, docket: &mut Docket) {
    let mut end = 0;
    for (begin, from) in probes.iter().enumerate() {
        end += probes[end..].iter().take_while(|at| **at < from + WINDOW).count();
        docket.evaluated();
        if end - begin > most {
            let count = end - begin;
            docket.broken(*from, || {
                format!(
                    "{} was probed {count} times in 10 s by {who} beyond what had a reason, {most} are allowed",
                    ran.name_of(e)
                )
            });
        }
    }
}

/// The probes that no credit explains.
fn periodic(sent: &[Ms], credits: &[Credit]) -> Vec<Ms> {
    let mut left: Vec<Ms> = sent.to_vec();
    for credit in credits {
        let mut probes = credit.probes;
        left.retain(|at| {
            let explained = probes > 0 && (credit.from..=credit.to).contains(at);
            probes -= usize::from(explained);
            !explained
        });
    }
    left
}

/// A node's credits for one endpoint, in the order of time.
fn credits(ran: &Ran, n: MachineId, e: SocketAddr, reports: Option<&Vec<(Ms, MachineId)>>) -> Vec<Credit> {
    let began = ran.log.runs.values().filter(|run| run.machine == n).map(|run| run.from);
    let named = ran.history.named_at(e);
    let new = named.into_iter().map(|at| (at, TO_PROVE));
    let told = reports.into_iter().flatten();
    let own = told.clone().filter(|(_, by)| *by == n).map(|(at, _)| (*at, AFTER_CHANGE));
    // Many who say the same ask for one probe.
    let mut last = None;
    let first = |at: &Ms| last.is_none_or(|last| *at > last + PROMPT).then(|| last = Some(*at)).is_some();
    let others = told.filter(|(_, by)| *by != n).map(|(at, _)| *at).filter(first).map(|at| (at, AFTER_REPORT));
    // What befalls one endpoint has another one asked, as a witness.
    let elsewhere = ran.log.verdicts.iter().filter(|change| change.machine == n && change.endpoint.addr() != e);
    let witness = elsewhere.map(|change| (change.at, AFTER_REPORT));
    let mut credits: Vec<Credit> =
        new.chain(witness).chain(own).chain(others).map(|(from, probes)| Credit { from, to: from + PROMPT, probes }).collect();
    let nodes = ran.names.len() as u64;
    credits.extend(held(ran, n).into_iter().map(|(from, to)| {
        let probes = usize::try_from((to - from) / 500.max(nodes * 10) + 1).unwrap_or(usize::MAX);
        Credit { from, to, probes }
    }));
    credits.extend(began.map(|from| Credit { from, to: from + GROWS, probes: TO_PROVE + WHILE_GROWING }));
    credits.sort_by_key(|credit| credit.from);
    credits
}

/// Changes of verdicts by endpoint: when and whose. Somebody who means harm reports what he likes, and is not counted.
fn reports(ran: &Ran) -> BTreeMap<SocketAddr, Vec<(Ms, MachineId)>> {
    let mut reports: BTreeMap<SocketAddr, Vec<(Ms, MachineId)>> = BTreeMap::new();
    for change in &ran.log.verdicts {
        reports.entry(change.endpoint.addr()).or_default().push((change.at, change.machine));
    }
    reports
}

/// When a node's clients were held.
fn held(ran: &Ran, n: MachineId) -> Vec<(Ms, Ms)> {
    let changes = ran.log.held.get(&n).map_or(&[][..], Vec::as_slice);
    let died = |at: Ms| ran.log.runs.values().filter(|run| run.machine == n).filter_map(|run| run.to).find(|to| *to >= at);
    let ends = changes.iter().map(|(at, _)| *at).skip(1).chain([ran.ended]);
    let spans = changes.iter().zip(ends).filter(|((_, held), _)| *held > 0);
    spans.map(|((from, _), to)| (*from, to.min(died(*from).unwrap_or(Ms::MAX)))).collect()
}

fn gossip(ran: &Ran, docket: &mut Docket) {
    let windows = 0..ran.ended.saturating_sub(WINDOW) / 1_000 + 1;
    let spans: Vec<Ms> = windows.map(|second| second * 1_000).collect();
    let bounds = |core: bool| spans.iter().map(|from| most_gossip(ran, *from, core)).collect::<Vec<Option<f64>>>();
    let (core, workers) = (bounds(true), bounds(false));
    for (machine, seconds) in ran.log.gossip.iter().filter(|(machine, _)| !means_harm(ran, **machine)) {
        let bounds = if ran.plan.cluster.nodes[*machine].control_plane { &core } else { &workers };
        for ((from, bytes), most) in (0_u64..).zip(seconds.windows(SECONDS)).zip(bounds) {
            let Some(most) = most else { continue };
            docket.evaluated();
            let sent = bytes.iter().sum::<u64>() as f64 / SECONDS as f64;
            if sent > *most {
                docket.broken(from * 1_000, || {
                    format!("{} sent {:.1} kB/s of gossip, where {:.1} are allowed", ran.names[*machine], sent / 1e3, most / 1e3)
                });
            }
        }
    }
}

/// What a node may send in the window that begins at a moment, in bytes a second; [`None`] where that is not judged.
fn most_gossip(ran: &Ran, from: Ms, core: bool) -> Option<f64> {
    let to = from + WINDOW;
    if to > ran.ended || somebody_stood_still(ran, from, to) || harmed(ran, from, to) {
        return None;
    }
    let members = ran.log.runs.values().filter(|run| run.from < to && run.to.is_none_or(|at| at + FORGOTTEN > from));
    let members = members.count() as f64;
    let came = ran.log.runs.values().filter(|run| (from.saturating_sub(WINDOW)..to).contains(&run.from)).count() as f64;
    let meeting = came * (MEETING.0 + MEETING.1 * members) / SECONDS as f64;
    let again = if ran.history.during(from, to).any(too_narrow) { SAID_AGAIN } else { 1.0 };
    let planes = ran.plan.cluster.nodes.iter().filter(|node| node.control_plane).count() as f64;
    let at_rest = if core { limits::gossip(planes, members) } else { limits::WORKER_GOSSIP };
    Some(1e3 * at_rest * again + meeting)
}

/// Some datagrams of the length that gossip's may have do not pass somewhere.
fn too_narrow(state: &State) -> bool {
    state.rules.iter().any(|rule| matches!(rule.what, Toll::Mtu(bytes) if bytes < DATAGRAM))
}

/// What came in while a process stood still is answered all at once, and answered again.
fn somebody_stood_still(ran: &Ran, from: Ms, to: Ms) -> bool {
    let stands = |state: &State| state.machines.iter().any(|machine| machine.agent == AgentLife::Stalled);
    ran.history.during(from.saturating_sub(1_000), to).any(stands)
}

/// Somebody who means harm has others say what they need not: how much is for his story to say.
fn harmed(ran: &Ran, from: Ms, to: Ms) -> bool {
    let harms = |step: &Step| {
        let until = step.lasts.map_or(Ms::MAX, |lasts| step.at + lasts + WINDOW);
        matches!(step.what, Fault::Hostile { .. }) && step.at < to && until > from
    };
    ran.plan.steps.iter().any(harms)
}
