//! All numbers of the agent, gathered for a scrape.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::ca::CaStatus;
use super::driver::Knowledge;
use super::view::View;
use crate::admin::metrics::{Counts, GossipMetrics, Metrics, UpstreamMetrics};
use crate::engine::event::{Lack, Outcome, ResetReason};
use crate::engine::{Endpoint, Explained, Moment};
use crate::gossip::{DropReason, Gossip};
use crate::log;
use crate::proxy::TurnedAway;
use crate::supervise::{self, Supervised};

/// What the driver counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) events: AtomicU64,
    /// How it stands with the CA; [`None`]: as the configuration says.
    pub(super) ca: Mutex<Option<CaStatus>>,
    reload_failures: AtomicU64,
    /// Why the last reload failed, if it did.
    reload_problem: Mutex<Option<String>>,
    panics: AtomicU64,
    waiting: Mutex<BTreeMap<&'static str, String>>,
    probes: Mutex<BTreeMap<Endpoint, Counts>>,
}

impl Tally {
    pub(super) fn probed(&self, endpoint: Endpoint, outcome: &Outcome) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        *probes.entry(endpoint).or_default().entry(word(outcome)).or_default() += 1;
    }

    /// Told ever more rarely: the 1st, 2nd, 4th, 8th time and so on.
    pub(super) fn probe_panicked(&self, endpoint: Endpoint, reason: &str) {
        let times = self.panics.fetch_add(1, Ordering::Relaxed) + 1;
        if times.is_power_of_two() {
            tracing::error!(%endpoint, reason, times, "a probe panicked; nothing is concluded from it");
        }
    }

    /// A reload has ended, with a problem or well.
    pub(super) fn reload_failed(&self, problem: Option<String>) {
        self.reload_failures.fetch_add(u64::from(problem.is_some()), Ordering::Relaxed);
        *self.reload_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// What the agent waits for.
    pub(super) fn waits_for(&self, missing: BTreeMap<&'static str, String>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    }

    fn waiting(&self) -> BTreeMap<&'static str, String> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a person should know of the last reload, and of what is missing.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let problem = self.reload_problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reload = problem.map(|problem| {
            format!("the last reload failed, and everything stayed as it was, but for a CA that is good: {problem}")
        });
        reload.into_iter().chain(self.waiting().into_values())
    }

    /// What is not known any more is not counted any more.
    pub(super) fn left(&self, endpoint: Endpoint) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).remove(&endpoint);
    }

    fn probes(&self, endpoint: Endpoint) -> Counts {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).get(&endpoint).cloned().unwrap_or_default()
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Status { code: 200, .. } => "ready",
        Outcome::Status { code: 401 | 403, .. } => "readiness_unknown",
        Outcome::Status { code: 429 | 500 | 503, .. } => "draining",
        Outcome::Status { .. } => "other_status",
        Outcome::Unverified { lack: Lack::Algorithm(_), .. } => "unsupported_algorithm",
        Outcome::Unverified { lack: Lack::Ca(_), .. } => "unverified",
        Outcome::NotHttp => "not_http",
        Outcome::Refused => "refused",
        Outcome::DialTimedOut => "dial_timed_out",
        Outcome::HandshakeTimedOut { hung: true } => "hung",
        Outcome::HandshakeTimedOut { hung: false } => "handshake_timed_out",
        Outcome::AnswerTimedOut => "answer_timed_out",
        Outcome::NotTls => "not_tls",
        Outcome::Untrusted(_) => "untrusted",
        Outcome::WrongName(_) => "wrong_name",
        Outcome::Stale => "stale",
        Outcome::Unreachable(_) => "unreachable",
        Outcome::LocalError(_) => "local_error",
    }
}

