//! `prismesh run`: configuration, logs, and then the agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::output::Failure;
use super::record::Recording;
use super::settings::Settings;
use super::{config_check, logging};
use crate::agent::decide::{Decide, Recorded};
use crate::agent::process::{self, StartError};
use crate::config::{Loaded, Snapshot, Sources};
use crate::log::{self, Log};
use crate::service::{self, Inherited};
use crate::supervise::{self, caught};
use crate::world::real;

/// Threads that carry at most: more buy nothing for an apiserver's traffic, and each costs memory on every node.
const WORKERS: usize = 4;

/// A configuration file that is missing is looked for this often.
const MISSING_INTERVAL: Duration = Duration::from_secs(1);

/// `prismesh run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    settings: Settings,

    /// Write every event that the engine is told, and what it answers, to this file as JSON lines, so that what it decided can
    /// be replayed. About 1 MB a minute in a small cluster; it names nodes and addresses
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// Runs the agent. Nothing in here writes to standard error but the log's own thread, and nothing waits for it.
pub(super) fn run(run: Run) -> Result<(), Failure> {
    // Before there are other threads: it changes the environment.
    let inherited = service::inherited();
    let sources = run.settings.sources();
    let log = log::start();
    supervise::hook_panics();
    let ended = runtime().and_then(|runtime| {
        let agent = serve(&sources, inherited, run.record.as_deref(), log);
        let ended = runtime.block_on(caught(agent)).unwrap_or_else(|panic| Err(StartError::Ended(panic).into()));
        // A blocking call that never returns, on a file system that hangs, is not waited for.
        runtime.shutdown_background();
        ended
    });
    let ended = ended.map_err(|failure| {
        log.line(format!("prismesh: {failure}\n").as_bytes());
        Failure::Told(failure.exit_code())
    });
    log.finish();
    ended
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let workers = WORKERS.min(std::thread::available_parallelism().map_or(1, usize::from));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(workers).enable_all().build().context("cannot start the runtime")?)
}

async fn serve(sources: &Sources, inherited: Inherited, record: Option<&Path>, log: &'static Log) -> Result<(), Failure> {
    // A log, a record or a cache that may grow no further is an error of its writer. Unheard, the signal ends the process.
    let _too_large = signal(SignalKind::from_raw(libc::SIGXFSZ)).context("cannot hear signals")?;
    let (loaded, files) = load_once_it_is_there(sources, log).await?;
    logging::start(&loaded.config, log)?;
    for warning in loaded.warnings.iter().chain(&inherited.warnings) {
        tracing::warn!("{warning}");
    }
    let recording = match record {
        Some(path) => Some(Recording::create(path).await?),
        None => None,
    };
    let within = |engine| -> Box<dyn Decide> {
        match recording {
            None => Box::new(engine),
            Some(mut recording) => Box::new(Recorded::new(engine, move |entry| recording.write(entry))),
        }
    };
    Ok(process::run(loaded, files, sources.clone(), inherited, within).await?)
}

/// Waits for a configuration file that is missing, or that cannot be read for now. What is wrong in another way is an error.
async fn load_once_it_is_there(sources: &Sources, log: &'static Log) -> Result<(Loaded, Arc<Snapshot>), Failure> {
    // Whoever asks for another look gets it, instead of an agent that ends.
    let mut asked = signal(SignalKind::hangup()).context("cannot hear signals")?;
    let mut told = false;
    loop {
        let files = Arc::new(Snapshot::new(Arc::new(real::Files)));
        match config_check::load(sources, &*files).await {
            Err(error) if error.missing => {
                if !std::mem::replace(&mut told, true) {
                    let _early = logging::early(sources, log).await;
                    tracing::warn!("{error}; waiting for it, and serving nothing until then");
                    service::status(&format!("waiting: {error}"));
                }
                let _ = timeout(MISSING_INTERVAL, asked.recv()).await;
            }
            loaded => {
                if told {
                    service::status("");
                }
                return Ok((loaded?, files));
            }
        }
    }
}
