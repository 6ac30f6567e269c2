//! What the proxy has counted since its start, for metrics and status.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::event::ResetReason;
use crate::engine::{Endpoint, policy};

/// How a dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DialEnd {
    /// It connected.
    Connected,
    /// The other side refused.
    Refused,
    /// The kernel found no way there, or a rule forbids it.
    Unreachable,
    /// One begun later connected first.
    Overtaken,
    /// It had not connected within its stay in the race.
    TimedOut,
    /// This node could not even try.
    LocalError,
    /// Given up because it was not needed any more; says nothing about the upstream.
    Dropped,
}

impl DialEnd {
    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            DialEnd::Connected => "connected",
            DialEnd::Refused => "refused",
            DialEnd::Unreachable => "unreachable",
            DialEnd::Overtaken => "overtaken",
            DialEnd::TimedOut => "timed-out",
            DialEnd::LocalError => "local-error",
            DialEnd::Dropped => "dropped",
        }
    }
}

/// Why a client was turned away by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TurnedAway {
    /// It sent no whole ClientHello in time, or no TLS and was not answered: closed.
    Silent,
    /// It was silent so far and its place was needed for a newcomer: reset.
    Evicted,
    /// There are as many connections as may be, all in use: reset.
    Full,
    /// As many clients are held as may be: reset.
    HoldFull,
    /// Nothing answered while it was held: reset.
    HoldOver,
    /// The agent stopped: reset.
    Stopped,
}

impl TurnedAway {
    /// All of them.
    pub const ALL: [TurnedAway; 6] = [
        TurnedAway::Silent,
        TurnedAway::Evicted,
        TurnedAway::Full,
        TurnedAway::HoldFull,
        TurnedAway::HoldOver,
        TurnedAway::Stopped,
    ];

    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            TurnedAway::Silent => "silent",
            TurnedAway::Evicted => "evicted",
            TurnedAway::Full => "full",
            TurnedAway::HoldFull => "hold-full",
            TurnedAway::HoldOver => "hold-over",
            TurnedAway::Stopped => "stopped",
        }
    }
}

/// Counts at one moment. Everything grows but for what says "now".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By upstream.
    pub upstreams: BTreeMap<Endpoint, UpstreamCounts>,
    /// Clients accepted.
    pub accepted: u64,
    /// Client connections now, in whatever phase.
    pub clients: usize,
    /// Times a client was held.
    pub holds: u64,
    /// Clients held now.
    pub held: u32,
    /// ClientHellos sent to one more upstream, each paid with a token.
    pub replays: u64,
    /// Replays not made for want of a token.
    pub replays_refused: u64,
    /// ClientHellos that came while the same one was being forwarded.
    pub repeated_hellos: u64,
    /// Clients turned away.
    pub turned_away: BTreeMap<TurnedAway, u64>,
    /// Failures to accept.
    pub accept_errors: u64,
    /// Tasks that panicked.
    pub panics: u64,
    /// Sightings that the engine was too busy to take.
    pub sightings_dropped: u64,
}

/// Counts of one upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamCounts {
    /// Dials by how they ended.
    pub dials: BTreeMap<DialEnd, u64>,
    /// Connections whose client it served.
    pub opened: u64,
    /// Such connections now.
    pub open: u32,
    /// Connected, and silent for the first-byte delay.
    pub no_first_byte: u64,
    /// Connected, and closed or reset before its first byte.
    pub closed_early: u64,
    /// Bytes from clients, those of open connections included.
    pub to_upstream: u64,
    /// Bytes to clients, those of open connections included.
    pub to_client: u64,
    /// Established connections that were reset, by why.
    pub resets: BTreeMap<ResetReason, u64>,
}

/// Endpoints that counts are kept of: addresses come and go for as long as the agent runs.
const UPSTREAMS_MOST: usize = 4 * policy::ENDPOINTS;

/// The counts as they grow.
#[derive(Debug, Default)]
pub(super) struct Stats(Mutex<Snapshot>);

impl Stats {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts so far, but for what is "now" or belongs to connections that are still open.
    pub(super) fn so_far(&self) -> Snapshot {
        self.lock().clone()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock());
    }

    pub(super) fn turned_away(&self, why: TurnedAway) {
        self.count(|counts| *counts.turned_away.entry(why).or_default() += 1);
    }

    /// Changes one upstream's counts. True if counts are kept of too many upstreams.
    pub(super) fn upstream(&self, endpoint: Endpoint, change: impl FnOnce(&mut UpstreamCounts)) -> bool {
        let mut counts = self.lock();
        change(counts.upstreams.entry(endpoint).or_default());
        counts.upstreams.len() > UPSTREAMS_MOST
    }
}
