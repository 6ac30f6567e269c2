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
    table(["NAME", "KIND", "ADDRESS", "STATE", "VERSION", "KEYS", "ROUND TRIP", "HEARD", "CONNECTIONS"], &rows)
}

fn row(peer: &Peer) -> [String; 9] {
    [
        peer.name.clone(),
        peer.role.replace('-', " "),
        or_dash(peer.address.as_ref()),
        state(peer),
        or_dash(peer.version.as_ref()),
        keys(peer),
        milliseconds(peer.rtt_ms),
        peer.last_heard_s.map_or_else(|| "-".to_owned(), |seconds| format!("{} ago", span(seconds))),
        peer.connections.map_or_else(|| "-".to_owned(), |connections| connections.to_string()),
    ]
}

/// What a node that is there says of itself; of one that is not there, for how long it has not been heard.
fn state(peer: &Peer) -> String {
    let leaving = peer.agent.as_deref() == Some("leaving");
    match &peer.apiserver {
        _ if !peer.alive => {
            let gone = if leaving { "left" } else { "away" };
            peer.away_s.map_or_else(|| gone.to_owned(), |seconds| format!("{gone} {}", span(seconds)))
        }
        _ if leaving => "leaving".to_owned(),
        Some(apiserver) => apiserver.clone(),
        None => "live".to_owned(),
    }
}

fn keys(peer: &Peer) -> String {
    let keys = Some(peer.keys.join(","));
    or_dash(keys.as_ref()) + if peer.full_keyring == Some(true) { " full" } else { "" }
}

/// A span of time, to about two digits.
fn span(seconds: f64) -> String {
    const UNITS: [(f64, f64, &str); 3] = [(120.0, 1.0, "s"), (7_200.0, 60.0, "min"), (172_800.0, 3_600.0, "h")];
    match UNITS.iter().find(|(below, ..)| seconds < *below) {
        Some((_, 1.0, unit)) if seconds < 10.0 => format!("{seconds:.1} {unit}"),
        Some((_, each, unit)) => format!("{:.0} {unit}", seconds / each),
        None => format!("{:.0} d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, role: &str) -> Peer {
        let (name, role) = (name.to_owned(), role.to_owned());
        Peer { name, role, address: Some("10.0.0.1:7447".to_owned()), alive: true, ..Peer::default() }
    }

    #[test]
    fn a_node_that_is_gone_is_away_or_left_and_since_when_and_nothing_else() {
        let away = Peer { alive: false, agent: Some("running".to_owned()), away_s: Some(300.0), ..peer("cp", "control-plane") };
        assert_eq!(state(&away), "away 5 min");
        let left = Peer { agent: Some("leaving".to_owned()), away_s: Some(5_000_000.0), ..away };
        assert_eq!(state(&left), "left 58 d");
        assert_eq!(state(&Peer { away_s: None, ..left }), "left");
        let ready = Peer { apiserver: Some("ready".to_owned()), ..peer("cp", "control-plane") };
        assert_eq!(state(&ready), "ready");
        assert_eq!(state(&Peer { agent: Some("leaving".to_owned()), ..ready }), "leaving");
        assert_eq!(state(&peer("w", "worker")), "live");
    }

    #[test]
    fn the_table_has_the_promised_columns() {
        let worker = Peer {
            version: Some("0.1.0".to_owned()),
            keys: vec!["0a1b2c3d".to_owned(), "4e5f6a7b".to_owned()],
            full_keyring: Some(true),
            last_heard_s: Some(2.0),
            connections: Some(4),
            ..peer("w", "worker")
        };
        let core = Peer { rtt_ms: Some(0.5), apiserver: Some("ready".to_owned()), ..peer("cp", "control-plane") };
        let status = AgentStatus { peers: vec![core, worker], ..AgentStatus::default() };
        assert_eq!(
            people(&status),
            "NAME  KIND           ADDRESS        STATE  VERSION  KEYS                    ROUND TRIP  HEARD      CONNECTIONS\n\
             cp    control plane  10.0.0.1:7447  ready  -        -                       0.50 ms     -          -\n\
             w     worker         10.0.0.1:7447  live   0.1.0    0a1b2c3d,4e5f6a7b full  -           2.0 s ago  4\n"
        );
    }
}
