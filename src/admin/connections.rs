//! The admin port's connections: how many there may be, and which one goes when there are too many.
//!
//! A connection *waits for its client* until a request's head is there, and again once the answer is made: while the client reads
//! it, and while the connection is kept. In between the agent works on it, which takes a bounded time. A newcomer takes the
//! place of the connection that has waited for its client for longest. So clients that connect and do nothing keep nobody out,
//! and accepting never waits for a place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The table of connections.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: usize,
    /// Connections that wait for their clients, the longest-waiting first.
    waiting: BTreeMap<u64, CancellationToken>,
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    /// Its key while it waits for its client.
    turn: Mutex<Option<u64>>,
    evicted: CancellationToken,
}

/// Whether a newcomer has a place.
#[derive(Debug)]
pub(super) enum Admission {
    /// There was room.
    Free(Place),
    /// It takes the place of a connection that waited for its client.
    Evicting(Place),
    /// The agent works on every one of them.
    Full,
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Connections> {
        Arc::new(Connections { max, table: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admit(self: &Arc<Connections>) -> Admission {
        let mut table = self.lock();
        let room = table.open < self.max;
        if room {
            table.open += 1;
        } else {
            let Some((_, longest)) = table.waiting.pop_first() else { return Admission::Full };
            longest.cancel();
        }
        drop(table);
        let place = Place { connections: self.clone(), turn: Mutex::new(None), evicted: CancellationToken::new() };
        place.waits();
        if room { Admission::Free(place) } else { Admission::Evicting(place) }
    }
}

impl Place {
    /// From now on the connection waits for its client.
    pub(super) fn waits(&self) {
        let mut table = self.connections.lock();
        if self.evicted.is_cancelled() {
            return;
        }
        let number = table.next;
        table.next += 1;
        table.waiting.insert(number, self.evicted.clone());
        if let Some(before) = self.turn().replace(number) {
            table.waiting.remove(&before);
        }
    }

    /// From now on the agent works for it.
    pub(super) fn works(&self) {
        let mut table = self.connections.lock();
        if let Some(number) = self.turn().take() {
            table.waiting.remove(&number);
        }
    }

    /// Completes when a newcomer takes this place.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    fn turn(&self) -> MutexGuard<'_, Option<u64>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.works();
        // The place of an evicted connection is its successor's.
        if !self.evicted.is_cancelled() {
            let mut table = self.connections.lock();
            table.open = table.open.saturating_sub(1);
        }
    }
}
