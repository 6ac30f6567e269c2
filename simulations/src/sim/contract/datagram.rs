//! Datagrams.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use prismesh::world::DatagramSocket;
use tokio::time::{sleep, timeout};

use super::ground::{Ground, Side};

/// Long enough for a datagram to arrive, on whatever machine.
const SOON: Duration = Duration::from_millis(100);

async fn bound(side: &Side) -> (Box<dyn DatagramSocket>, SocketAddr) {
    let socket = side.datagram.bind(side.at(0)).await.expect("binds");
    let addr = socket.local_addr().expect("bound");
    (socket, addr)
}

async fn received(socket: &dyn DatagramSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.receive(&mut buffer).await.expect("received");
    (buffer[..length].to_vec(), from)
}

super::holds_everywhere! {
    port_0_takes_a_free_port_each_time
    a_taken_port_is_said_to_be_taken_until_its_socket_is_dropped
    what_is_sent_is_received_with_its_sender
    a_wildcard_socket_receives_what_is_for_its_machine
    a_longer_datagram_than_the_buffer_is_cut_off
    an_empty_datagram_is_a_datagram
    senders_are_told_apart_and_none_is_lost
    what_nobody_receives_is_lost_and_ends_nothing
    a_new_socket_gets_nothing_that_was_for_the_old_one
    what_fits_no_datagram_is_refused
    a_receive_that_is_given_up_takes_nothing_with_it
    the_source_towards_an_address_is_ones_own
}

async fn port_0_takes_a_free_port_each_time(ground: Ground) {
    let sockets = [bound(&ground.here).await, bound(&ground.here).await, bound(&ground.here).await];
    let ports: BTreeSet<u16> = sockets.iter().map(|(_, addr)| addr.port()).collect();
    assert_eq!(ports.len(), 3);
    assert!(!ports.contains(&0));
}

async fn a_taken_port_is_said_to_be_taken_until_its_socket_is_dropped(ground: Ground) {
    let (socket, addr) = bound(&ground.here).await;
    let error = ground.here.datagram.bind(addr).await.map(drop).expect_err("it is taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(socket);
    ground.here.datagram.bind(addr).await.expect("it is free again");
}

async fn what_is_sent_is_received_with_its_sender(ground: Ground) {
    let ((here, at_here), (there, at_there)) = (bound(&ground.here).await, bound(&ground.there).await);
    here.send(at_there, b"there").await.expect("sent");
    assert_eq!(received(&*there).await, (b"there".to_vec(), at_here));
    there.send(at_here, b"and back").await.expect("sent");
    assert_eq!(received(&*here).await, (b"and back".to_vec(), at_there));
}

async fn a_wildcard_socket_receives_what_is_for_its_machine(ground: Ground) {
    let wild = ground.there.datagram.bind((Ipv4Addr::UNSPECIFIED, 0).into()).await.expect("binds");
    let port = wild.local_addr().expect("bound").port();
    let (here, at_here) = bound(&ground.here).await;
    here.send(ground.there.at(port), b"you").await.expect("sent");
    assert_eq!(received(&*wild).await, (b"you".to_vec(), at_here));
    wild.send(at_here, b"me").await.expect("sent");
    assert_eq!(received(&*here).await, (b"me".to_vec(), ground.there.at(port)));
}

async fn a_longer_datagram_than_the_buffer_is_cut_off(ground: Ground) {
    let ((here, at_here), (there, at_there)) = (bound(&ground.here).await, bound(&ground.there).await);
    here.send(at_there, b"longer than that").await.expect("sent");
    here.send(at_there, b"next").await.expect("sent");
    let mut buffer = [0; 6];
    assert_eq!(there.receive(&mut buffer).await.expect("received"), (6, at_here));
    assert_eq!(&buffer, b"longer");
    assert_eq!(received(&*there).await.0, b"next", "what was cut off is gone");
}

async fn an_empty_datagram_is_a_datagram(ground: Ground) {
    let ((here, at_here), (there, at_there)) = (bound(&ground.here).await, bound(&ground.there).await);
    here.send(at_there, b"").await.expect("sent");
    assert_eq!(received(&*there).await, (Vec::new(), at_here));
}

async fn senders_are_told_apart_and_none_is_lost(ground: Ground) {
    let (there, at_there) = bound(&ground.there).await;
    let mut sent = BTreeSet::new();
    let mut senders = Vec::new();
    for number in 0..20_u8 {
        let (socket, addr) = bound(&ground.here).await;
        socket.send(at_there, &[number]).await.expect("sent");
        sent.insert((vec![number], addr));
        senders.push(socket);
    }
    let mut got = BTreeSet::new();
    while got.len() < sent.len() {
        got.insert(timeout(SOON, received(&*there)).await.expect("none is lost"));
    }
    assert_eq!(got, sent);
}

async fn what_nobody_receives_is_lost_and_ends_nothing(ground: Ground) {
    let ((here, at_here), (there, at_there)) = (bound(&ground.here).await, bound(&ground.there).await);
    let (gone, nowhere) = bound(&ground.there).await;
    drop(gone);
    for _ in 0..3 {
        here.send(nowhere, b"anyone?").await.expect("nobody says that nobody is there");
        sleep(SOON).await;
        there.send(at_here, b"me").await.expect("sent");
        assert_eq!(received(&*here).await, (b"me".to_vec(), at_there));
    }
}

async fn a_new_socket_gets_nothing_that_was_for_the_old_one(ground: Ground) {
    let ((here, _), (there, at_there)) = (bound(&ground.here).await, bound(&ground.there).await);
    here.send(at_there, b"old").await.expect("sent");
    sleep(SOON).await;
    drop(there);
    let there = ground.there.datagram.bind(at_there).await.expect("binds");
    here.send(at_there, b"new").await.expect("sent");
    assert_eq!(received(&*there).await.0, b"new");
}

async fn what_fits_no_datagram_is_refused(ground: Ground) {
    let ((here, _), (there, at_there)) = (bound(&ground.here).await, bound(&ground.there).await);
    here.send(at_there, &vec![0; 65_508]).await.expect_err("IPv4 and UDP have headers of 28 bytes");
    here.send(at_there, b"short").await.expect("sent");
    assert_eq!(received(&*there).await.0, b"short");
}

async fn a_receive_that_is_given_up_takes_nothing_with_it(ground: Ground) {
    let ((here, _), (there, at_there)) = (bound(&ground.here).await, bound(&ground.there).await);
    for number in 0..20_u8 {
        assert!(timeout(Duration::from_millis(1), received(&*there)).await.is_err(), "nothing was sent");
        here.send(at_there, &[number]).await.expect("sent");
        // Given up before or after the datagram is there.
        let early = timeout(Duration::from_millis(u64::from(number % 3)), received(&*there)).await;
        let got = match early {
            Ok(got) => got,
            Err(_) => received(&*there).await,
        };
        assert_eq!(got.0, [number]);
    }
}

async fn the_source_towards_an_address_is_ones_own(ground: Ground) {
    let source = |to: IpAddr| ground.here.datagram.source_towards(SocketAddr::new(to, 7447));
    assert_eq!(source(ground.there.ip).expect("a way"), ground.here.ip);
    assert_eq!(source(Ipv4Addr::LOCALHOST.into()).expect("a way"), IpAddr::from(Ipv4Addr::LOCALHOST));
}
