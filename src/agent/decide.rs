//! The engine as its driver sees it, and what can be put around it.
//!
//! Everything that an agent decides passes through here as data: so a wrapper can write it down ([`Recorded`]), count it or,
//! in a simulation, spoil it to see who notices, and neither the engine nor the driver knows.

use serde::{Deserialize, Serialize};

use crate::engine::{Effect, Endpoint, Engine, Event, Explained, Identity, Moment, Source};

/// What the driver asks: an [`Engine`], or something around one.
pub trait Decide: Send {
    /// See [`Engine::handle`].
    fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect>;

    /// See [`Engine::next_deadline`].
    fn next_deadline(&self) -> Option<Moment>;

    /// See [`Engine::explain`].
    fn explain(&self, now: Moment) -> Vec<Explained>;

    /// See [`Engine::cluster_size`].
    fn cluster_size(&self) -> u32;

    /// See [`Engine::refused_listeners`].
    fn refused_listeners(&self) -> Vec<(Endpoint, Source)>;
}

impl Decide for Engine {
    fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        Engine::handle(self, now, event)
    }

    fn next_deadline(&self) -> Option<Moment> {
        Engine::next_deadline(self)
    }

    fn explain(&self, now: Moment) -> Vec<Explained> {
        Engine::explain(self, now)
    }

    fn cluster_size(&self) -> u32 {
        Engine::cluster_size(self)
    }

    fn refused_listeners(&self) -> Vec<(Endpoint, Source)> {
        Engine::refused_listeners(self)
    }
}

/// One entry of an event log: first who the node is, then every event with what followed from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// The engine that was started.
    Identity(Identity),
    /// An event it was told.
    Step {
        /// When.
        at: Moment,
        /// What.
        event: Event,
        /// What it answered.
        effects: Vec<Effect>,
    },
}

/// An engine that writes down everything it is told and answers. Replaying its entries must give the same effects.
pub struct Recorded<W> {
    engine: Engine,
    write: W,
}

impl<W: FnMut(&Entry) + Send> Recorded<W> {
    /// Hands every entry to `write`, the engine's identity first.
    pub fn new(engine: Engine, mut write: W) -> Recorded<W> {
        write(&Entry::Identity(engine.identity().clone()));
        Recorded { engine, write }
    }
}

impl<W: FnMut(&Entry) + Send> Decide for Recorded<W> {
    fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        let effects = self.engine.handle(now, event.clone());
        let entry = Entry::Step { at: now, event, effects };
        (self.write)(&entry);
        let Entry::Step { effects, .. } = entry else { return Vec::new() };
        effects
    }

    fn next_deadline(&self) -> Option<Moment> {
        self.engine.next_deadline()
    }

    fn explain(&self, now: Moment) -> Vec<Explained> {
        self.engine.explain(now)
    }

    fn cluster_size(&self) -> u32 {
        self.engine.cluster_size()
    }

    fn refused_listeners(&self) -> Vec<(Endpoint, Source)> {
        self.engine.refused_listeners()
    }
}
