//! The same for ten minutes.

use super::apiserver_not_reading::{holds, plan};
use crate::sim::scenario::{Class, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-does-not-read-for-10-minutes",
    story: "For ten minutes one apiserver, or each of them, reads nothing of what is uploaded to it. By the end its kernel is asked \
            every two minutes whether the window is still closed: every upload waits, and arrives whole.",
    class: Class::Long,
    plan: |cast| plan(cast, 600_000, 640_000),
    holds,
    errors: &[],
};
