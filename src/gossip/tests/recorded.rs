//! Recorded datagrams of the core, sent again from another address.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::envelope::{Envelopes, Kind};
use super::super::item::{Item, Removal};
use super::super::keys::Keyring;
use super::super::stats::DropReason;
use super::super::testing::{CLUSTER, Lan, LanSocket, Machine, at};
use super::super::unpoisoned;
use crate::engine::event::Role;
use crate::world::DatagramSocket;

const SECOND: Duration = Duration::from_secs(1);

/// The next datagram of chitchat that arrives here within a second.
async fn next_of_the_core(here: &LanSocket, ring: &Keyring) -> Option<Vec<u8>> {
    let envelopes = Envelopes::new(ring, CLUSTER);
    let mut buffer = vec![0; 2_000];
    let arrives = async {
        loop {
            let (len, _) = here.receive(&mut buffer).await.unwrap();
            if envelopes.open(&buffer[..len]).is_ok_and(|opened| opened.kind == Kind::Core) {
                return buffer[..len].to_vec();
            }
        }
    };
    timeout(SECOND, arrives).await.ok()
}

#[tokio::test(start_paused = true)]
async fn a_recorded_question_is_answered_at_the_signed_address_alone() {
    let (lan, ring) = (Lan::default(), Keyring::random());
    let elsewhere = lan.bind(at(66));
    // The test listens at its seed's address.
    let mut asker = Machine::new(&lan, 2, Role::ControlPlane).start(&ring, &[at(66)]);
    let recorded = next_of_the_core(&elsewhere, &ring).await.unwrap();
    let mut asked = Machine::new(&lan, 1, Role::ControlPlane).start(&ring, &[]);
    let third = Machine::new(&lan, 3, Role::ControlPlane).start(&ring, &[at(1), at(2)]);
    for node in [&mut asker, &mut asked] {
        node.until(5 * SECOND, "both are live", |node| node.sees("node-1") && node.sees("node-2")).await;
    }
    while next_of_the_core(&elsewhere, &ring).await.is_some() {
        lan.cut(&[at(2).ip()], &[at(66).ip()]);
    }
    for _ in 0..10 {
        lan.inject(at(66), at(1), &recorded);
    }
    assert_eq!(next_of_the_core(&elsewhere, &ring).await, None, "the answer goes to the asker");
    let limited = asked.gossip.stats().dropped(DropReason::Limited);
    assert!(limited >= 9, "ten in one instant are answered once: {limited}");
    drop(third);
    let removal = Item::Removal(Removal { name: "node-2".to_owned(), generation: u64::MAX / 2 }).sign(&ring, CLUSTER).unwrap();
    unpoisoned(&asked.gossip.shared.exchange).offer(Instant::now(), &removal.bytes);
    let before = asked.gossip.stats().dropped(DropReason::UnknownAddress);
    lan.inject(at(66), at(1), &recorded);
    asked.idle(SECOND).await;
    assert!(asked.gossip.stats().dropped(DropReason::UnknownAddress) > before, "a member that was removed is not answered");
}
