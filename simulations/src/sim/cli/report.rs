//! `report`: one page that shows what came of sweeps.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::sim::report::{self, Gathered};

/// Of what, and where to.
#[derive(Debug, Args)]
pub struct Report {
    /// results.json of sweeps, and what `run --json` and `sabotages --json` wrote.
    #[arg(required = true, value_name = "RESULTS")]
    results: Vec<PathBuf>,
    /// Write the page to this file.
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    out: PathBuf,
}

impl Report {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let page = report::page(&Gathered::read(&self.results)?)?;
        std::fs::write(&self.out, &page).with_context(|| format!("cannot write {}", self.out.display()))?;
        say!("written to {}, {:.1} MB", self.out.display(), page.len() as f64 / 1e6);
        Ok(true)
    }
}
