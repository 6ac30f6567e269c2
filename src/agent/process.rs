//! The agent as a process: real sockets, signals, systemd, and files that change under it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Agent, Sockets, sockets};
use crate::config::Config;
use crate::gossip::keyring::Keyring;
use crate::probe::{TlsProber, Trust};
use crate::service::{self, Inherited};
use crate::world::real::RealWorld;
use crate::world::{BoxFuture, Store, World};

/// Files are looked at this often; SIGHUP looks at once.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Descriptors that stay free for probes, gossip, cache and admin.
const RESERVED_DESCRIPTORS: u64 = 256;
/// Connections at most, whatever the limit of descriptors: each needs two.
const MOST_CONNECTIONS: u64 = 20_000;
/// Files that a person hands over (keyring, CA) are smaller than this.
const FILE_MOST: usize = 1 << 20;

/// Reads the configuration again, from the same file, environment and flags.
pub type Loader = Box<dyn Fn() -> BoxFuture<'static, Result<Config, String>> + Send + Sync>;

/// Why a process could not start. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What a person wrote, or a file it names, is wrong.
    #[error("{0}")]
    Configuration(String),
    /// This machine would not let us.
    #[error("{0}")]
    Machine(String),
}

/// Runs an agent until it is told to stop.
///
/// # Errors
/// Only before it serves; see [`StartError`].
pub async fn run(config: Config, load: Loader) -> Result<(), StartError> {
    let descriptors = service::raise_descriptor_limit();
    let real = RealWorld::new();
    let files = Files::read(&config, &*real.store).await.map_err(StartError::Configuration)?;
    let prober = Arc::new(TlsProber::new(real.net.clone(), real.clock, files.trust));
    let world = real.with_prober(prober.clone());
    warn_of_weakness(&config);
    let sockets = bind(&config, &world, files.keyring).await?;
    let most = config.max_connections.unwrap_or_else(|| most_connections(descriptors));
    let machine = |error: std::io::Error| StartError::Machine(error.to_string());
    let mut signals = Signals::new().map_err(machine)?;
    let agent = Agent::start(config, &world, sockets, most).map_err(machine)?;
    service::ready();
    serve(&agent, &world, &prober, &load, &mut signals, files.seen).await;
    service::stopping();
    info!("stopping: serving on until the drain ends");
    let hurry = CancellationToken::new();
    let second = hurry.clone();
    let waiting = tokio::spawn(async move {
        signals.stop().await;
        second.cancel();
    });
    agent.stop(hurry).await;
    waiting.abort();
    info!("stopped");
    Ok(())
}

/// Serves until a signal says stop.
async fn serve(
    agent: &Agent,
    world: &World,
    prober: &TlsProber,
    load: &Loader,
    signals: &mut Signals,
    mut seen: Seen,
) {
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.reset();
    let watchdog = service::watchdog();
    let mut beat = interval(watchdog.unwrap_or(LOOK_INTERVAL));
    loop {
        tokio::select! {
            () = signals.stop() => return,
            _ = signals.hangup.recv() => {
                service::reloading();
                reload(agent, world, prober, load, &mut seen).await;
                service::ready();
            }
            _ = look.tick() => {
                if seen.look(&*world.store).await {
                    reload(agent, world, prober, load, &mut seen).await;
                }
            }
            _ = beat.tick(), if watchdog.is_some() => match agent.healthy().await {
                Ok(()) => service::alive(),
                Err(reason) => error!(reason, "not telling the watchdog that all is well"),
            },
        }
    }
}

/// A good configuration replaces what was there; a bad one is told, counted and forgotten.
async fn reload(agent: &Agent, world: &World, prober: &TlsProber, load: &Loader, seen: &mut Seen) {
    let loaded = async {
        let config = load().await?;
        let files = Files::read(&config, &*world.store).await?;
        Ok::<_, String>((config, files))
    };
    match loaded.await {
        Ok((config, files)) => {
            for setting in Config::restart_needed(&agent.config(), &config) {
                warn!(setting, "changed, but it takes a restart to apply");
            }
            prober.replace(files.trust);
            *seen = files.seen;
            agent.reload(config, files.keyring).await;
            info!("configuration reloaded");
        }
        Err(reason) => {
            // Looked at again only when it changes again.
            seen.look(&*world.store).await;
            agent.reload_failed();
            error!(reason, "reload failed: everything stays as it was");
        }
    }
}

/// What is read from the files that the configuration names.
struct Files {
    keyring: Option<Keyring>,
    trust: Trust,
    seen: Seen,
}

impl Files {
    async fn read(config: &Config, store: &dyn Store) -> Result<Files, String> {
        let mut seen = Seen { files: config.watched_files().into_iter().map(|path| (path, None)).collect() };
        seen.look(store).await;
        let trust = Trust::load(world.store.clone(), world.wall.clone(), config).await.map_err(|error| error.to_string())?;
        let keyring = match &config.gossip {
            None => None,
            Some(gossip) => {
                let wrong = |reason: String| format!("keyring {}: {reason}", gossip.keyring.display());
                let text = store.read(&gossip.keyring, FILE_MOST).await.map_err(|error| wrong(error.to_string()))?;
                Some(Keyring::parse(&text).map_err(|error| wrong(error.to_string()))?)
            }
        };
        Ok(Files { keyring, trust, seen })
    }
}

/// The watched files as they were last seen; [`None`] for one that could not be read.
struct Seen {
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Seen {
    /// Looks again and returns whether anything has changed.
    async fn look(&mut self, store: &dyn Store) -> bool {
        let mut changed = false;
        for (path, last) in &mut self.files {
            let now = store.read(path, FILE_MOST).await.ok();
            changed |= *last != now;
            *last = now;
        }
        changed
    }
}

async fn bind(config: &Config, world: &World, keyring: Option<Keyring>) -> Result<Sockets, StartError> {
    let machine = |error: sockets::SocketError| StartError::Machine(error.to_string());
    let mut inherited = service::inherited();
    let gossip = match (&config.gossip, keyring) {
        (Some(gossip), Some(keyring)) => {
            Some((sockets::gossip(world, gossip.listen, &mut inherited).await.map_err(machine)?, keyring))
        }
        _ => None,
    };
    Ok(Sockets {
        proxy: sockets::proxy(world, config, &mut inherited).await.map_err(machine)?,
        admin: sockets::admin(world, config, &mut inherited).await.map_err(machine)?,
        gossip,
    })
}

fn most_connections(descriptors: u64) -> usize {
    let most = MOST_CONNECTIONS.min(descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2);
    usize::try_from(most).unwrap_or(usize::MAX).max(1)
}

fn warn_of_weakness(config: &Config) {
    if config.ca.is_none() {
        warn!("no CA: whatever completes a TLS handshake counts as an apiserver; set --ca");
    }
}

/// The signals that a service gets.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
