//! The event log that `run --record` writes.
//!
//! The engine's driver must not wait for a disk, so a thread of its own writes, and a disk that cannot keep up ends the log
//! rather than the service: a log with a hole would not replay. Who is killed leaves a log whose last line may be half.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::agent::decide::Entry;
use crate::agent::process::StartError;

/// Entries that wait for the disk at most: some seconds of a busy engine.
const WAITING: usize = 4096;
/// A disk that does not open the file within this hangs.
const OPEN: Duration = Duration::from_secs(5);
/// An agent that ends waits for the disk for as long as it takes something up within each of these ...
const FAREWELL_STEP: Duration = Duration::from_millis(100);
/// ... and so many of them at most.
const FAREWELL_STEPS: usize = 20;

/// Where entries go. Dropping it writes what still waits.
pub(super) struct Recording {
    lines: Option<SyncSender<Vec<u8>>>,
    /// Disconnected once the writing thread has ended.
    ended: Receiver<()>,
    /// Entries that the disk has taken.
    taken: Arc<AtomicU64>,
}

impl Recording {
    /// Makes the file, readable by its owner only, or empties the one that is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) async fn create(path: &Path) -> Result<Recording, StartError> {
        let wrong = |error: io::Error| {
            StartError::Configuration(format!(
                "flag --record: cannot write {}: {error}; name a file in a directory that exists",
                path.display()
            ))
        };
        let (lines, written) = sync_channel(WAITING);
        let (ending, ended) = sync_channel(0);
        let (opening, opened) = oneshot::channel();
        let taken = Arc::new(AtomicU64::new(0));
        let (path, count) = (path.to_owned(), taken.clone());
        let thread = std::thread::Builder::new().name("record".to_owned()).spawn(move || {
            let file = match open(&path) {
                Ok(file) => file,
                // Fails only when the caller no longer waits.
                Err(error) => return drop(opening.send(Err(error))),
            };
            let _ = opening.send(Ok(()));
            if let Err(error) = write_all(BufWriter::new(file), &written, &count) {
                tracing::error!(%error, "the event log has ended: its file cannot be written");
            }
            drop(ending);
        });
        thread.map_err(|error| StartError::Machine(format!("cannot start a thread: {error}")))?;
        let hangs = || Ok(Err(io::Error::new(io::ErrorKind::TimedOut, "its file system does not answer")));
        let ended_early = |_| Err(io::Error::other("the thread that writes it has ended"));
        timeout(OPEN, opened).await.unwrap_or_else(|_| hangs()).unwrap_or_else(ended_early).map_err(wrong)?;
        Ok(Recording { lines: Some(lines), ended, taken })
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
        for _ in 0..FAREWELL_STEPS {
            let before = self.taken.load(Ordering::Relaxed);
            // Nothing is ever sent on this channel: it disconnects when the thread has ended. If the disk hangs, we do not wait.
            let ended = self.ended.recv_timeout(FAREWELL_STEP) != Err(RecvTimeoutError::Timeout);
            if ended || self.taken.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// Blocks: only for a thread of its own. Of a FIFO the reader is not waited for, at no time.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    File::options().write(true).create(true).truncate(true).mode(0o600).custom_flags(flags).open(path)
}

/// What is written is on its way to the disk whenever nothing waits.
fn write_all(mut file: impl Write, lines: &Receiver<Vec<u8>>, taken: &AtomicU64) -> io::Result<()> {
    let write = |file: &mut dyn Write, line: &[u8]| {
        taken.fetch_add(1, Ordering::Relaxed);
        file.write_all(line)
    };
    while let Ok(line) = lines.recv() {
        write(&mut file, &line)?;
        loop {
            match lines.try_recv() {
                Ok(line) => write(&mut file, &line)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return file.flush(),
            }
        }
        file.flush()?;
    }
    Ok(())
}
