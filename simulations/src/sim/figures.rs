//! The numbers and timelines of a run.

use std::collections::BTreeMap;

use super::log::{ClientEnd, ClientKind};
use super::outcome::Timelines;
use super::run::Ran;
use super::state::Ms;

/// One step of a timeline.
const STEP: Ms = 1_000;
/// A node whose lease is older than this is NotReady, as the node controller sees it.
const LEASE_GRACE: Ms = 40_000;

/// Named numbers.
pub(super) fn of(ran: &Ran) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    let asked = ran.log.clients.iter().filter(|client| client.hello.is_some() && client.kind != ClientKind::Bypass);
    let failed = asked.clone().filter(|client| failed(client)).count();
    figures.insert("connections".to_owned(), asked.clone().count() as f64);
    figures.insert("connections_failed".to_owned(), failed as f64);
    let mut waits: Vec<Ms> = asked.filter_map(|client| Some(client.first_byte? - client.hello?)).collect();
    waits.sort_unstable();
    for (name, share) in [("first_byte_p50_ms", 0.5), ("first_byte_p99_ms", 0.99), ("first_byte_slowest_ms", 1.0)] {
        if let Some(wait) = quantile(&waits, share) {
            figures.insert(name.to_owned(), wait as f64);
        }
    }
    let seconds = (ran.ended as f64 / 1e3).max(1.0);
    let bytes: u64 = ran.log.gossip.values().flatten().sum();
    figures.insert("gossip_kB_per_node_s".to_owned(), bytes as f64 / 1e3 / seconds / ran.names.len().max(1) as f64);
    figures.insert("engine_steps_per_s".to_owned(), ran.steps as f64 / seconds);
    figures
}

/// The value below which this share of them is.
pub(super) fn quantile(sorted: &[Ms], share: f64) -> Option<Ms> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied()
}

/// A client got no byte, and it was not its own doing.
pub(super) fn failed(client: &super::log::ClientConn) -> bool {
    client.hello.is_some()
        && client.first_byte.is_none()
        && client.ended.is_some_and(|(_, end)| !matches!(end, ClientEnd::Done | ClientEnd::Over))
}

/// What happened over time.
pub(super) fn timelines(ran: &Ran) -> Timelines {
    let steps = usize::try_from(ran.ended / STEP).unwrap_or(0) + 1;
    let mut lines = Timelines {
        step_ms: STEP,
        answered_by: BTreeMap::new(),
        failed: vec![0; steps],
        slowest_ms: vec![0; steps],
        not_ready: vec![0; steps],
        faults: vec![0; steps],
    };
    let place = |at: Ms| usize::try_from(at / STEP).unwrap_or(usize::MAX).min(steps - 1);
    for client in ran.log.clients.iter().filter(|client| client.kind != ClientKind::Bypass) {
        if let (Some(first), Some(hello)) = (client.first_byte, client.hello) {
            let upstream = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn));
            let name = upstream.map_or_else(|| "?".to_owned(), |upstream| ran.name_of(upstream.to));
            lines.answered_by.entry(name).or_insert_with(|| vec![0; steps])[place(first)] += 1;
            let slowest = &mut lines.slowest_ms[place(hello)];
            *slowest = (*slowest).max(u32::try_from(first - hello).unwrap_or(u32::MAX));
        } else if failed(client) {
            lines.failed[place(client.ended.map_or(client.opened, |(at, _)| at))] += 1;
        }
    }
    for (step, line) in (0_u64..).zip(&mut lines.faults) {
        *line = u32::try_from(ran.history.at(step * STEP).faults).unwrap_or(u32::MAX);
    }
    if ran.plan.cluster.kubelets {
        for (machine, _) in ran.names.iter().enumerate() {
            let renewals = ran.log.leases.get(&machine).map_or(&[][..], Vec::as_slice);
            for (step, line) in (0_u64..).zip(&mut lines.not_ready) {
                let now = step * STEP;
                let before = renewals.partition_point(|at| *at <= now);
                let last = before.checked_sub(1).map_or(0, |last| renewals[last]);
                *line += u32::from(now.saturating_sub(last) > LEASE_GRACE && ran.history.at(now).machines[machine].up);
            }
        }
    }
    lines
}
