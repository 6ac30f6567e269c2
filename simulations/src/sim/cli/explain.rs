//! `explain`: what a node's agent thought at one moment of a run, in its own words.

use clap::Args;

use super::story::Story;
use crate::sim::run::{self, Options};
use crate::sim::span::{self, Span};
use crate::sim::state::Ms;

/// After the question the run goes on for as long as an answer may take.
const ANSWER: Ms = 6_000;

/// Whom to ask, and when.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    story: Story,
    /// The node whose agent is asked.
    #[arg(long)]
    node: String,
    /// When, such as 12.5s; a bare number is milliseconds.
    #[arg(long, value_parser = span::parse, value_name = "TIME")]
    at: Ms,
    /// Print the agent's whole status as JSON.
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let told = self.story.tell()?;
        let (name, mut plan) = (told.scenario.name, told.plan);
        anyhow::ensure!(
            self.at <= plan.lasts,
            "--at {}: that is after the end of {name}, which lasts {}",
            Span(self.at),
            Span(plan.lasts)
        );
        let names = plan.names();
        anyhow::ensure!(
            names.contains(&self.node),
            "--node {}: no node of {name} has that name; there are {}",
            self.node,
            names.join(", ")
        );
        plan.lasts = plan.lasts.min(self.at + ANSWER);
        let ask = Some((self.node.clone(), self.at));
        let options = Options { ask, sabotage: self.story.sabotage, ..Options::default() };
        let ran = run::run(&plan, self.story.seed, &options).map_err(|error| self.story.cannot(error, name))?;
        match ran.asked {
            Some(Ok(status)) if self.json => {
                let status: serde_json::Value = serde_json::from_slice(&status)?;
                say!("{status:#}");
                Ok(true)
            }
            Some(Ok(status)) => {
                say!("{} at {}", self.node, Span(self.at));
                say!("{}", prismesh::cli::explained(&status)?.trim_end());
                Ok(true)
            }
            Some(Err(why)) => {
                say!("{} at {}: {why}", self.node, Span(self.at));
                Ok(false)
            }
            None => anyhow::bail!("nobody asked"),
        }
    }
}
