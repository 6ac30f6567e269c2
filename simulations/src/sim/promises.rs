//! What a story promises beside the invariants, in numbers: looked up in what was seen from outside and in the published routings.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use prismesh::engine::Routing;
use prismesh::engine::event::Verdict;

use super::core::RunId;
use super::figures::{failed, quantile};
use super::log::{ClientConn, ClientEnd, ClientKind, RunSeen};
use super::plan::{Fault, Who};
use super::run::Ran;
use super::seen::ending;
use super::state::{MachineId, Ms};

/// How long before a fault is looked at for what is usual.
const USUAL: Ms = 10_000;
/// No new connection is "late" that is at most so much later than usual.
pub const NOT_LATE: Ms = 50;
/// Breaches told in full.
const TOLD: usize = 10;

/// Collects what a story promised and did not keep.
pub struct Promises<'a> {
    ran: &'a Ran,
    broken: Vec<String>,
}

/// A step of the story, as it was played.
#[derive(Clone, Debug)]
pub struct Played {
    /// When it began.
    pub from: Ms,
    /// When it was over; the story's end if it never was.
    pub to: Ms,
    /// The apiservers, or the balancer, that it concerns: their addresses when it began.
    pub endpoints: BTreeSet<SocketAddr>,
    /// The machines that it concerns.
    pub machines: BTreeSet<MachineId>,
}

