//! 12, no worse than direct: of two clients that do the same, the one behind the agent survives whatever the one without it survives.
//!
//! Exempt is what the rule for resets allows: a peer that was silent or a process that hung for long enough, and trust that was
//! withdrawn; and what befell the agent itself.

use super::Docket;
use super::conditions::{Conditions, Shows};
use super::resets::{LOOKED_BACK, led_to_silence, little_is_lost, trusts};
use crate::sim::log::{ClientConn, ClientEnd, Twins, UpstreamConn};
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::seen::ending;
use crate::sim::state::{AgentLife, Ms, State};

/// Both may end because of the same thing, and one hears of it so much later.
const SAME_END: Ms = 1_000;
/// Where nothing was wrong with the endpoint for clients that are connected, both are done at about the same time.
const LATE: Ms = 2_000;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> Judged {
    let mut docket = Docket::new(12, "no worse than direct");
    let (itself, behind) = (Conditions::itself(ran), Conditions::new(ran));
    for twins in &ran.log.twins {
        compare(ran, [&itself, &behind], twins, &mut docket);
    }
    docket.close()
}

fn compare(ran: &Ran, conditions: [&Conditions<'_>; 2], twins: &Twins, docket: &mut Docket) {
    let (carried, direct) = (&ran.log.clients[twins.carried], &ran.log.clients[twins.direct]);
    let Some(upstream) = carried.upstream.and_then(|conn| ran.log.upstreams.get(&conn)) else { return };
    let (Some((at, end)), Some((direct_at, direct_end))) = (carried.ended, direct.ended) else { return };
    if !went_to_the_same(ran, carried, direct) {
        return;
    }
    docket.evaluated();
    let excused = is_excused(ran, conditions[0], carried, upstream, at);
    let good = |end| matches!(end, ClientEnd::Done | ClientEnd::Over);
    let outlived = good(direct_end) || direct_at > at + SAME_END;
    if !good(end) && outlived && !excused {
        docket.broken(at, || tell(ran, twins, carried, direct, upstream));
    }
    let both_done = (end, direct_end) == (ClientEnd::Done, ClientEnd::Done);
    if both_done && at > direct_at + LATE && !excused && served_all_the_time(conditions, carried, upstream, at) {
        docket.broken(at, || tell(ran, twins, carried, direct, upstream));
    }
}

/// Behind a balancer the two may have met different apiservers.
fn went_to_the_same(ran: &Ran, carried: &ClientConn, direct: &ClientConn) -> bool {
    let behind = |client: &ClientConn| client.upstream.and_then(|conn| ran.log.behind.get(&conn));
    direct.first_byte.is_some() && behind(carried) == behind(direct)
}

fn is_excused(ran: &Ran, conditions: &Conditions<'_>, carried: &ClientConn, upstream: &UpstreamConn, at: Ms) -> bool {
    let (n, run) = upstream.by;
    let e = upstream.to;
    let since = carried.opened;
    let gone = ran.log.runs.get(&run).and_then(|seen| seen.to).is_some_and(|to| to <= at);
    let runs = |state: &State| state.machines[n].up && state.machines[n].agent == AgentLife::Running;
    let looked_back = at.saturating_sub(LOOKED_BACK).min(since);
    let swallowed = carried.upstream.is_some_and(|conn| ran.log.swallowed.contains_key(&conn));
    gone || swallowed
        || !ran.history.throughout(since, at, runs)
        || !ran.history.throughout(looked_back, at, |state| little_is_lost(state, n, e) && trusts(state, n, e))
        || led_to_silence(ran, conditions, carried, upstream, at)
}

/// Nothing was wrong that a client feels that is connected.
fn served_all_the_time(conditions: [&Conditions<'_>; 2], carried: &ClientConn, upstream: &UpstreamConn, at: Ms) -> bool {
    let fine = |shows: &Shows| matches!(shows, Shows::Fine | Shows::Late | Shows::Closed | Shows::Full);
    conditions.iter().all(|conditions| {
        let changes = conditions.of(upstream.by.0, upstream.to);
        let first = changes.partition_point(|(from, _)| *from <= carried.opened).saturating_sub(1);
        changes[first..].iter().take_while(|(from, _)| *from <= at).all(|(_, shows)| fine(shows))
    })
}

fn tell(ran: &Ran, twins: &Twins, carried: &ClientConn, direct: &ClientConn, upstream: &UpstreamConn) -> String {
    format!(
        "{} of {} to {} that began at {} ms: {}, and without the agent {}",
        twins.what,
        ran.names[carried.node],
        ran.name_of(upstream.to),
        carried.opened,
        ending(carried),
        ending(direct)
    )
}
