//! The event log that `run --record` writes.
//!
//! The engine's driver must not wait for a disk, so a thread of its own writes, and a disk that cannot keep up ends the log
//! rather than the service: a log with a hole would not replay.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use anyhow::Context as _;

use crate::agent::decide::Entry;

/// Entries that wait for the disk at most: some seconds of a busy engine.
const WAITING: usize = 4096;

/// Where entries go.
pub(super) struct Log {
    lines: Option<SyncSender<Vec<u8>>>,
}

impl Log {
    /// Makes the file, readable by its owner only, or empties the one that is there.
    pub(super) fn create(path: &Path) -> anyhow::Result<Log> {
        let what = || format!("cannot record to {} (--record)", path.display());
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).with_context(what)?;
        let (lines, written) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || {
                if let Err(error) = write_all(BufWriter::new(file), &written) {
                    tracing::error!(%error, "the event log has ended: its file cannot be written");
                }
            })
            .with_context(what)?;
        Ok(Log { lines: Some(lines) })
    }

    /// Writes one entry, soon.
    pub(super) fn write(&mut self, entry: &Entry) {
        let Some(lines) = &self.lines else { return };
        let line = serde_json::to_vec(entry).map(|mut line| {
            line.push(b'\n');
            line
        });
        let sent =
            line.map_err(|error| error.to_string()).and_then(|line| lines.try_send(line).map_err(|error| error.to_string()));
        if let Err(reason) = sent {
            tracing::error!(reason, "the event log has ended: it would have had a hole");
            self.lines = None;
        }
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
