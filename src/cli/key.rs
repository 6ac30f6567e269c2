//! `prismesh key`: print the reader keyring and key ids, and change the keys of a running cluster.
//!
//! A rotation is three steps, each done on all nodes before the next: add, promote, remove. Between two steps any node opens and
//! verifies what any other node seals and signs: every node has the new key before one node seals with it, and the old key is
//! removed when no node seals with it any more.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::keygen::KEYRING_MOST;
use super::output::{Failure, print};
use crate::gossip::keys::{EditError, Edited, KeyId, Keyring};
use crate::world::Store as _;
use crate::world::real;

/// What to do with a keyring.
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Print the reader keyring, for all nodes that are not core members.
    Public(KeyringFile),
    /// Print the ids of the keys in a keyring, the one in use first.
    List(KeyringFile),
    /// First step of a rotation: append a new key, which opens and verifies but is not used yet.
    Add(KeyringFile),
    /// Second step: let a key seal and sign; the others still open and verify.
    Promote(Promote),
    /// Last step: remove a key, which then opens and verifies nothing.
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(super) struct KeyringFile {
    /// The keyring's file
    file: PathBuf,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(super) struct Promote {
    /// The key to use, by its id; without it the last key of the file
    #[arg(value_name = "KEYID")]
    id: Option<KeyId>,
    /// The keyring's file
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The key to remove, by its id
    #[arg(value_name = "KEYID")]
    id: KeyId,
    /// The keyring's file
    file: PathBuf,
}

impl Key {
    pub(super) fn execute(self) -> Result<(), Failure> {
        match self {
            Key::Public(KeyringFile { file }) => print(&read(&file)?.reader_text()),
            Key::List(KeyringFile { file }) => {
                let keyring = read(&file)?;
                let kind = if keyring.is_full() { "full" } else { "reader" };
                print(&keyring.key_ids().iter().map(|id| format!("{id} {kind}\n")).collect::<String>())
            }
            Key::Add(KeyringFile { file }) => {
                let Edited { key, left, .. } = rewrite(&file, Keyring::append)?;
                let then = format!("When all nodes have it: prismesh key promote {key} {}", file.display());
                report(&file, &format!("has the new key {key}, which opens and verifies and is not used yet"), &left, &then)
            }
            Key::Promote(Promote { id, file }) => {
                let Edited { key, left, .. } = rewrite(&file, |old| Keyring::promote(old, id))?;
                // The former primary is second now, unless the promoted key was the primary before.
                let then = left.get(1).map_or_else(String::new, |old| {
                    format!("When all nodes have it: prismesh key remove {old} {}", file.display())
                });
                report(&file, &format!("uses the key {key}; any other key still opens and verifies"), &left, &then)
            }
            Key::Remove(Remove { id, file }) => {
                let Edited { key, left, .. } = rewrite(&file, |old| Keyring::remove(old, id))?;
                let then = if left.len() == 1 { "When all nodes have it, the rotation is complete." } else { "" };
                report(&file, &format!("no longer has the key {key}"), &left, then)
            }
        }
    }
}

/// Prints what was done to a keyring, which keys it has, and what is to be done next.
fn report(path: &Path, done: &str, left: &[KeyId], then: &str) -> Result<(), Failure> {
    let path = path.display();
    let keys = left.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", ");
    let then = if then.is_empty() { String::new() } else { format!("{then}\n") };
    print(&format!(
        "{path} {done}.\n\
         Its keys, the one in use first: {keys}\n\
         Next: copy a full keyring to every core member, and what `prismesh key public` prints of it to all other nodes. A running\n\
         agent takes up its keyring within 5 s, or at once on SIGHUP.\n\
         {then}"
    ))
}

/// The keyring of a file.
fn read(path: &Path) -> anyhow::Result<Keyring> {
    let file = runtime()?.block_on(real::Files.read(path, KEYRING_MOST));
    let file = file.with_context(|| format!("cannot read {}", path.display()))?;
    Keyring::parse(&file).with_context(|| format!("{} is not a keyring", path.display()))
}

/// Replaces a file's content by what `change` makes of it; if anything fails, the old content stays.
fn rewrite(path: &Path, change: impl FnOnce(&[u8]) -> Result<Edited, EditError>) -> anyhow::Result<Edited> {
    // Writing replaces the file: without this a link to the keyring would be replaced instead of the keyring.
    let target = std::fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))?;
    let store = real::Files;
    runtime()?.block_on(async {
        let old = store.read(&target, KEYRING_MOST).await.with_context(|| format!("cannot read {}", path.display()))?;
        let new = change(&old).with_context(|| format!("{} was not changed", path.display()))?;
        store.replace(&target, new.text.as_bytes()).await.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(new)
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build().context("cannot start the runtime")
}
