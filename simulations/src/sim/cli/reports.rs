//! `reports`: what peers' reports are worth to a node that has just come.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::pool::{self, Job};
use super::table::Table;
use crate::sim::file;
use crate::sim::measure::reports::{self, plan};
use crate::sim::results::{Reports as Heard, Results};
use crate::sim::sabotage::WITHOUT_REPORTS;

/// How many seeds, and where the figures are kept.
#[derive(Debug, Args)]
pub struct Reports {
    /// So many seeds with reports, and as many without.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Write the figures into this file of results, as `sweep --out` leaves one, or into a new one.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// A run that takes longer than this on the wall is ended.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    wall: u64,
}

impl Reports {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        self.into.as_deref().map(Results::to_change).transpose()?;
        let dir = tempfile::tempdir().context("cannot make a directory for the story")?;
        let path = dir.path().join("newcomer.yaml");
        std::fs::write(&path, file::written(&plan())?).context("cannot write the story")?;
        let tries: Vec<(bool, u64)> = (1..=self.seeds).flat_map(|seed| [(true, seed), (false, seed)]).collect();
        let jobs: Vec<Job> = tries
            .iter()
            .map(|(heard, seed)| {
                let words = ["--seed", &seed.to_string(), "--measure", "reports", "--cluster", &path.to_string_lossy()];
                let mut arguments: Vec<String> = words.map(str::to_owned).into();
                if !heard {
                    arguments.extend(["--sabotage".to_owned(), WITHOUT_REPORTS.name.to_owned()]);
                }
                Job { name: "newcomer".to_owned(), seed: *seed, arguments }
            })
            .collect();
        let mut found = BTreeMap::new();
        let mut whole = true;
        pool::play_all(&jobs, pool::cores(), Duration::from_secs(self.wall), |place, played| {
            let (heard, seed) = tries[place];
            // What the run says of invariants is not asked here: one half is spoilt on purpose.
            whole &= played.outcome.virtual_ms > 0;
            found.insert(place, Heard { heard, seed, figures: played.outcome.figures });
        })?;
        let found: Vec<Heard> = found.into_values().collect();
        for line in table(&found).lines() {
            say!("{line}");
        }
        if self.seeds < reports::ENOUGH {
            say!("too few seeds to tell; {} or more would do", reports::ENOUGH);
        }
        if let Some(path) = &self.into {
            Results::change(path, |results| results.reports = found)?;
            say!("written to {}", path.display());
        }
        Ok(whole)
    }
}

/// Medians and the worst over seeds, a row a figure.
fn table(found: &[Heard]) -> Table {
    let mut table = Table::new(&["", "with reports: median", "most", "without: median", "most"]);
    let names: std::collections::BTreeSet<&String> = found.iter().flat_map(|it| it.figures.keys()).collect();
    for name in names {
        let of = |heard: bool| {
            let mut values: Vec<f64> =
                found.iter().filter(|it| it.heard == heard).filter_map(|it| it.figures.get(name)).copied().collect();
            values.sort_unstable_by(f64::total_cmp);
            let tell = |value: Option<&f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            [tell(values.get(values.len() / 2)), tell(values.last())]
        };
        let ([with, with_most], [without, without_most]) = (of(true), of(false));
        table.row(vec![name.clone(), with, with_most, without, without_most]);
    }
    table
}
