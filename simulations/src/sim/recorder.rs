//! Event logs of simulated agents, a file a node, as `prismesh run --record` writes them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prismesh::agent::decide::Entry;
use prismesh::engine::{Effect, Event, Identity, Moment};

use super::state::MachineId;

/// Writes all nodes' logs.
#[derive(Clone)]
pub(super) struct Recorder {
    dir: PathBuf,
    names: Arc<[String]>,
    files: Arc<Mutex<BTreeMap<MachineId, Recording>>>,
}

/// One node's log. Its agent may die and be started again: the log goes on with another identity.
#[derive(Clone)]
pub(super) struct Recording(Arc<Mutex<Lines>>);

struct Lines {
    file: BufWriter<File>,
    /// How many processes of the agent have written.
    processes: u64,
}

/// What writes down a step.
pub(super) type Steps = Arc<dyn Fn(Moment, &Event, &[Effect]) + Send + Sync>;

impl Recorder {
    pub(super) fn new(dir: PathBuf, names: Vec<String>) -> Recorder {
        Recorder { dir, names: names.into(), files: Arc::default() }
    }

    pub(super) fn of(&self, machine: MachineId) -> Recording {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || {
            let path = self.dir.join(format!("{}.jsonl", self.names[machine]));
            let file = File::create(&path).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
            Recording(Arc::new(Mutex::new(Lines { file: BufWriter::new(file), processes: 0 })))
        };
        files.entry(machine).or_insert_with(open).clone()
    }
}

impl Recording {
    /// A process of the agent begins: what writes down its steps. A process that is dead writes nothing any more.
    pub(super) fn begin(&self, identity: &Identity) -> Steps {
        let mut lines = self.lines();
        lines.processes += 1;
        let process = lines.processes;
        lines.write(&Entry::Identity(identity.clone()));
        drop(lines);
        let recording = self.clone();
        Arc::new(move |at, event, effects| {
            let mut lines = recording.lines();
            if lines.processes == process {
                lines.write(&Entry::Step { at, event: event.clone(), effects: effects.to_vec() });
            }
        })
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn write(&mut self, entry: &Entry) {
        let line = serde_json::to_writer(&mut self.file, entry).map_err(std::io::Error::from);
        let written = line.and_then(|()| self.file.write_all(b"\n"));
        assert!(written.is_ok(), "cannot write the event log");
    }
}
