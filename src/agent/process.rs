//! The agent as a process: real sockets, signals, systemd, and files that change under it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::ca::{self, CaStatus};
use super::decide::Decide;
use super::{Agent, Sockets, sockets};
use crate::config::{Config, Loaded, Missing, Reload, Setting, Snapshot, Sources};
use crate::engine::Engine;
use crate::gossip::keys::Keyring;
use crate::probe::{Before, TlsProber, Trust};
use crate::service::{self, Inherited};
use crate::world::{Clock, DatagramSocket, Net, Store, WallClock, World, real};

/// Files are looked at this often; SIGHUP looks at once.
const LOOK_INTERVAL: Duration = ca::RETRY;
/// The same while something is missing.
const MISSING_INTERVAL: Duration = Duration::from_secs(1);
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
    let Loaded { config, missing, .. } = loaded;
    let machine = |error: std::io::Error| StartError::Machine(error.to_string());
    // First, so that a signal that comes while this starts is heard when it has started.
    let mut signals = Signals::new().map_err(machine)?;
    let store: Arc<dyn Store> = Arc::new(real::Files);
    let wall: Arc<dyn WallClock> = Arc::new(real::SystemClock);
    let net: Arc<dyn Net> = Arc::new(real::RealNet);
    let clock = Clock::start();
    let before = ca::before(&*store, &config).await;
    let (trust, keyring) = secrets(&config, &missing, &files, &wall, before).await.map_err(StartError::Configuration)?;
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
    let (sockets, gossip) = bind(&config, &world, keyring, &mut inherited).await?;
    for socket in inherited.take_rest() {
        warn!(
            "an inherited {socket} is none that the configuration names: it is closed. Name it by FileDescriptorName=, or listen there"
        );
    }
    let most = most_connections(config.max_connections, descriptors);
    let agent = Agent::start(config, &world, sockets, most, within).map_err(machine)?;
    agent.trust(CaStatus::of(&prober.trust()), None).await;
    service::ready();
    let process = Process { agent: &agent, world: &world, prober: &prober, asked: Notify::new() };
    let mut followed = Followed { sources, fingerprint, failed: None, missing, gossip, waits: BTreeMap::new() };
    process.tell_what_is_missing(&mut followed);
    process.serve(&mut signals, followed).await.inspect_err(|reason| error!(%reason, "prismesh ends, to be started again"))?;
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
    /// SIGHUP has come.
    asked: Notify,
}

/// What the sources said when they were last loaded, and what is still missing.
struct Followed {
    sources: Sources,
    fingerprint: [u8; 32],
    /// Why the last reload failed.
    failed: Option<String>,
    /// Files that have been missing since the start.
    missing: Vec<Missing>,
    /// The socket, while gossip waits for its keys or for this node's name.
    gossip: Option<Box<dyn DatagramSocket>>,
    /// What a person was told of that.
    waits: BTreeMap<&'static str, String>,
}

