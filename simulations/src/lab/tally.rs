//! What clients saw, to be asked afterwards.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Answer, Failure};

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its connection was begun.
    pub began: Instant,
    /// When it ended and how; [`None`] while it is under way.
    pub ended: Option<(Instant, Result<Answer, Failure>)>,
    /// It was reset and sent once more.
    pub retried: bool,
}

impl Request {
    /// How long it took, or has taken so far.
    pub fn took(&self) -> Duration {
        self.ended.as_ref().map_or_else(Instant::now, |(at, _)| *at) - self.began
    }

    /// How it failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        self.ended.as_ref().and_then(|(_, outcome)| outcome.as_ref().err())
    }

    /// Whether it was answered well.
    pub fn answered(&self) -> bool {
        self.ended.as_ref().is_some_and(|(_, outcome)| outcome.is_ok())
    }

    /// The server that answered.
    pub fn server(&self) -> Option<&str> {
        self.ended.as_ref()?.1.as_ref().ok()?.server.as_deref()
    }
}

/// All requests of some clients. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Vec<Request>>>);

impl Tally {
    /// A request begins now.
    pub fn begin(&self) -> usize {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(Request { began: Instant::now(), ended: None, retried: false });
        requests.len() - 1
    }

    /// It ended now.
    pub fn end(&self, id: usize, outcome: Result<Answer, Failure>, retried: bool) {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(request) = requests.get_mut(id) {
            request.ended = Some((Instant::now(), outcome));
            request.retried = retried;
        }
    }

    /// The requests begun in a span of time, oldest first.
    pub fn between(&self, from: Instant, to: Instant) -> Vec<Request> {
        let requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|request| request.began >= from && request.began < to).cloned().collect()
    }

    /// The requests begun since.
    pub fn since(&self, from: Instant) -> Vec<Request> {
        self.between(from, Instant::now() + Duration::from_secs(1))
    }

    /// Requests that ended in a span of time: how many well, how many not.
    pub fn ended_between(&self, from: Instant, to: Instant) -> (usize, usize) {
        let requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the recent ones can matter: none takes longer than its client's patience.
        let ended = requests.iter().filter_map(|request| request.ended.as_ref()).filter(|(at, _)| *at >= from && *at < to);
        ended.fold((0, 0), |(well, badly), (_, outcome)| if outcome.is_ok() { (well + 1, badly) } else { (well, badly + 1) })
    }

    /// Requests that have been under way for longer than this.
    pub fn waiting_since(&self, long: Duration) -> usize {
        let requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|request| request.ended.is_none() && request.began.elapsed() > long).count()
    }

    /// Requests under way.
    pub fn waiting(&self) -> usize {
        let requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|request| request.ended.is_none()).count()
    }
}

/// The usual time of these requests: the median of those that were answered.
pub fn usual(requests: &[Request]) -> Duration {
    let mut took: Vec<Duration> = requests.iter().filter(|request| request.answered()).map(Request::took).collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied().unwrap_or_default()
}
