//! SEAMS, to be wired when the other parts are merged: each function here stands for one that is written elsewhere.
//!
//! `store` stands for the real store in `world::real` (then `FileStore` goes), `keyring` for `gossip::keyring` (then the module goes),
//! `agent` for `agent::run`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::config::{Loaded, Sources};
use crate::world::{BoxFuture, Store};

/// The store of this machine's files.
pub(super) fn store() -> Arc<dyn Store> {
    Arc::new(FileStore)
}

/// Runs the agent until it is stopped. `sources` are loaded again on SIGHUP and when a watched file changes.
pub(super) async fn agent(loaded: Loaded, sources: Sources) -> anyhow::Result<()> {
    let _ = (loaded, sources);
    anyhow::bail!("this build has no agent yet")
}

/// The keyring's file format, old text in and new text out.
pub(super) mod keyring {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rand::Rng as _;

    const KEY_BYTES: usize = 32;

    /// The text of a new keyring with one key.
    pub(in super::super) fn generate() -> String {
        let mut key = [0_u8; KEY_BYTES];
        rand::rng().fill_bytes(&mut key);
        format!("{}\n", STANDARD.encode(key))
    }

    /// Whether it is a keyring; the error says what is wrong and what would be right.
    pub(in super::super) fn check(text: &[u8]) -> anyhow::Result<()> {
        parse(text).map(drop)
    }

    /// Appends a new key, which opens and does not seal.
    pub(in super::super) fn add(old: &[u8]) -> anyhow::Result<String> {
        Ok(parse(old)?.join("\n") + "\n" + &generate())
    }

    /// Moves the last key to the front: it seals from now on.
    pub(in super::super) fn promote(old: &[u8]) -> anyhow::Result<String> {
        let mut keys = parse(old)?;
        anyhow::ensure!(keys.len() > 1, "the keyring has one key only; add one first");
        keys.rotate_right(1);
        Ok(keys.join("\n") + "\n")
    }

    /// Drops every key but the first.
    pub(in super::super) fn retire(old: &[u8]) -> anyhow::Result<String> {
        let keys = parse(old)?;
        anyhow::ensure!(keys.len() > 1, "the keyring has one key only; it cannot be retired");
        Ok(keys.into_iter().take(1).collect::<String>() + "\n")
    }

    fn parse(text: &[u8]) -> anyhow::Result<Vec<String>> {
        let text = std::str::from_utf8(text)?;
        let keys: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let right = |key: &String| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES);
        anyhow::ensure!(!keys.is_empty() && keys.iter().all(right), "not a keyring");
        Ok(keys)
    }
}

struct FileStore;

impl Store for FileStore {
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let mut bytes = Vec::new();
            fs::File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
        })
    }

    fn write<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let beside = path.with_extension("new");
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(beside, path)
        })
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.mode() & 0o7777)
    }
}
