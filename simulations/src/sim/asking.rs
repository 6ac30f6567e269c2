//! Asks agents over the modelled loopback: for their status as `prismesh explain` asks a real one, for what they counted as who gathers metrics.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::run::Stage;
use super::seams::Host;
use super::state::{MachineId, Ms};
use super::tcp::Owner;

/// An agent that has not answered by then does not: as long as `prismesh explain` waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

impl Stage {
    /// Asks a node's agent at a moment. Until then nothing is different from a run in which nobody asks.
    pub(super) fn ask(&self, name: &str, at: Ms) -> anyhow::Result<JoinHandle<Result<Vec<u8>, String>>> {
        let machine = self
            .names
            .iter()
            .position(|known| known == name)
            .with_context(|| format!("nobody is named {name:?}; there are {}", self.names.join(", ")))?;
        let (node, host, sim) = (self.nodes[machine].clone(), self.plain_host(machine), self.sim.clone());
        Ok(tokio::spawn(async move {
            sim.until(at).await;
            let Ok(node) = node.try_lock() else { return Err("its agent is being started or stopped".to_owned()) };
            let Some(admin) = node.admin() else { return Err("no agent runs there".to_owned()) };
            drop(node);
            match timeout(PATIENCE, page(&host, admin, "/status")).await {
                Err(_) => Err(format!("its agent did not answer within {} s", PATIENCE.as_secs())),
                Ok(Err(error)) => Err(format!("its agent did not answer: {error}")),
                Ok(Ok(status)) => Ok(status),
            }
        }))
    }

    /// What each agent that answers has dropped of gossip since its start, by reason.
    pub(super) async fn drops(&self) -> BTreeMap<MachineId, BTreeMap<String, u64>> {
        let mut asking = JoinSet::new();
        for (machine, node) in self.nodes.iter().enumerate() {
            let (node, host) = (node.clone(), self.plain_host(machine));
            asking.spawn(async move {
                let admin = node.lock().await.admin()?;
                let metrics = timeout(PATIENCE, page(&host, admin, "/metrics")).await.ok()?.ok()?;
                Some((machine, dropped(&String::from_utf8_lossy(&metrics))))
            });
        }
        asking.join_all().await.into_iter().flatten().collect()
    }
}

fn dropped(metrics: &str) -> BTreeMap<String, u64> {
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("prismesh_gossip_dropped_total{reason=\""));
    counts
        .filter_map(|count| count.split_once("\"} "))
        .filter_map(|(why, count)| Some((why.to_owned(), count.parse().ok()?)))
        .collect()
}

async fn page(host: &Host, admin: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = host.dial(admin, Owner::Task).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    match end {
        Some(end) if answer.starts_with(b"HTTP/1.1 200 ") => Ok(answer.split_off(end + 4)),
        _ => Err(io::Error::other(String::from_utf8_lossy(&answer).lines().next().unwrap_or("nothing").to_owned())),
    }
}
