//! A pair of equal clients. One connects through prismesh; the certificate that it is shown tells which apiserver prismesh chose, and
//! the other uses its own connection there. Since it is not known before which one that will be, the other has dialled all of them at the
//! same moment.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::draw::{Kind, Pair, World};
use super::exchange::{SMALL_WINDOW, Stream, exchange};
use super::exempt;
use super::faults::Record;
use crate::lab::client::{FirstByte, Target};
use crate::lab::status::page;

/// client-go gives up a dial or a TLS handshake after this.
const CONNECT: Duration = Duration::from_secs(10);

/// What a pair needs to know of its trial.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) began: Instant,
    /// Nobody waits longer.
    pub(super) until: Duration,
    pub(super) through: Target,
    pub(super) direct: Vec<Target>,
    pub(super) certificates: Vec<rustls::pki_types::CertificateDer<'static>>,
    pub(super) admin: SocketAddr,
    pub(super) record: Record,
}

/// How one client of a pair fared.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// Its own address.
    pub(super) local: Option<SocketAddr>,
    /// When it ended, since the trial's begin.
    pub(super) at: Duration,
    /// What came of it, or why not all did.
    pub(super) came: Result<String, String>,
}

/// How a pair fared.
#[derive(Clone, Debug)]
pub(super) struct Fared {
    pub(super) pair: Pair,
    /// When both began to connect.
    pub(super) begun: Duration,
    pub(super) through: Side,
    /// Beside each apiserver that prismesh chose, or could have chosen, the direct client's fate there.
    pub(super) direct: Vec<(usize, Side)>,
    /// What kernel and agent told when the client of prismesh had failed.
    pub(super) state: Option<String>,
}

/// Plays it.
pub(super) async fn play(pair: Pair, scene: Scene) -> Fared {
    sleep_until(scene.began + pair.begins).await;
    let begun = scene.began.elapsed();
    let dials: Vec<JoinHandle<Result<Stream>>> =
        scene.direct.iter().map(|target| tokio::spawn(connect(sized(target, pair.kind)))).collect();
    let through = match connect(sized(&scene.through, pair.kind)).await {
        Ok(stream) => stream,
        Err(error) => return unconnected(pair, &scene, begun, &error, dials).await,
    };
    let Some(chosen) = scene.chosen(&through) else {
        let error = anyhow::anyhow!("the certificate is none of the apiservers'");
        return unconnected(pair, &scene, begun, &error, dials).await;
    };
    let mut own = None;
    for (index, dial) in dials.into_iter().enumerate() {
        if index == chosen { own = Some(dial) } else { dial.abort() }
    }
    let direct = match own {
        Some(dial) => dial.await.context("it panicked").and_then(|dialled| dialled),
        None => Err(anyhow::anyhow!("there is no such apiserver")),
    };
    let one = async {
        let side = scene.side(pair, Ok(through)).await;
        let state = match side.came {
            Err(_) if scene.is_worth_a_look(chosen, begun, side.at) => Some(scene.state(chosen).await),
            _ => None,
        };
        (side, state)
    };
    let ((through, state), direct) = tokio::join!(one, scene.side(pair, direct));
    Fared { pair, begun, through, direct: vec![(chosen, direct)], state }
}

/// The client of prismesh got no connection: what became of those who dialled directly?
async fn unconnected(
    pair: Pair,
    scene: &Scene,
    begun: Duration,
    error: &anyhow::Error,
    dials: Vec<JoinHandle<Result<Stream>>>,
) -> Fared {
    let through = scene.failed(None, error);
    let state = scene.state(0).await;
    let mut direct = Vec::new();
    for (index, dial) in dials.into_iter().enumerate() {
        let dialled = dial.await.context("it panicked").and_then(|dialled| dialled);
        let at = scene.began.elapsed();
        let came = dialled.map(|_| "connected".to_owned()).map_err(|error| format!("{error:#}"));
        direct.push((index, Side { local: None, at, came }));
    }
    Fared { pair, begun, through, direct, state: Some(state) }
}

fn sized(target: &Target, kind: Kind) -> Target {
    let mut target = target.clone();
    target.receive_buffer = (kind == Kind::SlowList).then_some(SMALL_WINDOW);
    target
}

async fn connect(target: Target) -> Result<Stream> {
    timeout(CONNECT, target.connect(&FirstByte::default())).await.with_context(|| format!("no handshake in {CONNECT:?}"))?
}

impl Scene {
    fn chosen(&self, stream: &Stream) -> Option<usize> {
        let shown = stream.get_ref().1.peer_certificates()?.first()?;
        self.certificates.iter().position(|certificate| certificate == shown)
    }

    async fn side(&self, pair: Pair, connected: Result<Stream>) -> Side {
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) => return self.failed(None, &error),
        };
        let local = stream.get_ref().0.get_ref().local_addr().ok();
        let until = self.began + self.until;
        let exchanged = timeout_at(until, exchange(pair.kind, self.world, stream, pair.lasts)).await;
        match exchanged.unwrap_or_else(|_| Err(anyhow::anyhow!("it did not end"))) {
            Ok(came) => Side { local, at: self.began.elapsed(), came: Ok(came) },
            Err(error) => self.failed(local, &error),
        }
    }

    fn failed(&self, local: Option<SocketAddr>, error: &anyhow::Error) -> Side {
        Side { local, at: self.began.elapsed(), came: Err(format!("{error:#}")) }
    }

    fn is_worth_a_look(&self, chosen: usize, begun: Duration, at: Duration) -> bool {
        exempt::exemption(&self.record.harms(), chosen, begun, at).is_none()
    }

    /// What the kernel knows of all connections to that apiserver, and what the agent says of itself.
    async fn state(&self, chosen: usize) -> String {
        let addr = self.direct.get(chosen).map_or_else(String::new, |target| target.addr.to_string());
        let sockets = Command::new("ss").args(["-tinoH", "dst", &addr]).kill_on_drop(true).output().await;
        let sockets =
            sockets.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
        let status = page(self.admin, "/status").await.unwrap_or_else(|error| format!("{error:#}"));
        let metrics = page(self.admin, "/metrics").await.unwrap_or_else(|error| format!("{error:#}"));
        let resets: Vec<&str> = metrics.lines().filter(|line| line.starts_with("prismesh_upstream_resets_total")).collect();
        format!("sockets to {addr}:\n{sockets}\nresets: {}\nstatus: {status}", resets.join(", "))
    }
}
