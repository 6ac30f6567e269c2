//! What happened over time, in steps that are wide enough for a plot.

use std::collections::BTreeMap;

use super::figures::failed;
use super::outcome::Timelines;
use super::run::Ran;
use super::state::Ms;

/// The grain of steps.
const SECOND: Ms = 1_000;
/// Steps, at most: a plot is not wider.
const STEPS: Ms = 240;
/// A node whose lease is older than this is NotReady, as the node controller sees it.
const LEASE_GRACE: Ms = 40_000;

/// What happened over time.
pub(super) fn of(ran: &Ran) -> Timelines {
    let step_ms = width(ran.ended);
    let steps = usize::try_from(ran.ended / step_ms).unwrap_or(0) + 1;
    let none = vec![0; steps];
    let mut lines = Timelines {
        step_ms,
        answered_by: BTreeMap::new(),
        failed: none.clone(),
        slowest_ms: none.clone(),
        not_ready: none.clone(),
        lease_age_s: Vec::new(),
        faults: none.clone(),
    };
    let place = |at: Ms| usize::try_from(at / step_ms).unwrap_or(usize::MAX).min(steps - 1);
    for client in ran.log.clients.iter().filter(|client| client.kind.is_carried()) {
        if let (Some(first), Some(hello)) = (client.first_byte, client.hello) {
            let upstream = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn));
            let name = upstream.map_or_else(|| "?".to_owned(), |upstream| ran.name_of(upstream.to));
            lines.answered_by.entry(name).or_insert_with(|| none.clone())[place(first)] += 1;
            let slowest = &mut lines.slowest_ms[place(hello)];
            *slowest = (*slowest).max(u32::try_from(first - hello).unwrap_or(u32::MAX));
        } else if failed(client) {
            lines.failed[place(client.ended.map_or(client.opened, |(at, _)| at))] += 1;
        }
    }
    for (step, line) in (0_u64..).zip(&mut lines.faults) {
        let most = ran.history.during(step * step_ms, (step + 1) * step_ms - 1).map(|state| state.faults).max();
        *line = u32::try_from(most.unwrap_or(0)).unwrap_or(u32::MAX);
    }
    if ran.plan.cluster.kubelets {
        leases(ran, &mut lines, place);
    }
    lines
}

/// The width of steps: whole seconds.
fn width(lasts: Ms) -> Ms {
    (lasts / STEPS).div_ceil(SECOND).max(1) * SECOND
}

fn leases(ran: &Ran, lines: &mut Timelines, place: impl Fn(Ms) -> usize) {
    lines.lease_age_s = vec![0; lines.faults.len()];
    for (second, ages) in (0_u64..).zip(lease_ages(ran)) {
        let step = place(second * SECOND);
        let late = ages.iter().filter(|age| **age > LEASE_GRACE).count();
        let oldest = ages.iter().max().map_or(0, |age| age / 1_000);
        lines.not_ready[step] = lines.not_ready[step].max(u32::try_from(late).unwrap_or(u32::MAX));
        lines.lease_age_s[step] = lines.lease_age_s[step].max(u32::try_from(oldest).unwrap_or(u32::MAX));
    }
}

/// Each second, how long ago each node renewed its lease, or came, of those that are up.
pub(super) fn lease_ages(ran: &Ran) -> impl Iterator<Item = Vec<Ms>> {
    let came: Vec<Ms> = (0..ran.names.len()).map(|machine| ran.history.came_up(machine).unwrap_or(0)).collect();
    (0..=ran.ended / SECOND).map(move |second| {
        let now = second * SECOND;
        let machines = &ran.history.at(now).machines;
        let age = |machine: usize| {
            let renewals = ran.log.leases.get(&machine).map_or(&[][..], Vec::as_slice);
            let last = renewals.partition_point(|at| *at <= now).checked_sub(1).map_or(came[machine], |last| renewals[last]);
            now.saturating_sub(last)
        };
        (0..ran.names.len()).filter(|machine| machines[*machine].up).map(age).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_seconds_and_no_story_has_more_of_them_than_a_plot_can_show() {
        assert_eq!(width(90_000), 1_000);
        assert_eq!(width(240_000), 1_000);
        for lasts in [241_000, 3_600_000, 9_000_001] {
            assert!(lasts / width(lasts) <= STEPS, "{lasts}");
            assert_eq!(width(lasts) % 1_000, 0);
        }
    }
}