impl View {
    pub(super) fn measure(&self, knowledge: &Knowledge) -> Metrics {
        let proxy = self.proxy.stats();
        let expiry = self.world.prober.certificates();
        let upstreams = knowledge.endpoints.iter().map(|explained| {
            let mut measured = self.upstream(explained);
            measured.certificate_not_after = expiry.get(&explained.endpoint).copied();
            if let Some(counts) = proxy.upstreams.get(&explained.endpoint) {
                measured.connections = u64::from(counts.open);
                measured.dials = counts.dials.iter().map(|(end, count)| (end.as_str(), *count)).collect();
                measured.dials.insert("no_first_byte", counts.no_first_byte);
                measured.dials.insert("closed_early", counts.closed_early);
                measured.bytes_to_upstream = counts.to_upstream;
                measured.bytes_to_client = counts.to_client;
                measured.resets = ResetReason::ALL
                    .iter()
                    .map(|reason| (reason.as_str(), counts.resets.get(reason).copied().unwrap_or_default()))
                    .collect();
            }
            measured
        });
        let names = self.unresolved.borrow().clone();
        Metrics {
            upstreams: upstreams.collect(),
            cluster_size: knowledge.cluster_size,
            uptime: self.world.clock.now().since(Moment::START),
            clients: proxy.clients as u64,
            held: u64::from(proxy.held),
            holds: proxy.holds,
            replays: proxy.replays,
            replays_refused: proxy.replays_refused,
            repeated_hellos: proxy.repeated_hellos,
            // All from the start: of what appears with its first count nobody sees the increase.
            refusals: TurnedAway::ALL
                .iter()
                .map(|why| (why.as_str(), proxy.turned_away.get(why).copied().unwrap_or(0)))
                .collect(),
            state_write_failing: self.state.is_failing(),
            state_write_failures: self.state.failures(),
            admin_rejections: self.rejections.counts(),
            accept_errors: proxy.accept_errors,
            sightings_dropped: proxy.sightings_dropped,
            engine_events: self.tally.events.load(Ordering::Relaxed),
            panics: self.panics(proxy.panics),
            task_restarts: self.supervised().map(|task| (task.name(), task.restarts())).collect(),
            log_lines_dropped: log::dropped(),
            names_unresolved: names.names.len() as u64,
            name_lookup_failures: names.failures,
            waiting: self.tally.waiting().into_keys().map(|what| (what, 1)).collect(),
            reload_failures: self.tally.reload_failures.load(Ordering::Relaxed),
            ca_missing: !self.ca().in_force,
            ca_unreadable: self.ca().problem.is_some(),
            gossip: self.gossip.get().map(gossip),
        }
    }

    /// All panics of the process; where they are not counted as such (this agent shares its process), those of this agent's tasks.
    fn panics(&self, of_clients: u64) -> u64 {
        let of_tasks = || self.supervised().map(Supervised::panics).sum::<u64>();
        supervise::panics().unwrap_or_else(|| of_clients + of_tasks() + self.tally.panics.load(Ordering::Relaxed))
    }

    fn upstream(&self, explained: &Explained) -> UpstreamMetrics {
        UpstreamMetrics {
            best: explained.best,
            load: explained.load.map(u64::from),
            rtt: explained.rtt,
            probes: self.tally.probes(explained.endpoint),
            ..UpstreamMetrics::new(explained.endpoint, explained.verdict)
        }
    }
}

fn gossip(gossip: &Gossip) -> GossipMetrics {
    let stats = gossip.stats();
    let members = gossip.members();
    let heard = members.iter().filter_map(|member| member.last_heard_s).min_by(f64::total_cmp);
    GossipMetrics {
        members: 1 + members.iter().filter(|member| member.alive).count() as u64,
        datagrams_in: stats.datagrams_in.get(),
        datagrams_out: stats.datagrams_out.get(),
        bytes_in: stats.bytes_in.get(),
        bytes_out: stats.bytes_out.get(),
        dropped: DropReason::ALL.iter().map(|reason| (reason.as_str(), stats.dropped(*reason))).collect(),
        since_heard: heard.map(std::time::Duration::from_secs_f64),
        name_conflict: stats.name_conflict.get() > 0,
        isolated: stats.isolated.get() > 0,
        restarts: stats.restarts.get(),
        workers_with_full_keyring: gossip.workers_with_full_keyring().map(|holders| holders as u64),
    }
}