impl<'a> Promises<'a> {
    /// None yet.
    pub fn of(ran: &'a Ran) -> Promises<'a> {
        Promises { ran, broken: Vec::new() }
    }

    /// Those that were broken, in words.
    pub fn broken(self) -> Vec<String> {
        self.broken
    }

    /// A step of the story, counted from 0.
    pub fn step(&self, place: usize) -> Played {
        let ran = self.ran;
        let Some(step) = ran.plan.steps.get(place) else {
            return Played { from: ran.ended, to: ran.ended, endpoints: BTreeSet::new(), machines: BTreeSet::new() };
        };
        let to = step.lasts.map_or(ran.ended, |lasts| step.at + lasts).min(ran.ended);
        let machines = match who(&step.what) {
            Some(who) => self.machines(who),
            None => BTreeSet::from([ran.names.len()]),
        };
        // A step changes the world at its own millisecond.
        let endpoints = self.endpoints_of(&machines, step.at.saturating_sub(1));
        Played { from: step.at, to, endpoints, machines }
    }

    /// The machines that a list of names means.
    pub fn machines(&self, who: &[String]) -> BTreeSet<MachineId> {
        let means = |name: &String| {
            who.iter().any(|who| match who.strip_suffix('*') {
                Some(begins) => name.starts_with(begins),
                None => who == name,
            })
        };
        (0..self.ran.names.len()).filter(|machine| means(&self.ran.names[*machine])).collect()
    }

    /// Where these machines' apiservers are at a moment.
    pub fn endpoints_of(&self, machines: &BTreeSet<MachineId>, at: Ms) -> BTreeSet<SocketAddr> {
        let sites = self.ran.history.at(at).sites.iter();
        sites.filter(|(_, site)| machines.contains(&site.machine)).map(|(addr, _)| *addr).collect()
    }

    fn break_it(&mut self, what: String) {
        if self.broken.len() < TOLD {
            self.broken.push(what);
        }
    }

    /// New connections of prismesh's clients whose ClientHello was sent in `from..to`.
    fn new_connections(&self, from: Ms, to: Ms) -> impl Iterator<Item = (Ms, &'a ClientConn)> + use<'a> {
        let through = self.ran.log.clients.iter().filter(|client| client.kind.is_carried());
        through.filter_map(|client| Some((client.hello?, client))).filter(move |(hello, _)| (from..to).contains(hello))
    }

    fn name(&self, machine: MachineId) -> String {
        self.ran.names.get(machine).cloned().unwrap_or_else(|| "the balancer".to_owned())
    }

    /// No new connection fails, from the beginning to the end.
    pub fn nobody_fails(&mut self) -> &mut Self {
        self.nobody_fails_between(0, Ms::MAX)
    }

    /// No connection that is opened in `from..to` fails.
    pub fn nobody_fails_between(&mut self, from: Ms, to: Ms) -> &mut Self {
        let everyone = (0..self.ran.names.len()).collect();
        self.nobody_of_fails(&everyone, (from, to))
    }

    /// The same of these machines' clients only.
    pub fn nobody_of_fails(&mut self, of: &BTreeSet<MachineId>, (from, to): (Ms, Ms)) -> &mut Self {
        let theirs = self.new_connections(from, to).filter(|(_, client)| of.contains(&client.node) && failed(client));
        for (hello, client) in theirs.collect::<Vec<_>>() {
            self.break_it(format!("{}: the connection of {hello} ms failed: {}", self.name(client.node), ending(client)));
        }
        self
    }

    /// The median wait for a first byte in the time before.
    pub fn usual(&self, before: Ms) -> Ms {
        let waits = self.new_connections(before.saturating_sub(USUAL), before);
        let mut waits: Vec<Ms> = waits.filter_map(|(hello, client)| Some(client.first_byte? - hello)).collect();
        waits.sort_unstable();
        quantile(&waits, 0.5).unwrap_or(0)
    }

    /// Connections opened in `from..to` get their first byte at most `late` ms later than was usual before `fault`.
    pub fn late_at_most(&mut self, late: Ms, fault: Ms, (from, to): (Ms, Ms)) -> &mut Self {
        let usual = self.usual(fault);
        self.waits_at_most(usual + late, (from, to))
    }

    /// The same of these machines' clients only.
    pub fn late_of(&mut self, of: &BTreeSet<MachineId>, late: Ms, fault: Ms, span: (Ms, Ms)) -> &mut Self {
        let usual = self.usual(fault);
        self.waits_of(of, usual + late, span)
    }

    /// Connections opened in `from..to` get their first byte within so many ms.
    pub fn waits_at_most(&mut self, most: Ms, span: (Ms, Ms)) -> &mut Self {
        let everyone = (0..self.ran.names.len()).collect();
        self.waits_of(&everyone, most, span)
    }

    /// The same of these machines' clients only.
    pub fn waits_of(&mut self, of: &BTreeSet<MachineId>, most: Ms, (from, to): (Ms, Ms)) -> &mut Self {
        for (hello, client) in self.new_connections(from, to).filter(|(_, client)| of.contains(&client.node)).collect::<Vec<_>>()
        {
            let wait = client.first_byte.map(|first| first - hello);
            if let Some(wait) = wait.filter(|wait| *wait > most) {
                self.break_it(format!(
                    "{}: the connection of {hello} ms waited {wait} ms for its first byte, more than {most}",
                    self.name(client.node)
                ));
            }
        }
        self
    }

    /// The row of the fault table: nobody fails, the first ones are at most `first` ms late, and nobody is after `until` ms.
    pub fn late_only_at_first(&mut self, first: Ms, until: Ms, fault: &Played) -> &mut Self {
        self.late_at_most(first, fault.from, (fault.from, fault.from + until));
        self.late_at_most(NOT_LATE, fault.from, (fault.from + until, self.ran.ended))
    }

    /// Connections opened in `from..to` are answered by a moment.
    pub fn answered_by(&mut self, by: Ms, (from, to): (Ms, Ms)) -> &mut Self {
        for (hello, client) in self.new_connections(from, to).collect::<Vec<_>>() {
            let open = client.ended.is_none_or(|(at, _)| at > by);
            if client.first_byte.is_none_or(|first| first > by) && open {
                self.break_it(format!("{}: the connection of {hello} ms was not answered by {by} ms", self.name(client.node)));
            }
        }
        self
    }

    /// Whoever fails of those that were opened in `from..to` was held for so long first.
    pub fn held_at_least(&mut self, least: Ms, (from, to): (Ms, Ms)) -> &mut Self {
        for (hello, client) in self.new_connections(from, to).filter(|(_, client)| failed(client)).collect::<Vec<_>>() {
            if client.ended.is_some_and(|(at, _)| at < hello + least) {
                self.break_it(format!(
                    "{}: the connection of {hello} ms failed already: {}",
                    self.name(client.node),
                    ending(client)
                ));
            }
        }
        self
    }

    /// Connections to these that were open when it began are gone after `within` ms, except on those machines themselves.
    pub fn reset_within(&mut self, within: Ms, fault: &Played) -> &mut Self {
        let others = (0..self.ran.names.len()).filter(|machine| !fault.machines.contains(machine)).collect();
        self.left_within(within, &others, fault)
    }

    /// Connections of these machines to the apiservers concerned that were open when it began are gone after `within` ms.
    pub fn left_within(&mut self, within: Ms, of: &BTreeSet<MachineId>, fault: &Played) -> &mut Self {
        let by = fault.from + within;
        let open = self.ran.log.upstreams.values().filter(|it| fault.endpoints.contains(&it.to) && it.bytes <= fault.from);
        let lingering = open.filter(|it| it.ended.is_none_or(|(at, _)| at > by) && of.contains(&it.by.0));
        for it in lingering.cloned().collect::<Vec<_>>() {
            let until = it.ended.map_or("the end".to_owned(), |(at, _)| format!("{at} ms"));
            self.break_it(format!("{}: a connection to {} lingered until {until}, past {by} ms", self.name(it.by.0), it.to));
        }
        self
    }

    /// None of these machines' new connections of `from..to` is answered before `to`.
    pub fn nobody_answered(&mut self, of: &BTreeSet<MachineId>, (from, to): (Ms, Ms)) -> &mut Self {
        let theirs = self.new_connections(from, to).filter(|(_, client)| of.contains(&client.node));
        for (hello, client) in theirs.filter(|(_, client)| client.first_byte.is_some_and(|at| at < to)).collect::<Vec<_>>() {
            self.break_it(format!("{}: the connection of {hello} ms was answered before {to} ms", self.name(client.node)));
        }
        self
    }

    /// These machines' new connections of `from..to` are answered by these.
    pub fn answered_at(&mut self, of: &BTreeSet<MachineId>, by: &BTreeSet<SocketAddr>, span: (Ms, Ms)) -> &mut Self {
        self.answerer(of, span, |to| by.contains(to))
    }

    /// These machines' new connections of `from..to` are answered by others than these.
    pub fn answered_elsewhere(&mut self, of: &BTreeSet<MachineId>, than: &BTreeSet<SocketAddr>, span: (Ms, Ms)) -> &mut Self {
        self.answerer(of, span, |to| !than.contains(to))
    }

    fn answerer(&mut self, of: &BTreeSet<MachineId>, (from, to): (Ms, Ms), right: impl Fn(&SocketAddr) -> bool) -> &mut Self {
        for (hello, client) in self.new_connections(from, to).filter(|(_, client)| of.contains(&client.node)).collect::<Vec<_>>()
        {
            let upstream = client.upstream.and_then(|conn| self.ran.log.upstreams.get(&conn));
            if let Some(upstream) = upstream.filter(|upstream| !right(&upstream.to)) {
                self.break_it(format!("{}: the connection of {hello} ms went to {}", self.name(client.node), upstream.to));
            }
        }
        self
    }

    /// No agent ends an established connection by itself in `from..to`.
    pub fn nothing_cut(&mut self, (from, to): (Ms, Ms)) -> &mut Self {
        for client in self.ran.log.clients.iter().filter(|client| client.first_byte.is_some()) {
            let upstream = client.upstream.and_then(|conn| self.ran.log.upstreams.get(&conn));
            let (Some(upstream), Some((at, false))) = (upstream, client.agent_ended) else { continue };
            let stopped = self.ran.log.runs.get(&upstream.by.1).and_then(|run| run.gone).is_some_and(|gone| gone <= at);
            if (from..to).contains(&at) && upstream.ended.is_some_and(|(_, peer_first)| !peer_first) && !stopped {
                self.break_it(format!("{}: a connection to {} was cut at {at} ms", self.name(client.node), upstream.to));
            }
        }
        self
    }

    /// No exchange that lasts, of those that ended in `from..to`, was reset, given up by its client, or closed by somebody else than
    /// the apiserver.
    pub fn exchanges_end_well(&mut self, (from, to): (Ms, Ms)) -> &mut Self {
        let ran = self.ran;
        let bad = |client: &&ClientConn| {
            let Some((at, end)) = client.ended else { return false };
            let upstream = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn));
            let by_the_apiserver = upstream.is_some_and(|it| it.ended.is_some_and(|(_, peer_first)| peer_first));
            let well = match end {
                ClientEnd::Done | ClientEnd::Over => true,
                ClientEnd::Closed => by_the_apiserver,
                _ => false,
            };
            client.kind == ClientKind::Exchange && client.first_byte.is_some() && (from..to).contains(&at) && !well
        };
        for client in ran.log.clients.iter().filter(bad) {
            self.break_it(format!(
                "{}: an exchange that began at {} ms was not finished: {}",
                self.name(client.node),
                client.opened,
                ending(client)
            ));
        }
        self
    }

