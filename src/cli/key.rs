//! `prismesh key`: print the reader keyring and key ids, and change the keys of a running cluster.
//!
//! A rotation is three steps, each done on all nodes before the next: add, promote, remove. Between two steps any node opens and
//! verifies what any other node seals and signs: every node has the new key before one node seals with it, and the old key is
//! removed when no node seals with it any more.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};

use super::admin::{AgentStatus, Which, runtime};
use super::keygen::KEYRING_MOST;
use super::output::{Failure, harmless, print};
use crate::gossip::keys::{EditError, Edited, KeyId, Keyring};
use crate::world::Store as _;
use crate::world::real;

/// Nodes that are named in a text.
const NAMED: usize = 5;

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
    #[command(flatten)]
    readiness: Readiness,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The key to remove, by its id
    #[arg(value_name = "KEYID")]
    id: KeyId,
    /// The keyring's file
    file: PathBuf,
    #[command(flatten)]
    readiness: Readiness,
}

/// Whether all nodes are ready for the step.
#[derive(Debug, Args)]
struct Readiness {
    /// Do it although some nodes are not ready
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    which: Which,
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
            Key::Promote(Promote { id, file, readiness }) => {
                let key = id.or_else(|| read(&file).ok()?.key_ids().last().copied());
                if let Some(key) = key {
                    readiness.check(&format!("do not have the key {key} yet"), |keys| keys.contains(&key.to_string()))?;
                }
                let Edited { key, left, .. } = rewrite(&file, |old| Keyring::promote(old, id))?;
                // The former primary is second now, unless the promoted key was the primary before.
                let then = left.get(1).map_or_else(String::new, |old| {
                    format!("When all nodes have it: prismesh key remove {old} {}", file.display())
                });
                report(&file, &format!("uses the key {key}; any other key still opens and verifies"), &left, &then)
            }
            Key::Remove(Remove { id, file, readiness }) => {
                let other = |keys: &[String]| keys.first().is_some_and(|first| *first != id.to_string());
                readiness.check(&format!("still use the key {id}"), other)?;
                let Edited { key, left, .. } = rewrite(&file, |old| Keyring::remove(old, id))?;
                let then = if left.len() == 1 { "When all nodes have it, the rotation is complete." } else { "" };
                report(&file, &format!("no longer has the key {key}"), &left, then)
            }
        }
    }
}

impl Readiness {
    /// Asks the agent here whether the live nodes that it hears are `ready`; `what` says of the others what they lack. Where no agent
    /// can be asked, people are told so.
    fn check(&self, what: &str, ready: impl Fn(&[String]) -> bool) -> Result<(), Failure> {
        if self.force {
            return Ok(());
        }
        let status = match runtime()?.block_on(self.which.ask()) {
            Ok(answer) => answer.status,
            Err(Failure::Runtime(error)) => {
                let _ = writeln!(std::io::stderr(), "prismesh: not checked whether all nodes are ready: {error:#}");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if status.gossip.is_none() {
            return Ok(());
        }
        match not_ready(&status, what, ready) {
            None => Ok(()),
            Some(why) => Err(anyhow!("the keyring was not changed: {why}; give --force to do it all the same").into()),
        }
    }
}

/// Which nodes are not ready, in words.
fn not_ready(status: &AgentStatus, what: &str, ready: impl Fn(&[String]) -> bool) -> Option<String> {
    if status.role == "worker" {
        return Some(
            "the agent here is a worker's, which does not hear all nodes: ask a control plane's with --admin".to_owned(),
        );
    }
    let behind: Vec<&str> =
        status.peers.iter().filter(|peer| peer.alive && !ready(&peer.keys)).map(|peer| peer.name.as_str()).collect();
    let named = harmless(&behind.iter().take(NAMED).copied().collect::<Vec<_>>().join(", "));
    let more = behind.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!behind.is_empty()).then(|| {
        format!("{} of {} nodes {what}, or have not said which they have: {named}{more}", behind.len(), status.peers.len())
    })
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

#[cfg(test)]
mod tests {
    use super::super::admin::Peer;
    use super::*;

    fn status(role: &str, peers: &[(&str, bool, &[&str])]) -> AgentStatus {
        let peer = |(name, alive, keys): &(&str, bool, &[&str])| Peer {
            name: (*name).to_owned(),
            alive: *alive,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            ..Peer::default()
        };
        AgentStatus { role: role.to_owned(), peers: peers.iter().map(peer).collect(), ..AgentStatus::default() }
    }

    #[test]
    fn nodes_that_lack_a_key_or_still_use_it_are_named() {
        let has = |keys: &[String]| keys.iter().any(|key| key == "new");
        let all = [("a", true, &["old", "new"][..]), ("b", true, &["new"]), ("c", false, &["old"])];
        assert_eq!(not_ready(&status("control-plane", &all), "lack it", has), None, "who is away is not asked");
        let some = [("a", true, &["old"][..]), ("b", true, &["old", "new"]), ("c", true, &[])];
        let why = not_ready(&status("control-plane", &some), "lack it", has).unwrap();
        assert_eq!(why, "2 of 3 nodes lack it, or have not said which they have: a, c");
        assert!(not_ready(&status("worker", &all), "lack it", has).unwrap().contains("is a worker's"));
        let many: Vec<(String, bool)> = (0..9).map(|n| (format!("n{n}"), true)).collect();
        let many: Vec<(&str, bool, &[&str])> = many.iter().map(|(name, alive)| (name.as_str(), *alive, &[][..])).collect();
        assert!(not_ready(&status("control-plane", &many), "lack it", has).unwrap().ends_with("n4 and 4 more"));
    }
}
