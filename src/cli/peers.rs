//! `prismesh peers`: the mesh as this node sees it.

use clap::Args;

use super::admin::{AgentStatus, Asked, Peer};
use super::output::{Failure, print};
use super::table::{milliseconds, or_dash, table};

/// Shows the other nodes.
#[derive(Debug, Args)]
pub(super) struct Peers {
    #[command(flatten)]
    asked: Asked,
}

impl Peers {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let answer = self.asked.ask()?;
        if self.asked.json {
            let peers = answer.json.get("peers").cloned().unwrap_or_else(|| serde_json::json!([]));
            return print(&format!("{peers:#}\n"));
        }
        print(&people(&answer.status))
    }
}

fn people(status: &AgentStatus) -> String {
    if status.peers.is_empty() {
        return match status.gossip {
            Some(_) => "No other node has been heard.\n",
            None => "Gossip is off.\n",
        }
        .to_owned();
    }
    let rows: Vec<_> = status.peers.iter().map(row).collect();
    table(["NAME", "ID", "ROLE", "ALIVE", "AGENT", "APISERVER", "ADDRESS", "ROUND TRIP", "HEARD"], &rows)
}

fn row(peer: &Peer) -> [String; 9] {
    [
        peer.name.clone(),
        peer.node.clone(),
        peer.role.clone(),
        if peer.alive { "yes" } else { "no" }.to_owned(),
        or_dash(peer.agent.as_ref()),
        or_dash(peer.apiserver.as_ref()),
        or_dash(peer.address.as_ref()),
        milliseconds(peer.rtt_ms),
        peer.last_heard_s.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s ago")),
    ]
}
