//! `compare`: two revisions or configurations, the same scenarios and seeds.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::table::Table;
use crate::sim::compare::{Moved, Sense, compare};
use crate::sim::results::Results;
use crate::sim::words::count;

/// Which results.
#[derive(Debug, Args)]
pub struct Compare {
    /// results.json of a sweep, as it was.
    #[arg(value_name = "RESULTS_A")]
    before: PathBuf,
    /// And as it is.
    #[arg(value_name = "RESULTS_B")]
    after: PathBuf,
    /// Only what got worse.
    #[arg(long)]
    worse: bool,
}

impl Compare {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let (before, after) = (Results::read(&self.before)?, Results::read(&self.after)?);
        for (path, results) in [(&self.before, &before), (&self.after, &after)] {
            let build = &results.build;
            say!("{}: prismesh {}, {}, {}", path.display(), build.version, build.profile, build.machine);
        }
        let compared =
            compare(&before, &after).with_context(|| format!("{} and {}", self.before.display(), self.after.display()))?;
        for missing in &compared.missing {
            say!("{missing}");
        }
        let shown: Vec<&Moved> = compared.moved.iter().filter(|moved| !self.worse || moved.sense == Sense::Worse).collect();
        if !shown.is_empty() {
            let mut table = Table::new(&["scenario", "what", "was", "is", ""]);
            for moved in shown {
                let (from, to) = moved.from_to.clone();
                table.row(vec![moved.scenario.clone(), moved.what.clone(), from, to, moved.sense.word().to_owned()]);
            }
            for line in table.lines() {
                say!("{line}");
            }
        }
        let of = |sense| compared.moved.iter().filter(|moved| moved.sense == sense).count();
        say!(
            "{} on both sides: {} worse, {} better, {} otherwise different, beyond the spread of seeds",
            count(compared.runs, "run"),
            of(Sense::Worse),
            of(Sense::Better),
            of(Sense::Neither)
        );
        Ok(!compared.worse())
    }
}
