//! `report`: one page that shows what came of sweeps.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::calibrate::calibrate;
use super::growth;
use crate::sim::report::{self, Gathered};
use crate::sim::results::Results;

/// Of what, and where to.
#[derive(Debug, Args)]
pub struct Report {
    /// results.json of sweeps, and what `run --json` and `sabotages --json` wrote.
    #[arg(required_unless_present_any = ["calibrate", "full"], value_name = "RESULTS")]
    results: Vec<PathBuf>,
    /// Play the fault table on real sockets and in the model first, and add what comes of it to the first of these files, if there is
    /// one.
    #[arg(long)]
    calibrate: bool,
    /// Measure clusters of 5 to 1,000 nodes first, which takes long, and add the figures to the first of these files, if there is one.
    #[arg(long)]
    full: bool,
    /// So many runs of clusters of 500 and 1,000 nodes at the same time: each takes a core, and 10 GB at 1,000.
    #[arg(long, requires = "full", default_value_t = 1, value_name = "N")]
    jobs: usize,
    /// Write the page to this file.
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    out: PathBuf,
}

impl Report {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let (mut measured, mut held) = (Results::of(Vec::new(), BTreeMap::new()), true);
        let first = self.results.first().filter(|_| self.calibrate || self.full);
        if let Some(first) = first {
            measured.growth = Results::to_change(first)?.growth;
        }
        if self.calibrate {
            measured.calibration = calibrate()?;
            keep(first, |results| results.calibration.clone_from(&measured.calibration))?;
        }
        if self.full {
            held = growth::full(&mut measured.growth, self.jobs, |growth| keep(first, |results| results.growth = growth.into()))?;
        }
        let measured = self.results.is_empty().then_some(measured);
        let page = report::page(&Gathered::read(&self.results, measured)?)?;
        std::fs::write(&self.out, &page).with_context(|| format!("cannot write {}", self.out.display()))?;
        say!("written to {}, {:.1} MB", self.out.display(), page.len() as f64 / 1e6);
        Ok(held)
    }
}

fn keep(file: Option<&PathBuf>, change: impl FnOnce(&mut Results)) -> anyhow::Result<()> {
    file.map_or(Ok(()), |file| Results::change(file, change))
}
