//! A kubelet as far as a balancer meets one: everything on one HTTP/2 connection, a lease that must be renewed, and client-go's
//! pings, by which it finds out that nothing comes any more.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, sleep_until};

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
/// Back-off between connections, doubled each time ...
const BACKOFF_FIRST: Duration = Duration::from_millis(800);
/// ... up to this.
const BACKOFF_MOST: Duration = Duration::from_secs(30);
/// Watches that it holds.
const WATCHES: u32 = 3;
/// The streams of lease and pings.
const LEASE: u32 = 100;
const PING: u32 = 101;

/// Lives for ever.
pub(super) async fn kubelet(host: Host, to: SocketAddr, mut rng: StdRng) {
    let mut backoff = Duration::ZERO;
    let mut renew = Instant::now();
    loop {
        sleep(backoff.mul_f64(rng.random_range(0.5..=1.0))).await;
        if !host.sim.core().state.machines[host.machine].up {
            backoff = BACKOFF_FIRST;
            continue;
        }
        let begun = Instant::now();
        if let Some(mut session) = client::open(&host, to, ClientKind::Kubelet).await {
            let end = live(&host, &mut session, &mut renew).await;
            client::ended(&host, session.number, end);
        }
        let lasted = begun.elapsed() > BACKOFF_MOST;
        backoff = if lasted || backoff.is_zero() { BACKOFF_FIRST } else { (2 * backoff).min(BACKOFF_MOST) };
    }
}

/// Until the connection ends.
async fn live(host: &Host, session: &mut Session, renew: &mut Instant) -> ClientEnd {
    match talk(host, session, renew).await {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => ClientEnd::GaveUp,
        Err(error) => client::of_error(&error),
        Ok(()) => ClientEnd::Done,
    }
}

async fn talk(host: &Host, session: &mut Session, renew: &mut Instant) -> io::Result<()> {
    for watch in 1..=WATCHES {
        session.stream.write_all(&Frame::ask(Verb::Watch, watch).encode()).await?;
    }
    let mut heard = Instant::now();
    let mut pinged: Option<Instant> = None;
    let mut asked: Option<Instant> = None;
    loop {
        let next = match (pinged, asked) {
            (Some(pinged), _) => pinged + PING_PATIENCE,
            (None, _) => heard + PING_IDLE,
        };
        let lease_due = asked.map_or(*renew, |asked| asked + LEASE_PATIENCE);
        tokio::select! {
            biased;
            record = next_record(&mut session.stream, &mut session.read) => {
                let (_, content) = record?;
                heard = Instant::now();
                pinged = None;
                match Frame::decode(&content) {
                    Some(frame) if frame.verb == Verb::GoAway => return Ok(()),
                    Some(frame) if frame.stream == LEASE => {
                        if frame.status == 200 {
                            renewed(host);
                            *renew = Instant::now() + LEASE_EVERY;
                        }
                        asked = None;
                    }
                    _ => {}
                }
            }
            () = sleep_until(lease_due) => {
                // An attempt that got no answer is given up, and made again at once.
                asked = Some(Instant::now());
                session.stream.write_all(&Frame::ask(Verb::Lease, LEASE).encode()).await?;
            }
            () = sleep_until(next) => {
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
