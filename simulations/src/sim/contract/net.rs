//! Connections: how they begin and end, and what passes.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prismesh::world::{Carried, Clock, Listener, Meter, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::ground::{Ground, Side};

/// Long enough for whatever is on its way to arrive.
const SOON: Duration = Duration::from_millis(100);
/// More than any kernel's buffers take.
const MORE_THAN_FITS: usize = 24 << 20;

async fn listening(side: &Side) -> (Box<dyn Listener>, SocketAddr) {
    let listener = side.net.listen(side.at(0)).await.expect("listens");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

/// A connection: the end that dialled, the end that accepted.
async fn connected(ground: &Ground) -> (Box<dyn Stream>, Box<dyn Stream>) {
    let (listener, addr) = listening(&ground.there).await;
    let dialled = ground.here.net.connect(addr).await.expect("connects");
    let (accepted, _) = listener.accept().await.expect("accepts");
    (dialled, accepted)
}

async fn says(stream: &mut Box<dyn Stream>, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("written");
}

async fn hears(stream: &mut Box<dyn Stream>, text: &str) {
    let mut got = vec![0; text.len()];
    stream.read_exact(&mut got).await.expect("read");
    assert_eq!(String::from_utf8_lossy(&got), text);
}

async fn ended(stream: &mut Box<dyn Stream>) -> bool {
    stream.read(&mut [0; 16]).await.expect("an orderly end") == 0
}

async fn reset(stream: &mut Box<dyn Stream>) -> bool {
    let error = stream.read(&mut [0; 16]).await.expect_err("no orderly end");
    error.kind() == io::ErrorKind::ConnectionReset
}

/// Bytes in which nothing lost or doubled goes unnoticed.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|place| u8::try_from((place ^ (place >> 8) ^ (place >> 16)) & 0xff).unwrap_or_default()).collect()
}

super::holds_everywhere! {
    port_0_takes_a_free_port_each_time
    a_taken_port_is_said_to_be_taken_until_its_listener_is_dropped
    what_one_end_writes_the_other_reads
    each_connection_comes_from_an_address_of_its_own
    nobody_there_is_a_refusal
    who_listens_at_one_address_is_not_at_another
    an_address_of_another_machine_cannot_be_listened_on
    an_end_of_stream_leaves_the_other_way_open
    the_accepting_end_may_end_its_way_first
    dropping_an_end_ends_both_ways_in_order
    dropping_an_end_that_has_not_read_all_is_a_reset
    a_reset_that_was_asked_for_is_one
    what_came_before_a_reset_can_still_be_read
    a_reset_is_told_once_and_then_all_is_over
    writing_to_who_is_gone_fails_in_the_end
    a_writer_waits_while_nobody_reads_and_nothing_is_lost
    an_accept_that_is_given_up_loses_no_connection
    connections_are_accepted_in_turn_with_what_was_sent_meanwhile
    who_resets_before_being_accepted_is_accepted_all_the_same
    a_dropped_listener_resets_whom_it_had_not_accepted
    a_dropped_listener_leaves_accepted_connections_alone
    carrying_passes_bytes_and_ends_on_and_counts_them
    carrying_passes_an_upstreams_reset_on
    carrying_passes_a_clients_reset_on
    carrying_ends_with_resets_when_it_is_told_to
    carrying_loses_nothing_when_nobody_reads_for_a_while
}

async fn port_0_takes_a_free_port_each_time(ground: Ground) {
    let listeners = [listening(&ground.here).await, listening(&ground.here).await, listening(&ground.here).await];
    let ports: BTreeSet<u16> = listeners.iter().map(|(_, addr)| addr.port()).collect();
    assert_eq!(ports.len(), 3);
    assert!(!ports.contains(&0));
}

