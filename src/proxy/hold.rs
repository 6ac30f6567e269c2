//! Clients that wait because nothing answers.
//!
//! A waiting client does nothing but wait: it does not dial, since a thousand clients that try again by themselves are what
//! keeps an apiserver from coming back. [`Hold::release`] releases them in the order of their coming, a few at a time.
//!
//! Releases are numbered. A client whose race began before the last release, and failed, has not tried what that release was
//! about, so it does not wait for another one: it joins the clients that are being released. It releases itself only; the
//! clients that wait already had their turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::engine::policy::{HELD_CLIENTS, RELEASE_BATCH, RELEASE_PAUSE};

/// The waiting room.
#[derive(Debug)]
pub(super) struct Hold {
    room: Mutex<Room>,
    count: watch::Sender<u32>,
}

#[derive(Debug, Default)]
struct Room {
    /// Clients that have a seat, those that were released and race again included.
    seats: usize,
    next: u64,
    /// Clients that wait for a release, by the number of their coming.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    /// Clients that are released and go with one of the next batches.
    going: BTreeMap<u64, oneshot::Sender<()>>,
    releases: u64,
    /// A task lets batches go, or pauses after one.
    releasing: bool,
}

/// A client's seat, from when it was first held until it is served or gone.
#[derive(Debug)]
pub(super) struct Seat(Arc<Hold>);

impl Hold {
    pub(super) fn new() -> Arc<Hold> {
        Arc::new(Hold { room: Mutex::default(), count: watch::Sender::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are held.
    pub(super) fn count(&self) -> watch::Receiver<u32> {
        self.count.subscribe()
    }

    /// How many releases there have been.
    pub(super) fn releases(&self) -> u64 {
        self.lock().releases
    }

    /// A seat, if one is free.
    pub(super) fn seat(self: &Arc<Hold>) -> Option<Seat> {
        let mut room = self.lock();
        (room.seats < HELD_CLIENTS).then(|| {
            room.seats += 1;
            Seat(self.clone())
        })
    }

    /// Something answers: the clients that wait now may go.
    pub(super) fn release(self: &Arc<Hold>) {
        let mut room = self.lock();
        room.releases += 1;
        let mut released = std::mem::take(&mut room.waiting);
        room.going.append(&mut released);
        self.let_go(&mut room);
    }

    /// Sees to it that the released clients go.
    fn let_go(self: &Arc<Hold>, room: &mut Room) {
        if !room.releasing && !room.going.is_empty() {
            room.releasing = true;
            tokio::spawn(self.clone().let_go_in_batches());
        }
    }

    async fn let_go_in_batches(self: Arc<Hold>) {
        while self.let_go_a_batch() {
            // Also after the last batch: a client that joins next does not go sooner than it would have with another batch.
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
    }

    /// False if there were none.
    fn let_go_a_batch(&self) -> bool {
        let mut room = self.lock();
        room.releasing = !room.going.is_empty();
        for _ in 0..RELEASE_BATCH {
            let Some((_, client)) = room.going.pop_first() else { break };
            // A client that is gone does not listen; its place is gone with it.
            let _ = client.send(());
        }
        self.tell(&room);
        room.releasing
    }

    fn tell(&self, room: &Room) {
        let held = u32::try_from(room.waiting.len() + room.going.len()).unwrap_or(u32::MAX);
        self.count.send_if_modified(|count| std::mem::replace(count, held) != held);
    }
}

impl Seat {
    /// Waits until a release. `releases` is how many there had been when the race that found nothing began.
    pub(super) async fn released(&self, releases: u64) {
        let hold = &self.0;
        let (release, released) = oneshot::channel();
        let waiting = {
            let mut room = hold.lock();
            let number = room.next;
            room.next += 1;
            if room.releases == releases {
                room.waiting.insert(number, release);
            } else {
                room.going.insert(number, release);
                hold.let_go(&mut room);
            }
            hold.tell(&room);
            Waiting { hold, number }
        };
        let _ = released.await;
        drop(waiting);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut room = self.0.lock();
        room.seats = room.seats.saturating_sub(1);
    }
}

/// Takes a client out of the room that went away while it waited.
struct Waiting<'h> {
    hold: &'h Hold,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut room = self.hold.lock();
        if room.waiting.remove(&self.number).or_else(|| room.going.remove(&self.number)).is_some() {
            self.hold.tell(&room);
        }
    }
}
