//! The event log that `run --record` writes.
//!
//! The engine's driver must not wait for a disk, so a thread of its own writes, and a disk that cannot keep up ends the log
//! rather than the service: a log with a hole would not replay. Who is killed leaves a log whose last line may be half.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use crate::agent::decide::Entry;
use crate::agent::process::StartError;

/// Entries that wait for the disk at most: some seconds of a busy engine.
const WAITING: usize = 4096;
/// An agent that ends waits this long for the disk to have it all.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where entries go. Dropping it writes what still waits.
pub(super) struct Recording {
    lines: Option<SyncSender<Vec<u8>>>,
    /// Disconnected once the writing thread has ended.
    ended: Receiver<()>,
}

impl Recording {
    /// Makes the file, readable by its owner only, or empties the one that is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn create(path: &Path) -> Result<Recording, StartError> {
        let wrong = |error: std::io::Error| {
            StartError::Configuration(format!(
                "flag --record: cannot write {}: {error}; name a file in a directory that exists",
                path.display()
            ))
        };
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(wrong)?;
        let (lines, written) = sync_channel(WAITING);
        let (ending, ended) = sync_channel(0);
        let thread = std::thread::Builder::new().name("record".to_owned()).spawn(move || {
            if let Err(error) = write_all(BufWriter::new(file), &written) {
                tracing::error!(%error, "the event log has ended: its file cannot be written");
            }
            drop(ending);
        });
        thread.map_err(|error| StartError::Machine(format!("cannot start a thread: {error}")))?;
        Ok(Recording { lines: Some(lines), ended })
    }

    /// Writes one entry, soon.
    pub(super) fn write(&mut self, entry: &Entry) {
        let Some(lines) = &self.lines else { return };
        let reason = match serde_json::to_vec(entry) {
            Ok(mut line) => {
                line.push(b'\n');
                match lines.try_send(line) {
                    Ok(()) => return,
                    Err(TrySendError::Full(_)) => "the disk cannot keep up".to_owned(),
                    // The thread that wrote has told why it does no more.
                    Err(TrySendError::Disconnected(_)) => return self.lines = None,
                }
            }
            Err(error) => error.to_string(),
        };
        tracing::error!(reason, "the event log has ended: it would have had a hole");
        self.lines = None;
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.lines = None;
        // Nobody sends: it is disconnected, or the disk hangs and is not waited for any longer.
        let _ = self.ended.recv_timeout(FAREWELL);
    }
}

/// What is written is on its way to the disk whenever nothing waits.
fn write_all(mut file: impl Write, lines: &Receiver<Vec<u8>>) -> std::io::Result<()> {
    while let Ok(line) = lines.recv() {
        file.write_all(&line)?;
        loop {
            match lines.try_recv() {
                Ok(line) => file.write_all(&line)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return file.flush(),
            }
        }
        file.flush()?;
    }
    Ok(())
}
