//! Clocks jump.

use crate::sim::plan::{Fault, Plan};
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::seen::{everyone, never_down, nobody_failed};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock-jumps",
    story: "The time of day jumps by five hours at some nodes, forwards at some and back at others, for good or for a while. \
            Nothing depends on it.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// Five hours.
const JUMP: i64 = 5 * 3_600_000;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[1, 2, 3, 5]);
    let mut plan = Plan { cluster, steps: Vec::new(), lasts: 70_000 };
    for (place, name) in plan.names().into_iter().enumerate() {
        let at = cast.moment(&format!("when at {name}"), 12_000, 30_000);
        let of = vec![name.clone()];
        plan = match cast.draw.number(&format!("how at {name}"), 0, 3) + u64::from(place == 0) {
            0 => plan,
            1 => plan.step(at, Fault::ClockJump { of, by: JUMP }),
            2 => plan.step(at, Fault::ClockJump { of, by: -JUMP }),
            _ => plan.fault(at, 10_000, Fault::ClockJump { of, by: if place % 2 == 0 { JUMP } else { -JUMP } }),
        };
        if cast.draw.chance(&format!("{name} restarts after it"), 0.3) {
            plan = plan.fault(at + 3_000, 500, Fault::AgentKilled { of: vec![name] });
        }
    }
    plan
}

fn holds(ran: &Ran) -> Vec<String> {
    let everyone = everyone(ran);
    let mut broken = nobody_failed(ran, &everyone, 5_000, ran.ended);
    broken.extend(never_down(ran, &everyone, &ran.endpoints(&everyone, 0), 5_000, ran.ended));
    broken
}
