//! What came of many runs, as `sweep` writes it and `compare` and `report` read it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;

/// The results of a sweep.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Of which version of prismesh, built how and for which kind of machine: hashes are the same only where this is.
    pub build: Build,
    /// The runs, in the order of the list of scenarios and then of seeds.
    pub outcomes: Vec<Outcome>,
    /// How long each took on the wall, in seconds, by [`Results::key`]. Nothing is judged by it.
    pub wall_s: BTreeMap<String, f64>,
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
    /// What a run is called in [`Results::wall_s`].
    pub fn key(outcome: &Outcome) -> String {
        format!("{}/{}", outcome.scenario, outcome.seed)
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

/// Writes a JSON file; it is there as a whole or not at all.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let what = || format!("cannot write {}", path.display());
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    let aside = path.with_extension("part");
    std::fs::write(&aside, bytes).with_context(what)?;
    std::fs::rename(&aside, path).with_context(what)
}
