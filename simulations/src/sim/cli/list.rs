//! `list`: what can be played.

use clap::Args;

use super::story::first_sentence;
use super::table::Table;
use crate::scenarios;
use crate::sim::scenario::{Class, Scenario};

/// Which scenarios.
#[derive(Debug, Args)]
pub struct List {
    /// Only those of at most 90 virtual seconds.
    #[arg(long, conflicts_with = "long")]
    quick: bool,
    /// Only the longer ones.
    #[arg(long)]
    long: bool,
}

impl List {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let mut table = Table::new(&["scenario", "class", "nodes at least", "seconds", "story"]);
        for scenario in scenarios::ALL.iter().filter(|scenario| self.wants(scenario)) {
            let smallest = scenario.tell(1, true);
            table.row(vec![
                scenario.name.to_owned(),
                scenario.class.name().to_owned(),
                smallest.cluster.nodes.len().to_string(),
                (smallest.lasts / 1_000).to_string(),
                first_sentence(scenario.story).to_owned(),
            ]);
        }
        for line in table.lines() {
            say!("{line}");
        }
        Ok(true)
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        match scenario.class {
            Class::Quick => !self.long,
            Class::Long => !self.quick,
        }
    }
}
