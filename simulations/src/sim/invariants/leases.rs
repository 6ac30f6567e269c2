//! 11, leases kept: a node whose apiserver can be reached stays Ready.

use super::Docket;
use crate::sim::log::ClientKind;
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{MachineId, Ms};

/// After this the node controller calls a node NotReady.
const GRACE: Ms = 40_000;
/// For so long some apiserver was usable all the time.
const USABLE_FOR: Ms = 20_000;
/// A lease that is renewed in the usual rhythm was never in danger.
const USUAL: Ms = 12_000;

/// Which apiserver a connection through a balancer leads to is not known here, so it is never reset for that apiserver's silence: a
/// kubelet finds out by itself after this, as it would without prismesh.
const OWN_PATIENCE: Ms = 57_000;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> Judged {
    let mut docket = Docket::new(11, "leases kept");
    if !ran.plan.cluster.kubelets {
        return docket.close();
    }
    for n in 0..ran.names.len() {
        let Some(began) = ran.history.came_up(n) else { continue };
        let renewals = ran.log.leases.get(&n).cloned().unwrap_or_default();
        let marks: Vec<Ms> = [began].into_iter().chain(renewals).chain([ran.ended]).collect();
        for gap in marks.windows(2) {
            if gap[1] - gap[0] > USUAL {
                docket.evaluated();
            }
            if let Some(at) = missed(ran, n, gap[0], gap[1]) {
                docket.broken(at, || {
                    format!("{} had not renewed its lease since {} ms although an apiserver was usable", ran.names[n], gap[0])
                });
            }
        }
    }
    docket.close()
}

/// When, between two renewals, a node was NotReady and need not have been.
fn missed(ran: &Ran, n: MachineId, from: Ms, to: Ms) -> Option<Ms> {
    let first = from + if through_a_balancer(ran, n, from) { OWN_PATIENCE } else { GRACE };
    // What was usable for so long has been so since the state changed, or since it was heard of after that.
    let since = ran.history.turns().map(|at| at + USABLE_FOR);
    let mut moments = [first].into_iter().chain(since).chain(to.checked_sub(1)).filter(|at| (first..to).contains(at));
    moments.find(|at| !ran.history.all_usable(n, (at.saturating_sub(USABLE_FOR), *at), 0.05).is_empty())
}

/// Whether a connection of the node's kubelet led through a balancer after its last renewal.
fn through_a_balancer(ran: &Ran, n: MachineId, from: Ms) -> bool {
    let kubelets = ran.log.clients.iter().filter(|client| client.node == n && client.kind == ClientKind::Kubelet);
    let open = kubelets.filter(|client| client.opened <= from && client.ended.is_none_or(|(at, _)| at > from));
    open.filter_map(|client| ran.log.upstreams.get(&client.upstream?))
        .any(|upstream| ran.history.at(from).sites.get(&upstream.to).is_some_and(|site| site.backends.is_some()))
}
