//! `replay`: does the engine still decide as it did?

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use prismesh::agent::decide::Entry;
use prismesh::engine::{Effect, Engine, Event, Moment};
use serde::Serialize;

/// Which logs.
#[derive(Debug, Args)]
pub struct Replay {
    /// Event logs, as `prismesh run --record FILE` and `run --record DIR` write them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What came of one log.
#[derive(Debug)]
enum Found {
    /// All steps agree.
    Same {
        steps: usize,
        /// The last line ends in its middle.
        cut: bool,
    },
    /// The first one that does not.
    Different(Box<Different>),
}

#[derive(Debug)]
struct Different {
    line: usize,
    step: usize,
    at: Moment,
    event: Event,
    then: Vec<Effect>,
    now: Vec<Effect>,
}

impl Replay {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let mut same = true;
        for path in &self.files {
            match replay(path)? {
                Found::Same { steps, cut } => {
                    say!("{}: {steps} steps agree", path.display());
                    if cut {
                        say!("  its last line ends in its middle, as if the agent had been killed; it was left out");
                    }
                }
                Found::Different(different) => {
                    different.tell(path)?;
                    same = false;
                }
            }
        }
        Ok(same)
    }
}

/// Feeds every event to an engine. Each identity begins another one, as when an agent was started again.
fn replay(path: &Path) -> anyhow::Result<Found> {
    let mut file = BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?);
    let mut engine: Option<Engine> = None;
    let (mut steps, mut number, mut line) = (0, 0, Vec::new());
    let cut = loop {
        number += 1;
        line.clear();
        let place = || format!("{}:{number}", path.display());
        if file.read_until(b'\n', &mut line).with_context(place)? == 0 {
            break false;
        }
        let entry = match serde_json::from_slice(&line) {
            Ok(entry) => entry,
            // Only the last line can be without an end.
            Err(error) if error.is_eof() && line.last() != Some(&b'\n') && engine.is_some() => break true,
            Err(error) => {
                let error = error.to_string();
                let what = error.split(" at line ").next().unwrap_or_default();
                anyhow::bail!("{}: this is no entry of an event log: {what}", place());
            }
        };
        match (entry, &mut engine) {
            (Entry::Identity(identity), engine) => *engine = Some(Engine::new(identity)),
            (Entry::Step { .. }, None) => anyhow::bail!("{}: a step before it was said whose engine it is", place()),
            (Entry::Step { at, event, effects: then }, Some(engine)) => {
                steps += 1;
                let now = engine.handle(at, event.clone());
                if now != then {
                    return Ok(Found::Different(Box::new(Different { line: number, step: steps, at, event, then, now })));
                }
            }
        }
    };
    anyhow::ensure!(engine.is_some(), "{}:1: it is empty", path.display());
    Ok(Found::Same { steps, cut })
}

impl Different {
    fn tell(&self, path: &Path) -> anyhow::Result<()> {
        say!("{}:{}: step {} is different", path.display(), self.line, self.step);
        say!("at {}, told", serde_json::to_string(&self.at)?);
        say!("{}", pretty(&self.event)?);
        // What both begin with is of no interest.
        let same = self.then.iter().zip(&self.now).take_while(|(then, now)| then == now).count();
        if same > 0 {
            say!("the first {same} effects agree");
        }
        for (whose, effects) in [("it answered then", &self.then), ("it answers now", &self.now)] {
            say!("{whose}");
            match effects.get(same..) {
                None | Some([]) => say!("  nothing more"),
                Some(effects) => say!("{}", pretty(effects)?),
            }
        }
        Ok(())
    }
}

fn pretty<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"))
}
