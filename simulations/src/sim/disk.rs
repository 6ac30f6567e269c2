//! A machine's files.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files, which outlive processes and reboots. A clone is the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Files>>);

#[derive(Clone, Debug, Default)]
struct Files {
    files: BTreeMap<PathBuf, Vec<u8>>,
    full: bool,
}

impl Files {
    fn is_directory(&self, path: &Path) -> bool {
        let below = self.files.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded)).next();
        below.is_some_and(|(file, _)| file.starts_with(path))
    }
}

impl Disk {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let files = self.files();
        match files.files.get(path) {
            None if files.is_directory(path) => Err(io::ErrorKind::InvalidInput.into()),
            None => Err(io::ErrorKind::NotFound.into()),
            Some(bytes) if bytes.len() > most => Err(io::ErrorKind::FileTooLarge.into()),
            Some(bytes) => Ok(bytes.clone()),
        }
    }

    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files();
        if files.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if files.is_directory(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if path.ancestors().skip(1).any(|above| files.files.contains_key(above)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        files.files.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    /// What is on it now.
    pub(super) fn snapshot(&self) -> Disk {
        Disk(Arc::new(Mutex::new(self.files().clone())))
    }

    /// Puts back what was on another one, as when a machine is restored or cloned.
    pub(super) fn restore(&self, from: &Disk) {
        let files = from.files().clone();
        *self.files() = files;
    }

    /// Deletes everything under a directory.
    pub(super) fn wipe(&self, under: &Path) {
        self.files().files.retain(|path, _| !path.starts_with(under));
    }
}
