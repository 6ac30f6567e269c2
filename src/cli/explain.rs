//! `prismesh explain`: for each endpoint why it stands where it stands, from which evidence.

use std::fmt::Write as _;

use clap::Args;

use super::admin::{AgentStatus, Asked, read};
use super::output::{Failure, harmless, print};
use super::table::milliseconds;

/// Shows the reasons.
#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    asked: Asked,
}

impl Explain {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let answer = self.asked.ask()?;
        if self.asked.json {
            let upstreams = answer.json.get("upstreams").cloned().unwrap_or_else(|| serde_json::json!([]));
            return print(&format!("{upstreams:#}\n"));
        }
        print(&people(&answer.status))
    }
}

/// What `prismesh explain` prints for an agent whose admin port answered `/status` with this.
///
/// # Errors
///
/// It is no status.
pub fn explained(status: &[u8]) -> anyhow::Result<String> {
    Ok(people(&read(status)?.status))
}

fn people(status: &AgentStatus) -> String {
    let mut text = String::new();
    if status.upstreams.is_empty() {
        text.push_str(status.no_endpoint());
    }
    for (place, upstream) in status.upstreams.iter().enumerate() {
        let best = if upstream.best { ", best" } else { "" };
        let head = format!("{}. {}  {}{best}", place + 1, upstream.endpoint, upstream.verdict);
        let more = format!("known from {}, round trip {}", upstream.sources.join(", "), milliseconds(upstream.rtt_ms));
        let _ = writeln!(text, "{}\n     {}", harmless(&head), harmless(&more));
        for reason in &upstream.reasons {
            let _ = writeln!(text, "   - {}", harmless(reason));
        }
    }
    // What is no endpoint, such as one that was left out, has its reasons too.
    for note in &status.notes {
        let _ = writeln!(text, "Note: {}", harmless(note));
    }
    text
}
