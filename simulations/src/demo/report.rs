//! The table at the end, and the same as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::stage::{Stage, Way};
use crate::lab::tally::Request;

/// A watch whose lines come each 200 ms is not silent before this.
const WORTH_TELLING: Duration = Duration::from_millis(500);

/// A phase that is over.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// When it began.
    pub from: Instant,
    /// When it ended.
    pub to: Instant,
}

/// What the demo found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// No request through prismesh failed.
    pub passed: bool,
    /// Tells the same story again.
    pub seed: u64,
    /// Nodes, each with a client either way.
    pub nodes: usize,
    /// Real API servers.
    pub kubernetes: bool,
    /// A phase a row.
    pub phases: Vec<Row>,
    /// All phases together.
    pub total: Row,
}

/// A row of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The phase.
    pub phase: String,
    /// How long it lasted.
    pub seconds: f64,
    /// Clients through prismesh.
    pub prismesh: Cell,
    /// Clients of the external balancer.
    pub direct: Cell,
}

/// What the clients of one way saw in one phase. A request belongs to the phase in which it began.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// Requests, each over a new TLS connection.
    pub requests: usize,
    /// Those that ended with an error, or not at all.
    pub failed: usize,
    /// Those that were reset and sent once more, as client-go does.
    pub retried: usize,
    /// The slowest, in milliseconds.
    pub slowest_ms: u64,
    /// The longest time in which a watch was without a line, in milliseconds. Lines come each 200 ms.
    pub longest_watch_silence_ms: u64,
}

impl Report {
    /// Counts. Requests still under way have failed.
    pub fn of(stage: &Stage, spans: &[Span], seed: u64, kubernetes: bool) -> Report {
        let phases: Vec<Row> = spans.iter().map(|span| Row::of(stage, span)).collect();
        let whole = spans.first().zip(spans.last()).map(|(first, last)| (first.from, last.to));
        let (from, to) = whole.unwrap_or((Instant::now(), Instant::now()));
        let total = Row::of(stage, &Span { name: "in all".to_owned(), from, to });
        let passed = total.prismesh.failed == 0 && total.prismesh.requests > 0;
        Report { passed, seed, nodes: stage.cluster.nodes.len(), kubernetes, phases, total }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let head = "requests  failed  retried  slowest   watch silent";
        let _ = writeln!(text, "{:18} | {:^47} | {:^47}", "", "through prismesh", "through the external balancer");
        let _ = writeln!(text, "{:18} | {head} | {head}", "phase");
        let line = "-".repeat(47);
        let _ = writeln!(text, "{}-+-{line}-+-{line}", "-".repeat(18));
        for row in self.phases.iter().chain([&self.total]) {
            let _ = writeln!(text, "{:18} | {} | {}", row.phase, row.prismesh.columns(), row.direct.columns());
        }
        text
    }
}

impl Row {
    fn of(stage: &Stage, span: &Span) -> Row {
        Row {
            phase: span.name.clone(),
            seconds: (span.to - span.from).as_secs_f64(),
            prismesh: Cell::of(&stage.prismesh, span),
            direct: Cell::of(&stage.direct, span),
        }
    }
}

impl Cell {
    fn of(way: &Way, span: &Span) -> Cell {
        let requests = way.tally.between(span.from, span.to);
        Cell {
            requests: requests.len(),
            failed: requests.iter().filter(|request| !request.answered()).count(),
            retried: requests.iter().filter(|request| request.retried).count(),
            slowest_ms: millis(requests.iter().map(Request::took).max().unwrap_or_default()),
            longest_watch_silence_ms: millis(way.longest_silence(span.from, span.to)),
        }
    }

    fn columns(&self) -> String {
        let slowest = format!("{} ms", self.slowest_ms);
        let silence = Duration::from_millis(self.longest_watch_silence_ms);
        let silence = if silence < WORTH_TELLING { "-".to_owned() } else { format!("{:.1} s", silence.as_secs_f64()) };
        format!("{:8}  {:6}  {:7}  {slowest:>8}  {silence:>12}", self.requests, self.failed, self.retried)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
