//! 1, no needless error, and 2, no needless wait: what a client sees of a new connection.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::Docket;
use super::conditions::{Conditions, LOSS, Shows, foreign, probe_interval, run_at, shows};
use crate::sim::core::RunId;
use crate::sim::figures::failed;
use crate::sim::log::{ClientConn, ClientEnd, Dialled, RunSeen};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::seen::ending;
use crate::sim::state::{Class, MachineId, Mode, Ms, State};
use crate::sim::tcp::ConnId;

/// A first byte may come so much later than the slowest usable upstream's own time.
const OVER: Ms = 50;
/// What an upstream may cost that fell silent and was not found out yet.
const SILENT: Ms = 300;
/// What one may cost that hangs.
const HUNG: Ms = 2_000;
/// The time in which nobody can have found out, beside one probe interval.
const UNKNOWN: Ms = 1_500;
/// Of so many probes of what is ready one is fresh.
const FRESH_ONE_IN: Ms = 4;
/// A probe's own time at most, where an endpoint is usable.
const PROBED: Ms = 500;
/// What a balancer takes its backends for may be so old: a check, its patience, and the pause between two.
const CHECKED: Ms = 4_000;
/// A process listens so long after its start.
const LISTENS: Ms = 1_000;

/// Judges both.
pub(super) fn judge(ran: &Ran) -> [Judged; 2] {
    let mut errors = Docket::new(1, "no needless error");
    let mut waits = Docket::new(2, "no needless wait");
    let conditions = Conditions::new(ran);
    for (number, client) in ran.log.clients.iter().enumerate().filter(|(_, client)| client.kind.is_carried()) {
        let Some(end) = client.first_byte.or(client.ended.map(|(at, _)| at)) else { continue };
        let Some(hello) = client.hello else {
            nobody_listens(ran, client, &mut errors);
            continue;
        };
        let usable = ran.history.all_usable(client.node, (client.opened, end), LOSS);
        if usable.is_empty() {
            continue;
        }
        let name = || format!("connection {number} of {}", ran.names[client.node]);
        if !over(client) {
            errors.evaluated();
        }
        if failed(client) && !gave_up(client) {
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
            continue;
        }
        // Nor is it to blame for asking one that answers, of whatever else the judge may not be sure: what is lost on a way TCP hides.
        let asked = asked(ran, run_at(ran, client.node, hello), client.opened, end);
        let answers = asked.into_iter().filter(|e| shows(ran.history.at(hello), client.node, *e) == Shows::Fine);
        let own = usable.iter().copied().chain(answers).map(|e| own_time(ran, client.node, e, hello, end)).max().unwrap_or(0);
        let allowed = own
            + OVER
            + allowances(ran, &conditions, client, hello, end)
            + to_prove(ran, client, &usable)
            + nobody_could_know(ran, client, &usable, hello, end);
        if client.first_byte.is_some() || gave_up(client) || end - hello > allowed {
            waits.evaluated();
        }
        if end - hello > allowed {
            waits.broken(hello, || format!("{} waited {} ms, of which {allowed} are explained", name(), end - hello));
        }
    }
    [errors.close(), waits.close()]
}

/// It waited to the story's end.
fn over(client: &ClientConn) -> bool {
    client.first_byte.is_none() && matches!(client.ended, Some((_, ClientEnd::Over)))
}

fn gave_up(client: &ClientConn) -> bool {
    matches!(client.ended, Some((_, ClientEnd::GaveUp)))
}

/// Who could not even say hello met an agent that does not listen; one that runs does.
fn nobody_listens(ran: &Ran, client: &ClientConn, errors: &mut Docket) {
    let Some((end, ClientEnd::Refused)) = client.ended else { return };
    let serves =
        |run: &RunSeen| run.machine == client.node && run.from + LISTENS <= client.opened && run.to.is_none_or(|to| to > end);
    if ran.log.runs.values().any(serves) {
        errors.evaluated();
        errors.broken(end, || format!("{} refused a connection although its agent ran", ran.names[client.node]));
    }
}

