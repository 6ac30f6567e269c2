//! The agent as a process: real sockets, signals, systemd, and files that change under it.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::ca::{self, CaStatus};
use super::decide::Decide;
use super::{Agent, Sockets, sockets};
use crate::config::{Config, Loaded, Snapshot, Sources};
use crate::engine::Engine;
use crate::gossip::keyring::Keyring;
use crate::probe::{Before, TlsProber, Trust};
use crate::service::{self, Inherited};
use crate::world::{Clock, Net, Store, WallClock, World, real};

/// Files are looked at this often; SIGHUP looks at once.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Descriptors that are not counted on for connections: 64 for probes, gossip, cache and admin, the rest for races.
const RESERVED_DESCRIPTORS: u64 = 256;
/// Connections at most, whatever the limit of descriptors: each needs two.
const MOST_CONNECTIONS: usize = 20_000;
/// A keyring is smaller than this.
const KEYRING_MOST: usize = 1 << 20;

/// Why a process could not start. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What a person wrote, or a file it names, is wrong.
    #[error("{0}")]
    Configuration(String),
    /// This machine would not let us.
    #[error("{0}")]
    Machine(String),
    /// It ran, and a task has ended without which it is of no use.
    #[error("{0}")]
    Ended(String),
}

/// Runs an agent until it is told to stop. `files` are those that `loaded` was loaded through. `sources` are loaded again on
/// SIGHUP and when a watched file has changed; `inherited` are sockets that were passed to this process; `within` is as for
/// [`Agent::start`].
///
/// # Errors
/// See [`StartError`].
pub async fn run(
    loaded: Loaded,
    files: Arc<Snapshot>,
    sources: Sources,
    mut inherited: Inherited,
    within: impl FnOnce(Engine) -> Box<dyn Decide>,
) -> Result<(), StartError> {
    let descriptors = service::raise_descriptor_limit();
    let config = loaded.config;
    let machine = |error: std::io::Error| StartError::Machine(error.to_string());
    let store: Arc<dyn Store> = Arc::new(real::Files);
    let wall: Arc<dyn WallClock> = Arc::new(real::SystemClock);
    let net: Arc<dyn Net> = Arc::new(real::RealNet);
    let clock = Clock::start();
    let before = ca::before(&*store, &config).await;
    let (trust, keyring) = secrets(&config, &files, &wall, before).await.map_err(StartError::Configuration)?;
    ca::remember(&*store, &config, &trust).await;
    let fingerprint = config.fingerprint(&*files).await;
    files.thaw().await;
    let prober = Arc::new(TlsProber::new(net.clone(), clock, trust));
    let world = World {
        datagram: Arc::new(real::RealDatagram),
        net,
        prober: prober.clone(),
        resolver: Arc::new(real::SystemResolver::default()),
        store,
        wall,
        clock,
    };
    let sockets = bind(&config, &world, keyring, &mut inherited).await?;
    let most = most_connections(config.max_connections, descriptors);
    let mut signals = Signals::new().map_err(machine)?;
    let agent = Agent::start(config, &world, sockets, most, within).map_err(machine)?;
    agent.trust(CaStatus::of(&prober.trust()), None).await;
    service::ready();
    let process = Process { agent: &agent, world: &world, prober: &prober, sources: &sources, asked: Notify::new() };
    process.serve(&mut signals, fingerprint).await.inspect_err(|reason| error!(%reason, "prismesh ends, to be started again"))?;
    service::stopping();
    info!("stopping: serving on until the drain ends");
    let hurry = CancellationToken::new();
    let second = hurry.clone();
    let _waiting = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        signals.stop().await;
        second.cancel();
    }));
    agent.stop(hurry).await;
    info!("stopped");
    Ok(())
}

/// A running agent and what it is fed from.
struct Process<'a> {
    agent: &'a Agent,
    world: &'a World,
    prober: &'a TlsProber,
    sources: &'a Sources,
    /// SIGHUP has come.
    asked: Notify,
}

