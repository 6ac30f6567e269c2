//! Agents that are told something that was or is only sometimes so: of round trips, and of names.

use std::collections::BTreeMap;
use std::time::Duration;

use prismesh::engine::event::{Configured, Probed, Saw};
use prismesh::engine::{Endpoint, Event, Moment};

use crate::sim::seams::DNS_TURN;
use crate::sim::watched::Spoil;

/// Tells every second round trip tenfold.
#[derive(Default)]
pub(super) struct Nervous(u64);

impl Spoil for Nervous {
    fn event(&mut self, _: Moment, mut event: Event) -> Vec<Event> {
        if let Event::Probed(Probed { rtt: Some(rtt), .. }) = &mut event {
            self.0 += 1;
            // Long enough each way for the estimate to follow.
            if (self.0 / 60).is_multiple_of(2) {
                *rtt *= 10;
            }
        }
        vec![event]
    }
}

/// Tells a few round trips of each endpoint, and then always the first.
#[derive(Default)]
pub(super) struct Stubborn(BTreeMap<Endpoint, Duration>);

impl Spoil for Stubborn {
    fn event(&mut self, _: Moment, mut event: Event) -> Vec<Event> {
        if let Event::Probed(Probed { rtt: Some(rtt), endpoint, .. }) = &mut event {
            *rtt = *self.0.entry(*endpoint).or_insert(*rtt);
        }
        if let Event::Traffic { saw: Saw::Connected(rtt), endpoint } = &mut event {
            *rtt = *self.0.entry(*endpoint).or_insert(*rtt);
        }
        vec![event]
    }
}

/// Tells one of the addresses that were found by name, and another one each time DNS does.
#[derive(Default)]
pub(super) struct BelievesEachAnswer {
    all: Vec<Configured>,
    next: Option<Moment>,
    turn: usize,
}

impl Spoil for BelievesEachAnswer {
    fn event(&mut self, now: Moment, event: Event) -> Vec<Event> {
        let mut events = vec![event];
        if let Some(Event::Configured(all)) = events.first() {
            self.all.clone_from(all);
        }
        if now >= *self.next.get_or_insert(now + Duration::from_millis(DNS_TURN)) {
            self.next = Some(now + Duration::from_millis(DNS_TURN));
            self.turn += 1;
            let named: Vec<Endpoint> = self.all.iter().filter(|one| one.by_name).map(|one| one.endpoint).collect();
            let told = named.get(self.turn % named.len().max(1)).copied();
            let answered = self.all.iter().filter(|one| !one.by_name || Some(one.endpoint) == told);
            events.push(Event::Configured(answered.cloned().collect()));
        }
        events
    }

    fn due(&self) -> Option<Moment> {
        self.next
    }
}
