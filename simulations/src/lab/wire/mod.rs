//! A network with distance: latency, jitter, loss, cuts and path MTU holes between network namespaces, for tests with real
//! sockets on a machine whose kernel has no `netem`.
//!
//! Each node is a network namespace with one TUN device. A thread of the test reads the packets of all devices, and delays,
//! drops or delivers each as the [`Link`] from its source to its destination says. Links are one-way and may be changed at any
//! time. The namespace that the test itself runs in is the node [`HERE`], so agents, clients and admin pages work there as they
//! do on loopback; only what is meant to be far away runs in another namespace ([`Node::within`]).
//!
//! Packets of one link never overtake one another, as on a path with one queue. A packet that is too large vanishes without an
//! ICMP message: the kernel never learns the path's MTU.

mod link;
mod router;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

pub use link::{Counts, Link};
use router::{Router, Shared};

use super::netns::{Place, enter_if};

/// The host number of the namespace that the test runs in.
pub const HERE: u8 = 1;
/// Its device in each namespace.
const DEVICE: &str = "wire0";
/// What a device takes at most, as on Ethernet.
const MTU: u16 = 1500;

/// As [`super::netns::enter`], for tests that lay a wire.
pub fn enter(test: &str) -> Result<Place> {
    enter_if(test, &format!("ip tuntap add dev {DEVICE} mode tun"))
}

/// The address of a host on the wire.
pub fn addr(host: u8) -> IpAddr {
    IpAddr::V4(v4(host))
}

fn v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, host)
}

/// The nodes and the router between them; gone when dropped.
pub struct Wire {
    nodes: Vec<Node>,
    shared: Arc<Shared>,
    router: Option<JoinHandle<()>>,
}

impl Wire {
    /// Lays a wire between this namespace and a new one for each of these hosts. Links begin without delay or loss.
    pub fn lay(hosts: &[u8]) -> Result<Wire> {
        let nodes = hosts.iter().map(|host| Node::new(*host)).collect::<Result<Vec<_>>>()?;
        let mut devices = vec![(v4(HERE), device(HERE)?)];
        for node in &nodes {
            devices.push((v4(node.host), node.within(|| device(node.host))??));
        }
        let shared = Arc::new(Shared::default());
        let router = Router::new(devices, Arc::clone(&shared));
        let router = std::thread::Builder::new().name("wire".to_owned()).spawn(move || router.run())?;
        Ok(Wire { nodes, shared, router: Some(router) })
    }

    /// A node other than [`HERE`].
    pub fn node(&self, host: u8) -> Result<&Node> {
        self.nodes.iter().find(|node| node.host == host).with_context(|| format!("no node {host} on the wire"))
    }

    /// From now on packets from one host to another meet this link.
    pub fn set(&self, from: u8, to: u8, link: Link) {
        self.shared.with(v4(from), v4(to), |state| state.link = link);
    }

    /// From now on packets between this namespace and a host meet this link, both ways.
    pub fn set_both(&self, host: u8, link: Link) {
        self.set(HERE, host, link);
        self.set(host, HERE, link);
    }

    /// From now on the round trip between this namespace and a host takes so long, and nothing is lost.
    pub fn round_trip(&self, host: u8, round_trip: Duration) {
        self.set_both(host, Link { delay: round_trip / 2, ..Link::default() });
    }

    /// What has gone from one host to another so far.
    pub fn counts(&self, from: u8, to: u8) -> Counts {
        self.shared.with(v4(from), v4(to), |state| state.counts())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.end();
        if let Some(router) = self.router.take() {
            let _ = router.join();
        }
    }
}

/// A namespace at the end of a wire. It exists as long as this value, or a process or socket in it.
pub struct Node {
    host: u8,
    namespace: File,
}

impl Node {
    fn new(host: u8) -> Result<Node> {
        // A process makes the namespace, and is not needed any more once its file is open.
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("its output")?).read_line(&mut line)?;
        let namespace = File::open(format!("/proc/{}/ns/net", holder.id())).context("the namespace's file");
        holder.kill()?;
        holder.wait()?;
        ensure!(line.trim() == "up", "cannot make a network namespace");
        Ok(Node { host, namespace: namespace? })
    }

    /// Where a server of this node is reached over the wire.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(addr(self.host), port)
    }

    /// Does something in this namespace: sockets that it makes and processes that it starts belong to the namespace for good.
    /// It runs on a thread of its own, so it must not block for long.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = self.namespace.as_fd();
        std::thread::scope(|scope| {
            let acting = scope.spawn(move || -> Result<T> {
                move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).context("setns")?;
                Ok(act())
            });
            acting.join().map_err(|_| anyhow!("it panicked in the namespace"))?
        })
    }
}

/// Makes the calling thread's namespace a host on the wire.
fn device(host: u8) -> Result<SyncDevice> {
    let device = DeviceBuilder::new().name(DEVICE).inherit_enable_state().build_sync().context("cannot make a TUN device")?;
    device.set_nonblocking(true)?;
    for arguments in [format!("addr add {}/24 dev {DEVICE}", v4(host)), format!("link set {DEVICE} mtu {MTU} up")] {
        let output = Command::new("ip").args(arguments.split(' ')).output()?;
        ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(device)
}
