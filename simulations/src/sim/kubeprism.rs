//! A model of the rules that KubePrism publishes (Talos, go-loadbalancer), to have something to compare with. It is not KubePrism:
//! that its discovery knows of every apiserver at once is in its favour, that the kernel's user time-out of 30 s is not modelled
//! is not.
//!
//! Health is a TCP connect every 20 s, one endpoint after the other; a score of -3 to 3 that begins at 1 and moves by one a check;
//! whoever is at 0 or above is eligible. The eligible ones are taken in turn in the lowest tier of latency, by the last sample.
//! Who cannot be dialled costs a step and its client the connection. Established connections are left alone.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prismesh::world::real::carry::carry;
use prismesh::world::{Clock, Meter};
use tokio::time::{Instant, sleep, timeout};

use super::seams::{Host, SimListener, SimStream};
use super::tcp::Owner;

/// Where it listens: beside the agent, so that both can be there.
pub(super) const PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7444);
/// Between two checks.
const CHECK: Duration = Duration::from_secs(20);
/// A check or a dial that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// Scores begin here, and end there.
const FIRST: i32 = 1;
const MOST: i32 = 3;
/// Where a tier of latency ends, in µs.
const TIERS: [u128; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];
/// New endpoints begin in this one.
const FIRST_TIER: usize = 1;

#[derive(Clone, Copy)]
struct Known {
    score: i32,
    tier: usize,
}

#[derive(Default)]
struct Endpoints {
    known: BTreeMap<SocketAddr, Known>,
    turn: usize,
}

impl Endpoints {
    fn pick(&mut self) -> Option<SocketAddr> {
        let eligible = self.known.iter().filter(|(_, known)| known.score >= 0);
        let lowest = eligible.clone().map(|(_, known)| known.tier).min()?;
        let tier: Vec<SocketAddr> = eligible.filter(|(_, known)| known.tier == lowest).map(|(addr, _)| *addr).collect();
        self.turn = self.turn.wrapping_add(1);
        tier.get(self.turn % tier.len()).copied()
    }

    fn note(&mut self, addr: SocketAddr, took: Option<Duration>) {
        let Some(known) = self.known.get_mut(&addr) else { return };
        match took {
            Some(took) => {
                known.score = (known.score + 1).min(MOST);
                known.tier = TIERS.iter().filter(|end| took.as_micros() >= **end).count();
            }
            None => known.score = (known.score - 1).max(-MOST),
        }
    }
}

type Shared = Arc<Mutex<Endpoints>>;

/// Serves for ever.
pub(super) async fn serve(host: Host, listener: SimListener) {
    let endpoints = Shared::default();
    let checking = check(host.clone(), endpoints.clone());
    let serving = async {
        loop {
            let Ok((client, _)) = listener.next().await else { continue };
            discover(&host, &endpoints);
            tokio::spawn(relay(host.clone(), endpoints.clone(), client));
        }
    };
    tokio::join!(checking, serving);
}

fn lock(endpoints: &Shared) -> std::sync::MutexGuard<'_, Endpoints> {
    endpoints.lock().unwrap_or_else(PoisonError::into_inner)
}

/// It knows what there is: the external endpoint, and every control plane's.
fn discover(host: &Host, endpoints: &Shared) {
    let all: Vec<SocketAddr> = host.sim.core().state.sites.keys().copied().collect();
    let mut endpoints = lock(endpoints);
    endpoints.known.retain(|addr, _| all.contains(addr));
    for addr in all {
        endpoints.known.entry(addr).or_insert(Known { score: FIRST, tier: FIRST_TIER });
    }
}

async fn check(host: Host, endpoints: Shared) {
    loop {
        discover(&host, &endpoints);
        let all: Vec<SocketAddr> = lock(&endpoints).known.keys().copied().collect();
        for addr in all {
            dial(&host, &endpoints, addr).await;
        }
        sleep(CHECK).await;
    }
}

async fn dial(host: &Host, endpoints: &Shared, addr: SocketAddr) -> Option<SimStream> {
    let begun = Instant::now();
    let dialled = timeout(PATIENCE, host.dial(addr, Owner::Task)).await.ok().and_then(Result::ok);
    lock(endpoints).note(addr, dialled.as_ref().map(|_| begun.elapsed()));
    dialled
}

async fn relay(host: Host, endpoints: Shared, client: SimStream) {
    let picked = lock(&endpoints).pick();
    let Some(addr) = picked else { return };
    let Some(upstream) = dial(&host, &endpoints, addr).await else { return };
    host.sim.core().log.relayed((upstream.conn, addr), client.conn);
    carry(Box::new(client), Box::new(upstream), Arc::new(Meter::new(Clock::start()))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_endpoint_needs_four_failures_to_be_left_and_latency_decides_by_its_last_sample() {
        let (one, other) = (SocketAddr::from(([10, 0, 0, 1], 6443)), SocketAddr::from(([10, 0, 0, 2], 6443)));
        let mut endpoints = Endpoints::default();
        for addr in [one, other] {
            endpoints.known.insert(addr, Known { score: MOST, tier: FIRST_TIER });
        }
        endpoints.note(one, Some(Duration::from_millis(2)));
        assert_eq!(endpoints.pick(), Some(other), "what is new outranks what was measured");
        endpoints.note(other, Some(Duration::from_millis(50)));
        for _ in 0..3 {
            assert_eq!(endpoints.pick(), Some(one));
            endpoints.note(one, None);
        }
        assert_eq!(endpoints.pick(), Some(one), "three are not enough");
        endpoints.note(one, None);
        assert_eq!(endpoints.pick(), Some(other));
    }
}