fn allowances(ran: &Ran, conditions: &Conditions<'_>, client: &ClientConn, hello: Ms, end: Ms) -> Ms {
    let n = client.node;
    let Some(run) = run_at(ran, n, hello) else { return 0 };
    let from = hello.saturating_sub(probe_interval(ran, run, hello) + UNKNOWN);
    let sites: BTreeSet<SocketAddr> =
        ran.history.during(from, end).flat_map(|state| state.sites.keys().copied().collect::<Vec<_>>()).collect();
    let dialled = asked(ran, Some(run), client.opened, end);
    let silent = |shows| matches!(shows, Shows::Silent | Shows::Deaf | Shows::Full);
    let hung = |shows| matches!(shows, Shows::Hung | Shows::Late);
    // A probe on a kept connection is answered all the same, a short request too; one probe in four is fresh, with a long hello.
    let starved = |shows| matches!(shows, Shows::Starved | Shows::Narrow);
    let fresh = hello.saturating_sub(FRESH_ONE_IN * probe_interval(ran, run, hello) * 6 / 5 + UNKNOWN);
    let before = hello.saturating_sub(1);
    let fell_silent = conditions.began(n, &sites, silent, (from, before));
    // A late answer over a kept-open connection is followed by a fresh probe: its handshake and its answer are as late again.
    let probed = |e: &&SocketAddr| 3 * own_time(ran, n, **e, from, before);
    let hung_lately = |e: &&SocketAddr| conditions.began(n, [*e], hung, (from.saturating_sub(probed(e)), before)) > 0;
    let hang = sites.iter().filter(hung_lately).count() as u64 + conditions.began(n, &sites, starved, (fresh, before));
    let meanwhile = conditions.began(n, &dialled, |shows| silent(shows) || hung(shows) || starved(shows), (hello, end));
    let refusals: Ms =
        dialled.iter().filter(|e| refuses(ran, n, **e, (hello, end))).map(|e| own_time(ran, n, *e, hello, end)).sum();
    let half = half_working(ran, conditions, n, hello, &dialled);
    fell_silent * SILENT + (hang + meanwhile + half) * HUNG + refusals + retransmissions(ran, run, client.opened, end)
}

/// Balancers that were dialled, work themselves and have something behind them that does not, or that they may still take for what
/// it was: to whom that connection fell, it hung then, and nothing before could tell.
fn half_working(ran: &Ran, conditions: &Conditions<'_>, n: MachineId, hello: Ms, dialled: &BTreeSet<SocketAddr>) -> u64 {
    let state = ran.history.at(hello);
    let half = dialled.iter().filter(|e| {
        let works = state.sites.get(e).is_some_and(|site| site.backends.is_some() && site.mode == Mode::Ready);
        let since = hello.saturating_sub(CHECKED);
        let changes = conditions.of(n, **e);
        let first = changes.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        let hung = changes[first..].iter().take_while(|(at, _)| *at <= hello).any(|(_, shows)| *shows == Shows::Hung);
        let behind = |state: &State| state.sites.get(e).and_then(|site| site.backends.clone());
        let others = ran.history.during(since, hello).any(|then| behind(then) != behind(state));
        works && (hung || others)
    });
    half.count() as u64
}

/// Whether an endpoint refused or died meanwhile, be it for another process to take its place: to hear of that takes its time.
fn refuses(ran: &Ran, n: MachineId, e: SocketAddr, (from, to): (Ms, Ms)) -> bool {
    let process = |state: &State| state.sites.get(&e).map(|site| site.incarnation);
    let first = process(ran.history.at(from));
    ran.history.during(from, to).any(|state| matches!(shows(state, n, e), Shows::Dead | Shows::Closed) || process(state) != first)
}