    /// Agents that run at a moment.
    fn live(&self, at: Ms) -> impl Iterator<Item = (RunId, RunSeen)> + use<'a> {
        let runs = self.ran.log.runs.iter().map(|(run, seen)| (*run, *seen));
        runs.filter(move |(_, seen)| seen.from <= at && seen.to.is_none_or(|to| to > at))
    }

    fn routing(&self, run: RunId, at: Ms) -> Option<&'a Routing> {
        let routes = self.ran.log.routes.get(&run)?;
        let after = routes.partition_point(|(from, _)| *from <= at);
        after.checked_sub(1).map(|last| &*routes[last].1)
    }

    /// Every node's routing has these as ready at a moment.
    pub fn ready_everywhere(&mut self, endpoints: &BTreeSet<SocketAddr>, at: Ms) -> &mut Self {
        self.everywhere(endpoints, at, "does not have it ready", |found| found == Some(Verdict::Ready))
    }

    /// Every node's routing has these as draining at a moment: behind all that are ready.
    pub fn draining_everywhere(&mut self, endpoints: &BTreeSet<SocketAddr>, at: Ms) -> &mut Self {
        self.everywhere(endpoints, at, "does not have it draining", |found| found == Some(Verdict::Draining))
    }

    /// Every node's routing has these at a moment, and none as down.
    pub fn carried_everywhere(&mut self, endpoints: &BTreeSet<SocketAddr>, at: Ms) -> &mut Self {
        self.everywhere(endpoints, at, "does not count on it", |found| {
            matches!(found, Some(Verdict::Ready | Verdict::Draining | Verdict::Suspect))
        })
    }

    /// No node's routing has these any more at a moment.
    pub fn forgotten_everywhere(&mut self, endpoints: &BTreeSet<SocketAddr>, at: Ms) -> &mut Self {
        self.everywhere(endpoints, at, "still has it", |found| found.is_none())
    }

    fn everywhere(
        &mut self,
        endpoints: &BTreeSet<SocketAddr>,
        at: Ms,
        otherwise: &str,
        right: impl Fn(Option<Verdict>) -> bool,
    ) -> &mut Self {
        for (run, seen) in self.live(at).collect::<Vec<_>>() {
            for endpoint in endpoints {
                let upstreams = self.routing(run, at).map_or(&[][..], |routing| &routing.upstreams);
                let found = upstreams.iter().find(|upstream| upstream.endpoint.addr() == *endpoint);
                let verdict = found.map(|upstream| upstream.verdict);
                // A control plane's own apiserver stands there by the address at which the node itself reaches it.
                if !right(verdict) {
                    self.break_it(format!(
                        "{} at {at} ms: {endpoint} is {verdict:?}, so the node {otherwise}",
                        self.name(seen.machine)
                    ));
                }
            }
        }
        self
    }

    /// New connections of `from..to` are answered by others than these.
    pub fn unused(&mut self, endpoints: &BTreeSet<SocketAddr>, (from, to): (Ms, Ms)) -> &mut Self {
        for (hello, client) in self.new_connections(from, to).collect::<Vec<_>>() {
            let upstream = client.upstream.and_then(|conn| self.ran.log.upstreams.get(&conn));
            if let Some(upstream) = upstream.filter(|upstream| endpoints.contains(&upstream.to)) {
                self.break_it(format!("{}: the connection of {hello} ms went to {}", self.name(client.node), upstream.to));
            }
        }
        self
    }

    /// New connections of `from..to` are answered by others than the ones concerned, except on their own machines.
    pub fn unused_by_others(&mut self, fault: &Played, (from, to): (Ms, Ms)) -> &mut Self {
        let others = self.new_connections(from, to).filter(|(_, client)| !fault.machines.contains(&client.node));
        for (hello, client) in others.collect::<Vec<_>>() {
            let upstream = client.upstream.and_then(|conn| self.ran.log.upstreams.get(&conn));
            if let Some(upstream) = upstream.filter(|upstream| fault.endpoints.contains(&upstream.to)) {
                self.break_it(format!("{}: the connection of {hello} ms went to {}", self.name(client.node), upstream.to));
            }
        }
        self
    }

    /// Of these machines' new connections of `from..to` each of these gets no more than an equal share for every apiserver.
    pub fn at_most_fair_share(&mut self, of: &BTreeSet<MachineId>, these: &BTreeSet<SocketAddr>, span: (Ms, Ms)) -> &mut Self {
        let sites = self.ran.history.at(span.1).sites.values();
        let all = sites.filter(|site| site.backends.is_none()).count();
        self.shares(of, these, all, span, |got, fair| got <= fair)
    }

    /// Of these machines' new connections of `from..to` each of these gets between half and twice an equal share.
    pub fn evenly(&mut self, of: &BTreeSet<MachineId>, these: &BTreeSet<SocketAddr>, span: (Ms, Ms)) -> &mut Self {
        self.shares(of, these, these.len(), span, |got, fair| 2 * got >= fair && got <= 2 * fair)
    }

    /// Of these machines' new connections of `from..to` each of these gets at most so many equal shares.
    pub fn none_has_more_than(
        &mut self,
        most: usize,
        of: &BTreeSet<MachineId>,
        these: &BTreeSet<SocketAddr>,
        span: (Ms, Ms),
    ) -> &mut Self {
        self.shares(of, these, these.len(), span, |got, fair| got <= most * fair)
    }

    fn shares(
        &mut self,
        of: &BTreeSet<MachineId>,
        these: &BTreeSet<SocketAddr>,
        among: usize,
        (from, to): (Ms, Ms),
        right: impl Fn(usize, usize) -> bool,
    ) -> &mut Self {
        let answered = self.new_connections(from, to).filter(|(_, client)| of.contains(&client.node));
        let upstreams: Vec<SocketAddr> =
            answered.filter_map(|(_, client)| Some(self.ran.log.upstreams.get(&client.upstream?)?.to)).collect();
        let fair = upstreams.len() / among.max(1);
        for endpoint in these {
            let got = upstreams.iter().filter(|to| *to == endpoint).count();
            if !right(got, fair) {
                self.break_it(format!("{endpoint} got {got} new connections from {from} to {to} ms, where {fair} were fair"));
            }
        }
        self
    }

    /// Nobody's ClientHello reaches these in `from..to`.
    pub fn no_hello_at(&mut self, endpoints: &BTreeSet<SocketAddr>, span: (Ms, Ms)) -> &mut Self {
        let everyone = (0..self.ran.names.len()).collect();
        self.no_hello_from(&everyone, endpoints, span)
    }

    /// Of these machines' clients nobody's ClientHello goes to these in `from..to`.
    pub fn no_hello_from(
        &mut self,
        of: &BTreeSet<MachineId>,
        endpoints: &BTreeSet<SocketAddr>,
        (from, to): (Ms, Ms),
    ) -> &mut Self {
        let sent = self.ran.log.upstreams.values().filter(|it| of.contains(&it.by.0) && endpoints.contains(&it.to));
        for it in sent.filter(|it| (from..to).contains(&it.bytes)).cloned().collect::<Vec<_>>() {
            self.break_it(format!("{}: a client's bytes went to {} at {} ms", self.name(it.by.0), it.to, it.bytes));
        }
        self
    }

    /// Every node has a connection answered in `from..to`.
    pub fn all_served(&mut self, (from, to): (Ms, Ms)) -> &mut Self {
        let answered = |client: &ClientConn| client.first_byte.is_some_and(|first| (from..to).contains(&first));
        let served: BTreeSet<MachineId> =
            self.ran.log.clients.iter().filter(|client| answered(client)).map(|client| client.node).collect();
        let nodes: BTreeSet<MachineId> = self.live(to).map(|(_, seen)| seen.machine).collect();
        for node in nodes.difference(&served) {
            self.break_it(format!("{}: no connection was answered from {from} to {to} ms", self.name(*node)));
        }
        self
    }

    /// No node was without a renewed lease for so long.
    pub fn leases_kept(&mut self, most: Ms) -> &mut Self {
        let everyone = (0..self.ran.names.len()).collect();
        self.leases_kept_by(&everyone, most)
    }

    /// The same of these nodes only.
    pub fn leases_kept_by(&mut self, of: &BTreeSet<MachineId>, most: Ms) -> &mut Self {
        for (machine, renewals) in self.ran.log.leases.iter().filter(|(machine, _)| of.contains(machine)) {
            let gap = renewals.windows(2).filter(|two| two[1] - two[0] > most).map(|two| (two[0], two[1])).next();
            if let Some((from, to)) = gap {
                let name = self.ran.names.get(*machine).cloned().unwrap_or_default();
                self.broken.push(format!("{name}: its lease was not renewed from {from} to {to} ms"));
            }
        }
        self
    }
}

/// Whom a step names; [`None`]: the balancer.
fn who(what: &Fault) -> Option<&Who> {
    match what {
        Fault::Apiserver { of, .. }
        | Fault::Drain { of }
        | Fault::GracefulStop { of, .. }
        | Fault::Flap { of, .. }
        | Fault::Expired { of }
        | Fault::Newer { of }
        | Fault::Impostor { of, .. }
        | Fault::Family { of, .. }
        | Fault::Machine { of }
        | Fault::Stall { of }
        | Fault::AgentKilled { of }
        | Fault::AgentRestart { of }
        | Fault::Join { of }
        | Fault::Leave { of }
        | Fault::Readdress { of }
        | Fault::Loss { of, .. }
        | Fault::Latency { of, .. }
        | Fault::LoseCa { of }
        | Fault::Configure { of, .. } => Some(of),
        Fault::SegmentHole { to, .. } => Some(to),
        Fault::Partition { from, .. } | Fault::Forbid { of: from, .. } => Some(from),
        _ => None,
    }
}
