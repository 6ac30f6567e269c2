//! A member that has the key and means harm.

use super::plan::Hostility;
use super::run::Stage;

pub(super) fn begin(_stage: &mut Stage, _node: &str, act: &Hostility) -> anyhow::Result<()> {
    anyhow::bail!("{act:?} is not played yet")
}

pub(super) fn end(_stage: &mut Stage, _node: &str, _act: &Hostility) -> anyhow::Result<()> {
    Ok(())
}
