//! The admin port's connections: how many there may be, and which one goes when there are too many.
//!
//! A newcomer takes the place of the oldest connection, unless that is a liveness check which is being answered. So neither clients
//! that do nothing nor clients that ask without end keep anybody out, accepting never waits for a place, and a newcomer has time to say
//! what it wants.

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
    /// Connections that may have to go, the oldest first.
    evictable: BTreeMap<u64, CancellationToken>,
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    /// The number of its coming.
    number: u64,
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
            let Some((_, oldest)) = table.evictable.pop_first() else { return Admission::Full };
            oldest.cancel();
        }
        table.next += 1;
        let place = Place { connections: self.clone(), number: table.next, evicted: CancellationToken::new() };
        drop(table);
        place.may_go();
        if room { Admission::Free(place) } else { Admission::Evicting(place) }
    }
}

impl Place {
    /// From now on a newcomer may take its place.
    pub(super) fn may_go(&self) {
        let mut table = self.connections.lock();
        // Who is evicted is so under this lock.
        if !self.evicted.is_cancelled() {
            table.evictable.insert(self.number, self.evicted.clone());
        }
    }

    /// From now on it stays.
    pub(super) fn stays(&self) {
        self.connections.lock().evictable.remove(&self.number);
    }

    /// Completes when a newcomer takes this place.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
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
