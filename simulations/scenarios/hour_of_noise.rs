//! An hour in which nothing happens but noise.

use crate::sim::plan::{Cluster, Plan};
use crate::sim::scenario::{Cast, Class, Scenario, nothing_more};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "an-hour-of-noise",
    story: "For an hour every packet takes up to a fifth more or less than the one before, and nothing else happens: nobody changes \
            its mind about anybody.",
    class: Class::Long,
    plan,
    holds: nothing_more,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let zones = cluster.zones.len();
    let distance = |one: usize, other: usize| {
        let (one, other) = (one.min(other), one.max(other));
        let drawn = cast.draw.number(&format!("noisy distance from {one} to {other}"), 5, if one == other { 6 } else { 20 });
        2 * u32::try_from(drawn).unwrap_or(5)
    };
    let zones = (0..zones).map(|one| (0..zones).map(|other| distance(one, other)).collect()).collect();
    let cluster = Cluster { zones, jitter: 0.2, fresh_every: 5_000, ..cluster };
    Plan { cluster, steps: Vec::new(), lasts: 3_720_000 }
}
