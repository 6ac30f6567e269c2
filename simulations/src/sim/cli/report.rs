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
    /// Write the page to this file.
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    out: PathBuf,
}

impl Report {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        if let Some(first) = self.results.first().filter(|_| self.calibrate || self.full) {
            Results::to_change(first)?;
        }
        let (mut measured, mut held) = (Results::of(Vec::new(), BTreeMap::new()), true);
        if self.calibrate {
            measured.calibration = calibrate()?;
        }
        if self.full {
            (measured.growth, held) = growth::full()?;
        }
        let page = report::page(&self.gather(measured)?)?;
        std::fs::write(&self.out, &page).with_context(|| format!("cannot write {}", self.out.display()))?;
        say!("written to {}, {:.1} MB", self.out.display(), page.len() as f64 / 1e6);
        Ok(held)
    }

    /// What is in the files, and what was measured just now.
    fn gather(&self, measured: Results) -> anyhow::Result<Gathered> {
        let Some(first) = self.results.first() else { return Gathered::read(&[], Some(measured)) };
        if self.calibrate || self.full {
            Results::change(first, |results| {
                if self.calibrate {
                    results.calibration = measured.calibration;
                }
                if self.full {
                    results.growth = measured.growth;
                }
            })?;
        }
        Gathered::read(&self.results, None)
    }
}
