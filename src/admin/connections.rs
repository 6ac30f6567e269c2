//! The admin port's connections: how many there may be, and which one goes when there are too many.
//!
//! A connection *waits for its client* until a request's head is there, and again once the answer is made: while the client reads
//! it, and while the connection is kept. In between the agent works on it, which takes a bounded time. A newcomer takes the
//! place of the connection that has waited for its client for longest; where none waits, of the one that is worked on for longest,
//! unless that is a liveness check. So neither clients that do nothing nor clients that ask without end keep anybody out, and accepting
//! never waits for a place.

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
    /// Connections that are worked on and may be left for a newcomer, the longest first.
    working: BTreeMap<u64, CancellationToken>,
}

impl Table {
    /// The connection that goes for a newcomer.
    fn evict(&mut self) -> Option<CancellationToken> {
        let (_, longest) = self.waiting.pop_first().or_else(|| self.working.pop_first())?;
        Some(longest)
    }

    fn remove(&mut self, number: u64) {
        self.waiting.remove(&number);
        self.working.remove(&number);
    }
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    /// Its key while it may have to go.
    turn: Mutex<Option<u64>>,
    evicted: CancellationToken,
}

/// Whether a newcomer has a place.
#[derive(Debug)]
pub(super) enum Admission {
    /// There was room.
    Free(Place),
    /// It takes the place of another connection.
    Evicting(Place),
    /// Every one of them is a liveness check that is being answered.
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
            let Some(longest) = table.evict() else { return Admission::Full };
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
        self.moves(|table| Some(&mut table.waiting));
    }

    /// From now on the agent works for it, and may leave it for a newcomer.
    pub(super) fn works(&self) {
        self.moves(|table| Some(&mut table.working));
    }

    /// From now on the agent works for it to the end.
    pub(super) fn stays(&self) {
        self.moves(|_| None);
    }

    fn moves(&self, to: impl FnOnce(&mut Table) -> Option<&mut BTreeMap<u64, CancellationToken>>) {
        let mut table = self.connections.lock();
        if self.evicted.is_cancelled() {
            return;
        }
        let mut turn = self.turn();
        if let Some(before) = turn.take() {
            table.remove(before);
        }
        let number = table.next;
        table.next += 1;
        if let Some(those) = to(&mut table) {
            those.insert(number, self.evicted.clone());
            *turn = Some(number);
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
        self.stays();
        // The place of an evicted connection is its successor's.
        if !self.evicted.is_cancelled() {
            let mut table = self.connections.lock();
            table.open = table.open.saturating_sub(1);
        }
    }
}