async fn a_taken_port_is_said_to_be_taken_until_its_listener_is_dropped(ground: Ground) {
    let (listener, addr) = listening(&ground.here).await;
    let error = ground.here.net.listen(addr).await.map(drop).expect_err("it is taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(listener);
    ground.here.net.listen(addr).await.expect("it is free again");
}

async fn what_one_end_writes_the_other_reads(ground: Ground) {
    let (mut dialled, mut accepted) = connected(&ground).await;
    says(&mut dialled, "there").await;
    hears(&mut accepted, "there").await;
    says(&mut accepted, "and back").await;
    hears(&mut dialled, "and back").await;
}

async fn each_connection_comes_from_an_address_of_its_own(ground: Ground) {
    let (listener, addr) = listening(&ground.there).await;
    let mut from = BTreeSet::new();
    let mut kept = Vec::new();
    for _ in 0..5 {
        let dialled = ground.here.net.connect(addr).await.expect("connects");
        let (accepted, source) = listener.accept().await.expect("accepts");
        assert_eq!(source.ip(), ground.here.ip);
        assert_ne!(source.port(), 0);
        from.insert(source);
        kept.push((dialled, accepted));
    }
    assert_eq!(from.len(), 5);
}

async fn nobody_there_is_a_refusal(ground: Ground) {
    let (listener, addr) = listening(&ground.there).await;
    drop(listener);
    let error = ground.here.net.connect(addr).await.map(drop).expect_err("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

async fn who_listens_at_one_address_is_not_at_another(ground: Ground) {
    let listener = ground.there.net.listen(SocketAddr::new(ground.there.other_ip, 0)).await.expect("listens");
    let port = listener.local_addr().expect("bound").port();
    let error = ground.here.net.connect(ground.there.at(port)).await.map(drop).expect_err("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

async fn an_address_of_another_machine_cannot_be_listened_on(ground: Ground) {
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = ground.here.net.listen(foreign).await.map(drop).expect_err("not ours");
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    let error = ground.here.datagram.bind(foreign).await.map(drop).expect_err("not ours");
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
}

async fn an_end_of_stream_leaves_the_other_way_open(ground: Ground) {
    let (mut dialled, mut accepted) = connected(&ground).await;
    says(&mut dialled, "last words").await;
    dialled.shutdown().await.expect("ended");
    hears(&mut accepted, "last words").await;
    assert!(ended(&mut accepted).await);
    assert!(ended(&mut accepted).await, "and it stays so");
    says(&mut accepted, "answer").await;
    hears(&mut dialled, "answer").await;
    let error = dialled.write_all(b"more").await.expect_err("it has said that it would write no more");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    accepted.shutdown().await.expect("ended");
    assert!(ended(&mut dialled).await);
}

async fn the_accepting_end_may_end_its_way_first(ground: Ground) {
    let (mut dialled, mut accepted) = connected(&ground).await;
    accepted.shutdown().await.expect("ended");
    assert!(ended(&mut dialled).await);
    says(&mut dialled, "still here").await;
    hears(&mut accepted, "still here").await;
    drop(dialled);
    assert!(ended(&mut accepted).await);
}

async fn dropping_an_end_ends_both_ways_in_order(ground: Ground) {
    let (mut dialled, mut accepted) = connected(&ground).await;
    says(&mut dialled, "bye").await;
    drop(dialled);
    hears(&mut accepted, "bye").await;
    assert!(ended(&mut accepted).await);
}

async fn dropping_an_end_that_has_not_read_all_is_a_reset(ground: Ground) {
    let (mut dialled, accepted) = connected(&ground).await;
    says(&mut dialled, "unread").await;
    sleep(SOON).await;
    drop(accepted);
    assert!(reset(&mut dialled).await);
}

async fn a_reset_that_was_asked_for_is_one(ground: Ground) {
    let (mut dialled, mut accepted) = connected(&ground).await;
    dialled.reset_on_drop();
    drop(dialled);
    assert!(reset(&mut accepted).await);
    let (dialled, mut accepted) = connected(&ground).await;
    accepted.reset_on_drop();
    drop(accepted);
    let mut dialled = dialled;
    assert!(reset(&mut dialled).await);
}

async fn what_came_before_a_reset_can_still_be_read(ground: Ground) {
    let (mut dialled, mut accepted) = connected(&ground).await;
    says(&mut dialled, "first").await;
    sleep(SOON).await;
    dialled.reset_on_drop();
    drop(dialled);
    sleep(SOON).await;
    hears(&mut accepted, "first").await;
    assert!(reset(&mut accepted).await);
}

async fn a_reset_is_told_once_and_then_all_is_over(ground: Ground) {
    let (mut dialled, mut accepted) = connected(&ground).await;
    dialled.reset_on_drop();
    drop(dialled);
    assert!(reset(&mut accepted).await);
    assert!(ended(&mut accepted).await);
    let error = accepted.write_all(b"anyone?").await.expect_err("it is over");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

async fn writing_to_who_is_gone_fails_in_the_end(ground: Ground) {
    let (mut dialled, accepted) = connected(&ground).await;
    drop(accepted);
    sleep(SOON).await;
    says(&mut dialled, "nobody has said yet that nobody listens").await;
    sleep(SOON).await;
    let error = dialled.write_all(b"more").await.expect_err("now it is known");
    assert!(matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{error}");
}

/// Writes more than fits and ends the stream.
fn pours(mut stream: Box<dyn Stream>) -> JoinHandle<Box<dyn Stream>> {
    tokio::spawn(async move {
        stream.write_all(&bytes(MORE_THAN_FITS)).await.expect("written");
        stream.shutdown().await.expect("ended");
        stream
    })
}

async fn takes_all(stream: &mut Box<dyn Stream>) {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.expect("read");
    assert_eq!(got.len(), MORE_THAN_FITS);
    assert!(got == bytes(MORE_THAN_FITS), "every byte, once and in its place");
}

async fn a_writer_waits_while_nobody_reads_and_nothing_is_lost(ground: Ground) {
    let (dialled, mut accepted) = connected(&ground).await;
    let pouring = pours(dialled);
    sleep(SOON * 3).await;
    assert!(!pouring.is_finished(), "it waits");
    takes_all(&mut accepted).await;
    pouring.await.expect("it is done");
}

async fn an_accept_that_is_given_up_loses_no_connection(ground: Ground) {
    let (listener, addr) = listening(&ground.there).await;
    for number in 0..6_u64 {
        let _ = timeout(Duration::from_millis(1), listener.accept()).await.map(|_| panic!("nobody dialled"));
        let (dialled, early) =
            tokio::join!(ground.here.net.connect(addr), timeout(Duration::from_millis(number % 3), listener.accept()));
        let mut accepted = match early {
            Ok(accepted) => accepted.expect("accepts").0,
            Err(_) => listener.accept().await.expect("accepts").0,
        };
        let text = number.to_string();
        says(&mut dialled.expect("connects"), &text).await;
        hears(&mut accepted, &text).await;
    }
}

async fn connections_are_accepted_in_turn_with_what_was_sent_meanwhile(ground: Ground) {
    let (listener, addr) = listening(&ground.there).await;
    let mut dialled = Vec::new();
    for number in 0..5 {
        let mut stream = ground.here.net.connect(addr).await.expect("the kernel accepts");
        says(&mut stream, &format!("number {number}")).await;
        dialled.push(stream);
    }
    sleep(SOON).await;
    for number in 0..5 {
        let (mut accepted, _) = listener.accept().await.expect("accepts");
        hears(&mut accepted, &format!("number {number}")).await;
    }
}

async fn who_resets_before_being_accepted_is_accepted_all_the_same(ground: Ground) {
    let (listener, addr) = listening(&ground.there).await;
    let mut hasty = ground.here.net.connect(addr).await.expect("the kernel accepts");
    hasty.reset_on_drop();
    drop(hasty);
    sleep(SOON).await;
    let (mut accepted, _) = listener.accept().await.expect("accepts");
    assert!(reset(&mut accepted).await);
}

async fn a_dropped_listener_resets_whom_it_had_not_accepted(ground: Ground) {
    let (listener, addr) = listening(&ground.there).await;
    let mut waiting = ground.here.net.connect(addr).await.expect("the kernel accepts");
    says(&mut waiting, "anyone?").await;
    sleep(SOON).await;
    drop(listener);
    assert!(reset(&mut waiting).await);
}

async fn a_dropped_listener_leaves_accepted_connections_alone(ground: Ground) {
    let (mut dialled, mut accepted) = connected(&ground).await;
    says(&mut dialled, "still").await;
    hears(&mut accepted, "still").await;
}

/// A client and an upstream with one connection carried between them.
struct Line {
    client: Box<dyn Stream>,
    upstream: Box<dyn Stream>,
    meter: Arc<Meter>,
    carried: JoinHandle<Carried>,
}

async fn line(ground: &Ground) -> Line {
    let (client, front) = connected(ground).await;
    let (back, upstream) = connected(ground).await;
    let meter = Arc::new(Meter::new(Clock::start()));
    let carried = tokio::spawn(ground.here.net.carry(front, back, meter.clone()));
    Line { client, upstream, meter, carried }
}

async fn carrying_passes_bytes_and_ends_on_and_counts_them(ground: Ground) {
    let mut line = line(&ground).await;
    says(&mut line.client, "question").await;
    line.client.shutdown().await.expect("ended");
    hears(&mut line.upstream, "question").await;
    assert!(ended(&mut line.upstream).await);
    sleep(SOON).await;
    let before = line.meter.last_from_upstream();
    says(&mut line.upstream, "a longer answer").await;
    hears(&mut line.client, "a longer answer").await;
    assert!(line.meter.last_from_upstream() > before);
    drop(line.upstream);
    assert!(ended(&mut line.client).await);
    assert_eq!(line.carried.await.expect("carried"), Carried::Closed);
    assert_eq!((line.meter.to_upstream(), line.meter.to_client()), (8, 15));
}

async fn carrying_passes_an_upstreams_reset_on(ground: Ground) {
    let mut line = line(&ground).await;
    line.upstream.reset_on_drop();
    drop(line.upstream);
    assert!(reset(&mut line.client).await);
    assert_eq!(line.carried.await.expect("carried"), Carried::UpstreamFailed);
}

async fn carrying_passes_a_clients_reset_on(ground: Ground) {
    let mut line = line(&ground).await;
    line.client.reset_on_drop();
    drop(line.client);
    assert!(reset(&mut line.upstream).await);
    assert_eq!(line.carried.await.expect("carried"), Carried::ClientFailed);
}

async fn carrying_ends_with_resets_when_it_is_told_to(ground: Ground) {
    let mut line = line(&ground).await;
    says(&mut line.client, "x").await;
    hears(&mut line.upstream, "x").await;
    line.meter.end(None);
    assert!(reset(&mut line.client).await);
    assert!(reset(&mut line.upstream).await);
    assert_eq!(line.carried.await.expect("carried"), Carried::Ended);
}

async fn carrying_loses_nothing_when_nobody_reads_for_a_while(ground: Ground) {
    let mut line = line(&ground).await;
    let pouring = pours(line.client);
    sleep(SOON * 3).await;
    assert!(!pouring.is_finished(), "it waits");
    takes_all(&mut line.upstream).await;
    drop(line.upstream);
    drop(pouring.await.expect("it is done"));
    assert_eq!(line.carried.await.expect("carried"), Carried::Closed);
    assert_eq!(line.meter.to_upstream(), MORE_THAN_FITS as u64);
}
