//! The command line of the simulations.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what people read")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::draw::Draw;
use super::run::{self, Options, Ran};
use super::scenario::Cast;
use crate::scenarios;

/// Plays one scenario with one seed.
#[derive(Debug, Args)]
pub struct Run {
    /// The scenario's name; `list` prints them all.
    scenario: String,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The smallest cluster in which the story means something.
    #[arg(long)]
    smallest: bool,
    /// Show the agents' logs: a `tracing` filter.
    #[arg(long)]
    log: Option<String>,
}

impl Run {
    /// Plays it.
    pub fn main(&self) -> ExitCode {
        match self.play() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::from(2)
            }
        }
    }

    fn play(&self) -> anyhow::Result<bool> {
        let scenario = scenarios::ALL.iter().find(|scenario| scenario.name == self.scenario);
        let Some(scenario) = scenario else { anyhow::bail!("there is no scenario {:?}; `list` prints them all", self.scenario) };
        let plan = (scenario.plan)(&Cast { draw: Draw::of(self.seed), smallest: self.smallest });
        let begun = Instant::now();
        let ran = run::run(&plan, self.seed, &Options { log: self.log.clone(), ..Options::default() })?;
        let took = begun.elapsed();
        tell(&ran, took.as_secs_f64());
        Ok(ran.complaints.is_empty() && ran.leftovers.is_empty())
    }
}

fn tell(ran: &Ran, took: f64) {
    let failed = ran.log.clients.iter().filter(|client| client.hello.is_some() && client.first_byte.is_none() && !matches!(client.ended, Some((_, super::log::ClientEnd::Over)))).count();
    println!("hash {} seed {} nodes {} virtual {} s wall {took:.2} s ({:.0} times)", ran.hash, ran.seed, ran.names.len(), ran.ended / 1000, ran.ended as f64 / 1e3 / took);
    println!("steps {} datagrams {:?} clients {} failed {failed} peaks {:?}", ran.steps, ran.datagrams, ran.log.clients.len(), ran.peaks);
    println!("left {:?} complaints {:?}", ran.leftovers, ran.complaints);
    let mut ends = std::collections::BTreeMap::new();
    for client in &ran.log.clients {
        *ends.entry((client.kind, format!("{:?}", client.ended.map(|(_, end)| end)))).or_insert(0) += 1;
    }
    println!("{ends:?}");
}
