//! What this node says: of itself, and that it leaves.

use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::error;

use super::super::item::Record;
use super::super::keys::Keyring;
use super::super::{INTERVAL, Say, unpoisoned};
use super::{LAST_WRITE, Leaving, Node};
use crate::engine::EndpointTag;
use crate::engine::endpoint::Endpoint;
use crate::engine::event::{AgentState, Observation, OwnReport, Verdict};

impl Node {
    pub(super) async fn say(&mut self, mut say: Say, urgent: bool) {
        if self.leaving.is_some() {
            say.agent = AgentState::Leaving;
        }
        let before = std::mem::replace(&mut *unpoisoned(&self.shared.said), say.clone());
        let news = urgent || verdicts(&before.report) != verdicts(&say.report);
        unpoisoned(&self.shared.exchange).observe(Instant::now(), say.report.observations.clone(), news);
        self.publish(&say).await;
        if let Some(life) = &self.life {
            life.observe(&say.report.observations).await;
        }
    }

    /// Signs and publishes this core member's record, if it is another than before.
    pub(super) async fn publish(&mut self, say: &Say) {
        let Some(record) = self.record(say) else { return };
        let same = |published: &Record| Record { version: record.version, ..published.clone() } == record;
        if self.published.as_ref().is_some_and(same) {
            return;
        }
        let signed = unpoisoned(&self.shared.exchange).publish(Instant::now(), record.clone());
        let Some(bytes) = signed else {
            return error!("this node's record cannot be signed, or does not fit; the last one stays published");
        };
        self.published = Some(record);
        if let Some(life) = &self.life {
            life.publish(&bytes).await;
        }
    }

    /// The next version of this core member's record; [`None`] for a worker, and before it has begun.
    fn record(&self, say: &Say) -> Option<Record> {
        let (generation, addr) = self.identity.begun().filter(|_| self.settings.core)?;
        let version = match &self.published {
            Some(published) if published.generation == generation => published.version + 1,
            _ => 1,
        };
        Some(Record {
            name: self.shared.name.clone(),
            generation,
            version,
            role: say.role,
            agent: say.agent,
            apiserver: say.report.apiserver,
            endpoints: say.endpoints.iter().copied().map(Endpoint::from).collect(),
            gossip: vec![addr],
        })
    }

    pub(super) async fn reload(&mut self, keyring: Keyring, allow: Vec<IpNet>) {
        self.shared.reload(keyring.clone(), allow.clone());
        self.keeper.rekey(keyring.clone());
        unpoisoned(&self.shared.exchange).rekey(Instant::now(), keyring);
        self.take_changes();
        if allow != self.rule.allow {
            self.rule.allow = allow;
            self.tell_all();
        }
        let introduction = unpoisoned(&self.shared.exchange).introduction();
        if let Some(life) = &self.life {
            life.introduce(&introduction).await;
        }
        // Signed anew, with the key that is the first one now.
        self.published = self.published.take().map(|published| Record { name: String::new(), ..published });
        let say = unpoisoned(&self.shared.said).clone();
        self.publish(&say).await;
    }

    pub(super) async fn leave(&mut self, done: oneshot::Sender<()>) {
        let heard_in = if self.identity.has_begun() { 2 * INTERVAL } else { Duration::ZERO };
        let leaving = self.leaving.get_or_insert_with(|| Leaving { at: Instant::now() + heard_in, told: Vec::new() });
        leaving.told.push(done);
        let say = unpoisoned(&self.shared.said).clone();
        unpoisoned(&self.shared.exchange).leave(Instant::now());
        self.say(say, false).await;
    }

    pub(super) fn has_left(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| Instant::now() >= leaving.at)
    }

    pub(super) async fn finish(self) {
        drop(self.life);
        self.keeper.finish(LAST_WRITE).await;
        for told in self.leaving.into_iter().flat_map(|leaving| leaving.told) {
            let _ = told.send(());
        }
    }
}

fn verdicts(report: &OwnReport) -> Vec<(EndpointTag, Verdict)> {
    let mut verdicts: Vec<_> =
        report.observations.iter().map(|Observation { endpoint, verdict, .. }| (*endpoint, *verdict)).collect();
    verdicts.sort_by_key(|(endpoint, _)| *endpoint);
    verdicts
}
