//! What stories ask of a run: who was served, who knew whom, where clients' bytes went.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use prismesh::engine::Routing;
use prismesh::engine::endpoint::Source;
use prismesh::engine::event::Verdict;
use prismesh::gossip::DropReason;

use super::figures::failed;
use super::log::{ClientConn, ClientEnd};
use super::plan::{Fault, Step};
use super::run::Ran;
use super::state::{AgentLife, MachineId, Ms};

/// Told at most of one kind.
const TOLD: usize = 5;

impl Ran {
    /// The machine of this name.
    pub fn machine(&self, name: &str) -> Option<MachineId> {
        self.names.iter().position(|known| known == name)
    }

    /// The machines that a list of names means.
    pub fn machines(&self, who: &[String]) -> BTreeSet<MachineId> {
        let means = |name: &String, known: &str| name.strip_suffix('*').map_or(known == name, |begins| known.starts_with(begins));
        let named = |machine: &MachineId| who.iter().any(|name| means(name, &self.names[*machine]));
        (0..self.names.len()).filter(named).collect()
    }

    /// The apiservers' addresses on these machines at a moment.
    pub fn endpoints(&self, machines: &BTreeSet<MachineId>, at: Ms) -> BTreeSet<SocketAddr> {
        let sites = self.history.at(at).sites.iter();
        sites.filter(|(_, site)| site.backends.is_none() && machines.contains(&site.machine)).map(|(addr, _)| *addr).collect()
    }

    /// The first step that does such a thing.
    pub fn first_step(&self, such: impl Fn(&Fault) -> bool) -> Option<&Step> {
        self.plan.steps.iter().find(|step| such(&step.what))
    }

    /// When the last step began or was over.
    pub fn last_step(&self) -> Ms {
        self.plan.steps.iter().map(|step| step.at + step.lasts.unwrap_or(0)).max().unwrap_or(0)
    }

    /// The routing that a node's agent had published last at a moment, while it ran.
    pub fn routing(&self, machine: MachineId, at: Ms) -> Option<&Routing> {
        let mut of = self.log.runs.iter().filter(|(_, run)| run.machine == machine && run.from <= at);
        let (run, _) = of.rfind(|(_, run)| run.to.is_none_or(|to| to > at))?;
        let published = self.log.routes.get(run)?;
        let before = published.partition_point(|(when, _)| *when <= at);
        before.checked_sub(1).map(|last| &*published[last].1)
    }

    /// The nodes whose agents were in service throughout.
    pub fn in_service(&self, from: Ms, to: Ms) -> BTreeSet<MachineId> {
        let running =
            |machine: &MachineId| self.history.throughout(from, to, |state| state.machines[*machine].agent == AgentLife::Running);
        (0..self.names.len()).filter(running).collect()
    }

    fn say(&self, client: &ClientConn) -> String {
        let name = &self.names[client.node];
        format!("{:?} connection of {name} opened at {} ms got nothing: {}", client.kind, client.opened, ending(client))
    }
}

/// Of connections that clients of each of these nodes opened in a span one of these apiservers answered some.
pub fn all_use(ran: &Ran, by: &BTreeSet<MachineId>, endpoints: &BTreeSet<SocketAddr>, from: Ms, to: Ms) -> Vec<String> {
    let opened = ran.log.clients.iter().filter(|client| (from..=to).contains(&client.opened));
    let there = |client: &&ClientConn| {
        let upstream = client.upstream.and_then(|upstream| ran.log.upstreams.get(&upstream));
        upstream.is_some_and(|upstream| endpoints.contains(&upstream.to))
    };
    let using: BTreeSet<MachineId> = opened.filter(there).map(|client| client.node).collect();
    let told = by.difference(&using).map(|node| {
        let whom: Vec<String> = endpoints.iter().map(|endpoint| ran.name_of(*endpoint)).collect();
        format!("no client of {} was answered by {} from {from} to {to} ms", ran.names[*node], whom.join(" or "))
    });
    told.take(TOLD).collect()
}

/// How a client's connection ended, and when.
pub(super) fn ending(client: &ClientConn) -> String {
    let Some((at, end)) = client.ended else { return "it never ended".to_owned() };
    let how = match end {
        ClientEnd::Done => "its client was done",
        ClientEnd::GaveUp => "its client gave up",
        ClientEnd::Refused => "it was refused",
        ClientEnd::Distrusts => "its client does not know that certificate",
        ClientEnd::Reset => "it was reset",
        ClientEnd::Closed => "it was closed",
        ClientEnd::Over => "its node or the simulation ended",
    };
    format!("{how} at {at} ms")
}

/// Of connections that these nodes' clients opened in a span, none ended without a byte, unless their agent did not run.
pub fn nobody_failed(ran: &Ran, of: &BTreeSet<MachineId>, from: Ms, to: Ms) -> Vec<String> {
    let opened = ran.log.clients.iter().filter(|client| of.contains(&client.node) && (from..=to).contains(&client.opened));
    let blamed = opened.filter(|client| {
        let until = client.ended.map_or(ran.ended, |(at, _)| at);
        failed(client)
            && ran.history.throughout(client.opened, until, |state| state.machines[client.node].agent == AgentLife::Running)
    });
    blamed.take(TOLD).map(|client| ran.say(client)).collect()
}

