//! `prismesh status`: this node and its upstreams, best first.

use clap::Args;

use super::admin::{AgentStatus, Asked};
use super::output::{Failure, harmless, print};
use super::table::{milliseconds, table};

/// Shows the agent and its upstreams.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    asked: Asked,
}

impl Status {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let answer = self.asked.ask()?;
        print(&if self.asked.json { format!("{:#}\n", answer.json) } else { people(&answer.status) })
    }
}

fn people(status: &AgentStatus) -> String {
    let gossip = status.gossip.as_deref().unwrap_or("off");
    let admin = status.admin.as_deref().unwrap_or("-");
    let head = [
        ("node", format!("{} ({}), prismesh {}", status.node, status.role, status.version)),
        ("cluster", format!("{}, {}", status.cluster, nodes(status.cluster_size))),
        ("listen", status.listen.join(", ")),
        ("admin", admin.to_owned()),
        ("gossip", gossip.to_owned()),
    ];
    let mut text: String = head.iter().map(|(what, value)| format!("{what:8} {}\n", harmless(value))).collect();
    text.extend(status.notes.iter().map(|note| format!("{:8} {}\n", "note", harmless(note))));
    text.push('\n');
    if status.upstreams.is_empty() {
        text.push_str(status.no_endpoint());
        return text;
    }
    let rows: Vec<_> = status
        .upstreams
        .iter()
        .map(|upstream| {
            [
                if upstream.best { "*" } else { "" }.to_owned(),
                upstream.endpoint.clone(),
                upstream.verdict.clone(),
                upstream.sources.join(","),
                milliseconds(upstream.rtt_ms),
                upstream.load.map_or_else(|| "-".to_owned(), |load| load.to_string()),
                upstream.connections.to_string(),
            ]
        })
        .collect();
    text + &table(["", "ENDPOINT", "VERDICT", "SOURCE", "ROUND TRIP", "LOAD", "CONNECTIONS"], &rows)
}

fn nodes(number: u64) -> String {
    if number == 1 { "1 node".to_owned() } else { format!("{number} nodes") }
}
