//! The connected clients: how many there may be, which of them are silent so far, and what is carried where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{Endpoint, Moment, policy};
use crate::world::Meter;

/// The table of clients.
#[derive(Debug)]
pub(super) struct Clients {
    most: usize,
    table: Mutex<Table>,
    open: watch::Sender<usize>,
    /// The drain is over: who is old enough is reset.
    pub(super) closing: CancellationToken,
    /// Everyone is reset.
    pub(super) at_once: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: usize,
    /// Clients that have neither sent a whole ClientHello nor been answered, the longest-waiting first.
    silent: BTreeMap<u64, CancellationToken>,
    carried: BTreeMap<Endpoint, Carriage>,
    /// Endpoints that trust was withdrawn from, until they are routed again.
    distrusted: BTreeSet<Endpoint>,
}

/// What is and was carried to one upstream.
#[derive(Debug, Default)]
struct Carriage {
    open: BTreeMap<u64, Arc<Meter>>,
    past: Totals,
    /// When a connection that has ended since last received something.
    past_heard: Option<Moment>,
}

/// Bytes each way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) open: u32,
    pub(super) to_upstream: u64,
    pub(super) to_client: u64,
}

/// Whether a newcomer has a place.
#[derive(Debug)]
pub(super) enum Admission {
    /// It has, perhaps that of the client that had been silent for longest.
    Admitted(Place),
    /// Everyone is busy.
    Full,
}

/// A client's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    clients: Arc<Clients>,
    number: u64,
    opened: Instant,
    evicted: CancellationToken,
}

/// Why a client has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Evicted,
    Stopped,
}