/// What has not proven itself to this run, or was a stranger since, may not carry before it has proven itself, and is asked at the pace of held clients.
fn to_prove(ran: &Ran, client: &ClientConn, usable: &BTreeSet<SocketAddr>) -> Ms {
    let Some(run) = run_at(ran, client.node, client.opened) else { return 0 };
    let state = ran.history.at(client.opened);
    let began = ran.log.runs.get(&run).map_or(0, |seen| seen.from);
    let proven = |e: &SocketAddr| {
        let by = |first: u64, last: u64| {
            let mut proofs = ran.log.proofs.range((run, *e, first)..=(run, *e, last));
            proofs.any(|(_, at)| *at <= client.opened)
        };
        let stranger = ran.history.during(began, client.opened).any(|state| foreign(state, client.node, *e));
        match state.sites.get(e) {
            // Whoever comes after a stranger is another process.
            Some(site) if stranger => site.backends.is_none() && by(site.incarnation, site.incarnation),
            _ => state.machines[client.node].configured.contains(e) || by(0, u64::MAX),
        }
    };
    if usable.iter().any(proven) { 0 } else { held_pace(ran) + PROBED }
}

/// How far apart probes are while clients are held.
fn held_pace(ran: &Ran) -> Ms {
    500.max(ran.names.len() as Ms * 10)
}

/// All that could serve it became usable so lately that no probe need have told: whoever else there was may have been asked first, or
/// it was held until the next probe.
fn nobody_could_know(ran: &Ran, client: &ClientConn, usable: &BTreeSet<SocketAddr>, hello: Ms, end: Ms) -> Ms {
    let n = client.node;
    let Some(run) = run_at(ran, n, hello) else { return 0 };
    let since = hello.saturating_sub(probe_interval(ran, run, hello) + UNKNOWN);
    if usable.iter().any(|e| ran.history.usable(n, *e, (since, end), LOSS)) {
        return 0;
    }
    let dialled = asked(ran, Some(run), client.opened, end);
    let cost = |e: &SocketAddr| match shows(ran.history.at(hello), n, *e) {
        Shows::Silent | Shows::Deaf | Shows::Full => SILENT,
        Shows::Hung | Shows::Narrow | Shows::Starved => HUNG,
        Shows::Fine | Shows::Late | Shows::Dead | Shows::Closed | Shows::Foreign => own_time(ran, n, *e, hello, end),
    };
    dialled.difference(usable).map(cost).sum::<Ms>().max(held_pace(ran))
}

/// What a process dialled while a client waited.
fn waited_for(ran: &Ran, run: Option<RunId>, from: Ms, to: Ms) -> impl Iterator<Item = &(ConnId, Dialled)> {
    let before = ran.log.dials.partition_point(|(_, dialled)| dialled.at < from);
    let meanwhile = ran.log.dials[before..].iter().take_while(move |(_, dialled)| dialled.at <= to);
    meanwhile.filter(move |(_, dialled)| Some(dialled.run) == run)
}

/// Whom it dialled then.
fn asked(ran: &Ran, run: Option<RunId>, from: Ms, to: Ms) -> BTreeSet<SocketAddr> {
    waited_for(ran, run, from, to).map(|(_, dialled)| dialled.to).collect()
}

/// How long lost packets of what was dialled for it were waited for in the meantime.
fn retransmissions(ran: &Ran, run: RunId, from: Ms, to: Ms) -> Ms {
    let dialled: BTreeSet<ConnId> = waited_for(ran, Some(run), from, to).map(|(conn, _)| *conn).collect();
    // A balancer's own connections lose packets as well.
    let waits = ran.log.retries.values().flat_map(|retries| {
        let first = retries.partition_point(|(at, ..)| *at < from);
        let meanwhile = retries[first..].iter().take_while(|(at, ..)| *at <= to);
        meanwhile.filter(|(_, conn, _)| dialled.contains(&ran.log.front(*conn))).map(|(.., wait)| wait)
    });
    waits.sum()
}

/// What an upstream needs by itself: a handshake's round trip, the hello's, and its work.
fn own_time(ran: &Ran, n: MachineId, e: SocketAddr, from: Ms, to: Ms) -> Ms {
    ran.history.during(from, to).map(|state| own_time_now(state, n, e)).max().unwrap_or(0)
}

fn own_time_now(state: &State, n: MachineId, e: SocketAddr) -> Ms {
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
