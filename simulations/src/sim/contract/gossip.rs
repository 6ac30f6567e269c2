//! As much gossip passes in the model as between real sockets: datagrams a node a round, and bytes a datagram.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prismesh::engine::event::{AgentState, OwnReport, ProbeOrder, Probed, Role};
use prismesh::gossip::{Gossip, Heard, INTERVAL, Keyring, Say, Seeds, Settings};
use prismesh::world::real::{Files, RealDatagram, RealNet, SystemClock, SystemResolver};
use prismesh::world::{BoxFuture, Clock, Prober, World};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::sim::seams::SimClock;
use crate::sim::testing;

/// Members, and how many of them are control planes.
const MEMBERS: usize = 6;
const CONTROL_PLANES: usize = 3;
/// Everybody knows everybody within this.
const CONVERGED: Duration = Duration::from_secs(20);
/// What is said only at the beginning is said by then.
const SETTLED: Duration = Duration::from_secs(4);
/// Counted for so long: on the machine's clock, and in the model, where time costs less.
const REAL_SPAN: Duration = Duration::from_secs(10);
const MODELLED_SPAN: Duration = Duration::from_secs(60);
/// By how much the two may differ.
const ALIKE: f64 = 0.1;

/// What passed.
#[derive(Debug)]
struct Traffic {
    datagrams_per_node_round: f64,
    bytes_per_datagram: f64,
}

/// Nobody is probed here.
struct NoProbes;

impl Prober for NoProbes {
    fn probe(&self, _: ProbeOrder) -> BoxFuture<'_, Probed> {
        Box::pin(std::future::pending())
    }
}

/// A member: its gossip, and who listens to what it tells.
struct Member {
    gossip: Gossip,
    _listening: tokio_util::task::AbortOnDropHandle<()>,
}

/// What one member is started with.
struct Place {
    world: World,
    listen: SocketAddr,
    state_dir: std::path::PathBuf,
}

/// Between two starts.
const APART: Duration = INTERVAL.checked_div(8).expect("not zero");

/// Starts all members, waits until they know one another, and counts.
async fn traffic(places: Vec<Place>, span: Duration) -> Traffic {
    let keyring = Keyring::parse(Keyring::generate().as_bytes()).expect("a keyring");
    let mut sockets = Vec::new();
    for place in &places {
        sockets.push(place.world.datagram.bind(place.listen).await.expect("binds"));
    }
    let at: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
    let mut members = Vec::new();
    for (number, (place, socket)) in places.into_iter().zip(sockets).enumerate() {
        // Rounds that fall together in virtual time would never do so on real machines: each member would ask at once with the other.
        sleep(APART).await;
        let control_plane = number < CONTROL_PLANES;
        let last = u8::try_from(number + 1).expect("few");
        let endpoints: Vec<SocketAddr> =
            if control_plane { vec![(Ipv4Addr::new(10, 9, 0, last), 6443).into()] } else { Vec::new() };
        let settings = Settings {
            cluster: "contract".to_owned(),
            name: format!("node-{number}"),
            core: control_plane,
            socket: socket.into(),
            advertise: Some(at[number]),
            apiservers: endpoints.clone(),
            keyring: keyring.clone(),
            seeds: watch::channel(Seeds { given: true, addrs: at[..CONTROL_PLANES].to_vec() }).1,
            allow: Vec::new(),
            allow_reports: Vec::new(),
            names_per_address: 4,
            state_dir: place.state_dir,
        };
        let role = if control_plane { Role::ControlPlane } else { Role::Worker };
        let say = Say { role, agent: AgentState::Running, endpoints, report: OwnReport::default() };
        let (sender, mut heard) = mpsc::channel::<Heard>(64);
        let gossip = Gossip::start(&place.world, settings, say, sender);
        let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
        members.push(Member { gossip, _listening: tokio_util::task::AbortOnDropHandle::new(listening) });
    }
    // A core member hears all, a worker the core.
    let knows_all = |(number, member): (usize, &Member)| {
        let others = if number < CONTROL_PLANES { MEMBERS - 1 } else { CONTROL_PLANES };
        member.gossip.members().iter().filter(|other| other.alive).count() == others
    };
    let begun = Instant::now();
    while !members.iter().enumerate().all(knows_all) {
        assert!(begun.elapsed() < CONVERGED, "they do not find one another");
        sleep(Duration::from_millis(50)).await;
    }
    sleep(SETTLED).await;
    let sent = || {
        let stats = members.iter().map(|member| member.gossip.stats());
        stats.fold((0, 0), |(count, bytes), stats| (count + stats.datagrams_out.get(), bytes + stats.bytes_out.get()))
    };
    let (before, from) = (sent(), Instant::now());
    sleep(span).await;
    let (after, lasted) = (sent(), from.elapsed());
    let rounds = lasted.as_secs_f64() / INTERVAL.as_secs_f64() * MEMBERS as f64;
    let count = (after.0 - before.0) as f64;
    Traffic { datagrams_per_node_round: count / rounds, bytes_per_datagram: (after.1 - before.1) as f64 / count }
}

fn real() -> Traffic {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    runtime.block_on(async {
        let place = |number: usize| Place {
            world: World {
                datagram: Arc::new(RealDatagram),
                net: Arc::new(RealNet),
                prober: Arc::new(NoProbes),
                resolver: Arc::new(SystemResolver::default()),
                store: Arc::new(Files),
                wall: Arc::new(SystemClock),
                clock: Clock::start(),
            },
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            state_dir: directory.path().join(number.to_string()),
        };
        traffic((0..MEMBERS).map(place).collect(), REAL_SPAN).await
    })
}

fn modelled() -> Traffic {
    let mut found = None;
    testing::in_virtual_time(testing::state(MEMBERS), async |sim| {
        let place = |machine: usize| {
            let (host, _) = testing::agent(&sim, machine);
            Place {
                world: World {
                    datagram: Arc::new(host.clone()),
                    net: Arc::new(host.clone()),
                    prober: Arc::new(NoProbes),
                    resolver: Arc::new(host.clone()),
                    store: Arc::new(host.clone()),
                    wall: Arc::new(SimClock(host)),
                    clock: Clock::start(),
                },
                listen: SocketAddr::new(testing::ip(machine), 0),
                state_dir: "/var/lib/prismesh".into(),
            }
        };
        found = Some(traffic((0..MEMBERS).map(place).collect(), MODELLED_SPAN).await);
    });
    found.expect("counted")
}

#[test]
fn as_much_gossip_passes_in_the_model_as_between_real_sockets() {
    let (real, modelled) = (real(), modelled());
    println!("real {real:.2?}, modelled {modelled:.2?}");
    for (one, other) in [
        (real.datagrams_per_node_round, modelled.datagrams_per_node_round),
        (real.bytes_per_datagram, modelled.bytes_per_datagram),
    ] {
        assert!((other / one - 1.0).abs() <= ALIKE, "real {real:.2?}, modelled {modelled:.2?}");
    }
}