impl Clients {
    pub(super) fn new(most: usize) -> Arc<Clients> {
        Arc::new(Clients {
            most,
            table: Mutex::default(),
            open: watch::Sender::new(0),
            closing: CancellationToken::new(),
            at_once: CancellationToken::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a newcomer a place.
    pub(super) fn admit(self: &Arc<Clients>) -> Admission {
        let mut table = self.lock();
        if table.open >= self.most {
            let Some((_, longest)) = table.silent.pop_first() else { return Admission::Full };
            longest.cancel();
        } else {
            table.open += 1;
        }
        let number = table.next;
        table.next += 1;
        let evicted = CancellationToken::new();
        table.silent.insert(number, evicted.clone());
        self.open.send_replace(table.open);
        Admission::Admitted(Place { clients: self.clone(), number, opened: Instant::now(), evicted })
    }

    /// How many are connected.
    pub(super) fn open(&self) -> usize {
        self.lock().open
    }

    /// Completes when nobody is connected.
    pub(super) async fn none(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// What is carried now, by upstream.
    pub(super) fn connections(&self) -> BTreeMap<Endpoint, u32> {
        self.totals()
            .into_iter()
            .filter(|(_, totals)| totals.open > 0)
            .map(|(endpoint, totals)| (endpoint, totals.open))
            .collect()
    }

    /// Bytes carried so far, by upstream.
    pub(super) fn totals(&self) -> BTreeMap<Endpoint, Totals> {
        self.lock().carried.iter().map(|(endpoint, carriage)| (*endpoint, carriage.totals())).collect()
    }

    /// Whether something is carried there now.
    pub(super) fn carries(&self, endpoint: Endpoint) -> bool {
        self.lock().carried.get(&endpoint).is_some_and(|carriage| !carriage.open.is_empty())
    }

    /// The connections to an endpoint.
    pub(super) fn meters(&self, endpoint: Endpoint) -> Vec<Arc<Meter>> {
        self.lock().carried.get(&endpoint).into_iter().flat_map(|carriage| carriage.open.values()).cloned().collect()
    }

    /// Whether something was received from an endpoint since then, over a connection that is open or has ended.
    pub(super) fn heard_since(&self, endpoint: Endpoint, since: Moment) -> bool {
        self.lock().carried.get(&endpoint).is_some_and(|carriage| carriage.heard().is_some_and(|heard| heard > since))
    }

    /// Shows all connections of each endpoint that has some.
    pub(super) fn visit(&self, mut see: impl FnMut(Endpoint, &mut dyn Iterator<Item = &Arc<Meter>>)) {
        let table = self.lock();
        for (endpoint, carriage) in table.carried.iter().filter(|(_, carriage)| !carriage.open.is_empty()) {
            see(*endpoint, &mut carriage.open.values());
        }
    }

    /// Completes when a client is connected.
    pub(super) async fn some(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open > 0).await;
    }

    /// Trust in an endpoint is withdrawn. Of very many such endpoints those that nothing is carried to are forgotten.
    pub(super) fn distrust(&self, endpoint: Endpoint) {
        let Table { distrusted, carried, .. } = &mut *self.lock();
        if distrusted.len() > policy::ENDPOINTS {
            distrusted.retain(|known| carried.get(known).is_some_and(|carriage| !carriage.open.is_empty()));
        }
        distrusted.insert(endpoint);
    }

    /// Whether trust in an endpoint was withdrawn. It is trusted again once it is routed.
    pub(super) fn distrusts(&self, endpoint: Endpoint, routed: bool) -> bool {
        let mut table = self.lock();
        if routed {
            table.distrusted.remove(&endpoint);
        }
        table.distrusted.contains(&endpoint)
    }

    /// Drops the totals of endpoints that nothing is carried to.
    pub(super) fn forget_idle(&self) {
        self.lock().carried.retain(|_, carriage| !carriage.open.is_empty());
    }
}

impl Carriage {
    fn heard(&self) -> Option<Moment> {
        self.open.values().map(|meter| meter.last_from_upstream()).max().max(self.past_heard)
    }

    fn totals(&self) -> Totals {
        self.open.values().fold(self.past, |sum, meter| Totals {
            open: sum.open + 1,
            to_upstream: sum.to_upstream + meter.to_upstream(),
            to_client: sum.to_client + meter.to_client(),
        })
    }
}

impl Place {
    /// When the client was accepted.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// The client has sent a whole ClientHello, or was answered: it is evicted no more.
    pub(super) fn asked(&self) {
        self.clients.lock().silent.remove(&self.number);
    }

    /// Enters what is carried into the table, for as long as the guard lives.
    pub(super) fn carry(&self, endpoint: Endpoint, meter: Arc<Meter>) -> Carrying<'_> {
        self.clients.lock().carried.entry(endpoint).or_default().open.insert(self.number, meter);
        Carrying { place: self, endpoint }
    }

    /// Completes when the client has to go.
    pub(super) async fn leave(&self) -> Leave {
        let clients = &self.clients;
        tokio::select! {
            () = self.evicted.cancelled() => return Leave::Evicted,
            () = clients.closing.cancelled() => {}
        }
        tokio::select! {
            () = tokio::time::sleep_until(self.opened + policy::DRAIN_YOUNG) => {}
            () = clients.at_once.cancelled() => {}
        }
        Leave::Stopped
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.clients.lock();
        table.silent.remove(&self.number);
        // The place of an evicted client is its successor's.
        if !self.evicted.is_cancelled() {
            table.open = table.open.saturating_sub(1);
            self.clients.open.send_replace(table.open);
        }
    }
}

/// A connection that is being carried.
#[derive(Debug)]
pub(super) struct Carrying<'p> {
    place: &'p Place,
    endpoint: Endpoint,
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        let mut table = self.place.clients.lock();
        let Some(carriage) = table.carried.get_mut(&self.endpoint) else { return };
        if let Some(meter) = carriage.open.remove(&self.place.number) {
            carriage.past.to_upstream += meter.to_upstream();
            carriage.past.to_client += meter.to_client();
            carriage.past_heard = carriage.past_heard.max(Some(meter.last_from_upstream()));
        }
    }
}
