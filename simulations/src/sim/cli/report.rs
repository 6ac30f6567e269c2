//! `report`: one page that shows what came of sweeps.

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
    #[arg(required = true, value_name = "RESULTS")]
    results: Vec<PathBuf>,
    /// Play the fault table on real sockets and in the model first, and add what comes of it to the first of these files.
    #[arg(long)]
    calibrate: bool,
    /// Measure clusters of 5 to 1,000 nodes first, which takes long, and add the figures to the first of these files.
    #[arg(long)]
    full: bool,
    /// Write the page to this file.
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    out: PathBuf,
}

impl Report {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let first = self.results.first().context("which results?")?;
        if self.calibrate {
            let rows = calibrate()?;
            Results::change(first, |results| results.calibration = rows)?;
        }
        if self.full {
            growth::full(first)?;
        }
        let page = report::page(&Gathered::read(&self.results)?)?;
        std::fs::write(&self.out, &page).with_context(|| format!("cannot write {}", self.out.display()))?;
        say!("written to {}, {:.1} MB", self.out.display(), page.len() as f64 / 1e6);
        Ok(true)
    }
}
