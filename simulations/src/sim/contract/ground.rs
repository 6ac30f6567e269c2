//! Where contracts are tried: two sides that can reach one another, real or modelled.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prismesh::world::real::{Files, RealDatagram, RealNet, SystemClock, SystemResolver};
use prismesh::world::{Datagram, Net, Resolver, Store, WallClock};
use tokio::time::timeout;

use crate::sim::seams::SimClock;
use crate::sim::testing;

/// Longer than any contract takes; virtual in the model, so that a hang there costs nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// The one name that both sides know.
pub(super) const KNOWN_NAME: &str = "api.cluster.example";

/// Two sides.
pub(super) struct Ground {
    pub(super) here: Side,
    pub(super) there: Side,
    _directory: Option<tempfile::TempDir>,
}

/// A machine with its seams.
#[derive(Clone)]
pub(super) struct Side {
    pub(super) ip: IpAddr,
    /// Another address of the same machine.
    pub(super) other_ip: IpAddr,
    /// Whose files are nobody else's.
    pub(super) directory: PathBuf,
    pub(super) datagram: Arc<dyn Datagram>,
    pub(super) net: Arc<dyn Net>,
    pub(super) resolver: Arc<dyn Resolver>,
    pub(super) store: Arc<dyn Store>,
    pub(super) wall: Arc<dyn WallClock>,
}

impl Side {
    /// Its address and a port.
    pub(super) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }
}

/// On loopback.
pub(super) fn real(contract: impl AsyncFnOnce(Ground)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let side = |name: &str| {
        let own = directory.path().join(name);
        std::fs::create_dir(&own).expect("made");
        let hosts = own.join("hosts");
        std::fs::write(&hosts, format!("10.0.0.77 {KNOWN_NAME}\n")).expect("written");
        Side {
            ip: Ipv4Addr::LOCALHOST.into(),
            other_ip: Ipv4Addr::new(127, 0, 0, 2).into(),
            resolver: Arc::new(SystemResolver::reading(hosts, own.join("resolv.conf"))),
            directory: own,
            datagram: Arc::new(RealDatagram),
            net: Arc::new(RealNet),
            store: Arc::new(Files),
            wall: Arc::new(SystemClock),
        }
    };
    let ground = Ground { here: side("here"), there: side("there"), _directory: Some(directory) };
    runtime.block_on(async { timeout(PATIENCE, contract(ground)).await.expect("it hangs") });
}

/// In the model, on two machines or on one.
pub(super) fn modelled(apart: bool, contract: impl AsyncFnOnce(Ground)) {
    testing::in_virtual_time(testing::state(2), async |sim| {
        sim.change(|state| {
            let name = crate::sim::state::Name::Is(vec![Ipv4Addr::new(10, 0, 0, 77).into()]);
            state.names.insert(KNOWN_NAME.to_owned(), name);
        });
        let side = |machine: usize| {
            let host = testing::host(&sim, machine);
            Side {
                ip: if apart { testing::ip(machine) } else { Ipv4Addr::LOCALHOST.into() },
                other_ip: if apart { Ipv4Addr::LOCALHOST.into() } else { testing::ip(machine) },
                directory: PathBuf::from(format!("/somewhere/{machine}")),
                datagram: Arc::new(host.clone()),
                net: Arc::new(host.clone()),
                resolver: Arc::new(host.clone()),
                store: Arc::new(host.clone()),
                wall: Arc::new(SimClock(host)),
            }
        };
        let ground = Ground { here: side(0), there: side(usize::from(apart)), _directory: None };
        timeout(PATIENCE, contract(ground)).await.expect("it hangs");
    });
}
