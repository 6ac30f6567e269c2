//! A machine whose clock somebody sets. The one seam that no process can be given from outside is the time of day, so the
//! agents here live in this process, over a world that is real but for its clock.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use prismesh::agent::decide::{Decide, Entry, Recorded};
use prismesh::agent::{Agent, Sockets};
use prismesh::config::{Config, Sources};
use prismesh::engine::event::{Notice, Verdict};
use prismesh::engine::{Effect, Endpoint};
use prismesh::gossip::keys::Keyring;
use prismesh::probe::{Before, TlsProber, Trust};
use prismesh::world::real::{Files, RealDatagram, RealDatagramSocket, RealListener, RealNet, SystemClock, SystemResolver};
use prismesh::world::{Clock, Store as _, WallClock, World};
use serde_json::Value;
use simulations::lab::client::Target;
use simulations::lab::status::{Status, page};
use simulations::lab::watcher::Watcher;
use tokio::time::sleep;

use crate::rig::{Rig, SOON, START, secs, until};

const HOUR: i64 = 3600;
/// Long enough for what a wrong clock would spoil: probes, rounds of gossip, cuts (3 s after a failed probe).
const A_WHILE: Duration = secs(4);
/// Clients with a stream each, on both apiservers.
const WATCHERS: usize = 6;
/// A worker and a core member hear each other every four seconds, give or take a fifth.
const HEARD: f64 = 6.0;

/// The machine's clock, so many seconds off.
#[derive(Default)]
struct Wrong(AtomicI64);

