//! What came of many runs, as `sweep` writes it and `compare` and `report` read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::outcome::{Carrier, Outcome};

/// The results of a sweep, or of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Of which version of prismesh, built how and for which kind of machine: hashes are the same only where this is.
    pub build: Build,
    /// The runs, in the order of the list of scenarios and then of seeds.
    pub outcomes: Vec<Outcome>,
    /// How long each took on the wall, in seconds, by [`Results::key`]. Nothing is judged by it.
    pub wall_s: BTreeMap<String, f64>,
    /// The same stories and seeds with something else in prismesh's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub baselines: Vec<Outcome>,
    /// How what a cluster costs and how fast it learns grows with its size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub growth: Vec<Point>,
    /// What peers' reports are worth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<Reports>,
    /// Which scenario notices which sabotage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrix: Vec<Caught>,
    /// The fault table on real sockets and in the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<Calibrated>,
}

/// A cluster of one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// How many nodes it has.
    pub nodes: usize,
    /// What was measured; the unit is the end of the name.
    pub figures: BTreeMap<String, f64>,
}

/// A cluster with peers' reports, or without them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reports {
    /// Whether nodes heard what others report.
    pub heard: bool,
    /// With which seed.
    pub seed: u64,
    /// What was measured; the unit is the end of the name.
    pub figures: BTreeMap<String, f64>,
}

/// What one scenario said to one sabotage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Caught {
    /// Which story.
    pub scenario: String,
    /// Which sabotage.
    pub sabotage: String,
    /// The invariant that it aims at.
    pub aims_at: u8,
    /// The invariants that broke.
    pub caught_by: BTreeSet<u8>,
    /// What the story promises broke, or something complained or was left over.
    pub otherwise: bool,
}

/// One row of the fault table, as it was on real sockets and as it was in the model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Calibrated {
    /// Which fault.
    pub row: String,
    /// On real sockets; the unit is the end of the name.
    pub real: BTreeMap<String, f64>,
    /// In the model, under the same names.
    pub model: BTreeMap<String, f64>,
}

/// What is less than this is shown as nothing, and has no ratio to anything.
const NOTHING: f64 = 0.005;

impl Calibrated {
    /// The model's figure over the real one, where both are something.
    pub fn ratio(&self, figure: &str) -> Option<f64> {
        let (real, model) = (self.real.get(figure)?, self.model.get(figure)?);
        (*real >= NOTHING && *model >= NOTHING).then(|| model / real)
    }
}

/// A binary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The version of prismesh.
    pub version: String,
    /// `release` or `dev`.
    pub profile: String,
    /// The kind of machine it was made for.
    pub machine: String,
}

impl Build {
    /// This one.
    pub fn this() -> Build {
        Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
            machine: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        }
    }
}

impl Results {
    /// Those of this binary; nothing but these runs yet, each where what carried it belongs.
    pub fn of(runs: Vec<Outcome>, wall_s: BTreeMap<String, f64>) -> Results {
        let (outcomes, baselines) = runs.into_iter().partition(|run: &Outcome| run.by == Carrier::Prismesh);
        Results {
            build: Build::this(),
            outcomes,
            wall_s,
            baselines,
            growth: Vec::new(),
            reports: Vec::new(),
            matrix: Vec::new(),
            calibration: Vec::new(),
        }
    }

    /// The one run that a file of `run --json` holds, whatever carried it.
    pub fn only(self) -> Option<Outcome> {
        self.outcomes.into_iter().chain(self.baselines).next()
    }

    /// What a run is called in [`Results::wall_s`].
    pub fn key(outcome: &Outcome) -> String {
        format!("{}/{}", outcome.scenario, outcome.seed)
    }

    /// Changes what a file holds; where there is none, what nothing but this binary says.
    ///
    /// # Errors
    /// It is no results, those of another build, or cannot be written.
    pub fn change(path: &Path, change: impl FnOnce(&mut Results)) -> anyhow::Result<()> {
        let mut results = Results::to_change(path)?;
        change(&mut results);
        write_json(path, &results)
    }

    /// Whether [`Results::change`] could: to be asked before what takes long.
    ///
    /// # Errors
    /// The file is no results, those of another build, or there is no such directory.
    pub fn to_change(path: &Path) -> anyhow::Result<Results> {
        if !path.exists() {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            anyhow::ensure!(dir.is_dir(), "{}: there is no directory {}", path.display(), dir.display());
            return Ok(Results::of(Vec::new(), BTreeMap::new()));
        }
        let results = Results::read(path)?;
        let (there, here) = (&results.build, Build::this());
        anyhow::ensure!(*there == here, "{}: it holds results of {there:?}, and this is {here:?}", path.display());
        Ok(results)
    }

    /// Reads results from a file.
    ///
    /// # Errors
    /// It cannot be read, or it is no results.
    pub fn read(path: &Path) -> anyhow::Result<Results> {
        read_json(path)
    }
}

/// Reads a JSON file; what is wrong is told with its line.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| anyhow::anyhow!("{}:{}: {error}", path.display(), error.line()))
}

/// Writes a JSON file; it is there as a whole or not at all. A device or a pipe is written to, never replaced.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let what = || format!("cannot write {}", path.display());
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        return std::fs::write(path, bytes).with_context(what);
    }
    let aside = path.with_extension("part");
    std::fs::write(&aside, bytes).with_context(what)?;
    std::fs::rename(&aside, path).with_context(what)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_written_to_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || std::fs::read_to_string(fifo).unwrap()
        });
        write_json(&fifo, &7).unwrap();
        assert_eq!(reader.join().unwrap(), "7\n");
        assert!(!fifo.metadata().unwrap().is_file());
    }
}