impl Process<'_> {
    /// Serves until a signal says stop, or a task has ended without which the agent is of no use.
    ///
    /// Signals, files and the watchdog do not wait for one another: a file system that hangs must not look like a hung agent.
    async fn serve(&self, signals: &mut Signals, followed: Followed) -> Result<(), StartError> {
        tokio::select! {
            () = self.follow_signals(signals) => Ok(()),
            () = self.follow_files(followed) => Ok(()),
            () = self.feed_watchdog() => Ok(()),
            () = service::keep_telling() => Ok(()),
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
    async fn follow_files(&self, mut followed: Followed) {
        self.remember_ca().await;
        loop {
            let pause = if followed.waits.is_empty() { LOOK_INTERVAL } else { MISSING_INTERVAL };
            let asked = timeout(pause, self.asked.notified()).await.is_ok();
            followed.sources.look_at_hostname();
            let config = self.agent.config();
            let files = Arc::new(Snapshot::new(self.world.store.clone()));
            if asked {
                service::reloading();
            }
            let named = config.unnamed() && followed.sources.has_hostname();
            let changed = asked || named || config.fingerprint(&*files).await != followed.fingerprint;
            // What made a reload fail may be mended without a change of any file that is watched: a mode, an owner, a file that is named
            // only since.
            if changed || followed.failed.is_some() {
                followed.fingerprint = self.reload(&mut followed, &files, changed).await;
            }
            if asked {
                service::ready();
            }
        }
    }

    /// A good configuration replaces what was there; a bad one is told and counted, again only when something has `changed` or the reason
    /// is another, and tried again until it is good. Returns the fingerprint of what was read.
    async fn reload(&self, followed: &mut Followed, files: &Arc<Snapshot>, changed: bool) -> [u8; 32] {
        let before = self.agent.config();
        match self.load(followed, &before, files).await {
            Ok((reload, missing, (trust, keyring))) => {
                for setting in reload.restart {
                    warn!(setting, "changed, but it takes a restart to apply");
                }
                let fingerprint = reload.config.fingerprint(&**files).await;
                files.thaw().await;
                followed.failed = None;
                let named = !reload.config.unnamed();
                let (ca, worth) = (CaStatus::of(&trust), self.prober.replace(trust).await);
                self.agent.reload(reload.config, keyring.clone()).await;
                self.agent.trust(ca, worth).await;
                self.remember_ca().await;
                info!("configuration reloaded");
                if let Some((keyring, socket)) = keyring.filter(|_| named).zip(followed.gossip.take_if(|_| named)) {
                    self.agent.begin_gossip(socket, keyring).await;
                }
                followed.missing = missing;
                self.tell_what_is_missing(followed);
                fingerprint
            }
            Err(reason) => {
                if changed || followed.failed.as_ref() != Some(&reason) {
                    // Counted first: a reader of the log may ask for the count at once.
                    self.agent.reload_failed(reason.clone());
                    error!(
                        reason,
                        "reload failed: everything stays as it was, but for a CA that is good, and it is tried again and again"
                    );
                    followed.failed = Some(reason);
                }
                if changed {
                    self.follow_ca(&before, files).await;
                }
                before.fingerprint(&**files).await
            }
        }
    }

    /// Whatever else is wrong, a CA that is replaced is followed: without the new one nobody would be believed in the end.
    async fn follow_ca(&self, config: &Config, files: &Arc<Snapshot>) {
        let before = self.prober.trust();
        let trust = match before.with_ca(&**files, config).await {
            Ok(trust) => trust,
            Err(error) => return error!(%error, "the CA stays as it was as well"),
        };
        let ca = CaStatus::of(&trust);
        if trust.believes_as(&before) && ca == CaStatus::of(&before) {
            return;
        }
        if !trust.believes_as(&before) {
            info!("the CA was loaded again although the reload failed");
        }
        let worth = self.prober.replace(trust).await;
        self.agent.trust(ca, worth).await;
        self.remember_ca().await;
    }

    async fn remember_ca(&self) {
        ca::remember(&*self.agent.store(), &self.agent.config(), &self.prober.trust()).await;
    }

    /// Everything anew. A file that was there must not go missing.
    async fn load(
        &self,
        followed: &Followed,
        before: &Config,
        files: &Arc<Snapshot>,
    ) -> Result<(Reload, Vec<Missing>, Secrets), String> {
        let Loaded { config, missing, .. } =
            Config::load(&followed.sources, &**files).await.map_err(|error| error.to_string())?;
        let known = |one: &&Missing| followed.missing.iter().any(|before| before.setting == one.setting);
        if let Some(gone) = missing.iter().find(|one| !known(one)) {
            return Err(gone.error.to_string());
        }
        let reload = before.reload(config);
        let trust = self.prober.trust();
        let secrets = secrets(&reload.config, &missing, files, &self.world.wall, Before::Believed(&trust)).await?;
        Ok((reload, missing, secrets))
    }

    /// What the agent serves without, each once in the log, and in `status` and a metric for as long as it lasts.
    fn tell_what_is_missing(&self, followed: &mut Followed) {
        let mut waits: BTreeMap<&'static str, String> = BTreeMap::new();
        for Missing { setting, error } in &followed.missing {
            match setting {
                Setting::Keyring => waits.insert("keyring", format!("gossip waits for its keyring: {error}")),
                _ => waits.insert("probe_credentials", format!("probes are made without credentials: {error}")),
            };
        }
        if followed.gossip.is_some() && self.agent.config().unnamed() {
            let name = &self.agent.config().node;
            let note = format!("gossip waits for this node's name: the hostname is still {name:?}; or give --node");
            waits.insert("node_name", note);
        }
        for note in waits.iter().filter(|(what, _)| !followed.waits.contains_key(*what)).map(|(_, note)| note) {
            warn!("{note}");
        }
        for what in followed.waits.keys().filter(|what| !waits.contains_key(*what)) {
            info!(what, "no longer waited for");
        }
        if waits != followed.waits {
            let all: Vec<&str> = waits.values().map(String::as_str).collect();
            service::status(&all.join("; "));
            followed.waits.clone_from(&waits);
            self.agent.waits_for(waits);
        }
    }
}

/// What probes trust, and what gossip is sealed with, if there is a keyring.
type Secrets = (Trust, Option<Keyring>);

/// Reads what probes trust and what gossip is sealed with, without what is missing.
async fn secrets(
    config: &Config,
    missing: &[Missing],
    files: &Arc<Snapshot>,
    wall: &Arc<dyn WallClock>,
    before: Before<'_>,
) -> Result<Secrets, String> {
    let lacks = |setting| missing.iter().any(|one| one.setting == setting);
    let credentials = [Setting::ProbeCert, Setting::ProbeKey, Setting::ProbeTokenFile];
    let probe_credentials = config.probe_credentials.clone().filter(|_| !credentials.into_iter().any(lacks));
    let trusting = Config { probe_credentials, ..config.clone() };
    let trust = Trust::load(files.clone(), wall.clone(), &trusting, before).await.map_err(|error| error.to_string())?;
    let Some(gossip) = config.gossip.as_ref().filter(|_| !lacks(Setting::Keyring)) else { return Ok((trust, None)) };
    let wrong = |reason: String| format!("keyring {}: {reason}", gossip.keyring.display());
    let text = files.read(&gossip.keyring, KEYRING_MOST).await.map_err(|error| wrong(error.to_string()))?;
    let keyring = Keyring::parse_for(&text, config.is_core()).map_err(|error| wrong(error.to_string()))?;
    Ok((trust, Some(keyring)))
}

/// All sockets; that of gossip on its own while gossip has to wait for its keys or for this node's name.
async fn bind(
    config: &Config,
    world: &World,
    keyring: Option<Keyring>,
    inherited: &mut Inherited,
) -> Result<(Sockets, Option<Box<dyn DatagramSocket>>), StartError> {
    let machine = |error: sockets::SocketError| StartError::Machine(error.to_string());
    let mut gossip = match &config.gossip {
        Some(gossip) => Some(sockets::gossip(world, gossip.listen, inherited).await.map_err(machine)?),
        None => None,
    };
    let keyring = keyring.filter(|_| !config.unnamed());
    let sockets = Sockets {
        proxy: sockets::proxy(world, config, inherited).await.map_err(machine)?,
        admin: sockets::admin(world, config, inherited).await.map_err(machine)?,
        gossip: gossip.take_if(|_| keyring.is_some()).zip(keyring),
    };
    Ok((sockets, gossip))
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
