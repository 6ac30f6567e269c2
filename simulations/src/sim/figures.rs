//! The numbers of a run.

use std::collections::BTreeMap;

use super::learned;
use super::log::{ClientConn, ClientEnd};
use super::outcome::Turn;
use super::run::Ran;
use super::state::Ms;
use super::timelines::lease_ages;

/// Before this agents start and know nobody yet, and clients wait for them: that is a story of its own.
const BEGUN: Ms = 10_000;

/// Named numbers.
pub(super) fn of(ran: &Ran) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    let mut note = |name: &str, figure: f64| {
        figures.insert(name.to_owned(), figure);
    };
    note("connections", asked(ran).count() as f64);
    note("connections_failed", asked(ran).filter(|client| failed(client)).count() as f64);
    let mut waits: Vec<Ms> = asked(ran).filter_map(wait).collect();
    waits.sort_unstable();
    for (name, share) in [("first_byte_p50_ms", 0.5), ("first_byte_p99_ms", 0.99), ("first_byte_slowest_ms", 1.0)] {
        if let Some(wait) = quantile(&waits, share) {
            note(name, wait as f64);
        }
    }
    let later = asked(ran).filter(|client| client.opened >= BEGUN).filter_map(wait).max();
    if let Some(slowest) = later {
        note("first_byte_slowest_after_10_s_ms", slowest as f64);
    }
    let seconds = (ran.ended as f64 / 1e3).max(1.0);
    let bytes: u64 = ran.log.gossip.values().flatten().sum();
    note("gossip_kB_per_node_s", bytes as f64 / 1e3 / seconds / ran.names.len().max(1) as f64);
    note("engine_steps_per_s", ran.steps as f64 / seconds);
    if ran.plan.cluster.kubelets {
        note("lease_age_oldest_s", lease_ages(ran).flatten().max().unwrap_or(0) as f64 / 1e3);
    }
    let learned = learned::of(ran);
    for (name, what) in [("apiserver_known_to_last_ms", Turn::Came), ("apiserver_left_by_last_ms", Turn::Went)] {
        let slowest = learned.iter().filter(|learned| learned.what == what).filter_map(|learned| learned.after_ms.last()).max();
        if let Some(slowest) = slowest {
            note(name, *slowest as f64);
        }
    }
    figures
}

/// Those that asked something of the agent.
fn asked(ran: &Ran) -> impl Iterator<Item = &ClientConn> {
    ran.log.clients.iter().filter(|client| client.hello.is_some() && client.kind.is_carried())
}

fn wait(client: &ClientConn) -> Option<Ms> {
    Some(client.first_byte? - client.hello?)
}

/// How many connections waited how long for their first byte.
pub(super) fn waits(ran: &Ran) -> BTreeMap<Ms, u64> {
    let mut waits = BTreeMap::new();
    for wait in asked(ran).filter_map(wait) {
        *waits.entry(two_digits(wait)).or_default() += 1;
    }
    waits
}

/// Rounded up to two digits.
fn two_digits(ms: Ms) -> Ms {
    let mut grain = 1;
    while ms / grain >= 100 {
        grain *= 10;
    }
    ms.div_ceil(grain) * grain
}

/// The value below which this share of them is.
pub(super) fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied()
}

/// A client got no byte, and it was not its own doing.
pub(super) fn failed(client: &ClientConn) -> bool {
    client.hello.is_some()
        && client.first_byte.is_none()
        && client.ended.is_some_and(|(_, end)| !matches!(end, ClientEnd::Done | ClientEnd::Over))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_with_two_digits_and_never_shorter_than_they_were() {
        for (wait, told) in [(0, 0), (7, 7), (99, 99), (100, 100), (101, 110), (1_001, 1_100), (9_999, 10_000)] {
            assert_eq!(two_digits(wait), told);
        }
    }

    #[test]
    fn a_quantile_is_the_value_below_which_that_share_is() {
        let sorted = [1, 2, 3, 4];
        assert_eq!([0.0, 0.25, 0.5, 0.99, 1.0].map(|share| quantile(&sorted, share)), [1, 1, 2, 4, 4].map(Some));
        assert_eq!(quantile::<u64>(&[], 0.5), None);
    }
}
