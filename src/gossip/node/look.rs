//! What chitchat shows of the core.

use std::collections::{BTreeMap, HashSet};

use chitchat::{Chitchat, ChitchatId};
use tokio::time::Instant;
use tracing::{error, warn};

use super::super::core::{self, INTRODUCTION, OBSERVATIONS, RECORD};
use super::super::exchange::{CoreMember, Exchange};
use super::super::identity::Namesake;
use super::super::unpoisoned;
use super::Node;
use crate::engine::endpoint::NodeId;

/// More core members than this are worth a warning, and an error.
const MANY: [usize; 2] = [16, 32];

/// One id as the library holds it.
struct Seen {
    node: NodeId,
    id: ChitchatId,
    heartbeat: u64,
    live: bool,
    record: Option<String>,
    observations: Option<String>,
    introduction: Option<String>,
    removals: Vec<(NodeId, u64, String)>,
}

impl Node {
    /// Reads what the library holds, and takes in what is new.
    pub(super) async fn look(&mut self) {
        let Some(life) = &self.life else { return };
        let library = life.library().await;
        let (own, all) = (library.self_chitchat_id().clone(), read(&library));
        drop(library);
        let now = Instant::now();
        let mut exchange = unpoisoned(&self.shared.exchange);
        for seen in &all {
            offer(&mut exchange, now, seen);
        }
        let mut members: BTreeMap<NodeId, (u64, CoreMember)> = BTreeMap::new();
        let mut namesakes = Vec::new();
        for seen in all {
            if seen.id == own {
                continue;
            }
            if seen.node == self.shared.node {
                namesakes.push(Namesake {
                    generation: seen.id.generation_id,
                    addr: seen.id.gossip_advertise_addr,
                    heartbeat: seen.heartbeat,
                    ours: self.identity.is_ours(seen.id.generation_id),
                });
                continue;
            }
            // Who never showed a signed record is nobody; one of a later build, that cannot be read, is live all the same.
            if exchange.catalog.record(seen.node).is_none() {
                continue;
            }
            let member = CoreMember {
                generation: seen.id.generation_id,
                addr: seen.id.gossip_advertise_addr,
                live: seen.live,
                heard: None,
                observations: seen.observations.as_deref().map(core::observations).unwrap_or_default(),
                introduction: seen.introduction.as_deref().and_then(core::introduction),
            };
            let newer = members
                .get(&seen.node)
                .is_none_or(|(_, other)| (member.live, member.generation) > (other.live, other.generation));
            if newer {
                members.insert(seen.node, (seen.heartbeat, member));
            }
        }
        for (node, (heartbeat, member)) in &mut members {
            // Of one that was dead when it was first told of, nothing has been heard yet.
            let beat = self.beats.entry(*node).or_insert((*heartbeat, member.live.then_some(now)));
            if *heartbeat != beat.0 {
                *beat = (*heartbeat, Some(now));
            }
            member.heard = beat.1;
        }
        let core_members = 1 + members.values().filter(|(_, member)| member.live).count();
        exchange.set_core(
            now,
            members.into_iter().map(|(node, (_, member))| (node, member)).collect(),
            self.identity.is_settling(now),
        );
        drop(exchange);
        self.identity.see(namesakes);
        self.judge_size(core_members);
    }

    /// Every core member exchanges datagrams with all others and with all workers, and can sign anything: too many are told of.
    fn judge_size(&mut self, core_members: usize) {
        let limit = MANY.into_iter().rev().find(|limit| core_members > *limit).unwrap_or(0);
        if limit <= self.core_told {
            return;
        }
        self.core_told = limit;
        let text =
            format!("{core_members} core members gossip; more than {limit} make every exchange and every key theft dearer");
        if limit == MANY[0] { warn!("{text}") } else { error!("{text}") }
    }
}

/// Merges the signed items that a core member publishes.
fn offer(exchange: &mut Exchange, now: Instant, seen: &Seen) {
    if let Some(record) = seen.record.as_deref().and_then(core::bytes) {
        exchange.offer(now, &record);
    }
    for (node, generation, removal) in &seen.removals {
        let news = exchange.catalog.removed_up_to(*node).is_none_or(|held| held < *generation);
        if let Some(removal) = core::bytes(removal).filter(|_| news) {
            exchange.offer(now, &removal);
        }
    }
}

fn read(library: &Chitchat) -> Vec<Seen> {
    let live: HashSet<&ChitchatId> = library.live_nodes().collect();
    let own = library.self_chitchat_id();
    let states = library.node_states().iter();
    states
        .filter_map(|(id, state)| {
            Some(Seen {
                node: id.node_id.parse().ok()?,
                id: id.clone(),
                heartbeat: u64::from(state.heartbeat()),
                live: live.contains(id),
                record: state.get(RECORD).filter(|_| id != own).map(str::to_owned),
                observations: state.get(OBSERVATIONS).map(str::to_owned),
                introduction: state.get(INTRODUCTION).map(str::to_owned),
                removals: core::removals(state)
                    .filter(|_| id != own)
                    .map(|(node, up_to, text)| (node, up_to, text.to_owned()))
                    .collect(),
            })
        })
        .collect()
}
