//! ClientHellos that come back.
//!
//! Where an endpoint is another agent's listener, and that agent has an endpoint that leads here, a client's connection can come back as
//! another client's, and be forwarded again: once, or until nobody has descriptors left. From outside nothing distinguishes such a
//! connection from a client's. But its hello is the same, byte for byte, while the first one is still unanswered, and no TLS client
//! says the same hello twice: 32 bytes of it are random.
//!
//! So the agent prefers, among endpoints of one health state, those that do not have this very hello from it already. A hello that came
//! back thus goes elsewhere the second time, and passes each agent once for each of its endpoints at most. Where there is no elsewhere,
//! no more than [`AT_ONCE`] races with one hello are run at a time; further ones wait for their turn, or until their client
//! has waited for too long. A hello that is only repeated, as a test tool may do, is served all the same.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::Endpoint;

/// Races with the same hello at a time.
const AT_ONCE: usize = 64;

/// The hellos that races are run for now.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    /// Keyed, so that nobody can make two hellos that are taken for the same.
    hasher: RandomState,
    hellos: Mutex<HashMap<u64, Hello>>,
    told: AtomicBool,
}

#[derive(Debug)]
struct Hello {
    races: usize,
    turns: Arc<Semaphore>,
    /// Which endpoints have it, once for each connection.
    forwarded: Vec<Endpoint>,
}

/// One race's part in it.
#[derive(Debug)]
pub(super) struct Echo {
    echoes: Arc<Echoes>,
    key: u64,
    forwarded: Vec<Endpoint>,
    turns: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Echoes {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Hello>> {
        self.hellos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs once that a hello came back.
    pub(super) fn tell(&self) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a ClientHello came that is being forwarded already: an endpoint leads back to this agent, perhaps through \
                 another agent's listener; prismesh_repeated_hellos_total counts them"
            );
        }
    }

    /// Enters a race for this hello. The second value is whether an endpoint has it already.
    pub(super) fn enter(self: &Arc<Echoes>, hello: &[u8]) -> (Echo, bool) {
        let key = self.hasher.hash_one(hello);
        let mut hellos = self.lock();
        let turns = || Arc::new(Semaphore::new(AT_ONCE));
        let entry = hellos.entry(key).or_insert_with(|| Hello { races: 0, turns: turns(), forwarded: Vec::new() });
        entry.races += 1;
        let came_back = !entry.forwarded.is_empty();
        (Echo { echoes: self.clone(), key, forwarded: Vec::new(), turns: entry.turns.clone(), turn: None }, came_back)
    }
}

impl Echo {
    /// Waits until the race may begin. Cancel-safe.
    pub(super) async fn turn(&mut self) {
        // The semaphore is never closed.
        self.turn = self.turns.clone().acquire_owned().await.ok();
    }

    /// This race forwards the hello there.
    pub(super) fn forwards(&mut self, endpoint: Endpoint) {
        self.forwarded.push(endpoint);
        if let Some(hello) = self.echoes.lock().get_mut(&self.key) {
            hello.forwarded.push(endpoint);
        }
    }

    /// Puts endpoints that have this hello by another race behind the others of their kind.
    pub(super) fn prefer_others<T, K: PartialEq>(&self, order: &mut [T], of: impl Fn(&T) -> Endpoint, kind: impl Fn(&T) -> K) {
        let hellos = self.echoes.lock();
        let Some(hello) = hellos.get(&self.key).filter(|hello| hello.forwarded.len() > self.forwarded.len()) else { return };
        let count = |all: &[Endpoint], endpoint| all.iter().filter(|one| **one == endpoint).count();
        let elsewhere = |endpoint| count(&hello.forwarded, endpoint) > count(&self.forwarded, endpoint);
        for alike in order.chunk_by_mut(|one, next| kind(one) == kind(next)) {
            alike.sort_by_key(|one| elsewhere(of(one)));
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let mut hellos = self.echoes.lock();
        let Some(hello) = hellos.get_mut(&self.key) else { return };
        hello.races -= 1;
        for endpoint in &self.forwarded {
            if let Some(place) = hello.forwarded.iter().position(|one| one == endpoint) {
                hello.forwarded.swap_remove(place);
            }
        }
        if hello.races == 0 {
            hellos.remove(&self.key);
        }
    }
}
