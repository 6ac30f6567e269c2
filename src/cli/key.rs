//! `prismesh key`: the three steps that change the keys of a running cluster, each done on all nodes before the next.
//!
//! At every moment of it any two nodes can open what the other seals: the new key is everywhere before one node seals with it, and the
//! old one goes when no node seals with it any more.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::keygen::KEYRING_MOST;
use super::output::{Failure, print};
use crate::gossip::keyring::{Edited, Keyring as Keys, KeyringError};
use crate::world::Store as _;
use crate::world::real;

/// One step.
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// First step: append a new key, which opens messages and does not seal them yet.
    Add(Keyring),
    /// Second step: let the newest key seal; the old one still opens.
    Promote(Keyring),
    /// Last step: drop every key but the one that seals.
    Retire(Keyring),
}

/// The keyring to change.
#[derive(Debug, Args)]
pub(super) struct Keyring {
    /// The keyring's file
    file: PathBuf,
}

/// Makes the new content of a keyring from the old.
type Change = fn(&[u8]) -> Result<Edited, KeyringError>;

impl Key {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let (file, change, done, next): (_, Change, _, _) = match &self {
            Key::Add(key) => {
                (&key.file, Keys::append, "has a new key, which opens messages and does not seal yet", Some("promote"))
            }
            Key::Promote(key) => (&key.file, Keys::promote, "seals with the new key; the old one still opens", Some("retire")),
            Key::Retire(key) => (&key.file, Keys::retire, "has the new key only", None),
        };
        rewrite(file, change)?;
        let path = file.display();
        let then = match next {
            Some(step) => format!("When all nodes have it: prismesh key {step} {path}"),
            None => "Then the rotation is complete.".to_owned(),
        };
        print(&format!(
            "{path} {done}.\n\
             Next: copy it to every node. A running agent takes it up within 5 s, or at once on SIGHUP.\n\
             {then}\n"
        ))
    }
}

/// Replaces a file's content by what `change` makes of it; whatever fails, the old content stays.
fn rewrite(path: &Path, change: Change) -> anyhow::Result<()> {
    // Writing replaces the file: without this a link to the keyring would be replaced instead of the keyring.
    let target = std::fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))?;
    let store = real::Files;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let old = store.read(&target, KEYRING_MOST).await.with_context(|| format!("cannot read {}", path.display()))?;
        let new = change(&old).with_context(|| format!("{} was not changed", path.display()))?;
        store.replace(&target, new.text.as_bytes()).await.with_context(|| format!("cannot write {}", path.display()))
    })
}