impl Wrong {
    fn by(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl WallClock for Wrong {
    fn now(&self) -> SystemTime {
        let (off, right) = (self.0.load(Ordering::Relaxed), SystemClock.now());
        let by = Duration::from_secs(off.unsigned_abs());
        if off < 0 { right - by } else { right + by }
    }
}

/// An agent in this process.
struct Here {
    proxy: SocketAddr,
    admin: SocketAddr,
    notices: Arc<Mutex<Vec<Notice>>>,
    _agent: Agent,
}

impl Here {
    /// Starts the agent of a host, by this clock, with these lines more in its configuration.
    async fn start(rig: &Rig, host: u8, wall: &Arc<Wrong>, lines: &str) -> Result<Here> {
        let (proxy, admin, gossip) = (rig.subnet.at(host, 7445), rig.subnet.at(host, 7446), rig.subnet.at(host, 7447));
        let (file, keyring) = (rig.dir().join(format!("{host}.yaml")), rig.dir().join("keyring"));
        let (state, ca) = (rig.dir().join(format!("{host}-state")), rig.ca.certificate());
        let text = format!(
            "cluster: abuse\nnode: node-{host}\nlisten: [\"{proxy}\"]\nadmin: \"{admin}\"\ngossip-listen: \"{gossip}\"\n\
             keyring: {}\nstate-dir: {}\nca: {}\n{lines}\n",
            keyring.display(),
            state.display(),
            ca.display()
        );
        std::fs::write(&file, text)?;
        let sources = Sources { file: Some(file), ..Sources::default() };
        let config = Config::load(&sources, &Files).await?.config;
        let keyring = Keyring::parse(&Files.read(&keyring, 4096).await?)?;
        let (clock, net, store) = (Clock::start(), Arc::new(RealNet), Arc::new(Files));
        let trust = Trust::load(store.clone(), wall.clone(), &config, Before::Nothing).await?;
        let world = World {
            datagram: Arc::new(RealDatagram),
            net: net.clone(),
            prober: Arc::new(TlsProber::new(net, clock, trust)),
            resolver: Arc::new(SystemResolver::default()),
            store,
            wall: wall.clone(),
            clock,
        };
        let sockets = Sockets {
            proxy: vec![Box::new(RealListener::bind(proxy)?)],
            admin: Box::new(RealListener::bind(admin)?),
            gossip: Some((Box::new(RealDatagramSocket::bind(gossip)?), keyring)),
        };
        let notices = Arc::<Mutex<Vec<Notice>>>::default();
        let noted = notices.clone();
        let within = |engine| -> Box<dyn Decide> {
            Box::new(Recorded::new(engine, move |entry| {
                let Entry::Step { effects, .. } = entry else { return };
                let told = effects.iter().filter_map(|effect| match effect {
                    Effect::Notice(notice) => Some(notice.clone()),
                    _ => None,
                });
                noted.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
            }))
        };
        Ok(Here { proxy, admin, notices, _agent: Agent::start(config, &world, sockets, 1000, within)? })
    }

    /// What it has told since it was asked last.
    fn noticed(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn verdict(&self, endpoint: SocketAddr) -> String {
        Status::of(self.admin).await.ok().and_then(|status| status.verdict(endpoint).map(str::to_owned)).unwrap_or_default()
    }

    async fn becomes(&self, endpoint: SocketAddr, verdict: &str) -> Result<()> {
        until(&format!("{endpoint} becomes {verdict}"), START, async || self.verdict(endpoint).await == verdict).await?;
        Ok(())
    }

    /// Whether it hears a peer of this name.
    async fn hears(&self, name: &str) -> Result<bool> {
        let status: Value = serde_json::from_str(&page(self.admin, "/status").await?)?;
        let peers = status["peers"].as_array().context("a list of peers")?;
        Ok(peers.iter().any(|peer| {
            peer["name"] == name && peer["alive"] == true && peer["last_heard_s"].as_f64().is_some_and(|ago| ago < HEARD)
        }))
    }

    async fn serves(&self, rig: &Rig) -> Result<()> {
        let answer = Target::new(self.proxy, "/", &rig.ca.certificate(), None)?.get(SOON).await;
        ensure!(answer.is_ok(), "it serves: {answer:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_by_hours_cuts_nothing_doubts_nobody_and_spoils_no_memory() -> Result<()> {
    let rig = Rig::new().await?;
    crate::gossip::make_keyring(&rig.dir().join("keyring"))?;
    let _one = rig.apiserver(11).await?;
    // The other one's certificate is of this hour only.
    let (mut options, now, hour) = (rig.options(12)?, SystemClock.now(), secs(3600));
    let pair = rig.ca.server_within("api-12", &[options.listen.ip()], now - hour, now + hour)?;
    (options.cert, options.key) = (pair.cert, pair.key);
    let _brief = rig.serve(&options).await?;
    let (one, other) = (rig.endpoint(11), rig.endpoint(12));

    let (right, wrong) = (Arc::new(Wrong::default()), Arc::new(Wrong::default()));
    let told = format!("apiserver: [\"{one}\"]");
    let known = format!("endpoint: [\"{other}\"]\nseed: [\"{}\"]", rig.subnet.at(41, 7447));
    let teller = Here::start(&rig, 41, &right, &told).await?;
    let worker = Here::start(&rig, 42, &wrong, &known).await?;
    for endpoint in [one, other] {
        worker.becomes(endpoint, "ready").await?;
    }
    let target = Target::new(worker.proxy, "/watch", &rig.ca.certificate(), None)?;
    let watchers: Vec<Watcher> = (0..WATCHERS).map(|_| Watcher::start(target.clone())).collect();
    let untouched = || watchers.iter().all(|watcher| watcher.current().is_some() && watcher.streams().len() == 1);
    until("all watch", SOON, async || untouched()).await?;

    // Whose certificate is not of that hour is not used while there is another, and not cut; nothing else changes.
    let ranked_down = |endpoint: &Endpoint, to: &Verdict| *endpoint == other.into() && *to == Verdict::Draining;
    let mut told = Vec::new();
    for hours in [-5, 5] {
        worker.noticed();
        wrong.by(hours * HOUR);
        sleep(A_WHILE).await;
        let noticed = worker.noticed();
        let spoilt = |notice: &Notice| matches!(notice, Notice::Verdict { endpoint, to, .. } if !ranked_down(endpoint, to));
        ensure!(!noticed.iter().any(spoilt), "{hours} h: {noticed:?}");
        told.extend(noticed);
        ensure!(untouched(), "{hours} h: every stream goes on");
        ensure!(worker.hears("node-41").await? && teller.hears("node-42").await?, "{hours} h: gossip goes on");
        worker.serves(&rig).await?;
    }

    worker.becomes(other, "draining").await?;
    told.extend(worker.noticed());
    ensure!(told.contains(&Notice::Expired(other.into())), "it is told: {told:?}");
    ensure!(untouched(), "its streams go on too");

    // What is written down at a wrong hour is of use at another: here by a clock that went back by ten.
    let _newcomer = Here::start(&rig, 43, &right, &format!("seed: [\"{}\"]", rig.subnet.at(42, 7447))).await?;
    until("what is new is heard", SOON, async || teller.hears("node-43").await.is_ok_and(|hears| hears)).await?;
    drop((worker, teller, watchers));
    wrong.by(-5 * HOUR);
    sleep(secs(1)).await;
    let worker = Here::start(&rig, 42, &wrong, "").await?;
    worker.becomes(one, "ready").await?;
    let upstreams = Status::of(worker.admin).await?.upstreams;
    let remembered = |addr: SocketAddr| {
        upstreams.iter().any(|it| it.endpoint == addr.to_string() && it.sources.contains(&"cached".to_owned()))
    };
    ensure!(remembered(one), "it remembers: {upstreams:?}");
    worker.serves(&rig).await?;
    let teller = Here::start(&rig, 41, &right, &format!("apiserver: [\"{one}\"]")).await?;
    until("it is known again", SOON, async || teller.hears("node-42").await.is_ok_and(|hears| hears)).await?;
    Ok(())
}
