//! Runs in processes of their own: a run is repeatable only as the first and only one of its process, and one that hangs must
//! not take others with it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::story::quoted;
use crate::sim::outcome::Outcome;
use crate::sim::results::{self, Results};

/// Between two looks at a child.
const LOOK: Duration = Duration::from_millis(10);
/// What is kept of the end of what a child that fell had to say, in bytes.
const LAST_WORDS: usize = 2_000;

/// One run to be made.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// What it is called where the run itself cannot say.
    pub(super) name: String,
    pub(super) seed: u64,
    /// What follows `run`.
    pub(super) arguments: Vec<String>,
}

impl Job {
    /// What follows the program's name in the command that plays it.
    fn command(&self) -> String {
        format!("run {}", quoted(&self.arguments))
    }
}

/// What is said of a run that took too long.
pub(super) fn not_ended(wall: Duration) -> String {
    format!("it had not ended after {} s on the wall", wall.as_secs_f64())
}

/// One run that is over.
pub(super) struct Played {
    pub(super) outcome: Outcome,
    pub(super) seconds: f64,
}

/// Plays one, for at most `wall`.
pub(super) fn play(job: &Job, wall: Duration) -> anyhow::Result<Played> {
    let dir = tempfile::tempdir().context("cannot make a directory for a run")?;
    let (json, words) = (dir.path().join("outcome.json"), dir.path().join("words"));
    let said = File::create(&words).context("cannot make a file for a run")?;
    let begun = Instant::now();
    let mut child = Command::new(std::env::current_exe().context("where is this program?")?)
        .arg("run")
        .args(&job.arguments)
        .args(["--child", "--json"])
        .arg(&json)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(said)
        // Ctrl-C reaches the parent alone; its end is the children's.
        .process_group(0)
        .spawn()
        .context("cannot start a run")?;
    let ended = wait(&mut child, begun + wall)?;
    let seconds = begun.elapsed().as_secs_f64();
    let fallen = |what: String| Outcome { again: job.command(), ..Outcome::fallen(&job.name, job.seed, vec![what]) };
    let outcome = match ended {
        None => fallen(not_ended(wall)),
        Some(status) => {
            let told = results::read_json::<Results>(&json).ok().and_then(Results::only);
            told.unwrap_or_else(|| fallen(format!("{status}: {}", end_of(&words))))
        }
    };
    Ok(Played { outcome, seconds })
}

/// Waits for its end; kills it at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> anyhow::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a run")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill().context("cannot end a run")?;
            child.wait().context("cannot wait for a run")?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn end_of(words: &Path) -> String {
    let mut all = Vec::new();
    let _ = File::open(words).and_then(|mut file| file.read_to_end(&mut all));
    String::from_utf8_lossy(&all[all.len().saturating_sub(LAST_WORDS)..]).trim().to_owned()
}

/// Plays all, so many at a time, and hands each over as it ends, with its place.
pub(super) fn play_all(jobs: &[Job], at_once: usize, wall: Duration, mut ended: impl FnMut(usize, Played)) -> anyhow::Result<()> {
    let waiting = Mutex::new((0..jobs.len()).collect::<VecDeque<_>>());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (done, all_done) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, jobs.len().max(1)) {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                while let Some(place) = next() {
                    let played = play(&jobs[place], wall);
                    let failed = played.is_err();
                    if done.send((place, played)).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(done);
        for (place, played) in all_done {
            ended(place, played?);
        }
        Ok(())
    })
}

/// As many runs at a time as there are cores.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}
