//! The thread that moves packets between the nodes' devices.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::Instant;
use tun_rs::SyncDevice;

use super::link::State;

/// Without packets the router looks this often whether it should end.
const IDLE: Duration = Duration::from_millis(50);
/// Packets that are read from one device before others have their turn.
const BATCH: usize = 64;

/// What the router and those who set its links share.
#[derive(Default)]
pub(super) struct Shared {
    links: Mutex<HashMap<(Ipv4Addr, Ipv4Addr), State>>,
    ended: AtomicBool,
}

impl Shared {
    pub(super) fn with<T>(&self, from: Ipv4Addr, to: Ipv4Addr, act: impl FnOnce(&mut State) -> T) -> T {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        act(links.entry((from, to)).or_default())
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// A packet under way: when it arrives, its number among all, the device it leaves by, and its bytes.
type Flight = Reverse<(Instant, u64, usize, Box<[u8]>)>;

pub(super) struct Router {
    devices: Vec<(Ipv4Addr, SyncDevice)>,
    shared: Arc<Shared>,
    flights: BinaryHeap<Flight>,
    packets: u64,
}

impl Router {
    pub(super) fn new(devices: Vec<(Ipv4Addr, SyncDevice)>, shared: Arc<Shared>) -> Router {
        Router { devices, shared, flights: BinaryHeap::new(), packets: 0 }
    }

    pub(super) fn run(mut self) {
        while !self.shared.ended.load(Ordering::Relaxed) {
            let readable = self.wait();
            for place in readable {
                self.read(place);
            }
            self.deliver();
        }
    }

    /// Waits until a packet is due or can be read, and tells the devices that have some.
    fn wait(&self) -> Vec<usize> {
        let now = Instant::now();
        let due = self.flights.peek().map_or(IDLE, |Reverse((due, ..))| due.saturating_duration_since(now));
        let timeout = Timespec { tv_sec: 0, tv_nsec: due.min(IDLE).subsec_nanos().into() };
        let mut polled: Vec<PollFd<'_>> =
            self.devices.iter().map(|(_, device)| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN)).collect();
        if poll(&mut polled, Some(&timeout)).is_err() {
            return Vec::new();
        }
        let readable = polled.iter().enumerate().filter(|(_, polled)| polled.revents().contains(PollFlags::IN));
        readable.map(|(place, _)| place).collect()
    }

    fn read(&mut self, place: usize) {
        let mut buffer = [0; 65_536];
        for _ in 0..BATCH {
            let Some((_, device)) = self.devices.get(place) else { return };
            let Ok(length) = device.recv(&mut buffer) else { return };
            self.admit(&buffer[..length]);
        }
    }

    /// Sends an IPv4 packet on its way. What is anything else, or for nobody here, is dropped.
    fn admit(&mut self, packet: &[u8]) {
        let Some((from, to)) = addresses(packet) else { return };
        let Some(place) = self.devices.iter().position(|(addr, _)| *addr == to) else { return };
        let now = Instant::now();
        if let Some(due) = self.shared.with(from, to, |state| state.admit(packet, now)) {
            self.packets += 1;
            self.flights.push(Reverse((due, self.packets, place, packet.into())));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.flights.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, _, place, packet))) = self.flights.pop() else { return };
            if let Some((_, device)) = self.devices.get(place) {
                // A full device drops it, as a full queue does.
                let _ = device.send(&packet);
            }
        }
    }
}

fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let version = packet.first()? >> 4;
    let field = |range: std::ops::Range<usize>| <[u8; 4]>::try_from(packet.get(range)?).ok().map(Ipv4Addr::from);
    (version == 4).then_some(())?;
    Some((field(12..16)?, field(16..20)?))
}