impl Process<'_> {
    /// Serves until a signal says stop, or a task has ended without which the agent is of no use.
    ///
    /// Signals, files and the watchdog do not wait for one another: a file system that hangs must not look like a hung agent.
    async fn serve(&self, signals: &mut Signals, fingerprint: [u8; 32]) -> Result<(), StartError> {
        tokio::select! {
            () = self.follow_signals(signals) => Ok(()),
            () = self.follow_files(fingerprint) => Ok(()),
            () = self.feed_watchdog() => Ok(()),
            reason = self.agent.ended() => Err(StartError::Ended(reason)),
        }
    }

    async fn follow_signals(&self, signals: &mut Signals) {
        while signals.next().await != Told::Stop {
            self.asked.notify_one();
        }
    }

    /// Never ends.
    async fn feed_watchdog(&self) {
        let Some(allowed) = service::watchdog() else { return std::future::pending().await };
        let mut beat = interval(allowed);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            match self.agent.healthy().await {
                Ok(()) => service::alive(),
                Err(reason) => error!(reason, "not telling the watchdog that all is well"),
            }
        }
    }

    /// Loads again what has changed, and everything when asked to. Never ends.
    async fn follow_files(&self, mut fingerprint: [u8; 32]) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missing = interval(ca::RETRY);
        missing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                () = self.asked.notified() => true,
                _ = look.tick() => false,
                _ = missing.tick(), if self.prober.trust().wants_ca() => false,
            };
            let files = Arc::new(Snapshot::new(self.world.store.clone()));
            if asked {
                service::reloading();
            }
            if asked || self.agent.config().fingerprint(&*files).await != fingerprint {
                fingerprint = self.reload(&files).await;
            }
            if asked {
                service::ready();
            }
        }
    }

    /// A good configuration replaces what was there; a bad one is told, counted and forgotten until a file changes again.
    /// Returns the fingerprint of what was read.
    async fn reload(&self, files: &Arc<Snapshot>) -> [u8; 32] {
        let before = self.agent.config();
        let loaded = async {
            let loaded = Config::load(self.sources, &**files).await.map_err(|error| error.to_string())?;
            let reload = before.reload(loaded.config);
            let trust = self.prober.trust();
            let secrets = secrets(&reload.config, files, &self.world.wall, Before::Believed(&trust)).await?;
            Ok::<_, String>((reload, secrets))
        };
        match loaded.await {
            Ok((reload, (trust, keyring))) => {
                for setting in reload.restart {
                    warn!(setting, "changed, but it takes a restart to apply");
                }
                let fingerprint = reload.config.fingerprint(&**files).await;
                files.thaw().await;
                ca::remember(&*self.world.store, &reload.config, &trust).await;
                let ca = CaStatus::of(&trust);
                let worth = self.prober.replace(trust).await;
                self.agent.reload(reload.config, keyring).await;
                self.agent.trust(ca, worth).await;
                info!("configuration reloaded");
                fingerprint
            }
            Err(reason) => {
                error!(reason, "reload failed: everything stays as it was");
                self.agent.reload_failed(reason);
                before.fingerprint(&**files).await
            }
        }
    }
}

/// Reads what probes trust and what gossip is sealed with.
async fn secrets(
    config: &Config,
    files: &Arc<Snapshot>,
    wall: &Arc<dyn WallClock>,
    before: Before<'_>,
) -> Result<(Trust, Option<Keyring>), String> {
    let trust = Trust::load(files.clone(), wall.clone(), config, before).await.map_err(|error| error.to_string())?;
    let Some(gossip) = &config.gossip else { return Ok((trust, None)) };
    let wrong = |reason: String| format!("keyring {}: {reason}", gossip.keyring.display());
    let text = files.read(&gossip.keyring, KEYRING_MOST).await.map_err(|error| wrong(error.to_string()))?;
    let keyring = Keyring::parse(&text).map_err(|error| wrong(error.to_string()))?;
    Ok((trust, Some(keyring)))
}

async fn bind(
    config: &Config,
    world: &World,
    keyring: Option<Keyring>,
    inherited: &mut Inherited,
) -> Result<Sockets, StartError> {
    let machine = |error: sockets::SocketError| StartError::Machine(error.to_string());
    let gossip = match (&config.gossip, keyring) {
        (Some(gossip), Some(keyring)) => {
            Some((sockets::gossip(world, gossip.listen, inherited).await.map_err(machine)?, keyring))
        }
        _ => None,
    };
    Ok(Sockets {
        proxy: sockets::proxy(world, config, inherited).await.map_err(machine)?,
        admin: sockets::admin(world, config, inherited).await.map_err(machine)?,
        gossip,
    })
}

/// Connections at most: as many as were asked for and as the descriptors allow. With more of them than that, none would be
/// left for probes and for the admin port just when somebody has to look.
fn most_connections(wanted: Option<usize>, descriptors: u64) -> usize {
    let allowed = usize::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2).unwrap_or(usize::MAX).max(1);
    let wanted = match wanted {
        Some(wanted) if wanted > allowed => {
            warn!(wanted, allowed, descriptors, "max-connections lowered: the limit of descriptors (`ulimit -n`) allows no more");
            wanted
        }
        Some(wanted) => wanted,
        None => MOST_CONNECTIONS,
    };
    wanted.min(allowed)
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

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// Waits for a signal that says stop.
    async fn stop(&mut self) {
        while self.next().await != Told::Stop {}
    }
}

/// What a signal says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Stop,
    Reload,
}
