//! The agent's fault table on real sockets and in the model, side by side: five nodes of which three are control planes, on each
//! ten new connections a second and one that stays open.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::growth::Figures;
use crate::lab::client::{Asking, Habit};
use crate::lab::cluster::{self, Cluster};
use crate::lab::tally::{Request, Tally};
use crate::lab::watcher::{Stream, Watcher};
use crate::sim::figures::failed;
use crate::sim::plan::{self, Fault, Node, Plan, who};
use crate::sim::run::Ran;
use crate::sim::state::{Mode, Ms};

/// Between two new connections of one node, in ms.
const EVERY: Ms = 100;
/// Clients wait this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// In the model everybody has come up by then; on real sockets, once all agree, so long is looked at what is usual.
const BREAKS: Ms = 20_000;
const CALM: Duration = Duration::from_secs(3);
/// How long what follows is watched.
const WATCHED: Duration = Duration::from_secs(12);

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// The external balancer's process dies.
    BalancerDies,
    /// It hangs.
    BalancerHangs,
    /// An apiserver's process dies.
    Killed,
    /// It hangs.
    Hangs,
    /// It drains for 5 s and closes.
    Drains,
}

impl Row {
    /// All of them.
    pub const ALL: [Row; 5] = [Row::BalancerDies, Row::BalancerHangs, Row::Killed, Row::Hangs, Row::Drains];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Row::BalancerDies => "the external balancer dies",
            Row::BalancerHangs => "the external balancer hangs",
            Row::Killed => "an apiserver is killed",
            Row::Hangs => "an apiserver hangs",
            Row::Drains => "an apiserver drains",
        }
    }

    /// The same in the model.
    pub fn plan(self) -> Plan {
        let node = |place: usize| Node { control_plane: place < 3, ..Node::default() };
        let cluster = plan::Cluster {
            zones: vec![vec![2]],
            jitter: 0.0,
            nodes: (0..5).map(node).collect(),
            balancer: Some(0),
            fresh_every: EVERY,
            ..plan::Cluster::default()
        };
        let what = match self {
            Row::BalancerDies => Fault::Balancer { mode: Mode::Refusing },
            Row::BalancerHangs => Fault::Balancer { mode: Mode::Hung },
            Row::Killed => Fault::Apiserver { of: who("cp-1"), mode: Mode::Refusing },
            Row::Hangs => Fault::Apiserver { of: who("cp-1"), mode: Mode::Hung },
            Row::Drains => Fault::Drain { of: who("cp-1") },
        };
        let watched = u64::try_from(WATCHED.as_millis()).unwrap_or(0);
        Plan { cluster, steps: Vec::new(), lasts: BREAKS + watched }.step(BREAKS, what)
    }

    fn breaks(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        match self {
            Row::BalancerDies => cluster.balancer = None,
            Row::BalancerHangs => cluster.balancer.as_mut().context("it runs")?.stop()?,
            Row::Killed => cluster.apiservers[0].process()?.kill(),
            Row::Hangs => cluster.apiservers[0].process()?.stop()?,
            Row::Drains => cluster.apiservers[0].process()?.terminate()?,
        }
        Ok(())
    }
}

/// What a run of [`Row::plan`] shows.
pub fn figures(ran: &Ran) -> Figures {
    let fresh = ran.log.clients.iter().filter(|client| client.hello.is_some());
    let after = fresh.clone().filter(|client| client.opened >= BREAKS);
    let slowest = after.filter_map(|client| Some(client.first_byte? - client.opened)).max();
    let broken = ran.endpoints(&ran.machines(&who("cp-1")), BREAKS - 1);
    let open = ran.log.upstreams.values().filter(|it| broken.contains(&it.to) && it.bytes < BREAKS);
    let cut = open.filter_map(|it| it.ended.map(|(at, _)| at)).filter(|at| (BREAKS..ran.ended).contains(at)).max();
    found(
        fresh.clone().count(),
        fresh.filter(|client| failed(client)).count(),
        slowest.map(Duration::from_millis),
        cut.map(|at| Duration::from_millis(at - BREAKS)),
    )
}

fn found(asked: usize, failed: usize, slowest: Option<Duration>, gone: Option<Duration>) -> Figures {
    let mut figures = Figures::from([("connections".to_owned(), asked as f64), ("connections_failed".to_owned(), failed as f64)]);
    if let Some(slowest) = slowest {
        figures.insert("slowest_after_ms".to_owned(), slowest.as_secs_f64() * 1e3);
    }
    if let Some(gone) = gone {
        figures.insert("last_old_connection_gone_s".to_owned(), gone.as_secs_f64());
    }
    figures
}

/// One row on real sockets.
///
/// # Errors
/// The lab cannot be started.
pub async fn real(row: Row) -> anyhow::Result<Figures> {
    let program = std::env::current_exe().context("where is this program?")?;
    let mut cluster = Cluster::start(cluster::Plan::ordinary(program)).await?;
    let habit = Habit { every: Duration::from_millis(EVERY), patience: PATIENCE, retries: false };
    let (began, mut tallies, mut watchers, mut asking) = (Instant::now(), Vec::new(), Vec::new(), Vec::new());
    for node in 0..cluster.nodes.len() {
        let tally = Tally::default();
        watchers.push(Watcher::start(cluster.through(node, "/watch")?));
        asking.push(Asking::start(cluster.through(node, "/api/v1/nodes")?, habit, tally.clone()));
        tallies.push(tally);
    }
    sleep(CALM).await;
    let broke = Instant::now();
    let before: Vec<Stream> = watchers.iter().filter_map(Watcher::current).collect();
    row.breaks(&mut cluster)?;
    sleep(WATCHED).await;
    asking.iter_mut().for_each(Asking::pause);
    sleep(CALM).await;
    let all: Vec<Request> = tallies.iter().flat_map(|tally| tally.since(began)).collect();
    let failed = all.iter().filter(|request| request.failure().is_some_and(|it| it.before_first_byte || request.began >= broke));
    let slowest = all.iter().filter(|request| request.began >= broke).map(Request::took).max();
    let on_it = before.iter().filter(|stream| stream.server.as_deref() == Some("api-1"));
    let ends = on_it.filter_map(|old| {
        let streams = watchers.iter().flat_map(Watcher::streams);
        streams.filter(|stream| stream.dialled == old.dialled).find_map(|stream| stream.ended.map(|(at, _)| at))
    });
    let gone = ends.filter(|at| *at >= broke).map(|at| at - broke).max();
    Ok(found(all.len(), failed.count(), slowest, gone))
}
