//! Modelled clients whose exchanges last: what is under way when something breaks. Each may have a twin that does the same without
//! prismesh, directly at the endpoint that prismesh chose for the first.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::client::{self, Session};
use super::log::{ClientEnd, ClientKind, Twins};
use super::prober::next_record;
use super::seams::Host;
use super::wire::{Frame, Verb};

/// What such a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Watches something that changes now and then, or never.
    Watch,
    /// Sends 2 MB.
    Upload,
    /// Asks for something that takes 20 s.
    Long,
    /// Keeps its connection, and asks for something small now and then.
    Kept,
}

/// All of them.
pub(super) const ALL: &[What] = &[What::Watch, What::Upload, What::Long, What::Kept];

/// An upload's parts, and how far apart they are.
const PARTS: u32 = 64;
const PART: usize = 32 * 1024;
const PARTS_APART: Duration = Duration::from_millis(100);
/// How long a watch and a kept connection last.
const LASTS: std::ops::Range<u64> = 20_000..60_000;
/// A kept connection asks so often ...
const ASKS_EACH: Duration = Duration::from_secs(3);
/// ... and waits so long for its answer. Whoever uploads, asks for what takes long, or watches, waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Watch => "watch",
            What::Upload => "upload",
            What::Long => "long request",
            What::Kept => "kept connection",
        }
    }
}

/// One exchange after the other, for ever.
pub(super) async fn exchanges(host: Host, to: SocketAddr, what: What, twins: bool, mut rng: StdRng) {
    loop {
        sleep(Duration::from_millis(rng.random_range(0..2_000))).await;
        if !host.sim.core().state.machines[host.machine].up {
            continue;
        }
        // Both draw the same.
        let drawn: u64 = rng.random();
        let Some(session) = client::open(&host, to, ClientKind::Exchange).await else { continue };
        let carried = session.number;
        tokio::join!(play(&host, session, what, drawn), async {
            if let Some(endpoint) = chosen(&host, carried).filter(|_| twins) {
                twin(&host, endpoint, what, drawn, carried).await;
            }
        });
    }
}

/// The endpoint that carries a client's connection.
fn chosen(host: &Host, number: usize) -> Option<SocketAddr> {
    let core = host.sim.core();
    let upstream = core.log.clients[number].upstream?;
    Some(core.log.upstreams.get(&upstream)?.to)
}

async fn twin(host: &Host, endpoint: SocketAddr, what: What, drawn: u64, carried: usize) {
    let Some(session) = client::open(host, endpoint, ClientKind::Twin).await else { return };
    host.sim.core().log.twins.push(Twins { carried, direct: session.number, what: what.name() });
    play(host, session, what, drawn).await;
}

async fn play(host: &Host, mut session: Session, what: What, drawn: u64) {
    let mut rng = StdRng::seed_from_u64(drawn);
    let life = Duration::from_millis(rng.random_range(LASTS));
    let done = match what {
        What::Upload => upload(&mut session).await,
        What::Long => session.ask(Verb::Long, 1).await,
        What::Kept => keep(&mut session, life).await,
        What::Watch => watch(&mut session, if rng.random() { Verb::Watch } else { Verb::QuietWatch }, life).await,
    };
    let end = match done {
        Ok(()) => ClientEnd::Done,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => ClientEnd::GaveUp,
        Err(error) => client::of_error(&error),
    };
    client::ended(host, session.number, end);
}

async fn upload(session: &mut Session) -> io::Result<()> {
    for _ in 0..PARTS {
        session.stream.write_all(&Frame::ask(Verb::Part, 1).encode_with(PART)).await?;
        idle(session, PARTS_APART).await?;
    }
    session.ask(Verb::Get, 1).await
}

async fn keep(session: &mut Session, life: Duration) -> io::Result<()> {
    let mut asked = Duration::ZERO;
    while asked < life {
        timeout(PATIENCE, session.ask(Verb::Get, 1)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        idle(session, ASKS_EACH).await?;
        asked += ASKS_EACH;
    }
    Ok(())
}

async fn watch(session: &mut Session, verb: Verb, life: Duration) -> io::Result<()> {
    session.ask(verb, 1).await?;
    idle(session, life).await
}

/// Hears what it is told for so long: a client always reads.
async fn idle(session: &mut Session, life: Duration) -> io::Result<()> {
    let told = async {
        loop {
            let (_, content) = next_record(&mut session.stream, &mut session.read).await?;
            if Frame::decode(&content).is_some_and(|frame| frame.verb == Verb::GoAway) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    timeout(life, told).await.unwrap_or(Ok(()))
}
