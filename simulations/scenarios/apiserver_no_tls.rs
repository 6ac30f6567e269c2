//! What listens does not speak TLS.

use super::apiserver_crashes::one_of_several;
use crate::sim::plan::Plan;
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-answers-without-tls",
    story: "An apiserver is restarted behind something that accepts and then answers in plain text. It is told from an apiserver at \
            once, and used again as soon as it is one.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

fn plan(cast: &Cast) -> Plan {
    one_of_several(cast, Mode::NotTls)
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.nobody_fails().no_hello_at(&fault.endpoints, (fault.from + 2_500, fault.to));
    promises.ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
