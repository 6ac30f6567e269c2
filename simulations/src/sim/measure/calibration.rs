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
use crate::sim::log::{ClientConn, ClientKind};
use crate::sim::plan::{self, Fault, Node, Plan, Step, who};
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
    /// It does not get on for 600 ms.
    Pauses,
    /// It dies, and comes back.
    ComesBack,
    /// All of them die, and come back.
    AllGone,
}

/// The rows that are not played here, and why.
pub const LEFT_OUT: &str = "left out: an address that falls silent and a host that is gone, which on real sockets need a network of their own \
                            (`cargo test -p simulations --test faults` has one); an agent that is restarted, whose listening socket the \
                            model cannot hand on";

impl Row {
    /// All of them.
    pub const ALL: [Row; 8] =
        [Row::BalancerDies, Row::BalancerHangs, Row::Killed, Row::Hangs, Row::Drains, Row::Pauses, Row::ComesBack, Row::AllGone];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Row::BalancerDies => "the external balancer dies",
            Row::BalancerHangs => "the external balancer hangs",
            Row::Killed => "an apiserver is killed",
            Row::Hangs => "an apiserver hangs",
            Row::Drains => "an apiserver drains",
            Row::Pauses => "an apiserver pauses for 600 ms",
            Row::ComesBack => "an apiserver dies and is back after 3 s",
            Row::AllGone => "all apiservers are gone for 5 s",
        }
    }

    /// How long it lasts, if it is mended.
    fn lasts(self) -> Option<Duration> {
        match self {
            Row::Pauses => Some(Duration::from_millis(600)),
            Row::ComesBack => Some(Duration::from_secs(3)),
            Row::AllGone => Some(Duration::from_secs(5)),
            _ => None,
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
            Row::Pauses => Fault::Apiserver { of: who("cp-1"), mode: Mode::Hung },
            Row::ComesBack => Fault::Apiserver { of: who("cp-1"), mode: Mode::Refusing },
            Row::AllGone => Fault::Apiserver { of: who("cp-*"), mode: Mode::Refusing },
        };
        let steps = vec![Step { at: BREAKS, lasts: self.lasts().map(millis), what }];
        Plan { cluster, steps, lasts: BREAKS + millis(WATCHED) }
    }

    fn breaks(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        match self {
            Row::BalancerDies => cluster.balancer = None,
            Row::BalancerHangs => cluster.balancer.as_mut().context("it runs")?.stop()?,
            Row::Killed | Row::ComesBack => cluster.apiservers[0].process()?.kill(),
            Row::Hangs | Row::Pauses => cluster.apiservers[0].process()?.stop()?,
            Row::Drains => cluster.apiservers[0].process()?.terminate()?,
            Row::AllGone => {
                for apiserver in &mut cluster.apiservers {
                    apiserver.process()?.kill();
                }
            }
        }
        Ok(())
    }

    fn mends(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        match self {
            Row::Pauses => cluster.apiservers[0].process()?.go_on(),
            Row::ComesBack => cluster.start_apiserver(0),
            Row::AllGone => (0..cluster.apiservers.len()).try_for_each(|index| cluster.start_apiserver(index)),
            _ => Ok(()),
        }
    }
}

fn millis(span: Duration) -> Ms {
    u64::try_from(span.as_millis()).unwrap_or(Ms::MAX)
}

/// What a run of [`Row::plan`] shows.
pub fn figures(ran: &Ran) -> Figures {
    let fresh = ran.log.clients.iter().filter(|client| client.kind == ClientKind::Fresh && client.hello.is_some());
    let fresh = fresh.filter(|client| client.opened >= BREAKS - millis(CALM));
    let after = fresh.clone().filter(|client| client.opened >= BREAKS);
    let slowest = after.filter_map(|client| Some(client.first_byte? - client.opened)).max();
    let broken = ran.endpoints(&ran.machines(&who("cp-1")), BREAKS - 1);
    let open = ran.log.upstreams.values().filter(|it| broken.contains(&it.to) && it.bytes < BREAKS);
    let cut = open.filter_map(|it| it.ended.map(|(at, _)| at)).filter(|at| (BREAKS..ran.ended).contains(at)).max();
    let mended = ran.plan.steps.first().and_then(|step| Some(step.at + step.lasts?));
    let on_it = |client: &&ClientConn| {
        let upstream = client.upstream.and_then(|conn| ran.log.upstreams.get(&conn));
        upstream.is_some_and(|upstream| broken.contains(&upstream.to))
    };
    let again = mended.and_then(|mended| {
        let later = fresh.clone().filter(|client| client.opened >= mended).filter(on_it);
        later.filter_map(|client| client.first_byte).min().map(|at| at - mended)
    });
    let (asked, failed) = (fresh.clone().count(), fresh.filter(|client| failed(client)).count());
    Found {
        asked,
        failed,
        slowest: slowest.map(Duration::from_millis),
        gone: cut.map(|at| Duration::from_millis(at - BREAKS)),
        again: again.map(Duration::from_millis),
    }
    .figures()
}

/// What is looked at in both worlds.
struct Found {
    asked: usize,
    failed: usize,
    /// The slowest first byte after it broke.
    slowest: Option<Duration>,
    /// When the last connection of before was gone, after it broke.
    gone: Option<Duration>,
    /// When the first apiserver answered again, after it was mended.
    again: Option<Duration>,
}

impl Found {
    fn figures(self) -> Figures {
        let times = [
            ("slowest_after_ms", self.slowest.map(|it| it.as_secs_f64() * 1e3)),
            ("last_old_connection_gone_s", self.gone.map(|it| it.as_secs_f64())),
            ("used_again_after_s", self.again.map(|it| it.as_secs_f64())),
        ];
        let counts = [("connections", Some(self.asked as f64)), ("connections_failed", Some(self.failed as f64))];
        let all = counts.into_iter().chain(times);
        all.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
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
    let lasts = row.lasts().unwrap_or(WATCHED);
    sleep(lasts).await;
    let mended = Instant::now();
    row.mends(&mut cluster)?;
    sleep(WATCHED - lasts).await;
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
    let later = all.iter().filter(|request| request.began >= mended && request.server() == Some("api-1"));
    let again = later.filter_map(|request| request.ended.as_ref()).map(|(at, _)| *at - mended).min();
    let again = again.filter(|_| row.lasts().is_some());
    Ok(Found { asked: all.len(), failed: failed.count(), slowest, gone, again }.figures())
}
