//! How the story is told: a line when something is done, a line when it is noticed, a line a second in between.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::script::Act;
use super::stage::{Stage, Way};
use crate::lab::status::Status;

const BOLD: &str = "1";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const DIM: &str = "2";

/// Prints, in colour on a terminal.
pub(super) struct Voice {
    began: Instant,
    colour: bool,
}

/// What a person would want to hear about after an act.
#[derive(Clone, Debug)]
pub(super) enum Goal {
    /// No node uses it any more.
    Away(String, SocketAddr),
    /// Every node uses it again.
    Back(String, SocketAddr),
}

impl Goal {
    /// What an act should lead to.
    pub(super) fn of(act: Act, stage: &Stage) -> Option<Goal> {
        let apiserver = |index: usize| {
            let apiserver = stage.cluster.apiservers.get(index)?;
            Some((apiserver.name.clone(), apiserver.addr))
        };
        let balancer = ("the balancer".to_owned(), stage.cluster.balancer_addr());
        match act {
            Act::Watch => None,
            Act::BalancerHangs => Some(Goal::Away(balancer.0, balancer.1)),
            Act::BalancerDies => None,
            Act::BalancerBack => Some(Goal::Back(balancer.0, balancer.1)),
            Act::Kill(index) | Act::Hang(index) | Act::Drain(index) => {
                apiserver(index).map(|(name, addr)| Goal::Away(name, addr))
            }
            Act::Start(index) | Act::GoOn(index) => apiserver(index).map(|(name, addr)| Goal::Back(name, addr)),
        }
    }

    /// In words, once it is reached.
    pub(super) fn reached(&self, statuses: &[Status], nodes: usize) -> Option<String> {
        match self {
            Goal::Away(name, addr) if statuses.len() == nodes && using(statuses, *addr) == 0 => {
                Some(format!("no node sends anything new to {name} any more"))
            }
            Goal::Back(name, addr) if using(statuses, *addr) == nodes => Some(format!("all {nodes} nodes count on {name} again")),
            _ => None,
        }
    }
}

/// Nodes that hold an endpoint to be ready.
fn using(statuses: &[Status], endpoint: SocketAddr) -> usize {
    statuses.iter().filter(|status| status.verdict(endpoint) == Some("ready")).count()
}

impl Voice {
    /// Begins the clock.
    pub(super) fn new() -> Voice {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Voice { began: Instant::now(), colour }
    }

    /// The story begins: its clock stands at zero.
    pub(super) fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// A line of its own.
    pub(super) fn say(&self, text: &str) {
        print(text);
    }

    /// Something is done.
    pub(super) fn announce(&self, text: &str) {
        print("");
        print(&format!("{}  {}", self.clock(), self.paint(BOLD, text)));
    }

    /// Something was noticed.
    pub(super) fn noticed(&self, after: Duration, text: &str) {
        let text = format!("after {:.1} s {text}", after.as_secs_f64());
        print(&format!("{}  {}", self.clock(), self.paint(GREEN, &text)));
    }

    /// Something is wrong.
    pub(super) fn alarm(&self, text: &str) {
        print(&self.paint(RED, text));
    }

    /// How things stand; `from` is a second ago.
    pub(super) fn second(&self, stage: &Stage, statuses: &[Status], from: Instant) {
        let nodes = stage.cluster.nodes.len();
        let mut line = self.clock();
        for apiserver in &stage.cluster.apiservers {
            line += &self.usage(&apiserver.name, using(statuses, apiserver.addr), nodes);
        }
        line += &self.usage("balancer", using(statuses, stage.cluster.balancer_addr()), nodes);
        line += &format!(
            " │ prismesh {} │ balancer {}",
            self.last_second(&stage.prismesh, from),
            self.last_second(&stage.direct, from)
        );
        print(&line);
    }

    fn usage(&self, name: &str, using: usize, nodes: usize) -> String {
        let colour = match using {
            0 => RED,
            some if some < nodes => YELLOW,
            _ => GREEN,
        };
        format!("  {name} {}", self.paint(colour, &format!("{using}/{nodes}")))
    }

    fn last_second(&self, way: &Way, from: Instant) -> String {
        let (well, badly) = way.tally.ended_between(from, Instant::now());
        let silent = way.clients() - way.flowing();
        let failed = self.paint(if badly == 0 { DIM } else { RED }, &format!("{badly:2} failed"));
        let mut text = format!("{well:3} ok {failed}");
        // A request that is under way at this instant is not news; one that has been for a while is.
        let waiting = way.tally.waiting_since(Duration::from_millis(500));
        for (number, what) in [(waiting, "waiting"), (silent, "watches silent")] {
            if number > 0 {
                text += &self.paint(YELLOW, &format!(", {number} {what}"));
            }
        }
        text
    }

    fn clock(&self) -> String {
        let seconds = self.began.elapsed().as_secs();
        self.paint(DIM, &format!("{}:{:02}", seconds / 60, seconds % 60))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A closed pipe (`demo | head`) is no reason to fall over: the lab's children would outlive a panic by a moment.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
