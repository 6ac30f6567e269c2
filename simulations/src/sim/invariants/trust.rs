//! 3, no blind trust: no client's byte goes to an address that gossip or the cache named and that has not proven itself, or that is
//! outside the allowed networks, nor to the agent's own listener, whatever source named it.

use std::net::SocketAddr;

use super::Docket;
use crate::sim::client::PROXY;
use crate::sim::core::RunId;
use crate::sim::log::UpstreamConn;
use crate::sim::outcome::Judged;
use crate::sim::run::Ran;
use crate::sim::state::{Class, MachineId, Mode, Ms, State};

/// What a client has sent when the allowed networks change is on its way.
const UNDER_WAY: Ms = 50;

/// Judges it.
pub(super) fn judge(ran: &Ran) -> Judged {
    let mut docket = Docket::new(3, "no blind trust");
    for upstream in ran.log.upstreams.values() {
        let (n, run) = upstream.by;
        let state = ran.history.at(upstream.bytes);
        if upstream.to.port() == PROXY.port() && state.machine_at(upstream.to.ip(), n) == Some(n) {
            docket.evaluated();
            docket.broken(upstream.bytes, || {
                format!("{} sent a client's bytes to its own agent, at {}", ran.names[n], upstream.to)
            });
            continue;
        }
        // A balancer is known from the configuration only, be it by a name.
        let balancer = state.sites.get(&upstream.to).is_some_and(|site| site.backends.is_some());
        if balancer || state.machines[n].configured.contains(&upstream.to) {
            continue;
        }
        docket.evaluated();
        if ran
            .history
            .during(upstream.bytes.saturating_sub(UNDER_WAY), upstream.bytes)
            .all(|state| !state.permits(n, upstream.to))
        {
            docket.broken(upstream.bytes, || {
                format!("{} sent a client's bytes to {}, outside its allowed networks", ran.names[n], ran.name_of(upstream.to))
            });
            continue;
        }
        let incarnation = state.sites.get(&upstream.to).map(|site| site.incarnation);
        let proven = incarnation.and_then(|incarnation| ran.log.proofs.get(&(run, upstream.to, incarnation)));
        if proven.is_some_and(|at| *at <= upstream.bytes) || excused(ran, upstream, run) {
            continue;
        }
        docket.broken(upstream.bytes, || {
            format!("{} sent a client's bytes to {}, which had not proven itself to it", ran.names[n], ran.name_of(upstream.to))
        });
    }
    docket.close()
}

/// What answers there has replaced something that had proven itself, and this process could not know it yet.
fn excused(ran: &Ran, upstream: &UpstreamConn, run: RunId) -> bool {
    let before = ran.log.proofs.range((run, upstream.to, 0)..=(run, upstream.to, u64::MAX));
    let proven_before = before.filter(|(_, at)| **at <= upstream.bytes).count() > 0;
    let Some(replaced) = replaced_at(ran, upstream.to, upstream.bytes).filter(|_| proven_before) else { return false };
    let probes = ran.log.probes.iter().filter(|probe| probe.run == run && probe.endpoint == upstream.to);
    // The last words of whoever was there before may still be on their way.
    let first = replaced + on_its_way(ran.history.at(replaced), upstream.to, upstream.by.0);
    // A probe that the newcomer answered in full has proven it; one that was answered in full all the same met the old one.
    let met =
        probes.filter(|probe| probe.byte && !probe.answered && probe.done >= first && probe.done < upstream.bytes).count() > 0;
    // What is no TLS shows itself to the first connection that gets there; anything else only to a client, inside TLS.
    let there = ran.history.at(upstream.bytes).sites.get(&upstream.to).map(|site| (site.mode, site.incarnation));
    let showed = |other: &UpstreamConn| other.met.is_some_and(|met| there == Some((Mode::NotTls, met)));
    let others = ran.log.upstreams.values().filter(|other| other.by.1 == run && other.to == upstream.to);
    let failed = others
        .filter(|other| showed(other))
        .any(|other| other.ended.is_some_and(|(at, peer_first)| peer_first && at < upstream.bytes));
    !met && !failed
}

/// How long a word of an endpoint's travels at least.
fn on_its_way(state: &State, from: SocketAddr, to: MachineId) -> Ms {
    let way = state.sites.get(&from).map(|site| state.way(site.machine, to, Class::Api));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds")]
    way.map_or(0, |way| (f64::from(way.delay) * (1.0 - way.jitter)) as Ms)
}

/// When what is there at `at` came there.
fn replaced_at(ran: &Ran, endpoint: SocketAddr, at: Ms) -> Option<Ms> {
    let now = ran.history.at(at).sites.get(&endpoint).map(|site| site.incarnation);
    ran.history.since(at, |state| state.sites.get(&endpoint).map(|site| site.incarnation) == now)
}
