//! The stage: the cluster, and on every node a client as kubelet is one, through prismesh; beside each one that uses the
//! external balancer directly.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::script::Act;
use crate::lab::client::{Asking, Habit};
use crate::lab::cluster::Cluster;
use crate::lab::status::Status;
use crate::lab::tally::Tally;
use crate::lab::watcher::{Stream, Watcher};

/// client-go gives up a TLS handshake after this.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A client makes a new connection this often ...
const EVERY: Duration = Duration::from_millis(200);
/// ... but all clients of one way together no more often than this.
const EVERY_OF_ALL: Duration = Duration::from_millis(25);

/// Clients that reach the API one way.
pub struct Way {
    /// Their requests.
    pub tally: Tally,
    watchers: Vec<Watcher>,
    _asking: Vec<Asking>,
}

impl Way {
    /// The longest time that one of its watches was without a line.
    pub fn longest_silence(&self, from: Instant, to: Instant) -> Duration {
        self.watchers.iter().map(|watcher| watcher.longest_silence(from, to)).max().unwrap_or_default()
    }

    /// The streams that there are now.
    pub fn streams(&self) -> Vec<Stream> {
        self.watchers.iter().filter_map(Watcher::current).collect()
    }

    /// How many of its clients have a watch that was not silent for a second.
    pub fn flowing(&self) -> usize {
        let now = Instant::now();
        self.watchers
            .iter()
            .filter(|watcher| watcher.longest_silence(now - Duration::from_secs(1), now) < Duration::from_secs(1))
            .count()
    }

    /// Its clients.
    pub fn clients(&self) -> usize {
        self.watchers.len()
    }
}

/// Paths that the clients ask for.
#[derive(Clone, Debug)]
pub struct Paths {
    /// An ordinary request.
    pub get: String,
    /// A watch.
    pub watch: String,
}

impl Paths {
    /// What the lab's own apiservers serve.
    pub fn ordinary() -> Paths {
        Paths { get: "/api/v1/nodes".to_owned(), watch: "/watch".to_owned() }
    }
}

/// Everything that takes part.
pub struct Stage {
    /// The control plane and the nodes.
    pub cluster: Cluster,
    /// Clients through prismesh.
    pub prismesh: Way,
    /// Clients of the external balancer.
    pub direct: Way,
}

impl Stage {
    /// Sets the clients going.
    pub fn set(cluster: Cluster, paths: &Paths) -> Result<Stage> {
        let nodes = cluster.nodes.len();
        let every = EVERY.max(EVERY_OF_ALL * u32::try_from(nodes)?);
        let habit = Habit { every, patience: PATIENCE, retries: true };
        let prismesh = way((0..nodes).map(|node| cluster.through(node, "/")), paths, habit)?;
        let direct = way((0..nodes).map(|_| cluster.direct("/")), paths, habit)?;
        Ok(Stage { cluster, prismesh, direct })
    }

    /// Does something to the control plane.
    pub fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Watch => Ok(()),
            Act::BalancerHangs => self.cluster.balancer.as_mut().context("the balancer runs")?.stop(),
            Act::BalancerDies => {
                self.cluster.balancer = None;
                Ok(())
            }
            Act::BalancerBack => self.cluster.start_balancer(),
            Act::Kill(index) => {
                self.cluster.apiservers.get_mut(index).context("no such apiserver")?.process = None;
                Ok(())
            }
            Act::Start(index) => self.cluster.start_apiserver(index),
            Act::Hang(index) => self.cluster.apiservers.get_mut(index).context("no such apiserver")?.process()?.stop(),
            Act::GoOn(index) => self.cluster.apiservers.get_mut(index).context("no such apiserver")?.process()?.go_on(),
            Act::Drain(index) => self.cluster.apiservers.get_mut(index).context("no such apiserver")?.process()?.terminate(),
        }
    }

    /// What every node's agent says; those that did not answer are left out.
    pub async fn statuses(&self) -> Vec<Status> {
        let mut asked: JoinSet<Result<Status>> = self.cluster.nodes.iter().map(|node| Status::of(node.admin())).collect();
        let mut said = Vec::new();
        while let Some(status) = asked.join_next().await {
            said.extend(status.ok().and_then(Result::ok));
        }
        said
    }
}

fn way(targets: impl Iterator<Item = Result<crate::lab::client::Target>>, paths: &Paths, habit: Habit) -> Result<Way> {
    let targets = targets.collect::<Result<Vec<_>>>()?;
    let tally = Tally::default();
    let watchers = targets.iter().map(|target| Watcher::start(target.path(&paths.watch))).collect();
    let asking = targets.iter().map(|target| Asking::start(target.path(&paths.get), habit, tally.clone())).collect();
    Ok(Way { tally, watchers, _asking: asking })
}
