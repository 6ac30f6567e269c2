//! What stands between an agent and its engine in a simulation: it writes down what passes, and spoils it where a sabotage asks.

use std::sync::Arc;
use std::time::Duration;

use prismesh::agent::decide::Decide;
use prismesh::engine::event::{Effect, Event, Notice};
use prismesh::engine::{Endpoint, Engine, Explained, Moment, Source};

use super::core::{RunId, Sim};
use super::log::VerdictChange;
use super::state::MachineId;

/// More events than this at one instant are a livelock.
const AT_ONCE: u64 = 100_000;

/// Changes what passes between an agent and its engine, to see who notices.
pub trait Spoil: Send {
    /// What the engine is told in place of this.
    fn event(&mut self, _now: Moment, event: Event) -> Vec<Event> {
        vec![event]
    }

    /// What the agent is told in place of these.
    fn effects(&mut self, _now: Moment, effects: Vec<Effect>) -> Vec<Effect> {
        effects
    }

    /// When it wants to be asked again although nothing happens.
    fn due(&self) -> Option<Moment> {
        None
    }
}

/// Writes one step down.
pub(super) type Write = Arc<dyn Fn(Moment, &Event, &[Effect]) + Send + Sync>;

/// An engine that is watched.
pub(super) struct Watched {
    pub(super) engine: Engine,
    pub(super) sim: Sim,
    pub(super) machine: MachineId,
    pub(super) run: RunId,
    pub(super) spoil: Option<Box<dyn Spoil>>,
    pub(super) interval: Duration,
    /// Written down as JSON lines, where somebody asked for it.
    pub(super) record: Option<Write>,
}

impl Watched {
    fn step(&mut self, now: Moment, event: &Event) -> Vec<Effect> {
        let mut effects = self.engine.handle(now, event.clone());
        if let Some(record) = &self.record {
            record(now, event, &effects);
        }
        let interval = self.engine.probe_interval();
        let mut core = self.sim.core();
        let at = core.now;
        core.trace.step(at, self.run, event, &effects);
        assert!(core.trace.at_once.1 <= AT_ONCE, "more than {AT_ONCE} engine events at {at} ms: a livelock");
        if interval != self.interval {
            self.interval = interval;
            core.log.intervals.entry(self.run).or_default().push((at, interval));
        }
        if let Event::Held(held) = event {
            core.log.held.entry(self.machine).or_default().push((at, *held));
        }
        drop(core);
        if let Some(spoil) = &mut self.spoil {
            effects = spoil.effects(now, effects);
        }
        self.note(&effects);
        effects
    }

    /// What the agent will do, for the judge.
    fn note(&self, effects: &[Effect]) {
        let mut core = self.sim.core();
        let at = core.now;
        for effect in effects {
            match effect {
                Effect::Route(routing) => core.log.routes.entry(self.run).or_default().push((at, Arc::new(routing.clone()))),
                Effect::Notice(Notice::Verdict { endpoint, to, .. }) => {
                    core.log.verdicts.push(VerdictChange { at, machine: self.machine, endpoint: *endpoint, to: *to });
                }
                _ => {}
            }
        }
    }
}

impl Decide for Watched {
    fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        let events = match &mut self.spoil {
            Some(spoil) => spoil.event(now, event),
            None => vec![event],
        };
        events.into_iter().flat_map(|event| self.step(now, &event)).collect()
    }

    fn next_deadline(&self) -> Option<Moment> {
        let spoil = self.spoil.as_ref().and_then(|spoil| spoil.due());
        self.engine.next_deadline().into_iter().chain(spoil).min()
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
