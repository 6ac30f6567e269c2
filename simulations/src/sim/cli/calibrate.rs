//! `report --calibrate`: is the model like the world?

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;

use super::pool::{self, Job};
use super::table::Table;
use crate::sim::file;
use crate::sim::measure::calibration::{LEFT_OUT, Row, real};
use crate::sim::results::Calibrated;

/// How long one row may take in the model, on the wall.
const WALL: Duration = Duration::from_secs(300);

/// Plays the fault table on real sockets and in the model, and prints both.
pub(super) fn calibrate() -> anyhow::Result<Vec<Calibrated>> {
    let dir = tempfile::tempdir().context("cannot make a directory for the stories")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for (number, row) in Row::ALL.into_iter().enumerate() {
        let path = dir.path().join(format!("{number}.yaml"));
        std::fs::write(&path, file::written(&row.plan())?).context("cannot write a story")?;
        let words = ["--measure", "calibration", "--cluster", &path.to_string_lossy()].map(str::to_owned);
        let job = Job { name: row.name().to_owned(), seed: 1, arguments: words.into() };
        let model = pool::play(&job, WALL)?.outcome.figures;
        let real = runtime.block_on(real(row)).with_context(|| format!("{}, on real sockets", row.name()))?;
        rows.push(Calibrated { row: row.name().to_owned(), real, model });
    }
    for line in table(&rows).lines() {
        say!("{line}");
    }
    say!("{LEFT_OUT}");
    Ok(rows)
}

fn table(rows: &[Calibrated]) -> Table {
    let mut table = Table::new(&["", "real", "model", "model / real"]);
    for row in rows {
        table.row(vec![row.row.clone(), String::new(), String::new(), String::new()]);
        let names: BTreeMap<&String, ()> = row.real.keys().chain(row.model.keys()).map(|name| (name, ())).collect();
        for name in names.into_keys() {
            let (real, model) = (row.real.get(name), row.model.get(name));
            let tell = |value: Option<&f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            let ratio = row.ratio(name);
            table.row(vec![format!("  {name}"), tell(real), tell(model), tell(ratio.as_ref())]);
        }
    }
    table
}
