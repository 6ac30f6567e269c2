//! `prismesh keygen`: a new full keyring.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::output::{Failure, print};
use crate::gossip::keys::Keyring;
use crate::world::Store as _;
use crate::world::real;

/// Makes a full keyring with one new key.
#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// The file to make, with mode 0600; one that is there is never overwritten. Without it the keyring goes to standard output
    file: Option<PathBuf>,
}

/// A keyring is at most this long, in bytes.
pub(super) const KEYRING_MOST: usize = 1024 * 1024;

impl Keygen {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let text = Keyring::generate();
        let Some(path) = self.file else { return print(&text) };
        make(&path, &text)?;
        print(&format!(
            "{path} holds a new full key, readable by its owner only.\n\
             Next: copy it by a safe way to every core member (each node with --apiserver), and the reader keyring to all other nodes:\n\
             (umask 077; prismesh key public {path} > {path}.reader)\n\
             Each node takes its file as --keyring FILE. If the agent runs as a user of its own:\n\
             chown root:GROUP FILE && chmod 640 FILE, with that user's group. Holders of the full keyring can sign for every control\n\
             plane; holders of the reader keyring can read gossip and take part as workers.\n",
            path = path.display()
        ))
    }
}

/// Makes the keyring's directory, if it is missing, so that others can enter it as they can every directory of configuration: the
/// agent may run as a user of its own. The keyring itself is open to its owner only.
fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => std::fs::create_dir_all(directory),
        _ => Ok(()),
    }
}

fn make(path: &Path, text: &str) -> anyhow::Result<()> {
    make_directory(path).with_context(|| format!("cannot make the directory of {}", path.display()))?;
    let store = real::Files;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        match store.mode(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
            Ok(_) => {
                return Err(anyhow!(
                    "{0} is there already and was not touched; to change its keys: prismesh key add {0}",
                    path.display()
                ));
            }
        }
        store.write(path, text.as_bytes()).await.with_context(|| format!("cannot write {}", path.display()))
    })
}
