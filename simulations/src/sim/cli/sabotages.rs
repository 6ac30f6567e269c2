//! `sabotages`: who notices when an agent is spoilt?

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::pool::{self, Job};
use super::table::Table;
use crate::scenarios;
use crate::sim::outcome::Outcome;
use crate::sim::results::{self, Caught};
use crate::sim::sabotage::{self, Sabotage};
use crate::sim::scenario::Class;

/// Names the sabotages, or plays them.
#[derive(Debug, Args)]
pub struct Sabotages {
    /// Play each in the scenario that is known to show it; it fails if the invariant that it aims at does not break.
    #[arg(long)]
    play: bool,
    /// Play each in all quick scenarios, in the smallest cluster.
    #[arg(long)]
    all: bool,
    /// Only these.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// Write what was caught by what to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A run that takes longer than this on the wall is ended.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    wall: u64,
}

impl Sabotages {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let wanted = self.wanted()?;
        if !self.play && !self.all {
            for it in wanted {
                say!("{:<20} {:>2}  {}", it.name, it.aims_at, it.what);
            }
            return Ok(true);
        }
        let tries: Vec<(&Sabotage, String, u64)> = wanted.iter().flat_map(|it| self.tries(it)).collect();
        let caught = self.play_all(&tries)?;
        if let Some(path) = &self.json {
            results::write_json(path, &caught)?;
        }
        Ok(tell(&wanted, &caught))
    }

    fn wanted(&self) -> anyhow::Result<Vec<&'static Sabotage>> {
        if self.only.is_empty() {
            return Ok(sabotage::ALL.iter().collect());
        }
        let known = |name: &String| {
            sabotage::find(name).with_context(|| format!("there is no sabotage {name:?}; `sabotages` prints them all"))
        };
        self.only.iter().map(known).collect()
    }

    fn tries<'s>(&self, it: &'s Sabotage) -> Vec<(&'s Sabotage, String, u64)> {
        if self.all {
            let quick = scenarios::ALL.iter().filter(|scenario| scenario.class == Class::Quick);
            return quick.map(|scenario| (it, scenario.name.to_owned(), 1)).collect();
        }
        vec![(it, it.shows_in.0.to_owned(), it.shows_in.1)]
    }

    fn play_all(&self, tries: &[(&Sabotage, String, u64)]) -> anyhow::Result<Vec<Caught>> {
        let job = |(it, scenario, seed): &(&Sabotage, String, u64)| {
            let mut words = vec![scenario.clone(), "--seed".into(), seed.to_string(), "--sabotage".into(), it.name.into()];
            if self.all {
                words.push("--smallest".into());
            }
            Job { name: scenario.clone(), seed: *seed, arguments: words }
        };
        let jobs: Vec<Job> = tries.iter().map(job).collect();
        let mut caught = BTreeMap::new();
        pool::play_all(&jobs, pool::cores(), Duration::from_secs(self.wall), |place, played| {
            caught.insert(place, found(tries[place].0, &played.outcome));
        })?;
        Ok(caught.into_values().collect())
    }
}

fn found(it: &Sabotage, outcome: &Outcome) -> Caught {
    let broken = outcome.invariants.iter().filter(|judged| judged.broken > 0);
    Caught {
        scenario: outcome.scenario.clone(),
        sabotage: it.name.to_owned(),
        aims_at: it.aims_at,
        caught_by: broken.map(|judged| judged.number).collect(),
        otherwise: !(outcome.broken_promises.is_empty() && outcome.complaints.is_empty() && outcome.leftovers.is_empty()),
    }
}

/// Prints who caught what; whether each was caught by the invariant that it aims at.
fn tell(wanted: &[&Sabotage], caught: &[Caught]) -> bool {
    let mut table = Table::new(&["sabotage", "aims at", "caught by it in", "by others", "by nothing"]);
    let mut all = true;
    for it in wanted {
        let of = || caught.iter().filter(|caught| caught.sabotage == it.name);
        let aimed = of().filter(|caught| match it.aims_at {
            0 => caught.otherwise,
            invariant => caught.caught_by.contains(&invariant),
        });
        let aimed = aimed.count();
        let nothing = of().filter(|caught| caught.caught_by.is_empty() && !caught.otherwise).count();
        let others = of().count() - aimed - nothing;
        all &= aimed > 0;
        table.row(vec![it.name.into(), it.aims_at.to_string(), aimed.to_string(), others.to_string(), nothing.to_string()]);
    }
    for line in table.lines() {
        say!("{line}");
    }
    all
}
