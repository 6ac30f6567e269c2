//! The external balancer that prismesh makes dispensable: round robin over the apiservers whose port opens, checked every 2 s, as
//! such balancers are usually configured.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prismesh::world::real::carry::carry;
use prismesh::world::{Clock, Meter};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::seams::{Host, SimListener, SimStream};
use super::state::{Mode, Site};
use super::tcp::Owner;

/// Between two checks of a backend.
const CHECK: Duration = Duration::from_secs(2);
/// A check or a dial that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// While it hangs, whether it still does is looked at this often.
const LOOK: Duration = Duration::from_millis(100);
/// Where it listens.
pub(super) const PORT: u16 = 6443;

/// Serves for ever, wherever its machine is just then.
pub(super) async fn serve(host: Host, listener: SimListener, blind: watch::Receiver<bool>) {
    let (healthy, mut known) = watch::channel(Vec::new());
    let checking = check(host.clone(), healthy, blind);
    let serving = async {
        // It accepts nobody before it has looked round once.
        let _ = known.changed().await;
        let mut turn = 0_usize;
        loop {
            let Ok((client, _)) = listener.next().await else { continue };
            let backends = known.borrow().clone();
            turn = turn.wrapping_add(1);
            // What hangs keeps its clients, and says nothing.
            if hangs(&host) {
                tokio::spawn(hang(host.clone(), client));
            } else if let Some(backend) = backends.get(turn % backends.len().max(1)).copied() {
                tokio::spawn(relay(host.clone(), client, backend));
            }
        }
    };
    tokio::join!(checking, serving);
}

async fn hang(host: Host, client: SimStream) {
    while hangs(&host) && !client.dead() {
        sleep(Duration::from_millis(250)).await;
    }
}

async fn check(host: Host, healthy: watch::Sender<Vec<SocketAddr>>, blind: watch::Receiver<bool>) {
    loop {
        let backends = own(&host).and_then(|site| site.backends).unwrap_or_default();
        let mut open = Vec::new();
        for backend in backends.iter() {
            if *blind.borrow() || timeout(PATIENCE, host.dial(*backend, Owner::Task)).await.is_ok_and(|dialled| dialled.is_ok()) {
                open.push(*backend);
            }
        }
        healthy.send_replace(open);
        sleep(CHECK).await;
    }
}

async fn relay(host: Host, client: SimStream, backend: SocketAddr) {
    let Ok(Ok(upstream)) = timeout(PATIENCE, host.dial(backend, Owner::Task)).await else { return };
    host.sim.core().log.relayed((upstream.conn, backend), client.conn);
    let mut carried = pin!(carry(Box::new(client), Box::new(upstream), Arc::new(Meter::new(Clock::start()))));
    // What hangs carries nothing, and loses nothing.
    let mut nap = pin!(sleep(Duration::ZERO));
    poll_fn(|cx| {
        while hangs(&host) {
            std::task::ready!(nap.as_mut().poll(cx));
            nap.set(sleep(LOOK));
        }
        carried.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

fn hangs(host: &Host) -> bool {
    own(host).is_some_and(|site| site.mode == Mode::Hung)
}

fn own(host: &Host) -> Option<Site> {
    let core = host.sim.core();
    core.state.sites.values().find(|site| site.machine == host.machine && site.backends.is_some()).cloned()
}