/// Clients of each of these nodes opened connections in a span, and every one was answered that had the time.
pub fn served(ran: &Ran, of: &BTreeSet<MachineId>, from: Ms, to: Ms) -> Vec<String> {
    let mut broken = nobody_failed(ran, of, from, to);
    let answered = |node: &MachineId| {
        ran.log
            .clients
            .iter()
            .any(|client| client.node == *node && client.opened >= from && client.first_byte.is_some_and(|at| at <= to))
    };
    let silent = of.iter().filter(|node| !answered(node));
    broken.extend(silent.map(|node| format!("no client of {} was answered from {from} to {to} ms", ran.names[*node])));
    broken
}

/// These nodes have all these endpoints as ready at a moment, and know them from the members themselves or their own machine.
pub fn all_know(ran: &Ran, who: &BTreeSet<MachineId>, endpoints: &BTreeSet<SocketAddr>, at: Ms) -> Vec<String> {
    let mut broken = Vec::new();
    for node in who {
        for endpoint in endpoints {
            let known = ran
                .routing(*node, at)
                .and_then(|routing| routing.upstreams.iter().find(|upstream| upstream.endpoint.addr() == *endpoint));
            let good = known.is_some_and(|upstream| {
                upstream.verdict == Verdict::Ready
                    && upstream.sources.iter().any(|source| matches!(source, Source::Member | Source::Local))
            });
            if !good {
                let how = known.map(|upstream| (upstream.verdict, upstream.sources.clone()));
                broken.push(format!("at {at} ms {} has {} as {how:?}", ran.names[*node], ran.name_of(*endpoint)));
            }
        }
    }
    broken.truncate(TOLD);
    broken
}

/// No agent on these machines, started after a moment, sent a byte of a client to these addresses.
pub fn no_bytes_to(ran: &Ran, by: &BTreeSet<MachineId>, endpoints: &BTreeSet<SocketAddr>, started: Ms) -> Vec<String> {
    let late = |run| ran.log.runs.get(run).is_some_and(|run: &super::log::RunSeen| run.from >= started);
    let sent =
        ran.log.upstreams.values().filter(|sent| by.contains(&sent.by.0) && endpoints.contains(&sent.to) && late(&sent.by.1));
    let told = sent.map(|sent| format!("{} sent a client's bytes to {} at {} ms", ran.names[sent.by.0], sent.to, sent.bytes));
    told.take(TOLD).collect()
}

/// None of these nodes held one of these endpoints for down in a span.
pub fn never_down(ran: &Ran, at: &BTreeSet<MachineId>, endpoints: &BTreeSet<SocketAddr>, from: Ms, to: Ms) -> Vec<String> {
    let changes = ran.log.verdicts.iter().filter(|change| change.to == Verdict::Down && (from..=to).contains(&change.at));
    let blamed = changes.filter(|change| at.contains(&change.machine) && endpoints.contains(&change.endpoint.addr()));
    let told = blamed.map(|change| {
        format!("{} held {} for down at {} ms", ran.names[change.machine], ran.name_of(change.endpoint.addr()), change.at)
    });
    told.take(TOLD).collect()
}

/// Each of these nodes counted gossip that it dropped for this reason.
pub fn counted(ran: &Ran, by: &BTreeSet<MachineId>, reason: DropReason) -> Vec<String> {
    let reason = reason.as_str();
    let counts = |machine: &MachineId| ran.drops.get(machine).and_then(|drops| drops.get(reason)).copied().unwrap_or(0);
    let none = by.iter().filter(|machine| counts(machine) == 0);
    none.map(|machine| format!("{} counted nothing as {reason}", ran.names[*machine])).take(TOLD).collect()
}

/// Nobody changed its mind about any endpoint in a span.
pub fn no_verdict_changes(ran: &Ran, from: Ms, to: Ms) -> Vec<String> {
    let changes = ran.log.verdicts.iter().filter(|change| (from..=to).contains(&change.at));
    let told = changes.map(|change| {
        let (name, endpoint) = (&ran.names[change.machine], ran.name_of(change.endpoint.addr()));
        format!("{name} held {endpoint} for {:?} from {} ms on", change.to, change.at)
    });
    told.take(TOLD).collect()
}

/// Everybody.
pub fn everyone(ran: &Ran) -> BTreeSet<MachineId> {
    (0..ran.names.len()).collect()
}

/// No client of these nodes was answered by one of these apiservers, of connections opened in a span.
pub fn opened_to(ran: &Ran, by: &BTreeSet<MachineId>, endpoints: &BTreeSet<SocketAddr>, from: Ms, to: Ms) -> Vec<String> {
    let opened = ran.log.clients.iter().filter(|client| by.contains(&client.node) && (from..=to).contains(&client.opened));
    let told = opened.filter_map(|client| {
        let upstream = ran.log.upstreams.get(&client.upstream?)?;
        endpoints.contains(&upstream.to).then(|| {
            let (name, to) = (&ran.names[client.node], ran.name_of(upstream.to));
            format!("{:?} connection of {name} opened at {} ms went to {to}", client.kind, client.opened)
        })
    });
    told.take(TOLD).collect()
}
