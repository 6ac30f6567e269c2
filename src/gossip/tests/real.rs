//! The same over real sockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::super::keys::Keyring;
use super::super::testing::{Lan, Machine, Node};
use super::super::{Gossip, Seeds, Settings};
use crate::engine::event::Role;
use crate::world::real::{Files, RealDatagram, SystemClock};
use crate::world::{Datagram, World};

async fn node(machine: &Machine, dir: &tempfile::TempDir, ring: &Keyring, seeds: Vec<std::net::SocketAddr>) -> Node {
    let socket = RealDatagram.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let settings = Settings {
        socket: socket.into(),
        seeds: watch::channel(Seeds { given: true, addrs: seeds }).1,
        state_dir: dir.path().join(&machine.name),
        ..machine.settings(ring, &[])
    };
    let world =
        World { datagram: Arc::new(RealDatagram), store: Arc::new(Files), wall: Arc::new(SystemClock), ..machine.world() };
    Node::start(&world, settings, machine.say())
}

async fn address(gossip: &Gossip) -> std::net::SocketAddr {
    for _ in 0..200 {
        if let Some(addr) = gossip.advertised() {
            return addr;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no address within a second");
}

#[tokio::test]
async fn three_nodes_on_loopback_hear_one_another() {
    let (lan, ring, dir) = (Lan::default(), Keyring::random(), tempfile::tempdir().unwrap());
    let machines = [1, 2, 3].map(|host| Machine::new(&lan, host, Role::ControlPlane));
    let mut one = node(&machines[0], &dir, &ring, Vec::new()).await;
    let seed = address(&one.gossip).await;
    let mut two = node(&machines[1], &dir, &ring, vec![seed]).await;
    let mut three = node(&machines[2], &dir, &ring, vec![seed]).await;
    let within = Duration::from_secs(15);
    one.until(within, "two and three", |node| node.knows(&[&machines[1], &machines[2]])).await;
    two.until(within, "one and three", |node| node.knows(&[&machines[0], &machines[2]])).await;
    three.until(within, "one and two", |node| node.knows(&[&machines[0], &machines[1]])).await;
}
