//! A kubelet as far as a balancer meets one: everything on one HTTP/2 connection, a lease that must be renewed, and client-go's
//! pings, by which it finds out that nothing comes any more.
//!
//! Whoever has something to ask dials where there is no connection, and the others use it too. So the lease, which is tried
//! again within 7 s, brings the connection back long before watches that wait 30 s would.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until};

use super::client::{self, Session};
use super::log::{ClientEnd, ClientKind};
use super::prober::next_record;
use super::seams::Host;
use super::wire::{Frame, Verb};

/// A lease is renewed this often ...
const LEASE_EVERY: Duration = Duration::from_secs(10);
/// ... and an attempt ends after this.
const LEASE_PATIENCE: Duration = Duration::from_secs(10);
/// Nothing was read for this long: a ping is sent ...
const PING_IDLE: Duration = Duration::from_secs(30);
/// ... and must be answered within this, or the connection is closed.
const PING_PATIENCE: Duration = Duration::from_secs(15);
/// Pauses of the watches (client-go's reflector): first and most.
const WATCH_PAUSES: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));
/// Pauses of the lease (client-go's lease controller): first and most.
const LEASE_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(7));
/// Watches that it holds.
const WATCHES: u32 = 3;
/// The streams of lease and pings.
const LEASE: u32 = 100;
const PING: u32 = 101;

/// When something is tried, with pauses that double while it fails.
struct Tries {
    first: Duration,
    most: Duration,
    pause: Duration,
    next: Instant,
}

impl Tries {
    fn new((first, most): (Duration, Duration)) -> Tries {
        Tries { first, most, pause: Duration::ZERO, next: Instant::now() }
    }

    fn due(&self) -> bool {
        self.next <= Instant::now()
    }

    fn failed(&mut self, rng: &mut StdRng) {
        self.pause = if self.pause.is_zero() { self.first } else { (2 * self.pause).min(self.most) };
        self.next = Instant::now() + self.pause.mul_f64(rng.random_range(0.5..=1.0));
    }

    fn done(&mut self, next: Duration) {
        self.pause = Duration::ZERO;
        self.next = Instant::now() + next;
    }
}

/// Lives for ever.
pub(super) async fn kubelet(host: Host, to: SocketAddr, mut rng: StdRng) {
    let (mut watches, mut lease) = (Tries::new(WATCH_PAUSES), Tries::new(LEASE_PAUSES));
    loop {
        sleep_until(watches.next.min(lease.next)).await;
        if !host.sim.core().state.machines[host.machine].up {
            // After a boot it is another process, which has not waited for anything yet.
            let soon = WATCH_PAUSES.0.mul_f64(rng.random_range(0.5..=1.0));
            watches.done(soon);
            lease.done(soon);
            continue;
        }
        let begun = Instant::now();
        if let Some(mut session) = client::open(&host, to, ClientKind::Kubelet).await {
            let end = live(&host, &mut session, watches.next, &mut lease).await;
            client::ended(&host, session.number, end);
        }
        if begun.elapsed() > watches.most {
            watches.done(Duration::ZERO);
        }
        for tries in [&mut watches, &mut lease].into_iter().filter(|tries| tries.due()) {
            tries.failed(&mut rng);
        }
    }
}

/// Until the connection ends.
async fn live(host: &Host, session: &mut Session, watching: Instant, lease: &mut Tries) -> ClientEnd {
    match talk(host, session, watching, lease).await {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => ClientEnd::GaveUp,
        Err(error) => client::of_error(&error),
        Ok(()) => ClientEnd::Done,
    }
}

async fn talk(host: &Host, session: &mut Session, watching: Instant, lease: &mut Tries) -> io::Result<()> {
    let mut heard = Instant::now();
    let mut pinged: Option<Instant> = None;
    let mut asked: Option<Instant> = None;
    let mut watches = 0;
    loop {
        let silence = pinged.map_or(heard + PING_IDLE, |pinged| pinged + PING_PATIENCE);
        let lease_due = asked.map_or(lease.next, |asked| asked + LEASE_PATIENCE);
        tokio::select! {
            biased;
            record = next_record(&mut session.stream, &mut session.read) => {
                let (_, content) = record?;
                heard = Instant::now();
                pinged = None;
                match Frame::decode(&content) {
                    Some(frame) if matches!(frame.verb, Verb::GoAway | Verb::NoMore) => return Ok(()),
                    Some(frame) if frame.stream == LEASE => {
                        if frame.status == 200 {
                            renewed(host);
                            lease.done(LEASE_EVERY);
                        }
                        asked = None;
                    }
                    _ => {}
                }
            }
            () = sleep_until(watching), if watches < WATCHES => {
                watches += 1;
                session.stream.write_all(&Frame::ask(Verb::Watch, watches).encode()).await?;
            }
            () = sleep_until(lease_due) => {
                // An attempt that got no answer is given up, and made again at once.
                asked = Some(Instant::now());
                session.stream.write_all(&Frame::ask(Verb::Lease, LEASE).encode()).await?;
            }
            () = sleep_until(silence) => {
                if pinged.is_some() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                pinged = Some(Instant::now());
                session.stream.write_all(&Frame::ask(Verb::Ping, PING).encode()).await?;
            }
        }
    }
}

fn renewed(host: &Host) {
    let mut core = host.sim.core();
    let now = core.now;
    core.log.leases.entry(host.machine).or_default().push(now);
}
