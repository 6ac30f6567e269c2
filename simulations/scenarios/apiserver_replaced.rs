//! Something that is no apiserver stands where one stood.

use crate::sim::plan::{Fault, Plan, who};
use crate::sim::promises::Promises;
use crate::sim::run::Ran;
use crate::sim::scenario::{Cast, Class, Scenario};
use crate::sim::state::Mode;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver-replaced-by-something-else",
    story: "At an apiserver's address something else answers from one moment to the next: with another CA's certificate, or with what \
            is not TLS. Its agent goes on to advertise it. Nobody sends it a client's bytes once it has shown itself.",
    class: Class::Quick,
    plan,
    holds,
    errors: &[],
};

/// By then every node has probed it.
const MET: u64 = 2_500;

fn plan(cast: &Cast) -> Plan {
    let cluster = cast.cluster(&[2, 3, 5]);
    let of = who(cast.control_plane(&cluster, "whose address"));
    let mode = cast.draw.one_of("does", &[Mode::WrongCertificate, Mode::NotTls]);
    let at = cast.moment("when", 12_000, 15_000);
    let lasts = cast.moment("for how long", 10_000, 25_000);
    Plan { cluster, steps: Vec::new(), lasts: 60_000 }.fault(at, lasts, Fault::Impostor { of, mode })
}

fn holds(ran: &Ran) -> Vec<String> {
    let mut promises = Promises::of(ran);
    let fault = promises.step(0);
    promises.no_hello_at(&fault.endpoints, (fault.from + MET, fault.to)).leases_kept(20_000);
    promises.nobody_fails_between(fault.from + MET, ran.ended);
    promises.ready_everywhere(&fault.endpoints, fault.to + 5_000);
    promises.broken()
}
