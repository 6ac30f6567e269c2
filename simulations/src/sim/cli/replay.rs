//! `replay`: does the engine still decide as it did?

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use prismesh::agent::decide::Entry;
use prismesh::engine::{Effect, Engine, Event, Moment};
use serde::Serialize;

use crate::sim::span;
use crate::sim::state::Ms;

/// Which logs.
#[derive(Debug, Args)]
pub struct Replay {
    /// Event logs, as `prismesh run --record FILE` and `run --record DIR` write them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write what the engine of the only log was told, without what it answered, to this file: for a test of the engine.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// No further than this, such as 12.5s.
    #[arg(long, value_name = "TIME", requires = "events", value_parser = span::parse)]
    until: Option<Ms>,
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
        if let Some(events) = &self.events {
            let [log] = self.files.as_slice() else { anyhow::bail!("--events takes one log at a time") };
            return self.extract(log, events);
        }
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

impl Replay {
    /// Writes whose engine it is, and a line for each event with its time, until the agent was started again.
    fn extract(&self, log: &Path, events: &Path) -> anyhow::Result<bool> {
        let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
        let until = self.until.map_or(Duration::MAX, Duration::from_millis);
        let (mut lines, mut begun) = (String::new(), false);
        for (place, line) in text.lines().enumerate() {
            let entry = serde_json::from_str(line);
            let written = match entry.map_err(|error| no_entry(&format!("{}:{}", log.display(), place + 1), &error))? {
                Entry::Identity(identity) if !begun => serde_json::to_string(&identity)?,
                Entry::Step { at, event, .. } if at.since(Moment::START) <= until => serde_json::to_string(&(at, event))?,
                _ => break,
            };
            lines.extend([written.as_str(), "\n"]);
            begun = true;
        }
        std::fs::write(events, &lines).with_context(|| format!("cannot write {}", events.display()))?;
        say!("{}: {} events, {} bytes", events.display(), lines.lines().count().saturating_sub(1), lines.len());
        Ok(true)
    }
}

fn no_entry(place: &str, error: &serde_json::Error) -> anyhow::Error {
    let error = error.to_string();
    let what = error.split(" at line ").next().unwrap_or_default();
    anyhow::anyhow!("{place}: this is no entry of an event log, which `--record` writes a line a step: {what}")
}

/// Feeds every event to an engine. Each identity begins another one, as when an agent was started again.
fn replay(path: &Path) -> anyhow::Result<Found> {
    anyhow::ensure!(!path.is_dir(), "{} is a directory; name the logs in it, a file a node", path.display());
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
            Err(error) => return Err(no_entry(&place(), &error)),
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
    anyhow::ensure!(engine.is_some(), "{} is empty: no agent has written it", path.display());
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
