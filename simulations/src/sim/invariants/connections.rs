//! 1, no needless error, and 2, no needless wait: what a client sees of a new connection.

use super::Docket;
use super::conditions::{Conditions, Shows, probe_interval, run_at};
use crate::sim::figures::failed;
use crate::sim::history::usable_now;
use crate::sim::log::{ClientConn, ClientEnd, ClientKind};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::seen::ending;
use crate::sim::state::{Class, MachineId, Mode, Ms, State};

/// Loss at which a way still counts as usable.
const LOSS: f64 = 0.05;
/// A first byte may come so much later than the slowest usable upstream's own time.
const OVER: Ms = 50;
/// What an upstream may cost that fell silent and was not found out yet.
const SILENT: Ms = 300;
/// What one may cost that hangs.
const HUNG: Ms = 2_000;
/// The time in which nobody can have found out, beside one probe interval.
const UNKNOWN: Ms = 1_500;

/// Judges both.
pub(super) fn judge(ran: &Ran) -> [Judged; 2] {
    let mut errors = Docket::new(1, "no needless error");
    let mut waits = Docket::new(2, "no needless wait");
    let conditions = Conditions::new(ran);
    for (number, client) in ran.log.clients.iter().enumerate().filter(|(_, client)| client.kind != ClientKind::Bypass) {
        let (Some(hello), Some(end)) = (client.hello, client.first_byte.or(client.ended.map(|(at, _)| at))) else { continue };
        if matches!(client.ended, Some((_, ClientEnd::Over))) && client.first_byte.is_none() {
            continue;
        }
        let usable = ran.history.all_usable(client.node, (client.opened, end), LOSS);
        if usable.is_empty() {
            continue;
        }
        let name = || format!("connection {number} of {}", ran.names[client.node]);
        let gave_up = matches!(client.ended, Some((_, ClientEnd::GaveUp)));
        errors.evaluated();
        if failed(client) && !gave_up {
            let usable: Vec<String> = usable.iter().map(|e| ran.name_of(*e)).collect();
            errors.broken(end, || {
                format!(
                    "{}, opened at {} ms, got no answer ({}), although {} was usable",
                    name(),
                    client.opened,
                    ending(client),
                    usable.join(", ")
                )
            });
        }
        waits.evaluated();
        let own = slowest(ran, client.node, hello, end);
        let allowed = own + OVER + allowances(ran, &conditions, client, hello, end);
        if end - hello > allowed && (client.first_byte.is_some() || gave_up) {
            waits.broken(hello, || format!("{} waited {} ms, of which {allowed} are explained", name(), end - hello));
        }
    }
    [errors.close(), waits.close()]
}

fn allowances(ran: &Ran, conditions: &Conditions<'_>, client: &ClientConn, hello: Ms, end: Ms) -> Ms {
    let n = client.node;
    let interval = run_at(ran, n, hello).map_or(1_200, |run| probe_interval(ran, run, hello));
    let from = hello.saturating_sub(interval + UNKNOWN);
    let silent = |shows| matches!(shows, Shows::Silent | Shows::Deaf);
    let fell_silent = conditions.began(n, silent, from, hello.saturating_sub(1));
    let hung = |shows| matches!(shows, Shows::Hung | Shows::Late);
    let hangs = conditions.began(n, hung, from, end) + conditions.began(n, silent, hello, end);
    let half = half_working(ran, conditions, n, hello, from);
    fell_silent * SILENT + (hangs + half) * HUNG + retransmissions(ran, n, hello, end)
}

/// Balancers that work themselves and have something behind them that does not, for longer than the others are excused: which
/// of its backends a connection gets is a balancer's affair, and a probe that gets a good one finds nothing wrong.
fn half_working(ran: &Ran, conditions: &Conditions<'_>, n: MachineId, hello: Ms, from: Ms) -> u64 {
    let state = ran.history.at(hello);
    let works = state.sites.iter().filter(|(_, site)| site.backends.is_some() && site.mode == Mode::Ready);
    let half = works.filter(|(e, _)| {
        let changes = conditions.of(n, **e);
        changes.iter().rev().find(|(at, _)| *at <= hello).is_some_and(|(at, shows)| *at < from && *shows == Shows::Hung)
    });
    half.count() as u64
}

/// How long lost packets of this node's proxy were waited for in the meantime.
fn retransmissions(ran: &Ran, n: MachineId, from: Ms, to: Ms) -> Ms {
    let retries = ran.log.retries.get(&n).map_or(&[][..], Vec::as_slice);
    let first = retries.partition_point(|(at, _)| *at < from.saturating_sub(1));
    retries[first..].iter().take_while(|(at, _)| *at <= to).map(|(_, wait)| wait).sum()
}

/// The own time of the slowest upstream that a node could have taken, be its packets lost more often than those of a usable one
/// may be, or be it slower: as long as it answers probes in time, it may be the best that the node knows.
fn slowest(ran: &Ran, n: MachineId, from: Ms, to: Ms) -> Ms {
    let answering = |state: &State, e| {
        usable_now(state, n, e, 1.0) || state.sites.get(&e).is_some_and(|site| site.backends.is_none() && site.mode.answers())
    };
    let sites = ran.history.at(from).sites.keys();
    let such = sites.filter(|e| ran.history.during(from, to).any(|state| answering(state, **e)));
    such.map(|e| own_time(ran, n, *e, from, to)).max().unwrap_or(0)
}

/// What an upstream needs by itself: a handshake's round trip, the hello's, and its work.
fn own_time(ran: &Ran, n: MachineId, e: std::net::SocketAddr, from: Ms, to: Ms) -> Ms {
    ran.history.during(from, to).map(|state| own_time_now(state, n, e)).max().unwrap_or(0)
}

fn own_time_now(state: &State, n: MachineId, e: std::net::SocketAddr) -> Ms {
    let Some(site) = state.sites.get(&e) else { return 0 };
    let trip = |one, other| {
        [state.way(one, other, Class::Api), state.way(other, one, Class::Api)]
            .iter()
            .map(|way| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds")]
                let most = (f64::from(way.delay) * (1.0 + way.jitter)).ceil() as Ms;
                most
            })
            .sum::<Ms>()
    };
    let behind = site.backends.iter().flat_map(|all| all.iter()).filter_map(|backend| {
        let it = state.sites.get(backend)?;
        Some(2 * trip(site.machine, it.machine) + it.mode.delay())
    });
    2 * trip(n, site.machine) + site.mode.delay() + behind.max().unwrap_or(0) + crate::sim::apiserver::HELLO_TAKES
}
